/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of decant against an agent whose answers are written down here. */
#include "cli_source.h"

#include <criterion/redirect.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include "cli_dest.h"
#include "cli_priv.h"
#include "unit/rest_fixture.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define ID "0123abcd-0000-4000-8000-000000000001"

/**
 * struct fake - the agent
 * @phases:	what a migration says when it is looked at, one after the other; the last stays
 * @looks:	how often that was
 * @posted:	body of the last POST
 * @orders:	paths of POSTs to a migration
 */
struct fake {
	struct fixture f;
	const char *const *phases;
	size_t looks;
	json_t *posted;
	char key[64];
	char orders[200];
};

static json_t *migration(const char *id, const char *phase)
{
	json_t *err = strcmp(phase, "failed") != 0
			      ? json_null()
			      : json_pack("{s:s, s:s}", "code", "not-converging", "message",
					  "30 passes did not suffice");

	return json_pack(
		"{s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:{s:I, s:I, s:I, s:i}, s:I, s:i, s:i}", "id",
		id, "guest", "demo", "to", "host-b:7400", "mode", "hybrid", "phase", phase, "owner",
		"source", "error", err, "memory", "total_bytes", (json_int_t)1 << 30,
		"remaining_bytes", (json_int_t)1 << 29, "sent_bytes", (json_int_t)3 << 29, "passes",
		2, "rate_bytes_per_s", (json_int_t)125000000, "eta_s", 4, "downtime_us", 12300);
}

static void get_migration(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;

	if (strcmp(rest_param(req, "id"), ID) != 0) {
		rest_problemf(req, 404, "no-such-migration", "no such migration");
		return;
	}
	rest_reply(req, 200, migration(ID, k->phases[k->looks]));
	k->looks += k->phases[k->looks + 1] != NULL;
}

static void get_migrations(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;
	json_t *items = json_array();

	json_array_append_new(items, migration(ID, k->phases[k->looks]));
	json_array_append_new(items, migration("0123abcd-0000-4000-8000-000000000002", "failed"));
	json_array_append_new(items,
			      migration("9999abcd-0000-4000-8000-000000000003", "cancelled"));
	k->looks += k->phases[k->looks + 1] != NULL;
	rest_reply_list(req, items, "id");
}

static void post_migration(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;

	json_decref(k->posted);
	k->posted = json_deep_copy(rest_body(req));
	snprintf(k->key, sizeof(k->key), "%s", rest_header(req, "Idempotency-Key") ?: "");
	if (!strcmp(json_string_value(json_object_get(k->posted, "guest")), "ghost"))
		rest_problemf(req, 404, "no-such-guest", "no guest is named ghost");
	else if (!strcmp(json_string_value(json_object_get(k->posted, "guest")), "crash"))
		rest_problemf(req, 500, "enomem", "out of memory");
	else
		rest_reply(req, 202, migration(ID, "queued"));
}

static void post_order(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;

	snprintf(k->orders, sizeof(k->orders), "%s", rest_path(req));
	if (strcmp(rest_param(req, "id"), ID) != 0)
		rest_problemf(req, 409, "ended", "it has ended");
	else
		rest_reply(req, 202, migration(ID, "cancelling"));
}

static void get_guests(struct rest_req *req, void *ctx)
{
	json_t *items = json_array();

	(void)ctx;
	for (int i = 0; i < 150; i++) {
		char name[16];

		snprintf(name, sizeof(name), "g%03d", i);
		json_array_append_new(items, json_pack("{s:s, s:s, s:s, s:i}", "name", name,
						       "driver", "native", "state", "running",
						       "memory_bytes", 1 << 20));
	}
	rest_reply_list(req, items, "name");
}

static void post_guest(struct rest_req *req, void *ctx)
{
	struct fake *k = ctx;

	json_decref(k->posted);
	k->posted = json_deep_copy(rest_body(req));
	rest_reply(req, 201, json_incref(k->posted));
}

static void get_guest(struct rest_req *req, void *ctx)
{
	(void)ctx;
	if (strcmp(rest_param(req, "name"), "a b") != 0)
		rest_problemf(req, 404, "no-such-guest", "no such guest");
	else
		rest_reply(req, 200, json_pack("{s:s}", "name", "a b"));
}

