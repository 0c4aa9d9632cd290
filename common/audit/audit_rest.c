/* SPDX-License-Identifier: Apache-2.0 */
#include "audit/audit_rest.h"

#include <string.h>
#include "util/cleanup.h"

#define STRING_MAX 256

/* What is asked for: never "vars", "options" and the like, in which anything may be. */
static void add_asked(json_t *o, const json_t *body)
{
	static const char *const keys[] = {"guest",  "to",       "mode",    "name",
					   "keep",   "launcher", "driver",  "socket",
					   "memory", "start",    "enabled", "cordoned"};
	json_t *asked = json_object();

	for (size_t i = 0; asked && i < ARRAY_SIZE(keys); i++) {
		json_t *v = json_object_get(body, keys[i]);

		if (json_is_boolean(v) ||
		    (json_is_string(v) && json_string_length(v) <= STRING_MAX))
			json_object_set(asked, keys[i], v);
	}
	if (json_object_size(asked))
		json_object_set(o, "asked", asked);
	json_decref(asked);
}

static void add_peer(json_t *o, const struct rest_peer *p)
{
	json_object_set_new(o, "who", json_string(p->who));
	if (!p->local) {
		json_object_set_new(o, "address", json_string(p->address));
		return;
	}
	json_object_set_new(o, "peer_pid", json_integer(p->pid));
	json_object_set_new(o, "peer_uid", json_integer(p->uid));
	json_object_set_new(o, "peer_gid", json_integer(p->gid));
}

void audit_request(struct audit *a, const struct rest_req *req, int status, const char *code,
		   const json_t *answer)
{
	bool looks = !strcmp(rest_method(req), "GET"), stranger = status == 401 || status == 403;
	json_t *o;

	if (!a || (looks && !stranger))
		return;
	o = json_pack("{s:s, s:s, s:i, s:s*, s:O*}", "method", rest_method(req), "path",
		      rest_path(req), "status", status, "code", code, "job",
		      json_object_get(answer, "id"));
	if (!o)
		return;
	add_peer(o, rest_peer(req));
	add_asked(o, rest_body(req));
	audit_note(a, "request", o, status >= 400 ? AUDIT_REFUSED : AUDIT_PLAIN);
}
