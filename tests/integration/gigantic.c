/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of 1 GiB: moved by precopy and stored part by part, nowhere put together in an agent's memory;
 * what would need one of them to be placed at once is refused by name.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "lib/lab_test.h"

TestSuite(gigantic, .timeout = 240);

/* Most that an agent may have had in memory: far less than one page. */
#define AGENT_KB (256u << 10)

static unsigned long peak_kb(struct lab *lab, const struct lab_proc *p)
{
	char path[64], *text, *at;
	unsigned long kb;

	snprintf(path, sizeof(path), "/proc/%d/status", p->pid);
	text = lab_read_file(path);
	at = text ? strstr(text, "VmHWM:") : NULL;
	lab_check(lab, at, "%s has no VmHWM", path);
	kb = strtoul(at + strlen("VmHWM:"), NULL, 10);
	free(text);
	return kb;
}

static void check_memory(struct lab *lab, const struct lab_proc *p)
{
	unsigned long kb = peak_kb(lab, p);

	lab_check(lab, kb < AGENT_KB * lab->slow, "%s had %lu KiB in memory", p->name, kb);
}

static void refused(struct lab_host *a, struct lab_host *b, struct lab_guest *g, const char *mode,
		    const char *noconv)
{
	char *err = NULL;

	lab_check(a->lab,
		  lab_decant(a, 10000, NULL, &err,
			     (const char *const[]){"migrate", g->name, "--to", b->to, "--mode",
						   mode, "--no-convergence", noconv, NULL}) == 3,
		  "not refused in mode %s", mode);
	lab_check(a->lab, strstr(err, "block ram0") && strstr(err, "--mode precopy"), "%s", err);
	free(err);
}

static void restored(struct lab_host *h)
{
	char program[LAB_PATH_MAX + 32], api[LAB_PATH_MAX + 16], *err = NULL;
	const char *argv[] = {program, "--api", api, "restore", "big", "--wait", NULL};

	snprintf(program, sizeof(program), "%s/decant-dest", h->lab->build);
	snprintf(api, sizeof(api), "unix:%s", h->dest_sock);
	lab_check(h->lab, lab_run(h->lab, h->ns, 60000, NULL, &err, argv) == 0, "%s", err);
	free(err);
}

static void snapshot(struct lab_host *a, struct lab_host *b, struct lab_guest *g)
{
	char *err = NULL;

	lab_check(a->lab,
		  !lab_decant(a, 60000, NULL, &err,
			      (const char *const[]){"snapshot", g->name, "--to", b->to, "--name",
						    "big", "--wait", NULL}),
		  "decant snapshot: %s", err);
	free(err);
}

Test(gigantic, snapshot_restore_and_precopy)
{
	/* Of which it uses a part only: the rest of its page are zeros. */
	struct lab_guest_opts opts = {.mb = 128, .kind = LAB_GIGANTIC, .writes = 500};
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g;

	if (!lab_gigantic_pages(lab, 2)) {
		lab_end(lab);
		cr_skip_test("2 pages of 1 GiB cannot be reserved");
	}
	g = lab_guest_start(a, &opts);
	refused(a, b, g, "hybrid", "fail");
	refused(a, b, g, "postcopy", "fail");
	refused(a, b, g, "precopy", "postcopy");

	/* Its writers run on while it is stored; what was stored is the memory of one instant. */
	snapshot(a, b, g);
	lab_guest_verified(g);
	check_memory(lab, a->source);
	kill(g->proc->pid, SIGTERM);
	lab_proc_wait(lab, g->proc, 5000);
	restored(b);
	lab_guest_arrived(g, b);

	json_decref(lab_migrate(
		b, a, g,
		&(struct lab_move){.mode = "precopy",
				   .args = {"--max-passes", "2", "--no-convergence", "stop",
					    "--switchover-timeout-ms", "30000"}}));
	lab_guest_arrived(g, a);
	check_memory(lab, b->source);
	check_memory(lab, b->dest);
	check_memory(lab, a->dest);
	lab_end(lab);
}
