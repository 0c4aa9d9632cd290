/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lib/lab_group.h"

#define ROOT1 "/sys/fs/cgroup/memory"

static const char *const roots2[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

static bool put(const char *dir, const char *file, const char *text)
{
	char path[192];
	int fd;
	bool ok;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (fd >= 0)
		close(fd);
	return ok;
}

static bool has_memory(const char *root)
{
	char path[192], *has;
	bool memory;

	snprintf(path, sizeof(path), "%s/cgroup.controllers", root);
	has = lab_read_file(path);
	memory = has && strstr(has, "memory");
	free(has);
	return memory;
}

bool lab_group_make(struct lab_group *g, bool v2)
{
	const char *root = access(ROOT1 "/memory.limit_in_bytes", F_OK) ? NULL : ROOT1;

	for (size_t i = 0; v2 && i < sizeof(roots2) / sizeof(roots2[0]); i++) {
		root = has_memory(roots2[i]) ? roots2[i] : NULL;
		if (root)
			break;
	}
	if (!root || (v2 && !put(root, "cgroup.subtree_control", "+memory")))
		return false;
	g->v2 = v2;
	snprintf(g->dir, sizeof(g->dir), "%s/decant-test.%d", root, getpid());
	return !mkdir(g->dir, 0755);
}

bool lab_group_limit(const struct lab_group *g, const char *bytes)
{
	if (!g->v2)
		return put(g->dir, "memory.limit_in_bytes", bytes);
	return put(g->dir, "memory.max", strcmp(bytes, "-1") ? bytes : "max");
}

uint64_t lab_group_usage(const struct lab_group *g)
{
	char path[192], *text;
	uint64_t n;

	snprintf(path, sizeof(path), "%s/%s", g->dir,
		 g->v2 ? "memory.current" : "memory.usage_in_bytes");
	text = lab_read_file(path);
	n = text ? strtoull(text, NULL, 10) : 0;
	free(text);
	return n;
}

bool lab_group_spare(const struct lab_group *g)
{
	return !g->v2 && put(g->dir, "memory.oom_control", "1");
}

void lab_group_enter(struct lab *lab, const struct lab_group *g, pid_t pid)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", pid);
	lab_check(lab, pid > 0 && put(g->dir, "cgroup.procs", text), "%s: %m", g->dir);
}

void lab_group_out(const struct lab_group *g, pid_t pid)
{
	struct lab_group root = *g;
	char text[16];

	*strrchr(root.dir, '/') = '\0';
	snprintf(text, sizeof(text), "%d", pid);
	if (pid)
		put(root.dir, "cgroup.procs", text);
}

void lab_group_leave(struct lab *lab, const struct lab_group *g, pid_t pid)
{
	lab_group_out(g, pid);
	lab_until(lab, 10000, rmdir(g->dir) == 0 || errno == ENOENT, "%s: %m", g->dir);
}
