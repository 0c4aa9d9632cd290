/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that say to the attach sockets what no guest says: they are cut off, and guests beside them
 * come and go.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "lib/fake_dest.h"
#include "lib/fake_guest.h"
#include "lib/lab_hostile.h"
#include "lib/lab_test.h"

TestSuite(hostile_guest, .timeout = 180);

static int attach_to(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
		return fd;
	close(fd);
	return -1;
}

static void send_noise(struct lab_host *h, const char *path, const char *sock)
{
	uint64_t state = 7;
	char what[32];

	for (int round = 0; round < 200; round++) {
		int fd = attach_to(path);
		uint8_t out[300];
		size_t n = hostile_random(&state) % sizeof(out);

		lab_check(h->lab, fd >= 0, "%s: %m", path);
		for (size_t i = 0; i < n; i++)
			out[i] = (uint8_t)hostile_random(&state);
		if (n >= 8 && round % 2) {
			hostile_put16(out, (uint16_t)(1 + round % 6));
			hostile_put16(out + 2, 0);
			hostile_put32(out + 4, 0);
		}
		send(fd, out, n, MSG_NOSIGNAL);
		/* It hangs up: at once, or because the hello does not come. */
		if (round % 50 == 1) {
			struct timeval tv = {.tv_sec = 15};

			setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
			do
				errno = 0;
			while (recv(fd, out, sizeof(out), 0) > 0);
			lab_check(h->lab, errno != EAGAIN, "noise is kept waiting");
		}
		close(fd);
		snprintf(what, sizeof(what), "noise %d", round);
	}
	hostile_alive(h, sock, what);
}

Test(hostile_guest, attach)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_guest *g;

	send_noise(a, a->attach, a->source_sock);
	send_noise(b, lab_host_path(b, "dest.attach"), b->dest_sock);
	/* A guest that nobody expects is refused at the destination. */
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 8});
	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

/* --- guests --- */

/**
 * struct guest_row - a sin, and what becomes of it
 * @refused:	code with which it is not let in; NULL if it is
 * @phase, @code: of its migration; phase NULL if it cannot even begin
 */
struct guest_row {
	const char *what;
	enum guest_sin sin;
	const char *refused;
	const char *phase;
	const char *code;
};

static const struct guest_row guests[] = {
	{"good", GUEST_GOOD, NULL, "completed", NULL},
	{"unsealed", GUEST_UNSEALED, "bad-block", NULL, NULL},
	{"no descriptor", GUEST_NO_FD, "bad-message", NULL, NULL},
	{"two descriptors", GUEST_TWO_FDS, "bad-message", NULL, NULL},
	{"a pipe", GUEST_PIPE, "bad-block", NULL, NULL},
	{"cut short", GUEST_CUT, "bad-message", NULL, NULL},
	{"unmaps", GUEST_UNMAPS, NULL, "failed", NULL},
	{"punches", GUEST_PUNCHES, NULL, "completed", NULL},
	{"exits welcomed", GUEST_EXITS_WELCOME, NULL, NULL, NULL},
	{"exits asked for its userfaultfd", GUEST_EXITS_UFFD, NULL, "failed", NULL},
	{"exits in precopy", GUEST_EXITS_TRACKED, NULL, "failed", NULL},
	{"exits in the pause", GUEST_EXITS_PAUSE, NULL, "failed", NULL},
	{"exits when it is saved", GUEST_EXITS_SAVE, NULL, "failed", NULL},
	/* Its memfd outlives it, and its state is known: there is nothing that it is still needed for. */
	{"exits behind its state", GUEST_EXITS_SAVED, NULL, "completed or failed", NULL},
	{"no userfaultfd", GUEST_NOT_UFFD, NULL, "failed", NULL},
	{"deaf", GUEST_DEAF, NULL, "failed", "guest-timeout"},
	{"endless state", GUEST_STATE_ENDLESS, NULL, "failed", NULL},
	{"state that lies", GUEST_STATE_LIES, NULL, "failed", NULL},
	{"unasked", GUEST_UNASKED, NULL, NULL, NULL},
	{"floods", GUEST_FLOODS, NULL, NULL, NULL},
};

static bool is_refused(struct lab *lab, struct lab_proc *p, const char *code)
{
	char *said = lab_proc_text(lab, p, "out"), want[64];
	bool is;

	snprintf(want, sizeof(want), "refused: %s: ", code);
	is = said && strstr(said, want);
	free(said);
	return is;
}

