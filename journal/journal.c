/*
 * The journal put together: opening, its three threads, and what others ask of it.
 *
 * Start: database → log → recovery (SQLite catches up with the log) → large files settled, tmp/
 * cleared → serve. Stop: the committer drains its queue and writes a last empty batch, the applier
 * applies what is left, checkpoints and marks the database clean for this generation.
 */
#include "journal/journal.h"

#include "base/io.h"
#include "base/log.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"
#include "journal/vfs.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMIT_IDLE_MS  50 /* after this long without work the log is marked as synced */
#define APPLY_IDLE_MS   500
#define APPLY_GATHER    256 /* with fewer entries than that … */
#define APPLY_GATHER_MS 2   /* … the applier lets this long pass between two transactions */
#define UPKEEP_IDLE_MS  200
#define ROOM_WAIT_MS    100
#define RETRY_APPLY_MS  200

#define NEWER_HINT                                                                                 \
    "; it is of a newer version, which can open it, or no database of ours: then"                  \
    " 'objctl journal rebuild' makes it anew from the log"

/* MESSAGE becomes "PATH: what RC means", and HINT where there is one. */
static int say(char *message, size_t cap, int rc, const char *path, const char *hint)
{
    snprintf(message, cap, "%s: %s%s", path, err_text(rc), hint);
    return rc;
}

/* The node's id outlives its database: state/NODE_ID holds it as text. */
int journal_load_node(struct journal *journal, char *message, size_t cap)
{
    char *found = NULL;
    char *path = io_join(journal->config.dirs->state_dir, "NODE_ID");
    size_t len;
    int rc;

    if (!path)
        return ERR_NO_MEMORY;
    rc = io_read_all(journal->env->io, path, 64, &found, &len);
    if (rc == ERR_NOT_FOUND) {
        journal->node = ulid_make(journal->env, env_wall_ms(journal->env));
        journal->node_is_new = true;
        rc = 0;
    } else if (rc == 0) {
        rc = len >= ULID_TEXT_BYTES ? ulid_parse(&journal->node, found, ULID_TEXT_BYTES)
                                    : ERR_INVALID;
    }
    /* What a killed process renamed is there and yet may go with the power: STORE as well, whose
     * generation this start counts from. */
    if (rc == 0)
        rc = journal->env->io->sync_dir(journal->env->io, journal->config.dirs->state_dir);
    if (rc)
        say(message, cap, rc, path, "");
    free(found);
    free(path);
    return rc;
}

int journal_save_node(struct journal *journal)
{
    char text[ULID_TEXT_BYTES + 2];
    char *path = io_join(journal->config.dirs->state_dir, "NODE_ID");
    int rc = ERR_NO_MEMORY;

    ulid_format(text, &journal->node);
    text[ULID_TEXT_BYTES] = '\n';
    if (path)
        rc = io_replace(journal->env->io, path, text, ULID_TEXT_BYTES + 1);
    free(path);
    return rc;
}

/* The database knows whose it is: a NODE_ID that is gone is made again from it, and one of another
 * node is refused. */
static int check_node(struct journal *journal, char *message, size_t cap)
{
    struct applier *a = &journal->applier;
    int rc = 0;

    if (journal->node_is_new || journal->config.new_node)
        journal->node = a->state.node;
    if (!id_equal(&journal->node, &a->state.node)) {
        snprintf(
            message, cap,
            "%s/NODE_ID: names another node than journal.db does; if it was about to get a new "
            "id, 'objctl journal new-node-id' goes on with that",
            journal->config.dirs->state_dir);
        return ERR_WRONG_STORE;
    }
    if (journal->node_is_new && (rc = journal_save_node(journal)) != 0)
        say(message, cap, rc, journal->config.dirs->state_dir, " (NODE_ID)");
    return rc;
}

static int is_segment(void *arg, const char *name)
{
    const char *dot = strrchr(name, '.');

    (void)arg;
    return dot && strcmp(dot, ".seg") == 0;
}

/* The first start died before it was over: there is no second generation yet, and no log. */
static bool never_served(struct journal *journal)
{
    struct io *io = journal->env->io;
    char *dir = io_join(journal->config.dirs->files_dir, "log");
    int rc = dir ? io->list(io, dir, is_segment, NULL) : ERR_NO_MEMORY;

    free(dir);
    return journal->config.dirs->generation == 2 && (rc == 0 || rc == ERR_NOT_FOUND);
}

