/*
 * What a node owes the cloud gets there, through its own threads: once, whole, with what is said of
 * it; also where answers get lost, the cloud is away for a while, the node is restarted in the
 * middle of it, or the object is deleted meanwhile. A copy that is damaged here never does.
 */
#include "base/container.h"
#include "base/text.h"
#include "cluster/cloud_guard.h"
#include "cluster/cloud_meta.h"
#include "cluster/uploader.h"
#include "tests/unit/cloud_memory.h"
#include "tests/unit/cluster_fake.h"
#include "tests/unit/journal_fixture.h"

#include <ftw.h>

#define WAIT_MS 20000
#define SMALL   3000
#define LARGE   (LIMIT_INLINE_BODY_BYTES + 200000)

struct fixture {
    struct node *node;
    struct cluster *cluster;
    struct cloud *cloud, *guard;
    struct copies *copies;
    struct uploader *uploader;
    struct db_reader *reader;
    _Atomic unsigned damaged;
    struct env env;             /* the uploader's: the node's, but for … */
    _Atomic uint64_t stands_ns; /* … its clock, where it stands; 0: it runs */
};

static uint64_t uploader_mono_ns(struct env *env)
{
    struct fixture *f = container_of(env, struct fixture, env);
    uint64_t stands_ns = atomic_load(&f->stands_ns);

    return stands_ns ? stands_ns : f->node->env.mono_ns(&f->node->env);
}

/* ---- As cluster/cluster_journal.c does it ---- */

static void on_news(void *arg, const struct journal_news *news)
{
    struct fixture *f = arg;

    if (!news->origin)
        uploader_poke(f->uploader);
}

static void on_copies(void *arg, const struct journal_copy_news *news)
{
    struct fixture *f = arg;

    if (news->event)
        copies_news(f->copies, news->event, news->len);
    if (news->event && news->owed && object_owed_here(news->row))
        uploader_new(f->uploader, news->row, true);
}

static void on_damage(void *arg, const struct object *object)
{
    struct fixture *f = arg;

    (void)object;
    atomic_fetch_add(&f->damaged, 1);
}

static void start_node(struct fixture *f)
{
    node_open(f->node, false);
    f->env = f->node->env;
    f->env.mono_ns = uploader_mono_ns;
    const struct uploader_config config = {.journal = f->node->journal,
                                           .cluster = f->cluster,
                                           .env = &f->env,
                                           .cloud = f->guard,
                                           .prefix = "p",
                                           .outbox_copies = 2};
    struct uploader_config with = config;

    assert_int_equal(copies_create(&f->copies, f->node->journal, 2), 0);
    with.copies = f->copies;
    assert_int_equal(uploader_create(&f->uploader, &with), 0);
    journal_listen(f->node->journal, on_news, f);
    journal_listen_copies(f->node->journal, on_copies, f);
    journal_on_damage(f->node->journal, on_damage, f);
    assert_int_equal(journal_start(f->node->journal), 0);
    f->node->threads = true;
    assert_int_equal(journal_reader_open(f->node->journal, &f->reader), 0);
}

static void stop_node(struct fixture *f)
{
    db_reader_close(&f->reader);
    uploader_stop(f->uploader);
    copies_stop(f->copies);
    journal_stop(f->node->journal);
    uploader_destroy(&f->uploader);
    copies_destroy(&f->copies);
    f->node->threads = false;
    node_close(f->node, true);
}

static int begin(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_int_equal(setup((void **)&f->node), 0);
    f->cluster = fake_create();
    f->cluster->alone = true;
    f->cloud = cloud_memory_create();
    assert_int_equal(cloud_guard_create(&f->guard, f->cloud, &f->node->env), 0);
    start_node(f);
    *state = f;
    return 0;
}

static int end(void **state)
{
    struct fixture *f = *state;
    void *node = f->node;

    stop_node(f);
    cloud_guard_close(f->guard);
    cloud_destroy(&f->guard);
    cloud_destroy(&f->cloud);
    fake_destroy(f->cluster);
    free(f);
    return teardown(&node);
}