static void delete_guest(struct rest_req *req, void *ctx)
{
	(void)ctx;
	rest_reply(req, 204, NULL);
}

static void get_host(struct rest_req *req, void *ctx)
{
	(void)ctx;
	rest_reply(req, 200, json_pack("{s:s}", "version", "the agent's own"));
}

static void not_there(struct rest_req *req, void *ctx)
{
	(void)ctx;
	rest_problemf(req, 501, "not-supported", "not supported yet");
}

static const struct rest_route routes[] = {
	{"GET", "/v1/migrations/{id}", REST_BODY_NONE, get_migration},
	{"GET", "/v1/migrations", REST_BODY_NONE, get_migrations},
	{"POST", "/v1/migrations", REST_BODY_OBJECT, post_migration},
	{"POST", "/v1/migrations/{id}/cancel", REST_BODY_NONE, post_order},
	{"POST", "/v1/migrations/{id}/switchover", REST_BODY_NONE, post_order},
	{"GET", "/v1/guests", REST_BODY_NONE, get_guests},
	{"POST", "/v1/guests", REST_BODY_OBJECT, post_guest},
	{"GET", "/v1/guests/{name}", REST_BODY_NONE, get_guest},
	{"DELETE", "/v1/guests/{name}", REST_BODY_NONE, delete_guest},
	{"GET", "/v1/host", REST_BODY_NONE, get_host},
	{"GET", "/v1/incoming", REST_BODY_NONE, get_migrations},
	{"GET", "/v1/incoming/{id}", REST_BODY_NONE, not_there},
};

static const char *const done[] = {"completed", NULL};

static struct fake *start(const char *const *phases)
{
	struct fake *k = calloc(1, sizeof(*k));

	alarm(60); /* what hangs is ended by a signal */
	k->phases = phases;
	k->f.ctx = k;
	fixture_start(&k->f, routes, ARRAY_SIZE(routes));
	return k;
}

static void stop(struct fake *k)
{
	fixture_stop(&k->f);
	json_decref(k->posted);
	free(k);
}

/* What a command has left behind; for ran_free(). */
struct ran {
	int code;
	char *out;
	char *err;
	json_t *json;
};

static void ran_free(struct ran *r)
{
	free(r->out);
	free(r->err);
	json_decref(r->json);
}

static char *slurp(const char *dir, const char *name)
{
	char path[200];
	char *text = NULL;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	cr_assert(ge(int, (int)fdio_read_file(path, 1 << 20, &text), 0));
	unlink(path);
	return text;
}

static void redirect(const char *dir, const char *name, int fd)
{
	char path[200];
	int f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (f < 0 || dup2(f, fd) < 0)
		_exit(99);
	close(f);
}

/* "decant WORDS --api …" in a process of its own, as every command is one. */
static struct ran run_main(struct fake *k, int (*entry)(int, char **), const char *words)
{
	char text[500], *argv[40], *save = NULL;
	struct ran r = {0};
	int argc = 0, status;
	pid_t pid;

	snprintf(text, sizeof(text), "decant --api %s %s", k->f.api, words);
	for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = strcmp(w, "%20") ? w : "a b";
	argv[argc] = NULL;
	fflush(NULL);
	pid = fork();
	if (!pid) {
		redirect(k->f.dir, "out", STDOUT_FILENO);
		redirect(k->f.dir, "err", STDERR_FILENO);
		status = entry(argc, argv);
		fflush(NULL);
		_exit(status);
	}
	cr_assert(eq(int, waitpid(pid, &status, 0), pid));
	r.code = WIFEXITED(status) ? WEXITSTATUS(status) : 100;
	r.out = slurp(k->f.dir, "out");
	r.err = slurp(k->f.dir, "err");
	r.json = json_loads(r.out, 0, NULL);
	return r;
}

static struct ran run(struct fake *k, const char *words)
{
	return run_main(k, cli_source_main, words);
}

/**
 * struct expected - a command and what must come of it
 * @out, @err:	words on stdout and stderr; NULL: nothing at all may be there
 */
struct expected {
	const char *words;
	int code;
	const char *out;
	const char *err;
};

