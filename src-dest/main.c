/* SPDX-License-Identifier: Apache-2.0 */
/* decant-dest: the daemon (serve), and the operator's commands. */
#include "agent/agent.h"
#include "cli_dest.h"
#include "dest.h"

int main(int argc, char **argv)
{
	return agent_main("decant-dest", argc, argv, cli_dest_main, dest_serve);
}