/* ---- What tests do ---- */

static void run(struct fixture *f)
{
    assert_int_equal(uploader_start(f->uploader), 0);
}

static sem_t durable;

static void signal_done(struct change *change)
{
    (void)change;
    sem_post(&durable);
}

/* Submit CHANGE, which bears no body, and wait until it is durable. */
static int say(struct fixture *f, struct change *change)
{
    assert_int_equal(sem_init(&durable, 0, 0), 0);
    change->done = signal_done;
    assert_int_equal(journal_submit(f->node->journal, change), 0);
    assert_int_equal(sem_wait(&durable), 0);
    object_destroy(&change->object);
    return change->rc;
}

static int remove_it(struct fixture *f, unsigned n, bool purge)
{
    struct change change = {.request = {.kind = CHANGE_DELETE, .id = make_id(n), .purge = purge}};

    return say(f, &change);
}

static sem_t put_sem;

static void put_done(struct change *change)
{
    (void)change;
    sem_post(&put_sem);
}

/* SIZE bytes under N at level 1, durable, with USER_META. */
static void put_one(struct fixture *f, unsigned n, size_t size, const char *user_meta)
{
    uint8_t *body = malloc(size + 1);
    struct large_writer *writer = NULL;
    struct change change;
    uint64_t written;

    make_body(body, size, n);
    if (size > LIMIT_INLINE_BODY_BYTES) {
        prepare_put(&change, n, body, 0);
        change.body = NULL;
        sha256(body, size, change.request.sha256);
        assert_int_equal(large_create(&writer, journal_large(f->node->journal)), 0);
        assert_int_equal(large_write(writer, body, size), 0);
        assert_int_equal(large_finish(writer, &change.file, &written, &change.trailer), 0);
        change.request.size = size;
    } else {
        prepare_put(&change, n, body, size);
    }
    change.request.level = 1;
    if (user_meta) {
        change.request.fields |= EVENT_HAS_USER_META;
        change.request.user_meta = (struct text){user_meta, (uint32_t)strlen(user_meta)};
    }
    change.done = put_done;
    assert_int_equal(sem_init(&put_sem, 0, 0), 0);
    assert_int_equal(journal_submit(f->node->journal, &change), 0);
    assert_int_equal(sem_wait(&put_sem), 0);
    assert_int_equal(change.rc, 0);
    object_destroy(&change.object);
    large_writer_destroy(&writer, !change.stored);
    free(body);
}

static uint32_t flags_of(struct fixture *f, unsigned n)
{
    struct object *object = NULL;
    struct id128 id = make_id(n);
    uint32_t flags = 0;

    if (journal_find(f->node->journal, f->reader, &id, &object) == 0)
        flags = object->flags;
    object_destroy(&object);
    return flags;
}

#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        const struct timespec step = {0, 1000000};                                                 \
        unsigned ms = 0;                                                                           \
                                                                                                   \
        while (!(condition)) {                                                                     \
            if (ms++ == WAIT_MS)                                                                   \
                fail_msg("waited too long for %s", #condition);                                    \
            (void)nanosleep(&step, NULL);                                                          \
        }                                                                                          \
    } while (0)

static void wait_flags(struct fixture *f, unsigned n, uint32_t flags)
{
    WAIT_FOR((flags_of(f, n) & flags) == flags);
}

static const char *key_of(unsigned n, const char *before, const char *after)
{
    static char key[64];
    char id[ULID_TEXT_BYTES + 1];
    struct id128 ulid = make_id(n);

    ulid_format(id, &ulid);
    (void)snprintf(key, sizeof key, "p/%s%s%s", before, id, after);
    return key;
}

static void expect_there(struct fixture *f, unsigned n, size_t size)
{
    struct cloud_memory_object object;
    uint8_t *body = malloc(size + 1);

    make_body(body, size, n);
    assert_true(cloud_memory_find(f->cloud, key_of(n, "", ""), &object));
    assert_int_equal(object.size, size);
    assert_memory_equal(object.body, body, size);
    free(body);
}

