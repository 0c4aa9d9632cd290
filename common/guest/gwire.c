/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/gwire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/bytes.h"
#include "util/fdpass.h"

/* Which descriptors a message may have. */
enum fds {
	FDS_NONE,
	FDS_MAYBE,
	FDS_ONE,
};

/* What DONE and the requests have in common; everything else has the id 0. */
enum id {
	ID_NONE,
	ID_SOME,
};

struct codec {
	uint16_t type;
	const char *name;
	enum fds fds;
	enum id id;
	void (*put)(struct bytes_writer *w, const struct gwire_msg *m);
	void (*get)(struct bytes_reader *r, struct gwire_msg *m);
};

static void put_hello(struct bytes_writer *w, const struct gwire_msg *m)
{
	const struct gwire_hello *h = &m->u.hello;

	bytes_put_u32(w, GWIRE_MAGIC);
	bytes_put_u16(w, h->version);
	bytes_put_str(w, h->name);
	bytes_put_raw(w, h->uuid, sizeof(h->uuid));
	bytes_put_u64(w, h->generation);
	bytes_put_u8(w, h->has_token);
	bytes_put_raw(w, h->token, sizeof(h->token));
	bytes_put_u8(w, h->run_state);
	bytes_put_u32(w, h->flags);
	bytes_put_u32(w, h->kept_tag);
	bytes_put_u16(w, h->blocks);
}

static void get_hello(struct bytes_reader *r, struct gwire_msg *m)
{
	struct gwire_hello *h = &m->u.hello;
	uint8_t has_token;

	if (bytes_get_u32(r, "magic") != GWIRE_MAGIC)
		bytes_fail(r, "magic");
	h->version = bytes_get_u16(r, "version");
	bytes_get_str(r, h->name, sizeof(h->name), "name");
	bytes_get_raw(r, h->uuid, sizeof(h->uuid), "uuid");
	h->generation = bytes_get_u64(r, "generation");
	has_token = bytes_get_u8(r, "has_token");
	bytes_get_raw(r, h->token, sizeof(h->token), "token");
	h->run_state = bytes_get_u8(r, "run_state");
	h->flags = bytes_get_u32(r, "flags");
	h->kept_tag = bytes_get_u32(r, "kept_tag");
	h->blocks = bytes_get_u16(r, "blocks");
	h->has_token = has_token != 0;
	if (has_token > 1)
		bytes_fail(r, "has_token");
	if (h->run_state > 3)
		bytes_fail(r, "run_state");
	if (h->flags & ~(GWIRE_HELLO_KEPT | GWIRE_HELLO_USER_FAULTS | GWIRE_HELLO_VCPUS))
		bytes_fail(r, "flags");
	if (h->blocks > GWIRE_BLOCKS_MAX)
		bytes_fail(r, "blocks");
}

static void put_block(struct bytes_writer *w, const struct gwire_msg *m)
{
	const struct gwire_block *b = &m->u.block;

	bytes_put_u16(w, b->index);
	bytes_put_u8(w, b->kind);
	bytes_put_u32(w, b->flags);
	bytes_put_u64(w, b->length);
	bytes_put_u64(w, b->page_size);
	bytes_put_u64(w, b->address);
	bytes_put_str(w, b->name);
}

static void get_block(struct bytes_reader *r, struct gwire_msg *m)
{
	struct gwire_block *b = &m->u.block;

	b->index = bytes_get_u16(r, "index");
	b->kind = bytes_get_u8(r, "kind");
	b->flags = bytes_get_u32(r, "flags");
	b->length = bytes_get_u64(r, "length");
	b->page_size = bytes_get_u64(r, "page_size");
	b->address = bytes_get_u64(r, "address");
	bytes_get_str(r, b->name, sizeof(b->name), "name");
	if (b->index >= GWIRE_BLOCKS_MAX)
		bytes_fail(r, "index");
	if (b->kind > 2)
		bytes_fail(r, "kind");
	if (b->flags & ~(GWIRE_BLOCK_NO_DMA | GWIRE_BLOCK_READONLY))
		bytes_fail(r, "flags");
	if (b->kind == 1 ? m->nfds != 0 : m->nfds != 1)
		bytes_fail(r, "descriptors");
}

