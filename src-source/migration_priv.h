/* SPDX-License-Identifier: Apache-2.0 */
/* What the mig_*.c files share. */
#ifndef DECANT_MIGRATION_PRIV_H
#define DECANT_MIGRATION_PRIV_H

#include <xxhash.h>

#include "conn.h"
#include "dial.h"
#include "engine.h"
#include "guests.h"
#include "migration.h"
#include "scan.h"
#include "util/journal_sync.h"
#include "util/uuid.h"

struct hooks_gate;

/** MIG_HOST_MAX, MIG_PORT_MAX - sizes with the NUL */
#define MIG_HOST_MAX 256
#define MIG_PORT_MAX 6

/*
 * Bounds of single steps, in microseconds; the switchover as a whole has switchover_timeout_ms, and what
 * the destination answers while the guest runs answer_timeout_ms, which shortens those of its other answers.
 */
#define MIG_DIAL_US    10000000ull
#define MIG_PREPARE_US 60000000ull
#define MIG_INTENT_US  10000000ull
#define MIG_RUNNING_US 10000000ull
#define MIG_ABORT_US   2000000ull
#define MIG_GUEST_MS   5000u
/** MIG_JOURNAL_US - a disk that takes longer for a record is no disk to hand over a guest by */
#define MIG_JOURNAL_US 60000000ull
/** MIG_PAUSE_SLACK_US - so that a guest that does not pause in time is told from one that says nothing */
#define MIG_PAUSE_SLACK_US 1000000ull

/** MIG_STEADY_US - a session that stood for so long is made again at once when it is lost */
#define MIG_STEADY_US 1000000ull

/**
 * enum mig_stage - where inside of the states setup and switchover the job is; stages follow each
 * other in this order (mig_setup.c, mig_track.c, mig_switch.c); and in state recovering: connect, bitmap, urgent,
 * bulk (mig_recover.c). In stage journal a record is being synced that the next step waits for: at the beginning of
 * setup, before intent, and before resume
 */
enum mig_stage {
	MIG_STAGE_NONE,
	MIG_STAGE_JOURNAL,
	MIG_STAGE_LOOK,
	MIG_STAGE_CONNECT,
	MIG_STAGE_PREPARE,
	MIG_STAGE_URGENT,
	MIG_STAGE_BULK,
	MIG_STAGE_TRACKING,
	MIG_STAGE_FIRST_PAUSE,
	MIG_STAGE_FIRST_SCAN,
	MIG_STAGE_FIRST_RESUME,
	MIG_STAGE_DISCARD,
	MIG_STAGE_INTENT,
	MIG_STAGE_PAUSE,
	MIG_STAGE_LAST_SCAN,
	MIG_STAGE_STATE,
	MIG_STAGE_READY,
	MIG_STAGE_RESUME,
	MIG_STAGE_UNTRACK,
	MIG_STAGE_ABORT,
	MIG_STAGE_BITMAP,
};

/** MIG_KEY_MAX - of an Idempotency-Key, with the NUL */
#define MIG_KEY_MAX 129

/** struct mig_channel - one connection of the session, as it is shown */
struct mig_channel {
	const char *kind;
	uint64_t bytes;
	bool lost;
};

/**
 * struct migration_totals - what remains to be shown when the engine is gone; names as in engine_stats
 *
 * @wire_before: part of @wire_bytes that earlier sessions have sent
 */
struct migration_totals {
	uint64_t total_bytes;
	uint64_t sent_bytes;
	uint64_t wire_bytes;
	uint64_t wire_before;
	uint64_t zero_pages;
	uint64_t remaining_bytes;
	uint64_t held_bytes;
	uint64_t dirty_rate;
	uint64_t rate;
	uint64_t requests;
	uint64_t stall_p50_us, stall_p99_us, stall_max_us;
	uint32_t passes;
	uint32_t nchannels;
	struct mig_channel channels[2 + MSG_CHANNELS_MAX];
};

/**
 * struct mig_switch - what is under way during the switchover
 * @block, @page: where the search for ranges to discard goes on, in stages discard and last scan
 * @discarding:	DISCARDs are not all queued yet
 * @saving:	the guest is delivering its state
 * @choked:	and was told to wait, because the control channel is full
 * @hash, @length: of the state so far
 */
struct mig_switch {
	uint32_t block;
	uint64_t page;
	bool discarding;
	bool saving;
	bool choked;
	XXH3_state_t *hash;
	uint64_t length;
};

/**
 * struct mig_snap - a snapshot
 * @name:	of the image
 * @start:	the destination is to start a copy of the guest from it
 * @state, @length, @cap: the guest's device state
 * @sent:	bytes of it that were sent
 * @state_sent, @pages_sent: all of that
 * @complete:	and COMPLETE behind it: from here on the image may exist
 */
