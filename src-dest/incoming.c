/* SPDX-License-Identifier: Apache-2.0 */
#include "incoming.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include "channels.h"
#include "incoming_priv.h"
#include "meter.h"
#include "rest/rest_client.h"
#include "room.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/fdio.h"
#include "util/log.h"

/* --- life --- */

static void incoming_free(struct incoming *inc)
{
	prepare_qemu_stop(inc);
	conn_free(inc->control);
	rest_call_cancel(inc->ask);
	tls_chan_free(inc->urgent);
	guest_free(inc->guest);
	launch_free(inc->launch);
	load_free(&inc->load);
	image_writer_free(inc->writer);
	restore_free(inc->restore);
	free(inc->store);
	if (inc->timer)
		event_free(inc->timer);
	if (inc->stop_fd >= 0)
		close(inc->stop_fd);
	free(inc->identity);
	free(inc->from);
	free(inc->log_path);
	free(inc->qmp);
	json_decref(inc->facts);
	free(inc->setup);
	free(inc->blocks);
	free(inc->complete);
	free(inc);
}

struct incoming *incoming_ref(struct incoming *inc)
{
	atomic_fetch_add(&inc->refs, 1);
	return inc;
}

void incoming_unref(struct incoming *inc)
{
	if (atomic_fetch_sub(&inc->refs, 1) == 1)
		incoming_free(inc);
}

void incoming_remove(struct incoming *inc)
{
	struct dest *d = inc->d;
	struct incoming **at = &d->incomings;

	while (*at && *at != inc)
		at = &(*at)->next;
	if (!*at)
		return;
	*at = inc->next;
	journal_wait_cancel(&inc->synced);
	d->n_incomings--;
	incoming_unref(inc);
	dest_maybe_ended(d);
}

struct incoming *incoming_find(struct dest *d, const uint8_t id[static MSG_UUID_LEN])
{
	struct incoming *inc = d->incomings;

	while (inc && memcmp(inc->id, id, MSG_UUID_LEN) != 0)
		inc = inc->next;
	return inc;
}

/* --- small help --- */

int incoming_send(struct incoming *inc, const struct msg *m)
{
	int r = inc->control ? conn_send(inc->control, m) : 0;

	if (r)
		log_warn("incoming %s: %s not sent: %s", inc->id_text, msg_type_name(m->type),
			 strerror(-r));
	return r;
}

void incoming_send_simple(struct incoming *inc, enum msg_type type)
{
	int r = inc->control ? conn_send_simple(inc->control, type) : 0;

	if (r)
		log_warn("incoming %s: %s not sent: %s", inc->id_text, msg_type_name(type),
			 strerror(-r));
}

void incoming_close_control(struct incoming *inc)
{
	if (inc->control)
		dest_close(inc->d, steal_ptr(&inc->control));
}

void incoming_pause(struct incoming *inc, bool paused)
{
	if (inc->control)
		conn_pause(inc->control, paused);
}

void incoming_timer(struct incoming *inc, uint64_t us, loop_fn *fn)
{
	if (inc->timer)
		event_free(inc->timer);
	inc->timer = us ? loop_timer(inc->d->loop, us, fn, inc) : NULL;
	if (us && !inc->timer)
		log_error("incoming %s: out of memory, a step is without its time limit",
			  inc->id_text);
}

struct journal_wait *incoming_synced(struct incoming *inc, journal_synced_fn *fn)
{
	journal_wait_cancel(&inc->synced);
	inc->synced.fn = fn;
	inc->synced.arg = inc;
	return &inc->synced;
}

int incoming_failf(struct incoming *inc, int r, const char *code, const char *fmt, ...)
{
	struct error err = {0};
	va_list ap;

	va_start(ap, fmt);
	error_setv(&err, r, code, fmt, ap);
	va_end(ap);
	incoming_event(inc, INC_EV_FAIL, &err);
	return r;
}

/* --- events --- */

typedef void action_fn(struct incoming *inc);

static action_fn *const actions[] = {
	[INC_ACT_PREPARE] = prepare_begin,
	[INC_ACT_DISCARD] = handover_do_discard,
	[INC_ACT_LISTEN] = handover_do_listen,
	[INC_ACT_READY] = handover_do_ready,
	[INC_ACT_RUN] = handover_do_run,
	[INC_ACT_SETTLE] = settle_do_settle,
	[INC_ACT_HOLD] = settle_do_hold,
	[INC_ACT_BURY] = settle_do_bury,
	[INC_ACT_DISCARD_GUEST] = settle_do_discard_guest,
	[INC_ACT_STORE] = store_begin,
	[INC_ACT_STORED] = store_do_stored,
	[INC_ACT_RESUME] = resume_begin,
	[INC_ACT_KEEP] = resume_keep,
};
static_assert(ARRAY_SIZE(actions) == INC_ACT_COUNT_, "an action for each");

