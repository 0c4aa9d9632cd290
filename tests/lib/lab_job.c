/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include "lib/lab_guest.h"
#include "lib/lab_job.h"

json_t *lab_at(json_t *o, const char *path)
{
	char part[64];

	while (o && *path) {
		size_t n = strcspn(path, ".");

		snprintf(part, sizeof(part), "%.*s", (int)n, path);
		o = json_object_get(o, part);
		path += n + (path[n] == '.');
	}
	return o;
}

const char *lab_str(struct lab *lab, json_t *o, const char *path)
{
	json_t *v = lab_at(o, path);

	lab_check(lab, json_is_string(v), "no string \"%s\"", path);
	return json_string_value(v);
}

double lab_num(struct lab *lab, json_t *o, const char *path)
{
	json_t *v = lab_at(o, path);

	lab_check(lab, json_is_number(v), "no number \"%s\"", path);
	return json_number_value(v);
}

/* --- the contract --- */

static bool one_of(const char *s, const char *list)
{
	size_t n = strlen(s);

	for (const char *at = strstr(list, s); at; at = strstr(at + 1, s))
		if ((at == list || at[-1] == ' ') && (at[n] == ' ' || !at[n]))
			return true;
	return false;
}

/* Members of every job, and those that only an end or a hand-over gives a value. */
static const char *const strings[] = {"id",    "guest", "to",         "mode",
				      "phase", "owner", "created_at", "tracking.kind"};
static const char *const numbers[] = {
	"memory.total_bytes", "memory.sent_bytes",      "memory.wire_bytes",
	"memory.zero_pages",  "memory.remaining_bytes", "memory.dirty_pages_per_s",
	"memory.passes",      "rate_bytes_per_s",       "postcopy.requests"};
static const char *const later[] = {"error",
				    "ended_at",
				    "eta_s",
				    "downtime_us",
				    "postcopy.faults",
				    "postcopy.latency_us",
				    "tracking.stall_us",
				    "digest_ok"};
static const char *const numbers_of_receipt[] = {
	"postcopy.faults", "postcopy.latency_us.p50", "postcopy.latency_us.p90",
	"postcopy.latency_us.p99", "postcopy.latency_us.max"};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void check_numbers(struct lab *lab, json_t *job, const char *const *paths, size_t n)
{
	for (size_t i = 0; i < n; i++)
		lab_check(lab, json_is_number(lab_at(job, paths[i])), "%s", paths[i]);
}

static void check_members(struct lab *lab, json_t *job)
{
	for (size_t i = 0; i < COUNT(strings); i++)
		lab_check(lab, json_is_string(lab_at(job, strings[i])), "%s", strings[i]);
	for (size_t i = 0; i < COUNT(later); i++)
		lab_check(lab, lab_at(job, later[i]), "%s", later[i]);
	check_numbers(lab, job, numbers, COUNT(numbers));
	lab_check(lab, json_is_array(lab_at(job, "channels")), "channels");
	lab_check(lab, one_of(lab_str(lab, job, "mode"), "hybrid postcopy precopy"), "mode");
	lab_check(lab,
		  one_of(lab_str(lab, job, "phase"),
			 "queued setup precopy switchover postcopy completed cancelling cancelled "
			 "failed in-doubt paused recovering"),
		  "phase");
	lab_check(lab, one_of(lab_str(lab, job, "owner"), "source destination in-doubt"), "owner");
}

/* The receipt's figures: all of them, or none if it may have been lost. */
static void check_receipt(struct lab *lab, json_t *job, bool cut)
{
	if (cut && json_is_null(lab_at(job, "postcopy.faults"))) {
		lab_check(lab, json_is_null(lab_at(job, "postcopy.latency_us")),
			  "a part of the receipt");
		return;
	}
	check_numbers(lab, job, numbers_of_receipt, COUNT(numbers_of_receipt));
	lab_check(lab,
		  lab_num(lab, job, "postcopy.latency_us.p50") <=
			  lab_num(lab, job, "postcopy.latency_us.p99"),
		  "p50 above p99");
}

static void check_completed(struct lab *lab, json_t *job, const struct lab_move *move)
{
	double page = move->huge ? 2 << 20 : 4096;
	double total = lab_num(lab, job, "memory.total_bytes");
	double sent = lab_num(lab, job, "memory.sent_bytes");

	check_receipt(lab, job, move->cut);
	lab_check(lab, json_is_true(lab_at(job, "digest_ok")), "digest_ok");
	lab_check(lab, json_is_string(lab_at(job, "ended_at")), "ended_at");
	lab_check(lab, lab_num(lab, job, "memory.remaining_bytes") == 0, "something remains");
	lab_check(lab, lab_num(lab, job, "memory.wire_bytes") >= sent, "wire_bytes < sent_bytes");
	lab_check(lab, lab_num(lab, job, "downtime_us") > 0, "no downtime at all");
	/* What was neither sent nor known as zeros cannot have arrived. */
	lab_check(lab, sent + lab_num(lab, job, "memory.zero_pages") * page >= total,
		  "%.0f bytes sent and %.0f zero pages do not make %.0f", sent,
		  lab_num(lab, job, "memory.zero_pages"), total);
}

