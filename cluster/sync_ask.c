/*
 * Getting from peers what we lack.
 *
 * A wish to ask a peer arises when its summary differs from our sum, when something it pushed
 * begins behind a gap, or every SYNC_REPAIR_MS at random. After a short random delay, in which the
 * news may come by itself, one of the peers wished for is asked: one at a time, a second one only
 * where the first is slow, for two would send the same. What comes is handed to the journal as far
 * as it follows what is known or on its way there; known prefixes are cut off. Credit goes back as
 * batches become durable.
 *
 *   sent -> events, pages … -> ended (END, a gap, overload, deadline) -> batches answered -> closed
 *
 * A session that brought nothing makes the next one with that peer wait, twice as long each time;
 * one that broke off is followed by another, one that was DONE only where the peer's next summary
 * still differs. A batch that does not fit is reported, and that run is not taken from that
 * peer for SYNC_REFUSED_MS; a log that is full ends the session.
 */
#include "cluster/sync_internal.h"

#include <assert.h>

enum taken { TAKEN, TAKEN_BEFORE, TAKEN_GAP, TAKEN_REFUSED, TAKEN_NO_ROOM };

/* ---- batches on their way ---- */

static struct flight *find_flight(struct sync *core, const struct id128 *origin)
{
    for (size_t i = 0; core->flight_count > 0 && i < LIMIT_SYNC_FLIGHTS; i++) {
        if (core->flights[i].used && id_equal(&core->flights[i].origin, origin))
            return &core->flights[i];
    }
    return NULL;
}

static struct flight *flight_for(struct sync *core, const struct id128 *origin)
{
    struct flight *flight = find_flight(core, origin);

    for (size_t i = 0; !flight && i < LIMIT_SYNC_FLIGHTS; i++) {
        if (!core->flights[i].used) {
            flight = &core->flights[i];
            *flight = (struct flight){.used = true, .origin = *origin};
            core->flight_count++;
        }
    }
    return flight;
}

/* A flight is over when all its batches were answered, and the vector shows them or one failed; or
 * when the caller forgot about it. */
static void settle_flight(struct sync *core, struct flight *flight)
{
    const struct vector_run *run = vector_find(core->vector, &flight->origin);
    bool landed = flight->commits == 0 && (flight->failure || (run && run->seq >= flight->through));

    if (landed || core->now_ms - flight->since_ms >= 3 * SYNC_DEADLINE_MS) {
        flight->used = false;
        core->flight_count--;
    }
}

void sync_ask_local(struct sync *core, const struct id128 *origin)
{
    struct flight *flight = find_flight(core, origin);

    if (flight)
        settle_flight(core, flight);
}

/* How far ORIGIN is known, or will be in a moment. */
static uint64_t known(struct sync *core, const struct id128 *origin)
{
    const struct vector_run *run = vector_find(core->vector, origin);
    const struct flight *flight = find_flight(core, origin);
    uint64_t seq = run ? run->seq : 0;

    return flight && !flight->failure && flight->through > seq ? flight->through : seq;
}

/* ---- what does not fit ---- */

static bool is_refused(const struct sync *core, const struct id128 *origin,
                       const struct id128 *peer)
{
    for (size_t i = 0; i < LIMIT_SYNC_REFUSED; i++) {
        const struct refusal *r = &core->refusals[i];

        if (r->until_ms > core->now_ms && id_equal(&r->origin, origin) && id_equal(&r->peer, peer))
            return true;
    }
    return false;
}

/* Will it be refused again? */
static bool is_final(int rc)
{
    return rc == ERR_CONFLICT || rc == ERR_INVALID || rc == ERR_UNSUPPORTED;
}

