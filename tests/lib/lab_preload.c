/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>
#include "lib/lab_preload.h"

static const char *variable(const char *name)
{
	return !strcmp(name, "clock")  ? "DECANT_TEST_CLOCK"
	       : !strcmp(name, "full") ? "DECANT_TEST_FULL"
				       : "DECANT_TEST_SYNC";
}

void lab_preload(struct lab *lab, const char *name, const char *file)
{
	char path[LAB_PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/preload/%s.so", lab->tests, name);
	lab_check(lab, !access(path, R_OK), "%s: %m", path);
	setenv("LD_PRELOAD", path, 1);
	setenv(variable(name), file, 1);
}

void lab_preload_end(void)
{
	unsetenv("LD_PRELOAD");
	unsetenv("DECANT_TEST_CLOCK");
	unsetenv("DECANT_TEST_FULL");
	unsetenv("DECANT_TEST_SYNC");
}

void lab_clock_set(struct lab *lab, const char *file, int64_t seconds)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	lab_check(lab, fd >= 0 && pwrite(fd, &seconds, sizeof(seconds), 0) == sizeof(seconds),
		  "%s: %m", file);
	close(fd);
}

bool lab_small_state(struct lab_host *h, unsigned int kb)
{
	char path[LAB_PATH_MAX + 16], options[64];

	snprintf(path, sizeof(path), "%s/state", h->dir);
	snprintf(options, sizeof(options), "size=%uk,mode=700", kb);
	return !unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	       !mount("decant-test", path, "tmpfs", 0, options);
}
