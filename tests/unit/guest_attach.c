/* SPDX-License-Identifier: Apache-2.0 */
/* What a broken or hostile guest can send to an agent. Here the guest is the test itself. */
#include "guest/native_impl.h"
#include "unit/guest_pair.h"

#include <linux/memfd.h>
#include <sys/resource.h>

static struct pair p;
static int sock;
static uint8_t packet[GWIRE_PACKET_MAX];

static int dial(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(sa.sun_path, p.path);
	cr_assert_eq(connect(s, (struct sockaddr *)&sa, sizeof(sa)), 0);
	fcntl(s, F_SETFL, O_NONBLOCK);
	return s;
}

static void start(void)
{
	pair_open(&p);
	sock = dial();
}

static void stop(void)
{
	close(sock);
	pair_spin(&p, 20);
	pair_close(&p);
}

TestSuite(guest_attach, .init = start, .fini = stop, .timeout = 60);

static void redial(void)
{
	close(sock);
	sock = dial();
}

static int put(const struct gwire_msg *m, int fd)
{
	ssize_t n = gwire_encode(m, packet, sizeof(packet));

	cr_assert_gt(n, 0);
	return gwire_send(sock, packet, (size_t)n, fd);
}

/* The next message of the agent; type 0 when it has ended the connection. */
static struct gwire_msg take(void)
{
	struct gwire_msg m = {0};
	uint64_t until = clock_us() + PAIR_WAIT_MS * 1000ull;
	const char *what;
	ssize_t n;
	int fd = -1;

	do {
		pair_spin(&p, 1);
		n = gwire_recv(sock, packet, &fd, NULL);
		if (n == -ECONNRESET)
			n = gwire_recv(sock, packet, &fd, NULL);
		cr_assert_lt(clock_us(), until, "the agent says nothing");
	} while (n == -EAGAIN);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return m;
	cr_assert_eq(gwire_decode(packet, (size_t)n, NULL, &m, &what), 0);
	return m;
}

static struct gwire_msg hello(uint16_t blocks)
{
	return (struct gwire_msg){
		.type = GWIRE_HELLO,
		.u.hello = {.version = 1, .name = "evil", .uuid = {1}, .blocks = blocks}};
}

static void say_hello(uint16_t blocks)
{
	struct gwire_msg m = hello(blocks);

	cr_assert_eq(put(&m, -1), 0);
}

static void say_end(void)
{
	struct gwire_msg m = {.type = GWIRE_HELLO_END};

	put(&m, -1);
}

static void expect_refused(const char *code, const char *why)
{
	struct gwire_msg m = take();

	cr_assert_eq(m.type, GWIRE_REFUSED, "%s instead of a refusal for %s", gwire_name(m.type),
		     why);
	cr_assert_str_eq(m.u.refused.code, code, "%s: %s", m.u.refused.code, m.u.refused.message);
	cr_assert(strstr(m.u.refused.message, why), "%s instead of %s", m.u.refused.message, why);
	cr_assert_eq(take().type, 0, "the connection goes on");
	cr_assert_null(p.g);
	redial();
}

static void attach(void)
{
	say_hello(0);
	say_end();
	cr_assert_eq(take().type, GWIRE_WELCOME);
	cr_assert(p.g);
}

Test(guest_attach, a_good_one_is_welcome)
{
	attach();
	cr_assert_str_eq(p.g->name, "evil");
}

Test(guest_attach, hello_cut_at_each_byte)
{
	struct gwire_msg m = hello(1);
	uint8_t buf[256];
	ssize_t n = gwire_encode(&m, buf, sizeof(buf));

	for (size_t cut = 1; cut < (size_t)n; cut++) {
		gwire_send(sock, buf, cut, -1);
		expect_refused("bad-message", cut < 8 ? "cut short" : "wrong");
	}
}

Test(guest_attach, block_cut_at_each_byte)
{
	struct gwire_msg m = {.type = GWIRE_BLOCK, .u.block = {.kind = 1, .name = "b"}};
	uint8_t buf[256];
	ssize_t n = gwire_encode(&m, buf, sizeof(buf));

	for (size_t cut = 1; cut < (size_t)n; cut++) {
		say_hello(1);
		gwire_send(sock, buf, cut, -1);
		expect_refused("bad-message", cut < 8 ? "cut short" : "wrong");
	}
}

