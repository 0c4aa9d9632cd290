/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decant-source beside monitors that are none: what each answers is nonsense in its own way. The guest's
 * problem says so by name, it costs little however often it is looked at anew, and a guest that moves
 * meanwhile does not notice. (The client by itself: tests/unit/qemu_qmp.c.)
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "lib/lab_hostile.h"
#include "lib/lab_test.h"

TestSuite(hostile_qmp, .timeout = 120);

#define GREETING                                                                           \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 1, \"minor\": 2, \"major\": 7}}, " \
	"\"capabilities\": []}}\r\n"
#define TAKEN "{\"return\": {}, \"id\": 1}\r\n"

/**
 * struct nonsense - what a monitor says
 * @first:	at once
 * @again:	then again and again, without end; NULL for nothing more
 * @code:	of the guest's problem
 */
struct nonsense {
	const char *name;
	const char *first;
	const char *again;
	const char *code;
};

static const struct nonsense monitors[] = {
	{"silent", "", NULL, "monitor-busy"},
	{"noise", "\x16\x03\x01\x02\n", NULL, "monitor-rubbish"},
	{"no-end", GREETING, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
	 "monitor-rubbish"},
	{"brackets", GREETING, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
	 "monitor-rubbish"},
	{"greets", GREETING, GREETING, "monitor-rubbish"},
	{"wrong-id", GREETING "{\"return\": {}, \"id\": 77}\r\n", NULL, "monitor-rubbish"},
	{"no-object", GREETING "7\r\n", NULL, "monitor-rubbish"},
	{"refuses", GREETING "{\"error\": {\"class\": 7, \"desc\": []}, \"id\": 1}\r\n", NULL,
	 NULL},
	{"wrong-types",
	 GREETING TAKEN "{\"return\": [[{}]], \"id\": 2}\r\n"
			"{\"return\": 7, \"id\": 3}\r\n"
			"{\"return\": \"x\", \"id\": 4}\r\n",
	 NULL, NULL},
	{"events", GREETING TAKEN, "{\"event\": \"STOP\", \"data\": []}\r\n", NULL},
	{"mute", GREETING, NULL, NULL},
};

static void all(int fd, const char *text)
{
	for (size_t n = strlen(text); n;) {
		ssize_t k = send(fd, text, n, MSG_NOSIGNAL);

		if (k <= 0)
			return;
		text += k;
		n -= (size_t)k;
	}
}

static void monitor_main(int listener, const struct nonsense *m)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		char c;

		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			all(fd, m->first);
			while (m->again && send(fd, m->again, strlen(m->again), MSG_NOSIGNAL) > 0)
				;
			while (recv(fd, &c, 1, 0) > 0)
				;
			_exit(0);
		}
		close(fd);
	}
}

static struct lab_proc *monitor(struct lab_host *h, const struct nonsense *m)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char body[512];
	int status;
	pid_t pid;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%.80s/%.20s", h->dir, m->name);
	lab_check(h->lab, !bind(fd, (struct sockaddr *)&sa, sizeof(sa)) && !listen(fd, 8), "%s: %m",
		  sa.sun_path);
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		monitor_main(fd, m);
	close(fd);
	snprintf(body, sizeof(body),
		 "{\"name\": \"%s\", \"driver\": \"qemu\", \"qmp\": \"%s\", \"launcher\": \"x\"}",
		 m->name, sa.sun_path);
	status = lab_http(h->source_sock, "POST", "/v1/guests", body, NULL);
	lab_check(h->lab, status == 200 || status == 201, "%s: %d", m->name, status);
	return lab_lend(h->lab, m->name, pid);
}

/*
 * Return: whether it has a problem, and the right one. It is tried again and again: one who floods is, on a busy
 * machine, now and then one who does not greet in time.
 */
static bool has_problem(struct lab_host *h, const struct nonsense *m, bool tell)
{
	char path[64];
	json_t *o, *p;
	bool has;

	snprintf(path, sizeof(path), "/v1/guests/%s", m->name);
	o = lab_get(h->lab, h->source_sock, path);
	p = lab_at(o, "problem");
	has = json_is_object(p) && *lab_str(h->lab, p, "message") &&
	      (!m->code || !strcmp(lab_str(h->lab, p, "code"), m->code));
	if (has || tell)
		fprintf(stderr, "%s: %s: %s\n", m->name,
			json_is_object(p) ? lab_str(h->lab, p, "code") : "-",
			json_is_object(p) ? lab_str(h->lab, p, "message") : "no problem");
	lab_check(h->lab, !json_is_true(lab_at(o, "attached")), "%s is a guest", m->name);
	json_decref(o);
	return has;
}

Test(hostile_qmp, nonsense)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_beside beside = lab_beside_begin(a, b, 6000);
	struct lab_watch w = lab_watch_begin(lab, a->source);
	struct lab_proc *procs[LAB_COUNT(monitors)];

	for (size_t i = 0; i < LAB_COUNT(monitors); i++)
		procs[i] = monitor(a, &monitors[i]);
	for (size_t i = 0; i < LAB_COUNT(monitors); i++) {
		uint64_t end = lab_now_ms() + 15000 * lab->slow;
		bool has;

		while (!(has = has_problem(a, &monitors[i], false)) && lab_now_ms() < end)
			usleep(50000);
		lab_check(lab, has || has_problem(a, &monitors[i], true), "%s: no such problem",
			  monitors[i].name);
	}
	lab_beside_end(&beside);
	for (size_t i = 0; i < LAB_COUNT(monitors); i++)
		lab_proc_kill(lab, procs[i]);
	/* Lines of up to 4 MiB are taken before they are known to be none. */
	lab_watch_end(&w, "monitors that are none",
		      &(struct lab_cost){.cpu_percent = 100, .peak_mb = 64, .fds = 16});
	lab_end(lab);
}
