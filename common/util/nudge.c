/* SPDX-License-Identifier: Apache-2.0 */
#include "util/nudge.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>

#define NUDGE_SIGNAL SIGUSR2
#define PATIENCE_NS  20000000

/* It need do nothing: that it interrupts is all. */
static void on_signal(int sig)
{
	(void)sig;
}

void nudge_ready(void)
{
	struct sigaction sa = {.sa_handler = on_signal};
	sigset_t set;

	/* No SA_RESTART. The same for every thread, so it does not matter who comes first. */
	sigemptyset(&sa.sa_mask);
	sigaction(NUDGE_SIGNAL, &sa, NULL);
	sigemptyset(&set);
	sigaddset(&set, NUDGE_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void nudge_join(pthread_t thread)
{
	struct timespec until;

	do {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += PATIENCE_NS;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		/* The signal may come before the call that it is to end: so again and again. */
		if (pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &until) != ETIMEDOUT)
			return;
		pthread_kill(thread, NUDGE_SIGNAL);
	} while (true);
}
