/* SPDX-License-Identifier: Apache-2.0 */
/* What a string of the protocol may look like. */
#ifndef DECANT_PROTO_MSG_TEXT_H
#define DECANT_PROTO_MSG_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/**
 * msg_name_valid() - is this a name: [A-Za-z0-9][A-Za-z0-9._-]*
 * @s:		NUL-terminated somewhere in @cap bytes, otherwise it is not valid
 *
 * Names of guests, drivers, launchers, blocks and vars become parts of paths, arguments and log
 * lines; no name can be ".." or begin with a dash.
 */
bool msg_name_valid(const char *s, size_t cap);

/**
 * msg_text_valid() - is this UTF-8 without control characters (U+0000-001F, U+007F-009F)?
 * @s:		as in msg_name_valid(); may be empty
 */
bool msg_text_valid(const char *s, size_t cap);

/**
 * msg_text_copy() - make a valid text of any bytes
 * @out:	@cap bytes, always terminated
 * @s:		NUL-terminated; what is not valid becomes '?', what is too long is cut at a
 *		character's end
 */
void msg_text_copy(char *out, size_t cap, const char *s);

#endif
