/* SPDX-License-Identifier: Apache-2.0 */
#include "pages/pages.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "util/cleanup.h"

#define PAGES_VERSION  1
#define PAGES_HEADER   4096
#define PAGES_PER_WORD 32
/* The lower bit of each of the 32 pairs of a word. */
#define LOW_BITS UINT64_C(0x5555555555555555)

static const char pages_magic[8] = {'D', 'C', 'N', 'T', 'P', 'A', 'G', 'E'};

/**
 * struct pages_header - first page of the file; native byte order, for it never leaves the host
 * @magic:	written last, so that a file whose creation was cut short is known
 * @version:	PAGES_VERSION
 * @header:	PAGES_HEADER
 * @what:	what the file is about
 */
struct pages_header {
	char magic[8];
	uint32_t version;
	uint32_t header;
	struct pages_what what;
};

static_assert(sizeof(struct pages_header) <= PAGES_HEADER,
	      "the header fits in front of the states");

/**
 * struct pages - one mapped file
 * @npages:	pages of the block
 * @map:	mapping of the whole file
 * @len:	its bytes
 * @words:	states, 32 pages a word, the first page in the lowest bits; unused pairs are 0
 * @count:	pages in each state; [PAGES_MISSING] is the number that are *not* missing. Counted
 *		anew when the file is opened, for a SIGKILL may fall between a state and its count.
 *		Signed: an addition may be seen after the subtraction that another thread makes for
 *		the same page
 * @fd:		holds the lock
 */
struct pages {
	uint64_t npages;
	void *map;
	size_t len;
	_Atomic uint64_t *words;
	_Atomic int64_t count[PAGES_STATES];
	int fd;
};

static uint64_t nwords(uint64_t npages)
{
	return (npages + PAGES_PER_WORD - 1) / PAGES_PER_WORD;
}

static uint64_t file_len(uint64_t npages)
{
	return PAGES_HEADER + nwords(npages) * sizeof(uint64_t);
}

/* Lower bits of the pairs that hold @state. */
static uint64_t pairs_in(uint64_t word, enum pages_state state)
{
	uint64_t low = state & 1 ? word : ~word;
	uint64_t high = state & 2 ? word >> 1 : ~(word >> 1);

	return low & high & LOW_BITS;
}

/* Lower bits of the pairs of the pages [from, from + n) of a word. */
static uint64_t pairs_mask(unsigned int from, unsigned int n)
{
	uint64_t all = n >= PAGES_PER_WORD ? UINT64_MAX : (UINT64_C(1) << 2 * n) - 1;

	return (all << 2 * from) & LOW_BITS;
}

/* Spread a state over the pairs whose lower bits are given. */
static uint64_t pairs_fill(uint64_t pairs, enum pages_state state)
{
	return pairs * (uint64_t)state;
}

static int check_what(const struct pages_what *what, struct error *err)
{
	if (what->npages == 0 || what->npages > PAGES_MAX)
		return error_set(err, -EINVAL, "bad-block",
				 "a block of %llu pages is not supported",
				 (unsigned long long)what->npages);
	if (what->page_size < 4096 || what->page_size & (what->page_size - 1))
		return error_set(err, -EINVAL, "bad-block", "page size %llu is not supported",
				 (unsigned long long)what->page_size);
	return 0;
}

/* Lock and map an open file of the right length. Takes @fd only on success. */
static int take(struct pages **ret, int fd, const char *path, const struct pages_what *what,
		struct error *err)
{
	CLEANUP_FREE struct pages *p = calloc(1, sizeof(*p));

	if (!p)
		return error_set(err, -ENOMEM, NULL, "%s: out of memory", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return error_set(err, errno == EWOULDBLOCK ? -EBUSY : -errno, NULL, "%s: %s", path,
				 errno == EWOULDBLOCK ? "another process has it open"
						      : strerror(errno));
	p->npages = what->npages;
	p->len = file_len(what->npages);
	p->map = mmap(NULL, p->len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p->map == MAP_FAILED)
		return error_set(err, -errno, NULL, "%s: cannot be mapped: %s", path,
				 strerror(errno));
	p->words = (_Atomic uint64_t *)((char *)p->map + PAGES_HEADER);
	p->fd = fd;
	*ret = steal_ptr(&p);
	return 0;
}

static int reserve(int fd, const char *path, uint64_t len, struct error *err)
{
	int r = posix_fallocate(fd, 0, (off_t)len);

	if (r)
		return error_set(err, -r, NULL, "%s: no room for %llu bytes of page states: %s",
				 path, (unsigned long long)len, strerror(r));
	return 0;
}

static int create_in(int fd, struct pages **ret, const char *path, const struct pages_what *what,
		     struct error *err)
{
	struct pages_header *h;
	int r = reserve(fd, path, file_len(what->npages), err);

