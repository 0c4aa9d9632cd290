/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks of a VM stay where they are. What the destination's QEMU has opened must be what the source's has, as far as can
 * be seen: else the VM runs on where it is, before anything of it has moved.
 */
#include <string.h>
#include <unistd.h>

#include "lib/lab_test.h"

#define OTHER_SIZE (4 << 20)

/**
 * struct world - two hosts and a VM with a disk
 * @described:	to a's decant-source
 * @link:	another path of its image
 * @small:	another image
 */
struct world {
	struct lab *lab;
	struct lab_host *a, *b;
	struct lab_vm *vm, *twin;
	struct lab_guest g;
	bool described;
	char link[LAB_PATH_MAX + 32], small[LAB_PATH_MAX + 32];
};

/* The word that names the image, changed; without @drive it and its device are left out. */
static void change_drive(json_t *argv, const char *drive)
{
	size_t i = 0;

	while (!strstr(json_string_value(json_array_get(argv, i)), "id=disk0"))
		i++;
	if (drive) {
		json_array_set_new(argv, i, json_string(drive));
		return;
	}
	for (int n = 0; n < 4; n++) /* -drive … -device … */
		json_array_remove(argv, i - 1);
}

static void add_launcher(struct world *w, json_t *all, const char *name, const char *drive,
			 const char *const more[])
{
	json_t *argv = lab_vm_argv(w->twin, "{qmp}");

	change_drive(argv, drive);
	for (; more && *more; more++)
		json_array_append_new(argv, json_string(*more));
	json_array_append_new(argv, json_string("-S"));
	json_object_set_new(all, name, json_pack("{s:s, s:o}", "driver", "qemu", "argv", argv));
}

static const char *drive(const char *image, const char *more)
{
	static char text[LAB_PATH_MAX * 2];

	snprintf(text, sizeof(text), "file=%s,format=raw,if=none,id=disk0%s", image, more);
	return text;
}

static char *launchers(struct world *w)
{
	char second[LAB_PATH_MAX * 2];
	const char *const two[] = {"-drive", second, NULL};
	json_t *all = json_object(), *conf;
	char *text;

	snprintf(second, sizeof(second), "file=%s,format=raw,if=none,id=disk1", w->small);
	add_launcher(w, all, "missing", drive("/nowhere/vm.img", ""), NULL);
	add_launcher(w, all, "size", drive(w->small, ""), NULL);
	add_launcher(w, all, "read-only", drive(w->vm->image, ",readonly=on"), NULL);
	add_launcher(w, all, "none", NULL, NULL);
	add_launcher(w, all, "two", drive(w->link, ""), two);
	conf = json_pack("{s:o}", "launchers", all);
	text = json_dumps(conf, 0);
	json_decref(conf);
	return text;
}

static void make_images(struct world *w)
{
	FILE *f;

	snprintf(w->link, sizeof(w->link), "%s/mounted-elsewhere.img", w->lab->root);
	snprintf(w->small, sizeof(w->small), "%s/small.img", w->lab->root);
	lab_check(w->lab, symlink(w->vm->image, w->link) == 0, "%s: %m", w->link);
	f = fopen(w->small, "we");
	lab_check(w->lab, f && ftruncate(fileno(f), OTHER_SIZE) == 0 && fclose(f) == 0, "%s: %m",
		  w->small);
}

static void begin(struct world *w)
{
	char *conf;

	*w = (struct world){.lab = lab_vm_lab()};
	w->g = (struct lab_guest){.lab = w->lab, .name = "vm"};
	w->vm = lab_vm_start(w->lab, &(struct lab_vm_opts){.mb = 128,
							   .rate = 500,
							   .disk = LAB_VM_DISK_WRITEBACK,
							   .disk_mb = 8});
	w->twin = lab_vm_twin(w->vm, "b");
	make_images(w);
	conf = launchers(w);
	w->a = lab_host_start(w->lab, &(struct lab_host_opts){.name = "a"});
	w->b = lab_host_start(w->lab, &(struct lab_host_opts){.name = "b", .dest_conf = conf});
	free(conf);
}

static void end(struct world *w)
{
	lab_vm_quit(w->vm);
	lab_vm_quit(w->twin);
	lab_end(w->lab);
}

