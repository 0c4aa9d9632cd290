/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A destination agent that finds what an earlier life has left, damaged, of a guest that has begun to run here: pieces
 * that are files, before each a byte that says which. The guest comes back, with the userfaultfd that it has kept, and
 * the last piece is what a source says that wants to go on.
 */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include "fuzz/lib/fuzz_client.h"
#include "fuzz/lib/fuzz_dest.h"
#include "fuzz/lib/fuzz_fd.h"
#include "fuzz/lib/fuzz_journal.h"
#include "fuzz/lib/fuzz_vm.h"
#include "proc.h"
#include "util/cleanup.h"

#define ID  "09000000-0000-0000-0000-000000000000"
#define TAG 9
/* What takes a guest over waits for nothing but the loop; a thread of an earlier input may still hold the file. */
#define TURNS 30

/** struct left - a file; @sealed: lines with checksums */
static const struct left {
	const char *folder, *name;
	bool sealed;
} files[] = {
	{"state/incoming", ID ".journal", true},
	{"run", "pages." ID ".0", false},
	{"run", "pages." ID ".json", false},
	{"state", "rest-dest.journal", true},
	{"state", "cordon", false},
};

/* In the place of libc's: the guest of the record is this process, and nobody kills that. */
int pidfd_send_signal(int pidfd, int sig, siginfo_t *info, unsigned int flags)
{
	(void)pidfd;
	(void)sig;
	(void)info;
	(void)flags;
	return 0;
}

static void put(const char *dir, const struct left *file, struct fuzz_in in)
{
	uint8_t *sealed = NULL;
	char path[160], *text = NULL;
	int fd;

	if (file->sealed)
		in = fuzz_journal(fuzz_journal_here(in, proc_start(getpid()), &text), &sealed);
	snprintf(path, sizeof(path), "%s/%s", dir, file->folder);
	FUZZ_CHECK(!fdio_mkdir_p(path, 0755));
	snprintf(path, sizeof(path), "%s/%s/%s", dir, file->folder, file->name);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	FUZZ_CHECK(fd >= 0 && write(fd, in.p ? in.p : (const uint8_t *)"", in.n) == (ssize_t)in.n);
	close(fd);
	free(sealed);
	free(text);
}

static void look(struct loop *loop, const char *dir)
{
	static const char *const paths[] = {"/v1/incoming", "/v1/incoming/" ID, "/v1/host",
					    "/metrics"};
	struct fuzz_client c;

	fuzz_client_begin(&c, loop, dir);
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		fuzz_client_get(&c, paths[i]);
	fuzz_client_end(&c);
}

static void turn(struct loop *loop, struct fuzz_vm *g)
{
	for (int i = 0; i < TURNS; i++) {
		fuzz_turns(loop, 2);
		fuzz_vm_serve(g);
		usleep(100);
	}
}

static void serve(struct dest *d, const char *dir, bool kept, struct fuzz_in said)
{
	struct fuzz_vm g;
	int s;

	fuzz_vm_return(&g, dir, fuzz_memory(), kept ? fuzz_uffd() : -1, TAG);
	turn(d->loop, &g);
	s = fuzz_dest_connect();
	(void)!send(s, said.p, said.n, MSG_NOSIGNAL | MSG_DONTWAIT);
	turn(d->loop, &g);
	look(d->loop, dir);
	close(s);
	fuzz_vm_end(&g);
	fuzz_turns(d->loop, 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size), piece = {data, 0};
	uint8_t which = fuzz_u8(&in);
	char dir[FUZZ_DIR_MAX];
	bool kept = !(which & 128);
	struct dest d;

	fuzz_memory();
	fuzz_dir_new(dir);
	for (;;) {
		piece = fuzz_piece(&in);
		if (!in.n)
			break;
		put(dir, &files[(which & 127) % ARRAY_SIZE(files)], piece);
		which = fuzz_u8(&in);
	}
	if (fuzz_dest_new(&d, dir))
		serve(&d, dir, kept, piece);
	fuzz_dest_free(&d);
	fuzz_dir_free(dir);
	return 0;
}
