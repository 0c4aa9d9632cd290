/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reader MB REPORT: a program that knows nothing of migration. It fills its memory, no page with zeros, and
 * says so by making REPORT; at SIGUSR1 it reads all of it and replaces REPORT by "GOOD ZERO OTHER", the
 * numbers of pages as it has found them, and ends.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u

static int report(const char *path, const char *text)
{
	char part[4096];
	FILE *f;

	snprintf(part, sizeof(part), "%s.part", path);
	f = fopen(part, "we");
	return f && fputs(text, f) >= 0 && !fclose(f) && !rename(part, path) ? 0 : 1;
}

int main(int argc, char **argv)
{
	size_t pages = argc == 3 ? strtoul(argv[1], NULL, 10) * 256 : 0;
	unsigned long good = 0, zero = 0, other = 0;
	volatile uint64_t *mem;
	char text[96];
	sigset_t set;
	int sig;

	if (!pages)
		return 2;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return 1;
	for (size_t i = 0; i < pages; i++)
		for (size_t j = 0; j < PAGE / 8; j += 64)
			mem[i * (PAGE / 8) + j] = i + 1;
	if (report(argv[2], "filled\n") || sigwait(&set, &sig))
		return 1;
	for (size_t i = 0; i < pages; i++) {
		uint64_t got = mem[i * (PAGE / 8)];

		good += got == i + 1;
		zero += got == 0;
		other += got != i + 1 && got != 0;
	}
	snprintf(text, sizeof(text), "%lu %lu %lu\n", good, zero, other);
	return report(argv[2], text);
}
