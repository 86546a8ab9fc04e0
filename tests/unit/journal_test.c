/* Goal: what the journal has acknowledged survives whatever happens to the process and to its
 * database, and space that nothing needs comes back. Real files in a temporary directory. */
#include "journal/journal.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"

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
    struct store_dirs dirs;
    struct ram *ram;
    struct journal *journal;
    bool threads;
};

static int node_try(struct node *node, bool accept_loss)
{
    struct journal_config config = {.dirs = &node->dirs, .sync = true, .segment_bytes = SEGMENT};
    int rc = store_dirs_open(&node->dirs, env_system(), node->state, node->files, accept_loss,
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

static void node_open(struct node *node, bool threads)
{
    if (node_try(node, false) != 0)
        fail_msg("%s", node->message);
    node->threads = threads;
    if (threads)
        assert_int_equal(journal_start(node->journal), 0);
}

/* CLEAN: an orderly stop; else as a kill: nothing more is applied or marked. */
static void node_close(struct node *node, bool clean)
{
    if (clean || node->threads)
        journal_stop(node->journal);
    journal_close(&node->journal);
    ram_destroy(&node->ram);
    store_dirs_close(&node->dirs);
}

static int setup(void **state)
{
    struct node *node = calloc(1, sizeof *node);

    strcpy(node->root, "/tmp/journal-test-XXXXXX");
    assert_non_null(mkdtemp(node->root));
    snprintf(node->state, sizeof node->state, "%s/state", node->root);
    snprintf(node->files, sizeof node->files, "%s/files", node->root);
    *state = node;
    return 0;
}

static int teardown(void **state)
{
    struct node *node = *state;
    char command[128];

    snprintf(command, sizeof command, "rm -rf '%s'", node->root);
    int rc = system(command);
    free(node);
    return rc;
}

static void done(struct change *change)
{
    (void)change;
}

/* A body of SIZE bytes that depends on SEED alone. */
static void make_body(uint8_t *body, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)(seed * 131 + i * 7 + (i >> 8));
}

static struct id128 make_id(unsigned n)
{
    struct id128 id = {{0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00}};

    id.bytes[12] = (uint8_t)(n >> 24);
    id.bytes[13] = (uint8_t)(n >> 16);
    id.bytes[14] = (uint8_t)(n >> 8);
    id.bytes[15] = (uint8_t)n;
    return id;
}

static void prepare_put(struct change *change, unsigned n, const uint8_t *body, size_t size)
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
static int commit(struct node *node, struct change *change)
{
    assert_int_equal(journal_submit(node->journal, change), 0);
    assert_int_equal(journal_commit_step(node->journal), 1);
    object_destroy(&change->object);
    return change->rc;
}

static int put(struct node *node, unsigned n, size_t size)
{
    static uint8_t body[LIMIT_INLINE_BODY_BYTES];
    struct change change;

    make_body(body, size, n);
    prepare_put(&change, n, body, size);
    return commit(node, &change);
}

static int put_large(struct node *node, unsigned n, size_t size)
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

static int delete (struct node *node, unsigned n)
{
    struct change change = {.request = {.kind = CHANGE_DELETE, .id = make_id(n)}, .done = done};

    return commit(node, &change);
}

static int find(struct node *node, unsigned n, struct object **out)
{
    struct db_reader *reader;
    struct id128 id = make_id(n);

    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    int rc = journal_find(node->journal, reader, &id, out);

    db_reader_close(&reader);
    return rc;
}

/* Object N reads back as the SIZE bytes it was put with. */
static void expect_body(struct node *node, unsigned n, size_t size)
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

static void expect_deleted(struct node *node, unsigned n)
{
    struct object *object = NULL;

    assert_int_equal(find(node, n, &object), 0);
    assert_true(object->flags & OBJECT_DELETED);
    object_destroy(&object);
}

/* Chains fit, counters and digest are those of the rows, and the acknowledged digest is *DIGEST. */
static void expect_sound(struct node *node, const struct hash128 *digest)
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

static struct hash128 digest_of(struct node *node)
{
    struct journal_stats stats;

    journal_stats(node->journal, &stats);
    return stats.digest;
}

static void a_put_is_found_before_and_after_it_is_applied(void **state)
{
    struct node *node = *state;

    node_open(node, false);
    assert_int_equal(put(node, 1, 1000), 0);
    expect_body(node, 1, 1000);
    assert_true(journal_apply_step(node->journal) > 0);
    expect_body(node, 1, 1000);
    assert_int_equal(put(node, 2, 0), 0);
    assert_int_equal(put(node, 3, 256 * 1024), 0);
    expect_body(node, 2, 0);
    expect_body(node, 3, 256 * 1024);
    expect_sound(node, NULL);
    node_close(node, true);
}

static void other_bytes_conflict_and_a_deleted_id_stays_deleted(void **state)
{
    struct node *node = *state;
    uint8_t other[10] = "something";
    struct change change;

    node_open(node, false);
    assert_int_equal(put(node, 1, 1000), 0);
    prepare_put(&change, 1, other, sizeof other);
    assert_int_equal(commit(node, &change), ERR_CONFLICT);
    assert_int_equal(delete (node, 1), 0);
    assert_int_equal(delete (node, 1), 0);
    assert_int_equal(delete (node, 77), 0);
    assert_int_equal(put(node, 1, 1000), ERR_DELETED);
    assert_int_equal(put(node, 77, 10), ERR_DELETED);
    expect_deleted(node, 1);
    expect_sound(node, NULL);
    node_close(node, false);
    node_open(node, false);
    expect_deleted(node, 1);
    expect_deleted(node, 77);
    assert_int_equal(put(node, 77, 10), ERR_DELETED);
    node_close(node, true);
}

static void everything_acknowledged_survives_a_kill(void **state)
{
    struct node *node = *state;
    struct hash128 digest;

    node_open(node, false);
    for (unsigned n = 0; n < 60; n++)
        assert_int_equal(put(node, n, n * 100), 0);
    while (journal_apply_step(node->journal))
        ;
    assert_int_equal(put_large(node, 100, 300 * 1024), 0);
    assert_int_equal(put_large(node, 101, 300 * 1024 + 7), 0);
    for (unsigned n = 60; n < 90; n++)
        assert_int_equal(put(node, n, n * 100), 0);
    for (unsigned n = 0; n < 90; n += 3)
        assert_int_equal(delete (node, n), 0);
    assert_int_equal(delete (node, 100), 0);
    digest = digest_of(node);
    node_close(node, false); /* nothing since the first apply step is in SQLite */

    node_open(node, false);
    expect_sound(node, &digest);
    for (unsigned n = 0; n < 90; n++)
        if (n % 3)
            expect_body(node, n, n * 100);
        else
            expect_deleted(node, n);
    expect_deleted(node, 100);
    expect_body(node, 101, 300 * 1024 + 7);
    node_close(node, true);
    node_open(node, false);
    expect_sound(node, &digest);
    node_close(node, true);
}

static void each_run_is_an_origin_of_its_own_that_follows_the_last(void **state)
{
    struct node *node = *state;
    struct journal_stats first, second;

    node_open(node, false);
    assert_int_equal(put(node, 1, 10), 0);
    journal_stats(node->journal, &first);
    node_close(node, false);
    node_open(node, false);
    assert_int_equal(put(node, 2, 10), 0);
    journal_stats(node->journal, &second);
    assert_false(id_equal(&first.origin, &second.origin));
    expect_sound(node, NULL);

    struct db_reader *reader;
    struct db_origin *origins;
    size_t count;

    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    assert_int_equal(count, 2);
    assert_true(origins[0].ended);
    assert_false(origins[1].ended);
    free(origins);
    db_reader_close(&reader);
    node_close(node, true);
}

static void a_lost_database_is_rebuilt_from_the_log(void **state)
{
    struct node *node = *state;
    uint64_t events = 0, objects = 0;
    struct hash128 digest;
    char path[160];

    node_open(node, false);
    for (unsigned n = 0; n < 200; n++)
        assert_int_equal(put(node, n, 3000), 0);
    for (unsigned n = 0; n < 200; n += 2)
        assert_int_equal(delete (node, n), 0);
    assert_int_equal(put_large(node, 500, 400 * 1024), 0);
    digest = digest_of(node);
    node_close(node, true);

    snprintf(path, sizeof path, "%s/journal.db", node->state);
    assert_int_equal(truncate(path, 1000), 0);
    assert_int_equal(store_dirs_inspect(&node->dirs, env_system(), node->state, node->files,
                                        node->message, sizeof node->message),
                     0);
    if (journal_rebuild(&node->dirs, &events, &objects, node->message, sizeof node->message) != 0)
        fail_msg("%s", node->message);
    store_dirs_close(&node->dirs);
    assert_int_equal(events, 301);
    assert_int_equal(objects, 101);
    node_open(node, false);
    expect_sound(node, &digest);
    for (unsigned n = 1; n < 200; n += 2)
        expect_body(node, n, 3000);
    expect_body(node, 500, 400 * 1024);
    node_close(node, true);
}

static uint64_t files_bytes(const struct node *node)
{
    char command[400], line[64] = "";

    snprintf(command, sizeof command,
             "du -sb --apparent-size '%s/log' '%s/large' | awk '{s+=$1}END{print s}'", node->files,
             node->files);
    FILE *pipe = popen(command, "r");

    assert_non_null(pipe);
    assert_non_null(fgets(line, sizeof line, pipe));
    pclose(pipe);
    return strtoull(line, NULL, 10);
}

/* Run upkeep, commit, apply and checkpoints until nothing moves any more. */
static void settle(struct node *node)
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

static void space_of_deleted_bodies_comes_back(void **state)
{
    struct node *node = *state;
    struct journal_stats stats;
    struct hash128 digest;

    node_open(node, false);
    for (unsigned n = 0; n < 300; n++)
        assert_int_equal(put(node, n, 8000), 0);
    assert_int_equal(put_large(node, 1000, 2 * MIB), 0);
    while (journal_apply_step(node->journal))
        ;
    uint64_t full = files_bytes(node);

    for (unsigned n = 0; n < 300; n++)
        if (n % 10)
            assert_int_equal(delete (node, n), 0);
    assert_int_equal(delete (node, 1000), 0);
    digest = digest_of(node);
    settle(node);
    journal_stats(node->journal, &stats);
    assert_true(stats.cleaned_segments >= 6);
    assert_true(files_bytes(node) < full - 3 * MIB);
    for (unsigned n = 0; n < 300; n += 10)
        expect_body(node, n, 8000);
    expect_sound(node, &digest);
    node_close(node, false);

    node_open(node, false); /* the moves hold across a kill … */
    expect_sound(node, &digest);
    for (unsigned n = 0; n < 300; n += 10)
        expect_body(node, n, 8000);
    node_close(node, true);

    uint64_t events, objects; /* … and a rebuild */

    assert_int_equal(store_dirs_inspect(&node->dirs, env_system(), node->state, node->files,
                                        node->message, sizeof node->message),
                     0);
    assert_int_equal(
        journal_rebuild(&node->dirs, &events, &objects, node->message, sizeof node->message), 0);
    store_dirs_close(&node->dirs);
    assert_int_equal(objects, 30);
    node_open(node, false);
    expect_sound(node, &digest);
    for (unsigned n = 0; n < 300; n += 10)
        expect_body(node, n, 8000);
    node_close(node, true);
}

static void a_backup_of_a_running_node_starts_as_that_node(void **state)
{
    struct node *node = *state;
    char dir[128], copy_state[200], copy_files[200];
    struct hash128 digest;

    node_open(node, false);
    for (unsigned n = 0; n < 50; n++)
        assert_int_equal(put(node, n, 5000), 0);
    assert_int_equal(put_large(node, 90, 300 * 1024), 0);
    while (journal_apply_step(node->journal))
        ;
    digest = digest_of(node);
    snprintf(dir, sizeof dir, "%s/backup", node->root);
    if (journal_backup(node->journal, dir, node->message, sizeof node->message) != 0)
        fail_msg("%s", node->message);
    assert_int_equal(journal_backup(node->journal, dir, node->message, sizeof node->message),
                     ERR_EXISTS);
    for (unsigned n = 0; n < 50; n++)
        assert_int_equal(delete (node, n), 0);
    assert_int_equal(delete (node, 90), 0);
    settle(node);
    node_close(node, true);

    snprintf(copy_state, sizeof copy_state, "%s/state", dir);
    snprintf(copy_files, sizeof copy_files, "%s/files", dir);
    snprintf(node->state, sizeof node->state, "%.90s", copy_state);
    snprintf(node->files, sizeof node->files, "%.90s", copy_files);
    node_open(node, false);
    expect_sound(node, &digest);
    for (unsigned n = 0; n < 50; n++)
        expect_body(node, n, 5000);
    expect_body(node, 90, 300 * 1024);
    node_close(node, true);
}

#define shell(...)                                                                                 \
    do {                                                                                           \
        char command[600];                                                                         \
                                                                                                   \
        snprintf(command, sizeof command, __VA_ARGS__);                                            \
        assert_int_equal(system(command), 0);                                                      \
    } while (0)

static void an_older_files_directory_is_refused_and_an_accepted_loss_is_journaled(void **state)
{
    struct node *node = *state;
    struct object *object = NULL;

    node_open(node, false);
    for (unsigned n = 0; n < 100; n++)
        assert_int_equal(put(node, n, 5000), 0);
    node_close(node, true);
    shell("cp -a '%s' '%s/older'", node->files, node->root);
    node_open(node, false);
    for (unsigned n = 100; n < 200; n++)
        assert_int_equal(put(node, n, 5000), 0);
    assert_int_equal(put_large(node, 300, 300 * 1024), 0);
    node_close(node, true);
    shell("rm -rf '%s' && mv '%s/older' '%s'", node->files, node->root, node->files);

    /* Its generation is older … */
    assert_int_equal(node_try(node, false), ERR_WRONG_STORE);
    assert_non_null(strstr(node->message, node->files));
    assert_int_equal(node_try(node, true), 0);
    for (unsigned n = 0; n < 100; n++)
        expect_body(node, n, 5000);
    for (unsigned n = 100; n < 200; n++) {
        assert_int_equal(find(node, n, &object), 0);
        assert_true(object->flags & OBJECT_PUT);
        assert_true(place_is_none(&object->place));
        object_destroy(&object);
    }
    assert_int_equal(find(node, 300, &object), 0);
    assert_true(place_is_none(&object->place));
    object_destroy(&object);
    assert_int_equal(put(node, 150, 5000), 0); /* the same bytes heal it */
    expect_body(node, 150, 5000);
    expect_sound(node, NULL);
    node_close(node, true);
    node_open(node, false);
    expect_body(node, 150, 5000);
    expect_sound(node, NULL);
    node_close(node, true);
}

static void a_log_that_ends_too_early_is_noticed_even_with_the_right_generation(void **state)
{
    struct node *node = *state;

    node_open(node, false);
    for (unsigned n = 0; n < 30; n++)
        assert_int_equal(put(node, n, 5000), 0);
    node_close(node, true);
    shell("cp '%s/log/00000001.seg' '%s/older.seg'", node->files, node->root);
    node_open(node, false);
    for (unsigned n = 30; n < 200; n++)
        assert_int_equal(put(node, n, 5000), 0);
    node_close(node, true);
    shell("rm '%s'/log/*.seg && mv '%s/older.seg' '%s/log/00000001.seg'", node->files, node->root,
          node->files);
    assert_int_not_equal(node_try(node, false), 0);
    assert_non_null(strstr(node->message, node->files));
}

/* ---- With threads ---- */

enum { WRITERS = 4, EACH = 500 };

struct waiter {
    struct change change;
    sem_t ready;
};

static void wake(struct change *change)
{
    sem_post(&((struct waiter *)change)->ready);
}

struct writer {
    struct node *node;
    unsigned first;
};

static void *write_many(void *arg)
{
    struct writer *writer = arg;
    uint8_t body[2000];
    struct waiter waiter;

    sem_init(&waiter.ready, 0, 0);
    for (unsigned n = writer->first; n < writer->first + EACH; n++) {
        make_body(body, sizeof body, n);
        prepare_put(&waiter.change, n, body, sizeof body);
        waiter.change.done = wake;
        assert_int_equal(journal_submit(writer->node->journal, &waiter.change), 0);
        sem_wait(&waiter.ready);
        assert_int_equal(waiter.change.rc, 0);
        object_destroy(&waiter.change.object);
    }
    sem_destroy(&waiter.ready);
    return NULL;
}

static void writers_in_parallel_all_get_their_acknowledgements(void **state)
{
    struct node *node = *state;
    struct writer writers[WRITERS];
    pthread_t threads[WRITERS];
    struct hash128 digest;

    node_open(node, true);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){node, i * EACH};
        pthread_create(&threads[i], NULL, write_many, &writers[i]);
    }
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned n = 0; n < WRITERS * EACH; n++)
        expect_body(node, n, 2000);
    digest = digest_of(node);
    node_close(node, true);
    node_open(node, false);
    assert_int_equal(node->journal->recovered_records, 0);
    expect_sound(node, &digest);
    node_close(node, true);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_put_is_found_before_and_after_it_is_applied),
        TEST(other_bytes_conflict_and_a_deleted_id_stays_deleted),
        TEST(everything_acknowledged_survives_a_kill),
        TEST(each_run_is_an_origin_of_its_own_that_follows_the_last),
        TEST(a_lost_database_is_rebuilt_from_the_log),
        TEST(space_of_deleted_bodies_comes_back),
        TEST(a_backup_of_a_running_node_starts_as_that_node),
        TEST(an_older_files_directory_is_refused_and_an_accepted_loss_is_journaled),
        TEST(a_log_that_ends_too_early_is_noticed_even_with_the_right_generation),
        TEST(writers_in_parallel_all_get_their_acknowledgements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
