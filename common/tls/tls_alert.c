/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the peer meant by an alert. An alert is one number, and several troubles share one; our own
 * certificate, clock and address tell which of them it is.
 */
#include "tls/tls_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <openssl/x509v3.h>
#include "util/cleanup.h"

#define REFUSED "the peer refused our certificate %s: "

static int alert_expired(struct tls_chan *c, struct error *err)
{
	const ASN1_TIME *end = X509_get0_notAfter(SSL_get_certificate(c->ssl));
	char when[TLS_WHY_TIME];

	tls_why_time(end, when);
	if (X509_cmp_current_time(end) < 0)
		return error_set(err, -EACCES, "tls-expired",
				 REFUSED "it expired at %s: renew it and reload", c->ctx->cert,
				 when);
	return error_set(err, -EACCES, "tls-expired",
			 REFUSED "expired, it says, but by our clock it is valid until %s: is the "
				 "peer's clock wrong, or its CA or revocation list out of date?",
			 c->ctx->cert, when);
}

static int alert_revoked(struct tls_chan *c, struct error *err)
{
	return error_set(err, -EACCES, "tls-revoked", REFUSED "it is on the peer's revocation list",
			 c->ctx->cert);
}

static int alert_unknown_ca(struct tls_chan *c, struct error *err)
{
	return error_set(err, -EACCES, "tls-unknown-ca",
			 REFUSED
			 "it is not signed by a CA that the peer trusts (or the peer has no "
			 "revocation list of that CA)",
			 c->ctx->cert);
}

/* Does our certificate have the address that this connection came in by? */
static bool has_local_ip(struct tls_chan *c)
{
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} a = {0};
	X509 *cert = SSL_get_certificate(c->ssl);
	socklen_t len = sizeof(a);

	if (getsockname(c->wire.fd, &a.sa, &len))
		return true;
	if (a.sa.sa_family == AF_INET)
		return X509_check_ip(cert, (void *)&a.in.sin_addr, 4, 0) == 1;
	if (a.sa.sa_family != AF_INET6)
		return true;
	if (IN6_IS_ADDR_V4MAPPED(&a.in6.sin6_addr))
		return X509_check_ip(cert, a.in6.sin6_addr.s6_addr + 12, 4, 0) == 1;
	return X509_check_ip(cert, a.in6.sin6_addr.s6_addr, 16, 0) == 1;
}

/*
 * The client refused us as "bad certificate": for one that is not valid yet, or for the name. It
 * told the name that it wanted at the start, unless that was an address.
 */
static int alert_bad(struct tls_chan *c, struct error *err)
{
	X509 *cert = SSL_get_certificate(c->ssl);
	const ASN1_TIME *begin = X509_get0_notBefore(cert);
	const char *name = SSL_get_servername(c->ssl, TLSEXT_NAMETYPE_host_name);
	CLEANUP_FREE char *has = tls_ident_of(cert);
	char when[TLS_WHY_TIME];

	tls_why_time(begin, when);
	if (X509_cmp_current_time(begin) > 0)
		return error_set(err, -EACCES, "tls-not-yet-valid",
				 REFUSED "it is not valid before %s", c->ctx->cert, when);
	if (c->ctx->role == TLS_SERVER &&
	    (name ? X509_check_host(cert, name, 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) != 1
		  : !has_local_ip(c)))
		return error_set(err, -EACCES, "tls-wrong-name",
				 REFUSED "it asked for %s, and ours is for %s", c->ctx->cert,
				 name ? name : "an IP address", has ? has : "?");
	return error_set(err, -EACCES, "tls-handshake",
			 REFUSED "bad, it says; ours is for %s and valid since %s: is the peer's "
				 "clock right?",
			 c->ctx->cert, has ? has : "?", when);
}

static int alert_no_certificate(struct tls_chan *c, struct error *err)
{
	return error_set(err, -EACCES, "tls-no-certificate",
			 "the peer wants a certificate and got none: the kind of key in %s may not "
			 "be one that it accepts",
			 c->ctx->cert);
}

static int alert_version(struct tls_chan *c, struct error *err)
{
	return error_set(err, -EPROTO, "tls-version",
			 "%s does not speak TLS 1.3, and nothing older is spoken here", c->peer);
}

static int alert_alpn(struct tls_chan *c, struct error *err)
{
	return error_set(err, -EPROTO, "tls-alpn",
			 "%s speaks TLS, but not \"" TLS_ALPN "\" inside: is it a decant agent?",
			 c->peer);
}

static int alert_unsuited(struct tls_chan *c, struct error *err)
{
	return error_set(err, -EACCES, "tls-handshake",
			 REFUSED "it is not made for this use (the extended key usage must have "
				 "clientAuth and serverAuth)",
			 c->ctx->cert);
}

static int alert_signature(struct tls_chan *c, struct error *err)
{
	return error_set(err, -EACCES, "tls-unknown-ca",
			 REFUSED "a signature does not fit: the peer's CA file or revocation list "
				 "is of a CA that has the name of ours and another key",
			 c->ctx->cert);
}

int tls_alert_why(struct tls_chan *c, int alert, struct error *err)
{
	switch (alert) {
	case SSL_AD_CERTIFICATE_EXPIRED:
		return alert_expired(c, err);
	case SSL_AD_CERTIFICATE_REVOKED:
		return alert_revoked(c, err);
	case SSL_AD_UNKNOWN_CA:
		return alert_unknown_ca(c, err);
	case SSL_AD_DECRYPT_ERROR:
		return alert_signature(c, err);
	case SSL_AD_BAD_CERTIFICATE:
		return alert_bad(c, err);
	case SSL_AD_UNSUPPORTED_CERTIFICATE:
		return alert_unsuited(c, err);
	case SSL_AD_CERTIFICATE_REQUIRED:
		return alert_no_certificate(c, err);
	case SSL_AD_PROTOCOL_VERSION:
		return alert_version(c, err);
	case SSL_AD_NO_APPLICATION_PROTOCOL:
		return alert_alpn(c, err);
	default:
		return error_set(err, -EPROTO, "tls-handshake",
				 "%s ended the connection with the TLS alert \"%s\"", c->peer,
				 SSL_alert_desc_string_long(alert));
	}
}
