/* SPDX-License-Identifier: Apache-2.0 */
#include "guests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dma.h"
#include "guests_qemu.h"
#include "migration.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/jsonout.h"
#include "util/log.h"
#include "util/uuid.h"

/* Entries, from when on a guest that nobody has described is not let in, or another is forgotten. */
#define GUESTS_MAX 1024u

struct source_guest *guests_find(struct source *s, const char *name)
{
	for (struct source_guest *g = s->guests; g; g = g->next)
		if (!strcmp(g->desc.name, name))
			return g;
	return NULL;
}

static struct source_guest *insert(struct source *s, const struct conf_guest *desc)
{
	struct source_guest *sg = calloc(1, sizeof(*sg)), **p = &s->guests;

	if (!sg || conf_guest_copy(desc, &sg->desc) < 0) {
		free(sg);
		return NULL;
	}
	sg->src = s;
	while (*p && strcmp((*p)->desc.name, desc->name) < 0)
		p = &(*p)->next;
	sg->next = *p;
	*p = sg;
	return sg;
}

static void cancel_welcome(struct source_guest *sg)
{
	if (sg->welcome)
		event_free(steal_ptr(&sg->welcome));
}

static void drop(struct source_guest *sg)
{
	struct source_guest **p = &sg->src->guests;

	while (*p != sg)
		p = &(*p)->next;
	*p = sg->next;
	cancel_welcome(sg);
	guests_qemu_stop(sg);
	migration_forget_guest(sg);
	guest_free(sg->conn);
	conf_guest_clear(&sg->desc);
	free(sg);
}

/* What the configuration says of a name comes before what clients have said. */
static int take_described(struct source *s, const struct conf_guest *desc, struct error *err)
{
	struct source_guest *sg = guests_find(s, desc->name);

	if (sg)
		return 0;
	sg = insert(s, desc);
	if (!sg)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	sg->described = true;
	return 0;
}

int guests_configure(struct source *s, struct error *err)
{
	int r = 0;

	for (size_t i = 0; !r && i < s->conf.n_guests; i++)
		r = take_described(s, &s->conf.guests[i], err);
	return r;
}

void guests_look_for_all(struct source *s)
{
	for (struct source_guest *sg = s->guests; sg; sg = sg->next)
		guests_qemu_look(sg);
}

/*
 * A guest that attached itself has no launcher until somebody describes it; a description that was
 * given is replaced only by one that knows the guest it means.
 */
/*
 * A guest that attached by itself has no launcher until somebody describes it. A description that
 * was given is replaced only by one that knows which guest it means.
 */
static int replaceable(const struct source_guest *old, const struct conf_guest *desc,
		       struct error *err)
{
	if (old->migration && migration_busy(old->migration))
		return error_set(err, -EBUSY, "guest-busy",
				 "guest %s takes part in migration %s, which is %s: wait for its "
				 "end, or cancel it",
				 desc->name, migration_id(old->migration),
				 migration_phase(old->migration));
	if (old->conn && old->handed_over)
		return error_set(err, -EEXIST, "guest-exists",
				 "guest %s was handed over and kept; end its old process first",
				 desc->name);
	if (old->conn && old->migration && migration_holds_guest(old->migration))
		return error_set(err, -EBUSY, "guest-held", "guest %s is held by migration %s",
				 desc->name, migration_id(old->migration));
	if (old->handed_over || !old->conn)
		return 0;
	if (desc->uuid[0] ? !strcmp(desc->uuid, old->desc.uuid) : !old->described)
		return 0;
	return error_set(err, -EEXIST, "guest-exists",
			 "a guest named %s is attached and described already", desc->name);
}

/* What the operator says of a VM's devices is in its vars: it is looked at anew. */
static void let_go(struct source_guest *sg)
{
	cancel_welcome(sg);
	guest_free(steal_ptr(&sg->conn));
}

static struct source_guest *replace(struct source_guest *sg, const struct conf_guest *desc)
{
	struct conf_guest copy;

	if (conf_guest_copy(desc, &copy) < 0)
		return NULL;
	if (sg->conn) {
		uuid_text(sg->conn->uuid, copy.uuid);
		copy.generation = sg->desc.generation;
		if (copy.driver == GUEST_DRIVER_QEMU && !json_equal(copy.vars, sg->desc.vars))
			let_go(sg);
	}
	guests_qemu_stop(sg);
	conf_guest_clear(&sg->desc);
	sg->desc = copy;
	sg->handed_over = false;
	migration_forget_guest(sg);
	return sg;
}

int guests_add(struct source *s, const struct conf_guest *desc, struct source_guest **ret,
	       struct error *err)
{
	struct source_guest *sg = guests_find(s, desc->name);
	int r = sg ? replaceable(sg, desc, err) : 0;

