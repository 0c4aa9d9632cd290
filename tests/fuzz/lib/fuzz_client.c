/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz/lib/fuzz_client.h"

#include "fuzz/lib/fuzz_dir.h"
#include "util/cleanup.h"

/*
 * What goes with the process when an agent ends is no leak: a connection that lingers to be heard out,
 * a dial whose answer the loop has not seen.
 */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

void fuzz_client_begin(struct fuzz_client *c, struct loop *loop, const char *dir)
{
	*c = (struct fuzz_client){.loop = loop, .dir = dir, .open = {-1, -1, -1, -1}};
}

void fuzz_client_end(struct fuzz_client *c)
{
	for (size_t i = 0; i < FUZZ_CLIENT_OPEN; i++)
		if (c->open[i] >= 0)
			close(steal_fd(&c->open[i]));
	fuzz_turns(c->loop, 1);
}

/* --- answers --- */

/* Of interest is what was made. */
static void read_head(struct fuzz_client *c, const char *text)
{
	const char *line = strstr(text, "\r\nLocation: "), *end, *slash;
	size_t n;

	end = line ? strstr(line + 2, "\r\n") : NULL;
	if (!end)
		return;
	slash = memrchr(line, '/', (size_t)(end - line));
	n = slash ? (size_t)(end - slash - 1) : 0;
	if (!n || n >= sizeof(c->id))
		return;
	memcpy(c->id, slash + 1, n);
	c->id[n] = '\0';
}

static void hear(struct fuzz_client *c, int s)
{
	char text[4097];
	ssize_t n = recv(s, text, sizeof(text) - 1, 0);

	if (n > 0) {
		text[n] = '\0';
		read_head(c, text);
	}
	while (n > 0)
		n = recv(s, text, sizeof(text) - 1, 0);
}

static void say(struct fuzz_client *c, struct fuzz_in request, bool stay)
{
	int s = fuzz_connect(c->dir, "api.sock", SOCK_STREAM);

	(void)!send(s, request.p, request.n, MSG_NOSIGNAL);
	if (!stay)
		shutdown(s, SHUT_WR);
	fuzz_turns(c->loop, 4);
	hear(c, s);
	for (size_t i = 0; i < FUZZ_CLIENT_OPEN; i++)
		if (c->open[i] >= 0)
			hear(c, c->open[i]);
	if (stay) {
		int *place = &c->open[c->n++ % FUZZ_CLIENT_OPEN], before = *place;

		*place = s;
		s = before;
	}
	if (s >= 0)
		close(s);
	fuzz_turns(c->loop, 1);
}

/* --- requests --- */

static struct fuzz_in next_line(struct fuzz_in *piece)
{
	const uint8_t *nl = piece->n ? memchr(piece->p, '\n', piece->n) : NULL;
	struct fuzz_in line = fuzz_take(piece, nl ? (size_t)(nl - piece->p) : piece->n);

	fuzz_take(piece, 1);
	return line;
}

static const char *stands_for(const struct fuzz_client *c, uint8_t b)
{
	if (b == '@' && *c->id)
		return c->id;
	return b == '$' ? c->dir : NULL;
}

/* Bytes with what they stand for, behind each other. */
static void put(const struct fuzz_client *c, FILE *f, struct fuzz_in in)
{
	while (in.n) {
		uint8_t b = fuzz_u8(&in);
		const char *text = stands_for(c, b);

		if (text)
			fputs(text, f);
		else
			fputc(b, f);
	}
}

static char *body_of(const struct fuzz_client *c, struct fuzz_in in, size_t *ret)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, ret);

	FUZZ_CHECK(f);
	put(c, f, in);
	FUZZ_CHECK(!fclose(f));
	return text;
}

void fuzz_client_ask(struct fuzz_client *c, struct fuzz_in piece)
{
	bool stay = piece.n && *piece.p == '=';
	CLEANUP_FREE char *body = NULL;
	CLEANUP_FREE char *text = NULL;
	size_t n_body, n;
	FILE *f = open_memstream(&text, &n);

	FUZZ_CHECK(f);
	fuzz_take(&piece, stay);
	put(c, f, next_line(&piece));
	fputs(" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n", f);
	while (piece.n && *piece.p == '+') {
		fuzz_take(&piece, 1);
		put(c, f, next_line(&piece));
		fputs("\r\n", f);
	}
	body = body_of(c, piece, &n_body);
	fprintf(f, "Content-Length: %zu\r\n\r\n", n_body);
	fwrite(body, 1, n_body, f);
	FUZZ_CHECK(!fclose(f));
	say(c, (struct fuzz_in){(const uint8_t *)text, n}, stay);
}

void fuzz_client_get(struct fuzz_client *c, const char *path)
{
	CLEANUP_FREE char *text = NULL;
	int n = asprintf(&text, "GET %s", path);

	FUZZ_CHECK(n > 0);
	fuzz_client_ask(c, (struct fuzz_in){(const uint8_t *)text, (size_t)n});
}
