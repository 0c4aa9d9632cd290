/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers that have not come as far as a session, or only just: what they send must not be sent, gets an
 * error that names what was wrong, and the agent goes on serving others.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_hostile.h"
#include "lib/lab_test.h"

TestSuite(hostile_wire, .timeout = 120);

static struct lab *dest_alone(struct lab_host **ret)
{
	struct lab *lab = lab_new(lab_test_failed);

	*ret = lab_host_start(lab, &(struct lab_host_opts){.name = "b",
							   .no_source = true,
							   .dest_conf = "{\"source_api\": null}"});
	return lab;
}

Test(hostile_wire, hello_cut_short)
{
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);

	/* The frame is whole, but its body is not: an error that says so. */
	for (uint32_t n = 0; n < HOSTILE_HELLO; n++) {
		struct lab_wire *w = hostile_connect(b);
		uint8_t out[128];

		hostile_hello(out, 0, 0, NULL);
		hostile_put32(out, n);
		lab_wire_send(w, out, 8 + n);
		hostile_refused(b, w, "short HELLO", NULL, NULL, false);
	}
	/* The connection ends in the middle: nobody is left to be told. */
	for (uint32_t n = 1; n < 8 + HOSTILE_HELLO; n += 5) {
		struct lab_wire *w = hostile_connect(b);
		uint8_t out[128];

		hostile_hello(out, 0, 0, NULL);
		lab_wire_send(w, out, n);
		lab_wire_close(w);
	}
	hostile_alive(b, b->dest_sock, "cut HELLOs");
	lab_end(lab);
}

static void one_frame(struct lab_host *b, const char *what, uint32_t length, uint16_t type,
		      uint16_t flags, const char *code)
{
	struct lab_wire *w = hostile_session(b, NULL);
	uint8_t out[8];

	hostile_put32(out, length);
	hostile_put16(out + 4, type);
	hostile_put16(out + 6, flags);
	lab_wire_send(w, out, sizeof(out));
	hostile_refused(b, w, what, code, NULL, false);
}

Test(hostile_wire, headers)
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

Test(hostile_wire, out_of_order)
{
	/* Messages that are right in themselves, in a session that has not even said SETUP. */
	static const struct {
		uint16_t type;
		uint32_t length;
		const char *name;
	} early[] = {{19, 8, "INTENT"}, {21, 4, "SWITCH"}, {23, 1, "LISTEN"},
		     {24, 1, "STATE"},  {27, 8, "COMMIT"}, {1, HOSTILE_HELLO, "HELLO"}};
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);

	for (size_t i = 0; i < LAB_COUNT(early); i++) {
		struct lab_wire *w = hostile_session(b, NULL);
		uint8_t out[128] = {0};

		if (early[i].type == 1) {
			hostile_hello(out, 0, 0, NULL);
		} else {
			hostile_put32(out, early[i].length);
			hostile_put16(out + 4, early[i].type);
			out[8] = 1; /* a generation, a pass, a byte of state */
		}
		lab_wire_send(w, out, 8 + early[i].length);
		hostile_refused(b, w, early[i].name, "unexpected-message", early[i].name, false);
	}
	lab_end(lab);
}

Test(hostile_wire, tokens)
{
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);
	uint8_t token[32], wrong[32], out[128];
	struct lab_wire *session = hostile_session(b, token), *w;

	memcpy(wrong, token, sizeof(wrong));
	wrong[31] ^= 1;
	for (uint8_t kind = 1; kind <= 2; kind++) {
		w = hostile_connect(b);
		lab_wire_send(w, out, hostile_hello(out, kind, 0, wrong));
		hostile_refused(b, w, "wrong token", "bad-token", NULL, false);
	}
	/* The right token from another identity. */
	w = lab_wire_open(b, &(struct lab_wire_opts){.identity = "host-b"});
	lab_check(lab, w, "host-b is on the list");
	lab_wire_send(w, out, hostile_hello(out, 2, 0, token));
	hostile_refused(b, w, "stolen token", "bad-token", NULL, false);
	/* The session itself was not hurt by all this: it answers. */
	memset(out, 0, sizeof(out));
	hostile_put32(out, 8);
	hostile_put16(out + 4, 4);
	out[8] = 42;
	lab_wire_send(session, out, 16);
	for (;;) {
		ssize_t n = lab_wire_recv(session, out, sizeof(out), 5000);

		lab_check(lab, n > 0, "the session was hurt");
		if (hostile_get16(out + 4) == 5 && out[8] == 42)
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
	static uint8_t out[HOSTILE_FRAME_MAX];
	struct msg *m = calloc(1, sizeof(*m));
	struct lab_wire *w = hostile_session(b, NULL);
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
	hostile_refused(b, w, what, NULL, names, false);
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

Test(hostile_wire, descriptions)
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

Test(hostile_wire, noise)
{
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);
	uint64_t state = 20240229;

	for (int round = 0; round < (lab->full ? 2000 : 200); round++) {
		struct lab_wire *w = round % 2 ? hostile_session(b, NULL) : hostile_connect(b);
		uint8_t out[512];
		size_t n = 8 + hostile_random(&state) % (sizeof(out) - 8);

		for (size_t i = 0; i < n; i++)
			out[i] = (uint8_t)hostile_random(&state);
		/* Half of the time the frame is plausible, and its body is noise. */
		if (hostile_random(&state) % 2) {
			hostile_put32(out, (uint32_t)n - 8);
			hostile_put16(out + 4, (uint16_t)(hostile_random(&state) % 66));
			hostile_put16(out + 6, 0);
		}
		lab_wire_send(w, out, n);
		lab_wire_close(w);
	}
	hostile_alive(b, b->dest_sock, "noise");
	lab_wire_close(hostile_session(b, NULL));
	lab_end(lab);
}

/* Connections that say nothing cost others nothing. */
Test(hostile_wire, silent_crowd)
{
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);
	int fds[300];

	for (size_t i = 0; i < LAB_COUNT(fds); i++)
		fds[i] = lab_tcp_open(b);
	hostile_alive(b, b->dest_sock, "silent crowd");
	lab_wire_close(hostile_session(b, NULL));
	for (size_t i = 0; i < LAB_COUNT(fds); i++)
		close(fds[i]);
	lab_wire_close(hostile_session(b, NULL));
	lab_end(lab);
}
