/* Goal: the RAM tier never answers with what has been replaced, never takes more than its limit,
 * keeps what is hot when much else passes by, and holds a million locations in 64 MiB. */
#include "storage/ram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/limits.h"
#include "storage/ram_locations.h"

static const char etag[] = "\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"";

static struct id128 id_of(uint64_t n)
{
    struct id128 id = {{0}};

    /* As ULIDs of one moment: the first half equal. */
    memcpy(id.bytes + 8, &n, sizeof n);
    id.bytes[0] = 1;
    return id;
}

static struct ram *with_limit(uint64_t limit)
{
    struct ram *ram;

    assert_int_equal(ram_create(&ram, limit), 0);
    assert_non_null(ram);
    return ram;
}

static void fill_at(struct ram *ram, uint64_t token, uint64_t n, size_t bytes, uint8_t version)
{
    static _Thread_local uint8_t body[LIMIT_INLINE_BODY_BYTES + 1];
    struct id128 id = id_of(n);
    char head[32];

    memset(body, version, ram ? bytes : sizeof body);
    int len = snprintf(head, sizeof head, "X-Number: %llu\r\n", (unsigned long long)n);
    if (ram)
        ram_fill(ram, token, &id, head, (size_t)len, body, bytes, n, n + 1, etag);
}

static void fill(struct ram *ram, uint64_t n, size_t bytes)
{
    struct id128 id = id_of(n);

    fill_at(ram, ram_token(ram, &id), n, bytes, (uint8_t)n);
}

/* An entry must be what was filled, to the last byte. */
static void check_entry(const struct ram_entry *entry, uint64_t n)
{
    struct id128 id = id_of(n);

    assert_true(id_equal(&entry->id, &id));
    assert_int_equal(entry->modified_s, n);
    assert_int_equal(entry->expires_ms, n + 1);
    assert_string_equal(entry->etag, etag);
    assert_memory_equal(entry->head, "X-Number: ", 10);
    assert_int_equal(atoll(entry->head + 10), n);
    assert_int_equal(entry->head[entry->head_bytes - 1], '\n');
    if (entry->body_bytes > 0) {
        assert_int_equal(entry->body[0], (uint8_t)n);
        assert_memory_equal(entry->body, entry->body + 1, entry->body_bytes - 1);
    }
}

/* Get, check and release; whether it was there. */
static bool has(struct ram *ram, uint64_t n)
{
    struct id128 id = id_of(n);
    const struct ram_entry *entry = ram_get(ram, &id);

    if (!entry)
        return false;
    check_entry(entry, n);
    ram_release(ram, entry);
    return true;
}

static bool place(struct ram *ram, uint64_t n)
{
    struct id128 id = id_of(n);
    const struct ram_location location = {
        .place = {.disk = n % 5, .volume = 1 + (uint32_t)(n % 1000), .offset = n * 512},
        .record_bytes = (uint32_t)(n % 400000),
    };

    ram_place(ram, ram_token(ram, &id), &id, &location);
    return true;
}

static bool located(struct ram *ram, uint64_t n)
{
    struct id128 id = id_of(n);
    struct ram_location location;

    int rc = ram_locate(ram, &id, &location);
    if (rc == ERR_NOT_FOUND)
        return false;
    assert_int_equal(rc, 0);
    assert_int_equal(location.place.disk, n % 5);
    assert_int_equal(location.place.volume, 1 + n % 1000);
    assert_int_equal(location.place.offset, n * 512);
    assert_int_equal(location.record_bytes, n % 400000);
    return true;
}

static struct ram_stats stats_of(struct ram *ram)
{
    struct ram_stats stats;

    ram_stats(ram, &stats);
    assert_true(stats.used_bytes <= stats.limit_bytes);
    return stats;
}

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static void gives_back_what_was_filled(void **state)
{
    const size_t sizes[] = {0, 1, 1000, 65536, LIMIT_INLINE_BODY_BYTES};
    struct ram *ram = with_limit(64 * MIB);

    (void)state;
    for (uint64_t i = 0; i < 5; i++) {
        struct id128 id = id_of(i);

        assert_false(has(ram, i));
        fill(ram, i, sizes[i]);
        assert_true(has(ram, i));
        const struct ram_entry *entry = ram_get(ram, &id);
        assert_int_equal(entry->body_bytes, sizes[i]);
        ram_release(ram, entry);
    }
    struct ram_stats stats = stats_of(ram);
    assert_int_equal(stats.entries, 5);
    assert_int_equal(stats.hits, 10);
    assert_int_equal(stats.misses, 5);
    fill(ram, 9, LIMIT_INLINE_BODY_BYTES + 1); /* not a body for this tier */
    assert_false(has(ram, 9));
    ram_destroy(&ram);
    assert_null(ram);
    ram_destroy(&ram);
}

