/* Goal: what was encoded decodes to the same; any flipped bit in what a checksum covers is noticed;
 * no bytes whatever make a decoder read outside its buffer or trust an absurd length. */
#include "storage/segment.h"

#include "base/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

#define SALT UINT64_C(0x1234567890abcdef)
#define LSN  UINT64_C(123456 * 512)

static struct segment_header some_header(void)
{
    return (struct segment_header){
        .features = {.compat = 5},
        .store = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
        .volume = 77,
        .disk = 3,
        .salt = SALT,
        .base = UINT64_C(1) << 40,
    };
}

static void a_segment_header_comes_back_and_every_flip_is_noticed(void **state)
{
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    struct segment_header header = some_header(), back;

    (void)state;
    segment_header_encode(bytes, &header);
    assert_int_equal(segment_header_decode(&back, bytes), 0);
    assert_int_equal(back.features.compat, 5);
    assert_true(id_equal(&back.store, &header.store));
    assert_int_equal(back.volume, 77);
    assert_int_equal(back.disk, 3);
    assert_true(back.salt == SALT && back.base == header.base);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(segment_header_decode(&back, bytes), ERR_CORRUPT);
        bytes[i] ^= (uint8_t)(1 << i % 8);
    }
}

static void an_unknown_incompat_bit_refuses_the_file_other_bits_do_not(void **state)
{
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    struct segment_header header = some_header(), back;

    (void)state;
    header.features.incompat = 1u << 31;
    segment_header_encode(bytes, &header);
    assert_int_equal(segment_header_decode(&back, bytes), ERR_FORMAT);
    header.features.incompat = 0;
    header.features.ro_compat = 1u << 31;
    segment_header_encode(bytes, &header);
    assert_int_equal(segment_header_decode(&back, bytes), 0);
    assert_true(back.features.ro_compat == 1u << 31);
}

static void a_batch_header_comes_back_and_its_checksum_covers_all_of_it(void **state)
{
    enum { RECORDS = 300 }; /* more than one step of the folding */
    uint64_t *checks = calloc(RECORDS, sizeof *checks);
    uint8_t bytes[BATCH_HEADER_BYTES];
    struct batch_header header = {
        .records = RECORDS,
        .lsn = LSN,
        .length_bytes = 64 + RECORDS * 88,
        .previous = 99,
        .synced_through = LSN - 512,
        .hlc = 4711,
    };
    struct batch_header back;

    (void)state;
    assert_non_null(checks);
    for (uint64_t i = 0; i < RECORDS; i++)
        checks[i] = i * 0x123456789;
    batch_header_encode(bytes, &header, SALT, checks);
    assert_int_equal(batch_header_decode(&back, bytes, LSN), 0);
    assert_true(back.records == header.records && back.lsn == header.lsn);
    assert_true(back.length_bytes == header.length_bytes && back.previous == header.previous);
    assert_true(back.synced_through == header.synced_through && back.hlc == header.hlc);
    assert_true(back.checksum == header.checksum);
    assert_true(batch_checksum(bytes, SALT, checks, RECORDS) == back.checksum);
    assert_true(batch_checksum(bytes, SALT + 1, checks, RECORDS) != back.checksum);
    assert_int_equal(batch_header_decode(&back, bytes, LSN + 512), ERR_CORRUPT);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] ^= 0x10;
        if (batch_header_decode(&back, bytes, LSN) == 0)
            assert_true(batch_checksum(bytes, SALT, checks, RECORDS) != back.checksum);
        bytes[i] ^= 0x10;
    }
    for (size_t i = 0; i < RECORDS; i++) {
        checks[i] ^= 1;
        assert_true(batch_checksum(bytes, SALT, checks, RECORDS) != header.checksum);
        checks[i] ^= 1;
    }
    free(checks);
}

static void a_batch_header_out_of_its_limits_is_refused(void **state)
{
    uint8_t good[BATCH_HEADER_BYTES], bad[BATCH_HEADER_BYTES];
    struct batch_header header = {.records = 1, .lsn = LSN, .length_bytes = 64 + 80}, back;
    uint64_t check = 0;

    (void)state;
    batch_header_encode(good, &header, SALT, &check);
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        memcpy(bad, good, sizeof bad);                                                             \
        change;                                                                                    \
        assert_int_equal(batch_header_decode(&back, bad, LSN), ERR_CORRUPT);                       \
    } while (0)
    REFUSED(put_u32(bad + 4, LIMIT_BATCH_RECORDS + 1));
    REFUSED(put_u32(bad + 4, 2));                      /* more records than the length can hold */
    REFUSED(put_u64(bad + 16, LIMIT_BATCH_BYTES + 8)); /* too long */
    REFUSED(put_u64(bad + 16, 64 + 81));               /* not a multiple of 8 */
    REFUSED(put_u64(bad + 16, 0));
    REFUSED(put_u64(bad + 16, UINT64_MAX - 7));
    REFUSED(put_u64(bad + 32, LSN + 1)); /* synced through the future */
