/* SPDX-License-Identifier: Apache-2.0 */
/* Binds the lab to Criterion; for the test programs only. */
#ifndef DECANT_TESTS_LAB_TEST_H
#define DECANT_TESTS_LAB_TEST_H

#include <stdlib.h>

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include "lib/lab.h"
#include "lib/lab_guest.h"
#include "lib/lab_job.h"
#include "lib/lab_vm.h"

static void lab_test_failed(const char *msg)
{
	cr_assert(false, "%s", msg);
}

/** LAB_COUNT - elements of an array */
#define LAB_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/** lab_test_long() - first thing in a test that is of full runs only */
static inline void lab_test_long(void)
{
	const char *full = getenv("DECANT_FULL");

	if (!full || !*full)
		cr_skip_test("tests/run --full");
}

/** lab_test_pair() - a lab with hosts a and b, as most tests want it */
static inline struct lab *lab_test_pair(struct lab_host **ret_a, struct lab_host **ret_b)
{
	struct lab *lab = lab_new(lab_test_failed);

	*ret_a = lab_host_start(lab, &(struct lab_host_opts){.name = "a"});
	*ret_b = lab_host_start(lab, &(struct lab_host_opts){.name = "b"});
	return lab;
}

/** lab_vm_lab() - an empty lab for VMs, where they can be had: else the test is skipped, with the reason */
static inline struct lab *lab_vm_lab(void)
{
	struct lab *lab = lab_new(lab_test_failed);
	const char *missing = lab_vm_missing(lab);

	if (missing) {
		lab_end(lab);
		cr_skip_test("%s", missing);
	}
	return lab;
}

#endif
