/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DECANT_CLI_CHECK_H
#define DECANT_CLI_CHECK_H

#include "cli/cli.h"

/**
 * cli_check() - `check`: what this host can and can't do, as a table or JSON
 *
 * Without --api the question is answered by this program itself, for its own privileges and also
 * where no agent runs; with it by the agent. Return: enum cli_exit
 */
int cli_check(struct cli *c);

#endif
