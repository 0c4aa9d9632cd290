/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What outlives the agent. Each event that a hook has not taken is a file
 *
 *   state_dir/hooks/AGENT/HOOK/SEQ.json	HOOK: the digest of the hook's name; SEQ: 20 digits
 *
 * which holds the event as it is sent: made when it is emitted, removed when it was taken or given up.
 * They are written to a name of their own and moved, so that none is half there, and they are not
 * synced: an event costs no wait for the disk. A file that cannot be read behind a crash of the host
 * is removed, and said.
 *
 * What was given up is a line of state_dir/hooks/AGENT.dead: when, which hook, after how many attempts,
 * why, and the event. Beyond DEAD_MAX bytes the file is moved to AGENT.dead.1, in the place of an older one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hooks/hooks_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/digest.h"
#include "util/log.h"

#define DEAD_MAX       (4u << 20)
#define EVENT_MAX      (1u << 20)
#define FILE_NAME      "%020" PRIu64 ".json"
#define FILE_NAME_SIZE 32

/* --- dead letters --- */

static void dead_rotate(const struct hooks *h)
{
	CLEANUP_FREE char *old = NULL;
	struct stat st;

	if (stat(h->dead_path, &st) || st.st_size < DEAD_MAX)
		return;
	if (asprintf(&old, "%s.1", h->dead_path) < 0)
		old = NULL;
	else
		rename(h->dead_path, old);
}

