/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/http.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

ssize_t http_head_take(struct evbuffer *in, size_t max, size_t *scanned, char **ret)
{
	struct evbuffer_ptr from, end;
	size_t len;
	char *text;

	/* Empty lines before a message are allowed; they come from clients that end a body so. */
	while (!*scanned && evbuffer_get_length(in) >= 2 &&
	       !memcmp(evbuffer_pullup(in, 2), "\r\n", 2))
		evbuffer_drain(in, 2);
	len = evbuffer_get_length(in);
	if (evbuffer_ptr_set(in, &from, *scanned, EVBUFFER_PTR_SET) < 0)
		return 0;
	end = evbuffer_search(in, "\r\n\r\n", 4, &from);
	if (end.pos < 0) {
		*scanned = len > 3 ? len - 3 : 0;
		return len > max ? -E2BIG : 0;
	}
	if ((size_t)end.pos + 4 > max)
		return -E2BIG;
	len = (size_t)end.pos + 4;
	text = malloc(len + 1);
	if (!text)
		return -ENOMEM;
	evbuffer_remove(in, text, len);
	text[len] = '\0';
	*scanned = 0;
	*ret = text;
	return (ssize_t)len;
}

static bool is_token(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("!#$%&'*+-.^_`|~", *s))
			return false;
	return true;
}

static bool is_text(const char *s)
{
	for (; *s; s++)
		if (((unsigned char)*s < 0x20 && *s != '\t') || *s == 0x7f)
			return false;
	return true;
}

/* Cut the next line off; the head is known to end with an empty one. */
static char *next_line(char **pos)
{
	char *line = *pos, *end = strstr(line, "\r\n");

	*end = '\0';
	*pos = end + 2;
	return line;
}

static int parse_field(struct http_head *h, char *line, struct error *err)
{
	char *colon = strchr(line, ':'), *value, *end;

	if (h->n == HTTP_FIELDS_MAX)
		return error_set(err, -EBADMSG, "bad-header", "more than %d header fields",
				 HTTP_FIELDS_MAX);
	if (!colon)
		return error_set(err, -EBADMSG, "bad-header", "header line without a colon");
	*colon = '\0';
	if (!is_token(line))
		return error_set(err, -EBADMSG, "bad-header", "bad header name \"%.40s\"", line);
	value = colon + 1 + strspn(colon + 1, " \t");
	end = value + strlen(value);
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		*--end = '\0';
	if (!is_text(value))
		return error_set(err, -EBADMSG, "bad-header", "control character in header %.40s",
				 line);
	h->field[h->n++] = (struct http_field){line, value};
	return 0;
}

static int parse_length(struct http_head *h, const char *v, struct error *err)
{
	size_t digits = strspn(v, "0123456789");

	if (h->has_length)
		return error_set(err, -EBADMSG, "bad-header", "Content-Length twice");
	if (!digits || v[digits] || digits > 18)
		return error_set(err, -EBADMSG, "bad-header", "Content-Length is no number: %.40s",
				 v);
	h->has_length = true;
	h->length = strtoull(v, NULL, 10);
	return 0;
}

static void parse_connection(struct http_head *h, const char *v)
{
	while (*v) {
		size_t n = strcspn(v, ", \t");

		if (n == 5 && !strncasecmp(v, "close", n))
			h->keep_alive = false;
		v += n;
		v += strspn(v, ", \t");
	}
}

/* What the fields say about the message's length and the connection's future. */
static int parse_framing(struct http_head *h, struct error *err)
{
	for (size_t i = 0; i < h->n; i++) {
		const char *name = h->field[i].name, *v = h->field[i].value;
		int r = 0;

		if (!strcasecmp(name, "Content-Length"))
			r = parse_length(h, v, err);
		else if (!strcasecmp(name, "Transfer-Encoding"))
			h->chunked = true;
		else if (!strcasecmp(name, "Connection"))
			parse_connection(h, v);
		if (r < 0)
			return r;
	}
	if (h->chunked && h->has_length)
		return error_set(err, -EBADMSG, "bad-header",
				 "both Content-Length and Transfer-Encoding");
	return 0;
}

static int parse_fields(struct http_head *h, char *pos, struct error *err)
{
	for (;;) {
		char *line = next_line(&pos);
		int r;

		if (!*line)
			return parse_framing(h, err);
		r = parse_field(h, line, err);
		if (r < 0)
			return r;
	}
}

