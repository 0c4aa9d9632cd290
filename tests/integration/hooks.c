/* SPDX-License-Identifier: Apache-2.0 */
/* Hooks of real agents: what an orchestrator hears of a migration, and what its gate can do about it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/hook_server.h"
#include "lib/lab_test.h"

TestSuite(hooks, .timeout = 240);

/** struct world - two hosts whose source asks and tells @server */
struct world {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct hook_server *server;
};

/* @a, @b: hooks of the source and of the destination; "%s" stands for the server; NULL: none */
static void begin(struct world *w, const char *a, const char *b)
{
	char conf[2][2048] = {"", ""}, url[64];

	w->server = hook_server_start(NULL, NULL);
	w->lab = lab_new(lab_test_failed);
	snprintf(url, sizeof(url), "http://127.0.0.1:%u", hook_server_port(w->server));
	for (int i = 0; i < 2; i++) {
		const char *text = i ? b : a, *at = text ? strstr(text, "%s") : NULL;

		snprintf(conf[i], sizeof(conf[i]), "{\"hooks\": [%.*s%s%s]}",
			 at ? (int)(at - text) : 0, text ? text : "", at ? url : "",
			 at     ? at + 2
			 : text ? text
				: "");
	}
	w->a = lab_host_start(w->lab, &(struct lab_host_opts){.name = "a", .source_conf = conf[0]});
	w->b = lab_host_start(w->lab, &(struct lab_host_opts){.name = "b", .dest_conf = conf[1]});
	/* Few enough writes that the gate is asked soon, on however busy a machine. */
	w->g = lab_guest_start(w->a,
			       &(struct lab_guest_opts){.mb = 16, .threads = 2, .writes = 1000});
}

static void end(struct world *w)
{
	lab_end(w->lab);
	hook_server_stop(w->server);
}

/* Return: how many events of this type have come */
static unsigned int heard(struct world *w, const char *type)
{
	unsigned int n = 0;

	for (size_t i = 0; i < hook_server_count(w->server); i++)
		n += !strcmp(hook_server_type(w->server, i), type);
	return n;
}

/* Its hooks have taken all that it has told: what they had heard and not acknowledged would be told again. */
static bool all_taken(struct world *w, const char *sock)
{
	char *text = NULL;
	const char *at;
	bool none;

	lab_check(w->lab, lab_http(sock, "GET", "/metrics", NULL, &text) == 200, "metrics");
	at = strstr(text, "decant_hook_events_waiting{");
	lab_check(w->lab, at && (at = strchr(at, ' ')), "%s", text);
	none = atoi(at) == 0;
	free(text);
	return none;
}

/* What came with this prefix is exactly this, in this order. */
static void expect(struct world *w, const char *prefix, const char *const *types, size_t n)
{
	size_t k = 0;

	for (size_t i = 0; i < hook_server_count(w->server); i++) {
		const char *type = hook_server_type(w->server, i);

		if (strncmp(type, prefix, strlen(prefix)) != 0)
			continue;
		lab_check(w->lab, k < n && !strcmp(types[k], type + strlen(prefix)),
			  "%zu. event is %s", k, type);
		k++;
	}
	lab_check(w->lab, k == n, "%zu events of %s*, not %zu", k, prefix, n);
}

Test(hooks, every_phase_is_told_by_both_agents)
{
	static const char *const source[] = {"setup", "precopy", "switchover", "postcopy",
					     "completed"};
	static const char *const dest[] = {"advise", "discard", "listening",
					   "ready",  "running", "completed"};
	struct lab_move move = {.mode = "hybrid"};
	const struct hook_request *q;
	json_t *job, *data;
	struct world w;

	begin(&w, "{\"url\": \"%s/a\"}", "{\"url\": \"%s/b\"}");
	job = lab_migrate(w.a, w.b, w.g, &move);
	lab_guest_arrived(w.g, w.b);
	lab_until(w.lab, 10000,
		  heard(&w, "decant.migration.completed") && heard(&w, "decant.incoming.completed"),
		  "events");
	expect(&w, "decant.migration.", source, LAB_COUNT(source));
	expect(&w, "decant.incoming.", dest, LAB_COUNT(dest));
	for (size_t i = 0; i < hook_server_count(w.server); i++) {
		q = hook_server_get(w.server, i);
		data = json_object_get(q->json, "data");
		lab_check(w.lab, !strcmp(lab_str(w.lab, data, "id"), lab_str(w.lab, job, "id")),
			  "%s", q->body);
		lab_check(w.lab,
			  strstr(lab_str(w.lab, q->json, "subject"), lab_str(w.lab, job, "id")),
			  "%s", q->body);
		lab_check(w.lab,
			  !strcmp(strrchr(hook_server_type(w.server, i), '.') + 1,
				  lab_str(w.lab, data, "phase")),
			  "%s", q->body);
	}
	json_decref(job);
	end(&w);
}

