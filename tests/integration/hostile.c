/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers and clients that send what must not be sent, to agents that live: each gets an error that
 * names what was wrong, and the agent goes on serving others.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "lib/lab_test.h"
#include "lib/lab_wire.h"
#include "msg.h"

TestSuite(hostile, .timeout = 120);

#define FRAME_MAX (MSG_HEADER_LEN + MSG_BODY_MAX)

/* --- REST --- */

struct request {
	const char *what;
	const char *text;
	int status; /* 0: any refusal, or none at all */
};

static const struct request requests[] = {
	{"no such path", "GET /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404},
	{"a way out", "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 0},
	{"coded way out", "GET /v1/%2e%2e/%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 0},
	{"wrong method", "DELETE /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405},
	{"no method", "\r\n\r\n\r\n", 0},
	{"noise", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 0},
	{"no version", "GET /v1/health\r\n\r\n", 0},
	{"two lengths",
	 "POST /v1/migrations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: "
	 "9\r\nConnection: close\r\n\r\n{}",
	 0},
	{"negative length",
	 "POST /v1/migrations HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\nConnection: "
	 "close\r\n\r\n{}",
	 0},
	{"huge length",
	 "POST /v1/migrations HTTP/1.1\r\nHost: x\r\nContent-Length: "
	 "99999999999999999999\r\nConnection: close\r\n\r\n{}",
	 0},
	{"huge chunk",
	 "POST /v1/migrations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: "
	 "close\r\n\r\nffffffffffffffff\r\n",
	 0},
	{"short body",
	 "POST /v1/migrations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nConnection: "
	 "close\r\n\r\n{",
	 0},
};

static void alive(struct lab_host *h, const char *sock, const char *after)
{
	int status = lab_http(sock, "GET", "/v1/health", NULL, NULL);

	lab_check(h->lab, status == 200, "after \"%s\" health is %d", after, status);
}

/* A refusal is a problem document that a person can use. */
static void check_problem(struct lab *lab, const char *what, const char *body)
{
	json_t *o = json_loads(body, 0, NULL);

	lab_check(lab, o && json_is_integer(lab_at(o, "status")), "%s: no problem document: %s",
		  what, body);
	lab_check(lab, *lab_str(lab, o, "title"), "%s: no title", what);
	lab_check(lab, *lab_str(lab, o, "detail"), "%s: no detail", what);
	json_decref(o);
}

static void send_requests(struct lab_host *h, const char *sock)
{
	for (size_t i = 0; i < LAB_COUNT(requests); i++) {
		const struct request *r = &requests[i];
		char *body = NULL;
		int status = lab_http_raw(sock, r->text, strlen(r->text), &body);

		lab_check(h->lab, r->status ? status == r->status : status < 200 || status >= 400,
			  "%s: status %d: %s", r->what, status, body ? body : "");
		if (r->status)
			check_problem(h->lab, r->what, body);
		free(body);
		alive(h, sock, r->what);
	}
}

static void send_long_ones(struct lab_host *h, const char *sock)
{
	size_t n = 4 << 20;
	char *text = malloc(n + 64);
	int head = sprintf(text, "GET /v1/");
	int status;

	memset(text + head, 'a', n);
	strcpy(text + head + n, " HTTP/1.1\r\nHost: x\r\n\r\n");
	status = lab_http_raw(sock, text, strlen(text), NULL);
	lab_check(h->lab, status < 0 || status >= 400, "4 MiB of path: %d", status);
	alive(h, sock, "long path");

	head = sprintf(text, "GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Long: ");
	memset(text + head, 'a', n - (size_t)head);
	text[n] = 0;
	status = lab_http_raw(sock, text, strlen(text), NULL);
	lab_check(h->lab, status < 0 || status >= 400, "4 MiB of header: %d", status);
	alive(h, sock, "long header");

	memset(text, '[', n);
	text[n] = 0;
	status = lab_http(sock, "POST", "/v1/migrations", text, NULL);
	lab_check(h->lab, status < 0 || status >= 400, "4 MiB of brackets: %d", status);
	text[60000] = 0;
	status = lab_http(sock, "POST", "/v1/migrations", text, NULL);
	lab_check(h->lab, status < 0 || status >= 400, "60,000 brackets: %d", status);
	alive(h, sock, "deep body");
	free(text);
}

Test(hostile, rest)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);

	send_requests(a, a->source_sock);
	send_requests(b, b->dest_sock);
	send_long_ones(a, a->source_sock);
	send_long_ones(b, b->dest_sock);
	lab_end(lab);
}

struct body {
	const char *path;
	const char *body;
	const char *names; /* what the detail must name */
};

static const struct body bodies[] = {
	{"/v1/migrations", "", ""},
	{"/v1/migrations", "not json", ""},
	{"/v1/migrations", "[]", ""},
	{"/v1/migrations", "{\"to\": \"h:1\"}", "guest"},
	{"/v1/migrations", "{\"guest\": \"guest\"}", "to"},
	{"/v1/migrations", "{\"guest\": 7, \"to\": \"h:1\"}", "guest"},
	{"/v1/migrations", "{\"guest\": \"guest\", \"to\": \"h:0\"}", "h:0"},
	{"/v1/migrations", "{\"guest\": \"guest\", \"to\": \"h:65536\"}", "65536"},
	{"/v1/migrations", "{\"guest\": \"guest\", \"to\": \"\"}", "host"},
	{"/v1/migrations", "{\"guest\": \"guest\", \"to\": \"h:1\", \"mode\": \"fast\"}", "fast"},
	{"/v1/migrations", "{\"guest\": \"guest\", \"to\": \"h:1\", \"colour\": 1}", "colour"},
	{"/v1/migrations", "{\"guest\": \"guest\", \"to\": \"h:1\", \"options\": {\"colour\": 1}}",
	 "colour"},
	{"/v1/migrations",
	 "{\"guest\": \"guest\", \"to\": \"h:1\", \"options\": {\"channels\": 17}}", "channels"},
	{"/v1/migrations",
	 "{\"guest\": \"guest\", \"to\": \"h:1\", \"options\": {\"channels\": -1}}", "channels"},
	{"/v1/migrations",
	 "{\"guest\": \"guest\", \"to\": \"h:1\", \"options\": {\"downtime_limit_ms\": 1e99}}",
	 "downtime_limit_ms"},
	{"/v1/migrations",
	 "{\"guest\": \"guest\", \"to\": \"h:1\", \"options\": {\"compression\": \"zstd\"}}",
	 "zstd"},
	{"/v1/guests", "{\"name\": \"../x\", \"driver\": \"native\"}", "name"},
	{"/v1/guests", "{\"name\": \"x\"}", "driver"},
	{"/v1/guests", "{\"name\": \"x\", \"driver\": \"hyper\"}", "driver"},
	{"/v1/guests", "{\"name\": \"x\", \"driver\": \"native\", \"colour\": 1}", "colour"},
	{"/v1/guests", "{\"name\": \"x\", \"driver\": \"native\", \"vars\": {\"a\": \"$(id)\"}}",
	 "vars"},
};

Test(hostile, rest_bodies)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a =
		lab_host_start(lab, &(struct lab_host_opts){.name = "a", .no_dest = true});

	/* Its target is looked at only once the guest is known. */
	lab_guest_start(a, &(struct lab_guest_opts){.mb = 1});
	for (size_t i = 0; i < LAB_COUNT(bodies); i++) {
		const struct body *r = &bodies[i];
		char *answer = NULL;
		int status = lab_http(a->source_sock, "POST", r->path, r->body, &answer);

		lab_check(lab, status >= 400 && status < 500, "%s: status %d: %s", r->body, status,
			  answer ? answer : "");
		check_problem(lab, r->body, answer);
		lab_check(lab, strstr(answer, r->names), "%s: does not name \"%s\": %s", r->body,
			  r->names, answer);
		free(answer);
	}
	alive(a, a->source_sock, "bodies");
	lab_end(lab);
}

/* --- the wire --- */

static struct lab *dest_alone(struct lab_host **ret)
{
	struct lab *lab = lab_new(lab_test_failed);

	*ret = lab_host_start(lab, &(struct lab_host_opts){.name = "b",
							   .no_source = true,
							   .dest_conf = "{\"source_api\": null}"});
	return lab;
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)v);
	put16(p + 2, (uint16_t)(v >> 16));
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

