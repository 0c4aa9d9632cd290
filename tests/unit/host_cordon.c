/* SPDX-License-Identifier: Apache-2.0 */
/* The cordon: a file that both agents of a host look at. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "host/cordon.h"

/** struct place - a folder, and the file in it */
struct place {
	char dir[32];
	char file[64];
};

static struct place place(void)
{
	struct place p = {.dir = "/tmp/cordon.XXXXXX"};

	cr_assert(mkdtemp(p.dir));
	snprintf(p.file, sizeof(p.file), "%s/cordon", p.dir);
	return p;
}

static void leave(const struct place *p)
{
	unlink(p->file);
	cr_assert_eq(rmdir(p->dir), 0, "something else is left there");
}

Test(host_cordon, is_set_once_and_lifted)
{
	struct cordon first = {.since_us = 1700000000000000, .by = "operator"}, got;
	struct cordon second = {.since_us = 1800000000000000, .by = "evacuation 1"};
	struct place p = place();
	struct error err = {0};

	cr_assert_not(cordon_holds(p.file));
	cr_assert_not(cordon_read(p.file, &got));
	cr_assert_eq(cordon_set(p.file, &first, &err), 0, "%s", err.msg);
	cr_assert(cordon_holds(p.file));
	/* Who ordered it first is who has ordered it. */
	cr_assert_eq(cordon_set(p.file, &second, &err), 0, "%s", err.msg);
	cr_assert(cordon_read(p.file, &got));
	cr_assert_eq(got.since_us, first.since_us);
	cr_assert_str_eq(got.by, "operator");
	cr_assert_eq(cordon_lift(p.file, &err), 0, "%s", err.msg);
	cr_assert_not(cordon_holds(p.file));
	cr_assert_eq(cordon_lift(p.file, &err), 0, "one that is not there is fine: %s", err.msg);
	leave(&p);
}

/* Whatever stands there holds: an empty file that somebody touched, rubbish, a link to nowhere. */
Test(host_cordon, what_cannot_be_read_holds)
{
	static const char *const texts[] = {"", "{", "[]", "{\"by\": 1, \"since_us\": -5}",
					    "{\"by\": \"0123456789012345678901234567890123456789"
					    "0123456789012345678901234567890123456789\"}"};
	struct place p = place();
	struct cordon got;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		FILE *f = fopen(p.file, "w");

		fputs(texts[i], f);
		fclose(f);
		cr_assert(cordon_holds(p.file));
		cr_assert(cordon_read(p.file, &got), "%s", texts[i]);
		cr_assert_eq(got.since_us, 0);
		cr_assert_str_eq(got.by, "");
	}
	unlink(p.file);
	cr_assert_eq(symlink("/nowhere/at/all", p.file), 0);
	cr_assert(cordon_holds(p.file));
	leave(&p);
}

Test(host_cordon, a_folder_that_is_not_there)
{
	struct cordon c = {.since_us = 1, .by = "operator"};
	struct error err = {0};

	cr_assert_not(cordon_holds("/nowhere/at/all/cordon"));
	cr_assert_lt(cordon_set("/nowhere/at/all/cordon", &c, &err), 0);
	cr_assert_str_eq(err.code, "not-stored");
	cr_assert(strstr(err.msg, "/nowhere/at/all/cordon"), "%s", err.msg);
}
