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
#include "lib/lab_test.h"

TestSuite(sharers, .timeout = 120);

#define MB      "16"
#define PAGES   4096ul
#define THREADS "2"

static char *paint_conf(struct lab *lab)
{
	json_t *o =
		json_pack("{s:{s:{s:s, s:[o, s, s, o, s, s]}}}", "launchers", "paint", "driver",
			  "native", "argv", json_sprintf("%s/guests/paint", lab->tests), "{name}",
			  "{attach}", json_sprintf("%s/{name}.arrived", lab->root), MB, THREADS);
	char *text = json_dumps(o, 0);

	json_decref(o);
	return text;
}

/** struct world - two hosts and the guest "paint" */
struct world {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_proc *guest;
};

static struct world world_new(void)
{
	struct world w = {.lab = lab_new(lab_test_failed)};
	char program[LAB_PATH_MAX + 32], report[LAB_PATH_MAX + 32], desc[LAB_PATH_MAX + 32];
	char *conf = paint_conf(w.lab);

	w.a = lab_host_start(w.lab, &(struct lab_host_opts){.name = "a"});
	w.b = lab_host_start(w.lab, &(struct lab_host_opts){.name = "b", .dest_conf = conf});
	free(conf);
	snprintf(program, sizeof(program), "%s/guests/paint", w.lab->tests);
	snprintf(report, sizeof(report), "%s/paint.started", w.lab->root);
	snprintf(desc, sizeof(desc), "%s/paint.json", w.lab->root);
	lab_write_file(w.lab, desc,
		       "{\"name\": \"paint\", \"driver\": \"native\", \"launcher\": \"paint\"}");
	lab_check(w.lab,
		  !lab_decant(w.a, 10000, NULL, NULL, (const char *const[]){"add", desc, NULL}),
		  "decant add");
	w.guest = lab_spawn(
		w.lab, NULL, "paint",
		(const char *const[]){program, "paint", w.a->attach, report, MB, THREADS, NULL});
	lab_until(w.lab, 10000, !access(report, F_OK), "the guest does not start");
	lab_host_knows(w.a, "paint");
	return w;
}

static struct lab_proc *migrate(struct world *w, const char *mode, const char *rate)
{
	return lab_decant_begin(w->a,
				(const char *[]){"migrate", "paint", "--to", w->b->to, "--mode",
						 mode, "--bandwidth", rate, "--wait", NULL});
}

/* What the guest says at the destination; 0 for what it has not said yet. */
static long said(struct world *w, const char *what)
{
	char path[LAB_PATH_MAX + 32];
	json_t *o;
	long n = 0;

	snprintf(path, sizeof(path), "%s/paint.arrived", w->lab->root);
	o = json_load_file(path, 0, NULL);
	if (o && json_is_true(lab_at(o, what)))
		n = 1;
	else if (o)
		n = (long)json_integer_value(lab_at(o, what));
	json_decref(o);
	return n;
}

static struct lab_proc *share(struct world *w, const char *name, const char *mode)
{
	char program[LAB_PATH_MAX + 32], report[LAB_PATH_MAX + 32], pid[16];

	snprintf(program, sizeof(program), "%s/guests/sharer", w->lab->tests);
	snprintf(report, sizeof(report), "%s/%s.report", w->lab->root, name);
	snprintf(pid, sizeof(pid), "%ld", said(w, "pid"));
	return lab_spawn(w->lab, NULL, name,
			 (const char *const[]){program, pid, "paint", name,
					       lab_host_path(w->b, "dest.attach"), report, mode,
					       NULL});
}

static bool reports(struct world *w, const char *name, const char *what)
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

static bool phase_is(struct world *w, const char *phase)
{
	json_t *o = lab_incoming_newest(w->b);
	bool yes = o && !strcmp(lab_str(w->lab, o, "phase"), phase);

	json_decref(o);
	return yes;
}

static void ends(struct world *w, struct lab_proc *p, int status)
{
	int got = lab_proc_wait(w->lab, p, 20000);

	lab_check(w->lab, got == status, "%s has ended with %d, not %d", p->name, got, status);
}

/* --- those who do not keep to the protocol --- */

static int dial(struct world *w)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", lab_host_path(w->b, "dest.attach"));
	lab_check(w->lab, !connect(sock, (struct sockaddr *)&sa, sizeof(sa)), "connect: %m");
	return sock;
}

static void say(struct world *w, int sock, const struct gwire_msg *m, int fd)
{
	uint8_t buf[512];
	ssize_t n = gwire_encode(m, buf, sizeof(buf));

	lab_check(w->lab, n > 0 && !gwire_send(sock, buf, (size_t)n, fd), "sending %u", m->type);
}

