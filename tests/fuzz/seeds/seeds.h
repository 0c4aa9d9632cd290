/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs that are made: build/tests/seeds FOLDER writes them to FOLDER/TARGET/made-NAME. */
#ifndef DECANT_TESTS_FUZZ_SEEDS_H
#define DECANT_TESTS_FUZZ_SEEDS_H

#include <stddef.h>
#include <stdint.h>

/** SEED_MAX - bytes of one input */
#define SEED_MAX (256u << 10)

/**
 * struct seed - an input in the making
 * @folder:	of all of them
 * @p, @n:	what it has so far
 */
struct seed {
	const char *folder;
	uint8_t *p;
	size_t n;
};

/** seed_u8(), seed_u16(), seed_raw() - append */
void seed_u8(struct seed *s, uint8_t v);
void seed_u16(struct seed *s, uint16_t v);
void seed_raw(struct seed *s, const void *p, size_t n);
/** seed_piece() - append u16 length and bytes, see fuzz_piece() */
void seed_piece(struct seed *s, const void *p, size_t n);
/** seed_text() - seed_piece() of a text */
void seed_text(struct seed *s, const char *text);
/** seed_write() - write it as input @name of @target, and begin anew */
void seed_write(struct seed *s, const char *target, const char *name);

/* One for each kind of target. */
void seeds_proto(struct seed *s);
void seeds_guest(struct seed *s);
void seeds_image(struct seed *s);
void seeds_json(struct seed *s);
void seeds_session(struct seed *s);
void seeds_there(struct seed *s);
void seeds_agents(struct seed *s);

#endif
