/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "lib/lab_guest.h"
#include "lib/lab_vm.h"

/* How much of each log is shown when a test fails. */
#define SHOW_LINES 150

uint64_t lab_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void lab_nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
}

char *lab_read_file(const char *path)
{
	size_t cap = 65536, n = 0;
	char *text = malloc(cap);
	ssize_t got;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		free(text);
		return NULL;
	}
	/* Files of /proc have no size: read until the end. */
	while ((got = read(fd, text + n, cap - n - 1)) > 0) {
		n += (size_t)got;
		if (n + 1 == cap)
			text = realloc(text, cap *= 2);
	}
	close(fd);
	text[n] = 0;
	return text;
}

void lab_write_file(struct lab *lab, const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	lab_check(lab, f, "%s: %m", path);
	lab_check(lab, fputs(text, f) >= 0 && fclose(f) == 0, "%s: %m", path);
}

/* Of either size. */
static const char *const huge_dirs[LAB_HUGE_SIZES] = {
	"/sys/kernel/mm/hugepages/hugepages-2048kB",
	"/sys/kernel/mm/hugepages/hugepages-1048576kB",
};

static char *huge_file(int size, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", huge_dirs[size], name);
	return lab_read_file(path);
}

static unsigned int huge_pages_free(int size)
{
	char *text = huge_file(size, "free_hugepages");
	unsigned int n = text ? (unsigned int)atoi(text) : 0;

	free(text);
	return n;
}

static void huge_pages_set(int size, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/nr_hugepages", huge_dirs[size]);
	f = fopen(path, "we");
	if (f) {
		fputs(text, f);
		fclose(f);
	}
}

/*
 * The machine's huge pages are one test's at a time: what one has reserved and not yet touched would
 * look free to another, and goes when the first ends. The lock goes with the file.
 */
static void huge_pages_lock(struct lab *lab)
{
	if (lab->huge_lock >= 0)
		return;
	lab->huge_lock = open("/tmp/decant-huge-pages.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (lab->huge_lock >= 0)
		flock(lab->huge_lock, LOCK_EX);
}

static bool huge_pages_reserve(struct lab *lab, int size, unsigned int n)
{
	char text[16];

	huge_pages_lock(lab);
	if (huge_pages_free(size) >= n)
		return true;
	lab->huge_before[size] = huge_file(size, "nr_hugepages");
	if (!lab->huge_before[size])
		return false;
	snprintf(text, sizeof(text), "%u", atoi(lab->huge_before[size]) + n);
	huge_pages_set(size, text);
	return huge_pages_free(size) >= n;
}

bool lab_huge_pages(struct lab *lab, unsigned int n)
{
	return huge_pages_reserve(lab, 0, n);
}

bool lab_gigantic_pages(struct lab *lab, unsigned int n)
{
	return huge_pages_reserve(lab, 1, n);
}

static void huge_pages_restore(struct lab *lab)
{
	for (int size = 0; size < LAB_HUGE_SIZES; size++)
		if (lab->huge_before[size])
			huge_pages_set(size, lab->huge_before[size]);
	if (lab->huge_lock >= 0)
		close(lab->huge_lock);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

/* Names in /dev/shm between newlines. */
static char *shm_list(void)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);
	struct dirent **names;
	int count = scandir("/dev/shm", &names, NULL, alphasort);

	fputc('\n', f);
	for (int i = 0; i < count; i++) {
		fprintf(f, "%s\n", names[i]->d_name);
		free(names[i]);
	}
	if (count >= 0)
		free(names);
	fclose(f);
	return text;
}

/* Criterion's runner, a benchmark, fuzzing and the VMs of other tests come and go with files of their own. */
static bool is_of_others(const char *name)
{
	int pid = 0;

	return strstr(name, "bxf") || !strncmp(name, "decant-bench.", 13) ||
	       !strncmp(name, "decant-fuzz.", 12) ||
	       (sscanf(name, "decant-vm.%d.", &pid) == 1 && pid != getpid());
}

/* Whether each name that is there now was there before. */
static bool shm_is_as_before(const char *before)
{
	char *now = shm_list(), *save = NULL, want[300];
	bool same = true;

	for (char *name = strtok_r(now, "\n", &save); name; name = strtok_r(NULL, "\n", &save)) {
		snprintf(want, sizeof(want), "\n%s\n", name);
		if (!is_of_others(name) && !strstr(before, want)) {
			fprintf(stderr, "new in /dev/shm: %s\n", name);
			same = false;
		}
	}
	free(now);
	return same;
}

static void where_programs_are(struct lab *lab)
{
	const char *build = getenv("DECANT_BUILD");
	char *full = realpath(build && *build ? build : "build", NULL);
	char *tests = realpath("build/tests", NULL);
	const char *kind;

	if (!full || !tests) {
		fprintf(stderr, "no %s or build/tests here: run this from the project's root\n",
			build ? build : "build");
		abort();
	}
	snprintf(lab->build, sizeof(lab->build), "%s", full);
	snprintf(lab->tests, sizeof(lab->tests), "%s", tests);
	snprintf(lab->guests_at, sizeof(lab->guests_at), "%.200s/guests", tests);
	/* The last part of the name says which build it is: a whole tree may lie below a folder build, too. */
	kind = strrchr(full, '/') + 1;
	lab->sanitized = strcmp(kind, "build") != 0 && strcmp(kind, "faults") != 0;
	lab->slow = strcmp(kind, "thread") == 0 ? 8 : lab->sanitized ? 4 : 1;
	lab->full = getenv("DECANT_FULL") && *getenv("DECANT_FULL");
	snprintf(lab->certs, sizeof(lab->certs), "%s/../test-certs", tests);
	free(full);
	free(tests);
}

