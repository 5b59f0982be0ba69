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
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "arrival.h"
#include "nghttp2_abi.h"

/* Says which http2_server.c a library was built from: library.py refuses any other. */
#define SERVER_VERSION 5

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
typedef struct pod pod_t;

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

  /* At a door, of a stream that goes to a pod. */
  bool to_pod;
  bool kept;       /* all that has come of it stays in `relayed`, so that it can be sent again */
  bool again;      /* its answer says that another server should be asked */
  size_t position; /* of what is kept, so much has been sent */
  size_t prepaid;  /* for so many bytes of `relayed` the other side's window has been opened already */
  uint64_t arrived_us; /* of a client's stream, by the monotonic clock */

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
  pod_t *pod;          /* whose current connection it is */
  bool ready;          /* the server at its other end has sent its settings */
  size_t stream_count; /* open ones */
  uint64_t last_chosen; /* of a pod: grows with each stream that is begun at any of them */
  char peer[INET6_ADDRSTRLEN]; /* a client's address, at a door; empty if it has none */
  uint8_t greeting[PREFACE_SIZE]; /* at a door, while what has come may be HTTP/2 or not */
  size_t greeting_size;
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

/* A pod that a door sends calls to. */
struct pod {
  pod_t *after;
  struct sockaddr_storage address;
  socklen_t address_size;
  connection_t *connection; /* for new streams; NULL if there is none */
  bool wanted;
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
  nghttp2_option *option, *onward_option, *pod_option;
  bool is_door;
  pod_t *pods;
  uint8_t random[256]; /* for request ids */
  size_t random_left;
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
  connection->stream_count++;
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
    if (server->events[i].kind == GONE || server->events[i].kind == STRANGER) release(server->events[i].call);
  server->taken = false;
  server->event_count = server->joinable_count = server->next_joinable = 0;
}

/* A place for another event. */
static event_t *room_for_event(server_t *server) {
  if (server->event_count == server->event_room) {
    server->event_room = server->event_room ? 2 * server->event_room : 256;
    server->events = realloc(server->events, server->event_room * sizeof(event_t));
    must(server->events);
  }
  return &server->events[server->event_count++];
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
  if (is_joinable) {
    server->joinable[server->next_joinable] = (joinable_t){server->event_count, contents_at};
    server->next_joinable = (server->next_joinable + 1) % MOST_JOINABLE;
    if (server->joinable_count < MOST_JOINABLE) server->joinable_count++;
  }
  *room_for_event(server) = event;
}

static void submit(stream_t *call) {
  call->whole = true;
  tell(call, call->told ? COMPLETE : WHOLE);
}

/* ------------------------------------------------------------------------------------------------------ headers */

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

/* -------------------------------------------------------------------------------------------------------- calls */

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
static void send_again(stream_t *stream);

/* From now on, what has been sent of a stream's body is forgotten. */
static void keep_no_more(stream_t *onward) {
  if (!onward->kept) return;
  onward->kept = false;
  onward->relayed.at = onward->position;
  onward->prepaid = size_of(&onward->relayed);
}

/* Of what has come for a stream, so much has been sent already. */
static size_t *position_of(stream_t *stream) { return stream->kept ? &stream->position : &stream->relayed.at; }

