/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the library does to the guest's memory on request, and what becomes of a userfaultfd when
 * the agent dies: kept, nobody is handed zeros; not kept, nobody stays blocked.
 */
#include "unit/guest_one.h"

#include <sys/resource.h>

#include "uffd/uffd.h"

static int uffd; /* the agent's */

TestSuite(guest_memory, .init = one_start, .fini = one_stop, .timeout = 60);

/* The agent goes, with all that it has open; another one comes. */
static void next_agent(void)
{
	close(uffd);
	guest_free(p.g);
	p.g = NULL;
	pair_until(&p, p.g);
}

static void touch(int how, int where, size_t at)
{
	s->where = where;
	s->at = at;
	__atomic_store_n(&s->touch, how, __ATOMIC_SEQ_CST);
}

static void open_uffd(bool keep, uint64_t features)
{
	cr_assert_eq(pair_do(&p, guest_uffd, p.g, keep, keep ? 5 : 0), 0, "%s", p.err.msg);
	uffd = steal_fd(&p.fd);
	cr_assert_eq(uffd_api(uffd, features, NULL, NULL), 0);
}

/* Block @where is empty and registered; its byte 5 is read, and the page comes from the next agent. */
static void missing_page_survives(int where)
{
	struct guest_range all = {0, PAIR_BLOCK};
	uint64_t addr, done;
	uint8_t page[PAIR_PAGE] = {[5] = 0x77};

	run();
	cr_assert_eq(pair_do(&p, guest_punch, p.g, (uint16_t)where, &all, 1), 0);
	open_uffd(true, UFFD_F_MISSING_SHMEM);
	addr = p.g->blocks[where].addr;
	cr_assert_eq(uffd_register(uffd, addr, PAIR_BLOCK, UFFD_MODE_MISSING, NULL), 0);
	touch('r', where, 5);
	pair_spin(&p, 100);
	next_agent();
	pair_spin(&p, 100);
	cr_assert_eq(s->touch, 'r', "it was handed something");
	cr_assert(p.g->kept_uffd);
	cr_assert_eq(p.g->kept_tag, 5);
	cr_assert_eq(pair_do(&p, guest_uffd_again, p.g), 0);
	uffd = steal_fd(&p.fd);
	/* The library works on while the program's thread waits for its page. */
	cr_assert_eq(pair_do(&p, guest_punch, p.g, (uint16_t)!where, &all, 1), 0);
	cr_assert_eq(uffd_copy(uffd, addr, page, PAIR_PAGE, &done), 0);
	pair_until(&p, !s->touch);
	cr_assert_eq(s->value, 0x77);
	cr_assert_eq(uffd_unregister(uffd, addr, PAIR_BLOCK), 0);
	cr_assert_eq(pair_do(&p, guest_uffd_close, p.g), 0);
}

Test(guest_memory, a_missing_page_survives_the_agent_in_a_file)
{
	missing_page_survives(0);
}

Test(guest_memory, a_missing_page_survives_the_agent_in_anonymous_memory)
{
	missing_page_survives(1);
}

Test(guest_memory, a_writer_is_released_by_the_agents_death)
{
	uint64_t addr;

	run();
	open_uffd(false, UFFD_F_PAGEFAULT_FLAG_WP);
	addr = p.g->blocks[1].addr;
	cr_assert_eq(uffd_register(uffd, addr, PAIR_BLOCK, UFFD_MODE_WP, NULL), 0);
	cr_assert_eq(uffd_writeprotect(uffd, addr, PAIR_BLOCK, true), 0);
	s->value = 9;
	touch('w', 1, PAIR_PAGE + 3);
	pair_spin(&p, 100);
	cr_assert_eq(s->touch, 'w', "it is not protected");
	next_agent();
	pair_until(&p, !s->touch);
	cr_assert(!p.g->kept_uffd);
}

/* AddressSanitizer turns mlock(2) and munlock(2) into nothing. */
static void need_locks(void)
{
#ifdef __SANITIZE_ADDRESS__
	pair_skip(&p, "this sanitizer does not let memory be locked");
#endif
}

/* The flags of the mapping of @addr in the guest, like " rd wr mr lo ". */
static const char *vm_flags(uint64_t addr)
{
	static char line[300];
	char path[64];
	uint64_t from = 0, to = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)child);
	f = fopen(path, "r");
	cr_assert(f);
	while (fgets(line, sizeof(line), f)) {
		sscanf(line, "%lx-%lx ", &from, &to);
		if (!strncmp(line, "VmFlags:", 8) && addr >= from && addr < to)
			break;
	}
	fclose(f);
	return line + 8;
}