/* Bytes of HELLO's body by its fields: 4 + 2 + 2 + 8 + 1 + 1 + 2 + 16 + 32. */
#define HELLO_BODY 68

/* A HELLO as PROTOCOL.md has it, written by hand. Return: bytes */
static size_t hello_frame(uint8_t out[128], uint8_t kind, uint8_t index, const uint8_t token[32])
{
	memset(out, 0, 128);
	put32(out, HELLO_BODY);
	put16(out + 4, 1);
	put32(out + 8, 0x544e4344);
	put16(out + 12, 1);
	put16(out + 14, 1);
	out[16] = 3; /* capabilities POSTCOPY and URGENT */
	out[24] = kind;
	out[25] = index;
	for (int i = 0; i < 16; i++)
		out[28 + i] = (uint8_t)(0xa0 + i);
	if (token)
		memcpy(out + 44, token, 32);
	return 8 + HELLO_BODY;
}

static struct lab_wire *connect_properly(struct lab_host *b)
{
	struct lab_wire *w = lab_wire_open(b, &(struct lab_wire_opts){0});

	lab_check(b->lab, w, "a proper peer is not let in");
	return w;
}

/* A session as far as HELLO_ACK. */
static struct lab_wire *begin_session(struct lab_host *b, uint8_t token[32])
{
	struct lab_wire *w = connect_properly(b);
	uint8_t out[128], in[FRAME_MAX];
	ssize_t n;

