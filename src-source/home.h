/* SPDX-License-Identifier: Apache-2.0 */
/* What the decant-dest of this very host says: does it see the cordon, and which guests has it that we have not? */
#ifndef DECANT_HOME_H
#define DECANT_HOME_H

#include "rest/rest_client.h"
#include "source.h"

/** enum home_state - what became of the question */
enum home_state {
	HOME_NONE,   /* there is none: dest_api is null */
	HOME_AWAY,   /* nobody answers there */
	HOME_UNSEEN, /* it answers, and says that it is not cordoned */
	HOME_CORDONED,
};

/**
 * struct home - its answer
 * @why:	for HOME_AWAY and HOME_UNSEEN
 * @arriving:	guests that come in now
 * @held:	that run here and wait for a source that is away
 * @resident:	that have arrived, and have not been sent to us yet
 * @micro:	micro-VMs that are served out of images: nobody can move them
 */
struct home {
	enum home_state state;
	struct error why;
	unsigned int arriving;
	unsigned int held;
	unsigned int resident;
	unsigned int micro;
};

/** home_state_name() - Return: "none", "unreachable", "not-seen", "cordoned" */
const char *home_state_name(enum home_state s);

/** home_fn - the answer */
typedef void home_fn(void *arg, const struct home *h);

struct home_ask;

/**
 * home_ask() - ask
 * @fn:		called once unless cancelled, never before this returns
 *
 * Bounded by 2 s. Return: for home_cancel(), NULL when out of memory
 */
struct home_ask *home_ask(struct source *s, home_fn *fn, void *arg);
/** home_cancel() - @fn is not called; NULL is fine */
void home_cancel(struct home_ask *a);

#endif
