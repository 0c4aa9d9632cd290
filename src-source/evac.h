/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evacuation: all guests of this host go elsewhere. A job of its own, made of migrations: each of them is an
 * ordinary one, that can be looked at, cancelled and recovered as any other.
 *
 * One at a time. It begins with the cordon (host/cordon.h), asks the destinations what they have to spare
 * (PROTOCOL.md, section 14), plans (evac_plan.h), runs some migrations at once, tries the next destination where one
 * refuses or fails before the commit, and ends when nobody is left or the rest is explained. What was decided is in
 * its journal: an agent that is started again goes on. Loop thread only.
 */
#ifndef DECANT_EVAC_H
#define DECANT_EVAC_H

#include <jansson.h>
#include <stdbool.h>

#include "conf/conf_options.h"
#include "evac_plan.h"
#include "source.h"

/** EVAC_CONCURRENCY, EVAC_CONCURRENCY_MAX - migrations at once, if nothing is said, and at most */
#define EVAC_CONCURRENCY     2
#define EVAC_CONCURRENCY_MAX 16
/** EVAC_TO_MAX - of an address, with the NUL */
#define EVAC_TO_MAX 264

struct evac;

/**
 * struct evac_wish - what is asked for
 * @to:		@n_to addresses, "HOST[:PORT]"
 * @concurrency: 1..EVAC_CONCURRENCY_MAX
 * @bandwidth:	bytes a second of all its migrations together, 0 for no limit
 * @dry_run:	plan, and do nothing
 * @options:	of each migration
 * @key:	Idempotency-Key, NULL without
 * @asked:	rest_request_digest() of the request, 0 without
 */
struct evac_wish {
	const char *to[EVAC_HOSTS_MAX];
	unsigned int n_to;
	unsigned int concurrency;
	uint64_t bandwidth;
	enum evac_order order;
	bool dry_run;
	struct mig_options options;
	const char *key;
	uint64_t asked;
};

/**
 * evac_new() - begin; the host is cordoned when this returns
 *
 * Return: 0 with @ret; -EBUSY if one runs already, -EINVAL for an address, or another -errno; with @err filled
 */
int evac_new(struct source *s, const struct evac_wish *w, struct evac **ret, struct error *err);
/** evac_find() - Return: the evacuation of that id, or NULL */
struct evac *evac_find(struct source *s, const char *id);
/** evac_find_key() - Return: the one that a request with this Idempotency-Key has made, or NULL */
struct evac *evac_find_key(struct source *s, const char *key);
/** evac_asked_so() - Return: whether it was made by a request of this digest */
bool evac_asked_so(const struct evac *e, uint64_t digest);
/** evac_active() - Return: the one that has not ended, dry runs aside, or NULL */
struct evac *evac_active(const struct source *s);
const char *evac_id(const struct evac *e);
/** evac_json() - Return: new reference to the object of the contract */
json_t *evac_json(const struct evac *e);
/** evacs_json() - Return: new reference to an array of all, newest first */
json_t *evacs_json(const struct source *s);
/** evac_cancel() - stop what has not committed. Return: 0, or -EALREADY with @err filled if it has ended */
int evac_cancel(struct evac *e, struct error *err);
/** evac_load_all() - take up the journals of an earlier run; once guests and migrations are known. Return: 0 or -errno with @err filled */
int evac_load_all(struct source *s, struct error *err);
/** evac_end_all() - the daemon ends: what runs goes on in its next life */
void evac_end_all(struct source *s);

#endif