Test(hooks, a_snapshot_is_told_and_asks_no_gate)
{
	static const char *const phases[] = {"setup", "saving", "completed"};
	static const char *const stored[] = {"storing", "completed"};
	const char *args[] = {"snapshot", NULL, "--to", NULL, "--wait", NULL};
	struct world w;

	begin(&w, "{\"url\": \"%s/a\", \"gate\": true, \"events\": [\"*\"]}",
	      "{\"url\": \"%s/b\"}");
	args[1] = w.g->name;
	args[3] = w.b->to;
	lab_check(w.lab, lab_decant(w.a, 60000, NULL, NULL, args) == 0, "snapshot");
	lab_until(w.lab, 10000,
		  heard(&w, "decant.snapshot.completed") && heard(&w, "decant.store.completed"),
		  "events");
	expect(&w, "decant.snapshot.", phases, LAB_COUNT(phases));
	expect(&w, "decant.store.", stored, LAB_COUNT(stored));
	lab_check(w.lab, !heard(&w, "decant.migration.gate"), "a gate was asked");
	end(&w);
}

Test(hooks, an_evacuation_is_told_and_counted)
{
	static const char *const phases[] = {"planning", "running", "completed"};
	const char *args[] = {"evacuate", "--to", NULL, "--wait", NULL};
	char *text = NULL;
	struct world w;

	begin(&w, "{\"url\": \"%s/a\", \"name\": \"cloud\"}", NULL);
	args[2] = w.b->to;
	lab_check(w.lab, lab_decant(w.a, 60000, NULL, NULL, args) == 0, "evacuate");
	lab_guest_arrived(w.g, w.b);
	lab_until(w.lab, 10000, heard(&w, "decant.evacuation.completed"), "events");
	expect(&w, "decant.evacuation.", phases, LAB_COUNT(phases));
	lab_check(w.lab, heard(&w, "decant.migration.completed") == 1,
		  "its migration is told, too");
	lab_check(w.lab, lab_http(w.a->source_sock, "GET", "/metrics", NULL, &text) == 200,
		  "metrics");
	lab_check(w.lab, strstr(text, "decant_hook_events_delivered_total{hook=\"cloud\"} "), "%s",
		  text);
	lab_check(w.lab, strstr(text, "decant_hook_events_dead_total{hook=\"cloud\"} 0\n"), "%s",
		  text);
	lab_check(w.lab, strstr(text, "decant_audit_lost_total 0\n"), "%s", text);
	free(text);
	text = lab_read_file(lab_host_path(w.a, "state/audit.log"));
	lab_check(w.lab, strstr(text, "\"what\":\"evacuation-ended\""), "%s", text);
	free(text);
	end(&w);
}

/** struct gated - a migration that meets a gate */
struct gated {
	const char *mode;
	const char *tracking;
	const char *answer;
	bool allowed;
};

/* What the job says of its gate. */
static bool waits(struct world *w)
{
	json_t *job = lab_job_newest(w->a), *state = lab_at(job, "gate.state");
	bool delayed = json_is_string(state) && !strcmp(json_string_value(state), "delayed");

	json_decref(job);
	return delayed;
}

