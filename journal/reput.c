/*
 * Putting bytes again that lost against others under their id.
 *
 * Happy path: the applier has put a row into the table of conflicts and woken the janitor → rows in
 * order, some in each step: the body is read, verified against its SHA-256, and submitted as a
 * CHANGE_REPUT under its own id (a large one is first copied into a file of its own, a bounded
 * number of blocks a step) → the committer decides, since a delete may have come in between → the
 * applier takes the row out, in the transaction that gives the new object its place.
 *
 * Whoever holds the bytes does it, without asking others: several puts under one id with the same
 * bytes and stamp are no conflict, and where another's came first this one is a mere hold.
 *
 * Failure: a body that cannot be read, or a change that is refused, is tried again in a later
 * round, with growing pauses; its row and its bytes stay. A crash loses nothing but a half copied
 * file.
 */
#include "journal/reput.h"

#include "base/log.h"
#include "journal/conflict.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define PER_STEP       64
#define STEP_BYTES     (2 * MIB)
#define RETRY_MS       1000
#define RETRY_MAX_MS   600000
#define LINES_A_MINUTE 20

/* One on its way. */
struct put {
    struct change change;
    struct journal *journal;
    struct object *loser;
    struct large_writer *writer; /* of a large one */
    uint8_t body[];
};

struct step {
    struct journal *journal;
    uint64_t bytes;
};

void reput_release(struct reput *reput)
{
    large_reader_close(&reput->reader);
    large_writer_destroy(&reput->writer, true);
    object_destroy(&reput->large.loser);
    digest_destroy(&reput->digest);
    free(reput->buf);
    reput->buf = NULL;
}

/* ---- How it went ---- */

/* Conflicts come by the thousand or not at all: some are named, all are counted. */
static bool may_say(struct journal *journal)
{
    struct reput *r = &journal->reput;
    uint64_t minute = env_mono_ms(journal->env) / 60000;

    if (atomic_exchange(&r->minute, minute) != minute)
        atomic_store(&r->said, 0);
    return atomic_fetch_add(&r->said, 1) < LINES_A_MINUTE;
}

static void say_done(const struct put *put)
{
    char from[ULID_TEXT_BYTES + 1], to[ULID_TEXT_BYTES + 1];

    ulid_format(from, &put->change.lost);
    ulid_format(to, &put->change.request.id);
    log_warn("conflict: different bytes were put under %s; the %llu bytes that lost are object %s",
             from, (unsigned long long)put->change.request.size, to);
}

static void say_failed(struct journal *journal, const struct object *loser, const char *what,
                       int rc)
{
    char id[ULID_TEXT_BYTES + 1];

    atomic_store(&journal->reput.failed, rc);
    if (!may_say(journal))
        return;
    ulid_format(id, &loser->id);
    log_warn("conflict: the bytes that lost under %s are not %s: %s; will try again", id, what,
             err_text(rc));
}

static void put_done(struct change *change)
{
    struct put *put = (struct put *)change;
    struct journal *journal = put->journal;
    struct reput *r = &journal->reput;
    int rc = change->rc;

    if (rc == 0 && change->verdict == VERDICT_COMMIT) {
        atomic_fetch_add(&r->done, 1);
        atomic_fetch_add(&r->bytes, change->request.size);
        if (may_say(journal))
            say_done(put);
    } else if (rc && rc != ERR_DELETED) {
        say_failed(journal, put->loser, "put again", rc);
    }
    large_writer_destroy(&put->writer, !change->stored);
    object_destroy(&change->object);
    object_destroy(&put->loser);
    free(put);
    if (atomic_fetch_sub(&r->in_flight, 1) == 1) {
        pthread_mutex_lock(&journal->lock);
        pthread_cond_broadcast(&journal->upkeep); /* the janitor may go on */
        pthread_mutex_unlock(&journal->lock);
    }
}

/* ---- One ---- */

