/*
 * Rebuilding from a snapshot: finding the chunks in a log, telling which snapshots are whole, and
 * loading the newest of these into a fresh database.
 *
 * Whole means: an end chunk, every chunk that it counts, and the hash over all of them. One that
 * lacks its end was never finished, or its end is rotten: it is ignored. One that has its end and
 * lacks something else is damaged; the complete one before it then serves, for nothing that this
 * one does not cover has left the log: only what the *older* of two complete ones covers ever does.
 * Where that is not whole either, events that are needed may be gone: that is refused rather than
 * bringing deleted objects back.
 *
 * Loading: rows are set as they are, and counters, digest and sums are those of the rows; the
 * vector becomes the runs' anchors, so that the covered events need not be there.
 */
#include "base/log.h"
#include "journal/db_cluster.h"
#include "journal/db_peers.h"
#include "journal/journal_internal.h"
#include "journal/snapshot.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_PER_TRANSACTION 20000
#define READ_TRIES           3

struct noted_chunk {
    uint32_t index;
    struct place place;
};

struct noted {
    struct id128 id;
    struct noted_chunk *chunks;
    size_t count, cap;
    bool has_end, whole;
    uint32_t version;
    struct snapshot_end end;
};

struct snapshot_found {
    struct noted *snapshots;
    size_t count;
};

void snapshot_found_destroy(struct snapshot_found **found)
{
    struct snapshot_found *it = *found;

    if (!it)
        return;
    for (size_t i = 0; i < it->count; i++)
        free(it->snapshots[i].chunks);
    free(it->snapshots);
    free(it);
    *found = NULL;
}

static struct noted *noted_of(struct snapshot_found *found, const struct id128 *id)
{
    for (size_t i = found->count; i-- > 0;)
        if (id_equal(&found->snapshots[i].id, id))
            return &found->snapshots[i];

    struct noted *grown = realloc(found->snapshots, (found->count + 1) * sizeof *grown);

    if (!grown)
        return NULL;
    found->snapshots = grown;
    grown[found->count] = (struct noted){.id = *id};
    return &grown[found->count++];
}

int snapshot_note(struct snapshot_found **found, const struct record_view *view,
                  const struct place *place)
{
    struct snapshot_reader reader;
    int rc = snapshot_open(&reader, view->event, view->header.event_bytes);

    if (rc == ERR_INVALID)
        return 0; /* reported when it is replayed */
    if (rc)
        return rc;
    if (!*found && !(*found = calloc(1, sizeof **found)))
        return ERR_NO_MEMORY;
    struct noted *noted = noted_of(*found, &reader.snapshot);

    if (!noted)
        return ERR_NO_MEMORY;
    noted->version = reader.version;
    if (noted->count == noted->cap) {
        size_t cap = noted->cap ? 2 * noted->cap : 64;
        struct noted_chunk *grown = reallocarray(noted->chunks, cap, sizeof *grown);

        if (!grown)
            return ERR_NO_MEMORY;
        noted->chunks = grown;
        noted->cap = cap;
    }
    noted->chunks[noted->count++] = (struct noted_chunk){.index = reader.index, .place = *place};
    if (reader.kind == SNAPSHOT_END)
        noted->has_end |= snapshot_next_end(&reader, &noted->end) == 1;
    return 0;
}

bool snapshot_is_whole(void *arg, const struct id128 *snapshot)
{
    const struct snapshot_found *found = arg;

    for (size_t i = 0; found && i < found->count; i++)
        if (id_equal(&found->snapshots[i].id, snapshot))
            return found->snapshots[i].whole;
    return false;
}

static int by_index(const void *a, const void *b)
{
    const struct noted_chunk *x = a, *y = b;

    return (x->index > y->index) - (x->index < y->index);
}

