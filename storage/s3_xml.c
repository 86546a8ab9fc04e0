/*
 * One small reader over expat for all answers of S3: it keeps the path of element names, collects
 * the text of the innermost one, and tells the path when an element ends. What to make of it is
 * each answer's own callback.
 *
 * Anything that S3 does not send ends the parse with ERR_INVALID: a document type (and with it
 * every entity but XML's own), more than DEPTH levels, a path or value over its limit.
 */
#include "storage/s3_xml.h"

#include "base/text.h"

#include <assert.h>
#include <expat.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define DEPTH      8
#define PATH_BYTES 256

struct reader {
    XML_Parser parser;
    char path[PATH_BYTES];
    size_t path_len;
    unsigned depth;
    char value[S3_XML_VALUE_BYTES + 1];
    size_t value_len;
    int (*ended)(void *arg, const char *path, const char *value, size_t len);
    void *arg;
    int rc;
};

static void fail(struct reader *reader, int rc)
{
    if (!reader->rc)
        reader->rc = rc;
    (void)XML_StopParser(reader->parser, XML_FALSE);
}

static void on_start(void *data, const XML_Char *name, const XML_Char **attributes)
{
    struct reader *reader = data;
    size_t len = strlen(name);

    (void)attributes;
    if (reader->rc)
        return;
    if (++reader->depth > DEPTH || reader->path_len + len + 2 > sizeof reader->path) {
        fail(reader, ERR_INVALID);
        return;
    }
    if (reader->path_len > 0)
        reader->path[reader->path_len++] = '/';
    memcpy(reader->path + reader->path_len, name, len + 1);
    reader->path_len += len;
    reader->value_len = 0;
}

static void on_end(void *data, const XML_Char *name)
{
    struct reader *reader = data;
    size_t len = strlen(name);

    if (reader->rc)
        return;
    assert(reader->depth > 0 && reader->path_len >= len); /* expat pairs start and end */
    reader->value[reader->value_len] = '\0';
    int rc = reader->ended(reader->arg, reader->path, reader->value, reader->value_len);
    if (rc) {
        fail(reader, rc);
        return;
    }
    reader->depth--;
    reader->path_len -= len;
    if (reader->path_len > 0)
        reader->path_len--;
    reader->path[reader->path_len] = '\0';
    reader->value_len = 0;
}

static void on_text(void *data, const XML_Char *text, int len)
{
    struct reader *reader = data;

    if (reader->rc)
        return;
    if ((size_t)len > S3_XML_VALUE_BYTES - reader->value_len) {
        fail(reader, ERR_INVALID);
        return;
    }
    memcpy(reader->value + reader->value_len, text, (size_t)len);
    reader->value_len += (size_t)len;
}

static void on_doctype(void *data, const XML_Char *name, const XML_Char *system,
                       const XML_Char *public, int internal)
{
    (void)name, (void)system, (void)public, (void)internal;
    fail(data, ERR_INVALID);
}

static int parse(const char *text, size_t len,
                 int (*ended)(void *arg, const char *path, const char *value, size_t len),
                 void *arg)
{
    struct reader reader = {.ended = ended, .arg = arg};

    if (len > INT32_MAX)
        return ERR_INVALID;
    reader.parser = XML_ParserCreate(NULL);
    if (!reader.parser)
        return ERR_NO_MEMORY;
    XML_SetUserData(reader.parser, &reader);
    XML_SetElementHandler(reader.parser, on_start, on_end);
    XML_SetCharacterDataHandler(reader.parser, on_text);
    XML_SetStartDoctypeDeclHandler(reader.parser, on_doctype);
    enum XML_Status status = XML_Parse(reader.parser, text, (int)len, XML_TRUE);
    int rc = reader.rc;
    if (rc == 0 && status != XML_STATUS_OK)
        rc = XML_GetErrorCode(reader.parser) == XML_ERROR_NO_MEMORY ? ERR_NO_MEMORY : ERR_INVALID;
    XML_ParserFree(reader.parser);
    return rc;
}

/* ---- Errors and single values ---- */

static void copy_line(char *out, size_t cap, const char *value)
{
    (void)snprintf(out, cap, "%s", value);
    for (char *c = out; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
    }
}

static int error_ended(void *arg, const char *path, const char *value, size_t len)
{
    struct s3_error *error = arg;

    (void)len;
    if (strncmp(path, "Error", 5) != 0)
        return ERR_INVALID;
    if (strcmp(path, "Error/Code") == 0)
        copy_line(error->code, sizeof error->code, value);
    else if (strcmp(path, "Error/Message") == 0)
        copy_line(error->message, sizeof error->message, value);
    else if (strcmp(path, "Error/Region") == 0)
        copy_line(error->region, sizeof error->region, value);
    else if (strcmp(path, "Error/Endpoint") == 0)
        copy_line(error->endpoint, sizeof error->endpoint, value);
    return 0;
}

int s3_xml_error(struct s3_error *out, const char *text, size_t len)
{
    *out = (struct s3_error){0};

    int rc = parse(text, len, error_ended, out);
    if (rc == 0 && out->code[0] == '\0')
        rc = ERR_INVALID;
    if (rc)
        *out = (struct s3_error){0};
    return rc;
}

struct wanted {
    const char *path;
    char *out;
    size_t cap;
    bool found;
};

static int value_ended(void *arg, const char *path, const char *value, size_t len)
{
    struct wanted *wanted = arg;

    if (strcmp(path, wanted->path) != 0)
        return 0;
    if (len >= wanted->cap || wanted->found)
        return ERR_INVALID;
    memcpy(wanted->out, value, len + 1);
    wanted->found = true;
    return 0;
}

