/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "policy.h"

static struct mig_options opts(enum mig_mode mode)
{
	struct mig_options o;

	conf_options_defaults(&o);
	o.mode = mode;
	o.downtime_limit_ms = 100;
	return o;
}

/* 100 MB/s: what fits into 100 ms is 10 MB. */
static struct policy_in in(const struct mig_options *o, uint64_t remaining, uint64_t before)
{
	return (struct policy_in){.options = o,
				  .passes = 1,
				  .elapsed_us = 1000000,
				  .remaining = remaining,
				  .before = before,
				  .rate = 100000000};
}

Test(policy, switches_when_the_rest_fits_the_downtime)
{
	struct mig_options o = opts(MIG_MODE_PRECOPY);
	struct policy_in i = in(&o, 10000000, 1000000000);

	cr_assert_eq(policy_next(&i), POLICY_SWITCH);
	i.remaining++;
	cr_assert_eq(policy_next(&i), POLICY_PASS);
}

Test(policy, nothing_left_fits_without_a_rate)
{
	struct mig_options o = opts(MIG_MODE_PRECOPY);
	struct policy_in i = in(&o, 0, 0);

	i.rate = 0;
	cr_assert_eq(policy_next(&i), POLICY_SWITCH);
	i.remaining = 4096;
	cr_assert_eq(policy_next(&i), POLICY_PASS);
}

Test(policy, precopy_ends_by_passes_and_by_time)
{
	struct mig_options o = opts(MIG_MODE_PRECOPY);
	struct policy_in i = in(&o, 1000000000, 1000000000);

	i.passes = o.max_passes - 1;
	cr_assert_eq(policy_next(&i), POLICY_PASS);
	i.passes = o.max_passes;
	cr_assert_eq(policy_next(&i), POLICY_FAIL);
	i.passes = 1;
	i.elapsed_us = (uint64_t)o.precopy_timeout_s * 1000000;
	cr_assert_eq(policy_next(&i), POLICY_FAIL);
}

Test(policy, no_convergence_decides_how_it_ends)
{
	struct mig_options o = opts(MIG_MODE_PRECOPY);
	struct policy_in i = in(&o, 1000000000, 1000000000);

	i.passes = o.max_passes;
	o.no_convergence = MIG_NOCONV_STOP;
	cr_assert_eq(policy_next(&i), POLICY_SWITCH);
	o.no_convergence = MIG_NOCONV_POSTCOPY;
	cr_assert_eq(policy_next(&i), POLICY_SWITCH_POSTCOPY);
}

Test(policy, hybrid_goes_on_only_while_it_pays)
{
	struct mig_options o = opts(MIG_MODE_HYBRID);
	struct policy_in i = in(&o, 400000000, 1000000000);

	cr_assert_eq(policy_next(&i), POLICY_PASS, "the last pass more than halved it");
	i.remaining = 500000001;
	cr_assert_eq(policy_next(&i), POLICY_SWITCH, "it did not");
	i.remaining = 400000000;
	i.passes = o.max_passes;
	cr_assert_eq(policy_next(&i), POLICY_SWITCH, "hybrid never fails to converge");
}

Test(policy, who_may_leave_missing_pages)
{
	struct mig_options o = opts(MIG_MODE_PRECOPY);

	cr_assert_not(policy_may_postcopy(&o));
	o.no_convergence = MIG_NOCONV_POSTCOPY;
	cr_assert(policy_may_postcopy(&o));
	o = opts(MIG_MODE_HYBRID);
	cr_assert(policy_may_postcopy(&o));
	o = opts(MIG_MODE_POSTCOPY);
	cr_assert(policy_may_postcopy(&o));
}

/* What only the pause can send is not waited for in passes. */
Test(policy, what_no_pass_can_send_ends_precopy)
{
	struct mig_options o = opts(MIG_MODE_PRECOPY);
	struct policy_in i = in(&o, 1000000000, 1000000000);

	i.pinned = 10000000;
	cr_assert_eq(policy_next(&i), POLICY_PASS, "it fits");
	i.pinned++;
	cr_assert_eq(policy_next(&i), POLICY_FAIL);
	o.no_convergence = MIG_NOCONV_STOP;
	cr_assert_eq(policy_next(&i), POLICY_SWITCH);
}
