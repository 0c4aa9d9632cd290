/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of QEMU's that is shared with nobody ("-m" alone), which is experimental.
 *
 * Its device state: x-ignore-shared leaves out shared memory only, and an ordinary migration would bring
 * all of it along. So QEMU is told to save its devices alone (xen-save-devices-state, which needs no Xen)
 * into a memory file. What is missing of an ordinary stream, as of one that was sent with
 * x-ignore-shared, is put around it here; the destination loads it like any other, whatever its own memory is.
 *
 * Which rules could be broken here: 4, were QEMU let run by the end of the saving: it goes back to the
 * run state that it had, which is paused, and gives the image locks up, which `cont` takes again. 5, were a
 * page at the destination not really taken away: madvise(2) says so, and what asked for it looks (place_discard.c).
 * And memory of devices that neither the state nor decant brings along would be lost without a word: a
 * machine that has some is refused, when it is found and again while it stands.
 */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/qemu/inject.h"
#include "guest/qemu/qemu_impl.h"
#include "guest/qemu/qemu_proc.h"
#include "util/cleanup.h"
#include "util/fdio.h"
#include "util/log.h"

#define CHUNK 65536
/* Of a turn of the loop, so that others get theirs. */
#define CHUNKS_A_TURN 16
#define FILE_LINK     "/memfd:" QEMU_STATE_FD " (deleted)"

/* --- what else there is -------------------------------------------------------------------------- */

/*
 * Firmware and what QEMU has made for it, which no guest can write: the other QEMU has the same. Of the
 * tables for ACPI it makes new ones when they are asked for.
 */
static bool is_rom(const char *name)
{
	static const char *const roms[] = {"pc.bios", "pc.rom", "isa-bios"};
	size_t len = strlen(name);

	for (size_t i = 0; i < ARRAY_SIZE(roms); i++)
		if (!strcmp(name, roms[i]))
			return true;
	return !strncmp(name, "/rom@", 5) || (len > 4 && !strcmp(name + len - 4, ".rom"));
}

static bool is_block(const struct qemu *v, const char *name)
{
	if (!strncmp(name, "/objects/", 9))
		name += 9;
	for (uint16_t i = 0; i < v->g.nblocks; i++)
		if (!strcmp(v->g.blocks[i].name, name))
			return true;
	return false;
}

bool qemu_private(const struct qemu *v)
{
	for (uint16_t i = 0; i < v->g.nblocks; i++)
		if (v->g.blocks[i].kind == GUEST_BLOCK_ANON)
			return true;
	return false;
}

/* Lines of `info ramblock` behind its head: "  NAME  4 KiB  0x…  0x…  0x…" */
int qemu_private_judge(const struct qemu *v, const json_t *ramblocks, struct error *err)
{
	const char *text = json_string_value(ramblocks);
	const char *line = text ? strchr(text, '\n') : NULL;
	unsigned int known = 0;
	char name[128];

	for (; line; line = strchr(line + 1, '\n')) {
		if (sscanf(line, "%127s", name) != 1)
			continue;
		if (is_block(v, name))
			known++;
		else if (!is_rom(name))
			return error_set(
				err, -EOPNOTSUPP, "device-memory",
				"\"%.80s\" is memory of a device, which QEMU leaves out of the "
				"state of a "
				"VM with private memory: start the VM without that device (-vga "
				"none, "
				"firmware by -bios), or with -object memory-backend-memfd,share=on",
				name);
	}
	return known >= v->g.nblocks ? 0
				     : error_set(err, -EOPNOTSUPP, "device-memory",
						 "QEMU does not tell what memory its devices have "
						 "(info ramblock), so "
						 "a VM with private memory cannot be moved");
}

/* --- saving -------------------------------------------------------------------------------------- */

static void put_be32(uint8_t *to, uint32_t v)
{
	memcpy(to, &(uint32_t){htobe32(v)}, sizeof(v));
}

/*
 * What a QEMU with x-ignore-shared says of itself at the head of a stream, behind the number and the version of its
 * format: the machine's name, and that it has left memory out, which the loading side compares.
 */
