/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share. */
#ifndef DECANT_HOOKS_PRIV_H
#define DECANT_HOOKS_PRIV_H

#include <event2/event.h>
#include <openssl/sha.h>
#include <stddef.h>
#include <sys/queue.h>

#include "hooks/hooks.h"
#include "util/fdio.h"

/** HOOK_SECRET_MAX - bytes of a secret */
#define HOOK_SECRET_MAX 4096
/** HOOK_SIGNATURE_MAX - text of a signature and its NUL */
#define HOOK_SIGNATURE_MAX (32 + 2 * SHA256_DIGEST_LENGTH)

/* --- one attempt --- */

/**
 * struct hook_answer - what became of an attempt
 * @status:	HTTP status or exit status; -1 if there was none: then @err says why
 * @has_retry_after, @retry_after_s: of an HTTP answer
 * @body, @len:	of an HTTP answer, NUL-terminated; borrowed
 * @err:	what to say of it if it is not what was hoped for; always filled
 */
struct hook_answer {
	int status;
	bool has_retry_after;
	uint64_t retry_after_s;
	const char *body;
	size_t len;
	struct error err;
};

/** hook_done_fn - the attempt is over, and its struct hook_try no more; not from within hook_try() */
typedef void hook_done_fn(void *arg, const struct hook_answer *a);

struct hook;
struct hook_try;

/** struct hook_try_ops - a way to deliver: @cancel forgets an attempt, @done is not called */
struct hook_try_ops {
	void (*cancel)(struct hook_try *t);
};

/** struct hook_try - embedded at the beginning of what the ways to deliver have */
struct hook_try {
	const struct hook_try_ops *ops;
	struct hook *hook;
	hook_done_fn *done;
	void *arg;
};

/**
 * hook_try() - begin to hand @body over
 * @body:	must stay until the end of the attempt
 *
 * Return: the attempt, NULL with @err filled
 */
struct hook_try *hook_try(struct hook *hook, const char *body, size_t len, hook_done_fn *done,
			  void *arg, struct error *err);
/** hook_try_cancel() - NULL is fine */
void hook_try_cancel(struct hook_try *t);
/** hook_try_room() - Return: whether an attempt can begin now: commands are bounded over all hooks */
bool hook_try_room(const struct hook *hook);

/* --- events --- */

/**
 * struct hook_event - shared by the hooks that are told
 * @refs:	of it
 * @seq:	rises with each event of an agent
 * @type:	with "decant." in front
 * @job:	the subject
 * @body, @len:	what is sent
 */
struct hook_event {
	unsigned int refs;
	uint64_t seq;
	char type[HOOKS_TYPE_MAX + 8];
	char job[HOOKS_JOB_MAX];
	char *body;
	size_t len;
};

/**
 * struct hook_item - an event that a hook has not taken yet
 * @head:	the oldest of its job: it may be tried
 * @attempts:	begun so far
 * @try:	the one under way
 * @timer:	until the next one
 */
struct hook_item {
	TAILQ_ENTRY(hook_item) link;
	struct hook *hook;
	struct hook_event *event;
	bool head;
	unsigned int attempts;
	struct hook_try *try;
	struct event *timer;
};

/**
 * struct hook - one entry of the configuration
 * @dir:	where its events wait
 * @secret, @secret_len: 0 bytes: nothing is signed
 * @items:	what it has not taken, oldest first; @n_items of them, @running under way
 * @count:	since the agent's start
 * @failing:	the last attempt failed: the first failure, and the first success behind it, are told
 * @unspooled:	the last event could not be written to the disk
 */
struct hook {
	struct hooks *hooks;
	const struct conf_hook *conf;
	char *dir;
	unsigned char secret[HOOK_SECRET_MAX];
	size_t secret_len;
	TAILQ_HEAD(hook_items, hook_item) items;
	unsigned int n_items;
	unsigned int running;
	struct hooks_count count;
	bool failing;
	bool unspooled;
};

