/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/lab_pace.h"

static void check(struct lab *lab, const struct pace *p, uint64_t us, uint64_t bound_us,
		  const char *what, bool ok)
{
	uint64_t longest = pace_longest_us(p), lost = pace_lost_us(p);

	fprintf(stderr, "%s: %lu us of %lu; anybody waited up to %lu us, %lu us in all\n", what, us,
		bound_us, longest, lost);
	lab_check(lab, ok, "%s: %lu us, and %lu are allowed; anybody waited up to %lu us", what, us,
		  bound_us, longest);
}

void lab_soon(struct lab *lab, const struct pace *p, uint64_t us, uint64_t bound_us,
	      const char *what)
{
	check(lab, p, us, bound_us, what, pace_soon(p, us, bound_us * lab->slow));
}

void lab_brisk(struct lab *lab, const struct pace *p, uint64_t us, uint64_t bound_us,
	       const char *what)
{
	check(lab, p, us, bound_us, what, pace_brisk(p, us, bound_us * lab->slow));
}
