/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that are no decant agents: what they hear, and what is said about them. */
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include "lib/tls_pair.h"
#include "lib/tls_pki.h"

ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
	int bad = 0;

	(void)set;
	tls_pki_begin();
	bad |= tls_pki_certs("ca %s/good >/dev/null", tls_pki_dir());
	bad |= tls_pki_certs("host %s/good plain DNS:localhost >/dev/null", tls_pki_dir());
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

/**
 * struct stranger - a peer made of plain OpenSSL, or of nothing
 * @ctx:	its context, NULL for one that sends @text instead
 * @fd:		its end of the connection, blocking
 * @ours:	our end
 */
struct stranger {
	SSL_CTX *ctx;
	SSL *ssl;
	int fd;
	struct tls_ctx *our_ctx;
	struct tls_chan *ours;
	struct error err;
};

static void stranger_open(struct stranger *s, enum tls_role our_role, const char *text)
{
	int fd[2];

	memset(s, 0, sizeof(*s));
	tls_pair_sockets(fd);
	s->our_ctx = tls_pki_context(our_role, "good", "plain");
	s->fd = fd[our_role == TLS_CLIENT];
	if (our_role == TLS_SERVER)
		cr_assert_eq(tls_chan_accept(s->our_ctx, fd[1], &s->ours), 0);
	else
		cr_assert_eq(tls_chan_connect(s->our_ctx, fd[0], "localhost", &s->ours), 0);
	if (text) {
		cr_assert_eq(write(s->fd, text, strlen(text)), (ssize_t)strlen(text));
		return;
	}
	s->ctx = SSL_CTX_new(our_role == TLS_SERVER ? TLS_client_method() : TLS_server_method());
	cr_assert(s->ctx);
}

static void stranger_cert(struct stranger *s)
{
	char cert[PATH_MAX], key[PATH_MAX];

	cr_assert(SSL_CTX_use_certificate_file(s->ctx, in_dir("good/plain.pem", cert), 1) == 1);
	cr_assert(SSL_CTX_use_PrivateKey_file(s->ctx, in_dir("good/plain.key", key), 1) == 1);
}

/* Both sides go on until ours is done. Return: what our handshake returned */
static int stranger_meet(struct stranger *s)
{
	struct pollfd pfd = {.fd = tls_chan_fd(s->ours)};
	int r;

	if (s->ctx) {
		s->ssl = SSL_new(s->ctx);
		SSL_set_fd(s->ssl, s->fd);
		fcntl(s->fd, F_SETFL, O_NONBLOCK);
		if (SSL_is_server(s->ssl))
			SSL_set_accept_state(s->ssl);
		else
			SSL_set_connect_state(s->ssl);
	}
	for (int i = 0; (r = tls_chan_handshake(s->ours, &s->err)) == -EAGAIN && i < 1000; i++) {
		if (s->ssl)
			SSL_do_handshake(s->ssl);
		pfd.events = tls_chan_events(s->ours);
		poll(&pfd, 1, 5);
	}
	return r;
}

/* Which alert did the stranger get? 0 for none */
static int stranger_alert(struct stranger *s)
{
	unsigned long e;
	char byte;

	for (int i = 0; i < 100; i++) {
		ERR_clear_error();
		if (SSL_get_error(s->ssl, SSL_read(s->ssl, &byte, 1)) == SSL_ERROR_SSL)
			break;
		poll(NULL, 0, 5);
	}
	while ((e = ERR_get_error()))
		if (ERR_GET_REASON(e) > SSL_AD_REASON_OFFSET)
			return ERR_GET_REASON(e) - SSL_AD_REASON_OFFSET;
	return 0;
}

static void stranger_close(struct stranger *s)
{
	SSL_free(s->ssl);
	SSL_CTX_free(s->ctx);
	tls_chan_free(s->ours);
	tls_ctx_unref(s->our_ctx);
	close(s->fd);
}

