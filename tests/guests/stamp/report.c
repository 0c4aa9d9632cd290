/* SPDX-License-Identifier: Apache-2.0 */
/* The report of stamp. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "guests/stamp/stamp.h"

static uint64_t latency_quantile(struct latency *l, double q)
{
	uint64_t want = (uint64_t)(q * (double)stamp_get(l->n)), seen = 0;

	for (size_t i = 0; i < 8 * 40; i++) {
		seen += stamp_get(l->count[i]);
		if (seen > want)
			return i < 8 ? i : (8 + i % 8) << (i / 8 - 1);
	}
	return stamp_get(l->max_us);
}

static uint64_t longest_stall(struct stamp *s)
{
	uint64_t longest = stamp_get(s->longest_stall_us), now = stamp_now_us();

	for (size_t i = 0; i < STAMP_THREADS_MAX + STAMP_VERIFIERS; i++) {
		uint64_t since = stamp_get(s->worker[i].since_us);

		if (since && now > since && now - since > longest)
			longest = now - since;
	}
	return longest;
}

/* Pages of the second half that were ever written to. */
static uint64_t grown(const struct stamp *s)
{
	uint64_t n = 0;

	for (uint64_t page = s->grow ? s->pages / 2 : s->pages; page < s->pages; page++)
		n += stamp_get(s->counts[page]) > 0;
	return n;
}

static void print_first_bad(struct stamp *s, FILE *f)
{
	struct bad b;

	pthread_mutex_lock(&s->lock);
	b = s->first_bad;
	pthread_mutex_unlock(&s->lock);
	if (!stamp_get(s->bad_pages)) {
		fprintf(f, " \"first_bad\": null,\n");
		return;
	}
	fprintf(f,
		" \"first_bad\": {\"page\": %" PRIu64 ", \"block\": %" PRIu64
		", \"offset\": %" PRIu64 ", \"what\": \"%s\", \"expected\": {\"page\": %" PRIu64
		", \"count\": %" PRIu64 ", \"zero\": %s}, \"got\": {\"page\": %" PRIu64
		", \"count\": %" PRIu64 "}},\n",
		b.page, b.page / s->per_block, b.page % s->per_block * STAMP_PAGE, b.what, b.page,
		b.count, b.zero ? "true" : "false", b.got_page, b.got_count);
}

static void print_report(struct stamp *s, FILE *f, bool ended)
{
	fprintf(f,
		"{\"name\": \"%s\", \"pid\": %d, \"ended\": %s, \"pages\": %" PRIu64
		", \"grown_pages\": %" PRIu64 ",\n",
		s->name, (int)getpid(), ended ? "true" : "false", s->pages, grown(s));
	fprintf(f, " \"arrivals\": %" PRIu64 ", \"counter\": %" PRIu64 ",\n",
		stamp_get(s->arrivals), stamp_get(s->counter));
	fprintf(f,
		" \"counter_at_pause\": %" PRIu64 ", \"counter_at_arrival\": %" PRIu64
		", \"counter_gap\": %" PRId64 ", \"arrival_gap_us\": %" PRIu64 ",\n",
		stamp_get(s->counter_at_pause), stamp_get(s->counter_at_arrival),
		stamp_get(s->counter_gap), stamp_get(s->arrival_gap_us));
	fprintf(f,
		" \"verifications\": %" PRIu64 ", \"verifying\": %s, \"verified_pages\": %" PRIu64
		", \"bad_pages\": %" PRIu64 ",\n",
		stamp_get(s->verifications),
		stamp_get(s->verifying) || s->verify_wanted ? "true" : "false",
		stamp_get(s->verified_pages), stamp_get(s->bad_pages));
	print_first_bad(s, f);
	fprintf(f,
		" \"paused\": %s, \"pauses\": %" PRIu64 ", \"longest_pause_us\": %" PRIu64
		", \"longest_stall_us\": %" PRIu64 ",\n",
		stamp_get(s->paused) ? "true" : "false", stamp_get(s->pauses),
		stamp_get(s->longest_pause_us), longest_stall(s));
	fprintf(f,
		" \"fault_latency\": {\"faults\": %" PRIu64 ", \"p50\": %" PRIu64
		", \"p99\": %" PRIu64 ", \"max\": %" PRIu64 "}}\n",
		stamp_get(s->faults.n), latency_quantile(&s->faults, 0.5),
		latency_quantile(&s->faults, 0.99), stamp_get(s->faults.max_us));
}

void report_write(struct stamp *s, bool ended)
{
	char temp[4096];
	FILE *f;

	if (!s->report)
		return;
	snprintf(temp, sizeof(temp), "%s.%d.tmp", s->report, (int)getpid());
	f = fopen(temp, "we");
	if (f)
		print_report(s, f, ended);
	if (!f || fclose(f) || rename(temp, s->report))
		fprintf(stderr, "stamp %s: %s: %s\n", s->name, s->report, strerror(errno));
}
