/* SPDX-License-Identifier: Apache-2.0 */
/* The coder of GUEST.md: golden vectors of version 1, and what it must not take. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/gwire.h"
#include "util/cleanup.h"

static struct gwire_range some_ranges[2] = {{0x1000, 0x2000}, {0xa000, 0x1000}};

/* Every message that there is, with its bytes as version 1 has them. */
static const struct {
	struct gwire_msg m;
	const char *hex;
} golden[] = {
	{{.type = GWIRE_HELLO,
	  .u.hello = {.version = 1,
		      .name = "vm",
		      .uuid = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		      .generation = 0x0102030405060708,
		      .has_token = true,
		      .token = {0xaa, [31] = 0xbb},
		      .run_state = 3,
		      .flags = 3,
		      .kept_tag = 7,
		      .blocks = 256}},
	 "0100 0000 00000000 44434347 0100 0200 766d 0102030405060708090a0b0c0d0e0f10"
	 "0807060504030201 01 aa000000000000000000000000000000000000000000000000000000000000bb"
	 "03 03000000 07000000 0001"},
	{{.type = GWIRE_BLOCK,
	  .nfds = 1,
	  .u.block = {.index = 255,
		      .kind = 2,
		      .flags = 1,
		      .length = 0x40000000,
		      .page_size = 0x200000,
		      .address = 0x7f0000000000,
		      .name = "ram0"}},
	 "0200 0100 00000000 ff00 02 01000000 0000004000000000 0000200000000000"
	 "00000000007f0000 0400 72616d30"},
	{{.type = GWIRE_HELLO_END}, "0300 0000 00000000"},
	{{.type = GWIRE_DONE, .id = 9, .u.done = {.result = -5, .detail = 2, .message = "no"}},
	 "0400 0000 09000000 fbffffff 0200000000000000 0200 6e6f"},
	{{.type = GWIRE_STATE_CHANGED, .u.run_state = 2}, "0500 0000 00000000 02"},
	{{.type = GWIRE_SHARER,
	  .nfds = 1,
	  .u.sharer = {.version = 1, .guest = "vm", .name = "net", .flags = 1}},
	 "0600 0100 00000000 44434347 0100 0200 766d 0300 6e6574 01"},
	{{.type = GWIRE_SHARE_MAP,
	  .id = 14,
	  .u.share = {.offset = 0x1000,
		      .length = 0x200000,
		      .address = 0x7f0000000000,
		      .block = "ram0"}},
	 "0700 0000 0e000000 0010000000000000 0000200000000000 00000000007f0000 0400 72616d30"},
	{{.type = GWIRE_SHARE_UNMAP, .u.share = {.length = 0x1000, .address = 0x7f0000000000}},
	 "0800 0000 00000000 0010000000000000 00000000007f0000"},
	{{.type = GWIRE_VCPU, .u.vcpu = {.tid = 4711, .on = true}},
	 "0900 0000 00000000 67120000 01"},
	{{.type = GWIRE_WELCOME, .u.version = 1}, "4000 0000 00000000 0100"},
	{{.type = GWIRE_REFUSED, .u.refused = {.code = "full", .message = "later"}},
	 "4100 0000 00000000 0400 66756c6c 0500 6c61746572"},
	{{.type = GWIRE_PAUSE, .id = 1, .u.bound_ms = 5000}, "4200 0000 01000000 88130000"},
	{{.type = GWIRE_RESUME, .id = 2}, "4300 0000 02000000"},
	{{.type = GWIRE_SAVE, .nfds = 1, .id = 3}, "4400 0100 03000000"},
	{{.type = GWIRE_LOAD, .nfds = 1, .id = 4, .u.load_flags = 1}, "4500 0100 04000000 01"},
	{{.type = GWIRE_LOAD_END, .u.load_length = 0x4000000},
	 "4600 0000 00000000 0000000400000000"},
	{{.type = GWIRE_UFFD, .id = 5, .u.uffd = {.flags = 3, .tag = 0x11223344}},
	 "4700 0000 05000000 03 44332211"},
	{{.type = GWIRE_UFFD_AGAIN, .id = 6}, "4800 0000 06000000"},
	{{.type = GWIRE_UFFD_CLOSE, .id = 7}, "4900 0000 07000000"},
	{{.type = GWIRE_PUNCH, .id = 8, .u.punch = {.block = 1, .n = 2, .ranges = some_ranges}},
	 "4a00 0000 08000000 0100 0200 0010000000000000 0020000000000000"
	 "00a0000000000000 0010000000000000"},
	{{.type = GWIRE_PREPARE, .id = 9}, "4b00 0000 09000000"},
	{{.type = GWIRE_FINISH, .id = 10}, "4c00 0000 0a000000"},
	{{.type = GWIRE_IDENTITY, .id = 11, .u.identity = {.uuid = {0xff}, .generation = 3}},
	 "4d00 0000 0b000000 ff000000000000000000000000000000 0300000000000000"},
	{{.type = GWIRE_MOVE, .id = 12, .u.path = "/run/a"},
	 "4e00 0000 0c000000 0600 2f72756e2f61"},
	{{.type = GWIRE_QUIT, .id = 13}, "4f00 0000 0d000000"},
	{{.type = GWIRE_SETTLED}, "5000 0000 00000000"},
};

