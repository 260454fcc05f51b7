/* What a machine is asked for: programs, folders, disks. */
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "machine.h"
#include "support/test.h"

TEST(this_machine_has_programs_and_a_disk)
{
    char path[4096];

    CHECK(machine_disk_free(test_folder()) > 0);
    CHECK_EQ(machine_disk_free("/nowhere/at/all"), 0);
    CHECK(machine_find_program(NULL, "sh", path, sizeof path));
    CHECK(access(path, X_OK) == 0);
    CHECK(!machine_find_program("/nowhere", "sh", path, sizeof path));
    CHECK(!machine_find_program(NULL, "no-such-program-at-all", path, sizeof path));
}

TEST(a_folder_that_is_not_made_yet_has_one_above_it)
{
    char wanted[600], found[600];

    snprintf(wanted, sizeof wanted, "%s/not/made/yet", test_folder());
    machine_nearest_folder(wanted, found, sizeof found);
    CHECK_STR(found, test_folder());
    machine_nearest_folder("/nowhere/at/all", found, sizeof found);
    CHECK_STR(found, "/");
    machine_nearest_folder("/", found, sizeof found);
    CHECK_STR(found, "/");
}

TEST(disk_use_counts_files_below)
{
    char folder[600], path[700];
    struct status st;

    CHECK_EQ(machine_disk_used("/nowhere/at/all"), 0);
    snprintf(folder, sizeof folder, "%s/deep/er", test_folder());
    CHECK_OK(file_make_folders(folder, &st), st);
    snprintf(path, sizeof path, "%s/file", folder);
    CHECK_OK(file_write_durable(path, "x", 1, &st), st);
    CHECK(machine_disk_used(test_folder()) >= 512);
}

TEST_MAIN()
