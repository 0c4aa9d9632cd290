/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages of GUEST.md, coded and decoded field by field, and sent as packets with their
 * descriptor. Compiled into the agents and into libdecant-guest.
 */
#ifndef DECANT_GUEST_GWIRE_H
#define DECANT_GUEST_GWIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define GWIRE_MAGIC        0x47434344u
#define GWIRE_VERSION      1
#define GWIRE_PACKET_MAX   65536u
#define GWIRE_NAME_MAX     64 /* with the NUL, as all sizes of char arrays here */
#define GWIRE_PATH_MAX     108
#define GWIRE_MESSAGE_MAX  256
#define GWIRE_TOKEN_LEN    32
#define GWIRE_UUID_LEN     16
#define GWIRE_BLOCKS_MAX   256
#define GWIRE_RANGES_MAX   4000
#define GWIRE_VCPUS_MAX    256
#define GWIRE_BOUND_MAX_MS 600000u
#define GWIRE_STATE_MAX    (64u << 20)
#define GWIRE_MEMORY_MAX   (1ull << 46)

/** enum gwire_type - every message of GUEST.md */
enum gwire_type {
	GWIRE_HELLO = 1,
	GWIRE_BLOCK = 2,
	GWIRE_HELLO_END = 3,
	GWIRE_DONE = 4,
	GWIRE_STATE_CHANGED = 5,
	GWIRE_SHARER = 6,
	GWIRE_SHARE_MAP = 7,
	GWIRE_SHARE_UNMAP = 8,
	GWIRE_VCPU = 9,
	GWIRE_WELCOME = 64,
	GWIRE_REFUSED = 65,
	GWIRE_PAUSE = 66,
	GWIRE_RESUME = 67,
	GWIRE_SAVE = 68,
	GWIRE_LOAD = 69,
	GWIRE_LOAD_END = 70,
	GWIRE_UFFD = 71,
	GWIRE_UFFD_AGAIN = 72,
	GWIRE_UFFD_CLOSE = 73,
	GWIRE_PUNCH = 74,
	GWIRE_PREPARE = 75,
	GWIRE_FINISH = 76,
	GWIRE_IDENTITY = 77,
	GWIRE_MOVE = 78,
	GWIRE_QUIT = 79,
	GWIRE_SETTLED = 80,
};

#define GWIRE_HELLO_KEPT        (1u << 0)
#define GWIRE_HELLO_USER_FAULTS (1u << 1)
#define GWIRE_HELLO_VCPUS       (1u << 2)
#define GWIRE_SHARER_AGAIN      (1u << 0)
#define GWIRE_BLOCK_NO_DMA      (1u << 0)
#define GWIRE_BLOCK_READONLY    (1u << 1)
#define GWIRE_LOAD_PAUSED       (1u << 0)
#define GWIRE_UFFD_USER_MODE    (1u << 0)
#define GWIRE_UFFD_KEEP         (1u << 1)

/** struct gwire_hello - HELLO; @run_state is enum guest_run_state's number (0..3) */
struct gwire_hello {
	uint16_t version;
	char name[GWIRE_NAME_MAX];
	uint8_t uuid[GWIRE_UUID_LEN];
	uint64_t generation;
	bool has_token;
	uint8_t token[GWIRE_TOKEN_LEN];
	uint8_t run_state;
	uint32_t flags;
	uint32_t kept_tag;
	uint16_t blocks;
};

/** struct gwire_block - BLOCK; lengths and address in bytes */
struct gwire_block {
	uint16_t index;
	uint8_t kind;
	uint32_t flags;
	uint64_t length;
	uint64_t page_size;
	uint64_t address;
	char name[GWIRE_NAME_MAX];
};

/** struct gwire_done - DONE; @result 0 or a negative errno, @detail as GUEST.md's table has it */
struct gwire_done {
	int32_t result;
	uint64_t detail;
	char message[GWIRE_MESSAGE_MAX];
};

/** struct gwire_refused - REFUSED; the sizes are those of struct error */
struct gwire_refused {
	char code[40];
	char message[472];
};

/** struct gwire_uffd - UFFD; @flags GWIRE_UFFD_* */
struct gwire_uffd {
	uint8_t flags;
	uint32_t tag;
};

/** struct gwire_sharer - SHARER; @guest's memory is shared, @name is for the log */
struct gwire_sharer {
	uint16_t version;
	char guest[GWIRE_NAME_MAX];
	char name[GWIRE_NAME_MAX];
	uint8_t flags;
};

