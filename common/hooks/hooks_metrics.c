/* SPDX-License-Identifier: Apache-2.0 */
#include "hooks/hooks_metrics.h"

#include "util/cleanup.h"

/** struct row - a family. @offset: of its number in struct hooks_count */
struct row {
	const char *name;
	enum metrics_kind kind;
	size_t offset;
	const char *help;
};

#define ROW(name, kind, member, help)                                            \
	{                                                                        \
		name, METRICS_##kind, offsetof(struct hooks_count, member), help \
	}

static const struct row rows[] = {
	ROW("decant_hook_events_waiting", GAUGE, waiting, "Events that a hook has not taken yet."),
	ROW("decant_hook_events_delivered_total", COUNTER, delivered,
	    "Events that a hook has taken."),
	ROW("decant_hook_attempts_failed_total", COUNTER, failed, "Deliveries that failed."),
	ROW("decant_hook_events_dead_total", COUNTER, dead,
	    "Events that were given up: dead letters, those dropped included."),
	ROW("decant_hook_events_dropped_total", COUNTER, dropped,
	    "Events that found the queue of their hook full."),
	ROW("decant_hook_gate_questions_total", COUNTER, asked, "Questions to a gate."),
	ROW("decant_hook_gate_allowed_total", COUNTER, allowed, "Answers of a gate that allowed."),
	ROW("decant_hook_gate_delayed_total", COUNTER, delayed, "Answers of a gate that delayed."),
	ROW("decant_hook_gate_refused_total", COUNTER, refused, "Answers of a gate that refused."),
	ROW("decant_hook_gate_errors_total", COUNTER, errors, "Questions without an answer."),
};

void hooks_metrics(struct metrics *out, const struct hooks *h)
{
	struct hooks_count c[CONF_HOOKS_MAX];
	size_t n = hooks_counts(h, c, CONF_HOOKS_MAX);

	for (size_t i = 0; n && i < ARRAY_SIZE(rows); i++) {
		metrics_family(out, rows[i].name, rows[i].kind, rows[i].help);
		for (size_t k = 0; k < n; k++)
			metrics_uint(out, METRICS_LABELS({"hook", c[k].name}),
				     *(const uint64_t *)((const char *)&c[k] + rows[i].offset));
	}
}