static void expect(struct fake *k, const struct expected *e)
{
	struct ran r = run(k, e->words);

	cr_expect(eq(int, r.code, e->code), "%s: %s%s", e->words, r.out, r.err);
	cr_expect(e->out ? has(r.out, e->out) : !*r.out, "%s: \"%s\"", e->words, r.out);
	cr_expect(e->err ? has(r.err, e->err) : !*r.err, "%s: \"%s\"", e->words, r.err);
	cr_expect(eq(int, r.code && !has(r.err, "decant: "), 0), "%s", r.err);
	ran_free(&r);
}

static void expect_all(struct fake *k, const struct expected *e, size_t n)
{
	for (size_t i = 0; i < n; i++)
		expect(k, &e[i]);
}

Test(cli_source, wrong_use_is_2_and_says_why)
{
	static const struct expected rows[] = {
		{"", 2, NULL, "command line: no command given"},
		{"dance", 2, NULL, "no command \"dance\""},
		{"guests more", 2, NULL, "guests: \"more\" is one argument too many"},
		{"guests --loud", 2, NULL, "guests: unknown option --loud"},
		{"--wait migrate", 2, NULL, "unknown option --wait"},
		{"guests --json=1", 2, NULL, "--json takes no value"},
		{"guests --api", 2, NULL, "--api needs a value"},
		{"guests --api here", 2, NULL, "\"here\" is not unix:PATH"},
		{"cancel", 2, NULL, "cancel: argument missing: ID"},
		{"cancel -- --json", 3, NULL, "--json: no such migration"},
		{"migrate demo", 2, NULL, "--to HOST[:PORT] is missing"},
		{"migrate demo --to a --to b", 2, NULL, "--to is there twice"},
		{"migrate demo --to a:0", 2, NULL, "\"a:0\" is not HOST[:PORT]"},
		{"migrate demo --to a:b", 2, NULL, "\"a:b\" is not HOST[:PORT]"},
		{"migrate demo --to :7400", 2, NULL, "is not HOST[:PORT]"},
		{"migrate demo --to [::1", 2, NULL, "is not HOST[:PORT]"},
		{"migrate demo --to [::1]7400", 2, NULL, "is not HOST[:PORT]"},
		{"migrate demo --to [::1]:", 2, NULL, "is not HOST[:PORT]"},
		{"migrate demo --to a:70000", 2, NULL, "is not HOST[:PORT]"},
		{"migrate demo --to a --channels 0", 2, NULL, "--channels: must be from 1 to 16"},
		{"migrate demo --to a --mode=x", 2, NULL, "--mode: \"x\" is not one of"},
		{"add /nowhere/at/all", 2, NULL, "/nowhere/at/all"},
		{"serve --config x", 2, NULL, "serve: must be the first word"},
	};
	struct fake *k = start(done);

	expect_all(k, rows, ARRAY_SIZE(rows));
	stop(k);
}

Test(cli_source, what_is_not_there_is_3)
{
	static const struct expected rows[] = {
		{"evacuate --to a --dry-run", 3, NULL, "evacuate: not supported yet"},
		{"snapshot demo --to a", 3, NULL, "snapshot: not supported yet"},
		{"recover x", 3, NULL, "recover: not supported yet"},
		{"resolve x --keep source", 3, NULL, "resolve: not supported yet"},
		{"cordon", 3, NULL, "cordon: not supported yet"},
		{"uncordon", 3, NULL, "uncordon: not supported yet"},
		{"guests --api https://a:1", 3, NULL, "https is not supported yet"},
		{"migrate demo --to a --compression zstd", 3, NULL, "zstd is not supported yet"},
		{"evacuate --help", 0, "move all guests away (not supported yet)", NULL},
	};
	struct fake *k = start(done);

	expect_all(k, rows, ARRAY_SIZE(rows));
	stop(k);
}

Test(cli_source, help_and_version_need_no_agent)
{
	static const struct expected rows[] = {
		{"--help", 0, "usage: decant COMMAND", NULL},
		{"-h", 0, "4 agent not reachable", NULL},
		{"--version", 0, "decant " DECANT_VERSION "\n", NULL},
		{"migrate --help", 0, "--downtime-limit-ms MS", NULL},
	};
	struct fake *k = start(done);

	expect_all(k, rows, ARRAY_SIZE(rows));
	stop(k);
}

