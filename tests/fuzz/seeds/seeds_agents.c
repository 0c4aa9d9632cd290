/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to both agents, and what their earlier lives left. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "fuzz/lib/fuzz_fd.h"
#include "fuzz/lib/fuzz_vm.h"
#include "fuzz/seeds/seeds.h"
#include "guest/gwire.h"
#include "util/cleanup.h"

#define ID "01234567-89ab-4def-8123-456789abcdef"

static void requests(struct seed *s, const char *const *said, size_t n, uint8_t op)
{
	for (size_t i = 0; i < n; i++) {
		if (op)
			seed_u8(s, op);
		seed_text(s, said[i]);
	}
}

/* A native guest "vm", as source_rest.c plays it. */
static void attach(struct seed *s)
{
	struct gwire_msg said[FUZZ_VM_SAYS];

	fuzz_vm_hello(said);
	for (size_t i = 0; i < FUZZ_VM_SAYS; i++) {
		uint8_t buf[1024];
		ssize_t n = gwire_encode(&said[i], buf, sizeof(buf));

		if (n < 0)
			abort();
		seed_u8(s, said[i].nfds ? FUZZ_FD_MEMORY : 0);
		seed_piece(s, buf, (size_t)n);
	}
}

#define CREATE                                                                               \
	"POST /v1/migrations\n+Idempotency-Key: k\n{\"guest\":\"vm\",\"to\":\"[::1]:7400\"," \
	"\"mode\":\"hybrid\",\"options\":{\"channels\":2,\"bandwidth\":1000}}"
#define EVACUATE                                                                              \
	"POST /v1/evacuations\n{\"to\":[\"h:1\",\"i\"],\"concurrency\":2,\"bandwidth\":1000," \
	"\"order\":\"largest\",\"mode\":\"precopy\",\"options\":{\"channels\":2}"

static void source_rest(struct seed *s)
{
	static const char *const looks[] = {
		"=GET /v1/events\n+Last-Event-ID: 1-2\n",
		"GET /v1/health",
		"GET /v1/host",
		"GET /v1/guests?limit=1&after=a",
		"GET /v1/host/bandwidth",
		"GET /metrics\n+Accept: application/openmetrics-text\n",
		"GET /openapi.json",
		"GET /",
		"HEAD /",
		"=GET /v1/events\n+Accept: text/event-stream\n",
		"GET /v1/nothing",
		"PATCH /v1/guests/b",
	};
	static const char *const guests[] = {
		"POST /v1/guests\n{\"name\":\"b\",\"driver\":\"qemu\",\"qmp\":\"/nowhere\","
		"\"vars\":{\"a\":\"b\"},\"launcher\":\"run\"}",
		"POST /v1/guests\n+Idempotency-Key: g\n{\"name\":\"c\",\"driver\":\"native\"}",
		"POST /v1/guests\n+Idempotency-Key: g\n{\"name\":\"c\",\"driver\":\"native\"}",
		"GET /v1/guests?limit=1",
		"GET /v1/guests/b",
		"DELETE /v1/guests/b",
		"DELETE /v1/guests/b",
		"PUT /v1/host/bandwidth\n{\"bandwidth\":1000000}",
		"PUT /v1/host/bandwidth\n{\"bandwidth\":null}",
		"PUT /v1/host/cordon\n{\"cordoned\":true}",
		"GET /v1/host",
		"PUT /v1/host/cordon\n{\"cordoned\":false}",
	};
	static const char *const jobs[] = {
		"=GET /v1/events",
		CREATE,
		CREATE,
		"GET /v1/migrations/@",
		"GET /v1/migrations?limit=1",
		"POST /v1/migrations/@/switchover",
		"POST /v1/migrations/@/recover\n{\"to\":\"h:1\"}",
		"POST /v1/migrations/@/resolve\n{\"keep\":\"source\",\"confirm\":\"@\"}",
		"POST /v1/migrations/@/cancel",
		"GET /v1/migrations/@",
		"DELETE /v1/guests/vm",
	};
	static const char *const snapshots[] = {
		"POST /v1/snapshots\n{\"guest\":\"vm\",\"to\":\"h\",\"name\":\"monday\",\"start\":"
		"true}",
		"GET /v1/snapshots/@",
		"GET /v1/snapshots",
		"POST /v1/snapshots/@/cancel",
		"GET /v1/snapshots/@",
	};
	static const char *const evacuations[] = {
		EVACUATE ",\"dry_run\":true}",   "GET /v1/evacuations/@", EVACUATE "}",
		"GET /v1/evacuations",           "GET /v1/evacuations/@", "GET /v1/host",
		"POST /v1/evacuations/@/cancel", "GET /v1/evacuations/@",
	};

	requests(s, looks, ARRAY_SIZE(looks), 16);
	seed_write(s, "source_rest", "looks");
	requests(s, guests, ARRAY_SIZE(guests), 16);
	seed_write(s, "source_rest", "guests");
	attach(s);
	requests(s, jobs, ARRAY_SIZE(jobs), 16);
	seed_write(s, "source_rest", "jobs");
	attach(s);
	requests(s, snapshots, ARRAY_SIZE(snapshots), 16);
	seed_write(s, "source_rest", "snapshots");
	attach(s);
	requests(s, evacuations, ARRAY_SIZE(evacuations), 16);
	seed_write(s, "source_rest", "evacuations");
}

