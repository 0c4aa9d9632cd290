/* SPDX-License-Identifier: Apache-2.0 */
/* "hooks" of the configurations. */
#include "conf/conf_hooks.h"
#include "unit/conf_fixture.h"

TestSuite(conf_hooks, .timeout = 30);

static int read_text(const char *text, bool gates, struct conf_hooks *ret, struct error *err)
{
	struct jsonx_at at = {"hooks", "bad-config", err};
	json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
	int r;

	cr_assert(ne(ptr, json, NULL), "%s", text);
	r = conf_hooks_read(json, &at, gates, ret);
	json_decref(json);
	return r;
}

Test(conf_hooks, all_of_it)
{
	struct conf_hooks c = {0};
	struct error err = {0};

	cr_assert(zero(int, read_text("[{\"name\": \"cloud\", \"url\": \"https://h:8443/a?b\", "
				      "\"events\": [\"migration.*\"], \"secret_file\": \"/s\", "
				      "\"ca\": \"/c\", \"gate\": true, \"on_error\": \"allow\", "
				      "\"timeout_ms\": 500, \"attempts\": 3, \"retry_ms\": 20},"
				      " {\"exec\": [\"/bin/true\", \"x\"]}]",
				      true, &c, &err)),
		  "%s", err.msg);
	cr_assert(eq(sz, c.n, 2));
	cr_expect(eq(str, c.hooks[0].name, "cloud"));
	cr_expect(eq(str, c.hooks[0].url, "https://h:8443/a?b"));
	cr_expect(eq(str, c.hooks[0].events[0], "migration.*"));
	cr_expect(eq(str, c.hooks[0].secret_file, "/s"));
	cr_expect(eq(str, c.hooks[0].ca, "/c"));
	cr_expect(c.hooks[0].gate);
	cr_expect(eq(int, c.hooks[0].on_error, CONF_HOOK_ALLOW));
	cr_expect(eq(u32, c.hooks[0].timeout_ms, 500));
	cr_expect(eq(u32, c.hooks[0].attempts, 3));
	cr_expect(eq(u32, c.hooks[0].retry_ms, 20));
	cr_expect(eq(str, c.hooks[1].name, "/bin/true"));
	cr_expect(eq(str, c.hooks[1].exec[1], "x"));
	cr_expect(not(c.hooks[1].gate));
	cr_expect(eq(int, c.hooks[1].on_error, CONF_HOOK_REFUSE));
	cr_expect(eq(u32, c.hooks[1].timeout_ms, 10000));
	cr_expect(eq(u32, c.hooks[1].attempts, 8));
	cr_expect(eq(u32, c.hooks[1].retry_ms, 1000));
	conf_hooks_clear(&c);
}

/* Names are made up, without what may be secret in a URL, and are never the same. */
Test(conf_hooks, names)
{
	struct conf_hooks c = {0};
	struct error err = {0};

	cr_assert(zero(int,
		       read_text("[{\"url\": \"http://h/a?token=1\"}, {\"url\": \"http://h/a#x\"},"
				 " {\"url\": \"http://h/a\", \"gate\": true}]",
				 true, &c, &err)));
	cr_expect(eq(str, c.hooks[0].name, "http://h/a"));
	cr_expect(eq(str, c.hooks[1].name, "http://h/a#2"));
	cr_expect(eq(str, c.hooks[2].name, "http://h/a#3"));
	conf_hooks_clear(&c);
}

Test(conf_hooks, what_is_refused)
{
	static const struct {
		const char *text, *word;
	} rows[] = {
		{"{}", "hooks: must be an array"},
		{"[7]", "hooks[0]"},
		{"[{}]", "hooks[0]: must have one of url and exec"},
		{"[{\"url\": \"http://x\", \"exec\": [\"/x\"]}]", "must have one of"},
		{"[{\"url\": \"http://x\"}, {\"url\": \"ftp://x\"}]", "hooks[1].url"},
		{"[{\"url\": \"http://\"}]", "is not http://HOST"},
		{"[{\"url\": \"http:///x\"}]", "is not http://HOST"},
		{"[{\"url\": \"http://a b\"}]", "has a character that no URL may have"},
		{"[{\"url\": \"http://u:p@h/\"}]", "names a user"},
		{"[{\"exec\": []}]", "exec"},
		{"[{\"exec\": [\"true\"]}]", "is not an absolute path"},
		{"[{\"exec\": [\"/x\"], \"secret_file\": \"/s\"}]",
		 "secret_file is for a hook with"},
		{"[{\"exec\": [\"/x\"], \"ca\": \"/s\"}]", "ca is for a hook with"},
		{"[{\"url\": \"http://x\", \"ca\": \"/s\"}]", "ca is for a url that begins with"},
		{"[{\"url\": \"http://x\", \"on_error\": \"allow\"}]", "on_error is for a hook"},
		{"[{\"url\": \"http://x\", \"gate\": true, \"on_error\": \"no\"}]", "on_error"},
		{"[{\"url\": \"http://x\", \"timeout_ms\": 10}]", "timeout_ms"},
		{"[{\"url\": \"http://x\", \"attempts\": 0}]", "attempts"},
		{"[{\"url\": \"http://x\", \"retry_ms\": 1}]", "retry_ms"},
		{"[{\"url\": \"http://x\", \"events\": [\"a b\"]}]", "is no pattern"},
		{"[{\"url\": \"http://x\", \"events\": \"all\"}]", "events"},
		{"[{\"url\": \"http://x\", \"nonsense\": 1}]", "nonsense"},
		{"[{\"url\": \"http://x\", \"name\": \"a\"}, {\"url\": \"http://y\", \"name\": "
		 "\"a\"}]",
		 "hooks[1]: name: \"a\" is there twice"},
		{"[{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}]", "more than 16"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct error err = {0};
		struct conf_hooks c;

		memset(&c, 0x5a, sizeof(c));
		cr_expect(eq(int, read_text(rows[i].text, true, &c, &err), -EINVAL), "%s",
			  rows[i].text);
		cr_expect(has(err.msg, rows[i].word), "%s: \"%s\"", rows[i].text, err.msg);
		cr_expect(untouched(&c, sizeof(c)), "%s", rows[i].text);
	}
}
