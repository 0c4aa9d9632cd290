/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf_source.h"

#include <stdlib.h>
#include <unistd.h>
#include "unit/conf_fixture.h"

#define GOOD "{\"tls\": {\"ca\": \"/ca\", \"cert\": \"/cert\", \"key\": \"/key\"}}"

Test(conf_source, defaults_are_those_of_the_contract)
{
	json_t *json = json_loads(GOOD, 0, NULL);
	struct conf_source c;
	struct error err = {0};

	cr_assert(eq(int, conf_source_read(json, &c, &err), 0), "%s", err.msg);
	cr_expect(eq(sz, c.agent.api.n, 1));
	cr_expect(eq(str, c.agent.api.listen[0], "unix:/run/decant/source.sock"));
	cr_expect(eq(str, c.agent.attach, "/run/decant/source.attach"));
	cr_expect(eq(str, c.agent.run_dir, "/run/decant"));
	cr_expect(eq(str, c.agent.state_dir, "/var/lib/decant"));
	cr_expect(eq(str, c.agent.cordon_file, "/var/lib/decant/cordon"));
	cr_expect(eq(str, c.dest_api, "unix:/run/decant/dest.sock"));
	cr_expect(eq(str, c.agent.tls.cert, "/cert"));
	cr_expect(eq(ptr, c.agent.tls.crl, NULL));
	cr_expect(eq(sz, c.n_guests, 0));
	cr_expect(eq(u32, c.defaults.channels, 2));
	cr_expect(eq(int, c.defaults.mode, MIG_MODE_HYBRID));
	cr_expect(eq(int, c.defaults.urgent, 1));
	conf_source_clear(&c);
	json_decref(json);
}

Test(conf_source, every_key_is_taken)
{
	static const char all[] =
		"{\"api\": {\"listen\": [\"unix:/a\", \"unix:/b\"]},"
		"\"tls\": {\"ca\": \"/ca\", \"cert\": \"/cert\", \"key\": \"/key\", \"crl\": "
		"\"/crl\"},"
		"\"attach\": \"/at\", \"run_dir\": \"/r\", \"state_dir\": \"/s\", \"cordon_file\": "
		"\"/c\", \"dest_api\": null, \"guests_dir\": "
		"null,"
		"\"guests\": [{\"name\": \"a\", \"driver\": \"native\"},"
		" {\"name\": \"b\", \"driver\": \"qemu\", \"qmp\": \"/q\", \"priority\": -3,"
		"  \"disposal\": \"keep\", \"vars\": {\"k\": \"v\"}, \"launcher\": \"vm\","
		"  \"uuid\": \"0B9D5D60-0000-4000-8000-00000000000A\"}],"
		"\"defaults\": {\"mode\": \"precopy\", \"channels\": 16, \"bandwidth\": 125000000,"
		" \"downtime_limit_ms\": 50, \"compression\": \"none\"}, \"hooks\": []}";
	json_t *json = json_loads(all, 0, NULL);
	struct conf_source c;
	struct error err = {0};

	cr_assert(eq(int, conf_source_read(json, &c, &err), 0), "%s", err.msg);
	json_decref(json);
	cr_expect(eq(sz, c.agent.api.n, 2));
	cr_expect(eq(str, c.agent.api.listen[1], "unix:/b"));
	cr_expect(eq(str, c.agent.tls.crl, "/crl"));
	cr_expect(eq(str, c.agent.attach, "/at"));
	cr_expect(eq(str, c.agent.run_dir, "/r"));
	cr_expect(eq(str, c.agent.state_dir, "/s"));
	cr_expect(eq(str, c.agent.cordon_file, "/c"));
	cr_expect(eq(ptr, c.dest_api, NULL));
	cr_assert(eq(sz, c.n_guests, 2));
	cr_expect(eq(str, c.guests[0].name, "a"));
	cr_expect(eq(int, c.guests[0].disposal, GUEST_DISPOSAL_QUIT));
	cr_expect(eq(int, c.guests[1].driver, GUEST_DRIVER_QEMU));
	cr_expect(eq(str, c.guests[1].qmp, "/q"));
	cr_expect(eq(int, c.guests[1].priority, -3));
	cr_expect(eq(int, c.guests[1].disposal, GUEST_DISPOSAL_KEEP));
	cr_expect(eq(str, c.guests[1].uuid, "0b9d5d60-0000-4000-8000-00000000000a"));
	cr_expect(eq(str, c.guests[1].launcher, "vm"));
	cr_expect(eq(u64, c.defaults.bandwidth, 125000000));
	cr_expect(eq(u32, c.defaults.downtime_limit_ms, 50));
	cr_expect(eq(int, c.defaults.mode, MIG_MODE_PRECOPY));
	conf_source_clear(&c);
}

