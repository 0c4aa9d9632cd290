/* SPDX-License-Identifier: Apache-2.0 */
/* What a command that waits tells on stderr. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "cli/cli.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

#define QUIET_US UINT64_C(5000000)

void cli_progress_init(struct cli_progress *p)
{
	*p = (struct cli_progress){.tty = isatty(STDERR_FILENO)};
}

static size_t columns(void)
{
	struct winsize w = {0};

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) < 0 || w.ws_col < 20)
		return 80;
	return w.ws_col;
}

void cli_progress_end(struct cli_progress *p)
{
	if (p->open)
		fputc('\n', stderr);
	p->open = false;
}

/* A line longer than the terminal would scroll instead of being written over. */
static void show_tty(struct cli_progress *p, bool event)
{
	size_t n = text_clip(p->last, MIN(columns() - 1, sizeof(p->last) - 1));

	fprintf(stderr, "\r\033[K%.*s", (int)n, p->last);
	p->open = true;
	if (event)
		cli_progress_end(p);
	fflush(stderr);
}

void cli_progress_show(struct cli_progress *p, bool event, const char *fmt, ...)
{
	char line[sizeof(p->last)];
	uint64_t now = clock_us();
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	text_clean(line);
	if (!event && (!strcmp(line, p->last) || (!p->tty && now - p->shown_us < QUIET_US)))
		return;
	snprintf(p->last, sizeof(p->last), "%s", line);
	p->shown_us = now;
	if (p->tty)
		show_tty(p, event);
	else
		fprintf(stderr, "%s\n", line);
}
