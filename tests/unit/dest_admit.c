/* SPDX-License-Identifier: Apache-2.0 */
/* Who may come: what this host and its configuration say before anything is started. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "incoming_priv.h"
#include "parts.h"
#include "proc.h"
#include "util/log.h"

static void quiet(void)
{
	log_setup("error");
}

TestSuite(dest_admit, .init = quiet, .timeout = 30);

/**
 * struct box - a guest that may come: a host that can do everything, one block of each kind
 * @dir:	of the history
 */
struct box {
	struct dest d;
	struct incoming inc;
	struct msg_setup setup;
	struct msg_block blocks[3];
	struct conf_launcher launcher;
	struct error err;
	char dir[40];
};

#define OWN (UFFD_CAN_REGISTER | UFFD_CAN_UNREGISTER)
#define ALL (UFFD_CAN_WAKE | UFFD_CAN_COPY | UFFD_CAN_ZEROPAGE)

static void box_init(struct box *b)
{
	static const struct msg_block blocks[3] = {
		{.name = "shared", .kind = MSG_BLOCK_MEMFD, .length = 8192},
		{.name = "private", .kind = MSG_BLOCK_ANON, .length = 4096},
		{.name = "huge", .kind = MSG_BLOCK_HUGETLB, .length = 4 << 20},
	};

	memset(b, 0, sizeof(*b));
	strcpy(b->dir, "/tmp/decant-admit-XXXXXX");
	cr_assert(mkdtemp(b->dir));
	b->d.loop = loop_new();
	b->d.journals = journal_syncer_new(b->d.loop);
	cr_assert(b->d.loop && b->d.journals);
	cr_assert_eq(history_open(b->dir, b->d.journals, &b->d.history, &b->err), 0, "%s",
		     b->err.msg);
	b->d.caps = (struct uffd_caps){.features = ~0ul, .ioctls = OWN, .missing = {ALL, ALL}};
	strcpy(b->launcher.name, "vm");
	b->d.conf.launchers = &b->launcher;
	b->d.conf.n_launchers = 1;
	strcpy(b->setup.name, "g");
	strcpy(b->setup.driver, "native");
	strcpy(b->setup.launcher, "vm");
	b->setup.may_postcopy = true;
	for (int i = 0; i < 3; i++) {
		b->blocks[i] = blocks[i];
		b->blocks[i].page_size = i == 2 ? 2 << 20 : 4096;
		b->inc.total += blocks[i].length;
	}
	b->inc.d = &b->d;
	b->inc.setup = &b->setup;
	b->inc.blocks = b->blocks;
	b->inc.nblocks = 3;
}

static void box_free(struct box *b)
{
	char path[64];

	history_close(b->d.history);
	journal_syncer_free(b->d.journals);
	loop_free(b->d.loop);
	snprintf(path, sizeof(path), "%s/incoming", b->dir);
	rmdir(path);
	cr_assert_eq(rmdir(b->dir), 0);
}

static int admit(struct box *b)
{
	error_clear(&b->err);
	return parts_advise(&b->inc, &b->err);
}

static void refused(struct box *b, const char *code, const char *names)
{
	cr_assert_lt(admit(b), 0, "%s", names);
	cr_assert_str_eq(b->err.code, code, "%s: %s", b->err.code, b->err.msg);
	cr_assert(strstr(b->err.msg, names), "%s", b->err.msg);
}

Test(dest_admit, who_may_come)
{
	struct box b;

	box_init(&b);
	cr_assert_eq(admit(&b), 0, "%s", b.err.msg);
	box_free(&b);
}

/* Without userfaultfd no post-copy, and it says so; precopy needs none. */
Test(dest_admit, a_host_without_userfaultfd)
{
	struct box b;

	box_init(&b);
	b.d.caps = (struct uffd_caps){0};
	b.d.caps_ret = error_set(&b.d.caps_err, -ENOSYS, "no-userfaultfd", "no userfaultfd here");
	refused(&b, "no-userfaultfd", "cannot receive by post-copy, use mode precopy");
	cr_assert(strstr(b.err.msg, "no userfaultfd here"), "%s", b.err.msg);
	b.setup.may_postcopy = false;
	b.blocks[2].length = 1 << 30;
	cr_assert_eq(admit(&b), 0, "%s", b.err.msg);
	box_free(&b);
}

/* Each call that a kernel may lack is named. */
Test(dest_admit, a_kernel_that_lacks_something)
{
	static const struct {
		uint64_t own, range;
		const char *names;
	} lacks[] = {
		{UFFD_CAN_REGISTER, 0, "REGISTER"},    {UFFD_CAN_UNREGISTER, 0, "UNREGISTER"},
		{0, UFFD_CAN_WAKE, "WAKE on"},         {0, UFFD_CAN_COPY, "COPY on"},
		{0, UFFD_CAN_ZEROPAGE, "ZEROPAGE on"},
	};
	struct box b;

	box_init(&b);
	for (size_t i = 0; i < sizeof(lacks) / sizeof(lacks[0]); i++)
		for (int mem = 0; mem < UFFD_MEM_COUNT; mem++) {
			b.d.caps.ioctls = OWN & ~lacks[i].own;
			b.d.caps.missing[0] = b.d.caps.missing[1] = ALL;
			b.d.caps.missing[mem] &= ~lacks[i].range;
			refused(&b, "no-postcopy", lacks[i].names);
		}
	box_free(&b);
}

