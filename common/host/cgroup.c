/* SPDX-License-Identifier: Apache-2.0 */
#include "host/cgroup.h"
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "util/cleanup.h"
#include "util/fdio.h"

#define FILE_MAX (1 << 20)
/* Where systemd itself is, beside its slices. */
#define INIT_SCOPE "/init.scope"

/**
 * struct version - how a version of control groups calls things
 * @fstype:	of its mount
 * @option:	of its mount, where each controller has one
 * @limit, @usage: files
 * @cache:	fields of memory.stat whose bytes are given back when somebody needs them
 */
static const struct version {
	const char *fstype;
	const char *option;
	const char *limit;
	const char *usage;
	const char *cache[2];
} versions[] = {
	{"cgroup2", "", "memory.max", "memory.current", {"inactive_file", "active_file"}},
	{"cgroup",
	 "memory",
	 "memory.limit_in_bytes",
	 "memory.usage_in_bytes",
	 {"total_inactive_file", "total_active_file"}},
};

/* --- files --- */

static char *read_in(const char *dir, const char *file)
{
	char path[CGROUP_PATH_MAX + 64], *text;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return fdio_read_file(path, FILE_MAX, &text) < 0 ? NULL : text;
}

/* Return: false for "max", and if it cannot be read */
static bool number_in(const char *dir, const char *file, uint64_t *ret)
{
	CLEANUP_FREE char *text = read_in(dir, file);

	return text && sscanf(text, "%" SCNu64, ret) == 1;
}

/* Lines of a name and a number. Return: 0 if it has none */
static uint64_t field(const char *text, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = text; p; p = strchr(p, '\n'), p += p != NULL)
		if (!strncmp(p, name, n) && p[n] == ' ')
			return strtoull(p + n, NULL, 10);
	return 0;
}

static void look_at(const struct version *v, const char dir[static CGROUP_PATH_MAX],
		    struct cgroup_room *room)
{
	CLEANUP_FREE char *stat = NULL;
	uint64_t limit, used, cache;

	if (!number_in(dir, v->limit, &limit) || !number_in(dir, v->usage, &used))
		return;
	stat = read_in(dir, "memory.stat");
	cache = field(stat, v->cache[0]) + field(stat, v->cache[1]);
	used -= MIN(used, cache);
	/* Of version 1 no limit is a large one. */
	if (limit > INT64_MAX / 2 || limit - MIN(limit, used) >= room->unused)
		return;
	memcpy(room->path, dir, sizeof(room->path));
	room->file = v->limit;
	room->limit = limit;
	room->unused = limit - MIN(limit, used);
}

/* --- where --- */

/* A comma-separated list. */
static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; p; p = strchr(p, ','), p += p != NULL)
		if (!strncmp(p, word, n) && (!p[n] || p[n] == ','))
			return true;
	return false;
}

/* A line of mountinfo: is it the one? @root is what of the hierarchy is seen at @at. See proc_pid_mountinfo(5). */
static bool is_mount(const char *line, const struct version *v, char *root, char *at)
{
	char type[32], options[512];
	const char *more = strstr(line, " - ");

	return more && sscanf(line, "%*s %*s %*s %255s %255s", root, at) == 2 &&
	       sscanf(more, " - %31s %*s %511s", type, options) == 2 && !strcmp(type, v->fstype) &&
	       (!*v->option || has_word(options, v->option));
}

/* A line of /proc/PID/cgroup, "4:memory:/a/b": is it of this version, and the group? */
static bool is_member(const char *line, const struct version *v, char *group)
{
	char controllers[256];

	if (!*v->option)
		return sscanf(line, "0::%255s", group) == 1;
	return sscanf(line, "%*u:%255[^:]:%255s", controllers, group) == 2 &&
	       has_word(controllers, v->option);
}

/* The line that says it, of a text whose lines are cut apart. */
static bool find_mount(char *text, const struct version *v, char *root, char *at)
{
	char *rest = text;

	for (char *line; (line = strsep(&rest, "\n"));)
		if (is_mount(line, v, root, at))
			return true;
	return false;
}

static bool find_member(char *text, const struct version *v, char *group)
{
	char *rest = text;

	for (char *line; (line = strsep(&rest, "\n"));)
		if (is_member(line, v, group))
			return true;
	return false;
}

/* What is seen of a group begins behind @root; of one elsewhere nothing is seen but what is mounted. */
static const char *behind(const char *root, const char *group)
{
	size_t n = strcmp(root, "/") ? strlen(root) : 0;

	if (strncmp(group, root, n) != 0 || (group[n] && group[n] != '/') || strstr(group, "/.."))
		return "";
	return strcmp(group + n, "/") ? group + n : "";
}

static void cut_end(char *group, const char *end)
{
	size_t n = strlen(group), e = strlen(end);

	if (n >= e && !strcmp(group + n - e, end))
		group[n - e] = '\0';
}

static void look_up(const struct version *v, const char *mountinfo, const char *member,
		    const char *below, struct cgroup_room *room)
{
	CLEANUP_FREE char *mounts = NULL, *groups = NULL;
	char root[256], at[256], group[256], dir[CGROUP_PATH_MAX] = "";
	size_t top;

	if (fdio_read_file(mountinfo, FILE_MAX, &mounts) < 0 ||
	    fdio_read_file(member, FILE_MAX, &groups) < 0)
		return;
	if (!find_mount(mounts, v, root, at) || !find_member(groups, v, group))
		return;
	if (below)
		cut_end(group, INIT_SCOPE);
	top = strlen(at);
	if ((size_t)snprintf(dir, sizeof(dir), "%s%s%s%s", at, behind(root, group),
			     below ? "/" : "", below ? below : "") >= CGROUP_PATH_MAX)
		return;
	/* The root has no limit, and no file for one where that is version 2. */
	for (;;) {
		char *slash = strrchr(dir, '/');

		look_at(v, dir, room);
		if (strlen(dir) <= top || !slash)
			return;
		*slash = '\0';
	}
}

void cgroup_memory(const char *mountinfo, const char *member, const char *below,
		   struct cgroup_room *room)
{
	for (size_t i = 0; i < ARRAY_SIZE(versions); i++)
		look_up(&versions[i], mountinfo, member, below, room);
}
