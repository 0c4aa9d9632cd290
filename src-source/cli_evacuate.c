/* SPDX-License-Identifier: Apache-2.0 */
/* decant evacuate, cordon, uncordon. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli_priv.h"
#include "evac.h"
#include "util/cleanup.h"
#include "util/clock.h"

/* How often it is looked at. */
#define POLL_US 300000

/* --- asking for it --- */

static int read_addresses(struct cli *c, json_t *ret)
{
	size_t i;
	json_t *one;

	if (!json_array_size(json_object_get(c->opts, "--to")))
		return cli_error(CLI_USAGE, "evacuate", "--to HOST[:PORT] is missing");
	json_array_foreach(json_object_get(c->opts, "--to"), i, one) {
		char addr[300];
		int r = cli_address(json_string_value(one), "evacuate", addr, sizeof(addr));

		if (r)
			return r;
		json_array_append_new(ret, json_string(addr));
	}
	return CLI_OK;
}

static int read_concurrency(struct cli *c, json_t *body)
{
	const char *s = json_string_value(json_object_get(c->opts, "--concurrency"));
	char *end;
	long n;

	if (!s)
		return CLI_OK;
	n = strtol(s, &end, 10);
	if (!*s || *end || n < 1 || n > EVAC_CONCURRENCY_MAX)
		return cli_error(CLI_USAGE, "evacuate", "--concurrency: \"%s\" is not 1 to %d", s,
				 EVAC_CONCURRENCY_MAX);
	json_object_set_new(body, "concurrency", json_integer(n));
	return CLI_OK;
}

static int read_order(struct cli *c, json_t *body)
{
	json_t *order = json_object_get(c->opts, "--order");
	struct error err = {0};
	enum evac_order o;

	if (!order)
		return CLI_OK;
	if (evac_order_parse(json_string_value(order), &o, &err) < 0)
		return cli_error(CLI_USAGE, "evacuate", "--%s", err.msg);
	json_object_set(body, "order", order);
	return CLI_OK;
}

/* Of the tuning options, mode stands beside the others, and the bandwidth is that of all migrations together. */
static void move_member(json_t *from, json_t *to, const char *key)
{
	json_t *v = json_object_get(from, key);

	if (v)
		json_object_set(to, key, v);
	json_object_del(from, key);
}

static int request(struct cli *c, json_t *body)
{
	json_t *to = json_array();
	int r = read_addresses(c, to);

	json_object_set_new(body, "to", to);
	if (!r)
		r = read_concurrency(c, body);
	if (!r)
		r = read_order(c, body);
	if (r)
		return r;
	move_member(c->tuning, body, "mode");
	move_member(c->tuning, body, "bandwidth");
	if (json_object_size(c->tuning))
		json_object_set(body, "options", c->tuning);
	if (json_object_get(c->opts, "--dry-run"))
		json_object_set_new(body, "dry_run", json_true());
	return CLI_OK;
}

/* --- what is shown --- */

bool cli_job_ended(const char *phase)
{
	return cli_migration_ended(phase) || !strcmp(phase, "planned");
}

double cli_evac_done(const json_t *e)
{
	double total = cli_num(e, "totals.memory_bytes", 0);
	double left = cli_num(e, "totals.remaining_bytes", 0);

	return total > 0 && left <= total ? (total - left) / total : -1;
}

char *cli_evac_line(char *buf, size_t cap, const json_t *e, bool bar)
{
	double share = cli_evac_done(e), eta = cli_num(e, "totals.eta_s", -1);
	char drawn[CLI_BAR_MAX] = "", text[CLI_TEXT_MAX];
	size_t n;

	if (bar && share >= 0)
		cli_bar(drawn, share);
	n = (size_t)snprintf(buf, cap, "evacuation: %s %s%.0f of %.0f guests left, %.0f on the way",
			     cli_str(e, "phase") ?: "?", drawn, cli_num(e, "totals.moved", 0),
			     cli_num(e, "totals.guests", 0), cli_num(e, "totals.migrating", 0));
	if (n < cap && cli_num(e, "totals.remaining_bytes", 0) > 0)
		n += (size_t)snprintf(buf + n, cap - n, ", %s to send",
				      cli_size(text, cli_num(e, "totals.remaining_bytes", 0)));
	if (n < cap && eta > 0)
		snprintf(buf + n, cap - n, ", about %s", cli_duration(text, eta * 1e6));
	return buf;
}

static void guest_row(struct cli_table *t, const json_t *g)
{
	double bytes = cli_num(g, "memory_bytes", -1), dirty = cli_num(g, "dirty_bytes_per_s", -1);
	char size[CLI_TEXT_MAX] = "", writes[CLI_TEXT_MAX + 2] = "";
	const char *cells[] = {cli_str(g, "name"),    bytes < 0 ? NULL : cli_size(size, bytes),
			       cli_str(g, "to"),      writes,
			       cli_str(g, "outcome"), cli_str(g, "reason")};

	if (dirty >= 0) {
		cli_size(writes, dirty);
		strcat(writes, "/s");
	}
	cli_table_row(t, cells);
}

