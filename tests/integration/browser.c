/* SPDX-License-Identifier: Apache-2.0 */
/* The operator's page in a real browser, with real agents and guests; what is looked at is in tests/browser. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lib/hook_server.h"
#include "lib/lab_relay.h"
#include "lib/lab_test.h"

TestSuite(browser, .timeout = 240);

#define OP_TOKEN   "9f86d081884c7d659a2feaa0c55ad015"
#define READ_TOKEN "reader-token-1234"

/* What the gate says of db: markup, if anybody took it for that. */
static const struct hook_say gate[] = {
	{.when = "\"db\"",
	 .body = "{\"decision\": \"refuse\", \"reason\": \"<script>document.title='owned'</script>"
		 "<img src=x onerror=\\\"document.title='owned'\\\">\\\"'\"}"},
	{.body = "{\"decision\": \"allow\"}"},
};

/* @hook: port of the gate, 0: none */
static struct lab_host *host_with_page(struct lab *lab, const char *name, uint16_t port,
				       unsigned int hook)
{
	char conf[1400], tokens[LAB_PATH_MAX + 16], gates[200] = "";
	bool source = *name == 'a';

	snprintf(tokens, sizeof(tokens), "%s/tokens", lab->root);
	lab_write_file(lab, tokens, "operator ci " OP_TOKEN "\nreader prom " READ_TOKEN "\n");
	chmod(tokens, 0600);
	if (hook)
		snprintf(gates, sizeof(gates),
			 ", \"bandwidth\": 8000000, \"hooks\": [{\"url\": "
			 "\"http://127.0.0.1:%u/\", \"gate\": true, \"name\": \"cloud\"}]",
			 hook);
	snprintf(conf, sizeof(conf),
		 "{\"api\": {\"listen\": [\"unix:%s/%s/%s.sock\", \"http://127.0.0.1:%u\"], "
		 "\"token_file\": \"%s\"}%s}",
		 lab->root, name, source ? "source" : "dest", port, tokens, gates);
	return lab_host_start(lab, &(struct lab_host_opts){.name = name,
							   .source_conf = source ? conf : NULL,
							   .dest_conf = source ? NULL : conf});
}

static bool have(const char *program)
{
	char path[100];

	snprintf(path, sizeof(path), "/usr/bin/%s", program);
	return !access(path, X_OK);
}

/* Pictures are kept where DECANT_SHOTS says. */
Test(browser, an_operators_day)
{
	lab_test_long();
	struct hook_server *server;
	struct lab_guest *web, *db;
	struct lab_host *a, *b;
	char url[64], dest_url[64], *err = NULL;
	struct lab *lab;
	uint16_t port, dest_port;
	int r;

	if (!have("chromium") || !have("chromedriver"))
		cr_skip_test("Debian's packages chromium and chromium-driver are not installed");
	server = hook_server_start(NULL, NULL);
	hook_server_script(server, gate, LAB_COUNT(gate));
	lab = lab_new(lab_test_failed);
	port = lab_free_port(lab);
	a = host_with_page(lab, "a", port, hook_server_port(server));
	dest_port = lab_free_port(lab);
	b = host_with_page(lab, "b", dest_port, 0);
	web = lab_guest_start(
		a, &(struct lab_guest_opts){.name = "web", .mb = 32, .threads = 1, .writes = 50});
	db = lab_guest_start(a, &(struct lab_guest_opts){.name = "db", .mb = 4, .threads = 1});
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/", port);
	snprintf(dest_url, sizeof(dest_url), "http://127.0.0.1:%u/", dest_port);
	r = lab_run(lab, NULL, 120000, NULL, &err,
		    (const char *const[]){"/usr/bin/python3", "tests/browser/page", url, dest_url,
					  OP_TOKEN, READ_TOKEN, b->to, getenv("DECANT_SHOTS"),
					  NULL});
	lab_check(lab, r == 0, "%s", err);
	lab_guest_arrived(web, b);
	lab_guest_verified(db);
	free(err);
	lab_end(lab);
	hook_server_stop(server);
}