#define GUEST(more) "\"guests\": [{\"name\": \"a\", \"driver\": \"native\"" more "}]"

Test(conf_source, every_key_wrong_once)
{
	static const struct wrong rows[] = {
		{"\"tls\": null", -EINVAL, "tls: missing"},
		{"\"tls\": {}", -EINVAL, "tls.ca: missing"},
		{"\"tls\": {\"ca\": \"a\", \"key\": \"b\"}", -EINVAL, "tls.cert: missing"},
		{"\"tls\": {\"ca\": \"a\", \"cert\": \"b\"}", -EINVAL, "tls.key: missing"},
		{"\"tls\": {\"ca\": \"\", \"cert\": \"b\", \"key\": \"c\"}", -EINVAL, "tls.ca"},
		{"\"tls\": {\"ca\": 1, \"cert\": \"b\", \"key\": \"c\"}", -EINVAL, "tls.ca"},
		{"\"tls\": {\"ca\": \"a\", \"cert\": \"b\", \"key\": \"c\", \"crl\": 7}", -EINVAL,
		 "tls.crl"},
		{"\"tls\": {\"ca\": \"a\", \"cert\": \"b\", \"key\": \"c\", \"x\": 7}", -EINVAL,
		 "tls.x: unknown key"},
		{"\"api\": []", -EINVAL, "api"},
		{"\"api\": {\"listen\": []}", -EINVAL, "api.listen"},
		{"\"api\": {\"listen\": \"unix:/a\"}", -EINVAL, "api.listen"},
		{"\"api\": {\"listen\": [\"unix:/a\", \"/b\"]}", -EINVAL, "api.listen[1]"},
		{"\"api\": {\"listen\": [\"https://0.0.0.0:7401\"]}", -EINVAL,
		 "api.listen[0]: nobody could use \"https://0.0.0.0:7401\": api.token_file, "
		 "api.operators or api.readers is missing"},
		{"\"api\": {\"listen\": [\"unix:/a\", \"http://127.0.0.1:1\"], \"readers\": "
		 "[\"DNS:a\"]}",
		 -EINVAL, "api.listen[1]: nobody could use"},
		{"\"api\": {\"listen\": [\"http://10.0.0.1:1\"], \"token_file\": \"/t\"}", -EINVAL,
		 "api.listen[0]: \"http://10.0.0.1:1\": plain http would show tokens"},
		{"\"api\": {\"listen\": [\"http://0.0.0.0:1\"]}", -EINVAL, "plain http would"},
		{"\"api\": {\"listen\": [\"ftp://127.0.0.1:1\"]}", -EINVAL,
		 "is not unix:PATH, https"},
		{"\"api\": {\"listen\": [\"https://a:0\"]}", -EINVAL, "the port is not 1 to 65535"},
		{"\"api\": {\"listen\": [\"https://a\"]}", -EINVAL, "is not SCHEME://HOST:PORT"},
		{"\"api\": {\"token_file\": 1}", -EINVAL, "api.token_file"},
		{"\"api\": {\"operators\": [\"DNS:a\", \"b\"]}", -EINVAL, "api.operators[1]"},
		{"\"api\": {\"readers\": [\"DNS:*.a\"]}", -EINVAL, "wildcards"},
		{"\"api\": {\"tls\": {\"ca\": \"/a\"}}", -EINVAL, "api.tls.cert: missing"},
		{"\"api\": {\"port\": 1}", -EINVAL, "api.port: unknown key"},
		{"\"attach\": \"\"", -EINVAL, "attach"},
		{"\"run_dir\": 5", -EINVAL, "run_dir"},
		{"\"state_dir\": {}", -EINVAL, "state_dir"},
		{"\"cordon_file\": \"\"", -EINVAL, "cordon_file"},
		{"\"dest_api\": \"elsewhere\"", -EINVAL, "dest_api"},
		{"\"guests_dir\": \"/nowhere/at/all\"", -ENOENT, "guests_dir: /nowhere/at/all"},
		{"\"guests_dir\": 1", -EINVAL, "guests_dir"},
		{"\"colour\": 1", -EINVAL, "colour: unknown key"},
		{"\"listen\": \"0.0.0.0:1\"", -EINVAL, "listen: unknown key"},
		{"\"guests\": {}", -EINVAL, "guests"},
		{"\"guests\": [1]", -EINVAL, "guests[0]"},
		{"\"guests\": [{\"driver\": \"native\"}]", -EINVAL, "guests[0].name: missing"},
		{"\"guests\": [{\"name\": \"a\"}]", -EINVAL, "guests[0].driver: missing"},
		{"\"guests\": [{\"name\": \"a\", \"driver\": \"native\"},"
		 "{\"name\": \"a\", \"driver\": \"native\"}]",
		 -EINVAL, "guests[1].name: \"a\" is there twice"},
		{"\"guests\": [{\"name\": \"-a\", \"driver\": \"native\"}]", -EINVAL,
		 "guests[0].name"},
		{"\"guests\": [{\"name\": \"a b\", \"driver\": \"native\"}]", -EINVAL,
		 "guests[0].name"},
		{"\"guests\": [{\"name\": \"\\u00e4\", \"driver\": \"native\"}]", -EINVAL,
		 "guests[0].name"},
		{"\"guests\": [{\"name\": \"a\", \"driver\": \"xen\"}]", -EINVAL,
		 "guests[0].driver"},
		{"\"guests\": [{\"name\": \"a\", \"driver\": \"qemu\"}]", -EINVAL,
		 "guests[0]: driver qemu needs qmp"},
		{"\"guests\": [{\"name\": \"a\", \"driver\": \"qemu\", \"qmp\": \"x\"}]", -EINVAL,
		 "guests[0].qmp: must be an absolute path"},
		{GUEST(", \"qmp\": \"/q\""), -EINVAL, "qmp is for driver qemu only"},
		{GUEST(", \"uuid\": \"x\""), -EINVAL, "guests[0].uuid"},
		{GUEST(", \"uuid\": \"0b9d5d60-0000-4000-8000-00000000000g\""), -EINVAL,
		 "guests[0].uuid"},
		{GUEST(", \"uuid\": \"0b9d5d60x0000-4000-8000-00000000000a\""), -EINVAL,
		 "guests[0].uuid"},
		{GUEST(", \"launcher\": \"../x\""), -EINVAL, "guests[0].launcher"},
		{GUEST(", \"vars\": []"), -EINVAL, "guests[0].vars"},
		{GUEST(", \"vars\": {\"a\": 1}"), -EINVAL, "guests[0].vars.a"},
		{GUEST(", \"vars\": {\"a b\": \"1\"}"), -EINVAL, "\"a b\" is no name"},
		{GUEST(", \"vars\": {\"a\": \"$(x)\"}"), -EINVAL, "guests[0].vars: the value of a"},
		{GUEST(", \"vars\": {\"a\": \"{b}\"}"), -EINVAL, "the value of a"},
		{GUEST(", \"vars\": {\"a\": \"b\\n\"}"), -EINVAL, "the value of a"},
		{GUEST(", \"priority\": 1001"), -EINVAL, "guests[0].priority"},
		{GUEST(", \"priority\": 0.5"), -EINVAL, "guests[0].priority"},
		{GUEST(", \"disposal\": \"burn\""), -EINVAL, "guests[0].disposal"},
		{GUEST(", \"colour\": 1"), -EINVAL, "guests[0].colour: unknown key"},
		{"\"defaults\": []", -EINVAL, "defaults"},
		{"\"defaults\": {\"mode\": \"warp\"}", -EINVAL, "defaults.mode"},
		{"\"defaults\": {\"channels\": 0}", -EINVAL, "defaults.channels"},
		{"\"defaults\": {\"channels\": 17}", -EINVAL, "defaults.channels"},
		{"\"defaults\": {\"bandwidth\": -1}", -EINVAL, "defaults.bandwidth"},
		{"\"defaults\": {\"downtime_limit_ms\": 0}", -EINVAL, "defaults.downtime_limit_ms"},
		{"\"defaults\": {\"precopy_timeout_s\": 0}", -EINVAL, "defaults.precopy_timeout_s"},
		{"\"defaults\": {\"max_passes\": \"3\"}", -EINVAL, "defaults.max_passes"},
		{"\"defaults\": {\"no_convergence\": \"x\"}", -EINVAL, "defaults.no_convergence"},
		{"\"defaults\": {\"switchover_timeout_ms\": 99}", -EINVAL,
		 "defaults.switchover_timeout_ms"},
		{"\"defaults\": {\"tracking\": \"x\"}", -EINVAL, "defaults.tracking"},
		{"\"defaults\": {\"urgent\": 1}", -EINVAL, "defaults.urgent"},
		{"\"defaults\": {\"compression\": \"lzma\"}", -EINVAL, "defaults.compression"},
		{"\"defaults\": {\"compression\": \"zstd\"}", -ENOTSUP,
		 "defaults.compression: zstd is not supported yet"},
		{"\"defaults\": {\"verify\": \"full\"}", -ENOTSUP,
		 "defaults.verify: not supported yet"},
		{"\"defaults\": {\"speed\": 1}", -EINVAL, "defaults.speed: unknown key"},
	};

	CONF_EXPECT_WRONG(rows, GOOD, struct conf_source, conf_source_read);
}

