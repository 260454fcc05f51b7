/* The records of a segment file: by its footer's table, or as they stand. */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "kv/kv_check_internal.h"
#include "kv/kv_crc.h"

static struct kv_finding damage_of(const struct kv_check *check, uint64_t offset, uint64_t bytes,
                                   uint64_t to_seq)
{
    struct kv_finding finding = kv_check_damage_at(offset, bytes);

    finding.from_seq = check->end_seq;
    finding.to_seq = to_seq > check->end_seq ? to_seq : check->end_seq;
    return finding;
}

static void account(struct kv_check *check, uint64_t from_seq, uint64_t to_seq)
{
    if (to_seq > from_seq)
        check->accounts(check, from_seq, to_seq);
    if (to_seq > check->end_seq)
        check->end_seq = to_seq;
}

/* --- one record --- */

/* Whether a record of this segment has its header here; *why says why not. */
static bool look_at(struct kv_check *check, uint64_t at, struct kv_record *record, uint32_t *header_crc,
                    struct status *why)
{
    uint64_t left = check->records_end - at;
    const uint8_t *header = kv_reader_view(&check->reader, at, KV_PAGE_BYTES, why);
    uint32_t bytes = header == NULL ? 0 : kv_record_header_bytes(header);
    struct kv_layout layout;

    if (header == NULL)
        return false;
    if (bytes == 0 || bytes > left)
        return status_fail(why, STATUS_DATA_LOSS, "no record begins here");
    header = kv_reader_view(&check->reader, at, bytes, why);
    if (header == NULL || !kv_record_get(record, header_crc, &check->super, header, why))
        return false;
    kv_record_layout(record, &layout);
    if (layout.record_bytes > left)
        return status_fail(why, STATUS_DATA_LOSS, "record %llu is longer than what is left",
                           (unsigned long long)record->seq);
    return record->seq >= check->end_seq ||
           status_fail(why, STATUS_DATA_LOSS, "record %llu comes after %llu", (unsigned long long)record->seq,
                       (unsigned long long)check->end_seq);
}

/* The keys' checksum; on the way those of the columns that the footer has of them. */
static bool crc_keys(struct kv_check *check, uint64_t at, uint64_t bytes, uint32_t *crc, struct status *why)
{
    uint32_t key_bytes = kv_key_bytes(&check->super.geometry);

    for (uint32_t layer = 0; bytes > 0; layer++, at += key_bytes, bytes -= key_bytes) {
        uint32_t *column = &check->derived.column_crc[layer];
        const uint8_t *key = kv_reader_view(&check->reader, at, key_bytes, why);

        if (key == NULL)
            return false;
        *crc = kv_crc(*crc, key, key_bytes);
        *column = kv_crc(*column, key, key_bytes);
    }
    return true;
}

static bool part_fails(struct kv_finding *finding, const struct kv_record *record,
                       const struct kv_record_part *part, bool is_crc)
{
    static const char *const sentences[] = { "there are no zeros behind", "the checksum does not fit of" };
    char what[32];

    if (part->slice < 0)
        snprintf(what, sizeof what, "the %s", part->what);
    else
        snprintf(what, sizeof what, "%c of layer %d", part->slice % 2 == 0 ? 'K' : 'V', part->slice / 2);
    snprintf(finding->text, sizeof finding->text, "record %llu: %s %s", (unsigned long long)record->seq,
             sentences[is_crc], what);
    return false;
}

