/* SPDX-License-Identifier: Apache-2.0 */
/* What only this host's decant-source knows: does a guest of that name live here already? */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "incoming_priv.h"
#include "rest/rest_client.h"
#include "util/cleanup.h"
#include "util/log.h"

/* It answers at once, or it has other worries. */
#define ASK_TIMEOUT_MS 2000

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

/*
 * One that has been handed over may come back, also while its old process is still ending. The guest
 * that leaves this very host to arrive at it again is the same one.
 */
static bool lives(const struct incoming *inc, const json_t *guest)
{
	return json_is_true(json_object_get(guest, "attached")) &&
	       strcmp(text_of(guest, "state"), "handed-over") != 0 &&
	       strcmp(text_of(guest, "migration"), inc->id_text) != 0;
}

static void on_answer(void *arg, int ret, const struct rest_answer *a, const struct error *err)
{
	struct incoming *inc = arg;
	struct error why = {0};

	inc->ask = NULL;
	if (inc->state != INC_ADVISE)
		return;
	if (ret)
		log_warn("incoming %s: decant-source cannot be asked whether it has a guest %s: %s",
			 inc->id_text, inc->setup->name, err->msg);
	else if (a->status == 200 && lives(inc, a->json))
		error_set(&why, -EEXIST, "guest-exists",
			  "a guest named %s lives here already, it is %s", inc->setup->name,
			  text_of(a->json, "state"));
	if (error_is_set(&why))
		incoming_event(inc, INC_EV_FAIL, &why);
	else
		prepare_admitted(inc);
}

int admit_ask_source(struct incoming *inc, struct error *err)
{
	CLEANUP_FREE char *name = rest_encode(inc->setup->name);
	CLEANUP_FREE char *path = NULL;

	if (!name || asprintf(&path, "/v1/guests/%s", name) < 0) {
		path = NULL;
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	return rest_call_start(loop_base(inc->d->loop),
			       &(struct rest_call_spec){.api = inc->d->conf.source_api,
							.method = "GET",
							.path = path,
							.timeout_ms = ASK_TIMEOUT_MS},
			       on_answer, inc, &inc->ask, err);
}
