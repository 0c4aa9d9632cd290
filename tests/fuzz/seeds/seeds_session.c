/* SPDX-License-Identifier: Apache-2.0 */
/* Whole sessions of a source, as tests/fuzz/dest_session.c takes them. */
#include <stdlib.h>
#include <string.h>
#include "fuzz/lib/fuzz_fd.h"
#include "fuzz/seeds/seeds.h"
#include "msg.h"

/* Bits of the byte before a frame: see LLVMFuzzerTestOneInput() there. */
#define WAIT     1
#define RIGHT    4
#define CONTROL_ (0 << 3)
#define BULK_    (1 << 3)
#define URGENT_  (2 << 3)
#define AGAIN_   (3 << 3)

static struct msg *message(enum msg_type type)
{
	static struct msg m;

	memset(&m, 0, sizeof(m));
	m.type = type;
	return &m;
}

static void say(struct seed *s, uint8_t op, const struct msg *m)
{
	static uint8_t buf[MSG_HEADER_LEN + MSG_BODY_MAX], page[4096];
	ssize_t n = msg_encode(m, buf, sizeof(buf));
	bool raw = m->type == MSG_PAGES && m->pages.kind == MSG_PAGES_RAW;

	if (n < 0)
		abort();
	seed_u8(s, op | RIGHT | WAIT);
	seed_u16(s, (uint16_t)((size_t)n + (raw ? sizeof(page) : 0)));
	seed_raw(s, buf, (size_t)n);
	memset(page, 'x', sizeof(page));
	if (raw)
		seed_raw(s, page, sizeof(page));
}

static void hello(struct seed *s, uint8_t op, enum msg_channel kind)
{
	struct msg *m = message(MSG_HELLO);

	m->hello.version_min = 1;
	m->hello.version_max = MSG_VERSION;
	m->hello.capabilities = 0xff;
	m->hello.kind = (uint8_t)kind;
	m->hello.migration[0] = 9;
	say(s, op, m);
}

static void setup(struct seed *s, bool paused)
{
	struct msg *m = message(MSG_SETUP);

	strcpy(m->setup.name, "vm");
	memcpy(m->setup.uuid, (uint8_t[]){1, 2, 3}, 3);
	strcpy(m->setup.driver, "native");
	strcpy(m->setup.launcher, "run");
	m->setup.paused = paused;
	m->setup.may_postcopy = true;
	m->setup.bulk_channels = 1;
	m->setup.blocks = 1;
	say(s, CONTROL_, m);
	m = message(MSG_BLOCK);
	m->block = (struct msg_block){.name = "ram",
				      .flags = MSG_BLOCK_NO_DMA,
				      .page_size = 4096,
				      .length = FUZZ_MEMORY_LEN};
	say(s, CONTROL_, m);
}

static void pages(struct seed *s, uint8_t op, uint64_t first, uint64_t n, bool raw, uint32_t pass)
{
	struct msg *m = message(MSG_PAGES);

	m->pages = (struct msg_pages){
		.kind = raw, .offset = first * 4096, .length = n * 4096, .pass = pass};
	say(s, op, m);
}

static void simple(struct seed *s, uint8_t op, enum msg_type type, uint64_t number)
{
	struct msg *m = message(type);

	if (type == MSG_SWITCH)
		m->switch_.pass = (uint32_t)number;
	else if (type == MSG_LISTEN)
		m->listen.postcopy = number;
	else
		m->number.value = number;
	say(s, op, m);
}

static void barrier(struct seed *s, uint32_t pass)
{
	struct msg *m = message(MSG_BARRIER);

	m->barrier = (struct msg_barrier){pass, pass};
	say(s, BULK_, m);
}

static void state(struct seed *s)
{
	struct msg *m = message(MSG_STATE);

	m->state = (struct msg_state){(const uint8_t *)"state", 5};
	say(s, CONTROL_, m);
	simple(s, CONTROL_, MSG_STATE_END, 0);
}

static void complete(struct seed *s)
{
	struct msg *m = message(MSG_COMPLETE);

	m->complete.n = 1;
	m->complete.pages[0] = FUZZ_MEMORY_LEN / 4096;
	say(s, CONTROL_, m);
}

static void begin(struct seed *s)
{
	hello(s, CONTROL_, MSG_CHANNEL_CONTROL);
	setup(s, false);
	hello(s, URGENT_, MSG_CHANNEL_URGENT);
	hello(s, BULK_, MSG_CHANNEL_BULK);
}

static void discard(struct seed *s)
{
	struct msg *m = message(MSG_DISCARD);

	m->discard.n = 1;
	m->discard.ranges[0] = (struct msg_range){4096, 8192};
	say(s, CONTROL_, m);
}

static void hand_over(struct seed *s, uint32_t pass)
{
	simple(s, CONTROL_, MSG_INTENT, 1);
	simple(s, CONTROL_, MSG_SWITCH, pass);
	discard(s);
	simple(s, CONTROL_, MSG_LISTEN, 1);
	state(s);
	simple(s, CONTROL_, MSG_COMMIT, 1);
}

