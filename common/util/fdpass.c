/* SPDX-License-Identifier: Apache-2.0 */
#include "util/fdpass.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

ssize_t fdpass_send(int sock, const void *buf, size_t len, int fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)buf, .iov_len = len};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *cm;
	ssize_t n;

	if (fd >= 0) {
		mh.msg_control = control.buf;
		mh.msg_controllen = sizeof(control.buf);
		cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cm), &fd, sizeof(int));
	}
	do
		n = sendmsg(sock, &mh, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static void take_control(struct msghdr *mh, struct fdpass *ret)
{
	struct ucred cred;

	for (struct cmsghdr *cm = CMSG_FIRSTHDR(mh); cm; cm = CMSG_NXTHDR(mh, cm)) {
		size_t n = cm->cmsg_len - CMSG_LEN(0);

		if (cm->cmsg_level != SOL_SOCKET)
			continue;
		if (cm->cmsg_type == SCM_CREDENTIALS && n >= sizeof(cred)) {
			memcpy(&cred, CMSG_DATA(cm), sizeof(cred));
			ret->pid = cred.pid;
		}
		if (cm->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n / sizeof(int); i++)
			memcpy(&ret->fds[ret->n++], CMSG_DATA(cm) + i * sizeof(int), sizeof(int));
	}
}

ssize_t fdpass_recv(int sock, void *buf, size_t len, struct fdpass *ret)
{
	union {
		struct cmsghdr align;
		char buf[FDPASS_ROOM];
	} control;
	struct iovec iov = {.iov_base = buf, .iov_len = len};
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.buf,
			    .msg_controllen = sizeof(control.buf)};
	ssize_t n;

	do
		n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	ret->n = 0;
	ret->pid = 0;
	ret->cut = mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
	take_control(&mh, ret);
	return n;
}

void fdpass_close(struct fdpass *p)
{
	while (p->n)
		close(p->fds[--p->n]);
}