#undef REFUSED
}

/* A record with a body of BODY_LEN bytes in a fresh buffer of *LEN bytes. */
static uint8_t *make_record(struct record_header *header, uint32_t event_len, uint32_t body_len,
                            size_t *len)
{
    uint64_t sums[LIMIT_INLINE_BLOCKS];
    char *event = malloc(event_len + 1);

    header->type = RECORD_EVENT;
    header->flags = RECORD_HAS_BODY;
    header->blocks = (uint16_t)block_count(body_len);
    header->event_bytes = event_len;
    header->body_bytes = body_len;
    header->size = body_len;
    header->id = (struct id128){{9, 8, 7}};
    *len = record_bytes(header);
    uint8_t *bytes = calloc(1, *len);
    assert_true(bytes && event);
    for (uint32_t i = 0; i < event_len; i++)
        event[i] = (char)(i * 7);
    uint8_t *body = bytes + *len - ((body_len + 7) & ~7u);
    for (uint32_t i = 0; i < body_len; i++)
        body[i] = (uint8_t)(i * 31 + i / 65536);
    for (uint16_t i = 0; i < header->blocks; i++) {
        size_t at = i * BLOCK_BYTES;
        sums[i] =
            block_checksum(body + at, body_len - at < BLOCK_BYTES ? body_len - at : BLOCK_BYTES, i);
    }
    record_encode(bytes, header, SALT, LSN, sums, event);
    free(event);
    return bytes;
}

static void assert_same(const struct record_header *a, const struct record_header *b)
{
    assert_true(a->type == b->type && a->flags == b->flags && a->blocks == b->blocks);
    assert_true(a->event_bytes == b->event_bytes && a->body_bytes == b->body_bytes);
    assert_true(id_equal(&a->id, &b->id) && a->file == b->file && a->size == b->size);
    assert_true(a->trailer == b->trailer && a->from == b->from && a->check == b->check);
}

static void records_of_all_sizes_come_back(void **state)
{
    const uint32_t events[] = {0, 1, 7, 8, 300, LIMIT_EVENT_BYTES};
    const uint32_t bodies[] = {0,     1,     7,      8,      65535,
                               65536, 65537, 131072, 200001, LIMIT_INLINE_BODY_BYTES};

    (void)state;
    for (size_t e = 0; e < sizeof events / sizeof *events; e++) {
        for (size_t b = 0; b < sizeof bodies / sizeof *bodies; b++) {
            struct record_header header = {.from = 12, .file = 13, .trailer = 14};
            struct record_view view;
            size_t len;
            uint8_t *bytes = make_record(&header, events[e], bodies[b], &len);

            assert_int_equal(len % 8, 0);
            assert_int_equal(record_decode(&view, bytes, len, SALT, LSN), 0);
            assert_same(&view.header, &header);
            assert_true(record_header_check(bytes, SALT, LSN));
            assert_true(view.lsn == LSN && view.body);
            for (uint32_t i = 0; i < events[e]; i++)
                assert_int_equal(view.event[i], (uint8_t)(i * 7));
            assert_int_equal(record_verify_body(&view), 0);
            /* Another place or another segment: not ours. */
            assert_int_equal(record_decode(&view, bytes, len, SALT, LSN + 8), ERR_CORRUPT);
            assert_int_equal(record_decode(&view, bytes, len, SALT + 1, LSN), ERR_CORRUPT);
            assert_false(record_header_check(bytes, SALT, LSN + 8));
            free(bytes);
        }
    }
}

