/* SPDX-License-Identifier: Apache-2.0 */
#include "revive.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>
#include "guest/qemu/inject.h"
#include "guest/qemu/qemu_proc.h"
#include "incoming_priv.h"
#include "proc.h"
#include "util/cleanup.h"
#include "util/faultpoint.h"
#include "util/jsonx.h"
#include "util/log.h"

/* Of what "may-own" says of the memory: another one is left alone. */
#define VERSION 1
/* What a userfaultfd is in /proc/PID/fd. */
#define UFFD_LINK "anon_inode:[userfaultfd]"

uint32_t revive_tag(const uint8_t id[static MSG_UUID_LEN])
{
	uint32_t tag;

	memcpy(&tag, id, sizeof(tag));
	return tag | 1;
}

/* --- the record --- */

static json_t *block_json(const struct msg_block *b, uint64_t addr)
{
	return json_pack("{s:s, s:i, s:I, s:I, s:I, s:I}", "name", b->name, "kind", b->kind,
			 "flags", (json_int_t)b->flags, "page_size", (json_int_t)b->page_size,
			 "length", (json_int_t)b->length, "address", (json_int_t)addr);
}

json_t *revive_record(const struct incoming *inc)
{
	json_t *blocks = json_array();

	for (unsigned int i = 0; blocks && i < inc->nblocks; i++)
		if (json_array_append_new(
			    blocks,
			    block_json(&inc->blocks[i], inc->place.blocks[i].mem.block.addr))) {
			json_decref(blocks);
			return NULL;
		}
	return json_pack("{s:{s:i, s:b, s:b, s:o, s:o*}}", "place", "version", VERSION, "paused",
			 inc->setup->paused, "may_postcopy", inc->setup->may_postcopy, "blocks",
			 blocks, "image", inc->restore ? restore_record(inc->restore) : NULL);
}

/**
 * struct noted - what the record says
 * @inc:	whose blocks are filled
 * @addr:	where they are in the guest
 * @image:	whose id and name these are, of a guest that was being restored
 */
struct noted {
	struct incoming *inc;
	uint32_t version;
	bool paused;
	bool may_postcopy;
	char image[MSG_NAME_MAX];
	char image_id[UUID_TEXT_MAX];
	uint64_t addr[MSG_BLOCKS_MAX];
};

/** struct noted_block - one of them as it is read */
struct noted_block {
	struct msg_block b;
	uint64_t address;
};

static const struct jsonx_field block_fields[] = {
	{"name", JSONX_CHARS, .required = true, .min = 1, JSONX_INTO(struct noted_block, b.name)},
	{"kind", JSONX_UINT, .required = true, .min = MSG_BLOCK_MEMFD, .max = MSG_BLOCK_HUGETLB,
	 JSONX_INTO(struct noted_block, b.kind)},
	{"flags", JSONX_UINT, .required = true, JSONX_INTO(struct noted_block, b.flags)},
	{"page_size", JSONX_UINT, .required = true, .min = 4096, .max = PLACE_PAGE_WHOLE,
	 JSONX_INTO(struct noted_block, b.page_size)},
	{"length", JSONX_UINT, .required = true, .min = 4096, .max = MSG_MEMORY_MAX,
	 JSONX_INTO(struct noted_block, b.length)},
	{"address", JSONX_UINT, .required = true, JSONX_INTO(struct noted_block, address)},
};

static int take_block(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	struct noted *n = obj;
	struct incoming *inc = n->inc;
	struct noted_block b = {0};
	int r = jsonx_read(value, at, block_fields, ARRAY_SIZE(block_fields), &b);

	(void)key;
	if (r)
		return r;
	if (b.b.page_size & (b.b.page_size - 1) || b.b.length % b.b.page_size ||
	    b.b.length > MSG_MEMORY_MAX - inc->total)
		return jsonx_bad(at, "is no block that there can be");
	b.b.index = inc->nblocks;
	n->addr[inc->nblocks] = b.address;
	inc->blocks[inc->nblocks++] = b.b;
	inc->total += b.b.length;
	return 0;
}

