/* SPDX-License-Identifier: Apache-2.0 */
/* Records that a thread syncs: who is told, when, and what closing, failing and ending make of it. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/journal_sync.h"
#include "util/log.h"

static void quiet(void)
{
	log_setup("crit");
}

TestSuite(journal_sync, .init = quiet, .timeout = 60);

/** struct box - an agent's loop, and journals in a folder */
struct box {
	struct loop *loop;
	struct journal_syncer *s;
	struct error err;
	char dir[64];
	char path[96];
};

/** struct ear - who waits; @told: how often, @ret: of the last time, @nr: the how manieth of all ears */
struct ear {
	struct journal_wait w;
	int told;
	int ret;
	int nr;
};

static void box_init(struct box *b)
{
	memset(b, 0, sizeof(*b));
	strcpy(b->dir, "/tmp/decant-sync-XXXXXX");
	cr_assert(ne(ptr, mkdtemp(b->dir), NULL));
	snprintf(b->path, sizeof(b->path), "%s/j", b->dir);
	b->loop = loop_new();
	b->s = journal_syncer_new(b->loop);
	cr_assert(b->loop && b->s);
}

static void box_free(struct box *b)
{
	char cmd[128];

	journal_syncer_free(b->s);
	loop_free(b->loop);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", b->dir);
	cr_assert(zero(int, system(cmd)));
}

static struct journal *create(struct box *b, const char *path)
{
	struct journal *j = NULL;

	cr_assert(zero(int, journal_create(path, &j, &b->err)), "%s", b->err.msg);
	cr_assert(zero(int, journal_sync_by(j, b->s, &b->err)), "%s", b->err.msg);
	return j;
}

static void hear(struct journal_wait *w, int ret, const struct error *err)
{
	static int nr; /* of a test, which is a process */
	struct ear *e = w->arg;

	cr_assert(not(journal_waiting(w)));
	cr_assert(eq(int, ret < 0, error_is_set(err)));
	e->told++;
	e->ret = ret;
	e->nr = ++nr;
}

static struct journal_wait *ear(struct ear *e)
{
	*e = (struct ear){.w = {.fn = hear, .arg = e}};
	return &e->w;
}

static int append(struct box *b, struct journal *j, int i, struct journal_wait *w)
{
	json_t *rec = json_pack("{s:i}", "i", i);
	int r;

	error_clear(&b->err);
	r = journal_append_apart(j, rec, w, &b->err);
	json_decref(rec);
	return r;
}

static void turn(struct box *b)
{
	cr_assert(zero(int, event_base_loop(loop_base(b->loop), EVLOOP_ONCE)));
}

static size_t records(struct box *b, const char *path)
{
	json_t *recs = NULL;
	struct journal *j;
	size_t n;

	cr_assert(zero(int, journal_open(path, &j, &recs, &b->err)), "%s", b->err.msg);
	n = json_array_size(recs);
	json_decref(recs);
	journal_close(j);
	return n;
}

/* Never from within the call, once each, in the order of the calls. */
Test(journal_sync, told_in_order)
{
	struct ear e[3];
	struct journal *j;
	struct box b;

	box_init(&b);
	j = create(&b, b.path);
	for (int i = 0; i < 3; i++)
		cr_assert(zero(int, append(&b, j, i, ear(&e[i]))));
	for (int i = 0; i < 3; i++)
		cr_assert(journal_waiting(&e[i].w) && !e[i].told);
	while (!e[2].told)
		turn(&b);
	for (int i = 0; i < 3; i++) {
		cr_assert(eq(int, e[i].told, 1));
		cr_assert(zero(int, e[i].ret));
		cr_assert(eq(int, e[i].nr, i + 1));
	}
	journal_close(j);
	cr_assert(eq(sz, records(&b, b.path), 3));
	box_free(&b);
}

/* What was asked last counts: of the one before nothing is heard. */
Test(journal_sync, another_wait_takes_its_place)
{
	struct ear e, gone;
	struct journal *j;
	struct box b;

	box_init(&b);
	j = create(&b, b.path);
	cr_assert(zero(int, append(&b, j, 1, ear(&gone))));
	journal_wait_cancel(&gone.w);
	cr_assert(zero(int, append(&b, j, 2, ear(&e))));
	cr_assert(zero(int, append(&b, j, 3, &e.w)));
	while (!e.told)
		turn(&b);
	cr_assert(zero(int, gone.told));
	cr_assert(eq(int, e.told, 1));
	journal_close(j);
	box_free(&b);
}

