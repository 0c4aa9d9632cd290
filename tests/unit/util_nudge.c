/* SPDX-License-Identifier: Apache-2.0 */
/* A thread that sleeps where it was never meant to is ended all the same. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <unistd.h>
#include "lib/pace.h"
#include "util/clock.h"
#include "util/nudge.h"

TestSuite(util_nudge, .timeout = 20);

/** struct sleeper - a thread that reads a pipe to which nobody writes */
struct sleeper {
	int fd[2];
	_Atomic bool quit, begun;
	pthread_t t;
	int why;
};

static void *sleep_main(void *arg)
{
	struct sleeper *s = arg;
	char c;

	nudge_ready();
	while (!s->quit) {
		s->begun = true;
		s->why = read(s->fd[0], &c, 1) < 0 ? errno : 0;
	}
	return NULL;
}

static void sleeper_ends(bool blocked)
{
	struct sleeper s = {0};
	struct pace *pace = pace_start();
	uint64_t begin;
	sigset_t all;

	cr_assert_eq(pipe(s.fd), 0);
	sigfillset(&all);
	if (blocked)
		pthread_sigmask(SIG_BLOCK, &all, NULL);
	cr_assert_eq(pthread_create(&s.t, NULL, sleep_main, &s), 0);
	while (!s.begun)
		usleep(1000);
	usleep(20000);
	begin = clock_us();
	s.quit = true;
	nudge_join(s.t);
	cr_assert(pace_brisk(pace, clock_us() - begin, 2000000));
	pace_end(pace);
	cr_assert_eq(s.why, EINTR);
	close(s.fd[0]);
	close(s.fd[1]);
}

Test(util_nudge, ends_a_read_that_sleeps)
{
	sleeper_ends(false);
}

Test(util_nudge, also_where_signals_are_blocked)
{
	sleeper_ends(true);
}
