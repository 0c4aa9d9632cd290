/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "lib/lab.h"

/* Longest wait for one answer; a daemon that takes longer is taken to hang. */
#define ANSWER_MS 20000

static int connect_to(const char *sock)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", sock);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	return fd < 0 ? -errno : fd;
}

/* Everything until the end of the stream. A peer may end it early: what came counts. */
static char *read_all(int fd)
{
	uint64_t end = lab_now_ms() + ANSWER_MS;
	size_t cap = 65536, n = 0;
	char *text = malloc(cap);

	for (;;) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		uint64_t now = lab_now_ms();
		ssize_t got;

		if (now >= end || poll(&pfd, 1, (int)(end - now)) <= 0)
			break;
		got = read(fd, text + n, cap - n - 1);
		if (got <= 0)
			break;
		n += (size_t)got;
		if (n + 1 == cap)
			text = realloc(text, cap *= 2);
	}
	text[n] = 0;
	return text;
}

/* Chunks are put together in place. */
static void dechunk(char *body)
{
	char *from = body, *to = body, *at;

	for (;;) {
		size_t n = strtoul(from, &at, 16);

		at = strstr(at, "\r\n");
		if (!n || !at || strlen(at + 2) < n)
			break;
		memmove(to, at + 2, n);
		to += n;
		from = at + 2 + n + 2;
	}
	*to = 0;
}

/* --- notes for tests/rest/check --- */

/* Answers that differ in digits only are of one kind: the thousandth look at a job is no news. */
static bool is_news(const char *request, const char *answer)
{
	static uint64_t seen[8192];
	uint64_t h = 14695981039346656037u;
	const char *const parts[] = {request, answer};

	for (size_t i = 0; i < 2; i++)
		for (const char *p = parts[i]; *p; p++)
			if (i == 0 || *p < '0' || *p > '9')
				h = (h ^ (unsigned char)*p) * 1099511628211u;
	for (size_t i = h % 8192, n = 0; n < 64; i = (i + 1) % 8192, n++) {
		if (seen[i] == h)
			return false;
		if (seen[i])
			continue;
		seen[i] = h;
		return true;
	}
	return true;
}

static char *header(const char *head, const char *name)
{
	const char *at = strcasestr(head, name);

	at = at ? at + strlen(name) : "";
	at += strspn(at, " ");
	return strndup(at, strcspn(at, "\r\n"));
}

void lab_http_note(const char *request, size_t n, const char *head, int status, const char *body)
{
	const char *dir = getenv("DECANT_HTTP_NOTES");
	char line[300] = "", method[20], path[240] = "", file[400];
	char *type;
	json_t *o;
	FILE *f;

	snprintf(line, sizeof(line), "%.*s", (int)(n < 290 ? n : 290), request);
	if (!dir || status < 0 || sscanf(line, "%19[A-Z] %239s", method, path) != 2)
		return;
	*strchrnul(line, '\r') = 0;
	if (!is_news(line, body))
		return;
	snprintf(file, sizeof(file), "%s/%d", dir, (int)getpid());
	f = fopen(file, "ae");
	type = header(head, "\r\nContent-Type:");
	o = json_pack("{s:s, s:s, s:i, s:s, s:s}", "method", method, "path", path, "status", status,
		      "type", type, "body", body);
	if (f && o) {
		json_dumpf(o, f, JSON_COMPACT | JSON_ENSURE_ASCII);
		fputc('\n', f);
	}
	if (f)
		fclose(f);
	json_decref(o);
	free(type);
}

static int take_answer(const char *request, size_t n, char *text, char **ret_body)
{
	char *head_end = strstr(text, "\r\n\r\n");
	int status = -EPROTO;

	if (!head_end || sscanf(text, "HTTP/1.%*d %d", &status) != 1)
		return -EPROTO;
	*head_end = 0;
	if (strcasestr(text, "\r\nTransfer-Encoding: chunked"))
		dechunk(head_end + 4);
	lab_http_note(request, n, text, status, head_end + 4);
	if (ret_body)
		*ret_body = strdup(head_end + 4);
	return status;
}

int lab_http_raw(const char *sock, const void *bytes, size_t n, char **ret_answer)
{
	int fd = connect_to(sock), status;
	const char *p = bytes;
	size_t all = n;
	char *text;

	if (fd < 0)
		return fd;
	/* An agent may have had enough and closed: what it said before that is what counts. */
	while (n) {
		ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

		if (sent <= 0)
			break;
		p += sent;
		n -= (size_t)sent;
	}
	shutdown(fd, SHUT_WR);
	text = read_all(fd);
	close(fd);
	status = take_answer(bytes, all, text, ret_answer);
	free(text);
	return status;
}

int lab_http(const char *sock, const char *method, const char *path, const char *body,
	     char **ret_body)
{
	char *request;
	int n, status;

	n = asprintf(&request,
		     "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
		     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
		     method, path, body ? strlen(body) : 0, body ? body : "");
	status = lab_http_raw(sock, request, (size_t)n, ret_body);
	free(request);
	return status;
}

json_t *lab_get(struct lab *lab, const char *sock, const char *path)
{
	char *body = NULL;
	int status = lab_http(sock, "GET", path, NULL, &body);
	json_t *json;

	lab_check(lab, status == 200, "GET %s: status %d: %s", path, status, body ? body : "");
	json = json_loads(body, JSON_REJECT_DUPLICATES, NULL);
	lab_check(lab, json, "GET %s: not JSON: %s", path, body);
	free(body);
	return json;
}
