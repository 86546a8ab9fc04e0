/* Goal: whatever the network and restarts do, all nodes come to know all events, each exactly as it
 * was written; quiet nodes say nothing; a difference costs little more than its events.
 *
 * Production sync cores with a fake journal each, in virtual time, from one seed. Every message
 * goes through the codec. SYNC_SEEDS=FROM-TO runs others than the usual seeds. */
#include "base/bytes.h"
#include "cluster/sync.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES_MAX   5
#define RUNS_MAX    12000
#define TICK_MS     100
#define PROBE_MS    1000
#define DEAD_MS     3500
#define WRITERS_MAX 64 /* runs that a history of mishaps may begin */
#define EVENT_MAX   400

/* ---- the dice ---- */

static uint64_t dice;

static uint64_t roll(uint64_t below)
{
    uint64_t z = dice += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (z ^ (z >> 31)) % below;
}

static bool chance(double probability)
{
    return (double)roll(1000000) < probability * 1000000;
}

/* ---- the world ---- */

enum task_kind { TASK_TICK, TASK_PROBE, TASK_ARRIVE, TASK_READ, TASK_APPEND, TASK_APPLIED };

struct task {
    uint64_t at, order;
    enum task_kind kind;
    int node, from;
    unsigned life; /* of the node; tasks of an earlier one are void */
    char *bytes;
    size_t len;
    union {
        struct wire_summary summary;
        struct sync_read read;
        struct sync_commit commit;
        struct {
            int run;
            struct sync_committed committed;
            bool answers;
        } applied;
    };
};

/* A run as it was written, by whom, and which it follows. The bytes of its events follow from its
 * number and theirs. */
struct truth {
    int node, follows; /* -1: none */
    uint64_t seq;
};

struct node {
    struct sync *core;
    unsigned life;
    int own;                    /* run; -1 before the first event */
    uint64_t durable[RUNS_MAX]; /* in the journal … */
    uint64_t applied[RUNS_MAX]; /* … and reported */
    uint64_t anchor[RUNS_MAX];  /* compacted up to here */
    uint64_t log_free_at;       /* appends go one after the other, … */
    uint64_t answered_at;       /* … and so do their answers */
    uint64_t heard[NODES_MAX];  /* last probe of that one */
    bool alive[NODES_MAX];
};

static struct {
    int nodes;
    struct node node[NODES_MAX];
    struct truth run[RUNS_MAX];
    int runs, runs_max;
    uint64_t now, order;
    struct task *tasks;
    size_t count, cap;
    double loss, twice;
    uint64_t delay_ms, log_ms; /* at most: of a message, of an append */
    bool journal_fails, compacts, reorders;
    uint64_t arrival[NODES_MAX][NODES_MAX]; /* of the last message on that way */
    bool cut[NODES_MAX][NODES_MAX];         /* from, to */
    uint64_t messages, bytes, event_bytes;
} w;

static struct id128 node_id(int node)
{
    return (struct id128){{0xA0, (uint8_t)(node + 1)}};
}

static int node_of(const struct id128 *id)
{
    assert_int_equal(id->bytes[0], 0xA0);
    return id->bytes[1] - 1;
}

/* Origins grow with time, as ULIDs do. */
static struct id128 origin_id(int run)
{
    return (struct id128){{1, 2, (uint8_t)(run >> 8), (uint8_t)run, 5}};
}

static int run_of(const struct id128 *origin)
{
    int run = origin->bytes[2] << 8 | origin->bytes[3];

    assert_in_range(run, 0, w.runs - 1);
    return run;
}

static size_t event_bytes(int run, uint64_t seq, char *out)
{
    uint64_t pair[2] = {(uint64_t)run, seq};
    size_t len = 16 + xxh64(pair, sizeof pair, 1) % (EVENT_MAX - 16);

    memset(out, (int)(run * 31 + (int)(seq % 251)), len);
    memcpy(out, pair, sizeof pair);
    return len;
}

