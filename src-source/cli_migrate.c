/* SPDX-License-Identifier: Apache-2.0 */
/* decant migrate, cancel, switchover; waiting for the end of a job. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli_priv.h"
#include "conf/conf_dest.h"
#include "util/cleanup.h"
#include "util/clock.h"

/* How often a migration is looked at. */
#define POLL_US 200000

/*
 * The port of "HOST:PORT" or "[IPV6]:PORT": behind the colon, NULL if there is none. Return: false
 * if @to has neither form, nor that of a host or an address alone
 */
static bool find_port(const char *to, const char **ret)
{
	const char *colon = strchr(to, ':'), *end = strchr(to, ']');

	*ret = NULL;
	if (*to == '[') {
		if (!end || (end[1] && end[1] != ':'))
			return false;
		*ret = end[1] ? end + 2 : NULL;
	} else if (colon && !strchr(colon + 1, ':')) {
		*ret = colon + 1;
	}
	return *to && *ret != to + 1;
}

static bool port_ok(const char *s)
{
	return strspn(s, "0123456789") == strlen(s) && strlen(s) <= 5 && atoi(s) > 0 &&
	       atoi(s) <= 65535;
}

/* Return: CLI_OK or CLI_USAGE; @buf is "host:port" */
int cli_address(const char *to, const char *what, char *buf, size_t cap)
{
	const char *port;
	int n;

	if (!find_port(to, &port) || (port && !port_ok(port)))
		return cli_error(CLI_USAGE, what, "--to: \"%s\" is not HOST[:PORT]", to);
	if (port)
		n = snprintf(buf, cap, "%s", to);
	else if (*to != '[' && strchr(to, ':'))
		n = snprintf(buf, cap, "[%s]:%d", to, CONF_DEFAULT_PORT);
	else
		n = snprintf(buf, cap, "%s:%d", to, CONF_DEFAULT_PORT);
	if ((size_t)n >= cap)
		return cli_error(CLI_USAGE, what, "--to: is too long");
	return CLI_OK;
}

/* The mode stands beside the options, not among them. */
static json_t *request(struct cli *c, const char *to)
{
	json_t *mode = json_incref(json_object_get(c->tuning, "mode"));

	json_object_del(c->tuning, "mode");
	return json_pack("{s:s, s:s, s:o*, s:O*}", "guest", c->args[0], "to", to, "mode", mode,
			 "options", json_object_size(c->tuning) ? c->tuning : NULL);
}

static void print_summary(const json_t *m)
{
	char line[240], text[CLI_TEXT_MAX];
	double faults = cli_num(m, "postcopy.faults", -1);
	double p99 = cli_num(m, "postcopy.latency_us.p99", -1);

	printf("%s runs on %s", cli_str(m, "guest") ?: "guest",
	       cli_str(m, "to") ?: "the other host");
	printf(": %s sent", cli_size(text, cli_num(m, "memory.sent_bytes", 0)));
	if (cli_num(m, "rate_bytes_per_s", 0) > 0)
		printf(" at %s", cli_rate(text, cli_num(m, "rate_bytes_per_s", 0)));
	snprintf(line, sizeof(line), ", stopped for %s",
		 cli_duration(text, cli_num(m, "downtime_us", 0)));
	fputs(line, stdout);
	if (faults >= 0)
		printf(", %.0f faults", faults);
	if (faults > 0 && p99 >= 0)
		printf(" (p99 %s)", cli_duration(text, p99));
	puts("");
}

int cli_migrate(struct cli *c)
{
	const char *to = json_string_value(json_object_get(c->opts, "--to"));
	json_t *body, *m = NULL;
	char addr[300], what[100];
	int r;

	if (!to)
		return cli_error(CLI_USAGE, "migrate", "--to HOST[:PORT] is missing");
	r = cli_address(to, "migrate", addr, sizeof(addr));
	if (r)
		return r;
	snprintf(what, sizeof(what), "migrate %s", c->args[0]);
	body = request(c, addr);
	if (!body)
		return cli_error(CLI_USAGE, what, "the name is no text");
	r = cli_call(c, "POST", "/v1/migrations", body, what, &m);
	json_decref(body);
	if (r)
		return r;
	if (c->wait)
		r = cli_wait(c, "/v1/migrations", what, &m);
	if (c->json && r != CLI_UNREACHABLE && m)
		cli_print_json(m);
	else if (!c->json && !c->wait)
		printf("%s: %s to %s, %s\n", cli_str(m, "id") ?: "?", c->args[0], addr,
		       cli_str(m, "phase") ?: "started");
	else if (!c->json && !r)
		print_summary(m);
	json_decref(m);
	return r;
}

