/* SPDX-License-Identifier: Apache-2.0 */
/* What the audit of both agents says of whole migrations, of decisions, and of those who were refused. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_test.h"

TestSuite(audit, .timeout = 240);

/* Return: the lines of a host's audit, new reference; each must be JSON with what every line has */
static json_t *lines(struct lab_host *h)
{
	char *text = lab_read_file(lab_host_path(h, "state/audit.log")), *line, *save = NULL;
	json_t *all = json_array();

	lab_check(h->lab, text, "no audit.log");
	/* The last one may be half written. */
	line = strrchr(text, '\n');
	*(line ? line + 1 : text) = '\0';
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_t *o = json_loads(line, 0, NULL);

		lab_check(h->lab, o, "not JSON: %s", line);
		lab_check(h->lab,
			  json_object_get(o, "at") && json_object_get(o, "agent") &&
				  json_object_get(o, "pid") && json_object_get(o, "what"),
			  "%s", line);
		json_array_append_new(all, o);
	}
	free(text);
	return all;
}

/* Does the line have these members? @want: a JSON object, "" in it is any string that is not empty */
static bool fits(json_t *line, json_t *want)
{
	const char *key;
	json_t *value;

	json_object_foreach(want, key, value) {
		json_t *is = json_object_get(line, key);

		if (json_is_string(value) && !json_string_length(value) ? !json_string_length(is)
									: !json_equal(is, value))
			return false;
	}
	return true;
}

/* Such a line is there, behind the one at @from. Return: behind it */
static size_t says(struct lab_host *h, size_t from, const char *text)
{
	json_t *all, *want = json_loads(text, 0, NULL);
	uint64_t end = lab_now_ms() + LAB_LEAST_MS * h->lab->slow;

	lab_check(h->lab, want, "not JSON: %s", text);
	do {
		all = lines(h);
		for (size_t i = from; i < json_array_size(all); i++)
			if (fits(json_array_get(all, i), want)) {
				json_decref(all);
				json_decref(want);
				return i + 1;
			}
		json_decref(all);
		lab_nap();
	} while (lab_now_ms() < end);
	lab_check(h->lab, false, "%s says nothing of %s behind line %zu: %s", h->name, text, from,
		  lab_read_file(lab_host_path(h, "state/audit.log")));
	return 0;
}

/* Printf for says(). */
static size_t saysf(struct lab_host *h, size_t from, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static size_t saysf(struct lab_host *h, size_t from, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return says(h, from, text);
}

Test(audit, a_whole_migration)
{
	struct lab_move move = {.mode = "hybrid"};
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 16, .threads = 2});
	json_t *job = lab_migrate(a, b, g, &move);
	const char *id = lab_str(lab, job, "id");
	unsigned int uid = getuid();
	size_t at;

	lab_guest_arrived(g, b);
	at = saysf(a, 0,
		   "{\"agent\": \"source\", \"what\": \"job-started\", \"job\": \"%s\", \"kind\": "
		   "\"migration\", \"guest\": \"%s\", \"to\": \"%s\", \"mode\": \"hybrid\"}",
		   id, g->name, b->to);
	at = saysf(a, at,
		   "{\"what\": \"request\", \"method\": \"POST\", \"path\": \"/v1/migrations\", "
		   "\"status\": 202, \"job\": \"%s\", \"peer_uid\": %u, \"who\": \"\", \"asked\": "
		   "{\"guest\": \"%s\", \"to\": \"%s\", \"mode\": \"hybrid\"}}",
		   id, uid, g->name, b->to);
	at = saysf(a, at,
		   "{\"what\": \"ownership\", \"job\": \"%s\", \"owner_before\": \"source\", "
		   "\"owner\": \"in-doubt\", \"because\": \"ready\", \"uuid\": \"\"}",
		   id);
	at = saysf(a, at,
		   "{\"what\": \"ownership\", \"job\": \"%s\", \"owner_before\": \"in-doubt\", "
		   "\"owner\": \"destination\", \"because\": \"running\"}",
		   id);
	saysf(a, at,
	      "{\"what\": \"released\", \"job\": \"%s\", \"owner\": \"destination\", \"phase\": "
	      "\"completed\", \"digest_ok\": true}",
	      id);
	at = saysf(b, 0,
		   "{\"agent\": \"dest\", \"what\": \"incoming-started\", \"job\": \"%s\", "
		   "\"kind\": \"incoming\", \"guest\": \"%s\", \"from\": \"\", \"identity\": \"\"}",
		   id, g->name);
	at = saysf(b, at,
		   "{\"what\": \"ownership\", \"job\": \"%s\", \"owner\": \"destination\", "
		   "\"because\": \"commit\", \"guest\": \"%s\"}",
		   id, g->name);
	at = saysf(b, at,
		   "{\"what\": \"incoming-ended\", \"job\": \"%s\", \"phase\": \"completed\", "
		   "\"digest_ok\": true}",
		   id);
	/* It is registered with the source there, by the destination. */
	saysf(b, 0,
	      "{\"agent\": \"source\", \"what\": \"request\", \"path\": \"/v1/guests\", "
	      "\"status\": "
	      "201, \"peer_pid\": %d}",
	      (int)b->dest->pid);
	json_decref(job);
	lab_end(lab);
}

