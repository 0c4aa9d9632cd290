/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of libdecant-guest. The library uses nothing of the agents but gwire.c and bytes.c. */
#ifndef DECANT_GUEST_LIB_H
#define DECANT_GUEST_LIB_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest/decant-guest.h"
#include "guest/gwire.h"

#define LIB_DEFAULT_ATTACH   "/run/decant/source.attach"
#define LIB_BACKOFF_FIRST_MS 10
#define LIB_BACKOFF_LAST_MS  1000
#define LIB_WELCOME_MS       10000
#define LIB_SEND_MS          5000
#define LIB_JOBS_MAX         16
#define LIB_RESULTS_MAX      64
#define LIB_STREAM_BUFFER    65536
#define LIB_STREAM_POLL_MS   100

/** struct lib_block - see decant_block_create(); @kind and @flags as on the wire */
struct lib_block {
	char name[GWIRE_NAME_MAX];
	uint8_t kind;
	uint32_t flags;
	uint64_t length;
	uint64_t page_size;
	void *addr;
	int fd;
};

/**
 * enum lib_arrival - how far a guest is that came, or is to come, from another host
 *
 * FRESH never changes. INCOMING → LOADING → LOADED → ARRIVED, or → FAILED from the first three.
 * Only in FRESH and ARRIVED are pause and resume called.
 */
enum lib_arrival {
	LIB_FRESH,
	LIB_INCOMING,
	LIB_LOADING,
	LIB_LOADED,
	LIB_ARRIVED,
	LIB_FAILED,
};

/** struct lib_job - a request for the callback thread; owns @fd */
struct lib_job {
	uint16_t type;
	uint32_t id;
	uint64_t epoch;
	int fd;
};

/** struct lib_result - an answer on its way to the service thread */
struct lib_result {
	uint32_t id;
	uint64_t epoch;
	int result;
	uint64_t detail;
	char message[GWIRE_MESSAGE_MAX];
};

/** struct lib_advice - what PREPARE changed about a range, for FINISH */
struct lib_advice {
	uintptr_t start;
	uintptr_t end;
	bool huge;
	bool locked;
	bool onfault;
};

/** struct lib_vcpu - a thread that was named (@on) or taken back; @told: the agent knows */
struct lib_vcpu {
	uint32_t tid;
	bool on;
	bool told;
};

/**
 * struct decant_guest - see decant-guest.h
 *
 * Fixed from decant_guest_start() on: @cb .. @wake. Service thread only, from then on: @path ..
 * @ranges. Under @lock: the rest. No callback is called and nothing that waits is done with @lock
 * held.
 *
 * @wake:	eventfd: there is something for the service thread
 * @sock:	-1 while there is no connection
 * @kept:	our copy of a userfaultfd, or -1
 * @sent_state:	run state that the agent knows
 * @moved:	MOVE was answered: end the connection, attach at once
 * @work:	something for the callback thread, or for a load that waits for its end
 * @epoch:	number of the connection; answers of an older one are dropped
 * @hold:	paused for a migration: set by PAUSE, lifted by RESUME
 * @own:	the program wishes to be paused
 * @paused:	what the callbacks did last
 * @pausing:	PAUSE is outstanding; @pause_id, @pause_deadline_us (CLOCK_MONOTONIC) belong to it
 * @load_end, @load_length: LOAD_END has come
 * @load_paused: what LOAD said about the wish
 * @quit:	the quit callback is to be called
 * @released:	decant_guest_start() may return @start_result
 */
struct decant_guest {
	struct decant_guest_callbacks cb;
	void *opaque;
	unsigned int flags;
	char name[GWIRE_NAME_MAX];
	struct lib_block *blocks;
	uint16_t nblocks;
	bool started;
	pthread_t service_thread;
	pthread_t calls_thread;
	int wake;

	char path[GWIRE_PATH_MAX];
	uint8_t uuid[GWIRE_UUID_LEN];
	uint64_t generation;
	bool has_token;
	uint8_t token[GWIRE_TOKEN_LEN];
	int sock;
	int kept;
	uint32_t kept_tag;
	uint8_t sent_state;
	bool moved;
	uint8_t *packet;
	struct gwire_range *ranges;

	pthread_mutex_t lock;
	pthread_cond_t work;
	pthread_cond_t start;
	bool stop;
	uint64_t epoch;
	enum lib_arrival arrival;
	bool hold;
	bool own;
	bool paused;
	bool pausing;
	uint32_t pause_id;
	uint64_t pause_deadline_us;
	bool load_end;
	uint64_t load_length;
	bool load_paused;
	bool quit;
	bool released;
	int start_result;
	struct lib_job jobs[LIB_JOBS_MAX];
	size_t njobs;
	struct lib_result results[LIB_RESULTS_MAX];
	size_t nresults;
	struct lib_vcpu vcpus[GWIRE_VCPUS_MAX];
	size_t nvcpus;
	struct lib_advice *advice;
	size_t nadvice;
	char error[GWIRE_MESSAGE_MAX];
};

