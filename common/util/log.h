/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines to stderr, one write(2) each, safe from any thread. The level is kept by libc's
 * setlogmask(3), so that there is no state of our own. With stderr on systemd's journal
 * (JOURNAL_STREAM) each line starts with the <N> prefix of sd-daemon(3), else with a time stamp.
 */
#ifndef DECANT_UTIL_LOG_H
#define DECANT_UTIL_LOG_H

#include <stdbool.h>
#include <syslog.h>

/**
 * log_setup() - choose what is logged; call once, before threads exist
 * @level:	"debug", "info", "notice", "warning" or "error"; NULL reads DECANT_LOG, default "info"
 *
 * Return: 0, or -EINVAL for an unknown word
 */
int log_setup(const char *level);

/** log_on() - Return: whether lines of this priority are written, for who would format in vain */
bool log_on(int priority);

/** log_msg() - write one line (text_clean()) at a syslog(3) priority; keeps errno */
void log_msg(int priority, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...)  log_msg(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)   log_msg(LOG_INFO, __VA_ARGS__)
#define log_notice(...) log_msg(LOG_NOTICE, __VA_ARGS__)
#define log_warn(...)   log_msg(LOG_WARNING, __VA_ARGS__)
#define log_error(...)  log_msg(LOG_ERR, __VA_ARGS__)

#endif
