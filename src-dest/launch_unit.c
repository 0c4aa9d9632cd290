/* SPDX-License-Identifier: Apache-2.0 */
#include "launch_unit.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/poll.h>
#include <systemd/sd-bus.h>
#include <unistd.h>
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"
#include "util/log.h"

#define MANAGER      "org.freedesktop.systemd1"
#define MANAGER_PATH "/org/freedesktop/systemd1"
#define MANAGER_IF   "org.freedesktop.systemd1.Manager"
#define UNIT_IF      "org.freedesktop.systemd1.Unit"
#define SERVICE_IF   "org.freedesktop.systemd1.Service"
#define SLICE        "decant-guests.slice"
/* Is stopped before what is started before it. */
#define EVACUATION "decant-evacuate-on-shutdown.service"
/* systemd answers in milliseconds, unless it hangs. */
#define CALL_US 10000000
/* Where systemctl connects when there is no bus. */
#define PRIVATE_BUS "unix:path=/run/systemd/private"

/**
 * struct launch_units - the connection
 * @ev:		its descriptor and its next time limit
 * @armed:	what @ev waits for
 * @run_dir:	borrowed
 * @broken:	it was lost: nothing more can be asked
 */
struct launch_units {
	struct loop *loop;
	sd_bus *bus;
	struct event *ev;
	short armed;
	const char *run_dir;
	bool broken;
};

/**
 * struct launch_unit - a transient unit of ours
 * @name:	of the unit
 * @path:	its object on the bus
 * @env:	file with the token, until systemd has read it
 * @job:	object of the job that starts it, until that has ended
 * @slots:	what is waited for: the answer, the end of the job, changes, and the question how it ended
 * @on_exit, @arg: who is told
 */
struct launch_unit {
	struct launch_units *us;
	char *name;
	char *path;
	char *env;
	char *job;
	sd_bus_slot *start, *job_removed, *changed, *status;
	launch_exit_fn *on_exit;
	void *arg;
};

/* --- the connection in the loop --- */

static void arm(struct launch_units *us);

static void on_bus(evutil_socket_t fd, short what, void *arg)
{
	struct launch_units *us = arg;
	int r;

	(void)fd;
	(void)what;
	do
		r = sd_bus_process(us->bus, NULL);
	while (r > 0);
	if (r < 0) {
		log_error("launch: the connection to systemd is lost: %s; guests are started as "
			  "processes of the agent until it is restarted",
			  strerror(-r));
		us->broken = true;
		event_del(us->ev);
		return;
	}
	arm(us);
}

/* What the bus waits for changes with each call of one of its functions. */
static void arm(struct launch_units *us)
{
	int events = sd_bus_get_events(us->bus);
	struct timeval tv = {0};
	uint64_t until = UINT64_MAX, now = clock_us();
	short want = (short)((events & POLLOUT ? EV_WRITE : 0) | EV_READ | EV_PERSIST);

	if (us->broken)
		return;
	sd_bus_get_timeout(us->bus, &until);
	if (want != us->armed) {
		event_del(us->ev);
		event_assign(us->ev, loop_base(us->loop), sd_bus_get_fd(us->bus), want, on_bus, us);
		us->armed = want;
	}
	if (until != UINT64_MAX && until > now)
		tv = (struct timeval){(time_t)((until - now) / 1000000),
				      (suseconds_t)((until - now) % 1000000)};
	event_add(us->ev, until == UINT64_MAX ? NULL : &tv);
}

static int connect_bus(sd_bus **ret)
{
	sd_bus *bus = NULL;
	int r = sd_bus_open_system(&bus);

	if (r >= 0) {
		*ret = bus;
		return 0;
	}
	/* A host without a bus: systemd itself answers root. */
	r = sd_bus_new(&bus);
	if (r >= 0)
		r = sd_bus_set_address(bus, PRIVATE_BUS);
	if (r >= 0)
		r = sd_bus_start(bus);
	if (r < 0) {
		sd_bus_unref(bus);
		return r;
	}
	*ret = bus;
	return 0;
}

