/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lib/lab_guest.h"
#include "lib/lab_job.h"

#define START_MS 10000
#define STOP_MS  10000

/* Of the kernel's own choice one is soon another's: every connection of other tests takes the next. */
uint16_t lab_free_port(struct lab *lab)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	uint16_t port;
	int fd, r = -1;

	for (int i = 0; r < 0 && i < 100; i++) {
		lab_check(lab, getrandom(&port, sizeof(port), 0) == sizeof(port), "getrandom: %m");
		port = (uint16_t)(10000 + port % 20000);
		sin.sin_port = htons(port);
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		lab_check(lab, fd >= 0, "socket: %m");
		r = bind(fd, (struct sockaddr *)&sin, sizeof(sin));
		close(fd);
	}
	lab_check(lab, r == 0, "no port is free");
	return port;
}

/* --- configurations --- */

/* Objects of @over are merged into those of @conf, other values replace them. */
static void merge(json_t *conf, json_t *over)
{
	const char *key;
	json_t *value;

	json_object_foreach(over, key, value) {
		json_t *old = json_object_get(conf, key);

		if (json_is_object(old) && json_is_object(value))
			merge(old, value);
		else
			json_object_set(conf, key, value);
	}
}

static void write_conf(struct lab_host *h, const char *agent, json_t *conf, const char *over_text)
{
	char path[LAB_PATH_MAX + 64];

	lab_check(h->lab, conf, "configuration of %s", agent);
	if (over_text) {
		json_t *over = json_loads(over_text, 0, NULL);

		lab_check(h->lab, over, "not JSON: %s", over_text);
		merge(conf, over);
		json_decref(over);
	}
	snprintf(path, sizeof(path), "%s/%s.json", h->dir, agent);
	lab_check(h->lab, json_dump_file(conf, path, JSON_INDENT(2)) == 0, "%s: %m", path);
	json_decref(conf);
}

static json_t *tls_conf(struct lab_host *h, const char *agent)
{
	return json_pack("{s:o, s:o, s:o}", "ca", json_sprintf("%s/%s.ca", h->dir, agent), "cert",
			 json_sprintf("%s/%s.cert", h->dir, agent), "key",
			 json_sprintf("%s/%s.key", h->dir, agent));
}

static json_t *source_conf(struct lab_host *h)
{
	/* Agents of protocol version 1 have no such key. */
	json_t *dest_api =
		strstr(h->build, "/frozen/") ? NULL : json_sprintf("unix:%s", h->dest_sock);

	return json_pack("{s:{s:[o]}, s:o, s:s, s:o, s:o, s:o*}", "api", "listen",
			 json_sprintf("unix:%s", h->source_sock), "tls", tls_conf(h, "source"),
			 "attach", h->attach, "run_dir", json_sprintf("%s/run", h->dir),
			 "state_dir", json_sprintf("%s/state", h->dir), "dest_api", dest_api);
}

static json_t *dest_conf(struct lab_host *h, const char *allow)
{
	json_t *allowed = json_loads(allow ? allow : "[\"DNS:host-a\", \"DNS:host-b\"]", 0, NULL);

	return json_pack(
		"{s:s, s:o, s:{s:[o]}, s:o, s:o, s:o, s:o, s:o, s:o}", "listen", h->to, "allow",
		allowed, "api", "listen", json_sprintf("unix:%s", h->dest_sock), "tls",
		tls_conf(h, "dest"), "attach", json_sprintf("%s/dest.attach", h->dir), "run_dir",
		json_sprintf("%s/run", h->dir), "state_dir", json_sprintf("%s/state", h->dir),
		"source_api", json_sprintf("unix:%s", h->source_sock), "launchers",
		lab_guest_launchers(h));
}

void lab_host_identity(struct lab_host *h, const char *agent, const char *identity)
{
	static const char *const what[] = {"ca", "cert", "key"};
	char from[LAB_PATH_MAX + 64], to[LAB_PATH_MAX + 64];

	for (size_t i = 0; i < 3; i++) {
		char *text;

		snprintf(from, sizeof(from), "%s/%s.%s", h->lab->certs, identity, what[i]);
		snprintf(to, sizeof(to), "%s/%s.%s", h->dir, agent, what[i]);
		text = lab_read_file(from);
		lab_check(h->lab, text, "%s: %m", from);
		lab_write_file(h->lab, to, text);
		chmod(to, 0600);
		free(text);
	}
}

