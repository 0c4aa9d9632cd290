/* SPDX-License-Identifier: Apache-2.0 */
/* A guest with the real library against the real driver, each in its own process. */
#include "unit/guest_one.h"

#include <poll.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

static void run_incoming(void)
{
	child = pair_fork(&p, pair_incoming, s);
	pair_until(&p, p.g);
}

TestSuite(guest_native, .init = one_start, .fini = one_stop, .timeout = 60);

Test(guest_native, says_who_it_is_and_what_it_has)
{
	run();
	cr_assert_str_eq(p.g->name, "unit");
	cr_assert_eq(p.g->pid, child);
	cr_assert_eq(p.g->uid, getuid());
	cr_assert_eq(p.g->run_state, GUEST_RUNNING);
	cr_assert(!p.g->has_token && !p.g->kept_uffd && p.g->user_faults);
	cr_assert_eq(p.g->nblocks, 2);
	cr_assert_str_eq(p.g->blocks[0].name, "file");
	cr_assert_eq(p.g->blocks[0].kind, GUEST_BLOCK_MEMFD);
	cr_assert_eq(p.g->blocks[0].length, PAIR_BLOCK);
	cr_assert_geq(p.g->blocks[0].fd, 0);
	cr_assert_str_eq(p.g->blocks[1].name, "anon");
	cr_assert_eq(p.g->blocks[1].kind, GUEST_BLOCK_ANON);
	cr_assert_eq(p.g->blocks[1].fd, -1);
	cr_assert_eq(guest_memory_bytes(p.g), 2 * PAIR_BLOCK);

	const struct guest_block *b = NULL;

	cr_assert(!guest_no_dma(p.g, &b));
	cr_assert_eq(b, &p.g->blocks[1]);
}

Test(guest_native, pauses_and_resumes)
{
	run();
	for (int i = 1; i <= 3; i++) {
		cr_assert_eq(pair_do(&p, guest_pause, p.g, 5000), 0);
		cr_assert_eq(p.g->run_state, GUEST_PAUSED_MIGRATION);
		cr_assert(s->paused);
		cr_assert_eq(pair_do(&p, guest_pause, p.g, 1000), 0, "a second pause is none");
		cr_assert_eq(pair_do(&p, guest_resume, p.g), 0);
		cr_assert_eq(p.g->run_state, GUEST_RUNNING);
		cr_assert(!s->paused);
		cr_assert_eq(pair_do(&p, guest_resume, p.g), 0);
		cr_assert_eq(s->pauses, i);
		cr_assert_eq(s->resumes, i);
	}
}

Test(guest_native, a_pause_that_is_late_is_undone_by_itself)
{
	run();
	s->pause_ms = 1000;
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 50), -ETIMEDOUT);
	cr_assert_eq(s->pauses, 0, "too early to test anything");
	pair_until(&p, s->resumes == 1);
	cr_assert_eq(s->pauses, 1);
	cr_assert(!s->paused);
	s->pause_ms = 0;
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 5000), 0);
	cr_assert_eq(pair_do(&p, guest_resume, p.g), 0);
	cr_assert_eq(s->resumes, 2);
}

Test(guest_native, a_pause_asked_for_again_while_late_holds)
{
	run();
	s->pause_ms = 1000;
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 50), -ETIMEDOUT);
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 8000), 0);
	cr_assert_eq(s->pauses, 1);
	cr_assert_eq(s->resumes, 0);
	cr_assert_eq(pair_do(&p, guest_resume, p.g), 0);
	cr_assert_eq(s->resumes, 1);
}

Test(guest_native, a_pause_that_fails_leaves_it_running)
{
	run();
	s->pause_error = -EAGAIN;
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 1000), -EAGAIN);
	cr_assert_eq(p.g->run_state, GUEST_RUNNING);
	pair_spin(&p, 50);
	cr_assert_eq(s->pauses, 1, "it is not tried again");
	cr_assert_eq(s->resumes, 0);
}