/** struct gwire_share - SHARE_MAP; SHARE_UNMAP has @length and @address only; bytes */
struct gwire_share {
	uint64_t offset;
	uint64_t length;
	uint64_t address;
	char block[GWIRE_NAME_MAX];
};

/** struct gwire_vcpu - VCPU; @tid as the guest's pid namespace numbers it, @on named or taken back */
struct gwire_vcpu {
	uint32_t tid;
	bool on;
};

/** struct gwire_range - bytes in a block */
struct gwire_range {
	uint64_t offset;
	uint64_t length;
};

/** struct gwire_punch - PUNCH; @ranges is the caller's array of GWIRE_RANGES_MAX when decoding */
struct gwire_punch {
	uint16_t block;
	uint16_t n;
	struct gwire_range *ranges;
};

/** struct gwire_identity - IDENTITY */
struct gwire_identity {
	uint8_t uuid[GWIRE_UUID_LEN];
	uint64_t generation;
};

/**
 * struct gwire_msg - any message
 * @type:	enum gwire_type, or a number that is not known (then nothing else is decoded)
 * @id:		of a request and its DONE, 0 otherwise
 * @nfds:	0 or 1: descriptors that travel with it
 * @u:		what @type has; RESUME, SAVE, HELLO_END and others have nothing
 */
struct gwire_msg {
	uint16_t type;
	uint16_t nfds;
	uint32_t id;
	union {
		struct gwire_hello hello;
		struct gwire_block block;
		struct gwire_done done;
		uint8_t run_state;
		struct gwire_sharer sharer;
		struct gwire_share share;
		struct gwire_vcpu vcpu;
		uint16_t version;
		struct gwire_refused refused;
		uint32_t bound_ms;
		uint8_t load_flags;
		uint64_t load_length;
		struct gwire_uffd uffd;
		struct gwire_punch punch;
		struct gwire_identity identity;
		char path[GWIRE_PATH_MAX];
	} u;
};

/** gwire_name() - Return: "PAUSE" and so on, "unknown" for what is none */
const char *gwire_name(uint16_t type);
/** gwire_known() - Return: whether @type is one of GUEST.md's */
bool gwire_known(uint16_t type);

/**
 * gwire_encode() - one packet
 * @cap:	size of @buf; GWIRE_PACKET_MAX holds any message
 *
 * Return: bytes used, or -EMSGSIZE / -EINVAL for what the format cannot hold
 */
ssize_t gwire_encode(const struct gwire_msg *m, uint8_t *buf, size_t cap);

/**
 * gwire_decode() - check and take apart one packet
 * @ranges:	room for GWIRE_RANGES_MAX ranges of a PUNCH, or NULL where none is expected (it is
 *		refused then)
 * @ret_what:	on -EBADMSG the name of the field that was wrong (a static string)
 *
 * Checks every bound of the format, also whether the type may carry a descriptor. Of an unknown
 * type only type, nfds and id are filled and 0 is returned.
 *
 * Return: 0 or -EBADMSG
 */
int gwire_decode(const uint8_t *buf, size_t len, struct gwire_range *ranges, struct gwire_msg *ret,
		 const char **ret_what);

/**
 * gwire_send() - send one packet
 * @fd:		descriptor to pass, or -1; not closed
 *
 * Return: 0, -EAGAIN when a non-blocking socket is full, or another -errno
 */
int gwire_send(int sock, const uint8_t *buf, size_t len, int fd);

/**
 * gwire_recv() - receive one packet
 * @buf:	GWIRE_PACKET_MAX bytes
 * @ret_fd:	descriptor that came with it (close-on-exec, the caller's to close), or -1
 * @ret_pid:	sender's pid where the socket has SO_PASSCRED, otherwise 0; may be NULL
 *
 * Compares the number of descriptors with the header's. A packet that is cut short or has too many
 * descriptors is -EBADMSG, and everything that came with it is closed.
 *
 * Return: length; 0 when the peer has ended the connection; -EAGAIN; -EBADMSG; or another -errno
 */
ssize_t gwire_recv(int sock, uint8_t *buf, int *ret_fd, pid_t *ret_pid);

/**
 * gwire_hang_up() - close @sock, so that the peer hears what was sent last
 *
 * Behind a socket that is closed with packets unread the peer finds ECONNRESET, and not the REFUSED.
 */
void gwire_hang_up(int sock);

#endif
