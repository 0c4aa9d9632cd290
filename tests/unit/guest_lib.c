/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library against an agent that comes and goes and sends nonsense. Here the agent is the test
 * itself, packet by packet; the guest is the usual program in its own process.
 */
#include "unit/guest_pair.h"

#include <poll.h>

static struct pair p; /* only its folder and its loop */
static struct pair_shared *s;
static pid_t child;
static int listener, sock = -1;
static uint8_t packet[GWIRE_PACKET_MAX];
static uint32_t next_id;

static void start(void)
{
	struct error err = {0};

	pair_open(&p);
	attach_free(p.attach);
	p.attach = NULL;
	listener = fdio_unix_listen(p.path, SOCK_SEQPACKET, 0600, &err);
	cr_assert_geq(listener, 0);
	s = pair_shared();
	signal(SIGPIPE, SIG_IGN);
}

static void stop(void)
{
	if (child)
		pair_kill(&p, child);
	if (sock >= 0)
		close(sock);
	close(listener);
	unlink(p.path);
	pair_close(&p);
}

TestSuite(guest_lib, .init = start, .fini = stop, .timeout = 120);

static void wait_for(int fd, const char *what)
{
	struct pollfd q = {.fd = fd, .events = POLLIN};

	cr_assert_eq(poll(&q, 1, PAIR_WAIT_MS), 1, "waited in vain for %s", what);
}

/* The next message of the guest, type 0 at the end of the connection; its descriptor goes to @ret_fd. */
static struct gwire_msg take(int *ret_fd)
{
	struct gwire_msg m = {0};
	const char *what;
	ssize_t n;
	int fd;

	wait_for(sock, "a message");
	n = gwire_recv(sock, packet, &fd, NULL);
	if (n <= 0)
		return m;
	cr_assert_eq(gwire_decode(packet, (size_t)n, NULL, &m, &what), 0);
	if (ret_fd)
		*ret_fd = fd;
	else if (fd >= 0)
		close(fd);
	return m;
}

static void put(const struct gwire_msg *m, int fd)
{
	ssize_t n = gwire_encode(m, packet, sizeof(packet));

	cr_assert_gt(n, 0);
	cr_assert_eq(gwire_send(sock, packet, (size_t)n, fd), 0);
}

/* Accept, and hear what the guest has to say. */
static struct gwire_hello hear(void)
{
	struct gwire_msg m, b;

	if (sock >= 0)
		close(sock);
	wait_for(listener, "the guest");
	sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	cr_assert_geq(sock, 0);
	m = take(NULL);
	cr_assert_eq(m.type, GWIRE_HELLO);
	for (unsigned int i = 0; i < m.u.hello.blocks; i++) {
		b = take(NULL);
		cr_assert_eq(b.type, GWIRE_BLOCK);
		cr_assert_eq(b.u.block.index, i);
	}
	cr_assert_eq(take(NULL).type, GWIRE_HELLO_END);
	return m.u.hello;
}

static struct gwire_hello welcome(void)
{
	struct gwire_msg m = {.type = GWIRE_WELCOME, .u.version = 1};
	struct gwire_hello h = hear();

	put(&m, -1);
	return h;
}

/* Ask and hear the answer. */
static int ask(struct gwire_msg m, int fd)
{
	m.id = ++next_id;
	m.nfds = fd >= 0;
	put(&m, fd);
	do
		m = take(NULL);
	while (m.type == GWIRE_STATE_CHANGED);
	cr_assert_eq(m.type, GWIRE_DONE, "%s", gwire_name(m.type));
	cr_assert_eq(m.id, next_id);
	return m.u.done.result;
}

static void run(void)
{
	child = pair_fork(&p, pair_program, s);
}

static void run_incoming(void)
{
	child = pair_fork(&p, pair_incoming, s);
}

static struct gwire_range range = {0, PAIR_PAGE};

