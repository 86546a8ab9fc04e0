/*
 * What becomes wanted is told, and waits in a bounded ring. Besides, two walks go through the list
 * of all that is wanted, which is in the order of ids, that is, of time:
 *
 *   recent   after news, over ids of the last minute: where a new object stands
 *   sweep    over all of it: what was raised to level 2 long after its put, what a joiner lacks,
 *            what was forgotten here after a failure
 *
 * Retries that are due go first, then the ring, the recent walk, the sweep; each step starts one
 * copy or asks for a walk's next page. What is under way, or rests after a failure, is passed over.
 * A few places are the ring's alone: what somebody waits for does not queue behind a joiner's
 * backlog.
 *
 * Failure: an object that could not be copied rests, longer each time. The table of these is
 * bounded: where it is full, whoever would rest longest is forgotten, as a later sweep meets it
 * again. A sweep over very many objects that nobody can give would be a busy loop; so after some
 * failures in a row it only trickles on, until something succeeds. New objects do not wait for it.
 */
#include "cluster/wanted.h"

#include <assert.h>
#include <stdlib.h>

struct walk {
    bool active;
    bool asked;  /* for a page */
    bool again;  /* news came since it began */
    bool at_end; /* `ids` is the last page */
    struct id128 after;
    size_t next, count;
    struct id128 ids[LIMIT_REPLICA_PAGE];
};

struct failure {
    struct id128 id;
    unsigned attempts; /* that failed; 0: it rests for want of room, or for a moment */
    uint64_t retry_ms;
    bool flies;
};

struct flight {
    struct id128 id;
    bool is_new;
};

struct wanted {
    uint64_t dice;
    struct id128 new[LIMIT_REPLICA_NEW]; /* a ring */
    size_t new_first, new_count;
    struct walk recent, sweep;
    struct id128 recent_from; /* where the next recent walk begins */
    uint64_t sweep_began_ms;
    uint64_t sweep_min_ms, sweep_max_ms; /* when the next one may begin, with and without news */
    uint64_t trickle_ms;                 /* the sweep starts nothing before */
    uint64_t pause_ms;                   /* nothing starts before */
    unsigned streak;                     /* failures in a row */
    size_t flight_count, failure_count;
    size_t old_count; /* flights that are not new */
    uint64_t due_ms;  /* no failure is due before */
    struct flight flights[LIMIT_REPLICAS];
    struct failure failures[LIMIT_REPLICA_FAILURES];
};

/* splitmix64 (Steele et al., 2014), as a number below BELOW. */
static uint64_t draw(struct wanted *w, uint64_t below)
{
    uint64_t x = w->dice += UINT64_C(0x9e3779b97f4a7c15);

    assert(below > 0);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (x ^ x >> 31) % below;
}

int wanted_create(struct wanted **out, uint64_t seed)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return ERR_NO_MEMORY;
    (*out)->dice = seed;
    (*out)->due_ms = UINT64_MAX;
    return 0;
}

void wanted_destroy(struct wanted **wanted)
{
    free(*wanted);
    *wanted = NULL;
}

size_t wanted_flights(const struct wanted *wanted)
{
    return wanted->flight_count;
}

size_t wanted_failures(const struct wanted *wanted)
{
    return wanted->failure_count;
}

void wanted_news(struct wanted *w, uint64_t wall_ms)
{
    uint64_t from = wall_ms > REPLICA_RECENT_MS ? wall_ms - REPLICA_RECENT_MS : 0;

    /* The first 48 bits of a ULID are its time. */
    w->recent_from = (struct id128){{0}};
    for (int i = 5; i >= 0; i--, from >>= 8)
        w->recent_from.bytes[i] = (uint8_t)from;
    w->recent.again = w->sweep.again = true;
}

void wanted_new(struct wanted *w, const struct id128 *id)
{
    if (w->new_count < LIMIT_REPLICA_NEW)
        w->new[(w->new_first + w->new_count++) % LIMIT_REPLICA_NEW] = *id;
}

/* ---- Failures ---- */

static struct failure *failure_of(struct wanted *w, const struct id128 *id)
{
    for (size_t i = 0; i < w->failure_count; i++)
        if (id_equal(&w->failures[i].id, id))
            return &w->failures[i];
    return NULL;
}

/* The place for a new one: where there is none left, the one who would rest longest gives way. */
static struct failure *failure_add(struct wanted *w, const struct id128 *id)
{
    struct failure *failure = NULL;

    if (w->failure_count < LIMIT_REPLICA_FAILURES) {
        failure = &w->failures[w->failure_count++];
    } else {
        for (size_t i = 0; i < w->failure_count; i++)
            if (!w->failures[i].flies && (!failure || w->failures[i].retry_ms > failure->retry_ms))
                failure = &w->failures[i];
    }
    assert(failure); /* there are more of them than can fly */
    *failure = (struct failure){.id = *id};
    return failure;
}

