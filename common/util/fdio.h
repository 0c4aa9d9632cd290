/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors: whole reads and writes, Unix sockets, folders, random bytes. */
#ifndef DECANT_UTIL_FDIO_H
#define DECANT_UTIL_FDIO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "util/error.h"

/** fdio_pread_full() - Return: 0, -EIO if the file ends first, or -errno */
int fdio_pread_full(int fd, void *buf, size_t n, uint64_t off);
/** fdio_pwrite_full() - Return: 0 or -errno */
int fdio_pwrite_full(int fd, const void *buf, size_t n, uint64_t off);
/** fdio_write_full() - blocking descriptor. Return: 0 or -errno */
int fdio_write_full(int fd, const void *buf, size_t n);
/**
 * fdio_read_file() - a whole small file
 * @max:	larger is -EFBIG
 * @ret:	new allocation with a NUL behind the end, for free()
 *
 * Return: length or -errno
 */
ssize_t fdio_read_file(const char *path, size_t max, char **ret);
/**
 * fdio_unix_listen() - bind and listen
 * @path:	a socket file that nobody listens on any more is replaced; a live one is
 *		-EADDRINUSE, any other file -EEXIST
 * @type:	SOCK_STREAM or SOCK_SEQPACKET
 * @mode:	of the socket file: who may connect
 *
 * Return: non-blocking descriptor or -errno with @err filled
 */
int fdio_unix_listen(const char *path, int type, mode_t mode, struct error *err);
/**
 * fdio_unix_connect() - connect, waiting for at most 2 s where the listener's queue is full
 * @nonblock:	make the descriptor non-blocking afterwards
 *
 * Return: descriptor, -ETIMEDOUT or another -errno
 */
int fdio_unix_connect(const char *path, int type, int nonblock);
/**
 * fdio_mkdir_p() - make a folder and its parents
 * @mode:	of the folder, its parents get 0755, whatever the umask; those that are there
 *		already keep theirs
 *
 * Return: 0 or -errno
 */
int fdio_mkdir_p(const char *path, mode_t mode);
/**
 * fdio_close_apart() - close, in a thread of its own if that may take long
 * @fd:		negative is nothing
 *
 * For what may be the last reference to a memory file: giving its pages back takes 100 ms for each
 * GiB, in which no event loop may stand still.
 */
void fdio_close_apart(int fd);
/**
 * fdio_close_slow() - close, in a thread of its own
 * @fd:		negative is nothing
 *
 * For what always may take long, whatever its size: an inotify(7) instance waits for a grace period of
 * the whole machine, which has been seen to take 8 s on a busy one.
 */
void fdio_close_slow(int fd);
/**
 * fdio_high() - move a descriptor to a high number
 *
 * The files of a process that is killed are let go one after the other, the highest number first
 * (tests/platform/dead_files.c). What others wait for goes there, so that it comes before all that is slow.
 *
 * Return: its new number, or @fd where that cannot be had; negative is nothing
 */
int fdio_high(int fd);
/** fdio_random() - fill with random bytes; never fails */
void fdio_random(void *buf, size_t n);
/**
 * fdio_replace_file() - write a whole small file, synced: afterwards the old one or the new one is there
 * @text:	its contents
 * @mode:	of the file, less the umask
 *
 * Return: 0 or -errno
 */
int fdio_replace_file(const char *path, const char *text, mode_t mode);
/** fdio_sync_dir_of() - fsync the folder that holds @path. Return: 0 or -errno */
int fdio_sync_dir_of(const char *path);

/** FDIO_UUID_MAX - text of a UUID and its NUL */
#define FDIO_UUID_MAX 37
/** fdio_uuid4() - a fresh random UUID, lower case; Return: @buf */
char *fdio_uuid4(char buf[static FDIO_UUID_MAX]);
/** fdio_boot_id() - UUID of this boot of the kernel, "" if it cannot be told. Return: @buf */
char *fdio_boot_id(char buf[static FDIO_UUID_MAX]);

#endif
