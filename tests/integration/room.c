/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory is promised to a guest when it is admitted, whoever sends it: a second one that does not fit beside the first
 * is refused, and an evacuation takes it elsewhere. Guests have GiB that they never touch, so that what else happens on
 * the machine does not matter.
 */
#include <inttypes.h>
#include <string.h>
#include "host/cgroup.h"
#include "lib/fake_play.h"
#include "lib/lab_test.h"
#include "util/cleanup.h"

TestSuite(room, .timeout = 120);

#define MIB(n) ((int64_t)(n) << 20)

/* Of the machine, or of the control group in which the tests run, if that leaves less. */
static int64_t available(struct lab *lab)
{
	struct cgroup_room group = {.unused = INT64_MAX};
	char *text = lab_read_file("/proc/meminfo");
	const char *at = text ? strstr(text, "MemAvailable:") : NULL;
	int64_t kb = 0;

	lab_check(lab, at && sscanf(at, "MemAvailable: %" SCNd64, &kb) == 1, "/proc/meminfo");
	free(text);
	cgroup_memory("/proc/self/mountinfo", "/proc/self/cgroup", NULL, &group);
	return MIN(kb << 10, (int64_t)group.unused);
}

/* As long as this lives, no other test takes GiB of huge pages, or gives them back. */
static struct lab *lab_of_room(void)
{
	struct lab *lab = lab_new(lab_test_failed);

	lab_huge_pages(lab, 0);
	return lab;
}

/* A destination with this much memory to spare, for fake sources, too. */
static struct lab_host *host(struct lab *lab, const char *name, int64_t bytes)
{
	char *launchers = fake_launchers(lab), *text;
	json_t *conf = json_loads(launchers, 0, NULL);
	struct lab_host *h;

	lab_check(lab, available(lab) > bytes, "this machine has not enough memory");
	json_object_set_new(
		conf, "limits",
		json_pack("{s:I}", "margin_bytes", (json_int_t)(available(lab) - bytes)));
	json_object_del(conf, "source_api");
	text = json_dumps(conf, 0);
	h = lab_host_start(lab, &(struct lab_host_opts){
					.name = name, .identity = "host-b", .dest_conf = text});
	json_decref(conf);
	free(launchers);
	free(text);
	return h;
}

static struct lab_guest *large(struct lab_host *h)
{
	return lab_guest_start(
		h, &(struct lab_guest_opts){.name = "large", .mb = 1024, .empty = true});
}

/* Another source's guest is prepared at @to, and nothing of it has come. */
static struct fake_source *promised(struct lab_host *to, int64_t bytes)
{
	struct fake_source *f = fake_new(
		to,
		&(struct fake_opts){.identity = "host-b",
				    .blocks = {{"ram", MSG_BLOCK_MEMFD, (uint64_t)bytes / 4096}}});

	fake_hello(f);
	fake_setup(f);
	fake_expect(f, MSG_PREPARED);
	return f;
}

static void ends(struct fake_source *f)
{
	fake_close(f);
	lab_until(f->lab, 10000, fake_phase_is(f, "aborted"), "it stays");
	fake_free(f);
}

/* One source has been promised what another one wants; when that is given up, it may. */
Test(room, promised_to_another_source)
{
	struct lab *lab = lab_of_room();
	struct lab_host *a = lab_host_start(lab, &(struct lab_host_opts){.name = "a"}),
			*b = host(lab, "b", MIB(1536));
	struct lab_guest *g = large(a);
	struct fake_source *f = promised(b, MIB(1024)),
			   *second = fake_new(
				   b, &(struct fake_opts){.identity = "host-b",
							  .guest = "other",
							  .blocks = {{"ram", MSG_BLOCK_MEMFD,
								      MIB(1024) / 4096}}});
	json_t *job;
	char *out;

	fake_hello(second);
	fake_setup(second);
	fake_expect_error(second, "no-room", "no room: needs 1073741824 bytes, ");
	fake_free(second);
	job = lab_migrate(a, b, g,
			  &(struct lab_move){.exit = 3, .phase = "failed", .code = "no-room"});
	lab_check(lab,
		  strstr(lab_str(lab, job, "error.message"),
			 " 1073741824 promised to guests that are arriving"),
		  "%s", lab_str(lab, job, "error.message"));
	json_decref(job);
	/* A plan knows it, too. */
	lab_check(lab,
		  lab_decant(a, 10000, &out, NULL,
			     (const char *[]){"evacuate", "--dry-run", "--to", b->to, NULL}) == 1,
		  "it is planned");
	lab_check(lab, strstr(out, "MiB of memory left and 1024 are needed"), "%s", out);
	free(out);
	ends(f);
	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

/* What was free when it was planned is promised to another source since: it goes to the other destination. */
Test(room, an_evacuation_goes_elsewhere)
{
	struct lab *lab = lab_of_room();
	struct lab_host *a = lab_host_start(lab, &(struct lab_host_opts){.name = "a"}),
			*b = host(lab, "b", MIB(3072)), *c = host(lab, "c", MIB(1536));
	struct lab_guest *g = large(a),
			 *first = lab_guest_start(a, &(struct lab_guest_opts){.name = "first",
									      .mb = 16,
									      .threads = 1,
									      .writes = 200});
	struct lab_proc *p = lab_decant_begin(
		a, (const char *[]){"evacuate", "--json", "--wait", "--to", b->to, "--to", c->to,
				    "--order", "smallest", "--concurrency", "1", "--bandwidth",
				    "40Mbit", NULL});
	struct fake_source *f;
	bool refused = false;
	json_t *o, *m;
	size_t i;

	lab_until(lab, 10000, lab_job_newest(a) && lab_job_phase_is(a, "precopy"), "nobody moves");
	f = promised(b, MIB(2560));
	lab_check(lab, lab_proc_wait(lab, p, 60000) == 0, "it is not empty");
	lab_guest_arrived(first, b);
	lab_guest_arrived(g, c);
	o = lab_get(lab, a->source_sock, "/v1/migrations");
	json_array_foreach(lab_at(o, "items"), i, m)
		refused |= !strcmp(lab_str(lab, m, "phase"), "failed") &&
			   !strcmp(lab_str(lab, m, "error.code"), "no-room");
	lab_check(lab, refused, "the first destination has not refused it");
	json_decref(o);
	ends(f);
	lab_end(lab);
}