Test(guest_native, a_stopped_process_does_not_hold_the_agent)
{
	int status = 0;

	run();
	kill(child, SIGSTOP);
	/* kill(2) returns before all threads of it have stopped. */
	cr_assert(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 100), -ETIMEDOUT);
	kill(child, SIGCONT);
	/* It reads PAUSE now, and RESUME behind it: there may be neither, and never one alone. */
	pair_spin(&p, 100);
	pair_until(&p, s->pauses == s->resumes);
	cr_assert(!s->paused);
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 5000), 0);
}

Test(guest_native, its_own_pause_and_the_hold_are_two_things)
{
	run();
	s->set_paused = true;
	pair_until(&p, p.g->run_state == GUEST_PAUSED);
	cr_assert_eq(s->pauses, 1);
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 5000), 0);
	cr_assert_eq(p.g->run_state, GUEST_PAUSED_MIGRATION);
	cr_assert_eq(pair_do(&p, guest_resume, p.g), 0);
	cr_assert_eq(p.g->run_state, GUEST_PAUSED);
	cr_assert_eq(s->resumes, 0);
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 5000), 0);
	s->set_paused = false;
	pair_spin(&p, 50);
	cr_assert(s->paused, "the hold stands");
	cr_assert_eq(pair_do(&p, guest_resume, p.g), 0);
	cr_assert_eq(s->resumes, 1);
	cr_assert_eq(s->pauses, 1);
}

Test(guest_native, saves_what_it_has)
{
	run();
	cr_assert_eq(pair_save(&p), -EINVAL, "not while it runs");
	for (size_t n = 0; n <= 3000000; n += 1499999) {
		s->state = n;
		cr_assert_eq(pair_do(&p, guest_pause, p.g, 5000), 0);
		cr_assert_eq(pair_save(&p), 0, "%s", p.err.msg);
		cr_assert_eq(p.nsaved, n);
		cr_assert_eq(p.g->state_bytes, n);
		for (size_t i = 0; i < n; i++)
			cr_assert_eq((uint8_t)p.saved[i], pair_byte(i));
		cr_assert_eq(pair_do(&p, guest_resume, p.g), 0);
	}
}

Test(guest_native, state_is_limited_not_cut)
{
	run();
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 5000), 0);
	s->state = DECANT_STATE_MAX;
	cr_assert_eq(pair_save(&p), 0, "%s", p.err.msg);
	cr_assert_eq(p.nsaved, DECANT_STATE_MAX);
	s->state++;
	cr_assert_eq(pair_save(&p), -EFBIG);
	cr_assert(strstr(p.err.msg, "64 MiB"), "%s", p.err.msg);
	s->state = 10;
	s->save_error = -EPERM;
	cr_assert_eq(pair_save(&p), -EPERM);
	s->save_error = 0;
	cr_assert_eq(pair_save(&p), 0);
}

static int slow_chunks;

static int slow_chunk(void *arg, const void *data, size_t n)
{
	slow_chunks++;
	return pair_chunk(arg, data, n) ?: 1;
}

Test(guest_native, saving_waits_for_a_slow_agent)
{
	int seen;

	run();
	s->state = 4000000;
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 5000), 0);
	p.done = false;
	cr_assert_eq(guest_save(p.g, slow_chunk, pair_done, &p), 0);
	while (!p.done) {
		seen = slow_chunks;
		pair_spin(&p, 2);
		cr_assert_leq(slow_chunks, seen + 1, "delivered without being asked");
		if (p.g && !p.done)
			guest_save_more(p.g);
	}
	cr_assert_eq(p.ret, 0);
	cr_assert_eq(p.nsaved, 4000000);
}

static int stop_chunk(void *arg, const void *data, size_t n)
{
	(void)arg;
	(void)data;
	(void)n;
	return -ECANCELED;
}

static int stall_chunk(void *arg, const void *data, size_t n)
{
	pair_chunk(arg, data, n);
	return 1;
}

