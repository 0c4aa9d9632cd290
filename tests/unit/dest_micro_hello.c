/* SPDX-License-Identifier: Apache-2.0 */
/* What a micro-VM says, believed only when it can be: every field, missing, extreme, of another type. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "micro_hello.h"
#include "uffd/uffd.h"

#define MEMORY   (UINT64_C(1) << 30)
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

#define ONE(addr, size, offset, rest) \
	"{\"base_host_virt_addr\": " addr ", \"size\": " size ", \"offset\": " offset rest "}"
#define P4 ", \"page_size\": 4096"
#define P2 ", \"page_size\": 2097152"

/* --- the array --- */

Test(dest_micro_hello, right_ones)
{
	static const struct {
		const char *text;
		unsigned int n;
		struct micro_region first;
	} rows[] = {
		{"[" ONE("4096", "8192", "0", P4) "]", 1, {4096, 8192, 0, 4096}},
		/* What the documentation shows: both names, and bytes in either. */
		{"[" ONE("139624394457088", "1073741824", "0",
			 ", \"page_size\": 4096, \"page_size_kib\": 4096") "]",
		 1,
		 {139624394457088, 1073741824, 0, 4096}},
		/* Older ones have only the deprecated name. */
		{"[" ONE("4096", "4096", "0", ", \"page_size_kib\": 4096") "]",
		 1,
		 {4096, 4096, 0, 4096}},
		{"[" ONE("2097152", "2097152", "2097152", P2) "]",
		 1,
		 {2097152, 2097152, 2097152, 2097152}},
		/* Neighbours do not overlap, in whatever order, with holes in the image. */
		{"[" ONE("8192", "4096", "12288", P4) "," ONE("4096", "4096", "0", P4) "," ONE(
			 "12288", "4096", "8192", P4) "]",
		 3,
		 {8192, 4096, 12288, 4096}},
		{" \n[ " ONE("4096", "4096", "1073737728", P4) " ]",
		 1,
		 {4096, 4096, 1073737728, 4096}},
		{"[" ONE("4096", "4096", "0", P4 ", \"of_later\": [1, {}]") "]",
		 1,
		 {4096, 4096, 0, 4096}},
		{"[" ONE("72057594037923840", "4096", "0", P4) "]",
		 1,
		 {72057594037923840, 4096, 0, 4096}},
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct micro_region r[MICRO_REGIONS_MAX];
		struct error err = {0};
		unsigned int n = 0;

		cr_expect(eq(int,
			     micro_hello_parse(rows[i].text, strlen(rows[i].text), MEMORY, r, &n,
					       &err),
			     0),
			  "%zu: %s", i, err.msg);
		cr_expect(eq(u32, n, rows[i].n), "%zu", i);
		cr_expect(memcmp(&r[0], &rows[i].first, sizeof(r[0])) == 0, "%zu", i);
	}
}

static void refused(const char *text, const char *why)
{
	struct micro_region r[MICRO_REGIONS_MAX];
	struct error err = {0};
	unsigned int n = 77;

	cr_expect(eq(int, micro_hello_parse(text, strlen(text), MEMORY, r, &n, &err), -EBADMSG),
		  "%s", text);
	cr_expect(strstr(err.msg, why) != NULL, "%s: %s", text, err.msg);
	cr_expect(eq(u32, n, 77), "%s: the output was touched", text);
}

