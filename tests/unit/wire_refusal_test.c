/* Goal: bytes that break a single rule of the protocol are refused, whatever they are; and this
 * node never sends what it would not read. */
#include "tests/unit/wire_fixture.h"

static void cut_short_or_too_long_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < TYPES; i++) {
        struct wire_message message = message_of(types[i]), out;
        struct buf bytes = encoded(&message);

        for (size_t len = 0; len < bytes.len; len++)
            assert_int_equal(decode_bytes(&out, bytes.data, len), ERR_INVALID);
        buf_char(&bytes, 0);
        assert_int_equal(decode(&bytes), ERR_INVALID);
        buf_release(&bytes);
    }
}

static void a_member_that_is_missing_or_of_a_wrong_type_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < TYPES; i++) {
        struct wire_message message = message_of(types[i]);
        struct buf bytes = encoded(&message);
        size_t head, at[16];
        uint32_t members = member_places(&bytes, &head, at);

        for (uint32_t wrong = 0; wrong < members; wrong++) {
            struct buf changed = {0};

            buf_add(&changed, bytes.data, at[wrong]);
            buf_char(&changed, (char)0xc0); /* nil */
            buf_add(&changed, bytes.data + at[wrong + 1], bytes.len - at[wrong + 1]);
            assert_int_equal(decode(&changed), ERR_INVALID);
            buf_release(&changed);
        }
        /* An older build does not send what was appended since. */
        uint32_t appended = types[i] == WIRE_BODY_ASK;
        if (types[i] == WIRE_PROBE || types[i] == WIRE_PROBE_ACK)
            appended = 3;
        for (; appended > 0; appended--) {
            bytes.data[head]--;
            bytes.len = at[--members];
            assert_int_equal(decode(&bytes), 0);
        }
        bytes.data[head]--;
        bytes.len = at[members - 1];
        assert_int_equal(decode(&bytes), ERR_INVALID);
        buf_release(&bytes);
    }
}

/* [VERSION, TYPE, tag, from, []], of ELEMENTS. */
static int decode_head(uint32_t elements, uint64_t version, uint64_t type)
{
    struct buf bytes = {0};

    pack_array(&bytes, elements);
    pack_uint(&bytes, version);
    pack_uint(&bytes, type);
    pack_str(&bytes, "tag", 3);
    pack_bin(&bytes, "0123456789abcdef", 16);
    pack_array(&bytes, 0);
    for (uint32_t i = 5; i < elements; i++)
        pack_uint(&bytes, 0);
    int rc = decode(&bytes);
    buf_release(&bytes);
    return rc;
}

static void versions_and_types_of_later_builds_are_told_apart(void **state)
{
    static const uint32_t unknown[] = {0, 5, 9, 16, 19, 24, 29, 32, 33, UINT32_MAX};

    (void)state;
    assert_int_equal(decode_head(5, 2, WIRE_PROBE), ERR_UNSUPPORTED);
    assert_int_equal(decode_head(7, UINT64_MAX, 99), ERR_UNSUPPORTED);
    assert_int_equal(decode_head(5, 0, WIRE_PROBE), ERR_INVALID);
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_int_equal(decode_head(5, 1, unknown[i]), ERR_UNSUPPORTED);
        assert_string_equal(wire_type_name(unknown[i]), "unknown");
    }
    assert_int_equal(decode_head(5, 1, (UINT64_C(1) << 32) + 1), ERR_UNSUPPORTED);
    assert_int_equal(decode_head(4, 1, 99), ERR_INVALID);
    assert_int_equal(decode_head(6, 1, WIRE_NOTE), ERR_INVALID);
}

static void what_administration_asks_keeps_its_rules(void **state)
{
    static char many[(LIMIT_WIRE_ADOPT + 1) * sizeof(struct event_item)];
    struct wire_message message = message_of(WIRE_ADOPT);

    (void)state;
    message.adopt.items.len = 0;
    refused(&message);
    message.adopt.items.len = sizeof(struct event_item) - 1;
    refused(&message);
    message.adopt.items = (struct text){many, sizeof many};
    refused(&message);
    message.adopt.items.len -= sizeof(struct event_item);
    accepted(&message);
    message = message_of(WIRE_RANGE_ASK);
    message.inquiry.rows = 0;
    refused(&message);
    message = message_of(WIRE_RANGE_ASK);
    message.inquiry.until = message.inquiry.id;
    refused(&message);
    message = message_of(WIRE_RANGE);
    message.finding.data.len--;
    refused(&message);
    message = message_of(WIRE_RANGE);
    message.finding.count++; /* than rows are listed */
    refused(&message);
    message.finding.data.len = 0; /* none is: sums alone */
    accepted(&message);
    message = message_of(WIRE_PROBE);
    message.probe.version = TEXT("1 2");
    refused(&message);
    message.probe.version = (struct text){many, LIMIT_WIRE_VERSION_BYTES + 1};
    refused(&message);
}