static bool before(const struct task *a, const struct task *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void schedule(struct task task, uint64_t delay)
{
    task.at = w.now + delay;
    task.order = w.order++;
    if (w.count == w.cap) {
        w.cap = w.cap ? 2 * w.cap : 1024;
        w.tasks = realloc(w.tasks, w.cap * sizeof *w.tasks);
        assert_non_null(w.tasks);
    }
    size_t i = w.count++;

    for (; i > 0 && before(&task, &w.tasks[(i - 1) / 2]); i = (i - 1) / 2)
        w.tasks[i] = w.tasks[(i - 1) / 2];
    w.tasks[i] = task;
}

static struct task next_task(void)
{
    struct task first = w.tasks[0], last = w.tasks[--w.count];
    size_t i = 0;

    w.tasks[w.count].bytes = NULL;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= w.count)
            break;
        if (child + 1 < w.count && before(&w.tasks[child + 1], &w.tasks[child]))
            child++;
        if (!before(&w.tasks[child], &last))
            break;
        w.tasks[i] = w.tasks[child];
        i = child;
    }
    if (w.count)
        w.tasks[i] = last;
    return first;
}

/* ---- doing what a core says ---- */

static void feed(int at, struct sync_input input);

static void transmit(int from, int to, enum task_kind kind, const struct wire_summary *summary,
                     const char *bytes, size_t len)
{
    if (w.cut[from][to] || chance(w.loss))
        return;
    for (int copies = chance(w.twice) ? 2 : 1; copies > 0; copies--) {
        struct task task = {.kind = kind, .node = to, .from = from, .len = len};

        if (summary)
            task.summary = *summary;
        if (len) {
            task.bytes = malloc(len);
            assert_non_null(task.bytes);
            memcpy(task.bytes, bytes, len);
        }
        task.life = w.node[to].life;
        uint64_t at = w.now + 1 + roll(w.delay_ms);

        if (!w.reorders && at < w.arrival[from][to])
            at = w.arrival[from][to];
        w.arrival[from][to] = at;
        schedule(task, at - w.now);
    }
}

static void send_message(int from, const struct id128 *to, const struct wire_message *message)
{
    struct buf bytes;

    buf_init(&bytes, 0);
    wire_encode(&bytes, message);
    assert_int_equal(buf_check(&bytes), 0);
    w.messages++;
    w.bytes += bytes.len;
    if (message->type == WIRE_SYNC_EVENTS)
        w.event_bytes += message->sync_events.data.len;
    transmit(from, node_of(to), TASK_ARRIVE, NULL, bytes.data, bytes.len);
    buf_release(&bytes);
}

/* The other node's state as a snapshot: everything at once, events compacted. */
static void merge_snapshot(int at, int from)
{
    struct node *n = &w.node[at], *other = &w.node[from];

    for (int run = 0; run < w.runs; run++) {
        if (other->applied[run] <= n->durable[run])
            continue;
        n->durable[run] = n->anchor[run] = other->applied[run];
        struct task task = {.kind = TASK_APPLIED, .node = at, .life = n->life};

        task.applied.run = run;
        schedule(task, 0);
    }
}

static void perform(int at, const struct sync_output *out)
{
    struct node *n = &w.node[at];
    struct task task = {.node = at, .life = n->life};

    switch (out->kind) {
    case SYNC_SEND:
        send_message(at, &out->send.to, &out->send.message);
        break;
    case SYNC_READ:
        task.kind = TASK_READ;
        task.read = out->read;
        schedule(task, roll(10));
        break;
    case SYNC_COMMIT:
        task.kind = TASK_APPEND;
        task.commit = out->commit;
        task.len = out->commit.data.len;
        task.bytes = malloc(task.len);
        assert_non_null(task.bytes);
        memcpy(task.bytes, out->commit.data.ptr, task.len);
        if (n->log_free_at < w.now)
            n->log_free_at = w.now;
        n->log_free_at += roll(w.log_ms);
        schedule(task, n->log_free_at - w.now);
        break;
    case SYNC_BEHIND:
        merge_snapshot(at, node_of(&out->behind.peer));
        break;
    case SYNC_FREEZE:
    case SYNC_CONFLICT:
        fail_msg("events of %s%d do not fit", "run ", run_of(&out->conflict.origin));
    }
}

static void feed(int at, struct sync_input input)
{
    struct sync_outputs out = {.more = true};
    unsigned steps = 0;

    for (; out.more; input.kind = SYNC_TICK) {
        input.now_ms = w.now;
        assert_int_equal(sync_step(w.node[at].core, &input, &out), 0);
        for (size_t i = 0; i < out.count; i++)
            perform(at, &out.list[i]);
        assert_true(++steps < 1000);
    }
}

