/* SPDX-License-Identifier: Apache-2.0 */
/*
 * microvm: what Firecracker does with its guest's memory when it loads a snapshot whose backend is of
 * type "Uffd", to the letter, and then what a guest does: it touches each page and looks whether it
 * is what the snapshot had there.
 *
 *	microvm SOCKET MEMORY [KEY=VALUE...]
 *
 *	regions=N	parts of the memory, at addresses that do not meet (2)
 *	page=BYTES	4096, or 2097152 for hugetlbfs (4096)
 *	threads=N	that touch all pages, each in an order of its own (2)
 *	late=MS		the descriptor comes so much later, with a byte; -1: never (0)
 *	early=1		the array comes in pieces, and the descriptor before it
 *	say=TEXT	instead of the array; @N is the address of region N
 *	fd=KIND		none, two, file, fresh (no handshake), blocking instead of the right one
 *	own=0		keeps no copy of the descriptor
 *	before=N	every Nth page is given back before it was ever touched
 *	after=N		every Nth page is given back when all were touched
 *	pause=US	between two pages
 *	dump=FILE	does not look at the pages, but writes them there
 *	again=1		after everything waits for a line on a fifo SOCKET.go, looks at all pages again
 *
 * Says "there" when it has sent the handshake, "touched", "ok" or what is wrong, and stays until it is
 * killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define UNIT        4096ul
#define REGIONS_MAX 100
#define THREADS_MAX 64

/**
 * struct vm - the micro-VM
 * @want:	the memory file, mapped
 * @given:	units that were given back: they hold zeros
 * @mark:	what is written into those afterwards, 0 for nothing yet
 */
struct vm {
	const char *socket;
	const uint8_t *want;
	size_t size;
	unsigned int n;
	uint8_t *addr[REGIONS_MAX];
	size_t len[REGIONS_MAX];
	size_t offset[REGIONS_MAX];
	size_t page;
	unsigned int threads;
	long late;
	bool early;
	bool own;
	const char *say;
	const char *fd;
	unsigned int before, after;
	unsigned int pause_us;
	const char *dump;
	bool again;
	uint8_t *given;
	uint8_t mark;
	int uffd;
};

static void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static void die(const char *what)
{
	say("%s: %s", what, strerror(errno));
	_exit(1);
}

static uint8_t *unit_at(const struct vm *vm, size_t unit)
{
	size_t off = unit * UNIT;
	unsigned int i = 0;

	while (off - vm->offset[i] >= vm->len[i])
		i++;
	return vm->addr[i] + (off - vm->offset[i]);
}

/* --- the monitor --- */

static void map_memory(struct vm *vm)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | (vm->page > UNIT ? MAP_HUGETLB : MAP_NORESERVE);
	size_t pages = vm->size / vm->page, at = 0;

	for (unsigned int i = 0; i < vm->n; i++) {
		size_t k = pages / vm->n + (i < pages % vm->n);
		/* A gap, so that two regions never are one mapping. */
		uint8_t *hole = mmap(NULL, (k + 4) * vm->page, PROT_NONE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		uintptr_t base = ((uintptr_t)hole + 2 * vm->page - 1) & ~(vm->page - 1);

		vm->len[i] = k * vm->page;
		vm->offset[i] = at;
		at += vm->len[i];
		vm->addr[i] = mmap((void *)base, vm->len[i], PROT_READ | PROT_WRITE,
				   flags | MAP_FIXED, -1, 0);
		if (hole == MAP_FAILED || vm->addr[i] == MAP_FAILED)
			die("mmap");
	}
}

static int new_uffd(const struct vm *vm, bool api)
{
	struct uffdio_api a = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
	bool blocking = vm->fd && !strcmp(vm->fd, "blocking");
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | (blocking ? 0 : O_NONBLOCK));

	if (fd < 0 || (api && ioctl(fd, UFFDIO_API, &a)))
		die("userfaultfd");
	return fd;
}

static void make_uffd(struct vm *vm)
{
	vm->uffd = new_uffd(vm, true);
	for (unsigned int i = 0; i < vm->n; i++) {
		struct uffdio_register r = {.range = {(uintptr_t)vm->addr[i], vm->len[i]},
					    .mode = UFFDIO_REGISTER_MODE_MISSING};

		if (ioctl(vm->uffd, UFFDIO_REGISTER, &r))
			die("UFFDIO_REGISTER");
	}
}

