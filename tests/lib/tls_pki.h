/* SPDX-License-Identifier: Apache-2.0 */
/* Throw-away certificates for tests, made by deploy/decant-certs. */
#ifndef DECANT_TESTS_TLS_PKI_H
#define DECANT_TESTS_TLS_PKI_H

#include <limits.h>
#include "tls/tls_ctx.h"

/**
 * struct tls_pki - the names of one host's files
 * @files:	points into the arrays
 */
struct tls_pki {
	struct tls_files files;
	char ca[PATH_MAX];
	char cert[PATH_MAX];
	char key[PATH_MAX];
	char crl[PATH_MAX];
};

/**
 * tls_pki_certs() - run deploy/decant-certs with a line of arguments; run from the project's root
 *
 * Return: its exit status
 */
int tls_pki_certs(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** tls_pki_files() - fill @p for host @name of the CA in folder @dir, with its revocation list */
void tls_pki_files(struct tls_pki *p, const char *dir, const char *name);

/**
 * tls_pki_begin() - a new folder for the certificates of a test program
 *
 * Call it in a PRE_ALL hook. Criterion runs each test in a process of its own, so the name is kept
 * in the environment, for tls_pki_dir().
 */
void tls_pki_begin(void);

/** tls_pki_dir() - Return: the folder that tls_pki_begin() made */
const char *tls_pki_dir(void);

/** tls_pki_end() - delete it; for a POST_ALL hook */
void tls_pki_end(void);

/** tls_pki_context() - the context of host @name of the CA in subfolder @sub; aborts on failure */
struct tls_ctx *tls_pki_context(enum tls_role role, const char *sub, const char *name);

/** tls_pki_remove() - delete a folder and all below it */
void tls_pki_remove(const char *dir);

#endif
