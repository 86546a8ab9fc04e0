/* Goal: what the journal's database is told comes back unchanged, its events cannot be changed, and
 * whatever the disk does, after a restart it is one of the states it was committed in, never older
 * than the last complete checkpoint. */
#include "journal/db.h"
#include "journal/db_internal.h"
#include "journal/vfs.h"
#include "tests/unit/db_disk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct id128 node = {{1}}, store = {{2}};

/* A database on real files. */
struct place_on_disk {
    char dir[64], path[96], copy[96], vfs[32];
    struct db *db;
    struct db_reader *reader;
};

static int setup(void **state)
{
    struct place_on_disk *at = calloc(1, sizeof *at);

    if (!at)
        return -1;
    snprintf(at->dir, sizeof at->dir, "/tmp/db-test-XXXXXX");
    if (!mkdtemp(at->dir))
        return -1;
    snprintf(at->path, sizeof at->path, "%s/journal.db", at->dir);
    snprintf(at->copy, sizeof at->copy, "%s/copy.db", at->dir);
    *state = at;
    return vfs_register(env_system(), at->vfs) ||
           db_open(&at->db, at->vfs, at->path, &node, &store) ||
           db_reader_open(&at->reader, at->vfs, at->path);
}

static int teardown(void **state)
{
    struct place_on_disk *at = *state;
    char command[128];

    db_reader_close(&at->reader);
    db_close(&at->db);
    vfs_unregister(at->vfs);
    snprintf(command, sizeof command, "rm -rf %s", at->dir);
    int rc = system(command);
    free(at);
    return rc;
}

/* ---- Making things up ---- */

static uint64_t dice = 1;

static uint64_t roll(void)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    return dice * UINT64_C(0x2545F4914F6CDD1D);
}

static void fill(void *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)at)[i] = (uint8_t)(roll() >> 32);
}

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
    static char texts[3][16384];
    struct object o = {.id = *id};
    struct text text[3];
    const uint32_t limits[3] = {LIMIT_NAME_BYTES, LIMIT_CONTENT_TYPE_BYTES, LIMIT_USER_META_BYTES};

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
    for (int i = 0; i < 3; i++) {
        text[i] = (struct text){texts[i], (uint32_t)number(limits[i])};
        fill(texts[i], text[i].len);
    }
    struct object *object = object_create(&o, text[0], text[1], text[2]);
    assert_non_null(object);
    return object;
}

/* A live object with SIZE bytes in segment VOLUME. */
static struct object *plain_object(const struct id128 *id, uint64_t size, uint32_t volume)
{
    struct object o = {.id = *id, .flags = OBJECT_PUT, .size = size};

    o.put_at = (struct reg){.stamp = 1 + roll() % 1000000, .origin = {{3}}};
    o.name_at = o.user_meta_at = o.expires_at = o.put_at;
    fill(o.sha256, sizeof o.sha256);
    o.place = (struct place){.volume = volume, .offset = roll() % 100000, .lsn = roll() % 100000};
    o.record_bytes = 100;
    struct object *object = object_create(&o, (struct text){"name", 4}, (struct text){"a/b", 3},
                                          (struct text){"{}", 2});
    assert_non_null(object);
    return object;
}

/* An id of GROUP, one of 3 with the same 63 leading bits, so that they compete for one key; groups
 * in order. From group 1000 on: times that no clock shows. */
static struct id128 crowded_id(unsigned group, unsigned member)
{
    struct id128 id = {{0}};

    id.bytes[0] = group >= 1000 ? 0xff : 1;
    id.bytes[4] = (uint8_t)(group >> 8);
    id.bytes[5] = (uint8_t)group;
    id.bytes[9] = (uint8_t)member;
    id.bytes[15] = (uint8_t)member;
    return id;
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
    assert_true(a->deleted_at == b->deleted_at);
    assert_true(place_equal(&a->place, &b->place) && a->place.lsn == b->place.lsn);
    assert_int_equal(a->record_bytes, b->record_bytes);
    assert_int_equal(a->name_len, b->name_len);
    assert_int_equal(a->type_len, b->type_len);
    assert_int_equal(a->user_meta_len, b->user_meta_len);
    assert_memory_equal(a->text, b->text, (size_t)a->name_len + a->type_len + a->user_meta_len);
}

