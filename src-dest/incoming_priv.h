/* SPDX-License-Identifier: Apache-2.0 */
/* An incoming migration as the files that carry it out share it. */
#ifndef DECANT_INCOMING_PRIV_H
#define DECANT_INCOMING_PRIV_H

#include <xxhash.h>
#include "fault.h"
#include "image.h"
#include "incoming.h"
#include "place.h"
#include "receive.h"
#include "util/journal_sync.h"
#include "worker.h"

/** INCOMING_ATTACH_US - from the launch until the guest has attached itself */
#define INCOMING_ATTACH_US 10000000
/** INCOMING_SETUP_US - from HELLO until SETUP, and for each message up to the last BLOCK */
#define INCOMING_SETUP_US 10000000
/** INCOMING_SETTLE_US - from COMPLETE until pages and counts agree */
#define INCOMING_SETTLE_US 10000000
/** INCOMING_STORE_WATCH_US - silence of a channel of pages for an image, which may wait for a disk */
#define INCOMING_STORE_WATCH_US 30000000
/** INCOMING_DISCARDS_MAX - discards that may wait for the worker before reading pauses */
#define INCOMING_DISCARDS_MAX 8

/**
 * enum inc_stage - how far the preparation is, inside state advise
 * @STAGE_ADMIT:	nothing has been started
 * @STAGE_ATTACH:	launched, the guest is to attach itself
 * @STAGE_GUEST:	it is asked for what is needed of it
 * @STAGE_EMPTY:	its memory is being emptied
 * @STAGE_PREPARED:	PREPARED was sent, channels may come
 * @STAGE_MAY_OWN:	INTENT came, "may own" is being synced
 * @STAGE_INTENT:	"may own" is on the disk
 */
enum inc_stage {
	STAGE_ADMIT,
	STAGE_ATTACH,
	STAGE_GUEST,
	STAGE_EMPTY,
	STAGE_PREPARED,
	STAGE_MAY_OWN,
	STAGE_INTENT,
};

/**
 * enum inc_resuming - how far a session is that is made again, inside state running
 * @RESUMING_NOT:	it stands
 * @RESUMING_BITMAP:	RECEIVEDs are on their way out
 * @RESUMING_CHANNELS: RESUMED was sent: channels may come, then CONTINUE
 */
enum inc_resuming {
	RESUMING_NOT,
	RESUMING_BITMAP,
	RESUMING_CHANNELS,
};

/**
 * struct inc_load - the guest's state on its way into it
 * @hash:	XXH3-64 of what came
 * @bytes:	what came
 * @rest, @rest_len: a piece that the guest had no room for
 * @under_way:	guest_load() was called and is not done
 * @ended:	STATE_END came and was right
 */
struct inc_load {
	XXH3_state_t *hash;
	uint64_t bytes;
	uint8_t *rest;
	size_t rest_len;
	bool under_way;
	bool ended;
};

