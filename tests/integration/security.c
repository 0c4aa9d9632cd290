/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What deploy/SECURITY.md promises of one host: agents give up what they do not need, guests are confined by nothing of
 * that, files and sockets are for those who may use them, and secrets are in no log.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lib/lab_test.h"

TestSuite(security, .timeout = 120);

/* The guest asks for all of its pages when it has arrived: of fewer it would have them in no time. */
#define IN_POSTCOPY_MB 64

/* --- rights --- */

/* What the kernel says of one thread: /proc/PID/task/TID/status. Return: NULL if it has ended; to be freed */
static char *thread_status(pid_t pid, const char *tid)
{
	char path[300];

	snprintf(path, sizeof(path), "/proc/%d/task/%s/status", pid, tid);
	return lab_read_file(path);
}

/* Return: the text behind "KEY:", until the next call */
static const char *value_of(struct lab *lab, const char *status, const char *key)
{
	static char value[128];
	const char *at;
	char name[64];

	snprintf(name, sizeof(name), "\n%s:", key);
	at = status ? strstr(status, name) : NULL;
	lab_check(lab, at, "no %s in %s", key, status ? status : "what is not there");
	for (at += strlen(name); isspace((unsigned char)*at);)
		at++;
	snprintf(value, sizeof(value), "%.*s", (int)strcspn(at, "\n"), at);
	return value;
}

static uint64_t caps_of(struct lab *lab, const char *status, const char *set)
{
	return strtoull(value_of(lab, status, set), NULL, 16);
}

#define BIT(cap) (UINT64_C(1) << (cap))
/* KILL, DAC_OVERRIDE, SYS_PTRACE, SYS_NICE, CHECKPOINT_RESTORE; and CHOWN */
#define SOURCE_CAPS (BIT(5) | BIT(1) | BIT(19) | BIT(23) | BIT(40))
#define DEST_CAPS   (SOURCE_CAPS | BIT(0))

static void thread_has_only(struct lab *lab, const char *status, uint64_t caps, bool for_good)
{
	lab_check(lab, !(caps_of(lab, status, "CapEff") & ~caps), "CapEff %s",
		  value_of(lab, status, "CapEff"));
	lab_check(lab, !(caps_of(lab, status, "CapPrm") & ~caps), "CapPrm");
	lab_check(lab, !caps_of(lab, status, "CapInh"), "CapInh");
	lab_check(lab, !caps_of(lab, status, "CapAmb"), "CapAmb");
	if (!for_good)
		return;
	lab_check(lab, !(caps_of(lab, status, "CapBnd") & ~caps), "CapBnd");
	lab_check(lab, !strcmp(value_of(lab, status, "NoNewPrivs"), "1"), "it may gain privileges");
	lab_check(lab, !strcmp(value_of(lab, status, "Seccomp"), "2"),
		  "system calls are not filtered");
}

/* Each of its threads, which is where capabilities and filters are; some last for one thing to be done. */
static void has_only(struct lab *lab, pid_t pid, uint64_t caps, bool for_good)
{
	char path[64];
	struct dirent *e;
	DIR *d;
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	lab_check(lab, d, "%s", path);
	while ((e = readdir(d))) {
		char *status = e->d_name[0] == '.' ? NULL : thread_status(pid, e->d_name);

		if (status && *status) {
			n++;
			thread_has_only(lab, status, caps, for_good);
		}
		free(status);
	}
	closedir(d);
	lab_check(lab, n > 0, "no threads");
}

/* What a guest has is what it would have without decant. */
static void is_as_we_are(struct lab *lab, pid_t pid)
{
	static const char *const keys[] = {"CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp"};
	char tid[16], own[16], expected[128], *ours, *its;

	snprintf(tid, sizeof(tid), "%d", pid);
	snprintf(own, sizeof(own), "%d", getpid());
	ours = thread_status(getpid(), own);
	its = thread_status(pid, tid);
	for (size_t i = 0; i < LAB_COUNT(keys); i++) {
		snprintf(expected, sizeof(expected), "%s", value_of(lab, ours, keys[i]));
		lab_check(lab, !strcmp(value_of(lab, its, keys[i]), expected), "%s: %s, not %s",
			  keys[i], value_of(lab, its, keys[i]), expected);
	}
	free(ours);
	free(its);
}

