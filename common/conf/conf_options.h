/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tuning options of one migration, as they stand in a configuration's "defaults", in a REST
 * request's "options" and on the command line: one table, one set of bounds, one wording of errors.
 */
#ifndef DECANT_CONF_OPTIONS_H
#define DECANT_CONF_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "util/error.h"

/** enum mig_mode - when the guest changes hosts, before or after its memory */
enum mig_mode { MIG_MODE_HYBRID, MIG_MODE_POSTCOPY, MIG_MODE_PRECOPY };
/** enum mig_no_convergence - what ends a precopy that does not */
enum mig_no_convergence { MIG_NOCONV_FAIL, MIG_NOCONV_STOP, MIG_NOCONV_POSTCOPY };
/** enum mig_tracking - how writes are seen; AUTO takes the best the host has */
enum mig_tracking { MIG_TRACKING_AUTO, MIG_TRACKING_ASYNC, MIG_TRACKING_FAULTS };
/** enum mig_compression - of page data */
enum mig_compression { MIG_COMPRESSION_NONE };

/** MIG_CHANNELS_MAX - most bulk channels of a session */
#define MIG_CHANNELS_MAX 16

/**
 * struct mig_options - a migration's tuning
 * @mode:		see enum mig_mode
 * @no_convergence:	see enum mig_no_convergence
 * @tracking:		see enum mig_tracking
 * @compression:	see enum mig_compression
 * @channels:		bulk channels, 1..MIG_CHANNELS_MAX
 * @bandwidth:		most bytes a second on all bulk channels together, 0 for no limit
 * @downtime_limit_ms:	precopy stops the guest once what is left fits into this
 * @precopy_timeout_s:	longest precopy
 * @reconnect_timeout_s: precopy: longest time without a session, 0: the loss of the session ends the migration
 * @max_passes:		most passes of precopy
 * @switchover_timeout_ms: longest wait for *ready* with the guest paused
 * @answer_timeout_ms:	how long the other agent may take for an answer while the guest runs: PREPARED, BARRIER_ACK,
 *			RECEIVED, RECEIPT; if it is shorter than their own bounds, also for a connection, and for RUNNING
 * @dma_quarantine_ms:	mode precopy: a page that a device may be writing to is copied when its last report is
 *			so old: longer than the longest I/O of the guest
 * @urgent:		a connection of its own for the pages asked for
 */
struct mig_options {
	enum mig_mode mode;
	enum mig_no_convergence no_convergence;
	enum mig_tracking tracking;
	enum mig_compression compression;
	uint32_t channels;
	uint64_t bandwidth;
	uint32_t downtime_limit_ms;
	uint32_t precopy_timeout_s;
	uint32_t reconnect_timeout_s;
	uint32_t max_passes;
	uint32_t switchover_timeout_ms;
	uint32_t answer_timeout_ms;
	uint32_t dma_quarantine_ms;
	bool urgent;
};

/** conf_options_defaults() - the contract's defaults */
void conf_options_defaults(struct mig_options *o);

/**
 * conf_options_read() - take over what a JSON object says
 * @json:	object with any of the option names; others are errors that name the key
 * @where:	path to @json for messages ("defaults", "options")
 * @o:		values that @json does not mention stay; untouched on failure
 *
 * Return: 0, or -EINVAL (code "bad-option") or -ENOTSUP (code "not-supported") with @err filled
 */
int conf_options_read(const json_t *json, const char *where, struct mig_options *o,
		      struct error *err);

/** conf_options_json() - Return: new reference to an object with every option, NULL when out of
 * memory */
json_t *conf_options_json(const struct mig_options *o);

/**
 * conf_options_arg() - read one command line option
 * @name:	without the dashes ("downtime-limit-ms", "no-urgent")
 * @value:	its value, NULL if none was given
 * @json:	object that gains the member; bandwidth is given in bits (jsonx_rate())
 *
 * Return: 0, -ENOENT if there is no such option, -EINVAL or -ENOTSUP as conf_options_read(), with
 * @err filled
 */
int conf_options_arg(const char *name, const char *value, json_t *json, struct error *err);

/** conf_options_arg_takes() - Return: 1 if option @name wants a value, 0 if not, -ENOENT if there
 * is none */
int conf_options_arg_takes(const char *name);

/**
 * struct conf_option_help - one line of a command's help
 * @name:	with the dashes
 * @value:	"MS", "auto|async|faults", NULL if it takes none
 * @help:	one line
 */
struct conf_option_help {
	const char *name;
	const char *value;
	const char *help;
};

/** conf_options_help() - Return: table with @ret_n lines, static */
const struct conf_option_help *conf_options_help(size_t *ret_n);

/** conf_options_mode_name() - Return: as in JSON */
const char *conf_options_mode_name(enum mig_mode m);
/** conf_options_mode_parse() - Return: 0 with @ret, or -EINVAL with @err filled */
int conf_options_mode_parse(const char *s, enum mig_mode *ret, struct error *err);

#endif
