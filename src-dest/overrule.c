/* SPDX-License-Identifier: Apache-2.0 */
#include "overrule.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>
#include "audit/audit.h"
#include "incoming_priv.h"
#include "proc.h"
#include "util/cleanup.h"
#include "util/log.h"

/* A signal, and not the guest's driver: whoever waits for a missing page cannot be asked for anything. */
bool overrule_stop(const struct past *p)
{
	CLEANUP_CLOSE int fd = p->pid > 0 ? pidfd_open(p->pid, 0) : -1;

	/* Looked at behind the opening: the pid may be another one's by now. */
	if (fd < 0 || !proc_lives(p->pid, p->pid_start))
		return false;
	if (pidfd_send_signal(fd, SIGSTOP, NULL, 0)) {
		log_error("guest %s, process %d, cannot be stopped: %s", p->name, (int)p->pid,
			  strerror(errno));
		return errno != ESRCH;
	}
	return true;
}

static void conflict_error(const struct past *p, struct error *ret)
{
	error_set(ret, -ECANCELED, "conflict",
		  "an operator has kept guest %s at its source, and it has run here, too: its "
		  "process "
		  "here, %d, is stopped",
		  p->name, (int)p->pid);
}

json_t *overrule_json(const struct past *p)
{
	struct error err = {0};

	conflict_error(p, &err);
	return json_pack("{s:s, s:s}", "code", err.code, "message", err.msg);
}

/* The session, if one stands, is of a life that the source has given up. */
static void end_session(struct incoming *inc)
{
	struct error err = {0};

	conflict_error(inc->past, &err);
	if (inc->state == INC_RUNNING)
		incoming_event(inc, INC_EV_LOST, &err);
	inc->err = err;
}

static enum msg_answer conflict(struct dest *d, struct incoming *inc, struct past *p)
{
	struct error err = {0};
	bool lives;

	if (history_overruled(d->history, p, &err))
		log_error("incoming %s: %s", p->id, err.msg);
	lives = overrule_stop(p);
	audit_note(d->audit, "overruled",
		   json_pack("{s:s, s:s, s:s, s:i, s:b}", "job", p->id, "guest", p->name,
			     "identity", p->identity, "guest_pid", (int)p->pid, "stopped", lives),
		   AUDIT_SYNC);
	if (inc)
		end_session(inc);
	if (!lives) {
		log_notice(
			"incoming %s: guest %s was kept at its source; it ran here, and has died "
			"or gone on to another host",
			p->id, p->name);
		return MSG_ANSWER_GONE;
	}
	log_error(
		"CONFLICT: guest %s ran here, and an operator has kept it at its source (incoming "
		"%s): two copies of it have run. The one here, process %d, is stopped; end it, or "
		"look what it has done first",
		p->name, p->id, (int)p->pid);
	return p->fate == HISTORY_COMPLETED ? MSG_ANSWER_COMPLETED : MSG_ANSWER_RUNNING;
}

static enum msg_answer concluded(struct dest *d, struct past *p, enum history_fate fate,
				 enum msg_answer answer)
{
	struct error err = {0};

	if (doubt_may_follow(p->fate, fate) && history_conclude(d->history, p, fate, &err)) {
		log_error("incoming %s: %s", p->id, err.msg);
		return MSG_ANSWER_UNKNOWN;
	}
	return answer;
}

enum msg_answer overrule(struct dest *d, const uint8_t id[static MSG_UUID_LEN],
			 const char *identity, uint64_t generation)
{
	struct incoming *inc = incoming_find(d, id);
	char text[UUID_TEXT_MAX];
	struct past *p = inc ? inc->past : history_find(d->history, uuid_text(id, text));

	if (!p || strcmp(p->identity, identity) != 0 || p->generation != generation)
		return MSG_ANSWER_UNKNOWN;
	if (inc && doubt_abort_when_asked(inc->state))
		return incoming_query(inc, identity, generation);
	switch (doubt_kept(p->fate, p->same_boot)) {
	case DOUBT_KEPT_NOTHING:
		return MSG_ANSWER_NOT_STARTED;
	case DOUBT_KEPT_ABORT:
		return concluded(d, p, HISTORY_ABORTED, MSG_ANSWER_NOT_STARTED);
	case DOUBT_KEPT_DEAD:
		return concluded(d, p, HISTORY_GONE, MSG_ANSWER_GONE);
	default:
		return conflict(d, inc, p);
	}
}
