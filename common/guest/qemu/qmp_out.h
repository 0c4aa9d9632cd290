/* SPDX-License-Identifier: Apache-2.0 */
/* What waits to be sent to a QMP monitor: lines in order, some with a descriptor. On the loop's thread. */
#ifndef DECANT_GUEST_QEMU_QMP_OUT_H
#define DECANT_GUEST_QEMU_QMP_OUT_H

#include <stddef.h>

struct qmp_line;

/**
 * struct qmp_out - the queue; zero is empty
 * @first:	next to be sent
 * @bytes:	of all of it
 */
struct qmp_out {
	struct qmp_line *first;
	size_t bytes;
};

/**
 * qmp_out_add() - append a line
 * @text:	without its line feed; copied
 * @fd:		goes with its first byte; duplicated; -1 for none
 *
 * Return: 0; -EBUSY if more than QMP_QUEUE_MAX would wait; -ENOMEM; -errno of duplicating
 */
int qmp_out_add(struct qmp_out *o, const char *text, int fd);
/** qmp_out_send() - without waiting. Return: 0 if all of it is out; -EAGAIN if the socket is full; -errno */
int qmp_out_send(struct qmp_out *o, int sock);
/** qmp_out_clear() - forget what waits */
void qmp_out_clear(struct qmp_out *o);

#endif
