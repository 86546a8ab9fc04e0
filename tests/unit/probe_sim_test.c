/*
 * Goal: many nodes that probe each other over a bad network come to the right verdicts, in time,
 * and to no wrong ones.
 *
 * The production cores run in virtual time over a network that loses, delays and cuts; one seed,
 * one history. PROBE_HOURS sets the length of the long run (a week: 168), PROBE_SEED another seed.
 */
#include "cluster/probe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NODES   32
#define MAX_FLIGHT  8192
#define START_MS    1000000
#define WALL_MS     UINT64_C(1763700000000)
#define PROBE_BYTES 100 /* of an encoded message, at least */
#define HOUR_MS     (3600 * UINT64_C(1000))
#define RATE_LIMIT  (20 * KIB)
#define NEVER       UINT64_MAX
#define SETTLE_MS   3000

struct flight {
    uint64_t at_ms, number;
    unsigned to;
    struct wire_message message;
};

struct sim {
    unsigned count;
    struct probe *cores[MAX_NODES];
    uint64_t next_ms[MAX_NODES];
    int64_t clock_ms[MAX_NODES]; /* how far the wall clock is ahead */
    bool down[MAX_NODES];
    bool cut[MAX_NODES][MAX_NODES]; /* from, to */
    uint64_t now_ms, number;
    uint64_t dice;
    bool weighs; /* messages are encoded, and their bytes counted */
    unsigned loss_permille, twice_permille;
    unsigned delay_ms;

    struct flight flights[MAX_FLIGHT];
    unsigned heap[MAX_FLIGHT], free_list[MAX_FLIGHT];
    size_t heap_count, free_count;

    /* What happened. */
    enum probe_state view[MAX_NODES][MAX_NODES];
    uint64_t since_ms[MAX_NODES][MAX_NODES];
    uint64_t failures[MAX_NODES][MAX_NODES]; /* times that it was declared failed */
    uint64_t suspicions;
    uint64_t sent_bytes[MAX_NODES], received_bytes[MAX_NODES];
};

