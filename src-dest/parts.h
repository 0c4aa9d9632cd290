/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of the agent that have a word in an incoming migration (P4). Each may object before anything
 * is started, and when listening begins; all are told of the end, to which nobody can object any more.
 *
 * Of the rules in DESIGN.md this could break 4 and 5 if a part were passed over: a guest that lives here
 * already would be started again, or run while its memory, or a sharer's, is not guarded yet. So there is
 * one table, whose order is the order of the calls, and the first objection ends them.
 */
#ifndef DECANT_PARTS_H
#define DECANT_PARTS_H

#include "util/error.h"

struct incoming;

/**
 * struct part - one; members that are NULL are passed over. All are called on the loop
 * @name:	for the log
 * @advise:	may the guest come? Nothing has been started. Return: 0, or -errno with @err filled
 * @listen:	discards are done, the guest has not been given its state: from the return of the last
 *		part on it may touch memory. Return: as @advise
 * @end:	data threads are stopped; memory, states and descriptors go next. Told once to every part,
 *		however far the incoming came
 */
struct part {
	const char *name;
	int (*advise)(struct incoming *inc, struct error *err);
	int (*listen)(struct incoming *inc, struct error *err);
	void (*end)(struct incoming *inc);
};

/** parts_advise() - Return: 0, or what the first part that objected said */
int parts_advise(struct incoming *inc, struct error *err);
/** parts_listen() - Return: as parts_advise() */
int parts_listen(struct incoming *inc, struct error *err);
/** parts_end() - tell all, the last first */
void parts_end(struct incoming *inc);

#endif
