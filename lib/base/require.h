/* require.h - REQUIRE(x): a fact the program depends on. Checked in every build; a broken one is a bug and
 * ends the process with a core. Never used on input: input fails with a status. */
#ifndef REELKV_BASE_REQUIRE_H
#define REELKV_BASE_REQUIRE_H

#include <stdbool.h>
#include <stddef.h>

_Noreturn void require_failed(const char *fact, const char *file, int line, const char *function);

#ifdef REELKV_COVERAGE /* what must never happen is no branch of what is counted: tools/coverage --help */
void require_holds(bool holds, const char *fact, const char *file, int line, const char *function);
#define REQUIRE(fact) require_holds((fact), #fact, __FILE__, __LINE__, __func__)
#else
#define REQUIRE(fact) ((fact) ? (void)0 : require_failed(#fact, __FILE__, __LINE__, __func__))
#endif

/* The struct that holds `member`, given a pointer to the member. */
#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#define ARRAY_LEN(array) (sizeof(array) / sizeof((array)[0]))

#endif
