/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro-VMs: what cannot be. Handshakes that cannot be right, those that never come to an end, and
 * orders that are refused by name.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "lib/lab_micro.h"
#include "lib/lab_test.h"

TestSuite(micro_refused, .timeout = 120);

#define MB (1ul << 20)

/* --- what cannot be --- */

/** struct refusal - what a micro-VM says, and what becomes of it */
struct refusal {
	const char *options[4];
	const char *phase;
	const char *code;
	const char *message;
};

#define REGION(addr, size, offset, page) \
	"{\"base_host_virt_addr\":" addr ",\"size\":" size ",\"offset\":" offset "," page "}"
#define SIZE4 "\"page_size\":4096"

Test(micro_refused, handshakes_that_cannot_be)
{
	static const struct refusal rows[] = {
		{{"say=["}, "held", "bad-handshake", "no complete array"},
		{{"say=hello"}, "held", "bad-handshake", "not JSON"},
		{{"say=[]"}, "held", "bad-handshake", "no array of regions"},
		{{"say={\"a\":1}"}, "held", "bad-handshake", "no array of regions"},
		{{"say=[1]"}, "held", "bad-handshake", "region 0 is no object"},
		{{"say=[" REGION("@0", "4096", "0", SIZE4) "," REGION("@0", "4096", "4096",
								      SIZE4) "]"},
		 "held",
		 "bad-handshake",
		 "regions 0 and 1 overlap at address"},
		{{"say=[" REGION("@0", "8192", "0", SIZE4) "," REGION("@1", "4096", "4096",
								      SIZE4) "]"},
		 "held",
		 "bad-handshake",
		 "overlap in the image at offset 4096"},
		{{"say=[" REGION("@0", "4096", "1048576", SIZE4) "]"},
		 "held",
		 "bad-handshake",
		 "beyond the image's 1048576"},
		{{"say=[" REGION("@0", "4096", "0", "\"page_size\":1073741824") "]"},
		 "held",
		 "page-size",
		 "1073741824 bytes are not supported"},
		{{"say=[" REGION("@0", "4096", "0", "\"page_size\":2097152") "]"},
		 "held",
		 "bad-handshake",
		 "not all multiples"},
		{{"say=[" REGION("@0", "4096", "0", SIZE4) "] and more"},
		 "held",
		 "bad-handshake",
		 "bytes follow"},
		{{"fd=two"}, "held", "bad-handshake", "more than one descriptor"},
		{{"fd=file"}, "held", "bad-handshake", "no userfaultfd but /dev/null"},
		{{"fd=fresh"}, "held", "bad-handshake", "has not been set up"},
	};
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = micro_host(lab);

	micro_memory(b, "memory", MB);
	micro_import(b, "memory", "vm");
	for (size_t i = 0; i < LAB_COUNT(rows); i++) {
		char *id = micro_uffd(b, "vm", "vm.sock"), name[16];
		struct lab_proc *p;

		snprintf(name, sizeof(name), "vm%zu", i);
		p = micro_start(b, name, "vm.sock", "memory", rows[i].options);
		lab_until(lab, 5000, micro_phase_is(b, id, rows[i].phase), "row %zu: phase", i);
		lab_check(lab, micro_code_is(b, id, rows[i].code), "row %zu: code", i);
		lab_check(lab, micro_message_has(b, id, rows[i].message), "row %zu: message", i);
		lab_check(lab, !micro_said(b, p, "touched"), "row %zu: it was handed zeros", i);
		micro_end(b, p, id, "aborted");
		free(id);
	}
	lab_end(lab);
}

/* Neither the array nor the descriptor come for ever. */
Test(micro_refused, what_never_comes)
{
	struct lab *lab;
	struct lab_host *b;
	struct lab_proc *p[2];
	char *id[2];

	lab_test_long();
	lab = lab_new(lab_test_failed);
	b = micro_host(lab);
	micro_memory(b, "memory", MB);
	micro_import(b, "memory", "vm");
	id[0] = micro_uffd(b, "vm", "0.sock");
	id[1] = micro_uffd(b, "vm", "1.sock");
	p[0] = micro_start(b, "vm0", "0.sock", "memory", (const char *const[]){"late=-1", NULL});
	p[1] = micro_start(b, "vm1", "1.sock", "memory", (const char *const[]){"fd=none", NULL});
	for (int i = 0; i < 2; i++) {
		lab_until(lab, 10000, micro_phase_is(b, id[i], "aborted"),
			  "%d: it is waited for still", i);
		lab_check(lab, micro_code_is(b, id[i], "no-descriptor"), "%d: code", i);
		lab_check(lab, micro_message_has(b, id[i], "no userfaultfd has come in 5 s"), "%d",
			  i);
		lab_proc_kill(lab, p[i]);
		free(id[i]);
	}
	lab_end(lab);
}