	if (r < 0)
		return r;
	sg = sg ? replace(sg, desc) : insert(s, desc);
	if (!sg)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	sg->described = true;
	sg->added_us = clock_us();
	guests_qemu_look(sg);
	*ret = sg;
	return 0;
}

int guests_remove(struct source_guest *sg, struct error *err)
{
	if (sg->migration && migration_busy(sg->migration))
		return error_set(err, -EBUSY, "guest-busy",
				 "guest %s takes part in migration %s, which is %s: wait for its "
				 "end, or cancel it",
				 sg->desc.name, migration_id(sg->migration),
				 migration_phase(sg->migration));
	drop(sg);
	return 0;
}

static void on_gone(void *arg, struct guest *g, enum guest_gone how)
{
	struct source_guest *sg = arg;

	log_info("guest %s %s", sg->desc.name,
		 how == GUEST_GONE_DEAD           ? "has ended"
		 : how == GUEST_GONE_DISCONNECTED ? "has disconnected"
						  : "was cut off for breaking the protocol");
	cancel_welcome(sg);
	sg->conn = NULL;
	if (sg->migration)
		migration_guest_gone(sg->migration, how);
	guest_free(g);
	guests_qemu_look(sg);
}

/* Is the guest that wants in the one that this entry means? */
static int admit(struct source_guest *sg, const struct guest *g, const char *uuid,
		 struct error *err)
{
	if (sg->conn)
		return error_set(err, -EEXIST, "guest-exists",
				 "a guest named %s is attached already (pid %d)", sg->desc.name,
				 (int)sg->conn->pid);
	if (strcmp(g->driver, conf_guest_driver_name(sg->desc.driver)) != 0)
		return error_set(err, -EINVAL, "wrong-driver",
				 "guest %s is described with driver %s", sg->desc.name,
				 conf_guest_driver_name(sg->desc.driver));
	/* Or as the job knows it: an agent that was restarted knows no uuid of one that came by itself. */
	if (sg->migration && migration_busy(sg->migration) &&
	    ((sg->desc.uuid[0] && strcmp(sg->desc.uuid, uuid) != 0) ||
	     !migration_is_of(sg->migration, g->uuid)))
		return error_set(err, -EEXIST, "guest-held",
				 "the name %s belongs to a guest in migration %s", sg->desc.name,
				 migration_id(sg->migration));
	return 0;
}

/* One that is only remembered because it was here once. */
static struct source_guest *forgettable(struct source *s)
{
	struct source_guest *sg = s->guests;

	while (sg && (sg->described || sg->conn || sg->migration || sg->handed_over))
		sg = sg->next;
	return sg;
}

/* Guests that attach themselves choose their names: so many may be known, whoever makes them up. */
static int make_room(struct source *s, struct error *err)
{
	struct source_guest *old;
	unsigned int n = 0;

	for (const struct source_guest *sg = s->guests; sg; sg = sg->next)
		n++;
	if (n < GUESTS_MAX)
		return 0;
	old = forgettable(s);
	if (!old)
		return error_set(err, -EBUSY, "too-many-guests",
				 "%u guests are known here, which is the limit: remove some "
				 "(decant remove)",
				 GUESTS_MAX);
	drop(old);
	return 0;
}

struct source_guest *guests_reserve(struct source *s, const char *name)
{
	struct conf_guest desc = {.driver = GUEST_DRIVER_NATIVE};
	struct source_guest *sg = guests_find(s, name);

	if (sg)
		return sg;
	desc.vars = json_object();
	snprintf(desc.name, sizeof(desc.name), "%s", name);
	sg = insert(s, &desc);
	conf_guest_clear(&desc);
	return sg;
}

static void on_welcomed(void *arg)
{
	struct source_guest *sg = arg;

	cancel_welcome(sg);
	migration_guest_welcomed(sg);
}

static void on_stop(void *arg, struct guest *g, uint64_t us)
{
	struct source_guest *sg = arg;

	(void)g;
	if (sg->migration && migration_busy(sg->migration))
		migration_guest_stopped(sg->migration, us);
}

