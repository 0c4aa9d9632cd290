/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors. Inside, functions return -errno; where a person will read it, they also fill a struct
 * error: a short stable code for programs and one line that says what failed, why, and what to do.
 */
#ifndef DECANT_UTIL_ERROR_H
#define DECANT_UTIL_ERROR_H

#include <stdarg.h>

/**
 * struct error - what went wrong, for a person and for a program
 * @code:	stable kebab-case word ("not-converging"), empty if there is no error
 * @msg:	one line of valid UTF-8 whatever went into it (text_clean()), no newline at the end
 */
struct error {
	char code[40];
	char msg[472];
};

/**
 * error_set() - fill an error unless it is already filled (the first cause wins)
 * @err:	where to write, or NULL
 * @ret:	negative errno that the caller is about to return
 * @code:	see struct error; NULL takes a code made from the errno ("enoent")
 * @fmt:	printf format of the message; the caller adds strerror() where it helps
 *
 * Return: @ret, so that it can stand in a return statement
 */
int error_set(struct error *err, int ret, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/** error_setv() - error_set() with a va_list */
int error_setv(struct error *err, int ret, const char *code, const char *fmt, va_list ap);

/** error_prefix() - put "what: " in front of the message of a filled error */
void error_prefix(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** error_clear() - make it empty */
void error_clear(struct error *err);

/** error_is_set() - Return: non-zero if it was filled */
int error_is_set(const struct error *err);

#endif
