/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who holds a descriptor decides what the end of an agent does: adoption, silent zeros, and why the
 * guest keeps a copy for missing faults.
 */
#include "platform.h"

#define LEN (16 * PAGE)

struct reader {
	int uffd;
	_Atomic int *read;
};

/* An agent that reads one fault and dies before it answers. */
static void read_one(void *arg)
{
	struct reader *r = arg;
	struct uffd_msg m;

	if (uffd_next(r->uffd, &m, 5000) == UFFD_EVENT_PAGEFAULT)
		*r->read = 1;
}

static bool wait_flag(_Atomic int *flag)
{
	for (int i = 0; i < 50000 && !*flag; i++)
		sleep_us(100);
	return *flag;
}

static void adoption(void)
{
	uint8_t *mem = map_anon(LEN), page[PAGE];
	struct guest g = guest_start(mem, LEN, -1, 0, UFFDIO_REGISTER_MODE_MISSING);
	_Atomic int *flag =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct reader r = {.uffd = g.uffd, .read = flag};
	struct uffd_msg m;
	uint64_t t0;
	pid_t agent;

	memset(page, 0x42, sizeof(page));
	agent = agent_start(read_one, &r);
	close(g.uffd);
	guest_post(&g, OP_READ, 3 * PAGE, 0);
	must(wait_flag(flag));
	agent_kill(agent);
	fact(!guest_done(&g, 100),
	     "the guest's copy keeps a fault waiting when the agent is killed");

	g.uffd = take_fd(g.pid, g.own_uffd);
	if (g.uffd < 0) {
		untried("adoption by pidfd_getfd: %s", strerror(errno));
		guest_end(&g);
		return;
	}
	fact(uffd_next(g.uffd, &m, 100) == 0,
	     "its successor never sees the fault the dead agent read");
	t0 = now_us();
	must(uffd_wakeup(g.uffd, mem, LEN) == 0);
	note("one WAKE over the range takes %llu us", (unsigned long long)(now_us() - t0));
	fact(uffd_next(g.uffd, &m, 5000) == UFFD_EVENT_PAGEFAULT &&
		     m.arg.pagefault.address == addr_of(mem + 3 * PAGE),
	     "after one WAKE over everything it comes again");
	must(uffd_copy(g.uffd, mem + 3 * PAGE, page, PAGE, NULL) == 0);
	fact(guest_done(&g, 5000) && g.ctl->value == 0x42, "and is answered with the right page");
	guest_end(&g);
	munmap(mem, LEN);
}

static void unread_fault(void)
{
	uint8_t *mem = map_anon(LEN);
	struct guest g = guest_start(mem, LEN, -1, 0, UFFDIO_REGISTER_MODE_MISSING);
	struct uffd_msg m;

	close(g.uffd);
	guest_post(&g, OP_READ, 3 * PAGE, 0);
	must(!guest_done(&g, 50));
	g.uffd = take_fd(g.pid, g.own_uffd);
	if (g.uffd < 0)
		untried("adoption by pidfd_getfd: %s", strerror(errno));
	else
		fact(uffd_next(g.uffd, &m, 5000) == UFFD_EVENT_PAGEFAULT,
		     "a fault that nobody has read is there for the successor");
	guest_end(&g);
	munmap(mem, LEN);
}

/* An agent that does nothing but live. */
static void hold(void *arg)
{
	(void)arg;
}

static void last_reference(const char *kind, int memfd)
{
	uint8_t *mem = memfd < 0 ? map_anon(LEN) : map_file(memfd, LEN);
	struct guest g = guest_start(mem, LEN, memfd, 0, UFFDIO_REGISTER_MODE_MISSING);
	pid_t agent;

	must(guest_ask(&g, OP_CLOSE, 0, 0) == 0);
	agent = agent_start(hold, NULL);
	close(g.uffd);
	g.uffd = -1;
	guest_post(&g, OP_READ, PAGE, 0);
	fact(!guest_done(&g, 100), "%s: any holder keeps a missing page guarded", kind);
	agent_kill(agent);
	fact(guest_done(&g, 5000) && g.ctl->value == 0,
	     "%s: when the last holder is killed, the waiting guest reads zeros", kind);
	fact(guest_ask(&g, OP_READ, 2 * PAGE, 0) == 0, "%s: and so do all later faults", kind);
	guest_end(&g);
	munmap(mem, LEN);
}

static void forked_child(void)
{
	uint8_t *mem = map_anon(LEN);
	struct guest g = guest_start(mem, LEN, -1, 0, UFFDIO_REGISTER_MODE_MISSING);

	fact(guest_ask(&g, OP_FORKREAD, PAGE, 0) == 0,
	     "without EVENT_FORK a child that the guest forks reads zeros for missing pages");
	guest_end(&g);
	munmap(mem, LEN);
}

int main(void)
{
	int memfd = new_memfd(LEN);

	adoption();
	unread_fault();
	last_reference("anonymous", -1);
	last_reference("memfd", memfd);
	forked_child();
	return facts_end();
}
