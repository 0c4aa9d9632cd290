/* SPDX-License-Identifier: Apache-2.0 */
/* What /metrics of both agents says: well-formed, what the JSON says, and bounded. */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "lib/lab_test.h"
#include "lib/lab_wire.h"

TestSuite(metrics, .timeout = 120);

static char *scrape(struct lab *lab, const char *sock)
{
	char *text = NULL;
	int r = lab_http(sock, "GET", "/metrics", NULL, &text);

	lab_check(lab, r == 200 && text, "/metrics: %d", r);
	return text;
}

/* Return: the value of this very sample; NAN without */
static double value(const char *text, const char *sample)
{
	size_t n = strlen(sample);

	for (const char *at = text; (at = strstr(at, sample)); at += n)
		if ((at == text || at[-1] == '\n') && at[n] == ' ')
			return strtod(at + n, NULL);
	return NAN;
}

static double sample(struct lab *lab, const char *sock, const char *name)
{
	char *text = scrape(lab, sock);
	double v = value(text, name);

	free(text);
	return v;
}

static double of_job(struct lab *lab, const char *text, const char *family, json_t *job)
{
	char name[160];
	double v;

	snprintf(name, sizeof(name), "%s{job=\"%s\"}", family, lab_str(lab, job, "id"));
	v = value(text, name);
	lab_check(lab, !isnan(v), "no sample %s", name);
	return v;
}

/* Names, units, help, types, no family and no sample twice: promtool knows the conventions. */
static void check_form(struct lab *lab, const char *sock, const char *which)
{
	char path[LAB_PATH_MAX + 64], command[2 * LAB_PATH_MAX], *text = scrape(lab, sock), *out;
	int r;

	snprintf(path, sizeof(path), "%s/%s.metrics", lab->root, which);
	lab_write_file(lab, path, text);
	free(text);
	snprintf(command, sizeof(command), "promtool check metrics <%s 2>&1", path);
	r = lab_run(lab, NULL, 20000, &out, NULL, (const char *[]){"/bin/sh", "-c", command, NULL});
	lab_check(lab, r == 0 && !*out, "promtool (%d) says of %s: %s", r, path, out);
	free(out);
}

static void as_the_object(struct lab *lab, struct lab_host *a, struct lab_host *b)
{
	/* Taken one after the other, so that what only rises stands between. */
	static const struct {
		const char *family;
		const char *member;
	} rising[] = {
		{"decant_job_memory_bytes", "memory.total_bytes"},
		{"decant_job_sent_bytes_total", "memory.sent_bytes"},
		{"decant_job_wire_bytes_total", "memory.wire_bytes"},
		{"decant_job_zero_pages_total", "memory.zero_pages"},
		{"decant_job_passes_total", "memory.passes"},
		{"decant_job_requests_total", "postcopy.requests"},
	};
	json_t *before = lab_job_newest(a), *after;
	char *text = scrape(lab, a->source_sock), *theirs = scrape(lab, b->dest_sock);

	after = lab_job_newest(a);
	for (size_t i = 0; i < LAB_COUNT(rising); i++) {
		double v = of_job(lab, text, rising[i].family, before);

		lab_check(lab,
			  v >= lab_num(lab, before, rising[i].member) &&
				  v <= lab_num(lab, after, rising[i].member),
			  "%s is %.0f, %s %.0f", rising[i].family, v, rising[i].member,
			  lab_num(lab, after, rising[i].member));
	}
	lab_check(lab, of_job(lab, text, "decant_job_remaining_bytes", before) > 0, "remaining");
	lab_check(lab, of_job(lab, theirs, "decant_incoming_received_bytes_total", before) > 0,
		  "nothing has come");
	lab_check(lab, of_job(lab, theirs, "decant_incoming_missing_bytes", before) > 0,
		  "nothing is missing");
	lab_check(lab, strstr(theirs, "decant_incoming_channel_received_bytes_total{"),
		  "no channels there");
	lab_check(lab, strstr(text, "kind=\"bulk\"") && strstr(text, "channel_queue_runs{"),
		  "no channels");
	free(text);
	free(theirs);
	json_decref(before);
	json_decref(after);
}

static void sums_are(struct lab *lab, struct lab_host *a, struct lab_host *b, json_t *job)
{
	char *text = scrape(lab, a->source_sock), *theirs = scrape(lab, b->dest_sock);
	double sent = lab_num(lab, job, "memory.sent_bytes");

	lab_check(lab,
		  value(text,
			"decant_jobs_ended_total{kind=\"migration\",outcome=\"completed\"}") == 1,
		  "it is not counted");
	lab_check(lab, value(text, "decant_memory_sent_bytes_total") == sent, "%.0f for %.0f",
		  value(text, "decant_memory_sent_bytes_total"), sent);
	lab_check(lab, value(text, "decant_downtime_seconds_count") == 1, "downtime");
	lab_check(lab,
		  fabs(value(text, "decant_downtime_seconds_sum") * 1e6 -
		       lab_num(lab, job, "downtime_us")) < 2,
		  "another downtime");
	lab_check(lab, value(text, "decant_bandwidth_sent_bytes_total{class=\"bulk\"}") > 0,
		  "bandwidth");
	lab_check(lab, value(theirs, "decant_incoming_ended_total{outcome=\"completed\"}") == 1,
		  "it has not ended there");
	lab_check(lab, value(theirs, "decant_faults_total") == lab_num(lab, job, "postcopy.faults"),
		  "%.0f faults for %.0f", value(theirs, "decant_faults_total"),
		  lab_num(lab, job, "postcopy.faults"));
	lab_check(lab, value(theirs, "decant_fault_latency_seconds_count") > 0, "fault latency");
	lab_check(lab,
		  value(text, "decant_request_service_seconds_count") > 0 &&
			  value(text, "decant_request_service_seconds_sum") <
				  value(theirs, "decant_fault_latency_seconds_sum"),
		  "service of requests");
	/* What is labelled with a job ends with it. */
	lab_check(lab, !strstr(text, lab_str(lab, job, "id")), "the job is still there");
	lab_check(lab, !strstr(theirs, lab_str(lab, job, "id")), "the job is still there");
	free(text);
	free(theirs);
}

