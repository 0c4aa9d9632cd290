/* SPDX-License-Identifier: Apache-2.0 */
/* decant status and watch. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"

/* How often the lists of jobs are looked at. */
#define POLL_US 1000000

static const char *const job_lists[] = {"/v1/migrations", "/v1/snapshots", CLI_EVACUATIONS, NULL};

static bool is_evacuation(const json_t *m)
{
	return json_is_array(json_object_get(m, "guests"));
}

static bool is_snapshot(const json_t *m)
{
	return !json_object_get(m, "mode") && !is_evacuation(m);
}

int cli_find_job(struct cli *c, const char *id, const char **ret_jobs, json_t **ret)
{
	int r = cli_find_any(c, job_lists, "job", id, ret);

	if (!r)
		*ret_jobs = job_lists[is_evacuation(*ret) ? 2 : is_snapshot(*ret)];
	return r;
}

/* Several kinds in one list, the newest first, as each of them is. */
static json_t *merge(json_t *a, json_t *b)
{
	json_t *all = json_array();
	size_t i = 0, j = 0;

	while (i < json_array_size(a) || j < json_array_size(b)) {
		json_t *x = json_array_get(a, i), *y = json_array_get(b, j);
		bool first = !y || (x && strcmp(cli_str(x, "created_at") ?: "",
						cli_str(y, "created_at") ?: "") >= 0);

		json_array_append(all, first ? x : y);
		i += first;
		j += !first;
	}
	json_decref(a);
	json_decref(b);
	return all;
}

static int list_jobs(struct cli *c, const char *what, json_t **ret)
{
	json_t *all = json_array(), *some;
	int r = CLI_OK;

	for (size_t i = 0; !r && job_lists[i]; i++) {
		r = cli_list(c, job_lists[i], what, &some);
		if (!r)
			all = merge(all, some);
	}
	if (r)
		json_decref(all);
	else
		*ret = all;
	return r;
}

/* Return: how many characters tell the ids apart, so that what is shown can be typed */
static size_t id_length(const json_t *items)
{
	size_t len = 8, i = 0;

	while (len < 64 && i < json_array_size(items)) {
		const char *a = cli_str(json_array_get(items, i), "id") ?: "";
		size_t j = 0;

		while (j < i && strncmp(a, cli_str(json_array_get(items, j), "id") ?: "", len) != 0)
			j++;
		if (j < i) {
			len += 4;
			i = 0;
		} else {
			i++;
		}
	}
	return len;
}

static void evacuation_row(struct cli_table *t, const json_t *e, size_t id_len)
{
	double share = cli_evac_done(e), rate = cli_num(e, "totals.rate_bytes_per_s", 0);
	const json_t *to = json_object_get(e, "destinations");
	char id[65], guests[48], done[CLI_TEXT_MAX] = "", speed[CLI_TEXT_MAX] = "";
	const char *phase = cli_str(e, "phase") ?: "?";
	const char *cells[] = {id,
			       guests,
			       json_array_size(to) == 1 ? cli_str(json_array_get(to, 0), "to")
							: NULL,
			       "evacuation",
			       phase,
			       NULL,
			       done,
			       speed,
			       NULL,
			       cli_str(e, "error.code")};

	snprintf(id, sizeof(id), "%.*s", (int)id_len, cli_str(e, "id") ?: "?");
	snprintf(guests, sizeof(guests), "%.0f of %.0f", cli_num(e, "totals.moved", 0),
		 cli_num(e, "totals.guests", 0));
	if (share >= 0)
		snprintf(done, sizeof(done), "%.0f%%", share * 100);
	if (rate > 0 && !strcmp(phase, "running"))
		cli_rate(speed, rate);
	cli_table_row(t, cells);
}

static void row(struct cli_table *t, const json_t *m, size_t id_len)
{
	const char *phase = cli_str(m, "phase") ?: "?";
	double share = cli_migration_done(m);
	double rate = cli_num(m, "rate_bytes_per_s", 0), down = cli_num(m, "downtime_us", -1);
	char id[65] = "", done[CLI_TEXT_MAX] = "", speed[CLI_TEXT_MAX] = "",
	     stop[CLI_TEXT_MAX] = "";
	const char *cells[] = {id,
			       cli_str(m, "guest"),
			       cli_str(m, "to"),
			       is_snapshot(m) ? "snapshot" : cli_str(m, "mode"),
			       phase,
			       cli_str(m, "owner"),
			       done,
			       speed,
			       stop,
			       cli_str(m, "error.code")};

	snprintf(id, sizeof(id), "%.*s", (int)id_len, cli_str(m, "id") ?: "?");
	if (share >= 0)
		snprintf(done, sizeof(done), "%.0f%%", share * 100);
	if (rate > 0)
		cli_rate(speed, rate);
	if (down >= 0)
		cli_duration(stop, down);
	cli_table_row(t, cells);
}

