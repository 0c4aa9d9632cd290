/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "util/fdio.h"
#include "util/journal.h"

/**
 * struct box - a folder with a journal in it
 * @dir, @path:	the folder, the journal
 * @err:	of the last call
 */
struct box {
	char dir[64];
	char path[96];
	struct error err;
};

static void box_init(struct box *b)
{
	const char *tmp = getenv("TMPDIR");

	*b = (struct box){0};
	snprintf(b->dir, sizeof(b->dir), "%s/journal-XXXXXX", tmp ? tmp : "/tmp");
	cr_assert(ne(ptr, mkdtemp(b->dir), NULL));
	snprintf(b->path, sizeof(b->path), "%s/j", b->dir);
}

static void box_remove(struct box *b)
{
	unlink(b->path);
	cr_assert(zero(int, rmdir(b->dir)));
}

static struct journal *box_open(struct box *b, json_t **ret_records)
{
	struct journal *j = NULL;

	error_clear(&b->err);
	cr_assert(zero(int, journal_open(b->path, &j, ret_records, &b->err)), "%s", b->err.msg);
	return j;
}

static void append(struct box *b, struct journal *j, int n)
{
	json_t *rec = json_pack("{s:i, s:s}", "n", n, "text", "two\nlines, \xc3\xa4");

	cr_assert(zero(int, journal_append(j, rec, &b->err)), "%s", b->err.msg);
	json_decref(rec);
}

/* A journal of @n records, closed. Return: its size in bytes */
static size_t box_fill(struct box *b, int n)
{
	struct journal *j = box_open(b, NULL);
	struct stat st;

	for (int i = 0; i < n; i++)
		append(b, j, i);
	journal_close(j);
	cr_assert(zero(int, stat(b->path, &st)));
	return (size_t)st.st_size;
}

/* Exactly the records 0 to @n - 1 are there. */
static void check_records(const json_t *records, int n)
{
	cr_assert(eq(sz, json_array_size(records), (size_t)n));
	for (int i = 0; i < n; i++) {
		json_t *r = json_array_get(records, (size_t)i);

		cr_assert(eq(int, (int)json_integer_value(json_object_get(r, "n")), i));
		cr_assert(eq(str, (char *)json_string_value(json_object_get(r, "text")),
			     "two\nlines, \xc3\xa4"));
	}
}

static void poke(struct box *b, size_t off, const void *p, size_t n)
{
	int fd = open(b->path, O_RDWR);

	cr_assert(zero(int, fdio_pwrite_full(fd, p, n, off)));
	close(fd);
}

static char *slurp(struct box *b, size_t *ret_len)
{
	char *text;
	ssize_t n = fdio_read_file(b->path, 1 << 20, &text);

	cr_assert(ge(long, n, 0));
	*ret_len = (size_t)n;
	return text;
}

/* What hangs is ended by a signal. (Criterion's own timeouts leak, which LeakSanitizer reports.) */
static void watchdog(void)
{
	alarm(60);
}

TestSuite(journal, .init = watchdog);

Test(journal, records_survive_in_order)
{
	json_t *records;
	struct journal *j;
	struct stat st;
	struct box b;

	box_init(&b);
	j = box_open(&b, &records);
	check_records(records, 0);
	json_decref(records);
	cr_assert(zero(int, stat(b.path, &st)));
	cr_assert(eq(int, st.st_mode & 07777, 0600));
	append(&b, j, 0);
	append(&b, j, 1);
	journal_close(j);
	j = box_open(&b, &records);
	check_records(records, 2);
	json_decref(records);
	append(&b, j, 2);
	journal_close(j);
	j = box_open(&b, &records);
	check_records(records, 3);
	json_decref(records);
	journal_close(j);
	journal_close(NULL);
	box_remove(&b);
}

/* The format is a contract with earlier and later versions. */
Test(journal, format)
{
	struct box b;
	struct journal *j;
	json_t *rec = json_pack("{s:s, s:[i,b]}", "type", "may-own", "x", 7, 1);
	char *text;
	size_t n;

	box_init(&b);
	j = box_open(&b, NULL);
	cr_assert(zero(int, journal_append(j, rec, &b.err)));
	journal_close(j);
	text = slurp(&b, &n);
	cr_assert(eq(str, text, "82eaddb631678b2a {\"type\":\"may-own\",\"x\":[7,true]}\n"));
	free(text);
	json_decref(rec);
	box_remove(&b);
}