static struct gwire_msg requests[] = {
	{.type = GWIRE_PAUSE, .u.bound_ms = 1000},
	{.type = GWIRE_RESUME},
	{.type = GWIRE_SAVE, .nfds = 1},
	{.type = GWIRE_LOAD, .nfds = 1},
	{.type = GWIRE_LOAD_END},
	{.type = GWIRE_UFFD},
	{.type = GWIRE_UFFD_AGAIN},
	{.type = GWIRE_UFFD_CLOSE},
	{.type = GWIRE_PUNCH, .u.punch = {.n = 1, .ranges = &range}},
	{.type = GWIRE_PREPARE},
	{.type = GWIRE_FINISH},
	{.type = GWIRE_IDENTITY},
	{.type = GWIRE_MOVE, .u.path = "/x"},
	{.type = GWIRE_QUIT},
};

Test(guest_lib, requests_cut_at_each_byte_end_the_connection_only)
{
	uint8_t buf[256];

	run();
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		struct gwire_msg m = requests[i];
		ssize_t n;

		m.id = m.type == GWIRE_LOAD_END ? 0 : 7;
		n = gwire_encode(&m, buf, sizeof(buf));
		cr_assert_gt(n, 0);
		/* Not each of them in the middle of a long one: each costs a connection. */
		for (size_t cut = 1; cut < (size_t)n; cut += cut < 12 ? 1 : 5) {
			welcome();
			cr_assert_eq(gwire_send(sock, buf, cut, m.nfds ? listener : -1), 0);
			cr_assert_eq(take(NULL).type, 0, "%s cut to %zu", gwire_name(m.type), cut);
		}
		/* A descriptor too many, or too few. */
		welcome();
		cr_assert_eq(gwire_send(sock, buf, (size_t)n, m.nfds ? -1 : listener), 0);
		cr_assert_eq(take(NULL).type, 0, "%s", gwire_name(m.type));
	}
	welcome();
	cr_assert_eq(ask(requests[0], -1), 0);
	cr_assert_eq(s->pauses, 1);
	cr_assert_eq(s->quits, 0);
}

Test(guest_lib, what_it_does_not_know_it_says)
{
	uint8_t unknown[40] = {0xff, 0x7f, 0, 0, 9, 0, 0, 0, 1, 2, 3};
	struct gwire_msg m;

	run();
	welcome();
	gwire_send(sock, unknown, sizeof(unknown), -1);
	m = take(NULL);
	cr_assert_eq(m.type, GWIRE_DONE);
	cr_assert_eq(m.id, 9);
	cr_assert_eq(m.u.done.result, -EOPNOTSUPP);
	unknown[2] = 1; /* with a descriptor */
	gwire_send(sock, unknown, sizeof(unknown), listener);
	cr_assert_eq(take(NULL).u.done.result, -EOPNOTSUPP);
	unknown[2] = unknown[4] = 0; /* nobody to answer */
	gwire_send(sock, unknown, sizeof(unknown), -1);
	cr_assert_eq(take(NULL).type, 0);
	welcome();
	m = (struct gwire_msg){.type = GWIRE_HELLO_END};
	put(&m, -1);
	cr_assert_eq(take(NULL).type, 0, "that is a guest's message");
	welcome();
}

Test(guest_lib, an_agent_that_breaks_the_hello)
{
	struct gwire_msg m = {.type = GWIRE_WELCOME, .u.version = 2};

	run();
	for (int i = 0; i < 5; i++) {
		wait_for(listener, "the guest");
		close(accept(listener, NULL, NULL)); /* without reading anything */
	}
	hear();
	put(&m, -1);
	cr_assert_eq(take(NULL).type, 0, "it does not speak version 2");
	hear();
	m = (struct gwire_msg){.type = GWIRE_RESUME, .id = 1};
	put(&m, -1);
	cr_assert_eq(take(NULL).type, 0, "it has not been welcomed");
	hear();
	m = (struct gwire_msg){.type = GWIRE_REFUSED,
			       .u.refused = {.code = "c", .message = "because"}};
	put(&m, -1);
	cr_assert_eq(take(NULL).type, 0);
	cr_assert(strstr(s->text, "because"), "%s", s->text);
	welcome();
	cr_assert_eq(ask(requests[1], -1), 0);
}

