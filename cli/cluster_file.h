/* cluster_file.h - what a data folder says about its cluster, as written by `up` and its supervisor.
 *
 *   <data>/cluster.json   the running cluster: plan, addresses, processes; gone when it was stopped well
 *   <data>/settings.json  what the folder was started with, so that `up` alone starts the same again, and before
 *   <data>/lock           flock held by the supervisor for as long as it lives
 *   <data>/log/NAME.log   what NAME says, and NAME.log.1
 *   <data>/store/NAME     the blocks of kvstore NAME
 *   <data>/run            Unix sockets (or a folder in /tmp when the path would be too long for one)
 *
 * Thread: any, blocks on the disk. Fails: NOT_FOUND without a cluster, DATA_LOSS for a file that is damaged, with what
 * to do about it. */
#ifndef REELKV_CLI_CLUSTER_FILE_H
#define REELKV_CLI_CLUSTER_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"

enum {
    CLUSTER_PATH_BYTES = 4096,
    CLUSTER_PER_KIND_MAX = 16,
    CLUSTER_PROCESSES_MAX = 4 * CLUSTER_PER_KIND_MAX + 1,
    CLUSTER_ADDRESS_BYTES = 128,
    CLUSTER_FINGERPRINT_BYTES = 16,
    CLUSTER_AGEING_BYTES = 4001,    /* with its NUL */
    CLUSTER_SETTINGS_EARLIER = 8,   /* remembered besides the last ones */
    CLUSTER_SOCKET_NAME_BYTES = 32, /* room kept in a socket's path for "/analyzer-15.sock.lock" */
};

/* In the order of starting. */
enum cluster_kind {
    CLUSTER_REDIS,
    CLUSTER_KVSTORE,
    CLUSTER_ANALYZER,
    CLUSTER_ENCODER,
    CLUSTER_QA,
    CLUSTER_KINDS
};
extern const char *const cluster_kind_names[CLUSTER_KINDS];

/* A process that cannot be mistaken for a later one with its number. */
struct process_id {
    int pid;              /* 0: none */
    uint64_t start_ticks; /* since boot, from /proc/PID/stat */
};

/* False when there is no such process (a zombie counts as none). */
bool process_identify(int pid, struct process_id *id);
bool process_is_alive(const struct process_id *id);
bool process_signal(const struct process_id *id, int number); /* false when it is not alive or not ours */

enum process_state { PROCESS_STARTING, PROCESS_READY, PROCESS_DOWN, PROCESS_STOPPED, PROCESS_STATES };
extern const char *const process_state_names[PROCESS_STATES];

struct cluster_process {
    char name[LIMIT_NAME_BYTES + 1]; /* "kvstore-0" */
    enum cluster_kind kind;
    enum process_state state;
    struct process_id id;
    uint32_t restarts;
    uint32_t exit_code; /* of its last end; 0: also of one by a signal */
    char address[CLUSTER_ADDRESS_BYTES];
    char trouble[256]; /* how it last ended */
};

/* What the cluster is to be. Written by `up`, never changed afterwards. */
struct cluster_plan {
    char bin[CLUSTER_PATH_BYTES]; /* folder of the executables */
    char run[LIMIT_SOCKET_PATH_BYTES + 1];
    char model[CLUSTER_PATH_BYTES];
    char dtype[8];
    uint32_t n_local;                  /* 0: the services' own default */
    uint32_t top_r;                    /* 0: the qa's own default */
    uint32_t recent_window;            /* UINT32_MAX: the qa's own default */
    uint32_t threads;                  /* of each process that computes; 0: its own default */
    double sample_fps;                 /* of cameras added without --fps */
    char ageing[CLUSTER_AGEING_BYTES]; /* the kvstores' --ageing; "": none */
    char fingerprint[2 * CLUSTER_FINGERPRINT_BYTES + 1]; /* of its blocks; "" before the model was opened */
    uint64_t ram_bytes, disk_bytes;                      /* of all kvstores together */
    uint32_t counts[CLUSTER_KINDS];
};

struct cluster_file {
    struct cluster_plan plan;
    struct process_id supervisor;
    bool stopping;
    struct cluster_process processes[CLUSTER_PROCESSES_MAX];
    uint32_t process_count;
};

/* <data>/<name>; INVALID when it is too long. */
bool cluster_path(const char *data, const char *name, char out[CLUSTER_PATH_BYTES], struct status *st);

bool cluster_file_write(const char *data, const struct cluster_file *file, struct status *st);
bool cluster_file_read(const char *data, struct cluster_file *file, struct status *st);
void cluster_file_remove(const char *data);

/* "unix:<run>/redis.sock" and the like. */
void cluster_address(const struct cluster_plan *plan, const char *process, char out[CLUSTER_ADDRESS_BYTES]);

/* What the folder was last started with; zeroed where it never was. Only model, dtype, n_local, the number
 * of kvstores and the fingerprint are kept, which decide whether stored blocks can be read again, and how blocks age. */
bool cluster_settings_write(const char *data, const struct cluster_plan *plan, struct status *st);
bool cluster_settings_read(const char *data, struct cluster_plan *plan, struct status *st);

/* Model, dtype and n_local of the last time the folder was started with this fingerprint. False: that was never, or longer
 * ago than CLUSTER_SETTINGS_EARLIER others. */
bool cluster_settings_of(const char *data, const char *fingerprint, struct cluster_plan *plan);

/* Takes <data>/lock. EXISTS, with who has it, when another cluster runs on the folder. */
bool cluster_lock(const char *data, int *fd_p, struct status *st);

#endif
