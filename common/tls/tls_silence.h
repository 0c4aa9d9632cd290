/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is the peer of one connection still there? The kernel's own answer (tls_chan_watch()) has to leave time for a
 * connection that starves beside others on a slow link. That one waits long before it repeats itself, because
 * its round trips are long; one whose peer is gone repeats itself in vain, again and again. The kernel counts that.
 */
#ifndef DECANT_TLS_SILENCE_H
#define DECANT_TLS_SILENCE_H

#include "tls/tls_chan.h"

/**
 * TLS_SILENT_US - for so long nothing was acknowledged;
 * TLS_SILENT_REPEATS - and what was sent was repeated so often in vain (at least 3 s, with longer round trips more);
 * TLS_SILENT_PROBES - or, where nothing was sent, so many probes of a second each
 */
#define TLS_SILENT_US      4000000ull
#define TLS_SILENT_REPEATS 4
#define TLS_SILENT_PROBES  3

/**
 * struct tls_silence - what was seen of a connection; zero to begin with
 * @acked:	bytes that the peer had acknowledged
 * @since_us:	clock_us() since when it is that many, and some are due; 0 if none are
 */
struct tls_silence {
	uint64_t acked;
	uint64_t since_us;
};

/**
 * struct tls_heard - what the kernel knows of a connection at one moment
 * @due:	something was sent that is not acknowledged
 * @acked:	bytes that ever were
 * @repeats:	how often what is due was sent again, without an answer to any of it
 * @probes:	the same of probes, where nothing is due
 * @heard_us:	since the peer's last packet
 */
struct tls_heard {
	bool due;
	uint64_t acked;
	unsigned int repeats;
	unsigned int probes;
	uint64_t heard_us;
};

/** tls_silence_judge() - what to think of it. @now: clock_us(). Return: whether the peer is gone, as far as can be told */
bool tls_silence_judge(struct tls_silence *s, const struct tls_heard *h, uint64_t now);
/**
 * tls_silent() - ask the kernel, and judge; once a second or more often, after tls_chan_watch()
 *
 * From any thread, as long as the connection is not freed; of a socket that is none of TCP's nothing is known.
 * Return: as tls_silence_judge()
 */
bool tls_silent(struct tls_silence *s, const struct tls_chan *c);

#endif
