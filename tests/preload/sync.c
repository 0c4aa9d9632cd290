/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For LD_PRELOAD: as long as the file that DECANT_TEST_SYNC names is there, nothing below its folder comes onto the disk: a sync
 * of a file there, whose path has in it what is in the mark, ends no sooner than the mark does. Which file that was is in a
 * line of MARK.at.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void note(const char *mark, const char *path)
{
	char name[PATH_MAX + 4], line[PATH_MAX + 2];
	int fd;

	snprintf(name, sizeof(name), "%s.at", mark);
	snprintf(line, sizeof(line), "%s\n", path);
	fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	if (write(fd, line, strlen(line)) < 0)
		perror(name);
	close(fd);
}

static int is_meant(const char *mark, const char *path)
{
	int fd = open(mark, O_RDONLY | O_CLOEXEC);
	char part[128] = "";
	ssize_t n = fd < 0 ? -1 : read(fd, part, sizeof(part) - 1);

	if (fd >= 0)
		close(fd);
	return n >= 0 && strstr(path, part);
}

static void take_long(int fd)
{
	const char *mark = getenv("DECANT_TEST_SYNC"), *slash = mark ? strrchr(mark, '/') : NULL;
	const struct timespec nap = {.tv_nsec = 5000000};
	char link[64], path[PATH_MAX];
	struct stat st;
	ssize_t n;

	if (!slash || access(mark, F_OK) || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= slash - mark || strncmp(path, mark, (size_t)(slash - mark) + 1) != 0)
		return;
	path[n] = 0;
	if (!is_meant(mark, path))
		return;
	note(mark, path);
	while (!access(mark, F_OK))
		nanosleep(&nap, NULL);
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
	take_long(fd);
	return (int)syscall(SYS_fdatasync, fd);
}

__attribute__((visibility("default"))) int fsync(int fd)
{
	take_long(fd);
	return (int)syscall(SYS_fsync, fd);
}
