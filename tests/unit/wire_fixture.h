/* What the tests of messages share: one example of each type, the format written down once more,
 * and what it means that both ends accept a message, or refuse it. */
#ifndef TESTS_UNIT_WIRE_FIXTURE_H
#define TESTS_UNIT_WIRE_FIXTURE_H

#include "cluster/wire.h"
#include "journal/pack.h"
#include "journal/unpack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(s) ((struct text){s, sizeof(s) - 1})

static const enum wire_type types[] = {
    WIRE_PROBE,        WIRE_PROBE_ACK,      WIRE_PROBE_FOR,
    WIRE_PROBE_SAW,    WIRE_SYNC_ASK,       WIRE_SYNC_MORE,
    WIRE_SYNC_VECTOR,  WIRE_SYNC_EVENTS,    WIRE_SYNC_CREDIT,
    WIRE_SYNC_END,     WIRE_BODY_ASK,       WIRE_BODY_DATA,
    WIRE_BODY_CREDIT,  WIRE_BODY_END,       WIRE_NOTE,
    WIRE_NOTE_IDS,     WIRE_PACK,           WIRE_ADOPT,
    WIRE_KNOWN_ASK,    WIRE_KNOWN,          WIRE_RANGE_ASK,
    WIRE_RANGE,        WIRE_ROW_ASK,        WIRE_ROW,
    WIRE_MERGE_ASK,    WIRE_MERGE_VECTOR,   WIRE_MERGE_CHUNK,
    WIRE_MERGE_CREDIT, WIRE_MERGE_SUMS_ASK, WIRE_MERGE_SUMS,
    WIRE_MERGE_END,    WIRE_MERGE_CUT_ASK,  WIRE_MERGE_CUT_KNOWN,
    WIRE_PROCESS,      WIRE_TWIN,           WIRE_SYNC_FROZEN,
    WIRE_BODY_COMING,
};

#define TYPES (sizeof types / sizeof *types)

/* Two runs; two events of three and one bytes. */
#define RUNS           TEXT("aaaaaaaaaaaaaaaa\1\0\0\0\0\0\0\0aaaaaaaaaaaaaaab\377\377\377\377\377\0\0\0")
#define MERGE_RUN_TAIL "12345678901234567890123456789012"
#define MERGE_RUNS                                                                                 \
    TEXT("aaaaaaaaaaaaaaaannnnnnnnnnnnnnnn\1\0\0\0\0\0\0\0" MERGE_RUN_TAIL "\0"                    \
         "aaaaaaaaaaaaaaabnnnnnnnnnnnnnnnn\377\377\377\377\377\0\0\0" MERGE_RUN_TAIL "\1")
#define FENCES TEXT("aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb")
#define SUMS   TEXT("\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0")
#define EVENTS TEXT("\3\0\0\0abc\1\0\0\0d")

/* One object with its sha256; the sums of two rows. */
#define ITEMS TEXT("iiiiiiiiiiiiiiiissssssssssssssssssssssssssssssss")
#define ROWS  TEXT("iiiiiiiiiiiiiiiaddddddddddddddddiiiiiiiiiiiiiiibdddddddddddddddd")

