/* SPDX-License-Identifier: Apache-2.0 */
/* A host is emptied by one command: plan, refusals, failures, kills, cancelling, the cordon. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_test.h"
#include "lib/lab_trip.h"

TestSuite(evacuate, .timeout = 120);

/* --- help --- */

static struct lab_host *host(struct lab *lab, const char *name, const char *dest_conf)
{
	return lab_host_start(
		lab, &(struct lab_host_opts){.name = name,
					     .identity = *name == 'a' ? "host-a" : "host-b",
					     .dest_conf = dest_conf});
}

static struct lab_guest *guest(struct lab_host *h, const char *name, unsigned int mb)
{
	return lab_guest_start(
		h, &(struct lab_guest_opts){.name = name, .mb = mb, .threads = 1, .writes = 500});
}

/* Return: its one document, new reference */
static json_t *document(struct lab *lab, char *out)
{
	json_t *o = json_loads(out, JSON_REJECT_DUPLICATES, NULL);

	lab_check(lab, o, "not one JSON document: %s", out);
	free(out);
	return o;
}

/* Return: the evacuation as it ended */
static json_t *evacuate_end(struct lab_host *h, struct lab_proc *p, int exit)
{
	int status = lab_proc_wait(h->lab, p, 60000);
	char *out = lab_proc_text(h->lab, p, "out");

	lab_check(h->lab, status == exit, "evacuate ended with %d, not %d: %s", status, exit, out);
	return document(h->lab, out);
}

static struct lab_proc *evacuate_begin(struct lab_host *h, const char *const args[])
{
	const char *argv[24] = {"evacuate", "--json", "--wait"};
	size_t n = 3;

	while (*args)
		argv[n++] = *args++;
	return lab_decant_begin(h, argv);
}

static json_t *guest_of(struct lab *lab, json_t *e, const char *name)
{
	json_t *g;
	size_t i;

	json_array_foreach(lab_at(e, "guests"), i, g)
		if (!strcmp(lab_str(lab, g, "name"), name))
			return g;
	lab_check(lab, false, "no guest %s", name);
	return NULL;
}

static void check_guest(struct lab *lab, json_t *e, const char *name, const char *outcome,
			const char *to, const char *code)
{
	json_t *g = guest_of(lab, e, name);

	lab_check(lab, !strcmp(lab_str(lab, g, "outcome"), outcome), "%s: %s", name,
		  lab_str(lab, g, "outcome"));
	if (to)
		lab_check(lab, !strcmp(lab_str(lab, g, "to"), to), "%s: to %s", name,
			  lab_str(lab, g, "to"));
	if (code)
		lab_check(lab, !strcmp(lab_str(lab, g, "code"), code), "%s: %s: %s", name,
			  lab_str(lab, g, "code"), lab_str(lab, g, "reason"));
	else
		lab_check(lab, json_is_null(lab_at(g, "code")), "%s: %s", name,
			  lab_str(lab, g, "reason"));
}

static void check_phase(struct lab *lab, json_t *e, const char *phase)
{
	lab_check(lab, !strcmp(lab_str(lab, e, "phase"), phase), "phase is %s",
		  lab_str(lab, e, "phase"));
}

/* --- the whole way --- */

/* Two destinations: both are used, all guests arrive unharmed, and the host is cordoned. */
Test(evacuate, to_two_hosts)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a = host(lab, "a", NULL), *b = host(lab, "b", NULL),
			*c = host(lab, "c", NULL);
	struct lab_guest *g[3] = {guest(a, "one", 16), guest(a, "two", 24), guest(a, "three", 8)};
	json_t *e, *o;

	e = evacuate_end(a, evacuate_begin(a, (const char *[]){"--to", b->to, "--to", c->to, NULL}),
			 0);
	check_phase(lab, e, "completed");
	lab_check(lab, lab_num(lab, e, "totals.moved") == 3, "moved");
	for (size_t i = 0; i < 3; i++) {
		const char *to = lab_str(lab, guest_of(lab, e, g[i]->name), "to");

		check_guest(lab, e, g[i]->name, "moved", NULL, NULL);
		lab_guest_arrived(g[i], !strcmp(to, b->to) ? b : c);
	}
	json_decref(e);
	o = lab_get(lab, a->source_sock, "/v1/host");
	lab_check(lab, json_is_true(lab_at(o, "cordoned")), "not cordoned");
	json_decref(o);
	lab_end(lab);
}

