/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ends of an incoming: settled, held, buried, or given up before it ran.
 *
 * Which rules could be broken here, and why they are not:
 *
 *   2, 5	the userfaultfd guards nothing any more only once every page is received: then missing
 *	faults are switched off first, and only then are descriptors closed; a guest that is held
 *	keeps both, and its fault thread
 *   3	RECEIPT is sent behind the synced record "completed"
 *   4	"aborted" is on the disk before the guest is ended and before ABORTED is sent; if it cannot
 *	be written, the guest is ended all the same, and who asks hears "unknown" until it can be
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>
#include "incoming_priv.h"
#include "meter.h"
#include "resident.h"
#include "parts.h"
#include "sharing.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/log.h"
#include "util/trace.h"

/* How often it is looked whether the pages that were under way at COMPLETE are here. */
#define LOOK_US 1000
/* Until "completed" can be written: a full disk may have room again. */
#define NOTE_AGAIN_US 1000000
/* For the source to close behind RECEIPT. */
#define CLOSE_US 5000000

/* --- releasing --- */

static void stop_receivers(struct incoming *inc)
{
	inc->dropping = 0;
	for (unsigned int i = 0; i < MSG_CHANNELS_MAX; i++) {
		if (inc->bulk[i])
			inc->closed_bytes += atomic_load(&receive_tally(inc->bulk[i])->bytes);
		receive_stop(steal_ptr(&inc->bulk[i]));
	}
}

void settle_stop_threads(struct incoming *inc)
{
	uint64_t one = 1;

	if (write(inc->stop_fd, &one, sizeof(one)) < 0)
		log_debug("incoming %s: cannot wake: %s", inc->id_text, strerror(errno));
	worker_stop(steal_ptr(&inc->worker));
	stop_receivers(inc);
	fault_stop(steal_ptr(&inc->fault));
	tls_chan_free(steal_ptr(&inc->urgent));
}

static void remove_files(struct incoming *inc)
{
	char path[4096];

	for (unsigned int i = 0; i < inc->nblocks; i++) {
		snprintf(path, sizeof(path), "%s/pages.%s.%u", inc->d->conf.agent.run_dir,
			 inc->id_text, i);
		if (unlink(path) && errno != ENOENT)
			log_warn("incoming %s: %s: %s", inc->id_text, path, strerror(errno));
	}
}

/* Memory, states, the record; the guest and its process are somebody else's by now, or gone. */
void settle_release(struct incoming *inc)
{
	json_t *view;

	incoming_timer(inc, 0, NULL);
	if (!inc->ended_us)
		inc->ended_us = clock_wall_us();
	view = incoming_view(inc);
	settle_stop_threads(inc);
	parts_end(inc);
	meter_incoming_ended(inc);
	if (inc->place.uffd >= 0)
		close(inc->place.uffd);
	inc->place.uffd = -1;
	if (inc->placed) {
		remove_files(inc);
		place_clear(&inc->place);
	}
	image_writer_free(steal_ptr(&inc->writer));
	if (inc->past)
		history_end(inc->d->history, inc->past, view);
	json_decref(view);
	incoming_close_control(inc);
	incoming_remove(inc);
}

/* What @fate announces is done by @then: at once if it cannot be written, or there is no record at all. */
static void note(struct incoming *inc, enum history_fate fate, journal_synced_fn *then)
{
	struct journal_wait *w = incoming_synced(inc, then);
	struct error err = {0};
	json_t *more;
	int r = -ENOENT;

	inc->ended_us = clock_wall_us();
	if (inc->past) {
		more = json_pack("{s:o}", "view", incoming_view(inc));
		r = history_note(inc->past, fate, more, HISTORY_APART, w, &err);
		json_decref(more);
	}
	if (error_is_set(&err))
		log_error("incoming %s: %s", inc->id_text, err.msg);
	if (r)
		then(w, r, &err);
}

/* --- given up before it ran --- */

static void kill_guest(struct incoming *inc)
{
	inc->ending = true;
	if (inc->guest)
		pidfd_send_signal(inc->guest->pidfd, SIGKILL, NULL, 0);
	if (inc->launch)
		launch_kill(inc->launch);
}

static void aborted(void *arg)
{
	struct incoming *inc = arg;

	if (inc->end_event == INC_EV_ABORT)
		incoming_send_simple(inc, MSG_ABORTED);
	log_notice("incoming %s: guest %s was not taken over: %s", inc->id_text,
		   inc->setup ? inc->setup->name : "-", inc->err.msg);
	settle_release(inc);
}

void settle_parts_gone(struct incoming *inc)
{
	if (inc->guest || inc->launch || !inc->ending)
		return;
	/* Behind whatever has told so. */
	incoming_timer(inc, 1, aborted);
}

/* Written or not: it must not run, and who asks about one that was not written hears "unknown". */
static void discard_guest(struct journal_wait *w, int ret, const struct error *err)
{
	struct incoming *inc = w->arg;

	(void)ret;
	(void)err;
	FAULTPOINT(ABORT_JOURNALED);
	if (inc->end_event != INC_EV_ABORT && inc->control) {
		conn_send_error(inc->control, MSG_ERROR, &inc->err);
		incoming_close_control(inc);
	}
	incoming_pause(inc, false);
	kill_guest(inc);
	FAULTPOINT(EMPTY_GUEST_ENDED);
	settle_parts_gone(inc);
}

