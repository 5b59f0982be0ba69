/* The HTTP/2 server of a pod, and of the door, upon nghttp2. At a pod, calls of one path go to Python, all others on to
 * gRPC's own server.
 *
 * It has no thread. Python's event loop watches one file descriptor (an epoll set of all connections) and lets the
 * server have its turn when that is readable: what has come is read, and Python is handed all whole calls at once.
 * Answers are written when Python says that it has no more for now (`http2_flush`). So a call changes no thread on its
 * way, and a busy pod takes and answers many calls with each step of its loop. Python's side is `server.py`.
 *
 * Every other stream is relayed to a second HTTP/2 server on a Unix socket, headers, data and trailers as they are, in
 * both directions and with each stream's own flow control: one that is not read holds up no other.
 *
 * The process in front of several pods, the door, uses it too: there the calls of that path are relayed to pods, see
 * `door.h`, and connections that speak no HTTP/2 are handed over.
 *
 * The headers beside this file hold its parts; they are compiled with it, as one unit, and read in this order: what
 * there is (`buffers.h`, `http2_state.h`, `streams.h`, `outgoing.h`), what becomes of a stream (`events.h`,
 * `headers.h`, `calls.h`, `relays.h`, `door.h`, `frames.h`), and its way through sockets (`connections.h`, `pods.h`,
 * `traffic.h`).
 *
 * All functions are to be called by one thread. The `http2_...` functions are Python's.
 */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "headers.h"
#include "http2_state.h"
#include "pods.h"
#include "traffic.h"

/* Says which http2_server.c a library was built from: library.py refuses any other. */
#define SERVER_VERSION 6

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

/* What all connections have. */
static nghttp2_option *new_option(void) {
  nghttp2_option *option;
  if (nghttp2.option_new(&option) != 0) abort();
  nghttp2.option_set_no_auto_window_update(option, 1);
  nghttp2.option_set_no_closed_streams(option, 1);
  return option;
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
  server->most_kept = MOST_KEPT;
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
  server->option = new_option();
  server->onward_option = new_option();
  server->pod_option = new_option();
  if (nghttp2.session_callbacks_new(&server->callbacks) != 0) abort();
  nghttp2.session_callbacks_set_on_begin_headers_callback(server->callbacks, on_begin_headers);
  nghttp2.session_callbacks_set_on_header_callback(server->callbacks, on_header);
  nghttp2.session_callbacks_set_on_frame_recv_callback(server->callbacks, on_frame_received);
  nghttp2.session_callbacks_set_on_frame_send_callback(server->callbacks, on_frame_sent);
  nghttp2.session_callbacks_set_on_frame_not_send_callback(server->callbacks, on_frame_not_sent);
  nghttp2.session_callbacks_set_on_data_chunk_recv_callback(server->callbacks, on_data);
  nghttp2.session_callbacks_set_send_data_callback(server->callbacks, send_data);
  nghttp2.session_callbacks_set_on_stream_close_callback(server->callbacks, on_stream_closed);
  /* gRPC remembers with an entry of this table that a header made no sense, and holds that against every later call
   * that refers to the entry: one caller's nonsense would fail all others. */
  nghttp2.option_set_max_deflate_dynamic_table_size(server->onward_option, 0);
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

/* Has a door send calls to these pods and no others. Call it now and then: it connects to those to which there is no
 * connection, or none any more. Answers how many have one. */
size_t http2_set_pods(server_t *server, const char *const *addresses, size_t count) {
  set_pods(server, addresses, count);
  write_all(server);
  size_t ready = 0;
  for (const pod_t *pod = server->pods; pod != NULL; pod = pod->after) {
    ready += pod->connection != NULL && pod->connection->ready;
  }
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
    if (is_unknown(connection)) connection->broken = true; /* it has no streams, and nothing can be said to it */
    touch(connection);
  }
}

/* How many streams of clients are open, whoever answers them. */
size_t http2_open_streams(const server_t *server) {
  size_t count = 0;
  for (connection_t *connection = server->clients; connection != NULL; connection = connection->after) {
    count += connection->stream_count;
  }
  return count;
}

/* Closes all connections. The calls that Python has are to be dropped or answered before. */
void http2_close(server_t *server) {
  server->draining = true;
  while (server->clients != NULL) close_connection(server->clients);
  while (server->onwards != NULL) close_connection(server->onwards);
  set_pods(server, NULL, 0);
  begin_events(server);
  close(server->epoll);
  nghttp2.session_callbacks_del(server->callbacks);
  nghttp2.option_del(server->option);
  nghttp2.option_del(server->onward_option);
  nghttp2.option_del(server->pod_option);
  free(server->begun);
  free(server->events);
  free(server->unpacked);
  discard(&server->outgoing.spent);
  free(server);
}
