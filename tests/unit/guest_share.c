/* SPDX-License-Identifier: Apache-2.0 */
/* A sharer's connection: the library in this process, and an agent that does what the test says. */
#include "unit/guest_pair.h"

#include <event2/event.h>
#include <time.h>

#include "guest/decant-sharer.h"

#define RANGES 3
#define LENGTH (4 * PAIR_PAGE)

/**
 * struct agent - an attach socket that takes sharers
 * @share:	the one that is attached, NULL for none
 * @attached, @gone: how often
 * @wanted, @ids, @nwanted: SHARE_MAPs since it was attached
 * @unmapped:	bytes that SHARE_UNMAPs were about
 * @refuse:	refuse the next ones
 */
struct agent {
	struct loop *loop;
	struct attach *attach;
	char dir[64];
	char path[100];
	struct share *share;
	int attached, gone;
	struct gwire_share wanted[8];
	uint32_t ids[8];
	unsigned int nwanted;
	uint64_t unmapped;
	bool refuse;
	char *mem;
	struct decant_sharer *s;
};

static struct agent a;

static void on_map(void *arg, uint32_t id, const struct gwire_share *r)
{
	(void)arg;
	cr_assert_lt(a.nwanted, 8);
	a.ids[a.nwanted] = id;
	a.wanted[a.nwanted++] = *r;
}

static void on_unmap(void *arg, uint64_t address, uint64_t length)
{
	(void)arg;
	(void)address;
	a.unmapped += length;
}

static void on_gone(void *arg, bool dead)
{
	(void)arg;
	cr_assert(!dead);
	a.gone++;
	share_free(a.share);
	a.share = NULL;
}

static const struct share_ops ops = {.map = on_map, .unmap = on_unmap, .gone = on_gone};

static int on_share(void *arg, struct share *s, struct error *err)
{
	(void)arg;
	a.attached++;
	if (a.refuse)
		return error_set(err, -ENOENT, "unknown-guest", "not here, as the test has it");
	share_free(a.share);
	a.share = s;
	a.nwanted = 0;
	share_welcome(s, &ops, NULL);
	return 0;
}

static int on_guest(void *arg, struct guest *g, struct error *err)
{
	(void)arg;
	(void)g;
	return error_set(err, -EPERM, "no", "no guests here");
}

static void listen_with(share_fn *fn)
{
	struct attach_config c = {
		.path = a.path, .mode = 0600, .listen_fd = -1, .fn = on_guest, .share = fn};
	struct error err = {0};

	cr_assert_eq(attach_new(a.loop, &c, &a.attach, &err), 0, "%s", err.msg);
}

