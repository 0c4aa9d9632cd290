/* SPDX-License-Identifier: Apache-2.0 */
/* Who is gone, and who is only slow. tests/faults/net.c has the wires. */
#include <criterion/criterion.h>
#include <stdbool.h>

#include "tls/tls_silence.h"

#define S 1000000ull

/* Looked at every half second from 0 to @until. Return: when it was first taken for gone; 0: never */
static uint64_t found(struct tls_heard (*at)(uint64_t now), uint64_t until)
{
	struct tls_silence s = {0};

	for (uint64_t now = S / 2; now <= until; now += S / 2) {
		struct tls_heard h = at(now);

		if (tls_silence_judge(&s, &h, 77 * S + now))
			return now;
	}
	return 0;
}

/* What is due is repeated after 200 ms, and with pauses that double. */
static struct tls_heard gone(uint64_t now)
{
	struct tls_heard h = {.due = true, .acked = 1000, .heard_us = now};

	for (uint64_t rto = S / 5, t = rto; t <= now; rto *= 2, t += rto)
		h.repeats++;
	return h;
}

Test(tls_silence, a_peer_that_is_gone_is_found_in_seconds)
{
	uint64_t us = found(gone, 20 * S);

	cr_assert(us >= 4 * S && us <= 6 * S, "after %lu us", us);
}

/* Round trips of a second, and nothing gets through for some of them. */
static struct tls_heard starves(uint64_t now)
{
	struct tls_heard h = {.due = true, .acked = now / (10 * S), .heard_us = now % (10 * S)};

	for (uint64_t rto = 3 * S / 2, t = rto; t <= h.heard_us; rto *= 2, t += rto)
		h.repeats++;
	return h;
}

Test(tls_silence, one_that_starves_is_not_taken_for_gone)
{
	cr_assert_eq(found(starves, 60 * S), 0);
}

/* Nothing is sent, and the kernel's probes from 2 s on are not answered. */
static struct tls_heard idle_and_gone(uint64_t now)
{
	return (struct tls_heard){.probes = now < 2 * S ? 0 : (unsigned int)(now / S) - 1,
				  .heard_us = now};
}

Test(tls_silence, an_idle_one_is_found_by_probes)
{
	uint64_t us = found(idle_and_gone, 20 * S);

	cr_assert(us >= 4 * S && us <= 6 * S, "after %lu us", us);
}

static struct tls_heard idle(uint64_t now)
{
	return (struct tls_heard){.heard_us = now % (2 * S), .acked = 5};
}

Test(tls_silence, an_idle_one_that_answers_stays)
{
	cr_assert_eq(found(idle, 60 * S), 0);
}

/* Each answer begins the time anew, however little it is, and so does nothing to wait for. */
static struct tls_heard little_by_little(uint64_t now)
{
	return (struct tls_heard){.due = now % (5 * S) != 0,
				  .acked = now / (3 * S),
				  .repeats = 9,
				  .heard_us = now % (3 * S)};
}

Test(tls_silence, progress_counts)
{
	cr_assert_eq(found(little_by_little, 60 * S), 0);
}
