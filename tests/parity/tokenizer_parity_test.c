/* The tokenizer equals the tokenizers library on strings of many scripts, and its lossy decoding. */
#include <stdlib.h>

#include "parity.h"

enum { BYTES_MAX = 1 << 16 };

static struct json *cases(void)
{
    struct status st;
    struct json *file = json_parse_file(REELKV_SOURCE_DIR "/tests/data/parity/tokenizer.json", 16 << 20, &st);

    CHECK(file != NULL);
    return file;
}

static struct tokenizer *opened(const char *checkpoint)
{
    struct tokenizer *tokenizer = NULL;
    struct status st;
    char path[512];

    snprintf(path, sizeof path, REELKV_SOURCE_DIR "/tests/data/parity/%s/tokenizer.json", checkpoint);
    CHECK_OK(tokenizer_open(&tokenizer, path, &st), st);
    return tokenizer;
}

static size_t decode(const struct tokenizer *tokenizer, const uint32_t *ids, size_t count, char *out)
{
    struct token_decoder decoder = { 0 };
    size_t len = 0;

    for (size_t i = 0; i < count; i++)
        len += token_decoder_push(&decoder, tokenizer, ids[i], out + len);
    return len + token_decoder_end(&decoder, out + len);
}

static void check_ids(const struct tokenizer *tokenizer, const struct json *entry)
{
    static uint32_t want[BYTES_MAX], got[BYTES_MAX];
    const char *text = json_str(json_get(entry, "text"));
    struct token_ids out = { got, ARRAY_LEN(got), 0 };
    size_t count = fixture_ids(json_get(entry, "ids"), want, ARRAY_LEN(want));
    struct status st;

    CHECK_OK(tokenizer_encode(tokenizer, &(struct tokenizer_text){ .text = text, .len = strlen(text) }, &out,
                              &st),
             st);
    if (out.count != count || memcmp(got, want, count * sizeof *want) != 0)
        test_fail(__FILE__, __LINE__, "\"%.200s\" has other ids (%zu, not %zu)", text, out.count, count);
}

TEST(ids_equal_the_reference_on_every_string_in_both_forms_of_merges)
{
    static const char *const checkpoints[] = { "tiny-a", "tiny-d" };
    struct json *file = cases();
    const struct json *strings = json_get(file, "strings");
    size_t compared = 0;

    for (size_t c = 0; c < ARRAY_LEN(checkpoints); c++) {
        struct tokenizer *tokenizer = opened(checkpoints[c]);

        compared = 0;
        for (size_t i = 0; i < json_len(strings); i++) {
            if (json_get(json_at(strings, i), "text") == NULL)
                continue; /* has a NUL: refused as text, see below */
            check_ids(tokenizer, json_at(strings, i));
            compared++;
        }
        tokenizer_close(tokenizer);
    }
    CHECK(compared >= 500);
    json_free(file);
}

TEST(a_nul_is_refused_rather_than_cut_off)
{
    struct tokenizer *tokenizer = opened("tiny-a");
    uint32_t ids[8];
    struct token_ids out = { ids, ARRAY_LEN(ids), 0 };
    struct status st;

    CHECK(!tokenizer_encode(tokenizer, &(struct tokenizer_text){ .text = "a\0b", .len = 3 }, &out, &st));
    CHECK_HAS(st.text, "NUL");
    tokenizer_close(tokenizer);
}

TEST(decoding_equals_the_reference_without_special_tokens)
{
    static const char *const lists[] = { "strings", "decodes" };
    struct tokenizer *tokenizer = opened("tiny-a");
    struct json *file = cases();
    char *out = malloc(BYTES_MAX * 16);
    static uint32_t ids[BYTES_MAX];

    for (size_t list = 0; list < ARRAY_LEN(lists); list++)
        for (size_t i = 0; i < json_len(json_get(file, lists[list])); i++) {
            const struct json *entry = json_at(json_get(file, lists[list]), i);
            const char *want = json_str(json_get(entry, "without_special"));
            size_t count = fixture_ids(json_get(entry, "ids"), ids, ARRAY_LEN(ids)), len;

            if (want == NULL)
                want = json_str(json_get(entry, "text"));
            if (want == NULL || json_get(entry, "hex") != NULL)
                continue;
            CHECK(count * TOKEN_DECODER_OUT_BYTES < (size_t)BYTES_MAX * 16 || count < 256);
            len = decode(tokenizer, ids, count, out);
            out[len] = '\0';
            CHECK_STR(out, want);
        }
    free(out);
    json_free(file);
    tokenizer_close(tokenizer);
}

TEST_MAIN()
