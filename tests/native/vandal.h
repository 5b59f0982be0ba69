/* Clients that send garbage. */
#ifndef MODELYARD_VANDAL_H
#define MODELYARD_VANDAL_H

#include "lines.h"

enum { VANDALS = 3 };

typedef struct {
  int fd;
  buffer_t bytes;
} vandal_t;

static vandal_t vandals[VANDALS];

static ssize_t read_garbage(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
                            nghttp2_data_source *source, void *data) {
  (void)session, (void)stream, (void)source, (void)data;
  size_t size = least(room, 6 + draw(300));
  memset(to, 0, size);
  if (draw(2)) to[4] = (uint8_t)(size - PREFIX_SIZE);
  *flags |= NGHTTP2_DATA_FLAG_EOF;
  return (ssize_t)size;
}

/* What a sound client would send for some calls. */
static void sound_bytes(buffer_t *bytes) {
  nghttp2_session *session;
  nghttp2.session_client_new2(&session, asking, NULL, NULL);
  nghttp2.submit_settings(session, NGHTTP2_FLAG_NONE, NULL, 0);
  for (unsigned left = 1 + draw(6); left; left--) {
    nghttp2_nv headers[] = {header(":method", "POST"), header(":scheme", "http"), header(":authority", "me"),
                            header(":path", draw(2) ? PATH : "/x"), header("content-type", "application/grpc"),
                            header("te", "trailers"), header("grpc-timeout", "1S"), header("x-request-id", "r-0")};
    nghttp2_data_provider body = {{.ptr = NULL}, read_garbage};
    int32_t stream = nghttp2.submit_request(session, NULL, headers, 6 + draw(3), &body, NULL);
    const uint8_t *found;
    for (ssize_t size; (size = nghttp2.session_mem_send(session, &found)) > 0;) append(bytes, found, (size_t)size);
    if (draw(3) == 0) nghttp2.submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
  }
  const uint8_t *found;
  for (ssize_t size; (size = nghttp2.session_mem_send(session, &found)) > 0;) append(bytes, found, (size_t)size);
  nghttp2.session_del(session);
}

static void spoil(buffer_t *bytes) {
  size_t from = draw(10) ? PREFACE_SIZE : 0;
  for (unsigned left = draw(6); left; left--) {
    size_t at = from + draw((unsigned)(bytes->end - from));
    bytes->bytes[at] = (char)draw(256);
  }
  if (draw(3) == 0) { /* a part twice */
    size_t at = from + draw((unsigned)(bytes->end - from)), size = bytes->end - at;
    char *part = malloc(size);
    memcpy(part, bytes->bytes + at, size);
    append(bytes, part, size);
    free(part);
  }
  if (draw(4) == 0) bytes->end = from + draw((unsigned)(bytes->end - from));
}

static void step_vandal(vandal_t *vandal) {
  if (vandal->fd == 0) {
    vandal->fd = connect_to("front");
    sound_bytes(&vandal->bytes);
    if (draw(4)) spoil(&vandal->bytes);
    else if (draw(4) == 0)
      for (size_t i = 0; i < vandal->bytes.end; i++) vandal->bytes.bytes[i] = (char)draw(256);
  }
  size_t part = least(size_of(&vandal->bytes), 1 + draw(400));
  if (part) send(vandal->fd, vandal->bytes.bytes + vandal->bytes.at, part, MSG_NOSIGNAL | MSG_DONTWAIT);
  vandal->bytes.at += part;
  char ignored[1000];
  bool over = draw(2) && recv(vandal->fd, ignored, sizeof ignored, MSG_DONTWAIT) == 0;
  if (over || eager || draw(part ? 200 : 20) == 0) {
    close(vandal->fd);
    discard(&vandal->bytes);
    vandal->fd = 0;
    moved++;
  }
}

static void dismiss_vandals(void) {
  for (size_t i = 0; i < VANDALS; i++) {
    if (vandals[i].fd) close(vandals[i].fd), discard(&vandals[i].bytes);
    vandals[i].fd = 0;
  }
}

#endif
