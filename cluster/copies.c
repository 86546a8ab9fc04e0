/*
 * A wait's life, under the lock but for the counting:
 *
 *   copies_wait ──► in the table, due ──► counted ─┬─ enough, cancelled, or of no use ──► done
 *                              ▲                   └─ not enough: in the table ──┐
 *                              └───────────────── news, cancel ◄─────────────────┘
 *
 * A wait that becomes due while it is being counted is counted once more. Only the thread takes one
 * out of the table, so whoever finds it there under the lock may touch it.
 *
 * Failure: a row or view that cannot be read ends the wait with that error; its owner has the body
 * durably and says so. A stop ends all waits without another look.
 */
#include "cluster/copies.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024 /* a power of two */

struct copies {
    struct journal *journal;
    struct id128 self;
    struct db_reader *reader; /* the thread's own */
    pthread_t thread;
    bool started;
    unsigned outbox_copies;
    _Atomic unsigned others; /* that answer */
    _Atomic bool cloud;      /* so does it */
    _Atomic size_t waiting;  /* in the table; changed under the lock */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool open, stopping;
    struct copies_wait *due_first, *due_last;
    struct copies_wait *table[BUCKETS];
    struct copies_stats stats;
};

bool copies_enough(enum copies_need need, const struct db_copies *found,
                   const struct copies_chance *chance)
{
    assert(found->held <= found->members);
    if (need == COPIES_CLOUD && (found->uploaded || chance->cloud_answers))
        return found->uploaded;
    switch (need) {
    case COPIES_LOOK:
        return true;
    case COPIES_ONE:
        return found->held >= 1;
    case COPIES_SECOND:
    case COPIES_CLOUD:
        return found->uploaded || found->held >= chance->outbox_copies || !chance->others_answer;
    case COPIES_QUORUM:
        return 2 * found->held > found->members;
    case COPIES_ALL:
        return found->held == found->members;
    }
    assert(!"a need that is none");
    return false;
}

/* ---- The table and the list of those due; under the lock ---- */

/* The last bytes of an id are random. */
static struct copies_wait **bucket_of(struct copies *c, const struct id128 *id)
{
    return &c->table[(id->bytes[15] | (unsigned)id->bytes[14] << 8) & (BUCKETS - 1)];
}

static void insert(struct copies *c, struct copies_wait *wait)
{
    struct copies_wait **bucket = bucket_of(c, &wait->id);

    wait->prev = NULL;
    wait->next = *bucket;
    if (wait->next)
        wait->next->prev = wait;
    *bucket = wait;
    wait->listed = true;
    atomic_fetch_add(&c->waiting, 1);
}

static void take_out(struct copies *c, struct copies_wait *wait)
{
    if (wait->prev)
        wait->prev->next = wait->next;
    else
        *bucket_of(c, &wait->id) = wait->next;
    if (wait->next)
        wait->next->prev = wait->prev;
    wait->listed = false;
    atomic_fetch_sub(&c->waiting, 1);
}

static void make_due(struct copies *c, struct copies_wait *wait)
{
    if (wait->due)
        return;
    wait->due = true;
    wait->due_next = NULL;
    wait->due_prev = c->due_last;
    if (c->due_last)
        c->due_last->due_next = wait;
    else
        c->due_first = wait;
    c->due_last = wait;
    (void)pthread_cond_signal(&c->changed);
}

static void make_undue(struct copies *c, struct copies_wait *wait)
{
    if (!wait->due)
        return;
    if (wait->due_prev)
        wait->due_prev->due_next = wait->due_next;
    else
        c->due_first = wait->due_next;
    if (wait->due_next)
        wait->due_next->due_prev = wait->due_prev;
    else
        c->due_last = wait->due_prev;
    wait->due = false;
}

static void make_all_due(struct copies *c)
{
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct copies_wait *wait = c->table[i]; wait; wait = wait->next)
            make_due(c, wait);
}

/* ---- The thread ---- */

/* Count WAIT's copies as the views have them now. */
static void look(struct copies *c, struct copies_wait *wait)
{
    const struct copies_chance chance = {.others_answer = atomic_load(&c->others) > 0,
                                         .cloud_answers = atomic_load(&c->cloud),
                                         .outbox_copies = c->outbox_copies};
    struct object *object = NULL;
    int rc = journal_find(c->journal, c->reader, &wait->id, &object);

    if (rc == 0 && object->flags & OBJECT_DELETED)
        rc = ERR_DELETED;
    if (rc == 0 && memcmp(object->sha256, wait->sha256, SHA256_BYTES) != 0)
        rc = ERR_CONFLICT;
    if (rc == 0)
        rc = db_reader_copies(c->reader, object, &c->self, &wait->found);
    object_destroy(&object);
    wait->rc = rc;
    wait->fulfilled = rc == 0 && copies_enough(wait->need, &wait->found, &chance);
}

/* WAIT is over. The lock is held, and given up for the call. */
static void end(struct copies *c, struct copies_wait *wait)
{
    make_undue(c, wait);
    take_out(c, wait);
    if (wait->need != COPIES_LOOK) {
        c->stats.fulfilled += wait->fulfilled;
        c->stats.late += !wait->fulfilled;
    }
    (void)pthread_mutex_unlock(&c->lock);
    wait->done(wait); /* it may be gone from here on */
    (void)pthread_mutex_lock(&c->lock);
}

static void end_all(struct copies *c)
{
    for (size_t i = 0; i < BUCKETS; i++)
        while (c->table[i]) {
            c->table[i]->rc = ERR_CLOSED;
            c->table[i]->fulfilled = false;
            end(c, c->table[i]);
        }
}

