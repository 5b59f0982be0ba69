/* Drives the HTTP/2 server as Python, its clients and the server behind it do, with calls that end in every way.
 *
 * Stands in for Python: takes events, answers at once or later, alone or together, refuses or drops. Stands in for
 * clients: nghttp2 sessions whose streams come whole or in parts, are too long, cancelled or cut off at any moment, and
 * some that send garbage. Stands in for the server behind: echoes what is relayed to it, ends or resets streams before
 * their time, says goodbye, breaks off, or is away. Checks that every stream that stayed has exactly one right answer,
 * and that nothing is left. All in one thread, and the same for the same seed. Meant to be built with the sanitizers
 * for addresses and undefined behaviour (see test_http2_server_native.py). Arguments: a folder, streams, seed.
 */
#include <sys/resource.h>

#include "../../services/modelyard/http2/native/http2_server.c"
#include "asking.h"
#include "check.h"
#include "raw_client.h"
#include "serving.h"
#include "vandal.h"

enum { LIMIT = 30 * 1000, HELD = 1 << 14 };
enum { REFUSED = 7, EARLY = 9, AWAY = 14 }; /* statuses */

#define HEAD "head"

static struct { long echoed, together, refused, early, unavailable, reset, failed, hints; } counts;

/* ----------------------------------------------------------------------------------------- the server behind */

static site_t behind = {.path = "behind", .listening = -1};
static bool sound_only; /* no new ones now */
static bool mute;       /* it answers nobody for now */

static bool in_trouble(void) {
  if (behind.listening < 0) return true;
  for (size_t i = 0; i < BACKENDS; i++)
    if (behind.backends[i] && behind.backends[i]->leaving) return true;
  for (const connection_t *onward = server->onwards; onward; onward = onward->after) {
    struct pollfd unnoticed = {onward->fd, POLLRDHUP, 0};
    if (poll(&unnoticed, 1, 0)) return true;
  }
  return false;
}

static int echo_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                       const uint8_t *value, size_t value_size, uint8_t flags, void *data) {
  (void)flags, (void)data;
  echo_t *echo = nghttp2.session_get_stream_user_data(session, frame->hd.stream_id);
  if (echo == NULL) return 0;
  if (named(name, name_size, "x-number")) echo->number = number_in(value, value_size);
  if (named(name, name_size, "x-request-id")) echo->has_id = true;
  if (named(name, name_size, "grpc-timeout")) echo->has_timeout = true;
  return 0;
}

static void respond(echo_t *echo) {
  static const nghttp2_nv headers[] = {
      NAME_VALUE(":status", "200"), NAME_VALUE("content-type", "application/grpc"), NAME_VALUE("grpc-status", "9")};
  bool early = echo->number % 13 == 1;
  for (long left = echo->number % 4 == 2 ? echo->number % 3 : 0; left > 0; left--) send_hint(echo), counts.hints++;
  send_back(echo, headers, early ? 3 : 2, !early);
}

static int echo_frame(nghttp2_session *session, const nghttp2_frame *frame, void *data) {
  (void)data;
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  echo_t *echo = nghttp2.session_get_stream_user_data(session, frame->hd.stream_id);
  if (echo == NULL) return 0;
  echo->ended |= (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST && echo->number >= 0) {
    CHECK(echo->has_id == (echo->number % 2 == 1) && echo->has_timeout == (echo->number % 3 == 0));
    if (echo->number % 13 == 0) {
      echo->responded = true;
      nghttp2.submit_rst_stream(session, NGHTTP2_FLAG_NONE, echo->stream, NGHTTP2_CANCEL);
    }
  }
  if (!echo->responded && !mute && (echo->ended || !chance(3))) respond(echo);
  if (echo->waits) echo->waits = false, nghttp2.session_resume_data(session, echo->stream);
  return 0;
}

static void note_data(echo_t *echo, const uint8_t *bytes, size_t size) { (void)echo, (void)bytes, (void)size; }

static void note_loss(backend_t *backend) { troubles += backend->echoes || size_of(&backend->line.unsent); }

static void say_goodbye(backend_t *backend) {
  say_goodbye_after(backend, nghttp2.session_get_last_proc_stream_id(backend->line.session));
}

