/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire between two hosts in namespaces of their own, which fails as wires do: packets vanish (nft), in one
 * direction or both, or are answered by resets; the wire becomes slow (tbf). What stands at the ends is the
 * kernel's own TCP, so that time limits and keep-alives are the real ones.
 */
#ifndef DECANT_TESTS_LAB_LINK_H
#define DECANT_TESTS_LAB_LINK_H

#include "lib/lab.h"

/**
 * struct lab_link - a wire from host 0 (the source) to host 1
 * @address:	of either host
 */
struct lab_link {
	struct lab *lab;
	struct lab_ns ns[2];
	const char *address[2];
};

/** lab_link_new() - two namespaces and the wire. Return: false if this machine cannot (no root, a container, no nft) */
bool lab_link_new(struct lab *lab, struct lab_link *ret);
/** lab_link_drop() - from now on what host @from sends vanishes without a word */
void lab_link_drop(struct lab_link *l, int from);
/** lab_link_drop_one() - only that of the connection on which host 0 has sent most; and nothing comes back on it */
void lab_link_drop_one(struct lab_link *l);
/** lab_link_reset() - whoever sends gets a reset, as from a host that was started anew */
void lab_link_reset(struct lab_link *l);
/** lab_link_heal() - all as it was, but for the speed */
void lab_link_heal(struct lab_link *l);
/** lab_link_slow() - host @from sends at most so many kbit/s from now on; 0 lifts it */
void lab_link_slow(struct lab_link *l, int from, unsigned int kbit);

#endif
