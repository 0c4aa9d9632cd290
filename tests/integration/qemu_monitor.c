/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor of a VM that is in post-copy is lost: the VM goes on, and decant comes back to it. */
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/lab_test.h"
#include "lib/lab_trip.h"

TestSuite(qemu_monitor, .timeout = 150);

#define FDS 512

static bool is_monitor(int fd)
{
	struct sockaddr_un sa = {0};
	socklen_t len = sizeof(sa) - 1, n = sizeof(int);
	int listens = 0;
	size_t end;

	if (getsockname(fd, (struct sockaddr *)&sa, &len) || sa.sun_family != AF_UNIX ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) || listens)
		return false;
	end = strlen(sa.sun_path);
	return end > 4 && !strcmp(sa.sun_path + end - 4, ".qmp");
}

/* Cut the agent's connection, as a descriptor of the socket that both have can. Return: how many there were */
static unsigned int cut(const struct lab_vm *vm)
{
	unsigned int n = 0;

	for (int i = 0; i < FDS; i++) {
		int fd = (int)syscall(SYS_pidfd_getfd, vm->pidfd, i, 0);

		if (fd < 0)
			continue;
		n += is_monitor(fd) && !shutdown(fd, SHUT_RDWR);
		close(fd);
	}
	return n;
}

Test(qemu_monitor, lost_in_postcopy_and_found_again)
{
	const struct lab_move slow = {.mode = "postcopy", .args = {"--bandwidth", "60Mbit"}};
	struct lab_vm_state before;
	struct lab_host *to;
	struct lab_proc *p;
	struct lab_trip t;

	lab_test_long();
	lab_trip_begin(&t, lab_vm_lab(), &(struct lab_vm_opts){.mb = 144, .rate = 200});
	before = lab_vm_check(lab_trip_vm(&t));
	to = lab_trip_to(&t);
	p = lab_migrate_begin(lab_trip_from(&t), to, &t.g, &slow);
	lab_until(t.lab, 20000, lab_job_phase_is(lab_trip_from(&t), "postcopy"), "no post-copy");
	lab_vm_attach(t.at[++t.n], 0);
	lab_check(t.lab, cut(lab_trip_vm(&t)) == 1, "it has no monitor to lose");
	lab_until(t.lab, 10000, lab_proc_said(t.lab, to->dest, "has attached again"),
		  "nobody comes back to it");
	json_decref(lab_migrate_end(t.hosts[0], p, &slow));
	lab_vm_goes_on(lab_trip_vm(&t), &before);
	lab_host_knows(to, t.g.name);
	lab_trip_end(&t);
}
