/* SPDX-License-Identifier: Apache-2.0 */
/* Which further channels a session takes, and when. */
#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include "channels.h"
#include "incoming_priv.h"
#include "util/log.h"

static bool takes_channels(const struct incoming *inc)
{
	/* Lost ones come again at any time. */
	if (channels_mend(inc) && !inc->complete)
		return inc->stage >= STAGE_PREPARED && inc->resuming != RESUMING_BITMAP;
	/* CONTINUE can overtake the last of them, which has been answered by then. */
	if (inc->state == INC_RUNNING)
		return inc->session && inc->resuming != RESUMING_BITMAP && !inc->complete;
	return (inc->state == INC_ADVISE || inc->state == INC_STORING) &&
	       inc->stage >= STAGE_PREPARED && !inc->complete;
}

int incoming_may_join(const struct incoming *inc, const struct msg_hello *h, const char *identity,
		      struct error *err)
{
	/* One answer for both: who is not of the session learns nothing about it. */
	if (CRYPTO_memcmp(inc->token, h->token, MSG_TOKEN_LEN) ||
	    strcmp(inc->identity, identity) != 0)
		return error_set(err, -EACCES, "bad-token",
				 "the token is not that of this migration");
	if (!takes_channels(inc))
		return error_set(
			err, -EBADMSG, "unexpected-message",
			"a further channel in state %s: it may come behind PREPARED and before "
			"SWITCH, or between RESUMED and CONTINUE",
			inc_state_name(inc->state));
	if (h->kind == MSG_CHANNEL_URGENT && (!(inc->capabilities & MSG_CAP_URGENT) || inc->store))
		return error_set(err, -EBADMSG, "unexpected-message",
				 "an urgent channel without the capability");
	if (h->kind == MSG_CHANNEL_URGENT && inc->session && inc->resuming == RESUMING_NOT &&
	    !channels_mend(inc))
		return error_set(err, -EBADMSG, "unexpected-message",
				 "an urgent channel behind CONTINUE");
	if (h->kind == MSG_CHANNEL_URGENT && (h->index || inc->urgent || inc->urgent_given))
		return error_set(err, -EBUSY, "channel-exists",
				 "there is an urgent channel already");
	if (h->kind == MSG_CHANNEL_BULK && h->index >= inc->setup->bulk_channels)
		return error_set(err, -EBADMSG, "bad-message", "bulk channel %u of %u", h->index,
				 inc->setup->bulk_channels);
	if (h->kind == MSG_CHANNEL_BULK && inc->bulk[h->index])
		return error_set(err, -EBUSY, "channel-exists",
				 "there is a bulk channel %u already", h->index);
	return 0;
}

int incoming_join(struct incoming *inc, enum msg_channel kind, unsigned int index,
		  struct tls_chan *chan, struct error *err)
{
	int r;

	log_debug("incoming %s: %s channel %u from %s", inc->id_text, msg_channel_name(kind), index,
		  tls_chan_peer(chan));
	tls_chan_watch(chan, inc->store ? INCOMING_STORE_WATCH_US : TLS_WATCH_US);
	if (kind == MSG_CHANNEL_URGENT) {
		inc->urgent = chan;
		inc->had_urgent = true;
		if (inc->fault && inc->resuming == RESUMING_NOT)
			channels_to_fault(inc);
		return 0;
	}
	r = receive_start(&inc->place, inc->writer, chan, bridge_receive_end, inc,
			  &inc->bulk[index]);
	return r ? error_set(err, r, NULL, "bulk channel %u: %s", index, strerror(-r)) : 0;
}
