/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of an evacuation: tables of what fits where, and what holds for any guests and hosts. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "evac_plan.h"
#include "util/cleanup.h"

#define MIB(n) ((uint64_t)(n) << 20)
#define HUGE   MIB(2)

static const struct msg_launcher launchers[] = {
	{"vm", "qemu", true},
	{"prog", "native", true},
	{"gone", "native", false},
};

static struct evac_host host(const char *name, uint64_t mb)
{
	return (struct evac_host){.name = name,
				  .known = true,
				  .memory = MIB(mb),
				  .huge = {{HUGE, 16}},
				  .nhuge = 1,
				  .postcopy = true,
				  .launchers = launchers,
				  .nlaunchers = ARRAY_SIZE(launchers)};
}

static struct evac_guest guest(const char *name, uint64_t mb)
{
	return (struct evac_guest){.name = name,
				   .driver = "native",
				   .launcher = "prog",
				   .bytes = MIB(mb),
				   .dirty = EVAC_DIRTY_UNKNOWN,
				   .postcopy = true};
}

static struct evac_place place_one(const struct evac_guest *g, const struct evac_host *hosts,
				   unsigned int n)
{
	struct evac_place p;

	cr_assert_eq(evac_plan(g, 1, hosts, n, EVAC_PRIORITY, &p), 0);
	return p;
}

/* --- tables --- */

static const struct error cordoned = {"host-cordoned", "is cordoned"};
static const struct error problem = {"no-memory-backend", "its memory is private"};

static void too_large(struct evac_guest *g, struct evac_host *h)
{
	(void)h;
	g->bytes = MIB(1025);
}
static void just_fits(struct evac_guest *g, struct evac_host *h)
{
	(void)h;
	g->bytes = MIB(1024);
}
static void limited(struct evac_guest *g, struct evac_host *h)
{
	(void)g;
	h->guest_max = MIB(99);
}
static void huge(struct evac_guest *g, struct evac_host *h)
{
	(void)h;
	g->huge[0] = (struct evac_pool){HUGE, 17};
	g->nhuge = 1;
}
static void other_huge(struct evac_guest *g, struct evac_host *h)
{
	(void)h;
	g->huge[0] = (struct evac_pool){MIB(1024), 1};
	g->nhuge = 1;
}
static void no_postcopy(struct evac_guest *g, struct evac_host *h)
{
	(void)g;
	h->postcopy = false;
}
static void precopy_only(struct evac_guest *g, struct evac_host *h)
{
	g->postcopy = false;
	h->postcopy = false;
}
static void launcher(struct evac_guest *g, struct evac_host *h)
{
	(void)h;
	g->launcher = "other";
}
static void driver(struct evac_guest *g, struct evac_host *h)
{
	(void)h;
	g->launcher = "vm";
}
static void program(struct evac_guest *g, struct evac_host *h)
{
	(void)h;
	g->launcher = "gone";
}
static void tried(struct evac_guest *g, struct evac_host *h)
{
	(void)h;
	g->tried = 1;
}
static void refuses(struct evac_guest *g, struct evac_host *h)
{
	(void)g;
	h->refuses = &cordoned;
}
static void cannot(struct evac_guest *g, struct evac_host *h)
{
	(void)h;
	g->cannot = &problem;
}
static void unknown(struct evac_guest *g, struct evac_host *h)
{
	g->bytes = MIB(1) << 20;
	*h = (struct evac_host){.name = h->name};
}

static const struct {
	void (*bend)(struct evac_guest *g, struct evac_host *h);
	const char *code; /* NULL: it is placed */
	const char *names;
} rows[] = {
	{just_fits, NULL, NULL},
	{too_large, "no-memory", "b:7400 has 1024 MiB of memory left and 1025 are needed"},
	{limited, "limit-memory", "99 MiB"},
	{huge, "no-huge-pages", "16 pages of 2 MiB left and 17"},
	{other_huge, "no-huge-pages", "1024 MiB left"},
	{no_postcopy, "postcopy-not-supported", "precopy"},
	{precopy_only, NULL, NULL},
	{launcher, "unknown-launcher", "other"},
	{driver, "wrong-driver", "qemu"},
	{program, "launcher-not-usable", "gone"},
	{tried, "tried", "b:7400"},
	{refuses, "host-cordoned", "b:7400 is cordoned"},
	{cannot, "no-memory-backend", "private"},
	{unknown, NULL, NULL},
};

