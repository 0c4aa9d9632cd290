/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a micro-VM here. Which rules it could break, and why it does not:
 *
 *   1, 2	everything is placed through place.h, which never places over a page that is there
 *   4	an image can be served as often as somebody asks for it; no guest is handed over
 *   5	the userfaultfd is closed only when the process of the micro-VM has ended, or every page is
 *	there, or the agent itself ends: then the micro-VM's own copy guards what is missing, or the one
 *	that the service manager keeps from the handshake on. Also one that came with a handshake that was
 *	refused is kept
 *   8	page states and regions are in run_dir: micro_adopt.c goes on with them
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "incoming.h"
#include "incoming_priv.h"
#include "meter.h"
#include "micro_priv.h"
#include "room.h"
#include "proc.h"
#include "uffd/uffd.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/fdio.h"
#include "util/log.h"

/* --- states --- */

static const char *const state_names[] = {
	[MICRO_LISTENING] = "listening", [MICRO_GREETING] = "greeting", [MICRO_SERVING] = "serving",
	[MICRO_COMPLETED] = "completed", [MICRO_HELD] = "held",         [MICRO_END] = "end",
};
static_assert(ARRAY_SIZE(state_names) == MICRO_STATES_, "a name for each");

static const char *const event_names[] = {
	[MICRO_EV_CONNECTED] = "connected", [MICRO_EV_GREETED] = "greeted",
	[MICRO_EV_REFUSED] = "refused",     [MICRO_EV_TROUBLE] = "trouble",
	[MICRO_EV_COMPLETE] = "complete",   [MICRO_EV_GONE] = "gone",
	[MICRO_EV_STOP] = "stop",
};
static_assert(ARRAY_SIZE(event_names) == MICRO_EVENTS_, "a name for each");

const char *micro_state_name(enum micro_state s)
{
	return state_names[s];
}

typedef void action_fn(struct micro *m);

static action_fn do_nothing, do_complete, do_hold, do_aborted, do_gone, do_leave;

/** struct step - one row: what an event does in a state */
struct step {
	enum micro_state state;
	enum micro_event event;
	enum micro_state next;
	action_fn *action;
};

static const struct step table[] = {
	{MICRO_LISTENING, MICRO_EV_CONNECTED, MICRO_GREETING, do_nothing},
	{MICRO_LISTENING, MICRO_EV_STOP, MICRO_END, do_aborted},
	{MICRO_LISTENING, MICRO_EV_REFUSED, MICRO_END, do_aborted},
	{MICRO_GREETING, MICRO_EV_GREETED, MICRO_SERVING, do_nothing},
	{MICRO_GREETING, MICRO_EV_REFUSED, MICRO_END, do_aborted},
	{MICRO_GREETING, MICRO_EV_TROUBLE, MICRO_HELD, do_hold},
	{MICRO_GREETING, MICRO_EV_GONE, MICRO_END, do_aborted},
	{MICRO_GREETING, MICRO_EV_STOP, MICRO_END, do_leave},
	{MICRO_SERVING, MICRO_EV_COMPLETE, MICRO_COMPLETED, do_complete},
	{MICRO_SERVING, MICRO_EV_TROUBLE, MICRO_HELD, do_hold},
	{MICRO_SERVING, MICRO_EV_GONE, MICRO_END, do_gone},
	{MICRO_SERVING, MICRO_EV_STOP, MICRO_END, do_leave},
	/* Pages could not be given for a while only: memory was short. */
	{MICRO_HELD, MICRO_EV_COMPLETE, MICRO_COMPLETED, do_complete},
	{MICRO_HELD, MICRO_EV_GONE, MICRO_END, do_gone},
	{MICRO_HELD, MICRO_EV_STOP, MICRO_END, do_leave},
	{MICRO_COMPLETED, MICRO_EV_TROUBLE, MICRO_HELD, do_hold},
	{MICRO_COMPLETED, MICRO_EV_GONE, MICRO_END, do_gone},
	{MICRO_COMPLETED, MICRO_EV_STOP, MICRO_END, do_leave},
};

