/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/lib/lib.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

uint64_t lib_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void keep_error(struct decant_guest *g, const char *text)
{
	pthread_mutex_lock(&g->lock);
	snprintf(g->error, sizeof(g->error), "%s", text);
	pthread_mutex_unlock(&g->lock);
}

void lib_error(struct decant_guest *g, const char *fmt, ...)
{
	char text[GWIRE_MESSAGE_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	keep_error(g, text);
}

void lib_say(struct decant_guest *g, bool error, const char *fmt, ...)
{
	char text[GWIRE_MESSAGE_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (error)
		keep_error(g, text);
	if (g->cb.message)
		g->cb.message(g->opaque, text);
}

bool lib_name_ok(const char *name)
{
	size_t n = name ? strlen(name) : 0;

	if (!n || n > DECANT_NAME_MAX || *name == '.' || *name == '-')
		return false;
	for (; *name; name++)
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-",
			    *name))
			return false;
	return true;
}

void lib_wake(struct decant_guest *g)
{
	/* Cannot block or fail: the counter of an eventfd is never near its limit. */
	if (eventfd_write(g->wake, 1))
		return;
}

void lib_release(struct decant_guest *g, int result)
{
	if (g->released)
		return;
	g->released = true;
	g->start_result = result;
	pthread_cond_broadcast(&g->start);
}

bool lib_is_here(const struct decant_guest *g)
{
	return g->arrival == LIB_FRESH || g->arrival == LIB_ARRIVED;
}

uint8_t lib_run_state(const struct decant_guest *g)
{
	if (!lib_is_here(g) && g->arrival != LIB_LOADED)
		return 3;
	if (!g->paused)
		return 0;
	return g->own && !g->hold ? 1 : 2;
}

static int parse_token(const char *hex, uint8_t token[GWIRE_TOKEN_LEN])
{
	char pair[3] = "";

	if (strlen(hex) != 2 * GWIRE_TOKEN_LEN)
		return -EINVAL;
	for (size_t i = 0; i < GWIRE_TOKEN_LEN; i++) {
		memcpy(pair, hex + 2 * i, 2);
		if (!isxdigit((unsigned char)pair[0]) || !isxdigit((unsigned char)pair[1]))
			return -EINVAL;
		token[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return 0;
}

static int take_path(struct decant_guest *g, const char *attach)
{
	const char *env = getenv("DECANT_ATTACH");
	const char *path = attach;

	if (!path || (g->has_token && env))
		path = env ? env : LIB_DEFAULT_ATTACH;
	if (path[0] != '/' || strlen(path) >= sizeof(g->path))
		return -EINVAL;
	strcpy(g->path, path);
	return 0;
}

static void take_uuid(struct decant_guest *g, const uint8_t *uuid)
{
	if (uuid) {
		memcpy(g->uuid, uuid, sizeof(g->uuid));
		return;
	}
	while (getrandom(g->uuid, sizeof(g->uuid), 0) < 0 && errno == EINTR)
		;
	g->uuid[6] = (uint8_t)((g->uuid[6] & 0x0f) | 0x40); /* version 4, random */
	g->uuid[8] = (uint8_t)((g->uuid[8] & 0x3f) | 0x80);
}

static int take_config(struct decant_guest *g, const struct decant_guest_config *c)
{
	const char *token = getenv("DECANT_INCOMING");
	int ret;

	if (!lib_name_ok(c->name) || !c->callbacks.pause || !c->callbacks.resume ||
	    !c->callbacks.save || !c->callbacks.load || !c->callbacks.quit ||
	    (c->flags & ~(DECANT_GUEST_USER_FAULTS | DECANT_GUEST_VCPUS)))
		return -EINVAL;
	strcpy(g->name, c->name);
	g->cb = c->callbacks;
	g->opaque = c->opaque;
	g->flags = c->flags;
	if (token) {
		ret = parse_token(token, g->token);
		if (ret)
			return ret;
		g->has_token = true;
		g->arrival = LIB_INCOMING;
		g->hold = g->paused = true;
	}
	take_uuid(g, c->uuid);
	return take_path(g, c->attach);
}

DECANT_API struct decant_guest *decant_guest_new(const struct decant_guest_config *config)
{
	struct decant_guest *g = calloc(1, sizeof(*g));
	int ret = -ENOMEM;

	if (!g)
		return NULL;
	g->sock = g->kept = -1;
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->work, NULL);
	pthread_cond_init(&g->start, NULL);
	g->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	g->packet = malloc(GWIRE_PACKET_MAX);
	g->ranges = calloc(GWIRE_RANGES_MAX, sizeof(*g->ranges));
	if (g->wake < 0 || !g->packet || !g->ranges)
		goto fail;
	ret = take_config(g, config);
	if (ret)
		goto fail;
	return g;
fail:
	decant_guest_free(g);
	errno = -ret;
	return NULL;
}

DECANT_API bool decant_guest_incoming(const struct decant_guest *g)
{
	struct decant_guest *w = (struct decant_guest *)g;
	bool incoming;

	pthread_mutex_lock(&w->lock);
	incoming = !lib_is_here(g);
	pthread_mutex_unlock(&w->lock);
	return incoming;
}

/* Signals are the program's: its handlers must not find themselves on a thread of ours. */
static int start_threads(struct decant_guest *g)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&g->calls_thread, NULL, lib_calls_main, g);
	if (!ret) {
		ret = pthread_create(&g->service_thread, NULL, lib_service_main, g);
		if (ret) {
			pthread_mutex_lock(&g->lock);
			g->stop = true;
			pthread_cond_broadcast(&g->work);
			pthread_mutex_unlock(&g->lock);
			pthread_join(g->calls_thread, NULL);
			g->stop = false;
		}
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -ret;
}

