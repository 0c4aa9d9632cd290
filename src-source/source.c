/* SPDX-License-Identifier: Apache-2.0 */
#include "source.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "bandwidth.h"
#include "budget/budget.h"
#include "audit/audit.h"
#include "cli/cli.h"
#include "evac.h"
#include "guests.h"
#include "guests_store.h"
#include "hooks/hooks.h"
#include "host/confine.h"
#include "host/supervisor.h"
#include "meter.h"
#include "migration.h"
#include "rest/rest_events.h"
#include "rest/rest_open.h"
#include "tls/tls_stats.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"
#include "util/journal_sync.h"
#include "util/log.h"

static int load_tls(struct source *s, struct error *err)
{
	const struct conf_tls *t = &s->conf.tls;
	struct tls_files files = {.ca = t->ca, .cert = t->cert, .key = t->key, .crl = t->crl};
	struct tls_ctx *ctx;
	int r = tls_ctx_new(&files, TLS_CLIENT, &ctx, err);

	if (r < 0)
		return r;
	tls_stats_inherit(ctx, s->tls);
	tls_ctx_unref(s->tls);
	s->tls = ctx;
	return 0;
}

static void on_hangup(evutil_socket_t sig, short what, void *arg)
{
	struct error err = {0}, hook = {0};
	struct source *s = arg;

	(void)sig;
	(void)what;
	if (load_tls(s, &err) < 0 || rest_reload(s->rest, &s->conf.api, &s->conf.tls, &err) < 0)
		log_error("certificates not reloaded, the old ones stay in use: %s", err.msg);
	else
		log_info("certificates reloaded");
	audit_reopen(s->audit);
	if (hooks_reload(s->hooks, &hook) < 0)
		log_error("secrets not reloaded, the old ones stay in use: %s", hook.msg);
}

static void on_terminate(evutil_socket_t sig, short what, void *arg)
{
	struct source *s = arg;

	(void)what;
	log_info("%s: ending", strsignal(sig));
	supervisor_stopping(s->supervisor);
	loop_stop(s->loop);
}

static int make_folders(struct source *s, struct error *err)
{
	const char *dirs[] = {s->conf.run_dir, s->conf.state_dir};

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		int r = fdio_mkdir_p(dirs[i], 0750);

		if (r < 0)
			return error_set(err, r, NULL, "cannot make folder %s: %s", dirs[i],
					 strerror(-r));
	}
	return 0;
}

int source_start(struct source *s, struct error *err)
{
	struct attach_config ac = {.path = s->conf.attach,
				   .mode = 0660,
				   .listen_fd = -1,
				   .fn = guests_attach,
				   .arg = s};
	int r = make_folders(s, err);

	if (!r)
		r = load_tls(s, err);
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
		s->audit = audit_open(s->loop, s->conf.state_dir, "source");
	if (!r)
		r = hooks_new(s->loop, &s->conf.hooks, "source", s->conf.state_dir, &s->hooks, err);
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

/* Before there is any other thread, socket or key. What cannot be given up is no reason not to serve. */
static void give_up_rights(const struct conf_source *conf)
{
	struct confine_wish wish = {.low_port = rest_low_port(&conf->api)};
	char text[CONFINE_TEXT_MAX];
	struct error err = {0};

	if (confine(&wish, &err) < 0)
		log_warn("not confined as it should be: %s", err.msg);
	log_debug("confined: %s", confine_text(text));
}

int source_serve(const char *config)
{
	struct source s = {.started_us = clock_wall_us()};
	struct event *signals[3] = {0};
	struct error err = {0};
	int r = conf_source_load(config, &s.conf, &err);

	if (!r) {
		give_up_rights(&s.conf);
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
	log_info("decant-source " DECANT_VERSION " serves; guests attach at %s", s.conf.attach);
	r = loop_run(s.loop);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		event_free(signals[i]);
	source_stop(&s);
	return r < 0 ? 1 : 0;
}
