/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_hostile.h"
#include "lib/lab_job.h"

/* A busy machine makes anybody stand for so long, and for so many times what it usually is. */
#define STAND_US 150000
#define UNLIKE   4
/* Of the guest that moves beside an attack: one pass takes the time asked for. */
#define BESIDE_MB 16

/* --- an agent that lives --- */

void hostile_alive(struct lab_host *h, const char *sock, const char *after)
{
	int status = lab_http(sock, "GET", "/v1/health", NULL, NULL);

	lab_check(h->lab, status == 200, "after \"%s\" health is %d", after, status);
}

void hostile_problem(struct lab *lab, const char *what, const char *body)
{
	json_t *o = json_loads(body, 0, NULL);

	lab_check(lab, o && json_is_integer(lab_at(o, "status")), "%s: no problem document: %s",
		  what, body);
	lab_check(lab, *lab_str(lab, o, "title"), "%s: no title", what);
	lab_check(lab, *lab_str(lab, o, "detail"), "%s: no detail", what);
	json_decref(o);
}

uint32_t hostile_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*state >> 33);
}

/* --- the wire, by hand --- */

void hostile_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

void hostile_put32(uint8_t *p, uint32_t v)
{
	hostile_put16(p, (uint16_t)v);
	hostile_put16(p + 2, (uint16_t)(v >> 16));
}

uint16_t hostile_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

size_t hostile_hello(uint8_t out[128], uint8_t kind, uint8_t index, const uint8_t *token)
{
	memset(out, 0, 128);
	hostile_put32(out, HOSTILE_HELLO);
	hostile_put16(out + 4, 1);
	hostile_put32(out + 8, 0x544e4344);
	hostile_put16(out + 12, 1);
	hostile_put16(out + 14, 1);
	out[16] = 3; /* capabilities POSTCOPY and URGENT */
	out[24] = kind;
	out[25] = index;
	for (int i = 0; i < 16; i++)
		out[28 + i] = (uint8_t)(0xa0 + i);
	if (token)
		memcpy(out + 44, token, 32);
	return 8 + HOSTILE_HELLO;
}

struct lab_wire *hostile_connect(struct lab_host *b)
{
	struct lab_wire *w = lab_wire_open(b, &(struct lab_wire_opts){0});

	lab_check(b->lab, w, "a proper peer is not let in");
	return w;
}

struct lab_wire *hostile_session(struct lab_host *b, uint8_t token[32])
{
	struct lab_wire *w = hostile_connect(b);
	uint8_t out[128], in[HOSTILE_FRAME_MAX];
	ssize_t n;

	lab_wire_send(w, out, hostile_hello(out, 0, 0, NULL));
	n = lab_wire_recv(w, in, sizeof(in), 5000);
	lab_check(b->lab, n == 8 + 48 && hostile_get16(in + 4) == 2,
		  "no HELLO_ACK: %zd bytes, type %u", n, hostile_get16(in + 4));
	if (token)
		memcpy(token, in + 8 + 16, 32);
	return w;
}

static void check_error(struct lab *lab, const uint8_t *in, const char *what, const char *code,
			const char *names)
{
	uint16_t code_len = hostile_get16(in + 8);
	const char *msg = (const char *)in + 8 + 2 + code_len + 2;
	int msg_len = hostile_get16(in + 8 + 2 + code_len);

	lab_check(lab, code_len && msg_len, "%s: an empty error", what);
	lab_check(lab, !code || (code_len == strlen(code) && !memcmp(in + 10, code, code_len)),
		  "%s: code %.*s: %.*s", what, code_len, in + 10, msg_len, msg);
	lab_check(lab, !names || memmem(msg, (size_t)msg_len, names, strlen(names)),
		  "%s: does not name %s: %.*s", what, names, msg_len, msg);
}

void hostile_refused(struct lab_host *b, struct lab_wire *w, const char *what, const char *code,
		     const char *names, bool silent_ok)
{
	uint8_t in[HOSTILE_FRAME_MAX];
	bool error = false;

	for (;;) {
		ssize_t n = lab_wire_recv(w, in, sizeof(in), 15000);

		lab_check(b->lab, n >= 0, "%s: the connection neither ends nor says why", what);
		if (n == 0)
			break;
		if (hostile_get16(in + 4) != 3)
			continue;
		error = true;
		check_error(b->lab, in, what, code, names);
	}
	lab_check(b->lab, error || silent_ok, "%s: ended without a word", what);
	lab_wire_close(w);
	hostile_alive(b, b->dest_sock, what);
}

/* --- what it costs --- */

/* User and system time of all its threads, which proc(5) has behind the name in parentheses. */
static uint64_t cpu_us(struct lab *lab, pid_t pid)
{
	unsigned long user = 0, sys = 0;
	char path[64], *text, *at;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	text = lab_read_file(path);
	at = text ? strrchr(text, ')') : NULL;
	lab_check(lab,
		  at && sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
			       &user, &sys) == 2,
		  "%s cannot be read", path);
	free(text);
	return (user + sys) * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

static unsigned long status_kb(struct lab *lab, pid_t pid, const char *what)
{
	char path[64], *text, *at;
	unsigned long kb;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	text = lab_read_file(path);
	at = text ? strstr(text, what) : NULL;
	lab_check(lab, at, "%s has no %s", path, what);
	kb = strtoul(at + strlen(what), NULL, 10);
	free(text);
	return kb;
}

