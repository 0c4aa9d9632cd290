/* SPDX-License-Identifier: Apache-2.0 */
/* The table of `decant check`, made of nothing but the JSON: what is shown is what programs get. */
#include "host/host_probe.h"

#include <inttypes.h>
#include <string.h>

#define LABEL 22
#define WIDTH 100

static json_t *in(const json_t *host, const char *a, const char *b)
{
	return json_object_get(json_object_get(host, a), b);
}

static const char *text(const json_t *v)
{
	return json_is_string(v) ? json_string_value(v) : "";
}

static void label(FILE *out, const char *name)
{
	fprintf(out, "%-*s", LABEL, name);
}

static void row(FILE *out, const char *name, const char *value)
{
	label(out, name);
	fprintf(out, "%s\n", value);
}

static void row_yes(FILE *out, const char *name, const json_t *yes, const char *more)
{
	label(out, name);
	fprintf(out, "%s%s%s\n", json_is_true(yes) ? "yes" : "no", *more ? ": " : "", more);
}

/* Words, broken into lines below each other. */
static void row_words(FILE *out, const char *name, const json_t *array, const char *none)
{
	size_t i, at = LABEL;
	json_t *v;

	label(out, name);
	json_array_foreach(array, i, v) {
		size_t n = strlen(text(v));

		if (i && at + 1 + n > WIDTH) {
			fprintf(out, "\n%*s", LABEL, "");
			at = LABEL;
		} else if (i) {
			fputc(' ', out);
			at++;
		}
		fputs(text(v), out);
		at += n;
	}
	fprintf(out, "%s\n", json_array_size(array) ? "" : none);
}

static void put_bytes(FILE *out, const json_t *v)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double n = (double)json_integer_value(v);
	size_t u = 0;

	if (!json_is_integer(v)) {
		fputs("unknown", out);
		return;
	}
	while (n >= 1024 && u + 1 < sizeof(units) / sizeof(units[0])) {
		n /= 1024;
		u++;
	}
	fprintf(out, "%.*f %s", n < 10 && n != (double)(int)n ? 1 : 0, n, units[u]);
}

static void row_doors(FILE *out, const json_t *host)
{
	json_t *doors = in(host, "userfaultfd", "doors");
	const char *how = text(in(host, "userfaultfd", "how"));
	const char *name, *sep = "";
	json_t *why;

	row_yes(out, "userfaultfd", in(host, "userfaultfd", "available"), how);
	label(out, "  may be opened by");
	json_object_foreach(doors, name, why) {
		fprintf(out, "%s%s", sep, name);
		if (json_is_string(why))
			fprintf(out, " (no: %s)", text(why));
		sep = ", ";
	}
	fputc('\n', out);
	row_words(out, "  features", in(host, "userfaultfd", "features"), "none");
	row_words(out, "  lacking", in(host, "userfaultfd", "missing_features"), "nothing");
}

static void row_tracking(FILE *out, const char *name, const json_t *kinds)
{
	bool async = json_is_true(json_object_get(kinds, "async"));
	bool faults = json_is_true(json_object_get(kinds, "faults"));

	label(out, name);
	fprintf(out, "%s%s%s\n", async ? "async" : "", async && faults ? ", " : "",
		faults ? "faults" : (async ? "" : "none"));
}

static void row_pages(FILE *out, const json_t *host)
{
	size_t i;
	json_t *v;

	label(out, "page sizes");
	json_array_foreach(json_object_get(host, "page_sizes"), i, v) {
		fputs(i ? ", " : "", out);
		put_bytes(out, json_object_get(v, "bytes"));
		if (json_is_integer(json_object_get(v, "total")))
			fprintf(out, " (%" JSON_INTEGER_FORMAT " free of %" JSON_INTEGER_FORMAT ")",
				json_integer_value(json_object_get(v, "free")),
				json_integer_value(json_object_get(v, "total")));
	}
	fputc('\n', out);
	label(out, "transparent huge");
	fprintf(out, "%s, shared memory %s\n", text(in(host, "thp", "anonymous")),
		text(in(host, "thp", "shared")));
}

