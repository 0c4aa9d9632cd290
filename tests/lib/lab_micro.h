/* SPDX-License-Identifier: Apache-2.0 */
/* A host that serves micro-VMs out of images, and the micro-VM tests/guests/microvm. Its files are in the host's folder. */
#ifndef DECANT_TESTS_LAB_MICRO_H
#define DECANT_TESTS_LAB_MICRO_H

#include "lib/lab.h"

/** micro_host() - host b with a decant-dest only */
struct lab_host *micro_host(struct lab *lab);
/** micro_command() - `decant-dest ARGS`. Return: its exit code; what it printed, for free(3), where asked for */
int micro_command(struct lab_host *b, char **ret_out, char **ret_err, const char *const args[]);
/** micro_refused() - the command ends with @exit, and says @why */
void micro_refused(struct lab_host *b, int exit, const char *why, const char *const args[]);

/** micro_memory() - a file of @size bytes: pages of data, some of them empty, and a hole */
void micro_memory(struct lab_host *b, const char *file, size_t size);
/** micro_import() - it becomes the image @name */
void micro_import(struct lab_host *b, const char *file, const char *name);
/** micro_uffd() - `decant-dest uffd`. Return: id, for free(3) */
char *micro_uffd(struct lab_host *b, const char *name, const char *sock);

/** micro_phase_is() - Return: whether GET /v1/incoming/@id says so */
bool micro_phase_is(struct lab_host *b, const char *id, const char *phase);
/** micro_code_is() - Return: whether this is its error's code */
bool micro_code_is(struct lab_host *b, const char *id, const char *code);
/** micro_message_has() - Return: whether its error's message has @what in it */
bool micro_message_has(struct lab_host *b, const char *id, const char *what);
/** micro_number() - Return: a number of it */
double micro_number(struct lab_host *b, const char *id, const char *path);

/** micro_start() - a micro-VM called @name connects to @sock, and compares with the file @memory */
struct lab_proc *micro_start(struct lab_host *b, const char *name, const char *sock,
			     const char *memory, const char *const options[]);
/** micro_said() - Return: whether it has printed @text; it must never have seen a wrong page */
bool micro_said(struct lab_host *b, const struct lab_proc *p, const char *text);
/** micro_ok() - wait until it has seen all its pages, and they were right */
void micro_ok(struct lab_host *b, struct lab_proc *p);
/** micro_end() - kill it, and wait until @id is noticed to have ended as @phase */
void micro_end(struct lab_host *b, struct lab_proc *p, const char *id, const char *phase);

#endif
