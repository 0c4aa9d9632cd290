/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shift: a guest whose memory changes underneath all the time. Its threads write pages, verify them, give
 * parts of the block back, punch holes into its file and fork, each in a stretch of memory that it has locked.
 * How often each page was written since it was last given back travels with its state: 0 means zeros.
 * It verifies all of its pages over and over and says in a file what it found.
 *
 *	shift NAME ATTACH REPORT KIND MB	KIND: memfd, anon
 *
 * SIGUSR1: unmap a part of every eighth stretch, for good. SIGUSR2: move a part of the first one
 * elsewhere (mremap), and back at the second time.
 * SIGHUP: all of it has arrived, its file may be punched again.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/decant-guest.h"

#define PAGE    4096ul
#define WORDS   (PAGE / sizeof(uint64_t))
#define STRETCH 64ul
#define THREADS 2

/**
 * struct shift - the guest
 * @lock:	shared: somebody works; exclusive: it is paused
 * @stretch:	of each STRETCH pages
 * @counts:	of each page
 * @unmapped:	pages of this process that are not there
 * @punched:	pages whose file was punched: an agent that has not looked yet must find a hole, so they are
 *		not read before they are written, or have arrived
 * @fd:		the block's file, -1 for private memory
 * @arrived:	it has come from another host, and not all may be here yet: files are punched no more, which post-copy cannot see
 */
struct shift {
	struct decant_guest *guest;
	const char *report;
	uint64_t *mem;
	uint64_t pages;
	pthread_rwlock_t lock;
	pthread_mutex_t *stretch;
	uint32_t *counts;
	bool *unmapped;
	bool *punched;
	void *moved;
	int fd;
	bool anon;
	bool arrived;
	_Atomic uint64_t bad, given, written;
	uint64_t rounds;
};

/* --- pages --- */

static uint64_t word(uint64_t page, uint32_t count, uint64_t i)
{
	return count ? (page * 0x9e3779b97f4a7c15u ^ (uint64_t)count << 32) + i : 0;
}

static void write_page(struct shift *s, uint64_t page)
{
	uint64_t *p = s->mem + page * WORDS;

	s->counts[page]++;
	s->punched[page] = false;
	for (uint64_t i = 0; i < WORDS; i++)
		p[i] = word(page, s->counts[page], i);
	s->written++;
}

static void verify_page(struct shift *s, uint64_t page)
{
	const uint64_t *p = s->mem + page * WORDS;
	uint64_t wrong = 0;

	if (s->punched[page])
		return;
	for (uint64_t i = 0; i < WORDS; i++)
		wrong |= p[i] ^ word(page, s->counts[page], i);
	if (wrong && s->bad++ < 5)
		fprintf(stderr,
			"shift: page %lu should be at count %u and begins with %lx, not %lx\n",
			page, s->counts[page], p[0], word(page, s->counts[page], 0));
}

static void punch(struct shift *s, uint64_t page, uint64_t n)
{
	if (fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(page * PAGE),
		      (off_t)(n * PAGE)))
		abort();
}

/* Whatever was there: zeros from now on. */
static void give_back(struct shift *s, uint64_t page, uint64_t n, bool by_file)
{
	bool file = !s->anon && by_file && !s->arrived;

	memset(s->punched + page, file, n);
	if (file)
		punch(s, page, n);
	else if (madvise(s->mem + page * WORDS, n * PAGE, s->anon ? MADV_DONTNEED : MADV_REMOVE))
		abort();
	memset(s->counts + page, 0, n * sizeof(*s->counts));
	s->given += n;
}