static inline struct wire_message message_of(enum wire_type type)
{
    struct wire_message message = {.type = type, .tag = TEXT("gr\xc3\xbcn"), .from = {{1, 2}}};

    switch (type) {
    case WIRE_PROBE:
    case WIRE_PROBE_ACK:
        message.probe = (struct wire_probe){.nonce = UINT64_MAX,
                                            .to = {{3}},
                                            .address = TEXT("[fd00::1]:11999"),
                                            .wall_ms = UINT64_C(1763700000000),
                                            .feature = UINT32_MAX,
                                            .leaving = 1,
                                            .summary = {.vector = {1, 2}, .digest = {3, 4}},
                                            .version = TEXT("0.1.0-rc1"),
                                            .level = 70000,
                                            .draining = 1};
        message.probe.summary.events = 5;
        if (type == WIRE_PROBE_ACK)
            message.probe.seen = TEXT("10.0.0.1:40000");
        break;
    case WIRE_PROBE_FOR:
    case WIRE_PROBE_SAW:
        message.probe_for = (struct wire_probe_for){.nonce = 300, .subject = {{4}}};
        message.probe_for.answered = type == WIRE_PROBE_SAW;
        break;
    case WIRE_SYNC_ASK:
        message.sync_ask = (struct wire_sync_ask){7, {8, UINT64_MAX}, 9, 1 << 20, RUNS};
        break;
    case WIRE_SYNC_VECTOR:
        message.sync_vector = (struct wire_sync_vector){7, 70000, 1, RUNS};
        break;
    case WIRE_SYNC_EVENTS:
        message.sync_events =
            (struct wire_sync_events){.origin = {{5}}, .first = 6, .count = 2, .data = EVENTS};
        break;
    case WIRE_BODY_ASK:
        message.body_ask = (struct wire_body_ask){.transfer = 10,
                                                  .id = {{6}},
                                                  .sha256 = {7},
                                                  .offset = 1,
                                                  .length = UINT64_MAX - 1,
                                                  .credit_bytes = UINT64_MAX,
                                                  .background = 1,
                                                  .delegated = 1};
        break;
    case WIRE_BODY_DATA:
        message.body_data = (struct wire_body_data){11, 95, 100, UINT64_MAX, TEXT("a\0b\xff\n")};
        break;
    case WIRE_NOTE:
        message.note = (struct wire_note){{{8}}, TEXT("hello, nodes"), {{9}}, 70000};
        break;
    case WIRE_NOTE_IDS:
        message.note_ids = (struct wire_note_ids){
            TEXT("aaaaaaaaaaaaaaaa"), {"", 0}, TEXT("bbbbbbbbbbbbbbbbcccccccccccccccc")};
        break;
    case WIRE_PACK:
        message.pack.data = EVENTS; /* laid out as these are */
        break;
    case WIRE_ADOPT:
        message.adopt.items = ITEMS;
        break;
    case WIRE_KNOWN_ASK:
        message.inquiry = (struct wire_inquiry){.nonce = 14, .runs = RUNS};
        break;
    case WIRE_RANGE_ASK:
        message.inquiry = (struct wire_inquiry){
            .nonce = 15, .id = {{1}}, .until = {{2}}, .rows = 4096, .list = 1};
        break;
    case WIRE_ROW_ASK:
        message.inquiry = (struct wire_inquiry){.nonce = 16, .id = {{9}}};
        break;
    case WIRE_KNOWN:
        message.finding = (struct wire_finding){.nonce = 17, .yes = 1};
        break;
    case WIRE_RANGE:
        message.finding = (struct wire_finding){18, 1, {{2}}, 2, {5, UINT64_MAX}, ROWS};
        break;
    case WIRE_ROW:
        message.finding = (struct wire_finding){.nonce = 19, .data = TEXT("{\"level\":2}")};
        break;
    case WIRE_SYNC_FROZEN:
        message.sync_frozen =
            (struct wire_sync_frozen){12, TEXT("aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb")};
        break;
    case WIRE_PROCESS:
    case WIRE_TWIN:
        message.process = (struct wire_process){{{9}}, TEXT("10.1.2.3:11999")};
        break;
    case WIRE_MERGE_ASK:
        message.merge_ask = (struct wire_merge_ask){7, 1, {{5}}, {{6}}, 1 << 20};
        break;
    case WIRE_MERGE_VECTOR:
        message.merge_vector = (struct wire_merge_vector){7, 70000, 1, MERGE_RUNS};
        break;
    case WIRE_MERGE_CHUNK:
        message.merge_chunk = (struct wire_merge_chunk){7, 300, {{6}}, 1, EVENTS};
        break;
    case WIRE_MERGE_SUMS_ASK:
        message.merge_sums_ask = (struct wire_merge_sums_ask){7, {{5}}, FENCES};
        break;
    case WIRE_MERGE_SUMS:
        message.merge_sums = (struct wire_merge_sums){7, 1023, SUMS};
        break;
    case WIRE_MERGE_CUT_ASK:
        message.merge_cut = (struct wire_merge_cut){.nonce = 7, .runs = RUNS};
        break;
    case WIRE_MERGE_CUT_KNOWN:
        message.merge_cut = (struct wire_merge_cut){.nonce = 7, .known = 1};
        break;
    default:
        message.flow.session = 12;
        if (type == WIRE_SYNC_CREDIT || type == WIRE_BODY_CREDIT || type == WIRE_MERGE_CREDIT)
            message.flow.bytes = 13;
        if (type == WIRE_SYNC_END || type == WIRE_BODY_END || type == WIRE_MERGE_END)
            message.flow.end = WIRE_END_DAMAGED;
    }
    return message;
}

