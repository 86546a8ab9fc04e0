/*
 * Goal: whatever bytes the segments of a log hold, recovery ends with an answer; it delivers only
 * whole records, in order, none below where it was to begin; what it delivered can be read; the log
 * can be written afterwards; and a second recovery delivers the same again, then what was written.
 *
 * Input: flags (1 byte), repairs (1: enum repair), FROM in units of 8 (2), SYNCED in units of 512
 * (2), the number of segments less one (1), and for each: flags (1), its base's distance from the
 * one before in units of 4096 (2), bytes behind the header in units of 8 (2), these bytes. FROM and
 * SYNCED count from the first segment's base.
 */
#include "storage/log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_io.h"
#include "tests/fuzz/repair.h"

#define MAX_SEGMENTS 4
#define MAX_TAKEN    4096
#define SALT         UINT64_C(0x0123456789abcdef)

enum flags {
    CLEAN = 1,
    KNOWN = 2,
    SEALED = 4,
    MISSING_LARGE = 8,
    AGAIN_CLEAN = 16,
    DELIVER_ERROR = 32
};
enum segment_flags { BAD_HEADER = 1, OTHER_FEATURES = 2, WRONG_VOLUME = 4, HALF = 8 };

struct taken {
    struct {
        struct place place;
        struct id128 id;
        uint64_t check;
        uint8_t flags;
        bool verified;
    } records[MAX_TAKEN];
    size_t count;
    lsn_t from;
    bool missing_large, fails;
};

static struct memory_io memory;
static struct taken first, second;
static struct log_segment known[MAX_SEGMENTS];
static size_t segment_count;

static const struct id128 store_id = {{5, 5, 5}};

static int visit(void *arg, const struct record_view *view, const struct place *place)
{
    struct taken *taken = arg;
    const struct record_header *header = &view->header;

    CHECK(place->lsn == view->lsn && place->lsn >= taken->from && place->lsn % 8 == 0);
    CHECK(taken->count == 0 || taken->records[taken->count - 1].place.lsn < place->lsn);
    CHECK(place->offset >= SEGMENT_HEADER_BYTES && place->volume > 0);
    CHECK(header->type >= RECORD_EVENT && header->type <= RECORD_BODY);
    CHECK(!(header->flags & RECORD_HAS_BODY) == !view->body);
    if (taken->fails && taken->count == 1)
        return ERR_NO_SPACE;
    CHECK(taken->count < MAX_TAKEN);
    taken->records[taken->count].place = *place;
    taken->records[taken->count].id = header->id;
    taken->records[taken->count].check = header->check;
    taken->records[taken->count].flags = header->flags;
    taken->records[taken->count].verified = record_verify_body(view) == 0;
    taken->count++;
    return 0;
}

static int check_large(void *arg, const struct record_header *header)
{
    CHECK(header->flags & RECORD_LARGE);
    return ((struct taken *)arg)->missing_large ? ERR_NOT_FOUND : 0;
}

/* ---- The files ---- */

static void repair_all(uint8_t *data, size_t len, lsn_t base, uint64_t salt, unsigned how)
{
    uint64_t previous = 0;

    for (size_t at = SEGMENT_HEADER_BYTES; how && at < len;) {
        size_t used = repair_batch(data + at, len - at, salt, base + at, how, &previous);

        at +=
            used > BATCH_ALIGN ? (used + BATCH_ALIGN - 1) / BATCH_ALIGN * BATCH_ALIGN : BATCH_ALIGN;
    }
}

