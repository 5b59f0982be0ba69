/* The pod's own HTTP/2 server, upon nghttp2: calls of one path go to Python, all others on to gRPC's own server.
 *
 * It has no thread. Python's event loop watches one file descriptor (an epoll set of all connections) and lets the
 * server have its turn when that is readable: what has come is read, and Python is handed all whole calls at once.
 * Answers are written when Python says that it has no more for now (`http2_flush`). So a call changes no thread on its
 * way, and a busy pod takes and answers many calls with each step of its loop. Python's side is `http2_server.py`.
 *
 * Every other stream is relayed to a second HTTP/2 server on a Unix socket, headers, data and trailers as they are, in
 * both directions and with each stream's own flow control: one that is not read holds up no other.
 *
 * All functions are to be called by one thread. The `http2_...` functions are Python's.
 */
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "arrival.h"
#include "nghttp2_abi.h"

/* Says which http2_server.c a library was built from: http2_server.py refuses any other. */
#define SERVER_VERSION 4

enum { ANSWERS_MOST_HEADERS = 16 };
enum { READ_SIZE = 256 * 1024 };
enum { READS_PER_TURN = 4 }; /* of one connection: the others have their turn too */
enum { WRITE_SIZE = 256 * 1024 };
enum { EVENTS_PER_TURN = 256 };
enum { MOST_LISTENERS = 64 };
enum { MOST_TOGETHER = 64, MOST_JOINABLE = 4 };
/* A tensor of some MB should not wait for window updates; 1,000 such streams should not fill the memory either. */
enum { STREAM_WINDOW = 4 << 20, CONNECTION_WINDOW = 32 << 20 };
enum { MOST_STREAMS = 10 * 1000 }; /* of one connection at a time */
enum { MOST_WAITING_FRAMES = 4 * MOST_STREAMS }; /* but data, to a peer that does not read */
/* Of headers. Compressed, some kB can stand for hundreds of MB, which nghttp2 would hand over. */
enum { MOST_HEADERS_SIZE = 128 * 1024 };
enum { FRAME_HEAD_SIZE = 9, PREFACE_SIZE = 24 }; /* HTTP/2's: RFC 9113, 4.1 and 3.4 */

static struct {
#define DECLARE(result, name, arguments) result(*name) arguments;
  NGHTTP2_FUNCTIONS(DECLARE)
#undef DECLARE
} nghttp2;

typedef struct {
  char *bytes;
  size_t at, end, room; /* from `at` to `end` is what there is */
} buffer_t;

typedef struct server server_t;
typedef struct connection connection_t;
typedef struct stream stream_t;
typedef struct together together_t;

typedef enum {
  ARRIVING, /* its headers are not complete */
  CALL,     /* for Python */
  RELAYED,  /* of a client, for the other server */
  ONWARD,   /* the same at the other server */
} kind_t;

struct stream {
  kind_t kind;
  int32_t number; /* HTTP/2's */
  int owners;     /* its connection while it is open; Python, from the first event until it answers or drops the call;
                     an event that tells that it has gone; the list of those that have just begun */
  connection_t *connection; /* NULL once it is closed */
  stream_t *before, *after; /* of the same connection */
  buffer_t pseudo, headers; /* name size, value size (four bytes each), name, value; and so on */
  buffer_t timeout, request_id; /* the values of grpc-timeout and x-request-id, which are not among the headers */
  bool is_infer, is_grpc, takes_trailers;
  bool received; /* the other side has ended its half of the stream */
  bool responded; /* of a relayed stream: it has the headers of its answer */
  bool informs;   /* of an onward stream: its last headers are no answer yet (1xx) */

  uint64_t id; /* of a call: never used again, unlike the address */
  together_t *together; /* those of which Python was told as one */
  buffer_t body;
  bool told;  /* Python knows of it */
  bool whole; /* nothing more is kept of the body */
  buffer_t answer;

  stream_t *peer;    /* of a relayed stream: the same on the other side; NULL when that is closed */
  buffer_t relayed;  /* has come there and is to be sent here */
  buffer_t trailers; /* to be sent behind it */
  bool ended;        /* there is no more to come */
  bool waits;        /* nghttp2 has asked for more than there was */
};

/* Calls of which Python is told as one, see arrival.h. Python owns it. */
struct together {
  uint64_t id;
  size_t count;
  stream_t *calls[MOST_TOGETHER];
  buffer_t contents; /* what the inputs hold, one behind the other */
};

/* An event that others may join. */
typedef struct {
  size_t event; /* its place among the events */
  size_t contents_at;
} joinable_t;

struct connection {
  server_t *server;
  bool is_onward;               /* to the other server; else a client's */
  connection_t *before, *after; /* of all such */
  nghttp2_session *session;
  int fd;
  uint32_t watched; /* what epoll watches it for */
  uint8_t head[FRAME_HEAD_SIZE]; /* of a client's frame, as much as has come, while it is not complete */
  size_t head_size;
  size_t payload_left;  /* of the frame that is coming */
  bool drops_payload;   /* which nghttp2 does not see */
  uint32_t last_begun;  /* the highest number of its streams */
  buffer_t unsent;
  stream_t *streams;
  connection_t *next_touched;
  bool touched; /* there may be something to send */
  bool broken;  /* to be closed */
  bool heard;   /* since the last look at silent connections */
  bool asked;   /* whether it is alive */
};

