/* Goal: a run that contradicts itself is frozen, by a fact that lasts and that all nodes come to
 * share; what was taken of it stays; whoever wrote it goes on under a fresh run and says again what
 * others may lack, so that nothing acknowledged is lost; and a node that others say holds bytes
 * that it does not have says so. */
#include "tests/unit/journal_fixture.h"

#include "journal/db_freeze.h"

#define NODES 3

struct group {
    struct node *at[NODES];
};

static int setup_group(void **state)
{
    struct group *group = calloc(1, sizeof *group);
    int rc = 0;

    *state = group;
    for (int i = 0; i < NODES; i++)
        rc |= setup((void **)&group->at[i]);
    return rc;
}

static int teardown_group(void **state)
{
    struct group *group = *state;
    int rc = 0;

    for (int i = 0; i < NODES; i++)
        rc |= teardown((void **)&group->at[i]);
    free(group);
    return rc;
}

static void apply(struct node *node)
{
    while (journal_apply_step(node->journal))
        ;
}

/* Janitor, committer and applier, until nothing is left to be journaled again. */
static void work(struct node *node)
{
    for (int i = 0; i < 50; i++) {
        (void)journal_upkeep_step(node->journal);
        while (journal_commit_step(node->journal) || journal_apply_step(node->journal))
            ;
    }
}

static int append_event(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    uint32_t length = (uint32_t)len;

    (void)seq;
    buf_add(arg, &length, sizeof length);
    buf_add(arg, raw, len);
    return 0;
}

static struct db_reader *reader_of(struct node *node)
{
    struct db_reader *reader;

    apply(node);
    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    return reader;
}

static int give(struct node *node, const void *events, size_t len)
{
    struct change change = {
        .request.kind = CHANGE_PEER, .events = events, .events_bytes = len, .done = done};
    unsigned taken = 0;

    assert_int_equal(journal_submit(node->journal, &change), 0);
    for (int i = 0; taken == 0 && i < 100; i++)
        taken = journal_commit_step(node->journal);
    assert_int_equal(taken, 1);
    return change.rc;
}

static bool knows_frozen(struct node *node, const struct id128 *origin)
{
    struct db_reader *reader = reader_of(node);
    struct db_frozen *rows;
    bool found = false;
    size_t count;

    assert_int_equal(db_reader_frozen(reader, &rows, &count), 0);
    for (size_t i = 0; i < count; i++)
        found |= id_equal(&rows[i].origin, origin);
    free(rows);
    db_reader_close(&reader);
    return found;
}

/* As sync does it: run by run, what TO lacks, of runs that neither side knows to be frozen. How
 * many runs were refused. */
static unsigned sync_to(struct node *to, struct node *from)
{
    struct db_reader *reader = reader_of(from);
    struct db_origin *origins;
    unsigned refused = 0;
    size_t count;

    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    for (size_t i = 0; i < count; i++) {
        struct buf events;

        if (origins[i].frozen || knows_frozen(to, &origins[i].origin))
            continue;
        buf_init(&events, 0);
        assert_int_equal(db_each_event(reader, origins[i].no, 1, append_event, &events), 0);
        if (events.len)
            refused += give(to, events.data, events.len) == ERR_CONFLICT;
        buf_release(&events);
    }
    free(origins);
    db_reader_close(&reader);
    apply(to);
    return refused;
}

/* Everybody with everybody, and what that sets going, until nothing is new. */
static void mingle(struct node *const *nodes, int count)
{
    for (int round = 0; round < 4; round++)
        for (int a = 0; a < count; a++)
            for (int b = 0; b < count; b++) {
                if (a != b)
                    (void)sync_to(nodes[a], nodes[b]);
                work(nodes[a]);
            }
}

static bool equal(struct node *a, struct node *b)
{
    struct hash128 x = digest_of(a), y = digest_of(b);

    return x.low == y.low && x.high == y.high;
}

static struct id128 run_of(struct node *node)
{
    struct journal_stats stats;

    journal_stats(node->journal, &stats);
    return stats.origin;
}

/* Body SEED of SIZE bytes under id N. */
static int put_as(struct node *node, unsigned n, unsigned seed, size_t size)
{
    static uint8_t body[LIMIT_INLINE_BODY_BYTES];
    struct change change;

    make_body(body, size, seed);
    prepare_put(&change, n, body, size);
    change.request.level = 2;
    return commit(node, &change);
}

static int rename_to(struct node *node, unsigned n, const char *name)
{
    struct change change = {.request = {.kind = CHANGE_META,
                                        .id = make_id(n),
                                        .fields = EVENT_HAS_NAME,
                                        .name = {name, (uint32_t)strlen(name)}},
                            .done = done};

    return commit(node, &change);
}

static void expect_name(struct node *node, unsigned n, const char *name)
{
    struct object *object;

    assert_int_equal(find(node, n, &object), 0);
    assert_int_equal(object_name(object).len, strlen(name));
    assert_memory_equal(object_name(object).ptr, name, strlen(name));
    object_destroy(&object);
}