/* The plan is shown and nothing is done; who would stay is named. */
Test(evacuate, dry_run)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a = host(lab, "a", NULL),
			*b = host(lab, "b", "{\"limits\": {\"memory_bytes\": 16777216}}");
	struct lab_guest *small = guest(a, "small", 8), *large = guest(a, "large", 24);
	json_t *o;
	char *out;

	o = evacuate_end(a, evacuate_begin(a, (const char *[]){"--dry-run", "--to", b->to, NULL}),
			 1);
	check_phase(lab, o, "planned");
	check_guest(lab, o, "small", "waiting", b->to, NULL);
	check_guest(lab, o, "large", "unplaced", NULL, "limit-memory");
	lab_check(lab, lab_num(lab, o, "totals.eta_s") > 0, "no estimate");
	json_decref(o);
	/* Nobody listens there. */
	o = evacuate_end(
		a, evacuate_begin(a, (const char *[]){"--dry-run", "--to", "127.0.0.1:1", NULL}),
		1);
	check_guest(lab, o, "small", "unplaced", NULL, "unreachable");
	json_decref(o);
	/* In words, and with room for all. */
	lab_check(lab,
		  lab_decant(a, 10000, &out, NULL,
			     (const char *[]){"evacuate", "--dry-run", "--to", b->to, NULL}) == 1,
		  "it does not tell");
	lab_check(lab, strstr(out, "small") && strstr(out, "takes no guest of more than 16 MiB"),
		  "%s", out);
	free(out);
	o = lab_get(lab, a->source_sock, "/v1/host");
	lab_check(lab, json_is_false(lab_at(o, "cordoned")), "cordoned by a dry run");
	json_decref(o);
	o = lab_get(lab, a->source_sock, "/v1/migrations");
	lab_check(lab, json_array_size(lab_at(o, "items")) == 0, "something was moved");
	json_decref(o);
	lab_guest_verified(small);
	lab_guest_verified(large);
	lab_end(lab);
}

/* What one destination cannot start goes to the other; what none can stays, is named, and hinders nobody. */
Test(evacuate, refused_and_failed)
{
	static const char broken[] = "{\"launchers\": {\"stamp\": {\"driver\": \"native\", "
				     "\"argv\": [\"/bin/false\"]}}}";
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a = host(lab, "a", NULL), *b = host(lab, "b", broken),
			*c = host(lab, "c", NULL);
	struct lab_guest *g = guest(a, "good", 8), *lost = guest(a, "lost", 8);
	json_t *e;

	lab_check(lab,
		  lab_decant(a, 10000, NULL, NULL, (const char *[]){"remove", "lost", NULL}) == 0,
		  "remove");
	/* It attaches anew, and nobody says what starts it. */
	lab_host_knows(a, "lost");
	e = evacuate_end(a,
			 evacuate_begin(a, (const char *[]){"--to", b->to, "--to", c->to,
							    "--concurrency", "1", NULL}),
			 1);
	check_phase(lab, e, "failed");
	lab_check(lab, !strcmp(lab_str(lab, e, "error.code"), "partial"), "code");
	check_guest(lab, e, "good", "moved", c->to, NULL);
	check_guest(lab, e, "lost", "unplaced", NULL, "no-launcher");
	json_decref(e);
	lab_guest_arrived(g, c);
	lab_guest_verified(lost);
	lab_end(lab);
}

static bool moved(struct lab_host *h, unsigned int n)
{
	json_t *o = lab_get(h->lab, h->source_sock, "/v1/evacuations"),
	       *e = json_array_get(lab_at(o, "items"), 0);
	bool is = e && lab_num(h->lab, e, "totals.moved") >= n;

	json_decref(o);
	return is;
}

/* decant-source is killed in the middle: it goes on where it was, also with who came meanwhile, and nobody goes twice. */
Test(evacuate, killed_in_the_middle)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a = host(lab, "a", NULL), *b = host(lab, "b", NULL);
	struct lab_guest *g[3] = {guest(a, "one", 16), guest(a, "two", 12)};
	struct lab_proc *p;
	json_t *e;

	p = evacuate_begin(a, (const char *[]){"--to", b->to, "--concurrency", "1", "--bandwidth",
					       "80Mbit", NULL});
	lab_until(lab, 10000, lab_job_phase_is(a, "precopy"), "nobody moves");
	g[2] = guest(a, "three", 8);
	lab_until(lab, 10000, moved(a, 1), "nobody has moved");
	lab_proc_kill(lab, a->source);
	lab_host_source_start(a);
	e = evacuate_end(a, p, 0);
	check_phase(lab, e, "completed");
	for (size_t i = 0; i < 3; i++) {
		check_guest(lab, e, g[i]->name, "moved", b->to, NULL);
		lab_guest_arrived(g[i], b);
	}
	json_decref(e);
	lab_end(lab);
}

