/* SPDX-License-Identifier: Apache-2.0 */
/* Answers without end. */
#include "rest/rest_int.h"

struct rest_stream *rest_stream_begin(struct rest_req *req, const char *type,
				      const struct rest_stream_ops *ops, void *arg)
{
	struct rest_conn *c = req->conn;

	if (c && c->server->n_streams >= c->server->limits.streams) {
		rest_add_header(req, "Retry-After", "5");
		rest_problemf(req, 429, "too-many-streams", "%u streams are open already",
			      c->server->n_streams);
		return NULL;
	}
	if (!c || req->head_only) {
		rest_reply_text(req, 200, type, "", 0);
		return NULL;
	}
	c->keep = false;
	rest_conn_head(c, 200, type);
	evbuffer_add(rest_io_out(c->io), "\r\n", 2);
	c->req = NULL;
	c->state = CONN_STREAM;
	c->server->n_streams++;
	c->stream = (struct rest_stream){.conn = c, .ops = ops, .arg = arg};
	rest_conn_arm(c, c->server->limits.idle_ms);
	rest_io_send(c->io);
	rest_req_free(req);
	return &c->stream;
}

void rest_stream_add(struct rest_stream *st, const char *text, size_t len)
{
	struct rest_conn *c = st->conn;

	/* Who takes nothing for so long is gone; taking a little is not enough, as it is with an answer. */
	if (!evbuffer_get_length(rest_io_out(c->io)))
		rest_conn_arm(c, c->server->limits.idle_ms);
	evbuffer_add(rest_io_out(c->io), text, len);
	rest_io_send(c->io);
}

size_t rest_stream_queued(const struct rest_stream *st)
{
	return evbuffer_get_length(rest_io_out(st->conn->io));
}

void rest_stream_end(struct rest_stream *st)
{
	if (!st)
		return;
	st->ops = NULL;
	rest_conn_free(st->conn);
}
