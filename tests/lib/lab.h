/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The laboratory of the integration tests: hosts with both real daemons as processes, guests that
 * verify their own memory, migrations by the real command.
 *
 * A test makes a lab, says in structs what it wants, and ends the lab, which is a check by itself:
 * agents must end cleanly, leave nothing in their run directories, in /dev/shm or in the process
 * table, and no sanitizer may have complained. What fails goes through lab_fail(): it shows the logs
 * of everything, ends all that was started (by pid), and then fails the test. Functions here fail
 * that way instead of returning errors, unless they say otherwise. All of it is for one thread.
 *
 * Nothing waits blindly: every wait has a condition and a deadline.
 */
#ifndef DECANT_TESTS_LAB_H
#define DECANT_TESTS_LAB_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define LAB_HOSTS_MAX  10
#define LAB_PROCS_MAX  2048
#define LAB_GUESTS_MAX 16
#define LAB_PATH_MAX   256
#define LAB_NAME_MAX   64
#define LAB_HUGE_SIZES 2

struct lab;
struct lab_host;
struct lab_guest;

/** lab_failed_fn - ends the test as failed; does not return */
typedef void lab_failed_fn(const char *msg);

/**
 * struct lab_proc - a process that the lab started
 * @name:	of its log files: ROOT/NAME.out and ROOT/NAME.err
 * @pid:	0 once it was waited for
 * @status:	afterwards: exit code, or 128 + signal
 * @said, @said_ms: how much it had written to its log when that was last seen to grow, and when
 *		(lab_silent.h)
 */
struct lab_proc {
	char name[LAB_NAME_MAX];
	pid_t pid;
	int status;
	off_t said;
	uint64_t said_ms;
};

/**
 * struct lab_ns - namespaces in which processes are started; see lab_ns_new()
 * @init:	the process that is PID 1 inside, as seen from outside
 */
struct lab_ns {
	pid_t init;
};

/**
 * struct lab - one test's world
 * @root:	its folder, below $TMPDIR
 * @build:	where the agents' programs are: $DECANT_BUILD or "build", absolute
 * @tests:	where test programs are, never instrumented
 * @guests_at:	where those that are guests are: below @tests, unless a test wants others
 * @certs:	folder of identities, made by tests/lib/certs
 * @slow:	factor for deadlines: 1, more with instrumented agents
 * @sanitized:	the agents are instrumented
 * @full:	`make test-full`
 * @failing:	lab_fail() is at work
 * @huge_before: what nr_hugepages was of either size, if it has been changed
 * @looked_ms:	when daemons were last looked at (lab_silent.h)
 * @huge_lock: says that the machine's huge pages are this lab's, or -1
 */
struct lab {
	char root[LAB_PATH_MAX];
	char build[LAB_PATH_MAX];
	char tests[LAB_PATH_MAX];
	char guests_at[LAB_PATH_MAX];
	char certs[LAB_PATH_MAX];
	unsigned int slow;
	bool sanitized;
	bool full;
	bool failing;
	lab_failed_fn *failed;
	struct lab_proc *procs[LAB_PROCS_MAX];
	size_t n_procs;
	struct lab_host *hosts[LAB_HOSTS_MAX];
	size_t n_hosts;
	struct lab_guest *guests[LAB_GUESTS_MAX];
	size_t n_guests;
	char *shm_before;
	char *huge_before[LAB_HUGE_SIZES];
	int huge_lock;
	uint64_t looked_ms;
};

/* --- lab.c: the world --- */

/** lab_new() - an empty lab, for lab_end() */
struct lab *lab_new(lab_failed_fn *failed);
/** lab_end() - stop all hosts and check that nothing is left; frees the lab */
void lab_end(struct lab *lab);
/** lab_fail() - show everything, end everything, fail the test. Does not return */
void lab_fail(struct lab *lab, const char *file, int line, const char *cond, const char *fmt, ...)
	__attribute__((format(printf, 5, 6), noreturn));
/** lab_now_ms() - CLOCK_MONOTONIC */
uint64_t lab_now_ms(void);
/** lab_nap() - a few milliseconds between two looks at a condition */
void lab_nap(void);
/** lab_silent_look() - is it a daemon that keeps a test waiting? See lab_silent.h */
void lab_silent_look(struct lab *lab);
/** lab_write_file() - make a file with these contents */
void lab_write_file(struct lab *lab, const char *path, const char *text);
/** lab_read_file() - Return: all of a file, with a NUL behind it, for free(3); NULL if it cannot be read */
char *lab_read_file(const char *path);
/** lab_huge_pages() - see to it that @n pages of 2 MiB are free until the lab ends. Return: false if
 * the machine has not so many, or we are not root */