/* What a failed sync left of the WAL reads back well from the cache until the power goes. SQLite
 * would copy such frames into the database and, after a loss of power, lay the few older ones that
 * are on the disk over it. So it gets to see what is on the disk, as the log's recovery does. */
static int drop_wal_cache(struct journal *journal)
{
    struct io *io = journal->env->io;
    char *path;

    if (asprintf(&path, "%s-wal", journal->db_path) < 0)
        return ERR_NO_MEMORY;
    int fd = io_open(io, path, IO_WRITE);
    int rc = fd < 0 ? fd : io->fdatasync(io, fd);

    free(path);
    if (rc == 0)
        rc = io->drop_cache(io, fd);
    (void)io_close(io, &fd); /* nothing was written through it */
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

static int open_database(struct journal *journal, char *message, size_t cap)
{
    const struct store_dirs *dirs = journal->config.dirs;
    struct io_stat stat;
    int rc = vfs_register(journal->env, journal->vfs);

    if (rc)
        return say(message, cap, rc, "SQLite VFS", "");
    journal->db_path = io_join(dirs->state_dir, "journal.db");
    if (!journal->db_path)
        return ERR_NO_MEMORY;
    rc = journal->env->io->stat(journal->env->io, journal->db_path, &stat);
    if (rc == ERR_NOT_FOUND && !dirs->fresh && !never_served(journal))
        return say(message, cap, rc, journal->db_path, REBUILD_HINT);
    if (rc == 0 || rc == ERR_NOT_FOUND)
        rc = drop_wal_cache(journal);
    if (rc)
        return say(message, cap, rc, journal->db_path, "");
    rc =
        db_open(&journal->applier.db, journal->vfs, journal->db_path, &journal->node, &dirs->store);
    if (rc == ERR_CORRUPT)
        return say(message, cap, rc, journal->db_path, REBUILD_HINT);
    if (rc == ERR_FORMAT)
        return say(message, cap, rc, journal->db_path, NEWER_HINT);
    if (rc)
        return say(message, cap, rc, journal->db_path, "");
    if ((rc = applier_open(journal)) != 0)
        return say(message, cap, rc, journal->db_path, rc == ERR_CORRUPT ? REBUILD_HINT : "");
    if (!id_equal(&journal->applier.state.store, &dirs->store))
        return say(message, cap, ERR_WRONG_STORE, journal->db_path, "");
    return check_node(journal, message, cap);
}

/* Whether the segment's file is there; one that an accepted loss took need not be. */
static bool has_file(struct journal *journal, uint32_t volume)
{
    struct io_stat stat;
    char name[32];

    snprintf(name, sizeof name, "log/%08x.seg", volume);
    char *path = io_join(journal->config.dirs->files_dir, name);
    bool there = path && journal->env->io->stat(journal->env->io, path, &stat) == 0;

    free(path);
    return there;
}

/* The janitor unlinked this segment, and a crash came before its row was gone for good: nothing in
 * it was needed any more. */
static bool was_removed(struct journal *journal, const struct db_segment *row)
{
    return row->log.sealed && row->live_bytes == 0 &&
           row->log.base + row->log.end_bytes <= journal->applier.state.position &&
           !has_file(journal, row->log.volume);
}

/* Its row goes as well, once its file cannot come back any more. */
static int forget_segment(struct journal *journal, uint32_t volume)
{
    struct io *io = journal->env->io;
    char *dir = io_join(journal->config.dirs->files_dir, "log");
    int rc = dir ? io->sync_dir(io, dir) : ERR_NO_MEMORY;

    free(dir);
    return rc ? rc : applier_forget_now(journal, volume);
}

static int open_log(struct journal *journal, char *message, size_t cap)
{
    const struct store_dirs *dirs = journal->config.dirs;
    struct log_config config = {.env = journal->env,
                                .files_dir = dirs->files_dir,
                                .store = dirs->store,
                                .segment_bytes = journal->config.segment_bytes,
                                .sync = journal->config.sync,
                                .skip_unreadable = dirs->accept_loss};
    struct db_segment *rows = NULL;
    struct log_segment *known = NULL;
    size_t count = 0, kept = 0;

    journal->lost_files = dirs->files_behind;
    int rc = db_segments(journal->applier.db, &rows, &count);

    if (rc == 0 && !(known = calloc(count ? count : 1, sizeof *known)))
        rc = ERR_NO_MEMORY;
    for (size_t i = 0; rc == 0 && i < count; i++)
        if (was_removed(journal, &rows[i]))
            rc = forget_segment(journal, rows[i].log.volume);
        else if (!dirs->accept_loss || has_file(journal, rows[i].log.volume))
            known[kept++] = rows[i].log;
        else
            journal->lost_files = true;
    if (rc == 0)
        rc = log_open(&journal->log, &config, known, kept);
    free(known);
    free(rows);
    if (rc)
        return say(message, cap, rc, dirs->files_dir, " (log)");
    rc = large_open(&journal->large, journal->env, dirs->files_dir, &dirs->store, dirs->generation,
                    true);
    if (rc)
        return say(message, cap, rc, dirs->files_dir, " (large files)");
    return 0;
}

static int recover(struct journal *journal, char *message, size_t cap)
{
    const struct store_dirs *dirs = journal->config.dirs;
    const struct db_state *state = &journal->applier.state;
    bool clean = state->clean_generation && state->clean_generation + 1 == dirs->generation;
    int rc = journal_recover(journal, clean, message, cap);

    if (rc)
        return rc;
    if ((rc = large_clean_tmp(journal->large)) != 0)
        return say(message, cap, rc, dirs->files_dir, " (tmp/)");
    pthread_mutex_lock(&journal->lock);
    journal->acked = journal->applier.state;
    applier_count_frozen(journal);
    pthread_mutex_unlock(&journal->lock);
    rc = committer_open(journal, journal->applier.state.hlc);
    if (rc == 0)
        rc = journal_reader_open(journal, &journal->cleaner.reader);
    if (rc == 0 && journal->lost_files)
        rc = journal_reconcile(journal);
    if (rc)
        return say(message, cap, rc, journal->db_path, "");
    return 0;
}

int journal_alloc(struct journal **out, const struct journal_config *config)
{
    struct journal *journal = calloc(1, sizeof *journal);
    pthread_condattr_t attr;
    int rc;

    if (!journal)
        return ERR_NO_MEMORY;
    journal->config = *config;
    journal->env = config->dirs->env;
    journal->scrub.interval_ms = config->scrub_interval_ms;
    atomic_store(&journal->restate.due, true);
    pthread_mutex_init(&journal->lock, NULL);
    pthread_mutex_init(&journal->applier.sums_lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&journal->work, &attr);
    pthread_cond_init(&journal->room, &attr);
    pthread_cond_init(&journal->upkeep, &attr);
    pthread_condattr_destroy(&attr);
    rc = pending_create(&journal->pending);
    if (rc == 0)
        rc = queue_create(&journal->queue, LIMIT_COMMIT_QUEUE);
    if (rc)
        journal_close(&journal);
    else
        *out = journal;
    return rc;
}

int journal_open(struct journal **out, const struct journal_config *config, char *message,
                 size_t cap)
{
    struct journal *journal = NULL;
    int rc = journal_alloc(&journal, config);

    message[0] = '\0';
    if (rc == 0 && (rc = journal_load_node(journal, message, cap)) == 0 &&
        (rc = open_database(journal, message, cap)) == 0 &&
        (rc = open_log(journal, message, cap)) == 0 && (rc = recover(journal, message, cap)) == 0) {
        rc = config->dirs->fresh ? 0 : store_dirs_begin(config->dirs);
        if (rc == 0) {
            journal->applier.idle_since_ms = env_mono_ms(journal->env);
            journal->applier.checkpointed_ms = journal->applier.idle_since_ms;
            disk_look(journal, 0); /* before anyone asks */
            *out = journal;
            return 0;
        }
    }
    if (!message[0])
        say(message, cap, rc, config->dirs->state_dir, "");
    journal_close(&journal);
    return rc;
}

void journal_close(struct journal **journal_ptr)
{
    struct journal *journal = *journal_ptr;

    if (!journal)
        return;
    assert(!journal->threaded);
    scrub_release(&journal->scrub);
    compact_release(&journal->compactor);
    reput_release(&journal->reput);
    restate_release(&journal->restate);
    committer_close(journal);
    db_reader_close(&journal->cleaner.reader);
    applier_close(journal);
    large_close(&journal->large);
    log_close(&journal->log);
    for (struct entry *entry = journal->apply_first, *next; entry; entry = next) {
        next = entry->next;
        pending_remove(journal->pending, entry); /* the next start replays it */
    }
    pending_destroy(&journal->pending);
    queue_destroy(&journal->queue);
    if (journal->vfs[0])
        vfs_unregister(journal->vfs);
    free(journal->db_path);
    pthread_cond_destroy(&journal->work);
    pthread_cond_destroy(&journal->room);
    pthread_cond_destroy(&journal->upkeep);
    pthread_mutex_destroy(&journal->applier.sums_lock);
    pthread_mutex_destroy(&journal->lock);
    free(journal);
    *journal_ptr = NULL;
}

/* ---- Threads ---- */

void journal_wait(struct journal *journal, pthread_cond_t *condition, uint64_t timeout_ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(timeout_ms / 1000);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(condition, &journal->lock, &until);
}

static bool has_room(const struct journal *journal)
{
    return pending_count(journal->pending) < LIMIT_PENDING_ENTRIES &&
           pending_bytes(journal->pending) < LIMIT_PENDING_BYTES;
}

static void *commit_thread(void *arg)
{
    struct journal *journal = arg;

    for (;;) {
        /* Back-pressure: the queue fills up, and doors answer 503. Who waits in it when nothing can
         * be applied any more is refused. */
        if (!has_room(journal) && !atomic_load(&journal->read_only)) {
            pthread_mutex_lock(&journal->lock);
            journal->room_wanted = true;
            if (!has_room(journal))
                journal_wait(journal, &journal->room, ROOM_WAIT_MS);
            journal->room_wanted = false;
            pthread_mutex_unlock(&journal->lock);
            continue;
        }
        if (journal_commit_step(journal) || committer_holds(journal))
            continue;
        if (queue_wait(journal->queue, COMMIT_IDLE_MS))
            continue;
        committer_mark(journal);
        if (atomic_load(&journal->draining) && queue_length(journal->queue) == 0)
            break;
        if (journal->committer.marked >= log_synced(journal->log) &&
            !atomic_load(&journal->rotate) && !atomic_load(&journal->draining))
            (void)queue_wait(journal->queue, -1);
    }
    pthread_mutex_lock(&journal->lock);
    atomic_store(&journal->committed, true);
    pthread_cond_signal(&journal->work);
    pthread_mutex_unlock(&journal->lock);
    return NULL;
}

/* A transaction costs pages, not rows: where one has just ended, a few more rows in the next are
 * nearly free. What comes after a pause is applied at once: other nodes wait to hear of it. The
 * lock is held. */
static void gather(struct journal *journal, uint64_t last_ms)
{
    uint64_t passed_ms = env_mono_ms(journal->env) - last_ms;

    if (journal->apply_queued < APPLY_GATHER && passed_ms < APPLY_GATHER_MS)
        journal_wait(journal, &journal->work, APPLY_GATHER_MS - passed_ms);
}

static void *apply_thread(void *arg)
{
    struct journal *journal = arg;
    uint64_t last_ms = 0; /* the end of the last transaction */

    for (;;) {
        pthread_mutex_lock(&journal->lock);
        bool ended = atomic_load(&journal->committed);
        bool trimming = atomic_load(&journal->trimming) && !journal->applier.trim.after_ms &&
                        !atomic_load(&journal->held_back);

        if (ended && (!journal->apply_first || journal->applier.failures > 3)) {
            pthread_mutex_unlock(&journal->lock);
            return NULL;
        }
        if (journal->applier.failures)
            journal_wait(journal, &journal->upkeep, RETRY_APPLY_MS);
        else if (!journal->apply_first && (!trimming || ended))
            journal_wait(journal, &journal->work, APPLY_IDLE_MS);
        if (!ended && !journal->room_wanted)
            gather(journal, last_ms);
        pthread_mutex_unlock(&journal->lock);
        unsigned applied;
        do {
            applied = journal_apply_step(journal);
            if (applied)
                last_ms = env_mono_ms(journal->env);
        } while (applied >= LIMIT_APPLY_RECORDS);
    }
}

static void *upkeep_thread(void *arg)
{
    struct journal *journal = arg;

    while (!atomic_load(&journal->stopping)) {
        if (journal_upkeep_step(journal))
            continue;
        pthread_mutex_lock(&journal->lock);
        if (!atomic_load(&journal->stopping))
            journal_wait(journal, &journal->upkeep, UPKEEP_IDLE_MS);
        pthread_mutex_unlock(&journal->lock);
    }
    return NULL;
}

int journal_start(struct journal *journal)
{
    void *(*const run[])(void *) = {commit_thread, apply_thread, upkeep_thread};
    static const char *const names[] = {"committer", "applier", "janitor"};
    pthread_attr_t attr;

    assert(!journal->threaded && journal->thread_count == 0);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 512 * KIB);
    for (int i = 0; i < 3; i++) {
        if (pthread_create(&journal->threads[i], &attr, run[i], journal) != 0) {
            log_error("cannot start the %s thread", names[i]);
            pthread_attr_destroy(&attr);
            return ERR_NO_MEMORY;
        }
        pthread_setname_np(journal->threads[i], names[i]);
        journal->threaded = true;
        journal->thread_count++;
    }
    pthread_attr_destroy(&attr);
    return 0;
}

