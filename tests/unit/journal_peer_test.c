/* Goal: what other nodes journaled becomes part of this one's journal as its own does: through the
 * log, in each origin's order, once, and with the same rows and digest on every node, whatever
 * fails on the way; and this node says what it holds. */
#include "tests/unit/journal_fixture.h"

#include "journal/db_peers.h"

#include <time.h>

struct pair {
    struct node *a, *b;
};

static int setup_pair(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);

    *state = pair;
    return setup((void **)&pair->a) || setup((void **)&pair->b);
}

static int teardown_pair(void **state)
{
    struct pair *pair = *state;
    int rc = teardown((void **)&pair->a) | teardown((void **)&pair->b);

    free(pair);
    return rc;
}

static int append_event(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    uint32_t length = (uint32_t)len;

    (void)seq;
    buf_add(arg, &length, sizeof length);
    buf_add(arg, raw, len);
    return 0;
}

/* Every event that NODE has applied, of runs in order. */
static struct buf all_events(struct node *node)
{
    struct db_origin *origins;
    struct db_reader *reader;
    struct buf events;
    size_t count;

    while (journal_apply_step(node->journal))
        ;
    buf_init(&events, 0);
    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(db_each_event(reader, origins[i].no, 1, append_event, &events), 0);
    free(origins);
    db_reader_close(&reader);
    assert_int_equal(buf_check(&events), 0);
    return events;
}

/* Hand EVENTS to NODE and commit them, in as many batches as it takes. */
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

static int sync_to(struct node *to, struct node *from)
{
    struct buf events = all_events(from);
    int rc = give(to, events.data, events.len);

    buf_release(&events);
    return rc;
}

static void expect_equal(struct node *a, struct node *b)
{
    struct hash128 x = digest_of(a), y = digest_of(b);

    assert_true(x.low == y.low && x.high == y.high);
}

static void expect_holders(struct node *node, unsigned n, const struct node *const *holders,
                           size_t count)
{
    struct db_reader *reader;
    struct object *object;
    struct id128 found[8];
    size_t have;

    while (journal_apply_step(node->journal))
        ;
    assert_int_equal(find(node, n, &object), 0);
    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(db_reader_holders(reader, object, found, 8, &have), 0);
    assert_int_equal(have, count);
    for (size_t i = 0; i < count; i++) {
        struct id128 id = journal_node(holders[i]->journal);

        assert_true(id_equal(&found[i], &id));
    }
    db_reader_close(&reader);
    object_destroy(&object);
}

static void nodes_that_hear_all_events_agree(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a, *b = pair->b;
    struct journal_stats stats;
    struct object *object;

    node_open(a, false);
    node_open(b, false);
    for (unsigned n = 0; n < 40; n++)
        assert_int_equal(put(n % 2 ? a : b, n, 100 + n), 0);
    assert_int_equal(delete (a, 1), 0);
    assert_int_equal(delete (b, 3), 0); /* nothing is known there of what A has put */
    assert_int_equal(sync_to(b, a), 0);
    assert_int_equal(sync_to(a, b), 0);
    assert_int_equal(sync_to(b, a), 0); /* again: nothing new */
    expect_equal(a, b);
    expect_sound(a, NULL);
    expect_sound(b, NULL);
    expect_deleted(a, 3);
    expect_deleted(b, 1);
    assert_int_equal(find(b, 5, &object), 0);
    assert_true(place_is_none(&object->place));
    assert_int_equal(object->size, 105);
    object_destroy(&object);
    journal_stats(b->journal, &stats);
    assert_int_equal(stats.events, 42);

    /* Killed, restarted and rebuilt from the log it is the same. */
    struct hash128 digest = digest_of(b);
    uint64_t events, objects;

    node_close(b, false);
    node_open(b, false);
    expect_sound(b, &digest);
    assert_int_equal(sync_to(b, a), 0);
    expect_sound(b, &digest);
    node_close(b, true);
    assert_int_equal(store_dirs_open(&b->dirs, &b->env, b->state, b->files, false, b->message,
                                     sizeof b->message),
                     0);
    assert_int_equal(journal_rebuild(&b->dirs, &events, &objects, b->message, sizeof b->message),
                     0);
    store_dirs_close(&b->dirs);
    assert_int_equal(events, 42);
    node_open(b, false);
    expect_sound(b, &digest);
    node_close(b, true);
    node_close(a, true);
}

