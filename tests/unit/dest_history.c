/* SPDX-License-Identifier: Apache-2.0 */
/* What the records say, to whom, and what a new life of the agent makes of them. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <sys/wait.h>
#include "history.h"
#include "proc.h"
#include "util/fdio.h"
#include "util/journal.h"
#include "util/journal_sync.h"
#include "util/log.h"

static void quiet(void)
{
	/* What is refused is logged as an error: expected here. */
	setlogmask(LOG_UPTO(LOG_CRIT));
}

TestSuite(dest_history, .init = quiet, .timeout = 60);

#define ID     "11111111-1111-4111-8111-111111111111"
#define SOURCE "DNS:host-a, IP:192.0.2.1"

/** struct box - a state folder and the history in it, and an agent's loop, which runs in settled() alone */
struct box {
	struct loop *loop;
	struct journal_syncer *journals;
	struct history *h;
	struct error err;
	char dir[64];
};

/* What was written is on the disk, and who waits for it knows. */
static void settled(struct box *b, const struct past *p)
{
	while (history_pending(p))
		cr_assert(zero(int, event_base_loop(loop_base(b->loop), EVLOOP_ONCE)));
}

static void box_open(struct box *b)
{
	error_clear(&b->err);
	b->loop = loop_new();
	cr_assert(ne(ptr, b->loop, NULL));
	b->journals = journal_syncer_new(b->loop);
	cr_assert(ne(ptr, b->journals, NULL));
	cr_assert(zero(int, history_open(b->dir, b->journals, &b->h, &b->err)), "%s", b->err.msg);
	for (const struct past *p = history_first(b->h); p; p = p->next)
		settled(b, p);
}

static void box_close(struct box *b)
{
	history_close(b->h);
	journal_syncer_free(b->journals);
	loop_free(b->loop);
}

static void box_init(struct box *b)
{
	memset(b, 0, sizeof(*b));
	strcpy(b->dir, "/tmp/decant-history-XXXXXX");
	cr_assert(ne(ptr, mkdtemp(b->dir), NULL));
	box_open(b);
}

/* A new life of the agent. */
static void box_again(struct box *b)
{
	box_close(b);
	box_open(b);
}

static void box_free(struct box *b)
{
	char cmd[128];

	box_close(b);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", b->dir);
	cr_assert(zero(int, system(cmd)));
}

static json_t *facts(const char *id, json_int_t created)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:{s:s}, s:I}", "id", id,
			 "identity", SOURCE, "from", "192.0.2.1:1", "guest", "web", "uuid",
			 "22222222-2222-4222-8222-222222222222", "generation", 4, "driver",
			 "native", "launcher", "stamp", "vars", "k", "v", "created", created);
}

static struct past *begin_id(struct box *b, const char *id, json_int_t created)
{
	json_t *f = facts(id, created);
	struct past *p = NULL;

	cr_assert(zero(int, history_begin(b->h, f, NULL, &p, &b->err)), "%s", b->err.msg);
	json_decref(f);
	return p;
}

static struct past *begin(struct box *b)
{
	return begin_id(b, ID, 1000);
}

static void note(struct box *b, struct past *p, enum history_fate fate, bool sync)
{
	cr_assert(zero(int, history_note(p, fate, NULL, sync ? HISTORY_APART : HISTORY_LATER, NULL,
					 &b->err)),
		  "%s", b->err.msg);
	if (sync)
		settled(b, p);
}

static enum msg_answer answer(struct box *b)
{
	struct past *p = history_find(b->h, ID);

	return p ? history_answer(p, SOURCE, 4) : MSG_ANSWER_UNKNOWN;
}

Test(dest_history, facts_survive)
{
	struct box b;
	struct past *p;

	box_init(&b);
	p = begin(&b);
	cr_assert(p->live);
	note(&b, p, HISTORY_MAY_OWN, true);
	note(&b, p, HISTORY_OWNER, false);
	history_sync(p);
	box_again(&b);
	p = history_find(b.h, ID);
	cr_assert(ne(ptr, p, NULL));
	cr_assert(eq(str, p->name, "web"));
	cr_assert(eq(str, p->identity, SOURCE));
	cr_assert(eq(u64, p->generation, 4));
	cr_assert(eq(u8, p->uuid[0], 0x22));
	cr_assert(p->same_boot);
	cr_assert(not(p->live));
	cr_assert(eq(
		str,
		(char *)json_string_value(json_object_get(json_object_get(p->facts, "vars"), "k")),
		"v"));
	cr_assert(eq(ptr, history_find_guest(b.h, p->uuid, 4), p));
	cr_assert(eq(ptr, history_find_guest(b.h, p->uuid, 3), NULL));
	box_free(&b);
}

