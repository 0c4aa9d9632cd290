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
#define PAUSE 0xfe
#define ON(i) ((i) << 3)

/* In the order in which they are dialled: of a session, a question, and the session that goes on. */
enum { CONTROL_, URGENT_, BULK_, NEXT_, AGAIN_, AGAIN_URGENT_, AGAIN_BULK_ };

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

/* What was offered of it, and whether it needs a token, source_session.c puts right. */
static void ack(struct seed *s, unsigned int conn)
{
	struct msg m = {.type = MSG_HELLO_ACK};

	m.hello_ack.version = MSG_VERSION;
	m.hello_ack.capabilities = UINT64_MAX;
	say(s, conn, &m);
}

static void order(struct seed *s, const char *text)
{
	seed_u8(s, POST);
	seed_text(s, text);
}

static void acks(struct seed *s, unsigned int bulk)
{
	for (int i = 0; i < 3; i++)
		word(s, bulk, MSG_BARRIER_ACK);
}

/* From the first answer to the pause; @bulk: its one bulk channel, behind an urgent one if there is to be one. */
static void session(struct seed *s, unsigned int control, unsigned int bulk)
{
	ack(s, control);
	word(s, control, MSG_PREPARED);
	for (unsigned int i = control + 1; i <= bulk; i++)
		ack(s, i);
	acks(s, bulk);
	word(s, control, MSG_INTENT_ACK);
	acks(s, bulk);
}

static void begin(struct seed *s, const char *mode)
{
	char text[200];

	snprintf(text, sizeof(text),
		 "POST /v1/migrations\n{\"guest\":\"vm\",\"to\":\"b\",\"mode\":\"%s\",\"options\":{"
		 "\"channels\":1}}",
		 mode);
	order(s, text);
	session(s, CONTROL_, strcmp(mode, "precopy") != 0 ? BULK_ : URGENT_);
}

static void hand_over(struct seed *s, unsigned int control)
{
	struct msg m = {.type = MSG_RUNNING, .number = {.value = 1}};

	word(s, control, MSG_READY);
	say(s, control, &m);
}

static void request(struct seed *s, unsigned int conn)
{
	struct msg m = {.type = MSG_REQUEST, .request = {.offset = 4096, .length = 4096}};

	say(s, conn, &m);
}

static void receipt(struct seed *s, unsigned int control)
{
	struct msg m = {.type = MSG_RECEIPT};

	m.receipt.digest_ok = true;
	m.receipt.n = 1;
	m.receipt.pages[0] = 16;
	if (control == CONTROL_)
		acks(s, BULK_);
	say(s, control, &m);
}

static void answer(struct seed *s, enum msg_answer what)
{
	struct msg m = {.type = MSG_ANSWER, .answer.answer = (uint8_t)what};

	ack(s, NEXT_);
	say(s, NEXT_, &m);
}

/* With the received bitmap of a destination that has the first page. */
static void resume(struct seed *s, unsigned int control)
{
	struct msg m = {.type = MSG_RECEIVED, .received = {.n = 1, .words = {1}}};

	ack(s, control);
	say(s, control, &m);
	word(s, control, MSG_RESUMED);
}

/* Lost when the guest runs there, and gone on with: by an operator's word, or by itself after a while. */
static void recovered(struct seed *s, bool ordered)
{
	begin(s, "postcopy");
	hand_over(s, CONTROL_);
	request(s, URGENT_);
	seed_u8(s, CLOSE | ON(CONTROL_));
	if (ordered)
		order(s, "POST /v1/migrations/@/recover\n{\"to\":\"c:1\"}");
	else
		seed_u8(s, PAUSE);
	answer(s, MSG_ANSWER_RUNNING);
	resume(s, AGAIN_);
	ack(s, AGAIN_URGENT_);
	ack(s, AGAIN_BULK_);
	request(s, AGAIN_URGENT_);
	acks(s, AGAIN_BULK_);
	order(s, "GET /v1/migrations/@");
	order(s, "POST /v1/migrations/@/cancel");
	receipt(s, AGAIN_);
	seed_write(s, "source_session", ordered ? "recovered" : "recovered-late");
}

