/* The store under test without doors, and what must be true of it whatever failed. */
#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "journal/journal.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"
#include "tests/fault/fault.h"

#include <dirent.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT (64 * KIB)
#define LARGE   (LIMIT_INLINE_BODY_BYTES + 3 * BLOCK_BYTES + 77)
#define NEW     (OBJECTS - 1) /* put by the check alone */

struct store_under_test {
    struct store_dirs dirs;
    struct ram *ram;
    struct journal *journal;
    char message[512];
};

size_t world_size(unsigned n)
{
    return n % 8 == 7 ? LARGE : n % 8 == 6 ? 70000 : n % 8 == 5 ? 0 : 1000 + n * 1777;
}

void world_body(uint8_t *body, size_t size, unsigned n)
{
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)(n * 131 + i * 7 + (i >> 8) + (i >> 16) * 3);
}

static struct id128 make_id(unsigned n)
{
    struct id128 id = {{0x01, 0x8b, 0xcf, 0xe5, 0x68}};

    id.bytes[7] = (uint8_t)(n / 2); /* two share a key of the database */
    id.bytes[15] = (uint8_t)n;
    return id;
}

void world_id(char text[27], unsigned n)
{
    struct id128 id = make_id(n);

    ulid_format(text, &id);
    text[26] = '\0';
}

void world_put_done(struct world *world, unsigned n, bool good)
{
    if (good && (world->may[n] & (IS_ABSENT | IS_PRESENT)) == 0)
        fault_fail("object %u was deleted, and a put of it succeeded", n);
    world->may[n] = good ? IS_PRESENT | NAME_OLD : world->may[n] | IS_PRESENT | NAME_OLD;
}

void world_delete_done(struct world *world, unsigned n, bool good)
{
    world->may[n] = good ? IS_DELETED : world->may[n] | IS_DELETED;
}

void world_rename_done(struct world *world, unsigned n, bool good)
{
    if (good)
        world->may[n] &= ~(unsigned)NAME_OLD;
    world->may[n] |= NAME_NEW;
}

/* ---- Open and close ---- */

static int open_store(struct store_under_test *store, const struct world *world)
{
    struct journal_config config = {.sync = true, .segment_bytes = SEGMENT};

    memset(store, 0, sizeof *store);
    config.dirs = &store->dirs;
    int rc = store_dirs_open(&store->dirs, env_system(), world->state, world->files, false,
                             store->message, sizeof store->message);
    if (rc)
        return rc;
    if ((rc = ram_create(&store->ram, 4 * MIB)) != 0) {
        (void)snprintf(store->message, sizeof store->message, "no memory for the RAM tier");
    } else {
        config.ram = store->ram;
        rc = journal_open(&store->journal, &config, store->message, sizeof store->message);
    }
    if (rc) {
        ram_destroy(&store->ram);
        store_dirs_close(&store->dirs);
    }
    return rc;
}

static void close_store(struct store_under_test *store, bool clean)
{
    if (clean)
        journal_stop(store->journal);
    journal_close(&store->journal);
    ram_destroy(&store->ram);
    store_dirs_close(&store->dirs);
}

static void must_open(struct store_under_test *store, const struct world *world)
{
    int rc = open_store(store, world);

    if (rc)
        fault_fail("a start without faults: %s (%s)", store->message, err_text(rc));
}

/* ---- Changes, step by step ---- */

static unsigned answered;

static void note_done(struct change *change)
{
    (void)change;
    answered++;
}

/* Whether it was acknowledged. */
static bool commit(struct store_under_test *store, struct change *change)
{
    unsigned before = answered;

    change->done = note_done;
    int rc = journal_submit(store->journal, change);
    if (rc)
        return false;
    while (answered == before && journal_commit_step(store->journal))
        ;
    if (answered != before + 1)
        fault_fail("a change was taken and never answered");
    object_destroy(&change->object);
    if (change->rc == ERR_CONFLICT || change->rc == ERR_DELETED || change->rc == ERR_NOT_FOUND)
        fault_fail("a good request was refused: %s", err_text(change->rc));
    return change->rc == 0;
}

static int write_large(struct store_under_test *store, struct change *change, const uint8_t *body,
                       struct large_writer **writer)
{
    uint64_t written;
    int rc = large_create(writer, journal_large(store->journal));