static uint64_t draw(struct sim *sim)
{
    uint64_t x = sim->dice += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static struct id128 id_of(unsigned node)
{
    return (struct id128){{1, (uint8_t)(node + 1)}};
}

static unsigned node_of(const struct id128 *id)
{
    assert_int_equal(id->bytes[0], 1);
    assert_in_range(id->bytes[1], 1, MAX_NODES);
    return id->bytes[1] - 1u;
}

/* --- messages under way: a binary heap by (time, number) ------------------------------------- */

static bool earlier(const struct sim *sim, unsigned a, unsigned b)
{
    const struct flight *x = &sim->flights[a], *y = &sim->flights[b];

    return x->at_ms != y->at_ms ? x->at_ms < y->at_ms : x->number < y->number;
}

static void heap_swap(struct sim *sim, size_t a, size_t b)
{
    unsigned swap = sim->heap[a];

    sim->heap[a] = sim->heap[b];
    sim->heap[b] = swap;
}

static void flight_add(struct sim *sim, unsigned to, const struct wire_message *message)
{
    assert_true(sim->free_count > 0);
    unsigned slot = sim->free_list[--sim->free_count];
    sim->flights[slot] = (struct flight){.at_ms = sim->now_ms + draw(sim) % (sim->delay_ms + 1),
                                         .number = sim->number++,
                                         .to = to,
                                         .message = *message};
    size_t at = sim->heap_count++;
    sim->heap[at] = slot;
    for (; at > 0 && earlier(sim, sim->heap[at], sim->heap[(at - 1) / 2]); at = (at - 1) / 2)
        heap_swap(sim, at, (at - 1) / 2);
}

static unsigned flight_take(struct sim *sim)
{
    unsigned first = sim->heap[0];
    size_t at = 0;

    sim->heap[0] = sim->heap[--sim->heap_count];
    for (;;) {
        size_t least = at, left = 2 * at + 1;

        for (size_t child = left; child < left + 2 && child < sim->heap_count; child++) {
            if (earlier(sim, sim->heap[child], sim->heap[least]))
                least = child;
        }
        if (least == at)
            return first;
        heap_swap(sim, at, least);
        at = least;
    }
}

static size_t weight(const struct sim *sim, const struct wire_message *message)
{
    struct buf bytes = {0};
    size_t len = 0;

    if (!sim->weighs)
        return 0;
    wire_encode(&bytes, message);
    assert_int_equal(buf_check(&bytes), 0);
    len = bytes.len;
    buf_release(&bytes);
    return len;
}

static void send_message(struct sim *sim, unsigned from, unsigned to,
                         const struct wire_message *message)
{
    sim->sent_bytes[from] += weight(sim, message);
    if (sim->cut[from][to] || draw(sim) % 1000 < sim->loss_permille)
        return;
    flight_add(sim, to, message);
    if (sim->twice_permille && draw(sim) % 1000 < sim->twice_permille)
        flight_add(sim, to, message);
}

/* --- nodes ----------------------------------------------------------------------------------- */

static void note_state(struct sim *sim, unsigned node, const struct probe_output *out)
{
    unsigned subject = node_of(&out->node);

    sim->view[node][subject] = out->state.state;
    sim->since_ms[node][subject] = out->state.since_ms;
    sim->failures[node][subject] += out->state.state == PROBE_FAILED;
    sim->suspicions += out->state.state == PROBE_SUSPECT;
}

static void step(struct sim *sim, unsigned node, struct probe_input in)
{
    const struct probe_output *out;
    size_t count;

    in.now_ms = sim->now_ms;
    in.wall_ms = (uint64_t)((int64_t)(WALL_MS + sim->now_ms) + sim->clock_ms[node]);
    assert_int_equal(probe_step(sim->cores[node], &in, &out, &count), 0);
    for (size_t i = 0; i < count; i++) {
        if (out[i].kind == PROBE_SEND || out[i].kind == PROBE_REPLY)
            send_message(sim, node, node_of(&out[i].node), &out[i].message);
        else if (out[i].kind == PROBE_STATE)
            note_state(sim, node, &out[i]);
    }
    sim->next_ms[node] = probe_next_ms(sim->cores[node]);
    assert_true(sim->next_ms[node] >= sim->now_ms);
}

static void start_node(struct sim *sim, unsigned node)
{
    struct probe_config config = {
        .node = id_of(node), .seed = draw(sim), .tag = {"sim", 3}, .address = {"node:1", 6}};

    probe_destroy(&sim->cores[node]);
    assert_int_equal(probe_create(&sim->cores[node], &config, sim->now_ms), 0);
    sim->down[node] = false;
    for (unsigned other = 0; other < sim->count; other++)
        step(sim, node,
             (struct probe_input){
                 .kind = PROBE_MEMBER,
                 .member = {.node = id_of(other), .address = {"node:1", 6}, .joined = true}});
}

static struct sim *sim_create(unsigned count, uint64_t seed, unsigned loss_permille)
{
    struct sim *sim = calloc(1, sizeof *sim);

    assert_non_null(sim);
    assert_true(count <= MAX_NODES);
    *sim = (struct sim){.count = count,
                        .now_ms = START_MS,
                        .dice = seed,
                        .loss_permille = loss_permille,
                        .delay_ms = 5,
                        .free_count = MAX_FLIGHT};
    for (unsigned i = 0; i < MAX_FLIGHT; i++)
        sim->free_list[i] = i;
    for (unsigned i = 0; i < count; i++)
        start_node(sim, i);
    return sim;
}

static void sim_destroy(struct sim **sim)
{
    for (unsigned i = 0; i < (*sim)->count; i++)
        probe_destroy(&(*sim)->cores[i]);
    free(*sim);
    *sim = NULL;
}

static void run_until(struct sim *sim, uint64_t end_ms)
{
    for (;;) {
        uint64_t tick_ms = NEVER;
        unsigned node = 0;

        for (unsigned i = 0; i < sim->count; i++) {
            if (!sim->down[i] && sim->next_ms[i] < tick_ms) {
                tick_ms = sim->next_ms[i];
                node = i;
            }
        }
        uint64_t flight_ms = sim->heap_count ? sim->flights[sim->heap[0]].at_ms : NEVER;
        uint64_t at_ms = flight_ms <= tick_ms ? flight_ms : tick_ms;
        if (at_ms > end_ms)
            break;
        if (at_ms < sim->now_ms) /* one that was stopped is late */
            at_ms = sim->now_ms;
        sim->now_ms = at_ms;
        if (flight_ms > tick_ms) {
            step(sim, node, (struct probe_input){.kind = PROBE_TICK});
            assert_true(sim->next_ms[node] > at_ms); /* a tick does all that is due */
            continue;
        }
        unsigned slot = flight_take(sim), to = sim->flights[slot].to;
        struct probe_input in = {.kind = PROBE_MESSAGE,
                                 .message = {.message = &sim->flights[slot].message}};
        if (!sim->down[to]) {
            sim->received_bytes[to] += weight(sim, &sim->flights[slot].message);
            step(sim, to, in);
        }
        sim->free_list[sim->free_count++] = slot;
    }
    sim->now_ms = end_ms;
}

static void run_for(struct sim *sim, uint64_t ms)
{
    run_until(sim, sim->now_ms + ms);
}

static void cut_off(struct sim *sim, unsigned node, bool cut)
{
    for (unsigned i = 0; i < sim->count; i++)
        sim->cut[i][node] = sim->cut[node][i] = cut && i != node;
}

/* All see all others, but for GONE (count: none), as STATE. */
static void assert_views(const struct sim *sim, unsigned gone, enum probe_state gone_state)
{
    for (unsigned i = 0; i < sim->count; i++) {
        for (unsigned j = 0; j < sim->count; j++) {
            if (i == j || i == gone)
                continue;
            enum probe_state expected = j == gone ? gone_state : PROBE_ALIVE;

            if (sim->view[i][j] != expected)
                fail_msg("node %u sees %u as %s instead of %s", i, j,
                         probe_state_name(sim->view[i][j]), probe_state_name(expected));
        }
    }
}

static uint64_t all_failures(const struct sim *sim)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < sim->count; i++)
        for (unsigned j = 0; j < sim->count; j++)
            sum += sim->failures[i][j];
    return sum;
}

