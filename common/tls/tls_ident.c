/* SPDX-License-Identifier: Apache-2.0 */
/* Who a certificate is for, as canonical text, and the list of those who are let in. */
#include "tls/tls_priv.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/x509v3.h>
#include "util/cleanup.h"

/*
 * Copy a name, escaping what would make two different lists of names read the same, or forge a line
 * in a log: the separator of the list, the escape itself, and all that is not printable.
 */
static void put_escaped(FILE *f, const unsigned char *s, size_t n, bool lower)
{
	for (size_t i = 0; i < n; i++) {
		if (s[i] <= ' ' || s[i] > '~' || s[i] == ',' || s[i] == '\\')
			fprintf(f, "\\x%02x", s[i]);
		else
			fputc(lower ? tolower(s[i]) : s[i], f);
	}
}

static void put_ip(FILE *f, const unsigned char *p, int n)
{
	char text[INET6_ADDRSTRLEN];

	if ((n == 4 && inet_ntop(AF_INET, p, text, sizeof(text))) ||
	    (n == 16 && inet_ntop(AF_INET6, p, text, sizeof(text))))
		fputs(text, f);
	else
		fprintf(f, "(%d bytes)", n);
}

/* Host names compare without case, and "host." is "host". */
static void put_dns(FILE *f, const unsigned char *s, size_t n)
{
	if (n > 1 && s[n - 1] == '.')
		n--;
	put_escaped(f, s, n, true);
}

/* "DNS:host-a" of one name; NULL without memory, "" for kinds of names that decant does not use. */
static char *one_name(const GENERAL_NAME *name)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	const ASN1_STRING *s;
	int type;

	if (!f)
		return NULL;
	s = GENERAL_NAME_get0_value(name, &type);
	if (type == GEN_DNS) {
		fputs("DNS:", f);
		put_dns(f, ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
	} else if (type == GEN_IPADD) {
		fputs("IP:", f);
		put_ip(f, ASN1_STRING_get0_data(s), ASN1_STRING_length(s));
	} else if (type == GEN_URI) {
		fputs("URI:", f);
		put_escaped(f, ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s), false);
	}
	if (fclose(f))
		free(steal_ptr(&text));
	return text;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted, each once, joined by ", "; the empty ones left out. */
static char *join(char **v, size_t n)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	const char *last = "";

	if (!f)
		return NULL;
	qsort(v, n, sizeof(*v), by_text);
	for (size_t i = 0; i < n; i++) {
		if (!strcmp(v[i], last))
			continue;
		fprintf(f, "%s%s", *last ? ", " : "", v[i]);
		last = v[i];
	}
	if (fclose(f))
		free(steal_ptr(&text));
	return text;
}

static char *names_text(const GENERAL_NAMES *names)
{
	size_t n = names ? (size_t)sk_GENERAL_NAME_num(names) : 0, got = 0;
	char **v = calloc(n + 1, sizeof(*v)), *text = NULL;

	if (!v)
		return NULL;
	while (got < n && (v[got] = one_name(sk_GENERAL_NAME_value(names, (int)got))))
		got++;
	if (got == n)
		text = join(v, n);
	for (size_t i = 0; i < got; i++)
		free(v[i]);
	free(v);
	return text;
}

static char *subject_text(const X509 *cert)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text = NULL, *p = NULL;
	long n;

	if (!bio)
		return NULL;
	X509_NAME_print_ex(bio, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253);
	n = BIO_get_mem_data(bio, &p);
	if (asprintf(&text, "subject:%.*s", n > 0 ? (int)n : 0, p ? p : "") < 0)
		text = NULL;
	BIO_free(bio);
	return text;
}

char *tls_ident_of(const X509 *cert)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	char *text = names_text(names);

	GENERAL_NAMES_free(names);
	if (text && !*text) {
		free(text);
		return subject_text(cert);
	}
	return text;
}

static int canon_dns(FILE *f, const char *name, struct error *err)
{
	size_t n = strlen(name);

	if (strchr(name, '*'))
		return error_set(err, -EINVAL, "bad-value", "wildcards are not supported");
	if (!n || n > 254 ||
	    strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			 "0123456789-._") != n)
		return error_set(err, -EINVAL, "bad-value", "\"%s\" is not a host name", name);
	put_dns(f, (const unsigned char *)name, n);
	return 0;
}

static int canon_ip(FILE *f, const char *name, struct error *err)
{
	unsigned char ip[16];

	if (inet_pton(AF_INET, name, ip) == 1)
		put_ip(f, ip, 4);
	else if (inet_pton(AF_INET6, name, ip) == 1)
		put_ip(f, ip, 16);
	else
		return error_set(err, -EINVAL, "bad-value", "\"%s\" is not an IP address", name);
	return 0;
}

static int canon_uri(FILE *f, const char *name, struct error *err)
{
	if (!strchr(name, ':'))
		return error_set(err, -EINVAL, "bad-value", "\"%s\" is not a URI", name);
	put_escaped(f, (const unsigned char *)name, strlen(name), false);
	return 0;
}

static int canon_put(FILE *f, const char *entry, struct error *err)
{
	static const struct {
		const char *prefix;
		int (*put)(FILE *f, const char *name, struct error *err);
	} kinds[] = {{"DNS:", canon_dns}, {"IP:", canon_ip}, {"URI:", canon_uri}};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t n = strlen(kinds[i].prefix);

		if (strncasecmp(entry, kinds[i].prefix, n) != 0)
			continue;
		fputs(kinds[i].prefix, f);
		return kinds[i].put(f, entry + n, err);
	}
	return error_set(err, -EINVAL, "bad-value",
			 "\"%s\" does not begin with DNS:, IP: or URI:", entry);
}

/* An entry in the form that tls_ident_of() writes, in a new allocation. */
static int canon(const char *entry, char **ret, struct error *err)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	int r;

	if (!f)
		return error_set(err, -ENOMEM, NULL, "no memory");
	r = canon_put(f, entry, err);
	if (fclose(f))
		r = error_set(err, -ENOMEM, NULL, "no memory");
	if (r)
		free(text);
	else
		*ret = text;
	return r;
}

int tls_allow_valid(const char *entry, struct error *err)
{
	CLEANUP_FREE char *text = NULL;

	return canon(entry, &text, err);
}

/*
 * Is @name one of the names in a text of tls_ident_of()? They have no comma in them; a
 * distinguished name may, and is no name that could be listed.
 */
static bool has_name(const char *identity, const char *name)
{
	size_t n = strlen(name);

	if (!strncmp(identity, "subject:", 8))
		return false;
	for (const char *p = identity; p; p = strstr(p, ", ")) {
		if (p != identity)
			p += 2;
		if (!strncmp(p, name, n) && (p[n] == '\0' || p[n] == ','))
			return true;
	}
	return false;
}

int tls_allow_check(const char *const *allow, size_t n, const struct tls_chan *c, struct error *err)
{
	for (size_t i = 0; c->done && i < n; i++) {
		CLEANUP_FREE char *text = NULL;

		if (!canon(allow[i], &text, NULL) && has_name(tls_chan_identity(c), text))
			return 0;
	}
	tls_stats_count_refused(c->ctx, "tls-not-allowed");
	return error_set(err, -EACCES, "tls-not-allowed",
			 "%s is not let in: its certificate is for %s, which the allow list does "
			 "not have",
			 tls_chan_peer(c), tls_chan_identity(c));
}