static bool check_part(struct kv_check *check, uint64_t at, const struct kv_record *record,
                       const struct kv_record_part *part, struct kv_finding *finding)
{
    uint64_t start = at + part->at, end = start + part->bytes, zeros_end = at + part->zeros_end;
    bool is_frame = record->type == KV_RECORD_FRAME, is_zero = true, ok;
    struct status why;
    uint32_t crc = 0;

    *finding = kv_check_damage_at(start, part->bytes);
    if (is_frame && strcmp(part->what, "keys") == 0)
        ok = crc_keys(check, start, part->bytes, &crc, &why);
    else
        ok = kv_reader_crc(&check->reader, start, part->bytes, &crc, &why);
    if (strcmp(part->what, "note") == 0)
        ok = ok && kv_reader_crc(&check->reader, start, part->bytes, &check->derived.notes_crc, &why);
    if (!ok || !kv_reader_is_zero(&check->reader, end, zeros_end - end, &is_zero, &why)) {
        finding->kind = kv_check_kind_of(&why);
        snprintf(finding->text, sizeof finding->text, "%s", why.text);
        return false;
    }
    if (crc != part->crc)
        return part_fails(finding, record, part, true);
    if (is_zero)
        return true;
    *finding = kv_check_damage_at(end, zeros_end - end);
    return part_fails(finding, record, part, false);
}

/* Every part; the finding is of the first that does not fit, and says how many do not. */
static bool check_parts(struct kv_check *check, uint64_t at, const struct kv_record *record,
                        struct kv_finding *finding)
{
    struct kv_record_part part = { 0 };
    struct kv_finding found;
    uint32_t bad = 0;
    size_t used;

    while (kv_record_next_part(record, &part))
        if (!check_part(check, at, record, &part, &found) && bad++ == 0)
            *finding = found;
    if (bad == 0)
        return true;
    finding->from_seq = record->seq;
    finding->to_seq = record->end_seq;
    used = strlen(finding->text);
    if (bad > 1)
        snprintf(finding->text + used, sizeof finding->text - used, ", and %u more of its parts do not fit",
                 bad - 1);
    check->is_derivable = false;
    return false;
}

/* Numbers that were damaged already when this file was made from another. */
static void take_tombstone(struct kv_check *check, uint64_t at, const struct kv_record *record)
{
    struct kv_finding finding = damage_of(check, at, KV_PAGE_BYTES, record->end_seq);
    bool is_derivable = check->is_derivable;

    if (record->event != KV_TOMBSTONE_DAMAGED)
        return;
    finding.kind = KV_FOUND_KNOWN;
    finding.from_seq = record->seq;
    check->damaged_frames += record->end_seq - record->seq;
    kv_check_tell(check, finding, "what was here was found damaged when the file was made from an older one");
    check->is_derivable = is_derivable;
}

/* A record whose header fits: what the footer must have of it, and that it follows the one before. */
static void take_record(struct kv_check *check, uint64_t at, const struct kv_record *record,
                        uint32_t header_crc)
{
    struct kv_footer *derived = &check->derived;
    bool is_frame = record->type == KV_RECORD_FRAME;
    uint8_t bytes[KV_ENTRY_BYTES], sum[4];
    struct kv_entry entry;

    if (check->is_chained && record->chain != check->chain) {
        struct kv_finding finding = damage_of(check, at, KV_PAGE_BYTES, record->seq);

        kv_check_tell(check, finding, "record %llu names another record before it than the one that is there",
                      (unsigned long long)record->seq);
    }
    kv_entry_of_record(&entry, record, at, header_crc);
    kv_entry_put(&entry, bytes);
    derived->table_crc = kv_crc(derived->table_crc, bytes, sizeof bytes);
    derived->notes_bytes += record->note_bytes;
    for (uint32_t i = 0; is_frame && i < 2 * check->super.geometry.layers; i++) {
        const struct kv_slice *slice = &record->slices[i];

        put_u32(sum, record->layers == 0
                         ? 0
                         : kv_slice_crc_written(&check->super, record->seq, i, slice->crc, slice->bytes));
        derived->sums_crc = kv_crc(derived->sums_crc, sum, sizeof sum);
    }
    check->chain = header_crc;
    check->is_chained = true;
    check->records++;
    check->frames += is_frame;
    if (record->type == KV_RECORD_GAP)
        check->gap_frames += record->end_seq - record->seq;
    if (record->type == KV_RECORD_TOMBSTONE)
        take_tombstone(check, at, record);
    check->end = at + entry.record_bytes;
    account(check, record->seq, record->end_seq);
}

