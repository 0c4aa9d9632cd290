/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit: who asked for what and from where, which guest went where, when it changed hosts, who was refused.
 * One JSON object a line in state_dir/audit.log, which both agents of a host append to, and under systemd in
 * the journal as well (DECANT_AUDIT= and the members in capitals, as DECANT_JOB=).
 *
 * Each line has "at", "agent", "pid" and "what"; further members depend on it. Nothing in it is secret: of a
 * request its path and a few named strings are kept, never headers.
 *
 * What it promises: a line is written, whole, before the agent goes on, and is in the hands of the kernel then; lines
 * with AUDIT_SYNC are on the disk soon after (a thread sees to it, the loop never waits for a disk). An audit
 * that cannot be written stops no guest: it is said once, counted, and as soon as lines can be written
 * again one says how many are missing ("audit-lost").
 *
 * The file is only ever appended to, mode 0640. To rotate it: rename it, then SIGHUP both agents.
 *
 * For the loop's thread. NULL is an audit that nobody keeps.
 */
#ifndef DECANT_AUDIT_H
#define DECANT_AUDIT_H

#include <jansson.h>
#include <stdint.h>
#include "util/loop.h"

struct audit;

/**
 * enum audit_flags - how a line is written
 * @AUDIT_SYNC:		it is wanted on the disk
 * @AUDIT_REFUSED:	anybody can cause it: beyond AUDIT_REFUSED_BURST, AUDIT_REFUSED_PER_S of these a second are written,
 *			and the next one says how many were left out ("suppressed")
 */
enum audit_flags {
	AUDIT_PLAIN = 0,
	AUDIT_SYNC = 1,
	AUDIT_REFUSED = 2,
};

/** AUDIT_REFUSED_BURST, AUDIT_REFUSED_PER_S - see AUDIT_REFUSED */
#define AUDIT_REFUSED_BURST 50
#define AUDIT_REFUSED_PER_S 5

/** audit_open() - @agent: "source" or "dest". A file that cannot be opened is tried again with each line. Return: NULL when out of memory */
struct audit *audit_open(struct loop *loop, const char *state_dir, const char *agent);
/** audit_close() - with a last sync, if one is due */
void audit_close(struct audit *a);
/** audit_reopen() - the file was renamed */
void audit_reopen(struct audit *a);
/**
 * audit_note() - write a line
 * @what:	in kebab-case: "request", "ownership"
 * @members:	the reference is taken over; null members are left out
 */
void audit_note(struct audit *a, const char *what, json_t *members, enum audit_flags flags);
/** audit_lost() - Return: lines that could not be written since the agent's start */
uint64_t audit_lost(const struct audit *a);

#endif
