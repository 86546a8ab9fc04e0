/*
 * For each node the two processes heard last. Both have to go on for a while after the one that
 * came second was heard first; a third one takes the place of whichever was silent longer.
 *
 * Failure: none but memory at the start.
 */
#include "cluster/twin.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct sighting {
    struct id128 process; /* zero: none */
    char address[LIMIT_WIRE_ADDR_BYTES];
    uint32_t address_len;
    uint64_t first_ms, last_ms;
    unsigned since_other; /* how often it was heard since the other one was first */
};

struct seen {
    struct id128 node; /* zero: free */
    uint64_t last_ms;
    struct sighting at[2];
};

struct twins {
    struct seen nodes[LIMIT_MEMBERS];
};

int twins_create(struct twins **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : ERR_NO_MEMORY;
}

void twins_destroy(struct twins **twins)
{
    free(*twins);
    *twins = NULL;
}

static struct seen *seen_of(struct twins *twins, const struct id128 *node)
{
    struct seen *oldest = &twins->nodes[0];

    for (size_t i = 0; i < LIMIT_MEMBERS; i++) {
        struct seen *seen = &twins->nodes[i];

        if (id_equal(&seen->node, node))
            return seen;
        if (seen->last_ms < oldest->last_ms)
            oldest = seen;
    }
    *oldest = (struct seen){.node = *node};
    return oldest;
}

/* The place of PROCESS, taken from the one that was silent for longer where it is news. One that
 * was silent for too long begins anew. */
static struct sighting *sighting_of(struct seen *seen, const struct id128 *process, uint64_t now_ms)
{
    size_t at = seen->at[0].last_ms <= seen->at[1].last_ms ? 0 : 1;

    for (size_t i = 0; i < 2; i++)
        if (id_equal(&seen->at[i].process, process)) {
            if (now_ms - seen->at[i].last_ms < TWIN_ALIVE_MS)
                return &seen->at[i];
            at = i;
        }

    seen->at[at] = (struct sighting){.process = *process, .first_ms = now_ms};
    seen->at[!at].since_other = 0;
    return &seen->at[at];
}

bool twins_heard(struct twins *twins, const struct id128 *node, const struct wire_process *said,
                 uint64_t now_ms, struct wire_process *other)
{
    assert(!id_is_zero(node) && !id_is_zero(&said->process));
    assert(said->address.len <= LIMIT_WIRE_ADDR_BYTES);

    struct seen *seen = seen_of(twins, node);
    struct sighting *one = sighting_of(seen, &said->process, now_ms);
    struct sighting *two = one == &seen->at[0] ? &seen->at[1] : &seen->at[0];

    seen->last_ms = one->last_ms = now_ms;
    one->since_other++;
    one->address_len = said->address.len;
    if (said->address.len)
        memcpy(one->address, said->address.ptr, said->address.len);
    if (id_is_zero(&two->process) || now_ms - two->last_ms >= TWIN_ALIVE_MS)
        return false;
    const struct sighting *old = one->first_ms < two->first_ms ? one : two;
    const struct sighting *young = old == one ? two : one;

    if (old->since_other < TWIN_TIMES || old->last_ms < young->first_ms + TWIN_WHILE_MS ||
        young->since_other < TWIN_TIMES || young->last_ms < young->first_ms + TWIN_WHILE_MS)
        return false;
    *other = (struct wire_process){two->process, {two->address, two->address_len}};
    return true;
}
