/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP by libcurl's multi interface on the daemon's loop. Names are looked up by libcurl's own threads, so
 * that the loop never waits for a name server; one that is still at it when its attempt is given up is
 * left behind (CURLOPT_QUICK_EXIT), else libcurl would wait for it. Redirects are not followed, since what
 * was signed for one server is not to be carried to another; proxies of the environment are not used.
 */
#include <errno.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hooks/hook_curl.h"
#include "hooks/hooks_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

#define CONNECT_MS 5000L

/**
 * struct hook_http - all attempts of an agent
 * @curl:	libcurl's functions
 * @timer:	libcurl's one timer
 * @looking:	what has ended is being told: not to be entered again
 */
struct hook_http {
	struct loop *loop;
	struct hook_curl curl;
	CURLM *multi;
	struct event *timer;
	bool looking;
};

/**
 * struct http_try - one POST
 * @headers:	of the request
 * @answer:	body so far, @len bytes with room for a NUL behind
 * @head:	bytes of header fields so far
 * @cut:	more came than is taken
 * @why:	libcurl's words
 */
struct http_try {
	struct hook_try t;
	struct hook_http *x;
	CURL *easy;
	struct curl_slist *headers;
	char *answer;
	size_t len, head;
	bool cut;
	char why[CURL_ERROR_SIZE];
};

/* --- libcurl and the loop --- */

static void look(struct hook_http *x);

static void on_socket_ready(evutil_socket_t fd, short what, void *arg)
{
	struct hook_http *x = arg;
	int running, bits = (what & EV_READ ? CURL_CSELECT_IN : 0) |
			    (what & EV_WRITE ? CURL_CSELECT_OUT : 0);

	x->curl.multi_socket_action(x->multi, fd, bits, &running);
	look(x);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct hook_http *x = arg;
	int running;

	(void)fd;
	(void)what;
	x->curl.multi_socket_action(x->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	look(x);
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
	struct hook_http *x = arg;
	struct timeval tv = {ms / 1000, (ms % 1000) * 1000};

	(void)multi;
	if (ms < 0)
		event_del(x->timer);
	else
		event_add(x->timer, &tv);
	return 0;
}

static int set_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *sock)
{
	struct hook_http *x = arg;
	struct event *ev = sock;

	(void)easy;
	if (ev)
		event_free(ev);
	ev = NULL;
	if (what != CURL_POLL_REMOVE) {
		ev = event_new(loop_base(x->loop), fd,
			       (short)(EV_PERSIST | (what & CURL_POLL_IN ? EV_READ : 0) |
				       (what & CURL_POLL_OUT ? EV_WRITE : 0)),
			       on_socket_ready, x);
		if (ev)
			event_add(ev, NULL);
	}
	x->curl.multi_assign(x->multi, fd, ev);
	return 0;
}

