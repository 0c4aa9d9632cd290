/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/rest_doc.h"

/* Bytes of a file as they were when this was compiled; the Makefile knows that they belong to it. */
#define EMBED(name, file)                                                          \
	__asm__(".pushsection .rodata\n" #name ":\n\t.incbin \"" file "\"\n" #name \
		"_end:\n\t.byte 0\n\t.popsection\n");                              \
	__attribute__((visibility("hidden"))) extern const char name[];            \
	__attribute__((visibility("hidden"))) extern const char name##_end[]

EMBED(rest_doc_openapi_json, "build/openapi.json");
EMBED(rest_doc_page_html, "deploy/page.html");
EMBED(rest_doc_page_csp, "build/page.csp");

void rest_doc_openapi(struct rest_req *req, void *ctx)
{
	(void)ctx;
	if (!rest_refuse_type(req, "application/json"))
		rest_reply_text(req, 200, "application/json", rest_doc_openapi_json,
				(size_t)(rest_doc_openapi_json_end - rest_doc_openapi_json));
}

/* Its policy is made with it: common/rest/policy. */
void rest_doc_page(struct rest_req *req, void *ctx)
{
	(void)ctx;
	if (rest_refuse_type(req, "text/html"))
		return;
	rest_add_header(req, "Content-Security-Policy", rest_doc_page_csp);
	rest_add_header(req, "Referrer-Policy", "no-referrer");
	rest_reply_text(req, 200, "text/html; charset=utf-8", rest_doc_page_html,
			(size_t)(rest_doc_page_html_end - rest_doc_page_html));
}
