/* SPDX-License-Identifier: Apache-2.0 */
/* Who is refused, and what each side is told about it. */
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/tls_pair.h"
#include "lib/tls_pki.h"
#include "util/cleanup.h"

#define SANS "DNS:localhost DNS:host-b IP:127.0.0.1"

/*
 * The authorities: "good" is ours; "other" has its name and another key; "third" has another name;
 * "stale" has a revocation list that has run out.
 */
ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
	const char *dir;
	int bad = 0;

	(void)set;
	tls_pki_begin();
	dir = tls_pki_dir();
	bad |= tls_pki_certs("ca %s/good >/dev/null", dir);
	bad |= tls_pki_certs("host %s/good plain " SANS " >/dev/null", dir);
	bad |= tls_pki_certs("host %s/good expired " SANS " --start-days -9 --days 5 >/dev/null",
			     dir);
	bad |= tls_pki_certs("host %s/good future " SANS " --start-days 3 >/dev/null", dir);
	bad |= tls_pki_certs("host %s/good revoked " SANS " >/dev/null", dir);
	bad |= tls_pki_certs("host %s/good elsewhere DNS:host-c IP:192.0.2.9 >/dev/null", dir);
	bad |= tls_pki_certs("host %s/good nameless IP:192.0.2.9 >/dev/null", dir);
	bad |= tls_pki_certs("revoke %s/good revoked >/dev/null", dir);
	bad |= tls_pki_certs("ca %s/other >/dev/null", dir);
	bad |= tls_pki_certs("host %s/other plain " SANS " >/dev/null", dir);
	bad |= tls_pki_certs("ca %s/third --name 'another CA' >/dev/null", dir);
	bad |= tls_pki_certs("ca %s/stale >/dev/null", dir);
	bad |= tls_pki_certs("host %s/stale plain " SANS " >/dev/null", dir);
	bad |= tls_pki_certs("crl %s/stale --start-days -9 --days 5 >/dev/null", dir);
	if (bad)
		abort();
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
	(void)stats;
	tls_pki_end();
}

static const char *in_dir(const char *name, char buf[static PATH_MAX])
{
	snprintf(buf, PATH_MAX, "%s/%s", tls_pki_dir(), name);
	return buf;
}

/* The context of a host: certificate of one authority, trust in another's, list of a third. */
static struct tls_ctx *context(enum tls_role role, const char *cert_dir, const char *host,
			       const char *ca_dir, const char *crl_dir)
{
	struct tls_pki cert, ca, crl;
	struct tls_ctx *ctx = NULL;
	struct error err = {0};
	char dir[PATH_MAX];

	tls_pki_files(&cert, in_dir(cert_dir, dir), host);
	tls_pki_files(&ca, in_dir(ca_dir, dir), host);
	cert.files.ca = ca.ca;
	cert.files.crl = NULL;
	if (crl_dir) {
		tls_pki_files(&crl, in_dir(crl_dir, dir), host);
		cert.files.crl = crl.crl;
	}
	cr_assert_eq(tls_ctx_new(&cert.files, role, &ctx, &err), 0, "%s", err.msg);
	return ctx;
}

/**
 * struct side - one agent
 * @dir, @host:	whose certificate it shows
 * @ca, @crl:	what it checks the other's with; NULL: "good"
 * @code, @ret:	what it says about the refusal
 * @says:	and some of the words
 */
struct side {
	const char *dir;
	const char *host;
	const char *ca;
	const char *crl;
	const char *code;
	int ret;
	const char *says[3];
};

struct refusal {
	const char *dial;
	struct side client;
	struct side server;
};

static struct tls_ctx *side_context(enum tls_role role, const struct side *s)
{
	return context(role, s->dir ? s->dir : "good", s->host ? s->host : "plain",
		       s->ca ? s->ca : "good",
		       s->crl  ? s->crl
		       : s->ca ? s->ca
			       : "good");
}

static void check(const char *who, int ret, const struct error *err, const char *code, int want,
		  const char *const says[static 3])
{
	cr_log_info("%s: [%s] %s", who, err->code, err->msg);
	cr_expect_str_eq(err->code, code, "%s says [%s] %s, not %s", who, err->code, err->msg,
			 code);
	cr_expect_eq(ret, want, "%s returns %d, not %d: %s", who, ret, want, err->msg);
	for (int i = 0; i < 3 && says[i]; i++)
		cr_expect(strstr(err->msg, says[i]), "%s does not say \"%s\": %s", who, says[i],
			  err->msg);
}

