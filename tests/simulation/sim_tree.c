#include "sim_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"

static void *grown(void *list, uint32_t *room, uint32_t wanted, size_t each)
{
    uint32_t before = *room;

    if (wanted <= before)
        return list;
    *room = wanted < 2 * before ? 2 * before : wanted + 7;
    list = realloc(list, *room * each);
    REQUIRE(list != NULL);
    memset((char *)list + before * each, 0, (*room - before) * each);
    return list;
}

static uint32_t pages_of(uint64_t bytes)
{
    return (uint32_t)((bytes + SIM_PAGE_BYTES - 1) / SIM_PAGE_BYTES);
}

/* --- nodes --- */

struct sim_node *sim_node_new(struct sim_node *root, bool is_folder, const char *name)
{
    struct sim_node *node = calloc(1, sizeof *node);

    REQUIRE(node != NULL && strlen(name) < SIM_NAME_BYTES);
    node->is_folder = is_folder;
    snprintf(node->name, sizeof node->name, "%s", name);
    if (root != NULL) {
        node->next = root->next;
        root->next = node;
    }
    return node;
}

static void page_drop(struct sim_page *page)
{
    if (page != NULL && --page->refs == 0)
        free(page);
}

static void content_drop(struct sim_content *content)
{
    for (uint32_t i = 0; i < content->room; i++)
        page_drop(content->pages[i]);
    free(content->pages);
    *content = (struct sim_content){ 0 };
}

void sim_tree_free(struct sim_node *root)
{
    while (root != NULL) {
        struct sim_node *next = root->next;

        content_drop(&root->now);
        content_drop(&root->safe);
        free(root->names.list);
        free(root->safe_names.list);
        free(root->changes);
        free(root);
        root = next;
    }
}

void sim_node_stat(const struct sim_node *node, struct stat *info)
{
    uint64_t pages = 0;

    for (uint32_t i = 0; i < node->now.room; i++)
        pages += node->now.pages[i] != NULL;
    if (node->now.is_reserved)
        pages = pages_of(node->now.length);
    if (node->is_folder)
        pages = 1;
    *info = (struct stat){ .st_mode = node->is_folder ? S_IFDIR | 0700 : S_IFREG | 0600,
                           .st_size = (off_t)node->now.length,
                           .st_blocks = (blkcnt_t)(pages * SIM_PAGE_BYTES / SIM_SECTOR_BYTES) };
}

/* --- names --- */

static int32_t name_at(const struct sim_names *names, const char *name)
{
    for (uint32_t i = 0; i < names->count; i++)
        if (strcmp(names->list[i].name, name) == 0)
            return (int32_t)i;
    return -1;
}

/* One that was written. Of another, whose definition may have failed, only what is there counts. */
static bool is_stream(const struct sim_node *node)
{
    bool has_epoch = false;

    for (uint32_t i = 0; i < node->names.count; i++)
        has_epoch |= node->names.list[i].node->is_folder;
    return has_epoch && name_at(&node->names, "stream.json") >= 0;
}

uint64_t sim_tree_bytes(const struct sim_node *root, uint64_t stream_bytes)
{
    bool has_share = is_stream(root);
    uint64_t bytes = has_share ? stream_bytes : 0;
    struct stat info;

    if (!root->is_folder) {
        sim_node_stat(root, &info);
        return (uint64_t)info.st_blocks * SIM_SECTOR_BYTES;
    }
    for (uint32_t i = 0; i < root->names.count; i++)
        if (!has_share || root->names.list[i].node->is_folder)
            bytes += sim_tree_bytes(root->names.list[i].node, stream_bytes);
    return bytes;
}

static void names_set(struct sim_names *names, const char *name, struct sim_node *node)
{
    int32_t at = name_at(names, name);

    if (at < 0) {
        names->list = grown(names->list, &names->room, names->count + 1, sizeof *names->list);
        at = (int32_t)names->count++;
        snprintf(names->list[at].name, SIM_NAME_BYTES, "%s", name);
    }
    names->list[at].node = node;
}

static void names_remove(struct sim_names *names, const char *name)
{
    int32_t at = name_at(names, name);

    if (at >= 0)
        names->list[at] = names->list[--names->count];
}

