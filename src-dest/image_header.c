/* SPDX-License-Identifier: Apache-2.0 */
/* Header and description of an image: the part of IMAGE.md that is coded field by field. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "image_priv.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/digest.h"
#include "util/fdio.h"

#define DIGEST_AT    (IMAGE_HEADER - 8)
#define DIGEST_CHUNK (1u << 20)

int image_bad(struct error *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_setv(err, -EBADMSG, "image-damaged", fmt, ap);
	va_end(ap);
	return -EBADMSG;
}

/* Zero stands for a unit of zeros, so a digest that happens to be zero is another number. */
uint64_t image_entry(const void *unit)
{
	uint64_t digest = digest_xxh3(unit, IMAGE_UNIT);

	return digest ? digest : 1;
}

int image_digest(int fd, const struct image_part *part, uint64_t *ret)
{
	CLEANUP_FREE uint8_t *buf = malloc(DIGEST_CHUNK);
	XXH3_state_t *hash = XXH3_createState();
	uint64_t done = 0;
	int r = buf && hash ? 0 : -ENOMEM;

	if (!r)
		XXH3_64bits_reset(hash);
	while (!r && done < part->length) {
		size_t n = (size_t)MIN(part->length - done, (uint64_t)DIGEST_CHUNK);

		r = fdio_pread_full(fd, buf, n, part->offset + done);
		if (!r)
			XXH3_64bits_update(hash, buf, n);
		done += n;
	}
	if (!r)
		*ret = XXH3_64bits_digest(hash);
	XXH3_freeState(hash);
	return r;
}

static uint64_t round_up(uint64_t n)
{
	return (n + IMAGE_UNIT - 1) / IMAGE_UNIT * IMAGE_UNIT;
}

void image_lay_out(uint64_t len, uint64_t total, struct image_layout *ret)
{
	*ret = (struct image_layout){
		.description = {.offset = IMAGE_HEADER, .length = len},
		.table = {.offset = IMAGE_HEADER + round_up(len),
			  .length = total / IMAGE_UNIT * sizeof(uint64_t)},
	};
	ret->pages.offset = ret->table.offset + round_up(ret->table.length);
	ret->pages.length = total;
	ret->state.offset = ret->pages.offset + total;
}

/* --- the header --- */

static void put_part(struct bytes_writer *w, const struct image_part *p)
{
	bytes_put_u64(w, p->offset);
	bytes_put_u64(w, p->length);
	bytes_put_u64(w, p->digest);
}

static void get_part(struct bytes_reader *r, struct image_part *p, const char *what)
{
	p->offset = bytes_get_u64(r, what);
	p->length = bytes_get_u64(r, what);
	p->digest = bytes_get_u64(r, what);
}

void image_header_encode(const struct image_facts *f, const struct image_layout *l,
			 uint8_t out[static IMAGE_HEADER])
{
	struct bytes_writer w = {.p = out, .cap = IMAGE_HEADER};
	char name[MSG_NAME_MAX] = "";

	memset(out, 0, IMAGE_HEADER);
	memcpy(name, f->name, strlen(f->name));
	bytes_put_raw(&w, IMAGE_MAGIC, 8);
	bytes_put_u32(&w, IMAGE_VERSION);
	bytes_put_u32(&w, IMAGE_HEADER);
	bytes_put_raw(&w, f->id, sizeof(f->id));
	bytes_put_raw(&w, name, sizeof(name));
	bytes_put_u64(&w, f->created_us);
	put_part(&w, &l->description);
	put_part(&w, &l->table);
	put_part(&w, &l->pages);
	put_part(&w, &l->state);
	w = (struct bytes_writer){.p = out + DIGEST_AT, .cap = 8};
	bytes_put_u64(&w, digest_xxh3(out, DIGEST_AT));
}

int image_header_decode(const uint8_t in[static IMAGE_HEADER], struct image_facts *f,
			struct image_layout *l, struct error *err)
{
	struct bytes_reader r = {.p = in, .len = IMAGE_HEADER},
			    end = {.p = in + DIGEST_AT, .len = 8};
	uint8_t magic[8];
	uint32_t version;

	bytes_get_raw(&r, magic, sizeof(magic), "magic");
	if (memcmp(magic, IMAGE_MAGIC, sizeof(magic)) != 0)
		return image_bad(err, "no image of a guest");
	version = bytes_get_u32(&r, "version");
	if (version != IMAGE_VERSION)
		return error_set(err, -EOPNOTSUPP, "image-version",
				 "the image has format version %u, this agent reads %u", version,
				 IMAGE_VERSION);
	if (bytes_get_u64(&end, "digest") != digest_xxh3(in, DIGEST_AT) ||
	    bytes_get_u32(&r, "header") != IMAGE_HEADER)
		return image_bad(err, "the header is damaged");
	bytes_get_raw(&r, f->id, sizeof(f->id), "id");
	bytes_get_raw(&r, f->name, sizeof(f->name), "name");
	f->created_us = bytes_get_u64(&r, "created");
	get_part(&r, &l->description, "description");
	get_part(&r, &l->table, "table");
	get_part(&r, &l->pages, "pages");
	get_part(&r, &l->state, "state");
	f->state_bytes = l->state.length;
	if (!memchr(f->name, 0, sizeof(f->name)) || !image_name_ok(f->name))
		return image_bad(err, "the header has no right name");
	if (l->description.length > IMAGE_DESCRIPTION_MAX || l->state.length > MSG_STATE_TOTAL_MAX)
		return image_bad(err, "a length in the header is out of bounds");
	return 0;
}