Test(dest_micro_hello, wrong_ones)
{
	static const struct {
		const char *text;
		const char *why;
	} rows[] = {
		{"", "not JSON"},
		{"[", "not JSON"},
		{"nonsense", "not JSON"},
		{"{}", "no array"},
		{"[]", "no array"},
		{"[[]]", "region 0 is no object"},
		{"[null]", "region 0 is no object"},
		{"[\"x\"]", "region 0 is no object"},
		{"[" ONE("4096", "4096", "0", P4) ", 5]", "region 1 is no object"},
		/* absent */
		{"[{}]", "region 0: no base_host_virt_addr"},
		{"[{\"base_host_virt_addr\": 4096}]", "region 0: no size"},
		{"[{\"base_host_virt_addr\": 4096, \"size\": 4096}]", "region 0: no offset"},
		{"[" ONE("4096", "4096", "0", "") "]", "region 0: no page_size"},
		/* of another type */
		{"[" ONE("\"4096\"", "4096", "0", P4) "]", "base_host_virt_addr is not a whole"},
		{"[" ONE("4096", "4096.0", "0", P4) "]", "size is not a whole"},
		{"[" ONE("4096", "4096", "null", P4) "]", "offset is not a whole"},
		{"[" ONE("4096", "4096", "0", ", \"page_size\": true") "]", "page_size is not"},
		{"[" ONE("4096", "4096", "0", P4 ", \"page_size_kib\": \"4\"") "]",
		 "page_size_kib is not"},
		{"[" ONE("-4096", "4096", "0", P4) "]", "base_host_virt_addr is not a whole"},
		{"[" ONE("4096", "-1", "0", P4) "]", "size is not a whole"},
		{"[" ONE("18446744073709547520", "4096", "0", P4) "]", "not JSON"},
		{"[{\"size\": 1, \"size\": 2}]", "not JSON"},
		{"[" ONE("1e400", "4096", "0", P4) "]", "not JSON"},
		/* extreme */
		{"[" ONE("0", "4096", "0", P4) "]", "no process has"},
		{"[" ONE("4096", "0", "0", P4) "]", "has no size"},
		{"[" ONE("9223372036854771712", "4096", "0", P4) "]", "no process has"},
		{"[" ONE("72057594037923840", "8192", "0", P4) "]", "no process has"},
		{"[" ONE("4096", "9223372036854771712", "0", P4) "]", "no process has"},
		{"[" ONE("4096", "4096", "1073741824", P4) "]", "are beyond the image's"},
		{"[" ONE("4096", "8192", "1073737728", P4) "]", "are beyond the image's"},
		{"[" ONE("4096", "4096", "9223372036854771712", P4) "]", "are beyond the image's"},
		/* no multiples */
		{"[" ONE("4097", "4096", "0", P4) "]", "not all multiples"},
		{"[" ONE("4096", "4095", "0", P4) "]", "not all multiples"},
		{"[" ONE("4096", "4096", "512", P4) "]", "not all multiples"},
		{"[" ONE("4096", "2097152", "0", P2) "]", "not all multiples"},
		{"[" ONE("2097152", "1048576", "0", P2) "]", "not all multiples"},
		{"[" ONE("2097152", "2097152", "4096", P2) "]", "not all multiples"},
		/* page sizes */
		{"[" ONE("4096", "4096", "0", ", \"page_size\": 0") "]", "pages of 0 bytes"},
		{"[" ONE("4096", "4096", "0", ", \"page_size\": 4") "]", "pages of 4 bytes"},
		{"[" ONE("4096", "4096", "0", ", \"page_size_kib\": 4") "]", "pages of 4 bytes"},
		{"[" ONE("4096", "4096", "0", ", \"page_size\": 65536") "]", "pages of 65536"},
		{"[" ONE("4096", "4096", "0", ", \"page_size\": 1073741824") "]",
		 "pages of 1073741824"},
		{"[" ONE("4096", "4096", "0", P4 ", \"page_size_kib\": 4") "]", "do not agree"},
		/* overlaps */
		{"[" ONE("4096", "8192", "0", P4) "," ONE("8192", "4096", "8192", P4) "]",
		 "regions 0 and 1 overlap at address 0x2000"},
		{"[" ONE("8192", "4096", "8192", P4) "," ONE("4096", "12288", "12288", P4) "]",
		 "regions 0 and 1 overlap at address 0x2000"},
		{"[" ONE("4096", "8192", "0", P4) "," ONE("65536", "4096", "4096", P4) "]",
		 "regions 0 and 1 overlap in the image at offset 4096"},
	};

	for (size_t i = 0; i < COUNT(rows); i++)
		refused(rows[i].text, rows[i].why);
}

/* As many as are taken, and one more. */
Test(dest_micro_hello, how_many)
{
	char *text = malloc(256 * 1024), *p = text;
	struct micro_region r[MICRO_REGIONS_MAX];
	struct error err = {0};
	unsigned int n = 0;

	p += sprintf(p, "[");
	for (unsigned int i = 0; i < MICRO_REGIONS_MAX; i++)
		p += sprintf(p,
			     "%s{\"base_host_virt_addr\":%u,\"size\":4096,\"offset\":%u,"
			     "\"page_size\":4096}",
			     i ? "," : "", (i + 1) * 8192, i * 4096);
	strcpy(p, "]");
	cr_expect(eq(int, micro_hello_parse(text, strlen(text), MEMORY, r, &n, &err), 0), "%s",
		  err.msg);
	cr_expect(eq(u32, n, MICRO_REGIONS_MAX));
	strcpy(p, "," ONE("1073741824", "4096", "1048576", P4) "]");
	refused(text, "65 regions: at most 64");
	free(text);
}

/* --- the message --- */

/** struct talk - the two ends, and what came */
struct talk {
	int vm;
	int ours;
	struct micro_hello h;
};

static void begin(struct talk *t)
{
	int fds[2];

	cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
	t->vm = fds[0];
	t->ours = fds[1];
	micro_hello_init(&t->h);
}