	if (r < 0)
		return r;
	r = take(ret, fd, path, what, err);
	if (r < 0)
		return r;
	h = (*ret)->map;
	h->version = PAGES_VERSION;
	h->header = PAGES_HEADER;
	h->what = *what;
	/* Order against our own death is all that is needed, and the compiler's to break. */
	atomic_signal_fence(memory_order_release);
	memcpy(h->magic, pages_magic, sizeof(h->magic));
	return 0;
}

int pages_create(struct pages **ret, const char *path, const struct pages_what *what,
		 struct error *err)
{
	int fd, r = check_what(what, err);

	if (r < 0)
		return r;
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_set(err, -errno, NULL, "%s: cannot be created: %s", path,
				 strerror(errno));
	r = create_in(fd, ret, path, what, err);
	if (r < 0) {
		close(fd);
		unlink(path);
	}
	return r;
}

/* Why a mapped file is not the one meant, or NULL. */
static const char *header_fault(const struct pages *p, const struct pages_what *what)
{
	const struct pages_header *h = p->map;

	if (memcmp(h->magic, pages_magic, sizeof(h->magic)) != 0)
		return "is not a file of page states, or was never finished";
	if (h->version != PAGES_VERSION || h->header != PAGES_HEADER)
		return "was written by another version";
	if (h->what.npages != what->npages || h->what.page_size != what->page_size)
		return "is about a block of another size";
	if (memcmp(h->what.id, what->id, sizeof(h->what.id)) != 0)
		return "is about another block";
	return NULL;
}

/* Count every state. Return: false if there are states behind the last page */
static bool recount(struct pages *p)
{
	uint64_t n = nwords(p->npages);
	unsigned int tail = (unsigned int)(p->npages % PAGES_PER_WORD);

	for (uint64_t i = 0; i < n; i++) {
		uint64_t w = atomic_load_explicit(&p->words[i], memory_order_relaxed);

		for (int s = PAGES_DATA; s < PAGES_STATES; s++)
			p->count[s] += __builtin_popcountll(pairs_in(w, (enum pages_state)s));
		p->count[PAGES_MISSING] += __builtin_popcountll((w | w >> 1) & LOW_BITS);
	}
	return !tail || atomic_load(&p->words[n - 1]) >> 2 * tail == 0;
}

static int check_file(int fd, const char *path, const struct pages_what *what, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_set(err, -errno, NULL, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EBADMSG, "bad-pages", "%s: is not a regular file", path);
	if ((uint64_t)st.st_size != file_len(what->npages))
		return error_set(err, -EBADMSG, "bad-pages", "%s: has %lld bytes instead of %llu",
				 path, (long long)st.st_size,
				 (unsigned long long)file_len(what->npages));
	/* A file that was copied may have holes again, which could not be filled on a full disk. */
	return reserve(fd, path, (uint64_t)st.st_size, err);
}

int pages_open(struct pages **ret, const char *path, const struct pages_what *what,
	       struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	struct pages *p;
	const char *fault;
	int r = check_what(what, err);

	if (r < 0)
		return r;
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return error_set(err, -errno, NULL, "%s: cannot be opened: %s", path,
				 strerror(errno));
	r = check_file(fd, path, what, err);
	if (r < 0)
		return r;
	r = take(&p, fd, path, what, err);
	if (r < 0)
		return r;
	steal_fd(&fd);
	fault = header_fault(p, what);
	if (!fault && !recount(p))
		fault = "is damaged: it has states behind the last page";
	if (fault) {
		pages_close(p);
		return error_set(err, -EBADMSG, "bad-pages", "%s: %s", path, fault);
	}
	*ret = p;
	return 0;
}

void pages_close(struct pages *p)
{
	if (!p)
		return;
	munmap(p->map, p->len);
	close(p->fd);
	free(p);
}

static uint64_t word_at(const struct pages *p, uint64_t i)
{
	return atomic_load_explicit(&p->words[i], memory_order_acquire);
}

enum pages_state pages_get(const struct pages *p, uint64_t page)
{
	assert(page < p->npages);
	return (enum pages_state)(word_at(p, page / PAGES_PER_WORD) >> 2 * (page % PAGES_PER_WORD) &
				  3);
}

/* Give the chosen pairs of one word a state. Return: its value before */
static uint64_t word_set(_Atomic uint64_t *word, uint64_t pairs, enum pages_state state,
			 bool only_missing, uint64_t *ret_changed)
{
	uint64_t old = atomic_load_explicit(word, memory_order_relaxed), chosen, new;

	do {
		chosen = only_missing ? pairs & pairs_in(old, PAGES_MISSING) : pairs;
		new = (old & ~(chosen * 3)) | pairs_fill(chosen, state);
	} while (!atomic_compare_exchange_weak_explicit(word, &old, new, memory_order_acq_rel,
							memory_order_relaxed));
	*ret_changed = chosen;
	return old;
}

/* What a change of one range does to the counts: left[] of each state, and how many pages came. */
struct tally {
	uint64_t left[PAGES_STATES];
	uint64_t came;
};

static void count_add(struct pages *p, int slot, int64_t delta)
{
	if (delta)
		atomic_fetch_add_explicit(&p->count[slot], delta, memory_order_release);
}

/* Received pages have one counter, so that a page that turns from data to zero is never seen twice.
 */
static void tally_commit(struct pages *p, const struct tally *t, enum pages_state state)
{
	int64_t received = -(int64_t)(t->came - t->left[PAGES_MISSING]);

	for (int s = PAGES_DATA; s < PAGES_STATES; s++)
		count_add(p, s, (s == (int)state ? (int64_t)t->came : 0) - (int64_t)t->left[s]);
	if (state != PAGES_MISSING)
		received += (int64_t)t->came;
	count_add(p, PAGES_MISSING, received);
}

static struct tally range_set(struct pages *p, uint64_t first, uint64_t n, enum pages_state state,
			      bool only_missing)
{
	struct tally t = {};

	assert(first <= p->npages && n <= p->npages - first);
	while (n) {
		unsigned int from = (unsigned int)(first % PAGES_PER_WORD);
		unsigned int some = (unsigned int)MIN(n, (uint64_t)(PAGES_PER_WORD - from));
		uint64_t changed, old;

		old = word_set(&p->words[first / PAGES_PER_WORD], pairs_mask(from, some), state,
			       only_missing, &changed);
		for (int s = 0; s < PAGES_STATES; s++)
			t.left[s] += (uint64_t)__builtin_popcountll(
				pairs_in(old, (enum pages_state)s) & changed);
		t.came += (uint64_t)__builtin_popcountll(changed);
		first += some;
		n -= some;
	}
	tally_commit(p, &t, state);
	return t;
}

uint64_t pages_mark(struct pages *p, uint64_t first, uint64_t n, enum pages_state state)
{
	assert(state != PAGES_MISSING);
	return range_set(p, first, n, state, true).came;
}

uint64_t pages_set(struct pages *p, uint64_t first, uint64_t n, enum pages_state state)
{
	struct tally t = range_set(p, first, n, state, false);

	return t.came - t.left[PAGES_MISSING];
}

/* First page at or after @from, below @end, that is in @state (@is) or is not. @end if none. */
static uint64_t find(const struct pages *p, uint64_t from, uint64_t end, enum pages_state state,
		     bool is)
{
	while (from < end) {
		unsigned int bit = (unsigned int)(from % PAGES_PER_WORD);
		uint64_t pairs = pairs_in(word_at(p, from / PAGES_PER_WORD), state);

		if (!is)
			pairs = ~pairs & LOW_BITS;
		pairs &= pairs_mask(bit, PAGES_PER_WORD - bit);
		if (pairs) {
			from += (unsigned int)__builtin_ctzll(pairs) / 2 - bit;
			return MIN(from, end);
		}
		from += PAGES_PER_WORD - bit;
	}
	return end;
}

uint64_t pages_run(const struct pages *p, uint64_t first, uint64_t max, enum pages_state *ret_state)
{
	enum pages_state state = pages_get(p, first);
	uint64_t end = first + MIN(max, p->npages - first);

	*ret_state = state;
	/* The first page has just been looked at: if it changes meanwhile, the run still has it. */
	return first + 1 >= end ? 1 : find(p, first + 1, end, state, false) - first;
}

uint64_t pages_next_missing(const struct pages *p, uint64_t from)
{
	return find(p, from, p->npages, PAGES_MISSING, true);
}

static uint64_t count_of(const struct pages *p, int slot)
{
	int64_t n = atomic_load_explicit(&p->count[slot], memory_order_acquire);

	return n < 0 ? 0 : MIN((uint64_t)n, p->npages);
}

uint64_t pages_count(const struct pages *p, enum pages_state state)
{
	return state == PAGES_MISSING ? p->npages - pages_received(p) : count_of(p, (int)state);
}

uint64_t pages_received(const struct pages *p)
{
	return count_of(p, PAGES_MISSING);
}
