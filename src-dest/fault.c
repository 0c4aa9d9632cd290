/* SPDX-License-Identifier: Apache-2.0 */
#include "fault_priv.h"
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include "children.h"
#include "frame.h"
#include "uffd/uffd.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/log.h"
#include "util/nudge.h"
#include "util/trace.h"

/* Frames of the urgent channel before the userfaultfd is looked at again. */
#define FRAMES_AT_ONCE 8

static void trouble(struct fault *f, enum fault_trouble what, const struct error *err)
{
	if (f->told & 1u << what)
		return;
	f->told |= 1u << what;
	f->ops->trouble(f->arg, what, err);
}

void fault_drop_urgent(struct fault *f)
{
	tls_chan_free(f->urgent);
	f->urgent = NULL;
	atomic_store(&f->hold, true);
}

/* P19: what was asked for stays noted in place.h; it is asked for again when there is a way. */
void fault_lose_urgent(struct fault *f, const struct error *err)
{
	bool held = atomic_load(&f->hold);

	if (atomic_load(&f->mend) && !held) {
		log_info("fault: %s; pages are asked for on control", err->msg);
		tls_chan_free(steal_ptr(&f->urgent));
		fault_do_ask_again(f);
		return;
	}
	fault_drop_urgent(f);
	/* Of a session that is over nothing is news, and it must not end the one behind it. */
	if (!held)
		trouble(f, FAULT_LOST, err);
}

/* P21: the source has closed it on purpose. What is still asked for has another way, or is there. */
static void end_urgent(struct fault *f)
{
	log_debug("fault: the urgent channel has ended");
	fault_drop_urgent(f);
}

void fault_flush(struct fault *f)
{
	struct error err = {0};
	int r = f->urgent ? frame_writer_flush(&f->out, f->urgent, &err) : 0;

	if (r && r != -EAGAIN)
		fault_lose_urgent(f, &err);
}

/* --- faults --- */

static void provide(struct fault *f)
{
	struct error err = {0};
	int r = f->ops->provide(f->arg, &f->m.request, &f->io, &err);

	if (r && r != -ESRCH && r != -ECANCELED)
		trouble(f, FAULT_BROKEN, &err);
}

void fault_ask(struct fault *f, unsigned int block, uint64_t page)
{
	const struct place_block *b = &f->place->blocks[block];

	f->m.type = MSG_REQUEST;
	f->m.request = (struct msg_request){
		.block = block, .offset = page << b->shift, .length = b->page_size};
	if (f->ops->provide) {
		provide(f);
		return;
	}
	if (atomic_load_explicit(&f->hold, memory_order_relaxed))
		return;
	trace_request(b->name, f->m.request.offset, f->m.request.length);
	if (!f->urgent) {
		f->ops->request(f->arg, &f->m.request);
	} else if (frame_writer_put(&f->out, &f->m)) {
		struct error err = {0};

		error_set(&err, -ENOBUFS, "lost",
			  "urgent channel: the source does not read its requests");
		fault_lose_urgent(f, &err);
	}
}

/*
 * P18. Looked at behind the beginning: what is placed from here on ends it; what was there before nobody
 * ends, so it is undone.
 */
static void begin_wait(struct place *p, unsigned int block, uint64_t page, uint32_t tid,
		       uint64_t now_us)
{
	if (!p->blocktime)
		return;
	blocktime_begin(p->blocktime, tid, place_key(block, page), now_us);
	if (pages_get(p->blocks[block].pages, page) != PAGES_MISSING)
		blocktime_undo(p->blocktime, tid, place_key(block, page));
}

static void on_fault(struct fault *f, const struct uffd_event *ev, uint64_t now_us)
{
	struct error err = {0};
	unsigned int block;
	uint64_t page;
	int r;

	if (!place_find(f->place, ev->addr, &block, &page)) {
		error_set(&err, -EFAULT, "fault-outside",
			  "the guest faults at 0x%" PRIx64
			  ", which is in none of its blocks: it is held",
			  ev->addr);
		trouble(f, FAULT_BROKEN, &err);
		return;
	}
	begin_wait(f->place, block, page, ev->tid, now_us);
	r = place_fault(f->place, &f->io, block, page, now_us, &err);
	if (r == PLACE_ASK)
		fault_ask(f, block, page);
	else if (r < 0 && r != -ESRCH && r != -ECANCELED)
		trouble(f, FAULT_BROKEN, &err);
}

