/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of QEMU against real ones, operation by operation, without agents: what it finds, what it keeps in
 * QEMU and takes away again, what becomes of a hand-over that is given up.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/gmem.h"
#include "guest/qemu/qemu.h"
#include "guest/qemu/qmp.h"
#include "lib/lab_test.h"
#include "lib/lab_vm.h"
#include "util/cleanup.h"
#include "util/fdio.h"
#include "util/log.h"
#include "util/loop.h"

#define WAIT_MS 20000
#define FILLED  (8u << 20)

/**
 * struct bench - this process as an agent
 * @found, @why: what qemu_attach() came to
 * @done, @ret, @err, @fd: what an operation came to
 * @gone, @how:	how often a guest was lost, and how the last was
 * @state, @n:	device state that was saved
 */
struct bench {
	struct lab *lab;
	struct loop *loop;
	struct lab_vm *vm;
	bool found;
	struct guest *g;
	struct error why;
	bool done;
	int ret, fd;
	struct error err;
	unsigned int gone;
	enum guest_gone how;
	char *state;
	size_t n;
};

static struct bench w;

static void nothing(void *arg)
{
	(void)arg;
}

#define spin_until(cond, ...)                                                       \
	do {                                                                        \
		uint64_t end_ = lab_now_ms() + WAIT_MS;                             \
		while (!(cond)) {                                                   \
			struct event *t_ = loop_timer(w.loop, 1000, nothing, NULL); \
			event_base_loop(loop_base(w.loop), EVLOOP_ONCE);            \
			event_free(t_);                                             \
			lab_check(w.lab, lab_now_ms() < end_, __VA_ARGS__);         \
		}                                                                   \
	} while (0)

static void on_found(void *arg, struct guest *g, const struct error *err)
{
	(void)arg;
	w.found = true;
	w.g = g;
	if (!g)
		w.why = *err;
}

static void on_gone(void *arg, struct guest *g, enum guest_gone how)
{
	(void)arg;
	(void)g;
	w.gone++;
	w.how = how;
}

static struct guest *try_attach(const char *path)
{
	struct qemu_spec spec = {.name = "vm", .path = path};
	struct qemu_attach *a;

	w.found = false;
	error_clear(&w.why);
	if (qemu_attach(w.loop, &spec, on_found, NULL, &a, &w.why) < 0)
		return NULL;
	spin_until(w.found, "nothing is found at %s", path);
	qemu_attach_free(a);
	if (w.g)
		guest_watch(w.g, on_gone, NULL, NULL);
	return w.g;
}

static struct guest *attach(const char *path)
{
	struct guest *g = try_attach(path);

	lab_check(w.lab, g, "%s: %s", path, w.why.msg);
	return g;
}

static void on_done(void *arg, int ret, const struct error *err, int fd)
{
	(void)arg;
	w.done = true;
	w.ret = ret;
	w.err = *err;
	w.fd = fd;
}

static int wait_done(void)
{
	spin_until(w.done, "it is not done");
	return w.ret;
}

