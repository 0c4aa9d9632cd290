/* SPDX-License-Identifier: Apache-2.0 */
/* When has precopy gone on for long enough? Pure: numbers in, decision out. */
#ifndef DECANT_POLICY_H
#define DECANT_POLICY_H

#include <stdint.h>
#include "conf/conf_options.h"

/**
 * struct policy_in - what is known at the end of a pass
 * @options:	mode, downtime limit, bounds of precopy, what to do when it does not converge
 * @passes:	passes done
 * @elapsed_us:	since precopy began
 * @remaining:	bytes that are dirty now
 * @pinned:	part of @remaining that no pass can send: only the pause can
 * @before:	bytes that were to be sent at the start of the pass that has just ended
 * @rate:	bytes per second that the last pass achieved, 0 if it had nothing to measure
 */
struct policy_in {
	const struct mig_options *options;
	uint32_t passes;
	uint64_t elapsed_us;
	uint64_t remaining;
	uint64_t pinned;
	uint64_t before;
	uint64_t rate;
};

/**
 * enum policy_out - what to do next
 * @POLICY_PASS:	send what is dirty in another pass
 * @POLICY_SWITCH:	pause the guest now
 * @POLICY_SWITCH_POSTCOPY: pause it and leave the rest to post-copy, although the mode was precopy
 * @POLICY_FAIL:	give up: `not-converging`
 */
enum policy_out {
	POLICY_PASS,
	POLICY_SWITCH,
	POLICY_SWITCH_POSTCOPY,
	POLICY_FAIL,
};

/** policy_next() - decide at the end of a pass */
enum policy_out policy_next(const struct policy_in *in);

/** policy_may_postcopy() - Return: whether a migration with these options can leave missing pages */
bool policy_may_postcopy(const struct mig_options *o);

#endif
