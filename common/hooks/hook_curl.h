/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl, loaded when the first hook with a url needs it: with all that it is linked against it makes the start of
 * a program three times as long, and most runs of decant have nothing to do with it.
 */
#ifndef DECANT_HOOK_CURL_H
#define DECANT_HOOK_CURL_H

#include <curl/curl.h>
#include "util/error.h"

/* The functions that are used: curl_##name. */
#define HOOK_CURL_FUNCTIONS(X) \
	X(global_init)         \
	X(global_cleanup)      \
	X(version_info)        \
	X(easy_init)           \
	X(easy_setopt)         \
	X(easy_getinfo)        \
	X(easy_strerror)       \
	X(easy_cleanup)        \
	X(slist_append)        \
	X(slist_free_all)      \
	X(multi_init)          \
	X(multi_setopt)        \
	X(multi_assign)        \
	X(multi_add_handle)    \
	X(multi_remove_handle) \
	X(multi_socket_action) \
	X(multi_info_read)     \
	X(multi_cleanup)

/* The header checks calls of some by macros of the same names, which are not for pointers. */
#undef curl_easy_setopt
#undef curl_easy_getinfo
#undef curl_multi_setopt

/** struct hook_curl - its functions, by the names that they have there */
struct hook_curl {
#define X(name) __typeof__(curl_##name) *name;
	HOOK_CURL_FUNCTIONS(X)
#undef X
};

/** hook_curl_load() - it stays loaded. Return: 0, or -ENOENT with @err filled */
int hook_curl_load(struct hook_curl *ret, struct error *err);

#endif
