/* SPDX-License-Identifier: Apache-2.0 */
#include "launch.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "launch_unit.h"
#include "util/cleanup.h"
#include "util/log.h"

/**
 * struct launch - what we started
 * @unit:	a unit of systemd; then nothing of what follows is used
 * @pid:	not reaped as long as @ended is false, so it means this process and no other
 * @pidfd:	owned
 * @ended:	reaped
 * @ev:		tells its end
 * @on_exit, @arg: who is told
 */
struct launch {
	struct launch_unit *unit;
	pid_t pid;
	int pidfd;
	bool ended;
	struct event *ev;
	launch_exit_fn *on_exit;
	void *arg;
};

static void on_pidfd(evutil_socket_t fd, short what, void *arg)
{
	struct launch *l = arg;
	siginfo_t si = {0};
	char how[96];

	(void)what;
	if (waitid(P_PIDFD, (id_t)fd, &si, WEXITED | WNOHANG) || !si.si_pid)
		return;
	l->ended = true;
	event_del(l->ev);
	if (si.si_code == CLD_EXITED)
		snprintf(how, sizeof(how), "exit status %d", si.si_status);
	else
		snprintf(how, sizeof(how), "killed by signal %d (%s)", si.si_status,
			 strsignal(si.si_status));
	l->on_exit(l->arg, how);
}

/* The environment of the agent, but for what names its own supervision or an older token. */
static bool env_stays(const char *e)
{
	static const char *const gone[] = {
		"DECANT_INCOMING=", "DECANT_ATTACH=",  "NOTIFY_SOCKET=",         "LISTEN_PID=",
		"LISTEN_FDS=",      "LISTEN_FDNAMES=", "WATCHDOG_PID=",          "WATCHDOG_USEC=",
		"JOURNAL_STREAM=",  "INVOCATION_ID=",  "CREDENTIALS_DIRECTORY=",
	};

	for (size_t i = 0; i < ARRAY_SIZE(gone); i++)
		if (!strncmp(e, gone[i], strlen(gone[i])))
			return false;
	return true;
}

static char **env_make(char *incoming, char *attach)
{
	size_t n = 0, k = 0;
	char **env;

	while (environ[n])
		n++;
	env = calloc(n + 3, sizeof(*env));
	if (!env)
		return NULL;
	for (size_t i = 0; i < n; i++)
		if (env_stays(environ[i]))
			env[k++] = environ[i];
	env[k++] = incoming;
	env[k++] = attach;
	return env;
}

static int spawn_attrs(posix_spawnattr_t *a)
{
	sigset_t none, all;
	int r;

	sigemptyset(&none);
	sigfillset(&all);
	r = posix_spawnattr_setsigmask(a, &none);
	if (!r)
		r = posix_spawnattr_setsigdefault(a, &all);
	if (!r)
		r = posix_spawnattr_setflags(a, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
							POSIX_SPAWN_SETSIGDEF);
	return r;
}

static int spawn_files(posix_spawn_file_actions_t *fa, int log_fd)
{
	int r = posix_spawn_file_actions_addopen(fa, 0, "/dev/null", O_RDONLY, 0);

	if (!r)
		r = posix_spawn_file_actions_adddup2(fa, log_fd, 1);
	if (!r)
		r = posix_spawn_file_actions_adddup2(fa, log_fd, 2);
	if (!r)
		r = posix_spawn_file_actions_addclosefrom_np(fa, 3);
	return r;
}

static int spawn(const struct launch_spec *s, char **env, int log_fd, pid_t *ret)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	int r;

	r = posix_spawn_file_actions_init(&fa);
	if (r)
		return -r;
	r = posix_spawnattr_init(&attr);
	if (!r) {
		r = spawn_files(&fa, log_fd);
		if (!r)
			r = spawn_attrs(&attr);
		if (!r)
			r = posix_spawn(ret, s->argv[0], &fa, &attr, s->argv, env);
		posix_spawnattr_destroy(&attr);
	}
	posix_spawn_file_actions_destroy(&fa);
	return -r;
}

