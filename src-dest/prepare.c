/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State advise: from SETUP to PREPARED, one stage after the other, each begun by the end of the one
 * before: admit, launch, attach, ask the guest for what is needed of it, empty its memory.
 *
 * Which rules it could break: 5, were a userfaultfd closed here that guards something: nothing is
 * registered yet, and the guest waits to be loaded. 7: memory is emptied by fallocate or by the
 * guest itself, and looked at through SEEK_DATA and the page map.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "adopt.h"
#include "incoming_priv.h"
#include "meter.h"
#include "parts.h"
#include "revive.h"
#include "room.h"
#include "uffd/uffd.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/faultpoint.h"
#include "util/fdio.h"
#include "util/log.h"

/* Of a process that has ended, in a message */
#define WORDS_MAX 320

static void fail(struct incoming *inc, const struct error *err)
{
	incoming_event(inc, INC_EV_FAIL, err);
}

/* --- admit and launch --- */

static json_t *vars_json(const struct msg_setup *s)
{
	json_t *vars = json_object();

	for (unsigned int i = 0; vars && i < s->nvars; i++)
		json_object_set_new(vars, s->vars[i].key, json_string(s->vars[i].value));
	return vars;
}

static int begin_record(struct incoming *inc, journal_synced_fn *then, struct error *err)
{
	const struct msg_setup *s = inc->setup;
	char uuid[UUID_TEXT_MAX];
	json_t *facts = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:o, s:I, s:s*}", "id",
				  inc->id_text, "identity", inc->identity, "from", inc->from,
				  "guest", s->name, "uuid", uuid_text(s->uuid, uuid), "generation",
				  (json_int_t)s->generation + 1, "driver", s->driver, "launcher",
				  s->launcher, "vars", vars_json(s), "created",
				  (json_int_t)inc->created_us, "qmp", inc->qmp);
	int r;

	if (!facts)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	r = history_begin(inc->d->history, facts, incoming_synced(inc, then), &inc->past, err);
	json_decref(facts);
	return r;
}

/* Why it has ended is known to itself; that is where the log is read at all. */
static const char *last_words(const struct incoming *inc, char out[static WORDS_MAX])
{
	char line[WORDS_MAX - 64];

	launch_last_words(inc->log_path, inc->log_from, line, sizeof(line));
	if (*line)
		snprintf(out, WORDS_MAX, "it said: %s", line);
	else
		snprintf(out, WORDS_MAX, "see %.200s", inc->log_path);
	return out;
}

static void on_launch_exit(void *arg, const char *how)
{
	struct incoming *inc = arg;
	struct error err = {0};
	bool died = !inc->guest;
	char words[WORDS_MAX];

	launch_free(steal_ptr(&inc->launch));
	error_set(&err, -ESRCH, "guest-gone", "the process of guest %s has ended: %s; %s",
		  inc->setup->name, how, last_words(inc, words));
	/* An attached guest's own process may be another one: its driver tells of its end. */
	if (died && inc->state != INC_END)
		incoming_event(inc, INC_EV_GONE, &err);
	else
		settle_parts_gone(inc);
}