static void every_flipped_bit_of_a_record_is_noticed_or_lies_in_padding(void **state)
{
    struct record_header header = {0};
    struct record_view view;
    size_t len;
    uint8_t *bytes = make_record(&header, 101, 203, &len);
    size_t body_at = len - 208;

    (void)state;
    for (size_t bit = 0; bit < len * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int rc = record_decode(&view, bytes, len, SALT, LSN);
        if (bit / 8 < body_at)
            assert_int_equal(rc, ERR_CORRUPT);
        else if (bit / 8 < body_at + 203)
            assert_true(rc == 0 && record_verify_body(&view) == ERR_CORRUPT);
        else
            assert_true(rc == 0 && record_verify_body(&view) == 0);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    free(bytes);
}

static void swapped_blocks_are_noticed(void **state)
{
    uint8_t block[16] = "the same bytes!";

    (void)state;
    assert_true(block_checksum(block, 16, 0) != block_checksum(block, 16, 1));
    assert_true(block_checksum(block, 15, 0) != block_checksum(block, 16, 0));
}

static void a_cut_record_is_refused_or_has_no_body(void **state)
{
    struct record_header header = {0};
    struct record_view view;
    size_t len;
    uint8_t *bytes = make_record(&header, 50, 1000, &len);

    (void)state;
    for (size_t cut = 0; cut < len; cut++) {
        /* A buffer of just that size, so that a sanitizer sees a read beyond it. */
        uint8_t *part = malloc(cut ? cut : 1);

        assert_non_null(part);
        memcpy(part, bytes, cut);
        int rc = record_decode(&view, part, cut, SALT, LSN);
        if (cut < len - 1000)
            assert_int_equal(rc, ERR_CORRUPT);
        else
            assert_true(rc == 0 && view.body == NULL);
        free(part);
    }
    free(bytes);
}

static void a_record_header_out_of_its_limits_is_refused(void **state)
{
    struct record_header header = {0}, back;
    size_t len;
    uint8_t *good = make_record(&header, 8, 8, &len), bad[RECORD_HEADER_BYTES];

    (void)state;
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        memcpy(bad, good, sizeof bad);                                                             \
        change;                                                                                    \
        assert_int_equal(record_header_decode(&back, bad), ERR_CORRUPT);                           \
    } while (0)
    REFUSED(bad[16] = 0);
    REFUSED(bad[16] = RECORD_BODY + 1);
    REFUSED(bad[17] = 4);
    REFUSED(bad[17] = RECORD_HAS_BODY | RECORD_LARGE);
    REFUSED(bad[17] = 0); /* a body without its flag */
    REFUSED(put_u16(bad + 18, 2));
    REFUSED(put_u16(bad + 18, 0));
    REFUSED(put_u32(bad + 20, LIMIT_EVENT_BYTES + 1));
    REFUSED(put_u32(bad + 20, UINT32_MAX));
    REFUSED(put_u32(bad + 24, LIMIT_INLINE_BODY_BYTES + 1));
    REFUSED(put_u32(bad + 24, UINT32_MAX));
#undef REFUSED
    free(good);
}

static void random_bytes_are_never_a_record_a_batch_or_a_segment(void **state)
{
    enum { ROUNDS = 20000 };
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    struct segment_header segment;
    struct batch_header batch;
    struct record_view view;

    (void)state;
    srand(1);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < 512; i++)
            bytes[i] = (uint8_t)rand();
        /* Plausible outside, so that the inner checks are reached. */
        bytes[16] = RECORD_EVENT;
        bytes[17] = RECORD_HAS_BODY;
        put_u16(bytes + 18, 1);
        put_u32(bytes + 20, (uint32_t)rand() % 500);
        put_u32(bytes + 24, 1 + (uint32_t)rand() % 500);
        assert_int_equal(record_decode(&view, bytes, 512, SALT, LSN), ERR_CORRUPT);
        assert_int_equal(batch_header_decode(&batch, bytes, LSN), ERR_CORRUPT);
        if (round < 100)
            assert_int_equal(segment_header_decode(&segment, bytes), ERR_CORRUPT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_segment_header_comes_back_and_every_flip_is_noticed),
        cmocka_unit_test(an_unknown_incompat_bit_refuses_the_file_other_bits_do_not),
        cmocka_unit_test(a_batch_header_comes_back_and_its_checksum_covers_all_of_it),
        cmocka_unit_test(a_batch_header_out_of_its_limits_is_refused),
        cmocka_unit_test(records_of_all_sizes_come_back),
        cmocka_unit_test(every_flipped_bit_of_a_record_is_noticed_or_lies_in_padding),
        cmocka_unit_test(swapped_blocks_are_noticed),
        cmocka_unit_test(a_cut_record_is_refused_or_has_no_body),
        cmocka_unit_test(a_record_header_out_of_its_limits_is_refused),
        cmocka_unit_test(random_bytes_are_never_a_record_a_batch_or_a_segment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
