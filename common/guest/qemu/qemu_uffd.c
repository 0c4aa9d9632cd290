/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A userfaultfd made inside QEMU, and other system calls there. An errand's thread has them injected
 * (inject.h), because that waits for QEMU's main thread.
 *
 * Rule 5 and 8: the kept copy stays open in QEMU whatever becomes of this agent; the note "decant-uffd",
 * made before the descriptor, tells a successor what it was for. One that is not kept is closed in the
 * same stop in which it was made.
 *
 * Never while a missing fault may be pending: the callers' duty, who do all this before memory is
 * registered or after all of it is there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/qemu/inject.h"
#include "guest/qemu/qemu_impl.h"
#include "guest/qemu/qemu_proc.h"
#include "util/cleanup.h"
#include "util/log.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00) /* kernel 6.1 */
#endif
/* What nobody should notice. */
#define LONG_US 5000u
#define DEVICE  "/dev/userfaultfd"

static struct qemu_op *op_of(struct errand *e)
{
	return (struct qemu_op *)((char *)e - offsetof(struct qemu_op, errand));
}

static void note_stop(struct qemu *v, const struct qemu_op *op)
{
	if (!op->us)
		return;
	if (op->us > v->g.stopped_us)
		v->g.stopped_us = op->us;
	if (op->us > LONG_US)
		log_warn("guest %s: a thread of QEMU stood for %llu us, longer than %u: this host "
			 "is too busy%s",
			 v->g.name, (unsigned long long)op->us, LONG_US,
			 op->pushed ? "" : ", and this agent may not hurry (CAP_SYS_NICE)");
	else
		log_info("guest %s: a thread of QEMU stood for %llu us", v->g.name,
			 (unsigned long long)op->us);
	if (v->g.on_stop && !v->freed)
		v->g.on_stop(v->g.arg, &v->g, op->us);
}

static void take_stop(struct qemu_op *op, const struct inject_script *s)
{
	op->us = s->us;
	op->pushed = s->pushed;
}

/* --- making one --------------------------------------------------------------------------------- */

/* By the system call, or out of /dev/userfaultfd, which is @op->number there. */
static struct inject_call call_to_make(const struct qemu_op *op)
{
	const uint64_t flags = O_CLOEXEC | O_NONBLOCK;

	if (op->how == GUEST_UFFD_DEVICE)
		return (struct inject_call){
			.nr = SYS_ioctl,
			.args = {(uint64_t)op->number, USERFAULTFD_IOC_NEW, flags}};
	return (struct inject_call){.nr = SYS_userfaultfd, .args = {flags}};
}

static int run_make(struct errand *e, struct error *err)
{
	struct qemu_op *op = op_of(e);
	struct inject_call call = call_to_make(op);
	struct inject_script s = {.pid = op->v->g.pid,
				  .pidfd = op->v->g.pidfd,
				  .calls = &call,
				  .n = 1,
				  .fetch = true,
				  .keep = op->keep};
	int r = inject_run(&s, err);

	op->fd = s.fd;
	take_stop(op, &s);
	if (!r)
		r = call.result < 0 ? (int)call.result : s.fd < 0 ? -EIO : 0;
	if (r < 0 && op->how == GUEST_UFFD_DEVICE)
		return error_set(err, r, "userfaultfd", "%s opened by this agent: %s", DEVICE,
				 strerror(-r));
	if (r < 0)
		return error_set(err, r, "userfaultfd", "userfaultfd(2) in QEMU: %s", strerror(-r));
	if (op->keep)
		op->number = (int)call.result;
	return 0;
}

static void forget_note(struct qemu *v)
{
	qemu_tell(v, "object-del", json_pack("{s:s}", "id", QEMU_KEPT));
}

static void forget_device(struct qemu *v)
{
	qemu_tell(v, "closefd", json_pack("{s:s}", "fdname", QEMU_DEVICE_FD));
}

static void make_by_device(struct qemu_op *op);

static void done_make(struct errand *e)
{
	struct qemu_op *op = op_of(e);
	struct qemu *v = op->v;

	note_stop(v, op);
	if (op->how == GUEST_UFFD_DEVICE)
		forget_device(v);
	if (e->ret == -EPERM && op->how == GUEST_UFFD_SYSCALL &&
	    strcmp(e->err.code, "ptrace-refused") != 0) {
		make_by_device(op);
		return;
	}
	if (e->ret < 0) {
		if (op->keep)
			forget_note(v);
		qemu_op_end(op, e->ret, &e->err, -1);
		return;
	}
	v->g.uffd_how = op->how;
	if (op->keep) {
		v->g.kept_uffd = true;
		v->g.kept_tag = op->tag;
		v->kept_fd = op->number;
	}
	qemu_op_end(op, 0, NULL, steal_fd(&op->fd));
}

static void start_make(struct qemu_op *op)
{
	int r = errand_start(&op->errand, op->v->g.loop, run_make, done_make);

	if (r < 0)
		qemu_op_end(op, r, NULL, -1);
}

