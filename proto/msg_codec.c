/* SPDX-License-Identifier: Apache-2.0 */
#include "msg_codec.h"

#include <string.h>

/* Reserved bytes are zero, so that a later version can give them a meaning. */
static void put_reserved(struct bytes_writer *w, size_t n)
{
	while (n--)
		bytes_put_u8(w, 0);
}

static void get_reserved(struct bytes_reader *r, size_t n)
{
	while (n--)
		if (bytes_get_u8(r, "reserved"))
			bytes_fail(r, "reserved");
}

static bool get_bool(struct bytes_reader *r, const char *what)
{
	uint8_t v = bytes_get_u8(r, what);

	if (v > 1)
		bytes_fail(r, what);
	return v == 1;
}

/* A count of items that the struct has room for; 0 once failed, so that nothing follows. */
static uint32_t bounded(struct bytes_reader *r, uint32_t n, uint32_t max, const char *what)
{
	if (n > max)
		bytes_fail(r, what);
	return r->failed ? 0 : n;
}

void msg_encode_empty(struct bytes_writer *w, const struct msg *m)
{
	(void)w;
	(void)m;
}

void msg_decode_empty(struct bytes_reader *r, struct msg *m)
{
	(void)r;
	(void)m;
}

void msg_encode_hello(struct bytes_writer *w, const struct msg *m)
{
	const struct msg_hello *h = &m->hello;

	bytes_put_u32(w, MSG_MAGIC);
	bytes_put_u16(w, h->version_min);
	bytes_put_u16(w, h->version_max);
	bytes_put_u64(w, h->capabilities);
	bytes_put_u8(w, h->kind);
	bytes_put_u8(w, h->index);
	put_reserved(w, 2);
	bytes_put_raw(w, h->migration, sizeof(h->migration));
	bytes_put_raw(w, h->token, sizeof(h->token));
}

void msg_decode_hello(struct bytes_reader *r, struct msg *m)
{
	struct msg_hello *h = &m->hello;

	if (bytes_get_u32(r, "magic") != MSG_MAGIC)
		bytes_fail(r, "magic");
	h->version_min = bytes_get_u16(r, "version_min");
	h->version_max = bytes_get_u16(r, "version_max");
	h->capabilities = bytes_get_u64(r, "capabilities");
	h->kind = bytes_get_u8(r, "kind");
	h->index = bytes_get_u8(r, "index");
	get_reserved(r, 2);
	bytes_get_raw(r, h->migration, sizeof(h->migration), "migration");
	bytes_get_raw(r, h->token, sizeof(h->token), "token");
}

void msg_encode_hello_ack(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u16(w, m->hello_ack.version);
	put_reserved(w, 6);
	bytes_put_u64(w, m->hello_ack.capabilities);
	bytes_put_raw(w, m->hello_ack.token, sizeof(m->hello_ack.token));
}

void msg_decode_hello_ack(struct bytes_reader *r, struct msg *m)
{
	m->hello_ack.version = bytes_get_u16(r, "version");
	get_reserved(r, 6);
	m->hello_ack.capabilities = bytes_get_u64(r, "capabilities");
	bytes_get_raw(r, m->hello_ack.token, sizeof(m->hello_ack.token), "token");
}

void msg_encode_error(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_str(w, m->error.code);
	bytes_put_str(w, m->error.message);
}

void msg_decode_error(struct bytes_reader *r, struct msg *m)
{
	bytes_get_str(r, m->error.code, sizeof(m->error.code), "code");
	bytes_get_str(r, m->error.message, sizeof(m->error.message), "message");
}

void msg_encode_number(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u64(w, m->number.value);
}

void msg_decode_number(struct bytes_reader *r, struct msg *m)
{
	m->number.value = bytes_get_u64(r, "number");
}

static void put_vars(struct bytes_writer *w, const struct msg_var *vars, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		bytes_put_str(w, vars[i].key);
		bytes_put_str(w, vars[i].value);
	}
}

static void get_vars(struct bytes_reader *r, struct msg_var *vars, unsigned int n)
{
	for (unsigned int i = 0; i < n && !r->failed; i++) {
		bytes_get_str(r, vars[i].key, sizeof(vars[i].key), "key of a var");
		bytes_get_str(r, vars[i].value, sizeof(vars[i].value), "value of a var");
	}
}

