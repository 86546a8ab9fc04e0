/*
 * Error codes: every function that can fail returns 0 or one of these, always negative. errno does
 * not cross a module's border; it is translated where the system call was made.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define MUST_CHECK __attribute__((warn_unused_result))

enum err {
    ERR_NONE = 0,
    ERR_INVALID = -1,    /* input is malformed: a client's, a peer's or a file's */
    ERR_RANGE = -2,      /* well-formed, but outside what is allowed */
    ERR_TOO_BIG = -3,    /* over a limit of base/limits.h or of the operator */
    ERR_NOT_FOUND = -4,  /* no such object, file or key */
    ERR_EXISTS = -5,     /* the name is taken */
    ERR_CONFLICT = -6,   /* other bytes already live under this id, or a level would be lowered */
    ERR_DELETED = -7,    /* a tombstone stands there, for ever */
    ERR_CORRUPT = -8,    /* a checksum or a structure on disk is wrong */
    ERR_MISMATCH = -9,   /* the bytes received are not those the sender's digest or length names */
    ERR_NO_MEMORY = -10, /* an allocation failed */
    ERR_NO_SPACE = -11,  /* the disk, or the part of it that may be used, is full */
    ERR_IO = -12,        /* the disk or the socket failed */
    ERR_AGAIN = -13,     /* would block: ask again elsewhere or later */
    ERR_FULL = -14,      /* a bounded queue is full: the caller must slow down */
    ERR_CLOSED = -15,    /* the other side went away, or this part is shutting down */
    ERR_TIMEOUT = -16,   /* a deadline passed */
    ERR_LOCKED = -17,    /* another process owns it */
    ERR_FORMAT = -18,    /* a file of a version or with a feature this build does not know */
    ERR_WRONG_STORE = -19,  /* a file or directory that belongs to another store or generation */
    ERR_IN_USE = -20,       /* the address is taken by another process */
    ERR_PERMISSION = -21,   /* the system refuses us */
    ERR_READ_ONLY = -22,    /* this node takes no writes now (a sync or an apply failed) */
    ERR_UNSUPPORTED = -23,  /* known, but not offered here */
    ERR_UNVERIFIED = -24,   /* the same bytes exist here, but nobody has checked that copy yet */
    ERR_PRECONDITION = -25, /* the object is not in the state that the change asks for */
    ERR_ELSEWHERE = -26,    /* no copy of the bytes is here, but other nodes may have one */
    ERR_DRAINING = -27,     /* this node hands over what it has, to leave: it takes no writes */
    ERR_OUTSIDE = -28,      /* this node has left the cluster, or was forgotten: as above */
    ERR_CLOUD = -29,        /* only the cloud has it, which does not answer now */
};

/* A short English sentence without a full stop for RC; for 0 "success". Never NULL. Static. */
const char *err_text(int rc);

/* The stable lower-case word for RC ("not_found"), used in JSON errors and logs. Static. */
const char *err_name(int rc);

/* The enum err that best describes ERRNO_VALUE. Never 0, unless ERRNO_VALUE is 0. */
int err_from_errno(int errno_value);

#endif
