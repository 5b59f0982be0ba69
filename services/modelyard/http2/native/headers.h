/* Headers as they come. */
#ifndef MODELYARD_HEADERS_H
#define MODELYARD_HEADERS_H

#include "http2_state.h"
#include "streams.h"

/* What only proxies say: a client that says it to a door is not believed. */
static bool is_proxys(const uint8_t *name, size_t size) {
  return begins(name, size, "x-envoy-") || begins(name, size, "x-forwarded-") || is(name, size, "x-real-ip") ||
         is(name, size, "forwarded");
}

/* application/grpc, or that with + or ; and more. */
static bool is_grpc_type(const uint8_t *value, size_t size) {
  static const char grpc[] = "application/grpc";
  size_t own = sizeof grpc - 1;
  return size >= own && memcmp(value, grpc, own) == 0 && (size == own || value[own] == '+' || value[own] == ';');
}

/* Where the value of a header is kept if it differs from call to call; else NULL. */
static buffer_t *kept_apart(stream_t *stream, const uint8_t *name, size_t size) {
  if (is(name, size, "grpc-timeout")) return &stream->timeout;
  return is(name, size, "x-request-id") ? &stream->request_id : NULL;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *data) {
  if (frame->hd.type != NGHTTP2_HEADERS) return 0;
  connection_t *connection = data;
  if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
    stream_t *stream = open_stream(connection, frame->hd.stream_id, ARRIVING);
    nghttp2.session_set_stream_user_data(session, frame->hd.stream_id, stream);
  } else {
    stream_t *stream = nghttp2.session_get_stream_user_data(session, frame->hd.stream_id);
    if (stream != NULL && stream->kind == ONWARD) {
      stream->headers.at = stream->headers.end = 0;
      stream->pseudo.at = stream->pseudo.end = 0;
      stream->again = false; /* whatever was said before the answer (1xx) */
    }
  }
  return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                     const uint8_t *value, size_t value_size, uint8_t flags, void *data) {
  (void)flags;
  server_t *server = ((connection_t *)data)->server;
  stream_t *stream = nghttp2.session_get_stream_user_data(session, frame->hd.stream_id);
  if (stream == NULL || frame->hd.type != NGHTTP2_HEADERS) return 0;
  if (stream->kind == CALL || stream->kind == RELAYED) return 0; /* trailers of a request: gRPC has none */
  size_t kept = stream->pseudo.end + stream->headers.end + stream->timeout.end + stream->request_id.end;
  if (kept + name_size + value_size > MOST_HEADERS_SIZE) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* resets it */
  bool pseudo = name_size && name[0] == ':';
  buffer_t *apart = stream->kind == ARRIVING ? kept_apart(stream, name, name_size) : NULL;
  if (apart != NULL) {
    apart->at = apart->end = 0;
    room_for(apart, value_size + 1); /* not NULL, even if it is empty */
    append(apart, value, value_size);
    return 0;
  }
  if (stream->kind == ONWARD && is(name, name_size, ":status")) stream->informs = value_size && value[0] == '1';
  if (stream->kept && is(name, name_size, "grpc-status")) {
    stream->again = is(value, value_size, "14") || is(value, value_size, "1");
  }
  if (stream->to_pod && is(name, name_size, "x-request-id")) return 0; /* the door's is said */
  if (server->is_door && stream->kind == ARRIVING && is_proxys(name, name_size)) return 0;
  if (stream->kind == ARRIVING) {
    if (pseudo && is(name, name_size, ":path")) {
      stream->is_infer = value_size == server->path_size && memcmp(value, server->path, value_size) == 0;
    } else if (is(name, name_size, "content-type")) {
      stream->is_grpc = is_grpc_type(value, value_size);
    } else if (is(name, name_size, "te")) {
      stream->takes_trailers = is(value, value_size, "trailers");
    }
  }
  buffer_t *to = pseudo ? &stream->pseudo : &stream->headers;
  if (to->room == 0) room_for(to, 256);
  pack(to, name, name_size, value, value_size);
  return 0;
}

#endif