static bool is_there(struct fixture *f, const char *key)
{
    struct cloud_memory_object object;

    return cloud_memory_find(f->cloud, key, &object);
}

static unsigned asked(struct fixture *f, enum cloud_op op)
{
    return cloud_memory_asked(f->cloud, op);
}

/* ---- Tests ---- */

/* Goal: what is owed gets there once, asked for once, with what the cloud is told of it; the row
 * names where. */
static void test_once(void **state)
{
    static const size_t sizes[] = {0, 1, SMALL, LIMIT_INLINE_BODY_BYTES, LARGE};
    struct fixture *f = *state;
    struct cloud_memory_object object;
    struct object *row = NULL;
    struct cloud_place place;
    char hex[2 * SHA256_BYTES + 1];

    run(f);
    for (unsigned i = 0; i < 5; i++)
        put_one(f, i, sizes[i], NULL);
    for (unsigned i = 0; i < 5; i++) {
        wait_flags(f, i, OBJECT_CLOUD | OBJECT_UPLOADED);
        expect_there(f, i, sizes[i]);
    }
    assert_int_equal(asked(f, CLOUD_PUT), 5);
    assert_int_equal(asked(f, CLOUD_HEAD), 0);
    assert_int_equal(cloud_memory_count(f->cloud), 5);

    assert_int_equal(find(f->node, 2, &row), 0);
    assert_true(cloud_memory_find(f->cloud, key_of(2, "", ""), &object));
    hex_encode(hex, row->sha256, SHA256_BYTES);
    struct cloud_text said = cloud_memory_value(object.pairs, object.pair_count, "sha256");
    assert_int_equal(said.len, strlen(hex));
    assert_memory_equal(said.ptr, hex, said.len);
    assert_true(object_cloud(row, &place));
    assert_int_equal(place.key.len, strlen(key_of(2, "", "")));
    assert_memory_equal(place.key.ptr, key_of(2, "", ""), place.key.len);
    assert_int_equal(place.etag.len, strlen(object.etag));
    assert_memory_equal(place.backend.ptr, "memory", place.backend.len);
    object_destroy(&row);
}

/* Goal: an answer that got lost after the body was taken makes no second upload: it is looked for
 * first. */
static void test_lost_answer(void **state)
{
    struct fixture *f = *state;

    cloud_memory_fail(f->cloud, CLOUD_PUT, ERR_TIMEOUT, 1, true);
    run(f);
    put_one(f, 1, SMALL, NULL);
    wait_flags(f, 1, OBJECT_UPLOADED);
    expect_there(f, 1, SMALL);
    assert_int_equal(asked(f, CLOUD_PUT), 1);
    assert_in_range(asked(f, CLOUD_HEAD), 1, 2);
}

/* Goal: what failed is tried again until it is there, and so is what the breaker holds back. */
static void test_outage(void **state)
{
    struct fixture *f = *state;
    struct cloud_guard_stats guard;

    cloud_memory_fail(f->cloud, 0, ERR_AGAIN, BREAKER_FAILURES + 1, false);
    run(f);
    for (unsigned n = 0; n < 20; n++)
        put_one(f, n, SMALL, NULL);
    for (unsigned n = 0; n < 20; n++)
        wait_flags(f, n, OBJECT_UPLOADED);
    cloud_guard_stats(f->guard, &guard);
    assert_true(guard.opened > 0);
    assert_int_equal(cloud_memory_count(f->cloud), 20);
}

static void wait_done(struct copies_wait *wait)
{
    sem_post(&put_sem);
    (void)wait;
}

