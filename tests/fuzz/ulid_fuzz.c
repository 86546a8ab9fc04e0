/*
 * Goal: text that is an id has one id and one canonical spelling; any sixteen bytes are an id.
 * Input: text, and the same bytes as an id.
 */
#include "base/text.h"
#include "journal/ulid.h"
#include "tests/fuzz/fuzz.h"

static void check_id(const struct id128 *id)
{
    char text[ULID_TEXT_BYTES + 1];
    struct id128 again;
    uint64_t ms = ulid_time_ms(id);

    ulid_format(text, id);
    CHECK(strlen(text) == ULID_TEXT_BYTES && text[0] <= '7');
    CHECK(ulid_parse(&again, text, ULID_TEXT_BYTES) == 0 && id_equal(&again, id));
    CHECK(ms < UINT64_C(1) << 48);
    CHECK((ulid_check_time(id) == 0) == (ms >= ULID_MIN_MS && ms < ULID_MAX_MS));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = exact_copy(data, size);
    struct id128 id = {{0}}, other = {{0}};

    if (ulid_parse(&id, text, size) == 0) {
        char canonical[ULID_TEXT_BYTES + 1];

        CHECK(size == ULID_TEXT_BYTES);
        ulid_format(canonical, &id);
        CHECK(text_equal_nocase(canonical, ULID_TEXT_BYTES, text, size));
        check_id(&id);
    }
    if (size >= 16) {
        memcpy(id.bytes, data, 16);
        check_id(&id);
    }
    if (size >= 32) {
        char a[ULID_TEXT_BYTES + 1], b[ULID_TEXT_BYTES + 1];

        /* Text sorts as the bytes do. */
        memcpy(other.bytes, data + 16, 16);
        ulid_format(a, &id);
        ulid_format(b, &other);
        CHECK((strcmp(a, b) > 0) == (id_compare(&id, &other) > 0));
    }
    free(text);
    return 0;
}
