/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/rest_doc.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

/* Bytes of a file as they were when this was compiled; the Makefile knows that they belong to it. */
#define EMBED(name, file)                                                          \
	__asm__(".pushsection .rodata\n" #name ":\n\t.incbin \"" file "\"\n" #name \
		"_end:\n\t.byte 0\n\t.popsection\n");                              \
	__attribute__((visibility("hidden"))) extern const char name[];            \
	__attribute__((visibility("hidden"))) extern const char name##_end[]

EMBED(rest_doc_openapi_json, "build/openapi.json");
EMBED(rest_doc_page_html, "deploy/page.html");

void rest_doc_openapi(struct rest_req *req, void *ctx)
{
	(void)ctx;
	if (!rest_refuse_type(req, "application/json"))
		rest_reply_text(req, 200, "application/json", rest_doc_openapi_json,
				(size_t)(rest_doc_openapi_json_end - rest_doc_openapi_json));
}

#define HASH_MAX 64

/* "'sha256-…'" of what stands between two tags: what the policy lets run, and nothing else. */
static void hash_of(const char *begin, const char *end, char out[static HASH_MAX])
{
	const char *at = strstr(rest_doc_page_html, begin) + strlen(begin);
	unsigned char md[32];
	char text[48] = "";

	if (EVP_Digest(at, (size_t)(strstr(at, end) - at), md, NULL, EVP_sha256(), NULL) == 1)
		EVP_EncodeBlock((unsigned char *)text, md, sizeof(md));
	snprintf(out, HASH_MAX, "'sha256-%s'", text);
}

/*
 * The page has its script and style in itself, and asks nobody but this agent. Nothing that a guest or a peer
 * is called can become a part of it: should the script ever forget that, the policy does not.
 */
void rest_doc_page(struct rest_req *req, void *ctx)
{
	char script[HASH_MAX], style[HASH_MAX], policy[400];

	(void)ctx;
	if (rest_refuse_type(req, "text/html"))
		return;
	hash_of("<script>", "</script>", script);
	hash_of("<style>", "</style>", style);
	snprintf(policy, sizeof(policy),
		 "default-src 'none'; script-src %s; style-src %s; connect-src 'self'; img-src "
		 "data:; "
		 "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		 script, style);
	rest_add_header(req, "Content-Security-Policy", policy);
	rest_add_header(req, "Referrer-Policy", "no-referrer");
	rest_reply_text(req, 200, "text/html; charset=utf-8", rest_doc_page_html,
			(size_t)(rest_doc_page_html_end - rest_doc_page_html));
}
