/* SPDX-License-Identifier: Apache-2.0 */
/* eth0 without tools, and a server that counts: a client sees by its answers that it is the same VM. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vm.h"

#define PORT 7

struct client {
	struct vm *vm;
	int fd;
};

/* Lines as they come, each with the counter behind it. */
static void talk(struct client *c)
{
	char in[256], out[320];
	size_t n = 0;
	ssize_t got;

	while ((got = read(c->fd, in + n, 1)) == 1) {
		int len;

		if (in[n] != '\n' && n < sizeof(in) - 1) {
			n++;
			continue;
		}
		in[n] = 0;
		n = 0;
		len = snprintf(out, sizeof(out), "%s %lu\n", in,
			       atomic_fetch_add(&c->vm->net_counter, 1) + 1);
		if (send(c->fd, out, (size_t)len, MSG_NOSIGNAL) != len)
			return;
	}
}

static void *client_main(void *arg)
{
	struct client *c = arg;

	talk(c);
	close(c->fd);
	free(c);
	return NULL;
}

static bool client_start(struct vm *vm, int fd)
{
	struct client *c = malloc(sizeof(*c));
	pthread_t thread;

	if (!c)
		return false;
	*c = (struct client){.vm = vm, .fd = fd};
	if (pthread_create(&thread, NULL, client_main, c)) {
		free(c);
		return false;
	}
	pthread_detach(thread);
	return true;
}

static void *server_main(void *arg)
{
	struct vm *vm = arg;

	for (;;) {
		int one = 1, fd = accept4(vm->listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0) {
			vm_nap(10000);
			continue;
		}
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (!client_start(vm, fd))
			close(fd);
	}
	return NULL;
}

static bool address(int fd, const char *addr)
{
	struct ifreq ifr = {.ifr_name = "eth0"};
	struct sockaddr_in sin = {.sin_family = AF_INET};

	if (inet_pton(AF_INET, addr, &sin.sin_addr) != 1) {
		errno = EINVAL;
		return false;
	}
	memcpy(&ifr.ifr_addr, &sin, sizeof(sin));
	if (ioctl(fd, SIOCSIFADDR, &ifr) < 0)
		return false;
	sin.sin_addr.s_addr = htonl(0xffffff00);
	memcpy(&ifr.ifr_netmask, &sin, sizeof(sin));
	if (ioctl(fd, SIOCSIFNETMASK, &ifr) < 0)
		return false;
	ifr.ifr_flags = IFF_UP | IFF_RUNNING;
	return ioctl(fd, SIOCSIFFLAGS, &ifr) == 0;
}

static bool serve(struct vm *vm)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(PORT)};

	vm->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return vm->listener >= 0 && bind(vm->listener, (struct sockaddr *)&sin, sizeof(sin)) == 0 &&
	       listen(vm->listener, 8) == 0 &&
	       pthread_create(&vm->server, NULL, server_main, vm) == 0;
}

void vm_net(struct vm *vm, const char *tag, const char *args)
{
	int fd;

	if (strncmp(args, "up ", 3) != 0 || vm->listener >= 0) {
		vm_say(vm, "%s error: net up ADDRESS, once", tag);
		return;
	}
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && address(fd, args + 3) && serve(vm))
		vm_say(vm, "%s ok", tag);
	else
		vm_say(vm, "%s error: %s", tag, strerror(errno));
	if (fd >= 0)
		close(fd);
}
