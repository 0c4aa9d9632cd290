/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual machines that boot Debian with systemd, joined by a wire: hosts like an operator's, for
 * tests/hosts. What they boot is made by tests/hosts/make. A shell on the second serial port does what it
 * is told (tests/hosts/image/usr/local/sbin/lab-shell); nothing of decant is in there until the test
 * installs it.
 *
 * They are emulated and this machine may be busy: bounds are many minutes, and what is waited for is an event.
 */
#ifndef DECANT_TESTS_HOSTS_MACHINE_H
#define DECANT_TESTS_HOSTS_MACHINE_H

#include "lib/lab.h"

/** MACHINE_MS - bound of what takes seconds on a machine of one's own */
#define MACHINE_MS 1200000

/**
 * struct machine - one of them
 * @name:	its host name, "host-a" or "host-b"
 * @dir:	below the lab's: what it gets goes into the folder "files" there
 * @shell:	connection to its serial port
 * @said, @n:	what has come of that and has not been taken yet
 */
struct machine {
	struct lab *lab;
	char name[16];
	char dir[LAB_PATH_MAX];
	struct lab_proc *qemu;
	int shell;
	char *said;
	size_t n;
};

/** machines_missing() - Return: NULL, or why there cannot be any here; valid until the next call */
const char *machines_missing(void);
/** machine_init() - names and folders of host a (0) or b (1) */
void machine_init(struct lab *lab, unsigned int i, struct machine *ret);
/** machine_boot() - pack its files, start it; machine_up() is next */
void machine_boot(struct machine *m);
/** machine_up() - wait until it has booted, again or for the first time. Return: seconds since @since_ms */
double machine_up(struct machine *m, uint64_t since_ms);
/**
 * machine_try() - run a line of shell there
 * @ret_out:	what it printed, for free(3); may be NULL
 *
 * Return: its status
 */
int machine_try(struct machine *m, char **ret_out, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/** machine_sh() - the same of one that must succeed. Return: what it printed, for free(3) */
char *machine_sh(struct machine *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** machine_do() - the same, of which nobody wants to read */
#define machine_do(...) free(machine_sh(__VA_ARGS__))
/** machine_tell() - begin a line and do not wait for its end; machine_ended() is next */
void machine_tell(struct machine *m, const char *line);
/** machine_ended() - wait for the end of what machine_tell() began. Return: as machine_try() */
int machine_ended(struct machine *m, char **ret_out);
/** machine_free() - it is not ended: that is done by the lab */
void machine_free(struct machine *m);

#endif