Test(security, agents_give_up_what_they_do_not_need)
{
	struct lab_move move = {.mode = "postcopy", .args = {"--bandwidth", "40Mbit"}};
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab_proc *p;
	struct lab *lab;

	if (geteuid())
		cr_skip_test("only root has something to give up");
	setenv("DECANT_LOG", "debug", 1);
	lab = lab_test_pair(&a, &b);
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = IN_POSTCOPY_MB, .threads = 2});
	p = lab_migrate_begin(a, b, g, &move);
	lab_until(lab, 20000, lab_job_phase_is(a, "postcopy"), "postcopy was not reached");
	/* In the middle, when all kinds of threads are there. */
	has_only(lab, a->source->pid, SOURCE_CAPS, true);
	has_only(lab, b->dest->pid, DEST_CAPS, false);
	is_as_we_are(lab, lab_guest_pid(g, b));
	/* No other process can be asked for that. */
	lab_check(lab,
		  lab_proc_said(lab, a->source, "memory cannot be dumped") &&
			  lab_proc_said(lab, b->dest, "memory cannot be dumped"),
		  "their memory can be dumped");
	json_decref(lab_migrate_end(a, p, &move));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

Test(security, a_dest_that_starts_nothing_gives_up_all)
{
	struct lab *lab;
	struct lab_host *a;
	json_t *conf;

	if (geteuid())
		cr_skip_test("only root has something to give up");
	lab = lab_new(lab_test_failed);
	a = lab_host_new(lab, &(struct lab_host_opts){.name = "a"});
	conf = json_load_file(lab_host_path(a, "dest.json"), 0, NULL);
	json_object_del(conf, "launchers");
	json_dump_file(conf, lab_host_path(a, "dest.json"), 0);
	json_decref(conf);
	lab_host_source_start(a);
	lab_host_dest_start(a);
	has_only(lab, a->dest->pid, DEST_CAPS, true);
	lab_end(lab);
}

/* --- files --- */

/* Whatever the umask: nothing is for everybody, sockets are for the group. */
static void check_tree(struct lab *lab, const char *path, bool *ret_socket)
{
	DIR *d = opendir(path);
	struct dirent *e;
	struct stat st;

	lab_check(lab, d && !stat(path, &st), "%s", path);
	lab_check(lab, !(st.st_mode & 027), "folder %s: %04o", path, st.st_mode & 07777);
	while ((e = readdir(d))) {
		char name[LAB_PATH_MAX + 300];

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
		if (lstat(name, &st))
			continue;
		if (S_ISDIR(st.st_mode)) {
			check_tree(lab, name, ret_socket);
			continue;
		}
		lab_check(lab, !(st.st_mode & 07), "%s: %04o", name, st.st_mode & 07777);
		lab_check(lab, S_ISSOCK(st.st_mode) || !(st.st_mode & 020), "%s: %04o", name,
			  st.st_mode & 07777);
		*ret_socket |= S_ISSOCK(st.st_mode);
	}
	closedir(d);
}

static void mode_is(struct lab *lab, const char *path, mode_t mode)
{
	struct stat st;

	lab_check(lab, !lstat(path, &st), "%s is not there", path);
	lab_check(lab, (st.st_mode & 07777) == mode, "%s: %04o, not %04o", path, st.st_mode & 07777,
		  mode);
}

/* The lab makes them otherwise. */
static struct lab_host *with_its_own_folders(struct lab *lab, const char *name)
{
	struct lab_host *h = lab_host_new(lab, &(struct lab_host_opts){.name = name});