/* What was not owned when the agent ended never will be; only that is a no. */
Test(dest_history, unfinished_is_aborted)
{
	struct box b;

	box_init(&b);
	begin(&b);
	box_again(&b);
	cr_assert(eq(int, answer(&b), MSG_ANSWER_NOT_STARTED));
	cr_assert(history_ended(history_find(b.h, ID)));
	box_free(&b);

	box_init(&b);
	note(&b, begin(&b), HISTORY_MAY_OWN, true);
	cr_assert(eq(int, answer(&b), MSG_ANSWER_UNKNOWN), "not before the record");
	box_again(&b);
	cr_assert(eq(int, answer(&b), MSG_ANSWER_NOT_STARTED));
	box_again(&b);
	cr_assert(eq(int, answer(&b), MSG_ANSWER_NOT_STARTED), "and it is on the disk");
	box_free(&b);
}

/* Which process is to be ended is known beyond the end of the agent; "owner" has another one to tell of. */
Test(dest_history, what_was_launched_is_known)
{
	struct past *p;
	struct box b;

	box_init(&b);
	p = begin(&b);
	cr_assert(zero(int, history_launched(p, getpid(), &b.err)), "%s", b.err.msg);
	cr_assert(eq(int, (int)p->fate, HISTORY_SETUP));
	note(&b, p, HISTORY_MAY_OWN, true);
	box_again(&b);
	p = history_find(b.h, ID);
	cr_assert(eq(int, (int)p->fate, HISTORY_ABORTED));
	cr_assert(eq(int, p->pid, getpid()));
	cr_assert(proc_lives(p->pid, p->pid_start));
	box_free(&b);
}

static void killed_after(struct box *b, enum history_fate fate)
{
	pid_t pid;

	box_init(b);
	box_close(b);
	pid = fork();
	if (!pid) {
		struct past *p;

		box_open(b);
		p = begin(b);
		note(b, p, HISTORY_MAY_OWN, true);
		if (fate >= HISTORY_OWNER)
			note(b, p, HISTORY_OWNER, false);
		if (fate == HISTORY_COMPLETED)
			note(b, p, HISTORY_COMPLETED, true);
		kill(getpid(), SIGKILL);
	}
	waitpid(pid, NULL, 0);
	box_open(b);
}

Test(dest_history, killed)
{
	struct box b;

	killed_after(&b, HISTORY_MAY_OWN);
	cr_assert(eq(int, answer(&b), MSG_ANSWER_NOT_STARTED));
	box_free(&b);
	killed_after(&b, HISTORY_OWNER);
	cr_assert(eq(int, answer(&b), MSG_ANSWER_RUNNING));
	cr_assert(not(history_ended(history_find(b.h, ID))));
	box_free(&b);
	killed_after(&b, HISTORY_COMPLETED);
	cr_assert(eq(int, answer(&b), MSG_ANSWER_COMPLETED));
	cr_assert(not(history_ended(history_find(b.h, ID))), "it is still to be registered");
	box_free(&b);
}

/* The last record, as another boot would have left it. */
static void of_another_boot(struct box *b, const char *const *records, size_t n)
{
	char path[128];
	struct journal *j;

	box_init(b);
	box_close(b);
	snprintf(path, sizeof(path), "%s/incoming/%s.journal", b->dir, ID);
	cr_assert(zero(int, journal_open(path, &j, NULL, &b->err)));
	for (size_t i = 0; i < n; i++) {
		json_t *rec = i ? json_object() : facts(ID, 1000);

		json_object_set_new(rec, "record", json_string(records[i]));
		json_object_set_new(rec, "boot",
				    json_string("33333333-3333-4333-8333-333333333333"));
		cr_assert(zero(int, journal_append(j, rec, &b->err)));
		json_decref(rec);
	}
	journal_close(j);
	box_open(b);
}

