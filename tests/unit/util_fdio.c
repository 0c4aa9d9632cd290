/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "util/fdio.h"

/* A new folder below TMPDIR; @buf gets its path. */
static char *temp_dir(char buf[static 64])
{
	const char *tmp = getenv("TMPDIR");

	snprintf(buf, 64, "%s/fdio-XXXXXX", tmp ? tmp : "/tmp");
	cr_assert(ne(ptr, mkdtemp(buf), NULL));
	return buf;
}

static void remove_dir(const char *dir)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	cr_assert(zero(int, system(cmd)));
}

/* What hangs is ended by a signal. (Criterion's own timeouts leak, which LeakSanitizer reports.) */
static void watchdog(void)
{
	alarm(20);
}

TestSuite(fdio, .init = watchdog);

Test(fdio, positioned_reads_and_writes)
{
	int fd = memfd_create("t", MFD_CLOEXEC);
	char buf[8] = "";

	cr_assert(zero(int, fdio_pwrite_full(fd, "abcdef", 6, 100)));
	cr_assert(zero(int, fdio_pread_full(fd, buf, 4, 101)));
	cr_assert(eq(str, buf, "bcde"));
	cr_assert(eq(int, fdio_pread_full(fd, buf, 4, 103), -EIO));
	cr_assert(eq(int, fdio_pread_full(-1, buf, 1, 0), -EBADF));
	cr_assert(eq(int, fdio_pwrite_full(-1, buf, 1, 0), -EBADF));
	cr_assert(zero(int, fdio_pread_full(fd, buf, 0, 1 << 20)));
	close(fd);
}

static void *slow_reader(void *arg)
{
	int fd = *(int *)arg;
	char buf[4096];
	size_t total = 0;
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		total += (size_t)n;
	return (void *)total;
}

Test(fdio, a_pipe_takes_a_large_write_in_pieces)
{
	static char buf[1 << 20];
	void *total;
	pthread_t t;
	int p[2];

	cr_assert(zero(int, pipe(p)));
	pthread_create(&t, NULL, slow_reader, &p[0]);
	cr_assert(zero(int, fdio_write_full(p[1], buf, sizeof(buf))));
	close(p[1]);
	pthread_join(t, &total);
	cr_assert(eq(sz, (size_t)total, sizeof(buf)));
	close(p[0]);
}

Test(fdio, read_file)
{
	static char big[10000];
	char dir[64], path[96], *out = NULL;
	int fd;

	snprintf(path, sizeof(path), "%s/f", temp_dir(dir));
	memset(big, 'x', sizeof(big));
	fd = open(path, O_RDWR | O_CREAT, 0600);
	cr_assert(zero(int, fdio_pwrite_full(fd, big, sizeof(big), 0)));
	cr_assert(eq(long, fdio_read_file(path, sizeof(big), &out), sizeof(big)));
	cr_assert(zero(int, memcmp(out, big, sizeof(big))));
	cr_assert(eq(chr, out[sizeof(big)], '\0'));
	free(out);
	out = NULL;
	cr_assert(eq(long, fdio_read_file(path, sizeof(big) - 1, &out), -EFBIG));
	cr_assert(eq(long, fdio_read_file(path, 10, &out), -EFBIG));
	cr_assert(eq(long, fdio_read_file("/nowhere/x", 10, &out), -ENOENT));
	cr_assert(eq(ptr, out, NULL));
	cr_assert(zero(int, ftruncate(fd, 0)));
	cr_assert(zero(long, fdio_read_file(path, 0, &out)));
	cr_assert(eq(str, out, ""));
	free(out);
	/* A file whose length the kernel says is 0. */
	cr_assert(gt(long, fdio_read_file("/proc/self/status", 65536, &out), 100));
	free(out);
	close(fd);
	remove_dir(dir);
}