static void a_sixth_element_or_a_missing_one_is_refused(void **state)
{
    struct wire_message message = message_of(WIRE_NOTE);
    struct buf bytes = encoded(&message);

    (void)state;
    bytes.data[0] = (char)0x94;
    assert_int_equal(decode(&bytes), ERR_INVALID);
    bytes.data[0] = (char)0x96;
    buf_char(&bytes, 0);
    assert_int_equal(decode(&bytes), ERR_INVALID);
    bytes.data[0] = (char)0x95;
    bytes.len--;
    assert_int_equal(decode(&bytes), 0);
    buf_release(&bytes);
}

static void more_than_a_message_may_have_is_refused(void **state)
{
    struct wire_message message = message_of(WIRE_NOTE), out;
    struct buf bytes = encoded(&message);
    size_t head, at[16];

    (void)state;
    (void)member_places(&bytes, &head, at);
    bytes.data[head]++;
    size_t room = LIMIT_WIRE_BYTES - bytes.len - 5; /* an appended member fills it to the limit */
    char *rest = calloc(room, 1);
    assert_non_null(rest);
    pack_bin(&bytes, rest, room);
    assert_int_equal(bytes.len, LIMIT_WIRE_BYTES);
    assert_int_equal(decode(&bytes), 0);
    buf_char(&bytes, 0);
    assert_int_equal(decode_bytes(&out, bytes.data, bytes.len), ERR_TOO_BIG);
    free(rest);
    buf_release(&bytes);
}

static void bad_senders_and_tags_are_refused(void **state)
{
    static const struct text bad[] = {{"a\nb", 3},     {"\0", 1},   {"\x7f", 1},
                                      {"\xc2\x85", 2}, {"\xff", 1}, {"\xed\xa0\x80", 3}};

    (void)state;
    for (size_t i = 0; i < TYPES; i++) {
        struct wire_message message = message_of(types[i]);

        message.from = (struct id128){{0}};
        refused(&message);
        message = message_of(types[i]);
        message.tag = bad[i % (sizeof bad / sizeof *bad)];
        refused(&message);
    }
}

static void bad_addresses_are_refused(void **state)
{
    static const struct text bad[] = {{"a b:1", 5},   {" ", 1},          {"a:1\n", 4}, {"\0", 1},
                                      {"a\x7f:1", 4}, {"\xc3\xbc:1", 4}, {"a:1 ", 4}};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct wire_message message = message_of(WIRE_PROBE);

        message.probe.address = bad[i];
        refused(&message);
        message = message_of(WIRE_PROBE_ACK);
        message.probe.seen = bad[i];
        refused(&message);
    }
}

static void runs_that_are_too_many_or_out_of_order_are_refused(void **state)
{
    struct buf runs = some_runs(LIMIT_WIRE_RUNS + 1);

    (void)state;
    check_runs(runs.data, runs.len, refused);
    for (size_t rest = 1; rest < WIRE_RUN_BYTES; rest++)
        check_runs(runs.data, 4 * WIRE_RUN_BYTES + rest, refused);
    check_runs(runs.data, 4 * WIRE_RUN_BYTES, accepted);
    runs.data[3 * WIRE_RUN_BYTES + 1] = 2; /* as the one before */
    check_runs(runs.data, 4 * WIRE_RUN_BYTES, refused);
    runs.data[3 * WIRE_RUN_BYTES + 1] = 1; /* as one earlier */
    check_runs(runs.data, 4 * WIRE_RUN_BYTES, refused);
    runs.data[1] = 1; /* as the second */
    check_runs(runs.data, 2 * WIRE_RUN_BYTES, refused);
    runs.data[1] = 2;
    check_runs(runs.data, 2 * WIRE_RUN_BYTES, refused);
    buf_release(&runs);
}

static void runs_have_a_seq_that_the_journal_could_keep(void **state)
{
    struct buf runs = some_runs(3);
    char *last = runs.data + 2 * WIRE_RUN_BYTES + 16;

    (void)state;
    memset(last, 0, 8);
    check_runs(runs.data, runs.len, refused);
    memset(last, 0xff, 5);
    check_runs(runs.data, runs.len, accepted);
    memset(last, 0, 5);
    last[5] = 1;
    check_runs(runs.data, runs.len, refused);
    last[5] = 0;
    last[0] = 1;
    last[7] = (char)0x80;
    check_runs(runs.data, runs.len, refused);
    buf_release(&runs);
}

