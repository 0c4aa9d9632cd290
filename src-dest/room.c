/* SPDX-License-Identifier: Apache-2.0 */
#include "room.h"
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "fit.h"
#include "host/cordon.h"
#include "incoming_priv.h"
#include "launch_unit.h"
#include "micro.h"
#include "resident.h"
#include "uffd/uffd.h"
#include "util/cleanup.h"
#include "util/fdio.h"

#define SMALL_FILE 16384
#define HUGE_DIR   "/sys/kernel/mm/hugepages"
#define MOUNTS     "/proc/self/mountinfo"

int room_cordoned(const struct dest *d, struct error *err)
{
	if (!cordon_holds(d->conf.agent.cordon_file))
		return 0;
	return error_set(err, -EBUSY, "host-cordoned",
			 "this host is cordoned and accepts no guests (decant uncordon ends that)");
}

/* --- memory --- */

/* Return: UINT64_MAX if it cannot be told: then the kernel has the last word, as it has without us */
static uint64_t available(void)
{
	CLEANUP_FREE char *text = NULL;
	const char *at;
	uint64_t kb = 0;

	if (fdio_read_file("/proc/meminfo", SMALL_FILE, &text) < 0) {
		text = NULL;
		return UINT64_MAX;
	}
	at = strstr(text, "MemAvailable:");
	return at && sscanf(at, "MemAvailable: %" SCNu64, &kb) == 1 ? kb << 10 : UINT64_MAX;
}

static uint64_t number_in(const char *dir, const char *file)
{
	CLEANUP_FREE char *text = NULL;
	char path[320];

	snprintf(path, sizeof(path), HUGE_DIR "/%.100s/%s", dir, file);
	if (fdio_read_file(path, SMALL_FILE, &text) < 0) {
		text = NULL;
		return 0;
	}
	return strtoull(text, NULL, 10);
}

static void add_pool(struct fit_host *h, const char *dir, uint64_t size)
{
	uint64_t may = number_in(dir, "nr_overcommit_hugepages");
	uint64_t added = number_in(dir, "surplus_hugepages");
	uint64_t unused = number_in(dir, "free_hugepages") + (may > added ? may - added : 0);

	h->pools[h->npools++] = (struct fit_pool){.size = size,
						  .unused = MIN(unused, (1ull << 62) / size),
						  .reserved = number_in(dir, "resv_hugepages")};
}

static void add_pools(struct fit_host *h)
{
	DIR *dir = opendir(HUGE_DIR);
	struct dirent *e;
	uint64_t kb;

	while (dir && h->npools < MSG_POOLS_MAX && (e = readdir(dir)))
		if (sscanf(e->d_name, "hugepages-%" SCNu64 "kB", &kb) == 1 && kb >= 4 &&
		    kb <= MSG_POOL_SIZE_MAX >> 10 && !(kb & (kb - 1)))
			add_pool(h, e->d_name, kb << 10);
	if (dir)
		closedir(dir);
}

/*
 * What one will still take, in huge pages of this size, or of all other memory for 0. Zero pages are received and
 * take nothing: then there is more than this says.
 */
static uint64_t promised(const struct incoming *inc, uint64_t huge)
{
	uint64_t sum = 0;

	if (inc->store || !incoming_admitted(inc))
		return 0;
	for (unsigned int i = 0; i < inc->nblocks; i++) {
		const struct msg_block *b = &inc->blocks[i];
		uint64_t came = inc->placed && i < inc->place.n
					? atomic_load(&inc->place.blocks[i].received) *
						  inc->place.blocks[i].page_size
					: 0;

		if (huge == (b->kind == MSG_BLOCK_HUGETLB ? b->page_size : 0))
			sum += b->length - MIN(came, b->length);
	}
	return sum;
}

/* What all that were admitted will still take. */
static void add_promises(const struct dest *d, struct fit_host *h)
{
	for (const struct incoming *inc = d->incomings; inc; inc = incoming_next(inc)) {
		h->promised += promised(inc, 0);
		for (unsigned int i = 0; i < h->npools; i++)
			h->pools[i].promised += promised(inc, h->pools[i].size) / h->pools[i].size;
	}
}

