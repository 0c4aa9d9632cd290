/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands: the event on stdin, no shell, a session and an environment of their own, no descriptor of the
 * agent's. What a command says on stderr is for the log, and is the reason of a gate that refuses. When its
 * time is over its process group gets SIGTERM, and a while later SIGKILL. It is reaped by its pidfd; a process
 * that it leaves behind is nobody's here.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hooks/hooks_priv.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

/* For what a command has to put in order when it is told to end. */
#define TERM_US 2000000ull
#define WORDS   256

/**
 * struct exec_try - one run
 * @pid:	not reaped as long as this is here, so that it means this process and its group
 * @in, @in_ev:	its stdin: what of @body is not written yet
 * @out, @out_ev: its stderr
 * @ended:	tells its end
 * @timer:	until SIGTERM, then until SIGKILL
 * @late:	its time is over
 * @words, @n_words: the last it has said
 */
struct exec_try {
	struct hook_try t;
	pid_t pid;
	int pidfd;
	int in, out;
	struct event *in_ev, *out_ev, *ended, *timer;
	const char *body;
	size_t left;
	bool late;
	char words[WORDS];
	size_t n_words;
};

static void drop(struct event **ev, int *fd)
{
	if (*ev)
		event_free(steal_ptr(ev));
	if (fd && *fd >= 0)
		close(steal_fd(fd));
}

static void exec_free(struct exec_try *t)
{
	drop(&t->in_ev, &t->in);
	drop(&t->out_ev, &t->out);
	drop(&t->ended, &t->pidfd);
	drop(&t->timer, NULL);
	t->t.hook->hooks->execs--;
	hooks_kick(t->t.hook->hooks);
	free(t);
}

/* --- its ears and its mouth --- */

static void on_in(evutil_socket_t fd, short what, void *arg)
{
	struct exec_try *t = arg;
	ssize_t n = write(fd, t->body, t->left);

	(void)what;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		t->body += n;
		t->left -= (size_t)n;
	}
	/* One that does not want to hear it is judged by how it ends. */
	if (n < 0 || !t->left)
		drop(&t->in_ev, &t->in);
}

static void hear(struct exec_try *t, const char *p, size_t n)
{
	size_t keep;

	if (n >= WORDS) {
		p += n - (WORDS - 1);
		n = WORDS - 1;
	}
	keep = MIN(t->n_words, WORDS - 1 - n);
	memmove(t->words, t->words + t->n_words - keep, keep);
	memcpy(t->words + keep, p, n);
	t->n_words = keep + n;
}

