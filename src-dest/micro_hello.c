/* SPDX-License-Identifier: Apache-2.0 */
#include "micro_hello.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "util/cleanup.h"
#include "util/fdpass.h"

#define CODE "bad-handshake"
/* Reads: each looks at the whole text again. */
#define PIECES_MAX 1024
/* The largest address that a process can have, with five levels of page tables. */
#define ADDR_MAX (UINT64_C(1) << 56)
#define PAGE     UINT64_C(4096)
#define HUGE     (UINT64_C(2) << 20)

/* --- the array --- */

/* Return: 0, -ENOENT without such a member, or -EBADMSG with @err filled */
static int number(const json_t *o, unsigned int i, const char *key, uint64_t *ret,
		  struct error *err)
{
	const json_t *v = json_object_get(o, key);

	if (!v)
		return -ENOENT;
	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return error_set(err, -EBADMSG, CODE,
				 "region %u: %s is not a whole number that fits", i, key);
	*ret = (uint64_t)json_integer_value(v);
	return 0;
}

static int needed(const json_t *o, unsigned int i, const char *key, uint64_t *ret,
		  struct error *err)
{
	int r = number(o, i, key, ret, err);

	return r == -ENOENT ? error_set(err, -EBADMSG, CODE, "region %u: no %s", i, key) : r;
}

/* The older name is deprecated and, despite it, holds bytes, too. */
static int read_page_size(const json_t *o, unsigned int i, uint64_t *ret, struct error *err)
{
	uint64_t older = 0, newer = 0;
	int have_newer = number(o, i, "page_size", &newer, err);
	int have_older = number(o, i, "page_size_kib", &older, err);

	if (have_newer == -EBADMSG || have_older == -EBADMSG)
		return -EBADMSG;
	if (have_newer && have_older)
		return error_set(err, -EBADMSG, CODE, "region %u: no page_size", i);
	if (!have_newer && !have_older && newer != older)
		return error_set(err, -EBADMSG, CODE,
				 "region %u: page_size %" PRIu64 " and page_size_kib %" PRIu64
				 ", which holds bytes as well, do not agree",
				 i, newer, older);
	*ret = have_newer ? older : newer;
	if (*ret == PAGE || *ret == HUGE)
		return 0;
	return error_set(err, -EBADMSG, "page-size",
			 "region %u: pages of %" PRIu64 " bytes are not supported: 4096 and "
			 "2097152 are",
			 i, *ret);
}

static int check_region(const struct micro_region *g, unsigned int i, uint64_t memory,
			struct error *err)
{
	if (!g->size)
		return error_set(err, -EBADMSG, CODE, "region %u: has no size", i);
	if ((g->addr | g->size | g->offset) & (g->page_size - 1))
		return error_set(err, -EBADMSG, CODE,
				 "region %u: address 0x%" PRIx64 ", size %" PRIu64
				 " and offset %" PRIu64 " are not all multiples of its pages of "
				 "%" PRIu64 " bytes",
				 i, g->addr, g->size, g->offset, g->page_size);
	if (!g->addr || g->addr > ADDR_MAX || g->size > ADDR_MAX - g->addr)
		return error_set(err, -EBADMSG, CODE,
				 "region %u: no process has %" PRIu64 " bytes at 0x%" PRIx64, i,
				 g->size, g->addr);
	if (g->size > memory || g->offset > memory - g->size)
		return error_set(err, -EBADMSG, CODE,
				 "region %u: %" PRIu64 " bytes at offset %" PRIu64
				 " are beyond the image's %" PRIu64,
				 i, g->size, g->offset, memory);
	return 0;
}

static bool meet(uint64_t a, uint64_t b, uint64_t a_size, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

static int check_apart(const struct micro_region *all, unsigned int i, struct error *err)
{
	const struct micro_region *g = &all[i];

	for (unsigned int j = 0; j < i; j++) {
		if (meet(g->addr, all[j].addr, g->size, all[j].size))
			return error_set(err, -EBADMSG, CODE,
					 "regions %u and %u overlap at address 0x%" PRIx64, j, i,
					 MAX(g->addr, all[j].addr));
		if (meet(g->offset, all[j].offset, g->size, all[j].size))
			return error_set(
				err, -EBADMSG, CODE,
				"regions %u and %u overlap in the image at offset %" PRIu64, j, i,
				MAX(g->offset, all[j].offset));
	}
	return 0;
}

static int read_region(const json_t *o, unsigned int i, uint64_t memory, struct micro_region *all,
		       struct error *err)
{
	struct micro_region *g = &all[i];
	int r;

	if (!json_is_object(o))
		return error_set(err, -EBADMSG, CODE, "region %u is no object", i);
	r = needed(o, i, "base_host_virt_addr", &g->addr, err);
	if (!r)
		r = needed(o, i, "size", &g->size, err);
	if (!r)
		r = needed(o, i, "offset", &g->offset, err);
	if (!r)
		r = read_page_size(o, i, &g->page_size, err);
	if (!r)
		r = check_region(g, i, memory, err);
	return r ? r : check_apart(all, i, err);
}

static int read_regions(const json_t *array, uint64_t memory, struct micro_region *ret,
			unsigned int *ret_n, struct error *err)
{
	size_t n = json_array_size(array);
	int r = 0;

	if (!json_is_array(array) || !n)
		return error_set(err, -EBADMSG, CODE, "the message is no array of regions");
	if (n > MICRO_REGIONS_MAX)
		return error_set(err, -EBADMSG, CODE, "%zu regions: at most %u are supported", n,
				 MICRO_REGIONS_MAX);
	for (unsigned int i = 0; !r && i < n; i++)
		r = read_region(json_array_get(array, i), i, memory, ret, err);
	if (!r)
		*ret_n = (unsigned int)n;
	return r;
}

int micro_hello_parse(const char *text, size_t n, uint64_t memory, struct micro_region *ret,
		      unsigned int *ret_n, struct error *err)
{
	json_error_t why;
	json_t *array = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &why);
	int r;

	if (!array)
		return error_set(err, -EBADMSG, CODE, "the message is not JSON: %s, at byte %d",
				 why.text, why.position);
	r = read_regions(array, memory, ret, ret_n, err);
	json_decref(array);
	return r;
}