Test(evac_plan, what_fits_and_why_not)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct evac_host h = host("b:7400", 1024);
		struct evac_guest g = guest("g", 100);
		struct evac_place p;

		rows[i].bend(&g, &h);
		p = place_one(&g, &h, 1);
		cr_assert_eq(p.host, rows[i].code ? -1 : 0, "row %zu: %s", i, p.why.msg);
		if (!rows[i].code) {
			cr_assert_not(error_is_set(&p.why));
			continue;
		}
		cr_assert_str_eq(p.why.code, rows[i].code, "row %zu", i);
		cr_assert(strstr(p.why.msg, rows[i].names), "row %zu: %s", i, p.why.msg);
	}
}

Test(evac_plan, each_host_says_why)
{
	struct evac_host hosts[] = {host("b:7400", 10), host("c:7400", 20)};
	struct evac_guest g = guest("g", 100);
	struct evac_place p = place_one(&g, hosts, 2);

	cr_assert_str_eq(p.why.code, "no-memory");
	cr_assert(strstr(p.why.msg, "b:7400 has 10 MiB") && strstr(p.why.msg, "c:7400 has 20 MiB"),
		  "%s", p.why.msg);
	hosts[1].refuses = &cordoned;
	p = place_one(&g, hosts, 2);
	cr_assert_str_eq(p.why.code, "no-destination");
	p = place_one(&g, hosts, 0);
	cr_assert_str_eq(p.why.code, "no-destination");
	cr_assert(*p.why.msg);
}

/* An old agent is the last choice, and is tried all the same. */
Test(evac_plan, who_has_said_nothing_is_tried_last)
{
	struct evac_host hosts[] = {{.name = "old"}, host("b", 150)};
	struct evac_guest g[] = {guest("a", 100), guest("b", 100)};
	struct evac_place p[2];

	evac_plan(g, 2, hosts, 2, EVAC_PRIORITY, p);
	cr_assert_eq(p[0].host, 1);
	cr_assert_eq(p[1].host, 0);
}

/* Where spreading leaves a large one without a place, packing finds it one. */
Test(evac_plan, packs_where_spreading_does_not_do)
{
	struct evac_host hosts[] = {host("b", 100), host("c", 70)};
	struct evac_guest g[] = {guest("s", 60), guest("l", 90)};
	struct evac_place p[2];

	g[0].priority = 1;
	evac_plan(g, 2, hosts, 2, EVAC_PRIORITY, p);
	cr_assert_eq(p[0].host, 1);
	cr_assert_eq(p[1].host, 0);
	/* With room for all they are spread. */
	hosts[1].memory = hosts[0].memory = MIB(1000);
	evac_plan(g, 2, hosts, 2, EVAC_PRIORITY, p);
	cr_assert_neq(p[0].host, p[1].host);
}

/* There is room for one: it is the more important one, however small, in whatever order they leave. */
Test(evac_plan, the_important_gets_the_place)
{
	struct evac_host h = host("b", 100);
	struct evac_guest g[] = {guest("a", 90), guest("b", 20)};
	struct evac_place p[2];

	g[1].priority = 5;
	for (enum evac_order o = EVAC_PRIORITY; o <= EVAC_LEAST_DIRTY; o++) {
		evac_plan(g, 2, &h, 1, o, p);
		cr_assert_eq(p[0].host, -1);
		cr_assert_eq(p[1].host, 0);
	}
}

