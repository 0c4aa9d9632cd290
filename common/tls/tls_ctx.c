/* SPDX-License-Identifier: Apache-2.0 */
#include "tls/tls_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include "util/cleanup.h"
#ifdef __aarch64__
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define CODE "tls-files"

/* Two records. More of it does not help: what one recv(2) brings should stay in the cache. */
#define READ_AHEAD (2 * (SSL3_RT_MAX_PLAIN_LENGTH + 512))

bool tls_ctx_cpu_has_aes(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
	return (getauxval(AT_HWCAP) & (HWCAP_AES | HWCAP_PMULL)) == (HWCAP_AES | HWCAP_PMULL);
#else
	return false;
#endif
}

const char *tls_ctx_ciphers(bool has_aes)
{
	return has_aes ? "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
		       : "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";
}

/* The words of the newest OpenSSL error; it is the one closest to what the caller asked for. */
static const char *reason(void)
{
	const char *s = ERR_reason_error_string(ERR_peek_last_error());

	return s ? s : "unknown reason";
}

static int open_pem(const char *what, const char *path, FILE **ret, struct error *err)
{
	FILE *f;

	if (!path || !*path)
		return error_set(err, -EINVAL, CODE, "no %s file is configured", what);
	f = fopen(path, "re");
	if (!f)
		return error_set(err, -errno, CODE, "cannot open the %s file %s: %s", what, path,
				 strerror(errno));
	*ret = f;
	return 0;
}

/*
 * What libcrypto finds out about a certificate when it is first looked at it keeps in there. Many threads verify by one store
 * at a time; libcrypto guards that, but by an atomic flag that a race detector cannot see. So it is found out here,
 * while there is one thread. A certificate that is not right is refused when something is verified by it.
 */
static void look_at(X509 *cert)
{
	X509_check_purpose(cert, -1, 0);
}

/* Everything that a CA or CRL file holds of the wanted kind goes into the store. */
static int store_add(X509_STORE *store, STACK_OF(X509_INFO) * infos, bool crls)
{
	int added = 0;

	for (int i = 0; i < sk_X509_INFO_num(infos); i++) {
		const X509_INFO *info = sk_X509_INFO_value(infos, i);

		if (!crls && info->x509) {
			look_at(info->x509);
			added += X509_STORE_add_cert(store, info->x509);
		}
		if (crls && info->crl)
			added += X509_STORE_add_crl(store, info->crl);
	}
	return added;
}

static int load_store(X509_STORE *store, const char *path, bool crls, struct error *err)
{
	const char *what = crls ? "CRL" : "CA";
	CLEANUP_FCLOSE FILE *f = NULL;
	STACK_OF(X509_INFO) * infos;
	int added, r;

	r = open_pem(what, path, &f, err);
	if (r)
		return r;
	ERR_clear_error();
	infos = PEM_X509_INFO_read(f, NULL, NULL, NULL);
	if (!infos)
		return error_set(err, -EINVAL, CODE, "cannot read the %s file %s: %s", what, path,
				 reason());
	added = store_add(store, infos, crls);
	sk_X509_INFO_pop_free(infos, X509_INFO_free);
	if (!added)
		return error_set(err, -EINVAL, CODE, "the %s file %s has no PEM %s in it", what,
				 path, crls ? "revocation list" : "certificate");
	if (crls)
		X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
	return 0;
}

/* Use the next certificate of a file; the first is ours, the others lead from it to the CA. */
static int use_next_cert(SSL_CTX *ssl, FILE *f, bool first)
{
	X509 *cert = PEM_read_X509(f, NULL, NULL, NULL);
	int ok;

	if (!cert)
		return ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE ? -ENOENT
										    : -EINVAL;
	ok = first ? SSL_CTX_use_certificate(ssl, cert) : SSL_CTX_add1_chain_cert(ssl, cert);
	X509_free(cert);
	return ok == 1 ? 0 : -EINVAL;
}