void micro_event(struct micro *m, enum micro_event ev, const struct error *err)
{
	const struct step *s = table;

	while (s < table + ARRAY_SIZE(table) && (s->state != m->state || s->event != ev))
		s++;
	if (s == table + ARRAY_SIZE(table)) {
		log_debug("micro %s: %s in %s passed over", m->id_text, event_names[ev],
			  state_names[m->state]);
		return;
	}
	if (err && !error_is_set(&m->err))
		m->err = *err;
	log_info("micro %s: %s -> %s (%s)%s%s", m->id_text, state_names[m->state],
		 state_names[s->next], event_names[ev], err ? ": " : "", err ? err->msg : "");
	m->state = s->next;
	micro_tell(m, s->state);
	micro_publish(m, s->state);
	s->action(m);
}

/* --- life --- */

static void no_event(struct event **ev)
{
	if (*ev)
		event_free(*ev);
	*ev = NULL;
}

static void micro_free(struct micro *m)
{
	struct micro **at = &m->d->micros;

	while (*at && *at != m)
		at = &(*at)->next;
	if (*at)
		*at = m->next;
	micro_listen_end(m);
	no_event(&m->on_end);
	micro_stop_threads(m);
	if (m->placed)
		place_clear(&m->place);
	if (m->pidfd >= 0)
		close(m->pidfd);
	if (m->uffd >= 0)
		close(m->uffd);
	if (m->stop_fd >= 0)
		close(m->stop_fd);
	image_close(m->img);
	free(m->page);
	free(m->socket);
	free(m);
}

void micro_remove(struct micro *m)
{
	micro_free(m);
}

struct micro *micro_new(struct dest *d, const char *id, const char *image, const char *socket)
{
	struct micro *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->d = d;
	m->listen_fd = m->conn_fd = m->pidfd = m->uffd = -1;
	m->place.uffd = -1;
	m->created_us = clock_wall_us();
	snprintf(m->id_text, sizeof(m->id_text), "%s", id);
	snprintf(m->image, sizeof(m->image), "%s", image);
	m->socket = strdup(socket);
	m->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	m->next = d->micros;
	d->micros = m;
	if (!m->socket || m->stop_fd < 0) {
		micro_free(m);
		return NULL;
	}
	return m;
}

void micro_stop_threads(struct micro *m)
{
	uint64_t one = 1;

	if (m->stop_fd >= 0 && write(m->stop_fd, &one, sizeof(one)) < 0)
		log_debug("micro %s: cannot wake: %s", m->id_text, strerror(errno));
	worker_stop(steal_ptr(&m->worker));
	fault_stop(steal_ptr(&m->fault));
}

/* --- the ends --- */

static void do_nothing(struct micro *m)
{
	(void)m;
}

/* Nothing waits for it: no other host is told of a micro-VM, and it does not outlive this one. */
static void note(struct micro *m, enum history_fate fate)
{
	struct error err = {0};
	json_t *more = json_pack("{s:o*}", "view", micro_view(m));

	/* Whoever had connected may be another one's by now: nobody is to be ended for it later. */
	if (more && fate == HISTORY_ABORTED)
		json_object_set_new(more, "pid", json_integer(0));
	if (m->past && history_note(m->past, fate, more, HISTORY_APART, NULL, &err))
		log_error("micro %s: %s", m->id_text, err.msg);
	json_decref(more);
}

static void do_free(void *arg)
{
	micro_free(arg);
}

/* Its threads' last posts are before this one. */
static void release(struct micro *m)
{
	json_t *view;

	m->ended_us = clock_wall_us();
	micro_listen_end(m);
	no_event(&m->on_end);
	micro_stop_threads(m);
	micro_unkeep(m);
	micro_remove_files(m);
	meter_micro_ended(m);
	view = micro_view(m);
	if (m->past)
		history_end(m->d->history, steal_ptr(&m->past), view);
	json_decref(view);
	if (loop_post(m->d->loop, do_free, m))
		log_error("micro %s: out of memory, it is not freed", m->id_text);
}

