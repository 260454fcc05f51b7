#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/name.h"
#include "model/tokenizer_data.h"

enum { JIT_STACK_START = 32 << 10, JIT_STACK_MAX = 1 << 20, FIRST_WORD_ROOM = 256 };

/* One call of tokenizer_encode(). */
struct encoding {
    const struct tokenizer *tokenizer;
    struct token_ids *out;
    struct bpe_scratch scratch;
    pcre2_match_data *match;
    pcre2_match_context *limits; /* a copy of the tokenizer's with this call's JIT stack */
    pcre2_jit_stack *stack;
};

static bool put_id(struct encoding *encoding, uint32_t id, struct status *st)
{
    if (encoding->out->count >= encoding->out->room)
        return status_fail(st, STATUS_EXHAUSTED, "the text has more than %zu tokens", encoding->out->room);
    encoding->out->ids[encoding->out->count++] = id;
    return true;
}

static bool encode_word(struct encoding *encoding, struct bytes word, struct status *st)
{
    struct token_ids *out = encoding->out;
    uint32_t *ids;
    size_t count;

    if (word.len > encoding->scratch.bytes) {
        size_t room = word.len * 2 > FIRST_WORD_ROOM ? word.len * 2 : FIRST_WORD_ROOM;

        bpe_scratch_deinit(&encoding->scratch);
        if (!bpe_scratch_init(&encoding->scratch, room, st))
            return false;
    }
    if (out->room - out->count >= word.len) {
        out->count += bpe_word(&encoding->tokenizer->bpe, word, &encoding->scratch, out->ids + out->count);
        return true;
    }
    /* The word may have fewer ids than bytes and still fit. */
    ids = malloc(word.len * sizeof *ids);
    if (ids == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to tokenize %zu bytes", word.len);
    count = bpe_word(&encoding->tokenizer->bpe, word, &encoding->scratch, ids);
    for (size_t i = 0; i < count; i++)
        if (!put_id(encoding, ids[i], st)) {
            free(ids);
            return false;
        }
    free(ids);
    return true;
}

static size_t sequence_bytes(uint8_t lead)
{
    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/* Words are what the pattern matches, and what lies between. */
static bool encode_words(struct encoding *encoding, struct bytes text, struct status *st)
{
    size_t from = 0, at = 0;

    while (at < text.len) {
        int found = pcre2_match(encoding->tokenizer->pattern, text.data, text.len, at, PCRE2_NO_UTF_CHECK,
                                encoding->match, encoding->limits);
        const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(encoding->match);

        if (found == PCRE2_ERROR_NOMATCH)
            break;
        if (found < 0)
            return status_fail(st, STATUS_INVALID, "the text cannot be split into words (PCRE2 error %d)",
                               found);
        if (ends[1] <= ends[0]) { /* an empty match splits nothing */
            at = ends[0] < text.len ? ends[0] + sequence_bytes(text.data[ends[0]]) : text.len;
            continue;
        }
        if (ends[0] > from && !encode_word(encoding, (struct bytes){ text.data + from, ends[0] - from }, st))
            return false;
        if (!encode_word(encoding, (struct bytes){ text.data + ends[0], ends[1] - ends[0] }, st))
            return false;
        from = at = ends[1];
    }
    return from == text.len || encode_word(encoding, (struct bytes){ text.data + from, text.len - from }, st);
}

/* The longest added token of this kind at text[at]; special ones must not touch [literal_from, literal_to).
 */
static const struct added_token *added_at(const struct tokenizer *tokenizer,
                                          const struct tokenizer_text *text, size_t at, bool normalized)
{
    if (!tokenizer->added_starts[(uint8_t)text->text[at]])
        return NULL;
    for (size_t i = 0; i < tokenizer->added_count; i++) {
        const struct added_token *token = &tokenizer->added[i];

        if (token->normalized != normalized || token->len > text->len - at ||
            memcmp(token->content, text->text + at, token->len) != 0)
            continue;
        if (token->special && at < text->literal_to && at + token->len > text->literal_from)
            continue;
        return token;
    }
    return NULL;
}

static bool encode_piece(struct encoding *encoding, const char *text, size_t len, bool normalized,
                         struct status *st);

/* Cuts the added tokens out and passes what lies between on. */
static bool encode_pieces(struct encoding *encoding, const struct tokenizer_text *text, bool normalized,
                          struct status *st)
{
    size_t from = 0, at = 0;

    while (at < text->len) {
        const struct added_token *token = added_at(encoding->tokenizer, text, at, normalized);

        if (token == NULL) {
            at++;
            continue;
        }
        if (!encode_piece(encoding, text->text + from, at - from, normalized, st) ||
            !put_id(encoding, token->id, st))
            return false;
        from = at += token->len;
    }
    return encode_piece(encoding, text->text + from, text->len - from, normalized, st);
}

static bool is_ascii(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)text[i] >= 0x80)
            return false;
    return true;
}

