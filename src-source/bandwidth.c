/* SPDX-License-Identifier: Apache-2.0 */
#include "bandwidth.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "budget/budget.h"
#include "util/cleanup.h"
#include "util/fdio.h"
#include "util/jsonx.h"
#include "util/log.h"

#define STORE_MAX 4096

static int path_of(const struct source *s, char **ret, struct error *err)
{
	if (asprintf(ret, "%s/bandwidth.json", s->conf.agent.state_dir) >= 0)
		return 0;
	*ret = NULL;
	return error_set(err, -ENOMEM, NULL, "out of memory");
}

/**
 * struct stored - what is in the file
 * @rate:	as an operator has said
 * @configured:	of the configuration at that time
 */
struct stored {
	uint64_t rate;
	uint64_t configured;
};

static const struct jsonx_field fields[] = {
	{"bandwidth", JSONX_UINT, .required = true, .max = BUDGET_RATE_MAX,
	 JSONX_INTO(struct stored, rate)},
	{"configured", JSONX_UINT, .required = true, .max = BUDGET_RATE_MAX,
	 JSONX_INTO(struct stored, configured)},
};

/* Return: 0, -ENOENT if nothing is stored, or -errno with @err filled */
static int read_stored(const char *path, struct stored *ret, struct error *err)
{
	struct jsonx_at at = {"", "bad-bandwidth", err};
	CLEANUP_FREE char *text = NULL;
	ssize_t n = fdio_read_file(path, STORE_MAX, &text);
	json_t *o;
	int r;

	if (n == -ENOENT)
		return -ENOENT;
	if (n < 0)
		return error_set(err, (int)n, NULL, "%s: %s", path, strerror((int)-n));
	o = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	r = jsonx_read(o, &at, fields, ARRAY_SIZE(fields), ret);
	json_decref(o);
	if (r < 0)
		error_prefix(err, "%s", path);
	return r;
}

int bandwidth_load(struct source *s, struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	struct stored v = {0};
	uint64_t rate = s->conf.bandwidth;
	int r = path_of(s, &path, err);

	if (!r)
		r = read_stored(path, &v, err);
	if (r < 0 && r != -ENOENT)
		return r;
	if (!r && v.configured == s->conf.bandwidth)
		rate = v.rate;
	s->budget = budget_new(rate);
	if (!s->budget)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	if (rate != s->conf.bandwidth)
		log_info("bandwidth of this host: %llu bytes/s, as was said later than in the "
			 "configuration",
			 (unsigned long long)rate);
	return 0;
}

int bandwidth_set(struct source *s, uint64_t rate, struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	char text[128];
	int r = path_of(s, &path, err);

	if (r < 0)
		return r;
	snprintf(text, sizeof(text), "{\"bandwidth\": %llu, \"configured\": %llu}\n",
		 (unsigned long long)rate, (unsigned long long)s->conf.bandwidth);
	r = fdio_replace_file(path, text, 0600);
	if (r < 0)
		return error_set(err, r, "not-stored", "cannot store the bandwidth in %s: %s", path,
				 strerror(-r));
	budget_set_rate(s->budget, rate);
	log_info("bandwidth of this host: %llu bytes/s", (unsigned long long)rate);
	return 0;
}

static json_t *rate_json(uint64_t rate)
{
	return rate ? json_integer((json_int_t)rate) : json_null();
}

static json_t *by_class(const _Atomic uint64_t *v)
{
	json_t *o = json_object();

	for (enum budget_class c = 0; c < BUDGET_CLASSES; c++)
		json_object_set_new(o, budget_class_name(c),
				    json_integer((json_int_t)atomic_load(&v[c])));
	return o;
}

json_t *bandwidth_json(const struct source *s)
{
	struct budget *b = s->budget;

	return json_pack("{s:o, s:o, s:o, s:o, s:I}", "bytes_per_s", rate_json(budget_rate(b)),
			 "configured_bytes_per_s", rate_json(s->conf.bandwidth), "sent_bytes",
			 by_class(b->sent), "waited_us", by_class(b->waited_us), "waiting",
			 (json_int_t)budget_waiting(b));
}
