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
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guests/stamp/stamp.h"

#define STATE_MAGIC 0x706d617473u /* "stamp" */
#define REPORT_MS   100

/* --- callbacks ---------------------------------------------------------------------------------- */

static int on_pause(void *opaque, int deadline_ms)
{
	struct stamp *s = opaque;

	(void)deadline_ms; /* a thread that waits for a page cannot be hurried */
	stamp_set(s->pause_began_us, stamp_now_us());
	stamp_set(s->paused, true);
	work_wait_paused(s);
	stamp_add(s->pauses, 1);
	stamp_set(s->counter_at_pause, stamp_get(s->counter));
	stamp_set(s->paused_wall_us, stamp_clock_us(CLOCK_REALTIME));
	return 0;
}

static void on_resume(void *opaque)
{
	struct stamp *s = opaque;

	if (s->pause_began_us)
		stamp_raise(&s->longest_pause_us, stamp_now_us() - s->pause_began_us);
	pthread_mutex_lock(&s->lock);
	stamp_set(s->paused, false);
	pthread_cond_broadcast(&s->resumed);
	pthread_mutex_unlock(&s->lock);
}

/* The numbers that travel, in this order. */
static void state_fields(struct stamp *s, uint64_t *field[static 12])
{
	uint64_t *all[12] = {&s->seed.seed,        &s->seed.zeros,       &s->pages,
			     &s->counter,          &s->arrivals,         &s->pauses,
			     &s->bad_pages,        &s->counter_at_pause, &s->paused_wall_us,
			     &s->longest_stall_us, &s->state_kb,         &s->used};

	memcpy(field, all, sizeof(all));
}

static int on_save(void *opaque, struct decant_writer *w)
{
	struct stamp *s = opaque;
	uint64_t *field[12], magic = STATE_MAGIC, line[128];
	int ret = decant_write(w, &magic, sizeof(magic));

	state_fields(s, field);
	for (size_t i = 0; !ret && i < 12; i++)
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
	uint64_t *field[12], magic = 0, pages = s->pages, now = stamp_clock_us(CLOCK_REALTIME);
	int ret = decant_read(r, &magic, sizeof(magic));

	state_fields(s, field);
	for (size_t i = 0; !ret && i < 12; i++)
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
	/* Of two hosts, or of a clock that was set: it may be no time at all. */
	if (now > s->paused_wall_us)
		s->arrival_gap_us = now - s->paused_wall_us;
	stamp_set(s->paused, true);
	return ret;
}

static void on_quit(void *opaque)
{
	struct stamp *s = opaque;

	stamp_set(s->quit, true);
	kill(getpid(), SIGTERM);
}

static void on_message(void *opaque, const char *text)
{
	struct stamp *s = opaque;

	fprintf(stderr, "stamp %s: %s\n", s->name, text);
}
/* --- set-up ------------------------------------------------------------------------------------- */

static unsigned int block_flags(const struct stamp *s, unsigned int i)
{
	unsigned int flags = s->dma ? 0 : DECANT_BLOCK_NO_DMA;

	if (s->rom && i == s->nblocks - 1)
		flags |= DECANT_BLOCK_READONLY;

	if (!strcmp(s->kind, "anon") || (!strcmp(s->kind, "mixed") && i % 2))
		return flags | DECANT_BLOCK_ANON;
	if (!strcmp(s->kind, "huge"))
		return flags | DECANT_BLOCK_HUGE_2M;
	if (!strcmp(s->kind, "gigantic"))
		return flags | DECANT_BLOCK_HUGE_1G;
	return flags | DECANT_BLOCK_MEMFD;
}

/* The last block is a ROM: filled, verified, and never written to again. */
static uint64_t writable(const struct stamp *s)
{
	return s->rom ? s->pages - s->per_block : s->grow ? s->pages / 2 : s->pages;
}

static int make_blocks(struct stamp *s)
{
	/* Of a page of 1 GiB it uses as much as it was told to. */
	uint64_t unit = !strcmp(s->kind, "huge") ? 2u << 20 : STAMP_PAGE;
	uint64_t length = s->bytes / s->nblocks / unit * unit;
	char name[16];
	void *p;
	int ret;

	s->per_block = length / STAMP_PAGE;
	s->pages = s->per_block * s->nblocks;
	/* A block that grows is made as large as it can become, and its tail is left alone. */
	s->used = writable(s);
	if (!s->pages)
		return -EINVAL;
	for (unsigned int i = 0; i < s->nblocks; i++) {
		snprintf(name, sizeof(name), "ram%u", i);
		ret = decant_block_create(s->guest, name, length, block_flags(s, i), &p);
		if (ret)
			return ret;
		s->block[i] = p;
		if (s->thp && madvise(p, length, MADV_HUGEPAGE))
			return -errno;
	}
	s->counts = calloc(s->pages, sizeof(*s->counts));
	s->flags = calloc(s->pages, 1);
	return s->counts && s->flags ? 0 : -ENOMEM;
}