/* --- the description --- */

static int put_frame(const struct msg *m, uint8_t *out, uint64_t *len, struct error *err)
{
	ssize_t n = msg_encode(m, out + *len, IMAGE_DESCRIPTION_MAX - *len);

	if (n < 0)
		return error_set(err, (int)n, NULL, "cannot encode %s", msg_type_name(m->type));
	*len += (uint64_t)n;
	return 0;
}

/* What the codec refuses was refused when it came. */
static int put_machine(const json_t *machine, struct msg *m, uint8_t *out, uint64_t *len,
		       struct error *err)
{
	const char *key;
	json_t *value;

	if (!machine)
		return 0;
	m->type = MSG_FACTS;
	m->facts.n = 0;
	json_object_foreach((json_t *)machine, key, value) {
		struct msg_var *v = &m->facts.facts[m->facts.n];

		if (m->facts.n >= MSG_FACTS_MAX || !json_is_string(value))
			continue;
		snprintf(v->key, sizeof(v->key), "%s", key);
		snprintf(v->value, sizeof(v->value), "%s", json_string_value(value));
		m->facts.n++;
	}
	return put_frame(m, out, len, err);
}

int image_describe(const struct image_facts *f, uint8_t **ret, uint64_t *ret_len, struct error *err)
{
	CLEANUP_FREE uint8_t *out = malloc(IMAGE_DESCRIPTION_MAX);
	CLEANUP_FREE struct msg *m = calloc(1, sizeof(*m));
	uint64_t len = 0;
	int r;

	if (!out || !m)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	r = put_machine(f->machine, m, out, &len, err);
	m->type = MSG_SETUP;
	m->setup = f->setup;
	if (!r)
		r = put_frame(m, out, &len, err);
	for (uint32_t i = 0; !r && i < f->setup.blocks; i++) {
		m->type = MSG_BLOCK;
		m->block = f->blocks[i];
		r = put_frame(m, out, &len, err);
	}
	if (r)
		return r;
	*ret = steal_ptr(&out);
	*ret_len = len;
	return 0;
}

static int get_frame(const uint8_t **p, uint64_t *len, enum msg_type type, struct msg *m,
		     struct error *err)
{
	struct msg_header h;
	int r;

	if (*len < MSG_HEADER_LEN)
		return image_bad(err, "the description is cut short");
	r = msg_header_decode(*p, MSG_CHANNEL_CONTROL, true, &h, err);
	if (!r && (h.type != type || h.length > *len - MSG_HEADER_LEN))
		r = image_bad(err, "the description has no right %s", msg_type_name(type));
	if (!r)
		r = msg_decode(&h, *p + MSG_HEADER_LEN, m, err);
	if (r)
		return r;
	*p += MSG_HEADER_LEN + h.length;
	*len -= MSG_HEADER_LEN + h.length;
	return 0;
}

/* Return: new reference; NULL when out of memory */
static json_t *machine_of(const struct msg_facts *facts)
{
	json_t *o = json_object();

	for (unsigned int i = 0; o && i < facts->n; i++)
		json_object_set_new(o, facts->facts[i].key, json_string(facts->facts[i].value));
	return o;
}

/* Only those that the source told. */
static int get_machine(const uint8_t **p, uint64_t *len, struct msg *m, struct image_facts *f,
		       struct error *err)
{
	struct msg_header h;
	int r = 0;

	if (*len < MSG_HEADER_LEN || msg_header_decode(*p, MSG_CHANNEL_CONTROL, true, &h, err) ||
	    h.type != MSG_FACTS)
		return 0; /* whatever is wrong with it, it is so as a SETUP, too */
	r = get_frame(p, len, MSG_FACTS, m, err);
	if (!r)
		f->machine = machine_of(&m->facts);
	return !r && !f->machine ? error_set(err, -ENOMEM, NULL, "out of memory") : r;
}

int image_description_decode(const uint8_t *p, uint64_t len, struct image_facts *f,
			     struct error *err)
{
	CLEANUP_FREE struct msg *m = malloc(sizeof(*m));
	int r = m ? get_machine(&p, &len, m, f, err)
		  : error_set(err, -ENOMEM, NULL, "out of memory");

	if (!r)
		r = get_frame(&p, &len, MSG_SETUP, m, err);
	if (r)
		return r;
	f->setup = m->setup;
	f->blocks = calloc(f->setup.blocks ? f->setup.blocks : 1, sizeof(*f->blocks));
	if (!f->blocks)
		return error_set(err, -ENOMEM, NULL, "out of memory");
	for (uint32_t i = 0; !r && i < f->setup.blocks; i++) {
		r = get_frame(&p, &len, MSG_BLOCK, m, err);
		if (!r)
			f->blocks[i] = m->block;
	}
	if (!r)
		r = msg_check_blocks(f->blocks, f->setup.blocks, err);
	if (!r && len)
		r = image_bad(err, "something follows the description");
	for (uint32_t i = 0; !r && i < f->setup.blocks; i++)
		f->total += f->blocks[i].length;
	return r;
}