void msg_encode_setup(struct bytes_writer *w, const struct msg *m)
{
	const struct msg_setup *s = &m->setup;

	bytes_put_str(w, s->name);
	bytes_put_raw(w, s->uuid, sizeof(s->uuid));
	bytes_put_u64(w, s->generation);
	bytes_put_str(w, s->driver);
	bytes_put_str(w, s->launcher);
	bytes_put_u8(w, s->paused);
	bytes_put_u8(w, s->may_postcopy);
	bytes_put_u8(w, s->bulk_channels);
	put_reserved(w, 1);
	bytes_put_u32(w, s->blocks);
	bytes_put_u16(w, s->nvars);
	put_vars(w, s->vars, s->nvars);
}

void msg_decode_setup(struct bytes_reader *r, struct msg *m)
{
	struct msg_setup *s = &m->setup;

	bytes_get_str(r, s->name, sizeof(s->name), "name");
	bytes_get_raw(r, s->uuid, sizeof(s->uuid), "uuid");
	s->generation = bytes_get_u64(r, "generation");
	bytes_get_str(r, s->driver, sizeof(s->driver), "driver");
	bytes_get_str(r, s->launcher, sizeof(s->launcher), "launcher");
	s->paused = get_bool(r, "run_state");
	s->may_postcopy = get_bool(r, "may_postcopy");
	s->bulk_channels = bytes_get_u8(r, "bulk_channels");
	get_reserved(r, 1);
	s->blocks = bytes_get_u32(r, "blocks");
	s->nvars = (uint16_t)bounded(r, bytes_get_u16(r, "vars"), MSG_VARS_MAX, "vars");
	get_vars(r, s->vars, s->nvars);
}

void msg_encode_block(struct bytes_writer *w, const struct msg *m)
{
	const struct msg_block *b = &m->block;

	bytes_put_u32(w, b->index);
	bytes_put_str(w, b->name);
	bytes_put_u8(w, b->kind);
	put_reserved(w, 3);
	bytes_put_u32(w, b->flags);
	bytes_put_u32(w, b->page_size);
	bytes_put_u64(w, b->length);
}

void msg_decode_block(struct bytes_reader *r, struct msg *m)
{
	struct msg_block *b = &m->block;

	b->index = bytes_get_u32(r, "index");
	bytes_get_str(r, b->name, sizeof(b->name), "name");
	b->kind = bytes_get_u8(r, "kind");
	get_reserved(r, 3);
	b->flags = bytes_get_u32(r, "flags");
	b->page_size = bytes_get_u32(r, "page_size");
	b->length = bytes_get_u64(r, "length");
}

void msg_encode_facts(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u16(w, m->facts.n);
	put_vars(w, m->facts.facts, m->facts.n);
}

void msg_decode_facts(struct bytes_reader *r, struct msg *m)
{
	m->facts.n = (uint16_t)bounded(r, bytes_get_u16(r, "facts"), MSG_FACTS_MAX, "facts");
	get_vars(r, m->facts.facts, m->facts.n);
}

void msg_encode_store(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_str(w, m->store.name);
	bytes_put_u8(w, m->store.start);
	put_reserved(w, 3);
}

void msg_decode_store(struct bytes_reader *r, struct msg *m)
{
	bytes_get_str(r, m->store.name, sizeof(m->store.name), "name");
	m->store.start = get_bool(r, "start");
	get_reserved(r, 3);
}

void msg_encode_switch(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u32(w, m->switch_.pass);
}

void msg_decode_switch(struct bytes_reader *r, struct msg *m)
{
	m->switch_.pass = bytes_get_u32(r, "pass");
}

void msg_encode_discard(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u32(w, m->discard.block);
	bytes_put_u32(w, m->discard.n);
	for (uint32_t i = 0; i < m->discard.n; i++) {
		bytes_put_u64(w, m->discard.ranges[i].offset);
		bytes_put_u64(w, m->discard.ranges[i].length);
	}
}