static int start_process(const struct launch_spec *s, pid_t *ret, struct error *err)
{
	char incoming[LAUNCH_TOKEN_MAX];
	CLEANUP_FREE char *attach = NULL;
	CLEANUP_FREE char **env = NULL;
	CLEANUP_CLOSE int log_fd = -1;
	int r;

	launch_token(s->token, incoming);
	if (asprintf(&attach, "DECANT_ATTACH=%s", s->attach) < 0)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	env = env_make(incoming, attach);
	if (!env)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	log_fd = open(s->log_path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0640);
	if (log_fd < 0)
		return error_set(err, -errno, "launch-failed", "log file %s: %s", s->log_path,
				 strerror(errno));
	r = spawn(s, env, log_fd, ret);
	explicit_bzero(incoming, sizeof(incoming));
	if (r)
		return error_set(err, r, "launch-failed", "cannot start %s: %s", s->argv[0],
				 strerror(-r));
	return 0;
}

static int watch_process(struct launch *l, struct loop *loop, const struct launch_spec *spec,
			 struct error *err)
{
	int r;

	l->pidfd = pidfd_open(l->pid, 0);
	if (l->pidfd >= 0)
		l->ev = event_new(loop_base(loop), l->pidfd, EV_READ | EV_PERSIST, on_pidfd, l);
	if (l->pidfd >= 0 && l->ev && !event_add(l->ev, NULL)) {
		log_debug("launch: pid %d is %s", (int)l->pid, spec->argv[0]);
		return 0;
	}
	r = error_set(err, l->pidfd < 0 ? -errno : -ENOMEM, "launch-failed", "cannot watch %s: %s",
		      spec->argv[0], strerror(errno));
	kill(l->pid, SIGKILL);
	waitpid(l->pid, NULL, 0);
	return r;
}

int launch_start(struct loop *loop, const struct launch_spec *spec, launch_exit_fn *on_exit,
		 void *arg, struct launch **ret, struct error *err)
{
	struct launch *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	l->pidfd = -1;
	l->on_exit = on_exit;
	l->arg = arg;
	if (launch_units_usable(spec->units)) {
		r = launch_unit_start(spec->units, spec, on_exit, arg, &l->unit, err);
	} else {
		r = start_process(spec, &l->pid, err);
		if (!r)
			r = watch_process(l, loop, spec, err);
	}
	if (r) {
		l->ended = true;
		launch_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

off_t launch_log_size(const char *log_path)
{
	struct stat st;

	return stat(log_path, &st) ? 0 : st.st_size;
}

void launch_last_words(const char *log_path, off_t from, char *out, size_t cap)
{
	CLEANUP_CLOSE int fd = open(log_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	off_t end = launch_log_size(log_path);
	char tail[512], *line;
	ssize_t n;

	*out = '\0';
	from = MAX(from, end - (off_t)sizeof(tail) + 1);
	n = fd < 0 ? -1 : pread(fd, tail, sizeof(tail) - 1, from);
	while (n > 0 && tail[n - 1] == '\n')
		n--;
	if (n <= 0)
		return;
	tail[n] = '\0';
	/* Two lines: the last one often says only that something failed. */
	line = strrchr(tail, '\n');
	if (line) {
		*line = ' ';
		line = strrchr(tail, '\n');
	}
	snprintf(out, cap, "%s", line ? line + 1 : tail);
}

void launch_watch(struct launch *l, launch_exit_fn *on_exit, void *arg)
{
	if (l->unit)
		launch_unit_watch(l->unit, on_exit, arg);
	l->on_exit = on_exit;
	l->arg = arg;
}

pid_t launch_pid(const struct launch *l)
{
	return l->pid;
}

void launch_kill(struct launch *l)
{
	if (l->unit)
		launch_unit_kill(l->unit);
	else if (!l->ended)
		pidfd_send_signal(l->pidfd, SIGKILL, NULL, 0);
}

void launch_free(struct launch *l)
{
	if (!l)
		return;
	launch_unit_free(l->unit);
	if (l->ev)
		event_free(l->ev);
	if (l->pidfd >= 0)
		close(l->pidfd);
	free(l);
}
