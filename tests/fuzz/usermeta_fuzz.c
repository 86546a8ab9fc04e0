/*
 * Goal: user meta has one spelling: it is printable ASCII, JSON with the same meaning as what was
 * sent, a fixed point of the function, and an event takes it.
 * Input: what the client sends.
 */
#include "journal/event.h"
#include "journal/usermeta.h"
#include "tests/fuzz/fuzz.h"

#include <jansson.h>

static void check_meaning(const char *text, size_t len, const struct buf *canonical)
{
    json_error_t error;
    json_t *sent = json_loadb(text, len, 0, &error);
    json_t *kept = json_loadb(canonical->data, canonical->len, JSON_REJECT_DUPLICATES, &error);

    CHECK(sent && kept && json_equal(sent, kept));
    json_decref(sent);
    json_decref(kept);
}

static void check_event(const struct buf *canonical)
{
    struct event event = {.origin = {{1}},
                          .node = {{2}},
                          .id = {{3}},
                          .seq = 1,
                          .stamp = 1,
                          .kind = EVENT_META,
                          .fields = EVENT_HAS_USER_META,
                          .user_meta = {canonical->data, (uint32_t)canonical->len}};
    struct event decoded;
    struct buf bytes = {0};

    event_encode(&bytes, &event);
    CHECK(buf_check(&bytes) == 0);
    CHECK(event_decode(&decoded, (const uint8_t *)bytes.data, bytes.len) == 0);
    CHECK(decoded.user_meta.len == canonical->len &&
          memcmp(decoded.user_meta.ptr, canonical->data, canonical->len) == 0);
    buf_release(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = exact_copy(data, size);
    struct buf out = {0}, again = {0};

    buf_text(&out, "before");
    int rc = usermeta_canonical(&out, text, size);
    CHECK(out.len >= 6 && memcmp(out.data, "before", 6) == 0 && buf_check(&out) == 0);
    if (rc) {
        CHECK(out.len == 6);
    } else {
        out.len -= 6;
        memmove(out.data, out.data + 6, out.len);
        CHECK(out.len >= 2 && out.len <= LIMIT_USER_META_BYTES);
        for (size_t i = 0; i < out.len; i++)
            CHECK(out.data[i] >= 0x20 && out.data[i] < 0x7f);
        CHECK(usermeta_canonical(&again, out.data, out.len) == 0);
        CHECK(again.len == out.len && memcmp(again.data, out.data, out.len) == 0);
        check_meaning(text, size, &out);
        check_event(&out);
    }
    buf_release(&out);
    buf_release(&again);
    free(text);
    return 0;
}