Test(guest_memory, locks_and_huge_pages_are_taken_off_and_put_back)
{
	uint64_t addr;

	need_locks();
	s->lock = 8 * PAIR_PAGE;
	run();
	addr = p.g->blocks[1].addr;
	cr_assert(strstr(vm_flags(addr), " lo "), "%s", vm_flags(addr));
	cr_assert(strstr(vm_flags(addr), " hg "), "%s", vm_flags(addr));
	for (int i = 0; i < 2; i++)
		cr_assert_eq(pair_do(&p, guest_prepare, p.g), 0, "%s", p.err.msg);
	cr_assert(!strstr(vm_flags(addr), " lo "), "%s", vm_flags(addr));
	cr_assert(strstr(vm_flags(addr), " nh "), "%s", vm_flags(addr));
	cr_assert(strstr(vm_flags(addr + 9 * PAIR_PAGE), " nh "));
	cr_assert_eq(pair_do(&p, guest_finish, p.g), 0, "%s", p.err.msg);
	cr_assert(strstr(vm_flags(addr), " lo "), "%s", vm_flags(addr));
	cr_assert(strstr(vm_flags(addr), " hg "), "%s", vm_flags(addr));
	cr_assert(!strstr(vm_flags(addr + 9 * PAIR_PAGE), " lo "));
	cr_assert(strstr(vm_flags(addr + 9 * PAIR_PAGE), " hg "));
	cr_assert_eq(pair_do(&p, guest_finish, p.g), 0, "nothing is left to do");
}

Test(guest_memory, a_lock_that_fails_is_reported_and_the_rest_is_restored)
{
	const struct rlimit none = {0, 0};
	uint64_t addr;

	need_locks();
	s->lock = 8 * PAIR_PAGE;
	s->no_lock_cap = true;
	run();
	addr = p.g->blocks[1].addr;
	cr_assert_eq(pair_do(&p, guest_prepare, p.g), 0, "%s", p.err.msg);
	cr_assert_eq(prlimit(child, RLIMIT_MEMLOCK, &none, NULL), 0);
	cr_assert_lt(pair_do(&p, guest_finish, p.g), 0);
	cr_assert(strstr(p.err.msg, "cannot lock 32 KiB again"), "%s", p.err.msg);
	cr_assert(strstr(vm_flags(addr), " hg "), "%s", vm_flags(addr));
	cr_assert_eq(pair_do(&p, guest_pause, p.g, 1000), 0, "the guest is well");
}

Test(guest_memory, a_locked_page_can_be_punched_after_prepare)
{
	struct guest_range r = {PAIR_PAGE, PAIR_PAGE};

	need_locks();
	s->lock = 8 * PAIR_PAGE;
	run();
	cr_assert_eq(pair_do(&p, guest_punch, p.g, 1, &r, 1), -EINVAL, "locked pages stay");
	cr_assert_eq(pair_do(&p, guest_prepare, p.g), 0);
	cr_assert_eq(pair_do(&p, guest_punch, p.g, 1, &r, 1), 0, "%s", p.err.msg);
	touch('r', 1, PAIR_PAGE);
	pair_until(&p, !s->touch);
	cr_assert_eq(s->value, 0);
}

/* --- without privilege -------------------------------------------------------------------------- */

#define NOBODY 65534

static void unprivileged_program(const char *path, void *arg)
{
	if (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY))
		_exit(93);
	pair_program(path, arg);
}

static void run_unprivileged(void)
{
	const uid_t uids[1] = {NOBODY};
	struct attach_config c = {.path = p.path,
				  .mode = 0666,
				  .listen_fd = -1,
				  .uids = uids,
				  .nuids = 1,
				  .fn = pair_on_attach,
				  .arg = &p};
	struct error err = {0};
	char *text = NULL;

	if (geteuid() != 0)
		pair_skip(&p, "needs root, to start a guest as another user");
	if (fdio_read_file("/proc/sys/vm/unprivileged_userfaultfd", 16, &text) < 0 ||
	    text[0] != '0')
		pair_skip(&p, "vm.unprivileged_userfaultfd lets everybody");
	free(text);
	attach_free(p.attach);
	cr_assert_eq(attach_new(p.loop, &c, &p.attach, &err), 0, "%s", err.msg);
	cr_assert_eq(chmod(p.dir, 0755), 0);
	child = pair_fork(&p, unprivileged_program, s);
	pair_until(&p, p.g);
	cr_assert_eq(p.g->uid, NOBODY);
}

Test(guest_memory, user_faults_need_no_privilege)
{
	run_unprivileged();
	open_uffd(false, 0);
	cr_assert_eq(p.g->uffd_how, GUEST_UFFD_USER_MODE);
}

Test(guest_memory, faults_of_the_kernel_do_and_it_says_so)
{
	s->kernel_faults = true;
	run_unprivileged();
	cr_assert(!p.g->user_faults);
	cr_assert_eq(pair_do(&p, guest_uffd, p.g, false, 0), -EPERM);
	cr_assert(strstr(p.err.msg, "/dev/userfaultfd"), "%s", p.err.msg);
}
