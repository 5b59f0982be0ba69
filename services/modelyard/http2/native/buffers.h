/* Bytes that grow at one end and are taken at the other, and names and values in them. */
#ifndef MODELYARD_BUFFERS_H
#define MODELYARD_BUFFERS_H

#include <stdlib.h>
#include <string.h>

#include "nghttp2_abi.h"

typedef struct {
  char *bytes;
  size_t at, end, room; /* from `at` to `end` is what there is */
} buffer_t;

static void must(const void *allocated) {
  if (allocated == NULL) abort(); /* as everything else in this process does without memory */
}

static size_t size_of(const buffer_t *buffer) { return buffer->end - buffer->at; }

/* Moves what there is to the front only when at least as much has been taken: many MB that leave in small parts would
 * be moved for each of them. */
static char *room_for(buffer_t *buffer, size_t size) {
  if (buffer->at == buffer->end) buffer->at = buffer->end = 0;
  if (buffer->end + size <= buffer->room) return buffer->bytes + buffer->end;
  if (buffer->at && buffer->at >= size_of(buffer)) {
    memcpy(buffer->bytes, buffer->bytes + buffer->at, size_of(buffer));
    buffer->end -= buffer->at;
    buffer->at = 0;
  }
  if (buffer->end + size > buffer->room) {
    buffer->room = 2 * size_of(buffer) + size;
    buffer->bytes = realloc(buffer->bytes, buffer->room);
    must(buffer->bytes);
  }
  return buffer->bytes + buffer->end;
}

static void append(buffer_t *buffer, const void *bytes, size_t size) {
  if (size == 0) return;
  memcpy(room_for(buffer, size), bytes, size);
  buffer->end += size;
}

static void discard(buffer_t *buffer) {
  free(buffer->bytes);
  *buffer = (buffer_t){0};
}

static bool same(const char *left, const char *right, size_t size) {
  return size == 0 || memcmp(left, right, size) == 0;
}

static bool is(const uint8_t *bytes, size_t size, const char *text) {
  return size == strlen(text) && memcmp(bytes, text, size) == 0;
}

static bool begins(const uint8_t *bytes, size_t size, const char *text) {
  return size >= strlen(text) && memcmp(bytes, text, strlen(text)) == 0;
}

#define NAME_VALUE(name, value)                                                                            \
  {(uint8_t *)name, (uint8_t *)value, sizeof(name) - 1, sizeof(value) - 1,                                 \
   NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE}

static void pack(buffer_t *to, const void *name, size_t name_size, const void *value, size_t value_size) {
  uint32_t sizes[2] = {(uint32_t)name_size, (uint32_t)value_size};
  room_for(to, sizeof sizes + name_size + value_size);
  append(to, sizes, sizeof sizes);
  append(to, name, name_size);
  append(to, value, value_size);
}

/* Unpacks headers behind the `count` that there are, up to `most`; answers how many there are then. */
static size_t unpack(const char *packed, size_t size, nghttp2_nv *headers, size_t count, size_t most) {
  const char *end = packed + size;
  while (packed < end && count < most) {
    uint32_t sizes[2];
    memcpy(sizes, packed, sizeof sizes);
    packed += sizeof sizes;
    headers[count++] =
        (nghttp2_nv){(uint8_t *)packed, (uint8_t *)packed + sizes[0], sizes[0], sizes[1], NGHTTP2_NV_FLAG_NONE};
    packed += sizes[0] + sizes[1];
  }
  return count;
}

static size_t count_packed(const buffer_t *packed) {
  size_t count = 0;
  for (size_t at = 0; at < packed->end; count++) {
    uint32_t sizes[2];
    memcpy(sizes, packed->bytes + at, sizeof sizes);
    at += sizeof sizes + sizes[0] + sizes[1];
  }
  return count;
}

#endif
