/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM that goes between two hosts with both agents, there and back:
 *
 *	lab_trip_begin(&t, lab_vm_lab(), &(struct lab_vm_opts){.mb = 160, .rate = 1000});
 *	lab_trip_move(&t, &(struct lab_move){.mode = "hybrid"});	// and is it the same?
 *	lab_trip_describe(&t);						// the launcher of its next journey
 *	lab_trip_move(&t, &(struct lab_move){.mode = "postcopy"});
 *	lab_trip_end(&t);
 */
#ifndef DECANT_TESTS_LAB_TRIP_H
#define DECANT_TESTS_LAB_TRIP_H

#include "lib/lab_guest.h"
#include "lib/lab_job.h"
#include "lib/lab_vm.h"

#define LAB_TRIP_PLACES 4

/**
 * struct lab_trip - two hosts and a VM that goes between them
 * @hosts:	it is at hosts[i % 2] after i journeys
 * @at:		the VM at each place: the first is where it was started; journey i leads to at[i]
 * @n:		journeys so far
 * @described:	to a decant-source
 * @g:		stands for it where the lab wants a guest: its name
 */
struct lab_trip {
	struct lab *lab;
	struct lab_host *hosts[2];
	struct lab_vm *at[LAB_TRIP_PLACES];
	unsigned int n;
	bool described;
	struct lab_guest g;
};

/**
 * lab_trip_begin() - boot it, start the hosts, describe it for its first journey
 *
 * Launchers of both hosts: "vm1", "vm2"… each start one of the twins. "machine", "running", "serial", "rng" and
 * "no-file" start the first of them in ways in which the VM cannot go on; for "serial" it must have "-serial null".
 */
void lab_trip_begin(struct lab_trip *t, struct lab *lab, const struct lab_vm_opts *opts);
/** lab_trip_end() - end it and the lab */
void lab_trip_end(struct lab_trip *t);
/** lab_trip_vm() - Return: the VM where it is */
struct lab_vm *lab_trip_vm(struct lab_trip *t);
/** lab_trip_from() - Return: the host where it is; lab_trip_to(): the other */
struct lab_host *lab_trip_from(struct lab_trip *t);
struct lab_host *lab_trip_to(struct lab_trip *t);
/** lab_trip_entry() - Return: the VM at this host's decant-source, new reference */
json_t *lab_trip_entry(struct lab_trip *t, struct lab_host *h);
/** lab_trip_describe() - describe it where it is, with the launcher of its next journey */
void lab_trip_describe(struct lab_trip *t);
/** lab_trip_describe_for() - with this launcher */
void lab_trip_describe_for(struct lab_trip *t, const char *launcher);
/** lab_trip_attach() - it has arrived: count the journey, connect to it */
void lab_trip_attach(struct lab_trip *t);
/** lab_trip_came() - lab_trip_attach(), and nothing of it may be where it was */
void lab_trip_came(struct lab_trip *t);
/** lab_trip_move() - a journey that succeeds: it is all there, and goes on */
void lab_trip_move(struct lab_trip *t, const struct lab_move *how);

#endif
