/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libdecant-guest: live migration for a program that keeps its state in memory.
 *
 * The program puts that memory into *blocks*, made by this library, and tells how it is paused,
 * resumed, saved and loaded. A decant agent on the same host does the rest: it reads the blocks
 *from outside while the program runs on, starts the same program on another host, lets it run there
 *before all of its memory has arrived, and fetches the pages that it touches.
 *
 *	struct decant_guest *g = decant_guest_new(&config);
 *	decant_block_create(g, "heap", 1 << 30, DECANT_BLOCK_MEMFD | DECANT_BLOCK_NO_DMA, &heap);
 *	if (!decant_guest_incoming(g))
 *		fill(heap);			// an incoming one must leave its blocks alone
 *	switch (decant_guest_start(g)) {
 *	case DECANT_STARTED:		// attached, or soon will be
 *	case DECANT_ARRIVED:		// came from another host: go on where it stopped
 *	case DECANT_ARRIVED_PAUSED:	// the same, but it was paused there
 *	default:			// see decant_guest_error()
 *	}
 *
 * Threads. The library starts two: the *service thread* speaks to the agent and never touches a
 * block; the *callback thread* calls the program's callbacks, one at a time. Both block all
 * signals. Functions may be called from any thread unless they say otherwise; none from a signal
 * handler, and none in a child after fork(2).
 *
 * What moves: the contents of the blocks, at the same offsets (their addresses may differ on the
 * other host: store offsets, not pointers), and what the save callback writes. Files, sockets and
 * other memory do not.
 *
 * Errors are negative errno values. Sizes are bytes, times are milliseconds.
 */
#ifndef DECANT_GUEST_H
#define DECANT_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DECANT_API __attribute__((visibility("default")))

/** DECANT_STATE_MAX - most bytes that a save callback may write */
#define DECANT_STATE_MAX (64u << 20)
/** DECANT_NAME_MAX - longest name of a guest or a block, of [A-Za-z0-9._-], not beginning with . or
 * - */
#define DECANT_NAME_MAX 63
/** DECANT_BLOCKS_MAX - most blocks of a guest */
#define DECANT_BLOCKS_MAX 256

struct decant_guest;
struct decant_writer;
struct decant_reader;

/**
 * struct decant_guest_callbacks - what the program can be asked to do
 *
 * All are called on the callback thread, one at a time, and get config.opaque. They may touch
 * blocks (and then may have to wait for a page to be fetched). They may call every function of
 * this library but decant_guest_free() and decant_guest_start().
 *
 * @pause:	bring every thread that touches blocks to a halt and return 0; from then until
 *@resume no byte of a block may change, nor what @save will write. @deadline_ms is how long the
 *agent will wait from now (-1: as long as it takes, the pause is the program's own). Too late costs
 *the migration, not the program: @resume is called at once when it returns. Return a negative errno
 *if it cannot be paused; it then must be running. I/O counts: a read that is under way into a block
 *(O_DIRECT, io_uring, a device) writes to it, so all of them must have completed; buffers may stay
 *registered with io_uring while nothing is read into them. A guest with a block that is not
 *DECANT_BLOCK_NO_DMA is also paused shortly when a migration begins
 * @resume:	let the threads go on. Called once for each @pause that returned 0, and once after @load, when
 *		the guest may run here; never otherwise
 * @save:	write what is not in blocks with decant_write(). Called between @pause and @resume;
 *		changes nothing, because the program may be resumed instead. Return 0, or a negative
 *errno, which costs the migration
 * @load:	read it back with decant_read(), all of it. Called once, before decant_guest_start() returns.
 *		Memory of blocks is in place or will be fetched when touched. The program is paused from here on,
 *		until @resume. Return 0, or a negative errno
 * @quit:	the program has been moved away, or the operator wants it to end: end soon. May be
 *		called while paused: threads may then stay where they are
 * @message:	one line for the program's log (attached, refused and why...); called on the service
 *		thread, must not wait. NULL: nobody cares
 */
struct decant_guest_callbacks {
	int (*pause)(void *opaque, int deadline_ms);
	void (*resume)(void *opaque);
	int (*save)(void *opaque, struct decant_writer *writer);
	int (*load)(void *opaque, struct decant_reader *reader);
	void (*quit)(void *opaque);
	void (*message)(void *opaque, const char *text);
};

/** DECANT_GUEST_USER_FAULTS - the program never passes memory of a block to a system call (nor to
 * KVM), not even for reading. Then no privilege is needed for userfaultfd: without this promise the
 * process needs CAP_SYS_PTRACE, vm.unprivileged_userfaultfd=1 or permission on /dev/userfaultfd.
 * decant_write() and decant_read() keep it. */
