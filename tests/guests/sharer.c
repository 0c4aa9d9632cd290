/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sharer: maps the memory of the guest `paint` in a process of its own, and looks at every page.
 *
 *	sharer PID GUEST NAME ATTACH REPORT MODE
 *
 * PID is the guest's process, whose file is taken from its /proc/PID/fd. MODE:
 *	stay	look at all pages, from both ends at once, then again and again until SIGTERM
 *	leave	look at half of them, then unmap them and end
 *	hang	look at one after the other, slowly
 * In REPORT it says "mapped", "guarded", "good PAGES" or "bad PAGE".
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/decant-sharer.h"
#include "guests/still_page.h"

#define SEED 42

/** struct view - the mapping, and what was found in it */
struct view {
	const uint8_t *mem;
	uint64_t pages;
	const char *report;
	unsigned int slow_us;
	_Atomic uint64_t good;
	_Atomic bool bad;
};

static volatile sig_atomic_t quit;

static void on_term(int sig)
{
	(void)sig;
	quit = 1;
}

static void say(const struct view *v, const char *what, uint64_t n)
{
	char tmp[512];
	FILE *f;

	snprintf(tmp, sizeof(tmp), "%s.new", v->report);
	f = fopen(tmp, "w");
	if (!f)
		return;
	fprintf(f, "%s %lu\n", what, n);
	fclose(f);
	rename(tmp, v->report);
}

/* The guest's file, as it stands in its /proc/PID/fd. */
static int open_ram(const char *pid)
{
	char path[64], file[400], link[256];
	struct dirent *e;
	int fd = -1;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	while (dir && fd < 0 && (e = readdir(dir))) {
		ssize_t n;

		snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
		n = readlink(file, link, sizeof(link) - 1);
		link[n > 0 ? n : 0] = '\0';
		if (!strncmp(link, "/memfd:ram", 10))
			fd = open(file, O_RDWR | O_CLOEXEC);
	}
	if (dir)
		closedir(dir);
	return fd;
}

static void look_at(struct view *v, uint64_t page)
{
	if (still_page_ok(v->mem + page * STILL_PAGE, SEED, 0, page)) {
		v->good++;
	} else if (!v->bad) {
		v->bad = true;
		say(v, "bad", page);
	}
	if (v->slow_us)
		usleep(v->slow_us);
}

static void *backwards(void *arg)
{
	struct view *v = arg;

	for (uint64_t i = v->pages; i-- > 0;)
		look_at(v, i);
	return NULL;
}

static void look_at_all(struct view *v)
{
	pthread_t t;

	pthread_create(&t, NULL, backwards, v);
	for (uint64_t i = 0; i < v->pages; i++)
		look_at(v, i * 31 % v->pages);
	pthread_join(t, NULL);
	if (!v->bad)
		say(v, "good", v->pages);
}

static int map(struct view *v, struct decant_sharer *s, int fd)
{
	struct stat st;
	void *mem;
	int r;

	if (fstat(fd, &st))
		return -errno;
	v->pages = (uint64_t)st.st_size / STILL_PAGE;
	mem = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		return -errno;
	v->mem = mem;
	/* In two parts, to have more than one. */
	r = decant_sharer_map(s, "ram", 0, v->pages / 2 * STILL_PAGE, mem);
	return r ? r
		 : decant_sharer_map(s, "ram", v->pages / 2 * STILL_PAGE,
				     (v->pages - v->pages / 2) * STILL_PAGE,
				     (char *)mem + v->pages / 2 * STILL_PAGE);
}

static void work(struct view *v, const char *mode)
{
	if (!strcmp(mode, "hang"))
		v->slow_us = 20000;
	if (!strcmp(mode, "leave"))
		for (uint64_t i = 0; i < v->pages / 2; i++)
			look_at(v, i * 2);
	else
		look_at_all(v);
	while (!strcmp(mode, "stay") && !quit && !v->bad) {
		look_at_all(v);
		usleep(10000);
	}
}

int main(int argc, char **argv)
{
	struct decant_sharer_config config = {0};
	struct view v = {0};
	struct decant_sharer *s;
	char text[256];
	int fd, r;

	if (argc != 7)
		return 2;
	signal(SIGTERM, on_term);
	config.guest = argv[2];
	config.name = argv[3];
	config.attach = argv[4];
	v.report = argv[5];
	fd = open_ram(argv[1]);
	s = fd < 0 ? NULL : decant_sharer_new(&config);
	r = s ? map(&v, s, fd) : -errno;
	if (!r) {
		say(&v, "mapped", v.pages);
		r = decant_sharer_wait(s, 30000);
	}
	if (r) {
		fprintf(stderr, "sharer: %s: %s\n", strerror(-r),
			s ? decant_sharer_error(s, text, sizeof(text)) : "no file or no sharer");
		return 1;
	}
	say(&v, "guarded", v.pages);
	work(&v, argv[6]);
	munmap((void *)v.mem, v.pages * STILL_PAGE);
	r = decant_sharer_unmap(s, (void *)v.mem, v.pages * STILL_PAGE);
	decant_sharer_free(s);
	return r || v.bad ? 1 : 0;
}
