/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The QMP client, whose monitor says anything. Behind each piece of what it says come commands, as many
 * as the byte before it says; each of them must be done exactly once.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "fuzz/lib/fuzz.h"
#include "guest/qemu/qmp.h"

/** struct client - @asked and @done: commands */
struct client {
	struct qmp *q;
	bool ready, closed;
	unsigned int asked, done;
};

static void on_ready(void *arg)
{
	struct client *c = arg;

	FUZZ_CHECK(!c->ready && !c->closed);
	c->ready = true;
}

static void on_event(void *arg, const char *name, const json_t *data)
{
	(void)arg;
	(void)data;
	FUZZ_CHECK(name);
}

static void on_closed(void *arg, const struct error *why)
{
	struct client *c = arg;

	FUZZ_CHECK(!c->closed && error_is_set(why) && c->asked == c->done);
	c->closed = true;
}

static void on_done(void *arg, int ret, const json_t *result, const struct error *err)
{
	struct client *c = arg;

	c->done++;
	FUZZ_CHECK(ret ? !result && error_is_set(err) : result != NULL);
}

static const struct qmp_ops ops = {on_ready, on_event, on_closed};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), sock;
	struct loop *loop = loop_new();
	struct client c = {0};
	struct error err = {0};
	char junk[4096];

	snprintf(sa.sun_path, sizeof(sa.sun_path), "/tmp/decant-fuzz-qmp.%d", (int)getpid());
	unlink(sa.sun_path);
	FUZZ_CHECK(!bind(s, (struct sockaddr *)&sa, sizeof(sa)) && !listen(s, 1));
	FUZZ_CHECK(!qmp_open(loop, sa.sun_path, &ops, &c, &c.q, &err));
	unlink(sa.sun_path);
	sock = accept4(s, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	while (in.n) {
		uint8_t n = fuzz_u8(&in) % 4;
		struct fuzz_in piece = fuzz_piece(&in);

		(void)!send(sock, piece.p, piece.n, MSG_NOSIGNAL);
		fuzz_turns(loop, 2);
		while (c.ready && !c.closed && n-- &&
		       !qmp_ask(c.q, "query-status", NULL, -1, 5000, on_done, &c))
			c.asked++;
		while (recv(sock, junk, sizeof(junk), 0) > 0)
			;
	}
	close(sock);
	fuzz_turns(loop, 4);
	FUZZ_CHECK(c.closed);
	qmp_free(c.q);
	close(s);
	loop_free(loop);
	return 0;
}
