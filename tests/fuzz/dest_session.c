/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's side of a session: the whole agent, connections that say anything, and a native
 * guest, played here, that attaches when it is launched. A byte says what comes next and on which
 * connection; what no mutation could get right is filled in where the byte says so: the token that the
 * agent has made, digests, and the counts of COMPLETE.
 *
 * The guest's memory is this process's own (fuzz_fd.h). What would kill the guest ends its connection.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include "fuzz/lib/fuzz_dest.h"
#include "fuzz/lib/fuzz_fd.h"
#include "fuzz/lib/fuzz_vm.h"
#include "msg.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/digest.h"

#define CONNS   6
#define DONE_MS 2

/**
 * struct source - the other end
 * @conns:	-1 before the first use
 * @token:	of the last HELLO_ACK
 * @runs, @sum:	of PAGES that were said
 * @state, @nstate: device state that was said
 */
struct source {
	int conns[CONNS];
	uint8_t token[MSG_TOKEN_LEN];
	uint64_t runs, sum;
	uint8_t state[4096];
	size_t nstate;
};

/**
 * struct launch - see launch.h; there is at most one
 * @vm:		the guest
 * @waits:	it has not attached yet
 */
struct launch {
	launch_exit_fn *on_exit;
	void *arg;
	uint8_t token[MSG_TOKEN_LEN];
	struct fuzz_vm vm;
	bool waits;
};

/* launch.h has no context. */
static struct launch *launched;

/* --- launch.h ------------------------------------------------------------------------------------ */

int launch_start(struct loop *loop, const struct launch_spec *spec, launch_exit_fn *on_exit,
		 void *arg, struct launch **ret, struct error *err)
{
	(void)loop;
	if (launched)
		return error_set(err, -EBUSY, "busy", "there is a guest");
	launched = calloc(1, sizeof(*launched));
	*launched = (struct launch){on_exit, arg, {0}, FUZZ_VM_NONE, true};
	memcpy(launched->token, spec->token, sizeof(launched->token));
	*ret = launched;
	return 0;
}

void launch_last_words(const char *log_path, off_t from, char *out, size_t cap)
{
	(void)log_path;
	(void)from;
	if (cap)
		*out = '\0';
}

off_t launch_log_size(const char *log_path)
{
	(void)log_path;
	return 0;
}

void launch_watch(struct launch *l, launch_exit_fn *on_exit, void *arg)
{
	l->on_exit = on_exit;
	l->arg = arg;
}

pid_t launch_pid(const struct launch *l)
{
	(void)l;
	return getpid();
}

static void hang_up(struct launch *l)
{
	fuzz_vm_end(&l->vm);
	l->waits = false;
}

void launch_kill(struct launch *l)
{
	hang_up(l);
}

void launch_free(struct launch *l)
{
	if (!l)
		return;
	hang_up(l);
	launched = NULL;
	free(l);
}

/* In the place of libc's: nobody kills this process. */
int pidfd_send_signal(int pidfd, int sig, siginfo_t *info, unsigned int flags)
{
	(void)pidfd;
	(void)sig;
	(void)info;
	(void)flags;
	if (launched)
		hang_up(launched);
	return 0;
}

/* --- the source ---------------------------------------------------------------------------------- */

static void put64(uint8_t *p, uint64_t v)
{
	struct bytes_writer w = {.p = p, .cap = 8};

	bytes_put_u64(&w, v);
}

/* What was said to the source: of interest is the token alone. */
static void hear(struct source *s)
{
	uint8_t buf[65536];

	for (size_t i = 0; i < CONNS; i++) {
		ssize_t n = s->conns[i] < 0 ? 0 : recv(s->conns[i], buf, sizeof(buf), MSG_DONTWAIT);

		if (n >= 56 && buf[4] == MSG_HELLO_ACK && memcmp(buf + 24, (uint8_t[32]){0}, 32))
			memcpy(s->token, buf + 24, MSG_TOKEN_LEN);
	}
}