static int make_head(struct qemu_stream *s, const char *type, const uint8_t start[8])
{
	static const char tail[] = "-machine", sub[] = "configuration/capabilities";
	static const char cap[] = "x-ignore-shared";
	size_t len = type ? strlen(type) : 0, at = 8;
	uint8_t *h = s->head;

	if (len <= strlen(tail) || len > 128 || strcmp(type + len - strlen(tail), tail) != 0)
		return -EPROTO;
	len -= strlen(tail);
	memcpy(h, start, 8);
	h[at++] = 0x07; /* configuration */
	put_be32(h + at, (uint32_t)len);
	snprintf((char *)h + at + 4, sizeof(s->head) - at - 4, "%.*s", (int)len, type);
	at += 4 + len;
	h[at++] = 0x05; /* subsection, version 1, one capability */
	h[at++] = sizeof(sub) - 1;
	memcpy(h + at, sub, sizeof(sub) - 1);
	at += sizeof(sub) - 1;
	put_be32(h + at, 1);
	put_be32(h + at + 4, 1);
	h[at + 8] = sizeof(cap) - 1;
	memcpy(h + at + 9, cap, sizeof(cap) - 1);
	s->nhead = at + 9 + sizeof(cap) - 1;
	return 0;
}

/* Behind the last device an ordinary stream describes itself. This one does so in no words. */
static const uint8_t last_words[] = {0x06, 0, 0, 0, 0};

/* Return: how much of the stream's next bytes is in @buf, 0 at its end, -errno */
static ssize_t next_piece(struct qemu_stream *s, uint8_t buf[CHUNK])
{
	uint64_t body = s->size - 8, at = s->total;
	size_t n;
	int r;

	if (at < s->nhead) {
		memcpy(buf, s->head + at, s->nhead - at);
		return (ssize_t)(s->nhead - at);
	}
	at -= s->nhead;
	if (at < body) {
		n = MIN(body - at, (uint64_t)CHUNK);
		r = fdio_pread_full(s->file, buf, n, 8 + at);
		return r < 0 ? r : (ssize_t)n;
	}
	at -= body;
	memcpy(buf, last_words + at, sizeof(last_words) - at);
	return (ssize_t)(sizeof(last_words) - at);
}

static void deliver(struct qemu_op *op)
{
	struct qemu *v = op->v;
	struct qemu_stream *s = &v->stream;
	uint8_t buf[CHUNK];

	for (int i = 0; i < CHUNKS_A_TURN; i++) {
		ssize_t n = s->given_up ? s->given_up : next_piece(s, buf);
		int r = (int)MIN(n, 0);

		if (n == 0) {
			v->g.state_bytes = s->total;
			qemu_op_end(op, 0, NULL, -1);
			return;
		}
		if (n > 0) {
			s->total += (uint64_t)n;
			qemu_enter(v);
			r = s->chunk(op->arg, buf, (size_t)n);
			if (!qemu_leave(v) || v->stream.op != op)
				return; /* the callback has ended it */
		}
		if (r < 0) {
			qemu_op_end(op, r, NULL, -1);
			return;
		}
		if (r > 0) {
			s->waits = true;
			return;
		}
	}
	if (qemu_op_later(op, 1, deliver))
		qemu_op_end(op, -ENOMEM, NULL, -1);
}

void qemu_private_save_more(struct qemu *v)
{
	struct qemu_stream *s = &v->stream;

	if (!s->op || !s->waits)
		return;
	s->waits = false;
	if (qemu_op_later(s->op, 1, deliver))
		log_error("guest %s: out of memory", v->g.name);
}

static void forget_file(struct qemu *v)
{
	qemu_tell(v, "closefd", json_pack("{s:s}", "fdname", QEMU_STATE_FD));
}

static void on_saved(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	struct qemu_stream *s = &op->v->stream;
	uint8_t start[8];
	struct stat st;

	(void)result;
	forget_file(op->v);
	if (ret < 0 || s->given_up) {
		qemu_op_end(op, ret < 0 ? ret : s->given_up, err, -1);
		return;
	}
	if (fstat(s->file, &st) || fdio_pread_full(s->file, start, sizeof(start), 0) < 0 ||
	    make_head(s, json_string_value(json_object_get(op->v->g.facts, "machine")), start)) {
		qemu_op_failf(op, -EIO, "guest-state", "QEMU's state is none that is known here");
		return;
	}
	s->size = (uint64_t)st.st_size;
	if (s->nhead + s->size + sizeof(last_words) > GUEST_STATE_MAX)
		qemu_op_failf(op, -EFBIG, "guest-state", "its state is larger than 64 MiB");
	else
		deliver(op);
}