static struct gwire_range room[GWIRE_RANGES_MAX];

static size_t from_hex(const char *hex, uint8_t *out)
{
	size_t n = 0;
	unsigned int v;

	while (*hex) {
		if (*hex == ' ') {
			hex++;
			continue;
		}
		cr_assert_eq(sscanf(hex, "%2x", &v), 1);
		out[n++] = (uint8_t)v;
		hex += 2;
	}
	return n;
}

static int decode(const uint8_t *p, size_t n, struct gwire_msg *m, const char **what)
{
	/* On the heap and no byte larger, so that a sanitizer sees a read too far. */
	uint8_t *copy = malloc(n ? n : 1);
	int ret;

	memcpy(copy, p, n);
	*what = NULL;
	ret = gwire_decode(copy, n, room, m, what);
	free(copy);
	return ret;
}

Test(guest_gwire, golden_vectors)
{
	uint8_t want[1024], got[1024];
	struct gwire_msg m;
	const char *what;

	for (size_t i = 0; i < ARRAY_SIZE(golden); i++) {
		size_t n = from_hex(golden[i].hex, want);
		const char *name = gwire_name(golden[i].m.type);

		cr_assert_eq(gwire_encode(&golden[i].m, got, sizeof(got)), (ssize_t)n, "%s", name);
		cr_assert_arr_eq(got, want, n, "%s", name);
		cr_assert_eq(decode(want, n, &m, &what), 0, "%s: %s", name, what);
		cr_assert_eq(gwire_encode(&m, got, sizeof(got)), (ssize_t)n, "%s", name);
		cr_assert_arr_eq(got, want, n, "%s: decoded and encoded again", name);
		for (size_t cap = 0; cap < n; cap++)
			cr_assert_eq(gwire_encode(&m, got, cap), -EMSGSIZE);
	}
}

Test(guest_gwire, cut_at_each_byte_or_too_long)
{
	uint8_t buf[1024];
	struct gwire_msg m;
	const char *what;

	for (size_t i = 0; i < ARRAY_SIZE(golden); i++) {
		size_t n = from_hex(golden[i].hex, buf);

		for (size_t cut = 0; cut < n; cut++) {
			cr_assert_eq(decode(buf, cut, &m, &what), -EBADMSG, "%s of %zu",
				     gwire_name(golden[i].m.type), cut);
			cr_assert(what, "it does not say what");
		}
		buf[n] = 0;
		cr_assert_eq(decode(buf, n + 1, &m, &what), -EBADMSG);
	}
}

Test(guest_gwire, each_byte_at_its_extremes_is_taken_or_refused)
{
	static const uint8_t extremes[] = {0, 1, 0x7f, 0x80, 0xff};
	uint8_t buf[1024], again[GWIRE_PACKET_MAX];
	struct gwire_msg m;
	const char *what;

	for (size_t i = 0; i < ARRAY_SIZE(golden); i++) {
		size_t n = from_hex(golden[i].hex, buf);

		for (size_t at = 0; at < n; at++) {
			uint8_t old = buf[at];

			for (size_t e = 0; e < sizeof(extremes); e++) {
				buf[at] = extremes[e];
				/* What is taken must be what was sent, to the byte. */
				if (decode(buf, n, &m, &what) || !gwire_known(m.type))
					continue;
				cr_assert_eq(gwire_encode(&m, again, sizeof(again)), (ssize_t)n,
					     "%s, byte %zu", gwire_name(golden[i].m.type), at);
				cr_assert_arr_eq(again, buf, n, "%s, byte %zu",
						 gwire_name(golden[i].m.type), at);
			}
			buf[at] = old;
		}
	}
}

