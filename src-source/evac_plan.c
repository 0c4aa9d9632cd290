/* SPDX-License-Identifier: Apache-2.0 */
#include "evac_plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"

#define MIB(bytes) ((bytes) >> 20)

static const char *const order_names[] = {
	[EVAC_PRIORITY] = "priority",
	[EVAC_LARGEST] = "largest",
	[EVAC_SMALLEST] = "smallest",
	[EVAC_LEAST_DIRTY] = "least-dirty",
};

const char *evac_order_name(enum evac_order order)
{
	return order_names[order];
}

int evac_order_parse(const char *s, enum evac_order *ret, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(order_names); i++) {
		if (strcmp(s, order_names[i]) != 0)
			continue;
		*ret = (enum evac_order)i;
		return 0;
	}
	return error_set(err, -EINVAL, "bad-value",
			 "order: \"%.40s\" is none of largest, smallest, least-dirty, priority", s);
}

/* Bytes of all its memory. */
static uint64_t total_of(const struct evac_guest *g)
{
	uint64_t sum = g->bytes;

	for (unsigned int i = 0; i < g->nhuge; i++)
		sum += g->huge[i].size * g->huge[i].pages;
	return sum;
}

/* --- orders --- */

/* Return: below 0 if @a comes first. Names are unique: no two guests are equal. */
static int by_size(const struct evac_guest *a, const struct evac_guest *b)
{
	uint64_t x = total_of(a), y = total_of(b);

	return x != y ? (x > y ? -1 : 1) : strcmp(a->name, b->name);
}

static int compare(const struct evac_guest *a, const struct evac_guest *b, enum evac_order order)
{
	uint64_t x = total_of(a), y = total_of(b);

	if (order == EVAC_PRIORITY && a->priority != b->priority)
		return a->priority > b->priority ? -1 : 1;
	if (order == EVAC_SMALLEST && x != y)
		return x < y ? -1 : 1;
	if (order == EVAC_LEAST_DIRTY && a->dirty != b->dirty)
		return a->dirty < b->dirty ? -1 : 1;
	return by_size(a, b);
}

/** struct sorted - one guest in an order */
struct sorted {
	const struct evac_guest *guest;
	enum evac_order order;
	size_t index;
};

static int compare_sorted(const void *a, const void *b)
{
	const struct sorted *x = a, *y = b;

	return compare(x->guest, y->guest, x->order);
}

static void sort(const struct evac_guest *guests, size_t n, enum evac_order order,
		 struct sorted *ret)
{
	for (size_t i = 0; i < n; i++)
		ret[i] = (struct sorted){&guests[i], order, i};
	qsort(ret, n, sizeof(*ret), compare_sorted);
}

/* --- does it fit? --- */

/** struct room - what is left at a host while the plan is made */
struct room {
	uint64_t memory;
	struct evac_pool huge[EVAC_SIZES_MAX];
};

static const struct evac_pool *pool_of(const struct evac_host *h, const struct room *room,
				       uint64_t size)
{
	for (unsigned int i = 0; i < h->nhuge; i++)
		if (room->huge[i].size == size)
			return &room->huge[i];
	return NULL;
}

static int check_launcher(const struct evac_guest *g, const struct evac_host *h, struct error *why)
{
	for (unsigned int i = 0; i < h->nlaunchers; i++) {
		const struct msg_launcher *l = &h->launchers[i];

		if (strcmp(l->name, g->launcher) != 0)
			continue;
		if (strcmp(l->driver, g->driver) != 0)
			return error_set(why, -EINVAL, "wrong-driver",
					 "its launcher %s starts guests of driver %s", l->name,
					 l->driver);
		if (!l->usable)
			return error_set(why, -ENOENT, "launcher-not-usable",
					 "the program of its launcher %s cannot be executed",
					 l->name);
		return 0;
	}
	return error_set(why, -ENOENT, "unknown-launcher", "has no launcher %s", g->launcher);
}

static int check_memory(const struct evac_guest *g, const struct evac_host *h,
			const struct room *room, struct error *why)
{
	uint64_t total = total_of(g);

	if (h->guest_max && total > h->guest_max)
		return error_set(why, -ENOMEM, "limit-memory",
				 "takes no guest of more than %" PRIu64
				 " MiB (limits.memory_bytes)",
				 MIB(h->guest_max));
	if (g->bytes > room->memory)
		return error_set(why, -ENOMEM, "no-memory",
				 "has %" PRIu64 " MiB of memory left and %" PRIu64 " are needed",
				 MIB(room->memory), MIB(g->bytes));
	for (unsigned int i = 0; i < g->nhuge; i++) {
		const struct evac_pool *p = pool_of(h, room, g->huge[i].size);

		if (!p || p->pages < g->huge[i].pages)
			return error_set(why, -ENOMEM, "no-huge-pages",
					 "has %" PRIu64 " pages of %" PRIu64
					 " MiB left and %" PRIu64 " are needed",
					 p ? p->pages : 0, MIB(g->huge[i].size), g->huge[i].pages);
	}
	return 0;
}

/* Return: 0, or -errno with @why filled: it continues "HOST …" */
static int check(const struct evac_guest *g, const struct evac_host *h, unsigned int index,
		 const struct room *room, struct error *why)
{
	int r;

	if (h->refuses)
		return error_set(why, -EBUSY, h->refuses->code, "%s", h->refuses->msg);
	if (g->tried & 1u << index)
		return error_set(why, -EALREADY, "tried", "was tried already");
	if (!h->known)
		return 0;
	if (g->postcopy && !h->postcopy)
		return error_set(why, -EOPNOTSUPP, "postcopy-not-supported",
				 "cannot run a guest with missing pages (only --mode precopy)");
	r = check_launcher(g, h, why);
	return r ? r : check_memory(g, h, room, why);
}