static void on_file(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	struct qemu *v = op->v;
	char path[48];
	int fd = ret < 0 ? ret : qemu_proc_fd_of(v->g.pid, FILE_LINK);
	int r = v->stream.given_up;

	(void)result;
	if (fd < 0 || r) {
		forget_file(v);
		qemu_op_end(op, fd < 0 ? fd : r, ret < 0 ? err : NULL, -1);
		return;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = qemu_op_ask(op, "xen-save-devices-state", json_pack("{s:s}", "filename", path), -1,
			QEMU_STATE_TIMEOUT_MS, on_saved);
	if (r < 0)
		qemu_op_end(op, r, NULL, -1);
}

static void on_ramblocks(struct qemu_op *op, int ret, const json_t *result, const struct error *err)
{
	struct qemu_stream *s = &op->v->stream;
	struct error why = {0};

	if (!ret)
		ret = qemu_private_judge(op->v, result, &why);
	if (!ret && s->given_up)
		ret = s->given_up;
	if (!ret) {
		s->file = memfd_create(QEMU_STATE_FD, MFD_CLOEXEC);
		ret = s->file < 0 ? -errno : 0;
	}
	if (!ret)
		ret = qemu_op_ask(op, "getfd", json_pack("{s:s}", "fdname", QEMU_STATE_FD), s->file,
				  QEMU_TIMEOUT_MS, on_file);
	if (ret < 0)
		qemu_op_end(op, ret, error_is_set(&why) ? &why : err, -1);
}

int qemu_private_save(struct qemu_op *op)
{
	return qemu_op_ask(op, "human-monitor-command",
			   json_pack("{s:s}", "command-line", "info ramblock"), -1, QEMU_TIMEOUT_MS,
			   on_ramblocks);
}

/* --- making holes at the destination ------------------------------------------------------------- */

static struct qemu_op *op_of(struct errand *e)
{
	return (struct qemu_op *)((char *)e - offsetof(struct qemu_op, errand));
}

static int run_punch(struct errand *e, struct error *err)
{
	struct qemu_op *op = op_of(e);
	const struct guest_block *b = &op->v->g.blocks[op->block];
	CLEANUP_FREE struct inject_call *calls = calloc(op->nranges, sizeof(*calls));
	struct inject_script s = {
		.pid = op->v->g.pid, .pidfd = -1, .calls = calls, .n = op->nranges};
	int r;

	if (!calls)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	for (size_t i = 0; i < s.n; i++)
		calls[i] = (struct inject_call){.nr = SYS_madvise,
						.args = {b->addr + op->ranges[i].offset,
							 op->ranges[i].length, MADV_DONTNEED}};
	r = inject_run(&s, err);
	for (size_t i = 0; !r && i < s.n; i++)
		r = (int)calls[i].result;
	return r < 0 ? error_set(err, r, NULL,
				 "block %s: madvise(2) in QEMU: %s; is its memory locked "
				 "(mem-lock=on)?",
				 b->name, strerror(-r))
		     : 0;
}

static void done_punch(struct errand *e)
{
	qemu_op_end(op_of(e), e->ret, &e->err, -1);
}

int qemu_private_punch(struct guest *g, uint16_t block, const struct guest_range *ranges, size_t n,
		       guest_done_fn *done, void *arg)
{
	struct qemu *v = qemu_of(g);
	struct qemu_op *op;
	int r;

	if (block >= g->nblocks || !n || n > GUEST_RANGES_MAX)
		return -EINVAL;
	op = qemu_op_new(v, done, arg);
	if (!op)
		return qemu_op_refused(v);
	op->block = block;
	op->nranges = n;
	op->ranges = calloc(n, sizeof(*op->ranges));
	if (!op->ranges)
		return qemu_op_drop(op, -ENOMEM);
	memcpy(op->ranges, ranges, n * sizeof(*op->ranges));
	r = errand_start(&op->errand, g->loop, run_punch, done_punch);
	return r < 0 ? qemu_op_drop(op, r) : 0;
}
