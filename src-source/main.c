/* SPDX-License-Identifier: Apache-2.0 */
/* decant-source: the daemon (serve) and, under its other name decant, the operator's commands. */
#include "agent/agent.h"
#include "cli_source.h"
#include "source.h"

int main(int argc, char **argv)
{
	return agent_main("decant-source", argc, argv, cli_source_main, source_serve);
}