static void conflict(struct sync *core, const struct id128 *origin, const struct id128 *peer,
                     uint64_t seq, int rc)
{
    struct refusal *oldest = &core->refusals[0];

    if (is_refused(core, origin, peer))
        return;
    for (size_t i = 1; i < LIMIT_SYNC_REFUSED; i++) {
        if (core->refusals[i].until_ms < oldest->until_ms)
            oldest = &core->refusals[i];
    }
    *oldest = (struct refusal){
        .origin = *origin, .peer = *peer, .until_ms = core->now_ms + SYNC_REFUSED_MS};
    struct sync_output *out = sync_emit(core, SYNC_CONFLICT);

    out->conflict.peer = *peer;
    out->conflict.origin = *origin;
    out->conflict.seq = seq;
    out->conflict.rc = rc;
}

/* ---- events ---- */

/* Is among EVENTS another one than the last that we know of RUN? What lies below that is not looked
 * at; what follows it, the journal compares. */
static bool contradicts(const struct vector_run *run, const struct wire_sync_events *events)
{
    static const uint8_t unknown[SHA256_BYTES];
    uint8_t hash[SHA256_BYTES];
    struct text event;
    size_t offset = 0;

    if (!run || run->seq < events->first || run->seq - events->first >= events->count ||
        memcmp(run->hash, unknown, sizeof unknown) == 0)
        return false;
    for (uint64_t seq = events->first; seq <= run->seq; seq++)
        if (!wire_next_event(events->data, &offset, &event))
            return false;
    sha256(event.ptr, event.len, hash);
    return memcmp(hash, run->hash, sizeof hash) != 0;
}

/* Hand to the journal what of EVENTS is new and follows, and all of what contradicts what is here:
 * it decides what comes of that, also where the run is our own and we did not write that. *BYTES:
 * how much that is. */
static enum taken take(struct sync *core, const struct id128 *peer,
                       const struct wire_sync_events *events, uint32_t *bytes)
{
    const struct vector_run *run = vector_find(core->vector, &events->origin);
    struct flight *flight = find_flight(core, &events->origin);
    uint64_t last = events->first + events->count - 1, from = known(core, &events->origin) + 1;
    struct text data = events->data, event;
    size_t offset = 0;

    if ((run && run->frozen) || is_refused(core, &events->origin, peer))
        return TAKEN_REFUSED;
    if (contradicts(run, events)) {
        from = events->first;
    } else if (last < from) {
        core->stats.duplicates += events->count;
        return TAKEN_BEFORE;
    }
    if (events->first > from) {
        core->stats.gaps++;
        return TAKEN_GAP;
    }
    if ((flight && flight->failure) || (!run && !flight && !vector_has_room(core->vector)))
        return TAKEN_NO_ROOM;
    for (uint64_t seq = events->first; seq < from; seq++) {
        if (!wire_next_event(data, &offset, &event))
            return TAKEN_REFUSED;
        core->stats.duplicates++;
    }
    flight = flight_for(core, &events->origin);
    if (!flight)
        return TAKEN_NO_ROOM;
    if (last > flight->through)
        flight->through = last;
    flight->commits++;
    flight->since_ms = core->now_ms;
    *bytes = data.len - (uint32_t)offset;
    sync_emit(core, SYNC_COMMIT)->commit =
        (struct sync_commit){.peer = *peer,
                             .session = events->session,
                             .origin = events->origin,
                             .first = from,
                             .count = (uint32_t)(last - from + 1),
                             .data = {data.ptr + offset, *bytes}};
    return TAKEN;
}

/* Its next pushes would not help either, until we have asked. */
static void out_of_step(struct sync *core, struct peer *peer, uint64_t delay_ms)
{
    sync_send_flow(core, &peer->node, WIRE_SYNC_END, SYNC_PUSH, 0, WIRE_END_DONE);
    sync_ask_wish(core, peer, delay_ms, false);
}

static void pushed(struct sync *core, struct peer *peer, const struct wire_sync_events *events)
{
    uint32_t bytes = 0;
    /* One that keeps the window never has more than that under way to us. */
    bool over = peer->flight_bytes + events->data.len > 2 * SYNC_PUSH_WINDOW_BYTES;
    enum taken taken = over ? TAKEN_NO_ROOM : take(core, &peer->node, events, &bytes);

    if (taken == TAKEN_GAP || taken == TAKEN_NO_ROOM) {
        out_of_step(core, peer, taken == TAKEN_GAP ? 0 : SYNC_STALL_MS);
        return;
    }
    peer->pushing_until = core->now_ms + SYNC_STALL_MS;
    peer->flight_bytes += bytes;
    peer->owed += events->data.len - bytes;
}