#define DECANT_GUEST_USER_FAULTS (1u << 0)
/** DECANT_GUEST_VCPUS - the program names the threads that are its virtual processors, with
 * decant_vcpu_add(); how long they wait for pages is measured and reported then */
#define DECANT_GUEST_VCPUS (1u << 1)
/** DECANT_VCPUS_MAX - most threads that are named at a time */
#define DECANT_VCPUS_MAX 256

/**
 * struct decant_guest_config - zero it, then fill what is needed; copied by decant_guest_new()
 * @name:	name of the guest; mandatory
 * @attach:	path of the agent's socket; NULL: environment DECANT_ATTACH, else
 *		/run/decant/source.attach. An incoming guest always takes DECANT_ATTACH
 * @uuid:	16 bytes, or NULL: made at random (an incoming guest gets that of the one it
 *becomes)
 * @flags:	DECANT_GUEST_*
 * @callbacks:	pause, resume, save, load and quit are mandatory
 * @opaque:	passed to them
 */
struct decant_guest_config {
	const char *name;
	const char *attach;
	const uint8_t *uuid;
	unsigned int flags;
	struct decant_guest_callbacks callbacks;
	void *opaque;
};

/**
 * decant_guest_new() - describe the program; connects to nothing yet
 *
 * Reads DECANT_ATTACH and DECANT_INCOMING (a one-time token of 64 hex digits, with which an agent
 * launches the program to receive a guest). One for each process.
 *
 * Return: a guest, for decant_guest_free(); NULL with errno set: EINVAL (a mandatory field is
 * missing or the name, path or token is malformed) or ENOMEM
 */
DECANT_API struct decant_guest *decant_guest_new(const struct decant_guest_config *config);

/* Backing of a block: exactly one of these... */
#define DECANT_BLOCK_MEMFD   (1u << 0) /* shared memory file: the fastest to move */
#define DECANT_BLOCK_ANON    (1u << 1) /* private anonymous memory, as malloc(3) has it */
#define DECANT_BLOCK_HUGE_2M (1u << 2) /* 2 MiB pages; they must have been reserved on the host */
#define DECANT_BLOCK_HUGE_1G \
	(1u << 3) /* 1 GiB pages, too: moved in mode precopy, never post-copy */
/* ...and, where it holds: */
/*
 * No device writes to it: no O_DIRECT read(2), no io_uring with O_DIRECT or registered buffers, no other
 * program that has it pinned. This is a promise, and nobody can check it: what such I/O brings after the
 * block was copied is lost without a trace. Without the flag the agent moves the block in a way that
 * loses nothing, at the price of a short pause at the beginning; see "Direct I/O" in GUEST.md for what it
 * can and cannot see.
 */
#define DECANT_BLOCK_NO_DMA (1u << 8)
/*
 * Nobody writes to it once decant_guest_start() has been called, no device either: a ROM, a text, a table.
 * The library maps it read-only then, and in an incoming guest when that is let go (the load callback may
 * not write to it). Its pages are sent once and never tracked.
 */
#define DECANT_BLOCK_READONLY (1u << 9)

/**
 * decant_block_create() - make a block, filled with zeros
 * @g:		not yet started
 * @name:	unique in the guest; the same on every host
 * @length:	bytes; rounded up to whole pages; the same on every host
 * @flags:	DECANT_BLOCK_*
 * @ret_addr:	its address; valid until decant_guest_free(). Never move it (mremap(2)) nor map anything over it
 *
 * Parts may be given back at any time, also while the program moves, and are zeros from then on: memory of
 * DECANT_BLOCK_ANON by MADV_DONTNEED, other memory by MADV_REMOVE. MADV_FREE and munmap(2) of parts of
 * DECANT_BLOCK_ANON are fine, too. Not fine: fallocate(2) on a descriptor of the memory (the page may come back
 * with its old contents), write(2) to one (it may be lost), and MADV_DONTNEED of shared memory before all
 * of it has arrived (it counts as giving back). Such a call may wait a moment for the agent.
 *
 * A child of fork(2) does not inherit it (MADV_DONTFORK); leave that so: writes of a child would not be
 * moved, and it might wait, or find zeros, where memory has not arrived.
 *
 * A block that is to grow is made with the length that it may reach. What was never touched costs no
 * memory, is not sent, and can be put to use at any time, also while the guest is being moved: tracking,
 * sending and post-copy cover the whole length.
 *
 * In an incoming guest it has no contents yet: do not write to it before decant_guest_start() or
 * the load callback.
 *
 * Return: 0; -EINVAL for names, flags or lengths that cannot be; -EEXIST for a name used before;
 * -ENOSPC beyond DECANT_BLOCKS_MAX; -EBUSY after decant_guest_start(); -ENOMEM (also: no huge pages
 * are reserved); or another -errno
 */
