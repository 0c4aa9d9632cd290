/* SPDX-License-Identifier: Apache-2.0 */
#include "resident.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "adopt.h"
#include "rest/rest_client.h"
#include "util/cleanup.h"
#include "util/faultpoint.h"
#include "util/log.h"

/* From the first to every further try. */
#define RETRY_MIN_US 500000
#define RETRY_MAX_US 60000000

/**
 * struct resident - one guest
 * @past:	its record
 * @guest:	NULL while it is disconnected
 * @launch:	NULL if somebody else reaps it
 * @call:	to decant-source, under way
 * @retry:	the next try
 * @wait_us:	before it
 * @tidying:	what an earlier life left in it is being taken away
 * @moving:	it was told to attach itself to decant-source
 */
struct resident {
	struct dest *d;
	struct past *past;
	struct guest *guest;
	struct launch *launch;
	struct rest_call *call;
	struct event *retry;
	uint64_t wait_us;
	bool tidying;
	bool moving;
	struct resident *next;
};

static void begin(struct resident *r);

static void resident_free(struct resident *r)
{
	struct resident **at = &r->d->residents;

	while (*at && *at != r)
		at = &(*at)->next;
	if (*at)
		*at = r->next;
	rest_call_cancel(r->call);
	if (r->retry)
		event_free(r->retry);
	guest_free(r->guest);
	if (r->launch)
		dest_reap(r->d, r->launch);
	free(r);
}

struct resident *resident_find(const struct dest *d, const char *name,
			       const uint8_t uuid[static MSG_UUID_LEN])
{
	struct resident *r = d->residents;

	while (r && strcmp(r->past->name, name) != 0 &&
	       memcmp(r->past->uuid, uuid, MSG_UUID_LEN) != 0)
		r = r->next;
	return r;
}

unsigned int resident_count(const struct dest *d)
{
	unsigned int n = 0;

	for (const struct resident *r = d->residents; r; r = r->next)
		n++;
	return n;
}

void resident_free_all(struct dest *d)
{
	while (d->residents)
		resident_free(d->residents);
}

/* --- registering --- */

/* Or for the first time. */
static void try_again(void *arg)
{
	struct resident *r = arg;

	event_free(r->retry);
	r->retry = NULL;
	begin(r);
}

static void try_later(struct resident *r, const char *why)
{
	log_warn("guest %s is not registered with decant-source at %s yet: %s; trying again in "
		 "%.1f s",
		 r->past->name, r->d->conf.source_api, why, (double)r->wait_us / 1e6);
	if (!r->retry)
		r->retry = loop_timer(r->d->loop, r->wait_us, try_again, r);
	r->wait_us = MIN(r->wait_us * 2, (uint64_t)RETRY_MAX_US);
}

static void on_moved(void *arg, int ret, const struct error *err, int fd)
{
	struct resident *r = arg;

	(void)fd;
	FAULTPOINT(GUEST_SENT_ON);
	if (ret && ret != -ECONNRESET) {
		r->moving = false;
		try_later(r, err->msg);
	}
}

static void on_registered(void *arg, int ret, const struct rest_answer *a, const struct error *err)
{
	struct resident *r = arg;
	const char *attach;
	struct error why = {0};

	r->call = NULL;
	if (ret || a->status >= 300) {
		try_later(r, ret ? err->msg : a->problem.msg);
		return;
	}
	attach = json_string_value(json_object_get(a->json, "attach"));
	if (!attach) {
		try_later(r, "its answer does not say where the guest shall attach itself");
		return;
	}
	FAULTPOINT(REGISTERED_THERE);
	if (!r->past->registered && history_registered(r->past, &why))
		log_error("guest %s: %s", r->past->name, why.msg);
	log_info("guest %s is registered with decant-source, and goes to %s", r->past->name,
		 attach);
	FAULTPOINT(REGISTERED_JOURNALED);
	r->moving = true;
	if (r->guest) {
		ret = guest_move(r->guest, attach, on_moved, r);
		if (ret)
			on_moved(r, ret, &(struct error){.msg = "it cannot be sent there"}, -1);
	}
}

