/* The disk of one of two stores is full while frames arrive: people and neighbours are told, what was durable stays,
 * also through a kill -9 with not a byte free, the other store's cameras go on, and with room again the rest follows:
 * every byte is the one of a camera that was never disturbed. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "stage.h"

enum { FRAMES = 1200, LUMP_BYTES = 64 << 10 };

static const char *path_of(const char *name)
{
    static char path[320];

    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    return path;
}

/* 32 MB as kvstore-0's folder. In a mount namespace of our own it goes with the last of our processes, whatever happens
 * to the test. */
static void mount_small_disk(void)
{
    CHECK_EQ(mkdir(path_of("kvstore-0"), 0700), 0);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", path_of("kvstore-0"), "tmpfs", 0, "size=32m") != 0)
        test_skip("mounting a small disk is not allowed here; it needs root");
}

/* A file of somebody else's on that disk, of `bytes`, or of all that is left. */
static void fill_disk(const char *name, uint64_t bytes)
{
    static const char lump[LUMP_BYTES];
    int fd = open(path_of(name), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    ssize_t taken = 1;

    CHECK(fd >= 0);
    for (uint64_t done = 0; done < bytes && taken > 0; done += (uint64_t)taken)
        taken = write(fd, lump, bytes - done < LUMP_BYTES ? bytes - done : LUMP_BYTES);
    CHECK(taken > 0 || errno == ENOSPC);
    close(fd);
}

/* Nothing more fits: everybody says so, and where, and questions are answered from what there is. */
static void check_told(struct stage *stage)
{
    static struct asked asked;
    struct camera camera;
    struct status st = { 0 };

    stage_wait_told(stage, STAGE_KVSTORE, "No space left on device; trying again");
    stage_wait_told(stage, STAGE_ANALYZER, "store kvstore-0 has no room for a block now");
    stage_wait_told(stage, STAGE_ENCODER, "store kvstore-0 has no room for a block now");
    camera_look(stage->store, "full", &camera);
    CHECK(!camera.has_ended);
    CHECK_HAS(camera.trouble, "No space left on device");
    stage_ask(stage, &(struct question){ .camera = "full", .words = "What?", .max_tokens = 4 }, &asked);
    for (int i = 0; i < 3; i++) { /* the store takes some and gives it back each time it tries */
        fill_disk("kvstore-0/crumbs", UINT64_MAX);
        test_pause_ms(50);
    }
    CHECK(!try_add_camera(stage->store, "late", "/any", &st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    CHECK_HAS(st.text, "No space left on device");
}

/* What the camera had on the disk is there, and right. */
static uint64_t check_durable(struct stage *stage, const uint32_t *calm)
{
    struct camera camera;

    camera_look(stage->store, "full", &camera);
    CHECK(camera.durable_seq > 0 && camera.durable_seq < FRAMES);
    stage_check_crcs(stage, "full", calm, camera.durable_seq);
    return camera.durable_seq;
}

TEST(a_full_disk_is_waited_out_and_nothing_is_lost)
{
    static const char *const small[] = {
        "--ram-budget-bytes", "8M", "--segment-bytes", "1M", "--append-wait-ms", "500", NULL
    };
    static const char *const patient[] = { "--keep-frames", "2000", NULL };
    struct stage stage = { .flags = { [STAGE_KVSTORE] = small, [STAGE_ENCODER] = patient } };
    struct rpc_sync *other;
    uint32_t *calm;
    uint64_t durable;

    mount_small_disk();
    fill_disk("kvstore-0/ballast", 29 << 20);
    stage_open(&stage);
    other = connect_to(cluster_service_start(&stage.cluster, "kvstore", 1, NULL));
    cluster_wait_joined(&stage.cluster);
    add_camera(stage.store, "full", stage_film(FRAMES));
    check_told(&stage);

    add_camera(other, "calm", path_of("film.mkv"));
    wait_ended(other, "calm", FRAMES);
    calm = block_crcs(other, "calm", model_geometry(stage.model), FRAMES, NULL);
    durable = check_durable(&stage, calm);
    stage_kill(&stage, STAGE_KVSTORE);
    stage_start(&stage, STAGE_KVSTORE);
    CHECK(check_durable(&stage, calm) >= durable);

    CHECK_EQ(unlink(path_of("kvstore-0/crumbs")), 0);
    CHECK_EQ(unlink(path_of("kvstore-0/ballast")), 0);
    wait_ended(stage.store, "full", FRAMES);
    stage_check_crcs(&stage, "full", calm, FRAMES);
    free(calm);
    rpc_sync_destroy(other);
    stage_close(&stage);
    CHECK_EQ(umount(path_of("kvstore-0")), 0);
}

TEST_MAIN()