static bool guest_ready(struct lab_host *h, const char *path)
{
	char *body = NULL;
	bool ready = false;
	json_t *o;

	if (lab_http(h->source_sock, "GET", path, NULL, &body) == 200) {
		o = json_loads(body, 0, NULL);
		ready = o && json_is_true(lab_at(o, "attached")) &&
			(!strcmp(lab_str(h->lab, o, "state"), "running") ||
			 !strcmp(lab_str(h->lab, o, "state"), "paused"));
		json_decref(o);
	}
	free(body);
	return ready;
}

const char *lab_host_path(struct lab_host *h, const char *file)
{
	snprintf(h->path, sizeof(h->path), "%s/%s", h->dir, file);
	return h->path;
}

void lab_host_knows(struct lab_host *h, const char *guest)
{
	char path[LAB_NAME_MAX + 32];

	snprintf(path, sizeof(path), "/v1/guests/%s", guest);
	lab_until(h->lab, 10000, guest_ready(h, path), "host %s does not know %s", h->name, guest);
}

/* Processes that decant-dest launched: they were told its attach socket. */
unsigned int lab_host_guests(struct lab_host *h)
{
	char want[LAB_PATH_MAX + 64], path[64];
	DIR *d = opendir("/proc");
	struct dirent *e;
	unsigned int n = 0;

	snprintf(want, sizeof(want), "DECANT_ATTACH=%s/dest.attach", h->dir);
	while ((e = readdir(d))) {
		char *env;

		snprintf(path, sizeof(path), "/proc/%.20s/environ", e->d_name);
		env = lab_read_file(path);
		for (char *at = env; at && *at; at += strlen(at) + 1)
			n += !strcmp(at, want);
		free(env);
	}
	closedir(d);
	return n;
}

bool lab_port_open(struct lab_host *h)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(h->port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool open;

	inet_pton(AF_INET, h->address, &sin.sin_addr);
	open = connect(fd, (struct sockaddr *)&sin, sizeof(sin)) == 0;
	close(fd);
	return open;
}

/* --- agents --- */

static bool answers(const char *sock)
{
	return lab_http(sock, "GET", "/v1/health", NULL, NULL) == 200;
}

static struct lab_proc *start_agent(struct lab_host *h, const char *agent, const char *sock,
				    const char *fault)
{
	char program[LAB_PATH_MAX + 64], conf[LAB_PATH_MAX + 64], name[LAB_NAME_MAX];
	const char *const argv[] = {program, "serve", "--config", conf, NULL};
	struct lab_proc *p;

	snprintf(program, sizeof(program), "%s/decant-%s", h->build, agent);
	snprintf(conf, sizeof(conf), "%s/%s.json", h->dir, agent);
	snprintf(name, sizeof(name), "%.20s-%s-%u", h->name, agent, ++h->starts);
	if (fault)
		setenv("DECANT_FAULT", fault, 1);
	p = lab_spawn(h->lab, h->ns, name, argv);
	unsetenv("DECANT_FAULT");
	lab_until(h->lab, START_MS, answers(sock) || !lab_proc_alive(p),
		  "%s of host %s does not answer", agent, h->name);
	lab_check(h->lab, fault || lab_proc_alive(p), "%s of host %s has ended with %d", agent,
		  h->name, p->status);
	return p;
}

void lab_host_source_start(struct lab_host *h)
{
	h->source = start_agent(h, "source", h->source_sock, h->source_fault);
	h->source_fault = NULL;
}

void lab_host_dest_start(struct lab_host *h)
{
	h->dest = start_agent(h, "dest", h->dest_sock, h->dest_fault);
	h->dest_fault = NULL;
}

struct lab_host *lab_host_new(struct lab *lab, const struct lab_host_opts *opts)
{
	struct lab_host *h = calloc(1, sizeof(*h));
	char path[LAB_PATH_MAX + 16], identity[LAB_NAME_MAX];

