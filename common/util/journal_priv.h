/* SPDX-License-Identifier: Apache-2.0 */
/* A journal as journal.c and journal_sync.c share it. */
#ifndef DECANT_UTIL_JOURNAL_PRIV_H
#define DECANT_UTIL_JOURNAL_PRIV_H

#include <stdbool.h>
#include <stdint.h>

struct journal_sync;

/**
 * struct journal - an open journal
 * @fd:		locked with flock(2) as long as it is open
 * @path:	for messages
 * @size:	bytes of good lines; the file is never longer between calls, unless @broken
 * @broken:	a failed append could not be undone, nothing is known about the file's tail
 * @sync:	how it is synced apart; NULL before journal_sync_by()
 */
struct journal {
	int fd;
	char *path;
	uint64_t size;
	bool broken;
	struct journal_sync *sync;
};

/** journal_sync_closed() - @j, which has a sync, is being closed: what is under way ends without it */
void journal_sync_closed(struct journal *j);

#endif
