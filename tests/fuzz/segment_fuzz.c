/*
 * Goal: of segment, batch and record headers nothing is believed that could lead outside the bytes
 * that are there; and what is accepted is written again as it was.
 * Input: what it is (1 byte: 0 segment header, 1 batch, 2 record; + 4: checksums are made right),
 * salt (2), LSN in units of 512 (2), then its bytes.
 */
#include "storage/segment.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/repair.h"

static void try_segment(struct feed *feed, bool repair)
{
    uint8_t in[SEGMENT_HEADER_BYTES] = {0}, out[SEGMENT_HEADER_BYTES];
    struct segment_header header;
    size_t got;
    const uint8_t *at = feed_some(feed, sizeof in, &got);

    if (got)
        memcpy(in, at, got);
    if (repair)
        put_u64(in + sizeof in - 8, xxh64(in, sizeof in - 8, 0));
    int rc = segment_header_decode(&header, in);
    CHECK(rc == 0 || rc == ERR_CORRUPT || rc == ERR_FORMAT);
    if (rc)
        return;
    struct segment_header again;
    segment_header_encode(out, &header);
    CHECK(segment_header_decode(&again, out) == 0);
    CHECK(memcmp(in, out, 64) == 0);
    CHECK(id_equal(&again.store, &header.store) && again.base == header.base);
}

static void try_batch(struct feed *feed, uint64_t salt, lsn_t lsn, bool repair)
{
    struct batch_header header;
    size_t len = feed->left;
    uint8_t *in = exact_copy(feed->at, len);
    uint64_t previous = 0;

    if (repair)
        (void)repair_batch(in, len, salt, lsn, REPAIR_CHECKS | REPAIR_LSN, &previous);
    if (len >= BATCH_HEADER_BYTES && batch_header_decode(&header, in, lsn) == 0) {
        static const uint64_t checks[LIMIT_BATCH_RECORDS];
        uint8_t out[BATCH_HEADER_BYTES];
        uint64_t at = BATCH_HEADER_BYTES;

        CHECK(header.records <= LIMIT_BATCH_RECORDS && header.length_bytes <= LIMIT_BATCH_BYTES);
        CHECK(header.lsn == lsn && header.synced_through <= lsn);
        batch_header_encode(out, &header, salt, checks);
        CHECK(memcmp(in, out, 48) == 0);
        CHECK(header.checksum == batch_checksum(out, salt, checks, header.records));
        /* Walk along as the scan does. */
        for (uint32_t i = 0; i < header.records && at < len; i++) {
            struct record_view view;

            if (record_decode(&view, in + at, len - at, salt, lsn + at))
                break;
            CHECK(record_header_check(in + at, salt, lsn + at));
            at += record_bytes(&view.header);
        }
    }
    free(in);
}

static void check_record(const struct record_view *view, const uint8_t *in, size_t len,
                         uint64_t salt, lsn_t lsn)
{
    struct record_header header = view->header;
    uint64_t sums[LIMIT_INLINE_BLOCKS];
    uint64_t body = pad8(header.body_bytes), meta = record_bytes(&header) - body;

    CHECK(header.blocks <= LIMIT_INLINE_BLOCKS && header.blocks == block_count(header.body_bytes));
    CHECK(view->event >= in && view->event + header.event_bytes <= in + len);
    CHECK(!view->body || view->body + header.body_bytes <= in + len);
    CHECK(record_bytes(&header) % 8 == 0 && meta <= len);
    for (uint16_t i = 0; i < header.blocks; i++)
        sums[i] = get_u64(view->sums + 8 * i);
    uint8_t *out = malloc(meta);
    CHECK(out);
    record_encode(out, &header, salt, lsn, sums, view->event);
    struct record_view again;
    CHECK(record_decode(&again, out, meta, salt, lsn) == 0);
    CHECK(record_header_check(out, salt, lsn));
    CHECK(again.body == NULL || header.body_bytes == 0);
    CHECK(memcmp(out + 32, in + 32, RECORD_HEADER_BYTES - 32) == 0);
    CHECK(memcmp(again.sums, view->sums, (size_t)8 * header.blocks) == 0);
    CHECK(header.event_bytes == 0 || memcmp(again.event, view->event, header.event_bytes) == 0);
    /* It is not the same record anywhere else. */
    CHECK(record_decode(&again, out, meta, salt, lsn + 8) == ERR_CORRUPT);
    CHECK(record_decode(&again, out, meta, salt + 1, lsn) == ERR_CORRUPT);
    free(out);
}

static void try_record(struct feed *feed, uint64_t salt, lsn_t lsn, bool repair)
{
    size_t len = feed->left;
    uint8_t *in = exact_copy(feed->at, len);
    struct record_view view;

    /* One that ends before its padding cannot be repaired. */
    repair = repair && repair_record(in, len, salt, lsn, REPAIR_CHECKS | REPAIR_SUMS) > 0;
    if (record_decode(&view, in, len, salt, lsn) == 0) {
        check_record(&view, in, len, salt, lsn);
        if (view.body || !(view.header.flags & RECORD_HAS_BODY)) {
            int rc = record_verify_body(&view);

            CHECK(rc == 0 || (rc == ERR_CORRUPT && !repair));
            if (rc == 0 && view.header.body_bytes > 0) {
                in[view.body - in] ^= 1;
                CHECK(record_verify_body(&view) == ERR_CORRUPT);
            }
        }
    }
    free(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    unsigned what = (unsigned)feed_number(&feed, 1);
    uint64_t salt = feed_number(&feed, 2);
    lsn_t lsn = feed_number(&feed, 2) * BATCH_ALIGN;
    bool repair = what & 4;

    switch (what & 3) {
    case 0:
        try_segment(&feed, repair);
        break;
    case 1:
        try_batch(&feed, salt, lsn, repair);
        break;
    default:
        try_record(&feed, salt, lsn, repair);
    }
    return 0;
}
