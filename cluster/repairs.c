/* A ring under a lock. Many reads of one bad copy note it once, as long as it waits. */
#include "cluster/repairs.h"

#include "base/limits.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

struct repairs {
    pthread_mutex_t lock;
    struct repair ring[LIMIT_REPAIRS];
    size_t first, count;
};

int repairs_create(struct repairs **out)
{
    struct repairs *repairs = calloc(1, sizeof *repairs);

    *out = repairs;
    if (!repairs)
        return ERR_NO_MEMORY;
    (void)pthread_mutex_init(&repairs->lock, NULL);
    return 0;
}

void repairs_destroy(struct repairs **repairs)
{
    if (!*repairs)
        return;
    (void)pthread_mutex_destroy(&(*repairs)->lock);
    free(*repairs);
    *repairs = NULL;
}

static struct repair *at(struct repairs *repairs, size_t i)
{
    return &repairs->ring[(repairs->first + i) % LIMIT_REPAIRS];
}

bool repairs_add(struct repairs *repairs, const struct id128 *id, const struct place *place)
{
    assert(!place_is_none(place));
    (void)pthread_mutex_lock(&repairs->lock);
    bool added = repairs->count < LIMIT_REPAIRS;

    for (size_t i = 0; added && i < repairs->count; i++)
        added = !id_equal(&at(repairs, i)->id, id);
    if (added)
        *at(repairs, repairs->count++) = (struct repair){.id = *id, .place = *place};
    (void)pthread_mutex_unlock(&repairs->lock);
    return added;
}

bool repairs_take(struct repairs *repairs, struct repair *out)
{
    (void)pthread_mutex_lock(&repairs->lock);
    bool taken = repairs->count > 0;

    if (taken) {
        *out = *at(repairs, 0);
        repairs->first = (repairs->first + 1) % LIMIT_REPAIRS;
        repairs->count--;
    }
    (void)pthread_mutex_unlock(&repairs->lock);
    return taken;
}

size_t repairs_count(struct repairs *repairs)
{
    (void)pthread_mutex_lock(&repairs->lock);
    size_t count = repairs->count;

    (void)pthread_mutex_unlock(&repairs->lock);
    return count;
}
