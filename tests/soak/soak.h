/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The soak: guests go from host to host and back, many times, under load, and in each round something goes
 * wrong. After each round every guest runs in one place with all of its memory, the jobs say so, and
 * nothing is left over.
 *
 *	plan.c		what happens in a round, out of seed and number
 *	world.c		two hosts, a relay before each, the guests
 *	guests.c	guests of several kinds, and how each is verified
 *	vm.c		a QEMU among them
 *	jobs.c		migrations over REST
 *	fault.c		what goes wrong, and how it ends
 *	leaks.c		what agents and guests hold in the end
 *	round.c		one round
 *	soak.c		all of them
 *
 * Functions fail as those of the lab do.
 */
#ifndef DECANT_TESTS_SOAK_H
#define DECANT_TESTS_SOAK_H

#include "lib/lab_guest.h"
#include "lib/lab_relay.h"
#include "soak/plan.h"

/**
 * struct soak_opts - a run
 * @seed:	of all plans
 * @first, @rounds: rounds [first, first + rounds)
 * @only:	the fault of each round; SOAK_FAULTS: any
 * @quick:	small guests, nothing that takes seconds
 * @vm:		a QEMU is among the guests
 * @quiet:	no line for each round
 */
struct soak_opts {
	uint64_t seed;
	unsigned int first;
	unsigned int rounds;
	enum soak_fault only;
	bool quick;
	bool vm;
	bool quiet;
};

/** soak_run() - a run, in a lab without hosts yet; does not end the lab */
void soak_run(struct lab *lab, const struct soak_opts *opts);

#endif
