/*
 * One turn of the thread: what has been answered → the steps of those uploads → news → one thing
 * that is owed, or one more request to the cloud.
 *
 * An upload that has to ask the cloud waits in one of two lines, small or large, for one of the few
 * places there; so a request is always at hand when a place gets free, while others wait for the
 * committer. What waits in line holds no body.
 *
 * What uploads have to say to the journal is submitted together where many are under way.
 *
 * Whose turn it is (cluster/owed.h) is asked with the holders of the body, its author first, or,
 * where no body is needed, with all members, in the order of their scores for the object.
 *
 * Failure: what fails is tried again later; that it does is said once, until something succeeds.
 * While the cloud refuses whatever it is asked, as while it is away, no put waits for it. A stop
 * cancels and then waits for every upload: each has the cloud's or the committer's word that
 * it will end.
 */
#include "cluster/uploader.h"

#include "base/log.h"
#include "base/queue.h"
#include "cluster/cloud_guard.h"
#include "cluster/rendezvous.h"
#include "cluster/seconds.h"
#include "cluster/upload.h"
#include "journal/db_peers.h"
#include "journal/ulid.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define FLIGHTS    (LIMIT_OWED_SMALL + LIMIT_OWED_LARGE)
#define LOOK_MS    1000 /* between looks at who is there */
#define LIMIT_NEWS 256
#define SLOW_MS    1000 /* an upload that takes longer gets a second copy of its body */
#define GATHER     16   /* changes for the journal: with so many uploads under way they wait … */
#define GATHER_MS  2    /* … so long for one another, as a commit costs by the sync */
#define REFUSALS   3    /* in a row: it is not one object that the cloud refuses, but this node */

struct flight {
    struct upload *upload;
    uint64_t began_ms;
    bool asks; /* the cloud: it has one of the places */
};

/* Those that wait for a place; a ring. */
struct line {
    struct upload *waiting[FLIGHTS];
    size_t first, count;
    size_t places, taken;
};

struct new_item {
    struct id128 id;
    uint64_t size;
    bool own;
};

struct uploader {
    struct upload_host host;
    struct cluster *cluster;
    struct copies *copies;
    struct env *env;
    struct id128 self;
    struct queue *woken; /* struct upload *; a place for each */
    _Atomic bool news, stopping;
    _Atomic uint64_t oldest_ms;
    pthread_mutex_t lock; /* guards the next four */
    struct new_item new[LIMIT_NEWS];
    size_t new_count;
    struct id128 movers[LIMIT_MEMBERS];
    size_t mover_count;
    bool started;
    pthread_t thread;
    /* The thread's own. */
    struct owed *owed;
    struct seconds *seconds;
    bool writeback;
    struct flight flights[FLIGHTS];
    size_t flight_count;
    struct change *gathered[FLIGHTS]; /* to be submitted */
    size_t gathered_count;
    uint64_t gathered_ms; /* the first of them */
    struct line small, large;
    bool cancelled, failing_said;
    bool closed;       /* the breaker, when it was looked at last, and nothing is refused */
    unsigned refusals; /* in a row, by a cloud that answers: no such bucket, not with this key */
    uint64_t look_ms;
    struct id128 members[LIMIT_MEMBERS + 1]; /* that have joined, this node first */
    size_t member_count;
    bool outside; /* this node is none */
    /* For others to see. */
    _Atomic uint64_t uploads, bytes, there, marks, purges, failures, flying, resting;
};

static uint64_t now_ms(const struct uploader *u)
{
    return env_mono_ms(u->env);
}

/* ---- What uploads say ---- */

static void on_woken(void *arg, struct upload *upload)
{
    struct uploader *u = arg;
    int rc = queue_push(u->woken, upload);

    assert(rc == 0); /* there is a place for each */
    (void)rc;
}

static void on_moved(void *arg, const struct id128 *id)
{
    struct uploader *u = arg;

    copies_moved(u->copies, id, now_ms(u));
}

/* ---- To the journal ---- */

