/*
 * Runs that contradict themselves: two different events of one number, or one that does not follow
 * the event before it. A run is one life of one process, so that is a machine that was copied while
 * it ran and went on twice, or somebody's damaged data. Which of the two is right nobody can tell,
 * and both were acknowledged: the run is frozen, and what was taken of it stays.
 *
 * Happy path: an event of a peer does not fit -> find the first event that there are two of, where
 * that can be told -> journal a freeze of the run in the same batch -> nothing more of it is taken.
 * Where it is this process's own run, somebody else writes under it: the chain is left, the freeze
 * is the first event of a fresh run, and the janitor journals again what others may never have got
 * (restate.c). The same where a freeze of our own run comes from a peer.
 *
 * Failure: what does not fit into the batch is decided again in the next one. A batch that fails
 * takes all of it back: heads and chain are as before.
 */
#include "base/log.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"

#include <assert.h>
#include <string.h>

#define SAY_MS 10000 /* between two lines about refused events */

struct id128 freeze_draw_run(struct journal *journal, const struct id128 *before)
{
    uint64_t now_ms = env_wall_ms(journal->env), after_ms = ulid_time_ms(before) + 1;

    /* What is journaled again bears the old stamp: the fresh run has to win the tie. */
    return ulid_make(journal->env, now_ms > after_ms ? now_ms : after_ms);
}

/* The chain after this one was left: its next event begins a fresh run. */
static struct chain left(const struct chain *chain)
{
    struct chain next = {.follows = {.origin = chain->origin, .seq = chain->seq}};

    assert(chain->seq > 0);
    memcpy(next.follows.hash, chain->hash, SHA256_BYTES);
    return next;
}

static bool is_current(const struct committer *c, const struct id128 *origin)
{
    return c->chain.seq > 0 && id_equal(origin, &c->chain.origin);
}

static int refuse(struct journal *journal, const struct head *head)
{
    struct committer *c = &journal->committer;
    uint64_t now_ms = env_mono_ms(journal->env);
    char run[ULID_TEXT_BYTES + 1];

    c->frozen_refused++;
    if (c->frozen_said_ms == 0 || now_ms - c->frozen_said_ms >= SAY_MS) {
        ulid_format(run, &head->origin);
        log_warn("journal: event of the frozen run %s refused; %llu of frozen runs since the start",
                 run, (unsigned long long)c->frozen_refused);
        c->frozen_said_ms = now_ms;
    }
    return ERR_CONFLICT;
}

/* Our own event of this number: is it that one (ERR_EXISTS), or another (ERR_CONFLICT)? *BROKE: the
 * first of two; left alone where that cannot be told. One that is compacted, or not applied yet,
 * is taken for the same. */
static int compare(struct journal *journal, const struct event *event, const uint8_t *raw,
                   size_t len, uint64_t *broke)
{
    struct event ours;
    struct buf found;
    uint32_t count;
    int rc;

    buf_init(&found, LIMIT_EVENT_BYTES + sizeof(uint32_t));
    rc = db_reader_events(journal->committer.reader, &event->origin, event->seq, 0, &found, &count);
    if (rc == ERR_NOT_FOUND) {
        rc = ERR_EXISTS;
    } else if (rc == 0) {
        const uint8_t *bytes = (const uint8_t *)found.data + sizeof(uint32_t);
        size_t bytes_len = found.len - sizeof(uint32_t);

        rc = bytes_len == len && memcmp(bytes, raw, len) == 0 ? ERR_EXISTS : ERR_CONFLICT;
        if (rc == ERR_CONFLICT && event_decode(&ours, bytes, bytes_len) == 0 &&
            memcmp(ours.prev, event->prev, SHA256_BYTES) == 0)
            *broke = event->seq;
    }
    buf_release(&found);
    return rc;
}

