/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Others are asked whether the guest may be paused (hooks.h), and precopy goes on until they have answered: what
 * is written meanwhile is sent, so that as little is left as when policy was content. These passes do not
 * count, and neither does their time.
 */
#include "scan.h"

#include "scan_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"

/* Between two looks at what was written: less often than in a pass, since nobody knows how long it takes. */
#define LOOK_US 250000u

static bool shut(const struct scan *s)
{
	return atomic_load(&s->e->gate) == ENGINE_GATE_ASKED;
}

bool scan_hurries(const struct scan *s)
{
	if (shut(s))
		return false;
	/* What is left then goes by post-copy. */
	return atomic_load(&s->switch_now) ||
	       (atomic_load(&s->e->gate) == ENGINE_GATE_OPEN && atomic_load(&s->postcopy));
}

static int rest(struct scan *s, struct error *err)
{
	uint64_t end = clock_us() + LOOK_US, now;
	int r = 0;

	while (!r && shut(s) && (now = clock_us()) < end)
		r = feed_nap(s, end - now, err);
	return r;
}

static int keep_up(struct scan *s, struct error *err)
{
	uint64_t start = clock_us();
	int r = scan_settle(s, true, err);

	if (r || !shut(s))
		return r;
	atomic_fetch_add(&s->e->pass, 1);
	r = rest(s, err);
	return r || !shut(s) ? r : scan_collect(s, start, err);
}

int scan_gate(struct scan *s, struct error *err)
{
	uint64_t start = clock_us();
	int r = 0;

	if (atomic_load(&s->e->gate) != ENGINE_GATE_SHUT)
		return 0;
	atomic_store(&s->e->gate, ENGINE_GATE_ASKED);
	engine_post(s->e, ENGINE_GATE, NULL);
	while (!r && shut(s))
		r = s->ops ? keep_up(s, err) : feed_wait(s, err);
	s->gate_us += clock_us() - start;
	return r;
}
