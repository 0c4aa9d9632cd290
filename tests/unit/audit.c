/* SPDX-License-Identifier: Apache-2.0 */
/* The audit's file: whole lines, appended only, also when the disk does not play along. */
#include "audit/audit.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>
#include "lib/tls_pki.h"
#include "util/fdio.h"

static void quiet(void)
{
	setlogmask(LOG_UPTO(LOG_CRIT));
	unsetenv("JOURNAL_STREAM");
}

TestSuite(audit, .init = quiet, .timeout = 30);

/** struct box - a folder and an audit in it */
struct box {
	struct loop *loop;
	struct audit *a;
	char dir[64];
	char path[96];
};

static void box_init(struct box *b)
{
	strcpy(b->dir, "/tmp/decant-audit-XXXXXX");
	cr_assert(ne(ptr, mkdtemp(b->dir), NULL));
	snprintf(b->path, sizeof(b->path), "%s/audit.log", b->dir);
	b->loop = loop_new();
	umask(0077);
	b->a = audit_open(b->loop, b->dir, "source");
	cr_assert(ne(ptr, b->a, NULL));
}

static void box_free(struct box *b)
{
	audit_close(b->a);
	loop_free(b->loop);
	tls_pki_remove(b->dir);
}

/* Return: its lines as JSON, new reference; a line that is none fails the test */
static json_t *lines(const char *path)
{
	json_t *all = json_array(), *o;
	char *text = NULL, *line, *save = NULL;

	cr_assert(ge(long, fdio_read_file(path, 16u << 20, &text), 0), "%s", path);
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		o = json_loads(line, 0, NULL);
		cr_assert(ne(ptr, o, NULL), "%s", line);
		json_array_append_new(all, o);
	}
	free(text);
	return all;
}

static const char *text_of(json_t *all, size_t i, const char *key)
{
	const char *s = json_string_value(json_object_get(json_array_get(all, i), key));

	return s ? s : "";
}

static json_int_t number_of(json_t *all, size_t i, const char *key)
{
	return json_integer_value(json_object_get(json_array_get(all, i), key));
}

static void note(struct box *b, int n, enum audit_flags flags)
{
	audit_note(b->a, "request", json_pack("{s:i}", "n", n), flags);
}

Test(audit, a_line_says_who_and_when)
{
	struct stat st;
	struct box b;
	json_t *all;

	box_init(&b);
	audit_note(b.a, "ownership",
		   json_pack("{s:s, s:n, s:s}", "guest", "two\nlines", "error", "job", "x"),
		   AUDIT_SYNC);
	all = lines(b.path);
	cr_assert(eq(sz, json_array_size(all), 1));
	cr_expect(eq(str, (char *)text_of(all, 0, "what"), "ownership"));
	cr_expect(eq(str, (char *)text_of(all, 0, "agent"), "source"));
	cr_expect(eq(str, (char *)text_of(all, 0, "guest"), "two\nlines"));
	cr_expect(eq(sz, strlen(text_of(all, 0, "at")), 24));
	cr_expect(eq(long, (long)number_of(all, 0, "pid"), (long)getpid()));
	cr_expect(zero(ptr, json_object_get(json_array_get(all, 0), "error")));
	json_decref(all);
	cr_assert(zero(int, stat(b.path, &st)));
	cr_expect(eq(uint, st.st_mode & 0777, 0640), "whatever the umask");
	box_free(&b);
}

/* Two agents append to one file, which is renamed meanwhile. */
Test(audit, two_agents_and_a_rotation)
{
	char old[128];
	struct audit *dest;
	struct box b;
	json_t *all;

	box_init(&b);
	dest = audit_open(b.loop, b.dir, "dest");
	for (int i = 0; i < 100; i++) {
		note(&b, i, AUDIT_PLAIN);
		audit_note(dest, "request", NULL, AUDIT_PLAIN);
	}
	snprintf(old, sizeof(old), "%s.1", b.path);
	cr_assert(zero(int, rename(b.path, old)));
	note(&b, 100, AUDIT_PLAIN);
	audit_reopen(b.a);
	note(&b, 101, AUDIT_PLAIN);
	all = lines(old);
	cr_expect(eq(sz, json_array_size(all), 201));
	json_decref(all);
	all = lines(b.path);
	cr_expect(eq(sz, json_array_size(all), 1));
	cr_expect(eq(long, (long)number_of(all, 0, "n"), 101));
	json_decref(all);
	audit_close(dest);
	box_free(&b);
}

Test(audit, what_anybody_can_cause_is_limited)
{
	struct box b;
	json_t *all;
	size_t n;

	box_init(&b);
	for (int i = 0; i < 500; i++)
		note(&b, i, AUDIT_REFUSED);
	note(&b, 1000, AUDIT_PLAIN);
	all = lines(b.path);
	n = json_array_size(all);
	cr_expect(ge(sz, n, AUDIT_REFUSED_BURST + 1));
	cr_expect(lt(sz, n, AUDIT_REFUSED_BURST + 20));
	cr_expect(eq(long, (long)number_of(all, n - 1, "n"), 1000),
		  "what is asked for counts always");
	json_decref(all);
	usleep(300000);
	note(&b, 1001, AUDIT_REFUSED);
	all = lines(b.path);
	n = json_array_size(all);
	cr_expect(ge(long, (long)number_of(all, n - 1, "suppressed"), 400));
	json_decref(all);
	box_free(&b);
}

