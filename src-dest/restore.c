/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest out of a stored image: an incoming without a source. It goes through the same states as one
 * that arrives; what a source would send is read from the image instead: the fault thread provides
 * what the guest touches, a job of the worker fills in the rest.
 *
 * Which rules it could break: 1 and 2 are kept by place.h, through which everything is placed. 5: a
 * page that the image cannot give (it is damaged) stays missing and guarded: the guest is held there.
 * 4: an image can be restored as often as somebody asks for it; admit.c refuses a guest of a name or
 * uuid that is here.
 *
 * An agent's end: the record tells of the image, so that the next life reads on where this one was (revive.h).
 *
 * Pages larger than PLACE_PAGE_WHOLE cannot be placed when they are touched: a guest that has such is
 * filled before it starts, all of it, as by a precopy without a source.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <time.h>
#include "incoming_priv.h"
#include "revive.h"
#include "util/cleanup.h"
#include "util/digest.h"
#include "util/faultpoint.h"
#include "util/log.h"

/* Bytes that are filled in at a time. */
#define FILL_BYTES MSG_PAGES_RAW_MAX

/**
 * struct restore - what only an incoming out of an image has
 * @img:	the image
 * @whole:	the guest is filled before it starts
 * @page:	the largest page, for the fault thread
 * @state, @length, @fed: the device state, and how much of it the guest was given
 */
struct restore {
	struct image *img;
	bool whole;
	uint8_t *page;
	uint8_t *state;
	uint64_t length, fed;
};

void restore_free(struct restore *rs)
{
	if (!rs)
		return;
	image_close(rs->img);
	free(rs->page);
	free(rs->state);
	free(rs);
}

const char *restore_name(const struct restore *rs)
{
	return image_facts(rs->img)->name;
}

/* --- pages --- */

/* Read, checked, placed; what is there already stays. @buf: @length bytes of the calling thread */
static int put(struct incoming *inc, const struct place_io *io, unsigned int block, uint64_t offset,
	       uint64_t length, uint8_t *buf, struct error *err)
{
	struct msg_pages m = {.block = block,
			      .kind = MSG_PAGES_ZERO,
			      .offset = offset,
			      .length = length,
			      .pass = 1};
	bool zero;
	int r = image_read(inc->restore->img, block, offset, length, buf, &zero, err);

	if (r)
		return r;
	if (!zero) {
		m.kind = MSG_PAGES_RAW;
		m.digest = digest_xxh3(buf, length);
	}
	return place_pages(&inc->place, io, &m, buf, err);
}

static int provide(void *arg, const struct msg_request *m, const struct place_io *io,
		   struct error *err)
{
	struct incoming *inc = arg;

	return put(inc, io, m->block, m->offset, m->length, inc->restore->page, err);
}

static void on_trouble(void *arg, enum fault_trouble what, const struct error *err)
{
	bridge_fault_ops.trouble(arg, what, err);
}

const struct fault_ops restore_fault_ops = {.provide = provide, .trouble = on_trouble};

/* --- filling --- */

/** struct filling - the job; @inc is referenced */
struct filling {
	struct worker_job job;
	struct incoming *inc;
};

/* The fault thread has an event to read first. */
static int again(void *arg)
{
	const struct incoming *inc = arg;
	struct pollfd p = {.fd = inc->stop_fd, .events = POLLIN};
	struct timespec t = {.tv_nsec = 20000};

	return ppoll(&p, 1, &t, NULL) > 0 ? -ECANCELED : 0;
}

