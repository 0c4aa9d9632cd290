/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a guest may come: said by name before anything is started. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "incoming_priv.h"
#include "proc.h"
#include "resident.h"
#include "util/cleanup.h"

/* --- limits and names --- */

int admit_limits(struct incoming *inc, struct error *err)
{
	uint64_t limit = inc->d->conf.limit_memory_bytes, used = 0;

	for (const struct incoming *o = inc->d->incomings; o; o = incoming_next(o))
		if (o != inc && incoming_admitted(o))
			used += incoming_memory(o);
	if (limit && (inc->total > limit || used > limit - inc->total))
		return error_set(err, -ENOMEM, "limit-memory",
				 "guest %s has %" PRIu64 " bytes, other incoming ones %" PRIu64
				 ", and the limit is %" PRIu64 " (limits.memory_bytes)",
				 inc->setup->name, inc->total, used, limit);
	return 0;
}

static int taken(const struct incoming *inc, const char *how, struct error *err)
{
	return error_set(err, -EEXIST, "guest-exists", "a guest of the name or uuid of %s %s",
			 inc->setup->name, how);
}

/* What is kept of a lost session is of no use to a source that begins anew. Return: whether it gives way */
static bool give_way(const struct incoming *inc, struct incoming *o, struct error *err)
{
	if (incoming_state(o) != INC_WAITING || strcmp(o->identity, inc->identity) != 0)
		return false;
	error_set(err, -ECONNRESET, "lost", "its source has begun another migration of the guest");
	incoming_event(o, INC_EV_LOST, err);
	return true;
}

/*
 * Rule 4: one that arrived here lives here in a newer generation than what is offered now, as a copy
 * of an earlier time that somebody kept. Its decant-source, which would say so, need not be there, and knows its
 * guests by names. Of the same generation it may be the very guest, on its way from this host to this host.
 */
static bool is_outdated(const struct msg_setup *s, const struct past *p)
{
	return p->same_boot && (p->fate == HISTORY_COMPLETED || p->fate == HISTORY_OWNER) &&
	       !memcmp(p->uuid, s->uuid, MSG_UUID_LEN) && p->generation > s->generation &&
	       proc_lives(p->pid, p->pid_start);
}

static int check_outdated(const struct incoming *inc, const struct past *p, struct error *err)
{
	if (!is_outdated(inc->setup, p))
		return 0;
	return error_set(err, -EEXIST, "guest-outdated",
			 "guest %s is offered in generation %" PRIu64
			 ", and process %d here is the same guest in generation %" PRIu64
			 ": what is offered is an older copy; end either of them",
			 inc->setup->name, inc->setup->generation, (int)p->pid, p->generation);
}

int admit_resident(struct incoming *inc, struct error *err)
{
	const struct msg_setup *s = inc->setup;

	for (struct incoming *o = inc->d->incomings; o; o = incoming_next(o))
		if (o != inc && incoming_state(o) != INC_END &&
		    incoming_is_guest(o, s->name, s->uuid))
			return taken(
				inc,
				give_way(inc, o, err)
					? "was arriving here by a session that was lost, which is "
					  "given up now: try again"
					: "is arriving here already: see decant-dest incoming",
				err);
	if (resident_find(inc->d, s->name, s->uuid))
		return taken(inc, "runs here: end it, or move it away first", err);
	for (const struct past *p = history_first(inc->d->history); p; p = p->next) {
		if (!p->live && p->same_boot && p->fate == HISTORY_OWNER &&
		    (!strcmp(p->name, s->name) || !memcmp(p->uuid, s->uuid, MSG_UUID_LEN)))
			return taken(inc,
				     "is held here, by a migration that was cut off: see "
				     "decant-dest incoming",
				     err);
		if (check_outdated(inc, p, err))
			return -EEXIST;
	}
	return 0;
}

int admit_launcher(struct incoming *inc, struct error *err)
{
	const struct msg_setup *s = inc->setup;
	const struct conf_launcher *l = conf_dest_launcher(&inc->d->conf, s->launcher);

	if (!*s->launcher)
		return error_set(
			err, -EINVAL, "no-launcher",
			"guest %s names no launcher: give its description one that this host's "
			"configuration has",
			s->name);
	if (!l)
		return error_set(err, -ENOENT, "unknown-launcher",
				 "no launcher \"%s\" is configured on this host (launchers)",
				 s->launcher);
	if (strcmp(conf_guest_driver_name(l->driver), s->driver) != 0)
		return error_set(err, -EINVAL, "wrong-driver",
				 "guest %s has driver %s and launcher \"%s\" here starts guests of "
				 "driver %s",
				 s->name, s->driver, l->name, conf_guest_driver_name(l->driver));
	inc->launcher = l;
	return 0;
}

/* --- the host and the blocks --- */

static int check_block(const struct incoming *inc, const struct msg_block *b, struct error *err)
{
	uint64_t host = (uint64_t)sysconf(_SC_PAGESIZE);

	if (b->kind != MSG_BLOCK_HUGETLB && b->page_size != host)
		return error_set(err, -EOPNOTSUPP, "page-size",
				 "block %s has pages of %u bytes and this host of %" PRIu64,
				 b->name, b->page_size, host);
	if (b->page_size & (b->page_size - 1) || b->page_size < host)
		return error_set(err, -EOPNOTSUPP, "page-size",
				 "block %s has pages of %u bytes: this host has none such", b->name,
				 b->page_size);
	if (b->page_size > PLACE_PAGE_WHOLE && inc->setup->may_postcopy)
		return error_set(err, -EOPNOTSUPP, "page-size",
				 "block %s has pages of %u MiB, which cannot arrive by post-copy "
				 "(at most %u MiB): use mode precopy",
				 b->name, b->page_size >> 20, PLACE_PAGE_WHOLE >> 20);
	if (b->length % b->page_size)
		return error_set(err, -EBADMSG, "bad-message",
				 "block %s: length %" PRIu64
				 " is not a multiple of its page size %u",
				 b->name, b->length, b->page_size);
	if (b->kind == MSG_BLOCK_HUGETLB && inc->setup->may_postcopy &&
	    !(inc->d->caps.features & UFFD_F_MISSING_HUGETLBFS))
		return error_set(
			err, -EOPNOTSUPP, "host-postcopy",
			"block %s has huge pages and this host's kernel cannot receive them by "
			"post-copy (no MISSING_HUGETLBFS): use mode precopy",
			b->name);
	return 0;
}