/**
 * struct incoming - see incoming.h
 * @d:		the daemon
 * @next:	in dest.incomings
 * @refs:	the list's, and one for each post from a thread that is under way
 * @id, @id_text: of the migration
 * @identity:	of the source: its subject alternative names
 * @from:	its address
 * @token:	that further channels present
 * @next_token:	of the session that may come after this one: the HELLO that came last has it
 * @session:	number of the session: what data threads of an earlier one say is passed over
 * @resuming:	see enum inc_resuming
 * @bitmap_block, @bitmap_page: where the bitmap goes on, in RESUMING_BITMAP
 * @version, @capabilities: agreed on
 * @state:	only incoming_event() changes it; of one that revive.h makes it begins as held
 * @stage:	inside advise
 * @control:	NULL when the session is over
 * @setup:	as it came; NULL before
 * @blocks, @nblocks: BLOCKs as they came
 * @total:	bytes of all of them
 * @guest_token: with which the guest attaches itself
  * @launcher:	of the configuration, from the admission on
 * @ask:	decant-source is asked whether the guest lives here
 * @launch:	its process, as far as we started it and it has not ended
 * @log_path:	where its output goes
 * @log_from:	what was in there before
 * @qmp:	of a QEMU: its monitor's socket
 * @look, @look_again: an attempt to find that, and the time of the next
 * @facts:	what the source's QEMU is, for qemu_facts_compare(); NULL without
 * @guest:	NULL before it attached itself and while it is disconnected
 * @timer:	bound of the stage under way, or the look whether all is there
 * @past:	its record; NULL before SETUP was admitted
 * @synced:	the step that waits for that to be on the disk
 * @store:	STORE, once it came: the session stores an image
 * @writer:	the image that is being stored
 * @restore:	the guest comes out of a stored image; NULL for all others
 * @place:	its memory; @placed once it is filled
 * @worker:	from the emptying on
 * @stop_fd:	eventfd, readable once threads shall give up waiting for the loop
 * @bulk:	receivers
 * @urgent:	the urgent channel until the fault thread takes it
 * @urgent_tally: its counts
 * @closed_bytes: payload that came on bulk channels whose receivers are stopped
 * @urgent_given: the fault thread has, or had, the urgent channel of this session
 * @dropping:	bulk channels that DROP was said of, a bit for each
 * @had_urgent:	for the view
 * @fault:	the fault thread, from the switch on
 * @discards:	pushed to the worker and not done
 * @listen_wanted: LISTEN came while discards were under way
 * @listen_postcopy: what it said
 * @load:	the guest's state
 * @complete:	COMPLETE, once it came
 * @complete_us: when it came last
 * @resumed:	the guest was let go
 * @unregistered: missing faults are off: the kernel fills holes again
 * @ending:	the guest is being ended or handed over
 * @end_event:	what led to END
 * @closing:	RECEIPT was sent; waits for the source to close
 * @receipt_ok:	for the view: 1, 0, or -1 for not yet
 * @err:	what went wrong first
 * @created_us, @ended_us: wall clock; 0 for not yet
 */
struct incoming {
	struct dest *d;
	struct incoming *next;
	_Atomic unsigned int refs;
	uint8_t id[MSG_UUID_LEN];
	char id_text[UUID_TEXT_MAX];
	char *identity;
	char *from;
	uint8_t token[MSG_TOKEN_LEN];
	uint8_t next_token[MSG_TOKEN_LEN];
	_Atomic unsigned int session;
	enum inc_resuming resuming;
	unsigned int bitmap_block;
	uint64_t bitmap_page;
	uint16_t version;
	uint64_t capabilities;
	enum inc_state state;
	enum inc_stage stage;
	struct conn *control;
	struct msg_setup *setup;
	struct msg_block *blocks;
	unsigned int nblocks;
	uint64_t total;
	uint8_t guest_token[GUEST_TOKEN_LEN];
	const struct conf_launcher *launcher;
	struct rest_call *ask;
	struct launch *launch;
	char *log_path;
	off_t log_from;
	char *qmp;
	struct qemu_attach *look;
	struct event *look_again;
	json_t *facts;
	struct guest *guest;
	struct event *timer;
	struct past *past;
	struct journal_wait synced;
	struct msg_store *store;
	struct image_writer *writer;
	struct restore *restore;
	struct place place;
	bool placed;
	struct worker *worker;
	int stop_fd;
	struct receive *bulk[MSG_CHANNELS_MAX];
	struct tls_chan *urgent;
	struct tally urgent_tally;
	uint64_t closed_bytes;
	bool urgent_given;
	unsigned int dropping;
	bool had_urgent;
	struct fault *fault;
	unsigned int discards;
	bool listen_wanted;
	bool listen_postcopy;
	struct inc_load load;
	struct msg_complete *complete;
	uint64_t complete_us;
	bool resumed;
	bool unregistered;
	bool ending;
	enum inc_event end_event;
	bool closing;
	int receipt_ok;
	struct error err;
	uint64_t created_us;
	uint64_t ended_us;
};

/* incoming.c */