/* Report to the core what is applied of RUN; a run's first event ends the one it follows. */
static void report(int at, int run)
{
    struct node *n = &w.node[at];
    struct sync_input input = {.kind = SYNC_LOCAL};
    bool ended = false;

    for (int i = 0; i < w.runs; i++)
        ended |= w.run[i].follows == run && n->applied[i] > 0;
    if (!n->applied[run])
        return;
    input.local.run = (struct vector_run){.origin = origin_id(run),
                                          .node = node_id(w.run[run].node),
                                          .seq = n->applied[run],
                                          .anchor_seq = n->anchor[run],
                                          .ended = ended};
    input.local.own = run == n->own;
    feed(at, input);
}

static void apply(int at, int run)
{
    struct node *n = &w.node[at];

    n->applied[run] = n->durable[run];
    report(at, run);
    if (w.run[run].follows >= 0)
        report(at, w.run[run].follows);
}

/* ---- tasks ---- */

static void do_read(const struct task *task)
{
    struct node *n = &w.node[task->node];
    const struct sync_read *read = &task->read;
    int run = run_of(&read->origin);
    struct sync_input input = {.kind = SYNC_READ_DONE};
    struct buf data;
    char event[EVENT_MAX];

    buf_init(&data, 0);
    input.read_done = (struct sync_read_done){
        .peer = read->peer, .session = read->session, .origin = read->origin, .first = read->first};
    for (uint64_t seq = read->first; seq <= n->applied[run]; seq++) {
        size_t len = event_bytes(run, seq, event);

        if (seq > read->first && data.len + 4 + len > read->limit_bytes)
            break;
        wire_event_add(&data, event, len);
        input.read_done.count++;
    }
    assert_int_equal(buf_check(&data), 0);
    input.read_done.data = (struct text){data.data, (uint32_t)data.len};
    if (n->anchor[run] >= read->first)
        input.read_done.rc = ERR_NOT_FOUND;
    else if (w.journal_fails && chance(0.005))
        input.read_done.rc = ERR_IO;
    else
        assert_true(input.read_done.count > 0); /* only what was reported is asked for */
    feed(task->node, input);
    buf_release(&data);
}

static void check_batch(const struct sync_commit *commit, struct text data)
{
    int run = run_of(&commit->origin);
    char expected[EVENT_MAX];
    struct text event;
    size_t offset = 0;

    assert_true(commit->count > 0);
    assert_true(commit->first + commit->count - 1 <= w.run[run].seq);
    for (uint64_t seq = commit->first; seq < commit->first + commit->count; seq++) {
        assert_true(wire_next_event(data, &offset, &event));
        assert_int_equal(event.len, event_bytes(run, seq, expected));
        assert_memory_equal(event.ptr, expected, event.len);
    }
    assert_int_equal(offset, data.len);
}

static void do_append(const struct task *task)
{
    struct node *n = &w.node[task->node];
    const struct sync_commit *commit = &task->commit;
    int run = run_of(&commit->origin);
    uint64_t last = commit->first + commit->count - 1;
    struct task done = {.kind = TASK_APPLIED, .node = task->node, .life = n->life};

    check_batch(commit, (struct text){task->bytes, (uint32_t)task->len});
    done.applied.run = run;
    done.applied.answers = true;
    done.applied.committed = (struct sync_committed){.peer = commit->peer,
                                                     .session = commit->session,
                                                     .origin = commit->origin,
                                                     .first = commit->first,
                                                     .count = commit->count,
                                                     .bytes = (uint32_t)task->len};
    if (w.journal_fails && chance(0.02))
        done.applied.committed.rc = ERR_FULL;
    else if (commit->first > n->durable[run] + 1)
        done.applied.committed.rc = ERR_CONFLICT; /* a gap, since one before it was refused */
    else if (last > n->durable[run])
        n->durable[run] = last;
    n->answered_at = n->answered_at > w.now ? n->answered_at : w.now;
    n->answered_at += roll(5);
    schedule(done, n->answered_at - w.now);
}

static void do_applied(const struct task *task)
{
    bool answer_first = chance(0.5);
    struct sync_input input = {.kind = SYNC_COMMITTED};

    input.committed = task->applied.committed;
    if (task->applied.answers && answer_first)
        feed(task->node, input);
    apply(task->node, task->applied.run);
    if (task->applied.answers && !answer_first)
        feed(task->node, input);
}

static void set_alive(int at, int peer, bool alive)
{
    struct sync_input input = {.kind = SYNC_PEER};

    w.node[at].alive[peer] = alive;
    input.peer = (struct sync_peer){node_id(peer), alive};
    feed(at, input);
}

