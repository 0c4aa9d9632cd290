/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What decant may have left in a QEMU: its process as the kernel shows it, and the objects and named
 * descriptors that QEMU itself knows of.
 */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_vm.h"

#define LINKS_MAX 512

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* "NUMBER LINK", sorted; numbers in links are those of sockets and pipes, which tests open, too. */
static void note_fds(struct lab_vm *vm, FILE *out)
{
	char dir[64], link[512], *lines[LINKS_MAX];
	struct dirent *e;
	size_t n = 0;
	DIR *d;

	snprintf(dir, sizeof(dir), "/proc/%d/fd", vm->pid);
	d = opendir(dir);
	lab_check(vm->lab, d, "%s: %m", dir);
	while ((e = readdir(d))) {
		ssize_t len = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);

		if (len <= 0)
			continue;
		link[len] = '\0';
		link[strcspn(link, "[0123456789")] = '\0';
		lab_check(vm->lab, n < LINKS_MAX, "too many descriptors");
		lab_check(vm->lab, asprintf(&lines[n++], "%s %s", e->d_name, link) > 0, "memory");
	}
	closedir(d);
	qsort(lines, n, sizeof(lines[0]), by_text);
	for (size_t i = 0; i < n; i++) {
		fprintf(out, "fd %s\n", lines[i]);
		free(lines[i]);
	}
}

static bool is_ram(const struct lab_vm *vm, const char *line)
{
	return (*vm->ram && strstr(line, vm->ram)) || strstr(line, "/memfd:");
}

/* "um" and "uw" among the flags are registrations with a userfaultfd, "nh" and "hg" advice. */
static void note_memory(struct lab_vm *vm, FILE *out)
{
	char path[64], line[1024];
	bool ram = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", vm->pid);
	f = fopen(path, "re");
	lab_check(vm->lab, f, "%s: %m", path);
	while (fgets(line, sizeof(line), f)) {
		if (strspn(line, "0123456789abcdef") == strcspn(line, "-")) {
			ram = is_ram(vm, line);
			if (ram)
				fputs(line, out);
		} else if (ram && !strncmp(line, "VmFlags:", 8)) {
			fputs(line, out);
		}
	}
	fclose(f);
}

/* Return: whether there is a note that it stands for decant; that is no part of the text. */
static bool note_objects(struct lab_vm *vm, FILE *out)
{
	json_t *list = lab_vm_qmp(vm, "qom-list", json_pack("{s:s}", "path", "/objects")), *o;
	json_t *caps = lab_vm_qmp(vm, "query-migrate-capabilities", NULL);
	bool held = false;
	size_t i;

	json_array_foreach(list, i, o) {
		const char *name = json_string_value(json_object_get(o, "name"));

		if (!strcmp(name, "decant-hold"))
			held = true;
		else
			fprintf(out, "object %s\n", name);
	}
	json_dumpf(caps, out, JSON_SORT_KEYS);
	json_decref(list);
	json_decref(caps);
	return held;
}

static char *note(struct lab_vm *vm, bool *ret_held)
{
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);

	lab_check(vm->lab, out, "out of memory");
	note_fds(vm, out);
	note_memory(vm, out);
	*ret_held = note_objects(vm, out);
	fclose(out);
	lab_check(vm->lab, strstr(text, "VmFlags:"), "its memory is not found:\n%s", text);
	return text;
}

char *lab_vm_note(struct lab_vm *vm)
{
	bool held;

	return note(vm, &held);
}

/* What is said of one thread behind "NAME:" in its status. */
static void status_of(struct lab_vm *vm, const char *tid, const char *name, char out[static 24])
{
	char path[64], *text, *at;

	*out = '\0';
	snprintf(path, sizeof(path), "/proc/%d/task/%.12s/status", vm->pid, tid);
	text = lab_read_file(path);
	at = text ? strstr(text, name) : NULL;
	if (at)
		sscanf(at + strlen(name), ": %23s", out);
	free(text);
}

/* Threads of its I/O pool come and go: what they are in is looked at, not how many there are. */
static void check_threads(struct lab_vm *vm)
{
	char dir[64], is[24];
	struct dirent *e;
	DIR *d;

	snprintf(dir, sizeof(dir), "/proc/%d/task", vm->pid);
	d = opendir(dir);
	lab_check(vm->lab, d, "%s: %m", dir);
	while ((e = readdir(d))) {
		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		status_of(vm, e->d_name, "\nTracerPid", is);
		lab_check(vm->lab, !*is || !strcmp(is, "0"), "thread %s is traced by %s", e->d_name,
			  is);
		status_of(vm, e->d_name, "\nState", is);
		lab_check(vm->lab, !*is || strchr("SRDXZ", *is), "thread %s is in state %s",
			  e->d_name, is);
		status_of(vm, e->d_name, "\nSigBlk", is);
		lab_check(vm->lab, strcmp(is, "fffffffffffbfeef") != 0,
			  "thread %s has its signals blocked", e->d_name);
	}
	closedir(d);
}

void lab_vm_left_nothing(struct lab_vm *vm, const char *before)
{
	uint64_t end = lab_now_ms() + (uint64_t)LAB_LEAST_MS * vm->lab->slow;
	bool held, runs = lab_vm_status(vm, "running");
	char *now = note(vm, &held);

	/* The end of the job is told before QEMU has carried out the last of it. */
	while ((strcmp(now, before) != 0 || held == runs) && lab_now_ms() < end) {
		free(now);
		usleep(20000);
		runs = lab_vm_status(vm, "running");
		now = note(vm, &held);
	}
	/* A message of the lab's is short. */
	if (strcmp(now, before) != 0)
		fprintf(stderr, "%s: before:\n%s\nnow:\n%s\n", vm->dir, before, now);
	lab_check(vm->lab, !strcmp(now, before), "%s: something is left in QEMU", vm->dir);
	lab_check(vm->lab, held != runs, "it runs: %d, and is noted as held: %d", runs, held);
	free(now);
	check_threads(vm);
}