static void apply(struct sim_names *names, const struct sim_change *change)
{
    if (change->from[0] != '\0')
        names_remove(names, change->from);
    if (change->to[0] != '\0')
        names_set(names, change->to, change->node);
}

struct sim_node *sim_folder_get(const struct sim_node *folder, const char *name)
{
    int32_t at = name_at(&folder->names, name);

    if (name[0] == '\0')
        return (struct sim_node *)(uintptr_t)folder;
    return at < 0 ? NULL : folder->names.list[at].node;
}

struct sim_node *sim_tree_parent(struct sim_node *root, const char *path, const char **name_p)
{
    struct sim_node *folder = root;
    const char *at = path + strspn(path, "/"), *slash;

    while (folder != NULL && folder->is_folder && (slash = strchr(at, '/')) != NULL) {
        char part[SIM_NAME_BYTES];

        snprintf(part, sizeof part, "%.*s", (int)(slash - at), at);
        folder = sim_folder_get(folder, part);
        at = slash + 1;
    }
    *name_p = at;
    return folder != NULL && folder->is_folder ? folder : NULL;
}

void sim_folder_change(struct sim_node *folder, enum sim_deed deed, const char *from, const char *to,
                       struct sim_node *node)
{
    struct sim_change *change;

    folder->changes =
        grown(folder->changes, &folder->change_room, folder->change_count + 1, sizeof *folder->changes);
    change = &folder->changes[folder->change_count++];
    *change = (struct sim_change){ .deed = deed, .node = node };
    snprintf(change->from, sizeof change->from, "%s", from == NULL ? "" : from);
    snprintf(change->to, sizeof change->to, "%s", to == NULL ? "" : to);
    apply(&folder->names, change);
    if (deed == SIM_MADE)
        node->depth = folder->depth + 1;
}

/* --- bytes --- */

static void content_copy(struct sim_content *to, const struct sim_content *from)
{
    content_drop(to);
    *to = *from;
    to->pages = NULL;
    to->room = 0;
    to->pages = grown(NULL, &to->room, from->room, sizeof *to->pages);
    for (uint32_t i = 0; i < from->room; i++) {
        to->pages[i] = from->pages[i];
        if (to->pages[i] != NULL)
            to->pages[i]->refs++;
    }
}

static struct sim_page *page_at(const struct sim_content *content, uint32_t i)
{
    return i < content->room ? content->pages[i] : NULL;
}

size_t sim_file_read(const struct sim_node *file, void *to, size_t len, uint64_t offset)
{
    size_t done = 0;

    if (offset >= file->now.length)
        return 0;
    if (len > file->now.length - offset)
        len = (size_t)(file->now.length - offset);
    while (done < len) {
        uint64_t at = offset + done, within = at % SIM_PAGE_BYTES;
        size_t part = SIM_PAGE_BYTES - within < len - done ? (size_t)(SIM_PAGE_BYTES - within) : len - done;
        const struct sim_page *page = page_at(&file->now, (uint32_t)(at / SIM_PAGE_BYTES));

        if (page == NULL)
            memset((char *)to + done, 0, part);
        else
            memcpy((char *)to + done, page->bytes + within, part);
        done += part;
    }
    return len;
}

/* The page, for writing: not shared with what is safe. */
static struct sim_page *own_page(struct sim_content *content, uint32_t i)
{
    struct sim_page *page, *before;

    content->pages = grown(content->pages, &content->room, i + 1, sizeof *content->pages);
    before = content->pages[i];
    if (before != NULL && before->refs == 1) {
        before->is_lost = false;
        return before;
    }
    page = calloc(1, sizeof *page);
    REQUIRE(page != NULL);
    page->refs = 1;
    if (before != NULL)
        memcpy(page->bytes, before->bytes, SIM_PAGE_BYTES);
    page_drop(before);
    content->pages[i] = page;
    return page;
}

void sim_file_write(struct sim_node *file, const void *from, size_t len, uint64_t offset)
{
    for (size_t done = 0; done < len;) {
        uint64_t at = offset + done, within = at % SIM_PAGE_BYTES;
        size_t part = SIM_PAGE_BYTES - within < len - done ? (size_t)(SIM_PAGE_BYTES - within) : len - done;

        memcpy(own_page(&file->now, (uint32_t)(at / SIM_PAGE_BYTES))->bytes + within,
               (const char *)from + done, part);
        done += part;
    }
    if (offset + len > file->now.length)
        file->now.length = offset + len;
}

