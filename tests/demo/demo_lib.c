/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "demo/demo_lib.h"

void demo_failed(const char *msg)
{
	fprintf(stderr, "\nThe demo failed: %s\n", msg);
	exit(1);
}

unsigned int demo_number(const char *name, unsigned int dflt, unsigned int min, unsigned int max)
{
	const char *s = getenv(name);
	unsigned long v = dflt;
	char *end;

	if (s && *s) {
		v = strtoul(s, &end, 10);
		if (*end || v < min || v > max) {
			fprintf(stderr, "%s=%s: a number from %u to %u is wanted\n", name, s, min,
				max);
			exit(2);
		}
	}
	return (unsigned int)v;
}

const char *demo_mode(void)
{
	const char *s = getenv("MODE");

	if (!s || !*s)
		return "hybrid";
	if (strcmp(s, "hybrid") != 0 && strcmp(s, "postcopy") != 0 && strcmp(s, "precopy") != 0) {
		fprintf(stderr, "MODE=%s: hybrid, postcopy or precopy is wanted\n", s);
		exit(2);
	}
	return s;
}

json_t *demo_migrate(struct lab_host *a, struct lab_host *b, const char *guest, const char *how)
{
	char program[LAB_PATH_MAX + 32], api[LAB_PATH_MAX + 16], file[LAB_PATH_MAX + 16];
	const char *const argv[] = {program, "--api", api,      "--json", "migrate", guest,
				    "--to",  b->to,   "--mode", how,      "--wait",  NULL};
	json_t *job;
	int status;
	pid_t pid;

	snprintf(program, sizeof(program), "%s/decant", a->lab->build);
	snprintf(api, sizeof(api), "unix:%s", a->source_sock);
	snprintf(file, sizeof(file), "%s/job.json", a->lab->root);
	printf("\n$ decant migrate %s --to %s --mode %s --wait\n", guest, b->to, how);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

		dup2(fd, 1);
		execv(program, (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	lab_check(a->lab, pid > 0 && waitpid(pid, &status, 0) == pid, "fork: %m");
	lab_check(a->lab, WIFEXITED(status) && WEXITSTATUS(status) == 0,
		  "decant migrate ended with %d", WEXITSTATUS(status));
	job = json_load_file(file, 0, NULL);
	lab_check(a->lab, job, "no JSON from decant migrate");
	return job;
}