static void forgets_what_is_invalidated_but_not_under_its_reader(void **state)
{
    struct ram *ram = with_limit(64 * MIB);
    struct id128 id = id_of(7);

    (void)state;
    fill(ram, 7, 5000);
    place(ram, 7);
    const struct ram_entry *entry = ram_get(ram, &id);
    ram_invalidate(ram, &id);
    assert_false(has(ram, 7));
    assert_false(located(ram, 7));
    assert_int_equal(entry->body[4999], 7);
    fill(ram, 7, 6000);
    assert_true(has(ram, 7));
    assert_int_equal(entry->body_bytes, 5000);
    ram_release(ram, entry);
    ram_destroy(&ram);
}

static void count_watched(void *arg, const struct id128 *id)
{
    (void)id;
    ++*(unsigned *)arg;
}

static void what_is_renewed_has_the_same_bytes_elsewhere(void **state)
{
    struct ram *ram = with_limit(64 * MIB);
    struct id128 id = id_of(7);
    unsigned watched = 0;

    (void)state;
    ram_watch(ram, count_watched, &watched);
    uint64_t token = ram_token(ram, &id);
    fill(ram, 7, 5000);
    place(ram, 7);
    ram_renew(ram, &id);
    assert_false(has(ram, 7));
    assert_false(located(ram, 7));
    fill_at(ram, token, 7, 100, 7);
    assert_false(has(ram, 7));
    assert_int_equal(watched, 0);
    assert_true(ram_same_body(token, ram_token(ram, &id)));
    ram_invalidate(ram, &id);
    assert_int_equal(watched, 1);
    assert_false(ram_same_body(token, ram_token(ram, &id)));
    ram_destroy(&ram);
}

static void an_outdated_fill_is_dropped(void **state)
{
    struct ram *ram = with_limit(64 * MIB);
    struct id128 id = id_of(7);
    const struct ram_location location = {.place = {.volume = 1, .offset = 4096}};

    (void)state;
    uint64_t token = ram_token(ram, &id);
    ram_invalidate(ram, &id); /* even of what is not there */
    fill_at(ram, token, 7, 100, 7);
    ram_place(ram, token, &id, &location);
    assert_false(has(ram, 7));
    assert_false(located(ram, 7));

    token = ram_token(ram, &id);
    fill_at(ram, token, 7, 100, 7);
    assert_true(has(ram, 7));
    fill_at(ram, token, 7, 200, 7); /* the first one stays */
    const struct ram_entry *entry = ram_get(ram, &id);
    assert_int_equal(entry->body_bytes, 100);
    ram_release(ram, entry);
    ram_destroy(&ram);
}

static void takes_next_to_nothing_before_it_is_used(void **state)
{
    struct mallinfo2 before = mallinfo2();
    struct ram *ram = with_limit(64 * MIB);
    struct mallinfo2 after = mallinfo2();

    (void)state;
    assert_true(after.uordblks + after.hblkhd - before.uordblks - before.hblkhd < 256 * KIB);
    assert_int_equal(stats_of(ram).used_bytes, 0);
    ram_destroy(&ram);
}

static void without_a_limit_worth_the_name_it_remembers_nothing(void **state)
{
    const uint64_t limits[] = {0, 1, 1000, 10000};

    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct ram *ram = with_limit(limits[i]);

        for (uint64_t n = 0; n < 100; n++) {
            fill(ram, n, 1000);
            place(ram, n);
            (void)stats_of(ram);
            if (limits[i] <= 1000)
                assert_false(has(ram, n) || located(ram, n));
        }
        ram_destroy(&ram);
    }
}

/* Fills, reads, pins, releases, invalidations and locations at random, over limits from tiny to
 * large: used never exceeds the limit, and no entry's bytes are ever another's. */