/* Its signals come only to those who subscribe; an answer is of no interest. */
static int subscribe(struct launch_units *us)
{
	return sd_bus_call_method_async(us->bus, NULL, MANAGER, MANAGER_PATH, MANAGER_IF,
					"Subscribe", NULL, NULL, NULL);
}

int launch_units_new(struct loop *loop, const char *run_dir, struct launch_units **ret,
		     struct error *err)
{
	struct launch_units *us = calloc(1, sizeof(*us));
	int r;

	if (!us)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	us->loop = loop;
	us->run_dir = run_dir;
	r = connect_bus(&us->bus);
	if (r >= 0)
		r = sd_bus_set_method_call_timeout(us->bus, CALL_US);
	if (r >= 0)
		r = subscribe(us);
	if (r >= 0)
		us->ev = event_new(loop_base(loop), sd_bus_get_fd(us->bus), EV_READ | EV_PERSIST,
				   on_bus, us);
	if (r < 0 || !us->ev) {
		launch_units_free(us);
		return error_set(err, r < 0 ? r : -ENOMEM, NULL, "cannot talk to systemd: %s",
				 strerror(r < 0 ? -r : ENOMEM));
	}
	us->armed = EV_READ | EV_PERSIST;
	on_bus(-1, 0, us);
	*ret = us;
	return 0;
}

void launch_units_free(struct launch_units *us)
{
	if (!us)
		return;
	if (us->ev)
		event_free(us->ev);
	sd_bus_flush_close_unref(us->bus);
	free(us);
}

bool launch_units_usable(const struct launch_units *us)
{
	return us && !us->broken;
}

/* --- one unit --- */

static void forget_token(struct launch_unit *u)
{
	if (u->env)
		unlink(u->env);
	free(steal_ptr(&u->env));
}

/* The last that is heard of it: its owner may free it. */
static void tell_end(struct launch_unit *u, const char *how)
{
	forget_token(u);
	u->changed = sd_bus_slot_unref(u->changed);
	u->on_exit(u->arg, how);
}

static int on_status(sd_bus_message *m, void *arg, sd_bus_error *error)
{
	struct launch_unit *u = arg;
	char how[256];
	const char *key;
	int32_t code = 0, status = 0;

	(void)error;
	/* A unit that has failed is gone at once. */
	snprintf(how, sizeof(how), "it has ended (journalctl -u '%s' may say more)", u->name);
	if (!sd_bus_message_is_method_error(m, NULL) &&
	    sd_bus_message_enter_container(m, 'a', "{sv}") > 0) {
		while (sd_bus_message_enter_container(m, 'e', "sv") > 0) {
			int32_t *into = NULL;

			if (sd_bus_message_read(m, "s", &key) > 0)
				into = !strcmp(key, "ExecMainCode")     ? &code
				       : !strcmp(key, "ExecMainStatus") ? &status
									: NULL;
			if (into)
				sd_bus_message_read(m, "v", "i", into);
			else
				sd_bus_message_skip(m, "v");
			sd_bus_message_exit_container(m);
		}
		if (code == CLD_EXITED)
			snprintf(how, sizeof(how), "exit status %d", status);
		else if (code)
			snprintf(how, sizeof(how), "killed by signal %d (%s)", status,
				 strsignal(status));
	}
	tell_end(u, how);
	return 0;
}

static int get_status(struct launch_unit *u)
{
	return sd_bus_call_method_async(u->us->bus, &u->status, MANAGER, u->path,
					"org.freedesktop.DBus.Properties", "GetAll", on_status, u,
					"s", SERVICE_IF);
}

static int on_changed(sd_bus_message *m, void *arg, sd_bus_error *error)
{
	struct launch_unit *u = arg;
	const char *interface, *key, *value;
	bool ended = false;

	(void)error;
	if (sd_bus_message_read(m, "s", &interface) < 0 || strcmp(interface, UNIT_IF) != 0 ||
	    sd_bus_message_enter_container(m, 'a', "{sv}") <= 0)
		return 0;
	while (sd_bus_message_enter_container(m, 'e', "sv") > 0) {
		if (sd_bus_message_read(m, "s", &key) > 0 && !strcmp(key, "ActiveState") &&
		    sd_bus_message_read(m, "v", "s", &value) > 0)
			ended = !strcmp(value, "inactive") || !strcmp(value, "failed");
		else
			sd_bus_message_skip(m, "v");
		sd_bus_message_exit_container(m);
	}
	if (ended && !u->job && !u->status && get_status(u) < 0)
		tell_end(u, "it has ended");
	return 0;
}

