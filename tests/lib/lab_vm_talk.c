/* SPDX-License-Identifier: Apache-2.0 */
/* The console of a VM and the test's monitor of its QEMU: two Unix sockets, spoken to with time-outs. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "lib/lab_vm.h"

#define SOCKET_MS 10000
#define BOOT_MS   90000
#define CHECK_MS  60000
#define QMP_MS    20000
#define HEARD_MS  20

/* --- sockets --- */

static int try_connect(const char *path)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* The test's folder can lie deep: the kernel's limit is 107 bytes. */
	if (strlen(path) >= sizeof(sun.sun_path)) {
		errno = ENAMETOOLONG;
		close(fd);
		return -1;
	}
	strcpy(sun.sun_path, path);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
		return fd;
	close(fd);
	return -1;
}

static bool ended(struct lab_vm *vm)
{
	return vm->proc && !lab_proc_alive(vm->proc);
}

static int connect_to(struct lab_vm *vm, const char *path)
{
	int fd = -1;

	lab_until(vm->lab, SOCKET_MS, (fd = try_connect(path)) >= 0 || ended(vm),
		  "connect to %s: %m", path);
	lab_check(vm->lab, fd >= 0, "QEMU has ended: %s", path);
	return fd;
}

static void send_text(struct lab_vm *vm, int fd, const char *text)
{
	size_t len = strlen(text);

	lab_check(vm->lab, send(fd, text, len, MSG_NOSIGNAL) == (ssize_t)len, "send to QEMU: %m");
}

/* Next line of the console. Return: false if none comes until @end, or never */
static bool next_line(struct lab_vm *vm, uint64_t end, char *ret_line)
{
	struct pollfd pfd = {.fd = vm->tty, .events = POLLIN};
	char c;

	for (uint64_t now; (now = lab_now_ms()) < end;) {
		if (poll(&pfd, 1, (int)(end - now)) <= 0)
			continue;
		if (read(vm->tty, &c, 1) != 1)
			return false;
		if (c == '\r')
			continue;
		if (c != '\n') {
			if (vm->line_n < sizeof(vm->line) - 1)
				vm->line[vm->line_n++] = c;
			continue;
		}
		vm->line[vm->line_n] = 0;
		memcpy(ret_line, vm->line, vm->line_n + 1);
		vm->line_n = 0;
		return true;
	}
	return false;
}

/* Whoever called listen(2): QEMU itself. In our own numbers, wherever it runs. */
static pid_t listener_of(struct lab_vm *vm, int fd)
{
	struct ucred peer = {0};
	socklen_t len = sizeof(peer);

	lab_check(vm->lab,
		  getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.pid > 0,
		  "%s: nobody to be seen listens there: %m", vm->console);
	return peer.pid;
}

void lab_vm_attach(struct lab_vm *vm, pid_t pid)
{
	vm->tty = connect_to(vm, vm->console);
	vm->pid = listener_of(vm, vm->tty);
	lab_check(vm->lab, !pid || pid == vm->pid, "%s is of process %d, not %d", vm->console,
		  vm->pid, pid);
	vm->pidfd = (int)syscall(SYS_pidfd_open, vm->pid, 0);
	lab_check(vm->lab, vm->pidfd >= 0, "pidfd of %d: %m", vm->pid);
	vm->mon = connect_to(vm, vm->test_qmp);
	json_decref(lab_vm_qmp(vm, "qmp_capabilities", NULL));
}

void lab_vm_boot(struct lab_vm *vm)
{
	struct lab *lab = vm->lab;
	uint64_t start = lab_now_ms(), end = start + BOOT_MS * lab->slow;
	char line[sizeof(vm->line)] = "";

	lab_vm_launch(vm);
	while (strncmp(line, "ready ", 6) != 0) {
		lab_check(lab, next_line(vm, end, line), "%s did not boot: it ended, or hangs",
			  vm->opts.name);
		lab_check(lab, strncmp(line, "failed: ", 8) != 0, "%s", line);
	}
	vm->boot_ms = lab_now_ms() - start;
}

struct lab_vm *lab_vm_start(struct lab *lab, const struct lab_vm_opts *opts)
{
	struct lab_vm *vm = lab_vm_new(lab, opts);

	lab_vm_boot(vm);
	return vm;
}

/* --- the guest --- */