	lab_check(lab, lab->n_hosts < LAB_HOSTS_MAX, "too many hosts");
	lab->hosts[lab->n_hosts++] = h;
	h->lab = lab;
	h->ns = opts->ns;
	h->source_fault = opts->source_fault;
	h->dest_fault = opts->dest_fault;
	snprintf(h->name, sizeof(h->name), "%s", opts->name);
	snprintf(h->build, sizeof(h->build), "%s", opts->build ? opts->build : lab->build);
	snprintf(h->dir, sizeof(h->dir), "%.200s/%.20s", lab->root, opts->name);
	h->port = lab_free_port(lab);
	snprintf(h->address, sizeof(h->address), "%s", opts->address ? opts->address : "127.0.0.1");
	snprintf(h->to, sizeof(h->to), "%s:%u", h->address, h->port);
	snprintf(h->source_sock, sizeof(h->source_sock), "%.220s/source.sock", h->dir);
	snprintf(h->dest_sock, sizeof(h->dest_sock), "%.220s/dest.sock", h->dir);
	snprintf(h->attach, sizeof(h->attach), "%.220s/source.attach", h->dir);
	lab_check(lab, mkdir(h->dir, 0755) == 0, "%s: %m", h->dir);
	snprintf(path, sizeof(path), "%s/run", h->dir);
	lab_check(lab, mkdir(path, 0755) == 0, "%s: %m", path);
	snprintf(path, sizeof(path), "%s/state", h->dir);
	lab_check(lab, mkdir(path, 0755) == 0, "%s: %m", path);

	snprintf(identity, sizeof(identity), "host-%.20s", opts->name);
	lab_host_identity(h, "source", opts->identity ? opts->identity : identity);
	lab_host_identity(h, "dest",
			  opts->dest_identity ? opts->dest_identity
			  : opts->identity    ? opts->identity
					      : identity);
	write_conf(h, "source", source_conf(h), opts->source_conf);
	write_conf(h, "dest", dest_conf(h, opts->allow), opts->dest_conf);
	return h;
}

struct lab_host *lab_host_start(struct lab *lab, const struct lab_host_opts *opts)
{
	struct lab_host *h = lab_host_new(lab, opts);

	if (!opts->no_source)
		lab_host_source_start(h);
	if (!opts->no_dest)
		lab_host_dest_start(h);
	return h;
}

static void stop_agent(struct lab_host *h, struct lab_proc *p)
{
	int status;

	if (!p || !lab_proc_alive(p))
		return;
	kill(p->pid, SIGTERM);
	status = lab_proc_wait(h->lab, p, STOP_MS);
	lab_check(h->lab, status == 0, "%s ended with %d after SIGTERM", p->name, status);
}

/* Names in run/, but for sockets: an ended agent leaves none, a socket may stay in its folder. */
char *lab_host_run_dir(struct lab_host *h)
{
	char path[LAB_PATH_MAX + 16], *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "%s/run", h->dir);
	d = opendir(path);
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			fprintf(f, "%s ", e->d_name);
	if (d)
		closedir(d);
	fclose(f);
	return text;
}

void lab_host_stop(struct lab_host *h)
{
	char *left;

	stop_agent(h, h->source);
	stop_agent(h, h->dest);
	left = lab_host_run_dir(h);
	lab_check(h->lab, !*left, "host %s: left in run_dir: %s", h->name, left);
	free(left);
}

struct lab_proc *lab_decant_begin(struct lab_host *h, const char *const args[])
{
	char program[LAB_PATH_MAX + 64], api[LAB_PATH_MAX + 16], name[LAB_NAME_MAX];
	const char *argv[48] = {program, "--api", api};
	size_t n = 3;

	snprintf(program, sizeof(program), "%s/decant", h->build);
	snprintf(api, sizeof(api), "unix:%s", h->source_sock);
	snprintf(name, sizeof(name), "%.8s-decant-%.20s-%zu", h->name, args[0], h->lab->n_procs);
	while (*args && n < 47)
		argv[n++] = *args++;
	return lab_spawn(h->lab, h->ns, name, argv);
}

int lab_decant(struct lab_host *h, unsigned int ms, char **ret_out, char **ret_err,
	       const char *const args[])
{
	struct lab_proc *p = lab_decant_begin(h, args);
	int status = lab_proc_wait(h->lab, p, ms);

	if (ret_out)
		*ret_out = lab_proc_text(h->lab, p, "out");
	if (ret_err)
		*ret_err = lab_proc_text(h->lab, p, "err");
	return status;
}