static int on_job_removed(sd_bus_message *m, void *arg, sd_bus_error *error)
{
	struct launch_unit *u = arg;
	const char *job, *unit, *result;
	uint32_t id;

	(void)error;
	if (!u->job || sd_bus_message_read(m, "uoss", &id, &job, &unit, &result) < 0 ||
	    strcmp(job, u->job) != 0)
		return 0;
	free(steal_ptr(&u->job));
	forget_token(u);
	log_debug("launch: unit %s: %s", u->name, result);
	if (strcmp(result, "done") != 0 && !u->status && get_status(u) < 0)
		tell_end(u, "systemd could not start it");
	return 0;
}

static int on_started(sd_bus_message *m, void *arg, sd_bus_error *error)
{
	struct launch_unit *u = arg;
	const sd_bus_error *e = sd_bus_message_get_error(m);
	const char *job;
	char how[256];

	(void)error;
	if (!e && sd_bus_message_read(m, "o", &job) > 0) {
		u->job = strdup(job);
		return 0;
	}
	snprintf(how, sizeof(how), "systemd did not start unit %s: %s", u->name,
		 e && e->message ? e->message : "its answer makes no sense");
	tell_end(u, how);
	return 0;
}

/* systemd shows properties to everybody, and reads this file itself. */
static int write_token(struct launch_unit *u, const uint8_t *token, struct error *err)
{
	char line[LAUNCH_TOKEN_MAX];
	size_t n = launch_token(token, line);
	CLEANUP_CLOSE int fd = -1;
	int r;

	line[n++] = '\n'; /* in the place of the NUL */
	fd = open(u->env, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : fdio_write_full(fd, line, n);
	explicit_bzero(line, sizeof(line));
	return r ? error_set(err, r, "launch-failed", "%s: %s", u->env, strerror(-r)) : 0;
}

static int append_exec(sd_bus_message *m, char *const *argv)
{
	int r = sd_bus_message_open_container(m, 'r', "sv");

	if (r >= 0)
		r = sd_bus_message_append(m, "s", "ExecStart");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'v', "a(sasb)");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "(sasb)");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'r', "sasb");
	if (r >= 0)
		r = sd_bus_message_append(m, "s", argv[0]);
	if (r >= 0)
		r = sd_bus_message_append_strv(m, (char **)argv);
	if (r >= 0)
		r = sd_bus_message_append(m, "b", 0);
	for (int depth = 0; depth < 4 && r >= 0; depth++)
		r = sd_bus_message_close_container(m);
	return r;
}

static int append_properties(sd_bus_message *m, const struct launch_unit *u,
			     const struct launch_spec *s)
{
	char *what = NULL, *attach = NULL;
	int r = asprintf(&what, "decant guest %s", s->name) < 0 ||
				asprintf(&attach, "DECANT_ATTACH=%s", s->attach) < 0
			? -ENOMEM
			: sd_bus_message_open_container(m, 'a', "(sv)");

	if (r >= 0)
		r = sd_bus_message_append(
			m, "(sv)(sv)(sv)(sv)(sv)(sv)(sv)(sv)(sv)(sv)", "Description", "s", what,
			"Slice", "s", SLICE, "Before", "as", 1, EVACUATION, "Type", "s", "exec",
			"CollectMode", "s", "inactive-or-failed", "Environment", "as", 1, attach,
			"EnvironmentFiles", "a(sb)", 1, u->env, 0, "StandardOutputFileToAppend",
			"s", s->log_path, "StandardErrorFileToAppend", "s", s->log_path,
			"IgnoreSIGPIPE", "b", 0);
	if (r >= 0)
		r = append_exec(m, s->argv);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	free(what);
	free(attach);
	return r;
}

