/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest as the agents see it, whatever its kind: who it is, what memory it has, and what can be
 * asked of it. Behind it stands a driver (native: native.c, made by attach.c; qemu: qemu/qemu.c, made
 * by qemu/qemu_find.c).
 *
 * Thread rules: everything here is called on the agent's loop thread, and every callback comes on
 * it. Other threads may read the blocks' description, and reach the memory through gmem.h, which
 * keeps descriptors of its own and so outlives the struct guest.
 *
 * Each operation calls its done callback exactly once, never before the operation has returned,
 * unless it returned an error itself (then never). It has a bound of its own: no answer in time is
 * -ETIMEDOUT. A guest that is lost ends all that is outstanding with -ECONNRESET, then calls gone.
 */
#ifndef DECANT_GUEST_DRIVER_H
#define DECANT_GUEST_DRIVER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "guest/gwire.h"
#include "util/error.h"
#include "util/loop.h"

#define GUEST_NAME_MAX   GWIRE_NAME_MAX
#define GUEST_UUID_LEN   GWIRE_UUID_LEN
#define GUEST_TOKEN_LEN  GWIRE_TOKEN_LEN
#define GUEST_BLOCKS_MAX GWIRE_BLOCKS_MAX
#define GUEST_DMA_MAX    256 /* of guest.dma, with the NUL */
#define GUEST_VCPUS_MAX  GWIRE_VCPUS_MAX
#define GUEST_STATE_MAX  GWIRE_STATE_MAX /* bytes of saved state */
#define GUEST_RANGES_MAX GWIRE_RANGES_MAX

/** enum guest_run_state - numbers are those of GUEST.md */
enum guest_run_state {
	GUEST_RUNNING = 0,
	GUEST_PAUSED = 1,           /* by its own wish */
	GUEST_PAUSED_MIGRATION = 2, /* by guest_pause(), or loaded and not yet let go */
	GUEST_INCOMING = 3,         /* waits for guest_load() */
};

/** enum guest_block_kind - numbers are those of GUEST.md and PROTOCOL.md */
enum guest_block_kind {
	GUEST_BLOCK_MEMFD = 0,
	GUEST_BLOCK_ANON = 1,
	GUEST_BLOCK_HUGETLB = 2,
};

#define GUEST_BLOCK_NO_DMA   GWIRE_BLOCK_NO_DMA
#define GUEST_BLOCK_READONLY GWIRE_BLOCK_READONLY

/**
 * struct guest_block - one contiguous range of guest memory
 * @index:	its place in guest.blocks
 * @name:	unique in the guest
 * @kind:	backing
 * @flags:	GUEST_BLOCK_NO_DMA: nothing but processors writes to it; GUEST_BLOCK_READONLY: nobody does
 * @length:	bytes, a multiple of @page_size
 * @page_size:	bytes
 * @addr:	where it is in the guest's address space
 * @fd:		backing file; -1 for anonymous memory; owned by the struct guest
 */
struct guest_block {
	uint16_t index;
	char name[GUEST_NAME_MAX];
	enum guest_block_kind kind;
	uint32_t flags;
	uint64_t length;
	uint64_t page_size;
	uint64_t addr;
	int fd;
};

/** struct guest_range - bytes in a block */
#define guest_range gwire_range

struct guest;

/** enum guest_gone - how a guest was lost */
enum guest_gone {
	GUEST_GONE_DEAD,         /* its process has ended */
	GUEST_GONE_DISCONNECTED, /* the process lives; its library will attach again */
	GUEST_GONE_MISBEHAVED,   /* it broke the protocol and was cut off; as above */
};

/**
 * guest_done_fn - an operation has ended
 * @ret:	0 or a negative errno
 * @err:	filled if @ret is not 0
 * @fd:		only guest_uffd() and guest_uffd_again(): the descriptor, now the callback's to
 *		close; -1 otherwise
 */