/* Put object N, and wait as its client would, without end. Whether the cloud has it then. */
static bool put_and_wait(struct fixture *f, unsigned n)
{
    struct copies_wait wait = {.id = make_id(n), .need = COPIES_CLOUD, .done = wait_done};
    uint8_t body[SMALL];

    put_one(f, n, SMALL, NULL);
    make_body(body, SMALL, n);
    sha256(body, SMALL, wait.sha256);
    assert_int_equal(copies_wait(f->copies, &wait), 0);
    struct timespec until;
    assert_int_equal(clock_gettime(CLOCK_REALTIME, &until), 0);
    until.tv_sec += WAIT_MS / 1000;
    if (sem_timedwait(&put_sem, &until))
        fail_msg("a put waits for a cloud that refuses it");
    assert_int_equal(wait.rc, 0);
    assert_true(wait.fulfilled);
    return wait.found.uploaded;
}

/* Goal: for a cloud that refuses whatever it is asked no put waits, as for one that is away; once
 * it takes something all is brought there, and puts wait for it again. */
static void refused(struct fixture *f, int rc)
{
    unsigned n = 0;

    cloud_memory_fail(f->cloud, 0, rc, 1000000, false);
    assert_int_equal(copies_start(f->copies), 0);
    run(f);
    for (; n < 5; n++)
        assert_false(put_and_wait(f, n));
    cloud_memory_fail(f->cloud, 0, rc, 0, false);
    wait_flags(f, 0, OBJECT_UPLOADED);
    WAIT_FOR(put_and_wait(f, n++));
    for (unsigned i = 0; i < n; i++)
        wait_flags(f, i, OBJECT_UPLOADED);
    assert_true(put_and_wait(f, n));
}

static void test_refused_key(void **state)
{
    refused(*state, ERR_PERMISSION);
}

static void test_missing_bucket(void **state)
{
    refused(*state, ERR_NOT_FOUND);
}

static void asked_done(struct cloud_request *request, int rc)
{
    (void)request;
    assert_int_equal(rc, ERR_AGAIN);
    sem_post(&put_sem);
}

/* Goal: a cloud that asks to be left alone for a day is believed for a while only, by the breaker
 * and by whoever asked. */
static void test_long_retry_after(void **state)
{
    struct fixture *f = *state;
    struct cloud_request request = {.op = CLOUD_HEAD, .key = {"k", 1}, .done = asked_done};
    struct cloud_guard_stats guard;

    cloud_memory_retry_after(f->cloud, 86400 * 1000);
    cloud_memory_fail(f->cloud, CLOUD_HEAD, ERR_AGAIN, 1, false);
    assert_int_equal(sem_init(&put_sem, 0, 0), 0);
    assert_int_equal(cloud_start(f->guard, &request), 0);
    assert_int_equal(sem_wait(&put_sem), 0);
    assert_int_equal(request.retry_after_ms, BREAKER_MAX_TOLD_MS);
    cloud_guard_stats(f->guard, &guard);
    assert_in_range(guard.wait_ms, 1, BREAKER_MAX_TOLD_MS + BREAKER_DELAY_MS);
}

/* Goal: what another run of this node began, and maybe brought there, is looked for before it is
 * sent again; what is not there is sent. */
static void test_restart(void **state)
{
    struct fixture *f = *state;
    char hex[2 * SHA256_BYTES + 1];
    uint8_t body[SMALL];

    for (unsigned n = 1; n <= 2; n++) {
        struct change started = {.request = {.kind = CHANGE_CLOUD,
                                             .id = make_id(n),
                                             .fields = EVENT_HAS_CLOUD | EVENT_HAS_SHA256,
                                             .cloud_state = CLOUD_STARTED,
                                             .backend = {"memory", 6},
                                             .key = {"k", 1}}};

        put_one(f, n, SMALL, NULL);
        make_body(body, SMALL, n);
        sha256(body, SMALL, started.request.sha256);
        assert_int_equal(say(f, &started), 0);
        hex_encode(hex, started.request.sha256, SHA256_BYTES);
        const struct cloud_pair pair = {{"sha256", 6}, {hex, 2 * SHA256_BYTES}};
        if (n == 1)
            cloud_memory_set(f->cloud, key_of(n, "", ""), body, SMALL, NULL, &pair, 1, NULL, 0);
    }
    stop_node(f);
    start_node(f);
    run(f);
    wait_flags(f, 1, OBJECT_UPLOADED);
    wait_flags(f, 2, OBJECT_UPLOADED);
    expect_there(f, 2, SMALL);
    assert_int_equal(asked(f, CLOUD_PUT), 1);
    assert_int_equal(asked(f, CLOUD_HEAD), 2);
}

