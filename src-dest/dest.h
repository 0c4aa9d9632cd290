/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's context: passed to everything, so that no file has state of its own. */
#ifndef DECANT_DEST_H
#define DECANT_DEST_H

#include <stdbool.h>
#include <stdint.h>
#include "conf/conf_dest.h"
#include "guest/attach.h"
#include "history.h"
#include "launch.h"
#include "rest/rest_server.h"
#include "tls/tls_ctx.h"
#include "uffd/uffd.h"
#include "util/loop.h"

struct adopted;
struct adopt_qemu;
struct conn;
struct audit;
struct hooks;
struct journal_syncer;
struct import;
struct incoming;
struct listener;
struct meter;
struct metrics_registry;
struct micro;
struct resident;
struct rest_events;
struct sharing;
struct supervisor;
struct supervisor_fds;

/**
 * struct dest_reap - a process that is of no interest any more but must be reaped
 * @launch:	owned
 */
struct dest_reap {
	struct dest *d;
	struct launch *launch;
	struct dest_reap *next;
};

/**
 * struct dest - all of decant-dest; loop thread only
 * @loop:	the one loop
  * @said_us:	clock_us() when a connection was last left to write its last words; 0 for never
 * @conf:	of the configuration file
 * @tls:	for new connections; replaced on SIGHUP
 * @caps:	what this host's kernel can do, if @caps_ret is 0
 * @caps_ret, @caps_err: result of the probe (P1)
 * @history:	records of all incoming migrations
 * @attach:	where guests attach themselves
 * @listener:	where sources connect
 * @rest:	the REST server
 * @events:	what clients are told of by GET /v1/events; NULL before there are clients
 * @incomings:	sessions and guests that are not settled yet
 * @n_incomings: how many
 * @micros:	micro-VMs that are served out of images, or waited for
 * @imports:	images that are being made of files, newest first, and some that were
 * @residents:	guests that have arrived and stay here until decant-source has them
  * @adopted:	guests of an earlier life that are held
 * @adopt_qemus: QEMUs of an earlier life that are looked for
 * @sharings:	processes that map the memory of guests, too
 * @reaps:	processes to reap
 * @signals:	SIGTERM, SIGINT, SIGHUP
 * @journals:	syncs the records of incomings; NULL before the start
 * @audit:	who has asked for what, and what became of guests
 * @hooks:	who is told, NULL for nobody
 * @supervisor:	the service manager, if there is one
 * @handed:	what it has handed over, while the agent starts
 * @units:	starts guests in units, where this agent is one
 * @metrics:	who has something for /metrics; others may register
 * @meter:	what is counted for it, see meter.h
 * @ending:	dest_end() was called
 * @end_timer:	bounds it
 * @started_us:	clock_wall_us() of the start
 */
struct dest {
	struct loop *loop;
	uint64_t said_us;
	struct conf_dest conf;
	struct tls_ctx *tls;
	struct uffd_caps caps;
	int caps_ret;
	struct error caps_err;
	struct history *history;
	struct attach *attach;
	struct listener *listener;
	struct rest_server *rest;
	struct rest_events *events;
	struct incoming *incomings;
	unsigned int n_incomings;
	struct micro *micros;
	struct import *imports;
	struct resident *residents;
	struct adopted *adopted;
	struct adopt_qemu *adopt_qemus;
	struct sharing *sharings;
	struct dest_reap *reaps;
	struct event *signals[3];
	struct journal_syncer *journals;
	struct audit *audit;
	struct hooks *hooks;
	struct supervisor *supervisor;
	struct supervisor_fds *handed;
	struct launch_units *units;
	struct metrics_registry *metrics;
	struct meter *meter;
	bool ending;
	struct event *end_timer;
	uint64_t started_us;
};

/**
 * dest_serve() - be the daemon until a signal ends it
 * @config:	path of the configuration file
 *
 * Return: exit code of the contract; what went wrong was logged
 */
int dest_serve(const char *config);

/**
 * dest_start() - what dest_serve() does before it runs the loop
 * @d:		conf and loop are there
 *
 * Return: 0, or -errno with @err filled; dest_stop() in either case
 */
int dest_start(struct dest *d, struct error *err);
/** dest_stop() - let go of everything, conf and loop included; what guests need stays */
void dest_stop(struct dest *d);
/** dest_end() - begin an orderly end: what is before COMMIT is aborted, the rest is left held */
void dest_end(struct dest *d);
/** dest_maybe_ended() - to be called when an incoming is gone: stops the loop once nothing is left to
 * wait for */
void dest_maybe_ended(struct dest *d);
/** dest_close() - conn_close_when_sent(), and remember that it is under way */
void dest_close(struct dest *d, struct conn *c);
/** store_start() - make the folder of images, remove what an earlier life did not complete. Return: 0 or
 * -errno with @err filled */
int store_start(const struct dest *d, struct error *err);
/** store_list() - Return: new reference to an array of all stored images, NULL when they cannot be read */
json_t *store_list(const struct dest *d);
/** store_get() - Return: new reference to the object of one stored image, NULL if there is none */
json_t *store_get(const struct dest *d, const char *name);
/** dest_reap() - take over a process that nobody watches any more */
void dest_reap(struct dest *d, struct launch *launch);

#endif
