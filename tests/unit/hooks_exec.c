/* SPDX-License-Identifier: Apache-2.0 */
/* Commands as hooks: what they get, and that none of them outlives its time or holds up the loop. */
#include <fcntl.h>
#include <signal.h>
#include "unit/hooks_fixture.h"

TestSuite(hooks_exec, .init = box_quiet, .timeout = 60);

/* A script in the box; "@" in it stands for the box's folder. Return: its path, until the next call */
static const char *script(struct box *b, const char *name, const char *text)
{
	static char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", b->dir, name);
	f = fopen(path, "we");
	fputs("#!/bin/sh\n", f);
	for (; *text; text++)
		if (*text == '@')
			fputs(b->dir, f);
		else
			fputc(*text, f);
	fclose(f);
	chmod(path, 0755);
	return path;
}

static void open_exec(struct box *b, const char *text, const char *more)
{
	char conf[512];

	snprintf(conf, sizeof(conf), "[{\"exec\": [\"%s\", \"a b\", \"$HOME;*\"]%s}]",
		 script(b, "hook", text), more);
	box_open(b, conf);
}

/* Return: the file's text, for free(3) */
static char *read_text(struct box *b, const char *name)
{
	char path[128], *text;

	snprintf(path, sizeof(path), "%s/%s", b->dir, name);
	cr_assert(ge(long, fdio_read_file(path, 1u << 20, &text), 0), "%s", path);
	return text;
}

Test(hooks_exec, the_event_is_on_stdin_and_nothing_else_is_there)
{
	char *in, *env, *fds, *args, *ids;
	json_t *json;
	struct box b;

	box_init(&b);
	setenv("DECANT_SECRET", "must not be handed on", 1);
	cr_assert(gt(int, open("/dev/null", O_RDONLY), 2));
	open_exec(&b,
		  "cat >@/in; /usr/bin/env >@/env; ls -l /proc/self/fd >@/fds\n"
		  "printf '%s|%s|%s' $# \"$1\" \"$2\" >@/args; pwd >>@/args\n"
		  "cut -d' ' -f 1,5,6 /proc/$$/stat >@/ids; echo noise; echo done >&2\n",
		  "");
	box_emit(&b, "migration.completed", "migrations/one", 5);
	box_until(&b, box_count(&b).delivered == 1);
	in = read_text(&b, "in");
	json = json_loads(in, 0, NULL);
	cr_expect(eq(str, (char *)json_string_value(json_object_get(json, "type")),
		     "decant.migration.completed"));
	json_decref(json);
	env = read_text(&b, "env");
	cr_expect(has(env, "PATH=/"), "%s", env);
	cr_expect(not(has(env, "DECANT_SECRET")), "%s", env);
	fds = read_text(&b, "fds");
	/* ls itself has the folder open as 3. */
	cr_expect(not(has(fds, " 4 -> ")), "%s", fds);
	cr_expect(has(fds, "/fds"), "%s", fds);
	args = read_text(&b, "args");
	cr_expect(eq(str, args, "2|a b|$HOME;*/\n"));
	ids = read_text(&b, "ids");
	{
		int pid, group, session;

		cr_assert(eq(int, sscanf(ids, "%d %d %d", &pid, &group, &session), 3));
		cr_expect(eq(int, pid, session));
		cr_expect(eq(int, pid, group));
	}
	free(in);
	free(env);
	free(fds);
	free(args);
	free(ids);
	box_free(&b);
}

/* An event that is larger than a pipe, and a command that reads nothing: neither holds up anything. */
Test(hooks_exec, large_events_and_deaf_commands)
{
	char *large = malloc(300001);
	struct box b;

	memset(large, 'x', 300000);
	large[300000] = '\0';
	box_init(&b);
	open_exec(&b, "case $(head -c 400000 | wc -c) in 300*) exit 0;; esac; exit 1", "");
	hooks_emit(b.hooks, "migration.setup", "one", json_pack("{s:s}", "text", large));
	box_until(&b, box_count(&b).delivered == 1);
	box_close(&b);
	open_exec(&b, "exit 0", "");
	hooks_emit(b.hooks, "migration.setup", "one", json_pack("{s:s}", "text", large));
	box_until(&b, box_count(&b).delivered == 1);
	free(large);
	box_free(&b);
}

