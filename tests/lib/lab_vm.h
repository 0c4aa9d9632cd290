/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU virtual machines of the tests: Debian's kernel and the init program of tests/vm, which writes and
 * verifies its memory and its disk and obeys commands on the console (tests/vm/vm.h lists them).
 *
 * A struct lab_vm is one QEMU at one place, started by the harness or by somebody else's launcher. The
 * same guest at another place is another struct lab_vm, its twin:
 *
 *	lab = lab_vm_lab();					// of lab_test.h: skips without QEMU or kernel
 *	a = lab_vm_start(lab, &(struct lab_vm_opts){.name = "vm", .rate = 1000});
 *	before = lab_vm_check(a);				// verifies every page
 *	b = lab_vm_twin(a, "b");				// same options, other sockets and memory file
 *	conf = lab_vm_launcher(b);				// a decant-dest's dest_conf with the launcher
 *								// "vm" that starts it; or lab_vm_launch(b)
 *	… a->qmp is decant's monitor of the source; migrate …
 *	lab_vm_attach(b, 0);				// to what was launched
 *	after = lab_vm_goes_on(b, &before);			// checks: all verified, nothing lost, clock
 *								// and counter go on, kernel is content
 *	lab_vm_end(a); lab_vm_end(b);
 *
 * The console and the test's monitor serve one client: lab_vm_attach() connects to both; leave them alone.
 */
#ifndef DECANT_TESTS_LAB_VM_H
#define DECANT_TESTS_LAB_VM_H

#include <jansson.h>
#include <stdio.h>
#include "lib/lab.h"

#define LAB_VM_WORDS_MAX 80

/** enum lab_vm_backing - the VM's memory */
enum lab_vm_backing {
	LAB_VM_FILE,  /* memory-backend-file in /dev/shm */
	LAB_VM_MEMFD, /* memory-backend-memfd */
	LAB_VM_HUGE, /* memory-backend-memfd of 2 MiB pages: lab_huge_pages() first, for both places */
	LAB_VM_ANON, /* private, what "-m" alone gives */
};

/** enum lab_vm_disk - its disk, /dev/vda: virtio-blk, a raw image that both places share */
enum lab_vm_disk { LAB_VM_NO_DISK, LAB_VM_DISK_WRITEBACK, LAB_VM_DISK_NONE };

/**
 * struct lab_vm_opts - how a VM is; zero means the usual
 * @name:	default "vm"; a guest's name in decant, too
 * @mb:		MiB of memory; default 192
 * @more_kb:	KiB besides
 * @fill:	MiB of @mb that the checker writes and verifies; default 7/8 of @mb less 104, most of what is
 *		free
 * @rate:	page writes a second of each of its threads (there is one for each CPU)
 * @full_speed:	as many as it can instead
 * @smp:	CPUs; default 1
 * @machine:	"pc" (default), "q35", "microvm" (whose virtio devices have no PCI)
 * @disk, @disk_mb: default size 64 MiB
 * @qcow2:	its image is in this format; at most 1 GiB
 * @aio:	how QEMU does the disk's I/O: "threads" (default), "native" (LAB_VM_DISK_NONE only), "io_uring"
 * @tap:	virtio-net on this tap interface, which must exist where it is started
 * @mac:	default 52:54:00:de:ca:01
 * @rng:	virtio-rng
 * @defaults:	leave out -nodefaults: with VGA, a network card, a floppy drive…
 * @nobody:	QEMU runs as uid 65534 without capabilities, with -sandbox on (all that it can deny)
 * @prealloc:	memory is filled at the start
 * @reboots:	the guest may reset itself; otherwise QEMU ends then
 * @ns:		where it runs
 * @args:	further words for QEMU, NULL-terminated
 */
struct lab_vm_opts {
	const char *name;
	unsigned int mb, more_kb, fill, rate;
	bool full_speed;
	unsigned int smp;
	const char *machine;
	enum lab_vm_backing backing;
	enum lab_vm_disk disk;
	unsigned int disk_mb;
	const char *aio;
	const char *tap, *mac;
	bool qcow2, rng, defaults, nobody, prealloc, reboots;
	const struct lab_ns *ns;
	const char *args[16];
};

