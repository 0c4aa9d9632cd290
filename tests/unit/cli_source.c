/* SPDX-License-Identifier: Apache-2.0 */
#include "cli_source.h"

#include "cli_priv.h"
#include "unit/cli_fixture.h"
#include "util/clock.h"

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
		{"cancel -- --json", 3, NULL, "--json: no such job"},
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
		{"snapshot demo", 2, NULL, "snapshot: --to HOST[:PORT] is missing"},
		{"snapshot demo --to a --mode precopy", 2, NULL, "a snapshot has none"},
		{"snapshot demo --to a:b", 2, NULL, "is not HOST[:PORT]"},
		{"resolve 0123", 2, NULL, "--keep source or --keep destination is missing"},
		{"evacuate", 2, NULL, "evacuate: --to HOST[:PORT] is missing"},
		{"evacuate --to a --to b:x", 2, NULL, "is not HOST[:PORT]"},
		{"evacuate --to a --concurrency 17", 2, NULL,
		 "--concurrency: \"17\" is not 1 to 16"},
		{"evacuate --to a --concurrency x", 2, NULL, "--concurrency"},
		{"evacuate --to a --order oldest", 2, NULL, "--order: \"oldest\" is none of"},
		{"evacuate --to a --dry-run --dry-run", 2, NULL, "--dry-run is there twice"},
		{"evacuate guest --to a", 2, NULL, "one argument too many"},
		{"resolve 0123 --keep both", 2, NULL, "--keep source or --keep destination"},
	};
	struct fake *k = start(done);

	expect_all(k, rows, ARRAY_SIZE(rows));
	stop(k);
}

Test(cli_source, what_https_needs_is_named)
{
	static const struct expected rows[] = {
		{"guests --api http://127.0.0.1:1", 2, NULL,
		 "neither unix:PATH nor https://HOST:PORT"},
		{"guests --api https://127.0.0.1:1 --cacert /nowhere", 2, NULL,
		 "cannot open the CA file /nowhere"},
		{"guests --api https://127.0.0.1:1 --cert /nowhere", 2, NULL, "/nowhere"},
		{"guests --token-file /nowhere", 2, NULL, "--token-file: /nowhere: No such file"},
		{"guests --token-file /dev/null", 2, NULL, "--token-file: /dev/null is empty"},
		{"guests --api https://127.0.0.1:1", 4, NULL, "Connection refused"},
	};
	struct fake *k = start(done);

	expect_all(k, rows, ARRAY_SIZE(rows));
	stop(k);
}

Test(cli_source, what_is_not_there_is_3)
{
	static const struct expected rows[] = {
		{"migrate demo --to a --compression zstd", 3, NULL, "zstd is not supported yet"},
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
	int r = cli_wait(&c, "/v1/migrations", "test", &m);

	snprintf(phase, cap, "%s", cli_str(m, "phase"));
	json_decref(m);
	return r;
}

Test(cli_source, waiting_has_an_end)
{
	static const char *const doubt[] = {"precopy", "in-doubt", NULL};
	static const char *const twice[] = {"in-doubt", "in-doubt",  "in-doubt", "in-doubt",
					    "postcopy", "in-doubt",  "in-doubt", "in-doubt",
					    "in-doubt", "completed", NULL};
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
	/* Doubts that pass do not add up. */
	k = start(twice);
	cr_expect(eq(int, wait_for(k, 1, phase, sizeof(phase)), CLI_OK));
	stop(k);
}

Test(cli_source, status_shows_all_or_one)
{
	struct fake *k = start(done);
	struct ran r = run(k, "status");

	cr_expect(eq(int, r.code, 0));
	/* Ids are shown as long as it takes to tell them apart. */
	cr_expect(has(r.out, "\n" ID "  demo   host-b:7400  hybrid    completed  source   50%"),
		  "%s", r.out);
	cr_expect(has(r.out, "not-converging"), "%s", r.out);
	/* The newest first, of both kinds. */
	cr_expect(has(r.out, "\n" SNAPSHOT_ID "  demo   host-b:7400  snapshot  completed"), "%s",
		  r.out);
	cr_expect(lt(ptr, (void *)strstr(r.out, SNAPSHOT_ID), (void *)strstr(r.out, ID)));
	ran_free(&r);
	r = run(k, "status --json");
	cr_expect(eq(sz, json_array_size(json_object_get(r.json, "items")), 4));
	ran_free(&r);
	r = run(k, "status 9999 --json");
	cr_expect(eq(int, r.code, 0));
	cr_expect(eq(str, (char *)cli_str(r.json, "phase"), "cancelled"));
	ran_free(&r);
	expect(k, &(struct expected){"status 5a5a", 0, "monday", NULL});
	expect(k, &(struct expected){"watch " SNAPSHOT_ID, 0, NULL, "demo: completed"});
	expect(k, &(struct expected){"status 9", 0, "memory.sent_bytes       1.50 GiB", NULL});
	expect(k, &(struct expected){"status 0123", 3, NULL, "0123: several jobs begin with"});
	expect(k, &(struct expected){"status 7", 3, NULL, "7: no such job"});
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
	expect(k, &(struct expected){"watch", 0, "no job runs", NULL});
	stop(k);
}

Test(cli_source, a_line_says_how_far_it_is)
{
	json_t *m = migration(ID, "precopy");
	char line[200], brief[20];

	cr_expect(eq(str, cli_migration_line(line, sizeof(line), m, false),
		     "demo: precopy 50% of 1.00 GiB, 1.00 Gbit/s, 4.0 s to go, pass 2"));
	cr_expect(eq(str, cli_migration_line(line, sizeof(line), m, true),
		     "demo: precopy [########........] 50% of 1.00 GiB, 1.00 Gbit/s, 4.0 s to go, "
		     "pass 2"));
	cr_expect(
		eq(str, cli_migration_line(brief, sizeof(brief), m, true), "demo: precopy [####"));
	json_object_set_new(json_object_get(m, "memory"), "sent_bytes", json_integer(0));
	cr_expect(eq(str, cli_migration_line(line, sizeof(line), m, true), "demo: precopy"));
	json_decref(m);
}

Test(cli_source, orders_reach_the_migration)
{
	struct fake *k = start(done);

	expect(k, &(struct expected){"cancel " ID, 0, ID ": cancelling", NULL});
	cr_expect(eq(str, k->orders, "/v1/migrations/" ID "/cancel"));
	expect(k, &(struct expected){"switchover " ID " --json", 0, "\"phase\": \"cancelling\"",
				     NULL});
	cr_expect(eq(str, k->orders, "/v1/migrations/" ID "/switchover"));
	expect(k, &(struct expected){"cancel 5a", 0, SNAPSHOT_ID ": cancelling", NULL});
	cr_expect(eq(str, k->orders, "/v1/snapshots/" SNAPSHOT_ID "/cancel"));
	expect(k, &(struct expected){"switchover 5a", 3, NULL, "5a: no such migration"});
	expect(k, &(struct expected){"resolve " ID " --keep source --confirm " ID, 0, "demo: kept",
				     NULL});
	cr_expect(eq(str, k->orders, "/v1/migrations/" ID "/resolve"));
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
