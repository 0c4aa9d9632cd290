/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at a QEMU's devices: when it is attached, with each migration, in each pause. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/qemu/qemu_devices.h"
#include "guest/qemu/qemu_impl.h"
#include "guest/qemu/qemu_proc.h"
#include "uffd/uffd_worker.h"
#include "util/log.h"

#define VHOST_NET "/dev/vhost-net"

/** struct ask - a question of qemu_look_again() */
static const struct ask {
	enum qemu_query query;
	const char *command, *args;
} asks[QEMU_LOOKS] = {
	{QEMU_Q_DEVICES, "qom-list", "{\"path\": \"/machine/peripheral\"}"},
	{QEMU_Q_ANON_DEVICES, "qom-list", "{\"path\": \"/machine/peripheral-anon\"}"},
	{QEMU_Q_OBJECTS, "qom-list", "{\"path\": \"/objects\"}"},
	{QEMU_Q_NETWORK, "human-monitor-command", "{\"command-line\": \"info network\"}"},
	{QEMU_Q_MIGRATE, "query-migrate", NULL},
	{QEMU_Q_NODES, "query-named-block-nodes", "{\"flat\": true}"},
	{QEMU_Q_BLOCK, "query-block", NULL},
	{QEMU_Q_PCI, "query-pci", NULL},
};

/*
 * vhost-net's threads write through QEMU's own page tables. Where such writes are seen it is nothing special;
 * where that cannot be shown it stays refused.
 */
static void try_vhost(struct qemu *v)
{
	struct error err = {0};
	char *more;

	if (v->vhost_tried || qemu_proc_fd_of(v->g.pid, VHOST_NET) < 0)
		return;
	v->vhost_tried = true;
	if (uffd_worker_seen(&err)) {
		log_info("guest %s: vhost-net: %s", v->g.name, err.msg);
		return;
	}
	if (asprintf(&more, "%s%s" VHOST_NET, v->no_dma ?: "", v->no_dma ? " " : "") < 0)
		return;
	free(v->no_dma);
	v->no_dma = more;
	log_info("guest %s: what vhost-net writes is seen on this host, as a probe shows",
		 v->g.name);
}

/* All blocks are alike: a device can be told to write to any part of the guest's memory. */
static void judge(struct qemu *v, json_t *const got[QEMU_Q_COUNT], struct error *err)
{
	struct qemu_devices d = {got[QEMU_Q_DEVICES], got[QEMU_Q_ANON_DEVICES],
				 got[QEMU_Q_OBJECTS], got[QEMU_Q_NODES],
				 got[QEMU_Q_NETWORK], got[QEMU_Q_MIGRATE]};
	struct guest *g = &v->g;
	struct qemu_writers w;

	try_vhost(v);
	qemu_devices_judge(g->pid, &d, v->no_dma, &w);
	memcpy(g->dma, w.dma, sizeof(g->dma));
	for (uint16_t i = 0; i < g->nblocks; i++)
		if (w.n)
			g->blocks[i].flags &= ~GUEST_BLOCK_NO_DMA;
		else
			g->blocks[i].flags |= GUEST_BLOCK_NO_DMA;
	if (error_is_set(&w.cannot))
		error_set(err, -EOPNOTSUPP, w.cannot.code, "%s", w.cannot.msg);
}

void qemu_look_first(struct qemu *v, json_t *const got[QEMU_Q_COUNT])
{
	if (v->no_dma)
		log_notice("guest %s: that these write into no memory unseen is the operator's "
			   "word: %s",
			   v->g.name, v->no_dma);
	judge(v, got, &v->g.cannot);
}

int qemu_look_stands(struct qemu *v, struct error *err)
{
	struct qemu_writers w;
	const char *why;

	qemu_devices_opened(v->g.pid, v->no_dma, &w);
	why = error_is_set(&w.cannot) ? w.cannot.msg : v->g.dma[0] ? "" : w.dma;
	return *why ? error_set(err, -EBUSY, "devices-changed",
				"its devices have changed since the migration began: %s; try again",
				why)
		    : 0;
}

/* --- again --------------------------------------------------------------------------------------- */

static void on_looked(struct qemu_op *op, int ret, const json_t *result, const struct error *err);

static void ask_next(struct qemu_op *op)
{
	const struct ask *a = &asks[op->at];

	qemu_op_go(op, a->command, a->args ? json_loads(a->args, 0, NULL) : NULL, on_looked);
}

static void on_looked(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	json_t *got[QEMU_Q_COUNT] = {NULL};
	struct error why = {0};

	/* There are machines without PCI. */
	if (ret < 0 && (ret != -EREMOTEIO || asks[op->at].query != QEMU_Q_PCI)) {
		qemu_op_end(op, ret, err, -1);
		return;
	}
	op->got[op->at++] = ret < 0 ? NULL : json_incref((json_t *)result);
	if (op->at < QEMU_LOOKS) {
		ask_next(op);
		return;
	}
	for (size_t i = 0; i < QEMU_LOOKS; i++)
		got[asks[i].query] = op->got[i];
	qemu_facts_again(op->v->g.facts, got);
	judge(op->v, got, &why);
	qemu_op_end(op, error_is_set(&why) ? -EOPNOTSUPP : 0, &why, -1);
}

int qemu_look_again(struct guest *g, guest_done_fn *done, void *arg)
{
	struct qemu *v = qemu_of(g);
	struct qemu_op *op = qemu_op_new(v, done, arg);

	if (!op)
		return qemu_op_refused(v);
	return qemu_op_later(op, 1, ask_next) ? qemu_op_drop(op, -ENOMEM) : 0;
}
