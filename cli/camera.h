/* camera.h - cameras as the command line sees them: copies of what their stores say.
 *
 * Owner:  plain values; what camera_list_read() found is freed by camera_list_deinit().
 * Thread: main thread.
 * Fails:  NOT_FOUND for a camera no store knows, UNAVAILABLE when its store, or one that may have it, does not answer.
 * Bounds: LIMIT_STREAMS of each kvstore. */
#ifndef REELKV_CLI_CAMERA_H
#define REELKV_CLI_CAMERA_H

#include "base/json.h"
#include "cli_cluster.h"

struct camera {
    char ns[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1], store[LIMIT_NAME_BYTES + 1];
    char source[LIMIT_URL_BYTES + 1]; /* password masked */
    char trouble[STATUS_TEXT_BYTES];
    char fingerprint[2 * DIRECTORY_FINGERPRINT_BYTES +
                     1]; /* of the frames that are there; "": there are none */
    bool is_live;
    int state; /* Reelkv__V1__StreamState */
    double sample_fps;
    int64_t start_time_ns, created_ns, first_pts_ns, last_pts_ns;
    int64_t remembers_ns;             /* about how far back; 0: nothing is being written */
    char class[LIMIT_NAME_BYTES + 1]; /* how its frames age; "": default */
    uint64_t epoch, next_seq, durable_seq, stored_frames, gap_frames, evicted_frames, damaged_frames,
        expected_frames, disk_bytes;
};

/* `st` may be NULL. */
bool camera_get(struct cluster *cluster, const char *ns, const char *name, struct camera *camera,
                struct status *st);

/* And the store that has it, borrowed from the cluster's view. */
bool camera_find(struct cluster *cluster, const char *ns, const char *name, struct camera *camera,
                 const struct worker_record **store_p, struct status *st);

/* All cameras of a namespace (NULL: of all) by name, without those of stores that do not answer. */
struct camera_list {
    struct camera *cameras;
    size_t count;
    char (*silent)[LIMIT_NAME_BYTES + 1]; /* names of the stores that do not */
    size_t silent_count;
};

/* UNAVAILABLE when no store answers. Also after a failure *list is to be freed. */
bool camera_list_read(struct cluster *cluster, const char *ns, struct camera_list *list, struct status *st);
void camera_list_deinit(struct camera_list *list); /* zeroed is fine */

/* The silent ones as an array of names; and as "kvstore-1 does not answer: its cameras are <what>" on stderr, nothing when
 * all answered. */
struct json *camera_list_silent(const struct camera_list *list);
void camera_list_warn(const struct camera_list *list, const char *what);

/* On stdout, a line for each camera that has some. */
void camera_list_print_trouble(const struct camera_list *list);

/* The reply of a store. Text that is too long for its field is cut. */
void camera_from_reply(const ProtobufCMessage *stream_status, struct camera *camera);

const char *camera_state_words(const struct camera *camera);
struct json *camera_to_json(const struct camera *camera);

/* Its frames were stored with another model, dtype or window than the qas run with, as far as they tell. */
bool camera_has_other_settings(const struct cluster *cluster, const struct camera *camera);

/* Everything it ever will hold is on the disk. */
bool camera_is_complete(const struct camera *camera);

/* Pictures that came to the disk, whatever became of them there; gaps do not count. Never too many. */
uint64_t camera_frames_written(const struct camera *camera);

/* Of these, those that are there still: neither evicted nor damaged. */
uint64_t camera_frames_on_disk(const struct camera *camera);

/* Why nothing comes now: its trouble, or the reason of the gap that is its newest. "" when nothing is known. */
void camera_explain(struct cluster *cluster, const struct camera *camera, char out[STATUS_TEXT_BYTES]);

/* The newest gap that has a reason; those that were evicted have none. False: there is none, or its store did not tell to
 * the end. */
struct camera_gap {
    uint64_t from_seq, to_seq; /* exclusive */
    int64_t from_pts_ns;
    char reason[STATUS_TEXT_BYTES];
};
bool camera_last_gap(struct cluster *cluster, const struct camera *camera, struct camera_gap *gap);

/* How many holds count on it now, 0 when its store does not say. */
size_t camera_holds(struct cluster *cluster, const struct camera *camera);

#endif
