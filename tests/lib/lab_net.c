/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "lib/lab_net.h"

#define VM_PORT    7
#define CONNECT_MS 10000

/* The address moves from the wire to the bridge, of which the wire becomes a port. Frames pass at once:
 * no spanning tree, no delay. */
static const char bridge_lines[] =
	"set -e; a=$(ip -o -4 addr show dev net0 | sed 's/.* inet \\([^ ]*\\).*/\\1/'); "
	"ip link add br0 type bridge stp_state 0 forward_delay 0; ip tuntap add dev vm0 mode tap; "
	"ip addr flush dev net0; ip link set net0 master br0; ip link set vm0 master br0; "
	"ip link set vm0 up; ip link set br0 up; ip addr add \"$a\" dev br0";

bool lab_net_bridges(struct lab *lab, const struct lab_ns ns[2])
{
	const char *const argv[] = {"/bin/sh", "-c", bridge_lines, NULL};

	for (int i = 0; i < 2; i++) {
		char *err = NULL;
		int status = lab_run(lab, &ns[i], 10000, NULL, &err, argv);

		if (status)
			fprintf(stderr, "bridge and tap: %s\n", err);
		free(err);
		if (status)
			return false;
	}
	return true;
}

/* --- sockets of another namespace --- */

static int net_of(struct lab *lab, pid_t pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	lab_check(lab, fd >= 0, "%s: %m", path);
	return fd;
}

/* A socket belongs to the namespace where it was made: go there for a moment, this thread only. */
static int socket_in(struct lab *lab, const struct lab_ns *ns, int domain, int type, int protocol)
{
	int here = net_of(lab, getpid()), there = net_of(lab, ns->init), fd, index = 0;

	lab_check(lab, setns(there, CLONE_NEWNET) == 0, "setns: %m");
	fd = socket(domain, type | SOCK_CLOEXEC, protocol);
	if (fd >= 0 && domain == AF_PACKET) {
		struct sockaddr_ll sll = {.sll_family = AF_PACKET,
					  .sll_protocol = htons(ETH_P_ALL)};

		index = (int)if_nametoindex("br0");
		sll.sll_ifindex = index;
		if (!index || bind(fd, (struct sockaddr *)&sll, sizeof(sll))) {
			close(fd);
			fd = -1;
		}
	}
	lab_check(lab, setns(here, CLONE_NEWNET) == 0, "setns back: %m");
	close(here);
	close(there);
	lab_check(lab, fd >= 0, "socket: %m");
	return fd;
}

/* --- client --- */

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

struct lab_net_client *lab_net_client(struct lab *lab, const struct lab_ns *ns, const char *address)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(VM_PORT)};
	struct lab_net_client *c = calloc(1, sizeof(*c));
	struct timeval tv = {.tv_sec = CONNECT_MS / 1000};
	int one = 1;

	c->lab = lab;
	c->fd = socket_in(lab, ns, AF_INET, SOCK_STREAM, 0);
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	/* Bounds connect(2), too. */
	setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	lab_check(lab, inet_pton(AF_INET, address, &sin.sin_addr) == 1, "address %s", address);
	lab_check(lab, connect(c->fd, (struct sockaddr *)&sin, sizeof(sin)) == 0,
		  "connect to the VM at %s: %m", address);
	return c;
}

void lab_net_asks(struct lab_net_client *c)
{
	char line[32];
	int len = snprintf(line, sizeof(line), "%lu\n", ++c->asked);

	lab_check(c->lab, send(c->fd, line, (size_t)len, MSG_NOSIGNAL) == len,
		  "the connection to the VM: %m");
}

/* One line "NUMBER COUNTER". */
static void judge(struct lab_net_client *c, uint64_t number)
{
	uint64_t n = 0, counter = 0;

	lab_check(c->lab, sscanf(c->text, "%lu %lu", &n, &counter) == 2, "the VM says: %s",
		  c->text);
	lab_check(c->lab, n == number, "line %lu was answered as %lu", number, n);
	lab_check(c->lab, !c->counter || counter == c->counter + 1,
		  "the VM's counter went from %lu to %lu", c->counter, counter);
	c->counter = counter;
}

static void next_answer(struct lab_net_client *c, uint64_t end, uint64_t number)
{
	struct pollfd pfd = {.fd = c->fd, .events = POLLIN};

	for (;;) {
		uint64_t now = lab_now_ms();
		char byte;

		lab_check(c->lab, now < end, "line %lu was not answered in time", number);
		if (poll(&pfd, 1, (int)(end - now)) <= 0)
			continue;
		lab_check(c->lab, recv(c->fd, &byte, 1, 0) == 1, "the connection broke: %m");
		if (byte == '\n')
			break;
		lab_check(c->lab, c->n < sizeof(c->text) - 1, "the VM says too much");
		c->text[c->n++] = byte;
	}
	c->text[c->n] = 0;
	c->n = 0;
	judge(c, number);
}

void lab_net_answers(struct lab_net_client *c, unsigned int ms)
{
	uint64_t start = now_us(), end = lab_now_ms() + (uint64_t)ms * c->lab->slow;

	while (c->answered < c->asked)
		next_answer(c, end, ++c->answered);
	c->answer_us = now_us() - start;
	if (c->answer_us > c->longest_us)
		c->longest_us = c->answer_us;
}

void lab_net_client_end(struct lab_net_client *c)
{
	close(c->fd);
	free(c);
}

/* --- announcements --- */

/* All that the hosts send each other passes by, too, and would leave no room. */
static void hear_announcements_only(struct lab_net_ear *e)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12), /* Ethernet's type */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_ARP, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_REVARP, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT16_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};

	lab_check(e->lab, !setsockopt(e->fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)),
		  "SO_ATTACH_FILTER: %m");
}

struct lab_net_ear *lab_net_listen(struct lab *lab, const struct lab_ns *ns, const char *mac)
{
	struct lab_net_ear *e = calloc(1, sizeof(*e));

	e->lab = lab;
	lab_check(lab,
		  sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &e->mac[0], &e->mac[1], &e->mac[2],
			 &e->mac[3], &e->mac[4], &e->mac[5]) == 6,
		  "MAC %s", mac);
	e->fd = socket_in(lab, ns, AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
	hear_announcements_only(e);
	return e;
}

/* Ethernet: 6 to, 6 from, 2 type; then ARP and RARP alike: 8 of kinds, 6 MAC, 4 address, 6 MAC, 4 address. */
static void hear(struct lab_net_ear *e, const uint8_t *frame, size_t n)
{
	uint16_t type;

	if (n < 42 || memcmp(frame + 6, e->mac, 6) != 0)
		return;
	type = (uint16_t)(frame[12] << 8 | frame[13]);
	if (type == ETHERTYPE_REVARP)
		e->rarps++;
	else if (type == ETHERTYPE_ARP && memcmp(frame + 28, frame + 38, 4) == 0)
		e->arps++;
}

unsigned int lab_net_heard(struct lab_net_ear *e)
{
	uint8_t frame[2048];
	ssize_t n;

	while ((n = recv(e->fd, frame, sizeof(frame), MSG_DONTWAIT)) > 0)
		hear(e, frame, (size_t)n);
	return e->arps + e->rarps;
}

void lab_net_announced(struct lab_net_ear *e, unsigned int ms)
{
	lab_until(e->lab, ms, lab_net_heard(e), "nobody has announced the VM's address");
}

void lab_net_ear_end(struct lab_net_ear *e)
{
	close(e->fd);
	free(e);
}
