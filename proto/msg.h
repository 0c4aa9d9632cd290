/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages of PROTOCOL.md: one struct for each, coded and decoded field by field. Decoding
 * checks every bound that can be checked without knowing the session; what depends on it (does
 * this block exist? is this the right state?) is the receiver's.
 */
#ifndef DECANT_PROTO_MSG_H
#define DECANT_PROTO_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "util/error.h"

#define MSG_MAGIC            0x544e4344u
#define MSG_VERSION          2 /* the newest that is spoken here */
#define MSG_VERSION_OLDEST   1
#define MSG_VERSION_RECOVERY 2 /* from here on a session can be made again */
#define MSG_VERSION_FACTS    2 /* from here on there are FACTS, and blocks may be READONLY */
#define MSG_VERSION_BLOCKED  2 /* from here on RECEIPT tells the block time */
#define MSG_HEADER_LEN       8
#define MSG_PAGES_FIXED      64 /* header and fixed part of PAGES */
#define MSG_BODY_MAX         65536u
#define MSG_PAGES_RAW_MAX    262144u
#define MSG_REQUEST_MAX      (2u << 20)
#define MSG_STATE_TOTAL_MAX  (64u << 20)
#define MSG_BLOCKS_MAX       256
#define MSG_THREADS_MAX      256 /* vCPU threads whose block time is told */
#define MSG_VARS_MAX         64
#define MSG_FACTS_MAX        200
#define MSG_CHANNELS_MAX     16
#define MSG_DISCARD_MAX      4000
#define MSG_OCTAVES          24
#define MSG_RECEIVED_MAX     8000
#define MSG_MEMORY_MAX       (1ull << 46)
#define MSG_POOLS_MAX        8
#define MSG_POOL_SIZE_MAX    (1ull << 40)
#define MSG_LAUNCHERS_MAX    256
#define MSG_NAME_MAX         64 /* with the NUL, as all sizes of char arrays here */
#define MSG_VALUE_MAX        256
#define MSG_DRIVER_MAX       16
#define MSG_TOKEN_LEN        32
#define MSG_UUID_LEN         16
#define MSG_HELLO_TIMEOUT_US 10000000ull
#define MSG_PING_IDLE_US     1000000ull
#define MSG_LOST_US          5000000ull

#define MSG_CAP_POSTCOPY (1ull << 0)
#define MSG_CAP_URGENT   (1ull << 1)
#define MSG_CAP_SNAPSHOT (1ull << 3)
#define MSG_CAP_MEND     (1ull << 4)
#define MSG_CAP_KEEP     (1ull << 5)
#define MSG_CAP_RESOLVE  (1ull << 6)
#define MSG_CAP_ROOM     (1ull << 7)

enum msg_type {
	MSG_HELLO = 1,
	MSG_HELLO_ACK = 2,
	MSG_ERROR = 3,
	MSG_PING = 4,
	MSG_PONG = 5,
	MSG_SETUP = 16,
	MSG_BLOCK = 17,
	MSG_PREPARED = 18,
	MSG_INTENT = 19,
	MSG_INTENT_ACK = 20,
	MSG_SWITCH = 21,
	MSG_DISCARD = 22,
	MSG_LISTEN = 23,
	MSG_STATE = 24,
	MSG_STATE_END = 25,
	MSG_READY = 26,
	MSG_COMMIT = 27,
	MSG_RUNNING = 28,
	MSG_COMPLETE = 29,
	MSG_RECEIPT = 30,
	MSG_ABORT = 31,
	MSG_ABORTED = 32,
	MSG_STORE = 33,
	MSG_RESUME = 34,
	MSG_RECEIVED = 35,
	MSG_RESUMED = 36,
	MSG_CONTINUE = 37,
	MSG_FACTS = 38,
	MSG_REQUEST = 40,
	MSG_DROP = 41,
	MSG_DROPPED = 42,
	MSG_PAGES = 48,
	MSG_NACK = 49,
	MSG_BARRIER = 50,
	MSG_BARRIER_ACK = 51,
	MSG_END = 52,
	MSG_QUERY = 64,
	MSG_ANSWER = 65,
	MSG_KEPT = 66,
	MSG_PROBE = 67,
	MSG_ROOM = 68,
};