/* What a guest has to say is of use longer than it lives: not in run_dir. */
int prepare_log_path(struct incoming *inc, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	int r;

	if (asprintf(&dir, "%s/log", inc->d->conf.agent.state_dir) < 0 ||
	    asprintf(&inc->log_path, "%s/%s.log", dir, inc->setup->name) < 0) {
		inc->log_path = NULL;
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	r = fdio_mkdir_p(dir, 0750);
	return r ? error_set(err, r, NULL, "cannot make folder %s: %s", dir, strerror(-r)) : 0;
}

struct launch_facts prepare_facts(const struct incoming *inc, struct prepare_text *ret_text)
{
	snprintf(ret_text->memory, sizeof(ret_text->memory), "%" PRIu64, inc->total);
	return (struct launch_facts){
		.launcher = inc->launcher->name,
		.name = inc->setup->name,
		.uuid = uuid_text(inc->setup->uuid, ret_text->uuid),
		.memory_bytes = ret_text->memory,
		.run_dir = inc->d->conf.agent.run_dir,
		.attach = inc->d->conf.agent.attach,
		.qmp = inc->qmp,
		.vars = inc->setup->vars,
		.nvars = inc->setup->nvars,
	};
}

static int launch(struct incoming *inc, const struct conf_launcher *l, struct error *err)
{
	const struct conf_dest *conf = &inc->d->conf;
	struct prepare_text text;
	struct launch_facts facts = prepare_facts(inc, &text);
	char **argv;
	int r = prepare_log_path(inc, err);

	if (r)
		return r;
	r = launch_argv(l->argv, &facts, &argv, err);
	if (r)
		return r;
	inc->log_from = launch_log_size(inc->log_path);
	fdio_random(inc->guest_token, sizeof(inc->guest_token));
	r = launch_start(inc->d->loop,
			 &(struct launch_spec){.argv = argv,
					       .log_path = inc->log_path,
					       .token = inc->guest_token,
					       .attach = conf->agent.attach,
					       .units = inc->d->units,
					       .name = inc->setup->name,
					       .id = inc->id_text},
			 on_launch_exit, inc, &inc->launch, err);
	launch_argv_free(argv);
	return r;
}

static void on_attach_timeout(void *arg)
{
	struct incoming *inc = arg;

	incoming_failf(inc, -ETIMEDOUT, "attach-timeout",
		       "guest %s was launched and has not attached itself within %u s; see %s",
		       inc->setup->name, INCOMING_ATTACH_US / 1000000, inc->log_path);
}

void prepare_admitted(struct incoming *inc)
{
	struct error err = {0};

	if (launch(inc, inc->launcher, &err)) {
		fail(inc, &err);
		return;
	}
	FAULTPOINT(GUEST_LAUNCHED);
	/* A unit of systemd has no process yet. */
	if (launch_pid(inc->launch) && history_launched(inc->past, launch_pid(inc->launch), &err)) {
		fail(inc, &err);
		return;
	}
	FAULTPOINT(LAUNCH_JOURNALED);
	log_info("incoming %s: guest %s, %u blocks, %" PRIu64 " bytes, pid %d", inc->id_text,
		 inc->setup->name, inc->nblocks, inc->total, (int)launch_pid(inc->launch));
	inc->stage = STAGE_ATTACH;
	incoming_timer(inc, INCOMING_ATTACH_US, on_attach_timeout);
	prepare_qemu_look(inc);
}

/* Nothing is launched before a restarted agent would know of it. */
static void begun(struct journal_wait *w, int ret, const struct error *why)
{
	struct incoming *inc = w->arg;
	struct error err = {0};

	if (ret) {
		fail(inc, why);
		return;
	}
	FAULTPOINT(RECORD_BEGUN);
	/* A decant-source that is not there cannot have the guest either: it keeps nobody out. */
	if (inc->d->conf.source_api && !admit_ask_source(inc, &err))
		return;
	if (error_is_set(&err))
		log_warn("incoming %s: decant-source is not asked whether it has the guest: %s",
			 inc->id_text, err.msg);
	prepare_admitted(inc);
}

void prepare_begin(struct incoming *inc)
{
	struct error err = {0};
	int r;

	if (inc->control)
		conn_set_timeout(inc->control, 0);
	r = parts_advise(inc, &err);
	if (r)
		meter_objected(inc->d, err.code);
	else
		r = begin_record(inc, begun, &err);
	if (r)
		fail(inc, &err);
}

/* --- the guest --- */

static void on_guest_gone(void *arg, struct guest *g, enum guest_gone how)
{
	struct incoming *inc = arg;
	struct error err = {0};
	char words[WORDS_MAX];
	bool ran = inc->state == INC_RUNNING || inc->state == INC_HELD;

	guest_free(g);
	inc->guest = NULL;
	if (how != GUEST_GONE_DEAD && (ran || inc->end_event == INC_EV_ACCOUNTED)) {
		log_warn("incoming %s: guest %s is disconnected and will attach again",
			 inc->id_text, inc->setup->name);
		/* A QEMU does not attach itself; its memory is served on meanwhile. */
		adopt_qemu(inc->d, inc->past);
		return;
	}
	error_set(&err, -ESRCH, "guest-gone", "guest %s %s; %s", inc->setup->name,
		  how == GUEST_GONE_DEAD ? "has died" : "has left before it was handed over",
		  last_words(inc, words));
	if (inc->state != INC_END)
		incoming_event(inc, INC_EV_GONE, &err);
	else
		settle_parts_gone(inc);
}

static void on_vcpu(void *arg, struct guest *g, uint32_t tid, bool on)
{
	const struct incoming *inc = arg;

	(void)g;
	if (inc->placed && inc->place.blocktime)
		blocktime_name(inc->place.blocktime, tid, on, clock_us());
}

/* One that attaches itself again names its threads anew. */
void prepare_guest_watch(struct incoming *inc)
{
	guest_watch(inc->guest, on_guest_gone, NULL, inc);
	guest_watch_vcpus(inc->guest, on_vcpu);
	if (inc->placed && inc->place.blocktime)
		blocktime_name_none(inc->place.blocktime, clock_us());
}

/* P18: only of threads that are named, and where the kernel tells threads apart. */
static int want_blocktime(struct incoming *inc, const struct guest *g, struct error *err)
{
	if (!g->names_vcpus || !inc->setup->may_postcopy)
		return 0;
	if (!(inc->d->caps.features & UFFD_F_THREAD_ID)) {
		log_warn("incoming %s: no block time of the vCPU threads of guest %s: this kernel "
			 "does not tell threads apart (userfaultfd feature THREAD_ID)",
			 inc->id_text, inc->setup->name);
		return 0;
	}
	inc->place.blocktime = blocktime_new();
	return inc->place.blocktime ? 0 : error_set(err, -ENOMEM, NULL, "out of memory");
}

/* One block of the place: memory, states, bitmap. */
static int fill_block(struct incoming *inc, const struct guest *g, unsigned int i, uint16_t index,
		      bool again, struct error *err)
{
	const struct msg_block *m = &inc->blocks[i];
	struct place_block *b = &inc->place.blocks[i];
	struct pages_what what = {.page_size = m->page_size, .npages = m->length / m->page_size};
	CLEANUP_FREE char *path = NULL;
	int r;

	memcpy(b->name, m->name, sizeof(b->name));
	/* A QEMU may be backed otherwise than at the source (admit.c). */
	b->kind = (enum msg_block_kind)g->blocks[index].kind;
	b->page_size = m->page_size;
	b->length = m->length;
	b->shift = (unsigned int)__builtin_ctz(m->page_size);
	b->npages = what.npages;
	memcpy(what.id, inc->id, MSG_UUID_LEN);
	memcpy(what.id + MSG_UUID_LEN, &(uint32_t){i}, sizeof(uint32_t));
	if (asprintf(&path, "%s/pages.%s.%u", inc->d->conf.agent.run_dir, inc->id_text, i) < 0)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	r = gmem_open(&b->mem, g, index, err);
	if (!r)
		r = again ? pages_open(&b->pages, path, &what, err)
			  : pages_create(&b->pages, path, &what, err);
	if (!r)
		atomic_store(&b->received, pages_received(b->pages));
	if (!r && (bitmap_init(&b->asked, b->npages) || bitmap_init(&b->shared, b->npages)))
		r = error_set(err, -ENOMEM, NULL, "out of memory");
	if (r)
		error_prefix(err, "block %s", b->name);
	return r;
}

int prepare_place(struct incoming *inc, const struct guest *g, bool again, struct error *err)
{
	uint16_t index[MSG_BLOCKS_MAX];
	uint64_t page_max = 0;
	int r = admit_blocks(inc, g, index, err);

	if (r)
		return r;
	for (unsigned int i = 0; i < inc->nblocks; i++)
		page_max = MAX(page_max, (uint64_t)inc->blocks[i].page_size);
	if (place_init(&inc->place, inc->nblocks, page_max))
		return error_set(err, -ENOMEM, NULL, "out of memory");
	inc->placed = true;
	inc->place.punch = bridge_punch;
	inc->place.punch_arg = inc;
	r = want_blocktime(inc, g, err);
	for (unsigned int i = 0; i < inc->nblocks && !r; i++)
		r = fill_block(inc, g, i, index[i], again, err);
	return r;
}

/* --- asking the guest: each step is begun by the end of the one before --- */

static void step_identity(struct incoming *inc);
static void step_prepare(struct incoming *inc);
static void step_uffd(struct incoming *inc);
static void step_empty(struct incoming *inc);

/* Return: whether the step went well; otherwise it has failed */
static bool step_done(struct incoming *inc, int ret, const struct error *err, const char *what)
{
	struct error why = {0};

	if (!ret)
		return inc->state == INC_ADVISE;
	why = *err;
	error_set(&why, ret, "guest-refused", "%s", strerror(-ret));
	error_prefix(&why, "guest %s: %s", inc->setup->name, what);
	fail(inc, &why);
	return false;
}

static void step_begun(struct incoming *inc, int ret, const char *what)
{
	struct error err = {0};

	if (ret)
		step_done(inc, ret, &err, what);
}

/* It carries its new identity before it can run: who attaches with it later is this guest. */
static void on_identity(void *arg, int ret, const struct error *err, int fd)
{
	(void)fd;
	FAULTPOINT(IDENTITY_GIVEN);
	if (step_done(arg, ret, err, "cannot be given its identity"))
		step_prepare(arg);
}

static void step_identity(struct incoming *inc)
{
	step_begun(inc,
		   guest_set_identity(inc->guest, inc->setup->uuid, inc->setup->generation + 1,
				      on_identity, inc),
		   "cannot be given its identity");
}

static void on_prepare(void *arg, int ret, const struct error *err, int fd)
{
	(void)fd;
	FAULTPOINT(MEMORY_PREPARED);
	if (step_done(arg, ret, err, "cannot prepare its memory"))
		step_uffd(arg);
}

static void step_prepare(struct incoming *inc)
{
	step_begun(inc, guest_prepare(inc->guest, on_prepare, inc), "cannot prepare its memory");
}

/*
 * Now, and not in the switch: who cannot make one, or cannot be registered with it, is refused while
 * the guest still runs at the source.
 */
static int try_uffd(struct incoming *inc, struct error *err)
{
	uint64_t want = place_features(&inc->place, inc->d->caps.features);
	int r = uffd_api(inc->place.uffd, want, NULL, NULL);

	/* To hear of forks takes a privilege of its own; the guest's library keeps children out as well. */
	if (r == -EPERM)
		r = uffd_api(inc->place.uffd, want & ~UFFD_F_EVENT_FORK, NULL, NULL);
	if (r)
		return error_set(err, r, "userfaultfd",
				 "the guest's userfaultfd does not shake hands: %s", strerror(-r));
	r = place_register(&inc->place, err);
	return r ? r : place_unregister(&inc->place, err);
}

static void on_uffd(void *arg, int ret, const struct error *err, int fd)
{
	struct incoming *inc = arg;
	struct error why = {0};

	if (!step_done(inc, ret, err, "cannot make a userfaultfd")) {
		if (fd >= 0)
			close(fd);
		return;
	}
	inc->place.uffd = fd;
	FAULTPOINT(UFFD_MADE);
	if (try_uffd(inc, &why))
		fail(inc, &why);
	else
		step_empty(inc);
}

static void step_uffd(struct incoming *inc)
{
	if (!inc->setup->may_postcopy) {
		step_empty(inc);
		return;
	}
	step_begun(inc, guest_uffd(inc->guest, true, revive_tag(inc->id), on_uffd, inc),
		   "cannot make a userfaultfd");
}

/* --- P7: whatever its start-up wrote is taken away --- */

/** struct emptying - the job; @inc is referenced */
struct emptying {
	struct worker_job job;
	struct incoming *inc;
};

static int run_empty(struct worker_job *job, struct error *err)
{
	return place_discard_all(&((struct emptying *)job)->inc->place, err);
}

static void done_empty(struct worker_job *job)
{
	struct incoming *inc = ((struct emptying *)job)->inc;

	if (inc->state == INC_ADVISE && job->ret) {
		fail(inc, &job->err);
	} else if (inc->state == INC_ADVISE) {
		inc->stage = STAGE_PREPARED;
		FAULTPOINT(MEMORY_EMPTIED);
		log_debug("incoming %s: prepared", inc->id_text);
		incoming_send_simple(inc, MSG_PREPARED);
		if (inc->restore)
			restore_prepared(inc);
	}
	incoming_unref(inc);
	free(job);
}

static void step_empty(struct incoming *inc)
{
	struct emptying *e = calloc(1, sizeof(*e));
	int r = e ? worker_start(inc->d->loop, &inc->worker) : -ENOMEM;

	if (r) {
		free(e);
		incoming_failf(inc, r, NULL, "cannot empty the guest's memory: %s", strerror(-r));
		return;
	}
	inc->stage = STAGE_EMPTY;
	e->job = (struct worker_job){.run = run_empty, .done = done_empty};
	e->inc = incoming_ref(inc);
	worker_push(inc->worker, &e->job);
}

/* --- attached --- */

static void begin_steps(void *arg)
{
	step_identity(arg);
}

static int check_guest(const struct incoming *inc, const struct guest *g, struct error *err)
{
	if (strcmp(g->name, inc->setup->name) != 0)
		return error_set(err, -EINVAL, "wrong-guest",
				 "launcher \"%s\" started a guest that calls itself %s and not %s",
				 inc->setup->launcher, g->name, inc->setup->name);
	if (g->run_state != GUEST_INCOMING)
		return error_set(err, -EINVAL, "wrong-guest",
				 "the guest that was launched is %s and does not wait to be loaded",
				 guest_run_state_name(g->run_state));
	return 0;
}

int prepare_attached(struct incoming *inc, struct guest *g, struct error *err)
{
	int r = check_guest(inc, g, err);

	/* The token is good for one guest. */
	explicit_bzero(inc->guest_token, sizeof(inc->guest_token));
	inc->stage = STAGE_GUEST;
	if (!r)
		r = prepare_place(inc, g, false, err);
	if (!r) {
		r = room_files(inc, err);
		if (r)
			meter_objected(inc->d, err->code);
	}
	if (r) {
		fail(inc, err);
		return r;
	}
	inc->guest = g;
	prepare_guest_watch(inc);
	FAULTPOINT(GUEST_ATTACHED);
	/* It is welcomed only behind this call: ask nothing of it before. */
	incoming_timer(inc, 1, begin_steps);
	return 0;
}
