/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of decant-source. */
#ifndef DECANT_CONF_SOURCE_H
#define DECANT_CONF_SOURCE_H

#include "conf/conf_agent.h"
#include "conf/conf_guest.h"
#include "conf/conf_options.h"

/** CONF_GUESTS_MAX - most guests of one host */
#define CONF_GUESTS_MAX 4096

/**
 * struct conf_source - all of it, defaults filled in; owns its memory
 * @agent:	as decant-dest has it
 * @dest_api:	of this host's decant-dest, default unix:/run/decant/dest.sock; NULL: there is none
 * @guests, @n_guests: from "guests" and the *.json files of guests_dir; names are unique
 * @guests_dir:	NULL if none
 * @defaults:	of migrations
 * @bandwidth:	bytes a second of all that leaves together; 0 for no limit
 */
struct conf_source {
	struct conf_agent agent;
	char *dest_api;
	struct conf_guest *guests;
	size_t n_guests;
	char *guests_dir;
	struct mig_options defaults;
	uint64_t bandwidth;
};

/**
 * conf_source_load() - read and check a file
 * @ret:	for conf_source_clear()
 *
 * Return: 0, or -errno with @err filled: it names the file and the path of the key
 */
int conf_source_load(const char *file, struct conf_source *ret, struct error *err);
/** conf_source_read() - the same from JSON that is there */
int conf_source_read(const json_t *json, struct conf_source *ret, struct error *err);
/** conf_source_clear() - free what is inside; a zeroed struct is fine */
void conf_source_clear(struct conf_source *c);

#endif
