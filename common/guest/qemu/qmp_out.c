/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/qemu/qmp_out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/qemu/qmp.h"
#include "util/cleanup.h"
#include "util/fdpass.h"

/** struct qmp_line - text that is still to be sent; owns @fd */
struct qmp_line {
	struct qmp_line *next;
	int fd;
	size_t len, sent;
	char text[];
};

static void drop_first(struct qmp_out *o)
{
	struct qmp_line *l = o->first;

	o->first = l->next;
	o->bytes -= l->len - l->sent;
	if (l->fd >= 0)
		close(l->fd);
	free(l);
}

void qmp_out_clear(struct qmp_out *o)
{
	while (o->first)
		drop_first(o);
}

int qmp_out_add(struct qmp_out *o, const char *text, int fd)
{
	struct qmp_line *l, **at = &o->first;
	size_t len = strlen(text);

	if (len > QMP_QUEUE_MAX - o->bytes)
		return -EBUSY;
	l = malloc(sizeof(*l) + len + 1);
	if (!l)
		return -ENOMEM;
	*l = (struct qmp_line){.fd = -1, .len = len + 1};
	memcpy(l->text, text, len);
	l->text[len] = '\n';
	if (fd >= 0 && (l->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0) {
		int r = -errno;

		free(l);
		return r;
	}
	while (*at)
		at = &(*at)->next;
	*at = l;
	o->bytes += l->len;
	return 0;
}

int qmp_out_send(struct qmp_out *o, int sock)
{
	while (o->first) {
		struct qmp_line *l = o->first;
		ssize_t n = fdpass_send(sock, l->text + l->sent, l->len - l->sent, l->fd);

		if (n < 0)
			return (int)n;
		if (l->fd >= 0)
			close(steal_fd(&l->fd));
		l->sent += (size_t)n;
		o->bytes -= (size_t)n;
		if (l->sent == l->len)
			drop_first(o);
	}
	return 0;
}