static void check_job(struct lab *lab, json_t *job, const struct lab_move *move)
{
	const char *phase = move->phase ? move->phase : "completed";
	bool completed = !strcmp(phase, "completed");
	const char *owner = move->owner ? move->owner : completed ? "destination" : "source";
	json_t *error = lab_at(job, "error");

	check_members(lab, job);
	lab_check(lab, !strcmp(lab_str(lab, job, "phase"), phase), "phase is %s, not %s: %s",
		  lab_str(lab, job, "phase"), phase,
		  json_is_object(error) ? lab_str(lab, error, "message") : "no error");
	lab_check(lab, !strcmp(lab_str(lab, job, "owner"), owner), "owner is %s",
		  lab_str(lab, job, "owner"));
	if (move->code)
		lab_check(lab, !strcmp(lab_str(lab, job, "error.code"), move->code),
			  "error is %s: %s", lab_str(lab, job, "error.code"),
			  lab_str(lab, job, "error.message"));
	else if (completed)
		lab_check(lab, json_is_null(error), "completed with an error");
	if (move->mode)
		lab_check(lab, !strcmp(lab_str(lab, job, "mode"), move->mode), "mode is %s",
			  lab_str(lab, job, "mode"));
	if (move->tracking && completed && strcmp(lab_str(lab, job, "mode"), "postcopy") != 0)
		lab_check(lab, !strcmp(lab_str(lab, job, "tracking.kind"), move->tracking),
			  "tracking is %s", lab_str(lab, job, "tracking.kind"));
	if (completed)
		check_completed(lab, job, move);
}

/* --- the command --- */

static size_t command(struct lab_host *to, struct lab_guest *g, const struct lab_move *move,
		      const char **argv)
{
	size_t n = 0;

	argv[n++] = "migrate";
	argv[n++] = g->name;
	argv[n++] = "--to";
	argv[n++] = to->to;
	argv[n++] = "--wait";
	argv[n++] = "--json";
	if (move->mode) {
		argv[n++] = "--mode";
		argv[n++] = move->mode;
	}
	if (move->tracking) {
		argv[n++] = "--tracking";
		argv[n++] = move->tracking;
	}
	for (size_t i = 0; i < LAB_ARGS_MAX && move->args[i]; i++)
		argv[n++] = move->args[i];
	argv[n] = NULL;
	return n;
}

struct lab_proc *lab_migrate_begin(struct lab_host *from, struct lab_host *to, struct lab_guest *g,
				   const struct lab_move *move)
{
	const char *args[LAB_ARGS_MAX + 16];

	command(to, g, move, args);
	return lab_decant_begin(from, args);
}

json_t *lab_migrate_end(struct lab_host *from, struct lab_proc *p, const struct lab_move *move)
{
	struct lab *lab = from->lab;
	int status = lab_proc_wait(lab, p, move->ms ? move->ms : 60000);
	char *out = lab_proc_text(lab, p, "out");
	json_error_t je;
	json_t *job;

	lab_check(lab, status == move->exit, "migrate ended with %d, not %d", status, move->exit);
	/* The destination's no is a job that has failed. */
	if (status == 4 || (status == 3 && !*out)) {
		free(out);
		return NULL;
	}
	/* Exactly one document. */
	job = json_loads(out, JSON_REJECT_DUPLICATES, &je);
	lab_check(lab, job, "not one JSON document (%s): %s", je.text, out);
	free(out);
	check_job(lab, job, move);
	return job;
}

json_t *lab_migrate(struct lab_host *from, struct lab_host *to, struct lab_guest *g,
		    const struct lab_move *move)
{
	return lab_migrate_end(from, lab_migrate_begin(from, to, g, move), move);
}

/* --- looking while it runs --- */

static json_t *newest(struct lab *lab, const char *sock, const char *path)
{
	json_t *list = lab_get(lab, sock, path), *item, *best = NULL;
	size_t i;

	lab_check(lab, json_is_array(lab_at(list, "items")), "%s: no items", path);
	json_array_foreach(lab_at(list, "items"), i, item) {
		if (!best ||
		    strcmp(lab_str(lab, item, "created_at"), lab_str(lab, best, "created_at")) >= 0)
			best = item;
	}
	json_incref(best);
	json_decref(list);
	return best;
}

json_t *lab_job_newest(struct lab_host *from)
{
	return newest(from->lab, from->source_sock, "/v1/migrations");
}

json_t *lab_incoming_newest(struct lab_host *to)
{
	return newest(to->lab, to->dest_sock, "/v1/incoming");
}

double lab_job_num(struct lab_host *from, const char *path)
{
	json_t *job = lab_job_newest(from);
	double n = lab_num(from->lab, job, path);

	json_decref(job);
	return n;
}

bool lab_job_phase_is(struct lab_host *from, const char *phase)
{
	json_t *job = lab_job_newest(from);
	bool is = job && !strcmp(lab_str(from->lab, job, "phase"), phase);

	json_decref(job);
	return is;
}