enum msg_channel {
	MSG_CHANNEL_CONTROL = 0,
	MSG_CHANNEL_URGENT = 1,
	MSG_CHANNEL_BULK = 2,
	MSG_CHANNEL_QUERY = 3,
};

enum msg_block_kind {
	MSG_BLOCK_MEMFD = 0,
	MSG_BLOCK_ANON = 1,
	MSG_BLOCK_HUGETLB = 2,
};

enum msg_pages_kind {
	MSG_PAGES_ZERO = 0,
	MSG_PAGES_RAW = 1,
};

enum msg_answer {
	MSG_ANSWER_UNKNOWN = 0,
	MSG_ANSWER_NOT_STARTED = 1,
	MSG_ANSWER_RUNNING = 2,
	MSG_ANSWER_COMPLETED = 3,
	MSG_ANSWER_GONE = 4, /* to KEPT only */
};

#define MSG_ROOM_CORDONED (1u << 0)
#define MSG_ROOM_ENDING   (1u << 1)
#define MSG_ROOM_POSTCOPY (1u << 2)

#define MSG_BLOCK_NO_DMA   (1u << 0)
#define MSG_BLOCK_READONLY (1u << 1)

/** struct msg_hello - see PROTOCOL.md, as for all that follow; @kind is enum msg_channel */
struct msg_hello {
	uint16_t version_min;
	uint16_t version_max;
	uint64_t capabilities;
	uint8_t kind;
	uint8_t index;
	uint8_t migration[MSG_UUID_LEN];
	uint8_t token[MSG_TOKEN_LEN];
};

struct msg_hello_ack {
	uint16_t version;
	uint64_t capabilities;
	uint8_t token[MSG_TOKEN_LEN];
};

/** struct msg_error - ERROR and ABORT */
struct msg_error {
	char code[40];
	char message[472];
};

/** struct msg_number - PING, PONG, INTENT, COMMIT, RUNNING, QUERY, KEPT: one u64 (a number or a
 * generation) */
struct msg_number {
	uint64_t value;
};

struct msg_var {
	char key[MSG_NAME_MAX];
	char value[MSG_VALUE_MAX];
};

struct msg_setup {
	char name[MSG_NAME_MAX];
	uint8_t uuid[MSG_UUID_LEN];
	uint64_t generation;
	char driver[MSG_DRIVER_MAX];
	char launcher[MSG_NAME_MAX];
	bool paused;
	bool may_postcopy;
	uint8_t bulk_channels;
	uint32_t blocks;
	uint16_t nvars;
	struct msg_var vars[MSG_VARS_MAX];
};

/** struct msg_facts - what the process at the destination has to have, as its driver knows */
struct msg_facts {
	uint16_t n;
	struct msg_var facts[MSG_FACTS_MAX];
};

/** struct msg_store - the session stores an image of the guest */
struct msg_store {
	char name[MSG_NAME_MAX];
	bool start;
};

struct msg_block {
	uint32_t index;
	char name[MSG_NAME_MAX];
	uint8_t kind;
	uint32_t flags;
	uint32_t page_size;
	uint64_t length;
};

struct msg_switch {
	uint32_t pass;
};

struct msg_range {
	uint64_t offset;
	uint64_t length;
};

struct msg_discard {
	uint32_t block;
	uint32_t n;
	struct msg_range ranges[MSG_DISCARD_MAX];
};

struct msg_listen {
	bool postcopy;
};

/** struct msg_state - @data points into the frame that was decoded, or to the caller's bytes to
 * encode */
struct msg_state {
	const uint8_t *data;
	uint32_t len;
};

struct msg_state_end {
	uint64_t length;
	uint64_t digest;
};

struct msg_complete {
	uint64_t runs;
	uint64_t digest_sum;
	uint32_t n;
	uint64_t pages[MSG_BLOCKS_MAX];
};