Test(hooks_exec, status_75_is_tried_again_others_are_not)
{
	char *dead;
	struct box b;

	box_init(&b);
	open_exec(&b, "echo x >>@/runs; [ $(wc -l <@/runs) -ge 3 ] || exit 75",
		  ", \"retry_ms\": 20");
	box_emit(&b, "migration.setup", "one", 1);
	box_until(&b, box_count(&b).delivered == 1);
	cr_expect(eq(u64, box_count(&b).failed, 2));
	box_close(&b);
	open_exec(&b, "echo first; printf 'no such\\nrack \\033[31m\\n\\n' >&2; exit 3", "");
	box_emit(&b, "migration.setup", "one", 1);
	box_until(&b, box_count(&b).dead == 1);
	cr_expect(eq(u64, box_count(&b).failed, 1));
	cr_expect(eq(uint, box_dead(&b, &dead), 1));
	cr_expect(has(dead, "exit status 3: no such rack  [31m\""), "%s", dead);
	free(dead);
	box_free(&b);
}

Test(hooks_exec, one_that_cannot_be_started_is_tried_again)
{
	char *dead;
	struct box b;

	box_init(&b);
	box_open(&b, "[{\"exec\": [\"/no/such/program\"], \"attempts\": 2, \"retry_ms\": 10}]");
	box_emit(&b, "migration.setup", "one", 1);
	box_until(&b, box_count(&b).dead == 1);
	cr_expect(eq(u64, box_count(&b).failed, 2));
	box_dead(&b, &dead);
	cr_expect(has(dead, "cannot start /no/such/program: No such file"), "%s", dead);
	free(dead);
	box_free(&b);
}

static bool alive(struct box *b, const char *file)
{
	char *text = read_text(b, file), path[64], state = 0, stat[512];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", atoi(text));
	free(text);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (fgets(stat, sizeof(stat), f))
		state = strrchr(stat, ')')[2];
	fclose(f);
	return state != 'Z';
}

/* Its children are ended with it; one that ignores SIGTERM is killed. */
Test(hooks_exec, time_is_limited)
{
	struct box b;

	box_init(&b);
	open_exec(&b, "echo $$ >@/pid; sleep 1000 & echo $! >@/child; wait",
		  ", \"timeout_ms\": 1000, \"attempts\": 1");
	box_emit(&b, "migration.setup", "one", 1);
	box_until(&b, box_count(&b).dead == 1);
	cr_expect(not(alive(&b, "pid")));
	box_until(&b, !alive(&b, "child"));
	box_close(&b);
	open_exec(&b, "trap '' TERM; echo $$ >@/pid; while :; do sleep 0.05; done",
		  ", \"timeout_ms\": 1000, \"attempts\": 1");
	box_emit(&b, "migration.setup", "one", 1);
	box_until(&b, box_count(&b).dead == 1);
	cr_expect(not(alive(&b, "pid")));
	box_free(&b);
}

/* The agent ends: what runs is ended, too, and is run again by the next life. */
Test(hooks_exec, the_agents_end_ends_them)
{
	char path[128];
	struct box b;

	box_init(&b);
	snprintf(path, sizeof(path), "%s/pid", b.dir);
	open_exec(&b, "echo $$ >@/pid.new; mv @/pid.new @/pid; sleep 1000", "");
	box_emit(&b, "migration.setup", "one", 1);
	box_until(&b, access(path, F_OK) == 0);
	box_close(&b);
	box_until(&b, !alive(&b, "pid"));
	cr_expect(eq(uint, box_spooled(&b), 1));
	box_free(&b);
}

Test(hooks_exec, their_number_is_bounded)
{
	char conf[512], *text;
	const char *path;
	struct box b;
	int n = 0;

	box_init(&b);
	path = script(&b, "hook", "echo + >>@/runs; sleep 0.2; echo - >>@/runs");
	n = snprintf(conf, sizeof(conf), "[");
	for (int i = 0; i < 4; i++)
		n += snprintf(conf + n, sizeof(conf) - (size_t)n, "%s{\"exec\": [\"%s\"]}",
			      i ? ", " : "", path);
	snprintf(conf + n, sizeof(conf) - (size_t)n, "]");
	box_open(&b, conf);
	for (int i = 0; i < 8; i++) {
		char job[16];

		snprintf(job, sizeof(job), "%d", i);
		box_emit(&b, "migration.setup", job, i);
	}
	box_until(&b, box_count(&b).delivered == 8);
	box_run_ms(&b, 100);
	{
		struct hooks_count c[4];
		int running = 0, most = 0;

		hooks_counts(b.hooks, c, 4);
		text = read_text(&b, "runs");
		for (const char *p = text; *p; p++) {
			running += *p == '+' ? 1 : *p == '-' ? -1 : 0;
			most = running > most ? running : most;
		}
		cr_expect(le(int, most, HOOKS_EXECS_MAX));
		cr_expect(gt(int, most, 2));
		free(text);
	}
	box_until(&b, ({
		struct hooks_count c[4];
		uint64_t sum = 0;

		hooks_counts(b.hooks, c, 4);
		for (int i = 0; i < 4; i++)
			sum += c[i].delivered;
		sum == 32;
	}));
	box_free(&b);
}
