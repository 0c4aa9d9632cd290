/* SPDX-License-Identifier: Apache-2.0 */
#include "util/error.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include "util/text.h"

static void code_from_errno(char *code, size_t cap, int ret)
{
	const char *name = strerrorname_np(ret < 0 ? -ret : ret);
	size_t i = 0;

	if (!name)
		name = "EIO";
	for (; name[i] && i + 1 < cap; i++)
		code[i] = (char)tolower((unsigned char)name[i]);
	code[i] = '\0';
}

int error_setv(struct error *err, int ret, const char *code, const char *fmt, va_list ap)
{
	if (!err || error_is_set(err))
		return ret;
	if (code)
		snprintf(err->code, sizeof(err->code), "%s", code);
	else
		code_from_errno(err->code, sizeof(err->code), ret);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	text_clean(err->msg);
	return ret;
}

int error_set(struct error *err, int ret, const char *code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_setv(err, ret, code, fmt, ap);
	va_end(ap);
	return ret;
}

void error_prefix(struct error *err, const char *fmt, ...)
{
	char what[128], msg[sizeof(err->msg)];
	va_list ap;

	if (!err || !error_is_set(err))
		return;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	snprintf(msg, sizeof(msg), "%s", err->msg);
	snprintf(err->msg, sizeof(err->msg), "%s: %.*s", what,
		 (int)(sizeof(msg) - sizeof(what) - 3), msg);
	text_clean(err->msg);
}

void error_clear(struct error *err)
{
	if (err)
		err->code[0] = err->msg[0] = '\0';
}

int error_is_set(const struct error *err)
{
	return err && err->code[0] != '\0';
}
