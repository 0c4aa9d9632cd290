/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>
#include "record.h"
#include "vm.h"

void vm_say(struct vm *vm, const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	pthread_mutex_lock(&vm->lock);
	for (int done = 0, put; done < n; done += put) {
		put = (int)write(vm->tty, line + done, (size_t)(n - done));
		if (put < 0)
			break;
	}
	pthread_mutex_unlock(&vm->lock);
}

void vm_nap(uint64_t us)
{
	struct timespec t = {.tv_sec = (time_t)(us / 1000000),
			     .tv_nsec = (long)(us % 1000000) * 1000};

	nanosleep(&t, NULL);
}

uint64_t vm_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t vm_random(uint64_t *state)
{
	return record_mix(*state += 0x9e3779b97f4a7c15u);
}

static void hello(struct vm *vm, const char *tag)
{
	vm_say(vm, "%s cpus %u pages %lu boot-ms %lu", tag, vm->cpus, vm->fill_mib << 20 >> 12,
	       vm->boot_ms);
}

static void set_rate(struct vm *vm, const char *tag, const char *args)
{
	atomic_store(&vm->rate, strcmp(args, "full") ? strtoull(args, NULL, 10) : UINT64_MAX);
	vm_say(vm, "%s ok", tag);
}

static void corrupt(struct vm *vm, const char *tag, const char *args)
{
	struct vm_pages *p = strcmp(args, "disk") ? &vm->writers[0].pages : &vm->readers[0].pages;

	if (!p->n) {
		vm_say(vm, "%s error: nothing is in memory from there", tag);
		return;
	}
	p->mem[p->n / 2 * RECORD_WORDS + 300] ^= 1 << 20;
	vm_say(vm, "%s ok", tag);
}

static void obey(struct vm *vm, const char *tag, const char *cmd, const char *args)
{
	if (!strcmp(cmd, "hello"))
		hello(vm, tag);
	else if (!strcmp(cmd, "check"))
		vm_check(vm, tag);
	else if (!strcmp(cmd, "rate"))
		set_rate(vm, tag, args);
	else if (!strcmp(cmd, "corrupt"))
		corrupt(vm, tag, args);
	else if (!strcmp(cmd, "disk"))
		vm_disk(vm, tag, args);
	else if (!strcmp(cmd, "latency"))
		vm_latency(vm, tag);
	else if (!strcmp(cmd, "beat"))
		vm_beat(vm, tag, args);
	else if (!strcmp(cmd, "clock"))
		vm_clock(vm, tag);
	else if (!strcmp(cmd, "dmesg"))
		vm_dmesg(vm, tag);
	else if (!strcmp(cmd, "net"))
		vm_net(vm, tag, args);
	else if (!strcmp(cmd, "rng"))
		vm_rng(vm, tag);
	else if (!strcmp(cmd, "poweroff"))
		reboot(RB_POWER_OFF);
	else if (!strcmp(cmd, "reboot"))
		reboot(RB_AUTOBOOT);
	else if (!strcmp(cmd, "panic"))
		_exit(1); /* the kernel does not live without its init */
	else
		vm_say(vm, "%s error: unknown command %.40s", tag, cmd);
}

/* "N COMMAND ARGS"; a line that does not begin with a number is the rest of one that was cut. */
static void line(struct vm *vm, char *text)
{
	char tag[24], *cmd, *args;
	unsigned long n = strtoul(text, &cmd, 10);

	if (cmd == text || *cmd != ' ')
		return;
	cmd++;
	args = strchr(cmd, ' ');
	if (args)
		*args++ = 0;
	snprintf(tag, sizeof(tag), "%lu=", n);
	obey(vm, tag, cmd, args ? args : "");
}

static void commands(struct vm *vm)
{
	char text[256];
	size_t n = 0;

	for (;;) {
		char c;
		ssize_t got = read(vm->tty, &c, 1);

		if (got != 1) {
			vm_nap(10000);
			continue;
		}
		if (c != '\n' && n < sizeof(text) - 1) {
			text[n++] = c;
			continue;
		}
		text[n] = 0;
		n = 0;
		line(vm, text);
	}
}

static void arguments(struct vm *vm, char **argv)
{
	vm->fill_mib = 16;
	vm->seed = 1;
	for (; *argv; argv++) {
		if (!strncmp(*argv, "fill=", 5))
			vm->fill_mib = strtoull(*argv + 5, NULL, 10);
		else if (!strncmp(*argv, "seed=", 5))
			vm->seed = strtoull(*argv + 5, NULL, 10);
		else if (!strcmp(*argv, "rate=full"))
			vm->rate = UINT64_MAX;
		else if (!strncmp(*argv, "rate=", 5))
			vm->rate = strtoull(*argv + 5, NULL, 10);
		vm->blk |= !strcmp(*argv, "blk");
		vm->net |= !strcmp(*argv, "net");
		vm->rng |= !strcmp(*argv, "rng");
	}
}

int main(int argc, char **argv)
{
	static struct vm vm; /* too large for the stack, and nobody but main names it */
	const char *failed;

	(void)argc;
	pthread_mutex_init(&vm.lock, NULL);
	vm.listener = -1;
	arguments(&vm, argv + 1);
	failed = vm_sys_start(&vm);
	if (!failed)
		failed = vm_mem_start(&vm);
	vm.boot_ms = vm_now_ns() / 1000000;
	vm_sys_settled(&vm);
	if (failed)
		vm_say(&vm, "failed: %s: %s", failed, strerror(errno));
	else
		hello(&vm, "ready");
	commands(&vm);
}
