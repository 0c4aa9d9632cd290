/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a silent daemon is doing. While a test waits, the log of each daemon is looked at: one that has said
 * nothing for LAB_SILENT_MS is asked for its health. If it answers it had nothing to say. If it does not, its
 * loop hangs, and where it hangs is written down: the threads' system calls and kernel stacks, and who is
 * connected to whom. With DECANT_STACKS in the environment gdb adds what the threads were about, which holds
 * the daemon up for longer. It is shown at once, for the daemon may go on and the test pass, and
 * once more with the logs if the test fails.
 */
#ifndef DECANT_TESTS_LAB_SILENT_H
#define DECANT_TESTS_LAB_SILENT_H

#include "lib/lab.h"

/* With the time for an answer less than the 5 s after which a peer is given up: or it is over when it is seen. */
#define LAB_SILENT_MS 1500
/* An answer takes milliseconds; where thirty others want to run it may take longer than this. */
#define LAB_SILENT_ANSWER_MS 1000

/* lab_silent_look(), which is called in every turn of a wait, is declared in lab.h. */

/** lab_silent_state() - Return: the letter of /proc/PID/stat, 0 if there is no such process */
char lab_silent_state(pid_t pid);
/** lab_silent_answers() - Return: whether who listens at @sock answers a request within @ms */
bool lab_silent_answers(const char *sock, unsigned int ms);
/** lab_silent_show() - write down what @p does, in ROOT/NAME.silent.log, and on stderr */
void lab_silent_show(struct lab *lab, const struct lab_proc *p);

#endif
