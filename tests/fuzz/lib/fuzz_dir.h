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

#endif