/* It can be closed, and opened by the next, while its last record is being synced. */
Test(journal_sync, closed_meanwhile)
{
	struct journal *j;
	struct ear e;
	struct box b;

	box_init(&b);
	for (int i = 0; i < 50; i++) {
		j = i ? NULL : create(&b, b.path);
		if (i) {
			cr_assert(zero(int, journal_open(b.path, &j, NULL, &b.err)), "%s",
				  b.err.msg);
			cr_assert(zero(int, journal_sync_by(j, b.s, &b.err)));
		}
		cr_assert(zero(int, append(&b, j, i, ear(&e))));
		journal_close(j);
		cr_assert(not(journal_waiting(&e.w)));
	}
	journal_syncer_drain(b.s);
	cr_assert(zero(int, e.told));
	cr_assert(eq(sz, records(&b, b.path), 50));
	box_free(&b);
}

/* One that is told may close the journal, and with it go all others that wait. */
static void shut(struct journal_wait *w, int ret, const struct error *err)
{
	struct journal **j = w->arg;

	(void)ret;
	(void)err;
	journal_close(*j);
	*j = NULL;
}

Test(journal_sync, closed_by_who_is_told)
{
	struct journal *j;
	struct journal_wait w = {.fn = shut, .arg = &j};
	struct ear e;
	struct box b;

	box_init(&b);
	j = create(&b, b.path);
	cr_assert(zero(int, append(&b, j, 1, &w)));
	cr_assert(zero(int, append(&b, j, 2, ear(&e))));
	while (j)
		turn(&b);
	journal_syncer_drain(b.s);
	cr_assert(zero(int, e.told));
	cr_assert(eq(sz, records(&b, b.path), 2));
	box_free(&b);
}

/* Far more than there are threads, and more than may wait for one: each is told all the same. */
Test(journal_sync, many)
{
	enum { N = JOURNAL_SYNC_QUEUE + 100 };
	static struct ear e[N];
	static struct journal *j[N];
	struct rlimit files = {2 * N + 100, 2 * N + 100};
	struct box b;

	cr_assert(zero(int, setrlimit(RLIMIT_NOFILE, &files)));
	box_init(&b);
	for (int i = 0; i < N; i++) {
		char path[128];

		snprintf(path, sizeof(path), "%s/%d", b.dir, i);
		j[i] = create(&b, path);
		cr_assert(zero(int, append(&b, j[i], i, ear(&e[i]))));
		cr_assert(zero(int, e[i].told), "from within the call");
	}
	for (int i = 0; i < N; i++) {
		while (!e[i].told)
			turn(&b);
		cr_assert(zero(int, e[i].ret));
		journal_close(j[i]);
	}
	box_free(&b);
}

/* Its folder cannot be synced, as it is gone: who waits hears that, and the journal takes nothing any more. */
Test(journal_sync, failed)
{
	char other[128], away[128];
	struct journal *j;
	struct ear e, f;
	struct box b;

	box_init(&b);
	snprintf(other, sizeof(other), "%s/sub", b.dir);
	snprintf(away, sizeof(away), "%s/away", b.dir);
	cr_assert(zero(int, mkdir(other, 0700)));
	strcat(other, "/j");
	j = create(&b, other);
	*strrchr(other, '/') = 0;
	cr_assert(zero(int, rename(other, away)));
	cr_assert(zero(int, append(&b, j, 1, ear(&e))));
	cr_assert(zero(int, append(&b, j, 2, ear(&f))));
	while (!f.told)
		turn(&b);
	cr_assert(eq(int, e.told, 1));
	cr_assert(eq(int, e.ret, -ENOENT));
	cr_assert(eq(int, f.ret, -ENOENT));
	cr_assert(lt(int, append(&b, j, 3, ear(&e)), 0));
	cr_assert(not(journal_waiting(&e.w)));
	journal_close(j);
	strcat(away, "/j");
	cr_assert(eq(sz, records(&b, away), 1), "the last one was taken back");
	box_free(&b);
}

/* An agent that ends has its records on the disk, and tells nobody. */
Test(journal_sync, drained)
{
	struct journal *j;
	struct ear e;
	struct box b;

	box_init(&b);
	j = create(&b, b.path);
	for (int i = 0; i < 3; i++)
		cr_assert(zero(int, append(&b, j, i, i ? NULL : ear(&e))));
	journal_syncer_drain(b.s);
	cr_assert(zero(int, e.told));
	journal_close(j);
	cr_assert(eq(sz, records(&b, b.path), 3));
	box_free(&b);
}
