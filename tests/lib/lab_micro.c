/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/lab_job.h"
#include "lib/lab_micro.h"

#define PAGE 4096ul

/* --- the host, its command, its files --- */

struct lab_host *micro_host(struct lab *lab)
{
	return lab_host_start(lab, &(struct lab_host_opts){.name = "b", .no_source = true});
}

int micro_command(struct lab_host *b, char **ret_out, char **ret_err, const char *const args[])
{
	char program[LAB_PATH_MAX + 32], api[LAB_PATH_MAX + 16];
	const char *argv[16] = {program, "--api", api};
	size_t n = 3;

	snprintf(program, sizeof(program), "%s/decant-dest", b->lab->build);
	snprintf(api, sizeof(api), "unix:%s", b->dest_sock);
	for (size_t i = 0; args[i]; i++)
		argv[n++] = args[i];
	return lab_run(b->lab, b->ns, 60000, ret_out, ret_err, argv);
}

/* Pages of data, some of them empty, and a hole. */
void micro_memory(struct lab_host *b, const char *file, size_t size)
{
	int fd = open(lab_host_path(b, file), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint8_t page[PAGE];

	lab_check(b->lab, fd >= 0 && !ftruncate(fd, (off_t)size), "%s: %m", file);
	for (size_t at = 0; at < size; at += PAGE) {
		size_t i = at / PAGE;

		if (i % 7 == 3 || (at >= size / 2 && at < size / 2 + size / 8))
			continue;
		memset(page, (int)(i * 31 + i / 251) | 1, sizeof(page));
		memcpy(page, &i, sizeof(i));
		lab_check(b->lab, pwrite(fd, page, PAGE, (off_t)at) == PAGE, "%s: %m", file);
	}
	close(fd);
}

void micro_import(struct lab_host *b, const char *file, const char *name)
{
	char *out = NULL, *err = NULL;
	json_t *o;

	lab_check(b->lab,
		  !micro_command(b, &out, &err,
				 (const char *const[]){"import", "--memory", lab_host_path(b, file),
						       "--name", name, "--json", NULL}),
		  "import: %s", err);
	o = json_loads(out, 0, NULL);
	lab_check(b->lab, o && !strcmp(lab_str(b->lab, o, "phase"), "completed"), "%s", out);
	lab_check(b->lab, !strcmp(lab_str(b->lab, o, "driver"), "uffd"), "%s", out);
	json_decref(o);
	free(out);
	free(err);
}

/* `decant-dest uffd`. Return: id, for free(3) */
char *micro_uffd(struct lab_host *b, const char *name, const char *sock)
{
	char *out = NULL, *err = NULL, *id;
	json_t *o;

	lab_check(b->lab,
		  !micro_command(b, &out, &err,
				 (const char *const[]){"uffd", name, "--socket",
						       lab_host_path(b, sock), "--json", NULL}),
		  "uffd: %s", err);
	o = json_loads(out, 0, NULL);
	lab_check(b->lab, o && !strcmp(lab_str(b->lab, o, "phase"), "listening"), "%s", out);
	id = strdup(lab_str(b->lab, o, "id"));
	json_decref(o);
	free(out);
	free(err);
	return id;
}

static json_t *incoming(struct lab_host *b, const char *id)
{
	char path[128];

	snprintf(path, sizeof(path), "/v1/incoming/%s", id);
	return lab_get(b->lab, b->dest_sock, path);
}

bool micro_phase_is(struct lab_host *b, const char *id, const char *phase)
{
	json_t *o = incoming(b, id);
	bool is = !strcmp(lab_str(b->lab, o, "phase"), phase);

	json_decref(o);
	return is;
}

bool micro_code_is(struct lab_host *b, const char *id, const char *code)
{
	json_t *o = incoming(b, id);
	const json_t *is = lab_at(o, "error.code");
	bool same = json_is_string(is) && !strcmp(json_string_value(is), code);

	if (!same)
		printf("%s\n", json_is_string(is) ? json_string_value(is) : "no error");
	json_decref(o);
	return same;
}

bool micro_message_has(struct lab_host *b, const char *id, const char *what)
{
	json_t *o = incoming(b, id);
	const json_t *is = lab_at(o, "error.message");
	bool has = json_is_string(is) && strstr(json_string_value(is), what);

	if (!has)
		printf("%s\n", json_is_string(is) ? json_string_value(is) : "no error");
	json_decref(o);
	return has;
}

double micro_number(struct lab_host *b, const char *id, const char *path)
{
	json_t *o = incoming(b, id);
	double n = lab_num(b->lab, o, path);

	json_decref(o);
	return n;
}

/* --- the micro-VM --- */

struct lab_proc *micro_start(struct lab_host *b, const char *name, const char *sock,
			     const char *memory, const char *const options[])
{
	char program[LAB_PATH_MAX + 32], path[LAB_PATH_MAX + 64], mem[LAB_PATH_MAX + 64];
	const char *argv[16] = {program, path, mem};
	size_t n = 3;

	snprintf(program, sizeof(program), "%s/guests/microvm", b->lab->tests);
	snprintf(path, sizeof(path), "%s", lab_host_path(b, sock));
	snprintf(mem, sizeof(mem), "%s", lab_host_path(b, memory));
	for (size_t i = 0; options && options[i]; i++)
		argv[n++] = options[i];
	return lab_spawn(b->lab, b->ns, name, argv);
}

bool micro_said(struct lab_host *b, const struct lab_proc *p, const char *text)
{
	char *out = lab_proc_text(b->lab, p, "out");
	bool said = out && strstr(out, text);

	lab_check(b->lab, !out || !strstr(out, "wrong"), "%s", out);
	free(out);
	return said;
}

void micro_ok(struct lab_host *b, struct lab_proc *p)
{
	lab_until(b->lab, 30000, micro_said(b, p, "ok\n"),
		  "the micro-VM has not seen all its pages");
}

static bool has_ended(struct lab_host *b, const char *id)
{
	json_t *o = incoming(b, id);
	bool is = json_is_string(lab_at(o, "ended_at"));

	json_decref(o);
	return is;
}

void micro_end(struct lab_host *b, struct lab_proc *p, const char *id, const char *phase)
{
	/* That it has seen its last page is known here a moment later. */
	if (!strcmp(phase, "completed"))
		lab_until(b->lab, 10000, micro_phase_is(b, id, phase),
			  "its pages are not all there");
	lab_proc_kill(b->lab, p);
	lab_until(b->lab, 5000, micro_phase_is(b, id, phase) && has_ended(b, id),
		  "its end is not noticed");
}

void micro_refused(struct lab_host *b, int exit, const char *why, const char *const args[])
{
	char *err = NULL;
	int r = micro_command(b, NULL, &err, args);

	lab_check(b->lab, r == exit, "%s: %d: %s", args[0], r, err);
	lab_check(b->lab, strstr(err, why) != NULL, "%s: %s", args[0], err);
	free(err);
}