Test(guest_native, a_save_can_be_given_up)
{
	run();
	s->state = 8000000;
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 5000), 0);
	cr_assert_eq(pair_do(&p, guest_save, p.g, stop_chunk), -ECANCELED);
	cr_assert_eq(pair_do(&p, guest_resume, p.g), 0);
	/* And with the guest stuck in the middle, by resuming it. */
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 5000), 0);
	p.done = false;
	cr_assert_eq(guest_save(p.g, stall_chunk, pair_done, &p), 0);
	pair_until(&p, p.nsaved > 0);
	cr_assert_eq(guest_resume(p.g, NULL, NULL), 0);
	pair_until(&p, p.done && !s->paused);
	cr_assert_eq(p.ret, -ECANCELED);
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 5000), 0);
	s->state = 10;
	cr_assert_eq(pair_save(&p), 0);
	cr_assert_eq(p.nsaved, 10);
}

static char *state_of(size_t n)
{
	char *c = malloc(n + 1);

	for (size_t i = 0; i <= n; i++)
		c[i] = (char)pair_byte(i);
	return c;
}

Test(guest_native, arrives_running)
{
	char *c = state_of(3000000);

	run_incoming();
	cr_assert(p.g->has_token);
	cr_assert_eq(p.g->token[1], 0x11);
	cr_assert_eq(p.g->run_state, GUEST_INCOMING);
	cr_assert_eq(pair_do(&p, guest_resume, p.g), -EINVAL, "nothing is loaded");
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 100), -EINVAL);
	cr_assert_eq(pair_load(&p, false, c, 3000000), 0, "%s", p.err.msg);
	cr_assert_eq(p.g->run_state, GUEST_PAUSED_MIGRATION);
	cr_assert_eq(s->loaded_bad, 0);
	pair_spin(&p, 50);
	cr_assert_eq(s->start, 99, "it does not run before it is let go");
	cr_assert_eq(pair_load(&p, false, c, 10), -EINVAL, "not twice");
	cr_assert_eq(pair_do(&p, guest_resume, p.g), 0);
	pair_until(&p, s->start == DECANT_ARRIVED);
	cr_assert_eq(p.g->run_state, GUEST_RUNNING);
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 5000), 0);
	cr_assert_eq(pair_save(&p), 0);
	cr_assert_eq(s->resumes, 1);
	free(c);
}

Test(guest_native, arrives_paused)
{
	char *c = state_of(10);

	run_incoming();
	s->set_paused = false;
	cr_assert_eq(pair_load(&p, true, c, 10), 0);
	cr_assert_eq(pair_do(&p, guest_resume, p.g), 0);
	pair_until(&p, s->start == DECANT_ARRIVED_PAUSED);
	cr_assert_eq(p.g->run_state, GUEST_PAUSED);
	cr_assert_eq(s->resumes, 0);
	free(c);
}

static void expect_failed_load(size_t n, const char *why)
{
	char *c = state_of(n);

	run_incoming();
	cr_assert_lt(pair_load(&p, false, c, n), 0);
	cr_assert(strstr(p.err.msg, why), "%s", p.err.msg);
	cr_assert(!p.g || pair_do(&p, guest_resume, p.g) < 0);
	cr_assert_eq(pair_wait(&p, child), 20);
	cr_assert_eq(s->start, -EIO);
	child = 0;
	free(c);
}

Test(guest_native, a_load_that_leaves_bytes_fails)
{
	s->read = 50;
	expect_failed_load(51, "unread");
}

Test(guest_native, a_load_that_is_cut_off_never_runs)
{
	char *c = state_of(5000);

	run_incoming();
	cr_assert_eq(guest_load(p.g, false, pair_no_room, pair_done, &p), 0);
	cr_assert_eq(guest_load_feed(p.g, c, 5000), 0);
	pair_spin(&p, 50);
	guest_free(p.g); /* the agent goes, without a word about the end */
	p.g = NULL;
	cr_assert_eq(pair_wait(&p, child), 20);
	cr_assert_eq(s->start, -EIO);
	child = 0;
	free(c);
}