static ssize_t read_relayed(nghttp2_session *session, int32_t number, uint8_t *to, size_t room, uint32_t *flags,
                            nghttp2_data_source *source, void *data) {
  (void)data;
  stream_t *stream = source->ptr;
  buffer_t *relayed = &stream->relayed;
  size_t *at = position_of(stream);
  size_t size = relayed->end - *at < room ? relayed->end - *at : room;
  if (size == 0 && !stream->ended) {
    stream->waits = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  if (size) memcpy(to, relayed->bytes + *at, size);
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

/* A header that differs from call to call is not put into the table of those that are compressed. */
static void add(nghttp2_nv *headers, size_t *count, const char *name, const char *value, size_t size) {
  headers[(*count)++] =
      (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), size, NGHTTP2_NV_FLAG_NO_INDEX};
}

static nghttp2_nv *all_headers(const stream_t *stream, size_t *count) {
  size_t most = count_packed(&stream->pseudo) + count_packed(&stream->headers) + 3;
  nghttp2_nv *headers = calloc(most, sizeof *headers);
  must(headers);
  *count = unpack(stream->pseudo.bytes, stream->pseudo.end, headers, 0, most);
  *count = unpack(stream->headers.bytes, stream->headers.end, headers, *count, most);
  const buffer_t *timeout = &stream->timeout, *request_id = &stream->request_id;
  if (timeout->bytes != NULL) add(headers, count, "grpc-timeout", timeout->bytes, timeout->end);
  if (request_id->bytes != NULL) add(headers, count, "x-request-id", request_id->bytes, request_id->end);
  const char *peer = stream->connection->peer;
  if (*peer) add(headers, count, "x-forwarded-for", peer, strlen(peer));
  return headers;
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
  free(headers);
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
  server_t *server = stream->connection->server;
  if (server->onward != NULL && server->onward->broken) server->onward = NULL; /* it is closed behind this turn */
  connection_t *onward = server->onward != NULL ? server->onward : connect_onward(server);
  if (onward != NULL && nghttp2.session_get_outbound_queue_size(onward->session) < MOST_WAITING_FRAMES &&
      forward(stream, onward, body, false))
    return;
  discard(&body);
  nghttp2.submit_response(stream->connection->session, stream->number, UNAVAILABLE, 4, NULL);
  touch(stream->connection);
}

/* A client's stream whose headers have come and that is not for Python. */
static void relay(stream_t *stream) {
  stream->kind = RELAYED;
  forward_behind(stream, (buffer_t){0});
}

/* ------------------------------------------------------------------------------------------------------ a door */

/* Whatever fails at a pod before its answer has begun is sent to the server behind, which has the patience to find
 * another one: so this side needs to know nothing of health, pauses and retries. */

static uint64_t now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 * 1000 + (uint64_t)now.tv_nsec / 1000;
}

/* Names a call whose client has not: a random UUID. */
static void make_request_id(server_t *server, buffer_t *to) {
  enum { SIZE = 16, TEXT = 36 };
  if (server->random_left < SIZE) {
    if (getrandom(server->random, sizeof server->random, 0) != (ssize_t)sizeof server->random) abort();
    server->random_left = sizeof server->random;
  }
  uint8_t *bytes = server->random + (server->random_left -= SIZE);
  bytes[6] = (bytes[6] & 0x0f) | 0x40; /* RFC 9562: version 4 */
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  char *text = room_for(to, TEXT);
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < SIZE; i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10) *text++ = '-';
    *text++ = digits[bytes[i] >> 4];
    *text++ = digits[bytes[i] & 0x0f];
  }
  to->end += TEXT;
}

/* Begins a call at the pod that has the fewest, of several the one that has waited longest. Whether there is one. */
static bool relay_to_pod(stream_t *stream) {
  server_t *server = stream->connection->server;
  connection_t *found = NULL;
  for (pod_t *pod = server->pods; pod != NULL; pod = pod->after) {
    connection_t *connection = pod->connection;
    if (connection == NULL || !connection->ready || connection->broken) continue;
    if (nghttp2.session_get_outbound_queue_size(connection->session) >= MOST_WAITING_FRAMES) continue;
    if (found == NULL || connection->stream_count < found->stream_count ||
        (connection->stream_count == found->stream_count && connection->last_chosen < found->last_chosen))
      found = connection;
  }
  if (found == NULL) return false;
  found->last_chosen = ++server->last_id;
  if (stream->request_id.bytes == NULL) make_request_id(server, &stream->request_id);
  stream->arrived_us = now_us();
  stream->kind = RELAYED;
  return forward(stream, found, (buffer_t){0}, true);
}

/* Keeps a part of a body that goes to a pod. What is more than a body may have is not kept. */
static void keep_relayed(stream_t *onward, const uint8_t *bytes, size_t size) {
  buffer_t *relayed = &onward->relayed;
  grow(relayed, relayed->end + size, announced_size(relayed->bytes, relayed->end));
  append(relayed, bytes, size);
  if (relayed->end > PREFIX_SIZE + onward->connection->server->body_limit) keep_no_more(onward);
}