static void step_backends(void) {
  accept_backends(&behind);
  for (size_t i = 0; i < BACKENDS; i++) {
    if (behind.backends[i] == NULL || chance(3)) continue;
    if (!sound_only && !behind.backends[i]->leaving && chance(300)) troubles++, say_goodbye(behind.backends[i]);
    if (!sound_only && chance(600)) troubles++, break_off(&behind, i);
    else if (!move(&behind.backends[i]->line, eager ? PIECE : 1 + draw(PIECE))) {
      CHECK(behind.backends[i]->leaving); /* whatever comes from clients, nothing sound ends this connection */
      break_off(&behind, i);
    }
  }
  if (sound_only || !chance(behind.listening < 0 ? 20 : 100)) return;
  troubles++;
  stand(&behind, behind.listening < 0);
  for (size_t i = 0; i < BACKENDS && behind.listening < 0; i++)
    if (behind.backends[i] && draw(2)) break_off(&behind, i);
}

/* ------------------------------------------------------------------------------------------- Python's stand-in */

typedef struct {
  uint64_t id;
  stream_t *call;
  together_t *together;
  bool whole;
  buffer_t message, raw; /* with its prefix; of calls that came together */
  size_t count, gone;
} held_t;

static held_t held[HELD]; /* by id: calls in flight are far fewer */
static bool holding;      /* Python answers nobody for now */
static long long_refusals;

static const char refusal[] = {11, 0, 0, 0, 1, 0, 0, 0, 'g', 'r', 'p', 'c', '-', 's', 't', 'a', 't', 'u', 's', '7'};

static void refuse(stream_t *call, bool at_length) {
  enum { LONG = 70 * 1000, NAME = 6 };
  static char longer[sizeof refusal + 8 + NAME + LONG];
  if (!at_length) {
    http2_refuse(call, refusal, sizeof refusal);
    return;
  }
  /* More than nghttp2 sends. */
  uint32_t sizes[2] = {NAME, LONG};
  memcpy(longer, refusal, sizeof refusal);
  memcpy(longer + sizeof refusal, sizes, sizeof sizes);
  memcpy(longer + sizeof refusal + 8, "x-long", NAME);
  memset(longer + sizeof refusal + 8 + NAME, 'x', LONG);
  http2_refuse(call, longer, sizeof longer);
  long_refusals++;
}

static void let_go(held_t *slot) {
  discard(&slot->message);
  discard(&slot->raw);
  *slot = (held_t){0};
}

static void check_packed(const char *packed, size_t size) {
  size_t at = 0;
  while (at < size) {
    uint32_t sizes[2];
    CHECK(size - at >= sizeof sizes);
    memcpy(sizes, packed + at, sizeof sizes);
    at += sizeof sizes;
    CHECK(sizes[0] <= size - at && sizes[1] <= size - at - sizes[0]);
    at += sizes[0] + sizes[1];
  }
}

static void handle(const event_t *event);

static void conclude_together(held_t *slot, bool at_rest) {
  if (slot->gone == slot->count) {
    http2_drop_together(slot->together);
  } else if (draw(3)) {
    const char *contents[] = {slot->raw.bytes, slot->raw.bytes};
    size_t share = slot->raw.end / slot->count, sizes[] = {share, share};
    size_t answered = http2_answer_together(slot->together, HEAD, sizeof HEAD - 1, 1 + draw(2), contents, sizes);
    CHECK(at_rest ? answered == slot->count - slot->gone : answered <= slot->count);
  } else {
    const event_t *events;
    together_t *together = slot->together;
    let_go(slot);
    size_t count = http2_part(together, &events);
    for (size_t i = 0; i < count; i++) handle(&events[i]);
    return;
  }
  let_go(slot);
}

