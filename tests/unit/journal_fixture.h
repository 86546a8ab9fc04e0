/*
 * What the tests of the journal share: a node without doors on real files in a temporary directory,
 * over a struct io that can fail and a clock that tests can move forward. Header-only.
 */
#ifndef TESTS_JOURNAL_FIXTURE_H
#define TESTS_JOURNAL_FIXTURE_H

#include "journal/journal.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"
#include "tests/unit/fault_io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT (256 * KIB)

struct node {
    char root[64], state[96], files[96], message[512];
    struct fault_io fault;
    struct env env;
    uint64_t later_ms; /* how far its clock is ahead of the system's */
    bool async;
    uint64_t scrub_interval_ms;
    struct store_dirs dirs;
    struct ram *ram;
    struct journal *journal;
    bool threads;
};

static inline int node_try(struct node *node, bool accept_loss)
{
    struct journal_config config = {.dirs = &node->dirs,
                                    .sync = !node->async,
                                    .segment_bytes = SEGMENT,
                                    .scrub_interval_ms = node->scrub_interval_ms};
    int rc = store_dirs_open(&node->dirs, &node->env, node->state, node->files, accept_loss,
                             node->message, sizeof node->message);

    if (rc)
        return rc;
    assert_int_equal(ram_create(&node->ram, 8 * MIB), 0);
    config.ram = node->ram;
    rc = journal_open(&node->journal, &config, node->message, sizeof node->message);
    if (rc) {
        ram_destroy(&node->ram);
        store_dirs_close(&node->dirs);
    }
    return rc;
}

static inline void node_open(struct node *node, bool threads)
{
    if (node_try(node, false) != 0)
        fail_msg("%s", node->message);
    node->threads = threads;
    if (threads)
        assert_int_equal(journal_start(node->journal), 0);
}

/* CLEAN: an orderly stop; else as a kill: nothing more is applied or marked. */
static inline void node_close(struct node *node, bool clean)
{
    if (clean || node->threads)
        journal_stop(node->journal);
    journal_close(&node->journal);
    ram_destroy(&node->ram);
    store_dirs_close(&node->dirs);
}

static inline uint64_t node_mono_ns(struct env *env)
{
    return env_system()->mono_ns(env_system()) + ((struct node *)env->arg)->later_ms * 1000000;
}

static inline int setup(void **state)
{
    struct node *node = calloc(1, sizeof *node);

    fault_io_init(&node->fault);
    node->env = *env_system();
    node->env.io = &node->fault.io;
    node->env.mono_ns = node_mono_ns;
    node->env.arg = node;
    strcpy(node->root, "/tmp/journal-test-XXXXXX");
    assert_non_null(mkdtemp(node->root));
    snprintf(node->state, sizeof node->state, "%s/state", node->root);
    snprintf(node->files, sizeof node->files, "%s/files", node->root);
    *state = node;
    return 0;
}

static inline int teardown(void **state)
{
    struct node *node = *state;
    char command[128];

    snprintf(command, sizeof command, "rm -rf '%s'", node->root);
    int rc = system(command);
    free(node);
    return rc;
}

static inline void done(struct change *change)
{
    (void)change;
}

/* A body of SIZE bytes that depends on SEED alone. */
static inline void make_body(uint8_t *body, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)(seed * 131 + i * 7 + (i >> 8));
}

static inline struct id128 make_id(unsigned n)
{
    struct id128 id = {{0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00}};

    id.bytes[12] = (uint8_t)(n >> 24);
    id.bytes[13] = (uint8_t)(n >> 16);
    id.bytes[14] = (uint8_t)(n >> 8);
    id.bytes[15] = (uint8_t)n;
    return id;
}

static inline void prepare_put(struct change *change, unsigned n, const uint8_t *body, size_t size)
{
    memset(change, 0, sizeof *change);
    change->request.kind = CHANGE_PUT;
    change->request.id = make_id(n);
    change->request.fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL | EVENT_HAS_NAME;
    change->request.name = (struct text){"a.txt", 5};
    change->request.size = size;
    change->body = body;
    sha256(body, size, change->request.sha256);
    for (uint64_t i = 0; i < block_count(size); i++) {
        size_t len = size - i * BLOCK_BYTES < BLOCK_BYTES ? size - i * BLOCK_BYTES : BLOCK_BYTES;

        change->sums[i] = block_checksum(body + i * BLOCK_BYTES, len, i);
    }
    change->done = done;
}

/* Submit and commit one change without threads. */
static inline int commit(struct node *node, struct change *change)
{
    assert_int_equal(journal_submit(node->journal, change), 0);
    assert_int_equal(journal_commit_step(node->journal), 1);
    object_destroy(&change->object);
    return change->rc;
}

static inline int put(struct node *node, unsigned n, size_t size)
{
    static uint8_t body[LIMIT_INLINE_BODY_BYTES];
    struct change change;

    make_body(body, size, n);
    prepare_put(&change, n, body, size);
    return commit(node, &change);
}