/* NODE becomes, on its disk, what OF is now. */
static void copy_disk(struct node *node, const struct node *of)
{
    shell("rm -rf '%s' && cp -a '%s' '%s'", node->root, of->root, node->root);
}

/* A machine was copied while it ran: TWIN goes on as the process OF, under its run. */
static void copy_running(struct node *twin, struct node *of)
{
    apply(of);
    applier_checkpoint(of->journal);
    copy_disk(twin, of);
    node_open(twin, false);
    assert_int_equal(twin->journal->committer.chain.seq, 0);
    twin->journal->committer.chain = of->journal->committer.chain;
    twin->journal->run = of->journal->run;
}

static struct buf events_of(struct node *node, const struct id128 *origin, uint64_t from)
{
    struct db_reader *reader = reader_of(node);
    struct db_origin *origins;
    struct buf events;
    size_t count;

    buf_init(&events, 0);
    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    for (size_t i = 0; i < count; i++)
        if (id_equal(&origins[i].origin, origin))
            assert_int_equal(db_each_event(reader, origins[i].no, from, append_event, &events), 0);
    free(origins);
    db_reader_close(&reader);
    return events;
}

static struct db_frozen frozen_row(struct node *node)
{
    struct db_reader *reader = reader_of(node);
    struct db_frozen *rows, row;
    size_t count;

    assert_int_equal(db_reader_frozen(reader, &rows, &count), 0);
    assert_int_equal(count, 1);
    row = rows[0];
    free(rows);
    db_reader_close(&reader);
    return row;
}

/* ---- The rule ---- */

static void a_head_tells_what_continues_it(void **state)
{
    struct heads heads = {0};
    struct id128 origin = {{7}};
    uint8_t one[SHA256_BYTES], none[SHA256_BYTES] = {0};
    struct head *head;

    (void)state;
    sha256("one", 3, one);
    head = heads_get(&heads, &origin);
    assert_non_null(head);
    assert_int_equal(heads_judge(head, 1, none, "one", 3), 0);
    assert_int_equal(heads_judge(head, 1, one, "one", 3), ERR_CONFLICT);
    assert_int_equal(heads_judge(head, 2, one, "two", 3), ERR_AGAIN);
    heads_begin(&heads);
    heads_set(&heads, head, 1, one);
    assert_int_equal(heads_judge(head, 1, none, "one", 3), ERR_EXISTS);
    assert_int_equal(heads_judge(head, 1, none, "eins", 4), ERR_CONFLICT);
    assert_int_equal(heads_judge(head, 2, one, "two", 3), 0);
    assert_int_equal(heads_judge(head, 2, none, "two", 3), ERR_CONFLICT);

    /* A batch that failed takes a freeze back, and nothing of the batches before. */
    heads_begin(&heads);
    heads_set(&heads, head, 2, none);
    heads_freeze(&heads, head);
    assert_int_equal(heads_judge(head, 1, none, "one", 3), ERR_RANGE);
    heads_undo(&heads);
    assert_false(head->frozen);
    assert_int_equal(head->seq, 1);
    heads_freeze(&heads, head);
    heads_begin(&heads);
    heads_undo(&heads);
    assert_true(head->frozen);
    heads_release(&heads);
}

static void what_is_said_again_follows_from_where_it_broke(void **state)
{
    struct event event = {.kind = EVENT_PUT, .seq = 4};

    (void)state;
    assert_true(restate_concerns(&event, 4));
    assert_false(restate_concerns(&event, 5));
    event.kind = EVENT_MEMBER;
    assert_true(restate_concerns(&event, 5));
    event.kind = EVENT_FREEZE;
    assert_true(restate_concerns(&event, 5));
    event.kind = 4711;
    assert_false(restate_concerns(&event, 1));
}

/* ---- A third node sees two versions of one run ---- */