static void submit_gathered(struct uploader *u)
{
    for (size_t i = 0; i < u->gathered_count; i++) {
        struct change *change = u->gathered[i];
        int rc = journal_submit(u->host.journal, change);

        if (rc) {
            change->rc = rc;
            change->done(change);
        }
    }
    u->gathered_count = 0;
}

/* This thread's, from upload_step. */
static void on_submit(void *arg, struct change *change)
{
    struct uploader *u = arg;

    if (u->gathered_count == 0)
        u->gathered_ms = now_ms(u);
    assert(u->gathered_count < FLIGHTS); /* each upload has one at most */
    u->gathered[u->gathered_count++] = change;
}

/* Those of few uploads, which somebody may wait for, go at once. */
static bool gathers(const struct uploader *u)
{
    return u->gathered_count > 0 && u->gathered_count < GATHER && u->flight_count >= GATHER &&
           !u->cancelled && now_ms(u) - u->gathered_ms < GATHER_MS;
}

/* ---- From other threads ---- */

void uploader_poke(struct uploader *uploader)
{
    if (!atomic_exchange(&uploader->news, true))
        queue_wake(uploader->woken);
}

void uploader_new(struct uploader *u, const struct object *object, bool own)
{
    (void)pthread_mutex_lock(&u->lock);
    if (u->new_count < LIMIT_NEWS) /* else the sweep finds it */
        u->new[u->new_count++] = (struct new_item){object->id, object->size, own};
    (void)pthread_mutex_unlock(&u->lock);
}

void uploader_moved(struct uploader *u, const struct id128 *node)
{
    size_t at = 0;

    (void)pthread_mutex_lock(&u->lock);
    while (at < u->mover_count && !id_equal(&u->movers[at], node))
        at++;
    if (at == u->mover_count && at < LIMIT_MEMBERS)
        u->movers[u->mover_count++] = *node;
    (void)pthread_mutex_unlock(&u->lock);
}

/* Whether what becomes owed now has to wait, so that it needs a second copy. */
static bool is_slow(const struct uploader *u)
{
    return u->writeback || !u->closed;
}

static void take_news(struct uploader *u)
{
    struct new_item new[LIMIT_NEWS];

    if (!atomic_exchange(&u->news, false))
        return;
    (void)pthread_mutex_lock(&u->lock);
    size_t count = u->new_count;
    memcpy(new, u->new, count * sizeof *new);
    for (size_t i = 0; i < u->mover_count; i++)
        owed_moved(u->owed, &u->movers[i], now_ms(u));
    u->new_count = u->mover_count = 0;
    (void)pthread_mutex_unlock(&u->lock);
    owed_news(u->owed);
    for (size_t i = 0; i < count; i++) {
        int rc = 0;

        owed_new(u->owed, OUTBOX_UPLOAD, &new[i].id, new[i].size, new[i].own);
        /* It is not even begun soon. What cannot be read, a walk finds. */
        if (is_slow(u))
            rc = seconds_look(u->seconds, u->host.reader, &new[i].id);
        if (rc)
            log_debug("cloud: no second copy is asked for now: %s", err_text(rc));
    }
}

/* ---- Who is there ---- */

static void look_around(struct uploader *u)
{
    struct cluster_member view[LIMIT_MEMBERS + 1];
    struct owed_node others[LIMIT_MEMBERS];
    uint64_t now = now_ms(u);
    size_t count, other_count = 0;

    if (u->look_ms && now - u->look_ms < LOOK_MS)
        return;
    u->look_ms = now ? now : 1;
    count = cluster_members(u->cluster, view, LIMIT_MEMBERS + 1);
    u->outside = false;
    u->members[0] = u->self;
    u->member_count = 1;
    for (size_t i = 0; i < count; i++) {
        if (view[i].self)
            u->outside = view[i].joined != MEMBER_JOINED;
        if (view[i].self || view[i].joined != MEMBER_JOINED || other_count == LIMIT_MEMBERS)
            continue;
        u->members[u->member_count++] = view[i].node;
        others[other_count++] = (struct owed_node){.node = view[i].node,
                                                   .answers = view[i].state == PROBE_ALIVE ||
                                                              view[i].state == PROBE_SUSPECT};
    }
    owed_members(u->owed, others, other_count, now);
    seconds_members(u->seconds, view, count);
}