struct lab_watch lab_watch_begin(struct lab *lab, struct lab_proc *proc)
{
	struct lab_watch w = {.lab = lab, .proc = proc, .usage = lab_usage(lab, proc->pid)};
	char path[64];

	/* VmHWM begins anew. */
	snprintf(path, sizeof(path), "/proc/%d/clear_refs", proc->pid);
	lab_write_file(lab, path, "5");
	w.usage.anon_kb = status_kb(lab, proc->pid, "VmHWM:");
	w.cpu_us = cpu_us(lab, proc->pid);
	w.begun_us = lab_now_ms() * 1000;
	return w;
}

static void check_fds(const struct lab_watch *w, const char *what, unsigned int more)
{
	lab_until(w->lab, 15000, lab_usage(w->lab, w->proc->pid).fds <= w->usage.fds + more,
		  "%s: %s has %u descriptors, and %u before", what, w->proc->name,
		  lab_usage(w->lab, w->proc->pid).fds, w->usage.fds);
}

void lab_watch_end(const struct lab_watch *w, const char *what, const struct lab_cost *bounds)
{
	unsigned int mb = bounds->peak_mb ? bounds->peak_mb : 16;
	unsigned int percent = bounds->cpu_percent ? bounds->cpu_percent : 50;
	uint64_t wall = lab_now_ms() * 1000 - w->begun_us + 1;
	uint64_t cpu = cpu_us(w->lab, w->proc->pid) - w->cpu_us;
	unsigned long peak = status_kb(w->lab, w->proc->pid, "VmHWM:");
	unsigned long more = peak > w->usage.anon_kb ? peak - w->usage.anon_kb : 0;

	lab_check(w->lab, lab_proc_alive(w->proc), "%s: %s has ended", what, w->proc->name);
	fprintf(stderr,
		"%s: %s: %lu ms of processor in %lu ms (%lu %%), %lu KiB more at its highest\n",
		what, w->proc->name, cpu / 1000, wall / 1000, cpu * 100 / wall, more);
	lab_check(w->lab, more <= mb * 1024ul * (w->lab->sanitized ? 10 : 1),
		  "%s: %s took %lu KiB more", what, w->proc->name, more);
	lab_check(w->lab, w->lab->sanitized || cpu * 100 <= percent * wall + 20000 * 100,
		  "%s: %s took %lu ms of processor in %lu ms", what, w->proc->name, cpu / 1000,
		  wall / 1000);
	check_fds(w, what, bounds->fds);
}

/* --- others --- */

static struct lab_guest *beside_guest(struct lab_host *from, const char *name)
{
	return lab_guest_start(
		from, &(struct lab_guest_opts){
			      .name = name, .mb = BESIDE_MB, .threads = 1, .writes = 2000});
}

static void note_control(struct lab_beside *b, struct lab *lab, json_t *job)
{
	b->downtime_us = lab_num(lab, job, "downtime_us");
	b->latency_us = lab_num(lab, job, "postcopy.latency_us.max");
	json_decref(job);
}

struct lab_beside lab_beside_begin(struct lab_host *from, struct lab_host *to, unsigned int ms)
{
	struct lab_beside b = {.from = from, .to = to};
	struct lab_guest *control = beside_guest(from, "control");
	char rate[32];

	note_control(&b, from->lab, lab_migrate(from, to, control, &(struct lab_move){0}));
	lab_guest_arrived(control, to);
	lab_guest_end(control);
	b.pace = pace_start();
	b.g = beside_guest(from, "beside");
	snprintf(rate, sizeof(rate), "%ukbit", (unsigned int)(BESIDE_MB * 8388ull * 1000 / ms));
	b.move =
		lab_migrate_begin(from, to, b.g, &(struct lab_move){.args = {"--bandwidth", rate}});
	b.begun_ms = lab_now_ms();
	lab_until(from->lab, 10000, !lab_proc_alive(b.move) || lab_job_phase_is(from, "precopy"),
		  "the neighbour does not move");
	return b;
}

bool lab_beside_moves(struct lab_beside *b)
{
	return lab_proc_alive(b->move);
}

static void check_stand(struct lab *lab, const char *what, double us, double control, double pace)
{
	double usual = control > pace ? control : pace;

	fprintf(stderr, "beside: %s %.0f us, the control's %.0f us, anybody's %.0f us\n", what, us,
		control, pace);
	lab_check(lab, us <= (STAND_US + UNLIKE * usual) * lab->slow,
		  "the guest beside: %s %.0f us, the control's %.0f us, anybody's %.0f us", what,
		  us, control, pace);
}

void lab_beside_end(struct lab_beside *b)
{
	struct lab *lab = b->from->lab;
	json_t *job = lab_migrate_end(b->from, b->move, &(struct lab_move){0});
	double pace = (double)pace_longest_us(b->pace);

	check_stand(lab, "downtime", lab_num(lab, job, "downtime_us"), b->downtime_us, pace);
	check_stand(lab, "longest wait for a page", lab_num(lab, job, "postcopy.latency_us.max"),
		    b->latency_us, pace);
	pace_end(b->pace);
	json_decref(job);
	lab_guest_arrived(b->g, b->to);
	lab_guest_end(b->g);
}
