/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The socket that a micro-VM connects to, and its handshake: none of it waits. Nothing is ever
 * answered: the protocol has no way back. The socket is for one micro-VM: as soon as one has
 * connected it is removed, so that a second one is refused by its kernel and says so.
 *
 * Who has connected has said all that it will ever say, and waits for ever where nobody has read it (rule 5). So the
 * socket is not closed before it was looked who is there, and the service manager, where there is one, keeps a copy of
 * it for the case that this agent is killed: what is in its queue is there for the next life.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "micro_priv.h"
#include "util/cleanup.h"
#include "util/faultpoint.h"
#include "util/fdio.h"
#include "util/log.h"

/* From the connection until array and descriptor are there. */
#define GREETING_S 5
/* Linux 6.5: the peer's pidfd, free of races with the reuse of its pid; Debian 12's headers end before. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static void no_event(struct event **ev)
{
	if (*ev)
		event_free(*ev);
	*ev = NULL;
}

static void stop_listening(struct micro *m)
{
	no_event(&m->on_connect);
	if (m->listen_fd >= 0) {
		micro_unkeep_socket(m);
		close(steal_fd(&m->listen_fd));
		if (unlink(m->socket) && errno != ENOENT)
			log_warn("micro %s: %s: %s", m->id_text, m->socket, strerror(errno));
	}
}

static void hang_up(struct micro *m)
{
	no_event(&m->timer);
	no_event(&m->on_data);
	if (m->conn_fd >= 0)
		close(steal_fd(&m->conn_fd));
	if (m->hello)
		micro_hello_clear(m->hello);
	free(steal_ptr(&m->hello));
}

void micro_listen_end(struct micro *m)
{
	stop_listening(m);
	hang_up(m);
}

/*
 * The descriptor that came with a handshake that is refused is kept until the process ends: if it
 * were the last one, its closing would hand the micro-VM zeros.
 */
static void refuse(struct micro *m, const struct error *why)
{
	struct error err = *why;
	bool holds = m->hello && m->hello->uffd >= 0;

	error_prefix(&err, "handshake of process %d", (int)m->pid);
	if (holds && m->uffd < 0)
		m->uffd = steal_fd(&m->hello->uffd);
	if (m->uffd >= 0)
		micro_keep(m);
	hang_up(m);
	micro_event(m, m->uffd >= 0 ? MICRO_EV_TROUBLE : MICRO_EV_REFUSED, &err);
}

static uint64_t inode_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : (uint64_t)st.st_ino;
}

static void greeted(struct micro *m)
{
	struct micro_hello *h = m->hello;
	struct error err = {0};

	if (!m->img) {
		error_set(&err, -ENOENT, "no-such-snapshot", "image %s is gone", m->image);
		refuse(m, &err);
		return;
	}
	if (micro_hello_parse(h->text, h->array, m->memory, m->regions, &m->n, &err)) {
		refuse(m, &err);
		return;
	}
	m->uffd = steal_fd(&h->uffd);
	m->uffd_ino = inode_of(m->uffd);
	micro_keep(m);
	if (micro_serve(m, false, &err)) {
		refuse(m, &err);
		return;
	}
	hang_up(m);
	log_notice("micro %s: process %d is served out of image %s, %u region%s, pages of %" PRIu64
		   " bytes",
		   m->id_text, (int)m->pid, m->image, m->n, m->n == 1 ? "" : "s",
		   m->regions[0].page_size);
	micro_event(m, MICRO_EV_GREETED, NULL);
}

static void on_data(evutil_socket_t fd, short what, void *arg)
{
	struct micro *m = arg;
	struct error err = {0};
	int r = micro_hello_read(m->hello, (int)fd, &err);

	(void)what;
	if (r == 1)
		greeted(m);
	else if (r < 0)
		refuse(m, &err);
}

static void on_late(void *arg)
{
	struct micro *m = arg;
	struct error err = {0};

	micro_hello_late(m->hello, GREETING_S, &err);
	refuse(m, &err);
}

