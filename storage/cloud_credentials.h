/*
 * Who we are to AWS: access key, secret and session token, from where AWS's own tools look for
 * them, in their order:
 *   1. AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
 *   2. the profile (AWS_PROFILE, else "default") of AWS_SHARED_CREDENTIALS_FILE
 * (~/.aws/credentials)
 *   3. … or of AWS_CONFIG_FILE (~/.aws/config)
 *   4. the container's endpoint (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI)
 *   5. the instance's metadata service, unless AWS_EC2_METADATA_DISABLED is "true"
 * Here is what is read at once (1 to 3) and where to ask for the rest (4, 5); asking is
 * cloud_s3_keys.c's. Nothing here logs.
 */
#ifndef STORAGE_CLOUD_CREDENTIALS_H
#define STORAGE_CLOUD_CREDENTIALS_H

#include "base/io.h"

#define CREDENTIALS_KEY_BYTES    256
#define CREDENTIALS_TOKEN_BYTES  8192
#define CREDENTIALS_REGION_BYTES 64
#define CREDENTIALS_URL_BYTES    1024
#define CREDENTIALS_FILE_BYTES   (1u << 20) /* of a file or an answer with them */
#define CREDENTIALS_EARLY_S      300        /* renewed so long before they expire */

/* All texts are terminated. Wipe what is no longer used with credentials_wipe. */
struct credentials {
    char access_key[CREDENTIALS_KEY_BYTES];
    char secret_key[CREDENTIALS_KEY_BYTES];
    char token[CREDENTIALS_TOKEN_BYTES]; /* empty: none */
    int64_t expires_s;                   /* Unix; 0: never */
};

enum credentials_source {
    CREDENTIALS_ENVIRONMENT = 1,
    CREDENTIALS_FILE,
    CREDENTIALS_CONTAINER,
    CREDENTIALS_INSTANCE,
};

struct credentials_plan {
    enum credentials_source source;
    struct credentials given;              /* ENVIRONMENT, FILE */
    char region[CREDENTIALS_REGION_BYTES]; /* as environment or profile say; empty: they do not */
    char url[CREDENTIALS_URL_BYTES]; /* CONTAINER: what to GET; INSTANCE: http://host[:port] */
    char authorization[CREDENTIALS_TOKEN_BYTES]; /* CONTAINER: that header; empty: none */
    char
        authorization_file[CREDENTIALS_URL_BYTES]; /* … or the file that holds it, read each time */
};

/* getenv, or a test's. */
typedef const char *credentials_getenv(const char *name);

/* Look in the order above. ERR_INVALID with MESSAGE (CAP bytes): what is set makes no sense (half a
 * key, a profile that is not there, a container URL that would send the token abroad), or a file
 * cannot be read that might have keys; ERR_NO_MEMORY. Reads files of at most
 * CREDENTIALS_FILE_BYTES. */
int credentials_find(struct credentials_plan *out, struct io *io, credentials_getenv *get,
                     char *message, size_t cap) MUST_CHECK;

/* One profile of a file of AWS's ini format: its keys and region, empty where it has none. CONFIG:
 * sections are called "profile NAME" but for "default". ERR_NOT_FOUND: no such profile;
 * ERR_INVALID: a value is too long; ERR_UNSUPPORTED: it has no keys of its own but a way to get
 * some that we do not know (a role, single sign-on, a process). */
int credentials_profile(struct credentials *out, char region[CREDENTIALS_REGION_BYTES],
                        const char *text, size_t len, const char *profile, bool config) MUST_CHECK;

/* What containers' and instances' endpoints answer: JSON with AccessKeyId, SecretAccessKey, Token
 * and Expiration (RFC 3339). ERR_INVALID where one of the first two is missing. */
int credentials_json(struct credentials *out, const char *text, size_t len) MUST_CHECK;

void credentials_wipe(struct credentials *credentials);

#endif
