/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaching to a QEMU: which process it is, what it is made of, what its memory is. Questions are
 * sent in two rounds, all of a round at once; nothing in QEMU is changed but what an agent that has
 * died left there.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/qemu/inject.h"
#include "guest/qemu/qemu_impl.h"
#include "guest/qemu/qemu_proc.h"
#include "util/cleanup.h"
#include "util/digest.h"
#include "util/fdio.h"
#include "util/log.h"
#include "util/uuid.h"

/** struct query - a question; @args in JSON, NULL for none; @needed: without an answer it is of no use */
struct query {
	const char *command;
	const char *args;
	bool needed;
};

static const struct query queries[] = {
	[QEMU_Q_STATUS] = {"query-status", NULL, true},
	[QEMU_Q_MEMDEVS] = {"query-memdev", NULL, true},
	[QEMU_Q_MTREE] = {"human-monitor-command", "{\"command-line\": \"info mtree -f\"}", true},
	[QEMU_Q_NETWORK] = {"human-monitor-command", "{\"command-line\": \"info network\"}", true},
	[QEMU_Q_MIGRATE] = {"query-migrate", NULL, true},
	[QEMU_Q_NODES] = {"query-named-block-nodes", "{\"flat\": true}", true},
	[QEMU_Q_BLOCK] = {"query-block", NULL, true},
	[QEMU_Q_CPUS] = {"query-cpus-fast", NULL, true},
	[QEMU_Q_KVM] = {"query-kvm", NULL, false},
	[QEMU_Q_UUID] = {"query-uuid", NULL, false},
	[QEMU_Q_PCI] = {"query-pci", NULL, false},
	[QEMU_Q_MACHINE] = {"qom-get", "{\"path\": \"/machine\", \"property\": \"type\"}", true},
	[QEMU_Q_DEVICES] = {"qom-list", "{\"path\": \"/machine/peripheral\"}", true},
	[QEMU_Q_ANON_DEVICES] = {"qom-list", "{\"path\": \"/machine/peripheral-anon\"}", true},
	[QEMU_Q_OBJECTS] = {"qom-list", "{\"path\": \"/objects\"}", true},
	[QEMU_Q_HOLD] = {"qom-get",
			 "{\"path\": \"/objects/" QEMU_HOLD "\", \"property\": \"data\"}", false},
	[QEMU_Q_KEPT] = {"qom-get",
			 "{\"path\": \"/objects/" QEMU_KEPT "\", \"property\": \"data\"}", false},
	[QEMU_Q_ARRIVING] = {"qom-get",
			     "{\"path\": \"/objects/" QEMU_ARRIVING "\", \"property\": \"data\"}",
			     false},
	[QEMU_Q_SETTINGS] = {"qom-get",
			     "{\"path\": \"/objects/" QEMU_SETTINGS "\", \"property\": \"data\"}",
			     false},
	[QEMU_Q_CAPS] = {"query-migrate-capabilities", NULL, true},
	[QEMU_Q_PARAMS] = {"query-migrate-parameters", NULL, true},
	[QEMU_Q_RAMBLOCKS] = {"human-monitor-command", "{\"command-line\": \"info ramblock\"}",
			      false},
};

/** struct answer - where the answer to a question goes */
struct answer {
	struct qemu_attach *a;
	bool needed;
	json_t **into;
};

/**
 * struct qemu_attach - one attempt
 * @v:		the guest as far as it is known; NULL once it was handed over
 * @got:	answers
 * @where:	answers to "gpa2hva", one for each memory device
 * @from:	offset in the memory device that was asked for
 * @answers:	where they go; @pending of them are still to come
 * @later:	tells the end
 * @err:	why it failed
 */
struct qemu_attach {
	struct qemu *v;
	qemu_attached_fn *fn;
	void *arg;
	json_t *got[QEMU_Q_COUNT];
	json_t *where[GUEST_BLOCKS_MAX];
	uint64_t from[GUEST_BLOCKS_MAX];
	struct answer answers[QEMU_Q_COUNT + GUEST_BLOCKS_MAX];
	size_t nanswers, pending;
	void (*next)(struct qemu_attach *a);
	struct event *later;
	struct error err;
};