	lab_wire_send(w, out, hello_frame(out, 0, 0, NULL));
	n = lab_wire_recv(w, in, sizeof(in), 5000);
	lab_check(b->lab, n == 8 + 48 && get16(in + 4) == 2, "no HELLO_ACK: %zd bytes, type %u", n,
		  get16(in + 4));
	if (token)
		memcpy(token, in + 8 + 16, 32);
	return w;
}

/**
 * ends_refused() - the agent must end this connection, with an ERROR or (@silent_ok) without
 * @names:	what the message must name, NULL if anything will do
 */
static void ends_refused(struct lab_host *b, struct lab_wire *w, const char *what, const char *code,
			 const char *names, bool silent_ok)
{
	uint8_t in[FRAME_MAX];
	bool error = false;

	for (;;) {
		ssize_t n = lab_wire_recv(w, in, sizeof(in), 15000);

		lab_check(b->lab, n >= 0, "%s: the connection neither ends nor says why", what);
		if (n == 0)
			break;
		if (get16(in + 4) == 3) {
			uint16_t code_len = get16(in + 8);
			const char *msg = (char *)in + 8 + 2 + code_len + 2;
			int msg_len = get16(in + 8 + 2 + code_len);

			error = true;
			lab_check(b->lab, code_len && msg_len, "%s: an empty error", what);
			if (code)
				lab_check(b->lab,
					  code_len == strlen(code) &&
						  !memcmp(in + 10, code, code_len),
					  "%s: code %.*s: %.*s", what, code_len, in + 10, msg_len,
					  msg);
			if (names)
				lab_check(b->lab,
					  memmem(msg, (size_t)msg_len, names, strlen(names)),
					  "%s: does not name %s: %.*s", what, names, msg_len, msg);
		}
	}
	lab_check(b->lab, error || silent_ok, "%s: ended without a word", what);
	lab_wire_close(w);
	alive(b, b->dest_sock, what);
}