/* With TLS 1.3 a client learns only from reading that its certificate was refused. */
static void client_hears(struct tls_pair *p)
{
	struct pollfd pfd = {.fd = tls_chan_fd(p->client), .events = POLLIN};
	char byte;

	if (p->client_ret)
		return;
	cr_assert_eq(poll(&pfd, 1, 5000), 1);
	p->client_ret = (int)tls_read(p->client, &byte, 1);
	p->client_err = *tls_chan_error(p->client);
}

static void refused(const struct refusal *t)
{
	struct tls_ctx *client = side_context(TLS_CLIENT, &t->client);
	struct tls_ctx *server = side_context(TLS_SERVER, &t->server);
	struct tls_pair p;

	tls_pair_handshake(&p, client, server, t->dial ? t->dial : "localhost");
	client_hears(&p);
	check("client", p.client_ret, &p.client_err, t->client.code, t->client.ret, t->client.says);
	check("server", p.server_ret, &p.server_err, t->server.code, t->server.ret, t->server.says);
	/* The verdict stays. */
	cr_expect_eq(tls_chan_handshake(p.server, NULL), p.server_ret);
	cr_expect_eq(tls_read(p.server, &p, 1), p.server_ret);
	cr_expect_str_eq(tls_chan_error(p.server)->code, t->server.code);
	tls_pair_free(&p);
	tls_ctx_unref(client);
	tls_ctx_unref(server);
}

#define REFUSED(name, ...)                                     \
	Test(tls_refusals, name)                               \
	{                                                      \
		static const struct refusal t = {__VA_ARGS__}; \
		refused(&t);                                   \
	}

REFUSED(expired_server,
	.client = {.code = "tls-expired",
		   .ret = -EACCES,
		   .says = {"the peer's certificate (DNS:host-b", "expired at 20", "renew"}},
	.server = {
		.host = "expired",
		.code = "tls-expired",
		.ret = -EACCES,
		.says = {"the peer refused our certificate", "good/expired.pem", "expired at 20"}})
REFUSED(expired_client,
	.client = {.host = "expired",
		   .code = "tls-expired",
		   .ret = -EACCES,
		   .says = {"the peer refused our certificate", "good/expired.pem",
			    "expired at 20"}},
	.server = {.code = "tls-expired",
		   .ret = -EACCES,
		   .says = {"the peer's certificate (DNS:host-b", "expired at 20"}})
REFUSED(future_server,
	.client = {.code = "tls-not-yet-valid",
		   .ret = -EACCES,
		   .says = {"not valid before 20", "clock"}},
	.server = {.host = "future",
		   .code = "tls-not-yet-valid",
		   .ret = -EACCES,
		   .says = {"the peer refused our certificate", "not valid before 20"}})
REFUSED(future_client,
	.client = {.host = "future",
		   .code = "tls-not-yet-valid",
		   .ret = -EACCES,
		   .says = {"the peer refused our certificate", "not valid before 20"}},
	.server = {.code = "tls-not-yet-valid",
		   .ret = -EACCES,
		   .says = {"not valid before 20", "clock"}})
REFUSED(revoked_server,
	.client = {.code = "tls-revoked",
		   .ret = -EACCES,
		   .says = {"the peer's certificate", "is revoked", "good/crl.pem"}},
	.server = {.host = "revoked",
		   .code = "tls-revoked",
		   .ret = -EACCES,
		   .says = {"the peer refused our certificate", "good/revoked.pem",
			    "revocation list"}})
REFUSED(revoked_client,
	.client = {.host = "revoked",
		   .code = "tls-revoked",
		   .ret = -EACCES,
		   .says = {"the peer refused our certificate", "good/revoked.pem",
			    "revocation list"}},
	.server = {.code = "tls-revoked",
		   .ret = -EACCES,
		   .says = {"the peer's certificate", "is revoked", "good/crl.pem"}})
REFUSED(unknown_ca_server,
	.client = {.code = "tls-unknown-ca",
		   .ret = -EACCES,
		   .says = {"signed by a CA that is not in", "good/ca.pem"}},
	.server = {.dir = "other",
		   .code = "tls-unknown-ca",
		   .ret = -EACCES,
		   .says = {"the peer refused our certificate", "other/plain.pem",
			    "not signed by a CA that the peer trusts"}})
