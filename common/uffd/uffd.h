/* SPDX-License-Identifier: Apache-2.0 */
/*
 * userfaultfd(2). uffd.c is the only file that issues UFFDIO_*.
 *
 * A descriptor belongs to the address space that *created* it: register, copy, zeropage, wake and
 * writeprotect act there, whichever process calls them. Every address and length below is one of
 * that process, in bytes, and a multiple of the page size of the block. Only the source of
 * uffd_copy() is memory of the caller.
 *
 * All functions may be called from any thread at any time; the kernel serialises them. None logs.
 */
#ifndef DECANT_UFFD_UFFD_H
#define DECANT_UFFD_UFFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "util/error.h"

/*
 * Features of UFFDIO_API. Those below are the kernel's values; Debian 12's headers stop at
 * WP_HUGETLBFS_SHMEM, so all that we use are named here and found out at run time.
 */
#define UFFD_F_PAGEFAULT_FLAG_WP  (UINT64_C(1) << 0)
#define UFFD_F_EVENT_FORK         (UINT64_C(1) << 1)
#define UFFD_F_EVENT_REMAP        (UINT64_C(1) << 2)
#define UFFD_F_EVENT_REMOVE       (UINT64_C(1) << 3)
#define UFFD_F_MISSING_HUGETLBFS  (UINT64_C(1) << 4)
#define UFFD_F_MISSING_SHMEM      (UINT64_C(1) << 5)
#define UFFD_F_EVENT_UNMAP        (UINT64_C(1) << 6)
#define UFFD_F_SIGBUS             (UINT64_C(1) << 7)
#define UFFD_F_THREAD_ID          (UINT64_C(1) << 8)
#define UFFD_F_MINOR_HUGETLBFS    (UINT64_C(1) << 9)
#define UFFD_F_MINOR_SHMEM        (UINT64_C(1) << 10)
#define UFFD_F_EXACT_ADDRESS      (UINT64_C(1) << 11)
#define UFFD_F_WP_HUGETLBFS_SHMEM (UINT64_C(1) << 12)
#define UFFD_F_WP_UNPOPULATED     (UINT64_C(1) << 13)
#define UFFD_F_POISON             (UINT64_C(1) << 14)
#define UFFD_F_WP_ASYNC           (UINT64_C(1) << 15)
#define UFFD_F_MOVE               (UINT64_C(1) << 16)

/* What uffd_register() says can be done with a range: bit numbers are the kernel's ioctl numbers.
 */
#define UFFD_CAN_REGISTER     (UINT64_C(1) << 0x00)
#define UFFD_CAN_UNREGISTER   (UINT64_C(1) << 0x01)
#define UFFD_CAN_WAKE         (UINT64_C(1) << 0x02)
#define UFFD_CAN_COPY         (UINT64_C(1) << 0x03)
#define UFFD_CAN_ZEROPAGE     (UINT64_C(1) << 0x04)
#define UFFD_CAN_WRITEPROTECT (UINT64_C(1) << 0x06)
#define UFFD_CAN_API          (UINT64_C(1) << 0x3f)

/* Modes of uffd_register(); may be combined. */
#define UFFD_MODE_MISSING (UINT64_C(1) << 0)
#define UFFD_MODE_WP      (UINT64_C(1) << 1)

/** UFFD_DEVICE - the device whose permission replaces CAP_SYS_PTRACE (kernel 6.1) */
#define UFFD_DEVICE "/dev/userfaultfd"
/**
 * UFFD_DEVICE_NEW - ioctl(2) request on that device which makes a descriptor; the argument is
 * O_CLOEXEC | O_NONBLOCK. Named here for those who issue it inside another process.
 */
#define UFFD_DEVICE_NEW 0xaa00UL

/**
 * enum uffd_how - by which door a descriptor came
 * @UFFD_HOW_SYSCALL:	userfaultfd(2): CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd=1
 * @UFFD_HOW_DEVICE:	/dev/userfaultfd: its file permission is enough
 * @UFFD_HOW_USER_MODE:	UFFD_USER_MODE_ONLY: needs nothing, but a fault that is taken in the kernel
 *			(KVM, read(2) into the memory) fails with EFAULT instead of waiting
 */
enum uffd_how {
	UFFD_HOW_SYSCALL,
	UFFD_HOW_DEVICE,
	UFFD_HOW_USER_MODE,
};

/** uffd_how_name() - Return: "syscall", "device" or "user-mode-only" */
const char *uffd_how_name(enum uffd_how how);

