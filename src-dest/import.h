/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking a raw file of memory as a stored image: what Firecracker leaves beside the state of a
 * snapshot. The file is read by a thread of its own; the loop only looks on. It may be any file that
 * this agent can read: who may ask is whoever may use the API's socket, which is its administrator.
 *
 * Loop thread only.
 */
#ifndef DECANT_IMPORT_H
#define DECANT_IMPORT_H

#include <jansson.h>
#include "dest.h"
#include "util/error.h"

struct import;

/** IMPORTS_MAX - under way at a time; as many that have ended are remembered */
#define IMPORTS_MAX 8

/**
 * import_begin() - begin to store an image
 * @memory:	absolute path of the file
 * @name:	of the image
 *
 * Return: 0; -EEXIST if there is an image of the name; -EINVAL for a file that is not of whole pages of
 * 4 KiB, is empty or no regular file, or for a bad name; -ENOENT, -EACCES, -EBUSY or another -errno;
 * with @err filled
 */
int import_begin(struct dest *d, const char *memory, const char *name, struct import **ret,
		 struct error *err);
/** import_find() - the newest of that image, under way or ended. Return: NULL if none is remembered */
struct import *import_find(const struct dest *d, const char *name);
/** import_view() - Return: new reference to the object of the REST interface, NULL without memory */
json_t *import_view(const struct import *im);
/** import_running() - Return: whether it is under way */
bool import_running(const struct import *im);
/** import_next() - Return: next in dest.imports */
struct import *import_next(const struct import *im);
/** import_adopt_start() - tell the end of those that an earlier life of the agent had begun, and was killed with */
void import_adopt_start(struct dest *d);
/** import_free_all() - the agent ends: nothing is left of images that are not complete */
void import_free_all(struct dest *d);

#endif
