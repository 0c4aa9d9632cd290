/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro-VMs out of stored images, with the real daemon and a client that follows the documented
 * handshake to the letter (tests/guests/microvm.c): faults, balloons, late descriptors, and ends in the middle.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lib/lab_micro.h"
#include "lib/lab_test.h"

TestSuite(micro, .timeout = 120);

#define PAGE 4096ul
#define MB   (1ul << 20)

/* --- what is right --- */

Test(micro, touched_filled_given_back)
{
	static const char *const options[][6] = {
		{"regions=1", "threads=1", NULL},
		{"regions=5", "threads=4", "before=5", "after=3", NULL},
		{"late=300", "after=7", NULL},
		{"early=1", "regions=8", NULL},
		{"regions=64", NULL},
		{"fd=blocking", "before=2", NULL},
	};
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = micro_host(lab);
	double faults = 0;

	micro_memory(b, "memory", 16 * MB);
	micro_import(b, "memory", "vm");
	for (size_t i = 0; i < LAB_COUNT(options); i++) {
		char *id = micro_uffd(b, "vm", "vm.sock"), name[16];
		struct lab_proc *p;

		snprintf(name, sizeof(name), "vm%zu", i);
		p = micro_start(b, name, "vm.sock", "memory", options[i]);
		micro_ok(b, p);
		lab_until(lab, 10000, micro_phase_is(b, id, "completed"),
			  "its pages are not all there");
		lab_check(lab, micro_number(b, id, "memory.missing_pages") == 0,
			  "pages are missing");
		faults += micro_number(b, id, "postcopy.faults");
		lab_check(lab, micro_number(b, id, "pid") == p->pid, "another pid");
		micro_end(b, p, id, "completed");
		free(id);
	}
	/* One alone may have been filled before it got as far. */
	lab_check(lab, faults > 0, "nothing was touched");
	lab_end(lab);
}

/* An image serves as many as want it; each socket is for one. */
Test(micro, two_of_one_image)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = micro_host(lab);
	struct lab_proc *p[3];
	char *id[2];

	micro_memory(b, "memory", 8 * MB);
	micro_import(b, "memory", "vm");
	id[0] = micro_uffd(b, "vm", "0.sock");
	id[1] = micro_uffd(b, "vm", "1.sock");
	p[0] = micro_start(b, "vm0", "0.sock", "memory", (const char *const[]){"pause=50", NULL});
	p[1] = micro_start(b, "vm1", "1.sock", "memory", NULL);
	lab_until(lab, 5000, micro_said(b, p[0], "there"), "the first one has not connected");
	lab_until(lab, 5000, access(lab_host_path(b, "0.sock"), F_OK), "the socket stays");
	p[2] = micro_start(b, "vm2", "0.sock", "memory", NULL);
	lab_check(lab, lab_proc_wait(lab, p[2], 5000) == 1, "a second one could connect");
	micro_ok(b, p[1]);
	micro_ok(b, p[0]);
	micro_end(b, p[0], id[0], "completed");
	lab_check(lab, lab_proc_alive(p[1]), "the other one has ended");
	micro_end(b, p[1], id[1], "completed");
	free(id[0]);
	free(id[1]);
	lab_end(lab);
}

Test(micro, huge_pages)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = micro_host(lab);
	struct lab_proc *p;
	char *id;

	if (!lab_huge_pages(lab, 20)) {
		lab_end(lab);
		cr_skip_test("20 huge pages cannot be reserved");
	}
	micro_memory(b, "memory", 32 * MB);
	micro_import(b, "memory", "vm");
	id = micro_uffd(b, "vm", "vm.sock");
	p = micro_start(
		b, "vm", "vm.sock", "memory",
		(const char *const[]){"page=2097152", "regions=3", "before=5", "after=4", NULL});
	micro_ok(b, p);
	lab_until(lab, 10000, micro_phase_is(b, id, "completed"), "its pages are not all there");
	micro_end(b, p, id, "completed");
	free(id);
	lab_end(lab);
}

/* --- ends in the middle --- */

Test(micro, killed_in_the_middle)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = micro_host(lab);
	struct lab_proc *p;
	char *id;

	micro_memory(b, "memory", 24 * MB);
	micro_import(b, "memory", "vm");
	id = micro_uffd(b, "vm", "vm.sock");
	p = micro_start(b, "vm", "vm.sock", "memory", NULL);
	lab_until(lab, 5000, micro_said(b, p, "there"), "it has not connected");
	lab_proc_kill(lab, p);
	/* Who has only connected is "listening" still: each of these is an end, and stays. */
	lab_until(lab, 5000,
		  micro_phase_is(b, id, "failed") || micro_phase_is(b, id, "completed") ||
			  micro_phase_is(b, id, "aborted"),
		  "its end is not noticed");
	free(id);
	/* The next one is served as if nothing had been. */
	id = micro_uffd(b, "vm", "vm.sock");
	p = micro_start(b, "next", "vm.sock", "memory", NULL);
	micro_ok(b, p);
	micro_end(b, p, id, "completed");
	free(id);
	lab_end(lab);
}

