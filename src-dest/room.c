// SPDX-License-Identifier: Apache-2.0
#include "room.h"
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "host/cordon.h"
#include "incoming.h"
#include "micro.h"
#include "resident.h"
#include "uffd/uffd.h"
#include "util/cleanup.h"
#include "util/fdio.h"

#define SMALL_FILE 16384
#define HUGE_DIR   "/sys/kernel/mm/hugepages"

int room_cordoned(const struct dest *d, struct error *err)
{
	if (!cordon_holds(d->conf.cordon_file))
		return 0;
	return error_set(err, -EBUSY, "host-cordoned",
			 "this host is cordoned and accepts no guests (decant uncordon ends that)");
}

/* --- memory --- */

static uint64_t available(void)
{
	CLEANUP_FREE char *text = NULL;
	const char *at;
	uint64_t kb = 0;

	if (fdio_read_file("/proc/meminfo", SMALL_FILE, &text) < 0) {
		text = NULL;
		return 0;
	}
	at = strstr(text, "MemAvailable:");
	return at && sscanf(at, "MemAvailable: %" SCNu64, &kb) == 1 ? kb << 10 : 0;
}

/* Available, less what those that are on their way will still take. */
static uint64_t memory(const struct dest *d)
{
	uint64_t wanted = 0, have = available();

	for (const struct incoming *inc = d->incomings; inc; inc = incoming_next(inc))
		wanted += incoming_outstanding(inc);
	return have > wanted ? have - wanted : 0;
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

/* A page that somebody has reserved counts as free in the kernel's book until it is touched. */
static void add_pool(struct msg_room *v, const char *dir, uint64_t size)
{
	uint64_t unused = number_in(dir, "free_hugepages");
	uint64_t reserved = number_in(dir, "resv_hugepages");

	v->pools[v->npools++] = (struct msg_pool){
		.size = size,
		.unused = MIN(unused > reserved ? unused - reserved : 0, (1ull << 62) / size)};
}

static void add_pools(struct msg_room *v)
{
	DIR *dir = opendir(HUGE_DIR);
	struct dirent *e;
	uint64_t kb;

	while (dir && v->npools < MSG_POOLS_MAX && (e = readdir(dir)))
		if (sscanf(e->d_name, "hugepages-%" SCNu64 "kB", &kb) == 1 && kb >= 4 &&
		    kb <= MSG_POOL_SIZE_MAX >> 10 && !(kb & (kb - 1)))
			add_pool(v, e->d_name, kb << 10);
	if (dir)
		closedir(dir);
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
	if (cordon_holds(d->conf.cordon_file))
		ret->flags |= MSG_ROOM_CORDONED;
	if (d->ending)
		ret->flags |= MSG_ROOM_ENDING;
	if (!d->caps_ret && !uffd_caps_postcopy(&d->caps, NULL))
		ret->flags |= MSG_ROOM_POSTCOPY;
	ret->incoming = d->n_incomings;
	ret->yours = incoming_count_of(d, identity);
	ret->limit = d->conf.limit_incoming;
	ret->per_source = d->conf.limit_incoming_per_source;
	ret->memory = memory(d);
	ret->memory_limit = d->conf.limit_memory_bytes;
	add_pools(ret);
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