static int load_cert(SSL_CTX *ssl, const char *path, struct error *err)
{
	CLEANUP_FCLOSE FILE *f = NULL;
	int n = 0, r;

	r = open_pem("certificate", path, &f, err);
	if (r)
		return r;
	ERR_clear_error();
	while (!(r = use_next_cert(ssl, f, n == 0)))
		n++;
	if (r != -ENOENT)
		return error_set(err, r, CODE, "cannot use certificate %d of the file %s: %s",
				 n + 1, path, reason());
	if (!n)
		return error_set(err, -EINVAL, CODE,
				 "the certificate file %s has no PEM certificate in it", path);
	return 0;
}

/* OpenSSL's own would ask on the terminal. */
static int no_password(char *buf, int size, int rwflag, void *asked)
{
	(void)buf, (void)size, (void)rwflag;
	*(bool *)asked = true;
	return -1;
}

/* Whoever has it is this host. */
static int check_secret(FILE *f, const char *path, struct error *err)
{
	struct stat st;

	if (fstat(fileno(f), &st))
		return error_set(err, -errno, CODE, "key %s: %s", path, strerror(errno));
	if (st.st_mode & 027)
		return error_set(err, -EPERM, CODE,
				 "the key %s has mode %04o, so that others can read or change it: "
				 "chmod 0600",
				 path, st.st_mode & 07777);
	return 0;
}

static int load_key(SSL_CTX *ssl, const char *path, const char *cert, struct error *err)
{
	CLEANUP_FCLOSE FILE *f = NULL;
	bool encrypted = false;
	EVP_PKEY *key;
	int ok, r;

	r = open_pem("key", path, &f, err);
	if (!r)
		r = check_secret(f, path, err);
	if (r)
		return r;
	ERR_clear_error();
	key = PEM_read_PrivateKey(f, NULL, no_password, &encrypted);
	if (encrypted)
		return error_set(err, -EINVAL, CODE,
				 "the key in %s is encrypted: not supported, store it without a "
				 "password",
				 path);
	if (!key)
		return error_set(err, -EINVAL, CODE,
				 "the key file %s has no PEM private key in it (%s)", path,
				 reason());
	/* With the certificate loaded, this also compares the two. */
	ok = SSL_CTX_use_PrivateKey(ssl, key);
	EVP_PKEY_free(key);
	if (ok != 1)
		return error_set(err, -EINVAL, CODE,
				 "the key in %s does not belong to the certificate in %s (%s)",
				 path, cert, reason());
	return 0;
}

static int set_rules(SSL_CTX *ssl, enum tls_role role, bool http)
{
	static const unsigned char sid[] = "decant";

	if (!SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) ||
	    !SSL_CTX_set_max_proto_version(ssl, TLS1_3_VERSION) ||
	    !SSL_CTX_set_ciphersuites(ssl, tls_ctx_ciphers(tls_ctx_cpu_has_aes())) ||
	    !SSL_CTX_set_num_tickets(ssl, 0) || !SSL_CTX_set_max_early_data(ssl, 0) ||
	    !SSL_CTX_set_recv_max_early_data(ssl, 0) ||
	    !SSL_CTX_set_session_id_context(ssl, sid, sizeof(sid) - 1))
		return -EINVAL;
	/*
	 * The server's order counts, but a client that puts ChaCha20 first has no AES
	 * instructions: the slower side decides.
	 */
	SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
					 SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
					 SSL_OP_PRIORITIZE_CHACHA);
	/* Otherwise each record costs two calls of recv(2): one for its header alone. */
	SSL_CTX_set_read_ahead(ssl, 1);
	SSL_CTX_set_default_read_buffer_len(ssl, READ_AHEAD);
	SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | (http ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT),
			   tls_why_verify);
	SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	/*
	 * Otherwise each record costs a recv() for its five bytes of header and another for the
	 * rest. Larger buffers than OpenSSL's own made bulk reading slower (it moves what is left
	 * over). What this leaves in OpenSSL is why tls_pending() exists.
	 */
	SSL_CTX_set_read_ahead(ssl, 1);
	return http ? tls_alpn_setup_http(ssl, role) : tls_alpn_setup(ssl, role);
}

