/* What both libraries of this folder know of calls, and tell Python, whose side is `arrivals.py`. */
#ifndef MODELYARD_ARRIVAL_H
#define MODELYARD_ARRIVAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PREFIX_SIZE = 5 }; /* of a gRPC message: whether it is compressed, and its length */

/* Kinds of events. */
enum {
  WHOLE = 1,    /* a call, with its whole body */
  COMING = 2,   /* a call with a deadline, whose body is not here yet */
  COMPLETE = 3, /* the body of a call of which COMING has told */
  GONE = 4,     /* the caller of a call of which Python knows has gone, or its stream has been ended */
  TOGETHER = 5, /* several whole calls that differ in nothing but their request ids and in what their one input holds.
                   Then `body` is that of the first of them, `request_id` what the inputs of all of them hold, one
                   behind the other, and `id_size` how many they are */
  STRANGER = 6, /* at a door: a connection that does not begin with HTTP/2's preface. `id` is its descriptor, now the
                   receiver's, `body` what has been read of it */
};

/* As Python reads it: all fields have eight bytes. */
typedef struct {
  uint64_t kind, id;
  void *call;
  const char *headers; /* name size, value size (four bytes each), name, value; and so on; without pseudo headers */
  uint64_t headers_size;
  /* Values of headers that are not among those, since they differ from call to call and Python remembers the others by
   * their bytes. NULL if there is none. */
  const char *timeout; /* grpc-timeout */
  uint64_t timeout_size;
  const char *request_id; /* x-request-id */
  uint64_t request_id_size;
  const char *body;
  uint64_t body_size;
  /* If the body is one plain request (see `find_plain`): where in its message the id is, how long that is, and where
   * the raw contents begin; else 0. */
  uint64_t id_at, id_size, raw_at;
} event_t;

/* The length of the message as its prefix says; 0 if not even the prefix is there. */
static inline size_t announced_size(const char *body, size_t size) {
  if (size < PREFIX_SIZE) return 0;
  const unsigned char *prefix = (const unsigned char *)body;
  return (size_t)prefix[1] << 24 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 8 | prefix[4];
}

/* Room for a body that has grown to `needed` bytes and announces so many: for the whole message, but not on its word
 * alone, since it may announce much and send nothing. */
static inline size_t room_for_body(size_t needed, size_t announced) {
  enum { FIRST_ROOM = 64 * 1024 }; /* whatever is announced */
  size_t room = PREFIX_SIZE + announced;
  size_t trusted = 4 * needed > FIRST_ROOM ? 4 * needed : FIRST_ROOM;
  if (room > trusted) room = trusted;
  return room < needed ? needed : room;
}

/* Reads a varint; false if there is none before `end`. */
static inline bool read_varint(const unsigned char **at, const unsigned char *end, uint64_t *value) {
  *value = 0;
  for (int shift = 0; shift < 64 && *at < end; shift += 7) {
    unsigned char byte = *(*at)++;
    *value |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return true;
  }
  return false;
}

/* Notes in an event whether its body is one message, and that a ModelInferRequest as everybody writes it: fields in the
 * order of their numbers, with raw contents last. Then all before those, but the id, is the same for thousands of
 * requests, and Python needs to look at that once. Reads no deeper: what the fields hold is Python's. The numbers are
 * those of the Open Inference Protocol's ModelInferRequest.
 *
 * If there is one input only, answers where in the message the bytes of its contents begin; else 0. */
static inline size_t find_plain(event_t *event) {
  enum { ID = 3, RAW_CONTENTS = 7, LENGTH_DELIMITED = 2 };
  if (event->body_size <= PREFIX_SIZE || event->body[0] != 0) return 0;
  if (announced_size(event->body, event->body_size) != event->body_size - PREFIX_SIZE) return 0;
  const unsigned char *begin = (const unsigned char *)event->body + PREFIX_SIZE, *at = begin;
  const unsigned char *end = (const unsigned char *)event->body + event->body_size;
  uint64_t last = 0, id_at = 0, id_size = 0, raw_at = 0;
  size_t contents_at = 0;
  while (at < end) {
    const unsigned char *field = at;
    uint64_t tag, size;
    if (!read_varint(&at, end, &tag) || !read_varint(&at, end, &size) || size > (uint64_t)(end - at)) return 0;
    uint64_t number = tag >> 3;
    if ((tag & 7) != LENGTH_DELIMITED || number < last || number > RAW_CONTENTS) return 0;
    if (number == ID && last == ID) return 0;
    if (number == RAW_CONTENTS) contents_at = raw_at ? 0 : (size_t)(at - begin);
    at += size;
    if (number == ID) {
      id_at = (uint64_t)(field - begin);
      id_size = (uint64_t)(at - field);
    } else if (number == RAW_CONTENTS && !raw_at) {
      raw_at = (uint64_t)(field - begin);
    }
    last = number;
  }
  event->id_at = id_at;
  event->id_size = id_size;
  event->raw_at = raw_at;
  return raw_at ? contents_at : 0;
}

#endif