#define ALPN(ctx, list) SSL_CTX_set_alpn_protos(ctx, (const void *)(list), sizeof(list) - 1)
#define SAYS(...)       ((const char *const[3]){__VA_ARGS__})

Test(tls_strangers, client_without_certificate)
{
	struct stranger s;

	stranger_open(&s, TLS_SERVER, NULL);
	ALPN(s.ctx, "\x08" TLS_ALPN);
	check("server", stranger_meet(&s), &s.err, "tls-no-certificate", -EACCES,
	      SAYS("presented no certificate"));
	cr_expect_eq(stranger_alert(&s), SSL_AD_CERTIFICATE_REQUIRED);
	stranger_close(&s);
}

Test(tls_strangers, client_of_tls_1_2)
{
	struct stranger s;

	stranger_open(&s, TLS_SERVER, NULL);
	stranger_cert(&s);
	SSL_CTX_set_max_proto_version(s.ctx, TLS1_2_VERSION);
	check("server", stranger_meet(&s), &s.err, "tls-version", -EPROTO,
	      SAYS("older TLS", "TLS 1.3 is needed"));
	cr_expect_eq(stranger_alert(&s), SSL_AD_PROTOCOL_VERSION);
	stranger_close(&s);
}

Test(tls_strangers, client_without_alpn)
{
	struct stranger s;

	stranger_open(&s, TLS_SERVER, NULL);
	stranger_cert(&s);
	check("server", stranger_meet(&s), &s.err, "tls-alpn", -EPROTO,
	      SAYS("does not say", TLS_ALPN));
	cr_expect_eq(stranger_alert(&s), SSL_AD_NO_APPLICATION_PROTOCOL);
	stranger_close(&s);
}

Test(tls_strangers, client_of_another_protocol)
{
	struct stranger s;

	stranger_open(&s, TLS_SERVER, NULL);
	stranger_cert(&s);
	ALPN(s.ctx, "\x02h2\x08http/1.1\x08"
		    "decant/9");
	check("server", stranger_meet(&s), &s.err, "tls-alpn", -EPROTO,
	      SAYS("h2, http/1.1, decant/9", TLS_ALPN));
	cr_expect_eq(stranger_alert(&s), SSL_AD_NO_APPLICATION_PROTOCOL);
	stranger_close(&s);
}

static void plain_client(const char *text, const char *shown)
{
	struct stranger s;
	char answer[512] = {0};

	stranger_open(&s, TLS_SERVER, text);
	check("server", stranger_meet(&s), &s.err, "tls-plaintext", -EPROTO,
	      SAYS("does not speak TLS", shown, "127.0.0.1:"));
	tls_chan_free(s.ours);
	s.ours = NULL;
	cr_expect_gt(recv(s.fd, answer, sizeof(answer) - 1, MSG_WAITALL), 0);
	cr_expect(strstr(answer, "HTTP/1.1 400 ") && strstr(answer, "TLS 1.3 only"), "%s", answer);
	stranger_close(&s);
}

Test(tls_strangers, plain_http_client)
{
	plain_client("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\"GET / HTTP/1.1\"");
}

Test(tls_strangers, plain_client_of_one_byte)
{
	plain_client("D", "\"D\"");
}

Test(tls_strangers, plain_client_of_control_bytes)
{
	plain_client("\x01\x02\x1b[31m", "\"???[31m\"");
}

Test(tls_strangers, plain_server)
{
	struct stranger s;

	stranger_open(&s, TLS_CLIENT, "SSH-2.0-OpenSSH_9.2\r\n");
	check("client", stranger_meet(&s), &s.err, "tls-plaintext", -EPROTO,
	      SAYS("does not speak TLS", "\"SSH-2.0-OpenSSH_9.2\"", "data port"));
	stranger_close(&s);
}

/* A first byte as of TLS, then nonsense. */
Test(tls_strangers, garbled_client)
{
	struct stranger s;

	stranger_open(&s, TLS_SERVER, "\x16\x03\x01\x01\x01garbage-garbage-garbage");
	shutdown(s.fd, SHUT_WR);
	cr_expect_lt(stranger_meet(&s), 0);
	cr_expect(!strcmp(s.err.code, "tls-handshake") || !strcmp(s.err.code, "tls-closed"),
		  "[%s] %s", s.err.code, s.err.msg);
	stranger_close(&s);
}

