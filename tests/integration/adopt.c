/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decant-dest is killed in post-copy and started again: its guest, which faults all the time, waits
 * meanwhile, is taken over by the new agent, gets every page once, and the migration completes.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/fake_play.h"
#include "lib/lab_paint.h"
#include "lib/lab_test.h"

TestSuite(adopt, .timeout = 120);

/** struct scene - a guest that is in post-copy */
struct scene {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab_move move;
	struct lab_proc *p;
};

#define MB 48

/* 48 MiB at 100 Mbit/s take four seconds, less what is asked for. */
static struct scene begin(const struct lab_guest_opts *guest, const char *channels)
{
	struct scene s = {.move = {.mode = "postcopy",
				   .args = {"--bandwidth", "100Mbit", "--channels", channels}}};

	s.lab = lab_test_pair(&s.a, &s.b);
	s.g = lab_guest_start(s.a, guest);
	s.p = lab_migrate_begin(s.a, s.b, s.g, &s.move);
	lab_until(s.lab, 10000, lab_job_phase_is(s.a, "postcopy"), "post-copy was not reached");
	return s;
}

#define BUSY(k)                                                   \
	&(struct lab_guest_opts)                                  \
	{                                                         \
		.mb = MB, .kind = k, .threads = 2, .writes = 400, \
	}

/* One look: post-copy goes on meanwhile. Return: bytes that remain, or -1 in another phase */
static double left_now(struct scene *s)
{
	json_t *job = lab_job_newest(s->a);
	bool is = !strcmp(lab_str(s->lab, job, "phase"), "postcopy");
	double n = is ? lab_num(s->lab, job, "memory.remaining_bytes") : -1;

	lab_check(s->lab, strcmp(lab_str(s->lab, job, "phase"), "completed") != 0,
		  "post-copy was over too soon");
	json_decref(job);
	return n;
}

/* Post-copy, until no more than this part of the memory is to be sent. */
static void until_left(struct scene *s, double part)
{
	double left = -1;

	lab_until(s->lab, 20000, (left = left_now(s)) >= 0 && left < part * MB * (1 << 20),
		  "nothing is sent");
	lab_check(s->lab, left > 0, "post-copy was over too soon");
}

/* Not to wait for the source's next attempt. */
static void recover_now(struct scene *s)
{
	json_t *job = lab_job_newest(s->a);

	lab_decant(s->a, 10000, NULL, NULL,
		   (const char *[]){"recover", lab_str(s->lab, job, "id"), NULL});
	json_decref(job);
}

static void kill_dest(struct scene *s)
{
	lab_proc_kill(s->lab, s->b->dest);
	lab_guest_unbroken(s->g, s->a, s->b);
	lab_host_dest_start(s->b);
}

static void taken_over(struct scene *s)
{
	lab_until(s->lab, 10000, lab_proc_said(s->lab, s->b->dest, "until its source makes"),
		  "the guest is not taken over");
}

static void goes_on(struct scene *s)
{
	taken_over(s);
	recover_now(s);
	lab_until(s->lab, 15000, lab_proc_said(s->lab, s->b->dest, "there is a session again"),
		  "it was not recovered");
}

/*
 * It completes, every page is verified where the guest is now, and what was sent twice is what had been
 * under way: in buffers of the kernels and of the agent.
 */
static void ends(struct scene *s, unsigned int cuts)
{
	json_t *job = lab_migrate_end(s->a, s->p, &s->move);
	double sent = lab_num(s->lab, job, "memory.sent_bytes");
	double zero = lab_num(s->lab, job, "memory.zero_pages") * 4096;
	double total = lab_num(s->lab, job, "memory.total_bytes");

	lab_check(s->lab, sent + zero <= total + cuts * 8.0 * (1 << 20),
		  "%.0f bytes sent and %.0f of zeros for %.0f, with %u ends", sent, zero, total,
		  cuts);
	json_decref(job);
	lab_guest_arrived(s->g, s->b);
	lab_end(s->lab);
}

/* At the beginning, in the middle, and when little is missing. */
static void killed_at_every_moment(enum lab_kind kind, const char *channels)
{
	static const double left[] = {0.9, 0.65, 0.4};
	struct scene s = begin(BUSY(kind), channels);

	for (size_t i = 0; i < LAB_COUNT(left); i++) {
		until_left(&s, left[i]);
		kill_dest(&s);
		goes_on(&s);
	}
	ends(&s, LAB_COUNT(left));
}

Test(adopt, killed_at_every_moment)
{
	killed_at_every_moment(LAB_MEMFD, "2");
}

Test(adopt, private_memory)
{
	killed_at_every_moment(LAB_ANON, "1");
}

