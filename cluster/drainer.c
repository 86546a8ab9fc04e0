/*
 * The drain's thread.
 *
 * Happy path: the file STATE/draining is made durable → clients' changes are refused, those under
 * way end, and all that is committed is applied → one walk counts the objects whose bytes no other
 * trusted member has → walks again: each such object is asked of a member (WIRE_ADOPT), which makes
 * a durable copy and journals its hold; once that hold has come here the object is settled → a walk
 * from end to end finds none → `left` is journaled → a trusted member says that it knows every
 * event that is known here → the file goes.
 *
 * Whom to trust. A member that has answered a probe sent since the drain began, and does not drain
 * itself. So of two nodes that drain at once neither leaves on the other's copy: whoever began
 * later knew that the first one was draining (cluster/membership.h).
 *
 * Failure: nobody to hand over to, a body that cannot be read here, or a member whose disk is full
 * hold the drain up; it says so and goes on trying until it is cancelled. A restart begins the walk
 * anew; what was handed over is known from its holds.
 */
#include "cluster/drainer.h"

#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "cluster/cluster_internal.h"
#include "cluster/drain.h"
#include "cluster/membership.h"
#include "journal/ulid.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_NAME   "draining"
#define PAGE        256 /* rows of one read transaction */
#define STEP_MS     200
#define CONFIRM_MS  5000
#define STUCK_AFTER 3 /* rounds of patience that brought nothing */

struct drainer {
    struct journal *journal;
    struct cluster *cluster;
    struct env *env;
    char *path;
    pthread_mutex_t lock; /* guards what follows up to the thread's own */
    pthread_cond_t wake;
    bool running, stopping, cancelled, draining;
    pthread_t thread;
    struct drain_status status;

    /* The thread's own. */
    struct db_reader *reader;
    struct drain *drain;
    bool declared;                     /* that this node left */
    struct db_custody trusted, relied; /* … since the walk began */
    uint64_t counted_objects, counted_bytes;
    uint64_t found; /* by the walk that goes on */
    struct id128 cursor;
    bool at_end;
};

const char *drain_phase_name(enum drain_phase phase)
{
    static const char *const names[] = {"none",    "counting", "moving",
                                        "leaving", "left",     "forgotten"};

    assert(phase <= DRAIN_FORGOTTEN);
    return names[phase];
}

static bool ends(struct drainer *d)
{
    pthread_mutex_lock(&d->lock);
    bool end = d->stopping || d->cancelled;

    pthread_mutex_unlock(&d->lock);
    return end;
}

static void set_phase(struct drainer *d, enum drain_phase phase)
{
    pthread_mutex_lock(&d->lock);
    d->status.phase = phase;
    *d->status.waiting = '\0';
    pthread_mutex_unlock(&d->lock);
}

/* What it waits for, said once. NULL: nothing any more. */
static void set_waiting(struct drainer *d, const char *what)
{
    char said[sizeof d->status.waiting];

    (void)snprintf(said, sizeof said, "%s", what ? what : "");
    pthread_mutex_lock(&d->lock);
    bool news = strcmp(said, d->status.waiting) != 0;

    memcpy(d->status.waiting, said, sizeof said);
    pthread_mutex_unlock(&d->lock);
    if (news && what)
        log_warn("drain: waiting: %s", what);
}

static void rest(struct drainer *d, uint64_t ms)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    until.tv_sec += (time_t)(ms / 1000) + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&d->lock);
    if (!d->stopping && !d->cancelled)
        (void)pthread_cond_timedwait(&d->wake, &d->lock, &until);
    pthread_mutex_unlock(&d->lock);
}

/* ---- The file ---- */

static int remember(struct drainer *d)
{
    static const char text[] = "This node hands over what it alone has, and then leaves its "
                               "cluster.\nobjctl node drain --cancel takes that back.\n";

    if (!d->path)
        return ERR_UNSUPPORTED;
    return io_replace(d->env->io, d->path, text, sizeof text - 1);
}

static bool is_remembered(struct drainer *d)
{
    struct io_stat stat;

    return d->path && d->env->io->stat(d->env->io, d->path, &stat) == 0;
}

/* Not made durable: where it comes back after a crash, the drain finds nothing left to do. */
static void unremember(struct drainer *d)
{
    int rc = d->env->io->unlink(d->env->io, d->path);

    if (rc && rc != ERR_NOT_FOUND)
        log_error("drain: %s cannot be removed: %s", d->path, err_text(rc));
}

