/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of place share. */
#ifndef DECANT_PLACE_PRIV_H
#define DECANT_PLACE_PRIV_H

#include "place.h"

/** place_fail() - fill @err for a call that failed at a page. Return: @r */
int place_fail(struct error *err, int r, const struct place_block *b, uint64_t page,
	       const char *what);
/** place_set() - states of pages, whatever they had, and the count of those received */
void place_set(struct place_block *b, uint64_t first, uint64_t n, enum pages_state state);
/** place_punch() - make holes, not looking whether they are. Return: 0 or -errno with @err filled */
int place_punch(struct place *p, struct place_block *b, const struct guest_range *ranges, size_t n,
		struct error *err);
/** place_can() - does what UFFDIO_REGISTER allows suffice? @can: UFFD_CAN_*. Return: 0 or -EOPNOTSUPP
 * with @err naming the block and what it lacks */
int place_can(const struct place_block *b, uint64_t can, struct error *err);
/** place_check() - may this frame be placed? @unit: bytes of which offset and length are multiples;
 * @m->block exists. Return: 0 or -EBADMSG with @err filled */
int place_check(const struct place *p, const struct msg_pages *m, uint64_t unit, struct error *err);
/** place_put() - place whole pages whose digest is right; as place_pages() */
int place_put(struct place *p, const struct place_io *io, const struct msg_pages *m,
	      const void *data, struct error *err);
/** place_forget() - pages came damaged: in precopy an older copy of them must not count either.
 * Return: 0 or -errno with @err filled */
int place_forget(struct place *p, const struct msg_pages *m, struct error *err);

#endif
