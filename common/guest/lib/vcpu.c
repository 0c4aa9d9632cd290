/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that the program calls its virtual processors, and what the agent knows of them. */
#include "guest/lib/lib.h"

#include <errno.h>
#include <unistd.h>

static struct lib_vcpu *find(struct decant_guest *g, uint32_t tid)
{
	for (size_t i = 0; i < g->nvcpus; i++)
		if (g->vcpus[i].tid == tid)
			return &g->vcpus[i];
	return NULL;
}

static int set(struct decant_guest *g, bool on)
{
	uint32_t tid = (uint32_t)gettid();
	struct lib_vcpu *v = find(g, tid);

	if (!on && (!v || !v->on))
		return -ENOENT;
	if (!v && g->nvcpus == GWIRE_VCPUS_MAX)
		return -ENOSPC;
	if (!v)
		v = &g->vcpus[g->nvcpus++];
	else if (v->on == on)
		return 0;
	*v = (struct lib_vcpu){.tid = tid, .on = on};
	return 0;
}

static int change(struct decant_guest *g, bool on)
{
	int ret;

	if (!(g->flags & DECANT_GUEST_VCPUS))
		return -EINVAL;
	pthread_mutex_lock(&g->lock);
	ret = set(g, on);
	pthread_mutex_unlock(&g->lock);
	if (!ret)
		lib_wake(g);
	return ret;
}

DECANT_API int decant_vcpu_add(struct decant_guest *g)
{
	return change(g, true);
}

DECANT_API int decant_vcpu_remove(struct decant_guest *g)
{
	return change(g, false);
}

bool lib_vcpu_next(struct decant_guest *g, struct gwire_vcpu *ret)
{
	for (size_t i = 0; i < g->nvcpus; i++) {
		struct lib_vcpu *v = &g->vcpus[i];

		if (v->told)
			continue;
		*ret = (struct gwire_vcpu){v->tid, v->on};
		v->told = true;
		if (!v->on)
			*v = g->vcpus[--g->nvcpus];
		return true;
	}
	return false;
}

void lib_vcpu_forget(struct decant_guest *g)
{
	for (size_t i = 0; i < g->nvcpus;) {
		g->vcpus[i].told = false;
		if (g->vcpus[i].on)
			i++;
		else
			g->vcpus[i] = g->vcpus[--g->nvcpus];
	}
}
