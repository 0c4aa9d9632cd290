/* SPDX-License-Identifier: Apache-2.0 */
/* Files that don't do, ciphers, speed, and the script that makes the files. */
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/pem.h>
#include "lib/tls_pair.h"
#include "lib/tls_pki.h"
#include "tls/tls_priv.h"
#include "tls/tls_speed.h"
#include "util/cleanup.h"

ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
	int bad = 0;

	(void)set;
	tls_pki_begin();
	bad |= tls_pki_certs("ca %s/ca >/dev/null", tls_pki_dir());
	bad |= tls_pki_certs("host %s/ca host-a DNS:localhost >/dev/null", tls_pki_dir());
	bad |= tls_pki_certs("host %s/ca host-b >/dev/null", tls_pki_dir());
	bad |= tls_pki_certs("host %s/ca old --start-days -9 --days 5 >/dev/null", tls_pki_dir());
	bad |= tls_pki_certs("host %s/ca new --start-days 9 >/dev/null", tls_pki_dir());
	if (bad)
		abort();
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
	(void)stats;
	tls_pki_end();
}

static const char *in_dir(const char *name)
{
	static _Thread_local char buf[16][PATH_MAX];
	static _Thread_local unsigned int next;
	char *p = buf[next++ % 16];

	snprintf(p, PATH_MAX, "%s/%s", tls_pki_dir(), name);
	return p;
}

/* With these files there is no context; the message has both texts. */
static void no_context(struct tls_files f, int want, const char *file, const char *says)
{
	struct tls_ctx *ctx = (void *)-1;
	struct error err = {0};

	cr_expect_eq(tls_ctx_new(&f, TLS_SERVER, &ctx, &err), want, "%s: %s", says, err.msg);
	cr_expect_eq(ctx, (void *)-1, "the output is untouched");
	cr_expect_str_eq(err.code, "tls-files");
	cr_expect(strstr(err.msg, file) && strstr(err.msg, says), "%s", err.msg);
}

static struct tls_files good_files(void)
{
	return (struct tls_files){.ca = in_dir("ca/ca.pem"),
				  .cert = in_dir("ca/host-a.pem"),
				  .key = in_dir("ca/host-a.key"),
				  .crl = in_dir("ca/crl.pem")};
}

Test(tls_ctx, files_that_are_not_there)
{
	struct tls_files f = good_files();

	f.ca = "/nowhere/ca.pem";
	no_context(f, -ENOENT, "CA file /nowhere/ca.pem", "No such file");
	f = good_files();
	f.cert = "/nowhere/c.pem";
	no_context(f, -ENOENT, "certificate file /nowhere/c.pem", "No such file");
	f = good_files();
	f.key = "/nowhere/k.pem";
	no_context(f, -ENOENT, "key file /nowhere/k.pem", "No such file");
	f = good_files();
	f.crl = "/nowhere/r.pem";
	no_context(f, -ENOENT, "CRL file /nowhere/r.pem", "No such file");
	f = good_files();
	f.key = NULL;
	no_context(f, -EINVAL, "key", "no key file is configured");
}

Test(tls_ctx, files_with_something_else_in_them)
{
	struct tls_files f = good_files();

	f.ca = in_dir("ca/crl.pem");
	no_context(f, -EINVAL, "ca/crl.pem", "no PEM certificate");
	f = good_files();
	f.cert = in_dir("ca/host-a.key");
	no_context(f, -EINVAL, "ca/host-a.key", "no PEM certificate");
	f = good_files();
	f.key = in_dir("ca/host-a.pem");
	/* As a key it has to be nobody else's. */
	cr_assert_eq(chmod(f.key, 0600), 0);
	no_context(f, -EINVAL, "ca/host-a.pem", "no PEM private key");
	f = good_files();
	f.crl = in_dir("ca/ca.pem");
	no_context(f, -EINVAL, "ca/ca.pem", "no PEM revocation list");
	f = good_files();
	f.ca = "/dev/null";
	no_context(f, -EINVAL, "/dev/null", "no PEM certificate");
	f = good_files();
	f.key = in_dir("ca/host-b.key");
	no_context(f, -EINVAL, "ca/host-b.key", "does not belong to the certificate in");
}

Test(tls_ctx, damaged_certificate)
{
	struct tls_files f = good_files();
	FILE *out = fopen(in_dir("damaged.pem"), "w");

	fputs("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", out);
	fclose(out);
	f.cert = in_dir("damaged.pem");
	no_context(f, -EINVAL, "damaged.pem", "cannot use certificate 1");
	f.ca = f.cert;
	no_context(f, -EINVAL, "damaged.pem", "cannot read the CA file");
}