static void a_run_is_a_chain_without_gaps(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a, *b = pair->b;
    struct object *object;

    node_open(a, false);
    node_open(b, false);
    for (unsigned n = 0; n < 3; n++)
        assert_int_equal(put(a, n, 50), 0);
    struct buf events = all_events(a);
    uint32_t first, second;

    memcpy(&first, events.data, 4);
    memcpy(&second, events.data + 4 + first, 4);
    size_t two = 4 + first, three = two + 4 + second;

    /* The second before the first; the first and the third: what fits is taken. */
    assert_int_equal(give(b, events.data + two, three - two), ERR_AGAIN);
    assert_int_equal(find(b, 0, &object), ERR_NOT_FOUND);
    struct buf gap;
    buf_init(&gap, 0);
    buf_add(&gap, events.data, two);
    buf_add(&gap, events.data + three, events.len - three);
    assert_int_equal(give(b, gap.data, gap.len), ERR_AGAIN);
    expect_sound(b, NULL);
    assert_int_equal(find(b, 0, &object), 0);
    object_destroy(&object);
    assert_int_equal(find(b, 2, &object), ERR_NOT_FOUND);

    /* No event at all, and lengths that do not fit. */
    assert_int_equal(give(b, "\x03\0\0\0abc", 7), ERR_INVALID);
    assert_int_equal(give(b, "\x09\0\0\0abc", 7), ERR_INVALID);
    assert_int_equal(give(b, "\0\0\0\0", 4), ERR_INVALID);
    assert_int_equal(give(b, "\x01\0", 2), ERR_INVALID);

    assert_int_equal(give(b, events.data, events.len), 0);
    expect_equal(a, b);
    expect_sound(b, NULL);

    /* A second event that follows another first one. */
    struct event event;
    struct buf forged;
    assert_int_equal(event_decode(&event, (uint8_t *)events.data + two + 4, second), 0);
    event.prev[0] ^= 1;
    buf_init(&forged, 0);
    event_encode(&forged, &event);
    buf_reset(&gap);
    assert_int_equal(append_event(&gap, 2, (uint8_t *)forged.data, forged.len), 0);
    assert_int_equal(give(b, gap.data, gap.len), ERR_CONFLICT);
    assert_int_equal(put(a, 3, 50), 0); /* the run is frozen: freeze_test has more of that */
    struct buf later = all_events(a);
    assert_int_equal(give(b, later.data, later.len), ERR_CONFLICT);
    expect_sound(b, NULL);
    buf_release(&later);
    buf_release(&gap);
    buf_release(&forged);
    buf_release(&events);
    node_close(b, true);
    node_close(a, true);
}

/* More than one batch holds, and one of those batches cannot be written. */
static void a_failed_batch_takes_its_events_back(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a, *b = pair->b;
    static uint8_t body[1];
    struct change change;

    node_open(a, false);
    node_open(b, false);
    for (unsigned n = 0; n < 5000; n++) {
        prepare_put(&change, n, body, 1);
        assert_int_equal(commit(a, &change), 0);
        if (n % 1000 == 0)
            while (journal_apply_step(a->journal))
                ;
    }
    struct buf events = all_events(a);

    b->fault.only = "/log/";
    b->fault.error = ERR_NO_SPACE;
    for (unsigned attempt = 0; attempt < 3; attempt++) {
        atomic_store(&b->fault.fail_write, (int)attempt + 1);
        (void)give(b, events.data, events.len); /* it may have met another write */
        atomic_store(&b->fault.fail_write, 0);
        expect_sound(b, NULL);
    }
    b->fault.only = NULL;
    assert_int_equal(give(b, events.data, events.len), 0);
    expect_equal(a, b);
    expect_sound(b, NULL);
    buf_release(&events);
    node_close(b, true);
    node_close(a, true);
}

static sem_t answered;

static void answer(struct change *change)
{
    (void)change;
    sem_post(&answered);
}