/* Return: whether there may be more */
static bool listen_once(struct exec_try *t)
{
	char buf[1024];
	ssize_t n = read(t->out, buf, sizeof(buf));

	if (n > 0)
		hear(t, buf, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		drop(&t->out_ev, &t->out);
	return n == sizeof(buf);
}

static void on_out(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	listen_once(arg);
}

/* One line: the last words, without the line ends behind them. */
static const char *last_words(struct exec_try *t)
{
	for (int i = 0; i < 16 && t->out >= 0 && listen_once(t); i++)
		;
	while (t->n_words && strchr("\r\n \t", t->words[t->n_words - 1]))
		t->n_words--;
	t->words[t->n_words] = '\0';
	text_clean(t->words);
	return t->words;
}

/* --- its end --- */

static void tell(struct exec_try *t, const siginfo_t *si)
{
	struct hook_answer a = {.status = -1, .body = ""};
	const char *said = last_words(t), *colon = *said ? ": " : "";

	if (t->late)
		error_set(&a.err, -ETIMEDOUT, "hook-timeout",
			  "%s has not ended within %u ms (timeout_ms)%s%s",
			  t->t.hook->conf->exec[0], t->t.hook->conf->timeout_ms, colon, said);
	else if (si->si_code == CLD_EXITED)
		a.status = si->si_status;
	else
		error_set(&a.err, -EINTR, "hook-killed", "%s was killed by signal %d (%s)%s%s",
			  t->t.hook->conf->exec[0], si->si_status, strsignal(si->si_status), colon,
			  said);
	if (a.status >= 0)
		error_set(&a.err, -EIO, "hook-status", "exit status %d%s%s", a.status, colon, said);
	if (*said)
		log_info("hook %s said: %s", t->t.hook->conf->name, said);
	t->t.done(t->t.arg, &a);
}

static void on_end(evutil_socket_t fd, short what, void *arg)
{
	struct exec_try *t = arg;
	siginfo_t si = {0};

	(void)what;
	if (waitid(P_PIDFD, (id_t)fd, &si, WEXITED | WNOHANG) || !si.si_pid)
		return;
	tell(t, &si);
	exec_free(t);
}

static void on_killed(void *arg)
{
	struct exec_try *t = arg;

	kill(-t->pid, SIGKILL);
	drop(&t->timer, NULL);
}

static void on_late(void *arg)
{
	struct exec_try *t = arg;

	t->late = true;
	kill(-t->pid, SIGTERM);
	drop(&t->timer, NULL);
	t->timer = loop_timer(t->t.hook->hooks->loop, TERM_US, on_killed, t);
	if (!t->timer)
		kill(-t->pid, SIGKILL);
}

/* Nobody waits for it any more, but to reap it. */
static void on_orphan_end(evutil_socket_t fd, short what, void *arg)
{
	struct hook_orphan *o = arg;
	siginfo_t si = {0};

	(void)what;
	if (waitid(P_PIDFD, (id_t)fd, &si, WEXITED | WNOHANG) || !si.si_pid)
		return;
	LIST_REMOVE(o, link);
	drop(&o->ended, &o->pidfd);
	free(o);
}

void hook_exec_forget(struct hooks *h)
{
	struct hook_orphan *o;

	while ((o = LIST_FIRST(&h->orphans))) {
		LIST_REMOVE(o, link);
		drop(&o->ended, &o->pidfd);
		free(o);
	}
}

/* The answer is not wanted any more, and SIGKILL is obeyed at once, or as soon as the kernel lets it. */
static void exec_cancel(struct hook_try *attempt)
{
	struct exec_try *t = (struct exec_try *)attempt;
	struct hook_orphan *o = calloc(1, sizeof(*o));
	struct hooks *h = t->t.hook->hooks;

	kill(-t->pid, SIGKILL);
	if (o) {
		o->pidfd = steal_fd(&t->pidfd);
		o->ended = event_new(loop_base(h->loop), o->pidfd, EV_READ | EV_PERSIST,
				     on_orphan_end, o);
		LIST_INSERT_HEAD(&h->orphans, o, link);
		if (o->ended)
			event_add(o->ended, NULL);
	}
	exec_free(t);
}

static const struct hook_try_ops ops = {.cancel = exec_cancel};

/* --- its beginning --- */

static int spawn_attrs(posix_spawnattr_t *a)
{
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_setsigmask(a, &none);
	posix_spawnattr_setsigdefault(a, &all);
	return -posix_spawnattr_setflags(a, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
						    POSIX_SPAWN_SETSIGDEF);
}

static int spawn_files(posix_spawn_file_actions_t *fa, int in, int err_fd)
{
	int r = posix_spawn_file_actions_adddup2(fa, in, 0);

	if (!r)
		r = posix_spawn_file_actions_addopen(fa, 1, "/dev/null", O_WRONLY, 0);
	if (!r)
		r = posix_spawn_file_actions_adddup2(fa, err_fd, 2);
	if (!r)
		r = posix_spawn_file_actions_addclosefrom_np(fa, 3);
	if (!r)
		r = posix_spawn_file_actions_addchdir_np(fa, "/");
	return -r;
}

static int spawn(char **argv, int in, int err_fd, pid_t *ret)
{
	static char *const env[] = {
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
		NULL};
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	int r = -posix_spawn_file_actions_init(&fa);

	if (r)
		return r;
	r = -posix_spawnattr_init(&attr);
	if (!r) {
		r = spawn_files(&fa, in, err_fd);
		if (!r)
			r = spawn_attrs(&attr);
		if (!r)
			r = -posix_spawn(ret, argv[0], &fa, &attr, argv, env);
		posix_spawnattr_destroy(&attr);
	}
	posix_spawn_file_actions_destroy(&fa);
	return r;
}

/* Its ends of the pipes wait as those of any program do; ours do not. */
static int start(struct exec_try *t, char **argv)
{
	int in[2] = {-1, -1}, out[2] = {-1, -1};
	int r = pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) ? -errno : 0;

	if (!r && (fcntl(in[1], F_SETFL, O_NONBLOCK) || fcntl(out[0], F_SETFL, O_NONBLOCK)))
		r = -errno;
	if (!r)
		r = spawn(argv, in[0], out[1], &t->pid);
	t->in = in[1];
	t->out = out[0];
	if (in[0] >= 0)
		close(in[0]);
	if (out[1] >= 0)
		close(out[1]);
	return r;
}

static int watch(struct exec_try *t)
{
	struct loop *l = t->t.hook->hooks->loop;
	struct event_base *base = loop_base(l);

	t->pidfd = pidfd_open(t->pid, 0);
	if (t->pidfd < 0)
		return -errno;
	t->ended = event_new(base, t->pidfd, EV_READ | EV_PERSIST, on_end, t);
	t->in_ev = event_new(base, t->in, EV_WRITE | EV_PERSIST, on_in, t);
	t->out_ev = event_new(base, t->out, EV_READ | EV_PERSIST, on_out, t);
	t->timer = loop_timer(l, t->t.hook->conf->timeout_ms * 1000ull, on_late, t);
	if (!t->ended || !t->in_ev || !t->out_ev || !t->timer)
		return -ENOMEM;
	return event_add(t->ended, NULL) || event_add(t->in_ev, NULL) || event_add(t->out_ev, NULL)
		       ? -ENOMEM
		       : 0;
}

struct hook_try *hook_exec_try(struct hook *hook, const char *body, size_t len, struct error *err)
{
	struct exec_try *t = calloc(1, sizeof(*t));
	int r;

	if (!t) {
		error_set(err, -ENOMEM, NULL, "out of memory");
		return NULL;
	}
	t->t.ops = &ops;
	t->t.hook = hook;
	t->in = t->out = t->pidfd = -1;
	t->body = body;
	t->left = len;
	hook->hooks->execs++;
	r = start(t, hook->conf->exec);
	if (!r) {
		r = watch(t);
		if (!r)
			return &t->t;
		kill(-t->pid, SIGKILL);
		waitpid(t->pid, NULL, 0);
	}
	error_set(err, r, "hook-not-started", "cannot start %s: %s", hook->conf->exec[0],
		  strerror(-r));
	exec_free(t);
	return NULL;
}
