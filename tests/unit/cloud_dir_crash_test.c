/* Goal: on a disk that may lose all that was not synced, at whatever call the process dies or the
 * power goes: what was answered is there, whole; what was not is there whole, or as it was before;
 * what a HEAD has told stays true; and the directory is known again. */
#include "storage/cloud_dir.h"

#include "base/log.h"
#include "tests/sim/sim_disk.h"
#include "tests/unit/cloud_contract.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __SANITIZE_THREAD__
#define STRIDE 7 /* one thread at a time works here */
#else
#define STRIDE 1
#endif

#define DISK_BYTES (64u << 20)
#define LARGE      (300u << 10) /* more than is written at once */
#define NOW_NS     (UINT64_C(1763700000) * 1000000000)

static const char *const keys[] = {"a", "d/e/f", ".deleted/x", "d/e/g", "d/h"};
#define KEYS (sizeof keys / sizeof *keys)

/* What is done, in this order: VERSION of a key is put, or 0: deleted. */
static const struct step {
    unsigned key, version;
} steps[] = {{0, 1}, {1, 2}, {2, 1}, {0, 2}, {1, 0}, {3, 1},
             {1, 1}, {0, 0}, {4, 2}, {3, 0}, {0, 3}};
#define STEPS (sizeof steps / sizeof *steps)

/* Bit N: version N may be there; 0: none. */
struct world {
    struct sim_disk *disk;
    struct env env;
    struct cloud *cloud;
    unsigned may[KEYS];
    uint64_t dice, calls, die_at;
};

static uint8_t bodies[4][LARGE];
static const size_t sizes[] = {0, 1000, LARGE, 5};

static enum sim_fate gate(struct sim_disk *disk, enum sim_op op, const char *path, int *rc)
{
    struct world *world = disk->arg;

    (void)path;
    *rc = ERR_IO;
    return op != SIM_READ && ++world->calls == world->die_at ? SIM_DIE : SIM_PASS;
}

static uint64_t now_ns(struct env *env)
{
    (void)env;
    return NOW_NS;
}

static void roll(struct env *env, void *buf, size_t len)
{
    struct world *world = env->arg;

    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = (uint8_t)(sim_dice(&world->dice) >> 32);
}

static void world_open(struct world *world)
{
    const struct cloud_dir_config config = {
        .env = &world->env, .path = "/sim/cloud", .memory = "/sim/memory"};
    char message[256];

    int rc = cloud_dir_create(&world->cloud, &config, message, sizeof message);
    if (rc && !world->disk->dead)
        fail_msg("%s", message);
}

static void world_begin(struct world *world, uint64_t seed)
{
    *world = (struct world){.dice = seed | 1};
    world->disk = sim_disk_create(seed, DISK_BYTES);
    world->disk->gate = gate;
    world->disk->arg = world;
    world->env = (struct env){
        .io = &world->disk->io, .wall_ns = now_ns, .mono_ns = now_ns, .random = roll, .arg = world};
    for (size_t i = 0; i < KEYS; i++)
        world->may[i] = 1;
}

static void world_end(struct world *world)
{
    cloud_destroy(&world->cloud);
    sim_disk_destroy(&world->disk);
}

/* The process is gone: so is what it had open. */
static void crash(struct world *world, enum sim_crash kind)
{
    world->disk->dead = true;
    cloud_destroy(&world->cloud);
    world->die_at = 0;
    sim_disk_restart(world->disk, kind);
    world_open(world);
}

static void do_step(struct world *world, const struct step *step)
{
    struct cloud_call call;

    cloud_call_init(&call, world->cloud, step->version ? CLOUD_PUT : CLOUD_DELETE, "",
                    keys[step->key]);
    static const struct cloud_pair pair = {{"of", 2}, {"it", 2}};
    call.request.pairs = &pair;
    call.request.pair_count = 1;
    if (step->version)
        cloud_call_body(&call, bodies[step->version], sizes[step->version]);
    int rc = cloud_call_do(&call);
    if (rc && !world->disk->dead)
        fail_msg("%s: %s", keys[step->key], call.request.message);
    world->may[step->key] = (rc ? world->may[step->key] : 0) | 1u << step->version;
}