static void do_aborted(struct micro *m)
{
	m->ended_us = clock_wall_us();
	note(m, HISTORY_ABORTED);
	log_notice("micro %s: no micro-VM was served at %s: %s", m->id_text, m->socket,
		   error_is_set(&m->err) ? m->err.msg : "the agent ends");
	release(m);
}

static void do_hold(struct micro *m)
{
	log_error("micro %s: the micro-VM of process %d is held: it waits where a page of image %s "
		  "is missing (%s)",
		  m->id_text, (int)m->pid, m->image, m->err.msg);
}

static void do_complete(struct micro *m)
{
	struct error err = {0};

	/* Then it is answered to its end, as it is. */
	if (micro_completed(m, &err))
		log_warn("micro %s: its memory stays registered: %s", m->id_text, err.msg);
	FAULTPOINT(MICRO_GUARD_LIFTED);
	error_clear(&err);
	m->complete = true;
	log_notice("micro %s: process %d has all of image %s, %" PRIu64 " faults", m->id_text,
		   (int)m->pid, m->image, atomic_load(&m->place.faults));
	note(m, HISTORY_COMPLETED);
	if (m->past->fate == HISTORY_COMPLETED && history_registered(m->past, &err))
		log_error("micro %s: %s", m->id_text, err.msg);
	FAULTPOINT(MICRO_COMPLETED_JOURNALED);
	micro_unkeep(m);
	micro_remove_files(m);
}

static void do_gone(struct micro *m)
{
	struct error err = {0};

	m->ended_us = clock_wall_us();
	if (!m->complete) {
		error_set(&err, -ESRCH, "guest-gone",
			  "the process of the micro-VM, %d, has ended before it had all its pages",
			  (int)m->pid);
		if (!error_is_set(&m->err))
			m->err = err;
		if (m->past && m->past->fate == HISTORY_OWNER)
			note(m, HISTORY_GONE);
		else if (m->past)
			note(m, HISTORY_ABORTED);
	}
	log_notice("micro %s: the micro-VM of process %d has ended", m->id_text, (int)m->pid);
	release(m);
}

/* Rule 5: there are other copies of the descriptor, and nobody reads it now. */
static void do_leave(struct micro *m)
{
	micro_listen_end(m);
	no_event(&m->on_end);
	micro_stop_threads(m);
	if (!m->complete)
		log_warn("micro %s: process %d is left with %s pages missing: it waits for this "
			 "agent's next life",
			 m->id_text, (int)m->pid, m->placed ? "some" : "its");
}

static void on_process_end(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	micro_event(arg, MICRO_EV_GONE, NULL);
}

int micro_watch(struct micro *m, pid_t pid, int pidfd)
{
	m->pid = pid;
	m->pidfd = pidfd;
	m->on_end = event_new(loop_base(m->d->loop), pidfd, EV_READ, on_process_end, m);
	return m->on_end && !event_add(m->on_end, NULL) ? 0 : -ENOMEM;
}

void micro_end_all(struct dest *d)
{
	struct micro *next;

	for (struct micro *m = d->micros; m; m = next) {
		next = m->next;
		micro_listen_last(m);
		micro_event(m, MICRO_EV_STOP, NULL);
	}
}

void micro_free_all(struct dest *d)
{
	micro_end_all(d);
	while (d->micros)
		micro_free(d->micros);
}

/* --- the image --- */

static int check_image(const struct micro *m, struct error *err)
{
	const struct image_facts *f = image_facts(m->img);

	if (f->setup.blocks != 1)
		return error_set(err, -EOPNOTSUPP, "not-one-block",
				 "image %s has %u blocks: the memory of a micro-VM is one",
				 m->image, f->setup.blocks);
	return 0;
}

/* One that is being stored, if there is none of the name. Return: 0, -ENOENT, or -errno with @err filled */
static int follow(struct micro *m, struct error *err)
{
	for (struct incoming *inc = m->d->incomings; inc; inc = inc->next)
		if (inc->state == INC_STORING && inc->writer && inc->store &&
		    !strcmp(inc->store->name, m->image))
			return image_follow(inc->writer, &m->img, err);
	return -ENOENT;
}

