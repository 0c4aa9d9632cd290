/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From INTENT to RUNNING.
 *
 * Which rules it could break, and why it does not:
 *
 *   4 (one place)  the guest is let go by handover_let_go() alone, behind the record "owner", which is
 *		written only in state ready on COMMIT; "aborted" and "owner" exclude each other
 *   1, 5		the discards are done and seen to be holes before the blocks are registered, and
 *		the blocks are registered before the guest touches memory (its state is loaded after)
 *   1, 8	pages that were discarded may still be there when an agent ends in the middle of it, and look
 *		received: that life's migration is aborted (history.c) and its guest ended, because "owner"
 *		is missing. "owner" says that LISTEN came, and so that all discards were done: only such
 *		memory is ever taken over
 *   8		"owner" is written before the guest runs: whoever takes over after a SIGKILL knows
 *		that it may let the guest go; "may-own" tells it of the guest's memory (revive.h)
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "incoming_priv.h"
#include "proc.h"
#include "parts.h"
#include "revive.h"
#include "uffd/uffd.h"
#include "util/cleanup.h"
#include "util/faultpoint.h"
#include "util/log.h"
#include "util/trace.h"

/* --- INTENT --- */

static void acknowledge(struct incoming *inc)
{
	if (inc->stage == STAGE_INTENT && !inc->discards)
		incoming_send_simple(inc, MSG_INTENT_ACK);
}

/* Of one that was given up meanwhile the record "aborted" is waited for. */
static void may_own(struct journal_wait *w, int ret, const struct error *err)
{
	struct incoming *inc = w->arg;

	if (ret) {
		incoming_event(inc, INC_EV_FAIL, err);
		return;
	}
	FAULTPOINT(MAY_OWN_JOURNALED);
	inc->stage = STAGE_INTENT;
	acknowledge(inc);
}

int handover_intent(struct incoming *inc, const struct msg *m, struct error *err)
{
	uint64_t due = inc->setup->generation + 1;
	json_t *more;
	int r;

	if (inc->stage != STAGE_PREPARED)
		return error_set(err, -EBADMSG, "unexpected-message", "INTENT %s",
				 inc->stage < STAGE_PREPARED ? "before PREPARED" : "came twice");
	if (m->number.value != due)
		return error_set(err, -EBADMSG, "bad-generation",
				 "INTENT for generation %" PRIu64 ", due is %" PRIu64,
				 m->number.value, due);
	FAULTPOINT(INTENT_RECEIVED);
	/* Now, and not with "owner": the guest still runs. */
	more = revive_record(inc);
	r = more ? history_note(inc->past, HISTORY_MAY_OWN, more, HISTORY_APART,
				incoming_synced(inc, may_own), err)
		 : error_set(err, -ENOMEM, NULL, "out of memory");
	json_decref(more);
	if (!r)
		inc->stage = STAGE_MAY_OWN;
	return r;
}

/* --- SWITCH and DISCARD --- */

int handover_switch(struct incoming *inc, const struct msg *m, struct error *err)
{
	if (inc->stage != STAGE_INTENT)
		return error_set(err, -EBADMSG, "unexpected-message", "SWITCH before INTENT");
	FAULTPOINT(SWITCH_RECEIVED);
	atomic_store(&inc->place.pass, m->switch_.pass);
	atomic_store(&inc->place.regime, PLACE_CLOSED);
	incoming_event(inc, INC_EV_SWITCH, NULL);
	return 0;
}

void handover_do_discard(struct incoming *inc)
{
	int r;

	if (inc->place.uffd < 0)
		return;
	/* While discards are under way: its start is no part of the pause then. */
	inc->urgent_given = inc->urgent;
	r = fault_start(&inc->place, steal_ptr(&inc->urgent), &inc->urgent_tally,
			inc->restore ? &restore_fault_ops : &bridge_fault_ops, inc, &inc->fault);
	if (r)
		incoming_failf(inc, r, NULL, "the fault thread: %s", strerror(-r));
	else
		fault_mend(inc->fault, inc->capabilities & MSG_CAP_MEND);
}