/* ---- The format once more, without its rules: what a broken peer could send ---- */

static inline void raw_hash(struct buf *out, struct hash128 hash)
{
    uint8_t bytes[16];

    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(hash.low >> 8 * i);
        bytes[8 + i] = (uint8_t)(hash.high >> 8 * i);
    }
    pack_bin(out, bytes, sizeof bytes);
}

static inline void raw_head(struct buf *out, const struct wire_message *message, uint32_t members)
{
    pack_array(out, 5);
    pack_uint(out, 1);
    pack_uint(out, message->type);
    pack_str(out, message->tag.ptr, message->tag.len);
    pack_bin(out, message->from.bytes, 16);
    pack_array(out, members);
}

static inline void raw_probe(struct buf *out, const struct wire_message *message)
{
    const struct wire_probe *probe = &message->probe;

    raw_head(out, message, message->type == WIRE_PROBE ? 10 : 11);
    pack_uint(out, probe->nonce);
    pack_bin(out, probe->to.bytes, 16);
    pack_str(out, probe->address.ptr, probe->address.len);
    pack_uint(out, probe->wall_ms);
    pack_uint(out, probe->feature);
    pack_bool(out, probe->leaving);
    pack_array(out, 3);
    raw_hash(out, probe->summary.vector);
    raw_hash(out, probe->summary.digest);
    pack_uint(out, probe->summary.events);
    if (message->type == WIRE_PROBE_ACK)
        pack_str(out, probe->seen.ptr, probe->seen.len);
    pack_str(out, probe->version.ptr, probe->version.len);
    pack_uint(out, probe->level);
    pack_bool(out, probe->draining);
}

static inline void raw_sync(struct buf *out, const struct wire_message *m)
{
    if (m->type == WIRE_SYNC_ASK) {
        raw_head(out, m, 5);
        pack_uint(out, m->sync_ask.session);
        raw_hash(out, m->sync_ask.ended);
        pack_uint(out, m->sync_ask.ended_count);
        pack_uint(out, m->sync_ask.credit_bytes);
        pack_bin(out, m->sync_ask.runs.ptr, m->sync_ask.runs.len);
    } else if (m->type == WIRE_SYNC_VECTOR) {
        raw_head(out, m, 4);
        pack_uint(out, m->sync_vector.session);
        pack_uint(out, m->sync_vector.page);
        pack_bool(out, m->sync_vector.last);
        pack_bin(out, m->sync_vector.runs.ptr, m->sync_vector.runs.len);
    } else {
        raw_head(out, m, 5);
        pack_uint(out, m->sync_events.session);
        pack_bin(out, m->sync_events.origin.bytes, 16);
        pack_uint(out, m->sync_events.first);
        pack_uint(out, m->sync_events.count);
        pack_bin(out, m->sync_events.data.ptr, m->sync_events.data.len);
    }
}