static void conclude(held_t *slot, bool at_rest) {
  moved++;
  if (slot->together) {
    conclude_together(slot, at_rest);
    return;
  }
  const unsigned char *prefix = (const unsigned char *)slot->message.bytes;
  size_t size = slot->message.end;
  bool fits = size >= PREFIX_SIZE && size <= PREFIX_SIZE + LIMIT && prefix[0] == 0 && prefix[1] == 0 &&
              ((size_t)prefix[2] << 16 | (size_t)prefix[3] << 8 | prefix[4]) == size - PREFIX_SIZE;
  if (!fits || draw(12) == 0) {
    refuse(slot->call, numbers && draw(20) == 0);
  } else {
    http2_answer(slot->call, slot->message.bytes + PREFIX_SIZE, size - PREFIX_SIZE);
  }
  let_go(slot);
}

static void keep_message(held_t *slot, const event_t *event) {
  CHECK(event->body_size <= PREFIX_SIZE + LIMIT + 1);
  slot->whole = true;
  append(&slot->message, event->body, event->body_size);
}

static void handle_gone(held_t *slot) {
  if (slot->together) {
    if (++slot->gone == slot->count) conclude(slot, false);
  } else {
    http2_drop(slot->call);
    let_go(slot);
  }
}

static void handle(const event_t *event) {
  held_t *slot = &held[event->id % HELD];
  bool known = slot->id == event->id;
  moved++;
  check_packed(event->headers, event->headers_size);
  if (event->kind == GONE) {
    if (event->request_id) CHECK(event->request_id_size == 0 || event->request_id[event->request_id_size - 1]);
    if (known) handle_gone(slot);
  } else if (event->kind == COMPLETE) {
    if (known) keep_message(slot, event);
  } else {
    CHECK(slot->id == 0);
    slot->id = event->id;
    if (event->kind == TOGETHER) {
      slot->together = event->call;
      slot->count = event->id_size;
      slot->whole = true;
      CHECK(slot->count > 1 && event->request_id_size % slot->count == 0);
      append(&slot->raw, event->request_id, event->request_id_size);
    } else {
      slot->call = event->call;
      if (event->kind == WHOLE) keep_message(slot, event);
      else CHECK(event->kind == COMING && event->timeout);
    }
    if (slot->whole && !holding && chance(4)) conclude(slot, false);
  }
}

static void hand_over(size_t count, const event_t *events) {
  for (; count; count = http2_flush(server, &events))
    for (size_t i = 0; i < count; i++) handle(&events[i]);
}

static void flush(void) {
  const event_t *events;
  size_t count = http2_flush(server, &events);
  hand_over(count, events);
}

static void step_python(void) {
  struct pollfd ready = {http2_descriptor(server), POLLIN, 0};
  const event_t *events;
  if (poll(&ready, 1, 0) == 1) {
    size_t count = http2_turn(server, &events);
    moved++;
    hand_over(count, events);
  }
  for (size_t i = 0; i < HELD && !holding; i++) {
    if (held[i].id == 0) continue;
    if (held[i].whole && (eager || chance(3))) conclude(&held[i], true);
    else if (!held[i].whole && chance(60)) http2_refuse(held[i].call, refusal, sizeof refusal), let_go(&held[i]);
  }
  if (eager || draw(2)) flush();
}

/* ----------------------------------------------------------------------------------------------------- clients */

static void make_body(ask_t *ask) {
  unsigned kind = draw(24);
  size_t size = kind == 0 ? 0 : kind == 1 ? LIMIT - 2 + draw(5) : kind == 2 ? draw(200 * 1000) : draw(300);
  ask->is_plain = !ask->relayed && kind > 6;
  if (ask->is_plain) size = 9 + 16 * draw(3); /* so that some fit together */
  make_message(ask, size);
  if (!ask->relayed && kind == 3) ask->size = 0;
  if (!ask->is_plain) return;
  const char head[] = {1 << 3 | 2, 1, 'm', 7 << 3 | 2, (char)(size - 5)};
  memcpy(ask->body + PREFIX_SIZE, head, sizeof head);
  ask->contents_at = PREFIX_SIZE + sizeof head;
}

static size_t describe(ask_t *ask, nghttp2_nv *headers) {
  unsigned way = draw(8); /* not for Python: another path, no trailers wanted, another type */
  ask->relayed = way < 3;
  make_body(ask);
  size_t count = 0;
  headers[count++] = header(":path", way == 0 ? "/other" : PATH);
  headers[count++] = header("content-type", way == 1 ? "application/json" : "application/grpc+proto");
  if (way != 2) headers[count++] = header("te", "trailers");
  if (ask->relayed) headers[count++] = header("x-number", ask->number_text);
  return count;
}