/* Let the threads finish what is queued, and join them; or, where there are none, do it here. */
static void drain(struct journal *journal)
{
    if (!journal->threaded) {
        queue_close(journal->queue);
        while (journal_commit_step(journal) || committer_holds(journal) ||
               journal_apply_step(journal))
            ;
        committer_mark(journal);
        return;
    }
    pthread_mutex_lock(&journal->lock);
    atomic_store(&journal->stopping, true);
    pthread_cond_broadcast(&journal->upkeep);
    pthread_mutex_unlock(&journal->lock);
    /* Fewer are there where the system refused one at the start. */
    if (journal->thread_count > 2)
        pthread_join(journal->threads[2], NULL);
    queue_close(journal->queue);
    atomic_store(&journal->draining, true);
    queue_wake(journal->queue);
    pthread_join(journal->threads[0], NULL);
    if (journal->thread_count > 1)
        pthread_join(journal->threads[1], NULL);
    journal->threaded = false;
    journal->thread_count = 0;
}

void journal_stop(struct journal *journal)
{
    struct applier *a = &journal->applier;

    if (queue_closed(journal->queue))
        return;
    drain(journal);
    if (a->failures || atomic_load(&journal->read_only) || journal->apply_first)
        return; /* the next start replays what is missing */
    a->state.clean_generation = journal->config.dirs->generation;
    if (applier_begin(journal) != 0)
        return;
    if (applier_commit(journal, log_end(journal->log)) != 0) {
        applier_rollback(journal);
        return;
    }
    (void)applier_checkpoint(journal); /* logged; else the next start replays */
}