static int print_table(const json_t *e)
{
	static const char *const head[] = {"GUEST", "MEMORY", "TO", "WRITES", "OUTCOME", "REASON"};
	struct cli_table *t = cli_table_new(ARRAY_SIZE(head), 1u << 1 | 1u << 3);
	size_t i;
	json_t *g;

	cli_table_row(t, head);
	json_array_foreach(json_object_get(e, "guests"), i, g)
		guest_row(t, g);
	return cli_table_print(t);
}

static void print_destinations(const json_t *e)
{
	size_t i;
	json_t *d;

	json_array_foreach(json_object_get(e, "destinations"), i, d) {
		const char *why = cli_str(d, "reason.message");

		if (why)
			printf("%s %s\n", cli_str(d, "to") ?: "?", why);
	}
}

static void print_plan(const json_t *e)
{
	char size[CLI_TEXT_MAX], rate[CLI_TEXT_MAX], time[CLI_TEXT_MAX];

	print_table(e);
	print_destinations(e);
	printf("%s to move at %s (%s): about %s\n",
	       cli_size(size, cli_num(e, "totals.remaining_bytes", 0)),
	       cli_rate(rate, cli_num(e, "totals.rate_bytes_per_s", 0)),
	       cli_str(e, "totals.rate_from") ?: "?",
	       cli_duration(time, cli_num(e, "totals.eta_s", 0) * 1e6));
}

static void print_summary(const json_t *e)
{
	double moved = cli_num(e, "totals.moved", 0), all = cli_num(e, "totals.guests", 0);
	char size[CLI_TEXT_MAX];

	if (moved < all)
		print_table(e);
	printf("%.0f of %.0f guests have left, %s sent; the host stays cordoned until decant "
	       "uncordon\n",
	       moved, all, cli_size(size, cli_num(e, "totals.sent_bytes", 0)));
}

/* --- waiting --- */

/**
 * struct waiting - what is remembered between two looks
 * @seen:	object name -> outcome as it was shown
 * @phase:	as it was shown
 * @away_us:	see cli_poll()
 * @stuck_us:	since when nobody moves whose fate is known; 0 if somebody does
 */
struct waiting {
	struct cli_progress progress;
	json_t *seen;
	char phase[32];
	uint64_t away_us;
	bool told;
	uint64_t stuck_us;
};

static void show_guest(struct waiting *w, const json_t *g)
{
	const char *name = cli_str(g, "name") ?: "?", *outcome = cli_str(g, "outcome") ?: "?";
	const char *was = json_string_value(json_object_get(w->seen, name));
	const char *to = cli_str(g, "to"), *why = cli_str(g, "reason");

	if (was && !strcmp(was, outcome))
		return;
	json_object_set_new(w->seen, name, json_string(outcome));
	if (!was && !strcmp(outcome, "waiting"))
		return;
	cli_progress_show(&w->progress, true, "%s: %s%s%s%s%s", name, outcome, to ? " to " : "",
			  to ? to : "", why ? ": " : "", why ? why : "");
}

static void show(struct waiting *w, const json_t *e)
{
	const char *phase = cli_str(e, "phase") ?: "?";
	char line[240];
	size_t i;
	json_t *g;

	if (strcmp(phase, w->phase) != 0 && !cli_job_ended(phase))
		cli_progress_show(&w->progress, true, "evacuation: %s", phase);
	snprintf(w->phase, sizeof(w->phase), "%s", phase);
	if (strcmp(phase, "planned") != 0)
		json_array_foreach(json_object_get(e, "guests"), i, g)
			show_guest(w, g);
	if (!cli_job_ended(phase))
		cli_progress_show(&w->progress, false, "%s",
				  cli_evac_line(line, sizeof(line), e, w->progress.tty));
}

/* Nobody is left but those of whom only the destination, or an operator, can say what becomes of them. */
static bool stuck(const struct cli *c, struct waiting *w, const json_t *e)
{
	size_t i, open = 0, doubt = 0;
	json_t *g;

	json_array_foreach(json_object_get(e, "guests"), i, g) {
		const char *o = cli_str(g, "outcome") ?: "", *p = cli_str(g, "phase") ?: "";

		open += !strcmp(o, "waiting") || !strcmp(o, "migrating");
		doubt +=
			!strcmp(o, "migrating") && (!strcmp(p, "in-doubt") || !strcmp(p, "paused"));
	}
	if (!doubt || doubt < open)
		w->stuck_us = 0;
	else if (!w->stuck_us)
		w->stuck_us = clock_us();
	return w->stuck_us && !json_object_get(c->opts, "--to-the-end") &&
	       clock_us() - w->stuck_us >= c->patience_s * UINT64_C(1000000);
}

