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
#include "guest/gwire.h"
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
 * @sock:	the guest's connection; -1 without
 * @uffd:	that it has kept
 */
struct launch {
	launch_exit_fn *on_exit;
	void *arg;
	uint8_t token[MSG_TOKEN_LEN];
	int sock;
	int uffd;
	int state_fd;
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
	*launched = (struct launch){on_exit, arg, {0}, -1, -1, -1, true};
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
	if (l->sock >= 0)
		close(steal_fd(&l->sock));
	if (l->uffd >= 0)
		close(steal_fd(&l->uffd));
	if (l->state_fd >= 0)
		close(steal_fd(&l->state_fd));
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

/* --- the guest ----------------------------------------------------------------------------------- */

static void say(struct launch *l, struct gwire_msg *m, int fd)
{
	uint8_t buf[1024];
	ssize_t n;

	m->nfds = fd >= 0;
	n = gwire_encode(m, buf, sizeof(buf));
	if (n > 0)
		gwire_send(l->sock, buf, (size_t)n, fd);
}

static void attach(struct launch *l, const char *dir)
{
	struct gwire_msg hello = {.type = GWIRE_HELLO,
				  .u.hello = {.version = 1,
					      .name = "vm",
					      .uuid = {1, 2, 3},
					      .has_token = true,
					      .run_state = 3,
					      .blocks = 1}};
	struct gwire_msg block = {.type = GWIRE_BLOCK,
				  .u.block = {.length = FUZZ_MEMORY_LEN,
					      .flags = GWIRE_BLOCK_NO_DMA,
					      .page_size = 4096,
					      .address = FUZZ_MEMORY,
					      .name = "ram"}};
	struct gwire_msg end = {.type = GWIRE_HELLO_END};

	l->waits = false;
	l->sock = fuzz_connect(dir, "attach", SOCK_SEQPACKET);
	memcpy(hello.u.hello.token, l->token, sizeof(l->token));
	say(l, &hello, -1);
	say(l, &block, fuzz_memory());
	say(l, &end, -1);
}

/* All that was written to the pipe, to its end. Return: bytes */
static uint64_t read_state(struct launch *l)
{
	uint64_t total = 0;
	char buf[4096];
	ssize_t n;

	fcntl(l->state_fd, F_SETFL, O_NONBLOCK);
	while ((n = read(l->state_fd, buf, sizeof(buf))) > 0)
		total += (uint64_t)n;
	close(steal_fd(&l->state_fd));
	return total;
}

static void answer(struct launch *l, const struct gwire_msg *m, int *fd)
{
	struct gwire_msg done = {.type = GWIRE_DONE, .id = m->id};
	int send = -1;

	switch (m->type) {
	case GWIRE_LOAD:
		l->state_fd = steal_fd(fd);
		done.u.done.detail = m->id; /* until LOAD_END */
		return;
	case GWIRE_UFFD:
		if (l->uffd < 0)
			l->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
		send = l->uffd;
		done.u.done.detail = 1;
		break;
	case GWIRE_UFFD_CLOSE:
		if (l->uffd >= 0)
			close(steal_fd(&l->uffd));
		break;
	case GWIRE_PUNCH:
		fallocate(fuzz_memory(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			  FUZZ_MEMORY_LEN);
		break;
	default:
		break;
	}
	if (m->id)
		say(l, &done, send);
}

static void serve_guest(struct launch *l)
{
	static struct gwire_range ranges[GWIRE_RANGES_MAX];
	static uint8_t buf[GWIRE_PACKET_MAX];
	static uint32_t load;
	struct gwire_msg m;
	const char *what;
	ssize_t n;

	while (l->sock >= 0) {
		CLEANUP_CLOSE int fd = -1;

		n = gwire_recv(l->sock, buf, &fd, NULL);
		if (n <= 0)
			return;
		if (gwire_decode(buf, (size_t)n, ranges, &m, &what))
			continue;
		if (m.type == GWIRE_LOAD)
			load = m.id;
		if (m.type == GWIRE_LOAD_END && l->state_fd >= 0) {
			struct gwire_msg done = {.type = GWIRE_DONE, .id = load};

			done.u.done.detail = read_state(l);
			say(l, &done, -1);
			continue;
		}
		answer(l, &m, &fd);
	}
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

/* Threads of the agent have their say, too. */
static void turn(struct dest *d, struct source *s, const char *dir, unsigned int times)
{
	while (times--) {
		fuzz_turns(d->loop, 2);
		if (launched && launched->waits)
			attach(launched, dir);
		if (launched)
			serve_guest(launched);
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
			if (launched && launched->sock >= 0)
				fuzz_send(launched->sock, fuzz_piece(&in), op >> 3, false);
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