/* Must say so, and above all not ask for the password on the terminal. */
Test(tls_ctx, encrypted_key, .timeout = 10)
{
	struct tls_files f = good_files();
	char line[3 * PATH_MAX];

	snprintf(line, sizeof(line),
		 "openssl ec -in %s -aes128 -passout pass:x -out %s 2>/dev/null", f.key,
		 in_dir("locked.key"));
	cr_assert_eq(system(line), 0);
	f.key = in_dir("locked.key");
	no_context(f, -EINVAL, "locked.key", "is encrypted");
}

Test(tls_ctx, own_dates)
{
	static const struct {
		const char *host;
		int ret;
		const char *says;
	} rows[] = {{"host-a", 0, NULL},
		    {"old", -EKEYEXPIRED, "ca/old.pem expired at 20"},
		    {"new", -EKEYREJECTED, "ca/new.pem is not valid before 20"}};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct tls_ctx *ctx = tls_pki_context(TLS_CLIENT, "ca", rows[i].host);
		struct error err = {0};

		cr_expect_eq(tls_ctx_check_dates(ctx, &err), rows[i].ret, "%s", rows[i].host);
		cr_expect(!rows[i].says || strstr(err.msg, rows[i].says), "%s", err.msg);
		tls_ctx_unref(ctx);
	}
}

/* "leaf" is signed by "middle", which our CA signed; revocation lists of both before and after. */
static const char chain_script[] =
	"cd %s && new='openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "
	"2' && "
	"$new -CA ca/ca.pem -CAkey ca/ca.key -subj /CN=middle -keyout mid.key -out mid.pem "
	"-addext basicConstraints=critical,CA:TRUE && "
	"$new -CA mid.pem -CAkey mid.key -subj /CN=leaf -keyout leaf.key -out leaf.crt "
	"-addext basicConstraints=CA:FALSE -addext subjectAltName=DNS:localhost && "
	"cat leaf.crt mid.pem > leaf.pem && "
	"printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index\\ndefault_md=sha256\\n' > ca.cnf && "
	": > index && by='openssl ca -config ca.cnf -crldays 2' && "
	"top='-cert ca/ca.pem -keyfile ca/ca.key' && "
	"$by -cert mid.pem -keyfile mid.key -gencrl -out mid.crl && "
	"$by $top -gencrl -out top.crl && cat mid.crl top.crl > before.crl && "
	"$by $top -revoke mid.pem && "
	"$by $top -gencrl -out top.crl && cat mid.crl top.crl > after.crl";

static void chain_pair(struct tls_pair *p, const char *crl)
{
	struct tls_files f = good_files();
	struct tls_ctx *client, *server;

	f.cert = in_dir("leaf.pem");
	f.key = in_dir("leaf.key");
	f.crl = in_dir(crl);
	cr_assert_eq(tls_ctx_new(&f, TLS_CLIENT, &client, NULL), 0);
	cr_assert_eq(tls_ctx_new(&f, TLS_SERVER, &server, NULL), 0);
	tls_pair_handshake(p, client, server, "localhost");
	tls_ctx_unref(client);
	tls_ctx_unref(server);
}

/* An intermediate authority, which hosts send along, and which can be revoked. */
Test(tls_ctx, chain)
{
	char line[PATH_MAX + sizeof(chain_script) + 40];
	struct tls_pair p;
	int n = snprintf(line, sizeof(line), "exec 2>/dev/null; ");

	snprintf(line + n, sizeof(line) - (size_t)n, chain_script, tls_pki_dir());
	cr_assert_eq(system(line), 0);
	chain_pair(&p, "before.crl");
	cr_expect_eq(p.client_ret, 0, "%s", p.client_err.msg);
	cr_expect_eq(p.server_ret, 0, "%s", p.server_err.msg);
	tls_pair_free(&p);
	chain_pair(&p, "after.crl");
	cr_expect_str_eq(p.client_err.code, "tls-revoked", "%s", p.client_err.msg);
	cr_expect(strstr(p.client_err.msg, "the peer's CA certificate (subject:CN=middle)"), "%s",
		  p.client_err.msg);
	tls_pair_free(&p);
}

Test(tls_ctx, ciphers)
{
	cr_expect_str_eq(tls_ctx_ciphers(true),
			 "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256");
	cr_expect_str_eq(tls_ctx_ciphers(false),
			 "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256");
}

