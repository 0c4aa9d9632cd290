/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named points at which an agent can be told to end, to stand still or to be late: for the tests of
 * crashes, and in agents that were built with FAULTS=1 only (build/faults). Elsewhere a point is
 * nothing at all; tests/static/faults sees to that, and to it that each point stands in the code once
 * and in a test.
 *
 * The environment variable DECANT_FAULT of an agent says what happens where:
 *
 *	POINT:ACTION[@N][,POINT:ACTION[@N]...]
 *
 *	kill		SIGKILL to itself
 *	stop		SIGSTOP to itself: all threads stand until somebody sends SIGCONT (or SIGKILL)
 *	delay=MS	this thread sleeps for so long, each time
 *	@N		not before the point is reached for the N-th time (default 1; delay: from then on)
 */
#ifndef DECANT_UTIL_FAULTPOINT_H
#define DECANT_UTIL_FAULTPOINT_H

#include "util/error.h"

/**
 * FAULTPOINTS() - X(ID, name, agent, phase) for each point, in the order of a migration
 *
 * The name is what DECANT_FAULT says; agent and phase tell the reader of a table where it is. Say it in
 * the code once: FAULTPOINT(ID), where what the name says has just been done.
 */
#define FAULTPOINTS(X)                                              \
	X(COMMIT_QUEUED, "commit-queued", "source", "switchover")   \
	X(COMMIT_SENT, "commit-sent", "source", "switchover")       \
	X(COMMIT_RECEIVED, "commit-received", "dest", "switchover") \
	X(OWNER_MARKED, "owner-marked", "dest", "switchover")       \
	X(GUEST_LET_GO, "guest-let-go", "dest", "switchover")       \
	X(RUNNING_SENT, "running-sent", "dest", "switchover")       \
	X(RUNNING_RECEIVED, "running-received", "source", "switchover")

/** enum faultpoint - a point */
enum faultpoint {
#define FAULTPOINT_ID_(id, name, agent, phase) FAULTPOINT_##id,
	FAULTPOINTS(FAULTPOINT_ID_)
#undef FAULTPOINT_ID_
		FAULTPOINT_COUNT_,
};

#ifdef DECANT_FAULTS

/** FAULTPOINT() - this thread has come here. Any thread; takes no lock, and returns unless told otherwise */
#define FAULTPOINT(id) faultpoint_reached(FAULTPOINT_##id)
void faultpoint_reached(enum faultpoint p);

/** faultpoint_check() - before anything else. Return: 0; -EINVAL: DECANT_FAULT says what there is not */
int faultpoint_check(struct error *err);

#else

#define FAULTPOINT(id) ((void)FAULTPOINT_##id)

static inline int faultpoint_check(struct error *err)
{
	(void)err;
	return 0;
}

#endif

#endif
