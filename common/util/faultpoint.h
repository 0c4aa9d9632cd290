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
#define FAULTPOINTS(X)                                                               \
	X(JOB_JOURNALED, "job-journaled", "source", "setup")                         \
	X(SESSION_BEGUN, "session-begun", "source", "setup")                         \
	X(CONTROL_CONNECTED, "control-connected", "source", "setup")                 \
	X(DESCRIPTION_QUEUED, "description-queued", "source", "setup")               \
	X(HELLO_ANSWERED, "hello-answered", "dest", "setup")                         \
	X(RECORD_BEGUN, "record-begun", "dest", "setup")                             \
	X(GUEST_LAUNCHED, "guest-launched", "dest", "setup")                         \
	X(LAUNCH_JOURNALED, "launch-journaled", "dest", "setup")                     \
	X(GUEST_ATTACHED, "guest-attached", "dest", "setup")                         \
	X(IDENTITY_GIVEN, "identity-given", "dest", "setup")                         \
	X(MEMORY_PREPARED, "memory-prepared", "dest", "setup")                       \
	X(UFFD_MADE, "uffd-made", "dest", "setup")                                   \
	X(MEMORY_EMPTIED, "memory-emptied", "dest", "setup")                         \
	X(PREPARED_RECEIVED, "prepared-received", "source", "setup")                 \
	X(URGENT_CONNECTED, "urgent-connected", "source", "setup")                   \
	X(BULK_CONNECTED, "bulk-connected", "source", "setup")                       \
	X(TRIAL_UFFD_MADE, "trial-uffd-made", "source", "setup")                     \
	X(TRACKING_UFFD_MADE, "tracking-uffd-made", "source", "setup")               \
	X(TRACKING_STARTED, "tracking-started", "source", "setup")                   \
	X(FIRST_PAUSED, "first-paused", "source", "setup")                           \
	X(FIRST_PROTECTED, "first-protected", "source", "setup")                     \
	X(FIRST_RESUMED, "first-resumed", "source", "setup")                         \
	X(PASS_BEGUN, "pass-begun", "source", "precopy")                             \
	X(PASS_PLACED, "pass-placed", "source", "precopy")                           \
	X(WRITTEN_COLLECTED, "written-collected", "source", "precopy")               \
	X(BARRIER_DUE, "barrier-due", "source", "precopy")                           \
	X(RUN_DUE, "run-due", "source", "precopy")                                   \
	X(RUN_RECEIVED, "run-received", "dest", "precopy")                           \
	X(PAGES_WRITTEN, "pages-written", "dest", "precopy")                         \
	X(BARRIER_RECEIVED, "barrier-received", "dest", "precopy")                   \
	X(CONVERGED, "converged", "source", "switchover")                            \
	X(EARLY_DISCARDS_QUEUED, "early-discards-queued", "source", "switchover")    \
	X(HAND_OVER_JOURNALED, "hand-over-journaled", "source", "switchover")        \
	X(INTENT_QUEUED, "intent-queued", "source", "switchover")                    \
	X(INTENT_RECEIVED, "intent-received", "dest", "switchover")                  \
	X(MAY_OWN_JOURNALED, "may-own-journaled", "dest", "switchover")              \
	X(INTENT_ACKNOWLEDGED, "intent-acknowledged", "source", "switchover")        \
	X(GUEST_PAUSED, "guest-paused", "source", "switchover")                      \
	X(LAST_WRITTEN_COLLECTED, "last-written-collected", "source", "switchover")  \
	X(LAST_SCAN_DONE, "last-scan-done", "source", "switchover")                  \
	X(SWITCH_QUEUED, "switch-queued", "source", "switchover")                    \
	X(SWITCH_RECEIVED, "switch-received", "dest", "switchover")                  \
	X(DISCARDS_MARKED, "discards-marked", "dest", "switchover")                  \
	X(DISCARDS_DONE, "discards-done", "dest", "switchover")                      \
	X(DISCARDS_QUEUED, "discards-queued", "source", "switchover")                \
	X(LISTEN_QUEUED, "listen-queued", "source", "switchover")                    \
	X(LISTEN_RECEIVED, "listen-received", "dest", "switchover")                  \
	X(MEMORY_GUARDED, "memory-guarded", "dest", "switchover")                    \
	X(LOAD_BEGUN, "load-begun", "dest", "switchover")                            \
	X(STATE_PIPE_GIVEN, "state-pipe-given", "source", "switchover")              \
	X(STATE_PIECE_QUEUED, "state-piece-queued", "source", "switchover")          \
	X(STATE_PIECE_FED, "state-piece-fed", "dest", "switchover")                  \
	X(STATE_QUEUED, "state-queued", "source", "switchover")                      \
	X(STATE_RECEIVED, "state-received", "dest", "switchover")                    \
	X(STATE_LOADED, "state-loaded", "dest", "switchover")                        \
	X(READY_QUEUED, "ready-queued", "dest", "switchover")                        \
	X(READY_RECEIVED, "ready-received", "source", "switchover")                  \
	X(COMMIT_QUEUED, "commit-queued", "source", "switchover")                    \
	X(COMMIT_SENT, "commit-sent", "source", "switchover")                        \
	X(COMMIT_RECEIVED, "commit-received", "dest", "switchover")                  \
	X(OWNER_MARKED, "owner-marked", "dest", "switchover")                        \
	X(GUEST_LET_GO, "guest-let-go", "dest", "switchover")                        \
	X(RUNNING_SENT, "running-sent", "dest", "switchover")                        \
	X(RUNNING_RECEIVED, "running-received", "source", "switchover")              \
	X(HOLES_QUEUED, "holes-queued", "source", "postcopy")                        \
	X(REQUEST_RECEIVED, "request-received", "source", "postcopy")                \
	X(REQUEST_ANSWERED, "request-answered", "source", "postcopy")                \
	X(REQUEST_DUE, "request-due", "dest", "postcopy")                            \
	X(ANSWER_RECEIVED, "answer-received", "dest", "postcopy")                    \
	X(PAGES_PLACED, "pages-placed", "dest", "postcopy")                          \
	X(PAGES_MARKED, "pages-marked", "dest", "postcopy")                          \
	X(ZEROS_MARKED, "zeros-marked", "dest", "postcopy")                          \
	X(ZERO_FAULT_READ, "zero-fault-read", "dest", "postcopy")                    \
	X(ALL_SENT, "all-sent", "source", "completion")                              \
	X(COMPLETE_QUEUED, "complete-queued", "source", "completion")                \
	X(COMPLETE_RECEIVED, "complete-received", "dest", "completion")              \
	X(GUARD_LIFTED, "guard-lifted", "dest", "completion")                        \
	X(COMPLETED_JOURNALED, "completed-journaled", "dest", "completion")          \
	X(RECEIPT_QUEUED, "receipt-queued", "dest", "completion")                    \
	X(KEPT_UFFD_CLOSED, "kept-uffd-closed", "dest", "completion")                \
	X(GUEST_FINISHED, "guest-finished", "dest", "completion")                    \
	X(REGISTERED_THERE, "registered-there", "dest", "completion")                \
	X(REGISTERED_JOURNALED, "registered-journaled", "dest", "completion")        \
	X(GUEST_SENT_ON, "guest-sent-on", "dest", "completion")                      \
	X(RECEIPT_RECEIVED, "receipt-received", "source", "completion")              \
	X(RELEASE_JOURNALED, "release-journaled", "source", "completion")            \
	X(JOB_ENDED, "job-ended", "source", "completion")                            \
	X(GUEST_TOLD_TO_END, "guest-told-to-end", "source", "completion")            \
	X(ROLLBACK_JOURNALED, "rollback-journaled", "source", "rollback")            \
	X(ROLLBACK_RESUMED, "rollback-resumed", "source", "rollback")                \
	X(ABORT_AWAITED, "abort-awaited", "source", "rollback")                      \
	X(ABORT_JOURNALED, "abort-journaled", "dest", "rollback")                    \
	X(EMPTY_GUEST_ENDED, "empty-guest-ended", "dest", "rollback")                \
	X(HELD_JOURNALED, "held-journaled", "source", "recovery")                    \
	X(QUERY_QUEUED, "query-queued", "source", "recovery")                        \
	X(ANSWER_TAKEN, "answer-taken", "source", "recovery")                        \
	X(RESUME_QUEUED, "resume-queued", "source", "recovery")                      \
	X(RESUME_RECEIVED, "resume-received", "dest", "recovery")                    \
	X(BITMAP_QUEUED, "bitmap-queued", "dest", "recovery")                        \
	X(BITMAP_RECEIVED, "bitmap-received", "source", "recovery")                  \
	X(CONTINUE_QUEUED, "continue-queued", "source", "recovery")                  \
	X(CONTINUE_RECEIVED, "continue-received", "dest", "recovery")                \
	X(REVIVED, "revived", "dest", "recovery")                                    \
	X(GUARDED_AGAIN, "guarded-again", "dest", "recovery")                        \
	X(MEMORY_TAKEN, "memory-taken", "dest", "recovery")                          \
	X(SAVE_PAUSED, "save-paused", "source", "snapshot")                          \
	X(SAVE_STATE_TAKEN, "save-state-taken", "source", "snapshot")                \
	X(SAVE_PROTECTED, "save-protected", "source", "snapshot")                    \
	X(SAVE_RESUMED, "save-resumed", "source", "snapshot")                        \
	X(SAVE_STATE_QUEUED, "save-state-queued", "source", "snapshot")              \
	X(SAVED_RUN_DUE, "saved-run-due", "source", "snapshot")                      \
	X(SAVE_ALL_SAVED, "save-all-saved", "source", "snapshot")                    \
	X(SAVE_COMPLETE_DUE, "save-complete-due", "source", "snapshot")              \
	X(IMAGE_CREATED, "image-created", "dest", "snapshot")                        \
	X(IMAGE_PAGES_WRITTEN, "image-pages-written", "dest", "snapshot")            \
	X(IMAGE_STATE_WRITTEN, "image-state-written", "dest", "snapshot")            \
	X(IMAGE_DATA_SYNCED, "image-data-synced", "dest", "snapshot")                \
	X(IMAGE_HEADER_SYNCED, "image-header-synced", "dest", "snapshot")            \
	X(IMAGE_NAMED, "image-named", "dest", "snapshot")                            \
	X(IMAGE_PART_REMOVED, "image-part-removed", "dest", "snapshot")              \
	X(IMAGE_RECEIPT_QUEUED, "image-receipt-queued", "dest", "snapshot")          \
	X(RESTORE_BEGUN, "restore-begun", "dest", "restore")                         \
	X(RESTORE_MAY_OWN_JOURNALED, "restore-may-own-journaled", "dest", "restore") \
	X(RESTORE_STATE_FED, "restore-state-fed", "dest", "restore")                 \
	X(RESTORE_READY, "restore-ready", "dest", "restore")                         \
	X(RESTORE_FILL_DUE, "restore-fill-due", "dest", "restore")                   \
	X(MICRO_CONNECTED, "micro-connected", "dest", "micro")                       \
	X(MICRO_REGIONS_NOTED, "micro-regions-noted", "dest", "micro")               \
	X(MICRO_OWNER_MARKED, "micro-owner-marked", "dest", "micro")                 \
	X(MICRO_GUARD_LIFTED, "micro-guard-lifted", "dest", "micro")                 \
	X(MICRO_COMPLETED_JOURNALED, "micro-completed-journaled", "dest", "micro")

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
