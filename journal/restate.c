/*
 * Journaling own facts again: what this node wrote under a run that was frozen since, others may
 * have in another version, or not at all, and nobody gives it to anybody any more. The janitor
 * reads such a run's events, page by page, and sends them through the committer, which writes them
 * once more as events of the run of now: the same payload, the same stamp. So they say nothing new
 * where they are known, and never overrule what came after them.
 *
 * What is said again: all from where the run broke on; of what lies before it, the facts that no
 * object's row holds (members, freezes, names of objects), since rows are merged between nodes that
 * differ, and those are not.
 *
 * How far it has come is kept in the database (table `restate`), in the transactions that apply the
 * new events. A crash, or a rebuild, makes some be said twice, which changes nothing.
 *
 * Failure: what the committer refuses is tried again later.
 */
#include "base/log.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_LOOKED 5000 /* events read in a step */
#define PAGE_SAID   256  /* of them, journaled again */
#define RETRY_MS    10000

struct saying {
    struct change change;
    struct journal *journal;
    uint8_t bytes[];
};

static void said(struct change *change)
{
    struct saying *saying = (struct saying *)change;
    struct journal *journal = saying->journal;

    if (change->rc)
        atomic_store(&journal->restate.failed, change->rc);
    object_destroy(&change->object);
    free(saying);
    if (atomic_fetch_sub(&journal->restate.in_flight, 1) == 1) {
        pthread_mutex_lock(&journal->lock);
        pthread_cond_broadcast(&journal->upkeep); /* the janitor may go on */
        pthread_mutex_unlock(&journal->lock);
    }
}

static int say_again(struct journal *journal, const uint8_t *raw, size_t len)
{
    struct saying *saying = malloc(sizeof *saying + len);

    if (!saying)
        return ERR_NO_MEMORY;
    memset(saying, 0, sizeof *saying);
    saying->journal = journal;
    memcpy(saying->bytes, raw, len);
    saying->change.request.kind = CHANGE_RESTATE;
    saying->change.done = said;
    saying->change.move_event = saying->bytes;
    saying->change.move_event_bytes = (uint32_t)len;
    atomic_fetch_add(&journal->restate.in_flight, 1);
    int rc = journal_submit(journal, &saying->change);

    if (rc) {
        atomic_fetch_sub(&journal->restate.in_flight, 1);
        free(saying);
    }
    return rc;
}

struct page {
    struct journal *journal;
    struct db_restate *row;
    unsigned looked, said;
};

bool restate_concerns(const struct event *event, uint64_t broke)
{
    switch (event->kind) {
    case EVENT_PUT:
    case EVENT_META:
    case EVENT_DELETE:
    case EVENT_HOLD:
    case EVENT_DROP:
    case EVENT_CLOUD:
        return event->seq >= broke;
    case EVENT_BIND:
    case EVENT_UNBIND:
    case EVENT_MEMBER:
    case EVENT_FREEZE:
    case EVENT_FEATURE:
        return true;
    default:
        return false; /* of a newer build, which alone can write it */
    }
}

/* ERR_RANGE: enough for this step. */
static int look(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    struct page *page = arg;
    struct event event;
    int rc;

    if (page->looked >= PAGE_LOOKED || page->said >= PAGE_SAID)
        return ERR_RANGE;
    if (event_decode(&event, raw, len) == 0 && restate_concerns(&event, page->row->broke)) {
        if ((rc = say_again(page->journal, raw, len)) != 0)
            return rc == ERR_FULL ? ERR_RANGE : rc;
        page->said++;
    }
    page->looked++;
    page->row->next = seq + 1;
    return 0;
}

static int find_run(struct journal *journal, struct restate *r)
{
    struct db_origin *origins;
    size_t count;
    int rc = db_reader_origins(journal->cleaner.reader, &origins, &count);

    if (rc)
        return rc;
    rc = ERR_NOT_FOUND;
    for (size_t i = 0; i < count; i++)
        if (id_equal(&origins[i].origin, &r->rows[r->at].origin)) {
            r->origin_no = origins[i].no;
            rc = 0;
        }
    free(origins);
    return rc;
}

static void forget_rows(struct restate *r)
{
    free(r->rows);
    r->rows = NULL;
    r->count = r->at = 0;
    r->origin_no = 0;
    r->said = 0;
    atomic_store(&r->active, false);
}

static void next_row(struct restate *r)
{
    char run[ULID_TEXT_BYTES + 1];

    if (r->said) {
        ulid_format(run, &r->rows[r->at].origin);
        log_info("journal: %llu own events of run %s are journaled again",
                 (unsigned long long)r->said, run);
    }
    r->said = 0;
    r->origin_no = 0;
    if (++r->at == r->count)
        forget_rows(r);
}

/* One page; true where there may be more at once. */
static int step(struct journal *journal, bool *more)
{
    struct restate *r = &journal->restate;
    int rc = 0;

    *more = false;
    if (!r->rows) {
        if (!atomic_load(&r->due))
            return 0;
        atomic_store(&r->active, true);
        atomic_store(&r->due, false);
        if ((rc = db_reader_restate(journal->cleaner.reader, &r->rows, &r->count)) != 0)
            return rc;
        if (r->count == 0) {
            forget_rows(r);
            return 0;
        }
    }
    if (!r->origin_no && (rc = find_run(journal, r)) != 0 && rc != ERR_NOT_FOUND)
        return rc;
    struct page page = {.journal = journal, .row = &r->rows[r->at]};

    if (rc == 0)
        rc = db_each_event(journal->cleaner.reader, r->origin_no, page.row->next, look, &page);
    r->said += page.said;
    if (rc == 0 || rc == ERR_NOT_FOUND)
        next_row(r);
    else if (rc != ERR_RANGE)
        return rc;
    *more = true;
    return 0;
}

bool restate_step(struct journal *journal)
{
    struct restate *r = &journal->restate;
    uint64_t now_ms = env_mono_ms(journal->env);
    bool more = false;

    if (atomic_load(&r->in_flight) || now_ms < r->retry_ms)
        return false;
    if (!r->rows && !atomic_load(&r->due) && !atomic_load(&r->failed))
        return false;
    int rc = atomic_load(&r->failed);

    if (rc) {
        atomic_store(&r->due, true);
        atomic_store(&r->failed, 0);
    }
    if (rc == 0)
        rc = step(journal, &more);
    if (rc) {
        log_warn("journal: own events of a frozen run are not journaled again: %s; will retry",
                 err_text(rc));
        r->retry_ms = now_ms + RETRY_MS;
        atomic_store(&r->due, true);
        forget_rows(r); /* from what the database knows to be done */
    }
    return more && !atomic_load(&r->in_flight);
}

bool journal_restates(struct journal *journal)
{
    struct restate *r = &journal->restate;

    /* In the order in which one takes over from the other: none is missed in between. */
    return atomic_load(&r->due) || atomic_load(&r->active) || atomic_load(&r->in_flight) ||
           atomic_load(&r->failed) || atomic_load(&r->due);
}

void restate_release(struct restate *restate)
{
    free(restate->rows);
    restate->rows = NULL;
}