/* ---- Walks ---- */

/* Whom to trust, and whom to ask: everybody of them. */
static void look_around(struct drainer *d)
{
    struct cluster_member view[LIMIT_MEMBERS + 1];
    size_t count = cluster_members(d->cluster, view, LIMIT_MEMBERS + 1);

    uint64_t since_ms = atomic_load(&d->cluster->draining_ms);

    d->trusted.count = 0;
    if (since_ms)
        membership_trusted(view, count, since_ms, &d->trusted);
    pthread_mutex_lock(&d->lock);
    d->status.takers = d->trusted.count;
    pthread_mutex_unlock(&d->lock);
    set_waiting(d, d->trusted.count ? NULL : "no other member answers that does not leave itself");
}

static bool is_here(const struct drainer *d, const struct object *object)
{
    return (object->flags & (OBJECT_PUT | OBJECT_DELETED)) == OBJECT_PUT &&
           !place_is_none(&object->place) &&
           !(object->expires_ms && object->expires_ms <= env_wall_ms(d->env));
}

struct page {
    struct drainer *drainer;
    struct object *objects[PAGE];
    size_t count;
    struct id128 last;
    int rc;
};

/* Holders are looked up after the page: one transaction more each, but none that stays open. */
static int keep_row(void *arg, const struct object *object)
{
    struct page *page = arg;

    page->last = object->id;
    if (!is_here(page->drainer, object))
        return 0;
    page->objects[page->count] = object_copy(object);
    return page->objects[page->count++] ? 0 : ERR_NO_MEMORY;
}

/* The next page of the walk, each object that nobody else has to SOLE, until that says false. */
static int walk(struct drainer *d, bool (*sole)(struct drainer *d, const struct object *object))
{
    static const struct id128 highest = {
        {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}};
    struct page page = {.drainer = d, .last = d->cursor};
    bool complete, alone, goes_on = true;
    int rc = db_each_in_range(d->reader, &d->cursor, &highest, PAGE, keep_row, &page, &complete);

    for (size_t i = 0; i < page.count; i++) {
        if (rc == 0 && goes_on)
            rc = db_reader_is_sole(d->reader, page.objects[i], &d->trusted, &alone);
        if (rc == 0 && goes_on) {
            if (alone)
                goes_on = sole(d, page.objects[i]);
            if (goes_on)
                d->cursor = page.objects[i]->id;
        }
        object_destroy(&page.objects[i]);
    }
    if (rc == 0 && goes_on) {
        d->cursor = page.last;
        d->at_end = complete;
    }
    return rc;
}

static void walk_anew(struct drainer *d)
{
    d->relied = d->trusted;
    d->cursor = (struct id128){{0}};
    d->at_end = false;
    d->found = 0;
}

static bool count_one(struct drainer *d, const struct object *object)
{
    d->counted_objects++;
    d->counted_bytes += object->size;
    return true;
}

static bool take_one(struct drainer *d, const struct object *object)
{
    struct event_item item = {.id = object->id};

    if (!drain_has_room(d->drain))
        return false;
    memcpy(item.sha256, object->sha256, SHA256_BYTES);
    d->found++;
    drain_add(d->drain, &item, object->size);
    return true;
}

static void show(struct drainer *d)
{
    struct drain_figures f = drain_figures(d->drain);
    uint64_t objects =
        d->counted_objects > f.moved_objects ? d->counted_objects - f.moved_objects : 0;
    uint64_t bytes = d->counted_bytes > f.moved_bytes ? d->counted_bytes - f.moved_bytes : 0;

    pthread_mutex_lock(&d->lock);
    d->status.objects_left = objects > f.objects ? objects : f.objects;
    d->status.bytes_left = bytes > f.bytes ? bytes : f.bytes;
    d->status.objects_moved = f.moved_objects;
    d->status.bytes_moved = f.moved_bytes;
    d->status.retries = f.again;
    d->status.stuck = (struct id128){{0}};
    if (f.again >= STUCK_AFTER && f.objects)
        d->status.stuck = drain_at(d->drain, 0)->id;
    pthread_mutex_unlock(&d->lock);
}

/* ---- Moving ---- */