static void never_takes_more_than_its_limit(void **state)
{
    enum { STEPS = 60000, PINS = 200, IDS = 4000 };
    const uint64_t limits[] = {50 * KIB, 700 * KIB, 9 * MIB, 64 * MIB};

    (void)state;
    for (size_t l = 0; l < sizeof limits / sizeof *limits; l++) {
        struct ram *ram = with_limit(limits[l]);
        const struct ram_entry *pins[PINS] = {NULL};
        uint64_t seed = 88172645463325252 + l, most = 0;

        for (int i = 0; i < STEPS; i++) {
            uint64_t r = next_random(&seed), n = (r >> 8) % IDS;
            size_t bytes = r % 50 == 0 ? (r >> 32) % LIMIT_INLINE_BODY_BYTES : (r >> 32) % 3000;
            size_t pin = (r >> 24) % PINS;
            struct id128 id = id_of(n);

            switch (r & 7) {
            case 0:
                ram_invalidate(ram, &id);
                break;
            case 1:
                if (pins[pin]) {
                    check_entry(pins[pin], pins[pin]->modified_s);
                    ram_release(ram, pins[pin]);
                }
                pins[pin] = ram_get(ram, &id);
                break;
            case 2:
                place(ram, r >> 8);
                break;
            default:
                if (!has(ram, n))
                    fill(ram, n, bytes);
                break;
            }
            if (i % 16 == 0) {
                uint64_t used = stats_of(ram).used_bytes;

                most = used > most ? used : most;
            }
        }
        /* And it makes use of what it may have. */
        assert_true(l == 3 || most > limits[l] / 2);
        for (int i = 0; i < PINS; i++)
            if (pins[i])
                ram_release(ram, pins[i]);
        for (uint64_t n = 0; n < IDS; n++) {
            struct id128 id = id_of(n);

            ram_invalidate(ram, &id);
        }
        assert_int_equal(stats_of(ram).entries, 0);
        ram_destroy(&ram); /* asserts that nothing is referenced */
    }
}

