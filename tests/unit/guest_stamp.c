/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stamp moved by hand from one process to another, stopped, through the driver and gmem: every page
 * arrives. And the other way round: whatever is done to a page on the way, stamp says what it was.
 */
#include "unit/guest_pair.h"

#include <jansson.h>

#include "guests/stamp/page.h"

static struct pair p;
static pid_t child;
static char report[100];

static void start(void)
{
	pair_open(&p);
	snprintf(report, sizeof(report), "%s/report", p.dir);
}

static void stop(void)
{
	if (child)
		pair_kill(&p, child);
	unlink(report);
	pair_close(&p);
}

TestSuite(guest_stamp, .init = start, .fini = stop, .timeout = 120);

/** struct launch - how stamp is started; @extra: up to 12 words */
struct launch {
	bool incoming;
	const char *extra[12];
};

static void exec_stamp(const char *path, void *arg)
{
	struct launch *l = arg;
	char self[400], *argv[32] = {self, "--name", "moving", "--report", report}, *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int argc = 5;

	self[n > 0 ? n : 0] = '\0';
	slash = strstr(self, "/unit/");
	if (!slash)
		_exit(97);
	strcpy(slash, "/guests/stamp");
	for (size_t i = 0; i < 12 && l->extra[i]; i++)
		argv[argc++] = (char *)l->extra[i];
	if (l->incoming) {
		setenv("DECANT_INCOMING", PAIR_TOKEN, 1);
		setenv("DECANT_ATTACH", path, 1);
	} else {
		argv[argc++] = "--attach";
		argv[argc++] = (char *)path;
	}
	freopen("/dev/null", "w", stderr); /* the reports tell the same */
	execv(self, argv);
	_exit(96);
}

static void launch(struct launch *l)
{
	child = pair_fork(&p, exec_stamp, l);
	pair_until(&p, p.g);
}

static json_t *read_report(void)
{
	json_t *j = json_load_file(report, 0, NULL);

	cr_assert(j, "no report");
	return j;
}

/* The report is newer than the pause. */
static bool stands(void)
{
	json_t *j = read_report();
	bool r = json_is_true(json_object_get(j, "paused")) &&
		 json_equal(json_object_get(j, "counter"), json_object_get(j, "counter_at_pause"));

	json_decref(j);
	return r;
}

static json_int_t reported(const char *key)
{
	json_t *j = read_report();
	json_int_t v = json_integer_value(json_object_get(j, key));

	json_decref(j);
	return v;
}

/* What one process leaves for the next: the state, and each block's data. */
struct luggage {
	char *state;
	size_t nstate;
	char *memory[4];
	struct {
		uint64_t off, len;
	} range[4][70000];
	size_t nranges[4];
	json_int_t counter;
	size_t bytes;
};

static struct luggage bag;
static size_t packing;

static int pack_range(void *arg, uint64_t off, uint64_t len)
{
	const struct gmem *m = arg;

	cr_assert_lt(bag.nranges[packing], 70000);
	bag.range[packing][bag.nranges[packing]].off = off;
	bag.range[packing][bag.nranges[packing]++].len = len;
	bag.bytes += len;
	return gmem_read(m, off, bag.memory[packing] + off, len);
}

static void pack(void)
{
	struct error err = {0};
	struct gmem m;

	cr_assert_eq(pair_do(&p, guest_pause, p.g, 2000), 0, "%s", p.err.msg);
	cr_assert_eq(pair_save(&p), 0, "%s", p.err.msg);
	bag.state = steal_ptr(&p.saved);
	bag.nstate = p.nsaved;
	for (uint16_t i = 0; i < p.g->nblocks; i++) {
		bag.memory[i] = calloc(1, p.g->blocks[i].length);
		packing = i;
		cr_assert_eq(gmem_open(&m, p.g, i, &err), 0, "%s", err.msg);
		cr_assert_eq(gmem_data_ranges(&m, pack_range, &m), 0);
		gmem_close(&m);
	}
	pair_until(&p, stands());
	bag.counter = reported("counter");
	cr_assert_eq(pair_do(&p, guest_quit, p.g), 0);
	cr_assert_eq(pair_wait(&p, child), 0);
	pair_until(&p, !p.g);
	cr_assert_eq(reported("counter"), bag.counter, "it wrote while it was paused");
}

static void unpack(struct launch *l, void (*harm)(void))
{
	struct error err = {0};
	struct gmem m;

	if (harm)
		harm();
	l->incoming = true;
	launch(l);
	cr_assert_eq(p.g->run_state, GUEST_INCOMING);
	for (uint16_t i = 0; i < p.g->nblocks; i++) {
		cr_assert_eq(gmem_open(&m, p.g, i, &err), 0, "%s", err.msg);
		cr_assert_eq(gmem_check_hole(&m, 0, m.block.length, NULL), 1, "it is not empty");
		for (size_t r = 0; r < bag.nranges[i]; r++)
			cr_assert_eq(gmem_write(&m, bag.range[i][r].off,
						bag.memory[i] + bag.range[i][r].off,
						bag.range[i][r].len),
				     0);
		gmem_close(&m);
	}
	cr_assert_eq(pair_load(&p, false, bag.state, bag.nstate), 0, "%s", p.err.msg);
	cr_assert_eq(pair_do(&p, guest_resume, p.g), 0);
	pair_until(&p, access(report, F_OK) == 0 && reported("arrivals") == 1 &&
			       reported("verifications") >= 1);
}

