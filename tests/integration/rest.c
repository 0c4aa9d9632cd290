/* SPDX-License-Identifier: Apache-2.0 */
/*
 * REST with real agents: over TCP with TLS by the command line, events that are resumed, and clients that
 * do nothing beside a migration, which must not notice.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "lib/lab_pace.h"
#include "lib/lab_test.h"

TestSuite(rest, .timeout = 240);

#define OP_TOKEN   "9f86d081884c7d659a2feaa0c55ad015"
#define READ_TOKEN "reader-token-1234"

static char *token_file(struct lab *lab, const char *name, const char *line)
{
	char *path;

	cr_assert(asprintf(&path, "%s/%s", lab->root, name) > 0);
	lab_write_file(lab, path, line);
	chmod(path, 0600);
	return path;
}

/* `decant --api https://… ARGS` with these credentials of the lab's certificates. Return: its exit code */
static int ask(struct lab_host *h, uint16_t port, const char *identity, const char *token,
	       const char *const args[], char **ret_err)
{
	char program[LAB_PATH_MAX + 64], api[64], ca[LAB_PATH_MAX + 64], cert[LAB_PATH_MAX + 64],
		key[LAB_PATH_MAX + 64];
	const char *argv[24] = {program, "--api", api, "--cacert", ca};
	size_t n = 5;

	snprintf(program, sizeof(program), "%s/decant", h->build);
	snprintf(api, sizeof(api), "https://127.0.0.1:%u", port);
	snprintf(ca, sizeof(ca), "%s/host-a.ca", h->lab->certs);
	snprintf(cert, sizeof(cert), "%s/%s.cert", h->lab->certs, identity ? identity : "");
	snprintf(key, sizeof(key), "%s/%s.key", h->lab->certs, identity ? identity : "");
	if (identity) {
		argv[n++] = "--cert";
		argv[n++] = cert;
		argv[n++] = "--key";
		argv[n++] = key;
	}
	if (token) {
		argv[n++] = "--token-file";
		argv[n++] = token;
	}
	while (*args)
		argv[n++] = *args++;
	return lab_run(h->lab, NULL, 20000, NULL, ret_err, argv);
}

Test(rest, https_by_token_and_certificate)
{
	struct lab *lab = lab_new(lab_test_failed);
	uint16_t port = lab_free_port(lab);
	char *op = token_file(lab, "op", "operator ci " OP_TOKEN "\n");
	char *reader = token_file(lab, "reader", READ_TOKEN "\n");
	char *wrong = token_file(lab, "wrong", "wrong-wrong-wrong-wrong\n");
	char *all =
		token_file(lab, "tokens", "operator ci " OP_TOKEN "\nreader prom " READ_TOKEN "\n");
	static const char *const look[] = {"guests", NULL}, *const change[] = {"migrate", "x",
									       "--to", "h:1", NULL};
	const struct {
		const char *identity, *token;
		const char *const *args;
		int exit;
		const char *word;
	} rows[] = {
		{NULL, op, look, 0, ""},
		{NULL, op, change, 3, "no guest is named x"},
		{NULL, reader, look, 0, ""},
		{NULL, reader, change, 3, "is for operators"},
		{NULL, wrong, look, 3, "token is not one"},
		{NULL, NULL, look, 3, "a token"},
		{"host-b", NULL, look, 0, ""},
		{"host-b", NULL, change, 3, "no guest is named x"},
		{"elsewhere", NULL, look, 0, ""},
		{"elsewhere", NULL, change, 3, "is for operators"},
		{"host-a", NULL, look, 3, "neither in api.operators"},
		{"foreign", NULL, look, 4, "not signed by a CA that"},
	};
	char conf[1200];
	struct lab_host *a;

	snprintf(conf, sizeof(conf),
		 "{\"api\": {\"listen\": [\"unix:%s/a/source.sock\", \"https://127.0.0.1:%u\"], "
		 "\"token_file\": \"%s\", \"operators\": [\"DNS:host-b\"], \"readers\": "
		 "[\"DNS:elsewhere\"]}}",
		 lab->root, port, all);
	a = lab_host_start(
		lab, &(struct lab_host_opts){.name = "a", .source_conf = conf, .no_dest = true});
	for (size_t i = 0; i < LAB_COUNT(rows); i++) {
		char *err = NULL;
		int r = ask(a, port, rows[i].identity, rows[i].token, rows[i].args, &err);

		lab_check(lab, r == rows[i].exit, "row %zu: exit %d: %s", i, r, err);
		lab_check(lab, strstr(err, rows[i].word), "row %zu: %s", i, err);
		free(err);
	}
	/* What was let in before is judged by the new tokens: SIGHUP reads them again. */
	lab_write_file(lab, all, "operator other 0123456789abcdef0123\n");
	kill(a->source->pid, SIGHUP);
	lab_until(lab, 5000, ask(a, port, NULL, op, look, NULL) == 3, "the old token goes on");
	lab_check(lab, !lab_proc_said(lab, a->source, OP_TOKEN), "a token is in the log");
	lab_end(lab);
	free(op);
	free(reader);
	free(wrong);
	free(all);
}