static size_t resident_bytes(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*u %lu", &pages), 1);
    assert_int_equal(fclose(file), 0);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* The system's view: whatever sizes come and go, the process does not grow beyond the limit. */
static void the_process_takes_no_more_either(void **state)
{
    enum { STEPS = 30000, PHASES = 4 };
    const size_t largest[PHASES] = {3000, LIMIT_INLINE_BODY_BYTES, 500, 60000};
    const uint64_t limit = 16 * MIB;

    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* their shadow counts as ours */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    skip();
#endif
#endif
    fill_at(NULL, 0, 0, 0, 0); /* the test's own buffer */
    size_t before = resident_bytes(), most = 0;
    struct ram *ram = with_limit(limit);
    uint64_t seed = 7;

    for (uint64_t i = 0; i < PHASES * STEPS; i++) {
        size_t bytes = next_random(&seed) % largest[i / STEPS];

        fill(ram, i, bytes);
        if (i % 3 == 0)
            (void)has(ram, i - i % 1000);
        if (i % 100 == 0 && resident_bytes() - before > most)
            most = resident_bytes() - before;
    }
    assert_in_range(most, limit - MIB, limit + MIB);
    ram_destroy(&ram);
}

static void pinned_bytes_leave_less_room_for_others(void **state)
{
    enum { COUNT = 600 };
    struct ram *ram = with_limit(4 * MIB);
    const struct ram_entry *pins[COUNT];
    unsigned pinned = 0;

    (void)state;
    for (uint64_t n = 0; n < COUNT; n++) {
        struct id128 id = id_of(n);

        fill(ram, n, 10000);
        const struct ram_entry *entry = ram_get(ram, &id);
        if (entry)
            pins[pinned++] = entry;
    }
    /* All that fits is pinned, so nothing more comes in, not even a small one. */
    assert_in_range(pinned, 380, 420);
    fill(ram, COUNT, 10000);
    assert_false(has(ram, COUNT));
    (void)stats_of(ram);
    for (unsigned i = 0; i < pinned; i++) {
        assert_int_equal(pins[i]->body[9999], (uint8_t)pins[i]->modified_s);
        ram_release(ram, pins[i]);
    }
    fill(ram, COUNT, 10000);
    assert_true(has(ram, COUNT));
    ram_destroy(&ram);
}

static void a_scan_does_not_flush_what_is_hot(void **state)
{
    enum { HOT = 10000, SCAN = 300000, BYTES = 1000 };
    struct ram *ram = with_limit(64 * MIB);
    unsigned kept = 0;

    (void)state;
    for (int round = 0; round < 4; round++)
        for (uint64_t n = 0; n < HOT; n++)
            if (!has(ram, n))
                fill(ram, n, BYTES);
    /* Five times what fits, each once, while the hot ones are asked for now and then. */
    for (uint64_t n = 0; n < SCAN; n++) {
        if (!has(ram, HOT + n))
            fill(ram, HOT + n, BYTES);
        if (n % 10 == 0 && !has(ram, n / 10 % HOT))
            fill(ram, n / 10 % HOT, BYTES);
    }
    for (uint64_t n = 0; n < HOT; n++)
        kept += has(ram, n);
    assert_true(kept > HOT * 95 / 100);
    assert_true(stats_of(ram).evictions > SCAN / 2);
    ram_destroy(&ram);
}

static void what_is_asked_for_again_and_again_stays(void **state)
{
    enum { HOT = 100, PASSING = 30000, BYTES = 1000 };
    struct ram *ram = with_limit(4 * MIB);
    unsigned missed = 0;

    (void)state;
    /* Each of the passing ones is asked for twice, so it enters the main region as well. */
    for (uint64_t n = 0; n < PASSING; n++) {
        if (!has(ram, n % HOT)) {
            missed++;
            fill(ram, n % HOT, BYTES);
        }
        fill(ram, HOT + n, BYTES);
        assert_true(has(ram, HOT + n) && has(ram, HOT + n));
    }
    assert_true(missed < HOT + HOT / 10);
    assert_true(stats_of(ram).evictions > PASSING / 2);
    ram_destroy(&ram);
}

static void what_came_back_soon_after_it_went_is_kept(void **state)
{
    enum { BYTES = 1000, SCAN = 20000 };
    struct ram *ram = with_limit(4 * MIB);
    uint64_t gone = 0, count = 0;

    (void)state;
    /* Fill until both regions are full and the first one goes, unasked. */
    for (; stats_of(ram).evictions == 0; count++) {
        fill(ram, count, BYTES);
        assert_true(count < 10000);
    }
    while (has(ram, gone))
        assert_true(++gone < count);
    fill(ram, gone, BYTES);
    /* A newcomer of the same moment goes with the scan; the ghost's does not, once it was asked. */
    assert_true(has(ram, gone));
    fill(ram, SCAN * 2, BYTES);
    for (uint64_t n = SCAN; n < SCAN + 5000; n++)
        fill(ram, n, BYTES);
    assert_true(has(ram, gone));
    assert_false(has(ram, SCAN * 2));
    ram_destroy(&ram);
}

static void a_million_locations_fit_into_64_mib(void **state)
{
    enum { COUNT = 1000000 };
    struct ram *ram = with_limit(64 * MIB);
    unsigned kept = 0;

    (void)state;
    for (uint64_t n = 0; n < COUNT; n++)
        place(ram, n);
    struct ram_stats stats = stats_of(ram);
    assert_true(stats.used_bytes <= 32 * MIB);
    assert_int_equal(stats.locations, COUNT);
    for (uint64_t n = 0; n < COUNT; n++)
        kept += located(ram, n);
    assert_int_equal(kept, COUNT);
    assert_false(located(ram, COUNT + 1));

    /* Many more: some make way, what is in use stays, memory does not grow. */
    for (uint64_t n = COUNT; n < 2 * COUNT; n++) {
        place(ram, n);
        if (n % 10 == 0)
            (void)located(ram, n / 10 % 1000);
    }
    stats = stats_of(ram);
    assert_true(stats.used_bytes <= 32 * MIB);
    assert_true(stats.locations > COUNT);
    kept = 0;
    for (uint64_t n = 0; n < 1000; n++)
        kept += located(ram, n);
    assert_true(kept > 900);
    ram_destroy(&ram);
}

static void locations_make_room_among_the_bodies(void **state)
{
    struct ram *ram = with_limit(4 * MIB);

    (void)state;
    for (uint64_t n = 0; n < 5000; n++)
        fill(ram, n, 1000);
    assert_true(stats_of(ram).used_bytes > 3900 * KIB);
    for (uint64_t n = 0; n < 70000; n++) {
        place(ram, n);
        if (n % 100 == 0)
            (void)stats_of(ram);
    }
    struct ram_stats stats = stats_of(ram);
    assert_true(stats.locations > 69000);
    assert_in_range(stats.entries, 1300, 2100);
    ram_destroy(&ram);
}

/* The table alone against a plain model, with hashes that crowd together. */
static void the_location_table_agrees_with_a_model(void **state)
{
    enum { KEYS = 3000, STEPS = 200000 };
    static uint64_t model[KEYS]; /* offset, 0: absent */
    uint64_t hashes[KEYS], seed = 42;

    (void)state;
    for (int crowded = 0; crowded < 2; crowded++) {
        struct location_table table;

        locations_init(&table, 256 * KIB);
        memset(model, 0, sizeof model);
        for (int i = 0; i < KEYS; i++)
            hashes[i] = crowded && i % 4 ? (uint64_t)i << 40 : next_random(&seed);
        for (int i = 0; i < STEPS; i++) {
            uint64_t r = next_random(&seed), key = (r >> 8) % KEYS;
            struct ram_location location = {.place = {.volume = 3, .offset = r | 1}};

            if (r & 1) {
                locations_remove(&table, hashes[key]);
                model[key] = 0;
            } else {
                size_t growth = locations_growth(&table), before = locations_bytes(&table);

                if (growth > 0)
                    assert_int_equal(locations_grow(&table), 0);
                assert_int_equal(locations_bytes(&table), before + growth);
                bool put = locations_put(&table, hashes[key], &location);
                assert_true(put || crowded);
                if (put)
                    model[key] = r | 1;
                else /* refused: then it was not there before either */
                    assert_false(locations_find(&table, hashes[key], &location));
            }
            key = (r >> 24) % KEYS;
            bool found = locations_find(&table, hashes[key], &location);
            /* A crowded table may have forgotten, but never answers what is outdated. */
            if (!crowded)
                assert_int_equal(found, model[key] != 0);
            if (found)
                assert_int_equal(location.place.offset, model[key]);
        }
        locations_release(&table);
    }
}

static void a_location_that_does_not_fit_a_slot_is_not_remembered(void **state)
{
    struct ram *ram = with_limit(4 * MIB);
    struct id128 id = id_of(1);
    struct ram_location odd[] = {
        {.place = {.volume = 0}},
        {.place = {.volume = 1, .disk = 1u << 11}},
        {.place = {.volume = 1}, .record_bytes = 1u << 20},
    };
    struct ram_location large = {.place = {.volume = PLACE_LARGE, .offset = UINT64_MAX}}, out;

    (void)state;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        ram_place(ram, ram_token(ram, &id), &id, &odd[i]);
        assert_int_equal(ram_locate(ram, &id, &out), ERR_NOT_FOUND);
    }
    ram_place(ram, ram_token(ram, &id), &id, &large);
    assert_int_equal(ram_locate(ram, &id, &out), 0);
    assert_true(place_equal(&out.place, &large.place));
    ram_destroy(&ram);
}

