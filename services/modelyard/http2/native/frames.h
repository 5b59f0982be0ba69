/* What nghttp2 calls as frames come and go, and as streams are closed. */
#ifndef MODELYARD_FRAMES_H
#define MODELYARD_FRAMES_H

#include "calls.h"
#include "door.h"
#include "relays.h"

static int on_frame_received(nghttp2_session *session, const nghttp2_frame *frame, void *data) {
  connection_t *connection = data;
  if (frame->hd.type == NGHTTP2_GOAWAY) take_no_more(connection); /* it ends with its last stream */
  if (frame->hd.type == NGHTTP2_SETTINGS && !(frame->hd.flags & NGHTTP2_FLAG_ACK)) connection->ready = true;
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  stream_t *stream = nghttp2.session_get_stream_user_data(session, frame->hd.stream_id);
  if (stream == NULL) return 0;
  bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
  stream->received |= end;
  if (stream->kind == ARRIVING && frame->hd.type == NGHTTP2_HEADERS) {
    server_t *server = connection->server;
    bool is_special = stream->is_infer && stream->is_grpc && stream->takes_trailers;
    if (server->is_door && is_special && relay_to_pod(stream)) return 0;
    if (server->is_door || !is_special) {
      relay(stream);
      return 0;
    }
    stream->kind = CALL;
    stream->id = ++server->last_id;
    if (!end && stream->timeout.bytes != NULL) {
      /* Most bodies come with their headers: only if this one is not here at the end of this turn, somebody must watch
       * the deadline. */
      if (server->begun_count == server->begun_room) {
        server->begun_room = server->begun_room ? 2 * server->begun_room : 256;
        server->begun = realloc(server->begun, server->begun_room * sizeof *server->begun);
        must(server->begun);
      }
      stream->owners++;
      server->begun[server->begun_count++] = stream;
    }
  } else if (stream->kind == ONWARD && frame->hd.type == NGHTTP2_HEADERS) {
    relay_back(stream, end);
  }
  if (end && stream->kind == CALL && !stream->whole) submit(stream);
  if (end && (stream->kind == RELAYED || stream->kind == ONWARD) && stream->peer != NULL) {
    stream->peer->ended = true;
    pass_on(stream->peer);
  }
  return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t number, const uint8_t *bytes, size_t size,
                   void *data) {
  (void)flags, (void)data;
  /* The connection's window is for all its streams: it is opened at once, whoever is slow. */
  nghttp2.session_consume_connection(session, size);
  stream_t *stream = nghttp2.session_get_stream_user_data(session, number);
  if (stream != NULL && (stream->kind == RELAYED || stream->kind == ONWARD) && stream->peer != NULL) {
    pass_on(stream->peer);
    if (!stream->peer->kept) {
      append(&stream->peer->relayed, bytes, size);
      return 0; /* the stream's window is opened when this is sent */
    }
    keep_relayed(stream->peer, bytes, size);
  }
  if (stream != NULL && stream->kind == CALL) keep_body(stream, bytes, size);
  nghttp2.session_consume_stream(session, number, size);
  return 0;
}

/* Sends a part of an answer or of what is relayed, of which nghttp2 has just been told that it is there: nghttp2 itself
 * would copy it once more. */
static int send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t size,
                     nghttp2_data_source *source, void *data) {
  (void)session, (void)frame;
  connection_t *connection = data;
  stream_t *stream = source->ptr;
  bool is_answer = stream->kind == CALL;
  const char *end = is_answer ? stream->answer.bytes + stream->answer.at : stream->relayed.bytes + *position_of(stream);
  append(&connection->unsent, head, FRAME_HEAD_SIZE);
  if (size) add_part(connection, end - size, size);
  return 0;
}

/* An answer that is sent before its request has come to its end: the rest of that is not wanted. */
static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *data) {
  (void)data;
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
  stream_t *stream = nghttp2.session_get_stream_user_data(session, frame->hd.stream_id);
  if (stream != NULL && stream->kind != ONWARD && !stream->received) {
    nghttp2.submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
  }
  return 0;
}

static void close_stream(stream_t *stream, uint32_t code) {
  connection_t *connection = stream->connection;
  if (stream->before) {
    stream->before->after = stream->after;
  } else {
    connection->streams = stream->after;
  }
  if (stream->after) stream->after->before = stream->before;
  if (stream->kind == CALL && stream->told && !stream->answer.bytes) tell(stream, GONE);
  connection->stream_count--;
  stream_t *peer = stream->peer;
  if (peer != NULL && peer->kept) { /* nobody waits for its answer any more */
    buffer_t body = take_kept(peer, connection->server);
    discard(&body);
  }
  stream->connection = NULL;
  if (peer != NULL && stream->kept) {
    send_again(peer);
  } else if (peer != NULL) {
    peer->peer = NULL;
    /* An answer that has come as a whole is still sent; everything else ends here as it has ended there. */
    bool is_answered = stream->kind == ONWARD && peer->ended;
    bool is_lost = stream->kind == ONWARD && connection->broken;
    if (is_lost && !peer->responded) {
      say_unavailable(peer);
    } else if (!is_answered) {
      uint32_t reason = stream->kind == ONWARD && code == NGHTTP2_NO_ERROR ? NGHTTP2_INTERNAL_ERROR : code;
      if (stream->kind == RELAYED && code == NGHTTP2_NO_ERROR) reason = NGHTTP2_CANCEL;
      if (is_lost && connection->server->is_door) reason = NGHTTP2_INTERNAL_ERROR; /* nobody has cancelled it */
      nghttp2.submit_rst_stream(peer->connection->session, NGHTTP2_FLAG_NONE, peer->number, reason);
      touch(peer->connection);
    }
  }
  discard_sent(connection->server, &stream->answer);
  discard_sent(connection->server, &stream->relayed);
  release(stream);
}

/* An answer whose headers are too long to be sent: without this its stream would stay open. */
static int on_frame_not_sent(nghttp2_session *session, const nghttp2_frame *frame, int error, void *data) {
  (void)data;
  if (frame->hd.type != NGHTTP2_HEADERS || error != NGHTTP2_ERR_FRAME_SIZE_ERROR) return 0;
  stream_t *stream = nghttp2.session_get_stream_user_data(session, frame->hd.stream_id);
  if (stream != NULL && stream->kind != ONWARD) {
    nghttp2.submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_INTERNAL_ERROR);
  }
  return 0;
}

static int on_stream_closed(nghttp2_session *session, int32_t number, uint32_t code, void *data) {
  (void)data;
  stream_t *stream = nghttp2.session_get_stream_user_data(session, number);
  if (stream != NULL) {
    nghttp2.session_set_stream_user_data(session, number, NULL);
    close_stream(stream, code);
  }
  return 0;
}

#endif
