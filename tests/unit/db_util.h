/*
 * What the tests of the journal's database share: one on real files, things made up by dice, and a
 * workload whose every state is known. After cmocka.h's own headers.
 */
#ifndef TESTS_DB_UTIL_H
#define TESTS_DB_UTIL_H

#include "base/env.h"
#include "journal/db.h"
#include "journal/db_internal.h"
#include "journal/vfs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct id128 node = {{1}}, store = {{2}};

/* A database on real files. */
struct place_on_disk {
    char dir[64], path[96], copy[96], vfs[32];
    struct db *db;
    struct db_reader *reader;
};

static inline int setup(void **state)
{
    struct place_on_disk *at = calloc(1, sizeof *at);

    if (!at)
        return -1;
    snprintf(at->dir, sizeof at->dir, "/tmp/db-test-XXXXXX");
    if (!mkdtemp(at->dir)) {
        free(at);
        return -1;
    }
    snprintf(at->path, sizeof at->path, "%s/journal.db", at->dir);
    snprintf(at->copy, sizeof at->copy, "%s/copy.db", at->dir);
    *state = at;
    return vfs_register(env_system(), at->vfs) ||
           db_open(&at->db, at->vfs, at->path, &node, &store) ||
           db_reader_open(&at->reader, at->vfs, at->path);
}

static inline int teardown(void **state)
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

static inline uint64_t roll(void)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    return dice * UINT64_C(0x2545F4914F6CDD1D);
}

static inline void fill(void *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)at)[i] = (uint8_t)(roll() >> 32);
}

/* A live object with SIZE bytes in segment VOLUME. */
static inline struct object *plain_object(const struct id128 *id, uint64_t size, uint32_t volume)
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
static inline struct id128 crowded_id(unsigned group, unsigned member)
{
    struct id128 id = {{0}};

    id.bytes[0] = group >= 1000 ? 0xff : 1;
    id.bytes[4] = (uint8_t)(group >> 8);
    id.bytes[5] = (uint8_t)group;
    id.bytes[9] = (uint8_t)member;
    id.bytes[15] = (uint8_t)member;
    return id;
}

static inline int64_t sql_number(struct place_on_disk *at, const char *sql)
{
    int64_t value;

    assert_int_equal(conn_number(&at->reader->conn, sql, &value), 0);
    return value;
}

/* ---- A workload whose every state is known ---- */

#define STEPS            9
#define EVENTS_PER_STEP  5
#define OBJECTS_PER_STEP 12

struct model {
    struct db_state states[STEPS + 1];
};

static inline struct id128 model_id(unsigned i)
{
    /* Every third one competes with its neighbour for a key. */
    return crowded_id(i / 3 * 2 + (i % 3 == 2), i % 3);
}

static inline void add_object(struct db_state *state, const struct object *object, bool add)
{
    struct hash128 digest = object_digest(object);
    uint64_t sign = add ? 1 : UINT64_MAX;

    state->digest.low += sign * digest.low;
    state->digest.high += sign * digest.high;
    state->objects += sign;
    state->bytes += sign * object->size;
}

/* Transaction STEP (from 1): fills in the state after it. Deterministic. */
static inline int run_step(struct db *db, struct model *model, unsigned step)
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
        next->event_bytes += len;
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

static inline bool states_equal(const struct db_state *a, const struct db_state *b)
{
    return a->position == b->position && a->events == b->events && a->objects == b->objects &&
           a->bytes == b->bytes && a->wanted == b->wanted && a->wanted_bytes == b->wanted_bytes &&
           a->digest.low == b->digest.low && a->digest.high == b->digest.high &&
           id_equal(&a->node, &b->node);
}

#endif