/**
 * struct lab_vm - a VM at one place
 * @dir:	its folder: sockets, console.log; below lab.root
 * @qmp:	socket of the monitor that is decant's
 * @ram:	of LAB_VM_FILE, path of its memory; else ""
 * @image:	of the disk; shared by twins
 * @proc:	if the harness started it
 * @pid:	of QEMU, 0 as long as nothing is known of one
 * @boot_ms:	from start to ready
 * @stop_us, @resume_us: when QEMU last stopped it or let it run, CLOCK_REALTIME, by the events that were read
 *		so far; 0 if there were none
 * @beat_us:	CLOCK_MONOTONIC when the last tick was read; 0 before the first one
 * @beat_gap_us: longest time between two; of a twin it can begin with the source's @beat_us
 */
struct lab_vm {
	struct lab *lab;
	struct lab_vm_opts opts;
	char dir[LAB_PATH_MAX];
	char qmp[LAB_PATH_MAX + 16];
	char test_qmp[LAB_PATH_MAX + 16];
	char console[LAB_PATH_MAX + 16];
	char ram[LAB_PATH_MAX];
	char image[LAB_PATH_MAX + 16];
	struct lab_proc *proc;
	pid_t pid;
	uint64_t boot_ms;
	uint64_t stop_us, resume_us;
	uint64_t beat_us, beat_gap_us;
	/* private: what a microvm is told of its processor's counter, connections, and what was read of a line that is not complete */
	bool incoming;
	uint64_t tsc_khz;
	int tty, mon, pidfd;
	unsigned int tag;
	char line[1024];
	size_t line_n;
	char *mon_text;
	size_t mon_n;
};

/**
 * struct lab_vm_state - what a VM says of itself, by "check", "clock" and "dmesg"
 * @pages:	of the memory checker
 * @bad:	bad pages found, ever
 * @counter:	page writes, ever
 * @gap:	counter less the sum of all pages' own counts
 * @disk_pages, @disk_bad, @disk_reads, @disk_writes, @disk_errors: the same of the disk checker
 * @mono_ns, @real_ns: its clocks
 * @step_ns:	longest delay of its 2 ms ticker since the last time
 * @asked_ns:	CLOCK_MONOTONIC here before its clocks were asked
 * @heard_ns:	and when the answer was here: they were read somewhere between the two
 * @warnings:	messages of its kernel since it was ready, or since the last time
 */
struct lab_vm_state {
	uint64_t pages, bad, counter;
	int64_t gap;
	uint64_t disk_pages, disk_bad, disk_reads, disk_writes, disk_errors;
	uint64_t mono_ns, real_ns, step_ns, asked_ns, heard_ns;
	unsigned int warnings;
};

/** lab_vm_missing() - Return: why no VM can be had here, NULL if one can; valid until the next call */
const char *lab_vm_missing(struct lab *lab);
/** lab_vm_new() - folder, paths and disk image of a VM; starts nothing */
struct lab_vm *lab_vm_new(struct lab *lab, const struct lab_vm_opts *opts);
/** lab_vm_boot() - start what lab_vm_new() has made, and wait until it has filled its memory */
void lab_vm_boot(struct lab_vm *vm);
/** lab_vm_start() - lab_vm_new() and lab_vm_boot() */
struct lab_vm *lab_vm_start(struct lab *lab, const struct lab_vm_opts *opts);
/** lab_vm_twin() - the same VM at another place, to receive it; @side is a word for its names */
struct lab_vm *lab_vm_twin(struct lab_vm *vm, const char *side);
/**
 * lab_vm_argv() - its command line, new reference. Of a twin it ends with "-incoming defer"
 * @qmp:	what to call decant's monitor instead of vm.qmp ("{qmp}" for a launcher); NULL for that
 */
json_t *lab_vm_argv(struct lab_vm *vm, const char *qmp);
/** lab_vm_launch() - start it by its command line and attach, wait for nothing */
void lab_vm_launch(struct lab_vm *vm);
/** lab_vm_attach() - connect to console and monitor of a QEMU that somebody's launcher has started; unless
 * @pid is 0 it must be this process (in our numbers: of those in a PID namespace one knows none) */