static inline void raw_body(struct buf *out, const struct wire_message *m)
{
    if (m->type == WIRE_BODY_ASK) {
        raw_head(out, m, 8);
        pack_uint(out, m->body_ask.transfer);
        pack_bin(out, m->body_ask.id.bytes, 16);
        pack_bin(out, m->body_ask.sha256, SHA256_BYTES);
        pack_uint(out, m->body_ask.offset);
        pack_uint(out, m->body_ask.length);
        pack_uint(out, m->body_ask.credit_bytes);
        pack_bool(out, m->body_ask.background);
        pack_bool(out, m->body_ask.delegated);
    } else {
        raw_head(out, m, 5);
        pack_uint(out, m->body_data.transfer);
        pack_uint(out, m->body_data.offset);
        pack_uint(out, m->body_data.size);
        pack_uint(out, m->body_data.sum);
        pack_bin(out, m->body_data.data.ptr, m->body_data.data.len);
    }
}

static inline void raw_merge(struct buf *out, const struct wire_message *m)
{
    static const uint32_t members[] = {5, 4, 5, 0, 3, 3, 0, 2, 2};

    raw_head(out, m, members[m->type - WIRE_MERGE_ASK]);
    if (m->type == WIRE_MERGE_ASK) {
        pack_uint(out, m->merge_ask.session);
        pack_bool(out, m->merge_ask.whole);
        pack_bin(out, m->merge_ask.after.bytes, 16);
        pack_bin(out, m->merge_ask.through.bytes, 16);
        pack_uint(out, m->merge_ask.credit_bytes);
    } else if (m->type == WIRE_MERGE_VECTOR) {
        pack_uint(out, m->merge_vector.session);
        pack_uint(out, m->merge_vector.page);
        pack_bool(out, m->merge_vector.last);
        pack_bin(out, m->merge_vector.runs.ptr, m->merge_vector.runs.len);
    } else if (m->type == WIRE_MERGE_CHUNK) {
        pack_uint(out, m->merge_chunk.session);
        pack_uint(out, m->merge_chunk.number);
        pack_bin(out, m->merge_chunk.through.bytes, 16);
        pack_bool(out, m->merge_chunk.last);
        pack_bin(out, m->merge_chunk.data.ptr, m->merge_chunk.data.len);
    } else if (m->type == WIRE_MERGE_SUMS_ASK) {
        pack_uint(out, m->merge_sums_ask.session);
        pack_bin(out, m->merge_sums_ask.after.bytes, 16);
        pack_bin(out, m->merge_sums_ask.fences.ptr, m->merge_sums_ask.fences.len);
    } else if (m->type == WIRE_MERGE_SUMS) {
        pack_uint(out, m->merge_sums.session);
        pack_uint(out, m->merge_sums.first);
        pack_bin(out, m->merge_sums.sums.ptr, m->merge_sums.sums.len);
    } else {
        pack_uint(out, m->merge_cut.nonce);
        if (m->type == WIRE_MERGE_CUT_ASK)
            pack_bin(out, m->merge_cut.runs.ptr, m->merge_cut.runs.len);
        else
            pack_bool(out, m->merge_cut.known);
    }
}

