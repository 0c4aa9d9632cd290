/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens: a piece that is a token file, then pieces that are Authorization headers. Each token of a file that was
 * taken lets its holder in.
 */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fuzz/lib/fuzz.h"
#include "rest/rest_auth.h"

static struct rest_auth *read_file(struct fuzz_in in)
{
	static char *const operators[] = {"DNS:op", NULL};
	char path[FUZZ_PATH];
	struct rest_auth_conf conf = {.token_file = path, .operators = operators};
	struct rest_auth *a = NULL;
	struct error err = {0};
	int fd = fuzz_file(in, path);

	FUZZ_CHECK(!fchmod(fd, 0600));
	FUZZ_CHECK(!rest_auth_new(&conf, &a, &err) || (!a && error_is_set(&err)));
	close(fd);
	return a;
}

/* Return: whether its lines are what strtok_r(3) takes for lines */
static bool is_text(struct fuzz_in file)
{
	return !memchr(file.p, '\0', file.n) && !memchr(file.p, '\r', file.n);
}

/* The third word of each line that is no comment. */
static void use_all(const struct rest_auth *a, struct fuzz_in file)
{
	char *text = fuzz_text(file), *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *word = NULL, *words = NULL, value[REST_TOKEN_MAX + 16];
		struct rest_peer peer = {0};

		line += strspn(line, " \t");
		if (!*line || *line == '#')
			continue;
		for (int i = 0; i < 3; i++)
			word = strtok_r(i ? NULL : line, " \t", &words);
		FUZZ_CHECK(word);
		snprintf(value, sizeof(value), "Bearer %s", word);
		FUZZ_CHECK(rest_auth_header(a, value, &peer) && peer.role != REST_PUBLIC);
	}
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size), file = fuzz_piece(&in);
	struct rest_auth *a = read_file(file);

	if (a && is_text(file))
		use_all(a, file);
	while (a && in.n) {
		char *value = fuzz_text(fuzz_piece(&in));
		struct rest_peer peer = {0};

		FUZZ_CHECK(rest_auth_header(a, value, &peer) == (peer.role != REST_PUBLIC));
		free(value);
	}
	rest_auth_free(a);
	return 0;
}
