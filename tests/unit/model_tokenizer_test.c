/* A tokenizer of 256 bytes and a handful of merges, small enough to check by hand. Equality with the
 * reference library over many scripts is tests/parity/tokenizer_parity_test.c. */
#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "model/tokenizer.h"
#include "model/tokenizer_data.h"
#include "support/test.h"

static const char qwen2_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

static void symbol_of(uint8_t byte, char out[3])
{
    uint32_t symbol = tokenizer_byte_symbol(byte);

    memset(out, 0, 3);
    if (symbol < 0x80)
        out[0] = (char)symbol;
    else {
        out[0] = (char)(0xc0 | symbol >> 6);
        out[1] = (char)(0x80 | (symbol & 0x3f));
    }
}

static struct json *pre_tokenizer(void)
{
    struct json *pre = json_make_object(), *split = json_make_object(), *bytes = json_make_object();
    struct json *pattern = json_make_object(), *list = json_make_array();

    json_set_str(pattern, "Regex", qwen2_pattern);
    json_set_str(split, "type", "Split");
    json_set(split, "pattern", pattern);
    json_set_str(split, "behavior", "Isolated");
    json_set_bool(split, "invert", false);
    json_set_str(bytes, "type", "ByteLevel");
    json_set_bool(bytes, "add_prefix_space", false);
    json_set_bool(bytes, "use_regex", false);
    json_append(list, split);
    json_append(list, bytes);
    json_set_str(pre, "type", "Sequence");
    json_set(pre, "pretokenizers", list);
    return pre;
}

static struct json *typed(const char *type)
{
    struct json *value = json_make_object();

    json_set_str(value, "type", type);
    return value;
}

static void add_token(struct json *list, const char *content, uint32_t id, bool special)
{
    struct json *token = json_make_object();

    json_set_u64(token, "id", id);
    json_set_str(token, "content", content);
    json_set_bool(token, "special", special);
    json_append(list, token);
}

/* Ids 0..255 are the bytes; 256 "ab", 257 "abc", 258 "bc", 259 " a", 300 "<|im_end|>", 301 "<|im_end|>>",
 * 302 "<call>" (not special). Ranks: bc < ab < abc < " a". */
static struct json *small_tokenizer(void)
{
    static const char *const merges[][3] = { { "b", "c", "bc" },
                                             { "a", "b", "ab" },
                                             { "ab", "c", "abc" },
                                             { "\xc4\xa0", "a",
                                               "\xc4\xa0"
                                               "a" } };
    static const uint32_t ids[] = { 258, 256, 257, 259 };
    struct json *file = json_make_object(), *model = typed("BPE"), *vocab = json_make_object();
    struct json *list = json_make_array(), *added = json_make_array();
    char symbol[3], merge[16];

    for (uint32_t byte = 0; byte < 256; byte++) {
        symbol_of((uint8_t)byte, symbol);
        json_set_u64(vocab, symbol, byte);
    }
    for (size_t i = 0; i < ARRAY_LEN(merges); i++) {
        json_set_u64(vocab, merges[i][2], ids[i]);
        if (i == 1) { /* both forms that published files use */
            struct json *pair = json_make_array();

            json_append_str(pair, merges[i][0]);
            json_append_str(pair, merges[i][1]);
            json_append(list, pair);
            continue;
        }
        snprintf(merge, sizeof merge, "%s %s", merges[i][0], merges[i][1]);
        json_append_str(list, merge);
    }
    add_token(added, "<|im_end|>", 300, true);
    add_token(added, "<|im_end|>>", 301, true);
    add_token(added, "<call>", 302, false);
    json_set(model, "vocab", vocab);
    json_set(model, "merges", list);
    json_set(file, "added_tokens", added);
    json_set(file, "normalizer", typed("NFC"));
    json_set(file, "pre_tokenizer", pre_tokenizer());
    json_set(file, "decoder", typed("ByteLevel"));
    json_set(file, "model", model);
    return file;
}

/* Takes `file`. NULL on failure. */
static struct tokenizer *opened(struct json *file, struct status *st)
{
    struct tokenizer *tokenizer = NULL;
    char path[512], *text = json_text(file, 0);

    snprintf(path, sizeof path, "%s/tokenizer.json", test_folder());
    CHECK_OK(file_write_durable(path, text, strlen(text), st), *st);
    free(text);
    json_free(file);
    return tokenizer_open(&tokenizer, path, st) ? tokenizer : NULL;
}

