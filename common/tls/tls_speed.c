/* SPDX-License-Identifier: Apache-2.0 */
#include "tls/tls_speed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include "tls/tls_chan.h"
#include "util/cleanup.h"

#define MEASURE_US   50000
#define HEADER_BYTES 5  /* of a record, which are authenticated but not encrypted */
#define BATCH        16 /* records between two looks at the clock */

/* What TLS does for each record: a nonce, the header as additional data, the data, the tag. */
static int seal(EVP_CIPHER_CTX *c, unsigned char *out, const unsigned char *in, uint64_t seq)
{
	unsigned char nonce[12] = {0}, header[HEADER_BYTES] = {23, 3, 3, 0x40, 0x11}, tag[16];
	int n;

	memcpy(nonce + 4, &seq, sizeof(seq));
	return EVP_EncryptInit_ex(c, NULL, NULL, NULL, nonce) == 1 &&
	       EVP_EncryptUpdate(c, NULL, &n, header, sizeof(header)) == 1 &&
	       EVP_EncryptUpdate(c, out, &n, in, TLS_RECORD_MAX) == 1 &&
	       EVP_EncryptFinal_ex(c, out + n, &n) == 1 &&
	       EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, sizeof(tag), tag) == 1;
}

/* Time of this thread alone: a busy host would otherwise look like a slow cipher. */
static uint64_t thread_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Return: bytes per second, 0 on failure */
static uint64_t run(EVP_CIPHER_CTX *c, unsigned char *buf)
{
	uint64_t start = thread_us(), took, seq = 0;

	do {
		for (int i = 0; i < BATCH; i++)
			if (!seal(c, buf + TLS_RECORD_MAX, buf, seq++))
				return 0;
		took = thread_us() - start;
	} while (took < MEASURE_US);
	return seq * TLS_RECORD_MAX * 1000000 / took;
}

static int measure(const EVP_CIPHER *cipher, uint64_t *ret, struct error *err)
{
	static const unsigned char key[EVP_MAX_KEY_LENGTH];
	CLEANUP_FREE unsigned char *buf = calloc(2, TLS_RECORD_MAX);
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	uint64_t rate = 0;

	if (buf && c && EVP_EncryptInit_ex(c, cipher, NULL, key, NULL) == 1)
		rate = run(c, buf);
	EVP_CIPHER_CTX_free(c);
	if (!rate)
		return error_set(err, -ENOTSUP, NULL, "OpenSSL cannot encrypt with %s here",
				 EVP_CIPHER_get0_name(cipher));
	*ret = rate;
	return 0;
}

int tls_speed_measure(struct tls_speed *ret, struct error *err)
{
	struct tls_speed s;
	int r;

	ERR_clear_error();
	r = measure(EVP_aes_128_gcm(), &s.aes128gcm, err);
	if (!r)
		r = measure(EVP_chacha20_poly1305(), &s.chacha20poly1305, err);
	if (!r)
		*ret = s;
	return r;
}
