/* SPDX-License-Identifier: Apache-2.0 */
/* A folder for an agent, of memory where that can be had: each input begins with an empty one. */
#ifndef DECANT_TESTS_FUZZ_DIR_H
#define DECANT_TESTS_FUZZ_DIR_H

#include <dirent.h>
#include <ftw.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "fuzz/lib/fuzz.h"

/*
 * What goes with the process when an agent ends is no leak: a connection that lingers to be heard out,
 * a dial whose answer the loop has not seen.
 */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

/** FUZZ_DIR_MAX - bytes of its path */
#define FUZZ_DIR_MAX 64

/** fuzz_dir_new() - make one */
static inline void fuzz_dir_new(char dir[static FUZZ_DIR_MAX])
{
	snprintf(dir, FUZZ_DIR_MAX, "%s/decant-fuzz.XXXXXX",
		 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	FUZZ_CHECK(mkdtemp(dir));
}

static inline int fuzz_dir_drop_(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	(void)st;
	(void)flag;
	(void)f;
	return remove(path);
}

/** fuzz_dir_free() - remove it */
static inline void fuzz_dir_free(const char *dir)
{
	FUZZ_CHECK(!nftw(dir, fuzz_dir_drop_, 16, FTW_DEPTH | FTW_PHYS));
}

/** fuzz_connect() - to a Unix socket of @type in @dir. Return: non-blocking */
static inline int fuzz_connect(const char *dir, const char *name, int type)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%.80s/%.20s", dir, name);
	FUZZ_CHECK(!connect(s, (struct sockaddr *)&sa, sizeof(sa)));
	return s;
}

/** fuzz_http() - say one request on a connection of its own, and turn the loop */
static inline void fuzz_http(struct loop *loop, const char *dir, struct fuzz_in request)
{
	int s = fuzz_connect(dir, "api.sock", SOCK_STREAM);
	char junk[4096];

	(void)!send(s, request.p, request.n, MSG_NOSIGNAL);
	shutdown(s, SHUT_WR);
	fuzz_turns(loop, 4);
	while (recv(s, junk, sizeof(junk), 0) > 0)
		;
	close(s);
	fuzz_turns(loop, 1);
}

/**
 * fuzz_post() - a piece of an input as a request: its first line is method and path, the rest the body
 */
static inline void fuzz_post(struct loop *loop, const char *dir, struct fuzz_in piece)
{
	const uint8_t *nl = memchr(piece.p, '\n', piece.n);
	struct fuzz_in line = fuzz_take(&piece, nl ? (size_t)(nl - piece.p) : piece.n);
	char *text = malloc(line.n + piece.n + 200);
	int n;

	fuzz_take(&piece, 1);
	n = sprintf(text,
		    "%.*s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
		    "%zu\r\n"
		    "Idempotency-Key: %zu\r\n\r\n",
		    (int)line.n, (const char *)line.p, piece.n, piece.n % 7);
	memcpy(text + n, piece.p, piece.n);
	fuzz_http(loop, dir, (struct fuzz_in){(uint8_t *)text, (size_t)n + piece.n});
	free(text);
}

#endif