static int connect_to(const char *sock)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", sock);
	cr_assert(connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0);
	return fd;
}

static int look_at_events(const char *sock, const char *last)
{
	int fd = connect_to(sock);

	dprintf(fd, "GET /v1/events HTTP/1.1\r\nHost: x\r\n%s%s%s\r\n",
		last ? "Last-Event-ID: " : "", last ? last : "", last ? "\r\n" : "");
	return fd;
}

/* Read on until @word has come. Return: all of the text, for free(3) */
static char *read_to(struct lab *lab, int fd, const char *word)
{
	size_t cap = 1u << 20, n = 0;
	char *text = calloc(1, cap);

	while (!strstr(text, word)) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t got = poll(&p, 1, 20000) == 1 ? read(fd, text + n, cap - n - 1) : 0;

		lab_check(lab, got > 0, "\"%s\" does not come: %s", word, text);
		n += (size_t)got;
	}
	return text;
}

Test(rest, events_tell_a_migration_and_are_resumed)
{
	static const char *const phases[] = {"\"phase\":\"setup\"", "\"phase\":\"switchover\"",
					     "\"phase\":\"completed\""};
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 16});
	int there = look_at_events(b->dest_sock, NULL), here = look_at_events(a->source_sock, NULL);
	char *text = read_to(lab, here, "hello"), *id = strstr(text, "id: "), *again;

	json_decref(lab_migrate(a, b, g, &(struct lab_move){.mode = "hybrid"}));
	id = strndup(id + 4, strcspn(id + 4, "\n"));
	free(text);
	text = read_to(lab, here, phases[2]);
	for (size_t i = 0; i < LAB_COUNT(phases); i++)
		lab_check(lab, strstr(text, phases[i]), "%s is not told: %s", phases[i], text);
	close(here);
	here = look_at_events(a->source_sock, id);
	again = read_to(lab, here, phases[2]);
	lab_check(lab, strstr(again, "{\"resumed\":true}"), "not resumed: %s", again);
	lab_check(lab, strstr(again, phases[0]), "what was before is not told again: %s", again);
	free(again);
	free(text);
	text = read_to(lab, there, phases[2]);
	lab_check(lab, strstr(text, "event: incoming"), "decant-dest: %s", text);
	free(text);
	free(id);
	close(here);
	close(there);
	lab_guest_arrived(g, b);
	lab_end(lab);
}

static uint64_t move(struct lab_host *from, struct lab_host *to, struct lab_guest *g,
		     uint64_t *ret_down_us)
{
	struct lab_move m = {.mode = "precopy",
			     .args = {"--max-passes", "3", "--no-convergence", "stop"}};
	uint64_t t = lab_now_ms();
	json_t *job = lab_migrate(from, to, g, &m);

	t = lab_now_ms() - t;
	*ret_down_us = (uint64_t)json_integer_value(json_object_get(job, "downtime_us"));
	json_decref(job);
	lab_guest_arrived(g, to);
	lab_host_knows(to, g->name);
	return t;
}

/* Half of them read no events, the others never end their request: both agents have a crowd of each. */
static void crowd_in(struct lab_host *h, int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const char *sock = i & 1 ? h->source_sock : h->dest_sock;

		if (i % 4 < 2) {
			fds[i] = look_at_events(sock, NULL);
		} else {
			fds[i] = connect_to(sock);
			dprintf(fds[i],
				"POST /v1/migrations HTTP/1.1\r\nHost: x\r\nContent-Length: 9999");
		}
	}
}

Test(rest, idle_clients_do_not_slow_a_migration)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 64});
	uint64_t down, down_crowd, alone = move(a, b, g, &down), crowd;
	struct pace *pace = pace_start();
	int fds[2][56];

	crowd_in(a, fds[0], LAB_COUNT(fds[0]));
	crowd_in(b, fds[1], LAB_COUNT(fds[1]));
	crowd = move(b, a, g, &down_crowd);
	cr_log_info("alone %llu ms, paused %llu us; beside 112 idle clients %llu ms, %llu us",
		    (unsigned long long)alone, (unsigned long long)down, (unsigned long long)crowd,
		    (unsigned long long)down_crowd);
	lab_brisk(lab, pace, crowd * 1000, 3 * alone * 1000 + 2000000, "beside idle clients");
	pace_end(pace);
	for (size_t i = 0; i < LAB_COUNT(fds[0]); i++) {
		close(fds[0][i]);
		close(fds[1][i]);
	}
	lab_end(lab);
}
