/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `make demo`: two hosts on this machine, a guest that never stops writing and verifying its memory,
 * and the command that moves it. Environment: GUEST_MB (256), MODE (hybrid), WRITES (pages a second,
 * 0 as fast as it can; 20000).
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "demo/demo_lib.h"
#include "lib/lab_guest.h"

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
	unsigned int mb = demo_number("GUEST_MB", 256, 1, 65536);
	unsigned int writes = demo_number("WRITES", 20000, 0, 100000000);
	const char *how = demo_mode();
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
	job = demo_migrate(a, b, "demo", how);
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
