/* SPDX-License-Identifier: Apache-2.0 */
/* A micro-VM as the REST interface shows it: an incoming guest like the others. */
#include "incoming_priv.h"
#include "micro_priv.h"
#include "rest/rest_events.h"
#include "util/jsonout.h"

static const char *phase(const struct micro *m)
{
	if (m->state != MICRO_END)
		return micro_state_name(m->state);
	return m->complete ? "completed" : m->placed ? "failed" : "aborted";
}

static uint64_t guest_bytes(const struct micro *m)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < m->n; i++)
		n += m->regions[i].size;
	return m->n ? n : m->memory;
}

static json_t *regions_json(const struct micro *m)
{
	json_t *a = json_array();

	for (unsigned int i = 0; a && i < m->n; i++)
		json_array_append_new(a, json_pack("{s:I, s:I, s:I}", "size",
						   (json_int_t)m->regions[i].size, "offset",
						   (json_int_t)m->regions[i].offset, "page_size",
						   (json_int_t)m->regions[i].page_size));
	return a;
}

void micro_publish(const struct micro *m, enum micro_state was)
{
	const char *now = phase(m);

	if (m->state == MICRO_END && !m->complete)
		now = was == MICRO_SERVING || was == MICRO_HELD ? "failed" : "aborted";
	rest_events_publish(m->d->events, "incoming",
			    json_pack("{s:s, s:s, s:s, s:s, s:o}", "id", m->id_text, "guest",
				      m->image, "from", "image", "phase", now, "error",
				      jsonout_error(&m->err)));
}

json_t *micro_view(const struct micro *m)
{
	json_t *o = json_pack(
		"{s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:[], s:o, s:s}", "id",
		m->id_text, "guest", m->image, "uuid", m->id_text, "phase", phase(m), "from",
		"image", "identity", "local", "created_at", jsonout_time(m->created_us), "ended_at",
		jsonout_time(m->ended_us), "error", jsonout_error(&m->err), "memory",
		incoming_view_memory(&m->place, guest_bytes(m), 0), "postcopy",
		incoming_view_postcopy(&m->place), "channels", "digest_ok",
		m->complete ? json_true() : json_null(), "snapshot", m->image);

	if (!o)
		return NULL;
	json_object_set_new(o, "socket", json_string(m->socket));
	json_object_set_new(o, "pid", m->pid ? json_integer(m->pid) : json_null());
	json_object_set_new(o, "regions", regions_json(m));
	return o;
}