/*
 * Once an event is read the guest's thread goes on and takes its memory away. So what the event says is
 * noted before anybody can look at a state again.
 */
static int read_events(struct fault *f, struct uffd_event ev[static UFFD_READ_MAX])
{
	int n;

	gate_close(&f->place->gate);
	n = uffd_read(f->place->uffd, ev, UFFD_READ_MAX);
	for (int i = 0; i < n; i++) {
		if (ev[i].kind == UFFD_EV_REMOVE)
			place_note_removed(f->place, ev[i].addr, ev[i].len);
		else if (ev[i].kind == UFFD_EV_UNMAP)
			place_note_unmapped(f->place, ev[i].addr, ev[i].len);
		else if (ev[i].kind == UFFD_EV_REMAP)
			place_note_moved(f->place, ev[i].addr, ev[i].len);
	}
	gate_open(&f->place->gate);
	return n;
}

/* The pages that are missing cannot follow: nobody tells where they would be in the block. */
static void on_remap(struct fault *f, const struct uffd_event *ev)
{
	const char *name = place_note_moved(f->place, ev->addr, ev->len);
	struct error err = {0};

	if (!name)
		return;
	error_set(&err, -EFAULT, "guest-remapped",
		  "block %s: the guest has moved %" PRIu64 " bytes of it from 0x%" PRIx64
		  " to 0x%" PRIx64 " (mremap) before all of it had arrived: it is held where it "
		  "touches what is missing there; blocks must not be moved",
		  name, ev->len, ev->addr, ev->to);
	trouble(f, FAULT_BROKEN, &err);
}

/* Events are acted on in the order in which the kernel gives them: faults first, then the rest. */
static void on_event(struct fault *f, struct uffd_event *ev, uint64_t now_us)
{
	struct error err = {0};
	int r;

	switch (ev->kind) {
	case UFFD_EV_FAULT:
		on_fault(f, ev, now_us);
		break;
	case UFFD_EV_REMOVE:
	case UFFD_EV_UNMAP:
		if (ev->kind == UFFD_EV_REMOVE)
			r = place_removed(f->place, &f->io, ev->addr, ev->len, &err);
		else
			r = place_unmapped(f->place, ev->addr, ev->len, &err);
		log_debug("fault: the guest gave back %" PRIu64 " bytes at 0x%" PRIx64, ev->len,
			  ev->addr);
		if (r && r != -ESRCH && r != -ECANCELED)
			trouble(f, FAULT_BROKEN, &err);
		break;
	case UFFD_EV_REMAP:
		on_remap(f, ev);
		break;
	case UFFD_EV_FORK:
		if (children_take(&f->children, f->place, ev->fd, &err))
			trouble(f, FAULT_BROKEN, &err);
		break;
	default:
		log_warn("userfaultfd event %u passed over", (unsigned int)ev->raw);
	}
}

static bool keep_for_later(struct fault *f, const struct uffd_event *ev)
{
	if (f->nlater == f->later_cap) {
		size_t cap = f->later_cap * 2 + UFFD_READ_MAX;
		struct uffd_event *p = reallocarray(f->later, cap, sizeof(*p));

		if (!p)
			return false;
		f->later = p;
		f->later_cap = cap;
	}
	f->later[f->nlater++] = *ev;
	return true;
}

/*
 * Placing met an event that has to be read first. A removed range is noted at once, so that the page
 * under way is not placed into it; the rest waits until the page under way is done.
 */
static int again(void *arg)
{
	struct fault *f = arg;
	struct uffd_event ev[UFFD_READ_MAX];
	int n = read_events(f, ev);

	if (n < 0)
		return n;
	if (atomic_load_explicit(&f->quit, memory_order_relaxed))
		return -ECANCELED;
	/* Nothing to read: the guest's thread is still on its way out of the change. */
	if (!n)
		sched_yield();
	for (int i = 0; i < n; i++)
		if (!keep_for_later(f, &ev[i]))
			return -ENOMEM;
	return 0;
}

/* Return: 0 or -errno: the descriptor is of no use */
static int read_faults(struct fault *f)
{
	struct uffd_event ev[UFFD_READ_MAX];
	uint64_t now_us;
	int n;

	do {
		n = read_events(f, ev);
		if (n < 0)
			return n;
		now_us = clock_us();
		for (int i = 0; i < n; i++)
			on_event(f, &ev[i], now_us);
		for (size_t i = 0; i < f->nlater; i++) {
			struct uffd_event later = f->later[i];

			on_event(f, &later, now_us);
		}
		f->nlater = 0;
		fault_flush(f);
	} while (n == UFFD_READ_MAX);
	return 0;
}