static void end(struct talk *t)
{
	micro_hello_clear(&t->h);
	close(t->vm);
	close(t->ours);
}

static void say(struct talk *t, const char *bytes, size_t len, const int *fds, size_t n)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(20 * sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)bytes, len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n) {
		struct cmsghdr *c;

		m.msg_control = control.buf;
		m.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	}
	cr_assert(eq(sz, (size_t)sendmsg(t->vm, &m, 0), len));
}

static int uffd(void)
{
	int fd = uffd_open(true, NULL);

	cr_assert(ge(int, fd, 0));
	cr_assert(eq(int, uffd_api(fd, 0, NULL, NULL), 0));
	return fd;
}

static unsigned int fds_open(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static const char array[] = "[" ONE("4096", "4096", "0", P4) "]";

/* With the array, before it, behind it with a byte or with the array again; pieces of any size. */
Test(dest_micro_hello, descriptor_early_and_late)
{
	static const struct {
		size_t with;
		const char *then;
	} rows[] = {{sizeof(array) - 1, NULL}, {1, NULL}, {0, "\n"}, {0, "\0"}, {0, array}};

	for (size_t i = 0; i < COUNT(rows); i++) {
		int fd = uffd(), r = 0;
		struct error err = {0};
		struct talk t;

		begin(&t);
		if (rows[i].with)
			say(&t, array, rows[i].with, &fd, 1);
		for (size_t at = rows[i].with; at < sizeof(array) - 1; at++) {
			cr_expect(eq(int, micro_hello_read(&t.h, t.ours, &err), 0), "%s", err.msg);
			say(&t, array + at, 1, NULL, 0);
		}
		if (rows[i].then) {
			cr_expect(eq(int, micro_hello_read(&t.h, t.ours, &err), 0), "%s", err.msg);
			say(&t, rows[i].then, strlen(rows[i].then) ? strlen(rows[i].then) : 1, &fd,
			    1);
		}
		r = micro_hello_read(&t.h, t.ours, &err);
		cr_expect(eq(int, r, 1), "%zu: %s", i, err.msg);
		cr_expect(eq(sz, t.h.array, sizeof(array) - 1), "%zu", i);
		cr_expect(ge(int, t.h.uffd, 0), "%zu", i);
		close(fd);
		end(&t);
	}
}

static void broken(const char *text, const int *fds, size_t n, bool hang_up, const char *why)
{
	unsigned int before = fds_open();
	struct error err = {0};
	struct talk t;

	begin(&t);
	if (*text)
		say(&t, text, strlen(text), fds, n);
	if (hang_up)
		shutdown(t.vm, SHUT_WR);
	cr_expect(lt(int, micro_hello_read(&t.h, t.ours, &err), 0), "%s", why);
	cr_expect(strstr(err.msg, why) != NULL, "%s", err.msg);
	end(&t);
	cr_expect(eq(u32, fds_open(), before), "%s: a descriptor stays open", why);
}

Test(dest_micro_hello, broken_messages)
{
	int fd = uffd(), fresh = uffd_open(true, NULL), null = dup(0), two[2] = {fd, fd};
	int many[20];

	for (size_t i = 0; i < COUNT(many); i++)
		many[i] = fd;
	broken(array, two, 2, false, "more than one descriptor");
	broken(array, many, COUNT(many), false, "more than one descriptor");
	broken(array, &null, 1, false, "no userfaultfd but");
	broken(array, &fresh, 1, false, "has not been set up");
	broken(array, NULL, 0, true, "no userfaultfd has come before the connection ended");
	broken("", NULL, 0, true, "nothing has come");
	broken("[{\"size\":", &fd, 1, true, "no complete array");
	broken("GET / HTTP/1.1\r\n", NULL, 0, false, "not JSON");
	broken("[]garbage", NULL, 0, false, "7 bytes follow the array");
	close(fd);
	close(fresh);
	close(null);
}

Test(dest_micro_hello, bounds)
{
	char *text = malloc(MICRO_HELLO_MAX + 10);
	struct error err = {0};
	struct talk t;
	int r = 0;

	memset(text, ' ', MICRO_HELLO_MAX + 10);
	begin(&t);
	say(&t, text, MICRO_HELLO_MAX + 10, NULL, 0);
	cr_expect(eq(int, micro_hello_read(&t.h, t.ours, &err), -E2BIG));
	end(&t);
	begin(&t);
	error_clear(&err);
	for (int i = 0; i < 2000 && !r; i++) {
		say(&t, i ? " " : "[", 1, NULL, 0);
		r = micro_hello_read(&t.h, t.ours, &err);
	}
	cr_expect(eq(int, r, -E2BIG), "%s", err.msg);
	end(&t);
	free(text);
}
