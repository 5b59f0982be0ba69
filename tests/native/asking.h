/* Clients of the HTTP/2 server whose streams come whole or in parts, and are cancelled or cut off at any moment. What
 * their streams say, and what answer is right, is the program's. */
#ifndef MODELYARD_ASKING_H
#define MODELYARD_ASKING_H

#include "lines.h"
#include "raw_client.h"

enum { CLIENTS = 10, OPEN_ASKS = 24, MOST_ASK_HEADERS = 20 };
enum { REFUSED_STREAM = 7 }; /* HTTP/2's error */

/* A stream. */
typedef struct {
  line_t *line;
  uint64_t number;
  int32_t stream;
  bool relayed, waits, cancelled;
  bool by_trailers, is_plain;
  char *body;
  size_t size, allowed, sent, contents_at;
  char number_text[24], id[32]; /* x-number and x-request-id, if they are said */
  buffer_t answer;
  int ended, status, statuses;
  char answer_id[64]; /* x-request-id */
  int answer_ids;
  long troubles;
  bool begun_in_trouble;
} ask_t;

typedef struct {
  line_t line;
  ask_t *asks[OPEN_ASKS];
} client_t;

static server_t *server;
static client_t *clients[CLIENTS];
static uint64_t numbers; /* of clients' streams, which have begun */
static size_t open_asks;
static long abandoned; /* by their clients */
static long troubles;  /* how often streams behind could be lost */
static bool ending;    /* the server will take no new streams */

/* The program's. */
static bool in_trouble(void);
static size_t describe(ask_t *ask, nghttp2_nv *headers); /* makes it a body, and what is special of its headers */
static void check_answer(const ask_t *ask, uint32_t code);
static void step_others(void); /* everybody but the clients */

/* A message of so many bytes, and its prefix. */
static void make_message(ask_t *ask, size_t size) {
  ask->size = PREFIX_SIZE + size;
  ask->body = malloc(ask->size);
  for (size_t i = 0; i < size; i++) ask->body[PREFIX_SIZE + i] = byte_of(ask->number, i);
  const char prefix[PREFIX_SIZE] = {0, 0, (char)(size >> 16), (char)(size >> 8), (char)size};
  memcpy(ask->body, prefix, PREFIX_SIZE);
}

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *data) {
  (void)data;
  ask_t *ask = source->ptr;
  size_t size = least(ask->allowed - ask->sent, room);
  if (size == 0 && ask->sent < ask->size) {
    ask->waits = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  memcpy(to, ask->body + ask->sent, size);
  ask->sent += size;
  if (ask->sent == ask->size) *flags |= NGHTTP2_DATA_FLAG_EOF;
  if (ask->sent == ask->size && ask->by_trailers) {
    static const nghttp2_nv trailer = NAME_VALUE("x-trailer", "ignored");
    *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    nghttp2.submit_trailer(session, stream, &trailer, 1);
  }
  return (ssize_t)size;
}

static ask_t *begin(client_t *client) {
  ask_t *ask = calloc(1, sizeof *ask);
  *ask = (ask_t){.line = &client->line, .number = numbers++, .troubles = troubles, .begun_in_trouble = in_trouble()};
  snprintf(ask->number_text, sizeof ask->number_text, "%llu", (unsigned long long)ask->number);
  if (ask->number % 2) snprintf(ask->id, sizeof ask->id, "r-%s", ask->number_text);
  nghttp2_nv headers[MOST_ASK_HEADERS] = {header(":method", "POST"), header(":scheme", "http"),
                                          header(":authority", "me")};
  size_t count = 3 + describe(ask, headers + 3);
  if (ask->number % 3 == 0) headers[count++] = header("grpc-timeout", "10S");
  if (ask->number % 2) headers[count++] = header("x-request-id", ask->id);
  CHECK(count <= MOST_ASK_HEADERS);
  ask->by_trailers = draw(8) == 0;
  ask->allowed = draw(3) ? ask->size : draw((unsigned)ask->size + 1);
  nghttp2_data_provider body = {{.ptr = ask}, read_body};
  ask->stream = nghttp2.submit_request(client->line.session, NULL, headers, count, ask->size ? &body : NULL, ask);
  CHECK(ask->stream > 0);
  open_asks++;
  return ask;
}

static int answer_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                         const uint8_t *value, size_t value_size, uint8_t flags, void *data) {
  (void)flags, (void)data;
  ask_t *ask = nghttp2.session_get_stream_user_data(session, frame->hd.stream_id);
  if (ask == NULL) return 0;
  if (named(name, name_size, ":status")) CHECK(number_in(value, value_size) == 200);
  if (named(name, name_size, "grpc-status")) ask->status = (int)number_in(value, value_size), ask->statuses++;
  if (named(name, name_size, "x-request-id")) {
    memcpy(ask->answer_id, value, least(value_size, sizeof ask->answer_id - 1));
    ask->answer_ids++;
  }
  return 0;
}

