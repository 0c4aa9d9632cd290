/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing private anonymous memory of another process: process_vm_readv and writev. */
#include "platform.h"

#include <pthread.h>

#define LEN (16 * PAGE)

static ssize_t get(struct guest *g, uint64_t off, void *buf, size_t len)
{
	struct iovec to = {buf, len}, from = {g->mem + off, len};

	return process_vm_readv(g->pid, &to, 1, &from, 1, 0);
}

static ssize_t put(struct guest *g, uint64_t off, void *buf, size_t len)
{
	struct iovec from = {buf, len}, to = {g->mem + off, len};

	return process_vm_writev(g->pid, &from, 1, &to, 1, 0);
}

static void plain(void)
{
	uint8_t *mem = map_anon(LEN), buf[2 * PAGE];
	struct guest g = guest_start(mem, LEN, -1, 0, 0);
	ssize_t n;

	must(guest_ask(&g, OP_WRITE, PAGE + 5, 0x61) == 0);
	n = get(&g, PAGE, buf, PAGE);
	if (n < 0) {
		untried("process_vm_readv: %s", strerror(errno));
		guest_end(&g);
		return;
	}
	fact(n == (ssize_t)PAGE && buf[5] == 0x61, "process_vm_readv reads the guest's pages");
	buf[5] = 0x62;
	fact(put(&g, PAGE, buf, PAGE) == (ssize_t)PAGE &&
		     guest_ask(&g, OP_READ, PAGE + 5, 0) == 0x62,
	     "process_vm_writev writes them");
	fact(get(&g, 3 * PAGE, buf, PAGE) == (ssize_t)PAGE && buf[0] == 0,
	     "an unpopulated page reads as zeros");
	must(munmap(mem + LEN - PAGE, PAGE) == 0);
	guest_end(&g);
	munmap(mem, LEN - PAGE);
}

static void end_of_mapping(void)
{
	uint8_t *mem = map_anon(LEN), buf[2 * PAGE];
	struct guest g;

	must(munmap(mem + LEN - PAGE, PAGE) == 0);
	g = guest_start(mem, LEN - PAGE, -1, 0, 0);
	fact(get(&g, LEN - 2 * PAGE, buf, 2 * PAGE) == (ssize_t)PAGE,
	     "what reaches past the mapping is cut short, not failed");
	fact(get(&g, LEN - PAGE, buf, PAGE) < 0 && errno == EFAULT, "outside of it is EFAULT");
	kill(g.pid, SIGKILL);
	must(waitpid(g.pid, NULL, 0) == g.pid);
	fact(get(&g, 0, buf, PAGE) < 0 && errno == ESRCH, "a guest that is gone is ESRCH");
	munmap(g.ctl, PAGE);
	munmap(mem, LEN - PAGE);
}

struct getter {
	struct guest *g;
	_Atomic bool done;
	ssize_t n;
	uint8_t buf[PAGE];
};

static void *get_missing(void *arg)
{
	struct getter *t = arg;

	t->n = get(t->g, PAGE, t->buf, PAGE);
	t->done = true;
	return NULL;
}

static void missing(void)
{
	uint8_t *mem = map_anon(LEN), page[PAGE];
	struct guest g = guest_start(mem, LEN, -1, 0, UFFDIO_REGISTER_MODE_MISSING);
	struct getter t = {.g = &g};
	struct uffd_msg m;
	pthread_t thread;

	memset(page, 0x99, sizeof(page));
	must(pthread_create(&thread, NULL, get_missing, &t) == 0);
	if (uffd_next(g.uffd, &m, 5000) != UFFD_EVENT_PAGEFAULT) {
		must(pthread_join(thread, NULL) == 0);
		untried("process_vm_readv of a missing page: %s",
			t.n < 0 ? "no permission" : "faults of the kernel are not delivered here");
		guest_end(&g);
		return;
	}
	sleep_us(100000);
	fact(!t.done,
	     "process_vm_readv of a missing page blocks its caller: an agent never does that");
	must(uffd_copy(g.uffd, mem + PAGE, page, PAGE, NULL) == 0);
	must(pthread_join(thread, NULL) == 0);
	fact(t.n == (ssize_t)PAGE && t.buf[0] == 0x99, "until the page is placed");
	guest_end(&g);
	munmap(mem, LEN);
}

int main(void)
{
	plain();
	end_of_mapping();
	missing();
	return facts_end();
}
