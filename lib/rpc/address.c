#include "rpc/address.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"

enum { LOCK_PATH_BYTES = LIMIT_SOCKET_PATH_BYTES + 8 };

const char *address_unix_path(const char *address)
{
    return strncmp(address, "unix:", 5) == 0 ? address + 5 : NULL;
}

void address_target(const char *address, char target[ADDRESS_TARGET_BYTES])
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/";
    const char *path = address_unix_path(address);
    size_t at = (size_t)snprintf(target, ADDRESS_TARGET_BYTES, "%s", path == NULL ? address : "unix:");

    for (; path != NULL && *path != '\0'; path++)
        at += (size_t)snprintf(target + at, ADDRESS_TARGET_BYTES - at,
                               strchr(plain, *path) != NULL ? "%c" : "%%%02X", (unsigned char)*path);
}

static bool unix_check(const char *address, const char *path, struct status *st)
{
    size_t len = strlen(path);

    if (path[0] != '/')
        return status_fail(st, STATUS_INVALID, "%s: give the socket's path from the root on, unix:/path",
                           address);
    if (len > LIMIT_SOCKET_PATH_BYTES)
        return status_fail(
            st, STATUS_INVALID,
            "%s: the socket's path has %zu bytes, at most %d are possible; choose a shorter folder", address,
            len, LIMIT_SOCKET_PATH_BYTES);
    return true;
}

/* "host:port"; an IPv6 host stands in brackets. Returns where the port begins, or NULL. */
static const char *port_of(const char *address)
{
    const char *colon = strrchr(address, ':');
    const char *host_end = address[0] == '[' ? strchr(address, ']') : NULL;

    if (colon == NULL || colon == address || colon[1] == '\0')
        return NULL;
    if (address[0] == '[' ? host_end == NULL || host_end + 1 != colon
                          : memchr(address, ':', (size_t)(colon - address)) != NULL)
        return NULL;
    return colon + 1;
}

bool address_check(const char *address, struct status *st)
{
    const char *path = address_unix_path(address), *port;
    unsigned long number = 0;
    size_t digits;

    if (path != NULL)
        return unix_check(address, path, st);
    if (strlen(address) > ADDRESS_TEXT_MAX)
        return status_fail(st, STATUS_INVALID, "an address has at most %d characters", ADDRESS_TEXT_MAX);
    port = port_of(address);
    if (port == NULL)
        return status_fail(st, STATUS_INVALID, "\"%s\" is not an address: use host:port or unix:/path",
                           address);
    digits = strspn(port, "0123456789");
    if (digits < 6)
        number = strtoul(port, NULL, 10);
    if (port[digits] != '\0' || digits > 5 || number > 65535)
        return status_fail(st, STATUS_INVALID, "\"%s\": the port must be a number from 0 to 65535", address);
    return true;
}

static bool is_same_file(int fd, const char *path)
{
    struct stat open_one, named;

    return fstat(fd, &open_one) == 0 && stat(path, &named) == 0 && open_one.st_ino == named.st_ino &&
           open_one.st_dev == named.st_dev;
}

/* The holder removes the file before it lets go: whoever then gets the lock of a removed file tries anew. */
bool socket_lock(const char *path, int *fd_p, struct status *st)
{
    char lock[LOCK_PATH_BYTES];

    snprintf(lock, sizeof lock, "%s.lock", path);
    for (;;) {
        int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

        if (fd < 0)
            return status_fail(st, status_code_of_errno(errno), "open %s: %m", lock);
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int error = errno;

            close(fd);
            if (error == EINTR)
                continue;
            errno = error;
            if (error == EWOULDBLOCK)
                return status_fail(st, STATUS_UNAVAILABLE,
                                   "%s is served by another process; stop it or use another path", path);
            return status_fail(st, status_code_of_errno(error), "lock %s: %m", lock);
        }
        if (is_same_file(fd, lock)) {
            *fd_p = fd;
            return true;
        }
        close(fd);
    }
}

void socket_unlock(const char *path, int fd)
{
    char lock[LOCK_PATH_BYTES];

    snprintf(lock, sizeof lock, "%s.lock", path);
    unlink(lock);
    close(fd);
}

void address_explain(const char *address, struct status *st)
{
    const char *port = port_of(address);
    struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM }, *found = NULL;
    char host[ADDRESS_TEXT_MAX + 1];
    size_t host_len = (size_t)(port - 1 - address);
    int error, fd;

    snprintf(host, sizeof host, "%.*s", (int)host_len, address);
    if (host[0] == '[') {
        host[host_len - 1] = '\0';
        memmove(host, host + 1, host_len - 1);
    }
    error = getaddrinfo(host, port, &hints, &found);
    if (error != 0) {
        status_fail(st, STATUS_UNAVAILABLE, "cannot listen on %s: %s", address, gai_strerror(error));
        return;
    }
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 1) != 0)
        status_fail(st, STATUS_UNAVAILABLE, "cannot listen on %s: %m", address);
    else
        status_fail(st, STATUS_UNAVAILABLE, "cannot listen on %s; try again", address);
    if (fd >= 0)
        close(fd);
    freeaddrinfo(found);
}
