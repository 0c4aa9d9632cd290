/* SPDX-License-Identifier: Apache-2.0 */
/* What an agent can ask for: one handler for each message, on the service thread. */
#include "guest/lib/lib.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int refuse(struct decant_guest *g, const struct gwire_msg *m, int result, const char *why)
{
	return lib_service_done(g, m->id, result, 0, -1, why);
}

/* Queue for the callback thread. @fd is taken over. */
static int queue(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	int ret;

	pthread_mutex_lock(&g->lock);
	ret = lib_calls_post(g, m->type, m->id, fd);
	pthread_mutex_unlock(&g->lock);
	if (!ret)
		return 0;
	if (fd >= 0)
		close(fd);
	return refuse(g, m, ret, "too many requests are waiting");
}

static int on_pause(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	const char *why = NULL;
	int ret = 0;

	(void)fd;
	pthread_mutex_lock(&g->lock);
	if (!lib_is_here(g)) {
		ret = -EINVAL;
		why = "the guest has not arrived yet";
	} else if (g->pausing) {
		ret = -EBUSY;
		why = "another pause is outstanding";
	} else {
		g->hold = g->pausing = true;
		g->pause_id = m->id;
		g->pause_deadline_us = lib_now_us() + (uint64_t)m->u.bound_ms * 1000;
		pthread_cond_broadcast(&g->work);
	}
	pthread_mutex_unlock(&g->lock);
	return ret ? refuse(g, m, ret, why) : 0;
}

int lib_request_pause_bound(struct decant_guest *g)
{
	uint64_t now = lib_now_us();
	int ms = -1;

	pthread_mutex_lock(&g->lock);
	if (g->pausing && now >= g->pause_deadline_us) {
		/* Nobody waits for this pause any more: when it comes at last, it is undone. */
		g->pausing = g->hold = false;
		lib_calls_result(g, g->pause_id, g->epoch, -ETIMEDOUT, 0,
				 "the program did not pause in time");
		pthread_cond_broadcast(&g->work);
	} else if (g->pausing) {
		ms = (int)((g->pause_deadline_us - now + 999) / 1000);
	}
	pthread_mutex_unlock(&g->lock);
	return ms;
}

/* Lock held. Posting comes first, so that a queue that is full changes nothing. */
static int let_go(struct decant_guest *g, uint32_t id, bool *ret_arrived)
{
	int ret;

	if (!lib_is_here(g) && g->arrival != LIB_LOADED)
		return -EINVAL;
	ret = lib_calls_post(g, GWIRE_RESUME, id,
			     -1); /* its DONE comes after the resume callback */
	if (ret)
		return ret;
	if (g->pausing) {
		g->pausing = false;
		lib_calls_result(g, g->pause_id, g->epoch, -ECANCELED, 0, "resumed");
	}
	g->hold = false;
	*ret_arrived = g->arrival == LIB_LOADED;
	if (*ret_arrived)
		g->arrival = LIB_ARRIVED;
	return 0;
}

static int on_resume(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	bool arrived = false;
	int ret;

	(void)fd;
	pthread_mutex_lock(&g->lock);
	ret = let_go(g, m->id, &arrived);
	pthread_mutex_unlock(&g->lock);
	if (arrived) {
		g->has_token = false;
		memset(g->token, 0, sizeof(g->token));
	}
	return ret ? refuse(g, m, ret, ret == -EINVAL ? "nothing was loaded" : "busy") : 0;
}

static int on_load(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	int ret = -EINVAL;

	pthread_mutex_lock(&g->lock);
	if (g->arrival == LIB_INCOMING)
		ret = lib_calls_post(g, m->type, m->id, fd);
	if (!ret) {
		g->arrival = LIB_LOADING;
		g->load_end = false;
		g->load_paused = m->u.load_flags & GWIRE_LOAD_PAUSED;
	}
	pthread_mutex_unlock(&g->lock);
	if (!ret)
		return 0;
	close(fd);
	return refuse(g, m, ret, "the guest does not wait to be loaded");
}

static int on_load_end(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	(void)fd;
	pthread_mutex_lock(&g->lock);
	g->load_end = true;
	g->load_length = m->u.load_length;
	pthread_cond_broadcast(&g->work);
	pthread_mutex_unlock(&g->lock);
	return 0;
}

