/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session after the one that was lost, for a guest that runs here (PROTOCOL.md section 12).
 *
 * Which rules it could break, and why it does not:
 *
 *   1 (never overwrite)  nothing is placed here; the regime stays PLACE_LIVE, in which a page that is
 *			there is never placed again, whatever session it comes from
 *   2 (state after the kernel)  the bitmap that is sent is read out of the states, behind the end of
 *			every receiver: a page that is on its way into memory counts as missing and
 *			comes once more
 *   4 (one place)	a guest for which there is a session again is one that this host owns by its
 *			record; who may resume is decided by identity, id and generation
 *   5 (unguarded)	descriptors, registrations and the fault thread stay as they are
 *   6 (peers)		HELLO changes nothing; RESUME ends only a session of the same identity; what is
 *			sent waits for room on the channel
 */
#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include "channels.h"
#include "incoming_priv.h"
#include "util/cleanup.h"
#include "util/faultpoint.h"
#include "util/fdio.h"
#include "util/log.h"
#include "util/trace.h"

/*
 * The same before the switch, where nothing of the guest has run here: what is there is kept for a while. Its
 * state is what was placed; a newer copy of a page may have been under way, and the source knows which
 * (PROTOCOL.md section 12). Frames of the old session cannot come behind the bitmap: it is sent when the last
 * of its receivers has ended. From INTENT on a lost session ends here, as "may own" must not be left open.
 */

/* Bytes queued on control from which on the rest of the bitmap waits. */
#define BITMAP_QUEUE (256u << 10)

static bool keeps(const struct incoming *inc)
{
	return inc->state == INC_ADVISE && inc->stage == STAGE_PREPARED &&
	       inc->capabilities & MSG_CAP_KEEP && inc->capabilities & MSG_CAP_MEND &&
	       !inc->store && !inc->restore;
}

enum inc_event resume_lost_event(const struct incoming *inc)
{
	return keeps(inc) ? INC_EV_BROKEN : INC_EV_LOST;
}

static void on_kept_too_long(void *arg)
{
	struct incoming *inc = arg;
	struct error err = {0};

	error_set(&err, -ETIMEDOUT, "interrupted",
		  "no session was made again within %u s (limits.interrupted_s)",
		  inc->d->conf.limit_interrupted_s);
	/* That is the reason, not what the session was lost of. */
	error_clear(&inc->err);
	incoming_event(inc, INC_EV_LOST, &err);
}

void resume_keep(struct incoming *inc)
{
	incoming_close_control(inc);
	inc->resuming = RESUMING_NOT;
	incoming_timer(inc, inc->d->conf.limit_interrupted_s * UINT64_C(1000000), on_kept_too_long);
	trace_pause("session", inc->setup->name);
	log_notice("incoming %s: guest %s: the session is lost (%s); what has arrived is kept for "
		   "%u s",
		   inc->id_text, inc->setup->name, inc->err.msg, inc->d->conf.limit_interrupted_s);
	channels_end_all(inc);
}

int incoming_may_resume(struct incoming *inc, const char *identity,
			uint8_t ret_token[static MSG_TOKEN_LEN], struct error *err)
{
	/* Who is not the migration's source learns no more than that its id is taken. */
	if (strcmp(inc->identity, identity) != 0 ||
	    (inc->state != INC_RUNNING && inc->state != INC_HELD && inc->state != INC_END &&
	     inc->state != INC_WAITING && !keeps(inc)))
		return error_set(err, -EEXIST, "migration-exists",
				 "this migration has a session already");
	if (inc->past && inc->past->overruled)
		return error_set(err, -EEXIST, "conflict",
				 "guest %s was kept at its source; the one here is stopped",
				 inc->past->name);
	if (inc->d->ending)
		return error_set(err, -ESHUTDOWN, "ending", "this agent is being stopped");
	if (inc->state == INC_END)
		return error_set(err, -EEXIST,
				 inc->end_event == INC_EV_GONE ? "guest-gone" : "migration-ended",
				 "this migration of guest %s has ended here", inc->setup->name);
	fdio_random(inc->next_token, sizeof(inc->next_token));
	memcpy(ret_token, inc->next_token, sizeof(inc->next_token));
	return 0;
}

static int check(const struct incoming *inc, const uint8_t token[static MSG_TOKEN_LEN],
		 const struct msg_resume *m, struct error *err)
{
	if (inc->state != INC_RUNNING && inc->state != INC_HELD && inc->state != INC_WAITING &&
	    !keeps(inc))
		return error_set(err, -EEXIST, "migration-ended", "this migration has ended here");
	if (CRYPTO_memcmp(inc->next_token, token, MSG_TOKEN_LEN))
		return error_set(err, -ESTALE, "stale-resume",
				 "another connection has said HELLO for this migration since");
	if (m->generation != inc->past->generation)
		return error_set(err, -EBADMSG, "bad-generation",
				 "RESUME of generation %" PRIu64 ", the guest here has %" PRIu64,
				 m->generation, inc->past->generation);
	if (inc->fault && !fault_lives(inc->fault))
		return error_set(err, -EIO, "userfaultfd",
				 "the faults of guest %s cannot be answered any more",
				 inc->setup->name);
	return 0;
}

