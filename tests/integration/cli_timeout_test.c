/* Verbs that go on for as long as there is something to do, against a store that never comes to the end: they end when they
 * were told to, say what became of what was asked for, and meanwhile what the store waits for. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli_stage.h"
#include "export_file.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "support/test.h"

static struct process verb;
static struct status st;

static const char *in_folder(const char *name)
{
    static char path[600];

    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    return path;
}

static void write_item(struct export_writer *writer, enum export_kind kind, const ProtobufCMessage *message)
{
    uint8_t bytes[512];

    CHECK(protobuf_c_message_get_packed_size(message) <= sizeof bytes);
    CHECK_OK(export_writer_item(writer, kind, bytes, protobuf_c_message_pack(message, bytes), 0, 0, &st), st);
}

/* An export with an end and no frame. */
static void write_export(const char *path)
{
    Reelkv__V1__StreamDefinition definition = REELKV__V1__STREAM_DEFINITION__INIT;
    Reelkv__V1__ExportHead head = REELKV__V1__EXPORT_HEAD__INIT;
    Reelkv__V1__AppendEnd end = REELKV__V1__APPEND_END__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    static struct export_writer writer;

    id.namespace_ = (char *)"default";
    id.name = (char *)"gate";
    definition.id = &id;
    head.definition = &definition;
    CHECK_OK(export_writer_begin(&writer, path, &st), st);
    write_item(&writer, EXPORT_HEAD, &head.base);
    write_item(&writer, EXPORT_END, &end.base);
    CHECK_OK(export_writer_finish(&writer, &st), st);
    export_writer_deinit(&writer);
}

TEST(an_export_ends_when_it_was_told_to)
{
    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 0);
    CHECK_EQ(RUN(&verb, "mem", "export", "dock", "--output", in_folder("dock"), "--timeout", "1"), 7);
    CHECK_HAS(process_log(&verb), "not done in 1 s; nothing was written");
    CHECK(access(in_folder("dock"), F_OK) != 0);
    tear_down();
}

TEST(an_import_ends_when_it_was_told_to)
{
    set_up();
    write_export(in_folder("gate"));
    CHECK_EQ(RUN(&verb, "mem", "import", in_folder("gate"), "--timeout", "1"), 7);
    CHECK_HAS(process_log(&verb), "not done in 1 s; whether it was imported all the same, `reelkv cam ls");
    tear_down();
}

/* What had the name is still being removed: it heard that it exists already. */
TEST(an_import_waits_for_its_name)
{
    set_up();
    write_export(in_folder("gate"));
    CHECK_EQ(RUN(&verb, "mem", "import", in_folder("gate"), "--as", "early"), 0);
    CHECK_HAS(process_log(&verb), "Camera early imported: 0 frames");
    tear_down();
}

TEST(a_forgetting_says_what_it_waits_for_and_ends_when_it_was_told_to)
{
    const struct json *row;
    struct json *value;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 0);
    CHECK_EQ(RUN(&verb, "mem", "forget", "dock", "--from", "-1h", "--yes", "--timeout", "5"), 7);
    CHECK_HAS(process_log(&verb), "reelkv: the store waits, and goes on by itself: the disk is ");
    CHECK_HAS(process_log(&verb),
              "not done in 5 s; the store goes on with it, `reelkv mem forget dock --receipts");
    CHECK(strchr(process_log(&verb), '\x1b') == NULL);
    CHECK_EQ(RUN(&verb, "mem", "forget", "dock", "--receipts"), 0);
    CHECK_HAS(process_log(&verb), "Number 7 waits, and goes on by itself: the disk is ");
    CHECK_EQ(RUN(&verb, "mem", "forget", "dock", "--receipts", "--json"), 0);
    value = printed(&verb);
    row = json_at(json_get(value, "receipts"), 0);
    CHECK_HAS(json_str(json_get(row, "waits_because")), "full");
    CHECK(json_get(row, "done") == NULL);
    json_free(value);
    tear_down();
}

TEST_MAIN()
