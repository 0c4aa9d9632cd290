/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro-VMs that an earlier life of the agent served. They do not hand their userfaultfd over again: the
 * service manager does, where it keeps one, or their own copy of it is found in their process; what is
 * missing is told by the page states in run_dir, and where their memory is by a file beside those.
 *
 * One that had connected and was not served yet cannot be: its handshake went with the agent. It has run on no page of
 * the image, and would wait for the first one for ever; so it is ended (rule 5), and who started it sees that, and can
 * start it again. One that had connected and was not taken notice of is in the queue of the socket, with its handshake:
 * where the service manager has kept that, it is accepted now.
 *
 * Rules 1, 2: a page that had been placed when the agent ended, but not noted, is found to be there
 * when it is placed again (place.h). What cannot be taken up stays as it is: the micro-VM waits, and
 * its record says why.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include "host/supervisor.h"
#include "incoming.h"
#include "micro_priv.h"
#include "proc.h"
#include "util/cleanup.h"
#include "util/fdio.h"
#include "util/jsonx.h"
#include "util/log.h"
#include "util/uuid.h"

#define NOTE_MAX (1u << 20)

/* --- what is kept --- */

static int note_path(const struct dest *d, const char *id, char *out, size_t cap)
{
	return snprintf(out, cap, "%s/pages.%s.json", d->conf.agent.run_dir, id) < (int)cap
		       ? 0
		       : -ENAMETOOLONG;
}

static json_t *regions_json(const struct micro *m)
{
	json_t *a = json_array();

	for (unsigned int i = 0; a && i < m->n; i++) {
		const struct micro_region *g = &m->regions[i];

		json_array_append_new(a, json_pack("{s:I, s:I, s:I, s:I}", "base_host_virt_addr",
						   (json_int_t)g->addr, "size", (json_int_t)g->size,
						   "offset", (json_int_t)g->offset, "page_size",
						   (json_int_t)g->page_size));
	}
	return a;
}

int micro_note(const struct micro *m, struct error *err)
{
	char path[4096], id[UUID_TEXT_MAX];
	json_t *o = json_pack("{s:o, s:I, s:s}", "regions", regions_json(m), "userfaultfd",
			      (json_int_t)m->uffd_ino, "image_id",
			      uuid_text(image_facts(m->img)->id, id));
	int r = o ? note_path(m->d, m->id_text, path, sizeof(path)) : -ENOMEM;

	/* It need not outlive the host, whose end is that of the micro-VM. */
	if (!r && json_dump_file(o, path, JSON_COMPACT))
		r = -EIO;
	json_decref(o);
	return r ? error_set(err, r, NULL, "cannot write the regions to run_dir: %s", strerror(-r))
		 : 0;
}

static int read_regions(struct micro *m, const json_t *o, struct error *err)
{
	CLEANUP_FREE char *text = json_dumps(json_object_get(o, "regions"), JSON_COMPACT);

	return text ? micro_hello_parse(text, strlen(text), m->memory, m->regions, &m->n, err)
		    : error_set(err, -EBADMSG, "bad-note", "no regions were kept");
}

static int read_note(struct micro *m, struct error *err)
{
	char path[4096], id[UUID_TEXT_MAX];
	const char *image;
	json_t *o;
	int r = note_path(m->d, m->id_text, path, sizeof(path));

	if (!r)
		r = jsonx_load(path, NOTE_MAX, &o, err);
	if (r)
		return r;
	m->uffd_ino = (uint64_t)json_integer_value(json_object_get(o, "userfaultfd"));
	image = json_string_value(json_object_get(o, "image_id"));
	if (!image || strcmp(image, uuid_text(image_facts(m->img)->id, id)) != 0)
		r = error_set(err, -EBADMSG, "other-image", "image %s is another one now",
			      m->image);
	else
		r = read_regions(m, o, err);
	json_decref(o);
	return r;
}

/* --- its userfaultfd --- */

static void kept_name(const char *id, char out[static 64])
{
	snprintf(out, 64, "micro.%s", id);
}

void micro_keep(struct micro *m)
{
	char name[64];

	if (m->kept)
		return;
	kept_name(m->id_text, name);
	supervisor_keep(name, m->uffd);
	m->kept = true;
}

void micro_unkeep(struct micro *m)
{
	char name[64];

	if (!m->kept)
		return;
	kept_name(m->id_text, name);
	supervisor_forget(name);
	m->kept = false;
}

