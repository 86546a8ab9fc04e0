/*
 * Asking members whether they know what is about to leave.
 *
 * The runs go in pages of a message each; a member that knows one page is asked about the next one.
 * The nonce tells pages and rounds apart: what answers an older question is ignored. What stays
 * unanswered is asked again after ANSWER_MS, a no after NO_MS.
 */
#include "cluster/cut.h"

#include <assert.h>
#include <stdlib.h>

#define ANSWER_MS 2000
#define NO_MS     3000

struct asked {
    struct id128 node;
    size_t page; /* all before it are known */
    uint64_t nonce, next_ms;
};

struct cut {
    struct id128 snapshot; /* zero: nothing is asked about */
    struct buf runs;
    uint64_t dice, now_ms;
    struct asked asked[LIMIT_MEMBERS];
    size_t count;
};

int cut_create(struct cut **out, uint64_t seed)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return ERR_NO_MEMORY;
    (*out)->dice = seed | 1;
    buf_init(&(*out)->runs, (size_t)LIMIT_RUNS * WIRE_RUN_BYTES);
    return 0;
}

void cut_destroy(struct cut **cut)
{
    if (!*cut)
        return;
    buf_release(&(*cut)->runs);
    free(*cut);
    *cut = NULL;
}

void cut_clear(struct cut *cut)
{
    cut->snapshot = (struct id128){{0}};
    cut->count = 0;
    buf_reset(&cut->runs);
}

int cut_set(struct cut *cut, const struct id128 *snapshot, struct text runs)
{
    assert(runs.len % WIRE_RUN_BYTES == 0);
    cut_clear(cut);
    if (runs.len)
        buf_add(&cut->runs, runs.ptr, runs.len);
    int rc = buf_check(&cut->runs);
    if (rc == 0)
        cut->snapshot = *snapshot;
    return rc;
}

struct id128 cut_snapshot(const struct cut *cut)
{
    return cut->snapshot;
}

static size_t pages(const struct cut *cut)
{
    size_t runs = cut->runs.len / WIRE_RUN_BYTES;

    return (runs + LIMIT_WIRE_RUNS - 1) / LIMIT_WIRE_RUNS;
}

static struct text page_at(const struct cut *cut, size_t page)
{
    size_t from = page * LIMIT_WIRE_RUNS * WIRE_RUN_BYTES, left = cut->runs.len - from;
    size_t most = (size_t)LIMIT_WIRE_RUNS * WIRE_RUN_BYTES;

    return (struct text){cut->runs.data + from, (uint32_t)(left < most ? left : most)};
}

static struct asked *find(struct cut *cut, const struct id128 *node)
{
    for (size_t i = 0; i < cut->count; i++)
        if (id_equal(&cut->asked[i].node, node))
            return &cut->asked[i];
    return NULL;
}

void cut_take(struct cut *cut, const struct id128 *from, uint64_t nonce, bool known)
{
    struct asked *asked = find(cut, from);

    if (!asked || asked->nonce != nonce || nonce == 0)
        return;
    asked->nonce = 0;
    asked->page += known;
    asked->next_ms = known ? 0 : cut->now_ms + NO_MS;
}

static void ask(struct cut *cut, struct asked *asked, struct cut_question *out)
{
    cut->dice = cut->dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    asked->nonce = cut->dice ? cut->dice : 1;
    asked->next_ms = cut->now_ms + ANSWER_MS;
    *out = (struct cut_question){.to = asked->node,
                                 .ask = {.nonce = asked->nonce, .runs = page_at(cut, asked->page)}};
}

bool cut_step(struct cut *cut, uint64_t now_ms, const struct cut_peer *peers, size_t count,
              struct cut_question *out, size_t *questions)
{
    bool all = true;

    *questions = 0;
    cut->now_ms = now_ms;
    if (id_is_zero(&cut->snapshot))
        return false;
    for (size_t i = 0; i < count; i++) {
        struct asked *asked = find(cut, &peers[i].node);

        if (!peers[i].alive) {
            all &= peers[i].settled;
            continue;
        }
        if (!asked && cut->count == LIMIT_MEMBERS) {
            all = false;
            continue;
        }
        if (!asked) {
            asked = &cut->asked[cut->count++];
            *asked = (struct asked){.node = peers[i].node};
        }
        if (asked->page >= pages(cut))
            continue;
        all = false;
        if (now_ms >= asked->next_ms)
            ask(cut, asked, &out[(*questions)++]);
    }
    return all;
}

bool cut_is_known(const struct vector *vector, struct text runs)
{
    for (size_t i = 0; i < wire_run_count(runs); i++) {
        struct wire_run run = wire_run_at(runs, i);
        const struct vector_run *known = vector_find(vector, &run.origin);

        if (!known || (known->seq < run.seq && !known->frozen))
            return false;
    }
    return true;
}
