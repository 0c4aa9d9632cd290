/* SPDX-License-Identifier: Apache-2.0 */
#include "util/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "util/text.h"

static const struct {
	const char *name;
	int priority;
} levels[] = {
	{"debug", LOG_DEBUG},     {"info", LOG_INFO}, {"notice", LOG_NOTICE},
	{"warning", LOG_WARNING}, {"error", LOG_ERR},
};

int log_setup(const char *level)
{
	if (!level)
		level = getenv("DECANT_LOG");
	if (!level)
		level = "info";
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		if (!strcmp(levels[i].name, level)) {
			setlogmask(LOG_UPTO(levels[i].priority));
			return 0;
		}
	}
	return -EINVAL;
}

static int prefix(char *buf, size_t cap, int priority)
{
	struct timespec ts;
	struct tm tm;

	if (getenv("JOURNAL_STREAM"))
		return snprintf(buf, cap, "<%d>", priority);
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	return snprintf(buf, cap, "%02d:%02d:%02d.%03ld %s[%d] %s: ", tm.tm_hour, tm.tm_min,
			tm.tm_sec, ts.tv_nsec / 1000000, program_invocation_short_name, getpid(),
			priority <= LOG_ERR       ? "error"
			: priority == LOG_WARNING ? "warning"
			: priority == LOG_DEBUG   ? "debug"
						  : "info");
}

bool log_on(int priority)
{
	return setlogmask(0) & LOG_MASK(priority);
}

void log_msg(int priority, const char *fmt, ...)
{
	char line[1024];
	int saved = errno, n;
	va_list ap;

	if (!log_on(priority))
		return;
	n = prefix(line, sizeof(line) - 1, priority);
	va_start(ap, fmt);
	errno = saved;
	vsnprintf(line + n, sizeof(line) - 1 - (size_t)n, fmt, ap);
	va_end(ap);
	text_clean(line);
	n = (int)strlen(line);
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		errno = saved; /* nowhere to complain to */
	errno = saved;
}