/**
 * uffd_open() - make a descriptor for the calling process
 * @user_mode_only:	true: faults of user mode only, by the system call; false: faults of the
 *			kernel, too, by the system call, else by the device
 * @ret_how:	which door opened; may be NULL
 *
 * The descriptor is O_CLOEXEC and O_NONBLOCK (poll(2) gives an error event on one that blocks) and
 * has not shaken hands: uffd_api() comes next. There is no silent fall-back to user mode only.
 *
 * Return: descriptor, -EPERM without permission, -ENOSYS without userfaultfd, or another -errno
 */
int uffd_open(bool user_mode_only, enum uffd_how *ret_how);

/** uffd_try() - does this door open for the calling process? Return: 0, or -errno that says why not */
int uffd_try(enum uffd_how how);

/**
 * uffd_api() - the handshake, once for each descriptor
 * @fd:		fresh userfaultfd
 * @want:	UFFD_F_* to switch on; ask only for what uffd_probe() found, an unknown bit is
 * -EINVAL
 * @ret_features: all that the kernel has, whether asked for or not; may be NULL
 * @ret_ioctls:	UFFD_CAN_* of the descriptor itself; may be NULL
 *
 * Return: 0; -EINVAL for an unknown feature or a second handshake; -EPERM for EVENT_FORK without
 * CAP_SYS_PTRACE; or another -errno
 */
int uffd_api(int fd, uint64_t want, uint64_t *ret_features, uint64_t *ret_ioctls);

/**
 * uffd_register() - put a range under the descriptor's eyes
 * @mode:	UFFD_MODE_*
 * @ret_ioctls:	UFFD_CAN_* for this range (no ZEROPAGE on huge pages); may be NULL
 *
 * Return: 0; -EBUSY if another descriptor has a part of it (a mapping belongs to one only); -EINVAL
 * for a mapping of a kind that cannot be; -ENOMEM/-ENOENT without mapping; -ESRCH if the process is
 * gone; -EPERM for a file without write permission; or another -errno
 */
int uffd_register(int fd, uint64_t addr, uint64_t len, uint64_t mode, uint64_t *ret_ioctls);

/** uffd_unregister() - take it off again: protection goes, who waits is woken. Return: 0 or -errno
 */
int uffd_unregister(int fd, uint64_t addr, uint64_t len);

/**
 * uffd_writeprotect() - protect a range that is registered UFFD_MODE_WP, or lift that and wake
 * @on:		true protects, false lifts the protection and wakes the writers
 *
 * The kernel's EAGAIN (the layout is changing) is tried again here for a bounded time.
 *
 * Return: 0; -ENOENT where the range is not registered for it; -ESRCH if the process is gone;
 * -EAGAIN if the layout went on changing (drain the events of the descriptor, then call again);
 * or another -errno
 */
int uffd_writeprotect(int fd, uint64_t addr, uint64_t len, bool on);

/**
 * uffd_wake() - let threads that wait in the range try again
 *
 * They fault anew if the page is still missing. Only for a page that was there already (-EEXIST),
 * and once over everything after taking over a descriptor, whose faults a dead agent had read;
 * a wake on a page that is merely expected causes a storm of faults.
 *
 * Return: 0 or -errno
 */
int uffd_wake(int fd, uint64_t addr, uint64_t len);

/**
 * uffd_copy() - place pages atomically where there are none, and wake who waits for them
 * @dst:	address in the guest
 * @src:	memory of the caller, any alignment
 * @len:	bytes, a multiple of the page size
 * @ret_done:	bytes placed from @dst on; written in *every* case, also on errors
 *
 * Never overwrites. A partial result of the kernel is gone on with here.
 *
 * Return:
 * 0		all of @len is placed
 * -EEXIST	the page at @dst + *ret_done was there already, those before it are placed: wake
 *		that page and go on behind it
 * -EAGAIN	read all events of the descriptor (uffd_read()), then go on at @dst + *ret_done
 * -ENOENT	the layout changed: no registered mapping at @dst + *ret_done any more
 * -ESRCH	the guest is gone
 * or another -errno (-ENOMEM, -EFAULT for a bad @src, -EINVAL for alignment)
 */
int uffd_copy(int fd, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done);

/**
 * uffd_zeropage() - like uffd_copy() with pages of zeros; -EINVAL on huge pages
 *
 * On shared memory this allocates pages of the file, on anonymous memory it does not.
 *
 * Return: as uffd_copy()
 */
int uffd_zeropage(int fd, uint64_t dst, uint64_t len, uint64_t *ret_done);

/** enum uffd_kind - kinds of struct uffd_event */
enum uffd_kind {
	UFFD_EV_FAULT,
	UFFD_EV_REMOVE,
	UFFD_EV_UNMAP,
	UFFD_EV_REMAP,
	UFFD_EV_FORK,
	UFFD_EV_UNKNOWN,
};