/* --- sharers: their turn comes behind the guest's --- */

static int on_shared(void *arg, unsigned int block, uint64_t offset, struct error *err)
{
	struct fault *f = arg;
	uint64_t page = offset >> f->place->blocks[block].shift;
	int r = place_fault_shared(f->place, &f->io, block, page, clock_us(), err);

	if (r == PLACE_ASK)
		fault_ask(f, block, page);
	/* The guest's own end, or that of placing, is no fault of the sharer. */
	return r == PLACE_ANSWERED ? 1 : 0;
}

static void serve_sharers(struct fault *f, const struct pollfd *fds, struct sharer **who,
			  unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		if (fds[i].revents)
			sharers_serve(&f->place->sharers, who[i], fds[i].revents, on_shared, f);
	sharers_put(who, n);
}

/* --- the urgent channel --- */

static int nack(struct fault *f, const struct msg_pages *m)
{
	f->m.type = MSG_NACK;
	f->m.nack = (struct msg_nack){
		.block = m->block, .pass = m->pass, .offset = m->offset, .length = m->length};
	return frame_writer_put(&f->out, &f->m);
}

/* Frames are placed one by one in this thread. */
static int on_barrier(struct fault *f, const struct msg *m, struct error *err)
{
	if (f->huge.have)
		return error_set(err, -EBADMSG, "bad-message", "BARRIER inside a large page");
	f->m.type = MSG_BARRIER_ACK;
	f->m.barrier = m->barrier;
	return frame_writer_put(&f->out, &f->m);
}

/* The reader has its own buffer: a part is copied from there to where its page is put together. */
static int on_pages(struct fault *f, const struct msg_pages *m, const void *data, struct error *err)
{
	void *room;

	if (!place_is_part(f->place, m)) {
		if (f->huge.have)
			return error_set(err, -EBADMSG, "bad-message",
					 "PAGES between the parts of a large page");
		return place_pages(f->place, &f->io, m, data, err);
	}
	room = place_huge_room(f->place, &f->huge, m, err);
	if (!room)
		return -EBADMSG;
	memcpy(room, data, m->length);
	return place_huge_part(f->place, &f->io, &f->huge, m, err);
}

static int on_frame(struct fault *f, const struct msg *m, const void *data, struct error *err)
{
	int r;

	if (m->type == MSG_END) {
		end_urgent(f);
		return 0;
	}
	if (m->type == MSG_ERROR)
		return error_set(err, -EPROTO, "peer-error",
				 "the source says on the urgent channel: %s (%s)", m->error.message,
				 m->error.code);
	if (m->type == MSG_BARRIER)
		return on_barrier(f, m, err);
	if (m->type != MSG_PAGES)
		return error_set(err, -EBADMSG, "unexpected-message", "%s on the urgent channel",
				 msg_type_name(m->type));
	FAULTPOINT(ANSWER_RECEIVED);
	r = on_pages(f, &m->pages, data, err);
	if (r < 0)
		return r;
	tally_frame(f->tally, &m->pages, r);
	return r ? nack(f, &m->pages) : 0;
}

/* Return: whether more may be there */
static bool read_urgent(struct fault *f)
{
	const struct msg *m;
	const uint8_t *data;

	for (int i = 0; i < FRAMES_AT_ONCE; i++) {
		struct error err = {0};
		int r = frame_reader_next(&f->in, f->urgent, &m, &data, &err);

		if (r == -EAGAIN)
			return false;
		if (r && r != -EBADMSG) {
			fault_lose_urgent(f, &err);
			return false;
		}
		if (!r)
			r = on_frame(f, m, data, &err);
		if (r == -ESRCH || r == -ECANCELED)
			return false;
		if (r < 0) {
			error_set(&err, r, NULL, "urgent channel: %s", strerror(-r));
			fault_drop_urgent(f);
			trouble(f, FAULT_BROKEN, &err);
			return false;
		}
		/* poll(2) tells at the next step; asking the socket in vain costs each page a call. */
		if (!f->urgent || !tls_pending(f->urgent))
			return false;
	}
	return true;
}

/* --- the thread --- */

