/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMUs that an earlier life of this agent left behind do not attach themselves, nor do those whose monitor was
 * lost in post-copy: they are looked for at the monitors that the records name, until they are found or have ended.
 *
 * One whose migration was aborted before the agent wrote down which process it had launched is ended: it makes its
 * monitor a moment after its launch, so it is looked for as long as that may take.
 *
 * One that waits for a missing page may not answer: its main thread can be the one that waits. So its memory is
 * taken over before that (revive.h), and it is asked again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "adopt.h"
#include "guest/qemu/qemu.h"
#include "incoming_priv.h"
#include "proc.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

#define LOOK_US 1000000

/**
 * struct adopt_qemu - one that is looked for
 * @past:	its record
 * @path:	of its monitor
 * @look, @again: an attempt, and the time of the next
 * @until_us:	one that was aborted is not looked for any more
 */
struct adopt_qemu {
	struct dest *d;
	struct past *past;
	char *path;
	struct qemu_attach *look;
	struct event *again;
	uint64_t until_us;
	struct adopt_qemu *next;
};

static void free_one(struct adopt_qemu *q)
{
	struct adopt_qemu **at = &q->d->adopt_qemus;

	while (*at && *at != q)
		at = &(*at)->next;
	if (*at)
		*at = q->next;
	qemu_attach_free(q->look);
	if (q->again)
		event_free(q->again);
	free(q->path);
	free(q);
}

void adopt_qemu_free_all(struct dest *d)
{
	while (d->adopt_qemus)
		free_one(d->adopt_qemus);
}

/* The name of a socket may be another QEMU's by now; a pid with its start is not. */
static bool is_it(const struct past *p, const struct guest *g)
{
	if (p->fate == HISTORY_ABORTED)
		return g->run_state == GUEST_INCOMING || g->run_state == GUEST_PAUSED_MIGRATION;
	return g->pid == p->pid && proc_lives(p->pid, p->pid_start);
}

/* The record was dropped meanwhile, or a newer one is of this name: that one's QEMU has the monitor now. */
static bool superseded(const struct adopt_qemu *q)
{
	const struct past *first = history_first(q->d->history), *p = first;

	while (p && p != q->past)
		p = p->next;
	if (!p || p->fate != HISTORY_ABORTED)
		return !p;
	for (p = first; p != q->past; p = p->next)
		if (!strcmp(p->name, q->past->name))
			return true;
	return false;
}

static bool looks_on(const struct adopt_qemu *q)
{
	if (q->past->fate == HISTORY_ABORTED)
		return clock_us() < q->until_us;
	return q->past->live || q->past->fate == HISTORY_OWNER;
}

static void look(void *arg);

static void look_later(struct adopt_qemu *q)
{
	q->again = loop_timer(q->d->loop, LOOK_US, look, q);
	if (!q->again)
		log_error("guest %s: out of memory", q->past->name);
}

static void on_found(void *arg, struct guest *g, const struct error *err)
{
	struct adopt_qemu *q = arg;
	struct error why = {0};

	qemu_attach_free(steal_ptr(&q->look));
	if (!g && looks_on(q)) {
		log_debug("guest %s: %s", q->past->name, err->msg);
		look_later(q);
		return;
	}
	if (g && is_it(q->past, g)) {
		/* Launched for just this migration, like a native guest that shows its token. */
		g->has_token = q->past->fate == HISTORY_ABORTED;
		if (adopt_attach(q->d, g, &why)) {
			log_info("guest %s: %s", q->past->name, why.msg);
			guest_free(g);
		}
	} else {
		guest_free(g);
	}
	free_one(q);
}

static void attach(struct adopt_qemu *q)
{
	const struct past *p = q->past;
	struct qemu_spec spec = {.name = p->name,
				 .path = q->path,
				 .uuid = p->uuid,
				 .generation = p->generation,
				 /* It was accepted as it is. */
				 .anonymous = QEMU_EXPERIMENTAL};
	struct error err = {0};

	if (!qemu_attach(q->d->loop, &spec, on_found, q, &q->look, &err))
		return;
	if (looks_on(q) && (p->fate == HISTORY_ABORTED || proc_lives(p->pid, p->pid_start)))
		look_later(q);
	else
		free_one(q);
}

static void look(void *arg)
{
	struct adopt_qemu *q = arg;

	event_free(steal_ptr(&q->again));
	if (superseded(q))
		free_one(q);
	else
		attach(q);
}

void adopt_qemu_gone(const struct past *past)
{
	const char *path = json_string_value(json_object_get(past->facts, "qmp"));
	struct stat st;

	if (path && !lstat(path, &st) && S_ISSOCK(st.st_mode) && unlink(path))
		log_warn("guest %s: %s: %s", past->name, path, strerror(errno));
}

void adopt_qemu(struct dest *d, struct past *past)
{
	const char *path = json_string_value(json_object_get(past->facts, "qmp"));
	struct adopt_qemu *q = path ? calloc(1, sizeof(*q)) : NULL;

	if (!q)
		return;
	*q = (struct adopt_qemu){.d = d,
				 .past = past,
				 .path = strdup(path),
				 .until_us = clock_us() + INCOMING_ATTACH_US};
	q->next = d->adopt_qemus;
	d->adopt_qemus = q;
	q->again = q->path ? loop_timer(d->loop, 1, look, q) : NULL;
	if (!q->again)
		free_one(q);
}