/* --- records by the footer's table --- */

static void take_known_damage(struct kv_check *check, const struct kv_entry *entry)
{
    struct kv_finding finding = damage_of(check, entry->offset, entry->record_bytes, entry->end_seq);

    finding.kind = KV_FOUND_KNOWN;
    finding.from_seq = entry->seq;
    check->damaged_frames += entry->end_seq - entry->seq;
    check->is_chained = false;
    account(check, entry->seq, entry->end_seq);
    kv_check_tell(check, finding, "what was here was found damaged when the file was sealed");
}

static void check_entry(struct kv_check *check, const struct kv_entry *entry)
{
    struct kv_record record;
    struct kv_finding finding;
    struct kv_entry found;
    uint8_t said[KV_ENTRY_BYTES], is[KV_ENTRY_BYTES];
    uint32_t header_crc;
    struct status why;

    if (!look_at(check, entry->offset, &record, &header_crc, &why)) {
        finding = damage_of(check, entry->offset, entry->record_bytes, entry->end_seq);
        finding.from_seq = entry->seq;
        finding.kind = kv_check_kind_of(&why);
        check->damaged_frames += entry->end_seq - entry->seq;
        check->is_chained = false;
        account(check, entry->seq, entry->end_seq);
        kv_check_tell(check, finding, "%s", why.text);
        return;
    }
    kv_entry_of_record(&found, &record, entry->offset, header_crc);
    kv_entry_put(entry, said);
    kv_entry_put(&found, is);
    if (memcmp(said, is, sizeof is) != 0)
        kv_check_tell(check, damage_of(check, entry->offset, KV_PAGE_BYTES, entry->end_seq),
                      "the footer says something else of record %llu than its header",
                      (unsigned long long)record.seq);
    if (!check_parts(check, entry->offset, &record, &finding)) {
        check->damaged_frames += record.end_seq - record.seq;
        check->found(check, &finding);
    }
    take_record(check, entry->offset, &record, header_crc);
}

/* Entry of the table at `entry_at`; its record must begin at `at`. */
static bool read_entry(struct kv_check *check, uint64_t entry_at, uint64_t at, struct kv_entry *entry,
                       struct status *why)
{
    const uint8_t *bytes = kv_reader_view(&check->table, entry_at, KV_ENTRY_BYTES, why);

    if (bytes == NULL || !kv_entry_get(entry, &check->super.geometry, bytes, why))
        return false;
    return (entry->offset == at && entry->record_bytes <= check->footer.table - at) ||
           status_fail(why, STATUS_DATA_LOSS, "footer: record %llu is not where the one before it ends",
                       (unsigned long long)entry->seq);
}

bool kv_check_walk_table(struct kv_check *check, struct status *st)
{
    const struct kv_footer *footer = &check->footer;
    uint64_t at = KV_PAGE_BYTES;

    for (uint64_t i = 0; i < footer->records; i++) {
        uint64_t entry_at = footer->table + i * KV_ENTRY_BYTES;
        struct kv_entry entry;
        struct status why;

        if (!read_entry(check, entry_at, at, &entry, &why)) {
            struct kv_finding finding = damage_of(check, entry_at, KV_ENTRY_BYTES, footer->end_seq);

            finding.kind = kv_check_kind_of(&why);
            kv_check_tell(check, finding, "%s", why.text);
            return true;
        }
        if (entry.flags & KV_ENTRY_DAMAGED)
            take_known_damage(check, &entry);
        else
            check_entry(check, &entry);
        at += entry.record_bytes;
        if (!kv_check_go_on(check, entry.record_bytes, st))
            return false;
    }
    if (at != footer->table)
        kv_check_tell(check, damage_of(check, at, footer->table - at, footer->end_seq),
                      "the footer says nothing of what is here");
    return true;
}

