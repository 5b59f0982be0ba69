/* Streams that are relayed to another server, and its answers on their way back. */
#ifndef MODELYARD_RELAYS_H
#define MODELYARD_RELAYS_H

#include "http2_state.h"
#include "outgoing.h"
#include "streams.h"

static connection_t *connect_onward(server_t *server);
static void send_again(stream_t *stream);

/* From now on, what has been sent of a stream's body is forgotten. */
static void keep_no_more(stream_t *onward) {
  if (!onward->kept) return;
  onward->kept = false;
  onward->connection->server->kept_size -= onward->relayed.end;
  onward->relayed.at = onward->position;
  onward->prepaid = size_of(&onward->relayed);
  if (onward->prepaid == 0) discard(&onward->relayed);
}

/* Takes away what is kept of a stream's body: the stream is to be reset, or is closed. */
static buffer_t take_kept(stream_t *onward, server_t *server) {
  buffer_t body = onward->relayed;
  server->kept_size -= body.end;
  onward->relayed = (buffer_t){0};
  onward->kept = onward->ended = false;
  return body;
}

/* Of what has come for a stream, so much has been sent already. */
static size_t *position_of(stream_t *stream) { return stream->kept ? &stream->position : &stream->relayed.at; }

/* Room for headers until they are given to nghttp2, which copies them. */
static nghttp2_nv *room_to_unpack(server_t *server, size_t count) {
  if (count > server->unpacked_room) {
    free(server->unpacked);
    server->unpacked = malloc(2 * count * sizeof *server->unpacked);
    must(server->unpacked);
    server->unpacked_room = 2 * count;
  }
  return server->unpacked;
}

/* nghttp2 asks this how much there is; `send_data` then sends it. */
static ssize_t read_relayed(nghttp2_session *session, int32_t number, uint8_t *to, size_t room, uint32_t *flags,
                            nghttp2_data_source *source, void *data) {
  (void)to;
  if (is_full(data)) return NGHTTP2_ERR_PAUSE;
  stream_t *stream = source->ptr;
  buffer_t *relayed = &stream->relayed;
  size_t *at = position_of(stream);
  size_t size = relayed->end - *at < room ? relayed->end - *at : room;
  if (size == 0 && !stream->ended) {
    stream->waits = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  *at += size;
  size_t paid = size < stream->prepaid ? size : stream->prepaid;
  stream->prepaid -= paid;
  if (size > paid && stream->peer != NULL && !stream->kept) {
    nghttp2.session_consume_stream(stream->peer->connection->session, stream->peer->number, size - paid);
    touch(stream->peer->connection);
  }
  if (stream->ended && *at == relayed->end) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    size_t count = count_packed(&stream->trailers);
    if (count) {
      nghttp2_nv *trailers = room_to_unpack(stream->connection->server, count);
      unpack(stream->trailers.bytes, stream->trailers.end, trailers, 0, count);
      *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
      nghttp2.submit_trailer(session, number, trailers, count);
    }
  }
  return (ssize_t)size;
}

/* More has come for a relayed stream, or its end. */
static void pass_on(stream_t *stream) {
  if (stream->waits) {
    stream->waits = false;
    nghttp2.session_resume_data(stream->connection->session, stream->number);
  }
  touch(stream->connection);
}

/* A header that differs from call to call is not put into the table of those that are compressed. */
static void add(nghttp2_nv *headers, size_t *count, const char *name, const char *value, size_t size) {
  headers[(*count)++] =
      (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), size, NGHTTP2_NV_FLAG_NO_INDEX};
}

static nghttp2_nv *all_headers(const stream_t *stream, size_t *count) {
  size_t most = count_packed(&stream->pseudo) + count_packed(&stream->headers) + 3;
  nghttp2_nv *headers = room_to_unpack(stream->connection->server, most);
  *count = unpack(stream->pseudo.bytes, stream->pseudo.end, headers, 0, most);
  *count = unpack(stream->headers.bytes, stream->headers.end, headers, *count, most);
  const buffer_t *timeout = &stream->timeout, *request_id = &stream->request_id;
  if (timeout->bytes != NULL) add(headers, count, "grpc-timeout", timeout->bytes, timeout->end);
  if (request_id->bytes != NULL) add(headers, count, "x-request-id", request_id->bytes, request_id->end);
  const char *peer = stream->connection->peer;
  if (*peer) add(headers, count, "x-forwarded-for", peer, strlen(peer));
  return headers;
}