/* Files of source_journal.c, by the byte before each. */
enum { MIGRATION, GUESTS, EVACUATION, ANSWERS, BANDWIDTH, CORDON };

static void file(struct seed *s, uint8_t which, const char *text)
{
	seed_u8(s, which);
	seed_text(s, text);
}

/* A job that was begun so, with each of its endings: seeds BEFORE0, BEFORE1, … */
static void journals(struct seed *s, uint8_t which, const char *begun, const char *const *ends,
		     size_t n, const char *before)
{
	for (size_t i = 0; i < n; i++) {
		char text[2048], name[32];

		snprintf(text, sizeof(text), "%s%s", begun, ends[i]);
		file(s, which, text);
		snprintf(name, sizeof(name), "%s%zu", before, i);
		seed_write(s, "source_journal", name);
	}
}

static void source_migrations(struct seed *s)
{
	static const char *const ends[] = {
		"{\"type\":\"may-hand-over\"}\n",
		"{\"type\":\"may-hand-over\"}\n{\"type\":\"held\"}\n{\"type\":\"moved\",\"host\":"
		"\"i\","
		"\"port\":\"1\"}\n",
		"{\"type\":\"rolled-back\"}\n{\"type\":\"ended\",\"state\":\"cancelled\","
		"\"committed\":"
		"false,\"at\":7,\"code\":\"c\",\"message\":\"m\"}\n",
		"{\"type\":\"completed\"}\n",
	};

	journals(s, MIGRATION,
		 "{\"type\":\"created\",\"id\":\"" ID
		 "\",\"key\":\"\",\"guest\":\"vm\",\"uuid\":\"" ID
		 "\",\"generation\":1,\"host\":\"h\",\"port\":\"7400\",\"created_at\":5,"
		 "\"paused\":false,\"options\":{\"mode\":\"hybrid\"}}\n",
		 ends, ARRAY_SIZE(ends), "");
}

#define EVACUATED(outcome, host)                                                    \
	"{\"type\":\"guest\",\"name\":\"vm\",\"uuid\":\"" ID                        \
	"\",\"generation\":1,\"bytes\":65536,\"priority\":0,\"outcome\":\"" outcome \
	"\",\"migration\":\"" ID "\",\"host\":" host                                \
	",\"tried\":1,\"attempted\":true,\"sent\":5,\"code\":\"c\",\"message\":\"m\"}\n"

static void source_evacuations(struct seed *s)
{
	static const char *const ends[] = {
		EVACUATED("waiting", "-1"),
		EVACUATED("migrating", "0") "{\"type\":\"cancel\",\"at\":6}\n",
		EVACUATED("failed", "1") "{\"type\":\"ended\",\"phase\":\"failed\",\"at\":9,"
					 "\"code\":\"c\",\"message\":\"m\"}\n",
	};

	journals(s, EVACUATION,
		 "{\"type\":\"created\",\"id\":\"" ID
		 "\",\"key\":\"\",\"to\":[\"h\",\"i:1\"],\"concurrency\":2,\"bandwidth\":0,"
		 "\"order\":\"priority\",\"created_at\":5,\"options\":{}}\n",
		 ends, ARRAY_SIZE(ends), "evac-");
}

static void source_files(struct seed *s)
{
	file(s, GUESTS,
	     "{\"guests\":[{\"name\":\"vm\",\"driver\":\"native\",\"launcher\":\"run\"}]}");
	file(s, BANDWIDTH, "{\"bandwidth\":1000,\"configured\":0}");
	file(s, CORDON, "{\"by\":\"operator\",\"since\":\"x\",\"since_us\":7}");
	file(s, ANSWERS,
	     "{\"key\":\"k\",\"request\":\"00000000000000aa\",\"status\":202,\"location\":\"/v1\","
	     "\"body\":\"{}\",\"at_us\":9000000000000000}\n"
	     "{\"key\":\"k\",\"request\":\"00\",\"status\":200,\"body\":\"\",\"at_us\":1}\n");
	seed_write(s, "source_journal", "files");
}

