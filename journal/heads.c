/*
 * An open-addressing table by origin. Origins are ULIDs, whose last bytes are random: they are the
 * hash; runs that somebody named badly on purpose only make a probe longer, and LIMIT_RUNS bounds
 * that. Heads are never removed: a run that ended is still known.
 *
 * Failure: memory alone; the table is then as before.
 */
#include "journal/heads.h"

#include "base/limits.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAP 64

void heads_release(struct heads *heads)
{
    free(heads->slots);
    *heads = (struct heads){0};
}

/* The slot of ORIGIN, or the free one where it would be. */
static struct head *slot_of(struct head *slots, size_t cap, const struct id128 *origin)
{
    uint64_t hash;

    memcpy(&hash, origin->bytes + 8, sizeof hash);
    hash *= UINT64_C(0x9E3779B97F4A7C15);
    for (size_t i = hash >> 20;; i++) {
        struct head *slot = &slots[i & (cap - 1)];

        if (id_is_zero(&slot->origin) || id_equal(&slot->origin, origin))
            return slot;
    }
}

static int grow(struct heads *heads)
{
    size_t cap = heads->cap ? 2 * heads->cap : FIRST_CAP;
    struct head *slots = calloc(cap, sizeof *slots);

    if (!slots)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < heads->cap; i++)
        if (!id_is_zero(&heads->slots[i].origin))
            *slot_of(slots, cap, &heads->slots[i].origin) = heads->slots[i];
    free(heads->slots);
    heads->slots = slots;
    heads->cap = cap;
    return 0;
}

struct head *heads_get(struct heads *heads, const struct id128 *origin)
{
    assert(!id_is_zero(origin));
    if (heads->cap) {
        struct head *slot = slot_of(heads->slots, heads->cap, origin);

        if (!id_is_zero(&slot->origin))
            return slot;
    }
    if (heads->count >= LIMIT_RUNS || (2 * heads->count >= heads->cap && grow(heads) != 0))
        return NULL;
    struct head *slot = slot_of(heads->slots, heads->cap, origin);
    slot->origin = *origin;
    heads->count++;
    return slot;
}

void heads_begin(struct heads *heads)
{
    heads->batch++;
}

static void touch(struct heads *heads, struct head *head)
{
    if (head->touched == heads->batch)
        return;
    head->touched = heads->batch;
    head->seq_before = head->seq;
    memcpy(head->hash_before, head->hash, SHA256_BYTES);
    head->frozen_before = head->frozen;
}

void heads_set(struct heads *heads, struct head *head, uint64_t seq,
               const uint8_t hash[SHA256_BYTES])
{
    assert(seq > head->seq && !id_is_zero(&head->origin));
    touch(heads, head);
    head->seq = seq;
    memcpy(head->hash, hash, SHA256_BYTES);
}

void heads_freeze(struct heads *heads, struct head *head)
{
    touch(heads, head);
    head->frozen = true;
}

int heads_judge(const struct head *head, uint64_t seq, const uint8_t prev[SHA256_BYTES],
                const void *raw, size_t len)
{
    uint8_t hash[SHA256_BYTES];

    assert(seq > 0);
    if (seq < head->seq)
        return ERR_RANGE;
    if (seq == head->seq) {
        sha256(raw, len, hash);
        return memcmp(hash, head->hash, SHA256_BYTES) == 0 ? ERR_EXISTS : ERR_CONFLICT;
    }
    if (seq > head->seq + 1)
        return ERR_AGAIN;
    /* The hash of nothing is zero, as the first event's `prev` is. */
    return memcmp(prev, head->hash, SHA256_BYTES) == 0 ? 0 : ERR_CONFLICT;
}

void heads_undo(struct heads *heads)
{
    for (size_t i = 0; i < heads->cap; i++) {
        struct head *head = &heads->slots[i];

        if (id_is_zero(&head->origin) || head->touched != heads->batch)
            continue;
        head->seq = head->seq_before;
        memcpy(head->hash, head->hash_before, SHA256_BYTES);
        head->frozen = head->frozen_before;
        head->touched = 0;
    }
}