REFUSED(unknown_ca_client,
	.client = {.dir = "other",
		   .code = "tls-unknown-ca",
		   .ret = -EACCES,
		   .says = {"the peer refused our certificate", "other/plain.pem",
			    "not signed by a CA that the peer trusts"}},
	.server = {.code = "tls-unknown-ca",
		   .ret = -EACCES,
		   .says = {"signed by a CA that is not in", "good/ca.pem"}})
REFUSED(wrong_name, .dial = "host-x",
	.client = {.code = "tls-wrong-name",
		   .ret = -EACCES,
		   .says = {"\"host-x\"", "DNS:host-b, DNS:localhost, IP:127.0.0.1"}},
	.server = {.code = "tls-wrong-name",
		   .ret = -EACCES,
		   .says = {"the peer refused our certificate", "host-x",
			    "DNS:host-b, DNS:localhost"}})
REFUSED(wrong_address, .dial = "127.0.0.1",
	.client = {.code = "tls-wrong-name",
		   .ret = -EACCES,
		   .says = {"\"127.0.0.1\"", "DNS:host-c, IP:192.0.2.9"}},
	.server = {.host = "elsewhere",
		   .code = "tls-wrong-name",
		   .ret = -EACCES,
		   .says = {"the peer refused our certificate", "an IP address", "IP:192.0.2.9"}})
/* A name is matched neither by an address nor by the common name, also where there is no DNS name. */
REFUSED(common_name_is_no_name, .dial = "nameless",
	.client = {.code = "tls-wrong-name", .ret = -EACCES, .says = {"\"nameless\""}},
	.server = {.host = "nameless",
		   .code = "tls-wrong-name",
		   .ret = -EACCES,
		   .says = {"it asked for nameless"}})
REFUSED(crl_ran_out,
	.client = {.dir = "stale",
		   .code = "tls-expired",
		   .ret = -EACCES,
		   .says = {"by our clock it is valid until 20", "revocation list"}},
	.server = {.ca = "stale",
		   .crl = "stale",
		   .code = "tls-crl",
		   .ret = -EACCES,
		   .says = {"stale/crl.pem", "CRL has expired"}})
REFUSED(crl_of_another_ca,
	.client = {.code = "tls-unknown-ca", .ret = -EACCES, .says = {"no revocation list"}},
	.server = {.crl = "third",
		   .code = "tls-crl",
		   .ret = -EACCES,
		   .says = {"third/crl.pem", "unable to get certificate CRL"}})
REFUSED(crl_of_a_ca_of_the_same_name,
	.client = {.code = "tls-unknown-ca", .ret = -EACCES, .says = {"another key"}},
	.server = {.crl = "other",
		   .code = "tls-crl",
		   .ret = -EACCES,
		   .says = {"other/crl.pem", "signature"}})

/* A certificate that the script would not make, of our CA; @more are options of openssl req. */
static void odd_certificate(const char *name, const char *more)
{
	char line[4 * PATH_MAX];
	const char *dir = tls_pki_dir();

	snprintf(line, sizeof(line),
		 "openssl req -x509 -CA %s/good/ca.pem -CAkey %s/good/ca.key -days 2 -nodes "
		 "-newkey ec -pkeyopt ec_paramgen_curve:P-256 %s -keyout %s/good/%s.key "
		 "-addext basicConstraints=CA:FALSE -out %s/good/%s.pem 2>/dev/null",
		 dir, dir, more, dir, name, dir, name);
	cr_assert_eq(system(line), 0);
}

Test(tls_refusals, certificate_for_another_use)
{
	odd_certificate("web", "-subj /CN=web -addext extendedKeyUsage=serverAuth "
			       "-addext subjectAltName=DNS:web");
	refused(&(struct refusal){
		.client = {.host = "web",
			   .code = "tls-handshake",
			   .ret = -EACCES,
			   .says = {"the peer refused our certificate", "clientAuth"}},
		.server = {.code = "tls-handshake",
			   .ret = -EACCES,
			   .says = {"the peer's certificate (DNS:web)", "purpose"}}});
}

