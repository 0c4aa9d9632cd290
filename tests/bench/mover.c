/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/mover.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "lib/lab_job.h"
#include "util/cleanup.h"

/* Often enough for a slope, seldom enough to be no load. */
#define LOOK_US  40000
#define MEMORY_S 0.2
/* A transfer's beginning and end are not its rate. */
#define RATE_FROM 0.05
#define RATE_TO   0.97

static const char *const host_name[2] = {"a", "b"};

/* --- hosts --- */

static json_t *launcher(struct bench *b, unsigned int host)
{
	return json_pack("{s:s, s:[o, s, s, s, s, s, o]}", "driver", "native", "argv",
			 json_sprintf("%s/bench/pacer", b->lab->tests), "--name", "{name}", "--mb",
			 "{var:mb}", "--control",
			 json_sprintf("%s/%s/{name}.control", b->shm, host_name[host]));
}

void mover_hosts(struct bench *b)
{
	for (unsigned int i = 0; i < 2; i++) {
		json_t *dir = json_sprintf("%s/%s", b->shm, host_name[i]);
		json_t *source = json_pack("{s:O}", "run_dir", dir);
		json_t *dest = json_pack("{s:o, s:{s:o}}", "run_dir", dir, "launchers", "pacer",
					 launcher(b, i));
		char *source_text = json_dumps(source, 0), *dest_text = json_dumps(dest, 0);

		lab_check(b->lab, mkdir(json_string_value(dir), 0700) == 0, "%s: %m",
			  json_string_value(dir));
		b->host[i] =
			lab_host_start(b->lab, &(struct lab_host_opts){.name = host_name[i],
								       .source_conf = source_text,
								       .dest_conf = dest_text});
		free(source_text);
		free(dest_text);
		json_decref(source);
		json_decref(dest);
	}
}

/* --- the guest --- */

static struct pacer_control *new_control(struct mover_guest *g, unsigned int host)
{
	char path[LAB_PATH_MAX + 64];
	void *p;
	int fd;

