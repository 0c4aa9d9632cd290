/* SPDX-License-Identifier: Apache-2.0 */
#include "dest.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "adopt.h"
#include "agent/agent.h"
#include "api.h"
#include "cli/cli.h"
#include "conn.h"
#include "host/supervisor.h"
#include "import.h"
#include "incoming.h"
#include "launch_unit.h"
#include "listen.h"
#include "meter.h"
#include "micro.h"
#include "resident.h"
#include "rest/rest_events.h"
#include "rest/rest_open.h"
#include "sharing.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/journal_sync.h"
#include "util/log.h"

/* For the guests that are to be ended, and for the last words to sources. */
#define END_US 5000000
/* A host acknowledges within 200 ms, also when it has nothing to say. */
#define LAST_WORDS_US 250000

/* --- processes that nobody watches any more --- */

static void reaped(void *arg, const char *how)
{
	struct dest_reap *r = arg, **at = &r->d->reaps;

	log_debug("process %d has ended: %s", (int)launch_pid(r->launch), how);
	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	launch_free(r->launch);
	free(r);
}

void dest_reap(struct dest *d, struct launch *launch)
{
	struct dest_reap *r = calloc(1, sizeof(*r));

	if (!r) {
		launch_free(launch);
		return;
	}
	r->d = d;
	r->launch = launch;
	r->next = d->reaps;
	d->reaps = r;
	launch_watch(launch, reaped, r);
}

/* --- guests that attach themselves --- */

static int on_attach(void *arg, struct guest *g, struct error *err)
{
	struct dest *d = arg;

	for (struct incoming *inc = d->incomings; inc; inc = incoming_next(inc)) {
		bool mine;
		int r = incoming_attach(inc, g, &mine, err);

		if (mine)
			return r;
	}
	if (resident_attach(d, g))
		return 0;
	return adopt_attach(d, g, err);
}

/* --- begin and end --- */

static void on_terminate(evutil_socket_t sig, short what, void *arg)
{
	struct dest *d = arg;

	(void)what;
	log_info("%s: ending", strsignal(sig));
	dest_end(d);
}

static void on_hangup(evutil_socket_t sig, short what, void *arg)
{
	struct dest *d = arg;

	(void)sig;
	(void)what;
	agent_reload(&(struct agent_secrets){.conf = &d->conf.agent,
					     .role = TLS_SERVER,
					     .tls = &d->tls,
					     .rest = d->rest,
					     .audit = d->audit,
					     .hooks = d->hooks});
}

static void end_now(void *arg)
{
	struct dest *d = arg;

	loop_stop(d->loop);
}

static bool waits_for(const struct incoming *inc)
{
	return incoming_state(inc) == INC_END;
}

void dest_close(struct dest *d, struct conn *c)
{
	d->said_us = clock_us();
	conn_close_when_sent(c);
}

/* Time for what is still to be written to sources, and to be acknowledged by their hosts. */
static uint64_t last_words_us(const struct dest *d)
{
	uint64_t since = clock_us() - d->said_us;

	return d->said_us && since < LAST_WORDS_US ? LAST_WORDS_US - since : 1;
}

void dest_maybe_ended(struct dest *d)
{
	if (!d->ending)
		return;
	for (const struct incoming *inc = d->incomings; inc; inc = incoming_next(inc))
		if (waits_for(inc))
			return;
	if (d->end_timer)
		event_free(d->end_timer);
	d->end_timer = loop_timer(d->loop, last_words_us(d), end_now, d);
}

void dest_end(struct dest *d)
{
	struct incoming *next;

	if (d->ending) {
		loop_stop(d->loop);
		return;
	}
	d->ending = true;
	supervisor_stopping(d->supervisor);
	listen_free(steal_ptr(&d->listener));
	d->end_timer = loop_timer(d->loop, END_US, end_now, d);
	for (struct incoming *inc = d->incomings; inc; inc = next) {
		next = incoming_next(inc);
		incoming_end(inc);
	}
	micro_end_all(d);
	dest_maybe_ended(d);
}