/* --- the end ------------------------------------------------------------------------------------- */

void qemu_attach_free(struct qemu_attach *a)
{
	if (!a)
		return;
	if (a->later)
		event_free(a->later);
	for (size_t i = 0; i < QEMU_Q_COUNT; i++)
		json_decref(a->got[i]);
	for (size_t i = 0; i < GUEST_BLOCKS_MAX; i++)
		json_decref(a->where[i]);
	if (a->v)
		qemu_free(&a->v->g);
	free(a);
}

static void tell_failure(void *arg)
{
	struct qemu_attach *a = arg;
	struct error why = a->err; /* who is told frees @a, and reads on */

	a->fn(a->arg, NULL, &why);
}

/* From the loop: what has called us is still busy with the connection. */
void qemu_attach_failed(struct qemu_attach *a, const struct error *why)
{
	if (a->later)
		return;
	a->err = *why;
	a->next = NULL;
	a->later = loop_timer(a->v->g.loop, 1, tell_failure, a);
	if (!a->later)
		log_error("guest %s: out of memory", a->v->g.name);
}

/* --- asking -------------------------------------------------------------------------------------- */

static void on_answer(void *arg, int ret, const json_t *result, const struct error *err)
{
	struct answer *ans = arg;
	struct qemu_attach *a = ans->a;

	a->pending--;
	if (ret == -ECONNRESET)
		return; /* the end of the connection is told by itself */
	if (ret < 0 && (ans->needed || ret != -EREMOTEIO)) {
		qemu_attach_failed(a, err);
		return;
	}
	*ans->into = ret < 0 ? NULL : json_incref((json_t *)result);
	if (!a->pending && a->next)
		a->next(a);
}

static void ask(struct qemu_attach *a, const char *command, json_t *args, bool needed,
		json_t **into)
{
	struct answer *ans = &a->answers[a->nanswers++];
	struct error err = {0};
	int r;

	*ans = (struct answer){a, needed, into};
	a->pending++;
	r = qmp_ask(a->v->qmp, command, args, -1, QEMU_QUERY_MS, on_answer, ans);
	if (r == 0)
		return;
	error_set(&err, r, NULL, "%s cannot be asked: %s", command, strerror(-r));
	qemu_attach_failed(a, &err);
}

/* --- what it is ---------------------------------------------------------------------------------- */

static const char *text_of(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

/* When it was started, in ticks since the boot; 0 if that cannot be told. Nothing else there stays as it is. */
static unsigned long long start_time(pid_t pid)
{
	CLEANUP_FREE char *stat = NULL;
	const char *at;
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fdio_read_file(path, 4096, &stat);
	at = stat ? strrchr(stat, ')') : NULL;
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at, NULL, 10) : 0;
}

/* One that is the same for as long as the process lives, and no other's. */
static void make_uuid(struct qemu *v)
{
	CLEANUP_FREE char *boot = NULL;
	CLEANUP_FREE char *text = NULL;
	uint64_t half;

	fdio_read_file("/proc/sys/kernel/random/boot_id", 64, &boot);
	for (int i = 0; i < 2; i++) {
		free(text);
		if (asprintf(&text, "%d %s %d %llu", i, boot ? boot : "", (int)v->g.pid,
			     start_time(v->g.pid)) < 0)
			text = NULL;
		half = text ? digest_xxh3(text, strlen(text)) : 1;
		memcpy(v->g.uuid + i * 8, &half, 8);
	}
	v->g.uuid[6] = (uint8_t)((v->g.uuid[6] & 0x0f) | 0x80);
	v->g.uuid[8] = (uint8_t)((v->g.uuid[8] & 0x3f) | 0x80);
}

