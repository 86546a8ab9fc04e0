/*
 * Goal: a large file is served as it was written or not at all: whichever of its bytes are changed,
 * cut off or added, the whole check notices, and no block is handed out that differs.
 * Input: flags (1 byte: 1 the file is the rest of the input, 2 its length changes, 4 the length
 * asked for is another), the body's size (3), then changes: an offset (3), a byte to flip bits with
 * (1).
 */
#include "base/limits.h"
#include "storage/large.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_io.h"

#define MAX_BODY (5 * BLOCK_BYTES)

enum flags { RAW = 1, OTHER_LENGTH = 2, OTHER_SIZE = 4, EARLY_NAME = 8 };

static const struct id128 store_id = {{1, 2, 3}};

static struct memory_io memory;
static struct large_store *store;

static uint8_t byte_at(uint64_t at)
{
    return (uint8_t)(at * 7 + (at >> 8) + (at >> 16) * 3);
}

/* Write a body of SIZE bytes in pieces of odd lengths. */
static uint64_t write_file(uint64_t size, uint64_t *trailer)
{
    static uint8_t body[MAX_BODY];
    struct large_writer *writer;
    uint64_t number, size_out;

    for (uint64_t i = 0; i < size; i++)
        body[i] = byte_at(i);
    CHECK(large_create(&writer, store) == 0);
    for (uint64_t at = 0; at < size;) {
        size_t step = at % 3 == 0 ? 50001 : 70000;

        step = step < size - at ? step : (size_t)(size - at);
        CHECK(large_write(writer, body + at, step) == 0);
        at += step;
    }
    CHECK(large_finish(writer, &number, &size_out, trailer) == 0 && size_out == size);
    large_writer_destroy(&writer, false);
    return number;
}

static struct memory_file *only_file(void)
{
    struct memory_file *found = NULL;

    for (int i = 0; i < MEMORY_FILES; i++)
        if (memory.files[i].path[0]) {
            CHECK(!found);
            found = &memory.files[i];
        }
    CHECK(found);
    return found;
}

/* Change the file as the input says; whether it differs now. */
static bool damage(struct feed *feed, struct memory_file *file, unsigned flags)
{
    uint8_t *before = exact_copy(file->data, file->len);
    size_t len = file->len;

    if (flags & RAW) {
        size_t got;
        const uint8_t *raw = feed_some(feed, feed->left, &got);

        memory_resize(file, got);
        if (got)
            memcpy(file->data, raw, got);
    }
    if (flags & OTHER_LENGTH)
        memory_resize(file, (size_t)feed_number(feed, 3) % (2 * MAX_BODY));
    while (feed->left > 0 && file->len > 0) {
        size_t at = (size_t)feed_number(feed, 3) % file->len;

        file->data[at] ^= (uint8_t)feed_number(feed, 1);
    }
    bool differs = file->len != len || memcmp(before, file->data, len) != 0;
    free(before);
    return differs;
}

static void read_blocks(uint64_t number, uint64_t size, bool same_size)
{
    uint8_t *buf = malloc(BLOCK_BYTES);
    struct large_reader *reader;
    size_t len;

    CHECK(buf);
    int rc = large_reader_open(&reader, store, number, size);
    CHECK(rc == 0 || rc == ERR_CORRUPT || rc == ERR_FORMAT);
    CHECK(rc == 0 || !reader);
    for (uint64_t i = 0; !rc && i < block_count(size); i++) {
        int bad = large_read_block(reader, i, buf, &len, false);

        CHECK(bad == 0 || bad == ERR_CORRUPT);
        for (size_t k = 0; !bad && same_size && k < len; k++)
            CHECK(buf[k] == byte_at(i * BLOCK_BYTES + k));
    }
    large_reader_close(&reader);
    free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    unsigned flags = (unsigned)feed_number(&feed, 1);
    uint64_t body = feed_number(&feed, 3) % (MAX_BODY + 1), asked = body, trailer;

    if (!store) {
        memory_init(&memory);
        CHECK(large_open(&store, &memory.env, "/f", &store_id, 7, true) == 0);
    }
    memory_clear(&memory);
    uint64_t number = write_file(body, &trailer);
    if (!(flags & EARLY_NAME))
        CHECK(large_settle(store, &number, 1) == 0);
    CHECK(large_check(store, number, body, trailer, true) == 0);
    if (flags & OTHER_SIZE)
        asked = feed_number(&feed, 3);
    bool differs = damage(&feed, only_file(), flags) || asked != body;
    int rc = large_check(store, number, asked, trailer, true);
    CHECK((rc == 0) == !differs);
    CHECK(rc == 0 || rc == ERR_CORRUPT || rc == ERR_FORMAT);
    read_blocks(number, asked, asked == body && !(flags & RAW));
    CHECK(large_remove(store, number) == 0 && memory.open_now == 0);
    return 0;
}
