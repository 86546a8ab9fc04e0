/*
 * Metadata behind a body: the format stands in the header.
 *
 * Writing gathers the texts in JSON and puts the line behind it. Reading takes the line first,
 * which has a fixed length and says where the JSON is; a line whose numbers do not add up to the
 * file's size is somebody else's text.
 */
#include "storage/cloud_dir_trailer.h"

#include "base/json.h"
#include "base/text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC         "objstore-cloud 1 "
#define SIZE_DIGITS   20
#define LENGTH_DIGITS 7
#define SUM_DIGITS    16
#define AT_SIZE       (sizeof MAGIC - 1)
#define AT_LENGTH     (AT_SIZE + SIZE_DIGITS + 1)
#define AT_SHA        (AT_LENGTH + LENGTH_DIGITS + 1)
#define AT_SUM        (AT_SHA + 2 * SHA256_BYTES + 1)
_Static_assert(AT_SUM + SUM_DIGITS + 1 == TRAILER_LINE_BYTES, "the line's parts fill it");

static json_t *text_of(struct cloud_text text)
{
    return json_stringn(text.len ? text.ptr : "", text.len);
}

static bool add_pairs(json_t *into, const char *name, const struct cloud_pair *pairs, size_t count)
{
    json_t *object = json_object();
    bool added = object != NULL;

    for (size_t i = 0; i < count && added; i++)
        added = json_object_setn_new(object, pairs[i].name.ptr, pairs[i].name.len,
                                     text_of(pairs[i].value)) == 0;
    return json_object_set_new(into, name, object) == 0 && added;
}

static uint64_t checksum_of(const char *json, size_t len, const char *line)
{
    return xxh64(line, AT_SUM, xxh64(json, len, 0));
}

int trailer_write(char **out, size_t *len, const struct cloud_request *request)
{
    json_t *root = json_object();
    char *json = NULL, *text = NULL, sha[2 * SHA256_BYTES + 1];
    int rc = ERR_NO_MEMORY;

    assert(request->op == CLOUD_PUT);
    *out = NULL;
    if (!root || json_object_set_new(root, "type", text_of(request->type)) ||
        !add_pairs(root, "meta", request->pairs, request->pair_count) ||
        !add_pairs(root, "tags", request->tags, request->tag_count))
        goto out;
    if (json_write(&json, root, JSON_COMPACT | JSON_SORT_KEYS))
        goto out;
    size_t json_bytes = strlen(json);
    if (json_bytes > TRAILER_JSON_BYTES) {
        rc = ERR_INVALID;
        goto out;
    }
    *len = 1 + json_bytes + 1 + TRAILER_LINE_BYTES;
    text = malloc(*len + 1);
    if (!text)
        goto out;
    hex_encode(sha, request->sha256, SHA256_BYTES);
    char *line = text + 1 + json_bytes + 1;
    (void)sprintf(text, "\n%s\n" MAGIC "%0*" PRIu64 " %0*zu %s ", json, SIZE_DIGITS, request->size,
                  LENGTH_DIGITS, json_bytes, sha);
    (void)sprintf(line + AT_SUM, "%0*" PRIx64 "\n", SUM_DIGITS,
                  checksum_of(json, json_bytes, line));
    assert(strlen(line) == TRAILER_LINE_BYTES);
    *out = text;
    rc = 0;
out:
    free(json);
    json_decref(root);
    return rc;
}

bool trailer_line_read(struct trailer_line *out, const char line[TRAILER_LINE_BYTES],
                       uint64_t file_size)
{
    uint64_t json_bytes;
    uint8_t sum[SUM_DIGITS / 2], ignored[SHA256_BYTES];

    if (memcmp(line, MAGIC, AT_SIZE) != 0 || line[AT_LENGTH - 1] != ' ' ||
        line[AT_SHA - 1] != ' ' || line[AT_SUM - 1] != ' ' || line[TRAILER_LINE_BYTES - 1] != '\n')
        return false;
    if (parse_u64(&out->size, line + AT_SIZE, SIZE_DIGITS, INT64_MAX) ||
        parse_u64(&json_bytes, line + AT_LENGTH, LENGTH_DIGITS, TRAILER_JSON_BYTES) ||
        hex_decode(ignored, SHA256_BYTES, line + AT_SHA, 2 * SHA256_BYTES) ||
        hex_decode(sum, sizeof sum, line + AT_SUM, SUM_DIGITS))
        return false;
    out->json_bytes = (uint32_t)json_bytes;
    memcpy(out->sha256, line + AT_SHA, 2 * SHA256_BYTES);
    out->sha256[2 * SHA256_BYTES] = 0;
    out->checksum = 0;
    for (size_t i = 0; i < sizeof sum; i++)
        out->checksum = out->checksum << 8 | sum[i];
    return out->size + 1 + json_bytes + 1 + TRAILER_LINE_BYTES == file_size;
}

static struct cloud_text lent(const json_t *text)
{
    return (struct cloud_text){json_string_value(text), (uint32_t)json_string_length(text)};
}

static int read_pairs(struct cloud_pair *pairs, size_t *count, json_t *object)
{
    const char *name;
    json_t *value;

    *count = 0;
    if (!json_is_object(object) || json_object_size(object) > LIMIT_CLOUD_PAIRS)
        return ERR_CORRUPT;
    json_object_foreach(object, name, value)
    {
        if (!json_is_string(value))
            return ERR_CORRUPT;
        pairs[(*count)++] =
            (struct cloud_pair){.name = {name, (uint32_t)strlen(name)}, .value = lent(value)};
    }
    return 0;
}

int trailer_read(struct trailer *out, const struct trailer_line *line, const char *json,
                 const char text[TRAILER_LINE_BYTES])
{
    json_t *root = NULL;

    *out = (struct trailer){0};
    if (checksum_of(json, line->json_bytes, text) != line->checksum)
        return ERR_CORRUPT;
    int rc = json_read(&root, json, line->json_bytes, JSON_ALLOW_NUL);
    if (rc)
        return rc == ERR_NO_MEMORY ? rc : ERR_CORRUPT;
    out->json = root;
    json_t *type = json_object_get(root, "type");
    rc = json_is_string(type)
             ? read_pairs(out->pairs, &out->pair_count, json_object_get(root, "meta"))
             : ERR_CORRUPT;
    if (rc == 0)
        rc = read_pairs(out->tags, &out->tag_count, json_object_get(root, "tags"));
    if (rc)
        trailer_release(out);
    else
        out->type = lent(type);
    return rc;
}

void trailer_release(struct trailer *trailer)
{
    json_decref(trailer->json);
    *trailer = (struct trailer){0};
}