static uint64_t the_seed(void)
{
    const char *seed = getenv("PROBE_SEED");

    return seed ? strtoull(seed, NULL, 10) : 1;
}

/* --- the runs -------------------------------------------------------------------------------- */

static void thirty_two_nodes_cost_less_than_20_kib_a_second_each(void **state)
{
    enum { SECONDS = 60 };
    struct sim *sim = sim_create(32, the_seed(), 0);

    (void)state;
    run_for(sim, SETTLE_MS);
    assert_views(sim, sim->count, PROBE_ALIVE);
    sim->weighs = true;
    memset(sim->sent_bytes, 0, sizeof sim->sent_bytes);
    memset(sim->received_bytes, 0, sizeof sim->received_bytes);
    run_for(sim, SECONDS * 1000);
    uint64_t most = 0;
    for (unsigned i = 0; i < sim->count; i++) {
        uint64_t bytes = sim->sent_bytes[i] + sim->received_bytes[i];

        most = bytes > most ? bytes : most;
        /* Probing is not cheap because it does not happen: a probe and an answer to each. */
        assert_in_range(sim->sent_bytes[i], 2 * 31 * PROBE_BYTES * (SECONDS - 1),
                        RATE_LIMIT / 2 * SECONDS);
        assert_true(bytes < RATE_LIMIT * SECONDS);
        assert_int_equal(probe_health(sim->cores[i]), PROBE_GOOD);
    }
    print_message("figure: probes_bytes_a_second %.0f\n", (double)most / SECONDS);
    assert_int_equal(all_failures(sim), 0);
    sim_destroy(&sim);
}

