/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of QEMU: attaching, and everything that an agent asks for, with a monitor that answers
 * anything, in between also what it should. A byte says what happens next: the answer to the oldest
 * command, rubbish, or a wish of the agent's.
 *
 * The QEMU is this process; the driver takes only a program for one whose name begins with "qemu-".
 */
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "fuzz/lib/fuzz.h"
#include "fuzz/lib/fuzz_ask.h"
#include "fuzz/lib/fuzz_fd.h"
#include "guest/qemu/qemu.h"
#include "util/cleanup.h"

#define HEARD_MAX 65536

/** struct monitor - @heard: commands without an answer, a line each */
struct monitor {
	int sock;
	char heard[HEARD_MAX + 1];
	size_t n;
};

/** struct agent - who attaches */
struct agent {
	struct qemu_attach *attach;
	struct guest *g;
	struct fuzz_asked asked;
	bool over;
};

/** struct good - what a QEMU answers to a command whose line has @what in it */
static const struct good {
	const char *what, *answer;
} good[] = {
	{"query-status", "{\"status\":\"running\",\"running\":true}"},
	{"query-memdev", "[{\"id\":\"ram\",\"size\":65536,\"share\":true}]"},
	{"info mtree",
	 "\"FlatView #0\\n  0000000000000000-000000000000ffff (prio 0, ram): ram\\n\""},
	{"gpa2hva", "\"Host virtual address for 0x0 (ram) is 0x300000000000\""},
	{"info network", "\"\""},
	{"query-named-block-nodes", "[]"},
	{"query-block", "[]"},
	{"query-cpus-fast", "[{\"qom-path\":\"/machine/cpu\",\"thread-id\":1}]"},
	{"query-uuid", "{\"UUID\":\"01234567-89ab-4def-8123-456789abcdef\"}"},
	{"query-pci", "[]"},
	{"feature-words", "[]"},
	{"\"type\"", "\"pc-q35-7.2-machine\""},
	{"qom-list", "[]"},
	{"query-migrate-cap", "[{\"capability\":\"x-ignore-shared\",\"state\":false},{"
			      "\"capability\":\"events\",\"state\":"
			      "false},{\"capability\":\"late-block-activate\",\"state\":false}]"},
	{"query-migrate-par", "{\"max-bandwidth\":1000}"},
	{"qom-get", NULL},
};

static void say(struct monitor *m, const char *text, size_t n)
{
	(void)!send(m->sock, text, n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void hear(struct monitor *m)
{
	ssize_t n;

	while ((n = recv(m->sock, m->heard + m->n, HEARD_MAX - m->n, MSG_DONTWAIT)) > 0)
		m->n += (size_t)n;
	m->heard[m->n] = '\0';
}

static const char *good_answer(const char *line)
{
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		if (strstr(line, good[i].what))
			return good[i].answer;
	return "{}";
}

/* Answer the oldest command: with @piece, or as it should be. */
static void answer(struct monitor *m, const char *piece, bool error)
{
	CLEANUP_FREE char *text = NULL;
	char *nl = memchr(m->heard, '\n', m->n), *id;
	int n;

	if (!nl)
		return;
	*nl = '\0';
	id = strstr(m->heard, "\"id\":");
	if (!piece && !error) {
		piece = good_answer(m->heard);
		error = !piece;
	}
	n = asprintf(&text, "{\"%s\": %s, \"id\": %ld}\r\n", error ? "error" : "return",
		     piece ? piece : "{\"class\": \"GenericError\", \"desc\": \"no\"}",
		     id ? strtol(id + 5, NULL, 10) : 0);
	FUZZ_CHECK(n > 0);
	say(m, text, (size_t)n);
	m->n -= (size_t)(nl + 1 - m->heard);
	memmove(m->heard, nl + 1, m->n + 1);
}

/* --- the agent ----------------------------------------------------------------------------------- */

static void on_gone(void *arg, struct guest *g, enum guest_gone how)
{
	struct agent *a = arg;

	(void)how;
	a->g = NULL;
	guest_free(g);
}

static void on_attached(void *arg, struct guest *g, const struct error *err)
{
	struct agent *a = arg;

	FUZZ_CHECK(!a->over && (g || error_is_set(err)));
	a->over = true;
	a->g = g;
	if (g)
		guest_watch(g, on_gone, NULL, a);
}

static void step(struct agent *a, struct monitor *m, struct loop *loop, struct fuzz_in *in)
{
	uint8_t op = fuzz_u8(in);
	char *text = NULL;

	if (op >= 128) {
		if (a->g)
			fuzz_ask(a->g, op, &a->asked);
	} else if (op < 64) { /* as many good answers */
		for (unsigned int i = 0; i <= op; i++)
			answer(m, NULL, false);
	} else {
		struct fuzz_in piece = fuzz_piece(in);

		text = fuzz_text(piece);
		if (op & 1)
			answer(m, text, op & 2);
		else
			say(m, text, piece.n);
		free(text);
	}
	fuzz_turns(loop, 2);
	hear(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char greeting[] = "{\"QMP\":{\"version\":{\"qemu\":{\"micro\":0,\"minor\":2,"
				       "\"major\":7},\"package\":\"\"},"
				       "\"capabilities\":[]}}\r\n";
	struct fuzz_in in = fuzz_begin(data, size);
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct qemu_spec spec = {.name = "vm", .path = sa.sun_path, .no_dma = "net0,disk"};
	struct monitor *m = calloc(1, sizeof(*m));
	struct loop *loop = loop_new();
	struct agent a = {0};
	struct error err = {0};

	fuzz_memory();
	snprintf(sa.sun_path, sizeof(sa.sun_path), "/tmp/decant-fuzz-qemu.%d", (int)getpid());
	unlink(sa.sun_path);
	FUZZ_CHECK(m && !bind(s, (struct sockaddr *)&sa, sizeof(sa)) && !listen(s, 1));
	FUZZ_CHECK(!qemu_attach(loop, &spec, on_attached, &a, &a.attach, &err));
	m->sock = accept4(s, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	say(m, greeting, sizeof(greeting) - 1);
	fuzz_turns(loop, 2);
	hear(m);
	while (in.n)
		step(&a, m, loop, &in);
	close(m->sock);
	fuzz_turns(loop, 4);
	guest_free(a.g);
	qemu_attach_free(a.attach);
	unlink(sa.sun_path);
	close(s);
	free(m);
	loop_free(loop);
	return 0;
}