static void put_done(struct bytes_writer *w, const struct gwire_msg *m)
{
	bytes_put_u32(w, (uint32_t)m->u.done.result);
	bytes_put_u64(w, m->u.done.detail);
	bytes_put_str(w, m->u.done.message);
}

static void get_done(struct bytes_reader *r, struct gwire_msg *m)
{
	struct gwire_done *d = &m->u.done;

	d->result = (int32_t)bytes_get_u32(r, "result");
	d->detail = bytes_get_u64(r, "detail");
	bytes_get_str(r, d->message, sizeof(d->message), "message");
	if (d->result > 0 || d->result < -4095)
		bytes_fail(r, "result");
	if (d->result && m->nfds)
		bytes_fail(r, "descriptors");
}

static void put_state(struct bytes_writer *w, const struct gwire_msg *m)
{
	bytes_put_u8(w, m->u.run_state);
}

static void get_state(struct bytes_reader *r, struct gwire_msg *m)
{
	m->u.run_state = bytes_get_u8(r, "run_state");
	if (m->u.run_state > 3)
		bytes_fail(r, "run_state");
}

static void put_sharer(struct bytes_writer *w, const struct gwire_msg *m)
{
	const struct gwire_sharer *s = &m->u.sharer;

	bytes_put_u32(w, GWIRE_MAGIC);
	bytes_put_u16(w, s->version);
	bytes_put_str(w, s->guest);
	bytes_put_str(w, s->name);
	bytes_put_u8(w, s->flags);
}

static void get_sharer(struct bytes_reader *r, struct gwire_msg *m)
{
	struct gwire_sharer *s = &m->u.sharer;

	if (bytes_get_u32(r, "magic") != GWIRE_MAGIC)
		bytes_fail(r, "magic");
	s->version = bytes_get_u16(r, "version");
	bytes_get_str(r, s->guest, sizeof(s->guest), "guest");
	bytes_get_str(r, s->name, sizeof(s->name), "name");
	s->flags = bytes_get_u8(r, "flags");
	if (s->flags & ~GWIRE_SHARER_AGAIN)
		bytes_fail(r, "flags");
}

static void put_share_map(struct bytes_writer *w, const struct gwire_msg *m)
{
	const struct gwire_share *s = &m->u.share;

	bytes_put_u64(w, s->offset);
	bytes_put_u64(w, s->length);
	bytes_put_u64(w, s->address);
	bytes_put_str(w, s->block);
}

static void get_share_map(struct bytes_reader *r, struct gwire_msg *m)
{
	struct gwire_share *s = &m->u.share;

	s->offset = bytes_get_u64(r, "offset");
	s->length = bytes_get_u64(r, "length");
	s->address = bytes_get_u64(r, "address");
	bytes_get_str(r, s->block, sizeof(s->block), "block");
	if (!s->length || s->length > GWIRE_MEMORY_MAX || s->offset > GWIRE_MEMORY_MAX)
		bytes_fail(r, "length");
}

static void put_share_unmap(struct bytes_writer *w, const struct gwire_msg *m)
{
	bytes_put_u64(w, m->u.share.length);
	bytes_put_u64(w, m->u.share.address);
}

static void get_share_unmap(struct bytes_reader *r, struct gwire_msg *m)
{
	m->u.share.length = bytes_get_u64(r, "length");
	m->u.share.address = bytes_get_u64(r, "address");
	if (!m->u.share.length || m->u.share.length > GWIRE_MEMORY_MAX)
		bytes_fail(r, "length");
}

static void put_vcpu(struct bytes_writer *w, const struct gwire_msg *m)
{
	bytes_put_u32(w, m->u.vcpu.tid);
	bytes_put_u8(w, m->u.vcpu.on);
}