	snprintf(path, sizeof(path), "%s/%s/%s.control", g->b->shm, host_name[host], g->name);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	lab_check(g->b->lab, fd >= 0 && ftruncate(fd, sizeof(struct pacer_control)) == 0, "%s: %m",
		  path);
	p = mmap(NULL, sizeof(struct pacer_control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	lab_check(g->b->lab, p != MAP_FAILED, "%s: %m", path);
	close(fd);
	return p;
}

static void describe(struct mover_guest *g)
{
	char path[LAB_PATH_MAX + 64];
	json_t *o = json_pack("{s:s, s:s, s:s, s:{s:o}}", "name", g->name, "driver", "native",
			      "launcher", "pacer", "vars", "mb", json_sprintf("%u", g->mb));

	snprintf(path, sizeof(path), "%s/%s.json", g->b->lab->root, g->name);
	lab_check(g->b->lab, json_dump_file(o, path, 0) == 0, "%s: %m", path);
	json_decref(o);
	lab_check(g->b->lab,
		  lab_decant(g->b->host[0], 10000, NULL, NULL,
			     (const char *[]){"add", path, NULL}) == 0,
		  "decant add %s", path);
}

struct mover_guest *mover_guest_start(struct bench *b, const char *name, unsigned int mb,
				      const char *fill)
{
	char program[LAB_PATH_MAX + 32], control[LAB_PATH_MAX + 64], size[16];
	const char *const argv[] = {program, "--name", name,        "--attach", b->host[0]->attach,
				    "--mb",  size,     "--control", control,    "--fill",
				    fill,    NULL};
	struct mover_guest *g = calloc(1, sizeof(*g));
	struct lab_proc *proc;

	g->b = b;
	g->mb = mb;
	snprintf(g->name, sizeof(g->name), "%s", name);
	for (unsigned int i = 0; i < 2; i++)
		g->control[i] = new_control(g, i);
	describe(g);
	snprintf(program, sizeof(program), "%s/bench/pacer", b->lab->tests);
	snprintf(control, sizeof(control), "%s/%s/%s.control", b->shm, host_name[0], name);
	snprintf(size, sizeof(size), "%u", mb);
	proc = lab_spawn(b->lab, NULL, name, argv);
	lab_until(b->lab, 60000, atomic_load(&g->control[0]->ready) || !lab_proc_alive(proc),
		  "the guest does not get ready");
	lab_check(b->lab, lab_proc_alive(proc), "the guest has ended with %d", proc->status);
	lab_host_knows(b->host[0], name);
	return g;
}

/* All of its threads: the last one gives back the memory. Its parent need not have waited for it. */
static bool is_gone(pid_t pid)
{
	CLEANUP_CLOSE int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return fd < 0 || poll(&p, 1, 0) == 1;
}

void mover_guest_end(struct mover_guest *g)
{
	pid_t pid = (pid_t)atomic_load(&mover_here(g)->ready);

	kill(pid, SIGTERM);
	lab_until(g->b->lab, 20000, is_gone(pid), "the guest does not end");
	for (unsigned int i = 0; i < 2; i++)
		munmap(g->control[i], sizeof(*g->control[i]));
	free(g);
}

struct pacer_control *mover_here(struct mover_guest *g)
{
	return g->control[g->at];
}

void mover_order(struct mover_guest *g, enum pacer_order order, unsigned int rate,
		 unsigned int bytes)
{
	for (unsigned int i = 0; i < 2; i++) {
		atomic_store(&g->control[i]->rate, rate);
		atomic_store(&g->control[i]->bytes, bytes);
		atomic_store(&g->control[i]->resting, 0);
		atomic_store(&g->control[i]->order, order);
	}
}

void mover_rested(struct mover_guest *g)
{
	lab_until(g->b->lab, 60000, atomic_load(&mover_here(g)->resting),
		  "the guest does not do as it is told");
}

/* --- its migrations --- */

/* Processor time of all its threads, those that have ended included. */
static double cpu_s(struct lab *lab, const struct lab_proc *p)
{
	unsigned long user = 0, sys = 0;
	char path[64], *stat, *at;

	snprintf(path, sizeof(path), "/proc/%d/stat", p->pid);
	stat = lab_read_file(path);
	at = stat ? strrchr(stat, ')') : NULL;
	lab_check(lab,
		  at && sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
			       &sys) == 2,
		  "%s cannot be read", path);
	free(stat);
	return (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
}

void mover_begin(struct mover_guest *g, const char *mode, const char *options,
		 struct mover_job *job)
{
	struct lab_host *from = g->b->host[g->at], *to = g->b->host[!g->at];
	char *body, *answer = NULL;
	json_t *o;
	int status;

	*job = (struct mover_job){.g = g};
	atomic_store(&g->control[!g->at]->ready, 0);
	atomic_store(&g->control[!g->at]->touched, 0);
	atomic_store(&g->control[!g->at]->spent, 0);
	if (asprintf(&body, "{\"guest\":\"%s\",\"to\":\"%s\",\"mode\":\"%s\",\"options\":%s}",
		     g->name, to->to, mode, options ? options : "{}") < 0)
		bench_die("out of memory");
	job->source_cpu_s = -cpu_s(g->b->lab, from->source);
	job->dest_cpu_s = -cpu_s(g->b->lab, to->dest);
	job->began = bench_now();
	status = lab_http(from->source_sock, "POST", "/v1/migrations", body, &answer);
	lab_check(g->b->lab, status == 202, "POST /v1/migrations %s: %d %s", body, status,
		  answer ? answer : "");
	o = json_loads(answer, 0, NULL);
	snprintf(job->id, sizeof(job->id), "%s", lab_str(g->b->lab, o, "id"));
	json_decref(o);
	free(answer);
	free(body);
}

/* Anonymous memory and shared memory of the agent's own; guests' memory is in neither. */
static double own_mb(struct lab *lab, const struct lab_proc *p)
{
	static const char *const what[] = {"\nAnonymous:", "\nPss_Shmem:"};
	unsigned long kb = 0;
	char path[64], *text;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", p->pid);
	text = lab_read_file(path);
	for (size_t i = 0; i < 2; i++) {
		char *at = text ? strstr(text, what[i]) : NULL;

		lab_check(lab, at, "%s cannot be read", path);
		kb += strtoul(at + strlen(what[i]), NULL, 10);
	}
	free(text);
	return (double)kb / 1024;
}

static void look_at_memory(struct mover_job *job, double now)
{
	struct bench *b = job->g->b;
	double source, dest;

	if (now < job->memory_at + MEMORY_S)
		return;
	job->memory_at = now;
	source = own_mb(b->lab, b->host[job->g->at]->source);
	dest = own_mb(b->lab, b->host[!job->g->at]->dest);
	job->source_mb = source > job->source_mb ? source : job->source_mb;
	job->dest_mb = dest > job->dest_mb ? dest : job->dest_mb;
}

static json_t *get_job(struct mover_job *job)
{
	char path[96];

	snprintf(path, sizeof(path), "/v1/migrations/%s", job->id);
	return lab_get(job->g->b->lab, job->g->b->host[job->g->at]->source_sock, path);
}

const char *mover_look(struct mover_job *job)
{
	struct lab *lab = job->g->b->lab;
	json_t *o = get_job(job);
	double now = bench_now();
	static char phase[32];

	snprintf(phase, sizeof(phase), "%s", lab_str(lab, o, "phase"));
	if (job->n < MOVER_SAMPLES_MAX) {
		job->time[job->n] = now;
		job->sent[job->n++] = lab_num(lab, o, "memory.sent_bytes");
	}
	json_decref(o);
	look_at_memory(job, now);
	return phase;
}

static bool ended(const char *phase)
{
	return !strcmp(phase, "completed") || !strcmp(phase, "cancelled") ||
	       !strcmp(phase, "failed");
}

static void wait_phase(struct mover_job *job, const char *phase, useconds_t every)
{
	struct lab *lab = job->g->b->lab;
	double end = bench_now() + 120;
	const char *is;

	while (strcmp(is = mover_look(job), phase) != 0) {
		lab_check(lab, !ended(is) && bench_now() < end, "the migration is %s, not %s", is,
			  phase);
		usleep(every);
	}
}

void mover_until(struct mover_job *job, const char *phase)
{
	wait_phase(job, phase, 5000);
}

static double slope(const struct mover_job *job)
{
	double total = (double)((uint64_t)job->g->mb << 20);
	size_t first = 0, last = job->n;

	while (first < job->n && job->sent[first] < total * RATE_FROM)
		first++;
	while (last > 0 && job->sent[last - 1] > total * RATE_TO)
		last--;
	if (last < first + 3)
		return 0;
	last--;
	return (job->sent[last] - job->sent[first]) / (job->time[last] - job->time[first]);
}

void mover_complete(struct mover_job *job)
{
	struct mover_guest *g = job->g;
	struct lab *lab = g->b->lab;
	json_t *o;

	wait_phase(job, "completed", LOOK_US);
	job->seconds = bench_now() - job->began;
	job->rate = slope(job);
	job->source_cpu_s += cpu_s(lab, g->b->host[g->at]->source);
	job->dest_cpu_s += cpu_s(lab, g->b->host[!g->at]->dest);
	o = get_job(job);
	job->downtime_ms = lab_num(lab, o, "downtime_us") / 1000;
	job->passes = (unsigned int)lab_num(lab, o, "memory.passes");
	lab_check(lab, json_is_true(lab_at(o, "digest_ok")), "digest_ok is not true");
	json_decref(o);
	lab_until(lab, 10000, is_gone((pid_t)atomic_load(&mover_here(g)->ready)),
		  "the guest lives on at the source");
	g->at = !g->at;
	lab_until(lab, 10000, atomic_load(&mover_here(g)->ready), "the guest does not run");
	lab_host_knows(g->b->host[g->at], g->name);
}

void mover_move(struct mover_guest *g, const char *mode, const char *options, struct mover_job *job)
{
	mover_begin(g, mode, options, job);
	mover_complete(job);
}

void mover_cancel(struct mover_job *job)
{
	struct bench *b = job->g->b;
	char path[96], *body = NULL;
	int status;

	snprintf(path, sizeof(path), "/v1/migrations/%s/cancel", job->id);
	status = lab_http(b->host[job->g->at]->source_sock, "POST", path, NULL, &body);
	lab_check(b->lab, status == 202 || status == 200, "POST %s: %d %s", path, status,
		  body ? body : "");
	free(body);
	mover_until(job, "cancelled");
}
