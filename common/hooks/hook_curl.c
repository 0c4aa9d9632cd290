/* SPDX-License-Identifier: Apache-2.0 */
#include "hooks/hook_curl.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

int hook_curl_load(struct hook_curl *ret, struct error *err)
{
	void *lib = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL), *f;

	if (!lib)
		return error_set(err, -ENOENT, "no-libcurl",
				 "a hook with a url needs libcurl (Debian: libcurl4): %s",
				 dlerror());
#define X(name)                                                                                    \
	f = dlsym(lib, "curl_" #name);                                                             \
	if (!f)                                                                                    \
		return error_set(err, -ENOENT, "no-libcurl", "libcurl is too old: %s", dlerror()); \
	memcpy(&ret->name, &f, sizeof(f));
	HOOK_CURL_FUNCTIONS(X)
#undef X
	return 0;
}
