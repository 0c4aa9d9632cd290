/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block of a guest's memory, reached without ever dereferencing it: pread(2) and pwrite(2) on its
 * file, process_vm_readv(2) and process_vm_writev(2) where there is none or the file cannot be
 * written so.
 *
 * A struct gmem has descriptors of its own and stays valid when the struct guest is gone. All of it
 * may be used by many threads at a time, without a lock.
 */
#ifndef DECANT_GUEST_GMEM_H
#define DECANT_GUEST_GMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "guest/driver.h"
#include "util/error.h"

/**
 * struct gmem - one block; read-only after gmem_open()
 * @block:	copy of its description; @block.fd is a descriptor of our own (or -1)
 * @pid:	the guest's process
 * @pidfd:	to know that @pid still means that process; owned
 * @pagemap:	/proc/PID/pagemap of anonymous and huge-page blocks, -1 otherwise; owned
 */
struct gmem {
	struct guest_block block;
	pid_t pid;
	int pidfd;
	int pagemap;
};

/** gmem_open() - get hold of block @index of @g. Loop thread. Return: 0, or -errno with @err filled
 */
int gmem_open(struct gmem *m, const struct guest *g, uint16_t index, struct error *err);
/** gmem_close() - safe on a struct that gmem_open() failed to fill, and twice */
void gmem_close(struct gmem *m);

/**
 * gmem_read() - copy guest memory out
 * @off, @len:	bytes inside the block, any alignment
 *
 * A hole reads as zeros and stays a hole, except that in anonymous memory the kernel may map its
 * shared page of zeros there. Must not be asked for a page that is registered for missing faults
 * and missing: in anonymous and huge-page blocks it would wait for it.
 *
 * Return: 0; -EINVAL outside the block; -ESRCH when the guest is gone; -EFAULT when it changed
 * its mapping; -EPERM; or another -errno
 */
int gmem_read(const struct gmem *m, uint64_t off, void *buf, size_t len);
/**
 * gmem_write() - copy into guest memory, over what is there (precopy only: nothing is registered)
 *
 * Return: as gmem_read()
 */
int gmem_write(const struct gmem *m, uint64_t off, const void *buf, size_t len);
/**
 * gmem_punch() - make a hole, in whole pages
 *
 * Return: 0; -EOPNOTSUPP for anonymous memory: use guest_punch(); or another -errno
 */
int gmem_punch(const struct gmem *m, uint64_t off, uint64_t len);

/** gmem_range_fn - [off, off + len) holds data. Return: 0 to go on, else that is the result */
typedef int gmem_range_fn(void *arg, uint64_t off, uint64_t len);
/**
 * gmem_data_ranges() - where there may be data: all else is a hole and reads as zeros
 *
 * In rising order, in whole pages, swapped pages included. Huge pages: of 2 MiB and larger, found
 * through the guest's page tables; if the file holds more than is mapped there, all of it is data.
 *
 * Return: 0, what @fn returned, or -errno
 */
int gmem_data_ranges(const struct gmem *m, gmem_range_fn *fn, void *arg);
/**
 * gmem_check_hole() - is nothing there?
 * @ret_off:	where the first data is, if the result is 0; may be NULL
 *
 * Return: 1 if all of [off, off + len) is a hole, 0 if not, or -errno
 */
int gmem_check_hole(const struct gmem *m, uint64_t off, uint64_t len, uint64_t *ret_off);

#endif