static inline int put_large(struct node *node, unsigned n, size_t size)
{
    uint8_t *body = malloc(size);
    struct large_writer *writer;
    struct change change;
    uint64_t written;

    make_body(body, size, n);
    prepare_put(&change, n, body, 0);
    change.body = NULL;
    sha256(body, size, change.request.sha256);
    assert_int_equal(large_create(&writer, journal_large(node->journal)), 0);
    assert_int_equal(large_write(writer, body, size), 0);
    assert_int_equal(large_finish(writer, &change.file, &written, &change.trailer), 0);
    assert_int_equal(written, size);
    change.request.size = size;
    int rc = commit(node, &change);

    large_writer_destroy(&writer, !change.stored);
    free(body);
    return rc;
}

static inline int delete (struct node *node, unsigned n)
{
    struct change change = {.request = {.kind = CHANGE_DELETE, .id = make_id(n)}, .done = done};

    return commit(node, &change);
}

static inline int find(struct node *node, unsigned n, struct object **out)
{
    struct db_reader *reader;
    struct id128 id = make_id(n);

    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    int rc = journal_find(node->journal, reader, &id, out);

    db_reader_close(&reader);
    return rc;
}

/* Object N reads back as the SIZE bytes it was put with. */
static inline void expect_body(struct node *node, unsigned n, size_t size)
{
    uint8_t *want = malloc(size + 1), *buf = malloc(RECORD_MAX_BYTES);
    struct object *object = NULL;
    struct record_view view;
    int rc = find(node, n, &object);

    make_body(want, size, n);
    if (rc)
        fail_msg("object %u: %s", n, err_text(rc));
    assert_int_equal(object->size, size);
    if (object->place.volume == PLACE_LARGE) {
        struct large_reader *reader;

        assert_int_equal(large_reader_open(&reader, journal_large(node->journal),
                                           object->place.offset, object->size),
                         0);
        for (uint64_t i = 0; i < block_count(size); i++) {
            size_t len;

            assert_int_equal(large_read_block(reader, i, buf, &len, false), 0);
            assert_memory_equal(buf, want + i * BLOCK_BYTES, len);
        }
        large_reader_close(&reader);
    } else {
        rc = log_read(journal_log(node->journal), &object->place, &object->id, object->record_bytes,
                      buf, RECORD_MAX_BYTES, false, &view);
        if (rc)
            fail_msg("object %u in segment %u: %s", n, object->place.volume, err_text(rc));
        assert_int_equal(view.header.body_bytes, size);
        assert_memory_equal(view.body, want, size);
    }
    object_destroy(&object);
    free(want);
    free(buf);
}

static inline void expect_deleted(struct node *node, unsigned n)
{
    struct object *object = NULL;

    assert_int_equal(find(node, n, &object), 0);
    assert_true(object->flags & OBJECT_DELETED);
    object_destroy(&object);
}

/* Chains fit, counters and digest are those of the rows, and the acknowledged digest is *DIGEST. */
static inline void expect_sound(struct node *node, const struct hash128 *digest)
{
    struct journal_verify_result result;
    struct journal_stats stats;
    struct db_reader *reader;
    char report[256];

    while (journal_apply_step(node->journal))
        ;
    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(journal_verify(reader, &result), 0);
    if (result.breaks)
        fail_msg("%s", result.message);
    if (db_check(reader, report, sizeof report) != 0)
        fail_msg("%s", report);
    db_reader_close(&reader);
    journal_stats(node->journal, &stats);
    assert_int_equal(result.events, stats.events);
    if (digest) {
        assert_true(stats.digest.low == digest->low);
        assert_true(stats.digest.high == digest->high);
    }
}

static inline struct hash128 digest_of(struct node *node)
{
    struct journal_stats stats;

    journal_stats(node->journal, &stats);
    return stats.digest;
}

/* Run upkeep, commit, apply and checkpoints until nothing moves any more. */
static inline void settle(struct node *node)
{
    struct journal_stats stats;
    uint64_t before = UINT64_MAX;

    for (int quiet = 0, i = 0; quiet < 5 && i < 2000; i++) {
        journal_upkeep_step(node->journal);
        journal_commit_step(node->journal);
        journal_apply_step(node->journal);
        applier_checkpoint(node->journal);
        journal_stats(node->journal, &stats);
        quiet = stats.moved_records + stats.cleaned_segments == before ? quiet + 1 : 0;
        before = stats.moved_records + stats.cleaned_segments;
    }
}

#define shell(...)                                                                                 \
    do {                                                                                           \
        char command[600];                                                                         \
                                                                                                   \
        snprintf(command, sizeof command, __VA_ARGS__);                                            \
        assert_int_equal(system(command), 0);                                                      \
    } while (0)

#endif
