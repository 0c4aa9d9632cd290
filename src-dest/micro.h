/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro-VMs whose monitor hands its page faults to us, as Firecracker does when it loads a snapshot
 * with a memory backend of type "Uffd": it connects to a Unix socket, says where its memory is, gives
 * its userfaultfd, and closes. From then on its memory is filled out of a stored image, page by page
 * as it is touched, the rest in the background.
 *
 * One command is one micro-VM; an image can serve any number of them. The state of each:
 *
 *   listening	the socket is there
 *   greeting	a micro-VM has connected: the socket is gone, nobody else is let in
 *   serving	pages are given; some are missing yet
 *   completed	every page is there, and its memory is no longer registered: the micro-VM needs this
 *		agent no more. Its descriptor is read until its end all the same: a balloon that began
 *		to give pages back just before waits until that was read
 *   held	something is wrong: what can be given is given, the rest waits; never zeros
 *   (end)	it has ended
 *
 * Loop thread only.
 */
#ifndef DECANT_MICRO_H
#define DECANT_MICRO_H

#include <jansson.h>
#include "dest.h"
#include "util/error.h"

struct micro;

/**
 * struct micro_wish - what `uffd` asks for
 * @image:	name of the image; one that a source is still storing is fine
 * @socket:	absolute path
 * @has_owner, @uid, @gid: who shall own the socket, which only its owner may connect to
 */
struct micro_wish {
	const char *image;
	char *socket;
	bool has_owner;
	uint32_t uid;
	uint32_t gid;
};

/**
 * micro_begin() - listen for a micro-VM
 *
 * Return: 0; -ENOENT without such an image; -EBADMSG for a damaged one; -EOPNOTSUPP for one that is
 * not the memory of one micro-VM; -EBUSY at the limit; -EADDRINUSE, -EEXIST or another -errno for the
 * socket; with @err filled
 */
int micro_begin(struct dest *d, const struct micro_wish *wish, struct micro **ret,
		struct error *err);
/** micro_adopt_start() - take up those whose agent ended before everything was there */
void micro_adopt_start(struct dest *d);
/** micro_find() - by id. Return: NULL if there is none */
struct micro *micro_find(const struct dest *d, const char *id);
/** micro_next() - Return: next in dest.micros */
struct micro *micro_next(const struct micro *m);
/** micro_serves() - Return: whether there is a micro-VM behind it: one has connected, and has not ended */
bool micro_serves(const struct micro *m);
/** micro_id() - Return: as text */
const char *micro_id(const struct micro *m);
/** micro_view() - Return: new reference to the object of the REST interface, NULL without memory */
json_t *micro_view(const struct micro *m);
/** micro_end_all() - the agent ends: sockets go; what is served stays held for its next life */
void micro_end_all(struct dest *d);
/** micro_free_all() - the same, and free all of them; the loop has ended */
void micro_free_all(struct dest *d);

#endif
