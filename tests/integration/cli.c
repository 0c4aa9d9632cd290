/* SPDX-License-Identifier: Apache-2.0 */
/* The programs as an operator's scripts see them: exit codes, one line of error, one JSON document. */
#include <stdlib.h>
#include <string.h>
#include "lib/lab_test.h"

TestSuite(cli, .timeout = 120);

static int run_program(struct lab *lab, const char *program, char **out, char **err,
		       const char *const args[])
{
	char path[LAB_PATH_MAX + 32];
	const char *argv[16] = {path};
	size_t n = 1;

	snprintf(path, sizeof(path), "%s/%s", lab->build, program);
	while (*args)
		argv[n++] = *args++;
	return lab_run(lab, NULL, 20000, out, err, argv);
}

static unsigned int count_lines(const char *s)
{
	unsigned int n = 0;

	for (; *s; s++)
		n += *s == '\n';
	return n;
}

Test(cli, help_and_version)
{
	static const char *const programs[] = {"decant-source", "decant-dest", "decant"};
	struct lab *lab = lab_new(lab_test_failed);

	for (size_t i = 0; i < LAB_COUNT(programs); i++) {
		char *out;

		lab_check(lab,
			  run_program(lab, programs[i], &out, NULL,
				      (const char *[]){"--help", NULL}) == 0,
			  "%s --help", programs[i]);
		lab_check(lab, strstr(out, "serve") && count_lines(out) > 5, "%s", out);
		free(out);
		lab_check(lab,
			  run_program(lab, programs[i], &out, NULL,
				      (const char *[]){"--version", NULL}) == 0,
			  "%s --version", programs[i]);
		lab_check(lab, strstr(out, DECANT_VERSION), "%s", out);
		free(out);
	}
	lab_end(lab);
}

struct wrong_use {
	const char *program;
	const char *args[8];
	int status;
	const char *names;
};

static const struct wrong_use wrong_uses[] = {
	{"decant", {NULL}, 2, ""},
	{"decant", {"fly"}, 2, "fly"},
	{"decant", {"migrate"}, 2, ""},
	{"decant", {"migrate", "guest"}, 2, "--to"},
	{"decant", {"migrate", "guest", "--to", "h:1", "--mode", "fast"}, 2, "fast"},
	{"decant", {"migrate", "guest", "--to", "h:1", "--colour", "red"}, 2, "--colour"},
	{"decant", {"migrate", "guest", "--to", "h:1", "--bandwidth", "much"}, 2, "much"},
	{"decant", {"status", "--api", "unix:/nonexistent/sock"}, 4, "/nonexistent/sock"},
	{"decant", {"guests", "--api", "carrier:pigeon"}, 2, "carrier:pigeon"},
	{"decant", {"evacuate"}, 2, "--to"},
	{"decant-dest", {"incoming", "--api", "unix:/nonexistent/sock"}, 4, "/nonexistent/sock"},
	{"decant-source", {"serve"}, 2, "--config"},
	{"decant-source", {"serve", "--config", "/nonexistent/file"}, 0, "/nonexistent/file"},
	{"decant-dest", {"serve", "--config", "/nonexistent/file"}, 0, "/nonexistent/file"},
};

Test(cli, wrong_use)
{
	struct lab *lab = lab_new(lab_test_failed);

	for (size_t i = 0; i < LAB_COUNT(wrong_uses); i++) {
		const struct wrong_use *u = &wrong_uses[i];
		char *out, *err;
		int status = run_program(lab, u->program, &out, &err, u->args);

		lab_check(lab, u->status ? status == u->status : status != 0,
			  "%s %s: status %d: %s", u->program, u->args[0] ? u->args[0] : "", status,
			  err);
		lab_check(lab, strstr(err, u->names), "%s: does not name %s: %s", u->program,
			  u->names, err);
		lab_check(lab, !*out, "%s: printed %s", u->program, out);
		if (*u->names)
			lab_check(lab, strncmp(err, "decant", 6) == 0 && strstr(err, ": "),
				  "not \"decant: WHAT: WHY\": %s", err);
		free(out);
		free(err);
	}
	lab_end(lab);
}

