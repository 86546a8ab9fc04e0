/* Storing one file: what put and put -r have in common. */
#ifndef CMD_OBJCTL_UPLOAD_H
#define CMD_OBJCTL_UPLOAD_H

#include "base/hash.h"
#include "base/id.h"
#include "cmd/objctl_http.h"
#include "journal/ulid.h"

/* The same for all files of one command. All lent, NULL = not given. */
struct upload_options {
    const char *level, *type;
    const char *user_meta; /* compact JSON in ASCII */
    uint64_t retry_ms;
};

/* One thread's. */
struct uploader {
    struct client client;
    const struct upload_options *options;
    struct digest *digest;
    char *small; /* room for UPLOAD_SMALL_BYTES */
};

#define UPLOAD_SMALL_BYTES (256u * 1024)

int uploader_open(struct uploader *uploader, const char *addr,
                  const struct upload_options *options);
void uploader_close(struct uploader *uploader);

struct upload {
    const char *path; /* for messages */
    const char *name; /* the object's; UTF-8 or not; NULL: none */
    int fd;           /* at its beginning; lent */
    struct id128 id;  /* the object's: the caller draws it, so that a second try is the same put */

    char id_text[ULID_TEXT_BYTES + 1]; /* as the node has it */
    uint64_t size;
    bool pending; /* 202: durable there, the rest of the level's promise is queued */
};

/* CTL_OK, or the exit code after saying why. Verified: the node has the bytes that were read. */
int upload_file(struct uploader *uploader, struct upload *upload);

/* Turn NAME into what a node takes (UTF-8, no control characters, at most LIMIT_NAME_BYTES), in a
 * fresh string: bytes that are neither are percent-escaped; of a path that is too long the last
 * part stays. NULL: no memory, or even that is too long. */
char *upload_name(const char *name);

/* Add X-Meta-Name for a NAME from upload_name: raw where a header can hold it, else by RFC 8187. */
void call_header_name(struct call *call, const char *name);

#endif
