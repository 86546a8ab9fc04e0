/*
 * Goal: a file of the directory cloud is an object of ours only where all of its trailer fits, and
 * what it says, written again, is read as the same; a key has one path, which stays inside; and a
 * name on the disk is a part of a key or none.
 * Input: what it is (1 byte): 0 the file, 1 a key, 2 a file's name, 3 a file whose line and
 * checksum are made to fit (the text before it is its JSON).
 */
#include "base/hash.h"
#include "base/text.h"
#include "storage/cloud_dir_name.h"
#include "storage/cloud_dir_trailer.h"
#include "tests/fuzz/fuzz.h"

#include <inttypes.h>

static bool same_text(struct cloud_text a, struct cloud_text b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static bool same_pairs(const struct cloud_pair *a, size_t a_count, const struct cloud_pair *b,
                       size_t b_count)
{
    size_t found = 0;

    for (size_t i = 0; i < a_count; i++)
        for (size_t k = 0; k < b_count; k++)
            found += same_text(a[i].name, b[k].name) && same_text(a[i].value, b[k].value);
    return a_count == b_count && found == a_count;
}

/* Read the trailer at the end of FILE. False: it has none, or a damaged one. */
static bool read_file(const char *file, size_t len, struct trailer_line *line,
                      struct trailer *trailer)
{
    if (len < TRAILER_LINE_BYTES)
        return false;
    const char *text = file + len - TRAILER_LINE_BYTES;
    if (!trailer_line_read(line, text, len))
        return false;
    CHECK(line->size + line->json_bytes + 2 + TRAILER_LINE_BYTES == len);
    CHECK(line->json_bytes <= TRAILER_JSON_BYTES && strlen(line->sha256) == 2 * SHA256_BYTES);
    char *json = exact_copy(file + line->size + 1, line->json_bytes);
    int rc = trailer_read(trailer, line, json, text);
    CHECK(rc == 0 || rc == ERR_CORRUPT);
    free(json);
    return rc == 0;
}

static void check_again(const struct trailer_line *line, const struct trailer *trailer)
{
    struct cloud_request put = {.op = CLOUD_PUT,
                                .size = line->size,
                                .type = trailer->type,
                                .pairs = trailer->pairs,
                                .pair_count = trailer->pair_count,
                                .tags = trailer->tags,
                                .tag_count = trailer->tag_count};
    struct trailer_line line_again;
    struct trailer again;
    char *text, *json;
    size_t len;

    CHECK(hex_decode(put.sha256, SHA256_BYTES, line->sha256, 2 * SHA256_BYTES) == 0);
    int rc = trailer_write(&text, &len, &put);
    if (rc == ERR_INVALID)
        return; /* with all its escapes it is longer than any */
    CHECK(rc == 0);
    const char *last = text + len - TRAILER_LINE_BYTES;
    CHECK(trailer_line_read(&line_again, last, line->size + len));
    CHECK(line_again.size == line->size &&
          text_equal_nocase(line_again.sha256, 2 * SHA256_BYTES, line->sha256, 2 * SHA256_BYTES));
    json = exact_copy(text + 1, line_again.json_bytes);
    CHECK(trailer_read(&again, &line_again, json, last) == 0);
    CHECK(same_text(again.type, trailer->type));
    CHECK(same_pairs(again.pairs, again.pair_count, trailer->pairs, trailer->pair_count));
    CHECK(same_pairs(again.tags, again.tag_count, trailer->tags, trailer->tag_count));
    trailer_release(&again);
    free(json);
    free(text);
}

static void try_file(const char *file, size_t len)
{
    struct trailer_line line;
    struct trailer trailer = {0};

    if (read_file(file, len, &line, &trailer))
        check_again(&line, &trailer);
    trailer_release(&trailer);
}

/* JSON as a trailer of an empty body, with all that could keep it from being looked at. */
static void try_repaired(const char *json, size_t len)
{
    char *file = malloc(len + 3 + TRAILER_LINE_BYTES);

    CHECK(file);
    if (len <= TRAILER_JSON_BYTES) {
        char sha[2 * SHA256_BYTES + 1];

        memset(sha, 'a', sizeof sha);
        sha[2 * SHA256_BYTES] = 0;
        file[0] = '\n';
        memcpy(file + 1, json, len);
        char *line = file + 2 + len;
        line[-1] = '\n';
        int at = sprintf(line, "objstore-cloud 1 %020d %07zu %s ", 0, len, sha);
        (void)sprintf(line + at, "%016" PRIx64 "\n",
                      xxh64(line, (size_t)at, xxh64(len ? json : "", len, 0)));
        CHECK(strlen(line) == TRAILER_LINE_BYTES);
        try_file(file, len + 2 + TRAILER_LINE_BYTES);
    }
    free(file);
}

/* ---- Names ---- */

static void try_key(const char *key, size_t len)
{
    char path[CLOUD_DIR_PATH_BYTES], back[CLOUD_DIR_PATH_BYTES];
    bool goes_on = false, first = true;
    size_t at = 0;
    int rc = cloud_dir_path(path, sizeof path, key, len);

    CHECK(rc == 0 || rc == ERR_TOO_BIG || rc == ERR_INVALID);
    if (rc == ERR_INVALID)
        CHECK(memchr(key, 0, len));
    if (rc)
        return;
    CHECK(path[0] && path[0] != '/' && strlen(path) < sizeof path && !strstr(path, "//"));
    for (char *name = strtok(path, "/"); name; name = strtok(NULL, "/")) {
        size_t got;

        CHECK(strlen(name) <= 255 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
              strcmp(name, CLOUD_DIR_OWN) != 0);
        for (const char *c = name; *c; c++)
            CHECK((unsigned char)*c >= 0x20 && *c != 0x7f);
        if (!first && !goes_on)
            back[at++] = '/';
        CHECK(cloud_dir_name(back + at, &got, &goes_on, name) == 0);
        at += got;
        first = false;
    }
    CHECK(!goes_on && at == len && (len == 0 || memcmp(back, key, len) == 0));
}

static void try_name(const char *text, size_t len)
{
    char name[256], out[256];
    size_t got;
    bool goes_on;

    (void)snprintf(name, sizeof name, "%.*s", (int)(len < 255 ? len : 255), text);
    if (strchr(name, '/') || !name[0])
        return;
    int rc = cloud_dir_name(out, &got, &goes_on, name);
    CHECK(rc == 0 || rc == ERR_INVALID);
    if (rc == 0)
        CHECK(got <= strlen(name) && !memchr(out, 0, got));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t len = size ? size - 1 : 0;
    char *text = exact_copy(size ? data + 1 : data, len);

    switch (size ? data[0] % 4 : 0) {
    case 0:
        try_file(text, len);
        break;
    case 1:
        try_key(text, len);
        break;
    case 2:
        try_name(text, len);
        break;
    default:
        try_repaired(text, len);
    }
    free(text);
    return 0;
}