/* Whether it has its share of an answer to calls that came together. */
static bool is_share(const ask_t *ask) {
  if (!ask->is_plain) return false;
  size_t size = ask->size - ask->contents_at;
  buffer_t right = {0};
  const char output[] = {6 << 3 | 2, (char)size};
  bool found = false;
  append(&right, "\0\0\0\0", PREFIX_SIZE);
  append(&right, HEAD, sizeof HEAD - 1);
  for (int outputs = 1; outputs <= 2 && !found; outputs++) {
    append(&right, output, sizeof output);
    append(&right, ask->body + ask->contents_at, size);
    right.bytes[PREFIX_SIZE - 1] = (char)(right.end - PREFIX_SIZE);
    found = is_answer(ask, right.bytes, right.end);
  }
  discard(&right);
  return found;
}

static void check_relayed(const ask_t *ask, uint32_t code) {
  bool excused = ask->begun_in_trouble || ask->troubles != troubles;
  if (!ask->ended) {
    CHECK(excused || (ending && code == REFUSED_STREAM) || ask->number % 13 == 0);
    counts.reset++;
  } else if (ask->status == AWAY) {
    CHECK(excused && ask->answer.end == 0);
    counts.unavailable++;
  } else if (ask->number % 13 == 1) {
    CHECK(ask->status == EARLY && ask->answer.end == 0);
    counts.early++;
  } else {
    CHECK(ask->status == 0 && ask->number % 13 && is_answer(ask, ask->body, ask->size));
    counts.echoed++;
  }
}

static void check_called(const ask_t *ask, uint32_t code) {
  if (!ask->ended) {
    CHECK((ending && code == REFUSED_STREAM) || (code == NGHTTP2_INTERNAL_ERROR && long_refusals-- > 0));
    counts.failed++;
  } else if (ask->status == REFUSED) {
    CHECK(ask->answer.end == 0);
    counts.refused++;
  } else {
    CHECK(ask->status == 0 && ask->size && ask->size <= PREFIX_SIZE + LIMIT);
    bool alone = is_answer(ask, ask->body, ask->size);
    CHECK(alone || is_share(ask));
    counts.echoed++;
    counts.together += !alone;
  }
}

static void check_answer(const ask_t *ask, uint32_t code) {
  if (ask->relayed) check_relayed(ask, code);
  else check_called(ask, code);
}

/* ------------------------------------------------------------------------------------------------ all together */

static void step_others(void) {
  step_python();
  step_backends();
}

static void look(uint64_t streams) {
  settle(streams); /* nobody is silent who could speak */
  http2_look_for_silent(server);
  flush();
  settle(streams);
}

static void run_at_random(uint64_t streams) {
  long left = 2 * 1000 * 1000;
  while (numbers < streams || open_asks) {
    CHECK(--left);
    sound_only = numbers >= streams;
    if (sound_only) stand(&behind, true);
    step_clients(streams);
    if (draw(2)) step_python();
    if (draw(2)) step_backends();
    for (size_t i = 0; i < VANDALS; i++) step_vandal(&vandals[i]);
    if (chance(500)) look(streams);
  }
}

/* -------------------------------------------------------------------- scenes, with frames that are written by hand */