static inline void raw_small(struct buf *out, const struct wire_message *m)
{
    switch (m->type) {
    case WIRE_PROBE_FOR:
    case WIRE_PROBE_SAW:
        raw_head(out, m, m->type == WIRE_PROBE_FOR ? 2 : 3);
        pack_uint(out, m->probe_for.nonce);
        pack_bin(out, m->probe_for.subject.bytes, 16);
        if (m->type == WIRE_PROBE_SAW)
            pack_bool(out, m->probe_for.answered);
        break;
    case WIRE_SYNC_CREDIT:
    case WIRE_BODY_CREDIT:
    case WIRE_MERGE_CREDIT:
        raw_head(out, m, 2);
        pack_uint(out, m->flow.session);
        pack_uint(out, m->flow.bytes);
        break;
    case WIRE_SYNC_END:
    case WIRE_BODY_END:
    case WIRE_MERGE_END:
        raw_head(out, m, 2);
        pack_uint(out, m->flow.session);
        pack_uint(out, m->flow.end);
        break;
    case WIRE_NOTE:
        raw_head(out, m, 4);
        pack_bin(out, m->note.note.bytes, 16);
        pack_bin(out, m->note.data.ptr, m->note.data.len);
        pack_bin(out, m->note.author.bytes, 16);
        pack_uint(out, m->note.age_ms);
        break;
    case WIRE_NOTE_IDS:
        raw_head(out, m, 3);
        pack_bin(out, m->note_ids.offered.ptr, m->note_ids.offered.len);
        pack_bin(out, m->note_ids.seen.ptr, m->note_ids.seen.len);
        pack_bin(out, m->note_ids.wanted.ptr, m->note_ids.wanted.len);
        break;
    case WIRE_BODY_COMING:
        raw_head(out, m, 1);
        pack_uint(out, m->flow.session);
        break;
    case WIRE_PACK:
        raw_head(out, m, 1);
        pack_bin(out, m->pack.data.ptr, m->pack.data.len);
        break;
    case WIRE_SYNC_FROZEN:
        raw_head(out, m, 2);
        pack_uint(out, m->sync_frozen.session);
        pack_bin(out, m->sync_frozen.runs.ptr, m->sync_frozen.runs.len);
        break;
    case WIRE_PROCESS:
    case WIRE_TWIN:
        raw_head(out, m, 2);
        pack_bin(out, m->process.process.bytes, 16);
        pack_str(out, m->process.address.ptr, m->process.address.len);
        break;
    default:
        assert_int_equal(m->type, WIRE_SYNC_MORE);
        raw_head(out, m, 1);
        pack_uint(out, m->flow.session);
    }
}

static inline void raw_operate(struct buf *out, const struct wire_message *m)
{
    static const uint32_t members[] = {
        [WIRE_ADOPT] = 1, [WIRE_KNOWN_ASK] = 2, [WIRE_KNOWN] = 2, [WIRE_RANGE_ASK] = 5,
        [WIRE_RANGE] = 6, [WIRE_ROW_ASK] = 2,   [WIRE_ROW] = 2};

    raw_head(out, m, members[m->type]);
    switch (m->type) {
    case WIRE_ADOPT:
        pack_bin(out, m->adopt.items.ptr, m->adopt.items.len);
        break;
    case WIRE_KNOWN_ASK:
        pack_uint(out, m->inquiry.nonce);
        pack_bin(out, m->inquiry.runs.ptr, m->inquiry.runs.len);
        break;
    case WIRE_RANGE_ASK:
    case WIRE_ROW_ASK:
        pack_uint(out, m->inquiry.nonce);
        pack_bin(out, m->inquiry.id.bytes, 16);
        if (m->type == WIRE_ROW_ASK)
            break;
        pack_bin(out, m->inquiry.until.bytes, 16);
        pack_uint(out, m->inquiry.rows);
        pack_bool(out, m->inquiry.list);
        break;
    default:
        pack_uint(out, m->finding.nonce);
        if (m->type != WIRE_ROW)
            pack_bool(out, m->finding.yes);
        if (m->type == WIRE_RANGE) {
            pack_bin(out, m->finding.last.bytes, 16);
            pack_uint(out, m->finding.count);
            raw_hash(out, m->finding.sum);
        }
        if (m->type != WIRE_KNOWN)
            pack_bin(out, m->finding.data.ptr, m->finding.data.len);
    }
}

static inline struct buf raw(const struct wire_message *message)
{
    struct buf out = {0};

    switch (message->type) {
    case WIRE_PROBE:
    case WIRE_PROBE_ACK:
        raw_probe(&out, message);
        break;
    case WIRE_SYNC_ASK:
    case WIRE_SYNC_VECTOR:
    case WIRE_SYNC_EVENTS:
        raw_sync(&out, message);
        break;
    case WIRE_BODY_ASK:
    case WIRE_BODY_DATA:
        raw_body(&out, message);
        break;
    case WIRE_MERGE_ASK:
    case WIRE_MERGE_VECTOR:
    case WIRE_MERGE_CHUNK:
    case WIRE_MERGE_SUMS_ASK:
    case WIRE_MERGE_SUMS:
    case WIRE_MERGE_CUT_ASK:
    case WIRE_MERGE_CUT_KNOWN:
        raw_merge(&out, message);
        break;
    default:
        if (message->type >= WIRE_ADOPT && message->type <= WIRE_ROW)
            raw_operate(&out, message);
        else
            raw_small(&out, message);
    }
    assert_int_equal(buf_check(&out), 0);
    return out;
}

