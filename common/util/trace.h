/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events for who looks at a running agent: each is a static tracepoint of provider "decant" (for
 * perf, bpftrace and SystemTap; deploy/TRACING.md lists them) and a line of the debug log.
 *
 * While nobody looks a tracepoint is one no-operation instruction whose operands are values that the
 * caller has anyway, and nothing is formatted for the log. So they may stand where runs are placed and
 * faults are served, but not inside a loop over the pages of a run.
 *
 * Any thread. Strings are the caller's; all offsets, lengths and sizes are bytes.
 */
#ifndef DECANT_UTIL_TRACE_H
#define DECANT_UTIL_TRACE_H

/* <sys/sdt.h> takes any number of operands only if asked to. */
#define SDT_USE_VARIADIC 1

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/sdt.h>
#include "util/log.h"

#define TRACE_EVENT_IF(logged, probe, fmt, ...)                                     \
	do {                                                                        \
		STAP_PROBEV(decant, probe, __VA_ARGS__);                            \
		if (logged)                                                         \
			log_msg(LOG_DEBUG, "trace: " #probe ": " fmt, __VA_ARGS__); \
	} while (0)
#define TRACE_EVENT(...) TRACE_EVENT_IF(trace_logged(), __VA_ARGS__)

/**
 * trace_logged() - Return: whether events go to the log
 *
 * Settled when the process starts. libc keeps it behind a lock: who has many events asks once.
 */
static inline bool trace_logged(void)
{
	return log_on(LOG_DEBUG);
}

/** trace_block_start() - write tracking, or missing faults, are on for this block from now on */
static inline void trace_block_start(const char *block, uint64_t page_size, uint64_t addr,
				     uint64_t length)
{
	TRACE_EVENT(block_start,
		    "block %s page size %" PRIu64 " address 0x%" PRIx64 " length %" PRIu64, block,
		    page_size, addr, length);
}

/** trace_block_stop() - and are off again; @ret: 0, or the -errno with which that failed */
static inline void trace_block_stop(const char *block, uint64_t page_size, uint64_t addr,
				    uint64_t length, int ret)
{
	TRACE_EVENT(block_stop,
		    "block %s page size %" PRIu64 " address 0x%" PRIx64 " length %" PRIu64
		    " result %d",
		    block, page_size, addr, length, ret);
}

/**
 * trace_place() - a run of data is placed: all of it in precopy, later what of it is missing
 * @logged:	trace_logged()
 */
static inline void trace_place(bool logged, const char *block, uint64_t offset, uint64_t length)
{
	TRACE_EVENT_IF(logged, place, "block %s offset 0x%" PRIx64 " length %" PRIu64, block,
		       offset, length);
}

/** trace_place_zero() - a run of zeros came, or a page of zeros was placed for who waits */
static inline void trace_place_zero(bool logged, const char *block, uint64_t offset,
				    uint64_t length)
{
	TRACE_EVENT_IF(logged, place_zero, "block %s offset 0x%" PRIx64 " length %" PRIu64, block,
		       offset, length);
}

/** trace_request() - a page is asked for (decant-dest), or was (decant-source) */
static inline void trace_request(const char *block, uint64_t offset, uint64_t length)
{
	TRACE_EVENT(request, "block %s offset 0x%" PRIx64 " length %" PRIu64, block, offset,
		    length);
}

/** trace_discard() - what the destination has of this range is out of date and is forgotten */
static inline void trace_discard(const char *block, uint64_t offset, uint64_t length)
{
	TRACE_EVENT(discard, "block %s offset 0x%" PRIx64 " length %" PRIu64, block, offset,
		    length);
}

/** trace_pause() - @what ("guest", "session") of the guest @name stands still */
static inline void trace_pause(const char *what, const char *name)
{
	TRACE_EVENT(pause, "%s of %s", what, name);
}

/** trace_resume() - and goes on */
static inline void trace_resume(const char *what, const char *name)
{
	TRACE_EVENT(resume, "%s of %s", what, name);
}

/** trace_thread_enter() - a thread of a migration begins; @role: what it is there for */
static inline void trace_thread_enter(const char *role)
{
	TRACE_EVENT(thread_enter, "%s", role);
}

/** trace_thread_exit() - and ends; @ret: 0 or -errno */
static inline void trace_thread_exit(const char *role, int ret)
{
	TRACE_EVENT(thread_exit, "%s result %d", role, ret);
}

#endif
