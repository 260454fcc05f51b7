#include "sim_memory.h"

#include <errno.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t each);
void *__real_realloc(void *before, size_t bytes);
int __real_posix_memalign(void **memory_p, size_t align, size_t bytes);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t len);
void __real_free(void *memory);

void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t each);
void *__wrap_realloc(void *before, size_t bytes);
int __wrap_posix_memalign(void **memory_p, size_t align, size_t bytes);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t len);
int __wrap_asprintf(char **text_p, const char *format, ...);
void __wrap_free(void *memory);

static struct {
    uint64_t fail_in, fail_times, asked, failed;
    int64_t live;
} memory;

void sim_memory_start(void)
{
    memory.fail_in = memory.asked = memory.failed = 0;
}

void sim_memory_fail_at(uint64_t n, uint64_t times)
{
    memory.fail_in = n;
    memory.fail_times = times;
}

uint64_t sim_memory_asked(void)
{
    return memory.asked;
}

uint64_t sim_memory_failed(void)
{
    return memory.failed;
}

int64_t sim_memory_live(void)
{
    return memory.live;
}

static bool refuses(void)
{
    memory.asked++;
    if (memory.fail_in == 0 || --memory.fail_in > 0)
        return false;
    memory.fail_in = --memory.fail_times > 0;
    memory.failed++;
    errno = ENOMEM;
    return true;
}

static void *counted(void *made)
{
    memory.live += made != NULL;
    return made;
}

void *__wrap_malloc(size_t bytes)
{
    return refuses() ? NULL : counted(__real_malloc(bytes));
}

void *__wrap_calloc(size_t count, size_t each)
{
    return refuses() ? NULL : counted(__real_calloc(count, each));
}

void *__wrap_realloc(void *before, size_t bytes)
{
    if (refuses())
        return NULL;
    return before == NULL ? counted(__real_malloc(bytes)) : __real_realloc(before, bytes);
}

int __wrap_posix_memalign(void **memory_p, size_t align, size_t bytes)
{
    int error = refuses() ? ENOMEM : __real_posix_memalign(memory_p, align, bytes);

    memory.live += error == 0;
    return error;
}

char *__wrap_strdup(const char *text)
{
    return refuses() ? NULL : counted(__real_strdup(text));
}

char *__wrap_strndup(const char *text, size_t len)
{
    return refuses() ? NULL : counted(__real_strndup(text, len));
}

int __wrap_asprintf(char **text_p, const char *format, ...)
{
    va_list args;
    int len = -1;

    if (refuses())
        return -1;
    va_start(args, format);
    len = vasprintf(text_p, format, args);
    va_end(args);
    memory.live += len >= 0;
    return len;
}

void __wrap_free(void *freed)
{
    memory.live -= freed != NULL;
    __real_free(freed);
}
