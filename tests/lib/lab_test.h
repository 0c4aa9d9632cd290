/* SPDX-License-Identifier: Apache-2.0 */
/* Binds the lab to Criterion; for the test programs only. */
#ifndef DECANT_TESTS_LAB_TEST_H
#define DECANT_TESTS_LAB_TEST_H

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include "lib/lab.h"
#include "lib/lab_guest.h"
#include "lib/lab_job.h"

static void lab_test_failed(const char *msg)
{
	cr_assert(false, "%s", msg);
}

/** LAB_COUNT - elements of an array */
#define LAB_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/** lab_test_pair() - a lab with hosts a and b, as most tests want it */
static inline struct lab *lab_test_pair(struct lab_host **ret_a, struct lab_host **ret_b)
{
	struct lab *lab = lab_new(lab_test_failed);

	*ret_a = lab_host_start(lab, &(struct lab_host_opts){.name = "a"});
	*ret_b = lab_host_start(lab, &(struct lab_host_opts){.name = "b"});
	return lab;
}

#endif
