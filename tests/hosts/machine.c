/* SPDX-License-Identifier: Apache-2.0 */
#include "hosts/machine.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define IMAGES "build/hosts"
#define QEMU   "/usr/bin/qemu-system-x86_64"
/* Long vector instructions are slow where they are emulated; those for ciphers are not. */
#define CPU "qemu64,+aes,+pclmulqdq,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand"
/* What is left out of the boot takes an emulated processor long. */
#define APPEND                                                                             \
	"console=ttyS0 quiet panic=-1 root=/dev/vda rw mitigations=off cryptomgr.notests " \
	"noreplace-smp "                                                                   \
	"no_timer_check initcall_blacklist=init_kprobe_trace,trace_eval_init"
/* The byte that ends what a command printed. */
#define END '\1'

const char *machines_missing(void)
{
	static char why[256];
	char *text = lab_read_file(IMAGES "/missing");

	if (geteuid() != 0)
		return "not root";
	if (text) {
		snprintf(why, sizeof(why), "%.*s", (int)strcspn(text, "\n"), text);
		free(text);
		return why;
	}
	return access(IMAGES "/root.img", R_OK) ? "no " IMAGES "/root.img: make test-hosts" : NULL;
}

void machine_init(struct lab *lab, unsigned int i, struct machine *ret)
{
	char path[LAB_PATH_MAX + 16];

	*ret = (struct machine){.lab = lab, .shell = -1};
	snprintf(ret->name, sizeof(ret->name), "host-%c", 'a' + (int)i);
	snprintf(ret->dir, sizeof(ret->dir), "%.200s/%s", lab->root, ret->name);
	snprintf(path, sizeof(path), "%s/files", ret->dir);
	lab_check(lab, !mkdir(ret->dir, 0755) && !mkdir(path, 0755), "%s: %m", path);
}

/* --- starting --- */

static void pack_files(struct machine *m)
{
	char from[LAB_PATH_MAX + 16], into[LAB_PATH_MAX + 16], *err = NULL;
	const char *const argv[] = {"/bin/tar",  "-cf",       into, "-C", from,
				    "--owner=0", "--group=0", ".",  NULL};
	int status;

	snprintf(from, sizeof(from), "%s/files", m->dir);
	snprintf(into, sizeof(into), "%s/files.tar", m->dir);
	status = lab_run(m->lab, NULL, 60000, NULL, &err, argv);
	lab_check(m->lab, status == 0, "tar: %s", err);
	free(err);
}

static void dial_shell(struct machine *m)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%.90s/shell", m->dir);
	m->shell = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	lab_until(m->lab, MACHINE_MS,
		  !lab_proc_alive(m->qemu) ||
			  !connect(m->shell, (struct sockaddr *)&sa, sizeof(sa)),
		  "%s: %m", sa.sun_path);
	lab_check(m->lab, lab_proc_alive(m->qemu), "QEMU of %s has ended", m->name);
}

void machine_boot(struct machine *m)
{
	char side = m->name[5], other = side == 'a' ? 'b' : 'a';
	char append[512], root[64], files[LAB_PATH_MAX + 64], console[LAB_PATH_MAX + 32];
	char shell[LAB_PATH_MAX + 64], wire[2 * LAB_PATH_MAX + 128], nic[96];
	const char *const argv[] = {QEMU,
				    "-name",
				    m->name,
				    "-nodefaults",
				    "-no-user-config",
				    "-vga",
				    "none",
				    "-display",
				    "none",
				    "-accel",
				    "tcg,thread=multi",
				    "-cpu",
				    CPU,
				    "-smp",
				    "1",
				    "-m",
				    "1G",
				    "-kernel",
				    IMAGES "/vmlinuz",
				    "-initrd",
				    IMAGES "/initrd",
				    "-append",
				    append,
				    "-drive",
				    root,
				    "-drive",
				    files,
				    "-serial",
				    console,
				    "-serial",
				    shell,
				    "-netdev",
				    wire,
				    "-device",
				    nic,
				    "-device",
				    "virtio-rng-pci",
				    NULL};

	pack_files(m);
	snprintf(append, sizeof(append), APPEND " systemd.hostname=%s systemd.machine_id=%032d",
		 m->name, side);
	/* What is written goes with QEMU; a reboot keeps it. */
	snprintf(root, sizeof(root), "file=" IMAGES "/root.img,format=raw,if=virtio,snapshot=on");
	snprintf(files, sizeof(files), "file=%s/files.tar,format=raw,if=virtio,readonly=on",
		 m->dir);
	snprintf(console, sizeof(console), "file:%s/console.log", m->dir);
	snprintf(shell, sizeof(shell), "unix:%s/shell,server=on,wait=off", m->dir);
	snprintf(wire, sizeof(wire),
		 "dgram,id=wire,local.type=unix,local.path=%.200s/wire-%c,"
		 "remote.type=unix,remote.path=%.200s/wire-%c",
		 m->lab->root, side, m->lab->root, other);
	snprintf(nic, sizeof(nic), "virtio-net-pci,netdev=wire,mac=52:54:00:77:00:%02d,romfile=",
		 side == 'a' ? 1 : 2);
	m->qemu = lab_spawn(m->lab, NULL, m->name, argv);
	dial_shell(m);
}

