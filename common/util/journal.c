/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line is `<16 hex digits> <compact JSON>\n`; the digits are the XXH3-64 of the JSON's bytes.
 *
 * Opening must tell a torn line from an altered one, because a record whose append succeeded may
 * never be dropped: another host may own the guest by it. Torn is only what an append that never
 * returned can leave: a tail without its newline, or a last line with NULs in it where the file
 * had grown but not every block had been written. All else that does not check is an error.
 */
#include "util/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "util/cleanup.h"
#include "util/fdio.h"
#include "util/journal_priv.h"

/* A journal that would grow larger than this is refused: it is read whole when it is opened. */
#define JOURNAL_MAX (UINT64_C(64) << 20)
/* Digits of the checksum and the blank behind them. */
#define HEAD_LEN 17

static void head_of(char head[static HEAD_LEN + 1], const char *json, size_t n)
{
	snprintf(head, HEAD_LEN + 1, "%016" PRIx64 " ", (uint64_t)XXH3_64bits(json, n));
}

/* One line without its newline. Return: new reference, NULL with @ret_why set */
static json_t *parse_line(const char *line, size_t n, const char **ret_why)
{
	char head[HEAD_LEN + 1];
	json_t *record;

	*ret_why = "the checksum does not match";
	if (n < HEAD_LEN)
		return NULL;
	head_of(head, line + HEAD_LEN, n - HEAD_LEN);
	if (memcmp(head, line, HEAD_LEN) != 0)
		return NULL;
	*ret_why = "not a JSON object";
	record = json_loadb(line + HEAD_LEN, n - HEAD_LEN, JSON_ALLOW_NUL, NULL);
	if (record && !json_is_object(record)) {
		json_decref(record);
		record = NULL;
	}
	return record;
}

/* Parse the lines of @buf up to the first torn one. Return: bytes of good lines or -errno */
static ssize_t parse_all(const char *path, const char *buf, size_t len, json_t *records,
			 struct error *err)
{
	const char *at = buf, *end = buf + len, *nl, *why;
	json_t *record;

	for (size_t line = 1; at < end; line++, at = nl + 1) {
		nl = memchr(at, '\n', (size_t)(end - at));
		if (!nl)
			break;
		record = parse_line(at, (size_t)(nl - at), &why);
		if (!record && nl + 1 == end && memchr(at, '\0', (size_t)(nl - at)))
			break;
		if (!record)
			return error_set(
				err, -EBADMSG, "bad-journal",
				"%s: line %zu: %s; the file was altered, move it away only "
				"if no guest depends on it",
				path, line, why);
		if (json_array_append_new(records, record))
			return error_set(err, -ENOMEM, NULL, "%s: out of memory", path);
	}
	return at - buf;
}

static int read_all(struct journal *j, char **ret, size_t *ret_len, struct error *err)
{
	CLEANUP_FREE char *buf = NULL;
	struct stat st;
	int r;

	if (fstat(j->fd, &st))
		return error_set(err, -errno, NULL, "%s: %m", j->path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "bad-journal", "%s: not a regular file", j->path);
	if ((uint64_t)st.st_size > JOURNAL_MAX)
		return error_set(err, -EFBIG, "bad-journal", "%s: larger than %" PRIu64 " MiB",
				 j->path, JOURNAL_MAX >> 20);
	buf = malloc((size_t)st.st_size + 1);
	if (!buf)
		return error_set(err, -ENOMEM, NULL, "%s: out of memory", j->path);
	r = fdio_pread_full(j->fd, buf, (size_t)st.st_size, 0);
	if (r < 0)
		return error_set(err, r, NULL, "%s: %s", j->path, strerror(-r));
	*ret_len = (size_t)st.st_size;
	*ret = steal_ptr(&buf);
	return 0;
}

/* Read what is there and cut off what is torn. */
static int replay(struct journal *j, json_t *records, struct error *err)
{
	CLEANUP_FREE char *buf = NULL;
	size_t len = 0;
	ssize_t good;
	int r;

	r = read_all(j, &buf, &len, err);
	if (r < 0)
		return r;
	good = parse_all(j->path, buf, len, records, err);
	if (good < 0)
		return (int)good;
	j->size = (uint64_t)good;
	if (j->size < len && (ftruncate(j->fd, good) || fdatasync(j->fd)))
		return error_set(err, -errno, NULL, "%s: cannot cut off a torn line: %m", j->path);
	return 0;
}

/*
 * As long as it is empty it may be new: also when another process made it and died before its folder was
 * synced.
 */
static int sync_folder(const struct journal *j, struct error *err)
{
	int r = j->size ? 0 : fdio_sync_dir_of(j->path);

	return r < 0 ? error_set(err, r, NULL, "%s: cannot sync its folder: %s", j->path,
				 strerror(-r))
		     : 0;
}

static int open_locked(struct journal *j, const char *path, struct error *err)
{
	j->path = strdup(path);
	if (!j->path)
		return error_set(err, -ENOMEM, NULL, "%s: out of memory", path);
	j->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
	if (j->fd < 0)
		return error_set(err, -errno, NULL, "%s: %m", path);
	if (flock(j->fd, LOCK_EX | LOCK_NB)) {
		if (errno == EWOULDBLOCK)
			return error_set(err, -EBUSY, NULL, "%s: in use by another process", path);
		return error_set(err, -errno, NULL, "%s: cannot lock: %m", path);
	}
	return 0;
}

