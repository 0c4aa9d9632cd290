/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tls_pki.h"

#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

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