static void do_tick(int at)
{
    for (int peer = 0; peer < w.nodes; peer++) {
        if (w.node[at].alive[peer] && w.now - w.node[at].heard[peer] > DEAD_MS)
            set_alive(at, peer, false);
    }
    feed(at, (struct sync_input){.kind = SYNC_TICK});
    schedule((struct task){.kind = TASK_TICK, .node = at, .life = w.node[at].life}, TICK_MS);
}

static void send_probes(int at)
{
    struct wire_summary summary = {.vector =
                                       vector_sum(sync_vector(w.node[at].core), VECTOR_ALL).hash};

    for (int peer = 0; peer < w.nodes; peer++) {
        if (peer != at)
            transmit(at, peer, TASK_PROBE, &summary, NULL, 0);
    }
}

static void do_probe(const struct task *task)
{
    struct sync_input input = {.kind = SYNC_PEER_SUMMARY};

    if (task->from == task->node) { /* its own turn */
        send_probes(task->node);
        schedule(*task, PROBE_MS);
        return;
    }
    w.node[task->node].heard[task->from] = w.now;
    if (!w.node[task->node].alive[task->from])
        set_alive(task->node, task->from, true);
    input.summary = (struct sync_summary){node_id(task->from), task->summary};
    feed(task->node, input);
}

static void do_arrive(const struct task *task)
{
    struct sync_input input = {.kind = SYNC_MESSAGE};

    assert_int_equal(wire_decode(&input.message, (uint8_t *)task->bytes, task->len), 0);
    feed(task->node, input);
}

static void run_task(struct task *task)
{
    static void (*const doing[])(const struct task *) = {
        [TASK_PROBE] = do_probe,   [TASK_ARRIVE] = do_arrive,   [TASK_READ] = do_read,
        [TASK_APPEND] = do_append, [TASK_APPLIED] = do_applied,
    };

    if (task->life != w.node[task->node].life)
        ; /* it died with the process */
    else if (task->kind == TASK_TICK)
        do_tick(task->node);
    else
        doing[task->kind](task);
    free(task->bytes);
}

/* ---- what befalls nodes ---- */

static void start(int at)
{
    struct node *n = &w.node[at];
    struct sync_config config = {.self = node_id(at), .seed = roll(UINT64_MAX)};

    n->life++;
    n->own = -1;
    n->log_free_at = n->answered_at = 0;
    memset(n->alive, 0, sizeof n->alive);
    sync_destroy(&n->core);
    assert_int_equal(sync_create(&n->core, &config), 0);
    for (int run = 0; run < w.runs; run++)
        n->applied[run] = n->durable[run];
    for (int run = 0; run < w.runs; run++)
        report(at, run);
    schedule((struct task){.kind = TASK_TICK, .node = at, .life = n->life}, roll(TICK_MS));
    schedule((struct task){.kind = TASK_PROBE, .node = at, .from = at, .life = n->life},
             roll(PROBE_MS));
}

static void wipe(int at)
{
    memset(w.node[at].durable, 0, sizeof w.node[at].durable);
    memset(w.node[at].applied, 0, sizeof w.node[at].applied);
    memset(w.node[at].anchor, 0, sizeof w.node[at].anchor);
    start(at);
}

/* COUNT events, durable and reported at once. */
static void write_events(int at, uint64_t count)
{
    struct node *n = &w.node[at];

    if (n->own < 0) {
        int last = -1;

        for (int run = 0; run < w.runs; run++) {
            if (w.run[run].node == at && n->durable[run])
                last = run;
        }
        if (w.runs == w.runs_max)
            return;
        n->own = w.runs++;
        w.run[n->own] = (struct truth){.node = at, .follows = last};
    }
    w.run[n->own].seq += count;
    n->durable[n->own] = w.run[n->own].seq;
    apply(at, n->own);
}

static void compact(int at)
{
    for (int run = 0; run < w.runs; run++) {
        if (chance(0.5)) {
            w.node[at].anchor[run] = w.node[at].applied[run];
            report(at, run);
        }
    }
}

static void advance(uint64_t ms)
{
    uint64_t end = w.now + ms;

    while (w.count && w.tasks[0].at <= end) {
        struct task task = next_task();

        w.now = task.at;
        run_task(&task);
    }
    w.now = end;
}