static struct asked *find_asked(struct sync *core, const struct id128 *peer, uint64_t session)
{
    for (size_t i = 0; session && i < LIMIT_SYNC_ASKED; i++) {
        if (core->asked[i].session == session && id_equal(&core->asked[i].peer, peer))
            return &core->asked[i];
    }
    return NULL;
}

/* No more of it, and tell the peer. */
static void cancel(struct sync *core, struct asked *a)
{
    a->ended = true;
    a->end = WIRE_END_CANCEL;
    sync_send_flow(core, &a->peer, WIRE_SYNC_END, a->session, 0, WIRE_END_CANCEL);
}

/* Not while so much is on its way that another window full would not fit. */
static void give_credit(struct sync *core, struct asked *a)
{
    if (a->owed < SYNC_CREDIT_BYTES / 4 || core->flight_count > LIMIT_SYNC_FLIGHTS / 2)
        return;
    sync_send_flow(core, &a->peer, WIRE_SYNC_CREDIT, a->session, a->owed, WIRE_END_DONE);
    a->owed = 0;
}

static void answered(struct sync *core, const struct id128 *from,
                     const struct wire_sync_events *events)
{
    struct asked *a = find_asked(core, from, events->session);
    uint32_t bytes = 0;

    if (!a || (a->ended && a->end == WIRE_END_CANCEL)) {
        core->stats.ignored++;
        if (!a) /* let it not go on in vain */
            sync_send_flow(core, from, WIRE_SYNC_END, events->session, 0, WIRE_END_CANCEL);
        return;
    }
    a->progress_ms = core->now_ms;
    bool over = a->flight_bytes + events->data.len > SYNC_CREDIT_BYTES + LIMIT_WIRE_EVENT_BYTES;
    enum taken taken = over ? TAKEN_NO_ROOM : take(core, from, events, &bytes);

    if (taken == TAKEN) {
        a->commits++;
        a->flight_bytes += bytes;
    }
    if (taken == TAKEN_GAP || taken == TAKEN_NO_ROOM) {
        a->overloaded = taken == TAKEN_NO_ROOM;
        cancel(core, a);
        return;
    }
    a->owed += sync_charge(events->data.len) - (bytes ? sync_charge(bytes) : 0);
}

static void more(struct sync *core, const struct wire_message *message)
{
    struct asked *a = find_asked(core, &message->from, message->flow.session);

    if (!a || a->ended || !a->sent || a->pages_done) {
        core->stats.ignored++;
        return;
    }
    a->page_wanted = true;
    a->progress_ms = core->now_ms;
}

static bool ended(struct sync *core, const struct id128 *from, const struct wire_flow *flow)
{
    struct asked *a = find_asked(core, from, flow->session);

    if (!a || a->ended)
        return a != NULL;
    a->ended = true;
    a->end = (enum wire_end)flow->end;
    a->progress_ms = core->now_ms;
    return true;
}

/* What we asked for is of no use, or to nobody else: those runs are frozen there. */
static void frozen(struct sync *core, const struct wire_message *message)
{
    const struct wire_sync_frozen *told = &message->sync_frozen;

    if (!find_asked(core, &message->from, told->session)) {
        core->stats.ignored++;
        return;
    }
    for (uint32_t at = 0; at < told->runs.len; at += WIRE_FROZEN_BYTES) {
        struct id128 origin, node;

        memcpy(origin.bytes, told->runs.ptr + at, sizeof origin.bytes);
        memcpy(node.bytes, told->runs.ptr + at + sizeof origin.bytes, sizeof node.bytes);
        const struct vector_run *run = vector_find(core->vector, &origin);

        if (run && run->frozen)
            continue;
        struct sync_output *out = sync_emit(core, SYNC_FREEZE);

        out->freeze.origin = origin;
        out->freeze.node = node;
    }
}

