/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that keeps the attach protocol but for one sin: a process of its own, without the library. It
 * has one block of memory, full of data, and does as it is asked until it sins.
 */
#ifndef DECANT_TESTS_FAKE_GUEST_H
#define DECANT_TESTS_FAKE_GUEST_H

#include "lib/lab.h"

/**
 * enum guest_sin - what it does wrong
 * @GUEST_GOOD:		nothing
 * @GUEST_UNSEALED:	its memfd may shrink
 * @GUEST_NO_FD, @GUEST_TWO_FDS, @GUEST_PIPE: the block comes without its descriptor, with two, with a pipe
 * @GUEST_CUT:		a message is cut short
 * @GUEST_UNMAPS:	unmaps its block when it was welcomed
 * @GUEST_PUNCHES:	gives its memory back without end while it moves
 * @GUEST_EXITS_WELCOME, @GUEST_EXITS_UFFD, @GUEST_EXITS_TRACKED, @GUEST_EXITS_PAUSE, @GUEST_EXITS_SAVE,
 * @GUEST_EXITS_SAVED: its process ends then
 * @GUEST_NOT_UFFD:	answers UFFD with a pipe
 * @GUEST_DEAF:		never answers PAUSE
 * @GUEST_STATE_ENDLESS: its state has no end
 * @GUEST_STATE_LIES:	its state is shorter than it says
 * @GUEST_UNASKED:	says DONE of what nobody asked
 * @GUEST_FLOODS:	tells its run state for ever
 */
enum guest_sin {
	GUEST_GOOD,
	GUEST_UNSEALED,
	GUEST_NO_FD,
	GUEST_TWO_FDS,
	GUEST_PIPE,
	GUEST_CUT,
	GUEST_UNMAPS,
	GUEST_PUNCHES,
	GUEST_EXITS_WELCOME,
	GUEST_EXITS_UFFD,
	GUEST_EXITS_TRACKED,
	GUEST_EXITS_PAUSE,
	GUEST_EXITS_SAVE,
	GUEST_EXITS_SAVED,
	GUEST_NOT_UFFD,
	GUEST_DEAF,
	GUEST_STATE_ENDLESS,
	GUEST_STATE_LIES,
	GUEST_UNASKED,
	GUEST_FLOODS,
};

/** fake_guest_start() - attach as @name; its output says what it hears */
struct lab_proc *fake_guest_start(struct lab_host *h, const char *name, enum guest_sin sin);

#endif