static void start(void)
{
	struct decant_sharer_config c = {
		.guest = "vm", .name = "net", .attach = a.path, .flags = DECANT_SHARER_USER_FAULTS};

	log_setup("error");
	strcpy(a.dir, "/tmp/decant-share-XXXXXX");
	cr_assert(mkdtemp(a.dir));
	snprintf(a.path, sizeof(a.path), "%s/attach", a.dir);
	a.loop = loop_new();
	listen_with(on_share);
	a.mem = mmap(NULL, RANGES * LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	a.s = decant_sharer_new(&c);
	cr_assert(a.s, "%m");
}

static void stop(void)
{
	decant_sharer_free(a.s);
	share_free(a.share);
	attach_free(a.attach);
	loop_free(a.loop);
	rmdir(a.dir);
}

TestSuite(guest_share, .init = start, .fini = stop, .timeout = 60);

#define until(cond)                                                              \
	do {                                                                     \
		uint64_t end_ = clock_us() + PAIR_WAIT_MS * 1000ull;             \
		while (!(cond)) {                                                \
			cr_assert(clock_us() < end_, "%s", #cond);               \
			event_base_loop(loop_base(a.loop), EVLOOP_NONBLOCK);     \
			nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); \
		}                                                                \
	} while (0)

static void map(unsigned int i)
{
	cr_assert_eq(decant_sharer_map(a.s, "ram", i * LENGTH, LENGTH, a.mem + i * LENGTH), 0);
}

static int waited(void)
{
	return decant_sharer_wait(a.s, 0);
}

Test(guest_share, says_what_it_has_and_waits_until_it_is_told)
{
	map(0);
	map(1);
	until(a.nwanted == 2);
	cr_assert_str_eq(a.share->guest, "vm");
	cr_assert_str_eq(a.share->name, "net");
	cr_assert_eq(a.share->pid, getpid());
	cr_assert(!a.share->again && a.share->uffd >= 0);
	cr_assert_str_eq(a.wanted[1].block, "ram");
	cr_assert_eq(a.wanted[1].offset, LENGTH);
	cr_assert_eq(a.wanted[1].length, LENGTH);
	cr_assert_eq(a.wanted[1].address, (uintptr_t)a.mem + LENGTH);
	cr_assert_eq(waited(), -ETIMEDOUT);
	share_done(a.share, a.ids[0], 0, true, "");
	share_done(a.share, 4711, 0, true, "");
	cr_assert_eq(decant_sharer_wait(a.s, 50), -ETIMEDOUT, "one of two");
	share_done(a.share, a.ids[1], 0, true, "");
	cr_assert_eq(decant_sharer_wait(a.s, PAIR_WAIT_MS), 0);
	map(2);
	cr_assert_eq(waited(), -ETIMEDOUT, "a new one");
	until(a.nwanted == 3);
	share_done(a.share, a.ids[2], 0, false, "");
	cr_assert_eq(decant_sharer_wait(a.s, PAIR_WAIT_MS), 0);
}

Test(guest_share, an_error_is_told)
{
	char text[100];

	map(0);
	until(a.nwanted == 1);
	share_done(a.share, a.ids[0], -EINVAL, true, "that is not the guest's");
	cr_assert_eq(decant_sharer_wait(a.s, PAIR_WAIT_MS), -EINVAL);
	cr_assert_str_eq(decant_sharer_error(a.s, text, sizeof(text)), "that is not the guest's");
	cr_assert_eq(decant_sharer_unmap(a.s, a.mem, LENGTH), 0);
	cr_assert_eq(waited(), 0, "it has nothing else");
}

/* While the agent is away the descriptor that guards is kept, and goes to the next one, with everything. */
Test(guest_share, hands_it_over_again)
{
	map(0);
	map(1);
	until(a.nwanted == 2);
	share_done(a.share, a.ids[0], 0, true, "");
	share_done(a.share, a.ids[1], 0, true, "");
	cr_assert_eq(decant_sharer_wait(a.s, PAIR_WAIT_MS), 0);
	share_free(a.share);
	a.share = NULL;
	until(a.attached == 2 && a.nwanted == 2);
	cr_assert(a.share->again);
	/* One that has guarded nothing is fresh each time: an agent may have shaken hands with it. */
	cr_assert_eq(decant_sharer_unmap(a.s, a.mem, LENGTH), 0);
	until(a.unmapped == LENGTH);
}

Test(guest_share, what_has_guarded_nothing_is_fresh)
{
	map(0);
	until(a.nwanted == 1);
	share_free(a.share);
	a.share = NULL;
	until(a.attached == 2 && a.nwanted == 1);
	cr_assert(!a.share->again);
}

/* Nothing is missing: for ever, also without an agent. */
Test(guest_share, settled)
{
	map(0);
	until(a.nwanted == 1);
	share_done(a.share, a.ids[0], 0, true, "");
	share_settled(a.share);
	until(a.gone == 1);
	attach_free(a.attach);
	a.attach = NULL;
	map(1);
	cr_assert_eq(waited(), 0);
	cr_assert_eq(decant_sharer_unmap(a.s, a.mem, RANGES * LENGTH), 0);
	cr_assert_eq(decant_sharer_unmap(a.s, a.mem, RANGES * LENGTH), -ENOENT);
}

/* A guest that is not there yet: it is tried again. */
Test(guest_share, refused_for_now)
{
	char text[100];

	a.refuse = true;
	map(0);
	until(a.attached == 3);
	cr_assert_eq(waited(), -ETIMEDOUT);
	cr_assert_str_eq(decant_sharer_error(a.s, text, sizeof(text)),
			 "not here, as the test has it");
	a.refuse = false;
	until(a.nwanted == 1);
}

/* decant-source has none. */
Test(guest_share, agents_without_sharers)
{
	char text[200];

	map(0);
	until(a.nwanted == 1);
	attach_free(a.attach);
	listen_with(NULL);
	share_free(a.share);
	a.share = NULL;
	until(strstr(decant_sharer_error(a.s, text, sizeof(text)), "attach it to decant-dest"));
}

Test(guest_share, what_cannot_be)
{
	struct decant_sharer_config c = {.guest = "vm", .name = "-x", .attach = a.path};

	cr_assert(!decant_sharer_new(&c) && errno == EINVAL);
	c.name = "x";
	c.attach = "relative";
	cr_assert(!decant_sharer_new(&c) && errno == EINVAL);
	cr_assert_eq(decant_sharer_map(a.s, "../x", 0, LENGTH, a.mem), -EINVAL);
	cr_assert_eq(decant_sharer_map(a.s, "ram", 0, 0, a.mem), -EINVAL);
	cr_assert_eq(decant_sharer_map(a.s, "ram", 0, LENGTH, NULL), -EINVAL);
	for (unsigned int i = 0; i < DECANT_SHARER_RANGES_MAX; i++)
		cr_assert_eq(decant_sharer_map(a.s, "ram", 0, PAIR_PAGE, a.mem), 0);
	cr_assert_eq(decant_sharer_map(a.s, "ram", 0, PAIR_PAGE, a.mem), -ENOSPC);
	cr_assert_eq(decant_sharer_unmap(a.s, a.mem, PAIR_PAGE), 0);
	cr_assert_eq(waited(), 0);
}
