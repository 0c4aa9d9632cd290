/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same experiment as lazy.c's with CRIU itself, where there is one: a program is checkpointed, and
 * restored with its pages brought lazily; the daemon that brings them is killed while it reads. It reads
 * on, and finds zeros where its pages were. $DECANT_CRIU says where the program is, else it is looked for in
 * PATH. Older ones than 4 do not know the vDSO of recent kernels.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "guests/reader.h"
#include "lib/lab_matrix.h"
#include "lib/lab_test.h"

TestSuite(lazy_criu, .timeout = 120);

/* Pages that it has read when the daemon is killed, which brings the others in less than a second. */
#define READ 1000

/**
 * struct scene - a program, and where it is kept
 * @criu:	program
 * @images:	folder
 * @file:	what the program and we share: @r
 */
struct scene {
	struct lab *lab;
	char criu[LAB_PATH_MAX];
	char images[LAB_PATH_MAX + 16];
	char file[LAB_PATH_MAX + 16];
	struct reader *r;
};

/* Return: whether a program of that path is a CRIU that can be used; @ret_major: its version */
static bool try_criu(const char *path, unsigned int *ret_major)
{
	char command[LAB_PATH_MAX + 32], line[128] = "";
	FILE *f;

	snprintf(command, sizeof(command), "'%s' --version 2>/dev/null", path);
	f = popen(command, "re");
	if (f && !fgets(line, sizeof(line), f))
		line[0] = 0;
	if (f)
		pclose(f);
	return sscanf(line, "Version: %u", ret_major) == 1;
}

/* Return: NULL, or why there is none */
static const char *find_criu(char *path, size_t n)
{
	const char *given = getenv("DECANT_CRIU");
	unsigned int major = 0;

	snprintf(path, n, "%s", given && *given ? given : "criu");
	if (geteuid())
		return "needs root";
	if (!try_criu(path, &major))
		return "no criu here (DECANT_CRIU=PATH)";
	if (major < 4)
		return "criu is older than 4 (DECANT_CRIU=PATH)";
	if (strchr(path, '/'))
		return NULL;
	snprintf(path, n, "/usr/sbin/criu");
	return access(path, X_OK) ? "criu is not at /usr/sbin (DECANT_CRIU=PATH)" : NULL;
}

static struct scene begin(const char *criu)
{
	struct scene s = {.lab = lab_new(lab_test_failed)};
	int fd;

	snprintf(s.criu, sizeof(s.criu), "%s", criu);
	snprintf(s.images, sizeof(s.images), "%s/images", s.lab->root);
	snprintf(s.file, sizeof(s.file), "%s/shared", s.lab->root);
	lab_check(s.lab, mkdir(s.images, 0700) == 0, "%s: %m", s.images);
	fd = open(s.file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	lab_check(s.lab, fd >= 0 && ftruncate(fd, READER_PAGE) == 0, "%s: %m", s.file);
	s.r = mmap(NULL, READER_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	lab_check(s.lab, s.r != MAP_FAILED, "%s: %m", s.file);
	close(fd);
	return s;
}

/* Return: its pid, which it will have again */
static pid_t checkpoint(struct scene *s)
{
	char program[LAB_PATH_MAX + 16], pid[16];
	struct lab_proc *p;
	pid_t was;

	snprintf(program, sizeof(program), "%s/guests/reader", s->lab->tests);
	p = lab_spawn(s->lab, NULL, "reader", (const char *const[]){program, s->file, NULL});
	lab_until(s->lab, 20000, atomic_load(&s->r->ready), "the program is not ready");
	was = p->pid;
	snprintf(pid, sizeof(pid), "%d", was);
	lab_check(s->lab,
		  lab_run(s->lab, NULL, 60000, NULL, NULL,
			  (const char *const[]){s->criu, "dump", "-t", pid, "-D", s->images, "-o",
						"dump.log", NULL}) == 0,
		  "criu dump: see dump.log");
	lab_proc_wait(s->lab, p, 10000);
	return was;
}

static struct lab_proc *restore(struct scene *s)
{
	struct lab_proc *daemon =
		lab_spawn(s->lab, NULL, "lazy-pages",
			  (const char *const[]){s->criu, "lazy-pages", "-D", s->images, "-o",
						"lazy.log", NULL});
	char socket[LAB_PATH_MAX + 64];

	snprintf(socket, sizeof(socket), "%s/lazy-pages.socket", s->images);
	lab_until(s->lab, 20000, !access(socket, F_OK), "the daemon does not listen");
	/* It reads as soon as it is there again. */
	atomic_store(&s->r->go, true);
	lab_spawn(s->lab, NULL, "restore",
		  (const char *const[]){s->criu, "restore", "-d", "--lazy-pages", "-D", s->images,
					"-o", "restore.log", NULL});
	return daemon;
}

/* Return: pages of zeros that the program has read; 0 if the daemon was killed too late */
static unsigned int zeros_read(const char *criu)
{
	struct scene s = begin(criu);
	pid_t pid = checkpoint(&s);
	struct lab_proc *daemon = restore(&s);
	unsigned int zeros;

	lab_until(s.lab, 30000, atomic_load(&s.r->good) > READ, "it does not read");
	lab_proc_kill(s.lab, daemon);
	lab_until(s.lab, 60000, atomic_load(&s.r->done), "it waits");
	fprintf(stderr, "%u pages right, %u zeros, %u others\n", s.r->good, s.r->zero, s.r->other);
	lab_check(s.lab, s.r->good + s.r->zero == READER_PAGES, "%u others", s.r->other);
	zeros = s.r->zero;
	kill(pid, SIGKILL);
	munmap(s.r, READER_PAGE);
	lab_end(s.lab);
	return zeros;
}

Test(lazy_criu, the_daemon_is_killed)
{
	struct lab_row row = {.fault = "control: CRIU's lazy-pages daemon killed",
			      .phase = "postcopy",
			      .mode = "postcopy",
			      .driver = "criu"};
	char criu[LAB_PATH_MAX], outcome[48];
	const char *missing;
	unsigned int zeros = 0;

	lab_test_long();
	missing = find_criu(criu, sizeof(criu));
	if (missing)
		cr_skip_test("%s", missing);
	lab_matrix_begin(&row);
	/* On a busy machine it may have brought everything before we see that the program reads. */
	for (int i = 0; i < 4 && !zeros; i++)
		zeros = zeros_read(criu);
	cr_assert_gt(zeros, 0, "it proves nothing about decant unless it goes wrong here");
	snprintf(outcome, sizeof(outcome), "%u zero pages", zeros);
	lab_matrix_end(&row, outcome);
}
