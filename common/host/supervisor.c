/* SPDX-License-Identifier: Apache-2.0 */
#include "host/supervisor.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/log.h"

/* A status is no older than this. */
#define STATUS_US 2000000

/**
 * struct supervisor - see supervisor.h
 * @tick:	asks for the status, and says that the loop runs
 * @watched:	the service manager wants to hear that
 * @said:	the status that it knows
 */
struct supervisor {
	struct event *tick;
	supervisor_status_fn *status;
	void *arg;
	bool watched;
	char said[SUPERVISOR_STATUS_MAX];
};

static void tell_status(struct supervisor *s)
{
	char text[SUPERVISOR_STATUS_MAX] = "";

	s->status(s->arg, text);
	if (!strcmp(text, s->said))
		return;
	memcpy(s->said, text, sizeof(text));
	sd_notifyf(0, "STATUS=%s", text);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct supervisor *s = arg;

	(void)fd;
	(void)what;
	if (s->watched)
		sd_notify(0, "WATCHDOG=1");
	tell_status(s);
}

int supervisor_ready(struct loop *loop, supervisor_status_fn *status, void *arg,
		     struct supervisor **ret, struct error *err)
{
	struct supervisor *s;
	struct timeval every;
	uint64_t limit_us = 0, us = STATUS_US;

	*ret = NULL;
	if (!getenv("NOTIFY_SOCKET"))
		return 0;
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	s->status = status;
	s->arg = arg;
	s->watched = sd_watchdog_enabled(0, &limit_us) > 0;
	/* Three chances before it is taken for stuck. */
	if (s->watched && limit_us / 3 < us)
		us = limit_us / 3 + 1;
	every = (struct timeval){(time_t)(us / 1000000), (suseconds_t)(us % 1000000)};
	s->tick = event_new(loop_base(loop), -1, EV_PERSIST, on_tick, s);
	if (!s->tick || event_add(s->tick, &every)) {
		supervisor_free(s);
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	sd_notify(0, "READY=1");
	tell_status(s);
	*ret = s;
	return 0;
}

void supervisor_stopping(struct supervisor *s)
{
	if (s)
		sd_notify(0, "STOPPING=1");
}

void supervisor_free(struct supervisor *s)
{
	if (!s)
		return;
	if (s->tick)
		event_free(s->tick);
	free(s);
}

/* --- what is handed over ------------------------------------------------------------------------ */

/* Tells what we have had kept from sockets, whose units may be called anything. */
#define KEPT "kept-"

/**
 * struct supervisor_fds - see supervisor.h
 * @fds:	-1 for one that was taken
 * @names:	strv of libsystemd, as long as @fds
 */
struct supervisor_fds {
	int *fds;
	char **names;
	int n;
};

int supervisor_fds(struct supervisor_fds **ret, struct error *err)
{
	struct supervisor_fds *f = calloc(1, sizeof(*f));
	int n;

	if (!f)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	n = sd_listen_fds_with_names(1, &f->names);
	f->fds = n > 0 ? calloc((size_t)n, sizeof(*f->fds)) : NULL;
	if (n < 0 || (n && !f->fds)) {
		supervisor_fds_free(f);
		return error_set(err, n < 0 ? n : -ENOMEM, "listen",
				 "descriptors of the service manager: %s",
				 strerror(n < 0 ? -n : ENOMEM));
	}
	f->n = n;
	for (int i = 0; i < n; i++)
		f->fds[i] = SD_LISTEN_FDS_START + i;
	*ret = f;
	return 0;
}

void supervisor_fds_free(struct supervisor_fds *f)
{
	if (!f)
		return;
	for (int i = 0; i < f->n; i++)
		if (f->fds[i] >= 0)
			close(f->fds[i]);
	for (char **name = f->names; name && *name; name++)
		free(*name);
	free(f->names);
	free(f->fds);
	free(f);
}

static bool is_kept(const struct supervisor_fds *f, int i)
{
	return !strncmp(f->names[i], KEPT, strlen(KEPT));
}

int supervisor_sockets(struct supervisor_fds *f, int **ret_fds, struct error *err)
{
	int n = 0, *fds;

	*ret_fds = NULL;
	for (int i = 0; f && i < f->n; i++) {
		if (is_kept(f, i))
			continue;
		if (sd_is_socket_inet(f->fds[i], AF_UNSPEC, SOCK_STREAM, 1, 0) <= 0)
			return error_set(err, -EINVAL, "listen",
					 "%s of the service manager is not a TCP socket that "
					 "listens: in a .socket unit only "
					 "ListenStream=[ADDRESS:]PORT is supported",
					 f->names[i]);
		n++;
	}
	if (!n)
		return 0;
	fds = calloc((size_t)n, sizeof(*fds));
	if (!fds)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	n = 0;
	for (int i = 0; i < f->n; i++)
		if (!is_kept(f, i))
			fds[n++] = steal_fd(&f->fds[i]);
	*ret_fds = fds;
	return n;
}

int supervisor_kept(struct supervisor_fds *f, const char *name)
{
	for (int i = 0; f && i < f->n; i++)
		if (f->fds[i] >= 0 && is_kept(f, i) && !strcmp(f->names[i] + strlen(KEPT), name))
			return steal_fd(&f->fds[i]);
	return -ENOENT;
}

void supervisor_keep(const char *name, int fd)
{
	char text[320];
	int r;

	/* Nobody polls it there: a userfaultfd that its guest has made blocking reports an error, and would be dropped. */
	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=" KEPT "%s\nFDPOLL=0", name);
	r = sd_pid_notify_with_fds(0, 0, text, &fd, 1);
	if (r < 0)
		log_warn("%s: the service manager cannot be asked to keep a descriptor: %s", name,
			 strerror(-r));
}

void supervisor_forget(const char *name)
{
	sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=" KEPT "%s", name);
}

bool supervisor_is_systemd(void)
{
	return getenv("INVOCATION_ID") && sd_booted() > 0;
}