    if (rc == 0)
        rc = large_write(*writer, body, change->request.size);
    if (rc == 0)
        rc = large_write_back(*writer);
    if (rc == 0)
        rc = large_finish(*writer, &change->file, &written, &change->trailer);
    return rc;
}

static void put(struct world *world, struct store_under_test *store, unsigned n)
{
    static uint8_t body[LARGE];
    struct large_writer *writer = NULL;
    struct change change = {
        .request = {.kind = CHANGE_PUT,
                    .id = make_id(n),
                    .fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL | EVENT_HAS_NAME,
                    .name = {"old", 3},
                    .size = world_size(n)}};
    size_t size = world_size(n);

    fault_spare();
    world_body(body, size, n);
    sha256(body, size, change.request.sha256);
    fault_unspare();
    bool good = true;
    if (size > LIMIT_INLINE_BODY_BYTES) {
        good = write_large(store, &change, body, &writer) == 0;
    } else {
        change.body = body;
        for (uint64_t i = 0; i < block_count(size); i++) {
            size_t left = size - i * BLOCK_BYTES;

            change.sums[i] =
                block_checksum(body + i * BLOCK_BYTES, left < BLOCK_BYTES ? left : BLOCK_BYTES, i);
        }
    }
    good = good && commit(store, &change);
    large_writer_destroy(&writer, !change.stored);
    world_put_done(world, n, good);
}

static void delete_one(struct world *world, struct store_under_test *store, unsigned n)
{
    struct change change = {.request = {.kind = CHANGE_DELETE, .id = make_id(n)}};

    world_delete_done(world, n, commit(store, &change));
}

static void rename_one(struct world *world, struct store_under_test *store, unsigned n)
{
    struct change change = {
        .request = {
            .kind = CHANGE_META, .id = make_id(n), .fields = EVENT_HAS_NAME, .name = {"new", 3}}};

    world_rename_done(world, n, commit(store, &change));
}

/* ---- Looking ---- */

static void check_body(const struct store_under_test *store, const struct object *object,
                       unsigned n)
{
    size_t size = world_size(n);
    uint8_t *want = malloc(size + 1), *buf = malloc(RECORD_MAX_BYTES);
    struct record_view view;
    int rc;

    world_body(want, size, n);
    if (object->size != size)
        fault_fail("object %u has %" PRIu64 " bytes", n, object->size);
    if (object->place.volume == PLACE_LARGE) {
        struct large_reader *reader;
        size_t len;

        rc = large_reader_open(&reader, journal_large(store->journal), object->place.offset,
                               object->size);
        if (rc)
            fault_fail("object %u: %s", n, err_text(rc));
        for (uint64_t i = 0; i < block_count(size); i++)
            if ((rc = large_read_block(reader, i, buf, &len, false)) != 0 ||
                memcmp(buf, want + i * BLOCK_BYTES, len) != 0)
                fault_fail("object %u, block %" PRIu64 ": %s", n, i, err_text(rc));
        large_reader_close(&reader);
    } else {
        rc = log_read(journal_log(store->journal), &object->place, &object->id,
                      object->record_bytes, buf, RECORD_MAX_BYTES, false, &view);
        if (rc || view.header.body_bytes != size || memcmp(view.body, want, size) != 0)
            fault_fail("object %u: %s", n, err_text(rc));
    }
    free(want);
    free(buf);
}

static void check_object(const struct world *world, const struct store_under_test *store,
                         struct db_reader *reader, unsigned n, unsigned *large)
{
    struct object *object = NULL;
    struct id128 id = make_id(n);
    int rc = journal_find(store->journal, reader, &id, &object);

    if (rc && rc != ERR_NOT_FOUND)
        fault_fail("object %u: %s", n, err_text(rc));
    unsigned is = rc ? IS_ABSENT : object->flags & OBJECT_DELETED ? IS_DELETED : IS_PRESENT;
    unsigned may = world->may[n] & (IS_ABSENT | IS_PRESENT | IS_DELETED);
    if (!(may & is))
        fault_fail("object %u is %u and may be %u (1 absent, 2 present, 4 deleted)", n, is, may);
    if (is == IS_PRESENT) {
        bool is_new = object->name_len == 3 && memcmp(object_name(object).ptr, "new", 3) == 0;

        if (!(world->may[n] & (is_new ? NAME_NEW : NAME_OLD)))
            fault_fail("object %u has the %s name", n, is_new ? "new" : "old");
        check_body(store, object, n);
        *large += object->place.volume == PLACE_LARGE;
    }
    object_destroy(&object);
}

