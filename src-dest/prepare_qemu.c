/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A QEMU that was launched does not attach itself: it is looked for at its monitor until it is there.
 *
 * Rule 4: a QEMU that was not started with -S could run by itself as soon as it is loaded, and one
 * without -incoming would boot: both are refused while the guest still runs at the source.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "guest/qemu/qemu.h"
#include "guest/qemu/qemu_facts.h"
#include "guest/qemu/qemu_proc.h"
#include "incoming_priv.h"
#include "util/cleanup.h"
#include "util/log.h"

/* Between two looks whether the monitor is there: QEMU takes some 100 ms to start. */
#define LOOK_US 20000
/* sun_path and its NUL */
#define SOCKET_MAX 108

static bool is_qemu(const struct incoming *inc)
{
	return !strcmp(inc->setup->driver, conf_guest_driver_name(GUEST_DRIVER_QEMU));
}

/* The path has words of the peer in it: nothing but sockets goes. */
static int remove_socket(const char *path)
{
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	return unlink(path) && errno != ENOENT ? -errno : 0;
}

static int fill_path(struct incoming *inc, struct error *err)
{
	char *words[] = {inc->launcher->qmp ? inc->launcher->qmp : "{run_dir}/{name}.qmp", NULL};
	struct prepare_text text;
	struct launch_facts facts = prepare_facts(inc, &text);
	char **filled;
	int r = launch_argv(words, &facts, &filled, err);

	if (r)
		return r;
	inc->qmp = steal_ptr(&filled[0]);
	launch_argv_free(filled);
	return 0;
}

int prepare_qemu_socket(struct incoming *inc, struct error *err)
{
	int r;

	if (!is_qemu(inc))
		return 0;
	r = fill_path(inc, err);
	if (r)
		return r;
	if (strlen(inc->qmp) >= SOCKET_MAX)
		return error_set(
			err, -ENAMETOOLONG, "path-too-long",
			"%s is too long for a socket: give the guest a shorter name, or this "
			"agent a shorter run_dir",
			inc->qmp);
	/* Of an earlier QEMU of this name: it must not be taken for the new one's. */
	return remove_socket(inc->qmp)
		       ? error_set(err, -EEXIST, "socket-exists",
				   "%s is there, and cannot be removed or is no socket", inc->qmp)
		       : 0;
}

void prepare_qemu_stop(struct incoming *inc)
{
	qemu_attach_free(steal_ptr(&inc->look));
	if (inc->look_again)
		event_free(steal_ptr(&inc->look_again));
}

void prepare_qemu_end(struct incoming *inc)
{
	bool stays = inc->end_event == INC_EV_ACCOUNTED;

	if (inc->qmp && !stays && remove_socket(inc->qmp))
		log_warn("incoming %s: %s cannot be removed", inc->id_text, inc->qmp);
}

static int check_words(const struct incoming *inc, const struct guest *g, struct error *err)
{
	static const char *const needed[] = {"-S", "-incoming"};

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (!qemu_proc_said(g->pid, needed[i]))
			return error_set(
				err, -EINVAL, "bad-launcher",
				"launcher \"%s\" started QEMU without %s: its argv needs -S "
				"and -incoming defer",
				inc->setup->launcher, needed[i]);
	return 0;
}

static int check(const struct incoming *inc, const struct guest *g, struct error *err)
{
	int r = check_words(inc, g, err);

	if (!r && error_is_set(&g->cannot))
		r = error_set(err, -EINVAL, g->cannot.code,
			      "the VM that launcher \"%s\" started cannot receive a guest: %s",
			      inc->setup->launcher, g->cannot.msg);
	if (!r && inc->facts)
		r = qemu_facts_compare(inc->facts, g->facts, err);
	return r;
}

/* The operator's word travels with the guest, like all of its vars. */
static const char *word_of(const struct msg_setup *s, const char *key)
{
	for (uint16_t i = 0; i < s->nvars; i++)
		if (!strcmp(s->vars[i].key, key))
			return s->vars[i].value;
	return NULL;
}

static void look(void *arg);

static void look_later(struct incoming *inc)
{
	if (!inc->look_again)
		inc->look_again = loop_timer(inc->d->loop, LOOK_US, look, inc);
}

static void on_found(void *arg, struct guest *g, const struct error *err)
{
	struct incoming *inc = arg;
	struct error why = {0};

	qemu_attach_free(steal_ptr(&inc->look));
	if (inc->state != INC_ADVISE || inc->stage != STAGE_ATTACH) {
		guest_free(g);
	} else if (!g) {
		log_debug("incoming %s: %s", inc->id_text, err->msg);
		look_later(inc);
	} else if (check(inc, g, &why)) {
		guest_free(g);
		incoming_event(inc, INC_EV_FAIL, &why);
	} else if (prepare_attached(inc, g, &why)) {
		guest_free(g);
	}
}

static void look(void *arg)
{
	struct incoming *inc = arg;
	const struct msg_setup *s = inc->setup;
	struct qemu_spec spec = {.name = s->name,
				 .path = inc->qmp,
				 .uuid = s->uuid,
				 .generation = s->generation + 1,
				 .no_dma = word_of(s, QEMU_VAR_NO_DMA),
				 .anonymous = word_of(s, QEMU_VAR_ANONYMOUS)};
	struct error err = {0};

	event_free(steal_ptr(&inc->look_again));
	if (inc->state == INC_ADVISE && inc->stage == STAGE_ATTACH &&
	    qemu_attach(inc->d->loop, &spec, on_found, inc, &inc->look, &err) < 0)
		look_later(inc);
}

void prepare_qemu_look(struct incoming *inc)
{
	if (is_qemu(inc))
		look_later(inc);
}
