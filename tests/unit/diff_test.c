/* Goal: the first objects that two members say different things of are found, whatever the
 * difference, in the order of ids, no more than asked for, and none that are equal by the time they
 * are shown; ranges of rows sum up alike whichever way they are cut; the feature level is the
 * highest journaled one, and what this build does not know outlives compaction and restarts. */
#include "tests/unit/journal_fixture.h"

#include "cluster/cluster_internal.h"
#include "cluster/diff.h"
#include "journal/db_cluster.h"
#include "journal/pack.h"
#include "journal/row_json.h"

#define STRETCH 4096

struct world {
    struct node *a, *b;
    struct cluster cluster; /* of A; its questions go to B's database */
    unsigned questions;
    bool silent, lies;
    unsigned found[64], count;
    char text_a[64][512], text_b[64][512];
};

static struct world *world;

static struct id128 id_of_b(void)
{
    return (struct id128){{0xbb}};
}

/* B's answer, as cluster_inquiry.c gives it. */
int cluster_ask(struct cluster *cluster, const struct id128 *node, struct wire_message *question,
                struct cluster_answer *answer)
{
    const struct wire_inquiry *in = &question->inquiry;
    struct db_range range = {{{0}}, false, 0, {0}};
    const struct id128 b = id_of_b();
    struct db_reader *reader;
    int rc;

    assert_true(id_equal(node, &b) && cluster == &world->cluster);
    if (world->silent)
        return ERR_TIMEOUT;
    world->questions++;
    assert_int_equal(journal_reader_open(world->b->journal, &reader), 0);
    buf_reset(&answer->data);
    if (question->type == WIRE_RANGE_ASK) {
        rc = db_reader_range(reader, &in->id, &in->until, in->rows, in->list ? &answer->data : NULL,
                             &range);
        answer->yes = range.complete;
        answer->last = world->lies ? in->id : range.last;
        answer->count = range.count;
        answer->sum = range.sum;
    } else {
        rc = row_json_read(&answer->data, reader, &in->id);
    }
    db_reader_close(&reader);
    return rc;
}

static int prepare(void **state)
{
    void *a = NULL, *b = NULL;

    world = calloc(1, sizeof *world);
    assert_int_equal(setup(&a), 0);
    assert_int_equal(setup(&b), 0);
    world->a = a;
    world->b = b;
    node_open(world->a, false);
    node_open(world->b, false);
    world->cluster.journal = world->a->journal;
    world->cluster.self = journal_node(world->a->journal);
    *state = world;
    return 0;
}

static int clean_up(void **state)
{
    void *a = world->a, *b = world->b;

    (void)state;
    node_close(world->a, true);
    node_close(world->b, true);
    int rc = teardown(&a) | teardown(&b);
    free(world);
    return rc;
}

static void apply(struct node *node)
{
    while (journal_apply_step(node->journal))
        ;
}

static int append(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    struct buf *out = arg;
    uint32_t length = (uint32_t)len;

    (void)seq;
    buf_add(out, &length, sizeof length);
    buf_add(out, raw, len);
    return buf_check(out);
}

/* All that FROM has, to TO. */
static void give(struct node *to, struct node *from)
{
    struct change change = {.request.kind = CHANGE_PEER, .done = done};
    struct db_origin *origins;
    struct db_reader *reader;
    struct buf events;
    size_t count;

    apply(from);
    buf_init(&events, 0);
    assert_int_equal(journal_reader_open(from->journal, &reader), 0);
    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(db_each_event(reader, origins[i].no, 1, append, &events), 0);
    free(origins);
    db_reader_close(&reader);
    change.events = (const uint8_t *)events.data;
    change.events_bytes = events.len;
    assert_int_equal(journal_submit(to->journal, &change), 0);
    for (unsigned taken = 0; taken == 0;)
        taken = journal_commit_step(to->journal);
    assert_int_equal(change.rc, 0);
    apply(to);
    buf_release(&events);
}

static void rename_to(struct node *node, unsigned n, const char *name)
{
    struct change change = {.request = {.kind = CHANGE_META,
                                        .id = make_id(n),
                                        .fields = EVENT_HAS_NAME,
                                        .name = {name, (uint32_t)strlen(name)}},
                            .done = done};

    assert_int_equal(commit(node, &change), 0);
}

static int show(void *arg, const struct id128 *id, struct text a, struct text b)
{
    (void)arg;
    assert_true(world->count < 64 && a.len < 512 && b.len < 512);
    world->found[world->count] =
        (unsigned)id->bytes[13] << 16 | (unsigned)id->bytes[14] << 8 | id->bytes[15];
    if (a.len)
        memcpy(world->text_a[world->count], a.ptr, a.len);
    if (b.len)
        memcpy(world->text_b[world->count], b.ptr, b.len);
    world->count++;
    return 0;
}

static struct diff_result diff(unsigned max)
{
    struct id128 a = journal_node(world->a->journal), b = id_of_b();
    struct diff_result result;

