/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/hook_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "util/clock.h"

#define REQUESTS_MAX 4096
#define CONNS_MAX    512
#define REQUEST_MAX  (1u << 20)

/** struct conn - one connection; its thread's */
struct conn {
	struct hook_server *s;
	unsigned int number;
	int fd;
	SSL *ssl;
	pthread_t thread;
};

/**
 * struct hook_server - the lock is for all that the threads share
 * @stop_fd:	readable: all threads end
 * @used:	how often each row was
 */
struct hook_server {
	pthread_mutex_t lock;
	int listen_fd, stop_fd;
	unsigned int port;
	SSL_CTX *tls;
	pthread_t thread;
	struct conn conns[CONNS_MAX];
	unsigned int n_conns;
	struct hook_request *requests[REQUESTS_MAX];
	size_t n_requests;
	const struct hook_say *rows;
	size_t n_rows;
	unsigned int used[64];
};

/* --- input and output that end when the server does --- */

static bool await(const struct conn *c, short what)
{
	struct pollfd p[2] = {{.fd = c->fd, .events = what},
			      {.fd = c->s->stop_fd, .events = POLLIN}};

	return poll(p, 2, -1) > 0 && !p[1].revents;
}

static ssize_t get(struct conn *c, void *buf, size_t n)
{
	if (!(c->ssl && SSL_pending(c->ssl)) && !await(c, POLLIN))
		return -1;
	return c->ssl ? SSL_read(c->ssl, buf, (int)n) : read(c->fd, buf, n);
}

static bool put(struct conn *c, const void *buf, size_t n)
{
	const char *p = buf;

	while (n) {
		ssize_t done;

		if (!await(c, POLLOUT))
			return false;
		done = c->ssl ? SSL_write(c->ssl, p, (int)n)
			      : send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (done <= 0 && !(done < 0 && !c->ssl && errno == EAGAIN))
			return false;
		p += done > 0 ? done : 0;
		n -= done > 0 ? (size_t)done : 0;
	}
	return true;
}

/* Return: whether the time has passed with the server alive */
static bool nap(const struct conn *c, int ms)
{
	struct pollfd p = {.fd = c->s->stop_fd, .events = POLLIN};

	return poll(&p, 1, ms) == 0;
}

/* --- a request --- */

static size_t length_of(const char *head)
{
	const char *p = strcasestr(head, "\r\ncontent-length:");

	return p ? strtoul(p + strlen("\r\ncontent-length:"), NULL, 10) : 0;
}

static struct hook_request *request_new(const char *head, const char *body, size_t len)
{
	struct hook_request *q = calloc(1, sizeof(*q));

	if (sscanf(head, "%*s %255s", q->path) != 1)
		strcpy(q->path, "?");
	q->head = strdup(head);
	q->body = malloc(len + 1);
	memcpy(q->body, body, len);
	q->body[len] = '\0';
	q->len = len;
	q->json = json_loadb(body, len, 0, NULL);
	q->at_ms = clock_us() / 1000;
	return q;
}

/* Return: NULL when there is none any more */
static struct hook_request *read_request(struct conn *c)
{
	char *buf = malloc(REQUEST_MAX), *end = NULL;
	struct hook_request *q = NULL;
	size_t have = 0, need = 0;
	ssize_t n;

	while ((!end || have < need) && (n = get(c, buf + have, REQUEST_MAX - 1 - have)) > 0) {
		have += (size_t)n;
		buf[have] = '\0';
		if (!end && (end = strstr(buf, "\r\n\r\n")))
			need = (size_t)(end - buf) + 4 + length_of(buf);
	}
	if (end && have >= need) {
		size_t head = (size_t)(end - buf) + 4;
		char *text = strndup(buf, head);

		q = request_new(text, buf + head, need - head);
		q->conn = c->number;
		free(text);
	}
	free(buf);
	return q;
}

/* --- an answer --- */

static struct hook_say choose(struct hook_server *s, const struct hook_request *q)
{
	for (size_t i = 0; i < s->n_rows; i++) {
		const struct hook_say *r = &s->rows[i];

		if (r->when && !strstr(q->path, r->when) && !strstr(q->body, r->when))
			continue;
		if (r->times && s->used[i] >= r->times)
			continue;
		s->used[i]++;
		return *r;
	}
	return (struct hook_say){0};
}

/* Return: whether another request may follow */
static bool answer(struct conn *c, const struct hook_say *r)
{
	const char *body = r->body ? r->body : "";
	size_t len = strlen(body);
	char *head = NULL;
	bool ok;
	int n;

	if (r->manner == HOOK_HANGS)
		return nap(c, -1);
	n = asprintf(&head, "HTTP/1.1 %d Said\r\n%s", r->status ? r->status : 200,
		     r->headers ? r->headers : "");
	if (r->manner == HOOK_SAYS || r->manner == HOOK_CLOSES) {
		char more[80];

		snprintf(more, sizeof(more), "Content-Length: %zu\r\n\r\n",
			 r->manner == HOOK_CLOSES ? len * 2 + 10 : len);
		ok = put(c, head, (size_t)n) && put(c, more, strlen(more)) && put(c, body, len);
		free(head);
		return ok && r->manner == HOOK_SAYS;
	}
	ok = put(c, head, (size_t)n) && put(c, "\r\n", 2);
	free(head);
	while (ok && r->manner == HOOK_DRIPS)
		ok = nap(c, 50) && put(c, "x", 1);
	while (ok) {
		static const char much[16384] = "much";

		ok = put(c, much, sizeof(much));
	}
	return false;
}

