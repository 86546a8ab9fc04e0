/* Goal: what is packed is what the reader reads, in the fewest bytes; a full buffer is remembered.
 */
#include "journal/pack.h"

#include "journal/unpack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static struct unpack reader(const struct buf *bytes)
{
    struct unpack in;

    assert_int_equal(buf_check(bytes), 0);
    unpack_init(&in, bytes->data, bytes->len);
    return in;
}

static void numbers_take_the_fewest_bytes(void **state)
{
    static const struct {
        uint64_t value;
        size_t bytes;
    } all[] = {
        {0, 1},     {127, 1},   {128, 2},        {255, 2},        {256, 3},
        {65535, 3}, {65536, 5}, {UINT32_MAX, 5}, {1ull << 32, 9}, {UINT64_MAX, 9},
    };

    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct buf out = {0};

        pack_uint(&out, all[i].value);
        struct unpack in = reader(&out);
        assert_int_equal(out.len, all[i].bytes);
        assert_true(unpack_uint(&in, UINT64_MAX) == all[i].value);
        assert_int_equal(unpack_done(&in), 0);
        buf_release(&out);
    }
}

static void texts_and_bytes_of_every_length_are_read_again(void **state)
{
    static const size_t lengths[] = {0, 1, 31, 32, 255, 256, 65535, 65536, 300000};
    char *data = malloc(300000);

    (void)state;
    assert_non_null(data);
    memset(data, 'x', 300000);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const char *from = lengths[i] ? data : NULL;
        struct buf out = {0};
        uint32_t len;

        pack_str(&out, from, lengths[i]);
        pack_bin(&out, from, lengths[i]);
        struct unpack in = reader(&out);
        const char *text = unpack_str(&in, &len);
        assert_non_null(text);
        assert_int_equal(len, lengths[i]);
        assert_memory_equal(text, data, len);
        const uint8_t *bytes = unpack_bin(&in, &len);
        assert_non_null(bytes);
        assert_int_equal(len, lengths[i]);
        assert_memory_equal(bytes, data, len);
        assert_int_equal(unpack_done(&in), 0);
        buf_release(&out);
    }
    free(data);
}

static void flags_and_containers_are_read_again(void **state)
{
    struct buf out = {0};

    (void)state;
    pack_array(&out, 3);
    pack_bool(&out, true);
    pack_bool(&out, false);
    pack_map(&out, 1);
    pack_str(&out, "k", 1);
    pack_array(&out, 0);
    assert_int_equal(out.len, 7);
    struct unpack in = reader(&out);
    assert_int_equal(unpack_array(&in), 3);
    assert_true(unpack_bool(&in));
    assert_false(unpack_bool(&in));
    assert_int_equal(unpack_map(&in), 1);
    unpack_skip(&in);
    assert_int_equal(unpack_array(&in), 0);
    assert_int_equal(unpack_done(&in), 0);
    buf_release(&out);
}

static void a_full_buffer_is_remembered(void **state)
{
    struct buf out;

    (void)state;
    buf_init(&out, 4);
    pack_uint(&out, 1);
    pack_bin(&out, "abcd", 4); /* six bytes */
    assert_int_equal(buf_check(&out), ERR_TOO_BIG);
    pack_uint(&out, 1); /* there is room, but it would follow on half a value */
    assert_int_equal(buf_check(&out), ERR_TOO_BIG);
    assert_true(out.len <= 4 && out.data[0] == 1);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_take_the_fewest_bytes),
        cmocka_unit_test(texts_and_bytes_of_every_length_are_read_again),
        cmocka_unit_test(flags_and_containers_are_read_again),
        cmocka_unit_test(a_full_buffer_is_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
