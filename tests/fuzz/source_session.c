/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's side of a session: the whole agent, a native guest, played here, that is attached from the start, and a
 * destination that says anything on the connections that the agent makes. A byte says what comes next and on which
 * connection; what no mutation could get right is filled in where the byte says so: the barrier that an answer is due to, and
 * what was offered.
 *
 * The guest's memory is this process's own (fuzz_fd.h).
 */
#include <errno.h>
#include <pthread.h>
#include "fuzz/lib/fuzz_client.h"
#include "fuzz/lib/fuzz_fd.h"
#include "fuzz/lib/fuzz_source.h"
#include "fuzz/lib/fuzz_vm.h"
#include "fuzz/lib/plain_chan.h"
#include "msg.h"
#include "util/bytes.h"
#include "util/cleanup.h"

#define CONNS         12
#define BARRIERS      8
#define BARRIER_LEN   16
#define HELLO_LEN     76
#define HELLO_ACK_LEN 56
/* A while passes: enough for the first of growing pauses, and for what is looked after ten times a second. */
#define WAIT       0xfe
#define WAIT_TURNS 400
#define WAITS_MAX  4

/** struct barriers - @body: of those that were heard and not answered, in their order */
struct barriers {
	unsigned int heard, answered;
	uint8_t body[BARRIERS][8];
};

/**
 * struct there - the other end
 * @lock:	of @conns and @n: it is threads that dial
 * @conns, @n:	in the order in which they were made; -1: closed again
 * @due:	barriers on each
 * @greeted:	HELLO has come on it, with @offered and @kind
 */
struct there {
	pthread_mutex_t lock;
	int conns[CONNS];
	unsigned int n;
	struct barriers due[CONNS];
	bool greeted[CONNS];
	uint64_t offered[CONNS];
	uint8_t kind[CONNS];
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

/* --- the destination --- */

/* What is sent of the guest's memory has no such bytes. */
static void hear_barriers(struct there *t, unsigned int i, const uint8_t *p, size_t n)
{
	static const uint8_t header[MSG_HEADER_LEN] = {8, 0, 0, 0, MSG_BARRIER};
	const uint8_t *at;

	while ((at = memmem(p, n, header, sizeof(header))) && at + BARRIER_LEN <= p + n) {
		struct barriers *b = &t->due[i];

		if (b->heard - b->answered < BARRIERS)
			memcpy(b->body[b->heard++ % BARRIERS], at + 8, 8);
		n -= (size_t)(at + BARRIER_LEN - p);
		p = at + BARRIER_LEN;
	}
}

/* Of what was said to it HELLO matters, and barriers: they end what is under way. */
static void hear(struct there *t)
{
	static uint8_t buf[1 << 20];

	pthread_mutex_lock(&t->lock);
	for (unsigned int i = 0; i < t->n; i++) {
		ssize_t n = t->conns[i] < 0 ? 0 : recv(t->conns[i], buf, sizeof(buf), MSG_DONTWAIT);

		if (n >= HELLO_LEN && buf[4] == MSG_HELLO) {
			memcpy(&t->offered[i], buf + 16, 8);
			t->kind[i] = buf[24];
			t->greeted[i] = true;
		}
		if (n > 0)
			hear_barriers(t, i, buf, (size_t)n);
	}
	pthread_mutex_unlock(&t->lock);
}

/* Return: whether this answers the next barrier, whatever it says */
static bool is_ack(uint8_t op, struct fuzz_in piece)
{
	return op & 4 && piece.n == 16 && piece.p[4] == MSG_BARRIER_ACK;
}

/* No more capabilities than were offered, and a token where one belongs. */
static void put_ack_right(const struct there *t, unsigned int i, uint8_t *p)
{
	for (int k = 0; k < 8; k++)
		p[16 + k] &= ((const uint8_t *)&t->offered[i])[k];
	if (t->kind[i] == MSG_CHANNEL_CONTROL)
		p[24] |= 1;
	else
		memset(p + 24, 0, MSG_TOKEN_LEN);
}

static void say(struct there *t, uint8_t op, struct fuzz_in piece)
{
	unsigned int i = (op >> 3) % CONNS;
	uint8_t *copy = fuzz_copy(piece);

	if (is_ack(op, piece) && t->due[i].answered < t->due[i].heard)
		memcpy(copy + 8, t->due[i].body[t->due[i].answered++ % BARRIERS], 8);
	if (op & 4 && piece.n == HELLO_ACK_LEN && copy[4] == MSG_HELLO_ACK)
		put_ack_right(t, i, copy);
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
static void turn(struct source *s, struct fuzz_vm *g, struct there *t, unsigned int times)
{
	while (times--) {
		fuzz_turns(s->loop, 2);
		fuzz_vm_serve(g);
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
	r = i < t->n && t->greeted[i] &&
	    (!is_ack(op, piece) || t->due[i].answered < t->due[i].heard);
	pthread_mutex_unlock(&t->lock);
	return r;
}

/* The other side is not slower than its threads: it answers when there is something to be answered. */
static void say_in_time(struct source *s, struct fuzz_vm *g, struct there *t, uint8_t op,
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
	unsigned int waited = 0;
	char dir[FUZZ_DIR_MAX];
	struct fuzz_vm g;
	struct fuzz_client c;

	fuzz_memory();
	memset((void *)FUZZ_MEMORY, 7, FUZZ_MEMORY_LEN / 2);
	fuzz_dir_new(dir);
	fuzz_source_new(&s, dir);
	FUZZ_CHECK(!source_start(&s, &err));
	plain_on_dial(on_dial, &t);
	fuzz_vm_attach(&g, dir, fuzz_memory(), NULL);
	fuzz_client_begin(&c, s.loop, dir);
	turn(&s, &g, &t, 2);
	while (in.n) {
		uint8_t op = fuzz_u8(&in);

		if (op == WAIT) {
			turn(&s, &g, &t, waited++ < WAITS_MAX ? WAIT_TURNS : 1);
		} else if ((op & 3) == 3 && op & 4) {
			fuzz_client_ask(&c, fuzz_piece(&in));
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
	fuzz_vm_end(&g);
	fuzz_client_end(&c);
	fuzz_turns(s.loop, 3);
	source_stop(&s);
	fuzz_dir_free(dir);
	return 0;
}
