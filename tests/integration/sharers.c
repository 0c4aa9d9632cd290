/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Further processes that share the memory of a guest which arrives by post-copy (P17), with real
 * daemons: the guest paints its memory at the source, so that all of it is dirty; at the destination the
 * guest and its sharers look at every page, and nobody ever sees anything but its content.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include "guest/gwire.h"
#include "lib/lab_paint.h"
#include "lib/lab_test.h"

TestSuite(sharers, .timeout = 120);

static struct lab_proc *share(struct paint_world *w, const char *name, const char *mode)
{
	char program[LAB_PATH_MAX + 32], report[LAB_PATH_MAX + 32], pid[16];

	snprintf(program, sizeof(program), "%s/guests/sharer", w->lab->tests);
	snprintf(report, sizeof(report), "%s/%s.report", w->lab->root, name);
	snprintf(pid, sizeof(pid), "%ld", paint_said(w, "pid"));
	return lab_spawn(w->lab, NULL, name,
			 (const char *const[]){program, pid, "paint", name,
					       lab_host_path(w->b, "dest.attach"), report, mode,
					       NULL});
}

static bool reports(struct paint_world *w, const char *name, const char *what)
{
	char path[LAB_PATH_MAX + 32], *text;
	bool yes;

	snprintf(path, sizeof(path), "%s/%s.report", w->lab->root, name);
	text = lab_read_file(path);
	lab_check(w->lab, !text || strncmp(text, "bad", 3), "sharer %s has found a %s", name, text);
	yes = text && !strncmp(text, what, strlen(what));
	free(text);
	return yes;
}

static void ends(struct paint_world *w, struct lab_proc *p, int status)
{
	int got = lab_proc_wait(w->lab, p, 20000);

	lab_check(w->lab, got == status, "%s has ended with %d, not %d", p->name, got, status);
}

/* --- those who do not keep to the protocol --- */

static int dial(struct paint_world *w)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", lab_host_path(w->b, "dest.attach"));
	lab_check(w->lab, !connect(sock, (struct sockaddr *)&sa, sizeof(sa)), "connect: %m");
	return sock;
}

static void say(struct paint_world *w, int sock, const struct gwire_msg *m, int fd)
{
	uint8_t buf[512];
	ssize_t n = gwire_encode(m, buf, sizeof(buf));

	lab_check(w->lab, n > 0 && !gwire_send(sock, buf, (size_t)n, fd), "sending %u", m->type);
}

/* Return: type of the next message; @ret_result of a DONE */
static int hear(struct paint_world *w, int sock, int *ret_result)
{
	uint8_t *buf = malloc(GWIRE_PACKET_MAX);
	struct gwire_msg m = {0};
	const char *what;
	int fd = -1;
	ssize_t n;

	lab_until(w->lab, 5000, (n = gwire_recv(sock, buf, &fd, NULL)) != -EAGAIN, "no answer");
	if (n > 0)
		lab_check(w->lab, !gwire_decode(buf, (size_t)n, NULL, &m, &what), "%s", what);
	free(buf);
	if (ret_result)
		*ret_result = m.u.done.result;
	return n > 0 ? m.type : 0;
}

static int hello(struct paint_world *w, int fd)
{
	struct gwire_msg m = {.type = GWIRE_SHARER, .nfds = 1};
	int sock = dial(w);

	m.u.sharer = (struct gwire_sharer){.version = 1, .guest = "paint", .name = "rubbish"};
	say(w, sock, &m, fd);
	return sock;
}

static void refused(struct paint_world *w, int sock)
{
	lab_check(w->lab, hear(w, sock, NULL) == GWIRE_REFUSED, "not refused");
	close(sock);
}

