/* SPDX-License-Identifier: Apache-2.0 */
/* Whole sessions of a destination, as tests/fuzz/source_session.c takes them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "fuzz/seeds/seeds.h"
#include "msg.h"

/* Bits of the byte before a frame: see LLVMFuzzerTestOneInput() there. */
#define WAIT  1
#define RIGHT 4
#define POST  7
#define CLOSE 3
#define ON(i) ((i) << 3)

/* In the order in which they are dialled. */
enum { CONTROL_, URGENT_, BULK_, NEXT_ };

static void say(struct seed *s, unsigned int conn, const struct msg *m)
{
	static uint8_t buf[MSG_HEADER_LEN + MSG_BODY_MAX];
	ssize_t n = msg_encode(m, buf, sizeof(buf));

	if (n < 0)
		abort();
	seed_u8(s, (uint8_t)(ON(conn) | RIGHT | WAIT));
	seed_piece(s, buf, (size_t)n);
}

static void word(struct seed *s, unsigned int conn, enum msg_type type)
{
	struct msg m = {.type = type};

	if (type == MSG_BARRIER_ACK)
		m.barrier.pass = m.barrier.number = 1;
	if (type == MSG_RESUMED)
		m.resumed.pass = 1;
	if (type == MSG_DROPPED)
		m.drop.kind = MSG_CHANNEL_BULK;
	say(s, conn, &m);
}

static void ack(struct seed *s, unsigned int conn)
{
	struct msg m = {.type = MSG_HELLO_ACK};

	m.hello_ack.version = MSG_VERSION;
	m.hello_ack.capabilities = MSG_CAP_POSTCOPY | MSG_CAP_URGENT | MSG_CAP_MEND | MSG_CAP_KEEP;
	if (conn == CONTROL_ || conn == NEXT_)
		m.hello_ack.token[0] = 1;
	say(s, conn, &m);
}

static void order(struct seed *s, const char *text)
{
	seed_u8(s, POST);
	seed_text(s, text);
}

static void begin(struct seed *s, const char *mode)
{
	char text[200];

	snprintf(text, sizeof(text),
		 "POST /v1/migrations\n{\"guest\":\"vm\",\"to\":\"b\",\"mode\":\"%s\"}", mode);
	order(s, text);
	ack(s, CONTROL_);
	word(s, CONTROL_, MSG_PREPARED);
	ack(s, URGENT_);
	ack(s, BULK_);
	for (int i = 0; i < 3; i++)
		word(s, BULK_, MSG_BARRIER_ACK);
	word(s, CONTROL_, MSG_INTENT_ACK);
	for (int i = 0; i < 3; i++)
		word(s, BULK_, MSG_BARRIER_ACK);
}

static void hand_over(struct seed *s)
{
	struct msg m = {.type = MSG_RUNNING, .number = {.value = 1}};

	word(s, CONTROL_, MSG_READY);
	say(s, CONTROL_, &m);
}

static void request(struct seed *s, unsigned int conn)
{
	struct msg m = {.type = MSG_REQUEST, .request = {.offset = 4096, .length = 4096}};

	say(s, conn, &m);
}

static void receipt(struct seed *s)
{
	struct msg m = {.type = MSG_RECEIPT};

	m.receipt.digest_ok = true;
	m.receipt.n = 1;
	m.receipt.pages[0] = 16;
	for (int i = 0; i < 3; i++)
		word(s, BULK_, MSG_BARRIER_ACK);
	say(s, CONTROL_, &m);
}

void seeds_there(struct seed *s)
{
	struct msg nack = {.type = MSG_NACK, .nack = {.pass = 1, .length = 4096}};

	begin(s, "postcopy");
	hand_over(s);
	request(s, URGENT_);
	receipt(s);
	seed_write(s, "source_session", "postcopy");

	begin(s, "hybrid");
	say(s, BULK_, &nack);
	hand_over(s);
	request(s, CONTROL_);
	seed_u8(s, CLOSE | ON(BULK_));
	word(s, CONTROL_, MSG_DROPPED);
	receipt(s);
	seed_write(s, "source_session", "hybrid");

	begin(s, "precopy");
	seed_u8(s, CLOSE | ON(CONTROL_));
	ack(s, NEXT_);
	word(s, NEXT_, MSG_RESUMED);
	order(s, "GET /v1/migrations\n");
	seed_write(s, "source_session", "interrupted");

	begin(s, "hybrid");
	word(s, CONTROL_, MSG_READY);
	seed_u8(s, CLOSE | ON(CONTROL_));
	ack(s, NEXT_);
	word(s, NEXT_, MSG_ANSWER);
	seed_write(s, "source_session", "doubt");
}