void settle_do_discard_guest(struct incoming *inc)
{
	incoming_timer(inc, 0, NULL);
	prepare_qemu_stop(inc);
	note(inc, HISTORY_ABORTED, discard_guest);
}

/* --- dead after COMMIT --- */

static void buried(void *arg)
{
	settle_release(arg);
}

static void bury(struct journal_wait *w, int ret, const struct error *err)
{
	struct incoming *inc = w->arg;

	(void)ret;
	(void)err;
	log_error("incoming %s: %s", inc->id_text, inc->err.msg);
	if (inc->control)
		conn_send_error(inc->control, MSG_ERROR, &inc->err);
	incoming_close_control(inc);
	if (inc->launch)
		dest_reap(inc->d, steal_ptr(&inc->launch));
	incoming_timer(inc, 1, buried);
}

void settle_do_bury(struct incoming *inc)
{
	incoming_timer(inc, 0, NULL);
	note(inc, HISTORY_GONE, bury);
}

/* --- the session is over, the guest is not --- */

void settle_do_hold(struct incoming *inc)
{
	if (inc->control)
		conn_send_error(inc->control, MSG_ERROR, &inc->err);
	incoming_close_control(inc);
	stop_receivers(inc);
	inc->resuming = RESUMING_NOT;
	trace_pause("session", inc->setup->name);
	if (inc->fault)
		fault_hold(inc->fault);
	handover_drained(inc);
	tls_chan_free(steal_ptr(&inc->urgent));
	inc->urgent_given = false;
	log_error(
		"incoming %s: guest %s is held: it runs on, and waits where a page is missing (%s)",
		inc->id_text, inc->setup->name, inc->err.msg);
	settle_look(inc);
}

/* --- is everything here? --- */

bool settle_frames_agree(const struct incoming *inc)
{
	const struct msg_complete *c = inc->complete;
	uint64_t runs = atomic_load(&inc->urgent_tally.runs);
	uint64_t sum = atomic_load(&inc->urgent_tally.digest_sum);

	for (unsigned int i = 0; i < MSG_CHANNELS_MAX; i++) {
		if (!inc->bulk[i])
			continue;
		runs += atomic_load(&receive_tally(inc->bulk[i])->runs);
		sum += atomic_load(&receive_tally(inc->bulk[i])->digest_sum);
	}
	if (runs != c->runs || sum != c->digest_sum || c->n != inc->nblocks)
		return false;
	for (unsigned int i = 0; i < inc->nblocks; i++)
		if (c->pages[i] != inc->blocks[i].length / inc->blocks[i].page_size)
			return false;
	return true;
}

static void look_again(void *arg)
{
	settle_look(arg);
}

static void give_up_waiting(struct incoming *inc)
{
	unsigned int block;
	uint64_t off;

	if (place_first_missing(&inc->place, &block, &off))
		incoming_failf(inc, -ENODATA, "pages-missing",
			       "COMPLETE came and block %s has not been received at 0x%" PRIx64,
			       inc->place.blocks[block].name, off);
	else
		incoming_failf(
			inc, -EBADMSG, "counts-differ",
			"all pages are here, and COMPLETE counts other frames, digests or pages "
			"than have come");
}

static void accounted(struct incoming *inc)
{
	struct error err = {0};

	/* From here on the kernel fills holes again, which are all zero pages; nobody waits. */
	if (!inc->unregistered && place_unregister(&inc->place, &err)) {
		incoming_event(inc, INC_EV_FAIL, &err);
		return;
	}
	FAULTPOINT(GUARD_LIFTED);
	inc->unregistered = true;
	sharers_settle(&inc->place.sharers);
	sharing_settled(inc);
	atomic_store(&inc->place.regime, PLACE_CLOSED);
	incoming_event(inc, INC_EV_ACCOUNTED, NULL);
}

void settle_look(struct incoming *inc)
{
	if (!inc->resumed || (inc->state != INC_RUNNING && inc->state != INC_HELD))
		return;
	/* Held: the source's counts cannot come any more, but each run was checked when it came. */
	if (place_complete(&inc->place) && (inc->state == INC_HELD || inc->restore ||
					    (inc->complete && settle_frames_agree(inc)))) {
		accounted(inc);
		return;
	}
	if (inc->state != INC_RUNNING || !inc->complete)
		return;
	if (clock_us() - inc->complete_us > INCOMING_SETTLE_US)
		give_up_waiting(inc);
	else
		incoming_timer(inc, LOOK_US, look_again);
}

int settle_complete(struct incoming *inc, const struct msg *m, struct error *err)
{
	if (inc->resuming != RESUMING_NOT)
		return error_set(err, -EBADMSG, "unexpected-message", "COMPLETE before CONTINUE");
	if (!inc->complete)
		inc->complete = malloc(sizeof(*inc->complete));
	if (!inc->complete)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	*inc->complete = m->complete;
	inc->complete_us = clock_us();
	FAULTPOINT(COMPLETE_RECEIVED);
	settle_look(inc);
	return 0;
}

