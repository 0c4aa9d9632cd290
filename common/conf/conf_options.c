/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "conf/conf_common.h"
#include "util/cleanup.h"

static const char *const modes[] = {[MIG_MODE_HYBRID] = "hybrid",
				    [MIG_MODE_POSTCOPY] = "postcopy",
				    [MIG_MODE_PRECOPY] = "precopy",
				    NULL};
static const char *const no_convergences[] = {[MIG_NOCONV_FAIL] = "fail",
					      [MIG_NOCONV_STOP] = "stop",
					      [MIG_NOCONV_POSTCOPY] = "postcopy",
					      NULL};
static const char *const trackings[] = {[MIG_TRACKING_AUTO] = "auto",
					[MIG_TRACKING_ASYNC] = "async",
					[MIG_TRACKING_FAULTS] = "faults",
					NULL};
static const char *const compressions[] = {[MIG_COMPRESSION_NONE] = "none", NULL};

/* The contract knows more words than there are features. */
static int take_compression(const json_t *value, const char *key, const struct jsonx_at *at,
			    void *obj)
{
	const char *s = json_string_value(value);

	(void)key;
	(void)obj;
	if (s && !strcmp(s, "none"))
		return 0;
	if (s && !strcmp(s, "zstd"))
		return error_set(at->err, -ENOTSUP, "not-supported",
				 "%s: zstd is not supported yet", at->path);
	return jsonx_bad(at, "must be none or zstd");
}

static const struct jsonx_field fields[] = {
	{"mode", JSONX_WORD, .words = modes, JSONX_INTO(struct mig_options, mode)},
	{"channels", JSONX_UINT, .min = 1, .max = MIG_CHANNELS_MAX,
	 JSONX_INTO(struct mig_options, channels)},
	{"bandwidth", JSONX_UINT, JSONX_INTO(struct mig_options, bandwidth)},
	{"downtime_limit_ms", JSONX_UINT, .min = 1, .max = 600000,
	 JSONX_INTO(struct mig_options, downtime_limit_ms)},
	{"precopy_timeout_s", JSONX_UINT, .min = 1, .max = 86400,
	 JSONX_INTO(struct mig_options, precopy_timeout_s)},
	{"reconnect_timeout_s", JSONX_UINT, .max = 86400,
	 JSONX_INTO(struct mig_options, reconnect_timeout_s)},
	{"max_passes", JSONX_UINT, .min = 1, .max = 10000,
	 JSONX_INTO(struct mig_options, max_passes)},
	{"no_convergence", JSONX_WORD, .words = no_convergences,
	 JSONX_INTO(struct mig_options, no_convergence)},
	{"switchover_timeout_ms", JSONX_UINT, .min = 100, .max = 600000,
	 JSONX_INTO(struct mig_options, switchover_timeout_ms)},
	{"answer_timeout_ms", JSONX_UINT, .min = 1000, .max = 3600000,
	 JSONX_INTO(struct mig_options, answer_timeout_ms)},
	{"dma_quarantine_ms", JSONX_UINT, .min = 10, .max = 600000,
	 JSONX_INTO(struct mig_options, dma_quarantine_ms)},
	{"tracking", JSONX_WORD, .words = trackings, JSONX_INTO(struct mig_options, tracking)},
	{"urgent", JSONX_BOOL, JSONX_INTO(struct mig_options, urgent)},
	{"compression", JSONX_ANY, .take = take_compression},
	{"verify", JSONX_ANY, .take = conf_unsupported},
};

void conf_options_defaults(struct mig_options *o)
{
	*o = (struct mig_options){
		.mode = MIG_MODE_HYBRID,
		.no_convergence = MIG_NOCONV_FAIL,
		.tracking = MIG_TRACKING_AUTO,
		.compression = MIG_COMPRESSION_NONE,
		.channels = 2,
		.bandwidth = 0,
		.downtime_limit_ms = 300,
		.precopy_timeout_s = 300,
		.reconnect_timeout_s = 60,
		.max_passes = 30,
		.switchover_timeout_ms = 5000,
		.answer_timeout_ms = 60000,
		.dma_quarantine_ms = 30000,
		.urgent = true,
	};
}

int conf_options_read(const json_t *json, const char *where, struct mig_options *o,
		      struct error *err)
{
	struct jsonx_at at = {where, "bad-option", err};
	struct mig_options copy = *o;
	int r = jsonx_read(json, &at, fields, ARRAY_SIZE(fields), &copy);

	if (!r)
		*o = copy;
	return r;
}

json_t *conf_options_json(const struct mig_options *o)
{
	return json_pack(
		"{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:s, s:b, s:s}", "mode",
		modes[o->mode], "channels", (json_int_t)o->channels, "bandwidth",
		(json_int_t)o->bandwidth, "downtime_limit_ms", (json_int_t)o->downtime_limit_ms,
		"precopy_timeout_s", (json_int_t)o->precopy_timeout_s, "reconnect_timeout_s",
		(json_int_t)o->reconnect_timeout_s, "max_passes", (json_int_t)o->max_passes,
		"no_convergence", no_convergences[o->no_convergence], "switchover_timeout_ms",
		(json_int_t)o->switchover_timeout_ms, "answer_timeout_ms",
		(json_int_t)o->answer_timeout_ms, "dma_quarantine_ms",
		(json_int_t)o->dma_quarantine_ms, "tracking", trackings[o->tracking], "urgent",
		o->urgent, "compression", compressions[o->compression]);
}