/* A key that nobody knows is an error that names it, wherever it stands. */
Test(cli, unknown_keys)
{
	static const struct {
		const char *agent;
		const char *conf;
		const char *names;
	} confs[] = {
		{"source", "{\"colour\": 1}", "colour"},
		{"source", "{\"tls\": {\"colour\": 1}}", "colour"},
		{"source", "{\"defaults\": {\"colour\": 1}}", "colour"},
		{"source",
		 "{\"guests\": [{\"name\": \"g\", \"driver\": \"native\", \"colour\": 1}]}",
		 "colour"},
		{"dest", "{\"colour\": 1}", "colour"},
		{"dest", "{\"limits\": {\"colour\": 1}}", "colour"},
		{"dest",
		 "{\"launchers\": {\"x\": {\"driver\": \"native\", \"argv\": [\"/x\"], "
		 "\"colour\": 1}}}",
		 "colour"},
		{"dest", "{\"allow\": [\"host-a\"]}", "host-a"},
	};
	struct lab *lab = lab_new(lab_test_failed);
	char name[4] = "h0";

	for (size_t i = 0; i < LAB_COUNT(confs); i++) {
		struct lab_host_opts opts = {.name = name, .identity = "host-a"};
		char program[LAB_PATH_MAX + 32], file[32], *err;
		struct lab_host *h;
		int status;

		name[1] = (char)('0' + i);
		if (!strcmp(confs[i].agent, "source"))
			opts.source_conf = confs[i].conf;
		else
			opts.dest_conf = confs[i].conf;
		h = lab_host_new(lab, &opts);
		snprintf(program, sizeof(program), "%s/decant-%s", lab->build, confs[i].agent);
		snprintf(file, sizeof(file), "%s.json", confs[i].agent);
		status = lab_run(lab, NULL, 10000, NULL, &err,
				 (const char *[]){program, "serve", "--config",
						  lab_host_path(h, file), NULL});
		lab_check(lab, status != 0, "%s was taken", confs[i].conf);
		lab_check(lab, strstr(err, confs[i].names) && strstr(err, file), "%s: %s",
			  confs[i].conf, err);
		free(err);
	}
	lab_end(lab);
}

Test(cli, guests)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a =
		lab_host_start(lab, &(struct lab_host_opts){.name = "a", .no_dest = true});
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 8});
	json_t *list;
	char *out;

	lab_check(lab, lab_decant(a, 10000, &out, NULL, (const char *[]){"guests", NULL}) == 0,
		  "guests");
	lab_check(lab, strstr(out, g->name), "%s", out);
	free(out);
	lab_check(lab,
		  lab_decant(a, 10000, &out, NULL, (const char *[]){"--json", "guests", NULL}) == 0,
		  "guests --json");
	list = json_loads(out, 0, NULL);
	lab_check(lab, list, "not JSON: %s", out);
	json_decref(list);
	free(out);
	lab_check(lab,
		  lab_decant(a, 10000, NULL, NULL, (const char *[]){"remove", "nobody", NULL}) == 3,
		  "nobody was removed");
	lab_check(lab,
		  lab_decant(a, 10000, NULL, NULL,
			     (const char *[]){"migrate", "nobody", "--to", "h:1", NULL}) == 3,
		  "nobody was migrated");
	lab_guest_verified(g);
	lab_end(lab);
}

/* Refused by the other host, in the middle of the setup: not a failure, and the guest runs on. */
Test(cli, refused_by_the_destination_is_3)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a = lab_host_start(lab, &(struct lab_host_opts){.name = "a"});
	struct lab_host *b = lab_host_start(
		lab,
		&(struct lab_host_opts){.name = "b",
					.no_source = true,
					.dest_conf = "{\"limits\": {\"memory_bytes\": 1048576}}"});
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 8});
	json_t *job = lab_migrate(
		a, b, g, &(struct lab_move){.exit = 3, .phase = "failed", .code = "limit-memory"});

	lab_check(lab, json_is_true(lab_at(job, "refused")), "it does not say that it was refused");
	json_decref(job);
	lab_guest_verified(g);
	lab_end(lab);
}

Test(cli, check)
{
	static const char *const programs[] = {"decant", "decant-dest"};
	struct lab *lab = lab_new(lab_test_failed);

	for (size_t i = 0; i < LAB_COUNT(programs); i++) {
		json_t *o;
		char *out;

		lab_check(lab,
			  run_program(lab, programs[i], &out, NULL,
				      (const char *[]){"check", NULL}) == 0,
			  "%s check", programs[i]);
		lab_check(lab, strstr(out, "userfaultfd") && strstr(out, "TLS"), "%s", out);
		free(out);
		lab_check(lab,
			  run_program(lab, programs[i], &out, NULL,
				      (const char *[]){"check", "--json", NULL}) == 0,
			  "%s check --json", programs[i]);
		o = json_loads(out, 0, NULL);
		lab_check(lab, json_is_object(o), "not JSON: %s", out);
		json_decref(o);
		free(out);
	}
	lab_end(lab);
}