static lsn_t add_segment(struct feed *feed, size_t i, lsn_t base, unsigned repairs, unsigned flags)
{
    unsigned own = (unsigned)feed_number(feed, 1);
    struct segment_header header = {
        .features = {.ro_compat = own & OTHER_FEATURES ? 1 : 0},
        .store = store_id,
        .volume = (uint32_t)(i + 1 + (own & WRONG_VOLUME ? 1 : 0)),
        .salt = SALT + i,
    };
    char path[MEMORY_PATH];
    size_t got;

    base += feed_number(feed, 2) * SEGMENT_HEADER_BYTES;
    header.base = base;
    size_t len = (size_t)feed_number(feed, 2) * 8;
    const uint8_t *bytes = feed_some(feed, len, &got);
    (void)snprintf(path, sizeof path, "/f/log/%08zx.seg", i + 1);
    struct memory_file *file = memory_make(&memory, path);
    memory_resize(file, SEGMENT_HEADER_BYTES + len);
    segment_header_encode(file->data, &header);
    if (own & BAD_HEADER)
        file->data[100] ^= 1;
    if (got > 0)
        memcpy(file->data + SEGMENT_HEADER_BYTES, bytes, got);
    repair_all(file->data, file->len, base, header.salt, repairs);
    if (own & HALF)
        file->len -= file->len / 2;
    known[i] = (struct log_segment){.volume = (uint32_t)(i + 1),
                                    .base = base,
                                    .end_bytes = file->len,
                                    .sealed = (flags & SEALED) != 0};
    return base;
}

static lsn_t make_files(struct feed *feed, unsigned repairs, unsigned flags)
{
    lsn_t base = 0, lowest = 0;

    memory_clear(&memory);
    segment_count = 1 + feed_number(feed, 1) % MAX_SEGMENTS;
    for (size_t i = 0; i < segment_count; i++) {
        base = add_segment(feed, i, base, repairs, flags);
        if (i == 0)
            lowest = base;
        base += SEGMENT_HEADER_BYTES;
    }
    return lowest;
}

/* ---- Starting ---- */

static int start(struct log **log, struct taken *taken, lsn_t from, lsn_t synced, bool clean,
                 const struct log_segment *segments, size_t count, struct log_recovery *recovery)
{
    struct log_config config = {.env = &memory.env,
                                .files_dir = "/f",
                                .store = store_id,
                                .segment_bytes = 64 * KIB,
                                .sync = true};
    int rc = log_open(log, &config, segments, count);

    taken->count = 0;
    taken->from = from;
    if (rc)
        return rc;
    rc = log_recover(*log, from, synced, clean, visit, check_large, taken, recovery);
    if (rc)
        log_close(log);
    return rc;
}

/* What was delivered with a good body can be read at its place. */
static void read_back(struct log *log, const struct taken *taken)
{
    static uint8_t buf[RECORD_MAX_BYTES];
    struct record_view view;

    for (size_t i = 0; i < taken->count; i++) {
        if (taken->records[i].flags & RECORD_LARGE)
            continue;
        int rc = log_read(log, &taken->records[i].place, &taken->records[i].id, 0, buf, sizeof buf,
                          false, &view);

        CHECK(rc == (taken->records[i].verified ? 0 : ERR_CORRUPT));
        CHECK(rc || view.header.check == taken->records[i].check);
    }
}

static struct place write_one(struct log *log)
{
    static const uint8_t body[100] = "body";
    uint64_t sum = block_checksum(body, sizeof body, 0);
    struct log_record record = {.type = RECORD_EVENT,
                                .flags = RECORD_HAS_BODY,
                                .id = {{0xee}},
                                .event = "event",
                                .event_bytes = 5,
                                .body = body,
                                .body_bytes = sizeof body,
                                .sums = &sum};
    struct place place;

    lsn_t end = log_end(log);
    CHECK(log_begin(log, 7) == 0);
    CHECK(log_add(log, &record, &place) == 0);
    CHECK(log_write(log) == 0);
    CHECK(log_sync(log) == 0);
    CHECK(place.lsn >= end && log_end(log) > place.lsn && log_synced(log) == log_end(log));
    return place;
}

static void same_delivery(size_t count)
{
    for (size_t i = 0; i < count; i++)
        CHECK(place_equal(&first.records[i].place, &second.records[i].place) &&
              first.records[i].check == second.records[i].check);
}

/* Stop as a node does that is told to: the last batch says that all before it is synced. */
static lsn_t stop_cleanly(struct log **log)
{
    CHECK(log_begin(*log, 8) == 0 && log_write(*log) == 0 && log_sync(*log) == 0);
    lsn_t end = log_end(*log);
    log_close(log);
    CHECK(memory.open_now == 0);
    return end;
}

