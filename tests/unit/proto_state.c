/* SPDX-License-Identifier: Apache-2.0 */
/* The state machines in the code are those of PROTOCOL.md section 9, in both directions. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "msg.h"
#include "proto_tables.h"
#include "state.h"
#include "util/cleanup.h"
#include "util/log.h"

static int mig_state_of(const char *name)
{
	for (int i = 0; i < MIG_STATE_COUNT_; i++)
		if (!strcmp(mig_state_name(i), name))
			return i;
	cr_assert_fail("no state %s of the source", name);
	return -1;
}

static int inc_state_of(const char *name)
{
	for (int i = 0; i < INC_STATE_COUNT_; i++)
		if (!strcmp(inc_state_name(i), name))
			return i;
	cr_assert_fail("no state %s of the destination", name);
	return -1;
}

static const struct table_row *row_of(const struct table *t, const char *state, const char *event)
{
	const struct table_row *found = NULL;

	for (size_t i = 0; i < t->n; i++)
		if (!strcmp(t->rows[i].cell[0], state) && !strcmp(t->rows[i].cell[1], event)) {
			cr_assert_null(found, "%s %s is there twice", state, event);
			found = &t->rows[i];
		}
	return found;
}

Test(proto_state, source_is_as_specified)
{
	struct table t = table_read("### Source", 4);
	size_t legal = 0;
	int n;

	for (int s = 0; s < MIG_STATE_COUNT_; s++)
		for (int e = 0; e < MIG_EV_COUNT_; e++) {
			const struct table_row *row =
				row_of(&t, mig_state_name(s), mig_event_name(e));
			const struct mig_step *step = mig_step_find(s, e);

			cr_assert_eq(!row, !step, "%s %s", mig_state_name(s), mig_event_name(e));
			if (!row)
				continue;
			legal++;
			cr_assert_eq((int)step->state, s);
			cr_assert_eq((int)step->event, e);
			cr_assert_str_eq(mig_state_name(step->next), row->cell[2]);
			cr_assert_str_eq(mig_action_name(step->action), row->cell[3]);
		}
	/* No row of the page is about a state or an event that the code does not know. */
	cr_assert_eq(legal, t.n);
	mig_steps(&n);
	cr_assert_eq((size_t)n, t.n);
	table_free(&t);
}

Test(proto_state, destination_is_as_specified)
{
	struct table t = table_read("### Destination", 4);
	size_t legal = 0;
	int n;

	for (int s = 0; s < INC_STATE_COUNT_; s++)
		for (int e = 0; e < INC_EV_COUNT_; e++) {
			const struct table_row *row =
				row_of(&t, inc_state_name(s), inc_event_name(e));
			const struct inc_step *step = inc_step_find(s, e);

			cr_assert_eq(!row, !step, "%s %s", inc_state_name(s), inc_event_name(e));
			if (!row)
				continue;
			legal++;
			cr_assert_eq((int)step->state, s);
			cr_assert_eq((int)step->event, e);
			cr_assert_str_eq(inc_state_name(step->next), row->cell[2]);
			cr_assert_str_eq(inc_action_name(step->action), row->cell[3]);
		}
	cr_assert_eq(legal, t.n);
	inc_steps(&n);
	cr_assert_eq((size_t)n, t.n);
	table_free(&t);
}

/* The one setter: takes every legal step and no other, and leaves the state alone then. */
Test(proto_state, setter)
{
	log_setup("error");
	for (int s = 0; s < MIG_STATE_COUNT_; s++)
		for (int e = 0; e < MIG_EV_COUNT_; e++) {
			const struct mig_step *step = mig_step_find(s, e), *ret = NULL;
			enum mig_state state = s;

			cr_assert_eq(mig_state_apply(&state, e, &ret), step ? 0 : -EPROTO);
			cr_assert_eq(ret, step);
			cr_assert_eq((int)state, step ? (int)step->next : s);
		}
	for (int s = 0; s < INC_STATE_COUNT_; s++)
		for (int e = 0; e < INC_EV_COUNT_; e++) {
			const struct inc_step *step = inc_step_find(s, e), *ret = NULL;
			enum inc_state state = s;

			cr_assert_eq(inc_state_apply(&state, e, &ret), step ? 0 : -EPROTO);
			cr_assert_eq(ret, step);
			cr_assert_eq((int)state, step ? (int)step->next : s);
		}
}

/* Behind the last name is no other, and none is there twice. */
Test(proto_state, names)
{
	cr_assert_str_eq(mig_state_name(MIG_STATE_COUNT_), "?");
	cr_assert_str_eq(mig_event_name(MIG_EV_COUNT_), "?");
	cr_assert_str_eq(mig_action_name(MIG_ACT_COUNT_), "?");
	cr_assert_str_eq(inc_state_name(INC_STATE_COUNT_), "?");
	cr_assert_str_eq(inc_event_name(INC_EV_COUNT_), "?");
	cr_assert_str_eq(inc_action_name(INC_ACT_COUNT_), "?");
	for (int i = 0; i < MIG_STATE_COUNT_; i++)
		cr_assert_eq(mig_state_of(mig_state_name(i)), i);
	for (int i = 0; i < INC_STATE_COUNT_; i++)
		cr_assert_eq(inc_state_of(inc_state_name(i)), i);
}

