/* SPDX-License-Identifier: Apache-2.0 */
/* Packets of guests and sharers, and whole conversations of theirs. */
#include <stdio.h>
#include <stdlib.h>
#include "fuzz/lib/fuzz_fd.h"
#include "fuzz/seeds/seeds.h"
#include "guest/gwire.h"
#include "util/cleanup.h"

static struct gwire_range ranges[] = {{0x1000, 0x2000}, {0xa000, 0x1000}};

static const struct gwire_msg messages[] = {
	{.type = GWIRE_HELLO,
	 .u.hello = {.version = 1, .name = "vm", .uuid = {1, 2, 3}, .blocks = 2}},
	{.type = GWIRE_BLOCK,
	 .nfds = 1,
	 .u.block = {.length = FUZZ_MEMORY_LEN,
		     .page_size = 4096,
		     .address = FUZZ_MEMORY,
		     .name = "ram"}},
	{.type = GWIRE_BLOCK,
	 .u.block = {.index = 1,
		     .kind = 1,
		     .length = FUZZ_MEMORY_LEN,
		     .page_size = 4096,
		     .address = FUZZ_MEMORY + FUZZ_MEMORY_LEN,
		     .name = "heap"}},
	{.type = GWIRE_HELLO_END},
	{.type = GWIRE_VCPU, .u.vcpu = {.tid = 1, .on = true}},
	{.type = GWIRE_STATE_CHANGED, .u.run_state = 2},
	{.type = GWIRE_DONE, .id = 1, .u.done = {.detail = 5}},
	{.type = GWIRE_DONE, .id = 2, .u.done = {.result = -5, .message = "no"}},
	{.type = GWIRE_DONE, .id = 3, .nfds = 1, .u.done = {.detail = 1}},
	{.type = GWIRE_SHARER, .nfds = 1, .u.sharer = {.version = 1, .guest = "vm", .name = "net"}},
	{.type = GWIRE_SHARE_MAP,
	 .id = 1,
	 .u.share = {.length = FUZZ_MEMORY_LEN, .address = FUZZ_MEMORY, .block = "ram"}},
	{.type = GWIRE_SHARE_UNMAP, .u.share = {.length = 0x1000, .address = FUZZ_MEMORY}},
	{.type = GWIRE_WELCOME, .u.version = 1},
	{.type = GWIRE_REFUSED, .u.refused = {.code = "full", .message = "later"}},
	{.type = GWIRE_PAUSE, .id = 1, .u.bound_ms = 5000},
	{.type = GWIRE_RESUME, .id = 2},
	{.type = GWIRE_SAVE, .nfds = 1, .id = 3},
	{.type = GWIRE_LOAD, .nfds = 1, .id = 4, .u.load_flags = 1},
	{.type = GWIRE_LOAD_END, .u.load_length = 0x4000000},
	{.type = GWIRE_UFFD, .id = 5, .u.uffd = {.flags = 3, .tag = 0x11223344}},
	{.type = GWIRE_PUNCH, .id = 8, .u.punch = {.block = 1, .n = 2, .ranges = ranges}},
	{.type = GWIRE_IDENTITY, .id = 9, .u.identity = {.uuid = {1}, .generation = 3}},
	{.type = GWIRE_MOVE, .id = 10, .u.path = "/run/decant/source.attach"},
};

static size_t encode(size_t i, uint8_t *buf)
{
	ssize_t n = gwire_encode(&messages[i], buf, GWIRE_PACKET_MAX);

	if (n < 0)
		abort();
	return (size_t)n;
}

/* With a descriptor of @kind, where the packet has one. */
static void say(struct seed *s, size_t i, uint8_t kind)
{
	static uint8_t buf[GWIRE_PACKET_MAX];
	size_t n = encode(i, buf);

	seed_u8(s, messages[i].nfds ? kind : 0);
	seed_piece(s, buf, n);
}

static void hello(struct seed *s)
{
	for (size_t i = 0; i < 4; i++)
		say(s, i, FUZZ_FD_MEMORY);
}

void seeds_guest(struct seed *s)
{
	static uint8_t buf[GWIRE_PACKET_MAX];
	char name[32];

	for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
		size_t n = encode(i, buf);

		snprintf(name, sizeof(name), "%s-%zu", gwire_name(messages[i].type), i);
		seed_u8(s, messages[i].type == GWIRE_PUNCH);
		seed_raw(s, buf, n);
		seed_write(s, "guest_gwire", name);
	}
	/* Every request of the agent's, answered well, badly, and with a descriptor. */
	for (unsigned int ask = 0; ask < 16; ask++) {
		hello(s);
		say(s, 4, 0);
		seed_u8(s, (uint8_t)(128 + ask));
		say(s, ask == 7 || ask == 8 ? 8 : 6, 1);
		say(s, 5, 0);
		seed_u8(s, (uint8_t)(128 + (ask + 1) % 16));
		say(s, 7, 0);
		snprintf(name, sizeof(name), "ask-%u", ask);
		seed_write(s, "guest_attach", name);
	}
	hello(s);
	seed_u8(s, 255);
	say(s, 9, 1);
	say(s, 10, 0);
	say(s, 11, 0);
	seed_write(s, "guest_attach", "sharer");
}
