#include "machine.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, WALK_FDS = 16 };

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
