/* How connections are opened, accepted and closed. */
#ifndef MODELYARD_CONNECTIONS_H
#define MODELYARD_CONNECTIONS_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "frames.h"
#include "http2_state.h"

static connection_t **list_of(const connection_t *connection) {
  return connection->is_onward ? &connection->server->onwards : &connection->server->clients;
}

static connection_t *open_connection(server_t *server, int fd, bool onward, pod_t *pod) {
  connection_t *connection = calloc(1, sizeof *connection);
  must(connection);
  connection->server = server;
  connection->fd = fd;
  connection->is_onward = onward;
  connection->heard = true;
  connection->payload_left = PREFACE_SIZE; /* before the first frame */
  connection_t **list = list_of(connection);
  connection->after = *list;
  if (*list) (*list)->before = connection;
  *list = connection;
  connection->pod = pod;
  nghttp2_option *option = pod ? server->pod_option : onward ? server->onward_option : server->option;
  int made = onward ? nghttp2.session_client_new2(&connection->session, server->callbacks, connection, option)
                    : nghttp2.session_server_new2(&connection->session, server->callbacks, connection, option);
  if (made != 0) abort(); /* without memory */
  nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, MOST_STREAMS},
  };
  nghttp2.submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, onward ? 1 : 2);
  nghttp2.session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
  watch(connection, EPOLLIN);
  touch(connection);
  return connection;
}

static void close_connection(connection_t *connection) {
  server_t *server = connection->server;
  connection->broken = true;
  /* Closing alone would leave it in epoll's set while a process that has been forked meanwhile has it open too. */
  if (connection->fd >= 0) {
    epoll_ctl(server->epoll, EPOLL_CTL_DEL, connection->fd, NULL);
    close(connection->fd);
  }
  if (connection->before) {
    connection->before->after = connection->after;
  } else {
    *list_of(connection) = connection->after;
  }
  if (connection->after) connection->after->before = connection->before;
  take_no_more(connection);
  if (!connection->is_onward) server->client_count--;
  if (!server->draining) listen_again(server, true); /* if it could not be for want of descriptors */
  while (connection->streams != NULL) close_stream(connection->streams, NGHTTP2_CANCEL);
  nghttp2.session_del(connection->session);
  discard(&connection->unsent);
  free(connection);
}

static connection_t *connect_onward(server_t *server) {
  /* Blocking, it would wait for room in the queue of a server that accepts nothing. */
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return NULL;
  /* To a Unix socket it succeeds or fails at once; then nothing is waited for any more. */
  if (connect(fd, (struct sockaddr *)&server->behind, sizeof server->behind) != 0) {
    close(fd);
    return NULL;
  }
  server->onward = open_connection(server, fd, true, NULL);
  return server->onward;
}

/* Keeps a client's address as text; that of IPv4 as such, even if the listener is one for IPv6. */
static void note_peer(connection_t *client, const struct sockaddr_storage *address) {
  const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
  const void *four = &((const struct sockaddr_in *)address)->sin_addr;
  bool is_six = address->ss_family == AF_INET6;
  if (is_six && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) is_six = false, four = six->sin6_addr.s6_addr + 12;
  if (!is_six && address->ss_family == AF_UNIX) return;
  inet_ntop(is_six ? AF_INET6 : AF_INET, is_six ? (const void *)&six->sin6_addr : four, client->peer,
            sizeof client->peer);
}

static void accept_clients(server_t *server, int listener) {
  for (int i = 0; i < EVENTS_PER_TURN; i++) {
    struct sockaddr_storage from = {.ss_family = AF_UNIX};
    socklen_t size = sizeof from;
    int fd = accept4(listener, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      /* Without a descriptor for it the connection stays in the kernel's queue, until another one is closed. */
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) listen_again(server, false);
      return;
    }
    if (server->client_count >= server->most_clients) {
      close(fd);
      continue;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* without effect on a Unix socket */
    connection_t *client = open_connection(server, fd, false, NULL);
    if (server->is_door) note_peer(client, &from);
    server->client_count++;
  }
}

#endif
