/* SPDX-License-Identifier: Apache-2.0 */
/* SIGKILL of an agent that tracks somebody's writers, beside a control; see lab_kill.c. */
#ifndef DECANT_TESTS_LAB_KILL_H
#define DECANT_TESTS_LAB_KILL_H

#include "lib/lab.h"

struct lab_control;

/**
 * struct lab_writers - whose memory the agent tracks
 * @calm:	forget the longest stall so far
 * @go_on:	wait until they have written on; fails the test if they do not
 * @stall_us:	the longest that one of them stood since @calm
 * @end:	frees @arg; NULL for nothing
 */
struct lab_writers {
	void *arg;
	void (*calm)(void *arg);
	void (*go_on)(void *arg);
	uint64_t (*stall_us)(void *arg);
	void (*end)(void *arg);
};

/**
 * lab_control_start() - a bystander: a writer whose memory is tracked by a process of @threads threads
 * @threads:	as many as the agent has
 */
struct lab_control *lab_control_start(struct lab *lab, unsigned int threads);
/** lab_control_calm() - its longest stall counts from now on */
void lab_control_calm(struct lab_control *c);
/** lab_control_kill() - SIGKILL its tracker: when the agent is killed */
void lab_control_kill(struct lab_control *c);
/** lab_control_check() - a writer of @what stood for @stall_us: no longer than 100 ms, or three times as long as the bystander's */
void lab_control_check(struct lab *lab, struct lab_control *c, uint64_t stall_us, const char *what);
void lab_control_end(struct lab *lab, struct lab_control *c);

/** lab_kill_agent() - SIGKILL @agent: the writers stand no longer than 100 ms, or three times as long as
 * those of a bystander whose tracker is killed at the same moment */
void lab_kill_agent(struct lab *lab, struct lab_proc *agent, const struct lab_writers *w);

struct lab_vm;

/** lab_vm_writers() - the threads of a VM that runs; once @calm. lab_vm_stall.c */
struct lab_writers lab_vm_writers(struct lab_vm *vm);

#endif
