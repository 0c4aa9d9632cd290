/* SPDX-License-Identifier: Apache-2.0 */
/* `decant-dest`: the operator's commands, clients of decant-dest's REST interface. */
#ifndef DECANT_CLI_DEST_H
#define DECANT_CLI_DEST_H

/** cli_dest_main() - as cli_source_main() of the other side. Return: exit code of the contract */
int cli_dest_main(int argc, char **argv);

#endif
