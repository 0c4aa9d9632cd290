/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Write tracking does not see that a guest punches holes into its shared memory (wp_async.c). inotify(7)
 * does, for files that were opened by a path; stores through a mapping raise nothing.
 */
#include "platform.h"

#include <sys/inotify.h>

#define LEN (16 * PAGE)

static bool modified(int in)
{
	char buf[4096] __attribute__((aligned(8)));
	const struct inotify_event *e = (const void *)buf;

	return read(in, buf, sizeof(buf)) > 0 && e->mask & IN_MODIFY;
}

static int watch(int fd)
{
	int in = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	must(in >= 0 && inotify_add_watch(in, path, IN_MODIFY) >= 0);
	return in;
}

static void tells(const char *kind, int fd)
{
	int in = watch(fd);
	uint8_t *mem = map_file(fd, LEN);

	memset(mem, 1, LEN);
	fact(!modified(in), "%s: stores through a mapping raise nothing", kind);
	must(punch(fd, PAGE, PAGE) == 0);
	fact(modified(in), "%s: fallocate(PUNCH_HOLE) raises IN_MODIFY", kind);
	must(madvise(mem + 2 * PAGE, PAGE, MADV_REMOVE) == 0);
	fact(modified(in), "%s: so does madvise(MADV_REMOVE)", kind);
	must(pwrite(fd, "x", 1, 0) == 1);
	fact(modified(in), "%s: so does pwrite(2)", kind);
	munmap(mem, LEN);
	close(in);
}

static void memfd_itself(void)
{
	int fd = new_memfd(LEN), in = watch(fd);

	must(punch(fd, PAGE, PAGE) == 0);
	note("memfd, by the descriptor that memfd_create(2) gave: punching raises %s",
	     modified(in) ? "IN_MODIFY" : "nothing (kernel 6.14 and later)");
	close(in);
	close(fd);
}

static int reopened_memfd(void)
{
	int fd = new_memfd(LEN), again;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDWR | O_CLOEXEC);
	must(again >= 0);
	close(fd);
	return again;
}

int main(void)
{
	char name[] = "/dev/shm/decant-proof-XXXXXX";
	int file = mkstemp(name), again = reopened_memfd();

	if (file < 0) {
		untried("a file in /dev/shm: %s", strerror(errno));
	} else {
		must(unlink(name) == 0 && ftruncate(file, LEN) == 0);
		tells("file in /dev/shm", file);
		close(file);
	}
	tells("memfd opened again through /proc", again);
	close(again);
	memfd_itself();
	return facts_end();
}
