/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP: a request's head and a response's, percent-encoding, and the whole server on a socket with a
 * route of each kind. What the server answers must be something that our own client can read.
 */
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "fuzz/lib/fuzz.h"
#include "rest/http.h"
#include "rest/rest_client.h"
#include "rest/rest_server.h"

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
	rest_reply(req, 202, json_deep_copy(rest_body(req)));
}

static const struct rest_route routes[] = {
	{"GET", "/v1/things", REST_READER, REST_BODY_NONE, on_get},
	{"GET", "/v1/things/{name}", REST_READER, REST_BODY_NONE, on_param},
	{"POST", "/v1/things", REST_OPERATOR, REST_BODY_OBJECT, on_post},
	{"DELETE", "/v1/things/{name}/parts/{part}", REST_OPERATOR, REST_BODY_NONE, on_param},
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

static void serve(struct fuzz_in in)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct loop *loop = loop_new();
	struct rest_server *server = rest_server_new(loop, routes, 4, NULL, NULL);
	static char out[1 << 16];
	struct error err = {0};
	char where[64];
	ssize_t n;

	snprintf(where, sizeof(where), "unix:/tmp/decant-fuzz-rest.%d", (int)getpid());
	strcpy(sa.sun_path, where + 5);
	FUZZ_CHECK(!rest_server_listen(server, where, &err));
	FUZZ_CHECK(!connect(s, (struct sockaddr *)&sa, sizeof(sa)));
	fuzz_turns(loop, 1);
	while (in.n) {
		struct fuzz_in piece = fuzz_take(&in, 4096);

		(void)!send(s, piece.p, piece.n, MSG_NOSIGNAL);
		fuzz_turns(loop, 2);
	}
	shutdown(s, SHUT_WR);
	fuzz_turns(loop, 4);
	n = recv(s, out, sizeof(out), 0);
	check_answer(out, n > 0 ? (size_t)n : 0);
	close(s);
	fuzz_turns(loop, 2);
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