/* Ranges that are not what they are said to be; then what is no message at all. */
static void talk_rubbish(struct paint_world *w)
{
	struct gwire_msg m = {.type = GWIRE_SHARE_MAP, .id = 7};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), sock, result;
	static char mine[8192] __attribute__((aligned(4096)));
	const struct gwire_share wrong[] = {
		{.length = 4096, .address = (uint64_t)(uintptr_t)mine, .block = "ram"},
		{.length = 4096, .address = 4096, .block = "ram"},
		{.length = 4096, .address = ~0ul << 12, .block = "ram"},
		{.length = 4096, .address = (uint64_t)(uintptr_t)mine, .block = "rom"},
		{.length = 100, .address = 4096, .block = "ram"},
		{.length = 1ul << 40, .address = 4096, .block = "ram"},
	};

	sock = hello(w, null);
	refused(w, sock);
	sock = hello(w, uffd);
	lab_check(w->lab, hear(w, sock, NULL) == GWIRE_WELCOME, "not welcome");
	for (size_t i = 0; i < LAB_COUNT(wrong); i++) {
		m.u.share = wrong[i];
		say(w, sock, &m, -1);
		lab_check(w->lab, hear(w, sock, &result) == GWIRE_DONE && result < 0,
			  "range %zu: %d", i, result);
	}
	lab_check(w->lab, write(sock, "rubbish rubbish", 15) == 15, "%m");
	lab_check(w->lab, hear(w, sock, NULL) == 0, "the connection is not ended");
	close(sock);
	close(uffd);
	close(null);
}

/* --- tests --- */

/*
 * One that was there before the guest's memory is guarded, one that comes while it runs, one that
 * leaves, one that is killed and one that talks rubbish; and one that comes when all is over.
 */
Test(sharers, at_every_moment)
{
	struct paint_world w = paint_world(lab_new(lab_test_failed), "64", "0");
	struct lab_proc *job = paint_migrate(&w, "hybrid", "256Mbit"), *early, *mid, *leaves,
			*killed, *late;
	long looks;

	lab_until(w.lab, 10000, paint_said(&w, "pid"), "the guest is not launched");
	early = share(&w, "early", "stay");
	lab_until(w.lab, 5000, lab_proc_said(w.lab, w.b->dest, "sharer early of guest paint"),
		  "it does not attach itself");
	lab_check(w.lab, paint_phase_is(&w, "advise"), "too late to be early");
	lab_until(w.lab, 5000, reports(&w, "early", "mapped") || !paint_phase_is(&w, "advise"),
		  "it says nothing");
	lab_check(w.lab, !reports(&w, "early", "guarded") || !paint_phase_is(&w, "advise"),
		  "it may touch what is not guarded yet");
	lab_until(w.lab, 20000, paint_phase_is(&w, "running"), "the guest does not run");
	/* Else all of its pages are asked for, and here, in a fraction of a second. */
	kill(w.a->source->pid, SIGSTOP);
	mid = share(&w, "mid", "stay");
	leaves = share(&w, "leaves", "leave");
	killed = share(&w, "killed", "hang");
	talk_rubbish(&w);
	lab_until(w.lab, 10000, reports(&w, "killed", "guarded"), "not guarded");
	lab_check(w.lab, paint_phase_is(&w, "running"), "all was over too early");
	lab_proc_kill(w.lab, killed);
	kill(w.a->source->pid, SIGCONT);
	ends(&w, leaves, 0);
	ends(&w, job, 0);
	lab_until(w.lab, 10000, paint_said(&w, "done"), "the guest does not come to an end");
	lab_until(w.lab, 10000, reports(&w, "early", "good") && reports(&w, "mid", "good"),
		  "not all pages were seen");
	/* When nothing is missing any more. */
	late = share(&w, "late", "stay");
	lab_until(w.lab, 10000, reports(&w, "late", "good"), "not all pages were seen");
	kill(early->pid, SIGTERM);
	ends(&w, early, 0);
	looks = paint_said(&w, "looks");
	lab_until(w.lab, 10000, paint_said(&w, "looks") > looks + 1, "the guest does not go on");
	lab_check(w.lab, paint_said(&w, "bad") == 0, "the guest has found %ld bad pages",
		  paint_said(&w, "bad"));
	kill(mid->pid, SIGTERM);
	ends(&w, mid, 0);
	kill(late->pid, SIGTERM);
	ends(&w, late, 0);
	lab_check(w.lab, lab_proc_said(w.lab, w.b->dest, "sharer killed of guest paint (pid"),
		  "the log does not name it");
	kill((pid_t)paint_said(&w, "pid"), SIGKILL);
	lab_end(w.lab);
}

