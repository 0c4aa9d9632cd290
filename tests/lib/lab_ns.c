/* SPDX-License-Identifier: Apache-2.0 */
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab.h"

/* PID 1 of the namespaces: has its own /proc and /dev/shm, reaps what is left to it. unshare(1) forks
 * it and dies with the test; so does it. */
static const char ns_init[] =
	"mount -t proc proc /proc && mount -t tmpfs shm /dev/shm && ip link set lo up && "
	"echo ready && { sleep infinity & wait; }";

static bool ns_ready(struct lab *lab, struct lab_proc *p)
{
	char *out = lab_proc_text(lab, p, "out");
	bool ready = out && strstr(out, "ready");

	free(out);
	return ready;
}

pid_t lab_only_child(pid_t pid)
{
	char path[64], *text;
	pid_t child;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	text = lab_read_file(path);
	child = text ? atoi(text) : 0;
	free(text);
	return child;
}

/* Return: false if this machine does not let us (a container without the right to it) */
static bool ns_new(struct lab *lab, const char *name, struct lab_ns *ret)
{
	const char *const argv[] = {"/usr/bin/unshare",  "--net",   "--mount", "--pid", "--fork",
				    "--kill-child=KILL", "/bin/sh", "-c",      ns_init, NULL};
	struct lab_proc *p = lab_spawn(lab, NULL, name, argv);

	lab_until(lab, 10000, ns_ready(lab, p) || !lab_proc_alive(p), "namespaces of %s", name);
	if (!lab_proc_alive(p))
		return false;
	ret->init = lab_only_child(p->pid);
	lab_check(lab, ret->init > 0, "unshare has no child");
	return true;
}

static void ip(struct lab *lab, const struct lab_ns *ns, const char *line)
{
	const char *const argv[] = {"/bin/sh", "-c", line, NULL};
	char *err = NULL;

	lab_check(lab, lab_run(lab, ns, 10000, NULL, &err, argv) == 0, "%s: %s", line, err);
	free(err);
}

bool lab_ns_pair(struct lab *lab, struct lab_ns *ret0, struct lab_ns *ret1)
{
	char line[256];

	if (!ns_new(lab, "ns0", ret0) || !ns_new(lab, "ns1", ret1))
		return false;
	snprintf(line, sizeof(line),
		 "ip link add name net0 netns %d type veth peer name net0 netns %d", ret0->init,
		 ret1->init);
	ip(lab, NULL, line);
	ip(lab, ret0, "ip addr add 10.77.0.1/24 dev net0 && ip link set net0 up");
	ip(lab, ret1, "ip addr add 10.77.0.2/24 dev net0 && ip link set net0 up");
	return true;
}

uint64_t lab_ns_sent(struct lab *lab, const struct lab_ns *ns)
{
	char path[64], *text, *at;
	uint64_t sent = 0;

	snprintf(path, sizeof(path), "/proc/%d/net/dev", ns->init);
	text = lab_read_file(path);
	at = text ? strstr(text, "net0:") : NULL;
	lab_check(lab, at, "no net0 in %s", path);
	/* Eight fields of what was received come first. */
	lab_check(lab, sscanf(at, "net0: %*u %*u %*u %*u %*u %*u %*u %*u %lu", &sent) == 1,
		  "net0: %s", at);
	free(text);
	return sent;
}