bool cli_migration_ended(const char *phase)
{
	return !strcmp(phase, "completed") || !strcmp(phase, "cancelled") ||
	       !strcmp(phase, "failed");
}

#define BAR 16

void cli_bar(char bar[static CLI_BAR_MAX], double share)
{
	int full = (int)(share * BAR);

	bar[0] = '[';
	for (int i = 0; i < BAR; i++)
		bar[1 + i] = i < full ? '#' : '.';
	strcpy(bar + 1 + BAR, "] ");
}

double cli_migration_done(const json_t *m)
{
	double total = cli_num(m, "memory.total_bytes", 0);
	double left = cli_num(m, "memory.remaining_bytes", 0);

	if (cli_num(m, "memory.sent_bytes", 0) <= 0 && cli_num(m, "memory.zero_pages", 0) <= 0)
		return -1;
	return total > 0 && left <= total ? (total - left) / total : -1;
}

char *cli_migration_line(char *buf, size_t cap, const json_t *m, bool bar)
{
	double share = cli_migration_done(m);
	double rate = cli_num(m, "rate_bytes_per_s", 0), eta = cli_num(m, "eta_s", -1);
	double passes = cli_num(m, "memory.passes", 0);
	char drawn[CLI_BAR_MAX] = "", text[CLI_TEXT_MAX];
	size_t n;

	n = (size_t)snprintf(buf, cap, "%s: %s", cli_str(m, "guest") ?: "guest",
			     cli_str(m, "phase") ?: "?");
	if (share < 0)
		return buf;
	if (bar)
		cli_bar(drawn, share);
	if (n < cap)
		n += (size_t)snprintf(buf + n, cap - n, " %s%.0f%% of %s", drawn, share * 100,
				      cli_size(text, cli_num(m, "memory.total_bytes", 0)));
	if (n < cap && rate > 0)
		n += (size_t)snprintf(buf + n, cap - n, ", %s", cli_rate(text, rate));
	if (n < cap && eta >= 0)
		n += (size_t)snprintf(buf + n, cap - n, ", %s to go",
				      cli_duration(text, eta * 1e6));
	if (n < cap && passes > 0)
		snprintf(buf + n, cap - n, ", pass %.0f", passes);
	return buf;
}

/**
 * struct waiting - what is remembered between two looks at a migration
 * @phase:	as it was shown last
 * @away_us:	see cli_poll()
 * @told:	that the agent is away was shown
 * @doubt_us:	since when it has been in doubt, 0 if it is not
 */
struct waiting {
	struct cli_progress progress;
	char phase[32];
	uint64_t away_us;
	bool told;
	uint64_t doubt_us;
};

static void show(struct waiting *w, const json_t *m)
{
	const char *phase = cli_str(m, "phase") ?: "?";
	char line[240];

	if (strcmp(phase, w->phase) != 0) {
		const char *detail = cli_str(m, "state_detail");

		snprintf(w->phase, sizeof(w->phase), "%s", phase);
		if (detail && !strcmp(detail, phase))
			detail = NULL;
		cli_progress_show(&w->progress, true, "%s: %s%s%s%s",
				  cli_str(m, "guest") ?: "guest", phase, detail ? " (" : "",
				  detail ? detail : "", detail ? ")" : "");
	}
	if (!cli_migration_ended(phase))
		cli_progress_show(&w->progress, false, "%s",
				  cli_migration_line(line, sizeof(line), m, w->progress.tty));
}

/* Return: has it been in doubt for longer than we stay? */
static bool doubted(struct waiting *w, unsigned int patience_s)
{
	if (strcmp(w->phase, "in-doubt") != 0)
		w->doubt_us = 0;
	else if (!w->doubt_us)
		w->doubt_us = clock_us();
	return w->doubt_us && clock_us() - w->doubt_us >= patience_s * UINT64_C(1000000);
}

