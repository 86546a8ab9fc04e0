/*
 * Goal: askers and givers together, on a network that loses, delays, reorders, doubles and damages
 * messages, with nodes that die in the middle: what a reader gets are exactly the object's bytes in
 * order, every fetch ends, and neither credit nor reads ever exceed their bounds. On a network that
 * does none of this, and with a holder that lives, every fetch succeeds.
 *
 * Virtual time, one seed a run: TRANSFER_SEED=N runs that one alone. TRANSFER_SEEDS=N runs so many.
 */
#include "cluster/fetch.h"
#include "cluster/serve.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { NODES = 5, BODIES = 8, FETCHES = 16, DEFAULT_SEEDS = 240, TICK_MS = 50 };

#define POOL_BYTES      (4 * MIB)
#define END_MS          (20 * 60 * 1000) /* of virtual time: nothing takes longer */
#define LIMIT_INCIDENTS (1u << 16)
#define LIMIT_TRIES     4096

/* What a network may do, each per mille, and how long a message takes at most. */
struct weather {
    const char *name;
    unsigned lost, doubled, damaged;
    bool reorder, deaths, odd_holders, cancels, slow_readers;
    uint64_t delay_ms;
};

static const struct weather weathers[] = {
    {.name = "calm", .delay_ms = 3, .slow_readers = true},
    {.name = "deaths", .delay_ms = 20, .deaths = true, .odd_holders = true},
    {.name = "lossy", .delay_ms = 40, .lost = 20, .cancels = true, .slow_readers = true},
    {.name = "wild",
     .delay_ms = 40,
     .lost = 20,
     .doubled = 20,
     .damaged = 10,
     .reorder = true,
     .deaths = true,
     .odd_holders = true,
     .cancels = true,
     .slow_readers = true},
};

enum incident_kind {
    WHEN_MESSAGE,
    WHEN_READ,
    WHEN_CONSUME,
    WHEN_START,
    WHEN_CANCEL,
    WHEN_DOWN,
    WHEN_UP
};

struct incident {
    uint64_t at_ms, order;
    enum incident_kind kind;
    unsigned node;   /* where it happens */
    unsigned life;   /* of that node: what is meant for an earlier one is lost */
    uint64_t number; /* of a fetch; bytes in `read.offset` */
    struct wire_message message;
    char *data; /* the message's own */
    struct serve_read read;
};

enum copy { COPY_GOOD, COPY_NONE, COPY_DAMAGED };

struct body {
    struct id128 id;
    uint8_t sha256[SHA256_BYTES];
    uint64_t size;
    size_t in_pool;
    enum copy copies[NODES];
};

struct reading { /* one fetch, as its reader sees it */
    bool begun, over, cancelled, slow;
    int rc;
    unsigned asker, body;
    uint64_t offset, length, next, unread;
    bool background;
    size_t try_at; /* the latest of `tries` */
};

struct
try { /* one transfer, as the network sees it */
    unsigned asker, giver;
    uint64_t transfer, number;
    uint64_t begin, end;
    uint64_t granted;   /* by what the asker sent */
    uint64_t delivered; /* of that, to the giver, doubles included */
    uint64_t given;     /* bytes that the giver sent */
};

struct sim {
    const struct weather *weather;
    unsigned seed;
    uint64_t random, now_ms, order;
    struct incident *events; /* a heap */
    size_t event_count;
    struct node {
        struct sim *sim;
        unsigned index, life;
        bool up;
        struct fetches *fetches;
        struct serve *serve;
        unsigned reading;
    } nodes[NODES];
    uint64_t link_ms[NODES][NODES]; /* the latest delivery: not overtaken unless REORDER */
    struct body bodies[BODIES];
    struct reading readings[FETCHES];
    struct try tries[LIMIT_TRIES];
    size_t try_count;
    uint64_t succeeded, failed, moved;
};

static uint8_t pool[POOL_BYTES];

