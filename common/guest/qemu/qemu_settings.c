/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's own migration settings: those of an earlier migration of its own can be left (TLS, multifd,
 * post-copy…), and the device state through a pipe would not come out of it with most of them. They are
 * changed for as long as it takes, and put back as they were.
 *
 * Rule 8: as they were is noted in QEMU, in an object "decant-settings" that is made before anything is changed and
 * goes when all is as it was. A successor of an agent that has died finds it, and puts them back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "guest/qemu/qemu_impl.h"
#include "util/cleanup.h"
#include "util/log.h"

/* No limit in practice; QEMU's own would take 20 ms for each 2 MiB. */
#define BANDWIDTH (INT64_C(1) << 40)

/** struct ours - a capability that the stream needs; @loading: only when it comes in */
static const struct ours {
	const char *name;
	bool loading;
} ours[] = {
	{"x-ignore-shared", false},
	{"events", false},
	{"late-block-activate", true},
};

/* What can be on and makes no difference to the devices' state, or belongs to it. */
static const char *const harmless[] = {"dirty-bitmaps", "validate-uuid", "auto-converge",
				       "zero-blocks"};

/** struct plain - a parameter that has to be @value, where QEMU has it and it is something else */
static const struct plain {
	const char *name, *value;
} plain[] = {
	{"tls-creds", ""},
	{"tls-hostname", ""},
	{"tls-authz", ""},
	{"mode", "normal"},
};

static const struct ours *ours_of(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		if (!strcmp(name, ours[i].name))
			return &ours[i];
	return NULL;
}

static bool is_harmless(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(harmless); i++)
		if (!strcmp(name, harmless[i]))
			return true;
	return false;
}

static json_t *capability(const char *name, bool on)
{
	return json_pack("{s:s, s:b}", "capability", name, "state", on);
}

/* Those that have to be changed, as they are. Return: new reference */
static json_t *touched(const json_t *caps, unsigned int *ret_ours)
{
	json_t *list = json_array();
	const json_t *cap;
	size_t i;

	*ret_ours = 0;
	json_array_foreach(caps, i, cap) {
		const char *name = json_string_value(json_object_get(cap, "capability"));
		bool on = json_is_true(json_object_get(cap, "state"));

		if (!name)
			continue;
		if (ours_of(name))
			++*ret_ours;
		if (ours_of(name) || (on && !is_harmless(name)))
			json_array_append_new(list, capability(name, on));
	}
	return list;
}

static json_t *old_parameters(const json_t *params)
{
	json_t *o = json_object();

	json_object_set(o, "max-bandwidth", json_object_get(params, "max-bandwidth"));
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		const char *is = json_string_value(json_object_get(params, plain[i].name));

		if (is && strcmp(is, plain[i].value) != 0)
			json_object_set_new(o, plain[i].name, json_string(is));
	}
	return o;
}

int qemu_settings_found(struct qemu *v, const json_t *caps, const json_t *params, const char *note)
{
	json_t *noted = note ? json_loads(note, 0, NULL) : NULL;
	unsigned int n;
	json_t *list = touched(caps, &n);

	if (json_is_array(json_object_get(noted, "capabilities")) &&
	    json_is_object(json_object_get(noted, "parameters"))) {
		v->old_settings = noted;
		v->changed = true;
		json_decref(list);
		log_notice("guest %s: QEMU's migration settings were left changed by an agent that "
			   "has ended",
			   v->g.name);
	} else {
		json_decref(noted);
		v->old_settings = json_pack("{s:o, s:o}", "capabilities", list, "parameters",
					    old_parameters(params));
	}
	return n == ARRAY_SIZE(ours) && v->old_settings ? 0 : -EOPNOTSUPP;
}

static void write_note(struct qemu *v)
{
	CLEANUP_FREE char *text = json_dumps(v->old_settings, JSON_COMPACT);

	if (text)
		qemu_tell(v, "object-add",
			  json_pack("{s:s, s:s, s:s}", "qom-type", "secret", "id", QEMU_SETTINGS,
				    "data", text));
}

void qemu_settings_change(struct qemu *v, bool loading)
{
	const json_t *olds = json_object_get(v->old_settings, "parameters"), *cap;
	json_t *list = json_array(), *params = json_object();
	size_t i;

	if (!v->changed)
		write_note(v);
	v->changed = true;
	json_array_foreach(json_object_get(v->old_settings, "capabilities"), i, cap) {
		const char *name = json_string_value(json_object_get(cap, "capability"));
		const struct ours *o = name ? ours_of(name) : NULL;

		if (name && (!o || loading || !o->loading))
			json_array_append_new(list, capability(name, o != NULL));
	}
	for (i = 0; i < ARRAY_SIZE(plain); i++)
		if (json_object_get(olds, plain[i].name))
			json_object_set_new(params, plain[i].name, json_string(plain[i].value));
	if (!loading)
		json_object_set_new(params, "max-bandwidth", json_integer(BANDWIDTH));
	qemu_tell(v, "migrate-set-capabilities", json_pack("{s:o}", "capabilities", list));
	if (json_object_size(params))
		qemu_tell(v, "migrate-set-parameters", params);
	else
		json_decref(params);
}

void qemu_settings_restore(struct qemu *v)
{
	if (!v->changed || v->lost || v->stream.migrating)
		return;
	v->changed = false;
	qemu_tell(v, "migrate-set-capabilities",
		  json_pack("{s:O}", "capabilities",
			    json_object_get(v->old_settings, "capabilities")));
	qemu_tell(v, "migrate-set-parameters",
		  json_incref(json_object_get(v->old_settings, "parameters")));
	qemu_tell(v, "object-del", json_pack("{s:s}", "id", QEMU_SETTINGS));
}
