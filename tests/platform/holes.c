/* SPDX-License-Identifier: Apache-2.0 */
/* Holes: how memory is made truly empty from outside, and how it is seen which pages are there. */
#include "platform.h"

#include <sys/stat.h>

#define LEN (16 * PAGE)

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static void shared(void)
{
	int fd = new_memfd(LEN);
	uint8_t *mem = map_file(fd, LEN);
	struct stat st;

	fact(is_hole(fd, 0) && lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO,
	     "a new memfd is one hole, and SEEK_DATA is ENXIO");
	memset(mem, 1, LEN);
	must(punch(fd, 4 * PAGE, 2 * PAGE) == 0);
	fact(is_hole(fd, 4 * PAGE) && lseek(fd, 4 * PAGE, SEEK_DATA) == 6 * (off_t)PAGE,
	     "punched pages are holes, although they are still mapped by somebody");
	must(fstat(fd, &st) == 0);
	fact((uint64_t)st.st_blocks * 512 == 14 * PAGE && st.st_size == (off_t)LEN,
	     "they are freed, the length stays");
	fact(mem[4 * PAGE] == 0 && !is_hole(fd, 4 * PAGE),
	     "reading one through the mapping fills it again");
	must(fallocate(fd, FALLOC_FL_KEEP_SIZE, 5 * PAGE, PAGE) == 0);
	note("a page reserved by fallocate(2) and never touched is %s",
	     is_hole(fd, 5 * PAGE) ? "a hole" : "data");
	munmap(mem, LEN);
	close(fd);
}

static void seals(void)
{
	int fd = new_memfd(LEN);
	uint8_t *mem = map_file(fd, LEN);

	memset(mem, 1, LEN);
	must(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
	fact(ftruncate(fd, PAGE) < 0 && errno == EPERM,
	     "F_SEAL_SHRINK: the file cannot be cut short");
	fact(punch(fd, 0, PAGE) == 0 && is_hole(fd, 0),
	     "F_SEAL_SHRINK: holes can still be punched");
	fact(pwrite(fd, "x", 1, 0) == 1, "F_SEAL_SHRINK: and pages written");
	must(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0);
	fact(punch(fd, 0, PAGE) < 0 && errno == EPERM,
	     "F_SEAL_FUTURE_WRITE forbids both: such a block cannot arrive");
	munmap(mem, LEN);
	close(fd);
}

/* The agent opens the guest's memory by its own way, without the guest's help. */
static void by_map_files(void)
{
	int fd = new_memfd(LEN), again;
	uint8_t *mem = map_file(fd, LEN), byte = 0;
	struct guest g = guest_start(mem, LEN, fd, 0, 0);
	char path[96];

	must(guest_ask(&g, OP_WRITE, 3 * PAGE, 0x5c) == 0);
	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", (int)g.pid,
		 (unsigned long)addr_of(mem), (unsigned long)addr_of(mem) + LEN);
	again = open(path, O_RDWR | O_CLOEXEC);
	if (again < 0) {
		untried("%s: %s", path, strerror(errno));
	} else {
		fact(pread(again, &byte, 1, 3 * PAGE) == 1 && byte == 0x5c,
		     "/proc/PID/map_files opens the guest's shared memory for pread(2)");
		fact(punch(again, 3 * PAGE, PAGE) == 0 && guest_ask(&g, OP_READ, 3 * PAGE, 0) == 0,
		     "and for punching");
		close(again);
	}
	guest_end(&g);
	munmap(mem, LEN);
	close(fd);
}

/* Anonymous memory of another process: only the process itself can give it back. */
static void anonymous(void)
{
	uint8_t *mem = map_anon(LEN);
	struct guest g = guest_start(mem, LEN, -1, 0, 0);
	struct iovec range = {mem, PAGE};
	int pidfd = (int)syscall(SYS_pidfd_open, g.pid, 0), map = map_of(g.pid), n;
	struct scan_run runs[16];

	must(guest_ask(&g, OP_WRITE, 0, 1) == 0 && guest_ask(&g, OP_WRITE, 2 * PAGE, 1) == 0);
	fact(syscall(SYS_process_madvise, pidfd, &range, 1, MADV_DONTNEED, 0) < 0,
	     "process_madvise(MADV_DONTNEED) on another process is refused (%s)",
	     strerrorname_np(errno));
	fact(guest_ask(&g, OP_READ, 0, 0) == 1, "its page is still there");
	n = scan(map, mem, LEN, false, 0, SCAN_PRESENT | SCAN_SWAPPED, runs, 16);
	if (n == -ENOTTY || map < 0) {
		untried("PAGEMAP_SCAN of another process: %s", strerror(map < 0 ? errno : ENOTTY));
	} else {
		fact(n == 2 && scan_pages(runs, n) == 2,
		     "PAGEMAP_SCAN tells which pages are there");
		must(guest_ask(&g, OP_MADVISE, 0, MADV_DONTNEED) == 0);
		n = scan(map, mem, LEN, false, 0, SCAN_PRESENT | SCAN_SWAPPED, runs, 16);
		fact(n == 1 && runs[0].start == addr_of(mem + 2 * PAGE),
		     "and that its own MADV_DONTNEED made one empty");
	}
	close(pidfd);
	if (map >= 0)
		close(map);
	guest_end(&g);
	munmap(mem, LEN);
}

int main(void)
{
	shared();
	seals();
	by_map_files();
	anonymous();
	return facts_end();
}
