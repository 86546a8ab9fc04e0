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

const char *model_place(unsigned id, unsigned variant, char out[16])
{
    snprintf(out, 16, "%u-%u", id, variant);
    return out;
}

static bool same_body(unsigned id, unsigned a, unsigned b)
{
    return memcmp(model_sha256(id, a), model_sha256(id, b), SHA256_BYTES) == 0;
}

static bool is_uploaded(unsigned id, const struct fact *fact)
{
    return fact->uploaded && !fact->purged && same_body(id, fact->uploaded - 1, fact->variant);
}

static int expect_cloud(const struct fact *before, const struct wish *wish, struct fact *after)
{
    bool live = before->kind == FACT_LIVE;

    if (before->kind == FACT_NONE)
        return ERR_NOT_FOUND;
    switch (wish->cloud_state) {
    case CLOUD_STARTED:
        if (!live)
            return ERR_DELETED;
        if (!same_body(wish->id, wish->variant, before->variant))
            return ERR_CONFLICT;
        if (is_uploaded(wish->id, before))
            return 0;
        after->begun = true;
        break;
    case CLOUD_UPLOADED:
        after->uploaded = 1 + wish->variant;
        after->purged = after->begun = false;
        break;
    case CLOUD_PURGED:
        after->purged = true;
        after->begun = false;
        break;
    default:
        if (live)
            return ERR_CONFLICT;
        after->marked = true;
    }
    after->cloud = true;
    return 0;
}

int model_expect(const struct fact *before, const struct wish *wish, struct fact *after)
{
    *after = *before;
    switch (wish->kind) {
    case CHANGE_DELETE:
        after->kind = FACT_DELETED;
        after->variant = after->level = after->name = 0;
        after->purge |= wish->purge;
        return 0;
    case CHANGE_CLOUD:
        return expect_cloud(before, wish, after);
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
           a->name == b->name && a->cloud == b->cloud && a->uploaded == b->uploaded &&
           a->purge == b->purge && a->purged == b->purged && a->marked == b->marked &&
           a->begun == b->begun;
}

static bool is_text(struct text text, const char *want)
{
    return text.len == strlen(want) && memcmp(text.ptr, want, text.len) == 0;
}

/* Which body was uploaded last, if any; and that it is said where to. */
static bool observe_upload(unsigned id, const struct object *object, struct fact *out)
{
    struct cloud_place place;
    char want[16];
    unsigned variant = 0;

    if (!object_cloud(object, &place))
        return object->uploaded_at.stamp == 0;
    while (variant < SIM_VARIANTS &&
           memcmp(object->uploaded_sha256, model_sha256(id, variant), SHA256_BYTES) != 0)
        variant++;
    if (variant == SIM_VARIANTS)
        return false;
    out->uploaded = 1 + variant;
    return object->uploaded_at.stamp > 0 && is_text(place.backend, "sim") &&
           place.bucket.len == 0 && is_text(place.key, model_place(id, variant, want)) &&
           is_text(place.etag, want);
}

static bool observe_cloud(unsigned id, const struct object *object, struct fact *out)
{
    out->cloud = object->flags & OBJECT_CLOUD;
    out->purge = object->flags & OBJECT_PURGE;
    out->purged = object->flags & OBJECT_PURGED;
    out->marked = object->flags & OBJECT_MARKED;
    return observe_upload(id, object, out) &&
           (out->kind != FACT_LIVE || !(object->flags & OBJECT_UPLOADED) == !is_uploaded(id, out));
}

bool model_observe(unsigned id, const struct object *object, struct fact *out)
{
    *out = (struct fact){.kind = FACT_NONE};
    if (!object)
        return true;
    if (object->flags & OBJECT_DELETED) {
        out->kind = FACT_DELETED;
        return observe_cloud(id, object, out);
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
    return out->variant < SIM_VARIANTS && out->name < 8 && observe_cloud(id, object, out);
}

const char *fact_text(const struct fact *fact, char out[80])
{
    static const char *const kinds[] = {"nothing", "live", "deleted"};

    if (fact->kind == FACT_LIVE)
        snprintf(out, 80, "live, body %u, level %u, name %s%s, upload %u%s", fact->variant,
                 fact->level, fact->name < 8 ? model_name(fact->name) : "?",
                 fact->cloud ? ", cloud" : "", fact->uploaded, fact->begun ? ", begun" : "");
    else
        snprintf(out, 80, "%s%s, upload %u%s%s%s%s", kinds[fact->kind],
                 fact->cloud ? ", cloud" : "", fact->uploaded, fact->purge ? ", to purge" : "",
                 fact->purged ? ", purged" : "", fact->marked ? ", marked" : "",
                 fact->begun ? ", begun" : "");
    return out;
}
