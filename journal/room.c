/*
 * Room on the disk: how much is free is asked of the system once a second, and what was accepted
 * since is counted against it, so that a fast writer cannot run through the reserve between two
 * looks. A refusal always rests on a fresh look. The reserve is for deletes, the log and SQLite,
 * which go on when puts do not.
 */
#include "base/io.h"
#include "journal/journal_internal.h"

#define FRESH_MS 20 /* a look this young is good enough to refuse */

/* What a put may cost beside its body: its event in the log, some pages of SQLite's WAL. */
#define PUT_BYTES (16 * KIB)

void disk_look(struct journal *journal, uint64_t max_age_ms)
{
    struct disk_room *room = &journal->room_left;
    struct io *io = journal->env->io;
    uint64_t now_ms = env_mono_ms(journal->env);
    uint64_t looked_ms = atomic_load(&room->looked_ms);
    struct io_space space;

    if (looked_ms && now_ms - looked_ms < max_age_ms)
        return;
    /* One thread looks; another goes by the old figures. */
    if (!atomic_compare_exchange_strong(&room->looked_ms, &looked_ms, now_ms))
        return;
    uint64_t claimed = atomic_load(&room->claimed_bytes);

    if (io->space(io, journal->config.dirs->files_dir, &space) != 0)
        return;
    uint64_t reserve = space.total_bytes / 100 * RESERVE_PERCENT;

    if (reserve < RESERVE_BYTES)
        reserve = RESERVE_BYTES;
    if (reserve > space.total_bytes / 10)
        reserve = space.total_bytes / 10;
    atomic_store(&room->free_bytes, space.free_bytes);
    atomic_store(&room->total_bytes, space.total_bytes);
    atomic_store(&room->reserve_bytes, reserve);
    /* Claims made meanwhile may be in those figures or not: they count once more. */
    atomic_fetch_sub(&room->claimed_bytes, claimed);
}

static bool is_room(struct disk_room *room, uint64_t len)
{
    uint64_t used = atomic_load_explicit(&room->reserve_bytes, memory_order_relaxed) +
                    atomic_load_explicit(&room->claimed_bytes, memory_order_relaxed);
    uint64_t free_bytes = atomic_load_explicit(&room->free_bytes, memory_order_relaxed);

    return free_bytes >= used && free_bytes - used >= len;
}

int journal_room(struct journal *journal, uint64_t len)
{
    struct disk_room *room = &journal->room_left;

    if (is_room(room, len))
        return 0;
    disk_look(journal, FRESH_MS);
    return is_room(room, len) ? 0 : ERR_NO_SPACE;
}

int journal_claim(struct journal *journal, uint64_t len, bool begins)
{
    int rc = journal_room(journal, len);

    if (rc == 0)
        atomic_fetch_add_explicit(&journal->room_left.claimed_bytes, len + (begins ? PUT_BYTES : 0),
                                  memory_order_relaxed);
    return rc;
}

void journal_freed(struct journal *journal)
{
    disk_look(journal, 0);
}
