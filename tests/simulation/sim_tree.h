/* sim_tree.h - files and folders in memory, each twice: as the running system sees it, and as it is safe on the disk. For
 * sim_disk.c.
 *
 * Owner: all nodes of a tree are freed with its root. Pages are shared by what holds them. */
#ifndef REELKV_TEST_SIM_TREE_H
#define REELKV_TEST_SIM_TREE_H

#include <stddef.h>
#include <sys/stat.h>

#include "sim_random.h"

enum { SIM_PAGE_BYTES = 4096, SIM_SECTOR_BYTES = 512, SIM_NAME_BYTES = 256, SIM_KIND_BYTES = 96 };

struct sim_page {
    uint32_t refs;
    bool is_lost; /* taken for written: no sync makes it safe */
    uint8_t bytes[SIM_PAGE_BYTES];
};

struct sim_content {
    struct sim_page **pages; /* NULL: never written */
    uint32_t room;
    uint64_t length;
    bool is_reserved; /* takes its length on the disk, whatever was written */
};

struct sim_names {
    struct sim_name {
        char name[SIM_NAME_BYTES];
        struct sim_node *node;
    } * list;
    uint32_t count, room;
};

enum sim_deed { SIM_MADE, SIM_REMOVED, SIM_RENAMED };

/* Of a folder, since its last sync. */
struct sim_change {
    enum sim_deed deed;
    char from[SIM_NAME_BYTES], to[SIM_NAME_BYTES]; /* "": none */
    struct sim_node *node;
};

struct sim_node {
    bool is_folder;
    uint32_t depth; /* below the root */
    char name[SIM_NAME_BYTES];
    struct sim_content now, safe;
    struct sim_names names, safe_names;
    struct sim_change *changes;
    uint32_t change_count, change_room;
    struct sim_node *next; /* of all, from the root on */
};

/* `root` NULL: the node is one. */
struct sim_node *sim_node_new(struct sim_node *root, bool is_folder, const char *name);
void sim_tree_free(struct sim_node *root); /* NULL is fine */

/* The folder that holds the path's last name; NULL: there is none. */
struct sim_node *sim_tree_parent(struct sim_node *root, const char *path, const char **name_p);
struct sim_node *sim_folder_get(const struct sim_node *folder, const char *name); /* NULL: none; "": itself */
void sim_folder_change(struct sim_node *folder, enum sim_deed deed, const char *from, const char *to,
                       struct sim_node *node);

size_t sim_file_read(const struct sim_node *file, void *to, size_t len, uint64_t offset);
void sim_file_write(struct sim_node *file, const void *from, size_t len, uint64_t offset);
void sim_file_resize(struct sim_node *file, uint64_t length);
bool sim_file_next_data(const struct sim_node *file, uint64_t *at); /* moves *at there */
void sim_node_stat(const struct sim_node *node, struct stat *info);

void sim_node_sync(struct sim_node *node);
/* A sync failed: the system takes pages for written that are not (Rebello et al., ATC 2020). */
void sim_node_lose(struct sim_node *node, struct sim_random *random);
/* What a sync of this node would make safe, in words. False: there is nothing. */
bool sim_sync_kind(const struct sim_node *node, char kind[SIM_KIND_BYTES]);

/* Blocks taken by all files; but of a stream's folders, with the small files there, what is kept for it. */
uint64_t sim_tree_bytes(const struct sim_node *root, uint64_t stream_bytes);

/* All of it as it is now, safe; or as a crash leaves it. */
struct sim_node *sim_tree_copy(const struct sim_node *root);
struct sim_node *sim_tree_after_crash(const struct sim_node *root, struct sim_random *random);

#endif
