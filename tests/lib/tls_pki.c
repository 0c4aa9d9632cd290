/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tls_pki.h"

#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#define DIR_ENV "DECANT_TEST_TLS_DIR"

int tls_pki_certs(const char *fmt, ...)
{
	char line[2 * PATH_MAX];
	va_list ap;
	int n, r;

	n = snprintf(line, sizeof(line), "deploy/decant-certs ");
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
	va_end(ap);
	fflush(NULL);
	r = system(line);
	return WIFEXITED(r) ? WEXITSTATUS(r) : -1;
}

void tls_pki_files(struct tls_pki *p, const char *dir, const char *name)
{
	snprintf(p->ca, sizeof(p->ca), "%s/ca.pem", dir);
	snprintf(p->crl, sizeof(p->crl), "%s/crl.pem", dir);
	snprintf(p->cert, sizeof(p->cert), "%s/%s.pem", dir, name);
	snprintf(p->key, sizeof(p->key), "%s/%s.key", dir, name);
	p->files = (struct tls_files){.ca = p->ca, .cert = p->cert, .key = p->key, .crl = p->crl};
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

void tls_pki_remove(const char *dir)
{
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void tls_pki_begin(void)
{
	const char *top = getenv("TMPDIR");
	char dir[PATH_MAX];

	snprintf(dir, sizeof(dir), "%s/decant-tls-XXXXXX", top ? top : "/tmp");
	if (!mkdtemp(dir) || setenv(DIR_ENV, dir, 1)) {
		perror(dir);
		abort();
	}
}

const char *tls_pki_dir(void)
{
	return getenv(DIR_ENV);
}

void tls_pki_end(void)
{
	tls_pki_remove(tls_pki_dir());
}

struct tls_ctx *tls_pki_context(enum tls_role role, const char *sub, const char *name)
{
	struct error err = {0};
	struct tls_ctx *ctx;
	char dir[PATH_MAX];
	struct tls_pki p;

	snprintf(dir, sizeof(dir), "%s/%s", tls_pki_dir(), sub);
	tls_pki_files(&p, dir, name);
	if (tls_ctx_new(&p.files, role, &ctx, &err)) {
		fprintf(stderr, "%s\n", err.msg);
		abort();
	}
	return ctx;
}
