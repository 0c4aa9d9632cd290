/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf_dest.h"

#include <stdlib.h>
#include "unit/conf_fixture.h"

#define GOOD                              \
	"{\"listen\": \"0.0.0.0:7400\", " \
	"\"tls\": {\"ca\": \"/ca\", \"cert\": \"/cert\", \"key\": \"/key\"}}"

static struct conf_dest read_with(const char *member)
{
	json_t *json = conf_with(GOOD, member);
	struct error err = {0};
	struct conf_dest c;

	cr_assert(eq(int, conf_dest_read(json, &c, &err), 0), "%s: %s", member, err.msg);
	json_decref(json);
	return c;
}

Test(conf_dest, defaults_are_those_of_the_contract)
{
	struct conf_dest c = read_with("");

	cr_expect(eq(str, c.listen_host, "0.0.0.0"));
	cr_expect(eq(u16, c.listen_port, 7400));
	cr_expect(eq(sz, c.n_allow, 0));
	cr_expect(eq(str, c.agent.api.listen[0], "unix:/run/decant/dest.sock"));
	cr_expect(eq(str, c.agent.attach, "/run/decant/dest.attach"));
	cr_expect(eq(str, c.agent.run_dir, "/run/decant"));
	cr_expect(eq(str, c.agent.state_dir, "/var/lib/decant"));
	cr_expect(eq(str, c.agent.cordon_file, "/var/lib/decant/cordon"));
	cr_expect(eq(str, c.source_api, "unix:/run/decant/source.sock"));
	cr_expect(eq(u32, c.limit_incoming, CONF_INCOMING_DEFAULT));
	cr_expect(eq(u64, c.limit_memory_bytes, 0));
	cr_expect(c.check_room);
	cr_expect(eq(i64, c.margin_bytes, 0));
	cr_expect(eq(sz, c.n_launchers, 0));
	conf_dest_clear(&c);
}

Test(conf_dest, every_key_is_taken)
{
	struct conf_dest c = read_with(
		"\"allow\": [\"DNS:host-a\", \"DNS:a.b.c\", \"IP:10.0.0.1\", \"IP:fe80::1\", "
		"\"URI:spiffe://x/y\"], \"api\": {\"listen\": [\"unix:/a\"]}, \"attach\": \"/at\", "
		"\"run_dir\": \"/r\", \"state_dir\": \"/s\", \"source_api\": \"unix:/src\", "
		"\"limits\": {\"incoming\": 3, \"memory_bytes\": 8589934592, "
		"\"margin_bytes\": -4096}, \"hooks\": [], "
		"\"launchers\": {\"vm\": {\"driver\": \"qemu\", \"argv\": [\"/bin/q\", "
		"\"{name}\"]}, "
		"\"prog\": {\"driver\": \"native\", \"argv\": [\"/bin/p\"]}}");

	cr_expect(eq(sz, c.n_allow, 5));
	cr_expect(eq(str, c.allow[4], "URI:spiffe://x/y"));
	cr_expect(eq(str, c.source_api, "unix:/src"));
	cr_expect(eq(u32, c.limit_incoming, 3));
	cr_expect(eq(u64, c.limit_memory_bytes, UINT64_C(8589934592)));
	cr_expect(c.check_room);
	cr_expect(eq(i64, c.margin_bytes, -4096));
	cr_expect(eq(sz, c.n_launchers, 2));
	cr_assert(ne(ptr, (void *)conf_dest_launcher(&c, "vm"), NULL));
	cr_expect(eq(int, conf_dest_launcher(&c, "vm")->driver, GUEST_DRIVER_QEMU));
	cr_expect(eq(str, conf_dest_launcher(&c, "vm")->argv[1], "{name}"));
	cr_expect(eq(ptr, (void *)conf_dest_launcher(&c, "v"), NULL));
	conf_dest_clear(&c);
}

/* conf_with() takes null for "away", so this one is made by hand. */
Test(conf_dest, registering_can_be_turned_off)
{
	json_t *json = json_loads(GOOD, 0, NULL);
	struct error err = {0};
	struct conf_dest c;

	json_object_set_new(json, "source_api", json_null());
	json_object_set_new(json, "limits", json_pack("{s:n}", "margin_bytes"));
	cr_assert(eq(int, conf_dest_read(json, &c, &err), 0), "%s", err.msg);
	cr_expect(eq(ptr, c.source_api, NULL));
	cr_expect(not(c.check_room));
	conf_dest_clear(&c);
	json_decref(json);
}