static void cut_pages(struct sim_content *content)
{
    for (uint32_t i = pages_of(content->length); i < content->room; i++) {
        page_drop(content->pages[i]);
        content->pages[i] = NULL;
    }
}

/* The store cuts its files at pages. */
void sim_file_resize(struct sim_node *file, uint64_t length)
{
    REQUIRE(length >= file->now.length || length % SIM_PAGE_BYTES == 0);
    file->now.length = length;
    cut_pages(&file->now);
}

bool sim_file_next_data(const struct sim_node *file, uint64_t *at)
{
    uint32_t first = (uint32_t)(*at / SIM_PAGE_BYTES);

    for (uint32_t i = first; i < file->now.room && (uint64_t)i * SIM_PAGE_BYTES < file->now.length; i++)
        if (file->now.pages[i] != NULL) {
            *at = i == first ? *at : (uint64_t)i * SIM_PAGE_BYTES;
            return true;
        }
    return false;
}

/* --- syncs --- */

static void file_sync(struct sim_node *file)
{
    struct sim_content *safe = &file->safe;

    safe->pages = grown(safe->pages, &safe->room, file->now.room, sizeof *safe->pages);
    for (uint32_t i = 0; i < safe->room; i++) {
        struct sim_page *page = page_at(&file->now, i);

        if (page == safe->pages[i] || (page != NULL && page->is_lost))
            continue;
        page_drop(safe->pages[i]);
        safe->pages[i] = page;
        if (page != NULL)
            page->refs++;
    }
    safe->length = file->now.length;
    safe->is_reserved = file->now.is_reserved;
}

void sim_node_lose(struct sim_node *node, struct sim_random *random)
{
    for (uint32_t i = 0; i < node->now.room; i++)
        if (node->now.pages[i] != page_at(&node->safe, i) && node->now.pages[i] != NULL)
            node->now.pages[i]->is_lost |= sim_chance(random, 50);
}

void sim_node_sync(struct sim_node *node)
{
    if (!node->is_folder) {
        file_sync(node);
        return;
    }
    for (uint32_t i = 0; i < node->change_count; i++)
        apply(&node->safe_names, &node->changes[i]);
    node->change_count = 0;
}

/* As files of the store are called. */
static const char *word_for(const struct sim_node *node)
{
    const char *dot = strrchr(node->name, '.');

    if (node->is_folder)
        return "folder";
    if (dot != NULL && (strcmp(dot, ".open") == 0 || strcmp(dot, ".seg") == 0))
        return "segment";
    return node->name;
}

static const char *part_of_segment(const struct sim_node *node)
{
    if (page_at(&node->now, 0) != page_at(&node->safe, 0))
        return "superblock";
    return node->now.length < node->safe.length ? "footer" : "records";
}

bool sim_sync_kind(const struct sim_node *node, char kind[SIM_KIND_BYTES])
{
    static const char *const levels[] = { "root", "data", "v1", "namespace", "stream", "epoch" };
    static const char *const deeds[] = {
        [SIM_MADE] = "made", [SIM_REMOVED] = "removed", [SIM_RENAMED] = "renamed"
    };
    const struct sim_change *change;

    if (!node->is_folder) {
        bool is_segment = strcmp(word_for(node), "segment") == 0;

        snprintf(kind, SIM_KIND_BYTES, "%.40s: %s", word_for(node),
                 is_segment ? part_of_segment(node) : "content");
        return true;
    }
    if (node->change_count == 0)
        return false;
    change = &node->changes[node->change_count - 1];
    for (uint32_t i = 0; i < node->change_count && change->deed != SIM_MADE; i++)
        if (node->changes[i].deed == SIM_MADE)
            change = &node->changes[i]; /* what the sync is for, whatever came after */
    snprintf(kind, SIM_KIND_BYTES, "%s folder: %.40s %s", levels[node->depth], word_for(change->node),
             deeds[change->deed]);
    return true;
}

/* --- what a crash leaves --- */

/* In some crashes nearly all is kept, in others nearly nothing. */
struct crash {
    struct sim_random *random;
    uint32_t kept_percent;
    uint32_t torn_percent;
    struct sim_node *root;
};

