/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the agent, and what its answers mean for the exit code. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/fdio.h"

/* Most items of a list that are gathered; a wrong `next` must not keep us for ever. */
#define LIST_MAX 100000

static int exit_of_status(int status)
{
	if (status < 400)
		return CLI_OK;
	if (status == 503 || status == 429)
		return CLI_UNREACHABLE;
	return status < 500 || status == 501 ? CLI_REFUSED : CLI_FAILED;
}

static int exit_of_error(int ret, const struct error *err)
{
	if (!strcmp(err->code, "tls-files"))
		return CLI_USAGE;
	/* Of a certificate; the mode of a Unix socket is another matter. */
	if (ret == -EACCES && !strncmp(err->code, "tls-", 4))
		return CLI_REFUSED;
	switch (ret) {
	case -ENOTSUP:
		return CLI_REFUSED;
	case -EINVAL:
		return CLI_USAGE;
	default:
		return CLI_UNREACHABLE;
	}
}

/* Return: exit code; @err is filled unless it is CLI_OK */
static int ask(struct cli *c, const char *method, const char *path, const json_t *body,
	       json_t **ret, int *ret_status, struct error *err)
{
	char key[FDIO_UUID_MAX];
	struct rest_call_spec spec = {
		.api = c->api, .creds = &c->creds, .method = method, .path = path, .body = body};
	struct rest_answer a = {0};
	int r;

	if (body && !strcmp(method, "POST"))
		spec.idempotency_key = fdio_uuid4(key);
	*ret_status = 0;
	r = rest_call(&spec, &a, err);
	if (r < 0)
		return exit_of_error(r, err);
	*ret_status = a.status;
	r = exit_of_status(a.status);
	if (r)
		*err = a.problem;
	else
		*ret = steal_ptr(&a.json);
	rest_answer_clear(&a);
	return r;
}

int cli_call(struct cli *c, const char *method, const char *path, const json_t *body,
	     const char *what, json_t **ret)
{
	struct error err = {0};
	int status, r = ask(c, method, path, body, ret, &status, &err);

	return r ? cli_error_of(r, what, &err) : r;
}

char *cli_path(const char *prefix, const char *name, const char *suffix)
{
	CLEANUP_FREE char *text = rest_encode(name);
	char *path;

	if (!text || asprintf(&path, "%s/%s%s", prefix, text, suffix ? suffix : "") < 0)
		return NULL;
	return path;
}

int cli_poll(struct cli *c, const char *path, const char *what, uint64_t *since_us, json_t **ret)
{
	struct error err = {0};
	uint64_t now;
	int status, r;

	*ret = NULL;
	r = ask(c, "GET", path, NULL, ret, &status, &err);
	if (r != CLI_UNREACHABLE) {
		*since_us = 0;
		return r ? cli_error_of(r, what, &err) : r;
	}
	now = clock_us();
	if (!*since_us)
		*since_us = now;
	if (now - *since_us < c->patience_s * UINT64_C(1000000))
		return CLI_OK;
	return cli_error_of(r, what, &err);
}

/* Return: new string with the address of the page behind @next */
static char *page_url(const char *path, const char *next)
{
	CLEANUP_FREE char *after = rest_encode(next);
	char *url;

	if (!after || asprintf(&url, "%s?limit=1000&after=%s", path, after) < 0)
		return NULL;
	return url;
}

int cli_list(struct cli *c, const char *path, const char *what, json_t **ret)
{
	json_t *all = json_array();
	char *url = strdup(path);
	int r = CLI_OK;

	while (!r && url && json_array_size(all) < LIST_MAX) {
		size_t before = json_array_size(all);
		json_t *page = NULL;
		const char *next;

		r = cli_call(c, "GET", url, NULL, what, &page);
		free(url);
		url = NULL;
		json_array_extend(all, json_object_get(page, "items"));
		next = cli_str(page, "next");
		if (!r && next && json_array_size(all) > before)
			url = page_url(path, next);
		json_decref(page);
	}
	free(url);
	if (r)
		json_decref(all);
	else
		*ret = all;
	return r;
}

/* Return: CLI_OK with the only item whose id starts with @id */
static int pick(const json_t *items, const char *noun, const char *id, json_t **ret)
{
	json_t *item, *found = NULL;
	size_t i;

	json_array_foreach(items, i, item) {
		const char *s = cli_str(item, "id");

		if (!s || strncmp(s, id, strlen(id)) != 0)
			continue;
		if (found)
			return cli_error(CLI_REFUSED, id, "several %ss begin with this", noun);
		found = item;
	}
	if (!found)
		return cli_error(CLI_REFUSED, id, "no such %s", noun);
	*ret = json_incref(found);
	return CLI_OK;
}

/* All items of these lists. Return: as cli_call() */
static int list_all(struct cli *c, const char *const lists[], const char *what, json_t **ret)
{
	json_t *all = json_array(), *items;
	int r = CLI_OK;

	for (size_t i = 0; !r && lists[i]; i++) {
		r = cli_list(c, lists[i], what, &items);
		if (r)
			break;
		json_array_extend(all, items);
		json_decref(items);
	}
	if (r)
		json_decref(all);
	else
		*ret = all;
	return r;
}

/* Return: 0 and @ret if @id is a whole id in this list; 404 if not; else -1, and @code after an error line */
static int find_whole(struct cli *c, const char *list, const char *id, int *code, json_t **ret)
{
	CLEANUP_FREE char *url = cli_path(list, id, NULL);
	struct error err = {0};
	int status = 0;

	*code = url ? ask(c, "GET", url, NULL, ret, &status, &err)
		    : cli_error(CLI_FAILED, id, "out of memory");
	if (!url || !*code)
		return url ? 0 : -1;
	if (status == 404)
		return 404;
	*code = cli_error_of(*code, id, &err);
	return -1;
}

int cli_find_any(struct cli *c, const char *const lists[], const char *noun, const char *id,
		 json_t **ret)
{
	json_t *items;
	int r;

	if (!*id)
		return cli_error(CLI_USAGE, noun, "the id is empty");
	for (size_t i = 0; lists[i]; i++)
		if (find_whole(c, lists[i], id, &r, ret) != 404)
			return r;
	r = list_all(c, lists, id, &items);
	if (r)
		return r;
	r = pick(items, noun, id, ret);
	json_decref(items);
	return r;
}

int cli_find(struct cli *c, const char *list_path, const char *noun, const char *id, json_t **ret)
{
	return cli_find_any(c, (const char *const[]){list_path, NULL}, noun, id, ret);
}
