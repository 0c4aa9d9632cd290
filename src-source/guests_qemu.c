/* SPDX-License-Identifier: Apache-2.0 */
#include "guests_qemu.h"

#include <errno.h>
#include <string.h>

#include "guest/qemu/qemu.h"
#include "migration.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/uuid.h"

/* From a look that found nothing to the next: a VM that is restarted is soon seen again. */
#define LOOK_AGAIN_US 1000000u
/* And where somebody answers who is no QEMU: to find that out may cost more than to find nobody. */
#define LOOK_MOST_US 60000000u

static void tell_known(struct source_guest *sg)
{
	void (*fn)(void *arg) = steal_ptr(&sg->when_known);

	if (fn)
		fn(sg->when_known_arg);
}

static void look_again(void *arg)
{
	struct source_guest *sg = arg;

	event_free(steal_ptr(&sg->look_again));
	guests_qemu_look(sg);
}

/* Return: whether the answer, or its absence, is what a VM that is starting, stopping or arriving gives */
static bool may_come(const struct error *err)
{
	static const char *const codes[] = {"no-monitor", "monitor-busy", "monitor-lost",
					    "guest-arriving"};

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		if (!strcmp(err->code, codes[i]))
			return true;
	return false;
}

/* The log hears of each reason once, not every second. */
static void not_found(struct source_guest *sg, const struct error *err)
{
	if (strcmp(sg->problem.msg, err->msg) != 0)
		log_warn("guest %s: %s", sg->desc.name, err->msg);
	sg->problem = *err;
	sg->look_us =
		may_come(err) || !sg->look_us ? LOOK_AGAIN_US : MIN(2 * sg->look_us, LOOK_MOST_US);
	if (!sg->look_again)
		sg->look_again = loop_timer(sg->src->loop, sg->look_us, look_again, sg);
	tell_known(sg);
}

static void on_found(void *arg, struct guest *g, const struct error *err)
{
	struct source_guest *sg = arg;
	struct error why = {0};

	qemu_attach_free(steal_ptr(&sg->look));
	if (!g) {
		not_found(sg, err);
		return;
	}
	if (guests_attach(sg->src, g, &why) < 0) {
		guest_free(g);
		not_found(sg, &why);
		return;
	}
	sg->look_us = 0;
	error_clear(&sg->problem);
	if (error_is_set(&g->cannot))
		log_warn("guest %s cannot be moved: %s", g->name, g->cannot.msg);
	else if (g->dma[0])
		log_notice("guest %s: %s", g->name, g->dma);
	if (g->experimental[0])
		log_notice("guest %s: %s", g->name, g->experimental);
	tell_known(sg);
}

void guests_qemu_look(struct source_guest *sg)
{
	const struct conf_guest *d = &sg->desc;
	uint8_t uuid[UUID_LEN];
	struct qemu_spec spec = {
		.name = d->name,
		.path = d->qmp,
		.generation = d->generation,
		.no_dma = json_string_value(json_object_get(d->vars, QEMU_VAR_NO_DMA)),
		.anonymous = json_string_value(json_object_get(d->vars, QEMU_VAR_ANONYMOUS))};
	struct error err = {0};

	if (d->driver != GUEST_DRIVER_QEMU || !d->qmp || sg->conn || sg->look || sg->handed_over)
		return;
	if (d->uuid[0] && !uuid_parse(d->uuid, uuid))
		spec.uuid = uuid;
	if (qemu_attach(sg->src->loop, &spec, on_found, sg, &sg->look, &err) < 0)
		not_found(sg, &err);
}

void guests_qemu_stop(struct source_guest *sg)
{
	qemu_attach_free(steal_ptr(&sg->look));
	if (sg->look_again)
		event_free(steal_ptr(&sg->look_again));
	sg->look_us = 0;
	error_clear(&sg->problem);
	tell_known(sg);
}

void guests_qemu_when_known(struct source_guest *sg, void (*fn)(void *arg), void *arg)
{
	if (!sg->look) {
		fn(arg);
		return;
	}
	tell_known(sg);
	sg->when_known = fn;
	sg->when_known_arg = arg;
}
