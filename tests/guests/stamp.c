/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stamp: a guest that never stops writing and verifying its own memory. It uses libdecant-guest as
 * any program would: see main(), make_blocks() and the callbacks in between.
 *
 * Every page is checked in full before each write and in whole verifications: after each arrival, and on
 * SIGUSR1. How often each page was written is kept outside of the blocks and travels as saved
 * state. SIGUSR2 toggles the guest's own wish to be paused.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guest/decant-guest.h"
#include "guests/stamp_page.h"

#define STATE_MAGIC    0x706d617473u /* "stamp" */
#define BLOCKS_MAX     64
#define THREADS_MAX    64
#define VERIFIERS      2
#define REPORT_MS      100
#define COMPLAINTS_MAX 20
#define FAULT_MIN_US   20 /* a first touch that takes longer had to wait for its page */

/* Flags of a page, kept beside its count. */
#define PAGE_LOCKED  1u
#define PAGE_TOUCHED 2u /* since this process exists */
#define PAGE_BAD     4u

/** struct latency - microseconds, in eighths of powers of two */
struct latency {
	uint64_t count[8 * 40];
	uint64_t n;
	uint64_t max_us;
};

/** struct bad - the first bad page, as it was found */
struct bad {
	uint64_t page, count, zero, got_page, got_count;
	char what[16];
};

/**
 * struct worker - a thread that touches blocks
 * @busy:	it may be inside a block: see step_begin()
 * @since_us:	when its step began, 0 outside of one
 */
struct worker {
	struct stamp *s;
	pthread_t thread;
	unsigned int index;
	uint64_t rng;
	bool busy;
	uint64_t since_us;
	uint64_t from, to; /* verifiers: pages */
};

/** struct stamp - everything; fields are atomic or fixed once threads run, unless @lock is named */
struct stamp {
	struct decant_guest *guest;
	const char *name, *attach, *kind, *report;
	uint64_t bytes, writes, state_kb;
	unsigned int nblocks, threads;
	bool dma, wish;

	struct stamp_seed seed;
	uint64_t pages, per_block;
	uint8_t *block[BLOCKS_MAX];
	uint32_t *counts;
	uint8_t *flags;

	uint64_t counter, arrivals, pauses, bad_pages, complaints;
	uint64_t counter_at_pause, counter_at_arrival, paused_wall_us, arrival_gap_us;
	int64_t counter_gap;
	uint64_t longest_stall_us, pause_began_us, longest_pause_us;
	uint64_t verifications, verified_pages;
	unsigned int verifying;
	bool verify_wanted, quit;
	struct latency faults;

	pthread_mutex_t lock;
	pthread_cond_t resumed;
	bool paused;          /* under @lock to sleep; atomic to look */
	struct bad first_bad; /* under @lock */
	struct worker worker[THREADS_MAX + VERIFIERS];
};

