#include "kvstore/ageing_policy.h"

#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "base/name.h"

#define NS_PER_S 1000000000ll

/* A part of the text, up to a mark or the end. */
struct word {
    const char *text;
    size_t len;
};

static struct word take_word(const char **text, char mark)
{
    struct word word = { .text = *text, .len = strcspn(*text, (char[]){ mark, '\0' }) };

    *text += word.len + ((*text)[word.len] == mark);
    return word;
}

static bool is_word(struct word word, const char *text)
{
    return word.len == strlen(text) && memcmp(word.text, text, word.len) == 0;
}

static bool fail(struct word word, const char *why, struct status *st)
{
    return status_fail(st, STATUS_INVALID, "ageing: %.*s: %s", (int)word.len, word.text, why);
}

/* "72h", into ns. */
static bool read_time(struct word word, int64_t *ns_p, struct status *st)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
    char digits[8];
    long number;

    if (word.len < 2 || word.len > sizeof digits || strspn(word.text, "0123456789") != word.len - 1)
        return fail(word, "a time is a number and s, m, h or d", st);
    memcpy(digits, word.text, word.len - 1);
    digits[word.len - 1] = '\0';
    number = strtol(digits, NULL, 10);
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (word.text[word.len - 1] == units[i].unit && number > 0) {
            if (number > 36500ll * 86400 / units[i].seconds)
                return fail(word, "at most 36500d", st);
            *ns_p = number * units[i].seconds * NS_PER_S;
            return true;
        }
    return fail(word, "a time is a number and s, m, h or d", st);
}

/* On top of what the steps before did. */
static bool read_deed(struct word word, struct kv_aged *aged, struct status *st)
{
    char *end;
    unsigned long thin;

    if (is_word(word, "full"))
        return (aged->thin <= 1 && aged->bits == 0 && !aged->keys_only) ||
               fail(word, "what was reduced is not full again", st);
    if (is_word(word, "8bit")) {
        aged->bits = 8;
        return true;
    }
    if (is_word(word, "keys")) {
        aged->keys_only = true;
        return true;
    }
    if (word.len < 6 || strncmp(word.text, "thin/", 5) != 0)
        return fail(word, "a step is full, thin/N, 8bit or keys", st);
    thin = strtoul(word.text + 5, &end, 10);
    if (word.text[5] < '1' || word.text[5] > '9' || end != word.text + word.len || thin < 2 ||
        thin > AGEING_THIN_MAX)
        return fail(word, "thin/N keeps one frame in N, and N is 2 to 1048576", st);
    if (aged->thin > 1 && thin % aged->thin != 0)
        return fail(word, "N must be a multiple of the N before: of those frames some are left", st);
    aged->thin = (uint32_t)thin;
    return true;
}

static bool read_steps(struct ageing_class *class, struct word steps, struct status *st)
{
    const char *at = steps.text, *end = steps.text + steps.len;
    struct ageing_step step = { 0 };

    while (at < end) {
        struct word part = { .text = at, .len = strcspn(at, ",;") };
        const char *colon = memchr(part.text, ':', part.len);
        int64_t before_ns = step.until_ns;

        if (colon == NULL)
            return fail(part, "a step is named with its end: full:24h", st);
        if (!read_deed((struct word){ part.text, (size_t)(colon - part.text) }, &step.aged, st) ||
            !read_time((struct word){ colon + 1, (size_t)(part.text + part.len - colon - 1) }, &step.until_ns,
                       st))
            return false;
        if (step.until_ns <= before_ns)
            return fail(part, "ends before the step before it", st);
        if (class->count == AGEING_STEPS_MAX)
            return fail(part, "more steps than a class may have", st);
        class->steps[class->count++] = step;
        at += part.len + (at + part.len < end);
    }
    return true;
}

bool ageing_policy_parse(struct ageing_policy *policy, const char *text, struct status *st)
{
    memset(policy, 0, sizeof *policy);
    while (*text != '\0') {
        struct ageing_class *class = &policy->classes[policy->count];
        struct word whole = take_word(&text, ';');
        const char *equals = memchr(whole.text, '=', whole.len);
        char name[LIMIT_NAME_BYTES + 1];

        if (policy->count == AGEING_CLASSES_MAX)
            return fail(whole, "more classes than there may be", st);
        if (equals == NULL || (size_t)(equals - whole.text) >= sizeof name)
            return fail(whole, "a class is CLASS=STEP:TIME,...", st);
        memcpy(name, whole.text, (size_t)(equals - whole.text));
        name[equals - whole.text] = '\0';
        if (!name_check("class", name, st))
            return status_wrap(st, "ageing");
        for (uint32_t i = 0; i < policy->count; i++)
            if (strcmp(policy->classes[i].name, name) == 0)
                return fail(whole, "this class is there already", st);
        text_copy(class->name, sizeof class->name, name);
        if (!read_steps(class, (struct word){ equals + 1, whole.len - (size_t)(equals + 1 - whole.text) },
                        st))
            return false;
        policy->count++;
    }
    return true;
}

const struct ageing_class *ageing_policy_find(const struct ageing_policy *policy, const char *name)
{
    static const struct ageing_class full = { .name = "default" };

    if (name[0] == '\0')
        name = full.name;
    for (uint32_t i = 0; i < policy->count; i++)
        if (strcmp(policy->classes[i].name, name) == 0)
            return &policy->classes[i];
    return strcmp(name, full.name) == 0 ? &full : NULL;
}

uint32_t ageing_class_step(const struct ageing_class *class, int64_t age_ns, uint32_t further)
{
    uint32_t step = 0;

    while (step < class->count && age_ns >= class->steps[step].until_ns)
        step++;
    return step + further < class->count ? step + further : class->count;
}

int64_t ageing_policy_shortest_ns(const struct ageing_policy *policy)
{
    int64_t shortest_ns = INT64_MAX;

    for (uint32_t i = 0; i < policy->count; i++) {
        const struct ageing_class *class = &policy->classes[i];

        for (uint32_t n = 0; n < class->count; n++) {
            int64_t ns = class->steps[n].until_ns - (n == 0 ? 0 : class->steps[n - 1].until_ns);

            shortest_ns = ns < shortest_ns ? ns : shortest_ns;
        }
    }
    return shortest_ns;
}
