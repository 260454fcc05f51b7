#include "model/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "base/require.h"

struct bpe_pair {
    uint32_t left, right; /* left == UINT32_MAX: free */
    uint32_t rank, merged;
};

/* A symbol of the word being merged; `next` and `previous` are indices, UINT32_MAX at the ends. A merged-away
 * symbol has id UINT32_MAX. */
struct bpe_symbol {
    uint32_t id, previous, next;
};

struct bpe_candidate {
    uint32_t rank, at; /* the pair (at, its next) */
    uint32_t left, right, merged;
};

#define NO_SYMBOL UINT32_MAX /* also: a free pair */

static size_t slot_of(const struct bpe *bpe, uint32_t left, uint32_t right)
{
    uint64_t key = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;

    return (size_t)(key >> 32) & (bpe->room - 1);
}

bool bpe_init(struct bpe *bpe, size_t count, struct status *st)
{
    size_t room = 16;

    while (room < count * 2)
        room *= 2;
    bpe->pairs = malloc(room * sizeof *bpe->pairs);
    if (bpe->pairs == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for %zu merges", count);
    memset(bpe->pairs, 0xff, room * sizeof *bpe->pairs);
    bpe->room = room;
    bpe->count = 0;
    return true;
}

void bpe_deinit(struct bpe *bpe)
{
    free(bpe->pairs);
    bpe->pairs = NULL;
}

static struct bpe_pair *find(const struct bpe *bpe, uint32_t left, uint32_t right)
{
    size_t slot = slot_of(bpe, left, right);

    while (bpe->pairs[slot].left != NO_SYMBOL &&
           (bpe->pairs[slot].left != left || bpe->pairs[slot].right != right))
        slot = (slot + 1) & (bpe->room - 1);
    return &bpe->pairs[slot];
}

void bpe_add(struct bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t merged)
{
    struct bpe_pair *pair = find(bpe, left, right);

    if (pair->left != NO_SYMBOL)
        return;
    REQUIRE(bpe->count < bpe->room / 2);
    *pair = (struct bpe_pair){ left, right, rank, merged };
    bpe->count++;
}

bool bpe_scratch_init(struct bpe_scratch *scratch, size_t bytes, struct status *st)
{
    memset(scratch, 0, sizeof *scratch);
    scratch->bytes = bytes;
    scratch->symbols = malloc((bytes + 1) * sizeof *scratch->symbols);
    /* A pair is offered once at the start and at most twice per merge, and there are fewer merges than bytes.
     */
    scratch->heap = malloc((3 * bytes + 1) * sizeof *scratch->heap);
    if (scratch->symbols != NULL && scratch->heap != NULL)
        return true;
    bpe_scratch_deinit(scratch);
    return status_fail(st, STATUS_EXHAUSTED, "no memory to tokenize %zu bytes", bytes);
}

void bpe_scratch_deinit(struct bpe_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->heap);
    memset(scratch, 0, sizeof *scratch);
}

static bool is_before(const struct bpe_candidate *a, const struct bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(struct bpe_scratch *scratch, struct bpe_candidate candidate)
{
    struct bpe_candidate *heap = scratch->heap;
    size_t at = scratch->heap_count++;

    while (at > 0 && is_before(&candidate, &heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = candidate;
}

static struct bpe_candidate heap_pop(struct bpe_scratch *scratch)
{
    struct bpe_candidate *heap = scratch->heap, top = heap[0], last = heap[--scratch->heap_count];
    size_t at = 0, count = scratch->heap_count;

    for (size_t child = 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && is_before(&heap[child + 1], &heap[child]))
            child++;
        if (!is_before(&heap[child], &last))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return top;
}

static void offer(const struct bpe *bpe, struct bpe_scratch *scratch, uint32_t at)
{
    const struct bpe_symbol *left = &scratch->symbols[at];
    const struct bpe_pair *pair;

    if (left->next == NO_SYMBOL)
        return;
    pair = find(bpe, left->id, scratch->symbols[left->next].id);
    if (pair->left != NO_SYMBOL)
        heap_push(scratch, (struct bpe_candidate){ pair->rank, at, pair->left, pair->right, pair->merged });
}

static void merge(const struct bpe *bpe, struct bpe_scratch *scratch, const struct bpe_candidate *candidate)
{
    struct bpe_symbol *symbols = scratch->symbols, *left = &symbols[candidate->at], *right;

    if (left->id != candidate->left || left->next == NO_SYMBOL)
        return;
    right = &symbols[left->next];
    if (right->id != candidate->right)
        return; /* one of the two has changed since this pair was offered */
    left->id = candidate->merged;
    left->next = right->next;
    right->id = NO_SYMBOL;
    if (left->next != NO_SYMBOL)
        symbols[left->next].previous = candidate->at;
    if (left->previous != NO_SYMBOL)
        offer(bpe, scratch, left->previous);
    offer(bpe, scratch, candidate->at);
}

size_t bpe_word(const struct bpe *bpe, struct bytes word, struct bpe_scratch *scratch, uint32_t *ids)
{
    struct bpe_symbol *symbols = scratch->symbols;
    size_t count = 0;

    REQUIRE(word.len > 0 && word.len <= scratch->bytes && word.len < NO_SYMBOL);
    for (size_t i = 0; i < word.len; i++) {
        symbols[i].id = bpe->byte_ids[word.data[i]];
        symbols[i].previous = i == 0 ? NO_SYMBOL : (uint32_t)i - 1;
        symbols[i].next = i + 1 == word.len ? NO_SYMBOL : (uint32_t)i + 1;
    }
    scratch->heap_count = 0;
    for (size_t i = 0; i + 1 < word.len; i++)
        offer(bpe, scratch, (uint32_t)i);
    while (scratch->heap_count > 0) {
        struct bpe_candidate candidate = heap_pop(scratch);

        merge(bpe, scratch, &candidate);
    }
    for (uint32_t at = 0; at != NO_SYMBOL; at = symbols[at].next)
        ids[count++] = symbols[at].id;
    return count;
}