Test(tls_strangers, server_of_tls_1_2)
{
	struct stranger s;

	stranger_open(&s, TLS_CLIENT, NULL);
	stranger_cert(&s);
	SSL_CTX_set_max_proto_version(s.ctx, TLS1_2_VERSION);
	check("client", stranger_meet(&s), &s.err, "tls-version", -EPROTO,
	      SAYS("does not speak TLS 1.3"));
	stranger_close(&s);
}

Test(tls_strangers, server_without_alpn)
{
	struct stranger s;

	stranger_open(&s, TLS_CLIENT, NULL);
	stranger_cert(&s);
	check("client", stranger_meet(&s), &s.err, "tls-alpn", -EPROTO,
	      SAYS(TLS_ALPN, "is it a decant agent?"));
	stranger_close(&s);
}

static int alpn_never(SSL *ssl, const unsigned char **out, unsigned char *n,
		      const unsigned char *in, unsigned int inlen, void *arg)
{
	(void)ssl, (void)out, (void)n, (void)in, (void)inlen, (void)arg;
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

Test(tls_strangers, server_of_another_protocol)
{
	struct stranger s;

	stranger_open(&s, TLS_CLIENT, NULL);
	stranger_cert(&s);
	SSL_CTX_set_alpn_select_cb(s.ctx, alpn_never, NULL);
	check("client", stranger_meet(&s), &s.err, "tls-alpn", -EPROTO,
	      SAYS("not \"" TLS_ALPN "\"", "is it a decant agent?"));
	stranger_close(&s);
}

static int alpn_ours(SSL *ssl, const unsigned char **out, unsigned char *n, const unsigned char *in,
		     unsigned int inlen, void *arg)
{
	(void)ssl, (void)in, (void)inlen, (void)arg;
	*out = (const void *)TLS_ALPN;
	*n = sizeof(TLS_ALPN) - 1;
	return SSL_TLSEXT_ERR_OK;
}

/* A server that takes no key of our kind gets no certificate, and complains after the handshake. */
Test(tls_strangers, server_that_wants_another_kind_of_key)
{
	struct stranger s;
	ssize_t r;
	char byte;

	stranger_open(&s, TLS_CLIENT, NULL);
	stranger_cert(&s);
	SSL_CTX_set_alpn_select_cb(s.ctx, alpn_ours, NULL);
	SSL_CTX_set_verify(s.ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	cr_assert(SSL_CTX_set1_client_sigalgs_list(s.ctx, "ed25519") == 1);
	cr_assert_eq(stranger_meet(&s), 0, "%s", s.err.msg);
	SSL_do_handshake(s.ssl);
	for (int i = 0; (r = tls_read(s.ours, &byte, 1)) == -EAGAIN && i < 100; i++)
		poll(NULL, 0, 5);
	check("client", (int)r, tls_chan_error(s.ours), "tls-no-certificate", -EACCES,
	      SAYS("wants a certificate", "good/plain.pem"));
	stranger_close(&s);
}

Test(tls_strangers, peer_that_hangs_up)
{
	struct stranger s;

	stranger_open(&s, TLS_SERVER, "");
	shutdown(s.fd, SHUT_WR);
	check("server", stranger_meet(&s), &s.err, "tls-closed", -ECONNRESET,
	      SAYS("closed the connection during the TLS handshake"));
	stranger_close(&s);
	stranger_open(&s, TLS_CLIENT, "");
	setsockopt(s.fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1},
		   sizeof(struct linger));
	close(s.fd);
	s.fd = -1;
	check("client", stranger_meet(&s), &s.err, "tls-closed", -ECONNRESET,
	      SAYS("during the TLS handshake", "reset"));
	stranger_close(&s);
}
