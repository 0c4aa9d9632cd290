/* SPDX-License-Identifier: Apache-2.0 */
/* REST: stored images, and what is made of them. */
#ifndef DECANT_API_IMAGE_H
#define DECANT_API_IMAGE_H

#include "rest/rest_server.h"

/* Handlers of the routes that carry their names; ctx is the struct dest. */
rest_handler api_get_snapshots;
rest_handler api_get_snapshot;
rest_handler api_post_snapshots;
rest_handler api_post_restore;
rest_handler api_post_uffd;

#endif