Test(metrics, of_a_migration)
{
	struct lab_move move = {.mode = "hybrid", .args = {"--bandwidth", "100Mbit"}};
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 24, .threads = 2});
	struct lab_proc *p = lab_migrate_begin(a, b, g, &move);
	json_t *job;

	lab_until(lab, 20000, lab_job_phase_is(a, "precopy"), "precopy was not reached");
	lab_until(lab, 10000, sample(lab, b->dest_sock, "decant_memory_received_bytes_total") > 1e6,
		  "nothing comes");
	as_the_object(lab, a, b);
	check_form(lab, a->source_sock, "source");
	check_form(lab, b->dest_sock, "dest");
	job = lab_migrate_end(a, p, &move);
	lab_guest_arrived(g, b);
	lab_until(lab, 10000, sample(lab, b->dest_sock, "decant_incoming") == 0,
		  "it never settles");
	sums_are(lab, a, b, job);
	json_decref(job);
	lab_end(lab);
}

/* Who is not let in is counted at both ends, by reason, also when the pages would have been asked for over control. */
Test(metrics, of_refusals)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a = lab_host_start(lab, &(struct lab_host_opts){.name = "a"}),
			*b = lab_host_start(lab,
					    &(struct lab_host_opts){
						    .name = "b",
						    .dest_conf = "{\"limits\": {\"memory_bytes\": "
								 "10000000}}"});
	struct lab_guest *large = lab_guest_start(
				 a, &(struct lab_guest_opts){.name = "large", .mb = 16}),
			 *small = lab_guest_start(
				 a, &(struct lab_guest_opts){.name = "small", .mb = 8});

	json_decref(lab_migrate(
		a, b, large,
		&(struct lab_move){.exit = 3, .phase = "failed", .code = "limit-memory"}));
	lab_check(lab,
		  sample(lab, a->source_sock, "decant_jobs_failed_total{code=\"limit-memory\"}") ==
			  1,
		  "not counted where it stayed");
	lab_check(lab,
		  sample(lab, b->dest_sock,
			 "decant_incoming_refused_total{reason=\"limit-memory\"}") == 1,
		  "not counted where it was refused");
	/* Without an urgent channel; and its pages do not all come before it asks for one. */
	json_decref(
		lab_migrate(a, b, small,
			    &(struct lab_move){.mode = "postcopy",
					       .args = {"--no-urgent", "--bandwidth", "50Mbit"}}));
	lab_guest_arrived(small, b);
	lab_check(lab, sample(lab, a->source_sock, "decant_request_service_seconds_count") > 0,
		  "requests over control are not counted");
	check_form(lab, a->source_sock, "source");
	check_form(lab, b->dest_sock, "dest");
	lab_end(lab);
}

static double refused(struct lab_host *h, const char *reason)
{
	char name[128];

	snprintf(name, sizeof(name), "decant_tls_handshakes_refused_total{reason=\"%s\"}", reason);
	return sample(h->lab, h->dest_sock, name);
}

Test(metrics, of_strangers)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	char command[128], *text;

	lab_check(lab, refused(b, "tls-no-certificate") == 0 && refused(b, "tls-plaintext") == 0,
		  "somebody was refused before");
	snprintf(command, sizeof(command),
		 "echo | openssl s_client -connect %s -alpn decant/1 2>&1", b->to);
	lab_run(lab, NULL, 20000, NULL, NULL, (const char *[]){"/bin/sh", "-c", command, NULL});
	snprintf(command, sizeof(command),
		 "exec 3<>/dev/tcp/%s/%u; echo GET / >&3; cat <&3 >/dev/null", b->address, b->port);
	lab_run(lab, NULL, 20000, NULL, NULL, (const char *[]){"/bin/bash", "-c", command, NULL});
	lab_until(lab, 5000, refused(b, "tls-no-certificate") == 1, "one without a certificate");
	lab_until(lab, 5000, refused(b, "tls-plaintext") == 1, "one without TLS");
	/* Certificates that are read again do not make the count begin anew. */
	kill(b->dest->pid, SIGHUP);
	lab_until(lab, 5000, lab_proc_said(lab, b->dest, "certificates reloaded"), "no reload");
	lab_check(lab, refused(b, "tls-plaintext") == 1, "the count began anew");
	text = scrape(lab, b->dest_sock);
	lab_check(lab, value(text, "process_open_fds") > 5, "descriptors");
	lab_check(lab, value(text, "process_resident_memory_bytes") > 1e6, "memory");
	lab_check(lab, value(text, "process_cpu_seconds_total") >= 0, "CPU time");
	lab_check(lab, strstr(text, "decant_build_info{agent=\"dest\",version=\""), "build");
	free(text);
	lab_end(lab);
}
