/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest that was welcome can do wrong afterwards, and what may happen to it. */
#include "guest/native_impl.h"
#include "unit/attach_peer.h"

TestSuite(guest_attached, .init = start, .fini = stop, .timeout = 60);

static void expect_cut_off(void)
{
	int gone = p.gone;

	pair_until(&p, p.gone > gone);
	cr_assert_eq(p.how, GUEST_GONE_MISBEHAVED);
	cr_assert_eq(take().type, 0);
	redial();
	attach();
}

Test(guest_attached, a_guest_that_misbehaves_is_cut_off)
{
	struct gwire_msg m = hello(0);
	uint8_t buf[100] = {99, 0};

	attach();
	put(&m, -1);
	expect_cut_off();
	m = (struct gwire_msg){.type = GWIRE_DONE, .id = 12345};
	put(&m, -1);
	expect_cut_off();
	gwire_send(sock, buf, sizeof(buf), -1);
	expect_cut_off();
	gwire_send(sock, buf, 3, -1);
	expect_cut_off();
	m = (struct gwire_msg){.type = GWIRE_PAUSE, .id = 1, .u.bound_ms = 1};
	put(&m, -1);
	expect_cut_off();
	buf[0] = GWIRE_STATE_CHANGED;
	buf[8] = 9;
	gwire_send(sock, buf, 9, -1);
	expect_cut_off();
}

static void say_vcpu(uint32_t tid, bool on)
{
	struct gwire_msg m = {.type = GWIRE_VCPU, .u.vcpu = {.tid = tid, .on = on}};

	cr_assert_eq(put(&m, -1), 0);
}

static void attach_with_vcpus(void)
{
	struct gwire_msg m = hello(0);

	m.u.hello.flags = GWIRE_HELLO_VCPUS;
	put(&m, -1);
	say_end();
	cr_assert_eq(take().type, GWIRE_WELCOME);
	cr_assert(p.g && p.g->names_vcpus);
}

Test(guest_attached, vcpu_threads_are_named_and_bounded)
{
	attach_with_vcpus();
	for (uint32_t tid = 1; tid <= GUEST_VCPUS_MAX; tid++)
		say_vcpu(tid, true);
	say_vcpu(7, true); /* again */
	pair_until(&p, p.g->nvcpus == GUEST_VCPUS_MAX);
	say_vcpu(7, false);
	say_vcpu(4711, false); /* never was one */
	pair_until(&p, p.g->nvcpus == GUEST_VCPUS_MAX - 1);
	for (unsigned int i = 0; i < p.g->nvcpus; i++)
		cr_assert_neq(p.g->vcpus[i], 7);
	say_vcpu(1000, true);
	say_vcpu(1001, true);
	expect_cut_off();
	/* One that has not said that it names them. */
	say_vcpu(1, true);
	expect_cut_off();
}

static void count_vcpu(void *arg, struct guest *g, uint32_t tid, bool on)
{
	(void)g, (void)tid, (void)on;
	++*(unsigned int *)arg;
}

/* Who brought the guest here is gone when its threads end: nobody is told in his place. */
Test(guest_attached, vcpu_threads_end_when_somebody_else_has_the_guest)
{
	unsigned int told = 0;

	attach_with_vcpus();
	guest_watch(p.g, pair_on_gone, NULL, &told);
	guest_watch_vcpus(p.g, count_vcpu);
	say_vcpu(7, true);
	pair_until(&p, told == 1);
	guest_watch(p.g, pair_on_gone, NULL, &p);
	told = 0;
	say_vcpu(7, false);
	pair_until(&p, p.g->nvcpus == 0);
	cr_assert_eq(told, 0);
	guest_watch(p.g, pair_on_gone, NULL, &told);
	say_vcpu(8, true);
	pair_until(&p, p.g->nvcpus == 1);
	cr_assert_eq(told, 0, "told with what belongs to somebody else");
	guest_watch(p.g, pair_on_gone, NULL, &p);
}

/* The agent has asked for something with @id; the guest answers with nonsense. */
static void answer(uint32_t id, int fd)
{
	struct gwire_msg m = {.type = GWIRE_DONE, .nfds = fd >= 0, .id = id};

	put(&m, fd);
}

