/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of QEMU virtual machines: an unmodified QEMU, reached from outside. It is asked over a
 * QMP monitor of decant's own; its memory is the files behind its RAM; a userfaultfd is made inside
 * it by injection (inject.h). Nothing of QEMU's is needed but what it has anyway.
 *
 * What a library keeps for a native guest is noted in QEMU itself, where it lives exactly as long as
 * the guest: an object "decant-hold" while the guest stands because of guest_pause(), and an object
 * "decant-uffd" while it keeps a userfaultfd. Both are gone when decant has let go of it.
 */
#ifndef DECANT_GUEST_QEMU_QEMU_H
#define DECANT_GUEST_QEMU_QEMU_H

#include <stdint.h>

#include "guest/driver.h"
#include "util/error.h"
#include "util/loop.h"

/**
 * struct qemu_spec - which QEMU; copied
 * @name:	of the guest
 * @path:	Unix socket of the monitor, absolute
 * @uuid:	of the guest; NULL: what QEMU was started with (-uuid), else one made of what its process
 *		is, which is the same as long as that lives
 * @generation:	of the guest
 * @no_dma:	devices, block nodes or files that the operator answers for: they write into no memory unseen;
 *		separated by spaces or commas; NULL without
 * @anonymous:	QEMU_EXPERIMENTAL: memory that is private to its process is accepted; NULL: it is refused
 */
struct qemu_spec {
	const char *name;
	const char *path;
	const uint8_t *uuid;
	uint64_t generation;
	const char *no_dma;
	const char *anonymous;
};

/** QEMU_VAR_NO_DMA - the launcher variable, which travels with a guest, that is @no_dma */
#define QEMU_VAR_NO_DMA "no_dma"
/** QEMU_VAR_ANONYMOUS - the variable that is @anonymous, and its only value */
#define QEMU_VAR_ANONYMOUS "anonymous_memory"
#define QEMU_EXPERIMENTAL  "experimental"

struct qemu_attach;

/**
 * qemu_attached_fn - it was found, or not; qemu_attach_free() is still to be called, here or later
 * @g:		complete and checked, the callee's, who calls guest_watch() here and guest_free() in the
 *		end; NULL if it failed. It may be one that cannot be moved: guest.cannot says why
 * @err:	why it failed: no-monitor, monitor-busy, not-qemu …
 */
typedef void qemu_attached_fn(void *arg, struct guest *g, const struct error *err);

/**
 * qemu_attach() - connect to a QEMU and find out all about it
 *
 * Takes milliseconds with a QEMU that answers, else ends by itself in time. Nothing in it is changed, but
 * for a note of an earlier agent's that is not true any more.
 *
 * Return: 0, then @fn is called once unless it is freed before; -errno with @err filled
 */
int qemu_attach(struct loop *loop, const struct qemu_spec *spec, qemu_attached_fn *fn, void *arg,
		struct qemu_attach **ret, struct error *err);
/** qemu_attach_free() - give up, if it is not done. NULL is fine */
void qemu_attach_free(struct qemu_attach *a);

#endif