static void two_versions_of_a_run_freeze_it(void **state)
{
    struct group *group = *state;
    struct node *a = group->at[0], *twin = group->at[1], *c = group->at[2];
    struct object *object;

    node_open(a, false);
    node_open(c, false);
    assert_int_equal(put_as(a, 1, 1, 50), 0);
    assert_int_equal(put_as(a, 2, 2, 50), 0);
    struct id128 run = run_of(a);

    copy_running(twin, a);
    assert_int_equal(put_as(a, 3, 3, 50), 0);
    assert_int_equal(put_as(twin, 4, 4, 50), 0);
    assert_int_equal(put_as(twin, 5, 5, 50), 0);

    assert_int_equal(sync_to(c, a), 0);
    struct buf other = events_of(twin, &run, 3);
    assert_int_equal(give(c, other.data, other.len), ERR_CONFLICT);
    assert_true(knows_frozen(c, &run));
    struct db_frozen frozen = frozen_row(c);
    assert_int_equal(frozen.seq, 3); /* it had the third itself, and could compare */
    struct id128 node = journal_node(a->journal);
    assert_true(id_equal(&frozen.node, &node));

    /* What it had taken stays; nothing more is taken, not even of the version that it has. */
    assert_int_equal(find(c, 3, &object), 0);
    object_destroy(&object);
    assert_int_equal(find(c, 4, &object), ERR_NOT_FOUND);
    assert_int_equal(put_as(a, 6, 6, 50), 0);
    struct buf more = events_of(a, &run, 4);
    struct journal_stats before, after;
    journal_stats(c->journal, &before);
    assert_int_equal(give(c, more.data, more.len), ERR_CONFLICT);
    assert_int_equal(give(c, other.data, other.len), ERR_CONFLICT);
    journal_stats(c->journal, &after);
    assert_int_equal(before.seq, after.seq); /* … and it is journaled once */
    assert_int_equal(after.frozen_runs, 1);
    expect_sound(c, NULL);

    /* It lasts: a kill, a rebuild. */
    uint64_t events, objects;
    node_close(c, false);
    node_open(c, false);
    assert_true(knows_frozen(c, &run));
    journal_stats(c->journal, &after);
    assert_int_equal(after.frozen_runs, 1);
    assert_int_equal(give(c, more.data, more.len), ERR_CONFLICT);
    node_close(c, true);
    assert_int_equal(store_dirs_open(&c->dirs, &c->env, c->state, c->files, false, c->message,
                                     sizeof c->message),
                     0);
    assert_int_equal(journal_rebuild(&c->dirs, &events, &objects, c->message, sizeof c->message),
                     0);
    store_dirs_close(&c->dirs);
    node_open(c, false);
    assert_true(knows_frozen(c, &run));
    assert_int_equal(give(c, more.data, more.len), ERR_CONFLICT);
    expect_sound(c, NULL);
    buf_release(&other);
    buf_release(&more);
    node_close(c, true);
    node_close(twin, true);
    node_close(a, true);
}

static void a_freeze_outlives_compaction(void **state)
{
    struct group *group = *state;
    struct node *a = group->at[0], *twin = group->at[1], *c = group->at[2];
    struct journal_compact_result result;
    uint64_t events, objects;

    node_open(a, false);
    node_open(c, false);
    assert_int_equal(put_as(a, 1, 1, 50), 0);
    struct id128 run = run_of(a);
    copy_running(twin, a);
    assert_int_equal(put_as(a, 3, 3, 50), 0);
    assert_int_equal(put_as(twin, 4, 4, 50), 0);
    assert_int_equal(sync_to(c, a), 0);
    assert_int_equal(sync_to(c, twin), 1);
    assert_true(knows_frozen(c, &run));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(put_as(c, 10 + (unsigned)i, 10, 50), 0);
        assert_int_equal(journal_compact(c->journal, &result), 0);
    }
    struct hash128 digest = digest_of(c);
    node_close(c, true);
    assert_int_equal(store_dirs_open(&c->dirs, &c->env, c->state, c->files, false, c->message,
                                     sizeof c->message),
                     0);
    assert_int_equal(journal_rebuild(&c->dirs, &events, &objects, c->message, sizeof c->message),
                     0);
    store_dirs_close(&c->dirs);
    node_open(c, false);
    assert_true(knows_frozen(c, &run));
    expect_sound(c, &digest);
    struct buf other = events_of(twin, &run, 1);
    assert_int_equal(give(c, other.data, other.len), ERR_CONFLICT);
    buf_release(&other);
    node_close(c, true);
    node_close(twin, true);
    node_close(a, true);
}

/* The batch with the freeze in it cannot be written: nothing of it has happened. */
static void a_freeze_that_is_not_written_did_not_happen(void **state)
{
    struct group *group = *state;
    struct node *a = group->at[0], *twin = group->at[1], *c = group->at[2];

    node_open(a, false);
    node_open(c, false);
    assert_int_equal(put_as(a, 1, 1, 50), 0);
    struct id128 run = run_of(a);
    copy_running(twin, a);
    assert_int_equal(put_as(a, 3, 3, 50), 0);
    assert_int_equal(put_as(twin, 4, 4, 50), 0);
    assert_int_equal(sync_to(c, a), 0);
    struct buf other = events_of(twin, &run, 2), mine = events_of(a, &run, 2);

    /* At a node that takes them, and at the one that wrote them. */
    struct node *const at[] = {c, twin};
    const struct buf *const misfit[] = {&other, &mine};
    for (int i = 0; i < 2; i++) {
        at[i]->fault.only = "/log/";
        at[i]->fault.error = ERR_NO_SPACE;
        atomic_store(&at[i]->fault.fail_write, 1);
        assert_int_equal(give(at[i], misfit[i]->data, misfit[i]->len), ERR_NO_SPACE);
        at[i]->fault.only = NULL;
        assert_false(knows_frozen(at[i], &run));
    }
    struct id128 still = run_of(twin);
    assert_int_equal(put_as(twin, 5, 5, 50), 0);
    assert_true(id_equal(&still, &run));
    expect_sound(twin, NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(give(at[i], misfit[i]->data, misfit[i]->len), ERR_CONFLICT);
        assert_true(knows_frozen(at[i], &run));
        expect_sound(at[i], NULL);
    }
    buf_release(&other);
    buf_release(&mine);
    node_close(c, true);
    node_close(twin, true);
    node_close(a, true);
}