int dest_start(struct dest *d, struct error *err)
{
	struct attach_config ac = {.path = d->conf.agent.attach,
				   .mode = 0660,
				   .listen_fd = -1,
				   .fn = on_attach,
				   .share = sharing_attach,
				   .arg = d};
	int r = agent_make_folders(&d->conf.agent, err);

	if (!r)
		r = supervisor_fds(&d->handed, err);
	if (!r)
		r = meter_start(d, err);
	if (!r)
		r = store_start(d, err);
	if (!r)
		r = agent_load_tls(&d->conf.agent, TLS_SERVER, &d->tls, err);
	if (r)
		return r;
	d->journals = journal_syncer_new(d->loop);
	if (!d->journals)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	d->caps_ret = uffd_probe(&d->caps, &d->caps_err);
	if (d->caps_ret)
		log_warn("no incoming post-copy: %s", d->caps_err.msg);
	if (supervisor_is_systemd()) {
		struct error why = {0};

		if (launch_units_new(d->loop, d->conf.agent.run_dir, &d->units, &why))
			log_warn("%s: guests are started as processes of this agent, with its "
				 "confinement",
				 why.msg);
	}
	d->audit = audit_open(d->loop, d->conf.agent.state_dir, "dest");
	r = hooks_new(d->loop, &d->conf.agent.hooks, "dest", d->conf.agent.state_dir, &d->hooks,
		      err);
	if (!r)
		r = history_open(d->conf.agent.state_dir, d->journals, &d->history, err);
	if (!r)
		adopt_start(d);
	if (!r) {
		micro_adopt_start(d);
		import_adopt_start(d);
	}
	if (!r)
		r = attach_new(d->loop, &ac, &d->attach, err);
	if (!r)
		r = api_listen(d, err);
	if (!r)
		r = listen_new(d, &d->listener, err);
	supervisor_fds_free(steal_ptr(&d->handed));
	return r;
}

static void tell_status(void *arg, char out[static SUPERVISOR_STATUS_MAX])
{
	const struct dest *d = arg;
	unsigned int held = 0, micros = 0;

	for (const struct incoming *inc = d->incomings; inc; inc = incoming_next(inc))
		held += incoming_state(inc) == INC_HELD;
	for (const struct micro *m = d->micros; m; m = micro_next(m))
		micros++;
	snprintf(out, SUPERVISOR_STATUS_MAX, "%u guests arriving, %u held, %u micro-VMs served",
		 d->n_incomings - held, held, micros);
}

void dest_stop(struct dest *d)
{
	supervisor_free(d->supervisor);
	supervisor_fds_free(d->handed);
	listen_free(d->listener);
	if (d->journals)
		journal_syncer_drain(d->journals);
	rest_events_free(steal_ptr(&d->events));
	rest_server_free(d->rest);
	attach_free(d->attach);
	sharing_free_all(d);
	while (d->incomings)
		incoming_drop(d->incomings);
	micro_free_all(d);
	import_free_all(d);
	resident_free_all(d);
	adopt_free_all(d);
	history_close(d->history);
	journal_syncer_free(d->journals);
	hooks_free(d->hooks);
	while (d->reaps) {
		struct dest_reap *r = d->reaps;

		d->reaps = r->next;
		launch_free(r->launch);
		free(r);
	}
	if (d->end_timer)
		event_free(d->end_timer);
	launch_units_free(d->units);
	tls_ctx_unref(d->tls);
	meter_stop(d);
	conf_dest_clear(&d->conf);
	audit_close(d->audit);
	loop_free(d->loop);
}

static int add_signals(struct dest *d)
{
	static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		d->signals[i] = evsignal_new(loop_base(d->loop), numbers[i],
					     numbers[i] == SIGHUP ? on_hangup : on_terminate, d);
		if (!d->signals[i] || evsignal_add(d->signals[i], NULL))
			return -ENOMEM;
	}
	return 0;
}

/* Guests that systemd starts inherit nothing of it. */
static void give_up_rights(const struct conf_dest *conf)
{
	struct confine_wish wish = {
		.starts_guests = conf->n_launchers && !supervisor_is_systemd(),
		.gives_sockets = true,
		.low_port = conf->listen_port < 1024 || rest_low_port(&conf->agent.api),
	};

	agent_confine(&wish);
}

int dest_serve(const char *config)
{
	struct dest d = {.started_us = clock_wall_us()};
	struct error err = {0};
	int r = conf_dest_load(config, &d.conf, &err);

	if (!r) {
		give_up_rights(&d.conf);
		d.loop = loop_new();
		r = d.loop ? dest_start(&d, &err) : error_set(&err, -ENOMEM, NULL, "out of memory");
	}
	if (!r && add_signals(&d))
		r = error_set(&err, -ENOMEM, NULL, "out of memory");
	if (!r)
		r = supervisor_ready(d.loop, tell_status, &d, &d.supervisor, &err);
	if (r) {
		cli_error_of(CLI_USAGE, "serve", &err);
		if (d.loop)
			dest_stop(&d);
		return CLI_USAGE;
	}
	log_info("decant-dest " DECANT_VERSION " serves at %s port %u; guests attach at %s",
		 d.conf.listen_host, d.conf.listen_port, d.conf.agent.attach);
	r = loop_run(d.loop);
	for (size_t i = 0; i < ARRAY_SIZE(d.signals); i++)
		event_free(d.signals[i]);
	dest_stop(&d);
	return r ? 1 : 0;
}