/* Has a call's timeout say what is left of it. See gRPC's "HTTP/2 protocol" on Timeout. */
static void shorten_timeout(stream_t *stream) {
  enum { MOST_DIGITS = 8 };
  static const struct { char name; double us; } units[] = {
      {'H', 3600e6}, {'M', 60e6}, {'S', 1e6}, {'m', 1e3}, {'u', 1}, {'n', 1e-3}};
  buffer_t *timeout = &stream->timeout;
  if (timeout->bytes == NULL || timeout->end < 2 || timeout->end > MOST_DIGITS + 1) return; /* nonsense stays that */
  char text[24] = {0}, *unit;
  memcpy(text, timeout->bytes, timeout->end);
  double left = (double)strtoull(text, &unit, 10);
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    if (*unit != units[i].name) continue;
    left = left * units[i].us - (double)(now_us() - stream->arrived_us);
    if (left < 0) left = 0;
    bool is_long = left >= 1e8; /* us: no more than eight digits */
    bool is_very_long = left >= 1e11;
    int size = snprintf(text, sizeof text, "%.0f%c", is_very_long ? left / 1e6 : is_long ? left / 1e3 : left,
                        is_very_long ? 'S' : is_long ? 'm' : 'u');
    timeout->at = timeout->end = 0;
    append(timeout, text, (size_t)size);
    return;
  }
}

/* Sends a call that a pod has not answered to the server behind. */
static void send_again(stream_t *stream) {
  stream_t *lost = stream->peer;
  buffer_t body = lost->relayed;
  body.at = 0;
  stream->peer = lost->peer = NULL;
  lost->relayed = (buffer_t){0};
  lost->kept = lost->ended = false;
  if (lost->connection != NULL) {
    nghttp2.submit_rst_stream(lost->connection->session, NGHTTP2_FLAG_NONE, lost->number, NGHTTP2_CANCEL);
    touch(lost->connection);
  }
  shorten_timeout(stream);
  forward_behind(stream, body);
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
  stream->connection = NULL;
  if (peer != NULL && stream->kept) {
    send_again(peer);
  } else if (peer != NULL) {
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

static connection_t *open_connection(server_t *server, int fd, bool onward, pod_t *pod) {
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
  connection->pod = pod;
  nghttp2_option *option = pod ? server->pod_option : onward ? server->onward_option : server->option;
  int made = onward ? nghttp2.session_client_new2(&connection->session, server->callbacks, connection, option)
                    : nghttp2.session_server_new2(&connection->session, server->callbacks, connection, option);
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
  if (connection->fd >= 0) {
    epoll_ctl(server->epoll, EPOLL_CTL_DEL, connection->fd, NULL);
    close(connection->fd);
  }
  if (connection->before) {
    connection->before->after = connection->after;
  } else {
    *list_of(connection) = connection->after;
  }
  if (connection->after) connection->after->before = connection->before;
  take_no_more(connection);
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
  server->onward = open_connection(server, fd, true, NULL);
  return server->onward;
}

/* Connects to a pod. Whether it has succeeded shows later. */
static void connect_to_pod(server_t *server, pod_t *pod) {
  enum { SILENT_S = 10, BETWEEN_S = 5, UNANSWERED_MS = 20 * 1000 };
  int fd = socket(pod->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return;
  /* A machine that vanishes says nothing. Without effect on a Unix socket. */
  const int on = 1, silent = SILENT_S, between = BETWEEN_S, unanswered = UNANSWERED_MS;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &silent, sizeof silent);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between, sizeof between);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered, sizeof unanswered);
  if (connect(fd, (struct sockaddr *)&pod->address, pod->address_size) != 0 && errno != EINPROGRESS) {
    close(fd);
    return;
  }
  pod->connection = open_connection(server, fd, true, pod);
}

