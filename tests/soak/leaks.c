/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is left over. Agents and guests may hold what they need when nothing moves: a descriptor or two for each
 * guest that is here. Memory is looked at over the life of an agent: what it takes to remember a job, no more.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "soak/world.h"

#define SETTLE_MS 15000
/* Of each guest on its host: a connection, a pidfd, something to spare. */
#define FDS_PER_GUEST 3
#define FDS_SPARE     4
/* A life's memory is looked at from here on; before, tables and pools reach their size. */
#define WARM_ROUNDS 4
/*
 * A heap reaches its size late, and has one arena for each of a few threads. Then an agent remembers jobs: a source
 * some 11 KiB of each of its own, a destination 4; that is half of all.
 */
#define GROWTH_KB     4096
#define GROWTH_JOB_KB 8

static const char *const names[SOAK_AGENTS] = {"a source", "a dest", "b source", "b dest"};

static struct lab_proc *agent(struct soak_world *w, unsigned int i)
{
	return i % 2 ? w->hosts[i / 2]->dest : w->hosts[i / 2]->source;
}

static unsigned int guests_at(struct soak_world *w, const struct lab_host *h)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < w->nguests; i++)
		n += w->guests[i].g->at == h;
	return n;
}

/* A source holds the files of what it may have to read. */
static unsigned int files_at(struct soak_world *w, const struct lab_host *h)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < w->nguests; i++)
		n += w->guests[i].g->at == h ? w->guests[i].files : 0;
	return n;
}

/* Return: descriptors of a process whose link begins with @what */
static unsigned int fds_of(pid_t pid, const char *what)
{
	char path[64], link[256];
	unsigned int n = 0;
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		ssize_t len = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);

		if (len <= 0)
			continue;
		link[len] = 0;
		n += !strncmp(link, what, strlen(what));
	}
	if (d)
		closedir(d);
	return n;
}

static void show_fds(pid_t pid)
{
	char command[64];

	snprintf(command, sizeof(command), "ls -l /proc/%d/fd >&2", pid);
	if (system(command) != 0)
		fprintf(stderr, "%s: failed\n", command);
}

void soak_leaks_begin(struct soak_world *w)
{
	for (unsigned int i = 0; i < SOAK_AGENTS; i++)
		w->bare[i] = lab_usage(w->lab, agent(w, i)->pid);
}

/* --- agents --- */

static bool agent_settled(struct soak_world *w, unsigned int i)
{
	pid_t pid = agent(w, i)->pid;
	unsigned int guests = guests_at(w, w->hosts[i / 2]);
	unsigned int files = i % 2 ? 0 : files_at(w, w->hosts[i / 2]);

	w->lives[i].now = lab_usage(w->lab, pid);
	return w->lives[i].now.fds <= w->bare[i].fds + files + FDS_PER_GUEST * guests + FDS_SPARE &&
	       w->lives[i].now.threads <= w->bare[i].threads &&
	       fds_of(pid, "anon_inode:[userfaultfd]") == 0 && fds_of(pid, "/memfd:") == files;
}

static void check_growth(struct soak_world *w, unsigned int i)
{
	const struct soak_life *l = &w->lives[i];
	unsigned int jobs = w->jobs + w->snapshots - l->begin_jobs;
	unsigned long most = l->begin.anon_kb + GROWTH_KB + (unsigned long)GROWTH_JOB_KB * jobs;

	lab_check(
		w->lab, l->now.anon_kb <= most,
		"%s grew from %lu to %lu KiB in %u rounds with %u jobs, and may have %lu: what it "
		"keeps of a round that is over shows without faults, FAULT=none",
		names[i], l->begin.anon_kb, l->now.anon_kb, l->rounds - WARM_ROUNDS, jobs, most);
}

static void check_agent(struct soak_world *w, unsigned int i)
{
	uint64_t end = lab_now_ms() + (uint64_t)SETTLE_MS * w->lab->slow;
	struct soak_life *l = &w->lives[i];
	struct lab_usage *is = &l->now;
	pid_t pid = agent(w, i)->pid;

	if (l->pid != pid) {
		w->grown_kb[i] += l->begin.anon_kb ? (long)(is->anon_kb - l->begin.anon_kb) : 0;
		w->grown_rounds[i] += l->begin.anon_kb ? l->rounds - WARM_ROUNDS : 0;
		*l = (struct soak_life){.pid = pid, .starts = l->starts + 1};
	}
	while (!agent_settled(w, i) && lab_now_ms() < end)
		lab_nap();
	if (!agent_settled(w, i))
		show_fds(pid);
	lab_check(w->lab, agent_settled(w, i),
		  "%s holds %u descriptors (%u userfaultfds, %u memfds) and %u threads for %u "
		  "guests; at its start it had %u and %u",
		  names[i], is->fds, fds_of(pid, "anon_inode:[userfaultfd]"),
		  fds_of(pid, "/memfd:"), is->threads, guests_at(w, w->hosts[i / 2]),
		  w->bare[i].fds, w->bare[i].threads);
	if (++l->rounds == WARM_ROUNDS) {
		l->begin = *is;
		l->begin_jobs = w->jobs + w->snapshots;
	}
	if (l->rounds > WARM_ROUNDS && !w->lab->sanitized)
		check_growth(w, i);
}

