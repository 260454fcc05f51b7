#include "base/memory.h"

#include <stdio.h>
#include <string.h>

enum { LINE_BYTES = 4096, PATH_BYTES = 4096 };

/* "MemTotal:  24689716 kB" */
static uint64_t meminfo(const char *key)
{
    char line[LINE_BYTES];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");

    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), ": %llu kB", &kib) == 1)
            break;
    fclose(file);
    return kib * 1024;
}

/* A number, or UINT64_MAX for "max" and for what is not there. */
static uint64_t read_number(const char *folder, const char *name)
{
    char path[PATH_BYTES], line[64];
    uint64_t value = UINT64_MAX;
    unsigned long long number;
    FILE *file;

    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return UINT64_MAX;
    file = fopen(path, "re");
    if (file == NULL)
        return UINT64_MAX;
    if (fgets(line, sizeof line, file) != NULL && sscanf(line, "%llu", &number) == 1)
        value = number;
    fclose(file);
    return value;
}

struct cgroup_files {
    const char *limit, *usage;
};
static const struct cgroup_files cgroup_v2 = { "memory.max", "memory.current" };
static const struct cgroup_files cgroup_v1 = { "memory.limit_in_bytes", "memory.usage_in_bytes" };

/* From the innermost group outwards; in a container only the outermost folder may be there to be read. */
static void lowest_limit(const char *mount, const char *group, const struct cgroup_files *files,
                         uint64_t *limit_p, uint64_t *used_p)
{
    char folder[PATH_BYTES];
    size_t root = strlen(mount);

    if (snprintf(folder, sizeof folder, "%s%s", mount, group) >= (int)sizeof folder)
        return;
    for (;;) {
        uint64_t limit = read_number(folder, files->limit);

        if (limit < *limit_p) {
            uint64_t used = read_number(folder, files->usage);

            *limit_p = limit;
            *used_p = used == UINT64_MAX ? 0 : used;
        }
        if (strlen(folder) <= root)
            return;
        *strrchr(folder, '/') = '\0';
    }
}

uint64_t memory_cgroup_limit(const char *self_path, const char *mount, uint64_t *used_p)
{
    char line[LINE_BYTES], memory_mount[PATH_BYTES];
    uint64_t limit = UINT64_MAX;
    FILE *file = fopen(self_path, "re");

    *used_p = 0;
    snprintf(memory_mount, sizeof memory_mount, "%s/memory", mount);
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *controllers = strchr(line, ':'); /* "0::/a/b" or "9:memory:/a/b" */
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;

        if (group == NULL)
            continue;
        *group++ = '\0';
        group[strcspn(group, "\n")] = '\0';
        if (group[0] != '/')
            continue;
        if (strcmp(group, "/") == 0)
            group = "";
        if (controllers[1] == '\0')
            lowest_limit(mount, group, &cgroup_v2, &limit, used_p);
        else if (strcmp(controllers + 1, "memory") == 0)
            lowest_limit(memory_mount, group, &cgroup_v1, &limit, used_p);
    }
    if (file != NULL)
        fclose(file);
    return limit;
}

uint64_t memory_limit(void)
{
    uint64_t used, total = meminfo("MemTotal");
    uint64_t limit = memory_cgroup_limit("/proc/self/cgroup", "/sys/fs/cgroup", &used);

    return limit < total ? limit : total;
}

uint64_t memory_available(void)
{
    uint64_t used, available = meminfo("MemAvailable");
    uint64_t limit = memory_cgroup_limit("/proc/self/cgroup", "/sys/fs/cgroup", &used);
    uint64_t left = limit == UINT64_MAX ? UINT64_MAX : limit > used ? limit - used : 0;

    return left < available ? left : available;
}
