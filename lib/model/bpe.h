/* bpe.h - byte-pair merges: a word of bytes becomes ids.
 *
 * The reference's rule: as long as some adjacent pair is in the table, merge the pair of lowest rank,
 * leftmost first. A heap of candidate pairs over a linked list does that in n log n, so that a word of a
 * megabyte is no attack.
 *
 * Owner:  zero a struct bpe, bpe_add() every pair, bpe_deinit(). Thread: any once filled. */
#ifndef REELKV_MODEL_BPE_H
#define REELKV_MODEL_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

struct bpe_pair;

struct bpe {
    struct bpe_pair *pairs; /* open addressing, a power of two */
    size_t room, count;
    uint32_t byte_ids[256]; /* the id of each single byte */
};

/* Makes room for `count` merges. */
bool bpe_init(struct bpe *bpe, size_t count, struct status *st);
void bpe_deinit(struct bpe *bpe);

/* left, right -> merged at this rank. The first of two equal pairs stays. At most `count` calls. */
void bpe_add(struct bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t merged);

/* Scratch for words up to `bytes`; reused from word to word. */
struct bpe_scratch {
    struct bpe_symbol *symbols;
    struct bpe_candidate *heap;
    size_t bytes, heap_count;
};
bool bpe_scratch_init(struct bpe_scratch *scratch, size_t bytes, struct status *st);
void bpe_scratch_deinit(struct bpe_scratch *scratch);

/* Writes at most word.len ids to `ids`; returns how many. word.len is at most scratch->bytes. */
size_t bpe_word(const struct bpe *bpe, struct bytes word, struct bpe_scratch *scratch, uint32_t *ids);

#endif