static void move(struct launch *l, void (*harm)(void))
{
	launch(l);
	pair_spin(&p, 300);
	pack();
	unlink(report);
	unpack(l, harm);
}

static void expect_good(void)
{
	cr_assert_eq(reported("bad_pages"), 0);
	cr_assert_eq(reported("verified_pages"), reported("pages"));
	cr_assert_eq(reported("counter_gap"), 0);
	cr_assert_eq(reported("counter_at_arrival"), bag.counter);
	pair_until(&p, reported("counter") > bag.counter);
}

Test(guest_stamp, moves_as_files)
{
	struct launch l = {.extra = {"--mb", "32", "--blocks", "3", "--state-kb", "300"}};

	move(&l, NULL);
	expect_good();
	cr_assert_lt(bag.bytes, 32u << 20, "zeros that were never written are data");
}

Test(guest_stamp, moves_as_anonymous_memory)
{
	struct launch l = {.extra = {"--mb", "32", "--kind", "anon", "--threads", "4"}};

	move(&l, NULL);
	expect_good();
}

Test(guest_stamp, moves_as_huge_pages)
{
	struct launch l = {.extra = {"--mb", "16", "--kind", "huge"}};
	char *text = NULL;
	long free_pages = 0;

	if (fdio_read_file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", 64, &text) >
	    0)
		free_pages = atol(text);
	free(text);
	if (free_pages < 8)
		pair_skip(&p, "needs 8 free huge pages (/proc/sys/vm/nr_hugepages)");
	move(&l, NULL);
	expect_good();
}

Test(guest_stamp, an_empty_one_moves)
{
	struct launch l = {.extra = {"--mb", "32", "--zeros", "100", "--threads", "0"}};

	move(&l, NULL);
	cr_assert_eq(bag.bytes, 0);
	cr_assert_eq(reported("bad_pages"), 0);
	cr_assert_eq(reported("verified_pages"), 32 * 256);
}

Test(guest_stamp, pauses_by_its_own_wish)
{
	struct launch l = {.extra = {"--mb", "4", "--paused"}};
	json_int_t counter;

	launch(&l);
	cr_assert_eq(p.g->run_state, GUEST_PAUSED);
	pair_spin(&p, 300);
	counter = reported("counter");
	pair_spin(&p, 300);
	cr_assert_eq(reported("counter"), counter);
	kill(child, SIGUSR2);
	pair_until(&p, p.g->run_state == GUEST_RUNNING);
	pair_until(&p, reported("counter") > counter);
	kill(child, SIGUSR1);
	pair_until(&p, reported("verifications") == 1);
	cr_assert_eq(reported("bad_pages"), 0);
}

/* --- stamp notices ------------------------------------------------------------------------------ */

static char *page(size_t i)
{
	return bag.memory[0] + i * PAIR_PAGE;
}

/* A page of data at or behind @from. */
static size_t data_page(size_t from)
{
	while (stamp_all_zero((uint64_t *)page(from)))
		from++;
	return from;
}

static size_t harmed;

static void harm_zero(void)
{
	harmed = data_page(100);
	memset(page(harmed), 0, PAIR_PAGE);
}

static void harm_swap(void)
{
	harmed = data_page(100);
	memcpy(page(harmed), page(data_page(harmed + 1)), PAIR_PAGE);
}

static void harm_bit(void)
{
	harmed = data_page(100);
	page(harmed)[4000] ^= 1;
}

static void harm_stale(void)
{
	uint64_t *w;
	struct stamp_seed seed = {.zeros = 10};

	for (harmed = data_page(100);; harmed = data_page(harmed + 1)) {
		w = (uint64_t *)page(harmed);
		seed.seed = w[0];
		if (w[2] > 1 && !stamp_is_zero(&seed, harmed, (uint32_t)w[2] - 1))
			break;
	}
	stamp_write(&seed, w, harmed, (uint32_t)w[2] - 1);
}

static void expect_noticed(void (*harm)(void), const char *what)
{
	/* No writer may make it good before it is looked at: only the verification looks. */
	struct launch first = {.extra = {"--mb", "8"}};
	struct launch second = {.extra = {"--mb", "8", "--threads", "0"}};
	json_t *j, *bad;

	launch(&first);
	pair_spin(&p, 300);
	pack();
	unlink(report);
	unpack(&second, harm);
	j = read_report();
	cr_assert_eq(json_integer_value(json_object_get(j, "bad_pages")), 1);
	bad = json_object_get(j, "first_bad");
	cr_assert_eq((size_t)json_integer_value(json_object_get(bad, "page")), harmed);
	cr_assert_str_eq(json_string_value(json_object_get(bad, "what")), what);
	json_decref(j);
	kill(child, SIGUSR1);
	pair_until(&p, reported("verifications") == 2);
	cr_assert_eq(reported("bad_pages"), 1, "one page is one bad page");
}

Test(guest_stamp, notices_zeros)
{
	expect_noticed(harm_zero, "zeroed");
}

Test(guest_stamp, notices_another_page)
{
	expect_noticed(harm_swap, "swapped");
}

Test(guest_stamp, notices_an_older_page)
{
	expect_noticed(harm_stale, "stale");
}

Test(guest_stamp, notices_a_single_bit)
{
	expect_noticed(harm_bit, "torn");
}
