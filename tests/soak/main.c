/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `make test-soak`: many migrations there and back under load, with a fault in each. Environment:
 *
 *	SEED	of the plans (by chance, and said)
 *	ROUNDS	how many (500)
 *	ROUND	that one alone, from a fresh start
 *	FAULT	of each round, instead of one by chance: the word that stands in its plan ("none", "kill-dest")
 *	GUEST	qemu: a VM among the guests
 *	QUICK	small guests, nothing that takes seconds
 *
 * SIGTERM ends it behind the round. Exit 0: nothing was lost and nothing leaked. When something fails, seed,
 * round and plan stand above the failure, and the folder of the run, with logs and journals, stays.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "soak/soak.h"

static void failed(const char *msg)
{
	fprintf(stderr, "soak: %s\n", msg);
	exit(1);
}

static uint64_t number(const char *name, uint64_t otherwise, uint64_t most)
{
	const char *text = getenv(name);
	uint64_t v;
	char *end;

	if (!text || !*text)
		return otherwise;
	errno = 0;
	v = strtoull(text, &end, 0);
	if (errno || *end || *text == '-' || v > most) {
		fprintf(stderr, "soak: %s=%s: a number up to %lu is needed\n", name, text, most);
		exit(2);
	}
	return v;
}

static enum soak_fault fault(void)
{
	const char *text = getenv("FAULT");
	enum soak_fault f = text && *text ? soak_fault_of(text) : SOAK_FAULTS;

	if (text && *text && f == SOAK_FAULTS) {
		fprintf(stderr, "soak: FAULT=%s: there is none of this name\n", text);
		exit(2);
	}
	return f;
}

int main(void)
{
	struct soak_opts o = {.rounds = 500, .only = SOAK_FAULTS};
	uint32_t chance = 0;
	struct lab *lab;

	if (getrandom(&chance, sizeof(chance), 0) != sizeof(chance))
		failed("no random numbers");
	o.seed = number("SEED", chance, UINT64_MAX);
	o.rounds = (unsigned int)number("ROUNDS", o.rounds, 1000000);
	o.quick = number("QUICK", 0, 1);
	if (getenv("ROUND") && *getenv("ROUND")) {
		o.first = (unsigned int)number("ROUND", 0, 1000000);
		o.rounds = 1;
	}
	o.only = fault();
	o.vm = getenv("GUEST") && !strcmp(getenv("GUEST"), "qemu");
	setenv("DECANT_KEEP", "1", 0);
	lab = lab_new(failed);
	fprintf(stderr, "soak: in %s\n", lab->root);
	soak_run(lab, &o);
	lab_end(lab);
	return 0;
}
