/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much of the loop clients may have. It is the loop of migrations, too, and some requests cost more than
 * others (GET /v1/host asks the kernel a hundred things): who asks without a pause gets a tenth of the thread, all of them
 * together, and then waits. Whoever asks as people and programs do never notices.
 */
#include "rest/rest_int.h"
#include "util/cleanup.h"
#include "util/clock.h"

/* What was spent is paid for by ten times as long... */
#define SHARE 10
/* ...and so much may be owed, which is 50 ms of work at once. */
#define OWED_US 500000

static bool may_go_on(const struct rest_server *s)
{
	return s->paid_us <= clock_us() + OWED_US;
}

static void wait_for_it(struct rest_server *s);

/* In the order in which they came, so that nobody is kept out by another one. */
static void on_turn(void *arg)
{
	struct rest_server *s = arg;
	struct rest_conn *c;

	event_free(s->turn);
	s->turn = NULL;
	while ((c = TAILQ_FIRST(&s->waiting)) && may_go_on(s)) {
		rest_turn_leave(c);
		rest_conn_dispatch(c);
	}
	wait_for_it(s);
}

static void wait_for_it(struct rest_server *s)
{
	uint64_t now = clock_us(), us = s->paid_us > now + OWED_US ? s->paid_us - now - OWED_US : 0;

	/* Without memory for a timer the next request looks again. */
	if (!s->turn && !TAILQ_EMPTY(&s->waiting))
		s->turn = loop_timer(s->loop, us + 1, on_turn, s);
}

bool rest_turn_take(struct rest_conn *c)
{
	struct rest_server *s = c->server;

	if (c->waits)
		return false;
	if (TAILQ_EMPTY(&s->waiting) && may_go_on(s))
		return true;
	c->waits = true;
	/* It has come in time; that it waits is not its client's doing. */
	event_del(c->deadline);
	TAILQ_INSERT_TAIL(&s->waiting, c, turn);
	wait_for_it(s);
	return false;
}

void rest_turn_spent(struct rest_server *s, uint64_t us)
{
	s->paid_us = MAX(s->paid_us, clock_us()) + us * SHARE;
}

void rest_turn_leave(struct rest_conn *c)
{
	if (c->waits)
		TAILQ_REMOVE(&c->server->waiting, c, turn);
	c->waits = false;
}
