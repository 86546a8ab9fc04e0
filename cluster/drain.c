/*
 * A plain table. Targets take turns, so that the copies spread; an object whose time is up, or
 * whose target is none any more, goes to the next one.
 *
 * Failure: no memory at the creation; nothing else.
 */
#include "cluster/drain.h"

#include "base/limits.h"

#include <assert.h>
#include <stdlib.h>

struct handing {
    struct event_item item;
    uint64_t size;
    struct id128 asked; /* of whom it was asked last */
    uint64_t until_ms;  /* 0: of nobody yet */
    size_t turn;        /* the target that is next */
};

struct drain {
    size_t count, turn;
    uint64_t bytes;
    struct drain_figures figures;
    struct handing table[LIMIT_DRAIN_OBJECTS];
};

int drain_create(struct drain **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : ERR_NO_MEMORY;
}

void drain_destroy(struct drain **drain)
{
    free(*drain);
    *drain = NULL;
}

bool drain_has_room(const struct drain *drain)
{
    return drain->count < LIMIT_DRAIN_OBJECTS && drain->bytes < LIMIT_DRAIN_BYTES;
}

void drain_add(struct drain *drain, const struct event_item *item, uint64_t size)
{
    assert(drain_has_room(drain));
    for (size_t i = 0; i < drain->count; i++)
        if (id_equal(&drain->table[i].item.id, &item->id) &&
            memcmp(drain->table[i].item.sha256, item->sha256, SHA256_BYTES) == 0)
            return;
    drain->table[drain->count++] =
        (struct handing){.item = *item, .size = size, .turn = drain->turn++};
    drain->bytes += size;
}

/* What is under way together may take so long. */
static uint64_t patience_ms(const struct drain *drain)
{
    return DRAIN_PATIENCE_MS + drain->bytes / (DRAIN_SPEED_BYTES / 1000);
}

static bool is_among(const struct id128 *node, const struct id128 *nodes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (id_equal(&nodes[i], node))
            return true;
    return false;
}

size_t drain_next(struct drain *drain, const struct id128 *targets, size_t count, uint64_t now_ms,
                  struct id128 *node, struct event_item *out, size_t max)
{
    size_t taken = 0, target = 0;

    if (count == 0)
        return 0;
    for (size_t i = 0; i < drain->count && taken < max; i++) {
        struct handing *h = &drain->table[i];

        if (h->until_ms > now_ms && is_among(&h->asked, targets, count))
            continue;
        if (taken == 0)
            target = h->turn % count;
        else if (h->turn % count != target)
            continue;
        drain->figures.again += h->until_ms > 0;
        h->until_ms = now_ms + patience_ms(drain);
        h->turn++;
        h->asked = targets[target];
        out[taken++] = h->item;
    }
    *node = targets[target];
    return taken;
}

size_t drain_count(const struct drain *drain)
{
    return drain->count;
}

const struct event_item *drain_at(const struct drain *drain, size_t at)
{
    assert(at < drain->count);
    return &drain->table[at].item;
}

void drain_settle(struct drain *drain, size_t at, bool gone)
{
    assert(at < drain->count && drain->bytes >= drain->table[at].size);
    drain->bytes -= drain->table[at].size;
    if (!gone) {
        drain->figures.moved_objects++;
        drain->figures.moved_bytes += drain->table[at].size;
    }
    drain->table[at] = drain->table[--drain->count];
}

struct drain_figures drain_figures(const struct drain *drain)
{
    struct drain_figures figures = drain->figures;

    figures.objects = drain->count;
    figures.bytes = drain->bytes;
    return figures;
}
