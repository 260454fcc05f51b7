/* sim_disk.h - a file system in memory, as strict as POSIX allows, whose machine can lose its power at any call.
 *
 * Of what was written and not synced a crash keeps what the seed says: each page old, new, or torn at a sector; the length
 * of a file old or new; each change of a folder (a name made, renamed, removed) kept or lost, whatever was synced of the
 * file it names. Changes of one name keep their order, and a rename is whole or not at all.
 *
 * Syncs have kinds ("epoch folder: segment made", "segment: records"); a kind can be left out, as if the call were not in
 * the code, to show that a store without it loses something.
 *
 * Thread: one. Bounds: what memory holds. */
#ifndef REELKV_TEST_SIM_DISK_H
#define REELKV_TEST_SIM_DISK_H

#include "base/file_ops.h"
#include "sim_random.h"

extern const struct file_ops sim_disk;

enum { SIM_SYNC_KINDS_MAX = 64 };

/* An empty disk. `random` decides what a crash leaves. */
void sim_disk_start(struct sim_random *random);
void sim_disk_stop(void); /* all memory */

/* The power goes at the n-th call from now: it and all behind it fail with EIO. 0: never. */
void sim_disk_crash_at(uint64_t n);
/* The same, but it is the process that goes. */
void sim_disk_kill_at(uint64_t n);
bool sim_disk_is_off(void);
bool sim_disk_was_cut(void); /* by the power */
/* The power is back: what the crash left is there. Without one: everything is. Nothing may be open. */
void sim_disk_boot(void);
/* The machine stays on: another process finds everything, safe or not. */
void sim_disk_go_on(void);

/* The n-th call from now fails with `error`, and `times` - 1 behind it; then the disk is sound again. Of what a failed sync
 * was to make safe, no later one makes safe what the seed says. error 0: reads and writes move a part of what they could,
 * as they may; nothing fails. */
void sim_disk_fail_at(uint64_t n, uint64_t times, int error);
/* Until the next boot each call of these kinds fails by itself, so many of 10,000, with EIO, or ENOSPC when it may want room. 0:
 * none does. */
enum sim_call {
    SIM_CALL_FILE_SYNC = 1,
    SIM_CALL_FOLDER_SYNC = 2,
    SIM_CALL_REMOVAL = 4,
    SIM_CALL_WRITE = 8, /* or what makes a name */
    SIM_CALL_OTHER = 16,
    SIM_CALL_ALL = 31
};
void sim_disk_fail_some(unsigned calls, uint32_t of_10000);
uint64_t sim_disk_failed(void); /* calls that did, since the last boot */
uint64_t sim_disk_calls(void);  /* all of them, since the last boot */
/* The next so many removals of sealed segments fail with EIO. They are not among the calls that failed. */
void sim_disk_keep_sealed(uint64_t times);
uint64_t sim_disk_kept(void); /* since the last boot */
/* So many of a hundred reads and writes move a part only. */
void sim_disk_move_parts(uint32_t percent);

/* A byte of a file rots: what stands there, safe or not, is another one from now on. False: nothing was ever written there. */
bool sim_disk_rot(const char *path, uint64_t offset, uint8_t mask);

/* Whether some file has these bytes, at a multiple of their length. */
bool sim_disk_has(const void *bytes, size_t len);

/* Syncs of this kind do nothing from now on. NULL: all work. */
void sim_disk_leave_out(const char *sync_kind);
/* The n-th kind of sync met since the program began; NULL: there are no more. */
const char *sim_disk_sync_kind(uint32_t n);

/* Blocks taken by all files and folders, and by what the small files of each stream may grow to: the most there ever were,
 * since the start, in bytes. */
uint64_t sim_disk_bytes_max(void);

#endif
