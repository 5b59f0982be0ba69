/* How streams begin and end, and how connections and listeners are watched. */
#ifndef MODELYARD_STREAMS_H
#define MODELYARD_STREAMS_H

#include <errno.h>
#include <sys/epoll.h>

#include "http2_state.h"

static void release(stream_t *stream) {
  if (--stream->owners) return;
  discard(&stream->pseudo);
  discard(&stream->headers);
  discard(&stream->timeout);
  discard(&stream->request_id);
  discard(&stream->body);
  discard(&stream->answer);
  discard(&stream->relayed);
  discard(&stream->trailers);
  free(stream);
}

static void touch(connection_t *connection) {
  if (connection->touched) return;
  connection->touched = true;
  connection->next_touched = connection->server->touched;
  connection->server->touched = connection;
}

static void watch(connection_t *connection, uint32_t events) {
  if (connection->watched == events) return;
  struct epoll_event event = {.events = events, .data.ptr = connection};
  int operation = connection->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  if (epoll_ctl(connection->server->epoll, operation, connection->fd, &event) != 0) {
    connection->broken = true;
    touch(connection);
  }
  connection->watched = events;
}

static void listen_again(server_t *server, bool on) {
  if (server->listens == on) return;
  for (size_t i = 0; i < server->listener_count; i++) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    int done = epoll_ctl(server->epoll, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, server->listeners[i], &event);
    if (done != 0 && errno != (on ? EEXIST : ENOENT)) return; /* the next time, then, for this one and the rest */
  }
  server->listens = on;
}

static stream_t *open_stream(connection_t *connection, int32_t number, kind_t kind) {
  stream_t *stream = calloc(1, sizeof *stream);
  must(stream);
  stream->kind = kind;
  stream->number = number;
  stream->connection = connection;
  stream->owners = 1;
  stream->after = connection->streams;
  if (connection->streams) connection->streams->before = stream;
  connection->streams = stream;
  connection->stream_count++;
  return stream;
}

#endif
