/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message connection on the loop, of either side, whose peer is the input: pieces that are cut
 * anywhere, and between them what an owner may do. The answers to what came must be frames that the
 * other side takes.
 */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "conn.h"
#include "fuzz/lib/fuzz.h"
#include "fuzz/lib/plain_chan.h"
#include "state.h"

/** struct side - the owner of the connection; @how: what the input wants of it */
struct side {
	struct conn *c;
	uint8_t how;
	unsigned int messages;
	enum mig_state mig;
	enum inc_state inc;
};

static void on_established(struct conn *c, void *arg)
{
	(void)c;
	(void)arg;
}

/* As the agents do: ask the tables, refuse what they do not let in. */
static void on_message(struct conn *c, const struct msg *m, void *arg)
{
	struct side *s = arg;
	struct error err = {0};
	int r = 0;

	s->messages++;
	if (m->type >= MSG_SETUP)
		r = s->how & 1 ? inc_state_check_msg(s->inc, m->type, &err)
			       : mig_state_check_msg(s->mig, m->type, &err);
	FUZZ_CHECK(r >= 0 || error_is_set(&err));
	if (r < 0)
		conn_send_error(c, MSG_ERROR, &err);
	else if (s->how & 8)
		FUZZ_CHECK(conn_send(c, m) <= 0);
	if (s->how & 16 && s->messages % 3 == 0)
		conn_pause(c, true);
}

static void on_closed(struct conn *c, const struct error *err, void *arg)
{
	struct side *s = arg;

	FUZZ_CHECK(error_is_set(err));
	FUZZ_CHECK(conn_send_simple(c, MSG_READY) == -EPIPE);
	conn_free(c);
	s->c = NULL;
}

static void act(struct side *s, uint8_t what)
{
	const struct mig_step *mig;
	const struct inc_step *inc;

	if (!s->c)
		return;
	switch (what & 7) {
	case 0:
		conn_set_channel(s->c, what >> 3 & 3);
		break;
	case 1:
		conn_keepalive(s->c);
		break;
	case 2:
		conn_pause(s->c, what & 8);
		break;
	case 3:
		conn_send_simple(s->c, MSG_READY);
		break;
	case 4:
		mig_state_apply(&s->mig, what >> 3 & 15, &mig);
		break;
	case 5:
		inc_state_apply(&s->inc, what >> 3 & 15, &inc);
		break;
	case 6:
		conn_set_timeout(s->c, what & 8 ? 1 : 0);
		break;
	default: {
		struct tls_chan *chan = conn_release(s->c);

		if (chan)
			s->c = NULL;
		tls_chan_free(chan);
	}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct conn_ops ops = {on_established, on_message, on_closed, NULL};
	struct fuzz_in in = fuzz_begin(data, size);
	struct side s = {.how = fuzz_u8(&in)};
	struct loop *loop = loop_new();
	uint8_t out[4096];
	int fd[2];

	FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd));
	s.c = conn_new(loop, plain_chan(fd[0]), s.how & 1, s.how >> 1 & 3, &ops, &s);
	fuzz_turns(loop, 2);
	while (in.n) {
		struct fuzz_in piece;

		act(&s, fuzz_u8(&in));
		piece = fuzz_piece(&in);
		if (piece.n)
			(void)!send(fd[1], piece.p, piece.n, MSG_NOSIGNAL);
		fuzz_turns(loop, 2);
		while (recv(fd[1], out, sizeof(out), 0) > 0)
			;
	}
	close(fd[1]);
	fuzz_turns(loop, 3);
	conn_free(s.c);
	loop_free(loop);
	return 0;
}
