/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sharer: one thread, one connection at a time, until the agent says that nothing is missing.
 *
 * Rule 5: the userfaultfd is closed only then, or when everything is unmapped: as long as it is open
 * somewhere, no hole that is mapped here is ever filled by the kernel. One that has guarded nothing yet
 * is made anew for each connection, because an agent may have shaken hands with the old one.
 */
#include "guest/lib/lib.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "guest/decant-sharer.h"

/* Shorter than a guest's: mostly it is the guest that is waited for, which is just being launched. */
#define BACKOFF_LAST_MS 200

/** enum range_state - of one mapping: NEW → SENT → GUARDED, or FAILED */
enum range_state {
	RANGE_NEW,
	RANGE_SENT,
	RANGE_GUARDED,
	RANGE_FAILED,
};

/** struct range - see decant_sharer_map(); @id is that of its SHARE_MAP */
struct range {
	struct gwire_share r;
	enum range_state state;
	int error;
	uint32_t id;
};

/**
 * struct decant_sharer - see decant-sharer.h
 *
 * Fixed: @guest .. @wake. The thread's own: @sock .. @packet. Under @lock: the rest.
 *
 * @uffd:	of this process
 * @again:	it has guarded something: an agent has shaken hands with it
 * @gone:	unmapped, to be told
 * @settled:	nothing is missing any more
 */
struct decant_sharer {
	char guest[GWIRE_NAME_MAX];
	char name[GWIRE_NAME_MAX];
	char path[GWIRE_PATH_MAX];
	bool user_faults;
	pthread_t thread;
	int wake;

	int sock;
	int uffd;
	uint32_t next_id;
	uint8_t packet[GWIRE_PACKET_MAX];

	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stop;
	bool again;
	bool settled;
	struct range ranges[DECANT_SHARER_RANGES_MAX];
	size_t nranges;
	struct gwire_share gone[DECANT_SHARER_RANGES_MAX];
	size_t ngone;
	char error[sizeof(((struct gwire_refused *)0)->message)];
};

static bool stopped(struct decant_sharer *s)
{
	bool stop;

	pthread_mutex_lock(&s->lock);
	stop = s->stop;
	pthread_mutex_unlock(&s->lock);
	return stop;
}

static void note_error(struct decant_sharer *s, const char *text)
{
	pthread_mutex_lock(&s->lock);
	snprintf(s->error, sizeof(s->error), "%s", text);
	pthread_mutex_unlock(&s->lock);
}

/* --- the connection --- */

static int send_msg(struct decant_sharer *s, const struct gwire_msg *m, int fd)
{
	struct pollfd p = {.fd = s->sock, .events = POLLOUT};
	uint64_t until = lib_now_us() + LIB_SEND_MS * 1000;
	uint8_t buf[512];
	ssize_t n = gwire_encode(m, buf, sizeof(buf));
	int ret;

	if (n < 0)
		return (int)n;
	while ((ret = gwire_send(s->sock, buf, (size_t)n, fd)) == -EAGAIN) {
		if (stopped(s) || lib_now_us() > until)
			return -ETIMEDOUT;
		if (poll(&p, 1, LIB_STREAM_POLL_MS) < 0 && errno != EINTR)
			return -errno;
	}
	return ret;
}

static int dial(struct decant_sharer *s)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	memcpy(sa.sun_path, s->path, sizeof(sa.sun_path));
	s->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->sock < 0 || connect(s->sock, (struct sockaddr *)&sa, sizeof(sa)))
		return -errno;
	return 0;
}

static int open_uffd(struct decant_sharer *s)
{
	uint64_t how;

	if (s->again)
		return 0;
	if (s->uffd >= 0)
		close(s->uffd);
	s->uffd = lib_open_uffd(s->user_faults, &how);
	if (s->uffd == -EPERM)
		note_error(s, "this process may not open a userfaultfd: give it access to "
			      "/dev/userfaultfd, or set vm.unprivileged_userfaultfd=1");
	return s->uffd < 0 ? s->uffd : 0;
}