struct mig_snap {
	char name[MSG_NAME_MAX];
	bool start;
	uint8_t *state;
	size_t length, cap, sent;
	bool state_sent;
	bool pages_sent;
	bool complete;
};

/**
 * struct mig_recover - what a session behind COMMIT is asked for, and made again
 * @attempts:	questions and sessions since it was lost
 * @next_us:	clock_wall_us() of the next one; 0 while one is under way
 * @delay_us:	pause before the one behind that
 * @since_us:	clock_us() when the session began to stand; 0 while there is none
 * @lost_us:	precopy: clock_us() when the session was lost; its time limit counts from here
 * @since_lost_us: the same of the last loss
 * @index:	the bulk channel that is made next
 * @converged:	precopy ended before the loss was noticed
 * @noted:	the journal says that the session was lost
 * @unheard_us:	clock_us() until which the destination is told that a job was rolled back of which it may keep
 *		something; 0 if there is nothing to tell, or it has been told
 * @farewell_us: pause before it is tried once more
 * @why:	what made it necessary
 * @err:	what became of the last attempt
 * @block, @page: where the received bitmap goes on
 */
struct mig_recover {
	unsigned int attempts;
	uint64_t next_us;
	uint64_t delay_us;
	uint64_t since_us;
	uint64_t lost_us;
	uint64_t since_lost_us;
	uint32_t index;
	bool converged;
	bool noted;
	uint64_t unheard_us;
	uint64_t farewell_us;
	struct error why;
	struct error err;
	uint32_t block;
	uint64_t page;
};

/**
 * struct mig_mend - lost data channels that are made again while the session stands
 * @dial:	the channel that is being made
 * @timer:	until the next attempt
 * @watch:	until the next look at whether they are silent
 * @kind, @index: of the attempt under way
 * @asked:	DROP was sent for it, DROPPED has not come
 * @urgent:	the urgent channel is to be made again
 * @urgent_clean, @clean: nothing is left there of the last attempt
 * @delay_us:	pause before the next attempt, 0 for none
 * @pause_us:	the last such pause
 * @since_us:	clock_us() when the last channel was made again
 * @bare_us:	clock_us() since when no bulk channel stands; 0 if one does
 * @err:	what became of the last attempt
 */
struct mig_mend {
	struct dial *dial;
	struct event *timer;
	struct event *watch;
	enum msg_channel kind;
	unsigned int index;
	bool asked;
	bool urgent;
	bool urgent_clean;
	bool clean[MSG_CHANNELS_MAX];
	uint64_t delay_us;
	uint64_t pause_us;
	uint64_t since_us;
	uint64_t bare_us;
	struct error err;
};

/**
 * struct mig_resolve - what an operator has decided, see mig_resolve.c
 * @keep:	whose copy lives on
 * @at_us:	clock_wall_us() of that
 * @acting:	the guest here is being let go
 * @told:	the destination has been told that the guest was kept here, and has answered @answer
 * @err:	why the decision came to nothing
 */
struct mig_resolve {
	enum mig_keep keep;
	uint64_t at_us;
	bool acting;
	bool told;
	enum msg_answer answer;
	struct error err;
};

/**
 * struct migration - the job
 * @guest:	its entry, NULL once that stands for another guest or is gone
 * @guest_name, @uuid: of the guest, also when @guest is NULL
 * @generation:	of the guest here; the destination's will be one more
 * @state:	changed by mig_event() alone, through mig_state_apply()
 * @stage:	see enum mig_stage
 * @committed:	the guest must not run here: COMMIT may have been sent, was not answered with not-started,
 *		and nobody has decided that the guest is kept here
 * @left:	the copy here has ended, behind that
 * @refused:	the destination has said no before it had the guest
 * @arrives_paused: the guest was paused by its own wish when the job began
 * @held:	the guest is paused by us
 * @key:	Idempotency-Key of the request that made it, "" without
 * @asked:	digest of that request, 0 if it is not known
 * @err:	what ended it, empty if nothing did
 * @control:	the control channel, NULL while there is none
 * @dial:	the channel that is being made
 * @version, @capabilities, @token: of the session
 * @gate:	others are being asked whether the guest may be paused, NULL while they are not
 * @precopy_us:	clock_us() when precopy began
 * @engine:	data threads, from setup to the end
 * @journal:	see mig_journal.c
 * @synced:	a step waits for it; then @noted
 * @timer:	bound of the present step
 * @again:	of the recovery, of the questions in doubt, and of telling (mig_telling())
 * @mend:	of lost channels
 * @resolve:	an operator's decision
 * @sw:		of the switchover
 * @snapshot:	the job stores an image and moves nothing; then @snap
 * @pause_us:	clock_us() when the pause was asked for; 0 when none is
 * @may_us:	clock_wall_us() of "may-hand-over", a moment before the pause; of an earlier life only
 * @downtime_us: of the guest, 0 while that is not known
 * @downtime_most: it was no longer than that: the guest ran before that could be learnt
 * @first_pause_us: how long the guest stood for the first protection; 0 if it did not
 * @dma:	how memory that devices may write to is moved
 * @dma_block:	the first block of that kind, "" without
 * @dma_device:	which device does, where the driver knows, else ""
 * @phase_us:	clock_us() of the last change of state
 * @totals:	counters of the engine, as of its end
 * @tracking:	kind, "none" without
 * @injection:	how often a thread of the guest's was stood still from outside (qemu), and the longest time
 * @receipt:	what the destination said at the end, valid if @has_receipt
 */
