/*
 * A fetch asks one holder, gives what comes to the sink, and grants credit as the reader takes it:
 * what is under way and what the reader has not taken are together never more than the window.
 *
 *   state     waits for                                              then
 *   WAITING   room in the window, a place at a holder that is READY  ASKED
 *   ASKED     chunks; or, without credit, the reader                 done, or WAITING
 *   RESTING   the next round's time                                  WAITING
 *
 * A place: we ask one node for no more at once than it is willing to serve (LIMIT_SERVED_PER_PEER
 * transfers whose windows are LIMIT_PEER_WINDOWS together), so that a crowd of fetches queues here
 * instead of being refused there, or lost on the way.
 *
 * Failure: a holder whose bytes or messages are wrong, or that lacks the body, is not asked again
 * by this fetch. One that was silent or busy, or on whose way something got lost, is asked again
 * once the others had their turn, for FETCH_ROUNDS rounds; each BLOCK_BYTES that arrive make the
 * count begin anew, so a long transfer over a bad link goes on for as long as it moves. Chunks that
 * come twice are ignored. What belongs to a try that is over is answered with a cancel.
 */
#include "cluster/fetch.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/queue.h>

enum holder_state {
    HOLDER_READY,
    HOLDER_SILENT, /* no answer, or something lost: asked again in the next round */
    HOLDER_BUSY,   /* as well */
    HOLDER_DEAD,   /* until it is back */
    HOLDER_WRONG,
    HOLDER_ABSENT,
};

struct holder {
    struct id128 node;
    enum holder_state state;
};

enum fetch_phase { FETCH_FREE, FETCH_WAITING, FETCH_ASKED, FETCH_RESTING };

struct fetch {
    TAILQ_ENTRY(fetch) link; /* FREE, WAITING */
    enum fetch_phase phase;
    struct id128 id;
    uint8_t sha256[SHA256_BYTES];
    uint64_t size;
    uint64_t at, end; /* the next byte, and the one after the last */
    uint64_t unread;  /* given to the sink, not yet taken by the reader */
    bool background;
    bool large; /* in the background, and keeps its place for long */
    bool delegated;
    unsigned round, rounds, first_byte_ms, coming_ms;
    uint64_t counted_from; /* the byte that was next when `round` began anew */
    uint64_t deadline_ms;  /* WAITING: 0 unless all places are taken */
    /* The try; ASKED only. */
    uint64_t transfer;
    uint64_t began;    /* its first byte */
    uint64_t credit;   /* granted, and not yet arrived */
    uint64_t share;    /* of the holder's windows */
    uint64_t moved_ms; /* since when nothing came */
    size_t current;    /* of holders */
    size_t holder_count;
    struct holder holders[LIMIT_FETCH_HOLDERS];
};

/* How much we are asking a node for. */
struct places {
    struct id128 node;
    unsigned used, background, large; /* large: of the background's */
    uint64_t bytes, background_bytes; /* that may be under way from there at once */
};

TAILQ_HEAD(fetch_list, fetch);

struct fetches {
    struct fetch_sink sink;
    uint64_t random;
    bool stepping;
    bool place_freed; /* those that wait have to be looked at */
    struct fetch_list free;
    struct fetch_list waiting[2]; /* what clients wait for; background */
    size_t places_count;
    struct places places[LIMIT_FETCHES];
    struct fetch_stats stats;
    uint64_t numbers[LIMIT_FETCHES]; /* of the fetch at the same place; apart, to be found fast */
    struct fetch fetches[LIMIT_FETCHES];
};

/* A transfer number's lowest byte says which fetch it belongs to. */
static_assert(LIMIT_FETCHES <= 256, "a fetch's place fits a byte of the transfer number");

static void advance(struct fetches *fetches, struct fetch *fetch, uint64_t now_ms);

/* SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
static uint64_t next_random(struct fetches *fetches)
{
    uint64_t z = fetches->random += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t window_of(const struct fetch *fetch)
{
    return fetch->background ? BODY_BACKGROUND_WINDOW_BYTES : BODY_WINDOW_BYTES;
}

/* What may be granted now; 0 where it is too little to be worth a message. */
static uint64_t grantable(const struct fetch *fetch)
{
    uint64_t window = window_of(fetch), rest = fetch->end - fetch->at - fetch->credit;

    assert(fetch->unread + fetch->credit <= window);
    uint64_t room = smaller(window - fetch->unread - fetch->credit, rest);
    return room >= smaller(window / 4, rest) ? room : 0;
}

static size_t index_of(const struct fetches *fetches, const struct fetch *fetch)
{
    assert(fetch >= fetches->fetches && fetch < fetches->fetches + LIMIT_FETCHES);
    return (size_t)(fetch - fetches->fetches);
}

static struct fetch *by_number(struct fetches *fetches, uint64_t number)
{
    for (size_t i = 0; i < LIMIT_FETCHES; i++) {
        if (fetches->numbers[i] == number && fetches->fetches[i].phase != FETCH_FREE)
            return &fetches->fetches[i];
    }
    return NULL;
}

/* The fetch whose try this is, of this holder. */
static struct fetch *by_transfer(struct fetches *fetches, uint64_t transfer,
                                 const struct id128 *from)
{
    struct fetch *fetch = &fetches->fetches[(transfer & 0xff) % LIMIT_FETCHES];

    return fetch->phase == FETCH_ASKED && fetch->transfer == transfer &&
                   id_equal(&fetch->holders[fetch->current].node, from)
               ? fetch
               : NULL;
}

/* --- places at holders ------------------------------------------------------------------------ */

static struct places *places_at(struct fetches *fetches, const struct id128 *node)
{
    for (size_t i = 0; i < fetches->places_count; i++) {
        if (id_equal(&fetches->places[i].node, node))
            return &fetches->places[i];
    }
    return NULL;
}

/* What a try that begins now may have under way. */
static uint64_t share_of(const struct fetch *fetch)
{
    return smaller(window_of(fetch), fetch->end - fetch->at);
}

static bool place_free(struct fetches *fetches, const struct id128 *node, const struct fetch *fetch)
{
    const struct places *places = places_at(fetches, node);
    uint64_t share = share_of(fetch);

    if (!places)
        return true;
    if (fetch->large && places->large >= LIMIT_ASKED_LARGE_BACKGROUND)
        return false;
    return places->used < LIMIT_SERVED_PER_PEER && places->bytes + share <= LIMIT_PEER_WINDOWS &&
           (!fetch->background ||
            (places->background < LIMIT_SERVED_PER_PEER_BACKGROUND &&
             places->background_bytes + share <= LIMIT_PEER_WINDOWS_BACKGROUND));
}

static void place_take(struct fetches *fetches, const struct id128 *node, struct fetch *fetch)
{
    struct places *places = places_at(fetches, node);

    if (!places) {
        assert(fetches->places_count < LIMIT_FETCHES); /* one for each fetch that is ASKED */
        places = &fetches->places[fetches->places_count++];
        *places = (struct places){.node = *node};
    }
    fetch->share = share_of(fetch);
    places->used++;
    places->background += fetch->background;
    places->large += fetch->large;
    places->bytes += fetch->share;
    places->background_bytes += fetch->background ? fetch->share : 0;
}

static void place_give_back(struct fetches *fetches, const struct id128 *node,
                            const struct fetch *fetch)
{
    struct places *places = places_at(fetches, node);

    assert(places && places->used > 0 && places->background >= fetch->background);
    places->used--;
    places->background -= fetch->background;
    places->large -= fetch->large;
    assert(places->bytes >= fetch->share);
    places->bytes -= fetch->share;
    places->background_bytes -= fetch->background ? fetch->share : 0;
    if (places->used == 0)
        *places = fetches->places[--fetches->places_count];
    fetches->place_freed = true;
}

/* --- messages --------------------------------------------------------------------------------- */