/* The lock of a stretch is held. */
static void change(struct shift *s, uint64_t first, uint64_t r)
{
	uint64_t page = first + (r >> 8) % STRETCH;
	uint64_t n = 1 + (r >> 16) % (first + STRETCH - page);

	n = n > 16 ? 16 : n;
	for (uint64_t i = page; i < page + n; i++)
		if (s->unmapped[i])
			return;
	if (r >> 24 & 1)
		for (uint64_t i = page; i < page + n; i++)
			verify_page(s, i);
	switch (r >> 32 & 7) {
	case 0:
	case 1:
		give_back(s, page, n, r >> 40 & 1);
		break;
	case 2:
		/* Of a file this takes nothing away, of private memory nothing that is not written anew. */
		if (!s->arrived)
			madvise(s->mem + page * WORDS, n * PAGE,
				s->anon ? MADV_FREE : MADV_DONTNEED);
		if (s->arrived || !s->anon)
			break;
		/* fall through */
	default:
		for (uint64_t i = page; i < page + n; i++)
			write_page(s, i);
	}
}

static void *work(void *arg)
{
	struct shift *s = arg;
	uint64_t r = (uint64_t)&r ^ (uint64_t)getpid() << 20;

	for (;;) {
		uint64_t i;

		r ^= r << 13;
		r ^= r >> 7;
		r ^= r << 17;
		i = (r >> 44) % (s->pages / STRETCH);
		pthread_rwlock_rdlock(&s->lock);
		pthread_mutex_lock(&s->stretch[i]);
		change(s, i * STRETCH, r);
		pthread_mutex_unlock(&s->stretch[i]);
		pthread_rwlock_unlock(&s->lock);
		usleep(100);
	}
	return NULL;
}

static void verify_all(struct shift *s)
{
	for (uint64_t i = 0; i < s->pages / STRETCH; i++) {
		pthread_rwlock_rdlock(&s->lock);
		pthread_mutex_lock(&s->stretch[i]);
		for (uint64_t page = i * STRETCH; page < (i + 1) * STRETCH; page++)
			if (!s->unmapped[page])
				verify_page(s, page);
		pthread_mutex_unlock(&s->stretch[i]);
		pthread_rwlock_unlock(&s->lock);
	}
	s->rounds++;
}

static void unmap_parts(struct shift *s)
{
	for (uint64_t i = 0; i < s->pages / STRETCH; i += 8) {
		uint64_t page = i * STRETCH + 20;

		pthread_rwlock_rdlock(&s->lock);
		pthread_mutex_lock(&s->stretch[i]);
		munmap(s->mem + page * WORDS, 3 * PAGE);
		for (uint64_t p = page; p < page + 3; p++) {
			s->unmapped[p] = true;
			/* The file still has it, and the next process finds it. */
			s->counts[p] = s->anon ? 0 : s->counts[p];
		}
		pthread_mutex_unlock(&s->stretch[i]);
		pthread_rwlock_unlock(&s->lock);
	}
}

