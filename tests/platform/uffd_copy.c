/* SPDX-License-Identifier: Apache-2.0 */
/* What COPY and ZEROPAGE answer, case by case: the rules by which pages are placed. */
#include "platform.h"

#include <pthread.h>

#define LEN (16 * PAGE)

static void is_there(void)
{
	uint8_t *mem = map_anon(LEN), *src = malloc(LEN);
	int fd = uffd_new(0), r;
	int64_t placed = 0;

	must(uffd_reg(fd, mem, LEN, UFFDIO_REGISTER_MODE_MISSING) == 0);
	memset(src, 1, LEN);
	must(uffd_copy(fd, mem + 4 * PAGE, src, PAGE, NULL) == 0);
	memset(src, 2, LEN);
	r = uffd_copy(fd, mem + 4 * PAGE, src, PAGE, &placed);
	fact(r == -EEXIST && placed == -EEXIST && mem[4 * PAGE] == 1,
	     "COPY onto a page that is there is EEXIST and changes nothing");
	r = uffd_zero(fd, mem + 4 * PAGE, PAGE);
	fact(r == -EEXIST && mem[4 * PAGE] == 1, "ZEROPAGE onto it, too");
	r = uffd_copy(fd, mem, src, LEN, &placed);
	fact(r == -EAGAIN && placed == 4 * (int64_t)PAGE,
	     "COPY of a run that meets such a page is EAGAIN with the bytes placed before it");
	r = uffd_copy(fd, mem + placed, src + placed, PAGE, &placed);
	fact(r == -EEXIST, "the next COPY, from there on, says EEXIST");
	fact(uffd_copy(fd, mem + 5 * PAGE, src, PAGE, &placed) == 0 && placed == (int64_t)PAGE,
	     "all placed: 0 with the whole length");
	must(munmap(mem + 8 * PAGE, PAGE) == 0);
	r = uffd_copy(fd, mem + 8 * PAGE, src, PAGE, NULL);
	fact(r == -ENOENT, "COPY where nothing is mapped any more is ENOENT (%s)",
	     strerrorname_np(-r));
	free(src);
	close(fd);
	munmap(mem, LEN);
}

static void pending_event(void)
{
	uint8_t *mem = map_anon(LEN), page[PAGE] = {};
	struct guest g =
		guest_start(mem, LEN, -1, UFFD_FEATURE_EVENT_REMOVE, UFFDIO_REGISTER_MODE_MISSING);
	struct pollfd p = {.fd = g.uffd, .events = POLLIN};
	struct uffd_msg m;
	int64_t placed = 0;
	int r;

	must(uffd_copy(g.uffd, mem, page, PAGE, NULL) == 0);
	guest_post(&g, OP_MADVISE, 0, MADV_DONTNEED);
	must(poll(&p, 1, 5000) == 1);
	r = uffd_copy(g.uffd, mem + 3 * PAGE, page, PAGE, &placed);
	fact(r == -EAGAIN && placed <= 0,
	     "while an event waits to be read, COPY is EAGAIN without anything placed (anywhere)");
	fact(!guest_done(&g, 50), "the madvise(2) that caused it waits for its reader");
	fact(uffd_next(g.uffd, &m, 5000) == UFFD_EVENT_REMOVE &&
		     m.arg.remove.start == addr_of(mem) && m.arg.remove.end == addr_of(mem) + PAGE,
	     "it is a REMOVE with the range");
	fact(guest_done(&g, 5000), "reading it lets the guest go on");
	fact(uffd_copy(g.uffd, mem + 3 * PAGE, page, PAGE, NULL) == 0, "and COPY works again");
	fact(uffd_copy(g.uffd, mem, page, PAGE, NULL) == 0, "the removed page is missing again");
	guest_end(&g);
	munmap(mem, LEN);
}

static void *remove_first_page(void *mem)
{
	madvise(mem, PAGE, MADV_DONTNEED);
	return NULL;
}

static void *touch_last_page(void *mem)
{
	return (void *)(uintptr_t)(*(volatile uint8_t *)mem);
}

static void faults_first(void)
{
	uint8_t *mem = map_anon(LEN), page[PAGE] = {};
	int fd = uffd_new(UFFD_FEATURE_EVENT_REMOVE), first, second;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	pthread_t remover, toucher;
	struct uffd_msg m;

	must(uffd_reg(fd, mem, LEN, UFFDIO_REGISTER_MODE_MISSING) == 0);
	must(uffd_copy(fd, mem, page, PAGE, NULL) == 0);
	must(pthread_create(&remover, NULL, remove_first_page, mem) == 0);
	must(poll(&p, 1, 5000) == 1);
	must(pthread_create(&toucher, NULL, touch_last_page, mem + LEN - PAGE) == 0);
	sleep_us(50000);
	first = uffd_next(fd, &m, 5000);
	second = uffd_next(fd, &m, 5000);
	fact(first == UFFD_EVENT_PAGEFAULT && second == UFFD_EVENT_REMOVE,
	     "a fault is read before an event that was queued earlier");
	pthread_join(remover, NULL);
	must(uffd_copy(fd, mem + LEN - PAGE, page, PAGE, NULL) == 0);
	pthread_join(toucher, NULL);
	close(fd);
	munmap(mem, LEN);
}

static void wake_repeats(void)
{
	uint8_t *mem = map_anon(LEN);
	struct guest g = guest_start(mem, LEN, -1, 0, UFFDIO_REGISTER_MODE_MISSING);
	struct uffd_msg m;
	int faults = 0;

	guest_post(&g, OP_READ, 0, 0);
	for (int i = 0; i < 10; i++) {
		if (uffd_next(g.uffd, &m, 5000) != UFFD_EVENT_PAGEFAULT)
			break;
		faults++;
		must(uffd_wakeup(g.uffd, mem, PAGE) == 0);
	}
	fact(faults == 10,
	     "WAKE on a page that is still missing makes the thread fault again, "
	     "each time (%d of 10)",
	     faults);
	guest_end(&g);
	munmap(mem, LEN);
}

int main(void)
{
	is_there();
	pending_event();
	faults_first();
	wake_repeats();
	return facts_end();
}
