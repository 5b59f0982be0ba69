/* Calls that Python answers: their bodies and their answers. */
#ifndef MODELYARD_CALLS_H
#define MODELYARD_CALLS_H

#include "events.h"
#include "http2_state.h"
#include "outgoing.h"

static size_t announced(const stream_t *call) { return announced_size(call->body.bytes, call->body.end); }

/* Makes room for a body that has `needed` bytes and announces so many. */
static void grow(buffer_t *body, size_t needed, size_t announced) {
  if (needed <= body->room) return;
  body->room = room_for_body(needed, announced);
  body->bytes = realloc(body->bytes, body->room);
  must(body->bytes);
}

/* Keeps a part of the body, but never more than one byte above what a call may have: enough to see that it is more. */
static void keep_body(stream_t *call, const uint8_t *bytes, size_t size) {
  if (call->whole) return;
  size_t limit = call->connection->server->body_limit;
  size_t most = PREFIX_SIZE + limit + 1 - call->body.end;
  if (size > most) size = most;
  grow(&call->body, call->body.end + size, announced(call));
  append(&call->body, bytes, size);
  if (announced(call) > limit || call->body.end > PREFIX_SIZE + limit) submit(call);
}

/* nghttp2 asks this how much there is; `send_data` then sends it. */
static ssize_t read_answer(nghttp2_session *session, int32_t number, uint8_t *to, size_t room, uint32_t *flags,
                           nghttp2_data_source *source, void *data) {
  (void)to;
  if (is_full(data)) return NGHTTP2_ERR_PAUSE;
  stream_t *call = source->ptr;
  size_t size = size_of(&call->answer) < room ? size_of(&call->answer) : room;
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  call->answer.at += size;
  if (call->answer.at == call->answer.end) {
    static const nghttp2_nv ok = NAME_VALUE("grpc-status", "0");
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    nghttp2.submit_trailer(session, number, &ok, 1);
  }
  return (ssize_t)size;
}

#endif
