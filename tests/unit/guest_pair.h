/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of native guests: an agent's attach socket in this process, guests that use the
 * real library in processes of their own, and the asynchronous operations turned into calls.
 */
#ifndef DECANT_TESTS_GUEST_PAIR_H
#define DECANT_TESTS_GUEST_PAIR_H

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/attach.h"
#include "guest/decant-guest.h"
#include "guest/gmem.h"
#include "guest/gwire.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"
#include "util/log.h"

#define PAIR_WAIT_MS 10000
#define PAIR_PAGE    4096ul

/**
 * struct pair - an agent
 * @g:		the guest that attached last, NULL when it is lost
 * @attached:	how many have
 * @refuse:	refuse the next ones with this code
 * @gone, @how:	how many were lost, and how the last was
 * @done, @ret, @err, @fd: what pair_done() was told
 * @saved, @nsaved: what pair_chunk() was given (room for @capsaved)
 */
struct pair {
	struct loop *loop;
	struct attach *attach;
	char dir[64];
	char path[100];
	struct guest *g;
	int attached;
	const char *refuse;
	int gone;
	enum guest_gone how;
	bool done;
	int ret;
	struct error err;
	int fd;
	char *saved;
	size_t nsaved, capsaved;
};

static inline int pair_on_attach(void *arg, struct guest *g, struct error *err);

static inline void pair_listen(struct pair *p)
{
	struct attach_config c = {
		.path = p->path, .mode = 0600, .listen_fd = -1, .fn = pair_on_attach, .arg = p};
	struct error err = {0};

	cr_assert_eq(attach_new(p->loop, &c, &p->attach, &err), 0, "%s", err.msg);
}

static inline void pair_open(struct pair *p)
{
	*p = (struct pair){.fd = -1};
	log_setup("error");
	strcpy(p->dir, "/tmp/decant-guest-XXXXXX");
	cr_assert(mkdtemp(p->dir));
	snprintf(p->path, sizeof(p->path), "%s/attach", p->dir);
	p->loop = loop_new();
	cr_assert(p->loop);
	pair_listen(p);
}

static inline void pair_close(struct pair *p)
{
	guest_free(p->g);
	p->g = NULL;
	attach_free(p->attach);
	if (p->fd >= 0)
		close(p->fd);
	free(p->saved);
	loop_free(p->loop);
	rmdir(p->dir);
}

static inline void pair_on_gone(void *arg, struct guest *g, enum guest_gone how)
{
	struct pair *p = arg;

	p->gone++;
	p->how = how;
	if (p->g == g)
		p->g = NULL;
	guest_free(g);
}

static inline int pair_on_attach(void *arg, struct guest *g, struct error *err)
{
	struct pair *p = arg;

	if (p->refuse)
		return error_set(err, -EPERM, p->refuse, "not today");
	guest_watch(g, pair_on_gone, NULL, p);
	p->g = g;
	p->attached++;
	return 0;
}

static inline void pair_tick(void *arg)
{
	*(bool *)arg = true;
}

/** pair_skip() - skip the test; Criterion then does without its .fini */
#define pair_skip(p, why)          \
	do {                       \
		pair_close(p);     \
		cr_skip_test(why); \
	} while (0)

/** pair_spin() - run the loop for a while */
static inline void pair_spin(struct pair *p, unsigned int ms)
{
	bool over = false;
	struct event *ev = loop_timer(p->loop, ms * 1000ull, pair_tick, &over);

	while (!over)
		event_base_loop(loop_base(p->loop), EVLOOP_ONCE);
	event_free(ev);
}

