/* SPDX-License-Identifier: Apache-2.0 */
#include "tls/tls_stats.h"

#include <stdlib.h>
#include <string.h>

#include "metrics/metrics.h"
#include "tls/tls_priv.h"
#include "util/cleanup.h"

/* Codes of errors that end a handshake; a peer chooses among them, and cannot make up others. */
static const char *const reasons[] = {
	"tls-alpn",        "tls-closed",
	"tls-crl",         "tls-expired",
	"tls-handshake",   "tls-no-certificate",
	"tls-not-allowed", "tls-not-yet-valid",
	"tls-plaintext",   "tls-revoked",
	"tls-unknown-ca",  "tls-version",
	"tls-wrong-name",  "other",
};

/**
 * struct tls_stats - shared by the contexts of a daemon's life
 * @refs:	contexts
 * @done:	handshakes completed
 * @refused:	others, by reason
 */
struct tls_stats {
	_Atomic unsigned int refs;
	_Atomic uint64_t done;
	_Atomic uint64_t refused[ARRAY_SIZE(reasons)];
};

struct tls_stats *tls_stats_new(void)
{
	struct tls_stats *s = calloc(1, sizeof(*s));

	if (s)
		atomic_store(&s->refs, 1);
	return s;
}

void tls_stats_unref(struct tls_stats *s)
{
	if (s && atomic_fetch_sub(&s->refs, 1) == 1)
		free(s);
}

void tls_stats_inherit(struct tls_ctx *ctx, const struct tls_ctx *old)
{
	if (!old)
		return;
	tls_stats_unref(ctx->stats);
	ctx->stats = old->stats;
	atomic_fetch_add(&ctx->stats->refs, 1);
}

void tls_stats_count_done(const struct tls_ctx *ctx)
{
	atomic_fetch_add(&ctx->stats->done, 1);
}

void tls_stats_count_refused(const struct tls_ctx *ctx, const char *code)
{
	size_t i = 0;

	while (i < ARRAY_SIZE(reasons) - 1 && strcmp(reasons[i], code) != 0)
		i++;
	atomic_fetch_add(&ctx->stats->refused[i], 1);
}

uint64_t tls_stats_done(const struct tls_ctx *ctx)
{
	return atomic_load(&ctx->stats->done);
}

const char *tls_stats_refused(const struct tls_ctx *ctx, size_t i, uint64_t *ret)
{
	if (i >= ARRAY_SIZE(reasons))
		return NULL;
	*ret = atomic_load(&ctx->stats->refused[i]);
	return reasons[i];
}

void tls_stats_write(struct metrics *m, const struct tls_ctx *ctx)
{
	const char *reason;
	uint64_t n;

	metrics_family(m, "decant_tls_handshakes_total", METRICS_COUNTER,
		       "TLS handshakes with peers that were completed.");
	metrics_uint(m, NULL, tls_stats_done(ctx));
	metrics_family(m, "decant_tls_handshakes_refused_total", METRICS_COUNTER,
		       "TLS connections with peers that were refused by either side, by reason.");
	for (size_t i = 0; (reason = tls_stats_refused(ctx, i, &n)); i++)
		metrics_uint(m, METRICS_LABELS({"reason", reason}), n);
}