void msg_decode_discard(struct bytes_reader *r, struct msg *m)
{
	m->discard.block = bytes_get_u32(r, "block");
	m->discard.n = bounded(r, bytes_get_u32(r, "ranges"), MSG_DISCARD_MAX, "ranges");
	for (uint32_t i = 0; i < m->discard.n && !r->failed; i++) {
		m->discard.ranges[i].offset = bytes_get_u64(r, "offset of a range");
		m->discard.ranges[i].length = bytes_get_u64(r, "length of a range");
	}
}

void msg_encode_listen(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u8(w, m->listen.postcopy);
}

void msg_decode_listen(struct bytes_reader *r, struct msg *m)
{
	m->listen.postcopy = get_bool(r, "postcopy");
}

void msg_encode_state(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_raw(w, m->state.data, m->state.len);
}

void msg_decode_state(struct bytes_reader *r, struct msg *m)
{
	m->state.len = (uint32_t)r->len;
	m->state.data = bytes_get_ref(r, r->len, "bytes");
}

void msg_encode_state_end(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u64(w, m->state_end.length);
	bytes_put_u64(w, m->state_end.digest);
}

void msg_decode_state_end(struct bytes_reader *r, struct msg *m)
{
	m->state_end.length = bytes_get_u64(r, "length");
	m->state_end.digest = bytes_get_u64(r, "digest");
}

static void put_counts(struct bytes_writer *w, const uint64_t *pages, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		bytes_put_u64(w, pages[i]);
}

static void get_counts(struct bytes_reader *r, uint64_t *counts, uint32_t n, const char *what)
{
	for (uint32_t i = 0; i < n && !r->failed; i++)
		counts[i] = bytes_get_u64(r, what);
}

void msg_encode_complete(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u64(w, m->complete.runs);
	bytes_put_u64(w, m->complete.digest_sum);
	bytes_put_u32(w, m->complete.n);
	put_reserved(w, 4);
	put_counts(w, m->complete.pages, m->complete.n);
}

void msg_decode_complete(struct bytes_reader *r, struct msg *m)
{
	m->complete.runs = bytes_get_u64(r, "runs");
	m->complete.digest_sum = bytes_get_u64(r, "digest_sum");
	m->complete.n = bounded(r, bytes_get_u32(r, "blocks"), MSG_BLOCKS_MAX, "blocks");
	get_reserved(r, 4);
	get_counts(r, m->complete.pages, m->complete.n, "pages of a block");
}

void msg_encode_receipt(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u8(w, m->receipt.digest_ok);
	bytes_put_u8(w, m->receipt.has_block_time);
	put_reserved(w, 2);
	bytes_put_u32(w, m->receipt.n);
	bytes_put_u64(w, m->receipt.faults);
	bytes_put_u64(w, m->receipt.requests);
	bytes_put_u32(w, m->receipt.p50_us);
	bytes_put_u32(w, m->receipt.p90_us);
	bytes_put_u32(w, m->receipt.p99_us);
	bytes_put_u32(w, m->receipt.max_us);
	for (size_t i = 0; i < MSG_OCTAVES; i++)
		bytes_put_u32(w, m->receipt.answered[i]);
	if (!m->receipt.brief) {
		bytes_put_u64(w, m->receipt.all_blocked_us);
		bytes_put_u32(w, m->receipt.nthreads);
		put_reserved(w, 4);
	}
	put_counts(w, m->receipt.pages, m->receipt.n);
	put_counts(w, m->receipt.blocked_us, m->receipt.nthreads);
}

/* Without block time: shorter than any other with as many blocks. */
static bool receipt_is_brief(const struct bytes_reader *r, const struct msg_receipt *v)
{
	return r->len == r->off + v->n * sizeof(v->pages[0]);
}

