/* SPDX-License-Identifier: Apache-2.0 */
/* The source agent: everything that lives as long as the daemon does. All of it is the loop's. */
#ifndef DECANT_SOURCE_H
#define DECANT_SOURCE_H

#include "conf/conf_source.h"
#include "guest/attach.h"
#include "rest/rest_server.h"
#include "tls/tls_ctx.h"
#include "uffd/uffd.h"
#include "util/loop.h"

struct audit;
struct budget;
struct hooks;
struct journal_syncer;
struct meter;
struct metrics_registry;
struct evac;
struct guests_store;
struct migration;
struct rest_events;
struct source_guest;
struct supervisor;

/** SOURCE_JOBS_MAX - ended migrations that are remembered */
#define SOURCE_JOBS_MAX 1000

/**
 * struct source - the daemon
 * @conf:	configuration, fixed
 * @tls:	context of new connections; replaced on SIGHUP
 * @caps:	what the kernel can do, valid if @uffd_error is empty
 * @uffd_error:	why there is no userfaultfd at all
 * @guests:	list of the guests of this host
 * @migrations:	list of jobs, newest first
 * @budget:	bandwidth of this host; its rate see bandwidth.h
 * @hooks:	who is told and asked, NULL for nobody
 * @metrics:	who has something for /metrics; others may register
 * @meter:	what is counted for it, see meter.h
 * @evacs:	list of evacuations, newest first
 * @store:	writes descriptions that clients have added; NULL before the first
 * @journals:	syncs those of jobs; NULL before the start
 * @audit:	who has asked for what, and what became of guests
 * @events:	what clients are told of by GET /v1/events; NULL before there are clients
 * @supervisor:	the service manager, if there is one
 * @started_us:	clock_wall_us() of the start
 */
struct source {
	struct loop *loop;
	struct conf_source conf;
	struct tls_ctx *tls;
	struct uffd_caps caps;
	struct error uffd_error;
	struct attach *attach;
	struct rest_server *rest;
	struct rest_events *events;
	struct source_guest *guests;
	struct migration *migrations;
	struct budget *budget;
	struct hooks *hooks;
	struct metrics_registry *metrics;
	struct meter *meter;
	struct evac *evacs;
	struct guests_store *store;
	struct journal_syncer *journals;
	struct audit *audit;
	struct supervisor *supervisor;
	uint64_t started_us;
};

/**
 * source_serve() - run the daemon until SIGTERM or SIGINT
 * @config:	path of the configuration
 *
 * Return: exit code of the process
 */
int source_serve(const char *config);

/**
 * source_start() - what source_serve() does before it runs the loop
 * @s:		conf and loop are there
 *
 * Return: 0, or -errno with @err filled; source_stop() in either case
 */
int source_start(struct source *s, struct error *err);
/** source_stop() - let go of everything, conf and loop included; guests that were not handed over go on */
void source_stop(struct source *s);

/** api_listen() - open the REST interface (api.c). Return: 0, or -errno with @err filled */
int api_listen(struct source *s, struct error *err);

#endif