struct server {
  int epoll, listeners[MOST_LISTENERS];
  size_t listener_count;
  bool listens; /* epoll watches the listeners */
  struct sockaddr_un behind;
  connection_t *onward; /* to the other server, for new streams; NULL when there is none */
  connection_t *clients, *onwards, *touched;
  size_t client_count, most_clients;
  size_t body_limit;
  char path[256]; /* of the calls for Python */
  size_t path_size;
  nghttp2_session_callbacks *callbacks;
  nghttp2_option *option, *onward_option;
  uint64_t last_id;
  stream_t **begun; /* calls whose headers have come in this turn, each owned */
  size_t begun_count, begun_room;
  event_t *events;
  size_t event_count, event_room;
  bool taken; /* Python has the events */
  joinable_t joinable[MOST_JOINABLE];
  size_t joinable_count, next_joinable;
  bool draining;
  uint8_t in[READ_SIZE];
};

static void must(const void *allocated) {
  if (allocated == NULL) abort(); /* as everything else in this process does without memory */
}

/* ---------------------------------------------------------------------------------------------------- buffers */

static size_t size_of(const buffer_t *buffer) { return buffer->end - buffer->at; }

static char *room_for(buffer_t *buffer, size_t size) {
  if (buffer->at == buffer->end) buffer->at = buffer->end = 0;
  if (buffer->end + size > buffer->room) {
    if (buffer->at) {
      memmove(buffer->bytes, buffer->bytes + buffer->at, size_of(buffer));
      buffer->end -= buffer->at;
      buffer->at = 0;
    }
    if (buffer->end + size > buffer->room) {
      size_t room = 2 * buffer->room > buffer->end + size ? 2 * buffer->room : buffer->end + size;
      buffer->bytes = realloc(buffer->bytes, room);
      must(buffer->bytes);
      buffer->room = room;
    }
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

/* ------------------------------------------------------------------------------------------------- lists, lives */

static void release(stream_t *stream) {
  if (--stream->owners) return;
  discard(&stream->pseudo);
  discard(&stream->headers);
  discard(&stream->timeout);
  discard(&stream->request_id);
  discard(&stream->body);
  discard(&stream->answer);
  discard(&stream->relayed);
  discard(&stream->trailers);
  free(stream);
}

static void touch(connection_t *connection) {
  if (connection->touched) return;
  connection->touched = true;
  connection->next_touched = connection->server->touched;
  connection->server->touched = connection;
}

static void watch(connection_t *connection, uint32_t events) {
  if (connection->watched == events) return;
  struct epoll_event event = {.events = events, .data.ptr = connection};
  int operation = connection->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  if (epoll_ctl(connection->server->epoll, operation, connection->fd, &event) != 0) {
    connection->broken = true;
    touch(connection);
  }
  connection->watched = events;
}

static void listen_again(server_t *server, bool on) {
  if (server->listens == on) return;
  for (size_t i = 0; i < server->listener_count; i++) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    int done = epoll_ctl(server->epoll, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, server->listeners[i], &event);
    if (done != 0 && errno != (on ? EEXIST : ENOENT)) return; /* the next time, then, for this one and the rest */
  }
  server->listens = on;
}

static stream_t *open_stream(connection_t *connection, int32_t number, kind_t kind) {
  stream_t *stream = calloc(1, sizeof *stream);
  must(stream);
  stream->kind = kind;
  stream->number = number;
  stream->connection = connection;
  stream->owners = 1;
  stream->after = connection->streams;
  if (connection->streams) connection->streams->before = stream;
  connection->streams = stream;
  return stream;
}

/* ------------------------------------------------------------------------------------------------------- events */

static event_t event_of(stream_t *call, uint64_t kind) {
  return (event_t){
      .kind = kind, .id = call->together ? call->together->id : call->id, .call = call,
      .headers = call->headers.bytes, .headers_size = call->headers.end,
      .timeout = call->timeout.bytes, .timeout_size = call->timeout.end,
      .request_id = call->request_id.bytes, .request_id_size = call->request_id.end,
      .body = call->body.bytes, .body_size = call->body.end,
  };
}

static bool same(const char *left, const char *right, size_t size) { return size == 0 || memcmp(left, right, size) == 0; }

/* Whether two plain messages with one input differ in nothing but what it holds, nor do their calls. */
static bool fit(const event_t *left, const event_t *right, size_t contents_at) {
  return left->body_size == right->body_size && left->raw_at == right->raw_at &&
         left->headers_size == right->headers_size && left->timeout_size == right->timeout_size &&
         same(left->body, right->body, PREFIX_SIZE + contents_at) &&
         (left->timeout == NULL) == (right->timeout == NULL) &&
         same(left->timeout, right->timeout, left->timeout_size) &&
         same(left->headers, right->headers, left->headers_size);
}

static void join(together_t *together, stream_t *call, size_t contents_at) {
  call->together = together;
  together->calls[together->count++] = call;
  size_t begin = PREFIX_SIZE + contents_at;
  append(&together->contents, call->body.bytes + begin, call->body.end - begin);
}

/* Has a call told of together with one before it in this turn. Whether there is one that it fits. */
static bool join_another(server_t *server, const event_t *event, size_t contents_at) {
  for (size_t i = 0; i < server->joinable_count; i++) {
    if (server->joinable[i].contents_at != contents_at) continue;
    event_t *other = &server->events[server->joinable[i].event];
    if (!fit(other, event, contents_at)) continue;
    together_t *together = other->call;
    if (other->kind == WHOLE) {
      stream_t *first = other->call;
      if (first->connection == NULL) continue; /* Python is told that it has gone, by its own id */
      together = calloc(1, sizeof *together);
      must(together);
      together->id = ++server->last_id;
      join(together, first, contents_at);
      other->kind = TOGETHER;
      other->id = together->id;
      other->call = together;
    }
    if (together->count == MOST_TOGETHER) continue;
    join(together, event->call, contents_at);
    other->request_id = together->contents.bytes;
    other->request_id_size = together->contents.end;
    other->id_size = together->count;
    return true;
  }
  return false;
}

static void begin_events(server_t *server) {
  for (size_t i = 0; i < server->event_count; i++)
    if (server->events[i].kind == GONE) release(server->events[i].call);
  server->taken = false;
  server->event_count = server->joinable_count = server->next_joinable = 0;
}

static void tell(stream_t *call, uint64_t kind) {
  server_t *server = call->connection->server;
  if (server->taken) begin_events(server);
  if (!call->told) call->owners++;
  if (kind == GONE) call->owners++; /* Python may answer it for an event before this one, and reads this one then */
  call->told = true;
  event_t event = event_of(call, kind);
  size_t contents_at = kind == WHOLE ? find_plain(&event) : 0;
  bool is_joinable = contents_at && !event.id_size && event.body_size <= PREFIX_SIZE + server->body_limit;
  if (is_joinable && join_another(server, &event, contents_at)) return;
  if (server->event_count == server->event_room) {
    server->event_room = server->event_room ? 2 * server->event_room : 256;
    server->events = realloc(server->events, server->event_room * sizeof(event_t));
    must(server->events);
  }
  if (is_joinable) {
    server->joinable[server->next_joinable] = (joinable_t){server->event_count, contents_at};
    server->next_joinable = (server->next_joinable + 1) % MOST_JOINABLE;
    if (server->joinable_count < MOST_JOINABLE) server->joinable_count++;
  }
  server->events[server->event_count++] = event;
}

static void submit(stream_t *call) {
  call->whole = true;
  tell(call, call->told ? COMPLETE : WHOLE);
}

/* ------------------------------------------------------------------------------------------------------ headers */

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

static bool is(const uint8_t *bytes, size_t size, const char *text) {
  return size == strlen(text) && memcmp(bytes, text, size) == 0;
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
    if (stream != NULL && stream->kind == ONWARD) discard(&stream->headers), discard(&stream->pseudo);
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

/* -------------------------------------------------------------------------------------------------------- calls */

static size_t announced(const stream_t *call) { return announced_size(call->body.bytes, call->body.end); }

/* Keeps a part of the body, but never more than one byte above what a call may have: enough to see that it is more. */
static void keep_body(stream_t *call, const uint8_t *bytes, size_t size) {
  if (call->whole) return;
  size_t limit = call->connection->server->body_limit;
  size_t most = PREFIX_SIZE + limit + 1 - call->body.end;
  if (size > most) size = most;
  size_t needed = call->body.end + size;
  if (needed > call->body.room) {
    size_t room = room_for_body(needed, announced(call));
    call->body.bytes = realloc(call->body.bytes, room);
    must(call->body.bytes);
    call->body.room = room;
  }
  append(&call->body, bytes, size);
  if (announced(call) > limit || call->body.end > PREFIX_SIZE + limit) submit(call);
}

static ssize_t read_answer(nghttp2_session *session, int32_t number, uint8_t *to, size_t room, uint32_t *flags,
                           nghttp2_data_source *source, void *data) {
  (void)data;
  stream_t *call = source->ptr;
  size_t size = size_of(&call->answer) < room ? size_of(&call->answer) : room;
  memcpy(to, call->answer.bytes + call->answer.at, size);
  call->answer.at += size;
  if (call->answer.at == call->answer.end) {
    static const nghttp2_nv ok = NAME_VALUE("grpc-status", "0");
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    nghttp2.submit_trailer(session, number, &ok, 1);
  }
  return (ssize_t)size;
}

static const nghttp2_nv UNAVAILABLE[] = {
    NAME_VALUE(":status", "200"),
    NAME_VALUE("content-type", "application/grpc"),
    NAME_VALUE("grpc-status", "14"),
    NAME_VALUE("grpc-message", "the pod is stopping"),
};

/* ------------------------------------------------------------------------------------------------------- relays */

static connection_t *connect_onward(server_t *server);

static ssize_t read_relayed(nghttp2_session *session, int32_t number, uint8_t *to, size_t room, uint32_t *flags,
                            nghttp2_data_source *source, void *data) {
  (void)data;
  stream_t *stream = source->ptr;
  buffer_t *relayed = &stream->relayed;
  size_t size = size_of(relayed) < room ? size_of(relayed) : room;
  if (size == 0 && !stream->ended) {
    stream->waits = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  if (size) memcpy(to, relayed->bytes + relayed->at, size);
  relayed->at += size;
  if (size && stream->peer != NULL) {
    nghttp2.session_consume_stream(stream->peer->connection->session, stream->peer->number, size);
    touch(stream->peer->connection);
  }
  if (stream->ended && relayed->at == relayed->end) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    size_t count = count_packed(&stream->trailers);
    if (count) {
      nghttp2_nv *trailers = calloc(count, sizeof *trailers);
      must(trailers);
      unpack(stream->trailers.bytes, stream->trailers.end, trailers, 0, count);
      *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
      nghttp2.submit_trailer(session, number, trailers, count);
      free(trailers);
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

static void add(nghttp2_nv *headers, size_t *count, const char *name, const buffer_t *value) {
  if (value->bytes == NULL) return;
  headers[(*count)++] =
      (nghttp2_nv){(uint8_t *)name, (uint8_t *)value->bytes, strlen(name), value->end, NGHTTP2_NV_FLAG_NONE};
}

static nghttp2_nv *all_headers(const stream_t *stream, size_t *count) {
  size_t most = count_packed(&stream->pseudo) + count_packed(&stream->headers) + 2;
  nghttp2_nv *headers = calloc(most, sizeof *headers);
  must(headers);
  *count = unpack(stream->pseudo.bytes, stream->pseudo.end, headers, 0, most);
  *count = unpack(stream->headers.bytes, stream->headers.end, headers, *count, most);
  add(headers, count, "grpc-timeout", &stream->timeout);
  add(headers, count, "x-request-id", &stream->request_id);
  return headers;
}

/* A client's stream that is not for Python. `end`: it has no body. */
static void relay(stream_t *stream, bool end) {
  server_t *server = stream->connection->server;
  stream->kind = RELAYED;
  if (server->onward != NULL && server->onward->broken) server->onward = NULL; /* it is closed behind this turn */
  connection_t *onward = server->onward != NULL ? server->onward : connect_onward(server);
  if (onward != NULL && nghttp2.session_get_outbound_queue_size(onward->session) < MOST_WAITING_FRAMES) {
    stream_t *peer = open_stream(onward, 0, ONWARD);
    nghttp2_data_provider body = {{.ptr = peer}, read_relayed};
    size_t count;
    nghttp2_nv *headers = all_headers(stream, &count);
    peer->number = nghttp2.submit_request(onward->session, NULL, headers, count, end ? NULL : &body, peer);
    free(headers);
    if (peer->number >= 0) {
      stream->peer = peer;
      peer->peer = stream;
      peer->ended = end;
      touch(onward);
      return;
    }
    onward->streams = peer->after; /* it was the first */
    if (peer->after) peer->after->before = NULL;
    release(peer);
    server->onward = NULL; /* it has no more numbers for streams, and ends with its last one */
    nghttp2.submit_goaway(onward->session, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0);
    touch(onward);
  }
  nghttp2.submit_response(stream->connection->session, stream->number, UNAVAILABLE, 4, NULL);
}

/* Headers of an answer, or its trailers, have come from the other server. What it says before its answer (1xx) is not
 * relayed: gRPC has no use for it. */
static void relay_back(stream_t *onward, bool end) {
  stream_t *stream = onward->peer;
  if (stream == NULL || onward->informs) return;
  if (!stream->responded) {
    stream->responded = true;
    size_t count;
    nghttp2_nv *headers = all_headers(onward, &count);
    nghttp2_data_provider body = {{.ptr = stream}, read_relayed};
    nghttp2.submit_response(stream->connection->session, stream->number, headers, count, end ? NULL : &body);
    free(headers);
    touch(stream->connection);
  } else {
    discard(&stream->trailers);
    stream->trailers = onward->headers;
    onward->headers = (buffer_t){0};
  }
}

/* -------------------------------------------------------------------------------------------------- what comes */

static int on_frame_received(nghttp2_session *session, const nghttp2_frame *frame, void *data) {
  connection_t *connection = data;
  if (frame->hd.type == NGHTTP2_GOAWAY && connection == connection->server->onward) {
    connection->server->onward = NULL; /* it takes no new streams, and ends with its last one */
  }
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  stream_t *stream = nghttp2.session_get_stream_user_data(session, frame->hd.stream_id);
  if (stream == NULL) return 0;
  bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
  stream->received |= end;
  if (stream->kind == ARRIVING && frame->hd.type == NGHTTP2_HEADERS) {
    if (!(stream->is_infer && stream->is_grpc && stream->takes_trailers)) {
      relay(stream, end);
      return 0;
    }
    server_t *server = connection->server;
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
    append(&stream->peer->relayed, bytes, size);
    pass_on(stream->peer);
    return 0;
  }
  if (stream != NULL && stream->kind == CALL) keep_body(stream, bytes, size);
  nghttp2.session_consume_stream(session, number, size);
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
  stream_t *peer = stream->peer;
  stream->connection = NULL;
  if (peer != NULL) {
    peer->peer = NULL;
    /* An answer that has come as a whole is still sent; everything else ends here as it has ended there. */
    bool is_answered = stream->kind == ONWARD && peer->ended;
    bool is_lost = stream->kind == ONWARD && connection->broken;
    if (is_lost && !peer->responded) {
      nghttp2.submit_response(peer->connection->session, peer->number, UNAVAILABLE, 4, NULL);
      touch(peer->connection);
    } else if (!is_answered) {
      uint32_t reason = stream->kind == ONWARD && code == NGHTTP2_NO_ERROR ? NGHTTP2_INTERNAL_ERROR : code;
      if (stream->kind == RELAYED && code == NGHTTP2_NO_ERROR) reason = NGHTTP2_CANCEL;
      nghttp2.submit_rst_stream(peer->connection->session, NGHTTP2_FLAG_NONE, peer->number, reason);
      touch(peer->connection);
    }
  }
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

/* -------------------------------------------------------------------------------------------------- connections */

static connection_t **list_of(const connection_t *connection) {
  return connection->is_onward ? &connection->server->onwards : &connection->server->clients;
}

static connection_t *open_connection(server_t *server, int fd, bool onward) {
  connection_t *connection = calloc(1, sizeof *connection);
  must(connection);
  connection->server = server;
  connection->fd = fd;
  connection->is_onward = onward;
  connection->heard = true;
  connection->payload_left = PREFACE_SIZE; /* before the first frame */
  connection_t **list = list_of(connection);
  connection->after = *list;
  if (*list) (*list)->before = connection;
  *list = connection;
  int made = onward ? nghttp2.session_client_new2(&connection->session, server->callbacks, connection, server->onward_option)
                    : nghttp2.session_server_new2(&connection->session, server->callbacks, connection, server->option);
  if (made != 0) abort(); /* without memory */
  nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, MOST_STREAMS},
  };
  nghttp2.submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, onward ? 1 : 2);
  nghttp2.session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
  watch(connection, EPOLLIN);
  touch(connection);
  return connection;
}

static void close_connection(connection_t *connection) {
  server_t *server = connection->server;
  connection->broken = true;
  /* Closing alone would leave it in epoll's set while a process that has been forked meanwhile has it open too. */
  epoll_ctl(server->epoll, EPOLL_CTL_DEL, connection->fd, NULL);
  close(connection->fd);
  if (connection->before) {
    connection->before->after = connection->after;
  } else {
    *list_of(connection) = connection->after;
  }
  if (connection->after) connection->after->before = connection->before;
  if (connection == server->onward) server->onward = NULL;
  if (!connection->is_onward) server->client_count--;
  if (!server->draining) listen_again(server, true); /* if it could not be for want of descriptors */
  while (connection->streams != NULL) close_stream(connection->streams, NGHTTP2_CANCEL);
  nghttp2.session_del(connection->session);
  discard(&connection->unsent);
  free(connection);
}

static connection_t *connect_onward(server_t *server) {
  /* Blocking, it would wait for room in the queue of a server that accepts nothing. */
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return NULL;
  /* To a Unix socket it succeeds or fails at once; then nothing is waited for any more. */
  if (connect(fd, (struct sockaddr *)&server->behind, sizeof server->behind) != 0) {
    close(fd);
    return NULL;
  }
  server->onward = open_connection(server, fd, true);
  return server->onward;
}

static void accept_clients(server_t *server, int listener) {
  for (int i = 0; i < EVENTS_PER_TURN; i++) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      /* Without a descriptor for it the connection stays in the kernel's queue, until another one is closed. */
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) listen_again(server, false);
      return;
    }
    if (server->client_count >= server->most_clients) {
      close(fd);
      continue;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* without effect on a Unix socket */
    open_connection(server, fd, false);
    server->client_count++;
  }
}

/* Whether a frame resets a stream that its client has not begun.
 *
 * gRPC's client does so to a call that is cancelled when the stream has its number and the headers are not written yet.
 * By RFC 9113, 5.1 that ends the connection, and nghttp2 ends it, with every other call; gRPC's own servers pass over
 * it, and so do we. */
static bool resets_nothing(const connection_t *connection, uint8_t type, size_t payload, uint32_t number) {
  return type == NGHTTP2_RST_STREAM && payload == 4 && number % 2 == 1 && number > connection->last_begun;
}

static void feed(connection_t *connection, const uint8_t *bytes, size_t size) {
  if (size == 0 || connection->broken) return;
  if (nghttp2.session_mem_recv(connection->session, bytes, size) < 0) connection->broken = true;
}

/* Gives nghttp2 what has come of a client, but for frames that reset nothing. */
static void feed_frames(connection_t *connection, const uint8_t *bytes, size_t size) {
  const uint8_t *end = bytes + size, *at = bytes; /* from `bytes` to `at` is seen and not yet given */
  while (at < end) {
    if (connection->payload_left) {
      size_t part = connection->payload_left < (size_t)(end - at) ? connection->payload_left : (size_t)(end - at);
      connection->payload_left -= part;
      at += part;
      if (connection->drops_payload) bytes = at;
      continue;
    }
    const uint8_t *head = at;
    if (connection->head_size || end - at < FRAME_HEAD_SIZE) {
      feed(connection, bytes, (size_t)(at - bytes));
      size_t missing = FRAME_HEAD_SIZE - connection->head_size;
      size_t part = missing < (size_t)(end - at) ? missing : (size_t)(end - at);
      memcpy(connection->head + connection->head_size, at, part);
      connection->head_size += part;
      bytes = at += part;
      if (part < missing) return;
      head = connection->head;
    } else {
      at += FRAME_HEAD_SIZE;
    }
    size_t payload = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
    uint32_t number = (uint32_t)head[5] << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8];
    number &= INT32_MAX; /* without the bit that is reserved */
    if (head[3] == NGHTTP2_HEADERS && number > connection->last_begun) connection->last_begun = number;
    connection->payload_left = payload;
    connection->drops_payload = resets_nothing(connection, head[3], payload, number);
    if (connection->head_size) {
      if (!connection->drops_payload) feed(connection, head, FRAME_HEAD_SIZE);
      connection->head_size = 0;
    } else if (connection->drops_payload) {
      feed(connection, bytes, (size_t)(head - bytes));
      bytes = at;
    }
  }
  feed(connection, bytes, (size_t)(at - bytes));
}

