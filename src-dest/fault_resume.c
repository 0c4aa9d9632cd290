/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault thread from one session to the next: it holds, and goes on. Rules 1, 2 and 5 are kept as
 * fault.h says: nothing here places or closes anything but a channel.
 */
#include <errno.h>
#include <string.h>
#include "fault_priv.h"
#include "util/cleanup.h"

/*
 * P19: every fault that could not be asked for has its bit in place.h, so that what failed and what
 * came while there was no way are one. Who is received meanwhile has been answered.
 */
void fault_do_ask_again(struct fault *f)
{
	for (unsigned int i = 0; i < f->place->n && !atomic_load(&f->hold); i++) {
		struct place_block *b = &f->place->blocks[i];

		for (uint64_t page = bitmap_next_set(&b->asked, 0);
		     page < b->npages && !atomic_load(&f->hold);
		     page = bitmap_next_set(&b->asked, page + 1))
			if (pages_get(b->pages, page) == PAGES_MISSING)
				fault_ask(f, i, page);
	}
}

/* Return: 0 or -ENOMEM */
static int open_urgent(struct fault *f)
{
	int r;

	frame_reader_free(&f->in);
	frame_writer_free(&f->out);
	place_huge_free(&f->huge);
	memset(&f->in, 0, sizeof(f->in));
	memset(&f->out, 0, sizeof(f->out));
	memset(&f->huge, 0, sizeof(f->huge));
	if (!f->urgent)
		return 0;
	r = frame_reader_init(&f->in, MSG_CHANNEL_URGENT, true);
	return r ? r : frame_writer_init(&f->out, FAULT_REQUESTS_MAX);
}

void fault_take_next(struct fault *f)
{
	struct error err = {0};
	int r;

	fault_drop_urgent(f);
	tally_restart(f->tally);
	f->told = 0;
	pthread_mutex_lock(&f->next_lock);
	f->urgent = steal_ptr(&f->next);
	/* Unless that session is over, too, by now. */
	atomic_store(&f->hold, !atomic_exchange(&f->resume, false));
	pthread_mutex_unlock(&f->next_lock);
	r = open_urgent(f);
	if (r) {
		error_set(&err, r, NULL, "urgent channel: out of memory");
		fault_lose_urgent(f, &err);
		return;
	}
	fault_do_ask_again(f);
	fault_flush(f);
}

/* Frames of the dropped channel count no more: the source has subtracted them, too. */
void fault_obey(struct fault *f)
{
	if (atomic_exchange(&f->drop, false)) {
		tls_chan_free(steal_ptr(&f->urgent));
		tally_restart(f->tally);
		f->ops->dropped(f->arg);
	}
	if (atomic_exchange(&f->again, false)) {
		fault_do_ask_again(f);
		fault_flush(f);
	}
}

/* --- from the loop --- */

void fault_hold(struct fault *f)
{
	pthread_mutex_lock(&f->next_lock);
	tls_chan_free(steal_ptr(&f->next));
	atomic_store(&f->resume, false);
	atomic_store(&f->hold, true);
	pthread_mutex_unlock(&f->next_lock);
	fault_wake(f);
}

void fault_resume(struct fault *f, struct tls_chan *urgent)
{
	pthread_mutex_lock(&f->next_lock);
	tls_chan_free(f->next);
	f->next = urgent;
	atomic_store(&f->resume, true);
	pthread_mutex_unlock(&f->next_lock);
	fault_wake(f);
}

void fault_mend(struct fault *f, bool mend)
{
	atomic_store(&f->mend, mend);
}

void fault_drop(struct fault *f)
{
	atomic_store(&f->drop, true);
	fault_wake(f);
}

void fault_ask_again(struct fault *f)
{
	atomic_store(&f->again, true);
	fault_wake(f);
}

bool fault_lives(const struct fault *f)
{
	return !atomic_load(&f->ended);
}
