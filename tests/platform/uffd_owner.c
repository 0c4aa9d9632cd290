/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A userfaultfd acts in the address space that created it, whoever calls; that it arrives by
 * SCM_RIGHTS or pidfd_getfd(2) changes nothing. The agents lean on it for everything.
 */
#include "platform.h"

#define LEN (16 * PAGE)

static void acts_there(void)
{
	uint8_t *mem = map_anon(LEN), page[PAGE];
	struct guest g = guest_start(mem, LEN, -1, 0, UFFDIO_REGISTER_MODE_MISSING);
	struct uffd_msg m;
	int again;

	memset(page, 0xa1, sizeof(page));
	must(uffd_copy(g.uffd, mem, page, PAGE, NULL) == 0);
	fact(guest_ask(&g, OP_READ, 5, 0) == 0xa1,
	     "COPY through a received descriptor places the caller's bytes in the guest");
	fact(mem[5] == 0, "and nothing at the same address of the caller");

	must(uffd_zero(g.uffd, mem + PAGE, PAGE) == 0);
	fact(guest_ask(&g, OP_READ, PAGE, 0) == 0, "ZEROPAGE acts in the guest");

	guest_post(&g, OP_READ, 2 * PAGE + 7, 0);
	fact(uffd_next(g.uffd, &m, 5000) == UFFD_EVENT_PAGEFAULT &&
		     m.arg.pagefault.address == addr_of(mem + 2 * PAGE),
	     "the guest's faults are read from it, with the guest's addresses");
	fact(!guest_done(&g, 50), "the guest waits meanwhile");
	must(uffd_copy(g.uffd, mem + 2 * PAGE, page, PAGE, NULL) == 0);
	fact(guest_done(&g, 5000) && g.ctl->value == 0xa1, "COPY wakes it by itself");

	again = take_fd(g.pid, g.own_uffd);
	if (again < 0) {
		untried("pidfd_getfd: %s", strerror(errno));
	} else {
		fact(uffd_copy(again, mem + 3 * PAGE, page, PAGE, NULL) == 0 &&
			     guest_ask(&g, OP_READ, 3 * PAGE, 0) == 0xa1,
		     "pidfd_getfd gives the same power");
		close(again);
	}

	fact(uffd_unreg(g.uffd, mem, LEN) == 0 && guest_ask(&g, OP_READ, 9 * PAGE, 0) == 0,
	     "UNREGISTER acts there, too");
	fact(uffd_reg(g.uffd, mem, LEN, UFFDIO_REGISTER_MODE_MISSING) == 0,
	     "so does REGISTER: the agent can do it from outside");
	guest_post(&g, OP_READ, 10 * PAGE, 0);
	fact(uffd_next(g.uffd, &m, 5000) == UFFD_EVENT_PAGEFAULT, "and faults come as before");
	guest_end(&g);
	munmap(mem, LEN);
}

static void gone(void)
{
	uint8_t *mem = map_anon(LEN), page[PAGE] = {};
	struct guest g = guest_start(mem, LEN, -1, 0, UFFDIO_REGISTER_MODE_MISSING);
	int r;

	kill(g.pid, SIGKILL);
	must(waitpid(g.pid, NULL, 0) == g.pid);
	r = uffd_copy(g.uffd, mem, page, PAGE, NULL);
	fact(r == -ESRCH, "when the guest is gone, COPY says ESRCH (%s)", strerrorname_np(-r));
	munmap(mem, LEN);
}

static void visible(void)
{
	uint8_t *mem = map_anon(LEN);
	struct guest g = guest_start(mem, LEN, -1, 0, UFFDIO_REGISTER_MODE_MISSING);
	char path[64], name[64] = "";

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)g.pid, g.own_uffd);
	if (readlink(path, name, sizeof(name) - 1) < 0)
		untried("%s: %s", path, strerror(errno));
	else
		fact(!strcmp(name, "anon_inode:[userfaultfd]"),
		     "it is found again in /proc/PID/fd as %s", name);
	guest_end(&g);
	munmap(mem, LEN);
}

int main(void)
{
	acts_there();
	gone();
	visible();
	return facts_end();
}
