/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For LD_PRELOAD: as long as the file that DECANT_TEST_FULL names is there, nothing can be written to regular files of that
 * folder and below: the disk is full to the last byte, which no small file system is by itself.
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool is_full(int fd)
{
	const char *mark = getenv("DECANT_TEST_FULL"), *slash = mark ? strrchr(mark, '/') : NULL;
	char link[64], path[PATH_MAX];
	struct stat st;
	ssize_t n;
	int was = errno;
	bool r = false;

	if (slash && !access(mark, F_OK) && !fstat(fd, &st) && S_ISREG(st.st_mode)) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		n = readlink(link, path, sizeof(path));
		r = n > slash - mark && !strncmp(path, mark, (size_t)(slash - mark) + 1);
	}
	errno = was;
	return r;
}

__attribute__((visibility("default"))) ssize_t write(int fd, const void *buf, size_t n)
{
	if (is_full(fd)) {
		errno = ENOSPC;
		return -1;
	}
	return syscall(SYS_write, fd, buf, n);
}

__attribute__((visibility("default"))) ssize_t pwrite(int fd, const void *buf, size_t n, off_t at)
{
	if (is_full(fd)) {
		errno = ENOSPC;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, buf, n, at);
}