Test(guest_lib, a_refusal_is_heard_though_the_hello_was_not)
{
	struct gwire_msg m = {.type = GWIRE_REFUSED, .u.refused = {.code = "c", .message = "why"}};

	run_incoming();
	wait_for(listener, "the guest");
	sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	put(&m, -1);
	pair_spin(&p, 50); /* its hello is here, unread: the close becomes a reset */
	close(sock);
	sock = -1;
	cr_assert_eq(pair_wait(&p, child), 20);
	cr_assert_eq(s->start, -EACCES);
	child = 0;
}

Test(guest_lib, the_agent_dies_in_the_middle_of_each_request)
{
	int pipefd[2];
	char byte;

	run();
	s->state = 30000000;
	for (size_t i = 0; i < ARRAY_SIZE(requests) - 2; i++) {
		struct gwire_msg m = requests[i];

		if (m.type == GWIRE_LOAD)
			continue;
		welcome();
		m.id = m.type == GWIRE_LOAD_END ? 0 : 1;
		cr_assert_eq(pipe2(pipefd, O_CLOEXEC), 0);
		put(&m, m.nfds ? pipefd[1] : -1);
		close(pipefd[1]);
		if (m.type == GWIRE_SAVE) /* it has not been paused: that is all that comes */
			cr_assert_eq(read(pipefd[0], &byte, 1), 0);
		close(pipefd[0]);
	}
	welcome();
	/* Whatever was held or was not, this ends it. */
	cr_assert_eq(ask(requests[1], -1), 0);
	cr_assert_eq(s->pauses, s->resumes);
	/* And in the middle of a save that is under way. */
	cr_assert_eq(ask(requests[0], -1), 0);
	cr_assert_eq(pipe2(pipefd, O_CLOEXEC), 0);
	requests[2].id = 99;
	put(&requests[2], pipefd[1]);
	close(pipefd[1]);
	cr_assert_eq(read(pipefd[0], &byte, 1), 1);
	close(pipefd[0]);
	cr_assert_eq(welcome().run_state, 2, "the hold stands");
	cr_assert_eq(ask(requests[1], -1), 0);
	cr_assert(!s->paused);
	s->state = 100;
}

Test(guest_lib, too_many_requests_are_turned_away)
{
	int busy = 0, done = 0, paused = 0;
	struct gwire_msg m = {.type = GWIRE_PAUSE, .id = 1, .u.bound_ms = 5000};

	run();
	welcome();
	s->pause_ms = 1000;
	put(&m, -1);
	pair_until(&p, s->pausing == 1);
	/* The callback thread is inside the pause: these wait for it. */
	for (uint32_t id = 2; id < 42; id++) {
		m = (struct gwire_msg){.type = GWIRE_FINISH, .id = id};
		put(&m, -1);
	}
	while (done + busy + paused < 41) {
		m = take(NULL);
		if (m.type == GWIRE_STATE_CHANGED)
			continue;
		cr_assert_eq(m.type, GWIRE_DONE);
		if (m.id == 1)
			paused += m.u.done.result == 0;
		else if (m.u.done.result == -EBUSY)
			busy++;
		else
			done++;
	}
	cr_assert_eq(done, 16);
	cr_assert_eq(busy, 24);
	cr_assert_eq(paused, 1);
	m = (struct gwire_msg){.type = GWIRE_PAUSE, .u.bound_ms = 5000};
	cr_assert_eq(ask(m, -1), 0);
}

Test(guest_lib, two_pauses_at_a_time_are_one_too_many)
{
	struct gwire_msg m = {.type = GWIRE_PAUSE, .id = 1, .u.bound_ms = 5000};

	run();
	welcome();
	s->pause_ms = 500;
	put(&m, -1);
	m.id = 2;
	put(&m, -1);
	m = take(NULL);
	cr_assert_eq(m.id, 2);
	cr_assert_eq(m.u.done.result, -EBUSY);
	/* One that comes before the callback has begun would cancel it without a trace. */
	for (int i = 0; i < 5000 && !s->pausing; i++)
		usleep(1000);
	cr_assert_eq(s->pausing, 1);
	/* A resume that crosses the pause cancels it, and it is undone when it comes. */
	m = (struct gwire_msg){.type = GWIRE_RESUME, .id = 3};
	put(&m, -1);
	m = take(NULL);
	cr_assert_eq(m.id, 1);
	cr_assert_eq(m.u.done.result, -ECANCELED);
	do
		m = take(NULL);
	while (m.type == GWIRE_STATE_CHANGED);
	cr_assert_eq(m.id, 3);
	cr_assert_eq(m.u.done.result, 0);
	cr_assert_eq(s->pauses, 1);
	cr_assert_eq(s->resumes, 1);
}

