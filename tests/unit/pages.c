/* SPDX-License-Identifier: Apache-2.0 */
#include "pages/pages.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "util/cleanup.h"

static char dir[256];
static char path[300];

static void make_dir(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/decant-pages-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	cr_assert(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/block", dir);
}

static void remove_dir(void)
{
	unlink(path);
	rmdir(dir);
}

TestSuite(pages, .init = make_dir, .fini = remove_dir);

static struct pages_what block(uint64_t npages)
{
	return (struct pages_what){.npages = npages, .page_size = 4096, .id = "m1/ram0"};
}

static struct pages *create(uint64_t npages)
{
	struct pages_what what = block(npages);
	struct error err = {};
	struct pages *p = NULL;

	cr_assert_eq(pages_create(&p, path, &what, &err), 0, "%s", err.msg);
	return p;
}

static struct pages *reopen(uint64_t npages)
{
	struct pages_what what = block(npages);
	struct error err = {};
	struct pages *p = NULL;

	cr_assert_eq(pages_open(&p, path, &what, &err), 0, "%s", err.msg);
	return p;
}

Test(pages, starts_missing)
{
	struct pages *p = create(100);

	for (uint64_t i = 0; i < 100; i++)
		cr_assert_eq(pages_get(p, i), PAGES_MISSING);
	cr_assert_eq(pages_received(p), 0);
	cr_assert_eq(pages_count(p, PAGES_MISSING), 100);
	cr_assert_eq(pages_next_missing(p, 0), 0);
	pages_close(p);
}

Test(pages, mark_changes_only_missing)
{
	struct pages *p = create(200);

	cr_assert_eq(pages_mark(p, 40, 1, PAGES_ZERO), 1);
	cr_assert_eq(pages_mark(p, 40, 1, PAGES_DATA), 0);
	cr_assert_eq(pages_mark(p, 30, 100, PAGES_DATA), 99);
	cr_assert_eq(pages_get(p, 40), PAGES_ZERO);
	cr_assert_eq(pages_get(p, 29), PAGES_MISSING);
	cr_assert_eq(pages_get(p, 30), PAGES_DATA);
	cr_assert_eq(pages_get(p, 129), PAGES_DATA);
	cr_assert_eq(pages_get(p, 130), PAGES_MISSING);
	cr_assert_eq(pages_received(p), 100);
	cr_assert_eq(pages_count(p, PAGES_DATA), 99);
	cr_assert_eq(pages_count(p, PAGES_ZERO), 1);
	pages_close(p);
}

Test(pages, set_replaces_and_discards)
{
	struct pages *p = create(1000);

	cr_assert_eq(pages_set(p, 0, 1000, PAGES_DATA), 0);
	cr_assert_eq(pages_set(p, 10, 80, PAGES_ZERO), 80);
	cr_assert_eq(pages_set(p, 50, 7, PAGES_REMOVED), 7);
	cr_assert_eq(pages_received(p), 1000);
	cr_assert_eq(pages_count(p, PAGES_ZERO), 73);
	cr_assert_eq(pages_count(p, PAGES_REMOVED), 7);
	cr_assert_eq(pages_set(p, 31, 66, PAGES_MISSING), 66);
	cr_assert_eq(pages_set(p, 30, 66, PAGES_MISSING), 1);
	cr_assert_eq(pages_received(p), 1000 - 67);
	cr_assert_eq(pages_count(p, PAGES_MISSING), 67);
	cr_assert_eq(pages_count(p, PAGES_REMOVED), 0);
	cr_assert_eq(pages_count(p, PAGES_ZERO), 20);
	cr_assert_eq(pages_next_missing(p, 0), 30);
	cr_assert_eq(pages_next_missing(p, 97), 1000);
	pages_close(p);
}

Test(pages, runs_and_search_against_a_plain_model)
{
	enum { N = 777 };
	unsigned char model[N] = {};
	struct pages *p = create(N);
	unsigned int seed = 42;

	for (int round = 0; round < 400; round++) {
		uint64_t first = (uint64_t)rand_r(&seed) % N;
		uint64_t n = (uint64_t)rand_r(&seed) % (N - first) % 90;
		int s = rand_r(&seed) % PAGES_STATES, received = 0;
		bool mark = s && rand_r(&seed) % 2;
		uint64_t expect = 0, got;

		for (uint64_t i = first; i < first + n; i++) {
			expect += mark ? !model[i] : !!model[i];
			if (!mark || !model[i])
				model[i] = (unsigned char)s;
		}
		got = mark ? pages_mark(p, first, n, (enum pages_state)s)
			   : pages_set(p, first, n, (enum pages_state)s);
		cr_assert_eq(got, expect);
		for (uint64_t i = 0; i < N; i++) {
			cr_assert_eq(pages_get(p, i), model[i]);
			received += model[i] != 0;
		}
		cr_assert_eq(pages_received(p), received);
	}
	for (uint64_t i = 0; i < N; i++) {
		uint64_t max = 1 + (uint64_t)rand_r(&seed) % 70, run = 1, next = i;
		enum pages_state state;

		while (run < max && i + run < N && model[i + run] == model[i])
			run++;
		cr_assert_eq(pages_run(p, i, max, &state), run);
		cr_assert_eq(state, model[i]);
		while (next < N && model[next])
			next++;
		cr_assert_eq(pages_next_missing(p, i), next);
	}
	pages_close(p);
}

Test(pages, search_at_the_edges)
{
	struct pages *p = create(64);
	enum pages_state state;

	pages_set(p, 0, 64, PAGES_ZERO);
	cr_assert_eq(pages_next_missing(p, 0), 64);
	cr_assert_eq(pages_next_missing(p, 64), 64);
	cr_assert_eq(pages_run(p, 0, UINT64_MAX, &state), 64);
	cr_assert_eq(pages_run(p, 63, 1, &state), 1);
	cr_assert_eq(pages_mark(p, 64, 0, PAGES_DATA), 0);
	pages_set(p, 63, 1, PAGES_MISSING);
	cr_assert_eq(pages_next_missing(p, 0), 63);
	pages_close(p);
}

Test(pages, outlives_sigkill)
{
	pid_t child;
	int status;

	child = fork();
	if (child == 0) {
		struct pages *p = create(100);

		pages_mark(p, 0, 33, PAGES_DATA);
		pages_mark(p, 64, 1, PAGES_ZERO);
		pages_mark(p, 99, 1, PAGES_REMOVED);
		kill(getpid(), SIGKILL);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status));

	struct pages *p = reopen(100);

	cr_assert_eq(pages_received(p), 35);
	cr_assert_eq(pages_count(p, PAGES_DATA), 33);
	cr_assert_eq(pages_get(p, 64), PAGES_ZERO);
	cr_assert_eq(pages_get(p, 99), PAGES_REMOVED);
	cr_assert_eq(pages_next_missing(p, 0), 33);
	pages_close(p);
}