static const char *agreed(const char *client_ciphers, const char *server_ciphers)
{
	struct tls_ctx *client = tls_pki_context(TLS_CLIENT, "ca", "host-a");
	struct tls_ctx *server = tls_pki_context(TLS_SERVER, "ca", "host-a");
	struct tls_pair p;
	const char *name;

	SSL_CTX_set_ciphersuites(client->ssl, client_ciphers);
	SSL_CTX_set_ciphersuites(server->ssl, server_ciphers);
	tls_pair_make(&p, client, server);
	name = tls_chan_cipher(p.client); /* static in OpenSSL */
	cr_expect_str_eq(tls_chan_cipher(p.server), name);
	cr_expect_eq(SSL_version(p.client->ssl), TLS1_3_VERSION);
	tls_pair_free(&p);
	tls_ctx_unref(client);
	tls_ctx_unref(server);
	return name;
}

/* The side without AES instructions decides, whichever it is. */
Test(tls_ctx, cipher_agreed)
{
	const char *with = tls_ctx_ciphers(true), *without = tls_ctx_ciphers(false);

	cr_expect_str_eq(agreed(with, with), "TLS_AES_128_GCM_SHA256");
	cr_expect_str_eq(agreed(with, without), "TLS_CHACHA20_POLY1305_SHA256");
	cr_expect_str_eq(agreed(without, with), "TLS_CHACHA20_POLY1305_SHA256");
	cr_expect_str_eq(agreed(without, without), "TLS_CHACHA20_POLY1305_SHA256");
}

/* No tickets: a server that has spoken sends nothing but what it was given. */
Test(tls_ctx, no_resumption)
{
	struct tls_ctx *client = tls_pki_context(TLS_CLIENT, "ca", "host-a");
	struct tls_ctx *server = tls_pki_context(TLS_SERVER, "ca", "host-a");
	struct tls_pair p;
	char byte;

	tls_pair_make(&p, client, server);
	cr_assert_eq(tls_write_full(p.server, "x", 1, -1, 0, NULL), 0);
	cr_assert_eq(tls_read_full(p.client, &byte, 1, -1, 1000000, NULL), 0);
	cr_expect_eq(SSL_SESSION_is_resumable(SSL_get0_session(p.client->ssl)), 0);
	cr_expect_eq(SSL_get_max_early_data(p.server->ssl), 0);
	tls_pair_free(&p);
	tls_ctx_unref(client);
	tls_ctx_unref(server);
}

Test(tls_ctx, speed)
{
	struct tls_speed s = {0};
	struct error err = {0};

	cr_assert_eq(tls_speed_measure(&s, &err), 0, "%s", err.msg);
	cr_expect_gt(s.aes128gcm, 1000000);
	cr_expect_gt(s.chacha20poly1305, 1000000);
}

/* --- the script -------------------------------------------------------------------------------*/

static mode_t mode_of(const char *name)
{
	struct stat st;

	cr_assert_eq(stat(in_dir(name), &st), 0, "%s", name);
	return st.st_mode & 07777;
}

Test(tls_certs, modes_of_keys)
{
	cr_expect_eq(mode_of("ca/ca.key"), 0600);
	cr_expect_eq(mode_of("ca/host-a.key"), 0600);
	cr_expect_eq(mode_of("ca/host-a.pem"), 0644);
	cr_expect_eq(mode_of("ca/ca.pem"), 0644);
	cr_expect_eq(mode_of("ca/crl.pem"), 0644);
}

static char *identity_of(const char *name)
{
	FILE *f = fopen(in_dir(name), "r");
	X509 *cert = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
	char *text;

	cr_assert(cert, "%s", name);
	text = tls_ident_of(cert);
	X509_free(cert);
	fclose(f);
	return text;
}

Test(tls_certs, names)
{
	const char *dir = tls_pki_dir();
	CLEANUP_FREE char *all = NULL, *plain = NULL, *address = NULL, *renewed = NULL;

	cr_assert_eq(tls_pki_certs("host %s/ca all URI:spiffe://example.org/all IP:2001:db8::1 "
				   "DNS:All.Example.ORG IP:192.0.2.1 DNS:all >/dev/null",
				   dir),
		     0);
	all = identity_of("ca/all.pem");
	cr_expect_str_eq(all, "DNS:all, DNS:all.example.org, IP:192.0.2.1, IP:2001:db8::1, "
			      "URI:spiffe://example.org/all");
	plain = identity_of("ca/host-b.pem");
	cr_expect_str_eq(plain, "DNS:host-b");
	cr_assert_eq(tls_pki_certs("host %s/ca 192.0.2.7 >/dev/null", dir), 0);
	address = identity_of("ca/192.0.2.7.pem");
	cr_expect_str_eq(address, "IP:192.0.2.7");
	cr_assert_eq(tls_pki_certs("host --renew %s/ca all >/dev/null", dir), 0);
	renewed = identity_of("ca/all.pem");
	cr_expect_str_eq(renewed, all, "the names stay when nothing else is said");
}

