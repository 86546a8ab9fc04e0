/* Goal: every message survives its encoding, in the bytes that the protocol names, up to each
 * limit; what a later build appends is passed over. */
#include "tests/unit/wire_fixture.h"

static void every_type_survives_in_the_bytes_of_the_format(void **state)
{
    (void)state;
    for (size_t i = 0; i < TYPES; i++) {
        struct wire_message message = message_of(types[i]), out;
        struct buf bytes = encoded(&message), format = raw(&message);

        assert_int_equal(bytes.len, format.len);
        assert_memory_equal(bytes.data, format.data, format.len);
        assert_int_equal(wire_decode(&out, (const uint8_t *)bytes.data, bytes.len), 0);
        assert_int_equal(out.type, message.type);
        same_text(out.tag, message.tag);
        assert_true(id_equal(&out.from, &message.from));
        same_members(&out, &message);
        buf_release(&bytes);
        buf_release(&format);
    }
}

/* Written down, so that a change of the format does not go unnoticed. */
static void bytes_stay_what_they_were(void **state)
{
    static const uint8_t end[] =
        "\x95\x01\x17\xa5gr\xc3\xbcn\xc4\x10\1\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        "\x92\x0c\x04";
    static const uint8_t events[] =
        "\x95\x01\x0d\xa5gr\xc3\xbcn\xc4\x10\1\2\0\0\0\0\0\0\0\0\0\0\0\0"
        "\0\0\x95\0\xc4\x10\5\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\6\2\xc4\x0c"
        "\3\0\0\0abc\1\0\0\0d";
    struct wire_message message = message_of(WIRE_BODY_END);
    struct buf bytes = encoded(&message);

    (void)state;
    assert_int_equal(bytes.len, sizeof end - 1);
    assert_memory_equal(bytes.data, end, bytes.len);
    buf_release(&bytes);
    message = message_of(WIRE_SYNC_EVENTS);
    bytes = encoded(&message);
    assert_int_equal(bytes.len, sizeof events - 1);
    assert_memory_equal(bytes.data, events, bytes.len);
    buf_release(&bytes);
}

static void what_a_later_build_appends_is_passed_over(void **state)
{
    (void)state;
    for (size_t i = 0; i < TYPES; i++) {
        struct wire_message message = message_of(types[i]), out;
        struct buf bytes = encoded(&message);
        size_t head, at[16];

        (void)member_places(&bytes, &head, at);
        bytes.data[head] = (char)(bytes.data[head] + 2);
        buf_add(&bytes, "\x81\xa1k\x92\xc0\xff\xca\0\0\0\0", 11); /* {k: [nil, -1]}, 0.0 */
        assert_int_equal(wire_decode(&out, (const uint8_t *)bytes.data, bytes.len), 0);
        same_members(&out, &message);
        assert_int_equal(decode_bytes(&out, bytes.data, bytes.len - 1), ERR_INVALID);
        buf_release(&bytes);
    }
}

static void a_summary_may_grow_as_well(void **state)
{
    struct wire_message message = message_of(WIRE_PROBE_ACK), out;
    struct buf bytes = encoded(&message), more = {0};
    size_t head, at[16];

    (void)state;
    (void)member_places(&bytes, &head, at);
    assert_int_equal((uint8_t)bytes.data[at[6]], 0x93);
    bytes.data[at[6]] = (char)0x94;
    buf_add(&more, bytes.data, at[7]);
    buf_add(&more, "\xa3new", 4);
    buf_add(&more, bytes.data + at[7], bytes.len - at[7]);
    assert_int_equal(wire_decode(&out, (const uint8_t *)more.data, more.len), 0);
    same_members(&out, &message);
    buf_release(&bytes);
    buf_release(&more);
}

static void limits_are_met_exactly(void **state)
{
    static char many[LIMIT_WIRE_CHUNK_BYTES];
    struct wire_message message = message_of(WIRE_PROBE_ACK);

    (void)state;
    memset(many, 'x', sizeof many);
    message.tag = (struct text){many, LIMIT_WIRE_TAG_BYTES};
    message.probe.address = message.probe.seen = (struct text){many, LIMIT_WIRE_ADDR_BYTES};
    message.probe.wall_ms = WIRE_WALL_MS_MAX;
    accepted(&message);
    message.probe.address = message.probe.seen = TEXT("!~"); /* the first and the last printable */
    accepted(&message);
    message.probe.address = message.probe.seen = message.tag = (struct text){NULL, 0};
    accepted(&message);
    message.tag = (struct text){many, LIMIT_WIRE_TAG_BYTES + 1};
    refused(&message);
    message = message_of(WIRE_PROBE);
    message.probe.address = (struct text){many, LIMIT_WIRE_ADDR_BYTES + 1};
    refused(&message);
    message = message_of(WIRE_PROBE_ACK);
    message.probe.seen = (struct text){many, LIMIT_WIRE_ADDR_BYTES + 1};
    refused(&message);
    message = message_of(WIRE_PROBE);
    message.probe.wall_ms = WIRE_WALL_MS_MAX + 1;
    refused(&message);
    message = message_of(WIRE_NOTE);
    message.note.data = (struct text){many, LIMIT_WIRE_NOTE_BYTES};
    accepted(&message);
    message.note.data.len++;
    refused(&message);
    message = message_of(WIRE_NOTE);
    message.note.note = (struct id128){{0}};
    refused(&message);
    message = message_of(WIRE_NOTE);
    message.note.author = (struct id128){{0}};
    refused(&message);
    message = message_of(WIRE_NOTE_IDS);
    message.note_ids.offered = message.note_ids.seen = message.note_ids.wanted =
        (struct text){many, LIMIT_WIRE_NOTE_IDS * 16};
    accepted(&message);
    for (int i = 0; i < 6; i++) {
        struct text *lists[] = {&message.note_ids.offered, &message.note_ids.seen,
                                &message.note_ids.wanted};

        lists[i / 2]->len += i % 2 ? 16 : 1; /* half an id; one too many */
        refused(&message);
        lists[i / 2]->len = LIMIT_WIRE_NOTE_IDS * 16;
    }
    message = message_of(WIRE_BODY_DATA);
    message.body_data = (struct wire_body_data){.size = LIMIT_WIRE_CHUNK_BYTES,
                                                .data = {many, LIMIT_WIRE_CHUNK_BYTES}};
    accepted(&message);
}

