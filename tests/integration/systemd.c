/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agents as units of a real systemd on two hosts (S5): they say that they are ready and what they
 * do, are watched, get their listening socket and their key from systemd, and start guests in units of
 * decant-guests.slice, outside of their own confinement. Killed or restarted in the middle of
 * post-copy they come back by themselves, and the guest goes on.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/lab_micro.h"
#include "lib/lab_systemd.h"
#include "lib/lab_pace.h"
#include "lib/lab_test.h"

TestSuite(systemd, .timeout = 300);

static void up(struct lab_systemd *sd)
{
	static const char *const units[] = {"decant-source.service", "decant-dest.service"};

	free(lab_systemctl(sd, "start decant.target"));
	for (size_t i = 0; i < LAB_COUNT(units); i++) {
		lab_check(sd->lab, lab_systemctl_is(sd, units[i], "ActiveState", "active"),
			  "%s of host %s is not up: %s", units[i], sd->host->name,
			  lab_systemctl(sd, "status -n 30 'decant-*' | grep -v '^ ' || :"));
		lab_check(sd->lab, lab_systemctl_is(sd, units[i], "WatchdogUSec", "30s"),
			  "%s is not watched", units[i]);
	}
	/* Said behind READY=1. */
	lab_until(sd->lab, 5000, lab_systemctl_is(sd, units[1], "StatusText", "0 guests arriving"),
		  "status of decant-dest");
}

/* The unit of the guest that stands where this host's decant-dest has launched it. */
static char *guest_unit(struct lab_systemd *sd)
{
	char *out = lab_systemctl(
		sd, "list-units --plain --no-legend --state=running 'decant-guest-*.service' | "
		    "cut -d' ' -f1");

	out[strcspn(out, "\n")] = '\0';
	lab_check(sd->lab, *out, "no unit of a guest on host %s", sd->host->name);
	return out;
}

/* What the agent may not, its guest may: systemd has started it, not the agent. */
static void is_unconfined(struct lab_systemd *sd, const char *unit)
{
	char path[64], *text;
	pid_t pid = lab_systemctl_pid(sd, unit);

	lab_check(sd->lab, pid > 0, "%s has no process", unit);
	lab_check(sd->lab, lab_systemctl_is(sd, unit, "Slice", "decant-guests.slice"), "%s", unit);
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	text = lab_read_file(path);
	lab_check(sd->lab, text && strstr(text, "NoNewPrivs:\t0") && strstr(text, "Seccomp:\t0"),
		  "the guest is confined: %s", text);
	free(text);
	snprintf(path, sizeof(path), "/proc/%d/status",
		 lab_systemctl_pid(sd, "decant-dest.service"));
	text = lab_read_file(path);
	lab_check(sd->lab, text && strstr(text, "NoNewPrivs:\t1") && strstr(text, "Seccomp:\t2"),
		  "the agent is not: %s", text);
	free(text);
}

/* In post-copy, and not whole there yet. */
static bool under_way(struct lab_host *h)
{
	json_t *job = lab_job_newest(h);
	bool is = !strcmp(lab_str(h->lab, job, "phase"), "postcopy") &&
		  lab_num(h->lab, job, "memory.remaining_bytes") > 0;

	json_decref(job);
	return is;
}

/* Some seconds of post-copy, though the guest asks for all of its pages: killed, restarted, and the other agent restarted. */
static void agents_come_back(struct lab_systemd sd[2], struct lab_guest *g)
{
	static const struct lab_move move = {.mode = "postcopy", .args = {"--bandwidth", "64Mbit"}};
	struct lab_host *a = sd[0].host, *b = sd[1].host;
	pid_t was = lab_systemctl_pid(&sd[1], "decant-dest.service"), is = 0;
	struct lab_proc *command = lab_migrate_begin(a, b, g, &move);

	lab_until(a->lab, 20000, lab_job_phase_is(a, "postcopy"), "it is not in post-copy");
	lab_check(a->lab, kill(was, SIGKILL) == 0, "kill: %m");
	lab_until(a->lab, 10000,
		  (is = lab_systemctl_pid(&sd[1], "decant-dest.service")) > 0 && is != was,
		  "decant-dest does not come back");
	lab_until(a->lab, 20000, under_way(a), "the migration does not go on after a kill");
	free(lab_systemctl(&sd[1], "restart decant-dest.service"));
	lab_until(a->lab, 20000, under_way(a), "the migration does not go on after a restart");
	free(lab_systemctl(&sd[0], "restart decant-source.service"));
	lab_check(a->lab, lab_proc_wait(a->lab, command, 60000) == 0, "the command has failed");
	lab_check(a->lab, lab_job_phase_is(a, "completed"), "it is not completed");
	lab_guest_arrived(g, b);
}

/* All of host b's guests leave for host a. */
static void evacuated(struct lab_systemd sd[2], struct lab_guest *g)
{
	char line[192];

	snprintf(line, sizeof(line),
		 "start decant-evacuate@%s || { journalctl --no-pager -o cat; exit 1; }",
		 sd[0].host->to);
	free(lab_systemctl(&sd[1], line));
	lab_guest_arrived(g, sd[0].host);
	lab_check(
		g->lab,
		!lab_decant(sd[1].host, 10000, NULL, NULL, (const char *const[]){"uncordon", NULL}),
		"uncordon");
}

static void number_kept(struct lab_systemd *sd, const char *n)
{
	lab_until(sd->lab, 10000,
		  lab_systemctl_is(sd, "decant-dest.service", "NFileDescriptorStore", n),
		  "systemd does not keep %s descriptors", n);
}

