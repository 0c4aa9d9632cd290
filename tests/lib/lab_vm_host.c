/* SPDX-License-Identifier: Apache-2.0 */
/* VMs as decant's agents are told of them. */
#include <stdlib.h>
#include <string.h>
#include "lib/lab_vm.h"

char *lab_vm_launcher(struct lab_vm *vm)
{
	json_t *argv = lab_vm_argv(vm, "{qmp}"), *conf;
	char *text;

	/* Loaded, it waits for the word of decant-dest. */
	json_array_append_new(argv, json_string("-S"));
	conf = json_pack("{s:{s:{s:s, s:o}}}", "launchers", "vm", "driver", "qemu", "argv", argv);
	text = json_dumps(conf, 0);
	json_decref(conf);
	return text;
}

void lab_vm_add(struct lab_host *h, struct lab_vm *vm)
{
	json_t *desc = json_pack("{s:s, s:s, s:s, s:s}", "name", vm->opts.name, "driver", "qemu",
				 "qmp", vm->qmp, "launcher", "vm");
	char path[LAB_PATH_MAX + 16], *err = NULL;
	int status;

	snprintf(path, sizeof(path), "%s/vm.json", vm->dir);
	lab_check(h->lab, json_dump_file(desc, path, 0) == 0, "%s: %m", path);
	json_decref(desc);
	status = lab_decant(h, 20000, NULL, &err, (const char *[]){"add", path, NULL});
	lab_check(h->lab, status == 0, "decant add ended with %d: %s", status, err);
	free(err);
}