static int submit(struct journal *journal, struct put *put, const struct db_conflict *conflict)
{
    struct request *request = &put->change.request;
    struct reput *r = &journal->reput;

    put->loser = object_copy(conflict->loser);
    if (!put->loser)
        return ERR_NO_MEMORY;
    const struct object *loser = put->loser;

    put->journal = journal;
    put->change.done = put_done;
    put->change.lost = loser->id;
    request->kind = CHANGE_REPUT;
    request->id = conflict->target;
    request->stamp = loser->put_at.stamp;
    request->fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL |
                      (loser->name_len ? EVENT_HAS_NAME : 0) |
                      (loser->type_len ? EVENT_HAS_TYPE : 0) |
                      (loser->user_meta_len ? EVENT_HAS_USER_META : 0) |
                      (loser->expires_ms ? EVENT_HAS_EXPIRES : 0);
    request->size = loser->size;
    request->level = loser->level;
    request->name = object_name(loser);
    request->type = object_type(loser);
    request->user_meta = object_user_meta(loser);
    request->expires_ms = loser->expires_ms;
    memcpy(request->sha256, loser->sha256, SHA256_BYTES);
    atomic_fetch_add(&r->in_flight, 1);
    int rc = journal_submit(journal, &put->change);

    if (rc)
        atomic_fetch_sub(&r->in_flight, 1);
    return rc;
}

static int put_small(struct step *step, const struct db_conflict *conflict)
{
    const struct object *loser = conflict->loser;
    struct journal *journal = step->journal;
    struct reput *r = &journal->reput;
    uint8_t sha[SHA256_BYTES];
    struct record_view view;
    int rc;

    if (!r->buf && !(r->buf = malloc(RECORD_MAX_BYTES)))
        return ERR_NO_MEMORY;
    rc = log_read(journal->log, &loser->place, &loser->id, loser->record_bytes, r->buf,
                  RECORD_MAX_BYTES, false, &view);
    if (rc)
        return rc;
    sha256(view.body, view.header.body_bytes, sha);
    if (view.header.body_bytes != loser->size || memcmp(sha, loser->sha256, SHA256_BYTES) != 0)
        return ERR_CORRUPT;
    struct put *put = calloc(1, sizeof *put + loser->size);

    if (!put)
        return ERR_NO_MEMORY;
    memcpy(put->body, view.body, loser->size);
    memcpy(put->change.sums, view.sums, 8ul * view.header.blocks);
    put->change.body = put->body;
    step->bytes += loser->size;
    rc = submit(journal, put, conflict);
    if (rc) {
        object_destroy(&put->loser);
        free(put);
    }
    return rc;
}

/* ---- A large one: a copy of its own, as its file goes with the row that lost ---- */

static void end_large(struct reput *r)
{
    large_reader_close(&r->reader);
    large_writer_destroy(&r->writer, true);
    object_destroy(&r->large.loser);
}

static int begin_large(struct journal *journal, const struct db_conflict *conflict)
{
    const struct object *loser = conflict->loser;
    struct reput *r = &journal->reput;
    int rc = journal_claim(journal, loser->size, true);

    assert(!r->large.loser);
    if (!r->buf && !(r->buf = malloc(RECORD_MAX_BYTES)))
        return ERR_NO_MEMORY;
    if (rc == 0 && !r->digest)
        rc = digest_create(&r->digest, DIGEST_SHA256);
    if (rc)
        return rc;
    digest_reset(r->digest);
    r->block = 0;
    rc = large_reader_open(&r->reader, journal->large, loser->place.offset, loser->size);
    if (rc == 0)
        rc = large_create(&r->writer, journal->large);
    r->large.target = conflict->target;
    r->large.loser = object_copy(loser);
    if (rc == 0 && !r->large.loser)
        rc = ERR_NO_MEMORY;
    if (rc)
        end_large(r);
    return rc;
}

static int finish_large(struct journal *journal)
{
    struct reput *r = &journal->reput;
    struct put *put = calloc(1, sizeof *put);
    uint8_t sha[SHA256_BYTES];
    uint64_t size;
    int rc = put ? 0 : ERR_NO_MEMORY;

    digest_final(r->digest, sha);
    if (memcmp(sha, r->large.loser->sha256, SHA256_BYTES) != 0)
        rc = ERR_CORRUPT;
    if (rc == 0)
        rc = large_finish(r->writer, &put->change.file, &size, &put->change.trailer);
    if (rc == 0) {
        put->writer = r->writer;
        rc = submit(journal, put, &r->large);
    }
    if (rc == 0) {
        r->writer = NULL; /* it is the change's now */
        return 0;
    }
    if (put)
        object_destroy(&put->loser);
    free(put);
    return rc;
}

