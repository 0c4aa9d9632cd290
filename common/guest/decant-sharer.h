/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libdecant-guest, for a second process: one that maps blocks of a guest, too, as the back end of a
 * device does. While the guest is being received, most of its memory is not there yet, and a page
 * that such a process touches must be fetched for it as for the guest.
 *
 *	struct decant_sharer *s = decant_sharer_new(&config);
 *	char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd_of_the_block, offset);
 *	decant_sharer_map(s, "ram", offset, n, p);
 *	if (!decant_sharer_wait(s, -1))
 *		use(p);				// waits where a page has to be fetched
 *
 * DO NOT TOUCH A MAPPING before decant_sharer_wait() has returned 0, not even for reading, and give it
 * to no system call: what is touched unguarded becomes a page of zeros, for the guest, too, and the
 * guest's page is lost. Where the memory comes from (a memfd or hugetlbfs file that the guest handed
 * over) is between the two processes.
 *
 * Only at the destination: a guest that was not launched to receive (decant_guest_incoming()) needs
 * none of this. While a guest is sent away, what its sharers write is not seen by the tracking of its
 * writes: its pause callback must have them at rest, and it has to be moved with mode postcopy.
 *
 * Threads: the library starts one, which blocks all signals. Functions may be called from any thread.
 * Errors are negative errno values. Sizes are bytes.
 */
#ifndef DECANT_SHARER_H
#define DECANT_SHARER_H

#include <stdint.h>

#include "decant-guest.h"

#ifdef __cplusplus
extern "C" {
#endif

/** DECANT_SHARER_RANGES_MAX - mappings of one sharer at a time */
#define DECANT_SHARER_RANGES_MAX 256

struct decant_sharer;

/** DECANT_SHARER_USER_FAULTS - as DECANT_GUEST_USER_FAULTS */
#define DECANT_SHARER_USER_FAULTS (1u << 0)

/**
 * struct decant_sharer_config - zero it, then fill what is needed; copied
 * @guest:	whose memory it is; mandatory
 * @name:	of this process, for the agent's log; mandatory, of the characters of a guest's
 * @attach:	path of decant-dest's socket; NULL: environment DECANT_ATTACH, which a launched guest has
 * @flags:	DECANT_SHARER_*
 */
struct decant_sharer_config {
	const char *guest;
	const char *name;
	const char *attach;
	unsigned int flags;
};

/**
 * decant_sharer_new() - begin to attach to the agent, and again whenever it has been away
 *
 * Return: a sharer, for decant_sharer_free(); NULL with errno set: EINVAL, ENOMEM, or why there is no
 * thread
 */
DECANT_API struct decant_sharer *decant_sharer_new(const struct decant_sharer_config *config);

/**
 * decant_sharer_map() - a part of a block is mapped here, and untouched; at any moment
 * @block:	its name in the guest
 * @offset, @length: in the block; multiples of its page size, as @addr
 *
 * Takes it out of what a child after fork(2) inherits. Returns at once: see decant_sharer_wait().
 *
 * Return: 0; -EINVAL; -ENOSPC beyond DECANT_SHARER_RANGES_MAX
 */
DECANT_API int decant_sharer_map(struct decant_sharer *s, const char *block, uint64_t offset,
				 uint64_t length, void *addr);
/**
 * decant_sharer_wait() - until everything that was mapped may be touched
 * @timeout_ms:	-1 for as long as it takes
 *
 * That is when the agent guards it, which it does when the guest is about to run there, or when
 * nothing of the guest's memory is missing any more.
 *
 * Return: 0; -ETIMEDOUT; or what the agent said about one of the ranges: see decant_sharer_error().
 * After an error nothing that was mapped since the last 0 may be touched
 */
DECANT_API int decant_sharer_wait(struct decant_sharer *s, int timeout_ms);
/**
 * decant_sharer_unmap() - behind munmap(2) of whole ranges; at any moment
 *
 * Return: 0, or -ENOENT if no range lies in [@addr, @addr + @length)
 */
DECANT_API int decant_sharer_unmap(struct decant_sharer *s, void *addr, uint64_t length);
/** decant_sharer_error() - copy out the last thing that went wrong, for a person. Return: @buf */
DECANT_API char *decant_sharer_error(struct decant_sharer *s, char *buf, size_t cap);
/** decant_sharer_free() - behind munmap(2) of everything; NULL is fine */
DECANT_API void decant_sharer_free(struct decant_sharer *s);

#ifdef __cplusplus
}
#endif

#endif
