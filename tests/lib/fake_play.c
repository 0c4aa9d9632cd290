/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdlib.h>
#include "lib/fake_play.h"
#include "lib/lab_job.h"

const char *fake_moment_name(enum fake_moment when)
{
	static const char *const names[] = {"hello",    "attaching", "prepared", "intent",
					    "switched", "listening", "ready",    "running"};

	return names[when];
}

struct lab_host *fake_host(void (*failed)(const char *msg))
{
	struct lab *lab = lab_new(failed);
	char *conf = fake_launchers(lab);
	struct lab_host *b = lab_host_start(
		lab, &(struct lab_host_opts){.name = "b", .no_source = true, .dest_conf = conf});

	free(conf);
	return b;
}

void fake_play(struct fake_source *f, enum fake_moment until)
{
	fake_hello(f);
	if (until >= FAKE_ATTACHING)
		fake_setup(f);
	if (until < FAKE_PREPARED)
		return;
	fake_expect(f, MSG_PREPARED);
	fake_channel(f, MSG_CHANNEL_URGENT, 0, &f->urgent, &(struct error){0});
	fake_channel(f, MSG_CHANNEL_BULK, 0, &f->bulk[0], &(struct error){0});
	fake_pages(f, &f->bulk[0], 0, 0, 100);
	fake_barrier(f);
	if (until >= FAKE_INTENT)
		fake_intent(f);
	if (until >= FAKE_SWITCHED)
		fake_switch(f);
	if (until >= FAKE_SWITCHED)
		fake_discard(f, 0, 10, 20);
	if (until >= FAKE_LISTENING)
		fake_listen(f, true);
	if (until >= FAKE_READY) {
		fake_state(f, 0);
		fake_ready(f);
	}
	if (until >= FAKE_RUNNING)
		fake_commit(f);
}

struct fake_source *fake_early(struct lab_host *to, bool urgent, unsigned int early)
{
	struct fake_source *f = fake_new(to, &(struct fake_opts){.urgent = urgent});

	fake_prepared(f);
	fake_intent(f);
	fake_switch(f);
	fake_listen(f, true);
	fake_state(f, 0);
	fake_ready(f);
	fake_commit(f);
	fake_raw(f, &f->bulk[0], 0, 0, early);
	fake_barrier(f);
	return f;
}

void fake_completed(struct fake_source *f)
{
	struct lab *lab = f->lab;
	json_t *o;

	fake_complete(f);
	fake_expect(f, MSG_RECEIPT);
	lab_check(lab, f->m.receipt.digest_ok && f->m.receipt.n == f->nblocks, "the receipt");
	for (unsigned int i = 0; i < f->nblocks; i++)
		lab_check(lab,
			  f->m.receipt.pages[i] * (f->o.blocks[i].kind == 2 ? 512 : 1) ==
				  f->o.blocks[i].pages,
			  "the receipt counts %lu pages of block %u", f->m.receipt.pages[i], i);
	fake_close(f);
	lab_until(lab, 10000, fake_phase_is(f, "completed"), "the phase");
	o = fake_view(f);
	lab_check(lab, json_is_true(lab_at(o, "digest_ok")), "digest_ok");
	lab_check(lab, lab_num(lab, o, "memory.missing_pages") == 0, "missing pages");
	json_decref(o);
	lab_check(lab, fake_query(f, 7) == MSG_ANSWER_COMPLETED, "what a query is told");
	if (!f->o.paused)
		lab_until(lab, 20000, fake_report_is(f, "good"), "what the guest has seen");
}

void fake_end(struct fake_source *f)
{
	struct lab *lab = f->lab;
	pid_t pid = fake_guest_pid(f);

	fake_free(f);
	if (pid)
		kill(pid, SIGKILL);
	lab_end(lab);
}
