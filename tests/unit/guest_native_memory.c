/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a guest with the real library, reached from outside. */
#include "unit/guest_one.h"

TestSuite(guest_native_memory, .init = one_start, .fini = one_stop, .timeout = 60);

static struct gmem m[2];

static void open_memory(void)
{
	struct error err = {0};

	for (uint16_t i = 0; i < 2; i++)
		cr_assert_eq(gmem_open(&m[i], p.g, i, &err), 0, "%s", err.msg);
}

static int note_range(void *arg, uint64_t off, uint64_t len)
{
	char *text = arg;

	snprintf(text + strlen(text), 100, "%lu+%lu ", off / PAIR_PAGE, len / PAIR_PAGE);
	return 0;
}

static const char *ranges(const struct gmem *mem)
{
	static char text[1000];

	text[0] = '\0';
	cr_assert_eq(gmem_data_ranges(mem, note_range, text), 0);
	return text;
}

Test(guest_native_memory, memory_is_read_and_written_from_outside)
{
	uint8_t buf[3 * PAIR_PAGE];

	run();
	open_memory();
	for (int i = 0; i < 2; i++) {
		cr_assert_str_eq(ranges(&m[i]), i ? "1+1 " : "0+1 ");
		cr_assert_eq(gmem_read(&m[i], 0, buf, sizeof(buf)), 0);
		cr_assert_eq(buf[i * PAIR_PAGE], i ? 0x22 : 0x11);
		cr_assert_eq(buf[2 * PAIR_PAGE], 0);
		memset(buf, 0x5a, sizeof(buf));
		cr_assert_eq(gmem_write(&m[i], PAIR_BLOCK - sizeof(buf), buf, sizeof(buf)), 0);
		memset(buf, 0, sizeof(buf));
		cr_assert_eq(gmem_read(&m[i], PAIR_BLOCK - 100, buf, 100), 0);
		cr_assert_eq(buf[99], 0x5a);
		cr_assert_eq(gmem_read(&m[i], PAIR_BLOCK - 100, buf, 101), -EINVAL);
		cr_assert_eq(gmem_read(&m[i], UINT64_MAX, buf, 2), -EINVAL);
		cr_assert_eq(gmem_write(&m[i], PAIR_BLOCK, buf, 1), -EINVAL);
		cr_assert_eq(gmem_check_hole(&m[i], PAIR_BLOCK - 3 * PAIR_PAGE, PAIR_PAGE, NULL),
			     0);
	}
	cr_assert(strstr(ranges(&m[0]), "61+3"), "%s", ranges(&m[0]));
	gmem_close(&m[0]);
	gmem_close(&m[1]);
	gmem_close(&m[1]);
}

Test(guest_native_memory, holes_are_punched_and_seen)
{
	struct guest_range r[2] = {{0, PAIR_PAGE}, {8 * PAIR_PAGE, 4 * PAIR_PAGE}};
	uint8_t buf[16 * PAIR_PAGE];
	uint64_t where = 0;

	run();
	open_memory();
	memset(buf, 1, sizeof(buf));
	for (uint16_t i = 0; i < 2; i++) {
		cr_assert_eq(gmem_write(&m[i], 0, buf, sizeof(buf)), 0);
		cr_assert_str_eq(ranges(&m[i]), "0+16 ");
		cr_assert_eq(pair_do(&p, guest_punch, p.g, i, r, 2), 0, "%s", p.err.msg);
		cr_assert_str_eq(ranges(&m[i]), "1+7 12+4 ");
		cr_assert_eq(gmem_check_hole(&m[i], 8 * PAIR_PAGE, 4 * PAIR_PAGE, &where), 1);
		cr_assert_eq(gmem_check_hole(&m[i], 8 * PAIR_PAGE, 5 * PAIR_PAGE, &where), 0);
		cr_assert_eq(where, 12 * PAIR_PAGE);
	}
	cr_assert_eq(gmem_punch(&m[0], PAIR_PAGE, 2 * PAIR_PAGE), 0);
	cr_assert_eq(gmem_punch(&m[0], PAIR_PAGE, 100), -EINVAL);
	cr_assert_eq(gmem_punch(&m[1], PAIR_PAGE, 2 * PAIR_PAGE), -EOPNOTSUPP);
	cr_assert_str_eq(ranges(&m[0]), "3+5 12+4 ");
	cr_assert_eq(gmem_punch(&m[0], 0, PAIR_BLOCK), 0);
	cr_assert_str_eq(ranges(&m[0]), "");
	cr_assert_eq(gmem_check_hole(&m[0], 0, PAIR_BLOCK, NULL), 1);
	r[1].offset = PAIR_BLOCK;
	cr_assert_eq(pair_do(&p, guest_punch, p.g, 1, r, 2), -EINVAL);
	cr_assert(strstr(p.err.msg, "block anon"), "%s", p.err.msg);
	r[1].offset = 5;
	cr_assert_eq(pair_do(&p, guest_punch, p.g, 0, r, 2), -EINVAL);
	cr_assert_eq(guest_punch(p.g, 2, r, 1, pair_done, &p), -EINVAL);
	cr_assert_eq(guest_punch(p.g, 0, r, 0, pair_done, &p), -EINVAL);
}

Test(guest_native_memory, memory_of_a_dead_guest_is_an_error)
{
	uint8_t buf[10];

	run();
	open_memory();
	pair_kill(&p, child);
	pair_until(&p, p.gone == 1);
	cr_assert_eq(p.how, GUEST_GONE_DEAD);
	cr_assert_eq(gmem_read(&m[0], 0, buf, 10), 0, "the file is still ours");
	cr_assert_eq(buf[0], 0x11);
	cr_assert_eq(gmem_read(&m[1], 0, buf, 10), -ESRCH);
	cr_assert_eq(gmem_write(&m[1], 0, buf, 10), -ESRCH);
	child = 0;
}

Test(guest_native_memory, many_ranges_go_in_one_request)
{
	static struct guest_range r[GUEST_RANGES_MAX];

	run();
	for (size_t i = 0; i < GUEST_RANGES_MAX; i++)
		r[i] = (struct guest_range){i % 64 * PAIR_PAGE, PAIR_PAGE};
	cr_assert_eq(pair_do(&p, guest_punch, p.g, 1, r, GUEST_RANGES_MAX), 0);
	/* More than the socket holds at a time. */
	for (int i = 0; i < 40; i++)
		cr_assert_eq(guest_punch(p.g, 0, r, GUEST_RANGES_MAX, NULL, NULL), 0);
	cr_assert_eq(pair_do(&p, guest_punch, p.g, 0, r, GUEST_RANGES_MAX), 0);
	open_memory();
	cr_assert_str_eq(ranges(&m[0]), "");
}