static void send_flow(struct fetches *fetches, const struct id128 *to, enum wire_type type,
                      uint64_t transfer, uint64_t bytes, enum wire_end end)
{
    const struct wire_message message = {
        .type = type, .flow = {.session = transfer, .bytes = bytes, .end = (uint8_t)end}};

    fetches->sink.send(fetches->sink.arg, to, &message);
}

static void send_cancel(struct fetches *fetches, const struct id128 *to, uint64_t transfer)
{
    send_flow(fetches, to, WIRE_BODY_END, transfer, 0, WIRE_END_CANCEL);
}

static void ask(struct fetches *fetches, struct fetch *fetch, size_t holder, uint64_t now_ms)
{
    const struct id128 *to = &fetch->holders[holder].node;

    assert(fetch->phase == FETCH_WAITING && fetch->credit == 0);
    TAILQ_REMOVE(&fetches->waiting[fetch->background], fetch, link);
    place_take(fetches, to, fetch);
    fetch->phase = FETCH_ASKED;
    fetch->current = holder;
    fetch->transfer = next_random(fetches) << 8 | index_of(fetches, fetch);
    fetch->began = fetch->at;
    fetch->credit = grantable(fetch);
    fetch->deadline_ms = now_ms + fetch->first_byte_ms;
    fetch->moved_ms = now_ms;
    fetches->stats.tries++;
    assert(fetch->credit > 0);

    struct wire_message message = {.type = WIRE_BODY_ASK,
                                   .body_ask = {.transfer = fetch->transfer,
                                                .id = fetch->id,
                                                .offset = fetch->at,
                                                .length = fetch->end - fetch->at,
                                                .credit_bytes = fetch->credit,
                                                .background = fetch->background,
                                                .delegated = fetch->delegated}};
    memcpy(message.body_ask.sha256, fetch->sha256, SHA256_BYTES);
    fetches->sink.send(fetches->sink.arg, to, &message);
}

/* Grant what there is room for. Without any credit left the holder is kept for FETCH_PAUSE_MS. */
static void top_up(struct fetches *fetches, struct fetch *fetch, uint64_t now_ms)
{
    bool paused = fetch->credit == 0;
    uint64_t bytes = grantable(fetch);

    assert(fetch->phase == FETCH_ASKED);
    if (bytes == 0)
        return;
    fetch->credit += bytes;
    if (paused)
        fetch->deadline_ms = now_ms + FETCH_PROGRESS_MS;
    send_flow(fetches, &fetch->holders[fetch->current].node, WIRE_BODY_CREDIT, fetch->transfer,
              bytes, WIRE_END_DONE);
}

/* --- a fetch's way from holder to holder ------------------------------------------------------ */

static void wait_for_holder(struct fetches *fetches, struct fetch *fetch)
{
    fetch->phase = FETCH_WAITING;
    fetch->deadline_ms = 0;
    TAILQ_INSERT_TAIL(&fetches->waiting[fetch->background], fetch, link);
}

/* Give the place at the current holder back, telling it where it may still be sending. */
static void end_try(struct fetches *fetches, struct fetch *fetch, bool tell)
{
    const struct id128 *node = &fetch->holders[fetch->current].node;

    assert(fetch->phase == FETCH_ASKED);
    place_give_back(fetches, node, fetch);
    fetch->credit = 0;
    if (tell)
        send_cancel(fetches, node, fetch->transfer);
}

/* The current holder's try is over, it is STATE from now on; go on with whoever is next. */
static void leave_holder(struct fetches *fetches, struct fetch *fetch, enum holder_state state,
                         bool tell, uint64_t now_ms)
{
    end_try(fetches, fetch, tell);
    fetch->holders[fetch->current].state = state;
    wait_for_holder(fetches, fetch);
    advance(fetches, fetch, now_ms);
}

static void forget(struct fetches *fetches, struct fetch *fetch)
{
    if (fetch->phase == FETCH_WAITING)
        TAILQ_REMOVE(&fetches->waiting[fetch->background], fetch, link);
    fetch->phase = FETCH_FREE;
    TAILQ_INSERT_HEAD(&fetches->free, fetch, link);
    assert(fetches->stats.active > 0);
    fetches->stats.active--;
}