DECANT_API int decant_guest_start(struct decant_guest *g)
{
	int ret;

	if (g->started)
		return -EALREADY;
	if (g->arrival == LIB_FRESH)
		g->paused = g->own;
	ret = g->arrival == LIB_FRESH ? lib_block_protect(g) : 0;
	if (!ret)
		ret = start_threads(g);
	if (ret)
		return ret;
	g->started = true;
	pthread_mutex_lock(&g->lock);
	if (g->arrival == LIB_FRESH)
		lib_release(g, DECANT_STARTED);
	while (!g->released)
		pthread_cond_wait(&g->start, &g->lock);
	ret = g->start_result;
	pthread_mutex_unlock(&g->lock);
	return ret;
}

DECANT_API void decant_guest_set_paused(struct decant_guest *g, bool paused)
{
	pthread_mutex_lock(&g->lock);
	g->own = paused;
	pthread_cond_broadcast(&g->work);
	pthread_mutex_unlock(&g->lock);
	lib_wake(g);
}

DECANT_API char *decant_guest_error(struct decant_guest *g, char *buf, size_t cap)
{
	pthread_mutex_lock(&g->lock);
	snprintf(buf, cap, "%s", g->error);
	pthread_mutex_unlock(&g->lock);
	return buf;
}

static void stop_threads(struct decant_guest *g)
{
	pthread_mutex_lock(&g->lock);
	g->stop = true;
	pthread_cond_broadcast(&g->work);
	pthread_mutex_unlock(&g->lock);
	lib_wake(g);
	pthread_join(g->service_thread, NULL);
	pthread_join(g->calls_thread, NULL);
}

DECANT_API void decant_guest_free(struct decant_guest *g)
{
	if (!g)
		return;
	if (g->started)
		stop_threads(g);
	for (size_t i = 0; i < g->njobs; i++)
		if (g->jobs[i].fd >= 0)
			close(g->jobs[i].fd);
	lib_block_free(g);
	/* Only now: with the blocks unmapped nobody can read zeros where pages are missing. */
	if (g->kept >= 0)
		close(g->kept);
	if (g->wake >= 0)
		close(g->wake);
	free(g->advice);
	free(g->packet);
	free(g->ranges);
	pthread_cond_destroy(&g->start);
	pthread_cond_destroy(&g->work);
	pthread_mutex_destroy(&g->lock);
	free(g);
}