static void resolved(struct seed *s, const char *keep)
{
	char text[120], name[32];

	begin(s, "hybrid");
	word(s, CONTROL_, MSG_READY);
	seed_u8(s, CLOSE | ON(CONTROL_));
	snprintf(text, sizeof(text),
		 "POST /v1/migrations/@/resolve\n{\"keep\":\"%s\",\"confirm\":\"@\"}", keep);
	order(s, text);
	order(s, "GET /v1/migrations/@");
	seed_u8(s, PAUSE);
	answer(s, MSG_ANSWER_NOT_STARTED);
	snprintf(name, sizeof(name), "resolved-%s", keep);
	seed_write(s, "source_session", name);
}

static void room(struct seed *s, unsigned int conn)
{
	static struct msg m;

	memset(&m, 0, sizeof(m));
	m.type = MSG_ROOM;
	m.room.flags = MSG_ROOM_POSTCOPY;
	m.room.limit = 4;
	m.room.memory = 1u << 30;
	m.room.npools = 1;
	m.room.pools[0].size = 2u << 20;
	m.room.nlaunchers = 1;
	strcpy(m.room.launchers[0].name, "run");
	strcpy(m.room.launchers[0].driver, "native");
	m.room.launchers[0].usable = true;
	say(s, conn, &m);
}

static void evacuation(struct seed *s)
{
	order(s,
	      "POST "
	      "/v1/"
	      "evacuations\n{\"to\":[\"b\"],\"mode\":\"postcopy\",\"options\":{\"channels\":1}}");
	ack(s, CONTROL_);
	room(s, CONTROL_);
	order(s, "GET /v1/evacuations/@");
	session(s, CONTROL_ + 1, BULK_ + 1);
	hand_over(s, CONTROL_ + 1);
	receipt(s, CONTROL_ + 1);
	seed_u8(s, PAUSE);
	order(s, "GET /v1/evacuations/@");
	order(s, "POST /v1/evacuations/@/cancel");
	seed_write(s, "source_session", "evacuation");
}

void seeds_there(struct seed *s)
{
	struct msg nack = {.type = MSG_NACK, .nack = {.pass = 1, .length = 4096}};

	begin(s, "postcopy");
	hand_over(s, CONTROL_);
	request(s, URGENT_);
	receipt(s, CONTROL_);
	seed_write(s, "source_session", "postcopy");

	begin(s, "hybrid");
	say(s, BULK_, &nack);
	hand_over(s, CONTROL_);
	request(s, CONTROL_);
	seed_u8(s, CLOSE | ON(BULK_));
	word(s, CONTROL_, MSG_DROPPED);
	receipt(s, CONTROL_);
	seed_write(s, "source_session", "hybrid");

	order(s, "POST "
		 "/v1/migrations\n{\"guest\":\"vm\",\"to\":\"b\",\"mode\":\"precopy\",\"options\":{"
		 "\"channels\":1}}");
	ack(s, CONTROL_);
	word(s, CONTROL_, MSG_PREPARED);
	ack(s, CONTROL_ + 1);
	seed_u8(s, CLOSE | ON(CONTROL_));
	seed_u8(s, PAUSE);
	resume(s, CONTROL_ + 2);
	ack(s, CONTROL_ + 3);
	acks(s, CONTROL_ + 3);
	order(s, "GET /v1/migrations\n");
	seed_write(s, "source_session", "interrupted");

	begin(s, "hybrid");
	word(s, CONTROL_, MSG_READY);
	seed_u8(s, CLOSE | ON(CONTROL_));
	answer(s, MSG_ANSWER_NOT_STARTED);
	seed_write(s, "source_session", "doubt");

	begin(s, "postcopy");
	hand_over(s, CONTROL_);
	seed_u8(s, CLOSE | ON(URGENT_));
	word(s, CONTROL_, MSG_DROPPED);
	request(s, CONTROL_);
	seed_u8(s, PAUSE);
	ack(s, NEXT_);
	receipt(s, CONTROL_);
	seed_write(s, "source_session", "mended");

	recovered(s, true);
	recovered(s, false);
	resolved(s, "source");
	resolved(s, "destination");
	evacuation(s);
}