static struct tokenizer *good(void)
{
    struct status st = { 0 };
    struct tokenizer *tokenizer = opened(small_tokenizer(), &st);

    CHECK_STR(st.text, "");
    return tokenizer;
}

/* "97 258": the ids of a text whose bytes [from, to) are literal. */
static const char *ids_of(const struct tokenizer *tokenizer, const char *text, size_t from, size_t to)
{
    static char out[512];
    uint32_t ids[64];
    struct token_ids list = { ids, ARRAY_LEN(ids), 0 };
    struct status st = { 0 };
    size_t used = 0;

    CHECK_OK(tokenizer_encode(tokenizer, &(struct tokenizer_text){ text, strlen(text), from, to }, &list,
                              &st),
             st);
    out[0] = '\0';
    for (size_t i = 0; i < list.count; i++)
        used += (size_t)snprintf(out + used, sizeof out - used, "%s%u", i > 0 ? " " : "", ids[i]);
    return out;
}

TEST(merges_go_by_rank_then_from_the_left)
{
    struct tokenizer *tokenizer = good();

    CHECK_STR(ids_of(tokenizer, "abc", 0, 0), "97 258");
    CHECK_STR(ids_of(tokenizer, "abab", 0, 0), "256 256");
    CHECK_STR(ids_of(tokenizer, "ab a", 0, 0), "256 259");
    CHECK_STR(ids_of(tokenizer, "", 0, 0), "");
    tokenizer_close(tokenizer);
}

TEST(special_tokens_are_cut_out_longest_first_unless_somebody_typed_them)
{
    struct tokenizer *tokenizer = good();
    const char *typed_text = "60 124 105 109 95 101 110 100 124 62";

    CHECK_STR(ids_of(tokenizer, "a<|im_end|>b", 0, 0), "97 300 98");
    CHECK_STR(ids_of(tokenizer, "<|im_end|>>", 0, 0), "301");
    CHECK_STR(ids_of(tokenizer, "<|im_end|>", 0, 10), typed_text);
    CHECK_STR(ids_of(tokenizer, "<|im_end|>", 9, 10), typed_text);
    CHECK_STR(ids_of(tokenizer, "a<|im_end|>", 0, 1), "97 300");
    CHECK_STR(ids_of(tokenizer, "<call>", 0, 6), "302");
    tokenizer_close(tokenizer);
}

TEST(text_is_brought_to_nfc_and_a_space_is_unicodes)
{
    struct tokenizer *tokenizer = good();

    CHECK_STR(ids_of(tokenizer, "e\xcc\x81", 0, 0), "195 169");
    /* U+180E is no White_Space: it joins the letter after it as one word, where a space would not merge. */
    CHECK_STR(ids_of(tokenizer, "\xe1\xa0\x8e\n", 0, 0), "225 160 142 10");
    tokenizer_close(tokenizer);
}