static void get_vcpu(struct bytes_reader *r, struct gwire_msg *m)
{
	uint8_t on;

	m->u.vcpu.tid = bytes_get_u32(r, "tid");
	on = bytes_get_u8(r, "on");
	m->u.vcpu.on = on != 0;
	if (!m->u.vcpu.tid || m->u.vcpu.tid > INT32_MAX)
		bytes_fail(r, "tid");
	if (on > 1)
		bytes_fail(r, "on");
}

static void put_welcome(struct bytes_writer *w, const struct gwire_msg *m)
{
	bytes_put_u16(w, m->u.version);
}

static void get_welcome(struct bytes_reader *r, struct gwire_msg *m)
{
	m->u.version = bytes_get_u16(r, "version");
}

static void put_refused(struct bytes_writer *w, const struct gwire_msg *m)
{
	bytes_put_str(w, m->u.refused.code);
	bytes_put_str(w, m->u.refused.message);
}

static void get_refused(struct bytes_reader *r, struct gwire_msg *m)
{
	bytes_get_str(r, m->u.refused.code, sizeof(m->u.refused.code), "code");
	bytes_get_str(r, m->u.refused.message, sizeof(m->u.refused.message), "message");
}

static void put_pause(struct bytes_writer *w, const struct gwire_msg *m)
{
	bytes_put_u32(w, m->u.bound_ms);
}

static void get_pause(struct bytes_reader *r, struct gwire_msg *m)
{
	m->u.bound_ms = bytes_get_u32(r, "bound_ms");
	if (!m->u.bound_ms || m->u.bound_ms > GWIRE_BOUND_MAX_MS)
		bytes_fail(r, "bound_ms");
}

static void put_load(struct bytes_writer *w, const struct gwire_msg *m)
{
	bytes_put_u8(w, m->u.load_flags);
}

static void get_load(struct bytes_reader *r, struct gwire_msg *m)
{
	m->u.load_flags = bytes_get_u8(r, "flags");
	if (m->u.load_flags & ~GWIRE_LOAD_PAUSED)
		bytes_fail(r, "flags");
}

static void put_load_end(struct bytes_writer *w, const struct gwire_msg *m)
{
	bytes_put_u64(w, m->u.load_length);
}

static void get_load_end(struct bytes_reader *r, struct gwire_msg *m)
{
	m->u.load_length = bytes_get_u64(r, "length");
	if (m->u.load_length > GWIRE_STATE_MAX)
		bytes_fail(r, "length");
}

static void put_uffd(struct bytes_writer *w, const struct gwire_msg *m)
{
	bytes_put_u8(w, m->u.uffd.flags);
	bytes_put_u32(w, m->u.uffd.tag);
}

static void get_uffd(struct bytes_reader *r, struct gwire_msg *m)
{
	m->u.uffd.flags = bytes_get_u8(r, "flags");
	m->u.uffd.tag = bytes_get_u32(r, "tag");
	if (m->u.uffd.flags & ~(GWIRE_UFFD_USER_MODE | GWIRE_UFFD_KEEP))
		bytes_fail(r, "flags");
}

static void put_punch(struct bytes_writer *w, const struct gwire_msg *m)
{
	const struct gwire_punch *p = &m->u.punch;

	bytes_put_u16(w, p->block);
	bytes_put_u16(w, p->n);
	for (size_t i = 0; i < p->n; i++) {
		bytes_put_u64(w, p->ranges[i].offset);
		bytes_put_u64(w, p->ranges[i].length);
	}
}

static void get_punch(struct bytes_reader *r, struct gwire_msg *m)
{
	struct gwire_punch *p = &m->u.punch;

	p->block = bytes_get_u16(r, "block");
	p->n = bytes_get_u16(r, "ranges");
	if (!p->n || p->n > GWIRE_RANGES_MAX || !p->ranges) {
		bytes_fail(r, "ranges");
		return;
	}
	for (size_t i = 0; i < p->n && !r->failed; i++) {
		p->ranges[i].offset = bytes_get_u64(r, "offset");
		p->ranges[i].length = bytes_get_u64(r, "length");
	}
}

