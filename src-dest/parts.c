/* SPDX-License-Identifier: Apache-2.0 */
#include "parts.h"
#include "adopt.h"
#include "incoming_priv.h"
#include "room.h"
#include "sharing.h"
#include "util/cleanup.h"
#include "util/log.h"

static const struct part parts[] = {
	{.name = "driver", .advise = admit_driver},
	{.name = "host", .advise = admit_host},
	{.name = "limits", .advise = admit_limits},
	{.name = "room", .advise = room_admit},
	{.name = "residents", .advise = admit_resident},
	{.name = "launcher", .advise = admit_launcher},
	{.name = "adopted", .end = adopt_over},
	{.name = "qemu", .advise = prepare_qemu_socket, .end = prepare_qemu_end},
	{.name = "memory", .listen = handover_listen_memory},
	/* Behind memory: sharers fault at once, and what they ask for is placed. */
	{.name = "sharers", .listen = sharing_listen, .end = sharing_over},
};

static int objection(const struct incoming *inc, const struct part *p, int r,
		     const struct error *err)
{
	log_debug("incoming %s: %s objects: %s", inc->id_text, p->name, err->msg);
	return r;
}

int parts_advise(struct incoming *inc, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		int r = parts[i].advise ? parts[i].advise(inc, err) : 0;

		if (r)
			return objection(inc, &parts[i], r, err);
	}
	return 0;
}

int parts_listen(struct incoming *inc, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		int r = parts[i].listen ? parts[i].listen(inc, err) : 0;

		if (r)
			return objection(inc, &parts[i], r, err);
	}
	return 0;
}

void parts_end(struct incoming *inc)
{
	for (size_t i = ARRAY_SIZE(parts); i-- > 0;)
		if (parts[i].end)
			parts[i].end(inc);
}
