/* SPDX-License-Identifier: Apache-2.0 */
/*
 * direct: a guest whose memory is written by devices. It reads records of a file with O_DIRECT into its
 * block, without end, many at a time; each record says which one it is. Which record each page must hold
 * it keeps outside of the block, in its saved state, and where it arrives it looks at every page.
 *
 *	direct NAME ATTACH REPORT FILE KIND MB IO DMA
 *
 * KIND memfd or anon; IO pread (threads), uring, or fixed (the same, and a quarter of it is registered); DMA yes, or no for a guest
 * that declares its block free of DMA although it is not. FILE is made where it does not exist. After SIGUSR1
 * every pause takes seconds, as if a read did not end.
 */
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "guest/decant-guest.h"

#define PAGE           4096ul
#define RECORDS        8192u   /* of the file */
#define SPAN           32u     /* pages of one read */
#define DEPTH          64u     /* reads under way */
#define FIXED          8u      /* registered buffers */
#define REST_US        20000   /* between two volleys: pages must have time to be sent */
#define SLOW_US        1500000 /* of a pause after SIGUSR1 */
#define FIXED_SPANS(d) ((d)->spans / 4)
#define PARKED(d)      ((d)->parked == (d)->workers)

/** struct direct - the guest; what stands before @seed is not saved */
struct direct {
	struct decant_guest *guest;
	const char *report;
	uint8_t *mem;
	uint64_t spans; /* of the block */
	uint32_t *want; /* record of each page */
	int file;
	char io; /* p, u, f */
	uint64_t ios;
	uint64_t bad;
	uint64_t arrivals;
	uint64_t seed;
	unsigned int workers, parked;
	bool paused;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	volatile sig_atomic_t quit;
};

/* Set by SIGUSR1: there always is a read that takes long. */
static volatile sig_atomic_t slow;

static void on_signal(int sig)
{
	(void)sig;
	slow = 1;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* --- records --- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15u;
	x ^= x >> 29;
	return x * 0xbf58476d1ce4e5b9u;
}

static void fill(uint64_t *page, uint64_t seed, uint32_t record)
{
	uint64_t x = mix(seed + record);

	page[0] = record;
	page[1] = seed;
	for (unsigned int i = 2; i < PAGE / 8; i++)
		page[i] = x += 0x9e3779b97f4a7c15u;
}

static void make_file(const char *path, uint64_t seed)
{
	uint64_t page[PAGE / 8];
	char tmp[512];
	FILE *f;

	if (!access(path, F_OK))
		return;
	/* Others may be looking for it. */
	snprintf(tmp, sizeof(tmp), "%s.%d", path, getpid());
	f = fopen(tmp, "w");
	if (!f)
		die(tmp);
	for (uint32_t i = 0; i < RECORDS; i++) {
		fill(page, seed, i);
		if (fwrite(page, PAGE, 1, f) != 1)
			die(path);
	}
	if (fflush(f) || fsync(fileno(f)) || fclose(f) || rename(tmp, path))
		die(path);
}

/* --- what it says --- */

static void say(struct direct *d, bool verified)
{
	char tmp[512];
	FILE *f;

	snprintf(tmp, sizeof(tmp), "%s.new", d->report);
	f = fopen(tmp, "w");
	if (!f)
		return;
	fprintf(f,
		"{\"pid\": %d, \"arrivals\": %lu, \"verified\": %s, \"bad\": %lu, \"ios\": %lu}\n",
		getpid(), d->arrivals, verified ? "true" : "false", d->bad, d->ios);
	fclose(f);
	rename(tmp, d->report);
}

static void verify(struct direct *d)
{
	uint64_t want[PAGE / 8];

	for (uint64_t p = 0; p < d->spans * SPAN; p++) {
		fill(want, d->seed, d->want[p]);
		d->bad += memcmp(d->mem + p * PAGE, want, PAGE) != 0;
	}
}

/* --- the pause: no read is under way --- */

/* Between two volleys. Return: whether to go on */
static bool may_go_on(struct direct *d, uint64_t done)
{
	bool go;

	pthread_mutex_lock(&d->lock);
	d->ios += done;
	d->parked++;
	pthread_cond_broadcast(&d->changed);
	while (d->paused && !d->quit)
		pthread_cond_wait(&d->changed, &d->lock);
	d->parked--;
	go = !d->quit;
	pthread_mutex_unlock(&d->lock);
	return go;
}

static int on_pause(void *opaque, int deadline_ms)
{
	struct direct *d = opaque;

	(void)deadline_ms;
	if (slow)
		usleep(SLOW_US);
	pthread_mutex_lock(&d->lock);
	d->paused = true;
	while (!PARKED(d))
		pthread_cond_wait(&d->changed, &d->lock);
	pthread_mutex_unlock(&d->lock);
	return 0;
}