static void *run(void *arg)
{
    struct copies *c = arg;

    (void)pthread_mutex_lock(&c->lock);
    while (!c->stopping) {
        struct copies_wait *wait = c->due_first;

        if (!wait) {
            (void)pthread_cond_wait(&c->changed, &c->lock);
            continue;
        }
        make_undue(c, wait);
        bool over = wait->over; /* a cancel from now on makes it due again */
        (void)pthread_mutex_unlock(&c->lock);
        look(c, wait);
        (void)pthread_mutex_lock(&c->lock);
        if (over || wait->rc || wait->fulfilled)
            end(c, wait);
    }
    end_all(c);
    (void)pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* ---- Its life ---- */

int copies_create(struct copies **out, struct journal *journal, unsigned outbox_copies)
{
    struct copies *c = calloc(1, sizeof *c);

    *out = c;
    if (!c)
        return ERR_NO_MEMORY;
    c->journal = journal;
    c->outbox_copies = outbox_copies;
    c->self = journal_node(journal);
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->changed, NULL);
    return 0;
}

int copies_start(struct copies *c)
{
    sigset_t all, before;
    int rc = journal_reader_open(c->journal, &c->reader);

    assert(!c->started);
    if (rc)
        return rc;
    (void)sigfillset(&all); /* signals are the main thread's */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    c->open = true;
    rc = pthread_create(&c->thread, NULL, run, c) ? ERR_NO_MEMORY : 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        c->open = false;
        db_reader_close(&c->reader);
        return rc;
    }
    (void)pthread_setname_np(c->thread, "copies");
    c->started = true;
    return 0;
}

void copies_stop(struct copies *c)
{
    if (!c || !c->started)
        return;
    (void)pthread_mutex_lock(&c->lock);
    c->open = false;
    c->stopping = true;
    (void)pthread_cond_signal(&c->changed);
    (void)pthread_mutex_unlock(&c->lock);
    int rc = pthread_join(c->thread, NULL);
    assert(rc == 0);
    (void)rc;
    db_reader_close(&c->reader);
    c->started = false;
}

void copies_destroy(struct copies **copies)
{
    struct copies *c = *copies;

    if (!c)
        return;
    *copies = NULL;
    assert(!c->started && atomic_load(&c->waiting) == 0);
    (void)pthread_cond_destroy(&c->changed);
    (void)pthread_mutex_destroy(&c->lock);
    free(c);
}

/* ---- For owners ---- */

int copies_wait(struct copies *c, struct copies_wait *wait)
{
    int rc = 0;

    assert(wait->done);
    wait->rc = ERR_AGAIN;
    wait->fulfilled = wait->listed = wait->due = wait->over = false;
    wait->found = (struct db_copies){.members = 0};
    atomic_store(&wait->moved_ms, 0);
    (void)pthread_mutex_lock(&c->lock);
    if (!c->open)
        rc = ERR_CLOSED;
    else if (atomic_load(&c->waiting) >= LIMIT_COPY_WAITS)
        rc = ERR_FULL;
    if (rc == 0) {
        insert(c, wait);
        make_due(c, wait);
    } else {
        c->stats.refused++;
    }
    (void)pthread_mutex_unlock(&c->lock);
    return rc;
}

void copies_cancel(struct copies *c, struct copies_wait *wait)
{
    (void)pthread_mutex_lock(&c->lock);
    if (wait->listed) {
        wait->over = true;
        make_due(c, wait);
    }
    (void)pthread_mutex_unlock(&c->lock);
}

/* ---- News ---- */

static void wake(struct copies *c, const struct id128 *id)
{
    for (struct copies_wait *wait = *bucket_of(c, id); wait; wait = wait->next)
        if (id_equal(&wait->id, id))
            make_due(c, wait);
}

void copies_news(struct copies *c, const uint8_t *data, size_t len)
{
    struct event event;

    /* Who begins to wait from now on counts what is in SQLite by then. */
    if (atomic_load(&c->waiting) == 0)
        return;
    if (event_decode(&event, data, len) != 0)
        return; /* of a newer version: it changed no view */
    (void)pthread_mutex_lock(&c->lock);
    if (event.kind == EVENT_HOLD || event.kind == EVENT_DROP)
        for (uint32_t i = 0; i < event.item_count; i++)
            wake(c, &event.items[i].id);
    else
        wake(c, &event.id);
    (void)pthread_mutex_unlock(&c->lock);
}

void copies_members(struct copies *c)
{
    if (atomic_load(&c->waiting) == 0)
        return;
    (void)pthread_mutex_lock(&c->lock);
    make_all_due(c);
    (void)pthread_mutex_unlock(&c->lock);
}

void copies_others(struct copies *c, unsigned count)
{
    if (atomic_exchange(&c->others, count) != count)
        copies_members(c);
}

void copies_cloud(struct copies *c, bool answers)
{
    if (atomic_exchange(&c->cloud, answers) != answers)
        copies_members(c);
}

void copies_moved(struct copies *c, const struct id128 *id, uint64_t now_ms)
{
    if (atomic_load(&c->waiting) == 0)
        return;
    (void)pthread_mutex_lock(&c->lock);
    for (struct copies_wait *wait = *bucket_of(c, id); wait; wait = wait->next)
        if (id_equal(&wait->id, id))
            atomic_store(&wait->moved_ms, now_ms);
    (void)pthread_mutex_unlock(&c->lock);
}

void copies_stats(struct copies *c, struct copies_stats *out)
{
    (void)pthread_mutex_lock(&c->lock);
    *out = c->stats;
    (void)pthread_mutex_unlock(&c->lock);
    out->waiting = atomic_load(&c->waiting);
}
