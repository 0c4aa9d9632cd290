/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's side of a session: the whole agent, a native guest, played here, that is attached from the start, and a
 * destination that says anything on the connections that the agent makes. A byte says what comes next and on which
 * connection; what no mutation could get right is filled in where the byte says so: the barrier that an answer is due to.
 *
 * The guest's memory is this process's own (fuzz_fd.h).
 */
#include <errno.h>
#include <pthread.h>
#include "fuzz/lib/fuzz_fd.h"
#include "fuzz/lib/fuzz_source.h"
#include "fuzz/lib/plain_chan.h"
#include "guest/gwire.h"
#include "msg.h"
#include "util/bytes.h"
#include "util/cleanup.h"

#define CONNS 8

/**
 * struct there - the other end
 * @lock:	of @conns and @n: it is threads that dial
 * @conns, @n:	in the order in which they were made; -1: closed again
 * @pass, @number: of the last BARRIER on each
 */
struct there {
	pthread_mutex_t lock;
	int conns[CONNS];
	unsigned int n;
	uint32_t pass[CONNS], number[CONNS];
};

/** struct vm - the guest; @uffd: that it has made; -1 */
struct vm {
	int sock;
	int uffd;
};

static int on_dial(void *arg, int fd)
{
	struct there *t = arg;
	int r = -ECONNREFUSED;

	pthread_mutex_lock(&t->lock);
	if (t->n < CONNS) {
		t->conns[t->n++] = fd;
		r = 0;
	}
	pthread_mutex_unlock(&t->lock);
	return r;
}

/* --- the guest --- */

static void tell(struct vm *g, struct gwire_msg *m, int fd)
{
	uint8_t buf[1024];
	ssize_t n;

	m->nfds = fd >= 0;
	n = gwire_encode(m, buf, sizeof(buf));
	if (n > 0)
		gwire_send(g->sock, buf, (size_t)n, fd);
}

static void attach(struct vm *g, const char *dir)
{
	struct gwire_msg hello = {
		.type = GWIRE_HELLO,
		.u.hello = {.version = 1, .name = "vm", .uuid = {1, 2, 3}, .blocks = 1}};
	struct gwire_msg block = {.type = GWIRE_BLOCK,
				  .u.block = {.length = FUZZ_MEMORY_LEN,
					      .flags = GWIRE_BLOCK_NO_DMA,
					      .page_size = 4096,
					      .address = FUZZ_MEMORY,
					      .name = "ram"}};
	struct gwire_msg end = {.type = GWIRE_HELLO_END};

	*g = (struct vm){fuzz_connect(dir, "attach", SOCK_SEQPACKET), -1};
	tell(g, &hello, -1);
	tell(g, &block, fuzz_memory());
	tell(g, &end, -1);
}

static void answer(struct vm *g, const struct gwire_msg *m, int fd)
{
	struct gwire_msg done = {.type = GWIRE_DONE, .id = m->id};
	int send = -1;

	if (m->type == GWIRE_UFFD) {
		/* One of its own each time, as a guest does; the one before goes with its agent's. */
		if (g->uffd >= 0)
			close(g->uffd);
		g->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
		send = g->uffd;
	} else if (m->type == GWIRE_UFFD_CLOSE && g->uffd >= 0) {
		close(steal_fd(&g->uffd));
	} else if (m->type == GWIRE_SAVE && fd >= 0) {
		done.u.done.detail = write(fd, "state", 5) == 5 ? 5 : 0;
	}
	if (m->id)
		tell(g, &done, send);
}

static void serve(struct vm *g)
{
	static struct gwire_range ranges[GWIRE_RANGES_MAX];
	static uint8_t buf[GWIRE_PACKET_MAX];
	struct gwire_msg m;
	const char *what;
	ssize_t n;

	for (;;) {
		CLEANUP_CLOSE int fd = -1;

		n = gwire_recv(g->sock, buf, &fd, NULL);
		if (n <= 0)
			return;
		if (!gwire_decode(buf, (size_t)n, ranges, &m, &what))
			answer(g, &m, fd);
	}
}

/* --- the destination --- */

