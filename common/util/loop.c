/* SPDX-License-Identifier: Apache-2.0 */
#include "util/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "util/cleanup.h"

/**
 * enum call_state - what became of a loop_call()
 * @CALL_QUEUED:	not yet run, or running
 * @CALL_DONE:		has returned
 * @CALL_CANCELLED:	the loop ended first
 */
enum call_state { CALL_QUEUED, CALL_DONE, CALL_CANCELLED };

/**
 * struct item - one piece of queued work
 * @fn, @arg:	what to run
 * @next:	behind it in the queue
 * @is_call:	it lives on the stack of a thread that waits in loop_call(), else on the heap
 * @state:	of a call
 */
struct item {
	loop_fn *fn;
	void *arg;
	struct item *next;
	bool is_call;
	enum call_state state;
};

/**
 * struct loop - see loop.h
 * @base, @wake_ev:	the loop's thread only (that is why libevent needs no locks of its own)
 * @wake_fd:	eventfd; any thread writes, only the loop reads
 * @stop:	atomic; loop_stop() was called
 * @lock:	protects all fields below
 * @changed:	a call ended, or @waiters fell
 * @head, @tail:	the queue, oldest first
 * @waiters:	threads inside loop_call()
 * @running:	inside loop_run(), by thread @owner
 * @ended:	loop_run() has returned, or loop_free() has begun: calls would wait for ever
 */
struct loop {
	struct event_base *base;
	struct event *wake_ev;
	int wake_fd;
	bool stop;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct item *head, **tail;
	unsigned int waiters;
	bool running;
	bool ended;
	pthread_t owner;
};