/** incoming_new() - in no list yet, in state none. Return: for incoming_add() or incoming_unref(); NULL
 * when out of memory or descriptors */
struct incoming *incoming_new(struct dest *d, const uint8_t id[static MSG_UUID_LEN],
			      const char *identity, const char *from);
/** incoming_add() - to the list, which has its reference from now on */
void incoming_add(struct incoming *inc);

/**
 * incoming_event() - the only way in which the state changes: look the step up, go there, act
 * @err:	why, for the events of failure; the first one is kept; NULL for the others
 *
 * An event of failure or loss that has no row (the session was over already) is passed over.
 */
void incoming_event(struct incoming *inc, enum inc_event ev, const struct error *err);
/** incoming_fail() - incoming_event(INC_EV_FAIL) with a text. Return: -errno @r */
int incoming_failf(struct incoming *inc, int r, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/** incoming_ref() - for a post from any thread. Return: @inc */
struct incoming *incoming_ref(struct incoming *inc);
/** incoming_unref() - loop thread */
void incoming_unref(struct incoming *inc);
/** incoming_send() - queue a message on control if there is one. Return: as conn_send() */
int incoming_send(struct incoming *inc, const struct msg *m);
void incoming_send_simple(struct incoming *inc, enum msg_type type);
/** incoming_close_control() - end the session, after what is queued */
void incoming_close_control(struct incoming *inc);
/** incoming_timer() - replace the timer; @us 0 only cancels */
void incoming_timer(struct incoming *inc, uint64_t us, loop_fn *fn);
/**
 * incoming_synced() - @fn comes when the record is on the disk, or cannot be
 *
 * It takes the place of the one before, which is not called any more. Return: for history_begin() and history_note()
 */
struct journal_wait *incoming_synced(struct incoming *inc, journal_synced_fn *fn);
/** incoming_pause() - stop or go on reading control */
void incoming_pause(struct incoming *inc, bool paused);
/** incoming_admitted() - Return: whether it may come, and is not at its end: what it needs is promised to it */
static inline bool incoming_admitted(const struct incoming *inc)
{
	return inc->past && inc->state != INC_END;
}
/** incoming_remove() - off the list, its resources are gone */
void incoming_remove(struct incoming *inc);

/* incoming_msg.c */

/** incoming_take_control() - this is the session's control channel from now on */
void incoming_take_control(struct incoming *inc, struct conn *conn);

/* prepare.c: the stages of advise */

void prepare_begin(struct incoming *inc);
/** prepare_admitted() - nothing speaks against the guest: launch it */
void prepare_admitted(struct incoming *inc);
/** prepare_attached() - the launched guest is there. Return: 0, or -errno with @err filled */
int prepare_attached(struct incoming *inc, struct guest *g, struct error *err);
/**
 * prepare_place() - fill inc->place with the memory of @g, after comparing it with BLOCK
 * @again:	the states of its pages are in run_dir: an earlier life of the agent left them
 *
 * Return: 0, or -errno with @err naming the block
 */
int prepare_place(struct incoming *inc, const struct guest *g, bool again, struct error *err);
/** prepare_log_path() - where the guest's output is. Return: 0, or -errno with @err filled */
int prepare_log_path(struct incoming *inc, struct error *err);
/** prepare_guest_watch() - be told of the guest's loss */
void prepare_guest_watch(struct incoming *inc);
/* prepare_qemu.c */
/** prepare_qemu_socket() - if the guest is a QEMU: where its monitor will be. Return: 0, or -errno with
 * @err filled */
int prepare_qemu_socket(struct incoming *inc, struct error *err);
/** prepare_facts() - what placeholders of its launcher stand for; @ret_text: room for what is made for it,
 * all of it valid as long as that */
struct prepare_text {
	char memory[24], uuid[UUID_TEXT_MAX];
};
struct launch_facts prepare_facts(const struct incoming *inc, struct prepare_text *ret_text);
/** prepare_qemu_look() - if it is one: look for it; it goes on with prepare_attached() */
void prepare_qemu_look(struct incoming *inc);
/** prepare_qemu_stop() - look no longer */
void prepare_qemu_stop(struct incoming *inc);
/** prepare_qemu_end() - if it was one that has not stayed: it may not have removed its socket */
void prepare_qemu_end(struct incoming *inc);
/* admit.c */
/* What can be said before something is started: see parts.h. */
/** admit_driver() - is it a kind of guest that there is, of a name that there can be? */
int admit_driver(struct incoming *inc, struct error *err);
/** admit_host() - can this host receive such blocks? */
int admit_host(struct incoming *inc, struct error *err);
/** admit_limits() - do the limits of the configuration let it in? */
int admit_limits(struct incoming *inc, struct error *err);
/** admit_resident() - is a guest of its name or uuid here already? */
int admit_resident(struct incoming *inc, struct error *err);
/** admit_launcher() - is there something to start? It is inc->launcher then */
int admit_launcher(struct incoming *inc, struct error *err);
/** admit_blocks() - does the guest have the blocks of SETUP? @ret_index[i] is the guest's index of
 * block i. Return: 0, or -errno with @err naming the block and what differs */
int admit_blocks(const struct incoming *inc, const struct guest *g, uint16_t *ret_index,
		 struct error *err);

/* admit_source.c */
/** admit_ask_source() - ask whether the guest lives here already; goes on with prepare_admitted(), or
 * fails the incoming. Return: 0, or -errno with @err filled if it cannot be asked at all */
int admit_ask_source(struct incoming *inc, struct error *err);

/* handover.c: messages from INTENT to COMPLETE; each Return: 0, or -errno with @err filled */

int handover_intent(struct incoming *inc, const struct msg *m, struct error *err);
int handover_switch(struct incoming *inc, const struct msg *m, struct error *err);
int handover_discard(struct incoming *inc, const struct msg *m, struct error *err);
int handover_listen(struct incoming *inc, const struct msg *m, struct error *err);
int handover_commit(struct incoming *inc, const struct msg *m, struct error *err);
/* its actions */
void handover_do_discard(struct incoming *inc);
void handover_do_listen(struct incoming *inc);
void handover_do_ready(struct incoming *inc);
void handover_do_run(struct incoming *inc);
/** handover_listen_memory() - the memory is guarded, or complete; pages may be placed. See parts.h */
int handover_listen_memory(struct incoming *inc, struct error *err);
/** handover_drained() - everything queued on control is out */
void handover_drained(struct incoming *inc);
/** handover_let_go() - resume a guest that this host owns */
void handover_let_go(struct incoming *inc);

/* load.c */

/** load_begin() - have the guest take its state; STATE may come from here on */
void load_begin(struct incoming *inc);
int load_state(struct incoming *inc, const struct msg *m, struct error *err);
int load_state_end(struct incoming *inc, const struct msg *m, struct error *err);
void load_free(struct inc_load *l);
/** load_check_end() - is STATE_END right about what came? Return: 0, or -EBADMSG with @err filled */
int load_check_end(struct inc_load *l, const struct msg *m, struct error *err);

/* store.c: state storing */

/** store_folder() - path of the folder of images. Return: 0 or -ENAMETOOLONG */
int store_folder(const struct dest *d, char *out, size_t cap);
/** store_wanted() - STORE has come. Return: as the handlers of messages */
int store_wanted(struct incoming *inc, const struct msg *m, struct error *err);
int store_state(struct incoming *inc, const struct msg *m, struct error *err);
int store_state_end(struct incoming *inc, const struct msg *m, struct error *err);
int store_complete(struct incoming *inc, const struct msg *m, struct error *err);
/* its actions */
void store_begin(struct incoming *inc);
void store_do_stored(struct incoming *inc);
/** store_closed() - the source has closed after the receipt */
void store_closed(struct incoming *inc);

/* restore.c: out of a stored image, each step begun by the end of the one before */

struct restore;
/** restore_fault_ops - for the fault thread: pages come out of the image */
extern const struct fault_ops restore_fault_ops;
/** restore_prepared() - the guest stands and its memory is empty */
void restore_prepared(struct incoming *inc);
/** restore_feed() - give the guest more of its state, if it has room */
void restore_feed(struct incoming *inc);
/** restore_ready() - it has its state: let it run */
void restore_ready(struct incoming *inc);
/** restore_not_run() - it could not be let go: end it, and the session with @why */
void restore_not_run(struct incoming *inc, const struct error *why);
/** restore_fill() - it runs: fill in what it has not touched */
void restore_fill(struct incoming *inc);
/** restore_record() - Return: what restore_again() wants to know, new reference; NULL without memory */
json_t *restore_record(const struct restore *rs);
/**
 * restore_again() - @inc, whose blocks are filled, was being restored by an earlier life of this agent
 * @name, @id:	of the image, as restore_record() has said
 *
 * Return: 0; -ENOENT or -ESTALE: that image is not there any more; or -errno; with @err filled. What was
 * begun goes with @inc, but for its worker
 */
int restore_again(struct incoming *inc, const char *name, const char *id, struct error *err);
/** restore_name() - Return: of the image */
const char *restore_name(const struct restore *rs);
/** restore_free() - NULL is fine */
void restore_free(struct restore *rs);

/* settle.c: the ends */

int settle_complete(struct incoming *inc, const struct msg *m, struct error *err);
void settle_do_settle(struct incoming *inc);
void settle_do_hold(struct incoming *inc);
void settle_do_bury(struct incoming *inc);
void settle_do_discard_guest(struct incoming *inc);
/** settle_parts_gone() - the guest or its process is gone: is that all that was waited for? */
void settle_parts_gone(struct incoming *inc);
/** settle_control_closed() - the source has closed after the receipt */
void settle_control_closed(struct incoming *inc);
/** settle_look() - are all pages here, and do the counts agree? */
void settle_look(struct incoming *inc);
/** settle_frames_agree() - are the counts in COMPLETE those of the frames that came? */
bool settle_frames_agree(const struct incoming *inc);
/** settle_release() - the end of the incoming: its files, threads and channels */
void settle_release(struct incoming *inc);
/** settle_stop_threads() - data threads and worker; channels end */
void settle_stop_threads(struct incoming *inc);

/* incoming_view.c: what micro_view.c and meter.c show, too */

/** incoming_view_phase() - Return: as clients see it */
const char *incoming_view_phase(const struct incoming *inc);
/** incoming_view_received() - Return: bytes of pages that came */
uint64_t incoming_view_received(const struct incoming *inc);

/** incoming_publish() - tell those who look at events of a new state, before its action; @was: the one before */
void incoming_publish(const struct incoming *inc, enum inc_state was);
/** incoming_view_memory() - @total: bytes; @came: payload that came. Return: new reference */
json_t *incoming_view_memory(const struct place *p, uint64_t total, uint64_t came);
/** incoming_view_postcopy() - Return: new reference */
json_t *incoming_view_postcopy(const struct place *p);

/* incoming_tell.c */

/** incoming_tell() - others hear that @ev has changed the state, before its action. @was: the one before */
void incoming_tell(struct incoming *inc, enum inc_state was, enum inc_event ev);
/** incoming_tell_again() - that it goes on after a restart; what it was in before nobody knows */
void incoming_tell_again(const struct incoming *inc);

/* resume.c: a session after the one that was lost */

/** resume_lost_event() - Return: the event that the loss of the control channel is */
enum inc_event resume_lost_event(const struct incoming *inc);
/** resume_keep() - the action: what has arrived waits for another session */
void resume_keep(struct incoming *inc);
/** resume_begin() - the action: send the received bitmap */
void resume_begin(struct incoming *inc);
/** resume_drained() - everything queued on control is out */
void resume_drained(struct incoming *inc);
int resume_continue(struct incoming *inc, const struct msg *m, struct error *err);

/* bridge.c: from data threads to the loop */

extern const struct fault_ops bridge_fault_ops;
receive_end_fn bridge_receive_end;
place_punch_fn bridge_punch;

#endif