/* Golden vector @type with @hex at @at must be refused because of @field. */
static void refused(uint16_t type, size_t at, const char *hex, const char *field)
{
	uint8_t buf[1024], patch[64];
	struct gwire_msg m;
	const char *what;
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(golden); i++)
		if (golden[i].m.type == type)
			n = from_hex(golden[i].hex, buf);
	memcpy(buf + at, patch, from_hex(hex, patch));
	cr_assert_eq(decode(buf, n, &m, &what), -EBADMSG, "%s: %s at %zu", gwire_name(type), hex,
		     at);
	cr_assert_str_eq(what, field, "%s: %s at %zu: %s", gwire_name(type), hex, at, what);
}

Test(guest_gwire, bounds_are_named)
{
	refused(GWIRE_HELLO, 8, "44434348", "magic");
	refused(GWIRE_HELLO, 14, "ffff", "name");
	refused(GWIRE_HELLO, 16, "7600", "name");
	refused(GWIRE_HELLO, 42, "02", "has_token");
	refused(GWIRE_HELLO, 75, "04", "run_state");
	refused(GWIRE_HELLO, 76, "08", "flags");
	refused(GWIRE_SHARER, 8, "44434348", "magic");
	refused(GWIRE_SHARER, 14, "ffff", "guest");
	refused(GWIRE_SHARER, 23, "02", "flags");
	refused(GWIRE_SHARE_MAP, 4, "00000000", "id");
	refused(GWIRE_SHARE_MAP, 16, "0000000000000000", "length");
	refused(GWIRE_SHARE_MAP, 16, "0100000000400000", "length");
	refused(GWIRE_SHARE_UNMAP, 8, "0000000000000000", "length");
	refused(GWIRE_VCPU, 8, "00000000", "tid");
	refused(GWIRE_VCPU, 8, "00000080", "tid");
	refused(GWIRE_VCPU, 12, "02", "on");
	refused(GWIRE_HELLO, 84, "0101", "blocks");
	refused(GWIRE_BLOCK, 8, "0001", "index");
	refused(GWIRE_BLOCK, 10, "03", "kind");
	refused(GWIRE_BLOCK, 10, "01", "descriptors");
	refused(GWIRE_BLOCK, 2, "0000", "descriptors");
	refused(GWIRE_BLOCK, 2, "0200", "descriptors");
	refused(GWIRE_BLOCK, 11, "00000080", "flags");
	refused(GWIRE_BLOCK, 39, "4000", "name");
	refused(GWIRE_DONE, 8, "01000000", "result");
	refused(GWIRE_DONE, 8, "00000080", "result");
	refused(GWIRE_DONE, 2, "0100", "descriptors");
	refused(GWIRE_DONE, 4, "00000000", "id");
	refused(GWIRE_DONE, 20, "0001", "message");
	refused(GWIRE_STATE_CHANGED, 8, "04", "run_state");
	refused(GWIRE_STATE_CHANGED, 4, "01", "id");
	refused(GWIRE_REFUSED, 8, "2800", "code");
	refused(GWIRE_PAUSE, 8, "00000000", "bound_ms");
	refused(GWIRE_PAUSE, 8, "c1270900", "bound_ms");
	refused(GWIRE_SAVE, 2, "0000", "descriptors");
	refused(GWIRE_LOAD, 8, "02", "flags");
	refused(GWIRE_LOAD_END, 8, "01000004", "length");
	refused(GWIRE_UFFD, 8, "04", "flags");
	refused(GWIRE_PUNCH, 10, "0000", "ranges");
	refused(GWIRE_PUNCH, 10, "a10f", "ranges");
	refused(GWIRE_PUNCH, 10, "0300", "offset");
	refused(GWIRE_MOVE, 8, "6c00", "path");
	refused(GWIRE_MOVE, 10, "61", "path");
	refused(GWIRE_QUIT, 4, "00000000", "id");
}