/* "owner" may have been written and lost with the host: neither a no nor a yes. */
Test(dest_history, another_boot)
{
	static const char *const records[] = {"setup", "may-own", "owner", "completed"};
	struct box b;

	of_another_boot(&b, records, 2);
	cr_assert(eq(int, answer(&b), MSG_ANSWER_UNKNOWN));
	box_again(&b);
	cr_assert(eq(int, answer(&b), MSG_ANSWER_UNKNOWN), "nor did it become one");
	box_free(&b);
	of_another_boot(&b, records, 3);
	cr_assert(eq(int, answer(&b), MSG_ANSWER_UNKNOWN));
	cr_assert(eq(ptr, history_find_guest(b.h, history_find(b.h, ID)->uuid, 4), NULL));
	box_free(&b);
	of_another_boot(&b, records, 4);
	cr_assert(eq(int, answer(&b), MSG_ANSWER_COMPLETED));
	box_free(&b);
	of_another_boot(&b, (const char *const[]){"setup", "may-own", "aborted"}, 3);
	cr_assert(eq(int, answer(&b), MSG_ANSWER_NOT_STARTED));
	box_free(&b);
}

Test(dest_history, only_the_source_is_answered)
{
	struct box b;
	struct past *p;

	box_init(&b);
	p = begin(&b);
	note(&b, p, HISTORY_MAY_OWN, true);
	note(&b, p, HISTORY_ABORTED, true);
	cr_assert(eq(int, history_answer(p, SOURCE, 4), MSG_ANSWER_NOT_STARTED));
	cr_assert(eq(int, history_answer(p, "DNS:host-a", 4), MSG_ANSWER_UNKNOWN));
	cr_assert(eq(int, history_answer(p, SOURCE, 5), MSG_ANSWER_UNKNOWN));
	box_free(&b);
}

/* A record that cannot be read is neither a no nor lost, and hurts no other. */
Test(dest_history, damaged_record)
{
	struct box b;
	struct past *p;
	char path[128];
	int fd;

	box_init(&b);
	p = begin(&b);
	note(&b, p, HISTORY_MAY_OWN, true);
	begin_id(&b, "44444444-4444-4444-8444-444444444444", 2000);
	box_close(&b);
	snprintf(path, sizeof(path), "%s/incoming/%s.journal", b.dir, ID);
	fd = open(path, O_RDWR);
	cr_assert(eq(long, pwrite(fd, "X", 1, 30), 1));
	close(fd);
	box_open(&b);
	cr_assert(eq(int, answer(&b), MSG_ANSWER_UNKNOWN));
	cr_assert(zero(int, access(path, F_OK)));
	cr_assert(ne(ptr, history_find(b.h, "44444444-4444-4444-8444-444444444444"), NULL));
	/* Nor can its id be begun again over it. */
	{
		json_t *f = facts(ID, 1);

		cr_assert(eq(int, history_begin(b.h, f, NULL, &p, &b.err), -EEXIST));
		json_decref(f);
	}
	box_free(&b);
}

Test(dest_history, no_id_twice)
{
	struct box b;
	struct past *p;
	json_t *f = facts(ID, 1);

	box_init(&b);
	begin(&b);
	cr_assert(eq(int, history_begin(b.h, f, NULL, &p, &b.err), -EEXIST));
	cr_assert(eq(str, b.err.code, "migration-exists"));
	json_decref(f);
	box_free(&b);
}

Test(dest_history, registered)
{
	struct box b;
	struct past *p;

	box_init(&b);
	p = begin(&b);
	note(&b, p, HISTORY_MAY_OWN, true);
	note(&b, p, HISTORY_OWNER, false);
	note(&b, p, HISTORY_COMPLETED, true);
	cr_assert(zero(int, history_registered(p, &b.err)));
	box_again(&b);
	p = history_find(b.h, ID);
	cr_assert(eq(int, p->fate, HISTORY_COMPLETED));
	cr_assert(p->registered);
	cr_assert(history_ended(p));
	box_free(&b);
}

