/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's state, from STATE messages into the guest, no faster than it takes it. Loading touches
 * memory: the fault thread serves that meanwhile, so nothing here waits for the guest.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "incoming_priv.h"
#include "util/cleanup.h"
#include "util/faultpoint.h"
#include "util/log.h"

void load_free(struct inc_load *l)
{
	XXH3_freeState(l->hash);
	free(l->rest);
	*l = (struct inc_load){0};
}

static void fail(struct incoming *inc, int r, const struct error *why, const char *what)
{
	struct error err = {0};

	if (why)
		err = *why;
	error_set(&err, r, "load-failed", "%s", strerror(-r));
	error_prefix(&err, "guest %s %s", inc->setup->name, what);
	incoming_event(inc, INC_EV_FAIL, &err);
}

static void on_loaded(void *arg, int ret, const struct error *err, int fd)
{
	struct incoming *inc = arg;

	(void)fd;
	inc->load.under_way = false;
	FAULTPOINT(STATE_LOADED);
	/* Lost: its end is told by the driver, with what it said last. */
	if (ret == -ECONNRESET)
		return;
	if (inc->state != INC_LISTENING)
		return;
	if (ret)
		fail(inc, ret, err, "cannot load its state");
	else if (!inc->load.ended)
		fail(inc, -EPROTO, NULL,
		     "says that it is loaded before all of its state was there");
	else
		incoming_event(inc, INC_EV_LOADED, NULL);
}

/* The guest takes more: first what is left of the last piece, then the next messages. */
static void on_room(void *arg)
{
	struct incoming *inc = arg;
	struct inc_load *l = &inc->load;
	int r;

	if (inc->state != INC_LISTENING || !l->rest)
		return;
	r = guest_load_feed(inc->guest, l->rest, l->rest_len);
	if (r == -EAGAIN)
		return;
	free(steal_ptr(&l->rest));
	if (r)
		fail(inc, r, NULL, "does not take its state");
	else
		incoming_pause(inc, false);
	if (!r && inc->restore)
		restore_feed(inc);
}

void load_begin(struct incoming *inc)
{
	struct inc_load *l = &inc->load;
	int r = -ECONNRESET;

	l->hash = XXH3_createState();
	if (!l->hash || XXH3_64bits_reset(l->hash) == XXH_ERROR)
		r = -ENOMEM;
	else if (inc->guest)
		r = guest_load(inc->guest, inc->setup->paused, on_room, on_loaded, inc);
	if (r)
		fail(inc, r, NULL, "cannot load its state");
	else
		l->under_way = true;
}

int load_state(struct incoming *inc, const struct msg *m, struct error *err)
{
	struct inc_load *l = &inc->load;
	int r;

	if (l->ended)
		return error_set(err, -EBADMSG, "unexpected-message", "STATE behind STATE_END");
	if (m->state.len > MSG_STATE_TOTAL_MAX - l->bytes)
		return error_set(err, -EBADMSG, "bad-message",
				 "the guest's state is larger than %u bytes", MSG_STATE_TOTAL_MAX);
	XXH3_64bits_update(l->hash, m->state.data, m->state.len);
	l->bytes += m->state.len;
	/* A load that has failed already tells so by itself. */
	r = l->under_way && inc->guest ? guest_load_feed(inc->guest, m->state.data, m->state.len)
				       : 0;
	FAULTPOINT(STATE_PIECE_FED);
	if (r != -EAGAIN)
		return r ? error_set(err, r, "load-failed", "guest %s does not take its state: %s",
				     inc->setup->name, strerror(-r))
			 : 0;
	l->rest = malloc(m->state.len);
	if (!l->rest)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	memcpy(l->rest, m->state.data, m->state.len);
	l->rest_len = m->state.len;
	incoming_pause(inc, true);
	return 0;
}

int load_check_end(struct inc_load *l, const struct msg *m, struct error *err)
{
	uint64_t digest = XXH3_64bits_digest(l->hash);

	if (l->ended)
		return error_set(err, -EBADMSG, "unexpected-message", "STATE_END came twice");
	if (m->state_end.length != l->bytes || m->state_end.digest != digest)
		return error_set(err, -EBADMSG, "state-differs",
				 "the guest's state has %" PRIu64 " bytes and digest %016" PRIx64
				 ", STATE_END says %" PRIu64 " and %016" PRIx64,
				 l->bytes, digest, m->state_end.length, m->state_end.digest);
	l->ended = true;
	return 0;
}

int load_state_end(struct incoming *inc, const struct msg *m, struct error *err)
{
	struct inc_load *l = &inc->load;
	int r = load_check_end(l, m, err);

	if (r)
		return r;
	FAULTPOINT(STATE_RECEIVED);
	r = l->under_way && inc->guest ? guest_load_end(inc->guest) : 0;
	return r ? error_set(err, r, "load-failed", "guest %s does not take its state: %s",
			     inc->setup->name, strerror(-r))
		 : 0;
}
