/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection of a sharer, the agent's side: a process that maps the memory of a guest, and hands
 * over a userfaultfd of its own (GUEST.md, Sharers). attach.c makes them; what is to be done about
 * its ranges is the agent's. Loop thread only.
 */
#ifndef DECANT_GUEST_SHARE_H
#define DECANT_GUEST_SHARE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "guest/gwire.h"
#include "util/error.h"
#include "util/loop.h"

/** SHARE_MAPS_MAX - ranges that may wait for their DONE */
#define SHARE_MAPS_MAX 256

struct share;

/**
 * struct share_ops - what it says
 * @map:	a range; answer it with share_done(), now or later. Its numbers are not checked yet
 * @unmap:	what lies in [@address, @address + @length) was unmapped
 * @gone:	the connection has ended, or (@dead) the process. Called at most twice, @dead last;
 *		share_free() may be called here
 */
struct share_ops {
	void (*map)(void *arg, uint32_t id, const struct gwire_share *r);
	void (*unmap)(void *arg, uint64_t address, uint64_t length);
	void (*gone)(void *arg, bool dead);
};

/**
 * struct share - a sharer
 * @guest:	whose memory it maps, as it says
 * @name:	what it calls itself
 * @again:	its userfaultfd has been with an agent before
 * @pid:	its process
 * @uffd:	owned; whoever takes it leaves -1
 */
struct share {
	char guest[GWIRE_NAME_MAX];
	char name[GWIRE_NAME_MAX];
	bool again;
	pid_t pid;
	int uffd;
};

/** share_new() - @sock, @pidfd and @uffd are taken over on success. Return: NULL when out of memory */
struct share *share_new(struct loop *loop, int sock, int pidfd, pid_t pid,
			const struct gwire_sharer *hello, int uffd);
/** share_welcome() - accepted: what it says goes to @ops */
void share_welcome(struct share *s, const struct share_ops *ops, void *arg);
/** share_done() - answer a range: @missing says whether it is guarded now, or nothing of it is missing */
void share_done(struct share *s, uint32_t id, int ret, bool missing, const char *message);
/** share_settled() - nothing is missing any more */
void share_settled(struct share *s);
/** share_refuse() - say why, end the connection; the process is still watched */
void share_refuse(struct share *s, const struct error *why);
/** share_expel() - share_refuse(), and @ops->gone is called from the loop, as if it had hung up */
void share_expel(struct share *s, const struct error *why);
/** share_free() - also from its callbacks, at their end; NULL is fine */
void share_free(struct share *s);

#endif