static int call_start(struct launch_unit *u, const struct launch_spec *s)
{
	sd_bus *bus = u->us->bus;
	sd_bus_message *m = NULL;
	int r = sd_bus_match_signal_async(bus, &u->job_removed, MANAGER, MANAGER_PATH, MANAGER_IF,
					  "JobRemoved", on_job_removed, NULL, u);

	if (r >= 0)
		r = sd_bus_match_signal_async(bus, &u->changed, MANAGER, u->path,
					      "org.freedesktop.DBus.Properties",
					      "PropertiesChanged", on_changed, NULL, u);
	if (r >= 0)
		r = sd_bus_message_new_method_call(bus, &m, MANAGER, MANAGER_PATH, MANAGER_IF,
						   "StartTransientUnit");
	if (r >= 0)
		r = sd_bus_message_append(m, "ss", u->name, "fail");
	if (r >= 0)
		r = append_properties(m, u, s);
	if (r >= 0)
		r = sd_bus_message_append(m, "a(sa(sv))", 0);
	if (r >= 0)
		r = sd_bus_call_async(bus, &u->start, m, on_started, u, CALL_US);
	sd_bus_message_unref(m);
	return r;
}

/* decant-guest-NAME-ID.service, with what systemd allows in the name of a unit. */
static int name_it(struct launch_unit *u, const struct launch_spec *s)
{
	char name[200];
	size_t n = 0;

	for (const char *p = s->name; *p && n < sizeof(name) - 5; p++)
		if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
		    (*p >= '0' && *p <= '9') || *p == '_' || *p == '.')
			name[n++] = *p;
		else
			n += (size_t)snprintf(name + n, 5, "\\x%02x", (unsigned char)*p);
	name[n] = '\0';
	if (asprintf(&u->name, "decant-guest-%s-%.8s.service", name, s->id) < 0) {
		u->name = NULL;
		return -ENOMEM;
	}
	if (asprintf(&u->env, "%s/%.8s.token", u->us->run_dir, s->id) < 0) {
		u->env = NULL;
		return -ENOMEM;
	}
	return sd_bus_path_encode(MANAGER_PATH "/unit", u->name, &u->path);
}

int launch_unit_start(struct launch_units *us, const struct launch_spec *spec,
		      launch_exit_fn *on_exit, void *arg, struct launch_unit **ret,
		      struct error *err)
{
	struct launch_unit *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	u->us = us;
	u->on_exit = on_exit;
	u->arg = arg;
	r = name_it(u, spec);
	if (r < 0)
		r = error_set(err, r, NULL, "out of memory");
	else
		r = write_token(u, spec->token, err);
	if (!r) {
		r = call_start(u, spec);
		r = r < 0 ? error_set(err, r, "launch-failed", "cannot ask systemd for unit %s: %s",
				      u->name, strerror(-r))
			  : 0;
	}
	if (r) {
		launch_unit_free(u);
		return r;
	}
	log_debug("launch: unit %s is %s", u->name, spec->argv[0]);
	arm(us);
	*ret = u;
	return 0;
}

void launch_unit_watch(struct launch_unit *u, launch_exit_fn *on_exit, void *arg)
{
	u->on_exit = on_exit;
	u->arg = arg;
}

void launch_unit_kill(struct launch_unit *u)
{
	int r = sd_bus_call_method_async(u->us->bus, NULL, MANAGER, MANAGER_PATH, MANAGER_IF,
					 "KillUnit", NULL, NULL, "ssi", u->name, "all", SIGKILL);

	if (r < 0)
		log_error("launch: unit %s cannot be killed: %s", u->name, strerror(-r));
	arm(u->us);
}

void launch_unit_free(struct launch_unit *u)
{
	if (!u)
		return;
	forget_token(u);
	sd_bus_slot_unref(u->start);
	sd_bus_slot_unref(u->job_removed);
	sd_bus_slot_unref(u->changed);
	sd_bus_slot_unref(u->status);
	free(u->name);
	free(u->path);
	free(u->job);
	free(u);
}
