/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "guests/still_page.h"
#include "lib/fake_source.h"
#include "lib/lab_job.h"
#include "util/clock.h"
#include "util/fdio.h"
#include "util/uuid.h"

/* Longer than the agent takes to say what it waits for in vain. */
#define WAIT_US 14000000ull

struct fake_source *fake_new(struct lab_host *to, const struct fake_opts *opts)
{
	static const struct fake_block usual = {"ram", MSG_BLOCK_MEMFD, 256};
	struct fake_source *f = aligned_alloc(4096, (sizeof(*f) + 4095) & ~4095ul);
	const char *who = opts->identity ? opts->identity : "host-a";
	char ca[512], cert[512], key[512];
	struct tls_files files = {.ca = ca, .cert = cert, .key = key};
	struct error err = {0};

	memset(f, 0, sizeof(*f));
	f->lab = to->lab;
	f->to = to;
	f->o = *opts;
	if (!f->o.blocks[0].name)
		f->o.blocks[0] = usual;
	while (f->nblocks < FAKE_BLOCKS_MAX && f->o.blocks[f->nblocks].name)
		f->nblocks++;
	f->o.guest = opts->guest ? opts->guest : "still";
	f->o.launcher = opts->launcher ? opts->launcher : "still";
	f->o.bulk = opts->bulk ? opts->bulk : 1;
	f->pass = 1;
	fdio_random(f->id, sizeof(f->id));
	fdio_random(&f->seed, sizeof(f->seed));
	uuid_text(f->id, f->id_text);
	snprintf(ca, sizeof(ca), "%s/%s.ca", f->lab->certs, who);
	snprintf(cert, sizeof(cert), "%s/%s.cert", f->lab->certs, who);
	snprintf(key, sizeof(key), "%s/%s.key", f->lab->certs, who);
	lab_check(f->lab, !tls_ctx_new(&files, TLS_CLIENT, &f->ctx, &err), "%s", err.msg);
	return f;
}

static void close_io(struct frame_io *io)
{
	tls_chan_free(io->chan);
	io->chan = NULL;
}

void fake_close(struct fake_source *f)
{
	close_io(&f->urgent);
	for (unsigned int i = 0; i < FAKE_BULK_MAX; i++)
		close_io(&f->bulk[i]);
	close_io(&f->control);
}

void fake_free(struct fake_source *f)
{
	fake_close(f);
	tls_ctx_unref(f->ctx);
	free(f);
}

char *fake_launchers(const struct lab *lab)
{
	json_t *conf =
		json_pack("{s:{s:{s:s, s:[o, s, o, s]}, s:{s:s, s:[s, s]}, s:{s:s, s:[s, s, s]}, "
			  "s:{s:s, s:[s, s]}}, s:n}",
			  "launchers", "still", "driver", "native", "argv",
			  json_sprintf("%s/guests/still", lab->tests), "{name}",
			  json_sprintf("%s/{name}.still", lab->root), "{var:blocks}", "deaf",
			  "driver", "native", "argv", "/bin/sleep", "1000", "failing", "driver",
			  "native", "argv", "/bin/sh", "-c", "echo no luck >&2; exit 9", "other",
			  "driver", "qemu", "argv", "/bin/true", "{name}", "source_api");
	char *text = json_dumps(conf, 0);

	json_decref(conf);
	return text;
}

/* --- channels --- */

int fake_channel(struct fake_source *f, enum msg_channel kind, unsigned int index,
		 struct frame_io *io, struct error *err)
{
	struct msg_hello h = {.version_min = 1,
			      .version_max = MSG_VERSION,
			      .capabilities = MSG_CAP_POSTCOPY | MSG_CAP_URGENT,
			      .kind = (uint8_t)kind,
			      .index = (uint8_t)index};
	char port[8];
	struct dial_to to = {
		.ctx = f->ctx, .host = f->to->address, .port = port, .timeout_us = WAIT_US};
	struct msg_hello_ack ack;
	struct tls_chan *chan;
	int r;

	snprintf(port, sizeof(port), "%u", f->to->port);
	memcpy(h.migration, f->id, sizeof(f->id));
	if (kind != MSG_CHANNEL_CONTROL && kind != MSG_CHANNEL_QUERY)
		memcpy(h.token, f->token, sizeof(f->token));
	r = dial_blocking(&to, &h, -1, &chan, &ack, err);
	if (r)
		return r;
	if (kind == MSG_CHANNEL_CONTROL) {
		memcpy(f->token, ack.token, sizeof(f->token));
		f->capabilities = ack.capabilities;
	}
	*io = (struct frame_io){
		.chan = chan, .channel = kind, .stop_fd = -1, .timeout_us = WAIT_US * f->lab->slow};
	return 0;
}

