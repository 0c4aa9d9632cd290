/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unmodified QEMUs moved from outside, between two hosts with both agents. The VM verifies its memory; its
 * clocks and counters must go on. What fails is in qemu_fails.c.
 */
#include <string.h>

#include "lib/lab_test.h"
#include "lib/lab_trip.h"

static void begin_huge(struct lab_trip *t, unsigned int pages, const struct lab_vm_opts *opts)
{
	struct lab *lab = lab_vm_lab();

	if (!lab_huge_pages(lab, pages)) {
		lab_end(lab);
		cr_skip_test("%u huge pages cannot be had here", pages);
	}
	lab_trip_begin(t, lab, opts);
}

/* One boot, three journeys: what has arrived leaves again. */
Test(qemu, every_mode, .timeout = 150)
{
	struct lab_trip t;

	lab_trip_begin(&t, lab_vm_lab(), &(struct lab_vm_opts){.mb = 160, .rate = 1000});
	lab_trip_move(&t, &(struct lab_move){.mode = "hybrid", .tracking = "async"});
	lab_trip_describe(&t);
	lab_trip_move(&t, &(struct lab_move){.mode = "postcopy"});
	lab_trip_describe(&t);
	lab_trip_move(&t, &(struct lab_move){.mode = "precopy", .tracking = "faults"});
	lab_trip_end(&t);
}

Test(qemu, two_processors_at_full_speed_on_memfd, .timeout = 150)
{
	struct lab_trip t;

	lab_test_long();
	lab_trip_begin(&t, lab_vm_lab(),
		       &(struct lab_vm_opts){
			       .mb = 160, .full_speed = true, .smp = 2, .backing = LAB_VM_MEMFD});
	lab_trip_move(&t, &(struct lab_move){.mode = "hybrid"});
	lab_trip_end(&t);
}

/* Another user's, which may not make a userfaultfd for itself. */
Test(qemu, without_rights, .timeout = 150)
{
	struct lab_trip t;

	lab_test_long();
	lab_trip_begin(&t, lab_vm_lab(),
		       &(struct lab_vm_opts){.mb = 144, .rate = 500, .nobody = true});
	lab_trip_move(&t, &(struct lab_move){.mode = "hybrid", .tracking = "async"});
	lab_trip_describe(&t);
	lab_trip_move(&t, &(struct lab_move){.mode = "hybrid", .tracking = "faults"});
	lab_trip_end(&t);
}

Test(qemu, huge_pages, .timeout = 150)
{
	struct lab_trip t;

	lab_test_long();
	begin_huge(&t, 72 * 2 + 4,
		   &(struct lab_vm_opts){.mb = 144, .rate = 500, .backing = LAB_VM_HUGE});
	lab_trip_move(&t, &(struct lab_move){.mode = "hybrid"});
	lab_trip_end(&t);
}

/* Reads with O_DIRECT go around tracking: the job says how it is safe all the same. */
Test(qemu, a_disk_with_direct_io, .timeout = 150)
{
	struct lab_trip t;
	json_t *e;

	lab_test_long();
	lab_trip_begin(&t, lab_vm_lab(),
		       &(struct lab_vm_opts){
			       .mb = 144, .rate = 500, .disk = LAB_VM_DISK_NONE, .disk_mb = 16});
	e = lab_trip_entry(&t, lab_trip_from(&t));
	lab_check(t.lab, strstr(lab_str(t.lab, e, "dma.why"), "direct I/O"), "dma");
	lab_check(t.lab,
		  json_is_false(json_object_get(json_array_get(lab_at(e, "blocks"), 0), "no_dma")),
		  "no_dma");
	json_decref(e);
	lab_vm_do(lab_trip_vm(&t), "disk direct 2 1");
	lab_trip_move(&t, &(struct lab_move){.mode = "hybrid"});
	lab_vm_check(lab_trip_vm(&t));
	lab_trip_describe(&t);
	lab_trip_move(&t, &(struct lab_move){.mode = "postcopy"});
	lab_vm_check(lab_trip_vm(&t));
	lab_trip_end(&t);
}
