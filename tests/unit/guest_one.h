/* SPDX-License-Identifier: Apache-2.0 */
/* For test suites that have an agent and, once they run it, one guest: init and fini are one_start() and one_stop(). */
#ifndef DECANT_TESTS_GUEST_ONE_H
#define DECANT_TESTS_GUEST_ONE_H

#include "unit/guest_pair.h"

static struct pair p;
static struct pair_shared *s;
static pid_t child; /* 0: there is none any more */

static void one_start(void)
{
	pair_open(&p);
	s = pair_shared();
}

static void one_stop(void)
{
	if (child)
		pair_kill(&p, child);
	pair_close(&p);
}

static void run(void)
{
	child = pair_fork(&p, pair_program, s);
	pair_until(&p, p.g);
}

#endif
