/* SPDX-License-Identifier: Apache-2.0 */
/* `decant`: the operator's commands, clients of decant-source's REST interface. */
#ifndef DECANT_CLI_SOURCE_H
#define DECANT_CLI_SOURCE_H

/**
 * cli_source_main() - run the command that a command line names
 *
 * Everything but `serve`. Return: exit code of the contract (0 done, 1 failed or cancelled,
 * 2 wrong use, 3 refused, 4 agent not reachable)
 */
int cli_source_main(int argc, char **argv);

#endif