void journal_listen(struct journal *journal,
                    void (*listener)(void *arg, const struct journal_news *news), void *arg)
{
    assert(!journal->threaded);
    journal->listener = listener;
    journal->listener_arg = arg;
}

void journal_listen_copies(struct journal *journal,
                           void (*listener)(void *arg, const struct journal_copy_news *news),
                           void *arg)
{
    assert(!journal->threaded);
    journal->copies_listener = listener;
    journal->copies_arg = arg;
}

int journal_submit(struct journal *journal, struct change *change)
{
    assert(change->done);
    change->events_done = change->drops_done = 0;
    change->rc = 0;
    change->object = NULL;
    change->lsn = 0;
    change->stored = false;
    if (atomic_load_explicit(&journal->read_only, memory_order_relaxed))
        return ERR_READ_ONLY;
    return queue_push(journal->queue, change);
}

/* ---- Asking ---- */

int journal_find(struct journal *journal, struct db_reader *reader, const struct id128 *id,
                 struct object **out)
{
    int rc = pending_find(journal->pending, id, false, out);

    /* The order matters: what is not pending any more has been committed before it left. */
    if (rc == ERR_NOT_FOUND)
        rc = db_find(reader, id, out);
    if (rc == 0 && !((*out)->flags & (OBJECT_PUT | OBJECT_DELETED))) {
        object_destroy(out);
        rc = ERR_NOT_FOUND;
    }
    return rc;
}