/** struct discarding - a DISCARD for the worker; @inc is referenced */
struct discarding {
	struct worker_job job;
	struct incoming *inc;
	uint32_t block;
	uint32_t n;
	struct guest_range ranges[];
};

static int run_discard(struct worker_job *job, struct error *err)
{
	struct discarding *d = (struct discarding *)job;

	int r = place_discard(&d->inc->place, d->block, d->ranges, d->n, err);

	FAULTPOINT(DISCARDS_DONE);
	return r;
}

static void listen_now(struct incoming *inc);

static void done_discard(struct worker_job *job)
{
	struct discarding *d = (struct discarding *)job;
	struct incoming *inc = d->inc;

	inc->discards--;
	if (job->ret && job->ret != -ECANCELED)
		incoming_event(inc, INC_EV_FAIL, &job->err);
	else if ((inc->state == INC_ADVISE || inc->state == INC_DISCARD) &&
		 inc->discards == INCOMING_DISCARDS_MAX / 2)
		incoming_pause(inc, false);
	else if (inc->state == INC_ADVISE && !inc->discards)
		acknowledge(inc);
	else if (inc->state == INC_LISTENING && inc->listen_wanted && !inc->discards)
		listen_now(inc);
	incoming_unref(inc);
	free(d);
}

int handover_discard(struct incoming *inc, const struct msg *m, struct error *err)
{
	struct discarding *d;

	if (inc->state == INC_ADVISE && inc->stage != STAGE_PREPARED)
		return error_set(err, -EBADMSG, "unexpected-message", "DISCARD %s",
				 inc->stage < STAGE_PREPARED ? "before PREPARED"
							     : "between INTENT and SWITCH");
	d = malloc(sizeof(*d) + m->discard.n * sizeof(d->ranges[0]));
	if (!d)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	d->job = (struct worker_job){.run = run_discard, .done = done_discard};
	d->inc = incoming_ref(inc);
	d->block = m->discard.block;
	d->n = m->discard.n;
	for (uint32_t i = 0; i < d->n; i++)
		d->ranges[i] = (struct guest_range){m->discard.ranges[i].offset,
						    m->discard.ranges[i].length};
	worker_push(inc->worker, &d->job);
	if (++inc->discards >= INCOMING_DISCARDS_MAX)
		incoming_pause(inc, true);
	return 0;
}

/* --- LISTEN --- */

int handover_listen(struct incoming *inc, const struct msg *m, struct error *err)
{
	if (m->listen.postcopy && !inc->fault)
		return error_set(err, -EBADMSG, "unexpected-message",
				 "LISTEN for post-copy, which SETUP had not said");
	FAULTPOINT(LISTEN_RECEIVED);
	inc->listen_postcopy = m->listen.postcopy;
	incoming_event(inc, INC_EV_LISTEN, NULL);
	return 0;
}

static int listen_complete(struct incoming *inc, struct error *err)
{
	unsigned int block;
	uint64_t off;

	if (!place_first_missing(&inc->place, &block, &off))
		return 0;
	return error_set(
		err, -ENODATA, "pages-missing",
		"LISTEN without post-copy, and block %s has not been received at 0x%" PRIx64,
		inc->place.blocks[block].name, off);
}

int handover_listen_memory(struct incoming *inc, struct error *err)
{
	int r = inc->listen_postcopy ? place_register(&inc->place, err) : listen_complete(inc, err);

	FAULTPOINT(MEMORY_GUARDED);
	if (!r && inc->listen_postcopy)
		atomic_store_explicit(&inc->place.regime, PLACE_LIVE, memory_order_release);
	return r;
}

/* Discards are done: their holes become faults, then the state may be loaded, which touches memory. */
static void listen_now(struct incoming *inc)
{
	struct error err = {0};

	inc->listen_wanted = false;
	if (parts_listen(inc, &err)) {
		incoming_event(inc, INC_EV_FAIL, &err);
		return;
	}
	load_begin(inc);
	FAULTPOINT(LOAD_BEGUN);
	if (inc->state == INC_LISTENING)
		incoming_pause(inc, false);
}

