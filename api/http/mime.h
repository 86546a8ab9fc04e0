/* Media types by file name extension. */
#ifndef API_HTTP_MIME_H
#define API_HTTP_MIME_H

#include <stddef.h>

/* The type for NAME's extension in any case (text/… with "; charset=utf-8"), or NULL where it has
 * none that is known. Static. */
const char *mime_by_name(const char *name, size_t len);

#endif