/* ---- How it went ---- */

static void say_failure(struct uploader *u, const struct upload_result *result)
{
    char text[ULID_TEXT_BYTES + 1];
    const char *why = *result->message ? result->message : err_text(result->rc);

    ulid_format(text, &result->id);
    if (u->failing_said || result->rc == ERR_CLOSED) {
        log_debug("cloud: object %s: %s", text, why);
        return;
    }
    u->failing_said = true;
    log_warn("cloud: what is owed to it cannot be brought there, first object %s: %s; it is tried "
             "again until it is there",
             text, why);
}

static void count_done(struct uploader *u, const struct upload_result *result)
{
    if (u->failing_said)
        log_info("cloud: what is owed to it is being brought there again");
    u->failing_said = false;
    switch (result->kind) {
    case OUTBOX_MARK:
        atomic_fetch_add(&u->marks, 1);
        break;
    case OUTBOX_PURGE:
        atomic_fetch_add(&u->purges, 1);
        break;
    default:
        atomic_fetch_add(result->sent ? &u->uploads : &u->there, 1);
        atomic_fetch_add(&u->bytes, result->bytes);
        break;
    }
}

/* A cloud that refuses all is as far away as one that is silent: nobody is to wait for it. */
static void note_refusal(struct uploader *u, const struct upload_result *result)
{
    bool refused = result->rc == ERR_PERMISSION || result->rc == ERR_NOT_FOUND;

    if (result->outcome == OWED_DONE)
        u->refusals = 0;
    else if (result->outcome == OWED_FAILED && refused && u->refusals < REFUSALS)
        u->refusals++;
}

static void settle(struct uploader *u, struct upload *upload)
{
    struct upload_result result;
    size_t at = 0;

    while (u->flights[at].upload != upload)
        at++;
    assert(at < u->flight_count && !u->flights[at].asks);
    u->flights[at] = u->flights[--u->flight_count];
    upload_result(upload, &result);
    note_refusal(u, &result);
    if (result.outcome == OWED_FAILED) {
        atomic_fetch_add(&u->failures, 1);
        say_failure(u, &result);
    } else if (result.outcome == OWED_DONE) {
        count_done(u, &result);
    }
    owed_ended(u->owed, result.kind, &result.id, result.outcome, result.started, result.retry_ms,
               now_ms(u));
    upload_destroy(&upload);
}

/* ---- Steps of what is under way ---- */

static struct line *line_of(struct uploader *u, const struct upload *upload)
{
    return upload_is_large(upload) ? &u->large : &u->small;
}

static void advance(struct uploader *u, struct upload *upload)
{
    struct line *line = line_of(u, upload);

    switch (upload_step(upload)) {
    case UPLOAD_WAITS:
        return;
    case UPLOAD_ASKS:
        assert(line->count < FLIGHTS);
        line->waiting[(line->first + line->count++) % FLIGHTS] = upload;
        return;
    case UPLOAD_OVER:
        settle(u, upload);
        return;
    }
}

static struct flight *flight_of(struct uploader *u, const struct upload *upload)
{
    for (size_t i = 0; i < u->flight_count; i++)
        if (u->flights[i].upload == upload)
            return &u->flights[i];
    return NULL;
}

static void take_woken(struct uploader *u)
{
    void *woken[FLIGHTS];
    size_t count = queue_take(u->woken, woken, FLIGHTS);

    for (size_t i = 0; i < count; i++) {
        struct upload *upload = woken[i];
        struct flight *flight = flight_of(u, upload);

        assert(flight);
        if (flight->asks) {
            flight->asks = false;
            line_of(u, upload)->taken--;
        }
        advance(u, upload);
    }
}

static struct cloud_guard_stats guard_of(struct uploader *u)
{
    struct cloud_guard_stats stats;

    cloud_guard_stats(u->host.cloud, &stats);
    return stats;
}

