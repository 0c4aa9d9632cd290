/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/lib/lib.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define UFFD_FLAGS          (O_CLOEXEC | O_NONBLOCK)
#define UFFD_USER_MODE_FLAG 1
#define UFFD_DEVICE         "/dev/userfaultfd"
#define UFFD_DEVICE_NEW     0xaa00 /* USERFAULTFD_IOC_NEW, kernel 6.1 */

static int by_syscall(int flags)
{
	int fd = (int)syscall(SYS_userfaultfd, UFFD_FLAGS | flags);

	return fd < 0 ? -errno : fd;
}

static int by_device(void)
{
	int dev = open(UFFD_DEVICE, O_RDWR | O_CLOEXEC), fd;

	if (dev < 0)
		return -errno;
	fd = ioctl(dev, UFFD_DEVICE_NEW, UFFD_FLAGS);
	if (fd < 0)
		fd = -errno;
	close(dev);
	return fd;
}

int lib_open_uffd(bool user_mode, uint64_t *ret_how)
{
	int first, fd;

	*ret_how = 1;
	fd = first = by_syscall(0);
	if (fd != -EPERM)
		return fd;
	*ret_how = 2;
	fd = by_device();
	if (fd >= 0 || !user_mode)
		return fd >= 0 ? fd : first;
	*ret_how = 3;
	return by_syscall(UFFD_USER_MODE_FLAG);
}