Test(fdio, unix_socket_round_trip)
{
	static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};
	char dir[64], path[96], buf[4] = "";
	struct error err = {0};
	struct stat st;

	snprintf(path, sizeof(path), "%s/s", temp_dir(dir));
	for (int i = 0; i < 2; i++) {
		/* The second time over the file that the first one left behind. */
		int s = fdio_unix_listen(path, types[i], 0620, &err), c, a;

		cr_assert(ge(int, s, 0), "%s", err.msg);
		cr_assert(zero(int, stat(path, &st)));
		cr_assert(eq(int, st.st_mode & 07777, 0620));
		cr_assert(ne(int, fcntl(s, F_GETFL) & O_NONBLOCK, 0));
		cr_assert(ne(int, fcntl(s, F_GETFD) & FD_CLOEXEC, 0));
		c = fdio_unix_connect(path, types[i], i);
		cr_assert(ge(int, c, 0));
		cr_assert(eq(int, !!(fcntl(c, F_GETFL) & O_NONBLOCK), i));
		cr_assert(ne(int, fcntl(c, F_GETFD) & FD_CLOEXEC, 0));
		a = accept(s, NULL, NULL);
		cr_assert(eq(long, write(c, "hi", 2), 2));
		cr_assert(eq(long, read(a, buf, 2), 2));
		cr_assert(eq(str, buf, "hi"));
		close(a);
		close(c);
		close(s);
	}
	cr_assert(eq(int, fdio_unix_connect(path, SOCK_STREAM, 0), -ECONNREFUSED));
	remove_dir(dir);
}

Test(fdio, a_socket_in_use_is_not_replaced)
{
	char dir[64], path[96];
	struct error err = {0};
	int s, c;

	snprintf(path, sizeof(path), "%s/s", temp_dir(dir));
	s = fdio_unix_listen(path, SOCK_STREAM, 0600, &err);
	cr_assert(eq(int, fdio_unix_listen(path, SOCK_STREAM, 0600, &err), -EADDRINUSE));
	cr_assert(ne(ptr, strstr(err.msg, path), NULL));
	cr_assert(eq(int, fdio_unix_listen(path, SOCK_SEQPACKET, 0600, NULL), -EADDRINUSE));
	c = fdio_unix_connect(path, SOCK_STREAM, 0);
	cr_assert(ge(int, c, 0));
	close(c);
	close(s);
	remove_dir(dir);
}

Test(fdio, other_files_are_not_replaced)
{
	char dir[64], path[96], *out;
	struct error err = {0};
	int fd;

	snprintf(path, sizeof(path), "%s/s", temp_dir(dir));
	fd = open(path, O_RDWR | O_CREAT, 0600);
	cr_assert(zero(int, fdio_write_full(fd, "keep", 4)));
	close(fd);
	cr_assert(eq(int, fdio_unix_listen(path, SOCK_STREAM, 0600, &err), -EEXIST));
	cr_assert(error_is_set(&err));
	cr_assert(eq(long, fdio_read_file(path, 10, &out), 4));
	free(out);
	remove_dir(dir);
}

Test(fdio, socket_paths_that_cannot_be)
{
	struct error err = {0};
	char path[200];

	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[199] = '\0';
	cr_assert(eq(int, fdio_unix_listen(path, SOCK_STREAM, 0600, &err), -ENAMETOOLONG));
	cr_assert(error_is_set(&err));
	cr_assert(eq(int, fdio_unix_connect(path, SOCK_STREAM, 0), -ENAMETOOLONG));
	cr_assert(eq(int, fdio_unix_connect("", SOCK_STREAM, 0), -EINVAL));
	error_clear(&err);
	cr_assert(eq(int, fdio_unix_listen("/nowhere/s", SOCK_STREAM, 0600, &err), -ENOENT));
	cr_assert(error_is_set(&err));
	cr_assert(eq(int, fdio_unix_connect("/nowhere/s", SOCK_STREAM, 0), -ENOENT));
}

/* A listener that accepts nobody, its queue full: connecting gives up after its bound. */
Test(fdio, connect_does_not_hang_on_a_deaf_listener)
{
	char dir[64], path[96];
	int s, c[8], n = 0;

	snprintf(path, sizeof(path), "%s/s", temp_dir(dir));
	s = fdio_unix_listen(path, SOCK_STREAM, 0600, NULL);
	cr_assert(zero(int, listen(s, 1)));
	while (n < 8 && (c[n] = fdio_unix_connect(path, SOCK_STREAM, 0)) >= 0)
		n++;
	cr_assert(lt(int, n, 8));
	cr_assert(eq(int, c[n], -ETIMEDOUT));
	while (n)
		close(c[--n]);
	close(s);
	remove_dir(dir);
}