/* --- loading ------------------------------------------------------------------------------------ */

/* Load @n bytes, say that they were @said; -1 says nothing and hangs up. Return: DONE's result */
static int load(size_t n, int64_t said)
{
	struct gwire_msg m = {.type = GWIRE_LOAD, .nfds = 1, .id = ++next_id};
	uint8_t *bytes = malloc(n);
	int pipefd[2];

	for (size_t i = 0; i < n; i++)
		bytes[i] = pair_byte(i);
	cr_assert_eq(pipe2(pipefd, O_CLOEXEC), 0);
	put(&m, pipefd[0]);
	close(pipefd[0]);
	cr_assert_eq(write(pipefd[1], bytes, n), (ssize_t)n);
	close(pipefd[1]);
	free(bytes);
	if (said < 0) {
		pair_spin(&p, 100); /* the pipe has ended: that alone must not be the end */
		cr_assert_eq(s->loads, 0);
		close(sock);
		sock = -1;
		return -EPIPE;
	}
	m = (struct gwire_msg){.type = GWIRE_LOAD_END, .u.load_length = (uint64_t)said};
	put(&m, -1);
	do
		m = take(NULL);
	while (m.type == GWIRE_STATE_CHANGED);
	cr_assert_eq(m.type, GWIRE_DONE);
	return m.u.done.result;
}

Test(guest_lib, a_load_is_whole_only_with_its_length)
{
	run_incoming();
	cr_assert(welcome().has_token);
	cr_assert_eq(load(5000, 5000), 0);
	cr_assert_eq(s->loads, 1);
	cr_assert(welcome().has_token, "until it has been let go");
	cr_assert_eq(ask(requests[1], -1), 0);
	cr_assert(!welcome().has_token);
	pair_until(&p, s->start == DECANT_ARRIVED);
}

static void expect_failed(size_t n, int64_t said)
{
	run_incoming();
	welcome();
	cr_assert_lt(load(n, said), 0);
	cr_assert_eq(pair_wait(&p, child), 20);
	cr_assert_eq(s->start, -EIO);
	child = 0;
}

Test(guest_lib, a_load_that_is_too_short)
{
	expect_failed(5000, 5001);
}

Test(guest_lib, a_load_that_is_too_long)
{
	expect_failed(5000, 4999);
}

Test(guest_lib, a_load_whose_agent_dies)
{
	expect_failed(5000, -1);
}

Test(guest_lib, loaded_but_refused_it_waits)
{
	struct gwire_msg m = {.type = GWIRE_REFUSED, .u.refused = {.code = "c", .message = "m"}};

	run_incoming();
	welcome();
	cr_assert_eq(load(10, 10), 0);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(hear().run_state, 2);
		put(&m, -1);
	}
	cr_assert_eq(welcome().run_state, 2);
	cr_assert_eq(s->start, 99);
	cr_assert_eq(ask(requests[1], -1), 0);
	pair_until(&p, s->start == DECANT_ARRIVED);
}