/* A crash can cut the last line at any byte; all lines before it stay, and it goes on behind them. */
Test(journal, torn_at_each_byte)
{
	json_t *records;
	struct journal *j;
	size_t two, three, len;
	struct box b;

	box_init(&b);
	two = box_fill(&b, 2);
	for (size_t cut = two;; cut++) {
		unlink(b.path);
		three = box_fill(&b, 3);
		if (cut >= three)
			break;
		cr_assert(zero(int, truncate(b.path, (off_t)cut)));
		j = box_open(&b, &records);
		check_records(records, 2);
		json_decref(records);
		free(slurp(&b, &len));
		cr_assert(eq(sz, len, two));
		append(&b, j, 2);
		journal_close(j);
		j = box_open(&b, &records);
		check_records(records, 3);
		json_decref(records);
		journal_close(j);
	}
	cr_assert(gt(sz, three, two + 17));
	box_remove(&b);
}

/* The file grew, but a part of the last line, from any byte on, never reached the disk. */
Test(journal, last_line_with_unwritten_parts)
{
	static const char zeros[512];
	json_t *records;
	struct journal *j;
	size_t two, three;
	struct box b;

	box_init(&b);
	two = box_fill(&b, 2);
	for (int with_newline = 0; with_newline < 2; with_newline++) {
		for (size_t from = two;; from++) {
			unlink(b.path);
			three = box_fill(&b, 3);
			if (from >= three - 1)
				break;
			poke(&b, from, zeros, three - from - (size_t)with_newline);
			j = box_open(&b, &records);
			check_records(records, 2);
			json_decref(records);
			journal_close(j);
		}
	}
	box_remove(&b);
}

/*
 * Any altered byte of any line, also of the last, is an error; nothing is cut off then. Only
 * the last newline is different: without it the line is a torn one.
 */
Test(journal, altered_at_each_byte)
{
	size_t size, len;
	struct box b;
	char *good, *text, c;

	box_init(&b);
	size = box_fill(&b, 3);
	good = slurp(&b, &len);
	for (size_t i = 0; i < size - 1; i++) {
		struct journal *j = (void *)&b;
		json_t *records = (void *)&b;

		c = (char)(good[i] ^ 1);
		poke(&b, i, &c, 1);
		error_clear(&b.err);
		cr_assert(eq(int, journal_open(b.path, &j, &records, &b.err), -EBADMSG), "byte %zu",
			  i);
		cr_assert(eq(str, b.err.code, "bad-journal"));
		cr_assert(ne(ptr, strstr(b.err.msg, b.path), NULL));
		cr_assert(j == (void *)&b && records == (void *)&b);
		text = slurp(&b, &len);
		cr_assert(eq(sz, len, size));
		free(text);
		poke(&b, i, &good[i], 1);
	}
	free(good);
	box_remove(&b);
}

Test(journal, the_bad_line_is_named)
{
	struct journal *j;
	struct box b;
	size_t one;

	box_init(&b);
	one = box_fill(&b, 1);
	unlink(b.path);
	box_fill(&b, 3);
	poke(&b, one + 20, "\0", 1);
	cr_assert(eq(int, journal_open(b.path, &j, NULL, &b.err), -EBADMSG));
	cr_assert(ne(ptr, strstr(b.err.msg, "line 2"), NULL), "%s", b.err.msg);
	box_remove(&b);
}

Test(journal, a_good_checksum_over_no_object_is_refused)
{
	/* "[1]" and its XXH3-64 */
	static const char line[] = "7e22e688c546b965 [1]\n";
	struct journal *j;
	struct box b;
	int fd;

	box_init(&b);
	fd = open(b.path, O_RDWR | O_CREAT, 0600);
	cr_assert(zero(int, fdio_write_full(fd, line, sizeof(line) - 1)));
	close(fd);
	cr_assert(eq(int, journal_open(b.path, &j, NULL, &b.err), -EBADMSG));
	cr_assert(ne(ptr, strstr(b.err.msg, "not a JSON object"), NULL), "%s", b.err.msg);
	box_remove(&b);
}

Test(journal, records_must_be_objects_of_json)
{
	json_t *array = json_array(), *records;
	struct journal *j;
	struct box b;

	box_init(&b);
	j = box_open(&b, NULL);
	cr_assert(eq(int, journal_append(j, array, &b.err), -EINVAL));
	error_clear(&b.err);
	cr_assert(eq(int, journal_append(j, NULL, &b.err), -EINVAL));
	error_clear(&b.err);
	append(&b, j, 0);
	journal_close(j);
	j = box_open(&b, &records);
	check_records(records, 1);
	json_decref(records);
	json_decref(array);
	journal_close(j);
	box_remove(&b);
}