static const struct jsonx_field image_fields[] = {
	{"name", JSONX_CHARS, .required = true, .min = 1, JSONX_INTO(struct noted, image)},
	{"id", JSONX_CHARS, .required = true, .min = 1, JSONX_INTO(struct noted, image_id)},
};

static int take_image(const json_t *value, const char *key, const struct jsonx_at *at, void *obj)
{
	(void)key;
	return jsonx_read(value, at, image_fields, ARRAY_SIZE(image_fields), obj);
}

static const struct jsonx_field place_fields[] = {
	{"version", JSONX_UINT, .required = true, JSONX_INTO(struct noted, version)},
	{"paused", JSONX_BOOL, .required = true, JSONX_INTO(struct noted, paused)},
	{"may_postcopy", JSONX_BOOL, .required = true, JSONX_INTO(struct noted, may_postcopy)},
	{"blocks", JSONX_EACH, .required = true, .max = MSG_BLOCKS_MAX, .take = take_block},
	{"image", JSONX_ANY, .take = take_image},
};

static const char *fact(const struct past *p, const char *key)
{
	const char *s = json_string_value(json_object_get(p->facts, key));

	return s ? s : "";
}

static void set_vars(struct msg_setup *s, json_t *vars)
{
	const char *key;
	json_t *value;

	json_object_foreach(vars, key, value) {
		struct msg_var *v = &s->vars[s->nvars];

		if (s->nvars == MSG_VARS_MAX)
			return;
		snprintf(v->key, sizeof(v->key), "%s", key);
		snprintf(v->value, sizeof(v->value), "%s", json_string_value(value));
		s->nvars++;
	}
}

/* SETUP and BLOCK, as far as anybody asks for them behind COMMIT. */
static int set_setup(struct incoming *inc, const struct past *p, struct noted *n, struct error *err)
{
	struct jsonx_at at = {"place", "bad-journal", err};
	struct msg_setup *s;
	int r;

	inc->setup = s = calloc(1, sizeof(*s));
	inc->blocks = calloc(MSG_BLOCKS_MAX, sizeof(*inc->blocks));
	if (!s || !inc->blocks)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	n->inc = inc;
	r = jsonx_read(p->place, &at, place_fields, ARRAY_SIZE(place_fields), n);
	if (r)
		return r;
	snprintf(s->name, sizeof(s->name), "%s", p->name);
	memcpy(s->uuid, p->uuid, sizeof(s->uuid));
	s->generation = p->generation - 1;
	snprintf(s->driver, sizeof(s->driver), "%s", fact(p, "driver"));
	snprintf(s->launcher, sizeof(s->launcher), "%s", fact(p, "launcher"));
	s->paused = n->paused;
	s->may_postcopy = n->may_postcopy;
	s->blocks = inc->nblocks;
	set_vars(s, json_object_get(p->facts, "vars"));
	return 0;
}

/*
 * Held from the beginning: what its threads may have to say is no news then. One that is restored needs
 * nobody else, and goes on.
 */
static int make(struct dest *d, const struct past *p, struct noted *n, struct incoming **ret,
		struct error *err)
{
	const char *qmp = json_string_value(json_object_get(p->facts, "qmp"));
	uint8_t id[MSG_UUID_LEN];
	struct incoming *inc;
	int r = uuid_parse(p->id, id);

	inc = r ? NULL : incoming_new(d, id, p->identity, fact(p, "from"));
	if (!inc)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	inc->state = INC_HELD;
	inc->stage = STAGE_INTENT;
	inc->created_us = (uint64_t)json_integer_value(json_object_get(p->facts, "created"));
	if (qmp && !(inc->qmp = strdup(qmp)))
		r = error_set(err, -ENOMEM, NULL, "out of memory");
	if (!r)
		r = set_setup(inc, p, n, err);
	if (!r)
		r = prepare_log_path(inc, err);
	if (!r && *n->image) {
		inc->state = INC_RUNNING;
		r = restore_again(inc, n->image, n->image_id, err);
	}
	if (r) {
		incoming_unref(inc);
		return r;
	}
	inc->log_from = launch_log_size(inc->log_path);
	*ret = inc;
	return 0;
}

/* --- the memory --- */

