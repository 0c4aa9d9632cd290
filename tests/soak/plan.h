/* SPDX-License-Identifier: Apache-2.0 */
/* What happens in a round of the soak: a function of seed and number alone. */
#ifndef DECANT_TESTS_SOAK_PLAN_H
#define DECANT_TESTS_SOAK_PLAN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/** enum soak_fault - what goes wrong, or what somebody does, while guests move */
enum soak_fault {
	SOAK_NONE,
	SOAK_KILL_SOURCE, /* SIGKILL of the agent from which the first guest leaves */
	SOAK_KILL_DEST,   /* and of the one to which it goes */
	SOAK_KILL_BOTH,
	SOAK_RESTART_SOURCE, /* SIGTERM, and started again */
	SOAK_RESTART_DEST,
	SOAK_STOP_SOURCE, /* SIGSTOP for a while */
	SOAK_STOP_DEST,
	SOAK_CUT, /* all connections are reset */
	SOAK_CUT_ONE,
	SOAK_CUT_WORD,   /* all are, before a word of the destination on control gets through */
	SOAK_FLAP,       /* all are, again and again for a while */
	SOAK_BLACK_HOLE, /* nothing gets through for a while */
	SOAK_DELAY,      /* everything waits, again and again */
	SOAK_CANCEL,
	SOAK_SWITCHOVER, /* ordered by hand */
	SOAK_REFUSED,    /* first to where nobody listens, then as planned */
	SOAK_TWICE,      /* each request is made again, as by a client that lost its answer */
	SOAK_SNAPSHOT,   /* another guest is stored meanwhile */
	SOAK_FAULTS
};

/** enum soak_when - the phase of the first guest's migration that is waited for */
enum soak_when { SOAK_SETUP, SOAK_PRECOPY, SOAK_SWITCH, SOAK_POSTCOPY, SOAK_WHENS };

/**
 * struct soak_move - how one guest is moved
 * @mode, @tracking, @compression: words of the options; @compression may be NULL
 * @no_convergence: what precopy does that does not converge
 * @channels:	bulk channels
 * @urgent:	with a channel of its own for pages asked for
 * @last_ms:	the bandwidth is such that its memory takes so long; 0: no limit
 * @max_passes, @downtime_ms: limits of precopy
 */
struct soak_move {
	const char *mode;
	const char *tracking;
	const char *no_convergence;
	const char *compression;
	unsigned int channels;
	bool urgent;
	unsigned int last_ms;
	unsigned int max_passes;
	unsigned int downtime_ms;
};

#define SOAK_GUESTS_MAX 6

/**
 * struct soak_plan - a round
 * @moves:	how each guest is moved, if it is
 * @first:	the guest whose migration sets the moment and the hosts of the fault
 * @moving:	bit i: guest i is moved; @first always is
 * @delay_ms:	from the beginning of the phase @when to the fault
 * @for_ms:	how long it lasts
 * @which:	a connection, or a word
 */
struct soak_plan {
	uint64_t seed;
	unsigned int round;
	struct soak_move moves[SOAK_GUESTS_MAX];
	unsigned int first;
	unsigned int moving;
	enum soak_fault fault;
	enum soak_when when;
	unsigned int delay_ms;
	unsigned int for_ms;
	unsigned int which;
};

/**
 * soak_plan() - make a plan
 * @only:	this fault in each round, whatever the seed says; SOAK_FAULTS: what the seed says
 * @guests:	how many there are, at least 1
 * @quick:	nothing that takes seconds
 * @zstd:	compression may be asked for
 */
void soak_plan(struct soak_plan *p, uint64_t seed, unsigned int round, enum soak_fault only,
	       unsigned int guests, bool quick, bool zstd);
/** soak_fault_name() - Return: its word */
const char *soak_fault_name(enum soak_fault fault);
/** soak_fault_of() - Return: the one of this word; SOAK_FAULTS if there is none */
enum soak_fault soak_fault_of(const char *name);
/** soak_fault_loses() - Return: whether it can break sessions */
bool soak_fault_loses(enum soak_fault fault);
/** soak_plan_print() - one line */
void soak_plan_print(FILE *f, const struct soak_plan *p);

#endif
