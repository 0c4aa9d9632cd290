/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that an agent can ask a guest for, whatever its driver. */
#ifndef DECANT_TESTS_FUZZ_ASK_H
#define DECANT_TESTS_FUZZ_ASK_H

#include <errno.h>
#include <unistd.h>
#include "fuzz/lib/fuzz.h"
#include "guest/driver.h"

/** struct fuzz_asked - operations that have begun, and that have ended: never more than those */
struct fuzz_asked {
	unsigned int asked, done;
};

static inline void fuzz_asked_done_(void *arg, int ret, const struct error *err, int fd)
{
	struct fuzz_asked *a = arg;

	a->done++;
	FUZZ_CHECK(a->done <= a->asked && (!ret || error_is_set(err)));
	if (fd >= 0)
		close(fd);
}

static inline int fuzz_asked_chunk_(void *arg, const void *p, size_t n)
{
	struct fuzz_asked *a = arg;

	FUZZ_CHECK(p && n);
	return a->asked % 3 ? 0 : 1;
}

static inline void fuzz_asked_room_(void *arg)
{
	(void)arg;
}

/* What moves state on has no end of its own. */
static inline int fuzz_ask_state_(struct guest *g, uint8_t what, struct fuzz_asked *a)
{
	switch (what % 16) {
	case 2:
		return guest_save(g, fuzz_asked_chunk_, fuzz_asked_done_, a);
	case 3:
		guest_save_more(g);
		return -EAGAIN;
	case 4:
		return guest_load(g, what & 16, fuzz_asked_room_, fuzz_asked_done_, a);
	case 5:
		guest_load_feed(g, "state", 5);
		return -EAGAIN;
	default:
		guest_load_end(g);
		return -EAGAIN;
	}
}

static inline int fuzz_ask_(struct guest *g, uint8_t what, struct fuzz_asked *a)
{
	static const struct guest_range range = {0x1000, 0x2000};
	static const uint8_t uuid[GUEST_UUID_LEN] = {1};
	guest_done_fn *done = fuzz_asked_done_;

	switch (what % 16) {
	case 0:
		return what & 32 ? guest_look(g, done, a) : guest_pause(g, 1000, done, a);
	case 1:
		return guest_resume(g, done, a);
	case 7:
		return guest_uffd(g, what & 16, 5, done, a);
	case 8:
		return guest_uffd_again(g, done, a);
	case 9:
		return guest_uffd_close(g, done, a);
	case 10:
		return g->nblocks ? guest_punch(g, 0, &range, 1, done, a) : -EAGAIN;
	case 11:
		return guest_prepare(g, done, a);
	case 12:
		return guest_finish(g, done, a);
	case 13:
		return guest_set_identity(g, uuid, 7, done, a);
	case 14:
		return guest_move(g, "/run/decant/other", done, a);
	case 15:
		return guest_quit(g, done, a);
	default:
		return fuzz_ask_state_(g, what, a);
	}
}

/** fuzz_ask() - ask for what this number means */
static inline void fuzz_ask(struct guest *g, uint8_t what, struct fuzz_asked *a)
{
	a->asked++;
	if (fuzz_ask_(g, what, a))
		a->asked--;
}

#endif
