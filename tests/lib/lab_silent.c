/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/lab_silent.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Between two looks. */
#define LOOK_MS 200

bool lab_silent_answers(const char *sock, unsigned int ms)
{
	static const char ask[] = "GET /v1/health HTTP/1.1\r\nHost: localhost\r\n"
				  "Connection: close\r\n\r\n";
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char byte;
	bool yes;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", sock);
	yes = !connect(fd, (struct sockaddr *)&sa, sizeof(sa)) &&
	      send(fd, ask, sizeof(ask) - 1, MSG_NOSIGNAL) > 0 && poll(&p, 1, (int)ms) > 0 &&
	      read(fd, &byte, 1) == 1;
	close(fd);
	return yes;
}

char lab_silent_state(pid_t pid)
{
	char path[64], *text, *at, state;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	text = lab_read_file(path);
	at = text ? strrchr(text, ')') : NULL;
	state = at && at[1] ? at[2] : 0;
	free(text);
	return state;
}

static void put_file(FILE *f, const char *dir, const char *name)
{
	char path[2 * LAB_PATH_MAX], *text;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	text = lab_read_file(path);
	fprintf(f, "%s: %s%s", name, text ? text : "?\n", strcmp(name, "wchan") ? "" : "\n");
	free(text);
}

static void put_threads(FILE *f, pid_t pid)
{
	static const char *const names[] = {"comm", "wchan", "syscall", "stack"};
	char dir[64], thread[sizeof(dir) + 256];
	struct dirent *e;
	DIR *d;

	snprintf(dir, sizeof(dir), "/proc/%d/task", pid);
	d = opendir(dir);
	while (d && (e = readdir(d))) {
		if (*e->d_name == '.')
			continue;
		snprintf(thread, sizeof(thread), "%s/%s", dir, e->d_name);
		fprintf(f, "thread %s: ", e->d_name);
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
			put_file(f, thread, names[i]);
	}
	if (d)
		closedir(d);
}

static void put_command(FILE *f, const char *command)
{
	FILE *from = popen(command, "re");
	char line[1024];

	fprintf(f, "$ %s\n", command);
	while (from && fgets(line, sizeof(line), from))
		fputs(line, f);
	if (from)
		pclose(from);
}

void lab_silent_show(struct lab *lab, const struct lab_proc *p)
{
	char path[LAB_PATH_MAX + LAB_NAME_MAX + 16], command[256], *text = NULL;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.silent.log", lab->root, p->name);
	f = fopen(path, "ae");
	if (!f)
		return;
	fprintf(f, "%s, pid %d, says nothing and does not answer\n", p->name, p->pid);
	/* What the kernel knows comes first: gdb stops the process, and so ends some waits. */
	put_threads(f, p->pid);
	put_file(f, "/proc", "loadavg");
	put_file(f, "/proc/pressure", "io");
	put_command(f, "ss -xtnp 2>&1 | grep decant");
	if (getenv("DECANT_STACKS")) {
		snprintf(command, sizeof(command),
			 "timeout 30 gdb -nx -batch -p %d -ex 'thread apply all bt' 2>/dev/null "
			 "</dev/null",
			 p->pid);
		put_command(f, command);
	}
	fclose(f);
	text = lab_read_file(path);
	fprintf(stderr, "%s\n", text ? text : path);
	free(text);
}

static void look_at(struct lab *lab, struct lab_proc *p, const char *sock, uint64_t now)
{
	char path[LAB_PATH_MAX + LAB_NAME_MAX + 16];
	struct stat st;

	if (!p || !p->pid)
		return;
	snprintf(path, sizeof(path), "%s/%s.err", lab->root, p->name);
	if (stat(path, &st) || st.st_size != p->said || !p->said_ms) {
		p->said = st.st_size;
		p->said_ms = now;
		return;
	}
	if (now - p->said_ms < LAB_SILENT_MS * lab->slow)
		return;
	p->said_ms = now;
	/* One that a test has stopped is silent by order. */
	if (lab_silent_state(p->pid) != 'T' &&
	    !lab_silent_answers(sock, LAB_SILENT_ANSWER_MS * lab->slow) && lab_proc_alive(p))
		lab_silent_show(lab, p);
}

void lab_silent_look(struct lab *lab)
{
	uint64_t now = lab_now_ms();

	if (lab->failing || now - lab->looked_ms < LOOK_MS)
		return;
	lab->looked_ms = now;
	for (size_t i = 0; i < lab->n_hosts; i++) {
		struct lab_host *h = lab->hosts[i];

		look_at(lab, h->source, h->source_sock, now);
		look_at(lab, h->dest, h->dest_sock, now);
	}
}