Test(cli_source, no_agent_is_4)
{
	static const struct expected rows[] = {
		{"guests --api unix:/nowhere/at/all", 4, NULL, "no agent listens there"},
		{"migrate demo --to a --wait --api unix:/nowhere/at/all", 4, NULL, "no agent"},
		{"status --api unix:/nowhere/at/all --json", 4, NULL, "no agent"},
		{"check --api unix:/nowhere/at/all", 4, NULL, "no agent"},
	};
	struct fake *k = start(done);

	expect_all(k, rows, ARRAY_SIZE(rows));
	stop(k);
}

Test(cli_source, guests_are_listed_over_all_pages)
{
	struct fake *k = start(done);
	struct ran r = run(k, "guests --json");

	cr_expect(eq(int, r.code, 0));
	cr_expect(eq(sz, json_array_size(json_object_get(r.json, "items")), 150));
	cr_expect(eq(ptr, json_object_get(r.json, "next"), json_null()));
	ran_free(&r);
	r = run(k, "guests");
	cr_expect(starts(r.out, "NAME  DRIVER  STATE      MEMORY  LAUNCHER  MIGRATION\n"), "%s",
		  r.out);
	cr_expect(has(r.out, "\ng149  native  running  1.00 MiB  -         -\n"), "%s", r.out);
	ran_free(&r);
	stop(k);
}

Test(cli_source, guests_are_added_and_removed)
{
	struct fake *k = start(done);
	char path[120], words[200];
	struct ran r;
	FILE *f;

	snprintf(path, sizeof(path), "%s/guest", k->f.dir);
	f = fopen(path, "w");
	fputs("{\"name\": \"demo\", \"driver\": \"native\"}", f);
	fclose(f);
	snprintf(words, sizeof(words), "add %s --json", path);
	r = run(k, words);
	unlink(path);
	cr_expect(eq(int, r.code, 0));
	cr_expect(json_equal(r.json, k->posted));
	cr_expect(eq(str, (char *)cli_str(k->posted, "name"), "demo"));
	ran_free(&r);
	r = run(k, "--json remove %20");
	cr_expect(eq(int, r.code, 0), "%s", r.err);
	cr_expect(eq(str, (char *)cli_str(r.json, "name"), "a b"));
	ran_free(&r);
	expect(k, &(struct expected){"remove other", 3, NULL, "remove: no such guest"});
	stop(k);
}

Test(cli_source, migrate_asks_as_the_contract_says)
{
	static const char *const to[][2] = {
		{"host-b", "host-b:7400"}, {"host-b:1", "host-b:1"},       {"::1", "[::1]:7400"},
		{"[::1]", "[::1]:7400"},   {"[fe80::1]:9", "[fe80::1]:9"},
	};
	struct fake *k = start(done);
	struct ran r = run(k, "--json migrate demo --to host-b --mode precopy --bandwidth 800Mbit "
			      "--no-urgent --channels=3");
	json_t *want = json_pack("{s:s, s:s, s:s, s:{s:i, s:b, s:i}}", "guest", "demo", "to",
				 "host-b:7400", "mode", "precopy", "options", "bandwidth",
				 100000000, "urgent", 0, "channels", 3);

	cr_expect(eq(int, r.code, 0), "%s", r.err);
	cr_expect(json_equal(k->posted, want));
	cr_expect(eq(sz, strlen(k->key), 36), "%s", k->key);
	cr_expect(eq(str, (char *)cli_str(r.json, "phase"), "queued"));
	json_decref(want);
	ran_free(&r);
	for (size_t i = 0; i < ARRAY_SIZE(to); i++) {
		char words[100];

		snprintf(words, sizeof(words), "migrate demo --to %s", to[i][0]);
		expect(k, &(struct expected){words, 0, ID ": demo to ", NULL});
		cr_expect(eq(str, (char *)cli_str(k->posted, "to"), (char *)to[i][1]));
		cr_expect(eq(ptr, json_object_get(k->posted, "options"), NULL));
	}
	expect(k, &(struct expected){"migrate ghost --to a --wait", 3, NULL,
				     "migrate ghost: no guest is named ghost"});
	expect(k, &(struct expected){"migrate crash --to a", 1, NULL, "out of memory"});
	stop(k);
}