int hook_http_new(struct loop *loop, struct hook_http **ret, struct error *err)
{
	struct hook_http *x = calloc(1, sizeof(*x));
	int r = x ? hook_curl_load(&x->curl, err) : -ENOMEM;

	if (!r && x->curl.global_init(CURL_GLOBAL_DEFAULT))
		r = -ENOMEM;
	if (r) {
		free(x);
		return error_set(err, r, NULL, "hooks: libcurl cannot be used");
	}
	if (!(x->curl.version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS))
		log_warn("hooks: this libcurl looks up names while the agent stands: use "
			 "addresses");
	x->loop = loop;
	x->timer = event_new(loop_base(loop), -1, 0, on_timer, x);
	x->multi = x->curl.multi_init();
	if (!x->timer || !x->multi) {
		hook_http_free(x);
		return error_set(err, -ENOMEM, NULL, "out of memory");
	}
	x->curl.multi_setopt(x->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
	x->curl.multi_setopt(x->multi, CURLMOPT_SOCKETDATA, x);
	x->curl.multi_setopt(x->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	x->curl.multi_setopt(x->multi, CURLMOPT_TIMERDATA, x);
	x->curl.multi_setopt(x->multi, CURLMOPT_MAXCONNECTS, 16L);
	*ret = x;
	return 0;
}

void hook_http_free(struct hook_http *x)
{
	if (!x)
		return;
	if (x->multi)
		x->curl.multi_cleanup(x->multi);
	if (x->timer)
		event_free(x->timer);
	x->curl.global_cleanup();
	free(x);
}

/* --- what comes --- */

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
	struct http_try *t = arg;

	t->head += size * n;
	t->cut = t->cut || t->head > HOOKS_ANSWER_MAX;
	(void)p;
	return t->cut ? 0 : size * n;
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct http_try *t = arg;
	char *more;

	n *= size;
	if (t->head + t->len + n > HOOKS_ANSWER_MAX) {
		t->cut = true;
		return 0;
	}
	more = realloc(t->answer, t->len + n + 1);
	if (!more)
		return 0;
	t->answer = more;
	memcpy(t->answer + t->len, p, n);
	t->len += n;
	t->answer[t->len] = '\0';
	return n;
}

static void http_free(struct http_try *t)
{
	t->x->curl.multi_remove_handle(t->x->multi, t->easy);
	t->x->curl.easy_cleanup(t->easy);
	t->x->curl.slist_free_all(t->headers);
	free(t->answer);
	free(t);
}

static void http_cancel(struct hook_try *t)
{
	http_free((struct http_try *)t);
}

static const struct hook_try_ops ops = {.cancel = http_cancel};

/* In words for a person: what was said, or why nothing was. */
static void explain(struct http_try *t, CURLcode code, struct hook_answer *a)
{
	char *to = NULL;

	if (a->status < 0) {
		error_set(&a->err, -EIO,
			  code == CURLE_OPERATION_TIMEDOUT ? "hook-timeout" : "hook-unreachable",
			  "%s%s", t->cut ? "the answer is too long: " : "",
			  t->why[0] ? t->why : t->x->curl.easy_strerror(code));
		return;
	}
	t->x->curl.easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &to);
	if (a->status >= 300 && a->status < 400)
		error_set(&a->err, -EIO, "hook-redirect",
			  "HTTP status %d to %.200s: redirects are not followed: write the final "
			  "address into url",
			  a->status, to ? to : "nowhere");
	else
		error_set(&a->err, -EIO, "hook-status", "HTTP status %d: %.120s", a->status,
			  t->len ? t->answer : "no text");
}

static void tell(struct http_try *t, CURLcode code)
{
	struct hook_answer a = {.status = -1};
	curl_off_t after = 0;
	long status = 0;

	t->x->curl.easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	t->x->curl.easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &after);
	/* Of a text without end the status has come all the same. */
	if (status && (code == CURLE_OK || (t->cut && code == CURLE_WRITE_ERROR)))
		a.status = (int)status;
	a.has_retry_after = after > 0;
	a.retry_after_s = after > 0 ? (uint64_t)after : 0;
	a.body = t->answer ? t->answer : "";
	a.len = t->len;
	explain(t, code, &a);
	t->t.done(t->t.arg, &a);
}

/* Whoever is told may begin and cancel attempts: libcurl is not inside of anything here. */
static void look(struct hook_http *x)
{
	CURLMsg *msg;
	int left;

	if (x->looking)
		return;
	x->looking = true;
	while ((msg = x->curl.multi_info_read(x->multi, &left))) {
		CURLcode code = msg->data.result;
		struct http_try *t;

		if (msg->msg != CURLMSG_DONE)
			continue;
		x->curl.easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&t);
		tell(t, code);
		http_free(t);
	}
	x->looking = false;
}

/* --- what is asked --- */

int hook_http_ca(const struct hook *hook, struct error *err)
{
	const char *ca = hook->conf->ca;

	if (!ca || !access(ca, R_OK))
		return 0;
	return error_set(err, -errno, "bad-config", "ca %s: %s", ca, strerror(errno));
}

