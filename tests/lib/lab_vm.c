/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU as a process: files, command line, start and end. */
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "lib/lab_vm.h"
#include "vm/record.h"

#define QEMU    "/usr/bin/qemu-system-x86_64"
#define SETPRIV "/usr/bin/setpriv"
#define NOBODY  65534
#define END_MS  20000
#define SEED    1
#define TSC_NS  50000000

/* A path of @cap bytes; one that does not fit is a failure, not a shorter path. */
__attribute__((format(printf, 4, 5))) static void path_of(struct lab *lab, char *to, size_t cap,
							  const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(to, cap, fmt, ap);
	va_end(ap);
	lab_check(lab, n >= 0 && (size_t)n < cap, "a path is too long: %s", to);
}

const char *lab_vm_missing(struct lab *lab)
{
	static const char none[] = "build/vm was not made: run tests/vm/make";
	static char why[256];
	char path[LAB_PATH_MAX + 32], *text;

	path_of(lab, path, sizeof(path), "%s/../vm/missing", lab->tests);
	text = lab_read_file(path);
	if (text) {
		snprintf(why, sizeof(why), "no VM here: %.*s", (int)strcspn(text, "\n"), text);
		free(text);
		return why;
	}
	if (access(QEMU, X_OK))
		return QEMU " is not installed";
	path_of(lab, path, sizeof(path), "%s/../vm/initrd.gz", lab->tests);
	return access(path, R_OK) ? none : NULL;
}

/* --- files --- */

/* Another uid must come through: folders above are ours, for nobody else to list. */
static void open_path(struct lab_vm *vm)
{
	char up[LAB_PATH_MAX];
	struct stat st;

	chmod(vm->lab->root, 0711);
	path_of(vm->lab, up, sizeof(up), "%s/..", vm->lab->root);
	if (stat(up, &st) == 0 && st.st_uid == geteuid() && !(st.st_mode & 0011))
		chmod(up, (st.st_mode & 07777) | 0011);
	lab_check(vm->lab, chown(vm->dir, NOBODY, NOBODY) == 0, "chown %s: %m", vm->dir);
}

/* What it boots, where it can read it. */
static void copy_boot(struct lab_vm *vm, const char *file)
{
	char from[LAB_PATH_MAX + 32], to[LAB_PATH_MAX + 32];
	const char *const cp[] = {"/bin/cp", from, to, NULL};

	path_of(vm->lab, from, sizeof(from), "%s/../vm/%s", vm->lab->tests, file);
	path_of(vm->lab, to, sizeof(to), "%s/%s", vm->dir, file);
	lab_check(vm->lab, lab_run(vm->lab, NULL, 20000, NULL, NULL, cp) == 0, "copy %s", from);
}

static void make_image(struct lab_vm *vm)
{
	uint64_t record[RECORD_WORDS];
	uint64_t n = ((uint64_t)vm->opts.disk_mb << 20) / RECORD_SIZE;
	FILE *f = fopen(vm->image, "we");

	lab_check(vm->lab, f, "%s: %m", vm->image);
	if (vm->opts.qcow2)
		lab_check(vm->lab, !lab_vm_qcow2_head(f, n * RECORD_SIZE), "%s: %m", vm->image);
	for (uint64_t i = 0; i < n; i++) {
		record_fill(record, i, 0, SEED);
		lab_check(vm->lab, fwrite(record, sizeof(record), 1, f) == 1, "%s: %m", vm->image);
	}
	lab_check(vm->lab, fclose(f) == 0, "%s: %m", vm->image);
	if (vm->opts.nobody)
		lab_check(vm->lab, chown(vm->image, NOBODY, NOBODY) == 0, "%s: %m", vm->image);
}

static struct lab_vm *new_at(struct lab *lab, const struct lab_vm_opts *opts, const char *side)
{
	struct lab_vm *vm = calloc(1, sizeof(*vm));