static bool encode_normalized(struct encoding *encoding, const char *text, size_t len, struct status *st)
{
    utf8proc_uint8_t *nfc;
    utf8proc_ssize_t nfc_len;
    bool ok;

    if (!encoding->tokenizer->nfc || is_ascii(text, len))
        return encode_pieces(encoding, &(struct tokenizer_text){ .text = text, .len = len }, true, st);
    nfc_len = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &nfc,
                           UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (nfc_len < 0)
        return status_fail(st, STATUS_INVALID, "the text cannot be brought to NFC: %s",
                           utf8proc_errmsg(nfc_len));
    ok = encode_pieces(encoding, &(struct tokenizer_text){ .text = (char *)nfc, .len = (size_t)nfc_len },
                       true, st);
    free(nfc);
    return ok;
}

/* Text between added tokens: raw text is normalised and searched again, normalised text is split into words.
 */
static bool encode_piece(struct encoding *encoding, const char *text, size_t len, bool normalized,
                         struct status *st)
{
    if (len == 0)
        return true;
    if (!normalized)
        return encode_normalized(encoding, text, len, st);
    return encode_words(encoding, (struct bytes){ (const uint8_t *)text, len }, st);
}

bool tokenizer_encode(const struct tokenizer *tokenizer, const struct tokenizer_text *text,
                      struct token_ids *out, struct status *st)
{
    struct encoding encoding = { .tokenizer = tokenizer, .out = out };
    bool ok = false;

    out->count = 0;
    if (text->len > TOKENIZER_TEXT_BYTES_MAX)
        return status_fail(st, STATUS_INVALID, "the text has %zu bytes; at most %d are tokenized", text->len,
                           TOKENIZER_TEXT_BYTES_MAX);
    if (!utf8_is_valid(text->text, text->len))
        return status_fail(st, STATUS_INVALID, "the text is not UTF-8 without NUL");
    encoding.match = pcre2_match_data_create_from_pattern(tokenizer->pattern, NULL);
    encoding.limits = pcre2_match_context_copy(tokenizer->limits);
    encoding.stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, NULL);
    if (encoding.match == NULL || encoding.limits == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "no memory to tokenize");
        goto out;
    }
    pcre2_jit_stack_assign(encoding.limits, NULL, encoding.stack);
    ok = encode_pieces(&encoding, text, false, st);
out:
    bpe_scratch_deinit(&encoding.scratch);
    pcre2_match_data_free(encoding.match);
    pcre2_match_context_free(encoding.limits);
    pcre2_jit_stack_free(encoding.stack);
    return ok;
}

bool tokenizer_find(const struct tokenizer *tokenizer, const char *content, uint32_t *id_p)
{
    for (size_t i = 0; i < tokenizer->added_count; i++)
        if (strcmp(tokenizer->added[i].content, content) == 0) {
            *id_p = tokenizer->added[i].id;
            return true;
        }
    return false;
}

uint32_t tokenizer_id_count(const struct tokenizer *tokenizer)
{
    return tokenizer->id_count;
}

struct bytes tokenizer_id_bytes(const struct tokenizer *tokenizer, uint32_t id)
{
    return id < tokenizer->id_count ? tokenizer->texts[id] : (struct bytes){ NULL, 0 };
}

/* The values the second byte may have after this lead (Unicode, table 3-7); false when no sequence begins so.
 */
static bool second_bounds(uint8_t lead, uint8_t *low_p, uint8_t *high_p)
{
    *low_p = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    *high_p = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    return lead >= 0xc2 && lead <= 0xf4;
}

static size_t put_replacement(char *out)
{
    memcpy(out, "\xef\xbf\xbd", 3);
    return 3;
}

/* What is held is always the beginning of some sequence; one U+FFFD stands for each longest such beginning
 * that turns out wrong (Unicode, "maximal subpart"), which is what the reference's lossy decoding does. */
static size_t decode_byte(struct token_decoder *decoder, uint8_t byte, char *out)
{
    uint8_t low = 0x80, high = 0xbf;
    size_t len = 0;

    if (decoder->held_count == 1)
        second_bounds(decoder->held[0], &low, &high);
    if (decoder->held_count > 0) {
        if (byte >= low && byte <= high) {
            decoder->held[decoder->held_count++] = byte;
            if (decoder->held_count < sequence_bytes(decoder->held[0]))
                return 0;
            len = decoder->held_count;
            memcpy(out, decoder->held, len);
            decoder->held_count = 0;
            return len;
        }
        len = put_replacement(out);
        decoder->held_count = 0;
    }
    if (byte < 0x80) {
        out[len] = (char)byte;
        return len + 1;
    }
    if (!second_bounds(byte, &low, &high))
        return len + put_replacement(out + len);
    decoder->held[decoder->held_count++] = byte;
    return len;
}

size_t token_decoder_push(struct token_decoder *decoder, const struct tokenizer *tokenizer, uint32_t id,
                          char *out)
{
    struct bytes text = tokenizer_id_bytes(tokenizer, id);
    size_t len = 0;

    for (size_t i = 0; i < text.len; i++)
        len += decode_byte(decoder, text.data[i], out + len);
    return len;
}

size_t token_decoder_end(struct token_decoder *decoder, char *out)
{
    size_t len = decoder->held_count > 0 ? put_replacement(out) : 0;

    decoder->held_count = 0;
    return len;
}
