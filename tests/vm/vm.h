/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The init program of the tests' VM: all that runs in it besides the kernel. It writes and verifies
 * its memory, reads and verifies its disk, answers TCP, and obeys commands on the serial console.
 *
 * The kernel's command line ends with "-- WORD...", which are init's arguments:
 *   fill=MIB    memory of the checker (default 16)
 *   rate=N      page writes a second of each of its threads, "full" for as many as it can (default 0)
 *   seed=N      of memory and disk
 *   blk net rng  which drivers to load
 *
 * When all is set up it says "ready …". From then on a line "N COMMAND…" is answered by any number of
 * lines "N: TEXT" and at last "N= TEXT"; N is the client's number, which is how a new client tells
 * old answers from its own. A command that cannot be obeyed is answered "N= error: WHY".
 *
 *   hello                   ready line again
 *   check                   verify every page from now: "checked PAGES bad B counter C gap G" and the
 *                           disk's "disk-pages P disk-bad B disk-reads R disk-writes W disk-errors E". B are bad pages ever found,
 *                           C page writes ever, G = C less the sum of the pages' own counts (0)
 *   rate N|full             see above
 *   corrupt memory|disk     flip a bit in a page that is in the checker's care; with a rate of 0 and
 *                           the disk stopped the next check must find it
 *   disk direct|buffered THREADS MIB RUN   read random runs of up to RUN (16) pages of /dev/vda into MIB for
 *                           each thread, for ever (of its first half)
 *   disk write              and write new versions of records of the second half, for ever
 *   disk stop               all of that
 *   latency                 "touches N p50 NS p99 NS max NS": what the checker's first access to a page took
 *                           since the last "latency"
 *   beat on|off             from now on a line "* COUNT" with every tick of 2 ms, between answers
 *   clock                   "mono NS real NS boot NS step NS": its clocks, and by how much the longest
 *                           step between two looks of a 2 ms ticker exceeded 2 ms since the last "clock"
 *   dmesg                   kernel messages of level "warning" and worse since "ready", then how many;
 *                           without those that are about the host's processors
 *   net up ADDRESS          /24 on eth0, and a server on port 7: answers each line "X" with "X COUNTER"
 *   rng                     16 bytes from /dev/hwrng
 *   poweroff, reboot, panic no answer
 */
#ifndef DECANT_TESTS_VM_H
#define DECANT_TESTS_VM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VM_CPUS_MAX  8
#define VM_DISKS_MAX 8
#define VM_TICK_NS   2000000
#define VM_BUCKETS   (64 * 8)

struct vm;

/**
 * struct vm_pages - pages in the care of one thread, which alone writes and verifies them
 * @mem:	@n pages
 * @number:	of each page: its own number, or that of the disk record that it holds
 * @version:	of each page
 * @served:	last request of vm.check that it has served
 * @bad:	bad pages found ever; each is put right, so that it counts once
 * @first_bad:	what the first one was, for people
 */
struct vm_pages {
	uint64_t *mem;
	uint64_t *number;
	uint64_t *version;
	uint64_t n;
	_Atomic uint64_t served;
	_Atomic uint64_t bad;
	char first_bad[128];
};

/**
 * struct vm_touches - times of first accesses to a page
 * @count:	of each bucket, an eighth of a power of two wide
 */
struct vm_touches {
	_Atomic uint64_t count[VM_BUCKETS];
	_Atomic uint64_t max_ns;
};

/**
 * struct vm_disk_writer - the thread that writes to the disk
 * @buffer:	some pages, through which all goes
 * @first, @records: its part of the disk
 * @version:	of each of its records
 * @idle:	has seen that it shall stop, and writes nothing
 */
struct vm_disk_writer {
	struct vm *vm;
	pthread_t thread;
	struct vm_pages buffer;
	uint64_t random, first, records;
	uint64_t *version;
	int fd;
	_Atomic bool idle;
	_Atomic uint64_t writes;
	_Atomic uint64_t errors;
};

/**
 * struct vm_writer - a thread of the memory checker
 * @writes:	page writes ever
 * @sum:	of the versions, taken when a check was served
 * @writes_then: @writes at the same moment
 */
struct vm_writer {
	struct vm *vm;
	pthread_t thread;
	struct vm_pages pages;
	uint64_t random;
	_Atomic uint64_t writes;
	uint64_t sum;
	uint64_t writes_then;
	struct vm_touches touches;
};