    world->count = world->questions = 0;
    memset(world->text_a, 0, sizeof world->text_a);
    memset(world->text_b, 0, sizeof world->text_b);
    assert_int_equal(cluster_diff(&world->cluster, &a, &b, max, show, NULL, &result, NULL), 0);
    assert_int_equal(result.found, world->count);
    return result;
}

static void differences_are_found_in_order(void **state)
{
    (void)state;
    for (unsigned n = 10; n < 110; n++)
        assert_int_equal(put(world->a, n, 50), 0);
    give(world->b, world->a);
    struct diff_result result = diff(10);
    assert_int_equal(result.found, 0);
    assert_int_equal(result.compared, 100);
    assert_false(result.more);
    assert_int_equal(world->questions, 1);

    assert_int_equal(put(world->a, 5, 50), 0);   /* before all that B has */
    assert_int_equal(put(world->b, 200, 50), 0); /* behind all that A has */
    assert_int_equal(delete (world->a, 40), 0);
    rename_to(world->b, 60, "another");
    apply(world->a);
    apply(world->b);
    result = diff(10);
    assert_int_equal(result.found, 4);
    assert_false(result.more);
    static const unsigned expected[] = {5, 40, 60, 200};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(world->found[i], expected[i]);
    assert_string_equal(world->text_b[0], "");
    assert_string_equal(world->text_a[3], "");
    assert_non_null(strstr(world->text_a[1], "\"deleted_at\""));
    assert_null(strstr(world->text_b[1], "\"deleted_at\""));
    assert_non_null(strstr(world->text_a[2], "\"name\":\"a.txt\""));
    assert_non_null(strstr(world->text_b[2], "\"name\":\"another\""));

    result = diff(2);
    assert_int_equal(result.found, 2);
    assert_true(result.more);
    assert_int_equal(world->found[1], 40);
}

static void nothing_against_something(void **state)
{
    (void)state;
    assert_int_equal(diff(10).found, 0);
    for (unsigned n = 0; n < 3; n++)
        assert_int_equal(put(world->b, n, 10), 0);
    apply(world->b);
    assert_int_equal(diff(10).found, 3); /* id 0 is that of a time, not all zero */
    give(world->a, world->b);
    assert_int_equal(diff(10).found, 0);
}

/* More than one stretch: a question for each, and lists only where they differ. */
static void many_objects_cost_few_questions(void **state)
{
    unsigned count = 3 * STRETCH + 100;

    (void)state;
    for (unsigned n = 0; n < count; n++)
        assert_int_equal(put(world->a, n, 1), 0);
    give(world->b, world->a);
    struct diff_result result = diff(10);
    assert_int_equal(result.compared, count);
    assert_int_equal(world->questions, 4);
    rename_to(world->b, 2 * STRETCH + 17, "x");
    apply(world->b);
    result = diff(10);
    assert_int_equal(result.found, 1);
    assert_int_equal(world->found[0], 2 * STRETCH + 17);
    assert_true(world->questions <= 6 + 1); /* and one list, and the row */
}

static void a_member_that_fails_is_named(void **state)
{
    struct id128 a = journal_node(world->a->journal), b = id_of_b(), failed = {{0}};
    struct diff_result result;

    (void)state;
    assert_int_equal(put(world->a, 1, 10), 0);
    apply(world->a);
    world->silent = true;
    assert_int_equal(cluster_diff(&world->cluster, &a, &b, 5, show, NULL, &result, &failed),
                     ERR_TIMEOUT);
    assert_true(id_equal(&failed, &b));
    /* Nor does one that never gets on hold it up for ever. */
    world->silent = false;
    world->lies = true;
    assert_int_equal(cluster_diff(&world->cluster, &b, &a, 5, show, NULL, &result, &failed),
                     ERR_INVALID);
}

/* ---- Ranges ---- */

static void ranges_sum_up_however_they_are_cut(void **state)
{
    static const struct id128 none,
        all = {{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}};
    struct db_range whole, part;
    struct db_reader *reader;
    struct db_state db;

    (void)state;
    for (unsigned n = 0; n < 64; n++) /* most of them under a key that another id has */
        assert_int_equal(put(world->a, n, 10), 0);
    assert_int_equal(delete (world->a, 7), 0);
    apply(world->a);
    assert_int_equal(journal_reader_open(world->a->journal, &reader), 0);
    assert_int_equal(db_reader_range(reader, &none, &all, 1000, NULL, &whole), 0);
    assert_true(whole.complete && id_equal(&whole.last, &all));
    assert_int_equal(whole.count, 64);
    assert_int_equal(db_reader_state(reader, &db), 0);
    assert_true(hash128_equal(&whole.sum, &db.digest));
    for (unsigned rows = 1; rows < 70; rows += 9) {
        struct id128 after = none;
        struct hash128 sum = {0};
        uint64_t count = 0;

        do {
            assert_int_equal(db_reader_range(reader, &after, &all, rows, NULL, &part), 0);
            assert_true(part.complete || part.count == rows);
            sum.low += part.sum.low;
            sum.high += part.sum.high;
            count += part.count;
            after = part.last;
        } while (!part.complete);
        assert_int_equal(count, 64);
        assert_true(hash128_equal(&sum, &whole.sum));
    }
    struct id128 until = make_id(9), from = make_id(4);
    assert_int_equal(db_reader_range(reader, &from, &until, 1000, NULL, &part), 0);
    assert_int_equal(part.count, 5); /* above the first, up to the last */
    db_reader_close(&reader);
}