static int ask(struct drainer *d)
{
    struct event_item items[LIMIT_WIRE_ADOPT];
    struct id128 node;
    size_t count;
    int rc = 0;

    while (rc == 0 && (count = drain_next(d->drain, d->trusted.nodes, d->trusted.count,
                                          env_mono_ms(d->env), &node, items, LIMIT_WIRE_ADOPT))) {
        struct wire_message message = {
            .type = WIRE_ADOPT,
            .adopt.items = {(const char *)items, (uint32_t)(count * sizeof *items)}};

        rc = cluster_tell(d->cluster, &node, &message);
    }
    return rc == ERR_TIMEOUT || rc == ERR_FULL ? 0 : rc;
}

/* Which of those under way another has by now. */
static int settle(struct drainer *d)
{
    for (size_t i = drain_count(d->drain); i-- > 0;) {
        const struct event_item *item = drain_at(d->drain, i);
        struct object *object = NULL;
        bool gone, alone = true;
        int rc = db_find(d->reader, &item->id, &object);

        if (rc && rc != ERR_NOT_FOUND)
            return rc;
        gone = rc == ERR_NOT_FOUND || !is_here(d, object) ||
               memcmp(object->sha256, item->sha256, SHA256_BYTES) != 0;
        rc = gone ? 0 : db_reader_is_sole(d->reader, object, &d->trusted, &alone);
        object_destroy(&object);
        if (rc)
            return rc;
        if (gone || !alone)
            drain_settle(d->drain, i, gone);
    }
    return 0;
}

/* Somebody whose copies counted when the walk began is not to be trusted any more. */
static bool has_lost_one(const struct drainer *d)
{
    size_t kept = 0;

    for (size_t i = 0; i < d->relied.count; i++)
        for (size_t k = 0; k < d->trusted.count; k++)
            kept += id_equal(&d->relied.nodes[i], &d->trusted.nodes[k]);
    return kept < d->relied.count;
}

/* One round. *CLEAN: a whole walk has found nothing that is here alone. */
static int move(struct drainer *d, bool *clean)
{
    int rc = 0;

    *clean = false;
    look_around(d);
    if (has_lost_one(d))
        walk_anew(d); /* what was not alone may be so now */
    while (rc == 0 && d->trusted.count && drain_has_room(d->drain) && !d->at_end && !ends(d))
        rc = walk(d, take_one);
    if (rc == 0)
        rc = settle(d);
    if (rc == 0)
        rc = ask(d);
    show(d);
    if (rc || drain_count(d->drain) || !d->at_end)
        return rc;
    *clean = d->found == 0;
    walk_anew(d);
    return 0;
}

/* ---- Phases: each 0, or an error that is tried again ---- */

/* Until no change of a client is under way, and what they committed is in the database. */
static void wait_quiet(struct drainer *d)
{
    struct journal_stats stats;

    while (!ends(d) && atomic_load(&d->cluster->writing) > 0)
        rest(d, STEP_MS / 10);
    journal_stats(d->journal, &stats);
    /* What bears no event is not waited for: the log may end behind all that is to be applied. */
    for (lsn_t end = stats.end; !ends(d) && stats.pending && stats.applied.position < end;) {
        rest(d, STEP_MS / 10);
        journal_stats(d->journal, &stats);
    }
}

static int count_all(struct drainer *d)
{
    int rc = 0;

    wait_quiet(d);
    look_around(d);
    if (d->trusted.count == 0)
        return ERR_AGAIN;
    d->counted_objects = d->counted_bytes = 0;
    walk_anew(d);
    while (rc == 0 && !d->at_end && !ends(d)) {
        rc = walk(d, count_one);
        show(d);
    }
    walk_anew(d);
    return rc;
}

/* Whether all whose copies count are there still: each has answered a probe that went out after the
 * walk ended. One that died during it is found out by this at the latest. */
static bool confirm(struct drainer *d)
{
    uint64_t now_ms = env_mono_ms(d->env), since_ms = now_ms + 1;
    const uint64_t until_ms = now_ms + CONFIRM_MS;
    struct cluster_member view[LIMIT_MEMBERS + 1];
    struct db_custody there;

    for (; now_ms < until_ms && !ends(d); now_ms = env_mono_ms(d->env)) {
        size_t count = cluster_members(d->cluster, view, LIMIT_MEMBERS + 1);

        membership_trusted(view, count, since_ms, &there);
        d->trusted = there;
        if (there.count && !has_lost_one(d))
            return true;
        rest(d, STEP_MS / 2);
    }
    return false;
}

