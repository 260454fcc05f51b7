#include "machine.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { LINE_BYTES = 4096, PATH_BYTES = 4096, WALK_FDS = 16 };

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

uint64_t machine_cgroup_limit(const char *self_path, const char *mount, uint64_t *used_p)
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

uint64_t machine_memory_limit(void)
{
    uint64_t used, total = meminfo("MemTotal");
    uint64_t limit = machine_cgroup_limit("/proc/self/cgroup", "/sys/fs/cgroup", &used);

    return limit < total ? limit : total;
}

uint64_t machine_memory_available(void)
{
    uint64_t used, available = meminfo("MemAvailable");
    uint64_t limit = machine_cgroup_limit("/proc/self/cgroup", "/sys/fs/cgroup", &used);
    uint64_t left = limit == UINT64_MAX ? UINT64_MAX : limit > used ? limit - used : 0;

    return left < available ? left : available;
}

void machine_nearest_folder(const char *folder, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "%s", folder);
    while (access(out, F_OK) != 0 && strrchr(out, '/') > out)
        *strrchr(out, '/') = '\0';
    if (access(out, F_OK) != 0)
        snprintf(out, out_bytes, "/");
}

uint64_t machine_disk_free(const char *folder)
{
    struct statvfs info;

    return statvfs(folder, &info) == 0 ? (uint64_t)info.f_bavail * info.f_frsize : 0;
}

static uint64_t walked_bytes; /* nftw() hands nothing through */

static int add_file(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)path;
    (void)where;
    if (kind == FTW_F)
        walked_bytes += (uint64_t)info->st_blocks * 512;
    return 0;
}

uint64_t machine_disk_used(const char *folder)
{
    walked_bytes = 0;
    nftw(folder, add_file, WALK_FDS, FTW_PHYS);
    return walked_bytes;
}

bool machine_has_direct_io(const char *folder)
{
    char path[PATH_BYTES];
    int fd, direct;

    if (snprintf(path, sizeof path, "%s/.direct-XXXXXX", folder) >= (int)sizeof path)
        return false;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return false;
    direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    unlink(path);
    close(fd);
    if (direct >= 0)
        close(direct);
    return direct >= 0;
}

const char *machine_instructions(void)
{
#if defined(__x86_64__)
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl");

    if (avx512 && __builtin_cpu_supports("avx512bf16"))
        return "AVX-512 with bf16";
    if (avx512)
        return "AVX-512";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return "AVX2";
#endif
    return "portable";
}

bool machine_find_program(const char *folder, const char *name, char *out, size_t out_bytes)
{
    const char *path = folder != NULL ? folder : getenv("PATH");

    while (path != NULL && *path != '\0') {
        size_t len = folder != NULL ? strlen(path) : strcspn(path, ":");
        int used = snprintf(out, out_bytes, "%.*s/%s", (int)len, path, name);

        if (used > 0 && (size_t)used < out_bytes && access(out, X_OK) == 0)
            return true;
        path += len;
        path += *path == ':';
    }
    return false;
}
