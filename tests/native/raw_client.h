/* A client whose frames are written by hand. */
#ifndef MODELYARD_RAW_CLIENT_H
#define MODELYARD_RAW_CLIENT_H

#include "lines.h"

/* Lets everybody do what there is to do: the program's. */
static void settle_all(void);

typedef struct {
  int fd;
  buffer_t in;
  int64_t window, stream_window; /* what may be sent */
  size_t received; /* bytes of data */
  int headers, ends, resets, byes;
} raw_t;

enum { SETTINGS = 4, GOAWAY = 7, WINDOW_UPDATE = 8, CONTINUATION = 9 };
enum { END_STREAM = 1, END_HEADERS = 4, PADDED = 8 };

/* What gRPC's client sends for a call that is cancelled before its headers are written. */
static const uint8_t idle_reset[] = {0, 0, 4, NGHTTP2_RST_STREAM, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, NGHTTP2_CANCEL};

static void put(raw_t *raw, const void *bytes, size_t size) {
  for (size_t at = 0; at < size;) {
    ssize_t sent = send(raw->fd, (const char *)bytes + at, size - at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) at += (size_t)sent;
    else settle_all();
  }
}

static void put_frame(raw_t *raw, uint8_t type, uint8_t flags, uint32_t stream, const void *payload, size_t size) {
  const uint8_t head[FRAME_HEAD_SIZE] = {(uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size, type, flags,
                                        (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8),
                                        (uint8_t)stream};
  put(raw, head, sizeof head);
  put(raw, payload, size);
}

static raw_t raw_over(int fd) {
  raw_t raw = {.fd = fd, .window = 65535, .stream_window = 65535};
  static const uint8_t wide[] = {0, 4, 0x7f, 0xff, 0xff, 0xff}, wider[] = {0x7f, 0xff, 0, 0};
  put(&raw, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
  put_frame(&raw, SETTINGS, 0, 0, wide, sizeof wide);
  put_frame(&raw, WINDOW_UPDATE, 0, 0, wider, sizeof wider);
  return raw;
}

static raw_t raw_client(void) { return raw_over(connect_to("front")); }

static void put_name_value(buffer_t *to, const char *name, const char *value) {
  const char sizes[] = {0, (char)strlen(name), (char)strlen(value)};
  append(to, sizes, 2);
  append(to, name, strlen(name));
  append(to, sizes + 2, 1);
  append(to, value, strlen(value));
}

static buffer_t headers_for(const char *path) {
  buffer_t block = {0};
  put_name_value(&block, ":method", "POST");
  put_name_value(&block, ":scheme", "http");
  put_name_value(&block, ":authority", "me");
  put_name_value(&block, ":path", path);
  put_name_value(&block, "content-type", "application/grpc");
  put_name_value(&block, "te", "trailers");
  return block;
}

static void put_headers(raw_t *raw, uint32_t stream, const char *path, uint8_t flags) {
  buffer_t block = headers_for(path);
  put_frame(raw, NGHTTP2_HEADERS, END_HEADERS | flags, stream, block.bytes, block.end);
  discard(&block);
}

static uint32_t number_at(const uint8_t *bytes) {
  return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void take_frame(raw_t *raw, const uint8_t *frame, size_t size, uint32_t stream) {
  const uint8_t *payload = frame + FRAME_HEAD_SIZE;
  uint8_t type = frame[3], flags = frame[4];
  if (type == WINDOW_UPDATE) {
    *(stream ? &raw->stream_window : &raw->window) += number_at(payload);
  } else if (type == SETTINGS && !(flags & 1)) {
    for (size_t at = 0; at + 6 <= size; at += 6)
      if (payload[at + 1] == 4)
        raw->stream_window += number_at(payload + at + 2) - 65535;
    put_frame(raw, SETTINGS, 1, 0, NULL, 0);
  }
  raw->received += type == NGHTTP2_DATA ? size : 0;
  raw->headers += type == NGHTTP2_HEADERS;
  raw->ends += (type == NGHTTP2_HEADERS || type == NGHTTP2_DATA) && (flags & END_STREAM);
  raw->resets += type == NGHTTP2_RST_STREAM;
  raw->byes += type == GOAWAY;
}

/* Takes what has come. Answers what the last read did: 0 when the server has closed the connection. */
static ssize_t take_frames(raw_t *raw) {
  ssize_t size = recv(raw->fd, room_for(&raw->in, 1 << 20), 1 << 20, MSG_DONTWAIT);
  if (size > 0) raw->in.end += (size_t)size;
  while (size_of(&raw->in) >= FRAME_HEAD_SIZE) {
    const uint8_t *frame = (const uint8_t *)raw->in.bytes + raw->in.at;
    size_t length = (size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2];
    if (size_of(&raw->in) < FRAME_HEAD_SIZE + length) break;
    raw->in.at += FRAME_HEAD_SIZE + length;
    take_frame(raw, frame, length, number_at(frame + 5));
  }
  return size;
}

/* Lets everybody do what there is to do. False when the server has closed the connection. */
static bool listen_in(raw_t *raw) {
  ssize_t size = 1;
  while (size > 0) settle_all(), size = take_frames(raw);
  return size < 0;
}

static void leave_off(raw_t *raw) {
  close(raw->fd);
  discard(&raw->in);
  settle_all();
}

static bool may_send(const raw_t *raw, int64_t size) { return raw->window >= size && raw->stream_window >= size; }

#endif