/* A place that it had was given back. */
static void finish(struct fetches *fetches, struct fetch *fetch, int rc)
{
    uint64_t number = fetches->numbers[index_of(fetches, fetch)];

    assert(fetch->phase != FETCH_ASKED || fetch->credit == 0);
    forget(fetches, fetch);
    if (rc)
        fetches->stats.failed++;
    else
        fetches->stats.done++;
    fetches->sink.done(fetches->sink.arg, number, rc);
}

static bool any_holder(const struct fetch *fetch, enum holder_state state)
{
    for (size_t i = 0; i < fetch->holder_count; i++) {
        if (fetch->holders[i].state == state)
            return true;
    }
    return false;
}

static bool any_later(const struct fetch *fetch)
{
    return any_holder(fetch, HOLDER_SILENT) || any_holder(fetch, HOLDER_BUSY);
}

static int verdict(const struct fetch *fetch)
{
    static const struct {
        enum holder_state state;
        int rc;
    } worst_first[] = {{HOLDER_SILENT, ERR_TIMEOUT},
                       {HOLDER_BUSY, ERR_AGAIN},
                       {HOLDER_DEAD, ERR_CLOSED},
                       {HOLDER_WRONG, ERR_CORRUPT}};

    for (size_t i = 0; i < sizeof worst_first / sizeof *worst_first; i++) {
        if (any_holder(fetch, worst_first[i].state))
            return worst_first[i].rc;
    }
    return ERR_NOT_FOUND;
}

static void rest(struct fetches *fetches, struct fetch *fetch, uint64_t now_ms)
{
    uint64_t delay_ms = (uint64_t)FETCH_ROUND_DELAY_MS * fetch->round;

    TAILQ_REMOVE(&fetches->waiting[fetch->background], fetch, link);
    fetch->phase = FETCH_RESTING;
    fetch->deadline_ms = now_ms + delay_ms + next_random(fetches) % (delay_ms / 2 + 1);
}

/* WAITING: ask the first holder that may be asked, rest before the next round, or give up. */
static void advance(struct fetches *fetches, struct fetch *fetch, uint64_t now_ms)
{
    bool ready = false, room = grantable(fetch) > 0;

    assert(fetch->phase == FETCH_WAITING);
    for (size_t i = 0; i < fetch->holder_count; i++) {
        if (fetch->holders[i].state != HOLDER_READY)
            continue;
        ready = true;
        if (room && place_free(fetches, &fetch->holders[i].node, fetch)) {
            ask(fetches, fetch, i, now_ms);
            return;
        }
    }
    if (!ready && any_later(fetch) && fetch->round < fetch->rounds)
        rest(fetches, fetch, now_ms);
    else if (!ready)
        finish(fetches, fetch, verdict(fetch));
    else if (room && fetch->deadline_ms == 0)
        fetch->deadline_ms = now_ms + FETCH_PLACE_MS;
}

static void begin_round(struct fetches *fetches, struct fetch *fetch, uint64_t now_ms)
{
    assert(fetch->phase == FETCH_RESTING && fetch->round < fetch->rounds);
    fetch->round++;
    for (size_t i = 0; i < fetch->holder_count; i++) {
        struct holder *holder = &fetch->holders[i];

        if (holder->state == HOLDER_SILENT || holder->state == HOLDER_BUSY)
            holder->state = HOLDER_READY;
    }
    wait_for_holder(fetches, fetch);
    advance(fetches, fetch, now_ms);
}

/* Every input is one step: */
static void step_begin(struct fetches *fetches)
{
    assert(!fetches->stepping); /* the sink called back */
    fetches->stepping = true;
}

/* Places that became free go to those that waited longest. Asking frees none. */
static void step_end(struct fetches *fetches, uint64_t now_ms)
{
    if (fetches->place_freed) {
        fetches->place_freed = false;
        for (int background = 0; background < 2; background++) {
            struct fetch *next, *fetch = TAILQ_FIRST(&fetches->waiting[background]);

            for (; fetch; fetch = next) {
                next = TAILQ_NEXT(fetch, link);
                advance(fetches, fetch, now_ms);
            }
        }
    }
    assert(fetches->stepping && !fetches->place_freed);
    fetches->stepping = false;
}

