/* tokenizer.json (https://huggingface.co/docs/tokenizers): the fields that change what ids come out are read
 * or, when they ask for something this tokenizer does not do, refused. Truncation and padding belong to the
 * caller there and here, so they are not read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/require.h"
#include "model/tokenizer_data.h"

enum { ADDED_TOKENS_MAX = 4096, PATTERN_BYTES_MAX = 4096, MATCH_LIMIT = 10000000, BYTE_SYMBOLS = 0x144 };

uint32_t tokenizer_byte_symbol(uint8_t byte)
{
    if ((byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae)
        return byte;
    if (byte <= 0x20)
        return 0x100u + byte;
    return byte == 0xad ? 0x143u : 0x100u + 0x21u + (byte - 0x7fu);
}

static size_t utf8_put(uint32_t symbol, char out[5])
{
    size_t len = symbol < 0x80 ? 1 : 2; /* byte symbols end at U+0143 */

    if (len == 1)
        out[0] = (char)symbol;
    else {
        out[0] = (char)(0xc0 | symbol >> 6);
        out[1] = (char)(0x80 | (symbol & 0x3f));
    }
    out[len] = '\0';
    return len;
}

/* Reverses tokenizer_byte_symbol() over a token; a token with any other character is its own UTF-8 text. */
static size_t token_bytes(const char *token, size_t len, uint8_t *out)
{
    int16_t bytes[BYTE_SYMBOLS];
    size_t count = 0;

    memset(bytes, 0xff, sizeof bytes);
    for (uint32_t byte = 0; byte < 256; byte++)
        bytes[tokenizer_byte_symbol((uint8_t)byte)] = (int16_t)byte;
    for (size_t i = 0; i < len;) {
        uint8_t lead = (uint8_t)token[i];
        uint32_t symbol = lead < 0x80 ? lead : BYTE_SYMBOLS;

        if (lead >= 0xc0 && lead < 0xe0 && i + 1 < len)
            symbol = (lead & 0x1fu) << 6 | ((uint8_t)token[i + 1] & 0x3fu);
        if (symbol >= BYTE_SYMBOLS || bytes[symbol] < 0) {
            memcpy(out, token, len);
            return len;
        }
        out[count++] = (uint8_t)bytes[symbol];
        i += lead < 0x80 ? 1 : 2;
    }
    return count;
}

static bool refuse(struct status *st, const char *what)
{
    return status_fail(st, STATUS_INVALID, "%s; expected a byte-level BPE tokenizer as Qwen2's", what);
}

static bool type_is(const struct json *value, const char *type)
{
    const char *found = json_str(json_get(value, "type"));

    return found != NULL && strcmp(found, type) == 0;
}

static bool read_normalizer(struct tokenizer *tokenizer, const struct json *normalizer, struct status *st)
{
    const struct json *list = json_get(normalizer, "normalizers");

    if (normalizer == NULL || (type_is(normalizer, "Sequence") && json_len(list) == 0))
        return true;
    if (type_is(normalizer, "Sequence") && json_len(list) == 1)
        normalizer = json_at(list, 0);
    if (!type_is(normalizer, "NFC"))
        return refuse(st, "field 'normalizer' is neither null nor NFC");
    tokenizer->nfc = true;
    return true;
}

/* The file's patterns are Oniguruma's, where \s is Unicode's White_Space; PCRE2's \s has U+180E too. So \s
 * and \S are written out. Returns false when the result does not fit. */
static bool translate_pattern(const char *from, char *to, size_t room)
{
    static const char space[] =
        "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
    bool in_class = false;
    size_t used = 0;

    for (size_t i = 0; from[i] != '\0'; i++) {
        const char *before = "", *after = "", *text = from + i;
        size_t len = 1;

        if (from[i] == '\\' && from[i + 1] != '\0') {
            len = 2;
            if (from[i + 1] == 's' || (from[i + 1] == 'S' && !in_class)) {
                before = in_class ? "" : from[i + 1] == 's' ? "[" : "[^";
                after = in_class ? "" : "]";
                text = space;
                len = sizeof space - 1;
            } else if (from[i + 1] == 'S')
                return false;
            i++;
        } else if (from[i] == '[' && !in_class) {
            in_class = true;
            if (from[i + 1] == '^')
                len++;
            if (from[i + len] == ']')
                len++;
            i += len - 1;
        } else if (from[i] == ']')
            in_class = false;
        if (used + len + strlen(before) + strlen(after) + 1 > room)
            return false;
        used += (size_t)snprintf(to + used, room - used, "%s%.*s%s", before, (int)len, text, after);
    }
    to[used] = '\0';
    return true;
}