/* By SIGTERM, as when it is replaced by a newer build. */
Test(adopt, ended_and_started)
{
	struct scene s = begin(BUSY(LAB_MEMFD), "1");

	until_left(&s, 0.6);
	kill(s.b->dest->pid, SIGTERM);
	lab_check(s.lab, lab_proc_wait(s.lab, s.b->dest, 10000) == 0, "it does not end well");
	lab_guest_unbroken(s.g, s.a, s.b);
	lab_host_dest_start(s.b);
	goes_on(&s);
	ends(&s, 1);
}

/* The source finds its way back by itself; nobody says when. */
Test(adopt, both_are_killed)
{
	struct scene s = begin(BUSY(LAB_MEMFD), "1");

	until_left(&s, 0.6);
	lab_proc_kill(s.lab, s.b->dest);
	lab_proc_kill(s.lab, s.a->source);
	lab_guest_unbroken(s.g, s.a, s.b);
	lab_host_source_start(s.a);
	lab_host_dest_start(s.b);
	/* What the first source had measured nobody knows any more. */
	lab_check(s.lab, lab_proc_wait(s.lab, s.p, 30000) == 0, "it does not complete");
	lab_check(s.lab, lab_job_phase_is(s.a, "completed"), "the phase");
	lab_guest_arrived(s.g, s.b);
	lab_end(s.lab);
}

/* Before it has the guest back, when it has, and as soon as the session stands again. */
Test(adopt, killed_while_recovering)
{
	struct scene s = begin(BUSY(LAB_MEMFD), "1");

	until_left(&s, 0.7);
	kill_dest(&s);
	kill_dest(&s);
	taken_over(&s);
	kill_dest(&s);
	goes_on(&s);
	kill_dest(&s);
	goes_on(&s);
	ends(&s, 4);
}

/* --- what cannot be taken over stays held --- */

static void lose_states(struct scene *s)
{
	const char *dir = lab_host_path(s->b, "run");
	DIR *d = opendir(dir);
	struct dirent *e;
	int n = 0;

	lab_check(s->lab, d, "no folder %s", dir);
	while ((e = readdir(d)))
		if (!strncmp(e->d_name, "pages.", 6))
			n += !unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
	lab_check(s->lab, n, "there are no states");
}

/* Nobody knows which pages are here: none is guessed, none is zeros. */
Test(adopt, without_the_states)
{
	struct scene s = begin(BUSY(LAB_MEMFD), "1");
	uint64_t end;

	until_left(&s, 0.6);
	lab_proc_kill(s.lab, s.b->dest);
	lose_states(&s);
	lab_host_dest_start(s.b);
	lab_until(s.lab, 10000, lab_proc_said(s.lab, s.b->dest, "it cannot be taken over"),
		  "it is not said");
	recover_now(&s);
	for (end = lab_now_ms() + 500; lab_now_ms() < end; lab_nap())
		lab_guest_unbroken(s.g, s.a, s.b);
	lab_until(s.lab, 5000, lab_job_phase_is(s.a, "paused"), "it is not paused");
	lab_check(s.lab, lab_guest_pid(s.g, s.b), "it is gone at the destination");
	lab_proc_kill(s.lab, s.p);
	lab_guest_abandon(s.g);
	lab_until(s.lab, 5000, lab_proc_said(s.lab, s.b->dest, "has died"),
		  "its death is not noticed");
	lab_end(s.lab);
}

/* Taken over, and then it dies. */
Test(adopt, the_guest_dies)
{
	struct scene s = begin(BUSY(LAB_MEMFD), "1");

	until_left(&s, 0.7);
	kill_dest(&s);
	taken_over(&s);
	lab_proc_kill(s.lab, s.p);
	lab_guest_abandon(s.g);
	lab_until(s.lab, 5000, lab_proc_said(s.lab, s.b->dest, "has died"),
		  "its death is not noticed");
	lab_end(s.lab);
}

/* --- step by step --- */

#define PAGES 256
/* Pages that arrive before the agent is killed. */
#define EARLY 64

static void dest_again(struct fake_source *f)
{
	lab_proc_kill(f->lab, f->to->dest);
	fake_close(f);
	lab_host_dest_start(f->to);
	lab_until(f->lab, 10000, lab_proc_said(f->lab, f->to->dest, "until its source makes"),
		  "the guest is not taken over");
}

/* RESUME, and what is told of the first pages. */
static void resume(struct fake_source *f)
{
	struct error err = {0};

	lab_check(f->lab, fake_phase_is(f, "held"), "it is not held");
	lab_check(f->lab, fake_query(f, 7) == MSG_ANSWER_RUNNING, "what it says when asked");
	lab_check(f->lab, !fake_channel(f, MSG_CHANNEL_CONTROL, 0, &f->control, &err), "HELLO: %s",
		  err.msg);
	f->m.type = MSG_RESUME;
	f->m.resume = (struct msg_resume){.generation = 7, .bulk_channels = 1};
	fake_send(f);
	fake_expect(f, MSG_RECEIVED);
	lab_check(f->lab, f->m.received.words[0] == UINT64_MAX, "the first %d are here", EARLY);
	fake_expect(f, MSG_RESUMED);
	lab_check(f->lab, f->m.resumed.pass == f->pass, "pass %u", f->m.resumed.pass);
	f->runs = 0;
	f->digest_sum = 0;
}