/* What has not left stays and runs; a second one has to wait; the cordon outlives it. */
Test(evacuate, cancelled)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a = host(lab, "a", NULL), *b = host(lab, "b", NULL);
	struct lab_guest *g[2] = {guest(a, "one", 32), guest(a, "two", 32)};
	const char *const args[] = {"--to",   b->to, "--concurrency", "1", "--bandwidth",
				    "40Mbit", NULL};
	struct lab_proc *p = evacuate_begin(a, args);
	json_t *e, *o;
	char *err;

	lab_until(lab, 10000, lab_job_newest(a) && lab_job_phase_is(a, "precopy"), "nobody moves");
	lab_check(lab,
		  lab_decant(a, 10000, NULL, &err,
			     (const char *[]){"evacuate", "--to", b->to, NULL}) == 3,
		  "two at a time");
	lab_check(lab, strstr(err, "decant cancel"), "%s", err);
	free(err);
	lab_check(lab, lab_decant(a, 10000, NULL, NULL, (const char *[]){"uncordon", NULL}) == 3,
		  "uncordoned while it is emptied");
	o = lab_get(lab, a->source_sock, "/v1/evacuations");
	lab_check(lab,
		  lab_decant(a, 10000, NULL, NULL,
			     (const char *[]){
				     "cancel",
				     lab_str(lab, json_array_get(lab_at(o, "items"), 0), "id"),
				     NULL}) == 0,
		  "cancel");
	json_decref(o);
	e = evacuate_end(a, p, 1);
	check_phase(lab, e, "cancelled");
	check_guest(lab, e, "one", "cancelled", NULL, "cancelled");
	check_guest(lab, e, "two", "cancelled", NULL, "cancelled");
	json_decref(e);
	lab_guest_verified(g[0]);
	lab_guest_verified(g[1]);
	lab_check(lab, lab_decant(a, 10000, NULL, NULL, (const char *[]){"uncordon", NULL}) == 0,
		  "uncordon");
	lab_end(lab);
}

/* Before a shutdown: another evacuation is waited for and not a reason to go down with guests that are half away. */
Test(evacuate, to_the_end)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a = host(lab, "a", NULL), *b = host(lab, "b", NULL);
	/* It asks for its pages as fast as it can: there must be enough of them. */
	struct lab_guest *g = guest(a, "one", 48);
	const char *const first[] = {"--to",   b->to,      "--bandwidth", "80Mbit",
				     "--mode", "postcopy", NULL};
	const char *const second[] = {"--to", b->to, "--to-the-end", NULL};
	struct lab_proc *p = evacuate_begin(a, first);
	json_t *e;

	lab_until(lab, 10000, lab_job_newest(a) && lab_job_phase_is(a, "postcopy"), "nobody moves");
	e = evacuate_end(a, evacuate_begin(a, second), 0);
	/* Its own found nobody any more. */
	check_phase(lab, e, "completed");
	lab_check(lab, lab_num(lab, e, "totals.guests") == 0, "it did not wait");
	json_decref(e);
	json_decref(evacuate_end(a, p, 0));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

/* --- the cordon --- */

static void refused(struct lab_host *from, struct lab_host *to, struct lab_guest *g)
{
	json_decref(lab_migrate(
		from, to, g,
		&(struct lab_move){.exit = 3, .phase = "failed", .code = "host-cordoned"}));
}

