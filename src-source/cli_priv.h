/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the command line. */
#ifndef DECANT_CLI_PRIV_H
#define DECANT_CLI_PRIV_H

#include "cli/cli.h"

/* Commands: struct cli_command's run. */
int cli_guests(struct cli *c);
int cli_add(struct cli *c);
int cli_remove(struct cli *c);
int cli_migrate(struct cli *c);
int cli_status(struct cli *c);
int cli_watch(struct cli *c);
int cli_cancel(struct cli *c);
int cli_switchover(struct cli *c);
int cli_recover(struct cli *c);
int cli_snapshot(struct cli *c);
int cli_resolve(struct cli *c);
int cli_bandwidth(struct cli *c);
int cli_evacuate(struct cli *c);
int cli_cordon(struct cli *c);
int cli_uncordon(struct cli *c);

/**
 * cli_wait() - stay with a migration until it has ended, showing its progress
 * @jobs:	of jobs of its kind: "/v1/migrations", "/v1/snapshots"
 * @what:	for error lines
 * @m:		the migration as it is known; replaced by newer ones
 *
 * Ends early when it is in doubt, or the agent away, for longer than @c's patience_s. Return:
 * the exit code, after an error line unless it is CLI_OK
 */
int cli_wait(struct cli *c, const char *jobs, const char *what, json_t **m);

/** CLI_EVACUATIONS - the list of evacuations, as cli_find_job() returns it */
#define CLI_EVACUATIONS "/v1/evacuations"
/** cli_evac_wait() - cli_wait() for an evacuation */
int cli_evac_wait(struct cli *c, const char *what, json_t **e);
/** cli_evac_line() - "evacuation: running [####....] 3 of 7 guests, 5.21 Gbit/s, 12 s to go". Return: @buf */
char *cli_evac_line(char *buf, size_t cap, const json_t *e, bool bar);
/** cli_evac_done() - Return: share of its memory that has left, 0 to 1; negative if it has none */
double cli_evac_done(const json_t *e);
/** cli_job_ended() - cli_migration_ended() for jobs of any kind */
bool cli_job_ended(const char *phase);
/** cli_bar() - "[####....] "; @share from 0 to 1 */
#define CLI_BAR_MAX 20
void cli_bar(char bar[static CLI_BAR_MAX], double share);

/**
 * cli_find_job() - the migration, snapshot or evacuation whose id starts with @id, if there is just one
 * @ret_jobs:	the list that it stands in, for cli_wait()
 *
 * Return: as cli_find()
 */
int cli_find_job(struct cli *c, const char *id, const char **ret_jobs, json_t **ret);

/** cli_address() - "HOST[:PORT]" into "host:port". Return: CLI_OK or CLI_USAGE after an error line */
int cli_address(const char *to, const char *what, char *buf, size_t cap);

/** cli_migration_ended() - Return: is this the phase of a job that will not change any more? */
bool cli_migration_ended(const char *phase);

/**
 * cli_migration_done() - how far it is
 *
 * Return: share of the memory that has arrived, 0 to 1; negative as long as nothing was sent
 */
double cli_migration_done(const json_t *m);

/**
 * cli_migration_line() - "demo: precopy 62% of 2.00 GiB, 5.21 Gbit/s, 3.0 s to go, pass 1"
 * @bar:	draw one, too
 *
 * Return: @buf
 */
char *cli_migration_line(char *buf, size_t cap, const json_t *m, bool bar);

#endif
