/* SPDX-License-Identifier: Apache-2.0 */
#include "children.h"
#include <errno.h>
#include <unistd.h>
#include "uffd/uffd.h"
#include "util/log.h"

/* Those that have ended, or have started another program. */
static void forget_ended(struct children *c, const struct place *p)
{
	const struct place_block *b = &p->blocks[0];
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++) {
		if (uffd_wake(c->fd[i], b->mem.block.addr, b->page_size) == -ESRCH)
			close(c->fd[i]);
		else
			c->fd[n++] = c->fd[i];
	}
	c->n = n;
}

static bool has_private(const struct place *p)
{
	for (unsigned int i = 0; i < p->n; i++)
		if (p->blocks[i].kind == MSG_BLOCK_ANON)
			return true;
	return false;
}

/* Return: whether that will do */
static bool share(struct place *p, int fd)
{
	struct sharer_spec spec = {.uffd = fd, .again = true, .name = "forked child"};
	struct sharer *child;
	struct error err = {0};

	if (has_private(p) || sharers_add(&p->sharers, &spec, &child, &err) < 0)
		return false;
	for (unsigned int i = 0; i < p->n; i++) {
		const struct place_block *b = &p->blocks[i];
		struct sharer_range r = {.block = i,
					 .page_size = b->page_size,
					 .length = b->length,
					 .addr = b->mem.block.addr};

		/* Of a block that it does not inherit there is nothing to register. */
		if (sharers_map(&p->sharers, child, &r, &err) < 0)
			log_debug("%s", err.msg);
	}
	return true;
}

int children_take(struct children *c, struct place *p, int fd, struct error *err)
{
	log_warn("the guest has forked, and its child inherits blocks (MADV_DOFORK): it is not "
		 "migrated, and may wait where it touches memory that has not arrived");
	if (share(p, fd))
		return 0;
	if (c->n == CHILDREN_MAX)
		forget_ended(c, p);
	if (c->n < CHILDREN_MAX) {
		c->fd[c->n++] = fd;
		return 0;
	}
	close(fd);
	return error_set(
		err, -EMFILE, "guest-forks",
		"the guest has more than %d forked children that inherit its blocks: leave "
		"MADV_DONTFORK on them",
		CHILDREN_MAX);
}

void children_clear(struct children *c)
{
	for (size_t i = 0; i < c->n; i++)
		close(c->fd[i]);
	c->n = 0;
}
