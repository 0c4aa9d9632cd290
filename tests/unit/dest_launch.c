/* SPDX-License-Identifier: Apache-2.0 */
/* From a launcher to a process: what is filled in, what is refused, and what the process gets. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "launch.h"
#include "util/fdio.h"
#include "util/log.h"

static void quiet(void)
{
	log_setup("warning");
}

TestSuite(dest_launch, .init = quiet, .timeout = 30);

/* --- argv --- */

static const struct msg_var vars[] = {{"image", "/srv/a b.img"}, {"dash", "-x"}, {"bad", "a$b"}};
static const struct launch_facts facts = {
	.launcher = "stamp",
	.name = "web-1",
	.uuid = "00000000-0000-4000-8000-000000000001",
	.memory_bytes = "1048576",
	.run_dir = "/run/decant",
	.attach = "/run/decant/dest.attach",
	.vars = vars,
	.nvars = 3,
};

/* Fill one word. Return: new text, or NULL with @err */
static char *fill(const char *word, struct error *err)
{
	char *words[] = {"/bin/true", (char *)word, NULL}, **argv = NULL, *ret = NULL;

	error_clear(err);
	if (!launch_argv(words, &facts, &argv, err)) {
		cr_assert(eq(str, argv[0], "/bin/true"));
		cr_assert(eq(ptr, argv[2], NULL));
		ret = strdup(argv[1]);
	}
	launch_argv_free(argv);
	return ret;
}

Test(dest_launch, placeholders)
{
	static const char *const good[][2] = {
		{"plain", "plain"},
		{"", ""},
		{"{name}", "web-1"},
		{"--id={uuid}", "--id=00000000-0000-4000-8000-000000000001"},
		{"{memory_bytes}B", "1048576B"},
		{"{run_dir}/{name}.pid", "/run/decant/web-1.pid"},
		{"{attach}", "/run/decant/dest.attach"},
		{"file={var:image},ro", "file=/srv/a b.img,ro"},
		{"--opt={var:dash}", "--opt=-x"},
		{"}{name}}", "}web-1}"},
	};
	struct error err;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		char *s = fill(good[i][0], &err);

		cr_assert(ne(ptr, s, NULL), "%s: %s", good[i][0], err.msg);
		cr_assert(eq(str, s, (char *)good[i][1]));
		free(s);
	}
}

Test(dest_launch, what_is_refused_is_named)
{
	static const char *const bad[][3] = {
		{"{nam}", "launcher-placeholder", "{nam}"},
		{"{qmp}", "launcher-placeholder", "{qmp}"},
		{"{}", "launcher-placeholder", "{}"},
		{"x{name", "launcher-placeholder", "'{' without '}'"},
		{"{var:}", "launcher-placeholder", "{var:}"},
		{"{var:disk}", "launcher-var", "\"disk\""},
		{"{var:bad}", "launcher-var", "\"bad\""},
		{"{var:dash}", "launcher-var", "'-'"},
	};
	struct error err;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert(eq(ptr, fill(bad[i][0], &err), NULL), "%s", bad[i][0]);
		cr_assert(eq(str, err.code, (char *)bad[i][1]));
		cr_assert(ne(ptr, strstr(err.msg, bad[i][2]), NULL), "%s", err.msg);
	}
}

/* --- processes --- */

/**
 * struct box - a loop, a folder, a process
 * @how:	as launch_exit_fn told it; empty before
 */
struct box {
	struct loop *loop;
	struct launch *launch;
	struct error err;
	char how[96];
	char dir[64];
	char log[96];
};

static void on_exit_(void *arg, const char *how)
{
	struct box *b = arg;

	snprintf(b->how, sizeof(b->how), "%s", how);
	launch_free(b->launch);
	b->launch = NULL;
	loop_stop(b->loop);
}

static void box_init(struct box *b)
{
	memset(b, 0, sizeof(*b));
	b->loop = loop_new();
	strcpy(b->dir, "/tmp/decant-launch-XXXXXX");
	cr_assert(ne(ptr, mkdtemp(b->dir), NULL));
	snprintf(b->log, sizeof(b->log), "%s/log", b->dir);
}

static int box_start(struct box *b, const char *const *argv)
{
	static const uint8_t token[MSG_TOKEN_LEN] = {0xab, 0x01, [31] = 0xff};
	struct launch_spec spec = {
		.argv = (char *const *)argv, .log_path = b->log, .token = token, .attach = "/a/b"};

	return launch_start(b->loop, &spec, on_exit_, b, &b->launch, &b->err);
}

static void box_free(struct box *b)
{
	loop_free(b->loop);
	unlink(b->log);
	cr_assert(zero(int, rmdir(b->dir)));
}

/* Run a script to its end. Return: what it printed, for free() */
static char *box_run(struct box *b, const char *script)
{
	char *text = NULL;

	cr_assert(zero(int, box_start(b, (const char *[]){"/bin/sh", "-c", script, NULL})), "%s",
		  b->err.msg);
	cr_assert(zero(int, loop_run(b->loop)));
	cr_assert(ge(long, fdio_read_file(b->log, 65536, &text), 0));
	return text;
}