static void on_resume(void *opaque)
{
	struct direct *d = opaque;

	pthread_mutex_lock(&d->lock);
	d->paused = false;
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
}

static int on_save(void *opaque, struct decant_writer *w)
{
	struct direct *d = opaque;
	uint64_t head[] = {d->seed, d->ios, d->bad, d->arrivals};
	int r = decant_write(w, head, sizeof(head));

	return r ? r : decant_write(w, d->want, d->spans * SPAN * sizeof(*d->want));
}

static int on_load(void *opaque, struct decant_reader *r)
{
	struct direct *d = opaque;
	uint64_t head[4];
	int ret = decant_read(r, head, sizeof(head));

	if (ret)
		return ret;
	d->seed = head[0];
	d->ios = head[1];
	d->bad = head[2];
	d->arrivals = head[3] + 1;
	d->paused = true;
	return decant_read(r, d->want, d->spans * SPAN * sizeof(*d->want));
}

static void on_quit(void *opaque)
{
	struct direct *d = opaque;

	pthread_mutex_lock(&d->lock);
	d->quit = 1;
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
}

/* --- reading --- */

/* Read number @i of volley @n goes to a span of its own. */
static uint64_t span_of(const struct direct *d, uint64_t n, unsigned int i)
{
	uint64_t lane = d->spans / DEPTH;

	return i * lane + mix(n * DEPTH + i) % lane;
}

static uint32_t record_of(uint64_t n, unsigned int i)
{
	return (uint32_t)(mix(~(n * DEPTH + i)) % (RECORDS - SPAN));
}

static void note(struct direct *d, uint64_t span, uint32_t record)
{
	for (uint32_t i = 0; i < SPAN; i++)
		d->want[span * SPAN + i] = record + i;
}

/* One thread for each read of a volley. */
struct lane {
	struct direct *d;
	unsigned int i;
	pthread_t thread;
};

static void *pread_main(void *arg)
{
	struct lane *l = arg;
	struct direct *d = l->d;

	for (uint64_t n = mix(d->seed + d->arrivals); may_go_on(d, 1); n++) {
		uint64_t span = span_of(d, n, l->i);
		uint32_t record = record_of(n, l->i);

		if (pread(d->file, d->mem + span * SPAN * PAGE, SPAN * PAGE,
			  (off_t)(record * PAGE)) != (ssize_t)(SPAN * PAGE))
			die("pread");
		note(d, span, record);
		usleep(REST_US);
	}
	return NULL;
}

/** struct ring - an io_uring by its bare system calls */
struct ring {
	int fd;
	uint8_t *rings;
	struct io_uring_sqe *sqe;
	struct io_uring_params p;
};

static void ring_open(struct ring *r, struct direct *d)
{
	struct iovec iov[FIXED];
	uint64_t each = FIXED_SPANS(d) / FIXED * SPAN * PAGE;

	memset(r, 0, sizeof(*r));
	r->fd = (int)syscall(SYS_io_uring_setup, DEPTH, &r->p);
	if (r->fd < 0)
		die("io_uring_setup");
	r->rings =
		mmap(NULL, r->p.cq_off.cqes + r->p.cq_entries * sizeof(struct io_uring_cqe),
		     PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQ_RING);
	r->sqe = mmap(NULL, r->p.sq_entries * sizeof(*r->sqe), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQES);
	if (r->rings == MAP_FAILED || (void *)r->sqe == MAP_FAILED)
		die("io_uring");
	for (unsigned int i = 0; i < FIXED; i++)
		iov[i] = (struct iovec){d->mem + i * each, each};
	if (d->io == 'f' &&
	    syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, iov, FIXED))
		die("IORING_REGISTER_BUFFERS");
}

static void ring_put(struct ring *r, struct direct *d, uint64_t span, uint32_t record)
{
	_Atomic uint32_t *tail = (void *)(r->rings + r->p.sq_off.tail);
	uint32_t *array = (void *)(r->rings + r->p.sq_off.array);
	uint32_t at = *tail & (r->p.sq_entries - 1);
	bool fixed = d->io == 'f' && span < FIXED_SPANS(d);

	r->sqe[at] = (struct io_uring_sqe){
		.opcode = fixed ? IORING_OP_READ_FIXED : IORING_OP_READ,
		.fd = d->file,
		.addr = (uint64_t)(uintptr_t)(d->mem + span * SPAN * PAGE),
		.len = SPAN * PAGE,
		.off = record * PAGE,
		.buf_index = (uint16_t)(fixed ? span / (FIXED_SPANS(d) / FIXED) : 0),
	};
	array[at] = at;
	atomic_fetch_add(tail, 1);
}

