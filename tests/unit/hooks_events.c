/* SPDX-License-Identifier: Apache-2.0 */
/* What hooks with a url are told, in which order, how often, and what becomes of what they do not take. */
#include "unit/hooks_fixture.h"

TestSuite(hooks_events, .init = box_quiet, .timeout = 60);

#define ROWS(...)                               \
	(const struct hook_say[]){__VA_ARGS__}, \
		sizeof((struct hook_say[]){__VA_ARGS__}) / sizeof(struct hook_say)

static const char *text(const struct hook_request *q, const char *key)
{
	const char *s = json_string_value(json_object_get(q->json, key));

	return s ? s : "";
}

Test(hooks_events, an_event_is_a_cloud_event)
{
	const struct hook_request *q;
	char host[128] = "", source[200], *type;
	struct box b;

	box_init(&b);
	box_open(&b, "[{\"url\": \"%s/told\"}]");
	box_emit(&b, "migration.precopy", "migrations/one", 7);
	box_until(&b, box_count(&b).delivered == 1);
	q = hook_server_get(b.server, 0);
	gethostname(host, sizeof(host) - 1);
	snprintf(source, sizeof(source), "//%s/decant-source", host);
	cr_expect(eq(str, (char *)q->path, "/told"));
	cr_expect(zero(int, strncmp(q->head, "POST ", 5)));
	type = hook_server_header(q, "Content-Type");
	cr_expect(eq(str, type, "application/cloudevents+json; charset=utf-8"));
	free(type);
	cr_expect(eq(str, (char *)text(q, "specversion"), "1.0"));
	cr_expect(eq(str, (char *)text(q, "type"), "decant.migration.precopy"));
	cr_expect(eq(str, (char *)text(q, "source"), source));
	cr_expect(eq(str, (char *)text(q, "subject"), "migrations/one"));
	cr_expect(eq(str, (char *)text(q, "datacontenttype"), "application/json"));
	cr_expect(eq(sz, strlen(text(q, "id")), 36));
	cr_expect(eq(sz, strlen(text(q, "sequence")), 20));
	cr_expect(eq(sz, strlen(text(q, "time")), 24), "%s", text(q, "time"));
	cr_expect(eq(int, box_n(&b, 0), 7));
	cr_expect(zero(uint, box_spooled(&b)));
	box_free(&b);
}

/* The openssl program knows nothing of ours. */
Test(hooks_events, a_signature_is_verified_by_others)
{
	char secret[128], cmd[512], line[256] = "", *signature, *mac;
	const struct hook_request *q;
	struct box b;
	FILE *f;

	box_init(&b);
	snprintf(secret, sizeof(secret), "%s/secret", b.dir);
	f = fopen(secret, "w");
	fputs("correct horse battery\n", f);
	fclose(f);
	chmod(secret, 0600);
	snprintf(cmd, sizeof(cmd), "[{\"url\": \"%%s/\", \"secret_file\": \"%s\"}]", secret);
	box_open(&b, cmd);
	box_emit(&b, "migration.completed", "migrations/one", 1);
	box_until(&b, box_count(&b).delivered == 1);
	q = hook_server_get(b.server, 0);
	signature = hook_server_header(q, "Decant-Signature");
	cr_assert(ne(ptr, signature, NULL));
	cr_expect(zero(int, strncmp(signature, "t=", 2)));
	mac = strstr(signature, ",v1=");
	cr_assert(ne(ptr, mac, NULL), "%s", signature);
	*mac = '\0';
	cr_expect(llabs(atoll(signature + 2) - (long long)time(NULL)) <= 5);
	snprintf(cmd, sizeof(cmd), "%s/signed", b.dir);
	f = fopen(cmd, "w");
	fprintf(f, "%s.", signature + 2);
	fwrite(q->body, 1, q->len, f);
	fclose(f);
	snprintf(cmd, sizeof(cmd),
		 "openssl dgst -sha256 -hmac 'correct horse battery' -r %s/signed", b.dir);
	f = popen(cmd, "r");
	cr_assert(ne(ptr, fgets(line, sizeof(line), f), NULL));
	pclose(f);
	line[64] = '\0';
	cr_expect(eq(str, line, mac + 4));
	free(signature);
	box_free(&b);
}

