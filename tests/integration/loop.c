/* SPDX-License-Identifier: Apache-2.0 */
/* Many migrations there and back under load: nothing is lost and nothing leaks. */
#include <dirent.h>
#include <string.h>
#include "lib/lab_test.h"
#include "util/journal.h"

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

		/* What its agent holds for the guest is there at both looks. */
		lab_host_knows(from, g->name);
		if (i == warm)
			before = measure(lab, hosts);
		json_decref(lab_migrate(from, to, g, &move));
		lab_guest_arrived(g, to);
	}
	/* The same host has the guest again as at the first look (both counts are even). */
	lab_host_knows(hosts[0], g->name);
	for (uint64_t end = lab_now_ms() + LAB_LEAST_MS;
	     !settled(lab, hosts, &before, &after) && lab_now_ms() < end;)
		lab_nap();
	compare(lab, &before, &after, rounds);
	lab_check(lab, after.files[0] <= before.files[0] && after.files[1] <= before.files[1],
		  "files stay in the run directories");
	lab_end(lab);
}

/* A journal of the same guest's, which came back and left again: generation @i. */
static void left_again(struct lab *lab, const char *dir, json_t *records, unsigned int i)
{
	char path[LAB_PATH_MAX * 2], id[40];
	json_t *created = json_array_get(records, 0), *rec;
	struct error err = {0};
	struct journal *j;
	size_t k;

	snprintf(id, sizeof(id), "%08x-0000-4000-8000-000000000000", i);
	snprintf(path, sizeof(path), "%s/%s.journal", dir, id);
	json_object_set_new(created, "id", json_string(id));
	json_object_set_new(created, "key", json_string(id));
	json_object_set_new(created, "generation", json_integer(i));
	json_object_set_new(
		created, "created_at",
		json_integer(json_integer_value(json_object_get(created, "created_at")) + 1000));
	lab_check(lab, journal_open(path, &j, NULL, &err) == 0, "%s", err.msg);
	json_array_foreach(records, k, rec)
		lab_check(lab, journal_write(j, rec, &err) == 0, "%s", err.msg);
	journal_close(j);
}

/* Return: how many journals there are; @ret_one: the path of one */
static unsigned int journals(struct lab_host *h, char *ret_one, size_t n)
{
	const char *dir = lab_host_path(h, "state/migrations");
	DIR *d = opendir(dir);
	unsigned int count = 0;
	struct dirent *e;

	lab_check(h->lab, d, "%s: %m", dir);
	while ((e = readdir(d)))
		if (strstr(e->d_name, ".journal")) {
			count++;
			snprintf(ret_one, n, "%s/%s", dir, e->d_name);
		}
	closedir(d);
	return count;
}

#define KEPT 1000
#define MORE 60

/* The newest 1,000 jobs are remembered, in memory and in state_dir: also of a guest that leaves again and again. */
Test(loop, old_jobs_are_forgotten, .timeout = 120)
{
	char path[LAB_PATH_MAX * 2], dir[LAB_PATH_MAX + 64];
	struct error err = {0};
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 4, .writes = 10});
	struct journal *j;
	json_t *records, *list;

	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_proc_kill(lab, a->source);
	lab_check(lab, journals(a, path, sizeof(path)) == 1, "not one job");
	snprintf(dir, sizeof(dir), "%s", lab_host_path(a, "state/migrations"));
	lab_check(lab, journal_open(path, &j, &records, &err) == 0, "%s", err.msg);
	journal_close(j);
	for (unsigned int i = 1; i < KEPT + MORE; i++)
		left_again(lab, dir, records, i);
	json_decref(records);

	lab_host_source_start(a);
	lab_check(lab, journals(a, path, sizeof(path)) == KEPT, "%u journals",
		  journals(a, path, sizeof(path)));
	list = lab_get(lab, a->source_sock, "/v1/migrations");
	lab_check(lab, json_array_size(lab_at(list, "items")) <= KEPT, "jobs");
	json_decref(list);
	snprintf(path, sizeof(path), "/v1/migrations/%08x-0000-4000-8000-000000000000",
		 KEPT + MORE - 1);
	json_decref(lab_get(lab, a->source_sock, path));
	lab_end(lab);
}
