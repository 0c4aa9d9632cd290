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

int supervisor_sockets(int **ret_fds, struct error *err)
{
	int n = sd_listen_fds(1), *fds;

	*ret_fds = NULL;
	if (n <= 0)
		return n ? error_set(err, n, "listen", "sockets of the service manager: %s",
				     strerror(-n))
			 : 0;
	fds = calloc((size_t)n, sizeof(*fds));
	if (!fds)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	for (int i = 0; i < n; i++) {
		fds[i] = SD_LISTEN_FDS_START + i;
		if (sd_is_socket_inet(fds[i], AF_UNSPEC, SOCK_STREAM, 1, 0) > 0)
			continue;
		free(fds);
		return error_set(err, -EINVAL, "listen",
				 "socket %d of the service manager is not a TCP socket that "
				 "listens: in a .socket unit only ListenStream=[ADDRESS:]PORT is "
				 "supported",
				 i + 1);
	}
	*ret_fds = fds;
	return n;
}

bool supervisor_is_systemd(void)
{
	return getenv("INVOCATION_ID") && sd_booted() > 0;
}
