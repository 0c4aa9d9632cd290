/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may open a userfaultfd, and what UFFD_USER_MODE_ONLY costs: a fault that is taken in the kernel
 * is not waited for but fails.
 */
#include "platform.h"

#define LEN (16 * PAGE)

static void restricted(void)
{
	uint8_t *mem = map_anon(LEN), page[PAGE] = {};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_ONLY);
	int zero = open("/dev/zero", O_RDONLY);
	struct uffd_msg m;

	if (fd < 0) {
		untried("UFFD_USER_MODE_ONLY: %s", strerror(errno));
		return;
	}
	must(uffd_features(fd, 0) == 0 &&
	     uffd_reg(fd, mem, LEN, UFFDIO_REGISTER_MODE_MISSING) == 0);
	fact(read(zero, mem, 1) < 0 && errno == EFAULT,
	     "user mode only: a system call that meets a missing page fails with EFAULT");
	fact(uffd_next(fd, &m, 50) == 0, "user mode only: and nobody is asked for the page");
	must(uffd_copy(fd, mem, page, PAGE, NULL) == 0);
	fact(read(zero, mem, 1) == 1, "user mode only: on a page that is there it works");
	close(zero);
	close(fd);
	munmap(mem, LEN);
}

/* The same without the restriction, by whichever door opens. */
static void unrestricted(const char *door, int fd)
{
	uint8_t *mem = map_anon(LEN), page[PAGE] = {};
	struct uffd_msg m;
	int status, zero = open("/dev/zero", O_RDONLY);
	pid_t agent;

	must(uffd_features(fd, 0) == 0 &&
	     uffd_reg(fd, mem, LEN, UFFDIO_REGISTER_MODE_MISSING) == 0);
	fflush(stdout);
	agent = fork();
	if (agent == 0) {
		if (uffd_next(fd, &m, 5000) != UFFD_EVENT_PAGEFAULT)
			_exit(1);
		_exit(uffd_copy(fd, mem, page, PAGE, NULL) ? 2 : 0);
	}
	fact(read(zero, mem, 1) == 1, "%s: a system call waits for the page", door);
	must(waitpid(agent, &status, 0) == agent);
	fact(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: which the agent placed", door);
	close(zero);
	close(fd);
	munmap(mem, LEN);
}

static void device(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd;

	if (dev < 0) {
		untried("/dev/userfaultfd: %s", strerror(errno));
		return;
	}
	fd = ioctl(dev, 0xaa00, O_CLOEXEC | O_NONBLOCK);
	close(dev);
	if (fact(fd >= 0,
		 "/dev/userfaultfd: who may open it gets a descriptor, no capability needed"))
		unrestricted("device", fd);
}

/* As nobody: the system call is refused, user mode only is not. */
static void unprivileged(void)
{
	FILE *f = fopen("/proc/sys/vm/unprivileged_userfaultfd", "r");
	int status, open_to_all = 0;
	pid_t pid;

	if (!f || fscanf(f, "%d", &open_to_all) != 1 || open_to_all || geteuid()) {
		untried("refusal without privilege: needs root and vm.unprivileged_userfaultfd=0");
	} else {
		fflush(stdout);
		pid = fork();
		if (pid == 0) {
			if (setgid(65534) || setuid(65534))
				_exit(9);
			_exit((syscall(SYS_userfaultfd, O_CLOEXEC) < 0 && errno == EPERM ? 1 : 0) +
			      (syscall(SYS_userfaultfd, O_CLOEXEC | USER_ONLY) >= 0 ? 2 : 0));
		}
		must(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
		fact(WEXITSTATUS(status) & 1, "without CAP_SYS_PTRACE the system call is EPERM");
		fact(WEXITSTATUS(status) & 2, "UFFD_USER_MODE_ONLY needs no privilege at all");
	}
	if (f)
		fclose(f);
}

int main(void)
{
	int fd;

	restricted();
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		untried("system call for faults of the kernel: %s", strerror(errno));
	else
		unrestricted("system call", fd);
	device();
	unprivileged();
	return facts_end();
}