static unsigned count_files(const char *root, const char *sub)
{
    char path[512];
    unsigned count = 0;
    const struct dirent *entry;

    (void)snprintf(path, sizeof path, "%s/%s", root, sub);
    DIR *dir = opendir(path);
    while (dir && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", sub, entry->d_name);
        count += entry->d_type == DT_DIR ? count_files(root, path) : 1;
    }
    if (dir)
        (void)closedir(dir);
    return count;
}

static int count_garbage(void *arg, uint64_t file, lsn_t freed_at)
{
    (void)file, (void)freed_at;
    ++*(unsigned *)arg;
    return 0;
}

/* Each object is what it may be; rows, counters, chains and digest fit; no file is too many. */
static void look(const struct world *world, struct store_under_test *store, struct hash128 *digest)
{
    struct journal_verify_result chains;
    struct journal_stats stats;
    struct db_reader *reader;
    char report[256] = "";
    unsigned large = 0, garbage = 0;

    while (journal_apply_step(store->journal))
        ;
    if (journal_reader_open(store->journal, &reader))
        fault_fail("no reader");
    for (unsigned n = 0; n < OBJECTS; n++)
        check_object(world, store, reader, n, &large);
    if (journal_verify(reader, &chains) || chains.breaks)
        fault_fail("chains: %s", chains.message);
    if (db_check(reader, report, sizeof report))
        fault_fail("rows, counters or digest: %s", report);
    if (db_each_garbage(reader, 0, UINT64_MAX, 1000, count_garbage, &garbage))
        fault_fail("garbage cannot be listed");
    unsigned there = count_files(world->files, "large"), tmp = count_files(world->files, "tmp");
    if (tmp || there < large || there > large + garbage)
        fault_fail("%u large files and %u in tmp/ for %u objects and %u freed", there, tmp, large,
                   garbage);
    db_reader_close(&reader);
    journal_stats(store->journal, &stats);
    if (stats.pending || stats.events != chains.events || stats.read_only)
        fault_fail("%" PRIu64 " pending, %" PRIu64 " events and %" PRIu64 " in chains, %s",
                   stats.pending, stats.events, chains.events,
                   stats.read_only ? "read-only" : "writable");
    *digest = stats.digest;
}

static int rebuild(struct world *world, char message[512])
{
    struct store_dirs dirs;
    uint64_t events, objects;
    int rc = store_dirs_inspect(&dirs, env_system(), world->state, world->files, message, 512);

    if (rc)
        return rc;
    rc = journal_rebuild(&dirs, &events, &objects, message, 512);
    store_dirs_close(&dirs);
    return rc;
}

void store_check(struct world *world)
{
    struct store_under_test store;
    struct hash128 digest, rebuilt;
    char message[512];

    must_open(&store, world);
    look(world, &store, &digest);
    put(world, &store, NEW);
    if (world->may[NEW] & IS_ABSENT)
        fault_fail("a put after a start without faults failed");
    look(world, &store, &digest);
    close_store(&store, true);
    if (rebuild(world, message))
        fault_fail("rebuild: %s", message);
    must_open(&store, world);
    look(world, &store, &rebuilt);
    close_store(&store, true);
    if (memcmp(&digest, &rebuilt, sizeof digest) != 0)
        fault_fail("the digest of the rebuilt database differs");
}

/* ---- Scenarios ---- */

static void fill(struct world *world, struct store_under_test *store)
{
    must_open(store, world);
    for (unsigned n = 0; n < 8; n++)
        put(world, store, n);
    delete_one(world, store, 1);
    rename_one(world, store, 2);
}

void store_prepare(struct world *world)
{
    struct store_under_test store;

    fill(world, &store);
    close_store(&store, true);
}

