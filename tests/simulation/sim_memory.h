/* sim_memory.h - the allocations of what is simulated: counted, and refused where the seed says.
 *
 * A program that links this wraps malloc() and its kin; the simulation's own files ask the real ones (CMakeLists.txt), so
 * that the n-th allocation is one of the code under test.
 *
 * Thread: one. */
#ifndef REELKV_TEST_SIM_MEMORY_H
#define REELKV_TEST_SIM_MEMORY_H

#include <stdint.h>

/* Counts from zero, and refuses nothing. */
void sim_memory_start(void);

/* The n-th allocation from now, and `times` - 1 behind it, are refused. 0: none. */
void sim_memory_fail_at(uint64_t n, uint64_t times);

uint64_t sim_memory_asked(void);  /* since the start */
uint64_t sim_memory_failed(void); /* of these, refused */
int64_t sim_memory_live(void);    /* allocated since the program began, and not freed */

#endif
