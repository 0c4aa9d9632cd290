/* SPDX-License-Identifier: Apache-2.0 */
/* Who fits into a host: a table, and hosts at which guests come, fill and go as chance will have it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "fit.h"
#include "util/cleanup.h"

#define MIB(n) ((uint64_t)(n) << 20)
#define HUGE   MIB(2)
#define GIANT  MIB(1024)
#define KNOWN  UINT64_MAX

TestSuite(dest_fit, .timeout = 30);

/* --- a table --- */

static const struct {
	const char *what;
	uint64_t available, promised;
	int64_t margin;
	struct fit_pool pool;
	struct msg_block blocks[3];
	const char *why; /* NULL: it fits */
} cases[] = {
	{"just fits", MIB(8), 0, 0, {0}, {{.length = MIB(8)}}, NULL},
	{"a page too much", MIB(8), 0, 0, {0}, {{.length = MIB(8) + 4096}}, "needs 8392704 bytes"},
	{"beside who is promised some", MIB(8), MIB(4), 0, {0}, {{.length = MIB(4)}}, NULL},
	{"not beside who is promised more",
	 MIB(8),
	 MIB(4) + 4096,
	 0,
	 {0},
	 {{.length = MIB(4)}},
	 "8388608 free, 4198400 promised to guests that are arriving"},
	{"all is promised, and more", MIB(8), MIB(9), 0, {0}, {{.length = 4096}}, "no room: needs"},
	{"blocks are added up",
	 MIB(8),
	 0,
	 0,
	 {0},
	 {{.length = MIB(5)}, {.length = MIB(4), .kind = MSG_BLOCK_ANON}},
	 "needs 9437184 bytes"},
	{"some is kept back", MIB(8), 0, 1, {0}, {{.length = MIB(8)}}, "limits.margin_bytes"},
	{"more is kept back than there is", 0, 0, MIB(8), {0}, {{.length = 4096}}, "0 free"},
	{"more is promised than there is", MIB(8), MIB(8), -4096, {0}, {{.length = 4096}}, NULL},
	{"but not more than that",
	 MIB(8),
	 MIB(8),
	 -4096,
	 {0},
	 {{.length = 8192}},
	 "-4096 kept back"},
	{"nobody knows", KNOWN, MIB(8), 0, {0}, {{.length = MIB(1) << 20}}, NULL},
	{"nothing is needed", 0, MIB(8), MIB(8), {0}, {{.length = 0}}, NULL},
	{"huge pages, just enough",
	 0,
	 0,
	 0,
	 {HUGE, 4, 0, 0},
	 {{.kind = MSG_BLOCK_HUGETLB, .page_size = HUGE, .length = 4 * HUGE}},
	 NULL},
	{"huge pages of two blocks",
	 0,
	 0,
	 0,
	 {HUGE, 4, 0, 0},
	 {{.kind = MSG_BLOCK_HUGETLB, .page_size = HUGE, .length = 2 * HUGE},
	  {.kind = MSG_BLOCK_HUGETLB, .page_size = HUGE, .length = 3 * HUGE}},
	 "needs 5 huge pages of 2048 KiB, 4 free"},
	{"huge pages that others reserved",
	 0,
	 0,
	 0,
	 {HUGE, 4, 3, 0},
	 {{.kind = MSG_BLOCK_HUGETLB, .page_size = HUGE, .length = 2 * HUGE}},
	 "3 of them reserved"},
	{"huge pages that were promised",
	 0,
	 0,
	 0,
	 {HUGE, 4, 0, 3},
	 {{.kind = MSG_BLOCK_HUGETLB, .page_size = HUGE, .length = 2 * HUGE}},
	 "3 promised to guests that are arriving"},
	{"huge pages that were promised, and are reserved since",
	 0,
	 0,
	 0,
	 {HUGE, 6, 3, 3},
	 {{.kind = MSG_BLOCK_HUGETLB, .page_size = HUGE, .length = 3 * HUGE}},
	 NULL},
	{"huge pages of a size that is not here",
	 MIB(4096),
	 0,
	 0,
	 {HUGE, 4, 0, 0},
	 {{.kind = MSG_BLOCK_HUGETLB, .page_size = GIANT, .length = GIANT}},
	 "needs 1 huge pages of 1048576 KiB, 0 free"},
};