Test(dest_admit, blocks_that_cannot_be)
{
	struct box b;

	box_init(&b);
	b.blocks[0].page_size = 8192;
	refused(&b, "page-size", "block shared has pages of 8192 bytes and this host of 4096");
	b.blocks[0].page_size = 4096;
	b.blocks[2].page_size = 1 << 30;
	refused(&b, "page-size", "block huge has pages of 1024 MiB, which cannot arrive");
	b.setup.may_postcopy = false;
	b.blocks[2].length = 1 << 30;
	cr_assert_eq(admit(&b), 0, "%s", b.err.msg);
	b.setup.may_postcopy = true;
	b.blocks[2].length = 4 << 20;
	b.blocks[2].page_size = 2 << 20;
	b.blocks[1].length = 4097;
	refused(&b, "bad-message", "block private: length 4097");
	b.blocks[1].length = 4096;
	b.d.caps.features = ~UFFD_F_MISSING_HUGETLBFS;
	refused(&b, "host-postcopy", "block huge has huge pages");
	cr_assert(strstr(b.err.msg, "MISSING_HUGETLBFS"), "%s", b.err.msg);
	b.setup.may_postcopy = false;
	b.blocks[2].length = 1 << 30;
	cr_assert_eq(admit(&b), 0, "%s", b.err.msg);
	box_free(&b);
}

/* One objection is enough, whoever makes it. */
Test(dest_admit, objections)
{
	struct box b;

	box_init(&b);
	b.d.conf.limit_memory_bytes = b.inc.total - 1;
	refused(&b, "limit-memory", "limits.memory_bytes");
	b.d.conf.limit_memory_bytes = b.inc.total;
	cr_assert_eq(admit(&b), 0, "%s", b.err.msg);
	b.d.conf.check_room = true;
	b.d.conf.margin_bytes = CONF_MARGIN_MAX;
	refused(&b, "no-room", "guest g: no room: needs 12288 bytes");
	b.d.conf.check_room = false;
	strcpy(b.setup.launcher, "other");
	refused(&b, "unknown-launcher", "\"other\"");
	strcpy(b.setup.launcher, "vm");
	strcpy(b.setup.name, "../g");
	refused(&b, "bad-name", "../g");
	box_free(&b);
}

/* --- what has been here --- */

static const char *history_path(const struct box *b)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/incoming/11111111-1111-4111-8111-111111111111.journal",
		 b->dir);
	return path;
}

/* The record of a guest that arrived as @generation, and is this process. */
static struct past *arrived(struct box *b, json_int_t generation)
{
	json_t *facts = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:{}, s:I}", "id",
				  "11111111-1111-4111-8111-111111111111", "identity", "DNS:a",
				  "from", "a", "guest", "g", "uuid",
				  "22222222-2222-4222-8222-222222222222", "generation", generation,
				  "driver", "native", "launcher", "vm", "vars", "created", 0LL);
	json_t *owner = json_pack("{s:i, s:I}", "pid", getpid(), "pid_start",
				  (json_int_t)proc_start(getpid()));
	struct past *p;

	cr_assert_eq(history_begin(b->d.history, facts, NULL, &p, &b->err), 0, "%s", b->err.msg);
	cr_assert_eq(history_note(p, HISTORY_MAY_OWN, NULL, HISTORY_APART, NULL, &b->err), 0);
	cr_assert_eq(history_note(p, HISTORY_OWNER, owner, HISTORY_APART, NULL, &b->err), 0);
	cr_assert_eq(history_note(p, HISTORY_COMPLETED, NULL, HISTORY_APART, NULL, &b->err), 0);
	cr_assert_eq(history_registered(p, &b->err), 0);
	history_end(b->d.history, p, NULL);
	json_decref(facts);
	json_decref(owner);
	return p;
}

/* Also under another name, and though decant-source, which has the guest since, is not there to be asked. */
Test(dest_admit, an_older_copy_of_a_guest_that_lives_here)
{
	struct past *p;
	struct box b;

	box_init(&b);
	p = arrived(&b, 5);
	memcpy(b.setup.uuid, p->uuid, sizeof(p->uuid));
	strcpy(b.setup.name, "other");
	b.setup.generation = 4;
	refused(&b, "guest-outdated", "process");
	b.setup.generation = 5; /* it leaves this host for this host */
	cr_assert_eq(admit(&b), 0, "%s", b.err.msg);
	b.setup.generation = 7; /* it was elsewhere meanwhile, and what is here is what it left */
	cr_assert_eq(admit(&b), 0, "%s", b.err.msg);
	b.setup.generation = 4;
	b.setup.uuid[0] ^= 1;
	cr_assert_eq(admit(&b), 0, "%s", b.err.msg);
	b.setup.uuid[0] ^= 1;
	p->pid_start++; /* its process has ended, and another one has the pid */
	cr_assert_eq(admit(&b), 0, "%s", b.err.msg);
	cr_assert_eq(unlink(history_path(&b)), 0);
	box_free(&b);
}