int incoming_resume(struct incoming *inc, struct conn *conn, const struct msg_hello *h,
		    const uint8_t token[static MSG_TOKEN_LEN], const struct msg_resume *m,
		    uint64_t capabilities, struct error *err)
{
	uint16_t version = msg_version_common(h->version_min, h->version_max);
	struct error lost = {0};
	int r = check(inc, token, m, err);

	if (r)
		return r;
	if (version < MSG_VERSION_RECOVERY)
		return error_set(err, -EPROTO, "version",
				 "RESUME is of version %d of the protocol, agreed was %u",
				 MSG_VERSION_RECOVERY, version);
	/* Half-open: the source knows that it has lost the session, and it is the one to know. */
	if (inc->state == INC_RUNNING || inc->state == INC_ADVISE) {
		error_set(&lost, -ECONNRESET, "lost", "the source has made a new session");
		incoming_event(inc, resume_lost_event(inc), &lost);
	}
	if (inc->state != INC_HELD && inc->state != INC_WAITING)
		return error_set(err, -EEXIST, "migration-ended", "all pages are here");
	FAULTPOINT(RESUME_RECEIVED);
	explicit_bzero(inc->next_token, sizeof(inc->next_token));
	memcpy(inc->token, token, sizeof(inc->token));
	atomic_fetch_add(&inc->session, 1);
	inc->version = version;
	incoming_timer(inc, 0, NULL);
	inc->capabilities = capabilities;
	inc->setup->bulk_channels = m->bulk_channels;
	free(steal_ptr(&inc->complete));
	error_clear(&inc->err);
	incoming_take_control(inc, conn);
	incoming_event(inc, INC_EV_RESUME, NULL);
	return 0;
}

/* --- the received bitmap --- */

static void mark(uint64_t *words, uint64_t first, uint64_t n)
{
	for (uint64_t i = first; i < first + n; i++)
		words[i / 64] |= UINT64_C(1) << i % 64;
}

/* The next piece of a block, as long as a message can be. */
static void fill(struct incoming *inc, struct msg_received *v)
{
	const struct place_block *b = &inc->place.blocks[inc->bitmap_block];
	uint64_t first = inc->bitmap_page, run;
	uint64_t n = MIN(b->npages - first, (uint64_t)MSG_RECEIVED_MAX * 64);

	*v = (struct msg_received){
		.block = inc->bitmap_block, .first = first, .n = (uint32_t)((n + 63) / 64)};
	for (uint64_t i = 0; i < n; i += run) {
		enum pages_state state;

		run = pages_run(b->pages, first + i, n - i, &state);
		if (state != PAGES_MISSING)
			mark(v->words, i, run);
	}
	inc->bitmap_page += n;
	if (inc->bitmap_page == b->npages) {
		inc->bitmap_block++;
		inc->bitmap_page = 0;
	}
}

static void send_bitmap(struct incoming *inc)
{
	CLEANUP_FREE struct msg *m = NULL;

	/* Receivers of the old session are ending: channels_look() goes on. */
	if (inc->dropping)
		return;
	m = malloc(sizeof(*m));
	if (!m) {
		incoming_failf(inc, -ENOMEM, NULL, "out of memory");
		return;
	}
	m->type = MSG_RECEIVED;
	while (inc->bitmap_block < inc->place.n) {
		if (conn_queued(inc->control) > BITMAP_QUEUE)
			return; /* resume_drained() goes on */
		fill(inc, &m->received);
		incoming_send(inc, m);
	}
	m->type = MSG_RESUMED;
	m->resumed.pass = atomic_load(&inc->place.pass);
	FAULTPOINT(BITMAP_QUEUED);
	inc->resuming = RESUMING_CHANNELS;
	incoming_send(inc, m);
}

void resume_begin(struct incoming *inc)
{
	inc->resuming = RESUMING_BITMAP;
	inc->bitmap_block = 0;
	inc->bitmap_page = 0;
	log_notice("incoming %s: guest %s: there is a session again", inc->id_text,
		   inc->setup->name);
	send_bitmap(inc);
}

void resume_drained(struct incoming *inc)
{
	if ((inc->state == INC_RUNNING || inc->state == INC_ADVISE) &&
	    inc->resuming == RESUMING_BITMAP)
		send_bitmap(inc);
}

int resume_continue(struct incoming *inc, const struct msg *m, struct error *err)
{
	(void)m;
	if (inc->resuming != RESUMING_CHANNELS)
		return error_set(err, -EBADMSG, "unexpected-message",
				 "CONTINUE where no session was made again");
	FAULTPOINT(CONTINUE_RECEIVED);
	inc->resuming = RESUMING_NOT;
	trace_resume("session", inc->setup->name);
	if (inc->fault)
		channels_to_fault(inc);
	return 0;
}
