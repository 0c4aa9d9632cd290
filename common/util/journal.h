/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small append-only record file: one JSON object a line, each with a checksum, synced before
 * journal_append() returns. A torn last line (crash while writing) is cut off when it is opened
 * again; a bad line in the middle is an error, never skipped.
 */
#ifndef DECANT_UTIL_JOURNAL_H
#define DECANT_UTIL_JOURNAL_H

#include <jansson.h>
#include "util/error.h"

struct journal;

/**
 * journal_open() - open or create
 * @path:	file, made with mode 0600; its folder is synced when it is created
 * @ret_records:	new reference to a JSON array of the records that are there, oldest first;
 *			may be NULL
 *
 * Return: 0, or -errno with @err filled
 */
int journal_open(const char *path, struct journal **ret, json_t **ret_records, struct error *err);
/**
 * journal_create() - the same for one that has no records yet, without syncing its folder
 *
 * For a journal that is synced apart (journal_sync.h), which syncs the folder, too, or never.
 */
int journal_create(const char *path, struct journal **ret, struct error *err);
/**
 * journal_append() - write one record and fdatasync(2) it; any one thread at a time
 * @record:	a JSON object
 *
 * Return: 0 or -errno with @err filled; after a failure the file is as before, or the journal
 * refuses further use
 */
int journal_append(struct journal *j, const json_t *record, struct error *err);
/**
 * journal_write() - write one record and do not sync it
 *
 * For a moment that cannot wait for a disk: the record outlives the death of the process, and is as
 * good as lost if the whole machine dies before journal_sync(). Return: as journal_append()
 */
int journal_write(struct journal *j, const json_t *record, struct error *err);
/** journal_sync() - fdatasync(2) what was written. Return: 0 or -errno with @err filled; after a failure the journal refuses further use */
int journal_sync(struct journal *j, struct error *err);
/** journal_close() - what syncs it apart goes on to its end, and nobody is told who is not being told. NULL is fine */
void journal_close(struct journal *j);
/** journal_each_fn - of journal_each(); @path is valid until it returns */
typedef void journal_each_fn(void *arg, const char *path);
/**
 * journal_each() - call @fn with each file of a folder whose name ends with ".journal", in no order
 * @dir:	that it is not there is no error
 *
 * Return: 0, or -errno with @err filled
 */
int journal_each(const char *dir, journal_each_fn *fn, void *arg, struct error *err);

#endif
