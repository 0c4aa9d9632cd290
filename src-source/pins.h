/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that a process has registered with its io_urings (IORING_REGISTER_BUFFERS): it stays pinned
 * for as long as it is registered, so that I/O into it never touches the page tables again. The kernel
 * lists it in /proc/PID/fdinfo/FD.
 *
 * Not seen: rings of other processes that map the same memory, rings without a descriptor
 * (IORING_SETUP_REGISTERED_FD_ONLY), and other long-lived pins (VFIO, RDMA, AF_XDP).
 */
#ifndef DECANT_PINS_H
#define DECANT_PINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "guest/driver.h"
#include "util/error.h"

/** PINS_MAX - most registered buffers of a process: more are an error */
#define PINS_MAX 1048576u

/** struct pins_range - bytes of a process's address space, not aligned to pages */
struct pins_range {
	uint64_t addr;
	uint64_t length;
};

/**
 * struct pins - registered buffers
 * @ranges, @n, @cap: in no order; they may overlap
 * @rings:	descriptors of io_uring that were found
 */
struct pins {
	struct pins_range *ranges;
	size_t n, cap;
	unsigned int rings;
};

/**
 * pins_parse() - add what the text of one fdinfo file lists. Pure
 *
 * Return: 0; -EAGAIN when the list is not there or not whole, because the ring was busy: look again;
 * -EBADMSG for what cannot be understood; -ENOMEM; -E2BIG beyond PINS_MAX
 */
int pins_parse(const char *text, struct pins *p);
/**
 * pins_read() - look at all rings of a process, once
 * @ret:	for pins_free(), in success only
 *
 * Return: 0; -EAGAIN when a ring was busy; another -errno with @err filled (also: there is a ring that
 * cannot be looked at)
 */
int pins_read(pid_t pid, struct pins *ret, struct error *err);
/**
 * pins_pages() - which pages of a block does a range touch?
 * @ret_first, @ret_n: page numbers
 *
 * Return: whether there are any
 */
bool pins_pages(const struct pins_range *range, const struct guest_block *b, uint64_t *ret_first,
		uint64_t *ret_n);
/** pins_free() - safe on a zeroed struct and twice */
void pins_free(struct pins *p);

#endif
