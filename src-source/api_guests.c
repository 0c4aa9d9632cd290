/* SPDX-License-Identifier: Apache-2.0 */
/* REST: the guests of this host. */
#include <errno.h>
#include <string.h>

#include "api.h"
#include "guests_qemu.h"
#include "guests_store.h"
#include "util/cleanup.h"

void api_get_guests(struct rest_req *req, void *ctx)
{
	struct source *s = ctx;
	json_t *a = json_array();

	for (const struct source_guest *g = s->guests; g; g = g->next)
		json_array_append_new(a, guests_json(g));
	rest_reply_list(req, a, "name");
}

static struct source_guest *guest_of(struct rest_req *req, struct source *s)
{
	struct source_guest *g = guests_find(s, rest_param(req, "name"));

	if (!g)
		rest_problemf(req, 404, "no-such-guest",
			      "no guest is named %s (decant guests lists them)",
			      rest_param(req, "name"));
	return g;
}

/** struct added - an answer that waits until its description is on the disk, and it is known what the guest is */
struct added {
	struct source *s;
	struct rest_req *req;
	char name[CONF_NAME_MAX];
};

static void answer_added(void *arg)
{
	CLEANUP_FREE struct added *a = arg;
	struct source_guest *g = guests_find(a->s, a->name);

	if (g)
		rest_reply(a->req, 201, guests_json(g));
	else
		rest_problemf(a->req, 404, "no-such-guest", "guest %s was removed", a->name);
}

static void on_added(void *arg, int ret, const struct error *err)
{
	struct added *a = arg;
	struct source_guest *g = guests_find(a->s, a->name);
	char where[128];

	if (ret < 0) {
		rest_problem(a->req, api_status(ret), err);
		free(a);
		return;
	}
	snprintf(where, sizeof(where), "/v1/guests/%s", a->name);
	rest_add_header(a->req, "Location", where);
	/* One that has just arrived is still in decant-dest's hands: it leaves the monitor on our answer. */
	if (g && !g->desc.generation)
		guests_qemu_when_known(g, answer_added, a);
	else
		answer_added(a);
}

static int add(struct rest_req *req, struct source *s, const struct conf_guest *desc,
	       struct error *err)
{
	struct added *a = calloc(1, sizeof(*a));
	struct source_guest *g;
	int r = a ? guests_add(s, desc, &g, err) : error_set(err, -ENOMEM, NULL, "out of memory");

	if (!r) {
		g->stored = true;
		*a = (struct added){.s = s, .req = req};
		snprintf(a->name, sizeof(a->name), "%s", g->desc.name);
		r = guests_store_save(s, on_added, a, err);
	}
	if (r < 0)
		free(a);
	return r;
}

void api_post_guests(struct rest_req *req, void *ctx)
{
	struct conf_guest desc;
	struct error err = {0};
	int r = conf_guest_read(rest_body(req), "body", &desc, &err);

	if (!r) {
		r = add(req, ctx, &desc, &err);
		conf_guest_clear(&desc);
	}
	if (r < 0)
		rest_problem(req, r == -ENOTSUP ? 422 : api_status(r), &err);
}

void api_get_guest(struct rest_req *req, void *ctx)
{
	const struct source_guest *g = guest_of(req, ctx);

	if (g)
		rest_reply(req, 200, guests_json(g));
}

static void on_removed(void *arg, int ret, const struct error *err)
{
	struct rest_req *req = arg;

	if (ret < 0)
		rest_problem(req, api_status(ret), err);
	else
		rest_reply(req, 204, NULL);
}

void api_delete_guest(struct rest_req *req, void *ctx)
{
	struct source_guest *g = guest_of(req, ctx);
	struct error err = {0};
	int r;

	if (!g)
		return;
	r = guests_remove(g, &err);
	if (!r)
		r = guests_store_save(ctx, on_removed, req, &err);
	if (r < 0)
		rest_problem(req, api_status(r), &err);
}