/* A node that never got the freeze is told of it by a peer: it journals one that says no more, and
 * so takes nothing away from what others say. */
static void a_freeze_may_be_known_by_hearsay(void **state)
{
    struct group *group = *state;
    struct node *a = group->at[0], *c = group->at[1];

    node_open(a, false);
    node_open(c, false);
    assert_int_equal(put_as(a, 1, 1, 50), 0);
    struct id128 run = run_of(a), author = journal_node(a->journal);
    struct event event = {.kind = EVENT_FREEZE,
                          .fields = EVENT_HAS_FREEZE | EVENT_HAS_FOLLOWS | EVENT_HAS_RUN_NODE,
                          .subject = run,
                          .run_node = author,
                          .follows = {.origin = run, .seq = (UINT64_C(1) << 40) - 1}};
    struct journal_stats first, second;

    for (int i = 0; i < 2; i++) {
        struct change change = {.request.kind = CHANGE_FACT, .fact = &event, .done = done};

        assert_int_equal(commit(c, &change), 0);
        assert_int_equal(change.verdict, i == 0 ? VERDICT_COMMIT : VERDICT_UNCHANGED);
        apply(c);
        journal_stats(c->journal, i == 0 ? &first : &second);
    }
    assert_int_equal(first.events, second.events);
    assert_true(knows_frozen(c, &run));
    struct db_frozen row = frozen_row(c);
    assert_true(id_equal(&row.node, &author));
    assert_int_equal(sync_to(c, a), 0);
    assert_int_equal(sync_to(a, c), 0);

    /* The author hears of it: it goes on under a fresh run; what others lack comes with the rows.
     */
    assert_int_equal(put_as(a, 2, 2, 50), 0);
    struct id128 next = run_of(a);
    assert_false(id_equal(&next, &run));
    assert_int_equal(sync_to(c, a), 0);
    expect_name(c, 2, "a.txt");

    /* Whoever knows where it broke makes it be said again from there. */
    event.follows.seq = 1;
    event.origin = (struct id128){{9, 9}};
    event.node = (struct id128){{8, 8}};
    event.seq = 1;
    event.stamp = 5;
    struct buf raw, list;
    buf_init(&raw, 0);
    buf_init(&list, 0);
    event_encode(&raw, &event);
    assert_int_equal(buf_check(&raw), 0);
    assert_int_equal(append_event(&list, 1, (uint8_t *)raw.data, raw.len), 0);
    assert_int_equal(give(a, list.data, list.len), 0);
    work(a);
    assert_int_equal(give(c, list.data, list.len), 0);
    assert_int_equal(sync_to(c, a), 0);
    assert_true(equal(a, c));
    row = frozen_row(c);
    assert_int_equal(row.seq, 1);
    buf_release(&raw);
    buf_release(&list);
    expect_sound(a, NULL);
    expect_sound(c, NULL);
    node_close(c, true);
    node_close(a, true);
}

/* The clock has gone back since the run before: what it says is still the later word. */
static void a_fresh_run_is_greater_than_the_one_before(void **state)
{
    struct group *group = *state;
    struct node *a = group->at[0];

    node_open(a, false);
    struct id128 before = ulid_make(&a->env, env_wall_ms(&a->env) + 3600000);
    struct id128 next = freeze_draw_run(a->journal, &before);
    assert_true(id_compare(&next, &before) > 0);
    assert_in_range(ulid_time_ms(&next), env_wall_ms(&a->env), ulid_time_ms(&before) + 1);
    node_close(a, true);
}

/* ---- Whose run it is ---- */