typedef void guest_done_fn(void *arg, int ret, const struct error *err, int fd);
/** guest_gone_fn - the guest is lost; guest_free() may be called here */
typedef void guest_gone_fn(void *arg, struct guest *g, enum guest_gone how);
/** guest_vcpu_fn - a thread was named as a vCPU thread, or taken back (!@on) */
typedef void guest_vcpu_fn(void *arg, struct guest *g, uint32_t tid, bool on);
/** guest_stop_fn - a thread of its process was stood still for @us, to make it do something */
typedef void guest_stop_fn(void *arg, struct guest *g, uint64_t us);
/** guest_state_fn - guest.run_state has changed */
typedef void guest_state_fn(void *arg, struct guest *g);
/**
 * guest_chunk_fn - a piece of saved state
 * @p, @n:	bytes, valid during the call
 *
 * Return: 0 to go on; 1 to be left alone until guest_save_more(), this piece being accepted; a
 * negative errno to give up (the operation is done with it)
 */
typedef int guest_chunk_fn(void *arg, const void *p, size_t n);
/** guest_room_fn - after -EAGAIN of guest_load_feed(): there is room again */
typedef void guest_room_fn(void *arg);

/** enum guest_uffd_how - how a userfaultfd was made: struct guest.uffd_how */
enum guest_uffd_how {
	GUEST_UFFD_NONE = 0,
	GUEST_UFFD_SYSCALL = 1,
	GUEST_UFFD_DEVICE = 2,
	GUEST_UFFD_USER_MODE = 3,
};

struct guest_ops;

/**
 * struct guest - one guest
 * @ops:	its driver
 * @driver:	"native" or "qemu"
 * @loop:	the agent's loop
 * @name:	as it calls itself; checked against [A-Za-z0-9._-]
 * @uuid, @generation: identity
 * @has_token, @token: what it was launched with; present until it was let go
 * @pid, @uid:	its process and its owner, in the agent's namespaces
 * @pidfd:	of @pid; owned
 * @run_state:	as last heard
 * @user_faults: a userfaultfd for faults of user mode only will do
 * @names_vcpus: it names its vCPU threads
 * @vcpus, @nvcpus: those that it has named, as its own pid namespace numbers them
 * @kept_uffd:	the guest's process keeps a userfaultfd that an agent asked for
 * @kept_tag:	what that agent called it; 0 without
 * @arriving:	an agent that brings it here has left a note, and not taken it away: pages may be missing, or the
 *		guest runs elsewhere
 * @uffd_how:	how the last userfaultfd was made
 * @nblocks, @blocks: fixed while the struct guest lives
 * @cannot:	why it cannot be moved at all; empty if it can
 * @dma:	why its blocks are not free of DMA, where the driver knows; else empty. guest_look() sets it anew
 * @experimental: what of it decant moves by means that are experimental, for people; empty if nothing
 * @facts:	object of strings: what the process at the destination must have as well; owned; NULL
 *		without
 * @stopped_us:	longest time that a thread of its process was stood still to make it do something
 * @state_bytes: bytes that the last guest_save() delivered
 * @on_gone, @on_state, @arg: set by guest_watch()
 * @on_vcpu:	set by guest_watch_vcpus()
 * @on_stop:	set by guest_watch_stops()
 */
struct guest {
	const struct guest_ops *ops;
	const char *driver;
	struct loop *loop;
	char name[GUEST_NAME_MAX];
	uint8_t uuid[GUEST_UUID_LEN];
	uint64_t generation;
	bool has_token;
	uint8_t token[GUEST_TOKEN_LEN];
	pid_t pid;
	uid_t uid;
	int pidfd;
	enum guest_run_state run_state;
	bool user_faults;
	bool names_vcpus;
	uint32_t vcpus[GUEST_VCPUS_MAX];
	unsigned int nvcpus;
	bool kept_uffd;
	uint32_t kept_tag;
	bool arriving;
	enum guest_uffd_how uffd_how;
	uint16_t nblocks;
	struct guest_block *blocks;
	struct error cannot;
	char dma[GUEST_DMA_MAX];
	char experimental[GUEST_DMA_MAX];
	json_t *facts;
	uint64_t stopped_us;
	uint64_t state_bytes;
	guest_gone_fn *on_gone;
	guest_state_fn *on_state;
	guest_vcpu_fn *on_vcpu;
	guest_stop_fn *on_stop;
	void *arg;
};