/* One step on the test's own thread; how many records there are then. */
static uint64_t records_after_step(struct fixture *f, uint64_t *until_ms)
{
    struct journal_stats stats;

    *until_ms = uploader_step(f->uploader);
    journal_stats(f->node->journal, &stats);
    return stats.records;
}

/* Goal: few uploads journal at once that they begin; of many, those that do so within 2 ms are
 * submitted together, 16 at most. */
static void test_together(void **state)
{
    struct fixture *f = *state;
    uint64_t until_ms, now_ms = env_mono_ms(&f->env);
    struct journal_stats before;

    atomic_store(&f->stands_ns, now_ms * 1000000);
    cloud_memory_hold(f->cloud, true);
    for (unsigned n = 0; n < 35; n++)
        put_one(f, n, SMALL, NULL);
    journal_stats(f->node->journal, &before);
    assert_int_equal(uploader_open(f->uploader), 0);
    WAIT_FOR(records_after_step(f, &until_ms) == before.records + 15 + 16);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(records_after_step(f, &until_ms), before.records + 15 + 16);
    assert_int_equal(until_ms, now_ms + 2);

    atomic_store(&f->stands_ns, (now_ms + 2) * 1000000);
    WAIT_FOR(records_after_step(f, &until_ms) == before.records + 35);
    atomic_store(&f->stands_ns, 0);
    cloud_memory_hold(f->cloud, false);
    for (unsigned n = 0; n < 35; n++)
        WAIT_FOR(records_after_step(f, &until_ms) && flags_of(f, n) & OBJECT_UPLOADED);
    assert_int_equal(asked(f, CLOUD_PUT), 35);
    uploader_cancel(f->uploader);
    WAIT_FOR(uploader_close_step(f->uploader));
}

/* Goal: a delete is marked and leaves the copy; a purge removes it, the sidecar, too, from where
 * the row says that it is; a second delete may ask for it. */
static void test_deletes(void **state)
{
    struct fixture *f = *state;
    char *meta = malloc(7001);

    memset(meta, 'x', 7000);
    memcpy(meta, "{\"a\":\"", 6);
    memcpy(meta + 6998, "\"}", 3);
    run(f);
    put_one(f, 1, SMALL, meta);
    free(meta);
    wait_flags(f, 1, OBJECT_UPLOADED);
    assert_true(is_there(f, key_of(1, "", ".usermeta")));
    assert_int_equal(remove_it(f, 1, false), 0);
    wait_flags(f, 1, OBJECT_DELETED | OBJECT_MARKED);
    assert_true(is_there(f, key_of(1, ".deleted/", "")));
    expect_there(f, 1, SMALL);
    assert_int_equal(remove_it(f, 1, true), 0);
    wait_flags(f, 1, OBJECT_PURGED);
    assert_int_equal(cloud_memory_count(f->cloud), 1);
    assert_true(is_there(f, key_of(1, ".deleted/", "")));

    /* It was never there: nothing is owed. */
    put_one(f, 3, SMALL, NULL);
    wait_flags(f, 3, OBJECT_UPLOADED);
    unsigned puts = asked(f, CLOUD_PUT);
    assert_int_equal(remove_it(f, 4, true), 0);
    put_one(f, 5, SMALL, NULL);
    wait_flags(f, 5, OBJECT_UPLOADED);
    assert_int_equal(asked(f, CLOUD_PUT), puts + 1);
}

