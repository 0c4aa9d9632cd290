/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all TLS connections of one role share: certificate, key, CA, CRL and the rules. TLS 1.3
 * only, both sides authenticated, no tickets, no early data, no renegotiation, ALPN "decant/1".
 * REST's connections are of the second kind (struct tls_files' @http): a client need not have a
 * certificate, and what is spoken inside is HTTP/1.1, said or not.
 *
 * A context never changes once it is made. To reload certificates, make a new one and use it for
 * new connections; connections hold a reference on theirs, so old ones go on undisturbed.
 */
#ifndef DECANT_TLS_CTX_H
#define DECANT_TLS_CTX_H

#include <stdbool.h>
#include "util/error.h"

/** TLS_ALPN - the application protocol that both sides must name */
#define TLS_ALPN "decant/1"

/** enum tls_role - which side of the handshake a context is for */
enum tls_role {
	TLS_CLIENT,
	TLS_SERVER,
};

/**
 * struct tls_files - the PEM files a context is made from
 * @ca:		certificates of the authorities that peers must be signed by
 * @cert:	our certificate, followed by intermediate ones if there are any
 * @key:	the unencrypted private key of @cert
 * @crl:	revocation lists, one for each authority in use, or NULL: revocation is not checked
 * @http:	for REST. A server asks for the client's certificate and goes on without one: whoever
 *		is let in must be told by tls_chan_identity() or by what is said inside. A client may
 *		have no @cert and @key; without @ca it takes the authorities that the system trusts
 */
struct tls_files {
	const char *ca;
	const char *cert;
	const char *key;
	const char *crl;
	bool http;
};

struct tls_ctx;

/**
 * tls_ctx_new() - load the files and make a context
 * @files:	read now and not kept; nothing is read again later
 * @role:	what connections of this context are
 * @ret:	new context with one reference, for tls_ctx_unref()
 * @err:	on failure names the file and what is wrong with it, code "tls-files"
 *
 * Return: 0; -errno of opening a file; -EINVAL for contents that don't do; -ENOMEM
 */
int tls_ctx_new(const struct tls_files *files, enum tls_role role, struct tls_ctx **ret,
		struct error *err);

/** tls_ctx_ref() - take a reference; any thread. Return: @ctx */
struct tls_ctx *tls_ctx_ref(struct tls_ctx *ctx);

/** tls_ctx_unref() - drop a reference; any thread; NULL is nothing */
void tls_ctx_unref(struct tls_ctx *ctx);

/**
 * tls_ctx_check_dates() - is our own certificate valid now?
 *
 * One that is not is loaded all the same (clocks differ, and the time runs out while we run), but
 * peers will refuse it: say so at the start and after each reload.
 *
 * Return: 0; -EKEYREJECTED not valid yet; -EKEYEXPIRED; @err says which file and when
 */
int tls_ctx_check_dates(const struct tls_ctx *ctx, struct error *err);

/** tls_ctx_cpu_has_aes() - Return: whether this processor has AES instructions */
bool tls_ctx_cpu_has_aes(void);

/**
 * tls_ctx_ciphers() - order of preference of the cipher suites
 * @has_aes:	whether the processor has AES instructions; without, ChaCha20 is the faster one
 *
 * Return: static string in OpenSSL's list form
 */
const char *tls_ctx_ciphers(bool has_aes);

#endif