/* Reads `unix:PATH`, `IPV4:PORT` or `[IPV6]:PORT`. Whether it is one of them. */
static bool read_address(const char *text, pod_t *pod) {
  static const char path[] = "unix:";
  memset(&pod->address, 0, sizeof pod->address);
  if (strncmp(text, path, strlen(path)) == 0) {
    struct sockaddr_un *address = (struct sockaddr_un *)&pod->address;
    text += strlen(path);
    if (strlen(text) >= sizeof address->sun_path) return false;
    address->sun_family = AF_UNIX;
    strcpy(address->sun_path, text);
    pod->address_size = sizeof *address;
    return true;
  }
  char host[INET6_ADDRSTRLEN + 2];
  const char *port = strrchr(text, ':');
  size_t size = port == NULL ? 0 : (size_t)(port - text);
  if (size && text[0] == '[' && port[-1] == ']') text++, size -= 2;
  if (size == 0 || size >= sizeof host) return false;
  memcpy(host, text, size);
  host[size] = 0;
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found;
  if (getaddrinfo(host, port + 1, &hints, &found) != 0) return false;
  memcpy(&pod->address, found->ai_addr, found->ai_addrlen);
  pod->address_size = found->ai_addrlen;
  freeaddrinfo(found);
  return true;
}

/* Keeps a client's address as text; that of IPv4 as such, even if the listener is one for IPv6. */
static void note_peer(connection_t *client, const struct sockaddr_storage *address) {
  const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
  const void *four = &((const struct sockaddr_in *)address)->sin_addr;
  bool is_six = address->ss_family == AF_INET6;
  if (is_six && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) is_six = false, four = six->sin6_addr.s6_addr + 12;
  if (!is_six && address->ss_family == AF_UNIX) return;
  inet_ntop(is_six ? AF_INET6 : AF_INET, is_six ? (const void *)&six->sin6_addr : four, client->peer,
            sizeof client->peer);
}