Test(hostile, hello_cut_short)
{
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);

	/* The frame is whole, but its body is not: an error that says so. */
	for (uint32_t n = 0; n < HELLO_BODY; n++) {
		struct lab_wire *w = connect_properly(b);
		uint8_t out[128];

		hello_frame(out, 0, 0, NULL);
		put32(out, n);
		lab_wire_send(w, out, 8 + n);
		ends_refused(b, w, "short HELLO", NULL, NULL, false);
	}
	/* The connection ends in the middle: nobody is left to be told. */
	for (uint32_t n = 1; n < 8 + HELLO_BODY; n += 5) {
		struct lab_wire *w = connect_properly(b);
		uint8_t out[128];

		hello_frame(out, 0, 0, NULL);
		lab_wire_send(w, out, n);
		lab_wire_close(w);
	}
	alive(b, b->dest_sock, "cut HELLOs");
	lab_end(lab);
}

static void one_frame(struct lab_host *b, const char *what, uint32_t length, uint16_t type,
		      uint16_t flags, const char *code)
{
	struct lab_wire *w = begin_session(b, NULL);
	uint8_t out[8];

	put32(out, length);
	put16(out + 4, type);
	put16(out + 6, flags);
	lab_wire_send(w, out, sizeof(out));
	ends_refused(b, w, what, code, NULL, false);
}

Test(hostile, headers)
{
	static const uint32_t lengths[] = {65537, 0x7fffffff, 0x80000000, 0xffffffff};
	static const uint16_t types[] = {0, 6, 15, 90, 999, 0x7fff, 0xffff};
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);

	for (size_t i = 0; i < LAB_COUNT(lengths); i++)
		for (uint16_t type = 16; type < 32; type++)
			if (type != 18 && type != 20 && type != 26 && type != 28 && type != 30)
				one_frame(b, "absurd length", lengths[i], type, 0, "bad-length");
	for (size_t i = 0; i < LAB_COUNT(types); i++)
		one_frame(b, "unknown type", 0, types[i], 0, "unknown-message");
	one_frame(b, "flags", 8, 4, 1, "bad-flags");
	/* What only the destination says, and what does not belong on control. */
	one_frame(b, "PREPARED from a source", 0, 18, 0, "unexpected-message");
	one_frame(b, "BARRIER on control", 8, 50, 0, "unexpected-message");
	lab_end(lab);
}

Test(hostile, out_of_order)
{
	/* Messages that are right in themselves, in a session that has not even said SETUP. */
	static const struct {
		uint16_t type;
		uint32_t length;
		const char *name;
	} early[] = {{19, 8, "INTENT"}, {21, 4, "SWITCH"}, {23, 1, "LISTEN"},
		     {24, 1, "STATE"},  {27, 8, "COMMIT"}, {1, HELLO_BODY, "HELLO"}};
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);

	for (size_t i = 0; i < LAB_COUNT(early); i++) {
		struct lab_wire *w = begin_session(b, NULL);
		uint8_t out[128] = {0};

		if (early[i].type == 1) {
			hello_frame(out, 0, 0, NULL);
		} else {
			put32(out, early[i].length);
			put16(out + 4, early[i].type);
			out[8] = 1; /* a generation, a pass, a byte of state */
		}
		lab_wire_send(w, out, 8 + early[i].length);
		ends_refused(b, w, early[i].name, "unexpected-message", early[i].name, false);
	}
	lab_end(lab);
}