void lab_vm_attach(struct lab_vm *vm, pid_t pid);
/** lab_vm_detach() - its QEMU has ended: forget it, another may be launched in its place and attached to */
void lab_vm_detach(struct lab_vm *vm);
/** lab_vm_alive() - Return: whether its QEMU runs */
bool lab_vm_alive(struct lab_vm *vm);
/** lab_vm_quit() - lab_vm_end(), but QEMU ends itself and removes its sockets, if it runs */
void lab_vm_quit(struct lab_vm *vm);
/** lab_vm_end() - kill its QEMU if it runs, remove its memory file; frees it */
void lab_vm_end(struct lab_vm *vm);

/* --- lab_vm_qcow2.c --- */

/** lab_vm_qcow2_head() - what stands in a qcow2 image before @size bytes of data. Return: 0 or -1 */
int lab_vm_qcow2_head(FILE *f, uint64_t size);

/* --- lab_vm_host.c: decant's agents --- */

/** lab_vm_launcher() - Return: configuration of a decant-dest whose launcher "vm" starts it, for free(3) */
char *lab_vm_launcher(struct lab_vm *vm);
/** lab_vm_add() - `decant add` on a host: it is a guest of the name and launcher "vm" from now on */
void lab_vm_add(struct lab_host *h, struct lab_vm *vm);

/* --- the guest, on its console --- */

/** lab_vm_ask() - send a command, wait for its answer. Return: its last line, for free(3) */
char *lab_vm_ask(struct lab_vm *vm, unsigned int ms, const char *cmd);
/** lab_vm_do() - the same of a command whose answer must be "ok" */
void lab_vm_do(struct lab_vm *vm, const char *cmd);
/** lab_vm_try() - Return: as lab_vm_ask(); NULL instead of failing if nothing comes in time */
char *lab_vm_try(struct lab_vm *vm, unsigned int ms, const char *cmd);
/**
 * lab_vm_beats() - read what it says for so long, after "beat on". Return: ticks that came; what is of interest is
 * vm.beat_gap_us, the longest time between two of them since it was set to 0
 */
unsigned int lab_vm_beats(struct lab_vm *vm, unsigned int ms);
/** lab_vm_state() - have it verify everything. Return: what it says; judges nothing */
struct lab_vm_state lab_vm_state(struct lab_vm *vm);
/** lab_vm_check() - lab_vm_state(), and nothing may be wrong with it */
struct lab_vm_state lab_vm_check(struct lab_vm *vm);
/**
 * lab_vm_goes_on() - lab_vm_check(), and it is the VM of @before: the counter has not gone back, its clocks
 * have not either, nor have they run faster than those of the host
 */
struct lab_vm_state lab_vm_goes_on(struct lab_vm *vm, const struct lab_vm_state *before);

/* --- lab_vm_left.c: what decant leaves --- */

/**
 * lab_vm_note() - note what its process has: descriptors, mappings of its memory with their flags, and what
 * its QEMU knows of: objects, migration capabilities
 *
 * Return: for lab_vm_left_nothing(), and free(3)
 */
char *lab_vm_note(struct lab_vm *vm);
/**
 * lab_vm_left_nothing() - it is as @before again, and no thread of it is traced, stopped, or deaf to signals;
 * if it stands, as one does that is kept after it has moved, there is a note of that in it, else none
 */
void lab_vm_left_nothing(struct lab_vm *vm, const char *before);

/* --- QEMU, on the test's monitor --- */

/** lab_vm_qmp() - a command that must succeed; steals @args, may be NULL. Return: its "return" */
json_t *lab_vm_qmp(struct lab_vm *vm, const char *cmd, json_t *args);
/** lab_vm_qmp_try() - Return: the whole answer, with "return" or "error" */
json_t *lab_vm_qmp_try(struct lab_vm *vm, const char *cmd, json_t *args);
/** lab_vm_heard() - read what events have come, even of a QEMU that has ended since */
void lab_vm_heard(struct lab_vm *vm);
/** lab_vm_status() - Return: whether query-status says @status ("running", "paused"…) */
bool lab_vm_status(struct lab_vm *vm, const char *status);

/** lab_vm_forget() - remove memory files of this test that are left; for lab.c */
void lab_vm_forget(void);

#endif
