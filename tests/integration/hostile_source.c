/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decant-dest against sources that mean harm or have gone mad: crowds before and behind the handshake, bytes
 * that come one by one, tokens of other sessions, runs that are damaged for ever, floods. What it costs is
 * bounded, and a guest that arrives from an honest host meanwhile does not notice.
 * (Messages that are wrong in themselves: hostile_wire.c; in a session: incoming_refused.c.)
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guests/still_page.h"
#include "lib/fake_source.h"
#include "lib/lab_hostile.h"
#include "lib/lab_pace.h"
#include "lib/lab_test.h"

TestSuite(hostile_source, .timeout = 180);

/* Host a with both agents, and host b with a destination that launches all guests of the tests. */
static struct lab_host *pair(struct lab_host **ret_a, const char *more)
{
	struct lab *lab = lab_new(lab_test_failed);
	char *conf = fake_launchers(lab);
	json_t *o = json_loads(conf, 0, NULL);
	struct lab_host *b;

	if (more)
		json_object_set_new(o, "limits", json_loads(more, 0, NULL));
	free(conf);
	conf = json_dumps(o, 0);
	json_decref(o);
	b = lab_host_start(
		lab, &(struct lab_host_opts){.name = "b", .no_source = true, .dest_conf = conf});
	free(conf);
	*ret_a = lab_host_start(lab, &(struct lab_host_opts){.name = "a", .no_dest = true});
	return b;
}

/* --- crowds --- */

#define ROUND 150