static char *the_array(const struct vm *vm)
{
	char *text = malloc(256ul * vm->n + 16), *p = text;

	for (unsigned int i = 0; i < vm->n; i++)
		p += sprintf(p,
			     "%s{\"base_host_virt_addr\":%lu,\"size\":%zu,\"offset\":%zu,"
			     "\"page_size\":%zu,\"page_size_kib\":%zu}",
			     i ? "," : "[", (unsigned long)vm->addr[i], vm->len[i], vm->offset[i],
			     vm->page, vm->page);
	strcpy(p, "]");
	return text;
}

/* @N is the address of region N. */
static char *replaced(const struct vm *vm, const char *text)
{
	size_t cap = strlen(text) * 20 + 64, n = 0;
	char *out = malloc(cap);

	while (*text) {
		char *end;

		if (*text == '@') {
			unsigned long i = strtoul(text + 1, &end, 10);

			n += (size_t)snprintf(out + n, cap - n, "%lu", (unsigned long)vm->addr[i]);
			text = end;
		} else {
			out[n++] = *text++;
		}
	}
	out[n] = '\0';
	return out;
}

static void send_with(int sock, const char *bytes, size_t len, const int *fds, size_t n)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec iov = {(void *)bytes, len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;

	memset(&control, 0, sizeof(control));
	if (n) {
		m.msg_control = control.buf;
		m.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	}
	if (sendmsg(sock, &m, MSG_NOSIGNAL) != (ssize_t)len)
		die("sendmsg");
}

static size_t descriptors(const struct vm *vm, int fds[2])
{
	fds[0] = fds[1] = vm->uffd;
	if (vm->fd && !strcmp(vm->fd, "none"))
		return 0;
	if (vm->fd && !strcmp(vm->fd, "two"))
		return 2;
	if (vm->fd && !strcmp(vm->fd, "file"))
		fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (vm->fd && !strcmp(vm->fd, "fresh"))
		fds[0] = new_uffd(vm, false);
	return 1;
}

static void greet(const struct vm *vm)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	char *text = vm->say ? replaced(vm, vm->say) : the_array(vm);
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fds[2];
	size_t n = descriptors(vm, fds), len = strlen(text);

	strncpy(sa.sun_path, vm->socket, sizeof(sa.sun_path) - 1);
	if (connect(sock, (struct sockaddr *)&sa, sizeof(sa)))
		die("connect");
	if (vm->early) {
		send_with(sock, text, 1, fds, n);
		for (size_t i = 1; i < len; i += 7) {
			send_with(sock, text + i, len - i < 7 ? len - i : 7, NULL, 0);
			usleep(200);
		}
	} else if (vm->late) {
		send_with(sock, text, len, NULL, 0);
		if (vm->late > 0) {
			usleep((useconds_t)vm->late * 1000);
			send_with(sock, "\0", 1, fds, n);
		}
	} else {
		send_with(sock, text, len, fds, n);
	}
	if (!vm->own)
		close(vm->uffd);
	/* It closes at once, as Firecracker does; where something is missing on purpose it stays. */
	if (vm->late >= 0 && n)
		close(sock);
	free(text);
	say("there");
}

/* --- the guest --- */

static bool unit_is(const struct vm *vm, size_t unit)
{
	static const uint8_t zeros[UNIT];
	const uint8_t *p = unit_at(vm, unit);

	if (!vm->given[unit])
		return !memcmp(p, vm->want + unit * UNIT, UNIT);
	return p[0] == vm->mark && !memcmp(p + 1, zeros, UNIT - 1);
}

struct toucher {
	const struct vm *vm;
	pthread_t thread;
	unsigned int seed;
};

static void *touch(void *arg)
{
	struct toucher *t = arg;
	size_t units = t->vm->size / UNIT, step = 1 + 2 * (rand_r(&t->seed) % units);
	size_t unit = rand_r(&t->seed) % units;

	/* A step that has no divisor in common with their number visits each of them once. */
	for (size_t a = step, b = units; b;) {
		size_t r = a % b;

		a = b;
		b = r;
		if (!b && a > 1) {
			step++;
			a = step;
			b = units;
		}
	}
	for (size_t i = 0; i < units; i++, unit = (unit + step) % units) {
		if (!unit_is(t->vm, unit)) {
			say("unit %zu is wrong: 0x%02x", unit, *unit_at(t->vm, unit));
			_exit(1);
		}
		if (t->vm->pause_us)
			usleep(t->vm->pause_us);
	}
	return NULL;
}