static struct sim_page *page_after(struct crash *crash, struct sim_page *now, struct sim_page *safe)
{
    struct sim_page *torn;

    if (now == safe || sim_chance(crash->random, crash->kept_percent)) {
        torn = now;
    } else if (sim_chance(crash->random, crash->torn_percent) && now != NULL) {
        torn = calloc(1, sizeof *torn);
        REQUIRE(torn != NULL);
        if (safe != NULL)
            memcpy(torn->bytes, safe->bytes, SIM_PAGE_BYTES);
        for (uint32_t at = 0; at < SIM_PAGE_BYTES; at += SIM_SECTOR_BYTES)
            if (sim_chance(crash->random, 50))
                memcpy(torn->bytes + at, now->bytes + at, SIM_SECTOR_BYTES);
    } else {
        torn = safe;
    }
    if (torn != NULL)
        torn->refs++;
    return torn;
}

static void file_after(struct crash *crash, struct sim_node *to, const struct sim_node *from)
{
    uint32_t room = from->now.room > from->safe.room ? from->now.room : from->safe.room;
    bool is_new = from->now.length == from->safe.length || sim_chance(crash->random, crash->kept_percent);

    to->now.length = is_new ? from->now.length : from->safe.length;
    to->now.is_reserved = is_new ? from->now.is_reserved : from->safe.is_reserved;
    to->now.pages = grown(NULL, &to->now.room, room, sizeof *to->now.pages);
    for (uint32_t i = 0; i < room; i++)
        to->now.pages[i] = page_after(crash, page_at(&from->now, i), page_at(&from->safe, i));
    cut_pages(&to->now);
}

/* A change is kept only when those before it of the same names are. */
static bool is_blocked(const struct sim_change *changes, const bool *is_lost, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct sim_change *a = &changes[i], *b = &changes[n];
        const char *names[] = { b->from, b->to };

        for (uint32_t k = 0; is_lost[i] && k < 2; k++)
            if (names[k][0] != '\0' && (strcmp(a->from, names[k]) == 0 || strcmp(a->to, names[k]) == 0))
                return true;
    }
    return false;
}

static void names_after(struct crash *crash, struct sim_names *to, const struct sim_node *from)
{
    bool *is_lost = calloc(from->change_count + 1, sizeof *is_lost);

    REQUIRE(is_lost != NULL);
    for (uint32_t i = 0; i < from->safe_names.count; i++)
        names_set(to, from->safe_names.list[i].name, from->safe_names.list[i].node);
    for (uint32_t i = 0; i < from->change_count; i++) {
        is_lost[i] = is_blocked(from->changes, is_lost, i) || !sim_chance(crash->random, crash->kept_percent);
        if (!is_lost[i])
            apply(to, &from->changes[i]);
    }
    free(is_lost);
}

static struct sim_node *node_after(struct crash *crash, const struct sim_node *from, const char *name,
                                   uint32_t depth)
{
    struct sim_node *node = sim_node_new(crash->root, from->is_folder, name);
    struct sim_names names = { 0 };

    node->depth = depth;
    if (crash->root == NULL)
        crash->root = node;
    if (!from->is_folder) {
        file_after(crash, node, from);
    } else {
        names_after(crash, &names, from);
        for (uint32_t i = 0; i < names.count; i++)
            names_set(&node->names, names.list[i].name,
                      node_after(crash, names.list[i].node, names.list[i].name, depth + 1));
        for (uint32_t i = 0; i < node->names.count; i++)
            names_set(&node->safe_names, node->names.list[i].name, node->names.list[i].node);
        free(names.list);
    }
    if (!from->is_folder)
        content_copy(&node->safe, &node->now);
    return node;
}

struct sim_node *sim_tree_after_crash(const struct sim_node *root, struct sim_random *random)
{
    static const uint32_t kept[] = { 0, 20, 50, 80, 98 };
    struct crash crash = { .random = random,
                           .kept_percent = kept[sim_pick(random, 5)],
                           .torn_percent = 30 * sim_pick(random, 3) };

    return node_after(&crash, root, root->name, 0);
}

struct sim_node *sim_tree_copy(const struct sim_node *root)
{
    struct crash crash = { .random = NULL, .kept_percent = 100 };
    struct sim_random unused = { 0 };

    crash.random = &unused;
    return node_after(&crash, root, root->name, 0);
}
