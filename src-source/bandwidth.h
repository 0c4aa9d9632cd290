/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bandwidth of this host: what the configuration says, or an operator has said since. That holds for later
 * lives of the agent, too, which may be started again in the middle of an evacuation; until
 * the configuration says something else than it did then.
 */
#ifndef DECANT_BANDWIDTH_H
#define DECANT_BANDWIDTH_H

#include <jansson.h>
#include <stdint.h>

#include "source.h"

/** bandwidth_load() - make the budget. Return: 0, or -errno with @err filled */
int bandwidth_load(struct source *s, struct error *err);
/**
 * bandwidth_set() - another limit, from now on
 * @rate:	bytes a second, 0 for none
 *
 * Return: 0; -errno with @err filled if it could not be stored: then nothing has changed
 */
int bandwidth_set(struct source *s, uint64_t rate, struct error *err);
/** bandwidth_json() - Return: new reference: the limit, what was sent and what waits */
json_t *bandwidth_json(const struct source *s);

#endif