static void write_file(const char *dir, const char *name, const char *text)
{
	char path[200];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	cr_assert(ne(ptr, f, NULL));
	fputs(text, f);
	fclose(f);
}

Test(conf_source, guests_come_from_the_files_of_a_folder)
{
	const char *tmp = getenv("TMPDIR");
	char dir[80], conf[100], text[300], cmd[100];
	struct conf_source c;
	struct error err = {0};

	snprintf(dir, sizeof(dir), "%s/conf-XXXXXX", tmp ? tmp : "/tmp");
	cr_assert(ne(ptr, mkdtemp(dir), NULL));
	write_file(dir, "b.json", "{\"name\": \"two\", \"driver\": \"native\"}");
	write_file(dir, "a.json", "{\"name\": \"one\", \"driver\": \"native\"}");
	write_file(dir, "README", "nothing");
	write_file(dir, ".hidden.json", "nothing");
	snprintf(text, sizeof(text),
		 "{\"tls\": {\"ca\": \"a\", \"cert\": \"b\", \"key\": \"c\"}, \"guests_dir\": "
		 "\"%s\","
		 "\"guests\": [{\"name\": \"zero\", \"driver\": \"native\"}]}",
		 dir);
	write_file(dir, "conf", text);
	snprintf(conf, sizeof(conf), "%s/conf", dir);
	cr_assert(eq(int, conf_source_load(conf, &c, &err), 0), "%s", err.msg);
	cr_assert(eq(sz, c.n_guests, 3));
	cr_expect(eq(str, c.guests[1].name, "one"));
	cr_expect(eq(str, c.guests[2].name, "two"));
	conf_source_clear(&c);

	write_file(dir, "c.json", "{\"name\": \"zero\", \"driver\": \"native\"}");
	cr_expect(eq(int, conf_source_load(conf, &c, &err), -EINVAL));
	cr_expect(has(err.msg, "c.json.name: \"zero\" is there twice"), "%s", err.msg);
	error_clear(&err);
	write_file(dir, "c.json", "{\"name\"");
	cr_expect(lt(int, conf_source_load(conf, &c, &err), 0));
	cr_expect(has(err.msg, "c.json"), "%s", err.msg);
	error_clear(&err);
	cr_expect(eq(int, conf_source_load("/nowhere/at/all", &c, &err), -ENOENT));
	cr_expect(has(err.msg, "/nowhere/at/all"), "%s", err.msg);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	cr_expect(zero(int, system(cmd)));
}