static void put_identity(struct bytes_writer *w, const struct gwire_msg *m)
{
	bytes_put_raw(w, m->u.identity.uuid, sizeof(m->u.identity.uuid));
	bytes_put_u64(w, m->u.identity.generation);
}

static void get_identity(struct bytes_reader *r, struct gwire_msg *m)
{
	bytes_get_raw(r, m->u.identity.uuid, sizeof(m->u.identity.uuid), "uuid");
	m->u.identity.generation = bytes_get_u64(r, "generation");
}

static void put_move(struct bytes_writer *w, const struct gwire_msg *m)
{
	bytes_put_str(w, m->u.path);
}

static void get_move(struct bytes_reader *r, struct gwire_msg *m)
{
	bytes_get_str(r, m->u.path, sizeof(m->u.path), "path");
	if (m->u.path[0] != '/')
		bytes_fail(r, "path");
}

static void put_nothing(struct bytes_writer *w, const struct gwire_msg *m)
{
	(void)w;
	(void)m;
}

static void get_nothing(struct bytes_reader *r, struct gwire_msg *m)
{
	(void)r;
	(void)m;
}

static const struct codec codecs[] = {
	{GWIRE_HELLO, "HELLO", FDS_NONE, ID_NONE, put_hello, get_hello},
	{GWIRE_BLOCK, "BLOCK", FDS_MAYBE, ID_NONE, put_block, get_block},
	{GWIRE_HELLO_END, "HELLO_END", FDS_NONE, ID_NONE, put_nothing, get_nothing},
	{GWIRE_DONE, "DONE", FDS_MAYBE, ID_SOME, put_done, get_done},
	{GWIRE_STATE_CHANGED, "STATE_CHANGED", FDS_NONE, ID_NONE, put_state, get_state},
	{GWIRE_SHARER, "SHARER", FDS_ONE, ID_NONE, put_sharer, get_sharer},
	{GWIRE_SHARE_MAP, "SHARE_MAP", FDS_NONE, ID_SOME, put_share_map, get_share_map},
	{GWIRE_SHARE_UNMAP, "SHARE_UNMAP", FDS_NONE, ID_NONE, put_share_unmap, get_share_unmap},
	{GWIRE_VCPU, "VCPU", FDS_NONE, ID_NONE, put_vcpu, get_vcpu},
	{GWIRE_WELCOME, "WELCOME", FDS_NONE, ID_NONE, put_welcome, get_welcome},
	{GWIRE_REFUSED, "REFUSED", FDS_NONE, ID_NONE, put_refused, get_refused},
	{GWIRE_PAUSE, "PAUSE", FDS_NONE, ID_SOME, put_pause, get_pause},
	{GWIRE_RESUME, "RESUME", FDS_NONE, ID_SOME, put_nothing, get_nothing},
	{GWIRE_SAVE, "SAVE", FDS_ONE, ID_SOME, put_nothing, get_nothing},
	{GWIRE_LOAD, "LOAD", FDS_ONE, ID_SOME, put_load, get_load},
	{GWIRE_LOAD_END, "LOAD_END", FDS_NONE, ID_NONE, put_load_end, get_load_end},
	{GWIRE_UFFD, "UFFD", FDS_NONE, ID_SOME, put_uffd, get_uffd},
	{GWIRE_UFFD_AGAIN, "UFFD_AGAIN", FDS_NONE, ID_SOME, put_nothing, get_nothing},
	{GWIRE_UFFD_CLOSE, "UFFD_CLOSE", FDS_NONE, ID_SOME, put_nothing, get_nothing},
	{GWIRE_PUNCH, "PUNCH", FDS_NONE, ID_SOME, put_punch, get_punch},
	{GWIRE_PREPARE, "PREPARE", FDS_NONE, ID_SOME, put_nothing, get_nothing},
	{GWIRE_FINISH, "FINISH", FDS_NONE, ID_SOME, put_nothing, get_nothing},
	{GWIRE_IDENTITY, "IDENTITY", FDS_NONE, ID_SOME, put_identity, get_identity},
	{GWIRE_MOVE, "MOVE", FDS_NONE, ID_SOME, put_move, get_move},
	{GWIRE_QUIT, "QUIT", FDS_NONE, ID_SOME, put_nothing, get_nothing},
	{GWIRE_SETTLED, "SETTLED", FDS_NONE, ID_NONE, put_nothing, get_nothing},
};

