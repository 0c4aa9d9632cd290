/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tracking by faults: a first write waits for the agent. What an agent's SIGKILL does to the writers
 * decides that nobody else may hold the descriptor.
 */
#include "platform.h"

#define LEN  (16 * PAGE)
#define MODE UFFDIO_REGISTER_MODE_WP

static uint64_t wanted(int memfd)
{
	uint64_t want = UFFD_FEATURE_PAGEFAULT_FLAG_WP | (uffd_known() & WP_UNPOP);

	return want | (memfd < 0 ? 0 : UFFD_FEATURE_WP_HUGETLBFS_SHMEM);
}

static void basics(const char *kind, int memfd)
{
	uint8_t *mem = memfd < 0 ? map_anon(LEN) : map_file(memfd, LEN);
	struct guest g = guest_start(mem, LEN, memfd, wanted(memfd), MODE);
	struct uffd_msg m;

	must(guest_ask(&g, OP_WRITE, 0, 1) == 0);
	must(guest_ask(&g, OP_WRITE, PAGE, 1) == 0);
	must(uffd_wp(g.uffd, mem, LEN, true) == 0);
	fact(guest_ask(&g, OP_READ, 0, 0) == 1, "%s: reading a protected page does not wait", kind);
	guest_post(&g, OP_WRITE, 5, 2);
	fact(uffd_next(g.uffd, &m, 5000) == UFFD_EVENT_PAGEFAULT &&
		     m.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP &&
		     m.arg.pagefault.address == addr_of(mem),
	     "%s: a write faults, flagged as write-protect", kind);
	fact(!guest_done(&g, 50), "%s: and waits", kind);
	must(uffd_wp(g.uffd, mem, PAGE, false) == 0);
	fact(guest_done(&g, 5000), "%s: lifting the protection wakes the writer", kind);
	fact(guest_ask(&g, OP_WRITE, 6, 3) == 0, "%s: later writes to that page run free", kind);
	guest_post(&g, OP_SYSREAD, PAGE, 0);
	if (uffd_next(g.uffd, &m, 5000) == UFFD_EVENT_PAGEFAULT) {
		must(uffd_wp(g.uffd, mem + PAGE, PAGE, false) == 0);
		fact(guest_done(&g, 5000) && g.ctl->value == 0,
		     "%s: a write by the kernel (read(2)) waits in the same way", kind);
	} else {
		untried("%s: writes by the kernel: no permission for such faults", kind);
		must(guest_done(&g, 5000));
	}
	if (uffd_known() & WP_UNPOP) {
		guest_post(&g, OP_WRITE, 8 * PAGE, 1);
		fact(uffd_next(g.uffd, &m, 5000) == UFFD_EVENT_PAGEFAULT,
		     "%s: with WP_UNPOPULATED the first write to an unpopulated page waits, too",
		     kind);
	}
	guest_end(&g);
	munmap(mem, LEN);
}

static void hold(void *arg)
{
	(void)arg;
}

static void killed(const char *kind, int memfd, bool copy_in_guest)
{
	uint8_t *mem = memfd < 0 ? map_anon(LEN) : map_file(memfd, LEN);
	struct guest g = guest_start(mem, LEN, memfd, wanted(memfd), MODE);
	pid_t agent;
	uint64_t t0;

	must(guest_ask(&g, OP_WRITE, 0, 1) == 0);
	must(uffd_wp(g.uffd, mem, LEN, true) == 0);
	if (!copy_in_guest)
		must(guest_ask(&g, OP_CLOSE, 0, 0) == 0);
	agent = agent_start(hold, NULL);
	close(g.uffd);
	g.uffd = -1;
	guest_post(&g, OP_WRITE, 0, 2);
	must(!guest_done(&g, 50));
	t0 = now_us();
	agent_kill(agent);
	if (copy_in_guest) {
		fact(!guest_done(&g, 300),
		     "%s: with a copy in the guest its writers stay blocked after the agent's "
		     "SIGKILL",
		     kind);
	} else {
		fact(guest_done(&g, 5000),
		     "%s: with the agent as the only holder its SIGKILL frees the writers (%llu "
		     "us)",
		     kind, (unsigned long long)(now_us() - t0));
		fact(guest_ask(&g, OP_READ, 0, 0) == 2 && guest_ask(&g, OP_WRITE, PAGE, 1) == 0,
		     "%s: the write is done, and the rest is no longer protected", kind);
	}
	guest_end(&g);
	munmap(mem, LEN);
}

int main(void)
{
	int memfd = new_memfd(LEN);

	if (!(uffd_known() & UFFD_FEATURE_PAGEFAULT_FLAG_WP)) {
		untried("write protection: this kernel has none");
		return 77;
	}
	basics("anonymous", -1);
	killed("anonymous", -1, false);
	killed("anonymous", -1, true);
	if (!(uffd_known() & UFFD_FEATURE_WP_HUGETLBFS_SHMEM)) {
		untried("write protection of shared memory: this kernel has none (5.19)");
		return facts_end();
	}
	basics("memfd", memfd);
	killed("memfd", memfd, false);
	killed("memfd", memfd, true);
	return facts_end();
}