void incoming_event(struct incoming *inc, enum inc_event ev, const struct error *err)
{
	const struct inc_step *step;
	enum inc_state was = inc->state;

	/* The session can be lost or fail on several channels at once; the first one counts. */
	if (err && !inc_step_find(inc->state, ev)) {
		log_debug("incoming %s: %s in %s passed over: %s", inc->id_text, inc_event_name(ev),
			  inc_state_name(inc->state), err->msg);
		return;
	}
	if (inc_state_apply(&inc->state, ev, &step)) {
		log_error("incoming %s: event %s in state %s", inc->id_text, inc_event_name(ev),
			  inc_state_name(inc->state));
		return;
	}
	if (err && !error_is_set(&inc->err))
		inc->err = *err;
	if (inc->state == INC_END)
		inc->end_event = ev;
	log_info("incoming %s: %s -> %s (%s)%s%s", inc->id_text, inc_state_name(was),
		 inc_state_name(inc->state), inc_event_name(ev), err ? ": " : "",
		 err ? err->msg : "");
	incoming_tell(inc, was, ev);
	incoming_publish(inc, was);
	actions[step->action](inc);
}

/* --- opening and joining --- */

struct incoming *incoming_new(struct dest *d, const uint8_t id[static MSG_UUID_LEN],
			      const char *identity, const char *from)
{
	struct incoming *inc = calloc(1, sizeof(*inc));

	if (!inc)
		return NULL;
	inc->d = d;
	inc->refs = 1;
	inc->receipt_ok = -1;
	inc->created_us = clock_wall_us();
	inc->place.uffd = -1;
	memcpy(inc->id, id, sizeof(inc->id));
	uuid_text(inc->id, inc->id_text);
	fdio_random(inc->token, sizeof(inc->token));
	inc->identity = strdup(identity);
	inc->from = strdup(from);
	inc->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!inc->identity || !inc->from || inc->stop_fd < 0) {
		incoming_free(inc);
		return NULL;
	}
	return inc;
}

unsigned int incoming_count_of(const struct dest *d, const char *identity)
{
	unsigned int n = 0;

	for (const struct incoming *inc = d->incomings; inc; inc = inc->next)
		n += !strcmp(inc->identity, identity);
	return n;
}

/* @identity: of the source; NULL for what begins here */
static int check_room(const struct dest *d, const char *identity, struct error *err)
{
	uint32_t each = d->conf.limit_incoming_per_source;

	if (d->ending)
		return error_set(err, -ESHUTDOWN, "ending", "this agent is being stopped");
	if (room_cordoned(d, err))
		return -EBUSY;
	if (d->n_incomings >= d->conf.limit_incoming)
		return error_set(err, -EBUSY, "limit-incoming",
				 "%u incoming migrations are under way, which is the limit "
				 "(limits.incoming): try again later",
				 d->n_incomings);
	if (identity && each && incoming_count_of(d, identity) >= each)
		return error_set(err, -EBUSY, "limit-incoming",
				 "%u incoming migrations from %s are under way, which is the limit "
				 "(limits.incoming_per_source): try again later",
				 each, identity);
	return 0;
}

void incoming_add(struct incoming *inc)
{
	struct dest *d = inc->d;

	inc->next = d->incomings;
	d->incomings = inc;
	d->n_incomings++;
	meter_incoming_begun(d);
}

int incoming_local(struct dest *d, const char *from, struct incoming **ret, struct error *err)
{
	uint8_t id[MSG_UUID_LEN];
	char text[UUID_TEXT_MAX];
	struct incoming *inc;
	int r = check_room(d, NULL, err);

	if (r)
		return r;
	uuid_parse(fdio_uuid4(text), id);
	/* No source has this identity: what it says is "DNS:…" and the like. */
	inc = incoming_new(d, id, "local", from);
	if (!inc)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	incoming_add(inc);
	*ret = inc;
	return 0;
}

