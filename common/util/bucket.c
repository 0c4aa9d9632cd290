/* SPDX-License-Identifier: Apache-2.0 */
#include "util/bucket.h"

#include "util/cleanup.h"

#define BURST_MIN (UINT64_C(256) << 10)
#define SECOND_US UINT64_C(1000000)
/* Further than this an overdraft does not grow, so that no sum can wrap. */
#define DEBT_MAX (INT64_MAX / 2)

typedef unsigned __int128 u128;

void bucket_init(struct bucket *b, uint64_t rate, uint64_t now_us)
{
	uint64_t burst = rate / 10 > BURST_MIN ? rate / 10 : BURST_MIN;

	*b = (struct bucket){
		.rate = rate, .burst = burst, .tokens = (int64_t)burst, .last_us = now_us};
}

/*
 * Only the time that whole bytes stand for is used up: otherwise a slow bucket that is asked often
 * would lose its fractions, and so never fill.
 */
static void refill(struct bucket *b, uint64_t now_us)
{
	uint64_t room = (uint64_t)((int64_t)b->burst - b->tokens);
	u128 gain;

	if (now_us <= b->last_us)
		return;
	gain = (u128)b->rate * (now_us - b->last_us) / SECOND_US;
	if (gain >= room) {
		b->tokens = (int64_t)b->burst;
		b->last_us = now_us;
		return;
	}
	b->tokens += (int64_t)gain;
	b->last_us += (uint64_t)((gain * SECOND_US + b->rate - 1) / b->rate);
}

uint64_t bucket_take(struct bucket *b, uint64_t bytes, uint64_t now_us)
{
	uint64_t at, since;
	u128 wait;

	if (!b->rate)
		return 0;
	refill(b, now_us);
	if (bytes > (uint64_t)DEBT_MAX || b->tokens - (int64_t)bytes < -DEBT_MAX)
		b->tokens = -DEBT_MAX;
	else
		b->tokens -= (int64_t)bytes;
	if (b->tokens >= 0)
		return 0;
	wait = ((u128)(uint64_t)-b->tokens * SECOND_US + b->rate - 1) / b->rate;
	since = now_us > b->last_us ? now_us - b->last_us : 0;
	at = wait > UINT64_MAX ? UINT64_MAX : (uint64_t)wait;
	return at > since ? at - since : 0;
}

void bucket_give(struct bucket *b, uint64_t bytes)
{
	uint64_t room = (uint64_t)((int64_t)b->burst - b->tokens);

	if (b->rate)
		b->tokens += (int64_t)MIN(bytes, room);
}

void bucket_set_rate(struct bucket *b, uint64_t rate, uint64_t now_us)
{
	int64_t tokens = 0, least = -(int64_t)MIN(rate, (uint64_t)DEBT_MAX);

	if (b->rate) {
		refill(b, now_us);
		tokens = b->tokens;
	}
	bucket_init(b, rate, now_us);
	tokens = MIN(tokens, b->tokens);
	b->tokens = MAX(tokens, least);
}