#define SETUP                                                                                  \
	"{\"record\":\"setup\",\"boot\":\"BOOT\",\"id\":\"" ID "\",\"identity\":\"DNS:peer\"," \
	"\"from\":\"x\",\"guest\":\"vm\",\"uuid\":\"" ID "\",\"generation\":2,\"driver\":"     \
	"\"native\",\"launcher\":\"run\",\"vars\":{},\"created\":5}\n"

static void dest_rest(struct seed *s)
{
	static const char *const records[] = {
		SETUP,
		SETUP "{\"record\":\"may-own\",\"boot\":\"BOOT\"}\n",
		SETUP "{\"record\":\"may-own\",\"boot\":\"BOOT\"}\n{\"record\":\"owner\",\"boot\":"
		      "\"BOOT\",\"pid\":1,\"pid_start\":5,\"pass\":2,\"listened\":true,\"place\":{"
		      "\"blocks\":[]},\"view\":{}}\n",
		SETUP
		"{\"record\":\"owner\",\"boot\":\"BOOT\"}\n{\"record\":\"completed\",\"boot\":"
		"\"BOOT\"}\n{\"record\":\"registered\",\"boot\":\"BOOT\"}\n",
	};
	static const char *const said[] = {
		"=GET /v1/events",
		"GET /v1/health",
		"GET /v1/host",
		"GET /v1/incoming?limit=2",
		"GET /v1/incoming/" ID,
		"GET /v1/snapshots",
		"POST /v1/snapshots\n{\"memory\":\"$/memory\",\"name\":\"m\"}",
		"GET /v1/snapshots/m",
		"GET /metrics",
		"GET /openapi.json",
		"GET /",
		"GET /v1/snapshots/m",
		"POST /v1/snapshots/m/restore\n+Idempotency-Key: k\n{}",
		"GET /v1/incoming/@",
		"POST /v1/snapshots/m/uffd\n{\"socket\":\"$/s\",\"owner\":{\"uid\":0,\"gid\":0}}",
		"GET /v1/incoming/@",
		"GET /v1/incoming",
		"GET /v1/host",
	};

	for (size_t i = 0; i < ARRAY_SIZE(records); i++) {
		char name[16];

		snprintf(name, sizeof(name), "%zu", i);
		seed_text(s, records[i]);
		requests(s, said, ARRAY_SIZE(said), 0);
		seed_write(s, "dest_rest", name);
	}
}

static void rest_auth(struct seed *s)
{
	seed_text(s, "# who\noperator ci 0123456789abcdef0\n\nreader dash\t0123456789abcdef1\n");
	seed_text(s, "Bearer 0123456789abcdef1");
	seed_text(s, "bearer   0123456789abcdef0");
	seed_text(s, "Basic eDp5");
	seed_write(s, "rest_auth", "two");
}

static void hooks(struct seed *s)
{
	static const char event[] =
		"{\"type\":\"decant.migration.setup\",\"subject\":\"migrations/1\"}";
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"decision\":\"allow\"}  ",
		"HTTP/1.1 200 OK\r\nContent-Length: 55\r\n\r\n{\"decision\":\"delay\","
		"\"retry_after_s\":1,\"reason\":\"r\"} ",
		"HTTP/1.1 503 no\r\nRetry-After: 7\r\nTransfer-Encoding: "
		"chunked\r\n\r\n1\r\nx\r\n0\r\n"
		"\r\n",
		"HTTP/1.1 302 x\r\nLocation: http://h/\r\n\r\n",
		"HTTP/1.1 100 x\r\n\r\nHTTP/1.1 200 "
		"x\r\n\r\n{\"decision\":\"refuse\",\"reason\":\"r\"}",
		"rubbish",
	};

	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		char name[16];

		snprintf(name, sizeof(name), "%zu", i);
		seed_text(s, i % 2 ? event : "{");
		for (size_t k = 0; k < 3; k++)
			seed_text(s, answers[(i + k) % ARRAY_SIZE(answers)]);
		seed_write(s, "hooks", name);
	}
}

void seeds_agents(struct seed *s)
{
	source_rest(s);
	source_migrations(s);
	source_evacuations(s);
	source_files(s);
	dest_rest(s);
	rest_auth(s);
	hooks(s);
}
