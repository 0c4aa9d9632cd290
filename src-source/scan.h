/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshot thread: owns the write tracking and decides what goes next. Its order of service, at
 * every step (W5): pages that the destination asked for, then write faults, then the linear scan.
 */
#ifndef DECANT_SCAN_H
#define DECANT_SCAN_H

#include "engine.h"
#include "track.h"

/** SCAN_REQUESTS_MAX - requests that may wait when there is no urgent channel */
#define SCAN_REQUESTS_MAX 4096

/**
 * enum scan_phase - what the loop tells the thread to do; each is answered by one event
 * @SCAN_IDLE:	start tracking, then serve write faults (ENGINE_TRACKING)
 * @SCAN_PROTECT: the guest is paused, no device writes: protect what was written since (ENGINE_PROTECTED);
 *		left out where nothing is held (held.h)
 * @SCAN_PRECOPY: passes until policy is content (ENGINE_CONVERGED or ENGINE_FAILED)
 * @SCAN_FINAL:	the guest is paused: last scan (ENGINE_FINAL)
 * @SCAN_POSTCOPY: the guest runs at the destination: send the rest (ENGINE_SENT)
 */
enum scan_phase {
	SCAN_IDLE,
	SCAN_PROTECT,
	SCAN_PRECOPY,
	SCAN_FINAL,
	SCAN_POSTCOPY,
};

/**
 * scan_start() - start the thread
 * @ops:	kind of tracking; NULL without (pure post-copy)
 * @uffd:	fresh userfaultfd of the guest for it; taken over, also on failure; -1 without @ops
 *
 * Return: 0, or -errno with @err filled
 */
int scan_start(struct engine *e, const struct track_ops *ops, int uffd, struct error *err);
/** scan_join() - wait for the thread, which engine.stop_fd ends; tracking is over then. Safe twice; NULL is fine */
void scan_join(struct scan *s);
/** scan_free() - after scan_join(); NULL is fine */
void scan_free(struct scan *s);
/** scan_order() - loop's thread: begin the next phase; phases only rise */
void scan_order(struct scan *s, enum scan_phase phase);
/** scan_switch_now() - an operator wants the switchover at once; any thread */
void scan_switch_now(struct scan *s);
/** scan_kick() - something that the thread waits for may have changed; any thread; NULL is fine */
void scan_kick(struct scan *s);
/** scan_request() - a REQUEST that came without urgent channel. Return: 0, -ENOBUFS or -EBADMSG with @err filled */
int scan_request(struct scan *s, const struct msg_request *q, struct error *err);
/** scan_postcopy() - Return: whether the destination will have missing pages to ask for (valid from ENGINE_CONVERGED) */
bool scan_postcopy(const struct scan *s);

#endif
