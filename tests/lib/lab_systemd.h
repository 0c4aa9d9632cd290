/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two hosts that a real systemd runs, each in namespaces of its own and joined by a wire: decant is
 * installed there by `make install`, and its units are started as on any host. A drop-in lets the agents
 * write into the lab's folders, so that the rest of the lab can be used with them.
 */
#ifndef DECANT_TESTS_LAB_SYSTEMD_H
#define DECANT_TESTS_LAB_SYSTEMD_H

#include "lib/lab.h"

/**
 * struct lab_systemd - one of them
 * @ns:		for lab_spawn() and lab_run(); its init is systemd
 * @host:	its agents are units: @source and @dest stay NULL
 * @dir:	below the lab's; a mount point and what is installed
 */
struct lab_systemd {
	struct lab *lab;
	struct lab_ns ns;
	struct lab_host *host;
	char dir[LAB_PATH_MAX];
};

/** lab_systemd_pair() - boot hosts a and b. Return: NULL, or why that cannot be done here */
const char *lab_systemd_pair(struct lab *lab, struct lab_systemd ret[2]);
/** lab_systemctl() - run it there; @args are separated by blanks. Return: what it printed, for free(3); it must
 * end with 0 */
char *lab_systemctl(struct lab_systemd *sd, const char *args);
/** lab_systemctl_is() - Return: whether `systemctl show -P PROPERTY UNIT` begins with @value */
bool lab_systemctl_is(struct lab_systemd *sd, const char *unit, const char *property,
		      const char *value);
/** lab_systemctl_pid() - Return: main process of a unit, as seen from here; 0 if it has none */
pid_t lab_systemctl_pid(struct lab_systemd *sd, const char *unit);

#endif