void hook_spool_dead(struct hooks *h, const char *hook, const struct hook_event *e,
		     unsigned int attempts, const struct error *why)
{
	CLEANUP_FREE char *line = NULL;
	CLEANUP_CLOSE int fd = -1;
	char at[CLOCK_TEXT_MAX];
	json_t *o;
	int r;

	log_warn("hook %s: %s of %s is given up after %u attempts: %s", hook, e->type, e->job,
		 attempts, why->msg);
	o = json_pack("{s:s, s:s, s:i, s:s, s:s, s:o}", "at", clock_rfc3339(at, clock_wall_us()),
		      "hook", hook, "attempts", (int)attempts, "code", why->code, "error", why->msg,
		      "event", json_loadb(e->body, e->len, 0, NULL));
	line = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	dead_rotate(h);
	fd = open(h->dead_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	r = !line ? -ENOMEM : fd < 0 ? -errno : 0;
	if (!r) {
		size_t n = strlen(line);

		line[n] = '\n'; /* one write, so that lines stay whole */
		r = fdio_write_full(fd, line, n + 1);
	}
	if (r < 0)
		log_error("%s: %s: the event is lost", h->dead_path, strerror(-r));
}

/* --- what waits --- */

static void file_of(const struct hook *hook, uint64_t seq, const char *suffix, char *out,
		    size_t cap)
{
	snprintf(out, cap, "%s/" FILE_NAME "%s", hook->dir, seq, suffix);
}

void hook_spool_put(struct hook *hook, const struct hook_event *e)
{
	size_t cap = strlen(hook->dir) + FILE_NAME_SIZE + 8;
	CLEANUP_FREE char *path = malloc(cap), *tmp = malloc(cap);
	CLEANUP_CLOSE int fd = -1;
	int r = path && tmp ? 0 : -ENOMEM;

	if (!r) {
		file_of(hook, e->seq, "", path, cap);
		file_of(hook, e->seq, ".new", tmp, cap);
		fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
		r = fd < 0 ? -errno : fdio_write_full(fd, e->body, e->len);
	}
	if (!r && rename(tmp, path))
		r = -errno;
	if (r < 0 && fd >= 0)
		unlink(tmp);
	if (r < 0 && !hook->unspooled)
		log_warn("hook %s: what it has not taken does not outlive this agent: %s: %s",
			 hook->conf->name, hook->dir, strerror(-r));
	hook->unspooled = r < 0;
}

void hook_spool_del(struct hook *hook, const struct hook_event *e)
{
	size_t cap = strlen(hook->dir) + FILE_NAME_SIZE + 8;
	CLEANUP_FREE char *path = malloc(cap);

	if (!path)
		return; /* it will come once more */
	file_of(hook, e->seq, "", path, cap);
	if (unlink(path) && errno != ENOENT)
		log_warn("%s: %s: the event will be told once more", path, strerror(errno));
}

/* --- what an earlier life has left --- */

/* Return: NULL if it is no event, or none that anybody could read */
static struct hook_event *load(struct hooks *h, const char *dir, const char *name)
{
	CLEANUP_FREE char *path = NULL;
	struct hook_event *e = NULL;
	uint64_t seq;
	char *body, end;
	ssize_t n;

	if (asprintf(&path, "%s/%s", dir, name) < 0) {
		path = NULL;
		return NULL;
	}
	if (sscanf(name, "%20" SCNu64 ".jso%c", &seq, &end) == 2 && strlen(name) == 25) {
		n = fdio_read_file(path, EVENT_MAX, &body);
		e = n < 0 ? NULL : hook_event_parse(body, (size_t)n, seq);
	}
	if (!e) {
		log_warn("%s: not a whole event, removed", path);
		unlink(path);
		return NULL;
	}
	h->seq = MAX(h->seq, seq);
	return e;
}

static int is_file(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

/* @hook: NULL for one that is not configured any more */
static void load_folder(struct hooks *h, const char *dir, struct hook *hook,
			void (*found)(struct hook *hook, struct hook_event *e))
{
	const struct error why = {"no-such-hook", "no hook is configured that this was for"};
	struct dirent **names;
	int n = scandir(dir, &names, is_file, alphasort);

	for (int i = 0; i < n; i++) {
		struct hook_event *e = load(h, dir, names[i]->d_name);
		CLEANUP_FREE char *path = NULL;

		if (e && hook) {
			found(hook, e);
		} else if (e) {
			hook_spool_dead(h, dir, e, 0, &why);
			if (asprintf(&path, "%s/%s", dir, names[i]->d_name) >= 0)
				unlink(path);
			else
				path = NULL;
			hook_event_unref(e);
		}
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	if (!hook)
		rmdir(dir);
}

static struct hook *hook_of(struct hooks *h, const char *dir)
{
	for (size_t i = 0; i < h->n; i++)
		if (!strcmp(h->hook[i].dir, dir))
			return &h->hook[i];
	return NULL;
}

static int make_dirs(struct hooks *h, const char *top, struct error *err)
{
	int r = fdio_mkdir_p(h->dir, 0750);
	const char *at = h->dir;

	if (!r)
		r = fdio_mkdir_p(at = top, 0750);
	for (size_t i = 0; !r && i < h->n; i++) {
		const char *name = h->hook[i].conf->name;

		if (asprintf(&h->hook[i].dir, "%s/%016" PRIx64, top,
			     digest_xxh3(name, strlen(name))) < 0) {
			h->hook[i].dir = NULL;
			r = -ENOMEM;
		}
		if (!r)
			r = fdio_mkdir_p(at = h->hook[i].dir, 0750);
	}
	return r ? error_set(err, r, NULL, "cannot make folder %s: %s", at, strerror(-r)) : 0;
}

int hook_spool_open(struct hooks *h, const char *state_dir,
		    void (*found)(struct hook *hook, struct hook_event *e), struct error *err)
{
	CLEANUP_FREE char *top = NULL;
	struct dirent **names;
	int r = 0, n;

	if (asprintf(&h->dir, "%s/hooks", state_dir) < 0)
		h->dir = NULL;
	if (h->dir && asprintf(&h->dead_path, "%s/%s.dead", h->dir, h->agent) < 0)
		h->dead_path = NULL;
	if (!h->dead_path || asprintf(&top, "%s/%s", h->dir, h->agent) < 0) {
		top = NULL;
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	r = make_dirs(h, top, err);
	n = r ? -1 : scandir(top, &names, is_file, alphasort);
	for (int i = 0; i < n; i++) {
		CLEANUP_FREE char *dir = NULL;

		if (asprintf(&dir, "%s/%s", top, names[i]->d_name) >= 0)
			load_folder(h, dir, hook_of(h, dir), found);
		else
			dir = NULL;
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	return r;
}
