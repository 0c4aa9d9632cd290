/* SPDX-License-Identifier: Apache-2.0 */
/* Token files, and what a token is worth. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "rest/rest_auth.h"
#include "util/cleanup.h"

#define OP_TOKEN   "9f86d081884c7d659a2feaa0c55ad015"
#define READ_TOKEN "reader-token-1234"

/* Write a token file and read it. Return: as rest_auth_new() */
static int with_file(const char *text, mode_t mode, struct rest_auth **ret, struct error *err)
{
	const char *tmp = getenv("TMPDIR");
	struct rest_auth_conf conf = {0};
	char path[200];
	int fd, r;

	snprintf(path, sizeof(path), "%s/tokens-XXXXXX", tmp ? tmp : "/tmp");
	fd = mkstemp(path);
	cr_assert(ge(int, fd, 0));
	cr_assert(eq(long, write(fd, text, strlen(text)), (long)strlen(text)));
	fchmod(fd, mode);
	close(fd);
	conf.token_file = path;
	r = rest_auth_new(&conf, ret, err);
	unlink(path);
	return r;
}

Test(rest_auth, tokens_have_roles_and_names)
{
	static const char file[] = "# who may what\n\noperator alice " OP_TOKEN "\n"
				   "\treader  prometheus\t" READ_TOKEN "\r\n";
	static const struct {
		const char *value;
		enum rest_role role;
		const char *name;
	} rows[] = {
		{"Bearer " OP_TOKEN, REST_OPERATOR, "token:alice"},
		{"bearer  " OP_TOKEN, REST_OPERATOR, "token:alice"},
		{"Bearer " READ_TOKEN, REST_READER, "token:prometheus"},
		{"Bearer " OP_TOKEN "x", REST_PUBLIC, ""},
		{"Bearer 9f86d081884c7d659a2feaa0c55ad01", REST_PUBLIC, ""},
		{"Bearer ", REST_PUBLIC, ""},
		{"Bearer", REST_PUBLIC, ""},
		{"Basic " OP_TOKEN, REST_PUBLIC, ""},
		{OP_TOKEN, REST_PUBLIC, ""},
		{"", REST_PUBLIC, ""},
	};
	struct rest_auth *a = NULL;
	struct error err = {0};

	cr_assert(eq(int, with_file(file, 0600, &a, &err), 0), "%s", err.msg);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct rest_peer p = {0};

		cr_expect(eq(int, rest_auth_header(a, rows[i].value, &p),
			     rows[i].role != REST_PUBLIC),
			  "%s", rows[i].value);
		cr_expect(eq(int, (int)p.role, (int)rows[i].role), "%s", rows[i].value);
		cr_expect(eq(str, p.name, (char *)rows[i].name), "%s", rows[i].value);
	}
	rest_auth_free(a);
}

/* What is wrong is named by its line; what might be a token is never shown. */
Test(rest_auth, files_that_do_not_do_are_refused_by_line)
{
	static const struct {
		const char *text;
		mode_t mode;
		const char *word;
	} rows[] = {
		{"", 0600, "has no token in it"},
		{"# nothing\n", 0600, "has no token in it"},
		{"operator a " OP_TOKEN "\noperator " OP_TOKEN "\n", 0600, "line 2: not ROLE NAME"},
		{"operator a " OP_TOKEN " more\n", 0600, "line 1: not ROLE NAME TOKEN"},
		{"root a " OP_TOKEN "\n", 0600, "neither reader nor operator"},
		{"reader a tooshort-tooshor\n", 0600, ""},
		{"reader a fifteen-charac\n", 0600, "16 to 512"},
		{"reader a " OP_TOKEN "\noperator b " OP_TOKEN "\n", 0600, "line 2: a token that"},
		{"reader a\x01 " OP_TOKEN "\n", 0600, "not visible"},
		{"operator a " OP_TOKEN "\n", 0644, "chmod 0600"},
		{"operator a " OP_TOKEN "\n", 0620, "chmod 0600"},
		{"operator a " OP_TOKEN "\n", 0604, "chmod 0600"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct rest_auth *a = NULL;
		struct error err = {0};
		int r = with_file(rows[i].text, rows[i].mode, &a, &err);

		if (!*rows[i].word) {
			cr_expect(eq(int, r, 0), "%s", err.msg);
			rest_auth_free(a);
			continue;
		}
		cr_expect(lt(int, r, 0), "%s", rows[i].text);
		cr_expect(ne(ptr, strstr(err.msg, rows[i].word), NULL), "%s: %s", rows[i].text,
			  err.msg);
		cr_expect(eq(ptr, strstr(err.msg, OP_TOKEN), NULL), "%s", err.msg);
	}
}

Test(rest_auth, a_group_may_read_the_file)
{
	struct rest_auth *a = NULL;
	struct error err = {0};

	cr_expect(eq(int, with_file("operator a " OP_TOKEN "\n", 0640, &a, &err), 0), "%s",
		  err.msg);
	rest_auth_free(a);
}

Test(rest_auth, a_file_that_is_not_there_is_named)
{
	struct rest_auth_conf conf = {.token_file = "/nowhere/tokens"};
	struct rest_auth *a = NULL;
	struct error err = {0};

	cr_expect(eq(int, rest_auth_new(&conf, &a, &err), -ENOENT));
	cr_expect(ne(ptr, strstr(err.msg, "api.token_file: /nowhere/tokens"), NULL), "%s", err.msg);
}
