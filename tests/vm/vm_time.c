/* SPDX-License-Identifier: Apache-2.0 */
/* What time the VM's memory and processors take, as it sees it itself. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "vm.h"

/* Eight steps for each power of two: a value is known to an eighth. */
#define STEPS 8

static unsigned int bucket_of(uint64_t ns)
{
	unsigned int power;

	if (ns < STEPS)
		return (unsigned int)ns;
	power = 63 - (unsigned int)__builtin_clzll(ns);
	return (power - 2) * STEPS + (unsigned int)(ns >> (power - 3) & (STEPS - 1));
}

/* The largest value of a bucket. */
static uint64_t bucket_top(unsigned int b)
{
	unsigned int power = b / STEPS + 2;

	if (b < STEPS)
		return b;
	return ((STEPS + b % STEPS + 1ull) << (power - 3)) - 1;
}

void vm_touch(struct vm_touches *t, const volatile uint64_t *at)
{
	uint64_t start = vm_now_ns(), ns;
	unsigned int b;

	(void)*at;
	ns = vm_now_ns() - start;
	b = bucket_of(ns);
	atomic_fetch_add(&t->count[b < VM_BUCKETS ? b : VM_BUCKETS - 1], 1);
	if (ns > atomic_load(&t->max_ns))
		atomic_store(&t->max_ns, ns);
}

/* Smallest time that @share of a thousand touches did not exceed. */
static uint64_t quantile(const uint64_t *count, uint64_t n, unsigned int share)
{
	uint64_t seen = 0;

	for (unsigned int b = 0; b < VM_BUCKETS; b++) {
		seen += count[b];
		if (seen * 1000 >= n * share)
			return bucket_top(b);
	}
	return 0;
}

void vm_latency(struct vm *vm, const char *tag)
{
	uint64_t count[VM_BUCKETS] = {0}, n = 0, max = 0;

	for (unsigned int t = 0; t < vm->cpus; t++) {
		struct vm_touches *touches = &vm->writers[t].touches;
		uint64_t longest = atomic_exchange(&touches->max_ns, 0);

		max = longest > max ? longest : max;
		for (unsigned int b = 0; b < VM_BUCKETS; b++) {
			uint64_t c = atomic_exchange(&touches->count[b], 0);

			count[b] += c;
			n += c;
		}
	}
	vm_say(vm, "%s touches %lu p50 %lu p99 %lu max %lu", tag, n, quantile(count, n, 500),
	       quantile(count, n, 990), max);
}

static void *ticker_main(void *arg)
{
	struct vm *vm = arg;
	uint64_t was = vm_now_ns(), tick = 0;

	for (;;) {
		uint64_t now, step;

		nanosleep(&(struct timespec){.tv_nsec = VM_TICK_NS}, NULL);
		now = vm_now_ns();
		/* A clock that went back gives a step that nobody can miss. */
		step = now - was < VM_TICK_NS ? 0 : now - was - VM_TICK_NS;
		was = now;
		if (step > atomic_load(&vm->step_ns))
			atomic_store(&vm->step_ns, step);
		if (atomic_load(&vm->beats))
			vm_say(vm, "* %lu", ++tick);
	}
	return NULL;
}

void vm_ticker_start(struct vm *vm)
{
	pthread_create(&vm->ticker, NULL, ticker_main, vm);
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void vm_clock(struct vm *vm, const char *tag)
{
	vm_say(vm, "%s mono %lu real %lu boot %lu step %lu", tag, clock_ns(CLOCK_MONOTONIC),
	       clock_ns(CLOCK_REALTIME), clock_ns(CLOCK_BOOTTIME),
	       atomic_exchange(&vm->step_ns, 0));
}

void vm_beat(struct vm *vm, const char *tag, const char *args)
{
	atomic_store(&vm->beats, !strcmp(args, "on"));
	vm_say(vm, "%s ok", tag);
}
