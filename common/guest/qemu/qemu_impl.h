/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the qemu driver: qemu.c (connection, operations under way, events), qemu_find.c (attaching),
 * qemu_facts.c, qemu_disks.c, qemu_look.c (who writes to its memory), qemu_ops.c, qemu_uffd.c (injection),
 * qemu_stream.c (device state), qemu_settings.c (of QEMU's own migration), qemu_private.c (memory that is not shared).
 */
#ifndef DECANT_GUEST_QEMU_QEMU_IMPL_H
#define DECANT_GUEST_QEMU_QEMU_IMPL_H

#include <event2/buffer.h>
#include <event2/event.h>

#include "guest/qemu/qemu.h"
#include "guest/qemu/qmp.h"
#include "util/errand.h"

#define QEMU_TIMEOUT_MS       30000u /* most commands */
#define QEMU_QUERY_MS         10000u /* what QEMU answers at once or not at all */
#define QEMU_STATE_TIMEOUT_MS 60000u /* saving, loading */
#define QEMU_DEATH_MS         200u   /* from the end of the connection to that of the process */
#define QEMU_FEED_HIGH        (1u << 20)
#define QEMU_FEED_LOW         (256u << 10)

/** QEMU_LOOKS - questions of a look at its devices */
#define QEMU_LOOKS 8

/** QEMU_ADVISED_HUGE - transparent huge pages; QEMU_ADVISED_MERGE: merging of equal pages (KSM) */
#define QEMU_ADVISED_HUGE  1u
#define QEMU_ADVISED_MERGE 2u

#define QEMU_HOLD     "decant-hold"
#define QEMU_KEPT     "decant-uffd"
#define QEMU_ARRIVING "decant-arriving"
#define QEMU_SETTINGS "decant-settings"
/** QEMU_STATE_FD, QEMU_DEVICE_FD - names by which QEMU is given descriptors */
#define QEMU_STATE_FD  "decant-state"
#define QEMU_DEVICE_FD "decant-userfaultfd"
/** QEMU_UFFD_LINK - what a userfaultfd is in /proc/PID/fd */
#define QEMU_UFFD_LINK "anon_inode:[userfaultfd]"

struct qemu;
struct qemu_op;

/**
 * qemu_step_fn - the command that an operation waits for was answered
 *
 * Goes on with the next command, or ends the operation (qemu_op_end()).
 */
typedef void qemu_step_fn(struct qemu_op *op, int ret, const json_t *result,
			  const struct error *err);

/**
 * struct qemu_op - an operation under way
 * @done, @arg:	whom to tell
 * @step:	what comes after the answer that is waited for
 * @asking:	and whether one is
 * @timer:	of qemu_op_later()
 * @later:	what it calls
 * @errand:	work of a thread
 * @keep, @tag:	what was asked for
 * @number:	of a descriptor there
 * @fd:		a descriptor of ours; owned
 * @how:	how it was made
 * @us:		for how long a thread of QEMU's stood
 * @pushed:	it was hurried meanwhile
 * @until_us:	clock_us() until when it is tried again
 * @uuid, @generation: the new identity
 * @block, @ranges, @nranges: holes to make; owned
 * @got, @at:	of a look at its devices: answers so far, and the question that waits for one
 */
struct qemu_op {
	struct qemu_op *next;
	struct qemu *v;
	guest_done_fn *done;
	void *arg;
	qemu_step_fn *step;
	bool asking;
	struct event *timer;
	void (*later)(struct qemu_op *op);
	struct errand errand;
	bool keep;
	uint32_t tag;
	int number;
	int fd;
	enum guest_uffd_how how;
	uint64_t us;
	bool pushed;
	uint64_t until_us;
	uint8_t uuid[GUEST_UUID_LEN];
	uint64_t generation;
	uint16_t block;
	struct guest_range *ranges;
	size_t nranges;
	json_t *got[QEMU_LOOKS];
	unsigned int at;
};

/**
 * struct qemu_stream - device state on its way out or in; idle while @op is NULL
 * @op:		the operation that it belongs to
 * @fd, @event:	our end of the pipe; -1 at its end
 * @migrating:	QEMU was told to, and has not said that it has ended; stands longer than @op
 * @total:	bytes so far
 * @chunk:	saving: takes the pieces
 * @given_up:	saving: the reason, once it was
 * @buffer:	loading: fed and not yet written
 * @room:	loading
 * @ended:	loading: guest_load_end() was called
 * @want_room:	loading: a feed was turned away
 * @loaded:	loading: QEMU says that it has all it wants
 * @file:	saving private memory's: what QEMU has written; -1 without
 * @size:	of it
 * @head, @nhead: what goes before all but the first 8 bytes of it
 * @waits:	saving private memory's: a piece was accepted as the last for now
 */
struct qemu_stream {
	struct qemu_op *op;
	int fd;
	struct event *event;
	bool migrating;
	uint64_t total;
	guest_chunk_fn *chunk;
	int given_up;
	struct evbuffer *buffer;
	guest_room_fn *room;
	bool ended;
	bool want_room;
	bool loaded;
	int file;
	uint64_t size;
	uint8_t head[256];
	size_t nhead;
	bool waits;
};

/**
 * struct qemu - a virtual machine; everything on the loop's thread but what an errand is given
 * @g:		what the agent sees
 * @attach:	while it is being attached
 * @path:	of the monitor
 * @no_dma:	see struct qemu_spec; NULL without
 * @anonymous:	see struct qemu_spec
 * @vhost_tried: whether writes of vhost-net are seen was tried; if so they are in @no_dma
 * @held:	it stands because of guest_pause(), or was loaded and not let go
 * @go_on:	lifting that lets it run: it ran before, or is to run when it has arrived
 * @arriving:	it was loaded here and not let go yet
 * @resuming:	it is being let go
 * @kept_fd:	number of the kept userfaultfd there; -1 without
 * @advised:	what guest_prepare() took off each block, QEMU_ADVISED_*; NULL before
 * @changed:	migration settings of QEMU's were changed, and a note of that is there
 * @old_settings: those that are changed, as they were found: "capabilities", "parameters"
 * @ops:	operations under way
 * @stream:	of at most one of them
 * @death:	bounds the wait for the process's end
 * @depth:	callbacks that are running on it
 * @freed:	guest_free() came inside one: release at the outermost
 * @lost:	the connection has ended
 * @reported:	the gone callback has been called
 */
struct qemu {
	struct guest g;
	struct qemu_attach *attach;
	struct qmp *qmp;
	char *path;
	char *no_dma;
	bool anonymous;
	bool vhost_tried;
	struct event *ev_pidfd;
	struct event *death;
	bool held;
	bool go_on;
	bool arriving;
	bool resuming;
	int kept_fd;
	uint8_t *advised;
	bool changed;
	json_t *old_settings;
	struct qemu_op *ops;
	struct qemu_stream stream;
	unsigned int depth;
	bool freed;
	bool lost;
	bool reported;
};

static inline struct qemu *qemu_of(struct guest *g)
{
	return (struct qemu *)g; /* @g is its first member */
}

/* --- qemu.c --- */
extern const struct guest_ops qemu_ops;
/** qemu_new() - without connection or process. Return: NULL when out of memory */
struct qemu *qemu_new(struct loop *loop, const struct qemu_spec *spec);
/** qemu_connect() - open the monitor. Return: 0, or -errno with @err filled */
int qemu_connect(struct qemu *v, struct error *err);
/** qemu_watch_process() - once its pidfd is known. Return: 0 or -ENOMEM */
int qemu_watch_process(struct qemu *v);
/** qemu_free() - guest_ops.free */
void qemu_free(struct guest *g);
/** qemu_enter() - a callback may free the guest: hold on to it until qemu_leave() */
void qemu_enter(struct qemu *v);
/** qemu_leave() - Return: false if the guest is gone now, touch nothing of it any more */
bool qemu_leave(struct qemu *v);
/** qemu_set_state() - set guest.run_state and tell if it has changed */
void qemu_set_state(struct qemu *v, enum guest_run_state s);
/** qemu_leave_monitor() - end the connection by our own wish; the guest is then GUEST_GONE_DISCONNECTED */
void qemu_leave_monitor(struct qemu *v);

/** qemu_op_new() - Return: NULL when out of memory or the connection is lost: qemu_op_refused() */
struct qemu_op *qemu_op_new(struct qemu *v, guest_done_fn *done, void *arg);
/** qemu_op_refused() - Return: why there is none: -ECONNRESET or -ENOMEM */
int qemu_op_refused(const struct qemu *v);
/** qemu_op_drop() - it cannot begin: the caller returns the error. Return: @ret */
int qemu_op_drop(struct qemu_op *op, int ret);
/** qemu_op_end() - tell whoever asked; the last thing that is done with it. @fd is handed over */
void qemu_op_end(struct qemu_op *op, int ret, const struct error *err, int fd);
/** qemu_op_failf() - qemu_op_end() with a message of our own */
void qemu_op_failf(struct qemu_op *op, int ret, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/** qemu_op_ask() - send a command, go on with @step. @args is taken over. Return: as qmp_ask() */
int qemu_op_ask(struct qemu_op *op, const char *command, json_t *args, int fd, unsigned int ms,
		qemu_step_fn *step);
/** qemu_op_go() - qemu_op_ask() in the middle of an operation: a failure ends it */
void qemu_op_go(struct qemu_op *op, const char *command, json_t *args, qemu_step_fn *step);
/** qemu_op_later() - go on from the loop, after @us. Return: 0 or -ENOMEM */
int qemu_op_later(struct qemu_op *op, uint64_t us, void (*fn)(struct qemu_op *op));
/** qemu_tell() - a command whose answer nobody waits for; @args is taken over */
void qemu_tell(struct qemu *v, const char *command, json_t *args);

/* --- qemu_find.c --- */
/** qemu_attach_ready() - the monitor takes commands */
void qemu_attach_ready(struct qemu_attach *a);
/** qemu_attach_failed() - the connection or the process has ended meanwhile */
void qemu_attach_failed(struct qemu_attach *a, const struct error *why);

/* --- qemu_facts.c: what QEMU says of itself --- */
/**
 * enum qemu_query - answers that are gathered when attaching
 */
enum qemu_query {
	QEMU_Q_STATUS,
	QEMU_Q_MEMDEVS,
	QEMU_Q_MTREE,
	QEMU_Q_NETWORK,
	QEMU_Q_MIGRATE,
	QEMU_Q_NODES,
	QEMU_Q_BLOCK,
	QEMU_Q_CPUS,
	QEMU_Q_KVM,
	QEMU_Q_UUID,
	QEMU_Q_PCI,
	QEMU_Q_MACHINE,
	QEMU_Q_DEVICES,
	QEMU_Q_ANON_DEVICES,
	QEMU_Q_OBJECTS,
	QEMU_Q_HOLD,
	QEMU_Q_KEPT,
	QEMU_Q_ARRIVING,
	QEMU_Q_SETTINGS,
	QEMU_Q_CAPS,
	QEMU_Q_PARAMS,
	QEMU_Q_RAMBLOCKS,
	QEMU_Q_FEATURES, /* asked for in a second round */
	QEMU_Q_COUNT,
};

/**
 * qemu_facts() - what the destination's QEMU has to have as well
 * @got:	answers, NULL for what QEMU could not tell
 *
 * Return: new reference to an object of strings, NULL when out of memory
 */
json_t *qemu_facts(const struct qemu *v, json_t *const got[QEMU_Q_COUNT]);
/** qemu_facts_again() - devices and disks come and go: put those of @facts right, by new answers */
void qemu_facts_again(json_t *facts, json_t *const got[QEMU_Q_COUNT]);

/* --- qemu_look.c: its devices --- */
/** qemu_look_first() - when attaching: fill guest.cannot, guest.dma and the flags of its blocks by the answers */
void qemu_look_first(struct qemu *v, json_t *const got[QEMU_Q_COUNT]);
/** qemu_look_again() - guest_ops.look */
int qemu_look_again(struct guest *g, guest_done_fn *done, void *arg);
/**
 * qemu_look_stands() - does it still read only as was known when the migration began?
 *
 * Return: 0, or -EBUSY with @err naming the device
 */
int qemu_look_stands(struct qemu *v, struct error *err);

/* --- qemu_disks.c --- */
/** qemu_disks_facts() - add those of the drives; @list: answer to query-block */
void qemu_disks_facts(json_t *facts, const json_t *list);

/* --- qemu_settings.c --- */
/**
 * qemu_settings_found() - when attaching
 * @caps, @params: QEMU's migration settings
 * @note:	what an agent has noted in QEMU; NULL without
 *
 * Return: 0, or -EOPNOTSUPP if QEMU does not have those that are needed
 */
int qemu_settings_found(struct qemu *v, const json_t *caps, const json_t *params, const char *note);
/** qemu_settings_change() - for a stream that goes out, or comes in; waits for nothing */
void qemu_settings_change(struct qemu *v, bool loading);
/** qemu_settings_restore() - as they were found; once no migration is under way. Harmless if they are */
void qemu_settings_restore(struct qemu *v);

/* --- qemu_private.c --- */
/** qemu_private() - Return: whether memory of it is private to its process */
bool qemu_private(const struct qemu *v);
/**
 * qemu_private_judge() - does it have memory that would be left behind?
 * @ramblocks:	answer to "info ramblock"; NULL without
 *
 * Return: 0, or -EOPNOTSUPP with @err naming it
 */
int qemu_private_judge(const struct qemu *v, const json_t *ramblocks, struct error *err);
/** qemu_private_save() - qemu_stream_save() for private memory. Return: as qemu_op_ask() */
int qemu_private_save(struct qemu_op *op);
void qemu_private_save_more(struct qemu *v);
int qemu_private_punch(struct guest *g, uint16_t block, const struct guest_range *ranges, size_t n,
		       guest_done_fn *done, void *arg);

/* --- operations --- */
/** qemu_ops_note_hold() - note in QEMU that it stands because of us, and whether it is to go on */
void qemu_ops_note_hold(struct qemu *v);
int qemu_ops_pause(struct guest *g, uint32_t bound_ms, guest_done_fn *done, void *arg);
int qemu_ops_resume(struct guest *g, guest_done_fn *done, void *arg);
int qemu_ops_set_identity(struct guest *g, const uint8_t uuid[GUEST_UUID_LEN], uint64_t generation,
			  guest_done_fn *done, void *arg);
int qemu_ops_move(struct guest *g, const char *path, guest_done_fn *done, void *arg);
int qemu_ops_quit(struct guest *g, guest_done_fn *done, void *arg);
int qemu_uffd_make(struct guest *g, bool keep, uint32_t tag, guest_done_fn *done, void *arg);
int qemu_uffd_again(struct guest *g, guest_done_fn *done, void *arg);
int qemu_uffd_close(struct guest *g, guest_done_fn *done, void *arg);
int qemu_uffd_prepare(struct guest *g, guest_done_fn *done, void *arg);
int qemu_uffd_finish(struct guest *g, guest_done_fn *done, void *arg);
int qemu_stream_save(struct guest *g, guest_chunk_fn *chunk, guest_done_fn *done, void *arg);
void qemu_stream_save_more(struct guest *g);
int qemu_stream_load(struct guest *g, bool paused, guest_room_fn *room, guest_done_fn *done,
		     void *arg);
int qemu_stream_load_feed(struct guest *g, const void *p, size_t n);
int qemu_stream_load_end(struct guest *g);
/** qemu_stream_cancel_save() - give up a save; its done comes from the loop */
void qemu_stream_cancel_save(struct qemu *v, int ret);
/** qemu_stream_over() - operation @op has ended, however: close its pipe */
void qemu_stream_over(struct qemu *v, const struct qemu_op *op);
/** qemu_stream_running() - Return: whether a migration of QEMU's may still be under way */
bool qemu_stream_running(const struct qemu *v);
/** qemu_stream_heard() - QEMU said that its migration has this status. Return: whether it is over */
bool qemu_stream_heard(struct qemu *v, const char *status);
/** qemu_stream_event() - QEMU tells @status of a migration */
void qemu_stream_event(struct qemu *v, const char *status);

#endif
