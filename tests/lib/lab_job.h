/* SPDX-License-Identifier: Apache-2.0 */
/* Migrations by the real command, and what the contract says about their JSON. */
#ifndef DECANT_TESTS_LAB_JOB_H
#define DECANT_TESTS_LAB_JOB_H

#include <jansson.h>
#include "lib/lab.h"

#define LAB_ARGS_MAX 16

/**
 * struct lab_move - a migration and what becomes of it; zero means the usual
 * @mode:	"hybrid", "postcopy", "precopy"; NULL leaves the option out
 * @tracking:	"async", "faults"; NULL leaves the option out
 * @args:	further words of the command line, NULL-terminated
 * @exit:	how the command must end
 * @phase:	phase of the ended job; default "completed"; not looked at if the command was refused
 * @code:	its error's code; default none
 * @owner:	default "destination" if completed, else "source"
 * @ms:		longest duration; default 60 s
 * @huge:	its memory is of 2 MiB pages, zero pages are such
 * @cut:	its connections are: if that hits the receipt, the destination answers that it is complete, and
 *		what the receipt would have told stays unknown
 */
struct lab_move {
	const char *mode;
	const char *tracking;
	const char *args[LAB_ARGS_MAX];
	int exit;
	const char *phase;
	const char *code;
	const char *owner;
	unsigned int ms;
	bool huge;
	bool cut;
};

/**
 * lab_migrate() - `decant migrate GUEST --to … --wait --json`, and check all that it says
 *
 * Return: the job, new reference; NULL if the command was refused (exit 3) by the source, as asked for
 */
json_t *lab_migrate(struct lab_host *from, struct lab_host *to, struct lab_guest *g,
		    const struct lab_move *move);
/** lab_migrate_begin() - the same command left running */
struct lab_proc *lab_migrate_begin(struct lab_host *from, struct lab_host *to, struct lab_guest *g,
				   const struct lab_move *move);
/** lab_migrate_end() - wait for it and check as lab_migrate() does */
json_t *lab_migrate_end(struct lab_host *from, struct lab_proc *p, const struct lab_move *move);

/** lab_job_newest() - Return: the job that was made last, by GET /v1/migrations; new reference */
json_t *lab_job_newest(struct lab_host *from);
/** lab_job_num() - Return: number at a dotted path of the newest job */
double lab_job_num(struct lab_host *from, const char *path);
/** lab_job_phase_is() - Return: whether the newest job's phase is @phase */
bool lab_job_phase_is(struct lab_host *from, const char *phase);
/** lab_incoming_newest() - Return: the newest incoming of decant-dest, new reference; NULL if none */
json_t *lab_incoming_newest(struct lab_host *to);

/** lab_str() - Return: string at a dotted path; fails the test if it is not there */
const char *lab_str(struct lab *lab, json_t *o, const char *path);
/** lab_num() - Return: number at a dotted path; fails the test if it is not there */
double lab_num(struct lab *lab, json_t *o, const char *path);
/** lab_at() - Return: what is at a dotted path, NULL if nothing is */
json_t *lab_at(json_t *o, const char *path);

#endif
