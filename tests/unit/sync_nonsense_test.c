/* Goal: nothing that a peer or the caller can say, in whatever order, breaks a node or makes it
 * hold more than its limits. */
#include "tests/unit/sync_fixture.h"

static void what_cannot_be_is_refused(void **state)
{
    struct sync_input input = {.kind = SYNC_LOCAL};

    (void)state;
    begin();
    assert_int_equal(step(input), ERR_INVALID);
    input.local.run.seq = WIRE_SEQ_MAX + 1;
    assert_int_equal(step(input), ERR_INVALID);
    peer(ME, true); /* not a peer */
    summary(ME, other);
    tick(60000);
    assert_silent();
    for (uint64_t i = 0; i < LIMIT_MEMBERS; i++)
        peer(100 + i, true);
    input = (struct sync_input){.kind = SYNC_PEER, .peer = {id(99), true}};
    assert_int_equal(step(input), ERR_FULL);
    peer(100, false);
    assert_int_equal(step(input), 0);
}

static void more_runs_than_the_limit_are_refused(void **state)
{
    struct sync_config config = {.self = id(ME), .seed = 1, .run_limit = 2};
    struct sync_input input = {.kind = SYNC_LOCAL};

    (void)state;
    begin();
    sync_destroy(&core);
    assert_int_equal(sync_create(&core, &config), 0);
    run(10, 1);
    run(20, 1);
    input.local.run = (struct vector_run){.origin = id(30), .seq = 1};
    assert_int_equal(step(input), ERR_FULL);
    peer(B, true);
    events(B, 0, 30, 1, 1);
    assert_int_equal(count_of(SYNC_COMMIT), 0);
    events(B, 0, 20, 2, 1);
    assert_committed(20, 2, 1);
}

static uint64_t dice;

static uint64_t roll(uint64_t below)
{
    dice = dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (dice >> 33) % below;
}

/* Sessions that exist, in either direction, and some that do not. */
static uint64_t sessions[8];

static uint64_t any_session(void)
{
    return roll(4) ? sessions[roll(8)] : roll(3);
}

static void any_message(uint64_t from)
{
    struct wire_message m = {.type = WIRE_SYNC_ASK + roll(6)};
    uint64_t first = roll(20) ? 1 + roll(30) : WIRE_SEQ_MAX - roll(3);
    uint32_t count = 1 + (uint32_t)roll(20);
    static const uint64_t known[3] = {3, 0, 9};

    if (first + count - 1 > WIRE_SEQ_MAX)
        count = 1;
    switch (m.type) {
    case WIRE_SYNC_ASK:
        (void)ask_me(from, 1 + roll(5), roll(5000), known, roll(4));
        return;
    case WIRE_SYNC_VECTOR:
        m = page_of(any_session(), (uint32_t)roll(3), roll(2), 10 * roll(5), 10 * roll(20));
        (void)message(from, m);
        return;
    case WIRE_SYNC_EVENTS:
        events(from, any_session(), roll(10) ? 10 * (1 + roll(6)) : 500, first, count);
        return;
    default:
        flow(from, m.type, any_session(), roll(3) ? roll(100000) : UINT64_MAX,
             (enum wire_end)roll(7));
    }
}

/* What the core asked its caller for, and was not given yet. */
static struct sync_output owed[64];
static size_t owed_count;

static void note_said(void)
{
    for (size_t i = 0; i < said_count; i++) {
        if (said[i].kind == SYNC_SEND && said[i].send.message.type == WIRE_SYNC_ASK)
            sessions[roll(4)] = said[i].send.message.sync_ask.session;
        if (said[i].kind == SYNC_READ || said[i].kind == SYNC_COMMIT)
            owed[owed_count < 64 ? owed_count++ : roll(64)] = said[i];
    }
}

static void answer_one(void)
{
    static const int codes[] = {0, 0, 0, 0, ERR_CONFLICT, ERR_AGAIN, ERR_FULL, ERR_NOT_FOUND};
    struct sync_output one;
    int rc = codes[roll(8)];

    if (!owed_count)
        return;
    one = owed[roll(owed_count)]; /* perhaps not for the last time */
    if (one.kind == SYNC_COMMIT) {
        committed(&one.commit, rc);
        note_said();
        if (rc == 0)
            local((struct vector_run){.origin = one.commit.origin,
                                      .seq = one.commit.first + one.commit.count - 1},
                  false);
    } else {
        read_done(&one.read, 1 + (uint32_t)roll(5), rc == ERR_CONFLICT ? ERR_IO : rc);
    }
}

static void any_input(void)
{
    uint64_t node = B + roll(12);

    now += roll(20) ? roll(50) : roll(20000);
    switch (roll(16)) {
    case 0:
        peer(node, roll(4));
        break;
    case 1:
        summary(node, roll(3) ? other : ours());
        break;
    case 2:
        own(1 + roll(100));
        break;
    case 3:
        local((struct vector_run){.origin = id(10 * (1 + roll(8))),
                                  .seq = 1 + roll(30),
                                  .anchor_seq = roll(10) ? 0 : roll(10),
                                  .ended = !roll(10),
                                  .frozen = !roll(50)},
              false);
        break;
    case 4:
        tick(0);
        break;
    case 5:
    case 6:
    case 7:
        answer_one();
        break;
    default:
        any_message(node);
    }
    note_said();
}

static void nonsense_in_any_order_breaks_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        dice = seed;
        begin();
        memset(sessions, 0, sizeof sessions);
        for (uint64_t i = 4; i < 8; i++)
            sessions[i] = i - 3; /* as asked in any_message */
        owed_count = 0;
        for (int i = 0; i < 3000; i++)
            any_input();
        for (uint64_t node = B; node < B + 12; node++)
            peer(node, false);
        for (int i = 0; i < 4; i++)
            tick(SYNC_DEADLINE_MS); /* whatever was owed and never came */
        assert_int_equal(sync_busy(core), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(more_runs_than_the_limit_are_refused),
        cmocka_unit_test(nonsense_in_any_order_breaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