static void row_ciphers(FILE *out, const json_t *host)
{
	size_t i;
	json_t *v;

	row(out, "TLS 1.3", text(in(host, "tls", "library")));
	json_array_foreach(in(host, "tls", "ciphers"), i, v) {
		const json_t *rate = json_object_get(v, "bytes_per_s");

		label(out, i ? "" : "  ciphers");
		fprintf(out, "%-30s", text(json_object_get(v, "name")));
		if (json_is_integer(rate))
			fprintf(out, " %.0f MB/s on one core",
				(double)json_integer_value(rate) / 1e6);
		fputc('\n', out);
	}
}

static void put_number(FILE *out, const char *name, const json_t *v, const char *none)
{
	fprintf(out, "%s ", name);
	if (json_is_integer(v))
		fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	else
		fputs(none, out);
}

static void row_limits(FILE *out, const json_t *host)
{
	label(out, "memory");
	put_bytes(out, in(host, "memory", "available_bytes"));
	fputs(" available of ", out);
	put_bytes(out, in(host, "memory", "total_bytes"));
	fputs(", /dev/shm ", out);
	put_bytes(out, in(host, "memory", "shm_free_bytes"));
	fputs(" free of ", out);
	put_bytes(out, in(host, "memory", "shm_total_bytes"));
	fputc('\n', out);
	label(out, "limits");
	put_number(out, "open files", in(host, "limits", "nofile"), "unlimited");
	put_number(out, ", locked bytes", in(host, "limits", "memlock_bytes"), "unlimited");
	fputc('\n', out);
	label(out, "");
	put_number(out, "ptrace_scope", in(host, "limits", "ptrace_scope"), "absent");
	put_number(out, ", unprivileged_userfaultfd",
		   in(host, "limits", "unprivileged_userfaultfd"), "absent");
	fputc('\n', out);
}

static void row_capabilities(FILE *out, const json_t *host)
{
	json_t *caps = json_object_get(host, "capabilities"), *v, *has = json_array();
	const char *name;

	json_object_foreach(caps, name, v)
		if (json_is_true(v))
			json_array_append_new(has, json_string(name));
	row_words(out, "capabilities", has, "none");
	json_decref(has);
}

static void put_findings(FILE *out, const json_t *host)
{
	size_t i;
	json_t *v;

	json_array_foreach(json_object_get(host, "findings"), i, v) {
		fprintf(out, "\n%s: %s\n", text(json_object_get(v, "level")),
			text(json_object_get(v, "what")));
		fprintf(out, "    %s\n", text(json_object_get(v, "means")));
		fprintf(out, "    to do: %s\n", text(json_object_get(v, "do")));
	}
}

void host_probe_print(FILE *out, const json_t *host)
{
	label(out, "host");
	fprintf(out, "%s, Linux %s %s, %" JSON_INTEGER_FORMAT " processors, decant %s\n",
		text(json_object_get(host, "hostname")), text(json_object_get(host, "kernel")),
		text(json_object_get(host, "arch")),
		json_integer_value(json_object_get(host, "cpus")),
		text(json_object_get(host, "version")));
	row_doors(out, host);
	row_yes(out, "incoming post-copy", in(host, "postcopy", "available"),
		text(in(host, "postcopy", "reason")));
	row_tracking(out, "tracking, shared", in(host, "tracking", "shared"));
	row_tracking(out, "tracking, anonymous", in(host, "tracking", "anonymous"));
	row_pages(out, host);
	row_yes(out, "KVM", in(host, "kvm", "available"), text(in(host, "kvm", "reason")));
	row_ciphers(out, host);
	row_limits(out, host);
	row_capabilities(out, host);
	put_findings(out, host);
}