/* What a row has no room for: why nobody knows, when it is asked next, and what can be done besides. */
static void note(const json_t *m, size_t id_len)
{
	const char *id = cli_str(m, "id") ?: "?", *to = cli_str(m, "to") ?: "the destination";
	const char *phase = cli_str(m, "phase") ?: "?",
		   *next = cli_str(m, "recovery.next_attempt_at");
	const char *why = cli_str(m, "recovery.why.message");
	const char *last = cli_str(m, "recovery.last_error.message");

	if (!strcmp(phase, "in-doubt") || !strcmp(phase, "paused")) {
		printf("%.*s is %s%s%s\n", (int)id_len, id, phase, why ? ": " : "", why ?: "");
		printf("  %s is asked %s%s, attempt %.0f%s%s\n", to, next ? "again at " : "now",
		       next ?: "", cli_num(m, "recovery.attempts", 0) + (next ? 1 : 0),
		       last ? "; last: " : "", last ?: "");
		printf("  if it is gone for good: decant resolve %.*s --keep source|destination\n",
		       (int)id_len, id);
	}
	if (json_is_true(json_object_get(json_object_get(m, "resolution"), "conflict")))
		printf("%.*s: CONFLICT: the guest was kept here and ran at %s, too; the copy there "
		       "is stopped\n",
		       (int)id_len, id, to);
	else if (!strcmp(cli_str(m, "resolution.state") ?: "", "telling"))
		printf("%.*s: %s does not know yet that the guest was kept here: if it comes back, "
		       "it may "
		       "run it until it does%s%s\n",
		       (int)id_len, id, to,
		       cli_str(m, "resolution.last_error.message") ? "; last: " : "",
		       cli_str(m, "resolution.last_error.message") ?: "");
}

static int print_table(const json_t *items)
{
	static const char *const head[] = {"ID",    "GUEST", "TO",   "MODE",     "PHASE",
					   "OWNER", "DONE",  "RATE", "DOWNTIME", "ERROR"};
	struct cli_table *t = cli_table_new(ARRAY_SIZE(head), 7u << 6);
	size_t i, id_len = id_length(items);
	json_t *m;
	int r;

	cli_table_row(t, head);
	json_array_foreach(items, i, m)
		(is_evacuation(m) ? evacuation_row : row)(t, m, id_len);
	r = cli_table_print(t);
	json_array_foreach(items, i, m)
		note(m, id_len);
	return r;
}

static int print_list(struct cli *c, json_t *items)
{
	json_t *all;
	int r;

	if (!c->json)
		return print_table(items);
	all = json_pack("{s:O, s:n}", "items", items, "next");
	r = cli_print_json(all);
	json_decref(all);
	return r;
}

int cli_status(struct cli *c)
{
	const char *jobs;
	json_t *found;
	int r;

	if (c->n_args) {
		r = cli_find_job(c, c->args[0], &jobs, &found);
		if (!r)
			r = c->json ? cli_print_json(found) : cli_print_object(found);
	} else {
		r = list_jobs(c, "status", &found);
		if (!r)
			r = print_list(c, found);
	}
	if (r != CLI_OK)
		return r;
	json_decref(found);
	return r;
}

static int watch_one(struct cli *c)
{
	const char *jobs;
	char what[100];
	json_t *m;
	int r = cli_find_job(c, c->args[0], &jobs, &m);

	if (r)
		return r;
	snprintf(what, sizeof(what), "watch %s", c->args[0]);
	r = is_evacuation(m) ? cli_evac_wait(c, what, &m) : cli_wait(c, jobs, what, &m);
	if (c->json && r != CLI_UNREACHABLE)
		cli_print_json(m);
	json_decref(m);
	return r;
}

/**
 * struct watched - the jobs that `watch` has seen running
 * @seen:	object id -> the job as it was last
 * @running:	how many of the last list run
 */
struct watched {
	struct cli_progress progress;
	json_t *seen;
	size_t running;
};

static void look(struct watched *w, const json_t *m)
{
	const char *id = cli_str(m, "id"), *phase = cli_str(m, "phase");
	const json_t *before = json_object_get(w->seen, id ?: "");
	const char *was = cli_str(before, "phase");
	char line[240];

	if (!id || !phase || (!before && cli_job_ended(phase)))
		return;
	w->running += !cli_job_ended(phase);
	if (!was || strcmp(was, phase) != 0) {
		const char *why = cli_str(m, "error.message");

		cli_progress_show(&w->progress, true, "%.8s %s: %s%s%s", id,
				  is_evacuation(m) ? "evacuation" : cli_str(m, "guest") ?: "guest",
				  phase, why ? ": " : "",
				  why ?: "");
	} else if (!cli_job_ended(phase)) {
		cli_progress_show(&w->progress, false, "%.8s %s", id,
				  is_evacuation(m)
					  ? cli_evac_line(line, sizeof(line), m, false)
					  : cli_migration_line(line, sizeof(line), m, false));
	}
	json_object_set(w->seen, id, (json_t *)m);
}

static int watch_all(struct cli *c)
{
	struct watched w = {.seen = json_object()};
	json_t *items, *m, *values = json_array();
	const char *id;
	size_t i;
	int r;

	cli_progress_init(&w.progress);
	do {
		if (w.running)
			usleep(POLL_US);
		w.running = 0;
		r = list_jobs(c, "watch", &items);
		if (r)
			break;
		json_array_foreach(items, i, m)
			look(&w, m);
		json_decref(items);
	} while (w.running);
	cli_progress_end(&w.progress);
	json_object_foreach(w.seen, id, m)
		json_array_append(values, m);
	if (!r && (c->json || json_array_size(values)))
		r = print_list(c, values);
	else if (!r)
		puts("no job runs");
	json_decref(values);
	json_decref(w.seen);
	return r;
}

int cli_watch(struct cli *c)
{
	return c->n_args ? watch_one(c) : watch_all(c);
}
