/* SPDX-License-Identifier: Apache-2.0 */
/* What a broken or hostile guest can send to an agent. Here the guest is the test itself. */
#include "unit/attach_peer.h"

#include <linux/memfd.h>
#include <sys/resource.h>

TestSuite(guest_attach, .init = start, .fini = stop, .timeout = 60);

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