static void heal(void)
{
    memset(w.cut, 0, sizeof w.cut);
    w.loss = w.twice = 0;
    w.journal_fails = w.compacts = w.reorders = false;
}

static void begin(uint64_t seed, int nodes)
{
    memset(&w, 0, sizeof w);
    dice = seed;
    w.nodes = nodes;
    w.runs_max = WRITERS_MAX;
    w.delay_ms = 20;
    w.log_ms = 10;
    w.now = 1000;
    for (int i = 0; i < nodes; i++)
        start(i);
}

static void finish(void)
{
    for (int i = 0; i < w.nodes; i++)
        sync_destroy(&w.node[i].core);
    for (size_t i = 0; i < w.count; i++)
        free(w.tasks[i].bytes);
    free(w.tasks);
    memset(&w, 0, sizeof w);
}

/* ---- what has to be true ---- */

/* Wiping a node can take the only copy of what it wrote: then nobody can know more than is left. */
static uint64_t known_anywhere(int run)
{
    uint64_t most = 0;

    for (int i = 0; i < w.nodes; i++)
        most = w.node[i].durable[run] > most ? w.node[i].durable[run] : most;
    return most;
}

static bool converged(void)
{
    for (int i = 0; i < w.nodes; i++) {
        struct vector_sum first = vector_sum(sync_vector(w.node[0].core), VECTOR_ALL);
        struct vector_sum sum = vector_sum(sync_vector(w.node[i].core), VECTOR_ALL);

        if (!hash128_equal(&first.hash, &sum.hash) || first.count != sum.count)
            return false;
        for (int run = 0; run < w.runs; run++) {
            if (w.node[i].applied[run] != known_anywhere(run))
                return false;
        }
    }
    return true;
}

static uint64_t wait_converged(uint64_t most_ms)
{
    uint64_t began = w.now;

    while (!converged()) {
        assert_true(w.now - began < most_ms);
        advance(100);
    }
    return w.now - began;
}

/* From here on nobody says anything but probes. */
static void assert_quiet(void)
{
    advance(
        12000); /* sessions whose last message got lost are given up, summaries make their round */
    w.messages = 0;
    advance(60000);
    assert_int_equal(w.messages, 0);
    for (int i = 0; i < w.nodes; i++)
        assert_int_equal(sync_busy(w.node[i].core), 0);
}

/* ---- tests ---- */

static void mishap(void)
{
    int a = (int)roll((uint64_t)w.nodes), b = (int)roll((uint64_t)w.nodes);

    switch (roll(8)) {
    case 0:
    case 1:
        w.cut[a][b] = w.cut[b][a] = true;
        break;
    case 2:
        w.cut[a][b] = true; /* one way */
        break;
    case 3:
        memset(w.cut, 0, sizeof w.cut);
        break;
    case 4:
        start(a);
        break;
    case 5:
        if (w.compacts)
            compact(a);
        break;
    case 6:
        if (chance(0.3))
            wipe(a);
        break;
    default:
        write_events(a, 1 + roll(3000));
    }
}

static void one_history(uint64_t seed)
{
    begin(seed, 2 + (int)(seed % 4));
    w.loss = (double)roll(20) / 100;
    w.twice = (double)roll(20) / 100;
    w.delay_ms = 1 + roll(chance(0.2) ? 500 : 50);
    w.journal_fails = chance(0.5);
    w.compacts = chance(0.3);
    w.reorders = chance(0.5);
    for (int i = 0; i < 150; i++) {
        if (chance(0.7))
            write_events((int)roll((uint64_t)w.nodes), 1 + roll(20));
        if (chance(0.15))
            mishap();
        advance(roll(400));
    }
    heal();
    (void)wait_converged(90000);
    assert_quiet();
    finish();
}

static void nodes_converge_whatever_happens(void **state)
{
    const char *seeds = getenv("SYNC_SEEDS");
    unsigned long from = 1, to = 120;

    (void)state;
    if (seeds && sscanf(seeds, "%lu-%lu", &from, &to) != 2)
        fail_msg("SYNC_SEEDS=FROM-TO, not %s", seeds);
    for (unsigned long seed = from; seed <= to; seed++) {
        if (seeds)
            print_message("seed %lu\n", seed);
        one_history(seed);
    }
}