/* Answers a client's stream for which no server is there. */
static void say_unavailable(stream_t *stream) {
  static const nghttp2_nv stopping = NAME_VALUE("grpc-message", "the pod is stopping");
  static const nghttp2_nv away = NAME_VALUE("grpc-message", "no server can be reached for this call");
  nghttp2_nv headers[5] = {
      NAME_VALUE(":status", "200"),
      NAME_VALUE("content-type", "application/grpc"),
      NAME_VALUE("grpc-status", "14"),
  };
  size_t count = 3;
  bool is_door = stream->connection->server->is_door;
  const buffer_t *request_id = &stream->request_id;
  headers[count++] = is_door ? away : stopping;
  if (is_door && request_id->bytes != NULL) add(headers, &count, "x-request-id", request_id->bytes, request_id->end);
  nghttp2.submit_response(stream->connection->session, stream->number, headers, count, NULL);
  touch(stream->connection);
}

/* Has no more streams begun on a connection to another server. */
static void take_no_more(connection_t *onward) {
  if (onward == onward->server->onward) onward->server->onward = NULL;
  if (onward->pod != NULL) onward->pod->connection = NULL;
  onward->pod = NULL;
}

/* Begins a client's stream at another server, with so much of its body. Whether it could be. */
static bool forward(stream_t *stream, connection_t *onward, buffer_t body, bool kept) {
  stream_t *peer = open_stream(onward, 0, ONWARD);
  bool has_body = body.end || !stream->received;
  nghttp2_data_provider provider = {{.ptr = peer}, read_relayed};
  size_t count;
  nghttp2_nv *headers = all_headers(stream, &count);
  peer->number = nghttp2.submit_request(onward->session, NULL, headers, count, has_body ? &provider : NULL, peer);
  touch(onward);
  if (peer->number >= 0) {
    peer->relayed = body;
    peer->prepaid = body.end;
    peer->kept = peer->to_pod = kept;
    peer->ended = stream->received;
    peer->peer = stream;
    stream->peer = peer;
    return true;
  }
  onward->streams = peer->after; /* it was the first */
  if (peer->after) peer->after->before = NULL;
  onward->stream_count--;
  release(peer);
  take_no_more(onward); /* it has no more numbers for streams */
  nghttp2.submit_goaway(onward->session, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0);
  return false;
}

/* Begins a client's stream at the server behind; says UNAVAILABLE where that is not there. */
static void forward_behind(stream_t *stream, buffer_t body) {
  enum { MOST_TRIES = 2 }; /* a connection may have no more numbers for streams */
  server_t *server = stream->connection->server;
  if (server->onward != NULL && server->onward->broken) server->onward = NULL; /* it is closed behind this turn */
  for (int tries = 0; tries < MOST_TRIES; tries++) {
    connection_t *onward = server->onward != NULL ? server->onward : connect_onward(server);
    if (onward == NULL || nghttp2.session_get_outbound_queue_size(onward->session) >= MOST_WAITING_FRAMES) break;
    if (forward(stream, onward, body, false)) return;
  }
  discard(&body);
  say_unavailable(stream);
}

/* A client's stream whose headers have come and that is not for Python. */
static void relay(stream_t *stream) {
  stream->kind = RELAYED;
  forward_behind(stream, (buffer_t){0});
}

/* Headers of an answer, or its trailers, have come from the other server. What it says before its answer (1xx) is not
 * relayed: gRPC has no use for it. */
static void relay_back(stream_t *onward, bool end) {
  stream_t *stream = onward->peer;
  if (stream == NULL || onward->informs) return;
  if (onward->kept && onward->again && end) {
    send_again(stream);
    return;
  }
  if (!stream->responded) {
    stream->responded = true;
    keep_no_more(onward);
    size_t count;
    nghttp2_nv *headers = all_headers(onward, &count);
    if (stream->connection->server->is_door && onward->to_pod) {
      add(headers, &count, "x-request-id", stream->request_id.bytes, stream->request_id.end);
    }
    nghttp2_data_provider body = {{.ptr = stream}, read_relayed};
    nghttp2.submit_response(stream->connection->session, stream->number, headers, count, end ? NULL : &body);
    touch(stream->connection);
  } else {
    discard(&stream->trailers);
    stream->trailers = onward->headers;
    onward->headers = (buffer_t){0};
  }
}

#endif