static int parse_request_line(struct http_head *h, char *line, struct error *err)
{
	char *sp1 = strchr(line, ' '), *sp2 = sp1 ? strchr(sp1 + 1, ' ') : NULL;

	if (!sp2 || strchr(sp2 + 1, ' '))
		return error_set(err, 400, "bad-request",
				 "request line is not METHOD TARGET VERSION");
	*sp1 = *sp2 = '\0';
	h->method = line;
	h->target = sp1 + 1;
	if (!is_token(h->method) || strlen(h->method) > 16)
		return error_set(err, 400, "bad-request", "bad method");
	for (const char *p = h->target; *p; p++)
		if (*p <= 0x20 || *p >= 0x7f)
			return error_set(err, 400, "bad-request", "bad character in the path");
	if (*h->target != '/')
		return error_set(err, 400, "bad-request", "the path must start with /");
	if (strcmp(sp2 + 1, "HTTP/1.1") != 0 && strcmp(sp2 + 1, "HTTP/1.0") != 0)
		return error_set(err, 505, "bad-version", "not HTTP/1.1 or HTTP/1.0");
	h->minor = sp2[8] - '0';
	h->keep_alive = h->minor;
	return 0;
}

static int check_request(struct http_head *h, struct error *err)
{
	const char *expect = http_head_get(h, "Expect");
	size_t hosts = 0;

	for (size_t i = 0; i < h->n; i++)
		hosts += !strcasecmp(h->field[i].name, "Host");
	if (hosts > 1 || (!hosts && h->minor))
		return error_set(err, 400, "bad-header", "%s Host header",
				 hosts ? "more than one" : "no");
	if (expect && strcasecmp(expect, "100-continue") != 0)
		return error_set(err, 417, "bad-header", "Expect: only 100-continue is known");
	h->expect = expect;
	return 0;
}

int http_parse_request(struct http_head *h, char *text, size_t len, struct error *err)
{
	char *pos = text;
	int r;

	*h = (struct http_head){.text = text};
	if (strlen(text) != len)
		return error_set(err, 400, "bad-request", "NUL byte in the header");
	r = parse_request_line(h, next_line(&pos), err);
	if (r)
		return r;
	if (parse_fields(h, pos, err) < 0)
		return 400;
	return check_request(h, err);
}

int http_parse_response(struct http_head *h, char *text, size_t len, struct error *err)
{
	char *pos = text, *line;

	*h = (struct http_head){.text = text};
	if (strlen(text) != len)
		return error_set(err, -EBADMSG, "bad-answer", "NUL byte in the answer's header");
	line = next_line(&pos);
	if (strncmp(line, "HTTP/1.", 7) != 0 || !isdigit((unsigned char)line[7]) ||
	    line[8] != ' ' || strspn(line + 9, "0123456789") != 3 || (line[12] && line[12] != ' '))
		return error_set(err, -EBADMSG, "bad-answer", "not an HTTP/1 answer: %.40s", line);
	h->status = atoi(line + 9);
	if (h->status < 100 || h->status > 599)
		return error_set(err, -EBADMSG, "bad-answer", "bad status %d", h->status);
	h->minor = line[7] - '0';
	h->keep_alive = h->minor;
	return parse_fields(h, pos, err);
}

void http_head_clear(struct http_head *h)
{
	free(h->text);
	*h = (struct http_head){0};
}

const char *http_head_get(const struct http_head *h, const char *name)
{
	for (size_t i = 0; i < h->n; i++)
		if (!strcasecmp(h->field[i].name, name))
			return h->field[i].value;
	return NULL;
}

const char *http_reason(int status)
{
	static const struct {
		int status;
		const char *reason;
	} reasons[] = {
		{200, "OK"},
		{201, "Created"},
		{202, "Accepted"},
		{204, "No Content"},
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{406, "Not Acceptable"},
		{408, "Request Timeout"},
		{409, "Conflict"},
		{410, "Gone"},
		{411, "Length Required"},
		{413, "Content Too Large"},
		{415, "Unsupported Media Type"},
		{417, "Expectation Failed"},
		{422, "Unprocessable Content"},
		{429, "Too Many Requests"},
		{431, "Request Header Fields Too Large"},
		{500, "Internal Server Error"},
		{501, "Not Implemented"},
		{502, "Bad Gateway"},
		{503, "Service Unavailable"},
		{504, "Gateway Timeout"},
		{505, "HTTP Version Not Supported"},
		{507, "Insufficient Storage"},
	};

	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Unknown";
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int http_decode(char *s, bool plus)
{
	char *out = s;

	for (; *s; s++) {
		int v = (unsigned char)*s;

		if (*s == '%') {
			int hi = hex(s[1]), lo = hi < 0 ? -1 : hex(s[2]);

			v = lo < 0 ? 0 : hi << 4 | lo;
			if (v < 0x20 || v == 0x7f)
				return -EINVAL;
			s += 2;
		} else if (plus && *s == '+') {
			v = ' ';
		}
		*out++ = (char)v;
	}
	*out = '\0';
	return 0;
}

char *http_encode(const char *s)
{
	static const char digits[] = "0123456789ABCDEF";
	char *out = malloc(3 * strlen(s) + 1), *p = out;

	if (!out)
		return NULL;
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (isalnum(c) || strchr("-._~", c)) {
			*p++ = (char)c;
		} else {
			*p++ = '%';
			*p++ = digits[c >> 4];
			*p++ = digits[c & 15];
		}
	}
	*p = '\0';
	return out;
}