/* Also fit for a signal handler. A full counter is a wake-up as well, so EAGAIN is no loss. */
static void wake(struct loop *l)
{
	uint64_t one = 1;
	int saved = errno;

	while (write(l->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	errno = saved;
}

static bool stopping(struct loop *l)
{
	return __atomic_load_n(&l->stop, __ATOMIC_ACQUIRE);
}

/* Caller holds @lock. */
static struct item *pop(struct loop *l)
{
	struct item *it = l->head;

	if (!it)
		return NULL;
	l->head = it->next;
	if (!l->head)
		l->tail = &l->head;
	return it;
}

/* Caller holds @lock. */
static void push(struct loop *l, struct item *it)
{
	it->next = NULL;
	*l->tail = it;
	l->tail = &it->next;
}

static void run_item(struct loop *l, struct item *it)
{
	it->fn(it->arg);
	if (!it->is_call) {
		free(it);
		return;
	}
	LOCK_SCOPE(&l->lock);
	it->state = CALL_DONE;
	pthread_cond_broadcast(&l->changed);
}

/*
 * Run what is queued now. What is posted meanwhile waits for the next turn, so that work which
 * posts itself again cannot keep the loop from its descriptors and timers.
 */
static void drain(struct loop *l)
{
	struct item *it = NULL, **end;
	bool last = false;

	pthread_mutex_lock(&l->lock);
	end = l->tail;
	while (!last && !stopping(l)) {
		it = pop(l);
		if (!it)
			break;
		last = &it->next == end;
		pthread_mutex_unlock(&l->lock);
		run_item(l, it);
		pthread_mutex_lock(&l->lock);
	}
	/* Also for a later loop_run(), if this one has been stopped. */
	if (l->head)
		wake(l);
	pthread_mutex_unlock(&l->lock);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct loop *l = arg;
	uint64_t n;

	(void)what;
	if (read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN && errno != EINTR)
		return;
	drain(l);
	if (stopping(l))
		event_base_loopbreak(l->base);
}

/*
 * Timers must not fire early after a long callback, nor at the grain of a scheduler tick: so no
 * cached time, and the precise clock.
 */
static struct event_base *base_new(void)
{
	struct event_config *cfg = event_config_new();
	struct event_base *base = NULL;

	if (cfg && !event_config_set_flag(cfg, EVENT_BASE_FLAG_PRECISE_TIMER |
						       EVENT_BASE_FLAG_NO_CACHE_TIME |
						       EVENT_BASE_FLAG_NOLOCK))
		base = event_base_new_with_config(cfg);
	if (cfg)
		event_config_free(cfg);
	return base;
}

struct loop *loop_new(void)
{
	struct loop *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	signal(SIGPIPE, SIG_IGN);
	l->tail = &l->head;
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->changed, NULL);
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->base = base_new();
	if (l->wake_fd >= 0 && l->base)
		l->wake_ev = event_new(l->base, l->wake_fd, EV_READ | EV_PERSIST, on_wake, l);
	if (!l->wake_ev || event_add(l->wake_ev, NULL)) {
		loop_free(l);
		return NULL;
	}
	return l;
}

/* No call is left waiting for a loop that will not run it. Posted work stays queued. */
static void end(struct loop *l)
{
	struct item **at = &l->head, *it;

	LOCK_SCOPE(&l->lock);
	l->running = false;
	l->ended = true;
	while ((it = *at)) {
		if (it->is_call) {
			*at = it->next;
			it->state = CALL_CANCELLED;
		} else {
			at = &it->next;
		}
	}
	l->tail = at;
	pthread_cond_broadcast(&l->changed);
}

void loop_free(struct loop *l)
{
	struct item *it;

	if (!l)
		return;
	end(l);
	pthread_mutex_lock(&l->lock);
	while (l->waiters)
		pthread_cond_wait(&l->changed, &l->lock);
	while ((it = pop(l)))
		free(it);
	pthread_mutex_unlock(&l->lock);
	if (l->wake_ev)
		event_free(l->wake_ev);
	if (l->base)
		event_base_free(l->base);
	if (l->wake_fd >= 0)
		close(l->wake_fd);
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

struct event_base *loop_base(struct loop *l)
{
	return l->base;
}

int loop_run(struct loop *l)
{
	int ret;

	pthread_mutex_lock(&l->lock);
	l->owner = pthread_self();
	l->running = true;
	l->ended = false;
	pthread_mutex_unlock(&l->lock);
	errno = 0;
	ret = event_base_loop(l->base, EVLOOP_NO_EXIT_ON_EMPTY) < 0 ? -(errno ? errno : EIO) : 0;
	__atomic_store_n(&l->stop, false, __ATOMIC_RELEASE);
	end(l);
	return ret;
}

void loop_stop(struct loop *l)
{
	__atomic_store_n(&l->stop, true, __ATOMIC_RELEASE);
	wake(l);
}

int loop_post(struct loop *l, loop_fn *fn, void *arg)
{
	struct item *it = calloc(1, sizeof(*it));

	if (!it)
		return -ENOMEM;
	it->fn = fn;
	it->arg = arg;
	LOCK_SCOPE(&l->lock);
	/* A queue that was not empty has a wake-up under way already. */
	if (!l->head)
		wake(l);
	push(l, it);
	return 0;
}

int loop_call(struct loop *l, loop_fn *fn, void *arg)
{
	struct item it = {.fn = fn, .arg = arg, .is_call = true};

	LOCK_SCOPE(&l->lock);
	if (l->running && pthread_equal(l->owner, pthread_self()))
		return -EDEADLK;
	if (l->ended)
		return -ECANCELED;
	if (!l->head)
		wake(l);
	push(l, &it);
	l->waiters++;
	while (it.state == CALL_QUEUED)
		pthread_cond_wait(&l->changed, &l->lock);
	l->waiters--;
	pthread_cond_broadcast(&l->changed);
	return it.state == CALL_DONE ? 0 : -ECANCELED;
}

/**
 * struct timer - what loop_timer() keeps right behind its event
 * @fn, @arg:	what to run
 */
struct timer {
	loop_fn *fn;
	void *arg;
};

/* Where the struct timer starts: struct event has the size that this libevent was built with. */
static size_t timer_offset(void)
{
	size_t align = _Alignof(max_align_t);

	return (event_get_struct_event_size() + align - 1) / align * align;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct timer *t = (struct timer *)((char *)arg + timer_offset());

	(void)fd;
	(void)what;
	t->fn(t->arg);
}

struct event *loop_timer(struct loop *l, uint64_t us, loop_fn *fn, void *arg)
{
	struct timeval tv = {.tv_sec = (time_t)(us / 1000000),
			     .tv_usec = (suseconds_t)(us % 1000000)};
	/*
	 * One allocation for the event and its closure, so that event_free(), which cancels and
	 * then calls free(), releases both.
	 */
	struct event *ev = calloc(1, timer_offset() + sizeof(struct timer));
	struct timer *t;

	if (!ev)
		return NULL;
	t = (struct timer *)((char *)ev + timer_offset());
	*t = (struct timer){.fn = fn, .arg = arg};
	if (event_assign(ev, l->base, -1, 0, on_timer, ev) || event_add(ev, &tv)) {
		free(ev);
		return NULL;
	}
	return ev;
}