/* An ended job has no way out; every other has one, and some way to an end. */
Test(proto_state, ends)
{
	for (int s = 0; s < MIG_STATE_COUNT_; s++) {
		bool way = false;

		for (int e = 0; e < MIG_EV_COUNT_; e++) {
			const struct mig_step *step = mig_step_find(s, e);

			way |= step && (int)step->next != s;
		}
		cr_assert_eq(way, !mig_state_ended(s), "%s", mig_state_name(s));
	}
	for (int e = 0; e < INC_EV_COUNT_; e++)
		cr_assert_null(inc_step_find(INC_END, e));
}

/* After the hand-over nobody can cancel any more. */
Test(proto_state, no_cancel_after_the_hand_over)
{
	static const enum mig_state late[] = {MIG_HANDOVER,  MIG_POSTCOPY,  MIG_IN_DOUBT,
					      MIG_PAUSED,    MIG_COMPLETED, MIG_FAILED,
					      MIG_RECOVERING};

	for (size_t i = 0; i < ARRAY_SIZE(late); i++)
		cr_assert_null(mig_step_find(late[i], MIG_EV_CANCEL));
	cr_assert(mig_step_find(MIG_SWITCHOVER, MIG_EV_CANCEL));
}

Test(proto_state, phases_and_owners)
{
	static const struct {
		enum mig_state state;
		const char *phase, *owner, *owner_committed;
	} all[] = {
		{MIG_QUEUED, "queued", "source", NULL},
		{MIG_SETUP, "setup", "source", NULL},
		{MIG_PRECOPY, "precopy", "source", NULL},
		{MIG_SWITCHOVER, "switchover", "source", NULL},
		{MIG_HANDOVER, "switchover", "in-doubt", "in-doubt"},
		{MIG_POSTCOPY, "postcopy", "destination", "destination"},
		{MIG_COMPLETED, "completed", "source", "destination"},
		{MIG_CANCELLING, "cancelling", "source", NULL},
		{MIG_CANCELLED, "cancelled", "source", NULL},
		{MIG_FAILING, "cancelling", "source", NULL},
		{MIG_FAILED, "failed", "source", "destination"},
		{MIG_IN_DOUBT, "in-doubt", "in-doubt", "in-doubt"},
		{MIG_PAUSED, "paused", "destination", "destination"},
		{MIG_SAVING, "saving", "source", NULL},
		{MIG_RECOVERING, "recovering", "destination", "destination"},
		{MIG_INTERRUPTED, "paused", "source", NULL},
		{MIG_REJOINING, "recovering", "source", NULL},
	};

	cr_assert_eq(ARRAY_SIZE(all), MIG_STATE_COUNT_);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		cr_assert_str_eq(mig_state_phase(all[i].state), all[i].phase);
		cr_assert_str_eq(mig_owner_name(all[i].state, false), all[i].owner);
		if (all[i].owner_committed)
			cr_assert_str_eq(mig_owner_name(all[i].state, true),
					 all[i].owner_committed);
	}
}

/* --- messages and states --------------------------------------------------------------------- */

static unsigned int type_of(const char *name)
{
	for (unsigned int t = 1; t < 256; t++)
		if (!strcmp(msg_type_name(t), name))
			return t;
	cr_assert_fail("no message %s", name);
	return 0;
}

/* Is @name one of "a, b, c"? */
static bool lists(const char *cell, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = cell; (p = strstr(p, name)); p += n)
		if ((p == cell || p[-1] == ' ') && (!p[n] || p[n] == ','))
			return true;
	return false;
}

/* Every message in every state, against the table that begins with @head. */
static void check_messages(const char *head, bool source)
{
	struct table t = table_read(head, 3);
	int states = source ? MIG_STATE_COUNT_ : INC_STATE_COUNT_;

	cr_assert_gt(t.n, 9);
	for (unsigned int type = 0; type < 256; type++)
		for (int s = 0; s < states; s++) {
			const char *name = source ? mig_state_name(s) : inc_state_name(s);
			bool known = false, allowed = false;
			struct error err = {0};
			int r;

			for (size_t i = 0; i < t.n; i++)
				if (type_of(t.rows[i].cell[0]) == type) {
					known = true;
					allowed = lists(t.rows[i].cell[1], name);
				}
			r = source ? mig_state_check_msg(s, type, &err)
				   : inc_state_check_msg(s, type, &err);
			if (allowed)
				cr_assert_eq(r, 0, "%s in %s", msg_type_name(type), name);
			else if (known && source && (s == MIG_CANCELLING || s == MIG_FAILING))
				cr_assert_eq(r, 1, "%s in %s", msg_type_name(type), name);
			else
				cr_assert_eq(r, -EPROTO, "%s in %s", msg_type_name(type), name);
			if (r < 0) {
				cr_assert_str_eq(err.code, "unexpected-message");
				cr_assert(strstr(err.msg, msg_type_name(type)));
				cr_assert(strstr(err.msg, name));
			}
		}
	table_free(&t);
}

Test(proto_state, messages_of_the_destination)
{
	check_messages("| message | states of the destination", false);
}

Test(proto_state, messages_of_the_source)
{
	check_messages("| message | states of the source", true);
}
