/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf_options.h"

#include "unit/conf_fixture.h"

Test(conf_options, what_is_not_mentioned_stays)
{
	json_t *json = json_pack("{s:i, s:b}", "max_passes", 3, "urgent", 0);
	struct mig_options o;
	struct error err = {0};

	conf_options_defaults(&o);
	o.channels = 7;
	cr_assert(eq(int, conf_options_read(json, "options", &o, &err), 0), "%s", err.msg);
	cr_expect(eq(u32, o.channels, 7));
	cr_expect(eq(u32, o.max_passes, 3));
	cr_expect(not(o.urgent));
	json_decref(json);
}

static bool same(const struct mig_options *a, const struct mig_options *b)
{
	json_t *ja = conf_options_json(a), *jb = conf_options_json(b);
	bool r = ja && json_equal(ja, jb);

	json_decref(ja);
	json_decref(jb);
	return r;
}

Test(conf_options, they_survive_their_json)
{
	struct mig_options a, b;
	struct error err = {0};
	json_t *json;

	conf_options_defaults(&a);
	a.mode = MIG_MODE_POSTCOPY;
	a.no_convergence = MIG_NOCONV_STOP;
	a.tracking = MIG_TRACKING_FAULTS;
	a.channels = 16;
	a.bandwidth = INT64_MAX;
	a.downtime_limit_ms = 1;
	a.precopy_timeout_s = 2;
	a.max_passes = 4;
	a.switchover_timeout_ms = 100;
	a.urgent = false;
	json = conf_options_json(&a);
	conf_options_defaults(&b);
	cr_assert(eq(int, conf_options_read(json, "options", &b, &err), 0), "%s", err.msg);
	cr_expect(same(&a, &b));
	cr_expect(eq(u64, b.bandwidth, INT64_MAX));
	cr_expect(eq(int, b.tracking, MIG_TRACKING_FAULTS));
	cr_expect(not(b.urgent));
	json_decref(json);
}

Test(conf_options, a_failure_changes_nothing)
{
	json_t *json = json_pack("{s:i, s:i}", "max_passes", 3, "channels", 99);
	struct mig_options o, before;
	struct error err = {0};

	conf_options_defaults(&o);
	before = o;
	cr_expect(eq(int, conf_options_read(json, "options", &o, &err), -EINVAL));
	cr_expect(eq(str, err.code, "bad-option"));
	cr_expect(has(err.msg, "options.channels"), "%s", err.msg);
	cr_expect(same(&o, &before));
	json_decref(json);
}

Test(conf_options, the_command_line_makes_the_same_json)
{
	static const char *const words[][2] = {
		{"mode", "precopy"},          {"channels", "4"},
		{"bandwidth", "800Mbit"},     {"downtime-limit-ms", "20"},
		{"precopy-timeout-s", "10"},  {"max-passes", "5"},
		{"no-convergence", "stop"},   {"switchover-timeout-ms", "700"},
		{"tracking", "faults"},       {"compression", "none"},
		{"no-urgent", NULL},          {"answer-timeout-ms", "1000"},
		{"dma-quarantine-ms", "900"}, {"reconnect-timeout-s", "7"},
	};
	json_t *json = json_object();
	struct error err = {0};
	struct mig_options o;
	size_t n;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		cr_expect(eq(int, conf_options_arg_takes(words[i][0]), words[i][1] != NULL));
		cr_expect(eq(int, conf_options_arg(words[i][0], words[i][1], json, &err), 0), "%s",
			  err.msg);
	}
	conf_options_help(&n);
	cr_expect(eq(sz, n, ARRAY_SIZE(words)));
	cr_expect(eq(sz, json_object_size(json), n));
	conf_options_defaults(&o);
	cr_assert(eq(int, conf_options_read(json, "", &o, &err), 0), "%s", err.msg);
	cr_expect(eq(u64, o.bandwidth, 100000000));
	cr_expect(eq(int, o.no_convergence, MIG_NOCONV_STOP));
	cr_expect(eq(u32, o.switchover_timeout_ms, 700));
	cr_expect(not(o.urgent));
	json_decref(json);
}

Test(conf_options, wrong_words_are_named_as_they_were_given)
{
	static const struct {
		const char *name, *value;
		int ret;
		const char *word;
	} rows[] = {
		{"speed", "9", -ENOENT, "--speed: no such option"},
		{"mode", NULL, -EINVAL, "--mode: needs a value"},
		{"mode", "warp", -EINVAL, "--mode: \"warp\" is not one of"},
		{"channels", "17", -EINVAL, "--channels: must be from 1 to 16"},
		{"channels", "1x", -EINVAL, "--channels: \"1x\" is no number"},
		{"channels", "", -EINVAL, "--channels: \"\" is no number"},
		{"channels", "99999999999999999999", -EINVAL, "is no number"},
		{"bandwidth", "fast", -EINVAL, "--bandwidth: "},
		{"downtime-limit-ms", "0", -EINVAL, "--downtime-limit-ms: must be"},
		{"compression", "zstd", -ENOTSUP, "--compression: zstd is not supported yet"},
	};
	json_t *json = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct error err = {0};

		cr_expect(eq(int, conf_options_arg(rows[i].name, rows[i].value, json, &err),
			     rows[i].ret),
			  "%s", rows[i].name);
		cr_expect(has(err.msg, rows[i].word), "%s", err.msg);
	}
	cr_expect(zero(sz, json_object_size(json)));
	json_decref(json);
}

Test(conf_options, modes_have_names)
{
	enum mig_mode m;
	struct error err = {0};

	for (int i = MIG_MODE_HYBRID; i <= MIG_MODE_PRECOPY; i++) {
		cr_expect(eq(int, conf_options_mode_parse(conf_options_mode_name(i), &m, &err), 0));
		cr_expect(eq(int, m, i));
	}
	cr_expect(eq(int, conf_options_mode_parse("x", &m, &err), -EINVAL));
	cr_expect(has(err.msg, "mode: \"x\""));
}
