/* SPDX-License-Identifier: Apache-2.0 */
/* What the soak's parts share; see soak.h. */
#ifndef DECANT_TESTS_SOAK_WORLD_H
#define DECANT_TESTS_SOAK_WORLD_H

#include "lib/lab_vm.h"
#include "soak/soak.h"

struct soak_world;
struct soak_guest;
struct soak_vm;

/**
 * struct soak_kind - guests of one kind
 * @arrived:	it runs on @h, where it was brought: one whole verification since, its process at the source is gone
 * @stayed:	it runs where it was: one whole verification from now on
 * @pid:	its process on a host; 0 if there is none
 */
struct soak_kind {
	void (*arrived)(struct soak_world *w, struct soak_guest *g, struct lab_host *h);
	void (*stayed)(struct soak_world *w, struct soak_guest *g);
	pid_t (*pid)(struct soak_world *w, struct soak_guest *g, struct lab_host *h);
};

/**
 * struct soak_guest - one guest
 * @g:		its name, place and processes
 * @bytes:	of its memory
 * @files:	blocks that are in files
 * @id:		its migration in this round, "" if there is none
 * @from, @to:	of that
 * @seen:	the guest was seen to be behind the point of no return
 * @phase, @code: how that ended
 */
struct soak_guest {
	const struct soak_kind *kind;
	struct lab_guest *g;
	uint64_t bytes;
	unsigned int files;
	char id[64];
	struct lab_host *from, *to;
	bool seen;
	char phase[32];
	char code[64];
};

/**
 * struct soak_life - one agent, from its start to its end
 * @starts:	which life it is
 * @begin:	what it held when it had done a few rounds; none before
 * @begin_jobs:	that had been made by then
 * @now:	what it held last
 * @rounds:	that it has done
 */
struct soak_life {
	pid_t pid;
	unsigned int starts;
	struct lab_usage begin;
	unsigned int begin_jobs;
	struct lab_usage now;
	unsigned int rounds;
};

#define SOAK_AGENTS 4

/**
 * struct soak_world - two hosts
 * @hosts:	each with both agents; others reach decant-dest through @relays
 * @stuck:	the relay is stopped
 * @guests:	all that there are
 * @vm:		what belongs to the VM, if there is one
 * @lives:	of each host's decant-source and decant-dest
 * @bare:	what each agent held before there was a guest
 * @early:	what each held when the first rounds were done
 * @grown_kb, @grown_rounds: growth of agents over lives that have ended
 * @jobs:	that were made
 * @ends:	completed, failed, cancelled
 */
struct soak_world {
	struct lab *lab;
	const struct soak_opts *o;
	struct lab_host *hosts[2];
	struct lab_relay *relays[2];
	struct lab_proc *relay_procs[2];
	bool stuck[2];
	struct soak_guest guests[SOAK_GUESTS_MAX];
	unsigned int nguests;
	struct soak_vm *vm;
	struct soak_life lives[SOAK_AGENTS];
	struct lab_usage bare[SOAK_AGENTS];
	struct lab_usage early[SOAK_AGENTS];
	long grown_kb[SOAK_AGENTS];
	unsigned int grown_rounds[SOAK_AGENTS];
	unsigned int jobs, snapshots;
	unsigned int ends[3];
	struct soak_plan plan;
};

/* --- world.c --- */

/** soak_world_new() - hosts, relays and guests, started */
struct soak_world *soak_world_new(struct lab *lab, const struct soak_opts *o);
/** soak_world_free() - all that the lab does not end */
void soak_world_free(struct soak_world *w);
/** soak_world_sweep() - forget what has ended, and what was said before now */
void soak_world_sweep(struct soak_world *w);
/** soak_world_zstd() - Return: whether these agents compress */
bool soak_world_zstd(struct soak_world *w);
/** soak_other() - Return: the host that is not @h */
struct lab_host *soak_other(struct soak_world *w, const struct lab_host *h);
/** soak_index() - Return: its number in world.hosts */
unsigned int soak_index(struct soak_world *w, const struct lab_host *h);
/** soak_moving() - Return: the next one behind @g that the plan moves; the first one if @g is NULL */
struct soak_guest *soak_moving(struct soak_world *w, struct soak_guest *g);
/** soak_interrupted() - Return: whether this round is to be the last one: SIGINT, SIGTERM. Another ends it at once */
bool soak_interrupted(void);

/* --- guests.c --- */

/** soak_guests_start() - all of them, on the first host */
void soak_guests_start(struct soak_world *w);
/** soak_guests_conf() - Return: what decant-dest of a host must know of their launchers, for free(3) */
char *soak_guests_conf(struct soak_world *w, unsigned int host);

/* --- vm.c --- */

/** soak_vm_new() - its folders, before the hosts */
void soak_vm_new(struct soak_world *w);
/** soak_vm_launcher() - Return: what starts it on a host, new reference */
json_t *soak_vm_launcher(struct soak_world *w, unsigned int host);
/** soak_vm_start() - boot it on the first host */
void soak_vm_start(struct soak_world *w);
/** soak_vm_proc() - Return: that of its first QEMU, as long as it is there; NULL without */
const struct lab_proc *soak_vm_proc(struct soak_world *w);
/** soak_vm_end() - end it, if there is one */
void soak_vm_end(struct soak_world *w);

/* --- jobs.c --- */

/** soak_job_post() - ask for the planned migration of @g; @to may be another address, NULL for that of g.to */
int soak_job_post(struct soak_world *w, struct soak_guest *g, const char *to, const char *key,
		  char **ret_body);
/** soak_job_begin() - soak_job_post() that must be accepted; notes the id */
void soak_job_begin(struct soak_world *w, struct soak_guest *g, const char *to);
/** soak_job_get() - Return: new reference; NULL if its agent does not answer */
json_t *soak_job_get(struct soak_world *w, struct soak_guest *g);
/** soak_job_order() - cancel, switchover, recover. Return: status, as lab_http() */
int soak_job_order(struct soak_guest *g, const char *what);
/** soak_job_reached() - Return: whether it is in phase @when, or behind it */
bool soak_job_reached(struct soak_world *w, struct soak_guest *g, enum soak_when when);
/** soak_job_ended() - Return: whether it has; notes how */
bool soak_job_ended(struct soak_world *w, struct soak_guest *g);

/* --- fault.c --- */

/** soak_fault_before() - what must be ready before migrations begin */
void soak_fault_before(struct soak_world *w);
/** soak_fault_do() - what the plan says, now; and have it end */
void soak_fault_do(struct soak_world *w);
/** soak_fault_over() - when all jobs have ended: what else was begun has, too */
void soak_fault_over(struct soak_world *w);

/* --- leaks.c --- */

/** soak_leaks_begin() - before the first guest */
void soak_leaks_begin(struct soak_world *w);
/** soak_leaks_check() - after a round: fails if somebody holds more than he needs */
void soak_leaks_check(struct soak_world *w);
/** soak_leaks_say() - what the agents hold now, on the line of a round */
void soak_leaks_say(struct soak_world *w, FILE *f);
/** soak_leaks_table() - first and last, and growth */
void soak_leaks_table(struct soak_world *w, FILE *f);

/* --- round.c --- */

/** soak_round() - the one of world.plan */
void soak_round(struct soak_world *w);

#endif