Test(audit, cancel_refusals_and_no_secrets)
{
	struct lab_move move = {.mode = "precopy",
				.args = {"--bandwidth", "8Mbit"},
				.exit = 1,
				.phase = "cancelled"};
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 16, .threads = 2});
	const char *secret = "{\"name\": \"other\", \"driver\": \"native\", \"vars\": "
			     "{\"password\": \"hunter2\"}}";
	struct lab_proc *p = lab_migrate_begin(a, b, g, &move);
	json_t *job;
	char *text;
	size_t at;

	lab_until(lab, 20000, lab_job_phase_is(a, "precopy"), "precopy");
	job = lab_job_newest(a);
	lab_check(lab,
		  lab_decant(a, 10000, NULL, NULL,
			     (const char *[]){"cancel", lab_str(lab, job, "id"), NULL}) == 0,
		  "cancel");
	json_decref(lab_migrate_end(a, p, &move));
	at = saysf(
		a, 0,
		"{\"what\": \"request\", \"path\": \"/v1/migrations/%s/cancel\", \"status\": 202}",
		lab_str(lab, job, "id"));
	/* It ends by itself, maybe before the answer is on its way. */
	saysf(a, 0,
	      "{\"what\": \"job-ended\", \"job\": \"%s\", \"phase\": \"cancelled\", \"owner\": "
	      "\"source\"}",
	      lab_str(lab, job, "id"));
	lab_check(lab,
		  lab_http(a->source_sock, "POST", "/v1/migrations",
			   "{\"guest\": \"nobody\", \"to\": \"x\"}", NULL) == 404,
		  "a guest that is not there");
	says(a, at,
	     "{\"what\": \"request\", \"status\": 404, \"code\": \"no-such-guest\", \"asked\": "
	     "{\"guest\": \"nobody\", \"to\": \"x\"}}");
	lab_http(a->source_sock, "POST", "/v1/no/such/path", "{\"guest\": \"x\"}", NULL);
	says(a, at, "{\"what\": \"request\", \"status\": 404, \"code\": \"no-such-path\"}");
	lab_check(lab, lab_http(a->source_sock, "POST", "/v1/guests", secret, NULL) == 201, "add");
	says(a, at,
	     "{\"what\": \"request\", \"path\": \"/v1/guests\", \"status\": 201, \"asked\": "
	     "{\"name\": \"other\", \"driver\": \"native\"}}");
	text = lab_read_file(lab_host_path(a, "state/audit.log"));
	lab_check(lab, !strstr(text, "hunter2"), "a secret: %s", text);
	free(text);
	json_decref(job);
	lab_end(lab);
}

/* Its copy there dies, and an operator lets the one here go on. */
Test(audit, a_decision)
{
	struct lab_move move = {.mode = "postcopy",
				.args = {"--bandwidth", "8Mbit"},
				.exit = 1,
				.phase = "failed",
				.code = "guest-gone",
				.owner = "destination"};
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	/* It asks for its pages as fast as it can: there must be enough of them. */
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64, .threads = 2});
	struct lab_proc *p = lab_migrate_begin(a, b, g, &move);
	json_t *job;
	size_t at;

	lab_until(lab, 20000, lab_job_phase_is(a, "postcopy"), "post-copy");
	kill(lab_guest_pid(g, b), SIGKILL);
	lab_until(lab, 20000, lab_job_phase_is(a, "failed"), "its end");
	lab_check(lab, lab_proc_wait(lab, p, 20000) == 1, "migrate");
	job = lab_job_newest(a);
	at = saysf(a, 0,
		   "{\"what\": \"job-ended\", \"job\": \"%s\", \"phase\": \"failed\", \"owner\": "
		   "\"destination\", \"code\": \"\", \"error\": \"\"}",
		   lab_str(lab, job, "id"));
	saysf(b, 0, "{\"what\": \"incoming-ended\", \"job\": \"%s\", \"phase\": \"failed\"}",
	      lab_str(lab, job, "id"));
	lab_check(
		lab,
		lab_decant(a, 10000, NULL, NULL,
			   (const char *[]){"resolve", lab_str(lab, job, "id"), "--keep", "source",
					    "--confirm", lab_str(lab, job, "id"), NULL}) == 0,
		"resolve");
	at = saysf(a, at, "{\"what\": \"resolved\", \"job\": \"%s\", \"keep\": \"source\"}",
		   lab_str(lab, job, "id"));
	saysf(a, at,
	      "{\"what\": \"request\", \"status\": 202, \"asked\": {\"keep\": \"source\"}, "
	      "\"path\": \"/v1/migrations/%s/resolve\"}",
	      lab_str(lab, job, "id"));
	at = saysf(a, at,
		   "{\"what\": \"ownership\", \"job\": \"%s\", \"owner\": \"source\", "
		   "\"owner_before\": \"destination\", \"because\": \"keep-source\"}",
		   lab_str(lab, job, "id"));
	saysf(a, at, "{\"what\": \"resolution-told\", \"job\": \"%s\", \"conflict\": false}",
	      lab_str(lab, job, "id"));
	lab_guest_verified(g);
	json_decref(job);
	lab_end(lab);
}

Test(audit, strangers_are_named)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a =
		lab_host_start(lab, &(struct lab_host_opts){.name = "a", .identity = "host-a"});
	struct lab_host *b = lab_host_start(
		lab, &(struct lab_host_opts){.name = "b", .allow = "[\"DNS:somebody-else\"]"});
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 16, .threads = 1});

	lab_check(lab,
		  lab_decant(a, 30000, NULL, NULL,
			     (const char *[]){"migrate", g->name, "--to", b->to, "--wait", NULL}) !=
			  0,
		  "a stranger was let in");
	says(b, 0,
	     "{\"agent\": \"dest\", \"what\": \"peer-refused\", \"identity\": \"\", \"address\": "
	     "\"\", "
	     "\"code\": \"\", \"error\": \"\"}");
	lab_end(lab);
}
