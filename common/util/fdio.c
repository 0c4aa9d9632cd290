/* SPDX-License-Identifier: Apache-2.0 */
#include "util/fdio.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include "util/cleanup.h"

/* What is given back in a few milliseconds is not worth a thread. */
#define APART_BYTES (UINT64_C(64) << 20)
/* Above what an agent usually has open, and no reason for a large table. */
#define HIGH_FD 4096

int fdio_pread_full(int fd, void *buf, size_t n, uint64_t off)
{
	uint8_t *p = buf;
	ssize_t got;

	while (n) {
		got = pread(fd, p, n, (off_t)off);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (!got)
			return -EIO;
		p += got;
		n -= (size_t)got;
		off += (uint64_t)got;
	}
	return 0;
}

int fdio_pwrite_full(int fd, const void *buf, size_t n, uint64_t off)
{
	const uint8_t *p = buf;
	ssize_t put;

	while (n) {
		put = pwrite(fd, p, n, (off_t)off);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		if (!put)
			return -EIO;
		p += put;
		n -= (size_t)put;
		off += (uint64_t)put;
	}
	return 0;
}

int fdio_write_full(int fd, const void *buf, size_t n)
{
	const uint8_t *p = buf;
	ssize_t put;

	while (n) {
		put = write(fd, p, n);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		if (!put)
			return -EIO;
		p += put;
		n -= (size_t)put;
	}
	return 0;
}

/* Up to @cap bytes from @fd to its end. Return: length or -errno */
static ssize_t read_to_end(int fd, char *buf, size_t cap)
{
	size_t len = 0;
	ssize_t got;

	while (len < cap) {
		got = read(fd, buf + len, cap - len);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (!got)
			break;
		len += (size_t)got;
	}
	return (ssize_t)len;
}

ssize_t fdio_read_file(const char *path, size_t max, char **ret)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	CLEANUP_FREE char *buf = NULL;
	size_t cap = 4096;
	ssize_t len = 0, got;
	char *more;

	if (fd < 0)
		return -errno;
	/* Not by st_size: it is 0 in /proc, and other files may grow while they are read. */
	for (;;) {
		if (cap > max)
			cap = max;
		more = realloc(buf, cap + 1);
		if (!more)
			return -ENOMEM;
		buf = more;
		got = read_to_end(fd, buf + len, cap + 1 - (size_t)len);
		if (got < 0)
			return got;
		len += got;
		if ((size_t)len <= cap)
			break;
		if (cap == max)
			return -EFBIG;
		cap *= 2;
	}
	buf[len] = '\0';
	*ret = steal_ptr(&buf);
	return len;
}

static int unix_address(const char *path, struct sockaddr_un *ret)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	size_t n = strlen(path);

	if (!n)
		return -EINVAL;
	if (n >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	memcpy(sa.sun_path, path, n + 1);
	*ret = sa;
	return 0;
}

/* Does anybody listen there? A refusal is the sign of a socket file whose listener is gone. */
static bool unix_is_live(const struct sockaddr_un *sa, int type)
{
	CLEANUP_CLOSE int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return false;
	return !connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) ||
	       (errno != ECONNREFUSED && errno != ENOENT);
}

/* Make @path free for bind(2), unless something is there that must not be replaced. */
static int unix_clear_path(const char *path, const struct sockaddr_un *sa, int type,
			   struct error *err)
{
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : error_set(err, -errno, NULL, "%s: %m", path);
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, -EEXIST, NULL, "%s: is there and is not a socket", path);
	if (unix_is_live(sa, type))
		return error_set(err, -EADDRINUSE, NULL, "%s: another process listens there", path);
	if (unlink(path) && errno != ENOENT)
		return error_set(err, -errno, NULL, "%s: cannot remove the old socket: %m", path);
	return 0;
}

int fdio_unix_listen(const char *path, int type, mode_t mode, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	struct sockaddr_un sa;
	int ret;

	ret = unix_address(path, &sa);
	if (ret < 0)
		return error_set(err, ret, NULL, "%s: not a usable socket path: %s", path,
				 strerror(-ret));
	ret = unix_clear_path(path, &sa, type, err);
	if (ret < 0)
		return ret;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set(err, -errno, NULL, "%s: socket: %m", path);
	/* Nobody can connect before listen(2), so the mode is in force from the start. */
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)))
		return error_set(err, -errno, NULL, "%s: bind: %m", path);
	if (chmod(sa.sun_path, mode) || listen(fd, SOMAXCONN)) {
		ret = error_set(err, -errno, NULL, "%s: listen: %m", path);
		unlink(sa.sun_path);
		return ret;
	}
	return steal_fd(&fd);
}

