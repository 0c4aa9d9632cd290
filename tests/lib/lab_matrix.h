/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The matrix of faults: fault x phase x mode x driver. Programs of tests/faults/ are Criterion programs
 * like those of tests/integration/, run with agents that have fault points (build/faults). Each case is a
 * row: it says so when it begins and what became of it when it ends; a row that does not end has failed.
 * `make test-faults` runs them all and prints what they said as one table; `make test` runs those that
 * stand for the others.
 *
 *	static struct my_row rows[] = {{..., .quick = true}, ...};
 *
 *	ParameterizedTestParameters(net, rows)
 *	{
 *		static struct my_row picked[LAB_COUNT(rows)];
 *		size_t n = 0;
 *
 *		for (size_t i = 0; i < LAB_COUNT(rows); i++)
 *			if (lab_matrix_pick(i, rows[i].quick))
 *				picked[n++] = rows[i];	(no pointers in it: Criterion copies it)
 *		return cr_make_param_array(struct my_row, picked, n);
 *	}
 *
 *	ParameterizedTest(struct my_row *r, net, rows, .timeout = 120)
 *	{
 *		struct lab_row row = {.fault = "reset", .phase = "precopy", .mode = r->mode, .driver = "native"};
 *
 *		lab_matrix_begin(&row);
 *		...	the whole test, lab_end() included
 *		lab_matrix_end(&row, "resumed");
 *	}
 *
 * An agent is told to end at a fault point of common/util/faultpoint.h before it is started: by
 * lab_host_opts.source_fault and dest_fault, or by lab_host.source_fault and dest_fault before
 * lab_host_source_start() and lab_host_dest_start(). It holds for one start.
 */
#ifndef DECANT_TESTS_LAB_MATRIX_H
#define DECANT_TESTS_LAB_MATRIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "lib/lab.h"
#include "util/faultpoint.h"

/**
 * struct lab_row - a row of the table; short words without tabs
 * @fault:	what is done: "kill source at commit-sent", "reset", "disk full"
 * @phase:	of the migration, when it is done
 * @mode:	"precopy", "hybrid", "postcopy", "snapshot", "restore", "clone"
 * @driver:	"native", "qemu", "uffd"
 * @start_ms:	of lab_matrix_begin()
 */
struct lab_row {
	const char *fault;
	const char *phase;
	const char *mode;
	const char *driver;
	uint64_t start_ms;
};

/**
 * lab_matrix_pick() - Return: whether this row is to be run now
 * @i:		its number in its program; DECANT_SLICE=K/N runs each N-th row from the K-th (0..) on
 * @quick:	it stands for others in `make test`
 */
bool lab_matrix_pick(size_t i, bool quick);
/** lab_matrix_begin() - from here on the row has failed unless it comes to lab_matrix_end() */
void lab_matrix_begin(struct lab_row *row);
/** lab_matrix_end() - what became of it, as the rules want it: a word or two */
void lab_matrix_end(const struct lab_row *row, const char *outcome);

/** lab_faultpoint_name(), lab_faultpoint_agent(), lab_faultpoint_phase() - as the list has them */
const char *lab_faultpoint_name(enum faultpoint p);
const char *lab_faultpoint_agent(enum faultpoint p);
const char *lab_faultpoint_phase(enum faultpoint p);
/** lab_faultpoint_at_source() - Return: whether it is one of decant-source's */
bool lab_faultpoint_at_source(enum faultpoint p);
/** lab_fault() - Return: "POINT:ACTION" for lab_host.source_fault and the like, for free(3) */
char *lab_fault(enum faultpoint p, const char *action);
/** lab_fault_kill() - lab_fault() of SIGKILL when the point is reached for the @nth time; 0: the first */
char *lab_fault_kill(enum faultpoint p, unsigned int nth);
/** lab_fault_agents() - fails unless the lab's agents have fault points */
void lab_fault_agents(struct lab *lab);
/** lab_fault_killed() - wait until the agent has ended itself; fails if it ends otherwise */
void lab_fault_killed(struct lab *lab, struct lab_proc *agent, unsigned int ms);
/** lab_fault_stopped() - wait until all of the agent stands (action "stop"); SIGCONT lets it go on */
void lab_fault_stopped(struct lab *lab, struct lab_proc *agent, unsigned int ms);

#endif