static int outcome(const char *what, const json_t *e)
{
	const char *phase = cli_str(e, "phase") ?: "?", *why = cli_str(e, "error.message");

	if (!strcmp(phase, "completed"))
		return CLI_OK;
	if (!strcmp(phase, "planned") && cli_num(e, "totals.unplaced", 0) == 0)
		return CLI_OK;
	if (!strcmp(phase, "planned"))
		return cli_error(CLI_FAILED, what, "%.0f guests would stay",
				 cli_num(e, "totals.unplaced", 0));
	if (!cli_job_ended(phase))
		return cli_error(
			CLI_FAILED, what,
			"what is left is in doubt or waits for its destination: see decant "
			"status; the evacuation goes on");
	return cli_error(CLI_FAILED, what, "%s%s%s", phase, why ? ": " : "", why ? why : "");
}

static void tell_away(struct waiting *w, unsigned int patience_s)
{
	if (w->away_us && !w->told)
		cli_progress_show(&w->progress, true,
				  "the agent is away; waiting up to %u s for it", patience_s);
	w->told = w->away_us;
}

int cli_evac_wait(struct cli *c, const char *what, json_t **e)
{
	CLEANUP_FREE char *path = cli_path(CLI_EVACUATIONS, cli_str(*e, "id") ?: "", NULL);
	struct waiting w = {.seen = json_object()};
	int r = path ? CLI_OK : cli_error(CLI_FAILED, what, "out of memory");
	json_t *newer;

	cli_progress_init(&w.progress);
	while (!r) {
		show(&w, *e);
		if (cli_job_ended(w.phase) || stuck(c, &w, *e))
			break;
		usleep(POLL_US);
		r = cli_poll(c, path, what, &w.away_us, &newer);
		tell_away(&w, c->patience_s);
		if (newer) {
			json_decref(*e);
			*e = newer;
		}
	}
	cli_progress_end(&w.progress);
	json_decref(w.seen);
	return r ? r : outcome(what, *e);
}

static json_t *under_way(const json_t *all)
{
	json_t *e;
	size_t i;

	json_array_foreach(all, i, e)
		if (!cli_job_ended(cli_str(e, "phase") ?: ""))
			return json_incref(e);
	return NULL;
}

/*
 * Whoever stops this host next must not do it while pages of guests that run elsewhere are only here. What the
 * evacuation that was under way could not move is this one's to try.
 */
static int wait_for_other(struct cli *c)
{
	json_t *all = NULL, *e;
	int r = cli_list(c, CLI_EVACUATIONS, "evacuate", &all);

	if (r)
		return r;
	e = under_way(all);
	json_decref(all);
	if (e)
		r = cli_evac_wait(c, "evacuate", &e);
	json_decref(e);
	return r == CLI_UNREACHABLE ? r : CLI_OK;
}

int cli_evacuate(struct cli *c)
{
	json_t *body = json_object(), *e = NULL;
	bool dry = json_object_get(c->opts, "--dry-run");
	int r = request(c, body);

	if (!r && c->wait && !dry && json_object_get(c->opts, "--to-the-end"))
		r = wait_for_other(c);
	if (!r)
		r = cli_call(c, "POST", CLI_EVACUATIONS, body, "evacuate", &e);
	json_decref(body);
	if (r)
		return r;
	if (c->wait || dry)
		r = cli_evac_wait(c, "evacuate", &e);
	if (c->json && r != CLI_UNREACHABLE)
		cli_print_json(e);
	else if (!c->json && dry && r != CLI_UNREACHABLE)
		print_plan(e);
	else if (!c->json && c->wait && r != CLI_UNREACHABLE)
		print_summary(e);
	else if (!c->json && r != CLI_UNREACHABLE)
		printf("%s: the host is cordoned and evacuated, %s\n", cli_str(e, "id") ?: "?",
		       cli_str(e, "phase") ?: "started");
	json_decref(e);
	return r;
}

/* --- the cordon --- */

static void print_cordon(const json_t *o)
{
	const char *why = cli_str(o, "dest.reason");
	double arriving = cli_num(o, "dest.arriving", 0) + cli_num(o, "dest.held", 0);

	if (!json_is_true(json_object_get(o, "cordoned"))) {
		puts("the host accepts guests");
		return;
	}
	printf("the host is cordoned since %s (%s)\n",
	       cli_str(o, "cordon.since") ?: "an unknown time",
	       cli_str(o, "cordon.by") ?: "unknown");
	if (arriving > 0)
		printf("%.0f guests that were coming in already go on to do so\n", arriving);
	if (why)
		printf("decant-dest of this host: %s\n", why);
}

static int order(struct cli *c, bool on)
{
	json_t *body = json_pack("{s:b}", "cordoned", on), *o = NULL;
	int r = cli_call(c, "PUT", "/v1/host/cordon", body, on ? "cordon" : "uncordon", &o);

	json_decref(body);
	if (r)
		return r;
	if (c->json)
		r = cli_print_json(o);
	else
		print_cordon(o);
	json_decref(o);
	return r;
}

int cli_cordon(struct cli *c)
{
	return order(c, true);
}

int cli_uncordon(struct cli *c)
{
	return order(c, false);
}
