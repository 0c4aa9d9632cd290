# SPDX-License-Identifier: Apache-2.0
"""deploy/openapi.yaml as JSON Schema, for the checks of the document and of what the agents answer."""
import copy
import re

import jsonschema
import yaml

METHODS = ("get", "put", "post", "delete")


def load(path="deploy/openapi.yaml"):
    with open(path, encoding="utf-8") as f:
        return yaml.safe_load(f)


def strict(schema):
    """
    A schema of OpenAPI 3.0 as one of JSON Schema. Whatever is not described is refused: clients must pass over
    what they do not know, but our own answers must not hold it.
    """
    if isinstance(schema, list):
        return [strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: v if k in ("enum", "required", "example", "default") else strict(v) for k, v in schema.items()
           if k != "nullable"}
    if out.get("type") == "object" and "additionalProperties" not in out:
        out["additionalProperties"] = False
    if schema.get("nullable") is True:
        return {"anyOf": [{"type": "null"}, out]}
    return out


class Spec:
    def __init__(self, doc):
        self.doc = doc
        schemas = {n: strict(s) for n, s in doc["components"]["schemas"].items()}
        self.root = {"components": {"schemas": schemas}}
        self.validators = {}
        self.paths = []
        for path, item in doc["paths"].items():
            pattern = re.compile("^" + re.sub(r"\\\{[a-z_]+\\\}", "[^/]+", re.escape(path)) + "$")
            self.paths.append((path, pattern, item))
        # Those without parameters first.
        self.paths.sort(key=lambda p: p[0].count("{"))

    def ref(self, node):
        while isinstance(node, dict) and "$ref" in node:
            at = self.doc
            for key in node["$ref"][2:].split("/"):
                at = at[key.replace("~1", "/").replace("~0", "~")]
            node = at
        return node

    def find(self, path):
        for name, pattern, item in self.paths:
            if pattern.match(path):
                return name, item
        return None, None

    def validator(self, key, schema):
        if key not in self.validators:
            whole = copy.copy(self.root)
            whole["allOf"] = [strict(schema)]
            self.validators[key] = jsonschema.Draft7Validator(whole)
        return self.validators[key]

    def errors(self, key, schema, value):
        """What is wrong with a value, one line for each."""
        for e in self.validator(key, schema).iter_errors(value):
            best = jsonschema.exceptions.best_match([e])
            yield "%s: %s" % ("/".join(str(p) for p in best.absolute_path) or "body", best.message[:300])
