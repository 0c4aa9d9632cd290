/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A native guest, played by the target: it attaches, and answers what it is asked as the library for guests does.
 * Its memory is this process's own (fuzz_fd.h). For the targets that run a whole agent.
 */
#ifndef DECANT_TESTS_FUZZ_VM_H
#define DECANT_TESTS_FUZZ_VM_H

#include <stdint.h>
#include "fuzz/lib/fuzz_fd.h"
#include "guest/gwire.h"

/**
 * struct fuzz_vm - the guest
 * @sock:	to the agent; -1 without
 * @memory:	fuzz_memory(), borrowed
 * @uffd, @tag:	that it keeps; -1
 * @state_fd:	what it is loaded from, until LOAD_END; -1
 * @load:	id of that LOAD
 */
struct fuzz_vm {
	int sock;
	int memory;
	int uffd;
	uint32_t tag;
	int state_fd;
	uint32_t load;
};

/** FUZZ_VM_NONE - one that has not attached */
#define FUZZ_VM_NONE ((struct fuzz_vm){.sock = -1, .memory = -1, .uffd = -1, .state_fd = -1})

/** FUZZ_VM_SAYS - messages with which it comes */
#define FUZZ_VM_SAYS 3

/** fuzz_vm_hello() - those of guest "vm" with the one block "ram". Return: the first of them, HELLO */
static inline struct gwire_hello *fuzz_vm_hello(struct gwire_msg ret[FUZZ_VM_SAYS])
{
	ret[0] = (struct gwire_msg){
		.type = GWIRE_HELLO,
		.u.hello = {.version = 1, .name = "vm", .uuid = {1, 2, 3}, .blocks = 1}};
	ret[1] = (struct gwire_msg){.type = GWIRE_BLOCK,
				    .nfds = 1,
				    .u.block = {.length = FUZZ_MEMORY_LEN,
						.flags = GWIRE_BLOCK_NO_DMA,
						.page_size = 4096,
						.address = FUZZ_MEMORY,
						.name = "ram"}};
	ret[2] = (struct gwire_msg){.type = GWIRE_HELLO_END};
	return &ret[0].u.hello;
}

/**
 * fuzz_vm_attach() - come as guest "vm" with the one block "ram"
 * @dir:	where the agent listens, at "attach"
 * @memory:	of its block
 * @token:	of the launch; NULL: it runs already
 */
void fuzz_vm_attach(struct fuzz_vm *g, const char *dir, int memory, const uint8_t *token);
/**
 * fuzz_vm_return() - come back to an agent that was started again, as the guest that runs here since it arrived
 * @uffd:	that it has kept under @tag; taken over; -1 without
 */
void fuzz_vm_return(struct fuzz_vm *g, const char *dir, int memory, int uffd, uint32_t tag);
/** fuzz_vm_serve() - answer all that has come */
void fuzz_vm_serve(struct fuzz_vm *g);
/** fuzz_vm_end() - its process ends; one that is not there is fine */
void fuzz_vm_end(struct fuzz_vm *g);

#endif
