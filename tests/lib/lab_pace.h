/* SPDX-License-Identifier: Apache-2.0 */
/* Demands that something is quick, of us and not of the machine; see pace.h. */
#ifndef DECANT_TESTS_LAB_PACE_H
#define DECANT_TESTS_LAB_PACE_H

#include <stdint.h>

#include "lib/lab.h"
#include "lib/pace.h"

/**
 * lab_soon() - one wait: fail the test unless pace_soon() of it
 * @us:		it has taken
 * @bound_us:	it may take, times lab.slow
 * @what:	it was
 */
void lab_soon(struct lab *lab, const struct pace *p, uint64_t us, uint64_t bound_us,
	      const char *what);
/** lab_brisk() - many steps: fail the test unless pace_brisk() of it */
void lab_brisk(struct lab *lab, const struct pace *p, uint64_t us, uint64_t bound_us,
	       const char *what);

#endif
