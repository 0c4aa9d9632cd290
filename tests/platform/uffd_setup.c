/* SPDX-License-Identifier: Apache-2.0 */
/* Setting a descriptor up: handshake, ownership of mappings, polling, what kinds of files it takes. */
#include "platform.h"

#define LEN     (16 * PAGE)
#define MISSING UFFDIO_REGISTER_MODE_MISSING
#define WP      UFFDIO_REGISTER_MODE_WP

static void handshake(void)
{
	int fd = uffd_raw(O_CLOEXEC | O_NONBLOCK);
	uint8_t *mem = map_anon(LEN);

	fact(uffd_reg(fd, mem, LEN, MISSING) < 0, "before the handshake nothing can be registered");
	fact(uffd_features(fd, 1ull << 63) == -EINVAL, "an unknown feature is EINVAL");
	close(fd);
	fd = uffd_new(0);
	fact(uffd_features(fd, UFFD_FEATURE_THREAD_ID) == -EINVAL,
	     "a descriptor shakes hands once: features are fixed then");
	close(fd);
	munmap(mem, LEN);
}

static void one_owner(void)
{
	uint8_t *mem = map_anon(LEN);
	int a = uffd_new(UFFD_FEATURE_PAGEFAULT_FLAG_WP), b = uffd_new(0);

	must(uffd_reg(a, mem, LEN / 2, WP) == 0);
	fact(uffd_reg(b, mem, PAGE, MISSING) == -EBUSY,
	     "a mapping belongs to one descriptor: EBUSY");
	fact(uffd_reg(b, mem, LEN, MISSING) == -EBUSY,
	     "also when only a part of the range is taken");
	fact(uffd_reg(b, mem + LEN / 2, LEN / 2, MISSING) == 0, "the rest can be another's");
	fact(uffd_reg(a, mem, LEN / 2, MISSING | WP) == 0, "its owner may change the mode");
	must(uffd_unreg(a, mem, LEN / 2) == 0);
	fact(uffd_reg(b, mem, LEN / 2, MISSING) == 0, "UNREGISTER makes it free for another");
	close(b);
	fact(uffd_reg(a, mem, LEN, MISSING) == 0, "so does closing the last reference");
	close(a);
	munmap(mem, LEN);
}

static void kind_of_tracking(void)
{
	uint8_t *mem = map_anon(LEN);
	int sync, async;

	if (!(uffd_known() & WP_ASYNC)) {
		untried("change of the kind of tracking: this kernel has no WP_ASYNC");
		return;
	}
	mem[0] = 1;
	async = uffd_new(UFFD_FEATURE_PAGEFAULT_FLAG_WP | WP_ASYNC | WP_UNPOP);
	sync = uffd_new(UFFD_FEATURE_PAGEFAULT_FLAG_WP | WP_UNPOP);
	must(uffd_reg(async, mem, LEN, WP) == 0 && uffd_wp(async, mem, LEN, true) == 0);
	mem[0] = 2;
	fact(mem[0] == 2, "WP_ASYNC: a write does not wait for anybody");
	must(uffd_unreg(async, mem, LEN) == 0);
	fact(uffd_reg(sync, mem, LEN, WP) == 0 && uffd_wp(sync, mem, LEN, true) == 0,
	     "the kind of tracking changes with a second descriptor, after UNREGISTER from the "
	     "first");
	close(sync);
	close(async);
	munmap(mem, LEN);
}

static void polling(void)
{
	int fd = uffd_raw(O_CLOEXEC), flags;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct uffd_msg m;

	must(fd >= 0 && uffd_features(fd, 0) == 0);
	fact(poll(&p, 1, 0) == 1 && p.revents & POLLERR,
	     "poll(2) on a descriptor without O_NONBLOCK is an error event");
	flags = fcntl(fd, F_GETFL);
	must(fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
	fact(poll(&p, 1, 0) == 0, "fcntl(2) mends that");
	fact(read(fd, &m, sizeof(m)) < 0 && errno == EAGAIN, "read(2) then says EAGAIN");
	close(fd);
}

static void kinds_of_memory(void)
{
	char name[] = "/var/tmp/decant-proof-XXXXXX";
	int file = mkstemp(name), memfd = new_memfd(LEN), fd = uffd_new(0), r;
	uint8_t *on_disk, *readable;

	must(file >= 0 && unlink(name) == 0 && ftruncate(file, LEN) == 0);
	on_disk = map_file(file, LEN);
	r = uffd_reg(fd, on_disk, LEN, MISSING);
	if (r == 0)
		untried("a file on disk: /var/tmp is on tmpfs here");
	else
		fact(r == -EINVAL, "a file on disk cannot be registered (%s)", strerrorname_np(-r));
	readable = mmap(NULL, LEN, PROT_READ, MAP_SHARED, memfd, 0);
	must(readable != MAP_FAILED);
	fact(uffd_reg(fd, readable, LEN, MISSING) == 0,
	     "a mapping that only reads can be, if its file is open for writing");
	fact(uffd_reg(fd, readable + 1, PAGE, MISSING) == -EINVAL, "addresses must be aligned");
	munmap(on_disk, LEN);
	munmap(readable, LEN);
	close(file);
	close(memfd);
	close(fd);
}

static void thread_id(void)
{
	uint8_t *mem = map_anon(LEN);
	struct guest g = guest_start(mem, LEN, -1, UFFD_FEATURE_THREAD_ID, MISSING);
	struct uffd_msg m;

	guest_post(&g, OP_WRITE, PAGE + 7, 1);
	must(uffd_next(g.uffd, &m, 5000) == UFFD_EVENT_PAGEFAULT);
	fact(m.arg.pagefault.feat.ptid == (uint32_t)g.pid,
	     "THREAD_ID names the thread that faulted");
	fact(m.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE,
	     "the flags tell a write from a read");
	guest_end(&g);
	munmap(mem, LEN);
}

int main(void)
{
	handshake();
	one_owner();
	kind_of_tracking();
	polling();
	kinds_of_memory();
	thread_id();
	return facts_end();
}