/* guest.c */

/** lib_now_us() - Return: microseconds of CLOCK_MONOTONIC */
uint64_t lib_now_us(void);
/** lib_error() - remember a line for decant_guest_error(); the lock is not held */
void lib_error(struct decant_guest *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** lib_say() - lib_error() or not (@error), and the message callback; service thread, no lock */
void lib_say(struct decant_guest *g, bool error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/** lib_name_ok() - Return: whether it can name a guest or a block */
bool lib_name_ok(const char *name);
/** lib_release() - let decant_guest_start() return @result, unless it already may; lock held */
void lib_release(struct decant_guest *g, int result);
/** lib_is_here() - Return: whether it is a guest that runs, or stands paused, here; lock held */
bool lib_is_here(const struct decant_guest *g);
/** lib_run_state() - Return: run_state of the wire; lock held */
uint8_t lib_run_state(const struct decant_guest *g);
/** lib_wake() - have the service thread look */
void lib_wake(struct decant_guest *g);

/* block.c */

/** lib_block_protect() - map read-only blocks so. Return: 0 or -errno */
int lib_block_protect(const struct decant_guest *g);
/** lib_block_punch() - PUNCH. Return: 0 or -errno with @msg filled */
int lib_block_punch(struct decant_guest *g, const struct gwire_punch *p,
		    char msg[static GWIRE_MESSAGE_MAX]);
/** lib_block_free() - unmap and close everything */
void lib_block_free(struct decant_guest *g);

/* advice.c */

/** lib_advice_prepare() - PREPARE. Return: 0 or -errno with @msg filled */
int lib_advice_prepare(struct decant_guest *g, uint64_t *ret_unlocked,
		       char msg[static GWIRE_MESSAGE_MAX]);
/** lib_advice_finish() - FINISH; callback thread: locking touches the memory. Return: like prepare
 */
int lib_advice_finish(struct decant_guest *g, uint64_t *ret_locked,
		      char msg[static GWIRE_MESSAGE_MAX]);

/* open.c */

/**
 * lib_open_uffd() - make a userfaultfd of this process
 * @user_mode:	one for faults of user mode only will do, if no other can be had
 * @ret_how:	1 system call, 2 device, 3 user mode only
 *
 * Return: descriptor or -errno
 */
int lib_open_uffd(bool user_mode, uint64_t *ret_how);

/* stream.c: see decant_write() and decant_read() */

/** struct decant_writer - state on its way into the agent's pipe; @error is sticky */
struct decant_writer {
	struct decant_guest *g;
	uint64_t epoch;
	int fd;
	int error;
	uint64_t total;
	size_t used;
	uint8_t *buf;
};

/** struct decant_reader - state out of the agent's pipe; @error is sticky */
struct decant_reader {
	struct decant_guest *g;
	uint64_t epoch;
	int fd;
	int error;
	bool end;
	uint64_t total;
	size_t pos;
	size_t used;
	uint8_t *buf;
};

/** lib_stream_flush() - write what is buffered. Return: 0 or the writer's error */
int lib_stream_flush(struct decant_writer *w);
/** lib_stream_at_end() - Return: 0 if all was read and the length is right, -EBADMSG if bytes are
 * left, or the reader's error */
int lib_stream_at_end(struct decant_reader *r);

/* calls.c: the callback thread */

void *lib_calls_main(void *arg);
/** lib_calls_post() - queue a job; lock held. Return: 0, or -EBUSY (then @fd stays the caller's) */
int lib_calls_post(struct decant_guest *g, uint16_t type, uint32_t id, int fd);
/** lib_calls_result() - have the service thread send DONE; lock held */
void lib_calls_result(struct decant_guest *g, uint32_t id, uint64_t epoch, int result,
		      uint64_t detail, const char *message);

/* service.c: the service thread */

void *lib_service_main(void *arg);
/** lib_service_done() - answer a request. Return: 0 or -errno: the connection is to be ended */
int lib_service_done(struct decant_guest *g, uint32_t id, int result, uint64_t detail, int fd,
		     const char *message);

/* vcpu.c */

/** lib_vcpu_next() - what the agent is to be told next. Return: whether there is something; lock held */
bool lib_vcpu_next(struct decant_guest *g, struct gwire_vcpu *ret);
/** lib_vcpu_forget() - the agent knows nothing any more; lock held */
void lib_vcpu_forget(struct decant_guest *g);

/* request.c */

/**
 * lib_request_handle() - do or queue what the agent asks for
 * @fd:		came with it, or -1; taken over
 *
 * Return: 0, or -errno: the connection is to be ended
 */
int lib_request_handle(struct decant_guest *g, const struct gwire_msg *m, int fd);
/** lib_request_pause_bound() - give up a pause that takes too long. Return: ms until that is due,
 * -1 for never */
int lib_request_pause_bound(struct decant_guest *g);

#endif