Test(cli_source, wait_ends_as_the_job_does)
{
	static const char *const ends[][4] = {
		{"precopy", "postcopy", "completed", NULL},
		{"precopy", "failed", NULL},
		{"precopy", "cancelling", "cancelled", NULL},
		{"in-doubt", "completed", NULL},
	};
	static const struct expected rows[] = {
		{"migrate demo --to b --wait", 0, "demo runs on host-b:7400: 1.50 GiB sent",
		 "demo: postcopy\n"},
		{"migrate demo --to b --wait", 1, NULL,
		 "migrate demo: failed: 30 passes did not suffice (not-converging)"},
		{"migrate demo --to b --wait", 1, NULL, "migrate demo: cancelled"},
		{"migrate demo --to b --wait", 0, "stopped for 12.3 ms", "demo: in-doubt\n"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct fake *k = start(ends[i]);

		expect(k, &rows[i]);
		stop(k);
	}
}

Test(cli_source, wait_with_json_prints_the_end_and_nothing_else)
{
	static const char *const fails[] = {"precopy", "failed", NULL};
	struct fake *k = start(fails);
	struct ran r = run(k, "migrate demo --to b --wait --json");

	cr_expect(eq(int, r.code, 1));
	cr_expect(eq(str, (char *)cli_str(r.json, "phase"), "failed"));
	cr_expect(eq(str, (char *)cli_str(r.json, "error.code"), "not-converging"));
	ran_free(&r);
	r = run(k, "watch 0123abcd-0000-4000-8000-000000000001 --json");
	cr_expect(eq(int, r.code, 1));
	cr_expect(eq(str, (char *)cli_str(r.json, "phase"), "failed"));
	ran_free(&r);
	stop(k);
}

static void *restart(void *arg)
{
	struct fake *k = arg;

	usleep(400000);
	loop_call(k->f.loop, fixture_drop, &k->f);
	usleep(1500000);
	loop_call(k->f.loop, fixture_make, &k->f);
	return NULL;
}

Test(cli_source, wait_survives_a_restart_of_the_agent)
{
	static const char *const slow[] = {"precopy", "precopy", "precopy", "precopy",   "precopy",
					   "precopy", "precopy", "precopy", "completed", NULL};
	struct fake *k = start(slow);
	pthread_t t;

	pthread_create(&t, NULL, restart, k);
	expect(k, &(struct expected){"migrate demo --to b --wait", 0, "demo runs on host-b:7400",
				     "the agent is away; waiting up to 60 s"});
	pthread_join(t, NULL);
	stop(k);
}

/* cli_wait() itself, with less patience than a command has. */
static int wait_for(struct fake *k, unsigned int patience_s, char *phase, size_t cap)
{
	struct cli c = {.api = k->f.api, .patience_s = patience_s};
	json_t *m = migration(ID, "queued");
	int r = cli_wait(&c, "test", &m);

	snprintf(phase, cap, "%s", cli_str(m, "phase"));
	json_decref(m);
	return r;
}

Test(cli_source, waiting_has_an_end)
{
	static const char *const doubt[] = {"precopy", "in-doubt", NULL};
	struct fake *k = start(doubt);
	uint64_t t = clock_us();
	char phase[20];

	cr_expect(eq(int, wait_for(k, 1, phase, sizeof(phase)), CLI_FAILED));
	cr_expect(eq(str, phase, "in-doubt"));
	cr_expect(ge(u64, clock_us() - t, 1000000));
	loop_call(k->f.loop, fixture_drop, &k->f);
	t = clock_us();
	cr_expect(eq(int, wait_for(k, 1, phase, sizeof(phase)), CLI_UNREACHABLE));
	cr_expect(ge(u64, clock_us() - t, 1000000));
	stop(k);
}

Test(cli_source, status_shows_all_or_one)
{
	struct fake *k = start(done);
	struct ran r = run(k, "status");

	cr_expect(eq(int, r.code, 0));
	/* Ids are shown as long as it takes to tell them apart. */
	cr_expect(has(r.out, "\n" ID "  demo   host-b:7400  hybrid  completed  source   50%"), "%s",
		  r.out);
	cr_expect(has(r.out, "not-converging"), "%s", r.out);
	ran_free(&r);
	r = run(k, "status --json");
	cr_expect(eq(sz, json_array_size(json_object_get(r.json, "items")), 3));
	ran_free(&r);
	r = run(k, "status 9999 --json");
	cr_expect(eq(int, r.code, 0));
	cr_expect(eq(str, (char *)cli_str(r.json, "phase"), "cancelled"));
	ran_free(&r);
	expect(k, &(struct expected){"status 9", 0, "memory.sent_bytes       1.50 GiB", NULL});
	expect(k,
	       &(struct expected){"status 0123", 3, NULL, "0123: several migrations begin with"});
	expect(k, &(struct expected){"status 7", 3, NULL, "7: no such migration"});
	stop(k);
}

Test(cli_source, watch_follows_all_that_run)
{
	static const char *const runs[] = {"precopy", "postcopy", "completed", NULL};
	struct fake *k = start(runs);
	struct ran r = run(k, "watch");

	cr_expect(eq(int, r.code, 0));
	cr_expect(has(r.err, "0123abcd demo: precopy\n"), "%s", r.err);
	cr_expect(has(r.err, "0123abcd demo: completed\n"), "%s", r.err);
	cr_expect(has(r.out, "completed"), "%s", r.out);
	cr_expect(not(has(r.out, "cancelled")), "%s", r.out);
	ran_free(&r);
	expect(k, &(struct expected){"watch", 0, "no migration runs", NULL});
	stop(k);
}

Test(cli_source, orders_reach_the_migration)
{
	struct fake *k = start(done);

	expect(k, &(struct expected){"cancel " ID, 0, ID ": cancelling", NULL});
	cr_expect(eq(str, k->orders, "/v1/migrations/" ID "/cancel"));
	expect(k, &(struct expected){"switchover " ID " --json", 0, "\"phase\": \"cancelling\"",
				     NULL});
	cr_expect(eq(str, k->orders, "/v1/migrations/" ID "/switchover"));
	expect(k, &(struct expected){"cancel 99", 3, NULL, "cancel 99: it has ended"});
	stop(k);
}

Test(cli_source, check_asks_this_host_or_the_agent)
{
	struct fake *k = start(done);
	struct ran r = run(k, "check --json");
	char *argv[] = {"decant", "check", "--json", NULL};

	cr_expect(eq(str, (char *)cli_str(r.json, "version"), "the agent's own"));
	ran_free(&r);
	cr_redirect_stdout();
	cr_expect(eq(int, cli_source_main(3, argv), 0));
	stop(k);
}

Test(cli_dest, commands)
{
	struct fake *k = start(done);
	struct ran r = run_main(k, cli_dest_main, "incoming --json");

	cr_expect(eq(int, r.code, 0));
	cr_expect(eq(sz, json_array_size(json_object_get(r.json, "items")), 3));
	ran_free(&r);
	r = run_main(k, cli_dest_main, "incoming");
	cr_expect(has(r.out, ID), "%s", r.out);
	ran_free(&r);
	r = run_main(k, cli_dest_main, "incoming x");
	cr_expect(eq(int, r.code, 3));
	cr_expect(eq(str, r.err, "decant: x: not supported yet\n"));
	ran_free(&r);
	r = run_main(k, cli_dest_main, "restore x --wait");
	cr_expect(eq(int, r.code, 3));
	cr_expect(eq(str, r.err, "decant: restore: not supported yet\n"));
	ran_free(&r);
	stop(k);
}

Test(cli_serve, takes_its_configuration)
{
	static const struct {
		const char *words[4];
		int code;
	} rows[] = {
		{{"d", "serve", "--config", "x"}, -1}, {{"d", "serve", "--config=x", NULL}, -1},
		{{"d", "serve", NULL, NULL}, 2},       {{"d", "serve", "--config", NULL}, 2},
		{{"d", "serve", "x", NULL}, 2},        {{"d", "serve", "--help", NULL}, 0},
	};

	cr_redirect_stdout();
	cr_redirect_stderr();
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const char *config = NULL;
		int argc = 0;

		while (argc < 4 && rows[i].words[argc])
			argc++;
		cr_expect(eq(int, cli_serve_args("d", argc, (char **)rows[i].words, &config),
			     rows[i].code));
		cr_expect(rows[i].code != -1 || has(config, "x"));
	}
}
