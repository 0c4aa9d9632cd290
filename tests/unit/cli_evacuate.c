/* SPDX-License-Identifier: Apache-2.0 */
/* decant evacuate, cordon, uncordon, and what the others make of an evacuation. */
#include "cli_priv.h"
#include "cli_source.h"
#include "unit/cli_fixture.h"

static struct ran run(struct fake *k, const char *words)
{
	return run_main(k, cli_source_main, words);
}

/* Return: whether the command ended so and said these words */
static void expect(struct fake *k, const char *words, int code, const char *out, const char *err)
{
	struct ran r = run(k, words);

	cr_expect(eq(int, r.code, code), "%s: %s%s", words, r.out, r.err);
	cr_expect(out ? has(r.out, out) : !*r.out, "%s: \"%s\"", words, r.out);
	cr_expect(err ? has(r.err, err) : !*r.err, "%s: \"%s\"", words, r.err);
	ran_free(&r);
}

Test(cli_evacuate, what_is_asked_for)
{
	struct fake *k = start(done);
	json_t *want =
		json_pack("{s:[s, s], s:i, s:s, s:s, s:i, s:b, s:{s:i}}", "to", "a:7400",
			  "[::1]:99", "concurrency", 3, "order", "least-dirty", "mode", "precopy",
			  "bandwidth", 125000000, "dry_run", 1, "options", "channels", 2);
	struct ran r = run(k, "evacuate --to a --to [::1]:99 --concurrency 3 --order least-dirty "
			      "--mode precopy --bandwidth 1Gbit --channels 2 --dry-run --json");

	cr_expect(eq(int, r.code, 0), "%s", r.err);
	cr_expect(ne(ptr, r.json, NULL), "one document");
	cr_expect(eq(int, json_equal(k->posted, want), 1), "%s", json_dumps(k->posted, 0));
	ran_free(&r);
	json_decref(want);
	expect(k, "evacuate --to a", 0,
	       EVACUATION_ID ": the host is cordoned and evacuated, planning", NULL);
	cr_expect(eq(int, (int)json_object_size(k->posted), 1),
		  "what is not said is the agent's matter");
	stop(k);
}

Test(cli_evacuate, a_plan_names_who_stays)
{
	static const char *const planned[] = {"planned", NULL};
	struct fake *k = start(planned);

	expect(k, "evacuate --to a --dry-run", 1, "it has no launcher", "1 guests would stay");
	expect(k, "evacuate --to a --dry-run", 1, "host-c:7400 is cordoned and accepts no guests",
	       "would stay");
	expect(k, "evacuate --to a --dry-run", 1,
	       "1.00 GiB to move at 1.00 Gbit/s (measured): about 8.6 s", "would stay");
	stop(k);
}

Test(cli_evacuate, waits_until_it_has_ended)
{
	static const char *const well[] = {"running", "completed", NULL};
	static const char *const badly[] = {"running", "failed", NULL};
	struct fake *k = start(well);

	expect(k, "evacuate --to a --wait", 0, "1 of 3 guests have left, 2.00 GiB sent",
	       "odd: unplaced: it has no launcher");
	stop(k);
	k = start(badly);
	expect(k, "evacuate --to a --wait", 1, "it has no launcher",
	       "decant: evacuate: failed: 1 of 3 guests are still here");
	stop(k);
}

/* cli_evac_wait() itself, with less patience than a command has. */
static int wait_for_held(json_t *opts)
{
	static const char *const phases[] = {"held", "held", "completed", NULL};
	struct fake *k = start(phases);
	struct cli c = {.api = k->f.api, .opts = opts};
	json_t *e = evacuation("running");
	int r = cli_evac_wait(&c, "test", &e);

	json_decref(e);
	json_decref(opts);
	stop(k);
	return r;
}

Test(cli_evacuate, waits_for_held_guests_as_long_as_it_was_told)
{
	cr_expect(eq(int, wait_for_held(json_object()), CLI_FAILED));
	cr_expect(eq(int, wait_for_held(json_pack("{s:b}", "--to-the-end", 1)), CLI_OK));
}

Test(cli_evacuate, is_a_job_like_others)
{
	static const char *const runs[] = {"running", "completed", NULL};
	struct fake *k = start(done);

	k->evacuates = true;
	expect(k, "status", 0, "evacuation", NULL);
	expect(k, "status", 0, "1 of 3", NULL);
	expect(k, "status e7ac", 0, "completed", NULL);
	expect(k, "cancel e7ac", 0, EVACUATION_ID ": cancelling", NULL);
	cr_expect(eq(str, k->orders, "/v1/evacuations/" EVACUATION_ID "/cancel"));
	stop(k);
	k = start(runs);
	k->evacuates = true;
	expect(k, "watch " EVACUATION_ID " --json", 0, "completed", "evacuation: running");
	stop(k);
}

Test(cli_evacuate, a_line_says_how_far_it_is)
{
	json_t *e = evacuation("running");
	char line[200], brief[24];

	cr_expect(eq(str, cli_evac_line(line, sizeof(line), e, true),
		     "evacuation: running [##########......] 1 of 3 guests left, 1 on the way, "
		     "1.00 GiB to send, about 8.6 s"));
	cr_expect(
		eq(str, cli_evac_line(brief, sizeof(brief), e, false), "evacuation: running 1 o"));
	json_decref(e);
}

Test(cli_evacuate, cordon)
{
	struct fake *k = start(done);

	expect(k, "cordon", 0, "the host is cordoned since 2026-01-02T00:00:00Z (operator)", NULL);
	cr_expect(eq(int, json_is_true(json_object_get(k->posted, "cordoned")), 1));
	expect(k, "cordon", 0, "2 guests that were coming in already go on to do so", NULL);
	expect(k, "uncordon", 0, "the host accepts guests", NULL);
	cr_expect(eq(int, json_is_false(json_object_get(k->posted, "cordoned")), 1));
	expect(k, "cordon --json", 0, "\"by\": \"operator\"", NULL);
	stop(k);
}