static void expect_found(struct place_on_disk *at, const struct object *object)
{
    struct object *found;

    assert_int_equal(db_find(at->reader, &object->id, &found), 0);
    expect_equal(object, found);
    object_destroy(&found);
}

static int64_t sql_number(struct place_on_disk *at, const char *sql)
{
    int64_t value;

    assert_int_equal(conn_number(&at->reader->conn, sql, &value), 0);
    return value;
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
    assert_int_equal(sql_number(at, "PRAGMA user_version"), 1);
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

static void small_tables_hold_what_they_are_told(void **state)
{
    struct place_on_disk *at = *state;
    struct db_origin a = {.origin = {{5}}, .node = {{6}}, .seq = 7, .anchor_seq = 3}, b = a;
    struct db_segment one = {.log = {.volume = 9, .disk = 1, .base = 4096, .end_bytes = 77}};
    struct db_segment two = {
        .log = {.volume = 3, .sealed = true}, .body_bytes = 8, .live_bytes = 5};
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
                           .last_origin = {{7}}},
                    got;
    struct db_origin *origins;
    struct db_segment *segments;
    struct id128 id = {{4}};
    uint64_t sum = 0;
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
    assert_int_equal(db_state_set(at->db, &set), 0);
    for (uint64_t lsn = 1; lsn <= 100; lsn++)
        assert_int_equal(db_garbage_add(at->db, 2 * lsn, lsn), 0);
    assert_int_equal(db_garbage_add(at->db, 2, 1), 0);
    assert_int_equal(db_garbage_remove(at->db, 90), 0);
    assert_int_equal(db_outbox_set(at->db, &id, 5, 6, true), 0);
    assert_int_equal(db_outbox_set(at->db, &id, 55, 66, true), 0);
    assert_int_equal(db_outbox_set(at->db, &a.origin, 1, 1, true), 0);
    assert_int_equal(db_outbox_set(at->db, &a.origin, 1, 1, false), 0);
    assert_int_equal(db_commit(at->db), 0);

    assert_int_equal(db_reader_origins(at->reader, &origins, &count), 0);
    assert_int_equal(count, 2);
    assert_true(origins[0].no == a.no && origins[0].seq == 8 && origins[0].ended);
    assert_true(id_equal(&origins[0].origin, &a.origin) && origins[0].anchor_seq == 3);
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

    assert_int_equal(db_reader_state(at->reader, &got), 0);
    assert_true(got.position == set.position && got.clean_generation == 4 && got.hlc == 12);
    assert_true(got.bytes == UINT64_MAX && got.outbox == 5 && got.outbox_bytes == 6);
    assert_true(got.events == 1 && got.objects == 2 && got.deleted == 3);
    assert_true(got.digest.low == UINT64_MAX && got.digest.high == 1);
    assert_true(id_equal(&got.last_origin, &set.last_origin));

    assert_int_equal(db_each_garbage(at->reader, 92, 99, 4, see_garbage, &sum), 0);
    assert_int_equal(sum, 2 * (93 + 94 + 95 + 96));
    assert_int_equal(db_each_garbage(at->reader, 0, UINT64_MAX, 100, see_garbage, &sum), 79);
    assert_int_equal(sql_number(at, "SELECT count(*) FROM outbox"), 1);
    assert_int_equal(sql_number(at, "SELECT sum(size * 1000 + since_ms) FROM outbox"), 55066);

    assert_int_equal(db_begin(at->db), 0);
    assert_int_equal(db_segment_remove(at->db, 3), 0);
    assert_int_equal(db_commit(at->db), 0);
    assert_int_equal(db_segments(at->db, &segments, &count), 0);
    assert_int_equal(count, 1);
    free(segments);
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

/* ---- A workload whose every state is known ---- */

#define STEPS            9
#define EVENTS_PER_STEP  5
#define OBJECTS_PER_STEP 12

struct model {
    struct db_state states[STEPS + 1];
};

static struct id128 model_id(unsigned i)
{
    /* Every third one competes with its neighbour for a key. */
    return crowded_id(i / 3 * 2 + (i % 3 == 2), i % 3);
}

static void add_object(struct db_state *state, const struct object *object, bool add)
{
    struct hash128 digest = object_digest(object);
    uint64_t sign = add ? 1 : UINT64_MAX;

    state->digest.low += sign * digest.low;
    state->digest.high += sign * digest.high;
    state->objects += sign;
    state->bytes += sign * object->size;
}

/* Transaction STEP (from 1): fills in the state after it. Deterministic. */
static int run_step(struct db *db, struct model *model, unsigned step)
{
    struct db_state *next = &model->states[step];
    static uint8_t raw[20 * 1024];
    struct db_origin origin = {.no = step == 1 ? 0 : 1, .origin = {{3}}, .node = node};

    dice = step;
    *next = model->states[step - 1];
    next->position = step;
    /* A small page cache, so that pages go to the WAL before the commit, too. */
    int rc = conn_exec(&db->conn, "PRAGMA cache_size = 10");
    if (!rc)
        rc = db_begin(db);
    for (unsigned i = 0; i < EVENTS_PER_STEP && !rc; i++) {
        size_t len = step == 6 ? sizeof raw : 10 + step * i;

        fill(raw, 64);
        rc = db_event_add(db, 1, ++next->events, raw, len);
    }
    for (unsigned i = 0; i < OBJECTS_PER_STEP && !rc; i++) {
        struct id128 id = model_id((step * 7 + i) % 50);
        struct object *object = plain_object(&id, step * i, 1), *before;

        rc = db_find_writing(db, &id, &before);
        if (!rc)
            add_object(next, before, false);
        object_destroy(&before);
        if (rc == ERR_NOT_FOUND)
            rc = ERR_NONE;
        if (!rc)
            rc = db_object_set(db, object);
        add_object(next, object, true);
        object_destroy(&object);
    }
    origin.seq = next->events;
    if (!rc)
        rc = db_origin_set(db, &origin);
    if (!rc)
        rc = db_state_set(db, next);
    if (!rc)
        rc = db_commit(db);
    if (rc)
        db_rollback(db);
    return rc;
}

static bool states_equal(const struct db_state *a, const struct db_state *b)
{
    return a->position == b->position && a->events == b->events && a->objects == b->objects &&
           a->bytes == b->bytes && a->digest.low == b->digest.low &&
           a->digest.high == b->digest.high && id_equal(&a->node, &b->node);
}

/* The database is in a state of the model and whole; which one. */
static unsigned expect_a_state(struct db *db, const char *vfs, const struct model *model)
{
    struct db_state got;
    struct db_reader *reader;
    char report[1024];

    assert_int_equal(db_state_get(db, &got), 0);
    assert_in_range(got.position, 0, STEPS);
    assert_true(states_equal(&got, &model->states[got.position]));
    assert_int_equal(db_reader_open(&reader, vfs, "/d/journal.db"), 0);
    int rc = db_check(reader, report, sizeof report);
    if (rc)
        fail_msg("%d: %s", rc, report);
    db_reader_close(&reader);
    return (unsigned)got.position;
}

/* All states, by a run in which nothing fails. Returns how many calls on the disk it makes. */
static long rehearse(struct model *model)
{
    struct disk *disk = malloc(sizeof *disk);
    char vfs[32];
    struct db *db;
    bool complete;

    *model = (struct model){.states[0] = {.node = node, .store = store}};
    disk_init(disk, 1);
    assert_int_equal(vfs_register(&disk->env, vfs), 0);
    assert_int_equal(db_open(&db, vfs, "/d/journal.db", &node, &store), 0);
    for (unsigned step = 1; step <= STEPS; step++) {
        assert_int_equal(run_step(db, model, step), 0);
        if (step % 3 == 0)
            assert_int_equal(db_checkpoint(db, &complete), 0);
    }
    assert_int_equal(expect_a_state(db, vfs, model), STEPS);
    db_close(&db);
    long calls = disk->calls;
    vfs_unregister(vfs);
    disk_release(disk);
    free(disk);
    return calls;
}

/* The workload from where the database is until the disk dies. *SAFE: the state a complete
 * checkpoint has made durable; *REACHED: the last one whose commit was begun. */
static void run_until_death(struct disk *disk, struct model *model, unsigned *safe,
                            unsigned *reached)
{
    char vfs[32];
    struct db *db;
    struct db_state at;
    bool complete;

    assert_int_equal(vfs_register(&disk->env, vfs), 0);
    if (db_open(&db, vfs, "/d/journal.db", &node, &store) == 0) {
        int rc = db_state_get(db, &at);

        for (unsigned step = (unsigned)at.position + 1; step <= STEPS && !rc; step++) {
            *reached = step;
            rc = run_step(db, model, step);
            if (!rc && step % 3 == 0) {
                rc = db_checkpoint(db, &complete);
                if (!rc && complete)
                    *safe = step;
            }
        }
    }
    db_close(&db);
    vfs_unregister(vfs);
}

static void die_at_every_call(bool power_lost, unsigned seeds)
{
    struct model model;
    long calls = rehearse(&model);

    assert_in_range(calls, 50, 5000);
    for (unsigned seed = 1; seed <= seeds; seed++)
        for (long k = 1; k <= calls; k++) {
            struct disk *disk = malloc(sizeof *disk);
            unsigned safe = 0, reached = 0;
            struct db *db;
            char vfs[32];

            disk_init(disk, seed * 100000 + (unsigned)k);
            disk->fail_at = k;
            disk->die = true;
            run_until_death(disk, &model, &safe, &reached);
            assert_true(disk->dead);
            disk_restart(disk, power_lost);

            assert_int_equal(vfs_register(&disk->env, vfs), 0);
            assert_int_equal(db_open(&db, vfs, "/d/journal.db", &node, &store), 0);
            unsigned at = expect_a_state(db, vfs, &model);
            if (at < safe || at > reached)
                fail_msg("seed %u, call %ld: state %u, not in %u to %u", seed, k, at, safe,
                         reached);
            /* A killed process loses nothing that it committed. */
            if (!power_lost && at + 1 < reached)
                fail_msg("call %ld: state %u of %u", k, at, reached);
            db_close(&db);
            vfs_unregister(vfs);

            /* Life goes on, through another loss at the end. */
            run_until_death(disk, &model, &safe, &reached);
            disk_restart(disk, power_lost);
            assert_int_equal(vfs_register(&disk->env, vfs), 0);
            assert_int_equal(db_open(&db, vfs, "/d/journal.db", &node, &store), 0);
            assert_int_equal(expect_a_state(db, vfs, &model), STEPS);
            db_close(&db);
            vfs_unregister(vfs);
            disk_release(disk);
            free(disk);
        }
}

static void a_killed_process_loses_no_commit(void **state)
{
    (void)state;
    die_at_every_call(false, 1);
}

static void a_power_loss_leaves_a_committed_state_not_older_than_the_checkpoint(void **state)
{
    (void)state;
    die_at_every_call(true, 2);
}

/* STEP, tried again where it fails: by the same process, and where the disk failed a sync, which is
 * not tried again, by the next one. */
static void insist(struct db **db, const char *vfs, struct disk *disk, struct model *model,
                   unsigned step)
{
    for (int attempt = 0; attempt < 3; attempt++) {
        struct db_state now;
        int rc = run_step(*db, model, step);

        if (rc == 0)
            return;
        if (!disk->failed_sync || rc != ERR_IO)
            assert_int_equal(rc, disk->fail_rc);
        assert_int_equal(db_state_get(*db, &now), 0);
        assert_true(states_equal(&now, &model->states[step - 1]));
        if (attempt == 0)
            continue;
        assert_true(disk->failed_sync);
        db_close(db);
        assert_int_equal(db_open(db, vfs, "/d/journal.db", &node, &store), 0);
    }
    fail_msg("step %u does not succeed", step);
}

/* One call fails and the process goes on: what failed is rolled back and done again. */
static void a_single_failed_call_costs_one_transaction_at_most(void **state)
{
    struct model model;
    long calls = rehearse(&model);

    (void)state;
    for (int kind = 0; kind < 2; kind++)
        for (long k = 1; k <= calls; k++) {
            struct disk *disk = malloc(sizeof *disk);
            struct db *db;
            char vfs[32];
            bool complete;

            disk_init(disk, (uint64_t)k);
            disk->fail_at = k;
            disk->fail_rc = kind ? ERR_NO_SPACE : ERR_IO;
            assert_int_equal(vfs_register(&disk->env, vfs), 0);
            int rc = db_open(&db, vfs, "/d/journal.db", &node, &store);
            if (rc) {
                /* SQLite does not say why it could not switch to WAL. */
                assert_true(rc == disk->fail_rc || rc == ERR_IO);
                assert_int_equal(db_open(&db, vfs, "/d/journal.db", &node, &store), 0);
            }
            for (unsigned step = 1; step <= STEPS; step++) {
                insist(&db, vfs, disk, &model, step);
                if (step % 3 == 0 && db_checkpoint(db, &complete) == 0)
                    assert_true(complete);
            }
            assert_int_equal(expect_a_state(db, vfs, &model), STEPS);
            db_close(&db);
            assert_int_equal(db_open(&db, vfs, "/d/journal.db", &node, &store), 0);
            assert_int_equal(expect_a_state(db, vfs, &model), STEPS);
            db_close(&db);
            vfs_unregister(vfs);
            disk_release(disk);
            free(disk);
        }
}

/* ---- Checkpoints ---- */

struct order {
    char text[256];
};

static void write_down(struct disk *disk, const char *call, const char *path)
{
    struct order *order = disk->arg;
    const char *word = strcmp(call, "sync_dir") == 0 ? "d"
                       : strstr(path, "-wal")        ? call[0] == 's' ? "W" : "w"
                       : strstr(path, "-journal")    ? call[0] == 's' ? "J" : "j"
                       : call[0] == 's'              ? "S"
                                                     : "p";
    size_t len = strlen(order->text);

    /* Runs count once. */
    if (len + 1 < sizeof order->text && (len == 0 || order->text[len - 1] != *word))
        memcpy(order->text + len, word, 2);
}

static void a_checkpoint_syncs_the_wal_before_it_copies_and_the_database_after(void **state)
{
    struct disk *disk = malloc(sizeof *disk);
    struct model model = {.states[0] = {.node = node, .store = store}};
    struct order order = {""};
    char vfs[32];
    struct db *db;
    bool complete;

    (void)state;
    disk_init(disk, 1);
    assert_int_equal(vfs_register(&disk->env, vfs), 0);
    assert_int_equal(db_open(&db, vfs, "/d/journal.db", &node, &store), 0);
    disk->watch = write_down;
    disk->arg = &order;
    assert_int_equal(run_step(db, &model, 1), 0);
    /* The WAL starts again here, which syncs its new header; a commit itself syncs nothing. */
    assert_string_equal(order.text, "wWw");
    order.text[0] = 0;
    assert_int_equal(run_step(db, &model, 2), 0);
    assert_string_equal(order.text, "w");
    assert_int_not_equal(db_wal_pages(db), 0);
    order.text[0] = 0;
    assert_int_equal(db_checkpoint(db, &complete), 0);
    assert_true(complete);
    assert_string_equal(order.text, "WpS");
    assert_int_equal(db_wal_pages(db), 0);
    /* Nothing new: nothing to do, and still complete. */
    order.text[0] = 0;
    assert_int_equal(db_checkpoint(db, &complete), 0);
    assert_true(complete);
    assert_string_equal(order.text, "");
    db_close(&db);
    vfs_unregister(vfs);
    disk_release(disk);
    free(disk);
}

struct hold {
    struct place_on_disk *at;
    struct model *model;
    bool complete;
};

/* Called inside a reader's transaction. */
static int commit_and_checkpoint(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    struct hold *hold = arg;

    (void)seq, (void)raw, (void)len;
    assert_int_equal(run_step(hold->at->db, hold->model, 2), 0);
    assert_int_equal(db_checkpoint(hold->at->db, &hold->complete), 0);
    return 80;
}

static void a_reader_that_holds_a_snapshot_makes_a_checkpoint_incomplete(void **state)
{
    struct place_on_disk *at = *state;
    struct model model = {.states[0] = {.node = node, .store = store}};
    struct hold hold = {.at = at, .model = &model, .complete = true};

    assert_int_equal(run_step(at->db, &model, 1), 0);
    assert_int_equal(db_each_event(at->reader, 1, 1, commit_and_checkpoint, &hold), 80);
    assert_false(hold.complete);
    assert_int_not_equal(db_wal_pages(at->db), 0);
    assert_int_equal(db_checkpoint(at->db, &hold.complete), 0);
    assert_true(hold.complete);
}

/* ---- Threads ---- */

struct watcher {
    struct place_on_disk *at;
    const struct model *model;
    atomic_bool *done;
    atomic_uint seen;
    unsigned wrong;
};

/* Commits are seen whole: counters, digest and rows belong together in every snapshot. */
static void *watch_commits(void *arg)
{
    struct watcher *watcher = arg;
    struct db_reader *reader;
    struct db_state now;
    struct object *object;

    if (db_reader_open(&reader, watcher->at->vfs, watcher->at->path)) {
        watcher->wrong++;
        return NULL;
    }
    while (!atomic_load(watcher->done)) {
        unsigned seen = atomic_fetch_add(&watcher->seen, 1);
        struct id128 id = model_id(7 + seen % OBJECTS_PER_STEP);
        char report[512];
        int rc = db_find(reader, &id, &object);

        if (rc != 0 && rc != ERR_NOT_FOUND)
            watcher->wrong++;
        object_destroy(&object);
        if (db_reader_state(reader, &now) || now.events != EVENTS_PER_STEP * now.position)
            watcher->wrong++;
        if (seen % 8 == 0 && db_check(reader, report, sizeof report))
            watcher->wrong++;
    }
    db_reader_close(&reader);
    return NULL;
}

static void readers_see_whole_commits_while_the_writer_writes(void **state)
{
    enum { READERS = 3 };
    struct place_on_disk *at = *state;
    struct model model = {.states[0] = {.node = node, .store = store}};
    struct watcher watchers[READERS];
    pthread_t threads[READERS];
    atomic_bool done = false;
    bool complete;

    for (int i = 0; i < READERS; i++) {
        watchers[i] = (struct watcher){.at = at, .model = &model, .done = &done};
        assert_int_equal(pthread_create(&threads[i], NULL, watch_commits, &watchers[i]), 0);
    }
    for (unsigned step = 1; step <= STEPS; step++) {
        assert_int_equal(run_step(at->db, &model, step), 0);
        assert_int_equal(db_checkpoint(at->db, &complete), 0);
    }
    for (unsigned i = 0, least = 0; i < 100000 && least < 300; i++) {
        struct db_state same = model.states[STEPS];

        assert_int_equal(db_begin(at->db), 0);
        same.hlc = (hlc_time)i;
        assert_int_equal(db_state_set(at->db, &same), 0);
        assert_int_equal(db_commit(at->db), 0);
        if (i % 50 == 0)
            assert_int_equal(db_checkpoint(at->db, &complete), 0);
        least = UINT32_MAX;
        for (int k = 0; k < READERS; k++)
            if (atomic_load(&watchers[k].seen) < least)
                least = atomic_load(&watchers[k].seen);
    }
    atomic_store(&done, true);
    for (int i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
        assert_in_range(watchers[i].seen, 300, UINT32_MAX);
        assert_int_equal(watchers[i].wrong, 0);
    }
}

/* ---- Copies, damage, other people's files ---- */

static void a_backup_is_a_database_as_of_now(void **state)
{
    struct place_on_disk *at = *state;
    struct model model = {.states[0] = {.node = node, .store = store}};
    struct db_state got;
    struct db_reader *reader;
    struct db *copy;
    char report[512];

    assert_int_equal(run_step(at->db, &model, 1), 0);
    assert_int_equal(run_step(at->db, &model, 2), 0);
    assert_int_equal(db_backup(at->reader, at->copy), 0);
    assert_int_equal(run_step(at->db, &model, 3), 0);

    assert_int_equal(db_backup(at->reader, at->copy), ERR_EXISTS);
    assert_int_equal(db_open(&copy, at->vfs, at->copy, &store, &node), 0);
    assert_int_equal(db_state_get(copy, &got), 0);
    assert_true(states_equal(&got, &model.states[2]));
    assert_int_equal(db_reader_open(&reader, at->vfs, at->copy), 0);
    assert_int_equal(db_check(reader, report, sizeof report), 0);
    assert_int_equal(run_step(copy, &model, 3), 0);
    assert_int_equal(db_check(reader, report, sizeof report), 0);
    db_reader_close(&reader);
    db_close(&copy);
    /* Nothing is left of a backup that fails. */
    assert_int_not_equal(db_backup(at->reader, "/nowhere/at/all.db"), 0);
}

static void the_check_names_what_does_not_add_up(void **state)
{
    static const struct {
        const char *sql, *finding;
    } cases[] = {
        {"UPDATE state SET events = events + 1", "events"},
        {"UPDATE state SET objects = objects - 1", "objects"},
        {"UPDATE state SET deleted = 1", "deleted"},
        {"UPDATE state SET bytes = 0", "bytes"},
        {"UPDATE state SET outbox = 1", "outbox"},
        {"UPDATE state SET outbox_bytes = 1", "outbox bytes"},
        {"UPDATE state SET digest_low = digest_low + 1", "digest, low"},
        {"UPDATE state SET digest_high = digest_high + 1", "digest, high"},
        {"UPDATE objects SET name = 'other' WHERE key = (SELECT max(key) FROM objects)", "digest"},
        {"DELETE FROM objects WHERE key = (SELECT max(key) FROM objects)", "objects"},
        {"UPDATE objects SET key = key + 1 WHERE key = (SELECT max(key) FROM objects)", "lead"},
        {"UPDATE objects SET id = x'00'", "cannot be read"},
        {"UPDATE origins SET seq = seq + 1", "last event of origin 1"},
        {"UPDATE origins SET seq = -1", "a seq that no event has"},
        {"INSERT INTO outbox VALUES(1, x'00', 1, 1)", "outbox"},
        {"INSERT INTO segments VALUES(1, 0, 0, 0, 0, 0, 0)", "live bytes of segment 00000001"},
    };
    struct place_on_disk *at = *state;
    struct model model = {.states[0] = {.node = node, .store = store}};
    char report[1024], tiny[8];

    assert_int_equal(run_step(at->db, &model, 1), 0);
    assert_int_equal(db_check(at->reader, report, sizeof report), 0);
    assert_string_equal(report, "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(db_begin(at->db), 0);
        assert_int_equal(conn_exec(&at->db->conn, cases[i].sql), 0);
        /* On the writing connection, which sees its own transaction. */
        assert_int_equal(db_commit(at->db), 0);
        assert_int_equal(db_check(at->reader, report, sizeof report), ERR_CORRUPT);
        if (!strstr(report, cases[i].finding))
            fail_msg("%s: %s", cases[i].sql, report);
        assert_int_equal(db_check(at->reader, tiny, sizeof tiny), ERR_CORRUPT);
        /* Undo by starting again. */
        db_reader_close(&at->reader);
        db_close(&at->db);
        assert_int_equal(unlink(at->path), 0);
        assert_int_equal(db_open(&at->db, at->vfs, at->path, &node, &store), 0);
        assert_int_equal(db_reader_open(&at->reader, at->vfs, at->path), 0);
        assert_int_equal(run_step(at->db, &model, 1), 0);
    }
}

static void write_file(const char *path, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    assert_int_equal(close(fd), 0);
}

static int try_open(struct place_on_disk *at, const char *path)
{
    struct db *db;
    int rc = db_open(&db, at->vfs, path, &node, &store);

    db_close(&db);
    return rc;
}

static void foreign_and_newer_databases_are_refused_untouched(void **state)
{
    static const struct {
        const char *sql;
        int rc;
    } cases[] = {
        {"PRAGMA application_id = 5; CREATE TABLE t(a)", ERR_FORMAT},
        {"CREATE TABLE t(a)", ERR_FORMAT},
        {"PRAGMA user_version = 1", ERR_FORMAT},
        {"PRAGMA application_id = 1329744467; PRAGMA user_version = 2", ERR_FORMAT},
        {"PRAGMA application_id = 1329744467; CREATE TABLE t(a)", ERR_CORRUPT},
        {"PRAGMA application_id = 1329744467; PRAGMA user_version = 1", ERR_CORRUPT},
    };
    struct place_on_disk *at = *state;
    struct db_reader *reader;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct conn conn;
        int64_t mode;

        (void)unlink(at->copy);
        assert_int_equal(
            conn_open(&conn, at->vfs, at->copy, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE), 0);
        assert_int_equal(conn_exec(&conn, cases[i].sql), 0);
        conn_close(&conn);
        assert_int_equal(try_open(at, at->copy), cases[i].rc);
        assert_int_not_equal(db_reader_open(&reader, at->vfs, at->copy), 0);
        if (cases[i].rc != ERR_FORMAT)
            continue;
        assert_int_equal(conn_open(&conn, at->vfs, at->copy, SQLITE_OPEN_READWRITE), 0);
        assert_int_equal(
            conn_number(&conn, "SELECT journal_mode = 'delete' FROM pragma_journal_mode", &mode),
            0);
        assert_int_equal(mode, 1);
        conn_close(&conn);
    }
    (void)unlink(at->copy);
    assert_int_equal(db_reader_open(&reader, at->vfs, at->copy), ERR_NOT_FOUND);
    write_file(at->copy, "", 0);
    assert_int_equal(db_reader_open(&reader, at->vfs, at->copy), ERR_FORMAT);
    assert_int_equal(try_open(at, "/nowhere/at/all.db"), ERR_NOT_FOUND);
}

