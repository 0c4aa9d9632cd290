/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the qemu driver leans on in QEMU: device state travels without the RAM and is loaded beside RAM that came
 * another way; a QEMU that waits for it writes nothing into its RAM; a monitor serves one client; which side
 * holds the locks of disk images when a hand-over is abandoned.
 */
#include "platform.h"

#include <sys/stat.h>
#include <sys/un.h>
#include "lib/lab_vm.h"

#define STATE_MS 20000

static void failed(const char *msg)
{
	printf("FAILS   %s\n", msg);
	exit(1);
}

/* --- helpers --- */

static void set_up(struct lab_vm *vm, bool late_activate)
{
	json_t *list = json_pack("[{s:s, s:b}, {s:s, s:b}, {s:s, s:b}]", "capability",
				 "x-ignore-shared", "state", true, "capability", "events", "state",
				 true, "capability", "late-block-activate", "state", late_activate);

	json_decref(lab_vm_qmp(vm, "migrate-set-capabilities",
			       json_pack("{s:o}", "capabilities", list)));
	json_decref(lab_vm_qmp(vm, "migrate-set-parameters",
			       json_pack("{s:I}", "max-bandwidth", (json_int_t)1 << 40)));
}

static bool migration_is(struct lab_vm *vm, const char *status)
{
	json_t *ret = lab_vm_qmp(vm, "query-migrate", NULL);
	const char *now = json_string_value(json_object_get(ret, "status"));
	bool is = now && !strcmp(now, status);

	json_decref(ret);
	return is;
}

/* Pages of the RAM that QEMU says it has sent. */
static long ram_sent(struct lab_vm *vm)
{
	json_t *ret = lab_vm_qmp(vm, "query-migrate", NULL), *ram = json_object_get(ret, "ram");
	long sent = (long)json_integer_value(json_object_get(ram, "transferred"));

	json_decref(ret);
	return sent;
}

/* Stop @from and load its device state into a new QEMU on the very same RAM file. Return: that QEMU, paused */
static struct lab_vm *hand_over(struct lab_vm *from, const char *side, bool late_activate)
{
	struct lab_vm *to = lab_vm_twin(from, side);
	char state[LAB_PATH_MAX + 32];

	snprintf(to->ram, sizeof(to->ram), "%s", from->ram);
	lab_vm_launch(to);
	set_up(from, false);
	set_up(to, late_activate);
	snprintf(state, sizeof(state), "unix:%s/state", to->dir);
	json_decref(lab_vm_qmp(to, "migrate-incoming", json_pack("{s:s}", "uri", state)));
	json_decref(lab_vm_qmp(from, "stop", NULL));
	json_decref(lab_vm_qmp(from, "migrate", json_pack("{s:s}", "uri", state)));
	lab_until(from->lab, STATE_MS, migration_is(from, "completed"), "the state is not sent");
	lab_until(from->lab, STATE_MS, migration_is(to, "completed"), "the state is not loaded");
	return to;
}

/* Its RAM file is not its own: the other one's. */
static void end_borrower(struct lab_vm *vm)
{
	vm->ram[0] = 0;
	lab_vm_end(vm);
}

/* "" if @cmd was obeyed, else what QEMU says; for free(3) */
static char *complaint(struct lab_vm *vm, const char *cmd)
{
	json_t *m = lab_vm_qmp_try(vm, cmd, NULL);
	const char *desc = json_string_value(json_object_get(json_object_get(m, "error"), "desc"));
	char *text = strdup(desc ? desc : "");

	json_decref(m);
	return text;
}

/* --- facts --- */

static int connect_monitor(const char *path)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strncpy(sun.sun_path, path, sizeof(sun.sun_path) - 1);
	must(fd >= 0 && connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0);
	return fd;
}

static bool greets(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) == 1 && (p.revents & POLLIN);
}

static void one_client(struct lab_vm *vm)
{
	int first = connect_monitor(vm->qmp), second;

	fact(greets(first, 5000), "a monitor greets its client");
	second = connect_monitor(vm->qmp);
	fact(!greets(second, 500), "a second client may connect, but is not greeted");
	close(first);
	fact(greets(second, 5000), "it is when the first has gone");
	close(second);
}

static void nothing_written(struct lab_vm *vm)
{
	struct lab_vm *twin = lab_vm_twin(vm, "waits");
	struct stat st;

	lab_vm_launch(twin);
	fact(lab_vm_status(twin, "inmigrate"), "a QEMU with -incoming defer waits");
	must(stat(twin->ram, &st) == 0);
	fact(st.st_size == (off_t)vm->opts.mb << 20 && st.st_blocks == 0,
	     "it has written nothing into its RAM (%ld blocks)", (long)st.st_blocks);
	lab_vm_end(twin);
}

static void locks(struct lab_vm *vm)
{
	struct lab_vm_state before = lab_vm_check(vm);
	struct lab_vm *twin = hand_over(vm, "takes", false);
	char *text = complaint(vm, "cont");

	fact(strstr(text, "lock"),
	     "a destination that has loaded the state holds the image: the source says \"%s\"",
	     text);
	free(text);
	end_borrower(twin);
	text = complaint(vm, "cont");
	fact(!*text, "once that QEMU is dead the source goes on %s", text);
	free(text);
	before = lab_vm_goes_on(vm, &before);

	twin = hand_over(vm, "leaves", true);
	text = complaint(vm, "cont");
	fact(!*text, "with late-block-activate at the destination the source goes on at once %s",
	     text);
	free(text);
	end_borrower(twin);
	lab_vm_goes_on(vm, &before);
}

static void moves(struct lab_vm *vm)
{
	struct lab_vm_state before = lab_vm_check(vm), after;
	struct lab_vm *twin = hand_over(vm, "b", true);

	note("%ld KiB of state were sent", ram_sent(vm) >> 10);
	fact(ram_sent(vm) < 4 << 20, "x-ignore-shared: the RAM is not in the stream");
	fact(lab_vm_status(twin, "paused"), "what was stopped arrives stopped");
	json_decref(lab_vm_qmp(twin, "cont", NULL));
	after = lab_vm_goes_on(twin, &before);
	fact(after.counter > before.counter, "it goes on and verifies: counter %lu, then %lu",
	     before.counter, after.counter);
	end_borrower(twin);
}

int main(void)
{
	struct lab *lab = lab_new(failed);
	struct lab_vm *vm;

	if (lab_vm_missing(lab)) {
		untried("%s", lab_vm_missing(lab));
	} else {
		vm = lab_vm_start(lab, &(struct lab_vm_opts){.mb = 128,
							     .rate = 1000,
							     .disk = LAB_VM_DISK_NONE,
							     .disk_mb = 8});
		note("booted in %lu ms", vm->boot_ms);
		lab_vm_do(vm, "disk direct 1 1");
		lab_vm_do(vm, "disk write");
		one_client(vm);
		nothing_written(vm);
		locks(vm);
		moves(vm);
		lab_vm_end(vm);
	}
	lab_end(lab);
	return facts_end();
}