static void touch_all(const struct vm *vm)
{
	struct toucher t[THREADS_MAX];

	for (unsigned int i = 0; i < vm->threads; i++) {
		t[i] = (struct toucher){.vm = vm, .seed = i + 1};
		pthread_create(&t[i].thread, NULL, touch, &t[i]);
	}
	for (unsigned int i = 0; i < vm->threads; i++)
		pthread_join(t[i].thread, NULL);
}

/* A balloon: the guest gives pages back, and later takes some of them again. */
static void give_back(struct vm *vm, unsigned int every)
{
	size_t units = vm->page / UNIT;

	for (size_t page = 0; every && page < vm->size / vm->page; page += every) {
		if (madvise(unit_at(vm, page * units), vm->page, MADV_DONTNEED))
			die("madvise");
		memset(vm->given + page * units, 1, units);
	}
}

static void write_into(struct vm *vm, uint8_t mark)
{
	for (size_t unit = 0; unit < vm->size / UNIT; unit++)
		if (vm->given[unit])
			*unit_at(vm, unit) = mark;
	vm->mark = mark;
}

static void dump(const struct vm *vm)
{
	FILE *f = fopen(vm->dump, "w");

	for (size_t unit = 0; f && unit < vm->size / UNIT; unit++) {
		uint8_t buf[UNIT];

		/* write(2) from memory that is missing would be a fault of the kernel. */
		memcpy(buf, unit_at(vm, unit), UNIT);
		fwrite(buf, UNIT, 1, f);
	}
	if (!f || fclose(f))
		die(vm->dump);
}

static void wait_for_go(const struct vm *vm)
{
	char path[256], line[8];
	FILE *f;

	snprintf(path, sizeof(path), "%s.go", vm->socket);
	f = fopen(path, "r");
	if (!f || !fgets(line, sizeof(line), f))
		die(path);
	fclose(f);
}

static void live(struct vm *vm)
{
	give_back(vm, vm->before);
	if (vm->dump)
		dump(vm);
	else
		touch_all(vm);
	say("touched");
	if (vm->again) {
		wait_for_go(vm);
		touch_all(vm);
	}
	if (vm->before || vm->after) {
		give_back(vm, vm->after);
		touch_all(vm);
		write_into(vm, 0x77);
		touch_all(vm);
	}
	say("ok");
}

/* --- options --- */

static void open_memory(struct vm *vm, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		die(path);
	vm->size = (size_t)st.st_size;
	vm->want = mmap(NULL, vm->size, PROT_READ, MAP_SHARED, fd, 0);
	if (vm->want == MAP_FAILED)
		die("mmap");
}

static void option(struct vm *vm, const char *key, const char *value)
{
	long n = strtol(value, NULL, 0);

	if (!strcmp(key, "regions"))
		vm->n = (unsigned int)n;
	else if (!strcmp(key, "page"))
		vm->page = (size_t)n;
	else if (!strcmp(key, "threads"))
		vm->threads = (unsigned int)n;
	else if (!strcmp(key, "late"))
		vm->late = n;
	else if (!strcmp(key, "early"))
		vm->early = n;
	else if (!strcmp(key, "say"))
		vm->say = value;
	else if (!strcmp(key, "fd"))
		vm->fd = value;
	else if (!strcmp(key, "own"))
		vm->own = n;
	else if (!strcmp(key, "before"))
		vm->before = (unsigned int)n;
	else if (!strcmp(key, "after"))
		vm->after = (unsigned int)n;
	else if (!strcmp(key, "pause"))
		vm->pause_us = (unsigned int)n;
	else if (!strcmp(key, "dump"))
		vm->dump = value;
	else if (!strcmp(key, "again"))
		vm->again = n;
	else
		die(key);
}

int main(int argc, char **argv)
{
	struct vm vm = {.n = 2, .page = UNIT, .threads = 2, .own = true};

	if (argc < 3)
		return 2;
	vm.socket = argv[1];
	for (int i = 3; i < argc; i++) {
		char *value = strchr(argv[i], '=');

		if (!value)
			return 2;
		*value++ = '\0';
		option(&vm, argv[i], value);
	}
	open_memory(&vm, argv[2]);
	vm.given = calloc(1, vm.size / UNIT);
	map_memory(&vm);
	make_uffd(&vm);
	greet(&vm);
	live(&vm);
	for (;;)
		pause();
}
