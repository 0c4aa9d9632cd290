/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that attach themselves as sharers of an arriving guest's memory and do not mean it: each is
 * refused with a reason or cut off, costs the agent little, and neither the guest, nor its honest sharer,
 * nor another guest on its way notices.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "guest/gwire.h"
#include "guests/still_page.h"
#include "lib/lab_hostile.h"
#include "lib/lab_paint.h"
#include "lib/lab_test.h"

TestSuite(hostile_sharer, .timeout = 120);

#define SEED  42 /* tests/guests/paint's */
#define PAGE  4096ul
#define LOOKS 32

/* Of decant-dest, for all of a test. */
static char attach_path[100];

/* --- what they say --- */

static int dial(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", attach_path);
	if (sock >= 0 && !connect(sock, (struct sockaddr *)&sa, sizeof(sa)))
		return sock;
	if (sock >= 0)
		close(sock);
	return -1;
}

/* Return: 0 or -errno; the packet has @n of @fds with it, whatever its header says */
static int post(int sock, const void *buf, size_t len, const int *fds, size_t n)
{
	union {
		char buf[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} room = {0};
	struct iovec iov = {(void *)buf, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n) {
		msg.msg_control = room.buf;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
							.cmsg_type = SCM_RIGHTS,
							.cmsg_len = CMSG_LEN(n * sizeof(int))};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fds, n * sizeof(int));
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static size_t hello_of(const char *guest, const char *name, uint16_t version, uint8_t buf[512])
{
	struct gwire_msg m = {.type = GWIRE_SHARER, .nfds = 1};
	ssize_t n;

	m.u.sharer.version = version;
	strcpy(m.u.sharer.guest, guest);
	strcpy(m.u.sharer.name, name);
	n = gwire_encode(&m, buf, 512);
	return n > 0 ? (size_t)n : 0;
}

static size_t range_of(uint16_t type, uint32_t id, const void *at, uint64_t offset,
		       uint8_t buf[512])
{
	struct gwire_msg m = {.type = type, .id = id};
	ssize_t n;

	m.u.share = (struct gwire_share){.offset = offset,
					 .length = PAGE,
					 .address = (uint64_t)(uintptr_t)at,
					 .block = "ram"};
	n = gwire_encode(&m, buf, 512);
	return n > 0 ? (size_t)n : 0;
}

/* Return: type of the next message, which is in @m; 0 at the end; -ETIMEDOUT */
static int hear(int sock, struct gwire_msg *m)
{
	struct pollfd p = {.fd = sock, .events = POLLIN};
	static uint8_t buf[GWIRE_PACKET_MAX];
	const char *what;
	int fd = -1;
	ssize_t n;

	if (poll(&p, 1, 10000) <= 0)
		return -ETIMEDOUT;
	n = gwire_recv(sock, buf, &fd, NULL);
	return n <= 0 || gwire_decode(buf, (size_t)n, NULL, m, &what) ? 0 : m->type;
}

static int new_uffd(void)
{
	return (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1);
}

static int hello(const char *guest, const char *name, int fd)
{
	uint8_t buf[512];
	int sock = dial();

	if (sock >= 0)
		post(sock, buf, hello_of(guest, name, GWIRE_VERSION, buf), &fd, 1);
	return sock;
}

static int welcomed(struct lab *lab, const char *guest, const char *name, int uffd)
{
	int sock = hello(guest, name, uffd), got;
	struct gwire_msg m = {0};

	got = hear(sock, &m);
	lab_check(lab, got == GWIRE_WELCOME, "%s is not welcome: %d: %s", name, got,
		  got == GWIRE_REFUSED ? m.u.refused.message : "");
	return sock;
}

/* Return: -1 if it is not welcome */
static int let_in(const char *name, int uffd)
{
	int sock = hello("paint", name, uffd);
	struct gwire_msg m = {0};

	if (sock >= 0 && hear(sock, &m) == GWIRE_WELCOME)
		return sock;
	if (sock >= 0)
		close(sock);
	return -1;
}

/* DONEs may be on their way before. */
static void refused(struct lab *lab, int sock, const char *what, const char *code)
{
	struct gwire_msg m = {0};
	int got;

	lab_check(lab, sock >= 0, "%s: %m", what);
	while ((got = hear(sock, &m)) == GWIRE_DONE)
		;
	lab_check(lab, got == GWIRE_REFUSED, "%s: not refused: %d", what, got);
	fprintf(stderr, "%s: %s: %s\n", what, m.u.refused.code, m.u.refused.message);
	lab_check(lab, !strcmp(m.u.refused.code, code), "%s: with %s", what, m.u.refused.code);
	lab_check(lab, *m.u.refused.message, "%s: no reason", what);
	close(sock);
}

/* --- a guest's memory --- */

/* Return: @pages of the guest's file, from the page @from on, mapped and untouched */
static void *map_ram(struct lab *lab, long pid, uint64_t from, size_t pages)
{
	char path[64], file[400], link[256];
	void *mem = MAP_FAILED;
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%ld/fd", pid);
	dir = opendir(path);
	while (dir && mem == MAP_FAILED && (e = readdir(dir))) {
		ssize_t n;
		int fd;

		snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
		n = readlink(file, link, sizeof(link) - 1);
		link[n > 0 ? n : 0] = '\0';
		fd = strncmp(link, "/memfd:ram", 10) ? -1 : open(file, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			continue;
		mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			   (off_t)(from * PAGE));
		close(fd);
	}
	if (dir)
		closedir(dir);
	lab_check(lab, mem != MAP_FAILED, "the memory of %ld: %m", pid);
	return mem;
}

/* --- those at the door --- */

static void wrong_hellos(struct lab *lab)
{
	int memfd = memfd_create("rubbish", MFD_CLOEXEC), uffd = new_uffd(), pipes[2];
	const int two[2] = {uffd, uffd};
	uint8_t buf[512];
	size_t n;
	int sock;

	lab_check(lab, !pipe2(pipes, O_CLOEXEC), "pipe: %m");
	refused(lab, hello("paint", "memfd", memfd), "a memfd", "bad-hello");
	refused(lab, hello("paint", "pipe", pipes[0]), "a pipe", "bad-hello");
	refused(lab, hello("nobody", "lost", uffd), "a guest that is not there", "unknown-guest");
	refused(lab, hello("../paint", "path", uffd), "a guest that is none", "bad-hello");
	refused(lab, hello("paint", "a name", uffd), "a name that is none", "bad-hello");
	sock = dial();
	post(sock, buf, hello_of("paint", "old", GWIRE_VERSION + 1, buf), &uffd, 1);
	refused(lab, sock, "another version", "version");
	n = hello_of("paint", "count", GWIRE_VERSION, buf);
	sock = dial();
	post(sock, buf, n, NULL, 0);
	refused(lab, sock, "no descriptor", "bad-message");
	sock = dial();
	post(sock, buf, n, two, 2);
	refused(lab, sock, "two descriptors", "bad-message");
	for (size_t cut = 1; cut < n; cut += 7) {
		sock = dial();
		post(sock, buf, cut, &uffd, 1);
		refused(lab, sock, "cut short", "bad-message");
	}
	close(memfd);
	close(uffd);
	close(pipes[0]);
	close(pipes[1]);
}

/* What nobody has asked for does not keep it waiting: it is one message that it needs. */
static void dribbles(struct lab *lab)
{
	int uffd = new_uffd(), sock = dial();
	uint8_t buf[512];

	hello_of("paint", "dribbles", GWIRE_VERSION, buf);
	post(sock, buf, 1, NULL, 0);
	refused(lab, sock, "a byte at a time", "bad-message");
	sock = welcomed(lab, "paint", "dribbles", uffd);
	post(sock, buf, 1, NULL, 0);
	lab_check(lab, hear(sock, &(struct gwire_msg){0}) == 0, "a byte is a message");
	close(sock);
	close(uffd);
}

static void another_user(struct lab *lab, struct lab_host *h)
{
	int status = -1;
	pid_t pid;

	if (geteuid())
		return;
	lab_check(lab, !chmod(h->dir, 0711) && !chmod(attach_path, 0666), "chmod: %m");
	pid = fork();
	if (pid == 0) {
		struct gwire_msg m = {0};
		int uffd = new_uffd();

		/* The folders above may be root's alone. */
		if (chdir(h->dir) || setgid(65534) || setuid(65534))
			_exit(2);
		snprintf(attach_path, sizeof(attach_path), "dest.attach");
		_exit(hear(hello("paint", "stranger", uffd), &m) == GWIRE_REFUSED &&
				      !strcmp(m.u.refused.code, "not-allowed")
			      ? 0
			      : 1);
	}
	waitpid(pid, &status, 0);
	lab_check(lab, status == 0, "another user is not refused: 0x%x", status);
}

/* One process in thousands, with a hello, without, with half of one; and as often as one guest has room. */
static void crowd(struct lab *lab)
{
	int uffd = new_uffd(), idle[100], in[4];
	uint8_t buf[512];
	size_t n = hello_of("paint", "passer-by", GWIRE_VERSION, buf);
	char name[16];

	for (unsigned int i = 0; i < 1200; i++) {
		int sock = dial();

		lab_check(lab, sock >= 0, "connection %u: %m", i);
		if (i % 4)
			post(sock, buf, i % 4 == 1 ? n : i % n, &uffd, i % 4 < 3);
		close(sock);
	}
	for (size_t i = 0; i < LAB_COUNT(idle); i++)
		idle[i] = dial();
	refused(lab, idle[LAB_COUNT(idle) - 1], "a crowd", "too-many-connections");
	for (size_t i = 0; i + 1 < LAB_COUNT(idle); i++)
		close(idle[i]);
	/* Their ends are noticed one by one. */
	lab_until(lab, 5000, (in[0] = let_in("in0", uffd)) >= 0, "nobody is let in any more");
	for (size_t i = 1; i < LAB_COUNT(in); i++) {
		snprintf(name, sizeof(name), "in%zu", i);
		in[i] = welcomed(lab, "paint", name, uffd);
	}
	refused(lab, hello("paint", "one-more", uffd), "a fifth of one process", "limit-sharers");
	for (size_t i = 0; i < LAB_COUNT(in); i++)
		close(in[i]);
	close(uffd);
}

/* --- those who are in --- */

/* Ranges that are not there, without end, and its answers are not read. */
static void lies_without_end(struct lab *lab, bool reads)
{
	int uffd = new_uffd(), sock = welcomed(lab, "paint", "liar", uffd), r = 0;
	uint8_t buf[512];
	uint64_t end = lab_now_ms() + LAB_LEAST_MS * lab->slow;

	for (uint32_t id = 1; !r && lab_now_ms() < end; id++)
		r = post(sock, buf, range_of(GWIRE_SHARE_MAP, id, (void *)PAGE, 0, buf), NULL, 0);
	lab_check(lab, r == -EPIPE || r == -ECONNRESET, "it is listened to for ever: %d", r);
	if (reads)
		refused(lab, sock, "a liar", "limit-refusals");
	else
		close(sock);
	close(uffd);
}

/* With a list of mappings that takes long to read, each of its messages is work. */
static void flood(const char *name, void *page)
{
	int uffd = new_uffd(), sock;
	uint64_t end;
	uint8_t buf[512];
	size_t many = 10000;
	char *mem = mmap(NULL, 2 * many * PAGE, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	for (size_t i = 0; i < many; i++)
		mprotect(mem + 2 * i * PAGE, PAGE, PROT_READ);
	sock = hello("paint", name, uffd);
	end = lab_now_ms() + 1000;
	for (uint32_t id = 1; lab_now_ms() < end; id++) {
		static uint8_t in[GWIRE_PACKET_MAX];

		if (send(sock, buf, range_of(GWIRE_SHARE_MAP, id, page, 0, buf),
			 MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
		    errno != EAGAIN)
			_exit(1);
		send(sock, buf, range_of(GWIRE_SHARE_UNMAP, 0, page, 0, buf),
		     MSG_DONTWAIT | MSG_NOSIGNAL);
		while (recv(sock, in, sizeof(in), MSG_DONTWAIT) > 0)
			;
	}
	_exit(0);
}

static void floods(struct paint_world *w)
{
	void *page = map_ram(w->lab, paint_said(w, "pid"), 0, 1);
	struct lab_watch watch = lab_watch_begin(w->lab, w->b->dest);
	int status = -1;
	pid_t pid = fork();

	if (pid == 0)
		flood("floods", page);
	waitpid(pid, &status, 0);
	lab_check(w->lab, status == 0, "it is not a flood: 0x%x", status);
	munmap(page, PAGE);
	lab_watch_end(&watch, "floods", &(struct lab_cost){.cpu_percent = 30, .fds = 4});
}

/* They end while they are listened to, some of them in the middle of a fault. */
static void ends_early(struct paint_world *w)
{
	volatile uint64_t *mem = map_ram(w->lab, paint_said(w, "pid"), 100, 1);

	for (int i = 0; i < 24; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			int uffd = new_uffd(), sock = hello("paint", "short", uffd);
			struct gwire_msg m = {0};
			uint8_t buf[512];
			size_t n = range_of(GWIRE_SHARE_MAP, 1, (void *)mem, 100 * PAGE, buf);

			if (i % 3 > 0)
				post(sock, buf, n, NULL, 0);
			if (i % 3 > 1 && hear(sock, &m) == GWIRE_WELCOME &&
			    hear(sock, &m) == GWIRE_DONE && !m.u.done.result) {
				alarm(1);
				_exit((int)(mem[0] & 1));
			}
			_exit(0);
		}
		if (i % 4 == 0) {
			usleep(1000);
			kill(pid, SIGKILL);
		}
		waitpid(pid, NULL, 0);
	}
	munmap((void *)mem, PAGE);
}

/* --- tests --- */

static struct lab_proc *honest(struct paint_world *w, const char *name, const char *mode)
{
	char program[LAB_PATH_MAX + 32], report[LAB_PATH_MAX + 32], pid[16];

	snprintf(program, sizeof(program), "%s/guests/sharer", w->lab->tests);
	snprintf(report, sizeof(report), "%s/%s.report", w->lab->root, name);
	snprintf(pid, sizeof(pid), "%ld", paint_said(w, "pid"));
	return lab_spawn(w->lab, NULL, name,
			 (const char *const[]){program, pid, "paint", name, attach_path, report,
					       mode, NULL});
}

static bool reports(struct paint_world *w, const char *name, const char *what)
{
	char path[LAB_PATH_MAX + 32], *text;
	bool yes;

	snprintf(path, sizeof(path), "%s/%s.report", w->lab->root, name);
	text = lab_read_file(path);
	yes = text && !strncmp(text, what, strlen(what));
	free(text);
	return yes;
}

static struct paint_world world(struct lab_proc **ret_job, const char *rate, const char *sleep_us)
{
	struct paint_world w = paint_world(lab_new(lab_test_failed), "16", sleep_us);

	snprintf(attach_path, sizeof(attach_path), "%s", lab_host_path(w.b, "dest.attach"));
	*ret_job = paint_migrate(&w, "postcopy", rate);
	lab_until(w.lab, 10000, paint_phase_is(&w, "running"), "the guest does not run");
	return w;
}

static void verified(struct paint_world *w, struct lab_proc *job)
{
	int status = lab_proc_wait(w->lab, job, 20000);

	lab_check(w->lab, status == 0, "the migration has ended with %d", status);
	lab_until(w->lab, 10000, paint_said(w, "done"), "the guest does not come to an end");
	lab_check(w->lab, paint_said(w, "bad") == 0, "the guest has found %ld bad pages",
		  paint_said(w, "bad"));
}

/* The memory is here: one that shows no part of it is not kept, however often it comes. */
static void comes_too_late(struct paint_world *w)
{
	struct lab_usage before = lab_usage(w->lab, w->b->dest->pid);
	int uffd = new_uffd();
	char name[16];

	for (unsigned int i = 0; i < 40; i++) {
		uint8_t buf[512];
		int sock;

		snprintf(name, sizeof(name), "late%u", i);
		sock = welcomed(w->lab, "paint", name, uffd);
		post(sock, buf, range_of(GWIRE_SHARE_MAP, 1, name, 0, buf), NULL, 0);
		refused(w->lab, sock, "too late", "unknown-guest");
	}
	lab_until(w->lab, 5000, lab_usage(w->lab, w->b->dest->pid).fds <= before.fds,
		  "those who came too late are kept: %u descriptors, and %u before",
		  lab_usage(w->lab, w->b->dest->pid).fds, before.fds);
	close(uffd);
}

Test(hostile_sharer, beside_an_honest_one)
{
	struct lab_proc *job, *slow, *s;
	struct paint_world w = world(&job, "2Mbit", "300");
	struct lab_watch watch;
	pid_t guest = (pid_t)paint_said(&w, "pid");

	/* So that it does not have all of its pages before its sharers are through. */
	lab_check(w.lab, !kill(guest, SIGSTOP), "kill: %m");
	slow = honest(&w, "slow", "hang");
	lab_until(w.lab, 5000, reports(&w, "slow", "guarded"), "it is not guarded");
	watch = lab_watch_begin(w.lab, w.b->dest);
	wrong_hellos(w.lab);
	dribbles(w.lab);
	another_user(w.lab, w.b);
	crowd(w.lab);
	lies_without_end(w.lab, false);
	lies_without_end(w.lab, true);
	floods(&w);
	ends_early(&w);
	lab_check(w.lab, paint_phase_is(&w, "running"), "all was over too early");
	lab_watch_end(&watch, "all of them", &(struct lab_cost){.cpu_percent = 80, .fds = 4});
	lab_check(w.lab, lab_proc_alive(slow) && reports(&w, "slow", "guarded"),
		  "the slow one has found a bad page, or has ended");
	kill(guest, SIGCONT);
	s = honest(&w, "honest", "stay");
	verified(&w, job);
	lab_until(w.lab, 10000, reports(&w, "honest", "good"), "not all pages were seen");
	lab_proc_kill(w.lab, slow);
	comes_too_late(&w);
	kill(s->pid, SIGTERM);
	lab_check(w.lab, lab_proc_wait(w.lab, s, 5000) == 0, "the honest one has ended badly");
	kill(guest, SIGKILL);
	lab_end(w.lab);
}

/* A second guest of the same kind, on its way to the same host. */
static struct lab_proc *start_other(struct paint_world *w, struct lab_proc **ret_job)
{
	char program[LAB_PATH_MAX + 32], report[LAB_PATH_MAX + 32];
	struct lab_proc *p;
	int status = lab_http(
		w->a->source_sock, "POST", "/v1/guests",
		"{\"name\": \"other\", \"driver\": \"native\", \"launcher\": \"paint\"}", NULL);

	lab_check(w->lab, status / 100 == 2, "not described: %d", status);
	snprintf(program, sizeof(program), "%s/guests/paint", w->lab->tests);
	snprintf(report, sizeof(report), "%s/other.started", w->lab->root);
	p = lab_spawn(w->lab, NULL, "other",
		      (const char *const[]){program, "other", w->a->attach, report, "16", "1", "0",
					    NULL});
	lab_host_knows(w->a, "other");
	*ret_job = lab_decant_begin(w->a, (const char *[]){"migrate", "other", "--to", w->b->to,
							   "--mode", "postcopy", "--bandwidth",
							   "100Mbit", "--wait", NULL});
	return p;
}

static void end_other(struct paint_world *w)
{
	char path[LAB_PATH_MAX + 32];
	json_t *o;

	snprintf(path, sizeof(path), "%s/other.arrived", w->lab->root);
	o = json_load_file(path, 0, NULL);
	lab_check(w->lab, o && !lab_num(w->lab, o, "bad"), "the other has found bad pages");
	kill((pid_t)lab_num(w->lab, o, "pid"), SIGKILL);
	json_decref(o);
}

/*
 * It has hung up, and comes again under the same name as a sharer of another guest: what it has of the first
 * one's memory stays guarded, so that nobody is handed zeros.
 */
Test(hostile_sharer, same_name_for_two_guests)
{
	struct lab_proc *job, *other_job;
	struct paint_world w = world(&job, "32Mbit", "500");
	uint64_t from = 4096 - LOOKS;
	pid_t guest = (pid_t)paint_said(&w, "pid");
	uint8_t *mem = map_ram(w.lab, guest, from, LOOKS), buf[512];
	int uffd = new_uffd(), second = new_uffd(), sock, got;
	struct gwire_msg m = {0};

	/* So that it does not have all of its pages before its sharer has come. */
	lab_check(w.lab, !kill(guest, SIGSTOP), "kill: %m");
	start_other(&w, &other_job);
	sock = welcomed(w.lab, "paint", "disks", uffd);
	for (uint32_t i = 0; i < LOOKS; i++) {
		post(sock, buf,
		     range_of(GWIRE_SHARE_MAP, i + 1, mem + i * PAGE, (from + i) * PAGE, buf), NULL,
		     0);
		got = hear(sock, &m);
		lab_check(w.lab, got == GWIRE_DONE && !m.u.done.result, "range %u: %d: %s", i, got,
			  got == GWIRE_DONE ? m.u.done.message : "");
	}
	lab_check(w.lab, !m.u.done.detail, "nothing was missing any more");
	close(sock);
	close(uffd);
	lab_until(w.lab, 5000, lab_proc_said(w.lab, w.b->dest, "is disconnected: it is served on"),
		  "it is not served on");
	lab_until(w.lab, 10000,
		  (sock = hello("other", "disks", second)) >= 0 && hear(sock, &m) == GWIRE_WELCOME,
		  "the other guest is not on its way");
	for (uint64_t i = 0; i < LOOKS; i++)
		lab_check(w.lab, still_page_ok(mem + i * PAGE, SEED, 0, from + i),
			  "page %lu is not the guest's", from + i);
	close(sock);
	kill(guest, SIGCONT);
	verified(&w, job);
	lab_check(w.lab, lab_proc_wait(w.lab, other_job, 20000) == 0, "the other does not move");
	munmap(mem, LOOKS * PAGE);
	close(second);
	end_other(&w);
	kill(guest, SIGKILL);
	lab_end(w.lab);
}