static uint64_t clock_us(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static uint64_t now_us(void)
{
	return clock_us(CLOCK_MONOTONIC);
}

#define get(x)    __atomic_load_n(&(x), __ATOMIC_SEQ_CST)
#define set(x, v) __atomic_store_n(&(x), v, __ATOMIC_SEQ_CST)
#define add(x, v) __atomic_add_fetch(&(x), v, __ATOMIC_SEQ_CST)

static void raise_to(uint64_t *max, uint64_t v)
{
	uint64_t old = get(*max);

	while (v > old && !__atomic_compare_exchange_n(max, &old, v, false, __ATOMIC_SEQ_CST,
						       __ATOMIC_SEQ_CST))
		;
}

static void latency_add(struct latency *l, uint64_t us)
{
	unsigned int top = us < 8 ? 0 : 60 - (unsigned int)__builtin_clzll(us);
	size_t i = us < 8 ? us : 8 * top + (us >> top);

	add(l->count[i < 8 * 40 ? i : 8 * 40 - 1], 1);
	add(l->n, 1);
	raise_to(&l->max_us, us);
}

static uint64_t latency_quantile(struct latency *l, double q)
{
	uint64_t want = (uint64_t)(q * (double)get(l->n)), seen = 0;

	for (size_t i = 0; i < 8 * 40; i++) {
		seen += get(l->count[i]);
		if (seen > want)
			return i < 8 ? i : (8 + i % 8) << (i / 8 - 1);
	}
	return get(l->max_us);
}

/* --- pages -------------------------------------------------------------------------------------- */

static uint64_t *page_at(struct stamp *s, uint64_t page)
{
	return (uint64_t *)(s->block[page / s->per_block] + page % s->per_block * STAMP_PAGE);
}

static bool page_lock(struct stamp *s, uint64_t page)
{
	return !(__atomic_fetch_or(&s->flags[page], PAGE_LOCKED, __ATOMIC_ACQUIRE) & PAGE_LOCKED);
}

static void page_unlock(struct stamp *s, uint64_t page)
{
	__atomic_fetch_and(&s->flags[page], (uint8_t)~PAGE_LOCKED, __ATOMIC_RELEASE);
}

static void complain(struct stamp *s, uint64_t page, const uint64_t *p)
{
	struct bad b = {.page = page,
			.count = s->counts[page],
			.zero = stamp_is_zero(&s->seed, page, s->counts[page]),
			.got_page = p[1],
			.got_count = p[2]};

	if (get(s->flags[page]) & PAGE_BAD)
		return;
	__atomic_fetch_or(&s->flags[page], PAGE_BAD, __ATOMIC_RELAXED);
	strcpy(b.what, stamp_what(&s->seed, p, page, s->counts[page]));
	pthread_mutex_lock(&s->lock);
	if (add(s->bad_pages, 1) == 1)
		s->first_bad = b;
	pthread_mutex_unlock(&s->lock);
	if (add(s->complaints, 1) <= COMPLAINTS_MAX)
		fprintf(stderr,
			"stamp %s: bad page %" PRIu64 " (block %" PRIu64 ", offset %#" PRIx64
			"): %s; expected count %" PRIu64 "%s, got page %" PRIu64 " count %" PRIu64
			"\n",
			s->name, page, page / s->per_block, page % s->per_block * STAMP_PAGE,
			b.what, b.count, b.zero ? " (zeros)" : "", b.got_page, b.got_count);
}

/* The page is locked. The first access after an arrival is the one that may have to wait. */
static void page_check(struct stamp *s, uint64_t page)
{
	uint64_t *p = page_at(s, page), began, us;

	if (!(get(s->flags[page]) & PAGE_TOUCHED)) {
		began = now_us();
		*(volatile uint64_t *)p;
		us = now_us() - began;
		if (us >= FAULT_MIN_US)
			latency_add(&s->faults, us);
		__atomic_fetch_or(&s->flags[page], PAGE_TOUCHED, __ATOMIC_RELAXED);
	}
	if (!stamp_matches(&s->seed, p, page, s->counts[page]))
		complain(s, page, p);
}

/* --- threads ------------------------------------------------------------------------------------ */

/*
 * A thread announces itself before it looks whether the guest is paused, and the pause callback
 * does it the other way round: so one of the two always sees the other.
 */
static void step_begin(struct worker *w)
{
	struct stamp *s = w->s;

	for (;;) {
		set(w->busy, true);
		if (!get(s->paused))
			break;
		set(w->busy, false);
		pthread_mutex_lock(&s->lock);
		while (s->paused)
			pthread_cond_wait(&s->resumed, &s->lock);
		pthread_mutex_unlock(&s->lock);
	}
	set(w->since_us, now_us());
}

static void step_end(struct worker *w)
{
	raise_to(&w->s->longest_stall_us, now_us() - w->since_us);
	set(w->since_us, 0);
	set(w->busy, false);
}

static uint64_t random_page(struct worker *w)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return w->rng % w->s->pages;
}