/* Hand every chunk to VISIT in order, once. ERR_CORRUPT: one is missing or cannot be read. */
static int each_chunk(struct journal *journal, const struct noted *noted,
                      int (*visit)(void *arg, const uint8_t *chunk, size_t len), void *arg)
{
    uint8_t *buf = malloc(RECORD_MAX_BYTES);
    static const struct id128 none;
    uint32_t next = 0;
    int rc = buf ? 0 : ERR_NO_MEMORY;

    for (size_t i = 0; rc == 0 && i < noted->count; i++) {
        struct record_view view;

        if (noted->chunks[i].index < next)
            continue; /* cleaning has moved it, and this is the other one */
        if (noted->chunks[i].index > next)
            break;
        rc = ERR_IO;
        for (int tries = 0; rc == ERR_IO && tries < READ_TRIES; tries++)
            rc = log_read(journal->log, &noted->chunks[i].place, &none, 0, buf, RECORD_MAX_BYTES,
                          false, &view);
        if (rc == ERR_CORRUPT || rc == ERR_NOT_FOUND ||
            (rc == ERR_IO && journal->config.dirs->accept_loss)) {
            rc = 0; /* perhaps there is another one */
            continue;
        }
        if (rc == 0)
            rc = visit(arg, view.event, view.header.event_bytes);
        next++;
    }
    free(buf);
    return rc == 0 && next != noted->end.chunks ? ERR_CORRUPT : rc;
}

/* ---- Which is whole ---- */

struct hashing {
    struct digest *digest;
    uint32_t left; /* chunks before the end */
};

static int hash_chunk(void *arg, const uint8_t *chunk, size_t len)
{
    struct hashing *hashing = arg;
    uint8_t hash[SHA256_BYTES];

    if (hashing->left == 0)
        return 0;
    hashing->left--;
    sha256(chunk, len, hash);
    digest_update(hashing->digest, hash, sizeof hash);
    return 0;
}

/* Sets noted->whole. */
static int judge(struct journal *journal, struct noted *noted)
{
    struct hashing hashing = {.left = noted->end.chunks - 1};
    uint8_t hash[SHA256_BYTES];
    int rc;

    if (!noted->has_end || noted->end.chunks == 0)
        return 0;
    qsort(noted->chunks, noted->count, sizeof *noted->chunks, by_index);
    rc = digest_create(&hashing.digest, DIGEST_SHA256);
    if (rc)
        return rc;
    rc = each_chunk(journal, noted, hash_chunk, &hashing);
    if (rc == 0) {
        digest_final(hashing.digest, hash);
        noted->whole = memcmp(hash, noted->end.hash, sizeof hash) == 0;
    }
    digest_destroy(&hashing.digest);
    return rc == ERR_CORRUPT ? 0 : rc;
}

/* ---- Loading ---- */

struct loading {
    struct journal *journal;
    unsigned rows;
};

static int load_begin(struct journal *journal, struct snapshot_reader *reader)
{
    struct applier *a = &journal->applier;
    struct snapshot_begin first;
    int rc = snapshot_next_begin(reader, &first);

    if (rc != 1)
        return rc ? rc : ERR_INVALID;
    if (!id_equal(&first.node, &journal->node))
        log_warn("rebuild: the snapshot was written under another node id");
    a->state.hlc = first.hlc;
    a->state.last_origin = first.last_origin;
    return 0;
}

static int load_origins(struct journal *journal, struct snapshot_reader *reader)
{
    struct applier *a = &journal->applier;
    struct snapshot_origin origin;
    int rc;

    while ((rc = snapshot_next_origin(reader, &origin)) == 1) {
        struct db_origin *grown = realloc(a->origins, (a->origin_count + 1) * sizeof *grown);

        if (!grown)
            return ERR_NO_MEMORY;
        a->origins = grown;
        struct db_origin *row = &grown[a->origin_count];

        *row = (struct db_origin){.origin = origin.origin,
                                  .node = origin.node,
                                  .seq = origin.seq,
                                  .anchor_seq = origin.seq,
                                  .ended = origin.ended};
        memcpy(row->hash, origin.hash, sizeof row->hash);
        memcpy(row->anchor_hash, origin.hash, sizeof row->anchor_hash);
        rc = db_origin_set(a->db, row);
        if (rc)
            return rc;
        a->origin_count++;
    }
    return rc;
}