static void lists_of_events_fit_exactly(void **state)
{
    static const size_t lengths[] = {9, 9, 9};
    struct buf data = some_events(lengths, 3);
    struct wire_message message = message_of(WIRE_SYNC_EVENTS);
    struct wire_sync_events *events = &message.sync_events;

    (void)state;
    events->data = (struct text){data.data, (uint32_t)data.len};
    events->count = 3;
    accepted(&message);
    events->count = 2;
    refused(&message);
    events->count = 4;
    refused(&message);
    events->count = 0;
    refused(&message);
    events->data.len = 0;
    refused(&message);
    events->count = 3;
    for (uint32_t len = 1; len < data.len; len++) {
        events->data.len = len;
        refused(&message);
        events->count = len < 26 ? 1 : 2; /* those that are whole, were it not for the rest */
        if (len % 13 != 0)
            refused(&message);
        events->count = 3;
    }
    events->data.len = (uint32_t)data.len;
    data.data[13] = 0; /* an event of no bytes */
    refused(&message);
    memset(data.data + 26, 0xff, 4);
    data.data[13] = 9;
    refused(&message);
    buf_release(&data);
}

static void events_and_their_sums_have_limits(void **state)
{
    static const size_t whole[] = {LIMIT_EVENT_BYTES, LIMIT_EVENT_BYTES - 8};
    struct buf data = some_events(whole, 2);
    struct wire_message message = message_of(WIRE_SYNC_EVENTS);

    (void)state;
    assert_int_equal(data.len, LIMIT_WIRE_EVENT_BYTES);
    message.sync_events.count = 2;
    message.sync_events.data = (struct text){data.data, (uint32_t)data.len};
    accepted(&message);
    data.data[LIMIT_EVENT_BYTES + 4]++; /* the second's length, whose byte follows */
    buf_char(&data, 0);
    message.sync_events.data = (struct text){data.data, (uint32_t)data.len};
    refused(&message);
    buf_reset(&data);
    buf_add(&data, "\1\0\2\0", 4); /* one event of a byte too much */
    char *rest = buf_reserve(&data, LIMIT_EVENT_BYTES + 1);
    assert_non_null(rest);
    memset(rest, 0, LIMIT_EVENT_BYTES + 1);
    message.sync_events.count = 1;
    message.sync_events.data = (struct text){data.data, LIMIT_EVENT_BYTES + 5};
    refused(&message);
    buf_release(&data);
}

static void events_have_seqs_that_the_journal_could_keep(void **state)
{
    struct wire_message message = message_of(WIRE_SYNC_EVENTS);

    (void)state;
    message.sync_events.first = 0;
    refused(&message);
    message.sync_events.first = WIRE_SEQ_MAX - 1;
    accepted(&message);
    message.sync_events.first = WIRE_SEQ_MAX;
    refused(&message);
    message.sync_events.first = UINT64_MAX;
    refused(&message);
    message.sync_events.session = 99;
    message.sync_events.first = 1;
    accepted(&message);
}

static void a_session_that_is_asked_for_has_a_number(void **state)
{
    struct wire_message ask = message_of(WIRE_SYNC_ASK), more = message_of(WIRE_SYNC_MORE),
                        vector = message_of(WIRE_SYNC_VECTOR),
                        credit = message_of(WIRE_SYNC_CREDIT), end = message_of(WIRE_SYNC_END);

    (void)state;
    ask.sync_ask.session = more.flow.session = vector.sync_vector.session = 0;
    refused(&ask);
    refused(&more);
    refused(&vector);
    credit.flow.session = end.flow.session = 0; /* about pushes */
    accepted(&credit);
    accepted(&end);
}

static void ends_are_of_the_known_ones(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct wire_message message = message_of(i ? WIRE_BODY_END : WIRE_SYNC_END);

        message.flow.end = WIRE_END_CANCEL;
        accepted(&message);
        message.flow.end = WIRE_END_CANCEL + 1;
        refused(&message);
        message.flow.end = UINT8_MAX;
        refused(&message);
    }
}

static void an_end_of_more_than_a_byte_is_not_cut_to_one(void **state)
{
    struct wire_message message = message_of(WIRE_SYNC_END);
    struct buf bytes = {0};

    (void)state;
    raw_head(&bytes, &message, 2);
    pack_uint(&bytes, 12);
    pack_uint(&bytes, 256);
    assert_int_equal(decode(&bytes), ERR_INVALID);
    buf_release(&bytes);
}