static void both_halves_of_a_copied_machine_go_on_and_lose_nothing(void **state)
{
    struct group *group = *state;
    struct node *a = group->at[0], *twin = group->at[1], *c = group->at[2];

    node_open(a, false);
    node_open(c, false);
    assert_int_equal(put_as(a, 1, 1, 50), 0);
    assert_int_equal(put_as(a, 2, 2, 50), 0);
    struct id128 run = run_of(a);
    assert_int_equal(sync_to(c, a), 0);
    copy_running(twin, a);
    assert_int_equal(put_as(a, 3, 3, 50), 0);
    assert_int_equal(rename_to(a, 1, "of a"), 0);
    assert_int_equal(delete (a, 2), 0);
    assert_int_equal(put_as(twin, 4, 4, 50), 0);
    assert_int_equal(put_as(twin, 5, 5, 50), 0);
    assert_int_equal(delete (twin, 5), 0);
    /* What C renames later is later, whatever is journaled again after it. */
    assert_int_equal(sync_to(c, a), 0);
    assert_int_equal(rename_to(c, 3, "of c"), 0);

    mingle(group->at, NODES);
    for (int i = 0; i < NODES; i++) {
        struct node *node = group->at[i];

        assert_true(knows_frozen(node, &run));
        expect_name(node, 1, "of a");
        expect_name(node, 3, "of c");
        expect_name(node, 4, "a.txt");
        expect_deleted(node, 2);
        expect_deleted(node, 5);
        assert_true(equal(node, c));
        expect_sound(node, NULL);
    }
    expect_body(a, 3, 50);
    expect_body(twin, 4, 50);
    struct id128 one = run_of(a), two = run_of(twin);
    assert_false(id_equal(&one, &run));
    assert_false(id_equal(&two, &run));
    assert_false(id_equal(&one, &two));
    assert_true(id_compare(&one, &run) > 0 && id_compare(&two, &run) > 0);

    /* Nothing is said a second time: not by a restart, not by another freeze that says no more. */
    struct journal_stats before, after;
    journal_stats(a->journal, &before);
    node_close(a, true);
    node_open(a, false);
    work(a);
    journal_stats(a->journal, &after);
    assert_int_equal(before.events, after.events);
    assert_true(equal(a, c));
    for (int i = 0; i < NODES; i++)
        node_close(group->at[i], true);
}

static size_t holders_of(struct node *node, unsigned n, const struct id128 *who)
{
    struct db_reader *reader = reader_of(node);
    struct id128 found[8];
    struct object *object;
    size_t count, hits = 0;

    assert_int_equal(find(node, n, &object), 0);
    assert_int_equal(db_reader_holders(reader, object, found, 8, &count), 0);
    for (size_t i = 0; i < count; i++)
        hits += id_equal(&found[i], who);
    object_destroy(&object);
    db_reader_close(&reader);
    return hits;
}

/* The process ended before it had heard of it: the next one, of the same disk, says it again. */
static void a_restarted_author_says_again_what_others_never_got(void **state)
{
    struct group *group = *state;
    struct node *a = group->at[0], *twin = group->at[1], *c = group->at[2];

    node_open(a, false);
    node_open(c, false);
    assert_int_equal(put_as(a, 1, 1, 50), 0);
    struct id128 run = run_of(a);
    copy_running(twin, a);
    assert_int_equal(put_as(a, 2, 2, 50), 0);
    assert_int_equal(sync_to(c, a), 0);
    assert_int_equal(put_as(a, 3, 3, 50), 0);
    assert_int_equal(put_as(twin, 4, 4, 50), 0);
    assert_int_equal(sync_to(c, twin), 1);
    assert_true(knows_frozen(c, &run));
    node_close(a, false);
    node_open(a, false);
    node_close(twin, true);

    (void)sync_to(a, c);
    /* A kill in the middle: what was done already is known, or done again. */
    (void)journal_upkeep_step(a->journal);
    (void)journal_commit_step(a->journal);
    node_close(a, false);
    node_open(a, false);
    struct node *const two[] = {a, c};
    mingle(two, 2);
    expect_name(c, 3, "a.txt");
    assert_true(equal(a, c));
    expect_sound(a, NULL);
    expect_sound(c, NULL);
    node_close(a, true);
    node_close(c, true);
}

/* That a copy was damaged is not said again of the one that is good since then. */
static void what_is_said_again_leaves_a_healed_copy_alone(void **state)
{
    struct group *group = *state;
    struct node *a = group->at[0], *twin = group->at[1], *c = group->at[2];
    struct change drop = {.request = {.kind = CHANGE_DROP, .id = make_id(3), .damaged = true},
                          .done = done};
    struct object *object;

    node_open(a, false);
    node_open(c, false);
    assert_int_equal(put_as(a, 1, 1, 50), 0);
    struct id128 run = run_of(a);
    copy_running(twin, a);
    assert_int_equal(put_as(a, 2, 2, 50), 0);
    assert_int_equal(sync_to(c, a), 0);
    assert_int_equal(put_as(a, 3, 3, 3000), 0);
    assert_int_equal(find(a, 3, &object), 0);
    drop.request.checked = object->place;
    object_destroy(&object);
    assert_int_equal(commit(a, &drop), 0);
    assert_int_equal(put_as(a, 3, 3, 3000), 0);
    assert_int_equal(put_as(twin, 4, 4, 50), 0);
    assert_int_equal(sync_to(c, twin), 1);
    assert_true(knows_frozen(c, &run));
    node_close(twin, true);

    struct node *const two[] = {a, c};
    mingle(two, 2);
    expect_body(a, 3, 3000);
    assert_int_equal(holders_of(c, 3, &a->journal->node), 1);
    expect_sound(a, NULL);
    node_close(a, true);
    node_close(c, true);
}

