/* tokenizer_data.h - what tokenizer_load.c reads and tokenizer.c uses. Private to the two. */
#ifndef REELKV_MODEL_TOKENIZER_DATA_H
#define REELKV_MODEL_TOKENIZER_DATA_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "model/bpe.h"
#include "model/tokenizer.h"

struct added_token {
    char *content;
    size_t len;
    uint32_t id;
    bool special;    /* not text of an answer; not looked for in literal text */
    bool normalized; /* looked for after NFC rather than before */
};

struct tokenizer {
    bool nfc;
    pcre2_code *pattern; /* words; what it does not match is a word too */
    pcre2_match_context *limits;
    struct bpe bpe;
    struct bytes *texts; /* [id_count], into pool */
    uint8_t *pool;
    uint32_t id_count;
    struct added_token *added; /* longest first */
    size_t added_count;
    bool added_starts[256]; /* some added token begins with this byte */
};

/* Code points that stand for bytes in tokenizer.json (GPT-2's table): printable Latin-1 for itself, the
 * others from U+0100 on in order. */
uint32_t tokenizer_byte_symbol(uint8_t byte);

#endif