/* More than all windows hold, most of it padding: they are opened again. */
static void pour(const char *path) {
  enum { TOTAL = CONNECTION_WINDOW + 2 * STREAM_WINDOW, PAD = 255, DATA_PART = 300 };
  static uint8_t payload[1 + DATA_PART + PAD] = {PAD, 0, 0xff};
  raw_t raw = raw_client();
  size_t given = 0;
  holding = true;
  CHECK(listen_in(&raw));
  put_headers(&raw, 1, path, 0);
  for (size_t sent = 0; sent < TOTAL; sent += sizeof payload) {
    if (!may_send(&raw, sizeof payload)) CHECK(listen_in(&raw) && may_send(&raw, sizeof payload));
    raw.window -= sizeof payload;
    raw.stream_window -= sizeof payload;
    put_frame(&raw, NGHTTP2_DATA, PADDED, 1, payload, sizeof payload);
    given += DATA_PART;
  }
  CHECK(listen_in(&raw) && raw.ends == 0 && raw.resets == 0);
  holding = false;
  if (strcmp(path, PATH) == 0) { /* refused, and the rest is not wanted */
    CHECK(listen_in(&raw) && raw.ends == 1 && raw.resets == 1 && raw.received == 0);
  } else {
    put_frame(&raw, NGHTTP2_DATA, END_STREAM, 1, NULL, 0);
    CHECK(listen_in(&raw) && raw.ends == 1 && raw.received == given);
  }
  leave_off(&raw);
}

/* Some kB that stand for 100 MB of headers reset their stream, and nothing else. */
static void overload(void) {
  enum { VALUE = 4000, TIMES = 15 * 1000 };
  raw_t raw = raw_client();
  buffer_t block = headers_for(PATH);
  const uint8_t literal[] = {0x40, 1, 'x', 0x7f, (VALUE - 127) % 128 + 128, (VALUE - 127) / 128};
  append(&block, literal, sizeof literal);
  memset(room_for(&block, VALUE), 'x', VALUE);
  block.end += VALUE;
  put_headers(&raw, 1, "/x", END_STREAM);
  CHECK(listen_in(&raw) && raw.ends == 1);
  put_frame(&raw, NGHTTP2_HEADERS, END_STREAM, 3, block.bytes, block.end);
  char *repeated = memset(room_for(&block, TIMES), 0x80 | 62, TIMES);
  put_frame(&raw, CONTINUATION, END_HEADERS, 3, repeated, TIMES);
  CHECK(listen_in(&raw) && raw.resets == 1 && raw.byes == 0);
  put_headers(&raw, 5, "/x", END_STREAM);
  CHECK(listen_in(&raw) && raw.ends == 2);
  discard(&block);
  leave_off(&raw);
}

/* A stream that was never begun is reset, wherever reads end: nothing comes of it. */
static void reset_nothing(void) {
  raw_t raw = raw_client();
  put_headers(&raw, 1, "/x", 0);
  put(&raw, idle_reset, sizeof idle_reset);
  put(&raw, idle_reset, sizeof idle_reset);
  put_frame(&raw, NGHTTP2_DATA, END_STREAM, 1, idle_reset, sizeof idle_reset);
  CHECK(listen_in(&raw) && raw.ends == 1 && raw.received == sizeof idle_reset);
  put_headers(&raw, 3, "/x", 0);
  for (size_t round = 0; round < 2; round++)
    for (size_t at = 0; at < sizeof idle_reset; at++) {
      put(&raw, idle_reset + at, 1);
      CHECK(listen_in(&raw));
    }
  put_frame(&raw, NGHTTP2_DATA, END_STREAM, 3, "third", 5);
  CHECK(listen_in(&raw) && raw.ends == 2 && raw.received == sizeof idle_reset + 5);
  put_headers(&raw, 5, PATH, 0);
  put(&raw, idle_reset, sizeof idle_reset);
  static const uint8_t cancel[] = {0, 0, 0, NGHTTP2_CANCEL};
  put_frame(&raw, NGHTTP2_RST_STREAM, 0, 5, cancel, sizeof cancel); /* one that was */
  CHECK(listen_in(&raw) && raw.byes == 0 && raw.resets == 0 && http2_open_streams(server) == 0);
  /* What is no such frame is nghttp2's to judge. */
  put_frame(&raw, NGHTTP2_RST_STREAM, 0, 7, cancel, 3);
  listen_in(&raw);
  CHECK(raw.byes == 1);
  leave_off(&raw);
}

