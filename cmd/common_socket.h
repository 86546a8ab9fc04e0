/* Where a node's control socket is. */
#ifndef CMD_COMMON_SOCKET_H
#define CMD_COMMON_SOCKET_H

#include "base/err.h"

#include <sys/un.h>

#define SOCKET_PATH_BYTES sizeof(((struct sockaddr_un *)0)->sun_path)

/*
 * The path of STATE_DIR's control socket in a form that fits a socket's address: 107 bytes do not
 * hold every directory's name, so a long one is reached through a descriptor of the directory,
 * which is then in *FD (else -1) and must stay open as long as the path is used. ERR_NOT_FOUND, …:
 * the directory cannot be opened.
 */
int control_socket_path(char out[SOCKET_PATH_BYTES], const char *state_dir, int *fd) MUST_CHECK;

#endif
