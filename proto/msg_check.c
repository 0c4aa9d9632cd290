/* SPDX-License-Identifier: Apache-2.0 */
#include "msg_check.h"

#include <string.h>
#include "msg_text.h"

/* A range of guest memory: whole small pages, at least one, inside what a block can have. */
static bool range_ok(uint64_t offset, uint64_t length, uint64_t max)
{
	return length && length <= max && length % MSG_PAGE_MIN == 0 &&
	       offset % MSG_PAGE_MIN == 0 && offset <= MSG_MEMORY_MAX &&
	       length <= MSG_MEMORY_MAX - offset;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	while (n)
		if (p[--n])
			return false;
	return true;
}

const char *msg_check_none(const struct msg *m)
{
	(void)m;
	return NULL;
}

const char *msg_check_hello(const struct msg *m)
{
	const struct msg_hello *h = &m->hello;

	if (!h->version_min || h->version_min > h->version_max)
		return "version_min";
	if (h->kind > MSG_CHANNEL_QUERY)
		return "kind";
	if (h->index >= (h->kind == MSG_CHANNEL_BULK ? MSG_CHANNELS_MAX : 1))
		return "index";
	if ((h->kind == MSG_CHANNEL_CONTROL || h->kind == MSG_CHANNEL_QUERY) &&
	    !all_zero(h->token, sizeof(h->token)))
		return "token";
	return NULL;
}

const char *msg_check_hello_ack(const struct msg *m)
{
	return m->hello_ack.version ? NULL : "version";
}

const char *msg_check_error(const struct msg *m)
{
	if (!msg_name_valid(m->error.code, sizeof(m->error.code)))
		return "code";
	if (!msg_text_valid(m->error.message, sizeof(m->error.message)))
		return "message";
	return NULL;
}

/* Generation 0 is that of a guest which was never moved: no message is about a move to it. */
const char *msg_check_generation(const struct msg *m)
{
	return m->number.value ? NULL : "generation";
}

static const char *check_vars(const struct msg_var *vars, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		if (!msg_name_valid(vars[i].key, sizeof(vars[i].key)))
			return "key of a var";
		if (!msg_text_valid(vars[i].value, sizeof(vars[i].value)))
			return "value of a var";
		for (unsigned int j = 0; j < i; j++)
			if (!strcmp(vars[i].key, vars[j].key))
				return "key of a var (it is there twice)";
	}
	return NULL;
}

const char *msg_check_facts(const struct msg *m)
{
	if (m->facts.n > MSG_FACTS_MAX)
		return "facts";
	return check_vars(m->facts.facts, m->facts.n);
}

const char *msg_check_setup(const struct msg *m)
{
	const struct msg_setup *s = &m->setup;

	if (!msg_name_valid(s->name, sizeof(s->name)))
		return "name";
	if (s->generation == UINT64_MAX) /* there is no next one */
		return "generation";
	if (!msg_name_valid(s->driver, sizeof(s->driver)))
		return "driver";
	if (s->launcher[0] && !msg_name_valid(s->launcher, sizeof(s->launcher)))
		return "launcher";
	if (!s->bulk_channels || s->bulk_channels > MSG_CHANNELS_MAX)
		return "bulk_channels";
	if (s->blocks > MSG_BLOCKS_MAX)
		return "blocks";
	if (s->nvars > MSG_VARS_MAX)
		return "vars";
	return check_vars(s->vars, s->nvars);
}

const char *msg_check_block(const struct msg *m)
{
	return msg_check_one_block(&m->block);
}

const char *msg_check_one_block(const struct msg_block *b)
{
	if (b->index >= MSG_BLOCKS_MAX)
		return "index";
	if (!msg_name_valid(b->name, sizeof(b->name)))
		return "name";
	if (b->kind > MSG_BLOCK_HUGETLB)
		return "kind";
	if (b->flags & ~(MSG_BLOCK_NO_DMA | MSG_BLOCK_READONLY))
		return "flags";
	if (b->page_size < MSG_PAGE_MIN || b->page_size > MSG_PAGE_MAX ||
	    b->page_size & (b->page_size - 1))
		return "page_size";
	if (!b->length || b->length > MSG_MEMORY_MAX || b->length % b->page_size)
		return "length";
	return NULL;
}

const char *msg_check_store(const struct msg *m)
{
	return msg_name_valid(m->store.name, sizeof(m->store.name)) ? NULL : "name";
}

const char *msg_check_switch(const struct msg *m)
{
	return m->switch_.pass ? NULL : "pass";
}

const char *msg_check_discard(const struct msg *m)
{
	const struct msg_discard *d = &m->discard;

	if (d->block >= MSG_BLOCKS_MAX)
		return "block";
	if (!d->n || d->n > MSG_DISCARD_MAX)
		return "ranges";
	for (uint32_t i = 0; i < d->n; i++)
		if (!range_ok(d->ranges[i].offset, d->ranges[i].length, MSG_MEMORY_MAX))
			return "offset and length of a range";
	return NULL;
}

const char *msg_check_state(const struct msg *m)
{
	return m->state.data && m->state.len && m->state.len <= MSG_BODY_MAX ? NULL : "bytes";
}

