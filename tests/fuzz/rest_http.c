/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP: a request's head and a response's, percent-encoding, and the whole server on a socket with a
 * route of each kind. What the server answers must be something that our own client can read.
 *
 * An input that begins with "#" comes by TCP, where the server knows two tokens.
 */
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "fuzz/lib/fuzz.h"
#include "rest/http.h"
#include "rest/rest_auth.h"
#include "rest/rest_client.h"
#include "rest/rest_doc.h"
#include "rest/rest_events.h"
#include "rest/rest_server.h"
#include "util/cleanup.h"

#define TOKENS "operator op 0123456789abcdef\nreader re fedcba9876543210\n"

static void on_get(struct rest_req *req, void *ctx)
{
	json_t *items = json_array();

	(void)ctx;
	json_array_append_new(items, json_pack("{s:s}", "id", "a"));
	json_array_append_new(items, json_pack("{s:s}", "id", "b"));
	rest_query(req, "q");
	rest_reply_list(req, items, "id");
}

static void on_param(struct rest_req *req, void *ctx)
{
	(void)ctx;
	rest_add_header(req, "Location", rest_param(req, "name"));
	rest_problemf(req, 404, "no-such-thing", "there is no %s", rest_param(req, "name"));
}

static void on_post(struct rest_req *req, void *ctx)
{
	(void)ctx;
	rest_header(req, "Idempotency-Key");
	rest_add_header(req, "Location", "/v1/things/a");
	rest_reply(req, 202, json_deep_copy(rest_body(req)));
}

static void on_events(struct rest_req *req, void *ctx)
{
	rest_events_serve(ctx, req);
}

static const struct rest_route routes[] = {
	{"GET", "/v1/things", REST_READER, REST_BODY_NONE, on_get},
	{"GET", "/v1/things/{name}", REST_READER, REST_BODY_NONE, on_param},
	{"POST", "/v1/things", REST_OPERATOR, REST_BODY_OBJECT, on_post},
	{"DELETE", "/v1/things/{name}/parts/{part}", REST_OPERATOR, REST_BODY_NONE, on_param},
	{"GET", "/v1/events", REST_READER, REST_DOCUMENT, on_events},
	{"GET", "/", REST_PUBLIC, REST_DOCUMENT, rest_doc_page},
};

static void parse_heads(struct fuzz_in in)
{
	struct evbuffer *buf = evbuffer_new();
	struct http_head h = {0};
	struct error err = {0};
	size_t scanned = 0;
	char *text;
	ssize_t n;

	evbuffer_add(buf, in.p, in.n);
	n = http_head_take(buf, 4096, &scanned, &text);
	if (n > 0) {
		FUZZ_CHECK(!http_parse_response(&h, text, (size_t)n, &err) || error_is_set(&err));
		http_head_clear(&h);
	}
	evbuffer_free(buf);
}

/* Control characters do not get so far: the head is refused that has them. */
static bool printable(const char *text)
{
	while (*text && (unsigned char)*text >= ' ' && *text != 127)
		text++;
	return !*text;
}

static void decode(struct fuzz_in in, bool plus)
{
	char *text = fuzz_text(in), *again;

	if (printable(text) && !http_decode(text, plus)) {
		again = http_encode(text);
		FUZZ_CHECK(again && !http_decode(again, false) && !strcmp(again, text));
		free(again);
	}
	free(text);
}

static void check_answer(char *out, size_t n)
{
	struct error err = {0};
	char *end = n ? memmem(out, n, "\r\n\r\n", 4) : NULL;
	struct http_head h = {0};
	size_t len;

	if (!n)
		return;
	FUZZ_CHECK(end);
	len = (size_t)(end + 4 - out);
	FUZZ_CHECK(!http_parse_response(&h, strndup(out, len), len, &err));
	http_head_clear(&h);
}

/* --- the server --- */

static void let_in(struct rest_server *server)
{
	char path[FUZZ_PATH];
	struct rest_auth_conf conf = {.token_file = path};
	struct rest_auth *auth;
	struct error err = {0};
	int fd = fuzz_file((struct fuzz_in){(const uint8_t *)TOKENS, sizeof(TOKENS) - 1}, path);

	FUZZ_CHECK(!fchmod(fd, 0600) && !rest_auth_new(&conf, &auth, &err));
	rest_server_auth(server, auth);
	close(fd);
}

/* Return: a connection. Its end leaves nothing behind in the kernel */
static int by_tcp(struct rest_server *server)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct linger now = {.l_onoff = 1};
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct error err = {0};

	let_in(server);
	FUZZ_CHECK(!rest_server_listen(server, "http://127.0.0.1:0", &err));
	sa.sin_port = htons((uint16_t)rest_server_port(server));
	setsockopt(s, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	FUZZ_CHECK(!connect(s, (struct sockaddr *)&sa, sizeof(sa)));
	return s;
}

static int by_unix(struct rest_server *server)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct error err = {0};
	char where[64];

	snprintf(where, sizeof(where), "unix:/tmp/decant-fuzz-rest.%d", (int)getpid());
	strcpy(sa.sun_path, where + 5);
	FUZZ_CHECK(!rest_server_listen(server, where, &err));
	FUZZ_CHECK(!connect(s, (struct sockaddr *)&sa, sizeof(sa)));
	return s;
}

static void talk(struct loop *loop, struct rest_events *events, int s, struct fuzz_in in)
{
	static char out[1 << 16];
	ssize_t n;

	rest_events_publish(events, "thing", json_pack("{s:s}", "id", "a"));
	fuzz_turns(loop, 1);
	while (in.n) {
		struct fuzz_in piece = fuzz_take(&in, 4096);

		(void)!send(s, piece.p, piece.n, MSG_NOSIGNAL | MSG_DONTWAIT);
		fuzz_turns(loop, 2);
	}
	rest_events_publish(events, "thing", json_pack("{s:s}", "id", "b"));
	shutdown(s, SHUT_WR);
	fuzz_turns(loop, 4);
	n = recv(s, out, sizeof(out), MSG_DONTWAIT);
	check_answer(out, n > 0 ? (size_t)n : 0);
}

static void serve(struct fuzz_in in)
{
	bool tcp = in.n && *in.p == '#';
	struct loop *loop = loop_new();
	struct rest_events *events = rest_events_new(loop, NULL, NULL);
	struct rest_server *server =
		rest_server_new(loop, routes, ARRAY_SIZE(routes), NULL, events);
	int s = tcp ? by_tcp(server) : by_unix(server);

	fuzz_take(&in, tcp);
	talk(loop, events, s, in);
	close(s);
	fuzz_turns(loop, 2);
	rest_events_free(events);
	rest_server_free(server);
	loop_free(loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);

	parse_heads(in);
	decode(in, size & 1);
	serve(in);
	return 0;
}