	lab_check(lab, !rmdir(lab_host_path(h, "run")) && !rmdir(lab_host_path(h, "state")), "%m");
	lab_host_source_start(h);
	lab_host_dest_start(h);
	return h;
}

Test(security, files_are_for_those_who_may_use_them)
{
	struct lab_move move = {.mode = "postcopy", .args = {"--bandwidth", "40Mbit"}};
	struct lab_host *a, *b;
	struct lab_guest *g;
	struct lab_proc *p;
	struct lab *lab;
	bool sockets = false;

	umask(0);
	lab = lab_new(lab_test_failed);
	a = with_its_own_folders(lab, "a");
	b = with_its_own_folders(lab, "b");
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = IN_POSTCOPY_MB, .threads = 2});
	p = lab_migrate_begin(a, b, g, &move);
	lab_until(lab, 20000, lab_job_phase_is(a, "postcopy"), "postcopy was not reached");
	lab_decant(a, 10000, NULL, NULL, (const char *[]){"bandwidth", "unlimited", NULL});
	for (int i = 0; i < 2; i++) {
		struct lab_host *h = i ? b : a;

		check_tree(lab, lab_host_path(h, "state"), &sockets);
		check_tree(lab, lab_host_path(h, "run"), &sockets);
		mode_is(lab, h->source_sock, 0660);
		mode_is(lab, h->dest_sock, 0660);
		mode_is(lab, h->attach, 0660);
	}
	json_decref(lab_migrate_end(a, p, &move));
	lab_guest_arrived(g, b);
	lab_end(lab);
}

/* Somebody who is neither root nor of the group. */
Test(security, a_local_user_may_ask_nothing)
{
	struct lab_host *a, *b;
	char command[3 * LAB_PATH_MAX], *err;
	struct lab *lab;
	int r;

	if (geteuid())
		cr_skip_test("needs root to be somebody else");
	lab = lab_test_pair(&a, &b);
	chmod(lab->root, 0755);
	chmod(a->dir, 0755);
	for (int i = 0; i < 2; i++) {
		snprintf(command, sizeof(command),
			 "exec setpriv --reuid=65534 --regid=65534 --clear-groups %s/%s --api "
			 "unix:%s %s",
			 lab->build, i ? "decant-dest" : "decant",
			 i ? a->dest_sock : a->source_sock, i ? "incoming" : "guests");
		r = lab_run(lab, NULL, 20000, NULL, &err,
			    (const char *[]){"/bin/sh", "-c", command, NULL});
		lab_check(lab, r != 0 && strstr(err, "denied"), "%d: %s", r, err);
		free(err);
	}
	lab_end(lab);
}

static void refuses_to_start(struct lab_host *h, const char *agent, const char *what)
{
	char program[LAB_PATH_MAX + 32], config[LAB_PATH_MAX + 32], *err;
	struct lab_proc *p;

	snprintf(program, sizeof(program), "%s/decant-%s", h->lab->build, agent);
	snprintf(config, sizeof(config), "%s/%s.json", h->dir, agent);
	p = lab_spawn(h->lab, NULL, agent,
		      (const char *[]){program, "serve", "--config", config, NULL});
	lab_until(h->lab, 20000, !lab_proc_alive(p) || lab_proc_said(h->lab, p, " serves"),
		  "%s neither ends nor serves", agent);
	err = lab_proc_text(h->lab, p, "err");
	lab_check(h->lab, !p->pid && p->status == 2 && strstr(err, what) && strstr(err, "chmod"),
		  "%s: %d: %s", agent, p->status, err);
	free(err);
}

Test(security, keys_that_others_can_read_are_refused)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a = lab_host_new(lab, &(struct lab_host_opts){.name = "a"});

	chmod(lab_host_path(a, "source.key"), 0644);
	refuses_to_start(a, "source", "source.key");
	chmod(lab_host_path(a, "dest.key"), 0604);
	refuses_to_start(a, "dest", "dest.key");
	lab_end(lab);
}

