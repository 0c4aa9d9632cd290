/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What control groups leave of a host's memory, of both versions, and of a host that has the two mounted side by side:
 * read from the files of the kernel, see cgroups(7).
 *
 * Pages of files that were read count in a group until they are given back, which the kernel does before it refuses
 * anything: they are as good as free, as they are in MemAvailable. Shared memory is none of those.
 */
#ifndef DECANT_HOST_CGROUP_H
#define DECANT_HOST_CGROUP_H

#include <stdint.h>

#define CGROUP_PATH_MAX 384

/**
 * struct cgroup_room - the group that has the least to spare
 * @path:	its folder; "" while none has a limit
 * @file:	that has its limit
 * @limit, @unused: bytes
 */
struct cgroup_room {
	char path[CGROUP_PATH_MAX];
	const char *file;
	uint64_t limit;
	uint64_t unused;
};

/**
 * cgroup_memory() - look at a group and at all above it
 * @mountinfo:	/proc/PID/mountinfo: where groups are
 * @member:	/proc/PID/cgroup of a process in the group
 * @below:	a group below that one's, without a slash at its ends, which need not be there yet; NULL for that one.
 *		Then the process is PID 1, and what is meant is below the group of all of its services
 * @room:	replaced if there is less to spare than it says; { .unused = UINT64_MAX } at first
 *
 * What cannot be read has no limit: then the kernel has the last word, as it has without us.
 */
void cgroup_memory(const char *mountinfo, const char *member, const char *below,
		   struct cgroup_room *room);

#endif
