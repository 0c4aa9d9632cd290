/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bench.h"

#include <ftw.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "bench/mover.h"

/* More than any part uses at a time: host memory that was used before costs no fault below. */
#define WARM_BYTES (6ull << 30)

void bench_say(const char *fmt, ...)
{
	va_list ap;

	fputs("bench: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void bench_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	/* Also called in processes of the comparison, which share the streams' buffers. */
	_exit(1);
}

double bench_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void failed(const char *msg)
{
	bench_die("bench: did not work: %s", msg);
}

/* In a process of its own, so that all of it is given back. */
static void warm(void)
{
	uint64_t have = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t n = WARM_BYTES < have / 2 ? WARM_BYTES : have / 2;
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		void *p = mmap(NULL, n, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

		_exit(p == MAP_FAILED);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		bench_say("memory could not be touched beforehand: first rounds will be slow");
}

/* --- the run --- */

static const struct part {
	const char *name;
	void (*run)(struct bench *b);
	const char *what;
} parts[] = {
	{"bulk", bench_bulk, "bulk rates beside bare TLS, and the agents' memory"},
	{"fault", bench_fault, "latency of faults beside bare round trips"},
	{"pause", bench_pause, "pause to run"},
	{"zeros", bench_zeros, "4 GiB of zeros"},
	{"track", bench_track, "what write tracking costs the guest"},
};

#define PARTS (sizeof(parts) / sizeof(parts[0]))

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void run(struct bench *b, const bool wanted[static PARTS])
{
	b->lab = lab_new(failed);
	bench_say("touching memory once");
	warm();
	mover_hosts(b);
	for (size_t i = 0; i < PARTS; i++) {
		if (!wanted[i])
			continue;
		bench_say("%s: %s", parts[i].name, parts[i].what);
		parts[i].run(b);
	}
	lab_end(b->lab);
}

static void show(const struct bench *b, bool json)
{
	if (json)
		report_json(&b->report);
	else
		report_table(&b->report);
}

/* What fails ends its process at once; what lies in memory is removed by the one that waits for it. */
static int run_apart(struct bench *b, const bool wanted[static PARTS], bool json)
{
	int status = 1;
	pid_t pid;

	snprintf(b->shm, sizeof(b->shm), "/dev/shm/decant-bench.XXXXXX");
	if (!mkdtemp(b->shm))
		bench_die("bench: %s: %m", b->shm);
	signal(SIGINT, SIG_IGN);
	pid = fork();
	if (!pid) {
		signal(SIGINT, SIG_DFL);
		run(b, wanted);
		show(b, json);
		exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		bench_say("fork: %m");
	nftw(b->shm, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	return status != 0;
}

static void usage(FILE *f)
{
	fputs("usage: bench [--json] [--rounds N] [PART...]\n"
	      "First figures of decant, each measured beside what it is compared with.\nParts:\n",
	      f);
	for (size_t i = 0; i < PARTS; i++)
		fprintf(f, "  %-6s %s\n", parts[i].name, parts[i].what);
}

static bool want(bool wanted[static PARTS], const char *name)
{
	for (size_t i = 0; i < PARTS; i++)
		if (!strcmp(parts[i].name, name))
			return wanted[i] = true;
	return false;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"json", 0, NULL, 'j'},
						{"rounds", 1, NULL, 'r'},
						{"help", 0, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	static struct bench b = {.rounds = BENCH_ROUNDS};
	bool wanted[PARTS] = {0}, json = false;
	double began = bench_now();
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == 'r')
			b.rounds = (unsigned int)strtoul(optarg, NULL, 10);
		json |= c == 'j';
		if ((c != 'j' && c != 'r') || !b.rounds || b.rounds > REPORT_VALUES_MAX) {
			usage(c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	for (int i = optind; i < argc; i++) {
		if (!want(wanted, argv[i])) {
			usage(stderr);
			return 2;
		}
	}
	for (size_t i = 0; optind == argc && i < PARTS; i++)
		wanted[i] = true;
	c = run_apart(&b, wanted, json);
	bench_say("%.0f s", bench_now() - began);
	return c;
}
