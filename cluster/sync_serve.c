/*
 * Giving to a peer what it lacks.
 *
 * The question lists the asker's live runs and sums up its ended ones. Where that is the sum of our
 * ended runs, but for what a restart that one of us has not heard of yet explains, only our live
 * runs and those listed can hold news. Otherwise it is asked for all of its ended runs, page by
 * page (no ended run: no page is needed). Our runs are walked in the order of origins, as far as
 * the asker's present page tells of them; each that we know further is read and sent, one message
 * after the other, while there is credit. Last comes this process's own run, again and again for a
 * few rounds, until nothing lies between what was sent and what will be pushed next: then the asker
 * is in step, and the session ends.
 *
 *   WALK -> RUN -> WALK                     a run was sent
 *   WALK -> PAGE_ASK -> PAGE_WAIT -> WALK   the page was walked through
 *   WALK -> TAIL -> (RUN -> TAIL) -> end
 *
 * A run of which the asker lacks what we have compacted is left out, and the end says BEHIND. A
 * read that fails leaves the rest of its run out: DAMAGED. Nothing from the asker, or nothing from
 * the reader, for SYNC_DEADLINE_MS: the session is dropped.
 */
#include "cluster/sync_internal.h"

#include <assert.h>

#define TAIL_ROUNDS 8

static struct served *find_served(struct sync *core, const struct id128 *peer, uint64_t session)
{
    for (size_t i = 0; session && i < LIMIT_SYNC_SERVED; i++) {
        struct served *s = &core->served[i];

        if (s->session == session && id_equal(&s->peer, peer))
            return s;
    }
    return NULL;
}

/* Make COPY a copy of RUNS. */
static int copy_runs(struct buf *copy, struct text runs)
{
    buf_reset(copy);
    if (runs.len)
        buf_add(copy, runs.ptr, runs.len);
    return buf_check(copy);
}

static void drop(struct served *s)
{
    buf_release(&s->runs);
    buf_release(&s->page);
    *s = (struct served){0};
}

void sync_serve_release(struct sync *core)
{
    for (size_t i = 0; i < LIMIT_SYNC_SERVED; i++)
        drop(&core->served[i]);
}

void sync_serve_peer_gone(struct sync *core, const struct id128 *node)
{
    for (size_t i = 0; i < LIMIT_SYNC_SERVED; i++) {
        if (core->served[i].session && id_equal(&core->served[i].peer, node))
            drop(&core->served[i]);
    }
}

bool sync_serve_end(struct sync *core, const struct id128 *peer, uint64_t session)
{
    struct served *s = find_served(core, peer, session);

    if (s)
        drop(s);
    return s != NULL;
}

static void end(struct sync *core, struct served *s, enum wire_end code)
{
    sync_send_flow(core, &s->peer, WIRE_SYNC_END, s->session, 0, code);
    drop(s);
}

/* ---- the question ---- */

/* A place for the session: a peer has one at most, so a new question takes the old one's. */
static struct served *place_for(struct sync *core, const struct id128 *peer)
{
    struct served *place = NULL;

    for (size_t i = 0; i < LIMIT_SYNC_SERVED; i++) {
        struct served *s = &core->served[i];

        if (s->session && id_equal(&s->peer, peer)) {
            end(core, s, WIRE_END_UNKNOWN);
            return s;
        }
        if (!s->session && !place)
            place = s;
    }
    return place;
}