static void resume(struct seed *s)
{
	struct msg *m;

	seed_u8(s, 3 | CONTROL_);
	hello(s, AGAIN_, MSG_CHANNEL_CONTROL);
	m = message(MSG_RESUME);
	m->resume.generation = 1;
	m->resume.bulk_channels = 1;
	say(s, AGAIN_, m);
}

static void hybrid(struct seed *s, bool resumed)
{
	begin(s);
	pages(s, BULK_, 0, 1, true, 1);
	pages(s, BULK_, 1, 15, false, 1);
	barrier(s, 1);
	discard(s);
	hand_over(s, 2);
	pages(s, URGENT_, 1, 1, true, 2);
	if (resumed)
		resume(s);
	pages(s, BULK_, 2, 1, true, 2);
	barrier(s, 2);
	complete(s);
	simple(s, URGENT_, MSG_END, 0);
	seed_write(s, "dest_session", resumed ? "resumed" : "hybrid");
}

static void store(struct seed *s)
{
	struct msg *m;

	hello(s, CONTROL_, MSG_CHANNEL_CONTROL);
	m = message(MSG_FACTS);
	m->facts.n = 1;
	strcpy(m->facts.facts[0].key, "qemu");
	say(s, CONTROL_, m);
	m = message(MSG_STORE);
	strcpy(m->store.name, "monday");
	m->store.start = true;
	say(s, CONTROL_, m);
	setup(s, true);
	hello(s, BULK_, MSG_CHANNEL_BULK);
	pages(s, BULK_, 0, 1, true, 1);
	pages(s, BULK_, 1, 15, false, 1);
	state(s);
	barrier(s, 1);
	complete(s);
	seed_write(s, "dest_session", "store");
}

#define OF_THE_GUEST                                                                               \
	"\"identity\":\"DNS:peer\",\"from\":\"x\",\"guest\":\"vm\",\"uuid\":\"01020300-0000-0000-" \
	"0000-000000000000\",\"generation\":1,\"driver\":\"native\",\"launcher\":\"run\","
#define ITS_PROCESS "\"pid\":PID0,\"pid_start\":TIME,"

/* A guest that has begun to run, as tests/fuzz/dest_journal.c takes it: two pages have come, and an earlier one. */
static void left_behind(struct seed *s, uint8_t how, const char *name)
{
	static const char records[] =
		"{\"id\":\"09000000-0000-0000-0000-000000000000\"," OF_THE_GUEST
		"\"vars\":{},\"created\":5,\"record\":\"setup\",\"boot\":\"BOOT\"}\n"
		"{" ITS_PROCESS "\"record\":\"setup\",\"boot\":\"BOOT\"}\n"
		"{\"place\":{\"version\":1,\"paused\":false,\"may_postcopy\":true,\"blocks\":[{"
		"\"name\":\"ram\",\"kind\":0,\"flags\":1,\"page_size\":4096,\"length\":65536,"
		"\"address\":52776558133248}]},\"record\":\"may-own\",\"boot\":\"BOOT\"}\n"
		"{" ITS_PROCESS
		"\"pass\":2,\"listened\":true,\"record\":\"owner\",\"boot\":\"BOOT\"}\n";
	static uint8_t states[4104] =
		"DCNTPAGE\1\0\0\0\0\x10\0\0\x10\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\t";
	uint8_t said[512];
	struct msg *m;
	ssize_t n;

	memcpy(states + 4096, (uint8_t[]){0x81, 0xaa, 0xaa, 0xaa}, 4);
	seed_u8(s, how);
	seed_text(s, records);
	seed_u8(s, 1);
	seed_piece(s, states, sizeof(states));
	m = message(MSG_HELLO);
	m->hello.version_min = 1;
	m->hello.version_max = MSG_VERSION;
	m->hello.capabilities = 0xff;
	m->hello.migration[0] = 9;
	n = msg_encode(m, said, sizeof(said));
	m = message(MSG_RESUME);
	m->resume.generation = 1;
	m->resume.bulk_channels = 1;
	n += msg_encode(m, said + n, sizeof(said) - (size_t)n);
	seed_u8(s, 0);
	seed_piece(s, said, (size_t)n);
	seed_write(s, "dest_journal", name);
}

void seeds_session(struct seed *s)
{
	struct msg *m;

	hybrid(s, false);
	hybrid(s, true);
	store(s);
	begin(s);
	m = message(MSG_ABORT);
	strcpy(m->error.code, "cancelled");
	say(s, CONTROL_, m);
	seed_write(s, "dest_session", "abort");
	hello(s, AGAIN_, MSG_CHANNEL_QUERY);
	simple(s, AGAIN_, MSG_QUERY, 1);
	seed_write(s, "dest_session", "query");
	hello(s, AGAIN_, MSG_CHANNEL_QUERY);
	say(s, AGAIN_, message(MSG_PROBE));
	begin(s);
	say(s, AGAIN_, message(MSG_PROBE));
	seed_write(s, "dest_session", "probe");
	left_behind(s, 0, "kept");
	left_behind(s, 128, "lost");
}