static bool is_zero(const uint8_t uuid[GUEST_UUID_LEN])
{
	static const uint8_t zeros[GUEST_UUID_LEN];

	return !memcmp(uuid, zeros, GUEST_UUID_LEN);
}

static void set_uuid(struct qemu_attach *a)
{
	const char *text = text_of(a->got[QEMU_Q_UUID], "UUID");
	struct guest *g = &a->v->g;

	/* One that was started without says so by zeros. */
	if (is_zero(g->uuid) && text)
		uuid_parse(text, g->uuid);
	if (is_zero(g->uuid))
		make_uuid(a->v);
}

/* A migration of QEMU's that an agent has left behind, or somebody else's. */
static bool is_migrating(const struct qemu_attach *a)
{
	static const char *const ends[] = {"none", "completed", "failed", "cancelled"};
	const char *status = text_of(a->got[QEMU_Q_MIGRATE], "status");

	for (size_t i = 0; status && i < ARRAY_SIZE(ends); i++)
		if (!strcmp(status, ends[i]))
			return false;
	return status != NULL;
}

static void set_run_state(struct qemu_attach *a)
{
	const char *status = text_of(a->got[QEMU_Q_STATUS], "status");
	const char *hold = json_string_value(a->got[QEMU_Q_HOLD]);
	bool running = json_is_true(json_object_get(a->got[QEMU_Q_STATUS], "running"));
	struct qemu *v = a->v;

	/* It was let go, and its agent ended before it could take the note away. */
	if (hold && running)
		qemu_tell(v, "object-del", json_pack("{s:s}", "id", QEMU_HOLD));
	if (hold && !running) {
		v->held = true;
		/* The end of a save that is under way would stop it again: it is waited for before it goes on. */
		v->stream.migrating = is_migrating(a);
		v->go_on = !strcmp(hold, "running");
		v->g.run_state = GUEST_PAUSED_MIGRATION;
	} else if (status && !strcmp(status, "inmigrate")) {
		v->g.run_state = GUEST_INCOMING;
	} else {
		v->g.run_state = running ? GUEST_RUNNING : GUEST_PAUSED;
	}
}

/* What an agent left behind has a note; QEMU itself keeps none outside of migrations of its own. */
static void set_kept(struct qemu_attach *a)
{
	const char *tag = json_string_value(a->got[QEMU_Q_KEPT]);
	struct qemu *v = a->v;

	v->g.arriving = a->got[QEMU_Q_ARRIVING] != NULL;
	v->kept_fd = qemu_proc_fd_of(v->g.pid, QEMU_UFFD_LINK);
	v->g.kept_uffd = v->kept_fd >= 0;
	/* The note is made first: its agent came no further. */
	if (tag && !v->g.kept_uffd)
		qemu_tell(v, "object-del", json_pack("{s:s}", "id", QEMU_KEPT));
	v->g.kept_tag = v->g.kept_uffd && tag ? (uint32_t)strtoul(tag, NULL, 10) : 0;
}

static int set_settings(struct qemu_attach *a)
{
	struct qemu *v = a->v;
	int r = qemu_settings_found(v, a->got[QEMU_Q_CAPS], a->got[QEMU_Q_PARAMS],
				    json_string_value(a->got[QEMU_Q_SETTINGS]));

	/* Else they are restored when it goes on. */
	if (!r && !is_migrating(a))
		qemu_settings_restore(v);
	return r;
}

/*
 * What an agent gave QEMU by name, and died before it said what for, would stay open there for good. A name that
 * is in use is none any more: QEMU has taken its descriptor.
 */
static void forget_descriptors(struct qemu *v)
{
	static const char *const names[] = {QEMU_STATE_FD, QEMU_DEVICE_FD};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		qemu_tell(v, "closefd", json_pack("{s:s}", "fdname", names[i]));
}

/* --- memory -------------------------------------------------------------------------------------- */

/* A memory device is known by the id of its object; regions can have its whole path. */
static const char *base_name(const char *s)
{
	return strncmp(s, "/objects/", 9) != 0 ? s : s + 9;
}