#define CHECK(sim, condition)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("TRANSFER_SEED=%u (%s), at %llu ms: %s", (sim)->seed, (sim)->weather->name,   \
                     (unsigned long long)(sim)->now_ms, #condition);                               \
    } while (0)

static uint64_t dice(struct sim *sim, uint64_t below)
{
    sim->random ^= sim->random << 13;
    sim->random ^= sim->random >> 7;
    sim->random ^= sim->random << 17;
    return sim->random % below;
}

static struct id128 node_id(unsigned n)
{
    struct id128 id = {{'n'}};

    id.bytes[1] = (uint8_t)n;
    return id;
}

/* --- what happens when ------------------------------------------------------------------------ */

static bool earlier(const struct incident *a, const struct incident *b)
{
    return a->at_ms < b->at_ms || (a->at_ms == b->at_ms && a->order < b->order);
}

static void plan(struct sim *sim, uint64_t in_ms, struct incident event)
{
    size_t at = sim->event_count++;

    CHECK(sim, sim->event_count < LIMIT_INCIDENTS);
    event.at_ms = sim->now_ms + in_ms;
    event.order = sim->order++;
    for (; at > 0 && earlier(&event, &sim->events[(at - 1) / 2]); at = (at - 1) / 2)
        sim->events[at] = sim->events[(at - 1) / 2];
    sim->events[at] = event;
}

static struct incident next_incident(struct sim *sim)
{
    struct incident first = sim->events[0], moved = sim->events[--sim->event_count];
    size_t at = 0;

    for (;;) {
        size_t child = 2 * at + 1;

        if (child + 1 < sim->event_count && earlier(&sim->events[child + 1], &sim->events[child]))
            child++;
        if (child >= sim->event_count || !earlier(&sim->events[child], &moved))
            break;
        sim->events[at] = sim->events[child];
        at = child;
    }
    sim->events[at] = moved;
    sim->events[sim->event_count].data = NULL; /* whose it was is FIRST, or lies elsewhere */
    return first;
}

/* --- the network ------------------------------------------------------------------------------ */

static struct try *find_try(struct sim *sim, unsigned asker, uint64_t transfer)
{
    for (size_t i = sim->try_count; i-- > 0;) {
        if (sim->tries[i].transfer == transfer && sim->tries[i].asker == asker)
            return &sim->tries[i];
    }
    return NULL;
}

/* What the asker has granted and not got, and what its reader has not taken. */
static void check_window(struct sim *sim, const struct try *try)
{
    const struct reading *reading = &sim->readings[try->number];
    uint64_t window = reading->background ? BODY_BACKGROUND_WINDOW_BYTES : BODY_WINDOW_BYTES;

    CHECK(sim, try->granted >= reading->next - try->begin);
    CHECK(sim, try->granted - (reading->next - try->begin) + reading->unread <= window);
    CHECK(sim, try->granted <= try->end - try->begin);
}

static void note_ask(struct sim *sim, unsigned asker, unsigned giver,
                     const struct wire_body_ask *ask)
{
    struct reading *reading = &sim->readings[ask->id.bytes[1]];

    CHECK(sim, sim->try_count < LIMIT_TRIES);
    CHECK(sim, !find_try(sim, asker, ask->transfer)); /* fresh each time */
    CHECK(sim, ask->offset == reading->next);
    CHECK(sim, ask->length == reading->offset + reading->length - reading->next);
    reading->try_at = sim->try_count;
    sim->tries[sim->try_count] = (struct try){.asker = asker,
                                              .giver = giver,
                                              .transfer = ask->transfer,
                                              .number = ask->id.bytes[1],
                                              .begin = ask->offset,
                                              .end = ask->offset + ask->length,
                                              .granted = ask->credit_bytes};
    check_window(sim, &sim->tries[sim->try_count++]);
}

