/* SPDX-License-Identifier: Apache-2.0 */
/* Is what a guest says about its blocks true and possible? Part of attach.c. */
#ifndef DECANT_GUEST_ATTACH_CHECK_H
#define DECANT_GUEST_ATTACH_CHECK_H

#include "guest/driver.h"

/**
 * attach_check_block() - everything that one BLOCK can say wrong by itself or against those before it
 * @g:		with the blocks that came before
 * @b:		the new one, with its descriptor
 *
 * Return: 0, or -EINVAL with @err filled, naming the block
 */
int attach_check_block(const struct guest *g, const struct guest_block *b, struct error *err);
/**
 * attach_check_maps() - are all blocks mapped in the guest's process as it says?
 *
 * Return: 0; -EINVAL with @err filled; or another -errno if /proc/PID/maps cannot be read
 */
int attach_check_maps(const struct guest *g, struct error *err);
/**
 * attach_check_share() - is this part of a shared block mapped in another process as it says?
 * @fd:		of the block's file
 *
 * Return: 0; -EINVAL with @err filled; or another -errno if /proc/PID/maps cannot be read
 */
int attach_check_share(pid_t pid, const struct gwire_share *r, int fd, struct error *err);
/**
 * attach_same_memory() - do two processes map the same file at these places?
 * @r:		as @pid has it mapped
 * @other:	maps that file anywhere
 *
 * Return: whether they do; false also if it cannot be found out
 */
bool attach_same_memory(pid_t pid, const struct gwire_share *r, pid_t other);
/** attach_check_uffd() - whatever descriptor a process sends is only used as what it claims to be.
 * Return: 0, or -EPROTO for what is no userfaultfd */
int attach_check_uffd(int fd);

#endif