/* --- what comes in ---------------------------------------------------------------------------- */

int fetch_create(struct fetches **out, const struct fetch_sink *sink, uint64_t seed)
{
    struct fetches *fetches = calloc(1, sizeof *fetches);

    assert(sink->send && sink->data && sink->done);
    *out = fetches;
    if (!fetches)
        return ERR_NO_MEMORY;
    fetches->sink = *sink;
    fetches->random = seed;
    TAILQ_INIT(&fetches->free);
    TAILQ_INIT(&fetches->waiting[0]);
    TAILQ_INIT(&fetches->waiting[1]);
    for (size_t i = 0; i < LIMIT_FETCHES; i++)
        TAILQ_INSERT_TAIL(&fetches->free, &fetches->fetches[i], link);
    return 0;
}

void fetch_destroy(struct fetches **fetches)
{
    free(*fetches);
    *fetches = NULL;
}

static int check(const struct fetch_request *request)
{
    if (request->length == 0 || request->offset > request->size ||
        request->length > request->size - request->offset ||
        request->holder_count > LIMIT_FETCH_HOLDERS)
        return ERR_INVALID;
    for (size_t i = 0; i < request->holder_count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (id_equal(&request->holders[i], &request->holders[j]))
                return ERR_INVALID;
        }
    }
    return request->holder_count == 0 ? ERR_NOT_FOUND : 0;
}

int fetch_start(struct fetches *fetches, const struct fetch_request *request, uint64_t now_ms)
{
    int rc = check(request);

    if (rc)
        return rc;
    if (by_number(fetches, request->number))
        return ERR_EXISTS;
    struct fetch *fetch = TAILQ_FIRST(&fetches->free);
    if (!fetch)
        return ERR_FULL;

    step_begin(fetches);
    TAILQ_REMOVE(&fetches->free, fetch, link);
    assert(fetch->phase == FETCH_FREE);
    fetches->numbers[index_of(fetches, fetch)] = request->number;
    *fetch = (struct fetch){
        .id = request->id,
        .size = request->size,
        .at = request->offset,
        .end = request->offset + request->length,
        .counted_from = request->offset,
        .background = request->background,
        .large = request->background && request->length > LIMIT_INLINE_BODY_BYTES,
        .delegated = request->delegated,
        .round = 1,
        .rounds = request->rounds ? request->rounds : FETCH_ROUNDS,
        .first_byte_ms = request->first_byte_ms ? request->first_byte_ms : FETCH_FIRST_BYTE_MS,
        .coming_ms = request->coming_ms ? request->coming_ms : FETCH_COMING_MS,
        .holder_count = request->holder_count};
    memcpy(fetch->sha256, request->sha256, SHA256_BYTES);
    for (size_t i = 0; i < request->holder_count; i++)
        fetch->holders[i] = (struct holder){.node = request->holders[i]};
    fetches->stats.begun++;
    fetches->stats.active++;
    wait_for_holder(fetches, fetch);
    advance(fetches, fetch, now_ms);
    step_end(fetches, now_ms);
    return 0;
}

/* What an honest holder, asked as it was, cannot have sent. */
static bool is_wrong(const struct fetch *fetch, const struct wire_body_data *data)
{
    uint64_t len = data->data.len;

    if (data->size != fetch->size || len == 0 || len > LIMIT_WIRE_CHUNK_BYTES ||
        data->offset < fetch->began || data->offset >= fetch->end ||
        len > fetch->end - data->offset)
        return true;
    uint64_t end = data->offset + len;
    bool overlaps = data->offset < fetch->at && end > fetch->at;
    bool exceeds = end > fetch->at && end - fetch->at > fetch->credit;
    return overlaps || exceeds || xxh64(data->data.ptr, len, 0) != data->sum;
}