/*
 * Lines of `info mtree -f`: "  START-END (prio N, ram): NAME [@OFFSET] …". Return: whether one is about
 * memory device @id; then where the guest sees it, and which part of the device that is
 */
static bool find_region(const char *text, const char *id, uint64_t *ret_gpa, uint64_t *ret_offset)
{
	for (const char *line = text; line; line = strchr(line + 1, '\n')) {
		char kind[16], name[128];
		uint64_t start, end, offset = 0;

		if (sscanf(line, " %" SCNx64 "-%" SCNx64 " (prio %*d, %15[^)]): %127s @%" SCNx64,
			   &start, &end, kind, name, &offset) < 4)
			continue;
		if ((strcmp(kind, "ram") != 0 && strcmp(kind, "rom") != 0) ||
		    strcmp(base_name(name), id) != 0)
			continue;
		*ret_gpa = start;
		*ret_offset = offset;
		return true;
	}
	return false;
}

/* "Host virtual address for 0x0 (ram0) is 0x7fbea3fff000" */
static uint64_t host_address(const json_t *answer, const char *id)
{
	const char *s = json_string_value(answer), *at = s ? strstr(s, ") is 0x") : NULL;
	const char *name = s ? strchr(s, '(') : NULL;

	if (!at || !name || strncmp(base_name(name + 1), id, strlen(id)) != 0)
		return 0;
	return strtoull(at + 5, NULL, 16);
}

static int fill_block(struct qemu_attach *a, size_t i, const json_t *dev, struct error *err)
{
	struct guest *g = &a->v->g;
	struct guest_block *b = &g->blocks[g->nblocks];
	const char *id = text_of(dev, "id");
	uint64_t at;

	*b = (struct guest_block){.index = g->nblocks, .fd = -1};
	if (!id || !guest_name_ok(id))
		return error_set(
			err, -EOPNOTSUPP, "no-memory-backend",
			"memory device %zu has no id of 1 to 63 letters, digits and . _ -: "
			"give its -object one",
			i);
	strcpy(b->name, id);
	b->length = (uint64_t)json_integer_value(json_object_get(dev, "size"));
	at = host_address(a->where[i], id);
	if (!at || at < a->from[i])
		return error_set(err, -EOPNOTSUPP, "block-not-mapped",
				 "block %s is not in the guest's address space", id);
	b->addr = at - a->from[i];
	if (b->length % (uint64_t)sysconf(_SC_PAGESIZE) || !b->length)
		return error_set(err, -EOPNOTSUPP, "page-size", "block %s has no whole pages", id);
	return qemu_proc_block(g->pid, b, a->v->anonymous, err);
}

static void fill_blocks(struct qemu_attach *a)
{
	const json_t *devices = a->got[QEMU_Q_MEMDEVS], *dev;
	struct guest *g = &a->v->g;
	size_t i;

	json_array_foreach(devices, i, dev) {
		if (i >= GUEST_BLOCKS_MAX || fill_block(a, i, dev, &g->cannot))
			break;
		g->nblocks++;
	}
	if (!json_array_size(devices))
		error_set(&g->cannot, -EOPNOTSUPP, "no-memory-backend",
			  "QEMU names no memory device: it is too old, or the machine has no RAM");
	if (!qemu_private(a->v) || error_is_set(&g->cannot))
		return;
	snprintf(g->experimental, sizeof(g->experimental),
		 "its memory is private to QEMU's process, which the variable %s = %s allows: "
		 "experimental",
		 QEMU_VAR_ANONYMOUS, QEMU_EXPERIMENTAL);
	qemu_private_judge(a->v, a->got[QEMU_Q_RAMBLOCKS], &g->cannot);
}

/* --- the rounds ---------------------------------------------------------------------------------- */