/* Sleep until the next write is due; after a long stop the missed ones are not made up for. */
static void keep_rate(struct stamp *s, uint64_t *due_us)
{
	uint64_t now = now_us();

	if (!s->writes)
		return;
	*due_us += 1000000 / s->writes;
	if (now > *due_us + 50000)
		*due_us = now;
	if (now + 1000 < *due_us || (now < *due_us && s->writes < 1000))
		usleep((useconds_t)(*due_us - now));
}

static void *write_main(void *arg)
{
	struct worker *w = arg;
	struct stamp *s = w->s;
	uint64_t due_us = now_us();

	for (;;) {
		uint64_t page = random_page(w);

		keep_rate(s, &due_us);
		step_begin(w);
		if (page_lock(s, page)) {
			page_check(s, page);
			stamp_write(&s->seed, page_at(s, page), page, ++s->counts[page]);
			add(s->counter, 1);
			page_unlock(s, page);
		}
		step_end(w);
	}
	return NULL;
}

static void *verify_main(void *arg)
{
	struct worker *w = arg;
	struct stamp *s = w->s;

	for (uint64_t page = w->from; page < w->to;) {
		bool mine;

		step_begin(w);
		mine = page_lock(s, page);
		if (mine) {
			page_check(s, page);
			page_unlock(s, page++);
			add(s->verified_pages, 1);
		}
		step_end(w);
		if (!mine) /* its writer may be waiting for it */
			usleep(20);
	}
	if (add(s->verifying, -1) == 0)
		add(s->verifications, 1);
	return NULL;
}

static int start_worker(struct stamp *s, unsigned int i, void *(*fn)(void *))
{
	struct worker *w = &s->worker[i];

	w->s = s;
	w->index = i;
	w->rng = stamp_mix(s->seed.seed + i + clock_us(CLOCK_REALTIME)) | 1;
	if (pthread_create(&w->thread, NULL, fn, w))
		return -EAGAIN;
	return pthread_detach(w->thread);
}

/* Main thread. One at a time; what is asked for meanwhile follows. */
static void start_verification(struct stamp *s)
{
	if (!s->verify_wanted || get(s->verifying))
		return;
	s->verify_wanted = false;
	set(s->verified_pages, 0);
	set(s->verifying, VERIFIERS);
	for (unsigned int i = 0; i < VERIFIERS; i++) {
		s->worker[THREADS_MAX + i].from = s->pages * i / VERIFIERS;
		s->worker[THREADS_MAX + i].to = s->pages * (i + 1) / VERIFIERS;
		if (start_worker(s, THREADS_MAX + i, verify_main)) {
			fprintf(stderr, "stamp %s: no thread to verify with\n", s->name);
			exit(1);
		}
	}
}

/* --- callbacks ---------------------------------------------------------------------------------- */

static int on_pause(void *opaque, int deadline_ms)
{
	struct stamp *s = opaque;

	(void)deadline_ms; /* a thread that waits for a page cannot be hurried */
	set(s->pause_began_us, now_us());
	set(s->paused, true);
	for (size_t i = 0; i < THREADS_MAX + VERIFIERS; i++)
		while (get(s->worker[i].busy))
			usleep(20);
	add(s->pauses, 1);
	set(s->counter_at_pause, get(s->counter));
	set(s->paused_wall_us, clock_us(CLOCK_REALTIME));
	return 0;
}

static void on_resume(void *opaque)
{
	struct stamp *s = opaque;

	if (s->pause_began_us)
		raise_to(&s->longest_pause_us, now_us() - s->pause_began_us);
	pthread_mutex_lock(&s->lock);
	set(s->paused, false);
	pthread_cond_broadcast(&s->resumed);
	pthread_mutex_unlock(&s->lock);
}

