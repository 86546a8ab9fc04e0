/* Goal: what the journal's database is told comes back unchanged, and its events stay as they are.
 */
#include "journal/db_conflict.h"
#include "tests/unit/db_util.h"

static uint64_t number(uint64_t max)
{
    switch (roll() % 4) {
    case 0:
        return 0;
    case 1:
        return max;
    default:
        return max ? roll() % max : 0;
    }
}

static struct reg any_register(const struct reg *like)
{
    struct reg reg = {.stamp = number(HLC_LIMIT - 1)};

    if (like && roll() % 2)
        return *like;
    if (roll() % 3)
        fill(&reg.origin, sizeof reg.origin);
    return reg;
}

/* ID, with everything else thrown by dice. */
static struct object *any_object(const struct id128 *id)
{
    static char texts[4][16384];
    struct object o = {.id = *id};
    struct text text[4];
    const uint32_t limits[4] = {LIMIT_NAME_BYTES, LIMIT_CONTENT_TYPE_BYTES, LIMIT_USER_META_BYTES,
                                LIMIT_CLOUD_PLACE_BYTES};

    o.flags = (uint32_t)number(UINT32_MAX);
    o.level = (uint8_t)number(UINT8_MAX);
    o.put_at = any_register(NULL);
    if (roll() % 3)
        fill(o.sha256, sizeof o.sha256);
    o.size = number(UINT64_MAX);
    o.name_at = any_register(&o.put_at);
    o.user_meta_at = any_register(&o.put_at);
    o.expires_at = any_register(&o.put_at);
    o.expires_ms = number(UINT64_MAX);
    o.uploaded_at = any_register(&o.put_at);
    if (roll() % 3)
        fill(o.uploaded_sha256, sizeof o.uploaded_sha256);
    o.deleted_at = number(HLC_LIMIT - 1);
    o.place.disk = (uint32_t)number(UINT32_MAX);
    o.place.volume = (uint32_t)number(UINT32_MAX);
    o.place.offset = number(UINT64_MAX);
    o.place.lsn = number(UINT64_MAX);
    o.record_bytes = (uint32_t)number(UINT32_MAX);
    if (roll() % 3)
        o.purged_of = (struct reg){.stamp = 1 + number(HLC_LIMIT - 2)};
    if (o.purged_of.stamp && roll() % 3)
        fill(&o.purged_of.origin, sizeof o.purged_of.origin);
    for (int i = 0; i < 4; i++) {
        text[i] = (struct text){texts[i], (uint32_t)number(limits[i])};
        fill(texts[i], text[i].len);
    }
    struct object *object = object_create_placed(&o, text[0], text[1], text[2], text[3]);
    assert_non_null(object);
    return object;
}

static bool reg_equal(const struct reg *a, const struct reg *b)
{
    return a->stamp == b->stamp && id_equal(&a->origin, &b->origin);
}

static void expect_equal(const struct object *a, const struct object *b)
{
    assert_int_equal(object_bytes(a), object_bytes(b));
    assert_memory_equal(&a->id, &b->id, sizeof a->id);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->level, b->level);
    assert_true(reg_equal(&a->put_at, &b->put_at));
    assert_memory_equal(a->sha256, b->sha256, sizeof a->sha256);
    assert_true(a->size == b->size);
    assert_true(reg_equal(&a->name_at, &b->name_at));
    assert_true(reg_equal(&a->user_meta_at, &b->user_meta_at));
    assert_true(reg_equal(&a->expires_at, &b->expires_at));
    assert_true(a->expires_ms == b->expires_ms);
    assert_true(reg_equal(&a->uploaded_at, &b->uploaded_at));
    assert_memory_equal(a->uploaded_sha256, b->uploaded_sha256, sizeof a->uploaded_sha256);
    assert_true(reg_equal(&a->purged_of, &b->purged_of));
    assert_true(a->deleted_at == b->deleted_at);
    assert_true(place_equal(&a->place, &b->place) && a->place.lsn == b->place.lsn);
    assert_int_equal(a->record_bytes, b->record_bytes);
    assert_int_equal(a->name_len, b->name_len);
    assert_int_equal(a->type_len, b->type_len);
    assert_int_equal(a->user_meta_len, b->user_meta_len);
    assert_int_equal(a->cloud_len, b->cloud_len);
    assert_memory_equal(a->text, b->text, object_bytes(a) - sizeof *a);
}

