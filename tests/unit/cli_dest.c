/* SPDX-License-Identifier: Apache-2.0 */
#include "cli_dest.h"

#include "unit/cli_fixture.h"

Test(cli_dest, commands)
{
	struct fake *k = start(done);
	struct ran r = run_main(k, cli_dest_main, "incoming --json");

	cr_expect(eq(int, r.code, 0));
	cr_expect(eq(sz, json_array_size(json_object_get(r.json, "items")), 3));
	ran_free(&r);
	r = run_main(k, cli_dest_main, "incoming");
	cr_expect(has(r.out, ID), "%s", r.out);
	ran_free(&r);
	r = run_main(k, cli_dest_main, "incoming x");
	cr_expect(eq(int, r.code, 3));
	cr_expect(eq(str, r.err, "decant: x: not supported yet\n"));
	ran_free(&r);
	r = run_main(k, cli_dest_main, "import --memory x");
	cr_expect(eq(int, r.code, 2));
	cr_expect(eq(str, r.err, "decant: import: --memory FILE and --name N are needed\n"));
	ran_free(&r);
	r = run_main(k, cli_dest_main, "uffd vm");
	cr_expect(eq(int, r.code, 2));
	cr_expect(eq(str, r.err, "decant: uffd: --socket PATH is needed\n"));
	ran_free(&r);
	r = run_main(k, cli_dest_main, "uffd vm --socket x --owner 1:2:3");
	cr_expect(eq(int, r.code, 2));
	cr_expect(eq(str, r.err, "decant: uffd: --owner: \"1:2:3\" is not UID:GID in numbers\n"));
	ran_free(&r);
	stop(k);
}

Test(cli_serve, takes_its_configuration)
{
	static const struct {
		const char *words[4];
		int code;
	} rows[] = {
		{{"d", "serve", "--config", "x"}, -1}, {{"d", "serve", "--config=x", NULL}, -1},
		{{"d", "serve", NULL, NULL}, 2},       {{"d", "serve", "--config", NULL}, 2},
		{{"d", "serve", "x", NULL}, 2},        {{"d", "serve", "--help", NULL}, 0},
	};

	cr_redirect_stdout();
	cr_redirect_stderr();
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const char *config = NULL;
		int argc = 0;

		while (argc < 4 && rows[i].words[argc])
			argc++;
		cr_expect(eq(int, cli_serve_args("d", argc, (char **)rows[i].words, &config),
			     rows[i].code));
		cr_expect(rows[i].code != -1 || has(config, "x"));
	}
}