static bool is_the_one(const struct micro *m, int fd)
{
	struct stat st;

	return !fstat(fd, &st) && (uint64_t)st.st_ino == m->uffd_ino;
}

static void socket_name(const char *id, char out[static 64])
{
	snprintf(out, 64, "micro-socket.%s", id);
}

void micro_keep_socket(const struct micro *m)
{
	char name[64];

	socket_name(m->id_text, name);
	supervisor_keep(name, m->listen_fd);
}

void micro_unkeep_socket(const struct micro *m)
{
	char name[64];

	socket_name(m->id_text, name);
	supervisor_forget(name);
}

/* Return: whether the service manager had it */
static bool take_kept(struct micro *m)
{
	char name[64];
	int fd;

	kept_name(m->id_text, name);
	fd = supervisor_kept(m->d->handed, name);
	if (fd < 0)
		return false;
	m->kept = true;
	if (is_the_one(m, fd)) {
		m->uffd = fd;
		return true;
	}
	log_warn("micro %s: what was kept is not its userfaultfd", m->id_text);
	close(fd);
	return false;
}

static bool is_uffd(int folder, const char *name)
{
	char is[64] = "";

	return readlinkat(folder, name, is, sizeof(is) - 1) > 0 &&
	       !strcmp(is, "anon_inode:[userfaultfd]");
}

static int take_uffd(struct micro *m, DIR *folder)
{
	struct dirent *e;

	while ((e = readdir(folder))) {
		int fd;

		if (!is_uffd(dirfd(folder), e->d_name))
			continue;
		fd = pidfd_getfd(m->pidfd, atoi(e->d_name), 0);
		if (fd < 0)
			return -errno;
		if (is_the_one(m, fd))
			return fd;
		close(fd);
	}
	return -ENOENT;
}

static int find_uffd(struct micro *m, struct error *err)
{
	char path[64];
	DIR *folder;
	int fd;

	if (take_kept(m))
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)m->pid);
	folder = opendir(path);
	fd = folder ? take_uffd(m, folder) : -errno;
	if (folder)
		closedir(folder);
	if (fd < 0)
		return error_set(err, fd, "no-descriptor",
				 "its userfaultfd cannot be had from process %d: %s; that takes "
				 "CAP_SYS_PTRACE",
				 (int)m->pid, strerror(-fd));
	m->uffd = fd;
	micro_keep(m);
	return 0;
}

/* --- at the start --- */

static int take_up(struct micro *m, struct error *err)
{
	int r = micro_image_open(m, err);

	if (!r)
		r = read_note(m, err);
	if (!r)
		r = find_uffd(m, err);
	return r ? r : micro_serve(m, true, err);
}

static void dead(struct dest *d, struct past *p)
{
	struct error err = {0};
	char name[64];

	kept_name(p->id, name);
	supervisor_forget(name);

	log_notice("micro %s: its micro-VM has ended meanwhile", p->id);
	if (history_note(p, HISTORY_GONE, NULL, HISTORY_APART, NULL, &err))
		log_error("micro %s: %s", p->id, err.msg);
	incoming_tell_past(d, p, "failed", "guest-died",
			   "the micro-VM has ended while decant-dest was away");
}

static const char *fact(const struct past *p, const char *key)
{
	const char *s = json_string_value(json_object_get(p->facts, key));

	return s ? s : "";
}

static void adopt(struct dest *d, struct past *p)
{
	int pidfd = pidfd_open(p->pid, 0);
	struct error err = {0};
	struct micro *m;

	/* Looked at behind the opening: the pid may be another one's by now. */
	if (pidfd < 0 || !proc_lives(p->pid, p->pid_start)) {
		if (pidfd >= 0)
			close(pidfd);
		dead(d, p);
		return;
	}
	m = micro_new(d, p->id, fact(p, "image"), fact(p, "socket"));
	if (!m || micro_watch(m, p->pid, pidfd)) {
		log_error("micro %s: out of memory: it stays held", p->id);
		if (m)
			micro_remove(m);
		return;
	}
	m->past = p;
	p->live = true;
	m->created_us = (uint64_t)json_integer_value(json_object_get(p->facts, "created"));
	m->adopted = true;
	micro_event(m, MICRO_EV_CONNECTED, NULL);
	if (take_up(m, &err))
		micro_event(m, MICRO_EV_TROUBLE, &err);
	else
		micro_event(m, MICRO_EV_GREETED, NULL);
}