/* --- placing --- */

/* Of several hosts that will do: those that are known first, then by what is left there. */
static bool better(const struct evac_host *hosts, const struct room *rooms, int a, int b,
		   bool tight)
{
	if (b < 0)
		return true;
	if (hosts[a].known != hosts[b].known)
		return hosts[a].known;
	if (rooms[a].memory == rooms[b].memory)
		return false;
	return (rooms[a].memory < rooms[b].memory) == tight;
}

static void take(const struct evac_guest *g, const struct evac_host *h, struct room *room)
{
	if (!h->known)
		return;
	room->memory -= g->bytes;
	for (unsigned int i = 0; i < g->nhuge; i++)
		for (unsigned int j = 0; j < h->nhuge; j++)
			if (room->huge[j].size == g->huge[i].size)
				room->huge[j].pages -= g->huge[i].pages;
}

/* A reason for each host is one for the guest; if all are the same, so is the code. */
static void add_reason(struct error *all, const struct evac_host *h, const struct error *why)
{
	size_t n = strlen(all->msg);

	if (!n)
		snprintf(all->code, sizeof(all->code), "%s", why->code);
	else if (strcmp(all->code, why->code) != 0)
		snprintf(all->code, sizeof(all->code), "no-destination");
	snprintf(all->msg + n, sizeof(all->msg) - n, "%s%s %s", n ? "; " : "", h->name, why->msg);
}

static void place_one(const struct evac_guest *g, const struct evac_host *hosts, unsigned int n,
		      struct room *rooms, bool tight, struct evac_place *ret)
{
	*ret = (struct evac_place){.host = -1};
	if (g->cannot) {
		ret->why = *g->cannot;
		return;
	}
	for (unsigned int i = 0; i < n; i++) {
		struct error why = {0};

		if (check(g, &hosts[i], i, &rooms[i], &why))
			add_reason(&ret->why, &hosts[i], &why);
		else if (better(hosts, rooms, (int)i, ret->host, tight))
			ret->host = (int)i;
	}
	if (ret->host < 0) {
		error_set(&ret->why, -ENOENT, "no-destination", "there is no destination");
		return;
	}
	error_clear(&ret->why);
	take(g, &hosts[ret->host], &rooms[ret->host]);
}

static void place_all(const struct sorted *line, size_t n, const struct evac_host *hosts,
		      unsigned int nhosts, bool tight, struct evac_place *ret)
{
	struct room rooms[EVAC_HOSTS_MAX];

	for (unsigned int i = 0; i < nhosts; i++) {
		rooms[i].memory = hosts[i].memory;
		memcpy(rooms[i].huge, hosts[i].huge, sizeof(rooms[i].huge));
	}
	for (size_t i = 0; i < n; i++)
		place_one(line[i].guest, hosts, nhosts, rooms, tight, &ret[line[i].index]);
}

/* Does plan @a place somebody, in the order of importance, whom @b does not, before the reverse? */
static bool places_more(const struct sorted *line, size_t n, const struct evac_place *a,
			const struct evac_place *b)
{
	for (size_t i = 0; i < n; i++) {
		bool x = a[line[i].index].host >= 0, y = b[line[i].index].host >= 0;

		if (x != y)
			return x;
	}
	return false;
}

int evac_plan(const struct evac_guest *guests, size_t n, const struct evac_host *hosts,
	      unsigned int nhosts, enum evac_order order, struct evac_place *ret)
{
	CLEANUP_FREE struct sorted *line = calloc(n + 1, sizeof(*line));
	CLEANUP_FREE struct evac_place *other = calloc(n + 1, sizeof(*other));

	if (!line || !other)
		return -ENOMEM;
	nhosts = MIN(nhosts, (unsigned int)EVAC_HOSTS_MAX);
	sort(guests, n, EVAC_PRIORITY, line);
	place_all(line, n, hosts, nhosts, false, ret);
	place_all(line, n, hosts, nhosts, true, other);
	if (places_more(line, n, other, ret))
		memcpy(ret, other, n * sizeof(*ret));
	sort(guests, n, order, line);
	for (size_t i = 0; i < n; i++)
		ret[line[i].index].turn = (unsigned int)i;
	return 0;
}

/* --- while it runs --- */

static bool among(const char *code, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(code, list[i]))
			return true;
	return false;
}

enum evac_next evac_next(const char *code)
{
	/* What the guest, this host or an operator says; each destination would meet it again. */
	static const char *const own[] = {
		"guest-gone",      "guest-timeout",          "guest-memory",
		"gate-refused",    "not-converging",         "no-launcher",
		"bad-guest",       "tracking-refused",       "tracking-failed",
		"devices-changed", "tracking-not-supported", "cancelled",
	};
	static const char *const later[] = {"limit-incoming", "agent-restarted"};

	if (among(code, own, ARRAY_SIZE(own)))
		return EVAC_GIVE_UP;
	return among(code, later, ARRAY_SIZE(later)) ? EVAC_LATER : EVAC_ELSEWHERE;
}

unsigned int evac_slots(unsigned int limit, unsigned int incoming, unsigned int ours,
			unsigned int per_source)
{
	unsigned int others = incoming > ours ? incoming - ours : 0, slots;

	if (!limit)
		return UINT32_MAX;
	slots = limit > others ? limit - others : 0;
	return per_source ? MIN(slots, per_source) : slots;
}

uint64_t evac_share(uint64_t bandwidth, unsigned int running)
{
	/* 0 would be no limit at all. */
	return bandwidth && running ? MAX(bandwidth / running, UINT64_C(1)) : bandwidth;
}