/* The first event of one job is answered late, then refused: its second one waits, those of another job do not. */
Test(hooks_events, jobs_keep_their_order_and_wait_for_no_other)
{
	static const struct hook_say rows[] = {
		{.when = "\"n\":1}", .times = 1, .manner = HOOK_HANGS},
		{.when = "\"n\":1}", .times = 2, .status = 503},
	};
	size_t firsts = 0, i = 0;
	struct box b;

	box_init(&b);
	hook_server_script(b.server, rows, 2);
	box_open(&b, "[{\"url\": \"%s/\", \"retry_ms\": 10, \"timeout_ms\": 1500}]");
	box_emit(&b, "migration.setup", "migrations/one", 1);
	box_emit(&b, "migration.precopy", "migrations/one", 2);
	for (int n = 10; n < 30; n++)
		box_emit(&b, "migration.setup", "migrations/two", n);
	box_until(&b, box_count(&b).delivered == 20);
	cr_expect(zero(u64, box_count(&b).failed), "the other job has not waited");
	for (int n = 10; i < hook_server_count(b.server); i++) {
		firsts += box_n(&b, i) == 1;
		cr_expect(ne(int, box_n(&b, i), 2), "the second waits for the first");
		if (box_n(&b, i) != 1)
			cr_expect(eq(int, box_n(&b, i), n++));
	}
	box_until(&b, box_count(&b).delivered == 22);
	for (; i < hook_server_count(b.server); i++) {
		firsts += box_n(&b, i) == 1;
		if (box_n(&b, i) == 2)
			cr_expect(eq(sz, firsts, 4));
	}
	cr_expect(eq(sz, i, 25));
	cr_expect(eq(u64, box_count(&b).failed, 3));
	cr_expect(zero(uint, box_dead(&b, NULL)));
	box_free(&b);
}

/** struct fate - what becomes of an event that is answered so. @tries: requests that come; @dead: it is given up */
struct fate {
	const char *name;
	struct hook_say say;
	unsigned int tries;
	bool dead;
	const char *why;
};

Test(hooks_events, what_is_tried_again_and_what_is_not)
{
	static const struct fate fates[] = {
		{"again", {.times = 2, .status = 503}, 3, false, NULL},
		{"busy", {.times = 1, .status = 429}, 2, false, NULL},
		{"never", {.status = 500}, 3, true, "HTTP status 500"},
		{"gone", {.status = 410}, 1, true, "HTTP status 410"},
		{"moved",
		 {.status = 302, .headers = "Location: http://127.0.0.1:1/there\r\n"},
		 1,
		 true,
		 "http://127.0.0.1:1/there: redirects are not followed"},
		{"half", {.times = 1, .manner = HOOK_CLOSES, .body = "half"}, 2, false, NULL},
		{"endless", {.manner = HOOK_POURS}, 1, false, NULL},
		{"silent", {.times = 1, .manner = HOOK_HANGS}, 2, false, NULL},
		{"slow", {.manner = HOOK_DRIPS}, 3, true, "hook-timeout"},
	};
	enum { N = sizeof(fates) / sizeof(fates[0]) };
	struct hook_say rows[N];
	char *dead;
	struct box b;

	box_init(&b);
	for (size_t i = 0; i < N; i++) {
		rows[i] = fates[i].say;
		rows[i].when = fates[i].name;
	}
	hook_server_script(b.server, rows, N);
	box_open(&b,
		 "[{\"url\": \"%s/\", \"retry_ms\": 20, \"attempts\": 3, \"timeout_ms\": 300}]");
	for (size_t i = 0; i < N; i++)
		box_emit(&b, "migration.setup", fates[i].name, (int)i);
	box_until(&b, box_count(&b).delivered + box_count(&b).dead == N);
	box_dead(&b, &dead);
	for (size_t i = 0; i < N; i++) {
		const struct fate *f = &fates[i];
		char subject[80], *line = NULL;
		unsigned int tries = 0;

		for (size_t k = 0; k < hook_server_count(b.server); k++)
			tries += box_n(&b, k) == (int)i;
		cr_expect(eq(uint, tries, f->tries), "%s", f->name);
		snprintf(subject, sizeof(subject), "\"subject\":\"%s\"", f->name);
		line = dead ? strstr(dead, subject) : NULL;
		cr_expect(eq(int, line != NULL, f->dead), "%s", f->name);
		if (!line)
			continue;
		while (line > dead && line[-1] != '\n')
			line--;
		*strchr(line, '\n') = '\0';
		cr_expect(has(line, f->why), "%s: %s", f->name, line);
		line[strlen(line)] = '\n';
	}
	cr_expect(zero(uint, box_spooled(&b)));
	free(dead);
	box_free(&b);
}

