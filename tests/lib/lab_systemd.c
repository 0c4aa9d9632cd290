/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/lab_systemd.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOOT_MS 60000
#define CALL_MS 60000
#define PORT    7400

static void sh(struct lab *lab, const struct lab_ns *ns, const char *line)
{
	const char *const argv[] = {"/bin/sh", "-c", line, NULL};
	char *err = NULL;
	int status = lab_run(lab, ns, CALL_MS, NULL, &err, argv);

	lab_check(lab, status == 0, "%s: %s", line, err);
	free(err);
}

/* --- what is installed --- */

static void write_drop_in(struct lab_systemd *sd, const char *unit, const char *text)
{
	char path[LAB_PATH_MAX + 160];

	snprintf(path, sizeof(path), "mkdir -p %s/image/etc/systemd/system/%s.d", sd->dir, unit);
	sh(sd->lab, NULL, path);
	snprintf(path, sizeof(path), "%s/image/etc/systemd/system/%s.d/lab.conf", sd->dir, unit);
	lab_write_file(sd->lab, path, text);
}

static void install(struct lab_systemd *sd)
{
	struct lab_host *h = sd->host;
	char line[4 * LAB_PATH_MAX + 512];

	snprintf(line, sizeof(line),
		 "env -u MAKEFLAGS -u MAKELEVEL make -s install PREFIX=/usr DESTDIR=%s/image && "
		 "mkdir -p %s/image/etc/decant && cd %s && cp source.json dest.json "
		 "%s/image/etc/decant/ && "
		 "cp source.key %s/image/etc/decant/host.key",
		 sd->dir, sd->dir, h->dir, sd->dir, sd->dir);
	sh(sd->lab, NULL, line);
	/* What they say is shown when a test fails. */
	snprintf(line, sizeof(line),
		 "[Service]\nPrivateTmp=no\nReadWritePaths=%s\nStandardError=append:%s/%%N.err\n",
		 h->dir, h->dir);
	write_drop_in(sd, "decant-source.service", line);
	write_drop_in(sd, "decant-dest.service", line);
	snprintf(line, sizeof(line),
		 "[Service]\nPrivateTmp=no\nStandardError=append:%s/"
		 "%%N.err\nEnvironment=DECANT_EVACUATE_OPTIONS=\"--api unix:%s\"\n",
		 h->dir, h->source_sock);
	write_drop_in(sd, "decant-evacuate@.service", line);
	snprintf(line, sizeof(line), "[Service]\nPrivateTmp=no\nStandardError=append:%s/%%N.err\n",
		 h->dir);
	write_drop_in(sd, "decant-evacuate-on-shutdown.service", line);
}

static void host_new(struct lab *lab, struct lab_systemd *sd, const char *name, const char *address)
{
	/* The folders of the units, and the credential. */
	static const char conf[] =
		"{\"run_dir\": \"/run/decant\", \"state_dir\": \"/var/lib/decant\", "
		"\"tls\": {\"key\": \"host.key\"}}";

	sd->lab = lab;
	snprintf(sd->dir, sizeof(sd->dir), "%.200s/systemd-%.20s", lab->root, name);
	lab_check(lab, mkdir(sd->dir, 0755) == 0, "%s: %m", sd->dir);
	sd->host = lab_host_new(lab, &(struct lab_host_opts){.name = name,
							     .ns = &sd->ns,
							     .address = address,
							     .source_conf = conf,
							     .dest_conf = conf});
	sd->host->port = PORT;
	snprintf(sd->host->to, sizeof(sd->host->to), "%s:%d", address, PORT);
	install(sd);
}

/* --- booting --- */

static bool boot(struct lab_systemd *sd)
{
	char image[LAB_PATH_MAX + 16], name[LAB_NAME_MAX], *cwd = realpath(".", NULL);
	const char *const argv[] = {"/usr/bin/unshare",
				    "--mount",
				    "--pid",
				    "--net",
				    "--ipc",
				    "--uts",
				    "--cgroup",
				    "--fork",
				    "--kill-child=KILL",
				    "tests/lib/systemd-host",
				    sd->dir,
				    image,
				    sd->lab->root,
				    cwd,
				    NULL};
	struct lab_proc *p;

	snprintf(image, sizeof(image), "%s/image", sd->dir);
	snprintf(name, sizeof(name), "systemd-%.20s", sd->host->name);
	p = lab_spawn(sd->lab, NULL, name, argv);
	lab_until(sd->lab, 10000, !lab_proc_alive(p) || (sd->ns.init = lab_only_child(p->pid)) > 0,
		  "systemd of host %s", sd->host->name);
	free(cwd);
	return lab_proc_alive(p);
}