char *lab_vm_try(struct lab_vm *vm, unsigned int ms, const char *cmd)
{
	uint64_t end = lab_now_ms() + (uint64_t)ms * vm->lab->slow;
	char text[300], last[24], more[24], line[sizeof(vm->line)];

	vm->tag++;
	snprintf(last, sizeof(last), "%u= ", vm->tag);
	snprintf(more, sizeof(more), "%u: ", vm->tag);
	/* The end of line in front ends what another client may have left half-written. */
	snprintf(text, sizeof(text), "\n%u %s\n", vm->tag, cmd);
	send_text(vm, vm->tty, text);
	while (next_line(vm, end, line)) {
		if (!strncmp(line, more, strlen(more)))
			fprintf(stderr, "%s: %s: %s\n", vm->opts.name, cmd, line + strlen(more));
		else if (!strncmp(line, last, strlen(last)))
			return strdup(line + strlen(last));
	}
	return NULL;
}

static void note_beat(struct lab_vm *vm)
{
	struct timespec ts;
	uint64_t now;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
	if (vm->beat_us && now - vm->beat_us > vm->beat_gap_us)
		vm->beat_gap_us = now - vm->beat_us;
	vm->beat_us = now;
}

unsigned int lab_vm_beats(struct lab_vm *vm, unsigned int ms)
{
	uint64_t end = lab_now_ms() + ms;
	char line[sizeof(vm->line)];
	unsigned int n = 0;

	while (next_line(vm, end, line)) {
		if (strncmp(line, "* ", 2) != 0)
			continue;
		note_beat(vm);
		n++;
	}
	return n;
}

char *lab_vm_ask(struct lab_vm *vm, unsigned int ms, const char *cmd)
{
	char *answer = lab_vm_try(vm, ms, cmd);

	lab_check(vm->lab, answer, "%s: no answer to \"%s\" within %u ms%s", vm->dir, cmd, ms,
		  lab_vm_alive(vm) ? "" : ": QEMU has ended");
	lab_check(vm->lab, strncmp(answer, "error: ", 7) != 0, "%s: %s", cmd, answer);
	return answer;
}

void lab_vm_do(struct lab_vm *vm, const char *cmd)
{
	char *answer = lab_vm_ask(vm, CHECK_MS, cmd);

	lab_check(vm->lab, !strcmp(answer, "ok"), "%s: %s", cmd, answer);
	free(answer);
}

struct lab_vm_state lab_vm_state(struct lab_vm *vm)
{
	struct lab_vm_state s = {0};
	char *text = lab_vm_ask(vm, CHECK_MS, "check");

	lab_check(vm->lab,
		  sscanf(text,
			 "checked %lu bad %lu counter %lu gap %ld disk-pages %lu disk-bad %lu "
			 "disk-reads %lu disk-writes %lu disk-errors %lu",
			 &s.pages, &s.bad, &s.counter, &s.gap, &s.disk_pages, &s.disk_bad,
			 &s.disk_reads, &s.disk_writes, &s.disk_errors) == 9,
		  "check: %s", text);
	free(text);
	text = lab_vm_ask(vm, CHECK_MS, "dmesg");
	lab_check(vm->lab, sscanf(text, "warnings %u", &s.warnings) == 1, "dmesg: %s", text);
	free(text);
	s.asked_ns = lab_now_ms() * 1000000;
	text = lab_vm_ask(vm, CHECK_MS, "clock");
	s.heard_ns = (lab_now_ms() + 1) * 1000000;
	lab_check(vm->lab,
		  sscanf(text, "mono %lu real %lu boot %*u step %lu", &s.mono_ns, &s.real_ns,
			 &s.step_ns) == 3,
		  "clock: %s", text);
	free(text);
	return s;
}

struct lab_vm_state lab_vm_check(struct lab_vm *vm)
{
	struct lab_vm_state s = lab_vm_state(vm);

	lab_check(vm->lab, s.pages > 0 && s.bad == 0, "%lu of %lu pages are bad", s.bad, s.pages);
	lab_check(vm->lab, s.gap == 0, "%ld writes are lost or were made twice", s.gap);
	lab_check(vm->lab, s.disk_bad == 0 && s.disk_errors == 0,
		  "%lu of %lu pages from the disk are bad, %lu reads failed", s.disk_bad,
		  s.disk_pages, s.disk_errors);
	lab_check(vm->lab, s.warnings == 0, "its kernel complains %u times", s.warnings);
	return s;
}

