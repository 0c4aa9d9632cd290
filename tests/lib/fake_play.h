/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions of a fake source as tests play them: to one destination, up to a moment, to the end.
 */
#ifndef DECANT_TESTS_FAKE_PLAY_H
#define DECANT_TESTS_FAKE_PLAY_H

#include "lib/fake_source.h"

/** enum fake_moment - how far a session is */
enum fake_moment {
	FAKE_HELLO,
	FAKE_ATTACHING,
	FAKE_PREPARED,
	FAKE_INTENT,
	FAKE_SWITCHED,
	FAKE_LISTENING,
	FAKE_READY,
	FAKE_RUNNING
};

/** fake_moment_name() - Return: for messages */
const char *fake_moment_name(enum fake_moment when);
/** fake_host() - a lab of its own with a decant-dest, without a source; lab_end() or fake_end() ends it */
struct lab_host *fake_host(void (*failed)(const char *msg));
/** fake_play() - a guest with post-copy, of which some pages came before the switch, up to @until */
void fake_play(struct fake_source *f, enum fake_moment until);
/** fake_early() - a guest that runs here; of its pages only the first @early came, after the switch */
struct fake_source *fake_early(struct lab_host *to, bool urgent, unsigned int early);
/** fake_completed() - COMPLETE: the receipt, what is said of it afterwards, what the guest has seen */
void fake_completed(struct fake_source *f);
/** fake_end() - the guest is at home: it ends with the lab */
void fake_end(struct fake_source *f);

#endif
