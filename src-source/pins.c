/* SPDX-License-Identifier: Apache-2.0 */
#include "pins.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/cleanup.h"

/** TEXT_MAX - longest fdinfo that is read: PINS_MAX lines */
#define TEXT_MAX (64u << 20)

#define RING_NAME "anon_inode:[io_uring]"

void pins_free(struct pins *p)
{
	free(p->ranges);
	*p = (struct pins){0};
}

bool pins_pages(const struct pins_range *range, const struct guest_block *b, uint64_t *ret_first,
		uint64_t *ret_n)
{
	uint64_t start = MAX(range->addr, b->addr);
	uint64_t end = MIN(range->addr + range->length, b->addr + b->length);

	if (start >= end)
		return false;
	*ret_first = (start - b->addr) / b->page_size;
	*ret_n = (end - b->addr - 1) / b->page_size + 1 - *ret_first;
	return true;
}

static int add(struct pins *p, uint64_t addr, uint64_t length)
{
	if (!length)
		return 0;
	if (length > UINT64_MAX - addr)
		return -EBADMSG;
	if (p->n == PINS_MAX)
		return -E2BIG;
	if (p->n == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 16;
		struct pins_range *more = realloc(p->ranges, cap * sizeof(*more));

		if (!more)
			return -ENOMEM;
		p->ranges = more;
		p->cap = cap;
	}
	p->ranges[p->n++] = (struct pins_range){addr, length};
	return 0;
}

/* "    0: 0x7f0012340000/65536" or "    1: <none>". Return: 0, -EAGAIN if the text ends before, or -errno */
static int parse_line(const char **at, unsigned long long want, struct pins *p)
{
	unsigned long long i, addr, length;
	const char *end = strchr(*at, '\n');
	char *rest;
	int r;

	if (!end)
		return -EAGAIN;
	i = strtoull(*at, &rest, 10);
	if (rest == *at || i != want || strncmp(rest, ": ", 2) != 0)
		return -EAGAIN; /* what follows the list: it was cut short */
	rest += 2;
	if (!strncmp(rest, "<none>\n", 7)) {
		*at = end + 1;
		return 0;
	}
	if (sscanf(rest, "0x%llx/%llu", &addr, &length) != 2)
		return -EBADMSG;
	r = add(p, addr, length);
	*at = end + 1;
	return r;
}

int pins_parse(const char *text, struct pins *p)
{
	static const char key[] = "UserBufs:";
	const char *at = !strncmp(text, key, strlen(key)) ? text : strstr(text, "\nUserBufs:");
	unsigned long long n;
	char *rest;
	int r = 0;

	if (!at)
		return -EAGAIN; /* it is left out when the ring's lock cannot be had */
	at = strchr(at, ':') + 1;
	n = strtoull(at, &rest, 10);
	if (rest == at || *rest != '\n')
		return -EBADMSG;
	if (n > PINS_MAX)
		return -E2BIG;
	at = rest + 1;
	for (unsigned long long i = 0; !r && i < n; i++)
		r = parse_line(&at, i, p);
	return r;
}

/* All of a file of /proc, with a NUL. Return: 0 or -errno */
static int read_text(const char *path, char **ret)
{
	CLEANUP_FCLOSE FILE *f = fopen(path, "re");
	CLEANUP_FREE char *text = NULL;
	size_t n = 0, cap = 0;

	if (!f)
		return -errno;
	do {
		char *more = realloc(text, (cap = cap ? 2 * cap : 16384) + 1);

		if (!more)
			return -ENOMEM;
		text = more;
		n += fread(text + n, 1, cap - n, f);
	} while (n == cap && cap < TEXT_MAX);
	if (n == cap)
		return -E2BIG;
	text[n] = '\0';
	if (ferror(f))
		return -EIO;
	*ret = steal_ptr(&text);
	return 0;
}

static int refuse(struct error *err, int r, pid_t pid, const char *what)
{
	return error_set(
		err, r, "dma-unknown",
		"%s of process %d cannot be looked at (%s), so it cannot be told which memory "
		"devices may write to: use --mode postcopy",
		what, (int)pid, strerror(-r));
}

static int read_ring(pid_t pid, const char *fd, struct pins *p, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%.16s", (int)pid, fd);
	r = read_text(path, &text);
	if (r == -ENOENT)
		return 0; /* closed meanwhile */
	if (!r)
		r = pins_parse(text, p);
	if (!r)
		p->rings++;
	return r < 0 && r != -EAGAIN ? refuse(err, r, pid, "an io_uring") : r;
}

static bool is_ring(DIR *d, const char *fd)
{
	char link[sizeof(RING_NAME) + 1];
	ssize_t n = readlinkat(dirfd(d), fd, link, sizeof(link));

	return n == (ssize_t)strlen(RING_NAME) && !memcmp(link, RING_NAME, (size_t)n);
}

static int read_all(pid_t pid, struct pins *p, struct error *err)
{
	CLEANUP_FREE char *maps = NULL;
	struct dirent *e;
	char path[64];
	DIR *d;
	int r = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	if (!d)
		return refuse(err, -errno, pid, "the descriptors");
	while (!r && (e = readdir(d)))
		if (is_ring(d, e->d_name))
			r = read_ring(pid, e->d_name, p, err);
	closedir(d);
	if (r < 0 || p->rings)
		return r;
	/* A ring lives on for as long as it is mapped, whatever became of its descriptor. */
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	r = read_text(path, &maps);
	if (!r && strstr(maps, RING_NAME))
		r = -EBADF;
	return r < 0 ? refuse(err, r, pid, "an io_uring without a descriptor") : 0;
}

int pins_read(pid_t pid, struct pins *ret, struct error *err)
{
	struct pins p = {0};
	int r = read_all(pid, &p, err);

	if (r < 0)
		pins_free(&p);
	else
		*ret = p;
	return r;
}