/* At any moment within a round, with and without loss, in clusters of two to 32. */
static void a_crash_is_known_to_all_within_five_seconds(void **state)
{
    static const unsigned sizes[] = {2, 3, 5, 8, 32};

    uint64_t longest_ms = 0;

    (void)state;
    for (unsigned run = 0; run < 40; run++) {
        unsigned count = sizes[run % 5], victim = run % count;
        struct sim *sim = sim_create(count, the_seed() + run, run % 2 ? 50 : 0);

        run_for(sim, 10000 + run * 37);
        sim->down[victim] = true;
        uint64_t crash_ms = sim->now_ms;
        run_for(sim, 5000);
        for (unsigned i = 0; i < count; i++) {
            if (i == victim)
                continue;
            assert_int_equal(sim->view[i][victim], PROBE_FAILED);
            uint64_t after_ms = sim->since_ms[i][victim] - crash_ms;
            assert_true(after_ms <= PROBE_FAILED_MS + sim->delay_ms);
            longest_ms = after_ms > longest_ms ? after_ms : longest_ms;
        }
        assert_int_equal(all_failures(sim), count - 1);
        start_node(sim, victim);
        run_for(sim, SETTLE_MS + 2000);
        assert_views(sim, count, PROBE_ALIVE);
        sim_destroy(&sim);
    }
    print_message("figure: crash_known_ms %llu\n", (unsigned long long)longest_ms);
}

static void nobody_fails_falsely_at_five_percent_loss(void **state)
{
    const char *text = getenv("PROBE_HOURS");
    uint64_t hours = text ? strtoull(text, NULL, 10) : 24;
    struct sim *sim = sim_create(8, the_seed(), 50);

    (void)state;
    sim->twice_permille = 10;
    for (uint64_t hour = 0; hour < hours; hour++) {
        run_for(sim, HOUR_MS);
        if (all_failures(sim))
            fail_msg("false failure in hour %llu, PROBE_SEED=%llu PROBE_HOURS=%llu",
                     (unsigned long long)hour, (unsigned long long)the_seed(),
                     (unsigned long long)hours);
    }
    /* Suspicions do happen, or the run would prove nothing; and they are rare. (All begin as
     * suspects, since nothing was heard of them yet.) */
    uint64_t suspicions = sim->suspicions - sim->count * (sim->count - 1);
    assert_true(hours < 24 || suspicions > 0);
    assert_true(suspicions <= 10 * (hours + 1));
    print_message("figure: hours %llu\nfigure: suspicions %llu\nfigure: false_failures 0\n",
                  (unsigned long long)hours, (unsigned long long)suspicions);
    sim_destroy(&sim);
}

static void a_node_that_is_cut_off_doubts_itself_and_comes_back(void **state)
{
    (void)state;
    for (unsigned run = 0; run < 10; run++) {
        struct sim *sim = sim_create(run % 2 ? 3 : 8, the_seed() + run, run % 3 ? 50 : 0);
        unsigned lonely = run % sim->count;

        run_for(sim, 20000 + run * 91);
        cut_off(sim, lonely, true);
        run_for(sim, 5000);
        assert_views(sim, lonely, PROBE_FAILED);
        assert_int_equal(probe_health(sim->cores[lonely]), PROBE_BAD);
        assert_true(probe_doubt(sim->cores[lonely]) >= 3);
        run_for(sim, 25000);
        assert_int_equal(probe_doubt(sim->cores[lonely]), PROBE_DOUBT_MAX);
        cut_off(sim, lonely, false);
        run_for(sim, SETTLE_MS + 2000);
        assert_views(sim, sim->count, PROBE_ALIVE);
        /* It accused nobody, and nobody but it was accused. */
        assert_int_equal(all_failures(sim), sim->count - 1);
        for (unsigned i = 0; i < sim->count; i++)
            assert_int_equal(sim->failures[lonely][i], 0);
        run_for(sim, 10000);
        assert_int_equal(probe_doubt(sim->cores[lonely]), 0);
        assert_int_equal(probe_health(sim->cores[lonely]), PROBE_GOOD);
        sim_destroy(&sim);
    }
}