static void failure_remove(struct wanted *w, struct failure *failure)
{
    *failure = w->failures[--w->failure_count];
}

static void rest(struct wanted *w, struct failure *failure, uint64_t until_ms)
{
    failure->flies = false;
    failure->retry_ms = until_ms;
    if (until_ms < w->due_ms)
        w->due_ms = until_ms;
}

static uint64_t backoff(struct wanted *w, unsigned attempts)
{
    uint64_t base = REPLICA_BACKOFF_MS;

    for (unsigned i = 1; i < attempts && base < REPLICA_BACKOFF_MAX_MS; i++)
        base *= 2;
    if (base > REPLICA_BACKOFF_MAX_MS * 2 / 3)
        base = REPLICA_BACKOFF_MAX_MS * 2 / 3;
    return base + draw(w, base / 2 + 1);
}

/* The first failure that is due; without one, due_ms is when to look again. */
static struct failure *due(struct wanted *w, uint64_t now_ms)
{
    struct failure *first = NULL;

    if (now_ms < w->due_ms)
        return NULL;
    for (size_t i = 0; i < w->failure_count; i++) {
        struct failure *failure = &w->failures[i];

        if (!failure->flies && (!first || failure->retry_ms < first->retry_ms))
            first = failure;
    }
    if (first && first->retry_ms <= now_ms)
        return first;
    w->due_ms = first ? first->retry_ms : UINT64_MAX;
    return NULL;
}

void wanted_revive(struct wanted *w, uint64_t now_ms)
{
    for (size_t i = 0; i < w->failure_count; i++) {
        struct failure *failure = &w->failures[i];
        uint64_t at_ms = now_ms + draw(w, REPLICA_BACKOFF_MS);

        if (failure->attempts == 0 || failure->flies || failure->retry_ms <= at_ms)
            continue;
        failure->attempts = 1;
        rest(w, failure, at_ms);
    }
    w->streak = 0;
    w->sweep.again = true;
}

/* ---- Flights ---- */

static bool flies(const struct wanted *w, const struct id128 *id)
{
    for (size_t i = 0; i < w->flight_count; i++)
        if (id_equal(&w->flights[i].id, id))
            return true;
    return false;
}

static void start(struct wanted *w, const struct id128 *id, bool is_new, struct wanted_step *out)
{
    struct failure *failure = failure_of(w, id);

    assert(w->flight_count < LIMIT_REPLICAS && !flies(w, id));
    if (failure)
        failure->flies = true;
    w->flights[w->flight_count++] = (struct flight){*id, is_new};
    w->old_count += !is_new;
    *out = (struct wanted_step){.act = WANTED_START, .id = *id};
}

bool wanted_begin(struct wanted *w, const struct id128 *id, uint64_t now_ms)
{
    struct wanted_step step;

    if (w->flight_count == LIMIT_REPLICAS || w->old_count >= LIMIT_REPLICAS_OLD ||
        now_ms < w->pause_ms || flies(w, id))
        return false;
    start(w, id, false, &step);
    return true;
}

void wanted_ended(struct wanted *w, const struct id128 *id, enum wanted_outcome outcome,
                  uint64_t now_ms)
{
    struct failure *failure = failure_of(w, id);
    size_t at = 0;

    while (at < w->flight_count && !id_equal(&w->flights[at].id, id))
        at++;
    assert(at < w->flight_count);
    w->old_count -= !w->flights[at].is_new;
    w->flights[at] = w->flights[--w->flight_count];
    if (outcome == WANTED_DONE || outcome == WANTED_GONE) {
        if (outcome == WANTED_DONE)
            w->streak = 0;
        if (failure)
            failure_remove(w, failure);
        return;
    }
    if (!failure)
        failure = failure_add(w, id);
    switch (outcome) {
    case WANTED_BUSY:
        w->pause_ms = now_ms + REPLICA_BUSY_MS;
        rest(w, failure, w->pause_ms);
        break;
    case WANTED_NO_FIT:
        failure->attempts = 0;
        rest(w, failure, now_ms + REPLICA_FULL_MS);
        break;
    case WANTED_FULL:
        w->pause_ms = now_ms + REPLICA_FULL_MS;
        failure->attempts = 0;
        rest(w, failure, w->pause_ms);
        break;
    case WANTED_AGAIN:
        failure->attempts = 0;
        rest(w, failure, now_ms);
        break;
    default:
        assert(outcome == WANTED_FAILED);
        w->streak++;
        if (w->streak == REPLICA_STREAK)
            w->trickle_ms = now_ms + REPLICA_TRICKLE_MS;
        failure->attempts++;
        rest(w, failure, now_ms + backoff(w, failure->attempts));
        break;
    }
}

/* Start the next of those that have just become wanted, if there is one. */
static bool start_new(struct wanted *w, struct wanted_step *out)
{
    while (w->new_count > 0) {
        const struct id128 *id = &w->new[w->new_first];

        w->new_first = (w->new_first + 1) % LIMIT_REPLICA_NEW;
        w->new_count--;
        if (flies(w, id) || failure_of(w, id))
            continue;
        start(w, id, true, out);
        return true;
    }
    return false;
}