static void on_data(struct fetches *fetches, const struct id128 *from,
                    const struct wire_body_data *data, uint64_t now_ms)
{
    struct fetch *fetch = by_transfer(fetches, data->transfer, from);

    if (!fetch) {
        fetches->stats.late++;
        send_cancel(fetches, from, data->transfer);
        return;
    }
    if (is_wrong(fetch, data)) {
        fetches->stats.corrupt++;
        leave_holder(fetches, fetch, HOLDER_WRONG, true, now_ms);
        return;
    }
    if (data->offset < fetch->at) {
        fetches->stats.duplicates++;
        return;
    }
    if (data->offset > fetch->at) {
        fetches->stats.gaps++;
        leave_holder(fetches, fetch, HOLDER_SILENT, true, now_ms);
        return;
    }

    uint64_t number = fetches->numbers[index_of(fetches, fetch)];
    fetch->moved_ms = now_ms;
    fetch->at += data->data.len;
    fetch->credit -= data->data.len;
    fetch->unread += data->data.len;
    if (fetch->at - fetch->counted_from >= BLOCK_BYTES) {
        fetch->round = 1;
        fetch->counted_from = fetch->at;
    }
    fetches->stats.bytes += data->data.len;
    fetches->sink.data(fetches->sink.arg, number, data->offset, data->data.ptr, data->data.len,
                       from);
    if (fetch->at == fetch->end) {
        end_try(fetches, fetch, false);
        finish(fetches, fetch, 0);
        return;
    }
    top_up(fetches, fetch, now_ms);
    fetch->deadline_ms = now_ms + (fetch->credit > 0 ? FETCH_PROGRESS_MS : FETCH_PAUSE_MS);
}

static void on_end(struct fetches *fetches, const struct id128 *from, const struct wire_flow *flow,
                   uint64_t now_ms)
{
    struct fetch *fetch = by_transfer(fetches, flow->session, from);
    enum holder_state state;

    if (!fetch) {
        fetches->stats.late++;
        return;
    }
    switch (flow->end) {
    case WIRE_END_ABSENT:
        state = HOLDER_ABSENT;
        break;
    case WIRE_END_DAMAGED:
        state = HOLDER_WRONG;
        break;
    case WIRE_END_UNKNOWN:
        /* It restarted, or dropped us while our reader slept: where it gave much, ask anew. */
        state = fetch->at - fetch->began >= BLOCK_BYTES ? HOLDER_READY : HOLDER_SILENT;
        break;
    case WIRE_END_DONE:
        /* For the holder, but chunks are missing: they were lost. */
        fetches->stats.gaps++;
        state = HOLDER_SILENT;
        break;
    default: /* BUSY, and reasons that a newer build may have */
        fetches->stats.busy++;
        state = HOLDER_BUSY;
        break;
    }
    leave_holder(fetches, fetch, state, false, now_ms);
}

/* The delegate waits itself: its deadline begins anew. */
static void on_coming(struct fetches *fetches, const struct id128 *from,
                      const struct wire_flow *flow, uint64_t now_ms)
{
    struct fetch *fetch = by_transfer(fetches, flow->session, from);

    if (!fetch) {
        fetches->stats.late++;
        send_cancel(fetches, from, flow->session);
        return;
    }
    if (!fetch->delegated || fetch->credit == 0 || now_ms - fetch->moved_ms >= fetch->coming_ms)
        return;
    fetch->deadline_ms =
        now_ms + (fetch->at > fetch->began ? FETCH_PROGRESS_MS : fetch->first_byte_ms);
}

void fetch_message(struct fetches *fetches, const struct wire_message *message, uint64_t now_ms)
{
    step_begin(fetches);
    if (message->type == WIRE_BODY_DATA)
        on_data(fetches, &message->from, &message->body_data, now_ms);
    else if (message->type == WIRE_BODY_COMING)
        on_coming(fetches, &message->from, &message->flow, now_ms);
    else if (message->type == WIRE_BODY_END && message->flow.end != WIRE_END_CANCEL)
        on_end(fetches, &message->from, &message->flow, now_ms);
    step_end(fetches, now_ms);
}

