/* SPDX-License-Identifier: Apache-2.0 */
#include "audit/audit.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/errand.h"
#include "util/log.h"

#define FIELDS_MAX 32

/**
 * struct audit - see audit.h
 * @fd:		-1 while it cannot be opened
 * @journal:	stderr is systemd's journal, so it is there
 * @torn:	a line was written in part: the next one begins with a line end
 * @lost, @untold: lines that could not be written; those that no line has told of
 * @tokens, @refilled_us: what may be refused and still written
 * @suppressed:	refusals that were left out since the last one
 * @sync:	of @sync_fd, a duplicate: @fd may be closed meanwhile
 * @again:	something was written since that began
 */
struct audit {
	struct errand sync; /* first: sync_run() finds the rest by it */
	int sync_fd;
	bool again;
	struct loop *loop;
	const char *agent;
	char *path;
	int fd;
	bool journal;
	bool torn;
	uint64_t lost, untold;
	double tokens;
	uint64_t refilled_us;
	uint64_t suppressed;
};

/* --- the file --- */

static int open_file(struct audit *a)
{
	const int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;

	if (a->fd >= 0)
		return 0;
	a->fd = open(a->path, flags, 0640);
	if (a->fd < 0)
		return -errno;
	fchmod(a->fd, 0640); /* whatever the umask */
	return 0;
}

static void failed(struct audit *a, int r)
{
	if (!a->untold)
		log_error("audit: %s: %s: lines are missing from here on", a->path, strerror(-r));
	a->lost++;
	a->untold++;
}

/* One write for each line, so that those of the other agent stay whole as well. */
static int append(struct audit *a, const char *line, size_t n)
{
	struct iovec v[3] = {{(char *)"\n", a->torn ? 1 : 0}, {(char *)line, n}, {(char *)"\n", 1}};
	size_t all = v[0].iov_len + n + 1;
	ssize_t done = writev(a->fd, v, 3);

	if (done < 0)
		return -errno;
	a->torn = (size_t)done < all && (done > 0 || a->torn);
	return (size_t)done < all ? -ENOSPC : 0;
}

static json_t *head(const struct audit *a, const char *what)
{
	char at[CLOCK_TEXT_MAX];

	return json_pack("{s:s, s:s, s:i, s:s}", "at", clock_rfc3339(at, clock_wall_us()), "agent",
			 a->agent, "pid", (int)getpid(), "what", what);
}

static int write_json(struct audit *a, const json_t *o)
{
	CLEANUP_FREE char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	int r = text ? open_file(a) : -ENOMEM;

	return r ? r : append(a, text, strlen(text));
}

static void tell_lost(struct audit *a)
{
	json_t *o = a->untold ? head(a, "audit-lost") : NULL;

	if (!o)
		return;
	json_object_set_new(o, "lines", json_integer((json_int_t)a->untold));
	if (!write_json(a, o))
		a->untold = 0;
	json_decref(o);
}

/* --- on the disk --- */

static void sync_soon(struct audit *a);

static int sync_run(struct errand *e, struct error *err)
{
	struct audit *a = (struct audit *)e;

	return fdatasync(a->sync_fd)
		       ? error_set(err, -errno, NULL, "%s: %s", a->path, strerror(errno))
		       : 0;
}

static void sync_done(struct errand *e)
{
	struct audit *a = (struct audit *)e;

	close(steal_fd(&a->sync_fd));
	if (e->ret)
		log_error("audit: %s", e->err.msg);
	if (a->again)
		sync_soon(a);
}

static void sync_soon(struct audit *a)
{
	a->again = a->sync.under_way;
	if (a->again || a->fd < 0)
		return;
	a->sync_fd = fcntl(a->fd, F_DUPFD_CLOEXEC, 0);
	if (a->sync_fd >= 0 && errand_start(&a->sync, a->loop, sync_run, sync_done) < 0)
		close(steal_fd(&a->sync_fd));
}

/* --- the journal --- */

static char *field(const char *key, const json_t *value)
{
	CLEANUP_FREE char *text =
		json_is_string(value) ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
	char *out;

	if (asprintf(&out, "DECANT_%s=%s", key, text ? text : json_string_value(value)) < 0)
		return NULL;
	for (char *p = out; *p && *p != '='; p++)
		*p = (char)toupper((unsigned char)*p);
	return out;
}

