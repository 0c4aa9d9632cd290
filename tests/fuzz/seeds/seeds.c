/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz/seeds/seeds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "util/fdio.h"

void seed_raw(struct seed *s, const void *p, size_t n)
{
	if (n > SEED_MAX - s->n)
		abort();
	if (n)
		memcpy(s->p + s->n, p, n);
	s->n += n;
}

void seed_u8(struct seed *s, uint8_t v)
{
	seed_raw(s, &v, 1);
}

void seed_u16(struct seed *s, uint16_t v)
{
	seed_u8(s, (uint8_t)v);
	seed_u8(s, (uint8_t)(v >> 8));
}

void seed_piece(struct seed *s, const void *p, size_t n)
{
	seed_u16(s, (uint16_t)n);
	seed_raw(s, p, n);
}

void seed_text(struct seed *s, const char *text)
{
	seed_piece(s, text, strlen(text));
}

void seed_write(struct seed *s, const char *target, const char *name)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", s->folder, target);
	fdio_mkdir_p(path, 0755);
	snprintf(path, sizeof(path), "%s/%s/made-%s", s->folder, target, name);
	f = fopen(path, "we");
	if (!f || fwrite(s->p, 1, s->n, f) != s->n || fclose(f)) {
		perror(path);
		exit(1);
	}
	s->n = 0;
}

int main(int argc, char **argv)
{
	struct seed s = {.folder = argc > 1 ? argv[1] : NULL, .p = malloc(SEED_MAX)};

	if (!s.folder || !s.p) {
		fprintf(stderr, "usage: seeds FOLDER\n");
		return 2;
	}
	seeds_proto(&s);
	seeds_guest(&s);
	seeds_image(&s);
	seeds_json(&s);
	seeds_session(&s);
	seeds_there(&s);
	seeds_agents(&s);
	free(s.p);
	return 0;
}