/* The server behind says goodbye while a stream runs: it ends well, and the next one gets another connection. */
static void take_leave(void) {
  raw_t raw = raw_client();
  put_headers(&raw, 1, "/x", 0);
  put_frame(&raw, NGHTTP2_DATA, 0, 1, "first", 5);
  CHECK(listen_in(&raw) && raw.received == 5);
  size_t before = 0, after = 0;
  for (size_t i = 0; i < BACKENDS; i++)
    if (behind.backends[i]) before++, say_goodbye(behind.backends[i]);
  CHECK(before == 1 && listen_in(&raw));
  put_headers(&raw, 3, "/x", 0);
  put_frame(&raw, NGHTTP2_DATA, END_STREAM, 3, "second", 6);
  CHECK(listen_in(&raw) && raw.received == 11 && raw.ends == 1);
  put_frame(&raw, NGHTTP2_DATA, END_STREAM, 1, "third", 5);
  CHECK(listen_in(&raw) && raw.received == 16 && raw.ends == 2 && raw.resets == 0);
  for (size_t i = 0; i < BACKENDS; i++) after += behind.backends[i] != NULL;
  CHECK(after == 1);
  leave_off(&raw);
}

/* The server behind is gone, with a call that had no answer yet and one that had a part of it; then it is back. */
static void lose_backend(void) {
  raw_t raw = raw_client();
  put_headers(&raw, 1, "/x", 0);
  put_frame(&raw, NGHTTP2_DATA, 0, 1, "first", 5);
  CHECK(listen_in(&raw) && raw.headers == 1);
  mute = true;
  put_headers(&raw, 3, "/x", END_STREAM);
  CHECK(listen_in(&raw) && raw.headers == 1);
  mute = false;
  stand(&behind, false);
  break_all_off(&behind);
  CHECK(listen_in(&raw) && raw.resets == 1 && raw.headers == 2 && raw.ends == 1);
  put_headers(&raw, 5, "/x", END_STREAM);
  CHECK(listen_in(&raw) && raw.headers == 3 && raw.ends == 2);
  stand(&behind, true);
  put_headers(&raw, 7, "/x", 0);
  put_frame(&raw, NGHTTP2_DATA, END_STREAM, 7, "again", 5);
  CHECK(listen_in(&raw) && raw.received == 10 && raw.ends == 3);
  leave_off(&raw);
}

/* A server behind that accepts nobody does not hold us up: a blocking connect would never return. */
static void crowd_backend(void) {
  enum { CROWD = 3 };
  int crowd[CROWD];
  stand(&behind, false);
  break_all_off(&behind);
  raw_t raw = raw_client();
  CHECK(listen_in(&raw));
  int full = listen_at("behind");
  listen(full, CROWD - 1);
  for (size_t i = 0; i < CROWD; i++) crowd[i] = connect_to("behind");
  put_headers(&raw, 1, "/x", END_STREAM);
  CHECK(listen_in(&raw) && raw.ends == 1 && raw.received == 0);
  for (size_t i = 0; i < CROWD; i++) close(crowd[i]);
  close(full);
  stand(&behind, true);
  leave_off(&raw);
}

/* Without descriptors for new clients the server does not spin, and takes them later. */
static void run_out_of_descriptors(void) {
  struct rlimit before, now;
  raw_t first = raw_client();
  CHECK(listen_in(&first));
  raw_t second = raw_client(); /* connected, but not accepted */
  int next = dup(0);
  close(next);
  getrlimit(RLIMIT_NOFILE, &before);
  now = before;
  now.rlim_cur = (rlim_t)next;
  setrlimit(RLIMIT_NOFILE, &now);
  size_t count = server->client_count;
  step_python();
  settle(numbers);
  CHECK(server->client_count == count);
  setrlimit(RLIMIT_NOFILE, &before);
  leave_off(&first);
  CHECK(listen_in(&second) && server->client_count == count);
  leave_off(&second);
}

/* A closed connection whose descriptor another process has inherited is out of the server's sight. */
static void inherit_descriptor(void) {
  raw_t raw = raw_client();
  CHECK(listen_in(&raw));
  int inherited = dup(server->clients->fd);
  static const uint8_t garbage[FRAME_HEAD_SIZE] = {0xff, 0xff, 0xff, NGHTTP2_DATA};
  put(&raw, garbage, sizeof garbage);
  listen_in(&raw);
  CHECK(raw.byes == 1);
  put(&raw, garbage, sizeof garbage);
  settle(numbers);
  close(inherited);
  leave_off(&raw);
}

