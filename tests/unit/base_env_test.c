/* Goal: the system's clocks are in nanoseconds and go forward, its random bytes differ. */
#include "base/env.h"

#include "base/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void clocks_tell_nanoseconds(void **state)
{
    struct env *env = env_system();
    uint64_t seconds = (uint64_t)time(NULL);

    (void)state;
    assert_in_range(env->wall_ns(env) / 1000000000u, seconds, seconds + 5);
    assert_in_range(env_wall_ms(env) / 1000, seconds, seconds + 5);
    uint64_t before = env->mono_ns(env);
    for (int i = 0; i < 1000; i++) {
        uint64_t now = env->mono_ns(env);

        assert_true(now >= before);
        before = now;
    }
    assert_in_range(env_mono_ms(env), before / 1000000, before / 1000000 + 5000);
}

static void random_bytes_fill_all_and_only_what_was_asked(void **state)
{
    struct env *env = env_system();
    static uint8_t a[100000], b[100000];

    (void)state;
    a[99999] = 0xaa;
    env->random(env, a, 99999);
    assert_int_equal(a[99999], 0xaa);
    env->random(env, b, sizeof b);
    assert_memory_not_equal(a, b, 99999);
    /* The chance that the last 16 bytes stayed zero is nil. */
    static const uint8_t zero[16];
    assert_memory_not_equal(b + sizeof b - 16, zero, 16);
    env->random(env, NULL, 0);
}

/* One getrandom() gives 32 MiB at most. */
static void random_bytes_fill_more_than_one_call_gives(void **state)
{
    struct env *env = env_system();
    size_t len = ((size_t)33 << 20) + 16;
    uint8_t *bytes = calloc(1, len);
    static const uint8_t zero[16];

    (void)state;
    assert_non_null(bytes);
    env->random(env, bytes, len);
    assert_memory_not_equal(bytes + len - 16, zero, 16);
    free(bytes);
}

static void there_is_one_environment_with_the_systems_files(void **state)
{
    (void)state;
    assert_ptr_equal(env_system(), env_system());
    assert_ptr_equal(env_system()->io, io_system());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clocks_tell_nanoseconds),
        cmocka_unit_test(random_bytes_fill_all_and_only_what_was_asked),
        cmocka_unit_test(random_bytes_fill_more_than_one_call_gives),
        cmocka_unit_test(there_is_one_environment_with_the_systems_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
