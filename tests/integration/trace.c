/* SPDX-License-Identifier: Apache-2.0 */
/* What deploy/TRACING.md promises is what a migration gives, by the debug log. */
#include <stdlib.h>
#include "lib/lab_test.h"

TestSuite(trace, .timeout = 240);

/* Return: whether the log of an agent has this event, with this text somewhere behind its name */
static bool logged(struct lab *lab, const struct lab_proc *p, const char *event, const char *text)
{
	char path[LAB_PATH_MAX + LAB_NAME_MAX + 8], want[64], *log, *at;

	snprintf(path, sizeof(path), "%s/%s.err", lab->root, p->name);
	log = lab_read_file(path);
	lab_check(lab, log != NULL, "%s: %m", path);
	snprintf(want, sizeof(want), "trace: %s: ", event);
	for (at = strstr(log, want); at; at = strstr(at + 1, want)) {
		const char *end = strchr(at, '\n'), *found = strstr(at, text);

		if (found && (!end || found < end))
			break;
	}
	free(log);
	return at;
}

/* Threads of the destination may end behind the job. */
static void has(struct lab *lab, const struct lab_proc *p, const char *event, const char *text)
{
	lab_until(lab, 5000, logged(lab, p, event, text), "%s has no event %s with \"%s\"", p->name,
		  event, text);
}

Test(trace, a_migration_is_seen)
{
	static const char *const threads[] = {"snapshot", "bulk", "urgent"};
	static const char *const dest_threads[] = {"fault", "bulk", "worker"};
	struct lab_move move = {.mode = "hybrid",
				.tracking = "async",
				.args = {"--max-passes", "2", "--no-convergence", "postcopy"}};
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab *lab;

	setenv("DECANT_LOG", "debug", 1);
	lab = lab_test_pair(&a, &b);
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 16, .threads = 2});
	json_decref(lab_migrate(a, b, g, &move));
	lab_guest_arrived(g, b);
	has(lab, a->source, "block_start", "page size 4096");
	has(lab, a->source, "block_stop", "result 0");
	has(lab, a->source, "discard", "length ");
	has(lab, a->source, "request", "length 4096");
	has(lab, a->source, "pause", g->name);
	has(lab, b->dest, "block_start", "page size 4096");
	has(lab, b->dest, "block_stop", "result 0");
	has(lab, b->dest, "discard", "length ");
	has(lab, b->dest, "place", "length ");
	has(lab, b->dest, "place_zero", "length ");
	has(lab, b->dest, "request", "length 4096");
	has(lab, b->dest, "resume", g->name);
	for (size_t i = 0; i < LAB_COUNT(threads); i++) {
		has(lab, a->source, "thread_enter", threads[i]);
		has(lab, a->source, "thread_exit", threads[i]);
		has(lab, b->dest, "thread_enter", dest_threads[i]);
		has(lab, b->dest, "thread_exit", dest_threads[i]);
	}
	lab_end(lab);
}