/* Where it was registered: at another address the descriptor guards nothing. */
static int check_addresses(const struct incoming *inc, const struct noted *n, struct error *err)
{
	for (unsigned int i = 0; i < inc->nblocks; i++)
		if (inc->place.blocks[i].mem.block.addr != n->addr[i])
			return error_set(err, -EINVAL, "block-differs",
					 "block %s is at 0x%" PRIx64 " and was at 0x%" PRIx64,
					 inc->blocks[i].name, inc->place.blocks[i].mem.block.addr,
					 n->addr[i]);
	return 0;
}

static int guard(struct incoming *inc, struct error *err)
{
	int r = fault_start(&inc->place, NULL, &inc->urgent_tally,
			    inc->restore ? &restore_fault_ops : &bridge_fault_ops, inc,
			    &inc->fault);

	if (r)
		return error_set(err, r, NULL, "the fault thread: %s", strerror(-r));
	FAULTPOINT(GUARDED_AGAIN);
	if (!inc->restore)
		fault_hold(inc->fault);
	return place_register_again(&inc->place, err);
}

static int take_memory(struct incoming *inc, const struct past *p, const struct guest *g, int uffd,
		       const struct noted *n, struct error *err)
{
	unsigned int block;
	uint64_t off;
	int r = prepare_place(inc, g, true, err);

	/* place_init() has cleared it. */
	inc->place.uffd = uffd;
	if (!r)
		r = check_addresses(inc, n, err);
	if (r)
		return r;
	atomic_store(&inc->place.pass, p->pass);
	inc->listen_postcopy = p->listened;
	if (p->listened) {
		atomic_store(&inc->place.regime, PLACE_LIVE);
		return guard(inc, err);
	}
	atomic_store(&inc->place.regime, PLACE_CLOSED);
	if (place_first_missing(&inc->place, &block, &off))
		return error_set(err, -ENODATA, "pages-missing",
				 "block %s has not been received at 0x%" PRIx64
				 ", and nothing guards it",
				 inc->blocks[block].name, off);
	return 0;
}

/* Nothing is told to anybody: the guest waits as it did. */
static void undo(struct incoming *inc)
{
	fault_stop(steal_ptr(&inc->fault));
	worker_stop(steal_ptr(&inc->worker));
	if (inc->placed)
		place_clear(&inc->place);
	incoming_unref(inc);
}

/* --- taking over --- */

static bool told(const struct past *p)
{
	return p->place && json_integer_value(json_object_get(p->place, "version")) == VERSION;
}

bool revive_is_qemu(const struct past *p)
{
	return told(p) && p->listened && *fact(p, "qmp");
}

int revive_check(const struct past *p, const struct guest *g, struct error *err)
{
	uint8_t id[MSG_UUID_LEN];

	if (!told(p) || uuid_parse(p->id, id))
		return error_set(err, -EOPNOTSUPP, "guest-held",
				 "its record does not tell of its memory: another version of this "
				 "agent has written it");
	if (!p->listened)
		return 1;
	if (!g->kept_uffd || g->kept_tag != revive_tag(id))
		return error_set(err, -ENOENT, "userfaultfd",
				 "its process has not kept the userfaultfd of this migration");
	return 0;
}

static int begin(struct dest *d, struct past *p, struct incoming **ret, struct noted **ret_n,
		 struct error *err)
{
	CLEANUP_FREE struct noted *n = calloc(1, sizeof(*n));
	int r = n ? make(d, p, n, ret, err) : error_set(err, -ENOMEM, NULL, "out of memory");

	if (!r)
		*ret_n = steal_ptr(&n);
	return r;
}

static void taken_over(struct incoming *inc, struct past *p)
{
	inc->past = p;
	p->live = true;
	incoming_add(inc);
	incoming_tell_again(inc);
	if (inc->restore) {
		log_notice("incoming %s: guest %s goes on to be restored out of image %s",
			   inc->id_text, inc->setup->name, restore_name(inc->restore));
		return;
	}
	log_warn(
		"incoming %s: guest %s is held since the agent was started again, until its source "
		"makes a session: pages are missing",
		inc->id_text, inc->setup->name);
}

