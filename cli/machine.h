/* machine.h - what this machine allows: disk, instruction sets, direct I/O (memory: base/memory.h).
 *
 * Thread: any. Nothing here fails: what cannot be found out reads as 0 or false. */
#ifndef REELKV_CLI_MACHINE_H
#define REELKV_CLI_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* `folder`, absolute, or the nearest one above it that exists. */
void machine_nearest_folder(const char *folder, char *out, size_t out_bytes);

/* Bytes an ordinary user may still write in the file system that holds `folder`. */
uint64_t machine_disk_free(const char *folder);

/* Bytes the files below `folder` take. */
uint64_t machine_disk_used(const char *folder);

/* Can files in `folder` be opened with O_DIRECT? */
bool machine_has_direct_io(const char *folder);

/* "AVX-512 with bf16", "AVX2", "portable": what the compute kernels will choose from. */
const char *machine_instructions(void);

/* Full path of an executable: in `folder`, else (folder NULL) in PATH. */
bool machine_find_program(const char *folder, const char *name, char *out, size_t out_bytes);

#endif