/* The newest thousand ended ones stay; one that is held stays however old it is. */
Test(dest_history, old_ones_go)
{
	struct box b;
	struct past *p;
	unsigned int n = 0;

	box_init(&b);
	p = begin(&b);
	note(&b, p, HISTORY_MAY_OWN, true);
	note(&b, p, HISTORY_OWNER, false);
	history_end(b.h, p, NULL);
	for (unsigned int i = 0; i < HISTORY_MAX + 20; i++) {
		char id[UUID_TEXT_MAX];

		p = begin_id(&b, fdio_uuid4(id), 2000 + i);
		note(&b, p, HISTORY_ABORTED, false);
		history_end(b.h, p, NULL);
	}
	for (p = history_first(b.h); p; p = p->next)
		n++;
	cr_assert(eq(uint, n, HISTORY_MAX + 1));
	cr_assert(eq(int,
		     (int)json_integer_value(json_object_get(history_first(b.h)->facts, "created")),
		     2000 + HISTORY_MAX + 19));
	cr_assert(eq(int, answer(&b), MSG_ANSWER_RUNNING));
	box_again(&b);
	for (n = 0, p = history_first(b.h); p; p = p->next)
		n++;
	cr_assert(eq(uint, n, HISTORY_MAX + 1), "their files, too");
	box_free(&b);
}

/* What a later life needs of a guest that runs: until nothing more can become of it. */
Test(dest_history, the_place_is_kept_while_it_is_needed)
{
	json_t *place = json_pack("{s:{s:i}}", "place", "version", 1);
	json_t *owner = json_pack("{s:i, s:i, s:i, s:b}", "pid", 10, "pid_start", 20, "pass", 3,
				  "listened", 1);
	struct box b;
	struct past *p;

	box_init(&b);
	p = begin(&b);
	cr_assert(zero(int, history_note(p, HISTORY_MAY_OWN, place, HISTORY_APART, NULL, &b.err)));
	cr_assert(zero(ptr, p->place), "a life that has the guest needs no copy");
	cr_assert(zero(int, history_note(p, HISTORY_OWNER, owner, HISTORY_APART, NULL, &b.err)));
	json_decref(place);
	json_decref(owner);
	box_again(&b);
	p = history_find(b.h, ID);
	cr_assert(eq(int, p->fate, HISTORY_OWNER));
	cr_assert(eq(i64, json_integer_value(json_object_get(p->place, "version")), 1));
	cr_assert(eq(u32, p->pass, 3));
	cr_assert(p->listened);
	note(&b, p, HISTORY_GONE, true);
	history_end(b.h, p, NULL);
	cr_assert(zero(ptr, p->place));
	box_free(&b);
}

static void count(struct journal_wait *w, int ret, const struct error *err)
{
	(void)err;
	*(int *)w->arg += ret ? 100 : 1;
}

/* A fate that is not on the disk yet is told to nobody; who waits for it is told once. */
Test(dest_history, what_is_not_on_the_disk_is_not_told)
{
	int told = 0, asked = 0;
	struct journal_wait w = {.fn = count, .arg = &told}, q = {.fn = count, .arg = &asked};
	struct box b;
	struct past *p;

	box_init(&b);
	p = begin(&b);
	cr_assert(history_pending(p));
	note(&b, p, HISTORY_MAY_OWN, true);
	cr_assert(zero(int, history_note(p, HISTORY_ABORTED, NULL, HISTORY_APART, &w, &b.err)));
	cr_assert(eq(int, answer(&b), MSG_ANSWER_UNKNOWN));
	cr_assert(history_pending(p));
	history_await(p, &q);
	/* Its journal is closed behind that, not before. */
	history_end(b.h, p, NULL);
	cr_assert(ne(ptr, p->journal, NULL));
	while (!asked)
		cr_assert(zero(int, event_base_loop(loop_base(b.loop), EVLOOP_ONCE)));
	cr_assert(eq(int, told, 1));
	cr_assert(eq(int, asked, 1));
	cr_assert(eq(int, answer(&b), MSG_ANSWER_NOT_STARTED));
	cr_assert(zero(ptr, p->journal));
	box_free(&b);
}
