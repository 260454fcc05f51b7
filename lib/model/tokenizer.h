/* tokenizer.h - byte-level BPE from a Hugging Face tokenizer.json, and a decoder for streamed answers.
 *
 * Text becomes ids as the tokenizers library does it: added tokens are cut out first, the rest is brought to
 * NFC, split by the file's own pattern, turned into byte symbols and merged by rank.
 *
 * Owner:  tokenizer_open() makes one, tokenizer_close() frees it.
 * Thread: any once open (read only); each call brings its own scratch.
 * Fails:  INVALID for a file of another kind (the sentence says which field), for text that is not UTF-8 or
 *         too long; EXHAUSTED when the ids do not fit.
 * Bounds: TOKENIZER_*; time n log n in the longest word. */
#ifndef REELKV_MODEL_TOKENIZER_H
#define REELKV_MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

enum {
    TOKENIZER_TEXT_BYTES_MAX = 256 << 10,
    TOKENIZER_TOKEN_BYTES_MAX = 1024,     /* of one id, decoded */
    TOKENIZER_VOCABULARY_MAX = 4 << 20,   /* ids */
    TOKENIZER_FILE_BYTES_MAX = 256 << 20, /* Qwen2's has 7 MB */
};

struct tokenizer;

bool tokenizer_open(struct tokenizer **tokenizer_p, const char *path, struct status *st);
void tokenizer_close(struct tokenizer *tokenizer); /* NULL is fine */

/* Text to encode. Bytes [literal_from, literal_to) are somebody's words: special tokens spelled there stay
 * plain text. Words that a person typed must be literal. */
struct tokenizer_text {
    const char *text;
    size_t len;
    size_t literal_from, literal_to;
};

struct token_ids {
    uint32_t *ids; /* caller's */
    size_t room;
    size_t count; /* written */
};

bool tokenizer_encode(const struct tokenizer *tokenizer, const struct tokenizer_text *text,
                      struct token_ids *out, struct status *st);

/* The id of an added token by its exact text ("<|im_end|>"); false when there is none. */
bool tokenizer_find(const struct tokenizer *tokenizer, const char *content, uint32_t *id_p);

/* Ids are below this. */
uint32_t tokenizer_id_count(const struct tokenizer *tokenizer);

/* Bytes of one id, borrowed from the tokenizer; empty for special tokens and ids it does not know. */
struct bytes tokenizer_id_bytes(const struct tokenizer *tokenizer, uint32_t id);

/* Turns ids into UTF-8 as they come, whole sequences only; what can never become one is U+FFFD. Zero it
 * first. */
struct token_decoder {
    uint8_t held[4];
    uint32_t held_count;
};

enum { TOKEN_DECODER_OUT_BYTES = 3 * (TOKENIZER_TOKEN_BYTES_MAX + 4) }; /* enough room for one push */

/* Both return the number of bytes written to `out` (TOKEN_DECODER_OUT_BYTES, not NUL-terminated). */
size_t token_decoder_push(struct token_decoder *decoder, const struct tokenizer *tokenizer, uint32_t id,
                          char *out);
size_t token_decoder_end(struct token_decoder *decoder, char *out);

#endif