static bool compile_pattern(struct tokenizer *tokenizer, const char *pattern, struct status *st)
{
    char text[PATTERN_BYTES_MAX];
    PCRE2_UCHAR why[128];
    PCRE2_SIZE at;
    int error;

    if (!translate_pattern(pattern, text, sizeof text))
        return refuse(st, "field 'pre_tokenizer' has a pattern that is too long or has \\S in a class");
    tokenizer->pattern =
        pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
    if (tokenizer->pattern == NULL) {
        pcre2_get_error_message(error, why, sizeof why);
        return status_fail(st, STATUS_INVALID, "field 'pre_tokenizer' has a bad pattern at %zu: %s", at,
                           (char *)why);
    }
    /* Without a JIT (or memory for it) the interpreter gives the same words, slower. */
    (void)pcre2_jit_compile(tokenizer->pattern, PCRE2_JIT_COMPLETE);
    tokenizer->limits = pcre2_match_context_create(NULL);
    if (tokenizer->limits == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a pattern");
    pcre2_set_match_limit(tokenizer->limits, MATCH_LIMIT);
    return true;
}

/* Missing is not false: the reference's reader takes use_regex for true then, and refuses the others. */
static bool is_false(const struct json *value)
{
    return json_is_bool(value) && !json_bool(value);
}

/* Sequence[Split(Regex, Isolated), ByteLevel(no prefix space, no pattern of its own)]. */
static bool read_pre_tokenizer(struct tokenizer *tokenizer, const struct json *pre, struct status *st)
{
    const struct json *list = json_get(pre, "pretokenizers");
    const struct json *split = json_at(list, 0), *bytes = json_at(list, 1);
    const char *pattern = json_str(json_get(json_get(split, "pattern"), "Regex"));
    const char *behavior = json_str(json_get(split, "behavior"));

    if (!type_is(pre, "Sequence") || json_len(list) != 2 || !type_is(split, "Split") ||
        !type_is(bytes, "ByteLevel") || pattern == NULL)
        return refuse(st, "field 'pre_tokenizer' is not a Split by a Regex followed by ByteLevel");
    if (behavior == NULL || strcmp(behavior, "Isolated") != 0 || !is_false(json_get(split, "invert")))
        return refuse(st, "field 'pre_tokenizer' splits in another way than Isolated, not inverted");
    if (!is_false(json_get(bytes, "add_prefix_space")) || !is_false(json_get(bytes, "use_regex")))
        return refuse(st,
                      "field 'pre_tokenizer' must set ByteLevel's add_prefix_space and use_regex to false");
    return compile_pattern(tokenizer, pattern, st);
}

static bool is_empty_text(const struct json *value)
{
    return value == NULL || (json_is_string(value) && json_len(value) == 0);
}

static bool check_kind(const struct json *file, struct status *st)
{
    const struct json *model = json_get(file, "model"), *post = json_get(file, "post_processor");

    if (json_get(model, "type") != NULL && !type_is(model, "BPE"))
        return refuse(st, "field 'model.type' is not BPE");
    if (!json_is_object(json_get(model, "vocab")) || !json_is_array(json_get(model, "merges")))
        return refuse(st, "field 'model' lacks 'vocab' or 'merges'");
    if (json_bool(json_get(model, "byte_fallback")) || json_bool(json_get(model, "ignore_merges")) ||
        json_get(model, "dropout") != NULL || !is_empty_text(json_get(model, "continuing_subword_prefix")) ||
        !is_empty_text(json_get(model, "end_of_word_suffix")))
        return refuse(st, "field 'model' asks for byte_fallback, ignore_merges, dropout, prefix or suffix");
    if (post != NULL && !type_is(post, "ByteLevel"))
        return refuse(st, "field 'post_processor' is neither null nor ByteLevel");
    if (!type_is(json_get(file, "decoder"), "ByteLevel"))
        return refuse(st, "field 'decoder' is not ByteLevel");
    return true;
}

static bool read_id(const struct json *value, uint32_t *id_p)
{
    double number = json_number(value);

    if (!json_is_number(value) || !(number >= 0) || number >= TOKENIZER_VOCABULARY_MAX)
        return false;
    *id_p = (uint32_t)number;
    return number == *id_p;
}

/* One pass over vocabulary and added tokens: the largest id and the bytes all texts take. */
static bool measure(const struct json *vocab, const struct json *added, uint32_t *id_count_p, size_t *bytes_p,
                    struct status *st)
{
    uint32_t id, most = 0;
    size_t bytes = 0;

    for (void *at = json_first(vocab); at != NULL; at = json_next(vocab, at)) {
        if (!read_id(json_value(at), &id) || strlen(json_key(at)) > TOKENIZER_TOKEN_BYTES_MAX)
            return status_fail(st, STATUS_INVALID, "token '%.64s' is too long or its id is not 0 to %d",
                               json_key(at), TOKENIZER_VOCABULARY_MAX - 1);
        most = id > most ? id : most;
        bytes += strlen(json_key(at));
    }
    for (size_t i = 0; i < json_len(added); i++) {
        const char *content = json_str(json_get(json_at(added, i), "content"));

        if (content == NULL || content[0] == '\0' || strlen(content) > TOKENIZER_TOKEN_BYTES_MAX ||
            !read_id(json_get(json_at(added, i), "id"), &id))
            return status_fail(st, STATUS_INVALID, "field 'added_tokens[%zu]' lacks a content or an id", i);
        most = id > most ? id : most;
        bytes += strlen(content);
    }
    *id_count_p = most + 1;
    *bytes_p = bytes;
    return true;
}

static int longest_first(const void *a, const void *b)
{
    const struct added_token *x = a, *y = b;

    return x->len > y->len ? -1 : x->len < y->len;
}

static bool read_added(struct tokenizer *tokenizer, const struct json *list, uint8_t **end, struct status *st)
{
    if (json_len(list) > ADDED_TOKENS_MAX)
        return status_fail(st, STATUS_INVALID, "more than %d added tokens", ADDED_TOKENS_MAX);
    tokenizer->added = calloc(json_len(list) + 1, sizeof *tokenizer->added);
    if (tokenizer->added == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the added tokens");
    for (size_t i = 0; i < json_len(list); i++) {
        const struct json *entry = json_at(list, i);
        struct added_token *token = &tokenizer->added[i];

        token->content = strdup(json_str(json_get(entry, "content")));
        if (token->content == NULL)
            return status_fail(st, STATUS_EXHAUSTED, "no memory for the added tokens");
        tokenizer->added_count++;
        token->len = strlen(token->content);
        read_id(json_get(entry, "id"), &token->id);
        token->special = json_bool(json_get(entry, "special"));
        token->normalized = json_bool(json_get(entry, "normalized"));
        if (json_bool(json_get(entry, "lstrip")) || json_bool(json_get(entry, "rstrip")) ||
            json_bool(json_get(entry, "single_word")) || (token->special && token->normalized))
            return status_fail(st, STATUS_INVALID,
                               "added token '%.64s' asks for lstrip, rstrip, single_word or is special and "
                               "normalized; these are not supported",
                               token->content);
        tokenizer->added_starts[(uint8_t)token->content[0]] = true;
        tokenizer->texts[token->id] = (struct bytes){ *end, token->special ? 0 : token->len };
        memcpy(*end, token->content, token->len);
        *end += token->len;
    }
    qsort(tokenizer->added, tokenizer->added_count, sizeof *tokenizer->added, longest_first);
    return true;
}

static bool read_vocabulary(struct tokenizer *tokenizer, const struct json *vocab, const struct json *added,
                            struct status *st)
{
    uint8_t *end;
    size_t bytes = 0;

    if (!measure(vocab, added, &tokenizer->id_count, &bytes, st))
        return false;
    tokenizer->texts = calloc(tokenizer->id_count, sizeof *tokenizer->texts);
    tokenizer->pool = end = malloc(bytes + 1);
    if (tokenizer->texts == NULL || tokenizer->pool == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for %u tokens", tokenizer->id_count);
    for (void *at = json_first(vocab); at != NULL; at = json_next(vocab, at)) {
        struct bytes *text;
        uint32_t id = 0;

        read_id(json_value(at), &id);
        text = &tokenizer->texts[id];
        if (text->data != NULL)
            return status_fail(st, STATUS_INVALID, "two tokens have the id %u, one is '%.64s'", id,
                               json_key(at));
        *text = (struct bytes){ end, token_bytes(json_key(at), strlen(json_key(at)), end) };
        end += text->len;
    }
    return read_added(tokenizer, added, &end, st);
}

static bool read_byte_ids(struct tokenizer *tokenizer, const struct json *vocab, struct status *st)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        char symbol[5];

        utf8_put(tokenizer_byte_symbol((uint8_t)byte), symbol);
        if (!read_id(json_get(vocab, symbol), &tokenizer->bpe.byte_ids[byte]))
            return status_fail(st, STATUS_INVALID,
                               "field 'model.vocab' lacks '%s', the symbol of byte 0x%02x", symbol, byte);
    }
    return true;
}

/* "left right" or ["left", "right"]; both exist in published files. */
static bool split_merge(const struct json *merge, char *text, size_t room, const char **right_p)
{
    const char *left = json_str(merge), *right;

    if (left != NULL) {
        right = strchr(left, ' ');
        if (right == NULL || strchr(right + 1, ' ') != NULL)
            return false;
        *right_p = text + (right - left) + 1;
        if (snprintf(text, room, "%s", left) >= (int)room)
            return false;
        text[right - left] = '\0';
        return true;
    }
    left = json_str(json_at(merge, 0));
    right = json_str(json_at(merge, 1));
    if (left == NULL || right == NULL || json_len(merge) != 2 || strlen(left) + strlen(right) + 2 > room)
        return false;
    *right_p = text + strlen(left) + 1;
    memcpy(text, left, strlen(left) + 1);
    memcpy(text + strlen(left) + 1, right, strlen(right) + 1);
    return true;
}

static bool read_merges(struct tokenizer *tokenizer, const struct json *vocab, const struct json *merges,
                        struct status *st)
{
    size_t count = json_len(merges);

    if (count >= TOKENIZER_VOCABULARY_MAX)
        return status_fail(st, STATUS_INVALID, "more than %d merges", TOKENIZER_VOCABULARY_MAX);
    if (!bpe_init(&tokenizer->bpe, count, st))
        return false;
    for (size_t rank = 0; rank < count; rank++) {
        char left[2 * TOKENIZER_TOKEN_BYTES_MAX + 2], merged[2 * TOKENIZER_TOKEN_BYTES_MAX + 2];
        uint32_t left_id, right_id, merged_id;
        const char *right;

        if (!split_merge(json_at(merges, rank), left, sizeof left, &right))
            return status_fail(st, STATUS_INVALID, "field 'model.merges[%zu]' is not a pair of tokens", rank);
        snprintf(merged, sizeof merged, "%s%s", left, right);
        if (!read_id(json_get(vocab, left), &left_id) || !read_id(json_get(vocab, right), &right_id) ||
            !read_id(json_get(vocab, merged), &merged_id))
            return status_fail(
                st, STATUS_INVALID,
                "field 'model.merges[%zu]' merges '%.64s' and '%.64s', which are not all (with "
                "their union) in the vocabulary",
                rank, left, right);
        bpe_add(&tokenizer->bpe, left_id, right_id, (uint32_t)rank, merged_id);
    }
    return true;
}

static bool load(struct tokenizer *tokenizer, const struct json *file, struct status *st)
{
    const struct json *vocab = json_get(json_get(file, "model"), "vocab");

    return check_kind(file, st) && read_normalizer(tokenizer, json_get(file, "normalizer"), st) &&
           read_pre_tokenizer(tokenizer, json_get(file, "pre_tokenizer"), st) &&
           read_vocabulary(tokenizer, vocab, json_get(file, "added_tokens"), st) &&
           read_byte_ids(tokenizer, vocab, st) &&
           read_merges(tokenizer, vocab, json_get(json_get(file, "model"), "merges"), st);
}

bool tokenizer_open(struct tokenizer **tokenizer_p, const char *path, struct status *st)
{
    struct json *file = json_parse_file(path, TOKENIZER_FILE_BYTES_MAX, st);
    struct tokenizer *tokenizer;
    bool ok;

    if (file == NULL)
        return false;
    tokenizer = calloc(1, sizeof *tokenizer);
    if (tokenizer == NULL) {
        json_free(file);
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a tokenizer");
    }
    ok = load(tokenizer, file, st) || status_wrap(st, "%s", path);
    json_free(file);
    if (!ok) {
        tokenizer_close(tokenizer);
        return false;
    }
    *tokenizer_p = tokenizer;
    return true;
}

void tokenizer_close(struct tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    pcre2_code_free(tokenizer->pattern);
    pcre2_match_context_free(tokenizer->limits);
    bpe_deinit(&tokenizer->bpe);
    for (size_t i = 0; i < tokenizer->added_count; i++)
        free(tokenizer->added[i].content);
    free(tokenizer->added);
    free(tokenizer->texts);
    free(tokenizer->pool);
    free(tokenizer);
}
