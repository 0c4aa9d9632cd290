/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests with hostile peers and clients have in common: words of the protocol written by hand,
 * the look at what an attack costs the agent (struct lab_watch), and the migration beside it that
 * must not be hurt (struct lab_beside).
 */
#ifndef DECANT_TESTS_LAB_HOSTILE_H
#define DECANT_TESTS_LAB_HOSTILE_H

#include "lib/lab.h"
#include "lib/lab_guest.h"
#include "lib/pace.h"
#include "lib/lab_wire.h"
#include "msg.h"

/** HOSTILE_FRAME_MAX - bytes of any frame but PAGES */
#define HOSTILE_FRAME_MAX (MSG_HEADER_LEN + MSG_BODY_MAX)
/** HOSTILE_HELLO - bytes of HELLO's body by its fields: 4 + 2 + 2 + 8 + 1 + 1 + 2 + 16 + 32 */
#define HOSTILE_HELLO 68

/* --- an agent that lives --- */

/** hostile_alive() - it answers over REST */
void hostile_alive(struct lab_host *h, const char *sock, const char *after);
/** hostile_problem() - a refusal over REST is a problem document that a person can use */
void hostile_problem(struct lab *lab, const char *what, const char *body);
/** hostile_random() - numbers that follow from a seed: what fails can be seen again */
uint32_t hostile_random(uint64_t *state);

/* --- the wire, by hand --- */

void hostile_put16(uint8_t *p, uint16_t v);
void hostile_put32(uint8_t *p, uint32_t v);
uint16_t hostile_get16(const uint8_t *p);
/** hostile_hello() - a HELLO as PROTOCOL.md has it; @token NULL for zeros. Return: bytes */
size_t hostile_hello(uint8_t out[128], uint8_t kind, uint8_t index, const uint8_t *token);
/** hostile_connect() - a proper connection, which must be let in */
struct lab_wire *hostile_connect(struct lab_host *b);
/** hostile_session() - a session as far as HELLO_ACK; its token goes to @token (may be NULL) */
struct lab_wire *hostile_session(struct lab_host *b, uint8_t token[32]);
/**
 * hostile_refused() - the agent must end this connection, with an ERROR or (@silent_ok) without, and live on
 * @code:	of the ERROR; NULL if any will do
 * @names:	what its message must name; NULL if anything will do
 */
void hostile_refused(struct lab_host *b, struct lab_wire *w, const char *what, const char *code,
		     const char *names, bool silent_ok);

/* --- what it costs --- */

/**
 * struct lab_watch - an agent that is watched
 * @usage:	what it held before
 * @cpu_us, @begun_us: its processor time, and the time, at the beginning
 */
struct lab_watch {
	struct lab *lab;
	struct lab_proc *proc;
	struct lab_usage usage;
	uint64_t cpu_us;
	uint64_t begun_us;
};

/**
 * struct lab_cost - bounds; zero means the usual
 * @peak_mb:	how far its resident memory may have risen at its highest (16; instrumented agents: ten times)
 * @cpu_percent: processor time of the time that has passed (50; 100 is one processor; instrumented
 *		agents: not looked at)
 * @fds:	descriptors that it may hold still more than before
 */
struct lab_cost {
	unsigned int peak_mb;
	unsigned int cpu_percent;
	unsigned int fds;
};

/** lab_watch_begin() - from now on */
struct lab_watch lab_watch_begin(struct lab *lab, struct lab_proc *proc);
/** lab_watch_end() - what the attack @what has cost must be within bounds; prints it */
void lab_watch_end(const struct lab_watch *w, const char *what, const struct lab_cost *bounds);

/* --- others --- */

/**
 * struct lab_beside - a guest that moves while something else happens
 * @g:		it
 * @move:	its command
 * @downtime_us, @latency_us: of the control, which moved when nothing else happened
 * @pace:	what the machine makes of anybody meanwhile
 * @begun_ms:	when it started
 */
struct lab_beside {
	struct lab_host *from, *to;
	struct lab_guest *g;
	struct lab_proc *move;
	double downtime_us;
	double latency_us;
	struct pace *pace;
	uint64_t begun_ms;
};

/**
 * lab_beside_begin() - move a control, and then begin to move another guest for at least @ms
 *
 * The host @to must have the launchers of lab_guest_launchers().
 */
struct lab_beside lab_beside_begin(struct lab_host *from, struct lab_host *to, unsigned int ms);
/** lab_beside_moves() - Return: whether it has still not arrived: the attack may go on */
bool lab_beside_moves(struct lab_beside *b);
/**
 * lab_beside_end() - it must have arrived, verified, and stood not much longer than the control, or
 * than anybody waited for a processor meanwhile; its guest and the control's are ended
 */
void lab_beside_end(struct lab_beside *b);

#endif