/* A client that has calls reset and reads nothing is given up before it fills the memory. It has not yet read how many
 * streams it may open either, so that opening more of them is no error of the connection. */
static void read_nothing(void) {
  raw_t raw = raw_client();
  settle(numbers);
  size_t clients_before = server->client_count, flood = 0;
  buffer_t frames = {0};
  for (; flood < MOST_WAITING_FRAMES + 60 * 1000; flood++) {
    uint32_t stream = 1 + 2 * (uint32_t)flood;
    const uint8_t head[] = {0, 0, 5, NGHTTP2_HEADERS, END_HEADERS, (uint8_t)(stream >> 24), (uint8_t)(stream >> 16),
                            (uint8_t)(stream >> 8), (uint8_t)stream, 0x83, 0x86, 0x84, 0x83, 0x83}; /* :method twice */
    append(&frames, head, sizeof head);
  }
  for (size_t at = 0; at < frames.end && server->client_count == clients_before;) {
    ssize_t sent = send(raw.fd, frames.bytes + at, frames.end - at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) at += (size_t)sent;
    step_python();
  }
  CHECK(server->client_count == clients_before - 1);
  discard(&frames);
  leave_off(&raw);
}

/* Ends the server while some of the last streams run. */
static void end_all(uint64_t streams) {
  for (size_t i = 0; i < CLIENTS; i++) /* a client that is told of the end opens no more */
    if (clients[i]) move(&clients[i]->line, 1 << 20);
  step_python(); /* takes connections that wait to be */
  ending = true;
  http2_drain(server);
  flush();
  for (int i = 0; i < 3; i++) step_clients(streams), step_python(), step_backends();
  http2_end(server);
  flush();
  dismiss_vandals();
  settle(streams);
  CHECK(open_asks == 0 && http2_open_streams(server) == 0);
  CHECK(server->clients == NULL && server->client_count == 0 && server->touched == NULL);
  for (size_t i = 0; i < HELD; i++) CHECK(held[i].id == 0);
  for (size_t i = 0; i < CLIENTS; i++) CHECK(clients[i] == NULL);
}

int main(int count, char **arguments) {
  CHECK(count == 4 && chdir(arguments[1]) == 0);
  uint64_t streams = strtoull(arguments[2], NULL, 10);
  seed = (unsigned)atol(arguments[3]);
  find_nghttp2();
  echoing = callbacks_of(echo_begins, echo_header, echo_frame, echo_data, echo_ends);
  asking = callbacks_of(NULL, answer_header, answer_frame, answer_data, answer_ends);
  stand(&behind, true);
  const int listeners[] = {listen_at("front"), listen_at("side")};
  server = http2_open(listeners, 2, PATH, "behind", LIMIT, 1000, false);
  CHECK(server);
  sound_only = true;
  pour(PATH);
  pour("/other");
  overload();
  reset_nothing();
  take_leave();
  lose_backend();
  crowd_backend();
  run_out_of_descriptors();
  inherit_descriptor();
  read_nothing();
  sound_only = false;
  run_at_random(streams);
  numbers = 0; /* the last ones */
  for (size_t i = 0; i < CLIENTS * OPEN_ASKS / 2; i++) step_clients(CLIENTS * OPEN_ASKS / 2);
  end_all(0);
  http2_close(server);
  close(listeners[0]), close(listeners[1]);
  break_all_off(&behind);
  stand(&behind, false);
  nghttp2.option_del(patient);
  nghttp2.session_callbacks_del(echoing);
  nghttp2.session_callbacks_del(asking);
  printf("echoed %ld (together %ld), refused %ld, early %ld, unavailable %ld, reset %ld, abandoned %ld, failed %ld, "
         "hints %ld\n",
         counts.echoed, counts.together, counts.refused, counts.early, counts.unavailable, counts.reset,
         abandoned, counts.failed, counts.hints);
  CHECK(counts.echoed && counts.together && counts.refused && counts.early && counts.unavailable && counts.reset &&
        abandoned && counts.failed && counts.hints);
  return 0;
}