static int open_stored(struct micro *m, struct error *err)
{
	char dir[4096], path[4096 + 128];
	int r = store_folder(m->d, dir, sizeof(dir));

	if (r)
		return r;
	snprintf(path, sizeof(path), "%s/%s" IMAGE_SUFFIX, dir, m->image);
	return access(path, F_OK) && errno == ENOENT ? -ENOENT
						     : image_open(path, true, &m->img, err);
}

int micro_image_open(struct micro *m, struct error *err)
{
	int r = -ENOENT;

	if (image_name_ok(m->image))
		r = open_stored(m, err);
	if (r == -ENOENT && image_name_ok(m->image))
		r = follow(m, err);
	if (r == -ENOENT)
		return error_set(err, -ENOENT, "no-such-snapshot", "no image is named %s",
				 m->image);
	if (!r)
		r = check_image(m, err);
	if (r)
		return error_set(err, r, NULL, "image %s: %s", m->image, strerror(-r));
	m->memory = image_facts(m->img)->blocks[0].length;
	return 0;
}

/* --- the beginning --- */

static int check_room(const struct dest *d, struct error *err)
{
	unsigned int n = d->n_incomings;

	for (const struct micro *m = d->micros; m; m = m->next)
		n += m->state != MICRO_COMPLETED && m->state != MICRO_END;
	if (d->ending)
		return error_set(err, -ESHUTDOWN, "ending", "this agent is being stopped");
	if (room_cordoned(d, err))
		return -EBUSY;
	if (n >= d->conf.limit_incoming)
		return error_set(err, -EBUSY, "limit-incoming",
				 "%u incoming guests are under way, which is the limit "
				 "(limits.incoming): try again later",
				 n);
	return 0;
}

static int begin_record(struct micro *m, struct error *err)
{
	json_t *facts = json_pack(
		"{s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:{}, s:I, s:s, s:s}", "id", m->id_text,
		"identity", "local", "from", "image", "guest", m->image, "uuid", m->id_text,
		"generation", (json_int_t)1, "driver", "uffd", "launcher", "", "vars", "created",
		(json_int_t)m->created_us, "image", m->image, "socket", m->socket);
	int r;

	if (!facts)
		return error_set(err, -EINVAL, "bad-socket", "%s: is no text", m->socket);
	r = history_begin(m->d->history, facts, NULL, &m->past, err);
	json_decref(facts);
	return r;
}

int micro_begin(struct dest *d, const struct micro_wish *wish, struct micro **ret,
		struct error *err)
{
	char id[UUID_TEXT_MAX];
	struct micro *m;
	int r = check_room(d, err);

	if (r)
		return r;
	if (strlen(wish->image) >= sizeof(m->image))
		return error_set(err, -ENOENT, "no-such-snapshot", "no image has such a name");
	m = micro_new(d, fdio_uuid4(id), wish->image, wish->socket);
	if (!m)
		return error_set(err, -ENOMEM, NULL, "out of memory or descriptors");
	r = micro_image_open(m, err);
	if (!r)
		r = micro_listen(m, wish, err);
	if (!r)
		r = begin_record(m, err);
	if (r) {
		micro_remove(m);
		return r;
	}
	log_info("micro %s: waits at %s for a micro-VM of image %s, %" PRIu64 " bytes", m->id_text,
		 m->socket, m->image, m->memory);
	*ret = m;
	return 0;
}

/* --- what others ask --- */

struct micro *micro_find(const struct dest *d, const char *id)
{
	struct micro *m = d->micros;

	/* One that has ended is told by its record. */
	while (m && (strcmp(m->id_text, id) != 0 || m->state == MICRO_END))
		m = m->next;
	return m;
}

bool micro_serves(const struct micro *m)
{
	return m->state != MICRO_LISTENING && m->state != MICRO_END;
}

struct micro *micro_next(const struct micro *m)
{
	return m->next;
}

const char *micro_id(const struct micro *m)
{
	return m->id_text;
}