static void to_journal(const char *what, json_t *o)
{
	CLEANUP_FREE char *line = json_dumps(o, JSON_COMPACT);
	struct iovec v[FIELDS_MAX];
	const char *key;
	json_t *value;
	int n = 0;

	if (!line)
		return;
	if (asprintf((char **)&v[n].iov_base, "MESSAGE=audit: %s: %s", what, line) >= 0)
		n++;
	v[n++].iov_base = strdup("PRIORITY=5");
	if (asprintf((char **)&v[n].iov_base, "DECANT_AUDIT=%s", what) >= 0)
		n++;
	json_object_foreach(o, key, value)
		if (n < FIELDS_MAX && strcmp(key, "what") != 0 &&
		    (v[n].iov_base = field(key, value)))
			n++;
	for (int i = 0; i < n; i++)
		v[i].iov_len = v[i].iov_base ? strlen(v[i].iov_base) : 0;
	sd_journal_sendv(v, n);
	for (int i = 0; i < n; i++)
		free(v[i].iov_base);
}

/* --- lines --- */

static bool may_refuse(struct audit *a)
{
	uint64_t now = clock_us();

	a->tokens += (double)(now - a->refilled_us) * AUDIT_REFUSED_PER_S / 1e6;
	a->tokens = MIN(a->tokens, (double)AUDIT_REFUSED_BURST);
	a->refilled_us = now;
	if (a->tokens < 1) {
		a->suppressed++;
		return false;
	}
	a->tokens -= 1;
	return true;
}

static void add(json_t *o, json_t *members)
{
	const char *key;
	json_t *value;

	json_object_foreach(members, key, value)
		if (!json_is_null(value))
			json_object_set(o, key, value);
	json_decref(members);
}

void audit_note(struct audit *a, const char *what, json_t *members, enum audit_flags flags)
{
	json_t *o;
	int r;

	if (!a || (flags & AUDIT_REFUSED && !may_refuse(a))) {
		json_decref(members);
		return;
	}
	o = head(a, what);
	add(o, members);
	if (o && flags & AUDIT_REFUSED && a->suppressed) {
		json_object_set_new(o, "suppressed", json_integer((json_int_t)a->suppressed));
		a->suppressed = 0;
	}
	tell_lost(a);
	r = write_json(a, o);
	if (r < 0)
		failed(a, r);
	else if (flags & AUDIT_SYNC)
		sync_soon(a);
	if (a->journal && o)
		to_journal(what, o);
	json_decref(o);
}

/* --- life --- */

struct audit *audit_open(struct loop *loop, const char *state_dir, const char *agent)
{
	struct audit *a = calloc(1, sizeof(*a));
	int r;

	if (!a || asprintf(&a->path, "%s/audit.log", state_dir) < 0) {
		free(a);
		return NULL;
	}
	a->loop = loop;
	a->agent = agent;
	a->fd = a->sync_fd = -1;
	a->tokens = AUDIT_REFUSED_BURST;
	a->refilled_us = clock_us();
	a->journal = getenv("JOURNAL_STREAM") != NULL;
	r = open_file(a);
	if (r < 0)
		log_error("audit: %s: %s: it is tried again with each line", a->path, strerror(-r));
	return a;
}

void audit_close(struct audit *a)
{
	if (!a)
		return;
	if (a->sync.under_way) {
		errand_drop(&a->sync);
		close(a->sync_fd);
		a->again = true;
	}
	if (a->again && a->fd >= 0)
		fdatasync(a->fd);
	if (a->fd >= 0)
		close(a->fd);
	free(a->path);
	free(a);
}

void audit_reopen(struct audit *a)
{
	int r;

	if (!a)
		return;
	if (a->fd >= 0)
		close(steal_fd(&a->fd));
	a->torn = false;
	r = open_file(a);
	if (r < 0)
		log_error("audit: %s: %s: it is tried again with each line", a->path, strerror(-r));
}

uint64_t audit_lost(const struct audit *a)
{
	return a ? a->lost : 0;
}