/*
 * Nobody but the agent has the userfaultfd of this micro-VM: with the last copy its missing pages would
 * become zeros, which it would see. systemd keeps one over the agent's death, and gives it back.
 */
static void descriptor_is_kept(struct lab_systemd *sd)
{
	struct lab_host *b = sd->host;
	pid_t agent = lab_systemctl_pid(sd, "decant-dest.service");
	struct lab_proc *p;
	char *id, *said;

	micro_memory(b, "memory", 160ul << 20);
	micro_import(b, "memory", "vm");
	number_kept(sd, "0\n");
	id = micro_uffd(b, "vm", "vm.sock");
	p = micro_start(b, "vm", "vm.sock", "memory",
			(const char *const[]){"own=0", "threads=1", NULL});
	lab_until(b->lab, 10000, micro_phase_is(b, id, "serving"), "it is not served");
	lab_check(b->lab, !kill(agent, SIGKILL), "kill: %m");
	said = lab_read_file(lab_host_path(b, "decant-dest.err"));
	lab_check(b->lab, said && !strstr(said, "serving -> completed"),
		  "it had all pages already: that proves nothing");
	free(said);
	micro_ok(b, p);
	lab_until(b->lab, 10000, lab_http(b->dest_sock, "GET", "/v1/health", NULL, NULL) == 200,
		  "decant-dest does not come back");
	lab_until(b->lab, 10000, micro_phase_is(b, id, "completed"), "it is not served to the end");
	number_kept(sd, "0\n");
	micro_end(b, p, id, "completed");
	free(id);
}

/*
 * One connects, and says what it says once, in the moment in which the agent is killed: it is in the queue of the socket,
 * which systemd keeps.
 */
static void connection_is_kept(struct lab_systemd *sd)
{
	struct lab_host *b = sd->host;
	pid_t agent = lab_systemctl_pid(sd, "decant-dest.service");
	char *id = micro_uffd(b, "vm", "late.sock");
	struct lab_proc *p;

	number_kept(sd, "1\n");
	lab_check(b->lab, !kill(agent, SIGSTOP), "kill: %m");
	p = micro_start(b, "late", "late.sock", "memory", (const char *const[]){"threads=1", NULL});
	lab_until(b->lab, 10000, micro_said(b, p, "there"), "it does not connect");
	lab_check(b->lab, !kill(agent, SIGKILL), "kill: %m");
	micro_ok(b, p);
	lab_until(b->lab, 10000, micro_phase_is(b, id, "completed"), "it is not served to the end");
	number_kept(sd, "0\n");
	micro_end(b, p, id, "completed");
	free(id);
}

Test(systemd, units)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_systemd sd[2] = {0};
	const char *missing = lab_systemd_pair(lab, sd);
	struct lab_guest *g;
	char *unit;

	if (missing) {
		lab_end(lab);
		cr_skip_test("%s", missing);
	}
	up(&sd[0]);
	up(&sd[1]);
	g = lab_guest_start(sd[0].host, &(struct lab_guest_opts){.mb = 128, .writes = 2000});
	agents_come_back(sd, g);
	unit = guest_unit(&sd[1]);
	is_unconfined(&sd[1], unit);

	/* Stopped for good, an agent takes no guest with it. */
	free(lab_systemctl(&sd[1], "stop decant.target"));
	lab_check(lab, lab_systemctl_is(&sd[1], unit, "ActiveState", "active"),
		  "the guest went with its agents");
	lab_guest_verified(g);
	up(&sd[1]);
	lab_host_knows(sd[1].host, g->name);
	evacuated(sd, g);
	descriptor_is_kept(&sd[1]);
	connection_is_kept(&sd[1]);
	free(unit);
	lab_end(lab);
}

/* The host is told to go down, and nothing else: its guest leaves before, and waits for no page until that is over. */
Test(systemd, shutdown)
{
	struct lab *lab;
	struct lab_systemd sd[2] = {0};
	const char *missing;
	struct lab_guest *g;
	char line[640], *said, *moved, *ended;
	struct pace *pace;

	lab_test_long();
	lab = lab_new(lab_test_failed);
	missing = lab_systemd_pair(lab, sd);
	if (missing) {
		lab_end(lab);
		cr_skip_test("%s", missing);
	}
	up(&sd[0]);
	up(&sd[1]);
	g = lab_guest_start(sd[0].host, &(struct lab_guest_opts){.mb = 64, .writes = 100});
	snprintf(line, sizeof(line),
		 "is-system-running; printf 'DECANT_EVACUATE=--to %s --api unix:%s\\n"
		 "DECANT_EVACUATE_OPTIONS=--mode postcopy --bandwidth 64Mbit\\n' "
		 ">/etc/decant/evacuate.env && "
		 "systemctl start decant-evacuate-on-shutdown.service",
		 sd[1].host->to, sd[0].host->source_sock);
	free(lab_systemctl(&sd[0], line));
	pace = pace_start();
	free(lab_systemctl(&sd[0], "poweroff"));
	lab_until(lab, 60000,
		  lab_http(sd[0].host->source_sock, "GET", "/v1/health", NULL, NULL) < 0,
		  "the host does not go down");
	/* Nothing of it is needed any more: all of its pages have come. */
	said = lab_read_file(lab_host_path(sd[0].host, "decant-source.err"));
	moved = said ? strstr(said, "running -> completed") : NULL;
	ended = said ? strstr(said, "Terminated: ending") : NULL;
	lab_check(lab, moved && ended && moved < ended, "%s", said);
	free(said);
	lab_guest_arrived(g, sd[1].host);
	lab_soon(lab, pace, lab_guest_report(g).stall_us, 5000000, "it waited for a page");
	pace_end(pace);
	lab_end(lab);
}
