/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that are kept for repeats. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "rest/rest_idem.h"
#include "util/cleanup.h"

static int begin(struct rest_idem *s, const char *key, uint64_t request)
{
	struct rest_idem_answer a;

	return (int)rest_idem_begin(s, key, request, &a);
}

static void done(struct rest_idem *s, const char *key, const char *body)
{
	struct rest_idem_answer a = {202, "/v1/migrations/x", body};

	rest_idem_end(s, key, &a);
}

Test(rest_idem, a_repeat_gets_the_first_answer)
{
	struct rest_idem *s = rest_idem_new();
	struct rest_idem_answer a;

	cr_expect(eq(int, begin(s, "k", 1), REST_IDEM_NEW));
	cr_expect(eq(int, begin(s, "k", 1), REST_IDEM_BUSY));
	cr_expect(eq(int, begin(s, "k", 2), REST_IDEM_OTHER));
	done(s, "k", "{\"id\":\"x\"}\n");
	cr_expect(eq(int, begin(s, "k", 2), REST_IDEM_OTHER));
	cr_expect(eq(int, (int)rest_idem_begin(s, "k", 1, &a), REST_IDEM_REPEAT));
	cr_expect(eq(int, a.status, 202));
	cr_expect(eq(str, (char *)a.location, "/v1/migrations/x"));
	cr_expect(eq(str, (char *)a.body, "{\"id\":\"x\"}\n"));
	rest_idem_unref(s);
}

/* What was refused may be tried again; a second end of the same request changes nothing. */
Test(rest_idem, a_refusal_is_not_kept)
{
	struct rest_idem *s = rest_idem_new();
	struct rest_idem_answer a;

	begin(s, "k", 1);
	rest_idem_end(s, "k", NULL);
	cr_expect(eq(int, begin(s, "k", 2), REST_IDEM_NEW));
	done(s, "k", "{}");
	done(s, "k", "{\"other\":1}");
	cr_expect(eq(int, (int)rest_idem_begin(s, "k", 2, &a), REST_IDEM_REPEAT));
	cr_expect(eq(str, (char *)a.body, "{}"));
	rest_idem_unref(s);
}

Test(rest_idem, the_oldest_make_room)
{
	struct rest_idem *s = rest_idem_new();
	char key[20];

	begin(s, "under-way", 1);
	for (int i = 0; i < REST_IDEM_MAX + 10; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		cr_assert(eq(int, begin(s, key, 1), REST_IDEM_NEW));
		done(s, key, "{}");
	}
	cr_expect(eq(int, begin(s, "under-way", 1), REST_IDEM_BUSY));
	cr_expect(eq(int, begin(s, "k10", 1), REST_IDEM_REPEAT));
	cr_expect(eq(int, begin(s, "k9", 1), REST_IDEM_NEW));
	rest_idem_unref(s);
}

Test(rest_idem, bytes_are_bounded)
{
	struct rest_idem *s = rest_idem_new();
	CLEANUP_FREE char *big = malloc(1u << 20);
	char key[20];

	memset(big, 'x', (1u << 20) - 1);
	big[(1u << 20) - 1] = '\0';
	for (int i = 0; i < 9; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		begin(s, key, 1);
		done(s, key, big);
	}
	cr_expect(eq(int, begin(s, "k0", 1), REST_IDEM_NEW));
	cr_expect(eq(int, begin(s, "k8", 1), REST_IDEM_REPEAT));
	rest_idem_unref(s);
}

Test(rest_idem, requests_under_way_are_bounded)
{
	struct rest_idem *s = rest_idem_new();
	int i = 0;

	for (; i < 1000; i++) {
		char key[20];

		snprintf(key, sizeof(key), "k%d", i);
		if (begin(s, key, 1) != REST_IDEM_NEW)
			break;
	}
	cr_expect(eq(int, i, 256));
	cr_expect(eq(int, begin(s, "k1000", 1), REST_IDEM_FULL));
	rest_idem_end(s, "k7", NULL);
	cr_expect(eq(int, begin(s, "k1000", 1), REST_IDEM_NEW));
	rest_idem_unref(s);
}

static struct rest_idem *open_at(const char *path)
{
	struct rest_idem *s = rest_idem_new();
	struct error err = {0};

	cr_assert(eq(int, rest_idem_keep(s, path, &err), 0), "%s", err.msg);
	return s;
}

Test(rest_idem, a_restart_forgets_nothing_and_a_damaged_file_does_no_harm)
{
	const char *tmp = getenv("TMPDIR");
	struct rest_idem_answer a;
	struct rest_idem *s;
	char dir[100], path[120];
	struct stat st;
	FILE *f;

	snprintf(dir, sizeof(dir), "%s/idem-XXXXXX", tmp ? tmp : "/tmp");
	cr_assert(ne(ptr, mkdtemp(dir), NULL));
	snprintf(path, sizeof(path), "%s/answers", dir);
	s = open_at(path);
	begin(s, "k", 0xfedcba9876543210);
	done(s, "k", "{\"id\":\"x\"}\n");
	begin(s, "under-way", 1);
	rest_idem_unref(s);

	s = open_at(path);
	cr_expect(eq(int, begin(s, "k", 1), REST_IDEM_OTHER));
	cr_expect(eq(int, (int)rest_idem_begin(s, "k", 0xfedcba9876543210, &a), REST_IDEM_REPEAT));
	cr_expect(eq(str, (char *)a.location, "/v1/migrations/x"));
	cr_expect(eq(int, begin(s, "under-way", 1), REST_IDEM_NEW));
	/* So many more that the file is written anew. */
	for (int i = 0; i < 4 * REST_IDEM_MAX + 10; i++) {
		char key[20];

		snprintf(key, sizeof(key), "k%d", i);
		begin(s, key, 1);
		done(s, key, "{}");
	}
	rest_idem_unref(s);
	cr_assert(eq(int, stat(path, &st), 0));
	cr_expect(lt(long, (long)st.st_size, 1000000));
	s = open_at(path);
	cr_expect(eq(int, begin(s, "k4005", 1), REST_IDEM_REPEAT));
	cr_expect(eq(int, begin(s, "k", 0xfedcba9876543210), REST_IDEM_NEW));
	rest_idem_unref(s);

	f = fopen(path, "r+");
	fputs("damaged", f);
	fclose(f);
	s = open_at(path);
	cr_expect(eq(int, begin(s, "k4005", 1), REST_IDEM_NEW));
	done(s, "k4005", "{}");
	rest_idem_unref(s);
	s = open_at(path);
	cr_expect(eq(int, begin(s, "k4005", 1), REST_IDEM_REPEAT));
	rest_idem_unref(s);
	unlink(path);
	rmdir(dir);
}