/* Flip a bit of the last page of data in an image. */
static void damage(struct lab_host *b, const char *image, size_t size, size_t page)
{
	char path[LAB_PATH_MAX + 64];
	uint64_t at = 0;
	uint8_t c;
	int fd;

	snprintf(path, sizeof(path), "%s/state/images/%s.image", b->dir, image);
	fd = open(path, O_RDWR | O_CLOEXEC);
	lab_check(b->lab, pread(fd, &at, sizeof(at), 104 + 2 * 24) == sizeof(at) && page < size,
		  "no header");
	at += page + 17;
	lab_check(b->lab, pread(fd, &c, 1, (off_t)at) == 1, "no page");
	c ^= 4;
	lab_check(b->lab, pwrite(fd, &c, 1, (off_t)at) == 1, "cannot write");
	close(fd);
}

Test(micro, damaged_page_holds_it_there)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = micro_host(lab);
	struct lab_proc *p;
	char *id;

	micro_memory(b, "memory", 4 * MB);
	micro_import(b, "memory", "vm");
	damage(b, "vm", 4 * MB, 100 * PAGE);
	id = micro_uffd(b, "vm", "vm.sock");
	p = micro_start(b, "vm", "vm.sock", "memory", NULL);
	lab_until(lab, 10000, micro_phase_is(b, id, "held"), "it is not held");
	lab_check(lab, micro_code_is(b, id, "image-damaged"), "code");
	lab_check(lab, micro_message_has(b, id, "block memory at 0x64000"), "message");
	lab_until(lab, 10000, micro_number(b, id, "memory.missing_pages") == 1,
		  "not all others were given");
	lab_check(lab, !micro_said(b, p, "touched"), "it has seen the damaged page");
	micro_end(b, p, id, "failed");
	free(id);
	lab_end(lab);
}

/* --- the agent's end --- */

/* In the middle: its next life finds the micro-VM again. */
static void agent_ends(int sig)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = micro_host(lab);
	struct lab_proc *p;
	char *id;

	/* So much that it takes longer than a test looks away. */
	micro_memory(b, "memory", 128 * MB);
	micro_import(b, "memory", "vm");
	id = micro_uffd(b, "vm", "vm.sock");
	p = micro_start(b, "vm", "vm.sock", "memory", (const char *const[]){"after=50", NULL});
	lab_until(lab, 5000, lab_proc_said(lab, b->dest, "serving (greeted)"), "it is not served");
	kill(b->dest->pid, sig);
	lab_proc_wait(lab, b->dest, 10000);
	lab_check(lab, !lab_proc_said(lab, b->dest, "serving -> completed"),
		  "it had all pages already: that proves nothing");
	lab_host_dest_start(b);
	micro_ok(b, p);
	lab_until(lab, 10000, micro_phase_is(b, id, "completed"), "it has not all pages");
	micro_end(b, p, id, "completed");
	free(id);
	lab_end(lab);
}

Test(micro, agent_killed)
{
	agent_ends(SIGKILL);
}

Test(micro, agent_stopped)
{
	lab_test_long();
	agent_ends(SIGTERM);
}

/* One that has connected, and nobody has read a word of it, when the agent is told to end: it says it only once. */
Test(micro, connected_when_the_agent_is_stopped)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = micro_host(lab);
	struct lab_proc *p;
	char *id;

	micro_memory(b, "memory", 4 * MB);
	micro_import(b, "memory", "vm");
	id = micro_uffd(b, "vm", "vm.sock");
	kill(b->dest->pid, SIGSTOP);
	p = micro_start(b, "vm", "vm.sock", "memory", NULL);
	lab_until(lab, 5000, micro_said(b, p, "there"), "it does not connect");
	kill(b->dest->pid, SIGTERM);
	kill(b->dest->pid, SIGCONT);
	lab_check(lab, lab_proc_wait(lab, b->dest, 10000) == 0, "the agent does not end well");
	lab_host_dest_start(b);
	micro_ok(b, p);
	lab_until(lab, 10000, micro_phase_is(b, id, "completed"), "it has not all pages");
	micro_end(b, p, id, "completed");
	free(id);
	lab_end(lab);
}

/* With every page there nobody is needed: a balloon finds zeros although nobody listens. */
Test(micro, needs_nobody_in_the_end)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = micro_host(lab);
	char go[LAB_PATH_MAX + 64];
	struct lab_proc *p;
	char *id;
	FILE *f;

	micro_memory(b, "memory", 8 * MB);
	micro_import(b, "memory", "vm");
	snprintf(go, sizeof(go), "%s", lab_host_path(b, "vm.sock.go"));
	lab_check(lab, !mkfifo(go, 0600), "%s: %m", go);
	id = micro_uffd(b, "vm", "vm.sock");
	p = micro_start(b, "vm", "vm.sock", "memory",
			(const char *const[]){"again=1", "after=3", NULL});
	lab_until(lab, 10000, micro_phase_is(b, id, "completed") && micro_said(b, p, "touched"),
		  "its pages are not all there");
	lab_proc_kill(lab, b->dest);
	f = fopen(go, "w");
	lab_check(lab, f && fputs("go\n", f) >= 0 && !fclose(f), "%s: %m", go);
	micro_ok(b, p);
	lab_proc_kill(lab, p);
	lab_host_dest_start(b);
	lab_check(lab, micro_phase_is(b, id, "completed"), "its record says something else");
	free(id);
	lab_end(lab);
}
