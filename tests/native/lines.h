/* What the stress programs of the HTTP/2 server share: chance, sockets, and sessions over them.
 *
 * To be included behind http2_server.c. */
#ifndef MODELYARD_LINES_H
#define MODELYARD_LINES_H

#include <poll.h>
#include <stdio.h>

#include "check.h"

enum { PIECE = 16 * 1024 };

#define PATH "/inference.GRPCInferenceService/ModelInfer"

static unsigned seed;
static size_t moved; /* whether anything still happens */
static bool eager;   /* everybody does at once all that he can */
static nghttp2_session_callbacks *echoing, *asking; /* of servers, and of clients */
static nghttp2_option *patient; /* with streams that are reset, however many */

/* Functions of nghttp2 which the server has no use for. */
static int32_t (*submit_headers)(nghttp2_session *, uint8_t flags, int32_t stream, const nghttp2_priority_spec *,
                                 const nghttp2_nv *, size_t, void *);

static unsigned draw(unsigned below) { return (unsigned)rand_r(&seed) % below; }

static bool chance(unsigned of) { return !eager && draw(of) == 0; }

static size_t least(size_t left, size_t right) { return left < right ? left : right; }

/* Contents of a stream's message, told from any other's. */
static char byte_of(uint64_t number, size_t at) { return (char)(number * 31 + at * 7 + (at >> 8)); }

static struct sockaddr_un address(const char *path) {
  struct sockaddr_un made = {.sun_family = AF_UNIX};
  strcpy(made.sun_path, path);
  return made;
}

static int listen_at(const char *path) {
  struct sockaddr_un at = address(path);
  unlink(path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
  CHECK(bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 100) == 0);
  return fd;
}

static int connect_to(const char *path) {
  struct sockaddr_un at = address(path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
  CHECK(connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
  return fd;
}

/* A session over a socket, of a client or of the server behind. */
typedef struct {
  int fd;
  nghttp2_session *session;
  buffer_t unsent;
} line_t;

/* Moves up to so many bytes each way. False when the line is at its end. */
static bool move(line_t *line, size_t most) {
  static uint8_t bytes[64 * 1024];
  ssize_t size = recv(line->fd, bytes, least(most, sizeof bytes), MSG_DONTWAIT);
  if (size == 0 || (size < 0 && errno != EAGAIN)) return false;
  if (size > 0) CHECK(nghttp2.session_mem_recv(line->session, bytes, (size_t)size) == size);
  while (size_of(&line->unsent) < most) {
    const uint8_t *found;
    ssize_t given = nghttp2.session_mem_send(line->session, &found);
    CHECK(given >= 0);
    if (given == 0) break;
    append(&line->unsent, found, (size_t)given);
  }
  size_t part = least(size_of(&line->unsent), most);
  ssize_t sent = part ? send(line->fd, line->unsent.bytes + line->unsent.at, part, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
  if (sent > 0) line->unsent.at += (size_t)sent;
  moved += (size > 0) + (sent > 0);
  return size_of(&line->unsent) || nghttp2.session_want_read(line->session) ||
         nghttp2.session_want_write(line->session);
}

static void cut(line_t *line) {
  nghttp2.session_del(line->session);
  close(line->fd);
  discard(&line->unsent);
}

static bool named(const uint8_t *name, size_t size, const char *text) { return is(name, size, text); }

static long number_in(const uint8_t *value, size_t size) {
  char text[32] = {0};
  memcpy(text, value, least(size, sizeof text - 1));
  return strtol(text, NULL, 10);
}

static nghttp2_nv header(const char *name, const char *value) {
  return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

static nghttp2_session_callbacks *callbacks_of(void *begins, void *header, void *frame, void *data, void *ends) {
  nghttp2_session_callbacks *made;
  CHECK(nghttp2.session_callbacks_new(&made) == 0);
  if (begins) nghttp2.session_callbacks_set_on_begin_headers_callback(made, begins);
  nghttp2.session_callbacks_set_on_header_callback(made, header);
  nghttp2.session_callbacks_set_on_frame_recv_callback(made, frame);
  nghttp2.session_callbacks_set_on_data_chunk_recv_callback(made, data);
  nghttp2.session_callbacks_set_on_stream_close_callback(made, ends);
  return made;
}

static void *find_in_nghttp2(const char *name) {
  void *found = dlsym(dlopen(NGHTTP2_LIBRARY, RTLD_NOW | RTLD_NOLOAD), name);
  CHECK(found);
  return found;
}

/* Loads nghttp2 for the server and for this program; to be called first. */
static void find_nghttp2(void) {
  const char *missing = http2_load();
  if (missing) fprintf(stderr, "missing: %s\n", missing);
  CHECK(missing == NULL && nghttp2.option_new(&patient) == 0);
  *(void **)&submit_headers = find_in_nghttp2("nghttp2_submit_headers");
  nghttp2_option_set_stream_reset_rate_limit set_rate = (nghttp2_option_set_stream_reset_rate_limit)dlsym(
      dlopen(NGHTTP2_LIBRARY, RTLD_NOW | RTLD_NOLOAD), "nghttp2_option_set_stream_reset_rate_limit");
  if (set_rate != NULL) set_rate(patient, UINT64_MAX / 2, UINT64_MAX / 2);
}

#endif