static void accept_clients(server_t *server, int listener) {
  for (int i = 0; i < EVENTS_PER_TURN; i++) {
    struct sockaddr_storage from = {.ss_family = AF_UNIX};
    socklen_t size = sizeof from;
    int fd = accept4(listener, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
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
    connection_t *client = open_connection(server, fd, false, NULL);
    if (server->is_door) note_peer(client, &from);
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

static const char PREFACE[PREFACE_SIZE + 1] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"; /* RFC 9113, 3.4 */

/* At a door: whether it is not known yet that a client speaks HTTP/2. */
static bool is_unknown(const connection_t *connection) {
  return connection->server->is_door && !connection->is_onward && connection->greeting_size < PREFACE_SIZE;
}

/* Hands a client that does not speak HTTP/2 to Python, with what has come of it. */
static void estrange(connection_t *connection, const uint8_t *bytes, size_t size) {
  stream_t *told = calloc(1, sizeof *told); /* owns the bytes, until the events are done with */
  must(told);
  told->owners = 1;
  append(&told->body, connection->greeting, connection->greeting_size);
  append(&told->body, bytes, size);
  server_t *server = connection->server;
  epoll_ctl(server->epoll, EPOLL_CTL_DEL, connection->fd, NULL);
  if (server->taken) begin_events(server);
  *room_for_event(server) = (event_t){
      .kind = STRANGER, .id = (uint64_t)connection->fd, .call = told,
      .body = told->body.bytes, .body_size = told->body.end};
  connection->fd = -1;
  connection->broken = true;
}

/* Takes the first bytes of a client at a door. */
static void greet(connection_t *connection, const uint8_t *bytes, size_t size) {
  size_t missing = PREFACE_SIZE - connection->greeting_size, part = missing < size ? missing : size;
  memcpy(connection->greeting + connection->greeting_size, bytes, part);
  connection->greeting_size += part;
  if (memcmp(connection->greeting, PREFACE, connection->greeting_size) != 0) {
    estrange(connection, bytes + part, size - part);
  } else if (part == missing) {
    feed_frames(connection, connection->greeting, PREFACE_SIZE);
    feed_frames(connection, bytes + part, size - part);
  }
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
    if (is_unknown(connection)) {
      greet(connection, server->in, (size_t)size);
    } else if (connection->is_onward) {
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
  if (is_unknown(connection) && !connection->broken) return;
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
 * of the server for all others. `limit`: the most bytes of a message. `is_door`: calls of that path go to pods instead
 * of Python, see `http2_set_pods`. NULL with errno if it cannot be. */
server_t *http2_open(const int *listeners, size_t listener_count, const char *path, const char *behind, size_t limit,
                     size_t most_clients, int is_door) {
  server_t *server = calloc(1, sizeof *server);
  must(server);
  server->body_limit = limit;
  server->most_clients = most_clients;
  server->is_door = is_door;
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
      nghttp2.option_new(&server->onward_option) != 0 || nghttp2.option_new(&server->pod_option) != 0)
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
  nghttp2.option_set_no_auto_window_update(server->pod_option, 1);
  nghttp2.option_set_no_closed_streams(server->pod_option, 1);
  nghttp2.option_set_no_closed_streams(server->option, 1);
  /* nghttp2 ends a connection on which many calls are cancelled. Here that would be the door's connection, with
   * everybody's calls on it. The door keeps that defence against its own callers, with a rate that none has who means
 * well. */
  enum { RESETS_AT_ONCE = 10 * 1000, RESETS_PER_SECOND = 1000 };
  nghttp2_option_set_stream_reset_rate_limit set_rate =
      (nghttp2_option_set_stream_reset_rate_limit)dlsym(dlopen(NGHTTP2_LIBRARY, RTLD_NOW | RTLD_NOLOAD),
                                                        "nghttp2_option_set_stream_reset_rate_limit");
  if (set_rate != NULL && is_door) set_rate(server->option, RESETS_AT_ONCE, RESETS_PER_SECOND);
  if (set_rate != NULL && !is_door) set_rate(server->option, UINT64_MAX / 2, UINT64_MAX / 2);
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

/* Has a door send calls to these pods and no others. Call it now and then: it connects to those to which there is no
 * connection, or none any more. Answers how many have one. */
size_t http2_set_pods(server_t *server, const char *const *addresses, size_t count) {
  size_t ready = 0;
  for (pod_t *pod = server->pods; pod != NULL; pod = pod->after) pod->wanted = false;
  for (size_t i = 0; i < count; i++) {
    pod_t wanted = {.wanted = true}, *pod = server->pods;
    if (!read_address(addresses[i], &wanted)) continue;
    while (pod != NULL && memcmp(&pod->address, &wanted.address, sizeof wanted.address) != 0) pod = pod->after;
    if (pod == NULL) {
      pod = malloc(sizeof *pod);
      must(pod);
      *pod = wanted;
      pod->after = server->pods;
      server->pods = pod;
    }
    pod->wanted = true;
    if (pod->connection == NULL) connect_to_pod(server, pod);
    ready += pod->connection != NULL && pod->connection->ready;
  }
  for (pod_t **at = &server->pods; *at != NULL;) {
    pod_t *pod = *at;
    if (pod->wanted) {
      at = &pod->after;
      continue;
    }
    connection_t *connection = pod->connection;
    if (connection != NULL) { /* it ends with its last stream */
      take_no_more(connection);
      nghttp2.submit_goaway(connection->session, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0);
      touch(connection);
    }
    *at = pod->after;
    free(pod);
  }
  write_all(server);
  return ready;
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

/* Tells all clients that their connections will soon take no new streams. A pod takes no new connections; a door does,
 * whose address may be the only one. */
void http2_drain(server_t *server) {
  server->draining = !server->is_door;
  if (server->draining) listen_again(server, false);
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
  http2_set_pods(server, NULL, 0);
  while (server->clients != NULL) close_connection(server->clients);
  while (server->onwards != NULL) close_connection(server->onwards);
  begin_events(server);
  close(server->epoll);
  nghttp2.session_callbacks_del(server->callbacks);
  nghttp2.option_del(server->option);
  nghttp2.option_del(server->onward_option);
  nghttp2.option_del(server->pod_option);
  free(server->begun);
  free(server->events);
  free(server);
}
