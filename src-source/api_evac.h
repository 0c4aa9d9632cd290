/* SPDX-License-Identifier: Apache-2.0 */
/* Evacuations and the cordon over REST. */
#ifndef DECANT_API_EVAC_H
#define DECANT_API_EVAC_H

#include "rest/rest_server.h"
#include "source.h"

rest_handler api_get_evacuations, api_post_evacuations, api_get_evacuation,
	api_post_evacuation_cancel, api_put_cordon;

/** api_cordon_json() - Return: new reference, null or {since, by}; for GET /v1/host */
json_t *api_cordon_json(const struct source *s);

#endif