Test(micro_refused, refusals_by_name)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = micro_host(lab);
	char path[LAB_PATH_MAX + 64], file[LAB_PATH_MAX + 64];

	micro_memory(b, "memory", MB);
	micro_import(b, "memory", "vm");
	snprintf(path, sizeof(path), "%s", lab_host_path(b, "memory"));
	snprintf(file, sizeof(file), "%s", lab_host_path(b, "odd"));
	micro_refused(b, 3, "there is an image named vm already",
		      (const char *const[]){"import", "--memory", path, "--name", "vm", NULL});
	micro_refused(b, 3, "is no name of an image",
		      (const char *const[]){"import", "--memory", path, "--name", "../vm", NULL});
	micro_refused(b, 3, "No such file",
		      (const char *const[]){"import", "--memory", file, "--name", "odd", NULL});
	lab_write_file(lab, file, "five.");
	micro_refused(b, 3, "has 5 bytes; memory is a multiple of 4096",
		      (const char *const[]){"import", "--memory", file, "--name", "odd", NULL});
	lab_write_file(lab, file, "");
	micro_refused(b, 3, "has 0 bytes",
		      (const char *const[]){"import", "--memory", file, "--name", "odd", NULL});
	micro_refused(
		b, 3, "is no regular file",
		(const char *const[]){"import", "--memory", "/dev/zero", "--name", "odd", NULL});
	micro_refused(b, 2, "--memory FILE and --name N", (const char *const[]){"import", NULL});
	micro_refused(b, 3, "use decant-dest uffd", (const char *const[]){"restore", "vm", NULL});
	micro_refused(b, 3, "no image is named none",
		      (const char *const[]){"uffd", "none", "--socket", "/tmp/x", NULL});
	micro_refused(b, 3, "is not a socket",
		      (const char *const[]){"uffd", "vm", "--socket", path, NULL});
	micro_refused(b, 2, "--socket PATH", (const char *const[]){"uffd", "vm", NULL});
	micro_refused(
		b, 2, "UID:GID",
		(const char *const[]){"uffd", "vm", "--socket", "/tmp/x", "--owner", "me", NULL});
	lab_end(lab);
}

/* A stale socket is replaced, one that is listened on is not; nobody comes before the agent ends. */
Test(micro_refused, sockets)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *b = micro_host(lab);
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct stat st;
	char *id;

	micro_memory(b, "memory", MB);
	micro_import(b, "memory", "vm");
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%.100s", lab_host_path(b, "vm.sock"));
	lab_check(lab, !bind(s, (struct sockaddr *)&sa, sizeof(sa)) && !listen(s, 1), "%m");
	micro_refused(b, 3, "another process listens there",
		      (const char *const[]){"uffd", "vm", "--socket", sa.sun_path, NULL});
	close(s);
	id = micro_uffd(b, "vm", "vm.sock");
	lab_check(lab, !stat(sa.sun_path, &st) && (st.st_mode & 0777) == 0600, "mode %o",
		  st.st_mode);
	free(id);
	if (!geteuid()) {
		lab_check(lab,
			  !micro_command(b, NULL, NULL,
					 (const char *const[]){"uffd", "vm", "--socket",
							       lab_host_path(b, "jail.sock"),
							       "--owner", "12345:12346", NULL}),
			  "--owner");
		lab_check(lab,
			  !stat(lab_host_path(b, "jail.sock"), &st) && st.st_uid == 12345 &&
				  st.st_gid == 12346,
			  "owner");
	}
	lab_host_stop(b);
	lab_check(lab, access(sa.sun_path, F_OK), "the socket stays");
	lab_end(lab);
}
