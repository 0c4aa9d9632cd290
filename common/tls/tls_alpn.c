/* SPDX-License-Identifier: Apache-2.0 */
/* Agreement on what is spoken inside TLS. No agreement, no connection. */
#include "tls/tls_priv.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <openssl/tls1.h>

/* Lists in the wire's form: each name behind a byte with its length. */
static const unsigned char http_list[] = "\x08http/1.1";
#define HTTP_LIST_LEN (sizeof(http_list) - 1)
static const unsigned char alpn_list[] = "\x08" TLS_ALPN;
#define ALPN_LIST_LEN (sizeof(alpn_list) - 1)
_Static_assert(sizeof(TLS_ALPN) - 1 == 8, "alpn_list has the length in it");

/* "h2, http/1.1" of a list in the wire's form; it comes from the peer. */
static void list_text(const unsigned char *list, size_t n, char *out, size_t cap)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i += 1u + list[i]) {
		if (len && len + 2 < cap) {
			out[len++] = ',';
			out[len++] = ' ';
		}
		for (size_t k = i + 1; k < n && k <= i + list[i] && len + 1 < cap; k++)
			out[len++] = isprint(list[k]) ? (char)list[k] : '?';
	}
	out[len] = '\0';
}

static void refuse(struct tls_chan *c, const char *fmt, const char *arg)
{
	c->refused_ret = error_set(&c->refused, -EPROTO, "tls-alpn", fmt, arg);
}

static int select_ours(SSL *ssl, const unsigned char **out, unsigned char *outlen,
		       const unsigned char *in, unsigned int inlen, void *arg)
{
	unsigned char *found = NULL;
	char text[200];

	(void)arg;
	if (SSL_select_next_proto(&found, outlen, alpn_list, ALPN_LIST_LEN, in, inlen) ==
	    OPENSSL_NPN_NEGOTIATED) {
		*out = found;
		return SSL_TLSEXT_ERR_OK;
	}
	list_text(in, inlen, text, sizeof(text));
	refuse(SSL_get_app_data(ssl), "the client speaks \"%s\" over TLS, not \"" TLS_ALPN "\"",
	       text);
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Does the hello offer TLS 1.3? Its list of versions: a byte of length, then two bytes each. */
static bool offers_13(SSL *ssl)
{
	const unsigned char *p;
	size_t n;

	if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_supported_versions, &p, &n))
		return false;
	for (size_t i = 1; i + 1 < n; i += 2)
		if (p[i] == 3 && p[i + 1] == 4)
			return true;
	return false;
}

/*
 * OpenSSL goes on without ALPN when the client names none, so it has to be looked for in the hello.
 * A client that is too old is left to OpenSSL, which then says so.
 */
static int see_hello(SSL *ssl, int *alert, void *arg)
{
	const unsigned char *p;
	size_t n;

	(void)arg;
	if (!offers_13(ssl) ||
	    SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &p,
				      &n))
		return SSL_CLIENT_HELLO_SUCCESS;
	refuse(SSL_get_app_data(ssl), "the client does not say that it speaks %s over TLS",
	       "\"" TLS_ALPN "\"");
	*alert = SSL_AD_NO_APPLICATION_PROTOCOL;
	return SSL_CLIENT_HELLO_ERROR;
}

int tls_alpn_setup(SSL_CTX *ssl, enum tls_role role)
{
	if (role == TLS_CLIENT)
		return SSL_CTX_set_alpn_protos(ssl, alpn_list, ALPN_LIST_LEN) ? -ENOMEM : 0;
	SSL_CTX_set_client_hello_cb(ssl, see_hello, NULL);
	SSL_CTX_set_alpn_select_cb(ssl, select_ours, NULL);
	return 0;
}

/* A client that names only others, such as h2, may yet understand what it gets. */
static int select_http(SSL *ssl, const unsigned char **out, unsigned char *outlen,
		       const unsigned char *in, unsigned int inlen, void *arg)
{
	unsigned char *found = NULL;

	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto(&found, outlen, http_list, HTTP_LIST_LEN, in, inlen) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_NOACK;
	*out = found;
	return SSL_TLSEXT_ERR_OK;
}

int tls_alpn_setup_http(SSL_CTX *ssl, enum tls_role role)
{
	if (role == TLS_CLIENT)
		return SSL_CTX_set_alpn_protos(ssl, http_list, HTTP_LIST_LEN) ? -ENOMEM : 0;
	SSL_CTX_set_alpn_select_cb(ssl, select_http, NULL);
	return 0;
}

int tls_alpn_check(SSL *ssl, struct error *err)
{
	const unsigned char *p = NULL;
	unsigned int n = 0;

	SSL_get0_alpn_selected(ssl, &p, &n);
	if (n == ALPN_LIST_LEN - 1 && !memcmp(p, alpn_list + 1, n))
		return 0;
	return error_set(err, -EPROTO, "tls-alpn",
			 "the peer speaks TLS, but does not say that it speaks \"" TLS_ALPN
			 "\" inside: is it a decant agent?");
}
