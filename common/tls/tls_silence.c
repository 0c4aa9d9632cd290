/* SPDX-License-Identifier: Apache-2.0 */
#include "tls/tls_silence.h"

/* Of the kernel's, because libc's lacks the count of acknowledged bytes; the two cannot be had together. */
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

#include "util/clock.h"

bool tls_silence_judge(struct tls_silence *s, const struct tls_heard *h, uint64_t now)
{
	if (!h->due) {
		s->since_us = 0;
		return h->probes >= TLS_SILENT_PROBES && h->heard_us >= TLS_SILENT_US;
	}
	if (!s->since_us || s->acked != h->acked) {
		s->acked = h->acked;
		s->since_us = now;
	}
	return now - s->since_us >= TLS_SILENT_US && h->repeats >= TLS_SILENT_REPEATS;
}

bool tls_silent(struct tls_silence *s, const struct tls_chan *c)
{
	struct tcp_info i = {0};
	socklen_t len = sizeof(i);
	struct tls_heard h;

	if (getsockopt(tls_chan_fd(c), IPPROTO_TCP, TCP_INFO, &i, &len) ||
	    len < offsetof(struct tcp_info, tcpi_bytes_received))
		return false;
	h = (struct tls_heard){
		.due = i.tcpi_unacked,
		.acked = i.tcpi_bytes_acked,
		.repeats = i.tcpi_retransmits,
		.probes = i.tcpi_probes,
		.heard_us = i.tcpi_last_ack_recv * 1000ull,
	};
	return tls_silence_judge(s, &h, clock_us());
}
