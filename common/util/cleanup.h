/* SPDX-License-Identifier: Apache-2.0 */
/* Scope-bound release of memory, descriptors and locks. */
#ifndef DECANT_UTIL_CLEANUP_H
#define DECANT_UTIL_CLEANUP_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free_(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close_(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_fclose_(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void cleanup_unlock_(pthread_mutex_t **m)
{
	if (*m)
		pthread_mutex_unlock(*m);
}

static inline pthread_mutex_t *cleanup_lock_(pthread_mutex_t *m)
{
	pthread_mutex_lock(m);
	return m;
}

/** CLEANUP_FREE - free() the pointer when it goes out of scope */
#define CLEANUP_FREE __attribute__((cleanup(cleanup_free_)))
/** CLEANUP_CLOSE - close() the descriptor, unless negative, when it goes out of scope */
#define CLEANUP_CLOSE __attribute__((cleanup(cleanup_close_)))
/** CLEANUP_FCLOSE - fclose() the stream, unless NULL, when it goes out of scope */
#define CLEANUP_FCLOSE __attribute__((cleanup(cleanup_fclose_)))

#define CLEANUP_CAT_(a, b)  a##b
#define CLEANUP_NAME_(a, b) CLEANUP_CAT_(a, b)
/** LOCK_SCOPE() - hold a pthread mutex from here to the end of the scope */
#define LOCK_SCOPE(m)                                   \
	pthread_mutex_t *CLEANUP_NAME_(lock_, __LINE__) \
		__attribute__((cleanup(cleanup_unlock_), unused)) = cleanup_lock_(m)

/** steal_fd() - take a descriptor out of a variable and leave -1 there */
static inline int steal_fd(int *fd)
{
	int r = *fd;

	*fd = -1;
	return r;
}

/** steal_ptr() - take a pointer out of a variable and leave NULL there */
#define steal_ptr(p)                             \
	({                                       \
		__typeof__(*(p)) stolen_ = *(p); \
		*(p) = NULL;                     \
		stolen_;                         \
	})

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)                       \
	({                              \
		__typeof__(a) a_ = (a); \
		__typeof__(b) b_ = (b); \
		a_ < b_ ? a_ : b_;      \
	})
#define MAX(a, b)                       \
	({                              \
		__typeof__(a) a_ = (a); \
		__typeof__(b) b_ = (b); \
		a_ > b_ ? a_ : b_;      \
	})

#endif