Test(guest_attach, messages_out_of_order)
{
	struct gwire_msg m = {.type = GWIRE_BLOCK, .u.block = {.kind = 1, .name = "b"}};
	struct gwire_msg done = {.type = GWIRE_DONE, .id = 1};
	uint8_t unknown[8] = {200};

	put(&m, -1);
	expect_refused("bad-message", "BLOCK");
	say_end();
	expect_refused("bad-message", "HELLO_END");
	say_hello(0);
	say_hello(0);
	expect_refused("bad-message", "HELLO");
	say_hello(1);
	say_end();
	expect_refused("bad-hello", "fewer blocks");
	say_hello(0);
	put(&m, -1);
	expect_refused("bad-hello", "more blocks");
	put(&done, -1);
	expect_refused("bad-message", "DONE");
	gwire_send(sock, unknown, sizeof(unknown), -1);
	expect_refused("bad-message", "200");
}

Test(guest_attach, hellos_that_cannot_be)
{
	static const char *const names[] = {"", ".x", "-x", "a b", "a/b", "a\"b", "\xc3\xa4"};
	struct gwire_msg m = hello(0);

	m.u.hello.version = 2;
	put(&m, -1);
	expect_refused("version", "version 2");
	m = hello(0);
	m.u.hello.uuid[0] = 0;
	put(&m, -1);
	expect_refused("bad-hello", "uuid");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		m = hello(0);
		strcpy(m.u.hello.name, names[i]);
		put(&m, -1);
		expect_refused("bad-hello", "name");
	}
}

/* --- blocks ------------------------------------------------------------------------------------- */

