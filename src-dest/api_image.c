/* SPDX-License-Identifier: Apache-2.0 */
#include "api_image.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "dest.h"
#include "import.h"
#include "incoming.h"
#include "micro.h"
#include "util/cleanup.h"
#include "util/jsonx.h"

static int status_of(int r)
{
	switch (r) {
	case -ENOENT:
		return 404;
	case -EBUSY:
	case -EBADMSG:
	case -EEXIST:
	case -EADDRINUSE:
		return 409;
	case -EINVAL:
	case -EACCES:
	case -EPERM:
	case -EOPNOTSUPP:
	case -ENAMETOOLONG:
	case -ENOTDIR:
	case -ELOOP:
		return 422;
	case -ENOSPC:
	case -EDQUOT:
		return 507;
	default:
		return 500;
	}
}

static void accepted(struct rest_req *req, const char *where, json_t *view)
{
	rest_add_header(req, "Location", where);
	rest_reply(req, 202, view);
}

static void accepted_incoming(struct rest_req *req, const char *id, json_t *view)
{
	char where[128];

	snprintf(where, sizeof(where), "/v1/incoming/%s", id);
	accepted(req, where, view);
}

/* --- looking --- */

void api_get_snapshots(struct rest_req *req, void *ctx)
{
	const struct dest *d = ctx;
	json_t *items = store_list(d);

	if (!items) {
		rest_problemf(req, 500, NULL, "the folder of images cannot be read");
		return;
	}
	for (const struct import *im = d->imports; im; im = import_next(im))
		if (import_running(im))
			json_array_append_new(items, import_view(im));
	rest_reply_list(req, items, "id");
}

void api_get_snapshot(struct rest_req *req, void *ctx)
{
	const struct dest *d = ctx;
	const char *name = rest_param(req, "id");
	const struct import *im = import_find(d, name);
	json_t *stored = im && import_running(im) ? NULL : store_get(d, name);

	if (stored)
		rest_reply(req, 200, stored);
	else if (im)
		rest_reply(req, 200, import_view(im));
	else
		rest_problemf(req, 404, "no-such-snapshot",
			      "no image is named %s (decant-dest snapshots lists them)", name);
}

/* --- making --- */

/** struct import_body - of POST /v1/snapshots */
struct import_body {
	char *memory;
	char *name;
};

static const struct jsonx_field import_fields[] = {
	{.key = "memory",
	 .type = JSONX_STRING,
	 .required = true,
	 .min = 1,
	 JSONX_INTO(struct import_body, memory)},
	{.key = "name",
	 .type = JSONX_STRING,
	 .required = true,
	 .min = 1,
	 JSONX_INTO(struct import_body, name)},
};

void api_post_snapshots(struct rest_req *req, void *ctx)
{
	struct import_body b = {0};
	struct error err = {0};
	const struct jsonx_at at = {.path = "body", .code = "bad-body", .err = &err};
	struct import *im;
	char where[128];
	int r = jsonx_read(rest_body(req), &at, import_fields, ARRAY_SIZE(import_fields), &b);

	if (r) {
		rest_problem(req, 400, &err);
	} else if ((r = import_begin(ctx, b.memory, b.name, &im, &err))) {
		rest_problem(req, r == -ENOENT ? 422 : status_of(r), &err);
	} else {
		snprintf(where, sizeof(where), "/v1/snapshots/%s", b.name);
		accepted(req, where, import_view(im));
	}
	jsonx_clear(import_fields, ARRAY_SIZE(import_fields), &b);
}

/* --- using --- */

void api_post_restore(struct rest_req *req, void *ctx)
{
	struct error err = {0};
	struct incoming *inc;
	const char *key;
	json_t *value;
	int r;

	json_object_foreach((json_t *)rest_body(req), key, value) {
		rest_problemf(req, 400, "unknown-key", "body: unknown key %s", key);
		return;
	}
	r = restore_begin(ctx, rest_param(req, "id"), &inc, &err);
	if (r)
		rest_problem(req, status_of(r), &err);
	else
		accepted_incoming(req, incoming_id(inc), incoming_view(inc));
}

/** struct owner - of a socket */
struct owner {
	uint32_t uid;
	uint32_t gid;
};

/** struct uffd_body - of POST /v1/snapshots/{id}/uffd */
struct uffd_body {
	char *socket;
	struct owner owner;
};

static const struct jsonx_field owner_fields[] = {
	{.key = "uid",
	 .type = JSONX_UINT,
	 .required = true,
	 .max = UINT32_MAX - 1,
	 JSONX_INTO(struct owner, uid)},
	{.key = "gid",
	 .type = JSONX_UINT,
	 .required = true,
	 .max = UINT32_MAX - 1,
	 JSONX_INTO(struct owner, gid)},
};

static const struct jsonx_field uffd_fields[] = {
	{.key = "socket",
	 .type = JSONX_STRING,
	 .required = true,
	 .min = 1,
	 JSONX_INTO(struct uffd_body, socket)},
	{.key = "owner",
	 .type = JSONX_OBJECT,
	 .offset = offsetof(struct uffd_body, owner),
	 .fields = owner_fields,
	 .n_fields = ARRAY_SIZE(owner_fields)},
};

void api_post_uffd(struct rest_req *req, void *ctx)
{
	struct uffd_body b = {0};
	struct error err = {0};
	const struct jsonx_at at = {.path = "body", .code = "bad-body", .err = &err};
	struct micro_wish wish = {.image = rest_param(req, "id")};
	struct micro *m;
	int r = jsonx_read(rest_body(req), &at, uffd_fields, ARRAY_SIZE(uffd_fields), &b);

	wish.socket = b.socket;
	wish.has_owner = json_object_get(rest_body(req), "owner");
	wish.uid = b.owner.uid;
	wish.gid = b.owner.gid;
	if (r) {
		rest_problem(req, 400, &err);
	} else if ((r = micro_begin(ctx, &wish, &m, &err))) {
		/* 404 is said of the image only, not of the socket's folder. */
		rest_problem(req,
			     r == -ENOENT && strcmp(err.code, "no-such-snapshot") != 0
				     ? 422
				     : status_of(r),
			     &err);
	} else {
		accepted_incoming(req, micro_id(m), micro_view(m));
	}
	jsonx_clear(uffd_fields, ARRAY_SIZE(uffd_fields), &b);
}
