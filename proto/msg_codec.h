/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies, field by field, in the order of PROTOCOL.md section 5. Internal to proto/. Encoders and
 * decoders only lay out; bounds of values are msg_check.h's, shortness is the sticky failure of
 * the reader or writer. A decoder leaves nothing that it would read out of bounds: counts are
 * checked before they are used.
 */
#ifndef DECANT_PROTO_MSG_CODEC_H
#define DECANT_PROTO_MSG_CODEC_H

#include "msg.h"
#include "util/bytes.h"

typedef void msg_encode_fn(struct bytes_writer *w, const struct msg *m);
typedef void msg_decode_fn(struct bytes_reader *r, struct msg *m);

msg_encode_fn msg_encode_empty, msg_encode_hello, msg_encode_hello_ack, msg_encode_error,
	msg_encode_number, msg_encode_setup, msg_encode_block, msg_encode_switch,
	msg_encode_discard, msg_encode_listen, msg_encode_state, msg_encode_state_end,
	msg_encode_complete, msg_encode_receipt, msg_encode_request, msg_encode_pages,
	msg_encode_nack, msg_encode_barrier, msg_encode_answer, msg_encode_store, msg_encode_resume,
	msg_encode_received, msg_encode_resumed, msg_encode_facts, msg_encode_drop, msg_encode_room;

/** msg_encode_pages_part() - msg_encode_pages() without the union */
void msg_encode_pages_part(struct bytes_writer *w, const struct msg_pages *p);

msg_decode_fn msg_decode_empty, msg_decode_hello, msg_decode_hello_ack, msg_decode_error,
	msg_decode_number, msg_decode_setup, msg_decode_block, msg_decode_switch,
	msg_decode_discard, msg_decode_listen, msg_decode_state, msg_decode_state_end,
	msg_decode_complete, msg_decode_receipt, msg_decode_request, msg_decode_pages,
	msg_decode_nack, msg_decode_barrier, msg_decode_answer, msg_decode_store, msg_decode_resume,
	msg_decode_received, msg_decode_resumed, msg_decode_facts, msg_decode_drop, msg_decode_room;

#endif