/** enum vm_disk_mode - what the threads of the disk do */
enum vm_disk_mode { VM_DISK_STOP, VM_DISK_DIRECT, VM_DISK_BUFFERED };

/**
 * struct vm_reader - a thread of the disk checker
 * @run:	most pages of a read
 * @idle:	has seen that it shall stop, and reads nothing
 * @reads, @errors: reads of a run, and those that failed
 */
struct vm_reader {
	struct vm *vm;
	pthread_t thread;
	struct vm_pages pages;
	uint64_t random;
	uint64_t records, run;
	int direct, buffered;
	_Atomic bool idle;
	_Atomic uint64_t reads;
	_Atomic uint64_t errors;
};

/**
 * struct vm - all that init knows
 * @tty:	/dev/ttyS0
 * @lock:	of writing to it
 * @check:	number of the check that is asked for; threads serve it, see vm_pages.served
 * @rate:	page writes a second of each thread; UINT64_MAX: full speed
 * @step_ns:	see "clock"
 */
struct vm {
	int tty, kmsg;
	pthread_mutex_t lock;
	uint64_t seed, fill_mib, boot_ms;
	bool blk, net, rng;
	unsigned int cpus;
	struct vm_writer writers[VM_CPUS_MAX];
	struct vm_reader readers[VM_DISKS_MAX];
	unsigned int n_readers;
	struct vm_disk_writer disk_writer;
	_Atomic bool disk_writes, beats;
	_Atomic uint64_t check;
	_Atomic uint64_t rate;
	_Atomic enum vm_disk_mode disk_mode;
	_Atomic uint64_t step_ns;
	_Atomic uint64_t net_counter;
	pthread_t ticker, server;
	int listener;
};

/** vm_say() - a line to the console */
void vm_say(struct vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** vm_nap() - sleep */
void vm_nap(uint64_t us);
/** vm_now_ns() - CLOCK_MONOTONIC */
uint64_t vm_now_ns(void);
/** vm_random() - next of a thread's own sequence */
uint64_t vm_random(uint64_t *state);

/* --- vm_mem.c --- */

/** vm_alloc() - zeroed memory that is never given back; NULL if there is none */
void *vm_alloc(size_t len);
/** vm_pages_new() - pages that hold nothing yet. Return: false without memory */
bool vm_pages_new(struct vm_pages *p, uint64_t n);
/** vm_pages_verify() - verify page @i, put it right if it is bad */
void vm_pages_verify(struct vm *vm, struct vm_pages *p, uint64_t i, const char *what);
/** vm_mem_start() - fill the checker's memory and start its threads. Return: NULL, or what failed */
const char *vm_mem_start(struct vm *vm);
/** vm_check() - answer "check" */
void vm_check(struct vm *vm, const char *tag);

/* --- vm_disk.c --- */

/** vm_disk() - answer "disk …" */
void vm_disk(struct vm *vm, const char *tag, const char *args);

/* --- vm_write.c --- */

/** vm_write_go() - write to the disk from now on. Return: NULL, or what failed */
const char *vm_write_go(struct vm *vm);
/** vm_write_stop() - no write is under way when it returns */
void vm_write_stop(struct vm *vm);

/* --- vm_time.c --- */

/** vm_touch() - read a word and note how long that took */
void vm_touch(struct vm_touches *t, const volatile uint64_t *at);
/** vm_ticker_start() - start the ticker of 2 ms */
void vm_ticker_start(struct vm *vm);
/** vm_latency(), vm_clock(), vm_beat() - answer these commands */
void vm_latency(struct vm *vm, const char *tag);
void vm_clock(struct vm *vm, const char *tag);
void vm_beat(struct vm *vm, const char *tag, const char *args);

/* --- vm_net.c --- */

/** vm_net() - answer "net …" */
void vm_net(struct vm *vm, const char *tag, const char *args);

/* --- vm_sys.c --- */

/** vm_sys_start() - mounts, drivers, console. Return: NULL, or what failed */
const char *vm_sys_start(struct vm *vm);
/** vm_sys_settled() - forget the kernel's messages so far, start the ticker */
void vm_sys_settled(struct vm *vm);
/** vm_dmesg(), vm_rng() - answer these commands */
void vm_dmesg(struct vm *vm, const char *tag);
void vm_rng(struct vm *vm, const char *tag);

#endif
