/* SPDX-License-Identifier: Apache-2.0 */
/* What is text: configurations, journals, monitors, micro-VMs, HTTP. */
#include <stdio.h>
#include <string.h>
#include "fuzz/seeds/seeds.h"
#include "util/cleanup.h"

#define TLS "\"tls\":{\"ca\":\"/c\",\"cert\":\"/d\",\"key\":\"/e\",\"crl\":\"/f\"}"
#define PATHS                                                                                     \
	"\"attach\":\"/a\",\"run_dir\":\"/r\",\"state_dir\":\"/s\",\"api\":{\"listen\":[\"unix:/" \
	"x\"]}"
#define HOOKS                                                                                   \
	"[{\"name\":\"n\",\"url\":\"https://h:1/p\",\"events\":[\"migration.*\",\"*.failed\"]," \
	"\"secret_file\":\"/s\",\"ca\":\"/"                                                     \
	"c\",\"timeout_ms\":100,\"attempts\":3,\"retry_ms\":1000},"                             \
	"{\"exec\":[\"/bin/true\",\"-v\"],\"gate\":true,\"on_error\":\"allow\"}]"
#define API                                                                               \
	"{\"listen\":[\"https://[::]:7443\",\"http://127.0.0.1:1\",\"unix:/x\"],"         \
	"\"token_file\":\"/t\",\"operators\":[\"DNS:o\"],\"readers\":[\"IP:192.0.2.1\"]," \
	"\"tls\":{\"ca\":\"/c\",\"cert\":\"/d\",\"key\":\"/e\"}}"
#define GUEST                                                                                   \
	"{\"name\":\"vm\",\"uuid\":\"01234567-89ab-cdef-0123-456789abcdef\",\"driver\":"        \
	"\"qemu\",\"qmp\":\"/q\",\"generation\":3,\"launcher\":\"run\",\"vars\":{\"a\":\"b\"}," \
	"\"priority\":-5,\"disposal\":\"keep\"}"
#define OPTIONS                                                                                \
	"{\"mode\":\"precopy\",\"no_convergence\":\"stop\",\"tracking\":\"faults\","           \
	"\"compression\":\"none\",\"channels\":4,\"bandwidth\":1000000,\"downtime_limit_ms\":" \
	"100,\"precopy_timeout_s\":10,\"max_passes\":3,\"switchover_timeout_ms\":5000,"        \
	"\"dma_quarantine_ms\":10,\"urgent\":false}"

static void conf(struct seed *s, const char *name, uint8_t how, const char *text)
{
	seed_u8(s, how);
	seed_raw(s, text, strlen(text));
	seed_write(s, "conf", name);
}

static void confs(struct seed *s)
{
	conf(s, "source", 0, "{" TLS "," PATHS ",\"guests\":[" GUEST "],\"defaults\":" OPTIONS "}");
	conf(s, "dest", 1,
	     "{\"listen\":\"[::]:7400\",\"allow\":[\"DNS:a\",\"IP:192.0.2.1\",\"URI:x:y\"]," TLS
	     "," PATHS ",\"source_api\":null,\"limits\":{\"incoming\":3,\"memory_bytes\":99},"
	     "\"launchers\":{\"run\":{\"driver\":\"native\",\"argv\":[\"/g\",\"{name}\","
	     "\"{var:a}\"]}}}");
	conf(s, "hooks", 0, "{" TLS ",\"hooks\":" HOOKS "}");
	conf(s, "api", 1, "{" TLS ",\"listen\":\":1\",\"api\":" API "}");
	conf(s, "guest", 2, GUEST);
	conf(s, "options", 3, OPTIONS);
	conf(s, "bandwidth", 4, "bandwidth 2.5Gbit");
	conf(s, "urgent", 4, "no-urgent");
	conf(s, "mode", 4, "mode postcopy");
}

static void journals(struct seed *s)
{
	static const char text[] = "{\"record\":\"setup\"}\n{\"record\":\"owner\",\"pid\":7}\n";

	seed_u8(s, 1);
	seed_raw(s, text, sizeof(text) - 1);
	seed_write(s, "journal", "two");
	seed_u8(s, 0);
	seed_raw(s, text, sizeof(text) - 1);
	seed_write(s, "journal", "bad");
}