/* The numbers that travel, in this order. */
static void state_fields(struct stamp *s, uint64_t *field[static 11])
{
	uint64_t *all[11] = {&s->seed.seed,        &s->seed.zeros,       &s->pages,
			     &s->counter,          &s->arrivals,         &s->pauses,
			     &s->bad_pages,        &s->counter_at_pause, &s->paused_wall_us,
			     &s->longest_stall_us, &s->state_kb};

	memcpy(field, all, sizeof(all));
}

static int on_save(void *opaque, struct decant_writer *w)
{
	struct stamp *s = opaque;
	uint64_t *field[11], magic = STATE_MAGIC, line[128];
	int ret = decant_write(w, &magic, sizeof(magic));

	state_fields(s, field);
	for (size_t i = 0; !ret && i < 11; i++)
		ret = decant_write(w, field[i], sizeof(*field[i]));
	if (!ret)
		ret = decant_write(w, &s->first_bad, sizeof(s->first_bad));
	if (!ret)
		ret = decant_write(w, s->counts, s->pages * sizeof(*s->counts));
	for (uint64_t kb = 0; !ret && kb < s->state_kb; kb++) {
		for (size_t i = 0; i < 128; i++)
			line[i] = stamp_word(s->seed.seed + kb, i);
		ret = decant_write(w, line, sizeof(line));
	}
	return ret;
}

static int load_counts(struct stamp *s, struct decant_reader *r)
{
	int ret = decant_read(r, s->counts, s->pages * sizeof(*s->counts));
	uint64_t sum = 0, line[128];

	for (uint64_t page = 0; page < s->pages; page++)
		sum += s->counts[page];
	s->counter_gap = (int64_t)(s->counter - sum);
	for (uint64_t kb = 0; !ret && kb < s->state_kb; kb++) {
		ret = decant_read(r, line, sizeof(line));
		for (size_t i = 0; !ret && i < 128; i++)
			if (line[i] != stamp_word(s->seed.seed + kb, i))
				ret = -EBADMSG;
	}
	return ret;
}

static int on_load(void *opaque, struct decant_reader *r)
{
	struct stamp *s = opaque;
	uint64_t *field[11], magic = 0, pages = s->pages;
	int ret = decant_read(r, &magic, sizeof(magic));

	state_fields(s, field);
	for (size_t i = 0; !ret && i < 11; i++)
		ret = decant_read(r, field[i], sizeof(*field[i]));
	if (!ret)
		ret = decant_read(r, &s->first_bad, sizeof(s->first_bad));
	if (!ret && (magic != STATE_MAGIC || s->pages != pages)) {
		fprintf(stderr, "stamp %s: state of %" PRIu64 " pages for a guest of %" PRIu64 "\n",
			s->name, s->pages, pages);
		return -EINVAL;
	}
	if (!ret)
		ret = load_counts(s, r);
	s->arrivals++;
	s->counter_at_arrival = s->counter;
	s->arrival_gap_us = clock_us(CLOCK_REALTIME) - s->paused_wall_us;
	set(s->paused, true);
	return ret;
}

static void on_quit(void *opaque)
{
	struct stamp *s = opaque;

	set(s->quit, true);
	kill(getpid(), SIGTERM);
}

static void on_message(void *opaque, const char *text)
{
	struct stamp *s = opaque;

	fprintf(stderr, "stamp %s: %s\n", s->name, text);
}

/* --- the report --------------------------------------------------------------------------------- */

static uint64_t longest_stall(struct stamp *s)
{
	uint64_t longest = get(s->longest_stall_us), now = now_us();

	for (size_t i = 0; i < THREADS_MAX + VERIFIERS; i++) {
		uint64_t since = get(s->worker[i].since_us);

		if (since && now > since && now - since > longest)
			longest = now - since;
	}
	return longest;
}