/* An operation as a call. Return: its result; what came with it is in @w */
#define do_it(op, ...)                                                               \
	({                                                                           \
		int r_;                                                              \
		w.done = false;                                                      \
		r_ = op(__VA_ARGS__, on_done, NULL);                                 \
		lab_check(w.lab, r_ || !w.done, #op " was done before it returned"); \
		r_ ?: wait_done();                                                   \
	})

static int on_chunk(void *arg, const void *p, size_t n)
{
	(void)arg;
	w.state = realloc(w.state, w.n + n);
	memcpy(w.state + w.n, p, n);
	w.n += n;
	return 0;
}

static void begin(const struct lab_vm_opts *opts)
{
	w = (struct bench){.lab = lab_vm_lab(), .fd = -1};
	log_setup("warning");
	w.loop = loop_new();
	w.vm = lab_vm_new(w.lab, opts);
	lab_vm_launch(w.vm);
	lab_until(w.lab, 10000, !access(w.vm->qmp, F_OK), "no monitor");
}

static void end(void)
{
	lab_vm_end(w.vm);
	loop_free(w.loop);
	free(w.state);
	lab_end(w.lab);
}

/* Notes in QEMU: are there any of ours? */
static bool noted(struct lab_vm *vm)
{
	json_t *list = lab_vm_qmp(vm, "qom-list", json_pack("{s:s}", "path", "/objects"));
	char *text = json_dumps(list, 0);
	bool found = strstr(text, "decant-") != NULL;

	free(text);
	json_decref(list);
	return found;
}

static bool settings_touched(struct lab_vm *vm)
{
	json_t *list = lab_vm_qmp(vm, "query-migrate-capabilities", NULL), *c;
	bool on = false;
	size_t i;

	json_array_foreach(list, i, c)
		on = on || json_is_true(json_object_get(c, "state"));
	json_decref(list);
	return on;
}

TestSuite(qemu_driver, .timeout = 60);

Test(qemu_driver, finds_what_it_is)
{
	struct guest *g;

	begin(&(struct lab_vm_opts){.mb = 128, .smp = 2, .rng = true});
	g = attach(w.vm->qmp);
	lab_check(w.lab, g->pid == w.vm->pid, "pid %d", (int)g->pid);
	lab_check(w.lab, !error_is_set(&g->cannot), "%s", g->cannot.msg);
	lab_check(w.lab, g->nblocks == 1 && g->blocks[0].length == 128ull << 20, "blocks");
	lab_check(w.lab, !strcmp(g->blocks[0].name, "ram0"), "%s", g->blocks[0].name);
	lab_check(w.lab, g->blocks[0].kind == GUEST_BLOCK_MEMFD, "kind");
	lab_check(w.lab, guest_no_dma(g, NULL), "DMA");
	lab_check(w.lab, g->run_state == GUEST_RUNNING, "state");
	lab_check(w.lab, !strcmp(lab_str(w.lab, g->facts, "cpus"), "2"), "cpus");
	lab_check(w.lab, json_object_get(g->facts, "device.virtio-rng-pci"), "devices");
	/* One client at a time: the second waits for a greeting that does not come. */
	lab_check(w.lab, !try_attach(w.vm->qmp) && !strcmp(w.why.code, "monitor-busy"), "%s",
		  w.why.msg);
	guest_free(g);
	end();
}

Test(qemu_driver, one_without_a_uuid_has_the_same_for_life)
{
	uint8_t uuid[GUEST_UUID_LEN];
	struct guest *g;

	begin(&(struct lab_vm_opts){.mb = 128});
	g = attach(w.vm->qmp);
	memcpy(uuid, g->uuid, sizeof(uuid));
	guest_free(g);
	/* Its address space grows, by a thread's stack. */
	json_decref(lab_vm_qmp(w.vm, "object-add",
			       json_pack("{s:s, s:s}", "qom-type", "iothread", "id", "io1")));
	g = attach(w.vm->qmp);
	lab_check(w.lab, !memcmp(uuid, g->uuid, sizeof(uuid)), "it is taken for another one");
	guest_free(g);
	end();
}

Test(qemu_driver, private_memory_is_refused_by_name)
{
	struct guest *g;

	lab_test_long();
	begin(&(struct lab_vm_opts){.mb = 128, .backing = LAB_VM_ANON});
	g = attach(w.vm->qmp);
	lab_check(w.lab, !strcmp(g->cannot.code, "anonymous-memory"), "%s", g->cannot.msg);
	lab_check(w.lab, strstr(g->cannot.msg, "share=on"), "%s", g->cannot.msg);
	guest_free(g);
	end();
}

Test(qemu_driver, a_stranger_is_no_qemu)
{
	static const char greeting[] =
		"{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7, \"minor\": 2, "
		"\"micro\": 0}}, \"capabilities\": []}}\n{\"return\": {}, "
		"\"id\": 1}\n";
	char path[LAB_PATH_MAX + 16];
	int listener;
	pid_t pid;

	w = (struct bench){.lab = lab_vm_lab(), .fd = -1};
	w.loop = loop_new();
	snprintf(path, sizeof(path), "%s/fake", w.lab->root);
	listener = fdio_unix_listen(path, SOCK_STREAM, 0600, NULL);
	pid = fork();
	if (!pid) {
		int s;

		fcntl(listener, F_SETFL, 0);
		s = accept(listener, NULL, NULL);
		if (write(s, greeting, sizeof(greeting) - 1) > 0)
			pause();
		_exit(0);
	}
	lab_lend(w.lab, "stranger", pid);
	close(listener);
	lab_check(w.lab, !try_attach(path) && !strcmp(w.why.code, "not-qemu"), "%s", w.why.msg);
	loop_free(w.loop);
	lab_end(w.lab);
}

/* Whoever connects next knows that it is held; and it is let go as it was. */
Test(qemu_driver, a_pause_outlives_the_agent)
{
	struct guest *g;

	lab_test_long();
	begin(&(struct lab_vm_opts){.mb = 128});
	g = attach(w.vm->qmp);
	lab_check(w.lab, !do_it(guest_pause, g, 5000u), "%s", w.err.msg);
	lab_check(w.lab, g->run_state == GUEST_PAUSED_MIGRATION, "state");
	lab_check(w.lab, lab_vm_status(w.vm, "paused") && noted(w.vm), "it is not held");
	guest_free(g);
	g = attach(w.vm->qmp);
	lab_check(w.lab, g->run_state == GUEST_PAUSED_MIGRATION, "that it is held was forgotten");
	/* Somebody else's hand: it stays held. */
	json_decref(lab_vm_qmp(w.vm, "cont", NULL));
	spin_until(lab_vm_status(w.vm, "paused"), "it runs although it is held");
	lab_check(w.lab, !do_it(guest_resume, g), "%s", w.err.msg);
	lab_check(w.lab, lab_vm_status(w.vm, "running"), "it does not run");
	spin_until(!noted(w.vm), "a note is left");
	guest_free(g);
	/* One that somebody else has stopped stays so. */
	json_decref(lab_vm_qmp(w.vm, "stop", NULL));
	g = attach(w.vm->qmp);
	lab_check(w.lab, g->run_state == GUEST_PAUSED, "state");
	lab_check(w.lab, !do_it(guest_pause, g, 5000u) && !do_it(guest_resume, g), "%s", w.err.msg);
	lab_check(w.lab, lab_vm_status(w.vm, "paused"), "it was let run");
	spin_until(!noted(w.vm), "a note is left");
	guest_free(g);
	end();
}

Test(qemu_driver, a_kept_userfaultfd_is_found_again)
{
	struct guest *g;

	lab_test_long();
	begin(&(struct lab_vm_opts){.mb = 128});
	g = attach(w.vm->qmp);
	lab_check(w.lab, !do_it(guest_uffd, g, false, 0), "%s", w.err.msg);
	close(w.fd);
	lab_check(w.lab, !g->kept_uffd && !noted(w.vm), "kept without a wish");
	lab_check(w.lab, !do_it(guest_uffd, g, true, 4711), "%s", w.err.msg);
	close(w.fd);
	lab_check(w.lab, g->kept_uffd && g->uffd_how == GUEST_UFFD_SYSCALL, "not kept");
	lab_check(w.lab, g->stopped_us > 0, "nothing stood");
	fprintf(stderr, "longest stop %lu us\n", g->stopped_us);
	guest_free(g);
	g = attach(w.vm->qmp);
	lab_check(w.lab, g->kept_uffd && g->kept_tag == 4711, "it was forgotten");
	lab_check(w.lab, !do_it(guest_uffd_again, g) && w.fd >= 0, "%s", w.err.msg);
	close(w.fd);
	lab_check(w.lab, !do_it(guest_uffd_close, g), "%s", w.err.msg);
	guest_free(g);
	g = attach(w.vm->qmp);
	lab_check(w.lab, !g->kept_uffd && !noted(w.vm), "it is still there");
	guest_free(g);
	end();
}

/* Some devices look at the guest's memory when they are loaded. */
static void copy_memory(const struct guest *from, const struct guest *to)
{
	static char page[1 << 20];
	struct gmem a, b;

	lab_check(w.lab, !gmem_open(&a, from, 0, &w.err) && !gmem_open(&b, to, 0, &w.err), "%s",
		  w.err.msg);
	for (uint64_t at = 0; at < a.block.length; at += sizeof(page))
		lab_check(w.lab,
			  !gmem_read(&a, at, page, sizeof(page)) &&
				  !gmem_write(&b, at, page, sizeof(page)),
			  "memory at %lu", at);
	gmem_close(&a);
	gmem_close(&b);
}

/* Nobody's yet, so early. What the guest's memory holds must not be in its state. */
static void fill_some(const struct guest *g)
{
	static char page[1 << 20];
	struct gmem m;

	memset(page, 0x5a, sizeof(page));
	lab_check(w.lab, !gmem_open(&m, g, 0, &w.err), "%s", w.err.msg);
	for (uint64_t at = m.block.length / 2; at < m.block.length / 2 + FILLED; at += sizeof(page))
		lab_check(w.lab, !gmem_write(&m, at, page, sizeof(page)), "memory at %lu", at);
	gmem_close(&m);
}

static int load_into(struct guest *g)
{
	size_t at = 0;

	w.done = false;
	lab_check(w.lab, !guest_load(g, false, NULL, on_done, NULL), "load");
	while (at < w.n) {
		size_t n = MIN(w.n - at, (size_t)65536);
		int r = guest_load_feed(g, w.state + at, n);

		lab_check(w.lab, !r || r == -EAGAIN, "feed: %d", r);
		at += r ? 0 : n;
		if (r)
			spin_until(true, "room");
		if (r)
			event_base_loop(loop_base(w.loop), EVLOOP_ONCE);
	}
	lab_check(w.lab, !guest_load_end(g), "end of the load");
	return wait_done();
}

/*
 * All but the hand-over itself, with a disk that both have: the destination has loaded and waits; the
 * source is told to go on, and must not fail because of the other's lock.
 */
Test(qemu_driver, a_hand_over_is_given_up_after_the_load)
{
	struct lab_vm *twin;
	struct guest *a, *b;

	/* What is written into its memory here can make it reset itself. */
	begin(&(struct lab_vm_opts){
		.mb = 128, .disk = LAB_VM_DISK_WRITEBACK, .disk_mb = 8, .reboots = true});
	twin = lab_vm_twin(w.vm, "b");
	lab_vm_launch(twin);
	lab_until(w.lab, 10000, !access(twin->qmp, F_OK), "no monitor");
	a = attach(w.vm->qmp);
	b = attach(twin->qmp);
	lab_check(w.lab, b->run_state == GUEST_INCOMING, "state");
	lab_check(w.lab, !do_it(guest_pause, a, 5000u), "%s", w.err.msg);
	fill_some(a);
	lab_check(w.lab, !do_it(guest_save, a, on_chunk), "%s", w.err.msg);
	lab_check(w.lab, a->state_bytes == w.n && w.n > 10000 && w.n < FILLED, "%zu bytes of state",
		  w.n);
	fprintf(stderr, "%zu bytes of state\n", w.n);
	copy_memory(a, b);
	lab_check(w.lab, !load_into(b), "%s", w.err.msg);
	lab_check(w.lab, b->run_state == GUEST_PAUSED_MIGRATION, "state");
	lab_check(w.lab, !lab_vm_status(twin, "running"), "it runs by itself");
	lab_check(w.lab, lab_vm_status(w.vm, "postmigrate"), "state of the source");
	lab_check(w.lab, !do_it(guest_resume, a), "%s", w.err.msg);
	lab_check(w.lab, lab_vm_status(w.vm, "running"), "the source does not run");
	spin_until(!noted(w.vm) && !settings_touched(w.vm), "something is left in the source");
	/* Again, and given up in the middle of the save. */
	lab_check(w.lab, !do_it(guest_pause, a, 5000u), "%s", w.err.msg);
	w.n = 0;
	w.done = false;
	lab_check(w.lab, !guest_save(a, on_chunk, on_done, NULL), "save");
	lab_check(w.lab, !guest_resume(a, on_done, NULL), "resume");
	spin_until(lab_vm_status(w.vm, "running"), "it does not go on");
	spin_until(!noted(w.vm) && !settings_touched(w.vm), "something is left in the source");
	guest_free(a);
	guest_free(b);
	lab_vm_end(twin);
	end();
}

/* --- settings that a migration of QEMU's own has left --- */

static void set_caps(struct lab_vm *vm, const char *const names[])
{
	json_t *list = json_array();

	for (; *names; names++)
		json_array_append_new(list,
				      json_pack("{s:s, s:b}", "capability", *names, "state", 1));
	json_decref(lab_vm_qmp(vm, "migrate-set-capabilities",
			       json_pack("{s:o}", "capabilities", list)));
	json_decref(lab_vm_qmp(vm, "migrate-set-parameters",
			       json_pack("{s:s, s:s, s:i}", "tls-creds", "gone", "tls-hostname",
					 "nowhere", "max-bandwidth", 12345678)));
}

/* Return: all of its migration settings, for free(3) */
static char *settings(struct lab_vm *vm)
{
	json_t *both = json_pack("[o, o]", lab_vm_qmp(vm, "query-migrate-capabilities", NULL),
				 lab_vm_qmp(vm, "query-migrate-parameters", NULL));
	char *text = json_dumps(both, JSON_SORT_KEYS);

	json_decref(both);
	return text;
}

static bool settings_are(struct lab_vm *vm, const char *want)
{
	CLEANUP_FREE char *is = settings(vm);

	return !strcmp(is, want) && !noted(vm);
}

/* TLS without its credentials, channels that a pipe has not, a stop in the middle: each would be the end of it. */
Test(qemu_driver, settings_of_its_own_migrations_come_back)
{
	static const char *const there[] = {"multifd", "return-path", "pause-before-switchover",
					    "xbzrle", NULL};
	static const char *const here[] = {"postcopy-ram", "return-path", NULL};
	CLEANUP_FREE char *before = NULL, *before_twin = NULL;
	struct lab_vm *twin;
	struct guest *a, *b;

	begin(&(struct lab_vm_opts){.mb = 128});
	twin = lab_vm_twin(w.vm, "b");
	lab_vm_launch(twin);
	lab_until(w.lab, 10000, !access(twin->qmp, F_OK), "no monitor");
	set_caps(w.vm, there);
	set_caps(twin, here);
	before = settings(w.vm);
	before_twin = settings(twin);
	a = attach(w.vm->qmp);
	b = attach(twin->qmp);
	lab_check(w.lab, !do_it(guest_pause, a, 5000u), "%s", w.err.msg);
	lab_check(w.lab, !do_it(guest_save, a, on_chunk), "%s", w.err.msg);
	copy_memory(a, b);
	lab_check(w.lab, !load_into(b), "%s", w.err.msg);
	lab_check(w.lab, !do_it(guest_resume, a), "%s", w.err.msg);
	spin_until(settings_are(w.vm, before), "the source: %s", settings(w.vm));
	/* It stands until it is let go, and is noted to. */
	lab_check(w.lab, !do_it(guest_resume, b), "%s", w.err.msg);
	spin_until(settings_are(twin, before_twin), "the destination: %s", settings(twin));
	/* The agent dies in the middle: what comes after it puts them back. */
	lab_check(w.lab, !do_it(guest_pause, a, 5000u), "%s", w.err.msg);
	lab_check(w.lab, !guest_save(a, on_chunk, on_done, NULL), "save");
	guest_free(a);
	spin_until(noted(w.vm) && !settings_are(w.vm, before), "nothing was changed");
	a = attach(w.vm->qmp);
	lab_check(w.lab, !do_it(guest_resume, a), "%s", w.err.msg);
	spin_until(settings_are(w.vm, before), "after a death: %s", settings(w.vm));
	guest_free(a);
	guest_free(b);
	lab_vm_end(twin);
	end();
}

static void on_monitor(void *arg)
{
	*(bool *)arg = true;
}

static void on_monitor_closed(void *arg, const struct error *why)
{
	(void)arg;
	lab_check(w.lab, false, "%s", why->msg);
}

static void on_given(void *arg, int ret, const json_t *result, const struct error *err)
{
	(void)result;
	lab_check(w.lab, !ret, "%s", err->msg);
	*(bool *)arg = true;
}

/* As an agent does that dies before it says what it is for. */
static void give(struct lab_vm *vm, const char *name, int fd)
{
	static const struct qmp_ops ops = {.ready = on_monitor, .closed = on_monitor_closed};
	bool ready = false, given = false;
	struct qmp *q;

	lab_check(w.lab, !qmp_open(w.loop, vm->qmp, &ops, &ready, &q, &w.err), "%s", w.err.msg);
	spin_until(ready, "no monitor");
	lab_check(w.lab,
		  !qmp_ask(q, "getfd", json_pack("{s:s}", "fdname", name), fd, 5000, on_given,
			   &given),
		  "getfd");
	spin_until(given, "QEMU does not take it");
	qmp_free(q);
}

static bool open_there(struct lab_vm *vm, const char *before)
{
	CLEANUP_FREE char *now = lab_vm_note(vm);

	return strcmp(now, before) != 0;
}

Test(qemu_driver, what_a_dead_agent_gave_is_closed)
{
	CLEANUP_CLOSE int device = open("/dev/null", O_RDONLY | O_CLOEXEC);
	CLEANUP_FREE char *before = NULL;
	struct guest *g;
	int p[2];

	begin(&(struct lab_vm_opts){.mb = 128});
	g = attach(w.vm->qmp);
	before = lab_vm_note(w.vm);
	guest_free(g);
	lab_check(w.lab, !pipe2(p, O_CLOEXEC), "%m");
	give(w.vm, "decant-state", p[1]);
	give(w.vm, "decant-userfaultfd", device);
	g = attach(w.vm->qmp);
	spin_until(!open_there(w.vm, before), "something stays open: before:\n%s", before);
	guest_free(g);
	close(p[0]);
	close(p[1]);
	end();
}

Test(qemu_driver, its_end_is_told)
{
	struct guest *g;

	lab_test_long();
	begin(&(struct lab_vm_opts){.mb = 128});
	g = attach(w.vm->qmp);
	lab_check(w.lab, !do_it(guest_quit, g), "%s", w.err.msg);
	spin_until(w.gone == 1, "nobody tells");
	lab_check(w.lab, w.how == GUEST_GONE_DEAD, "how %d", w.how);
	lab_check(w.lab, do_it(guest_pause, g, 1000u) == -ECONNRESET, "it can be asked");
	guest_free(g);
	end();
}

Test(qemu_driver, it_is_left_to_another_agent)
{
	struct guest *g;

	lab_test_long();
	begin(&(struct lab_vm_opts){.mb = 128});
	g = attach(w.vm->qmp);
	lab_check(w.lab, !do_it(guest_move, g, "/any/where"), "%s", w.err.msg);
	spin_until(w.gone == 1, "nobody tells");
	lab_check(w.lab, w.how == GUEST_GONE_DISCONNECTED, "how %d", w.how);
	guest_free(g);
	guest_free(attach(w.vm->qmp));
	end();
}
