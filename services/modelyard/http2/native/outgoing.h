/* What is taken of nghttp2 and given to the kernel: gathered in a buffer of the connection, but for large parts of
 * bodies, which the kernel copies from where they lie. So they are not moved, and what they lie in is not freed, until
 * the kernel has been asked: until then nothing is called but nghttp2's callbacks for what is sent. */
#ifndef MODELYARD_OUTGOING_H
#define MODELYARD_OUTGOING_H

#include <errno.h>
#include <sys/uio.h>

#include "http2_state.h"

/* Whether no more should be taken of nghttp2 before some has been sent. To be asked of the connection that is being
 * written to. */
static bool is_full(const connection_t *connection) {
  const outgoing_t *outgoing = &connection->server->outgoing;
  return size_of(&connection->unsent) + outgoing->size >= WRITE_SIZE;
}

/* Has a part of a body sent next. */
static void add_part(connection_t *connection, const char *bytes, size_t size) {
  outgoing_t *outgoing = &connection->server->outgoing;
  if (outgoing->copies || size < LEAST_PART) {
    append(&connection->unsent, bytes, size);
  } else {
    outgoing->parts[outgoing->count++] = (part_t){size_of(&connection->unsent), bytes, size};
    outgoing->size += size;
  }
}

/* Frees what has been a body, at once or when it has been sent. */
static void discard_sent(server_t *server, buffer_t *body) {
  outgoing_t *outgoing = &server->outgoing;
  if (outgoing->count == 0 || body->bytes == NULL) {
    discard(body);
    return;
  }
  append(&outgoing->spent, body, sizeof *body);
  *body = (buffer_t){0};
}

/* What is to be sent, in its order; answers how many pieces. */
static size_t pieces_of(connection_t *connection, struct iovec *pieces) {
  outgoing_t *outgoing = &connection->server->outgoing;
  char *unsent = connection->unsent.bytes + connection->unsent.at;
  size_t count = 0, at = 0;
  for (size_t i = 0; i < outgoing->count; i++) {
    part_t *part = &outgoing->parts[i];
    if (part->behind > at) pieces[count++] = (struct iovec){unsent + at, part->behind - at};
    at = part->behind;
    pieces[count++] = (struct iovec){(void *)part->bytes, part->size};
  }
  size_t rest = size_of(&connection->unsent) - at;
  if (rest) pieces[count++] = (struct iovec){unsent + at, rest};
  return count;
}

/* Has all but the first bytes of these pieces in `unsent`, and nothing elsewhere. */
static void gather(connection_t *connection, const struct iovec *pieces, size_t count, size_t sent) {
  outgoing_t *outgoing = &connection->server->outgoing;
  if (outgoing->count == 0) {
    connection->unsent.at += sent;
    return;
  }
  buffer_t left = {0};
  size_t size = size_of(&connection->unsent) + outgoing->size - sent;
  if (size) room_for(&left, size);
  for (size_t i = 0; i < count; i++) {
    size_t skipped = sent < pieces[i].iov_len ? sent : pieces[i].iov_len;
    append(&left, (char *)pieces[i].iov_base + skipped, pieces[i].iov_len - skipped);
    sent -= skipped;
  }
  connection->unsent.at = connection->unsent.end;
  if (size) {
    discard(&connection->unsent);
    connection->unsent = left;
  }
  buffer_t *spent = (buffer_t *)outgoing->spent.bytes;
  for (size_t i = 0; i < outgoing->spent.end / sizeof *spent; i++) discard(&spent[i]);
  outgoing->count = outgoing->size = outgoing->spent.end = 0;
}

/* Gives the kernel as much as it takes of what is gathered. Answers what `sendmsg` does. */
static ssize_t send_gathered(connection_t *connection) {
  struct iovec pieces[2 * MOST_PARTS + 1];
  struct msghdr message = {.msg_iov = pieces, .msg_iovlen = pieces_of(connection, pieces)};
  ssize_t sent;
  do sent = sendmsg(connection->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  int error = errno;
  gather(connection, pieces, message.msg_iovlen, sent > 0 ? (size_t)sent : 0);
  errno = error;
  return sent;
}

#endif