Test(hostile, tokens)
{
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);
	uint8_t token[32], wrong[32], out[128];
	struct lab_wire *session = begin_session(b, token), *w;

	memcpy(wrong, token, sizeof(wrong));
	wrong[31] ^= 1;
	for (uint8_t kind = 1; kind <= 2; kind++) {
		w = connect_properly(b);
		lab_wire_send(w, out, hello_frame(out, kind, 0, wrong));
		ends_refused(b, w, "wrong token", "bad-token", NULL, false);
	}
	/* The right token from another identity. */
	w = lab_wire_open(b, &(struct lab_wire_opts){.identity = "host-b"});
	lab_check(lab, w, "host-b is on the list");
	lab_wire_send(w, out, hello_frame(out, 2, 0, token));
	ends_refused(b, w, "stolen token", "bad-token", NULL, false);
	/* The session itself was not hurt by all this: it answers. */
	memset(out, 0, sizeof(out));
	put32(out, 8);
	put16(out + 4, 4);
	out[8] = 42;
	lab_wire_send(session, out, 16);
	for (;;) {
		ssize_t n = lab_wire_recv(session, out, sizeof(out), 5000);

		lab_check(lab, n > 0, "the session was hurt");
		if (get16(out + 4) == 5 && out[8] == 42)
			break;
	}
	lab_wire_close(session);
	lab_end(lab);
}

/* --- descriptions of guests that cannot be --- */

/* What our own encoder refuses is put in behind its back. */
static void put_wrong(uint8_t *frame, size_t n, const char *right, const char *wrong)
{
	uint8_t *at = memmem(frame, n, right, strlen(right));

	if (at)
		memcpy(at, wrong, strlen(right));
}

static void refuse_setup(struct lab_host *b, const char *what, const struct msg_setup *setup,
			 const struct msg_block *blocks, size_t n, const char *names)
{
	static uint8_t out[FRAME_MAX];
	struct msg *m = calloc(1, sizeof(*m));
	struct lab_wire *w = begin_session(b, NULL);
	ssize_t len;

	m->type = MSG_SETUP;
	m->setup = *setup;
	len = msg_encode(m, out, sizeof(out));
	lab_check(b->lab, len > 0, "%s: SETUP cannot be encoded", what);
	put_wrong(out, (size_t)len, "qq-qq-guest", "../../guest");
	put_wrong(out, (size_t)len, "qqreboot", "$(reboot");
	lab_wire_send(w, out, (size_t)len);
	for (size_t i = 0; i < n; i++) {
		m->type = MSG_BLOCK;
		m->block = blocks[i];
		len = msg_encode(m, out, sizeof(out));
		lab_check(b->lab, len > 0, "%s: BLOCK cannot be encoded", what);
		lab_wire_send(w, out, (size_t)len);
	}
	free(m);
	ends_refused(b, w, what, NULL, names, false);
	lab_check(b->lab, lab_host_guests(b) == 0, "%s: something was launched", what);
}

static struct msg_setup usual_setup(uint32_t blocks)
{
	return (struct msg_setup){.name = "guest",
				  .uuid = {1, 2, 3},
				  .generation = 1,
				  .driver = "native",
				  .launcher = "stamp",
				  .may_postcopy = true,
				  .bulk_channels = 1,
				  .blocks = blocks};
}

static struct msg_block block(uint32_t index, const char *name, uint64_t length)
{
	struct msg_block b = {.index = index,
			      .kind = MSG_BLOCK_MEMFD,
			      .flags = MSG_BLOCK_NO_DMA,
			      .page_size = 4096,
			      .length = length};

	snprintf(b.name, sizeof(b.name), "%s", name);
	return b;
}

