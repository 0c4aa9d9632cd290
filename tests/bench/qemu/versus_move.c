/* SPDX-License-Identifier: Apache-2.0 */
/* The moves themselves. Both sides of QEMU's own get the same certificates as decant's agents. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "bench/qemu/versus.h"

#define LOOK_US 10000
#define MOVE_MS 60000
/* decant's default for the time that the VM may stand still at the end of precopy. */
#define DOWNTIME_LIMIT_MS 300
/* There is no word for "as much as there is". */
#define BANDWIDTH (100ll << 30)

void versus_sample(struct versus_progress *p, double sent)
{
	if (p->n == VERSUS_SAMPLES)
		return;
	p->us[p->n] = versus_now_us();
	p->sent[p->n++] = sent;
}

double versus_rate(const struct versus_progress *p)
{
	double all = p->n ? p->sent[p->n - 1] : 0;
	size_t first = 0, last = p->n;

	while (first < p->n && p->sent[first] < all * 0.1)
		first++;
	while (last > first && p->sent[last - 1] > all * 0.9)
		last--;
	if (last < first + 2)
		return 0;
	last--;
	return (p->sent[last] - p->sent[first]) * 1e6 / (double)(p->us[last] - p->us[first]);
}

/* --- QEMU's own --- */

static void copy(struct lab *lab, const char *from, const char *dir, const char *to)
{
	char path[LAB_PATH_MAX + 64], *text;

	snprintf(path, sizeof(path), "%s/%s", lab->certs, from);
	text = lab_read_file(path);
	lab_check(lab, text, "%s: %m", path);
	snprintf(path, sizeof(path), "%s/%s", dir, to);
	lab_write_file(lab, path, text);
	free(text);
}

static void credentials(struct lab_vm *vm, const char *id, const char *endpoint)
{
	char dir[LAB_PATH_MAX + 16], name[32];
	bool server = !strcmp(endpoint, "server");

	snprintf(dir, sizeof(dir), "%s/%s", vm->dir, id);
	lab_check(vm->lab, mkdir(dir, 0700) == 0, "%s: %m", dir);
	copy(vm->lab, "host-a.ca", dir, "ca-cert.pem");
	snprintf(name, sizeof(name), "%s-cert.pem", endpoint);
	copy(vm->lab, server ? "host-b.cert" : "host-a.cert", dir, name);
	snprintf(name, sizeof(name), "%s-key.pem", endpoint);
	copy(vm->lab, server ? "host-b.key" : "host-a.key", dir, name);
	json_decref(lab_vm_qmp(vm, "object-add",
			       json_pack("{s:s, s:s, s:s, s:s, s:b}", "qom-type", "tls-creds-x509",
					 "id", id, "dir", dir, "endpoint", endpoint, "verify-peer",
					 1)));
}

static void capabilities(struct lab_vm *vm, bool postcopy, bool preempt)
{
	json_t *list = json_pack("[{s:s, s:b}, {s:s, s:b}]", "capability", "postcopy-ram", "state",
				 postcopy, "capability", "postcopy-preempt", "state", preempt);

	json_decref(lab_vm_qmp(vm, "migrate-set-capabilities",
			       json_pack("{s:o}", "capabilities", list)));
}

static void set_up(struct lab_vm *vm, const char *id, const char *endpoint, enum versus_way way)
{
	credentials(vm, id, endpoint);
	capabilities(vm, way != VERSUS_PRECOPY, way == VERSUS_PREEMPT);
	json_decref(lab_vm_qmp(vm, "migrate-set-parameters",
			       json_pack("{s:s, s:s, s:I, s:i}", "tls-creds", id, "tls-hostname",
					 "localhost", "max-bandwidth", BANDWIDTH, "downtime-limit",
					 DOWNTIME_LIMIT_MS)));
}

