/* SPDX-License-Identifier: Apache-2.0 */
/* Hooks on a loop of their own, with a folder and a server. */
#ifndef DECANT_TESTS_HOOKS_FIXTURE_H
#define DECANT_TESTS_HOOKS_FIXTURE_H

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>
#include "hooks/hooks.h"
#include "lib/hook_server.h"
#include "lib/tls_pki.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"

/**
 * struct box - one test's world
 * @stall_us:	longest time between two turns of the loop while box_until() ran
 */
struct box {
	struct loop *loop;
	struct conf_hooks conf;
	struct hooks *hooks;
	struct hook_server *server;
	struct error err;
	char dir[64];
	uint64_t stall_us;
};

static inline bool has(const char *s, const char *word)
{
	return s && strstr(s, word);
}

/* What fails here is warned of: expected. */
static inline void box_quiet(void)
{
	setlogmask(LOG_UPTO(LOG_CRIT));
}

static inline void box_init(struct box *b)
{
	memset(b, 0, sizeof(*b));
	strcpy(b->dir, "/tmp/decant-hooks-XXXXXX");
	cr_assert(ne(ptr, mkdtemp(b->dir), NULL));
	b->loop = loop_new();
	b->server = hook_server_start(NULL, NULL);
	cr_assert(ne(ptr, b->server, NULL));
}

/* A life of the agent with these hooks; "%s" stands for the server. */
static inline int box_try(struct box *b, const char *hooks)
{
	struct jsonx_at at = {"hooks", "bad-config", &b->err};
	char url[64], text[4096], *out = text;
	json_t *json;
	int r;

	snprintf(url, sizeof(url), "http://127.0.0.1:%u", hook_server_port(b->server));
	for (const char *p = hooks; *p; p++)
		if (p[0] == '%' && p[1] == 's') {
			out += sprintf(out, "%s", url);
			p++;
		} else {
			*out++ = *p;
		}
	*out = '\0';
	json = json_loads(text, 0, NULL);
	cr_assert(ne(ptr, json, NULL), "%s", text);
	r = conf_hooks_read(json, &at, true, &b->conf);
	json_decref(json);
	return r ? r : hooks_new(b->loop, &b->conf, "source", b->dir, &b->hooks, &b->err);
}

static inline void box_open(struct box *b, const char *hooks)
{
	cr_assert(zero(int, box_try(b, hooks)), "%s", b->err.msg);
}

/* The end of that life. */
static inline void box_close(struct box *b)
{
	hooks_free(steal_ptr(&b->hooks));
	conf_hooks_clear(&b->conf);
}

static inline void box_free(struct box *b)
{
	box_close(b);
	hook_server_stop(b->server);
	loop_free(b->loop);
	tls_pki_remove(b->dir);
}

static inline void box_tick(void *arg)
{
	loop_stop(arg);
}

/* One turn of the loop of 5 ms at most. */
static inline void box_turn(struct box *b)
{
	uint64_t start = clock_us(), us;
	struct event *ev = loop_timer(b->loop, 5000, box_tick, b->loop);

	loop_run(b->loop);
	event_free(ev);
	us = clock_us() - start;
	b->stall_us = us > b->stall_us ? us : b->stall_us;
}

/* Run the loop until @cond holds. */
#define box_until(b, cond)                                               \
	do {                                                             \
		uint64_t end_ = clock_us() + 20000000;                   \
		while (!(cond)) {                                        \
			cr_assert(clock_us() < end_, "in time: " #cond); \
			box_turn(b);                                     \
		}                                                        \
	} while (0)

static inline void box_run_ms(struct box *b, unsigned int ms)
{
	uint64_t end = clock_us() + ms * 1000ull;

	while (clock_us() < end)
		box_turn(b);
}

/* Of the first hook. */
static inline struct hooks_count box_count(struct box *b)
{
	struct hooks_count c = {0};

	hooks_counts(b->hooks, &c, 1);
	return c;
}

static inline void box_emit(struct box *b, const char *type, const char *job, int n)
{
	hooks_emit(b->hooks, type, job, json_pack("{s:i}", "n", n));
}

/* Return: lines of the file of dead letters; the text in @ret, for free(3), may be NULL */
static inline unsigned int box_dead(struct box *b, char **ret)
{
	char path[128], *text = NULL;
	unsigned int n = 0;

	snprintf(path, sizeof(path), "%s/hooks/source.dead", b->dir);
	if (fdio_read_file(path, 64u << 20, &text) < 0)
		text = NULL;
	for (const char *p = text; p && (p = strchr(p, '\n')); p++)
		n++;
	if (ret)
		*ret = text;
	else
		free(text);
	return n;
}

/* Return: files that wait for the next life */
static inline unsigned int box_spooled(struct box *b)
{
	char cmd[128], line[32] = "";
	FILE *p;

	snprintf(cmd, sizeof(cmd), "find %s/hooks -name '*.json' | wc -l", b->dir);
	p = popen(cmd, "r");
	cr_assert(ne(ptr, fgets(line, sizeof(line), p), NULL));
	pclose(p);
	return (unsigned int)atoi(line);
}

/* The n of the event of request @i, -1 if there is none. */
static inline int box_n(struct box *b, size_t i)
{
	const struct hook_request *q = hook_server_get(b->server, i);
	json_t *data = q ? json_object_get(q->json, "data") : NULL;

	return data ? (int)json_integer_value(json_object_get(data, "n")) : -1;
}

#endif