static void the_same_seed_is_the_same_history(void **state)
{
    uint64_t ends[2][3];

    (void)state;
    for (int i = 0; i < 2; i++) {
        begin(42, 4);
        w.loss = 0.1;
        for (int j = 0; j < 50; j++) {
            write_events(j % 4, 1 + roll(50));
            mishap();
            advance(200);
        }
        ends[i][0] = w.order;
        ends[i][1] = w.bytes;
        ends[i][2] = dice;
        finish();
    }
    assert_memory_equal(ends[0], ends[1], sizeof ends[0]);
}

/* ---- what it costs ---- */

/* Of all nodes' statistics. */
static struct sync_stats total(void)
{
    struct sync_stats sum = {0};

    for (int i = 0; i < w.nodes; i++) {
        const struct sync_stats *one = sync_stats(w.node[i].core);

        sum.asks += one->asks;
        sum.events_out += one->events_out;
        sum.duplicates += one->duplicates;
        sum.timeouts += one->timeouts;
    }
    return sum;
}

/* Everybody knows a few runs, and is quiet. */
static void begin_converged(uint64_t seed, int nodes)
{
    begin(seed, nodes);
    advance(2000);
    for (int i = 0; i < 4 * nodes; i++) {
        write_events(i % nodes, 100);
        if (i % 3 == 0) {
            advance(3000);
            start(i % nodes);
        }
    }
    (void)wait_converged(60000);
    assert_quiet();
    w.messages = w.bytes = w.event_bytes = 0;
}

static uint64_t bytes_of_run(int run, uint64_t from, uint64_t through)
{
    char event[EVENT_MAX];
    uint64_t sum = 0;

    for (uint64_t seq = from; seq <= through; seq++)
        sum += event_bytes(run, seq, event);
    return sum;
}

static void an_event_reaches_everybody_at_once(void **state)
{
    (void)state;
    begin_converged(1, 5);
    for (int i = 0; i < 200; i++) {
        write_events(i % 5, 1);
        advance(60); /* a read, a way, a commit, an apply */
        assert_true(converged());
    }
    uint64_t asked = total().asks;

    assert_quiet();
    assert_int_equal(total().asks, asked);
    finish();
}

static uint64_t written(void)
{
    uint64_t sum = 0;

    for (int run = 0; run < w.runs; run++)
        sum += w.run[run].seq;
    return sum;
}

/* Each event goes to each peer once, and hardly anything is asked for, though what the nodes know
 * is never the same for a moment. */
static void under_load_pushing_suffices(void **state)
{
    (void)state;
    begin_converged(2, 4);
    uint64_t before = written(), sent = total().events_out, asks = total().asks;

    for (int i = 0; i < 3000; i++) {
        write_events(i % 4, 1 + roll(3));
        advance(roll(10));
    }
    (void)wait_converged(5000);
    uint64_t due = 3 * (written() - before);

    assert_in_range(total().events_out - sent, due, due + due / 20);
    assert_in_range(total().asks - asks, 0, 3 * 4 * 3);
    assert_quiet();
    finish();
}

static void a_difference_costs_its_events_and_little_more(void **state)
{
    static const uint64_t differences[] = {1, 10, 300, 5000};

    (void)state;
    for (size_t i = 0; i < sizeof differences / sizeof *differences; i++) {
        begin_converged(3 + i, 3);
        write_events(0, 1);
        (void)wait_converged(1000);
        for (int peer = 0; peer < 2; peer++)
            w.cut[peer][2] = w.cut[2][peer] = true;
        advance(10000);
        int run = w.node[0].own;
        uint64_t first = w.run[run].seq + 1;

        write_events(0, differences[i]);
        advance(5000);
        w.bytes = 0;
        heal();
        (void)wait_converged(10000);
        assert_quiet();
        uint64_t events = bytes_of_run(run, first, w.run[run].seq) + 4 * differences[i];

        assert_in_range(w.bytes, events, events + 2048 + events / 100);
        finish();
    }
}

/* More than the credit: it has to come back, or this takes far longer. */
static void a_joiner_gets_everything_soon(void **state)
{
    (void)state;
    begin(7, 2);
    w.cut[0][1] = w.cut[1][0] = true;
    write_events(0, 150000);
    heal();
    advance(1500);
    assert_true(wait_converged(20000) < 6000);
    assert_int_equal(total().timeouts, 0);
    assert_int_equal(total().duplicates, 0);
    finish();
}

