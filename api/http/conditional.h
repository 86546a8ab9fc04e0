/* Preconditions of a request (RFC 9110 §13): pure. */
#ifndef API_HTTP_CONDITIONAL_H
#define API_HTTP_CONDITIONAL_H

#include "api/http/http.h"

/* What the request asks; absent slices where a header was not sent. */
struct conditional {
    struct slice if_match, if_none_match, if_modified_since, if_unmodified_since, if_range;
};

struct conditional conditional_of(const struct http_request *request);

enum conditional_result { CONDITIONAL_GO, CONDITIONAL_NOT_MODIFIED, CONDITIONAL_FAILED };

/* Take the next entity tag off LIST, which is not "*": *TAG with its quotes, *WEAK: it bore a W/.
 * False at the end, and where the list is malformed: something of it is left then. */
bool conditional_next_tag(struct slice *list, struct slice *tag, bool *weak);

/* Evaluate in the order of RFC 9110 §13.2.2 for a GET or HEAD of a representation with the strong
 * entity tag ETAG (with its quotes; NULL where there is no object) last modified at MODIFIED_S
 * (Unix seconds). */
enum conditional_result conditional_evaluate(const struct conditional *conditional,
                                             const char *etag, uint64_t modified_s);

/* Whether a Range header counts: no If-Range, or one that names this very representation. */
bool conditional_range_applies(const struct conditional *conditional, const char *etag,
                               uint64_t modified_s);

#endif