static int on_uffd(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	bool keep = m->u.uffd.flags & GWIRE_UFFD_KEEP;
	uint64_t how = 0;
	int uffd, ret;

	(void)fd;
	if (keep && g->kept >= 0)
		return refuse(g, m, -EBUSY, "a userfaultfd is kept already");
	uffd = lib_open_uffd(m->u.uffd.flags & GWIRE_UFFD_USER_MODE, &how);
	if (uffd < 0)
		return refuse(g, m, uffd,
			      uffd == -EPERM
				      ? "the guest may not open a userfaultfd: give it access to "
					"/dev/userfaultfd, or set vm.unprivileged_userfaultfd=1"
				      : "cannot open a userfaultfd");
	ret = lib_service_done(g, m->id, 0, how, uffd, "");
	/* One that did not reach the agent has nothing registered. */
	if (ret || !keep) {
		close(uffd);
		return ret;
	}
	g->kept = uffd;
	g->kept_tag = m->u.uffd.tag;
	return 0;
}

static int on_uffd_again(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	(void)fd;
	if (g->kept < 0)
		return refuse(g, m, -ENOENT, "no userfaultfd is kept");
	return lib_service_done(g, m->id, 0, g->kept_tag, g->kept, "");
}

static int on_uffd_close(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	(void)fd;
	if (g->kept >= 0)
		close(g->kept);
	g->kept = -1;
	g->kept_tag = 0;
	return lib_service_done(g, m->id, 0, 0, -1, "");
}

static int on_punch(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	char msg[GWIRE_MESSAGE_MAX] = "";
	int ret = lib_block_punch(g, &m->u.punch, msg);

	(void)fd;
	return lib_service_done(g, m->id, ret, 0, -1, msg);
}

static int on_prepare(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	char msg[GWIRE_MESSAGE_MAX] = "";
	uint64_t unlocked;
	int ret = lib_advice_prepare(g, &unlocked, msg);

	(void)fd;
	return lib_service_done(g, m->id, ret, unlocked, -1, msg);
}

static int on_identity(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	(void)fd;
	memcpy(g->uuid, m->u.identity.uuid, sizeof(g->uuid));
	g->generation = m->u.identity.generation;
	return lib_service_done(g, m->id, 0, 0, -1, "");
}

static int on_move(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	(void)fd;
	strcpy(g->path, m->u.path);
	g->moved = true;
	return lib_service_done(g, m->id, 0, 0, -1, "");
}

static int on_quit(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	int ret = lib_service_done(g, m->id, 0, 0, -1, ""); /* first: the callback may exit */

	(void)fd;
	pthread_mutex_lock(&g->lock);
	g->quit = true;
	pthread_cond_broadcast(&g->work);
	pthread_mutex_unlock(&g->lock);
	return ret;
}

static const struct {
	uint16_t type;
	int (*handle)(struct decant_guest *g, const struct gwire_msg *m, int fd);
} handlers[] = {
	{GWIRE_PAUSE, on_pause},
	{GWIRE_RESUME, on_resume},
	{GWIRE_SAVE, queue},
	{GWIRE_LOAD, on_load},
	{GWIRE_LOAD_END, on_load_end},
	{GWIRE_UFFD, on_uffd},
	{GWIRE_UFFD_AGAIN, on_uffd_again},
	{GWIRE_UFFD_CLOSE, on_uffd_close},
	{GWIRE_PUNCH, on_punch},
	{GWIRE_PREPARE, on_prepare},
	{GWIRE_FINISH, queue},
	{GWIRE_IDENTITY, on_identity},
	{GWIRE_MOVE, on_move},
	{GWIRE_QUIT, on_quit},
};

int lib_request_handle(struct decant_guest *g, const struct gwire_msg *m, int fd)
{
	for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++)
		if (handlers[i].type == m->type)
			return handlers[i].handle(g, m, fd);
	if (fd >= 0)
		close(fd);
	if (!m->id || gwire_known(m->type))
		return -EPROTO;
	return refuse(g, m, -EOPNOTSUPP, "this library does not know that request");
}
