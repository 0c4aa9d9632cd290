/* SPDX-License-Identifier: Apache-2.0 */
#include "adopt.h"
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>
#include "proc.h"
#include "incoming_priv.h"
#include "overrule.h"
#include "resident.h"
#include "revive.h"
#include "util/cleanup.h"
#include "util/faultpoint.h"
#include "util/log.h"
#include "util/trace.h"

/* From one attempt to take a guest over to the next. */
#define LATER_US 100000

/**
 * struct adopted - a guest that is held, or was until an incoming took it over
 * @past:	its record
 * @guest:	owned; NULL until it attaches itself, while it is disconnected, and once it is an incoming's
 * @pidfd:	of its process; owned
 * @ended:	tells its end
 * @soon:	makes an incoming of it, once it is welcomed
 */
struct adopted {
	struct dest *d;
	struct past *past;
	struct guest *guest;
	int pidfd;
	struct event *ended;
	struct event *soon;
	struct adopted *next;
};

static void adopted_free(struct adopted *a)
{
	struct adopted **at = &a->d->adopted;

	while (*at && *at != a)
		at = &(*at)->next;
	if (*at)
		*at = a->next;
	if (a->soon)
		event_free(a->soon);
	if (a->ended)
		event_free(a->ended);
	if (a->pidfd >= 0)
		close(a->pidfd);
	guest_free(a->guest);
	free(a);
}

void adopt_free_all(struct dest *d)
{
	adopt_qemu_free_all(d);
	while (d->adopted)
		adopted_free(d->adopted);
}

static struct adopted *held(const struct dest *d, const struct past *p)
{
	struct adopted *a = d->adopted;

	while (a && a->past != p)
		a = a->next;
	return a;
}

void adopt_over(struct incoming *inc)
{
	struct adopted *a = held(inc->d, inc->past);

	if (a)
		adopted_free(a);
}

/* --- page states --- */

/* Those of a guest that is held stay: they alone know which of its pages are missing. */
static void remove_states(const struct dest *d)
{
	DIR *dir = opendir(d->conf.agent.run_dir);
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		char id[UUID_TEXT_MAX];
		const struct past *p;

		if (strncmp(e->d_name, "pages.", 6) != 0)
			continue;
		snprintf(id, sizeof(id), "%.36s", e->d_name + 6);
		p = history_find(d->history, id);
		if (p && (p->live || (p->fate == HISTORY_OWNER && p->same_boot)))
			continue;
		if (unlinkat(dirfd(dir), e->d_name, 0))
			log_warn("%s/%s: %s", d->conf.agent.run_dir, e->d_name, strerror(errno));
	}
	if (dir)
		closedir(dir);
}

/* --- held --- */

static void note_dead(struct dest *d, struct past *p)
{
	struct error err = {0};

	log_error("guest %s has died; it was held by incoming %s", p->name, p->id);
	if (history_note(p, HISTORY_GONE, NULL, HISTORY_APART, NULL, &err))
		log_error("incoming %s: %s", p->id, err.msg);
	incoming_tell_past(d, p, "failed", "guest-died", "the guest has died while it was held");
	adopt_qemu_gone(p);
	history_end(d->history, p, NULL);
	remove_states(d);
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
	struct adopted *a = arg;
	struct dest *d = a->d;
	struct past *p = a->past;

	(void)fd;
	(void)what;
	adopted_free(a);
	if (p->live)
		revive_ended(d, p);
	else
		note_dead(d, p);
}

/* Its end is told by the pidfd, whether it is attached or not. */
static void on_gone(void *arg, struct guest *g, enum guest_gone how)
{
	struct adopted *a = arg;

	(void)how;
	guest_free(g);
	a->guest = NULL;
}

static void on_let_go(void *arg, int ret, const struct error *err, int fd)
{
	const struct adopted *a = arg;

	(void)fd;
	if (ret) {
		log_error("guest %s could not be resumed: %s", a->past->name, err->msg);
		return;
	}
	trace_resume("guest", a->past->name);
	log_notice("guest %s runs here: it had been handed over when the agent ended",
		   a->past->name);
}