Test(guest_attached, answers_with_the_wrong_descriptor)
{
	attach();
	for (int i = 0; i < 4; i++) {
		p.done = false;
		if (i < 3)
			cr_assert_eq(guest_uffd(p.g, true, 1, pair_done, &p), 0);
		else
			cr_assert_eq(guest_resume(p.g, pair_done, &p), 0);
		/* None, a socket, an ordinary eventfd-less file, and one that nobody wants. */
		answer(take().id, i == 0 ? -1 : i == 1 ? sock : STDIN_FILENO);
		expect_cut_off();
		cr_assert(p.done);
		cr_assert_eq(p.ret, -ECONNRESET);
	}
}

Test(guest_attached, an_answer_that_is_late_changes_nothing)
{
	struct gwire_msg pause, resume, m = {.type = GWIRE_STATE_CHANGED};

	attach();
	cr_assert_eq(guest_pause(p.g, 10, pair_done, &p), 0);
	pause = take();
	cr_assert_eq(pause.type, GWIRE_PAUSE);
	resume = take(); /* comes when the agent no longer waits */
	cr_assert_eq(resume.type, GWIRE_RESUME);
	cr_assert(p.done);
	cr_assert_eq(p.ret, -ETIMEDOUT);
	answer(pause.id, -1);
	answer(resume.id, -1);
	put(&m, -1);
	pair_spin(&p, 50);
	cr_assert_eq(p.gone, 0);
	answer(pause.id, -1); /* but not twice */
	expect_cut_off();
}

Test(guest_attached, saved_state_that_lies_about_its_length)
{
	struct gwire_msg m, done = {.type = GWIRE_DONE, .u.done.detail = 100};
	const char *what;
	ssize_t n;
	int fd;

	attach();
	for (int i = 0; i < 2; i++) {
		p.nsaved = 0;
		p.done = false;
		cr_assert_eq(guest_save(p.g, pair_chunk, pair_done, &p), 0);
		while ((n = gwire_recv(sock, packet, &fd, NULL)) == -EAGAIN)
			pair_spin(&p, 1);
		cr_assert_eq(gwire_decode(packet, (size_t)n, NULL, &m, &what), 0);
		cr_assert_eq(m.type, GWIRE_SAVE);
		cr_assert_eq(write(fd, packet, 99 + (size_t)i), 99 + i);
		close(fd);
		done.id = m.id;
		put(&done, -1);
		pair_until(&p, p.done);
		cr_assert_eq(p.ret, i ? 0 : -EIO, "%s", p.err.msg);
	}
}

/* Not for long: who never stops talking is cut off. */
Test(guest_attached, a_flood_does_not_starve_the_loop)
{
	struct gwire_msg m = {.type = GWIRE_STATE_CHANGED};

	attach();
	for (unsigned int i = 0; i < NATIVE_TOLD_MAX; i++) {
		m.u.run_state ^= 1;
		put(&m, -1);
		event_base_loop(loop_base(p.loop), EVLOOP_NONBLOCK);
	}
	cr_assert_eq(p.gone, 0);
	cr_assert_eq(guest_resume(p.g, pair_done, &p), 0);
	cr_assert_eq(take().type, GWIRE_RESUME);
	put(&m, -1);
	pair_until(&p, p.gone);
	cr_assert_eq(p.how, GUEST_GONE_MISBEHAVED);
}

Test(guest_attached, requests_are_bounded)
{
	int n = 0, ret;

	attach();
	while (!(ret = guest_resume(p.g, NULL, NULL)))
		n++;
	cr_assert_eq(ret, -EBUSY);
	cr_assert_lt(n, 10000);
	while (n--)
		answer(take().id, -1);
	pair_spin(&p, 50);
	cr_assert_eq(guest_resume(p.g, NULL, NULL), 0);
}

Test(guest_attached, a_guest_may_be_let_go_in_any_callback)
{
	attach();
	guest_watch(p.g, pair_on_gone, NULL, &p);
	cr_assert_eq(guest_resume(p.g, NULL, NULL), 0);
	guest_free(p.g);
	p.g = NULL;
	cr_assert_eq(take().type, GWIRE_RESUME);
	cr_assert_eq(take().type, 0);
	pair_spin(&p, 50);
	cr_assert_eq(p.gone, 0, "it was let go, not lost");
}