Test(dest_fit, what_fits_and_why_not)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fit_host h = {.available = cases[i].available,
				     .promised = cases[i].promised,
				     .margin = cases[i].margin,
				     .pools = {cases[i].pool},
				     .npools = cases[i].pool.size != 0};
		struct error err = {0};
		int r = fit_check(&h, cases[i].blocks, 3, &err);

		cr_assert_eq(r, cases[i].why ? -ENOMEM : 0, "%s: %s", cases[i].what, err.msg);
		if (!cases[i].why)
			continue;
		cr_assert_str_eq(err.code, "no-room", "%s: %s", cases[i].what, err.code);
		cr_assert(strstr(err.msg, cases[i].why), "%s: %s", cases[i].what, err.msg);
	}
}

/* --- a control group, and a file system --- */

static struct fit_host grouped(uint64_t available, uint64_t unused)
{
	return (struct fit_host){.available = available,
				 .group = {.path = "/sys/fs/cgroup/a",
					   .file = "memory.max",
					   .limit = MIB(64),
					   .unused = unused}};
}

/* The least counts, and only what was too little is named. */
Test(dest_fit, the_least_of_host_and_group)
{
	static const struct msg_block b = {.length = MIB(8)};
	struct fit_host h = grouped(MIB(8), MIB(8));
	struct error err = {0};

	cr_assert_eq(fit_check(&h, &b, 1, &err), 0, "%s", err.msg);
	h = grouped(MIB(9), MIB(8) - 1);
	cr_assert_eq(fit_check(&h, &b, 1, &err), -ENOMEM);
	cr_assert_str_eq(err.code, "no-room");
	cr_assert(strstr(err.msg, "needs 8388608 bytes, 8388607 free"), "%s", err.msg);
	cr_assert(strstr(err.msg, "of the 67108864 of control group /sys/fs/cgroup/a; raise its "
				  "memory.max"),
		  "%s", err.msg);
	cr_assert_eq(fit_memory(&h), MIB(8) - 1);
	/* What is promised is promised of it, too, and a margin stays free of it. */
	h.group.unused = MIB(9);
	h.promised = MIB(1) + 1;
	cr_assert_eq(fit_memory(&h), MIB(8) - 1);
	cr_assert_eq(fit_check(&h, &b, 1, &err), -ENOMEM);
	h.margin = -1;
	cr_assert_eq(fit_check(&h, &b, 1, &err), 0, "%s", err.msg);
	h = grouped(MIB(7), MIB(8));
	err = (struct error){0};
	cr_assert_eq(fit_check(&h, &b, 1, &err), -ENOMEM);
	cr_assert_not(strstr(err.msg, "group"), "%s", err.msg);
	h = grouped(KNOWN, MIB(7));
	cr_assert_eq(fit_check(&h, &b, 1, &err), -ENOMEM, "the host is not known, its group is");
	h = grouped(MIB(8), KNOWN);
	cr_assert_eq(fit_check(&h, &b, 1, &err), 0, "%s", err.msg);
}

Test(dest_fit, files_have_a_file_system)
{
	struct fit_files f = {.path = "/dev/shm", .unused = MIB(8), .needs = MIB(8)};
	struct error err = {0};

	cr_assert_eq(fit_check_files(&f, &err), 0, "%s", err.msg);
	f.promised = 4096;
	cr_assert_eq(fit_check_files(&f, &err), -ENOMEM);
	cr_assert_str_eq(err.code, "no-room");
	cr_assert(strstr(err.msg, "on /dev/shm and needs 8388608 bytes more there, 8388608 free, "
				  "4096 promised"),
		  "%s", err.msg);
	f.lent = 4096;
	cr_assert_eq(fit_check_files(&f, &err), 0, "%s", err.msg);
	f.promised = KNOWN;
	cr_assert_eq(fit_check_files(&f, &err), -ENOMEM);
	f.lent = KNOWN;
	f.promised = 0;
	cr_assert_eq(fit_check_files(&f, &err), 0, "%s", err.msg);
}

