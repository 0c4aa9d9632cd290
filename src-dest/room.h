/* SPDX-License-Identifier: Apache-2.0 */
/* What this host has to spare: who is admitted to it, the answer to PROBE, and what GET /v1/host tells of guests (PROTOCOL.md, section 14). */
#ifndef DECANT_ROOM_H
#define DECANT_ROOM_H

#include <jansson.h>
#include "dest.h"
#include "msg.h"

/** room_cordoned() - may a guest begin to come here? Return: 0, or -EBUSY with @err ("host-cordoned") filled */
int room_cordoned(const struct dest *d, struct error *err);
/**
 * room_admit() - is there memory for it, beside what is promised to all that are arriving? A part: see parts.h
 *
 * Return: 0, or -ENOMEM with @err filled (no-room)
 */
int room_admit(struct incoming *inc, struct error *err);
/**
 * room_files() - is there room on the file systems that hold files of its memory?
 * @inc:	launched and attached, its place is filled and holds nothing yet
 *
 * Return: 0, or -ENOMEM with @err filled (no-room)
 */
int room_files(const struct incoming *inc, struct error *err);
/**
 * room_fill() - look around
 * @identity:	who asks
 * @ret:	written whole
 */
void room_fill(const struct dest *d, const char *identity, struct msg_room *ret);
/**
 * room_guests_json() - guests that this agent has to do with, and that decant-source does not have
 *
 * Members: arriving (coming in by a session, or out of an image), held (they run and wait for a source that is
 * away), resident (arrived, and not with decant-source yet), micro (served out of images). Return: new reference
 */
json_t *room_guests_json(const struct dest *d);

#endif