Test(guest_lib, the_program_must_make_sense)
{
	struct decant_guest_config c = {.name = "x"}, good;
	struct decant_guest *g;
	char path[200];
	void *a;

	errno = 0;
	cr_assert_null(decant_guest_new(&c), "without callbacks");
	cr_assert_eq(errno, EINVAL);
	c.callbacks = (struct decant_guest_callbacks){pair_cb_pause, pair_cb_resume, pair_cb_save,
						      pair_cb_load,  pair_cb_quit,   NULL};
	good = c;
	c.name = "a b";
	cr_assert_null(decant_guest_new(&c));
	c = good;
	c.attach = "relative";
	cr_assert_null(decant_guest_new(&c));
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[108] = '\0';
	c.attach = path;
	cr_assert_null(decant_guest_new(&c));
	setenv("DECANT_INCOMING", "0123", 1);
	cr_assert_null(decant_guest_new(&good));
	unsetenv("DECANT_INCOMING");
	g = decant_guest_new(&good);
	cr_assert(g);
	cr_assert_eq(decant_block_create(g, "b", 0, DECANT_BLOCK_MEMFD, &a), -EINVAL);
	cr_assert_eq(decant_block_create(g, "b", 1, 0, &a), -EINVAL);
	cr_assert_eq(decant_block_create(g, "b", 1, DECANT_BLOCK_MEMFD | DECANT_BLOCK_ANON, &a),
		     -EINVAL);
	cr_assert_eq(decant_block_create(g, "b", 1, DECANT_BLOCK_MEMFD | 1u << 20, &a), -EINVAL);
	cr_assert_eq(decant_block_create(g, "b/c", 1, DECANT_BLOCK_MEMFD, &a), -EINVAL);
	cr_assert_eq(decant_block_create(g, "b", UINT64_MAX, DECANT_BLOCK_ANON, &a), -EINVAL);
	cr_assert_eq(decant_block_create(g, "b", 1, DECANT_BLOCK_MEMFD, &a), 0);
	((char *)a)[PAIR_PAGE - 1] = 1; /* it is rounded up */
	cr_assert_eq(decant_block_create(g, "b", 1, DECANT_BLOCK_ANON, &a), -EEXIST);
	cr_assert_eq(decant_guest_start(g), DECANT_STARTED);
	cr_assert_eq(decant_guest_start(g), -EALREADY);
	cr_assert_eq(decant_block_create(g, "c", 1, DECANT_BLOCK_ANON, &a), -EBUSY);
	decant_guest_free(g);
	decant_guest_free(NULL);
}

/* Return: permissions of the mapping at @at, for free(3) */
static char *permissions(const void *at)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long from, to;
	char *perms = NULL, *line = NULL;
	size_t cap = 0;

	while (!perms && getline(&line, &cap, f) > 0)
		if (sscanf(line, "%lx-%lx", &from, &to) == 2 && (uintptr_t)at >= from &&
		    (uintptr_t)at < to)
			perms = strdup(strchr(line, ' ') + 1);
	free(line);
	fclose(f);
	return perms;
}

/* A block that does not change any more can be filled until the start, and not written to after it. */
Test(guest_lib, read_only_blocks_are_so_from_the_start_on)
{
	struct decant_guest_config c = {.name = "x",
					.attach = "/nowhere/at/all",
					.callbacks = {pair_cb_pause, pair_cb_resume, pair_cb_save,
						      pair_cb_load, pair_cb_quit, NULL}};
	struct decant_guest *g = decant_guest_new(&c);
	void *rom[2], *ram;

	cr_assert(g);
	cr_assert_eq(decant_block_create(g, "rom0", PAIR_PAGE,
					 DECANT_BLOCK_MEMFD | DECANT_BLOCK_READONLY, &rom[0]),
		     0);
	cr_assert_eq(decant_block_create(g, "rom1", PAIR_PAGE,
					 DECANT_BLOCK_ANON | DECANT_BLOCK_READONLY, &rom[1]),
		     0);
	cr_assert_eq(decant_block_create(g, "ram", PAIR_PAGE, DECANT_BLOCK_MEMFD, &ram), 0);
	memset(rom[0], 1, PAIR_PAGE);
	memset(rom[1], 2, PAIR_PAGE);
	cr_assert_eq(decant_guest_start(g), DECANT_STARTED);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(strncmp(permissions(rom[i]), "r--", 3), 0, "%s", permissions(rom[i]));
	cr_assert_eq(strncmp(permissions(ram), "rw-", 3), 0, "%s", permissions(ram));
	cr_assert_eq(*(char *)rom[0], 1);
	cr_assert_eq(*(char *)rom[1], 2);
	decant_guest_free(g);
}
