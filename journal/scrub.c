/*
 * The scrub's happy path: ids in order from the database, a few at a time; each body is read from
 * the disk and every block verified; after the last id the round is over, and the next begins one
 * interval after this one began. It reads about SCRUB_BYTES_S, so that it never shows in latencies.
 *
 * A bad block is counted and logged with its object; whoever listens to that (the cluster) repairs
 * it from another holder, and so does somebody who puts the same bytes again.
 */
#include "journal/scrub.h"

#include "base/log.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"

#include <stdlib.h>

#define SCRUB_BYTES_S (16 * MIB)
#define SCRUB_OBJECTS 64 /* at most, a step */
#define SCRUB_BYTES   MIB
#define LOG_EVERY_BAD 20 /* lines a round */

struct step {
    struct journal *journal;
    struct scrub *scrub;
    uint64_t bytes;
};

static void report(struct journal *journal, struct scrub *scrub, const struct object *object,
                   int rc)
{
    char text[ULID_TEXT_BYTES + 1];
    uint64_t errors = atomic_fetch_add(&scrub->errors, 1);

    journal_found_damaged(journal, object);
    if (errors < LOG_EVERY_BAD) {
        ulid_format(text, &object->id);
        log_error("scrub: the body of %s is damaged: %s", text, err_text(rc));
    }
}

/* Some blocks of a large body; ERR_AGAIN where it is not finished. */
static int scrub_large(struct step *step, const struct object *object)
{
    struct scrub *scrub = step->scrub;
    uint64_t blocks = block_count(object->size);
    int rc = 0;

    if (scrub->reader && scrub->file != object->place.offset)
        large_reader_close(&scrub->reader); /* that object went while it was read */
    if (!scrub->reader) {
        scrub->block = 0;
        scrub->file = object->place.offset;
        rc = large_reader_open(&scrub->reader, step->journal->large, object->place.offset,
                               object->size);
    }
    while (rc == 0 && scrub->block < blocks && step->bytes < SCRUB_BYTES) {
        size_t len;

        rc = large_read_block(scrub->reader, scrub->block++, scrub->buf, &len, false);
        if (rc == 0)
            step->bytes += len;
    }
    if (rc == 0 && scrub->block < blocks)
        return ERR_AGAIN;
    large_reader_close(&scrub->reader);
    return rc;
}

/* OBJECT is the row of a moment ago: what has moved or gone since is no damage. */
static bool is_still_there(struct journal *journal, const struct object *object)
{
    struct object *now = NULL;
    bool same = journal_find(journal, journal->cleaner.reader, &object->id, &now) == 0 &&
                place_equal(&now->place, &object->place);

    object_destroy(&now);
    return same;
}

static int scrub_object(void *arg, const struct object *object)
{
    struct step *step = arg;
    struct record_view view;
    int rc;

    if (step->bytes >= SCRUB_BYTES)
        return 1;
    if (place_is_none(&object->place))
        return 0;
    if (object->place.volume == PLACE_LARGE) {
        rc = scrub_large(step, object);
        if (rc == ERR_AGAIN)
            return 1; /* the same object again in the next step */
    } else {
        rc = log_read(step->journal->log, &object->place, &object->id, object->record_bytes,
                      step->scrub->buf, RECORD_MAX_BYTES, false, &view);
        step->bytes += object->record_bytes;
    }
    if (rc && rc != ERR_NO_MEMORY && is_still_there(step->journal, object))
        report(step->journal, step->scrub, object, rc);
    atomic_fetch_add(&step->scrub->objects, 1);
    step->scrub->after = object->id;
    return 0;
}

static void begin_round(struct scrub *scrub, uint64_t now_ms)
{
    scrub->running = true;
    scrub->round_ms = now_ms;
    scrub->after = (struct id128){{0}};
    atomic_store(&scrub->objects, 0);
    atomic_store(&scrub->bytes, 0);
    atomic_store(&scrub->errors, 0);
}

bool scrub_step(struct journal *journal, struct scrub *scrub, struct db_reader *reader,
                uint64_t now_ms)
{
    struct step step = {.journal = journal, .scrub = scrub};
    struct id128 last;
    unsigned count;
    int rc;

    if (!scrub->interval_ms)
        return false;
    if (scrub->next_ms == 0)
        scrub->next_ms = now_ms + scrub->interval_ms; /* not right at the start */
    if (now_ms < scrub->next_ms)
        return false;
    if (!scrub->buf && !(scrub->buf = malloc(RECORD_MAX_BYTES)))
        return false;
    if (!scrub->running)
        begin_round(scrub, now_ms);
    rc = db_each_object(reader, &scrub->after, SCRUB_OBJECTS, scrub_object, &step, &last, &count);
    atomic_fetch_add(&scrub->bytes, step.bytes);
    if (rc < 0) {
        log_warn("scrub: %s", err_text(rc));
        scrub->next_ms = now_ms + 10000;
        return false;
    }
    if (rc == 0 && count < SCRUB_OBJECTS) {
        scrub->running = false;
        scrub->next_ms = scrub->round_ms + scrub->interval_ms;
        atomic_store(&scrub->finished_ms, env_wall_ms(journal->env));
        free(scrub->buf);
        scrub->buf = NULL;
        return false;
    }
    scrub->next_ms = now_ms + 1 + step.bytes * 1000 / SCRUB_BYTES_S;
    return false;
}

void scrub_release(struct scrub *scrub)
{
    large_reader_close(&scrub->reader);
    free(scrub->buf);
    scrub->buf = NULL;
}
