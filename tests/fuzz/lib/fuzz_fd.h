/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors of many kinds, sent with bytes. */
#ifndef DECANT_TESTS_FUZZ_FD_H
#define DECANT_TESTS_FUZZ_FD_H

#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "fuzz/lib/fuzz.h"

/** FUZZ_FD_MEMORY - of fuzz_fd(): the file of fuzz_memory() */
#define FUZZ_FD_MEMORY 2
/** FUZZ_MEMORY - where fuzz_memory() is mapped, and its bytes; anonymous memory of as many follows it */
#define FUZZ_MEMORY     0x300000000000ul
#define FUZZ_MEMORY_LEN 0x10000ul

/** fuzz_memory() - memory that a guest may have, at the same address in every run. Return: its file */
static inline int fuzz_memory(void)
{
	static int fd = -1;

	if (fd < 0) {
		fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		FUZZ_CHECK(fd >= 0 && !ftruncate(fd, FUZZ_MEMORY_LEN) &&
			   !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
		FUZZ_CHECK(mmap((void *)FUZZ_MEMORY, FUZZ_MEMORY_LEN, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0) == (void *)FUZZ_MEMORY);
		FUZZ_CHECK(mmap((void *)(FUZZ_MEMORY + FUZZ_MEMORY_LEN), FUZZ_MEMORY_LEN,
				PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
				0) != MAP_FAILED);
	}
	return fd;
}

/** fuzz_uffd() - one that has said its UFFDIO_API. Return: -1 where there is none */
static inline int fuzz_uffd(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0)
		ioctl(fd, UFFDIO_API, &api);
	return fd;
}

/** fuzz_fd() - a descriptor of this kind, to be closed; -1 for kind 0 */
static inline int fuzz_fd(unsigned int kind)
{
	int two[2];

	switch (kind % 7) {
	case 1:
		return fuzz_uffd();
	case FUZZ_FD_MEMORY:
		return fcntl(fuzz_memory(), F_DUPFD_CLOEXEC, 0);
	case 3:
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	case 4:
		if (pipe2(two, O_CLOEXEC | O_NONBLOCK))
			return -1;
		close(two[1]);
		return two[0];
	case 5:
		return memfd_create("other", MFD_CLOEXEC);
	case 6:
		return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	default:
		return -1;
	}
}

/** fuzz_send() - bytes with a descriptor of kind @kind, twice if @twice. Return: as sendmsg(2) */
static inline ssize_t fuzz_send(int sock, struct fuzz_in piece, unsigned int kind, bool twice)
{
	int one = fuzz_fd(kind), fds[2] = {one, one};
	union {
		char bytes[CMSG_SPACE(sizeof(fds))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {(void *)piece.p, piece.n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	size_t n = (twice ? 2 : 1) * sizeof(int);
	ssize_t r;

	if (one >= 0) {
		struct cmsghdr *c = (struct cmsghdr *)control.bytes;

		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(n);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n);
		memcpy(CMSG_DATA(c), fds, n);
	}
	r = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (one >= 0)
		close(one);
	return r;
}

#endif