/* Give free places to those that wait for one. */
static void serve_line(struct uploader *u, struct line *line)
{
    while (line->taken < line->places && line->count > 0) {
        struct upload *upload = line->waiting[line->first];
        enum upload_asked asked = UPLOAD_FAILED;

        if (!u->cancelled && guard_of(u).wait_ms > 0)
            return;
        if (u->cancelled)
            upload_cancel(upload);
        else if ((asked = upload_ask(upload)) == UPLOAD_REFUSED)
            return; /* it stays the first in line */

        line->first = (line->first + 1) % FLIGHTS;
        line->count--;
        struct flight *flight = flight_of(u, upload);
        assert(flight && !flight->asks);
        if (asked == UPLOAD_ASKED) {
            flight->asks = true;
            line->taken++;
        } else {
            advance(u, upload);
        }
    }
}

/* ---- What to do ---- */

struct page {
    struct owed_row rows[LIMIT_OWED_PAGE];
    size_t count;
    uint64_t oldest_ms;
};

static int collect(void *arg, const struct db_owed *owed)
{
    struct page *page = arg;

    if (page->oldest_ms == 0 || owed->since_ms < page->oldest_ms)
        page->oldest_ms = owed->since_ms;
    page->rows[page->count++] = (struct owed_row){owed->id, owed->size};
    return 0;
}

/* Since when uploads are owed: a walk begins anew, its later pages may know older ones. */
static void note_oldest(struct uploader *u, const struct owed_step *step, const struct page *page)
{
    uint64_t before = atomic_load(&u->oldest_ms);
    bool first = id_is_zero(&step->id);

    if (step->kind == OUTBOX_UPLOAD &&
        (first || (page->oldest_ms && (before == 0 || page->oldest_ms < before))))
        atomic_store(&u->oldest_ms, page->oldest_ms);
}

static void read_page(struct uploader *u, const struct owed_step *step)
{
    struct page page = {.count = 0};
    int rc =
        db_reader_outbox(u->host.reader, step->kind, &step->id, LIMIT_OWED_PAGE, collect, &page);

    if (rc)
        log_warn("cloud: what is owed to it cannot be read: %s", err_text(rc));
    note_oldest(u, step, &page);
    owed_page(u->owed, rc, page.rows, page.count, now_ms(u));
}

/* Whether OBJECT's row still owes KIND. */
static bool is_due(enum outbox_kind kind, const struct object *object)
{
    switch (kind) {
    case OUTBOX_UPLOAD:
        return object_owed_here(object);
    case OUTBOX_MARK:
        return object_owes_mark(object);
    case OUTBOX_PURGE:
        return object_owes_purge(object);
    case OUTBOX_BEGUN:
        return !object_owed_here(object); /* else the upload finds out */
    default:
        abort();
    }
}

/* Whether this node is to do it now. */
static int judge(struct uploader *u, enum outbox_kind kind, const struct object *object, bool *mine)
{
    struct id128 nodes[LIMIT_MEMBERS + 1];
    size_t count = 0, first = 0;
    int rc = 0;

    *mine = false;
    if (kind == OUTBOX_UPLOAD) {
        rc = db_reader_holders(u->host.reader, object, nodes, LIMIT_MEMBERS, &count);
        first = rc == 0 && count > 0; /* the author, where it has a copy */
        /* A hold of ours that is not applied yet. */
        bool named = false;
        for (size_t i = 0; i < count; i++)
            named |= id_equal(&nodes[i], &u->self);
        if (!named)
            nodes[count++] = u->self;
    } else {
        count = u->member_count;
        memcpy(nodes, u->members, count * sizeof *nodes);
    }
    if (rc)
        return rc;
    rendezvous_sort(&object->id, nodes + first, count - first);
    *mine = owed_turn(u->owed, nodes, count, &u->self, object->size, now_ms(u));
    return 0;
}

/* What takes long is treated as if the cloud were away. */
static bool any_is_slow(const struct uploader *u)
{
    for (size_t i = 0; i < u->flight_count; i++)
        if (now_ms(u) - u->flights[i].began_ms >= SLOW_MS)
            return true;
    return !u->closed || owed_failures(u->owed) > 0;
}