/* The agent's end hands zeros to no sharer: each keeps its descriptor, and looks for a successor. */
Test(sharers, the_agent_is_killed)
{
	struct paint_world w = paint_world(lab_new(lab_test_failed), "64", "0");
	struct lab_proc *job = paint_migrate(&w, "postcopy", "32Mbit"), *s;
	uint64_t end;

	lab_until(w.lab, 20000, paint_phase_is(&w, "running"), "the guest does not run");
	/* As above: what it is to wait for would be here. */
	kill(w.a->source->pid, SIGSTOP);
	s = share(&w, "sharer", "stay");
	lab_until(w.lab, 10000, reports(&w, "sharer", "guarded"), "not guarded");
	lab_proc_kill(w.lab, w.b->dest);
	kill(w.a->source->pid, SIGCONT);
	for (end = lab_now_ms() + 1000; lab_now_ms() < end; lab_nap()) {
		lab_check(w.lab, !reports(&w, "sharer", "good"), "it has seen what is not there");
		lab_check(w.lab, paint_said(&w, "bad") == 0, "the guest has found bad pages");
	}
	lab_check(w.lab, lab_proc_alive(s), "it has ended");
	lab_host_dest_start(w.b);
	ends(&w, job, 0);
	lab_until(w.lab, 10000, paint_said(&w, "done"), "the guest does not come to an end");
	lab_until(w.lab, 10000, reports(&w, "sharer", "good"), "not all pages were seen");
	lab_check(w.lab, paint_said(&w, "bad") == 0, "the guest has found bad pages");
	kill(s->pid, SIGTERM);
	ends(&w, s, 0);
	kill((pid_t)paint_said(&w, "pid"), SIGKILL);
	lab_end(w.lab);
}

/* Each page of 2 MiB comes once, whoever of them waits for which part of it. */
Test(sharers, huge_pages)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_proc *job, *one, *two;
	struct paint_world w;

	if (!lab_huge_pages(lab, 16)) {
		lab_end(lab);
		cr_skip_test("16 huge pages cannot be reserved");
	}
	w = paint_world(lab, "16h", "0");
	job = paint_migrate(&w, "hybrid", "64Mbit");
	lab_until(lab, 10000, paint_said(&w, "pid"), "the guest is not launched");
	one = share(&w, "one", "stay");
	two = share(&w, "two", "stay");
	lab_until(lab, 5000,
		  lab_proc_said(lab, w.b->dest, "sharer one of guest paint") &&
			  lab_proc_said(lab, w.b->dest, "sharer two of guest paint"),
		  "they do not attach themselves");
	lab_check(lab, paint_phase_is(&w, "advise"), "too late to wait for a page");
	ends(&w, job, 0);
	lab_until(lab, 10000, paint_said(&w, "done"), "the guest does not come to an end");
	lab_until(lab, 10000, reports(&w, "one", "good") && reports(&w, "two", "good"),
		  "not all pages were seen");
	lab_check(lab, paint_said(&w, "bad") == 0, "the guest has found bad pages");
	kill(one->pid, SIGTERM);
	ends(&w, one, 0);
	kill(two->pid, SIGTERM);
	ends(&w, two, 0);
	kill((pid_t)paint_said(&w, "pid"), SIGKILL);
	lab_until(lab, 5000, !lab_host_guests(w.b), "the guest stays");
	lab_end(lab);
}