/* The batch of all that is said again fails: it is still owed, and said again later. */
static void what_could_not_be_said_again_is_still_owed(void **state)
{
    struct group *group = *state;
    struct node *a = group->at[0], *twin = group->at[1], *c = group->at[2];
    struct object *object;

    node_open(a, false);
    node_open(c, false);
    work(a);
    assert_false(journal_restates(a->journal));
    assert_int_equal(put_as(a, 1, 1, 50), 0);
    copy_running(twin, a);
    assert_int_equal(put_as(a, 2, 2, 50), 0);
    assert_int_equal(sync_to(c, a), 0);
    assert_int_equal(put_as(a, 3, 3, 50), 0);
    assert_int_equal(put_as(twin, 4, 4, 50), 0);
    assert_int_equal(sync_to(c, twin), 1);
    (void)sync_to(a, c);
    apply(a);
    assert_true(journal_restates(a->journal));
    (void)journal_upkeep_step(a->journal);
    a->fault.error = ERR_IO;
    atomic_store(&a->fault.fail_write, 1);
    assert_true(journal_restates(a->journal));
    assert_true(journal_commit_step(a->journal) > 0);
    work(a);
    assert_true(journal_restates(a->journal));
    a->later_ms += 20000;
    work(a);
    assert_false(journal_restates(a->journal));
    (void)sync_to(c, a);
    assert_int_equal(find(c, 3, &object), 0);
    object_destroy(&object);
    node_close(c, true);
    node_close(twin, true);
    node_close(a, true);
}

/* ---- What this node is said to hold ---- */

static uint64_t wanted(struct node *node)
{
    struct journal_stats stats;

    apply(node);
    journal_stats(node->journal, &stats);
    return stats.wanted;
}

static void a_restored_node_takes_back_what_it_does_not_have(void **state)
{
    struct group *group = *state;
    struct node *a = group->at[0], *c = group->at[1], *backup = group->at[2];
    struct db_reader *reader;

    node_open(a, false);
    node_open(c, false);
    assert_int_equal(put_as(a, 1, 1, 50), 0);
    node_close(a, true);
    copy_disk(backup, a);
    node_open(a, false);
    struct id128 self = journal_node(a->journal);
    for (unsigned n = 2; n < 6; n++)
        assert_int_equal(put_as(a, n, n, 50), 0);
    assert_int_equal(delete (a, 5), 0);
    assert_int_equal(sync_to(c, a), 0);
    assert_int_equal(holders_of(c, 2, &self), 1);
    node_close(a, true);
    copy_disk(a, backup);

    /* It writes, under a run that follows the one of the backup; then the rest comes back. */
    node_open(a, false);
    assert_int_equal(put_as(a, 9, 9, 50), 0);
    assert_int_equal(sync_to(a, c), 0);
    assert_int_equal(sync_to(c, a), 0);
    assert_true(equal(a, c));
    expect_deleted(a, 5);
    for (unsigned n = 2; n < 5; n++) {
        assert_int_equal(holders_of(c, n, &self), 0);
        assert_int_equal(holders_of(a, n, &self), 0);
    }
    assert_int_equal(holders_of(c, 1, &self), 1);
    assert_int_equal(holders_of(c, 9, &self), 1);
    assert_int_equal(wanted(a), 3); /* of level 2: it makes itself copies again */
    assert_int_equal(sync_to(a, c), 0);
    struct journal_stats before, after;
    journal_stats(a->journal, &before);
    assert_int_equal(sync_to(a, c), 0); /* said once */
    journal_stats(a->journal, &after);
    assert_int_equal(before.events, after.events);

    /* Nothing is frozen by that. It is a fork between runs, which verify reports. */
    struct journal_verify_result found;
    reader = reader_of(c);
    assert_int_equal(journal_verify(reader, &found), 0);
    assert_int_equal(found.breaks, 0);
    assert_int_equal(found.frozen, 0);
    assert_int_equal(found.forks, 1);
    db_reader_close(&reader);
    expect_sound(a, NULL);
    node_close(a, true);
    node_close(c, true);
}

/* A copy of its disk ran as another process of its id, and took back in its name what it lacked.
 * The node that has the bytes says so, and is counted on again; while both run, not without end. */