Test(guest_native, a_refused_arrival_ends)
{
	p.refuse = "wrong-token";
	child = pair_fork(&p, pair_incoming, s);
	cr_assert_eq(pair_wait(&p, child), 20);
	cr_assert_eq(s->start, -EACCES);
	cr_assert(strstr(s->text, "not today (wrong-token)"), "%s", s->text);
	child = 0;
}

Test(guest_native, a_refused_guest_tries_again)
{
	p.refuse = "full";
	child = pair_fork(&p, pair_program, s);
	pair_until(&p, strstr(s->text, "(full)"));
	p.refuse = NULL;
	pair_until(&p, p.g);
}

static int api(int fd)
{
	struct uffdio_api a = {.api = UFFD_API};

	return ioctl(fd, UFFDIO_API, &a);
}

Test(guest_native, hands_out_a_userfaultfd_and_keeps_a_copy_or_not)
{
	run();
	cr_assert_eq(pair_do(&p, guest_uffd_again, p.g), -ENOENT);
	cr_assert_eq(pair_do(&p, guest_uffd, p.g, false, 0), 0, "%s", p.err.msg);
	cr_assert_geq(p.fd, 0);
	cr_assert_eq(fcntl(p.fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	cr_assert_eq(api(p.fd), 0);
	cr_assert_neq(p.g->uffd_how, GUEST_UFFD_NONE);
	cr_assert(!p.g->kept_uffd);
	cr_assert_eq(pair_do(&p, guest_uffd, p.g, true, 77), 0);
	cr_assert(p.g->kept_uffd);
	cr_assert_eq(api(p.fd), 0);
	cr_assert_eq(pair_do(&p, guest_uffd, p.g, true, 78), -EBUSY);
	guest_free(p.g);
	p.g = NULL;
	pair_until(&p, p.g);
	cr_assert(p.g->kept_uffd);
	cr_assert_eq(p.g->kept_tag, 77);
	cr_assert_eq(pair_do(&p, guest_uffd_again, p.g), 0);
	cr_assert_neq(api(p.fd), 0, "it is the same one, which has shaken hands");
	cr_assert_eq(pair_do(&p, guest_uffd_close, p.g), 0);
	cr_assert(!p.g->kept_uffd);
	cr_assert_eq(pair_do(&p, guest_uffd_close, p.g), 0);
	cr_assert_eq(pair_do(&p, guest_uffd_again, p.g), -ENOENT);
}

Test(guest_native, the_hold_outlives_the_agent)
{
	run();
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 5000), 0);
	guest_free(p.g);
	p.g = NULL;
	pair_until(&p, p.g);
	cr_assert_eq(p.g->run_state, GUEST_PAUSED_MIGRATION);
	pair_spin(&p, 50);
	cr_assert(s->paused);
	cr_assert_eq(pair_do(&p, guest_resume, p.g), 0);
	cr_assert(!s->paused);
}

Test(guest_native, a_pause_that_was_not_answered_does_not_outlive_the_agent)
{
	run();
	s->pause_ms = 200;
	cr_assert_eq(guest_pause(p.g, 5000, pair_done, &p), 0);
	pair_until(&p, s->pausing == 1);
	guest_free(p.g);
	p.g = NULL;
	pair_until(&p, s->resumes == 1);
	cr_assert_eq(s->pauses, 1);
	pair_until(&p, p.g);
	pair_until(&p, p.g->run_state == GUEST_RUNNING);
}

Test(guest_native, attaches_whenever_an_agent_is_there)
{
	attach_free(p.attach);
	p.attach = NULL;
	child = pair_fork(&p, pair_program, s);
	pair_spin(&p, 200);
	for (int i = 1; i <= 3; i++) {
		pair_listen(&p);
		pair_until(&p, p.attached == i && p.g);
		attach_free(p.attach);
		p.attach = NULL;
		guest_free(p.g);
		p.g = NULL;
	}
}

