/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configurations and the pieces of them that REST bodies and the command line share: a byte that
 * says which reader, then the text.
 */
#include <string.h>
#include "conf/conf_dest.h"
#include "conf/conf_source.h"
#include "fuzz/lib/fuzz.h"

static void read_source(const json_t *json, struct error *err)
{
	struct conf_source c = {0};

	conf_source_read(json, &c, err);
	conf_source_clear(&c);
}

static void read_dest(const json_t *json, struct error *err)
{
	struct conf_dest c = {0};

	conf_dest_read(json, &c, err);
	conf_dest_clear(&c);
}

/* What was read must be readable again, and mean the same. */
static void read_guest(const json_t *json, struct error *err)
{
	struct conf_guest g = {0}, again = {0}, copy = {0};

	if (!conf_guest_read(json, "guest", &g, err)) {
		json_t *out = conf_guest_json(&g), *twice;

		FUZZ_CHECK(out && !conf_guest_read(out, "guest", &again, err));
		twice = conf_guest_json(&again);
		FUZZ_CHECK(json_equal(out, twice));
		FUZZ_CHECK(!conf_guest_copy(&g, &copy));
		json_decref(twice);
		json_decref(out);
	}
	conf_guest_clear(&copy);
	conf_guest_clear(&again);
	conf_guest_clear(&g);
}

static void read_options(const json_t *json, struct error *err)
{
	struct mig_options o, again;

	conf_options_defaults(&o);
	conf_options_defaults(&again);
	if (!conf_options_read(json, "options", &o, err)) {
		json_t *out = conf_options_json(&o), *twice;

		FUZZ_CHECK(out && !conf_options_read(out, "options", &again, err));
		twice = conf_options_json(&again);
		FUZZ_CHECK(json_equal(out, twice));
		json_decref(twice);
		json_decref(out);
	}
}

/* "NAME VALUE", as on the command line. */
static void read_arg(char *text, struct error *err)
{
	char *value = strchr(text, ' ');
	json_t *o = json_object();

	if (value)
		*value++ = '\0';
	conf_options_arg_takes(text);
	conf_options_arg(text, value, o, err);
	json_decref(o);
}

static void read_json(uint8_t how, const char *text, size_t n, struct error *err)
{
	struct jsonx_at at = {"", NULL, err};
	json_t *json = jsonx_parse(text, n, &at);

	FUZZ_CHECK(json || error_is_set(err));
	if (!json)
		return;
	switch (how % 5) {
	case 0:
		read_source(json, err);
		break;
	case 1:
		read_dest(json, err);
		break;
	case 2:
		read_guest(json, err);
		break;
	default:
		read_options(json, err);
	}
	json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = fuzz_begin(data, size);
	uint8_t how = fuzz_u8(&in);
	char *text = fuzz_text(in);
	struct error err = {0};
	uint64_t rate;

	if (how % 5 == 4) {
		jsonx_rate(text, &rate, &err);
		error_clear(&err);
		read_arg(text, &err);
	} else {
		read_json(how, text, in.n, &err);
	}
	free(text);
	return 0;
}
