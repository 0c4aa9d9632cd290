/* SPDX-License-Identifier: Apache-2.0 */
/* Requests in the audit. */
#ifndef DECANT_AUDIT_REST_H
#define DECANT_AUDIT_REST_H

#include "audit/audit.h"
#include "rest/rest_server.h"

/**
 * audit_request() - a rest_answered_fn's work: who has asked for what, and what became of it
 *
 * Requests that only look are of interest when somebody was not let in (401, 403). Of the body the strings are kept that
 * say what is asked for.
 */
void audit_request(struct audit *a, const struct rest_req *req, int status, const char *code,
		   const json_t *answer);

#endif