Test(hooks_events, pauses_grow_and_differ)
{
	uint64_t first[3], second[3];
	struct box b;

	box_init(&b);
	hook_server_script(b.server, ROWS({.status = 503}));
	box_open(&b, "[{\"url\": \"%s/\", \"retry_ms\": 100, \"attempts\": 3}]");
	for (int i = 0; i < 3; i++) {
		char job[16];

		snprintf(job, sizeof(job), "%d", i);
		box_emit(&b, "migration.setup", job, i);
	}
	box_until(&b, box_count(&b).dead == 3);
	for (int i = 0; i < 3; i++) {
		uint64_t at[3];
		int n = 0;

		for (size_t k = 0; k < hook_server_count(b.server); k++)
			if (box_n(&b, k) == i)
				at[n++] = hook_server_get(b.server, k)->at_ms;
		cr_assert(eq(int, n, 3));
		first[i] = at[1] - at[0];
		second[i] = at[2] - at[1];
		cr_expect(ge(u64, first[i], 49), "half of 100 ms at least");
		cr_expect(ge(u64, second[i], 99), "half of 200 ms at least");
	}
	cr_expect(first[0] != first[1] || first[1] != first[2] || second[0] != second[1] ||
		  second[1] != second[2]);
	box_free(&b);
}

Test(hooks_events, retry_after_is_obeyed)
{
	struct box b;

	box_init(&b);
	hook_server_script(b.server,
			   ROWS({.times = 1, .status = 429, .headers = "Retry-After: 1\r\n"}));
	box_open(&b, "[{\"url\": \"%s/\", \"retry_ms\": 10}]");
	box_emit(&b, "migration.setup", "one", 1);
	box_until(&b, box_count(&b).delivered == 1);
	cr_expect(ge(u64, hook_server_get(b.server, 1)->at_ms - hook_server_get(b.server, 0)->at_ms,
		     990));
	box_free(&b);
}

Test(hooks_events, what_was_for_a_hook_that_is_gone_is_a_dead_letter)
{
	struct box b;

	box_init(&b);
	hook_server_script(b.server, ROWS({.status = 503}));
	box_open(&b, "[{\"url\": \"%s/old\", \"retry_ms\": 10, \"attempts\": 100}]");
	for (int i = 0; i < 5; i++)
		box_emit(&b, "migration.setup", "one", i);
	box_until(&b, hook_server_count(b.server) >= 2);
	box_close(&b);
	cr_expect(eq(uint, box_spooled(&b), 5));
	box_open(&b, "[{\"url\": \"%s/new\"}]");
	box_run_ms(&b, 50);
	cr_expect(zero(u64, box_count(&b).delivered));
	cr_expect(eq(uint, box_dead(&b, NULL), 5));
	cr_expect(zero(uint, box_spooled(&b)));
	box_free(&b);
}

