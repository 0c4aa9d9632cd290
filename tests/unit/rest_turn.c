/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that cost much: together they get a tenth of the thread, in their order, and none is lost. */
#include <sys/socket.h>
#include "unit/rest_fixture.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define N       40
#define COST_US 5000

/** struct seen - @order: numbers of the requests as they were served, @n of them; on the loop's thread */
struct seen {
	struct fixture f;
	_Atomic int n;
	int order[N + 1];
};

static void get_dear(struct rest_req *req, void *ctx)
{
	uint64_t end = clock_thread_us() + COST_US;
	struct seen *s = ctx;

	while (clock_thread_us() < end)
		continue;
	s->order[s->n++] = atoi(rest_query(req, "n"));
	rest_reply(req, 200, json_object());
}

static const struct rest_route routes[] = {
	{"GET", "/v1/dear", REST_READER, REST_BODY_NONE, get_dear},
};

static struct seen *set_up(void)
{
	struct seen *s = calloc(1, sizeof(*s));

	s->f.ctx = s;
	fixture_start(&s->f, routes, ARRAY_SIZE(routes));
	return s;
}

static void tear_down(struct seen *s)
{
	fixture_stop(&s->f);
	free(s);
}

static void ask_all(struct seen *s, int fds[static N])
{
	for (int i = 0; i < N; i++) {
		char request[100];
		int n = snprintf(
			request, sizeof(request),
			"GET /v1/dear?n=%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", i);

		fds[i] = fixture_connect(&s->f);
		cr_assert(eq(int, (int)write(fds[i], request, (size_t)n), n));
		/* Who has said all that he had to say gets his answer all the same. */
		shutdown(fds[i], SHUT_WR);
	}
}

Test(rest_turn, a_flood_waits_and_is_answered_in_its_order)
{
	struct seen *s = set_up();
	uint64_t us = clock_us();
	int fds[N];

	ask_all(s, fds);
	for (int i = 0; i < N; i++) {
		char *out = fixture_read(fds[i]);

		cr_expect(starts(out, "HTTP/1.1 200"), "request %d: %s", i, out);
		free(out);
		close(fds[i]);
	}
	us = clock_us() - us;
	/* But for the first 50 ms and the last request ten times as long as they cost, on any machine. */
	cr_expect(ge(u64, us, (N - 1) * COST_US * 10 - 510000), "it was over in %d ms",
		  (int)(us / 1000));
	for (int i = 0; i < N; i++)
		cr_expect(eq(int, s->order[i], i));
	tear_down(s);
}

Test(rest_turn, one_that_waits_may_go)
{
	struct seen *s = set_up();
	int fds[N];
	struct rest_answer a;

	ask_all(s, fds);
	for (int i = N / 2; i < N; i++)
		close(fds[i]);
	a = fixture_ask(&s->f, "GET", "/v1/dear?n=99", NULL);
	cr_expect(eq(int, a.status, 200));
	rest_answer_clear(&a);
	cr_expect(lt(int, s->n, N + 1));
	for (int i = 0; i < N / 2; i++)
		close(fds[i]);
	tear_down(s);
}