/* The threads go on with them by themselves. */
static void events_for_several_batches_wait_for_nobody(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a, *b = pair->b;
    static uint8_t body[1];
    struct timespec until;
    struct change change;

    node_open(a, false);
    node_open(b, true);
    for (unsigned n = 0; n < LIMIT_BATCH_RECORDS + 100; n++) {
        prepare_put(&change, n, body, 1);
        assert_int_equal(commit(a, &change), 0);
        if (n % 1000 == 0)
            while (journal_apply_step(a->journal))
                ;
    }
    struct buf events = all_events(a);
    struct change peer = {.request.kind = CHANGE_PEER,
                          .events = (const uint8_t *)events.data,
                          .events_bytes = events.len,
                          .done = answer};
    assert_int_equal(sem_init(&answered, 0, 0), 0);
    assert_int_equal(journal_submit(b->journal, &peer), 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    assert_int_equal(sem_timedwait(&answered, &until), 0);
    assert_int_equal(peer.rc, 0);
    sem_destroy(&answered);
    expect_equal(a, b);
    buf_release(&events);
    node_close(b, true);
    node_close(a, true);
}

static int hold(struct node *node, unsigned n, const uint8_t *body, size_t size)
{
    struct change change;

    prepare_put(&change, n, body, size);
    change.request.kind = CHANGE_HOLD;
    return commit(node, &change);
}

static void a_copy_is_journaled_and_found(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a, *b = pair->b;
    uint8_t body[3000], other[3000];
    struct object *object;

    node_open(a, false);
    node_open(b, false);
    make_body(body, sizeof body, 7);
    make_body(other, sizeof other, 8);
    assert_int_equal(put(a, 7, sizeof body), 0);
    assert_int_equal(hold(b, 7, body, sizeof body), ERR_NOT_FOUND);
    assert_int_equal(sync_to(b, a), 0);
    expect_holders(b, 7, (const struct node *[]){a}, 1);
    assert_int_equal(hold(b, 7, other, sizeof other), ERR_CONFLICT);
    assert_int_equal(hold(b, 7, body, sizeof body), 0);
    expect_body(b, 7, sizeof body);
    expect_holders(b, 7, (const struct node *[]){a, b}, 2);
    assert_int_equal(sync_to(a, b), 0);
    expect_holders(a, 7, (const struct node *[]){a, b}, 2);
    expect_equal(a, b);

    /* The copy survives kill, cleaning and rebuild. */
    node_close(b, false);
    node_open(b, false);
    expect_body(b, 7, sizeof body);
    for (unsigned n = 100; n < 220; n++) { /* two segments, of which nearly all goes again */
        assert_int_equal(put(b, n, 4000), 0);
        assert_int_equal(delete (b, n), 0);
    }
    settle(b);
    expect_body(b, 7, sizeof body);
    assert_int_equal(journal_compact(b->journal, &(struct journal_compact_result){0}), 0);
    settle(b);
    node_close(b, true);
    uint64_t events, objects;
    assert_int_equal(store_dirs_open(&b->dirs, &b->env, b->state, b->files, false, b->message,
                                     sizeof b->message),
                     0);
    assert_int_equal(journal_rebuild(&b->dirs, &events, &objects, b->message, sizeof b->message),
                     0);
    store_dirs_close(&b->dirs);
    node_open(b, false);
    expect_body(b, 7, sizeof body);
    expect_holders(b, 7, (const struct node *[]){a, b}, 2);

    /* A says that its copy is gone, and later that it has one again. */
    assert_int_equal(find(a, 7, &object), 0);
    struct change drop = {.request = {.kind = CHANGE_DROP, .id = make_id(7), .damaged = true},
                          .done = done};
    drop.request.checked = object->place;
    object_destroy(&object);
    assert_int_equal(commit(a, &drop), 0);
    assert_int_equal(sync_to(b, a), 0);
    expect_holders(b, 7, (const struct node *[]){b}, 1);
    assert_int_equal(hold(a, 7, body, sizeof body), 0);
    assert_int_equal(sync_to(b, a), 0);
    expect_holders(a, 7, (const struct node *[]){a, b}, 2);

    /* Deleted, nobody holds it, and no copy comes. */
    assert_int_equal(delete (a, 7), 0);
    assert_int_equal(sync_to(b, a), 0);
    assert_int_equal(hold(b, 7, body, sizeof body), ERR_DELETED);
    assert_int_equal(find(b, 7, &object), 0);
    assert_true(place_is_none(&object->place));
    object_destroy(&object);
    expect_sound(b, NULL);
    node_close(b, true);
    node_close(a, true);
}

static int say_member(struct node *node, const struct id128 *subject, const char *address,
                      enum member_state state)
{
    struct event event = {.kind = EVENT_MEMBER,
                          .fields = EVENT_HAS_MEMBER,
                          .subject = *subject,
                          .address = {address, (uint32_t)strlen(address)},
                          .member_state = (uint8_t)state};
    struct change change = {.request.kind = CHANGE_FACT, .fact = &event, .done = done};

    return commit(node, &change);
}

static void members_are_facts(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a, *b = pair->b;
    struct db_member *members;
    struct db_reader *reader;
    size_t count;

    node_open(a, false);
    node_open(b, false);
    struct id128 ida = journal_node(a->journal), idb = journal_node(b->journal);

    assert_int_equal(say_member(a, &ida, "127.0.0.1:1", MEMBER_JOINED), 0);
    assert_int_equal(say_member(a, &idb, "127.0.0.1:2", MEMBER_JOINED), 0);
    assert_int_equal(sync_to(b, a), 0);
    assert_int_equal(say_member(b, &idb, "[::1]:3", MEMBER_JOINED), 0);
    assert_int_equal(say_member(b, &ida, "", MEMBER_LEFT), 0);
    assert_int_equal(sync_to(a, b), 0);
    for (int i = 0; i < 2; i++) {
        struct node *node = i ? a : b;

        while (journal_apply_step(node->journal))
            ;
        assert_int_equal(journal_reader_open(node->journal, &reader), 0);
        assert_int_equal(db_reader_members(reader, &members, &count), 0);
        assert_int_equal(count, 2);
        for (size_t k = 0; k < count; k++) {
            bool is_a = id_equal(&members[k].node, &ida);

            assert_string_equal(members[k].address, is_a ? "" : "[::1]:3");
            assert_int_equal(members[k].state, is_a ? MEMBER_LEFT : MEMBER_JOINED);
        }
        free(members);
        db_reader_close(&reader);
        expect_sound(node, NULL);
    }
    node_close(b, true);
    node_close(a, true);
}

static void expect_copies(struct node *node, unsigned n, unsigned held, unsigned members)
{
    struct id128 self = journal_node(node->journal);
    struct db_copies copies;
    struct db_reader *reader;
    struct object *object;

    while (journal_apply_step(node->journal))
        ;
    assert_int_equal(find(node, n, &object), 0);
    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(db_reader_copies(reader, object, &self, &copies), 0);
    assert_int_equal(copies.held, held);
    assert_int_equal(copies.members, members);
    db_reader_close(&reader);
    object_destroy(&object);
}

/* Copies count where their node belongs to the cluster, by its last word, answering or not. */
static void copies_are_counted_among_members(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a, *b = pair->b;
    struct id128 stranger = {{9, 9, 9}};
    uint8_t body[1000];

    node_open(a, false);
    node_open(b, false);
    struct id128 ida = journal_node(a->journal), idb = journal_node(b->journal);

    make_body(body, sizeof body, 3);
    assert_int_equal(put(a, 3, sizeof body), 0);
    expect_copies(a, 3, 1, 1); /* alone, it has journaled nothing of members */
    assert_int_equal(sync_to(b, a), 0);
    expect_copies(b, 3, 0, 1); /* A's copy is nobody's that belongs to us */
    assert_int_equal(say_member(a, &ida, "127.0.0.1:1", MEMBER_JOINED), 0);
    assert_int_equal(say_member(a, &stranger, "127.0.0.1:9", MEMBER_JOINED), 0);
    assert_int_equal(sync_to(b, a), 0);
    assert_int_equal(say_member(b, &idb, "127.0.0.1:2", MEMBER_JOINED), 0);
    assert_int_equal(sync_to(a, b), 0);
    expect_copies(a, 3, 1, 3);
    expect_copies(b, 3, 1, 3); /* by its put alone */
    assert_int_equal(hold(b, 3, body, sizeof body), 0);
    expect_copies(b, 3, 2, 3);
    expect_copies(a, 3, 1, 3); /* it has not heard of it */
    assert_int_equal(sync_to(a, b), 0);
    expect_copies(a, 3, 2, 3);
    /* Who is forgotten or has left is neither asked for nor counted. */
    assert_int_equal(say_member(a, &stranger, "", MEMBER_FORGOTTEN), 0);
    expect_copies(a, 3, 2, 2);
    assert_int_equal(say_member(a, &idb, "", MEMBER_LEFT), 0);
    expect_copies(a, 3, 1, 1);
    assert_int_equal(sync_to(b, a), 0);
    expect_copies(b, 3, 1, 1); /* A's */
    assert_int_equal(say_member(b, &idb, "127.0.0.1:2", MEMBER_JOINED), 0);
    expect_copies(b, 3, 2, 2);
    node_close(b, true);
    node_close(a, true);
}

/* Two nodes put the same bytes: the row names one put, but both have a copy, wherever one asks. */
static void each_put_of_the_same_bytes_is_a_copy(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a, *b = pair->b;
    struct object *object;

    node_open(a, false);
    node_open(b, false);
    struct id128 ida = journal_node(a->journal), idb = journal_node(b->journal);

    assert_int_equal(say_member(a, &ida, "127.0.0.1:1", MEMBER_JOINED), 0);
    assert_int_equal(say_member(a, &idb, "127.0.0.1:2", MEMBER_JOINED), 0);
    for (unsigned n = 1; n <= 2; n++) { /* neither knows of the other's; each is the later once */
        assert_int_equal(put(n == 1 ? a : b, n, 500), 0);
        assert_int_equal(put(n == 1 ? b : a, n, 500), 0);
    }
    assert_int_equal(put(a, 3, 500), 0);
    assert_int_equal(sync_to(b, a), 0);
    assert_int_equal(put(b, 3, 500), 0); /* this time it knows */
    assert_int_equal(sync_to(a, b), 0);
    expect_equal(a, b);
    for (unsigned n = 1; n <= 3; n++) {
        expect_copies(a, n, 2, 2);
        expect_copies(b, n, 2, 2);
    }
    /* The last word of a node that put them counts all the same. */
    assert_int_equal(find(a, 3, &object), 0);
    struct change drop = {.request = {.kind = CHANGE_DROP, .id = make_id(3), .damaged = true},
                          .done = done};
    drop.request.checked = object->place;
    object_destroy(&object);
    assert_int_equal(commit(a, &drop), 0);
    assert_int_equal(sync_to(b, a), 0);
    expect_copies(b, 3, 1, 2);
    expect_copies(a, 3, 1, 2);
    /* So does that of the one whose put the row names. */
    assert_int_equal(put(a, 4, 500), 0);
    assert_int_equal(sync_to(b, a), 0);
    expect_copies(b, 4, 1, 2);
    assert_int_equal(find(a, 4, &object), 0);
    drop.request.id = make_id(4);
    drop.request.checked = object->place;
    object_destroy(&object);
    assert_int_equal(commit(a, &drop), 0);
    assert_int_equal(sync_to(b, a), 0);
    expect_copies(b, 4, 0, 2);
    expect_copies(a, 4, 0, 2);
    expect_sound(a, NULL);
    expect_sound(b, NULL);
    node_close(b, true);
    node_close(a, true);
}

struct copy_news {
    unsigned kinds[16];
    struct id128 wanted[16];
    size_t wanted_count;
};

static void hear_copies(void *arg, const struct journal_copy_news *news)
{
    struct copy_news *heard = arg;
    struct event event;

    assert_int_equal(event_decode(&event, news->event, news->len), 0);
    assert_true(event.kind < 16);
    heard->kinds[event.kind]++;
    if (news->wanted)
        heard->wanted[heard->wanted_count++] = *news->wanted;
}

/* Whoever counts copies, or makes them, hears of each event that says something of them. */
static void news_of_copies_come_when_they_are_applied(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a, *b = pair->b;
    struct copy_news heard = {.wanted_count = 0};
    uint8_t body[300];

    node_open(a, false);
    node_open(b, false);
    journal_listen_copies(b->journal, hear_copies, &heard);
    make_body(body, sizeof body, 1);
    assert_int_equal(put(a, 1, sizeof body), 0);
    assert_int_equal(put(a, 2, 10), 0);
    struct change raise = {
        .request = {.kind = CHANGE_META, .id = make_id(1), .fields = EVENT_HAS_LEVEL, .level = 2},
        .done = done};
    assert_int_equal(commit(a, &raise), 0);
    assert_int_equal(sync_to(b, a), 0);
    assert_int_equal(heard.kinds[EVENT_PUT], 0);
    while (journal_apply_step(b->journal))
        ;
    assert_int_equal(heard.kinds[EVENT_PUT], 2);
    assert_int_equal(heard.kinds[EVENT_META], 1);
    assert_int_equal(heard.wanted_count, 1);
    struct id128 first = make_id(1);
    assert_true(id_equal(&heard.wanted[0], &first));
    /* Once: what is changed about it besides makes it no more wanted. */
    raise.request.fields = EVENT_HAS_NAME;
    raise.request.name = (struct text){"other", 5};
    assert_int_equal(commit(a, &raise), 0);
    assert_int_equal(sync_to(b, a), 0);
    while (journal_apply_step(b->journal))
        ;
    assert_int_equal(heard.kinds[EVENT_META], 2);
    assert_int_equal(heard.wanted_count, 1);
    assert_int_equal(hold(b, 1, body, sizeof body), 0);
    assert_int_equal(delete (b, 1), 0);
    while (journal_apply_step(b->journal))
        ;
    assert_int_equal(heard.kinds[EVENT_HOLD], 1);
    assert_int_equal(heard.kinds[EVENT_DELETE], 1);
    assert_int_equal(heard.wanted_count, 1);
    assert_int_equal(sync_to(b, a), 0); /* all of it is known */
    while (journal_apply_step(b->journal))
        ;
    assert_int_equal(heard.kinds[EVENT_PUT], 2);
    node_close(b, true);
    node_close(a, true);
}

struct heard {
    unsigned rounds, origins;
    uint64_t highest;
    struct hash128 digest;
};

static void hear(void *arg, const struct journal_news *news)
{
    struct heard *heard = arg;

    if (news->origin) {
        heard->origins++;
        heard->highest = news->origin->seq;
    } else {
        heard->rounds++;
        heard->digest = news->digest;
    }
}

static void whoever_listens_hears_what_is_applied(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a, *b = pair->b;
    struct heard heard = {0};

    node_open(a, false);
    node_open(b, false);
    journal_listen(b->journal, hear, &heard);
    assert_int_equal(put(a, 1, 10), 0);
    assert_int_equal(put(a, 2, 10), 0);
    assert_int_equal(sync_to(b, a), 0);
    assert_int_equal(heard.rounds, 0);
    while (journal_apply_step(b->journal))
        ;
    assert_int_equal(heard.rounds, 1);
    assert_int_equal(heard.origins, 1);
    assert_int_equal(heard.highest, 2);
    struct hash128 digest = digest_of(b);
    assert_true(heard.digest.low == digest.low && heard.digest.high == digest.high);
    node_close(b, true);
    node_close(a, true);
}

/* Another node's clock moves ours by a minute at most, also across a restart. */
static void a_wild_clock_is_not_believed(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a, *b = pair->b;
    struct journal_stats stats;
    struct object *object;

    node_open(a, false);
    node_open(b, false);
    assert_int_equal(put(a, 1, 10), 0);
    struct buf events = all_events(a);
    uint32_t len;
    struct event event;
    struct buf wild, raw;

    memcpy(&len, events.data, 4);
    assert_int_equal(event_decode(&event, (uint8_t *)events.data + 4, len), 0);
    uint64_t now_ms = env_wall_ms(&b->env);
    event.stamp = (now_ms + 10u * 365 * 86400 * 1000) << 16;
    event.origin.bytes[15] ^= 1;
    buf_init(&wild, 0);
    buf_init(&raw, 0);
    event_encode(&raw, &event);
    assert_int_equal(append_event(&wild, 1, (uint8_t *)raw.data, raw.len), 0);
    assert_int_equal(give(b, wild.data, wild.len), 0);
    journal_stats(b->journal, &stats);
    assert_int_equal(stats.clock, 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(put(b, 10 + (unsigned)i, 10), 0);
        assert_int_equal(find(b, 10 + (unsigned)i, &object), 0);
        assert_in_range(hlc_wall_ms(object->put_at.stamp), now_ms, now_ms + 120000);
        object_destroy(&object);
        node_close(b, i == 0);
        node_open(b, false);
    }
    /* What it put can be overwritten all the same. */
    assert_int_equal(delete (b, 1), 0);
    expect_deleted(b, 1);
    expect_sound(b, NULL);
    buf_release(&events);
    buf_release(&wild);
    buf_release(&raw);
    node_close(b, true);
    node_close(a, true);
}

/* Whoever has company keeps what others may lack. */
static void nothing_is_compacted_that_others_may_lack(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a;
    struct journal_compact_result result;
    struct journal_stats stats;

    node_open(a, false);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(put(a, n, 10), 0);
    struct id128 snapshot, other = {{1}};
    journal_share_events(a->journal);
    assert_false(journal_waits(a->journal, &snapshot));
    assert_int_equal(journal_compact(a->journal, &result), 0);
    assert_true(result.waiting && result.events == 0);
    settle(a);
    journal_stats(a->journal, &stats);
    assert_int_equal(stats.events, 20);
    assert_true(journal_waits(a->journal, &snapshot));
    journal_let_go(a->journal, &other); /* of one that is no more */
    settle(a);
    journal_stats(a->journal, &stats);
    assert_int_equal(stats.events, 20);
    node_close(a, true);
    node_open(a, false); /* what an earlier run left waits, too */
    journal_share_events(a->journal);
    settle(a);
    journal_stats(a->journal, &stats);
    assert_int_equal(stats.events, 20);
    assert_true(journal_waits(a->journal, &snapshot));
    journal_let_go(a->journal, &snapshot);
    settle(a);
    journal_stats(a->journal, &stats);
    assert_int_equal(stats.events, 0);
    assert_false(journal_waits(a->journal, &snapshot));
    expect_sound(a, NULL);
    assert_int_equal(put(a, 50, 10), 0);
    assert_int_equal(journal_compact(a->journal, &result), 0); /* the next one waits again */
    assert_true(result.waiting);
    node_close(a, true);
}

/* Uploads are owed by who has the bytes. */
static void the_outbox_is_of_what_is_here(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a, *b = pair->b;
    struct journal_stats stats;
    uint8_t body[100];
    struct change change;

    node_open(a, false);
    node_open(b, false);
    make_body(body, sizeof body, 1);
    prepare_put(&change, 1, body, sizeof body);
    change.request.level = 1;
    assert_int_equal(commit(a, &change), 0);
    assert_int_equal(sync_to(b, a), 0);
    journal_stats(a->journal, &stats);
    assert_int_equal(stats.outbox, 1);
    journal_stats(b->journal, &stats);
    assert_int_equal(stats.outbox, 0);
    assert_int_equal(hold(b, 1, body, sizeof body), 0);
    journal_stats(b->journal, &stats);
    assert_int_equal(stats.outbox, 1);
    expect_sound(a, NULL);
    expect_sound(b, NULL);
    node_close(b, true);
    node_close(a, true);
}

static int see_wanted(void *arg, const struct id128 *id, uint64_t size)
{
    uint64_t *sum = arg;

    *sum = *sum * 1000000 + id->bytes[15] * 10000u + size;
    return 0;
}

/* NODE lacks COUNT replicas of BYTES together, and LIST is what its reader gives of them. */
static void expect_wanted(struct node *node, uint64_t count, uint64_t bytes, uint64_t list)
{
    struct journal_stats stats;
    struct db_reader *reader;
    uint64_t sum = 0;

    expect_sound(node, NULL);
    journal_stats(node->journal, &stats);
    assert_int_equal(stats.wanted, count);
    assert_int_equal(stats.wanted_bytes, bytes);
    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(db_reader_wanted(reader, NULL, 10, see_wanted, &sum), 0);
    assert_int_equal(sum, list);
    db_reader_close(&reader);
}

static int put_level(struct node *node, unsigned n, unsigned seed, size_t size, uint8_t level)
{
    uint8_t body[3000];
    struct change change;

    make_body(body, size, seed);
    prepare_put(&change, n, body, size);
    change.request.level = level;
    return commit(node, &change);
}

/* Objects of level 2 without a copy here are listed, whatever brought them there, until there is
 * one or they are gone; so after a restart, a rebuild and a snapshot. */
static void what_is_for_every_node_is_wanted_here(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a, *b = pair->b;
    uint8_t body[3000];
    struct db_reader *reader;
    struct object *object;
    uint64_t sum = 0;

    node_open(a, false);
    node_open(b, false);
    assert_int_equal(put_level(a, 1, 1, 100, 2), 0);
    assert_int_equal(put_level(a, 2, 2, 200, 2), 0);
    assert_int_equal(put_level(a, 3, 3, 300, 0), 0);
    assert_int_equal(put_level(a, 4, 4, 400, 1), 0);
    expect_wanted(a, 0, 0, 0);
    assert_int_equal(sync_to(b, a), 0);
    expect_wanted(b, 2, 300, 10100020200u);
    make_body(body, 100, 1);
    assert_int_equal(hold(b, 1, body, 100), 0);
    expect_wanted(b, 1, 200, 20200);

    /* Raised later; deleted. */
    struct change raise = {
        .request = {.kind = CHANGE_META, .id = make_id(3), .fields = EVENT_HAS_LEVEL, .level = 2},
        .done = done};
    assert_int_equal(commit(a, &raise), 0);
    expect_wanted(a, 0, 0, 0);
    assert_int_equal(delete (a, 2), 0);
    assert_int_equal(sync_to(b, a), 0);
    expect_wanted(b, 1, 300, 30300);

    /* The one copy here turns out to be damaged. */
    assert_int_equal(find(b, 1, &object), 0);
    struct change drop = {.request = {.kind = CHANGE_DROP, .id = make_id(1), .damaged = true},
                          .done = done};
    drop.request.checked = object->place;
    object_destroy(&object);
    assert_int_equal(commit(b, &drop), 0);
    expect_wanted(b, 2, 400, 10100030300u);
    assert_int_equal(journal_reader_open(b->journal, &reader), 0);
    struct id128 first = make_id(1);
    assert_int_equal(db_reader_wanted(reader, &first, 10, see_wanted, &sum), 0);
    assert_int_equal(sum, 30300);
    sum = 0;
    assert_int_equal(db_reader_wanted(reader, NULL, 1, see_wanted, &sum), 0);
    assert_int_equal(sum, 10100);
    db_reader_close(&reader);

    node_close(b, false);
    node_open(b, false);
    expect_wanted(b, 2, 400, 10100030300u);
    for (int i = 0; i < 2; i++) {
        uint64_t events, objects;

        if (i == 1)
            assert_int_equal(journal_compact(b->journal, &(struct journal_compact_result){0}), 0);
        node_close(b, true);
        assert_int_equal(store_dirs_open(&b->dirs, &b->env, b->state, b->files, false, b->message,
                                         sizeof b->message),
                         0);
        assert_int_equal(
            journal_rebuild(&b->dirs, &events, &objects, b->message, sizeof b->message), 0);
        store_dirs_close(&b->dirs);
        node_open(b, false);
        expect_wanted(b, 2, 400, 10100030300u);
    }
    node_close(b, true);
    node_close(a, true);
}

/* Two nodes put different bytes under one id; a third one, which lacks them, hears of the loser
 * first: what it wants is what counts. */
static void what_is_wanted_are_the_bytes_that_count(void **state)
{
    struct pair *pair = *state;
    struct node *a = pair->a, *b = pair->b, *c;

    assert_int_equal(setup((void **)&c), 0);
    node_open(a, false);
    node_open(b, false);
    node_open(c, false);
    assert_int_equal(put_level(a, 1, 1, 100, 2), 0);
    b->later_ms = 5000;
    assert_int_equal(put_level(b, 2, 2, 10, 0), 0);
    assert_int_equal(put_level(b, 1, 9, 250, 2), 0);
    assert_int_equal(sync_to(c, a), 0);
    expect_wanted(c, 1, 100, 10100);
    assert_int_equal(sync_to(c, b), 0);
    expect_wanted(c, 1, 250, 10250);
    assert_int_equal(sync_to(a, b), 0);
    expect_wanted(a, 1, 250, 10250);
    assert_int_equal(sync_to(b, a), 0);
    expect_wanted(b, 0, 0, 0);
    expect_equal(a, b);
    expect_equal(a, c);
    node_close(c, true);
    node_close(b, true);
    node_close(a, true);
    assert_int_equal(teardown((void **)&c), 0);
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, setup_pair, teardown_pair)
    const struct CMUnitTest tests[] = {
        test(nodes_that_hear_all_events_agree),
        test(a_run_is_a_chain_without_gaps),
        test(a_failed_batch_takes_its_events_back),
        test(events_for_several_batches_wait_for_nobody),
        test(a_copy_is_journaled_and_found),
        test(members_are_facts),
        test(copies_are_counted_among_members),
        test(each_put_of_the_same_bytes_is_a_copy),
        test(news_of_copies_come_when_they_are_applied),
        test(whoever_listens_hears_what_is_applied),
        test(a_wild_clock_is_not_believed),
        test(nothing_is_compacted_that_others_may_lack),
        test(the_outbox_is_of_what_is_here),
        test(what_is_for_every_node_is_wanted_here),
        test(what_is_wanted_are_the_bytes_that_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