static void describe(struct lab_host *a, const char *name)
{
	char body[256];
	int status;

	snprintf(body, sizeof(body),
		 "{\"name\": \"%s\", \"driver\": \"native\", \"launcher\": \"stamp\"}", name);
	status = lab_http(a->source_sock, "POST", "/v1/guests", body, NULL);
	lab_check(a->lab, status == 201 || status == 200, "%s is not described: %d", name, status);
}

static json_t *job_of(struct lab_host *a, const char *guest)
{
	json_t *list = lab_get(a->lab, a->source_sock, "/v1/migrations"), *o, *found = NULL;
	size_t i;

	json_array_foreach(lab_at(list, "items"), i, o) {
		if (!found && !strcmp(lab_str(a->lab, o, "guest"), guest))
			found = json_incref(o);
	}
	json_decref(list);
	return found;
}

static void move(struct lab_host *a, const char *name, const struct guest_row *r)
{
	struct fake_dest *d = fake_dest_start(a->lab, SIN_NONE);
	const char *const args[] = {"migrate",  name,
				    "--to",     fake_dest_to(d),
				    "--wait",   "--switchover-timeout-ms",
				    "2000",     "--no-convergence",
				    "postcopy", "--max-passes",
				    "4",        NULL};
	int status = lab_decant(a, 30000, NULL, NULL, args);
	json_t *job = job_of(a, name), *e = job ? lab_at(job, "error") : NULL;

	lab_check(a->lab, job, "%s: no job, status %d", r->what, status);
	fprintf(stderr, "%s: %s: %s: %s\n", r->what, lab_str(a->lab, job, "phase"),
		json_is_object(e) ? lab_str(a->lab, e, "code") : "-",
		json_is_object(e) ? lab_str(a->lab, e, "message") : "");
	lab_check(a->lab, strstr(r->phase, lab_str(a->lab, job, "phase")), "%s: it is %s", r->what,
		  lab_str(a->lab, job, "phase"));
	lab_check(a->lab, !r->code || !strcmp(lab_str(a->lab, e, "code"), r->code), "%s: %s",
		  r->what, lab_str(a->lab, e, "message"));
	lab_check(a->lab, !json_is_object(e) || *lab_str(a->lab, e, "message"), "%s: no reason",
		  r->what);
	json_decref(job);
	fake_dest_end(d);
}

static void play(struct lab_host *a, const struct guest_row *r, unsigned int i)
{
	struct lab_watch w = lab_watch_begin(a->lab, a->source);
	struct lab_proc *p;
	char name[32];

	snprintf(name, sizeof(name), "rogue%u", i);
	describe(a, name);
	p = fake_guest_start(a, name, r->sin);
	if (r->refused) {
		lab_until(a->lab, 5000, is_refused(a->lab, p, r->refused),
			  "%s: not refused with %s", r->what, r->refused);
	} else if (!r->phase) {
		lab_proc_wait(a->lab, p, 10000);
	} else {
		lab_host_knows(a, name);
		move(a, name, r);
	}
	if (lab_proc_alive(p))
		lab_proc_kill(a->lab, p);
	/* The endless state is 64 MiB before it is known to be too much. */
	lab_watch_end(&w, r->what, &(struct lab_cost){.cpu_percent = 120, .peak_mb = 24});
}

Test(hostile_guest, sins)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_beside beside = lab_beside_begin(a, b, 6000);

	for (unsigned int i = 0; i < LAB_COUNT(guests); i++)
		play(a, &guests[i], i);
	lab_beside_end(&beside);
	lab_end(lab);
}

/* One process takes what it can get; another guest attaches all the same. */
Test(hostile_guest, crowd)
{
	struct lab_host *a, *b;
	struct lab *lab = lab_test_pair(&a, &b);
	struct lab_watch w = lab_watch_begin(lab, a->source);
	struct lab_guest *g;
	int fds[400];

	for (size_t i = 0; i < LAB_COUNT(fds); i++)
		fds[i] = attach_to(a->attach);
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 8});
	lab_check(lab, lab_usage(lab, a->source->pid).fds < w.usage.fds + 100,
		  "the crowd holds %u descriptors", lab_usage(lab, a->source->pid).fds);
	for (size_t i = 0; i < LAB_COUNT(fds); i++)
		close(fds[i]);
	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);
	lab_watch_end(&w, "crowd", &(struct lab_cost){0});
	lab_end(lab);
}
