/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State storing: a session whose guest is not moved but stored, as an image (image.h).
 *
 * Which rules could be broken here: 3, in its form for images: RECEIPT is sent only when the image is
 * complete, on the disk and has its name. Whatever ends the session before leaves nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "image.h"
#include "incoming_priv.h"
#include "util/cleanup.h"
#include "util/faultpoint.h"
#include "util/fdio.h"
#include "util/log.h"

/* For the source to close behind RECEIPT. */
#define CLOSE_US 5000000

int store_folder(const struct dest *d, char *out, size_t cap)
{
	return snprintf(out, cap, "%s/images", d->conf.agent.state_dir) < (int)cap ? 0
										   : -ENAMETOOLONG;
}

int store_start(const struct dest *d, struct error *err)
{
	char dir[4096];
	int r = store_folder(d, dir, sizeof(dir));

	if (!r)
		r = fdio_mkdir_p(dir, 0750);
	if (r)
		return error_set(err, r, NULL, "cannot make folder %s: %s", dir, strerror(-r));
	image_sweep(dir);
	return 0;
}

/* --- the beginning --- */

int store_wanted(struct incoming *inc, const struct msg *m, struct error *err)
{
	if (inc->store || inc->setup)
		return error_set(err, -EBADMSG, "unexpected-message", "STORE %s",
				 inc->store ? "came twice" : "behind SETUP");
	if (!(inc->capabilities & MSG_CAP_SNAPSHOT))
		return error_set(err, -EBADMSG, "unexpected-message",
				 "STORE without the capability");
	inc->store = malloc(sizeof(*inc->store));
	if (!inc->store)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	*inc->store = m->store;
	return 0;
}

void store_begin(struct incoming *inc)
{
	CLEANUP_FREE struct image_facts *f = calloc(1, sizeof(*f));
	struct inc_load *l = &inc->load;
	struct error err = {0};
	char dir[4096];
	int r = f ? store_folder(inc->d, dir, sizeof(dir)) : -ENOMEM;

	conn_set_timeout(inc->control, 0);
	l->hash = XXH3_createState();
	if (!l->hash || XXH3_64bits_reset(l->hash) == XXH_ERROR)
		r = -ENOMEM;
	if (!r) {
		memcpy(f->name, inc->store->name, sizeof(f->name));
		memcpy(f->id, inc->id, sizeof(f->id));
		f->created_us = inc->created_us;
		f->setup = *inc->setup;
		f->blocks = inc->blocks;
		f->machine = inc->facts;
		r = image_create(dir, f, &inc->writer, &err);
	}
	if (!r)
		r = worker_start(inc->d->loop, &inc->worker);
	if (r) {
		error_set(&err, r, NULL, "image %s: %s", inc->store->name, strerror(-r));
		incoming_event(inc, INC_EV_FAIL, &err);
		return;
	}
	inc->stage = STAGE_PREPARED;
	FAULTPOINT(IMAGE_CREATED);
	log_info("incoming %s: image %s of guest %s, %u blocks, %" PRIu64 " bytes", inc->id_text,
		 inc->store->name, inc->setup->name, inc->nblocks, inc->total);
	incoming_send_simple(inc, MSG_PREPARED);
}

/* --- the device state --- */

int store_state(struct incoming *inc, const struct msg *m, struct error *err)
{
	struct inc_load *l = &inc->load;
	int r;

	if (l->ended)
		return error_set(err, -EBADMSG, "unexpected-message", "STATE behind STATE_END");
	r = image_put_state(inc->writer, m->state.data, m->state.len, err);
	if (r)
		return r;
	XXH3_64bits_update(l->hash, m->state.data, m->state.len);
	l->bytes += m->state.len;
	return 0;
}

int store_state_end(struct incoming *inc, const struct msg *m, struct error *err)
{
	return load_check_end(&inc->load, m, err);
}

/* --- the end --- */

/** struct finishing - the job that completes the image; @inc is referenced */
struct finishing {
	struct worker_job job;
	struct incoming *inc;
};

static int run_finish(struct worker_job *job, struct error *err)
{
	return image_finish(((struct finishing *)job)->inc->writer, err);
}

/* Before the receipt, so that the source hears of a refusal. */
static int start_copy(struct incoming *inc, struct error *err)
{
	struct incoming *copy;
	int r = restore_begin(inc->d, inc->store->name, &copy, err);

	if (r)
		error_prefix(err, "image %s is stored, but no copy of the guest can be started",
			     inc->store->name);
	return r;
}

static void done_finish(struct worker_job *job)
{
	struct incoming *inc = ((struct finishing *)job)->inc;

	if (inc->state == INC_STORING && !job->ret && inc->store->start)
		job->ret = start_copy(inc, &job->err);
	if (inc->state == INC_STORING)
		incoming_event(inc, job->ret ? INC_EV_FAIL : INC_EV_STORED,
			       job->ret ? &job->err : NULL);
	incoming_unref(inc);
	free(job);
}

/* Bulk frames were answered by their barriers before COMPLETE was sent: nothing is waited for. */
int store_complete(struct incoming *inc, const struct msg *m, struct error *err)
{
	struct finishing *f;

	if (inc->complete)
		return error_set(err, -EBADMSG, "unexpected-message", "COMPLETE came twice");
	if (!inc->load.ended)
		return error_set(err, -EBADMSG, "unexpected-message", "COMPLETE before STATE_END");
	f = calloc(1, sizeof(*f));
	inc->complete = malloc(sizeof(*inc->complete));
	if (!f || !inc->complete) {
		free(f);
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	*inc->complete = m->complete;
	if (!settle_frames_agree(inc)) {
		free(f);
		return error_set(err, -EBADMSG, "counts-differ",
				 "COMPLETE counts other frames, digests or pages than have come");
	}
	f->job = (struct worker_job){.run = run_finish, .done = done_finish};
	f->inc = incoming_ref(inc);
	worker_push(inc->worker, &f->job);
	return 0;
}

static void send_receipt(struct incoming *inc)
{
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));

	if (!m)
		return;
	m->type = MSG_RECEIPT;
	m->receipt.digest_ok = true;
	m->receipt.n = inc->nblocks;
	for (unsigned int i = 0; i < inc->nblocks; i++)
		m->receipt.pages[i] = inc->blocks[i].length / inc->blocks[i].page_size;
	incoming_send(inc, m);
}

static void close_in_time(void *arg)
{
	settle_release(arg);
}

void store_do_stored(struct incoming *inc)
{
	inc->receipt_ok = 1;
	log_notice("incoming %s: image %s of guest %s is stored", inc->id_text, inc->store->name,
		   inc->setup->name);
	send_receipt(inc);
	FAULTPOINT(IMAGE_RECEIPT_QUEUED);
	inc->closing = true;
	incoming_timer(inc, inc->control ? CLOSE_US : 1, close_in_time);
}

void store_closed(struct incoming *inc)
{
	incoming_timer(inc, 1, close_in_time);
}