static void two_that_lost_each_other_alone_are_alive_through_a_third(void **state)
{
    struct sim *sim = sim_create(5, the_seed(), 50);

    (void)state;
    run_for(sim, 10000);
    sim->cut[0][1] = sim->cut[1][0] = true;
    sim->cut[2][3] = true; /* one way */
    run_for(sim, HOUR_MS);
    assert_int_equal(all_failures(sim), 0);
    sim_destroy(&sim);
}

static void both_halves_of_a_partition_know_it_and_heal(void **state)
{
    struct sim *sim = sim_create(5, the_seed(), 0);

    (void)state;
    run_for(sim, 10000);
    for (unsigned i = 0; i < 5; i++)
        for (unsigned j = 0; j < 5; j++)
            sim->cut[i][j] = (i < 2) != (j < 2);
    run_for(sim, 5000);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(probe_health(sim->cores[i]), i < 2 ? PROBE_BAD : PROBE_DEGRADED);
        for (unsigned j = 0; j < 5; j++) {
            if (i != j)
                assert_int_equal(sim->view[i][j], (i < 2) == (j < 2) ? PROBE_ALIVE : PROBE_FAILED);
        }
    }
    memset(sim->cut, 0, sizeof sim->cut);
    run_for(sim, 1000 + sim->delay_ms * 2);
    assert_views(sim, 5, PROBE_ALIVE);
    sim_destroy(&sim);
}

static void a_slow_network_is_no_dead_one(void **state)
{
    struct sim *sim = sim_create(5, the_seed(), 10);

    (void)state;
    sim->delay_ms = 800; /* round trips of up to 1.6 s */
    run_for(sim, HOUR_MS);
    assert_views(sim, 5, PROBE_ALIVE);
    assert_int_equal(all_failures(sim), 0);
    sim_destroy(&sim);
}

static void a_stopped_process_does_not_accuse_the_others_when_it_wakes(void **state)
{
    (void)state;
    for (unsigned run = 0; run < 20; run++) {
        struct sim *sim = sim_create(5, the_seed() + run, 0);

        sim->delay_ms = 200; /* something is always awaited when it stops */
        run_for(sim, 10000 + run * 53);
        sim->down[2] = true; /* messages to it are lost, as a full queue's are */
        run_for(sim, 60000);
        assert_views(sim, 2, PROBE_FAILED);
        sim->down[2] = false;
        run_for(sim, SETTLE_MS);
        assert_views(sim, 5, PROBE_ALIVE);
        for (unsigned i = 0; i < 5; i++)
            assert_int_equal(sim->failures[2][i], 0);
        sim_destroy(&sim);
    }
}

static void a_wrong_clock_is_noticed_by_its_owner_and_a_right_one_left_alone(void **state)
{
    struct sim *sim = sim_create(5, the_seed(), 50);
    int64_t offset;

    (void)state;
    sim->clock_ms[3] = -90000;
    sim->clock_ms[1] = 20;
    run_for(sim, 10000);
    for (unsigned i = 0; i < 5; i++) {
        assert_true(probe_clock_offset(sim->cores[i], &offset));
        if (i == 3)
            assert_in_range(offset, 90000 - 10, 90000 + 30);
        else
            assert_in_range(offset + 1000, 1000 - 30, 1000 + 30);
    }
    sim_destroy(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thirty_two_nodes_cost_less_than_20_kib_a_second_each),
        cmocka_unit_test(a_crash_is_known_to_all_within_five_seconds),
        cmocka_unit_test(nobody_fails_falsely_at_five_percent_loss),
        cmocka_unit_test(a_node_that_is_cut_off_doubts_itself_and_comes_back),
        cmocka_unit_test(two_that_lost_each_other_alone_are_alive_through_a_third),
        cmocka_unit_test(both_halves_of_a_partition_know_it_and_heal),
        cmocka_unit_test(a_slow_network_is_no_dead_one),
        cmocka_unit_test(a_stopped_process_does_not_accuse_the_others_when_it_wakes),
        cmocka_unit_test(a_wrong_clock_is_noticed_by_its_owner_and_a_right_one_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