static void note_sent(struct sim *sim, unsigned from, unsigned to,
                      const struct wire_message *message)
{
    if (message->type == WIRE_BODY_ASK)
        note_ask(sim, from, to, &message->body_ask);
    if (message->type == WIRE_BODY_CREDIT) {
        struct try *try = find_try(sim, from, message->flow.session);

        CHECK(sim, try && try->giver == to);
        try->granted += message->flow.bytes;
        check_window(sim, try);
    }
    if (message->type == WIRE_BODY_DATA) {
        struct try *try = find_try(sim, to, message->body_data.transfer);

        CHECK(sim, try && try->giver == from);
        try->given += message->body_data.data.len;
        CHECK(sim, try->given <= try->delivered);
        CHECK(sim, message->body_data.offset >= try->begin);
        CHECK(sim, message->body_data.offset + message->body_data.data.len <= try->end);
    }
}

static void deliver_later(struct sim *sim, unsigned from, unsigned to,
                          const struct wire_message *message)
{
    const struct weather *weather = sim->weather;
    uint64_t at_ms = sim->now_ms + 1 + dice(sim, weather->delay_ms);
    struct incident event = {.kind = WHEN_MESSAGE, .node = to, .message = *message};

    if (!weather->reorder && at_ms < sim->link_ms[from][to])
        at_ms = sim->link_ms[from][to];
    sim->link_ms[from][to] = at_ms;
    event.message.from = node_id(from);
    if (message->type == WIRE_BODY_DATA) {
        struct text *data = &event.message.body_data.data;

        event.data = malloc(data->len);
        CHECK(sim, event.data);
        memcpy(event.data, data->ptr, data->len);
        data->ptr = event.data;
        if (dice(sim, 1000) < weather->damaged)
            event.data[dice(sim, data->len)] ^= 0x10;
    }
    plan(sim, at_ms - sim->now_ms, event);
}

static void on_over(void *arg, uint64_t key)
{
    struct node *node = arg;

    (void)key;
    CHECK(node->sim, false); /* nobody delegates here */
}

static void on_send(void *arg, const struct id128 *to, const struct wire_message *message)
{
    struct node *node = arg;
    struct sim *sim = node->sim;
    unsigned copies = 1 + (dice(sim, 1000) < sim->weather->doubled);

    note_sent(sim, node->index, to->bytes[1], message);
    if (dice(sim, 1000) < sim->weather->lost)
        return;
    while (copies-- > 0)
        deliver_later(sim, node->index, to->bytes[1], message);
}

/* --- nodes ------------------------------------------------------------------------------------ */

static void on_read(void *arg, const struct serve_read *read)
{
    struct node *node = arg;
    struct sim *sim = node->sim;

    node->reading++;
    CHECK(sim, node->reading <= LIMIT_SERVE_READS);
    CHECK(sim, read->len > 0 && read->len <= LIMIT_WIRE_CHUNK_BYTES);
    plan(sim, 1 + dice(sim, 10),
         (struct incident){
             .kind = WHEN_READ, .node = node->index, .life = node->life, .read = *read});
}

static void on_data(void *arg, uint64_t number, uint64_t offset, const void *bytes, size_t len,
                    const struct id128 *from)
{
    struct node *node = arg;
    struct sim *sim = node->sim;
    struct reading *reading = &sim->readings[number];
    const struct body *body = &sim->bodies[reading->body];

    CHECK(sim, reading->begun && !reading->over && reading->asker == node->index);
    CHECK(sim, offset == reading->next);
    CHECK(sim, offset + len <= reading->offset + reading->length);
    CHECK(sim, memcmp(bytes, pool + body->in_pool + offset, len) == 0);
    CHECK(sim, sim->tries[reading->try_at].giver == from->bytes[1]);
    reading->next += len;
    reading->unread += len;
    sim->moved += len;
    plan(sim, reading->slow ? dice(sim, 6000) : dice(sim, 5),
         (struct incident){.kind = WHEN_CONSUME,
                           .node = node->index,
                           .life = node->life,
                           .number = number,
                           .read.offset = len});
}