static int begin(struct uploader *u, const struct owed_step *step, const struct object *object)
{
    struct upload *upload;
    int rc = upload_create(&upload, &u->host, step->kind, object, step->started);

    if (rc)
        return rc;
    assert(u->flight_count < FLIGHTS);
    u->flights[u->flight_count++] = (struct flight){.upload = upload, .began_ms = now_ms(u)};
    if (step->kind == OUTBOX_UPLOAD && is_slow(u))
        seconds_add(u->seconds, object);
    advance(u, upload);
    return 0;
}

static void start(struct uploader *u, const struct owed_step *step)
{
    struct object *object = NULL;
    int rc = journal_find(u->host.journal, u->host.reader, &step->id, &object);
    bool mine = step->own || step->kind == OUTBOX_BEGUN;

    if (rc == 0 && is_due(step->kind, object)) {
        if (!mine)
            rc = judge(u, step->kind, object, &mine);
        if (rc == 0 && mine && (rc = begin(u, step, object)) == 0) {
            object_destroy(&object);
            return;
        }
    } else if (rc == ERR_NOT_FOUND) {
        rc = 0;
    }
    object_destroy(&object);
    owed_ended(u->owed, step->kind, &step->id, rc ? OWED_FAILED : OWED_GONE, step->started, 0,
               now_ms(u));
}

/* Whether the cloud can be reached, for whoever waits for it or for another node. */
static void look_at_guard(struct uploader *u)
{
    bool closed = guard_of(u).state == BREAKER_CLOSED && u->refusals < REFUSALS;

    if (closed && !u->closed)
        owed_reached(u->owed, now_ms(u));
    u->closed = closed;
    copies_cloud(u->copies, closed);
}

/* When to step again without being woken. */
static uint64_t earliest(struct uploader *u, uint64_t until_ms)
{
    uint64_t look_ms = u->look_ms + LOOK_MS;

    if (look_ms < until_ms)
        until_ms = look_ms;
    if (u->gathered_count > 0 && u->gathered_ms + GATHER_MS < until_ms)
        until_ms = u->gathered_ms + GATHER_MS;
    if ((u->small.count && u->small.taken < u->small.places) ||
        (u->large.count && u->large.taken < u->large.places)) {
        uint64_t gate_ms = now_ms(u) + guard_of(u).wait_ms;

        if (gate_ms < until_ms)
            until_ms = gate_ms;
    }
    return until_ms;
}

uint64_t uploader_step(struct uploader *u)
{
    struct owed_step step;

    take_woken(u);
    look_around(u);
    look_at_guard(u);
    take_news(u);
    serve_line(u, &u->small);
    serve_line(u, &u->large);
    if (u->outside || !gathers(u))
        submit_gathered(u);
    atomic_store(&u->flying, u->flight_count);
    atomic_store(&u->resting, owed_failures(u->owed));
    if (u->outside)
        return now_ms(u) + LOOK_MS;
    uint64_t seconds_ms = seconds_step(u->seconds, u->host.reader, any_is_slow(u));
    owed_step(u->owed, now_ms(u), &step);
    switch (step.act) {
    case OWED_READ:
        read_page(u, &step);
        break;
    case OWED_START:
        start(u, &step);
        break;
    case OWED_WAIT:
        return earliest(u, step.until_ms < seconds_ms ? step.until_ms : seconds_ms);
    }
    return 0;
}

bool uploader_is_due(struct uploader *u)
{
    return atomic_load(&u->news) || queue_length(u->woken) > 0;
}

void uploader_cancel(struct uploader *u)
{
    u->cancelled = true;
    take_woken(u);
    serve_line(u, &u->small);
    serve_line(u, &u->large);
    submit_gathered(u);
    for (size_t i = 0; i < u->flight_count; i++)
        upload_cancel(u->flights[i].upload);
}

bool uploader_close_step(struct uploader *u)
{
    take_woken(u);
    serve_line(u, &u->small);
    serve_line(u, &u->large);
    submit_gathered(u);
    if (u->flight_count > 0)
        return false;
    db_reader_close(&u->host.reader);
    return true;
}