/* --- not connected, as far as is known --- */

static void abort_waiting(struct dest *d, struct past *p)
{
	struct error err = {0};

	if (history_note(p, HISTORY_ABORTED, NULL, HISTORY_APART, NULL, &err))
		log_error("micro %s: %s", p->id, err.msg);
	log_notice("micro %s: nobody waits at %s any more: the agent had ended", p->id,
		   fact(p, "socket"));
	incoming_tell_past(d, p, "aborted", "agent-restarted",
			   "decant-dest had ended before a micro-VM was served");
}

/* Its image may be gone: then nobody is let in any more, and who is there already is told of, and never gets zeros. */
static void listen_on(struct dest *d, struct past *p, int fd)
{
	struct micro *m = micro_new(d, p->id, fact(p, "image"), fact(p, "socket"));
	struct error err = {0};
	int r;

	if (!m) {
		log_error("micro %s: out of memory: nobody listens at %s", p->id,
			  fact(p, "socket"));
		close(fd);
		abort_waiting(d, p);
		return;
	}
	m->past = p;
	p->live = true;
	m->created_us = (uint64_t)json_integer_value(json_object_get(p->facts, "created"));
	r = micro_listen_again(m, fd, &err);
	if (!r)
		r = micro_image_open(m, &err);
	if (!r) {
		log_info("micro %s: waits on at %s", m->id_text, m->socket);
		return;
	}
	micro_listen_last(m);
	if (m->state == MICRO_LISTENING)
		micro_event(m, MICRO_EV_REFUSED, &err);
}

/* The agent had ended before it took notice of anybody. Who had connected is in the queue of the socket, if that was kept. */
static void not_connected(struct dest *d, struct past *p)
{
	char name[64];
	int fd;

	socket_name(p->id, name);
	fd = supervisor_kept(d->handed, name);
	if (fd >= 0)
		listen_on(d, p, fd);
	else
		abort_waiting(d, p);
}

/* --- not served --- */

/* Is it another one's, having connected again? */
static bool served_by_other(const struct dest *d, const struct past *p)
{
	for (const struct past *o = history_first(d->history); o; o = o->next)
		if (o != p && o->pid == p->pid && o->pid_start == p->pid_start &&
		    (o->fate == HISTORY_OWNER || o->fate == HISTORY_COMPLETED))
			return true;
	return false;
}

static void end_unserved(struct dest *d, const struct past *p)
{
	CLEANUP_CLOSE int pidfd = p->pid > 0 ? pidfd_open(p->pid, 0) : -1;
	char name[64];

	/* Looked at behind the opening: the pid may be another one's by now. */
	if (pidfd < 0 || !proc_lives(p->pid, p->pid_start) || served_by_other(d, p))
		return;
	if (pidfd_send_signal(pidfd, SIGKILL, NULL, 0)) {
		log_error(
			"micro %s: process %d waits for pages that nobody can give it, and cannot "
			"be ended: %s: end it",
			p->id, (int)p->pid, strerror(errno));
		return;
	}
	log_error(
		"micro %s: process %d had connected when the agent ended, and had no page yet: its "
		"handshake is lost and it would wait for ever: it is ended, start it again",
		p->id, (int)p->pid);
	kept_name(p->id, name);
	supervisor_forget(name);
}

/* The earlier life had no time to. Of any other fate it is kept: it may be the last copy. */
static void forget_if_over(struct dest *d, const struct past *p)
{
	char name[64];
	int fd;

	if (p->fate != HISTORY_COMPLETED && p->fate != HISTORY_GONE)
		return;
	kept_name(p->id, name);
	fd = supervisor_kept(d->handed, name);
	if (fd < 0)
		return;
	close(fd);
	supervisor_forget(name);
}

void micro_adopt_start(struct dest *d)
{
	for (struct past *p = history_first(d->history); p; p = p->next) {
		if (strcmp(fact(p, "driver"), "uffd") != 0)
			continue;
		if (p->fate == HISTORY_OWNER && p->same_boot)
			adopt(d, p);
		else if (p->fate == HISTORY_SETUP && p->same_boot)
			not_connected(d, p);
		else if (p->fate == HISTORY_ABORTED && p->same_boot)
			end_unserved(d, p);
		else
			forget_if_over(d, p);
	}
}