/* It holds over restarts of either agent; who comes in already goes on, and leaves again. */
Test(evacuate, cordon)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a = host(lab, "a", NULL), *b = host(lab, "b", NULL);
	struct lab_guest *early = guest(a, "early", 24), *late = guest(a, "late", 8);
	struct lab_proc *p;
	char *out;
	json_t *e;

	p = lab_migrate_begin(a, b, early, &(struct lab_move){.args = {"--bandwidth", "60Mbit"}});
	lab_until(lab, 10000, lab_job_newest(a) && lab_job_phase_is(a, "precopy"), "does not move");
	lab_check(lab, lab_decant(b, 10000, &out, NULL, (const char *[]){"cordon", NULL}) == 0,
		  "cordon");
	lab_check(lab, strstr(out, "1 guests that were coming in"), "%s", out);
	free(out);
	refused(a, b, late);
	lab_proc_kill(lab, b->source);
	refused(a, b, late);
	lab_host_source_start(b);
	/* It is told to leave before it is there. */
	e = evacuate_end(b, evacuate_begin(b, (const char *[]){"--to", a->to, NULL}), 0);
	check_guest(lab, e, "early", "moved", a->to, NULL);
	json_decref(e);
	json_decref(lab_migrate_end(a, p, &(struct lab_move){0}));
	/* At b it was not looked at. */
	early->arrivals++;
	early->at = b;
	lab_guest_arrived(early, a);
	lab_host_stop(b);
	lab_host_dest_start(b);
	refused(a, b, late);
	lab_host_source_start(b);
	lab_check(lab, lab_decant(b, 10000, NULL, NULL, (const char *[]){"uncordon", NULL}) == 0,
		  "uncordon");
	json_decref(lab_migrate(a, b, late, &(struct lab_move){0}));
	lab_guest_arrived(late, b);
	lab_end(lab);
}

/* --- in full runs --- */

/* Who writes least leaves first, as counted; nobody is the worse for it. */
Test(evacuate, least_dirty)
{
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_guest *idle, *busy;
	json_t *e, *g;

	lab_test_long();
	lab = lab_new(lab_test_failed);
	a = host(lab, "a", NULL);
	b = host(lab, "b", NULL);
	busy = lab_guest_start(a, &(struct lab_guest_opts){
					  .name = "busy", .mb = 32, .threads = 1, .writes = 2000});
	idle = lab_guest_start(
		a, &(struct lab_guest_opts){.name = "idle", .mb = 16, .threads = 1, .writes = 10});
	e = evacuate_end(a,
			 evacuate_begin(a, (const char *[]){"--dry-run", "--order", "least-dirty",
							    "--to", b->to, NULL}),
			 0);
	g = json_array_get(lab_at(e, "guests"), 0);
	lab_check(lab, !strcmp(lab_str(lab, g, "name"), "idle"), "%s is first",
		  lab_str(lab, g, "name"));
	lab_check(lab, lab_num(lab, g, "dirty_bytes_per_s") < 100 * 4096, "idle writes %.0f",
		  lab_num(lab, g, "dirty_bytes_per_s"));
	g = guest_of(lab, e, "busy");
	lab_check(lab, lab_num(lab, g, "dirty_bytes_per_s") > 500 * 4096, "busy writes %.0f",
		  lab_num(lab, g, "dirty_bytes_per_s"));
	json_decref(e);
	lab_guest_verified(idle);
	lab_guest_verified(busy);
	e = evacuate_end(
		a,
		evacuate_begin(a, (const char *[]){"--order", "least-dirty", "--to", b->to, NULL}),
		0);
	json_decref(e);
	lab_guest_arrived(idle, b);
	lab_guest_arrived(busy, b);
	lab_end(lab);
}

/* A virtual machine and a program leave together. */
Test(evacuate, with_a_vm, .timeout = 180)
{
	struct lab_vm_state before;
	struct lab_guest *g;
	struct lab_trip t;
	json_t *e;

	lab_test_long();
	lab_trip_begin(&t, lab_vm_lab(), &(struct lab_vm_opts){.mb = 160, .rate = 1000});
	g = guest(lab_trip_from(&t), "native", 16);
	before = lab_vm_check(lab_trip_vm(&t));
	e = evacuate_end(lab_trip_from(&t),
			 evacuate_begin(lab_trip_from(&t),
					(const char *[]){"--to", lab_trip_to(&t)->to, NULL}),
			 0);
	check_guest(t.lab, e, t.g.name, "moved", lab_trip_to(&t)->to, NULL);
	check_guest(t.lab, e, "native", "moved", lab_trip_to(&t)->to, NULL);
	json_decref(e);
	lab_guest_arrived(g, lab_trip_to(&t));
	lab_trip_came(&t);
	lab_vm_goes_on(lab_trip_vm(&t), &before);
	lab_trip_end(&t);
}
