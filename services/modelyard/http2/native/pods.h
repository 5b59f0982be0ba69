/* The pods of a door: their addresses, and the connections to them. */
#ifndef MODELYARD_PODS_H
#define MODELYARD_PODS_H

#include <netdb.h>

#include "connections.h"

/* Connects to a pod. Whether it has succeeded shows later. */
static void connect_to_pod(server_t *server, pod_t *pod) {
  enum { SILENT_S = 10, BETWEEN_S = 5, UNANSWERED_MS = 20 * 1000 };
  int fd = socket(pod->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return;
  /* A machine that vanishes says nothing. Without effect on a Unix socket. */
  const int on = 1, silent = SILENT_S, between = BETWEEN_S, unanswered = UNANSWERED_MS;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &silent, sizeof silent);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between, sizeof between);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered, sizeof unanswered);
  if (connect(fd, (struct sockaddr *)&pod->address, pod->address_size) != 0 && errno != EINPROGRESS) {
    close(fd);
    return;
  }
  pod->connection = open_connection(server, fd, true, pod);
}

/* Reads `unix:PATH`, `IPV4:PORT` or `[IPV6]:PORT`. Whether it is one of them. */
static bool read_address(const char *text, pod_t *pod) {
  static const char path[] = "unix:";
  memset(&pod->address, 0, sizeof pod->address);
  if (strncmp(text, path, strlen(path)) == 0) {
    struct sockaddr_un *address = (struct sockaddr_un *)&pod->address;
    text += strlen(path);
    if (strlen(text) >= sizeof address->sun_path) return false;
    address->sun_family = AF_UNIX;
    strcpy(address->sun_path, text);
    pod->address_size = sizeof *address;
    return true;
  }
  char host[INET6_ADDRSTRLEN + 2];
  const char *port = strrchr(text, ':');
  size_t size = port == NULL ? 0 : (size_t)(port - text);
  if (size && text[0] == '[' && port[-1] == ']') text++, size -= 2;
  if (size == 0 || size >= sizeof host) return false;
  memcpy(host, text, size);
  host[size] = 0;
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found;
  if (getaddrinfo(host, port + 1, &hints, &found) != 0) return false;
  memcpy(&pod->address, found->ai_addr, found->ai_addrlen);
  pod->address_size = found->ai_addrlen;
  freeaddrinfo(found);
  return true;
}

static pod_t *find_pod(server_t *server, const pod_t *like) {
  pod_t *pod = server->pods;
  while (pod != NULL && memcmp(&pod->address, &like->address, sizeof like->address) != 0) pod = pod->after;
  return pod;
}

static void want_pod(server_t *server, const char *address) {
  pod_t wanted = {0}, *pod;
  if (!read_address(address, &wanted)) return;
  pod = find_pod(server, &wanted);
  if (pod == NULL) {
    pod = malloc(sizeof *pod);
    must(pod);
    *pod = wanted;
    pod->after = server->pods;
    server->pods = pod;
  }
  pod->wanted = true;
  if (pod->connection == NULL) connect_to_pod(server, pod);
}

/* Forgets a pod. The connection to it ends with its last stream. */
static void leave_pod(pod_t *pod) {
  connection_t *connection = pod->connection;
  if (connection != NULL) {
    take_no_more(connection);
    nghttp2.submit_goaway(connection->session, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0);
    touch(connection);
  }
  free(pod);
}

/* Has calls sent to these pods and no others. */
static void set_pods(server_t *server, const char *const *addresses, size_t count) {
  for (pod_t *pod = server->pods; pod != NULL; pod = pod->after) pod->wanted = false;
  for (size_t i = 0; i < count; i++) want_pod(server, addresses[i]);
  for (pod_t **at = &server->pods; *at != NULL;) {
    pod_t *pod = *at;
    if (pod->wanted) {
      at = &pod->after;
    } else {
      *at = pod->after;
      leave_pod(pod);
    }
  }
}

#endif