/* Which version of a key there is, all of it. It has to be one that may be. */
static unsigned check_key(struct world *world, unsigned key)
{
    struct cloud_call call;
    unsigned version = 0;

    cloud_call_init(&call, world->cloud, CLOUD_GET, "", keys[key]);
    int rc = cloud_call_do(&call);
    if (rc == 0) {
        for (unsigned v = 1; v < 4; v++)
            if (call.len == sizes[v] && memcmp(call.bytes, bodies[v], call.len) == 0)
                version = v;
        if (version == 0)
            fail_msg("%s: %zu bytes that nobody put", keys[key], call.len);
        assert_string_equal(call.pairs, "of=it\n");
    } else if (rc != ERR_NOT_FOUND) {
        fail_msg("%s: %s", keys[key], call.request.message);
    }
    if (!(world->may[key] & 1u << version))
        fail_msg("call %llu: %s is at version %u, not one of %#x", (unsigned long long)world->calls,
                 keys[key], version, world->may[key]);
    cloud_call_free(&call);
    return version;
}

static void check(struct world *world)
{
    static struct cloud_call list;
    char expected[256] = "";
    static const unsigned order[] = {2, 0, 1, 3, 4}; /* as bytes sort */
    unsigned versions[KEYS];

    for (unsigned i = 0; i < KEYS; i++)
        versions[i] = check_key(world, i);
    for (size_t i = 0; i < KEYS; i++) {
        size_t at = strlen(expected);

        if (versions[order[i]])
            (void)snprintf(expected + at, sizeof expected - at, "%s:%zu\n", keys[order[i]],
                           sizes[versions[order[i]]]);
    }
    cloud_call_init(&list, world->cloud, CLOUD_LIST, "", "");
    assert_int_equal(cloud_call_do(&list), 0);
    assert_string_equal(list.keys, expected);
}

static size_t run_until_death(struct world *world, size_t from)
{
    size_t at = from;

    while (at < STEPS && !world->disk->dead && world->cloud)
        do_step(world, &steps[at++]);
    return at;
}

/* How many calls all of it makes. */
static uint64_t rehearse(void)
{
    struct world world;

    world_begin(&world, 1);
    world_open(&world);
    assert_int_equal(run_until_death(&world, 0), STEPS);
    check(&world);
    uint64_t calls = world.calls;
    world_end(&world);
    assert_in_range(calls, 60, 1000);
    return calls;
}

static void what_was_answered_survives_a_loss_of_power(void **state)
{
    uint64_t calls = rehearse();

    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++)
        for (uint64_t k = 1 + seed % STRIDE; k <= calls + 1; k += STRIDE) {
            struct world world;

            world_begin(&world, seed * 1000 + k);
            world.die_at = k;
            world_open(&world);
            size_t at = run_until_death(&world, 0);
            crash(&world, SIM_POWER);
            check(&world);
            /* Life goes on, up to another loss. */
            (void)run_until_death(&world, at);
            crash(&world, SIM_POWER);
            check(&world);
            world_end(&world);
        }
}

/* HEAD as whoever takes an upload over asks: what it says is relied upon. */
static void rely_on_heads(struct world *world)
{
    for (unsigned i = 0; i < KEYS; i++) {
        struct cloud_call call;
        unsigned version = 0;

        cloud_call_init(&call, world->cloud, CLOUD_HEAD, "", keys[i]);
        int rc = cloud_call_do(&call);
        if (rc == ERR_NOT_FOUND)
            continue;
        assert_int_equal(rc, 0);
        for (unsigned v = 1; v < 4; v++)
            version = call.size == sizes[v] ? v : version;
        assert_true(world->may[i] & 1u << version);
        world->may[i] = 1u << version;
    }
}

/* A process is killed; what it had not synced is seen by the next one, which builds upon it. Then
 * the power goes. */
static void what_a_killed_process_left_is_made_durable_before_it_counts(void **state)
{
    uint64_t calls = rehearse();

    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++)
        for (uint64_t k = 1 + seed % STRIDE; k <= calls; k += STRIDE) {
            struct world world;

            world_begin(&world, seed * 7000 + k);
            world.die_at = k;
            world_open(&world);
            size_t at = run_until_death(&world, 0);
            crash(&world, SIM_KILL);
            check(&world);
            if (seed == 1) {
                rely_on_heads(&world);
            } else if (at > 0) { /* what was under way is done once more */
                do_step(&world, &steps[at - 1]);
            }
            crash(&world, SIM_POWER);
            check(&world);
            world_end(&world);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_answered_survives_a_loss_of_power),
        cmocka_unit_test(what_a_killed_process_left_is_made_durable_before_it_counts),
    };

    log_configure(LOG_ERROR, LOG_TEXT);
    for (size_t v = 1; v < 4; v++)
        for (size_t i = 0; i < sizes[v]; i++)
            bodies[v][i] = (uint8_t)(v * 37 + i * 7 + (i >> 8) * 3);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
