/*
 * What a file of the directory cloud bears behind the body: its metadata, as text. Pure.
 *
 *     body, from the file's first byte on
 *     newline, {"type":…,"meta":{…},"tags":{…}}, newline
 *     "objstore-cloud 1 " size " " length of the JSON " " SHA-256 " " XXH3-64 newline
 *
 * Numbers are decimal with leading zeros, checksums hex; the last one covers the JSON and the line
 * up to it. So a whole object is one file, which a rename puts in place at once; `head -c SIZE`
 * gives the body and `tail -n 2` the rest. A file that does not end so was put there by somebody
 * else, and is a body all through.
 */
#ifndef STORAGE_CLOUD_DIR_TRAILER_H
#define STORAGE_CLOUD_DIR_TRAILER_H

#include "storage/cloud.h"

#define TRAILER_LINE_BYTES 128
#define TRAILER_JSON_BYTES (64u << 10) /* at most */

/* From what REQUEST (a PUT) says of its object, in a fresh buffer for the caller to free. */
int trailer_write(char **out, size_t *len, const struct cloud_request *request) MUST_CHECK;

struct trailer_line {
    uint64_t size; /* of the body */
    uint32_t json_bytes;
    char sha256[2 * SHA256_BYTES + 1];
    uint64_t checksum;
};

/* The last line of a file of FILE_SIZE bytes. False: it is none. */
bool trailer_line_read(struct trailer_line *out, const char line[TRAILER_LINE_BYTES],
                       uint64_t file_size);

/* What stands in the JSON; texts are lent by it. */
struct trailer {
    void *json;
    struct cloud_text type;
    struct cloud_pair pairs[LIMIT_CLOUD_PAIRS], tags[LIMIT_CLOUD_PAIRS];
    size_t pair_count, tag_count;
};

/* From LEN bytes of JSON, followed by a newline and LINE as read from the file. ERR_CORRUPT: it is
 * not what was written; ERR_NO_MEMORY. */
int trailer_read(struct trailer *out, const struct trailer_line *line, const char *json,
                 const char text[TRAILER_LINE_BYTES]) MUST_CHECK;
void trailer_release(struct trailer *trailer);

#endif
