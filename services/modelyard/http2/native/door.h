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

/* Begins a call at the pod that has the fewest, of several the one that has waited longest. Whether there is one. */
static bool relay_to_pod(stream_t *stream) {
  server_t *server = stream->connection->server;
  connection_t *found = NULL;
  for (pod_t *pod = server->pods; pod != NULL; pod = pod->after) {
    connection_t *connection = pod->connection;
    if (connection == NULL || !connection->ready || connection->broken) continue;
    if (nghttp2.session_get_outbound_queue_size(connection->session) >= MOST_WAITING_FRAMES) continue;
    if (found == NULL || connection->stream_count < found->stream_count ||
        (connection->stream_count == found->stream_count && connection->last_chosen < found->last_chosen))
      found = connection;
  }
  if (found == NULL) return false;
  found->last_chosen = ++server->last_id;
  if (stream->request_id.bytes == NULL) make_request_id(server, &stream->request_id);
  stream->arrived_us = now_us();
  stream->kind = RELAYED;
  return forward(stream, found, (buffer_t){0}, true);
}

/* Keeps a part of a body that goes to a pod, unless it is more than a body may have, or there is no more room. */
static void keep_relayed(stream_t *onward, const uint8_t *bytes, size_t size) {
  server_t *server = onward->connection->server;
  buffer_t *relayed = &onward->relayed;
  size_t needed = relayed->end + size;
  size_t announced = relayed->end ? announced_size(relayed->bytes, relayed->end) : announced_size((char *)bytes, size);
  if (needed <= PREFIX_SIZE + announced) grow(relayed, needed, announced);
  append(relayed, bytes, size);
  server->kept_size += size;
  bool is_crowded = server->kept_size > server->most_kept && needed > ALWAYS_KEPT;
  if (needed > PREFIX_SIZE + server->body_limit || is_crowded) keep_no_more(onward);
}

/* Reads a timeout as gRPC's "HTTP/2 protocol" has it: up to eight digits and a unit. Whether it is one. */
static bool read_timeout(const buffer_t *text, uint64_t *us) {
  enum { MOST_DIGITS = 8 };
  if (text->bytes == NULL || text->end < 2 || text->end > MOST_DIGITS + 1) return false;
  *us = 0;
  for (size_t i = 0; i + 1 < text->end; i++) {
    if (text->bytes[i] < '0' || text->bytes[i] > '9') return false;
    *us = *us * 10 + (uint64_t)(text->bytes[i] - '0');
  }
  switch (text->bytes[text->end - 1]) {
    case 'H': *us *= 60; /* fall through */
    case 'M': *us *= 60; /* fall through */
    case 'S': *us *= 1000; /* fall through */
    case 'm': *us *= 1000; /* fall through */
    case 'u': return true;
    case 'n': *us /= 1000; return true;
    default: return false;
  }
}

/* Writes a timeout in the smallest unit that needs no more than eight digits. */
static void write_timeout(buffer_t *to, uint64_t us) {
  enum { ABOVE_MOST = 100 * 1000 * 1000 };
  static const struct { char name; uint64_t of_last; } units[] = {
      {'u', 1}, {'m', 1000}, {'S', 1000}, {'M', 60}, {'H', 60}};
  char text[24];
  size_t i = 0;
  for (; us >= ABOVE_MOST; us /= units[++i].of_last) continue;
  int size = snprintf(text, sizeof text, "%llu%c", (unsigned long long)us, units[i].name);
  to->at = to->end = 0;
  append(to, text, (size_t)size);
}

/* Has a call's timeout say what is left of it after so long; nonsense stays that. Never 0, which some servers take for
 * no timeout at all. */
static void shorten_timeout(buffer_t *timeout, uint64_t spent_us) {
  uint64_t us;
  if (read_timeout(timeout, &us)) write_timeout(timeout, us > spent_us ? us - spent_us : 1);
}

/* Sends a call that a pod has not answered to the server behind. */
static void send_again(stream_t *stream) {
  stream_t *lost = stream->peer;
  buffer_t body = take_kept(lost, stream->connection->server);
  stream->peer = lost->peer = NULL;
  if (lost->connection != NULL) {
    nghttp2.submit_rst_stream(lost->connection->session, NGHTTP2_FLAG_NONE, lost->number, NGHTTP2_CANCEL);
    touch(lost->connection);
  }
  shorten_timeout(&stream->timeout, now_us() - stream->arrived_us);
  forward_behind(stream, body);
}

#endif
