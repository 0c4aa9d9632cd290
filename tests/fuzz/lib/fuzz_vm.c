/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz/lib/fuzz_vm.h"

#include "fuzz/lib/fuzz_dir.h"
#include "fuzz/lib/fuzz_fd.h"
#include "util/cleanup.h"

static void say(struct fuzz_vm *g, struct gwire_msg *m, int fd)
{
	uint8_t buf[1024];
	ssize_t n;

	m->nfds = fd >= 0;
	n = gwire_encode(m, buf, sizeof(buf));
	if (n > 0)
		gwire_send(g->sock, buf, (size_t)n, fd);
}

static void come(struct fuzz_vm *g, const char *dir, struct gwire_msg said[FUZZ_VM_SAYS])
{
	g->sock = fuzz_connect(dir, "attach", SOCK_SEQPACKET);
	for (size_t i = 0; i < FUZZ_VM_SAYS; i++)
		say(g, &said[i], said[i].nfds ? g->memory : -1);
}

void fuzz_vm_attach(struct fuzz_vm *g, const char *dir, int memory, const uint8_t *token)
{
	struct gwire_msg said[FUZZ_VM_SAYS];
	struct gwire_hello *hello = fuzz_vm_hello(said);

	if (token) {
		hello->has_token = true;
		hello->run_state = 3;
		memcpy(hello->token, token, sizeof(hello->token));
	}
	*g = FUZZ_VM_NONE;
	g->memory = memory;
	come(g, dir, said);
}

void fuzz_vm_return(struct fuzz_vm *g, const char *dir, int memory, int uffd, uint32_t tag)
{
	struct gwire_msg said[FUZZ_VM_SAYS];
	struct gwire_hello *hello = fuzz_vm_hello(said);

	hello->generation = 1;
	if (uffd >= 0) {
		hello->flags = GWIRE_HELLO_KEPT;
		hello->kept_tag = tag;
	}
	*g = FUZZ_VM_NONE;
	g->memory = memory;
	g->uffd = uffd;
	g->tag = tag;
	come(g, dir, said);
}

/* --- what it is asked --- */

static void on_uffd(struct fuzz_vm *g, const struct gwire_msg *m)
{
	struct gwire_msg done = {.type = GWIRE_DONE, .id = m->id, .u.done.detail = 1};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	say(g, &done, fd);
	if (fd < 0)
		return;
	if (!(m->u.uffd.flags & GWIRE_UFFD_KEEP)) {
		close(fd);
		return;
	}
	if (g->uffd >= 0)
		close(g->uffd);
	g->uffd = fd;
	g->tag = m->u.uffd.tag;
}

/* All that was written to the pipe, to its end. Return: bytes */
static uint64_t read_state(struct fuzz_vm *g)
{
	uint64_t total = 0;
	char buf[4096];
	ssize_t n;

	fcntl(g->state_fd, F_SETFL, O_NONBLOCK);
	while ((n = read(g->state_fd, buf, sizeof(buf))) > 0)
		total += (uint64_t)n;
	close(steal_fd(&g->state_fd));
	return total;
}

static void on_load_end(struct fuzz_vm *g)
{
	struct gwire_msg done = {.type = GWIRE_DONE, .id = g->load};

	if (g->state_fd < 0)
		return;
	done.u.done.detail = read_state(g);
	say(g, &done, -1);
}

static void on_load(struct fuzz_vm *g, const struct gwire_msg *m, int *fd)
{
	if (g->state_fd >= 0)
		close(g->state_fd);
	g->state_fd = steal_fd(fd);
	g->load = m->id;
}

static void answer(struct fuzz_vm *g, const struct gwire_msg *m, int *fd)
{
	struct gwire_msg done = {.type = GWIRE_DONE, .id = m->id};
	int send = -1;

	switch (m->type) {
	case GWIRE_LOAD:
		on_load(g, m, fd);
		return;
	case GWIRE_LOAD_END:
		on_load_end(g);
		return;
	case GWIRE_UFFD:
		on_uffd(g, m);
		return;
	case GWIRE_UFFD_AGAIN:
		send = g->uffd;
		done.u.done.detail = g->tag;
		break;
	case GWIRE_UFFD_CLOSE:
		if (g->uffd >= 0)
			close(steal_fd(&g->uffd));
		break;
	case GWIRE_SAVE:
		done.u.done.detail = *fd >= 0 && write(*fd, "state", 5) == 5 ? 5 : 0;
		break;
	case GWIRE_PUNCH:
		fallocate(g->memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			  FUZZ_MEMORY_LEN);
		break;
	default:
		break;
	}
	if (m->id)
		say(g, &done, send);
}

void fuzz_vm_serve(struct fuzz_vm *g)
{
	static struct gwire_range ranges[GWIRE_RANGES_MAX];
	static uint8_t buf[GWIRE_PACKET_MAX];
	struct gwire_msg m;
	const char *what;
	ssize_t n;

	while (g->sock >= 0) {
		CLEANUP_CLOSE int fd = -1;

		n = gwire_recv(g->sock, buf, &fd, NULL);
		if (n <= 0)
			return;
		if (!gwire_decode(buf, (size_t)n, ranges, &m, &what))
			answer(g, &m, &fd);
	}
}

void fuzz_vm_end(struct fuzz_vm *g)
{
	if (g->sock >= 0)
		close(g->sock);
	if (g->uffd >= 0)
		close(g->uffd);
	if (g->state_fd >= 0)
		close(g->state_fd);
	*g = FUZZ_VM_NONE;
}