	vm->lab = lab;
	vm->opts = *opts;
	vm->tty = vm->mon = vm->pidfd = -1;
	path_of(lab, vm->dir, sizeof(vm->dir), "%s/%s-%s", lab->root, opts->name, side);
	lab_check(lab, mkdir(vm->dir, 0711) == 0, "%s: %m", vm->dir);
	path_of(lab, vm->qmp, sizeof(vm->qmp), "%s/qmp", vm->dir);
	path_of(lab, vm->test_qmp, sizeof(vm->test_qmp), "%s/qmp.test", vm->dir);
	path_of(lab, vm->console, sizeof(vm->console), "%s/console", vm->dir);
	if (opts->backing == LAB_VM_FILE)
		path_of(lab, vm->ram, sizeof(vm->ram), "/dev/shm/decant-vm.%d.%s-%s", getpid(),
			opts->name, side);
	if (opts->nobody) {
		open_path(vm);
		copy_boot(vm, "vmlinuz");
		copy_boot(vm, "initrd.gz");
	}
	return vm;
}

/* What the kernel leaves free, less its own and the checker's tables, which grow with the memory. */
static unsigned int fill_of(unsigned int mb)
{
	unsigned int most = mb * 7 / 8;

	return most > 104 + 16 ? most - 104 : 16;
}