static void runs_are_read_as_they_were_added(void **state)
{
    struct buf runs = some_runs(LIMIT_WIRE_RUNS);
    struct text text = {runs.data, (uint32_t)runs.len};

    (void)state;
    assert_int_equal(wire_run_count(text), LIMIT_WIRE_RUNS);
    for (size_t i = 0; i < LIMIT_WIRE_RUNS; i++) {
        struct wire_run run = wire_run_at(text, i);

        assert_int_equal(run.origin.bytes[0] << 8 | run.origin.bytes[1], i);
        assert_true(run.seq == i + 1);
    }
    check_runs(runs.data, runs.len, accepted);
    check_runs(NULL, 0, accepted);
    buf_release(&runs);
}

static void events_are_read_as_they_were_added(void **state)
{
    static const size_t lengths[] = {1, LIMIT_EVENT_BYTES, 300, 4};
    struct buf data = some_events(lengths, 4);
    struct wire_message message = message_of(WIRE_SYNC_EVENTS), out;
    struct text event;
    size_t offset = 0, seen = 0;

    (void)state;
    message.sync_events.data = (struct text){data.data, (uint32_t)data.len};
    message.sync_events.count = 4;
    struct buf bytes = encoded(&message);
    assert_int_equal(wire_decode(&out, (const uint8_t *)bytes.data, bytes.len), 0);
    while (wire_next_event(out.sync_events.data, &offset, &event)) {
        assert_in_range(seen, 0, 3);
        assert_true(event.ptr >= bytes.data && event.ptr + event.len <= bytes.data + bytes.len);
        assert_int_equal(event.len, lengths[seen]);
        for (size_t i = 0; i < event.len; i++)
            assert_true(event.ptr[i] == 'a' + (char)seen);
        seen++;
    }
    assert_int_equal(seen, 4);
    buf_release(&data);
    buf_release(&bytes);
}

static void a_buffer_that_is_full_stays_as_it_was(void **state)
{
    struct wire_message message = message_of(WIRE_PROBE_ACK);
    struct buf whole = encoded(&message);

    (void)state;
    for (size_t limit = 6; limit < whole.len + 6; limit++) {
        struct buf out;

        buf_init(&out, limit);
        buf_text(&out, "before");
        wire_encode(&out, &message);
        assert_int_equal(buf_check(&out), ERR_TOO_BIG);
        assert_int_equal(out.len, 6);
        wire_event_add(&out, "x", 1);
        assert_int_equal(out.len, 6);
        buf_release(&out);
    }
    struct buf out;
    buf_init(&out, 6);
    wire_event_add(&out, "xyz", 3); /* its length fits, it does not */
    assert_int_equal(buf_check(&out), ERR_TOO_BIG);
    assert_int_equal(out.len, 0);
    buf_release(&out);
    buf_release(&whole);
}

static void each_type_has_a_name(void **state)
{
    static const char *const names[] = {
        "probe",        "probe-ack",      "probe-for",
        "probe-saw",    "sync-ask",       "sync-more",
        "sync-vector",  "sync-events",    "sync-credit",
        "sync-end",     "body-ask",       "body-data",
        "body-credit",  "body-end",       "note",
        "note-ids",     "pack",           "adopt",
        "known-ask",    "known",          "range-ask",
        "range",        "row-ask",        "row",
        "merge-ask",    "merge-vector",   "merge-chunk",
        "merge-credit", "merge-sums-ask", "merge-sums",
        "merge-end",    "merge-cut-ask",  "merge-cut-known",
        "process",      "twin",           "sync-frozen",
        "body-coming",
    };

    (void)state;
    assert_int_equal(sizeof names / sizeof *names, TYPES);
    for (size_t i = 0; i < TYPES; i++)
        assert_string_equal(wire_type_name(types[i]), names[i]);
    assert_string_equal(wire_type_name(0), "unknown");
    assert_string_equal(wire_type_name(WIRE_BODY_COMING + 1), "unknown");
    assert_string_equal(wire_type_name(UINT32_MAX), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_survives_in_the_bytes_of_the_format),
        cmocka_unit_test(bytes_stay_what_they_were),
        cmocka_unit_test(what_a_later_build_appends_is_passed_over),
        cmocka_unit_test(a_summary_may_grow_as_well),
        cmocka_unit_test(limits_are_met_exactly),
        cmocka_unit_test(runs_are_read_as_they_were_added),
        cmocka_unit_test(events_are_read_as_they_were_added),
        cmocka_unit_test(a_buffer_that_is_full_stays_as_it_was),
        cmocka_unit_test(each_type_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