int s3_xml_value(char *out, size_t cap, const char *path, const char *text, size_t len)
{
    struct wanted wanted = {.path = path, .out = out, .cap = cap};

    assert(cap > 0);
    out[0] = '\0';
    int rc = parse(text, len, value_ended, &wanted);
    return rc ? rc : wanted.found ? 0 : ERR_INVALID;
}

/* ---- Lists ---- */

#define LIST "ListBucketResult/"

struct list {
    int (*each)(void *arg, const struct cloud_entry *entry);
    void *arg;
    char key[LIMIT_CLOUD_KEY_BYTES];
    size_t key_len;
    char etag[128];
    size_t etag_len;
    uint64_t size;
    int64_t modified_s;
    bool has_key, has_size, truncated, ended;
    bool encoded; /* whether keys are: not every server does as it is asked */
};

/* "2009-10-12T17:50:30.000Z" */
static int64_t read_time(const char *value)
{
    struct tm utc = {0};
    const char *end = strptime(value, "%Y-%m-%dT%H:%M:%S", &utc);

    return end ? timegm(&utc) : 0;
}

static void read_etag(struct list *list, const char *value, size_t len)
{
    if (len >= 2 && value[0] == '"' && value[len - 1] == '"') {
        value++;
        len -= 2;
    }
    list->etag_len = len <= sizeof list->etag ? len : 0;
    memcpy(list->etag, value, list->etag_len);
}

/* Percent-encoded, with blanks as '+'. */
static int read_key(struct list *list, const char *value, size_t len)
{
    char plain[S3_XML_VALUE_BYTES], decoded[S3_XML_VALUE_BYTES];

    for (size_t i = 0; i < len; i++)
        plain[i] = list->encoded && value[i] == '+' ? ' ' : value[i];
    list->key_len = len;
    if (list->encoded && percent_decode(decoded, &list->key_len, plain, len))
        return ERR_INVALID;
    if (list->key_len == 0 || list->key_len > sizeof list->key)
        return ERR_INVALID;
    memcpy(list->key, list->encoded ? decoded : plain, list->key_len);
    list->has_key = true;
    return 0;
}

static int entry_ended(struct list *list)
{
    struct cloud_entry entry = {.key = {list->key, (uint32_t)list->key_len},
                                .etag = {list->etag, (uint32_t)list->etag_len},
                                .size = list->size,
                                .modified_s = list->modified_s};

    if (!list->has_key || !list->has_size)
        return ERR_INVALID;
    int rc = list->each(list->arg, &entry);
    list->has_key = list->has_size = false;
    list->etag_len = 0;
    list->modified_s = 0;
    return rc;
}

static int list_ended(void *arg, const char *path, const char *value, size_t len)
{
    struct list *list = arg;

    if (strcmp(path, LIST "Contents/Key") == 0)
        return read_key(list, value, len);
    if (strcmp(path, LIST "Contents/Size") == 0) {
        list->has_size = true;
        return parse_u64(&list->size, value, len, UINT64_MAX) ? ERR_INVALID : 0;
    }
    if (strcmp(path, LIST "Contents/ETag") == 0)
        read_etag(list, value, len);
    else if (strcmp(path, LIST "Contents/LastModified") == 0)
        list->modified_s = read_time(value);
    else if (strcmp(path, LIST "Contents") == 0)
        return entry_ended(list);
    else if (strcmp(path, LIST "IsTruncated") == 0)
        list->truncated = strcmp(value, "true") == 0;
    else if (strcmp(path, "ListBucketResult") == 0)
        list->ended = true;
    return 0;
}

int s3_xml_list(const char *text, size_t len,
                int (*each)(void *arg, const struct cloud_entry *entry), void *arg, bool *more)
{
    struct list list = {.each = each, .arg = arg};
    char encoding[8];

    *more = false;
    /* It may stand behind the keys. */
    int rc = s3_xml_value(encoding, sizeof encoding, LIST "EncodingType", text, len);
    if (rc == ERR_NO_MEMORY)
        return rc;
    list.encoded = rc == 0 && strcmp(encoding, "url") == 0;
    rc = parse(text, len, list_ended, &list);
    *more = list.truncated;
    return rc ? rc : list.ended ? 0 : ERR_INVALID;
}

/* ---- Tags ---- */

#define TAG "Tagging/TagSet/Tag"

struct tags {
    int (*each)(void *arg, struct cloud_text name, struct cloud_text value);
    void *arg;
    char name[S3_XML_VALUE_BYTES], value[S3_XML_VALUE_BYTES];
    size_t name_len, value_len;
    bool named, ended;
};

static int tags_ended(void *arg, const char *path, const char *value, size_t len)
{
    struct tags *tags = arg;

    if (strcmp(path, TAG "/Key") == 0) {
        memcpy(tags->name, value, len);
        tags->name_len = len;
        tags->named = true;
    } else if (strcmp(path, TAG "/Value") == 0) {
        memcpy(tags->value, value, len);
        tags->value_len = len;
    } else if (strcmp(path, TAG) == 0) {
        if (!tags->named)
            return ERR_INVALID;
        int rc = tags->each(tags->arg, (struct cloud_text){tags->name, (uint32_t)tags->name_len},
                            (struct cloud_text){tags->value, (uint32_t)tags->value_len});
        tags->named = false;
        tags->value_len = 0;
        return rc;
    } else if (strcmp(path, "Tagging") == 0) {
        tags->ended = true;
    }
    return 0;
}

int s3_xml_tags(const char *text, size_t len,
                int (*each)(void *arg, struct cloud_text name, struct cloud_text value), void *arg)
{
    struct tags tags = {.each = each, .arg = arg};
    int rc = parse(text, len, tags_ended, &tags);

    return rc ? rc : tags.ended ? 0 : ERR_INVALID;
}