/* Whatever is the matter with its memory, it is ours, and shall not stand still because of us. */
static void hold(struct adopted *a, const struct error *why)
{
	log_error("guest %s is held: pages of it may be missing since the agent ended in incoming "
		  "%s, and it cannot be taken over: %s",
		  a->past->name, a->past->id, why->msg);
	if (!a->past->overruled && a->guest->run_state == GUEST_PAUSED_MIGRATION &&
	    guest_resume(a->guest, on_let_go, a))
		log_error("guest %s could not be resumed", a->past->name);
}

static void take_over(void *arg);

/* The last thread of an agent that was killed may still be on its way out. */
static void take_over_later(struct adopted *a)
{
	a->soon = loop_timer(a->d->loop, LATER_US, take_over, a);
	if (!a->soon)
		log_error("guest %s: out of memory", a->past->name);
}

static void have_incoming(struct adopted *a, int uffd)
{
	struct guest *g = steal_ptr(&a->guest);
	struct error err = {0};
	int r = revive(a->d, a->past, g, uffd, &err);

	FAULTPOINT(REVIVED);
	if (!r)
		return;
	a->guest = g;
	if (r == -EBUSY)
		take_over_later(a);
	else
		hold(a, &err);
}

static void on_uffd(void *arg, int ret, const struct error *err, int fd)
{
	struct adopted *a = arg;

	/* Lost: it attaches itself again. */
	if (ret == -ECONNRESET)
		return;
	if (ret)
		hold(a, err);
	else
		have_incoming(a, fd);
}

/* If it cannot be, there is another way once it answers. */
static void take_over_qemu(struct adopted *a)
{
	struct error err = {0};
	int r = revive_qemu(a->d, a->past, &err);

	if (r == -EBUSY)
		take_over_later(a);
	else if (r)
		log_warn("guest %s cannot be taken over before it answers: %s", a->past->name,
			 err.msg);
}

static void take_over(void *arg)
{
	struct adopted *a = arg;
	struct error err = {0};
	int r;

	event_free(steal_ptr(&a->soon));
	if (!a->guest && revive_is_qemu(a->past))
		take_over_qemu(a);
	if (!a->guest)
		return;
	r = revive_check(a->past, a->guest, &err);
	if (!r)
		r = guest_uffd_again(a->guest, on_uffd, a);
	else if (r == 1)
		have_incoming(a, -1);
	if (r < 0) {
		error_set(&err, r, NULL, "%s", strerror(-r));
		hold(a, &err);
	}
}

static int take(struct adopted *a, struct guest *g, struct error *err)
{
	if (a->guest)
		return error_set(err, -EEXIST, "guest-exists", "guest %s is attached already",
				 a->past->name);
	a->guest = g;
	guest_watch(g, on_gone, NULL, a);
	/* It is welcomed only behind this call. */
	if (!a->soon)
		a->soon = loop_timer(a->d->loop, 1, take_over, a);
	return 0;
}

/* Watch the process of a guest that is held, which attaches itself sooner or later. */
static bool watch(struct dest *d, struct past *p)
{
	struct adopted *a = calloc(1, sizeof(*a));

	if (!a)
		return true;
	a->d = d;
	a->past = p;
	a->pidfd = pidfd_open(p->pid, 0);
	/* Looked at behind the opening: the pid may be another one's by now. */
	if (a->pidfd < 0 || !proc_lives(p->pid, p->pid_start)) {
		adopted_free(a);
		return false;
	}
	a->ended = event_new(loop_base(d->loop), a->pidfd, EV_READ, on_ended, a);
	if (a->ended)
		event_add(a->ended, NULL);
	a->next = d->adopted;
	d->adopted = a;
	if (revive_is_qemu(p))
		a->soon = loop_timer(d->loop, 1, take_over, a);
	return true;
}

/* --- attaching --- */

static const struct past *aborted(const struct dest *d, const struct guest *g)
{
	const struct past *p = history_first(d->history);

	while (p && (!p->same_boot || p->fate != HISTORY_ABORTED ||
		     p->generation != g->generation || memcmp(p->uuid, g->uuid, MSG_UUID_LEN) != 0))
		p = p->next;
	return p;
}

/* A monitor's name is used again: the newest record has it. */
static bool is_newest(const struct dest *d, const struct past *p)
{
	const struct past *newer = history_first(d->history);

	while (newer != p && strcmp(newer->name, p->name) != 0)
		newer = newer->next;
	return newer == p;
}

/*
 * Launched for a migration that is over. One that was loaded waits for ever to be let go, because it
 * cannot know who owns it: the record does, so it is ended.
 */