Test(fdio, mkdir_p)
{
	char dir[64], path[128];
	struct stat st;
	int fd;

	temp_dir(dir);
	umask(0077);
	snprintf(path, sizeof(path), "%s/a//b/c/", dir);
	cr_assert(zero(int, fdio_mkdir_p(path, 0750)));
	cr_assert(zero(int, stat(path, &st)));
	cr_assert(eq(int, st.st_mode & 07777, 0750));
	snprintf(path, sizeof(path), "%s/a", dir);
	cr_assert(zero(int, stat(path, &st)));
	cr_assert(eq(int, st.st_mode & 07777, 0755));
	/* What is there keeps its mode. */
	cr_assert(zero(int, fdio_mkdir_p(path, 0700)));
	cr_assert(zero(int, stat(path, &st)));
	cr_assert(eq(int, st.st_mode & 07777, 0755));
	snprintf(path, sizeof(path), "%s/file", dir);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	close(fd);
	cr_assert(eq(int, fdio_mkdir_p(path, 0700), -ENOTDIR));
	snprintf(path, sizeof(path), "%s/file/x", dir);
	cr_assert(eq(int, fdio_mkdir_p(path, 0700), -ENOTDIR));
	cr_assert(zero(int, fdio_mkdir_p("/", 0700)));
	cr_assert(eq(int, fdio_mkdir_p("", 0700), -ENOENT));
	cr_assert(zero(int, chdir(dir)));
	cr_assert(zero(int, fdio_mkdir_p("rel/ative", 0700)));
	cr_assert(zero(int, stat("rel/ative", &st)));
	remove_dir(dir);
}

Test(fdio, sync_dir_of)
{
	char dir[64], path[96];

	snprintf(path, sizeof(path), "%s/f", temp_dir(dir));
	cr_assert(zero(int, fdio_sync_dir_of(path)));
	cr_assert(zero(int, fdio_sync_dir_of("plain")));
	cr_assert(eq(int, fdio_sync_dir_of("/nowhere/f"), -ENOENT));
	remove_dir(dir);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

Test(fdio, close_apart)
{
	int small = memfd_create("small", MFD_CLOEXEC), large = memfd_create("large", MFD_CLOEXEC);

	fdio_close_apart(-1);
	cr_assert(zero(int, ftruncate(small, 1 << 30)));
	fdio_close_apart(small);
	cr_assert(not(is_open(small)));
	cr_assert(zero(int, fallocate(large, 0, 0, 128 << 20)));
	fdio_close_apart(large);
	for (int i = 0; i < 5000 && is_open(large); i++)
		usleep(1000);
	cr_assert(not(is_open(large)));
}

Test(fdio, replace_file)
{
	char dir[] = "/tmp/fdio.XXXXXX", path[64], *text;
	struct stat st;

	cr_assert(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/file", dir);
	cr_assert(zero(int, fdio_replace_file(path, "a long first one", 0600)));
	cr_assert(zero(int, fdio_replace_file(path, "short", 0600)));
	cr_assert(eq(int, (int)fdio_read_file(path, 64, &text), 5));
	cr_assert(eq(str, text, "short"));
	free(text);
	cr_assert(zero(int, stat(path, &st)));
	cr_assert(eq(int, st.st_mode & 07777, 0600));
	unlink(path);
	cr_assert(zero(int, rmdir(dir)), "something is left there");
	cr_assert(eq(int, fdio_replace_file(path, "x", 0600), -ENOENT));
}

Test(fdio, random_bytes_differ)
{
	uint8_t a[64] = {0}, b[64] = {0};

	fdio_random(a, sizeof(a));
	fdio_random(b, sizeof(b));
	cr_assert(ne(int, memcmp(a, b, sizeof(a)), 0));
}

Test(fdio, uuid4)
{
	char a[FDIO_UUID_MAX], b[FDIO_UUID_MAX];

	for (int i = 0; i < 1000; i++) {
		cr_assert(eq(sz, strlen(fdio_uuid4(a)), 36));
		cr_assert(eq(sz, strspn(a, "0123456789abcdef-"), 36));
		cr_assert(a[8] == '-' && a[13] == '-' && a[18] == '-' && a[23] == '-');
		cr_assert(eq(chr, a[14], '4'));
		cr_assert(ne(ptr, strchr("89ab", a[19]), NULL));
	}
	cr_assert(ne(str, fdio_uuid4(a), fdio_uuid4(b)));
}