/**
 * struct msg_receipt - what only the destination knows of post-copy goes with it
 * @faults, @requests: faults of the guest, pages it asked for because of them
 * @p50_us, @p90_us, @p99_us, @max_us: from reading a fault to its answer
 * @answered:	faults answered in at most 2^i us and more than 2^(i - 1); the last entry: in more
 * @has_block_time: the guest names its vCPU threads; without, what follows is 0
 * @all_blocked_us: for so long all of them waited for pages at once
 * @nthreads, @blocked_us: how long each of them did in all
 * @brief:	as it was before MSG_VERSION_BLOCKED, without anything about block time; a receiver tells the
 *		two by their length
 */
struct msg_receipt {
	bool digest_ok;
	uint32_t n;
	uint64_t faults;
	uint64_t requests;
	uint32_t p50_us;
	uint32_t p90_us;
	uint32_t p99_us;
	uint32_t max_us;
	uint32_t answered[MSG_OCTAVES];
	bool brief;
	bool has_block_time;
	uint64_t all_blocked_us;
	uint32_t nthreads;
	uint64_t blocked_us[MSG_THREADS_MAX];
	uint64_t pages[MSG_BLOCKS_MAX];
};

/** struct msg_resume - @generation: of the guest at the destination */
struct msg_resume {
	uint64_t generation;
	uint8_t bulk_channels;
};

/** struct msg_received - a piece of the received bitmap: bit i of @words[w] is page @first + 64 w + i */
struct msg_received {
	uint32_t block;
	uint32_t n;
	uint64_t first;
	uint64_t words[MSG_RECEIVED_MAX];
};

/** struct msg_resumed - @pass: to which all pages belong that are still to come */
struct msg_resumed {
	uint32_t pass;
};

struct msg_request {
	uint32_t block;
	uint64_t offset;
	uint64_t length;
};

/** struct msg_pages - the fixed part; the payload follows it on the channel */
struct msg_pages {
	uint32_t block;
	uint8_t kind;
	uint64_t offset;
	uint64_t length;
	uint32_t pass;
	uint64_t digest;
};

struct msg_nack {
	uint32_t block;
	uint32_t pass;
	uint64_t offset;
	uint64_t length;
};

/** struct msg_barrier - BARRIER and BARRIER_ACK */
struct msg_barrier {
	uint32_t pass;
	uint32_t number;
};

/** struct msg_drop - DROP and DROPPED: one data channel; @kind is enum msg_channel */
struct msg_drop {
	uint8_t kind;
	uint8_t index;
};

struct msg_answer_body {
	uint8_t answer;
};

/** struct msg_pool - huge pages of one size */
struct msg_pool {
	uint64_t size;
	uint64_t unused;
};

/** struct msg_launcher - @usable: its program is there and may be executed */
struct msg_launcher {
	char name[MSG_NAME_MAX];
	char driver[MSG_DRIVER_MAX];
	bool usable;
};

/**
 * struct msg_room - what a destination has to spare
 * @flags:	MSG_ROOM_*
 * @incoming:	migrations that come in now, @yours of them from who asks
 * @limit, @per_source: how many may, in all and from one source; @per_source 0: no such limit
 * @memory:	bytes that are available and not wanted by guests on their way
 * @memory_limit: of all incoming guests together, 0 for none
 */
struct msg_room {
	uint8_t flags;
	uint32_t incoming;
	uint32_t yours;
	uint32_t limit;
	uint32_t per_source;
	uint64_t memory;
	uint64_t memory_limit;
	uint16_t npools;
	struct msg_pool pools[MSG_POOLS_MAX];
	uint16_t nlaunchers;
	struct msg_launcher launchers[MSG_LAUNCHERS_MAX];
};

/**
 * struct msg - any message
 * @type:	selects the member; PREPARED, INTENT_ACK, READY, ABORTED, CONTINUE, END and PROBE have none
 *
 * Large (several 10 KiB): allocate it, or keep one for each connection; not for small stacks.
 */