static void on_done(void *arg, uint64_t number, int rc)
{
    struct node *node = arg;
    struct sim *sim = node->sim;
    struct reading *reading = &sim->readings[number];

    CHECK(sim, reading->begun && !reading->over && reading->asker == node->index);
    CHECK(sim, (rc == 0) == (reading->next == reading->offset + reading->length));
    reading->over = true;
    reading->rc = rc;
    if (rc)
        sim->failed++;
    else
        sim->succeeded++;
}

static void node_up(struct sim *sim, struct node *node)
{
    const struct fetch_sink fetch = {on_send, on_data, on_done, node};
    const struct serve_sink serve = {on_read, on_over, on_send, node};

    node->up = true;
    node->life++;
    node->reading = 0;
    CHECK(sim, fetch_create(&node->fetches, &fetch, dice(sim, UINT64_MAX)) == 0);
    CHECK(sim, serve_create(&node->serve, &serve) == 0);
}

static void node_down(struct sim *sim, struct node *node)
{
    node->up = false;
    fetch_destroy(&node->fetches);
    serve_destroy(&node->serve);
    for (unsigned i = 0; i < FETCHES; i++) { /* its clients went with it */
        if (sim->readings[i].begun && sim->readings[i].asker == node->index)
            sim->readings[i].over = true;
    }
}

/* Every other node learns of it: soon, but not at once. (A late word about one that is back is what
 * an asker may be told as well.) */
static void tell_of(struct sim *sim, unsigned about, bool alive)
{
    struct id128 id = node_id(about);

    for (unsigned i = 0; i < NODES; i++) {
        struct node *node = &sim->nodes[i];

        if (i == about || !node->up || dice(sim, 4) == 0)
            continue;
        fetch_peer(node->fetches, &id, alive, sim->now_ms);
        if (!alive)
            serve_peer_failed(node->serve, &id);
    }
}

static void start_fetch(struct sim *sim, uint64_t number)
{
    struct reading *reading = &sim->readings[number];
    struct body *body = &sim->bodies[reading->body];
    struct node *node = &sim->nodes[reading->asker];
    struct id128 holders[NODES];
    size_t count = 0, first = dice(sim, NODES);

    if (!node->up)
        return;
    for (unsigned i = 0; i < NODES; i++) {
        if ((first + i) % NODES != reading->asker)
            holders[count++] = node_id((unsigned)(first + i) % NODES);
    }
    /* The network's book-keeping knows the fetch by the second byte of the id. */
    struct fetch_request request = {.number = number,
                                    .id = {{(uint8_t)reading->body, (uint8_t)number}},
                                    .size = body->size,
                                    .offset = reading->offset,
                                    .length = reading->length,
                                    .background = reading->background,
                                    .holders = holders,
                                    .holder_count = count};
    reading->begun = true;
    CHECK(sim, fetch_start(node->fetches, &request, sim->now_ms) == 0);
}

static void read_done(struct sim *sim, struct node *node, const struct serve_read *read)
{
    const struct body *body = &sim->bodies[read->id.bytes[0]];
    uint64_t left = read->offset < body->size ? body->size - read->offset : 0;
    uint64_t len = left < read->len ? left : read->len;

    node->reading--;
    CHECK(sim, read->offset < body->size && read->len <= left); /* nobody asked for more */
    if (body->copies[node->index] == COPY_NONE)
        serve_read_done(node->serve, read->key, ERR_NOT_FOUND, NULL, 0, 0, sim->now_ms);
    else if (body->copies[node->index] == COPY_DAMAGED && read->offset + len > body->size / 2)
        serve_read_done(node->serve, read->key, ERR_CORRUPT, NULL, 0, 0, sim->now_ms);
    else
        serve_read_done(node->serve, read->key, 0, pool + body->in_pool + read->offset, len,
                        body->size, sim->now_ms);
}

static void receive(struct sim *sim, struct node *node, const struct wire_message *message)
{
    struct try *try = NULL;
    unsigned from = message->from.bytes[1];

    if (message->type == WIRE_BODY_ASK) {
        try = find_try(sim, from, message->body_ask.transfer);
        try->delivered += message->body_ask.credit_bytes;
    } else if (message->type == WIRE_BODY_CREDIT) {
        try = find_try(sim, from, message->flow.session);
        try->delivered += message->flow.bytes;
    }
    fetch_message(node->fetches, message, sim->now_ms);
    serve_message(node->serve, message, sim->now_ms);
}

