/* SPDX-License-Identifier: Apache-2.0 */
/* What is told: CloudEvents 1.0, structured mode; and its signature. */
#include <errno.h>
#include <fnmatch.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "hooks/hooks_priv.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

/* A secret that can be guessed is none: the HMAC's key should have as many bits as its result, half of them at least. */
#define SECRET_MIN 16

struct hook_event *hook_event_new(struct hooks *h, const char *type, const char *job, json_t *data)
{
	struct hook_event *e = calloc(1, sizeof(*e));
	char id[FDIO_UUID_MAX], at[CLOCK_TEXT_MAX], sequence[24];
	uint64_t now = clock_wall_us();
	json_t *o;

	if (!e)
		return NULL;
	/* It rises over restarts, and when the clock is set back as well. */
	h->seq = MAX(h->seq + 1, now);
	e->refs = 1;
	e->seq = h->seq;
	snprintf(e->type, sizeof(e->type), "decant.%s", type);
	snprintf(e->job, sizeof(e->job), "%s", job);
	snprintf(sequence, sizeof(sequence), "%020llu", (unsigned long long)e->seq);
	o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:O}", "specversion", "1.0", "id",
		      fdio_uuid4(id), "source", h->origin, "type", e->type, "subject", e->job,
		      "time", clock_rfc3339(at, now), "sequence", sequence, "datacontenttype",
		      "application/json", "data", data);
	e->body = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	if (!e->body) {
		free(e);
		return NULL;
	}
	e->len = strlen(e->body);
	return e;
}

struct hook_event *hook_event_parse(char *body, size_t len, uint64_t seq)
{
	json_t *o = json_loadb(body, len, 0, NULL);
	struct hook_event *e = calloc(1, sizeof(*e));
	const char *type, *job;

	if (!e || !o || json_unpack(o, "{s:s, s:s}", "type", &type, "subject", &job) ||
	    strlen(type) >= sizeof(e->type) || strlen(job) >= sizeof(e->job)) {
		json_decref(o);
		free(e);
		free(body);
		return NULL;
	}
	e->refs = 1;
	e->seq = seq;
	snprintf(e->type, sizeof(e->type), "%s", type);
	snprintf(e->job, sizeof(e->job), "%s", job);
	e->body = body;
	e->len = len;
	json_decref(o);
	return e;
}

void hook_event_unref(struct hook_event *e)
{
	if (!e || --e->refs)
		return;
	free(e->body);
	free(e);
}

/* "decant.migration.completed", "migration.completed" and "completed" name the same thing. */
bool hook_event_match(char *const *patterns, const char *type)
{
	const char *whole = type + strlen("decant."), *phase = strrchr(type, '.') + 1;

	if (!patterns)
		return true;
	for (; *patterns; patterns++)
		if (!fnmatch(*patterns, type, 0) || !fnmatch(*patterns, whole, 0) ||
		    !fnmatch(*patterns, phase, 0))
			return true;
	return false;
}

/* --- signature --- */

void hook_sign(const struct hook *hook, uint64_t seconds, const char *body, size_t len,
	       char out[static HOOK_SIGNATURE_MAX])
{
	unsigned char mac[SHA256_DIGEST_LENGTH] = {0};
	unsigned int mac_len = 0;
	CLEANUP_FREE char *text = malloc(len + 32);
	int n;

	*out = '\0';
	if (!text)
		return;
	n = snprintf(text, 32, "%llu.", (unsigned long long)seconds);
	memcpy(text + n, body, len);
	if (!HMAC(EVP_sha256(), hook->secret, (int)hook->secret_len, (unsigned char *)text,
		  (size_t)n + len, mac, &mac_len))
		return;
	n = snprintf(out, HOOK_SIGNATURE_MAX, "t=%llu,v1=", (unsigned long long)seconds);
	for (size_t i = 0; i < sizeof(mac); i++)
		n += snprintf(out + n, HOOK_SIGNATURE_MAX - (size_t)n, "%02x", mac[i]);
}

int hook_secret_load(struct hook *hook, struct error *err)
{
	const char *path = hook->conf->secret_file;
	CLEANUP_FREE char *text = NULL;
	struct stat st;
	ssize_t n;

	if (!path)
		return 0;
	if (!stat(path, &st) && st.st_mode & S_IROTH)
		return error_set(err, -EPERM, "bad-config",
				 "secret_file %s can be read by everybody: chmod o= it", path);
	n = fdio_read_file(path, HOOK_SECRET_MAX, &text);
	if (n < 0)
		return error_set(err, (int)n, "bad-config", "secret_file %s: %s", path,
				 strerror((int)-n));
	/* An editor's line end is no part of it. */
	while (n && (text[n - 1] == '\n' || text[n - 1] == '\r'))
		n--;
	if (n < SECRET_MIN) {
		explicit_bzero(text, (size_t)n);
		return error_set(err, -EINVAL, "bad-config",
				 "secret_file %s has %zd bytes, %d are needed at least", path, n,
				 SECRET_MIN);
	}
	memcpy(hook->secret, text, (size_t)n);
	hook->secret_len = (size_t)n;
	explicit_bzero(text, (size_t)n);
	return 0;
}
