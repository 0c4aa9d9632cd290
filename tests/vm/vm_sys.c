/* SPDX-License-Identifier: Apache-2.0 */
/* The VM's kernel: mounts, drivers, messages, random numbers. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>
#include "vm.h"

#define LEVEL_WARNING 4
#define CONSOLE_LEVEL 8

static bool console(struct vm *vm)
{
	struct termios t;

	vm->tty = open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (vm->tty < 0 || tcgetattr(vm->tty, &t) < 0)
		return false;
	cfmakeraw(&t);
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	return tcsetattr(vm->tty, TCSANOW, &t) == 0;
}

/* Return: whether it is loaded now */
static bool load(const char *name)
{
	char path[64];
	int fd, r;

	snprintf(path, sizeof(path), "/mod/%s.ko", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	r = (int)syscall(SYS_finit_module, fd, "", 0);
	close(fd);
	return r == 0 || errno == EEXIST;
}

static bool load_all(const char *const names[])
{
	for (; *names; names++)
		if (!load(*names))
			return false;
	return true;
}

/* In the order in which they need each other. Return: the group that failed */
static const char *drivers(struct vm *vm)
{
	static const char *const bus[] = {"virtio_ring", "virtio", NULL};
	static const char *const ways[] = {"virtio_pci_modern_dev", "virtio_pci_legacy_dev",
					   "virtio_pci", "virtio_mmio", NULL};
	static const char *const blk[] = {"virtio_blk", NULL};
	static const char *const net[] = {"failover", "net_failover", "virtio_net", NULL};
	static const char *const rng[] = {"virtio-rng", NULL};

	if (!vm->blk && !vm->net && !vm->rng)
		return NULL;
	if (!load_all(bus) || !load_all(ways))
		return "drivers of the bus";
	if (vm->blk && !load_all(blk))
		return "driver virtio_blk";
	if (vm->net && !load_all(net))
		return "driver virtio_net";
	if (vm->rng && !load_all(rng))
		return "driver virtio-rng";
	return NULL;
}

/* The device's file comes a moment after the driver. */
static bool appears(const char *path)
{
	struct stat st;

	for (int i = 0; i < 1000; i++) {
		if (stat(path, &st) == 0)
			return true;
		vm_nap(5000);
	}
	return false;
}

const char *vm_sys_start(struct vm *vm)
{
	const char *failed;

	mkdir("/dev", 0755), mkdir("/proc", 0755), mkdir("/sys", 0755);
	if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) < 0 && errno != EBUSY)
		return "mount /dev";
	if (!console(vm))
		return "/dev/ttyS0";
	if (mount("proc", "/proc", "proc", 0, NULL) < 0 ||
	    mount("sysfs", "/sys", "sysfs", 0, NULL) < 0)
		return "mounts";
	vm->kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	vm->cpus = (unsigned int)sysconf(_SC_NPROCESSORS_ONLN);
	if (vm->cpus > VM_CPUS_MAX)
		vm->cpus = VM_CPUS_MAX;
	failed = drivers(vm);
	if (!failed && vm->blk && !appears("/dev/vda"))
		failed = "/dev/vda";
	if (!failed && vm->net && !appears("/sys/class/net/eth0"))
		failed = "eth0";
	if (!failed && vm->rng && !appears("/dev/hwrng"))
		failed = "/dev/hwrng";
	return failed;
}

void vm_sys_settled(struct vm *vm)
{
	/* Only a panic may still come between the lines of the protocol. */
	klogctl(CONSOLE_LEVEL, NULL, 1);
	if (vm->kmsg >= 0)
		lseek(vm->kmsg, 0, SEEK_END);
	vm_ticker_start(vm);
}

/*
 * What any emulated processor says whose thread had to wait for one of the host's. That a clock jumped or stood is for
 * the tests to see, who compare it with the host's.
 *
 * The kernel also compares TSC and HPET, and calls the TSC unstable when they differ by some 400 us. An emulated TSC is
 * the host's and an emulated HPET the host's clock: at each stop and cont QEMU reads one behind the other, and where it
 * is preempted in between they differ for ever. Not to have them compared is no way: an emulated TSC is measured wrongly
 * at boot now and then, and only this finds it.
 */
static bool is_of_the_host(const char *text)
{
	return strstr(text, "hrtimer: interrupt took ") || strstr(text, "clocksource: ") ||
	       strstr(text, "TSC found unstable after boot");
}

/* /dev/kmsg hands out one message with each read: "PRIORITY,SEQUENCE,TIME,FLAGS;TEXT". */
void vm_dmesg(struct vm *vm, const char *tag)
{
	unsigned int n = 0;
	char text[4096];
	ssize_t got;

	while ((got = read(vm->kmsg, text, sizeof(text) - 1)) > 0 || (got < 0 && errno == EPIPE)) {
		char *body;

		text[got > 0 ? got : 0] = 0;
		body = strchr(text, ';');
		if (!body || (atoi(text) & 7) > LEVEL_WARNING || is_of_the_host(body))
			continue;
		n++;
		body[strcspn(body, "\n")] = 0;
		vm_say(vm, "%.*s: %.400s", (int)strlen(tag) - 1, tag, body + 1);
	}
	vm_say(vm, "%s warnings %u", tag, n);
}

void vm_rng(struct vm *vm, const char *tag)
{
	uint8_t bytes[16];
	char hex[33] = "";
	int fd = open("/dev/hwrng", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, bytes, sizeof(bytes)) != sizeof(bytes)) {
		vm_say(vm, "%s error: /dev/hwrng: %s", tag, strerror(errno));
	} else {
		for (unsigned int i = 0; i < sizeof(bytes); i++)
			snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
		vm_say(vm, "%s %s", tag, hex);
	}
	if (fd >= 0)
		close(fd);
}