/** pair_until() - run the loop until @cond holds; fails the test if it never does */
#define pair_until(p, cond)                                                               \
	do {                                                                              \
		uint64_t until_ = clock_us() + PAIR_WAIT_MS * 1000ull;                    \
		while (!(cond)) {                                                         \
			cr_assert_lt(clock_us(), until_, "waited in vain for %s", #cond); \
			pair_spin(p, 5);                                                  \
		}                                                                         \
	} while (0)

static inline void pair_done(void *arg, int ret, const struct error *err, int fd)
{
	struct pair *p = arg;

	cr_assert(!p->done, "done twice");
	p->done = true;
	p->ret = ret;
	p->err = (struct error){0};
	if (ret)
		p->err = *err;
	if (p->fd >= 0)
		close(p->fd);
	p->fd = fd;
}

/** pair_do() - e.g. pair_do(p, guest_resume, p->g): wait until it is done. Its value: what it was done with */
#define pair_do(p, op, ...)                               \
	({                                                \
		(p)->done = false;                        \
		int ret_ = op(__VA_ARGS__, pair_done, p); \
		if (!ret_)                                \
			pair_until(p, (p)->done);         \
		ret_ ? ret_ : (p)->ret;                   \
	})

static inline int pair_chunk(void *arg, const void *data, size_t n)
{
	struct pair *p = arg;

	if (p->nsaved + n > p->capsaved || !p->saved) {
		p->capsaved = 2 * (p->nsaved + n);
		p->saved = realloc(p->saved, p->capsaved);
	}
	memcpy(p->saved + p->nsaved, data, n);
	p->nsaved += n;
	return 0;
}

static inline int pair_save(struct pair *p)
{
	p->nsaved = 0;
	return pair_do(p, guest_save, p->g, pair_chunk);
}

static inline void pair_no_room(void *arg)
{
	(void)arg;
}

/** pair_load() - load @n bytes and wait for the answer */
static inline int pair_load(struct pair *p, bool paused, const char *data, size_t n)
{
	size_t at = 0;
	int ret;

	p->done = false;
	ret = guest_load(p->g, paused, pair_no_room, pair_done, p);
	if (ret)
		return ret;
	while (at < n && !p->done) {
		size_t part = MIN(n - at, (size_t)100000);

		ret = guest_load_feed(p->g, data + at, part);
		if (!ret)
			at += part;
		else
			pair_spin(p, 1);
	}
	if (!p->done)
		guest_load_end(p->g);
	pair_until(p, p->done);
	return p->ret;
}

/** pair_fork() - a guest: @fn runs in a process of its own that dies with this one */
static inline pid_t pair_fork(struct pair *p, void (*fn)(const char *path, void *arg), void *arg)
{
	pid_t parent = getpid(), pid = fork();

	cr_assert_geq(pid, 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(99);
	fn(p->path, arg);
	_exit(0);
}

static inline int pair_wait(struct pair *p, pid_t pid)
{
	int status = 0;
	uint64_t until = clock_us() + PAIR_WAIT_MS * 1000ull;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		cr_assert_lt(clock_us(), until, "the guest does not end");
		pair_spin(p, 5);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline void pair_kill(struct pair *p, pid_t pid)
{
	kill(pid, SIGKILL);
	pair_wait(p, pid);
}

/**
 * struct pair_guest - a small program with the library; lives in the guest's process
 * @shared:	memory that the test sees, too
 */
struct pair_shared {
	int pausing, pauses, resumes, loads, quits;
	bool paused;
	int pause_ms;    /* how long the pause callback takes */
	int pause_error; /* what it returns */
	size_t state;    /* bytes that are saved */
	int save_error;
	size_t read; /* bytes that load takes; SIZE_MAX: all */
	int loaded_bad;
	int start; /* what decant_guest_start() returned, 99 before */
	bool set_paused, wish, free_it, never_end;
	int touch; /* 'r' or 'w': touch byte @at of block @where; 0 when it has been done */
	int where;
	size_t at;
	uint8_t value; /* what was read, or is to be written */
	size_t lock;   /* bytes of "anon" to lock at the start, and to advise huge pages for */
	bool no_lock_cap, kernel_faults;
	char text[256];
};

static inline int pair_cb_pause(void *opaque, int ms)
{
	volatile struct pair_shared *s = opaque;

	(void)ms;
	s->pausing++;
	usleep((useconds_t)s->pause_ms * 1000);
	s->pauses++;
	if (s->pause_error)
		return s->pause_error;
	if (s->paused)
		abort();
	s->paused = true;
	return 0;
}

static inline void pair_cb_resume(void *opaque)
{
	volatile struct pair_shared *s = opaque;

	if (!s->paused)
		abort();
	s->resumes++;
	s->paused = false;
}

static inline uint8_t pair_byte(size_t i)
{
	return (uint8_t)(i * 31 + i / 251);
}

static inline int pair_cb_save(void *opaque, struct decant_writer *w)
{
	struct pair_shared *s = opaque;
	uint8_t buf[1000];
	int ret;

	for (size_t at = 0; at < s->state; at += sizeof(buf)) {
		size_t n = MIN(sizeof(buf), s->state - at);

		for (size_t i = 0; i < n; i++)
			buf[i] = pair_byte(at + i);
		ret = decant_write(w, buf, n);
		if (ret)
			return ret;
	}
	return s->save_error;
}

static inline int pair_cb_load(void *opaque, struct decant_reader *r)
{
	struct pair_shared *s = opaque;
	uint8_t c;
	size_t i = 0;
	ssize_t n = 1;

	while (i < s->read && (n = decant_read_some(r, &c, 1)) == 1) {
		s->loaded_bad += c != pair_byte(i);
		i++;
	}
	s->loads++;
	s->paused = true;
	return n < 0 ? (int)n : 0;
}

static inline void pair_cb_quit(void *opaque)
{
	struct pair_shared *s = opaque;

	s->quits++;
	if (!s->never_end)
		_exit(7);
}

static inline void pair_cb_message(void *opaque, const char *text)
{
	struct pair_shared *s = opaque;

	snprintf(s->text, sizeof(s->text), "%s", text);
}

static inline struct decant_guest *pair_guest(const char *path, struct pair_shared *s)
{
	struct decant_guest_config c = {
		.name = "unit",
		.attach = path,
		.flags = s->kernel_faults ? 0 : DECANT_GUEST_USER_FAULTS,
		.callbacks = {pair_cb_pause, pair_cb_resume, pair_cb_save, pair_cb_load,
			      pair_cb_quit, pair_cb_message},
		.opaque = s,
	};

	return decant_guest_new(&c);
}

#define PAIR_BLOCK (64 * PAIR_PAGE)

static inline void pair_touch(struct pair_shared *s, void *file, void *anon)
{
	volatile uint8_t *b = s->where ? anon : file;

	if (*(volatile int *)&s->touch == 'r')
		s->value = b[s->at];
	else if (s->touch == 'w')
		b[s->at] = s->value;
	else
		return;
	__atomic_store_n(&s->touch, 0, __ATOMIC_SEQ_CST);
}

/* Without CAP_IPC_LOCK the limit of locked memory counts for root, too. */
static inline void pair_drop_lock_cap(void)
{
	struct {
		uint32_t version;
		int pid;
	} head = {0x20080522, 0};
	struct {
		uint32_t effective, permitted, inheritable;
	} data[2] = {0};

	syscall(SYS_capget, &head, data);
	data[0].effective &= ~(1u << 14);
	data[0].permitted &= ~(1u << 14);
	if (syscall(SYS_capset, &head, data))
		_exit(95);
}

static inline void pair_prepare_memory(struct pair_shared *s, void *anon)
{
	if (s->lock && (mlock(anon, s->lock) || madvise(anon, PAIR_BLOCK, MADV_HUGEPAGE)))
		_exit(94);
	if (s->no_lock_cap)
		pair_drop_lock_cap();
}

/** pair_program() - for pair_fork(): two blocks, "file" and "anon", then whatever @arg asks for */
static inline void pair_program(const char *path, void *arg)
{
	struct pair_shared *s = arg;
	struct decant_guest *g = pair_guest(path, s);
	void *file, *anon;
	bool wish = s->wish;
	int ret;

	if (!g ||
	    decant_block_create(g, "file", PAIR_BLOCK, DECANT_BLOCK_MEMFD | DECANT_BLOCK_NO_DMA,
				&file) ||
	    decant_block_create(g, "anon", PAIR_BLOCK, DECANT_BLOCK_ANON, &anon))
		_exit(98);
	if (!decant_guest_incoming(g)) {
		memset(file, 0x11, PAIR_PAGE);
		memset((char *)anon + PAIR_PAGE, 0x22, PAIR_PAGE);
		decant_guest_set_paused(g, wish);
		s->paused = wish;
	}
	pair_prepare_memory(s, anon);
	ret = decant_guest_start(g);
	__atomic_store_n(&s->start, ret, __ATOMIC_SEQ_CST);
	while (!*(volatile bool *)&s->free_it && ret >= 0) {
		usleep(2000);
		pair_touch(s, file, anon);
		if (*(volatile bool *)&s->set_paused != wish) {
			wish = s->set_paused;
			decant_guest_set_paused(g, wish);
		}
	}
	decant_guest_free(g);
	_exit(ret < 0 ? 20 : 0);
}

static inline struct pair_shared *pair_shared(void)
{
	struct pair_shared *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(s, MAP_FAILED);
	*s = (struct pair_shared){.start = 99, .read = SIZE_MAX, .state = 5000};
	return s;
}

#define PAIR_TOKEN "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/** pair_incoming() - the same, as an agent's launcher starts it */
static inline void pair_incoming(const char *path, void *arg)
{
	setenv("DECANT_INCOMING", PAIR_TOKEN, 1);
	setenv("DECANT_ATTACH", path, 1);
	pair_program(NULL, arg);
}

#endif
