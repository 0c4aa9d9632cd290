/* SPDX-License-Identifier: Apache-2.0 */
/* What went wrong, in words for the person on this side. What the peer says: tls_alert.c. */
#include "tls/tls_priv.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include "util/cleanup.h"

const char *tls_why_time(const ASN1_TIME *t, char buf[static TLS_WHY_TIME])
{
	struct tm tm;

	if (!ASN1_TIME_to_tm(t, &tm) || !strftime(buf, TLS_WHY_TIME, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(buf, TLS_WHY_TIME, "(no valid time)");
	return buf;
}

/**
 * struct verdict - OpenSSL's verdict on a chain of certificates, as the callback gathers it
 * @c:		the connection
 * @error:	X509_V_ERR_…
 * @cert:	the certificate in question: the peer's, or one of an authority above it
 * @name:	"the peer's certificate (DNS:host-a)" or the like
 */
struct verdict {
	struct tls_chan *c;
	int error;
	X509 *cert;
	const char *name;
};

static int say_expired(const struct verdict *v, struct error *err)
{
	char when[TLS_WHY_TIME];

	return error_set(err, -EACCES, "tls-expired", "%s expired at %s: renew it", v->name,
			 tls_why_time(X509_get0_notAfter(v->cert), when));
}

static int say_not_yet(const struct verdict *v, struct error *err)
{
	char when[TLS_WHY_TIME];

	return error_set(err, -EACCES, "tls-not-yet-valid",
			 "%s is not valid before %s: is this host's clock right?", v->name,
			 tls_why_time(X509_get0_notBefore(v->cert), when));
}

static int say_revoked(const struct verdict *v, struct error *err)
{
	return error_set(err, -EACCES, "tls-revoked", "%s is revoked, says %s", v->name,
			 v->c->ctx->crl);
}

static int say_unknown_ca(const struct verdict *v, struct error *err)
{
	return error_set(err, -EACCES, "tls-unknown-ca", "%s is signed by a CA that is not in %s",
			 v->name, v->c->ctx->ca);
}

static int say_crl(const struct verdict *v, struct error *err)
{
	return error_set(err, -EACCES, "tls-crl", "%s cannot be checked for revocation with %s: %s",
			 v->name, v->c->ctx->crl, X509_verify_cert_error_string(v->error));
}

static int say_wrong_name(const struct verdict *v, struct error *err)
{
	CLEANUP_FREE char *has = tls_ident_of(v->cert);

	return error_set(err, -EACCES, "tls-wrong-name",
			 "asked for \"%s\", but the certificate there is for %s: wrong host, or a "
			 "certificate without this name",
			 v->c->asked ? v->c->asked : "", has ? has : "?");
}

static int say_other(const struct verdict *v, struct error *err)
{
	return error_set(err, -EACCES, "tls-handshake", "%s is refused: %s", v->name,
			 X509_verify_cert_error_string(v->error));
}

static int (*verdict_words(int error))(const struct verdict *, struct error *)
{
	switch (error) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return say_expired;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return say_not_yet;
	case X509_V_ERR_CERT_REVOKED:
		return say_revoked;
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE: /* a CA of the same name with another key */
		return say_unknown_ca;
	case X509_V_ERR_UNABLE_TO_GET_CRL:
	case X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER:
	case X509_V_ERR_CRL_SIGNATURE_FAILURE:
	case X509_V_ERR_CRL_NOT_YET_VALID:
	case X509_V_ERR_CRL_HAS_EXPIRED:
		return say_crl;
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		return say_wrong_name;
	default:
		return say_other;
	}
}

int tls_why_verify(int ok, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct verdict v = {.c = SSL_get_app_data(ssl),
			    .error = X509_STORE_CTX_get_error(store),
			    .cert = X509_STORE_CTX_get_current_cert(store)};
	CLEANUP_FREE char *who = NULL;
	char name[256];

	if (ok)
		return ok;
	if (!v.cert)
		v.cert = X509_STORE_CTX_get0_cert(store);
	who = tls_ident_of(v.cert);
	snprintf(name, sizeof(name), "%s certificate (%s)",
		 X509_STORE_CTX_get_error_depth(store) ? "the peer's CA" : "the peer's",
		 who ? who : "?");
	v.name = name;
	v.c->refused_ret = verdict_words(v.error)(&v, &v.c->refused);
	return 0;
}

static int why_plain(struct tls_chan *c)
{
	char text[TLS_WIRE_FIRST + 1];
	size_t n = 0;

	for (; n < c->wire.nfirst && c->wire.first[n] != '\r' && c->wire.first[n] != '\n'; n++)
		text[n] = isprint(c->wire.first[n]) ? (char)c->wire.first[n] : '?';
	text[n] = '\0';
	return error_set(
		&c->why, -EPROTO, "tls-plaintext",
		c->ctx->role == TLS_SERVER
			? "%s does not speak TLS: it began with \"%s\""
			: "%s does not speak TLS: it answered \"%s\"; is this the data port?",
		c->peer, text);
}

/* The connection went away, without a word or by an errno. */
static int why_closed(struct tls_chan *c)
{
	int e = c->wire.err ? c->wire.err : ECONNRESET;

	if (!c->done)
		return error_set(&c->why, -e, "tls-closed",
				 "the peer closed the connection during the TLS handshake%s%s: its "
				 "log may say why",
				 c->wire.err ? ": " : "", c->wire.err ? strerror(e) : "");
	return error_set(&c->why, -e, "tls-closed", "the connection to %s was lost: %s", c->peer,
			 c->wire.err ? strerror(e) : "closed without the end of TLS");
}

static int why_reason(struct tls_chan *c, int reason)
{
	switch (reason) {
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return error_set(&c->why, -EACCES, "tls-no-certificate",
				 "the client presented no certificate, and one is needed here");
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_WRONG_SSL_VERSION:
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_UNKNOWN_PROTOCOL:
		return error_set(&c->why, -EPROTO, "tls-version",
				 "the peer speaks an older TLS only, and TLS 1.3 is needed here");
	case SSL_R_UNEXPECTED_EOF_WHILE_READING:
		return why_closed(c);
	default:
		return 0;
	}
}

/* Is one of the errors that OpenSSL left behind one that has words of its own? */
static int why_known(struct tls_chan *c, unsigned long *first)
{
	unsigned long e;
	int r = 0;

	while (!r && (e = ERR_get_error())) {
		int reason = ERR_GET_REASON(e);

		if (!*first)
			*first = e;
		if (ERR_GET_LIB(e) != ERR_LIB_SSL)
			continue;
		if (reason > SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256)
			r = tls_alert_why(c, reason - SSL_AD_REASON_OFFSET, &c->why);
		else
			r = why_reason(c, reason);
	}
	return r;
}

/*
 * A write that fails because the peer has closed tells nothing; but before it closed, the peer may
 * have sent an alert, and that is still to be read.
 */
static int why_last_words(struct tls_chan *c)
{
	unsigned long first = 0;
	char byte;

	if (!c->done)
		return 0;
	ERR_clear_error();
	c->wire.budget = TLS_WIRE_BUDGET;
	if (SSL_peek(c->ssl, &byte, 1) > 0)
		return 0;
	return why_known(c, &first);
}

int tls_why(struct tls_chan *c, int ssl_error)
{
	unsigned long first = 0;
	const char *words;
	int r;

	if (error_is_set(&c->refused)) {
		error_set(&c->why, c->refused_ret, c->refused.code, "%s", c->refused.msg);
		return c->refused_ret;
	}
	if (c->wire.plain)
		return why_plain(c);
	if (ssl_error != SSL_ERROR_SSL) {
		r = c->wire.err == EPIPE || c->wire.err == ECONNRESET ? why_last_words(c) : 0;
		return r ? r : why_closed(c);
	}
	r = why_known(c, &first);
	if (r)
		return r;
	words = ERR_reason_error_string(first);
	return error_set(&c->why, -EPROTO, "tls-handshake", "TLS with %s failed: %s", c->peer,
			 words ? words : "unknown reason");
}