static void happen(struct sim *sim, const struct incident *event)
{
    struct node *node = &sim->nodes[event->node];
    struct reading *reading = &sim->readings[event->number];

    switch (event->kind) {
    case WHEN_START:
        start_fetch(sim, event->number);
        break;
    case WHEN_DOWN:
        node_down(sim, node);
        tell_of(sim, event->node, false);
        break;
    case WHEN_UP:
        node_up(sim, node);
        tell_of(sim, event->node, true);
        break;
    case WHEN_MESSAGE:
        if (node->up)
            receive(sim, node, &event->message);
        break;
    case WHEN_READ:
        if (node->up && node->life == event->life)
            read_done(sim, node, &event->read);
        break;
    case WHEN_CONSUME:
        if (!node->up || node->life != event->life || reading->cancelled)
            break;
        reading->unread -= event->read.offset;
        fetch_consumed(node->fetches, event->number, event->read.offset, sim->now_ms);
        break;
    case WHEN_CANCEL:
        if (!node->up || !reading->begun || reading->over)
            break;
        reading->over = reading->cancelled = true;
        fetch_cancel(node->fetches, event->number, sim->now_ms);
        break;
    }
}

/* --- a run ------------------------------------------------------------------------------------ */

static void prepare(struct sim *sim)
{
    for (unsigned i = 0; i < NODES; i++) {
        sim->nodes[i] = (struct node){.sim = sim, .index = i};
        node_up(sim, &sim->nodes[i]);
    }
    for (unsigned i = 0; i < BODIES; i++) {
        struct body *body = &sim->bodies[i];

        body->size = i % 3 == 0 ? 1 + dice(sim, 2000) : 1 + dice(sim, 5 * MIB / 2);
        body->in_pool = dice(sim, POOL_BYTES - body->size);
        for (unsigned n = 0; n < NODES && sim->weather->odd_holders; n++)
            body->copies[n] = dice(sim, 4) > 0 ? COPY_GOOD
                              : dice(sim, 2)   ? COPY_NONE
                                               : COPY_DAMAGED;
        body->copies[NODES - 1] = COPY_GOOD;
    }
    for (unsigned i = 0; i < FETCHES; i++) {
        struct reading *reading = &sim->readings[i];

        reading->asker = (unsigned)dice(sim, 2);
        reading->body = (unsigned)dice(sim, BODIES);
        uint64_t size = sim->bodies[reading->body].size;
        reading->offset = reading->next = dice(sim, 3) ? 0 : dice(sim, size);
        reading->length =
            dice(sim, 3) ? size - reading->offset : 1 + dice(sim, size - reading->offset);
        reading->background = dice(sim, 2);
        reading->slow = sim->weather->slow_readers && dice(sim, 5) == 0;
        uint64_t at_ms = dice(sim, 3000);
        plan(sim, at_ms, (struct incident){.kind = WHEN_START, .number = i});
        if (sim->weather->cancels && dice(sim, 5) == 0)
            plan(sim, at_ms + dice(sim, 3000),
                 (struct incident){.kind = WHEN_CANCEL, .node = reading->asker, .number = i});
    }
    /* The last node lives; in the wild an asker may die, too. */
    unsigned first = sim->weather->reorder ? 0 : 2;
    for (unsigned n = first; n < NODES - 1 && sim->weather->deaths; n++) {
        uint64_t down_ms = dice(sim, 4000);

        plan(sim, down_ms, (struct incident){.kind = WHEN_DOWN, .node = n});
        plan(sim, down_ms + 1 + dice(sim, 4000), (struct incident){.kind = WHEN_UP, .node = n});
    }
}

static bool all_over(const struct sim *sim)
{
    if (sim->now_ms < 10000)
        return false;
    for (unsigned i = 0; i < FETCHES; i++) {
        if (sim->readings[i].begun && !sim->readings[i].over)
            return false;
    }
    return true;
}