/* Return: type of the next message; @ret_result of a DONE */
static int hear(struct world *w, int sock, int *ret_result)
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

static int hello(struct world *w, int fd)
{
	struct gwire_msg m = {.type = GWIRE_SHARER, .nfds = 1};
	int sock = dial(w);

	m.u.sharer = (struct gwire_sharer){.version = 1, .guest = "paint", .name = "rubbish"};
	say(w, sock, &m, fd);
	return sock;
}

static void refused(struct world *w, int sock)
{
	lab_check(w->lab, hear(w, sock, NULL) == GWIRE_REFUSED, "not refused");
	close(sock);
}

/* Ranges that are not what they are said to be; then what is no message at all. */
static void talk_rubbish(struct world *w)
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
	struct world w = world_new();
	struct lab_proc *job = migrate(&w, "hybrid", "64Mbit"), *early, *mid, *leaves, *killed,
			*late;
	long looks;

	lab_until(w.lab, 10000, said(&w, "pid"), "the guest is not launched");
	early = share(&w, "early", "stay");
	lab_until(w.lab, 5000, lab_proc_said(w.lab, w.b->dest, "sharer early of guest paint"),
		  "it does not attach itself");
	lab_check(w.lab, phase_is(&w, "advise"), "too late to be early");
	lab_check(w.lab, reports(&w, "early", "mapped"), "it may touch what is not guarded yet");
	lab_until(w.lab, 20000, phase_is(&w, "running"), "the guest does not run");
	mid = share(&w, "mid", "stay");
	leaves = share(&w, "leaves", "leave");
	killed = share(&w, "killed", "hang");
	talk_rubbish(&w);
	lab_until(w.lab, 10000, reports(&w, "killed", "guarded"), "not guarded");
	lab_check(w.lab, phase_is(&w, "running"), "all was over too early");
	lab_proc_kill(w.lab, killed);
	ends(&w, leaves, 0);
	ends(&w, job, 0);
	lab_until(w.lab, 10000, said(&w, "done"), "the guest does not come to an end");
	lab_until(w.lab, 10000, reports(&w, "early", "good") && reports(&w, "mid", "good"),
		  "not all pages were seen");
	/* When nothing is missing any more. */
	late = share(&w, "late", "stay");
	lab_until(w.lab, 10000, reports(&w, "late", "good"), "not all pages were seen");
	kill(early->pid, SIGTERM);
	ends(&w, early, 0);
	looks = said(&w, "looks");
	lab_until(w.lab, 10000, said(&w, "looks") > looks + 1, "the guest does not go on");
	lab_check(w.lab, said(&w, "bad") == 0, "the guest has found %ld bad pages",
		  said(&w, "bad"));
	kill(mid->pid, SIGTERM);
	ends(&w, mid, 0);
	kill(late->pid, SIGTERM);
	ends(&w, late, 0);
	lab_check(w.lab, lab_proc_said(w.lab, w.b->dest, "sharer killed of guest paint (pid"),
		  "the log does not name it");
	kill((pid_t)said(&w, "pid"), SIGKILL);
	lab_end(w.lab);
}

/* The agent's end hands zeros to no sharer: each keeps its descriptor, and looks for a successor. */
Test(sharers, the_agent_is_killed)
{
	struct world w = world_new();
	struct lab_proc *job = migrate(&w, "postcopy", "32Mbit"), *s;
	uint64_t end;

	lab_until(w.lab, 20000, phase_is(&w, "running"), "the guest does not run");
	s = share(&w, "sharer", "stay");
	lab_until(w.lab, 10000, reports(&w, "sharer", "guarded"), "not guarded");
	lab_proc_kill(w.lab, w.b->dest);
	lab_host_dest_start(w.b);
	for (end = lab_now_ms() + 1000; lab_now_ms() < end; lab_nap()) {
		lab_check(w.lab, !reports(&w, "sharer", "good"), "it has seen what is not there");
		lab_check(w.lab, said(&w, "bad") == 0, "the guest has found bad pages");
	}
	lab_check(w.lab, lab_proc_alive(s), "it has ended");
	lab_proc_kill(w.lab, job);
	lab_proc_kill(w.lab, s);
	kill((pid_t)said(&w, "pid"), SIGKILL);
	lab_until(w.lab, 5000, lab_proc_said(w.lab, w.b->dest, "has died"),
		  "its death is not noticed");
	lab_proc_kill(w.lab, w.guest);
	lab_end(w.lab);
}
