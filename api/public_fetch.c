/*
 * GET of an id that this node has never heard of, by a client that allows to look for it in the
 * cloud (X-Meta-Fetch): the object is adopted (api/adoption.h), then looked up once more and
 * answered as any other.
 */
#include "api/public_impl.h"

#include <strings.h>

bool public_fetch_allowed(const struct public_request *request)
{
    struct slice value = http_request_header(request->http, "x-meta-fetch", NULL);

    if (!store_adoptions(request->api->store))
        return false;
    return (value.len == 1 && value.ptr[0] == '1') ||
           (value.len == 4 && strncasecmp(value.ptr, "true", 4) == 0);
}

static void looked_for(struct http_request *http)
{
    struct public_request *request = http_request_data(http);
    int rc = adoption_result(request->adoption);

    adoption_release(&request->adoption);
    if (rc) {
        public_fail(http, rc, OPERATION_GET, &request->id);
        return;
    }
    request->is_fetched = true;
    public_get_again(request);
}

static void wake(struct adoption_waiter *waiter)
{
    const struct public_request *request =
        container_of(waiter, struct public_request, adoption_waiter);

    http_post(request->http, looked_for);
}

int public_fetch(struct public_request *request)
{
    request->may_fetch = false;
    request->adoption_waiter.wake = wake;
    return adoption_ask(&request->adoption, store_adoptions(request->api->store), &request->id,
                        false, &request->adoption_waiter);
}
