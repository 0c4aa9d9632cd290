/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hooks: pieces, the first an event that an earlier life has left on the disk, damaged, those behind it answers of
 * the server that is told, and asked as a gate: one for each connection that it takes.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/stat.h>
#include "fuzz/lib/fuzz.h"
#include "fuzz/lib/fuzz_dir.h"
#include "hooks/hooks.h"
#include "util/cleanup.h"
#include "util/digest.h"
#include "util/fdio.h"

/* Turns in which nothing happens, before it is over. */
#define IDLE_MAX 40

/** struct server - @said: connections that have had their answer; @allowed: -1 until the gate has spoken */
struct server {
	int listening;
	struct fuzz_in in;
	unsigned int said;
	int allowed;
};

static uint16_t server_open(struct server *s)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(sa);

	s->listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	FUZZ_CHECK(!bind(s->listening, (struct sockaddr *)&sa, sizeof(sa)));
	FUZZ_CHECK(!listen(s->listening, 16));
	FUZZ_CHECK(!getsockname(s->listening, (struct sockaddr *)&sa, &len));
	return ntohs(sa.sin_port);
}

/* Its end leaves nothing behind in the kernel; what was said is read first. Return: whether somebody has come */
static bool server_turn(struct server *s)
{
	struct linger now = {.l_onoff = 1};
	int c = accept4(s->listening, NULL, NULL, SOCK_CLOEXEC);
	struct fuzz_in piece;

	if (c < 0)
		return false;
	piece = fuzz_piece(&s->in);
	(void)!send(c, piece.p, piece.n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (s->said++ % 2)
		setsockopt(c, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	shutdown(c, SHUT_WR);
	usleep(50);
	close(c);
	return true;
}

static void put_event(const char *dir, struct fuzz_in in)
{
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s/hooks/source/%016" PRIx64, dir, digest_xxh3("h", 1));
	FUZZ_CHECK(!fdio_mkdir_p(path, 0750));
	strcat(path, "/00000000000000000007.json");
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	FUZZ_CHECK(fd >= 0 && write(fd, in.p ? in.p : (const uint8_t *)"", in.n) == (ssize_t)in.n);
	close(fd);
}

static void configure(struct conf_hooks *conf, uint16_t port)
{
	struct error err = {0};
	struct jsonx_at at = {"", NULL, &err};
	char text[300];
	json_t *json;

	snprintf(text, sizeof(text),
		 "[{\"name\":\"h\",\"url\":\"http://127.0.0.1:%u/"
		 "\",\"gate\":true,\"events\":[\"*\"],"
		 "\"attempts\":2,\"timeout_ms\":1000}]",
		 port);
	json = json_loads(text, 0, NULL);
	FUZZ_CHECK(!conf_hooks_read(json, &at, true, conf));
	json_decref(json);
}

static void on_gate(void *arg, const struct error *why)
{
	struct server *s = arg;

	FUZZ_CHECK(s->allowed < 0 && (!why || error_is_set(why)));
	s->allowed = !why;
}

static void run(struct loop *loop, struct hooks *h, struct server *s)
{
	struct hooks_gate *g = hooks_gate_ask(h, "migration.gate", "migrations/1",
					      json_pack("{s:s}", "id", "1"), 0, on_gate, s);
	struct hooks_count count;

	FUZZ_CHECK(g);
	hooks_emit(h, "migration.setup", "migrations/1", json_pack("{s:s}", "id", "1"));
	for (int idle = 0; idle < IDLE_MAX; idle++) {
		fuzz_turns(loop, 2);
		if (server_turn(s))
			idle = 0;
		else
			usleep(20);
		if (s->allowed < 0)
			json_decref(hooks_gate_json(g));
	}
	FUZZ_CHECK(hooks_counts(h, &count, 1) == 1);
	if (s->allowed < 0)
		hooks_gate_cancel(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct server s = {.in = fuzz_begin(data, size), .allowed = -1};
	struct conf_hooks conf = {0};
	struct loop *loop = loop_new();
	char dir[FUZZ_DIR_MAX];
	struct error err = {0};
	struct hooks *h;

	fuzz_dir_new(dir);
	put_event(dir, fuzz_piece(&s.in));
	configure(&conf, server_open(&s));
	FUZZ_CHECK(!hooks_new(loop, &conf, "source", dir, &h, &err));
	run(loop, h, &s);
	hooks_free(h);
	close(s.listening);
	conf_hooks_clear(&conf);
	loop_free(loop);
	fuzz_dir_free(dir);
	return 0;
}
