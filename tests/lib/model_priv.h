/* SPDX-License-Identifier: Apache-2.0 */
/* A situation of the model and what can follow from it; for model*.c only. */
#ifndef DECANT_TESTS_MODEL_PRIV_H
#define DECANT_TESTS_MODEL_PRIV_H

#include "lib/model.h"

#define MODEL_KEEP_SOURCE      1
#define MODEL_KEEP_DESTINATION 2

/** enum copy - one of the guest's two copies */
enum copy {
	COPY_NONE,
	COPY_RUNNING,
	COPY_PAUSED,  /* at the source; at the destination: it was not let go yet */
	COPY_STOPPED, /* by KEPT */
	COPY_ENDED,   /* by an agent */
	COPY_DEAD,    /* by itself, or with its host */
};

/** enum due - the next step of what an agent has begun; each is a transition of its own */
enum due {
	DUE_NOTHING,
	/* source */
	DUE_SEND_INTENT,
	DUE_SEND_COMMIT,
	DUE_NOTE_RUNNING,
	DUE_NOTE_HELD,
	DUE_ROLL_NOTE,
	DUE_ROLL_ABORT,
	DUE_ROLL_RESUME,
	DUE_RELEASE_NOTE,
	DUE_RELEASE_QUIT,
	DUE_KEEP_RESUME,
	DUE_KEEP_EVENT,
	/* destination */
	DUE_ACK_INTENT,
	DUE_LET_GO,
	DUE_SAY_RUNNING,
	DUE_SYNC,
	DUE_FAIL_NOTE,
	DUE_ABORT_NOTE,
	DUE_ABORT_KILL,
	DUE_ABORT_SAY,
	DUE_SETTLE_NOTE,
	DUE_SETTLE_SAY,
	DUE_BURY_NOTE,
	DUE_BURY_SAY,
	DUE_STOP,
};

/** enum asked - a connection of kind query */
enum asked { ASK_IDLE, ASK_QUERY, ASK_KEPT, ASK_ABORTING, ASK_ANSWERED };

/**
 * struct sys - one situation; compared as bytes, so all of it is bytes
 * @src, @committed, @s_up, @s_due: the source's job, whether its agent lives, what it does next
 * @s_last, @s_synced: enum mig_record, as written and as on the disk
 * @g_src, @g_dst: enum copy
 * @keep:	an operator's decision, MODEL_KEEP_*; 0 without
 * @told:	KEPT was answered
 * @answer:	what QUERY or KEPT was answered last
 * @dst, @d_up, @d_due: likewise of the destination; @dst is MODEL_ABSENT without an incoming
 * @d_rec, @d_synced: enum history_fate or MODEL_NO_RECORD
 * @d_boot:	all records are of this boot
 * @d_over:	"overruled" is on the disk
 * @d_lost:	the journal was lost
 * @full:	every page is at the destination
 * @ran:	the guest has run at the destination
 * @loud:	the destination has reported a conflict
 * @up, @s_closed, @d_closed: the session's connection, as it is, and as each side sees it
 * @ask:	enum asked
 * @left:	what may still go wrong
 * @to, @from:	messages under way to and from the destination
 */
struct sys {
	uint8_t src, committed, s_up, s_due, s_last, s_synced, g_src, keep, told, answer;
	uint8_t dst, d_up, d_due, d_rec, d_synced, d_boot, d_over, d_lost, g_dst;
	uint8_t full, ran, loud, up, s_closed, d_closed, ask;
	struct bounds left;
	uint8_t nto, nfrom, to[MODEL_QUEUE], from[MODEL_QUEUE];
};

/** model_fn - takes what can follow, and what happened */
typedef void model_fn(void *arg, const struct sys *s, const char *what);

/** model_first() - Return: the guest runs at the source, and the destination has made room for it */
struct sys model_first(const struct bounds *b);
/** model_by_itself() - what follows with nothing going wrong and nobody giving orders; what must come to an end first */
void model_by_itself(const struct rules *r, const struct sys *s, model_fn *fn, void *arg);
/** model_out_of_turn() - losses, crashes, and orders */
void model_out_of_turn(const struct rules *r, const struct sys *s, model_fn *fn, void *arg);

/* model_source.c */
/** model_src_event() - Return: whether there is such a step; then @s has taken it */
bool model_src_event(const struct rules *r, struct sys *s, enum mig_event ev);
/** model_src_alone() - what the source does by itself */
void model_src_alone(const struct rules *r, const struct sys *s, model_fn *fn, void *arg);
/** model_src_takes() - a message has come */
void model_src_takes(const struct rules *r, struct sys s, uint8_t type, model_fn *fn, void *arg);
/** model_src_resolves() - an operator decides */
void model_src_resolves(const struct rules *r, const struct sys *s, model_fn *fn, void *arg);
/** model_src_starts() - the agent is started again */
void model_src_starts(const struct rules *r, struct sys *s);

/* model_dest.c */
bool model_dst_event(struct sys *s, enum inc_event ev);
void model_dst_alone(const struct rules *r, const struct sys *s, model_fn *fn, void *arg);
void model_dst_takes(const struct rules *r, struct sys s, uint8_t type, model_fn *fn, void *arg);
void model_dst_starts(const struct rules *r, struct sys *s);
/** model_dst_resumes() - RESUME has come. Return: whether there is a session again */
bool model_dst_resumes(struct sys *s);

/* model_step.c: the connection */
void model_say(struct sys *s, uint8_t type);  /* the destination */
void model_send(struct sys *s, uint8_t type); /* the source */
void model_close_src(struct sys *s);
void model_close_dst(struct sys *s);
/** model_src_note(), model_dst_note() - write a record, or write and sync it */
void model_src_note(struct sys *s, enum mig_record rec, bool sync);
void model_dst_note(struct sys *s, enum history_fate fate, bool sync);

#endif