/* Some blocks. */
static void copy_large(struct journal *journal)
{
    struct reput *r = &journal->reput;
    const struct object *loser = r->large.loser;
    uint64_t copied = 0;
    int rc = 0;

    while (rc == 0 && r->block < block_count(loser->size) && copied < STEP_BYTES) {
        size_t len;

        rc = large_read_block(r->reader, r->block++, r->buf, &len, false);
        if (rc)
            break;
        digest_update(r->digest, r->buf, len);
        rc = large_write(r->writer, r->buf, len);
        copied += len;
    }
    if (rc == 0)
        rc = large_write_back(r->writer);
    if (rc == 0 && r->block < block_count(loser->size))
        return;
    if (rc == 0)
        rc = finish_large(journal);
    if (rc) {
        say_failed(journal, loser, "copied", rc);
        journal_freed(journal);
    }
    end_large(r);
}

/* ---- The round ---- */

/* Whether CONFLICT is still to be put: what was is in the table until it is applied. */
static int is_owed(struct journal *journal, const struct db_conflict *conflict, bool *owed)
{
    struct db_reader *reader = journal->cleaner.reader;
    struct object *row = NULL;
    int rc = journal_find(journal, reader, &conflict->loser->id, &row);

    *owed = rc == 0 && !(row->flags & OBJECT_DELETED);
    object_destroy(&row);
    if (rc == 0 && *owed) {
        rc = journal_find(journal, reader, &conflict->target, &row);
        *owed = conflict_fate(conflict->loser->sha256, row) == CONFLICT_OWED;
        object_destroy(&row);
    }
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

static int look_at(void *arg, const struct db_conflict *conflict)
{
    struct step *step = arg;
    struct journal *journal = step->journal;
    bool owed;

    if (step->bytes >= STEP_BYTES || journal->reput.large.loser)
        return 1;
    int rc = is_owed(journal, conflict, &owed);

    if (rc == 0 && owed)
        rc = conflict->loser->place.volume == PLACE_LARGE ? begin_large(journal, conflict)
                                                          : put_small(step, conflict);
    if (rc == ERR_FULL)
        return 1; /* the committer is busy: this one again in the next step */
    if (rc)
        say_failed(journal, conflict->loser, "read", rc);
    return 0;
}

/* The end of the table: what failed is tried again after a while. */
static void end_round(struct journal *journal, uint64_t now_ms)
{
    struct reput *r = &journal->reput;

    r->after = (struct db_conflict_cursor){{{0}}, {0}};
    if (atomic_exchange(&r->failed, 0) == 0) {
        r->backoff_ms = 0;
        return;
    }
    r->backoff_ms = r->backoff_ms ? 2 * r->backoff_ms : RETRY_MS;
    if (r->backoff_ms > RETRY_MAX_MS)
        r->backoff_ms = RETRY_MAX_MS;
    r->not_before_ms = now_ms + r->backoff_ms;
}

bool reput_step(struct journal *journal)
{
    struct step step = {.journal = journal};
    struct reput *r = &journal->reput;
    uint64_t now_ms = env_mono_ms(journal->env);
    unsigned count;

    if (atomic_load(&r->in_flight))
        return false;
    if (r->large.loser) {
        copy_large(journal);
        return true;
    }
    if (atomic_load(&journal->losers) == 0 || atomic_load(&journal->read_only) ||
        now_ms < r->not_before_ms)
        return false;
    int rc = db_each_conflict(journal->cleaner.reader, &r->after, PER_STEP, look_at, &step, &count);

    if (rc) {
        log_warn("conflict: what lost cannot be read: %s", err_text(rc));
        r->not_before_ms = now_ms + RETRY_MS;
        return false;
    }
    if (count == PER_STEP || step.bytes >= STEP_BYTES || r->large.loser)
        return true;
    end_round(journal, now_ms);
    return false;
}