/* Start where a clean stop ended: nothing is left to deliver, and the log goes on behind it. */
static struct place clean_start(lsn_t end, const struct log_segment *segments, size_t count)
{
    struct log_recovery recovery;
    struct log *log;

    CHECK(start(&log, &second, end, end, true, segments, count, &recovery) == 0);
    CHECK(second.count == 0 && recovery.end == end && !recovery.cut);
    struct place place = write_one(log);
    CHECK(place.lsn > end);
    log_close(&log);
    CHECK(memory.open_now == 0);
    return place;
}

/* The log goes on after its recovery, and the next start sees it all. */
static void go_on(struct log *log, lsn_t from, lsn_t synced, unsigned flags)
{
    struct log_recovery recovery;
    struct log_segment *segments;
    struct place places[2];
    size_t count, wrote = 1;

    places[0] = write_one(log);
    CHECK(log_segments(log, &segments, &count) == 0 && count > 0);
    for (size_t i = 0; i < first.count; i++)
        CHECK(first.records[i].place.lsn < places[0].lsn);
    if (!(flags & KNOWN)) /* the database has learnt of the segments, or is empty still */
        count = 0;
    if (flags & AGAIN_CLEAN)
        places[wrote++] = clean_start(stop_cleanly(&log), segments, count);
    else
        log_close(&log);
    CHECK(memory.open_now == 0);
    CHECK(start(&log, &second, from, synced, false, segments, count, &recovery) == 0);
    free(segments);
    CHECK(second.count == first.count + wrote);
    same_delivery(first.count);
    for (size_t i = 0; i < wrote; i++)
        CHECK(place_equal(&second.records[first.count + i].place, &places[i]));
    CHECK(!recovery.cut);
    log_close(&log);
    CHECK(memory.open_now == 0);
}

/* ---- What is known to have been synced is never cut nor changed ---- */

static struct {
    const struct memory_file *file;
    uint8_t *data;
    size_t len;
} before[MAX_SEGMENTS];

static void remember(void)
{
    for (size_t i = 0; i < segment_count; i++) {
        char path[MEMORY_PATH];

        (void)snprintf(path, sizeof path, "/f/log/%08zx.seg", i + 1);
        struct memory_file *file = memory_find(&memory, path);
        CHECK(file);
        before[i].file = file;
        before[i].data = exact_copy(file->data, file->len);
        before[i].len = file->len;
    }
}

static void check_kept(lsn_t synced)
{
    bool overlap = false; /* no log has such segments, and which one a position is in is unclear */

    for (size_t i = 0; i + 1 < segment_count; i++)
        overlap |= known[i].base + before[i].len > known[i + 1].base;
    for (size_t i = 0; i < segment_count; i++) {
        size_t len = synced > known[i].base ? synced - known[i].base : 0, at = 0;

        if (len > before[i].len)
            len = before[i].len;
        for (; !overlap && at < len; at++)
            CHECK((at < before[i].file->len ? before[i].file->data[at] : 0) == before[i].data[at]);
        free(before[i].data);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    unsigned flags = (unsigned)feed_number(&feed, 1), repairs = (unsigned)feed_number(&feed, 1);
    lsn_t from = feed_number(&feed, 2) * 8, synced = feed_number(&feed, 2) * BATCH_ALIGN;
    struct log_recovery recovery;
    struct log *log;

    if (!memory.io.open)
        memory_init(&memory);
    memory.dice = 1;
    lsn_t lowest = make_files(&feed, repairs, flags);
    from += lowest;
    synced += lowest;
    first.missing_large = second.missing_large = flags & MISSING_LARGE;
    first.fails = flags & DELIVER_ERROR;
    remember();
    int rc = start(&log, &first, from, synced, flags & CLEAN, known,
                   flags & KNOWN ? segment_count : 0, &recovery);
    check_kept(from > synced ? from : synced);
    CHECK(rc || first.count == recovery.records);
    if (rc) {
        CHECK(!log && memory.open_now == 0);
        CHECK(!first.fails || rc != ERR_NO_SPACE || first.count == 1);
        return 0;
    }
    CHECK(recovery.end <= log_end(log));
    read_back(log, &first);
    go_on(log, from, synced, flags);
    return 0;
}
