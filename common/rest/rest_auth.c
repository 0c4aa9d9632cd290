/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/rest_auth.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include "util/cleanup.h"

#define LINE_MAX_  1024
#define DIGEST_LEN 32
#define NAME_LEN   64

/**
 * struct token - one line of the file
 * @digest:	SHA-256 of the token
 */
struct token {
	enum rest_role role;
	char name[NAME_LEN];
	unsigned char digest[DIGEST_LEN];
};

/**
 * struct rest_auth - see rest_auth.h; never changes once it is made
 * @operators, @readers: NULL at the end
 */
struct rest_auth {
	struct token *tokens;
	size_t n;
	char **operators;
	char **readers;
};

static void free_list(char **list)
{
	for (size_t i = 0; list && list[i]; i++)
		free(list[i]);
	free(list);
}

void rest_auth_free(struct rest_auth *a)
{
	if (!a)
		return;
	free_list(a->operators);
	free_list(a->readers);
	free(a->tokens);
	free(a);
}

static size_t count(char *const *list)
{
	size_t n = 0;

	while (list && list[n])
		n++;
	return n;
}

static int copy_list(char *const *list, char ***ret)
{
	size_t n = count(list);

	*ret = calloc(n + 1, sizeof(**ret));
	for (size_t i = 0; *ret && i < n; i++)
		if (!((*ret)[i] = strdup(list[i])))
			return -ENOMEM;
	return *ret ? 0 : -ENOMEM;
}

static int digest(const char *text, size_t len, unsigned char ret[static DIGEST_LEN])
{
	return EVP_Digest(text, len, ret, NULL, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
}

static bool visible(const char *s)
{
	for (; *s; s++)
		if (*s <= 0x20 || *s >= 0x7f)
			return false;
	return true;
}

/* Return: NULL, or what is wrong with the line */
static const char *parse_line(char *line, struct token *t)
{
	char *save = NULL, *role = strtok_r(line, " \t", &save),
	     *name = strtok_r(NULL, " \t", &save), *token = strtok_r(NULL, " \t", &save);
	size_t len = token ? strlen(token) : 0;

	if (!token || strtok_r(NULL, " \t", &save))
		return "not ROLE NAME TOKEN";
	if (!strcmp(role, "operator"))
		t->role = REST_OPERATOR;
	else if (!strcmp(role, "reader"))
		t->role = REST_READER;
	else
		return "the role is neither reader nor operator";
	if (strlen(name) >= sizeof(t->name) || !visible(name))
		return "the name is longer than 63 characters, or has ones that are not visible";
	if (len < REST_TOKEN_MIN || len > REST_TOKEN_MAX || !visible(token))
		return "the token has not 16 to 512 visible characters (openssl rand -hex 32 makes "
		       "one)";
	strcpy(t->name, name);
	return digest(token, len, t->digest) ? "out of memory" : NULL;
}

static int add_line(struct rest_auth *a, char *line, const char **ret_why)
{
	struct token t, *more;

	line += strspn(line, " \t");
	if (!*line || *line == '#')
		return 0;
	*ret_why = parse_line(line, &t);
	if (*ret_why)
		return -EINVAL;
	*ret_why = "more than 256 tokens";
	if (a->n == REST_TOKENS_MAX)
		return -E2BIG;
	*ret_why = "a token that is there already";
	for (size_t i = 0; i < a->n; i++)
		if (!CRYPTO_memcmp(a->tokens[i].digest, t.digest, DIGEST_LEN))
			return -EEXIST;
	more = realloc(a->tokens, (a->n + 1) * sizeof(*more));
	*ret_why = "out of memory";
	if (!more)
		return -ENOMEM;
	a->tokens = more;
	more[a->n++] = t;
	return 0;
}

static int check_rights(FILE *f, const char *path, struct error *err)
{
	struct stat st;

	if (fstat(fileno(f), &st) < 0)
		return error_set(err, -errno, "token-file", "api.token_file: %s: %s", path,
				 strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "token-file", "api.token_file: %s is no file", path);
	if (st.st_mode & 027)
		return error_set(
			err, -EPERM, "token-file",
			"api.token_file: %s has mode %04o, so that others can read or change it: "
			"chmod 0600",
			path, st.st_mode & 07777);
	return 0;
}

static int read_tokens(struct rest_auth *a, const char *path, struct error *err)
{
	CLEANUP_FCLOSE FILE *f = fopen(path, "re");
	char line[LINE_MAX_];
	const char *why = "";
	int r, no = 0;

	if (!f)
		return error_set(err, -errno, "token-file", "api.token_file: %s: %s", path,
				 strerror(errno));
	r = check_rights(f, path, err);
	if (r < 0)
		return r;
	while (!r && fgets(line, sizeof(line), f)) {
		size_t len = strcspn(line, "\r\n");

		no++;
		why = "longer than 1,000 bytes";
		r = len == sizeof(line) - 1 ? -E2BIG : 0;
		line[len] = '\0';
		if (!r)
			r = add_line(a, line, &why);
	}
	OPENSSL_cleanse(line, sizeof(line));
	if (r < 0)
		return error_set(err, r, "token-file", "api.token_file: %s line %d: %s", path, no,
				 why);
	if (!a->n)
		return error_set(err, -ENODATA, "token-file",
				 "api.token_file: %s has no token in it", path);
	return 0;
}

int rest_auth_new(const struct rest_auth_conf *conf, struct rest_auth **ret, struct error *err)
{
	struct rest_auth *a = calloc(1, sizeof(*a));
	int r;

	if (!a || copy_list(conf->operators, &a->operators) < 0 ||
	    copy_list(conf->readers, &a->readers) < 0)
		r = error_set(err, -ENOMEM, NULL, "out of memory");
	else
		r = conf->token_file ? read_tokens(a, conf->token_file, err) : 0;
	if (r < 0)
		rest_auth_free(a);
	else
		*ret = a;
	return r;
}

bool rest_auth_tls(const struct rest_auth *a, const struct tls_chan *c, struct rest_peer *p)
{
	const char *const *operators = (const char *const *)a->operators;
	const char *const *readers = (const char *const *)a->readers;

	if (!*tls_chan_identity(c))
		return false;
	snprintf(p->name, sizeof(p->name), "%s", tls_chan_identity(c));
	if (!tls_allow_check(operators, count(a->operators), c, NULL))
		p->role = REST_OPERATOR;
	else if (!tls_allow_check(readers, count(a->readers), c, NULL))
		p->role = REST_READER;
	return p->role != REST_PUBLIC;
}

/* All of them are looked at, and all of each: the time tells nothing of which was how near. */
static const struct token *find_token(const struct rest_auth *a, const char *text, size_t len)
{
	const struct token *found = NULL;
	unsigned char d[DIGEST_LEN];

	if (digest(text, len, d) < 0)
		return NULL;
	for (size_t i = 0; i < a->n; i++)
		if (!CRYPTO_memcmp(a->tokens[i].digest, d, DIGEST_LEN))
			found = &a->tokens[i];
	return found;
}

bool rest_auth_header(const struct rest_auth *a, const char *value, struct rest_peer *p)
{
	const struct token *t;

	if (strncasecmp(value, "Bearer ", 7) != 0)
		return false;
	value += 7 + strspn(value + 7, " ");
	t = find_token(a, value, strlen(value));
	if (!t)
		return false;
	p->role = t->role;
	snprintf(p->name, sizeof(p->name), "token:%s", t->name);
	return true;
}