/* Return: connections made; each round's are held for a moment, so that they crowd. */
static unsigned int crowd(struct lab_host *b, unsigned int round)
{
	struct lab_wire *peers[4];
	int fds[ROUND];

	for (unsigned int i = 0; i < ROUND; i++)
		fds[i] = lab_tcp_open(b);
	/* Some begin a handshake and leave it. */
	for (unsigned int i = 0; i < ROUND; i += 3)
		if (send(fds[i], "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11, MSG_NOSIGNAL) <
		    0)
			continue;
	/* Some are let in, and say nothing more, or noise. */
	for (unsigned int i = 0; i < LAB_COUNT(peers); i++) {
		peers[i] = lab_wire_open(b, &(struct lab_wire_opts){0});
		if (peers[i] && (i + round) % 2)
			lab_wire_send(peers[i], "noisenoisenoise", 15);
	}
	usleep(20000);
	for (unsigned int i = 0; i < LAB_COUNT(peers); i++)
		if (peers[i])
			lab_wire_close(peers[i]);
	for (unsigned int i = 0; i < ROUND; i++)
		close(fds[i]);
	return ROUND + LAB_COUNT(peers);
}

/* Thousands, from the address of an honest source. */
Test(hostile_source, thousands)
{
	struct lab_host *a, *b = pair(&a, NULL);
	struct lab *lab = b->lab;
	struct lab_beside beside = lab_beside_begin(a, b, 4000);
	struct lab_watch w = lab_watch_begin(lab, b->dest);
	unsigned int n = 0, fds = 0;

	for (unsigned int round = 0; n < 3000 || lab_beside_moves(&beside); round++) {
		struct lab_usage u;

		n += crowd(b, round);
		u = lab_usage(lab, b->dest->pid);
		fds = u.fds > fds ? u.fds : fds;
	}
	fprintf(stderr, "%u connections, at most %u descriptors\n", n, fds);
	/* limits.connections_per_address, and what it has besides. */
	lab_check(lab, fds < w.usage.fds + 64 + 40, "%u descriptors", fds);
	lab_beside_end(&beside);
	lab_watch_end(&w, "thousands of connections",
		      &(struct lab_cost){.cpu_percent = 110, .peak_mb = 32, .fds = 8});
	lab_end(lab);
}

/* --- dribbles --- */

/* A handshake, a HELLO, a frame of a session: each byte is new, and none is in time. */
Test(hostile_source, bytes_one_by_one)
{
	struct lab_host *a, *b = pair(&a, NULL);
	struct lab *lab = b->lab;
	struct lab_watch w = lab_watch_begin(lab, b->dest);
	struct lab_wire *hello = hostile_connect(b), *setup = hostile_session(b, NULL);
	int shake = lab_tcp_open(b);
	struct pace *pace = pace_start();
	uint64_t began = lab_now_ms(), gone = 0;
	uint8_t out[128] = {0};
	size_t n = hostile_hello(out, 0, 0, NULL);
	uint8_t head[8] = {60, 0, 0, 0, 16, 0, 0, 0};

	for (unsigned int i = 0; lab_now_ms() < began + 60000 && !gone; i++) {
		char c;

		send(shake, &"\x16\x03\x01\xff\xff\x01\x00\xff"[i % 8], 1, MSG_NOSIGNAL);
		lab_wire_send(hello, &out[i < n - 1 ? i : 0], i < n - 1);
		lab_wire_send(setup, i < 8 ? &head[i] : (const uint8_t *)"x", i < 50);
		if (recv(shake, &c, 1, MSG_DONTWAIT) == 0)
			gone = lab_now_ms() - began;
		usleep(300000);
	}
	lab_check(lab, gone, "the handshake may take for ever");
	lab_brisk(lab, pace, gone * 1000, 13000000, "the handshake");
	pace_end(pace);
	close(shake);
	hostile_refused(b, hello, "HELLO byte by byte", NULL, NULL, true);
	hostile_refused(b, setup, "SETUP byte by byte", NULL, NULL, true);
	lab_watch_end(&w, "dribbles", &(struct lab_cost){.cpu_percent = 10});
	lab_end(lab);
}

/* --- places --- */

/* One source can be kept from taking the places of all. */
Test(hostile_source, places)
{
	struct lab_host *a, *b = pair(&a, "{\"incoming\": 4, \"incoming_per_source\": 2}");
	struct lab *lab = b->lab;
	struct fake_source *f[3], *other;
	struct error err = {0};

	for (unsigned int i = 0; i < 3; i++)
		f[i] = fake_new(b, &(struct fake_opts){0});
	fake_hello(f[0]);
	fake_hello(f[1]);
	lab_check(lab,
		  fake_channel(f[2], MSG_CHANNEL_CONTROL, 0, &f[2]->control, &err) == -EREMOTEIO,
		  "a third one");
	lab_check(lab,
		  !strcmp(err.code, "limit-incoming") && strstr(err.msg, "incoming_per_source"),
		  "%s", err.msg);
	other = fake_new(b, &(struct fake_opts){.identity = "host-b"});
	fake_hello(other);
	for (unsigned int i = 0; i < 3; i++)
		fake_free(f[i]);
	fake_free(other);
	lab_end(lab);
}

/* --- tokens --- */

/* Two sessions of one identity: the token of the one opens no channel of the other. */
Test(hostile_source, tokens_of_other_sessions)
{
	struct lab_host *a, *b = pair(&a, NULL);
	struct lab *lab = b->lab;
	struct fake_source *f = fake_new(b, &(struct fake_opts){0});
	struct fake_source *g = fake_new(b, &(struct fake_opts){.guest = "still2"});
	uint8_t own[MSG_TOKEN_LEN];
	struct frame_io io = {0};
	struct error err = {0};

	fake_prepared(f);
	fake_hello(g);
	fake_setup(g);
	fake_expect(g, MSG_PREPARED);
	memcpy(own, g->token, sizeof(own));
	memcpy(g->token, f->token, sizeof(own));
	for (unsigned int kind = MSG_CHANNEL_URGENT; kind <= MSG_CHANNEL_BULK; kind++) {
		error_clear(&err);
		lab_check(lab,
			  fake_channel(g, (enum msg_channel)kind, 0, &io, &err) == -EREMOTEIO &&
				  !strcmp(err.code, "bad-token"),
			  "the other's token: %s", err.msg);
	}
	memcpy(g->token, own, sizeof(own));
	/* And a second control channel of a session that stands. */
	error_clear(&err);
	lab_check(lab, fake_channel(g, MSG_CHANNEL_CONTROL, 0, &io, &err) == -EREMOTEIO,
		  "two control channels");
	fprintf(stderr, "a second control channel: %s: %s\n", err.code, err.msg);
	error_clear(&err);
	lab_check(lab, !fake_channel(g, MSG_CHANNEL_BULK, 0, &g->bulk[0], &err), "%s", err.msg);
	fake_all(g);
	fake_barrier(g);
	fake_all(f);
	fake_barrier(f);
	fake_free(f);
	fake_free(g);
	lab_until(lab, 10000, lab_host_guests(b) == 0, "guests stay");
	lab_end(lab);
}

/* --- damage and floods in a session --- */

/** enum flood - what a source sends without end */
enum flood { DAMAGED, SAME_PAGE, ZEROS, DISCARDS };

static void flood_once(struct fake_source *f, enum flood what, uint64_t page)
{
	switch (what) {
	case DAMAGED:
		/* At the first page, in the middle, at the last: it is refused wherever it is. */
		fake_damaged(f, &f->bulk[0], 0, page, 1);
		fake_bulk_expect(f, 0, MSG_NACK);
		lab_check(f->lab, f->m.nack.offset == page * STILL_PAGE, "another page is refused");
		break;
	case SAME_PAGE:
		fake_raw(f, &f->bulk[0], 0, page, 1);
		break;
	case ZEROS:
		fake_zero(f, &f->bulk[0], 0, 0, 256);
		break;
	case DISCARDS:
		fake_discard(f, 0, page, 1);
		break;
	}
}

/* Each lasts for a second or more while the neighbour moves; the session is not the worse for it. */
Test(hostile_source, floods)
{
	static const struct {
		const char *name;
		enum flood what;
	} floods[] = {{"damaged runs", DAMAGED},
		      {"one page", SAME_PAGE},
		      {"zeros", ZEROS},
		      {"DISCARDs", DISCARDS}};
	struct lab_host *a, *b = pair(&a, NULL);
	struct lab *lab = b->lab;
	struct lab_beside beside = lab_beside_begin(a, b, 6000);

	for (size_t i = 0; i < LAB_COUNT(floods); i++) {
		struct fake_source *f = fake_new(b, &(struct fake_opts){0});
		struct lab_watch w;
		uint64_t end, n = 0;

		fake_prepared(f);
		fake_all(f);
		w = lab_watch_begin(lab, b->dest);
		for (end = lab_now_ms() + 1000; lab_now_ms() < end; n++)
			flood_once(f, floods[i].what, n % 3 == 0 ? 0 : n % 3 == 1 ? 128 : 255);
		fprintf(stderr, "%s: %lu\n", floods[i].name, n);
		fake_barrier(f);
		lab_check(lab, fake_phase_is(f, "advise"), "%s: the session has ended",
			  floods[i].name);
		lab_watch_end(&w, floods[i].name, &(struct lab_cost){.cpu_percent = 130});
		fake_free(f);
		lab_until(lab, 10000, lab_host_guests(b) <= 1, "the guest stays");
	}
	lab_beside_end(&beside);
	lab_end(lab);
}

/* A state that is larger than may be, in pieces that are right each. */
Test(hostile_source, state_too_large)
{
	struct lab_host *a, *b = pair(&a, NULL);
	struct lab *lab = b->lab;
	struct fake_source *f = fake_new(b, &(struct fake_opts){0});
	static uint8_t piece[1000];
	struct lab_watch w;

	fake_prepared(f);
	fake_all(f);
	fake_barrier(f);
	fake_intent(f);
	fake_switch(f);
	fake_listen(f, false);
	w = lab_watch_begin(lab, b->dest);
	for (uint64_t n = 0; n <= MSG_STATE_TOTAL_MAX; n += sizeof(piece)) {
		for (uint64_t i = 0; i < sizeof(piece); i++)
			piece[i] = n + i < 8 ? (uint8_t)(f->seed >> 8 * i)
					     : still_ballast(f->seed, n + i - 8);
		f->m.type = MSG_STATE;
		f->m.state = (struct msg_state){piece, sizeof(piece)};
		fake_send(f);
	}
	fake_expect_error(f, "bad-message", "larger than");
	lab_until(lab, 10000, fake_phase_is(f, "aborted"), "the phase");
	lab_watch_end(&w, "64 MiB of state", &(struct lab_cost){.cpu_percent = 110});
	fake_free(f);
	lab_end(lab);
}