/* --- guests --- */

static bool guest_settled(struct soak_world *w, struct soak_guest *g)
{
	return fds_of(g->kind->pid(w, g, g->g->at), "anon_inode:[userfaultfd]") == 0;
}

static void check_guest(struct soak_world *w, struct soak_guest *g)
{
	uint64_t end = lab_now_ms() + (uint64_t)SETTLE_MS * w->lab->slow;

	while (!guest_settled(w, g) && lab_now_ms() < end)
		lab_nap();
	if (!guest_settled(w, g))
		show_fds(g->kind->pid(w, g, g->g->at));
	lab_check(w->lab, guest_settled(w, g), "a userfaultfd stays in %s", g->g->name);
}

/* --- files --- */

/* Page states and the like; what belongs to a guest that is here may stay. */
static bool run_dir_settled(struct soak_world *w, struct lab_host *h)
{
	char *left = lab_host_run_dir(h);
	bool settled = !strstr(left, "pages.");

	(void)w;
	free(left);
	return settled;
}

static void check_files(struct soak_world *w, struct lab_host *h)
{
	char *left;

	for (uint64_t end = lab_now_ms() + (uint64_t)SETTLE_MS * w->lab->slow;
	     !run_dir_settled(w, h) && lab_now_ms() < end;)
		lab_nap();
	left = lab_host_run_dir(h);
	lab_check(w->lab, run_dir_settled(w, h), "left in run_dir of %s: %s", h->name, left);
	free(left);
}

/* Return: journals in a folder; names of what else is there are added to @ret, between blanks */
static unsigned int look_into(struct lab_host *h, const char *folder, char *ret, size_t n)
{
	DIR *d = opendir(lab_host_path(h, folder));
	unsigned int journals = 0;
	struct dirent *e;

	while (d && (e = readdir(d))) {
		const char *dot = strrchr(e->d_name, '.');

		if (e->d_type == DT_DIR || !strcmp(e->d_name, "guests.json") ||
		    (dot && !strcmp(dot, ".log")))
			continue;
		if (dot && !strcmp(dot, ".journal"))
			journals++;
		else
			snprintf(ret + strlen(ret), n - strlen(ret), "%s/%s ", folder, e->d_name);
	}
	if (d)
		closedir(d);
	return journals;
}

/* A journal for each job, and nothing that is half-done. Those in the folder itself are the agents' own. */
static void check_state_dir(struct soak_world *w, struct lab_host *h)
{
	static const char *const folders[] = {"state", "state/log", "state/images",
					      "state/migrations", "state/incoming"};
	unsigned int journals = 0;
	char left[1024] = "";

	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
		journals += look_into(h, folders[i], left, sizeof(left)) * (i > 0);
	lab_check(w->lab, !*left, "left in state_dir of %s: %s", h->name, left);
	lab_check(w->lab, journals <= w->jobs + w->snapshots, "%u journals at %s of %u jobs",
		  journals, h->name, w->jobs + w->snapshots);
}

/* --- all --- */

void soak_leaks_check(struct soak_world *w)
{
	for (unsigned int i = 0; i < SOAK_AGENTS; i++) {
		check_agent(w, i);
		if (!w->early[i].fds)
			w->early[i] = w->lives[i].now;
	}
	for (unsigned int i = 0; i < w->nguests; i++)
		check_guest(w, &w->guests[i]);
	for (unsigned int i = 0; i < 2; i++) {
		check_files(w, w->hosts[i]);
		check_state_dir(w, w->hosts[i]);
	}
}

void soak_leaks_say(struct soak_world *w, FILE *f)
{
	for (unsigned int i = 0; i < SOAK_AGENTS; i++)
		fprintf(f, "%s %lu", i ? "," : "; KiB", w->lives[i].now.anon_kb);
}

void soak_leaks_table(struct soak_world *w, FILE *f)
{
	fprintf(f, "agent      lives   descriptors     threads       anonymous KiB   growth\n");
	for (unsigned int i = 0; i < SOAK_AGENTS; i++) {
		const struct lab_usage *was = &w->early[i], *is = &w->lives[i].now;
		const struct soak_life *l = &w->lives[i];
		long kb = w->grown_kb[i];
		unsigned int rounds = w->grown_rounds[i];

		if (l->begin.anon_kb) {
			kb += (long)(is->anon_kb - l->begin.anon_kb);
			rounds += l->rounds - WARM_ROUNDS;
		}
		fprintf(f,
			"%-10s %5u   %4u -> %4u   %3u -> %3u   %7lu -> %7lu   %ld KiB in %u "
			"rounds\n",
			names[i], l->starts, was->fds, is->fds, was->threads, is->threads,
			was->anon_kb, is->anon_kb, kb, rounds);
	}
}
