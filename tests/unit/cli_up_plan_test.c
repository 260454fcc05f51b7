/* Budgets that nobody named come from the machine: its memory as far as the cgroup allows it, and the free disk. The machine
 * here is the test's own: the functions of base/memory.h and machine.h that a plan calls, with numbers a case gives. */
#include <stdlib.h>

#include "base/memory.h"
#include "machine.h"
#include "support/test.h"
#include "up_plan.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static struct {
    uint64_t memory, available, disk_free, disk_used;
} machine;

uint64_t memory_limit(void)
{
    return machine.memory;
}

uint64_t memory_available(void)
{
    return machine.available;
}

void machine_nearest_folder(const char *folder, char *out, size_t out_bytes)
{
    (void)folder;
    snprintf(out, out_bytes, "/");
}

uint64_t machine_disk_free(const char *folder)
{
    CHECK_STR(folder, "/"); /* the data folder itself is not made yet */
    return machine.disk_free;
}

uint64_t machine_disk_used(const char *folder)
{
    CHECK_STR(folder, "/not/yet/store");
    return machine.disk_used;
}

bool machine_find_program(const char *folder, const char *name, char *out, size_t out_bytes)
{
    (void)folder;
    (void)name;
    (void)out;
    (void)out_bytes;
    return true;
}

static bool resolve(uint64_t ram, uint64_t disk, uint32_t kvstores, struct cluster_plan *plan,
                    struct status *st)
{
    static const struct cluster_plan never;
    const struct up_request request = { .data = "/not/yet",
                                        .model = REELKV_SOURCE_DIR "/tests/data/parity/tiny-a",
                                        .dtype = "",
                                        .ageing = "",
                                        .ram_bytes = ram,
                                        .disk_bytes = disk,
                                        .counts = { [CLUSTER_KVSTORE] = kvstores } };

    return up_plan_resolve(&request, &never, plan, st);
}

TEST(budgets_nobody_named_are_shares_of_the_machine)
{
    static const struct {
        uint64_t memory, available, disk_free, disk_used; /* of the machine */
        uint64_t ram, disk;                               /* of the plan */
    } cases[] = {
        { 8 * GIB, 8 * GIB, 100 * GIB, 0, 2 * GIB, 50 * GIB },
        { 8 * GIB, 2 * GIB, 100 * GIB, 0, 1 * GIB, 50 * GIB },       /* most memory is in use */
        { 8 * GIB, 8 * GIB, 40 * GIB, 20 * GIB, 2 * GIB, 30 * GIB }, /* what the blocks take is theirs */
        { 256 * MIB, 256 * MIB, 512 * MIB, 0, 64 * MIB, 256 * MIB }, /* the least that will do */
    };
    static struct cluster_plan plan;
    struct status st = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        machine.memory = cases[i].memory;
        machine.available = cases[i].available;
        machine.disk_free = cases[i].disk_free;
        machine.disk_used = cases[i].disk_used;
        CHECK_OK(resolve(0, 0, 0, &plan, &st), st);
        CHECK_EQ(plan.ram_bytes, cases[i].ram);
        CHECK_EQ(plan.disk_bytes, cases[i].disk);
    }
}

TEST(budgets_that_were_named_are_taken)
{
    static struct cluster_plan plan;
    struct status st = { 0 };

    machine.memory = machine.available = 8 * GIB;
    machine.disk_free = 100 * GIB;
    machine.disk_used = 0;
    CHECK_OK(resolve(6 * GIB, 90 * GIB, 0, &plan, &st), st);
    CHECK_EQ(plan.ram_bytes, 6 * GIB);
    CHECK_EQ(plan.disk_bytes, 90 * GIB);
}

TEST(ageing_is_as_last_time_until_something_else_is_said)
{
    static const struct {
        const char *said, *then;
    } cases[] = { { "", "default=full:24h" }, { "none", "" }, { "default=full:1h", "default=full:1h" } };
    static struct cluster_plan last = { .ageing = "default=full:24h" }, plan;
    struct status st = { 0 };

    machine.memory = machine.available = 8 * GIB;
    machine.disk_free = 100 * GIB;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct up_request request = { .data = "/not/yet",
                                            .model = REELKV_SOURCE_DIR "/tests/data/parity/tiny-a",
                                            .dtype = "",
                                            .ageing = cases[i].said };

        CHECK_OK(up_plan_resolve(&request, &last, &plan, &st), st);
        CHECK_STR(plan.ageing, cases[i].then);
    }
}

/* What does not fit, or holds too little for its kvstores, is refused with the option that helps. */
TEST(a_machine_too_small_for_the_budgets_is_refused)
{
    static const struct {
        uint64_t memory, available, disk_free, ram, disk;
        uint32_t kvstores;
        const char *says, *advice;
    } cases[] = {
        { 128 * MIB, 128 * MIB, 100 * GIB, 0, 0, 0, "a memory budget of 32 MiB is too small", "--ram" },
        { 256 * MIB, 256 * MIB, 100 * GIB, 0, 0, 2, "(64 MiB for each kvstore)", "--ram" },
        { 8 * GIB, 8 * GIB, 300 * MIB, 0, 0, 0, "a disk budget of 150 MiB is too small", "--data" },
        { 8 * GIB, 8 * GIB, 100 * GIB, 9 * GIB, 0, 0, "a memory budget of 9.0 GiB does not fit", "--ram" },
        { 8 * GIB, 4 * GIB, 100 * GIB, 6 * GIB, 0, 0, "6.0 GiB does not fit now", "--ram" },
        { 8 * GIB, 8 * GIB, 300 * MIB, 0, 0, 0, "150 MiB is too small", "--disk" },
        { 8 * GIB, 8 * GIB, 100 * GIB, 0, 101 * GIB, 0, "a disk budget of 101 GiB does not fit", "--disk" },
    };
    static struct cluster_plan plan;
    struct status st = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        machine.memory = cases[i].memory;
        machine.available = cases[i].available;
        machine.disk_free = cases[i].disk_free;
        machine.disk_used = 0;
        CHECK(!resolve(cases[i].ram, cases[i].disk, cases[i].kvstores, &plan, &st));
        CHECK_EQ(st.code, STATUS_EXHAUSTED);
        CHECK_HAS(st.text, cases[i].says);
        CHECK_HAS(st.text, cases[i].advice);
    }
}

TEST_MAIN()