DECANT_API int decant_block_create(struct decant_guest *g, const char *name, uint64_t length,
				   unsigned int flags, void **ret_addr);

/** decant_guest_incoming() - Return: true if an agent launched this process to receive a guest, and
 * decant_guest_start() has not returned yet */
DECANT_API bool decant_guest_incoming(const struct decant_guest *g);

/* Results of decant_guest_start(). */
#define DECANT_STARTED        0
#define DECANT_ARRIVED        1
#define DECANT_ARRIVED_PAUSED 2

/**
 * decant_guest_start() - begin to be movable; once
 *
 * A fresh guest: starts the threads and returns at once. Whether an agent is there does not matter;
 * the library attaches when it can and again whenever the agent has been away.
 *
 * An incoming guest: waits until the guest it becomes has been loaded and let go, however long that
 * takes. Whether its threads may run is said by the callbacks alone, as ever: it is paused from @load on
 * until @resume, which has been called before this returns unless the guest arrived paused. A next
 * @pause may come at any moment, also before this has returned: threads that are only started then must find out.
 *
 * Return: DECANT_STARTED; DECANT_ARRIVED; DECANT_ARRIVED_PAUSED: it was paused on the other host by
 * its own wish, as by decant_guest_set_paused(), and still is; -EACCES: the agent refused it;
 * -ECANCELED: it was told to quit; -EIO: it could not be loaded; -EALREADY; -EAGAIN or another -errno:
 * no threads
 */
DECANT_API int decant_guest_start(struct decant_guest *g);

/**
 * decant_guest_set_paused() - the program's own wish to be paused, or no longer
 *
 * Brings about @pause or @resume on the callback thread, unless a migration has it paused anyway;
 * returns without waiting. A guest that wishes to be paused arrives paused. Before
 * decant_guest_start() it says how the program starts: without @pause being called; let no thread
 * run then.
 */
DECANT_API void decant_guest_set_paused(struct decant_guest *g, bool paused);

/**
 * decant_vcpu_add() - the calling thread is a virtual processor (flag DECANT_GUEST_VCPUS)
 *
 * Before it touches a block; harmless for one that is named already. The block time of a migration tells how
 * long each of these threads waited for pages at the destination, and how long all of them at once.
 *
 * Return: 0; -EINVAL without the flag; -ENOSPC beyond DECANT_VCPUS_MAX
 */
DECANT_API int decant_vcpu_add(struct decant_guest *g);
/** decant_vcpu_remove() - it is none any more; before the thread ends. Return: 0 or -ENOENT */
DECANT_API int decant_vcpu_remove(struct decant_guest *g);

/** decant_guest_error() - copy out the last thing that went wrong, for a person; empty if nothing
 * did. Return: @buf */
DECANT_API char *decant_guest_error(struct decant_guest *g, char *buf, size_t cap);

/**
 * decant_write() - append to the saved state; only inside @save, on its thread
 * @buf:	@n bytes; may lie in a block
 *
 * Return: 0; -EFBIG once more than DECANT_STATE_MAX bytes were written; -EPIPE if the agent has
 * given up. After an error every further call returns it, and the save fails whatever @save returns
 */
DECANT_API int decant_write(struct decant_writer *w, const void *buf, size_t n);
/**
 * decant_read() - take the next bytes of the state; only inside @load, on its thread
 * @buf:	@n bytes; may lie in a block
 *
 * Return: 0 when all @n bytes are there; -ENODATA if the state ends before (nothing is said about
 * @buf then); -EIO if it was cut off. After an error the load fails whatever @load returns
 */
DECANT_API int decant_read(struct decant_reader *r, void *buf, size_t n);
/** decant_read_some() - like read(2). Return: bytes read, 1 .. @n; 0 at the end of the state; -EIO
 */
DECANT_API ssize_t decant_read_some(struct decant_reader *r, void *buf, size_t n);

/**
 * decant_guest_free() - end the connection and the threads, unmap all blocks
 *
 * Nothing may touch blocks any more. Waits for a callback that is running. Not from a callback.
 * NULL is fine.
 */
DECANT_API void decant_guest_free(struct decant_guest *g);

#ifdef __cplusplus
}
#endif

#endif