static int memfd(uint64_t length, int seals)
{
	int fd = memfd_create("b", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	cr_assert_eq(ftruncate(fd, (off_t)length), 0);
	cr_assert_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static uint64_t map(int fd, size_t length, off_t off)
{
	void *q = mmap(NULL, length, PROT_READ | PROT_WRITE,
		       fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, off);

	cr_assert_neq(q, MAP_FAILED);
	return (uintptr_t)q;
}

#define LEN (16 * PAIR_PAGE)

static struct gwire_msg block(uint16_t index, uint8_t kind, uint64_t addr)
{
	struct gwire_msg m = {.type = GWIRE_BLOCK,
			      .nfds = kind != 1,
			      .u.block = {.index = index,
					  .kind = kind,
					  .length = LEN,
					  .page_size = PAIR_PAGE,
					  .address = addr}};

	snprintf(m.u.block.name, sizeof(m.u.block.name), "b%u", index);
	return m;
}

/* Two blocks, the first of which is good; then what is wrong with the second. */
static void expect_bad(const struct gwire_msg *m, int fd, const char *why)
{
	static uint64_t where;
	struct gwire_msg good;

	if (!where)
		where = map(-1, LEN, 0);
	good = block(0, 1, where);
	say_hello(2);
	put(&good, -1);
	put(m, fd);
	say_end();
	expect_refused("bad-block", why);
}

Test(guest_attach, good_blocks)
{
	int fd = memfd(LEN, F_SEAL_SHRINK);
	struct gwire_msg m[2] = {block(0, 0, map(fd, LEN, 0)), block(1, 1, map(-1, LEN, 0))};

	/* A block may be of several mappings. */
	mprotect((void *)m[0].u.block.address, PAIR_PAGE, PROT_READ);
	mprotect((void *)m[1].u.block.address, PAIR_PAGE, PROT_READ);
	say_hello(2);
	put(&m[0], fd);
	put(&m[1], -1);
	say_end();
	cr_assert_eq(take().type, GWIRE_WELCOME);
}

Test(guest_attach, blocks_with_impossible_numbers)
{
	uint64_t a = map(-1, LEN, 0);
	struct gwire_msg m;

#define BAD(field, value, why)   \
	m = block(1, 1, a);      \
	m.u.block.field = value; \
	expect_bad(&m, -1, why)

	BAD(index, 0, "out of order");
	BAD(index, 2, "out of order");
	BAD(length, 0, "empty");
	BAD(length, LEN + 1, "multiple");
	BAD(length, UINT64_MAX, "absurdly");
	BAD(length, UINT64_MAX - PAIR_PAGE + 1, "absurdly");
	BAD(length, 1ull << 46, "absurdly");
	BAD(length, (1ull << 46) - LEN, "mapped");
	BAD(address, 0, "range");
	BAD(address, a + 1, "multiple");
	BAD(address, UINT64_MAX - PAIR_PAGE + 1, "range");
	BAD(address, (1ull << 56) - PAIR_PAGE, "range");
	BAD(page_size, 0, "page size");
	BAD(page_size, 1000, "page size");
	BAD(page_size, 2 * PAIR_PAGE, "page size");
	BAD(page_size, 1ull << 63, "page size");
	m = block(1, 1, a);
	strcpy(m.u.block.name, "b0");
	expect_bad(&m, -1, "two of this name");
	strcpy(m.u.block.name, "../b");
	expect_bad(&m, -1, "malformed");
}

Test(guest_attach, blocks_that_overlap)
{
	uint64_t a = map(-1, 2 * LEN, 0);
	struct gwire_msg m[2] = {block(0, 1, a), block(1, 1, a + LEN - PAIR_PAGE)};

	say_hello(2);
	put(&m[0], -1);
	put(&m[1], -1);
	expect_refused("bad-block", "b1 overlaps block b0");
}

Test(guest_attach, blocks_that_are_not_where_they_should_be)
{
	uint64_t a = map(-1, LEN, 0);
	int fd = memfd(2 * LEN, F_SEAL_SHRINK), good = memfd(LEN, F_SEAL_SHRINK);
	struct gwire_msg m = block(1, 1, a);

	munmap((void *)(a + PAIR_PAGE), PAIR_PAGE);
	expect_bad(&m, -1, "not mapped");
	munmap((void *)a, LEN);
	expect_bad(&m, -1, "not mapped");
	m = block(1, 1, map(good, LEN, 0));
	expect_bad(&m, -1, "not private anonymous");
	m = block(1, 0, map(-1, LEN, 0));
	expect_bad(&m, good, "not its file");
	m = block(1, 0, map(fd, LEN, LEN));
	expect_bad(&m, good, "not its file");
	m = block(1, 0, map(fd, 2 * LEN, LEN));
	m.u.block.length = 2 * LEN;
	expect_bad(&m, fd, "not its file");
	a = (uintptr_t)mmap(NULL, LEN, PROT_READ, MAP_PRIVATE, good, 0);
	m = block(1, 0, a);
	expect_bad(&m, good, "not its file");
	close(fd);
	close(good);
}

Test(guest_attach, blocks_with_the_wrong_descriptor)
{
	int fd[2], plain = memfd(LEN, 0), other = memfd(LEN, F_SEAL_SHRINK);
	int sealed = memfd(LEN, F_SEAL_SHRINK | F_SEAL_WRITE);
	char path[120];
	uint64_t a = map(other, LEN, 0);
	struct gwire_msg m = block(1, 0, a);

	snprintf(path, sizeof(path), "%s/file", p.dir);
	cr_assert_eq(pipe(fd), 0);
	expect_bad(&m, fd[0], "not that of a memory file");
	expect_bad(&m, sock, "not that of a memory file");
	expect_bad(&m, plain, "lacks F_SEAL_SHRINK");
	expect_bad(&m, sealed, "sealed against writing");
	m.u.block.length = LEN / 2;
	expect_bad(&m, other, "another length");
	m = block(1, 2, a);
	expect_bad(&m, other, "not on hugetlbfs");
	m = block(1, 0, a);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", other);
	fd[0] = open(path, O_RDONLY);
	expect_bad(&m, fd[0], "reading and writing");
}

Test(guest_attach, two_blocks_of_one_file)
{
	int fd = memfd(LEN, F_SEAL_SHRINK);
	struct gwire_msg m[2] = {block(0, 0, map(fd, LEN, 0)), block(1, 0, map(fd, LEN, 0))};

	say_hello(2);
	put(&m[0], fd);
	put(&m[1], fd);
	expect_refused("bad-block", "same file as block b0");
}

/* --- who and how many --------------------------------------------------------------------------- */

static void listen_as(struct attach_config c)
{
	struct error err = {0};

	attach_free(p.attach);
	p.attach = NULL;
	c.path = p.path;
	c.mode = 0600;
	c.listen_fd = -1;
	c.fn = pair_on_attach;
	c.arg = &p;
	cr_assert_eq(attach_new(p.loop, &c, &p.attach, &err), 0, "%s", err.msg);
	redial();
}

Test(guest_attach, other_users_are_refused)
{
	const uid_t uids[2] = {12345, 54321};
	struct gwire_msg m;

	listen_as((struct attach_config){.uids = uids, .nuids = 2});
	m = take();
	cr_assert_eq(m.type, GWIRE_REFUSED);
	cr_assert_str_eq(m.u.refused.code, "not-allowed");
}

Test(guest_attach, slow_hellos_are_ended_and_do_not_keep_others_out)
{
	int many[10];
	uint64_t began = clock_us();

	listen_as((struct attach_config){.max_pending = 3, .hello_timeout_ms = 200});
	for (size_t i = 0; i < 10; i++)
		many[i] = dial();
	close(sock);
	sock = dial();
	/* The last of twelve: those before it are ended three at a time. */
	attach();
	cr_assert_gt(clock_us() - began, 500000);
	for (size_t i = 0; i < 10; i++)
		close(many[i]);
}

Test(guest_attach, without_descriptors_it_waits_and_goes_on)
{
	struct rlimit old, r;
	int n = 0, fds[64];

	getrlimit(RLIMIT_NOFILE, &old);
	close(sock);
	sock = dial();
	pair_spin(&p, 20);
	r = (struct rlimit){.rlim_cur = 40, .rlim_max = old.rlim_max};
	setrlimit(RLIMIT_NOFILE, &r);
	close(sock);
	sock = dial();
	while (n < 64 && (fds[n] = dup(0)) >= 0)
		n++;
	cr_assert_lt(n, 64);
	pair_spin(&p, 100); /* nothing can be accepted */
	cr_assert_eq(p.attached, 0);
	while (n)
		close(fds[--n]);
	setrlimit(RLIMIT_NOFILE, &old);
	attach();
}

/* --- after the welcome -------------------------------------------------------------------------- */

static void expect_cut_off(void)
{
	int gone = p.gone;

	pair_until(&p, p.gone > gone);
	cr_assert_eq(p.how, GUEST_GONE_MISBEHAVED);
	cr_assert_eq(take().type, 0);
	redial();
	attach();
}

Test(guest_attach, a_guest_that_misbehaves_is_cut_off)
{
	struct gwire_msg m = hello(0);
	uint8_t buf[100] = {99, 0};

	attach();
	put(&m, -1);
	expect_cut_off();
	m = (struct gwire_msg){.type = GWIRE_DONE, .id = 12345};
	put(&m, -1);
	expect_cut_off();
	gwire_send(sock, buf, sizeof(buf), -1);
	expect_cut_off();
	gwire_send(sock, buf, 3, -1);
	expect_cut_off();
	m = (struct gwire_msg){.type = GWIRE_PAUSE, .id = 1, .u.bound_ms = 1};
	put(&m, -1);
	expect_cut_off();
	buf[0] = GWIRE_STATE_CHANGED;
	buf[8] = 9;
	gwire_send(sock, buf, 9, -1);
	expect_cut_off();
}

static void say_vcpu(uint32_t tid, bool on)
{
	struct gwire_msg m = {.type = GWIRE_VCPU, .u.vcpu = {.tid = tid, .on = on}};

	cr_assert_eq(put(&m, -1), 0);
}

static void attach_with_vcpus(void)
{
	struct gwire_msg m = hello(0);

	m.u.hello.flags = GWIRE_HELLO_VCPUS;
	put(&m, -1);
	say_end();
	cr_assert_eq(take().type, GWIRE_WELCOME);
	cr_assert(p.g && p.g->names_vcpus);
}

Test(guest_attach, vcpu_threads_are_named_and_bounded)
{
	attach_with_vcpus();
	for (uint32_t tid = 1; tid <= GUEST_VCPUS_MAX; tid++)
		say_vcpu(tid, true);
	say_vcpu(7, true); /* again */
	pair_until(&p, p.g->nvcpus == GUEST_VCPUS_MAX);
	say_vcpu(7, false);
	say_vcpu(4711, false); /* never was one */
	pair_until(&p, p.g->nvcpus == GUEST_VCPUS_MAX - 1);
	for (unsigned int i = 0; i < p.g->nvcpus; i++)
		cr_assert_neq(p.g->vcpus[i], 7);
	say_vcpu(1000, true);
	say_vcpu(1001, true);
	expect_cut_off();
	/* One that has not said that it names them. */
	say_vcpu(1, true);
	expect_cut_off();
}

/* The agent has asked for something with @id; the guest answers with nonsense. */
static void answer(uint32_t id, int fd)
{
	struct gwire_msg m = {.type = GWIRE_DONE, .nfds = fd >= 0, .id = id};

	put(&m, fd);
}

Test(guest_attach, answers_with_the_wrong_descriptor)
{
	attach();
	for (int i = 0; i < 4; i++) {
		p.done = false;
		if (i < 3)
			cr_assert_eq(guest_uffd(p.g, true, 1, pair_done, &p), 0);
		else
			cr_assert_eq(guest_resume(p.g, pair_done, &p), 0);
		/* None, a socket, an ordinary eventfd-less file, and one that nobody wants. */
		answer(take().id, i == 0 ? -1 : i == 1 ? sock : STDIN_FILENO);
		expect_cut_off();
		cr_assert(p.done);
		cr_assert_eq(p.ret, -ECONNRESET);
	}
}

Test(guest_attach, an_answer_that_is_late_changes_nothing)
{
	struct gwire_msg pause, resume, m = {.type = GWIRE_STATE_CHANGED};

	attach();
	cr_assert_eq(guest_pause(p.g, 10, pair_done, &p), 0);
	pause = take();
	cr_assert_eq(pause.type, GWIRE_PAUSE);
	resume = take(); /* comes when the agent no longer waits */
	cr_assert_eq(resume.type, GWIRE_RESUME);
	cr_assert(p.done);
	cr_assert_eq(p.ret, -ETIMEDOUT);
	answer(pause.id, -1);
	answer(resume.id, -1);
	put(&m, -1);
	pair_spin(&p, 50);
	cr_assert_eq(p.gone, 0);
	answer(pause.id, -1); /* but not twice */
	expect_cut_off();
}

Test(guest_attach, saved_state_that_lies_about_its_length)
{
	struct gwire_msg m, done = {.type = GWIRE_DONE, .u.done.detail = 100};
	const char *what;
	ssize_t n;
	int fd;

	attach();
	for (int i = 0; i < 2; i++) {
		p.nsaved = 0;
		p.done = false;
		cr_assert_eq(guest_save(p.g, pair_chunk, pair_done, &p), 0);
		while ((n = gwire_recv(sock, packet, &fd, NULL)) == -EAGAIN)
			pair_spin(&p, 1);
		cr_assert_eq(gwire_decode(packet, (size_t)n, NULL, &m, &what), 0);
		cr_assert_eq(m.type, GWIRE_SAVE);
		cr_assert_eq(write(fd, packet, 99 + (size_t)i), 99 + i);
		close(fd);
		done.id = m.id;
		put(&done, -1);
		pair_until(&p, p.done);
		cr_assert_eq(p.ret, i ? 0 : -EIO, "%s", p.err.msg);
	}
}

/* Not for long: who never stops talking is cut off. */
Test(guest_attach, a_flood_does_not_starve_the_loop)
{
	struct gwire_msg m = {.type = GWIRE_STATE_CHANGED};

	attach();
	for (unsigned int i = 0; i < NATIVE_TOLD_MAX; i++) {
		m.u.run_state ^= 1;
		put(&m, -1);
		event_base_loop(loop_base(p.loop), EVLOOP_NONBLOCK);
	}
	cr_assert_eq(p.gone, 0);
	cr_assert_eq(guest_resume(p.g, pair_done, &p), 0);
	cr_assert_eq(take().type, GWIRE_RESUME);
	put(&m, -1);
	pair_until(&p, p.gone);
	cr_assert_eq(p.how, GUEST_GONE_MISBEHAVED);
}

Test(guest_attach, requests_are_bounded)
{
	int n = 0, ret;

	attach();
	while (!(ret = guest_resume(p.g, NULL, NULL)))
		n++;
	cr_assert_eq(ret, -EBUSY);
	cr_assert_lt(n, 10000);
	while (n--)
		answer(take().id, -1);
	pair_spin(&p, 50);
	cr_assert_eq(guest_resume(p.g, NULL, NULL), 0);
}

Test(guest_attach, a_guest_may_be_let_go_in_any_callback)
{
	attach();
	guest_watch(p.g, pair_on_gone, NULL, &p);
	cr_assert_eq(guest_resume(p.g, NULL, NULL), 0);
	guest_free(p.g);
	p.g = NULL;
	cr_assert_eq(take().type, GWIRE_RESUME);
	cr_assert_eq(take().type, 0);
	pair_spin(&p, 50);
	cr_assert_eq(p.gone, 0, "it was let go, not lost");
}
