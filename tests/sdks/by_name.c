/* Leads a program that looks for port 443 of fcm.googleapis.com or iid.googleapis.com to the port
 * BY_NAME of this machine, as entries in a name server would. Nobody else's port 443 is within its
 * reach. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int is_herald(const char *node) {
    return node != NULL &&
           (strcmp(node, "fcm.googleapis.com") == 0 || strcmp(node, "iid.googleapis.com") == 0);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        dlsym(RTLD_NEXT, "getaddrinfo");
    if (is_herald(node)) node = "127.0.0.1";
    return next(node, service, hints, found);
}

int connect(int file, const struct sockaddr *address, socklen_t length) {
    int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    const char *port = getenv("BY_NAME");
    /* The port stands at the same place in both families. */
    struct sockaddr_in6 there;
    if (port == NULL || length > sizeof there ||
        (address->sa_family != AF_INET && address->sa_family != AF_INET6))
        return next(file, address, length);
    memcpy(&there, address, length);
    if (there.sin6_port == htons(443)) there.sin6_port = htons((unsigned short)atoi(port));
    return next(file, (struct sockaddr *)&there, length);
}