Test(evac_plan, orders)
{
	static const struct {
		enum evac_order order;
		const char *line;
	} wanted[] = {
		{EVAC_PRIORITY, "cbda"},
		{EVAC_LARGEST, "bdac"},
		{EVAC_SMALLEST, "cadb"},
		{EVAC_LEAST_DIRTY, "abdc"},
	};
	struct evac_host h = host("h", 1000);
	struct evac_guest g[] = {guest("a", 20), guest("b", 50), guest("c", 10), guest("d", 30)};
	struct evac_place p[4];

	g[0].priority = -3;
	g[2].priority = 7;
	g[0].dirty = 0;
	g[1].dirty = 4096;
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		char line[5] = "";

		evac_plan(g, 4, &h, 1, wanted[i].order, p);
		for (size_t j = 0; j < 4; j++)
			line[p[j].turn] = *g[j].name;
		cr_assert_str_eq(line, wanted[i].line, "%s", evac_order_name(wanted[i].order));
	}
}

Test(evac_plan, names_of_orders)
{
	struct error err = {0};
	enum evac_order o;

	for (enum evac_order i = EVAC_PRIORITY; i <= EVAC_LEAST_DIRTY; i++) {
		cr_assert_eq(evac_order_parse(evac_order_name(i), &o, &err), 0);
		cr_assert_eq(o, i);
	}
	cr_assert_eq(evac_order_parse("oldest", &o, &err), -EINVAL);
	cr_assert(strstr(err.msg, "oldest") && strstr(err.msg, "least-dirty"), "%s", err.msg);
}

Test(evac_plan, what_next)
{
	cr_assert_eq(evac_next("limit-incoming"), EVAC_LATER);
	cr_assert_eq(evac_next("agent-restarted"), EVAC_LATER);
	cr_assert_eq(evac_next("gate-refused"), EVAC_GIVE_UP);
	cr_assert_eq(evac_next("not-converging"), EVAC_GIVE_UP);
	cr_assert_eq(evac_next("host-cordoned"), EVAC_ELSEWHERE);
	cr_assert_eq(evac_next("limit-memory"), EVAC_ELSEWHERE);
	cr_assert_eq(evac_next("anything"), EVAC_ELSEWHERE);
}

Test(evac_plan, slots_and_shares)
{
	cr_assert_eq(evac_slots(0, 9, 0, 0), UINT32_MAX);
	cr_assert_eq(evac_slots(4, 0, 0, 0), 4);
	cr_assert_eq(evac_slots(4, 3, 1, 0), 2, "those of others count, ours are what we count");
	cr_assert_eq(evac_slots(4, 9, 1, 0), 0);
	cr_assert_eq(evac_slots(4, 1, 1, 2), 2);
	cr_assert_eq(evac_slots(4, 1, 2, 0), 4);
	cr_assert_eq(evac_share(0, 3), 0);
	cr_assert_eq(evac_share(900, 3), 300);
	cr_assert_eq(evac_share(900, 0), 900);
	cr_assert_eq(evac_share(2, 3), 1, "never none at all, which would be no limit");
}

/* --- what always holds --- */

#define GUESTS 24
#define HOSTS  5

/** struct world - any guests and hosts; of a seed, so that what fails can be had again */
struct world {
	struct evac_guest g[GUESTS];
	struct evac_host h[HOSTS];
	char names[GUESTS][8];
	size_t n;
	unsigned int nh;
};

static unsigned int pick(unsigned int *seed, unsigned int n)
{
	return (unsigned int)rand_r(seed) % n;
}

static void make(struct world *w, unsigned int seed)
{
	static const char *const some[] = {"prog", "prog", "prog", "vm", "gone", "other"};

	w->n = pick(&seed, GUESTS + 1);
	w->nh = pick(&seed, HOSTS + 1);
	for (size_t i = 0; i < w->n; i++) {
		snprintf(w->names[i], sizeof(w->names[i]), "g%zu", i);
		w->g[i] = guest(w->names[i], pick(&seed, 400));
		w->g[i].priority = (int)pick(&seed, 3) - 1;
		w->g[i].launcher = some[pick(&seed, ARRAY_SIZE(some))];
		w->g[i].tried = pick(&seed, 4) ? 0 : pick(&seed, 1u << HOSTS);
		w->g[i].cannot = pick(&seed, 12) ? NULL : &problem;
		w->g[i].dirty = pick(&seed, 2) ? pick(&seed, 5) : EVAC_DIRTY_UNKNOWN;
		w->g[i].nhuge = pick(&seed, 3) == 0;
		w->g[i].huge[0] = (struct evac_pool){HUGE, pick(&seed, 12)};
	}
	for (unsigned int i = 0; i < w->nh; i++) {
		w->h[i] = host("h", pick(&seed, 1500));
		w->h[i].known = pick(&seed, 5);
		w->h[i].refuses = pick(&seed, 6) ? NULL : &cordoned;
		w->h[i].postcopy = pick(&seed, 4);
	}
}

