/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of QEMU's monitor protocol (QMP), on the loop. It speaks to a process that may be stopped,
 * busy or not QEMU at all: every answer has a time limit, what comes in is bounded, and whatever is
 * no QMP ends the connection with a reason.
 *
 * Loop thread only. qmp_free() may be called from any callback; nothing is called after it.
 */
#ifndef DECANT_GUEST_QEMU_QMP_H
#define DECANT_GUEST_QEMU_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "util/error.h"
#include "util/loop.h"

/** QMP_LINE_MAX - bytes of one message of QEMU's */
#define QMP_LINE_MAX (4u << 20)
/** QMP_QUEUE_MAX - bytes that wait to be sent */
#define QMP_QUEUE_MAX (1u << 20)
/** QMP_ASKED_MAX - commands without an answer */
#define QMP_ASKED_MAX 128
/** QMP_EVENTS_MAX - events in a second; QEMU itself limits those that a guest can cause */
#define QMP_EVENTS_MAX 2000
/** QMP_GREETING_MS - a monitor that says nothing for so long serves another client */
#define QMP_GREETING_MS 2000

struct qmp;

/**
 * qmp_ready_fn - the monitor has greeted and takes commands
 *
 * qmp_version() is known from here on.
 */
typedef void qmp_ready_fn(void *arg);
/** qmp_event_fn - QEMU tells an event; @data may be NULL, both are borrowed */
typedef void qmp_event_fn(void *arg, const char *name, const json_t *data);
/**
 * qmp_closed_fn - the connection is over, also one that never got ready; qmp_free() is still to be called
 * @why:	codes monitor-busy, monitor-rubbish, monitor-lost
 *
 * All commands without an answer were done with -ECONNRESET before.
 */
typedef void qmp_closed_fn(void *arg, const struct error *why);

/** struct qmp_ops - who is told; @event may be NULL */
struct qmp_ops {
	qmp_ready_fn *ready;
	qmp_event_fn *event;
	qmp_closed_fn *closed;
};

/**
 * qmp_open() - connect
 * @path:	of the Unix socket of the monitor
 * @ops:	kept, not copied
 *
 * Return: 0; -errno with @err filled: nobody listens there, or (-EAGAIN, code monitor-busy) so many
 * clients wait already that one more does not fit
 */
int qmp_open(struct loop *loop, const char *path, const struct qmp_ops *ops, void *arg,
	     struct qmp **ret, struct error *err);
/** qmp_free() - end the connection; commands without an answer are dropped without their callbacks. NULL is fine */
void qmp_free(struct qmp *q);
/** qmp_peer() - who listens there, or once did: a claim, to be verified. Return: its pid, 0 if it cannot be seen from here */
pid_t qmp_peer(const struct qmp *q);
/** qmp_version() - Return: of QEMU, as "7.2.22"; empty before it is ready */
const char *qmp_version(const struct qmp *q);

/**
 * qmp_done_fn - a command was answered, or will not be
 * @ret:	0; -EREMOTEIO: QEMU refused it; -ETIMEDOUT; -ECONNRESET
 * @result:	what QEMU returned, borrowed; NULL unless @ret is 0
 * @err:	filled if @ret is not 0: code is QEMU's class in our spelling ("device-not-found",
 *		"generic-error"), the message names the command and has QEMU's words
 */
typedef void qmp_done_fn(void *arg, int ret, const json_t *result, const struct error *err);

/**
 * qmp_ask() - send a command
 * @args:	its arguments; the reference is taken over in every case; NULL for none
 * @fd:		a descriptor to go with it (getfd), -1 for none; stays the caller's
 * @done:	called exactly once unless this fails, never before it has returned; NULL if nobody cares
 *
 * Commands are carried out in the order in which they were sent. One that is given up after
 * @timeout_ms may still be carried out later.
 *
 * Return: 0; -ECONNRESET when the connection is over or not ready; -EBUSY with too many outstanding;
 * -ENOMEM
 */
int qmp_ask(struct qmp *q, const char *command, json_t *args, int fd, unsigned int timeout_ms,
	    qmp_done_fn *done, void *arg);

#endif