/* --- records as they stand --- */

struct run {
    uint64_t from, written_end; /* the same: nothing was written of it */
    bool is_cut;                /* behind what was synced one did not fit: nothing that follows counts */
    bool is_unread;             /* the disk did not read all of it: it may be anything */
};

/* What is no record ends here, before a record with this number or at the end of all (`is_last`). */
static void end_run(struct kv_check *check, struct run *run, uint64_t to, uint64_t seq, bool is_last)
{
    bool is_open = check->name.is_open, has_mark = check->super.minor >= KV_FORMAT_MINOR_MARK;
    bool is_tail = is_open && is_last && (!has_mark || run->from >= check->synced);
    struct kv_finding finding = damage_of(check, run->from, to - run->from, seq);

    if (to == run->from || (is_tail && run->written_end == run->from))
        return;
    if (run->is_unread || (is_open && is_last && check->is_mark_unread)) {
        finding.kind = KV_FOUND_UNREAD;
        finding.to_seq = finding.from_seq;
        check->is_chained = false;
        kv_check_tell(check, finding, "what is here cannot be told from records that were not read");
        return;
    }
    if (is_tail) {
        finding.kind = KV_FOUND_TORN;
        finding.to_seq = finding.from_seq;
        finding.bytes = run->written_end - run->from;
        check->torn_bytes = finding.bytes;
        kv_check_tell(check, finding, "what is here was not acknowledged as durable when its writer died");
        return;
    }
    check->damaged_frames += finding.to_seq - finding.from_seq;
    check->is_chained = false;
    kv_check_tell(check, finding, "what is here is no record");
    account(check, finding.from_seq, finding.to_seq);
}

/* Goes on behind a place where no record begins. */
static uint64_t skip(struct kv_check *check, struct run *run, uint64_t at)
{
    uint64_t next = at + KV_PAGE_BYTES;
    bool is_zero = false;
    struct status why;

    if (!kv_reader_is_zero(&check->reader, at, KV_PAGE_BYTES, &is_zero, &why)) {
        struct kv_finding finding = kv_check_damage_at(at, KV_PAGE_BYTES);

        run->is_unread = true;
        finding.kind = KV_FOUND_UNREAD;
        kv_check_tell(check, finding, "%s", why.text);
    }
    if (!is_zero)
        run->written_end = next;
    next = disk_skip_hole(check->disk, check->reader.fd, next, check->records_end);
    return next < check->records_end ? next : check->records_end;
}

bool kv_check_walk_records(struct kv_check *check, struct status *st)
{
    struct run run = { .from = KV_PAGE_BYTES, .written_end = KV_PAGE_BYTES };
    uint64_t at = KV_PAGE_BYTES, next;

    for (; at < check->records_end; at = next) {
        struct kv_record record;
        struct kv_finding finding;
        struct kv_layout layout = { 0 };
        uint32_t header_crc;
        struct status why;
        bool is_record = look_at(check, at, &record, &header_crc, &why);
        bool fits = is_record && !run.is_cut && check_parts(check, at, &record, &finding);

        if (is_record)
            kv_record_layout(&record, &layout);
        run.is_cut |= !fits && at >= check->synced;
        if (is_record && !run.is_cut) {
            end_run(check, &run, at, record.seq, false);
            if (!fits) {
                check->damaged_frames += record.end_seq - record.seq;
                check->found(check, &finding);
            }
            take_record(check, at, &record, header_crc);
            next = at + layout.record_bytes;
            run = (struct run){ .from = next, .written_end = next };
        } else if (is_record) {
            run.written_end = next = at + layout.record_bytes;
        } else {
            run.is_unread |= kv_check_kind_of(&why) == KV_FOUND_UNREAD;
            next = skip(check, &run, at);
        }
        if (!kv_check_go_on(check, next - at, st))
            return false;
    }
    end_run(check, &run, at, check->has_footer ? check->footer.end_seq : check->end_seq, true);
    return true;
}