int revive(struct dest *d, struct past *p, struct guest *g, int uffd, struct error *err)
{
	CLEANUP_FREE struct noted *n = NULL;
	CLEANUP_CLOSE int fd = uffd;
	struct incoming *inc = NULL;
	int r = begin(d, p, &inc, &n, err);

	if (r)
		return r;
	r = take_memory(inc, p, g, fd, n, err);
	if (r) {
		undo(inc);
		return r;
	}
	FAULTPOINT(MEMORY_TAKEN);
	steal_fd(&fd);
	inc->guest = g;
	inc->resumed = g->run_state != GUEST_PAUSED_MIGRATION;
	prepare_guest_watch(inc);
	taken_over(inc, p);
	if (inc->resumed)
		settle_look(inc);
	else
		handover_let_go(inc);
	if (inc->restore && inc->state == INC_RUNNING)
		restore_fill(inc);
	return 0;
}

/* --- a QEMU that does not answer yet --- */

static void forget(struct guest *g)
{
	for (unsigned int i = 0; g->blocks && i < g->nblocks; i++)
		if (g->blocks[i].fd >= 0)
			close(g->blocks[i].fd);
	free(g->blocks);
	if (g->pidfd >= 0)
		close(g->pidfd);
}

/* What it would say of itself, as far as its memory goes. */
static int look_at(struct guest *g, const struct incoming *inc, const struct past *p,
		   const struct noted *n, struct error *err)
{
	int r = 0;

	snprintf(g->name, sizeof(g->name), "%s", p->name);
	g->pid = p->pid;
	g->names_vcpus = true;
	g->pidfd = pidfd_open(p->pid, 0);
	if (g->pidfd < 0 || !proc_lives(p->pid, p->pid_start))
		return error_set(err, -ESRCH, "guest-gone", "guest %s has died", p->name);
	g->blocks = calloc(inc->nblocks ? inc->nblocks : 1, sizeof(*g->blocks));
	if (!g->blocks)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	for (unsigned int i = 0; i < inc->nblocks && !r; i++) {
		struct guest_block *b = &g->blocks[g->nblocks++];

		*b = (struct guest_block){.index = (uint16_t)i,
					  .length = inc->blocks[i].length,
					  .addr = n->addr[i],
					  .fd = -1};
		if (inc->blocks[i].flags & MSG_BLOCK_READONLY)
			b->flags |= GUEST_BLOCK_READONLY;
		snprintf(b->name, sizeof(b->name), "%s", inc->blocks[i].name);
		r = qemu_proc_block(g->pid, b, true, err);
	}
	return r;
}

static int fetch_uffd(const struct guest *g, struct error *err)
{
	int there = qemu_proc_fd_of(g->pid, UFFD_LINK);
	int fd = there < 0 ? there : inject_fetch(g->pidfd, there);

	return fd < 0 ? error_set(err, fd, "userfaultfd", "the kept userfaultfd: %s", strerror(-fd))
		      : fd;
}

int revive_qemu(struct dest *d, struct past *p, struct error *err)
{
	CLEANUP_FREE struct noted *n = NULL;
	CLEANUP_CLOSE int fd = -1;
	struct guest g = {.pidfd = -1};
	struct incoming *inc = NULL;
	int r = begin(d, p, &inc, &n, err);

	if (r)
		return r;
	r = look_at(&g, inc, p, n, err);
	if (!r) {
		fd = fetch_uffd(&g, err);
		r = fd < 0 ? fd : take_memory(inc, p, &g, fd, n, err);
	}
	forget(&g);
	if (r) {
		undo(inc);
		return r;
	}
	steal_fd(&fd);
	taken_over(inc, p);
	if (inc->restore)
		restore_fill(inc);
	return 0;
}

void revive_ended(struct dest *d, const struct past *p)
{
	struct incoming *inc = d->incomings;
	struct error err = {0};

	while (inc && inc->past != p)
		inc = inc->next;
	if (!inc || inc->state == INC_END)
		return;
	error_set(&err, -ESRCH, "guest-gone", "guest %s has died", p->name);
	incoming_event(inc, INC_EV_GONE, &err);
}
