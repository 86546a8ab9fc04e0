/* One call, one connection. A node that does not run is said so: these commands need one. */
#include "cmd/objctl_admin.h"

#include <stdlib.h>
#include <string.h>

uint64_t admin_number(const json_t *object, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(object, name));

    return value > 0 ? (uint64_t)value : 0;
}

const char *admin_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text ? text : "";
}

int admin_ask(const struct ctl *ctl, const char *method, const char *path, json_t *args,
              const char *what, json_t **out)
{
    struct call call = {.method = method, .path = path};
    char *body = args ? json_dumps(args, JSON_COMPACT) : NULL;
    bool bad = args && !body;
    struct client client;

    *out = NULL;
    json_decref(args);
    if (bad)
        return ctl_fail(CTL_USAGE, "%s: an argument is not UTF-8", what);
    int code = client_open_control(&client, ctl->state_dir);
    if (code == CTL_NO_NODE)
        code = ctl_fail(CTL_UNREACHABLE, "%s: no node runs in %s", what, ctl->state_dir);
    if (code) {
        free(body);
        return code;
    }
    client.patient = true;
    call.body = body;
    call.length = body ? (int64_t)strlen(body) : 0;
    if (body)
        call_header(&call, "Content-Type: application/json");
    int rc = client_call(&client, &call);
    if (rc == ERR_CLOSED)
        code = ctl_fail(CTL_UNREACHABLE, "%s: no node runs in %s", what, ctl->state_dir);
    else
        code = client_complain(&client, &call, rc, what);
    if (code == CTL_OK) {
        *out = json_loadb(call.text.data ? call.text.data : "", call.text.len, 0, NULL);
        if (!*out)
            code = ctl_fail(CTL_REFUSED, "%s: the node's answer is not understood", what);
    }
    free(body);
    call_release(&call);
    client_close(&client);
    return code;
}