struct migration {
	struct source *src;
	struct migration *next;
	struct source_guest *guest;
	char id[UUID_TEXT_MAX];
	uint8_t id_raw[UUID_LEN];
	char guest_name[CONF_NAME_MAX];
	uint8_t uuid[UUID_LEN];
	uint64_t generation;
	char to[MIG_HOST_MAX + MIG_PORT_MAX + 2];
	char host[MIG_HOST_MAX];
	char port[MIG_PORT_MAX];
	struct mig_options options;
	enum mig_state state;
	enum mig_stage stage;
	bool committed;
	bool left;
	bool refused;
	bool arrives_paused;
	bool held;
	char key[MIG_KEY_MAX];
	uint64_t asked;
	struct error err;
	uint64_t created_us, ended_us;
	struct conn *control;
	struct dial *dial;
	uint16_t version;
	uint64_t capabilities;
	uint8_t token[MSG_TOKEN_LEN];
	struct hooks_gate *gate;
	uint64_t precopy_us;
	struct engine *engine;
	struct journal *journal;
	struct journal_wait synced;
	void (*noted)(struct migration *m, const struct error *err);
	struct event *timer;
	struct mig_recover again;
	struct mig_mend mend;
	struct mig_resolve resolve;
	struct mig_switch sw;
	bool snapshot;
	struct mig_snap snap;
	uint64_t pause_us, phase_us;
	uint64_t first_pause_us;
	enum dma_way dma;
	char dma_block[GUEST_NAME_MAX];
	char dma_device[GUEST_DMA_MAX];
	uint64_t may_us;
	uint64_t downtime_us;
	bool downtime_most;
	struct migration_totals totals;
	const char *tracking;
	struct {
		uint64_t stops, max_us;
	} injection;
	bool has_receipt;
	struct msg_receipt receipt;
};