/* Return: 0 or -errno: the userfaultfd is of no use */
static int step(struct fault *f, bool *more)
{
	struct sharer *who[SHARERS_MAX];
	struct pollfd fds[3 + SHARERS_MAX] = {
		{.fd = f->place->uffd, .events = POLLIN},
		{.fd = f->wake_fd, .events = POLLIN},
		{.fd = f->urgent ? tls_chan_fd(f->urgent) : -1,
		 .events = (short)(f->in.events |
				   (frame_writer_queued(&f->out) ? f->out.events : 0))},
	};
	bool pending = f->urgent && *more; /* decrypted, perhaps: poll cannot tell */
	unsigned int nwho = sharers_poll(&f->place->sharers, fds + 3, who);
	uint64_t n;
	int r;

	if (poll(fds, 3 + nwho, pending ? 0 : -1) < 0)
		r = errno == EINTR ? 0 : -errno;
	else if (fds[1].revents && read(f->wake_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		r = -errno;
	else if (fds[0].revents & (POLLERR | POLLNVAL))
		r = uffd_unblock(f->place->uffd);
	else
		r = fds[0].revents ? read_faults(f) : 0;
	serve_sharers(f, fds + 3, who, nwho);
	if (r)
		return r;
	fault_obey(f);
	if (f->urgent && atomic_load(&f->hold))
		fault_drop_urgent(f);
	if (atomic_load(&f->resume)) {
		fault_take_next(f);
		*more = true; /* a frame may have been read with HELLO_ACK */
		return 0;
	}
	*more = f->urgent && (pending || fds[2].revents) && read_urgent(f);
	if (f->urgent)
		fault_flush(f);
	return 0;
}

static void *fault_main(void *arg)
{
	struct fault *f = arg;
	struct error err = {0};
	bool more = true;
	int r = 0;

	nudge_ready();
	/* The guest waits for this thread; without the right to it, it goes on as it is. */
	setpriority(PRIO_PROCESS, 0, -5);
	trace_thread_enter("fault");
	sem_post(&f->started);
	while (!r && !atomic_load(&f->quit))
		r = step(f, &more);
	if (r) {
		error_set(&err, r, "userfaultfd", "userfaultfd of the guest: %s", strerror(-r));
		trouble(f, FAULT_ENDED, &err);
	}
	atomic_store(&f->ended, true);
	trace_thread_exit("fault", r);
	return NULL;
}

static void fault_free(struct fault *f)
{
	fault_drop_urgent(f);
	tls_chan_free(f->next);
	pthread_mutex_destroy(&f->next_lock);
	place_huge_free(&f->huge);
	frame_reader_free(&f->in);
	frame_writer_free(&f->out);
	if (f->wake_fd >= 0)
		close(f->wake_fd);
	sem_destroy(&f->started);
	children_clear(&f->children);
	free(f->later);
	free(f);
}

int fault_start(struct place *place, struct tls_chan *urgent, struct tally *tally,
		const struct fault_ops *ops, void *arg, struct fault **ret)
{
	struct fault *f = calloc(1, sizeof(*f));
	int r = 0;

	if (!f) {
		tls_chan_free(urgent);
		return -ENOMEM;
	}
	f->place = place;
	f->tally = tally;
	f->ops = ops;
	f->arg = arg;
	f->io = (struct place_io){again, f};
	sem_init(&f->started, 0, 0);
	pthread_mutex_init(&f->next_lock, NULL);
	f->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (f->wake_fd < 0)
		r = -errno;
	f->urgent = urgent;
	if (!r && urgent)
		r = frame_reader_init(&f->in, MSG_CHANNEL_URGENT, true);
	if (!r && urgent)
		r = frame_writer_init(&f->out, FAULT_REQUESTS_MAX);
	if (!r)
		r = -pthread_create(&f->thread, NULL, fault_main, f);
	if (r) {
		fault_free(f);
		return r;
	}
	while (sem_wait(&f->started) && errno == EINTR)
		;
	*ret = f;
	return 0;
}

void fault_wake(struct fault *f)
{
	uint64_t one = 1;

	if (write(f->wake_fd, &one, sizeof(one)) < 0)
		log_debug("fault: cannot wake: %s", strerror(errno));
}

void fault_look(struct fault *f)
{
	fault_wake(f);
}

void fault_stop(struct fault *f)
{
	if (!f)
		return;
	atomic_store(&f->quit, true);
	fault_wake(f);
	nudge_join(f->thread);
	fault_free(f);
}
