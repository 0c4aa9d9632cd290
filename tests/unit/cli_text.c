/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <criterion/redirect.h>
#include "cli/cli.h"
#include "util/cleanup.h"

Test(cli_text, quantities)
{
	char b[CLI_TEXT_MAX];

	cr_expect(eq(str, cli_size(b, 0), "0 B"));
	cr_expect(eq(str, cli_size(b, 1023), "1023 B"));
	cr_expect(eq(str, cli_size(b, 1024), "1.00 KiB"));
	cr_expect(eq(str, cli_size(b, 1536.0 * 1024 * 1024), "1.50 GiB"));
	cr_expect(eq(str, cli_size(b, 1e30), "888178419700125.2 PiB"));
	cr_expect(eq(str, cli_rate(b, 0), "0 bit/s"));
	cr_expect(eq(str, cli_rate(b, 125000000), "1.00 Gbit/s"));
	cr_expect(eq(str, cli_rate(b, 100e6), "800.0 Mbit/s"));
	cr_expect(eq(str, cli_duration(b, 850), "850 us"));
	cr_expect(eq(str, cli_duration(b, 12340), "12.3 ms"));
	cr_expect(eq(str, cli_duration(b, 4.2e6), "4.2 s"));
	cr_expect(eq(str, cli_duration(b, 187e6), "3m07s"));
	cr_expect(eq(str, cli_duration(b, 7500e6), "2h05m"));
}

Test(cli_text, tables_line_up, .init = cr_redirect_stdout)
{
	struct cli_table *t = cli_table_new(3, 2);
	static const char *const rows[][3] = {
		{"NAME", "SIZE", "STATE"}, {"a", "10 B", NULL}, {"long\x1bname", "9", "x"}};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		cli_table_row(t, rows[i]);
	cr_expect(eq(int, cli_table_print(t), CLI_OK));
	fflush(stdout);
	cr_assert_stdout_eq_str("NAME       SIZE  STATE\n"
				"a          10 B  -\n"
				"long name     9  x\n");
}

Test(cli_text, objects_in_words, .init = cr_redirect_stdout)
{
	json_t *o =
		json_loads("{\"id\": \"x\", \"memory\": {\"sent_bytes\": 2048, \"passes\": 2}, "
			   "\"rate_bytes_per_s\": 125000000, \"eta_s\": 3, \"downtime_us\": null, "
			   "\"latency_us\": {\"p50\": 50, \"buckets\": [{\"le_us\": 1}]}, "
			   "\"dirty_pages_per_s\": 7, \"ok\": true, \"list\": [{\"a\": 0.5}], "
			   "\"none\": [], \"forged\": \"a\\nb\"}",
			   0, NULL);

	cr_assert(ne(ptr, o, NULL));
	cr_expect(eq(int, cli_print_object(o), CLI_OK));
	json_decref(o);
	fflush(stdout);
	cr_assert_stdout_eq_str("id                 x\n"
				"memory.sent_bytes  2.00 KiB\n"
				"memory.passes      2\n"
				"rate_bytes_per_s   1.00 Gbit/s\n"
				"eta_s              3.0 s\n"
				"downtime_us        -\n"
				"latency_us.p50     50 us\n"
				"dirty_pages_per_s  7\n"
				"ok                 yes\n"
				"list[0].a          0.50\n"
				"none               -\n"
				"forged             a b\n");
}

Test(cli_text, parts_of_json)
{
	json_t *o = json_pack("{s:{s:s, s:i}, s:i}", "a", "b", "text", "n", 3, "x", 1);

	cr_expect(eq(str, (char *)cli_str(o, "a.b"), "text"));
	cr_expect(eq(ptr, (void *)cli_str(o, "a"), NULL));
	cr_expect(eq(ptr, (void *)cli_str(o, "x.y"), NULL));
	cr_expect(eq(dbl, cli_num(o, "a.n", -1), 3.0));
	cr_expect(eq(dbl, cli_num(o, "a.b", -1), -1.0));
	cr_expect(eq(dbl, cli_num(NULL, "a", 5), 5.0));
	json_decref(o);
}