static void holder_failed(struct fetches *fetches, struct fetch *fetch, size_t holder,
                          uint64_t now_ms)
{
    enum holder_state *state = &fetch->holders[holder].state;

    if (fetch->phase == FETCH_ASKED && fetch->current == holder) {
        leave_holder(fetches, fetch, HOLDER_DEAD, false, now_ms);
        return;
    }
    if (*state == HOLDER_WRONG || *state == HOLDER_ABSENT)
        return;
    *state = HOLDER_DEAD;
    if (fetch->phase == FETCH_RESTING && !any_later(fetch))
        finish(fetches, fetch, verdict(fetch));
    else if (fetch->phase == FETCH_WAITING)
        advance(fetches, fetch, now_ms);
}

static void holder_back(struct fetches *fetches, struct fetch *fetch, size_t holder,
                        uint64_t now_ms)
{
    if (fetch->holders[holder].state != HOLDER_DEAD)
        return;
    fetch->holders[holder].state = HOLDER_READY;
    if (fetch->phase == FETCH_RESTING)
        wait_for_holder(fetches, fetch);
    if (fetch->phase == FETCH_WAITING)
        advance(fetches, fetch, now_ms);
}

void fetch_peer(struct fetches *fetches, const struct id128 *node, bool alive, uint64_t now_ms)
{
    step_begin(fetches);
    for (size_t i = 0; i < LIMIT_FETCHES; i++) {
        struct fetch *fetch = &fetches->fetches[i];

        for (size_t j = 0; fetch->phase != FETCH_FREE && j < fetch->holder_count; j++) {
            if (!id_equal(&fetch->holders[j].node, node))
                continue;
            if (alive)
                holder_back(fetches, fetch, j, now_ms);
            else
                holder_failed(fetches, fetch, j, now_ms);
        }
    }
    step_end(fetches, now_ms);
}

void fetch_consumed(struct fetches *fetches, uint64_t number, uint64_t bytes, uint64_t now_ms)
{
    struct fetch *fetch = by_number(fetches, number);

    if (!fetch)
        return;
    step_begin(fetches);
    assert(bytes <= fetch->unread);
    fetch->unread -= bytes;
    if (fetch->phase == FETCH_ASKED)
        top_up(fetches, fetch, now_ms);
    else if (fetch->phase == FETCH_WAITING)
        advance(fetches, fetch, now_ms);
    step_end(fetches, now_ms);
}

void fetch_cancel(struct fetches *fetches, uint64_t number, uint64_t now_ms)
{
    struct fetch *fetch = by_number(fetches, number);

    if (!fetch)
        return;
    step_begin(fetches);
    if (fetch->phase == FETCH_ASKED)
        end_try(fetches, fetch, true);
    forget(fetches, fetch);
    fetches->stats.cancelled++;
    step_end(fetches, now_ms);
}

static void deadline_passed(struct fetches *fetches, struct fetch *fetch, uint64_t now_ms)
{
    switch (fetch->phase) {
    case FETCH_ASKED:
        if (fetch->credit == 0) { /* not its fault: the reader is slow */
            leave_holder(fetches, fetch, HOLDER_READY, true, now_ms);
            break;
        }
        fetches->stats.timeouts++;
        leave_holder(fetches, fetch, HOLDER_SILENT, true, now_ms);
        break;
    case FETCH_RESTING:
        begin_round(fetches, fetch, now_ms);
        break;
    default:
        finish(fetches, fetch, ERR_AGAIN);
        break;
    }
}

void fetch_tick(struct fetches *fetches, uint64_t now_ms)
{
    step_begin(fetches);
    for (size_t i = 0; i < LIMIT_FETCHES; i++) {
        struct fetch *fetch = &fetches->fetches[i];

        if (fetch->phase != FETCH_FREE && fetch->deadline_ms != 0 && now_ms >= fetch->deadline_ms)
            deadline_passed(fetches, fetch, now_ms);
    }
    step_end(fetches, now_ms);
}

void fetch_stats(const struct fetches *fetches, struct fetch_stats *out)
{
    *out = fetches->stats;
}