TEST(a_long_word_takes_little_time_and_the_room_is_respected)
{
    enum { BYTES = TOKENIZER_TEXT_BYTES_MAX };
    struct tokenizer *tokenizer = good();
    char *text = malloc(BYTES + 1);
    uint32_t *ids = malloc(BYTES * sizeof *ids);
    struct token_ids list = { ids, BYTES / 2, 0 };
    struct status st = { 0 };

    for (size_t i = 0; i < BYTES + 1; i++)
        text[i] = i % 2 == 0 ? 'a' : 'b';
    CHECK_OK(tokenizer_encode(tokenizer, &(struct tokenizer_text){ .text = text, .len = BYTES }, &list, &st),
             st);
    CHECK_EQ(list.count, BYTES / 2);
    list.room = BYTES / 2 - 1;
    CHECK(!tokenizer_encode(tokenizer, &(struct tokenizer_text){ .text = text, .len = BYTES }, &list, &st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    CHECK(
        !tokenizer_encode(tokenizer, &(struct tokenizer_text){ .text = text, .len = BYTES + 1 }, &list, &st));
    CHECK_HAS(st.text, "at most 262144");
    CHECK(!tokenizer_encode(tokenizer, &(struct tokenizer_text){ .text = "\xff", .len = 1 }, &list, &st));
    CHECK_HAS(st.text, "not UTF-8");
    free(ids);
    free(text);
    tokenizer_close(tokenizer);
}

TEST(a_stream_of_ids_gives_whole_sequences_only)
{
    static const uint32_t euro_cut[] = { 0xe2, 0x82, 0xac, 0xe2, 0x82, 'a', 0xf0, 0x9f };
    static const char *const pieces[] = { "",
                                          "",
                                          "\xe2\x82\xac",
                                          "",
                                          "",
                                          "\xef\xbf\xbd"
                                          "a",
                                          "",
                                          "" };
    struct tokenizer *tokenizer = good();
    struct token_decoder decoder = { 0 };
    char out[TOKEN_DECODER_OUT_BYTES];
    size_t len;

    for (size_t i = 0; i < ARRAY_LEN(euro_cut); i++) {
        len = token_decoder_push(&decoder, tokenizer, euro_cut[i], out);
        CHECK_EQ(len, strlen(pieces[i]));
        CHECK_MEM(out, pieces[i], len);
    }
    CHECK_EQ(token_decoder_end(&decoder, out), 3);
    CHECK_EQ(token_decoder_end(&decoder, out), 0);
    CHECK_EQ(token_decoder_push(&decoder, tokenizer, 300, out), 0); /* special: no text */
    CHECK_EQ(token_decoder_push(&decoder, tokenizer, 99999, out), 0);
    CHECK_EQ(token_decoder_push(&decoder, tokenizer, 302, out), 6);
    CHECK_EQ(token_decoder_push(&decoder, tokenizer, 0xc0, out), 3); /* never begins a sequence */
    tokenizer_close(tokenizer);
}

TEST(files_of_another_kind_are_refused_by_field)
{
    static const char *const fields[][3] = {
        { "model", "type", "model.type" },
        { "normalizer", "type", "'normalizer'" },
        { "pre_tokenizer", "type", "'pre_tokenizer'" },
        { "decoder", "type", "'decoder'" },
    };
    struct status st = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        struct json *file = small_tokenizer();

        json_set_str((struct json *)(uintptr_t)json_get(file, fields[i][0]), fields[i][1], "Other");
        CHECK(opened(file, &st) == NULL);
        CHECK_HAS(st.text, fields[i][2]);
        CHECK_EQ(st.code, STATUS_INVALID);
    }
}

/* A missing use_regex is true in the reference's library, and the other two must be there. */
TEST(a_pre_tokenizer_must_say_no_to_what_is_not_done_here)
{
    static const struct {
        size_t part; /* of the sequence */
        const char *key;
    } rows[] = { { 0, "invert" }, { 1, "add_prefix_space" }, { 1, "use_regex" } };
    struct status st = { 0 };

    for (size_t i = 0; i < 2 * ARRAY_LEN(rows); i++) {
        struct json *file = small_tokenizer();
        const struct json *list = json_get(json_get(file, "pre_tokenizer"), "pretokenizers");
        struct json *part = (struct json *)(uintptr_t)json_at(list, rows[i / 2].part);

        if (i % 2 == 0)
            json_set_bool(part, rows[i / 2].key, true);
        else
            json_set_str(part, rows[i / 2].key, NULL);
        CHECK(opened(file, &st) == NULL);
        CHECK_EQ(st.code, STATUS_INVALID);
        CHECK_HAS(st.text, "'pre_tokenizer'");
    }
}

TEST(broken_vocabularies_are_refused)
{
    struct json *file = small_tokenizer();
    struct json *vocab = (struct json *)(uintptr_t)json_get(json_get(file, "model"), "vocab");
    struct status st = { 0 };

    json_set_u64(vocab, "twice", 97);
    CHECK(opened(file, &st) == NULL);
    CHECK_HAS(st.text, "two tokens have the id 97");

    file = small_tokenizer();
    json_append_str((struct json *)(uintptr_t)json_get(json_get(file, "model"), "merges"), "x y");
    CHECK(opened(file, &st) == NULL);
    CHECK_HAS(st.text, "model.merges[4]");

    file = small_tokenizer();
    json_set_f64((struct json *)(uintptr_t)json_get(json_get(file, "model"), "vocab"), "far", 1e18);
    CHECK(opened(file, &st) == NULL);
    CHECK_HAS(st.text, "token 'far'");
}

TEST_MAIN()