void msg_decode_receipt(struct bytes_reader *r, struct msg *m)
{
	m->receipt.digest_ok = get_bool(r, "digest_ok");
	m->receipt.has_block_time = get_bool(r, "block_time");
	get_reserved(r, 2);
	m->receipt.n = bounded(r, bytes_get_u32(r, "blocks"), MSG_BLOCKS_MAX, "blocks");
	m->receipt.faults = bytes_get_u64(r, "faults");
	m->receipt.requests = bytes_get_u64(r, "requests");
	m->receipt.p50_us = bytes_get_u32(r, "p50");
	m->receipt.p90_us = bytes_get_u32(r, "p90");
	m->receipt.p99_us = bytes_get_u32(r, "p99");
	m->receipt.max_us = bytes_get_u32(r, "max");
	for (size_t i = 0; i < MSG_OCTAVES; i++)
		m->receipt.answered[i] = bytes_get_u32(r, "answered");
	m->receipt.brief = receipt_is_brief(r, &m->receipt);
	m->receipt.all_blocked_us = 0;
	m->receipt.nthreads = 0;
	if (!m->receipt.brief) {
		m->receipt.all_blocked_us = bytes_get_u64(r, "all_blocked");
		m->receipt.nthreads =
			bounded(r, bytes_get_u32(r, "threads"), MSG_THREADS_MAX, "threads");
		get_reserved(r, 4);
	}
	get_counts(r, m->receipt.pages, m->receipt.n, "pages of a block");
	get_counts(r, m->receipt.blocked_us, m->receipt.nthreads, "block time of a thread");
}

void msg_encode_resume(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u64(w, m->resume.generation);
	bytes_put_u8(w, m->resume.bulk_channels);
	put_reserved(w, 7);
}

void msg_decode_resume(struct bytes_reader *r, struct msg *m)
{
	m->resume.generation = bytes_get_u64(r, "generation");
	m->resume.bulk_channels = bytes_get_u8(r, "bulk_channels");
	get_reserved(r, 7);
}

void msg_encode_received(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u32(w, m->received.block);
	bytes_put_u32(w, m->received.n);
	bytes_put_u64(w, m->received.first);
	put_counts(w, m->received.words, m->received.n);
}

void msg_decode_received(struct bytes_reader *r, struct msg *m)
{
	m->received.block = bytes_get_u32(r, "block");
	m->received.n = bounded(r, bytes_get_u32(r, "words"), MSG_RECEIVED_MAX, "words");
	m->received.first = bytes_get_u64(r, "first");
	get_counts(r, m->received.words, m->received.n, "words");
}

void msg_encode_resumed(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u32(w, m->resumed.pass);
	put_reserved(w, 4);
}

void msg_decode_resumed(struct bytes_reader *r, struct msg *m)
{
	m->resumed.pass = bytes_get_u32(r, "pass");
	get_reserved(r, 4);
}

void msg_encode_request(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u32(w, m->request.block);
	put_reserved(w, 4);
	bytes_put_u64(w, m->request.offset);
	bytes_put_u64(w, m->request.length);
}

void msg_decode_request(struct bytes_reader *r, struct msg *m)
{
	m->request.block = bytes_get_u32(r, "block");
	get_reserved(r, 4);
	m->request.offset = bytes_get_u64(r, "offset");
	m->request.length = bytes_get_u64(r, "length");
}

void msg_encode_pages_part(struct bytes_writer *w, const struct msg_pages *p)
{
	bytes_put_u32(w, p->block);
	bytes_put_u8(w, p->kind);
	put_reserved(w, 3);
	bytes_put_u64(w, p->offset);
	bytes_put_u64(w, p->length);
	bytes_put_u32(w, p->pass);
	put_reserved(w, 4);
	bytes_put_u64(w, p->digest);
	put_reserved(w, 16);
}

void msg_encode_pages(struct bytes_writer *w, const struct msg *m)
{
	msg_encode_pages_part(w, &m->pages);
}

void msg_decode_pages(struct bytes_reader *r, struct msg *m)
{
	m->pages.block = bytes_get_u32(r, "block");
	m->pages.kind = bytes_get_u8(r, "kind");
	get_reserved(r, 3);
	m->pages.offset = bytes_get_u64(r, "offset");
	m->pages.length = bytes_get_u64(r, "length");
	m->pages.pass = bytes_get_u32(r, "pass");
	get_reserved(r, 4);
	m->pages.digest = bytes_get_u64(r, "digest");
	get_reserved(r, 16);
}

void msg_encode_nack(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u32(w, m->nack.block);
	bytes_put_u32(w, m->nack.pass);
	bytes_put_u64(w, m->nack.offset);
	bytes_put_u64(w, m->nack.length);
}