static void what_a_copy_took_back_is_said_again_by_who_has_it(void **state)
{
    struct group *group = *state;
    struct node *a = group->at[0], *c = group->at[1], *copy = group->at[2];

    node_open(a, false);
    node_open(c, false);
    assert_int_equal(put_as(a, 1, 1, 50), 0);
    node_close(a, true);
    copy_disk(copy, a);
    node_open(a, false);
    struct id128 self = journal_node(a->journal);
    for (unsigned n = 2; n < 5; n++)
        assert_int_equal(put_as(a, n, n, 50), 0);
    assert_int_equal(sync_to(c, a), 0);
    node_open(copy, false);
    assert_int_equal(sync_to(copy, c), 0);
    assert_int_equal(sync_to(c, copy), 0);
    for (unsigned n = 2; n < 5; n++)
        assert_int_equal(holders_of(c, n, &self), 0);

    struct committer *committer = &a->journal->committer;
    committer->hold_answers = 1000; /* as if it had said so all the time */
    committer->hold_answers_ms = env_mono_ms(a->journal->env) + 3600000;
    struct journal_stats before, after;
    journal_stats(a->journal, &before);
    assert_int_equal(sync_to(a, c), 0);
    journal_stats(a->journal, &after);
    assert_int_equal(before.events, after.events); /* not taken yet */
    assert_int_equal(holders_of(a, 2, &self), 1);
    committer->hold_answers_ms = 0; /* and that is long ago */
    assert_int_equal(sync_to(a, c), 0);
    assert_int_equal(committer->hold_answers, 1);
    assert_int_equal(sync_to(c, a), 0);
    for (unsigned n = 1; n < 5; n++) {
        assert_int_equal(holders_of(a, n, &self), 1);
        assert_int_equal(holders_of(c, n, &self), 1);
        expect_body(a, n, 50);
    }
    assert_true(equal(a, c));

    /* The copy takes it back once more, and is gone: the last word is of who has it. */
    assert_int_equal(sync_to(copy, c), 0);
    assert_int_equal(sync_to(c, copy), 0);
    node_close(copy, true);
    assert_int_equal(holders_of(c, 2, &self), 0);
    assert_int_equal(sync_to(a, c), 0);
    assert_int_equal(sync_to(c, a), 0);
    assert_int_equal(holders_of(c, 2, &self), 1);
    assert_int_equal(holders_of(c, 1, &self), 1);
    expect_sound(a, NULL);
    expect_sound(c, NULL);
    node_close(a, true);
    node_close(c, true);
}

/* ---- An own event that is lost ---- */

static void spoil_event(struct node *node, unsigned n)
{
    struct object *object;

    assert_int_equal(find(node, n, &object), 0);
    shell("printf '\\377\\377\\377\\377' | dd of='%s/log/%08x.seg' bs=1 seek=%llu conv=notrunc "
          "status=none",
          node->files, object->place.volume,
          (unsigned long long)object->place.offset + RECORD_HEADER_BYTES + 16);
    object_destroy(&object);
}

static void what_lies_behind_a_lost_event_is_said_again(void **state)
{
    struct group *group = *state;
    struct node *a = group->at[0], *c = group->at[1];
    struct object *object;

    node_open(a, false);
    node_open(c, false);
    assert_int_equal(put_as(a, 1, 1, 50), 0);
    assert_int_equal(sync_to(c, a), 0);
    struct id128 run = run_of(a);
    for (unsigned n = 2; n < 6; n++)
        assert_int_equal(put_as(a, n, n, 50), 0);
    spoil_event(a, 3);
    node_close(a, false);
    node_open(a, false);
    assert_int_equal(find(a, 3, &object), ERR_NOT_FOUND);
    expect_body(a, 4, 50);

    /* Nobody else has it: the run ends before it, for all. */
    struct db_reader *reader = reader_of(a);
    struct db_origin *origins;
    size_t count;
    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    assert_true(id_equal(&origins[0].origin, &run));
    assert_int_equal(origins[0].seq, 2);
    free(origins);
    db_reader_close(&reader);
    work(a);
    node_close(a, false); /* a restart does not say it once more */
    node_open(a, false);
    work(a);
    struct journal_stats stats;
    journal_stats(a->journal, &stats);
    assert_int_equal(stats.events, 4 + 2);
    reader = reader_of(a);
    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    for (size_t i = 0; i < count; i++) { /* what sync would give */
        struct buf events;
        uint32_t given;

        buf_init(&events, 0);
        assert_int_equal(db_reader_events(reader, &origins[i].origin, 1, 1 << 20, &events, &given),
                         0);
        assert_int_equal(given, origins[i].seq);
        assert_int_equal(give(c, events.data, events.len), 0);
        buf_release(&events);
    }
    free(origins);
    db_reader_close(&reader);
    apply(c);
    assert_true(equal(a, c));
    expect_name(c, 5, "a.txt");
    node_close(a, true);
    node_close(c, true);
}

/* Somebody has it: then it comes back, and the run goes on to its end. */
static void a_lost_event_comes_back_from_others(void **state)
{
    struct group *group = *state;
    struct node *a = group->at[0], *c = group->at[1];

    node_open(a, false);
    node_open(c, false);
    for (unsigned n = 1; n < 6; n++)
        assert_int_equal(put_as(a, n, n, 50), 0);
    struct id128 self = journal_node(a->journal);
    spoil_event(a, 3);
    /* What was sent before the disk lost it. */
    struct id128 run = run_of(a);
    struct node *clean = group->at[2];
    copy_disk(clean, a);
    struct buf events = events_of(a, &run, 1);
    assert_int_equal(give(c, events.data, events.len), 0);
    node_close(a, false);
    copy_disk(a, clean); /* as nothing was applied yet */
    node_open(a, false);
    assert_int_equal(sync_to(a, c), 0);
    expect_name(a, 3, "a.txt");
    assert_int_equal(holders_of(a, 3, &self), 0);
    assert_int_equal(holders_of(a, 4, &self), 1);
    struct journal_verify_result found;
    struct db_reader *reader = reader_of(a);
    assert_int_equal(journal_verify(reader, &found), 0);
    assert_int_equal(found.breaks, 0);
    db_reader_close(&reader);
    work(a);
    assert_int_equal(sync_to(c, a), 0);
    assert_true(equal(a, c));
    buf_release(&events);
    node_close(a, true);
    node_close(c, true);
}