/* A page that is to be zero is not touched: so the memory has real holes, too. */
static void fill_blocks(struct stamp *s)
{
	uint64_t filled = s->rom ? s->pages : s->used;

	for (uint64_t page = 0; page < filled; page++) {
		s->counts[page] = 1;
		s->flags[page] = STAMP_TOUCHED;
		if (!stamp_is_zero(&s->seed, page, 1))
			stamp_write(&s->seed, work_page(s, page), page, 1);
	}
	s->counter = filled;
}

static const char usage[] =
	"stamp: a guest that never stops writing and verifying its own memory\n"
	"  --name NAME        name of the guest (mandatory)\n"
	"  --attach PATH      the agent's socket (default: DECANT_ATTACH, "
	"/run/decant/source.attach)\n"
	"  --mb N, --bytes N  memory (default: 64 MiB)\n"
	"  --kind KIND        memfd, anon, huge, gigantic, or mixed: memfd and anon in turn "
	"(default: memfd)\n"
	"  --blocks N         split the memory (default: 1)\n"
	"  --threads N        writing threads (default: 2; 0 writes nothing)\n"
	"  --writes N         pages a second that each thread writes (default: 0, full speed)\n"
	"  --seed N           (default: by chance) --zeros PERCENT of the writes (default: 10)\n"
	"  --report FILE      JSON, written anew several times a second\n"
	"  --state-kb N       ballast in the saved state\n"
	"  --paused           start paused  --dma  do not declare the blocks free of DMA\n"
	"  --uuid BYTE        who it is, also when it is started again: 16 times this byte\n"
	"  --thp              advise transparent huge pages\n"
	"  --rom              the last block is read-only\n"
	"  --grow             use half of the memory until SIGWINCH\n"
	"Signals: USR1 verify every page; USR2 toggle the guest's own pause; HUP forget the\n"
	"longest stall so far; WINCH use all of the memory.\n";

static const struct option options[] = {
	{"name", 1, NULL, 'n'},    {"attach", 1, NULL, 'a'}, {"mb", 1, NULL, 'm'},
	{"bytes", 1, NULL, 'b'},   {"kind", 1, NULL, 'k'},   {"blocks", 1, NULL, 'B'},
	{"threads", 1, NULL, 't'}, {"writes", 1, NULL, 'w'}, {"seed", 1, NULL, 's'},
	{"zeros", 1, NULL, 'z'},   {"report", 1, NULL, 'r'}, {"state-kb", 1, NULL, 'S'},
	{"rom", 0, NULL, 'R'},     {"grow", 0, NULL, 'g'},   {"paused", 0, NULL, 'p'},
	{"thp", 0, NULL, 'T'},     {"dma", 0, NULL, 'd'},    {"uuid", 1, NULL, 'u'},
	{"help", 0, NULL, 'h'},    {NULL, 0, NULL, 0},
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
		s->nblocks = (unsigned int)number(optarg, STAMP_BLOCKS_MAX);
		break;
	case 't':
		s->threads = (unsigned int)number(optarg, STAMP_THREADS_MAX);
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
	case 'R':
		s->rom = true;
		break;
	case 'g':
		s->grow = true;
		break;
	case 'T':
		s->thp = true;
		break;
	case 'd':
		s->dma = true;
		break;
	case 'u':
		memset(s->uuid, (int)number(optarg, 255), sizeof(s->uuid));
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
	       !strcmp(kind, "gigantic") || !strcmp(kind, "mixed");
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

	while (!stamp_get(s->quit)) {
		switch (sigtimedwait(signals, NULL, &tick)) {
		case SIGUSR1:
			s->verify_wanted = true;
			break;
		case SIGUSR2:
			s->wish = !s->wish;
			decant_guest_set_paused(s->guest, s->wish);
			break;
		case SIGWINCH:
			stamp_set(s->used, s->pages);
			break;
		case SIGHUP:
			stamp_set(s->longest_stall_us, 0);
			break;
		case SIGTERM:
		case SIGINT:
			stamp_set(s->quit, true);
			break;
		}
		if (!stamp_get(s->paused))
			work_verify(s);
		report_write(s, stamp_get(s->quit));
	}
}

static int start(struct stamp *s)
{
	char why[256];
	int ret;

	if (!decant_guest_incoming(s->guest)) {
		fill_blocks(s);
		s->paused = s->wish;
		s->counter_at_pause = s->counter;
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
		if (work_start_writer(s, i))
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

	s.seed.seed = stamp_mix(stamp_clock_us(CLOCK_REALTIME) ^ (uint64_t)getpid() << 32);
	take_options(&s, argc, argv);
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGUSR2);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGWINCH);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	config.name = s.name;
	config.attach = s.attach;
	config.uuid = s.uuid[0] ? s.uuid : NULL;
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