int journal_reader_open(struct journal *journal, struct db_reader **out)
{
    return db_reader_open(out, journal->vfs, journal->db_path);
}

struct log *journal_log(struct journal *journal)
{
    return journal->log;
}

struct large_store *journal_large(struct journal *journal)
{
    return journal->large;
}

struct id128 journal_node(const struct journal *journal)
{
    return journal->node;
}

void journal_on_damage(struct journal *journal,
                       void (*listener)(void *arg, const struct object *object), void *arg)
{
    assert(!journal->threaded);
    journal->on_damage = listener;
    journal->on_damage_arg = arg;
}

void journal_found_damaged(struct journal *journal, const struct object *object)
{
    journal_count_bad(journal, 1, 0, 0);
    if (journal->on_damage)
        journal->on_damage(journal->on_damage_arg, object);
}

void journal_count_bad(struct journal *journal, uint64_t bad_blocks, uint64_t repaired,
                       uint64_t lost)
{
    atomic_fetch_add(&journal->bad_blocks, bad_blocks);
    atomic_fetch_add(&journal->repaired, repaired);
    atomic_fetch_add(&journal->lost, lost);
}

lsn_t journal_synced(const struct journal *journal)
{
    return log_synced(journal->log);
}

void journal_stats(struct journal *journal, struct journal_stats *out)
{
    struct log_segment *segments;
    size_t count;
    uint32_t best;

    memset(out, 0, sizeof *out);
    if (log_segments(journal->log, &segments, &count) == 0) {
        out->segments = count;
        free(segments);
    }
    pthread_mutex_lock(&journal->lock);
    out->applied = journal->acked;
    out->seq = journal->acked_seq;
    out->batches = journal->batches;
    out->records = journal->records;
    out->syncs = journal->syncs;
    out->durable_position = journal->durable_position;
    out->snapshot_position = journal->snapshots_known ? journal->snapshots[0].position : 0;
    pthread_mutex_unlock(&journal->lock);
    out->events = out->applied.events;
    out->objects = out->applied.objects;
    out->deleted = out->applied.deleted;
    out->bytes = out->applied.bytes;
    out->outbox = out->applied.outbox;
    out->outbox_bytes = out->applied.outbox_bytes;
    out->wanted = out->applied.wanted;
    out->wanted_bytes = out->applied.wanted_bytes;
    out->marks = out->applied.marks;
    out->purges = out->applied.purges;
    out->digest = out->applied.digest;
    out->origin = out->applied.last_origin;
    out->end = log_end(journal->log);
    out->synced = log_synced(journal->log);
    out->pending = pending_count(journal->pending);
    out->pending_bytes = pending_bytes(journal->pending);
    out->dead_bytes = applier_dead_bytes(journal, &best);
    out->cleaned_segments = atomic_load(&journal->cleaned_segments);
    out->moved_records = atomic_load(&journal->moved_records);
    out->bad_blocks = atomic_load(&journal->bad_blocks);
    out->repaired = atomic_load(&journal->repaired);
    out->lost = atomic_load(&journal->lost);
    out->conflicts = atomic_load(&journal->conflicts);
    out->losers = atomic_load(&journal->losers);
    out->loser_bytes = atomic_load(&journal->loser_bytes);
    out->reputs = atomic_load(&journal->reput.done);
    out->clock = atomic_load(&journal->clock_faults);
    out->refused = atomic_load(&journal->refused);
    out->scrub_done = atomic_load(&journal->scrub.objects);
    out->scrub_total_bytes = atomic_load(&journal->scrub.bytes);
    out->scrub_errors = atomic_load(&journal->scrub.errors);
    out->scrub_finished_ms = atomic_load(&journal->scrub.finished_ms);
    out->read_only = atomic_load(&journal->read_only) != 0;
    out->recovered_records = journal->recovered_records;
    out->rotten_bytes = journal->rotten_bytes;
    out->free_bytes = atomic_load(&journal->room_left.free_bytes);
    out->total_bytes = atomic_load(&journal->room_left.total_bytes);
    out->full = journal_room(journal, 1) != 0;
    out->event_bytes = out->applied.event_bytes;
    out->compacted_events = atomic_load(&journal->compacted_events);
    out->frozen_runs = atomic_load(&journal->frozen_runs);
    out->snapshots = atomic_load(&journal->snapshot_count);
    out->snapshot_bytes = atomic_load(&journal->compactor.last_bytes);
}
