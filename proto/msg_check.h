/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bounds of the fields of PROTOCOL.md section 5, one function for each message. Decoding and
 * encoding use the same ones, so that we never send what we would refuse. Internal to proto/.
 */
#ifndef DECANT_PROTO_MSG_CHECK_H
#define DECANT_PROTO_MSG_CHECK_H

#include "msg.h"

/** MSG_PAGE_MIN - bytes; every offset and length in guest memory is a multiple of this */
#define MSG_PAGE_MIN 4096u
/** MSG_PAGE_MAX - bytes; largest page size of a block */
#define MSG_PAGE_MAX (1u << 30)

/**
 * msg_check_fn - are all fields of a message within their bounds?
 *
 * Return: NULL, or the name of the first field that is not (a static string)
 */
typedef const char *msg_check_fn(const struct msg *m);

msg_check_fn msg_check_hello;
msg_check_fn msg_check_hello_ack;
msg_check_fn msg_check_error;
msg_check_fn msg_check_generation;
msg_check_fn msg_check_setup;
msg_check_fn msg_check_block;
msg_check_fn msg_check_switch;
msg_check_fn msg_check_discard;
msg_check_fn msg_check_state;
msg_check_fn msg_check_state_end;
msg_check_fn msg_check_complete;
msg_check_fn msg_check_receipt;
msg_check_fn msg_check_request;
msg_check_fn msg_check_pages;
msg_check_fn msg_check_nack;
msg_check_fn msg_check_barrier;
msg_check_fn msg_check_drop;
msg_check_fn msg_check_answer;
msg_check_fn msg_check_store;
msg_check_fn msg_check_resume;
msg_check_fn msg_check_received;
msg_check_fn msg_check_resumed;
msg_check_fn msg_check_facts;
msg_check_fn msg_check_room;
/** msg_check_one_block() - as msg_check_block(), without the union around it, which is large */
const char *msg_check_one_block(const struct msg_block *b);
/** msg_check_one_pages() - the same for PAGES */
const char *msg_check_one_pages(const struct msg_pages *p);
/** msg_check_none() - for messages whose fields cannot be out of bounds */
msg_check_fn msg_check_none;

#endif