static const struct codec *find(uint16_t type)
{
	for (size_t i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++)
		if (codecs[i].type == type)
			return &codecs[i];
	return NULL;
}

const char *gwire_name(uint16_t type)
{
	const struct codec *c = find(type);

	return c ? c->name : "unknown";
}

bool gwire_known(uint16_t type)
{
	return find(type) != NULL;
}

ssize_t gwire_encode(const struct gwire_msg *m, uint8_t *buf, size_t cap)
{
	struct bytes_writer w = {.p = buf, .cap = cap};
	const struct codec *c = find(m->type);

	if (!c || m->nfds > 1)
		return -EINVAL;
	bytes_put_u16(&w, m->type);
	bytes_put_u16(&w, m->nfds);
	bytes_put_u32(&w, m->id);
	c->put(&w, m);
	return w.failed || w.len > GWIRE_PACKET_MAX ? -EMSGSIZE : (ssize_t)w.len;
}

static bool fds_ok(const struct codec *c, uint16_t nfds)
{
	switch (c->fds) {
	case FDS_NONE:
		return nfds == 0;
	case FDS_ONE:
		return nfds == 1;
	case FDS_MAYBE:
		return nfds <= 1;
	}
	return false;
}

int gwire_decode(const uint8_t *buf, size_t len, struct gwire_range *ranges, struct gwire_msg *ret,
		 const char **ret_what)
{
	struct bytes_reader r = {.p = buf, .len = len};
	const struct codec *c;

	memset(ret, 0, sizeof(*ret));
	ret->type = bytes_get_u16(&r, "type");
	ret->nfds = bytes_get_u16(&r, "descriptors");
	ret->id = bytes_get_u32(&r, "id");
	if (!r.failed) {
		c = find(ret->type);
		if (!c)
			return 0;
		if (!fds_ok(c, ret->nfds))
			bytes_fail(&r, "descriptors");
		if (c->id == ID_SOME ? !ret->id : ret->id != 0)
			bytes_fail(&r, "id");
		if (ret->type == GWIRE_PUNCH)
			ret->u.punch.ranges = ranges;
		if (!r.failed)
			c->get(&r, ret);
	}
	if (bytes_end(&r)) {
		*ret_what = r.what ? r.what : "end";
		return -EBADMSG;
	}
	return 0;
}

int gwire_send(int sock, const uint8_t *buf, size_t len, int fd)
{
	ssize_t n = fdpass_send(sock, buf, len, fd);

	if (n < 0)
		return (int)n;
	return (size_t)n == len ? 0 : -EIO;
}

ssize_t gwire_recv(int sock, uint8_t *buf, int *ret_fd, pid_t *ret_pid)
{
	struct fdpass got;
	ssize_t n = fdpass_recv(sock, buf, GWIRE_PACKET_MAX, &got);
	size_t said;

	if (n < 0)
		return n;
	said = n >= 4 ? (size_t)(buf[2] | buf[3] << 8) : 0;
	if (got.cut || (n > 0 && n < 8) || got.n != said || got.n > 1) {
		fdpass_close(&got);
		return -EBADMSG;
	}
	*ret_fd = got.n ? got.fds[0] : -1;
	if (ret_pid)
		*ret_pid = got.pid;
	return n;
}

void gwire_hang_up(int sock)
{
	uint8_t byte;

	/* Nothing more can come, and little is there; descriptors with it are closed. */
	if (!shutdown(sock, SHUT_RD))
		while (recv(sock, &byte, sizeof(byte), MSG_DONTWAIT) > 0)
			;
	close(sock);
}