static int say_hello(struct decant_sharer *s)
{
	struct gwire_msg m = {.type = GWIRE_SHARER, .nfds = 1};

	m.u.sharer.version = GWIRE_VERSION;
	strcpy(m.u.sharer.guest, s->guest);
	strcpy(m.u.sharer.name, s->name);
	m.u.sharer.flags = s->again ? GWIRE_SHARER_AGAIN : 0;
	return send_msg(s, &m, s->uffd);
}

/* --- what the agent says --- */

static void on_done(struct decant_sharer *s, const struct gwire_msg *m)
{
	const struct gwire_done *d = &m->u.done;

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->nranges; i++) {
		struct range *r = &s->ranges[i];

		if (r->state != RANGE_SENT || r->id != m->id)
			continue;
		r->state = d->result ? RANGE_FAILED : RANGE_GUARDED;
		r->error = d->result;
		if (d->result)
			snprintf(s->error, sizeof(s->error), "%s", d->message);
		s->again |= !d->result && !d->detail;
	}
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static void on_settled(struct decant_sharer *s)
{
	pthread_mutex_lock(&s->lock);
	s->settled = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

/* Return: 0, -EAGAIN when there is nothing more, or the end of the connection */
static int read_one(struct decant_sharer *s, bool *welcome)
{
	struct gwire_msg m;
	const char *what;
	int fd = -1;
	ssize_t n = gwire_recv(s->sock, s->packet, &fd, NULL);

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return n ? (int)n : -ECONNRESET;
	if (gwire_decode(s->packet, (size_t)n, NULL, &m, &what))
		return -EBADMSG;
	if (m.type == GWIRE_WELCOME)
		*welcome = true;
	else if (m.type == GWIRE_DONE)
		on_done(s, &m);
	else if (m.type == GWIRE_SETTLED)
		on_settled(s);
	else if (m.type == GWIRE_REFUSED)
		note_error(s, m.u.refused.message);
	return m.type == GWIRE_REFUSED ? -EACCES : 0;
}

/* --- what we say --- */

static bool next_gone(struct decant_sharer *s, struct gwire_msg *m)
{
	if (!s->ngone)
		return false;
	m->type = GWIRE_SHARE_UNMAP;
	m->u.share = s->gone[0];
	memmove(s->gone, s->gone + 1, --s->ngone * sizeof(s->gone[0]));
	return true;
}

static bool next_range(struct decant_sharer *s, struct gwire_msg *m)
{
	for (size_t i = 0; i < s->nranges; i++) {
		struct range *r = &s->ranges[i];

		if (r->state != RANGE_NEW)
			continue;
		r->state = RANGE_SENT;
		r->id = s->next_id = s->next_id + 1 ? s->next_id + 1 : 1;
		m->type = GWIRE_SHARE_MAP;
		m->id = r->id;
		m->u.share = r->r;
		return true;
	}
	return false;
}

/* What was unmapped goes first: its address may be another range's by now. */
static int tell(struct decant_sharer *s)
{
	int ret = 0;
	bool more = true;

	while (!ret && more) {
		struct gwire_msg m = {0};

		pthread_mutex_lock(&s->lock);
		more = next_gone(s, &m) || next_range(s, &m);
		pthread_mutex_unlock(&s->lock);
		if (more)
			ret = send_msg(s, &m, -1);
	}
	return ret;
}

static bool is_over(struct decant_sharer *s)
{
	bool over;

	pthread_mutex_lock(&s->lock);
	over = s->stop || s->settled;
	pthread_mutex_unlock(&s->lock);
	return over;
}

static int serve(struct decant_sharer *s)
{
	struct pollfd p[2] = {{.fd = s->sock, .events = POLLIN}, {.fd = s->wake, .events = POLLIN}};
	uint64_t until = lib_now_us() + LIB_WELCOME_MS * 1000;
	bool welcome = false;
	eventfd_t count;
	int ret = 0;

	while (!ret && !is_over(s)) {
		if (poll(p, 2, welcome ? -1 : LIB_STREAM_POLL_MS) < 0 && errno != EINTR)
			return -errno;
		eventfd_read(s->wake, &count);
		while (!ret)
			ret = read_one(s, &welcome);
		ret = ret == -EAGAIN ? 0 : ret;
		if (!ret && welcome)
			ret = tell(s);
		if (!ret && !welcome && lib_now_us() > until)
			ret = -ETIMEDOUT;
	}
	return ret;
}

/* --- the thread --- */

/* All is said anew to the next agent; ours is the descriptor that guards it meanwhile. */
static void detach(struct decant_sharer *s)
{
	if (s->sock >= 0)
		close(s->sock);
	s->sock = -1;
	pthread_mutex_lock(&s->lock);
	s->ngone = 0;
	for (size_t i = 0; i < s->nranges; i++)
		if (s->ranges[i].state != RANGE_FAILED)
			s->ranges[i].state = s->settled ? RANGE_GUARDED : RANGE_NEW;
	pthread_mutex_unlock(&s->lock);
}

static void back_off(struct decant_sharer *s, int *ms)
{
	struct pollfd p = {.fd = s->wake, .events = POLLIN};
	uint64_t until = lib_now_us() + (uint64_t)*ms * 1000;
	eventfd_t count;

	while (!is_over(s) && lib_now_us() < until)
		if (poll(&p, 1, (int)((until - lib_now_us()) / 1000 + 1)) > 0)
			eventfd_read(s->wake, &count);
	*ms = *ms * 2 > BACKOFF_LAST_MS ? BACKOFF_LAST_MS : *ms * 2;
}

static void *sharer_main(void *arg)
{
	struct decant_sharer *s = arg;
	int ms = LIB_BACKOFF_FIRST_MS, ret;

	pthread_setname_np(pthread_self(), "decant-sharer");
	while (!is_over(s)) {
		ret = open_uffd(s);
		if (!ret)
			ret = dial(s);
		if (!ret)
			ret = say_hello(s);
		if (!ret)
			ret = serve(s);
		detach(s);
		if (ret != -EACCES && ret != -EPERM && ret)
			note_error(s, strerrorname_np(-ret));
		if (!is_over(s))
			back_off(s, &ms);
	}
	/* Nothing is missing, or nothing is mapped. */
	if (s->uffd >= 0)
		close(s->uffd);
	s->uffd = -1;
	return NULL;
}

static int start_thread(struct decant_sharer *s)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&s->thread, NULL, sharer_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

/* --- what the program calls --- */

static int take_config(struct decant_sharer *s, const struct decant_sharer_config *c)
{
	const char *path = c->attach ? c->attach : getenv("DECANT_ATTACH");

	if (!lib_name_ok(c->guest) || !lib_name_ok(c->name) || !path || path[0] != '/' ||
	    strlen(path) >= sizeof(s->path) || (c->flags & ~DECANT_SHARER_USER_FAULTS))
		return EINVAL;
	strcpy(s->guest, c->guest);
	strcpy(s->name, c->name);
	strcpy(s->path, path);
	s->user_faults = c->flags & DECANT_SHARER_USER_FAULTS;
	return 0;
}

static void destroy(struct decant_sharer *s)
{
	if (s->wake >= 0)
		close(s->wake);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

DECANT_API struct decant_sharer *decant_sharer_new(const struct decant_sharer_config *config)
{
	struct decant_sharer *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;
	int ret;

	if (!s)
		return NULL;
	s->sock = s->uffd = -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = s->wake < 0 ? errno : take_config(s, config);
	if (!ret)
		ret = start_thread(s);
	if (!ret)
		return s;
	destroy(s);
	errno = ret;
	return NULL;
}

/* Cannot block or fail: the counter of an eventfd is never near its limit. */
static void wake(struct decant_sharer *s)
{
	if (eventfd_write(s->wake, 1))
		return;
}

static int add_range(struct decant_sharer *s, const struct gwire_share *r)
{
	if (s->nranges == DECANT_SHARER_RANGES_MAX)
		return -ENOSPC;
	s->ranges[s->nranges++] =
		(struct range){.r = *r, .state = s->settled ? RANGE_GUARDED : RANGE_NEW};
	return 0;
}

DECANT_API int decant_sharer_map(struct decant_sharer *s, const char *block, uint64_t offset,
				 uint64_t length, void *addr)
{
	struct gwire_share r = {
		.offset = offset, .length = length, .address = (uint64_t)(uintptr_t)addr};
	int ret;

	if (!lib_name_ok(block) || !addr || !length || length > GWIRE_MEMORY_MAX ||
	    offset > GWIRE_MEMORY_MAX)
		return -EINVAL;
	strcpy(r.block, block);
	/* A child has no userfaultfd: what it touched would become zeros. */
	if (madvise(addr, length, MADV_DONTFORK))
		return -errno;
	pthread_mutex_lock(&s->lock);
	ret = add_range(s, &r);
	pthread_mutex_unlock(&s->lock);
	wake(s);
	return ret;
}

/* Lock held. Return: 0 when all may be touched, -EAGAIN while some may not, or the first error */
static int state(const struct decant_sharer *s)
{
	int ret = 0;

	for (size_t i = 0; i < s->nranges; i++) {
		if (s->ranges[i].state == RANGE_FAILED)
			return s->ranges[i].error;
		if (s->ranges[i].state != RANGE_GUARDED)
			ret = -EAGAIN;
	}
	return s->settled && ret == -EAGAIN ? 0 : ret;
}

DECANT_API int decant_sharer_wait(struct decant_sharer *s, int timeout_ms)
{
	struct timespec until;
	int ret, late = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += timeout_ms % 1000 * 1000000L;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&s->lock);
	while ((ret = state(s)) == -EAGAIN && !late) {
		if (timeout_ms < 0)
			pthread_cond_wait(&s->changed, &s->lock);
		else
			late = pthread_cond_timedwait(&s->changed, &s->lock, &until);
	}
	pthread_mutex_unlock(&s->lock);
	return ret == -EAGAIN ? -ETIMEDOUT : ret;
}

/* Return: whether @r is one of those that were unmapped; the agent is told unless it knows nothing */
static bool take_off(struct decant_sharer *s, size_t i, uint64_t addr, uint64_t length)
{
	struct gwire_share *r = &s->ranges[i].r;

	if (r->address < addr || r->address + r->length > addr + length)
		return false;
	if (!s->settled && s->ranges[i].state != RANGE_NEW && s->ngone < DECANT_SHARER_RANGES_MAX)
		s->gone[s->ngone++] = *r;
	s->ranges[i] = s->ranges[--s->nranges];
	return true;
}

DECANT_API int decant_sharer_unmap(struct decant_sharer *s, void *addr, uint64_t length)
{
	int ret = -ENOENT;

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->nranges;) {
		if (take_off(s, i, (uint64_t)(uintptr_t)addr, length))
			ret = 0;
		else
			i++;
	}
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	wake(s);
	return ret;
}

DECANT_API char *decant_sharer_error(struct decant_sharer *s, char *buf, size_t cap)
{
	pthread_mutex_lock(&s->lock);
	snprintf(buf, cap, "%s", s->error);
	pthread_mutex_unlock(&s->lock);
	return buf;
}

DECANT_API void decant_sharer_free(struct decant_sharer *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_mutex_unlock(&s->lock);
	wake(s);
	pthread_join(s->thread, NULL);
	destroy(s);
}
