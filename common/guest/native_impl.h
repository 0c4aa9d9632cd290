/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the native driver: native.c (connection, requests), native_ops.c, native_state.c (pipes). */
#ifndef DECANT_GUEST_NATIVE_IMPL_H
#define DECANT_GUEST_NATIVE_IMPL_H

#include <event2/buffer.h>
#include <event2/event.h>

#include "guest/native.h"

#define NATIVE_TIMEOUT_MS        30000u  /* most requests */
#define NATIVE_STATE_TIMEOUT_MS  60000u  /* SAVE, LOAD */
#define NATIVE_FINISH_TIMEOUT_MS 600000u /* locking may have to bring all memory in */
#define NATIVE_PAUSE_SLACK_MS    1000u   /* after the bound that the library itself keeps */
#define NATIVE_DEATH_MS          200u    /* from the end of the connection to that of the process */
#define NATIVE_REQUESTS_MAX      256
#define NATIVE_TOLD_MAX          2048u /* a second: twice what 256 vCPU threads and more have to tell */
#define NATIVE_FEED_HIGH         (1u << 20)
#define NATIVE_FEED_LOW          (256u << 10)

struct native;

/**
 * struct native_request - one request on its way
 * @next:	in order of sending
 * @n:		its guest
 * @id, @type:	on the wire
 * @done, @arg:	whom to tell; NULL once told (then only the late DONE is waited for), or if nobody cares
 * @answered:	DONE has come, or cannot come any more: goes when it is completed
 * @timer:	bound
 * @keep, @tag:	UFFD: what was asked for
 * @identity:	IDENTITY: what is set
 */
struct native_request {
	struct native_request *next;
	struct native *n;
	uint32_t id;
	uint16_t type;
	guest_done_fn *done;
	void *arg;
	bool answered;
	struct event *timer;
	bool keep;
	uint32_t tag;
	struct gwire_identity identity;
};

/** struct native_packet - a packet that the socket had no room for; owns @fd */
struct native_packet {
	struct native_packet *next;
	int fd;
	size_t len;
	uint8_t data[];
};

/**
 * struct native_save - a SAVE under way; idle while @request is 0
 * @request:	id of the SAVE
 * @fd, @event:	read end of the pipe; -1 at its end
 * @answered:	DONE 0 has come, saying @said bytes
 * @cancel:	done with this error as soon as we are back in the loop
 */
struct native_save {
	uint32_t request;
	int fd;
	struct event *event;
	guest_chunk_fn *chunk;
	void *arg;
	uint64_t total;
	bool answered;
	uint64_t said;
	int cancel;
};

/**
 * struct native_load - a LOAD under way; idle while @request is 0
 * @fd, @event:	write end of the pipe; -1 once it is closed
 * @buffer:	fed and not yet written
 * @ended:	guest_load_end() was called
 * @want_room:	a feed was turned away
 */
struct native_load {
	uint32_t request;
	int fd;
	struct event *event;
	struct evbuffer *buffer;
	guest_room_fn *room;
	void *arg;
	uint64_t total;
	bool ended;
	bool want_room;
};

/**
 * struct native - a native guest; everything on the loop's thread
 * @g:		what the agent sees
 * @sock:	-1 before native_start() and after the connection has ended
 * @death:	bounds the wait for the process's end
 * @told, @told_us: messages that nobody had asked for, and since when they are counted
 * @depth:	callbacks that are running on it
 * @freed:	guest_free() came inside one: release at the outermost
 * @lost:	the connection has ended
 * @reported:	the gone callback has been called
 */
struct native {
	struct guest g;
	int sock;
	struct event *ev_read;
	struct event *ev_write;
	struct event *ev_pidfd;
	struct event *death;
	struct native_request *requests;
	size_t nrequests;
	struct native_packet *out;
	uint32_t next_id;
	uint8_t *packet;
	struct native_save save;
	struct native_load load;
	unsigned int told;
	uint64_t told_us;
	unsigned int depth;
	bool freed;
	bool lost;
	bool reported;
};

static inline struct native *native_of(struct guest *g)
{
	return (struct native *)g; /* @g is its first member */
}

/** native_enter() - a callback may free the guest: hold on to it until native_leave() */
void native_enter(struct native *n);
/** native_leave() - Return: false if the guest is gone now, touch nothing of it any more */
bool native_leave(struct native *n);

/** native_free() - guest_ops.free */
void native_free(struct guest *g);

/**
 * native_ask() - send a request
 * @m:		id and nfds are filled in here
 * @fd:		to go with it or -1; stays the caller's
 * @ret:	the request, for what only some types have; may be NULL
 *
 * Return: 0; -ECONNRESET when the guest is lost; -EBUSY with too many outstanding; -ENOMEM
 */
int native_ask(struct native *n, struct gwire_msg *m, int fd, unsigned int timeout_ms,
	       guest_done_fn *done, void *arg, struct native_request **ret);
/** native_tell() - send a message without an answer. Return: as native_ask() */
int native_tell(struct native *n, const struct gwire_msg *m, int fd);
/**
 * native_complete() - tell whoever asked, if he still waits; forget the request if it was answered
 * @fd:		handed over, or closed if nobody wants it
 *
 * May free the guest: between native_enter() and native_leave() only.
 */
void native_complete(struct native *n, uint32_t id, int ret, const struct error *err, int fd);

/* native_ops.c */
extern const struct guest_ops native_ops;
/** native_ops_late() - DONE of a request that was given up: undo what it did. @fd is the caller's */
void native_ops_late(struct native *n, const struct native_request *r, const struct gwire_done *d);
/** native_ops_given_up() - its time has run out */
void native_ops_given_up(struct native *n, const struct native_request *r);

/* native_state.c */
int native_state_save(struct guest *g, guest_chunk_fn *chunk, guest_done_fn *done, void *arg);
void native_state_save_more(struct guest *g);
int native_state_load(struct guest *g, bool paused, guest_room_fn *room, guest_done_fn *done,
		      void *arg);
int native_state_load_feed(struct guest *g, const void *p, size_t n);
int native_state_load_end(struct guest *g);
/** native_state_cancel_save() - give up a save; its done comes from the loop */
void native_state_cancel_save(struct native *n, int ret);
/** native_state_done() - DONE of SAVE or LOAD. Return: true if the request is finished with it */
bool native_state_done(struct native *n, uint16_t type, const struct gwire_done *d);
/** native_state_over() - request @id has been completed, however: close its pipe */
void native_state_over(struct native *n, uint32_t id);

#endif
