/* Calls that a door sends to pods, and again to the server behind.
 *
 * Whatever fails at a pod before its answer has begun is sent to the server behind, which has the patience to find
 * another one: so this side needs to know nothing of health, pauses and retries. */
#ifndef MODELYARD_DOOR_H
#define MODELYARD_DOOR_H

#include <stdio.h>
#include <sys/random.h>
#include <time.h>

#include "calls.h"
#include "relays.h"

static uint64_t now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 * 1000 + (uint64_t)now.tv_nsec / 1000;
}

/* Names a call whose client has not: a random UUID. */
static void make_request_id(server_t *server, buffer_t *to) {
  enum { SIZE = 16, TEXT = 36 };
  if (server->random_left < SIZE) {
    if (getrandom(server->random, sizeof server->random, 0) != (ssize_t)sizeof server->random) abort();
    server->random_left = sizeof server->random;
  }
  uint8_t *bytes = server->random + (server->random_left -= SIZE);
  bytes[6] = (bytes[6] & 0x0f) | 0x40; /* RFC 9562: version 4 */
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  char *text = room_for(to, TEXT);
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < SIZE; i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10) *text++ = '-';
    *text++ = digits[bytes[i] >> 4];
    *text++ = digits[bytes[i] & 0x0f];
  }
  to->end += TEXT;
}

/* Begins a call at the pod that has the fewest. Whether there is one. */
static bool relay_to_pod(stream_t *stream) {
  server_t *server = stream->connection->server;
  connection_t *found = NULL;
  for (pod_t *pod = server->pods; pod != NULL; pod = pod->after) {
    connection_t *connection = pod->connection;
    if (connection == NULL || !connection->ready || connection->broken) continue;
    if (nghttp2.session_get_outbound_queue_size(connection->session) >= MOST_WAITING_FRAMES) continue;
    if (found == NULL || connection->stream_count < found->stream_count) found = connection;
  }
  if (found == NULL) return false;
  if (stream->request_id.bytes == NULL) make_request_id(server, &stream->request_id);
  stream->arrived_us = now_us();
  stream->kind = RELAYED;
  return forward(stream, found, (buffer_t){0}, true);
}

/* Keeps a part of a body that goes to a pod. What is more than a body may have is not kept. */
static void keep_relayed(stream_t *onward, const uint8_t *bytes, size_t size) {
  buffer_t *relayed = &onward->relayed;
  grow(relayed, relayed->end + size, announced_size(relayed->bytes, relayed->end));
  append(relayed, bytes, size);
  if (relayed->end > PREFIX_SIZE + onward->connection->server->body_limit) keep_no_more(onward);
}

/* Has a call's timeout say what is left of it. See gRPC's "HTTP/2 protocol" on Timeout. */
static void shorten_timeout(stream_t *stream) {
  enum { MOST_DIGITS = 8 };
  static const struct { char name; double us; } units[] = {
      {'H', 3600e6}, {'M', 60e6}, {'S', 1e6}, {'m', 1e3}, {'u', 1}, {'n', 1e-3}};
  buffer_t *timeout = &stream->timeout;
  if (timeout->bytes == NULL || timeout->end < 2 || timeout->end > MOST_DIGITS + 1) return; /* nonsense stays that */
  char text[24] = {0}, *unit;
  memcpy(text, timeout->bytes, timeout->end);
  double left = (double)strtoull(text, &unit, 10);
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    if (*unit != units[i].name) continue;
    left = left * units[i].us - (double)(now_us() - stream->arrived_us);
    if (left < 0) left = 0;
    bool is_long = left >= 1e8; /* us: no more than eight digits */
    bool is_very_long = left >= 1e11;
    int size = snprintf(text, sizeof text, "%.0f%c", is_very_long ? left / 1e6 : is_long ? left / 1e3 : left,
                        is_very_long ? 'S' : is_long ? 'm' : 'u');
    timeout->at = timeout->end = 0;
    append(timeout, text, (size_t)size);
    return;
  }
}

/* Sends a call that a pod has not answered to the server behind. */
static void send_again(stream_t *stream) {
  stream_t *lost = stream->peer;
  buffer_t body = lost->relayed;
  body.at = 0;
  stream->peer = lost->peer = NULL;
  lost->relayed = (buffer_t){0};
  lost->kept = lost->ended = false;
  if (lost->connection != NULL) {
    nghttp2.submit_rst_stream(lost->connection->session, NGHTTP2_FLAG_NONE, lost->number, NGHTTP2_CANCEL);
    touch(lost->connection);
  }
  shorten_timeout(stream);
  forward_behind(stream, body);
}

#endif
