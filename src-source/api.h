/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The REST interface of decant-source. Who adds a route writes its handler into a file api_WHAT.c, declares it here,
 * adds one row to the table in api.c and describes it in deploy/openapi.yaml.
 */
#ifndef DECANT_API_H
#define DECANT_API_H

#include "rest/rest_server.h"

/** api_status() - Return: the status of HTTP that goes with an -errno */
int api_status(int r);

/* Handlers of the routes that carry their names; ctx is the struct source. */
rest_handler api_get_bandwidth;
rest_handler api_put_bandwidth;
rest_handler api_get_metrics;
rest_handler api_get_guests;
rest_handler api_post_guests;
rest_handler api_get_guest;
rest_handler api_delete_guest;
rest_handler api_get_migrations;
rest_handler api_post_migrations;
rest_handler api_get_migration;
rest_handler api_post_cancel;
rest_handler api_post_switchover;
rest_handler api_post_recover;
rest_handler api_post_resolve;
rest_handler api_get_snapshots;
rest_handler api_post_snapshots;
rest_handler api_get_snapshot;
rest_handler api_post_snapshot_cancel;

#endif