Test(conf_dest, listen_takes_hosts_and_ports)
{
	static const struct {
		const char *member, *host;
		uint16_t port;
	} rows[] = {
		{"\"listen\": \"127.0.0.1\"", "127.0.0.1", 7400},
		{"\"listen\": \"host-b.example:9\"", "host-b.example", 9},
		{"\"listen\": \"[::]:65535\"", "::", 65535},
		{"\"listen\": \"[fe80::1]\"", "fe80::1", 7400},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct conf_dest c = read_with(rows[i].member);

		cr_expect(eq(str, c.listen_host, (char *)rows[i].host));
		cr_expect(eq(u16, c.listen_port, rows[i].port));
		conf_dest_clear(&c);
	}
}

#define LAUNCHER(text) "\"launchers\": {\"vm\": " text "}"

Test(conf_dest, every_key_wrong_once)
{
	static const struct wrong rows[] = {
		{"\"listen\": null", -EINVAL, "listen: missing"},
		{"\"listen\": 7400", -EINVAL, "listen: must be a string"},
		{"\"listen\": \"\"", -EINVAL, "listen"},
		{"\"listen\": \":7400\"", -EINVAL, "listen"},
		{"\"listen\": \"a:0\"", -EINVAL, "listen: \"a:0\" has no port"},
		{"\"listen\": \"a:65536\"", -EINVAL, "has no port"},
		{"\"listen\": \"a:\"", -EINVAL, "has no port"},
		{"\"listen\": \"a:+1\"", -EINVAL, "has no port"},
		{"\"listen\": \"[::1\"", -EINVAL, "listen"},
		{"\"listen\": \"[::1]7\"", -EINVAL, "has no port"},
		{"\"listen\": \"[a]:7\"", -EINVAL, "listen"},
		{"\"listen\": \"::1\"", -EINVAL, "listen"},
		{"\"listen\": \"a b:7\"", -EINVAL, "listen"},
		{"\"tls\": null", -EINVAL, "tls: missing"},
		{"\"tls\": {\"ca\": \"a\"}", -EINVAL, "tls.cert: missing"},
		{"\"allow\": \"DNS:a\"", -EINVAL, "allow"},
		{"\"allow\": [\"host-a\"]", -EINVAL, "allow: [0] \"host-a\" is not DNS:name"},
		{"\"allow\": [\"DNS:a\", \"DNS:\"]", -EINVAL, "allow: [1]"},
		{"\"allow\": [\"DNS:a..b\"]", -EINVAL, "allow"},
		{"\"allow\": [\"DNS:*.b\"]", -EINVAL, "allow"},
		{"\"allow\": [\"IP:1.2.3\"]", -EINVAL, "allow"},
		{"\"allow\": [\"IP:host\"]", -EINVAL, "allow"},
		{"\"allow\": [\"URI:spiffe\"]", -EINVAL, "allow"},
		{"\"allow\": [\"URI:a b:c\"]", -EINVAL, "allow"},
		{"\"allow\": [\"URI::c\"]", -EINVAL, "allow"},
		{"\"api\": {\"listen\": [\"https://a:1\"]}", -EINVAL, "api.listen[0]"},
		{"\"api\": {\"token_file\": []}", -EINVAL, "api.token_file"},
		{"\"attach\": 1", -EINVAL, "attach"},
		{"\"run_dir\": \"\"", -EINVAL, "run_dir"},
		{"\"state_dir\": []", -EINVAL, "state_dir"},
		{"\"cordon_file\": 1", -EINVAL, "cordon_file"},
		{"\"source_api\": \"/x\"", -EINVAL, "source_api: \"/x\" is not unix:PATH"},
		{"\"source_api\": \"https://h:1\"", -ENOTSUP, "ask each other by a Unix socket"},
		{"\"source_api\": 1", -EINVAL, "source_api"},
		{"\"limits\": []", -EINVAL, "limits"},
		{"\"limits\": {\"incoming\": 0}", -EINVAL, "limits.incoming"},
		{"\"limits\": {\"connections\": 0}", -EINVAL, "limits.connections"},
		{"\"limits\": {\"connections_per_address\": 10001}", -EINVAL,
		 "limits.connections_per_address"},
		{"\"limits\": {\"incoming_per_source\": -1}", -EINVAL,
		 "limits.incoming_per_source"},
		{"\"limits\": {\"memory_bytes\": \"1G\"}", -EINVAL, "limits.memory_bytes"},
		{"\"limits\": {\"margin_bytes\": \"1G\"}", -EINVAL, "limits.margin_bytes"},
		{"\"limits\": {\"margin_bytes\": 70368744177665}", -EINVAL, "limits.margin_bytes"},
		{"\"limits\": {\"guests\": 1}", -EINVAL, "limits.guests: unknown key"},
		{"\"launchers\": []", -EINVAL, "launchers"},
		{"\"launchers\": {\"a/b\": {}}", -EINVAL, "is no name of a launcher"},
		{LAUNCHER("1"), -EINVAL, "launchers.vm"},
		{LAUNCHER("{\"argv\": [\"/a\"]}"), -EINVAL, "launchers.vm.driver: missing"},
		{LAUNCHER("{\"driver\": \"x\", \"argv\": [\"/a\"]}"), -EINVAL,
		 "launchers.vm.driver"},
		{LAUNCHER("{\"driver\": \"qemu\"}"), -EINVAL, "launchers.vm.argv: missing"},
		{LAUNCHER("{\"driver\": \"qemu\", \"argv\": []}"), -EINVAL, "launchers.vm.argv"},
		{LAUNCHER("{\"driver\": \"qemu\", \"argv\": [\"/q\"], \"qmp\": \"rel\"}"), -EINVAL,
		 "launchers.vm.qmp: must be an absolute path"},
		{LAUNCHER("{\"driver\": \"qemu\", \"argv\": [\"/q\"], \"qmp\": \"/a/{qmp}\"}"),
		 -EINVAL, "must not have {qmp}"},
		{LAUNCHER("{\"driver\": \"qemu\", \"argv\": [\"/q\"], \"qmp\": \"/a/{nam}\"}"),
		 -EINVAL, "unknown placeholder {nam}"},
		{LAUNCHER("{\"driver\": \"native\", \"argv\": [\"/q\"], \"qmp\": \"/a\"}"), -EINVAL,
		 "qmp is for driver qemu only"},
		{LAUNCHER("{\"driver\": \"qemu\", \"argv\": [\"a\"]}"), -EINVAL,
		 "launchers.vm.argv: the program must be an absolute path"},
		{LAUNCHER("{\"driver\": \"qemu\", \"argv\": [\"\"]}"), -EINVAL, "absolute"},
		{LAUNCHER("{\"driver\": \"qemu\", \"argv\": [\"/a\", 1]}"), -EINVAL,
		 "launchers.vm.argv[1]"},
		{LAUNCHER("{\"driver\": \"qemu\", \"argv\": [\"/a\", \"-m={memory}\"]}"), -EINVAL,
		 "launchers.vm.argv: [1] unknown placeholder {memory}"},
		{LAUNCHER("{\"driver\": \"qemu\", \"argv\": [\"/a\", \"{var:}\"]}"), -EINVAL,
		 "unknown placeholder {var:}"},
		{LAUNCHER("{\"driver\": \"qemu\", \"argv\": [\"/a\", \"{name}{uuid\"]}"), -EINVAL,
		 "[1] '{' without '}'"},
		{LAUNCHER("{\"driver\": \"qemu\", \"argv\": [\"/a\"], \"env\": {}}"), -EINVAL,
		 "launchers.vm.env: unknown key"},
		{"\"hooks\": [{}]", -EINVAL, "hooks[0]: must have one of url and exec"},
		{"\"hooks\": [{\"url\": \"http://x\", \"gate\": true}]", -EINVAL,
		 "hooks[0]: gate: only decant-source asks gates"},
		{"\"defaults\": {}", -EINVAL, "defaults: unknown key"},
	};

	CONF_EXPECT_WRONG(rows, GOOD, struct conf_dest, conf_dest_read);
}