static void must_open(struct fake_source *f, enum msg_channel kind, unsigned int index,
		      struct frame_io *io)
{
	struct error err = {0};

	lab_check(f->lab, !fake_channel(f, kind, index, io, &err), "%s channel %u: %s (%s)",
		  msg_channel_name(kind), index, err.msg, err.code);
}

void fake_hello(struct fake_source *f)
{
	must_open(f, MSG_CHANNEL_CONTROL, 0, &f->control);
}

void fake_prepared(struct fake_source *f)
{
	fake_hello(f);
	fake_setup(f);
	fake_expect(f, MSG_PREPARED);
	if (f->o.urgent)
		must_open(f, MSG_CHANNEL_URGENT, 0, &f->urgent);
	for (unsigned int i = 0; i < f->o.bulk; i++)
		must_open(f, MSG_CHANNEL_BULK, i, &f->bulk[i]);
}

/* --- control --- */

static void send_on(struct fake_source *f, const struct frame_io *io)
{
	struct error err = {0};

	lab_check(f->lab, !frame_send(io, &f->m, &err), "%s: %s", msg_type_name(f->m.type),
		  err.msg);
}

void fake_send(struct fake_source *f)
{
	send_on(f, &f->control);
}

void fake_send_simple(struct fake_source *f, enum msg_type type)
{
	f->m.type = type;
	fake_send(f);
}

void fake_send_number(struct fake_source *f, enum msg_type type, uint64_t n)
{
	f->m.number.value = n;
	fake_send_simple(f, type);
}

/* Next message but PING and PONG. Return: 0 or -errno with @err filled */
static int receive(struct fake_source *f, const struct frame_io *io, struct error *err)
{
	uint64_t end = clock_us() + io->timeout_us;
	struct msg_header h;
	int r;

	for (;;) {
		if (clock_us() > end)
			return error_set(err, -ETIMEDOUT, "timeout", "nothing but PINGs came");
		r = frame_read_header(io, &h, err);
		if (!r)
			r = frame_read_body(io, &h, f->body, &f->m, err);
		if (r || (f->m.type != MSG_PING && f->m.type != MSG_PONG))
			return r;
		if (f->m.type == MSG_PING)
			fake_send_number(f, MSG_PONG, f->m.number.value);
	}
}

static void expect_on(struct fake_source *f, const struct frame_io *io, enum msg_type type)
{
	struct error err = {0};
	int r = receive(f, io, &err);

	lab_check(f->lab, !r, "%s was to come on %s: %s", msg_type_name(type),
		  msg_channel_name(io->channel), err.msg);
	lab_check(f->lab, f->m.type == type, "%s came on %s, and not %s: %s",
		  msg_type_name(f->m.type), msg_channel_name(io->channel), msg_type_name(type),
		  f->m.type == MSG_ERROR ? f->m.error.message : "");
}

void fake_expect(struct fake_source *f, enum msg_type type)
{
	expect_on(f, &f->control, type);
}

void fake_expect_behind(struct fake_source *f, enum msg_type before, enum msg_type type)
{
	struct error err = {0};

	do
		lab_check(f->lab, !receive(f, &f->control, &err), "%s was to come: %s",
			  msg_type_name(type), err.msg);
	while (f->m.type == before);
	lab_check(f->lab, f->m.type == type, "%s came, and not %s: %s", msg_type_name(f->m.type),
		  msg_type_name(type), f->m.type == MSG_ERROR ? f->m.error.message : "");
}

void fake_bulk_expect(struct fake_source *f, unsigned int i, enum msg_type type)
{
	expect_on(f, &f->bulk[i], type);
}

void fake_expect_error(struct fake_source *f, const char *code, const char *names)
{
	fake_expect(f, MSG_ERROR);
	lab_check(f->lab, !strcmp(f->m.error.code, code), "the code is %s, not %s: %s",
		  f->m.error.code, code, f->m.error.message);
	lab_check(f->lab, !names || strstr(f->m.error.message, names), "it does not name %s: %s",
		  names, f->m.error.message);
}