static int complete(struct qemu_attach *a, struct error *err)
{
	struct qemu *v = a->v;
	size_t n = json_array_size(a->got[QEMU_Q_MEMDEVS]);

	v->g.blocks = calloc(n + 1, sizeof(*v->g.blocks));
	if (!v->g.blocks)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	set_uuid(a);
	set_run_state(a);
	set_kept(a);
	forget_descriptors(v);
	if (set_settings(a))
		return error_set(err, -EOPNOTSUPP, "qemu-too-old",
				 "QEMU %s cannot leave shared memory out of its state "
				 "(x-ignore-shared): 4.0 or later is needed",
				 qmp_version(v->qmp));
	fill_blocks(a);
	qemu_look_first(v, a->got);
	v->g.facts = qemu_facts(v, a->got);
	return v->g.facts ? 0 : error_set(err, -ENOMEM, NULL, "out of memory");
}

static void hand_over(void *arg)
{
	struct qemu_attach *a = arg;
	struct qemu *v = steal_ptr(&a->v);

	v->attach = NULL;
	a->fn(a->arg, &v->g, &a->err);
}

static void second_done(struct qemu_attach *a)
{
	struct error err = {0};

	if (complete(a, &err) < 0) {
		qemu_attach_failed(a, &err);
		return;
	}
	a->next = NULL;
	a->later = loop_timer(a->v->g.loop, 1, hand_over, a);
	if (!a->later)
		log_error("guest %s: out of memory", a->v->g.name);
}

static void ask_features(struct qemu_attach *a)
{
	const char *path = text_of(json_array_get(a->got[QEMU_Q_CPUS], 0), "qom-path");

	if (path)
		ask(a, "qom-get",
		    json_pack("{s:s, s:s}", "path", path, "property", "feature-words"), false,
		    &a->got[QEMU_Q_FEATURES]);
}

static void ask_where(struct qemu_attach *a)
{
	const char *tree = json_string_value(a->got[QEMU_Q_MTREE]);
	const json_t *dev;
	size_t i;

	json_array_foreach(a->got[QEMU_Q_MEMDEVS], i, dev) {
		const char *id = text_of(dev, "id");
		char line[64];
		uint64_t gpa;

		if (i >= GUEST_BLOCKS_MAX || !id || !tree ||
		    !find_region(tree, id, &gpa, &a->from[i]))
			continue;
		snprintf(line, sizeof(line), "gpa2hva 0x%" PRIx64, gpa);
		ask(a, "human-monitor-command", json_pack("{s:s}", "command-line", line), true,
		    &a->where[i]);
	}
}

static void first_done(struct qemu_attach *a)
{
	a->next = second_done;
	ask_features(a);
	ask_where(a);
	if (!a->pending && !a->later)
		second_done(a);
}

static int find_process(struct qemu *v, struct error *err)
{
	pid_t pid = qemu_proc_find(v->path, qmp_peer(v->qmp), &v->g.uid, &v->g.pidfd, err);

	if (pid < 0)
		return pid;
	v->g.pid = pid;
	inject_calm(pid);
	return qemu_watch_process(v) ? error_set(err, -ENOMEM, NULL, "out of memory") : 0;
}

void qemu_attach_ready(struct qemu_attach *a)
{
	struct error err = {0};

	if (find_process(a->v, &err) < 0) {
		qemu_attach_failed(a, &err);
		return;
	}
	a->next = first_done;
	for (size_t i = 0; i < ARRAY_SIZE(queries) && !a->later; i++)
		if (queries[i].command)
			ask(a, queries[i].command,
			    queries[i].args ? json_loads(queries[i].args, 0, NULL) : NULL,
			    queries[i].needed, &a->got[i]);
}

int qemu_attach(struct loop *loop, const struct qemu_spec *spec, qemu_attached_fn *fn, void *arg,
		struct qemu_attach **ret, struct error *err)
{
	struct qemu_attach *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	a->fn = fn;
	a->arg = arg;
	a->v = qemu_new(loop, spec);
	if (!a->v) {
		free(a);
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	a->v->attach = a;
	r = qemu_connect(a->v, err);
	if (r < 0)
		qemu_attach_free(a);
	else
		*ret = a;
	return r;
}