Test(guest_native, moves_to_another_agent_under_another_identity)
{
	struct pair other;
	const uint8_t uuid[GUEST_UUID_LEN] = "0123456789abcdef";

	pair_open(&other);
	run();
	cr_assert_eq(pair_do(&p, guest_set_identity, p.g, uuid, 5), 0);
	cr_assert_eq(p.g->generation, 5);
	cr_assert_eq(pair_do(&p, guest_move, p.g, "relative"), -EINVAL);
	cr_assert_eq(pair_do(&p, guest_move, p.g, other.path), 0);
	pair_until(&p, p.gone == 1);
	cr_assert_eq(p.how, GUEST_GONE_DISCONNECTED);
	pair_until(&other, other.g);
	cr_assert_eq(other.g->generation, 5);
	cr_assert_arr_eq(other.g->uuid, uuid, sizeof(uuid));
	pair_close(&other);
}

Test(guest_native, quits_when_told)
{
	run();
	cr_assert_eq(pair_do(&p, guest_quit, p.g), 0);
	pair_until(&p, p.gone == 1);
	cr_assert_eq(p.how, GUEST_GONE_DEAD);
	cr_assert_eq(pair_wait(&p, child), 7);
	cr_assert_eq(s->quits, 1);
	child = 0;
}

Test(guest_native, an_incoming_one_quits_too)
{
	s->never_end = true;
	run_incoming();
	cr_assert_eq(pair_do(&p, guest_quit, p.g), 0);
	cr_assert_eq(pair_wait(&p, child), 20);
	cr_assert_eq(s->start, -ECANCELED);
	child = 0;
}

Test(guest_native, is_freed_in_an_orderly_way)
{
	run();
	s->free_it = true;
	cr_assert_eq(pair_wait(&p, child), 0);
	pair_until(&p, p.gone == 1);
	cr_assert_eq(p.how, GUEST_GONE_DEAD);
	child = 0;
}

/* --- death in the middle ------------------------------------------------------------------------ */

static void freeze(void)
{
	int status;

	kill(child, SIGSTOP);
	cr_assert_eq(waitpid(child, &status, WUNTRACED), child);
}

static int calls;

static void count_done(void *arg, int ret, const struct error *err, int fd)
{
	(void)arg;
	calls++;
	cr_assert_eq(ret, -ECONNRESET);
	cr_assert(error_is_set(err));
	cr_assert_eq(fd, -1);
}

Test(guest_native, death_answers_everything_that_waits)
{
	struct guest_range r = {0, PAIR_PAGE};
	const uint8_t uuid[GUEST_UUID_LEN] = {1};
	int n = 0;

	run();
	freeze();
	n += !guest_pause(p.g, 1000, count_done, NULL);
	n += !guest_resume(p.g, count_done, NULL);
	n += !guest_save(p.g, pair_chunk, count_done, NULL);
	n += !guest_uffd(p.g, true, 1, count_done, NULL);
	n += !guest_uffd_again(p.g, count_done, NULL);
	n += !guest_uffd_close(p.g, count_done, NULL);
	n += !guest_punch(p.g, 0, &r, 1, count_done, NULL);
	n += !guest_prepare(p.g, count_done, NULL);
	n += !guest_finish(p.g, count_done, NULL);
	n += !guest_set_identity(p.g, uuid, 1, count_done, NULL);
	n += !guest_move(p.g, "/nowhere", count_done, NULL);
	n += !guest_quit(p.g, count_done, NULL);
	cr_assert_eq(n, 12);
	cr_assert_eq(calls, 0);
	kill(child, SIGKILL);
	pair_until(&p, p.gone == 1);
	cr_assert_eq(p.how, GUEST_GONE_DEAD);
	cr_assert_eq(calls, n);
	child = 0;
}
