#include "fsck.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "base/name.h"
#include "base/require.h"
#include "fsck_internal.h"
#include "kv/scrub_state.h"

enum { LINE_BYTES = 256, NAMES_BYTES = 512 };

void fsck_join(char out[PATH_MAX], const char *folder, const char *name)
{
    REQUIRE(snprintf(out, PATH_MAX, "%s/%s", folder, name) < PATH_MAX);
}

/* --- is a store running? --- */

/* By the kernel's list of locks: asking for the lock would keep a store from starting. */
static bool is_locked(const char *root)
{
    char path[PATH_MAX], line[LINE_BYTES];
    struct stat info;
    bool is_found = false;
    FILE *locks;

    fsck_join(path, root, "lock");
    locks = stat(path, &info) == 0 ? fopen("/proc/locks", "re") : NULL;
    while (locks != NULL && !is_found && fgets(line, sizeof line, locks) != NULL) {
        const char *place = strrchr(line, ':');

        is_found = strstr(line, " FLOCK ") != NULL && strstr(line, " WRITE ") != NULL && place != NULL &&
                   strtoull(place + 1, NULL, 10) == (uint64_t)info.st_ino;
    }
    if (locks != NULL)
        fclose(locks);
    return is_found;
}

static bool has_part(const char *folder, const char *name)
{
    char path[PATH_MAX];
    struct stat info;

    fsck_join(path, folder, name);
    return stat(path, &info) == 0;
}

/* The store's folder that `path` (absolute) lies in or is. */
static bool find_root(const char *path, char root[PATH_MAX])
{
    char *slash;

    for (snprintf(root, PATH_MAX, "%s", path); !has_part(root, "lock") || !has_part(root, "v1");
         *slash = '\0') {
        slash = strrchr(root, '/');
        if (slash == NULL || slash == root)
            return false;
    }
    return true;
}

/* --- stores --- */

static bool check_namespace(struct fsck *fsck, const char *folder, struct status *st)
{
    struct file_names names;
    char path[PATH_MAX];
    struct stat info;
    bool ok = file_list_on(&file_system, folder, &names, st);

    for (uint32_t i = 0; ok && i < names.count; i++) {
        fsck_join(path, folder, names.list[i]);
        if (name_check("stream", names.list[i], NULL) && stat(path, &info) == 0 && S_ISDIR(info.st_mode))
            ok = fsck_check_stream(fsck, path, st);
    }
    file_names_free(&names);
    return ok;
}

static bool check_store(struct fsck *fsck, const char *root, struct status *st)
{
    struct file_names names;
    char folder[PATH_MAX], path[PATH_MAX];
    struct scrub_state scrub;
    struct status why;
    struct stat info;
    bool ok;

    if (!fsck->is_only_counting)
        fsck_check_optional(fsck, root, "scrub.json", scrub_state_read(&scrub, &file_system, root, &why),
                            &why);
    fsck_join(folder, root, "v1");
    ok = file_list_on(&file_system, folder, &names, st);
    for (uint32_t i = 0; ok && i < names.count; i++) {
        fsck_join(path, folder, names.list[i]);
        if (name_check("namespace", names.list[i], NULL) && stat(path, &info) == 0 && S_ISDIR(info.st_mode))
            ok = check_namespace(fsck, path, st);
    }
    file_names_free(&names);
    return ok;
}

/* A repair has the store's own lock while it lasts. */
static bool take_lock(const char *root, int *fd_p, struct status *st)
{
    char path[PATH_MAX];

    fsck_join(path, root, "lock");
    *fd_p = open(path, O_RDWR | O_CLOEXEC);
    if (*fd_p >= 0 && flock(*fd_p, LOCK_EX | LOCK_NB) == 0)
        return true;
    if (*fd_p >= 0 && errno == EWOULDBLOCK)
        return status_fail(st, STATUS_EXISTS, "a kvstore runs on %s: stop it before its files are repaired",
                           root);
    return status_fail(st, status_code_of_errno(errno), "lock %s: %m", path);
}

static bool check_within(struct fsck *fsck, const char *path,
                         bool (*run)(struct fsck *, const char *, struct status *), struct status *st)
{
    char root[PATH_MAX];
    bool has_root = find_root(path, root), ok = true;
    int lock_fd = -1;

    fsck->is_running = has_root && is_locked(root);
    fsck->found_running |= fsck->is_running;
    if (has_root && fsck->is_repairing && !fsck->is_only_counting)
        ok = take_lock(root, &lock_fd, st);
    ok = ok && run(fsck, path, st);
    if (lock_fd >= 0)
        close(lock_fd);
    return ok;
}

static bool check_lone_file(struct fsck *fsck, const char *path, struct status *st)
{
    struct kv_file_name name;

    if (!kv_file_name_get(&name, strrchr(path, '/') + 1))
        return status_fail(st, STATUS_INVALID,
                           "%s is not named as a segment file is, <first number>-<salt>.seg or .open", path);
    return fsck_check_file(fsck, path, &name, 0, st);
}

/* The stores of a cluster's data folder. */
static bool check_cluster(struct fsck *fsck, const char *data, struct status *st)
{
    struct file_names names;
    char folder[PATH_MAX], path[PATH_MAX];
    bool ok;

    fsck_join(folder, data, "store");
    ok = file_list_on(&file_system, folder, &names, st);
    for (uint32_t i = 0; ok && i < names.count; i++) {
        fsck_join(path, folder, names.list[i]);
        if (has_part(path, "v1"))
            ok = check_within(fsck, path, check_store, st);
    }
    file_names_free(&names);
    return ok;
}

bool fsck_path(struct fsck *fsck, const char *path, struct status *st)
{
    char *full = realpath(path, NULL);
    struct stat info;
    bool ok;

    if (full == NULL || stat(full, &info) != 0) {
        free(full);
        return status_fail(st, status_code_of_errno(errno), "%s: %m", path);
    }
    if (access(full, S_ISDIR(info.st_mode) ? R_OK | X_OK : R_OK) != 0)
        ok = status_fail(st, status_code_of_errno(errno), "%s: %m", path);
    else if (strlen(full) > PATH_MAX - NAMES_BYTES)
        ok = status_fail(st, STATUS_INVALID, "the path is too long: %.80s...", path);
    else if (!S_ISDIR(info.st_mode))
        ok = check_within(fsck, full, check_lone_file, st);
    else if (has_part(full, "v1"))
        ok = check_within(fsck, full, check_store, st);
    else if (has_part(full, "store"))
        ok = check_cluster(fsck, full, st);
    else if (has_part(full, "stream.json"))
        ok = check_within(fsck, full, fsck_check_stream, st);
    else
        ok = status_fail(
            st, STATUS_NOT_FOUND,
            "%s is no data folder: name a cluster's, a kvstore's or a camera's, or a segment file", path);
    free(full);
    return ok;
}
