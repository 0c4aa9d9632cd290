/* SPDX-License-Identifier: Apache-2.0 */
#include "util/faultpoint.h"

#ifdef DECANT_FAULTS

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const names[] = {
#define NAME(id, name, agent, phase) [FAULTPOINT_##id] = name,
	FAULTPOINTS(NAME)
#undef NAME
};

/** struct order - one part of DECANT_FAULT */
struct order {
	enum faultpoint point;
	int signal;
	unsigned int delay_ms;
	unsigned int from;
};

/* "N", all of it. */
static bool number(const char *s, size_t n, unsigned int *ret)
{
	char text[12] = {0}, *rest;

	if (!n || n >= sizeof(text) || *s < '0' || *s > '9')
		return false;
	memcpy(text, s, n);
	*ret = (unsigned int)strtoul(text, &rest, 10);
	return !*rest;
}

static bool is(const char *s, size_t n, const char *word)
{
	return n == strlen(word) && !memcmp(s, word, n);
}

static bool parse_action(const char *s, size_t n, struct order *o)
{
	const char *at = memchr(s, '@', n);

	o->from = 1;
	if (at && !number(at + 1, n - (size_t)(at + 1 - s), &o->from))
		return false;
	n = at ? (size_t)(at - s) : n;
	o->signal = is(s, n, "kill") ? SIGKILL : is(s, n, "stop") ? SIGSTOP : 0;
	return o->signal ||
	       (n > 6 && !memcmp(s, "delay=", 6) && number(s + 6, n - 6, &o->delay_ms));
}

/* The next part of @spec. Return: false at the end, or if it cannot be read (@spec is then not NULL) */
static bool next(const char **spec, struct order *o)
{
	const char *s = *spec, *colon, *end;

	if (!s || !*s) {
		*spec = NULL;
		return false;
	}
	*o = (struct order){.point = FAULTPOINT_COUNT_};
	end = strchrnul(s, ',');
	colon = memchr(s, ':', (size_t)(end - s));
	for (unsigned int i = 0; colon && i < FAULTPOINT_COUNT_; i++)
		if (is(s, (size_t)(colon - s), names[i]))
			o->point = (enum faultpoint)i;
	if (o->point == FAULTPOINT_COUNT_ || !parse_action(colon + 1, (size_t)(end - colon - 1), o))
		return false;
	*spec = *end ? end + 1 : end;
	return true;
}

int faultpoint_check(struct error *err)
{
	const char *spec = getenv("DECANT_FAULT");
	struct order o;

	while (next(&spec, &o))
		;
	return spec ? error_set(err, -EINVAL, "bad-fault",
				"DECANT_FAULT: \"%s\" is not POINT:kill|stop|delay=MS[@N] of a "
				"point of common/util/faultpoint.h",
				spec)
		    : 0;
}

static void obey(const struct order *o)
{
	const struct timespec delay = {.tv_sec = o->delay_ms / 1000,
				       .tv_nsec = o->delay_ms % 1000 * 1000000L};

	if (o->signal)
		kill(getpid(), o->signal);
	else
		nanosleep(&delay, NULL);
}

void faultpoint_reached(enum faultpoint p)
{
	/* Of the process and not of a migration: this is no part of the agents that are installed. */
	static _Atomic unsigned int reached[FAULTPOINT_COUNT_];
	const char *spec = getenv("DECANT_FAULT");
	unsigned int n = atomic_fetch_add(&reached[p], 1) + 1;
	struct order o;

	while (next(&spec, &o))
		if (o.point == p && (o.signal ? n == o.from : n >= o.from))
			obey(&o);
}

#endif