static int refuse_launched(const struct dest *d, const struct guest *g, struct error *err)
{
	const struct past *p = aborted(d, g);

	if (p) {
		log_notice("guest %s never ran, its migration was aborted: it is ended", g->name);
		pidfd_send_signal(g->pidfd, SIGKILL, NULL, 0);
		if (is_newest(d, p))
			adopt_qemu_gone(p);
	}
	return error_set(err, -EACCES, "aborted", "the migration that launched guest %s is over",
			 g->name);
}

/* A QEMU that was taken over before it answered. */
static int attach_to_incoming(struct dest *d, const struct past *p, struct guest *g,
			      struct error *err)
{
	for (struct incoming *inc = d->incomings; inc; inc = incoming_next(inc)) {
		bool mine = false;

		if (incoming_past(inc) == p && !incoming_attach(inc, g, &mine, err) && mine)
			return 0;
	}
	return -ENOENT;
}

int adopt_attach(struct dest *d, struct guest *g, struct error *err)
{
	struct past *p = history_find_guest(d->history, g->uuid, g->generation);

	if (p && p->live && !attach_to_incoming(d, p, g, err))
		return 0;
	if (p && p->live)
		return error_set(err, -EEXIST, "guest-exists", "guest %s is attached already",
				 p->name);
	if (p && p->fate == HISTORY_OWNER && held(d, p))
		return take(held(d, p), g, err);
	/*
	 * Registered or not: one that comes here has not been sent on, or has not heard of it. Not one that was never
	 * let go: an image is restored with the same identity each time.
	 */
	if (p && p->fate == HISTORY_COMPLETED && !g->has_token)
		return resident_new(d, p, g, NULL) ? error_set(err, -ENOMEM, NULL, "out of memory")
						   : 0;
	if (g->has_token)
		return refuse_launched(d, g, err);
	return error_set(err, -EACCES, "unknown-guest",
			 "guest %s has not arrived through this agent: it belongs to decant-source",
			 g->name);
}

/* --- at the start --- */

/* Those are micro_adopt.c's. */
static bool is_micro(const struct past *p)
{
	const char *driver = json_string_value(json_object_get(p->facts, "driver"));

	return driver && !strcmp(driver, "uffd");
}

/* Those that may still be there. */
static void find_qemus(struct dest *d)
{
	for (struct past *p = history_first(d->history); p; p = p->next) {
		bool left = p->fate == HISTORY_OWNER || p->fate == HISTORY_ABORTED ||
			    (p->fate == HISTORY_COMPLETED && !p->registered);

		if (left && p->same_boot && is_newest(d, p))
			adopt_qemu(d, p);
	}
}

/* It never ran, and nobody else knows of it: launched by the life of the agent that was to load it. */
static void end_launched(const struct dest *d, const struct past *p)
{
	CLEANUP_CLOSE int fd = p->pid > 0 ? pidfd_open(p->pid, 0) : -1;

	/* Looked at behind the opening: the pid may be another one's by now. */
	if (fd < 0 || !proc_lives(p->pid, p->pid_start))
		return;
	if (pidfd_send_signal(fd, SIGKILL, NULL, 0)) {
		log_error("guest %s, process %d, never ran and cannot be ended: %s", p->name,
			  (int)p->pid, strerror(errno));
		return;
	}
	log_notice("guest %s never ran, its migration was aborted: process %d is ended", p->name,
		   (int)p->pid);
	if (is_newest(d, p))
		adopt_qemu_gone(p);
}

void adopt_start(struct dest *d)
{
	incoming_tell_aborted(d);
	/* First of all: somebody may have had it continued. */
	for (struct past *p = history_first(d->history); p; p = p->next)
		if (p->overruled && p->same_boot && overrule_stop(p))
			log_error(
				"CONFLICT: guest %s was kept at its source (incoming %s); the one "
				"here, process %d, is stopped",
				p->name, p->id, (int)p->pid);
	for (struct past *p = history_first(d->history); p; p = p->next)
		if (p->fate == HISTORY_ABORTED && p->same_boot && !is_micro(p))
			end_launched(d, p);
	for (struct past *p = history_first(d->history); p; p = p->next)
		if (p->fate == HISTORY_OWNER && p->same_boot && !is_micro(p) && !watch(d, p))
			note_dead(d, p);
	find_qemus(d);
	remove_states(d);
}