static void say_frozen(const struct event *freeze, bool own)
{
    char run[ULID_TEXT_BYTES + 1], node[ULID_TEXT_BYTES + 1];

    ulid_format(run, &freeze->subject);
    ulid_format(node, &freeze->run_node);
    log_error("journal: run %s of node %s contradicts itself, from event %llu on at the latest: it "
              "is frozen, nothing more of it is taken",
              run, node, (unsigned long long)freeze->follows.seq);
    if (own)
        log_error("journal: that is this process's own run: a copy of this machine writes under "
                  "it, too. Go on under a fresh run; what others may lack is journaled again");
}

/* Journal the freeze in D of HEAD's run. */
static int commit_freeze(struct journal *journal, struct head *head, struct change *change,
                         struct decision *d)
{
    struct committer *c = &journal->committer;
    const struct chain chain = c->chain;
    bool own = is_current(c, &d->event.subject);

    if (own)
        c->chain = left(&chain);
    int rc = committer_event(journal, change, d, NULL);

    if (rc) {
        c->chain = chain;
        return rc;
    }
    if (own)
        heads_set(&c->heads, head, chain.seq, chain.hash);
    heads_freeze(&c->heads, head);
    say_frozen(&d->event, own);
    return 0;
}

/* EVENT, RAW, contradicts HEAD: journal that. */
static int freeze_run(struct journal *journal, struct head *head, const struct event *event,
                      const uint8_t *raw, size_t len, uint64_t broke)
{
    struct change change = {.request.kind = CHANGE_FACT};
    struct decision d = {
        .event = {.kind = EVENT_FREEZE,
                  .fields = EVENT_HAS_FREEZE | EVENT_HAS_FOLLOWS | EVENT_HAS_RUN_NODE,
                  .subject = event->origin,
                  .run_node = event->node,
                  .follows = {.origin = event->origin, .seq = broke}}};

    if (broke == event->seq)
        event_hash(raw, len, d.event.follows.hash);
    return commit_freeze(journal, head, &change, &d);
}

int freeze_fact(struct journal *journal, struct change *change, struct decision *d)
{
    struct head *head = heads_get(&journal->committer.heads, &d->event.subject);

    if (!head)
        return ERR_NO_MEMORY;
    if (head->frozen) {
        change->verdict = VERDICT_UNCHANGED;
        return 0;
    }
    return commit_freeze(journal, head, change, d);
}

int freeze_judge(struct journal *journal, struct head *head, const struct event *event,
                 const uint8_t *raw, size_t len)
{
    struct committer *c = &journal->committer;
    bool own = is_current(c, &event->origin);
    struct head known = *head;
    uint64_t broke = 1;
    int rc;

    if (head->frozen)
        return refuse(journal, head);
    if (own) {
        known.seq = c->chain.seq;
        memcpy(known.hash, c->chain.hash, SHA256_BYTES);
    }
    rc = heads_judge(&known, event->seq, event->prev, raw, len);
    if (rc == ERR_RANGE)
        rc = compare(journal, event, raw, len, &broke);
    else if (rc == ERR_CONFLICT && event->seq == known.seq)
        (void)compare(journal, event, raw, len, &broke); /* it is known to be another */
    else if (own && rc == 0)
        broke = event->seq; /* it follows what we wrote, but we did not write it */
    if (own && rc != ERR_EXISTS && rc != ERR_IO && rc != ERR_NO_MEMORY)
        rc = ERR_CONFLICT;
    if (rc != ERR_CONFLICT)
        return rc;
    rc = freeze_run(journal, head, event, raw, len, broke);
    return rc ? rc : ERR_CONFLICT;
}

void freeze_heard(struct journal *journal, const struct event *event)
{
    struct committer *c = &journal->committer;
    struct head *head = heads_get(&c->heads, &event->subject);
    bool own = is_current(c, &event->subject);

    assert(event->kind == EVENT_FREEZE);
    if (!head) {
        log_error("journal: a frozen run cannot be kept in mind: %s", err_text(ERR_NO_MEMORY));
        return;
    }
    if (head->frozen)
        return;
    if (own) {
        heads_set(&c->heads, head, c->chain.seq, c->chain.hash);
        c->chain = left(&c->chain);
    }
    heads_freeze(&c->heads, head);
    say_frozen(event, own);
}