void sync_ask_message(struct sync *core, const struct wire_message *message)
{
    const struct wire_sync_events *events = &message->sync_events;
    struct peer *peer = sync_find_peer(core, &message->from);

    switch (message->type) {
    case WIRE_SYNC_MORE:
        more(core, message);
        break;
    case WIRE_SYNC_END:
        if (message->flow.session == SYNC_PUSH && peer)
            peer->in_step = false;
        else if (!ended(core, &message->from, &message->flow))
            core->stats.ignored++;
        break;
    case WIRE_SYNC_FROZEN:
        frozen(core, message);
        break;
    case WIRE_SYNC_EVENTS:
        if (events->count == 0 || events->first == 0 || events->first > WIRE_SEQ_MAX ||
            events->count > WIRE_SEQ_MAX - events->first + 1)
            core->stats.ignored++;
        else if (events->session != SYNC_PUSH)
            answered(core, &message->from, events);
        else if (peer && peer->alive)
            pushed(core, peer, events);
        else
            core->stats.ignored++;
        break;
    default:
        assert(false);
    }
}

/* ---- what became of them ---- */

static void push_committed(struct sync *core, struct peer *peer, const struct sync_committed *c)
{
    peer->flight_bytes -= c->bytes < peer->flight_bytes ? c->bytes : peer->flight_bytes;
    if (c->rc < 0) {
        if (!is_final(c->rc) && peer->alive)
            out_of_step(core, peer, SYNC_STALL_MS);
        return;
    }
    peer->owed += c->bytes;
    if (peer->owed < SYNC_PUSH_ACK_BYTES)
        return;
    sync_send_flow(core, &peer->node, WIRE_SYNC_CREDIT, SYNC_PUSH, peer->owed, WIRE_END_DONE);
    peer->owed = 0;
}

static void session_committed(struct sync *core, struct asked *a, const struct sync_committed *c)
{
    a->commits -= a->commits > 0;
    a->flight_bytes -= c->bytes < a->flight_bytes ? c->bytes : a->flight_bytes;
    a->owed += sync_charge(c->bytes);
    a->progress_ms = core->now_ms;
    if (c->rc == 0)
        a->gained += c->count;
    if (c->rc < 0 && !is_final(c->rc) && !a->ended) {
        a->overloaded = true;
        cancel(core, a);
    }
}

/* A batch behind one that the log had no room for does not fit either, for there is a gap: that
 * says nothing against it. */
static int cause(const struct flight *flight, int rc)
{
    bool gap = rc == ERR_CONFLICT && flight && flight->failure && !is_final(flight->failure);

    return gap ? ERR_AGAIN : rc;
}

void sync_ask_committed(struct sync *core, const struct sync_committed *committed)
{
    struct flight *flight = find_flight(core, &committed->origin);
    struct peer *peer = sync_find_peer(core, &committed->peer);
    struct asked *a = find_asked(core, &committed->peer, committed->session);
    struct sync_committed c = *committed;

    c.rc = cause(flight, c.rc);
    if (flight) {
        flight->commits -= flight->commits > 0;
        flight->failure = flight->failure ? flight->failure : c.rc;
        flight->since_ms = core->now_ms;
        settle_flight(core, flight);
    }
    if (c.rc == 0) {
        core->stats.events_in += c.count;
        core->stats.bytes_in += c.bytes;
    } else {
        core->stats.refused++;
    }
    if (is_final(c.rc))
        conflict(core, &c.origin, &c.peer, c.first + c.count - 1, c.rc);
    if (a)
        session_committed(core, a, &c);
    else if (peer && c.session == SYNC_PUSH)
        push_committed(core, peer, &c);
}

/* ---- whom to ask, and when ---- */

void sync_ask_wish(struct sync *core, struct peer *peer, uint64_t delay_ms, bool can_wait)
{
    uint64_t at = core->now_ms + delay_ms;

    if (!peer->news)
        peer->patient_until = core->now_ms + SYNC_PATIENCE_MS;
    if (!can_wait)
        peer->patient_until = core->now_ms;
    if (at > peer->ask_at)
        peer->ask_at = at;
    peer->news = true;
}

