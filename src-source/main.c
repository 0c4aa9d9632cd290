/* SPDX-License-Identifier: Apache-2.0 */
/* decant-source: the daemon (serve) and, under its other name decant, the operator's commands. */
#include <malloc.h>
#include <string.h>

#include "cli/cli.h"
#include "cli_source.h"
#include "source.h"
#include "util/faultpoint.h"
#include "util/log.h"

int main(int argc, char **argv)
{
	struct error err = {0};
	const char *config;
	int r;

	if (argc < 2 || strcmp(argv[1], "serve") != 0)
		return cli_source_main(argc, argv);
	r = cli_serve_args("decant-source", argc, argv, &config);
	if (r >= 0)
		return r;
	if (log_setup(NULL) < 0)
		return cli_error(CLI_USAGE, "serve",
				 "DECANT_LOG is none of debug, info, notice, warning, error");
	if (faultpoint_check(&err) < 0)
		return cli_error_of(CLI_USAGE, "serve", &err);
	/*
	 * Large buffers come and go with each migration, small records of it stay: kept apart, or the
	 * heap would grow around the records. (glibc would raise the threshold by itself.)
	 */
	mallopt(M_MMAP_THRESHOLD, 128 << 10);
	return source_serve(config);
}
