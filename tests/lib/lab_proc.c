/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "lib/lab.h"

static int log_open(struct lab *lab, const char *name, const char *which)
{
	char path[LAB_PATH_MAX + LAB_NAME_MAX + 16];

	snprintf(path, sizeof(path), "%s/%s.%s", lab->root, name, which);
	return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static int ns_open(const struct lab_ns *ns, const char *which)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", ns ? ns->init : getpid(), which);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* In the child: everything up to the program itself. */
static void become(struct lab *lab, const struct lab_ns *ns, const char *name,
		   const char *const argv[])
{
	int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int out = log_open(lab, name, "out"), err = log_open(lab, name, "err");
	int net = ns ? ns_open(ns, "net") : -1, mnt = ns ? ns_open(ns, "mnt") : -1;
	char san[LAB_PATH_MAX + LAB_NAME_MAX + 64];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (ns && (setns(net, CLONE_NEWNET) || setns(mnt, CLONE_NEWNS)))
		_exit(126);
	if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
		_exit(126);
	/* What a sanitizer finds goes into files that lab_end() looks for. */
	snprintf(san, sizeof(san), "log_path=%s/san.%s:halt_on_error=0:exitcode=66", lab->root,
		 name);
	setenv("TSAN_OPTIONS", san, 1);
	setenv("ASAN_OPTIONS", san, 1);
	snprintf(san, sizeof(san), "log_path=%s/san.%s:print_stacktrace=1", lab->root, name);
	setenv("UBSAN_OPTIONS", san, 1);
	signal(SIGPIPE, SIG_DFL);
	execv(argv[0], (char *const *)(uintptr_t)argv);
	fprintf(stderr, "%s: %m\n", argv[0]);
	_exit(127);
}

struct lab_proc *lab_lend(struct lab *lab, const char *name, pid_t pid)
{
	struct lab_proc *p = calloc(1, sizeof(*p));

	lab_check(lab, pid > 0, "fork: %m");
	lab_check(lab, lab->n_procs < LAB_PROCS_MAX, "too many processes for one lab");
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->pid = pid;
	lab->procs[lab->n_procs++] = p;
	return p;
}

struct lab_proc *lab_spawn(struct lab *lab, const struct lab_ns *ns, const char *name,
			   const char *const argv[])
{
	int own = -1, pid_ns;
	pid_t pid;

	if (ns) {
		/* Only children see a change of the PID namespace, and it can be taken back. */
		own = ns_open(NULL, "pid");
		pid_ns = ns_open(ns, "pid");
		lab_check(lab, own >= 0 && setns(pid_ns, CLONE_NEWPID) == 0, "setns: %m");
		close(pid_ns);
	}
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		become(lab, ns, name, argv);
	if (ns) {
		lab_check(lab, setns(own, CLONE_NEWPID) == 0, "setns back: %m");
		close(own);
	}
	return lab_lend(lab, name, pid);
}

bool lab_proc_alive(struct lab_proc *p)
{
	int status;

	if (!p->pid)
		return false;
	if (waitpid(p->pid, &status, WNOHANG) == 0)
		return true;
	p->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	p->pid = 0;
	return false;
}

int lab_proc_wait(struct lab *lab, struct lab_proc *p, unsigned int ms)
{
	lab_until(lab, ms, !lab_proc_alive(p), "%s did not end within %u ms", p->name, ms);
	return p->status;
}

void lab_proc_kill(struct lab *lab, struct lab_proc *p)
{
	if (!p->pid)
		return;
	kill(p->pid, SIGKILL);
	/* Letting go of its files may take seconds on a busy machine (tests/platform/dead_files.c). */
	lab_proc_wait(lab, p, 30000);
}

char *lab_proc_text(struct lab *lab, const struct lab_proc *p, const char *which)
{
	char path[LAB_PATH_MAX + LAB_NAME_MAX + 16];

	snprintf(path, sizeof(path), "%s/%s.%s", lab->root, p->name, which);
	return lab_read_file(path);
}

bool lab_proc_said(struct lab *lab, const struct lab_proc *p, const char *text)
{
	char *log = lab_proc_text(lab, p, "err");
	bool said = log && strstr(log, text);

	free(log);
	return said;
}

int lab_run(struct lab *lab, const struct lab_ns *ns, unsigned int ms, char **ret_out,
	    char **ret_err, const char *const argv[])
{
	const char *base = strrchr(argv[0], '/');
	char name[LAB_NAME_MAX];
	struct lab_proc *p;
	int status;

	snprintf(name, sizeof(name), "%s-%zu", base ? base + 1 : argv[0], lab->n_procs);
	p = lab_spawn(lab, ns, name, argv);
	status = lab_proc_wait(lab, p, ms);
	if (ret_out)
		*ret_out = lab_proc_text(lab, p, "out");
	if (ret_err)
		*ret_err = lab_proc_text(lab, p, "err");
	return status;
}

static unsigned int count_entries(pid_t pid, const char *what)
{
	char path[64];
	unsigned int n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, what);
	d = opendir(path);
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n > 2 ? n - 2 : 0; /* . and .. */
}

struct lab_usage lab_usage(struct lab *lab, pid_t pid)
{
	struct lab_usage u = {0};
	char path[64], *text, *at;

	u.fds = count_entries(pid, "fd");
	u.threads = count_entries(pid, "task");
	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	text = lab_read_file(path);
	at = text ? strstr(text, "\nAnonymous:") : NULL;
	lab_check(lab, at, "%s cannot be read", path);
	u.anon_kb = strtoul(at + strlen("\nAnonymous:"), NULL, 10);
	free(text);
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	text = lab_read_file(path);
	for (at = text; at && *at; at++)
		u.maps += *at == '\n';
	free(text);
	return u;
}
