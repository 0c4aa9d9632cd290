/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The states of one block's pages on the destination, two bits a page, in a file that is mapped
 * shared: what was noted there outlives the SIGKILL of the agent. One file a block; one process at
 * a time (it is locked). The memory needed is 1/16384 of a block of 4 KiB pages, plus a page.
 *
 * Any number of threads may read and change states at the same time. A state is published with
 * release and read with acquire order: who reads "data" also sees all that was done before it was
 * noted.
 */
#ifndef DECANT_PAGES_PAGES_H
#define DECANT_PAGES_PAGES_H

#include <stdbool.h>
#include <stdint.h>
#include "util/error.h"

/**
 * enum pages_state - all but MISSING count as received
 * @PAGES_MISSING:	must come from the source
 * @PAGES_DATA:		was placed with content
 * @PAGES_ZERO:		known to be all zeros; filled by the first touch
 * @PAGES_REMOVED:	given back by the guest (balloon, punch, madvise)
 */
enum pages_state {
	PAGES_MISSING = 0,
	PAGES_DATA = 1,
	PAGES_ZERO = 2,
	PAGES_REMOVED = 3,
};

/** PAGES_STATES - number of states */
#define PAGES_STATES 4

/** PAGES_ID_SIZE - bytes of pages_what.id */
#define PAGES_ID_SIZE 32
/** PAGES_MAX - most pages of a block: 2^40, which is 4 PiB of 4 KiB pages */
#define PAGES_MAX (UINT64_C(1) << 40)

/**
 * struct pages_what - which block a file is about; all must agree when it is opened again
 * @npages:	1 to PAGES_MAX
 * @page_size:	bytes, the block's own (a power of two, 4 KiB or more)
 * @id:		names migration and block, such as a digest of both
 */
struct pages_what {
	uint64_t npages;
	uint64_t page_size;
	uint8_t id[PAGES_ID_SIZE];
};

struct pages;

/**
 * pages_create() - a new file, every page missing
 * @path:	must not exist; stays until the caller unlinks it
 *
 * All space is reserved here: a full disk is an error of this call and never a SIGBUS later.
 *
 * Return: 0; -EEXIST; -ENOSPC; -EINVAL for @what; or another -errno, with nothing left behind
 */
int pages_create(struct pages **ret, const char *path, const struct pages_what *what,
		 struct error *err);

/**
 * pages_open() - take up a file that another life of the agent wrote
 *
 * Return: 0; -ENOENT; -EBUSY if another process has it open; -EBADMSG if it is cut short, damaged
 * or about another block; or another -errno
 */
int pages_open(struct pages **ret, const char *path, const struct pages_what *what,
	       struct error *err);

/** pages_close() - unmap; the file stays; NULL is allowed. No thread may use it any more. */
void pages_close(struct pages *p);

/** pages_get() - Return: state of @page, which must be below the number of pages */
enum pages_state pages_get(const struct pages *p, uint64_t page);

/**
 * pages_mark() - missing pages of [first, first + n) get a state, others keep theirs
 * @state:	not PAGES_MISSING
 *
 * Return: how many changed; with @n = 1, exactly one of many callers sees 1
 */
uint64_t pages_mark(struct pages *p, uint64_t first, uint64_t n, enum pages_state state);

/**
 * pages_set() - all pages of [first, first + n) get a state, whatever they had
 *
 * For precopy, where a newer copy replaces an older one, and for discards (PAGES_MISSING).
 *
 * Return: how many were received before
 */
uint64_t pages_set(struct pages *p, uint64_t first, uint64_t n, enum pages_state state);

/**
 * pages_run() - how far does one state go?
 * @first:	below the number of pages
 * @max:	longest run of interest, not 0
 * @ret_state:	state of all pages of the run
 *
 * Return: pages of the run that begins at @first, at least 1, at most @max
 */
uint64_t pages_run(const struct pages *p, uint64_t first, uint64_t max,
		   enum pages_state *ret_state);

/** pages_next_missing() - Return: first missing page at or after @from, the number of pages if none
 */
uint64_t pages_next_missing(const struct pages *p, uint64_t from);

/** pages_received() - Return: pages that are not missing; exact once the threads that change rest
 */
uint64_t pages_received(const struct pages *p);

/** pages_count() - Return: pages in @state; exact once the threads that change rest */
uint64_t pages_count(const struct pages *p, enum pages_state state);

#endif