static const char *kind_word(enum msg_block_kind kind)
{
	return kind == MSG_BLOCK_ANON ? "anon" : kind == MSG_BLOCK_HUGETLB ? "huge" : "memfd";
}

static void send_blocks(struct fake_source *f)
{
	for (unsigned int i = 0; i < f->nblocks; i++) {
		const struct fake_block *b = &f->o.blocks[i];
		bool huge = b->kind == MSG_BLOCK_HUGETLB;

		f->m.type = MSG_BLOCK;
		f->m.block = (struct msg_block){.index = i,
						.kind = (uint8_t)b->kind,
						.flags = MSG_BLOCK_NO_DMA,
						.page_size = huge ? 2u << 20 : 4096,
						.length = b->pages * STILL_PAGE};
		snprintf(f->m.block.name, sizeof(f->m.block.name), "%s", b->name);
		fake_send(f);
	}
}

void fake_setup(struct fake_source *f)
{
	struct msg_setup *s = &f->m.setup;
	size_t n = 0;

	memset(&f->m, 0, sizeof(f->m));
	f->m.type = MSG_SETUP;
	snprintf(s->name, sizeof(s->name), "%s", f->o.guest);
	snprintf(s->launcher, sizeof(s->launcher), "%s", f->o.launcher);
	strcpy(s->driver, "native");
	memcpy(s->uuid, &f->seed, sizeof(f->seed));
	s->generation = 6;
	s->paused = f->o.paused;
	s->may_postcopy = !f->o.precopy_only;
	s->bulk_channels = (uint8_t)f->o.bulk;
	s->blocks = f->nblocks;
	s->nvars = 1;
	strcpy(s->vars[0].key, "blocks");
	/* As the guest makes them: the other way round. */
	for (unsigned int i = f->nblocks; i-- > 0;)
		n += (size_t)snprintf(s->vars[0].value + n, sizeof(s->vars[0].value) - n,
				      "%s%s:%s:%llu", n ? "," : "", f->o.blocks[i].name,
				      kind_word(f->o.blocks[i].kind),
				      (unsigned long long)f->o.blocks[i].pages);
	fake_send(f);
	send_blocks(f);
}

/* --- pages --- */

static void send_pages(struct fake_source *f, struct frame_io *io, struct msg_pages *p)
{
	struct error err = {0};

	p->pass = f->pass;
	f->runs++;
	f->digest_sum += p->digest;
	lab_check(f->lab, !frame_send_pages(io, p, f->buf, &err), "PAGES: %s", err.msg);
}

/* The guest counts its blocks in the order in which it made them. */
static void raw(struct fake_source *f, struct frame_io *io, unsigned int block, uint64_t first,
		uint64_t n, uint64_t seed, uint64_t wrong)
{
	struct msg_pages p = {.block = block,
			      .kind = MSG_PAGES_RAW,
			      .offset = first * STILL_PAGE,
			      .length = n * STILL_PAGE};
	uint8_t *data = f->buf + MSG_PAGES_FIXED;

	for (uint64_t i = 0; i < n; i++)
		still_page_fill(data + i * STILL_PAGE, seed, f->nblocks - 1 - block, first + i);
	p.digest = XXH3_64bits(data, p.length) + wrong;
	send_pages(f, io, &p);
}

void fake_raw(struct fake_source *f, struct frame_io *io, unsigned int block, uint64_t first,
	      uint64_t n)
{
	raw(f, io, block, first, n, f->seed, 0);
}

void fake_old(struct fake_source *f, struct frame_io *io, unsigned int block, uint64_t first,
	      uint64_t n)
{
	raw(f, io, block, first, n, f->seed + 1, 0);
}

void fake_damaged(struct fake_source *f, struct frame_io *io, unsigned int block, uint64_t first,
		  uint64_t n)
{
	raw(f, io, block, first, n, f->seed, 1);
}

void fake_zero(struct fake_source *f, struct frame_io *io, unsigned int block, uint64_t first,
	       uint64_t n)
{
	struct msg_pages p = {.block = block,
			      .kind = MSG_PAGES_ZERO,
			      .offset = first * STILL_PAGE,
			      .length = n * STILL_PAGE};

	send_pages(f, io, &p);
}

void fake_pages(struct fake_source *f, struct frame_io *io, unsigned int block, uint64_t first,
		uint64_t n)
{
	unsigned int theirs = f->nblocks - 1 - block;

	for (uint64_t i = 0, k; i < n; i += k) {
		bool zero = still_is_zero(f->seed, theirs, first + i);

		for (k = 1; i + k < n && k < 64; k++)
			if (still_is_zero(f->seed, theirs, first + i + k) != zero)
				break;
		if (zero)
			fake_zero(f, io, block, first + i, k);
		else
			fake_raw(f, io, block, first + i, k);
	}
}