/* `decant add`, with another launcher than the last time. */
static void describe(struct world *w, const char *launcher)
{
	json_t *desc = json_pack("{s:s, s:s, s:s, s:s}", "name", w->g.name, "driver", "qemu", "qmp",
				 w->vm->qmp, "launcher", launcher);
	char path[LAB_PATH_MAX + 16], *err = NULL;
	json_t *entry;
	int status;

	/* Another description is taken of the guest that is known by this identity. */
	if (w->described) {
		entry = lab_get(w->lab, w->a->source_sock, "/v1/guests/vm");
		json_object_set(desc, "uuid", lab_at(entry, "uuid"));
		json_decref(entry);
	}
	w->described = true;
	snprintf(path, sizeof(path), "%s/vm.json", w->lab->root);
	lab_check(w->lab, json_dump_file(desc, path, 0) == 0, "%s: %m", path);
	json_decref(desc);
	status = lab_decant(w->a, 20000, NULL, &err, (const char *[]){"add", path, NULL});
	lab_check(w->lab, status == 0, "decant add: %s", err);
	free(err);
}

static const struct refusal {
	const char *launcher, *code, *says[3];
} refusals[] = {
	{"missing", "guest-gone", {"Could not open '/nowhere/vm.img'"}},
	{"size",
	 "disk-differs",
	 {"disk disk0 is raw of 8388608 bytes at the source", "raw of 4194304 bytes here",
	  "storage that both hosts share"}},
	{"read-only", "disk-differs", {"raw of 8388608 bytes, read-only here"}},
	{"none", "disk-differs", {"disk disk0 (", "is missing here", "the same disks"}},
	{"two", "disk-differs", {"disk disk1 (", "is here and not at the source"}},
};

static void refused(struct world *w, const struct refusal *r)
{
	const struct lab_move how = {
		.exit = strcmp(r->code, "guest-gone") ? 3 : 1, .phase = "failed", .code = r->code};
	struct lab_vm_state state = lab_vm_check(w->vm);
	const char *says;
	json_t *job;

	describe(w, r->launcher);
	job = lab_migrate(w->a, w->b, &w->g, &how);
	says = lab_str(w->lab, job, "error.message");
	fprintf(stderr, "%s: %s\n", r->launcher, says);
	for (size_t i = 0; i < LAB_COUNT(r->says) && r->says[i]; i++)
		lab_check(w->lab, strstr(says, r->says[i]), "no \"%s\" in: %s", r->says[i], says);
	lab_check(w->lab, lab_num(w->lab, job, "memory.sent_bytes") == 0, "it was sent");
	json_decref(job);
	lab_check(w->lab, lab_vm_status(w->vm, "running"), "it does not run");
	lab_vm_goes_on(w->vm, &state);
	lab_until(w->lab, 5000, lab_host_guests(w->b) == 0, "a QEMU is left at the destination");
}

/* What the last launcher has more. */
static void plug(struct world *w)
{
	char line[LAB_PATH_MAX * 2];

	snprintf(line, sizeof(line), "drive_add 0 if=none,id=disk1,format=raw,file=%s", w->small);
	json_decref(lab_vm_qmp(w->vm, "human-monitor-command",
			       json_pack("{s:s}", "command-line", line)));
}

Test(qemu_disks, others_are_refused, .timeout = 120)
{
	const struct lab_move move = {.mode = "hybrid"};
	struct lab_vm_state before;
	struct world w;

	begin(&w);
	lab_vm_do(w.vm, "disk buffered 1 1");
	lab_vm_do(w.vm, "disk write");
	for (size_t i = 0; i < LAB_COUNT(refusals); i++)
		refused(&w, &refusals[i]);
	/*
	 * A disk that comes later is there at both. Where the same storage is mounted is each host's own
	 * matter.
	 */
	plug(&w);
	before = lab_vm_check(w.vm);
	json_decref(lab_migrate(w.a, w.b, &w.g, &move));
	lab_vm_attach(w.twin, 0);
	lab_vm_goes_on(w.twin, &before);
	lab_vm_do(w.twin, "disk stop");
	lab_vm_check(w.twin);
	end(&w);
}
