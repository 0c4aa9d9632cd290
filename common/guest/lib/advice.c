/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/lib/lib.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

/* More mappings than this inside the blocks: the rest keeps its advice, which is reported. */
#define ADVICE_MAX 4096

/* A switch of transparent huge pages reads like "always [madvise] never". */
static bool thp_by_default(const char *path)
{
	char line[128] = "";
	FILE *f = fopen(path, "re");
	bool on;

	if (!f)
		return false;
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	on = strstr(line, "[always]") || strstr(line, "[within_size]") || strstr(line, "[force]");
	return on;
}

struct scan {
	struct decant_guest *g;
	bool thp_anon;
	bool thp_shmem;
	uintptr_t start, end;
	struct lib_advice *found;
	size_t n;
	bool overflow;
};

static bool has_flag(const char *flags, const char *two)
{
	const char *p = flags;

	while ((p = strstr(p, two))) {
		if (p[-1] == ' ' && (p[2] == ' ' || p[2] == '\n' || p[2] == '\0'))
			return true;
		p += 2;
	}
	return false;
}

/* One mapping, cut down to each block that it covers a part of. */
static void scan_mapping(struct scan *s, const char *flags)
{
	bool locked = has_flag(flags, "lo"), never = has_flag(flags, "nh");
	bool asked = has_flag(flags, "hg");

	for (size_t i = 0; i < s->g->nblocks; i++) {
		const struct lib_block *b = &s->g->blocks[i];
		uintptr_t start = (uintptr_t)b->addr, end = start + b->length;
		bool huge = b->kind != 2 && !never &&
			    (asked || (b->kind == 1 ? s->thp_anon : s->thp_shmem));

		if (start < s->start)
			start = s->start;
		if (end > s->end)
			end = s->end;
		if (start >= end || (!huge && !locked))
			continue;
		if (s->n == ADVICE_MAX) {
			s->overflow = true;
			return;
		}
		s->found[s->n++] = (struct lib_advice){
			.start = start,
			.end = end,
			.huge = huge,
			.locked = locked,
			.onfault = has_flag(flags, "lf"),
		};
	}
}

/* The kernel tells what was advised and locked nowhere else than here. */
static int scan_all(struct scan *s)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	size_t cap = 0;
	char *line = NULL;

	if (!f)
		return -errno;
	while (getline(&line, &cap, f) > 0) {
		uintptr_t start, end;

		if (!strncmp(line, "VmFlags:", 8)) {
			scan_mapping(s, line);
		} else if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2) {
			s->start = start;
			s->end = end;
		}
	}
	free(line);
	fclose(f);
	return s->overflow ? -E2BIG : 0;
}

/* What an earlier PREPARE changed must be restored, too, so the lists are joined. */
static int remember(struct decant_guest *g, const struct lib_advice *found, size_t n)
{
	struct lib_advice *grown;

	if (!n)
		return 0;
	pthread_mutex_lock(&g->lock);
	grown = realloc(g->advice, (g->nadvice + n) * sizeof(*grown));
	if (grown) {
		memcpy(grown + g->nadvice, found, n * sizeof(*grown));
		g->advice = grown;
		g->nadvice += n;
	}
	pthread_mutex_unlock(&g->lock);
	return grown ? 0 : -ENOMEM;
}

static int change(const struct lib_advice *a, uint64_t *unlocked)
{
	size_t len = a->end - a->start;

	if (a->locked) {
		if (munlock((void *)a->start, len))
			return -errno;
		*unlocked += len;
	}
	if (a->huge && madvise((void *)a->start, len, MADV_NOHUGEPAGE))
		return -errno;
	return 0;
}

int lib_advice_prepare(struct decant_guest *g, uint64_t *ret_unlocked,
		       char msg[static GWIRE_MESSAGE_MAX])
{
	struct scan s = {
		.g = g,
		.thp_anon = thp_by_default("/sys/kernel/mm/transparent_hugepage/enabled"),
		.thp_shmem = thp_by_default("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
		.found = calloc(ADVICE_MAX, sizeof(*s.found)),
	};
	uint64_t unlocked = 0;
	int ret = s.found ? scan_all(&s) : -ENOMEM;

	if (!ret)
		ret = remember(g, s.found, s.n);
	for (size_t i = 0; !ret && i < s.n; i++)
		ret = change(&s.found[i], &unlocked);
	free(s.found);
	if (ret)
		snprintf(msg, GWIRE_MESSAGE_MAX, "cannot unlock or advise memory: %s",
			 strerrorname_np(-ret));
	*ret_unlocked = unlocked;
	return ret;
}

static int restore(const struct lib_advice *a, uint64_t *locked)
{
	size_t len = a->end - a->start;
	int ret = 0;

	if (a->huge && madvise((void *)a->start, len, MADV_HUGEPAGE))
		ret = -errno;
	if (a->locked) {
		if (mlock2((void *)a->start, len, a->onfault ? MLOCK_ONFAULT : 0))
			ret = -errno;
		else
			*locked += len;
	}
	return ret;
}

int lib_advice_finish(struct decant_guest *g, uint64_t *ret_locked,
		      char msg[static GWIRE_MESSAGE_MAX])
{
	struct lib_advice *a;
	size_t n;
	int ret = 0, one;

	pthread_mutex_lock(&g->lock);
	a = g->advice;
	n = g->nadvice;
	g->advice = NULL;
	g->nadvice = 0;
	pthread_mutex_unlock(&g->lock);
	*ret_locked = 0;
	for (size_t i = 0; i < n; i++) {
		one = restore(&a[i], ret_locked);
		if (one && !ret) {
			ret = one;
			snprintf(msg, GWIRE_MESSAGE_MAX, "cannot %s %zu KiB again: %s",
				 a[i].locked ? "lock" : "advise", (a[i].end - a[i].start) / 1024,
				 strerrorname_np(-one));
		}
	}
	free(a);
	return ret;
}