static int open_any(const char *path, bool folder, struct journal **ret, json_t **ret_records,
		    struct error *err)
{
	struct journal *j = calloc(1, sizeof(*j));
	json_t *records = json_array();
	int r = -ENOMEM;

	if (!j || !records) {
		free(j);
		json_decref(records);
		return error_set(err, r, NULL, "%s: out of memory", path);
	}
	j->fd = -1;
	r = open_locked(j, path, err);
	if (!r)
		r = replay(j, records, err);
	if (!r && folder)
		r = sync_folder(j, err);
	if (r < 0) {
		journal_close(j);
		json_decref(records);
		return r;
	}
	if (ret_records)
		*ret_records = records;
	else
		json_decref(records);
	*ret = j;
	return 0;
}

int journal_open(const char *path, struct journal **ret, json_t **ret_records, struct error *err)
{
	return open_any(path, true, ret, ret_records, err);
}

int journal_create(const char *path, struct journal **ret, struct error *err)
{
	return open_any(path, false, ret, NULL, err);
}

/* The line of a record. Return: its length with @ret for free(), or -errno */
static ssize_t make_line(const json_t *record, char **ret)
{
	CLEANUP_FREE char *json = json_dumps(record, JSON_COMPACT);
	size_t n;
	char *line;

	if (!json)
		return -EINVAL;
	n = strlen(json);
	line = malloc(HEAD_LEN + n + 2);
	if (!line)
		return -ENOMEM;
	head_of(line, json, n);
	memcpy(line + HEAD_LEN, json, n);
	line[HEAD_LEN + n] = '\n';
	*ret = line;
	return (ssize_t)(HEAD_LEN + n + 1);
}

/*
 * Put the file back to what it was. After a failed fdatasync(2) that is not enough: the kernel
 * has dropped what it could not write and will not say so again.
 */
static int undo(struct journal *j, int r, bool synced_failed, struct error *err)
{
	if (ftruncate(j->fd, (off_t)j->size) || synced_failed)
		j->broken = true;
	return error_set(err, r, NULL, "%s: cannot append: %s%s", j->path, strerror(-r),
			 j->broken ? "; the journal is closed for writing until a restart" : "");
}

static int append(struct journal *j, const json_t *record, bool sync, struct error *err)
{
	CLEANUP_FREE char *line = NULL;
	ssize_t n;
	int r;

	if (j->broken)
		return error_set(err, -EIO, NULL, "%s: an earlier append failed", j->path);
	if (!json_is_object(record))
		return error_set(err, -EINVAL, NULL, "%s: a record must be an object", j->path);
	n = make_line(record, &line);
	if (n < 0)
		return error_set(err, (int)n, NULL, "%s: a record cannot be written as JSON",
				 j->path);
	if (j->size + (uint64_t)n > JOURNAL_MAX)
		return error_set(err, -EFBIG, NULL, "%s: would grow beyond %" PRIu64 " MiB",
				 j->path, JOURNAL_MAX >> 20);
	r = fdio_pwrite_full(j->fd, line, (size_t)n, j->size);
	if (r < 0)
		return undo(j, r, false, err);
	if (sync && fdatasync(j->fd))
		return undo(j, -errno, true, err);
	j->size += (uint64_t)n;
	return 0;
}

int journal_append(struct journal *j, const json_t *record, struct error *err)
{
	return append(j, record, true, err);
}

int journal_write(struct journal *j, const json_t *record, struct error *err)
{
	return append(j, record, false, err);
}

int journal_sync(struct journal *j, struct error *err)
{
	if (j->broken)
		return error_set(err, -EIO, NULL, "%s: an earlier append failed", j->path);
	if (!fdatasync(j->fd))
		return 0;
	j->broken = true;
	return error_set(err, -errno, NULL, "%s: cannot sync: %m", j->path);
}

void journal_close(struct journal *j)
{
	if (!j)
		return;
	/* The lock is that of all descriptors of it: who syncs it still must not keep the next one out. */
	if (j->fd >= 0) {
		flock(j->fd, LOCK_UN);
		close(j->fd);
	}
	if (j->sync)
		journal_sync_closed(j);
	free(j->path);
	free(j);
}

int journal_each(const char *dir, journal_each_fn *fn, void *arg, struct error *err)
{
	static const char suffix[] = ".journal";
	char path[4096 + 256];
	const struct dirent *de;
	DIR *d = opendir(dir);

	if (!d)
		return errno == ENOENT ? 0
				       : error_set(err, -errno, NULL, "cannot read %s: %s", dir,
						   strerror(errno));
	while ((de = readdir(d))) {
		size_t len = strlen(de->d_name);

		if (len < strlen(suffix) || strcmp(de->d_name + len - strlen(suffix), suffix) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, de->d_name);
		fn(arg, path);
	}
	closedir(d);
	return 0;
}