static inline struct buf encoded(const struct wire_message *message)
{
    struct buf out = {0};

    wire_encode(&out, message);
    assert_int_equal(buf_check(&out), 0);
    return out;
}

/* From memory of exactly LEN bytes, so that the sanitizer sees the first one too many. */
static inline int decode_bytes(struct wire_message *out, const void *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    assert_non_null(copy);
    if (len > 0)
        memcpy(copy, data, len);
    int rc = wire_decode(out, copy, len);
    free(copy);
    return rc;
}

static inline int decode(const struct buf *bytes)
{
    struct wire_message out;

    return decode_bytes(&out, bytes->data, bytes->len);
}

/* Both ends say no: the one that would send it, and the one that gets it from somebody who does. */
static inline void refused(const struct wire_message *message)
{
    struct buf out = {0}, bytes = raw(message);

    buf_text(&out, "before");
    wire_encode(&out, message);
    assert_int_equal(buf_check(&out), ERR_INVALID);
    assert_int_equal(out.len, strlen("before"));
    assert_int_equal(decode(&bytes), ERR_INVALID);
    buf_release(&out);
    buf_release(&bytes);
}

static inline void accepted(const struct wire_message *message)
{
    struct buf bytes = encoded(message);

    assert_int_equal(decode(&bytes), 0);
    buf_release(&bytes);
}

/* Where the values of BYTES' members lie, and the end: AT has room for 16. How many members. */
static inline uint32_t member_places(const struct buf *bytes, size_t *head, size_t *at)
{
    struct unpack in;

    unpack_init(&in, bytes->data, bytes->len);
    assert_int_equal(unpack_array(&in), 5);
    for (int i = 0; i < 4; i++)
        unpack_skip(&in);
    *head = (size_t)(in.at - (const uint8_t *)bytes->data);
    uint32_t members = unpack_array(&in);
    assert_in_range(members, 1, 15); /* a head of one byte */
    for (uint32_t i = 0; i <= members; i++) {
        at[i] = (size_t)(in.at - (const uint8_t *)bytes->data);
        if (i < members)
            unpack_skip(&in);
    }
    assert_int_equal(unpack_done(&in), 0);
    return members;
}

static inline void same_text(struct text a, struct text b)
{
    assert_int_equal(a.len, b.len);
    if (a.len > 0)
        assert_memory_equal(a.ptr, b.ptr, a.len);
}

