/* SPDX-License-Identifier: Apache-2.0 */
#include "util/nudge.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>

#define NUDGE_SIGNAL SIGUSR2
/* Between two looks, and how many of them before a signal. */
#define NAP_NS 200000
#define NAPS   100

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
	const struct timespec nap = {.tv_nsec = NAP_NS};

	/* Looked at by naps: ThreadSanitizer does not know pthread_clockjoin_np() as a join. */
	for (unsigned int naps = 1; pthread_tryjoin_np(thread, NULL) == EBUSY; naps++) {
		nanosleep(&nap, NULL);
		/* The signal may come before the call that it is to end: so again and again. */
		if (!(naps % NAPS))
			pthread_kill(thread, NUDGE_SIGNAL);
	}
}