/* Writers raise an object's version and invalidate; readers fill and read under them. */
struct race {
    struct ram *ram;
    _Atomic unsigned versions[64];
    atomic_bool stop;
    atomic_uint hits;
    uint64_t seed;
};

static void *write_versions(void *arg)
{
    struct race *race = arg;
    uint64_t seed = 99;

    for (int i = 0; i < 20000; i++) {
        unsigned n = (unsigned)(next_random(&seed) >> 20) % 64;
        struct id128 id = id_of(n);

        atomic_fetch_add(&race->versions[n], 1);
        ram_invalidate(race->ram, &id);
    }
    atomic_store(&race->stop, true);
    return NULL;
}

static void *read_versions(void *arg)
{
    struct race *race = arg;
    uint64_t seed = (uint64_t)(uintptr_t)&seed | 1;

    while (!atomic_load(&race->stop)) {
        unsigned n = (unsigned)(next_random(&seed) >> 20) % 64;
        struct id128 id = id_of(n);
        struct ram_location location;

        uint64_t token = ram_token(race->ram, &id);
        unsigned seen = atomic_load(&race->versions[n]);
        const struct ram_entry *entry = ram_get(race->ram, &id);
        if (entry) {
            /* What is served was current at some moment after the request began, or the writer has
             * not invalidated yet: at most one version behind. */
            uint32_t version;
            memcpy(&version, entry->body, sizeof version);
            assert_true(version + 1 >= seen);
            assert_int_equal(entry->body[entry->body_bytes - 1], 0x5a);
            ram_release(race->ram, entry);
            atomic_fetch_add(&race->hits, 1);
        } else {
            uint8_t body[2000];
            memset(body, 0x5a, sizeof body);
            memcpy(body, &seen, sizeof seen);
            ram_fill(race->ram, token, &id, "h", 1, body, sizeof body - n, 1, 0, etag);
        }
        if (ram_locate(race->ram, &id, &location) == 0)
            assert_true(location.place.offset + 1 >= seen);
        location = (struct ram_location){.place = {.volume = 1, .offset = seen}};
        ram_place(race->ram, token, &id, &location);
    }
    return NULL;
}