static void wait_until(struct uploader *u, uint64_t until_ms)
{
    uint64_t now = now_ms(u);

    if (atomic_load(&u->news) || atomic_load(&u->stopping))
        return;
    (void)queue_wait(u->woken, (int64_t)(until_ms > now ? until_ms - now : 0));
}

static void *run(void *arg)
{
    struct uploader *u = arg;

    while (!atomic_load(&u->stopping)) {
        uint64_t until_ms = uploader_step(u);

        if (until_ms)
            wait_until(u, until_ms);
    }
    uploader_cancel(u);
    while (!uploader_close_step(u))
        (void)queue_wait(u->woken, LOOK_MS);
    return NULL;
}

/* ---- Its life ---- */

int uploader_create(struct uploader **out, const struct uploader_config *config)
{
    struct uploader *u = calloc(1, sizeof *u);
    uint64_t seed;
    int rc;

    *out = NULL;
    if (!u)
        return ERR_NO_MEMORY;
    u->host = (struct upload_host){.journal = config->journal,
                                   .cloud = config->cloud,
                                   .prefix = config->prefix,
                                   .env = config->env,
                                   .woken = on_woken,
                                   .moved = on_moved,
                                   .submit = on_submit,
                                   .arg = u};
    u->cluster = config->cluster;
    u->copies = config->copies;
    u->env = config->env;
    u->self = journal_node(config->journal);
    u->closed = true;
    u->writeback = config->writeback;
    u->small.places = LIMIT_OWED_REQUESTS;
    u->large.places = LIMIT_OWED_LARGE;
    u->env->random(u->env, &seed, sizeof seed);
    (void)pthread_mutex_init(&u->lock, NULL);
    rc = owed_create(&u->owed, seed, now_ms(u));
    const struct seconds_config seconds = {.journal = config->journal,
                                           .cluster = config->cluster,
                                           .env = config->env,
                                           .copies = config->outbox_copies};
    if (rc == 0)
        rc = seconds_create(&u->seconds, &seconds);
    if (rc == 0)
        rc = queue_create(&u->woken, FLIGHTS);
    if (rc)
        uploader_destroy(&u);
    *out = u;
    return rc;
}

int uploader_open(struct uploader *u)
{
    assert(!u->started);
    return journal_reader_open(u->host.journal, &u->host.reader);
}

int uploader_start(struct uploader *u)
{
    sigset_t all, before;
    int rc = uploader_open(u);

    if (rc)
        return rc;
    (void)sigfillset(&all); /* signals are the main thread's */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&u->thread, NULL, run, u) ? ERR_NO_MEMORY : 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        db_reader_close(&u->host.reader);
        return rc;
    }
    (void)pthread_setname_np(u->thread, "uploader");
    u->started = true;
    return 0;
}

void uploader_stop(struct uploader *u)
{
    if (!u || !u->started)
        return;
    atomic_store(&u->stopping, true);
    queue_wake(u->woken);
    int rc = pthread_join(u->thread, NULL);
    assert(rc == 0);
    (void)rc;
    u->started = false;
}

void uploader_destroy(struct uploader **uploader)
{
    struct uploader *u = *uploader;

    if (!u)
        return;
    *uploader = NULL;
    assert(!u->started && u->flight_count == 0);
    queue_destroy(&u->woken);
    owed_destroy(&u->owed);
    seconds_destroy(&u->seconds);
    (void)pthread_mutex_destroy(&u->lock);
    free(u);
}

void uploader_stats(struct uploader *u, struct uploader_stats *out)
{
    *out = (struct uploader_stats){.uploads = atomic_load(&u->uploads),
                                   .bytes = atomic_load(&u->bytes),
                                   .there = atomic_load(&u->there),
                                   .marks = atomic_load(&u->marks),
                                   .purges = atomic_load(&u->purges),
                                   .failures = atomic_load(&u->failures),
                                   .flights = atomic_load(&u->flying),
                                   .resting = atomic_load(&u->resting),
                                   .oldest_ms = atomic_load(&u->oldest_ms)};
    seconds_figures(u->seconds, &out->alone, &out->seconds);
}