/* --- its shell --- */

/* What has come, up to and without @END and the number behind it. Return: false if that has not come yet */
static bool take_answer(struct machine *m, char **ret_out, int *ret_status)
{
	char *end = m->n ? memchr(m->said, END, m->n) : NULL;
	char *line = end ? memchr(end, '\n', m->n - (size_t)(end - m->said)) : NULL;
	size_t taken;

	if (!line)
		return false;
	taken = (size_t)(line - m->said) + 1;
	*ret_status = atoi(end + 1);
	if (ret_out)
		*ret_out = strndup(m->said, (size_t)(end - m->said));
	memmove(m->said, m->said + taken, m->n - taken);
	m->n -= taken;
	return true;
}

static void listen_to(struct machine *m)
{
	struct pollfd p = {.fd = m->shell, .events = POLLIN};
	char buf[4096];
	ssize_t got;

	if (poll(&p, 1, 1000) <= 0)
		return;
	got = read(m->shell, buf, sizeof(buf));
	lab_check(m->lab, got > 0, "the shell of %s is gone: %s", m->name,
		  got ? strerror(errno) : "its QEMU has ended");
	m->said = realloc(m->said, m->n + (size_t)got);
	memcpy(m->said + m->n, buf, (size_t)got);
	m->n += (size_t)got;
}

int machine_ended(struct machine *m, char **ret_out)
{
	uint64_t end = lab_now_ms() + MACHINE_MS;
	int status = -1;

	while (!take_answer(m, ret_out, &status)) {
		lab_check(m->lab, lab_now_ms() < end, "%s does not answer; so far: %.*s", m->name,
			  (int)m->n, m->said ? m->said : "");
		listen_to(m);
	}
	return status;
}

void machine_tell(struct machine *m, const char *line)
{
	size_t n = strlen(line);

	lab_check(m->lab, !strchr(line, '\n'), "more than one line: %s", line);
	lab_check(m->lab, write(m->shell, line, n) == (ssize_t)n && write(m->shell, "\n", 1) == 1,
		  "shell of %s: %m", m->name);
}

static int call(struct machine *m, char **ret_out, const char *fmt, va_list ap,
		char line[static 2048])
{
	vsnprintf(line, 2048, fmt, ap);
	machine_tell(m, line);
	return machine_ended(m, ret_out);
}

int machine_try(struct machine *m, char **ret_out, const char *fmt, ...)
{
	char line[2048];
	va_list ap;
	int status;

	va_start(ap, fmt);
	status = call(m, ret_out, fmt, ap, line);
	va_end(ap);
	return status;
}

char *machine_sh(struct machine *m, const char *fmt, ...)
{
	char line[2048], *out = NULL;
	va_list ap;
	int status;

	va_start(ap, fmt);
	status = call(m, &out, fmt, ap, line);
	va_end(ap);
	lab_check(m->lab, status == 0, "%s: %s: status %d: %s", m->name, line, status, out);
	return out;
}

double machine_up(struct machine *m, uint64_t since_ms)
{
	double seconds;
	char *out = NULL;
	int status;

	/* Its shell says so by itself; whatever an earlier life had begun to say is before that. */
	do {
		free(out);
		status = machine_ended(m, &out);
	} while (status || !strstr(out, "up\n"));
	free(out);
	/* Waits for the end of the boot; its status says whether all units are well. */
	status = machine_try(m, &out, "systemctl is-system-running --wait");
	seconds = (double)(lab_now_ms() - since_ms) / 1000;
	lab_check(
		m->lab, status == 0, "%s is %s: %s", m->name, out,
		machine_sh(
			m,
			"systemctl --failed --no-legend; journalctl -b -p err --no-pager | tail"));
	free(out);
	return seconds;
}

void machine_free(struct machine *m)
{
	close(m->shell);
	free(m->said);
}