static void print_first_bad(struct stamp *s, FILE *f)
{
	struct bad b;

	pthread_mutex_lock(&s->lock);
	b = s->first_bad;
	pthread_mutex_unlock(&s->lock);
	if (!get(s->bad_pages)) {
		fprintf(f, " \"first_bad\": null,\n");
		return;
	}
	fprintf(f,
		" \"first_bad\": {\"page\": %" PRIu64 ", \"block\": %" PRIu64
		", \"offset\": %" PRIu64 ", \"what\": \"%s\", \"expected\": {\"page\": %" PRIu64
		", \"count\": %" PRIu64 ", \"zero\": %s}, \"got\": {\"page\": %" PRIu64
		", \"count\": %" PRIu64 "}},\n",
		b.page, b.page / s->per_block, b.page % s->per_block * STAMP_PAGE, b.what, b.page,
		b.count, b.zero ? "true" : "false", b.got_page, b.got_count);
}

static void print_report(struct stamp *s, FILE *f, bool ended)
{
	fprintf(f, "{\"name\": \"%s\", \"pid\": %d, \"ended\": %s, \"pages\": %" PRIu64 ",\n",
		s->name, (int)getpid(), ended ? "true" : "false", s->pages);
	fprintf(f, " \"arrivals\": %" PRIu64 ", \"counter\": %" PRIu64 ",\n", get(s->arrivals),
		get(s->counter));
	fprintf(f,
		" \"counter_at_pause\": %" PRIu64 ", \"counter_at_arrival\": %" PRIu64
		", \"counter_gap\": %" PRId64 ", \"arrival_gap_us\": %" PRIu64 ",\n",
		get(s->counter_at_pause), get(s->counter_at_arrival), get(s->counter_gap),
		get(s->arrival_gap_us));
	fprintf(f,
		" \"verifications\": %" PRIu64 ", \"verifying\": %s, \"verified_pages\": %" PRIu64
		", \"bad_pages\": %" PRIu64 ",\n",
		get(s->verifications), get(s->verifying) || s->verify_wanted ? "true" : "false",
		get(s->verified_pages), get(s->bad_pages));
	print_first_bad(s, f);
	fprintf(f,
		" \"paused\": %s, \"pauses\": %" PRIu64 ", \"longest_pause_us\": %" PRIu64
		", \"longest_stall_us\": %" PRIu64 ",\n",
		get(s->paused) ? "true" : "false", get(s->pauses), get(s->longest_pause_us),
		longest_stall(s));
	fprintf(f,
		" \"fault_latency\": {\"faults\": %" PRIu64 ", \"p50\": %" PRIu64
		", \"p99\": %" PRIu64 ", \"max\": %" PRIu64 "}}\n",
		get(s->faults.n), latency_quantile(&s->faults, 0.5),
		latency_quantile(&s->faults, 0.99), get(s->faults.max_us));
}

static void write_report(struct stamp *s, bool ended)
{
	char temp[4096];
	FILE *f;

	if (!s->report)
		return;
	snprintf(temp, sizeof(temp), "%s.%d.tmp", s->report, (int)getpid());
	f = fopen(temp, "we");
	if (f)
		print_report(s, f, ended);
	if (!f || fclose(f) || rename(temp, s->report))
		fprintf(stderr, "stamp %s: %s: %s\n", s->name, s->report, strerror(errno));
}

/* --- set-up ------------------------------------------------------------------------------------- */

static unsigned int block_flags(const struct stamp *s, unsigned int i)
{
	unsigned int flags = s->dma ? 0 : DECANT_BLOCK_NO_DMA;

	if (!strcmp(s->kind, "anon") || (!strcmp(s->kind, "mixed") && i % 2))
		return flags | DECANT_BLOCK_ANON;
	if (!strcmp(s->kind, "huge"))
		return flags | DECANT_BLOCK_HUGE_2M;
	return flags | DECANT_BLOCK_MEMFD;
}

