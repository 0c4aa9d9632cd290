/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server-sent events: GET /v1/events. An event that has happened is numbered, kept for a while, and can be asked
 * for again by Last-Event-ID; how far something is ("progress") is shown to those who look, once a second, and
 * is not kept. Each client is sent what the kernel takes for it, and no copy waits for it: one so slow that the
 * oldest event it has not got is gone is dropped, and learns when it comes back that it has missed something.
 *
 * The first event of a stream is "hello" with {"resumed": true|false}: false says that what happened before is
 * not in the stream, so that lists are to be read (again). Loop thread only.
 */
#ifndef DECANT_REST_EVENTS_H
#define DECANT_REST_EVENTS_H

#include <jansson.h>
#include <stddef.h>
#include "rest/rest_server.h"

/** REST_EVENTS_MAX - events that are kept */
#define REST_EVENTS_MAX 1024
/** REST_EVENTS_BYTES_MAX - bytes of them */
#define REST_EVENTS_BYTES_MAX (1u << 20)

struct rest_events;

/** rest_events_progress_fn - called once a second while somebody looks: rest_events_show() what is under way */
typedef void rest_events_progress_fn(struct rest_events *ev, void *arg);

/**
 * rest_events_new() - nothing has happened yet
 * @progress:	may be NULL
 *
 * Return: NULL when out of memory
 */
struct rest_events *rest_events_new(struct loop *l, rest_events_progress_fn *progress, void *arg);
/** rest_events_free() - ends the streams: before their server is freed; NULL is fine */
void rest_events_free(struct rest_events *ev);
/**
 * rest_events_publish() - something has happened; to NULL nobody listens
 * @type:	"migration", "guest": one word
 * @data:	a reference, taken over; NULL (out of memory) is passed over
 */
void rest_events_publish(struct rest_events *ev, const char *type, json_t *data);
/** rest_events_show() - how far something is; as rest_events_publish(), from @progress only */
void rest_events_show(struct rest_events *ev, const char *type, json_t *data);
/** rest_events_serve() - answer a request for the stream (a route of REST_DOCUMENT) */
void rest_events_serve(struct rest_events *ev, struct rest_req *req);

#endif
