/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to both agents, and what their earlier lives left. */
#include <stdio.h>
#include <string.h>
#include "fuzz/seeds/seeds.h"
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

static void source_rest(struct seed *s)
{
	static const char *const said[] = {
		"GET /v1/health",
		"GET /v1/host",
		"POST "
		"/v1/guests\n{\"name\":\"b\",\"driver\":\"qemu\",\"qmp\":\"/nowhere\",\"vars\":{"
		"\"a\":\"b\"},\"launcher\":\"run\"}",
		"GET /v1/guests?limit=1&after=a",
		"GET /v1/guests/b",
		"POST /v1/migrations\n{\"guest\":\"vm\",\"to\":\"[::1]:7400\",\"mode\":\"hybrid\","
		"\"options\":{\"channels\":2,\"bandwidth\":1000}}",
		"POST "
		"/v1/snapshots\n{\"guest\":\"vm\",\"to\":\"h\",\"name\":\"monday\",\"start\":true}",
		"GET /v1/migrations",
		"POST /v1/migrations/" ID "/recover\n{\"to\":\"h:1\"}",
		"POST /v1/migrations/" ID "/resolve\n{\"keep\":\"source\"}",
		"POST /v1/migrations/" ID "/cancel",
		"DELETE /v1/guests/b",
	};

	requests(s, said, ARRAY_SIZE(said), 16);
	seed_write(s, "source_rest", "all");
}

static void source_journals(struct seed *s)
{
	static const char created[] = "{\"type\":\"created\",\"id\":\"" ID
				      "\",\"key\":\"\",\"guest\":\"vm\",\"uuid\":\"" ID
				      "\",\"generation\":1,\"host\":\"h\",\"port\":\"7400\","
				      "\"created_at\":5,\"paused\":false,"
				      "\"options\":{\"mode\":\"hybrid\"}}\n";
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
	static const char guests[] =
		"{\"guests\":[{\"name\":\"vm\",\"driver\":\"native\",\"launcher\":\"run\"}]}";

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		char name[16];

		snprintf(name, sizeof(name), "%zu", i);
		seed_u8(s, 0);
		seed_raw(s, created, sizeof(created) - 1);
		seed_raw(s, ends[i], strlen(ends[i]));
		seed_write(s, "source_journal", name);
	}
	seed_u8(s, 1);
	seed_raw(s, guests, sizeof(guests) - 1);
	seed_write(s, "source_journal", "guests");
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
		"GET /v1/health",
		"GET /v1/incoming?limit=2",
		"GET /v1/incoming/" ID,
		"GET /v1/snapshots",
		"POST /v1/snapshots\n{\"memory\":\"/dev/null\",\"name\":\"m\"}",
		"POST /v1/snapshots/m/restore\n{}",
		"POST /v1/uffd\n{\"name\":\"m\",\"socket\":\"/s\"}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(records); i++) {
		char name[16];

		snprintf(name, sizeof(name), "%zu", i);
		seed_text(s, records[i]);
		requests(s, said, ARRAY_SIZE(said), 0);
		seed_write(s, "dest_rest", name);
	}
}

void seeds_agents(struct seed *s)
{
	source_rest(s);
	source_journals(s);
	dest_rest(s);
}
