/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/lab_smaps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/lab.h"

void lab_smaps(pid_t pid, lab_smaps_fn *fn, void *arg)
{
	unsigned long kb = 0;
	char path[64], *text, *save = NULL;

	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	text = pid ? lab_read_file(path) : NULL;
	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		if (!strncmp(line, "Size:", 5))
			kb = strtoul(line + 5, NULL, 10);
		else
			fn(arg, kb, line);
	}
	free(text);
}
