/* What Python is told of calls. */
#ifndef MODELYARD_EVENTS_H
#define MODELYARD_EVENTS_H

#include "http2_state.h"
#include "streams.h"

static event_t event_of(stream_t *call, uint64_t kind) {
  return (event_t){
      .kind = kind, .id = call->together ? call->together->id : call->id, .call = call,
      .headers = call->headers.bytes, .headers_size = call->headers.end,
      .timeout = call->timeout.bytes, .timeout_size = call->timeout.end,
      .request_id = call->request_id.bytes, .request_id_size = call->request_id.end,
      .body = call->body.bytes, .body_size = call->body.end,
  };
}

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

#endif
