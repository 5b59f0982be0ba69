/* What is read from connections and written to them. */
#ifndef MODELYARD_TRAFFIC_H
#define MODELYARD_TRAFFIC_H

#include "connections.h"
#include "events.h"
#include "outgoing.h"

/* Whether a frame resets a stream that its client has not begun.
 *
 * gRPC's client does so to a call that is cancelled when the stream has its number and the headers are not written yet.
 * By RFC 9113, 5.1 that ends the connection, and nghttp2 ends it, with every other call; gRPC's own servers pass over
 * it, and so do we. */
static bool resets_nothing(const connection_t *connection, uint8_t type, size_t payload, uint32_t number) {
  return type == NGHTTP2_RST_STREAM && payload == 4 && number % 2 == 1 && number > connection->last_begun;
}

static void feed(connection_t *connection, const uint8_t *bytes, size_t size) {
  if (size == 0 || connection->broken) return;
  if (nghttp2.session_mem_recv(connection->session, bytes, size) < 0) connection->broken = true;
}

/* Gives nghttp2 what has come of a client, but for frames that reset nothing. */
static void feed_frames(connection_t *connection, const uint8_t *bytes, size_t size) {
  const uint8_t *end = bytes + size, *at = bytes; /* from `bytes` to `at` is seen and not yet given */
  while (at < end) {
    if (connection->payload_left) {
      size_t part = connection->payload_left < (size_t)(end - at) ? connection->payload_left : (size_t)(end - at);
      connection->payload_left -= part;
      at += part;
      if (connection->drops_payload) bytes = at;
      continue;
    }
    const uint8_t *head = at;
    if (connection->head_size || end - at < FRAME_HEAD_SIZE) {
      feed(connection, bytes, (size_t)(at - bytes));
      size_t missing = FRAME_HEAD_SIZE - connection->head_size;
      size_t part = missing < (size_t)(end - at) ? missing : (size_t)(end - at);
      memcpy(connection->head + connection->head_size, at, part);
      connection->head_size += part;
      bytes = at += part;
      if (part < missing) return;
      head = connection->head;
    } else {
      at += FRAME_HEAD_SIZE;
    }
    size_t payload = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
    uint32_t number = (uint32_t)head[5] << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8];
    number &= INT32_MAX; /* without the bit that is reserved */
    if (head[3] == NGHTTP2_HEADERS && number > connection->last_begun) connection->last_begun = number;
    connection->payload_left = payload;
    connection->drops_payload = resets_nothing(connection, head[3], payload, number);
    if (connection->head_size) {
      if (!connection->drops_payload) feed(connection, head, FRAME_HEAD_SIZE);
      connection->head_size = 0;
    } else if (connection->drops_payload) {
      feed(connection, bytes, (size_t)(head - bytes));
      bytes = at;
    }
  }
  feed(connection, bytes, (size_t)(at - bytes));
}

static const char PREFACE[PREFACE_SIZE + 1] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"; /* RFC 9113, 3.4 */

/* At a door: whether it is not known yet that a client speaks HTTP/2. */
static bool is_unknown(const connection_t *connection) {
  return connection->server->is_door && !connection->is_onward && connection->greeting_size < PREFACE_SIZE;
}

/* Hands a client that does not speak HTTP/2 to Python, with what has come of it. */
static void estrange(connection_t *connection, const uint8_t *bytes, size_t size) {
  stream_t *told = calloc(1, sizeof *told); /* owns the bytes, until the events are done with */
  must(told);
  told->owners = 1;
  append(&told->body, connection->greeting, connection->greeting_size);
  append(&told->body, bytes, size);
  server_t *server = connection->server;
  epoll_ctl(server->epoll, EPOLL_CTL_DEL, connection->fd, NULL);
  if (server->taken) begin_events(server);
  *room_for_event(server) = (event_t){
      .kind = STRANGER, .id = (uint64_t)connection->fd, .call = told,
      .body = told->body.bytes, .body_size = told->body.end};
  connection->fd = -1;
  connection->broken = true;
}

/* Takes the first bytes of a client at a door. */
static void greet(connection_t *connection, const uint8_t *bytes, size_t size) {
  size_t missing = PREFACE_SIZE - connection->greeting_size, part = missing < size ? missing : size;
  memcpy(connection->greeting + connection->greeting_size, bytes, part);
  connection->greeting_size += part;
  if (memcmp(connection->greeting, PREFACE, connection->greeting_size) != 0) {
    estrange(connection, bytes + part, size - part);
  } else if (part == missing) {
    feed_frames(connection, connection->greeting, PREFACE_SIZE);
    feed_frames(connection, bytes + part, size - part);
  }
}

static void read_from(connection_t *connection) {
  server_t *server = connection->server;
  for (int i = 0; i < READS_PER_TURN && !connection->broken; i++) {
    ssize_t size = recv(connection->fd, server->in, sizeof server->in, MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    touch(connection);
    if (size <= 0) {
      connection->broken = true;
      return;
    }
    connection->heard = true;
    connection->asked = false;
    if (is_unknown(connection)) {
      greet(connection, server->in, (size_t)size);
    } else if (connection->is_onward) {
      feed(connection, server->in, (size_t)size);
    } else {
      feed_frames(connection, server->in, (size_t)size);
    }
    /* It makes us answer and does not read: its frames would fill the memory. */
    if (!connection->is_onward &&
        nghttp2.session_get_outbound_queue_size(connection->session) > MOST_WAITING_FRAMES) {
      connection->broken = true;
    }
    if ((size_t)size < sizeof server->in) return;
  }
}

/* Sends what there is; closes the connection if it is at its end. */
static void write_to(connection_t *connection) {
  if (is_unknown(connection) && !connection->broken) return;
  while (!connection->broken) {
    /* A peer that reads slowly would have what it leaves gathered again and again. */
    connection->server->outgoing.copies = size_of(&connection->unsent) != 0;
    while (!is_full(connection)) {
      const uint8_t *bytes;
      ssize_t size = nghttp2.session_mem_send(connection->session, &bytes);
      if (size < 0) connection->broken = true;
      if (size <= 0) break;
      append(&connection->unsent, bytes, (size_t)size);
    }
    if (size_of(&connection->unsent) + connection->server->outgoing.size == 0) break;
    ssize_t sent = send_gathered(connection);
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      watch(connection, EPOLLIN | EPOLLOUT);
      return;
    }
    if (sent < 0) connection->broken = true;
  }
  bool alive = nghttp2.session_want_read(connection->session) || nghttp2.session_want_write(connection->session);
  if (connection->broken || !alive) {
    close_connection(connection);
  } else {
    watch(connection, EPOLLIN);
  }
}

/* Sends what there is to send. */
static void write_all(server_t *server) {
  while (server->touched != NULL) {
    connection_t *connection = server->touched;
    server->touched = connection->next_touched;
    connection->touched = false;
    write_to(connection);
  }
}

#endif