static int ignore_event(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    (void)arg, (void)seq, (void)raw, (void)len;
    return 0;
}

static int ignore_object(void *arg, const struct object *object)
{
    (void)arg, (void)object;
    return 0;
}

/* Everything one can do to a database that may be damaged; results do not matter, surviving does.
 */
static void exercise(struct place_on_disk *at, const char *path)
{
    struct model model = {.states[0] = {.node = node, .store = store}};
    struct db_reader *reader;
    struct db *db;
    struct id128 last;
    unsigned count;
    char report[512];
    bool complete;

    if (db_reader_open(&reader, at->vfs, path) == 0) {
        for (unsigned i = 0; i < 20; i++) {
            struct id128 id = model_id(7 + i);
            struct object *object;

            (void)!db_find(reader, &id, &object);
            object_destroy(&object);
        }
        (void)!db_each_event(reader, 1, 1, ignore_event, NULL);
        (void)!db_each_object(reader, NULL, 1000, ignore_object, NULL, &last, &count);
        (void)!db_check(reader, report, sizeof report);
        db_reader_close(&reader);
    }
    if (db_open(&db, at->vfs, path, &node, &store) == 0) {
        (void)!run_step(db, &model, 1);
        (void)!run_step(db, &model, 4);
        (void)!db_checkpoint(db, &complete);
        db_close(&db);
    }
}