Test(dest_launch, environment_and_session)
{
	struct box b;
	char *text;

	setenv("DECANT_INCOMING", "of somebody else", 1);
	setenv("NOTIFY_SOCKET", "/run/notify", 1);
	setenv("KEPT", "yes", 1);
	box_init(&b);
	text = box_run(&b, "echo $DECANT_INCOMING $DECANT_ATTACH $KEPT [$NOTIFY_SOCKET]; "
			   "env | grep -c ^DECANT_INCOMING=; "
			   "ps -o sid= -p $$ | tr -d ' ' | grep -qx $$ && echo own-session; "
			   "read x || echo no-input; echo to-stderr >&2");
	cr_assert(ne(ptr, strstr(text, "ab0100000000"), NULL), "%s", text);
	cr_assert(ne(ptr, strstr(text, "ff /a/b yes []\n1\nown-session\nno-input\nto-stderr\n"),
		     NULL),
		  "%s", text);
	cr_assert(eq(str, b.how, "exit status 0"));
	free(text);
	box_free(&b);
}

/* Descriptors, also those without close-on-exec, and blocked or ignored signals are the agent's. */
Test(dest_launch, nothing_is_inherited)
{
	struct box b;
	sigset_t all;
	char *text;
	int fd = open("/dev/null", O_RDONLY);

	cr_assert(ge(int, dup2(fd, 77), 0));
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	signal(SIGTERM, SIG_IGN);
	box_init(&b);
	sigprocmask(SIG_UNBLOCK, &all, NULL);
	sigprocmask(SIG_BLOCK, &(sigset_t){{1ul << (SIGUSR1 - 1)}}, NULL);
	text = box_run(
		&b,
		"ls /proc/self/fd | tr '\\n' ' '\n"
		/* The shell looks itself: while it starts another program it blocks signals. */
		"while read -r l; do case $l in Sig*) echo \"$l\";; esac; done </proc/$$/status");
	cr_assert(eq(ptr, strstr(text, "77"), NULL), "%s", text);
	cr_assert(ne(ptr, strstr(text, "SigBlk:\t0000000000000000"), NULL), "%s", text);
	/* 32 and 33 are the C library's own: no program can set them. */
	cr_assert(zero(u64, strtoull(strstr(text, "SigIgn:") + 8, NULL, 16) & ~0x180000000ull),
		  "%s", text);
	free(text);
	close(fd);
	box_free(&b);
}

Test(dest_launch, ends_are_told)
{
	struct box b;

	box_init(&b);
	free(box_run(&b, "exit 7"));
	cr_assert(eq(str, b.how, "exit status 7"));
	free(box_run(&b, "kill -SEGV $$"));
	cr_assert(eq(str, b.how, "killed by signal 11 (Segmentation fault)"));
	cr_assert(eq(int, waitpid(-1, NULL, WNOHANG), -1), "reaped");
	box_free(&b);
}

Test(dest_launch, killed)
{
	struct box b;

	box_init(&b);
	cr_assert(zero(int, box_start(&b, (const char *[]){"/bin/sleep", "100", NULL})));
	launch_kill(b.launch);
	cr_assert(zero(int, loop_run(b.loop)));
	cr_assert(eq(str, b.how, "killed by signal 9 (Killed)"));
	box_free(&b);
}

/* What is no longer watched goes on. */
Test(dest_launch, let_go)
{
	struct box b;
	pid_t pid;

	box_init(&b);
	cr_assert(zero(int, box_start(&b, (const char *[]){"/bin/sleep", "100", NULL})));
	pid = launch_pid(b.launch);
	launch_free(b.launch);
	cr_assert(zero(int, kill(pid, 0)));
	cr_assert(eq(int, waitpid(pid, NULL, WNOHANG), 0));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	box_free(&b);
}

Test(dest_launch, failures_are_named)
{
	struct box b;

	box_init(&b);
	cr_assert(eq(int, box_start(&b, (const char *[]){"/no/such/program", NULL}), -ENOENT));
	cr_assert(ne(ptr, strstr(b.err.msg, "/no/such/program"), NULL), "%s", b.err.msg);
	error_clear(&b.err);
	cr_assert(eq(int, box_start(&b, (const char *[]){"/etc/passwd", NULL}), -EACCES));
	error_clear(&b.err);
	unlink(b.log);
	cr_assert(zero(int, symlink("/etc/passwd", b.log)));
	cr_assert(eq(int, box_start(&b, (const char *[]){"/bin/true", NULL}), -ELOOP),
		  "a planted link");
	cr_assert(ne(ptr, strstr(b.err.msg, b.log), NULL), "%s", b.err.msg);
	cr_assert(eq(int, waitpid(-1, NULL, WNOHANG), -1), "nothing is left");
	box_free(&b);
}