/* Return: 0 with process and pidfd of who is at the other end, or -errno with @err filled */
static int who(int fd, pid_t *ret_pid, int *ret_pidfd, struct error *err)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int pidfd = -1;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return error_set(err, -errno, NULL, "SO_PEERCRED: %s", strerror(errno));
	if (!cred.pid)
		return error_set(err, -ESRCH, "no-process",
				 "the process that connected is in a PID namespace that this agent "
				 "does not see: run decant-dest outside of it");
	len = sizeof(pidfd);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len))
		pidfd = pidfd_open(cred.pid, 0);
	if (pidfd < 0)
		return error_set(err, -errno, "guest-gone",
				 "process %d, which connected, cannot be watched: %s",
				 (int)cred.pid, strerror(errno));
	*ret_pid = cred.pid;
	*ret_pidfd = pidfd;
	return 0;
}

/*
 * Before anything of the handshake is read: its descriptor comes once, and were the agent to die with it, its
 * next life has to know who waits in vain.
 */
static void note_who(struct micro *m, pid_t pid)
{
	struct error err = {0};

	if (history_launched(m->past, pid, &err))
		log_error("micro %s: %s", m->id_text, err.msg);
	FAULTPOINT(MICRO_CONNECTED);
}

static int greet(struct micro *m, struct error *err)
{
	int pidfd = -1;
	pid_t pid = 0;
	int r = who(m->conn_fd, &pid, &pidfd, err);

	if (r)
		return r;
	note_who(m, pid);
	m->hello = malloc(sizeof(*m->hello));
	if (micro_watch(m, pid, pidfd) || !m->hello) {
		free(steal_ptr(&m->hello));
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	micro_hello_init(m->hello);
	m->timer = loop_timer(m->d->loop, GREETING_S * UINT64_C(1000000), on_late, m);
	m->on_data = event_new(loop_base(m->d->loop), m->conn_fd, EV_READ | EV_PERSIST, on_data, m);
	if (!m->timer || !m->on_data || event_add(m->on_data, NULL))
		return error_set(err, -ENOMEM, NULL, "out of memory");
	return 0;
}

static void on_connect(evutil_socket_t fd, short what, void *arg)
{
	struct micro *m = arg;
	struct error err = {0};
	int conn = accept4((int)fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)what;
	if (conn < 0) {
		/* EINVAL: that was the last one, see micro_listen_last(). */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED && errno != EINVAL)
			log_warn("micro %s: %s: %s", m->id_text, m->socket, strerror(errno));
		return;
	}
	m->conn_fd = conn;
	stop_listening(m);
	micro_event(m, MICRO_EV_CONNECTED, NULL);
	if (greet(m, &err))
		refuse(m, &err);
}

static int watch_socket(struct micro *m, struct error *err)
{
	m->on_connect =
		event_new(loop_base(m->d->loop), m->listen_fd, EV_READ | EV_PERSIST, on_connect, m);
	if (!m->on_connect || event_add(m->on_connect, NULL))
		return error_set(err, -ENOMEM, NULL, "out of memory");
	return 0;
}

int micro_listen(struct micro *m, const struct micro_wish *wish, struct error *err)
{
	int fd;

	if (m->socket[0] != '/')
		return error_set(err, -EINVAL, "bad-socket", "%s: not an absolute path", m->socket);
	fd = fdio_unix_listen(m->socket, SOCK_STREAM, 0600, err);
	if (fd < 0)
		return fd;
	m->listen_fd = fd;
	/* Firecracker's jailer gives it a user of its own: only that one may connect. */
	if (wish->has_owner && lchown(m->socket, wish->uid, wish->gid))
		return error_set(err, -errno, NULL, "%s: cannot be given to %u:%u: %s", m->socket,
				 wish->uid, wish->gid, strerror(errno));
	micro_keep_socket(m);
	return watch_socket(m, err);
}

int micro_listen_again(struct micro *m, int fd, struct error *err)
{
	struct sockaddr_un sa = {0};
	socklen_t len = sizeof(sa) - 1;

	m->listen_fd = fd;
	if (getsockname(fd, (struct sockaddr *)&sa, &len) || sa.sun_family != AF_UNIX ||
	    strcmp(sa.sun_path, m->socket) != 0)
		return error_set(err, -EINVAL, "bad-socket", "what was kept is not the socket %s",
				 m->socket);
	return watch_socket(m, err);
}

/*
 * A socket that is shut down refuses who connects, and hands out who has: with its closing alone those would be
 * dropped, whatever they have said.
 */
void micro_listen_last(struct micro *m)
{
	if (m->listen_fd >= 0) {
		shutdown(m->listen_fd, SHUT_RDWR);
		on_connect(m->listen_fd, 0, m);
	}
	if (m->conn_fd >= 0 && m->hello)
		on_data(m->conn_fd, 0, m);
}
