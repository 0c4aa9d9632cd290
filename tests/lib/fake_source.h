/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source made of the test's own decisions: it speaks the protocol by proto/, and says what the test
 * wants when the test wants it. What it "migrates" is the guest tests/guests/still.
 *
 * Functions fail the test (lab_fail()) when something else happens than their name says.
 */
#ifndef DECANT_TESTS_FAKE_SOURCE_H
#define DECANT_TESTS_FAKE_SOURCE_H

#include "dial.h"
#include "frame.h"
#include "lib/lab.h"

#define FAKE_BLOCKS_MAX 4
#define FAKE_BULK_MAX   4

/**
 * struct fake_block - a block of the guest
 * @name:	NULL ends the list
 * @kind:	of the wire
 * @pages:	of 4 KiB
 */
struct fake_block {
	const char *name;
	enum msg_block_kind kind;
	uint64_t pages;
};

/**
 * struct fake_opts - how it is set up; zero means the usual
 * @guest:	its name; default "still"
 * @launcher:	default "still"
 * @identity:	certificates; default host-a
 * @blocks:	default: one memfd of 256 pages
 * @bulk:	bulk channels; default 1
 * @urgent:	with an urgent channel
 * @precopy_only: SETUP says that there will be no post-copy
 * @paused:	it arrives paused
 */
struct fake_opts {
	const char *guest;
	const char *launcher;
	const char *identity;
	struct fake_block blocks[FAKE_BLOCKS_MAX];
	unsigned int bulk;
	bool urgent;
	bool precopy_only;
	bool paused;
};

/**
 * struct fake_source - one session
 * @control, @urgent, @bulk: channels; their chan is NULL when they are closed
 * @id, @token:	of the session
 * @seed:	of the pages
 * @pass:	of frames that are sent
 * @runs, @digest_sum: of all PAGES sent, for COMPLETE
 * @m, @body:	the message that came last
 * @buf:	a frame of PAGES to send
 */
struct fake_source {
	struct lab *lab;
	struct lab_host *to;
	struct fake_opts o;
	unsigned int nblocks;
	struct tls_ctx *ctx;
	struct frame_io control;
	struct frame_io urgent;
	struct frame_io bulk[FAKE_BULK_MAX];
	uint8_t id[MSG_UUID_LEN];
	char id_text[40];
	uint8_t token[MSG_TOKEN_LEN];
	uint64_t capabilities;
	uint64_t seed;
	uint32_t pass;
	uint64_t runs;
	uint64_t digest_sum;
	uint32_t barrier;
	struct msg m;
	uint8_t body[MSG_BODY_MAX];
	uint8_t buf[MSG_PAGES_FIXED + MSG_PAGES_RAW_MAX];
};

/** fake_new() - a source that has said nothing yet */
struct fake_source *fake_new(struct lab_host *to, const struct fake_opts *opts);
/** fake_free() - close what is open */
void fake_free(struct fake_source *f);
/** fake_launchers() - dest_conf for lab_host_opts: adds the launchers that these tests use */
char *fake_launchers(const struct lab *lab);

/** fake_hello() - control channel and HELLO; waits for HELLO_ACK */
void fake_hello(struct fake_source *f);
/** fake_setup() - SETUP and BLOCKs; waits for nothing */
void fake_setup(struct fake_source *f);
/** fake_prepared() - fake_hello(), fake_setup(), PREPARED, all channels */
void fake_prepared(struct fake_source *f);
/** fake_channel() - open one more. Return: 0, or what dial_blocking() returned with @err */
int fake_channel(struct fake_source *f, enum msg_channel kind, unsigned int index,
		 struct frame_io *io, struct error *err);

/** fake_send() - one message on control; @m->type and so on set by the caller in @f->m */
void fake_send(struct fake_source *f);
void fake_send_simple(struct fake_source *f, enum msg_type type);
void fake_send_number(struct fake_source *f, enum msg_type type, uint64_t n);
/** fake_expect() - wait for a message of this type on control, answering PINGs; it is in @f->m */
void fake_expect(struct fake_source *f, enum msg_type type);
/** fake_expect_behind() - the same, behind any number of messages of type @before */
void fake_expect_behind(struct fake_source *f, enum msg_type before, enum msg_type type);
/** fake_expect_error() - wait for ERROR with this code, whose text contains @names (NULL: any) */
void fake_expect_error(struct fake_source *f, const char *code, const char *names);

/** fake_raw() - PAGES with the right content of pages [first, first + n); @n up to 64 */
void fake_raw(struct fake_source *f, struct frame_io *io, unsigned int block, uint64_t first,
	      uint64_t n);
/** fake_old() - the same with content that is out of date */
void fake_old(struct fake_source *f, struct frame_io *io, unsigned int block, uint64_t first,
	      uint64_t n);
/** fake_damaged() - the same with the right content and a wrong digest */
void fake_damaged(struct fake_source *f, struct frame_io *io, unsigned int block, uint64_t first,
		  uint64_t n);
/** fake_zero() - PAGES of kind zero */
void fake_zero(struct fake_source *f, struct frame_io *io, unsigned int block, uint64_t first,
	       uint64_t n);
/** fake_pages() - right content of [first, first + n), runs by what the pages hold */
void fake_pages(struct fake_source *f, struct frame_io *io, unsigned int block, uint64_t first,
		uint64_t n);
/** fake_all() - all of all blocks, spread over the bulk channels */
void fake_all(struct fake_source *f);
/** fake_barrier() - on every bulk channel, and wait for the answers */
void fake_barrier(struct fake_source *f);
/** fake_bulk_expect() - wait for a message on a bulk channel; it is in @f->m */
void fake_bulk_expect(struct fake_source *f, unsigned int i, enum msg_type type);

/** fake_intent() - INTENT, INTENT_ACK */
void fake_intent(struct fake_source *f);
/** fake_switch() - SWITCH to the next pass */
void fake_switch(struct fake_source *f);
/** fake_discard() - one range of one block */
void fake_discard(struct fake_source *f, unsigned int block, uint64_t first, uint64_t n);
/** fake_listen() - LISTEN */
void fake_listen(struct fake_source *f, bool postcopy);
/** fake_state() - STATE with @ballast bytes behind the seed, STATE_END */
void fake_state(struct fake_source *f, uint64_t ballast);
/** fake_ready() - wait for READY; what is asked for meanwhile is served */
void fake_ready(struct fake_source *f);
/** fake_commit() - COMMIT, RUNNING */
void fake_commit(struct fake_source *f);
/** fake_serve() - answer requests on urgent or control until @ms pass without one. Return: how many */
unsigned int fake_serve(struct fake_source *f, unsigned int ms);
/** fake_complete() - COMPLETE */
void fake_complete(struct fake_source *f);
/** fake_close() - end all channels without a word */
void fake_close(struct fake_source *f);
/** fake_query() - ask on a channel of its own. Return: enum msg_answer */
enum msg_answer fake_query(struct fake_source *f, uint64_t generation);

/** fake_view() - Return: GET /v1/incoming/ID, new reference */
json_t *fake_view(struct fake_source *f);
/** fake_phase_is() - Return: whether that is its phase */
bool fake_phase_is(struct fake_source *f, const char *phase);
/** fake_report_is() - Return: whether the guest has said this */
bool fake_report_is(struct fake_source *f, const char *text);
/** fake_guest_pid() - Return: pid of the launched guest, 0 if there is none */
pid_t fake_guest_pid(struct fake_source *f);

#endif