/* The gate delays until the test has seen that: a second is nothing on a busy machine. */
static void meets(const struct gated *c)
{
	const struct hook_say delay = {
		.when = ".gate\"",
		.body = "{\"decision\": \"delay\", \"reason\": \"busy\", \"retry_after_s\": 1}"};
	const struct hook_say answer = {.when = ".gate\"", .body = c->answer};
	struct lab_move move = {.mode = c->mode, .tracking = c->tracking};
	struct lab_proc *p;
	unsigned int asked;
	struct world w;

	if (!c->allowed) {
		move.exit = 1;
		move.phase = "failed";
		move.code = "gate-refused";
	}
	begin(&w, "{\"url\": \"%s/\", \"gate\": true, \"events\": [\"*\"], \"name\": \"cloud\"}",
	      NULL);
	hook_server_script(w.server, &delay, 1);
	p = lab_migrate_begin(w.a, w.b, w.g, &move);
	lab_until(w.lab, 20000, heard(&w, "decant.migration.gate"), "the question");
	lab_until(w.lab, 20000, waits(&w), "the job says that it waits");
	lab_check(w.lab, lab_job_phase_is(w.a, "precopy"), "precopy goes on");
	asked = heard(&w, "decant.migration.gate");
	lab_until(w.lab, 20000, heard(&w, "decant.migration.gate") > asked, "the next question");
	hook_server_script(w.server, &answer, 1);
	json_decref(lab_migrate_end(w.a, p, &move));
	if (c->allowed)
		lab_guest_arrived(w.g, w.b);
	else
		lab_guest_verified(w.g);
	if (c->allowed)
		lab_until(w.lab, 10000, heard(&w, "decant.migration.switchover"), "switchover");
	else
		lab_check(w.lab, !heard(&w, "decant.migration.switchover"), "switchover");
	end(&w);
}

Test(hooks, a_gate_delays_then_allows)
{
	meets(&(struct gated){"precopy", "async", "{\"decision\": \"allow\"}", true});
}

Test(hooks, a_gate_delays_then_refuses)
{
	meets(&(struct gated){"hybrid", "async", "{\"decision\": \"refuse\"}", false});
}

Test(hooks, a_gate_before_pure_postcopy)
{
	meets(&(struct gated){"postcopy", NULL, "{\"decision\": \"allow\"}", true});
}

Test(hooks, gates_of_every_mode_and_tracking)
{
	lab_test_long();
	static const char *const modes[] = {"precopy", "hybrid"};
	static const char *const kinds[] = {"async", "faults"};

	for (int i = 0; i < 8; i++)
		meets(&(struct gated){
			modes[i & 1], kinds[i >> 1 & 1],
			i & 4 ? "{\"decision\": \"allow\"}" : "{\"decision\": \"refuse\"}", i & 4});
}

/* The gate hangs: the operator's wish to switch does not lead around it, and cancel still works. */
Test(hooks, cancel_while_a_gate_hangs)
{
	static const struct hook_say hang = {.manner = HOOK_HANGS};
	const char *args[] = {"switchover", NULL, NULL};
	struct lab_move move = {.exit = 1, .phase = "cancelled"};
	struct lab_proc *p;
	struct world w;
	json_t *job;
	char *id;

	begin(&w, "{\"url\": \"%s/\", \"gate\": true}", NULL);
	hook_server_script(w.server, &hang, 1);
	p = lab_migrate_begin(w.a, w.b, w.g, &move);
	lab_until(w.lab, 20000, heard(&w, "decant.migration.gate") == 1, "the question");
	job = lab_job_newest(w.a);
	id = strdup(lab_str(w.lab, job, "id"));
	json_decref(job);
	args[1] = id;
	lab_check(w.lab, lab_decant(w.a, 10000, NULL, NULL, args) == 0, "switchover");
	usleep(300000);
	lab_check(w.lab, lab_job_phase_is(w.a, "precopy"), "the gate was passed by");
	args[0] = "cancel";
	lab_check(w.lab, lab_decant(w.a, 10000, NULL, NULL, args) == 0, "cancel");
	json_decref(lab_migrate_end(w.a, p, &move));
	lab_guest_verified(w.g);
	free(id);
	end(&w);
}

/* No answer is what on_error says; a command decides as well. */
Test(hooks, gates_without_an_answer)
{
	struct lab_move refused = {.exit = 1, .phase = "failed", .code = "gate-refused"};
	struct lab_move allowed = {0};
	struct world w;

	begin(&w, "{\"exec\": [\"/bin/sleep\", \"100\"], \"gate\": true, \"timeout_ms\": 300}",
	      NULL);
	json_decref(lab_migrate(w.a, w.b, w.g, &refused));
	lab_guest_verified(w.g);
	end(&w);
	begin(&w,
	      "{\"url\": \"http://127.0.0.1:1/\", \"gate\": true, \"on_error\": \"allow\"}, "
	      "{\"exec\": [\"/bin/true\"], \"gate\": true}",
	      NULL);
	json_decref(lab_migrate(w.a, w.b, w.g, &allowed));
	lab_guest_arrived(w.g, w.b);
	end(&w);
}