static void refuse(const struct pages_what *what, int ret, const char *why)
{
	struct error err = {};
	struct pages *p = NULL;

	cr_assert_eq(pages_open(&p, path, what, &err), ret, "%s", err.msg);
	cr_assert_null(p);
	cr_assert(strstr(err.msg, why), "\"%s\" says nothing of \"%s\"", err.msg, why);
}

Test(pages, refuses_what_is_not_its_file)
{
	struct pages_what what = block(100), other;
	int fd;

	refuse(&what, -ENOENT, "cannot be opened");
	pages_close(create(100));
	other = block(101);
	refuse(&other, -EBADMSG, "another size");
	other = block(1000);
	refuse(&other, -EBADMSG, "bytes instead of");
	other = what;
	other.page_size = 2 << 20;
	refuse(&other, -EBADMSG, "another size");
	other = what;
	other.id[PAGES_ID_SIZE - 1] = 1;
	refuse(&other, -EBADMSG, "another block");

	fd = open(path, O_RDWR);
	cr_assert_eq(pwrite(fd, "\x40", 1, 4096 + 25), 1);
	refuse(&what, -EBADMSG, "behind the last page");
	cr_assert_eq(pwrite(fd, "\x02", 1, 8), 1);
	refuse(&what, -EBADMSG, "another version");
	cr_assert_eq(pwrite(fd, "\0", 1, 0), 1);
	refuse(&what, -EBADMSG, "never finished");
	close(fd);
	cr_assert_eq(truncate(path, 4096), 0);
	refuse(&what, -EBADMSG, "bytes instead of");
	unlink(path);
	cr_assert_eq(mkfifo(path, 0600), 0);
	refuse(&what, -EBADMSG, "not a regular file");
}

Test(pages, one_holder_at_a_time)
{
	struct pages_what what = block(100);
	struct pages *p = create(100), *q = NULL;
	struct error err = {};

	refuse(&what, -EBUSY, "another process");
	cr_assert_eq(pages_create(&q, path, &what, &err), -EEXIST);
	cr_assert_eq(access(path, F_OK), 0, "a failed create must not remove another's file");
	pages_close(p);
	pages_close(reopen(100));
}