/**
 * struct guest_ops - a driver; each member is described at the function of its name below
 *
 * A member that is NULL is an operation that the driver cannot do (-EOPNOTSUPP).
 */
struct guest_ops {
	int (*look)(struct guest *g, guest_done_fn *done, void *arg);
	int (*pause)(struct guest *g, uint32_t bound_ms, guest_done_fn *done, void *arg);
	int (*resume)(struct guest *g, guest_done_fn *done, void *arg);
	int (*save)(struct guest *g, guest_chunk_fn *chunk, guest_done_fn *done, void *arg);
	void (*save_more)(struct guest *g);
	int (*load)(struct guest *g, bool paused, guest_room_fn *room, guest_done_fn *done,
		    void *arg);
	int (*load_feed)(struct guest *g, const void *p, size_t n);
	int (*load_end)(struct guest *g);
	int (*uffd)(struct guest *g, bool keep, uint32_t tag, guest_done_fn *done, void *arg);
	int (*uffd_again)(struct guest *g, guest_done_fn *done, void *arg);
	int (*uffd_close)(struct guest *g, guest_done_fn *done, void *arg);
	int (*punch)(struct guest *g, uint16_t block, const struct guest_range *ranges, size_t n,
		     guest_done_fn *done, void *arg);
	int (*prepare)(struct guest *g, guest_done_fn *done, void *arg);
	int (*finish)(struct guest *g, guest_done_fn *done, void *arg);
	int (*set_identity)(struct guest *g, const uint8_t uuid[GUEST_UUID_LEN],
			    uint64_t generation, guest_done_fn *done, void *arg);
	int (*move)(struct guest *g, const char *path, guest_done_fn *done, void *arg);
	int (*quit)(struct guest *g, guest_done_fn *done, void *arg);
	void (*free)(struct guest *g);
};

/**
 * guest_watch() - who is told of loss and of changes of the run state; any may be NULL
 *
 * Of all else nobody is told any more: who watched before may be gone.
 */
void guest_watch(struct guest *g, guest_gone_fn *on_gone, guest_state_fn *on_state, void *arg);

/** guest_watch_vcpus() - who is told of changes to guest.vcpus; with the @arg of guest_watch(), behind it */
void guest_watch_vcpus(struct guest *g, guest_vcpu_fn *on_vcpu);
/** guest_watch_stops() - who is told when a thread of it stood; with the @arg of guest_watch(), behind it */
void guest_watch_stops(struct guest *g, guest_stop_fn *on_stop);

/**
 * guest_look() - look again at what writes into the guest's memory, for it can have changed
 *
 * Sets guest.dma and GUEST_BLOCK_NO_DMA of its blocks; nothing else may be in use of them. From then
 * on guest_pause() fails ("devices-changed") when it finds a block that was free of DMA to be so no more.
 * -EOPNOTSUPP: the guest itself has declared its blocks, for good.
 *
 * Done with an error: it cannot be moved; it says why
 */
int guest_look(struct guest *g, guest_done_fn *done, void *arg);

/**
 * guest_pause() - stop the guest
 * @bound_ms:	it must have stopped within this time (1 .. 600,000)
 *
 * Done 0: no thread of it touches its memory any more. Done with an error: it runs on, or will
 * by itself as soon as it answers; nothing has to be undone.
 */
int guest_pause(struct guest *g, uint32_t bound_ms, guest_done_fn *done, void *arg);
/**
 * guest_resume() - lift guest_pause(), or let a loaded guest go
 *
 * A save that is under way is given up; it is done with -ECANCELED.
 * A guest that was paused by its own wish stays so. Harmless for one that is not paused.
 */
int guest_resume(struct guest *g, guest_done_fn *done, void *arg);
/**
 * guest_save() - have a paused guest deliver its state, at most GUEST_STATE_MAX bytes
 * @chunk:	takes the pieces, in order
 *
 * Done 0 means that every byte has been delivered; their number is in guest.state_bytes.
 */