/* --- migration.c --- */
/** mig_event() - look the step up, set the state, do the action. @err: reason of error and lost; may be NULL */
void mig_event(struct migration *m, enum mig_event ev, const struct error *err);
/** mig_set_dma() - choose how memory that devices may write to is moved, by what is known of the guest now */
void mig_set_dma(struct migration *m);
/** mig_stage() - enter a stage: the old step's time limit ends, a new one begins (0: none) */
void mig_stage(struct migration *m, enum mig_stage stage, uint64_t timeout_us);
/** mig_answer_us() - Return: how long the destination may take for an answer while the guest runs */
static inline uint64_t mig_answer_us(const struct migration *m)
{
	return (uint64_t)m->options.answer_timeout_ms * 1000;
}
/** mig_timer() - new time limit within the stage; 0: none */
void mig_timer(struct migration *m, uint64_t timeout_us);
/** mig_fail() - event error with a text */
void mig_fail(struct migration *m, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/** mig_conn() - Return: the attached guest, NULL while there is none */
struct guest *mig_conn(const struct migration *m);
/** mig_totals() - take the counters over from the engine */
void mig_totals(const struct migration *m, struct migration_totals *t);
/** mig_publish() - tell those who look at events of the job's new state */
void mig_publish(const struct migration *m);
/** mig_to() - take "HOST[:PORT]" apart into host, port and to. Return: 0 or -EINVAL with @err filled */
int mig_to(struct migration *m, const char *to, struct error *err);
/** mig_close() - end the session: channels, dials, data threads; the counters stay */
void mig_close(struct migration *m);

/* --- mig_tell.c --- */
/** mig_tell() - @ev has changed the state, and its action comes next. @was: the one before */
void mig_tell(struct migration *m, enum mig_state was, enum mig_event ev);
/** mig_tell_resolved() - an operator has decided */
void mig_tell_resolved(const struct migration *m, enum mig_keep keep);
/** mig_tell_kept() - of a job that has ended: the guest runs here again */
void mig_tell_kept(const struct migration *m);
/** mig_tell_told() - the destination has answered, when it was told of that */
void mig_tell_told(const struct migration *m);
/** mig_tell_restarted() - the state that a job of an earlier life of the agent goes on in, or has ended in by that */
void mig_tell_restarted(struct migration *m);
/** mig_gate_arm() - precopy begins: there may be gates */
void mig_gate_arm(struct migration *m);
/** mig_gate_ask() - ENGINE_GATE */
void mig_gate_ask(struct migration *m);

/* --- mig_setup.c --- */
void mig_act_setup(struct migration *m);
/** mig_on_begun() - the journal's first record is on the disk */
void mig_on_begun(struct migration *m, const struct error *err);
void mig_hello(const struct migration *m, enum msg_channel kind, uint8_t index,
	       struct msg_hello *ret);
/** mig_dial() - begin to open a channel; Return: NULL when out of memory or threads */
struct dial *mig_dial(struct migration *m, const struct msg_hello *hello, dial_fn *fn);
void mig_on_prepared(struct migration *m);
/** mig_dial_further() - open the urgent and the bulk channels */
void mig_dial_further(struct migration *m);

/* --- mig_track.c --- */
/** mig_track() - stage TRACKING; event prepared, or snapshot, ends it */
void mig_track(struct migration *m);
engine_event_fn mig_on_engine;

/* --- mig_control.c --- */
extern const struct conn_ops mig_control_ops;
/** mig_send(), mig_send_simple() - on the control channel; a failure becomes event lost */
void mig_send(struct migration *m, const struct msg *msg);
void mig_send_simple(struct migration *m, enum msg_type type);

/* --- mig_switch.c --- */
void mig_act_switchover(struct migration *m);
void mig_act_commit(struct migration *m);
void mig_act_postcopy(struct migration *m);
/**
 * mig_pause() - enter a stage in which the guest is to stand still, and ask it to
 * @slack_us:	beyond options.switchover_timeout_ms, for the whole stage
 */
void mig_pause(struct migration *m, enum mig_stage stage, uint64_t slack_us, guest_done_fn *done);
/** mig_let_go_on() - the end of such a pause: enter @stage, within the time limit of mig_pause(), and resume the guest */
void mig_let_go_on(struct migration *m, enum mig_stage stage, guest_done_fn *done);
void mig_on_intent_ack(struct migration *m);
void mig_on_last_scan(struct migration *m);
void mig_on_sent(struct migration *m);
void mig_on_drained(struct migration *m);

/** mig_send_complete() - COMPLETE, with a time limit for the answer */
void mig_send_complete(struct migration *m, uint64_t timeout_us);

/* --- mig_save.c: snapshots --- */
void mig_act_save(struct migration *m);
/** mig_snap_name() - a name for an image that was given none */
void mig_snap_name(struct migration *m);
/** mig_snap_free() - the guest's state is of no use any more */
void mig_snap_free(struct migration *m);
void mig_snap_frozen(struct migration *m);
void mig_snap_sent(struct migration *m);
void mig_snap_drained(struct migration *m);

/* --- mig_end.c --- */
void mig_act_rollback(struct migration *m);
void mig_on_aborted(struct migration *m);
void mig_act_hold(struct migration *m);
void mig_act_abandon(struct migration *m);
void mig_act_release(struct migration *m);
void mig_act_finish(struct migration *m);
/** mig_dispose() - tell the guest, which is attached and lives elsewhere now, to end, unless it is to be kept */
void mig_dispose(struct migration *m);
/** mig_destroy() - the job, which is in no list any more, and all that it has; the guest is asked nothing */
void mig_destroy(struct migration *m);
/** mig_prune() - forget the oldest ended jobs beyond SOURCE_JOBS_MAX, and their journals, but what still holds a guest */
void mig_prune(struct source *s);

/* --- mig_doubt.c --- */
void mig_act_ask(struct migration *m);
/** mig_ask_later() - the same behind the pause that is due now */
void mig_ask_later(struct migration *m, const struct error *why);

/* --- mig_resolve.c --- */
/**
 * mig_resolve_risk() - what this decision risks, for a person
 *
 * Return: 0 with @buf; -EBUSY if it cannot be taken
 */
int mig_resolve_risk(const struct migration *m, enum mig_keep keep, char *buf, size_t cap);
/** mig_resolve_error() - the error of a job that an operator has ended */
void mig_resolve_error(const struct migration *m, struct error *ret);
/** mig_telling() - Return: whether the destination is still to be told that the guest was kept here */
bool mig_telling(const struct migration *m);
/** mig_told() - it has answered, and knows the migration */
void mig_told(struct migration *m, enum msg_answer answer);

/* --- mig_recover.c --- */
void mig_act_recover(struct migration *m);
/** mig_redial() - open a control channel for RESUME */
void mig_redial(struct migration *m);
void mig_act_resume(struct migration *m);
void mig_on_received(struct migration *m, const struct msg *msg);
void mig_on_resumed(struct migration *m, const struct msg *msg);
/** mig_on_channels() - the further channels stand, in state recovering */
void mig_on_channels(struct migration *m);

/* --- mig_channels.c --- */
/** mig_channel_lost() - ENGINE_CHANNEL: give up what is lost, and make it again */
void mig_channel_lost(struct migration *m, const struct error *why);
void mig_on_dropped(struct migration *m, const struct msg *msg);
/** mig_mend_watch() - the channels stand: from now on, is somebody at the other end of each? */
void mig_mend_watch(struct migration *m);
/** mig_mend_stop() - the session is over, or about to be: no more attempts */
void mig_mend_stop(struct migration *m);

/* --- mig_rejoin.c --- */
/** mig_keeps() - Return: whether the loss of the session in precopy need not end the job */
bool mig_keeps(const struct migration *m);
void mig_act_interrupt(struct migration *m);
void mig_act_rejoin(struct migration *m);
void mig_act_go_on(struct migration *m);
/** mig_rejoin_now() - do not wait for the next attempt */
void mig_rejoin_now(struct migration *m);
/** mig_rejoin_received() - one message of the received bitmap, which fits */
void mig_rejoin_received(struct migration *m, const struct msg_received *v);
/** mig_rejoin_resumed() - all of it is here, and nothing of the old session is placed any more */
void mig_rejoin_resumed(struct migration *m);
/**
 * mig_farewell() - the destination may keep what it has of a job that is rolled back: tell it that it need not
 *
 * It goes on with mig_on_aborted(), told or not; what could not be told then is tried again by mig_farewell_later().
 */
void mig_farewell(struct migration *m);
/** mig_farewell_later() - the job has ended: is something left to be told? */
void mig_farewell_later(struct migration *m);

/* --- mig_journal.c --- */
/** mig_releasing() - Return: whether the copy here is told to end when the journal is on the disk */
static inline bool mig_releasing(const struct migration *m)
{
	return m->state == MIG_COMPLETED && journal_waiting(&m->synced);
}
/** mig_noted_fn - a record is on the disk; or it is not, @err says why (else NULL) */
typedef void mig_noted_fn(struct migration *m, const struct error *err);
/**
 * mig_journal_open() - begin the job's journal with all that a restarted agent must know
 * @then:	as for mig_journal_then()
 */
int mig_journal_open(struct migration *m, mig_noted_fn *then, struct error *err);
/** mig_journal_note() - append a record {"type": @type} that announces nothing; synced soon. Return: 0 or -errno with @err filled */
int mig_journal_note(struct migration *m, const char *type, struct error *err);
/**
 * mig_journal_then() - append a record {"type": @type}; the step that it announces is @then
 *
 * Another record that announces a step takes the place of this one: then @then is not called. Return: 0 or -errno
 * with @err filled: then it is not called either
 */
int mig_journal_then(struct migration *m, const char *type, mig_noted_fn *then, struct error *err);
/** mig_journal_end() - the last record: state, owner, error; a failure is only logged */
void mig_journal_end(struct migration *m);
/** mig_journal_running() - the guest runs at the destination: not synced. A failure is only logged */
void mig_journal_running(struct migration *m);
/** mig_journal_resolved() - an operator's decision, of a job that may have ended. Return: 0 or -errno with @err filled */
int mig_journal_resolved(struct migration *m, enum mig_keep keep, struct error *err);
/** mig_journal_told() - what the destination said to it. Return: 0 or -errno with @err filled */
int mig_journal_told(struct migration *m, enum msg_answer answer, struct error *err);
/** mig_journal_left() - the copy of a guest that was handed over has ended; a failure is only logged */
void mig_journal_left(struct migration *m);
/** mig_journal_shut() - close it, nothing more is expected */
void mig_journal_shut(struct migration *m);
/** mig_journal_remove() - its file, for good */
void mig_journal_remove(const struct migration *m);
/** mig_journal_moved() - the destination has another address. Return: 0 or -errno with @err filled */
int mig_journal_moved(struct migration *m, const char *host, const char *port, struct error *err);

#endif