struct msg {
	enum msg_type type;
	union {
		struct msg_hello hello;
		struct msg_hello_ack hello_ack;
		struct msg_error error;
		struct msg_number number;
		struct msg_setup setup;
		struct msg_store store;
		struct msg_facts facts;
		struct msg_block block;
		struct msg_switch switch_;
		struct msg_discard discard;
		struct msg_listen listen;
		struct msg_state state;
		struct msg_state_end state_end;
		struct msg_complete complete;
		struct msg_receipt receipt;
		struct msg_resume resume;
		struct msg_received received;
		struct msg_resumed resumed;
		struct msg_request request;
		struct msg_pages pages;
		struct msg_nack nack;
		struct msg_barrier barrier;
		struct msg_drop drop;
		struct msg_answer_body answer;
		struct msg_room room;
	};
};

/** msg_version_common() - Return: the highest version in [@min, @max] that is spoken here, too; 0 if none is */
uint16_t msg_version_common(uint16_t min, uint16_t max);

/** struct msg_header - the 8 bytes before every body */
struct msg_header {
	uint32_t length;
	uint16_t type;
};

/**
 * msg_header_decode() - check the header of a frame
 * @channel:	where it came from
 * @from_source: direction
 *
 * Return: 0; -EBADMSG with @err filled (codes `unknown-message`, `bad-length`, `bad-flags`,
 * `unexpected-message`) for a type that does not exist or does not belong on this channel in this
 * direction, a length outside the bounds of the type, or flags
 */
int msg_header_decode(const uint8_t in[static MSG_HEADER_LEN], enum msg_channel channel,
		      bool from_source, struct msg_header *ret, struct error *err);

/**
 * msg_decode() - decode a body
 * @h:		its header, checked by msg_header_decode()
 * @body:	@h->length bytes; for PAGES only the 56 bytes of the fixed part
 *
 * Return: 0; -EBADMSG with @err filled (code `bad-message`), naming message and field; the contents
 * of @ret are then unspecified (it is too large to be copied for that)
 */
int msg_decode(const struct msg_header *h, const uint8_t *body, struct msg *ret, struct error *err);

/**
 * msg_encode() - header and body into the caller's buffer
 * @cap:	MSG_HEADER_LEN + MSG_BODY_MAX is always enough
 *
 * For PAGES: header and fixed part (MSG_PAGES_FIXED bytes), the header's length covering
 * the payload that the caller sends behind them. Return: bytes written, -ENOSPC if @cap is too
 * small, -EINVAL if a field is out of its bounds
 */
ssize_t msg_encode(const struct msg *m, uint8_t *out, size_t cap);

/**
 * msg_error_fill() - make ERROR or ABORT of an error
 * @type:	MSG_ERROR or MSG_ABORT
 * @err:	any contents: what no message may hold is replaced, an empty code becomes "error"
 */
void msg_error_fill(struct msg *ret, enum msg_type type, const struct error *err);

/**
 * msg_check_blocks() - do these blocks make a guest? For descriptions from a peer and our own alike
 * @blocks:	in the order of their index
 *
 * Return: 0; -EBADMSG with @err naming the block and what is wrong with it (code `bad-block`):
 * index, name (also one that is there twice), kind, flags, page size, length, or the sum of all
 * lengths
 */
int msg_check_blocks(const struct msg_block *blocks, size_t n, struct error *err);

/**
 * msg_pages_encode() - msg_encode() for PAGES without the union around it, which is large
 * @out:	header and fixed part
 *
 * Return: MSG_PAGES_FIXED, or -EINVAL if a field is out of its bounds
 */
ssize_t msg_pages_encode(const struct msg_pages *p, uint8_t out[static MSG_PAGES_FIXED]);

/** msg_type_name() - Return: "HELLO" …, "?" for an unknown type */
const char *msg_type_name(unsigned int type);
/** msg_channel_name() - Return: "control", "urgent", "bulk", "query" */
const char *msg_channel_name(enum msg_channel channel);

#endif