static bool is_microvm(const struct lab_vm *vm)
{
	return !strcmp(vm->opts.machine, "microvm");
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/*
 * With ACPI a microvm has no timer by which a kernel could find out how fast its processor's counter goes: KVM tells
 * it, emulation does not. Emulated, that counter is the host's, for all processors alike; of more than one the kernel
 * would not believe that.
 */
static uint64_t tsc_khz(void)
{
	uint64_t ns = now_ns(), ticks = __builtin_ia32_rdtsc();

	nanosleep(&(struct timespec){.tv_nsec = TSC_NS}, NULL);
	ticks = __builtin_ia32_rdtsc() - ticks;
	return ticks * 1000000 / (now_ns() - ns);
}

struct lab_vm *lab_vm_new(struct lab *lab, const struct lab_vm_opts *opts)
{
	struct lab_vm_opts o = *opts;
	struct lab_vm *vm;

	o.name = o.name ? o.name : "vm";
	o.mb = o.mb ? o.mb : 192;
	o.fill = o.fill ? o.fill : fill_of(o.mb);
	o.smp = o.smp ? o.smp : 1;
	o.machine = o.machine ? o.machine : "pc";
	o.disk_mb = o.disk_mb ? o.disk_mb : 64;
	o.aio = o.aio ? o.aio : "threads";
	o.mac = o.mac ? o.mac : "52:54:00:de:ca:01";
	vm = new_at(lab, &o, "a");
	path_of(lab, vm->image, sizeof(vm->image), "%s/%s.img", lab->root, o.name);
	if (o.disk)
		make_image(vm);
	vm->tsc_khz = is_microvm(vm) ? tsc_khz() : 0;
	return vm;
}

struct lab_vm *lab_vm_twin(struct lab_vm *vm, const char *side)
{
	struct lab_vm *twin = new_at(vm->lab, &vm->opts, side);

	path_of(vm->lab, twin->image, sizeof(twin->image), "%s", vm->image);
	twin->tsc_khz = vm->tsc_khz;
	twin->incoming = true;
	return twin;
}

/* --- command line --- */

__attribute__((format(printf, 2, 3))) static void word(json_t *argv, const char *fmt, ...)
{
	char text[LAB_PATH_MAX * 2];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_array_append_new(argv, json_string(text));
}

static void words(json_t *argv, const char *const list[])
{
	for (; *list; list++)
		word(argv, "%s", *list);
}

static void memory_words(struct lab_vm *vm, json_t *argv)
{
	const char *fill = vm->opts.prealloc ? ",prealloc=on" : "";
	const char *type = vm->opts.machine, *more = "";
	unsigned int kb = vm->opts.mb * 1024 + vm->opts.more_kb;

	word(argv, "-m");
	word(argv, "%uK", kb);
	if (vm->opts.backing != LAB_VM_ANON)
		word(argv, "-object");
	if (vm->opts.backing == LAB_VM_FILE)
		word(argv, "memory-backend-file,id=ram0,size=%uK,share=on,mem-path=%s%s", kb,
		     vm->ram, fill);
	else if (vm->opts.backing != LAB_VM_ANON)
		word(argv, "memory-backend-memfd,id=ram0,size=%uK,share=on%s%s", kb,
		     vm->opts.backing == LAB_VM_HUGE ? ",hugetlb=on,hugetlbsize=2M" : "", fill);
	/* Debian's kernel finds its devices by ACPI only. */
	if (is_microvm(vm))
		more = ",acpi=on,rtc=on";
	word(argv, "-machine");
	word(argv, "%s%s%s", type, more,
	     vm->opts.backing == LAB_VM_ANON ? "" : ",memory-backend=ram0");
}

static void device_words(struct lab_vm *vm, json_t *argv)
{
	const struct lab_vm_opts *o = &vm->opts;
	const char *way = is_microvm(vm) ? "device" : "pci";

	if (o->disk) {
		word(argv, "-drive");
		word(argv, "file=%s,format=%s,if=none,id=disk0,cache=%s,aio=%s", vm->image,
		     o->qcow2 ? "qcow2" : "raw", o->disk == LAB_VM_DISK_NONE ? "none" : "writeback",
		     o->aio);
		word(argv, "-device");
		word(argv, "virtio-blk-%s,drive=disk0", way);
	}
	if (o->tap) {
		word(argv, "-netdev");
		word(argv, "tap,id=net0,ifname=%s,script=no,downscript=no", o->tap);
		word(argv, "-device");
		word(argv, "virtio-net-%s,netdev=net0,mac=%s%s", way, o->mac,
		     is_microvm(vm) ? "" : ",romfile=");
	}
	if (o->rng) {
		word(argv, "-device");
		word(argv, "virtio-rng-%s", way);
	}
}

static void socket_words(struct lab_vm *vm, json_t *argv, const char *qmp)
{
	word(argv, "-qmp");
	word(argv, "unix:%s,server=on,wait=off", qmp ? qmp : vm->qmp);
	word(argv, "-qmp");
	word(argv, "unix:%s,server=on,wait=off", vm->test_qmp);
	word(argv, "-chardev");
	word(argv, "socket,id=con0,path=%s,server=on,wait=off,logfile=%s/console.log,logappend=on",
	     vm->console, vm->dir);
	words(argv, (const char *const[]){"-serial", "chardev:con0", NULL});
}

static void boot_words(struct lab_vm *vm, json_t *argv)
{
	const struct lab_vm_opts *o = &vm->opts;
	char rate[16], boot[LAB_PATH_MAX], tsc[56] = "";

	snprintf(rate, sizeof(rate), o->full_speed ? "full" : "%u", o->rate);
	if (o->nobody)
		path_of(vm->lab, boot, sizeof(boot), "%s", vm->dir);
	else
		path_of(vm->lab, boot, sizeof(boot), "%s/../vm", vm->lab->tests);
	word(argv, "-kernel");
	word(argv, "%s/vmlinuz", boot);
	word(argv, "-initrd");
	word(argv, "%s/initrd.gz", boot);
	if (is_microvm(vm))
		snprintf(tsc, sizeof(tsc), "tsc=reliable tsc_early_khz=%lu ", vm->tsc_khz);
	word(argv, "-append");
	/* A panic ends QEMU, which the harness sees at once. What is left out of the boot is most of what
	 * takes an emulated processor long and no test needs. */
	word(argv,
	     "console=ttyS0 quiet panic=-1 %s"
	     "mitigations=off cryptomgr.notests noreplace-smp "
	     "initcall_blacklist=init_kprobe_trace,trace_eval_init -- seed=%d fill=%u "
	     "rate=%s%s%s%s",
	     tsc, SEED, o->fill, rate, o->disk ? " blk" : "", o->tap ? " net" : "",
	     o->rng ? " rng" : "");
}

json_t *lab_vm_argv(struct lab_vm *vm, const char *qmp)
{
	const struct lab_vm_opts *o = &vm->opts;
	json_t *argv = json_array();

	if (o->nobody)
		words(argv, (const char *const[]){SETPRIV, "--reuid=65534", "--regid=65534",
						  "--clear-groups", "--bounding-set=-all",
						  "--no-new-privs", "--pdeathsig=KILL", NULL});
	word(argv, "%s", QEMU);
	word(argv, "-name");
	word(argv, "%s", o->name);
	if (!o->defaults)
		words(argv, (const char *const[]){"-nodefaults", "-vga", "none", NULL});
	words(argv, (const char *const[]){"-no-user-config", "-accel", "tcg,thread=multi",
					  "-display", "none", NULL});
	word(argv, "-smp");
	word(argv, "%u", o->smp);
	memory_words(vm, argv);
	device_words(vm, argv);
	socket_words(vm, argv, qmp);
	boot_words(vm, argv);
	if (!o->reboots)
		word(argv, "-no-reboot");
	if (o->nobody)
		words(argv, (const char *const[]){"-sandbox",
						  "on,obsolete=deny,elevateprivileges=deny,"
						  "spawn=deny,resourcecontrol=deny",
						  NULL});
	words(argv, o->args);
	if (vm->incoming)
		words(argv, (const char *const[]){"-incoming", "defer", NULL});
	return argv;
}

/* --- life --- */

void lab_vm_launch(struct lab_vm *vm)
{
	json_t *json = lab_vm_argv(vm, NULL), *text;
	const char *argv[LAB_VM_WORDS_MAX + 1] = {NULL};
	char name[LAB_NAME_MAX];
	size_t i;

	lab_check(vm->lab, json_array_size(json) <= LAB_VM_WORDS_MAX, "too many words");
	json_array_foreach(json, i, text)
		argv[i] = json_string_value(text);
	snprintf(name, sizeof(name), "qemu-%s", strrchr(vm->dir, '/') + 1);
	vm->proc = lab_spawn(vm->lab, vm->opts.ns, name, argv);
	json_decref(json);
	lab_vm_attach(vm, vm->proc->pid);
}

bool lab_vm_alive(struct lab_vm *vm)
{
	struct pollfd pfd = {.fd = vm->pidfd, .events = POLLIN};

	/* Of a child it says "ended" when it is a zombie, whoever is to wait for it. */
	return vm->pidfd >= 0 && poll(&pfd, 1, 0) == 0;
}

void lab_vm_detach(struct lab_vm *vm)
{
	close(vm->tty);
	close(vm->mon);
	close(vm->pidfd);
	vm->tty = vm->mon = vm->pidfd = -1;
	vm->line_n = vm->mon_n = 0;
	free(vm->mon_text);
	vm->mon_text = NULL;
	vm->pid = 0;
	vm->proc = NULL;
}

void lab_vm_quit(struct lab_vm *vm)
{
	if (lab_vm_alive(vm))
		json_decref(lab_vm_qmp_try(vm, "quit", NULL));
	lab_until(vm->lab, END_MS, !lab_vm_alive(vm), "%s: QEMU does not quit", vm->dir);
	lab_vm_end(vm);
}

void lab_vm_end(struct lab_vm *vm)
{
	if (vm->proc)
		lab_proc_kill(vm->lab, vm->proc);
	else if (vm->pidfd >= 0)
		syscall(SYS_pidfd_send_signal, vm->pidfd, SIGKILL, NULL, 0);
	lab_until(vm->lab, END_MS, !lab_vm_alive(vm), "%s: QEMU does not end", vm->dir);
	if (*vm->ram)
		unlink(vm->ram);
	if (vm->tty >= 0)
		close(vm->tty);
	if (vm->mon >= 0)
		close(vm->mon);
	if (vm->pidfd >= 0)
		close(vm->pidfd);
	free(vm->mon_text);
	free(vm);
}

void lab_vm_forget(void)
{
	char pattern[64];
	glob_t g;

	snprintf(pattern, sizeof(pattern), "/dev/shm/decant-vm.%d.*", getpid());
	if (glob(pattern, 0, NULL, &g) == 0) {
		for (size_t i = 0; i < g.gl_pathc; i++)
			unlink(g.gl_pathv[i]);
		globfree(&g);
	}
}