/* The agent is killed while its hook is away: its next life tells what was not taken, and what has happened. */
Test(hooks, a_killed_agent_tells_later)
{
	static const struct hook_say away = {.status = 503};
	struct lab_move move = {.mode = "precopy", .args = {"--bandwidth", "8Mbit"}};
	struct lab_proc *p;
	struct world w;

	begin(&w, "{\"url\": \"%s/\", \"retry_ms\": 50, \"attempts\": 100}", NULL);
	hook_server_script(w.server, &away, 1);
	p = lab_migrate_begin(w.a, w.b, w.g, &move);
	lab_until(w.lab, 20000,
		  heard(&w, "decant.migration.setup") && lab_job_phase_is(w.a, "precopy"),
		  "the first event");
	lab_proc_kill(w.lab, w.a->source);
	hook_server_script(w.server, NULL, 0);
	lab_host_source_start(w.a);
	lab_until(w.lab, 10000, heard(&w, "decant.migration.failed") == 1, "the end is told");
	lab_check(w.lab, heard(&w, "decant.migration.precopy") == 1, "what waited is told");
	lab_check(w.lab, lab_proc_wait(w.lab, p, 20000) == 1, "migrate");
	lab_guest_verified(w.g);
	end(&w);
}

/* The error's code in the data of the first event of this type; "" if nobody has heard of one. */
static const char *code_of(struct world *w, const char *type)
{
	const json_t *code;

	for (size_t i = 0; i < hook_server_count(w->server); i++) {
		if (strcmp(hook_server_type(w->server, i), type) != 0)
			continue;
		code = lab_at(hook_server_get(w->server, i)->json, "data.error.code");
		return code ? json_string_value(code) : "";
	}
	return "";
}

/* decant-dest is killed before the hand-over: who has heard of the beginning hears of the end. */
Test(hooks, what_a_killed_dest_gave_up_is_told)
{
	struct lab_move move = {.mode = "precopy",
				.exit = 1,
				.phase = "failed",
				.args = {"--bandwidth", "8Mbit", "--reconnect-timeout-s", "0"}};
	struct lab_proc *p;
	struct world w;

	begin(&w, NULL, "{\"url\": \"%s/\", \"retry_ms\": 50}");
	p = lab_migrate_begin(w.a, w.b, w.g, &move);
	lab_until(w.lab, 20000,
		  heard(&w, "decant.incoming.advise") && lab_job_phase_is(w.a, "precopy"),
		  "the first event");
	lab_proc_kill(w.lab, w.b->dest);
	lab_host_dest_start(w.b);
	lab_until(w.lab, 10000, heard(&w, "decant.incoming.aborted"), "the end is told");
	lab_check(w.lab, !strcmp(code_of(&w, "decant.incoming.aborted"), "agent-restarted"), "%s",
		  code_of(&w, "decant.incoming.aborted"));
	json_decref(lab_migrate_end(w.a, p, &move));
	lab_guest_verified(w.g);
	end(&w);
}

/* Killed in post-copy: its next life says that the guest is held. One that stands asks for no pages, so that there is time. */
Test(hooks, a_guest_that_is_taken_over_is_told)
{
	struct lab_move move = {.mode = "postcopy", .args = {"--bandwidth", "32Mbit"}};
	struct lab_guest *g;
	struct lab_proc *p;
	struct world w;

	begin(&w, NULL, "{\"url\": \"%s/\", \"retry_ms\": 50}");
	g = lab_guest_start(w.a,
			    &(struct lab_guest_opts){.name = "still", .mb = 16, .paused = true});
	p = lab_migrate_begin(w.a, w.b, g, &move);
	lab_until(w.lab, 20000, heard(&w, "decant.incoming.running"), "it runs there");
	lab_proc_kill(w.lab, w.b->dest);
	lab_host_dest_start(w.b);
	lab_until(w.lab, 10000, heard(&w, "decant.incoming.held"), "it is held");
	json_decref(lab_migrate_end(w.a, p, &move));
	lab_until(w.lab, 10000, heard(&w, "decant.incoming.completed") == 1, "the end is told");
	lab_guest_verified(w.g);
	end(&w);
}

