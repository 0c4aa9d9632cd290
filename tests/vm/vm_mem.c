/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory checker. Each page belongs to one thread, so that nothing has to be locked: it writes
 * pages at the rate that is asked for, verifies all of them again and again, and serves a check by
 * verifying every page once more from its beginning, while it goes on writing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "record.h"
#include "vm.h"

/* Pages that are verified between two looks at the clock. */
#define VERIFY_BATCH 16
/* Writes that were missed while the VM stood are not made up for. */
#define BURST_MAX 1024

void *vm_alloc(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

bool vm_pages_new(struct vm_pages *p, uint64_t n)
{
	p->mem = vm_alloc(n * RECORD_SIZE);
	p->number = vm_alloc(n * sizeof(*p->number));
	p->version = vm_alloc(n * sizeof(*p->version));
	if (!p->mem || !p->number || !p->version)
		return false;
	p->n = n;
	return true;
}

void vm_pages_verify(struct vm *vm, struct vm_pages *p, uint64_t i, const char *what)
{
	uint64_t *at = p->mem + i * RECORD_WORDS;
	int word = record_bad_at(at, p->number[i], p->version[i], vm->seed);

	if (word < 0)
		return;
	if (!*p->first_bad)
		snprintf(p->first_bad, sizeof(p->first_bad),
			 "%s page %lu: record %lu version %lu is wanted, word %d is %016lx, it "
			 "begins "
			 "%lu %lu",
			 what, i, p->number[i], p->version[i], word, at[word], at[0], at[1]);
	atomic_fetch_add(&p->bad, 1);
	record_fill(at, p->number[i], p->version[i], vm->seed);
}

static void write_one(struct vm_writer *w)
{
	uint64_t i = vm_random(&w->random) % w->pages.n;

	w->pages.version[i]++;
	record_fill(w->pages.mem + i * RECORD_WORDS, w->pages.number[i], w->pages.version[i],
		    w->vm->seed);
	atomic_fetch_add(&w->writes, 1);
}

/**
 * struct pace - how many writes are due
 * @rate:	for which it was set up
 * @since:	when
 * @done:	writes since then
 */
struct pace {
	uint64_t rate, since, done;
};

/* Return: whether there is no rest for it */
static bool write_due(struct vm_writer *w, struct pace *pace)
{
	uint64_t rate = atomic_load(&w->vm->rate), now = vm_now_ns(), due;

	if (rate == UINT64_MAX) {
		for (int i = 0; i < 4 * VERIFY_BATCH; i++)
			write_one(w);
		return true;
	}
	if (rate != pace->rate)
		*pace = (struct pace){.rate = rate, .since = now};
	due = (uint64_t)((__uint128_t)rate * (now - pace->since) / 1000000000);
	if (due > pace->done + BURST_MAX)
		pace->done = due - BURST_MAX;
	for (; pace->done < due; pace->done++)
		write_one(w);
	return false;
}

static void serve(struct vm_writer *w, uint64_t request)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < w->pages.n; i++)
		sum += w->pages.version[i];
	w->sum = sum;
	w->writes_then = atomic_load(&w->writes);
	atomic_store(&w->pages.served, request);
}

static void *writer_main(void *arg)
{
	struct vm_writer *w = arg;
	struct pace pace = {0};
	uint64_t at = 0, left = 0, serving = 0;

	for (;;) {
		bool busy = write_due(w, &pace);
		uint64_t request = atomic_load(&w->vm->check);

		if (request != serving) {
			serving = request;
			left = w->pages.n;
		}
		for (int i = 0; i < VERIFY_BATCH; i++) {
			vm_touch(&w->touches, w->pages.mem + at * RECORD_WORDS);
			vm_pages_verify(w->vm, &w->pages, at, "memory");
			at = at + 1 < w->pages.n ? at + 1 : 0;
			if (left && --left == 0)
				serve(w, serving);
		}
		if (!busy && !left)
			vm_nap(4000);
	}
	return NULL;
}

const char *vm_mem_start(struct vm *vm)
{
	uint64_t each = (vm->fill_mib << 20) / RECORD_SIZE / vm->cpus;

	for (unsigned int t = 0; t < vm->cpus; t++) {
		struct vm_writer *w = &vm->writers[t];

		w->vm = vm;
		w->random = vm->seed + t;
		if (!each || !vm_pages_new(&w->pages, each))
			return "memory of the checker";
		for (uint64_t i = 0; i < each; i++) {
			w->pages.number[i] = t * each + i;
			record_fill(w->pages.mem + i * RECORD_WORDS, t * each + i, 0, vm->seed);
		}
	}
	for (unsigned int t = 0; t < vm->cpus; t++)
		if (pthread_create(&vm->writers[t].thread, NULL, writer_main, &vm->writers[t]))
			return "thread of the checker";
	return NULL;
}

static void wait_served(struct vm *vm, struct vm_pages *p)
{
	while (atomic_load(&p->served) != atomic_load(&vm->check))
		vm_nap(2000);
}

static void say_bad(struct vm *vm, const char *tag, const struct vm_pages *p)
{
	if (*p->first_bad)
		vm_say(vm, "%.*s: first bad: %s", (int)strlen(tag) - 1, tag, p->first_bad);
}

void vm_check(struct vm *vm, const char *tag)
{
	struct vm_disk_writer *dw = &vm->disk_writer;
	uint64_t pages = 0, bad = 0, counter = 0, sum = 0, d_pages = 0, d_bad = 0, reads = 0,
		 errors = 0;

	atomic_fetch_add(&vm->check, 1);
	for (unsigned int t = 0; t < vm->cpus; t++) {
		struct vm_writer *w = &vm->writers[t];

		wait_served(vm, &w->pages);
		pages += w->pages.n;
		bad += atomic_load(&w->pages.bad);
		counter += w->writes_then;
		sum += w->sum;
		say_bad(vm, tag, &w->pages);
	}
	for (unsigned int t = 0; t < vm->n_readers; t++) {
		struct vm_reader *r = &vm->readers[t];

		wait_served(vm, &r->pages);
		d_pages += r->pages.n;
		d_bad += atomic_load(&r->pages.bad);
		reads += atomic_load(&r->reads);
		errors += atomic_load(&r->errors);
		say_bad(vm, tag, &r->pages);
	}
	if (dw->vm) {
		wait_served(vm, &dw->buffer);
		d_bad += atomic_load(&dw->buffer.bad);
		errors += atomic_load(&dw->errors);
		say_bad(vm, tag, &dw->buffer);
	}
	vm_say(vm,
	       "%s checked %lu bad %lu counter %lu gap %ld disk-pages %lu disk-bad %lu "
	       "disk-reads %lu disk-writes %lu disk-errors %lu",
	       tag, pages, bad, counter, (long)(counter - sum), d_pages, d_bad, reads,
	       atomic_load(&dw->writes), errors);
}