/* --- the message --- */

void micro_hello_init(struct micro_hello *h)
{
	memset(h, 0, sizeof(*h));
	h->uffd = -1;
}

void micro_hello_clear(struct micro_hello *h)
{
	if (h->uffd >= 0)
		close(h->uffd);
	h->uffd = -1;
}

/* Has the array come to its end? Return: 0, or -EBADMSG: it never will */
static int look_for_end(struct micro_hello *h, struct error *err)
{
	json_error_t why;
	json_t *array;

	if (h->array || !h->len)
		return 0;
	array = json_loadb(h->text, h->len, JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &why);
	if (array) {
		h->array = (size_t)why.position;
		json_decref(array);
		return 0;
	}
	if (json_error_code(&why) == json_error_premature_end_of_input)
		return 0;
	return error_set(err, -EBADMSG, CODE, "the message is not JSON: %s, at byte %d", why.text,
			 why.position);
}

/*
 * A descriptor that comes late comes with something: the array once more, or a byte or two that
 * mean nothing.
 */
static int check_rest(const struct micro_hello *h, struct error *err)
{
	const char *rest = h->text + h->array;
	size_t n = h->len - h->array;

	if (!h->array || n <= 2 || strspn(rest, " \t\r\n") == n)
		return 0;
	if (!memcmp(rest, h->text, MIN(n, h->array)) && n <= h->array)
		return 0;
	return error_set(err, -EBADMSG, CODE, "%zu bytes follow the array", n);
}

/* A userfaultfd that has shaken hands: poll(2) gives an error on one that has not, or that blocks. */
static int check_uffd(int fd, struct error *err)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char path[32], is[64] = "";
	int flags = fcntl(fd, F_GETFL);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (readlink(path, is, sizeof(is) - 1) < 0 || strcmp(is, "anon_inode:[userfaultfd]") != 0)
		return error_set(err, -EBADMSG, CODE, "the descriptor is no userfaultfd but %.40s",
				 is);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return error_set(err, -errno, NULL, "the userfaultfd: %s", strerror(errno));
	if (poll(&p, 1, 0) < 0 || p.revents & (POLLERR | POLLNVAL))
		return error_set(err, -EBADMSG, CODE,
				 "the userfaultfd has not been set up (UFFDIO_API)");
	return 0;
}

/* The first is kept, even if it should not have come so: it may be the last copy. Others are closed. */
static int take_fds(struct micro_hello *h, struct fdpass *came, struct error *err)
{
	bool had = h->uffd >= 0, many = came->cut || came->n + had > 1;

	if (!had && came->n) {
		h->uffd = came->fds[0];
		came->fds[0] = came->fds[--came->n];
	}
	if (many) {
		fdpass_close(came);
		return error_set(err, -EBADMSG, CODE, "more than one descriptor came");
	}
	return h->uffd >= 0 ? check_uffd(h->uffd, err) : 0;
}

/* Return: bytes read, 0 at the end, -EAGAIN, or -errno with @err filled */
static ssize_t read_some(struct micro_hello *h, int fd, struct error *err)
{
	size_t room = MICRO_HELLO_MAX - h->len;
	struct fdpass came;
	ssize_t n;
	int r;

	if (++h->pieces > PIECES_MAX)
		return error_set(err, -E2BIG, CODE, "the message comes in more than %u pieces",
				 PIECES_MAX);
	if (!room)
		return error_set(err, -E2BIG, CODE, "the message is longer than %u bytes",
				 MICRO_HELLO_MAX);
	n = fdpass_recv(fd, h->text + h->len, room, &came);
	if (n == -EAGAIN)
		return n;
	if (n < 0)
		return error_set(err, (int)n, "lost", "the connection: %s", strerror((int)-n));
	r = take_fds(h, &came, err);
	h->len += (size_t)n;
	return r ? r : n;
}

static int missing(const struct micro_hello *h, int r, const char *when, struct error *err)
{
	const char *what = !h->len ? "nothing" : !h->array ? "no complete array" : "no userfaultfd";

	return error_set(err, r, h->array ? "no-descriptor" : CODE, "%s has come %s", what, when);
}

int micro_hello_late(const struct micro_hello *h, unsigned int seconds, struct error *err)
{
	char when[32];

	snprintf(when, sizeof(when), "in %u s", seconds);
	return missing(h, -ETIMEDOUT, when, err);
}

int micro_hello_read(struct micro_hello *h, int fd, struct error *err)
{
	ssize_t n;
	int r;

	while ((n = read_some(h, fd, err)) > 0) {
		r = look_for_end(h, err);
		if (!r)
			r = check_rest(h, err);
		if (r)
			return r;
	}
	if (n < 0 && n != -EAGAIN)
		return (int)n;
	if (h->array && h->uffd >= 0)
		return 1;
	return n ? 0 : missing(h, -EBADMSG, "before the connection ended", err);
}