static void ring_reap(struct ring *r)
{
	_Atomic uint32_t *head = (void *)(r->rings + r->p.cq_off.head);
	_Atomic uint32_t *tail = (void *)(r->rings + r->p.cq_off.tail);
	struct io_uring_cqe *cqes = (void *)(r->rings + r->p.cq_off.cqes);

	for (; *head != *tail; (*head)++)
		if (cqes[*head & (r->p.cq_entries - 1)].res != (int)(SPAN * PAGE)) {
			fprintf(stderr, "read: %d\n", cqes[*head & (r->p.cq_entries - 1)].res);
			exit(1);
		}
}

static void *uring_main(void *arg)
{
	struct direct *d = arg;
	struct ring r;
	uint64_t n = mix(d->seed + d->arrivals);

	ring_open(&r, d);
	for (; may_go_on(d, DEPTH); n++) {
		long got;

		for (unsigned int i = 0; i < DEPTH; i++)
			ring_put(&r, d, span_of(d, n, i), record_of(n, i));
		got = syscall(SYS_io_uring_enter, r.fd, DEPTH, DEPTH, IORING_ENTER_GETEVENTS, NULL,
			      0);
		if (got != DEPTH)
			die("io_uring_enter");
		ring_reap(&r);
		for (unsigned int i = 0; i < DEPTH; i++)
			note(d, span_of(d, n, i), record_of(n, i));
		usleep(REST_US);
	}
	close(r.fd);
	return NULL;
}

static void work(struct direct *d)
{
	struct lane lanes[DEPTH];

	d->workers = d->io == 'p' ? DEPTH : 1;
	d->parked = 0;
	for (unsigned int i = 0; i < d->workers; i++) {
		lanes[i] = (struct lane){.d = d, .i = i};
		if (pthread_create(&lanes[i].thread, NULL, d->io == 'p' ? pread_main : uring_main,
				   d->io == 'p' ? (void *)&lanes[i] : d))
			die("pthread_create");
	}
	while (!d->quit) {
		usleep(20000);
		say(d, true);
	}
	for (unsigned int i = 0; i < d->workers; i++)
		pthread_join(lanes[i].thread, NULL);
}

/* Every page holds a record from the beginning; half of them for good if no read comes that way. */
static void begin(struct direct *d)
{
	for (uint64_t span = 0; span < d->spans; span++) {
		uint32_t record = record_of(span, 0);

		if (pread(d->file, d->mem + span * SPAN * PAGE, SPAN * PAGE,
			  (off_t)(record * PAGE)) != (ssize_t)(SPAN * PAGE))
			die("pread");
		note(d, span, record);
	}
}

int main(int argc, char **argv)
{
	struct direct d = {.seed = 20240607,
			   .lock = PTHREAD_MUTEX_INITIALIZER,
			   .changed = PTHREAD_COND_INITIALIZER};
	struct decant_guest_config config = {
		.callbacks = {.pause = on_pause,
			      .resume = on_resume,
			      .save = on_save,
			      .load = on_load,
			      .quit = on_quit},
		.opaque = &d,
	};
	unsigned int flags;
	uint64_t bytes;
	int r;

	if (argc != 9)
		return 2;
	signal(SIGUSR1, on_signal);
	config.name = argv[1];
	config.attach = argv[2];
	d.report = argv[3];
	make_file(argv[4], d.seed);
	d.file = open(argv[4], O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (d.file < 0)
		die(argv[4]);
	flags = !strcmp(argv[5], "anon") ? DECANT_BLOCK_ANON : DECANT_BLOCK_MEMFD;
	flags |= strcmp(argv[8], "no") != 0 ? 0 : DECANT_BLOCK_NO_DMA;
	bytes = strtoull(argv[6], NULL, 10) << 20;
	d.spans = bytes / PAGE / SPAN;
	d.io = argv[7][0];
	d.want = calloc(d.spans * SPAN, sizeof(*d.want));
	d.guest = decant_guest_new(&config);
	if (!d.want || !d.guest ||
	    decant_block_create(d.guest, "data", bytes, flags, (void **)&d.mem))
		die("block");
	if (!decant_guest_incoming(d.guest))
		begin(&d);
	r = decant_guest_start(d.guest);
	if (r < 0) {
		fprintf(stderr, "direct: start: %d\n", r);
		return 3;
	}
	if (r == DECANT_ARRIVED)
		verify(&d);
	work(&d);
	say(&d, true);
	decant_guest_free(d.guest);
	return 0;
}