/* The disk is full in the middle of a line: nothing but lines is lost, and their number is told. */
Test(audit, a_full_disk)
{
	struct rlimit all_there, little;
	struct box b;
	struct stat st;
	json_t *all;
	char *text;

	box_init(&b);
	note(&b, 0, AUDIT_PLAIN);
	stat(b.path, &st);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &all_there);
	little = (struct rlimit){(rlim_t)st.st_size + 20, all_there.rlim_max};
	setrlimit(RLIMIT_FSIZE, &little);
	note(&b, 1, AUDIT_PLAIN);
	note(&b, 2, AUDIT_SYNC);
	cr_expect(eq(u64, audit_lost(b.a), 2));
	setrlimit(RLIMIT_FSIZE, &all_there);
	note(&b, 3, AUDIT_PLAIN);
	cr_expect(eq(u64, audit_lost(b.a), 2));
	/* The torn line is the only one that is none. */
	cr_assert(ge(long, fdio_read_file(b.path, 1u << 20, &text), 0));
	*strchr(text, '\n') = ' ';
	memmove(text, strchr(text, '\n') + 1, strlen(strchr(text, '\n')));
	{
		FILE *f = fopen(b.path, "w");

		fputs(text, f);
		fclose(f);
	}
	free(text);
	all = lines(b.path);
	cr_assert(eq(sz, json_array_size(all), 2));
	cr_expect(eq(str, (char *)text_of(all, 0, "what"), "audit-lost"));
	cr_expect(eq(long, (long)number_of(all, 0, "lines"), 2));
	cr_expect(eq(long, (long)number_of(all, 1, "n"), 3));
	json_decref(all);
	box_free(&b);
}

/* The folder is not there at first. */
Test(audit, it_is_tried_again)
{
	char away[96];
	struct box b;
	json_t *all;

	box_init(&b);
	snprintf(away, sizeof(away), "%s.away", b.dir);
	rename(b.dir, away);
	audit_reopen(b.a);
	note(&b, 1, AUDIT_PLAIN);
	cr_expect(eq(u64, audit_lost(b.a), 1));
	rename(away, b.dir);
	note(&b, 2, AUDIT_PLAIN);
	all = lines(b.path);
	cr_expect(eq(str, (char *)text_of(all, 0, "what"), "audit-lost"));
	cr_expect(eq(long, (long)number_of(all, 1, "n"), 2));
	json_decref(all);
	box_free(&b);
}

/* Synced by a thread, again and again, also when it ends in the middle. */
Test(audit, syncs)
{
	struct box b;

	box_init(&b);
	for (int i = 0; i < 200; i++) {
		struct event *ev = loop_timer(b.loop, 1000, (loop_fn *)loop_stop, b.loop);

		note(&b, i, AUDIT_SYNC);
		note(&b, i, AUDIT_SYNC);
		loop_run(b.loop);
		event_free(ev);
	}
	note(&b, 0, AUDIT_SYNC);
	note(&b, 0, AUDIT_SYNC);
	box_free(&b);
}

/* A journal of our own, in a mount namespace. Return: its socket, -1 if it cannot be made */
static int own_journal(void)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket"};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", "/run", "tmpfs", 0, NULL))
		return -1;
	mkdir("/run/systemd", 0755);
	mkdir("/run/systemd/journal", 0755);
	return bind(fd, (struct sockaddr *)&sun, sizeof(sun)) ? -1 : fd;
}

Test(audit, the_journal_gets_fields)
{
	int fd = own_journal();
	char buf[4096];
	struct box b;
	ssize_t n;

	if (fd < 0)
		cr_skip_test("no mount namespace can be made");
	setenv("JOURNAL_STREAM", "1:2", 1);
	box_init(&b);
	audit_note(b.a, "ownership", json_pack("{s:s, s:i}", "guest", "web", "generation", 7),
		   AUDIT_PLAIN);
	n = recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT);
	cr_assert(gt(long, n, 0));
	buf[n] = '\0';
	cr_expect(ne(ptr, strstr(buf, "DECANT_AUDIT=ownership\n"), NULL), "%s", buf);
	cr_expect(ne(ptr, strstr(buf, "DECANT_GUEST=web\n"), NULL), "%s", buf);
	cr_expect(ne(ptr, strstr(buf, "DECANT_GENERATION=7\n"), NULL), "%s", buf);
	cr_expect(ne(ptr, strstr(buf, "MESSAGE=audit: ownership: {"), NULL), "%s", buf);
	close(fd);
	box_free(&b);
}
