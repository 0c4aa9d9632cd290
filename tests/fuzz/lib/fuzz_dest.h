/* SPDX-License-Identifier: Apache-2.0 */
/* The whole destination agent, on a loop that the target turns, with a folder of its own. */
#ifndef DECANT_TESTS_FUZZ_DEST_H
#define DECANT_TESTS_FUZZ_DEST_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include "dest.h"
#include "fuzz/lib/fuzz.h"
#include "fuzz/lib/fuzz_dir.h"

/** fuzz_dest_port() - Return: where it listens; one of each process, and of no system's range */
static inline uint16_t fuzz_dest_port(void)
{
	return (uint16_t)(10000 + getpid() % 20000);
}

/** fuzz_dest_new() - started, in @dir, which is there. Return: whether that went well; fuzz_dest_free() in either case */
static inline bool fuzz_dest_new(struct dest *d, const char *dir)
{
	struct error err = {0};
	char text[1400];
	json_t *json;

	*d = (struct dest){.started_us = 1};
	snprintf(text, sizeof(text),
		 "{\"listen\":\"127.0.0.1:%u\",\"allow\":[\"DNS:peer\"],\"api\":{\"listen\":["
		 "\"unix:%s/"
		 "api.sock\"]},\"tls\":{\"ca\":\"/c\",\"cert\":\"/d\",\"key\":\"/"
		 "e\"},\"attach\":\"%s/"
		 "attach\",\"run_dir\":\"%s/run\",\"state_dir\":\"%s/state\",\"source_api\":null,"
		 "\"launchers\":{\"run\":{\"driver\":\"native\",\"argv\":[\"/bin/"
		 "false\",\"{name}\"]}}}",
		 fuzz_dest_port(), dir, dir, dir, dir);
	json = json_loads(text, 0, NULL);
	FUZZ_CHECK(!conf_dest_read(json, &d->conf, &err));
	json_decref(json);
	d->loop = loop_new();
	return !dest_start(d, &err);
}

/** fuzz_dest_free() - an orderly end */
static inline void fuzz_dest_free(struct dest *d)
{
	dest_end(d);
	fuzz_turns(d->loop, 3);
	dest_stop(d);
}

/** fuzz_dest_connect() - a connection of a source. Its end leaves nothing behind in the kernel */
static inline int fuzz_dest_connect(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET,
				  .sin_port = htons(fuzz_dest_port()),
				  .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct linger now = {.l_onoff = 1};
	int one = 1;
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(s, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	FUZZ_CHECK(!connect(s, (struct sockaddr *)&sin, sizeof(sin)));
	return s;
}

#endif
