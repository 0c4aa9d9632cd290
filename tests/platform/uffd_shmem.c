/* SPDX-License-Identifier: Apache-2.0 */
/* Missing faults and holes of shared memory: what discards, placing and reading have to respect. */
#include "platform.h"

#include <sys/stat.h>

#define LEN (16 * PAGE)

/* Does reading the page at @off fault? Asked until the guest has either read it or waits for it. */
static bool faults(struct guest *g, uint64_t off)
{
	struct uffd_msg m;
	bool did;

	guest_post(g, OP_READ, off, 0);
	do
		did = uffd_next(g->uffd, &m, 50) == UFFD_EVENT_PAGEFAULT;
	while (!did && !guest_done(g, 50));
	return did && m.arg.pagefault.address == addr_of(g->mem + off);
}

static uint64_t blocks(int fd)
{
	struct stat st;

	must(fstat(fd, &st) == 0);
	return (uint64_t)st.st_blocks * 512 / PAGE;
}

static void holes_only(void)
{
	int fd = new_memfd(LEN);
	uint8_t *mem = map_file(fd, LEN), page[PAGE];
	struct guest g;

	memset(page, 0x11, sizeof(page));
	must(pwrite(fd, page, PAGE, 0) == (ssize_t)PAGE);
	must(pwrite(fd, page, PAGE, PAGE) == (ssize_t)PAGE);
	g = guest_start(mem, LEN, fd, UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_EVENT_REMOVE,
			UFFDIO_REGISTER_MODE_MISSING);
	fact(!faults(&g, 0) && guest_done(&g, 5000) && g.ctl->value == 0x11,
	     "a page that is in the file is mapped without a missing fault");
	must(punch(fd, PAGE, PAGE) == 0);
	fact(faults(&g, PAGE), "a page punched out by the agent faults");
	must(uffd_copy(g.uffd, mem + PAGE, page, PAGE, NULL) == 0 && guest_done(&g, 5000));
	fact(!is_hole(fd, PAGE), "COPY fills the hole of the file");

	must(punch(fd, 0, PAGE) == 0);
	fact(faults(&g, 0), "so does one that the guest had mapped before it was punched");
	must(pwrite(fd, page, PAGE, 0) == (ssize_t)PAGE);
	fact(!guest_done(&g, 100), "pwrite(2) into the file does not wake who waits for that page");
	fact(uffd_copy(g.uffd, mem, page, PAGE, NULL) == -EEXIST, "COPY onto it is then EEXIST");
	must(uffd_wakeup(g.uffd, mem, PAGE) == 0);
	fact(guest_done(&g, 5000) && g.ctl->value == 0x11, "WAKE lets it go on with that content");
	guest_end(&g);
	munmap(mem, LEN);
	close(fd);
}

static void guest_removes(void)
{
	int fd = new_memfd(LEN);
	uint8_t *mem = map_file(fd, LEN), page[PAGE];
	struct guest g =
		guest_start(mem, LEN, fd, UFFD_FEATURE_EVENT_REMOVE, UFFDIO_REGISTER_MODE_MISSING);
	struct uffd_msg m;

	memset(page, 0x22, sizeof(page));
	must(uffd_copy(g.uffd, mem, page, PAGE, NULL) == 0);
	must(uffd_copy(g.uffd, mem + PAGE, page, PAGE, NULL) == 0);
	fact(guest_ask(&g, OP_PUNCH, 0, 0) == 0 && uffd_next(g.uffd, &m, 100) == 0,
	     "fallocate(PUNCH_HOLE) by the guest raises no event");
	fact(faults(&g, 0), "only a second missing fault on that page, later");
	must(uffd_zero(g.uffd, mem, PAGE) == 0 && guest_done(&g, 5000));
	guest_post(&g, OP_MADVISE, PAGE, MADV_REMOVE);
	fact(uffd_next(g.uffd, &m, 5000) == UFFD_EVENT_REMOVE &&
		     m.arg.remove.start == addr_of(mem + PAGE),
	     "madvise(MADV_REMOVE) by the guest raises REMOVE");
	must(guest_done(&g, 5000));
	fact(is_hole(fd, PAGE), "and makes a hole");
	guest_end(&g);
	munmap(mem, LEN);
	close(fd);
}

/* Rule: agents never look at guest memory through a mapping. This is what would happen. */
static void agent_reads(void)
{
	int fd = new_memfd(LEN);
	uint8_t *mem = map_file(fd, LEN), *own = map_file(fd, LEN), buf[PAGE];
	struct guest g = guest_start(mem, LEN, fd, 0, UFFDIO_REGISTER_MODE_MISSING);

	must(pread(fd, buf, PAGE, PAGE) == (ssize_t)PAGE);
	fact(is_hole(fd, PAGE) && blocks(fd) == 0, "pread(2) of a hole leaves it a hole");
	must(*(volatile uint8_t *)own == 0);
	fact(!is_hole(fd, 0), "reading a hole through a mapping of another process fills it");
	fact(!faults(&g, 0) && guest_done(&g, 5000) && g.ctl->value == 0,
	     "the guest then reads zeros and nobody is asked");
	guest_end(&g);
	munmap(own, LEN);
	munmap(mem, LEN);
	close(fd);
}

/* Reserved pages look like holes and are none: emptying a block means punching all of it. */
static void reserved(void)
{
	int fd = new_memfd(LEN);
	uint8_t *mem = map_file(fd, LEN), page[PAGE];
	struct guest g;

	memset(page, 0x44, sizeof(page));
	must(fallocate(fd, 0, 0, LEN) == 0);
	note("SEEK_DATA calls a page that fallocate(2) reserved %s",
	     is_hole(fd, 0) ? "a hole" : "data");
	g = guest_start(mem, LEN, fd, 0, UFFDIO_REGISTER_MODE_MISSING);
	note("a guest that touches it %s",
	     faults(&g, 0) ? "faults" : "does not fault: it reads zeros and nobody is asked");
	note("COPY onto such a page: %s",
	     strerrorname_np(-uffd_copy(g.uffd, mem + PAGE, page, PAGE, NULL)));
	must(punch(fd, 0, LEN) == 0);
	fact(blocks(fd) == 0, "punching frees reserved pages, too: the file then has no blocks");
	fact(faults(&g, 2 * PAGE), "and they fault");
	guest_end(&g);
	munmap(mem, LEN);
	close(fd);
}

static void *volatile sigbus_at;

static void on_sigbus(int sig, siginfo_t *si, void *ctx)
{
	(void)sig;
	(void)ctx;
	_exit(si->si_addr == sigbus_at ? 42 : 43);
}

static void truncated(void)
{
	int fd = new_memfd(LEN), status;
	uint8_t *own = map_file(fd, LEN);
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
	pid_t pid;

	must(ftruncate(fd, PAGE) == 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		sigbus_at = own + PAGE;
		sigaction(SIGBUS, &sa, NULL);
		_exit(*(volatile uint8_t *)(own + PAGE));
	}
	must(waitpid(pid, &status, 0) == pid);
	fact(WIFEXITED(status) && WEXITSTATUS(status) == 42,
	     "reading a truncated file through a mapping is SIGBUS");
	fact(pread(fd, &status, 1, (off_t)PAGE) == 0, "pread(2) there just says end of file");
	munmap(own, LEN);
	close(fd);
}

int main(void)
{
	if (!(uffd_known() & UFFD_FEATURE_MISSING_SHMEM)) {
		untried("missing faults of shared memory: this kernel has none");
		return 77;
	}
	holes_only();
	guest_removes();
	agent_reads();
	reserved();
	truncated();
	return facts_end();
}