/**
 * struct arg - an option of the command line
 * @key:	of the member it sets
 * @value:	the member's value if the option takes none, else NULL
 */
static const struct arg {
	const char *key;
	const char *value;
} args[] = {
	{"mode", NULL},
	{"channels", NULL},
	{"bandwidth", NULL},
	{"downtime_limit_ms", NULL},
	{"precopy_timeout_s", NULL},
	{"reconnect_timeout_s", NULL},
	{"max_passes", NULL},
	{"no_convergence", NULL},
	{"switchover_timeout_ms", NULL},
	{"answer_timeout_ms", NULL},
	{"dma_quarantine_ms", NULL},
	{"tracking", NULL},
	{"compression", NULL},
	{"urgent", "false"},
};

/* In the order of args[]. */
static const struct conf_option_help helps[] = {
	{"--mode", "hybrid|postcopy|precopy", "when the guest changes hosts (hybrid)"},
	{"--channels", "N", "bulk connections, 1 to 16 (2)"},
	{"--bandwidth", "RATE", "limit of all bulk data, in bit/s: 800Mbit, 5Gbit (none)"},
	{"--downtime-limit-ms", "MS", "precopy stops the guest once the rest fits in here (300)"},
	{"--precopy-timeout-s", "S", "longest precopy (300)"},
	{"--reconnect-timeout-s", "S", "precopy: longest time without a connection (60)"},
	{"--max-passes", "N", "most passes of precopy (30)"},
	{"--no-convergence", "fail|stop|postcopy", "when neither suffices (fail)"},
	{"--switchover-timeout-ms", "MS", "longest wait with the guest paused (5000)"},
	{"--answer-timeout-ms", "MS",
	 "longest wait for the other agent, the guest running (60000)"},
	{"--dma-quarantine-ms", "MS", "precopy: longest I/O into memory of the guest (30000)"},
	{"--tracking", "auto|async|faults", "how writes are seen (auto)"},
	{"--compression", "none", "of page data (none)"},
	{"--no-urgent", NULL, "no connection of its own for the pages asked for"},
};

_Static_assert(ARRAY_SIZE(args) == ARRAY_SIZE(helps), "each option has its line of help");

const struct conf_option_help *conf_options_help(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(helps);
	return helps;
}

static const struct arg *find_arg(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(args); i++)
		if (!strcmp(helps[i].name + 2, name))
			return &args[i];
	return NULL;
}

int conf_options_arg_takes(const char *name)
{
	const struct arg *a = find_arg(name);

	return a ? !a->value : -ENOENT;
}

static const struct jsonx_field *find_field(const char *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		if (!strcmp(fields[i].key, key))
			return &fields[i];
	return NULL;
}

/* A word of the command line as the JSON that the member wants. */
static int arg_json(const char *key, const char *value, json_t **ret, struct error *err)
{
	const struct jsonx_field *f = find_field(key);
	uint64_t rate;
	char *end;
	int r;

	if (!strcmp(key, "bandwidth")) {
		r = jsonx_rate(value, &rate, err);
		if (r < 0)
			return r;
		*ret = json_integer((json_int_t)rate);
	} else if (f->type == JSONX_BOOL) {
		*ret = json_boolean(strcmp(value, "false"));
	} else if (f->type == JSONX_UINT) {
		errno = 0;
		long long v = strtoll(value, &end, 10);

		if (end == value || *end || errno)
			return error_set(err, -EINVAL, "bad-option", "\"%.64s\" is no number",
					 value);
		*ret = json_integer(v);
	} else {
		*ret = json_string(value);
		if (!*ret)
			return error_set(err, -EINVAL, "bad-option", "is no text");
	}
	return *ret ? 0 : -ENOMEM;
}

/* Bounds and words are those of the JSON; only the name in the message is the option's. */
static int arg_check(const char *key, json_t *member, struct error *err)
{
	json_t *one = json_pack("{s:O}", key, member);
	struct mig_options unused;
	struct error found = {0};
	char *text;
	int r;

	conf_options_defaults(&unused);
	r = conf_options_read(one, "", &unused, &found);
	json_decref(one);
	text = strstr(found.msg, ": ");
	return r < 0 ? error_set(err, r, found.code, "%s", text ? text + 2 : found.msg) : 0;
}

int conf_options_arg(const char *name, const char *value, json_t *json, struct error *err)
{
	const struct arg *a = find_arg(name);
	json_t *member = NULL;
	int r;

	if (!a)
		return error_set(err, -ENOENT, "bad-option", "--%s: no such option", name);
	if (!value)
		value = a->value;
	r = value ? arg_json(a->key, value, &member, err)
		  : error_set(err, -EINVAL, "bad-option", "needs a value");
	if (!r)
		r = arg_check(a->key, member, err);
	if (!r && json_object_set(json, a->key, member) < 0)
		r = -ENOMEM;
	json_decref(member);
	error_prefix(err, "--%s", name);
	return r;
}

const char *conf_options_mode_name(enum mig_mode m)
{
	return modes[m];
}

int conf_options_mode_parse(const char *s, enum mig_mode *ret, struct error *err)
{
	for (int i = 0; modes[i]; i++) {
		if (!strcmp(modes[i], s)) {
			*ret = (enum mig_mode)i;
			return 0;
		}
	}
	return error_set(err, -EINVAL, "bad-option",
			 "mode: \"%.64s\" is not hybrid, postcopy or precopy", s);
}
