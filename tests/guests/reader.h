/* SPDX-License-Identifier: Apache-2.0 */
/* What the program `reader` and who watches it share: the first page of a file. */
#ifndef DECANT_TESTS_READER_H
#define DECANT_TESTS_READER_H

#include <stdatomic.h>
#include <stdbool.h>

#define READER_PAGE  4096ul
#define READER_PAGES 65536ul

/**
 * struct reader - counted by the program
 * @ready:	its memory is filled
 * @go:		it may read: set from outside
 * @good, @zero, @other: pages that held what had been written, nothing but zeros where something was, or else
 * @done:	all of them were read
 */
struct reader {
	_Atomic bool ready;
	_Atomic bool go;
	_Atomic unsigned int good, zero, other;
	_Atomic bool done;
};

#endif