static int answer_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t size,
                       void *data) {
  (void)flags, (void)data;
  ask_t *ask = nghttp2.session_get_stream_user_data(session, stream);
  if (ask) append(&ask->answer, bytes, size);
  return 0;
}

static int answer_frame(nghttp2_session *session, const nghttp2_frame *frame, void *data) {
  (void)data;
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  ask_t *ask = nghttp2.session_get_stream_user_data(session, frame->hd.stream_id);
  if (ask && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) ask->ended++;
  return 0;
}

static bool is_answer(const ask_t *ask, const char *right, size_t size) {
  return ask->answer.end == size && same(ask->answer.bytes, right, size);
}

static void forget_ask(ask_t *ask) {
  discard(&ask->answer);
  free(ask->body);
  free(ask);
  open_asks--;
}

static int answer_ends(nghttp2_session *session, int32_t stream, uint32_t code, void *data) {
  client_t *client = data;
  ask_t *ask = nghttp2.session_get_stream_user_data(session, stream);
  if (ask == NULL) return 0;
  if (ask->cancelled) {
    abandoned++;
  } else {
    CHECK(ask->ended <= 1 && ask->statuses == ask->ended);
    check_answer(ask, code);
  }
  for (size_t i = 0; i < OPEN_ASKS; i++)
    if (client->asks[i] == ask) client->asks[i] = NULL;
  forget_ask(ask);
  return 0;
}

static void hang_up(size_t slot) {
  client_t *client = clients[slot];
  clients[slot] = NULL;
  cut(&client->line);
  for (size_t i = 0; i < OPEN_ASKS; i++)
    if (client->asks[i]) abandoned++, forget_ask(client->asks[i]);
  free(client);
}

static client_t *call_up(void) {
  client_t *client = calloc(1, sizeof *client);
  client->line.fd = connect_to(draw(2) ? "front" : "side");
  nghttp2.session_client_new2(&client->line.session, asking, client, NULL);
  nghttp2.submit_settings(client->line.session, NGHTTP2_FLAG_NONE, NULL, 0);
  return client;
}

static void step_ask(ask_t *ask) {
  if (ask->cancelled) return;
  if (chance(60)) {
    ask->cancelled = true;
    nghttp2.submit_rst_stream(ask->line->session, NGHTTP2_FLAG_NONE, ask->stream, NGHTTP2_CANCEL);
  } else if (ask->allowed < ask->size && (eager || chance(3))) {
    size_t rest = ask->size - ask->allowed;
    ask->allowed += eager || draw(2) ? rest : draw((unsigned)rest);
    if (ask->waits) ask->waits = false, nghttp2.session_resume_data(ask->line->session, ask->stream);
    moved++;
  }
}

/* Has the kernel take only some of what the server sends at once. */
static void narrow(const connection_t *connection) {
  static const int LITTLE = 12 * 1000;
  for (; connection != NULL; connection = connection->after)
    CHECK(setsockopt(connection->fd, SOL_SOCKET, SO_SNDBUF, &LITTLE, sizeof LITTLE) == 0);
}

static void step_clients(uint64_t streams) {
  if (chance(20)) narrow(server->clients), narrow(server->onwards);
  for (size_t i = 0; i < CLIENTS; i++) {
    if (clients[i] == NULL) {
      if (numbers < streams && !ending && !eager) clients[i] = call_up();
      continue;
    }
    if (chance(3)) continue;
    for (size_t j = 0; j < OPEN_ASKS; j++) {
      if (clients[i]->asks[j]) step_ask(clients[i]->asks[j]);
      else if (numbers < streams && !eager && chance(3)) clients[i]->asks[j] = begin(clients[i]);
    }
    if (clients[i]->line.unsent.room && chance(30)) append(&clients[i]->line.unsent, idle_reset, sizeof idle_reset);
    if (chance(400)) {
      hang_up(i);
    } else if (!move(&clients[i]->line, eager || draw(2) ? PIECE : 1 + draw(500))) {
      CHECK(ending);
      for (size_t j = 0; j < OPEN_ASKS; j++) CHECK(clients[i]->asks[j] == NULL);
      hang_up(i);
    }
  }
}

/* Lets everybody do what there is to do. */
static void settle(uint64_t streams) {
  bool was_eager = eager;
  eager = true;
  do {
    moved = 0;
    step_clients(streams);
    step_others();
  } while (moved);
  eager = was_eager;
  /* Nobody does anything: then the server does not ask for its turn either. */
  struct pollfd ready = {http2_descriptor(server), POLLIN, 0};
  CHECK(poll(&ready, 1, 0) == 0);
}

static void settle_all(void) { settle(numbers); }

#endif