bool lab_huge_pages(struct lab *lab, unsigned int n);
/** lab_gigantic_pages() - the same of pages of 1 GiB */
bool lab_gigantic_pages(struct lab *lab, unsigned int n);
/** lab_check() - fail the test, with this explanation, unless @cond holds */
#define lab_check(lab, cond, ...)                                              \
	do {                                                                   \
		if (!(cond))                                                   \
			lab_fail(lab, __FILE__, __LINE__, #cond, __VA_ARGS__); \
	} while (0)

/**
 * LAB_LEAST_MS - shortest wait for an event; a wait only ends a test that fails, and what has to happen within
 * some time is measured, not waited for
 */
#define LAB_LEAST_MS 15000

/** lab_until() - look at @cond until it holds, at most @ms milliseconds or LAB_LEAST_MS (times lab.slow) */
#define lab_until(lab, ms, cond, ...)                                                              \
	do {                                                                                       \
		uint64_t end_ =                                                                    \
			lab_now_ms() +                                                             \
			(uint64_t)((ms) < LAB_LEAST_MS ? LAB_LEAST_MS : (ms)) * (lab)->slow;       \
		while (!(cond)) {                                                                  \
			if (lab_now_ms() > end_)                                                   \
				lab_fail(lab, __FILE__, __LINE__, "in time: " #cond, __VA_ARGS__); \
			lab_silent_look(lab);                                                      \
			lab_nap();                                                                 \
		}                                                                                  \
	} while (0)

/* --- lab_proc.c: processes --- */

/** lab_spawn() - start @argv (NULL-terminated) as a process that dies with the test; @ns may be NULL */
struct lab_proc *lab_spawn(struct lab *lab, const struct lab_ns *ns, const char *name,
			   const char *const argv[]);
/** lab_lend() - hand a process of one's own to the lab, which will end it */
struct lab_proc *lab_lend(struct lab *lab, const char *name, pid_t pid);
/** lab_proc_alive() - Return: whether it still runs; notes its status if it does not */
bool lab_proc_alive(struct lab_proc *p);
/** lab_proc_wait() - wait for its end. Return: its status */
int lab_proc_wait(struct lab *lab, struct lab_proc *p, unsigned int ms);
/** lab_proc_kill() - send SIGKILL and wait */
void lab_proc_kill(struct lab *lab, struct lab_proc *p);
/** lab_proc_text() - Return: what it wrote to "out" or "err" so far, for free(3) */
char *lab_proc_text(struct lab *lab, const struct lab_proc *p, const char *which);
/** lab_proc_said() - Return: whether its log contains @text */
bool lab_proc_said(struct lab *lab, const struct lab_proc *p, const char *text);
/** lab_run() - start, wait, and hand back what it printed (may be NULL; for free(3)). Return: status */
int lab_run(struct lab *lab, const struct lab_ns *ns, unsigned int ms, char **ret_out,
	    char **ret_err, const char *const argv[]);

/**
 * struct lab_usage - what a process holds
 * @fds:	open descriptors
 * @threads:	its threads
 * @anon_kb:	resident anonymous memory
 * @maps:	lines of /proc/PID/maps
 */
struct lab_usage {
	unsigned int fds;
	unsigned int threads;
	unsigned long anon_kb;
	unsigned int maps;
};

/** lab_usage() - of a process that lives */
struct lab_usage lab_usage(struct lab *lab, pid_t pid);

/* --- lab_ns.c: namespaces --- */

/**
 * lab_ns_pair() - two sets of network, mount and PID namespaces joined by nothing but a veth pair
 *
 * Each has its own /dev/shm and /proc; side i has address 10.77.0.(i + 1) on an interface "net0".
 * They end with the lab. Return: false if they cannot be made here (no root, or a container)
 */
bool lab_ns_pair(struct lab *lab, struct lab_ns *ret0, struct lab_ns *ret1);
/** lab_only_child() - Return: the child of unshare(1), which is the one inside; 0 before there is one */
pid_t lab_only_child(pid_t pid);
/** lab_ns_sent() - Return: bytes that have left through "net0", frames and headers included */
uint64_t lab_ns_sent(struct lab *lab, const struct lab_ns *ns);

/* --- lab_http.c: a client that is allowed to be rude --- */

/**
 * lab_http() - one request to a REST socket, on a connection of its own
 * @sock:	path of the Unix socket
 * @body:	NULL for none
 * @ret_body:	the answer's body; may be NULL; for free(3)
 *
 * Return: HTTP status; -errno if there was no connection or no answer (does not fail the test)
 */
int lab_http(const char *sock, const char *method, const char *path, const char *body,
	     char **ret_body);
/** lab_http_raw() - send @n bytes as they are, half-close, read what comes. Return: as lab_http() */
int lab_http_raw(const char *sock, const void *bytes, size_t n, char **ret_answer);
/**
 * lab_http_note() - note an answer for tests/rest/check, which compares it with deploy/openapi.yaml
 * @request:	@n bytes, from the method on
 * @head:	of the answer
 *
 * For clients of other kinds than lab_http(); nothing is noted outside of tests/run.
 */
void lab_http_note(const char *request, size_t n, const char *head, int status, const char *body);
/** lab_get() - GET that must give 200 and JSON. Return: new reference */
json_t *lab_get(struct lab *lab, const char *sock, const char *path);

/* --- lab_host.c: hosts --- */

/**
 * struct lab_host_opts - how a host is set up; zero means the usual
 * @name:	"a", "b"...
 * @ns:		where it runs
 * @address:	of the data plane: where it listens; default 127.0.0.1
 * @identity:	its certificates, default "host-NAME"; a name below lab.certs
 * @dest_identity: other certificates for decant-dest
 * @allow:	whom decant-dest lets in, JSON array; default host-a and host-b
 * @source_conf, @dest_conf: JSON objects merged over the configurations
 * @no_source, @no_dest: leave that agent out
 * @build:	where its agents' programs are; default lab.build
 * @source_fault, @dest_fault: as in struct lab_host
 */
struct lab_host_opts {
	const char *name;
	const struct lab_ns *ns;
	const char *address;
	const char *identity;
	const char *dest_identity;
	const char *allow;
	const char *source_conf;
	const char *dest_conf;
	bool no_source;
	bool no_dest;
	const char *build;
	const char *source_fault;
	const char *dest_fault;
};

/**
 * struct lab_host - one host
 * @dir:	its folder: source.json, dest.json, run/, state/, sockets, certificates (copies)
 * @to:		"ADDRESS:PORT", what others migrate to
 * @path:	for lab_host_path()
 * @build:	where the agents' programs are that are started next
 * @source_fault, @dest_fault: DECANT_FAULT of that agent when it is started next, and only then; it may
 *		be dead when its start returns. See lab_matrix.h
 */
struct lab_host {
	struct lab *lab;
	char name[LAB_NAME_MAX];
	char dir[LAB_PATH_MAX];
	char address[40];
	uint16_t port;
	char to[64];
	char path[LAB_PATH_MAX + 64];
	char build[LAB_PATH_MAX];
	const struct lab_ns *ns;
	struct lab_proc *source;
	struct lab_proc *dest;
	char source_sock[LAB_PATH_MAX];
	char dest_sock[LAB_PATH_MAX];
	char attach[LAB_PATH_MAX];
	unsigned int starts;
	const char *source_fault;
	const char *dest_fault;
};

/** lab_host_new() - write the configurations, start nothing */
struct lab_host *lab_host_new(struct lab *lab, const struct lab_host_opts *opts);
/** lab_host_start() - lab_host_new(), start the agents, wait until they answer */
struct lab_host *lab_host_start(struct lab *lab, const struct lab_host_opts *opts);
/** lab_host_source_start(), lab_host_dest_start() - (again) after one was ended or killed */
void lab_host_source_start(struct lab_host *h);
void lab_host_dest_start(struct lab_host *h);
/** lab_host_stop() - SIGTERM both; they must end with 0 and leave nothing in run/ but what lives on */
void lab_host_stop(struct lab_host *h);
/** lab_host_identity() - replace the host's certificate files by those of another identity */
void lab_host_identity(struct lab_host *h, const char *agent, const char *identity);
/** lab_host_path() - Return: path of a file in the host's folder, valid until the next call */
const char *lab_host_path(struct lab_host *h, const char *file);
/** lab_host_knows() - wait until decant-source lists this guest as attached */
void lab_host_knows(struct lab_host *h, const char *guest);
/** lab_host_guests() - Return: guests that its decant-dest has launched and that live */
unsigned int lab_host_guests(struct lab_host *h);
/** lab_free_port() - Return: a port where nobody listens, outside of what the kernel gives to those who connect */
uint16_t lab_free_port(struct lab *lab);
/** lab_port_open() - Return: whether somebody listens on the host's data port */
bool lab_port_open(struct lab_host *h);
/** lab_host_run_dir() - Return: names in the host's run directory, for free(3) */
char *lab_host_run_dir(struct lab_host *h);
/** lab_decant_begin() - start `decant --api … ARGS` on this host */
struct lab_proc *lab_decant_begin(struct lab_host *h, const char *const args[]);
/** lab_decant() - run `decant --api … ARGS` on this host. Return: status; texts for free(3), may be NULL */
int lab_decant(struct lab_host *h, unsigned int ms, char **ret_out, char **ret_err,
	       const char *const args[]);

#endif