static inline void same_members(const struct wire_message *a, const struct wire_message *b)
{
    switch (a->type) {
    case WIRE_PROBE:
    case WIRE_PROBE_ACK:
        assert_true(a->probe.nonce == b->probe.nonce && id_equal(&a->probe.to, &b->probe.to));
        same_text(a->probe.address, b->probe.address);
        assert_true(a->probe.wall_ms == b->probe.wall_ms);
        assert_true(a->probe.feature == b->probe.feature && a->probe.leaving == b->probe.leaving);
        assert_memory_equal(&a->probe.summary, &b->probe.summary, sizeof a->probe.summary);
        same_text(a->probe.seen, b->probe.seen);
        same_text(a->probe.version, b->probe.version);
        assert_true(a->probe.level == b->probe.level && a->probe.draining == b->probe.draining);
        break;
    case WIRE_ADOPT:
        same_text(a->adopt.items, b->adopt.items);
        break;
    case WIRE_KNOWN_ASK:
    case WIRE_RANGE_ASK:
    case WIRE_ROW_ASK:
        assert_true(a->inquiry.nonce == b->inquiry.nonce && a->inquiry.rows == b->inquiry.rows);
        assert_true(id_equal(&a->inquiry.id, &b->inquiry.id));
        assert_true(id_equal(&a->inquiry.until, &b->inquiry.until));
        assert_int_equal(a->inquiry.list, b->inquiry.list);
        same_text(a->inquiry.runs, b->inquiry.runs);
        break;
    case WIRE_KNOWN:
    case WIRE_RANGE:
    case WIRE_ROW:
        assert_true(a->finding.nonce == b->finding.nonce && a->finding.yes == b->finding.yes);
        assert_true(id_equal(&a->finding.last, &b->finding.last));
        assert_true(a->finding.count == b->finding.count);
        assert_memory_equal(&a->finding.sum, &b->finding.sum, sizeof a->finding.sum);
        same_text(a->finding.data, b->finding.data);
        break;
    case WIRE_PROBE_FOR:
    case WIRE_PROBE_SAW:
        assert_true(a->probe_for.nonce == b->probe_for.nonce);
        assert_true(id_equal(&a->probe_for.subject, &b->probe_for.subject));
        assert_int_equal(a->probe_for.answered, b->probe_for.answered);
        break;
    case WIRE_SYNC_ASK:
        assert_true(a->sync_ask.session == b->sync_ask.session);
        assert_memory_equal(&a->sync_ask.ended, &b->sync_ask.ended, 16);
        assert_true(a->sync_ask.ended_count == b->sync_ask.ended_count);
        assert_true(a->sync_ask.credit_bytes == b->sync_ask.credit_bytes);
        same_text(a->sync_ask.runs, b->sync_ask.runs);
        break;
    case WIRE_SYNC_VECTOR:
        assert_true(a->sync_vector.session == b->sync_vector.session);
        assert_int_equal(a->sync_vector.page, b->sync_vector.page);
        assert_int_equal(a->sync_vector.last, b->sync_vector.last);
        same_text(a->sync_vector.runs, b->sync_vector.runs);
        break;
    case WIRE_SYNC_EVENTS:
        assert_true(a->sync_events.session == b->sync_events.session);
        assert_true(id_equal(&a->sync_events.origin, &b->sync_events.origin));
        assert_true(a->sync_events.first == b->sync_events.first);
        assert_int_equal(a->sync_events.count, b->sync_events.count);
        same_text(a->sync_events.data, b->sync_events.data);
        break;
    case WIRE_BODY_ASK:
        assert_true(a->body_ask.transfer == b->body_ask.transfer);
        assert_true(id_equal(&a->body_ask.id, &b->body_ask.id));
        assert_memory_equal(a->body_ask.sha256, b->body_ask.sha256, SHA256_BYTES);
        assert_true(a->body_ask.offset == b->body_ask.offset);
        assert_true(a->body_ask.length == b->body_ask.length);
        assert_true(a->body_ask.credit_bytes == b->body_ask.credit_bytes);
        assert_int_equal(a->body_ask.background, b->body_ask.background);
        assert_int_equal(a->body_ask.delegated, b->body_ask.delegated);
        break;
    case WIRE_BODY_DATA:
        assert_true(a->body_data.transfer == b->body_data.transfer);
        assert_true(a->body_data.offset == b->body_data.offset);
        assert_true(a->body_data.size == b->body_data.size);
        assert_true(a->body_data.sum == b->body_data.sum);
        same_text(a->body_data.data, b->body_data.data);
        break;
    case WIRE_NOTE:
        assert_true(id_equal(&a->note.note, &b->note.note));
        same_text(a->note.data, b->note.data);
        assert_true(id_equal(&a->note.author, &b->note.author));
        assert_int_equal(a->note.age_ms, b->note.age_ms);
        break;
    case WIRE_NOTE_IDS:
        same_text(a->note_ids.offered, b->note_ids.offered);
        same_text(a->note_ids.seen, b->note_ids.seen);
        same_text(a->note_ids.wanted, b->note_ids.wanted);
        break;
    case WIRE_PACK:
        same_text(a->pack.data, b->pack.data);
        break;
    case WIRE_SYNC_FROZEN:
        assert_true(a->sync_frozen.session == b->sync_frozen.session);
        same_text(a->sync_frozen.runs, b->sync_frozen.runs);
        break;
    case WIRE_PROCESS:
    case WIRE_TWIN:
        assert_true(id_equal(&a->process.process, &b->process.process));
        same_text(a->process.address, b->process.address);
        break;
    case WIRE_MERGE_ASK:
        assert_true(a->merge_ask.session == b->merge_ask.session);
        assert_int_equal(a->merge_ask.whole, b->merge_ask.whole);
        assert_true(id_equal(&a->merge_ask.after, &b->merge_ask.after));
        assert_true(id_equal(&a->merge_ask.through, &b->merge_ask.through));
        assert_true(a->merge_ask.credit_bytes == b->merge_ask.credit_bytes);
        break;
    case WIRE_MERGE_VECTOR:
        assert_true(a->merge_vector.session == b->merge_vector.session);
        assert_int_equal(a->merge_vector.page, b->merge_vector.page);
        assert_int_equal(a->merge_vector.last, b->merge_vector.last);
        same_text(a->merge_vector.runs, b->merge_vector.runs);
        break;
    case WIRE_MERGE_CHUNK:
        assert_true(a->merge_chunk.session == b->merge_chunk.session);
        assert_true(a->merge_chunk.number == b->merge_chunk.number);
        assert_true(id_equal(&a->merge_chunk.through, &b->merge_chunk.through));
        assert_int_equal(a->merge_chunk.last, b->merge_chunk.last);
        same_text(a->merge_chunk.data, b->merge_chunk.data);
        break;
    case WIRE_MERGE_SUMS_ASK:
        assert_true(a->merge_sums_ask.session == b->merge_sums_ask.session);
        assert_true(id_equal(&a->merge_sums_ask.after, &b->merge_sums_ask.after));
        same_text(a->merge_sums_ask.fences, b->merge_sums_ask.fences);
        break;
    case WIRE_MERGE_SUMS:
        assert_true(a->merge_sums.session == b->merge_sums.session);
        assert_int_equal(a->merge_sums.first, b->merge_sums.first);
        same_text(a->merge_sums.sums, b->merge_sums.sums);
        break;
    case WIRE_MERGE_CUT_ASK:
    case WIRE_MERGE_CUT_KNOWN:
        assert_true(a->merge_cut.nonce == b->merge_cut.nonce);
        assert_int_equal(a->merge_cut.known, b->merge_cut.known);
        same_text(a->merge_cut.runs, b->merge_cut.runs);
        break;
    default:
        assert_true(a->flow.session == b->flow.session && a->flow.bytes == b->flow.bytes);
        assert_int_equal(a->flow.end, b->flow.end);
    }
}