static void check_world(const struct world *w, const struct evac_place *p, unsigned int seed)
{
	uint64_t used[HOSTS] = {0}, pages[HOSTS] = {0};
	bool turns[GUESTS] = {0};

	for (size_t i = 0; i < w->n; i++) {
		cr_assert(p[i].turn < w->n && !turns[p[i].turn], "seed %u: turns", seed);
		turns[p[i].turn] = true;
		cr_assert_eq(p[i].host < 0, error_is_set(&p[i].why), "seed %u: a place or a reason",
			     seed);
		if (p[i].host < 0) {
			cr_assert(*p[i].why.code, "seed %u: a code", seed);
			continue;
		}
		cr_assert((unsigned int)p[i].host < w->nh, "seed %u", seed);
		cr_assert_not(w->h[p[i].host].refuses, "seed %u", seed);
		cr_assert_not(w->g[i].tried & 1u << p[i].host, "seed %u", seed);
		cr_assert_not(w->g[i].cannot, "seed %u", seed);
		used[p[i].host] += w->g[i].bytes;
		pages[p[i].host] += w->g[i].nhuge ? w->g[i].huge[0].pages : 0;
	}
	for (unsigned int i = 0; i < w->nh; i++) {
		if (!w->h[i].known)
			continue;
		cr_assert_leq(used[i], w->h[i].memory, "seed %u: host %u", seed, i);
		cr_assert_leq(pages[i], 16, "seed %u: host %u", seed, i);
	}
}

/* One that was not placed has no place in what is left, either. */
static void check_nobody_forgotten(const struct world *w, const struct evac_place *p,
				   unsigned int seed)
{
	for (size_t i = 0; i < w->n; i++) {
		struct evac_host left[HOSTS];
		struct evac_place alone;

		if (p[i].host >= 0)
			continue;
		memcpy(left, w->h, sizeof(left));
		for (size_t j = 0; j < w->n; j++) {
			if (p[j].host < 0 || !left[p[j].host].known)
				continue;
			left[p[j].host].memory -= w->g[j].bytes;
			left[p[j].host].huge[0].pages -= w->g[j].nhuge ? w->g[j].huge[0].pages : 0;
		}
		evac_plan(&w->g[i], 1, left, w->nh, EVAC_PRIORITY, &alone);
		cr_assert_lt(alone.host, 0, "seed %u: there is room for %s", seed, w->g[i].name);
	}
}

Test(evac_plan, any_guests_and_hosts)
{
	for (unsigned int seed = 1; seed <= 3000; seed++) {
		CLEANUP_FREE struct world *w = calloc(1, sizeof(*w));
		CLEANUP_FREE struct evac_place *p = calloc(GUESTS, sizeof(*p));
		CLEANUP_FREE struct evac_place *again = calloc(GUESTS, sizeof(*p));
		enum evac_order order = (enum evac_order)(seed % 4);

		make(w, seed);
		cr_assert_eq(evac_plan(w->g, w->n, w->h, w->nh, order, p), 0);
		check_world(w, p, seed);
		check_nobody_forgotten(w, p, seed);
		evac_plan(w->g, w->n, w->h, w->nh, order, again);
		for (size_t i = 0; i < w->n; i++) {
			cr_assert_eq(p[i].host, again[i].host);
			cr_assert_eq(p[i].turn, again[i].turn);
		}
	}
}
