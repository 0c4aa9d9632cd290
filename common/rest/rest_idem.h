/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers to requests that carried an Idempotency-Key: a client that never saw the answer asks again and gets the
 * first one, instead of a second job. Kept are answers that say that something was done (2xx): of a refusal
 * nothing is left that a repeat could do twice. Bounded in number, bytes and age; the oldest go first.
 *
 * With a file they outlive the agent, not a crash of the host (it is not synced): what must not happen twice then
 * says so in a journal of its own, as migrations do. On the loop's thread only.
 */
#ifndef DECANT_REST_IDEM_H
#define DECANT_REST_IDEM_H

#include <stddef.h>
#include <stdint.h>
#include "util/error.h"

/** REST_IDEM_KEY_MAX - longest key in bytes */
#define REST_IDEM_KEY_MAX 128
/** REST_IDEM_MAX - most answers */
#define REST_IDEM_MAX 1000
/** REST_IDEM_BYTES_MAX - most bytes of all of them */
#define REST_IDEM_BYTES_MAX (8u << 20)
/** REST_IDEM_AGE_S - how long one is kept */
#define REST_IDEM_AGE_S 86400

struct rest_idem;

/**
 * struct rest_idem_answer - one that was given; texts borrowed
 * @location:	NULL without
 * @body:	JSON, "" for none
 */
struct rest_idem_answer {
	int status;
	const char *location;
	const char *body;
};

/**
 * enum rest_idem_verdict - what a key says
 * @REST_IDEM_NEW:	never seen: go on, and say how it ended by rest_idem_end()
 * @REST_IDEM_REPEAT:	of this very request, which was answered
 * @REST_IDEM_BUSY:	of this very request, which is under way
 * @REST_IDEM_OTHER:	of another request
 * @REST_IDEM_FULL:	never seen, and too many are under way
 */
enum rest_idem_verdict {
	REST_IDEM_NEW,
	REST_IDEM_REPEAT,
	REST_IDEM_BUSY,
	REST_IDEM_OTHER,
	REST_IDEM_FULL
};

/** rest_idem_new() - an empty store with one reference. Return: NULL when out of memory */
struct rest_idem *rest_idem_new(void);
/** rest_idem_ref() - Return: @s */
struct rest_idem *rest_idem_ref(struct rest_idem *s);
/** rest_idem_unref() - NULL is fine */
void rest_idem_unref(struct rest_idem *s);

/**
 * rest_idem_keep() - read what a file has, and write to it from now on
 *
 * A file that is damaged is begun anew. Return: 0, or -errno with @err filled
 */
int rest_idem_keep(struct rest_idem *s, const char *path, struct error *err);

/**
 * rest_idem_begin() - a request with a key has come
 * @request:	digest of what is asked
 * @ret:	filled for REST_IDEM_REPEAT; valid until the next call
 */
enum rest_idem_verdict rest_idem_begin(struct rest_idem *s, const char *key, uint64_t request,
				       struct rest_idem_answer *ret);
/** rest_idem_end() - it was answered so; NULL: in a way that is not worth keeping */
void rest_idem_end(struct rest_idem *s, const char *key, const struct rest_idem_answer *from);

#endif