static void bytes_of_bodies_lie_inside_them(void **state)
{
    struct wire_message ask = message_of(WIRE_BODY_ASK), data = message_of(WIRE_BODY_DATA);

    (void)state;
    ask.body_ask.offset = 2;
    refused(&ask);
    ask.body_ask.length = UINT64_MAX; /* to the end */
    accepted(&ask);
    ask.body_ask.offset = UINT64_MAX;
    accepted(&ask);
    ask.body_ask.length = 1;
    refused(&ask);
    ask.body_ask.length = 0;
    accepted(&ask);
    data.body_data.offset = 96;
    refused(&data);
    data.body_data.offset = 101;
    refused(&data);
    data.body_data.offset = UINT64_MAX;
    refused(&data);
    data.body_data.offset = 100;
    data.body_data.data.len = 0;
    accepted(&data);
}

static void chunks_have_a_limit(void **state)
{
    struct wire_message message = message_of(WIRE_BODY_DATA);
    char *many = calloc(LIMIT_WIRE_CHUNK_BYTES + 1, 1);

    (void)state;
    assert_non_null(many);
    message.body_data.size = UINT64_MAX;
    message.body_data.data = (struct text){many, LIMIT_WIRE_CHUNK_BYTES + 1};
    refused(&message);
    message.body_data.data.len--;
    accepted(&message);
    free(many);
}

static void packs_hold_whole_messages_up_to_a_limit(void **state)
{
    struct wire_message message = message_of(WIRE_PACK);
    char *many = calloc(LIMIT_WIRE_PACK_BYTES + 1, 1);

    (void)state;
    assert_non_null(many);
    for (uint32_t len = 0; len < message_of(WIRE_PACK).pack.data.len; len++) {
        message.pack.data.len = len;
        if (len == 7) /* the first message, and that is all */
            accepted(&message);
        else
            refused(&message);
    }
    message.pack.data = TEXT("\1\0\0\0a\0\0\0\0"); /* one of no bytes */
    refused(&message);
    uint32_t len = LIMIT_WIRE_PACK_BYTES - 4;
    memcpy(many, &len, sizeof len);
    message.pack.data = (struct text){many, LIMIT_WIRE_PACK_BYTES};
    accepted(&message);
    len++;
    memcpy(many, &len, sizeof len);
    message.pack.data.len++;
    refused(&message);
    free(many);
}

/* Bytes changed at random: refused, or a message that can be sent on. */
static void changed_bytes_are_refused_or_another_message(void **state)
{
    enum { ROUNDS = 3000 };
    unsigned passed = 0;

    (void)state;
    srand(5);
    for (size_t i = 0; i < TYPES * ROUNDS; i++) {
        struct wire_message message = message_of(types[i % TYPES]), out;
        struct buf bytes = encoded(&message);

        for (int change = rand() % 3; change >= 0; change--)
            bytes.data[(size_t)rand() % bytes.len] = (char)rand();
        int rc = wire_decode(&out, (const uint8_t *)bytes.data, bytes.len);
        assert_true(rc == 0 || rc == ERR_INVALID || rc == ERR_UNSUPPORTED);
        if (rc == 0) {
            struct buf again = encoded(&out);
            struct wire_message twice;

            assert_int_equal(wire_decode(&twice, (const uint8_t *)again.data, again.len), 0);
            same_members(&twice, &out);
            buf_release(&again);
            passed++;
        }
        buf_release(&bytes);
    }
    assert_in_range(passed, TYPES, TYPES * ROUNDS - 1);
}