static void go_on(struct fake_source *f)
{
	struct error err = {0};

	lab_check(f->lab, !fake_channel(f, MSG_CHANNEL_URGENT, 0, &f->urgent, &err), "%s", err.msg);
	lab_check(f->lab, !fake_channel(f, MSG_CHANNEL_BULK, 0, &f->bulk[0], &err), "%s", err.msg);
	fake_send_simple(f, MSG_CONTINUE);
	lab_check(f->lab, fake_serve(f, 300) > 0, "it does not ask for what its guest waits for");
}

static void arrived(struct fake_source *f)
{
	struct lab *lab = f->lab;

	lab_until(lab, 10000, fake_phase_is(f, "completed"), "the phase");
	lab_until(lab, 20000, fake_report_is(f, "good"), "what the guest has seen");
	/* It is at home: it ends with the lab. */
	kill(fake_guest_pid(f), SIGKILL);
	fake_free(f);
	lab_end(lab);
}

Test(adopt, killed_between_resumed_and_continue)
{
	struct fake_source *f = fake_early(fake_host(lab_test_failed), true, EARLY);

	dest_again(f);
	resume(f);
	dest_again(f);
	resume(f);
	go_on(f);
	fake_all(f);
	fake_barrier(f);
	fake_complete(f);
	fake_expect(f, MSG_RECEIPT);
	lab_check(f->lab, f->m.receipt.digest_ok && f->m.receipt.pages[0] == PAGES, "the receipt");
	fake_close(f);
	arrived(f);
}

/* Every page had been placed, and nobody had been told: the new agent sees that by itself, and says so. */
Test(adopt, killed_when_all_is_here)
{
	struct fake_source *f = fake_early(fake_host(lab_test_failed), true, EARLY);

	fake_pages(f, &f->bulk[0], 0, EARLY, PAGES - EARLY);
	fake_barrier(f);
	dest_again(f);
	lab_until(f->lab, 10000, fake_query(f, 7) == MSG_ANSWER_COMPLETED, "what it says");
	arrived(f);
}

/* --- with others who share the memory --- */

static struct lab_proc *share(struct paint_world *w)
{
	char program[LAB_PATH_MAX + 32], report[LAB_PATH_MAX + 32], pid[16];

	snprintf(program, sizeof(program), "%s/guests/sharer", w->lab->tests);
	snprintf(report, sizeof(report), "%s/sharer.report", w->lab->root);
	snprintf(pid, sizeof(pid), "%ld", paint_said(w, "pid"));
	return lab_spawn(w->lab, NULL, "sharer",
			 (const char *const[]){program, pid, "paint", "sharer",
					       lab_host_path(w->b, "dest.attach"), report, "stay",
					       NULL});
}

static bool reports(struct paint_world *w, const char *what)
{
	char path[LAB_PATH_MAX + 32], *text;
	bool yes;

	snprintf(path, sizeof(path), "%s/sharer.report", w->lab->root);
	text = lab_read_file(path);
	lab_check(w->lab, !text || strncmp(text, "bad", 3), "the sharer has found a %s", text);
	yes = text && !strncmp(text, what, strlen(what));
	free(text);
	return yes;
}

/* It attaches itself again, before or behind the end, and sees every page, too. */
Test(adopt, with_a_sharer)
{
	struct paint_world w = paint_world(lab_new(lab_test_failed), "16", "0");
	struct lab_proc *job = paint_migrate(&w, "postcopy", "32Mbit"), *s;

	lab_until(w.lab, 20000, paint_phase_is(&w, "running"), "the guest does not run");
	/* Else all of its pages are asked for, and here, in a fraction of a second. */
	kill(w.a->source->pid, SIGSTOP);
	s = share(&w);
	lab_until(w.lab, 10000, reports(&w, "guarded"), "not guarded");
	lab_proc_kill(w.lab, w.b->dest);
	lab_check(w.lab, !reports(&w, "good"), "all was over too early");
	kill(w.a->source->pid, SIGCONT);
	lab_host_dest_start(w.b);
	lab_check(w.lab, lab_proc_wait(w.lab, job, 30000) == 0, "it does not complete");
	lab_until(w.lab, 10000, paint_said(&w, "done"), "the guest does not come to an end");
	lab_until(w.lab, 10000, reports(&w, "good"), "the sharer has not seen all pages");
	lab_check(w.lab, paint_said(&w, "bad") == 0, "the guest has found bad pages");
	kill(s->pid, SIGTERM);
	lab_check(w.lab, lab_proc_wait(w.lab, s, 10000) == 0, "the sharer");
	kill((pid_t)paint_said(&w, "pid"), SIGKILL);
	lab_end(w.lab);
}
