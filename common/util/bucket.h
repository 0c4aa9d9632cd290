/* SPDX-License-Identifier: Apache-2.0 */
/* Token bucket: pure arithmetic, no clock and no lock of its own. */
#ifndef DECANT_UTIL_BUCKET_H
#define DECANT_UTIL_BUCKET_H

#include <stdint.h>

/**
 * struct bucket - a rate limit
 * @rate:	bytes per second; 0 = no limit
 * @burst:	most bytes that can be saved up
 * @tokens:	bytes that may go now; negative after an overdraft
 * @last_us:	clock_us() of the last refill
 */
struct bucket {
	uint64_t rate;
	uint64_t burst;
	int64_t tokens;
	uint64_t last_us;
};

/** bucket_init() - burst is a tenth of a second's worth, at least 256 KiB */
void bucket_init(struct bucket *b, uint64_t rate, uint64_t now_us);
/**
 * bucket_take() - account for @bytes about to be sent
 *
 * The bytes are always taken (overdraft); Return: microseconds that the caller must wait before
 * it sends them, 0 if it may at once
 */
uint64_t bucket_take(struct bucket *b, uint64_t bytes, uint64_t now_us);
/** bucket_give() - @bytes that were taken were not sent after all; never more than a burst is saved up */
void bucket_give(struct bucket *b, uint64_t bytes);
/**
 * bucket_set_rate() - another limit from now on, also while one is waited for
 *
 * What was saved up stays, up to the new burst; without a limit before, nothing was. Of an overdraft no more
 * stays than the new rate pays back in a second.
 */
void bucket_set_rate(struct bucket *b, uint64_t rate, uint64_t now_us);

#endif