int incoming_open(struct dest *d, struct conn *conn, const struct msg_hello *h,
		  uint64_t capabilities, struct error *err)
{
	struct incoming *inc;
	struct msg *ack;
	int r = check_room(d, tls_chan_identity(conn_chan(conn)), err);

	if (r)
		return r;
	if (incoming_find(d, h->migration))
		return error_set(err, -EEXIST, "migration-exists",
				 "this migration has a session already");
	ack = calloc(1, sizeof(*ack));
	inc = ack ? incoming_new(d, h->migration, tls_chan_identity(conn_chan(conn)),
				 tls_chan_peer(conn_chan(conn)))
		  : NULL;
	if (!inc) {
		free(ack);
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	inc->version = msg_version_common(h->version_min, h->version_max);
	inc->capabilities = capabilities;
	incoming_add(inc);
	incoming_take_control(inc, conn);
	conn_set_timeout(conn, INCOMING_SETUP_US);
	ack->type = MSG_HELLO_ACK;
	ack->hello_ack =
		(struct msg_hello_ack){.version = inc->version, .capabilities = capabilities};
	memcpy(ack->hello_ack.token, inc->token, MSG_TOKEN_LEN);
	incoming_send(inc, ack);
	explicit_bzero(ack, sizeof(*ack));
	free(ack);
	log_info("incoming %s: from %s (%s)", inc->id_text, inc->from, inc->identity);
	FAULTPOINT(HELLO_ANSWERED);
	return 0;
}

uint16_t incoming_version(const struct incoming *inc)
{
	return inc->version;
}

uint64_t incoming_capabilities(const struct incoming *inc)
{
	return inc->capabilities;
}

/* --- from outside the session --- */

enum msg_answer incoming_query(struct incoming *inc, const char *identity, uint64_t generation)
{
	struct error err = {0};

	if (!inc->past || strcmp(inc->identity, identity) != 0)
		return MSG_ANSWER_UNKNOWN;
	/*
	 * Asked in doubt: the control channel is lost for the source, and so is a COMMIT that may still
	 * be under way in it. Ending here makes sure that it is never obeyed.
	 */
	if (doubt_abort_when_asked(inc->state)) {
		error_set(&err, -ECONNRESET, "lost", "the source has lost the session and asks");
		conn_free(steal_ptr(&inc->control));
		incoming_event(inc, INC_EV_LOST, &err);
	}
	return history_answer(inc->past, identity, generation);
}

int incoming_attach(struct incoming *inc, struct guest *g, bool *ret_mine, struct error *err)
{
	bool waits = inc->state == INC_ADVISE && inc->stage == STAGE_ATTACH;
	bool runs = inc->state == INC_RUNNING || inc->state == INC_HELD ||
		    (inc->state == INC_END && inc->end_event == INC_EV_ACCOUNTED);

	*ret_mine = true;
	if (waits && g->has_token && !CRYPTO_memcmp(g->token, inc->guest_token, GUEST_TOKEN_LEN))
		return prepare_attached(inc, g, err);
	if (runs && !inc->guest && inc->past && !memcmp(g->uuid, inc->past->uuid, MSG_UUID_LEN) &&
	    g->generation == inc->past->generation) {
		log_notice("incoming %s: guest %s has attached again", inc->id_text, g->name);
		inc->guest = g;
		prepare_guest_watch(inc);
		if (!inc->resumed)
			handover_let_go(inc);
		settle_look(inc);
		return 0;
	}
	*ret_mine = false;
	return 0;
}

void incoming_end(struct incoming *inc)
{
	struct error err = {0};

	error_set(&err, -ESHUTDOWN, "ending", "decant-dest is being stopped");
	incoming_event(inc, inc->state < INC_RUNNING ? INC_EV_FAIL : INC_EV_LOST, &err);
}

/*
 * Rule 5: the guest's process keeps its copy of the userfaultfd, so that nothing is handed zeros when
 * ours is closed; faults wait for the agent's next life.
 */
void incoming_drop(struct incoming *inc)
{
	settle_stop_threads(inc);
	if (inc->place.uffd >= 0)
		close(inc->place.uffd);
	if (inc->placed)
		place_clear(&inc->place);
	incoming_remove(inc);
}

/* --- what others ask --- */

const char *incoming_id(const struct incoming *inc)
{
	return inc->id_text;
}

struct incoming *incoming_next(const struct incoming *inc)
{
	return inc->next;
}

enum inc_state incoming_state(const struct incoming *inc)
{
	return inc->state;
}

uint64_t incoming_memory(const struct incoming *inc)
{
	return inc->total;
}

bool incoming_is_guest(const struct incoming *inc, const char *name,
		       const uint8_t uuid[static MSG_UUID_LEN])
{
	return inc->past &&
	       (!strcmp(inc->setup->name, name) || !memcmp(inc->setup->uuid, uuid, MSG_UUID_LEN));
}

struct past *incoming_past(const struct incoming *inc)
{
	return inc->past;
}