void store_prepare_killed(struct world *world)
{
    struct store_under_test store;

    fill(world, &store);
    while (journal_apply_step(store.journal))
        ;
    delete_one(world, &store, 3);
    rename_one(world, &store, 4);
    put(world, &store, 8);
    put(world, &store, 9);
    close_store(&store, false);
}

void store_prepare_dead(struct world *world)
{
    struct store_under_test store;

    must_open(&store, world);
    for (unsigned n = 0; n < OBJECTS - 1; n++)
        put(world, &store, n);
    for (unsigned n = 0; n < OBJECTS - 1; n++)
        if (n % 3)
            delete_one(world, &store, n);
    close_store(&store, true);
}

/* Where it did not start, whoever started it knows why, and nothing else is to be done. */
static bool try_open(struct world *world, struct store_under_test *store)
{
    int rc = open_store(store, world);

    if (rc && !*store->message)
        fault_fail("a start failed (%s) and did not say why", err_text(rc));
    return rc == 0;
}

void store_restart(struct world *world)
{
    struct store_under_test store;

    world_arm(world);
    if (try_open(world, &store))
        close_store(&store, true);
}

void store_change(struct world *world)
{
    struct store_under_test store;

    must_open(&store, world);
    world_arm(world);
    put(world, &store, 8);
    put(world, &store, 14);
    (void)journal_apply_step(store.journal);
    put(world, &store, 15);
    rename_one(world, &store, 0);
    delete_one(world, &store, 2);
    delete_one(world, &store, 7);
    (void)journal_apply_step(store.journal);
    (void)applier_checkpoint(store.journal);
    (void)journal_upkeep_step(store.journal);
    close_store(&store, true);
}

void store_clean(struct world *world)
{
    struct store_under_test store;
    struct journal_stats stats;

    must_open(&store, world);
    world_arm(world);
    for (int i = 0; i < 60; i++) {
        (void)journal_upkeep_step(store.journal);
        (void)journal_commit_step(store.journal);
        (void)journal_apply_step(store.journal);
        (void)applier_checkpoint(store.journal);
    }
    journal_stats(store.journal, &stats);
    if (world->k == 0 && (stats.moved_records == 0 || stats.cleaned_segments == 0))
        fault_fail("nothing was cleaned: %" PRIu64 " moved, %" PRIu64 " segments cleaned",
                   stats.moved_records, stats.cleaned_segments);
    close_store(&store, true);
}

void store_compact(struct world *world)
{
    struct journal_compact_result result;
    struct store_under_test store;

    must_open(&store, world);
    world_arm(world);
    int rc = journal_compact(store.journal, &result);
    if (world->k == 0 && (rc || result.events == 0))
        fault_fail("nothing was compacted: %s", err_text(rc));
    delete_one(world, &store, 3);
    (void)journal_apply_step(store.journal);
    (void)applier_checkpoint(store.journal);
    close_store(&store, true);
}

/* A backup that was reported complete is a store of its own. */
void store_backup(struct world *world)
{
    struct store_under_test store;
    char message[512] = "";

    must_open(&store, world);
    world_arm(world);
    int rc = journal_backup(store.journal, world->backup, message, sizeof message);
    close_store(&store, true);
    fault_disarm();
    if (rc && !*message)
        fault_fail("a backup failed and did not say why: %s", err_text(rc));
    if (rc == 0) {
        struct world copy = *world;

        (void)snprintf(copy.state, sizeof copy.state, "%s/state", world->backup);
        (void)snprintf(copy.files, sizeof copy.files, "%s/files", world->backup);
        store_check(&copy);
    }
}

void store_rebuild(struct world *world)
{
    char message[512] = "";

    world_arm(world);
    int rc = rebuild(world, message);
    fault_disarm();
    if (rc && !*message)
        fault_fail("a rebuild failed and did not say why: %s", err_text(rc));
    if (rc) {
        struct store_under_test store;

        /* Where it had taken the old database away, the start says so. */
        if (open_store(&store, world) == 0)
            close_store(&store, true);
        else if (!strstr(store.message, "rebuild"))
            fault_fail("after a failed rebuild: %s", store.message);
        else if (rebuild(world, message))
            fault_fail("rebuild without faults: %s", message);
    }
}