static uint64_t seq_in(const struct buf *list, const struct id128 *origin)
{
    struct text runs = {list->data, (uint32_t)list->len};
    size_t low = 0, high = wire_run_count(runs);

    while (low < high) {
        size_t middle = (low + high) / 2;
        struct wire_run run = wire_run_at(runs, middle);
        int order = id_compare(&run.origin, origin);

        if (order == 0)
            return run.seq;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

static uint64_t known_to(const struct served *s, const struct id128 *origin)
{
    uint64_t listed = seq_in(&s->runs, origin), paged = seq_in(&s->page, origin);

    return listed > paged ? listed : paged;
}

/*
 * Does the asker know all our ended runs, but for those that it lists? Its sum tells, if we leave
 * out what it lists (we have heard of their ends, it has not), or if we add our live runs that it
 * does not list, as far as we know them (the other way round).
 */
static bool knows_our_ended(const struct sync *core, struct served *s,
                            const struct vector_sum *theirs)
{
    struct vector_sum sum = vector_sum(core->vector, VECTOR_ENDED);
    struct text runs = {s->runs.data, (uint32_t)s->runs.len};
    const struct vector_run *run = NULL;

    for (size_t i = 0; i < wire_run_count(runs); i++) {
        struct wire_run listed = wire_run_at(runs, i);

        run = vector_find(core->vector, &listed.origin);
        if (run && vector_run_is_ended(run))
            vector_sum_subtract(&sum, &run->origin, run->seq);
    }
    if (vector_sum_equal(&sum, theirs))
        return true;
    if (vector_count(core->vector, VECTOR_LIVE) > LIMIT_WIRE_RUNS)
        return false;
    run = vector_after(core->vector, NULL, VECTOR_LIVE);
    for (; run; run = vector_after(core->vector, &run->origin, VECTOR_LIVE)) {
        if (!run->frozen && !id_equal(&run->origin, &core->push.origin) &&
            known_to(s, &run->origin) == 0)
            vector_sum_add(&sum, &run->origin, run->seq);
    }
    s->rest_known = vector_sum_equal(&sum, theirs);
    return s->rest_known;
}

int sync_serve_ask(struct sync *core, const struct wire_message *message)
{
    const struct wire_sync_ask *ask = &message->sync_ask;

    if (ask->session == SYNC_PUSH || find_served(core, &message->from, ask->session)) {
        core->stats.ignored++;
        return 0;
    }
    struct served *s = place_for(core, &message->from);
    int rc = s ? copy_runs(&s->runs, ask->runs) : 0;

    if (!s || rc < 0) {
        sync_send_flow(core, &message->from, WIRE_SYNC_END, ask->session, 0, WIRE_END_BUSY);
        return rc;
    }
    struct vector_sum ended = {ask->ended, ask->ended_count};
    bool same = knows_our_ended(core, s, &ended);
    struct peer *peer = sync_find_peer(core, &message->from);

    s->session = ask->session;
    s->peer = message->from;
    s->progress_ms = core->now_ms;
    s->credit =
        ask->credit_bytes < LIMIT_SYNC_CREDIT_BYTES ? ask->credit_bytes : LIMIT_SYNC_CREDIT_BYTES;
    s->part = same ? VECTOR_LIVE : VECTOR_ALL;
    s->last_page = same || ask->ended_count == 0;
    s->state = s->last_page ? SERVE_WALK : SERVE_PAGE_ASK;
    if (peer)
        peer->in_step = false; /* our own run comes with the session, then */
    core->stats.served++;
    return 0;
}

int sync_serve_vector(struct sync *core, const struct wire_message *message)
{
    const struct wire_sync_vector *vector = &message->sync_vector;
    struct served *s = find_served(core, &message->from, vector->session);
    size_t count = wire_run_count(vector->runs);

    if (!s) {
        sync_send_flow(core, &message->from, WIRE_SYNC_END, vector->session, 0, WIRE_END_UNKNOWN);
        return 0;
    }
    if (vector->page < s->page_next) {
        core->stats.ignored++; /* once more the same */
        return 0;
    }
    struct id128 bound = count ? wire_run_at(vector->runs, count - 1).origin : s->bound;
    bool forward = id_compare(&bound, &s->bound) > 0 || vector->last;
    int rc = 0;

    if (s->state == SERVE_PAGE_WAIT && vector->page == s->page_next && forward)
        rc = copy_runs(&s->page, vector->runs);
    else
        rc = ERR_INVALID;
    if (rc < 0) {
        core->stats.ignored++;
        end(core, s, WIRE_END_UNKNOWN);
        return rc == ERR_INVALID ? 0 : rc;
    }
    s->bound = bound;
    s->last_page = vector->last;
    s->page_next++;
    s->progress_ms = core->now_ms;
    s->state = SERVE_WALK;
    return 0;
}

void sync_serve_credit(struct sync *core, const struct wire_message *message)
{
    const struct wire_flow *flow = &message->flow;
    struct served *s = find_served(core, &message->from, flow->session);

    if (!s) {
        sync_send_flow(core, &message->from, WIRE_SYNC_END, flow->session, 0, WIRE_END_UNKNOWN);
        return;
    }
    if (flow->bytes == 0)
        return;
    s->credit = flow->bytes < LIMIT_SYNC_CREDIT_BYTES - s->credit ? s->credit + flow->bytes
                                                                  : LIMIT_SYNC_CREDIT_BYTES;
    s->progress_ms = core->now_ms;
}

/* ---- the walk ---- */

/* Does the asker lack something of RUN that we can give? Then it is the one to send. */
static bool begin_run(struct served *s, const struct vector_run *run, uint64_t known)
{
    if (run->frozen || run->seq <= known)
        return false;
    if (run->anchor_seq > known) {
        s->behind = true;
        return false;
    }
    s->origin = run->origin;
    s->next = known + 1;
    s->goal = run->seq;
    s->state = SERVE_RUN;
    return true;
}

/* The run to be compared next; NULL: none. */
static const struct vector_run *next_run(const struct sync *core, struct served *s)
{
    const struct id128 *at = id_is_zero(&s->at) ? NULL : &s->at;
    const struct vector_run *run = vector_after(core->vector, at, s->part), *ended = NULL;
    struct text runs = {s->runs.data, (uint32_t)s->runs.len};

    for (; s->part == VECTOR_LIVE && s->listed < wire_run_count(runs); s->listed++) {
        struct wire_run listed = wire_run_at(runs, s->listed);

        if (at && id_compare(&listed.origin, at) <= 0)
            continue;
        if (run && id_compare(&listed.origin, &run->origin) >= 0)
            break;
        ended = vector_find(core->vector, &listed.origin);
        if (ended && vector_run_is_ended(ended))
            return ended;
    }
    return run;
}

/* The asker seems not to know: it is told at the end. What finds no room waits for its next
 * question. */
static void note_frozen(struct served *s, const struct vector_run *run)
{
    if (s->frozen_len == sizeof s->frozen || id_is_zero(&run->node))
        return;
    memcpy(s->frozen + s->frozen_len, run->origin.bytes, sizeof run->origin.bytes);
    memcpy(s->frozen + s->frozen_len + sizeof run->origin.bytes, run->node.bytes,
           sizeof run->node.bytes);
    s->frozen_len += WIRE_FROZEN_BYTES;
}

/* False: there is more to compare, later. */
static bool walk(struct sync *core, struct served *s)
{
    for (unsigned i = 0; i < LIMIT_SYNC_WALK; i++) {
        const struct vector_run *run = next_run(core, s);

        if (!run || (!s->last_page && id_compare(&run->origin, &s->bound) > 0)) {
            s->state = s->last_page ? SERVE_TAIL : SERVE_PAGE_ASK;
            return true;
        }
        uint64_t known = known_to(s, &run->origin);

        s->at = run->origin;
        if (run->frozen && known != WIRE_SEQ_MAX)
            note_frozen(s, run);
        if (id_equal(&run->origin, &core->push.origin)) {
            s->own_origin = run->origin;
            s->own_known = known;
        } else if ((known > 0 || !s->rest_known) && begin_run(s, run, known)) {
            s->tail = false;
            return true;
        }
    }
    return false;
}

/* The message lends what outlives the session, which ends in this step. */
static void tell_frozen(struct sync *core, struct served *s)
{
    struct wire_message *message = sync_send(core, &s->peer, WIRE_SYNC_FROZEN);
    char *runs = core->frozen[s - core->served];

    memcpy(runs, s->frozen, s->frozen_len);
    message->sync_frozen =
        (struct wire_sync_frozen){.session = s->session, .runs = {runs, s->frozen_len}};
    s->frozen_len = 0;
}

/* What comes last: our own run, and the end. True: there is something to send. */
static bool tail(struct sync *core, struct served *s)
{
    const struct vector_run *own = vector_find(core->vector, &core->push.origin);
    struct peer *peer = sync_find_peer(core, &s->peer);

    if (own && own->ended && s->part == VECTOR_LIVE)
        own = NULL;                                       /* the sums agreed about it */
    if (own && !id_equal(&s->own_origin, &own->origin)) { /* drawn while we walked */
        s->own_origin = own->origin;
        s->own_known = known_to(s, &own->origin);
    }
    if (own && !s->damaged && s->rounds++ < TAIL_ROUNDS && begin_run(s, own, s->own_known)) {
        s->tail = true;
        return true;
    }
    if (peer && !peer->in_step && !s->behind && !s->damaged)
        (void)sync_push_join(core, peer, s->own_known);
    if (s->frozen_len)
        tell_frozen(core, s);
    end(core, s, s->behind ? WIRE_END_BEHIND : s->damaged ? WIRE_END_DAMAGED : WIRE_END_DONE);
    return false;
}

static void leave_run(struct served *s)
{
    s->state = s->tail ? SERVE_TAIL : SERVE_WALK;
    if (s->tail)
        s->own_known = s->next - 1;
}

static void read_on(struct sync *core, struct served *s)
{
    const struct vector_run *run = vector_find(core->vector, &s->origin);

    assert(run && !s->reading);
    if (s->next > s->goal || run->frozen) {
        leave_run(s);
        return;
    }
    if (run->anchor_seq >= s->next) {
        s->behind = true;
        leave_run(s);
        return;
    }
    uint64_t limit = s->credit < LIMIT_WIRE_EVENT_BYTES ? s->credit : LIMIT_WIRE_EVENT_BYTES;

    s->reading = true;
    sync_emit(core, SYNC_READ)->read = (struct sync_read){.peer = s->peer,
                                                          .session = s->session,
                                                          .origin = s->origin,
                                                          .first = s->next,
                                                          .limit_bytes = (uint32_t)limit};
}

void sync_serve_read_done(struct sync *core, const struct sync_read_done *done)
{
    struct served *s = find_served(core, &done->peer, done->session);

    if (!s || !s->reading || !id_equal(&s->origin, &done->origin) || s->next != done->first)
        return;
    s->reading = false;
    s->progress_ms = core->now_ms;
    if (done->rc < 0) {
        const struct vector_run *run = vector_find(core->vector, &s->origin);

        if (run->anchor_seq >= s->next)
            s->behind = true;
        else
            s->damaged = true;
        leave_run(s);
        return;
    }
    assert(done->count > 0 && done->data.len <= LIMIT_WIRE_EVENT_BYTES);
    struct wire_message *message = sync_send(core, &s->peer, WIRE_SYNC_EVENTS);

    message->sync_events = (struct wire_sync_events){.session = s->session,
                                                     .origin = done->origin,
                                                     .first = done->first,
                                                     .count = done->count,
                                                     .data = done->data};
    s->next = done->first + done->count;
    uint64_t charge = sync_charge(done->data.len);

    s->credit -= charge < s->credit ? charge : s->credit;
    core->stats.events_out += done->count;
    core->stats.bytes_out += done->data.len;
}

/* As far as it goes without waiting for anybody. */
static void advance(struct sync *core, struct served *s)
{
    while (s->session && !s->reading && sync_room(core)) {
        switch (s->state) {
        case SERVE_WALK:
            if (!walk(core, s)) {
                core->more = true;
                return;
            }
            break;
        case SERVE_PAGE_ASK:
            sync_send_flow(core, &s->peer, WIRE_SYNC_MORE, s->session, 0, WIRE_END_DONE);
            s->state = SERVE_PAGE_WAIT;
            return;
        case SERVE_PAGE_WAIT:
            return;
        case SERVE_RUN:
            if (s->credit == 0 && s->next <= s->goal)
                return;
            read_on(core, s);
            break;
        case SERVE_TAIL:
            if (!tail(core, s))
                return;
            break;
        }
    }
}

void sync_serve_pump(struct sync *core)
{
    for (size_t i = 0; i < LIMIT_SYNC_SERVED; i++) {
        struct served *s = &core->served[i];

        if (!s->session || !sync_room(core))
            continue;
        if (core->now_ms - s->progress_ms >= SYNC_DEADLINE_MS) {
            core->stats.timeouts++;
            end(core, s, WIRE_END_UNKNOWN);
            continue;
        }
        advance(core, s);
    }
}