static void threads_never_see_an_outdated_answer(void **state)
{
    struct race race = {.ram = with_limit(96 * KIB)}; /* room for half of them */
    pthread_t threads[4];

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, i == 0 ? write_versions : read_versions, &race), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    /* When all is quiet, whatever is left is the latest. */
    for (unsigned n = 0; n < 64; n++) {
        struct id128 id = id_of(n);
        struct ram_location location;
        const struct ram_entry *entry = ram_get(race.ram, &id);

        if (entry) {
            assert_memory_equal(entry->body, &race.versions[n], 4);
            ram_release(race.ram, entry);
        }
        if (ram_locate(race.ram, &id, &location) == 0)
            assert_int_equal(location.place.offset, atomic_load(&race.versions[n]));
    }
    (void)stats_of(race.ram);
    ram_destroy(&race.ram);
}

/* Of a large body only header lines and place are kept; a change forgets them, too. */
static void keeps_the_place_of_a_large_body(void **state)
{
    struct ram *ram = with_limit(8 * MIB);
    const struct ram_large large = {.number = 77, .size = UINT64_C(1) << 40};
    struct id128 id = id_of(5), other = id_of(6);
    uint64_t token = ram_token(ram, &id);

    (void)state;
    ram_fill_large(ram, token, &id, "X-Number: 5\r\n", 13, &large, 5, 6, etag);
    const struct ram_entry *entry = ram_get(ram, &id);
    assert_non_null(entry);
    check_entry(entry, 5);
    assert_int_equal(entry->large.number, 77);
    assert_int_equal(entry->large.size, UINT64_C(1) << 40);
    assert_int_equal(entry->body_bytes, 0);
    ram_release(ram, entry);
    ram_invalidate(ram, &id);
    assert_null(ram_get(ram, &id));
    ram_fill_large(ram, token, &id, "X-Number: 5\r\n", 13, &large, 5, 6, etag); /* outdated */
    assert_null(ram_get(ram, &id));
    fill(ram, 6, 0);
    entry = ram_get(ram, &other);
    assert_non_null(entry);
    assert_int_equal(entry->large.size, 0);
    ram_release(ram, entry);
    ram_destroy(&ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_back_what_was_filled),
        cmocka_unit_test(keeps_the_place_of_a_large_body),
        cmocka_unit_test(forgets_what_is_invalidated_but_not_under_its_reader),
        cmocka_unit_test(what_is_renewed_has_the_same_bytes_elsewhere),
        cmocka_unit_test(an_outdated_fill_is_dropped),
        cmocka_unit_test(takes_next_to_nothing_before_it_is_used),
        cmocka_unit_test(without_a_limit_worth_the_name_it_remembers_nothing),
        cmocka_unit_test(never_takes_more_than_its_limit),
        cmocka_unit_test(the_process_takes_no_more_either),
        cmocka_unit_test(pinned_bytes_leave_less_room_for_others),
        cmocka_unit_test(a_scan_does_not_flush_what_is_hot),
        cmocka_unit_test(what_is_asked_for_again_and_again_stays),
        cmocka_unit_test(what_came_back_soon_after_it_went_is_kept),
        cmocka_unit_test(a_million_locations_fit_into_64_mib),
        cmocka_unit_test(locations_make_room_among_the_bodies),
        cmocka_unit_test(the_location_table_agrees_with_a_model),
        cmocka_unit_test(a_location_that_does_not_fit_a_slot_is_not_remembered),
        cmocka_unit_test(threads_never_see_an_outdated_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