/* Goal: what is purged while it is on its way is removed once it has arrived. */
static void test_purged_on_its_way(void **state)
{
    struct fixture *f = *state;

    cloud_memory_hold(f->cloud, true);
    run(f);
    put_one(f, 1, LARGE, NULL);
    cloud_memory_wait(f->cloud, CLOUD_PUT, 1);
    assert_int_equal(remove_it(f, 1, true), 0);
    cloud_memory_hold(f->cloud, false);
    wait_flags(f, 1, OBJECT_PURGED | OBJECT_MARKED);
    assert_false(is_there(f, key_of(1, "", "")));
    assert_int_equal(cloud_memory_count(f->cloud), 1);
}

/* Goal: where different bytes lie under the key than were said to, the row's own are sent again. */
static void test_other_bytes(void **state)
{
    struct fixture *f = *state;
    struct change other = {.request = {.kind = CHANGE_CLOUD,
                                       .id = make_id(1),
                                       .fields = EVENT_HAS_CLOUD | EVENT_HAS_SHA256,
                                       .cloud_state = CLOUD_UPLOADED,
                                       .sha256 = {1},
                                       .backend = {"memory", 6},
                                       .key = {"k", 1}}};

    run(f);
    put_one(f, 1, SMALL, NULL);
    wait_flags(f, 1, OBJECT_UPLOADED);
    cloud_memory_set(f->cloud, key_of(1, "", ""), "other", 5, NULL, NULL, 0, NULL, 0);
    assert_int_equal(say(f, &other), 0);
    cloud_memory_wait(f->cloud, CLOUD_PUT, 2);
    wait_flags(f, 1, OBJECT_UPLOADED);
    expect_there(f, 1, SMALL);
}

static int flip(const char *path, const struct stat *stat, int kind, struct FTW *at)
{
    uint8_t byte;
    FILE *file;

    (void)at;
    if (kind != FTW_F || !strstr(path, "/large/") || stat->st_size < (off_t)LARGE)
        return 0;
    file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 4096 + 150000, SEEK_SET), 0);
    assert_int_equal(fread(&byte, 1, 1, file), 1);
    byte ^= 1;
    assert_int_equal(fseek(file, 4096 + 150000, SEEK_SET), 0);
    assert_int_equal(fwrite(&byte, 1, 1, file), 1);
    assert_int_equal(fclose(file), 0);
    return 0;
}

/* Goal: a copy whose block does not verify is reported, and never gets there. */
static void test_damaged(void **state)
{
    struct fixture *f = *state;
    struct journal_stats stats;

    put_one(f, 1, LARGE, NULL);
    do {
        journal_stats(f->node->journal, &stats);
    } while (stats.pending);
    assert_int_equal(nftw(f->node->files, flip, 16, FTW_PHYS), 0);
    run(f);
    WAIT_FOR(atomic_load(&f->damaged) > 0);
    put_one(f, 2, SMALL, NULL);
    wait_flags(f, 2, OBJECT_UPLOADED);
    assert_false(is_there(f, key_of(1, "", "")));
    assert_int_equal(flags_of(f, 1) & OBJECT_UPLOADED, 0);
}

/* Goal: a stop ends what is under way, whatever it waits for; nothing is lost by it. */
static void test_stop(void **state)
{
    struct fixture *f = *state;

    cloud_memory_hold(f->cloud, true);
    run(f);
    for (unsigned n = 0; n < 40; n++)
        put_one(f, n, n % 8 ? SMALL : LARGE, NULL);
    cloud_memory_wait(f->cloud, CLOUD_PUT, LIMIT_OWED_REQUESTS);
    stop_node(f);
    assert_int_equal(cloud_memory_count(f->cloud), 0);
    cloud_memory_hold(f->cloud, false);
    start_node(f);
    run(f);
    for (unsigned n = 0; n < 40; n++)
        wait_flags(f, n, OBJECT_UPLOADED);
    assert_int_equal(cloud_memory_count(f->cloud), 40);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_once),        TEST(test_lost_answer),    TEST(test_outage),
        TEST(test_refused_key), TEST(test_missing_bucket), TEST(test_long_retry_after),
        TEST(test_restart),     TEST(test_deletes),        TEST(test_purged_on_its_way),
        TEST(test_other_bytes), TEST(test_damaged),        TEST(test_stop),
        TEST(test_together),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