Test(conf_guest, a_description_survives_its_json)
{
	json_t *json =
		json_loads("{\"name\": \"b\", \"driver\": \"qemu\", \"qmp\": \"/q\", "
			   "\"priority\": -3, \"disposal\": \"keep\", \"vars\": {\"k\": \"v\"}, "
			   "\"launcher\": \"vm\", "
			   "\"uuid\": \"0b9d5d60-0000-4000-8000-00000000000a\"}",
			   0, NULL);
	struct conf_guest g, copy;
	struct error err = {0};
	json_t *again;

	cr_assert(eq(int, conf_guest_read(json, "body", &g, &err), 0), "%s", err.msg);
	cr_assert(eq(int, conf_guest_copy(&g, &copy), 0));
	conf_guest_clear(&g);
	again = conf_guest_json(&copy);
	cr_expect(json_equal(json, again));
	json_decref(again);
	conf_guest_clear(&copy);
	json_decref(json);

	json = json_loads("{\"name\": \"b\", \"driver\": \"native\"}", 0, NULL);
	cr_assert(eq(int, conf_guest_read(json, "body", &g, &err), 0));
	again = conf_guest_json(&g);
	conf_guest_clear(&g);
	cr_assert(eq(int, conf_guest_read(again, "body", &g, &err), 0), "%s", err.msg);
	cr_expect(eq(ptr, g.launcher, NULL));
	conf_guest_clear(&g);
	json_decref(again);
	json_decref(json);
}

Test(conf_guest, names_are_strict)
{
	char name[70];

	memset(name, 'a', sizeof(name));
	name[63] = '\0';
	cr_expect(conf_guest_name_ok(name));
	name[63] = 'a';
	name[64] = '\0';
	cr_expect(not(conf_guest_name_ok(name)));
	cr_expect(conf_guest_name_ok("0.a_b-C"));
	cr_expect(not(conf_guest_name_ok("")));
	cr_expect(not(conf_guest_name_ok(".a")));
	cr_expect(not(conf_guest_name_ok("a/b")));
}