bool sync_ask_is_asked(const struct sync *core, const struct id128 *peer)
{
    for (size_t i = 0; i < LIMIT_SYNC_ASKED; i++) {
        if (core->asked[i].session && id_equal(&core->asked[i].peer, peer))
            return true;
    }
    return false;
}

/* May PEER know what we do not? Not if it knows what we know, or what we once knew. */
static bool may_know_more(const struct sync *core, const struct peer *peer)
{
    return peer->has_summary && !sync_was_ours(core, &peer->summary);
}

static bool is_due(struct sync *core, struct peer *peer)
{
    if (!peer->used || !peer->alive || !peer->news || core->now_ms < peer->ask_at ||
        sync_ask_is_asked(core, &peer->node))
        return false;
    if (core->now_ms < peer->pushing_until && core->now_ms < peer->patient_until)
        return false;
    if (peer->has_summary && !may_know_more(core, peer))
        peer->news = false; /* it came by itself */
    return peer->news;
}

/* A peer that fits, at random; NULL: none. */
static struct peer *choose(struct sync *core, bool (*fits)(struct sync *, struct peer *))
{
    struct peer *chosen = NULL;
    uint64_t seen = 0;

    for (size_t i = 0; i < LIMIT_MEMBERS; i++) {
        if (fits(core, &core->peers[i]) && sync_random(core, ++seen) == 0)
            chosen = &core->peers[i];
    }
    return chosen;
}

/* A place for one more session, if one may begin. */
static struct asked *place(struct sync *core)
{
    struct asked *free_one = NULL;

    for (size_t i = 0; i < LIMIT_SYNC_ASKED; i++) {
        struct asked *a = &core->asked[i];

        if (!a->session)
            free_one = a;
        else if (core->now_ms - a->progress_ms < SYNC_STALL_MS)
            return NULL;
    }
    return free_one;
}

static void begin(struct sync *core)
{
    struct asked *a = place(core);
    struct peer *peer = a ? choose(core, is_due) : NULL;

    if (!peer)
        return;
    peer->news = false;
    *a = (struct asked){.session = sync_random(core, UINT64_MAX) + 1,
                        .peer = peer->node,
                        .progress_ms = core->now_ms,
                        .whole = vector_count(core->vector, VECTOR_LIVE) > LIMIT_WIRE_RUNS};
    core->stats.asks++;
}

static bool may_repair(struct sync *core, struct peer *peer)
{
    return peer->used && peer->alive && may_know_more(core, peer) &&
           !sync_ask_is_asked(core, &peer->node);
}

static void repair(struct sync *core)
{
    if (core->now_ms < core->repair_at)
        return;
    core->repair_at = core->now_ms + SYNC_REPAIR_MS;
    struct peer *peer = choose(core, may_repair);

    if (peer) {
        peer->news = true;
        peer->ask_at = peer->patient_until = core->now_ms;
    }
}

/* ---- sessions ---- */

static void add_run(struct sync *core, struct buf *list, const struct vector_run *run)
{
    /* Of a frozen run nothing is wanted. */
    struct wire_run entry = {run->origin, run->frozen ? WIRE_SEQ_MAX : known(core, &run->origin)};

    wire_run_add(list, &entry);
}

static void send_question(struct sync *core, struct asked *a)
{
    struct buf *list = sync_list(core);
    const struct vector_run *run = NULL;
    struct vector_sum rest = vector_sum(core->vector, a->whole ? VECTOR_ALL : VECTOR_ENDED);

    if (!list)
        return;
    while (!a->whole &&
           (run = vector_after(core->vector, run ? &run->origin : NULL, VECTOR_LIVE)) != NULL)
        add_run(core, list, run);
    struct wire_message *message = sync_send(core, &a->peer, WIRE_SYNC_ASK);

    assert(buf_check(list) == 0);
    message->sync_ask = (struct wire_sync_ask){.session = a->session,
                                               .ended = rest.hash,
                                               .ended_count = rest.count,
                                               .credit_bytes = SYNC_CREDIT_BYTES,
                                               .runs = {list->data, (uint32_t)list->len}};
    a->sent = true;
}