Test(journal, one_user_at_a_time)
{
	struct journal *j, *other = NULL;
	struct box b;

	box_init(&b);
	j = box_open(&b, NULL);
	cr_assert(eq(int, journal_open(b.path, &other, NULL, &b.err), -EBUSY));
	cr_assert(error_is_set(&b.err));
	cr_assert(eq(ptr, other, NULL));
	journal_close(j);
	j = box_open(&b, NULL);
	journal_close(j);
	box_remove(&b);
}

Test(journal, places_where_none_can_be)
{
	struct journal *j;
	struct box b;

	box_init(&b);
	cr_assert(eq(int, journal_open("/nowhere/j", &j, NULL, &b.err), -ENOENT));
	cr_assert(ne(ptr, strstr(b.err.msg, "/nowhere/j"), NULL));
	error_clear(&b.err);
	cr_assert(eq(int, journal_open(b.dir, &j, NULL, &b.err), -EISDIR));
	error_clear(&b.err);
	cr_assert(zero(int, mkfifo(b.path, 0600)));
	cr_assert(eq(int, journal_open(b.path, &j, NULL, &b.err), -EINVAL));
	cr_assert(error_is_set(&b.err));
	box_remove(&b);
}

/* The disk takes only a part of a line: the append fails, and leaves no trace. */
Test(journal, a_full_disk_leaves_the_file_as_it_was)
{
	struct rlimit lim;
	json_t *records, *rec;
	struct journal *j;
	struct box b;
	size_t one, len;

	box_init(&b);
	one = box_fill(&b, 1);
	j = box_open(&b, NULL);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &lim);
	lim.rlim_cur = one + 30;
	setrlimit(RLIMIT_FSIZE, &lim);
	rec = json_pack("{s:i, s:s}", "n", 1, "text", "longer than the thirty bytes that fit");
	cr_assert(eq(int, journal_append(j, rec, &b.err), -EFBIG));
	cr_assert(error_is_set(&b.err));
	json_decref(rec);
	free(slurp(&b, &len));
	cr_assert(eq(sz, len, one));
	/* Once there is room it goes on. */
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_FSIZE, &lim);
	error_clear(&b.err);
	append(&b, j, 1);
	journal_close(j);
	j = box_open(&b, &records);
	check_records(records, 2);
	json_decref(records);
	journal_close(j);
	box_remove(&b);
}

/* A process killed while it appends as fast as it can: whatever was acknowledged is there. */
Test(journal, killed_while_appending)
{
	struct box b;

	box_init(&b);
	for (int round = 0; round < 5; round++) {
		json_t *records;
		struct journal *j;
		int p[2], acked = -1, n = 0;
		pid_t pid;

		cr_assert(zero(int, pipe(p)));
		pid = fork();
		if (!pid) {
			j = box_open(&b, NULL);
			for (;; n++) {
				append(&b, j, n);
				if (write(p[1], &n, sizeof(n)) < 0)
					_exit(1);
			}
		}
		close(p[1]);
		/* It begins when it gets a processor; from there on it is killed at another moment each time. */
		cr_assert(eq(int, (int)read(p[0], &acked, sizeof(acked)), sizeof(acked)));
		usleep(20000 + 7000 * (useconds_t)round);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		while (read(p[0], &n, sizeof(n)) == sizeof(n))
			acked = n;
		close(p[0]);
		j = box_open(&b, &records);
		cr_assert(ge(int, (int)json_array_size(records), acked + 1));
		check_records(records, (int)json_array_size(records));
		json_decref(records);
		journal_close(j);
		unlink(b.path);
	}
	box_remove(&b);
}

/* What was written without a sync outlives the process, and later records come behind it. */
Test(journal, written_and_killed)
{
	struct box b;
	struct journal *j;
	json_t *records = NULL;
	pid_t pid;

	box_init(&b);
	pid = fork();
	if (!pid) {
		json_t *rec = json_pack("{s:i, s:s}", "n", 0, "text", "two\nlines, \xc3\xa4");

		if (!journal_open(b.path, &j, NULL, &b.err) && !journal_write(j, rec, &b.err))
			kill(getpid(), SIGKILL);
		_exit(1);
	}
	cr_assert(eq(int, waitpid(pid, &(int){0}, 0), pid));
	j = box_open(&b, &records);
	check_records(records, 1);
	json_decref(records);
	append(&b, j, 1);
	cr_assert(zero(int, journal_sync(j, &b.err)));
	journal_close(j);
	j = box_open(&b, &records);
	check_records(records, 2);
	json_decref(records);
	journal_close(j);
	box_remove(&b);
}
