/* SPDX-License-Identifier: Apache-2.0 */
/* How handshakes ended, counted by the threads that make them; goes on when certificates are read again. */
#ifndef DECANT_TLS_STATS_H
#define DECANT_TLS_STATS_H

#include <stddef.h>
#include <stdint.h>

#include "tls/tls_ctx.h"

struct metrics;

/** tls_stats_inherit() - @ctx, which nobody uses yet, counts on where @old does; NULL is fine */
void tls_stats_inherit(struct tls_ctx *ctx, const struct tls_ctx *old);
/** tls_stats_done() - Return: handshakes that were completed */
uint64_t tls_stats_done(const struct tls_ctx *ctx);
/** tls_stats_refused() - how many were refused for the reason of number @i. Return: its name, NULL behind the last */
const char *tls_stats_refused(const struct tls_ctx *ctx, size_t i, uint64_t *ret);
/** tls_stats_write() - both as metrics */
void tls_stats_write(struct metrics *m, const struct tls_ctx *ctx);

#endif