static int load_peers(struct tls_ctx *ctx, const struct tls_files *files, struct error *err)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ctx->ssl);
	int r;

	if (ctx->http && ctx->role == TLS_CLIENT && !files->ca)
		return SSL_CTX_set_default_verify_paths(ctx->ssl) == 1
			       ? 0
			       : error_set(err, -EINVAL, CODE,
					   "the system's certificates cannot be used: %s",
					   reason());
	r = load_store(store, files->ca, false, err);
	return !r && files->crl ? load_store(store, files->crl, true, err) : r;
}

static int load_own(struct tls_ctx *ctx, const struct tls_files *files, struct error *err)
{
	int r;

	if (ctx->http && ctx->role == TLS_CLIENT && !files->cert && !files->key)
		return 0;
	r = load_cert(ctx->ssl, files->cert, err);
	return r ? r : load_key(ctx->ssl, files->key, files->cert, err);
}

static int ctx_load(struct tls_ctx *ctx, const struct tls_files *files, struct error *err)
{
	int r = set_rules(ctx->ssl, ctx->role, ctx->http);

	if (r)
		return error_set(err, r, "tls-handshake", "cannot set up TLS 1.3: %s", reason());
	r = load_peers(ctx, files, err);
	if (!r)
		r = load_own(ctx, files, err);
	ERR_clear_error();
	return r;
}

int tls_ctx_new(const struct tls_files *files, enum tls_role role, struct tls_ctx **ret,
		struct error *err)
{
	struct tls_ctx *ctx = calloc(1, sizeof(*ctx));
	int r;

	if (!ctx)
		return error_set(err, -ENOMEM, NULL, "no memory for a TLS context");
	/* A thread that dials may be at it when exit(3) begins: nothing is taken away under it. */
	OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
	atomic_init(&ctx->refs, 1);
	ctx->role = role;
	ctx->http = files->http;
	ctx->ssl = SSL_CTX_new(role == TLS_CLIENT ? TLS_client_method() : TLS_server_method());
	ctx->bio = tls_wire_method();
	ctx->stats = tls_stats_new();
	ctx->ca = strdup(files->ca ? files->ca : "this system's list of authorities");
	ctx->cert = files->cert ? strdup(files->cert) : NULL;
	ctx->crl = files->crl ? strdup(files->crl) : NULL;
	if (!ctx->ssl || !ctx->bio || !ctx->stats || !ctx->ca || !ctx->cert != !files->cert ||
	    !ctx->crl != !files->crl)
		r = error_set(err, -ENOMEM, NULL, "no memory for a TLS context");
	else
		r = ctx_load(ctx, files, err);
	if (r)
		tls_ctx_unref(ctx);
	else
		*ret = ctx;
	return r;
}

struct tls_ctx *tls_ctx_ref(struct tls_ctx *ctx)
{
	atomic_fetch_add_explicit(&ctx->refs, 1, memory_order_relaxed);
	return ctx;
}

void tls_ctx_unref(struct tls_ctx *ctx)
{
	if (!ctx || atomic_fetch_sub_explicit(&ctx->refs, 1, memory_order_acq_rel) != 1)
		return;
	SSL_CTX_free(ctx->ssl);
	BIO_meth_free(ctx->bio);
	tls_stats_unref(ctx->stats);
	free(ctx->ca);
	free(ctx->cert);
	free(ctx->crl);
	free(ctx);
}

int tls_ctx_check_dates(const struct tls_ctx *ctx, struct error *err)
{
	const X509 *cert = SSL_CTX_get0_certificate(ctx->ssl);
	char when[TLS_WHY_TIME];

	if (X509_cmp_current_time(X509_get0_notBefore(cert)) > 0)
		return error_set(err, -EKEYREJECTED, "tls-not-yet-valid",
				 "our certificate %s is not valid before %s: is the clock right?",
				 ctx->cert, tls_why_time(X509_get0_notBefore(cert), when));
	if (X509_cmp_current_time(X509_get0_notAfter(cert)) < 0)
		return error_set(err, -EKEYEXPIRED, "tls-expired",
				 "our certificate %s expired at %s: renew it and reload", ctx->cert,
				 tls_why_time(X509_get0_notAfter(cert), when));
	return 0;
}
