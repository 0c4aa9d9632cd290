/* SPDX-License-Identifier: Apache-2.0 */
/* The driver's operations, one request each. */
#include "guest/native_impl.h"

#include <errno.h>
#include <string.h>

static int ask_plain(struct guest *g, uint16_t type, unsigned int timeout_ms, guest_done_fn *done,
		     void *arg)
{
	struct gwire_msg m = {.type = type};

	return native_ask(native_of(g), &m, -1, timeout_ms, done, arg, NULL);
}

static int op_pause(struct guest *g, uint32_t bound_ms, guest_done_fn *done, void *arg)
{
	struct gwire_msg m = {.type = GWIRE_PAUSE, .u.bound_ms = bound_ms};

	return native_ask(native_of(g), &m, -1, bound_ms + NATIVE_PAUSE_SLACK_MS, done, arg, NULL);
}

static int op_resume(struct guest *g, guest_done_fn *done, void *arg)
{
	int ret = ask_plain(g, GWIRE_RESUME, NATIVE_TIMEOUT_MS, done, arg);

	/* The callback thread writes into a pipe that nobody would read: end that. */
	if (!ret)
		native_state_cancel_save(native_of(g), -ECANCELED);
	return ret;
}

static int op_uffd(struct guest *g, bool keep, uint32_t tag, guest_done_fn *done, void *arg)
{
	struct gwire_msg m = {.type = GWIRE_UFFD, .u.uffd.tag = tag};
	struct native_request *r;
	int ret;

	m.u.uffd.flags = (uint8_t)((g->user_faults ? GWIRE_UFFD_USER_MODE : 0) |
				   (keep ? GWIRE_UFFD_KEEP : 0));
	ret = native_ask(native_of(g), &m, -1, NATIVE_TIMEOUT_MS, done, arg, &r);
	if (!ret) {
		r->keep = keep;
		r->tag = tag;
	}
	return ret;
}

static int op_uffd_again(struct guest *g, guest_done_fn *done, void *arg)
{
	return ask_plain(g, GWIRE_UFFD_AGAIN, NATIVE_TIMEOUT_MS, done, arg);
}

static int op_uffd_close(struct guest *g, guest_done_fn *done, void *arg)
{
	return ask_plain(g, GWIRE_UFFD_CLOSE, NATIVE_TIMEOUT_MS, done, arg);
}

static int op_punch(struct guest *g, uint16_t block, const struct guest_range *ranges, size_t n,
		    guest_done_fn *done, void *arg)
{
	struct gwire_msg m = {.type = GWIRE_PUNCH};

	m.u.punch.block = block;
	m.u.punch.n = (uint16_t)n;
	m.u.punch.ranges = (struct guest_range *)ranges; /* only read when encoding */
	return native_ask(native_of(g), &m, -1, NATIVE_TIMEOUT_MS, done, arg, NULL);
}

static int op_prepare(struct guest *g, guest_done_fn *done, void *arg)
{
	return ask_plain(g, GWIRE_PREPARE, NATIVE_TIMEOUT_MS, done, arg);
}

static int op_finish(struct guest *g, guest_done_fn *done, void *arg)
{
	return ask_plain(g, GWIRE_FINISH, NATIVE_FINISH_TIMEOUT_MS, done, arg);
}

static int op_set_identity(struct guest *g, const uint8_t uuid[GUEST_UUID_LEN], uint64_t generation,
			   guest_done_fn *done, void *arg)
{
	struct gwire_msg m = {.type = GWIRE_IDENTITY};
	struct native_request *r;
	int ret;

	memcpy(m.u.identity.uuid, uuid, GUEST_UUID_LEN);
	m.u.identity.generation = generation;
	ret = native_ask(native_of(g), &m, -1, NATIVE_TIMEOUT_MS, done, arg, &r);
	if (!ret)
		r->identity = m.u.identity;
	return ret;
}

static int op_move(struct guest *g, const char *path, guest_done_fn *done, void *arg)
{
	struct gwire_msg m = {.type = GWIRE_MOVE};

	strcpy(m.u.path, path); /* guest_move() has measured it */
	return native_ask(native_of(g), &m, -1, NATIVE_TIMEOUT_MS, done, arg, NULL);
}

static int op_quit(struct guest *g, guest_done_fn *done, void *arg)
{
	return ask_plain(g, GWIRE_QUIT, NATIVE_TIMEOUT_MS, done, arg);
}

void native_ops_given_up(struct native *n, const struct native_request *r)
{
	struct gwire_msg m = {.type = GWIRE_RESUME};

	/*
	 * The library keeps the bound of a pause by itself; one that is stopped altogether does not,
	 * and would pause when it wakes up. Whoever reads PAUSE then reads this next.
	 */
	if (r->type == GWIRE_PAUSE)
		native_ask(n, &m, -1, NATIVE_TIMEOUT_MS, NULL, NULL, NULL);
}

void native_ops_late(struct native *n, const struct native_request *r, const struct gwire_done *d)
{
	struct gwire_msg m = {.type = GWIRE_UFFD_CLOSE};

	/* Nobody has registered anything with it. */
	if (r->type == GWIRE_UFFD && r->keep && !d->result)
		native_ask(n, &m, -1, NATIVE_TIMEOUT_MS, NULL, NULL, NULL);
}

const struct guest_ops native_ops = {
	.pause = op_pause,
	.resume = op_resume,
	.save = native_state_save,
	.save_more = native_state_save_more,
	.load = native_state_load,
	.load_feed = native_state_load_feed,
	.load_end = native_state_load_end,
	.uffd = op_uffd,
	.uffd_again = op_uffd_again,
	.uffd_close = op_uffd_close,
	.punch = op_punch,
	.prepare = op_prepare,
	.finish = op_finish,
	.set_identity = op_set_identity,
	.move = op_move,
	.quit = op_quit,
	.free = native_free,
};
