/* SPDX-License-Identifier: Apache-2.0 */
/* New keys in the middle of a connection: our own, the peer's, and far too many. */
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include "lib/tls_pair.h"
#include "lib/tls_pki.h"
#include "tls/tls_priv.h"

ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
	int bad = 0;

	(void)set;
	tls_pki_begin();
	bad |= tls_pki_certs("ca %s/ca >/dev/null", tls_pki_dir());
	bad |= tls_pki_certs("host %s/ca host-a DNS:localhost >/dev/null", tls_pki_dir());
	if (bad)
		abort();
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
	(void)stats;
	tls_pki_end();
}

static void count_key_updates(int write_p, int version, int type, const void *buf, size_t len,
			      SSL *ssl, void *arg)
{
	(void)version, (void)ssl;
	if (!write_p && type == SSL3_RT_HANDSHAKE && len &&
	    *(const char *)buf == SSL3_MT_KEY_UPDATE)
		++*(int *)arg;
}

Test(tls_keys, sender_renews_its_keys, .timeout = 60)
{
	enum { BATCH = 64, RECORDS = 270016 };
	struct tls_pair p;
	char in[BATCH], out = 'x';
	int updates = 0;

	tls_pair_alike(&p);
	SSL_set_msg_callback(p.server->ssl, count_key_updates);
	SSL_set_msg_callback_arg(p.server->ssl, &updates);
	for (int i = 0; i < RECORDS / BATCH; i++) {
		for (int k = 0; k < BATCH; k++)
			cr_assert_eq(tls_write_full(p.client, &out, 1, -1, 0, NULL), 0);
		cr_assert_eq(tls_read_full(p.server, in, BATCH, -1, 1000000, NULL), 0);
	}
	cr_expect_eq(updates, 1, "%d new keys in %d records", updates, RECORDS);
	tls_pair_free(&p);
}

Test(tls_keys, peer_asks_for_new_keys)
{
	struct tls_pair p;
	int updates = 0;
	char buf[100] = "before";

	tls_pair_alike(&p);
	SSL_set_msg_callback(p.client->ssl, count_key_updates);
	SSL_set_msg_callback_arg(p.client->ssl, &updates);
	for (int i = 1; i <= 3; i++) {
		cr_assert_eq(SSL_key_update(p.client->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
		cr_assert_eq(tls_write_full(p.client, buf, sizeof(buf), -1, 0, NULL), 0);
		cr_assert_eq(tls_read_full(p.server, buf, sizeof(buf), -1, 1000000, NULL), 0);
		cr_assert_eq(tls_write_full(p.server, buf, sizeof(buf), -1, 0, NULL), 0);
		cr_assert_eq(tls_read_full(p.client, buf, sizeof(buf), -1, 1000000, NULL), 0);
		cr_expect_eq(updates, i, "the answer to round %d", i);
	}
	tls_pair_free(&p);
}

/* Bytes for a thread to send as fast as they go. */
struct blast {
	int fd;
	const char *p;
	size_t n;
};

static void *blast_main(void *arg)
{
	struct blast *b = arg;

	while (b->n) {
		struct pollfd pfd = {.fd = b->fd, .events = POLLOUT};
		ssize_t r = send(b->fd, b->p, b->n, MSG_NOSIGNAL);

		if (r < 0 && poll(&pfd, 1, 5000) != 1)
			break;
		b->p += r > 0 ? r : 0;
		b->n -= r > 0 ? (size_t)r : 0;
	}
	return NULL;
}

/* A peer with nothing to say but new keys must not keep the reader inside for ever. */
Test(tls_keys, key_updates_without_end, .timeout = 60)
{
	BIO *mem = BIO_new(BIO_s_mem());
	struct pollfd pfd = {.events = POLLIN};
	struct blast blast;
	struct tls_pair p;
	pthread_t t;
	char byte, *bytes;
	int left = 0;

	tls_pair_alike(&p);
	SSL_set0_wbio(p.client->ssl, mem);
	for (int i = 0; i < 40000; i++) {
		SSL_key_update(p.client->ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
		cr_assert_eq(SSL_do_handshake(p.client->ssl), 1);
	}
	blast.fd = tls_chan_fd(p.client);
	blast.n = (size_t)BIO_get_mem_data(mem, &bytes);
	blast.p = bytes;
	cr_assert_gt(blast.n, 1000000);
	pthread_create(&t, NULL, blast_main, &blast);
	pfd.fd = tls_chan_fd(p.server);
	poll(NULL, 0, 50); /* let it get ahead */
	while (poll(&pfd, 1, 200) == 1) {
		cr_assert_eq(tls_read(p.server, &byte, 1), -EAGAIN);
		cr_expect_not(tls_pending(p.server));
		left += poll(&pfd, 1, 0);
	}
	cr_expect_geq(left, 1, "it came back only when all was read");
	pthread_join(t, NULL);
	tls_pair_free(&p);
}
