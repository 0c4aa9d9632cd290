/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a micro-VM says: one JSON array that tells where its memory is, and its userfaultfd beside it
 * (SCM_RIGHTS), before, with or behind the text. Nothing of it is believed before it was checked.
 */
#ifndef DECANT_MICRO_HELLO_H
#define DECANT_MICRO_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "util/error.h"

/** MICRO_REGIONS_MAX - regions of one micro-VM */
#define MICRO_REGIONS_MAX 64
/** MICRO_HELLO_MAX - bytes of the message */
#define MICRO_HELLO_MAX 32768

/**
 * struct micro_region - a part of the guest's memory
 * @addr:	in the micro-VM's process
 * @size:	bytes
 * @offset:	in the image
 * @page_size:	4 KiB or 2 MiB, which the other three are multiples of
 */
struct micro_region {
	uint64_t addr;
	uint64_t size;
	uint64_t offset;
	uint64_t page_size;
};

/**
 * struct micro_hello - the message as far as it has come; micro_hello_init() first
 * @text, @len:	what was said
 * @array:	bytes of the array, 0 as long as it is not complete
 * @pieces:	reads so far
 * @uffd:	the descriptor, -1 before; owned
 */
struct micro_hello {
	char text[MICRO_HELLO_MAX + 1];
	size_t len;
	size_t array;
	unsigned int pieces;
	int uffd;
};

void micro_hello_init(struct micro_hello *h);
/** micro_hello_clear() - closes the descriptor, if nobody has taken it */
void micro_hello_clear(struct micro_hello *h);
/**
 * micro_hello_read() - take what has come; does not block
 * @fd:		the connection, non-blocking
 *
 * Return: 1 if array and descriptor are there; 0 if more must come; -EBADMSG, -E2BIG or another -errno with
 * @err filled: more than one descriptor, one that is no userfaultfd, no JSON, the end before all was
 * there
 */
int micro_hello_read(struct micro_hello *h, int fd, struct error *err);
/** micro_hello_late() - Return: -ETIMEDOUT with @err saying what has not come in time */
int micro_hello_late(const struct micro_hello *h, unsigned int seconds, struct error *err);
/**
 * micro_hello_parse() - the array
 * @memory:	bytes of the image
 * @ret:	up to MICRO_REGIONS_MAX
 *
 * Members that are not known are passed over: the micro-VM may be newer. Return: 0 with @ret_n > 0, or
 * -EBADMSG with @err naming the region and what is wrong with it
 */
int micro_hello_parse(const char *text, size_t n, uint64_t memory, struct micro_region *ret,
		      unsigned int *ret_n, struct error *err);

#endif