/* ---- The feature level ---- */

static void raise(struct node *node, uint32_t level)
{
    const struct event event = {
        .kind = EVENT_FEATURE, .fields = EVENT_HAS_FEATURE, .feature = level};
    struct change change = {.request.kind = CHANGE_FACT, .fact = &event, .done = done};

    assert_int_equal(commit(node, &change), 0);
    apply(node);
}

static uint32_t level_of(struct node *node)
{
    struct db_reader *reader;
    uint32_t level;

    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(db_reader_feature(reader, &level), 0);
    db_reader_close(&reader);
    return level;
}

static void the_level_is_the_highest_journaled(void **state)
{
    (void)state;
    assert_int_equal(level_of(world->a), 1);
    raise(world->a, 4);
    raise(world->b, 3);
    assert_int_equal(level_of(world->a), 4);
    give(world->b, world->a);
    give(world->a, world->b);
    assert_int_equal(level_of(world->a), 4);
    assert_int_equal(level_of(world->b), 4);
    node_close(world->b, false);
    node_open(world->b, false);
    assert_int_equal(level_of(world->b), 4);
}

/* An event of kind 77, the first of a run of another node. */
static void give_unknown(struct node *node)
{
    static const uint8_t none[SHA256_BYTES], id[16] = {7};
    struct change change = {.request.kind = CHANGE_PEER, .done = done};
    struct buf event, events;

    buf_init(&event, 0);
    buf_init(&events, 0);
    pack_array(&event, 9);
    pack_uint(&event, 1);
    pack_bin(&event, id, 16);
    pack_uint(&event, 1);
    pack_bin(&event, id, 16);
    pack_uint(&event, UINT64_C(1763700000000) << 16);
    pack_uint(&event, 77);
    pack_bin(&event, none, 16);
    pack_bin(&event, none, 32);
    pack_map(&event, 1);
    pack_str(&event, "new", 3);
    pack_uint(&event, 5);
    assert_int_equal(append(&events, 1, (const uint8_t *)event.data, event.len), 0);
    change.events = (const uint8_t *)events.data;
    change.events_bytes = events.len;
    assert_int_equal(commit(node, &change), 0);
    buf_release(&event);
    buf_release(&events);
}

static int count_unknown(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    struct event event;

    (void)seq;
    assert_int_equal(event_decode(&event, raw, len), 0);
    *(unsigned *)arg += event.kind == 77;
    return 0;
}

static unsigned unknown_of(struct node *node)
{
    struct db_origin *origins;
    struct db_reader *reader;
    unsigned found = 0;
    size_t count;

    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(db_each_event(reader, origins[i].no, 1, count_unknown, &found), 0);
    free(origins);
    db_reader_close(&reader);
    return found;
}

static void what_is_not_known_is_kept_and_counts_nowhere(void **state)
{
    struct journal_compact_result compacted;
    struct journal_stats before, after;

    (void)state;
    assert_int_equal(event_feature(77), UINT32_MAX);
    assert_int_equal(event_feature(EVENT_FEATURE), 1);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(put(world->a, n, 10), 0);
    apply(world->a);
    journal_stats(world->a->journal, &before);
    give_unknown(world->a);
    apply(world->a);
    journal_stats(world->a->journal, &after);
    assert_int_equal(after.events, before.events + 1);
    assert_true(hash128_equal(&after.digest, &before.digest));
    give(world->b, world->a); /* it is given on */
    assert_int_equal(unknown_of(world->b), 1);
    assert_int_equal(journal_compact(world->a->journal, &compacted), 0);
    assert_true(compacted.events >= 20);
    assert_int_equal(unknown_of(world->a), 1);
    node_close(world->a, false);
    node_open(world->a, false);
    assert_int_equal(unknown_of(world->a), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(differences_are_found_in_order, prepare, clean_up),
        cmocka_unit_test_setup_teardown(nothing_against_something, prepare, clean_up),
        cmocka_unit_test_setup_teardown(many_objects_cost_few_questions, prepare, clean_up),
        cmocka_unit_test_setup_teardown(a_member_that_fails_is_named, prepare, clean_up),
        cmocka_unit_test_setup_teardown(ranges_sum_up_however_they_are_cut, prepare, clean_up),
        cmocka_unit_test_setup_teardown(the_level_is_the_highest_journaled, prepare, clean_up),
        cmocka_unit_test_setup_teardown(what_is_not_known_is_kept_and_counts_nowhere, prepare,
                                        clean_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