/* A QEMU without privilege is given a device that this agent has opened. */
static void on_device(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	(void)result;
	if (!ret) {
		op->number = qemu_proc_fd_of(op->v->g.pid, DEVICE);
		ret = MIN(op->number, 0);
	}
	if (ret < 0) {
		forget_device(op->v);
		if (op->keep)
			forget_note(op->v);
		qemu_op_end(op, ret, err, -1);
		return;
	}
	start_make(op);
}

static void make_by_device(struct qemu_op *op)
{
	CLEANUP_CLOSE int fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	int r;

	op->how = GUEST_UFFD_DEVICE;
	if (fd < 0) {
		if (op->keep)
			forget_note(op->v);
		qemu_op_failf(op, -EPERM, "userfaultfd",
			      "QEMU's process may not make a userfaultfd and %s cannot be opened "
			      "here: %m; give QEMU CAP_SYS_PTRACE, set "
			      "vm.unprivileged_userfaultfd=1, or let this agent open the device",
			      DEVICE);
		return;
	}
	r = qemu_op_ask(op, "getfd", json_pack("{s:s}", "fdname", QEMU_DEVICE_FD), fd,
			QEMU_TIMEOUT_MS, on_device);
	if (r < 0)
		qemu_op_end(op, r, NULL, -1);
}

static void on_noted(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	(void)result;
	if (ret < 0)
		qemu_op_end(op, ret, err, -1);
	else
		start_make(op);
}

int qemu_uffd_make(struct guest *g, bool keep, uint32_t tag, guest_done_fn *done, void *arg)
{
	struct qemu *v = qemu_of(g);
	struct qemu_op *op;
	char data[16];
	int r;

	if (keep && g->kept_uffd)
		return -EBUSY;
	op = qemu_op_new(v, done, arg);
	if (!op)
		return qemu_op_refused(v);
	op->keep = keep;
	op->tag = tag;
	op->how = GUEST_UFFD_SYSCALL;
	if (!keep) {
		r = errand_start(&op->errand, g->loop, run_make, done_make);
		return r < 0 ? qemu_op_drop(op, r) : 0;
	}
	snprintf(data, sizeof(data), "%u", tag);
	r = qemu_op_ask(
		op, "object-add",
		json_pack("{s:s, s:s, s:s}", "qom-type", "secret", "id", QEMU_KEPT, "data", data),
		-1, QEMU_TIMEOUT_MS, on_noted);
	return r < 0 ? qemu_op_drop(op, r) : 0;
}

/* --- having it again, and closing it ------------------------------------------------------------- */

static void fetch_again(struct qemu_op *op)
{
	int fd = inject_fetch(op->v->g.pidfd, op->v->kept_fd);

	if (fd < 0)
		qemu_op_failf(op, fd, "userfaultfd", "the kept userfaultfd: %s", strerror(-fd));
	else
		qemu_op_end(op, 0, NULL, fd);
}

int qemu_uffd_again(struct guest *g, guest_done_fn *done, void *arg)
{
	struct qemu *v = qemu_of(g);
	struct qemu_op *op;

	if (!g->kept_uffd)
		return -ENOENT;
	op = qemu_op_new(v, done, arg);
	if (!op)
		return qemu_op_refused(v);
	return qemu_op_later(op, 1, fetch_again) ? qemu_op_drop(op, -ENOMEM) : 0;
}

static int run_close(struct errand *e, struct error *err)
{
	struct qemu_op *op = op_of(e);
	struct inject_call call = {.nr = SYS_close, .args = {(uint64_t)op->number}};
	struct inject_script s = {.pid = op->v->g.pid, .pidfd = -1, .calls = &call, .n = 1};
	int r;

	/* The number may be another descriptor's by now, were QEMU to have closed ours. */
	if (qemu_proc_fd_of(op->v->g.pid, QEMU_UFFD_LINK) < 0)
		return 0;
	r = inject_run(&s, err);
	take_stop(op, &s);
	return r < 0 ? error_set(err, r, NULL, "closing a descriptor there: %s", strerror(-r)) : 0;
}

static void on_forgotten(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	(void)result;
	/* A descriptor without a note is none. */
	qemu_op_end(op, ret == -EREMOTEIO ? 0 : ret, err, -1);
}

static void done_close(struct errand *e)
{
	struct qemu_op *op = op_of(e);
	struct qemu *v = op->v;

	note_stop(v, op);
	if (e->ret < 0) {
		qemu_op_end(op, e->ret, &e->err, -1);
		return;
	}
	v->g.kept_uffd = false;
	v->g.kept_tag = 0;
	v->kept_fd = -1;
	qemu_op_go(op, "object-del", json_pack("{s:s}", "id", QEMU_KEPT), on_forgotten);
}

static void nothing_to_close(struct qemu_op *op)
{
	qemu_op_end(op, 0, NULL, -1);
}

int qemu_uffd_close(struct guest *g, guest_done_fn *done, void *arg)
{
	struct qemu *v = qemu_of(g);
	struct qemu_op *op = qemu_op_new(v, done, arg);
	int r;

	if (!op)
		return qemu_op_refused(v);
	if (!g->kept_uffd)
		return qemu_op_later(op, 1, nothing_to_close) ? qemu_op_drop(op, -ENOMEM) : 0;
	op->number = v->kept_fd;
	r = errand_start(&op->errand, g->loop, run_close, done_close);
	return r < 0 ? qemu_op_drop(op, r) : 0;
}