static int check_postcopy(const struct incoming *inc, struct error *err)
{
	if (!inc->setup->may_postcopy)
		return 0;
	if (inc->d->caps_ret) {
		*err = inc->d->caps_err;
		error_prefix(err, "this host cannot receive by post-copy, use mode precopy");
		return inc->d->caps_ret;
	}
	if (!uffd_caps_postcopy(&inc->d->caps, err))
		return 0;
	error_prefix(err, "this host cannot receive by post-copy, use mode precopy");
	return -EOPNOTSUPP;
}

int admit_host(struct incoming *inc, struct error *err)
{
	int r = check_postcopy(inc, err);

	for (unsigned int i = 0; !r && i < inc->nblocks; i++)
		r = check_block(inc, &inc->blocks[i], err);
	return r;
}

int admit_driver(struct incoming *inc, struct error *err)
{
	if (!conf_guest_name_ok(inc->setup->name))
		return error_set(err, -EINVAL, "bad-name", "\"%s\" is no name of a guest here",
				 inc->setup->name);
	if (strcmp(inc->setup->driver, conf_guest_driver_name(GUEST_DRIVER_NATIVE)) != 0 &&
	    strcmp(inc->setup->driver, conf_guest_driver_name(GUEST_DRIVER_QEMU)) != 0)
		return error_set(err, -EOPNOTSUPP, "not-supported",
				 "driver \"%s\" is not supported", inc->setup->driver);
	return 0;
}

/* --- the guest that attached itself --- */

static_assert((int)MSG_BLOCK_MEMFD == (int)GUEST_BLOCK_MEMFD &&
		      (int)MSG_BLOCK_ANON == (int)GUEST_BLOCK_ANON &&
		      (int)MSG_BLOCK_HUGETLB == (int)GUEST_BLOCK_HUGETLB,
	      "kinds of blocks have the same numbers on the wire and in the guest");

/* What backs a QEMU's memory is its launcher's matter, as long as it has pages of that size. */
static bool same_kind(const struct msg_setup *s, const struct msg_block *want,
		      const struct guest_block *have)
{
	return want->kind == (uint8_t)have->kind ||
	       (!strcmp(s->driver, conf_guest_driver_name(GUEST_DRIVER_QEMU)) &&
		want->kind != MSG_BLOCK_HUGETLB && have->kind != GUEST_BLOCK_HUGETLB);
}

static int compare_block(const struct msg_setup *s, const struct msg_block *want,
			 const struct guest_block *have, struct error *err)
{
	if (!same_kind(s, want, have))
		return error_set(err, -EINVAL, "block-differs",
				 "block %s is %s at the source and %s here", want->name,
				 guest_block_kind_name((enum guest_block_kind)want->kind),
				 guest_block_kind_name(have->kind));
	if (want->length != have->length)
		return error_set(err, -EINVAL, "block-differs",
				 "block %s has %" PRIu64 " bytes at the source and %" PRIu64
				 " here",
				 want->name, want->length, have->length);
	if (!(want->flags & MSG_BLOCK_READONLY) != !(have->flags & GUEST_BLOCK_READONLY))
		return error_set(err, -EINVAL, "block-differs",
				 "block %s is %s at the source and %s here (DECANT_BLOCK_READONLY)",
				 want->name,
				 want->flags & MSG_BLOCK_READONLY ? "read-only" : "writable",
				 have->flags & GUEST_BLOCK_READONLY ? "read-only" : "writable");
	if (want->page_size != have->page_size)
		return error_set(err, -EINVAL, "block-differs",
				 "block %s has pages of %u bytes at the source and %" PRIu64
				 " here",
				 want->name, want->page_size, have->page_size);
	return 0;
}

static const struct guest_block *block_of(const struct guest *g, const char *name)
{
	for (unsigned int i = 0; i < g->nblocks; i++)
		if (!strcmp(g->blocks[i].name, name))
			return &g->blocks[i];
	return NULL;
}

int admit_blocks(const struct incoming *inc, const struct guest *g, uint16_t *ret_index,
		 struct error *err)
{
	for (unsigned int i = 0; i < inc->nblocks; i++) {
		const struct guest_block *b = block_of(g, inc->blocks[i].name);
		int r;

		if (!b)
			return error_set(err, -ENOENT, "block-differs",
					 "block %s is not in the guest that was launched here",
					 inc->blocks[i].name);
		r = compare_block(inc->setup, &inc->blocks[i], b, err);
		if (r)
			return r;
		ret_index[i] = b->index;
	}
	/* Names are unique on both sides: as many as there are, they are the same. */
	if (g->nblocks != inc->nblocks)
		return error_set(
			err, -EINVAL, "block-differs",
			"the guest that was launched here has %u blocks, the source's has %u",
			g->nblocks, inc->nblocks);
	return 0;
}
