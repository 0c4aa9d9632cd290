/* SPDX-License-Identifier: Apache-2.0 */
/* The wire protocol's golden vectors as inputs. */
#include <stdio.h>
#include "fuzz/seeds/seeds.h"
#include "unit/proto_golden.h"

/* What a payload that a vector leaves out consists of; its digest is the target's matter. */
static void payload(struct seed *s, const struct golden *g)
{
	static const uint8_t zeros[GOLDEN_PAYLOAD];

	if (g->type == MSG_PAGES && g->fill == fill_pages)
		seed_raw(s, zeros, sizeof(zeros));
}

static uint8_t how(const struct golden *g)
{
	return (uint8_t)(golden_channel(g) | (g->from_source ? 4 : 0));
}

static void each_message(struct seed *s)
{
	for (size_t i = 0; i < GOLDEN_N; i++) {
		uint8_t bytes[GOLDEN_MAX];
		size_t n = golden_bytes(&golden[i], bytes);
		char name[48];

		snprintf(name, sizeof(name), "%s-%zu", msg_type_name(golden[i].type), i);
		seed_u8(s, how(&golden[i]));
		seed_raw(s, bytes, n);
		seed_write(s, "proto_msg", name);
	}
}

/* Everything that may travel on one channel in one direction. */
static void each_channel(struct seed *s, enum msg_channel channel, bool from_source)
{
	char name[32];

	snprintf(name, sizeof(name), "%s-%d", msg_channel_name(channel), from_source);
	for (int target = 0; target < 2; target++) {
		seed_u8(s, (uint8_t)(target ? from_source | channel << 1
					    : channel | (from_source ? 4 : 0)));
		if (!target)
			seed_u8(s, 3);
		for (size_t i = 0; i < GOLDEN_N; i++) {
			const struct golden *g = &golden[i];
			uint8_t bytes[GOLDEN_MAX];
			size_t n = golden_bytes(g, bytes);

			if (!(g->channels & 1u << channel) ||
			    !(from_source ? g->from_source : g->from_dest))
				continue;
			if (target) {
				seed_u8(s, (uint8_t)(4 + i % 2));
				seed_piece(s, bytes, n);
			} else {
				seed_raw(s, bytes, n);
				payload(s, g);
			}
		}
		seed_write(s, target ? "proto_conn" : "proto_frame", name);
	}
}

void seeds_proto(struct seed *s)
{
	each_message(s);
	for (int c = MSG_CHANNEL_CONTROL; c <= MSG_CHANNEL_QUERY; c++) {
		each_channel(s, c, true);
		each_channel(s, c, false);
	}
}