/*
 * A page is accounted to who writes it first: in precopy that is this agent, whose group counts therefore also where
 * guests have units of their own; in post-copy, and what it writes itself, it is the guest.
 */
static struct cgroup_room groups(const struct dest *d)
{
	struct cgroup_room room = {.unused = UINT64_MAX};

	cgroup_memory(MOUNTS, "/proc/self/cgroup", NULL, &room);
	if (launch_units_usable(d->units))
		cgroup_memory(MOUNTS, "/proc/1/cgroup", LAUNCH_UNIT_GROUP, &room);
	return room;
}

static void look(const struct dest *d, struct fit_host *ret)
{
	*ret = (struct fit_host){
		.available = available(), .group = groups(d), .margin = d->conf.margin_bytes};
	add_pools(ret);
	add_promises(d, ret);
}

int room_admit(struct incoming *inc, struct error *err)
{
	struct fit_host h;
	int r;

	if (!inc->d->conf.check_room)
		return 0;
	look(inc->d, &h);
	r = fit_check(&h, inc->blocks, inc->nblocks, err);
	if (r)
		error_prefix(err, "guest %s", inc->setup->name);
	return r;
}

static void tell_memory(const struct dest *d, struct msg_room *v)
{
	struct fit_host h;

	look(d, &h);
	v->memory = d->conf.check_room ? MIN(fit_memory(&h), MSG_MEMORY_MAX) : MSG_MEMORY_MAX;
	for (unsigned int i = 0; i < h.npools; i++)
		v->pools[v->npools++] = (struct msg_pool){
			.size = h.pools[i].size,
			.unused = d->conf.check_room ? fit_pages(&h.pools[i])
						     : MSG_MEMORY_MAX / h.pools[i].size};
}

/* --- the rest --- */

static void add_launchers(const struct dest *d, struct msg_room *v)
{
	for (size_t i = 0; i < d->conf.n_launchers && i < MSG_LAUNCHERS_MAX; i++) {
		const struct conf_launcher *c = &d->conf.launchers[i];
		struct msg_launcher *l = &v->launchers[v->nlaunchers++];

		snprintf(l->name, sizeof(l->name), "%s", c->name);
		snprintf(l->driver, sizeof(l->driver), "%s", conf_guest_driver_name(c->driver));
		/* A name that is still to be filled in is not known before a guest comes. */
		l->usable = strchr(c->argv[0], '{') || access(c->argv[0], X_OK) == 0;
	}
}

void room_fill(const struct dest *d, const char *identity, struct msg_room *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (cordon_holds(d->conf.agent.cordon_file))
		ret->flags |= MSG_ROOM_CORDONED;
	if (d->ending)
		ret->flags |= MSG_ROOM_ENDING;
	if (!d->caps_ret && !uffd_caps_postcopy(&d->caps, NULL))
		ret->flags |= MSG_ROOM_POSTCOPY;
	ret->incoming = d->n_incomings;
	ret->yours = incoming_count_of(d, identity);
	ret->limit = d->conf.limit_incoming;
	ret->per_source = d->conf.limit_incoming_per_source;
	ret->memory_limit = d->conf.limit_memory_bytes;
	tell_memory(d, ret);
	add_launchers(d, ret);
}

json_t *room_guests_json(const struct dest *d)
{
	json_int_t arriving = 0, held = 0, micros = 0;

	for (const struct incoming *inc = d->incomings; inc; inc = incoming_next(inc)) {
		enum inc_state s = incoming_state(inc);

		held += s == INC_HELD;
		arriving += s != INC_HELD && s != INC_STORING;
	}
	for (const struct micro *m = d->micros; m; m = micro_next(m))
		micros += micro_serves(m);
	return json_pack("{s:I, s:I, s:I, s:I}", "arriving", arriving, "held", held, "resident",
			 (json_int_t)resident_count(d), "micro", micros);
}