Test(hostile, descriptions)
{
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);
	struct msg_setup s = usual_setup(2);
	struct msg_block two[2] = {block(0, "ram", 1 << 20), block(1, "ram", 1 << 20)};

	refuse_setup(b, "two of one name", &s, two, 2, "ram");
	two[1] = block(1, "more", 1ull << 46);
	refuse_setup(b, "more than may be in all", &s, two, 2, "more");
	two[1] = block(0, "more", 1 << 20);
	refuse_setup(b, "index that is there", &s, two, 2, "more");
	two[1] = block(1, "more", 1 << 20);
	two[1].page_size = 8192;
	refuse_setup(b, "pages of another size", &s, two, 2, "more");

	s = usual_setup(1);
	snprintf(s.launcher, sizeof(s.launcher), "unheard-of");
	refuse_setup(b, "no such launcher", &s, two, 1, "unheard-of");
	s = usual_setup(1);
	snprintf(s.driver, sizeof(s.driver), "qemu");
	refuse_setup(b, "driver that the launcher does not have", &s, two, 1, NULL);
	s = usual_setup(1);
	snprintf(s.name, sizeof(s.name), "qq-qq-guest");
	refuse_setup(b, "name that is a path", &s, two, 1, "name");
	s = usual_setup(1);
	s.nvars = 1;
	snprintf(s.vars[0].key, sizeof(s.vars[0].key), "mb");
	snprintf(s.vars[0].value, sizeof(s.vars[0].value), "qqreboot)");
	refuse_setup(b, "value for a shell", &s, two, 1, "mb");
	lab_end(lab);
}

/* Numbers that follow from a seed: what fails can be seen again. */
static uint32_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*state >> 33);
}

Test(hostile, noise)
{
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);
	uint64_t state = 20240229;

	for (int round = 0; round < (lab->full ? 2000 : 200); round++) {
		struct lab_wire *w = round % 2 ? begin_session(b, NULL) : connect_properly(b);
		uint8_t out[512];
		size_t n = 8 + next_random(&state) % (sizeof(out) - 8);

		for (size_t i = 0; i < n; i++)
			out[i] = (uint8_t)next_random(&state);
		/* Half of the time the frame is plausible, and its body is noise. */
		if (next_random(&state) % 2) {
			put32(out, (uint32_t)n - 8);
			put16(out + 4, (uint16_t)(next_random(&state) % 66));
			put16(out + 6, 0);
		}
		lab_wire_send(w, out, n);
		lab_wire_close(w);
	}
	alive(b, b->dest_sock, "noise");
	lab_wire_close(begin_session(b, NULL));
	lab_end(lab);
}

/* Connections that say nothing cost others nothing. */
Test(hostile, silent_crowd)
{
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);
	int fds[300];

	for (size_t i = 0; i < LAB_COUNT(fds); i++)
		fds[i] = lab_tcp_open(b);
	alive(b, b->dest_sock, "silent crowd");
	lab_wire_close(begin_session(b, NULL));
	for (size_t i = 0; i < LAB_COUNT(fds); i++)
		close(fds[i]);
	lab_wire_close(begin_session(b, NULL));
	lab_end(lab);
}

/* --- the attach sockets --- */

static int attach_to(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
		return fd;
	close(fd);
	return -1;
}

static void send_noise(struct lab_host *h, const char *path, const char *sock)
{
	uint64_t state = 7;
	char what[32];

	for (int round = 0; round < 200; round++) {
		int fd = attach_to(path);
		uint8_t out[300];
		size_t n = next_random(&state) % sizeof(out);

		lab_check(h->lab, fd >= 0, "%s: %m", path);
		for (size_t i = 0; i < n; i++)
			out[i] = (uint8_t)next_random(&state);
		if (n >= 8 && round % 2) {
			put16(out, (uint16_t)(1 + round % 6));
			put16(out + 2, 0);
			put32(out + 4, 0);
		}
		send(fd, out, n, MSG_NOSIGNAL);
		/* It hangs up: at once, or because the hello does not come. */
		if (round % 50 == 1) {
			struct timeval tv = {.tv_sec = 15};

			setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
			while (recv(fd, out, sizeof(out), 0) > 0)
				;
			lab_check(h->lab, errno != EAGAIN, "noise is kept waiting");
		}
		close(fd);
		snprintf(what, sizeof(what), "noise %d", round);
	}
	alive(h, sock, what);
}

Test(hostile, attach)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g;

	send_noise(a, a->attach, a->source_sock);
	send_noise(b, lab_host_path(b, "dest.attach"), b->dest_sock);
	/* A guest that nobody expects is refused at the destination. */
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 8});
	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_end(lab);
}
