/* Servers behind the HTTP/2 server, which echo what is sent to them. What they do beyond that is the program's. */
#ifndef MODELYARD_SERVING_H
#define MODELYARD_SERVING_H

#include "lines.h"

enum { BACKENDS = 64, PATH_SIZE = 32 };

typedef struct echo echo_t;
typedef struct backend backend_t;
typedef struct site site_t;

/* A stream. */
struct echo {
  backend_t *backend;
  echo_t *next;
  int32_t stream;
  long number; /* -1: of a client that sends garbage */
  bool has_id, has_timeout, ended, responded, waits;
  buffer_t bytes;
  size_t received, sent, most; /* bytes; if `most` is not 0, it resets the stream before it has sent so many back */
  char id[64];           /* x-request-id */
  int way, stage;        /* what becomes of it, and when; the program's */
  uint64_t timeout_us;
  bool is_forwarded; /* x-forwarded-for */
};

/* A connection. */
struct backend {
  site_t *site;
  line_t line;
  echo_t *echoes;
  bool leaving;
};

/* A server. */
struct site {
  const char *path;
  int listening; /* -1: it is away */
  backend_t *backends[BACKENDS];
};

/* The program's. */
static int echo_header(nghttp2_session *, const nghttp2_frame *, const uint8_t *name, size_t, const uint8_t *value,
                       size_t, uint8_t flags, void *);
static int echo_frame(nghttp2_session *, const nghttp2_frame *, void *);
static void note_data(echo_t *echo, const uint8_t *bytes, size_t size);
static void note_loss(backend_t *backend); /* of a connection, with all that it has */

static ssize_t read_echo(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *data) {
  (void)data;
  echo_t *echo = source->ptr;
  size_t size = least(size_of(&echo->bytes), chance(3) ? 1 + draw(1000) : room);
  bool is_enough = echo->most && echo->sent + size >= echo->most;
  if (is_enough) {
    nghttp2.submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream, NGHTTP2_INTERNAL_ERROR);
    return NGHTTP2_ERR_DEFERRED;
  }
  if (size == 0 && !echo->ended) {
    echo->waits = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  if (size) memcpy(to, echo->bytes.bytes + echo->bytes.at, size);
  echo->bytes.at += size;
  echo->sent += size;
  if (echo->ended && size_of(&echo->bytes) == 0) {
    static const nghttp2_nv trailers[] = {NAME_VALUE("grpc-status", "0"), NAME_VALUE("x-last", "last")};
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    nghttp2.submit_trailer(session, stream, trailers, 2);
  }
  return (ssize_t)size;
}

static void send_back(echo_t *echo, const nghttp2_nv *headers, size_t count, bool with_body) {
  nghttp2_data_provider body = {{.ptr = echo}, read_echo};
  echo->responded = true;
  nghttp2.submit_response(echo->backend->line.session, echo->stream, headers, count, with_body ? &body : NULL);
}

/* What comes before an answer, and is none. */
static void send_hint(echo_t *echo) {
  static const nghttp2_nv hint[] = {
      NAME_VALUE(":status", "103"), NAME_VALUE("grpc-status", "14"), NAME_VALUE("link", "</other>")};
  submit_headers(echo->backend->line.session, NGHTTP2_FLAG_NONE, echo->stream, NULL, hint, 3, NULL);
}

static int echo_begins(nghttp2_session *session, const nghttp2_frame *frame, void *data) {
  backend_t *backend = data;
  if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  echo_t *echo = calloc(1, sizeof *echo);
  *echo = (echo_t){.backend = backend, .next = backend->echoes, .stream = frame->hd.stream_id, .number = -1};
  backend->echoes = echo;
  nghttp2.session_set_stream_user_data(session, echo->stream, echo);
  return 0;
}

static int echo_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t size,
                     void *data) {
  (void)flags, (void)data;
  echo_t *echo = nghttp2.session_get_stream_user_data(session, stream);
  if (echo == NULL) return 0;
  note_data(echo, bytes, size);
  append(&echo->bytes, bytes, size);
  echo->received += size;
  return 0;
}

static void forget_echo(echo_t *echo) {
  echo_t **at = &echo->backend->echoes;
  while (*at != echo) at = &(*at)->next;
  *at = echo->next;
  discard(&echo->bytes);
  free(echo);
}

static int echo_ends(nghttp2_session *session, int32_t stream, uint32_t code, void *data) {
  (void)code, (void)data;
  echo_t *echo = nghttp2.session_get_stream_user_data(session, stream);
  if (echo) forget_echo(echo);
  return 0;
}

static void stand(site_t *site, bool there) {
  if (there && site->listening < 0) site->listening = listen_at(site->path);
  if (!there && site->listening >= 0) close(site->listening), site->listening = -1;
}

static void break_off(site_t *site, size_t slot) {
  backend_t *backend = site->backends[slot];
  site->backends[slot] = NULL;
  note_loss(backend);
  while (backend->echoes) forget_echo(backend->echoes);
  cut(&backend->line);
  free(backend);
}

static void break_all_off(site_t *site) {
  for (size_t i = 0; i < BACKENDS; i++)
    if (site->backends[i]) break_off(site, i);
}

static void accept_backends(site_t *site) {
  struct pollfd waiting = {site->listening, POLLIN, 0}; /* much cheaper than to accept nobody */
  int fd = poll(&waiting, 1, 0) == 1 ? accept4(site->listening, NULL, NULL, SOCK_NONBLOCK) : -1;
  if (fd < 0) return;
  size_t slot = 0;
  while (slot < BACKENDS && site->backends[slot]) slot++;
  CHECK(slot < BACKENDS);
  backend_t *backend = site->backends[slot] = calloc(1, sizeof *backend);
  backend->site = site;
  backend->line.fd = fd;
  nghttp2.session_server_new2(&backend->line.session, echoing, backend, patient);
  nghttp2.submit_settings(backend->line.session, NGHTTP2_FLAG_NONE, NULL, 0);
  moved++;
}

/* Says goodbye, and that it has seen the client's streams up to that number. */
static void say_goodbye_after(backend_t *backend, int32_t last) {
  backend->leaving = true;
  nghttp2.submit_goaway(backend->line.session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
}

#endif