/* How long a connect may wait for room in the queue of a listener that does not accept. */
#define CONNECT_TIMEOUT_S 2

int fdio_unix_connect(const char *path, int type, int nonblock)
{
	struct timeval bound = {.tv_sec = CONNECT_TIMEOUT_S}, none = {0};
	CLEANUP_CLOSE int fd = -1;
	struct sockaddr_un sa;
	int ret;

	ret = unix_address(path, &sa);
	if (ret < 0)
		return ret;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound));
	do
		ret = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) ? -errno : 0;
	while (ret == -EINTR);
	if (ret == -EAGAIN)
		ret = -ETIMEDOUT;
	if (ret < 0)
		return ret;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
	if (nonblock && fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	return steal_fd(&fd);
}

/* One level. Only a folder made here gets exactly @mode, whatever the umask. */
static int make_dir(const char *path, mode_t mode)
{
	struct stat st;

	if (!mkdir(path, mode))
		return chmod(path, mode) ? -errno : 0;
	if (errno != EEXIST)
		return -errno;
	if (stat(path, &st))
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int fdio_mkdir_p(const char *path, mode_t mode)
{
	CLEANUP_FREE char *copy = strdup(path);
	size_t n;
	int ret;

	if (!copy)
		return -ENOMEM;
	for (n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
		copy[n - 1] = '\0';
	if (!n)
		return -ENOENT;
	for (char *p = copy + 1; n > 1 && (p = strchr(p, '/')); p++) {
		*p = '\0';
		ret = make_dir(copy, 0755);
		if (ret < 0)
			return ret;
		*p = '/';
	}
	return make_dir(copy, mode);
}

static void *close_main(void *arg)
{
	close((int)(intptr_t)arg);
	return NULL;
}

static void close_in_thread(int fd)
{
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&thread, &attr, close_main, (void *)(intptr_t)fd);
	pthread_attr_destroy(&attr);
	if (r)
		close(fd);
}

void fdio_close_apart(int fd)
{
	struct stat st;

	if (fd < 0)
		return;
	if (!fstat(fd, &st) && (uint64_t)st.st_blocks * 512 < APART_BYTES)
		close(fd);
	else
		close_in_thread(fd);
}

void fdio_close_slow(int fd)
{
	if (fd >= 0)
		close_in_thread(fd);
}

int fdio_high(int fd)
{
	struct rlimit limit;
	int high = -1;

	if (fd >= 0 && !getrlimit(RLIMIT_NOFILE, &limit))
		high = fcntl(fd, F_DUPFD_CLOEXEC, (int)MIN(limit.rlim_cur / 2, (rlim_t)HIGH_FD));
	if (high < 0)
		return fd;
	close(fd);
	return high;
}

void fdio_random(void *buf, size_t n)
{
	/* Not getrandom(2), whose failure every caller would have to handle: here libc does. */
	arc4random_buf(buf, n);
}

int fdio_sync_dir_of(const char *path)
{
	CLEANUP_FREE char *dir = strdup(path);
	CLEANUP_CLOSE int fd = -1;
	char *slash;

	if (!dir)
		return -ENOMEM;
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = '\0'; /* "/x" is in "/" */
	fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fsync(fd) ? -errno : 0;
}

static int write_synced(const char *path, const char *text, mode_t mode)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	int r;

	if (fd < 0)
		return -errno;
	r = fdio_write_full(fd, text, strlen(text));
	if (!r && fsync(fd))
		r = -errno;
	return r;
}

int fdio_replace_file(const char *path, const char *text, mode_t mode)
{
	CLEANUP_FREE char *temp = NULL;
	int r;

	if (asprintf(&temp, "%s.new", path) < 0) {
		temp = NULL;
		return -ENOMEM;
	}
	r = write_synced(temp, text, mode);
	if (!r && rename(temp, path))
		r = -errno;
	return r ? r : fdio_sync_dir_of(path);
}

char *fdio_uuid4(char buf[static FDIO_UUID_MAX])
{
	uint8_t u[16];
	char *p = buf;

	fdio_random(u, sizeof(u));
	u[6] = (u[6] & 0x0f) | 0x40;
	u[8] = (u[8] & 0x3f) | 0x80;
	for (int i = 0; i < 16; i++)
		p += sprintf(p, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", u[i]);
	return buf;
}

char *fdio_boot_id(char buf[static FDIO_UUID_MAX])
{
	CLEANUP_FREE char *text = NULL;

	buf[0] = '\0';
	if (fdio_read_file("/proc/sys/kernel/random/boot_id", 64, &text) >= FDIO_UUID_MAX - 1)
		snprintf(buf, FDIO_UUID_MAX, "%.36s", text);
	return buf;
}
