/* Memory limits of cgroups, from folders laid out as the kernel does it. */
#include "base/file.h"
#include "base/memory.h"
#include "support/test.h"

static char mount_path[512], self_path[512];

static void put(const char *group, const char *name, const char *text)
{
    char path[1024];
    struct status st;

    snprintf(path, sizeof path, "%s%s", mount_path, group);
    CHECK_OK(file_make_folders(path, &st), st);
    snprintf(path, sizeof path, "%s%s/%s", mount_path, group, name);
    CHECK_OK(file_write_durable(path, text, strlen(text), &st), st);
}

static void set_up(const char *self)
{
    struct status st;

    snprintf(mount_path, sizeof mount_path, "%s/cgroup", test_folder());
    snprintf(self_path, sizeof self_path, "%s/self", test_folder());
    CHECK_OK(file_write_durable(self_path, self, strlen(self), &st), st);
}

TEST(the_lowest_limit_on_the_way_to_the_root_counts)
{
    uint64_t used;

    set_up("0::/a/b/c\n");
    put("/a/b/c", "memory.max", "max\n");
    put("/a/b", "memory.max", "1000000\n");
    put("/a/b", "memory.current", "400000\n");
    put("/a", "memory.max", "2000000\n");
    CHECK_EQ(memory_cgroup_limit(self_path, mount_path, &used), 1000000);
    CHECK_EQ(used, 400000);
}

TEST(version_one_has_a_folder_for_memory)
{
    uint64_t used;

    set_up("12:cpu,cpuacct:/other\n9:memory:/docker/x\n1:name=systemd:/y\n");
    put("/memory", "memory.limit_in_bytes", "9223372036854771712\n");
    put("/memory/docker/x", "memory.limit_in_bytes", "536870912\n");
    put("/memory/docker/x", "memory.usage_in_bytes", "1000\n");
    CHECK_EQ(memory_cgroup_limit(self_path, mount_path, &used), 536870912);
    CHECK_EQ(used, 1000);
}

/* In a container the group's own path is not there; the mount's root is the group. */
TEST(containers_see_their_group_as_the_root)
{
    uint64_t used;

    set_up("0::/kubepods/pod1/container\n");
    put("", "memory.max", "3000000\n");
    CHECK_EQ(memory_cgroup_limit(self_path, mount_path, &used), 3000000);
    CHECK_EQ(used, 0);
}

TEST(no_limit_is_no_limit)
{
    uint64_t used;

    set_up("0::/\n");
    CHECK(memory_cgroup_limit(self_path, mount_path, &used) == UINT64_MAX);
    set_up("nonsense\n::\n:\n");
    CHECK(memory_cgroup_limit(self_path, mount_path, &used) == UINT64_MAX);
    CHECK(memory_cgroup_limit("/nowhere/at/all", mount_path, &used) == UINT64_MAX);
}

TEST(this_machine_has_memory)
{
    uint64_t used;

    CHECK(memory_limit() > 0);
    CHECK(memory_limit() <= memory_cgroup_limit("/proc/self/cgroup", "/sys/fs/cgroup", &used));
    CHECK(memory_available() > 0 && memory_available() <= memory_limit());
}

TEST_MAIN()
