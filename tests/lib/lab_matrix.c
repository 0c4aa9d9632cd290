/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_matrix.h"
#include "lib/lab_silent.h"

static const struct {
	const char *name, *agent, *phase;
} points[] = {
#define POINT(id, n, a, p) [FAULTPOINT_##id] = {.name = (n), .agent = (a), .phase = (p)},
	FAULTPOINTS(POINT)
#undef POINT
};

const char *lab_faultpoint_name(enum faultpoint p)
{
	return points[p].name;
}

const char *lab_faultpoint_agent(enum faultpoint p)
{
	return points[p].agent;
}

bool lab_faultpoint_at_source(enum faultpoint p)
{
	return !strcmp(points[p].agent, "source");
}

const char *lab_faultpoint_phase(enum faultpoint p)
{
	return points[p].phase;
}

/* --- rows --- */

bool lab_matrix_pick(size_t i, bool quick)
{
	const char *full = getenv("DECANT_FULL"), *slice = getenv("DECANT_SLICE");
	unsigned long k, n;

	if (!full || !*full)
		return quick;
	if (!slice || sscanf(slice, "%lu/%lu", &k, &n) != 2 || !n)
		return true;
	return i % n == k;
}

/* A row is a line, so that programs may write at the same time. */
static void record(const struct lab_row *row, const char *outcome)
{
	const char *path = getenv("DECANT_MATRIX");
	char line[512];
	int n = snprintf(line, sizeof(line), "%s\t%s\t%s\t%s\t%s\t%lu\n", row->fault, row->phase,
			 row->mode, row->driver, outcome,
			 (unsigned long)(lab_now_ms() - row->start_ms));
	int fd = path && *path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;

	if (fd >= 0 && (n >= (int)sizeof(line) || write(fd, line, (size_t)n) != n))
		fprintf(stderr, "%s: the row was not written\n", path);
	if (fd >= 0)
		close(fd);
}

void lab_matrix_begin(struct lab_row *row)
{
	row->start_ms = lab_now_ms();
	record(row, "FAILED");
}

void lab_matrix_end(const struct lab_row *row, const char *outcome)
{
	record(row, outcome);
}

/* --- fault points --- */

char *lab_fault(enum faultpoint p, const char *action)
{
	char *text;

	return asprintf(&text, "%s:%s", points[p].name, action) < 0 ? NULL : text;
}

char *lab_fault_kill(enum faultpoint p, unsigned int nth)
{
	char action[24];

	snprintf(action, sizeof(action), "kill@%u", nth ? nth : 1);
	return lab_fault(p, action);
}

void lab_fault_agents(struct lab *lab)
{
	const char *last = strrchr(lab->build, '/');

	lab_check(lab, last && !strcmp(last, "/faults"),
		  "agents in %s have no fault points: make faulty, and DECANT_BUILD=build/faults",
		  lab->build);
}

void lab_fault_killed(struct lab *lab, struct lab_proc *agent, unsigned int ms)
{
	lab_until(lab, ms, !lab_proc_alive(agent), "%s does not come to its fault point",
		  agent->name);
	lab_check(lab, agent->status == 128 + SIGKILL, "%s has ended with %d", agent->name,
		  agent->status);
}

void lab_fault_stopped(struct lab *lab, struct lab_proc *agent, unsigned int ms)
{
	lab_until(lab, ms, !lab_proc_alive(agent) || lab_silent_state(agent->pid) == 'T',
		  "%s does not come to its fault point", agent->name);
	lab_check(lab, agent->pid, "%s has ended with %d", agent->name, agent->status);
}
