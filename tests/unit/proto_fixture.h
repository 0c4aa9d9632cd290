/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of connections and frames share: certificates, contexts, a peer on a thread. */
#ifndef DECANT_TESTS_PROTO_FIXTURE_H
#define DECANT_TESTS_PROTO_FIXTURE_H

#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "frame.h"
#include "lib/tls_pair.h"
#include "lib/tls_pki.h"
#include "util/cleanup.h"
#include "util/clock.h"

ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
	char dir[] = "/tmp/decant-proto-XXXXXX";
	int bad = 0;

	(void)set;
	cr_assert(mkdtemp(dir));
	setenv("PROTO_TEST_DIR", dir, 1);
	bad |= tls_pki_certs("ca %s >/dev/null", dir);
	bad |= tls_pki_certs("host %s host DNS:localhost IP:127.0.0.1 >/dev/null", dir);
	if (bad)
		abort();
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
	(void)stats;
	tls_pki_remove(getenv("PROTO_TEST_DIR"));
}

static inline struct tls_ctx *fixture_ctx(enum tls_role role)
{
	struct tls_ctx *ctx = NULL;
	struct error err = {0};
	struct tls_pki pki;

	tls_pki_files(&pki, getenv("PROTO_TEST_DIR"), "host");
	cr_assert_eq(tls_ctx_new(&pki.files, role, &ctx, &err), 0, "%s", err.msg);
	return ctx;
}

/* Two ends, handshake done. The contexts live on in the connections. */
static inline void fixture_pair(struct tls_pair *p)
{
	struct tls_ctx *client = fixture_ctx(TLS_CLIENT), *server = fixture_ctx(TLS_SERVER);

	tls_pair_make(p, client, server);
	tls_ctx_unref(client);
	tls_ctx_unref(server);
}

/* The fields of a message that matter to most tests: the rest is zero. */
static inline struct msg *fixture_msg(enum msg_type type)
{
	struct msg *m = calloc(1, sizeof(*m));

	cr_assert(m);
	m->type = type;
	return m;
}

static inline struct msg *fixture_hello(enum msg_channel kind)
{
	struct msg *m = fixture_msg(MSG_HELLO);

	m->hello.version_min = m->hello.version_max = MSG_VERSION;
	m->hello.capabilities = MSG_CAP_POSTCOPY | MSG_CAP_URGENT;
	m->hello.kind = kind;
	return m;
}

static inline size_t fixture_encode(const struct msg *m, uint8_t *out, size_t cap)
{
	ssize_t n = msg_encode(m, out, cap);

	cr_assert(n > 0, "%s: %zd", msg_type_name(m->type), n);
	return (size_t)n;
}

/* Whole bytes, from a thread that may block; the other side may end first. */
static inline int fixture_put(struct tls_chan *chan, const void *p, size_t n)
{
	return tls_write_full(chan, p, n, -1, 20000000, NULL);
}

#endif