/* What each message of merging must not say. */
static void what_merging_cannot_mean_is_refused(void **state)
{
    static char long_list[(LIMIT_WIRE_FENCES + 1) * 24],
        long_runs[(LIMIT_WIRE_MERGE_RUNS + 1) * 73];
    struct wire_message m;
    char runs[2 * WIRE_MERGE_RUN_BYTES];

    (void)state;
    m = message_of(WIRE_MERGE_ASK), m.merge_ask.session = 0, refused(&m);
    m = message_of(WIRE_MERGE_ASK), m.merge_ask.after = m.merge_ask.through, refused(&m);
    m = message_of(WIRE_MERGE_VECTOR), m.merge_vector.session = 0, refused(&m);
    m = message_of(WIRE_MERGE_VECTOR), m.merge_vector.runs.len--, refused(&m);
    m = message_of(WIRE_MERGE_VECTOR), m.merge_vector.runs.len = 0, accepted(&m);
    struct text two = message_of(WIRE_MERGE_VECTOR).merge_vector.runs;
    static const struct {
        size_t at;
        uint8_t value;
    } wrong[] = {{72, 2}, {32, 0}, {38, 1}, {73 + 15, 'a'}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        m = message_of(WIRE_MERGE_VECTOR);
        memcpy(runs, two.ptr, sizeof runs);
        m.merge_vector.runs = (struct text){runs, sizeof runs};
        accepted(&m);
        runs[wrong[i].at] = (char)wrong[i].value;
        refused(&m);
    }
    memset(runs, 0, 16);
    refused(&m);
    memcpy(runs, two.ptr, sizeof runs);
    memset(runs + 16, 0, 16);
    refused(&m);
    m.merge_vector.runs = (struct text){long_runs, sizeof long_runs};
    refused(&m);
    m = message_of(WIRE_MERGE_CHUNK), m.merge_chunk.session = 0, refused(&m);
    m = message_of(WIRE_MERGE_CHUNK), m.merge_chunk.data.len--, refused(&m);
    m = message_of(WIRE_MERGE_CHUNK), m.merge_chunk.data = TEXT("\0\0\0\0"), refused(&m);
    m = message_of(WIRE_MERGE_CHUNK), m.merge_chunk.data.len = 0, accepted(&m);
    m = message_of(WIRE_MERGE_SUMS_ASK), m.merge_sums_ask.session = 0, refused(&m);
    m = message_of(WIRE_MERGE_SUMS_ASK), m.merge_sums_ask.fences.len = 0, refused(&m);
    m = message_of(WIRE_MERGE_SUMS_ASK), m.merge_sums_ask.fences.len--, refused(&m);
    m = message_of(WIRE_MERGE_SUMS_ASK), m.merge_sums_ask.after.bytes[0] = 'a', accepted(&m);
    memset(m.merge_sums_ask.after.bytes, 'a', 16), refused(&m);
    m = message_of(WIRE_MERGE_SUMS_ASK);
    m.merge_sums_ask.fences = (struct text){long_list, (LIMIT_WIRE_FENCES + 1) * 16};
    for (size_t i = 0; i <= LIMIT_WIRE_FENCES; i++) {
        long_list[i * 16] = 7;
        long_list[i * 16 + 1] = (char)(i >> 8);
        long_list[i * 16 + 2] = (char)i;
    }
    refused(&m);
    m.merge_sums_ask.fences.len -= 16;
    accepted(&m);
    m = message_of(WIRE_MERGE_SUMS), m.merge_sums.session = 0, refused(&m);
    m = message_of(WIRE_MERGE_SUMS), m.merge_sums.first++, refused(&m);
    m = message_of(WIRE_MERGE_SUMS), m.merge_sums.sums.len--, refused(&m);
    m = message_of(WIRE_MERGE_SUMS), m.merge_sums.sums.len = 0, refused(&m);
    m.merge_sums.first = 0;
    m.merge_sums.sums = (struct text){long_list, (LIMIT_WIRE_FENCES + 1) * 24};
    refused(&m);
    m = message_of(WIRE_MERGE_END), m.flow.end = WIRE_END_CANCEL + 1, refused(&m);
    m = message_of(WIRE_MERGE_CUT_ASK), m.merge_cut.runs.len--, refused(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_short_or_too_long_is_refused),
        cmocka_unit_test(a_member_that_is_missing_or_of_a_wrong_type_is_refused),
        cmocka_unit_test(versions_and_types_of_later_builds_are_told_apart),
        cmocka_unit_test(what_administration_asks_keeps_its_rules),
        cmocka_unit_test(a_sixth_element_or_a_missing_one_is_refused),
        cmocka_unit_test(more_than_a_message_may_have_is_refused),
        cmocka_unit_test(bad_senders_and_tags_are_refused),
        cmocka_unit_test(bad_addresses_are_refused),
        cmocka_unit_test(runs_that_are_too_many_or_out_of_order_are_refused),
        cmocka_unit_test(runs_have_a_seq_that_the_journal_could_keep),
        cmocka_unit_test(lists_of_events_fit_exactly),
        cmocka_unit_test(events_and_their_sums_have_limits),
        cmocka_unit_test(events_have_seqs_that_the_journal_could_keep),
        cmocka_unit_test(a_session_that_is_asked_for_has_a_number),
        cmocka_unit_test(ends_are_of_the_known_ones),
        cmocka_unit_test(an_end_of_more_than_a_byte_is_not_cut_to_one),
        cmocka_unit_test(bytes_of_bodies_lie_inside_them),
        cmocka_unit_test(chunks_have_a_limit),
        cmocka_unit_test(what_merging_cannot_mean_is_refused),
        cmocka_unit_test(packs_hold_whole_messages_up_to_a_limit),
        cmocka_unit_test(changed_bytes_are_refused_or_another_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
