/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hooks: others are told of every change of a job's phase, and some are asked before a guest is paused.
 *
 * An event is a JSON document in CloudEvents 1.0's structured mode. A hook with a url gets it by HTTP
 * POST, a command gets it on stdin. For each hook:
 *
 *   order	the events of one job come one after the other: the next one waits until the one before was
 *		taken or given up. Those of other jobs do not wait for it.
 *   again	what fails for a reason that may pass is tried again with growing, jittered pauses; what was
 *		tried for the last time, or refused for good, goes to the file of dead letters.
 *   bounds	HOOKS_QUEUE events wait at most (further ones become dead letters at once, and are counted),
 *		HOOKS_AT_ONCE are under way, each for timeout_ms at most. Of an answer HOOKS_ANSWER_MAX
 *		bytes are taken.
 *   restart	what was not taken waits in state_dir and is sent by the agent's next life: every event is
 *		delivered at least once, or becomes a dead letter, whatever happens to the agent. Files are
 *		not synced: when the whole host dies, the last seconds may be lost.
 *
 * Nothing here waits: the loop goes on whatever a hook does. All of it is for the loop's thread.
 *
 * The signature of a hook with a secret: "Decant-Signature: t=SECONDS,v1=HEX", where HEX is the
 * HMAC-SHA256 of "SECONDS.BODY" (the decimal number, a full stop, the bytes of the body as they are sent).
 * SECONDS is when this attempt was made.
 */
#ifndef DECANT_HOOKS_H
#define DECANT_HOOKS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "conf/conf_hooks.h"
#include "util/error.h"
#include "util/loop.h"

struct hooks;
struct hooks_gate;

/** HOOKS_QUEUE - events of one hook that wait or are under way */
#define HOOKS_QUEUE 1000
/** HOOKS_AT_ONCE - deliveries of one hook at a time */
#define HOOKS_AT_ONCE 4
/** HOOKS_EXECS_MAX - commands of all hooks together that run at a time */
#define HOOKS_EXECS_MAX 8
/** HOOKS_ANSWER_MAX - bytes of an answer, header fields included; what is longer is cut off */
#define HOOKS_ANSWER_MAX (64u << 10)
/** HOOKS_TYPE_MAX - longest type, with its NUL */
#define HOOKS_TYPE_MAX 64
/** HOOKS_JOB_MAX - longest subject, with its NUL */
#define HOOKS_JOB_MAX 128

/**
 * hooks_new() - take up what an earlier life has left, and begin to deliver
 * @conf:	kept, not copied
 * @agent:	"source" or "dest"
 * @state_dir:	its folder hooks/AGENT is made; the file hooks/AGENT.dead takes dead letters
 *
 * Without hooks nothing is made and @ret is NULL, which every function here takes. Return: 0, or -errno with
 * @err filled: a secret or a certificate that cannot be read
 */
int hooks_new(struct loop *loop, const struct conf_hooks *conf, const char *agent,
	      const char *state_dir, struct hooks **ret, struct error *err);
/** hooks_free() - what is under way is given up, and left to the next life */
void hooks_free(struct hooks *h);
/**
 * hooks_reload() - read secrets and certificates again
 *
 * Return: 0, or -errno with @err filled: then the old ones stay in use
 */
int hooks_reload(struct hooks *h, struct error *err);

/** hooks_wanted() - Return: whether anybody wants an event of this type, for who would make its data in vain */
bool hooks_wanted(const struct hooks *h, const char *type);
/**
 * hooks_emit() - tell everybody who wants to know
 * @type:	KIND.PHASE, as "migration.precopy"; the event's type is "decant." and this
 * @job:	the event's subject, "migrations/ID": what the order is kept of
 * @data:	of the event; the reference is taken over
 */
void hooks_emit(struct hooks *h, const char *type, const char *job, json_t *data);

/**
 * hooks_gate_fn - what all gates together say; called once, not from within hooks_gate_ask()
 * @why:	refused: filled, with code gate-refused; NULL: allowed
 */
typedef void hooks_gate_fn(void *arg, const struct error *why);

/** hooks_gated() - Return: whether there are gates */
bool hooks_gated(const struct hooks *h);
/**
 * hooks_gate_ask() - ask all gates at once, those that delay again and again
 * @type, @job, @data: as for hooks_emit()
 * @limit_us:	for so long they may delay
 *
 * It takes @limit_us and twice the longest timeout_ms at most. Return: NULL when out of memory
 */
struct hooks_gate *hooks_gate_ask(struct hooks *h, const char *type, const char *job, json_t *data,
				  uint64_t limit_us, hooks_gate_fn *fn, void *arg);
/** hooks_gate_cancel() - the answer is not wanted any more: @fn is not called. NULL is fine, and so is one that
 * was answered only inside its @fn */
void hooks_gate_cancel(struct hooks_gate *g);
/** hooks_gate_json() - Return: who is waited for and why, new reference; null for NULL */
json_t *hooks_gate_json(const struct hooks_gate *g);

/**
 * struct hooks_count - what became of the events of one hook since the agent was started
 * @name:	of the hook
 * @waiting:	not taken yet
 * @delivered:	taken
 * @failed:	attempts that were not
 * @dead:	given up: dead letters
 * @dropped:	of these, those that found the queue full
 * @asked, @allowed, @delayed, @refused: gates: questions and answers
 * @errors:	gates: questions without an answer
 */
struct hooks_count {
	const char *name;
	uint64_t waiting;
	uint64_t delivered;
	uint64_t failed;
	uint64_t dead;
	uint64_t dropped;
	uint64_t asked, allowed, delayed, refused;
	uint64_t errors;
};

/** hooks_counts() - Return: how many hooks there are; fills @ret of the first @n */
size_t hooks_counts(const struct hooks *h, struct hooks_count *ret, size_t n);

#endif
