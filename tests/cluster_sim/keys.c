#include "tests/cluster_sim/keys.h"

#include "base/hash.h"
#include "journal/ulid.h"
#include "tests/cluster_sim/world.h"

#include <stdlib.h>

#define KEYS 20000

/* The next word of a body: splitmix64, which can begin anywhere. */
static uint64_t word(uint64_t seed, uint64_t i)
{
    uint64_t z = seed + (i + 1) * UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

void key_body(const struct key *key, unsigned variant, uint64_t offset, void *out, size_t len)
{
    uint8_t *to = out;
    uint64_t seed = key->random + variant * UINT64_C(0xD1B54A32D192ED03);

    while (len > 0) {
        uint64_t bytes = word(seed, offset / 8);
        size_t within = offset % 8, part = 8 - within < len ? 8 - within : len;

        memcpy(to, (uint8_t *)&bytes + within, part);
        to += part;
        offset += part;
        len -= part;
    }
}

/* Mostly small ones, some of several blocks, a few that get a file of their own. */
static uint32_t some_size(void)
{
    uint64_t kind = sim_dice(&world.client_dice) % 100, more = sim_dice(&world.client_dice);

    if (kind < 5)
        return (uint32_t)(more % 3);
    if (kind < 88)
        return 1 + (uint32_t)(more % 4000);
    if (kind < 97)
        return 4000 + (uint32_t)(more % 190000);
    return LIMIT_INLINE_BODY_BYTES + 1 + (uint32_t)(more % (BODY_BYTES - LIMIT_INLINE_BODY_BYTES));
}

struct key *key_new(void)
{
    static uint8_t body[BODY_BYTES];

    if (!world.keys)
        world.keys = calloc(KEYS, sizeof *world.keys);
    if (!world.keys || world.key_count == KEYS)
        abort();
    struct key *key = &world.keys[world.key_count++];
    uint64_t ms = UINT64_C(1700000000000) + world.now / MS, id[2];

    key->random = sim_dice(&world.client_dice);
    id[0] = word(key->random, 1);
    id[1] = word(key->random, 2);
    memcpy(key->id.bytes, id, sizeof id);
    for (int i = 0; i < 6; i++)
        key->id.bytes[i] = (uint8_t)(ms >> (40 - 8 * i));
    for (unsigned v = 0; v < VARIANTS; v++) {
        key->size[v] = some_size();
        if (v && world.key_count % 2)
            key->size[v] = key->size[0]; /* so that only the bytes tell them apart … */
        if (v && key->size[v] < 16)
            key->size[v] = 16 + v; /* … which do differ */
        key_body(key, v, 0, body, key->size[v]);
        sha256(body, key->size[v], key->sha256[v]);
    }
    return key;
}

unsigned key_variant(const struct key *key, const uint8_t sha256[SHA256_BYTES])
{
    unsigned v = 0;

    while (v < VARIANTS && memcmp(key->sha256[v], sha256, SHA256_BYTES) != 0)
        v++;
    return v;
}

void key_put(struct key *key, unsigned n, unsigned variant, unsigned level,
             const struct object *row)
{
    key->put_at[n] = row->put_at;
    key->exists_on |= (uint8_t)(1u << n);
    key->body_on[variant] |= (uint8_t)(1u << n);
    key_level(key, n, level);
}

bool key_owes_body(const struct key *key, unsigned n, unsigned variant, const struct object *row)
{
    bool alone = key->submitted == 1u << variant;

    return key->body_on[variant] & 1u << n &&
           (alone || memcmp(&key->put_at[n], &row->put_at, sizeof row->put_at) == 0);
}

void key_level(struct key *key, unsigned n, unsigned level)
{
    for (unsigned l = 0; l <= level; l++)
        key->level_on[l] |= (uint8_t)(1u << n);
}

void key_deleted(struct key *key, unsigned n)
{
    key->deleted_on |= (uint8_t)(1u << n);
}

void key_seen(struct key *key, unsigned n, const struct object *row)
{
    if (!row)
        return;
    if (row->flags & OBJECT_DELETED) {
        key_deleted(key, n);
        return;
    }
    unsigned v = key_variant(key, row->sha256);

    key->exists_on |= (uint8_t)(1u << n);
    key_level(key, n, row->level);
    if (v < VARIANTS && !place_is_none(&row->place))
        key->body_on[v] |= (uint8_t)(1u << n);
}

void key_held(struct key *key, unsigned n, const struct object *row)
{
    unsigned v = key_variant(key, row->sha256);

    if (n < NODES && v < VARIANTS)
        key->body_on[v] |= (uint8_t)(1u << n);
}

/* ---- Disks that go ---- */

typedef void each_mask(uint8_t *now, uint8_t *backup, uint8_t bit);

static void each(unsigned n, each_mask *change)
{
    uint8_t bit = (uint8_t)(1u << n);

    for (size_t i = 0; i < world.key_count; i++) {
        struct key *key = &world.keys[i];

        change(&key->exists_on, &key->backup[0], bit);
        for (unsigned v = 0; v < VARIANTS; v++)
            change(&key->body_on[v], &key->backup[1 + v], bit);
        change(&key->deleted_on, &key->backup[4], bit);
        for (unsigned l = 0; l < 3; l++)
            change(&key->level_on[l], &key->backup_level[l], bit);
    }
}

static void wipe(uint8_t *now, uint8_t *backup, uint8_t bit)
{
    (void)backup;
    *now &= (uint8_t)~bit;
}

static void back_up(uint8_t *now, uint8_t *backup, uint8_t bit)
{
    *backup = (uint8_t)((*backup & ~bit) | (*now & bit));
}

static void restore(uint8_t *now, uint8_t *backup, uint8_t bit)
{
    *now = (uint8_t)((*now & ~bit) | (*backup & bit));
}

void keys_wipe(unsigned n)
{
    each(n, wipe);
}

void keys_backup(unsigned n)
{
    each(n, back_up);
}

void keys_restore(unsigned n)
{
    each(n, restore);
}

static unsigned cloned_from;

static void copy_bit(uint8_t *now, uint8_t *backup, uint8_t bit)
{
    (void)backup;
    *now = (uint8_t)((*now & ~bit) | (*now >> cloned_from & 1 ? bit : 0));
}

void keys_clone(unsigned n, unsigned from)
{
    cloned_from = from;
    each(n, copy_bit);
    for (size_t i = 0; i < world.key_count; i++)
        world.keys[i].put_at[n] = world.keys[i].put_at[from];
}
