/* SPDX-License-Identifier: Apache-2.0 */
/* What the demonstrations share. */
#ifndef DECANT_TESTS_DEMO_LIB_H
#define DECANT_TESTS_DEMO_LIB_H

#include <jansson.h>
#include "lib/lab.h"
#include "lib/lab_job.h"

/** demo_failed() - say why and end, as a lab_failed_fn */
void demo_failed(const char *msg) __attribute__((noreturn));
/** demo_number() - of the environment; ends with 2 if it is not one from @min to @max */
unsigned int demo_number(const char *name, unsigned int dflt, unsigned int min, unsigned int max);
/** demo_mode() - MODE of the environment, checked */
const char *demo_mode(void);
/** demo_migrate() - run the operator's command as a person would see it. Return: its JSON, new reference */
json_t *demo_migrate(struct lab_host *a, struct lab_host *b, const char *guest, const char *how);

#endif
