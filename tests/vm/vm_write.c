/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes to the disk: a thread that owns the second half of /dev/vda, writes new versions of its records
 * past the page cache, reads others back, and knows which version each must have. A write that did not
 * reach the image, or somebody else's, is found when its record is read.
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

#define RUN_MAX 16

static void put(struct vm_disk_writer *w, uint64_t i)
{
	record_fill(w->buffer.mem, w->first + i, ++w->version[i], w->vm->seed);
	if (pwrite(w->fd, w->buffer.mem, RECORD_SIZE, (off_t)((w->first + i) * RECORD_SIZE)) !=
	    RECORD_SIZE)
		atomic_fetch_add(&w->errors, 1);
	atomic_fetch_add(&w->writes, 1);
}

/* Read @n records back, which must have their versions. */
static void verify(struct vm_disk_writer *w, uint64_t i, uint64_t n)
{
	if (pread(w->fd, w->buffer.mem, n * RECORD_SIZE, (off_t)((w->first + i) * RECORD_SIZE)) !=
	    (ssize_t)(n * RECORD_SIZE))
		atomic_fetch_add(&w->errors, 1);
	for (uint64_t k = 0; k < n; k++) {
		w->buffer.number[k] = w->first + i + k;
		w->buffer.version[k] = w->version[i + k];
		vm_pages_verify(w->vm, &w->buffer, k, "written disk");
	}
}

static void verify_all(struct vm_disk_writer *w)
{
	for (uint64_t i = 0; i < w->records; i += RUN_MAX)
		verify(w, i, w->records - i < RUN_MAX ? w->records - i : RUN_MAX);
}

static void *writer_main(void *arg)
{
	struct vm_disk_writer *w = arg;

	for (;;) {
		uint64_t request = atomic_load(&w->vm->check);

		if (request != atomic_load(&w->buffer.served)) {
			verify_all(w);
			atomic_store(&w->buffer.served, request);
		}
		atomic_store(&w->idle, !atomic_load(&w->vm->disk_writes));
		if (atomic_load(&w->idle)) {
			vm_nap(2000);
			continue;
		}
		put(w, vm_random(&w->random) % w->records);
		verify(w, vm_random(&w->random) % w->records, 1);
	}
	return NULL;
}

static const char *start(struct vm *vm, struct vm_disk_writer *w)
{
	uint64_t bytes = 0;

	w->vm = vm;
	w->random = ~vm->seed;
	w->fd = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
	if (w->fd < 0 || ioctl(w->fd, BLKGETSIZE64, &bytes) < 0)
		return "/dev/vda";
	w->records = bytes / RECORD_SIZE / 2;
	w->first = bytes / RECORD_SIZE - w->records;
	w->version = vm_alloc(w->records * sizeof(*w->version));
	if (!w->records || !w->version || !vm_pages_new(&w->buffer, RUN_MAX))
		return "memory of the disk's writer";
	atomic_store(&w->buffer.served, atomic_load(&vm->check));
	if (pthread_create(&w->thread, NULL, writer_main, w))
		return "thread of the disk's writer";
	return NULL;
}

const char *vm_write_go(struct vm *vm)
{
	const char *failed = vm->disk_writer.vm ? NULL : start(vm, &vm->disk_writer);

	if (!failed)
		atomic_store(&vm->disk_writes, true);
	return failed;
}

void vm_write_stop(struct vm *vm)
{
	atomic_store(&vm->disk_writes, false);
	while (vm->disk_writer.vm && !atomic_load(&vm->disk_writer.idle))
		vm_nap(2000);
}