static json_t *description(const struct resident *r)
{
	const json_t *f = r->past->facts;

	json_t *qmp = json_object_get(f, "qmp");
	json_t *generation = qmp ? json_integer((json_int_t)r->past->generation) : NULL;

	return json_pack("{s:s, s:O, s:O, s:O, s:O, s:O*, s:o*}", "name", r->past->name, "uuid",
			 json_object_get(f, "uuid"), "driver", json_object_get(f, "driver"),
			 "launcher", json_object_get(f, "launcher"), "vars",
			 json_object_get(f, "vars"), "qmp", qmp, "generation", generation);
}

static void resident_register(struct resident *r)
{
	json_t *body;
	struct error err = {0};
	int ret;

	if (!r->d->conf.source_api || !r->guest || r->call || r->moving || r->past->overruled)
		return;
	body = description(r);
	if (!body) {
		try_later(r, "out of memory");
		return;
	}
	ret = rest_call_start(loop_base(r->d->loop),
			      &(struct rest_call_spec){.api = r->d->conf.source_api,
						       .method = "POST",
						       .path = "/v1/guests",
						       .body = body},
			      on_registered, r, &r->call, &err);
	json_decref(body);
	if (ret)
		try_later(r, err.msg);
}

/* --- the guest --- */

static void on_gone(void *arg, struct guest *g, enum guest_gone how)
{
	struct resident *r = arg;

	guest_free(g);
	r->guest = NULL;
	if (how == GUEST_GONE_DEAD)
		log_notice("guest %s has ended", r->past->name);
	if (how == GUEST_GONE_DEAD)
		adopt_qemu_gone(r->past);
	if (how == GUEST_GONE_DEAD || r->moving)
		resident_free(r);
}

static void on_exit_(void *arg, const char *how)
{
	struct resident *r = arg;

	log_info("guest %s: its process has ended: %s", r->past->name, how);
	launch_free(r->launch);
	r->launch = NULL;
	if (!r->guest)
		resident_free(r);
}

/*
 * Not before a QEMU has lost the note of its arrival: decant-source takes none that has it, and a command that is on its
 * way when the monitor is let go may never be carried out.
 */
static void on_finished(void *arg, int ret, const struct error *err, int fd)
{
	struct resident *r = arg;

	(void)fd;
	r->tidying = false;
	if (ret == -ECONNRESET)
		return; /* it attaches again */
	if (ret && r->guest->arriving) {
		try_later(r, err->msg);
		return;
	}
	if (ret)
		log_warn("guest %s: %s", r->past->name, err->msg);
	resident_register(r);
}

static void finish(struct resident *r)
{
	int ret = guest_finish(r->guest, on_finished, r);

	if (ret)
		on_finished(r, ret, &(struct error){.msg = "it cannot be told to finish"}, -1);
}

static void on_uffd_closed(void *arg, int ret, const struct error *err, int fd)
{
	struct resident *r = arg;

	(void)fd;
	if (ret && ret != -ECONNRESET)
		log_warn("guest %s: %s", r->past->name, err->msg);
	if (ret == -ECONNRESET)
		r->tidying = false;
	else
		finish(r);
}

/* An earlier life of the agent may have ended between the record and this. */
static void begin(struct resident *r)
{
	const struct guest *g = r->guest;

	if (!g || r->tidying)
		return;
	r->tidying = g->kept_uffd || g->arriving;
	if (!r->tidying)
		resident_register(r);
	else if (!g->kept_uffd || guest_uffd_close(r->guest, on_uffd_closed, r))
		finish(r);
}

static void take(struct resident *r, struct guest *g)
{
	r->guest = g;
	guest_watch(g, on_gone, NULL, r);
	/* One that has just attached itself is welcomed only behind this. */
	if (!r->retry)
		r->retry = loop_timer(r->d->loop, 1, try_again, r);
}

int resident_new(struct dest *d, struct past *past, struct guest *guest, struct launch *launch)
{
	struct resident *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->d = d;
	r->past = past;
	r->wait_us = RETRY_MIN_US;
	r->launch = launch;
	r->next = d->residents;
	d->residents = r;
	if (launch)
		launch_watch(launch, on_exit_, r);
	if (guest)
		take(r, guest);
	return 0;
}

bool resident_attach(struct dest *d, struct guest *g)
{
	for (struct resident *r = d->residents; r; r = r->next) {
		if (r->guest || memcmp(r->past->uuid, g->uuid, MSG_UUID_LEN) != 0 ||
		    r->past->generation != g->generation)
			continue;
		r->moving = false;
		take(r, g);
		return true;
	}
	return false;
}
