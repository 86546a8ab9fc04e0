/* The model: see sim_model.h. Pure. */
#include "tests/sim/sim_model.h"

#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>

struct id128 model_id(unsigned id)
{
    struct id128 out = {{0x01, 0x8b, 0xcf, 0xe5, 0x68}};

    /* Some differ in their last bytes alone: their rows share a key. */
    out.bytes[id % 3 == 0 ? 6 : 15] = (uint8_t)(id + 1);
    return out;
}

static uint64_t mix(unsigned id, unsigned variant, unsigned what)
{
    unsigned words[3] = {id, variant, what};

    return xxh64(words, sizeof words, 7);
}

size_t model_size(unsigned id, unsigned variant)
{
    static const size_t least[16] = {0,    1,    200,  700,  900,  1500, 2000,  2500,
                                     3000, 4000, 4096, 5000, 6000, 9000, 20000, 66000};
    uint64_t dice = mix(id, variant, 1);
    size_t base = least[dice % 16];

    return base ? base + (size_t)(dice >> 8) % (base < 512 ? 64 : base) : 0;
}

bool model_large(unsigned id, unsigned variant)
{
    return model_size(id, variant) > 100000 || mix(id, variant, 2) % 5 == 0;
}

void model_body(unsigned id, unsigned variant, uint8_t *out)
{
    uint64_t state = mix(id, variant, 3) | 1;
    size_t size = model_size(id, variant);

    for (size_t i = 0; i < size; i += 8) {
        state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
        memcpy(out + i, &state, size - i < 8 ? size - i : 8);
    }
}

const uint8_t *model_sha256(unsigned id, unsigned variant)
{
    static uint8_t known[SIM_IDS][SIM_VARIANTS][SHA256_BYTES];
    static bool is_known[SIM_IDS][SIM_VARIANTS];
    static uint8_t body[SIM_BODY_BYTES];

    if (!is_known[id][variant]) {
        model_body(id, variant, body);
        sha256(body, model_size(id, variant), known[id][variant]);
        is_known[id][variant] = true;
    }
    return known[id][variant];
}

const char *model_name(unsigned name)
{
    static const char *const names[] = {"n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"};

    return names[name % 8];
}

int model_expect(const struct fact *before, const struct wish *wish, struct fact *after)
{
    *after = *before;
    switch (wish->kind) {
    case CHANGE_DELETE:
        *after = (struct fact){.kind = FACT_DELETED};
        return 0;
    case CHANGE_META:
        if (before->kind != FACT_LIVE)
            return before->kind == FACT_NONE ? ERR_NOT_FOUND : ERR_DELETED;
        if (wish->has_level && wish->level < before->level)
            return ERR_CONFLICT;
        if (wish->has_level)
            after->level = wish->level;
        if (wish->has_name)
            after->name = wish->name;
        return 0;
    case CHANGE_PUT:
        if (before->kind == FACT_DELETED)
            return ERR_DELETED;
        if (before->kind == FACT_LIVE && before->variant != wish->variant &&
            memcmp(model_sha256(wish->id, wish->variant), model_sha256(wish->id, before->variant),
                   SHA256_BYTES) != 0)
            return ERR_CONFLICT;
        if (before->kind == FACT_LIVE && !wish->verified)
            return ERR_UNVERIFIED;
        if (before->kind == FACT_NONE || wish->level > before->level)
            after->level = wish->level;
        if (before->kind == FACT_NONE)
            after->variant = wish->variant;
        after->kind = FACT_LIVE;
        after->name = wish->name;
        return 0;
    default:
        abort();
    }
}

bool fact_equal(const struct fact *a, const struct fact *b)
{
    return a->kind == b->kind && a->variant == b->variant && a->level == b->level &&
           a->name == b->name;
}

bool model_observe(unsigned id, const struct object *object, struct fact *out)
{
    *out = (struct fact){.kind = FACT_NONE};
    if (!object)
        return true;
    if (object->flags & OBJECT_DELETED) {
        out->kind = FACT_DELETED;
        return true;
    }
    struct text name = object_name(object);

    out->kind = FACT_LIVE;
    out->level = object->level;
    while (out->variant < SIM_VARIANTS &&
           (memcmp(object->sha256, model_sha256(id, out->variant), SHA256_BYTES) != 0 ||
            object->size != model_size(id, out->variant)))
        out->variant++;
    while (out->name < 8 && (name.len != 2 || memcmp(name.ptr, model_name(out->name), 2) != 0))
        out->name++;
    return out->variant < SIM_VARIANTS && out->name < 8;
}

const char *fact_text(const struct fact *fact, char out[80])
{
    static const char *const kinds[] = {"nothing", "live", "deleted"};

    if (fact->kind == FACT_LIVE)
        snprintf(out, 80, "live, body %u, level %u, name %s", fact->variant, fact->level,
                 fact->name < 8 ? model_name(fact->name) : "?");
    else
        snprintf(out, 80, "%s", kinds[fact->kind]);
    return out;
}