Test(tls_certs, refuses)
{
	const char *d = tls_pki_dir();

	cr_expect_eq(tls_pki_certs("ca %s/ca 2>/dev/null", d), 1, "the key of a CA is kept");
	cr_expect_eq(tls_pki_certs("host %s/ca host-a 2>/dev/null", d), 1, "only with --renew");
	cr_expect_eq(tls_pki_certs("host %s host-c 2>/dev/null", d), 1, "no CA");
	cr_expect_eq(tls_pki_certs("revoke %s/ca nobody 2>/dev/null", d), 1);
	cr_expect_eq(tls_pki_certs("host %s/ca host-c IP:1.2.3 2>/dev/null", d), 1);
	cr_expect_eq(tls_pki_certs("host %s/ca host-c host-c 2>/dev/null", d), 2);
	cr_expect_eq(tls_pki_certs("host %s/ca ../host-c 2>/dev/null", d), 2);
	cr_expect_eq(tls_pki_certs("host %s/ca host-c --days x 2>/dev/null", d), 2);
	cr_expect_eq(tls_pki_certs("host %s/ca 2>/dev/null", d), 2);
	cr_expect_eq(tls_pki_certs("sell %s/ca 2>/dev/null", d), 2);
	cr_expect_eq(tls_pki_certs("2>/dev/null"), 2);
	cr_expect_eq(tls_pki_certs("--help >/dev/null"), 0);
	cr_expect_eq(access(in_dir("ca/host-c.key"), F_OK), -1, "nothing is left of it");
	cr_expect_eq(access(in_dir("ca/.lock"), F_OK), -1);
}

static int revoked_in(const char *crl)
{
	FILE *f = fopen(in_dir(crl), "r");
	X509_CRL *list = f ? PEM_read_X509_CRL(f, NULL, NULL, NULL) : NULL;
	int n;

	cr_assert(list, "%s", crl);
	n = sk_X509_REVOKED_num(X509_CRL_get_REVOKED(list));
	X509_CRL_free(list);
	fclose(f);
	return n < 0 ? 0 : n;
}

/* All that a host ever got is revoked, not only what lies in the folder now. */
Test(tls_certs, revokes_what_was_renewed)
{
	const char *d = tls_pki_dir();

	cr_assert_eq(tls_pki_certs("ca %s/two >/dev/null", d), 0);
	cr_assert_eq(revoked_in("two/crl.pem"), 0);
	cr_assert_eq(tls_pki_certs("host %s/two h >/dev/null", d), 0);
	cr_assert_eq(tls_pki_certs("host %s/two h --renew >/dev/null", d), 0);
	cr_assert_eq(tls_pki_certs("host %s/two other >/dev/null", d), 0);
	cr_assert_eq(tls_pki_certs("revoke %s/two h >/dev/null", d), 0);
	cr_expect_eq(revoked_in("two/crl.pem"), 2);
	cr_expect_eq(tls_pki_certs("revoke %s/two h 2>/dev/null", d), 1, "nothing is left");
	cr_assert_eq(tls_pki_certs("crl %s/two >/dev/null", d), 0);
	cr_expect_eq(revoked_in("two/crl.pem"), 2);
	cr_expect_eq(tls_pki_certs("list %s/two >/dev/null", d), 0);
}

/* Two at a time wait for each other: neither a serial number nor an entry gets lost. */
Test(tls_certs, at_the_same_time)
{
	char line[4 * PATH_MAX];
	const char *d = tls_pki_dir();

	cr_assert_eq(tls_pki_certs("ca %s/three >/dev/null", d), 0);
	snprintf(line, sizeof(line),
		 "for i in 1 2 3 4; do deploy/decant-certs host %s/three h$i >/dev/null & done; "
		 "wait; "
		 "test $(deploy/decant-certs list %s/three | awk '{print $4}' | sort -u | wc -l) = "
		 "5",
		 d, d);
	cr_expect_eq(system(line), 0);
}