/* --- secrets --- */

/* The middle of the key, which is one long line of base64 or several. */
static void not_in_logs(struct lab *lab, const char *secret, const char *what)
{
	for (size_t i = 0; i < lab->n_procs; i++) {
		lab_check(lab, !lab_proc_said(lab, lab->procs[i], secret), "%s is in the log of %s",
			  what, lab->procs[i]->name);
	}
}

/* DECANT_INCOMING of a guest that was launched; for free(3) */
static char *token_of(struct lab *lab, pid_t pid)
{
	char path[64], text[65536], *at = text;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/environ", pid);
	f = fopen(path, "re");
	lab_check(lab, f, "%s", path);
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	while (at < text + n && strncmp(at, "DECANT_INCOMING=", 16) != 0)
		at += strlen(at) + 1;
	lab_check(lab, at < text + n && strlen(at) > 16 + 16, "it has no token");
	return strdup(at + 16);
}

static void no_key_in_logs(struct lab *lab, const char *path)
{
	char *text = lab_read_file(path), *save = NULL;

	lab_check(lab, text, "%s", path);
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
		if (strlen(l) > 20 && l[0] != '-')
			not_in_logs(lab, l, path);
	free(text);
}

Test(security, secrets_are_in_no_log)
{
	static const char token[] = "0123456789abcdef-a-secret-of-a-client";
	struct lab_host *a, *b;
	char *launched, conf[3 * LAB_PATH_MAX], tokens[LAB_PATH_MAX + 16], line[256], *out;
	unsigned int port;
	struct lab_guest *g;
	struct lab *lab;

	setenv("DECANT_LOG", "debug", 1);
	lab = lab_new(lab_test_failed);
	port = lab_free_port(lab);
	snprintf(tokens, sizeof(tokens), "%s/tokens", lab->root);
	snprintf(line, sizeof(line), "operator ci %s\n", token);
	lab_write_file(lab, tokens, line);
	chmod(tokens, 0600);
	snprintf(conf, sizeof(conf),
		 "{\"api\": {\"listen\": [\"unix:%s/a/source.sock\", \"http://127.0.0.1:%u\"], "
		 "\"token_file\": \"%s\"}}",
		 lab->root, port, tokens);
	a = lab_host_start(lab, &(struct lab_host_opts){.name = "a", .source_conf = conf});
	b = lab_host_start(lab, &(struct lab_host_opts){.name = "b"});
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 16, .threads = 2});
	json_decref(lab_migrate(a, b, g, &(struct lab_move){.mode = "hybrid"}));
	lab_guest_arrived(g, b);
	lab_check(lab, lab_proc_said(lab, b->dest, "debug"), "nothing is logged at all");
	/* One that is right, and one that is not, but nearly. */
	for (int i = 0; i < 2; i++) {
		snprintf(conf, sizeof(conf),
			 "exec 3<>/dev/tcp/127.0.0.1/%u; printf 'GET /v1/guests HTTP/1.0\\r\\n"
			 "Authorization: Bearer %s%s\\r\\n\\r\\n' >&3; head -1 <&3",
			 port, token, i ? "x" : "");
		lab_run(lab, NULL, 20000, &out, NULL,
			(const char *[]){"/bin/bash", "-c", conf, NULL});
		lab_check(lab, strstr(out, i ? " 401 " : " 200 "), "%s", out);
		free(out);
	}
	not_in_logs(lab, token, "the token of a client");
	launched = token_of(lab, lab_guest_pid(g, b));
	not_in_logs(lab, launched, "the token of the guest");
	free(launched);
	no_key_in_logs(lab, lab_host_path(a, "source.key"));
	no_key_in_logs(lab, lab_host_path(b, "dest.key"));
	lab_end(lab);
}
