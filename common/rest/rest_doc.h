/* SPDX-License-Identifier: Apache-2.0 */
/* Documents that are the same on every host, and inside the program: handlers of routes, whose context is not used. */
#ifndef DECANT_REST_DOC_H
#define DECANT_REST_DOC_H

#include "rest/rest_server.h"

/** rest_doc_openapi() - answer with the description of the whole interface (deploy/openapi.yaml as JSON) */
void rest_doc_openapi(struct rest_req *req, void *ctx);
/** rest_doc_page() - answer with the operator's page (deploy/page.html) */
void rest_doc_page(struct rest_req *req, void *ctx);

#endif