static void expect_found(struct place_on_disk *at, const struct object *object)
{
    struct object *found;

    assert_int_equal(db_find(at->reader, &object->id, &found), 0);
    expect_equal(object, found);
    object_destroy(&found);
}

/* ---- What is stored ---- */

static void a_fresh_database_bears_its_identity_and_keeps_it(void **state)
{
    struct place_on_disk *at = *state;
    struct id128 other = {{9}};
    struct db_state first;

    db_reader_close(&at->reader);
    db_close(&at->db);
    assert_int_equal(db_open(&at->db, at->vfs, at->path, &other, &other), 0);
    assert_int_equal(db_state_get(at->db, &first), 0);
    assert_true(id_equal(&first.node, &node) && id_equal(&first.store, &store));
    assert_true(first.position == 0 && first.clean_generation == 0 && first.events == 0);
    assert_true(id_is_zero(&first.last_origin));
    assert_int_equal(db_reader_open(&at->reader, at->vfs, at->path), 0);
    assert_int_equal(sql_number(at, "PRAGMA application_id"), 0x4F424A53);
    assert_int_equal(sql_number(at, "PRAGMA user_version"), 5);
    assert_int_equal(sql_number(at, "PRAGMA page_size"), 4096);
    assert_int_equal(sql_number(at, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"), 1);
}

static void every_member_of_an_object_survives(void **state)
{
    enum { GROUPS = 120, MEMBERS = 3, ROUNDS = 4 };
    struct place_on_disk *at = *state;
    struct object *now[GROUPS][MEMBERS] = {{0}}, *found;

    dice = 42;
    for (int round = 0; round < ROUNDS; round++) {
        assert_int_equal(db_begin(at->db), 0);
        for (unsigned g = 0; g < GROUPS; g++)
            for (unsigned m = 0; m < MEMBERS; m++) {
                /* In another order for each group, so that any member may be the one that has
                 * the key. */
                unsigned member = (m + g) % MEMBERS;
                struct id128 id = crowded_id(g < 100 ? g : g + 1000, member);

                if (round > 0 && roll() % 2)
                    continue;
                object_destroy(&now[g][member]);
                now[g][member] = any_object(&id);
                assert_int_equal(db_object_set(at->db, now[g][member]), 0);
                assert_int_equal(db_find_writing(at->db, &id, &found), 0);
                expect_equal(now[g][member], found);
                object_destroy(&found);
            }
        assert_int_equal(db_commit(at->db), 0);
        for (unsigned g = 0; g < GROUPS; g++)
            for (unsigned m = 0; m < MEMBERS; m++)
                expect_found(at, now[g][m]);
    }
    for (unsigned g = 0; g < GROUPS; g++)
        for (unsigned m = 0; m < MEMBERS; m++)
            object_destroy(&now[g][m]);
    struct id128 unknown = crowded_id(7, 99);
    assert_int_equal(db_find(at->reader, &unknown, &found), ERR_NOT_FOUND);
    unknown = crowded_id(500, 0);
    assert_int_equal(db_find(at->reader, &unknown, &found), ERR_NOT_FOUND);
    assert_int_equal(sql_number(at, "SELECT count(*) FROM objects"), 101);
    assert_int_equal(sql_number(at, "SELECT count(*) FROM objects_more"), GROUPS * MEMBERS - 101);
}

static void keys_are_in_the_order_of_ids(void **state)
{
    (void)state;
    dice = 5;
    for (int i = 0; i < 100000; i++) {
        struct id128 a, b;

        fill(&a, sizeof a);
        b = a;
        if (roll() % 2)
            a.bytes[0] = b.bytes[0] = 1; /* a time of ours */
        b.bytes[roll() % sizeof b.bytes] = (uint8_t)(roll() >> 20);
        assert_true(object_key(&a) >= 0);
        if (id_compare(&a, &b) < 0)
            assert_true(object_key(&a) <= object_key(&b));
        else
            assert_true(object_key(&a) >= object_key(&b));
    }
    /* Ids of one millisecond have keys of their own, as a rule. */
    struct id128 low = {{1}}, high = {{1, [8] = 8}};
    assert_int_equal(object_key(&high) - object_key(&low), 1);
}

struct listing {
    struct id128 ids[512];
    unsigned count, stop_after;
};

static int list(void *arg, const struct object *object)
{
    struct listing *listing = arg;

    listing->ids[listing->count++] = object->id;
    return listing->count == listing->stop_after ? 77 : 0;
}

static void live_objects_are_listed_in_id_order_page_by_page(void **state)
{
    enum { GROUPS = 60, MEMBERS = 3 };
    struct place_on_disk *at = *state;
    struct listing all = {0};
    unsigned expected = 0, count;

    assert_int_equal(db_begin(at->db), 0);
    for (unsigned i = 0; i < GROUPS * MEMBERS; i++) {
        unsigned shuffled = i * 7 % (GROUPS * MEMBERS);
        unsigned group = shuffled / MEMBERS;
        struct id128 id = crowded_id(group < 50 ? group : group + 1000, shuffled % MEMBERS);
        struct object *object = plain_object(&id, 1, 1);

        object->flags = i % 5 == 0   ? OBJECT_DELETED | OBJECT_PUT
                        : i % 5 == 1 ? OBJECT_CLOUD
                                     : OBJECT_PUT | OBJECT_PLAIN;
        expected += i % 5 > 1;
        assert_int_equal(db_object_set(at->db, object), 0);
        object_destroy(&object);
    }
    assert_int_equal(db_commit(at->db), 0);

    for (unsigned page = 1; page <= 200; page += 33) {
        struct id128 last;
        const struct id128 *after = NULL;

        all.count = 0;
        do {
            assert_int_equal(db_each_object(at->reader, after, page, list, &all, &last, &count), 0);
            assert_in_range(count, 0, page);
            after = &last;
        } while (count == page);
        assert_int_equal(all.count, expected);
        for (unsigned i = 1; i < all.count; i++)
            assert_true(id_compare(&all.ids[i - 1], &all.ids[i]) < 0);
        assert_true(id_equal(&last, &all.ids[all.count - 1]));
    }
    struct listing some = {.stop_after = 4};
    struct id128 last;
    assert_int_equal(db_each_object(at->reader, NULL, 100, list, &some, &last, &count), 77);
    assert_int_equal(count, 4);
    assert_true(id_equal(&last, &all.ids[3]));
}

struct events {
    unsigned count, stop_after;
    uint64_t first, last;
};

static int see_event(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    struct events *events = arg;

    assert_int_equal(len, 3 + seq % 5);
    assert_int_equal(raw[0], seq & 0xff);
    if (events->count++ == 0)
        events->first = seq;
    else
        assert_int_equal(seq, events->last + 1);
    events->last = seq;
    return events->count == events->stop_after ? 78 : 0;
}

static void add_event(struct db *db, int64_t origin_no, uint64_t seq, int expected)
{
    uint8_t raw[8] = {(uint8_t)seq};

    assert_int_equal(db_event_add(db, origin_no, seq, raw, 3 + seq % 5), expected);
}

static void events_are_kept_in_order_and_only_once(void **state)
{
    struct place_on_disk *at = *state;
    struct events seen = {0};

    assert_int_equal(db_begin(at->db), 0);
    for (uint64_t seq = 1; seq <= 300; seq++) {
        add_event(at->db, 1, seq, 0);
        add_event(at->db, 2, 301 - seq, 0);
    }
    add_event(at->db, 1, 300, ERR_EXISTS);
    add_event(at->db, 1, 301, 0); /* the transaction has lost nothing by it */
    add_event(at->db, 2, EVENT_SEQ_MAX, 0);
    add_event(at->db, 2, EVENT_SEQ_MAX + 1, ERR_RANGE);
    add_event(at->db, 0, 1, ERR_RANGE);
    assert_int_equal(db_commit(at->db), 0);

    assert_int_equal(db_each_event(at->reader, 1, 1, see_event, &seen), 0);
    assert_int_equal(seen.count, 301);
    assert_int_equal(seen.first, 1);
    seen = (struct events){.stop_after = 10};
    assert_int_equal(db_each_event(at->reader, 2, 50, see_event, &seen), 78);
    assert_int_equal(seen.first, 50);
    assert_int_equal(seen.last, 59);
    seen = (struct events){0};
    assert_int_equal(db_each_event(at->reader, 3, 1, see_event, &seen), 0);
    assert_int_equal(db_each_event(at->reader, 1, 302, see_event, &seen), 0);
    assert_int_equal(db_each_event(at->reader, -1, 1, see_event, &seen), 0);
    assert_int_equal(seen.count, 0);
}

static int see_garbage(void *arg, uint64_t file, lsn_t freed_at)
{
    uint64_t *sum = arg;

    assert_int_equal(file, freed_at * 2);
    *sum += file;
    return file == 198 ? 79 : 0;
}

static void origins_and_segments_are_rows_that_change(void **state)
{
    struct place_on_disk *at = *state;
    struct db_origin a = {.origin = {{5}}, .node = {{6}}, .seq = 7, .anchor_seq = 3}, b = a;
    struct db_segment one = {.log = {.volume = 9, .disk = 1, .base = 4096, .end_bytes = 77}};
    struct db_segment two = {
        .log = {.volume = 3, .sealed = true}, .body_bytes = 8, .live_bytes = 5};
    struct db_origin *origins;
    struct db_segment *segments;
    size_t count;

    memset(a.hash, 1, sizeof a.hash);
    b.origin.bytes[0] = 8;
    assert_int_equal(db_begin(at->db), 0);
    assert_int_equal(db_origin_set(at->db, &a), 0);
    assert_int_equal(db_origin_set(at->db, &b), 0);
    assert_true(a.no > 0 && b.no > a.no);
    a.seq = 8;
    a.ended = true;
    assert_int_equal(db_origin_set(at->db, &a), 0);
    assert_int_equal(db_segment_set(at->db, &one), 0);
    assert_int_equal(db_segment_set(at->db, &two), 0);
    one.log.end_bytes = 78;
    assert_int_equal(db_segment_set(at->db, &one), 0);
    assert_int_equal(db_commit(at->db), 0);

    assert_int_equal(db_reader_origins(at->reader, &origins, &count), 0);
    assert_int_equal(count, 2);
    assert_true(origins[0].no == a.no && origins[0].seq == 8 && origins[0].ended);
    assert_true(id_equal(&origins[0].origin, &a.origin) && origins[0].anchor_seq == 3);
    assert_true(id_equal(&origins[0].node, &a.node));
    assert_memory_equal(origins[0].hash, a.hash, sizeof a.hash);
    assert_true(id_equal(&origins[1].origin, &b.origin) && !origins[1].ended);
    free(origins);

    assert_int_equal(db_reader_segments(at->reader, &segments, &count), 0);
    assert_int_equal(count, 2);
    assert_true(segments[0].log.volume == 3 && segments[0].log.sealed);
    assert_true(segments[0].body_bytes == 8 && segments[0].live_bytes == 5);
    assert_true(segments[1].log.volume == 9 && segments[1].log.end_bytes == 78);
    assert_true(segments[1].log.disk == 1 && segments[1].log.base == 4096);
    free(segments);

    assert_int_equal(db_begin(at->db), 0);
    assert_int_equal(db_segment_remove(at->db, 3), 0);
    assert_int_equal(db_commit(at->db), 0);
    assert_int_equal(db_segments(at->db, &segments, &count), 0);
    assert_int_equal(count, 1);
    free(segments);
}

static void the_state_comes_back_in_full(void **state)
{
    struct place_on_disk *at = *state;
    struct db_state set = {.node = node,
                           .store = store,
                           .position = UINT64_MAX - 5,
                           .hlc = 12,
                           .clean_generation = 4,
                           .events = 1,
                           .objects = 2,
                           .deleted = 3,
                           .bytes = UINT64_MAX,
                           .outbox = 5,
                           .outbox_bytes = 6,
                           .digest = {UINT64_MAX, 1},
                           .wanted = 7,
                           .wanted_bytes = 8,
                           .last_origin = {{7}}};
    struct db_state got;

    assert_int_equal(db_begin(at->db), 0);
    assert_int_equal(db_state_set(at->db, &set), 0);
    assert_int_equal(db_commit(at->db), 0);
    assert_int_equal(db_reader_state(at->reader, &got), 0);
    assert_true(got.position == set.position && got.clean_generation == 4 && got.hlc == 12);
    assert_true(got.bytes == UINT64_MAX && got.outbox == 5 && got.outbox_bytes == 6);
    assert_true(got.wanted == 7 && got.wanted_bytes == 8);
    assert_true(got.events == 1 && got.objects == 2 && got.deleted == 3);
    assert_true(got.digest.low == UINT64_MAX && got.digest.high == 1);
    assert_true(id_equal(&got.last_origin, &set.last_origin));
}

static void the_outbox_and_the_garbage_are_lists(void **state)
{
    struct place_on_disk *at = *state;
    struct id128 id = {{4}}, other = {{5}};
    uint64_t sum = 0;

    assert_int_equal(db_begin(at->db), 0);
    for (uint64_t lsn = 1; lsn <= 100; lsn++)
        assert_int_equal(db_garbage_add(at->db, 2 * lsn, lsn), 0);
    assert_int_equal(db_garbage_add(at->db, 198, 99), 0); /* again: fine */
    assert_int_equal(db_garbage_remove(at->db, 90), 0);
    assert_int_equal(db_outbox_set(at->db, OUTBOX_UPLOAD, &id, 5, 6, true), 0);
    assert_int_equal(db_outbox_set(at->db, OUTBOX_UPLOAD, &id, 55, 66, true), 0);
    assert_int_equal(db_outbox_set(at->db, OUTBOX_UPLOAD, &other, 1, 1, true), 0);
    assert_int_equal(db_outbox_set(at->db, OUTBOX_REPLICA, &other, 3, 4, true), 0);
    assert_int_equal(db_outbox_set(at->db, OUTBOX_UPLOAD, &other, 1, 1, false), 0);
    assert_int_equal(db_commit(at->db), 0);

    assert_int_equal(sql_number(at, "SELECT count(*) FROM garbage"), 10);
    assert_int_equal(db_each_garbage(at->reader, 92, 99, 4, see_garbage, &sum), 0);
    assert_int_equal(sum, 2 * (93 + 94 + 95 + 96));
    assert_int_equal(db_each_garbage(at->reader, 96, 99, 100, see_garbage, &sum), 0);
    assert_int_equal(sum, 2 * (93 + 94 + 95 + 96 + 97 + 98));
    assert_int_equal(db_each_garbage(at->reader, 0, UINT64_MAX, 100, see_garbage, &sum), 79);
    assert_int_equal(sql_number(at, "SELECT count(*) FROM outbox"), 2);
    assert_int_equal(sql_number(at, "SELECT sum(size * 1000 + since_ms) FROM outbox"), 58070);
    assert_int_equal(sql_number(at, "SELECT size FROM outbox WHERE kind = 2"), 3);
}

static int see_conflict(void *arg, const struct db_conflict *conflict)
{
    uint64_t *seen = arg;

    if (conflict->loser->size == 99)
        return 1;
    *seen = *seen * 100 + conflict->loser->size;
    return 0;
}

/* One row for each (id, sha256), found by either and by what it is to become. */
static void what_lost_is_found_by_both_its_ids(void **state)
{
    struct place_on_disk *at = *state;
    struct db_conflict_cursor after = {{{0}}, {0}};
    struct id128 id = {{4}}, other = {{5}}, target = {{6}}, moved = {{7}};
    struct db_conflict found;
    uint64_t count, bytes, seen = 0;
    unsigned taken;

    assert_int_equal(db_begin(at->db), 0);
    for (uint8_t i = 0; i < 4; i++) {
        struct object *loser = plain_object(i < 3 ? &id : &other, 10u + i, 1);

        memset(loser->sha256, 9 - i, SHA256_BYTES);
        target.bytes[1] = i;
        assert_int_equal(db_conflict_set(at->db, &target, loser), 0);
        if (i == 1)
            assert_int_equal(db_conflict_set(at->db, &moved, loser), 0); /* instead */
        if (i == 2)
            assert_int_equal(db_conflict_remove(at->db, loser), 0);
        object_destroy(&loser);
    }
    assert_int_equal(db_conflict_sums(at->db, &count, &bytes), 0);
    assert_int_equal(count, 3);
    assert_int_equal(bytes, 10 + 11 + 13);
    assert_int_equal(db_conflict_for(at->db, &moved, &found), 0);
    assert_int_equal(found.loser->size, 11);
    assert_true(id_equal(&found.loser->id, &id) && id_equal(&found.target, &moved));
    object_destroy(&found.loser);
    target.bytes[1] = 1;
    assert_int_equal(db_conflict_for(at->db, &target, &found), ERR_NOT_FOUND);
    assert_int_equal(db_conflict_of(at->db, &other, &found), 0);
    assert_int_equal(found.loser->size, 13);
    assert_int_equal(db_conflict_get(at->db, &id, found.loser->sha256, &(struct db_conflict){0}),
                     ERR_NOT_FOUND);
    object_destroy(&found.loser);
    assert_int_equal(db_commit(at->db), 0);

    /* In order of id and hash, a page at a time; what is not taken comes again. */
    assert_int_equal(db_each_conflict(at->reader, &after, 2, see_conflict, &seen, &taken), 0);
    assert_int_equal(taken, 2);
    assert_int_equal(seen, 1110);
    assert_int_equal(db_each_conflict(at->reader, &after, 2, see_conflict, &seen, &taken), 0);
    assert_int_equal(taken, 1);
    assert_int_equal(seen, 111013);
    assert_int_equal(db_each_conflict(at->reader, &after, 2, see_conflict, &seen, &taken), 0);
    assert_int_equal(taken, 0);
}

static void a_rollback_leaves_no_trace(void **state)
{
    struct place_on_disk *at = *state;
    struct id128 id = {{7}};
    struct object *object = plain_object(&id, 10, 1), *found;
    struct db_state set = {.node = node, .store = store, .position = 5};

    assert_int_equal(db_begin(at->db), 0);
    add_event(at->db, 1, 1, 0);
    assert_int_equal(db_object_set(at->db, object), 0);
    assert_int_equal(db_state_set(at->db, &set), 0);
    db_rollback(at->db);
    db_rollback(at->db); /* once more does no harm */
    assert_int_equal(db_find_writing(at->db, &id, &found), ERR_NOT_FOUND);
    assert_int_equal(db_state_get(at->db, &set), 0);
    assert_int_equal(set.position, 0);
    assert_int_equal(db_begin(at->db), 0);
    add_event(at->db, 1, 1, 0);
    assert_int_equal(db_commit(at->db), 0);
    object_destroy(&object);
}

static void events_can_be_neither_changed_nor_removed(void **state)
{
    static const char *const attempts[] = {
        "UPDATE events SET raw = x'00'",
        "UPDATE events SET key = key + 1",
        "DELETE FROM events",
        "DELETE FROM events WHERE key = (SELECT min(key) FROM events)",
        "INSERT OR REPLACE INTO events SELECT key, x'00' FROM events",
    };
    struct place_on_disk *at = *state;

    assert_int_equal(db_begin(at->db), 0);
    for (uint64_t seq = 1; seq <= 5; seq++)
        add_event(at->db, 1, seq, 0);
    assert_int_equal(db_commit(at->db), 0);
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        int code = sqlite3_exec(at->db->conn.sql, attempts[i], NULL, NULL, NULL);

        assert_int_equal(code, SQLITE_CONSTRAINT_TRIGGER);
        assert_int_equal(sql_number(at, "SELECT count(*) FROM events WHERE raw <> x'00'"), 5);
    }
    /* A reader can write nothing at all. */
    assert_int_equal(conn_exec(&at->reader->conn, "DELETE FROM objects"), ERR_READ_ONLY);
    /* Compaction will be able to. */
    assert_int_equal(conn_exec(&at->db->conn, "BEGIN; INSERT INTO compaction VALUES(1);"
                                              "DELETE FROM events WHERE key < (1 << 40) + 3;"
                                              "DELETE FROM compaction; COMMIT"),
                     0);
    assert_int_equal(sql_number(at, "SELECT count(*) FROM events"), 3);
}

int main(void)
{
#define ON_FILES(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        ON_FILES(a_fresh_database_bears_its_identity_and_keeps_it),
        ON_FILES(every_member_of_an_object_survives),
        cmocka_unit_test(keys_are_in_the_order_of_ids),
        ON_FILES(live_objects_are_listed_in_id_order_page_by_page),
        ON_FILES(events_are_kept_in_order_and_only_once),
        ON_FILES(origins_and_segments_are_rows_that_change),
        ON_FILES(the_state_comes_back_in_full),
        ON_FILES(the_outbox_and_the_garbage_are_lists),
        ON_FILES(what_lost_is_found_by_both_its_ids),
        ON_FILES(a_rollback_leaves_no_trace),
        ON_FILES(events_can_be_neither_changed_nor_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
