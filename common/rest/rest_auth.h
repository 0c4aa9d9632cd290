/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may use the REST interface over TCP: the holders of a token, and those whose certificate has a listed
 * name. (Who comes by a Unix socket was let in by its mode, and is an operator.)
 *
 * A token file has one token a line, "ROLE NAME TOKEN": ROLE is reader or operator, NAME is what the log and
 * the audit call its holder, TOKEN at least 16 visible characters. Empty lines and those that begin with '#'
 * do not count. Nobody but its owner and group may have any right to the file. What is kept of a token is
 * its digest; tokens are compared in constant time and never logged.
 */
#ifndef DECANT_REST_AUTH_H
#define DECANT_REST_AUTH_H

#include <stdbool.h>
#include "rest/rest_server.h"
#include "tls/tls_chan.h"
#include "util/error.h"

/** REST_TOKENS_MAX - most tokens of one file */
#define REST_TOKENS_MAX 256
/** REST_TOKEN_MIN, REST_TOKEN_MAX - characters of a token */
#define REST_TOKEN_MIN 16
#define REST_TOKEN_MAX 512

/**
 * struct rest_auth_conf - who is let in; borrowed for the call
 * @token_file:	NULL for none
 * @operators, @readers: names of certificates, as of tls_allow_check(); NULL at the end, or NULL for none
 */
struct rest_auth_conf {
	const char *token_file;
	char *const *operators;
	char *const *readers;
};

struct rest_auth;

/**
 * rest_auth_new() - read the token file, copy the lists
 *
 * Return: 0, or -errno with @err filled: it names the file and the line, never a token
 */
int rest_auth_new(const struct rest_auth_conf *conf, struct rest_auth **ret, struct error *err);
/** rest_auth_free() - NULL is fine */
void rest_auth_free(struct rest_auth *a);

/**
 * rest_auth_tls() - what a certificate is worth; @p's role and name are set if it is listed
 *
 * Return: whether it is
 */
bool rest_auth_tls(const struct rest_auth *a, const struct tls_chan *c, struct rest_peer *p);

/**
 * rest_auth_header() - what an Authorization header is worth; @p's role and name are set if its token is known
 *
 * Return: whether it is
 */
bool rest_auth_header(const struct rest_auth *a, const char *value, struct rest_peer *p);

#endif