int guests_attach(void *arg, struct guest *g, struct error *err)
{
	struct source *s = arg;
	struct source_guest *sg = guests_find(s, g->name);
	char uuid[37];
	int r = 0;

	uuid_text(g->uuid, uuid);
	if (g->run_state == GUEST_INCOMING)
		return error_set(err, -EINVAL, "guest-incoming",
				 "guest %s waits to be loaded: it must attach to decant-dest",
				 g->name);
	if (g->arriving)
		return error_set(
			err, -EBUSY, "guest-arriving",
			"guest %s is still being received by decant-dest: it is left to that",
			g->name);
	if (sg)
		r = admit(sg, g, uuid, err);
	else if (!(r = make_room(s, err)) && !(sg = guests_reserve(s, g->name)))
		r = error_set(err, -ENOMEM, NULL, "out of memory");
	if (r < 0)
		return r;
	if (sg->desc.uuid[0] && strcmp(sg->desc.uuid, uuid) != 0)
		migration_forget_guest(sg); /* another program of that name */
	snprintf(sg->desc.uuid, sizeof(sg->desc.uuid), "%s", uuid);
	sg->conn = g;
	guest_watch(g, on_gone, NULL, sg);
	guest_watch_stops(g, on_stop);
	log_info("guest %s attached: pid %d, %u blocks, %llu bytes, %s", g->name, (int)g->pid,
		 g->nblocks, (unsigned long long)guest_memory_bytes(g),
		 guest_run_state_name(g->run_state));
	migration_guest_attached(sg);
	/* WELCOME goes out when this returns, and must be the first that it hears. */
	sg->welcome = loop_timer(s->loop, 0, on_welcomed, sg);
	return 0;
}

static const char *state_name(const struct source_guest *sg)
{
	if (sg->migration && migration_busy(sg->migration))
		return "migrating";
	if (sg->handed_over)
		return "handed-over";
	if (!sg->conn)
		return "absent";
	return guest_run_state_name(sg->conn->run_state);
}

static json_t *blocks_json(const struct guest *g)
{
	json_t *a = json_array();

	for (uint16_t i = 0; g && i < g->nblocks; i++) {
		const struct guest_block *b = &g->blocks[i];

		json_array_append_new(a, json_pack("{s:s, s:s, s:I, s:I, s:b}", "name", b->name,
						   "kind", guest_block_kind_name(b->kind), "length",
						   (json_int_t)b->length, "page_size",
						   (json_int_t)b->page_size, "no_dma",
						   (b->flags & GUEST_BLOCK_NO_DMA) != 0));
	}
	return a;
}

/* Why it is not found, or cannot be moved. */
static json_t *problem_json(const struct source_guest *sg)
{
	return jsonout_error(sg->conn ? &sg->conn->cannot : &sg->problem);
}

/* Why its memory is not free of DMA, and how it is therefore moved in each mode; null if it is. */
static json_t *dma_json(const struct guest *g)
{
	const struct guest_block *b;
	char why[GUEST_DMA_MAX] = "";

	if (!g || guest_no_dma(g, &b))
		return json_null();
	if (g->dma[0])
		snprintf(why, sizeof(why), "%s", g->dma);
	else
		snprintf(why, sizeof(why), "block %s is not declared free of DMA", b->name);
	return json_pack("{s:s, s:{s:s, s:s, s:s, s:s}}", "why", why, "ways", "hybrid",
			 dma_way_name(dma_choose(MIG_MODE_HYBRID, false, true)), "precopy",
			 dma_way_name(dma_choose(MIG_MODE_PRECOPY, false, true)), "postcopy",
			 dma_way_name(dma_choose(MIG_MODE_POSTCOPY, false, true)), "snapshot",
			 dma_way_name(dma_choose(MIG_MODE_PRECOPY, true, true)));
}

json_t *guests_json(const struct source_guest *sg)
{
	json_t *o = conf_guest_json(&sg->desc);
	const struct guest *g = sg->conn;

	json_object_set_new(o, "state", json_string(state_name(sg)));
	json_object_set_new(o, "attached", json_boolean(g != NULL));
	json_object_set_new(o, "attach", json_string(sg->src->conf.agent.attach));
	json_object_set_new(o, "pid", g ? json_integer(g->pid) : json_null());
	json_object_set_new(o, "memory_bytes",
			    g ? json_integer((json_int_t)guest_memory_bytes(g)) : json_null());
	json_object_set_new(o, "generation",
			    g ? json_integer((json_int_t)g->generation) : json_null());
	json_object_set_new(o, "blocks", blocks_json(g));
	json_object_set_new(o, "problem", problem_json(sg));
	json_object_set_new(o, "dma", dma_json(g));
	json_object_set_new(o, "experimental",
			    g && g->experimental[0] ? json_string(g->experimental) : json_null());
	json_object_set_new(o, "stopped_us",
			    g ? json_integer((json_int_t)g->stopped_us) : json_null());
	json_object_set_new(o, "migration",
			    sg->migration ? json_string(migration_id(sg->migration)) : json_null());
	return o;
}

void guests_free(struct source *s)
{
	while (s->guests)
		drop(s->guests);
}