static int make_blocks(struct stamp *s)
{
	uint64_t unit = !strcmp(s->kind, "huge") ? 2u << 20 : STAMP_PAGE;
	uint64_t length = s->bytes / s->nblocks / unit * unit;
	char name[16];
	void *p;
	int ret;

	s->per_block = length / STAMP_PAGE;
	s->pages = s->per_block * s->nblocks;
	if (!s->pages)
		return -EINVAL;
	for (unsigned int i = 0; i < s->nblocks; i++) {
		snprintf(name, sizeof(name), "ram%u", i);
		ret = decant_block_create(s->guest, name, length, block_flags(s, i), &p);
		if (ret)
			return ret;
		s->block[i] = p;
	}
	s->counts = calloc(s->pages, sizeof(*s->counts));
	s->flags = calloc(s->pages, 1);
	return s->counts && s->flags ? 0 : -ENOMEM;
}

/* A page that is to be zero is not touched: so the memory has real holes, too. */
static void fill_blocks(struct stamp *s)
{
	for (uint64_t page = 0; page < s->pages; page++) {
		s->counts[page] = 1;
		s->flags[page] = PAGE_TOUCHED;
		if (!stamp_is_zero(&s->seed, page, 1))
			stamp_write(&s->seed, page_at(s, page), page, 1);
	}
	s->counter = s->pages;
}

static const char usage[] =
	"stamp: a guest that never stops writing and verifying its own memory\n"
	"  --name NAME        name of the guest (mandatory)\n"
	"  --attach PATH      the agent's socket (default: DECANT_ATTACH, "
	"/run/decant/source.attach)\n"
	"  --mb N, --bytes N  memory (default: 64 MiB)\n"
	"  --kind KIND        memfd, anon, huge, or mixed: memfd and anon in turn (default: "
	"memfd)\n"
	"  --blocks N         split the memory (default: 1)\n"
	"  --threads N        writing threads (default: 2; 0 writes nothing)\n"
	"  --writes N         pages a second that each thread writes (default: 0, full speed)\n"
	"  --seed N           (default: by chance) --zeros PERCENT of the writes (default: 10)\n"
	"  --report FILE      JSON, written anew several times a second\n"
	"  --state-kb N       ballast in the saved state\n"
	"  --paused           start paused  --dma  do not declare the blocks free of DMA\n"
	"Signals: USR1 verify every page; USR2 toggle the guest's own pause; HUP forget the\n"
	"longest stall so far.\n";