/* --- transparent huge pages, merged pages --------------------------------------------------------- */

/*
 * Blocks of which QEMU has asked for huge pages; on huge-page files there is nothing to ask for. And private
 * memory that the kernel may merge: a page that was merged has lost its write protection.
 */
static void find_advised(struct qemu *v)
{
	for (uint16_t i = 0; i < v->g.nblocks; i++) {
		const struct guest_block *b = &v->g.blocks[i];

		v->advised[i] = 0;
		if (b->kind != GUEST_BLOCK_HUGETLB &&
		    qemu_proc_has_flag(v->g.pid, b->addr, "hg") == 1)
			v->advised[i] |= QEMU_ADVISED_HUGE;
		if (b->kind == GUEST_BLOCK_ANON && qemu_proc_has_flag(v->g.pid, b->addr, "mg") == 1)
			v->advised[i] |= QEMU_ADVISED_MERGE;
	}
}

static void add_advice(struct inject_script *s, const struct guest_block *b, int advice)
{
	s->calls[s->n++] = (struct inject_call){.nr = SYS_madvise,
						.args = {b->addr, b->length, (uint64_t)advice}};
}

static int advise(struct qemu_op *op, int huge, int merge, struct error *err)
{
	const struct qemu *v = op->v;
	CLEANUP_FREE struct inject_call *calls = calloc(2u * v->g.nblocks + 1, sizeof(*calls));
	struct inject_script s = {.pid = v->g.pid, .pidfd = -1, .calls = calls, .all = true};
	int r;

	if (!calls)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	for (uint16_t i = 0; i < v->g.nblocks; i++) {
		if (v->advised[i] & QEMU_ADVISED_HUGE)
			add_advice(&s, &v->g.blocks[i], huge);
		if (v->advised[i] & QEMU_ADVISED_MERGE)
			add_advice(&s, &v->g.blocks[i], merge);
	}
	r = inject_run(&s, err);
	take_stop(op, &s);
	return r < 0 ? error_set(err, r, NULL, "madvise(2) in QEMU: %s", strerror(-r)) : 0;
}

static bool any_advised(const struct qemu *v)
{
	for (uint16_t i = 0; v->advised && i < v->g.nblocks; i++)
		if (v->advised[i])
			return true;
	return false;
}

static int run_prepare(struct errand *e, struct error *err)
{
	struct qemu_op *op = op_of(e);

	find_advised(op->v);
	return any_advised(op->v) ? advise(op, MADV_NOHUGEPAGE, MADV_UNMERGEABLE, err) : 0;
}

static int run_finish(struct errand *e, struct error *err)
{
	struct qemu_op *op = op_of(e);

	return any_advised(op->v) ? advise(op, MADV_HUGEPAGE, MADV_MERGEABLE, err) : 0;
}

static void done_advice(struct errand *e)
{
	struct qemu_op *op = op_of(e);

	note_stop(op->v, op);
	qemu_op_end(op, e->ret, &e->err, -1);
}

static int advice_errand(struct guest *g, errand_run_fn *run, guest_done_fn *done, void *arg)
{
	struct qemu *v = qemu_of(g);
	struct qemu_op *op = qemu_op_new(v, done, arg);
	int r;

	if (!op)
		return qemu_op_refused(v);
	if (!v->advised)
		v->advised = calloc(g->nblocks + 1u, sizeof(*v->advised));
	r = v->advised ? errand_start(&op->errand, g->loop, run, done_advice) : -ENOMEM;
	return r < 0 ? qemu_op_drop(op, r) : 0;
}

int qemu_uffd_prepare(struct guest *g, guest_done_fn *done, void *arg)
{
	return advice_errand(g, run_prepare, done, arg);
}

static void finish_advice(struct qemu_op *op)
{
	int r = errand_start(&op->errand, op->v->g.loop, run_finish, done_advice);

	if (r < 0)
		qemu_op_end(op, r, NULL, -1);
}

/* Answered before anybody lets go of the monitor: decant-source takes no QEMU that still has the note. */
static void on_arrived(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	(void)result;
	if (ret < 0 && ret != -EREMOTEIO) {
		qemu_op_end(op, ret, err, -1);
		return;
	}
	op->v->g.arriving = false;
	finish_advice(op);
}

int qemu_uffd_finish(struct guest *g, guest_done_fn *done, void *arg)
{
	struct qemu *v = qemu_of(g);
	struct qemu_op *op;
	int r;

	if (!g->arriving)
		return advice_errand(g, run_finish, done, arg);
	op = qemu_op_new(v, done, arg);
	if (!op)
		return qemu_op_refused(v);
	r = qemu_op_ask(op, "object-del", json_pack("{s:s}", "id", QEMU_ARRIVING), -1,
			QEMU_TIMEOUT_MS, on_arrived);
	return r < 0 ? qemu_op_drop(op, r) : 0;
}
