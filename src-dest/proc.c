/* SPDX-License-Identifier: Apache-2.0 */
#include "proc.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "util/cleanup.h"
#include "util/fdio.h"

/* Behind the name, which may hold anything but ends with the last ')': state is field 3, start 22. */
static uint64_t look(pid_t pid, char *ret_state)
{
	CLEANUP_FREE char *text = NULL;
	char path[48], *at;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (pid <= 0 || fdio_read_file(path, 8192, &text) < 0)
		return 0;
	at = strrchr(text, ')');
	if (!at || strlen(at) < 4)
		return 0;
	*ret_state = at[2];
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at + 1, NULL, 10) : 0;
}

uint64_t proc_start(pid_t pid)
{
	char state;

	return look(pid, &state);
}

bool proc_lives(pid_t pid, uint64_t start)
{
	char state = 0;

	return start && look(pid, &state) == start && state != 'Z' && state != 'X';
}
