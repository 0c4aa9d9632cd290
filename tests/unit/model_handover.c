/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every order in which messages, losses, crashes and restarts can come around a hand-over (tests/lib/model.h): the
 * guest never runs twice, its only copy is never lost, and once nothing goes wrong any more it runs in one place, or an
 * operator can decide where. And the same with one rule broken at a time, which must be found.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/model.h"

TestSuite(model_handover, .timeout = 240);

static void holds(const char *what, const struct bounds *b)
{
	struct result r = model_walk(&model_rules, b);

	printf("model_handover: %s: %llu situations, %llu steps\n", what,
	       (unsigned long long)r.states, (unsigned long long)r.steps);
	cr_assert(!r.wrong, "%s:\n%s", r.wrong, r.trace);
	free(r.trace);
}

Test(model_handover, agents_and_connection)
{
	holds("each agent killed twice, three breaks, a cancel",
	      &(struct bounds){.breaks = 3, .s_kills = 2, .d_kills = 2, .orders = 1});
}

Test(model_handover, hosts_and_journals)
{
	holds("an agent of each killed, two breaks, each host started again, a journal lost, "
	      "a death",
	      &(struct bounds){.breaks = 2,
			       .s_kills = 1,
			       .d_kills = 1,
			       .s_boots = 1,
			       .d_boots = 1,
			       .losses = 1,
			       .deaths = 1});
}

Test(model_handover, operators)
{
	holds("two orders, each agent killed, two breaks, the destination started again, a "
	      "journal lost, a death",
	      &(struct bounds){.breaks = 2,
			       .s_kills = 1,
			       .d_kills = 1,
			       .d_boots = 1,
			       .losses = 1,
			       .deaths = 1,
			       .orders = 2});
}

/* Whatever may still lead to COMMIT is given up before its source is answered; what is behind it stays. */
Test(model_handover, who_is_asked_gives_up_what_is_before_commit)
{
	for (int s = 0; s < INC_STATE_COUNT_; s++) {
		bool leads = s <= INC_READY || s == INC_WAITING;

		if (s != INC_STORING)
			cr_assert_eq(doubt_abort_when_asked((enum inc_state)s), leads, "%s",
				     inc_state_name((enum inc_state)s));
	}
}

/* --- rules that are wrong --- */

static bool unknown_is_a_no(enum mig_state s, enum msg_answer answer, enum mig_event *ret)
{
	return doubt_settled(s, answer == MSG_ANSWER_UNKNOWN ? MSG_ANSWER_NOT_STARTED : answer,
			     ret);
}

static bool boot_does_not_matter(enum history_fate fate, bool same_boot)
{
	(void)same_boot;
	return doubt_abort_at_start(fate, true);
}

static enum msg_answer no_without_a_record(enum history_fate fate, bool same_boot)
{
	return fate <= HISTORY_MAY_OWN ? MSG_ANSWER_NOT_STARTED : doubt_answer(fate, same_boot);
}

static bool goes_on_when_asked(enum inc_state s)
{
	(void)s;
	return false;
}

static struct doubt_place own_after_a_restart(enum mig_record last)
{
	return doubt_restarted(last == MIG_REC_MAY_HAND_OVER ? MIG_REC_CREATED : last);
}

static bool nobodys_after_a_restart(enum history_fate fate, bool same_boot, bool overruled)
{
	(void)fate;
	(void)same_boot;
	(void)overruled;
	return false;
}

static enum doubt_kept never_ran(enum history_fate fate, bool same_boot)
{
	(void)fate;
	(void)same_boot;
	return DOUBT_KEPT_NOTHING;
}

static bool nothing_to_resolve(struct doubt_place place, bool kept)
{
	(void)place;
	(void)kept;
	return false;
}

static const struct mig_step *no_point_of_no_return(enum mig_state s, enum mig_event ev)
{
	static const struct mig_step back = {MIG_HANDOVER, MIG_EV_LOST, MIG_FAILING,
					     MIG_ACT_ROLLBACK};

	return s == MIG_HANDOVER && ev == MIG_EV_LOST ? &back : mig_step_find(s, ev);
}

static const struct mig_step *cancelled_in_doubt(enum mig_state s, enum mig_event ev)
{
	static const struct mig_step back = {MIG_IN_DOUBT, MIG_EV_CANCEL, MIG_CANCELLING,
					     MIG_ACT_ROLLBACK};

	return s == MIG_IN_DOUBT && ev == MIG_EV_CANCEL ? &back : mig_step_find(s, ev);
}

/* Return: the rules as they are, for a mutant to spoil */
static struct rules as_it_is(const char *name)
{
	struct rules r = model_rules;

	r.name = name;
	return r;
}

static void is_found(const struct rules *r, const char *what)
{
	static const struct bounds all = {
		.breaks = 1, .s_kills = 1, .d_kills = 1, .d_boots = 1, .deaths = 1, .orders = 1};
	struct result got = model_walk(r, &all);

	cr_assert(got.wrong, "%s: not found in %llu situations", r->name,
		  (unsigned long long)got.states);
	printf("model_handover: %s: %s\n%s", r->name, got.wrong, got.trace);
	cr_assert(strstr(got.wrong, what), "%s: %s\n%s", r->name, got.wrong, got.trace);
	free(got.trace);
}

#define FINDS(mutant, what, spoil)                            \
	Test(model_handover, finds_##mutant)                  \
	{                                                     \
		struct rules r = as_it_is("mutant " #mutant); \
                                                              \
		spoil;                                        \
		is_found(&r, what);                           \
	}

#define RAN   "it has run at the destination"
#define TWICE "runs in two places"

FINDS(unknown_is_a_no, RAN, r.settled = unknown_is_a_no)
FINDS(another_boot_is_a_no, "\"aborted\" is recorded of a guest that has run",
      r.abort_at_start = boot_does_not_matter)
FINDS(no_without_a_record, RAN, r.answer = no_without_a_record)
FINDS(asked_and_goes_on, RAN,
      (r.abort_when_asked = goes_on_when_asked, r.answer = no_without_a_record))
FINDS(aborted_not_recorded, "runs at the source, and the job says otherwise", r.no_aborted = true)
FINDS(owner_behind_the_run, "\"aborted\" is recorded of a guest that has run",
      r.run_before_owner = true)
FINDS(may_hand_over_not_recorded, TWICE, r.no_may_hand_over = true)
FINDS(source_forgets, TWICE, r.restarted = own_after_a_restart)
FINDS(destination_forgets, "nowhere", r.mine = nobodys_after_a_restart)
FINDS(lost_is_a_no, TWICE, r.src_step = no_point_of_no_return)
FINDS(cancelled_in_doubt, TWICE, r.src_step = cancelled_in_doubt)
FINDS(ended_before_the_receipt, "before the destination had all", r.quit_on_running = true)
FINDS(kept_and_not_heard, "never told", r.kept_unheard = true)
FINDS(kept_and_not_believed, TWICE, r.kept = never_ran)
FINDS(decision_not_recorded, TWICE, r.resume_unnoted = true)
FINDS(nothing_to_resolve, "job says otherwise", r.may_resolve = nothing_to_resolve)