static void *serve(void *arg)
{
	struct conn *c = arg;
	struct hook_server *s = c->s;
	struct hook_request *q;
	bool more = true;

	if (s->tls) {
		c->ssl = SSL_new(s->tls);
		SSL_set_fd(c->ssl, c->fd);
		more = await(c, POLLIN) && SSL_accept(c->ssl) == 1;
	}
	while (more && (q = read_request(c))) {
		struct hook_say r;

		pthread_mutex_lock(&s->lock);
		r = choose(s, q);
		if (s->n_requests < REQUESTS_MAX)
			s->requests[s->n_requests++] = q;
		pthread_mutex_unlock(&s->lock);
		more = answer(c, &r);
	}
	SSL_free(c->ssl);
	shutdown(c->fd, SHUT_RDWR);
	return NULL;
}

static void *accept_all(void *arg)
{
	struct hook_server *s = arg;
	struct pollfd p[2] = {{.fd = s->listen_fd, .events = POLLIN},
			      {.fd = s->stop_fd, .events = POLLIN}};

	while (s->n_conns < CONNS_MAX && poll(p, 2, -1) > 0 && !p[1].revents) {
		struct conn *c = &s->conns[s->n_conns];
		int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			continue;
		*c = (struct conn){.s = s, .number = s->n_conns, .fd = fd};
		if (!pthread_create(&c->thread, NULL, serve, c))
			s->n_conns++;
	}
	return NULL;
}

/* --- life --- */

struct hook_server *hook_server_start(const char *cert, const char *key)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct hook_server *s = calloc(1, sizeof(*s));
	socklen_t len = sizeof(sin);

	pthread_mutex_init(&s->lock, NULL);
	s->stop_fd = eventfd(0, EFD_CLOEXEC);
	s->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (bind(s->listen_fd, (struct sockaddr *)&sin, len) || listen(s->listen_fd, 128) ||
	    getsockname(s->listen_fd, (struct sockaddr *)&sin, &len))
		return NULL;
	s->port = ntohs(sin.sin_port);
	if (cert) {
		s->tls = SSL_CTX_new(TLS_server_method());
		if (SSL_CTX_use_certificate_chain_file(s->tls, cert) != 1 ||
		    SSL_CTX_use_PrivateKey_file(s->tls, key, SSL_FILETYPE_PEM) != 1)
			return NULL;
	}
	return pthread_create(&s->thread, NULL, accept_all, s) ? NULL : s;
}

void hook_server_stop(struct hook_server *s)
{
	if (!s)
		return;
	eventfd_write(s->stop_fd, 1);
	pthread_join(s->thread, NULL);
	for (unsigned int i = 0; i < s->n_conns; i++) {
		pthread_join(s->conns[i].thread, NULL);
		close(s->conns[i].fd);
	}
	for (size_t i = 0; i < s->n_requests; i++) {
		free(s->requests[i]->head);
		free(s->requests[i]->body);
		json_decref(s->requests[i]->json);
		free(s->requests[i]);
	}
	SSL_CTX_free(s->tls);
	close(s->listen_fd);
	close(s->stop_fd);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void hook_server_script(struct hook_server *s, const struct hook_say *rows, size_t n)
{
	pthread_mutex_lock(&s->lock);
	s->rows = rows;
	s->n_rows = n;
	memset(s->used, 0, sizeof(s->used));
	pthread_mutex_unlock(&s->lock);
}

unsigned int hook_server_port(const struct hook_server *s)
{
	return s->port;
}

size_t hook_server_count(struct hook_server *s)
{
	size_t n;

	pthread_mutex_lock(&s->lock);
	n = s->n_requests;
	pthread_mutex_unlock(&s->lock);
	return n;
}

const struct hook_request *hook_server_get(struct hook_server *s, size_t i)
{
	const struct hook_request *q;

	pthread_mutex_lock(&s->lock);
	q = i < s->n_requests ? s->requests[i] : NULL;
	pthread_mutex_unlock(&s->lock);
	return q;
}

char *hook_server_header(const struct hook_request *q, const char *name)
{
	char want[128];
	const char *p;

	snprintf(want, sizeof(want), "\r\n%s: ", name);
	p = strcasestr(q->head, want);
	return p ? strndup(p + strlen(want), strcspn(p + strlen(want), "\r")) : NULL;
}

const char *hook_server_type(struct hook_server *s, size_t i)
{
	const struct hook_request *q = hook_server_get(s, i);
	const char *type = q ? json_string_value(json_object_get(q->json, "type")) : NULL;

	return type ? type : "";
}