static bool is_running(struct lab_systemd *sd)
{
	const char *const argv[] = {"/bin/systemctl", "is-system-running", NULL};
	char *out = NULL;
	bool up;

	lab_run(sd->lab, &sd->ns, CALL_MS, &out, NULL, argv);
	up = out && (!strncmp(out, "running", 7) || !strncmp(out, "degraded", 8));
	free(out);
	return up;
}

const char *lab_systemd_pair(struct lab *lab, struct lab_systemd ret[2])
{
	char line[256];

	if (geteuid() != 0)
		return "not root";
	if (access("/lib/systemd/systemd", X_OK))
		return "no systemd is installed (package systemd)";
	host_new(lab, &ret[0], "a", "10.77.0.1");
	host_new(lab, &ret[1], "b", "10.77.0.2");
	if (!boot(&ret[0]) || !boot(&ret[1]))
		return "namespaces or an overlay cannot be made here";
	for (int i = 0; i < 2; i++)
		lab_until(lab, BOOT_MS, usleep(250000) || is_running(&ret[i]),
			  "host %s does not come up", ret[i].host->name);
	snprintf(line, sizeof(line),
		 "ip link add name net0 netns %d type veth peer name net0 netns %d", ret[0].ns.init,
		 ret[1].ns.init);
	sh(lab, NULL, line);
	for (int i = 0; i < 2; i++) {
		snprintf(line, sizeof(line),
			 "ip link set lo up && ip addr add %s/24 dev net0 && ip link set net0 up",
			 ret[i].host->address);
		sh(lab, &ret[i].ns, line);
	}
	return NULL;
}

/* --- systemctl --- */

char *lab_systemctl(struct lab_systemd *sd, const char *args)
{
	char line[512], *out = NULL, *err = NULL;
	const char *const argv[] = {"/bin/sh", "-c", line, NULL};
	int status;

	snprintf(line, sizeof(line), "systemctl --no-pager %.480s", args);
	status = lab_run(sd->lab, &sd->ns, CALL_MS, &out, &err, argv);
	lab_check(sd->lab, status == 0, "host %s: %s: %d: %s%s", sd->host->name, line, status, out,
		  err);
	free(err);
	return out;
}

static char *show(struct lab_systemd *sd, const char *unit, const char *property)
{
	char args[256];

	snprintf(args, sizeof(args), "show -P %s '%s'", property, unit);
	return lab_systemctl(sd, args);
}

bool lab_systemctl_is(struct lab_systemd *sd, const char *unit, const char *property,
		      const char *value)
{
	char *text = show(sd, unit, property);
	bool is = !strncmp(text, value, strlen(value));

	free(text);
	return is;
}

/* The process that has this number in the host's namespace. */
static pid_t from_outside(const struct lab_ns *ns, pid_t inside)
{
	char path[64], want[64], have[64];
	pid_t found = 0;
	struct dirent *e;
	DIR *d = opendir("/proc");

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", ns->init);
	want[readlink(path, want, sizeof(want) - 1)] = '\0';
	while (!found && (e = readdir(d))) {
		char *status, *at;
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/%.20s/ns/pid", e->d_name);
		n = readlink(path, have, sizeof(have) - 1);
		have[n < 0 ? 0 : n] = '\0';
		if (strcmp(have, want) != 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/status", e->d_name);
		status = lab_read_file(path);
		at = status ? strstr(status, "\nNSpid:") : NULL;
		if (at) {
			char *end = strchr(at + 1, '\n');

			*end = '\0';
			if (atoi(strrchr(at, '\t')) == inside)
				found = atoi(e->d_name);
		}
		free(status);
	}
	closedir(d);
	return found;
}

pid_t lab_systemctl_pid(struct lab_systemd *sd, const char *unit)
{
	char *text = show(sd, unit, "MainPID");
	pid_t inside = atoi(text);

	free(text);
	return inside ? from_outside(&sd->ns, inside) : 0;
}