/* ---- Walks ---- */

static void begin(struct walk *walk, const struct id128 *after)
{
    assert(!walk->asked);
    walk->active = true;
    walk->again = false;
    walk->at_end = false;
    walk->after = *after;
    walk->next = walk->count = 0;
}

/* Begin the walks that are due. */
static void set_out(struct wanted *w, uint64_t now_ms)
{
    static const struct id128 none;

    if (!w->recent.active && w->recent.again)
        begin(&w->recent, &w->recent_from);
    if (!w->sweep.active && now_ms >= (w->sweep.again ? w->sweep_min_ms : w->sweep_max_ms)) {
        begin(&w->sweep, &none);
        w->sweep_began_ms = now_ms;
    }
}

static void sweep_ended(struct wanted *w, uint64_t now_ms)
{
    uint64_t pause = (now_ms - w->sweep_began_ms) * 4;

    w->sweep.active = false;
    if (pause < REPLICA_SWEEP_MIN_MS)
        pause = REPLICA_SWEEP_MIN_MS;
    if (pause > REPLICA_SWEEP_MAX_MS)
        pause = REPLICA_SWEEP_MAX_MS;
    w->sweep_min_ms = now_ms + pause;
    w->sweep_max_ms = now_ms + REPLICA_SWEEP_MAX_MS;
}

/* WALK's next step: true with *OUT, or it has none (any more, for now). */
static bool walk_step(struct wanted *w, struct walk *walk, uint64_t now_ms, struct wanted_step *out)
{
    if (!walk->active || walk->asked)
        return false;
    while (walk->next < walk->count) {
        const struct id128 *id = &walk->ids[walk->next++];

        if (flies(w, id) || failure_of(w, id))
            continue;
        start(w, id, false, out);
        return true;
    }
    if (!walk->at_end) {
        walk->asked = true;
        *out = (struct wanted_step){.act = WANTED_READ, .id = walk->after};
        return true;
    }
    if (walk == &w->sweep)
        sweep_ended(w, now_ms);
    else
        walk->active = false;
    return false;
}

void wanted_page(struct wanted *w, int rc, const struct id128 *ids, size_t count, uint64_t now_ms)
{
    struct walk *walk = w->recent.asked ? &w->recent : &w->sweep;

    assert(walk->asked && count <= LIMIT_REPLICA_PAGE);
    walk->asked = false;
    if (rc) {
        /* From its beginning, later: a database that cannot be read is not asked all the time. */
        w->pause_ms = now_ms + REPLICA_BACKOFF_MS;
        walk->active = false;
        walk->again = true;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        assert(id_compare(&ids[i], i ? &ids[i - 1] : &walk->after) > 0);
        walk->ids[i] = ids[i];
    }
    walk->next = 0;
    walk->count = count;
    walk->at_end = count < LIMIT_REPLICA_PAGE;
    if (count)
        walk->after = ids[count - 1];
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When there is something to do without a further input. */
static uint64_t next_ms(const struct wanted *w, bool trickles)
{
    uint64_t at = w->due_ms;

    if (trickles)
        at = earlier(at, w->trickle_ms);
    if (!w->sweep.active)
        at = earlier(at, w->sweep.again ? w->sweep_min_ms : w->sweep_max_ms);
    return at;
}

void wanted_step(struct wanted *w, uint64_t now_ms, struct wanted_step *out)
{
    bool trickles = false;
    struct failure *failure;

    assert(!w->recent.asked && !w->sweep.asked);
    *out = (struct wanted_step){.act = WANTED_WAIT, .until_ms = UINT64_MAX};
    if (w->flight_count == LIMIT_REPLICAS)
        return;
    if (now_ms < w->pause_ms) {
        out->until_ms = w->pause_ms;
        return;
    }
    bool full = w->old_count >= LIMIT_REPLICAS_OLD;
    failure = full ? NULL : due(w, now_ms);
    if (failure) {
        start(w, &failure->id, false, out);
        return;
    }
    if (start_new(w, out) || full)
        return;
    set_out(w, now_ms);
    if (walk_step(w, &w->recent, now_ms, out))
        return;
    trickles = w->streak >= REPLICA_STREAK && now_ms < w->trickle_ms;
    if (!trickles && walk_step(w, &w->sweep, now_ms, out)) {
        if (w->streak >= REPLICA_STREAK && out->act == WANTED_START)
            w->trickle_ms = now_ms + REPLICA_TRICKLE_MS;
        return;
    }
    /* News came while the recent walk went: it goes once more. */
    if (!w->recent.active && w->recent.again) {
        set_out(w, now_ms);
        if (walk_step(w, &w->recent, now_ms, out))
            return;
    }
    out->until_ms = next_ms(w, trickles);
}