Test(guest_gwire, the_largest_fit_a_packet)
{
	struct gwire_msg m = {.type = GWIRE_PUNCH, .id = 1, .u.punch = {.n = GWIRE_RANGES_MAX}}, d;
	static uint8_t buf[GWIRE_PACKET_MAX];
	const char *what;
	ssize_t n;

	m.u.punch.ranges = calloc(GWIRE_RANGES_MAX, sizeof(*m.u.punch.ranges));
	m.u.punch.ranges[GWIRE_RANGES_MAX - 1].length = 77;
	n = gwire_encode(&m, buf, sizeof(buf));
	cr_assert_gt(n, 64000);
	cr_assert_eq(decode(buf, (size_t)n, &d, &what), 0);
	cr_assert_eq(d.u.punch.ranges[GWIRE_RANGES_MAX - 1].length, 77);
	cr_assert_eq(gwire_decode(buf, (size_t)n, NULL, &d, &what), -EBADMSG,
		     "nobody asked for ranges");
	free(m.u.punch.ranges);
}

Test(guest_gwire, unknown_types_are_told_apart)
{
	const uint8_t buf[] = {0x60, 0, 0, 0, 5, 0, 0, 0, 1, 2, 3};
	struct gwire_msg m;
	const char *what;

	cr_assert_eq(decode(buf, sizeof(buf), &m, &what), 0);
	cr_assert_eq(m.type, 0x60);
	cr_assert_eq(m.id, 5);
	cr_assert(!gwire_known(0x60) && !gwire_known(0) && gwire_known(GWIRE_QUIT));
	cr_assert_eq(gwire_encode(&m, (uint8_t[64]){0}, 64), -EINVAL);
}

/* --- packets ------------------------------------------------------------------------------------ */

static void send_fds(int sock, uint16_t says, const int *fds, size_t n, size_t len)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(16 * sizeof(int))];
	} control = {0};
	static uint8_t data[GWIRE_PACKET_MAX + 100] = {GWIRE_QUIT, [4] = 1};
	struct iovec iov = {.iov_base = data, .iov_len = len};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

	data[2] = (uint8_t)says;
	if (n) {
		mh.msg_control = control.buf;
		mh.msg_controllen = CMSG_SPACE(n * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, n * sizeof(int));
	}
	cr_assert_eq(sendmsg(sock, &mh, 0), (ssize_t)len);
}

static int open_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 200; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

Test(guest_gwire, descriptors_are_counted_and_none_is_left_open)
{
	static uint8_t buf[GWIRE_PACKET_MAX];
	int s[2], fds[16], before, fd, big = 1 << 20;
	pid_t pid;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s), 0);
	setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
	for (size_t i = 0; i < 16; i++)
		fds[i] = s[0];
	before = open_fds();
	cr_assert_eq(gwire_recv(s[1], buf, &fd, NULL), -EAGAIN);
	for (size_t n = 0; n <= 16; n++) {
		for (uint16_t says = 0; says <= 16; says++) {
			bool ok = n == says && n <= 1;
			ssize_t ret;

			send_fds(s[0], says, fds, n, 8);
			fd = -2;
			ret = gwire_recv(s[1], buf, &fd, &pid);
			cr_assert_eq(ret, ok ? 8 : -EBADMSG, "%zu sent, %d said", n, says);
			if (ok && n) {
				cr_assert_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
				close(fd);
			}
			cr_assert_eq(open_fds(), before, "%zu sent, %d said", n, says);
		}
	}
	for (size_t len = 1; len < 8; len++) {
		send_fds(s[0], 0, NULL, 0, len);
		cr_assert_eq(gwire_recv(s[1], buf, &fd, NULL), -EBADMSG);
	}
	send_fds(s[0], 0, NULL, 0, GWIRE_PACKET_MAX);
	cr_assert_eq(gwire_recv(s[1], buf, &fd, NULL), (ssize_t)GWIRE_PACKET_MAX);
	send_fds(s[0], 1, fds, 1, GWIRE_PACKET_MAX + 1);
	cr_assert_eq(gwire_recv(s[1], buf, &fd, NULL), -EBADMSG);
	cr_assert_eq(open_fds(), before);
	close(s[0]);
	cr_assert_eq(gwire_recv(s[1], buf, &fd, NULL), 0);
}
