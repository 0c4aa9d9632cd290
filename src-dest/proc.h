/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that another life of the agent knew. */
#ifndef DECANT_PROC_H
#define DECANT_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/** proc_start() - Return: when the process was started, in ticks since the boot; 0 if there is none.
 * With the pid it names a process for as long as the host is up */
uint64_t proc_start(pid_t pid);
/** proc_lives() - Return: whether that very process is still there (not as a zombie) */
bool proc_lives(pid_t pid, uint64_t start);

#endif
