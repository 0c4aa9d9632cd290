/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which rules it could break, and why it does not:
 *
 *   1, 2	nothing is placed here. A frame that a lost channel still holds is placed by its own thread, or
 *		not at all; DROPPED goes out behind the end of that thread, so that the source, which waits for it before
 *		the pass may end, never has an older copy come behind a newer one
 *   6 (peers)	DROP ends what is there, and nothing is kept for it; a second channel of an index is refused
 *		while the first has its thread
 */
#include "channels.h"
#include <errno.h>
#include <stdlib.h>
#include "util/cleanup.h"
#include "util/log.h"

bool channels_mend(const struct incoming *inc)
{
	return inc->capabilities & MSG_CAP_MEND && !inc->store &&
	       ((inc->state >= INC_ADVISE && inc->state <= INC_RUNNING) ||
		inc->state == INC_WAITING);
}

static void dropped(struct incoming *inc, enum msg_channel kind, unsigned int index)
{
	struct msg *m = calloc(1, sizeof(*m));

	if (!m) {
		incoming_failf(inc, -ENOMEM, NULL, "out of memory");
		return;
	}
	m->type = MSG_DROPPED;
	m->drop.kind = (uint8_t)kind;
	m->drop.index = (uint8_t)index;
	incoming_send(inc, m);
	free(m);
}

void channels_look(struct incoming *inc)
{
	for (unsigned int i = 0; i < MSG_CHANNELS_MAX; i++) {
		if (!(inc->dropping & 1u << i) || (inc->bulk[i] && receive_open(inc->bulk[i])))
			continue;
		if (inc->bulk[i])
			inc->closed_bytes += atomic_load(&receive_tally(inc->bulk[i])->bytes);
		receive_stop(steal_ptr(&inc->bulk[i]));
		inc->dropping &= ~(1u << i);
		if (inc->state != INC_WAITING && inc->resuming != RESUMING_BITMAP)
			dropped(inc, MSG_CHANNEL_BULK, i);
	}
	resume_drained(inc);
}

void channels_end_all(struct incoming *inc)
{
	for (unsigned int i = 0; i < MSG_CHANNELS_MAX; i++) {
		if (!inc->bulk[i])
			continue;
		inc->dropping |= 1u << i;
		receive_drop(inc->bulk[i]);
	}
	tls_chan_free(steal_ptr(&inc->urgent));
	inc->urgent_given = false;
	tally_restart(&inc->urgent_tally);
	channels_look(inc);
}

void channels_urgent_dropped(struct incoming *inc)
{
	inc->urgent_given = false;
	if (channels_mend(inc))
		dropped(inc, MSG_CHANNEL_URGENT, 0);
}

static void drop_urgent(struct incoming *inc)
{
	tls_chan_free(steal_ptr(&inc->urgent));
	if (inc->fault)
		fault_drop(inc->fault);
	else
		channels_urgent_dropped(inc);
}

/* The thread may be waiting for the loop, so it is not waited for here. */
static void drop_bulk(struct incoming *inc, unsigned int i)
{
	inc->dropping |= 1u << i;
	if (inc->bulk[i])
		receive_drop(inc->bulk[i]);
	channels_look(inc);
}

int channels_drop(struct incoming *inc, const struct msg *m, struct error *err)
{
	const struct msg_drop *d = &m->drop;

	if (!channels_mend(inc) || inc->stage < STAGE_PREPARED)
		return error_set(err, -EBADMSG, "unexpected-message", "DROP %s",
				 inc->stage < STAGE_PREPARED ? "before PREPARED"
							     : "without the capability");
	if (d->kind == MSG_CHANNEL_BULK && d->index >= inc->setup->bulk_channels)
		return error_set(err, -EBADMSG, "bad-message", "DROP of bulk channel %u of %u",
				 d->index, inc->setup->bulk_channels);
	if (d->kind == MSG_CHANNEL_URGENT ? inc->urgent || inc->urgent_given
					  : !!inc->bulk[d->index])
		log_notice("incoming %s: guest %s: %s channel %u is lost", inc->id_text,
			   inc->setup->name, msg_channel_name(d->kind), d->index);
	/* It has counted what does not count any more; another comes behind the last pages. */
	free(steal_ptr(&inc->complete));
	if (d->kind == MSG_CHANNEL_URGENT)
		drop_urgent(inc);
	else
		drop_bulk(inc, d->index);
	if (inc->fault)
		fault_ask_again(inc->fault);
	return 0;
}

void channels_to_fault(struct incoming *inc)
{
	inc->urgent_given = inc->urgent;
	fault_mend(inc->fault, inc->capabilities & MSG_CAP_MEND);
	fault_resume(inc->fault, steal_ptr(&inc->urgent));
}