void fake_all(struct fake_source *f)
{
	unsigned int turn = 0;

	for (unsigned int b = 0; b < f->nblocks; b++) {
		for (uint64_t p = 0, n; p < f->o.blocks[b].pages; p += n) {
			n = f->o.blocks[b].pages - p;
			n = n < 32 ? n : 32;
			fake_pages(f, &f->bulk[turn++ % f->o.bulk], b, p, n);
		}
	}
}

void fake_barrier(struct fake_source *f)
{
	f->barrier++;
	for (unsigned int i = 0; i < f->o.bulk; i++) {
		f->m.type = MSG_BARRIER;
		f->m.barrier = (struct msg_barrier){f->pass, f->barrier};
		send_on(f, &f->bulk[i]);
	}
	for (unsigned int i = 0; i < f->o.bulk; i++) {
		expect_on(f, &f->bulk[i], MSG_BARRIER_ACK);
		lab_check(f->lab, f->m.barrier.pass == f->pass && f->m.barrier.number == f->barrier,
			  "BARRIER_ACK of another barrier");
	}
}

/* --- hand-over --- */

void fake_intent(struct fake_source *f)
{
	fake_send_number(f, MSG_INTENT, 7);
	fake_expect(f, MSG_INTENT_ACK);
}

void fake_switch(struct fake_source *f)
{
	f->m.switch_.pass = ++f->pass;
	fake_send_simple(f, MSG_SWITCH);
}

void fake_discard(struct fake_source *f, unsigned int block, uint64_t first, uint64_t n)
{
	f->m.discard.block = block;
	f->m.discard.n = 1;
	f->m.discard.ranges[0] = (struct msg_range){first * STILL_PAGE, n * STILL_PAGE};
	fake_send_simple(f, MSG_DISCARD);
}

void fake_listen(struct fake_source *f, bool postcopy)
{
	f->m.listen.postcopy = postcopy;
	fake_send_simple(f, MSG_LISTEN);
}

void fake_state(struct fake_source *f, uint64_t ballast)
{
	uint64_t total = sizeof(f->seed) + ballast;
	uint8_t *state = malloc(total);

	memcpy(state, &f->seed, sizeof(f->seed));
	for (uint64_t i = 0; i < ballast; i++)
		state[sizeof(f->seed) + i] = still_ballast(f->seed, i);
	for (uint64_t at = 0, n; at < total; at += n) {
		n = total - at < 1000 ? total - at : 1000;
		f->m.state = (struct msg_state){state + at, (uint32_t)n};
		fake_send_simple(f, MSG_STATE);
	}
	f->m.state_end = (struct msg_state_end){total, XXH3_64bits(state, total)};
	free(state);
	fake_send_simple(f, MSG_STATE_END);
}

/* A REQUEST is in @f->m. */
static void serve(struct fake_source *f)
{
	struct msg_request q = f->m.request;

	lab_check(f->lab, q.block < f->nblocks && q.length && q.length % STILL_PAGE == 0,
		  "a request that cannot be");
	fake_pages(f, f->urgent.chan ? &f->urgent : &f->bulk[0], q.block, q.offset / STILL_PAGE,
		   q.length / STILL_PAGE);
}

/* Answer what is asked for on @io for @us at most. Return: how many */
static unsigned int serve_for(struct fake_source *f, struct frame_io io, uint64_t us)
{
	struct error err = {0};
	unsigned int n = 0;
	int r;

	io.timeout_us = us;
	while (!(r = receive(f, &io, &err))) {
		lab_check(f->lab, f->m.type == MSG_REQUEST, "%s came, and not REQUEST: %s",
			  msg_type_name(f->m.type),
			  f->m.type == MSG_ERROR ? f->m.error.message : "");
		serve(f);
		n++;
	}
	lab_check(f->lab, r == -ETIMEDOUT, "%s", err.msg);
	return n;
}