static int move_all(struct drainer *d)
{
    bool clean = false;
    uint64_t owed = 0;
    int rc = 0;

    while (rc == 0 && !ends(d)) {
        rc = move(d, &clean);
        if (rc == 0)
            rc = db_reader_owed_others(d->reader, &owed);
        owed += journal_restates(d->journal);
        pthread_mutex_lock(&d->lock);
        d->status.owed = owed;
        pthread_mutex_unlock(&d->lock);
        if (rc == 0 && clean && owed == 0 && d->trusted.count && confirm(d))
            return 0;
        if (clean && owed)
            set_waiting(d, "work in the outbox that this node alone can do");
        rest(d, STEP_MS);
    }
    return rc;
}

/* Somebody who stays has to know all that is known here, that this node left included. */
static int leave(struct drainer *d)
{
    struct cluster_member view[LIMIT_MEMBERS + 1];
    size_t count = cluster_members(d->cluster, view, LIMIT_MEMBERS + 1);
    int rc = ERR_AGAIN;

    for (size_t i = 0; i < count; i++)
        if (view[i].self && view[i].joined == MEMBER_JOINED && !d->declared) {
            d->declared = true;
            rc = cluster_declare(d->cluster, &view[i], MEMBER_LEFT);
            d->declared = rc == 0;
            if (rc)
                return rc;
        }
    rc = ERR_AGAIN;
    wait_quiet(d); /* what is asked about is what is in the database */
    look_around(d);
    for (size_t i = 0; rc && rc != ERR_CLOSED && i < d->trusted.count && !ends(d); i++)
        rc = cluster_is_known_to(d->cluster, &d->trusted.nodes[i]);
    return rc;
}

static int (*const steps[])(struct drainer *d) = {
    [DRAIN_COUNTING] = count_all, [DRAIN_MOVING] = move_all, [DRAIN_LEAVING] = leave};

static void *run(void *arg)
{
    struct drainer *d = arg;
    int said = 0;

    while (!ends(d)) {
        enum drain_phase phase = d->status.phase; /* written by this thread alone while it runs */

        if (phase == DRAIN_LEFT)
            break;
        int rc = steps[phase](d);
        if (ends(d))
            break;
        if (rc == 0) {
            set_phase(d, phase + 1);
            log_info("drain: %s", drain_phase_name(phase + 1));
            continue;
        }
        if (rc != said && rc != ERR_AGAIN && rc != ERR_TIMEOUT)
            log_warn("drain: %s: %s; trying again", drain_phase_name(phase), err_text(rc));
        said = rc;
        rest(d, STEP_MS);
    }
    if (d->status.phase == DRAIN_LEFT) {
        unremember(d);
        atomic_store(&d->cluster->outside, true);
        atomic_store(&d->cluster->draining, false);
        log_info("drain: this node has left the cluster; all that it had, others have");
    }
    return NULL;
}

/* ---- Its life ---- */

int drainer_create(struct drainer **out, struct journal *journal, struct cluster *cluster,
                   struct env *env, const char *state_dir)
{
    struct drainer *d = calloc(1, sizeof *d);
    pthread_condattr_t clock;

    *out = NULL;
    if (!d)
        return ERR_NO_MEMORY;
    d->journal = journal;
    d->cluster = cluster;
    d->env = env;
    (void)pthread_mutex_init(&d->lock, NULL);
    (void)pthread_condattr_init(&clock);
    (void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&d->wake, &clock);
    (void)pthread_condattr_destroy(&clock);
    d->path = state_dir ? io_join(state_dir, FILE_NAME) : NULL;
    int rc = d->path || !state_dir ? drain_create(&d->drain) : ERR_NO_MEMORY;
    if (rc)
        drainer_destroy(&d);
    *out = d;
    return rc;
}

void drainer_destroy(struct drainer **drainer)
{
    struct drainer *d = *drainer;

    if (!d)
        return;
    *drainer = NULL;
    drainer_stop(d);
    drain_destroy(&d->drain);
    (void)pthread_cond_destroy(&d->wake);
    (void)pthread_mutex_destroy(&d->lock);
    free(d->path);
    free(d);
}