Test(pages, refuses_absurd_blocks)
{
	static const struct pages_what bad[] = {
		{.npages = 0, .page_size = 4096},  {.npages = PAGES_MAX + 1, .page_size = 4096},
		{.npages = 1, .page_size = 0},     {.npages = 1, .page_size = 2048},
		{.npages = 1, .page_size = 12288},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error err = {};
		struct pages *p = NULL;

		cr_assert_eq(pages_create(&p, path, &bad[i], &err), -EINVAL);
		cr_assert(error_is_set(&err));
		cr_assert_eq(access(path, F_OK), -1);
	}
}

Test(pages, full_disk_is_an_error_at_once)
{
	struct pages_what what = block(UINT64_C(1) << 22); /* 1 MiB of states */
	struct error err = {};
	struct pages *p = NULL;

	if (geteuid())
		cr_skip("needs root to mount a small tmpfs");
	cr_assert_eq(mount("none", dir, "tmpfs", 0, "size=256k"), 0);
	cr_assert_eq(pages_create(&p, path, &what, &err), -ENOSPC, "%s", err.msg);
	cr_assert_eq(access(path, F_OK), -1, "nothing may be left behind");
	cr_assert_eq(umount(dir), 0);
}

Test(pages, file_has_no_holes)
{
	struct pages *p = create(UINT64_C(1) << 20);
	struct stat st;

	cr_assert_eq(stat(path, &st), 0);
	cr_assert_geq(st.st_blocks * 512, st.st_size);
	cr_assert_leq((uint64_t)st.st_size, ((UINT64_C(4096) << 20) / 16384) + 4096);
	pages_close(p);
}

/* Threads race for the same pages: each is won once, and the counts come out even. */
enum { RACE_PAGES = 5000, RACE_THREADS = 4 };

struct racer {
	pthread_t thread;
	struct pages *p;
	enum pages_state state;
	uint64_t won;
	unsigned int seed;
};

static void *race(void *arg)
{
	struct racer *r = arg;

	for (uint64_t i = 0; i < RACE_PAGES; i++)
		r->won += pages_mark(r->p, i, 1, r->state);
	for (int i = 0; i < 2000; i++) {
		uint64_t first = (uint64_t)rand_r(&r->seed) % RACE_PAGES;
		uint64_t n = (uint64_t)rand_r(&r->seed) % (RACE_PAGES - first) % 200;

		pages_set(r->p, first, n, (enum pages_state)(rand_r(&r->seed) % PAGES_STATES));
	}
	return NULL;
}

Test(pages, counts_hold_under_a_race)
{
	struct pages *p = create(RACE_PAGES);
	struct racer r[RACE_THREADS] = {};
	uint64_t n[PAGES_STATES] = {};

	for (unsigned int i = 0; i < RACE_THREADS; i++) {
		r[i] = (struct racer){.p = p, .state = (enum pages_state)(1 + i % 3), .seed = i};
		cr_assert_eq(pthread_create(&r[i].thread, NULL, race, &r[i]), 0);
	}
	for (int i = 0; i < RACE_THREADS; i++)
		pthread_join(r[i].thread, NULL);
	for (uint64_t i = 0; i < RACE_PAGES; i++)
		n[pages_get(p, i)]++;
	for (int s = 0; s < PAGES_STATES; s++)
		cr_assert_eq(pages_count(p, (enum pages_state)s), n[s], "state %d", s);
	cr_assert_eq(pages_received(p), RACE_PAGES - n[PAGES_MISSING]);
	pages_close(p);
}

static void *race_mark(void *arg)
{
	struct racer *r = arg;

	for (uint64_t i = 0; i < RACE_PAGES; i++)
		r->won += pages_mark(r->p, i, 1, r->state);
	return NULL;
}

Test(pages, each_page_is_won_once)
{
	struct pages *p = create(RACE_PAGES);
	struct racer r[RACE_THREADS] = {};
	uint64_t won = 0;

	for (unsigned int i = 0; i < RACE_THREADS; i++) {
		r[i] = (struct racer){.p = p, .state = (enum pages_state)(1 + i % 3)};
		cr_assert_eq(pthread_create(&r[i].thread, NULL, race_mark, &r[i]), 0);
	}
	for (int i = 0; i < RACE_THREADS; i++) {
		pthread_join(r[i].thread, NULL);
		won += r[i].won;
	}
	cr_assert_eq(won, RACE_PAGES);
	cr_assert_eq(pages_received(p), RACE_PAGES);
	pages_close(p);
}
