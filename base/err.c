/*
 * The words for our error codes, and the way from errno to them.
 *
 * One table carries both the stable word and the sentence, so that a code added to err.h without
 * its words shows in the unit test, not in a user's log.
 */
#include "base/err.h"

#include <errno.h>
#include <stddef.h>

struct words {
    const char *name, *text;
};

static const struct words words[] = {
    [-ERR_NONE] = {"none", "success"},
    [-ERR_INVALID] = {"invalid", "malformed input"},
    [-ERR_RANGE] = {"out_of_range", "value outside the allowed range"},
    [-ERR_TOO_BIG] = {"too_big", "larger than the limit"},
    [-ERR_NOT_FOUND] = {"not_found", "not found"},
    [-ERR_EXISTS] = {"exists", "exists already"},
    [-ERR_CONFLICT] = {"conflict", "conflicts with what is stored"},
    [-ERR_DELETED] = {"deleted", "deleted"},
    [-ERR_CORRUPT] = {"corrupt", "damaged data"},
    [-ERR_MISMATCH] = {"mismatch", "the bytes received are not those announced"},
    [-ERR_NO_MEMORY] = {"no_memory", "out of memory"},
    [-ERR_NO_SPACE] = {"no_space", "no space left"},
    [-ERR_IO] = {"io", "input or output failed"},
    [-ERR_AGAIN] = {"again", "not available without waiting"},
    [-ERR_FULL] = {"full", "too busy, a queue is full"},
    [-ERR_CLOSED] = {"closed", "closed or shutting down"},
    [-ERR_TIMEOUT] = {"timeout", "timed out"},
    [-ERR_LOCKED] = {"locked", "locked by another process"},
    [-ERR_FORMAT] = {"format", "unknown format version or feature"},
    [-ERR_WRONG_STORE] = {"wrong_store", "belongs to another store"},
    [-ERR_IN_USE] = {"in_use", "address already in use"},
    [-ERR_PERMISSION] = {"permission", "permission denied"},
    [-ERR_READ_ONLY] = {"read_only", "this node takes no writes now"},
    [-ERR_UNSUPPORTED] = {"unsupported", "not supported here"},
    [-ERR_UNVERIFIED] = {"unverified", "the stored copy is not verified yet"},
    [-ERR_PRECONDITION] = {"precondition_failed", "a precondition of the change does not hold"},
    [-ERR_ELSEWHERE] = {"elsewhere", "the body is not on this node"},
    [-ERR_DRAINING] = {"draining", "this node is about to leave the cluster"},
    [-ERR_OUTSIDE] = {"not_a_member", "this node has left the cluster or was forgotten"},
    [-ERR_CLOUD] = {"cloud_unavailable", "the cloud does not answer now"},
};

static const struct words *find(int rc)
{
    static const struct words unknown = {"unknown", "unknown error"};
    int count = (int)(sizeof words / sizeof *words);

    if (rc > 0 || rc <= -count || !words[-rc].name)
        return &unknown;
    return &words[-rc];
}

const char *err_text(int rc)
{
    return find(rc)->text;
}

const char *err_name(int rc)
{
    return find(rc)->name;
}

int err_from_errno(int errno_value)
{
    switch (errno_value) {
    case 0:
        return 0;
    case ENOENT:
    case ENOTDIR: /* a parent that is a file: the path leads nowhere */
        return ERR_NOT_FOUND;
    case EEXIST:
    case ENOTEMPTY:
        return ERR_EXISTS;
    case ENOMEM:
        return ERR_NO_MEMORY;
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case EFBIG:
    case E2BIG:
    case EMSGSIZE:
    case EOVERFLOW:
        return ERR_TOO_BIG;
    case EAGAIN:
    case EINPROGRESS:
        return ERR_AGAIN;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
        return ERR_FULL;
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
    case ECONNABORTED:
    case ENOTCONN:
    case ESHUTDOWN:
        return ERR_CLOSED;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    case ETXTBSY:
    case EBUSY:
    case EDEADLK:
        return ERR_LOCKED;
    case EADDRINUSE:
        return ERR_IN_USE;
    case EACCES:
    case EPERM:
    case EROFS:
        return ERR_PERMISSION;
    case ENOSYS:
    case EOPNOTSUPP:
    case EAFNOSUPPORT:
    case EPROTONOSUPPORT:
        return ERR_UNSUPPORTED;
    case EINVAL:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case EILSEQ:
        return ERR_INVALID;
    case ERANGE:
    case EDOM:
        return ERR_RANGE;
    default:
        return ERR_IO;
    }
}