/**
 * struct uffd_event - one message of the kernel
 * @kind:	which of the fields are meant
 * @write:	FAULT: the access was a write
 * @wp:		FAULT: the page is there and write-protected
 * @minor:	FAULT: the page is in the page cache and not mapped
 * @addr:	FAULT: address, rounded down to a page by the kernel (of the base size; round it
 *down to the block's); REMOVE, UNMAP: start of the range; REMAP: where it was
 * @len:	REMOVE, UNMAP, REMAP: bytes
 * @to:		REMAP: where it is now
 * @tid:	FAULT: thread id as the guest's own pid namespace numbers it, 0 without
 *		UFFD_F_THREAD_ID
 * @fd:		FORK: userfaultfd of the child; the reader owns it and must close it
 * @raw:	UNKNOWN: number of the kernel
 */
struct uffd_event {
	enum uffd_kind kind;
	bool write, wp, minor;
	uint64_t addr;
	uint64_t len;
	uint64_t to;
	uint32_t tid;
	int fd;
	uint8_t raw;
};

/**
 * uffd_unblock() - poll(2) has said POLLERR: is it because the descriptor can block?
 *
 * The guest shares the open file and can have cleared O_NONBLOCK; it is set again.
 *
 * Return: 0 if that was all; -EBADF if the descriptor is of no use; or another -errno
 */
int uffd_unblock(int fd);

/** UFFD_READ_MAX - most events of one uffd_read() */
#define UFFD_READ_MAX 64

/**
 * uffd_read() - read what waits, without blocking
 * @ev:		array of the caller
 * @max:	its size; more than UFFD_READ_MAX is not used
 *
 * The kernel hands out faults before other events, so drain the queue (call until 0) before acting
 * on a REMOVE.
 *
 * Return: number of events; 0 if there are none (also when another thread was faster, or a signal came);
 * -EIO for a message that is not whole; -errno
 */
int uffd_read(int fd, struct uffd_event *ev, size_t max);

/* Kinds of write tracking: bits of struct uffd_caps.tracking. */
#define UFFD_TRACK_ASYNC  1u /* WP_ASYNC and PAGEMAP_SCAN: writers never wait */
#define UFFD_TRACK_FAULTS 2u /* every first write waits for the agent */

/** enum uffd_mem - kinds of memory that are probed */
enum uffd_mem {
	UFFD_MEM_ANON,
	UFFD_MEM_SHMEM,
	UFFD_MEM_COUNT,
};

/**
 * struct uffd_caps - what this host's kernel can do for this process
 * @how:	door by which a descriptor for faults of the kernel opens; USER_MODE if none but
 *		that one does
 * @features:	UFFD_F_* of the kernel
 * @ioctls:	UFFD_CAN_* of a descriptor
 * @missing:	UFFD_CAN_* of an area registered for missing faults, for each enum uffd_mem; 0 if it
 *		cannot be registered
 * @wp:		the same for write protection
 * @tracking:	UFFD_TRACK_* that work on shared memory, tried with a real write
 * @tracking_anon: UFFD_TRACK_* that work on private anonymous memory
 * @populate_first: pages must be populated before protecting, because this kernel lacks
 *		WP_UNPOPULATED (kind faults on anonymous memory)
 * @postcopy:	incoming post-copy works: register, unregister, wake, copy and zeropage on both
 *		kinds of memory
 */
struct uffd_caps {
	enum uffd_how how;
	uint64_t features;
	uint64_t ioctls;
	uint64_t missing[UFFD_MEM_COUNT];
	uint64_t wp[UFFD_MEM_COUNT];
	unsigned int tracking;
	unsigned int tracking_anon;
	bool populate_first;
	bool postcopy;
};

/**
 * uffd_probe() - ask the kernel once, on throw-away descriptors and a test area of our own
 * @ret:	filled whatever is found
 * @err:	on failure: what is missing and what to do
 *
 * Takes a millisecond; keep the result. Does not say whether a *guest's* process may open one.
 *
 * Return: 0 if a descriptor opens and shakes hands; -EPERM, -ENOSYS or another -errno if not (@ret
 * is untouched then)
 */
int uffd_probe(struct uffd_caps *ret, struct error *err);

/**
 * uffd_caps_postcopy() - can this host receive by post-copy?
 *
 * Return: 0, or -EOPNOTSUPP with everything that is missing named in @err
 */
int uffd_caps_postcopy(const struct uffd_caps *caps, struct error *err);

/** uffd_feature_name() - Return: kernel's name of the feature of bit number @bit, NULL if unknown
 */
const char *uffd_feature_name(unsigned int bit);
/** uffd_can_name() - Return: "COPY" and so on for the UFFD_CAN_* of bit number @bit, or NULL */
const char *uffd_can_name(unsigned int bit);

#endif