static void move_part(struct shift *s)
{
	void *here = s->mem + 2 * WORDS, *from = s->moved ? s->moved : here, *to = here;

	pthread_rwlock_rdlock(&s->lock);
	pthread_mutex_lock(&s->stretch[0]);
	if (!s->moved)
		to = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mremap(from, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		abort();
	s->unmapped[2] = s->unmapped[3] = !s->moved;
	s->moved = s->moved ? NULL : to;
	pthread_mutex_unlock(&s->stretch[0]);
	pthread_rwlock_unlock(&s->lock);
}

/* --- callbacks: pause and resume come on the same thread --- */

static int on_pause(void *opaque, int deadline_ms)
{
	struct shift *s = opaque;

	(void)deadline_ms;
	pthread_rwlock_wrlock(&s->lock);
	return 0;
}

static void on_resume(void *opaque)
{
	struct shift *s = opaque;

	pthread_rwlock_unlock(&s->lock);
}

static int on_save(void *opaque, struct decant_writer *w)
{
	const struct shift *s = opaque;

	return decant_write(w, s->counts, s->pages * sizeof(*s->counts));
}

static int on_load(void *opaque, struct decant_reader *r)
{
	struct shift *s = opaque;

	s->arrived = true;
	pthread_rwlock_wrlock(&s->lock);
	return decant_read(r, s->counts, s->pages * sizeof(*s->counts));
}

/* It is paused: whoever wants a stretch waits for ever. */
static void on_quit(void *opaque)
{
	(void)opaque;
	_exit(0);
}

static void on_message(void *opaque, const char *text)
{
	(void)opaque;
	fprintf(stderr, "shift: %s\n", text);
}

/* --- the rest --- */

static void report(const struct shift *s)
{
	char tmp[512];
	FILE *f;

	snprintf(tmp, sizeof(tmp), "%s.new", s->report);
	f = fopen(tmp, "we");
	if (!f)
		return;
	fprintf(f,
		"{\"pid\": %d, \"arrived\": %s, \"rounds\": %lu, \"bad\": %lu, \"given\": %lu, "
		"\"written\": %lu}\n",
		(int)getpid(), s->arrived ? "true" : "false", s->rounds, s->bad, s->given,
		s->written);
	fclose(f);
	rename(tmp, s->report);
}

/* A child that inherits nothing of the block, as the library has it, and does not hurt. */
static void fork_one(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

static void live(struct shift *s, const sigset_t *signals)
{
	const struct timespec tick = {.tv_nsec = 50000000};

	for (;;) {
		switch (sigtimedwait(signals, NULL, &tick)) {
		case SIGUSR1:
			unmap_parts(s);
			break;
		case SIGUSR2:
			move_part(s);
			break;
		case SIGHUP:
			s->arrived = false;
			break;
		}
		fork_one();
		verify_all(s);
		report(s);
	}
}

/* The block's file is one of this process's. */
static int find_file(void)
{
	char path[64], link[64] = "";

	for (int fd = 3; fd < 64; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (readlink(path, link, sizeof(link) - 1) > 0 && !strncmp(link, "/memfd:ram", 10))
			return fd;
	}
	return -1;
}

static int prepare(struct shift *s, const char *kind, unsigned long mb)
{
	pthread_rwlockattr_t attr;
	void *mem;
	int r;

	s->anon = !strcmp(kind, "anon");
	s->pages = mb << 8;
	r = decant_block_create(
		s->guest, "ram", s->pages * PAGE,
		DECANT_BLOCK_NO_DMA | (s->anon ? DECANT_BLOCK_ANON : DECANT_BLOCK_MEMFD), &mem);
	if (r)
		return r;
	s->mem = mem;
	s->fd = s->anon ? -1 : find_file();
	s->counts = calloc(s->pages, sizeof(*s->counts));
	s->unmapped = calloc(s->pages, sizeof(*s->unmapped));
	s->punched = calloc(s->pages, sizeof(*s->punched));
	s->stretch = calloc(s->pages / STRETCH, sizeof(*s->stretch));
	for (uint64_t i = 0; i < s->pages / STRETCH; i++)
		pthread_mutex_init(&s->stretch[i], NULL);
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&s->lock, &attr);
	return s->anon || s->fd >= 0 ? 0 : -EBADF;
}

int main(int argc, char **argv)
{
	static struct shift s;
	struct decant_guest_config config = {
		.flags = DECANT_GUEST_USER_FAULTS,
		.callbacks = {on_pause, on_resume, on_save, on_load, on_quit, on_message},
		.opaque = &s,
	};
	sigset_t signals;
	pthread_t t;
	int r;

	if (argc != 6)
		return 2;
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGUSR2);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	config.name = argv[1];
	config.attach = argv[2];
	s.report = argv[3];
	s.guest = decant_guest_new(&config);
	r = s.guest ? prepare(&s, argv[4], strtoul(argv[5], NULL, 10)) : -errno;
	for (uint64_t page = 0; !r && !getenv("DECANT_INCOMING") && page < s.pages; page++)
		write_page(&s, page);
	if (!r)
		r = decant_guest_start(s.guest);
	if (r < 0) {
		fprintf(stderr, "shift: cannot be a guest: %s\n", strerror(-r));
		return 1;
	}
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&t, NULL, work, &s))
			return 1;
	live(&s, &signals);
	return 0;
}