struct lab *lab_new(lab_failed_fn *failed)
{
	struct lab *lab = calloc(1, sizeof(*lab));
	const char *tmp = getenv("TMPDIR");

	lab->failed = failed;
	where_programs_are(lab);
	snprintf(lab->root, sizeof(lab->root), "%s/lab.XXXXXX", tmp && *tmp ? tmp : "/tmp");
	lab_check(lab, mkdtemp(lab->root), "%s: %m", lab->root);
	/* Guests that an agent launched outlive it: they become our children and can be found. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGPIPE, SIG_IGN);
	lab->shm_before = shm_list();
	lab->huge_lock = -1;
	return lab;
}

/* --- the end, good or bad --- */

static void show_file(const char *path)
{
	char *text = lab_read_file(path), *from;
	int lines = 0;

	if (!text || !*text) {
		free(text);
		return;
	}
	for (from = text + strlen(text) - 1; from > text; from--)
		if (from[-1] == '\n' && ++lines == SHOW_LINES)
			break;
	fprintf(stderr, "--- %s\n%s", path, from);
	if (text[strlen(text) - 1] != '\n')
		fputc('\n', stderr);
	free(text);
}

static bool is_log(const char *path)
{
	const char *dot = strrchr(path, '.');

	return strstr(path, "san.") || (dot && (!strcmp(dot, ".err") || !strcmp(dot, ".out") ||
						!strcmp(dot, ".log") || !strcmp(dot, ".report")));
}

static int show_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)ftw;
	if (type == FTW_F && is_log(path))
		show_file(path);
	return 0;
}

/* What a process is doing, for those that would not end. */
static void show_process(pid_t pid, const char *why)
{
	char path[64], *args, *state;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	args = lab_read_file(path);
	snprintf(path, sizeof(path), "/proc/%d/wchan", pid);
	state = lab_read_file(path);
	fprintf(stderr, "%s: pid %d: %s (in %s)\n", why, pid, args ? args : "?",
		state ? state : "?");
	free(args);
	free(state);
}

typedef unsigned int orphan_fn(pid_t pid);

/* Children of ours that we did not start: guests whose agent is gone. Return: sum of what @fn returns */
static unsigned int each_orphan(orphan_fn *fn)
{
	unsigned int n = 0;
	char *list = lab_read_file("/proc/thread-self/children"), *save = NULL;

	for (char *word = strtok_r(list, " \n", &save); word; word = strtok_r(NULL, " \n", &save)) {
		pid_t pid = atoi(word);

		if (waitpid(pid, NULL, WNOHANG) == 0)
			n += fn(pid);
	}
	free(list);
	return n;
}

static unsigned int count_orphan(pid_t pid)
{
	(void)pid;
	return 1;
}

static unsigned int kill_orphan(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return 1;
}

static unsigned int show_orphan(pid_t pid)
{
	show_process(pid, "left behind");
	return 1;
}

static void end_everything(struct lab *lab)
{
	for (size_t i = 0; i < lab->n_procs; i++)
		if (lab->procs[i]->pid)
			kill(lab->procs[i]->pid, SIGKILL);
	for (size_t i = 0; i < lab->n_procs; i++)
		if (lab->procs[i]->pid)
			waitpid(lab->procs[i]->pid, NULL, 0);
	/* Each round can bring orphans of those that it ended. */
	while (each_orphan(kill_orphan))
		;
	lab_vm_forget();
	huge_pages_restore(lab);
}

void lab_fail(struct lab *lab, const char *file, int line, const char *cond, const char *fmt, ...)
{
	char why[512], msg[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	snprintf(msg, sizeof(msg), "%s:%d: (%s): %s", file, line, cond, why);
	fprintf(stderr, "FAILED %s\n", msg);
	if (!lab->failing) {
		lab->failing = true;
		nftw(lab->root, show_entry, 16, FTW_PHYS);
		end_everything(lab);
		if (!getenv("DECANT_KEEP"))
			nftw(lab->root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	}
	lab->failed(msg);
	abort();
}

static int find_report(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)ftw;
	return type == FTW_F && st->st_size > 0 && strstr(path, "/san.") ? 1 : 0;
}

static void free_lab(struct lab *lab)
{
	for (size_t i = 0; i < lab->n_procs; i++)
		free(lab->procs[i]);
	for (size_t i = 0; i < lab->n_hosts; i++)
		free(lab->hosts[i]);
	for (size_t i = 0; i < lab->n_guests; i++)
		free(lab->guests[i]);
	free(lab->shm_before);
	for (int size = 0; size < LAB_HUGE_SIZES; size++)
		free(lab->huge_before[size]);
	free(lab);
}

void lab_end(struct lab *lab)
{
	for (size_t i = 0; i < lab->n_guests; i++)
		lab_guest_end(lab->guests[i]);
	for (size_t i = 0; i < lab->n_hosts; i++)
		lab_host_stop(lab->hosts[i]);
	for (size_t i = 0; i < lab->n_procs; i++)
		if (lab_proc_alive(lab->procs[i]))
			lab_proc_kill(lab, lab->procs[i]);
	/* One that was told to end may still be at it. */
	for (uint64_t end = lab_now_ms() + LAB_LEAST_MS;
	     each_orphan(count_orphan) && lab_now_ms() < end;)
		lab_nap();
	lab_check(lab, each_orphan(show_orphan) == 0, "processes were left behind");
	lab_check(lab, nftw(lab->root, find_report, 16, FTW_PHYS) == 0,
		  "a sanitizer has complained");
	huge_pages_restore(lab);
	lab_check(lab, shm_is_as_before(lab->shm_before), "something is left in /dev/shm");
	nftw(lab->root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free_lab(lab);
}