struct lab_vm_state lab_vm_goes_on(struct lab_vm *vm, const struct lab_vm_state *before)
{
	struct lab_vm_state s = lab_vm_check(vm);
	/* At most; a command takes its time to the console and back, and emulated clocks are not perfect. */
	uint64_t passed = s.heard_ns - before->asked_ns, leeway = 500000000 + passed / 100;

	lab_check(vm->lab, s.pages == before->pages && s.counter >= before->counter,
		  "the counter was at %lu, and is at %lu", before->counter, s.counter);
	lab_check(vm->lab, s.mono_ns > before->mono_ns && s.real_ns > before->real_ns,
		  "its clock went back, from %lu to %lu", before->mono_ns, s.mono_ns);
	lab_check(vm->lab, s.mono_ns - before->mono_ns <= passed + leeway,
		  "its clock jumped: %lu ns have passed there, %lu here",
		  s.mono_ns - before->mono_ns, passed);
	return s;
}

/* --- QEMU --- */

/* One JSON text, which QEMU ends with a line. */
static json_t *next_message(struct lab_vm *vm, uint64_t end)
{
	struct pollfd pfd = {.fd = vm->mon, .events = POLLIN};

	for (uint64_t now; (now = lab_now_ms()) < end;) {
		char *eol = vm->mon_n ? memchr(vm->mon_text, '\n', vm->mon_n) : NULL;
		char buf[4096];
		ssize_t got;

		if (eol) {
			size_t len = (size_t)(eol - vm->mon_text);
			json_t *message = json_loadb(vm->mon_text, len, 0, NULL);

			vm->mon_n -= len + 1;
			memmove(vm->mon_text, eol + 1, vm->mon_n);
			return message;
		}
		if (poll(&pfd, 1, (int)(end - now)) <= 0)
			continue;
		got = read(vm->mon, buf, sizeof(buf));
		if (got <= 0)
			return NULL;
		vm->mon_text = realloc(vm->mon_text, vm->mon_n + (size_t)got);
		memcpy(vm->mon_text + vm->mon_n, buf, (size_t)got);
		vm->mon_n += (size_t)got;
	}
	return NULL;
}

static void note_event(struct lab_vm *vm, json_t *m)
{
	const char *name = json_string_value(json_object_get(m, "event"));
	json_int_t s = 0, us = 0;

	if (!name ||
	    json_unpack(m, "{s:{s:I, s:I}}", "timestamp", "seconds", &s, "microseconds", &us) < 0)
		return;
	if (!strcmp(name, "STOP"))
		vm->stop_us = (uint64_t)s * 1000000 + (uint64_t)us;
	else if (!strcmp(name, "RESUME"))
		vm->resume_us = (uint64_t)s * 1000000 + (uint64_t)us;
}

void lab_vm_heard(struct lab_vm *vm)
{
	json_t *m;

	while ((m = next_message(vm, lab_now_ms() + HEARD_MS))) {
		note_event(vm, m);
		json_decref(m);
	}
}

json_t *lab_vm_qmp_try(struct lab_vm *vm, const char *cmd, json_t *args)
{
	uint64_t end = lab_now_ms() + QMP_MS * vm->lab->slow;
	json_t *ask = json_pack("{s:s}", "execute", cmd), *m;
	char *text;

	if (args)
		json_object_set_new(ask, "arguments", args);
	text = json_dumps(ask, JSON_COMPACT);
	json_decref(ask);
	send_text(vm, vm->mon, text);
	free(text);
	/* The greeting and events come between. */
	while ((m = next_message(vm, end))) {
		if (json_object_get(m, "return") || json_object_get(m, "error"))
			return m;
		note_event(vm, m);
		json_decref(m);
	}
	lab_check(vm->lab, false, "%s: no answer of QEMU to %s", vm->dir, cmd);
	return NULL;
}

json_t *lab_vm_qmp(struct lab_vm *vm, const char *cmd, json_t *args)
{
	json_t *m = lab_vm_qmp_try(vm, cmd, args), *ret = json_object_get(m, "return");
	const char *why = json_string_value(json_object_get(json_object_get(m, "error"), "desc"));

	lab_check(vm->lab, ret, "%s: %s", cmd, why ? why : "?");
	json_incref(ret);
	json_decref(m);
	return ret;
}

bool lab_vm_status(struct lab_vm *vm, const char *status)
{
	json_t *ret = lab_vm_qmp(vm, "query-status", NULL);
	const char *now = json_string_value(json_object_get(ret, "status"));
	bool is = now && !strcmp(now, status);

	json_decref(ret);
	return is;
}