static void check_rest(struct sim *sim)
{
    /* Nothing is left anywhere, a while after all has ended. */
    for (unsigned i = 0; i < NODES; i++) {
        struct fetch_stats fetch;
        struct serve_stats serve;

        fetch_stats(sim->nodes[i].fetches, &fetch);
        serve_stats(sim->nodes[i].serve, &serve);
        CHECK(sim, fetch.active == 0);
        CHECK(sim, serve.active == 0 && serve.reading == 0);
    }
    /* Without loss there is no excuse: one good holder lived. */
    for (unsigned i = 0; i < FETCHES && sim->weather->lost == 0; i++)
        CHECK(sim, sim->readings[i].over && sim->readings[i].rc == 0);
}

/* Adds to SUCCEEDED, FAILED, MOVED. */
static void run(unsigned seed, const struct weather *weather, uint64_t totals[3])
{
    struct sim *sim = calloc(1, sizeof *sim);
    uint64_t tick_ms = 0, until_ms = 0;

    assert_non_null(sim);
    sim->events = malloc(LIMIT_INCIDENTS * sizeof *sim->events);
    assert_non_null(sim->events);
    sim->seed = seed;
    sim->weather = weather;
    sim->random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    prepare(sim);
    while (until_ms == 0 || sim->now_ms < until_ms) {
        CHECK(sim, sim->now_ms < END_MS);
        if (sim->event_count > 0 && sim->events[0].at_ms <= tick_ms) {
            struct incident event = next_incident(sim);

            sim->now_ms = event.at_ms;
            happen(sim, &event);
            free(event.data);
            continue;
        }
        sim->now_ms = tick_ms;
        for (unsigned i = 0; i < NODES; i++) {
            if (sim->nodes[i].up) {
                fetch_tick(sim->nodes[i].fetches, sim->now_ms);
                serve_tick(sim->nodes[i].serve, sim->now_ms);
            }
        }
        if (until_ms == 0 && all_over(sim))
            until_ms = sim->now_ms + SERVE_IDLE_MS + 1000;
        tick_ms += TICK_MS;
    }
    check_rest(sim);
    totals[0] += sim->succeeded;
    totals[1] += sim->failed;
    totals[2] += sim->moved;
    while (sim->event_count > 0) {
        struct incident event = next_incident(sim);

        free(event.data);
    }
    for (unsigned i = 0; i < NODES; i++) {
        fetch_destroy(&sim->nodes[i].fetches);
        serve_destroy(&sim->nodes[i].serve);
    }
    free(sim->events);
    free(sim);
}

static void bytes_are_right_and_everything_ends(void **state)
{
    enum { WEATHERS = sizeof weathers / sizeof *weathers };
    const char *one = getenv("TRANSFER_SEED"), *many = getenv("TRANSFER_SEEDS");
    unsigned first = one ? (unsigned)atoi(one) : 1;
    unsigned last = one ? first : many ? (unsigned)atoi(many) : DEFAULT_SEEDS;
    uint64_t totals[WEATHERS][3] = {{0}};

    (void)state;
    for (size_t i = 0; i < POOL_BYTES; i++)
        pool[i] = (uint8_t)((i * UINT64_C(0x9e3779b97f4a7c15)) >> 40);
    for (unsigned seed = first; seed <= last; seed++)
        run(seed, &weathers[seed % WEATHERS], totals[seed % WEATHERS]);
    for (size_t i = 0; i < WEATHERS; i++) {
        print_message("%s: %llu fetches succeeded, %llu failed, %llu MiB\n", weathers[i].name,
                      (unsigned long long)totals[i][0], (unsigned long long)totals[i][1],
                      (unsigned long long)(totals[i][2] / MIB));
        /* Even in the wild most of them get there. */
        if (!one)
            assert_true(totals[i][0] > 4 * totals[i][1] && totals[i][0] > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_right_and_everything_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
