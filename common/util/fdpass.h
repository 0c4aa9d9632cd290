/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that go to another process through a Unix socket (SCM_RIGHTS). Also in libdecant-guest. */
#ifndef DECANT_UTIL_FDPASS_H
#define DECANT_UTIL_FDPASS_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

/* Room for more descriptors than anybody may send, so that a few too many are seen, counted and closed. */
#define FDPASS_ROOM (CMSG_SPACE(8 * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred)))

/**
 * struct fdpass - what came beside the bytes of one message
 * @fds:	@n descriptors, close-on-exec; without credentials their room is filled with them, too
 * @pid:	the sender's, where the socket has SO_PASSCRED, otherwise 0
 * @cut:	there was no room for all the bytes of a packet, or for all that came beside them
 */
struct fdpass {
	int fds[FDPASS_ROOM / sizeof(int)];
	size_t n;
	pid_t pid;
	bool cut;
};

/**
 * fdpass_send() - one sendmsg(2), without SIGPIPE
 * @fd:		goes with the first of the bytes; -1 for none; not closed
 *
 * Return: bytes sent, or -errno
 */
ssize_t fdpass_send(int sock, const void *buf, size_t len, int fd);

/**
 * fdpass_recv() - one recvmsg(2); never waits
 * @ret:	filled on success; fdpass_close() it, or take the descriptors over
 *
 * Return: bytes received, 0 at the end of the connection, -EAGAIN or another -errno
 */
ssize_t fdpass_recv(int sock, void *buf, size_t len, struct fdpass *ret);

/** fdpass_close() - close what came */
void fdpass_close(struct fdpass *p);

#endif
