/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The attach socket, and what follows on it: guests and sharers that say anything, with descriptors of
 * any kind, while the agent asks a guest that it has taken for everything that there is. A byte says
 * what comes next: a packet (its length behind it) or a request of the agent's.
 */
#include <errno.h>
#include <string.h>
#include <sys/un.h>
#include "fuzz/lib/fuzz.h"
#include "fuzz/lib/fuzz_ask.h"
#include "fuzz/lib/fuzz_fd.h"
#include "guest/attach.h"
#include "guest/gmem.h"
#include "util/cleanup.h"

/** struct agent - what the socket's owner has: one guest, one sharer, and what was asked of it */
struct agent {
	struct loop *loop;
	struct attach *attach;
	struct guest *g;
	struct share *s;
	struct fuzz_asked asked;
};

/* --- the agent --- */

static void on_gone(void *arg, struct guest *g, enum guest_gone how)
{
	struct agent *a = arg;

	(void)how;
	FUZZ_CHECK(g == a->g);
	a->g = NULL;
	guest_free(g);
}

static void look_at_memory(const struct guest *g)
{
	struct error err = {0};
	uint8_t byte;

	for (uint16_t i = 0; i < g->nblocks; i++) {
		struct gmem m = {0};

		if (!gmem_open(&m, g, i, &err)) {
			gmem_check_hole(&m, 0, g->blocks[i].length, NULL);
			gmem_read(&m, 0, &byte, 1);
		}
		gmem_close(&m);
	}
}

static int on_guest(void *arg, struct guest *g, struct error *err)
{
	struct agent *a = arg;

	FUZZ_CHECK(guest_name_ok(g->name));
	if (a->g)
		return error_set(err, -EBUSY, "busy", "there is one");
	a->g = g;
	guest_watch(g, on_gone, NULL, a);
	look_at_memory(g);
	return 0;
}

static void on_map(void *arg, uint32_t id, const struct gwire_share *r)
{
	struct agent *a = arg;

	share_done(a->s, id, r->length & 0x1000 ? -EINVAL : 0, r->length & 0x2000, "");
}

static void on_unmap(void *arg, uint64_t address, uint64_t length)
{
	(void)arg;
	(void)address;
	(void)length;
}

static void on_sharer_gone(void *arg, bool dead)
{
	struct agent *a = arg;
	struct share *s = a->s;

	(void)dead;
	a->s = NULL;
	share_free(s);
}

static int on_sharer(void *arg, struct share *s, struct error *err)
{
	static const struct share_ops ops = {on_map, on_unmap, on_sharer_gone};
	struct agent *a = arg;

	if (a->s)
		return error_set(err, -EBUSY, "busy", "there is one");
	a->s = s;
	share_welcome(s, &ops, a);
	return 0;
}

/* --- the guest --- */

static int dial(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(sa.sun_path + 1, sizeof(sa.sun_path) - 1, "%s", path);
	FUZZ_CHECK(!connect(s, (struct sockaddr *)&sa, sizeof(sa)));
	return s;
}

static int listen_at(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(sa.sun_path + 1, sizeof(sa.sun_path) - 1, "%s", path);
	FUZZ_CHECK(!bind(s, (struct sockaddr *)&sa, sizeof(sa)) && !listen(s, 8));
	return s;
}

/* Whatever the agent said is thrown away, with what it sent along. */
static void drain(int sock)
{
	static uint8_t buf[65536];
	union {
		char bytes[CMSG_SPACE(8 * sizeof(int))];
		struct cmsghdr align;
	} control;

	for (;;) {
		struct iovec iov = {buf, sizeof(buf)};
		struct msghdr msg = {.msg_iov = &iov,
				     .msg_iovlen = 1,
				     .msg_control = control.bytes,
				     .msg_controllen = sizeof(control.bytes)};

		if (recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0)
			return;
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
			for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; i++)
				close(((int *)CMSG_DATA(c))[i]);
	}
}

static void play(struct agent *a, struct fuzz_in *in, const char *path)
{
	int sock = dial(path);

	fuzz_turns(a->loop, 1);
	while (in->n) {
		uint8_t op = fuzz_u8(in);

		if (op == 255) { /* another connection */
			close(sock);
			fuzz_turns(a->loop, 2);
			sock = dial(path);
		} else if (op >= 128) {
			if (a->g)
				fuzz_ask(a->g, op, &a->asked);
		} else {
			fuzz_send(sock, fuzz_piece(in), op & 7, op & 8);
		}
		fuzz_turns(a->loop, 1);
		drain(sock);
	}
	close(sock);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	struct agent a = {.loop = loop_new()};
	char path[40];
	struct attach_config ac = {.fn = on_guest, .share = on_sharer, .arg = &a};
	struct error err = {0};

	fuzz_memory();
	snprintf(path, sizeof(path), "decant-fuzz-attach.%d", (int)getpid());
	ac.listen_fd = listen_at(path);
	FUZZ_CHECK(!attach_new(a.loop, &ac, &a.attach, &err));
	play(&a, &in, path);
	fuzz_turns(a.loop, 4);
	guest_free(a.g);
	share_free(a.s);
	attach_free(a.attach);
	loop_free(a.loop);
	return 0;
}