/* What of the outbox follows from the row. */
static int load_owed(struct db *db, const struct object *object)
{
    const struct {
        enum outbox_kind kind;
        bool owed;
    } rows[] = {
        {OUTBOX_UPLOAD, object_owed_here(object)},
        {OUTBOX_REPLICA, object_wanted_here(object)},
        {OUTBOX_MARK, object_owes_mark(object)},
        {OUTBOX_PURGE, object_owes_purge(object)},
    };
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof rows / sizeof *rows; i++)
        if (rows[i].owed)
            rc = db_outbox_set(db, rows[i].kind, &object->id, object->size,
                               hlc_wall_ms(object_stamp(object)), true);
    return rc;
}

static int load_row(struct journal *journal, const struct object *object)
{
    struct applier *a = &journal->applier;
    const struct place *place = &object->place;
    struct delta delta = {0};
    int rc = db_object_set(a->db, object);

    if (rc == 0)
        rc = load_owed(a->db, object);
    if (rc == 0 && !place_is_none(place) && place->volume != PLACE_LARGE)
        rc = applier_add_sums(a, place->volume, 0, (int64_t)object->size, object->record_bytes);
    fold_delta(&delta, NULL, object);
    state_add(&a->state, &delta);
    return rc;
}

static int load_rows(struct loading *loading, struct snapshot_reader *reader)
{
    struct object *object = NULL;
    int rc;

    while ((rc = snapshot_next_row(reader, &object)) == 1) {
        rc = load_row(loading->journal, object);
        object_destroy(&object);
        if (rc)
            return rc;
        loading->rows++;
    }
    return rc;
}

static int load_losers(struct journal *journal, struct snapshot_reader *reader)
{
    struct object *loser = NULL;
    int rc;

    while ((rc = snapshot_next_loser(reader, &loser)) == 1) {
        rc = applier_load_loser(journal, loser);
        object_destroy(&loser);
        if (rc)
            return rc;
    }
    return rc;
}

static int load_begun(struct db *db, const struct snapshot_owed *owed)
{
    struct object *object = NULL;
    int rc = db_find_writing(db, &owed->id, &object);

    if (rc == 0)
        rc = db_outbox_set(db, OUTBOX_BEGUN, &owed->id, object->size, owed->since_ms, true);
    object_destroy(&object);
    return rc == ERR_NOT_FOUND ? 0 : rc; /* later than the rows: its record is still to come */
}

static int load_rest(struct db *db, struct snapshot_reader *reader)
{
    struct snapshot_garbage garbage;
    struct snapshot_owed owed;
    int rc;

    if (reader->kind == SNAPSHOT_OUTBOX) {
        while ((rc = snapshot_next_owed(reader, &owed)) == 1)
            if ((rc = db_owed_since(db, OUTBOX_UPLOAD, &owed.id, owed.since_ms)) != 0)
                break;
        return rc;
    }
    if (reader->kind == SNAPSHOT_BEGUN) {
        while ((rc = snapshot_next_owed(reader, &owed)) == 1)
            if ((rc = load_begun(db, &owed)) != 0)
                break;
        return rc;
    }
    while ((rc = snapshot_next_garbage(reader, &garbage)) == 1)
        if ((rc = db_garbage_add(db, garbage.file, garbage.freed_at)) != 0)
            break;
    return rc;
}

static int load_peer_facts(struct loading *loading, struct snapshot_reader *reader)
{
    struct db *db = loading->journal->applier.db;
    struct snapshot_holder holder;
    struct snapshot_member member;
    uint32_t feature;
    int rc;

    if (reader->kind == SNAPSHOT_FEATURE) {
        while ((rc = snapshot_next_feature(reader, &feature)) == 1)
            if ((rc = db_feature_raise(db, feature)) != 0)
                break;
        return rc;
    }
    if (reader->kind == SNAPSHOT_MEMBERS) {
        while ((rc = snapshot_next_member(reader, &member)) == 1)
            if ((rc = db_member_join(db, &member)) != 0)
                break;
        return rc;
    }
    while ((rc = snapshot_next_holder(reader, &holder)) == 1) {
        if ((rc = db_holder_join(db, &holder)) != 0)
            break;
        loading->rows++;
    }
    return rc;
}