/* Under the lock. */
static int start_thread(struct drainer *d)
{
    sigset_t all, before;
    struct drain *drain;
    int rc = drain_create(&drain);

    if (rc)
        return rc;
    rc = journal_reader_open(d->journal, &d->reader);
    if (rc) {
        drain_destroy(&drain);
        return rc;
    }
    drain_destroy(&d->drain);
    d->drain = drain;
    d->declared = false;
    d->status = (struct drain_status){.phase = DRAIN_COUNTING};
    d->cancelled = d->stopping = false;
    atomic_store(&d->cluster->draining, true);
    (void)sigfillset(&all); /* signals are the main thread's */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&d->thread, NULL, run, d) ? ERR_NO_MEMORY : 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        db_reader_close(&d->reader);
        atomic_store(&d->cluster->draining, false);
        d->status.phase = DRAIN_NONE;
        return rc;
    }
    (void)pthread_setname_np(d->thread, "drain");
    d->running = true;
    return 0;
}

/* Join the thread, if there is one; CANCEL: or only for now. */
static void end_thread(struct drainer *d, bool cancel)
{
    pthread_mutex_lock(&d->lock);
    bool running = d->running;

    d->running = false;
    d->cancelled |= cancel;
    d->stopping |= !cancel;
    (void)pthread_cond_broadcast(&d->wake);
    pthread_mutex_unlock(&d->lock);
    if (!running)
        return;
    (void)pthread_join(d->thread, NULL);
    db_reader_close(&d->reader);
}

int drainer_start(struct drainer *d)
{
    if (!is_remembered(d))
        return 0;
    log_info("drain: going on with it; objctl node drain --cancel takes it back");
    pthread_mutex_lock(&d->lock);
    int rc = start_thread(d);
    pthread_mutex_unlock(&d->lock);
    return rc;
}

void drainer_stop(struct drainer *d)
{
    if (d)
        end_thread(d, false);
}

/* ---- For other threads ---- */

int drainer_begin(struct drainer *d)
{
    struct cluster_member view[LIMIT_MEMBERS + 1];
    size_t count = cluster_members(d->cluster, view, LIMIT_MEMBERS + 1);
    struct db_custody others;
    struct id128 self = journal_node(d->journal);

    membership_others(view, count, &self, &others);
    if (atomic_load(&d->cluster->outside))
        return ERR_OUTSIDE;
    if (others.count == 0)
        return ERR_NOT_FOUND;
    pthread_mutex_lock(&d->lock);
    bool over = d->running && d->status.phase == DRAIN_LEFT;
    pthread_mutex_unlock(&d->lock);
    if (over)
        end_thread(d, true); /* it has joined again since */
    pthread_mutex_lock(&d->lock);
    int rc = d->running ? 0 : remember(d);
    if (rc == 0 && !d->running) {
        rc = start_thread(d);
        if (rc == 0)
            log_info("drain: this node hands over what it alone has, and then leaves");
    }
    pthread_mutex_unlock(&d->lock);
    return rc;
}

int drainer_cancel(struct drainer *d)
{
    pthread_mutex_lock(&d->lock);
    bool may = d->running && d->status.phase < DRAIN_LEFT;

    pthread_mutex_unlock(&d->lock);
    if (!may || atomic_load(&d->cluster->outside))
        return ERR_UNSUPPORTED;
    end_thread(d, true);
    if (d->declared) { /* it is too late: it goes on to its end */
        pthread_mutex_lock(&d->lock);
        int rc = d->status.phase < DRAIN_LEFT ? start_thread(d) : 0;
        pthread_mutex_unlock(&d->lock);
        return rc ? rc : ERR_UNSUPPORTED;
    }
    unremember(d);
    atomic_store(&d->cluster->draining, false);
    set_phase(d, DRAIN_NONE);
    log_info("drain: cancelled; this node stays in the cluster");
    return 0;
}

void drainer_status(struct drainer *d, struct drain_status *out)
{
    pthread_mutex_lock(&d->lock);
    *out = d->status;
    pthread_mutex_unlock(&d->lock);
    struct cluster_member view[LIMIT_MEMBERS + 1];
    size_t count = cluster_members(d->cluster, view, LIMIT_MEMBERS + 1);

    if (out->phase == DRAIN_COUNTING || out->phase == DRAIN_MOVING || out->phase == DRAIN_LEAVING)
        return;
    for (size_t i = 0; i < count; i++)
        if (view[i].self && view[i].joined != MEMBER_JOINED)
            out->phase = view[i].joined == MEMBER_LEFT ? DRAIN_LEFT : DRAIN_FORGOTTEN;
    if (out->phase == DRAIN_LEFT && !atomic_load(&d->cluster->outside))
        out->phase = DRAIN_NONE; /* it has joined again */
}
