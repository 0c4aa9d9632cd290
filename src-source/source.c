/* SPDX-License-Identifier: Apache-2.0 */
#include "source.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "agent/agent.h"
#include "bandwidth.h"
#include "budget/budget.h"
#include "cli/cli.h"
#include "evac.h"
#include "guests.h"
#include "guests_store.h"
#include "host/supervisor.h"
#include "meter.h"
#include "migration.h"
#include "rest/rest_events.h"
#include "rest/rest_open.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/journal_sync.h"
#include "util/log.h"

static void on_hangup(evutil_socket_t sig, short what, void *arg)
{
	struct source *s = arg;

	(void)sig;
	(void)what;
	agent_reload(&(struct agent_secrets){.conf = &s->conf.agent,
					     .role = TLS_CLIENT,
					     .tls = &s->tls,
					     .rest = s->rest,
					     .audit = s->audit,
					     .hooks = s->hooks});
}

static void on_terminate(evutil_socket_t sig, short what, void *arg)
{
	struct source *s = arg;

	(void)what;
	log_info("%s: ending", strsignal(sig));
	supervisor_stopping(s->supervisor);
	loop_stop(s->loop);
}

int source_start(struct source *s, struct error *err)
{
	struct attach_config ac = {.path = s->conf.agent.attach,
				   .mode = 0660,
				   .listen_fd = -1,
				   .fn = guests_attach,
				   .arg = s};
	int r = agent_make_folders(&s->conf.agent, err);

	if (!r)
		r = agent_load_tls(&s->conf.agent, TLS_CLIENT, &s->tls, err);
	if (r < 0)
		return r;
	s->journals = journal_syncer_new(s->loop);
	if (!s->journals)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	if (uffd_probe(&s->caps, &s->uffd_error) < 0)
		log_warn("%s", s->uffd_error.msg);
	r = meter_start(s, err);
	if (!r)
		r = bandwidth_load(s, err);
	if (!r)
		r = guests_configure(s, err);
	if (!r)
		r = guests_store_load(s, err);
	if (!r)
		s->audit = audit_open(s->loop, s->conf.agent.state_dir, "source");
	if (!r)
		r = hooks_new(s->loop, &s->conf.agent.hooks, "source", s->conf.agent.state_dir,
			      &s->hooks, err);
	if (!r)
		r = migration_load_all(s, err);
	if (!r)
		guests_look_for_all(s);
	if (!r)
		r = evac_load_all(s, err);
	if (!r)
		r = attach_new(s->loop, &ac, &s->attach, err);
	if (!r)
		r = api_listen(s, err);
	return r;
}

static void tell_status(void *arg, char out[static SUPERVISOR_STATUS_MAX])
{
	const struct source *s = arg;
	unsigned int guests = 0;

	for (const struct source_guest *sg = s->guests; sg; sg = sg->next)
		guests++;
	snprintf(out, SUPERVISOR_STATUS_MAX, "%u guests, %u jobs under way", guests,
		 migrations_busy(s));
}

void source_stop(struct source *s)
{
	supervisor_free(s->supervisor);
	/* Before a guest is let go: that nothing holds it is said first. */
	if (s->journals)
		journal_syncer_drain(s->journals);
	guests_store_end(s);
	rest_events_free(steal_ptr(&s->events));
	rest_server_free(s->rest);
	attach_free(s->attach);
	evac_end_all(s);
	migration_end_all(s);
	journal_syncer_free(s->journals);
	hooks_free(s->hooks);
	guests_free(s);
	budget_free(s->budget);
	meter_stop(s);
	tls_ctx_unref(s->tls);
	conf_source_clear(&s->conf);
	audit_close(s->audit);
	loop_free(s->loop);
}

int source_serve(const char *config)
{
	struct source s = {.started_us = clock_wall_us()};
	struct event *signals[3] = {0};
	struct error err = {0};
	int r = conf_source_load(config, &s.conf, &err);

	if (!r) {
		agent_confine(&(struct confine_wish){.low_port = rest_low_port(&s.conf.agent.api)});
		s.loop = loop_new();
		r = s.loop ? source_start(&s, &err)
			   : error_set(&err, -ENOMEM, NULL, "out of memory");
	}
	if (r < 0) {
		cli_error_of(CLI_USAGE, "serve", &err);
		if (s.loop)
			source_stop(&s);
		return CLI_USAGE;
	}
	signals[0] = evsignal_new(loop_base(s.loop), SIGHUP, on_hangup, &s);
	signals[1] = evsignal_new(loop_base(s.loop), SIGTERM, on_terminate, &s);
	signals[2] = evsignal_new(loop_base(s.loop), SIGINT, on_terminate, &s);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		evsignal_add(signals[i], NULL);
	if (supervisor_ready(s.loop, tell_status, &s, &s.supervisor, &err) < 0)
		log_warn("the service manager is not told: %s", err.msg);
	log_info("decant-source " DECANT_VERSION " serves; guests attach at %s",
		 s.conf.agent.attach);
	r = loop_run(s.loop);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		event_free(signals[i]);
	source_stop(&s);
	return r < 0 ? 1 : 0;
}
