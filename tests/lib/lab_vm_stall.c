/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a thread of a QEMU waits for memory, seen from outside: /proc tells of a thread that is blocked, and not in a
 * system call, so in a page fault. The VM's own clock would also tell of what its processor waits for one of the
 * host's; a thread that may run, and has none, is not blocked. It is a lower bound: from the first to the last look
 * at one and the same wait.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_kill.h"
#include "lib/lab_vm.h"
#include "util/clock.h"

#define LOOK_US     1000
#define THREADS_MAX 64

/**
 * struct wait - of one thread
 * @switches:	how often it had given its processor up when the wait began: it names the wait
 * @since_us:	first look at it; 0: it does not wait
 */
struct wait {
	pid_t tid;
	unsigned long switches;
	uint64_t since_us;
};

/**
 * struct watch - looks at all threads of a VM
 * @waits:	the watching thread's
 * @longest_us:	of all waits
 */
struct watch {
	struct lab_vm *vm;
	pthread_t thread;
	bool runs;
	_Atomic bool over;
	_Atomic uint64_t longest_us;
	struct wait waits[THREADS_MAX];
};

/* Return: what the file says; "" if there is none */
static char *look_into(const struct watch *w, const char *tid, const char *file, char *buf,
		       size_t n)
{
	char path[64];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%.20s/%s", w->vm->pid, tid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	len = fd < 0 ? 0 : read(fd, buf, n - 1);
	buf[len > 0 ? len : 0] = '\0';
	if (fd >= 0)
		close(fd);
	return buf;
}

static bool in_fault(const struct watch *w, const char *tid)
{
	char text[256];

	return !strncmp(look_into(w, tid, "syscall", text, sizeof(text)), "-1 ", 3);
}

static unsigned long switches(const struct watch *w, const char *tid)
{
	char text[4096];
	const char *at =
		strstr(look_into(w, tid, "status", text, sizeof(text)), "\nvoluntary_ctxt");

	return at ? strtoul(at + strcspn(at, "0123456789"), NULL, 10) : 0;
}

static struct wait *wait_of(struct watch *w, pid_t tid)
{
	struct wait *at = w->waits;

	while (at < w->waits + THREADS_MAX - 1 && at->tid && at->tid != tid)
		at++;
	at->tid = tid;
	return at;
}

static void look_at(struct watch *w, const char *tid)
{
	struct wait *at = wait_of(w, atoi(tid));
	uint64_t now = clock_us();
	unsigned long n;

	if (!in_fault(w, tid)) {
		at->since_us = 0;
		return;
	}
	n = switches(w, tid);
	if (!at->since_us || n != at->switches) {
		at->since_us = now;
		at->switches = n;
	}
	if (now - at->since_us > atomic_load(&w->longest_us))
		atomic_store(&w->longest_us, now - at->since_us);
}

static void *watch_main(void *arg)
{
	struct watch *w = arg;
	struct dirent *e;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", w->vm->pid);
	for (; !atomic_load(&w->over); usleep(LOOK_US)) {
		DIR *d = opendir(path);

		while (d && (e = readdir(d)))
			if (isdigit((unsigned char)e->d_name[0]))
				look_at(w, e->d_name);
		if (d)
			closedir(d);
	}
	return NULL;
}

static void calm(void *arg)
{
	struct watch *w = arg;
	char tid[16], text[256];

	snprintf(tid, sizeof(tid), "%d", w->vm->pid);
	lab_check(w->vm->lab, *look_into(w, tid, "syscall", text, sizeof(text)),
		  "/proc does not tell what a thread waits for");
	lab_check(w->vm->lab, !pthread_create(&w->thread, NULL, watch_main, w), "no thread");
	w->runs = true;
}

static void go_on(void *arg)
{
	const struct watch *w = arg;

	lab_check(w->vm->lab, lab_vm_status(w->vm, "running"), "it does not run");
}

/* It looks at all its pages meanwhile, so that whoever still waits is noticed. */
static uint64_t stall(void *arg)
{
	struct watch *w = arg;
	char *text = lab_vm_ask(w->vm, 60000, "check");
	uint64_t bad;

	lab_check(w->vm->lab, sscanf(text, "checked %*u bad %lu", &bad) == 1 && !bad, "%s", text);
	free(text);
	return atomic_load(&w->longest_us);
}

static void end(void *arg)
{
	struct watch *w = arg;

	atomic_store(&w->over, true);
	if (w->runs)
		pthread_join(w->thread, NULL);
	free(w);
}

struct lab_writers lab_vm_writers(struct lab_vm *vm)
{
	struct watch *w = calloc(1, sizeof(*w));

	lab_check(vm->lab, w, "out of memory");
	w->vm = vm;
	return (struct lab_writers){w, calm, go_on, stall, end};
}