/* What comes next sets its own; decant's stream of the device state must find none. */
static void reset(struct lab_vm *vm)
{
	capabilities(vm, false, false);
	json_decref(lab_vm_qmp(vm, "migrate-set-parameters",
			       json_pack("{s:s, s:s}", "tls-creds", "", "tls-hostname", "")));
}

/* Where the destination listens. */
static void listen_at(struct lab_vm *dst, size_t cap, char *uri)
{
	json_t *info;

	json_decref(
		lab_vm_qmp(dst, "migrate-incoming", json_pack("{s:s}", "uri", "tcp:127.0.0.1:0")));
	info = lab_vm_qmp(dst, "query-migrate", NULL);
	snprintf(uri, cap, "tcp:127.0.0.1:%s",
		 lab_str(dst->lab, json_array_get(lab_at(info, "socket-address"), 0), "port"));
	json_decref(info);
}

/* Return: whether it has come to its end */
static bool look(struct lab_vm *src, struct versus_progress *p)
{
	json_t *info = lab_vm_qmp(src, "query-migrate", NULL);
	const char *status = lab_str(src->lab, info, "status");
	bool done = !strcmp(status, "completed");
	json_t *sent = lab_at(info, "ram.transferred"), *why = lab_at(info, "error-desc");

	lab_check(src->lab, strcmp(status, "failed") != 0, "QEMU's own migration failed: %s",
		  why ? json_string_value(why) : "it does not say why");
	if (sent)
		versus_sample(p, json_number_value(sent));
	json_decref(info);
	if (!done)
		usleep(LOOK_US);
	return done;
}

uint64_t versus_by_qemu(struct lab_vm *src, struct lab_vm *dst, enum versus_way way,
			struct versus_ear *ear, struct versus_progress *p)
{
	uint64_t done;
	char uri[64];

	lab_vm_launch(dst);
	ear->to = dst->tty;
	set_up(dst, "tls-in", "server", way);
	set_up(src, "tls-out", "client", way);
	listen_at(dst, sizeof(uri), uri);
	json_decref(lab_vm_qmp(src, "migrate", json_pack("{s:s}", "uri", uri)));
	if (way != VERSUS_PRECOPY)
		json_decref(lab_vm_qmp(src, "migrate-start-postcopy", NULL));
	lab_until(src->lab, MOVE_MS, look(src, p), "QEMU's own migration does not end");
	done = versus_now_us();
	lab_until(src->lab, MOVE_MS, ear->came_us, "no tick at the destination");
	reset(dst);
	return done > ear->came_us ? done : ear->came_us;
}

/* --- decant's --- */

static bool look_at_job(struct lab_host *a, struct versus_progress *p)
{
	json_t *job = lab_job_newest(a);
	bool ended = job && json_is_string(lab_at(job, "ended_at"));

	if (job)
		versus_sample(p, lab_num(a->lab, job, "memory.sent_bytes"));
	json_decref(job);
	if (!ended)
		usleep(LOOK_US);
	return ended;
}

uint64_t versus_by_decant(struct lab_vm *src, struct lab_vm *dst, struct lab_host *const host[2],
			  const char *mode, struct versus_ear *ear, struct versus_progress *p)
{
	const struct lab_move how = {.mode = mode, .ms = MOVE_MS};
	struct lab_guest g = {.lab = src->lab};
	struct lab_proc *command;
	uint64_t done;

	snprintf(g.name, sizeof(g.name), "%s", src->opts.name);
	command = lab_migrate_begin(host[0], host[1], &g, &how);
	lab_vm_attach(dst, 0);
	ear->to = dst->tty;
	lab_until(src->lab, MOVE_MS, look_at_job(host[0], p), "decant's migration does not end");
	done = versus_now_us();
	json_decref(lab_migrate_end(host[0], command, &how));
	lab_until(src->lab, MOVE_MS, ear->came_us, "no tick at the destination");
	return done > ear->came_us ? done : ear->came_us;
}