static int load_chunk(void *arg, const uint8_t *chunk, size_t len)
{
    struct loading *loading = arg;
    struct journal *journal = loading->journal;
    struct snapshot_reader reader;
    int rc = snapshot_open(&reader, chunk, len);

    if (rc)
        return rc;
    switch (reader.kind) {
    case SNAPSHOT_BEGIN:
        return load_begin(journal, &reader);
    case SNAPSHOT_ORIGINS:
        return load_origins(journal, &reader);
    case SNAPSHOT_ROWS:
        rc = load_rows(loading, &reader);
        break;
    case SNAPSHOT_HOLDERS:
    case SNAPSHOT_MEMBERS:
    case SNAPSHOT_FEATURE:
        rc = load_peer_facts(loading, &reader);
        break;
    case SNAPSHOT_LOSERS:
        return load_losers(journal, &reader);
    case SNAPSHOT_OUTBOX:
    case SNAPSHOT_BEGUN:
    case SNAPSHOT_GARBAGE:
        return load_rest(journal->applier.db, &reader);
    case SNAPSHOT_END:
        return 0;
    default:
        log_error("rebuild: a snapshot holds a kind of chunk of a newer version");
        return ERR_FORMAT;
    }
    if (rc == 0 && loading->rows >= ROWS_PER_TRANSACTION) {
        loading->rows = 0;
        rc = applier_commit(journal, 0);
        if (rc == 0 && db_wal_pages(journal->applier.db) >= CHECKPOINT_PAGES)
            rc = applier_checkpoint(journal);
        if (rc == 0)
            rc = applier_begin(journal);
    }
    return rc;
}

static int load(struct journal *journal, const struct noted *noted)
{
    struct loading loading = {.journal = journal};
    int rc = applier_begin(journal);

    if (rc)
        return rc;
    rc = each_chunk(journal, noted, load_chunk, &loading);
    if (rc == 0)
        rc = applier_commit(journal, 0);
    if (rc)
        applier_rollback(journal);
    return rc;
}

int snapshot_load(struct journal *journal, struct snapshot_found *found, lsn_t *covered,
                  bool *without_peers, char *message, size_t cap)
{
    struct noted *best = NULL;
    lsn_t needed = 0;
    int rc;

    *covered = 0;
    *without_peers = false;
    for (size_t i = 0; found && i < found->count; i++) {
        struct noted *noted = &found->snapshots[i];

        if ((rc = judge(journal, noted)) != 0)
            return rc;
        if (noted->whole && (!best || noted->end.position > best->end.position))
            best = noted;
        if (noted->has_end && noted->end.previous > needed)
            needed = noted->end.previous;
        if (noted->has_end && !noted->whole)
            log_warn("rebuild: the snapshot of position %llu is damaged and not used",
                     (unsigned long long)noted->end.position);
        else if (!noted->has_end)
            log_info("rebuild: a snapshot without an end is not used");
    }
    if ((best ? best->end.position : 0) < needed) {
        snprintf(message, cap,
                 "both snapshots in the log of %s are damaged: events that it does not hold any "
                 "more would be missing; restore a backup",
                 journal->config.dirs->files_dir);
        return ERR_CORRUPT;
    }
    if (!best)
        return 0;
    *covered = best->end.position;
    *without_peers = best->version < 2;
    rc = load(journal, best);
    if (rc == 0)
        log_info("rebuild: from the snapshot of position %llu, %llu objects",
                 (unsigned long long)best->end.position,
                 (unsigned long long)journal->applier.state.objects);
    return rc;
}
