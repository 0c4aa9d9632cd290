/* SPDX-License-Identifier: Apache-2.0 */
#include "policy.h"

/* Would sending what is left take no longer than the guest may stand still? */
static bool fits(const struct policy_in *in, uint64_t bytes)
{
	uint64_t limit_us = (uint64_t)in->options->downtime_limit_ms * 1000;

	if (bytes == 0)
		return true;
	if (in->rate == 0)
		return false;
	return (double)bytes * 1e6 / (double)in->rate <= (double)limit_us;
}

static bool exhausted(const struct policy_in *in)
{
	return in->passes >= in->options->max_passes || !fits(in, in->pinned) ||
	       in->elapsed_us >= (uint64_t)in->options->precopy_timeout_s * 1000000;
}

/*
 * Another pass of a hybrid migration pays if the last one at least halved what is left: then the
 * pages it saves from post-copy outweigh the time in which the guest dirties others.
 */
static bool pays(const struct policy_in *in)
{
	return in->remaining <= in->before / 2;
}

enum policy_out policy_next(const struct policy_in *in)
{
	if (fits(in, in->remaining))
		return POLICY_SWITCH;
	if (in->options->mode == MIG_MODE_HYBRID)
		return exhausted(in) || !pays(in) ? POLICY_SWITCH : POLICY_PASS;
	if (!exhausted(in))
		return POLICY_PASS;
	switch (in->options->no_convergence) {
	case MIG_NOCONV_STOP:
		return POLICY_SWITCH;
	case MIG_NOCONV_POSTCOPY:
		return POLICY_SWITCH_POSTCOPY;
	case MIG_NOCONV_FAIL:
		break;
	}
	return POLICY_FAIL;
}

bool policy_may_postcopy(const struct mig_options *o)
{
	return o->mode != MIG_MODE_PRECOPY || o->no_convergence == MIG_NOCONV_POSTCOPY;
}