void msg_decode_nack(struct bytes_reader *r, struct msg *m)
{
	m->nack.block = bytes_get_u32(r, "block");
	m->nack.pass = bytes_get_u32(r, "pass");
	m->nack.offset = bytes_get_u64(r, "offset");
	m->nack.length = bytes_get_u64(r, "length");
}

void msg_encode_barrier(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u32(w, m->barrier.pass);
	bytes_put_u32(w, m->barrier.number);
}

void msg_decode_barrier(struct bytes_reader *r, struct msg *m)
{
	m->barrier.pass = bytes_get_u32(r, "pass");
	m->barrier.number = bytes_get_u32(r, "number");
}

void msg_encode_drop(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u8(w, m->drop.kind);
	bytes_put_u8(w, m->drop.index);
	put_reserved(w, 6);
}

void msg_decode_drop(struct bytes_reader *r, struct msg *m)
{
	m->drop.kind = bytes_get_u8(r, "kind");
	m->drop.index = bytes_get_u8(r, "index");
	get_reserved(r, 6);
}

void msg_encode_answer(struct bytes_writer *w, const struct msg *m)
{
	bytes_put_u8(w, m->answer.answer);
	put_reserved(w, 7);
}

void msg_decode_answer(struct bytes_reader *r, struct msg *m)
{
	m->answer.answer = bytes_get_u8(r, "answer");
	get_reserved(r, 7);
}

void msg_encode_room(struct bytes_writer *w, const struct msg *m)
{
	const struct msg_room *v = &m->room;

	bytes_put_u8(w, v->flags);
	put_reserved(w, 3);
	bytes_put_u32(w, v->incoming);
	bytes_put_u32(w, v->yours);
	bytes_put_u32(w, v->limit);
	bytes_put_u32(w, v->per_source);
	put_reserved(w, 4);
	bytes_put_u64(w, v->memory);
	bytes_put_u64(w, v->memory_limit);
	bytes_put_u16(w, v->npools);
	for (unsigned int i = 0; i < v->npools; i++) {
		bytes_put_u64(w, v->pools[i].size);
		bytes_put_u64(w, v->pools[i].unused);
	}
	bytes_put_u16(w, v->nlaunchers);
	for (unsigned int i = 0; i < v->nlaunchers; i++) {
		bytes_put_str(w, v->launchers[i].name);
		bytes_put_str(w, v->launchers[i].driver);
		bytes_put_u8(w, v->launchers[i].usable);
	}
}

static void get_launchers(struct bytes_reader *r, struct msg_room *v)
{
	v->nlaunchers =
		(uint16_t)bounded(r, bytes_get_u16(r, "launchers"), MSG_LAUNCHERS_MAX, "launchers");
	for (unsigned int i = 0; i < v->nlaunchers && !r->failed; i++) {
		struct msg_launcher *l = &v->launchers[i];

		bytes_get_str(r, l->name, sizeof(l->name), "launcher");
		bytes_get_str(r, l->driver, sizeof(l->driver), "driver");
		l->usable = get_bool(r, "usable");
	}
}

void msg_decode_room(struct bytes_reader *r, struct msg *m)
{
	struct msg_room *v = &m->room;

	v->flags = bytes_get_u8(r, "flags");
	get_reserved(r, 3);
	v->incoming = bytes_get_u32(r, "incoming");
	v->yours = bytes_get_u32(r, "yours");
	v->limit = bytes_get_u32(r, "limit");
	v->per_source = bytes_get_u32(r, "per_source");
	get_reserved(r, 4);
	v->memory = bytes_get_u64(r, "memory");
	v->memory_limit = bytes_get_u64(r, "memory_limit");
	v->npools = (uint16_t)bounded(r, bytes_get_u16(r, "pools"), MSG_POOLS_MAX, "pools");
	for (unsigned int i = 0; i < v->npools && !r->failed; i++) {
		v->pools[i].size = bytes_get_u64(r, "size of a pool");
		v->pools[i].unused = bytes_get_u64(r, "free pages");
	}
	get_launchers(r, v);
}