/* --- settled --- */

static void hand_over(struct incoming *inc)
{
	struct error err = {0};

	if (resident_new(inc->d, inc->past, inc->guest, inc->launch)) {
		error_set(&err, -ENOMEM, NULL, "out of memory");
		log_error("incoming %s: %s", inc->id_text, err.msg);
	} else {
		inc->guest = NULL;
		inc->launch = NULL;
	}
	settle_release(inc);
}

static void close_in_time(void *arg)
{
	struct incoming *inc = arg;

	log_debug("incoming %s: the source has not closed", inc->id_text);
	incoming_close_control(inc);
	hand_over(inc);
}

/* The guest's own copy is closed, its memory is as it was: only the source is waited for. */
static void on_finish(void *arg, int ret, const struct error *err, int fd)
{
	struct incoming *inc = arg;

	(void)fd;
	if (ret && ret != -ECONNRESET)
		log_warn("incoming %s: guest %s: %s", inc->id_text, inc->setup->name, err->msg);
	FAULTPOINT(GUEST_FINISHED);
	inc->closing = true;
	incoming_timer(inc, inc->control ? CLOSE_US : 1, close_in_time);
}

static void on_uffd_close(void *arg, int ret, const struct error *err, int fd)
{
	struct incoming *inc = arg;

	(void)fd;
	FAULTPOINT(KEPT_UFFD_CLOSED);
	if (ret && ret != -ECONNRESET)
		log_warn("incoming %s: guest %s keeps its userfaultfd: %s", inc->id_text,
			 inc->setup->name, err->msg);
	if (!inc->guest || guest_finish(inc->guest, on_finish, inc))
		on_finish(inc, -ECONNRESET, NULL, -1);
}

static uint32_t clamp(uint64_t us)
{
	return us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static void add_block_time(const struct incoming *inc, struct msg_receipt *r)
{
	struct blocktime_sums s = {0};

	if (!inc->place.blocktime || r->brief)
		return;
	blocktime_read(inc->place.blocktime, clock_us(), &s);
	r->has_block_time = true;
	r->all_blocked_us = s.all_us;
	r->nthreads = s.n;
	memcpy(r->blocked_us, s.thread_us, s.n * sizeof(s.thread_us[0]));
}

static void send_receipt(struct incoming *inc)
{
	const struct hist *h = &inc->place.latency;
	struct msg *m = calloc(1, sizeof(*m));

	if (!m)
		return;
	m->type = MSG_RECEIPT;
	m->receipt = (struct msg_receipt){
		.digest_ok = true,
		.brief = inc->version < MSG_VERSION_BLOCKED,
		.n = inc->nblocks,
		.faults = atomic_load(&inc->place.faults),
		.requests = atomic_load(&inc->place.requests),
		.p50_us = clamp(hist_quantile(h, 0.5)),
		.p90_us = clamp(hist_quantile(h, 0.9)),
		.p99_us = clamp(hist_quantile(h, 0.99)),
		.max_us = clamp(hist_quantile(h, 1.0)),
	};
	hist_octaves(h, m->receipt.answered, MSG_OCTAVES);
	add_block_time(inc, &m->receipt);
	for (unsigned int i = 0; i < inc->nblocks; i++)
		m->receipt.pages[i] = atomic_load(&inc->place.blocks[i].received);
	incoming_send(inc, m);
	free(m);
}

static void settle_again(void *arg)
{
	settle_do_settle(arg);
}

/*
 * Rule 3: no receipt without the record. The guest has all it needs meanwhile; the source keeps its pages and
 * asks, and without the record it would be told for ever that the guest runs here.
 */
static void completed(struct journal_wait *w, int ret, const struct error *err)
{
	struct incoming *inc = w->arg;

	(void)err;
	if (ret) {
		incoming_timer(inc, NOTE_AGAIN_US, settle_again);
		return;
	}
	FAULTPOINT(COMPLETED_JOURNALED);
	send_receipt(inc);
	FAULTPOINT(RECEIPT_QUEUED);
	log_notice("incoming %s: guest %s is here, %" PRIu64 " faults, %" PRIu64 " pages asked for",
		   inc->id_text, inc->setup->name, atomic_load(&inc->place.faults),
		   atomic_load(&inc->place.requests));
	if (!inc->guest || guest_uffd_close(inc->guest, on_uffd_close, inc))
		on_uffd_close(inc, -ECONNRESET, NULL, -1);
}

void settle_do_settle(struct incoming *inc)
{
	inc->receipt_ok = 1;
	incoming_timer(inc, 0, NULL);
	note(inc, HISTORY_COMPLETED, completed);
}

void settle_control_closed(struct incoming *inc)
{
	if (inc->closing && inc->store)
		store_closed(inc);
	else if (inc->closing)
		incoming_timer(inc, 1, close_in_time);
}