/* One frame in @p of @n bytes: put right what cannot be guessed. */
static void put_right(struct source *s, uint8_t *p, size_t n)
{
	if (n < MSG_HEADER_LEN)
		return;
	p[0] = (uint8_t)(n - MSG_HEADER_LEN);
	p[1] = (uint8_t)((n - MSG_HEADER_LEN) >> 8);
	p[2] = p[3] = 0;
	if (p[4] == MSG_HELLO && n == 76 && p[24] != MSG_CHANNEL_CONTROL &&
	    p[24] != MSG_CHANNEL_QUERY)
		memcpy(p + 44, s->token, MSG_TOKEN_LEN);
	if (p[4] == MSG_PAGES && n >= MSG_PAGES_FIXED) {
		uint64_t digest = p[12] == MSG_PAGES_RAW ? digest_xxh3(p + 64, n - 64) : 0;

		put64(p + 40, digest);
		s->runs++;
		s->sum += digest;
	}
	if (p[4] == MSG_STATE && n - 8 <= sizeof(s->state) - s->nstate) {
		memcpy(s->state + s->nstate, p + 8, n - 8);
		s->nstate += n - 8;
	}
	if (p[4] == MSG_STATE_END && n == 24) {
		put64(p + 8, s->nstate);
		put64(p + 16, digest_xxh3(s->state, s->nstate));
	}
	if (p[4] == MSG_COMPLETE && n >= 24) {
		put64(p + 8, s->runs);
		put64(p + 16, s->sum);
	}
}

static void say_bytes(struct source *s, uint8_t op, struct fuzz_in piece)
{
	int *conn = &s->conns[(op >> 3) % CONNS];
	uint8_t *copy = fuzz_copy(piece);

	if (*conn < 0)
		*conn = fuzz_dest_connect();
	if (op & 4)
		put_right(s, copy, piece.n);
	(void)!send(*conn, copy, piece.n, MSG_NOSIGNAL | MSG_DONTWAIT);
	free(copy);
}

static void attach(const char *dir)
{
	if (!launched || !launched->waits)
		return;
	launched->waits = false;
	fuzz_vm_attach(&launched->vm, dir, fuzz_memory(), launched->token);
}

/* Threads of the agent have their say, too. */
static void turn(struct dest *d, struct source *s, const char *dir, unsigned int times)
{
	while (times--) {
		fuzz_turns(d->loop, 2);
		attach(dir);
		if (launched)
			fuzz_vm_serve(&launched->vm);
		fuzz_turns(d->loop, 1);
		hear(s);
		if (times)
			usleep(200);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	struct source s = {{-1, -1, -1, -1, -1, -1}, {0}, 0, 0, {0}, 0};
	char dir[FUZZ_DIR_MAX];
	struct dest d;

	FUZZ_CHECK(fuzz_memory() >= 0);
	FUZZ_CHECK(!fallocate(fuzz_memory(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			      FUZZ_MEMORY_LEN));
	fuzz_dir_new(dir);
	FUZZ_CHECK(fuzz_dest_new(&d, dir));
	while (in.n) {
		uint8_t op = fuzz_u8(&in);

		switch (op & 3) {
		case 0:
		case 1:
			say_bytes(&s, op, fuzz_piece(&in));
			turn(&d, &s, dir, op & 1 ? 4 : 1);
			break;
		case 2:
			if (launched && launched->vm.sock >= 0)
				fuzz_send(launched->vm.sock, fuzz_piece(&in), op >> 3, false);
			turn(&d, &s, dir, 1);
			break;
		default:
			if (s.conns[(op >> 3) % CONNS] >= 0)
				close(steal_fd(&s.conns[(op >> 3) % CONNS]));
			turn(&d, &s, dir, 3);
		}
	}
	turn(&d, &s, dir, 3);
	for (size_t i = 0; i < CONNS; i++)
		if (s.conns[i] >= 0)
			close(s.conns[i]);
	turn(&d, &s, dir, 2);
	fuzz_dest_free(&d);
	launch_free(launched);
	fuzz_dir_free(dir);
	return 0;
}