static const struct option options[] = {
	{"name", 1, NULL, 'n'},    {"attach", 1, NULL, 'a'}, {"mb", 1, NULL, 'm'},
	{"bytes", 1, NULL, 'b'},   {"kind", 1, NULL, 'k'},   {"blocks", 1, NULL, 'B'},
	{"threads", 1, NULL, 't'}, {"writes", 1, NULL, 'w'}, {"seed", 1, NULL, 's'},
	{"zeros", 1, NULL, 'z'},   {"report", 1, NULL, 'r'}, {"state-kb", 1, NULL, 'S'},
	{"paused", 0, NULL, 'p'},  {"dma", 0, NULL, 'd'},    {"help", 0, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static uint64_t number(const char *text, uint64_t max)
{
	char *end;
	uint64_t v;

	errno = 0;
	v = strtoull(text, &end, 0);
	if (errno || *end || end == text || *text == '-' || v > max) {
		fprintf(stderr, "stamp: %s: not a number up to %" PRIu64 "\n", text, max);
		exit(2);
	}
	return v;
}

static void take_option(struct stamp *s, int c)
{
	switch (c) {
	case 'n':
		s->name = optarg;
		break;
	case 'a':
		s->attach = optarg;
		break;
	case 'm':
		s->bytes = number(optarg, 1u << 26) << 20;
		break;
	case 'b':
		s->bytes = number(optarg, UINT64_C(1) << 46);
		break;
	case 'k':
		s->kind = optarg;
		break;
	case 'B':
		s->nblocks = (unsigned int)number(optarg, BLOCKS_MAX);
		break;
	case 't':
		s->threads = (unsigned int)number(optarg, THREADS_MAX);
		break;
	case 'w':
		s->writes = number(optarg, 1000000);
		break;
	case 's':
		s->seed.seed = number(optarg, UINT64_MAX);
		break;
	case 'z':
		s->seed.zeros = number(optarg, 100);
		break;
	case 'r':
		s->report = optarg;
		break;
	case 'S':
		s->state_kb = number(optarg, 1u << 17);
		break;
	case 'p':
		s->wish = true;
		break;
	case 'd':
		s->dma = true;
		break;
	case 'h':
		fputs(usage, stdout);
		exit(0);
	default:
		fputs(usage, stderr);
		exit(2);
	}
}

static bool kind_ok(const char *kind)
{
	return !strcmp(kind, "memfd") || !strcmp(kind, "anon") || !strcmp(kind, "huge") ||
	       !strcmp(kind, "mixed");
}

static void take_options(struct stamp *s, int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
		take_option(s, c);
	if (optind < argc || !s->name || !s->nblocks || !kind_ok(s->kind)) {
		fputs(usage, stderr);
		exit(2);
	}
}

/* Until it is told to quit. */
static void live(struct stamp *s, const sigset_t *signals)
{
	const struct timespec tick = {.tv_nsec = REPORT_MS * 1000000};

	while (!get(s->quit)) {
		switch (sigtimedwait(signals, NULL, &tick)) {
		case SIGUSR1:
			s->verify_wanted = true;
			break;
		case SIGUSR2:
			s->wish = !s->wish;
			decant_guest_set_paused(s->guest, s->wish);
			break;
		case SIGHUP:
			set(s->longest_stall_us, 0);
			break;
		case SIGTERM:
		case SIGINT:
			set(s->quit, true);
			break;
		}
		if (!get(s->paused))
			start_verification(s);
		write_report(s, get(s->quit));
	}
}

static int start(struct stamp *s)
{
	char why[256];
	int ret;

	if (!decant_guest_incoming(s->guest)) {
		fill_blocks(s);
		s->paused = s->wish;
		decant_guest_set_paused(s->guest, s->wish);
	}
	ret = decant_guest_start(s->guest);
	if (ret < 0) {
		decant_guest_error(s->guest, why, sizeof(why));
		fprintf(stderr, "stamp %s: %s: %s\n", s->name, strerror(-ret), why);
		return ret;
	}
	if (ret != DECANT_STARTED) {
		s->wish = ret == DECANT_ARRIVED_PAUSED;
		s->verify_wanted = true;
	}
	for (unsigned int i = 0; i < s->threads; i++)
		if (start_worker(s, i, write_main))
			return -EAGAIN;
	return 0;
}

int main(int argc, char **argv)
{
	static struct stamp s = {
		.kind = "memfd",
		.bytes = 64u << 20,
		.nblocks = 1,
		.threads = 2,
		.seed = {.zeros = 10},
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.resumed = PTHREAD_COND_INITIALIZER,
	};
	struct decant_guest_config config = {
		.flags = DECANT_GUEST_USER_FAULTS,
		.callbacks = {on_pause, on_resume, on_save, on_load, on_quit, on_message},
		.opaque = &s,
	};
	sigset_t signals;
	int ret;

	s.seed.seed = stamp_mix(clock_us(CLOCK_REALTIME) ^ (uint64_t)getpid() << 32);
	take_options(&s, argc, argv);
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGUSR2);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	config.name = s.name;
	config.attach = s.attach;
	s.guest = decant_guest_new(&config);
	ret = s.guest ? make_blocks(&s) : -errno;
	if (ret) {
		fprintf(stderr, "stamp %s: cannot be a guest: %s\n", s.name, strerror(-ret));
		return 1;
	}
	ret = start(&s);
	if (ret < 0)
		return ret == -ECANCELED ? 0 : 1;
	live(&s, &signals);
	return 0;
}