static void a_damaged_file_is_reported_and_never_crashes(void **state)
{
    enum { ROUNDS = 150 };
    struct place_on_disk *at = *state;
    struct model model = {.states[0] = {.node = node, .store = store}};
    char *good, *bad, wal[128];
    size_t len;

    for (unsigned step = 1; step <= 5; step++)
        assert_int_equal(run_step(at->db, &model, step), 0);
    assert_int_equal(db_backup(at->reader, at->copy), 0);
    assert_int_equal(io_read_all(io_system(), at->copy, 64 * MIB, &good, &len), 0);
    bad = malloc(len);
    assert_non_null(bad);
    snprintf(wal, sizeof wal, "%s-wal", at->copy);

    memset(bad, 'x', len);
    write_file(at->copy, bad, len);
    assert_int_equal(try_open(at, at->copy), ERR_CORRUPT);
    write_file(at->copy, bad, 10);
    assert_int_equal(try_open(at, at->copy), ERR_CORRUPT);
    write_file(at->copy, good, 4096); /* its first page alone */
    assert_int_equal(try_open(at, at->copy), ERR_CORRUPT);
    memcpy(bad, good, len);
    memset(bad + 100, 0, 4096 - 100); /* the list of tables */
    write_file(at->copy, bad, len);
    assert_int_equal(try_open(at, at->copy), ERR_CORRUPT);

    for (unsigned round = 1; round <= ROUNDS; round++) {
        (void)unlink(wal);
        memcpy(bad, good, len);
        dice = round;
        for (unsigned i = 0; i < 1 + round % 20; i++) {
            uint64_t where = round % 3 == 0 ? roll() % 8192 : roll() % len;

            bad[where] = (char)(roll() >> 40);
        }
        write_file(at->copy, bad, round % 10 == 9 ? roll() % len : len);
        exercise(at, at->copy);
    }
    free(good);
    free(bad);
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
        ON_FILES(small_tables_hold_what_they_are_told),
        ON_FILES(a_rollback_leaves_no_trace),
        ON_FILES(events_can_be_neither_changed_nor_removed),
        cmocka_unit_test(a_killed_process_loses_no_commit),
        cmocka_unit_test(a_power_loss_leaves_a_committed_state_not_older_than_the_checkpoint),
        cmocka_unit_test(a_single_failed_call_costs_one_transaction_at_most),
        cmocka_unit_test(a_checkpoint_syncs_the_wal_before_it_copies_and_the_database_after),
        ON_FILES(a_reader_that_holds_a_snapshot_makes_a_checkpoint_incomplete),
        ON_FILES(readers_see_whole_commits_while_the_writer_writes),
        ON_FILES(a_backup_is_a_database_as_of_now),
        ON_FILES(the_check_names_what_does_not_add_up),
        ON_FILES(foreign_and_newer_databases_are_refused_untouched),
        ON_FILES(a_damaged_file_is_reported_and_never_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
