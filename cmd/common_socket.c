/*
 * Both programs name the control socket the same way: STATE_DIR/control.sock.
 */
#include "cmd/common_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

int control_socket_path(char out[SOCKET_PATH_BYTES], const char *state_dir, int *fd)
{
    int len = snprintf(out, SOCKET_PATH_BYTES, "%s/control.sock", state_dir);

    *fd = -1;
    if (len > 0 && (size_t)len < SOCKET_PATH_BYTES)
        return 0;
    *fd = open(state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0)
        return err_from_errno(errno);
    (void)snprintf(out, SOCKET_PATH_BYTES, "/proc/self/fd/%d/control.sock", *fd);
    return 0;
}