static void send_page(struct sync *core, struct asked *a)
{
    enum vector_part part = a->whole ? VECTOR_ALL : VECTOR_ENDED;
    struct buf *list = sync_list(core);
    const struct vector_run *run;

    if (!list)
        return;
    run = vector_after(core->vector, id_is_zero(&a->page_after) ? NULL : &a->page_after, part);
    for (size_t i = 0; run && i < LIMIT_WIRE_RUNS; i++) {
        a->page_after = run->origin;
        add_run(core, list, run);
        run = vector_after(core->vector, &a->page_after, part);
    }
    struct wire_message *message = sync_send(core, &a->peer, WIRE_SYNC_VECTOR);

    assert(buf_check(list) == 0);
    message->sync_vector = (struct wire_sync_vector){.session = a->session,
                                                     .page = a->page++,
                                                     .last = !run,
                                                     .runs = {list->data, (uint32_t)list->len}};
    a->pages_done = !run;
    a->page_wanted = false;
}

static void back_off(struct sync *core, struct peer *peer)
{
    uint64_t twice = 2 * peer->backoff_ms;

    peer->backoff_ms = twice < SYNC_BACKOFF_MS       ? SYNC_BACKOFF_MS
                       : twice > SYNC_BACKOFF_MAX_MS ? SYNC_BACKOFF_MAX_MS
                                                     : twice;
    peer->ask_at = core->now_ms + peer->backoff_ms / 2 + sync_random(core, peer->backoff_ms / 2);
}

static void close_session(struct sync *core, struct asked *a)
{
    struct peer *peer = sync_find_peer(core, &a->peer);

    core->stats.asks_gained += a->gained > 0;
    if (peer && a->gained > 0 && !a->overloaded) {
        peer->backoff_ms = 0;
        peer->ask_at = core->now_ms;
    } else if (peer) {
        back_off(core, peer);
    }
    if (peer) {
        peer->ended++;
        peer->gained += a->gained;
        peer->end = a->ended ? a->end : WIRE_END_CANCEL;
    }
    if (peer) { /* was there more to come? Otherwise its next summary will tell */
        peer->news = a->end != WIRE_END_DONE && a->end != WIRE_END_BEHIND;
        peer->patient_until = core->now_ms;
    }
    if (a->end == WIRE_END_BEHIND)
        sync_emit(core, SYNC_BEHIND)->behind.peer = a->peer;
    *a = (struct asked){0};
}

void sync_ask_peer_gone(struct sync *core, const struct id128 *node)
{
    for (size_t i = 0; i < LIMIT_SYNC_ASKED; i++) {
        if (core->asked[i].session && id_equal(&core->asked[i].peer, node))
            core->asked[i] = (struct asked){0};
    }
}

static void advance(struct sync *core, struct asked *a)
{
    bool late = core->now_ms - a->progress_ms >= SYNC_DEADLINE_MS;

    if (late) {
        core->stats.timeouts++;
        if (!a->ended)
            cancel(core, a);
    }
    if (late || (a->ended && a->commits == 0))
        close_session(core, a);
    else if (!a->ended && !a->sent)
        send_question(core, a);
    else if (!a->ended && a->page_wanted)
        send_page(core, a);
    else if (!a->ended)
        give_credit(core, a);
}

void sync_ask_pump(struct sync *core)
{
    for (size_t i = 0; core->flight_count > 0 && i < LIMIT_SYNC_FLIGHTS; i++) {
        if (core->flights[i].used)
            settle_flight(core, &core->flights[i]);
    }
    repair(core);
    begin(core);
    for (size_t i = 0; i < LIMIT_SYNC_ASKED; i++) {
        if (core->asked[i].session && sync_room(core))
            advance(core, &core->asked[i]);
    }
}