static int add_header(struct http_try *t, const char *line)
{
	struct curl_slist *more = t->x->curl.slist_append(t->headers, line);

	if (!more)
		return -ENOMEM;
	t->headers = more;
	return 0;
}

static int set_headers(struct http_try *t, const struct hook *hook, const char *body, size_t len)
{
	char signature[HOOK_SIGNATURE_MAX], line[HOOK_SIGNATURE_MAX + 32];
	int bad = add_header(t, "Content-Type: application/cloudevents+json; charset=utf-8");

	bad |= add_header(t, "Accept: application/json");
	bad |= add_header(t, "Expect:");
	if (hook->secret_len) {
		hook_sign(hook, clock_wall_us() / 1000000, body, len, signature);
		snprintf(line, sizeof(line), "Decant-Signature: %s", signature);
		bad |= add_header(t, line);
		bad |= !signature[0];
	}
	return bad ? -ENOMEM : 0;
}

/* The folder, not the one large file: from it only what is needed is read, and that costs the loop nothing. */
static void set_ca(struct http_try *t, const struct conf_hook *c)
{
	CURL *easy = t->easy;
	const char *dir = getenv(X509_get_default_cert_dir_env());

	t->x->curl.easy_setopt(easy, CURLOPT_CAINFO, c->ca);
	t->x->curl.easy_setopt(easy, CURLOPT_CAPATH,
			       c->ca ? NULL
			       : dir ? dir
				     : X509_get_default_cert_dir());
	t->x->curl.easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	t->x->curl.easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	t->x->curl.easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
}

static void set_options(struct http_try *t, const struct conf_hook *c, const char *body, size_t len)
{
	CURL *e = t->easy;

	t->x->curl.easy_setopt(e, CURLOPT_URL, c->url);
	t->x->curl.easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	t->x->curl.easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	t->x->curl.easy_setopt(e, CURLOPT_PROXY, "");
	t->x->curl.easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	t->x->curl.easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	t->x->curl.easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
	t->x->curl.easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)c->timeout_ms);
	t->x->curl.easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, MIN((long)c->timeout_ms, CONNECT_MS));
	t->x->curl.easy_setopt(e, CURLOPT_USERAGENT, "decant/" DECANT_VERSION);
	t->x->curl.easy_setopt(e, CURLOPT_HTTPHEADER, t->headers);
	t->x->curl.easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
	t->x->curl.easy_setopt(e, CURLOPT_POSTFIELDS, body);
	t->x->curl.easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	t->x->curl.easy_setopt(e, CURLOPT_HEADERDATA, t);
	t->x->curl.easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	t->x->curl.easy_setopt(e, CURLOPT_WRITEDATA, t);
	t->x->curl.easy_setopt(e, CURLOPT_ERRORBUFFER, t->why);
	t->x->curl.easy_setopt(e, CURLOPT_PRIVATE, t);
	set_ca(t, c);
}

struct hook_try *hook_http_try(struct hook *hook, const char *body, size_t len, struct error *err)
{
	struct http_try *t = calloc(1, sizeof(*t));

	if (t) {
		t->t.ops = &ops;
		t->t.hook = hook;
		t->x = hook->hooks->http;
		t->easy = t->x->curl.easy_init();
	}
	if (!t || !t->easy || set_headers(t, hook, body, len) < 0) {
		if (t && t->easy)
			t->x->curl.easy_cleanup(t->easy);
		if (t)
			t->x->curl.slist_free_all(t->headers);
		free(t);
		error_set(err, -ENOMEM, NULL, "out of memory");
		return NULL;
	}
	set_options(t, hook->conf, body, len);
	if (t->x->curl.multi_add_handle(t->x->multi, t->easy) == CURLM_OK)
		return &t->t;
	http_free(t);
	error_set(err, -ENOMEM, NULL, "libcurl takes no further request");
	return NULL;
}
