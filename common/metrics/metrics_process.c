/* SPDX-License-Identifier: Apache-2.0 */
/* What every Prometheus client tells of its process, under the names that they all use. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "metrics/metrics.h"
#include "util/cleanup.h"
#include "util/fdio.h"

/* Without the descriptor that counts. */
static uint64_t open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	uint64_t n = 0;

	if (!d)
		return 0;
	for (const struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n - 1;
}

static void descriptors(struct metrics *m)
{
	struct rlimit limit;

	metrics_family(m, "process_open_fds", METRICS_GAUGE, "Open file descriptors.");
	metrics_uint(m, NULL, open_fds());
	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	metrics_family(m, "process_max_fds", METRICS_GAUGE, "Most open file descriptors.");
	metrics_uint(m, NULL, limit.rlim_cur);
}

/**
 * struct stat - of /proc/self/stat
 * @cpu, @start:	clock ticks of both kinds of CPU time; after boot
 * @rss:		pages
 */
struct stat_line {
	uint64_t cpu, start, threads, vsize, rss;
};

/* The name, in parentheses, may hold anything. Return: whether it could be read */
static bool read_stat(struct stat_line *ret)
{
	CLEANUP_FREE char *text = NULL;
	unsigned long long user, sys, threads, start, vsize, rss;
	const char *p;

	if (fdio_read_file("/proc/self/stat", 4096, &text) < 0)
		return false;
	p = strrchr(text, ')');
	/* state ppid pgrp session tty tpgid flags minflt cminflt majflt cmajflt */
	if (!p || sscanf(p + 1,
			 " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d "
			 "%llu %*d %llu %llu %llu",
			 &user, &sys, &threads, &start, &vsize, &rss) != 6)
		return false;
	*ret = (struct stat_line){user + sys, start, threads, vsize, rss};
	return true;
}

/* Of /proc/stat; 0 if it cannot be told. */
static uint64_t boot_time(void)
{
	CLEANUP_FCLOSE FILE *f = fopen("/proc/stat", "re");
	unsigned long long at = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "btime %llu", &at) == 1)
			break;
	return at;
}

void metrics_process(struct metrics *m, void *arg)
{
	double hz = (double)sysconf(_SC_CLK_TCK);
	struct stat_line s;

	(void)arg;
	descriptors(m);
	if (!read_stat(&s))
		return;
	metrics_family(m, "process_cpu_seconds_total", METRICS_COUNTER,
		       "User and system CPU time.");
	metrics_real(m, NULL, (double)s.cpu / hz);
	metrics_family(m, "process_start_time_seconds", METRICS_GAUGE,
		       "Start of the process, since the epoch.");
	metrics_real(m, NULL, (double)boot_time() + (double)s.start / hz);
	metrics_family(m, "process_threads", METRICS_GAUGE, "Threads.");
	metrics_uint(m, NULL, s.threads);
	metrics_family(m, "process_virtual_memory_bytes", METRICS_GAUGE, "Virtual memory.");
	metrics_uint(m, NULL, s.vsize);
	metrics_family(m, "process_resident_memory_bytes", METRICS_GAUGE, "Resident memory.");
	metrics_uint(m, NULL, s.rss * (uint64_t)sysconf(_SC_PAGESIZE));
}
