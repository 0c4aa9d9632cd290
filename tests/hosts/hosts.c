/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two hosts as an operator has them (S3, S5): machines that boot Debian with systemd, on which decant is
 * installed from its package. All of host a's guests leave for host b by `systemctl start
 * decant-evacuate@host-b`; in the middle of post-copy host b's decant-dest is killed and restarted, and
 * the guest, which checks every page that it touches, has to wait and nothing else. Then the host that is empty
 * is started again, and gets its guest back because host b is shut down.
 *
 * The kernel is Debian's, which has no asynchronous write protection.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "hosts/machine.h"
#include "lib/lab_test.h"

TestSuite(hosts, .timeout = 3500);

#define GUEST "counter"
#define MB    64
/* Of post-copy: half a minute, if nothing happened meanwhile. */
#define BANDWIDTH "16Mbit"
/* Longer than a lost connection, and being started again, take: then the logs are shown. */
#define LONG_WAIT_S 8.0
#define STAMP                                                                                \
	"\"/usr/local/bin/stamp\", \"--name\", \"{name}\", \"--mb\", \"64\", \"--writes\", " \
	"\"100\", "                                                                          \
	"\"--report\", \"/run/{name}.report\""

/* --- what is copied to the hosts --- */

static void run(struct lab *lab, const char *fmt, ...)
{
	char line[2048], *err = NULL;
	const char *const argv[] = {"/bin/sh", "-c", line, NULL};
	va_list ap;
	int status;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	status = lab_run(lab, NULL, 60000, NULL, &err, argv);
	lab_check(lab, status == 0, "%s: %s", line, err);
	free(err);
}

static void write_file(struct machine *m, const char *path, const char *text)
{
	char full[2 * LAB_PATH_MAX];

	snprintf(full, sizeof(full), "%s/files/%s", m->dir, path);
	lab_write_file(m->lab, full, text);
}

static void fill(struct machine *m, const char *other)
{
	char text[1024];

	run(m->lab,
	    "cd %s/files && mkdir -p etc/decant etc/systemd/system usr/local/bin srv && "
	    "cp %s/guests/stamp usr/local/bin/ && cp %s/../deb/decant_*.deb srv/ && "
	    "cp %s/pki/ca.pem %s/pki/crl.pem etc/decant/ && cp %s/pki/%s.pem etc/decant/host.pem "
	    "&& "
	    "cp %s/pki/%s.key etc/decant/host.key",
	    m->dir, m->lab->tests, m->lab->tests, m->lab->root, m->lab->root, m->lab->root, m->name,
	    m->lab->root, m->name);
	write_file(m, "etc/decant/source.json",
		   "{\"tls\": {\"ca\": \"/etc/decant/ca.pem\", \"cert\": \"/etc/decant/host.pem\", "
		   "\"key\": \"host.key\", \"crl\": \"/etc/decant/crl.pem\"}, "
		   "\"defaults\": {\"mode\": \"postcopy\"}}\n");
	snprintf(text, sizeof(text),
		 "{\"listen\": \"0.0.0.0:7400\", \"allow\": [\"DNS:%s\"], "
		 "\"tls\": {\"ca\": \"/etc/decant/ca.pem\", \"cert\": \"/etc/decant/host.pem\", "
		 "\"key\": \"host.key\", \"crl\": \"/etc/decant/crl.pem\"}, "
		 "\"launchers\": {\"counter\": {\"driver\": \"native\", \"argv\": [%s]}}}\n",
		 other, STAMP);
	write_file(m, "etc/decant/dest.json", text);
	snprintf(text, sizeof(text),
		 "DECANT_EVACUATE=--to %s\nDECANT_EVACUATE_OPTIONS=--bandwidth " BANDWIDTH "\n",
		 other);
	write_file(m, "etc/decant/evacuate.env", text);
	write_file(m, "srv/" GUEST ".json",
		   "{\"name\": \"" GUEST
		   "\", \"driver\": \"native\", \"launcher\": \"counter\"}\n");
	write_file(m, "etc/systemd/system/" GUEST ".service",
		   "[Unit]\nBefore=decant-evacuate-on-shutdown.service\n[Service]\n"
		   "ExecStart=/usr/local/bin/stamp --name " GUEST " --mb 64 --writes 100 "
		   "--report /run/" GUEST ".report\n");
}

/* --- what is there --- */

/* Clocks of two machines differ: a time between them may be less than nothing, which no integer of JSON is. */
static json_t *parsed(struct machine *m, char *text)
{
	json_t *o = json_loads(text, JSON_DECODE_INT_AS_REAL, NULL);

	lab_check(m->lab, o, "%s: not JSON: %s", m->name, text);
	free(text);
	return o;
}

/* Return: what the guest has written last of itself there, new reference; NULL if it has not yet */
static json_t *report(struct machine *m)
{
	char *out = NULL;
	json_t *o = NULL;

	if (machine_try(m, &out, "cat /run/" GUEST ".report") == 0)
		return parsed(m, out);
	free(out);
	return o;
}

static long long number(const json_t *o, const char *key)
{
	return (long long)json_number_value(json_object_get(o, key));
}

/* What the agent there says of the time in which the guest waited: after the test its machine is gone. */
static void explain(struct machine *m, double seconds)
{
	char *out;

	if (seconds < LONG_WAIT_S)
		return;
	out = machine_sh(m, "journalctl --no-pager -o short-monotonic -u decant-dest.service | "
			    "tail -n 60; decant-dest incoming --json; uptime");
	fprintf(stderr, "%s: the agent where it waited for so long:\n%s\n", m->name, out);
	free(out);
}

/* It has looked at all of its pages there, at least once from now on, and goes on counting. */
static void verified(struct machine *m, long long counter, const char *what)
{
	json_t *o = NULL;
	long long before;

	lab_until(m->lab, MACHINE_MS, (o = report(m)), "the guest is not on %s", m->name);
	before = number(o, "verifications");
	json_decref(o);
	machine_do(m, "pkill -USR1 -x stamp");
	lab_until(m->lab, MACHINE_MS,
		  (o = report(m)) &&
			  (number(o, "verifications") > before || (json_decref(o), false)),
		  "the guest does not look at its pages on %s", m->name);
	lab_check(m->lab, !number(o, "bad_pages") && !number(o, "counter_gap"), "%s",
		  json_dumps(o, 0));
	lab_check(m->lab, number(o, "counter") > counter, "it does not write: %s",
		  json_dumps(o, 0));
	fprintf(stderr, "%s: the guest has verified %lld pages; its longest wait for one: %.1f s\n",
		what, number(o, "pages"), (double)number(o, "longest_stall_us") / 1e6);
	explain(m, (double)number(o, "longest_stall_us") / 1e6);
	json_decref(o);
	/* Which it would take along. */
	machine_do(m, "pkill -HUP -x stamp");
}

static void agents_are_up(struct machine *m)
{
	machine_do(m, "systemctl is-active decant.target decant-source.service decant-dest.service "
		      "decant-dest.socket");
}

/* Pages that the guest has not got yet where it runs already; -1 if it does not run there, or nobody can say. */
static long long missing_pages(struct machine *m, const char *phase)
{
	char *out = NULL;
	long long n = -1;
	json_t *all, *in;
	size_t i;

	if (machine_try(m, &out, "decant-dest incoming --json 2>&-") != 0) {
		free(out);
		return -1;
	}
	all = parsed(m, out);
	json_array_foreach(json_object_get(all, "items"), i, in) {
		if (!strcmp(json_string_value(json_object_get(in, "phase")), phase))
			n = number(json_object_get(in, "memory"), "missing_pages");
	}
	json_decref(all);
	return n;
}

/* --- steps --- */

static void install(struct machine *m)
{
	machine_do(m, "tar -xf /dev/vdb -C / && chmod 755 / && chmod 600 /etc/decant/host.key && "
		      "dpkg -i /srv/decant_*.deb && systemctl daemon-reload");
	machine_do(m, "systemctl enable --now decant.target");
	agents_are_up(m);
	/* What the package has made is what the agents use. */
	machine_do(m, "[ \"$(stat -c %%G%%a /run/decant)\" = decant750 ] && "
		      "[ \"$(stat -c %%G%%a /run/decant/source.sock)\" = decant660 ]");
	machine_do(m, "setpriv --reuid=65534 --regid=65534 --groups=decant decant uncordon");
	machine_do(
		m,
		"setpriv --reuid=65534 --regid=65534 --clear-groups decant uncordon; [ $? = 4 ]");
}

static int main_pid(struct machine *m)
{
	char *out = machine_sh(m, "systemctl show -P MainPID decant-dest.service");
	int pid = atoi(out);

	free(out);
	return pid;
}

static void killed_and_restarted(struct machine *m)
{
	int was = main_pid(m), is = 0;

	machine_do(m, "kill -KILL %d", was);
	lab_until(m->lab, MACHINE_MS, (is = main_pid(m)) && is != was, "decant-dest stays dead");
	lab_until(m->lab, MACHINE_MS, missing_pages(m, "running") > 0,
		  "it does not go on after a kill");
	fprintf(stderr, "killed: %lld pages are missing\n", missing_pages(m, "running"));
	machine_do(m, "systemctl restart decant-dest.service");
	lab_until(m->lab, MACHINE_MS, missing_pages(m, "running") > 0,
		  "it does not go on after a restart");
	fprintf(stderr, "restarted: %lld pages are missing\n", missing_pages(m, "running"));
}

static void start_guest(struct machine *m)
{
	machine_do(m, "decant add /srv/" GUEST ".json && systemctl start " GUEST);
	verified(m, 0, "started");
}

static void show_downtime(struct machine *m)
{
	json_t *all = parsed(m, machine_sh(m, "decant status --json"));
	json_t *job = json_array_get(json_object_get(all, "items"), 0);

	lab_check(m->lab, !strcmp(json_string_value(json_object_get(job, "phase")), "completed"),
		  "%s", json_dumps(all, 0));
	fprintf(stderr, "stopped for %.1f ms\n", (double)number(job, "downtime_us") / 1e3);
	json_decref(all);
}

/* All of a's guests to b, by the unit. */
static void evacuate(struct machine *a, struct machine *b)
{
	char *out = NULL;
	json_t *o = report(a);
	long long counter = number(o, "counter");
	int status;

	json_decref(o);
	machine_tell(a, "systemctl start decant-evacuate@host-b");
	lab_until(a->lab, MACHINE_MS, missing_pages(b, "running") > 0, "no post-copy");
	killed_and_restarted(b);
	status = machine_ended(a, &out);
	lab_check(a->lab, status == 0, "%s: %s", out,
		  machine_sh(a, "journalctl --no-pager -u decant-evacuate@host-b"));
	free(out);
	show_downtime(a);
	lab_check(a->lab, missing_pages(b, "completed") == 0, "it is not whole");
	verified(b, counter, "evacuated");
	/* It was told to go, and has. */
	machine_do(a, "[ \"$(systemctl show -P Result " GUEST ")\" = success ] && "
		      "! systemctl is-active " GUEST);
}

/* It comes back with both agents, and guests may come here again once it is said so. */
static void reboot(struct machine *m, const char *what)
{
	uint64_t began = lab_now_ms();

	machine_tell(m, "systemctl reboot");
	machine_ended(m, NULL);
	fprintf(stderr, "%s: %s: %.0f s\n", m->name, what, machine_up(m, began));
	agents_are_up(m);
}

/* No word to decant: the host is told to restart, and its guest leaves before. */
static void leaves_by_itself(struct machine *from, struct machine *to)
{
	json_t *o = report(from);
	long long counter = number(o, "counter");

	json_decref(o);
	machine_do(to, "decant uncordon");
	machine_do(from, "systemctl enable --now decant-evacuate-on-shutdown.service");
	/* At any other time stopping it does nothing. */
	machine_do(from, "systemctl restart decant-evacuate-on-shutdown.service && pgrep -x stamp");
	reboot(from, "evacuated and started again");
	verified(to, counter, "evacuated before a shutdown");
	machine_do(from, "! pgrep -x stamp");
}

Test(hosts, evacuated_and_started_again)
{
	const char *missing = machines_missing();
	uint64_t began = lab_now_ms();
	struct machine m[2];
	struct lab *lab;

	if (missing)
		cr_skip_test("%s", missing);
	lab = lab_new(lab_test_failed);
	run(lab,
	    "deploy/decant-certs ca %s/pki && deploy/decant-certs host %s/pki host-a && "
	    "deploy/decant-certs host %s/pki host-b",
	    lab->root, lab->root, lab->root);
	for (unsigned int i = 0; i < 2; i++) {
		machine_init(lab, i, &m[i]);
		fill(&m[i], i ? "host-a" : "host-b");
		machine_boot(&m[i]);
	}
	for (unsigned int i = 0; i < 2; i++)
		fprintf(stderr, "%s: booted: %.0f s\n", m[i].name, machine_up(&m[i], began));
	for (unsigned int i = 0; i < 2; i++)
		install(&m[i]);
	start_guest(&m[0]);
	evacuate(&m[0], &m[1]);
	reboot(&m[0], "started again");
	leaves_by_itself(&m[1], &m[0]);
	for (unsigned int i = 0; i < 2; i++) {
		lab_proc_kill(lab, m[i].qemu);
		machine_free(&m[i]);
	}
	lab_end(lab);
}
