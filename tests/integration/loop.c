/* SPDX-License-Identifier: Apache-2.0 */
/* Many migrations there and back under load: nothing is lost and nothing leaks. */
#include <string.h>
#include "lib/lab_test.h"

static unsigned int count_words(const char *s)
{
	unsigned int n = 0;

	for (; *s; s++)
		n += *s == ' ';
	return n;
}

struct level {
	struct lab_usage agent[4];
	unsigned int files[2];
};

static struct level measure(struct lab *lab, struct lab_host *hosts[2])
{
	struct level l;

	for (int i = 0; i < 2; i++) {
		char *names = lab_host_run_dir(hosts[i]);

		l.files[i] = count_words(names);
		free(names);
		l.agent[2 * i] = lab_usage(lab, hosts[i]->source->pid);
		l.agent[2 * i + 1] = lab_usage(lab, hosts[i]->dest->pid);
	}
	return l;
}

/* Whether a later level holds nothing that the earlier one did not. */
static bool settled(struct lab *lab, struct lab_host *hosts[2], const struct level *before,
		    struct level *now)
{
	*now = measure(lab, hosts);
	for (int i = 0; i < 4; i++)
		if (now->agent[i].fds > before->agent[i].fds ||
		    now->agent[i].threads > before->agent[i].threads)
			return false;
	return now->files[0] <= before->files[0] && now->files[1] <= before->files[1];
}

static void compare(struct lab *lab, const struct level *before, const struct level *after,
		    unsigned int rounds)
{
	static const char *const names[] = {"a-source", "a-dest", "b-source", "b-dest"};

	for (int i = 0; i < 4; i++) {
		const struct lab_usage *was = &before->agent[i], *is = &after->agent[i];

		fprintf(stderr,
			"%s: %u -> %u descriptors, %u -> %u threads, %lu -> %lu KiB, "
			"%u -> %u mappings\n",
			names[i], was->fds, is->fds, was->threads, is->threads, was->anon_kb,
			is->anon_kb, was->maps, is->maps);
		lab_check(lab, is->fds <= was->fds, "%s leaks descriptors", names[i]);
		lab_check(lab, is->threads <= was->threads, "%s leaks threads", names[i]);
		/* A finished job is remembered, which costs some KiB; instrumented heaps grow. */
		lab_check(lab, lab->sanitized || is->anon_kb <= was->anon_kb + 2048 + 32ul * rounds,
			  "%s grew from %lu to %lu KiB", names[i], was->anon_kb, is->anon_kb);
		lab_check(lab, lab->sanitized || is->maps <= was->maps + 16, "%s leaks mappings",
			  names[i]);
	}
}

Test(loop, there_and_back, .timeout = 1200)
{
	static const char *const modes[] = {"hybrid", "postcopy", "precopy"};
	struct lab_host *hosts[2];
	struct lab *lab = lab_test_pair(&hosts[0], &hosts[1]);
	unsigned int rounds = lab->full ? 100 : 20, warm = 6;
	struct lab_guest *g =
		lab_guest_start(hosts[0], &(struct lab_guest_opts){.mb = 16, .threads = 2});
	struct level before = {0}, after;

	for (unsigned int i = 0; i < warm + rounds; i++) {
		struct lab_host *from = hosts[i % 2], *to = hosts[(i + 1) % 2];
		struct lab_move move = {.mode = modes[i % 3],
					.args = {"--max-passes", "3", "--no-convergence", "stop"}};

		if (i == warm)
			before = measure(lab, hosts);
		lab_host_knows(from, g->name);
		json_decref(lab_migrate(from, to, g, &move));
		lab_guest_arrived(g, to);
	}
	/* The same host has the guest again as at the first look (both counts are even). */
	lab_host_knows(hosts[0], g->name);
	for (uint64_t end = lab_now_ms() + 10000;
	     !settled(lab, hosts, &before, &after) && lab_now_ms() < end;)
		lab_nap();
	compare(lab, &before, &after, rounds);
	lab_check(lab, after.files[0] <= before.files[0] && after.files[1] <= before.files[1],
		  "files stay in the run directories");
	lab_end(lab);
}