/* Names in which separators hide are still one name, and another one than it looks like. */
static void not_let_in(const char *name, const char *identity)
{
	static const char *const allow[] = {"DNS:host-b", "URI:x:y"};
	struct tls_ctx *client = context(TLS_CLIENT, "good", name, "good", "good");
	struct tls_ctx *server = context(TLS_SERVER, "good", "plain", "good", "good");
	struct tls_pair p;

	tls_pair_make(&p, client, server);
	cr_expect_str_eq(tls_chan_identity(p.server), identity);
	cr_expect_eq(tls_allow_check(allow, 2, p.server, NULL), -EACCES, "%s", identity);
	tls_pair_free(&p);
	tls_ctx_unref(client);
	tls_ctx_unref(server);
}

Test(tls_refusals, forged_names)
{
	char path[PATH_MAX], options[PATH_MAX + 100];
	FILE *f = fopen(in_dir("odd.cnf", path), "w");

	fputs("[req]\ndistinguished_name = dn\n[dn]\n[ext]\nsubjectAltName = @names\n"
	      "[names]\nURI = x:y, DNS:host-b\n",
	      f);
	fclose(f);
	snprintf(options, sizeof(options), "-subj /CN=odd -config %s -extensions ext", path);
	odd_certificate("odd", options);
	not_let_in("odd", "URI:x:y\\x2c\\x20DNS:host-b");
	odd_certificate("subject", "-subj '/CN=x, DNS:host-b'");
	not_let_in("subject", "subject:CN=x\\, DNS:host-b");
}

/* The other ways to write a name that the certificate has. */
Test(tls_refusals, names_that_fit)
{
	static const char *const names[] = {"localhost", "LocalHost", "host-b.", "127.0.0.1"};
	struct tls_ctx *client = context(TLS_CLIENT, "good", "plain", "good", NULL);
	struct tls_ctx *server = context(TLS_SERVER, "good", "plain", "good", NULL);
	struct tls_pair p;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		tls_pair_handshake(&p, client, server, names[i]);
		cr_expect_eq(p.client_ret, 0, "%s: %s", names[i], p.client_err.msg);
		cr_expect_eq(p.server_ret, 0, "%s: %s", names[i], p.server_err.msg);
		tls_pair_free(&p);
	}
	tls_ctx_unref(client);
	tls_ctx_unref(server);
}

Test(tls_refusals, allow_list)
{
	static const char *const none[] = {"DNS:host",         "DNS:ocalhost", "IP:127.0.0.2",
					   "URI:spiffe://x/y", "DNS:plain",    "DNS:host-b, DNS:x"};
	static const char *const yes[][1] = {
		{"DNS:HOST-B"}, {"dns:host-b."}, {"IP:127.0.0.1"}, {"DNS:localhost"}};
	struct tls_ctx *client = context(TLS_CLIENT, "good", "plain", "good", "good");
	struct tls_ctx *server = context(TLS_SERVER, "good", "plain", "good", "good");
	struct error err = {0};
	struct tls_pair p;

	tls_pair_make(&p, client, server);
	for (size_t i = 0; i < ARRAY_SIZE(yes); i++)
		cr_expect_eq(tls_allow_check(yes[i], 1, p.server, NULL), 0, "%s", yes[i][0]);
	cr_expect_eq(tls_allow_check(NULL, 0, p.server, NULL), -EACCES, "an empty list");
	cr_expect_eq(tls_allow_check(none, ARRAY_SIZE(none), p.server, &err), -EACCES);
	cr_expect_str_eq(err.code, "tls-not-allowed");
	cr_expect(strstr(err.msg, "DNS:host-b, DNS:localhost, IP:127.0.0.1"), "%s", err.msg);
	cr_expect(strstr(err.msg, tls_chan_peer(p.server)), "%s", err.msg);
	tls_pair_free(&p);
	tls_ctx_unref(client);
	tls_ctx_unref(server);
}

Test(tls_refusals, allow_list_entries)
{
	static const char *const bad[] = {"host-a",      "DNS:",         "DNS:*.example.org",
					  "DNS:a b",     "IP:300.1.1.1", "IP:host-a",
					  "URI:nothing", "email:a@b"};
	static const char *const good[] = {"DNS:host-a", "IP:::1", "IP:192.0.2.1",
					   "URI:spiffe://example.org/decant"};
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		cr_expect_eq(tls_allow_valid(good[i], NULL), 0, "%s", good[i]);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		error_clear(&err);
		cr_expect_eq(tls_allow_valid(bad[i], &err), -EINVAL, "%s", bad[i]);
		cr_expect_str_eq(err.code, "bad-value", "%s", bad[i]);
	}
}
