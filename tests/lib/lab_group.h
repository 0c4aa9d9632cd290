/* SPDX-License-Identifier: Apache-2.0 */
/* A control group of the memory controller, for those who run out of memory. As root only. */
#ifndef DECANT_TESTS_LAB_GROUP_H
#define DECANT_TESTS_LAB_GROUP_H

#include "lib/lab.h"

/**
 * struct lab_group - a group below the root
 * @dir:	its folder
 * @v2:		its version
 */
struct lab_group {
	char dir[128];
	bool v2;
};

/** lab_group_make() - Return: false if this machine has no memory controller of that version */
bool lab_group_make(struct lab_group *g, bool v2);
/** lab_group_limit() - @bytes: decimal, "-1" for none. Return: whether it is so */
bool lab_group_limit(const struct lab_group *g, const char *bytes);
/** lab_group_usage() - Return: bytes */
uint64_t lab_group_usage(const struct lab_group *g);
/** lab_group_spare() - nobody is killed in it: who needs memory waits. Return: false for version 2, which has not that */
bool lab_group_spare(const struct lab_group *g);
/** lab_group_enter() - put a process into it */
void lab_group_enter(struct lab *lab, const struct lab_group *g, pid_t pid);
/** lab_group_out() - put a process back into the root; 0 is nothing */
void lab_group_out(const struct lab_group *g, pid_t pid);
/** lab_group_leave() - lab_group_out() of the last one, and remove the group */
void lab_group_leave(struct lab *lab, const struct lab_group *g, pid_t pid);

#endif