static bool stopped(const struct incoming *inc)
{
	struct pollfd p = {.fd = inc->stop_fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

/** struct parts - a page under way that is placed part by part */
struct parts {
	struct incoming *inc;
	struct place_io io;
	struct place_huge huge;
	unsigned int block;
};

static int put_part(struct parts *p, uint64_t offset, const uint8_t *data, struct error *err)
{
	struct msg_pages m = {.block = p->block,
			      .kind = MSG_PAGES_RAW,
			      .offset = offset,
			      .length = MSG_PAGES_RAW_MAX,
			      .pass = 1,
			      .digest = digest_xxh3(data, MSG_PAGES_RAW_MAX)};
	void *to = place_huge_room(&p->inc->place, &p->huge, &m, err);

	if (!to)
		return -EBADMSG;
	memcpy(to, data, MSG_PAGES_RAW_MAX);
	return place_huge_part(&p->inc->place, &p->io, &p->huge, &m, err);
}

/* The zeros before the first data are put when there is such: a page of zeros stays a hole. */
static int put_large(struct parts *p, uint64_t offset, uint8_t *buf, struct error *err)
{
	struct incoming *inc = p->inc;
	uint64_t page = inc->place.blocks[p->block].page_size, done = 0;
	bool zero;
	int r = 0;

	for (uint64_t off = 0; off < page && !r; off += MSG_PAGES_RAW_MAX) {
		r = stopped(inc) ? -ECANCELED
				 : image_read(inc->restore->img, p->block, offset + off,
					      MSG_PAGES_RAW_MAX, buf, &zero, err);
		if (r || (zero && !done))
			continue;
		for (; done < off && !r; done += MSG_PAGES_RAW_MAX)
			r = put_part(p, offset + done, inc->place.zeros, err);
		if (!r)
			r = put_part(p, offset + off, zero ? inc->place.zeros : buf, err);
		done = off + MSG_PAGES_RAW_MAX;
	}
	if (r || done)
		return r;
	return put(inc, &p->io, p->block, offset, page, buf, err);
}

static int fill_large(struct incoming *inc, unsigned int i, uint8_t *buf, struct error *err)
{
	struct parts p = {.inc = inc, .io = {again, inc}, .block = i};
	const struct place_block *b = &inc->place.blocks[i];
	uint64_t page = 0;
	int r = 0;

	for (; !r && (page = pages_next_missing(b->pages, page)) < b->npages; page++)
		r = put_large(&p, page << b->shift, buf, err);
	place_huge_free(&p.huge);
	return r;
}

static int fill_block(struct incoming *inc, unsigned int i, uint8_t *buf, struct error *err)
{
	const struct place_io io = {again, inc};
	const struct place_block *b = &inc->place.blocks[i];
	uint64_t most = MAX(FILL_BYTES >> b->shift, 1u), page = 0;
	int r = 0;

	while (!r && (page = pages_next_missing(b->pages, page)) < b->npages) {
		uint64_t n = MIN(most, b->npages - page);

		FAULTPOINT(RESTORE_FILL_DUE);
		r = stopped(inc) ? -ECANCELED
				 : put(inc, &io, i, page << b->shift, n << b->shift, buf, err);
		page += n;
	}
	return r;
}

static int run_fill(struct worker_job *job, struct error *err)
{
	struct incoming *inc = ((struct filling *)job)->inc;
	CLEANUP_FREE uint8_t *buf = NULL;
	uint64_t most = FILL_BYTES;
	int r = 0;

	for (unsigned int i = 0; i < inc->place.n; i++) {
		uint64_t whole = MIN(inc->place.blocks[i].page_size, (uint64_t)PLACE_PAGE_WHOLE);
		most = MAX(most, whole);
	}
	buf = malloc(most);
	if (!buf)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	for (unsigned int i = 0; !r && i < inc->place.n; i++)
		r = inc->place.blocks[i].page_size > PLACE_PAGE_WHOLE
			    ? fill_large(inc, i, buf, err)
			    : fill_block(inc, i, buf, err);
	return r;
}

static void listen_to_nobody(struct incoming *inc);

static void filled_before(struct incoming *inc, struct worker_job *job)
{
	if (job->ret)
		incoming_event(inc, INC_EV_FAIL, &job->err);
	else
		listen_to_nobody(inc);
}

static void done_fill(struct worker_job *job)
{
	struct incoming *inc = ((struct filling *)job)->inc;

	if (inc->state == INC_ADVISE)
		filled_before(inc, job);
	else if (job->ret && job->ret != -ECANCELED && job->ret != -ESRCH &&
		 inc->state == INC_RUNNING)
		incoming_event(inc, INC_EV_FAIL, &job->err);
	else if (!job->ret)
		settle_look(inc);
	incoming_unref(inc);
	free(job);
}

void restore_fill(struct incoming *inc)
{
	struct filling *f = calloc(1, sizeof(*f));

	if (!f) {
		incoming_failf(inc, -ENOMEM, NULL, "out of memory");
		return;
	}
	f->job = (struct worker_job){.run = run_fill, .done = done_fill};
	f->inc = incoming_ref(inc);
	worker_push(inc->worker, &f->job);
}

/* --- from PREPARED to COMMIT, without a source --- */

static void end_state(struct incoming *inc)
{
	struct restore *rs = inc->restore;
	struct msg m = {.type = MSG_STATE_END};
	struct error err = {0};

	FAULTPOINT(RESTORE_STATE_FED);
	m.state_end.length = rs->length;
	m.state_end.digest = digest_xxh3(rs->state ? rs->state : (uint8_t *)"", rs->length);
	free(steal_ptr(&rs->state));
	if (load_state_end(inc, &m, &err))
		incoming_event(inc, INC_EV_FAIL, &err);
}

void restore_feed(struct incoming *inc)
{
	struct restore *rs = inc->restore;
	struct error err = {0};
	int r = 0;

	if (inc->state != INC_LISTENING || inc->load.ended)
		return;
	while (!r && rs->fed < rs->length && !inc->load.rest) {
		uint32_t n = (uint32_t)MIN(rs->length - rs->fed, (uint64_t)MSG_BODY_MAX);
		struct msg m = {.type = MSG_STATE,
				.state = {.data = rs->state + rs->fed, .len = n}};

		r = load_state(inc, &m, &err);
		rs->fed += n;
	}
	if (r)
		incoming_event(inc, INC_EV_FAIL, &err);
	else if (!inc->load.rest)
		end_state(inc);
}

void restore_prepared(struct incoming *inc)
{
	if (inc->restore->whole)
		restore_fill(inc);
	else
		listen_to_nobody(inc);
}

static void may_own(struct journal_wait *w, int ret, const struct error *err)
{
	struct incoming *inc = w->arg;

	if (ret) {
		incoming_event(inc, INC_EV_FAIL, err);
		return;
	}
	FAULTPOINT(RESTORE_MAY_OWN_JOURNALED);
	inc->stage = STAGE_INTENT;
	atomic_store(&inc->place.regime, PLACE_CLOSED);
	incoming_event(inc, INC_EV_SWITCH, NULL);
	if (inc->state != INC_DISCARD)
		return;
	inc->listen_postcopy = !inc->restore->whole;
	incoming_event(inc, INC_EV_LISTEN, NULL);
	restore_feed(inc);
}

static void listen_to_nobody(struct incoming *inc)
{
	struct error err = {0};
	json_t *more = revive_record(inc);
	int r = more ? history_note(inc->past, HISTORY_MAY_OWN, more, HISTORY_APART,
				    incoming_synced(inc, may_own), &err)
		     : error_set(&err, -ENOMEM, NULL, "out of memory");

	json_decref(more);
	if (r)
		incoming_event(inc, INC_EV_FAIL, &err);
	else
		inc->stage = STAGE_MAY_OWN;
}

void restore_ready(struct incoming *inc)
{
	struct msg m = {.type = MSG_COMMIT, .number = {.value = inc->past->generation}};
	struct error err = {0};

	FAULTPOINT(RESTORE_READY);
	if (handover_commit(inc, &m, &err))
		incoming_event(inc, INC_EV_FAIL, &err);
}

/*
 * Nothing is lost with it: it never ran, and its image is as it was. Held, it would keep a name and
 * memory for nobody. Rule 5: it keeps its copy of the userfaultfd as long as it lives.
 */
void restore_not_run(struct incoming *inc, const struct error *why)
{
	if (inc->guest)
		pidfd_send_signal(inc->guest->pidfd, SIGKILL, NULL, 0);
	if (inc->launch)
		launch_kill(inc->launch);
	incoming_event(inc, INC_EV_GONE, why);
}

/* --- the beginning --- */

static int describe(struct incoming *inc, const struct image_facts *f, struct error *err)
{
	uint64_t page_max = 0;

	inc->setup = malloc(sizeof(*inc->setup));
	inc->blocks = calloc(f->setup.blocks + 1, sizeof(*inc->blocks));
	if (!inc->setup || !inc->blocks)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	*inc->setup = f->setup;
	inc->facts = json_incref(f->machine);
	inc->nblocks = f->setup.blocks;
	inc->total = f->total;
	for (unsigned int i = 0; i < inc->nblocks; i++) {
		inc->blocks[i] = f->blocks[i];
		page_max = MAX(page_max, (uint64_t)f->blocks[i].page_size);
	}
	inc->restore->whole = page_max > PLACE_PAGE_WHOLE;
	/* Its pages are provided when they are touched, whatever the snapshot's options were. */
	inc->setup->may_postcopy = !inc->restore->whole;
	inc->restore->page = malloc(inc->restore->whole || !page_max ? 1 : page_max);
	if (!inc->restore->page)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	inc->restore->length = f->state_bytes;
	return image_read_state(inc->restore->img, &inc->restore->state, err);
}

static int open_image(const struct dest *d, const char *name, struct image **ret, struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	char dir[4096];
	int r = image_name_ok(name) ? store_folder(d, dir, sizeof(dir)) : -ENOENT;

	if (!r && asprintf(&path, "%s/%s" IMAGE_SUFFIX, dir, name) < 0) {
		path = NULL;
		r = -ENOMEM;
	}
	if (!r)
		r = image_open(path, true, ret, err);
	return r == -ENOENT ? (error_clear(err),
			       error_set(err, -ENOENT, "no-such-snapshot",
					 "no image is named %s (decant-dest snapshots lists them)",
					 name))
			    : r;
}

int restore_begin(struct dest *d, const char *name, struct incoming **ret, struct error *err)
{
	struct restore *rs = calloc(1, sizeof(*rs));
	struct incoming *inc = NULL;
	int r = rs ? open_image(d, name, &rs->img, err) : -ENOMEM;

	if (!r)
		r = incoming_local(d, "image", &inc, err);
	if (r) {
		restore_free(rs);
		return error_set(err, r, NULL, "image %s: %s", name, strerror(-r));
	}
	inc->restore = rs;
	if (!strcmp(image_facts(rs->img)->setup.driver, "uffd"))
		r = error_set(err, -EOPNOTSUPP, "driver-uffd",
			      "image %s is the memory of a micro-VM, which no launcher starts: use "
			      "decant-dest uffd",
			      name);
	else
		r = describe(inc, image_facts(rs->img), err);
	if (r) {
		incoming_remove(inc);
		return r;
	}
	FAULTPOINT(RESTORE_BEGUN);
	log_info("incoming %s: guest %s out of image %s", inc->id_text, inc->setup->name, name);
	incoming_event(inc, INC_EV_SETUP, NULL);
	if (inc->state == INC_END) {
		/* Refused; it goes away by itself. */
		*err = inc->err;
		return -EBUSY;
	}
	*ret = inc;
	return 0;
}

/* --- after a restart --- */

json_t *restore_record(const struct restore *rs)
{
	const struct image_facts *f = image_facts(rs->img);
	char id[UUID_TEXT_MAX];

	return json_pack("{s:s, s:s}", "name", f->name, "id", uuid_text(f->id, id));
}

/* Rule 2: what is here stays, and what is missing may come out of no other image. */
int restore_again(struct incoming *inc, const char *name, const char *id, struct error *err)
{
	struct restore *rs = inc->restore = calloc(1, sizeof(*rs));
	uint8_t want[UUID_LEN];
	uint64_t page_max = 1;
	int r = rs ? open_image(inc->d, name, &rs->img, err)
		   : error_set(err, -ENOMEM, NULL, "out of memory");

	if (r)
		return r;
	if (uuid_parse(id, want) || memcmp(want, image_facts(rs->img)->id, sizeof(want)) != 0)
		return error_set(err, -ESTALE, "image-differs",
				 "image %s is another one than it was being restored from", name);
	for (unsigned int i = 0; i < inc->nblocks; i++)
		page_max = MAX(page_max, (uint64_t)inc->blocks[i].page_size);
	rs->whole = page_max > PLACE_PAGE_WHOLE;
	rs->page = malloc(rs->whole ? 1 : page_max);
	r = rs->page ? worker_start(inc->d->loop, &inc->worker) : -ENOMEM;
	return r ? error_set(err, r, NULL, "image %s: %s", name, strerror(-r)) : 0;
}