static int outcome(const char *what, const json_t *m)
{
	const char *phase = cli_str(m, "phase") ?: "?";
	const char *code = cli_str(m, "error.code"), *message = cli_str(m, "error.message");

	if (!strcmp(phase, "completed"))
		return CLI_OK;
	if (!strcmp(phase, "in-doubt"))
		return cli_error(
			CLI_FAILED, what,
			"in doubt: the destination does not say whether it runs the guest; "
			"it is asked again and again, see decant status %s; if it is gone for "
			"good: decant resolve %s --keep source|destination",
			cli_str(m, "id") ?: "", cli_str(m, "id") ?: "");
	return cli_error(json_is_true(json_object_get(m, "refused")) ? CLI_REFUSED : CLI_FAILED,
			 what, "%s%s%s%s%s%s", phase, message ? ": " : "", message ? message : "",
			 code ? " (" : "", code ? code : "", code ? ")" : "");
}

static void tell_away(struct waiting *w, unsigned int patience_s)
{
	if (w->away_us && !w->told)
		cli_progress_show(&w->progress, true,
				  "the agent is away; waiting up to %u s for it", patience_s);
	w->told = w->away_us;
}

int cli_wait(struct cli *c, const char *jobs, const char *what, json_t **m)
{
	CLEANUP_FREE char *path = cli_path(jobs, cli_str(*m, "id") ?: "", NULL);
	struct waiting w = {0};
	int r = path ? CLI_OK : cli_error(CLI_FAILED, what, "out of memory");
	json_t *newer;

	cli_progress_init(&w.progress);
	while (!r) {
		show(&w, *m);
		if (cli_migration_ended(w.phase) || doubted(&w, c->patience_s))
			break;
		usleep(POLL_US);
		r = cli_poll(c, path, what, &w.away_us, &newer);
		tell_away(&w, c->patience_s);
		if (newer) {
			json_decref(*m);
			*m = newer;
		}
	}
	cli_progress_end(&w.progress);
	return r ? r : outcome(what, *m);
}

/* POST …/{id}/@verb with @body, which may be NULL, of a job in the list @jobs. */
static int order(struct cli *c, const char *verb, const char *jobs, const json_t *m, json_t *body)
{
	char suffix[40], what[100];
	json_t *after = NULL;
	char *path;
	int r;

	snprintf(suffix, sizeof(suffix), "/%s", verb);
	snprintf(what, sizeof(what), "%s %s", verb, c->args[0]);
	path = cli_path(jobs, cli_str(m, "id") ?: "", suffix);
	r = path ? cli_call(c, "POST", path, body, what, &after)
		 : cli_error(CLI_FAILED, what, "out of memory");
	free(path);
	if (!r && c->json)
		r = cli_print_json(after);
	else if (!r)
		printf("%s: %s\n", cli_str(after, "id") ?: c->args[0],
		       cli_str(after, "phase") ?: "accepted");
	json_decref(after);
	return r;
}

/* The ids of all may be abbreviated. */
int cli_cancel(struct cli *c)
{
	const char *jobs;
	json_t *m;
	int r = cli_find_job(c, c->args[0], &jobs, &m);

	if (r)
		return r;
	r = order(c, "cancel", jobs, m, NULL);
	json_decref(m);
	return r;
}

static int order_migration(struct cli *c, const char *verb, json_t *body)
{
	json_t *m;
	int r = cli_find(c, "/v1/migrations", "migration", c->args[0], &m);

	if (r)
		return r;
	r = order(c, verb, "/v1/migrations", m, body);
	json_decref(m);
	return r;
}

int cli_switchover(struct cli *c)
{
	return order_migration(c, "switchover", NULL);
}

int cli_recover(struct cli *c)
{
	const char *to = json_string_value(json_object_get(c->opts, "--to"));
	char addr[300];
	json_t *body;
	int r = to ? cli_address(to, "recover", addr, sizeof(addr)) : CLI_OK;

	if (r)
		return r;
	body = json_pack("{s:s*}", "to", to ? addr : NULL);
	r = body ? order_migration(c, "recover", body)
		 : cli_error(CLI_FAILED, "recover", "out of memory");
	json_decref(body);
	return r;
}