/* --- any host --- */

#define GUESTS 12

/** struct arriving - @bytes and @pages that it will have, @came of them; @reserves: maps its huge pages when it begins */
struct arriving {
	bool here;
	bool mapped;
	bool reserves;
	uint64_t bytes, bytes_came;
	uint64_t pages, pages_came;
};

/** struct world - a host as its kernel has it */
struct world {
	uint64_t seed;
	uint64_t available;
	uint64_t unused, reserved;
	uint64_t margin;
	struct arriving g[GUESTS];
};

static uint64_t dice(struct world *w, uint64_t n)
{
	w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
	return (w->seed >> 33) % n;
}

/* As the agent counts it. */
static struct fit_host host_of(const struct world *w)
{
	struct fit_host h = {
		.available = w->available,
		.margin = (int64_t)w->margin,
		.pools = {{.size = HUGE, .unused = w->unused, .reserved = w->reserved}},
		.npools = 1};

	for (size_t i = 0; i < GUESTS; i++)
		if (w->g[i].here) {
			h.promised += w->g[i].bytes - w->g[i].bytes_came;
			h.pools[0].promised += w->g[i].pages - w->g[i].pages_came;
		}
	return h;
}

static void setup(struct world *w, struct arriving *g)
{
	struct fit_host h = host_of(w);
	uint64_t bytes = dice(w, 64) << 12, pages = dice(w, 3) ? 0 : dice(w, 8);
	struct msg_block b[2] = {
		{.kind = MSG_BLOCK_MEMFD, .page_size = 4096, .length = bytes},
		{.kind = MSG_BLOCK_HUGETLB, .page_size = HUGE, .length = pages * HUGE}};
	bool fits = !bytes || h.promised + bytes + w->margin <= w->available;
	bool huge_fits = !pages || h.pools[0].promised + pages <= w->unused;
	int r = fit_check(&h, b, 2, &(struct error){0});

	/* Not too many, and, as nobody else reserves, not too few. */
	cr_assert_eq(r, fits && huge_fits ? 0 : -ENOMEM, "%" PRIu64 " bytes, %" PRIu64 " pages",
		     bytes, pages);
	if (!r)
		*g = (struct arriving){
			.here = true, .reserves = dice(w, 2), .bytes = bytes, .pages = pages};
}

static void arrive(struct world *w, struct arriving *g)
{
	uint64_t n = MIN(dice(w, 16) << 12, g->bytes - g->bytes_came);

	if (!g->mapped) {
		g->mapped = true;
		w->reserved += g->reserves ? g->pages : 0;
		return;
	}
	cr_assert(!n || w->available >= n + w->margin, "what was promised is not there");
	w->available -= n;
	g->bytes_came += n;
	if (g->pages_came == g->pages)
		return;
	cr_assert_gt(w->unused, 0, "a huge page that was promised is not there");
	w->unused--;
	w->reserved -= g->reserves;
	g->pages_came++;
}

/* It is there and somebody else's matter, or it was given up. */
static void go(struct world *w, struct arriving *g)
{
	if (g->mapped && g->reserves)
		w->reserved -= g->pages - g->pages_came;
	w->available += g->bytes_came;
	w->unused += g->pages_came;
	g->here = false;
}

Test(dest_fit, whoever_was_admitted_gets_it)
{
	for (unsigned int seed = 1; seed <= 2000; seed++) {
		struct world w = {.seed = seed};

		w.available = dice(&w, 400) << 12;
		w.unused = dice(&w, 20);
		w.margin = dice(&w, 40) << 12;
		for (unsigned int step = 0; step < 200; step++) {
			struct arriving *g = &w.g[dice(&w, GUESTS)];

			if (!g->here)
				setup(&w, g);
			else if (dice(&w, 12))
				arrive(&w, g);
			else
				go(&w, g);
			cr_assert_leq(w.reserved, w.unused);
		}
	}
}
