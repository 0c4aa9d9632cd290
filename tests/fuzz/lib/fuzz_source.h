/* SPDX-License-Identifier: Apache-2.0 */
/* decant-source in the folder of an input, for the targets that run all of it. */
#ifndef DECANT_TESTS_FUZZ_SOURCE_H
#define DECANT_TESTS_FUZZ_SOURCE_H

#include "fuzz/lib/fuzz_dir.h"
#include "source.h"

/** fuzz_source_new() - its configuration and its loop; not started */
static inline void fuzz_source_new(struct source *s, const char *dir)
{
	struct error err = {0};
	char text[1024];
	json_t *json;

	snprintf(
		text, sizeof(text),
		"{\"api\":{\"listen\":[\"unix:%s/api.sock\"]},\"tls\":{\"ca\":\"/c\",\"cert\":\"/"
		"d\","
		"\"key\":\"/e\"},\"attach\":\"%s/attach\",\"run_dir\":\"%s/run\",\"state_dir\":"
		"\"%s/"
		"state\",\"guests\":[{\"name\":\"vm\",\"driver\":\"native\",\"launcher\":\"run\"}],"
		"\"dest_api\":\"unix:%s/dest.sock\"}",
		dir, dir, dir, dir, dir);
	json = json_loads(text, 0, NULL);
	FUZZ_CHECK(!conf_source_read(json, &s->conf, &err));
	json_decref(json);
	s->loop = loop_new();
}

#endif