/* ---- A copy becomes a node of its own ---- */

static void a_copy_gets_an_id_and_says_what_it_holds(void **state)
{
    struct group *group = *state;
    struct node *a = group->at[0], *copy = group->at[1], *c = group->at[2];
    struct id128 old, fresh;
    uint64_t events, objects;

    node_open(a, false);
    node_open(c, false);
    for (unsigned n = 0; n < 1003; n++) /* more than one event says */
        assert_int_equal(put_as(a, n, n, 1), 0);
    assert_int_equal(delete (a, 7), 0);
    old = journal_node(a->journal);
    node_close(a, true);
    copy_disk(copy, a);
    node_open(a, false);
    node_open(copy, false);
    assert_int_equal(put_as(copy, 2000, 5, 50), 0); /* under the old id */
    node_close(copy, true);

    struct journal_config config = {.dirs = &copy->dirs, .sync = true, .new_node = true};
    for (int i = 0; i < 2; i++) { /* the first time is cut short behind NODE_ID */
        assert_int_equal(store_dirs_open(&copy->dirs, &copy->env, copy->state, copy->files, false,
                                         copy->message, sizeof copy->message),
                         0);
        assert_int_equal(journal_open(&copy->journal, &config, copy->message, sizeof copy->message),
                         0);
        if (i == 0) {
            copy->journal->node = (struct id128){{1, 2, 3}};
            assert_int_equal(journal_save_node(copy->journal), 0);
        } else {
            assert_int_equal(journal_new_node(copy->journal, &fresh), 0);
            journal_stop(copy->journal);
        }
        journal_close(&copy->journal);
        store_dirs_close(&copy->dirs);
        if (i == 0)
            assert_int_equal(node_try(copy, false), ERR_WRONG_STORE);
    }
    assert_false(id_equal(&old, &fresh));
    node_open(copy, false);
    struct id128 self = journal_node(copy->journal);
    assert_true(id_equal(&self, &fresh));
    assert_int_equal(put_as(copy, 2001, 6, 50), 0);
    mingle(group->at, NODES);
    for (int i = 0; i < NODES; i++) {
        struct node *node = group->at[i];

        assert_true(equal(node, c));
        expect_sound(node, NULL);
        assert_int_equal(holders_of(node, 1002, &old), 1);
        assert_int_equal(holders_of(node, 1002, &fresh), 1);
        assert_int_equal(holders_of(node, 2000, &old), 0); /* the original says so */
        assert_int_equal(holders_of(node, 2000, &fresh), 1);
        assert_int_equal(holders_of(node, 2001, &fresh), 1);
    }
    expect_body(copy, 1, 1);

    /* A rebuild knows it, too. */
    struct hash128 digest = digest_of(copy);
    node_close(copy, true);
    assert_int_equal(store_dirs_open(&copy->dirs, &copy->env, copy->state, copy->files, false,
                                     copy->message, sizeof copy->message),
                     0);
    assert_int_equal(
        journal_rebuild(&copy->dirs, &events, &objects, copy->message, sizeof copy->message), 0);
    store_dirs_close(&copy->dirs);
    node_open(copy, false);
    expect_sound(copy, &digest);
    expect_body(copy, 1, 1);
    for (int i = 0; i < NODES; i++)
        node_close(group->at[i], true);
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, setup_group, teardown_group)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_head_tells_what_continues_it),
        cmocka_unit_test(what_is_said_again_follows_from_where_it_broke),
        test(two_versions_of_a_run_freeze_it),
        test(a_freeze_outlives_compaction),
        test(a_freeze_that_is_not_written_did_not_happen),
        test(a_freeze_may_be_known_by_hearsay),
        test(a_fresh_run_is_greater_than_the_one_before),
        test(both_halves_of_a_copied_machine_go_on_and_lose_nothing),
        test(a_restarted_author_says_again_what_others_never_got),
        test(what_is_said_again_leaves_a_healed_copy_alone),
        test(what_could_not_be_said_again_is_still_owed),
        test(a_restored_node_takes_back_what_it_does_not_have),
        test(what_a_copy_took_back_is_said_again_by_who_has_it),
        test(what_lies_behind_a_lost_event_is_said_again),
        test(a_lost_event_comes_back_from_others),
        test(a_copy_gets_an_id_and_says_what_it_holds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