static void read_from(connection_t *connection) {
  server_t *server = connection->server;
  for (int i = 0; i < READS_PER_TURN && !connection->broken; i++) {
    ssize_t size = recv(connection->fd, server->in, sizeof server->in, MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    touch(connection);
    if (size <= 0) {
      connection->broken = true;
      return;
    }
    connection->heard = true;
    connection->asked = false;
    if (connection->is_onward) {
      feed(connection, server->in, (size_t)size);
    } else {
      feed_frames(connection, server->in, (size_t)size);
    }
    /* It makes us answer and does not read: its frames would fill the memory. */
    if (!connection->is_onward &&
        nghttp2.session_get_outbound_queue_size(connection->session) > MOST_WAITING_FRAMES) {
      connection->broken = true;
    }
    if ((size_t)size < sizeof server->in) return;
  }
}

/* Sends what there is; closes the connection if it is at its end. */
static void write_to(connection_t *connection) {
  buffer_t *unsent = &connection->unsent;
  while (!connection->broken) {
    while (size_of(unsent) < WRITE_SIZE) {
      const uint8_t *bytes;
      ssize_t size = nghttp2.session_mem_send(connection->session, &bytes);
      if (size < 0) connection->broken = true;
      if (size <= 0) break;
      append(unsent, bytes, (size_t)size);
    }
    if (size_of(unsent) == 0) break;
    ssize_t sent = send(connection->fd, unsent->bytes + unsent->at, size_of(unsent), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      watch(connection, EPOLLIN | EPOLLOUT);
      return;
    }
    if (sent < 0) connection->broken = true;
    if (sent > 0) unsent->at += (size_t)sent;
  }
  bool alive = nghttp2.session_want_read(connection->session) || nghttp2.session_want_write(connection->session);
  if (connection->broken || !alive) {
    close_connection(connection);
  } else {
    watch(connection, EPOLLIN);
  }
}

/* ----------------------------------------------------------------------------------------------- Python's side */

int http2_version(void) { return SERVER_VERSION; }

/* Finds nghttp2 for this process. Answers NULL, or what is missing. */
const char *http2_load(void) {
  void *library = dlopen(NGHTTP2_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) return NGHTTP2_LIBRARY;
#define FIND(result, name, arguments)                             \
  nghttp2.name = (result(*) arguments)dlsym(library, "nghttp2_" #name); \
  if (nghttp2.name == NULL) return "nghttp2_" #name;
  NGHTTP2_FUNCTIONS(FIND)
#undef FIND
  return NULL;
}

/* Serves listening sockets, whose owner stays the caller. `path`: of the calls for Python. `behind`: the Unix socket
 * of the server for all others. `limit`: the most bytes of a message. NULL with errno if it cannot be. */
server_t *http2_open(const int *listeners, size_t listener_count, const char *path, const char *behind, size_t limit,
                     size_t most_clients) {
  server_t *server = calloc(1, sizeof *server);
  must(server);
  server->body_limit = limit;
  server->most_clients = most_clients;
  server->path_size = strlen(path);
  server->behind.sun_family = AF_UNIX;
  server->epoll = epoll_create1(EPOLL_CLOEXEC);
  if (server->epoll < 0 || listener_count > MOST_LISTENERS || server->path_size >= sizeof server->path ||
      strlen(behind) >= sizeof server->behind.sun_path) {
    if (server->epoll >= 0) close(server->epoll), errno = ENAMETOOLONG;
    free(server);
    return NULL;
  }
  memcpy(server->listeners, listeners, listener_count * sizeof *listeners);
  server->listener_count = listener_count;
  memcpy(server->path, path, server->path_size);
  strcpy(server->behind.sun_path, behind);
  if (nghttp2.session_callbacks_new(&server->callbacks) != 0 || nghttp2.option_new(&server->option) != 0 ||
      nghttp2.option_new(&server->onward_option) != 0)
    abort();
  nghttp2.session_callbacks_set_on_begin_headers_callback(server->callbacks, on_begin_headers);
  nghttp2.session_callbacks_set_on_header_callback(server->callbacks, on_header);
  nghttp2.session_callbacks_set_on_frame_recv_callback(server->callbacks, on_frame_received);
  nghttp2.session_callbacks_set_on_frame_send_callback(server->callbacks, on_frame_sent);
  nghttp2.session_callbacks_set_on_frame_not_send_callback(server->callbacks, on_frame_not_sent);
  nghttp2.session_callbacks_set_on_data_chunk_recv_callback(server->callbacks, on_data);
  nghttp2.session_callbacks_set_on_stream_close_callback(server->callbacks, on_stream_closed);
  nghttp2.option_set_no_auto_window_update(server->option, 1);
  nghttp2.option_set_no_auto_window_update(server->onward_option, 1);
  nghttp2.option_set_no_closed_streams(server->onward_option, 1);
  /* gRPC remembers with an entry of this table that a header made no sense, and holds that against every later call
   * that refers to the entry: one caller's nonsense would fail all others. */
  nghttp2.option_set_max_deflate_dynamic_table_size(server->onward_option, 0);
  nghttp2.option_set_no_closed_streams(server->option, 1);
  /* nghttp2 ends a connection on which many calls are cancelled. Here that would be the door's connection, with
   * everybody's calls on it. The door itself keeps this defence against its own callers. */
  nghttp2_option_set_stream_reset_rate_limit set_rate =
      (nghttp2_option_set_stream_reset_rate_limit)dlsym(dlopen(NGHTTP2_LIBRARY, RTLD_NOW | RTLD_NOLOAD),
                                                        "nghttp2_option_set_stream_reset_rate_limit");
  if (set_rate != NULL) set_rate(server->option, UINT64_MAX / 2, UINT64_MAX / 2);
  listen_again(server, true);
  return server;
}

/* Readable when the server should have its turn. */
int http2_descriptor(const server_t *server) { return server->epoll; }

/* Sends what there is to send. */
static void write_all(server_t *server) {
  while (server->touched != NULL) {
    connection_t *connection = server->touched;
    server->touched = connection->next_touched;
    connection->touched = false;
    write_to(connection);
  }
}

static size_t take(server_t *server, const event_t **events) {
  if (server->taken) begin_events(server);
  server->taken = true;
  *events = server->events;
  return server->event_count;
}

/* Reads what has come. Answers how many events there are; they are valid until the next call of a function that
 * answers events, and what they point to until the call is answered or dropped. */
size_t http2_turn(server_t *server, const event_t **events) {
  struct epoll_event ready[EVENTS_PER_TURN];
  int count = epoll_wait(server->epoll, ready, EVENTS_PER_TURN, 0);
  for (int i = 0; i < count; i++) {
    connection_t *connection = ready[i].data.ptr;
    if (connection == NULL) {
      for (size_t j = 0; j < server->listener_count; j++) accept_clients(server, server->listeners[j]);
    } else {
      if (ready[i].events & EPOLLOUT) touch(connection);
      if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_from(connection);
    }
  }
  for (size_t i = 0; i < server->begun_count; i++) {
    stream_t *call = server->begun[i];
    if (!call->told && call->connection != NULL) tell(call, COMING);
    release(call);
  }
  server->begun_count = 0;
  write_all(server);
  return take(server, events);
}

/* Sends the answers that were given. What happens meanwhile is told by the next function that answers events. */
void http2_send(server_t *server) { write_all(server); }

/* Sends the answers that were given. Answers events as `http2_turn` does. */
size_t http2_flush(server_t *server, const event_t **events) {
  write_all(server);
  return take(server, events);
}

/* Asks the clients that have been silent since the last time whether they are alive; closes the connections of those
 * that were asked then. Call it now and then, and `http2_flush` after it. */
void http2_look_for_silent(server_t *server) {
  for (connection_t *connection = server->clients; connection != NULL; connection = connection->after) {
    if (!connection->heard && connection->asked) connection->broken = true;
    if (!connection->heard && !connection->asked) {
      nghttp2.submit_ping(connection->session, NGHTTP2_FLAG_NONE, NULL);
      connection->asked = true;
    }
    connection->heard = false;
    touch(connection);
  }
  if (!server->draining) listen_again(server, true);
}

static void finish(stream_t *call) {
  if (call->connection != NULL) touch(call->connection);
  release(call);
}

/* Begins the answer of a call, which has so many bytes of a message. */
static void begin_answer(stream_t *call, size_t size) {
  const unsigned char prefix[PREFIX_SIZE] = {
      0, (unsigned char)(size >> 24), (unsigned char)(size >> 16), (unsigned char)(size >> 8), (unsigned char)size,
  };
  room_for(&call->answer, PREFIX_SIZE + size);
  append(&call->answer, prefix, PREFIX_SIZE);
}

static void send_answer(stream_t *call) {
  static const nghttp2_nv headers[] = {
      NAME_VALUE(":status", "200"),
      NAME_VALUE("content-type", "application/grpc"),
  };
  nghttp2_data_provider body = {{.ptr = call}, read_answer};
  call->whole = true;
  nghttp2.submit_response(call->connection->session, call->number, headers, 2, &body);
}

/* Answers a call with a message, and is through with it. */
void http2_answer(stream_t *call, const char *message, size_t size) {
  if (call->connection != NULL) {
    begin_answer(call, size);
    append(&call->answer, message, size);
    send_answer(call);
  }
  finish(call);
}

static void free_together(together_t *together) {
  discard(&together->contents);
  free(together);
}

/* Writes a number as Protocol Buffers do; answers how many bytes it takes. */
static size_t write_varint(uint64_t value, unsigned char *to) {
  size_t size = 0;
  for (; value > 0x7f; value >>= 7) to[size++] = (unsigned char)(value | 0x80);
  to[size++] = (unsigned char)value;
  return size;
}

/* Answers calls that came together, and is through with them: each with `head` and behind it, as raw contents of each
 * of the outputs, its share of `contents`, which are `sizes` bytes for one call. Answers how many calls were answered:
 * those whose callers are there. */
size_t http2_answer_together(together_t *together, const char *head, size_t head_size, size_t outputs,
                             const char *const *contents, const size_t *sizes) {
  enum { RAW_OUTPUT_CONTENTS = 6 << 3 | 2, LONGEST_VARINT = 10 };
  size_t answered = 0, size = head_size;
  unsigned char tag[1 + LONGEST_VARINT] = {RAW_OUTPUT_CONTENTS};
  for (size_t j = 0; j < outputs; j++) size += 1 + write_varint(sizes[j], tag + 1) + sizes[j];
  for (size_t i = 0; i < together->count; i++) {
    stream_t *call = together->calls[i];
    if (call->connection != NULL) {
      begin_answer(call, size);
      append(&call->answer, head, head_size);
      for (size_t j = 0; j < outputs; j++) {
        append(&call->answer, tag, 1 + write_varint(sizes[j], tag + 1));
        append(&call->answer, contents[j] + i * sizes[j], sizes[j]);
      }
      send_answer(call);
      answered++;
    }
    call->together = NULL;
    finish(call);
  }
  free_together(together);
  return answered;
}

/* Is through with calls that came together, all of whose callers have gone. */
void http2_drop_together(together_t *together) {
  for (size_t i = 0; i < together->count; i++) {
    together->calls[i]->together = NULL;
    release(together->calls[i]);
  }
  free_together(together);
}

/* Tells of calls that came together one by one, as whole calls, but for those whose callers have gone. The events are
 * valid until the next call of this function. */
size_t http2_part(together_t *together, const event_t **events) {
  static event_t parted[MOST_TOGETHER];
  size_t count = 0;
  for (size_t i = 0; i < together->count; i++) {
    stream_t *call = together->calls[i];
    call->together = NULL;
    if (call->connection == NULL) {
      release(call);
    } else {
      parted[count] = event_of(call, WHOLE);
      find_plain(&parted[count++]);
    }
  }
  free_together(together);
  *events = parted;
  return count;
}

/* Answers a call with nothing but headers, packed, and is through with it. */
void http2_refuse(stream_t *call, const char *packed, size_t size) {
  if (call->connection != NULL) {
    nghttp2_nv headers[ANSWERS_MOST_HEADERS] = {NAME_VALUE(":status", "200")};
    size_t count = unpack(packed, size, headers, 1, ANSWERS_MOST_HEADERS);
    room_for(&call->answer, 1); /* says that it is answered */
    call->whole = true;
    nghttp2.submit_response(call->connection->session, call->number, headers, count, NULL);
  }
  finish(call);
}

/* Is through with a call without an answer: nobody waits for one. */
void http2_drop(stream_t *call) { release(call); }

/* Takes no new connections, and tells all clients that this one will soon take no new streams. */
void http2_drain(server_t *server) {
  server->draining = true;
  listen_again(server, false);
  for (connection_t *connection = server->clients; connection != NULL; connection = connection->after) {
    nghttp2.submit_shutdown_notice(connection->session);
    touch(connection);
  }
}

/* Takes no new streams: connections are closed as their last ends. */
void http2_end(server_t *server) {
  for (connection_t *connection = server->clients; connection != NULL; connection = connection->after) {
    int32_t last = nghttp2.session_get_last_proc_stream_id(connection->session);
    nghttp2.submit_goaway(connection->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
    touch(connection);
  }
}

/* How many streams of clients are open, whoever answers them. */
size_t http2_open_streams(const server_t *server) {
  size_t count = 0;
  for (connection_t *connection = server->clients; connection != NULL; connection = connection->after) {
    for (stream_t *stream = connection->streams; stream != NULL; stream = stream->after) count++;
  }
  return count;
}

/* Closes all connections. The calls that Python has are to be dropped or answered before. */
void http2_close(server_t *server) {
  server->draining = true;
  while (server->clients != NULL) close_connection(server->clients);
  while (server->onwards != NULL) close_connection(server->onwards);
  begin_events(server);
  close(server->epoll);
  nghttp2.session_callbacks_del(server->callbacks);
  nghttp2.option_del(server->option);
  nghttp2.option_del(server->onward_option);
  free(server->begun);
  free(server->events);
  free(server);
}
