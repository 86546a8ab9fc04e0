/*
 * The XML that S3 answers with: errors, lists of keys, tags, and single values. Read with expat,
 * and only as far as S3 goes: no document types, no entities of one's own, bounded depth. Pure.
 */
#ifndef STORAGE_S3_XML_H
#define STORAGE_S3_XML_H

#include "storage/cloud.h"

#define S3_XML_VALUE_BYTES 4096 /* of one element; longer ones are malformed */

/* What an <Error> says; empty where it does not. Not trusted: for people and for our decisions. */
struct s3_error {
    char code[64];
    char message[160]; /* one line; control characters became blanks */
    char region[64];
    char endpoint[256];
};

/* ERR_INVALID where TEXT is no XML or its root is no <Error>; *OUT is then all empty. */
int s3_xml_error(struct s3_error *out, const char *text, size_t len) MUST_CHECK;

/* The text of element PATH ("InitiateMultipartUploadResult/UploadId"), into OUT, terminated.
 * ERR_INVALID: malformed, not there, or longer than CAP - 1. */
int s3_xml_value(char *out, size_t cap, const char *path, const char *text, size_t len) MUST_CHECK;

/* A ListBucketResult, with its keys encoded as a URL's or not; EACH for every key in turn
 * (decoded), until it returns non-zero. *MORE: it was cut short. ERR_INVALID, ERR_NO_MEMORY, or
 * what EACH returned. */
int s3_xml_list(const char *text, size_t len,
                int (*each)(void *arg, const struct cloud_entry *entry), void *arg,
                bool *more) MUST_CHECK;

/* A Tagging; EACH likewise. */
int s3_xml_tags(const char *text, size_t len,
                int (*each)(void *arg, struct cloud_text name, struct cloud_text value),
                void *arg) MUST_CHECK;

#endif
