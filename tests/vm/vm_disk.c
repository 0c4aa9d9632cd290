/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk checker: threads that read random runs of records of /dev/vda to random places of their
 * memory, note which record must be where, and verify what they have just read and, with each check,
 * all that they have read before and not overwritten: what a device wrote and a migration lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "record.h"
#include "vm.h"

/* Pages of a run that are verified as soon as it was read. */
#define RUN_VERIFIED 16

static void read_run(struct vm_reader *r, int fd, bool direct)
{
	uint64_t len = 1 + vm_random(&r->random) % r->run;
	uint64_t to = vm_random(&r->random) % (r->pages.n - len + 1);
	uint64_t from = vm_random(&r->random) % (r->records - len + 1);
	ssize_t got;

	if (!direct)
		posix_fadvise(fd, (off_t)(from * RECORD_SIZE), (off_t)(len * RECORD_SIZE),
			      POSIX_FADV_DONTNEED);
	got = pread(fd, r->pages.mem + to * RECORD_WORDS, len * RECORD_SIZE,
		    (off_t)(from * RECORD_SIZE));
	atomic_fetch_add(&r->reads, 1);
	if (got != (ssize_t)(len * RECORD_SIZE))
		atomic_fetch_add(&r->errors, 1);
	/* After a failed read the pages must hold what they cannot: they count as bad, too. The rest of
	 * a long run waits for the next check: an emulated processor reads slower than a disk. */
	for (uint64_t i = 0; i < len; i++)
		r->pages.number[to + i] = from + i;
	for (uint64_t i = 0; i < len && i < RUN_VERIFIED; i++)
		vm_pages_verify(r->vm, &r->pages, to + i, "disk");
}

static void *reader_main(void *arg)
{
	struct vm_reader *r = arg;

	for (;;) {
		enum vm_disk_mode mode = atomic_load(&r->vm->disk_mode);
		uint64_t request = atomic_load(&r->vm->check);

		if (request != atomic_load(&r->pages.served)) {
			for (uint64_t i = 0; i < r->pages.n; i++)
				vm_pages_verify(r->vm, &r->pages, i, "disk");
			atomic_store(&r->pages.served, request);
		}
		atomic_store(&r->idle, mode == VM_DISK_STOP);
		if (mode == VM_DISK_STOP)
			vm_nap(2000);
		else
			read_run(r, mode == VM_DISK_DIRECT ? r->direct : r->buffered,
				 mode == VM_DISK_DIRECT);
	}
	return NULL;
}

/* All of its memory is read once, so that every page holds a record. */
static const char *reader_start(struct vm *vm, struct vm_reader *r, uint64_t mib, uint64_t run)
{
	uint64_t bytes = 0;

	r->vm = vm;
	r->run = run;
	r->random = vm->seed ^ (uint64_t)(uintptr_t)r;
	r->direct = open("/dev/vda", O_RDONLY | O_DIRECT | O_CLOEXEC);
	r->buffered = open("/dev/vda", O_RDONLY | O_CLOEXEC);
	if (r->direct < 0 || r->buffered < 0 || ioctl(r->buffered, BLKGETSIZE64, &bytes) < 0)
		return "/dev/vda";
	/* The second half is vm_write.c's. */
	r->records = bytes / RECORD_SIZE / 2;
	if (!run || r->records < run || mib < 1 || (mib << 20) / RECORD_SIZE < run ||
	    !vm_pages_new(&r->pages, (mib << 20) / RECORD_SIZE))
		return "size of disk or memory";
	for (uint64_t i = 0; i < r->pages.n; i++) {
		r->pages.number[i] = i % r->records;
		if (pread(r->buffered, r->pages.mem + i * RECORD_WORDS, RECORD_SIZE,
			  (off_t)(i % r->records * RECORD_SIZE)) != RECORD_SIZE)
			return "reading /dev/vda";
	}
	atomic_store(&r->pages.served, atomic_load(&vm->check));
	if (pthread_create(&r->thread, NULL, reader_main, r))
		return "thread of the disk";
	vm->n_readers++;
	return NULL;
}

static void disk_go(struct vm *vm, const char *tag, enum vm_disk_mode mode, unsigned int threads,
		    uint64_t mib, uint64_t run)
{
	const char *failed = NULL;

	if (!threads || threads > VM_DISKS_MAX) {
		vm_say(vm, "%s error: 1 to %d threads", tag, VM_DISKS_MAX);
		return;
	}
	while (!failed && vm->n_readers < threads)
		failed = reader_start(vm, &vm->readers[vm->n_readers], mib, run);
	if (failed) {
		vm_say(vm, "%s error: %s: %s", tag, failed, strerror(errno));
		return;
	}
	atomic_store(&vm->disk_mode, mode);
	vm_say(vm, "%s ok", tag);
}

static void disk_stop(struct vm *vm, const char *tag)
{
	atomic_store(&vm->disk_mode, VM_DISK_STOP);
	vm_write_stop(vm);
	for (unsigned int t = 0; t < vm->n_readers; t++)
		while (!atomic_load(&vm->readers[t].idle))
			vm_nap(2000);
	vm_say(vm, "%s ok", tag);
}

static void disk_write(struct vm *vm, const char *tag)
{
	const char *failed = vm_write_go(vm);

	if (failed)
		vm_say(vm, "%s error: %s: %s", tag, failed, strerror(errno));
	else
		vm_say(vm, "%s ok", tag);
}

void vm_disk(struct vm *vm, const char *tag, const char *args)
{
	char mode[16] = "";
	unsigned int threads = 1;
	unsigned long mib = 4, run = 16;

	if (sscanf(args, "%15s %u %lu %lu", mode, &threads, &mib, &run) >= 1 &&
	    !strcmp(mode, "direct"))
		disk_go(vm, tag, VM_DISK_DIRECT, threads, mib, run);
	else if (!strcmp(mode, "buffered"))
		disk_go(vm, tag, VM_DISK_BUFFERED, threads, mib, run);
	else if (!strcmp(mode, "write"))
		disk_write(vm, tag);
	else if (!strcmp(mode, "stop"))
		disk_stop(vm, tag);
	else
		vm_say(vm, "%s error: disk direct|buffered|write|stop", tag);
}