/* What was not taken is told by the next life, in its order, once, before what is new. */
Test(hooks_events, a_named_hook_may_move)
{
	struct box b;

	box_init(&b);
	hook_server_script(b.server, ROWS({.manner = HOOK_HANGS}));
	box_open(&b, "[{\"name\": \"cloud\", \"url\": \"%s/\"}]");
	for (int i = 0; i < 5; i++)
		box_emit(&b, "migration.setup", "one", i);
	box_until(&b, hook_server_count(b.server) == 1);
	box_close(&b);
	hook_server_stop(b.server);
	b.server = hook_server_start(NULL, NULL);
	box_open(&b, "[{\"name\": \"cloud\", \"url\": \"%s/new\"}]");
	box_emit(&b, "migration.precopy", "one", 5);
	box_until(&b, box_count(&b).delivered == 6);
	for (int i = 0; i < 6; i++)
		cr_expect(eq(int, box_n(&b, (size_t)i), i));
	cr_expect(zero(uint, box_dead(&b, NULL)));
	box_free(&b);
}

/* A torn file, as a crash of the host may leave one, costs that event alone. */
Test(hooks_events, a_torn_file_is_passed_over)
{
	char cmd[256];
	struct box b;

	box_init(&b);
	hook_server_script(b.server, ROWS({.manner = HOOK_HANGS}));
	box_open(&b, "[{\"name\": \"cloud\", \"url\": \"%s/\"}]");
	box_emit(&b, "migration.setup", "one", 0);
	box_emit(&b, "migration.setup", "two", 1);
	box_until(&b, hook_server_count(b.server) == 2);
	box_close(&b);
	snprintf(cmd, sizeof(cmd),
		 "d=%s/hooks/source; f=$(ls $d/*/*.json | head -1); truncate -s 30 $f; "
		 "touch $d/$(ls $d)/garbage $d/stray",
		 b.dir);
	cr_assert(zero(int, system(cmd)));
	hook_server_stop(b.server);
	b.server = hook_server_start(NULL, NULL);
	box_open(&b, "[{\"name\": \"cloud\", \"url\": \"%s/\"}]");
	box_until(&b, box_count(&b).delivered == 1);
	cr_expect(eq(int, box_n(&b, 0), 1));
	cr_expect(zero(uint, box_spooled(&b)));
	box_free(&b);
}

Test(hooks_events, the_queue_is_bounded_and_drops_are_counted)
{
	struct box b;

	box_init(&b);
	hook_server_script(b.server, ROWS({.manner = HOOK_HANGS}));
	box_open(&b, "[{\"url\": \"%s/\"}]");
	for (int i = 0; i < HOOKS_QUEUE + 7; i++)
		box_emit(&b, "migration.setup", "one", i);
	cr_expect(eq(u64, box_count(&b).waiting, HOOKS_QUEUE));
	cr_expect(eq(u64, box_count(&b).dropped, 7));
	cr_expect(eq(uint, box_dead(&b, NULL), 7));
	cr_expect(eq(uint, box_spooled(&b), HOOKS_QUEUE));
	box_free(&b);
}

/* The folder of state is read-only, or full: what is told is told all the same. */
Test(hooks_events, without_a_disk_events_are_told)
{
	char cmd[128];
	struct box b;

	box_init(&b);
	box_open(&b, "[{\"url\": \"%s/\"}]");
	snprintf(cmd, sizeof(cmd), "rm -r %s/hooks", b.dir);
	cr_assert(zero(int, system(cmd)));
	box_emit(&b, "migration.setup", "one", 1);
	box_until(&b, box_count(&b).delivered == 1);
	box_free(&b);
}

Test(hooks_events, patterns_choose)
{
	struct box b;
	struct hooks_count c[3];

	box_init(&b);
	box_open(&b, "[{\"url\": \"%s/a\", \"events\": [\"migration.*\"]},"
		     " {\"url\": \"%s/b\", \"events\": [\"completed\", \"decant.*.failed\"]},"
		     " {\"url\": \"%s/c\", \"gate\": true}]");
	box_emit(&b, "migration.setup", "one", 1);
	box_emit(&b, "snapshot.completed", "two", 2);
	box_emit(&b, "restore.failed", "three", 3);
	box_until(&b, (hooks_counts(b.hooks, c, 3), c[0].delivered + c[1].delivered >= 3));
	box_run_ms(&b, 30);
	hooks_counts(b.hooks, c, 3);
	cr_expect(eq(u64, c[0].delivered, 1));
	cr_expect(eq(u64, c[1].delivered, 2));
	cr_expect(zero(u64, c[2].delivered), "a gate that names no events is only asked");
	cr_expect(not(hooks_wanted(b.hooks, "restore.running")));
	box_free(&b);
}