/* COUNT runs, in order; the bytes are the caller's. */
static inline struct buf some_runs(size_t count)
{
    struct buf out = {0};

    for (size_t i = 0; i < count; i++) {
        struct wire_run run = {.origin = {{(uint8_t)(i >> 8), (uint8_t)i}}, .seq = i + 1};

        wire_run_add(&out, &run);
    }
    assert_int_equal(buf_check(&out), 0);
    assert_int_equal(out.len, count * WIRE_RUN_BYTES);
    return out;
}

/* In both types that have runs. */
static inline void check_runs(const void *bytes, size_t len,
                              void (*check)(const struct wire_message *))
{
    struct wire_message ask = message_of(WIRE_SYNC_ASK), vector = message_of(WIRE_SYNC_VECTOR);

    ask.sync_ask.runs = vector.sync_vector.runs = (struct text){bytes, (uint32_t)len};
    check(&ask);
    check(&vector);
}

/* Events of LENGTHS, the first one of 'a's, the next of 'b's …; the bytes are the caller's. */
static inline struct buf some_events(const size_t *lengths, size_t count)
{
    static char event[LIMIT_EVENT_BYTES];
    struct buf out = {0};

    for (size_t i = 0; i < count; i++) {
        memset(event, 'a' + (int)i, lengths[i]);
        wire_event_add(&out, event, lengths[i]);
    }
    assert_int_equal(buf_check(&out), 0);
    return out;
}

#endif