const char *msg_check_state_end(const struct msg *m)
{
	return m->state_end.length <= MSG_STATE_TOTAL_MAX ? NULL : "length";
}

const char *msg_check_complete(const struct msg *m)
{
	return m->complete.n <= MSG_BLOCKS_MAX ? NULL : "blocks";
}

const char *msg_check_receipt(const struct msg *m)
{
	const struct msg_receipt *r = &m->receipt;

	if (r->n > MSG_BLOCKS_MAX)
		return "blocks";
	if (r->nthreads > MSG_THREADS_MAX)
		return "threads";
	if (r->has_block_time)
		return r->brief ? "block_time" : NULL;
	return r->nthreads || r->all_blocked_us ? "block_time" : NULL;
}

const char *msg_check_resume(const struct msg *m)
{
	if (!m->resume.generation)
		return "generation";
	return m->resume.bulk_channels && m->resume.bulk_channels <= MSG_CHANNELS_MAX
		       ? NULL
		       : "bulk_channels";
}

/* No block has more pages than its length allows, whatever their size. */
const char *msg_check_received(const struct msg *m)
{
	const struct msg_received *v = &m->received;

	if (v->block >= MSG_BLOCKS_MAX)
		return "block";
	if (!v->n || v->n > MSG_RECEIVED_MAX)
		return "words";
	return v->first % 64 || v->first >= MSG_MEMORY_MAX / MSG_PAGE_MIN ? "first" : NULL;
}

const char *msg_check_resumed(const struct msg *m)
{
	return m->resumed.pass ? NULL : "pass";
}

const char *msg_check_request(const struct msg *m)
{
	const struct msg_request *q = &m->request;

	if (q->block >= MSG_BLOCKS_MAX)
		return "block";
	return range_ok(q->offset, q->length, MSG_REQUEST_MAX) ? NULL : "offset and length";
}

const char *msg_check_pages(const struct msg *m)
{
	return msg_check_one_pages(&m->pages);
}

const char *msg_check_one_pages(const struct msg_pages *p)
{
	if (p->block >= MSG_BLOCKS_MAX)
		return "block";
	if (p->kind > MSG_PAGES_RAW)
		return "kind";
	if (!range_ok(p->offset, p->length,
		      p->kind == MSG_PAGES_RAW ? MSG_PAGES_RAW_MAX : MSG_MEMORY_MAX))
		return "offset and length";
	if (!p->pass)
		return "pass";
	if (p->kind == MSG_PAGES_ZERO && p->digest)
		return "digest";
	return NULL;
}

/* Only raw runs have a digest that can be wrong, so no longer run can come back. */
const char *msg_check_nack(const struct msg *m)
{
	const struct msg_nack *n = &m->nack;

	if (n->block >= MSG_BLOCKS_MAX)
		return "block";
	if (!n->pass)
		return "pass";
	return range_ok(n->offset, n->length, MSG_PAGES_RAW_MAX) ? NULL : "offset and length";
}

const char *msg_check_barrier(const struct msg *m)
{
	return m->barrier.pass ? NULL : "pass";
}

const char *msg_check_drop(const struct msg *m)
{
	if (m->drop.kind != MSG_CHANNEL_URGENT && m->drop.kind != MSG_CHANNEL_BULK)
		return "kind";
	return m->drop.index < (m->drop.kind == MSG_CHANNEL_BULK ? MSG_CHANNELS_MAX : 1) ? NULL
											 : "index";
}

const char *msg_check_answer(const struct msg *m)
{
	return m->answer.answer <= MSG_ANSWER_GONE ? NULL : "answer";
}

static const char *check_launchers(const struct msg_room *v)
{
	for (unsigned int i = 0; i < v->nlaunchers; i++) {
		const struct msg_launcher *l = &v->launchers[i];

		if (!msg_name_valid(l->name, sizeof(l->name)))
			return "launcher";
		if (!msg_name_valid(l->driver, sizeof(l->driver)))
			return "driver";
		for (unsigned int j = 0; j < i; j++)
			if (!strcmp(l->name, v->launchers[j].name))
				return "launcher (it is there twice)";
	}
	return NULL;
}

const char *msg_check_room(const struct msg *m)
{
	const struct msg_room *v = &m->room;

	if (v->flags & ~(MSG_ROOM_CORDONED | MSG_ROOM_ENDING | MSG_ROOM_POSTCOPY))
		return "flags";
	if (v->yours > v->incoming)
		return "yours";
	if (!v->limit)
		return "limit";
	if (v->npools > MSG_POOLS_MAX)
		return "pools";
	for (unsigned int i = 0; i < v->npools; i++) {
		uint64_t size = v->pools[i].size;

		if (size < MSG_PAGE_MIN || size > MSG_POOL_SIZE_MAX || size & (size - 1))
			return "size of a pool";
		/* So that bytes can be told in 64 bits. */
		if (v->pools[i].unused > (1ull << 62) / size)
			return "free pages";
	}
	return v->nlaunchers > MSG_LAUNCHERS_MAX ? "launchers" : check_launchers(v);
}
