/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One incoming migration: a session with a source, from its HELLO until the guest has settled here,
 * or is gone. The states are those of PROTOCOL.md section 9; nothing but incoming_event() changes
 * them. Loop thread only, unless a function says otherwise.
 */
#ifndef DECANT_INCOMING_H
#define DECANT_INCOMING_H

#include <jansson.h>
#include "conn.h"
#include "dest.h"
#include "msg.h"
#include "state.h"

struct incoming;
struct past;

/**
 * incoming_open() - a source has said HELLO for a new control channel
 * @conn:	taken over on success; HELLO_ACK is sent
 * @h:		its HELLO, version and kind checked
 * @capabilities: those that both sides have
 *
 * Return: 0, or -errno with @err filled: the caller answers ERROR
 */
int incoming_open(struct dest *d, struct conn *conn, const struct msg_hello *h,
		  uint64_t capabilities, struct error *err);
/**
 * incoming_local() - one that no source is at the other end of (restore.c)
 * @from:	where it comes from, for the view
 *
 * Return: 0 with @ret in the list, or -errno with @err filled: the limit is reached
 */
int incoming_local(struct dest *d, const char *from, struct incoming **ret, struct error *err);
/**
 * incoming_tell_past() - hooks and the audit hear how one of an earlier life has ended, a micro-VM as well
 * @now:	its phase, "aborted" or "failed"
 * @code, @why:	of the error
 */
void incoming_tell_past(struct dest *d, const struct past *p, const char *now, const char *code,
			const char *why);
/** incoming_tell_aborted() - the same of all that were aborted when the agent was started */
void incoming_tell_aborted(struct dest *d);
/** incoming_id() - Return: of the migration, as text */
const char *incoming_id(const struct incoming *inc);
/**
 * restore_begin() - start a guest out of the stored image @name
 *
 * Return: 0 with its incoming; -ENOENT; -EBADMSG for a damaged image; -EBUSY if it is refused; or
 * another -errno; with @err filled
 */
int restore_begin(struct dest *d, const char *name, struct incoming **ret, struct error *err);
/** incoming_find() - by migration id. Return: NULL if there is none */
struct incoming *incoming_find(struct dest *d, const uint8_t id[static MSG_UUID_LEN]);
/**
 * incoming_may_join() - may this further channel come in now?
 * @identity:	who is at its other end
 *
 * Return: 0, or -errno with @err filled: bad-token (also for the wrong identity) or
 * unexpected-message
 */
int incoming_may_join(const struct incoming *inc, const struct msg_hello *h, const char *identity,
		      struct error *err);
/** incoming_join() - a channel whose HELLO was answered; @chan is taken over, also on failure. Return:
 * 0 or -errno with @err filled */
int incoming_join(struct incoming *inc, enum msg_channel kind, unsigned int index,
		  struct tls_chan *chan, struct error *err);
/**
 * incoming_may_resume() - a control channel has said HELLO for a migration that is here already
 * @ret_token:	for HELLO_ACK, and for incoming_resume()
 *
 * Changes nothing but which channel may RESUME: the one that said HELLO last. Return: 0, or -errno with
 * @err filled
 */
int incoming_may_resume(struct incoming *inc, const char *identity,
			uint8_t ret_token[static MSG_TOKEN_LEN], struct error *err);
/**
 * incoming_resume() - RESUME came on such a channel: it is the session's from now on
 * @conn:	taken over on success
 * @h:		its HELLO
 * @capabilities: those that both sides have
 *
 * Return: 0, or -errno with @err filled: what stood before stands
 */
int incoming_resume(struct incoming *inc, struct conn *conn, const struct msg_hello *h,
		    const uint8_t token[static MSG_TOKEN_LEN], const struct msg_resume *m,
		    uint64_t capabilities, struct error *err);
/** incoming_version() - Return: of the protocol, as agreed on */
uint16_t incoming_version(const struct incoming *inc);
/** incoming_capabilities() - Return: those agreed on */
uint64_t incoming_capabilities(const struct incoming *inc);
/**
 * incoming_query() - a source in doubt asks; what is before COMMIT ends here and now
 * Return: enum msg_answer
 */
enum msg_answer incoming_query(struct incoming *inc, const char *identity, uint64_t generation);

/**
 * incoming_attach() - a guest has attached itself: is it this incoming's?
 * @ret_mine:	whether it is; only then the return value means anything
 *
 * Return: 0: @g is the incoming's; -errno with @err filled: it is refused
 */
int incoming_attach(struct incoming *inc, struct guest *g, bool *ret_mine, struct error *err);

/** incoming_end() - the agent ends: abort what is before COMMIT, leave the rest held */
void incoming_end(struct incoming *inc);
/** incoming_drop() - let go of one that is held, at the agent's end: its guest keeps waiting */
void incoming_drop(struct incoming *inc);

/** incoming_next() - Return: next in dest.incomings */
struct incoming *incoming_next(const struct incoming *inc);
/** incoming_state() - Return: its state */
enum inc_state incoming_state(const struct incoming *inc);
/** incoming_memory() - Return: bytes of all its blocks, 0 before SETUP */
uint64_t incoming_memory(const struct incoming *inc);
/** incoming_count_of() - Return: how many there are from this identity */
unsigned int incoming_count_of(const struct dest *d, const char *identity);
/** incoming_is_guest() - Return: whether it is about the guest of that name or uuid and not at its
 * end */
bool incoming_is_guest(const struct incoming *inc, const char *name,
		       const uint8_t uuid[static MSG_UUID_LEN]);
/** incoming_past() - Return: its record, NULL before SETUP */
struct past *incoming_past(const struct incoming *inc);
/** incoming_view() - Return: new reference to the object of the REST interface, NULL without memory */
json_t *incoming_view(const struct incoming *inc);
struct rest_events;
/** incoming_show() - to those who look at events: how far each is (a rest_events_progress_fn; @arg: struct dest) */
void incoming_show(struct rest_events *ev, void *arg);

#endif