/* Of what was said to it only barriers matter: they end what is under way. */
static void hear(struct there *t)
{
	static uint8_t buf[1 << 20];

	pthread_mutex_lock(&t->lock);
	for (unsigned int i = 0; i < t->n; i++) {
		ssize_t n = t->conns[i] < 0 ? 0 : recv(t->conns[i], buf, sizeof(buf), MSG_DONTWAIT);
		const uint8_t *p = n >= 16 ? buf + n - 16 : NULL;

		if (!p || p[0] != 8 || p[4] != MSG_BARRIER)
			continue;
		memcpy(&t->pass[i], p + 8, 4);
		memcpy(&t->number[i], p + 12, 4);
	}
	pthread_mutex_unlock(&t->lock);
}

/* Return: whether this answers the last barrier, whatever it says */
static bool is_ack(uint8_t op, struct fuzz_in piece)
{
	return op & 4 && piece.n == 16 && piece.p[4] == MSG_BARRIER_ACK;
}

static void say(struct there *t, uint8_t op, struct fuzz_in piece)
{
	unsigned int i = (op >> 3) % CONNS;
	uint8_t *copy = fuzz_copy(piece);

	if (is_ack(op, piece)) {
		memcpy(copy + 8, &t->pass[i], 4);
		memcpy(copy + 12, &t->number[i], 4);
		t->number[i] = 0;
	}
	pthread_mutex_lock(&t->lock);
	if (i < t->n && t->conns[i] >= 0)
		(void)!send(t->conns[i], copy, piece.n, MSG_NOSIGNAL | MSG_DONTWAIT);
	pthread_mutex_unlock(&t->lock);
	free(copy);
}

static void hang_up(struct there *t, unsigned int i)
{
	pthread_mutex_lock(&t->lock);
	if (i < t->n && t->conns[i] >= 0)
		close(steal_fd(&t->conns[i]));
	pthread_mutex_unlock(&t->lock);
}

/* Threads of the agent have their say, too. */
static void turn(struct source *s, struct vm *g, struct there *t, unsigned int times)
{
	while (times--) {
		fuzz_turns(s->loop, 2);
		serve(g);
		fuzz_turns(s->loop, 1);
		hear(t);
		if (times)
			usleep(200);
	}
}

/* Return: whether what is to be answered has come */
static bool due(struct there *t, uint8_t op, struct fuzz_in piece)
{
	unsigned int i = (op >> 3) % CONNS;
	bool r;

	pthread_mutex_lock(&t->lock);
	r = i < t->n && (!is_ack(op, piece) || t->number[i]);
	pthread_mutex_unlock(&t->lock);
	return r;
}

/* The other side is not slower than its threads: it answers when there is something to be answered. */
static void say_in_time(struct source *s, struct vm *g, struct there *t, uint8_t op,
			struct fuzz_in piece)
{
	for (int i = 0; op & 4 && i < 50 && !due(t, op, piece); i++)
		turn(s, g, t, 2);
	if (op & 4 && !is_ack(op, piece))
		turn(s, g, t, 30);
	if (!is_ack(op, piece) || due(t, op, piece))
		say(t, op, piece);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	struct there t = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct source s = {.started_us = 1};
	struct error err = {0};
	char dir[FUZZ_DIR_MAX];
	struct vm g;

	fuzz_memory();
	memset((void *)FUZZ_MEMORY, 7, FUZZ_MEMORY_LEN / 2);
	fuzz_dir_new(dir);
	fuzz_source_new(&s, dir);
	FUZZ_CHECK(!source_start(&s, &err));
	plain_on_dial(on_dial, &t);
	attach(&g, dir);
	turn(&s, &g, &t, 2);
	while (in.n) {
		uint8_t op = fuzz_u8(&in);

		if ((op & 3) == 3 && op & 4) {
			fuzz_post(s.loop, dir, fuzz_piece(&in));
		} else if ((op & 3) == 3) {
			hang_up(&t, (op >> 3) % CONNS);
		} else if ((op & 3) == 2) {
			fuzz_send(g.sock, fuzz_piece(&in), op >> 3, false);
		} else {
			say_in_time(&s, &g, &t, op, fuzz_piece(&in));
		}
		turn(&s, &g, &t, op & 1 ? 8 : 1);
	}
	turn(&s, &g, &t, 3);
	plain_on_dial(NULL, NULL);
	for (unsigned int i = 0; i < CONNS; i++)
		hang_up(&t, i);
	turn(&s, &g, &t, 2);
	close(g.sock);
	if (g.uffd >= 0)
		close(g.uffd);
	fuzz_turns(s.loop, 3);
	source_stop(&s);
	fuzz_dir_free(dir);
	return 0;
}