void handover_do_listen(struct incoming *inc)
{
	incoming_pause(inc, true);
	if (inc->discards)
		inc->listen_wanted = true;
	else
		listen_now(inc);
}

void handover_do_ready(struct incoming *inc)
{
	incoming_send_simple(inc, MSG_READY);
	FAULTPOINT(READY_QUEUED);
	if (inc->restore)
		restore_ready(inc);
}

/* --- COMMIT --- */

/*
 * Not synced: the guest stands still. It outlives this agent all the same, and a crash of the host
 * takes the guest with it. If it cannot be written, nothing has happened yet.
 */
static int note_owner(struct incoming *inc, struct error *err)
{
	json_t *more;
	int r;

	if (!inc->guest)
		return error_set(err, -ESRCH, "guest-gone", "guest %s has gone", inc->setup->name);
	more = json_pack("{s:I, s:I, s:I, s:b}", "pid", (json_int_t)inc->guest->pid, "pid_start",
			 (json_int_t)proc_start(inc->guest->pid), "pass",
			 (json_int_t)atomic_load(&inc->place.pass), "listened",
			 inc->listen_postcopy);
	r = more ? history_note(inc->past, HISTORY_OWNER, more, HISTORY_LATER, NULL, err)
		 : error_set(err, -ENOMEM, NULL, "out of memory");
	json_decref(more);
	return r;
}

int handover_commit(struct incoming *inc, const struct msg *m, struct error *err)
{
	int r;

	FAULTPOINT(COMMIT_RECEIVED);
	if (m->number.value != inc->past->generation)
		return error_set(err, -EBADMSG, "bad-generation",
				 "COMMIT of generation %" PRIu64 ", due is %" PRIu64,
				 m->number.value, inc->past->generation);
	r = note_owner(inc, err);
	if (r)
		return r;
	FAULTPOINT(OWNER_MARKED);
	incoming_event(inc, INC_EV_COMMIT, NULL);
	return 0;
}

static void on_resumed(void *arg, int ret, const struct error *err, int fd)
{
	struct incoming *inc = arg;
	struct error why = {0};
	struct msg *m;

	(void)fd;
	/* Lost: its end, or its coming back, is told by the driver. */
	if (ret == -ECONNRESET)
		return;
	if (ret) {
		why = *err;
		error_prefix(&why, "guest %s could not be resumed", inc->setup->name);
		if (inc->restore)
			restore_not_run(inc, &why);
		else
			incoming_event(inc, INC_EV_FAIL, &why);
		return;
	}
	inc->resumed = true;
	FAULTPOINT(GUEST_LET_GO);
	trace_resume("guest", inc->setup->name);
	log_notice("incoming %s: guest %s %s here, generation %" PRIu64, inc->id_text,
		   inc->setup->name, inc->setup->paused ? "stands paused" : "runs",
		   inc->past->generation);
	m = inc->control ? calloc(1, sizeof(*m)) : NULL;
	if (m) {
		m->type = MSG_RUNNING;
		m->number.value = inc->past->generation;
		incoming_send(inc, m);
		free(m);
	}
	if (!inc->control)
		handover_drained(inc);
	settle_look(inc);
}

void handover_let_go(struct incoming *inc)
{
	struct error err = {0};
	int r;

	/* Rule 4: one that was kept at its source is not let go any more. */
	if (!inc->guest || inc->past->overruled)
		return;
	r = guest_resume(inc->guest, on_resumed, inc);
	if (!r)
		return;
	error_set(&err, r, NULL, "guest %s could not be resumed: %s", inc->setup->name,
		  strerror(-r));
	incoming_event(inc, INC_EV_FAIL, &err);
}

void handover_do_run(struct incoming *inc)
{
	handover_let_go(inc);
	if (inc->restore && inc->state == INC_RUNNING)
		restore_fill(inc);
}

/* RUNNING is out: now there is time for the disk. */
void handover_drained(struct incoming *inc)
{
	/* Not while the guest stands still: it was resumed, and RUNNING has been queued behind that. */
	if (!inc->past || !inc->resumed)
		return;
	FAULTPOINT(RUNNING_SENT);
	history_sync(inc->past);
}
