/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `make demo`: two hosts on this machine, a guest that never stops writing and verifying its memory,
 * and the command that moves it. Environment: GUEST_MB (256), MODE (hybrid), WRITES (pages a second,
 * 0 as fast as it can; 20000).
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "lib/lab_guest.h"
#include "lib/lab_job.h"

static void demo_failed(const char *msg)
{
	fprintf(stderr, "\nThe demo failed: %s\n", msg);
	exit(1);
}

static unsigned int number(const char *name, unsigned int dflt, unsigned int min, unsigned int max)
{
	const char *s = getenv(name);
	unsigned long v = dflt;
	char *end;

	if (s && *s) {
		v = strtoul(s, &end, 10);
		if (*end || v < min || v > max) {
			fprintf(stderr, "%s=%s: a number from %u to %u is wanted\n", name, s, min,
				max);
			exit(2);
		}
	}
	return (unsigned int)v;
}

static const char *mode(void)
{
	const char *s = getenv("MODE");

	if (!s || !*s)
		return "hybrid";
	if (strcmp(s, "hybrid") != 0 && strcmp(s, "postcopy") != 0 && strcmp(s, "precopy") != 0) {
		fprintf(stderr, "MODE=%s: hybrid, postcopy or precopy is wanted\n", s);
		exit(2);
	}
	return s;
}

/* Run the operator's command as a person would see it, but keep its JSON. */
static json_t *migrate(struct lab_host *a, struct lab_host *b, const char *how)
{
	char program[LAB_PATH_MAX + 32], api[LAB_PATH_MAX + 16], file[LAB_PATH_MAX + 16];
	const char *const argv[] = {program, "--api", api,      "--json", "migrate", "demo",
				    "--to",  b->to,   "--mode", how,      "--wait",  NULL};
	json_t *job;
	int status;
	pid_t pid;

	snprintf(program, sizeof(program), "%s/decant", a->lab->build);
	snprintf(api, sizeof(api), "unix:%s", a->source_sock);
	snprintf(file, sizeof(file), "%s/job.json", a->lab->root);
	printf("\n$ decant migrate demo --to %s --mode %s --wait\n", b->to, how);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

		dup2(fd, 1);
		execv(program, (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	lab_check(a->lab, pid > 0 && waitpid(pid, &status, 0) == pid, "fork: %m");
	lab_check(a->lab, WIFEXITED(status) && WEXITSTATUS(status) == 0,
		  "decant migrate ended with %d", WEXITSTATUS(status));
	job = json_load_file(file, 0, NULL);
	lab_check(a->lab, job, "no JSON from decant migrate");
	return job;
}

static void summary(struct lab *lab, json_t *job, const struct lab_report *after, double seconds)
{
	double sent = lab_num(lab, job, "memory.sent_bytes");

	printf("\n");
	printf("mode      %s, writes tracked by %s, %.0f passes\n", lab_str(lab, job, "mode"),
	       lab_str(lab, job, "tracking.kind"), lab_num(lab, job, "memory.passes"));
	printf("sent      %.1f MiB of memory in %.2f s: %.2f Gbit/s\n", sent / (1 << 20), seconds,
	       sent * 8 / seconds / 1e9);
	printf("downtime  %.1f ms\n", lab_num(lab, job, "downtime_us") / 1000);
	printf("faults    %.0f, latency p50 %.0f us, p99 %.0f us\n",
	       lab_num(lab, job, "postcopy.faults"), lab_num(lab, job, "postcopy.latency_us.p50"),
	       lab_num(lab, job, "postcopy.latency_us.p99"));
	printf("guest     verified all %lu pages at the destination, %lu bad; paused after write "
	       "%lu, went on from there to %lu\n",
	       after->pages, after->bad, after->counter_at_arrival, after->counter);
	printf("digest    %s\n", json_is_true(lab_at(job, "digest_ok")) ? "ok" : "NOT ok");
}

int main(void)
{
	unsigned int mb = number("GUEST_MB", 256, 1, 65536);
	unsigned int writes = number("WRITES", 20000, 0, 100000000);
	const char *how = mode();
	struct lab_report after;
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab *lab;
	uint64_t began, ended;
	json_t *job;

	signal(SIGPIPE, SIG_IGN);
	lab = lab_new(demo_failed);
	printf("Starting decant-source (host a) and decant-dest (host b) with throw-away "
	       "certificates.\n");
	a = lab_host_start(lab, &(struct lab_host_opts){.name = "a", .no_dest = true});
	b = lab_host_start(lab, &(struct lab_host_opts){.name = "b",
							.no_source = true,
							.dest_conf = "{\"source_api\": null}"});
	printf("Starting the guest: %u MiB, two threads that write and check ", mb);
	if (writes)
		printf("%u pages a second.\n", writes);
	else
		printf("pages as fast as they can.\n");
	g = lab_guest_start(
		a, &(struct lab_guest_opts){
			   .name = "demo", .mb = mb, .threads = 2, .writes = (writes + 1) / 2});
	lab_guest_verified(g);

	began = lab_now_ms();
	job = migrate(a, b, how);
	ended = lab_now_ms();
	printf("It runs on host b. Waiting until it has verified every page there.\n");
	lab_guest_arrived(g, b);
	after = lab_guest_report(g);
	summary(lab, job, &after, (double)(ended - began) / 1000);
	json_decref(job);
	lab_end(lab);
	printf("\nAll agents and guests have ended.\n");
	return 0;
}
