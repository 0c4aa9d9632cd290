/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Getting a thread out of a system call in which it was never meant to wait.
 *
 * An agent's userfaultfd does not block, but the guest has the same open file, and can clear that flag
 * between poll(2) and read(2): the read then sleeps until the next fault, perhaps for ever. A signal ends it.
 */
#ifndef DECANT_UTIL_NUDGE_H
#define DECANT_UTIL_NUDGE_H

#include <pthread.h>

/** nudge_ready() - this thread can be nudged from now on: system calls end with EINTR then */
void nudge_ready(void);
/**
 * nudge_join() - pthread_join() for a thread that has been told to end and that called nudge_ready()
 *
 * It is nudged every few milliseconds until it has ended.
 */
void nudge_join(pthread_t thread);

#endif