#define GREETING                                                                              \
	"{\"QMP\":{\"version\":{\"qemu\":{\"micro\":22,\"minor\":2,\"major\":7},\"package\":" \
	"\"\"},\"capabilities\":[]}}\r\n"

static void monitors(struct seed *s)
{
	static const char *const said[] = {
		GREETING,
		"{\"return\":{},\"id\":1}\r\n",
		"{\"return\":{\"status\":\"running\"},\"id\":2}\r\n",
		"{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"},\"id\":3}\r\n",
		"{\"event\":\"STOP\",\"timestamp\":{\"seconds\":1,\"microseconds\":2}}\r\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(said); i++) {
		seed_u8(s, 2);
		seed_text(s, said[i]);
	}
	seed_write(s, "qmp", "all");
}

/* Attached by good answers, asked for one thing after the other. */
static void virtual_machines(struct seed *s)
{
	for (unsigned int ask = 0; ask < 16; ask++) {
		char name[16];

		for (int round = 0; round < 4; round++)
			seed_u8(s, 30);
		seed_u8(s, (uint8_t)(128 + 32 + ask));
		seed_u8(s, 5);
		seed_u8(s, 65);
		seed_text(s, "{\"status\":\"paused\",\"running\":false}");
		seed_u8(s, 64);
		seed_text(s, "{\"event\":\"MIGRATION\",\"data\":{\"status\":\"completed\"}}\r\n");
		seed_u8(s, (uint8_t)(128 + (ask + 1) % 16));
		seed_u8(s, 20);
		snprintf(name, sizeof(name), "ask-%u", ask);
		seed_write(s, "qemu-driver", name);
	}
}

static void micro_vms(struct seed *s)
{
	seed_u16(s, 16);
	seed_u8(s, 1);
	seed_text(s, "[{\"base_host_virt_addr\":140737353732096,\"size\":1048576,\"offset\":0,"
		     "\"page_size\":4096,\"page_size_kib\":4096},");
	seed_u8(s, 0);
	seed_text(s, "{\"base_host_virt_addr\":140737354780672,\"size\":2097152,\"offset\":"
		     "2097152,\"page_size\":2097152}]");
	seed_write(s, "dest_micro_hello", "two");
}

static void requests(struct seed *s)
{
	static const char *const said[] = {
		"GET /v1/things?limit=1&after=a&q=%41+b HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/things/a%20b HTTP/1.0\r\nHost: x\r\nAccept: application/json\r\n\r\n",
		"POST /v1/things HTTP/1.1\r\nHost: x\r\nContent-Type: "
		"application/json\r\nContent-Length: 9\r\nIdempotency-Key: k\r\nExpect: "
		"100-continue\r\n\r\n{\"a\":[1]}GET /v1/things "
		"HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"DELETE /v1/things/a/parts/b HTTP/1.1\r\nHost: x\r\n\r\n",
		"DELETE /v1/things/a/parts/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
		"chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/html;q=0.5\r\n\r\n",
		"GET /v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 1-1\r\n\r\n",
		"#GET /v1/things HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
		"fedcba9876543210\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"#POST /v1/things HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
		"0123456789abcdef\r\nContent-Type: application/json\r\nContent-Length: "
		"2\r\nIdempotency-Key: k\r\n\r\n{}POST /v1/things HTTP/1.1\r\nHost: "
		"x\r\nAuthorization: Bearer 0123456789abcdef\r\nContent-Type: "
		"application/json\r\nContent-Length: 2\r\nIdempotency-Key: k\r\n\r\n{}",
		"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(said); i++) {
		char name[16];

		snprintf(name, sizeof(name), "%zu", i);
		seed_raw(s, said[i], strlen(said[i]));
		seed_write(s, "rest_http", name);
	}
}

void seeds_json(struct seed *s)
{
	confs(s);
	journals(s);
	monitors(s);
	virtual_machines(s);
	micro_vms(s);
	requests(s);
}