/** struct hook_orphan - a command that was cancelled: only to be reaped. @pidfd, @ended: tell its end */
struct hook_orphan {
	LIST_ENTRY(hook_orphan) link;
	int pidfd;
	struct event *ended;
};

/**
 * struct hooks - all of an agent's
 * @hook, @n:	one for each entry of the configuration
 * @agent:	"source" or "dest"
 * @origin:	of events: "//HOST/decant-AGENT"
 * @dir:	state_dir/hooks
 * @dead_path:	of dead letters
 * @seq:	of the last event
 * @http:	made for the first hook with a url
 * @execs:	commands that run
 * @orphans:	commands that were cancelled
 * @pump:	pending while something may be begun
 * @ending:	nothing is begun any more
 */
struct hooks {
	struct loop *loop;
	struct hook *hook;
	size_t n;
	const char *agent;
	char origin[300];
	char *dir;
	char *dead_path;
	uint64_t seq;
	struct hook_http *http;
	unsigned int execs;
	LIST_HEAD(, hook_orphan) orphans;
	struct event *pump;
	bool ending;
};

/* --- hooks.c --- */
/** hooks_kick() - look soon what can be begun */
void hooks_kick(struct hooks *h);

/* --- hook_event.c --- */
/** hook_event_new() - Return: an event with one reference, NULL when out of memory. @data is borrowed */
struct hook_event *hook_event_new(struct hooks *h, const char *type, const char *job, json_t *data);
/** hook_event_parse() - one from an earlier life; @body is taken over. Return: NULL if it is none */
struct hook_event *hook_event_parse(char *body, size_t len, uint64_t seq);
/** hook_event_unref() - NULL is fine */
void hook_event_unref(struct hook_event *e);
/** hook_event_match() - Return: whether @type ("decant.KIND.PHASE") fits one of @patterns */
bool hook_event_match(char *const *patterns, const char *type);
/** hook_sign() - the value of the signature's header */
void hook_sign(const struct hook *hook, uint64_t seconds, const char *body, size_t len,
	       char out[static HOOK_SIGNATURE_MAX]);
/** hook_secret_load() - read secret_file. Return: 0 or -errno with @err filled: the old one stays */
int hook_secret_load(struct hook *hook, struct error *err);

/* --- hook_spool.c --- */
/** hook_spool_open() - make folders, and hand over what an earlier life left. Return: 0 or -errno with @err filled */
int hook_spool_open(struct hooks *h, const char *state_dir,
		    void (*found)(struct hook *hook, struct hook_event *e), struct error *err);
/** hook_spool_put() - an event that @hook is to be told */
void hook_spool_put(struct hook *hook, const struct hook_event *e);
/** hook_spool_del() - which it was, or never will be */
void hook_spool_del(struct hook *hook, const struct hook_event *e);
/** hook_spool_dead() - a dead letter. @hook: name of the hook */
void hook_spool_dead(struct hooks *h, const char *hook, const struct hook_event *e,
		     unsigned int attempts, const struct error *why);

/* --- hook_http.c --- */
struct hook_http;
/** hook_http_new() - Return: 0, or -errno with @err filled */
int hook_http_new(struct loop *loop, struct hook_http **ret, struct error *err);
/** hook_http_free() - all attempts were cancelled; NULL is fine */
void hook_http_free(struct hook_http *x);
/** hook_http_try() - hook_try() of a url */
struct hook_try *hook_http_try(struct hook *hook, const char *body, size_t len, struct error *err);
/** hook_http_ca() - can the hook's certificates be read? Return: 0 or -errno with @err filled */
int hook_http_ca(const struct hook *hook, struct error *err);

/* --- hook_exec.c --- */
/** hook_exec_try() - hook_try() of a command */
struct hook_try *hook_exec_try(struct hook *hook, const char *body, size_t len, struct error *err);
/** hook_exec_forget() - commands that were cancelled are left to whoever reaps what the agent leaves */
void hook_exec_forget(struct hooks *h);

#endif