/* In slices, because the PINGs on control want to be answered meanwhile. */
unsigned int fake_serve(struct fake_source *f, unsigned int ms)
{
	uint64_t idle = clock_us(), slice = 200000, n, all = 0;

	while (clock_us() - idle < (uint64_t)ms * 1000 * f->lab->slow) {
		if (slice > (uint64_t)ms * 1000)
			slice = (uint64_t)ms * 1000;
		n = serve_for(f, f->urgent.chan ? f->urgent : f->control, slice);
		if (f->urgent.chan)
			n += serve_for(f, f->control, 0);
		if (n)
			idle = clock_us();
		all += n;
	}
	return (unsigned int)all;
}

void fake_ready(struct fake_source *f)
{
	struct error err = {0};
	uint64_t end = clock_us() + WAIT_US * f->lab->slow;

	while (clock_us() < end) {
		struct frame_io io = f->control;
		int r;

		if (f->urgent.chan)
			serve_for(f, f->urgent, 5000);
		io.timeout_us = 5000;
		r = receive(f, &io, &err);
		lab_check(f->lab, !r || r == -ETIMEDOUT, "%s", err.msg);
		if (r)
			continue;
		if (f->m.type == MSG_READY)
			return;
		lab_check(f->lab, f->m.type == MSG_REQUEST, "%s came, and not READY: %s",
			  msg_type_name(f->m.type),
			  f->m.type == MSG_ERROR ? f->m.error.message : "");
		serve(f);
	}
	lab_check(f->lab, false, "no READY");
}

void fake_commit(struct fake_source *f)
{
	fake_send_number(f, MSG_COMMIT, 7);
	do {
		struct error err = {0};

		lab_check(f->lab, !receive(f, &f->control, &err), "%s", err.msg);
		if (f->m.type == MSG_REQUEST)
			serve(f);
	} while (f->m.type == MSG_REQUEST);
	lab_check(f->lab, f->m.type == MSG_RUNNING && f->m.number.value == 7,
		  "%s came, and not RUNNING", msg_type_name(f->m.type));
}

void fake_complete(struct fake_source *f)
{
	f->m.complete = (struct msg_complete){
		.runs = f->runs, .digest_sum = f->digest_sum, .n = f->nblocks};
	for (unsigned int i = 0; i < f->nblocks; i++) {
		const struct fake_block *b = &f->o.blocks[i];

		f->m.complete.pages[i] = b->kind == MSG_BLOCK_HUGETLB ? b->pages / 512 : b->pages;
	}
	fake_send_simple(f, MSG_COMPLETE);
}

enum msg_answer fake_query(struct fake_source *f, uint64_t generation)
{
	struct frame_io io;

	must_open(f, MSG_CHANNEL_QUERY, 0, &io);
	f->m.type = MSG_QUERY;
	f->m.number.value = generation;
	send_on(f, &io);
	expect_on(f, &io, MSG_ANSWER);
	tls_chan_free(io.chan);
	return f->m.answer.answer;
}

/* --- looking --- */

json_t *fake_view(struct fake_source *f)
{
	char path[80];

	snprintf(path, sizeof(path), "/v1/incoming/%s", f->id_text);
	return lab_get(f->lab, f->to->dest_sock, path);
}

bool fake_phase_is(struct fake_source *f, const char *phase)
{
	json_t *o = fake_view(f);
	bool is = !strcmp(lab_str(f->lab, o, "phase"), phase);

	json_decref(o);
	return is;
}

bool fake_report_is(struct fake_source *f, const char *text)
{
	char path[LAB_PATH_MAX + 128], *said;
	bool is;

	snprintf(path, sizeof(path), "%s/%s.still", f->lab->root, f->o.guest);
	said = lab_read_file(path);
	if (said)
		said[strcspn(said, "\n")] = '\0';
	lab_check(f->lab, !said || (!strstr(said, "bad") && !strstr(said, "overwritten")),
		  "the guest says: %s", said);
	is = said && !strcmp(said, text);
	free(said);
	return is;
}

pid_t fake_guest_pid(struct fake_source *f)
{
	char want[LAB_PATH_MAX + 64], path[64];
	DIR *d = opendir("/proc");
	struct dirent *e;
	pid_t pid = 0;

	snprintf(want, sizeof(want), "DECANT_ATTACH=%s/dest.attach", f->to->dir);
	while (!pid && (e = readdir(d))) {
		char *env;

		snprintf(path, sizeof(path), "/proc/%.20s/environ", e->d_name);
		env = lab_read_file(path);
		for (char *at = env; at && *at; at += strlen(at) + 1)
			if (!strcmp(at, want))
				pid = atoi(e->d_name);
		free(env);
	}
	closedir(d);
	return pid;
}
