/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc/PID/smaps says of a process. */
#ifndef DECANT_TESTS_LAB_SMAPS_H
#define DECANT_TESTS_LAB_SMAPS_H

#include <sys/types.h>

/** lab_smaps_fn - a line of what is said of a mapping, behind that of its size. @kb: that, in KiB */
typedef void lab_smaps_fn(void *arg, unsigned long kb, const char *line);

/** lab_smaps() - each line in turn; of a process that is gone, and of 0, there are none */
void lab_smaps(pid_t pid, lab_smaps_fn *fn, void *arg);

#endif