Test(hooks_events, certificates_are_checked)
{
	static const struct {
		const char *url, *ca;
		bool ok;
	} rows[] = {
		{"https://127.0.0.1", "ca", true},     {"https://localhost", "ca", true},
		{"https://127.0.0.1", "other", false}, {"https://127.0.0.1", NULL, false},
		{"https://127.0.0.2", "ca", false},    {"https://127.0.0.1", "the system's", true},
	};
	char text[512], cert[128], key[128], ca[160];
	struct box b;

	box_init(&b);
	cr_assert(zero(int, tls_pki_certs("ca %s/ca", b.dir)));
	cr_assert(zero(int, tls_pki_certs("ca %s/other", b.dir)));
	cr_assert(zero(int, tls_pki_certs("host %s/ca web DNS:localhost IP:127.0.0.1", b.dir)));
	snprintf(cert, sizeof(cert), "%s/ca/web.pem", b.dir);
	snprintf(key, sizeof(key), "%s/ca/web.key", b.dir);
	hook_server_stop(b.server);
	b.server = hook_server_start(cert, key);
	cr_assert(ne(ptr, b.server, NULL));
	snprintf(text, sizeof(text),
		 "mkdir %s/system && cp %s/ca/ca.pem %s/system && openssl rehash %s/system", b.dir,
		 b.dir, b.dir, b.dir);
	cr_assert(zero(int, system(text)));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		bool system_ca = rows[i].ca && !strcmp(rows[i].ca, "the system's");
		size_t before = hook_server_count(b.server);

		snprintf(ca, sizeof(ca), ", \"ca\": \"%s/%s/ca.pem\"", b.dir,
			 rows[i].ca ? rows[i].ca : "");
		snprintf(text, sizeof(text),
			 "[{\"url\": \"%s:%u/\"%s, \"attempts\": 1, \"name\": \"%zu\"}]",
			 rows[i].url, hook_server_port(b.server),
			 rows[i].ca && !system_ca ? ca : "", i);
		snprintf(key, sizeof(key), "%s/system", b.dir);
		if (system_ca)
			setenv("SSL_CERT_DIR", key, 1);
		box_open(&b, text);
		box_emit(&b, "migration.setup", "one", (int)i);
		box_until(&b, box_count(&b).delivered + box_count(&b).dead == 1);
		cr_expect(eq(u64, box_count(&b).delivered, rows[i].ok), "%zu", i);
		cr_expect(eq(sz, hook_server_count(b.server), before + rows[i].ok),
			  "nothing is sent before the certificate is known to be right");
		box_close(&b);
	}
	box_free(&b);
}

Test(hooks_events, secrets_must_be_secret_and_there)
{
	char secret[128], text[300];
	struct box b;
	FILE *f;

	box_init(&b);
	snprintf(secret, sizeof(secret), "%s/secret", b.dir);
	snprintf(text, sizeof(text), "[{\"url\": \"%%s/\", \"secret_file\": \"%s\"}]", secret);
	cr_expect(eq(int, box_try(&b, text), -ENOENT), "%s", b.err.msg);
	conf_hooks_clear(&b.conf);
	f = fopen(secret, "w");
	fputs("long enough for this\n", f);
	fclose(f);
	chmod(secret, 0644);
	error_clear(&b.err);
	cr_expect(eq(int, box_try(&b, text), -EPERM), "%s", b.err.msg);
	conf_hooks_clear(&b.conf);
	chmod(secret, 0640);
	cr_expect(zero(int, truncate(secret, 15)));
	error_clear(&b.err);
	cr_expect(eq(int, box_try(&b, text), -EINVAL), "%s", b.err.msg);
	cr_expect(has(b.err.msg, "16 are needed"), "%s", b.err.msg);
	box_free(&b);
}