Test(hooks, an_import_is_told)
{
	static const char *const phases[] = {"importing", "completed"};
	char memory[LAB_PATH_MAX + 16], body[LAB_PATH_MAX + 80];
	static char zero[8192];
	struct world w;
	FILE *f;

	begin(&w, NULL, "{\"url\": \"%s/\"}");
	snprintf(memory, sizeof(memory), "%s/memory", w.lab->root);
	f = fopen(memory, "we");
	lab_check(w.lab, f && fwrite(zero, sizeof(zero), 1, f) == 1 && !fclose(f), "%s", memory);
	snprintf(body, sizeof(body), "{\"memory\": \"%s\", \"name\": \"there\"}", memory);
	lab_check(w.lab, lab_http(w.b->dest_sock, "POST", "/v1/snapshots", body, NULL) == 202,
		  "import");
	lab_until(w.lab, 10000, heard(&w, "decant.import.completed"), "the end is told");
	expect(&w, "decant.import.", phases, LAB_COUNT(phases));
	end(&w);
}

/* Events of this type, each once: what had been sent when an agent ended may have been sent again. */
static unsigned int told(struct world *w, const char *type)
{
	const char *ids[8];
	unsigned int n = 0, k;

	for (size_t i = 0; i < hook_server_count(w->server) && n < LAB_COUNT(ids); i++) {
		if (strcmp(hook_server_type(w->server, i), type) != 0)
			continue;
		ids[n] = lab_str(w->lab, hook_server_get(w->server, i)->json, "id");
		for (k = 0; k < n && strcmp(ids[k], ids[n]) != 0; k++)
			;
		n += k == n;
	}
	return n;
}

/* Its agent is killed in the middle: the next life tells the end, and once; who asks is told the same. */
Test(hooks, an_import_that_is_cut_short_is_told)
{
	static uint8_t chunk[1 << 20];
	char memory[LAB_PATH_MAX + 16], body[LAB_PATH_MAX + 80];
	struct world w;
	json_t *o;
	FILE *f;

	begin(&w, NULL, "{\"url\": \"%s/\", \"retry_ms\": 50}");
	/* So that the end does not come before the kill. */
	lab_proc_kill(w.lab, w.b->dest);
	w.b->dest_fault = "image-data-synced:delay=5000";
	lab_host_dest_start(w.b);
	snprintf(memory, sizeof(memory), "%s/memory", w.lab->root);
	f = fopen(memory, "we");
	lab_check(w.lab, f, "%s", memory);
	memset(chunk, 1, sizeof(chunk));
	for (int i = 0; i < 160; i++)
		fwrite(chunk, sizeof(chunk), 1, f);
	lab_check(w.lab, !fclose(f), "%s", memory);
	snprintf(body, sizeof(body), "{\"memory\": \"%s\", \"name\": \"there\"}", memory);
	lab_check(w.lab, lab_http(w.b->dest_sock, "POST", "/v1/snapshots", body, NULL) == 202,
		  "import");
	lab_proc_kill(w.lab, w.b->dest);
	lab_host_dest_start(w.b);
	lab_until(w.lab, 10000, heard(&w, "decant.import.failed"), "the end is told");
	lab_check(w.lab, !strcmp(code_of(&w, "decant.import.failed"), "agent-restarted"), "%s",
		  code_of(&w, "decant.import.failed"));
	o = lab_get(w.lab, w.b->dest_sock, "/v1/snapshots/there");
	lab_check(w.lab, !strcmp(lab_str(w.lab, o, "phase"), "failed"), "phase");
	json_decref(o);
	lab_until(w.lab, 10000, all_taken(&w, w.b->dest_sock), "the hook does not take all");
	lab_host_stop(w.b);
	lab_host_dest_start(w.b);
	lab_host_source_start(w.b);
	lab_check(w.lab, lab_http(w.b->dest_sock, "GET", "/v1/snapshots/there", NULL, NULL) == 404,
		  "it is remembered for ever");
	lab_check(w.lab, told(&w, "decant.import.importing") == 1, "the beginning");
	lab_check(w.lab, told(&w, "decant.import.failed") == 1, "told %u times",
		  told(&w, "decant.import.failed"));
	end(&w);
}