static void add_run(int at, int follows)
{
    struct node *n = &w.node[at];
    int run = w.runs++;

    w.run[run] = (struct truth){.node = at, .follows = follows, .seq = 1};
    n->durable[run] = n->applied[run] = 1;
}

/* COUNT runs with one event each, known to node 0, every STEP-th not to node 1. */
static void begin_with_runs(uint64_t seed, int count, int step, bool ended)
{
    begin(seed, 2);
    w.runs_max = RUNS_MAX;
    for (int i = 0; i < count; i++) {
        add_run(0, ended && i > 0 ? i - 1 : -1);
        if (i % step)
            w.node[1].durable[i] = 1;
    }
    start(0);
    start(1);
}

static void ended_runs_are_compared_by_pages_where_they_differ(void **state)
{
    enum { RUNS = 10000, STEP = 100 };

    (void)state;
    begin_with_runs(8, RUNS, STEP, true);
    (void)wait_converged(15000);
    /* 24 bytes for a run (a few times, since an end is known only once its follower came). */
    assert_true(w.bytes < 4 * RUNS * WIRE_RUN_BYTES);
    assert_in_range(total().events_out, RUNS / STEP, RUNS / STEP + 10);
    assert_quiet();
    finish();
}

/* A message each, but never more of them under way than there is room for. */
static void many_small_runs_come_in_one_session(void **state)
{
    enum { RUNS = 1500 };

    (void)state;
    begin_with_runs(13, RUNS, 1, false);
    w.log_ms = 40; /* reading is faster than that */
    (void)wait_converged(60000);
    assert_int_equal(sync_stats(w.node[1].core)->asks, 1);
    assert_int_equal(total().events_out, RUNS);
    assert_quiet();
    finish();
}

static void a_restart_costs_little_however_many_came_before(void **state)
{
    (void)state;
    begin_with_runs(12, 3000, 3001, true);
    (void)wait_converged(15000);
    assert_quiet();
    w.cut[0][1] = w.cut[1][0] = true;
    advance(5000);
    start(0);
    write_events(0, 10);
    w.bytes = 0;
    heal();
    (void)wait_converged(10000);
    assert_quiet();
    assert_in_range(w.bytes, 10 * 16, 10 * EVENT_MAX + 4096);
    finish();
}

static void more_live_runs_than_a_message_holds_are_compared_too(void **state)
{
    enum { RUNS = 6000, STEP = 50 };

    (void)state;
    begin_with_runs(9, RUNS, STEP, false);
    (void)wait_converged(15000);
    assert_in_range(total().events_out, RUNS / STEP, RUNS / STEP + 10);
    assert_quiet();
    finish();
}

static void a_wiped_node_gets_back_its_own_runs(void **state)
{
    (void)state;
    begin_converged(10, 3);
    wipe(1);
    write_events(1, 5);
    (void)wait_converged(10000);
    for (int run = 0; run < w.runs; run++)
        assert_int_equal(w.node[1].durable[run], w.run[run].seq);
    finish();
}

/* What was compacted elsewhere comes as a snapshot, the rest as events. */
static void a_node_behind_the_cut_is_told_so(void **state)
{
    (void)state;
    begin_converged(11, 3);
    for (int at = 0; at < 2; at++) {
        for (int run = 0; run < w.runs; run++)
            w.node[at].anchor[run] = run % 2 ? w.node[at].applied[run] : 0;
        start(at);
    }
    wipe(2);
    (void)wait_converged(15000);
    for (int run = 0; run < w.runs; run++)
        assert_int_equal(w.node[2].anchor[run], run % 2 ? w.run[run].seq : 0);
    assert_quiet();
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_converge_whatever_happens),
        cmocka_unit_test(the_same_seed_is_the_same_history),
        cmocka_unit_test(an_event_reaches_everybody_at_once),
        cmocka_unit_test(under_load_pushing_suffices),
        cmocka_unit_test(a_difference_costs_its_events_and_little_more),
        cmocka_unit_test(a_joiner_gets_everything_soon),
        cmocka_unit_test(ended_runs_are_compared_by_pages_where_they_differ),
        cmocka_unit_test(many_small_runs_come_in_one_session),
        cmocka_unit_test(a_restart_costs_little_however_many_came_before),
        cmocka_unit_test(more_live_runs_than_a_message_holds_are_compared_too),
        cmocka_unit_test(a_wiped_node_gets_back_its_own_runs),
        cmocka_unit_test(a_node_behind_the_cut_is_told_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