int guest_save(struct guest *g, guest_chunk_fn *chunk, guest_done_fn *done, void *arg);
/** guest_save_more() - go on after a chunk callback returned 1; not from within that callback */
void guest_save_more(struct guest *g);
/**
 * guest_load() - begin to load state into a guest that is GUEST_INCOMING
 * @paused:	it arrives paused by its own wish
 * @room:	see guest_load_feed()
 *
 * Feed the state, then call guest_load_end(). Done 0: the guest has taken it all and waits for
 * guest_resume(). Done with an error: this guest can only be ended.
 */
int guest_load(struct guest *g, bool paused, guest_room_fn *room, guest_done_fn *done, void *arg);
/**
 * guest_load_feed() - next bytes of the state; they are copied
 *
 * Return: 0 accepted; -EAGAIN not accepted, wait for the room callback; -EFBIG beyond
 * GUEST_STATE_MAX; -EINVAL if no load is under way (also: it has already failed)
 */
int guest_load_feed(struct guest *g, const void *p, size_t n);
/** guest_load_end() - all was fed. Return: 0 or -EINVAL */
int guest_load_end(struct guest *g);
/**
 * guest_uffd() - a new userfaultfd of the guest's process, non-blocking, without its handshake
 * @keep:	the process keeps a copy (missing faults), so that it
 *outlives the agent; at most one at a time
 * @tag:	non-zero note for a successor: guest.kept_tag after it attached again; 0 if not kept
 */
int guest_uffd(struct guest *g, bool keep, uint32_t tag, guest_done_fn *done, void *arg);
/** guest_uffd_again() - another descriptor of the kept userfaultfd; wake everything after it */
int guest_uffd_again(struct guest *g, guest_done_fn *done, void *arg);
/** guest_uffd_close() - the process closes its kept copy; done 0 if there is none */
int guest_uffd_close(struct guest *g, guest_done_fn *done, void *arg);
/**
 * guest_punch() - make holes, from inside the guest (gmem_punch() is faster where it can)
 * @ranges, @n:	1 .. GUEST_RANGES_MAX ranges in whole pages; copied
 */
int guest_punch(struct guest *g, uint16_t block, const struct guest_range *ranges, size_t n,
		guest_done_fn *done, void *arg);
/** guest_prepare() - transparent huge pages off, locked memory unlocked */
int guest_prepare(struct guest *g, guest_done_fn *done, void *arg);
/**
 * guest_finish() - restore what guest_prepare() changed; only when no page is missing or tracked
 *
 * An error says what could not be restored (locking again); all the rest was.
 */
int guest_finish(struct guest *g, guest_done_fn *done, void *arg);
/** guest_set_identity() - it arrives, until guest_finish(): guest.arriving, for whoever attaches. Also sets guest.uuid and guest.generation, when done 0 */
int guest_set_identity(struct guest *g, const uint8_t uuid[GUEST_UUID_LEN], uint64_t generation,
		       guest_done_fn *done, void *arg);
/** guest_move() - send it to another agent's socket; it then is GUEST_GONE_DISCONNECTED here */
int guest_move(struct guest *g, const char *path, guest_done_fn *done, void *arg);
/** guest_quit() - tell the program to end; done when told. Its end is GUEST_GONE_DEAD */
int guest_quit(struct guest *g, guest_done_fn *done, void *arg);
/**
 * guest_free() - let go of it; the program runs on and attaches again. NULL is fine
 *
 * Outstanding operations are dropped without their callbacks. May be called from any callback.
 */
void guest_free(struct guest *g);

/** guest_name_ok() - Return: whether it can name a guest or a block: 1 to 63 of [A-Za-z0-9._-], not
 * beginning with . or - */
bool guest_name_ok(const char *name);
/** guest_run_state_name() - Return: "running", "paused", "paused-for-migration", "incoming" */
const char *guest_run_state_name(enum guest_run_state s);
/** guest_block_kind_name() - Return: "memfd", "anonymous" or "hugetlb" */
const char *guest_block_kind_name(enum guest_block_kind k);
/** guest_memory_bytes() - Return: length of all blocks */
uint64_t guest_memory_bytes(const struct guest *g);
/** guest_no_dma() - Return: whether every block is declared free of DMA; else the first that is not
 * goes to @ret_block (may be NULL) */
bool guest_no_dma(const struct guest *g, const struct guest_block **ret_block);

#endif
