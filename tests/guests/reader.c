/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reader: a program that knows nothing of decant. It fills its memory, waits, and reads all of it once, here
 * and there, at a pace. All else that it needs is locked, so that nothing but that memory can be missing.
 *
 *	reader FILE	a page long; see guests/reader.h
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "guests/reader.h"

/* Pages between two naps. */
#define AT_ONCE 16
/* Odd, so that it comes by every page. */
#define STRIDE 40503ul

static uint8_t byte_of(uint64_t page)
{
	return (uint8_t)(page % 250 + 1);
}

static void nap(long us)
{
	nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

static void read_all(struct reader *r, const volatile uint8_t *mem)
{
	for (uint64_t i = 0; i < READER_PAGES; i++) {
		uint64_t page = i * STRIDE % READER_PAGES;
		uint8_t got;

		if (i % AT_ONCE == 0)
			nap(100);
		got = mem[page * READER_PAGE + page % READER_PAGE];
		atomic_fetch_add(got == byte_of(page) ? &r->good : !got ? &r->zero : &r->other, 1);
	}
}

int main(int argc, char **argv)
{
	int fd = argc == 2 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;
	struct reader *r = mmap(NULL, READER_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint8_t *mem;

	/* Who restores it is not who has started it: no session, and no end together. */
	setsid();
	prctl(PR_SET_PDEATHSIG, 0);
	if (fd < 0 || r == MAP_FAILED || mlockall(MCL_CURRENT)) {
		perror("reader");
		return 1;
	}
	close(fd);
	mem = mmap(NULL, READER_PAGES * READER_PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return 1;
	for (uint64_t i = 0; i < READER_PAGES; i++)
		memset(mem + i * READER_PAGE, byte_of(i), READER_PAGE);
	atomic_store(&r->ready, true);
	while (!atomic_load(&r->go))
		nap(10000);
	read_all(r, mem);
	atomic_store(&r->done, true);
	for (;;)
		nap(100000);
}