static bool in_postcopy(struct lab_host *a, const char *guest)
{
	json_t *job = lab_job_newest(a);
	bool is = job && !strcmp(lab_str(a->lab, job, "guest"), guest) &&
		  !strcmp(lab_str(a->lab, job, "phase"), "postcopy");

	json_decref(job);
	return is;
}

/* In post-copy, by a way that is slow enough for it to be lost in the middle. */
static struct lab_proc *send_slowly(struct lab_host *a, struct lab_host *b, struct lab_guest *g,
				    const char *rate)
{
	struct lab_move move = {.mode = "postcopy", .args = {"--bandwidth", rate}};
	struct lab_proc *p = lab_migrate_begin(a, b, g, &move);

	lab_until(a->lab, 20000, in_postcopy(a, g->name), "%s is not on its way", g->name);
	return p;
}

/* Everybody hears of two copies, and the one there is for an operator to end. */
static void two_copies(struct lab_host *a, struct lab_host *b, struct lab_guest *g)
{
	lab_until(a->lab, 30000, lab_proc_said(a->lab, a->source, "CONFLICT: migration "),
		  "the source is silent");
	lab_until(a->lab, 10000, lab_proc_said(a->lab, b->dest, "CONFLICT: guest "),
		  "the destination is silent");
	kill(lab_guest_pid(g, b), SIGKILL);
	lab_until(a->lab, 10000, !lab_guest_pid(g, b), "it lives");
}

static struct lab_guest *small(struct lab_host *h, const char *name)
{
	return lab_guest_start(
		h, &(struct lab_guest_opts){.name = name, .mb = 16, .threads = 1, .writes = 50});
}

/* What nobody can decide but an operator: another way, what is given up, what is started out of an image. */
Test(browser, when_something_has_gone_wrong)
{
	lab_test_long();
	char url[64], dest_url[64], direct[64], *err = NULL;
	struct lab_guest *web, *db, *old;
	struct lab_proc *first, *second;
	struct lab_relay *relay;
	uint16_t port, dest_port;
	struct lab_host *a, *b;
	struct lab *lab;
	int r;

	if (!have("chromium") || !have("chromedriver"))
		cr_skip_test("Debian's packages chromium and chromium-driver are not installed");
	lab = lab_new(lab_test_failed);
	port = lab_free_port(lab);
	a = host_with_page(lab, "a", port, 0);
	dest_port = lab_free_port(lab);
	b = host_with_page(lab, "b", dest_port, 0);
	snprintf(direct, sizeof(direct), "%s", b->to);
	old = small(a, "old");
	r = lab_decant(a, 30000, NULL, &err,
		       (const char *[]){"snapshot", "old", "--to", direct, "--name", "monday",
					"--wait", NULL});
	lab_check(lab, r == 0, "%s", err);
	free(err);
	kill(old->proc->pid, SIGTERM);
	lab_proc_wait(lab, old->proc, 5000);
	relay = lab_relay_new(b);
	web = small(a, "web");
	db = small(a, "db");
	first = send_slowly(a, b, web, "16Mbit");
	second = send_slowly(a, b, db, "4Mbit");
	lab_relay_refuse(relay, true);
	lab_relay_cut(relay);
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/", port);
	snprintf(dest_url, sizeof(dest_url), "http://127.0.0.1:%u/", dest_port);
	r = lab_run(lab, NULL, 120000, NULL, &err,
		    (const char *const[]){"/usr/bin/python3", "tests/browser/doubt", url, dest_url,
					  OP_TOKEN, direct, getenv("DECANT_SHOTS"), NULL});
	lab_check(lab, r == 0, "%s", err);
	free(err);
	lab_guest_arrived(web, b);
	lab_guest_arrived(old, b);
	lab_check(lab, lab_proc_wait(lab, first, 10000) == 0, "web's command");
	lab_check(lab, lab_proc_wait(lab, second, 10000) == 1, "db's command");
	lab_relay_refuse(relay, false);
	two_copies(a, b, db);
	lab_guest_verified(db);
	lab_relay_free(relay);
	lab_end(lab);
}
