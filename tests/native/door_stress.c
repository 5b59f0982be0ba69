/* Drives the HTTP/2 server as a door, among clients, pods and a server behind it whose streams end in every way.
 *
 * Pods answer right, ask to be passed over, refuse, reset streams before and in their answers, say goodbye, break off,
 * are away, and are set, removed and set again at any moment. The server behind always answers right, or is in trouble
 * too. Checks that every stream that stayed has exactly one right answer; that nothing of a pod's failure before its
 * answer is seen by a client while the server behind is sound; that no call is sent again when its answer had begun;
 * what headers come where; that clients which do not speak HTTP/2 are handed over with all they said; and that nothing
 * is left. All in one thread, and the same for the same seed: clock and random bytes are the program's. Meant to be
 * built with the sanitizers for addresses and undefined behaviour (see test_http2_server_native.py). Arguments: a
 * folder, streams, seed.
 */
#include <sys/random.h>
#include <time.h>

static int read_clock(clockid_t clock, struct timespec *now);
static ssize_t draw_bytes(void *to, size_t size, unsigned flags);

#define clock_gettime read_clock
#define getrandom draw_bytes
#include "../../services/modelyard/http2/native/http2_server.c"
#undef clock_gettime
#undef getrandom

#include "asking.h"
#include "check.h"
#include "raw_client.h"
#include "serving.h"
#include "vandal.h"

enum { PODS = 4, LIMIT = 30 * 1000, STRANGERS = 3, HOSTS = 64, UUID_SIZE = 36 };
enum { OTHER_STATUS = 7, AWAY = 14 };

/* What a pod makes of a stream. */
enum { ECHOES, ASKS_AGAIN, REFUSES, RESETS, BREAKS, WAYS };
/* When. */
enum { AT_HEADERS, AT_DATA, AT_END, LATER, STAGES };

/* What is known of a client's stream. */
typedef struct {
  bool is_call;        /* goes to a pod if there is one */
  size_t size;         /* of its body */
  char id[64];         /* its x-request-id, as servers were told */
  const backend_t *pod; /* that has had it */
  int pod_tries, behind_tries;
  bool failed;    /* at a pod, before an answer */
  bool begun;     /* a pod has begun an answer */
  int status;     /* which says this */
  bool broken;    /* and was reset in it */
  bool uncertain; /* whether any of that was seen, since the pod's connection was lost or the pod said goodbye */
} record_t;

static uint64_t clock_us = 1;
static record_t *records;
static site_t behind = {.path = "behind", .listening = -1};
static site_t pods[PODS] = {{.path = "pod0"}, {.path = "pod1"}, {.path = "pod2"}, {.path = "pod3"}};
static bool sound_only;   /* nobody makes trouble now */
static bool only_pods;    /* only pods do */
static bool still_behind; /* the server behind does nothing for now */
static const char *forwarded_for; /* what servers are told of the client; NULL: nothing */
static struct { long echoed, again, refused, broken, unavailable, reset, strangers, hints, shortened; } counts;

static int read_clock(clockid_t clock, struct timespec *now) {
  CHECK(clock == CLOCK_MONOTONIC);
  *now = (struct timespec){(time_t)(clock_us / 1000000), (long)(clock_us % 1000000) * 1000};
  return 0;
}

static ssize_t draw_bytes(void *to, size_t size, unsigned flags) {
  CHECK(flags == 0);
  for (size_t i = 0; i < size; i++) ((uint8_t *)to)[i] = (uint8_t)draw(256);
  return (ssize_t)size;
}

/* Whether a body may have been larger than what is kept when a pod failed, or was gone before it saw the call. */
static bool is_forgotten(const record_t *record) {
  bool is_lost = record->failed || (record->pod_tries == 0 && record->behind_tries == 0);
  return record->size > PREFIX_SIZE + LIMIT && is_lost;
}

static bool is_uuid(const char *text) {
  if (strlen(text) != UUID_SIZE || text[14] != '4' || strchr("89ab", text[19]) == NULL) return false;
  for (size_t i = 0; i < UUID_SIZE; i++) {
    bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (is_dash ? text[i] != '-' : strchr("0123456789abcdef", text[i]) == NULL) return false;
  }
  return true;
}

static bool in_trouble(void) {
  if (behind.listening < 0) return true;
  for (size_t i = 0; i < BACKENDS; i++)
    if (behind.backends[i] && behind.backends[i]->leaving) return true;
  struct pollfd unnoticed = {server->onward ? server->onward->fd : -1, POLLRDHUP, 0};
  return poll(&unnoticed, 1, 0) == 1;
}

/* --------------------------------------------------------------------- pods, and the server behind, by one's number */

static int scripted = -1;    /* if it is not negative, what becomes of every stream at a pod */
static size_t script_begins; /* when it has so many bytes of its body */
static char *poured;         /* if not NULL, all bodies are the beginning of this */

static char body_byte(const record_t *record, long number, size_t at) {
  size_t size = record->size - PREFIX_SIZE;
  const char prefix[PREFIX_SIZE] = {0, 0, (char)(size >> 16), (char)(size >> 8), (char)size};
  return at < PREFIX_SIZE ? prefix[at] : byte_of((uint64_t)number, at - PREFIX_SIZE);
}

/* Every byte comes to every server once, and in its place. */
static void note_data(echo_t *echo, const uint8_t *bytes, size_t size) {
  if (poured) CHECK(memcmp(bytes, poured + echo->received, size) == 0);
  if (echo->number < 0) return;
  const record_t *record = &records[echo->number];
  CHECK(echo->received + size <= record->size);
  for (size_t i = 0; i < size; i++) CHECK((char)bytes[i] == body_byte(record, echo->number, echo->received + i));
}

static int echo_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                       const uint8_t *value, size_t value_size, uint8_t flags, void *data) {
  (void)flags, (void)data;
  echo_t *echo = nghttp2.session_get_stream_user_data(session, frame->hd.stream_id);
  if (echo == NULL) return 0;
  if (named(name, name_size, "x-number")) echo->number = number_in(value, value_size);
  if (named(name, name_size, "grpc-timeout")) {
    buffer_t text = {.bytes = (char *)value, .end = value_size};
    echo->has_timeout = true;
    if (!read_timeout(&text, &echo->timeout_us)) echo->timeout_us = UINT64_MAX;
  }
  if (named(name, name_size, "x-request-id")) {
    memcpy(echo->id, value, least(value_size, sizeof echo->id - 1));
    echo->has_id = true;
  }
  if (named(name, name_size, "x-forwarded-for")) {
    CHECK(forwarded_for && is(value, value_size, forwarded_for));
    echo->is_forwarded = true;
    return 0;
  }
  CHECK(!begins(name, name_size, "x-forwarded") && !begins(name, name_size, "x-envoy"));
  CHECK(!named(name, name_size, "forwarded") && !named(name, name_size, "x-real-ip"));
  return 0;
}

/* What is right for a stream whose headers have come to a server. */
static void note_headers(echo_t *echo) {
  enum { TOLD_US = 10 * 1000 * 1000 };
  CHECK(!echo->is_forwarded == !forwarded_for);
  if (echo->number < 0) return;
  record_t *record = &records[echo->number];
  bool at_pod = echo->backend->site != &behind, is_again = !at_pod && record->pod_tries;
  bool may_be_again = !at_pod && record->is_call; /* a pod may have been lost before it saw it */
  CHECK(record->is_call || !at_pod);
  CHECK(echo->has_timeout == (echo->number % 3 == 0));
  if (echo->has_timeout) {
    CHECK(echo->timeout_us <= TOLD_US && (may_be_again ? echo->timeout_us > 0 : echo->timeout_us == TOLD_US));
    counts.shortened += echo->timeout_us < TOLD_US;
  }
  counts.again += is_again;
  if (is_again) {
    CHECK(strcmp(record->id, echo->id) == 0);
  } else if (echo->number % 2) {
    CHECK(echo->id[0] == 'r' && strtol(echo->id + 2, NULL, 10) == echo->number);
  } else {
    CHECK(echo->has_id ? record->is_call && is_uuid(echo->id) : !at_pod);
  }
  memcpy(record->id, echo->id, sizeof record->id);
  if (at_pod) record->pod_tries++, record->pod = echo->backend;
  else record->behind_tries++;
  if (at_pod && echo->backend->leaving) record->failed = record->uncertain = true; /* its goodbye may refuse this one */
}

static void answer(echo_t *echo, const char *status) {
  const char *id = echo->backend->site == &behind ? echo->id : "the-pods-own";
  nghttp2_nv headers[4] = {NAME_VALUE(":status", "200"), NAME_VALUE("content-type", "application/grpc")};
  size_t count = 2;
  if (*id) headers[count++] = header("x-request-id", id);
  if (status) headers[count++] = header("grpc-status", status);
  send_back(echo, headers, count, status == NULL);
}

/* A server does what it has decided on. */
static void act(echo_t *echo) {
  static record_t of_others; /* of clients that send garbage, or are written by hand */
  record_t *record = echo->number < 0 ? &of_others : &records[echo->number];
  for (unsigned hints = chance(4) ? draw(3) : 0; hints; hints--) send_hint(echo), counts.hints++;
  if (echo->backend->site == &behind) {
    answer(echo, NULL);
  } else if (echo->way == ASKS_AGAIN) {
    record->failed = true;
    answer(echo, draw(2) ? "14" : "1");
  } else if (echo->way == RESETS) {
    record->failed = true;
    echo->responded = true;
    nghttp2.submit_rst_stream(echo->backend->line.session, NGHTTP2_FLAG_NONE, echo->stream, draw(14));
  } else if (echo->way == REFUSES) {
    record->begun = true;
    record->status = OTHER_STATUS;
    answer(echo, "7");
  } else {
    record->begun = true;
    record->broken = echo->way == BREAKS && record->size;
    if (echo->way == BREAKS) echo->most = 1 + draw((unsigned)least(200, record->size + !record->size));
    answer(echo, NULL);
  }
}

static void decide(echo_t *echo) {
  bool at_pod = echo->backend->site != &behind;
  echo->way = !at_pod ? ECHOES : scripted >= 0 ? scripted : draw(3) ? ECHOES : 1 + (int)draw(WAYS - 1);
  echo->stage = at_pod && scripted >= 0 ? LATER : (int)draw(STAGES);
}

static bool is_due(const echo_t *echo, const nghttp2_frame *frame) {
  if (scripted >= 0 && echo->backend->site != &behind) {
    return script_begins == SIZE_MAX ? echo->ended : echo->received >= script_begins;
  }
  if (echo->ended) return eager || echo->stage != LATER;
  return echo->stage == AT_HEADERS || (echo->stage == AT_DATA && frame->hd.type == NGHTTP2_DATA);
}

static int echo_frame(nghttp2_session *session, const nghttp2_frame *frame, void *data) {
  if (frame->hd.type == NGHTTP2_GOAWAY) ((backend_t *)data)->leaving = true;
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  echo_t *echo = nghttp2.session_get_stream_user_data(session, frame->hd.stream_id);
  if (echo == NULL) return 0;
  if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
    note_headers(echo);
    decide(echo);
  }
  echo->ended |= (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (echo->ended && echo->number >= 0) CHECK(echo->received == records[echo->number].size);
  if (!echo->responded && is_due(echo, frame)) act(echo);
  if (echo->waits) echo->waits = false, nghttp2.session_resume_data(session, echo->stream);
  return 0;
}

/* Streams that a pod has had may have been answered or not. */
static void note_doubt(const backend_t *backend) {
  if (backend->site == &behind) troubles++;
  for (size_t i = 0; i < CLIENTS; i++)
    for (size_t j = 0; j < OPEN_ASKS && clients[i]; j++) {
      const ask_t *ask = clients[i]->asks[j];
      record_t *record = ask ? &records[ask->number] : NULL;
      if (record && record->pod == backend) record->failed = record->uncertain = true;
    }
}

static void note_loss(backend_t *backend) { note_doubt(backend); }

static void bid_farewell(backend_t *backend) {
  int32_t last = nghttp2.session_get_last_proc_stream_id(backend->line.session);
  bool refuses = draw(2); /* those of which it has seen the last, too */
  if (refuses || backend->site == &behind) note_doubt(backend);
  say_goodbye_after(backend, refuses && last > 1 ? (int32_t)draw((unsigned)last / 2) * 2 + 1 : last);
}

static void act_later(backend_t *backend) {
  for (echo_t *echo = backend->echoes, *next; echo; echo = next) {
    next = echo->next;
    bool is_late = echo->stage == LATER && scripted < 0 && !echo->responded;
    if (is_late && (eager ? echo->ended : chance(20))) act(echo), moved++;
  }
}

static void step_site(site_t *site) {
  bool makes_trouble = !sound_only && !(only_pods && site == &behind);
  if (still_behind && site == &behind) return;
  accept_backends(site);
  for (size_t i = 0; i < BACKENDS; i++) {
    backend_t *backend = site->backends[i];
    if (backend == NULL || chance(3)) continue;
    act_later(backend);
    if (makes_trouble && !backend->leaving && chance(300)) bid_farewell(backend);
    if (makes_trouble && chance(600)) {
      break_off(site, i);
    } else if (!move(&backend->line, eager ? PIECE : 1 + draw(PIECE))) {
      CHECK(backend->leaving); /* whatever comes from clients, nothing sound ends this connection */
      break_off(site, i);
    }
  }
  if (!makes_trouble || !chance(site->listening < 0 ? 20 : 200)) return;
  troubles += site == &behind;
  stand(site, site->listening < 0);
  for (size_t i = 0; i < BACKENDS && site->listening < 0; i++)
    if (site->backends[i] && draw(2)) break_off(site, i);
}

static void step_sites(void) {
  for (size_t i = 0; i < PODS; i++) step_site(&pods[i]);
  step_site(&behind);
}

static size_t set_some_pods(unsigned set) {
  static const char *const names[] = {"unix:pod0", "unix:pod1", "unix:pod2", "unix:pod3"};
  const char *wanted[PODS + 2];
  size_t count = 0;
  for (size_t i = 0; i < PODS; i++)
    if (set >> i & 1) wanted[count++] = names[i];
  if (count && !sound_only && chance(4)) wanted[count] = wanted[0], count++; /* twice */
  if (!sound_only && chance(4)) wanted[count++] = draw(2) ? "nonsense" : "unix:nowhere";
  size_t ready = http2_set_pods(server, wanted, count);
  CHECK(ready <= PODS);
  return ready;
}

/* ---------------------------------------------------------- clients that do not speak HTTP/2, and whoever gets them */

typedef struct {
  int fd;
  buffer_t out, in;
  bool shut, is_greeting; /* which says all it said at the beginning of HTTP/2, and no more */
} stranger_t;

typedef struct {
  int fd;
  buffer_t bytes;
  bool whole;
} host_t;

static stranger_t strangers[STRANGERS];
static host_t hosts[HOSTS];

static void begin_stranger(stranger_t *stranger) {
  size_t alike = draw(PREFACE_SIZE), more = draw(4) ? draw(300) : draw(400 * 1000);
  *stranger = (stranger_t){.fd = connect_to("front"), .is_greeting = draw(5) == 0};
  append(&stranger->out, PREFACE, alike);
  if (stranger->is_greeting) return;
  const char other = PREFACE[alike] ^ 0x20;
  append(&stranger->out, &other, 1);
  for (char *byte = room_for(&stranger->out, more); more; more--, stranger->out.end++) *byte++ = (char)draw(256);
}

static void end_stranger(stranger_t *stranger) {
  close(stranger->fd);
  discard(&stranger->out);
  discard(&stranger->in);
  *stranger = (stranger_t){0};
  moved++;
}

static void step_stranger(stranger_t *stranger) {
  if (stranger->fd == 0 && (eager || !chance(20))) return;
  if (stranger->fd == 0) begin_stranger(stranger);
  size_t part = least(size_of(&stranger->out), eager ? PIECE : 1 + draw(draw(2) ? 3 : PIECE));
  const char *unsent = stranger->out.bytes + stranger->out.at;
  ssize_t sent = part ? send(stranger->fd, unsent, part, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
  if (sent > 0) stranger->out.at += (size_t)sent, moved++;
  if (size_of(&stranger->out) == 0 && !stranger->shut) shutdown(stranger->fd, SHUT_WR), stranger->shut = true, moved++;
  ssize_t size = recv(stranger->fd, room_for(&stranger->in, PIECE), PIECE, MSG_DONTWAIT);
  if (size > 0) stranger->in.end += (size_t)size, moved++;
  if (size == 0) {
    size_t right = stranger->is_greeting ? 0 : stranger->out.end;
    CHECK(stranger->shut && stranger->in.end == right && same(stranger->in.bytes, stranger->out.bytes, right));
    counts.strangers++;
    end_stranger(stranger);
  } else if (chance(300)) {
    end_stranger(stranger);
  }
}

static void take_strangers(size_t count, const event_t *events) {
  for (size_t i = 0, slot = 0; i < count; i++) {
    CHECK(events[i].kind == STRANGER && events[i].body_size);
    while (slot < HOSTS && hosts[slot].fd) slot++;
    CHECK(slot < HOSTS);
    hosts[slot].fd = (int)events[i].id;
    append(&hosts[slot].bytes, events[i].body, events[i].body_size);
    moved++;
  }
}

/* Says all that a stranger has said, once that is whole. */
static void step_host(host_t *host) {
  if (host->fd == 0) return;
  ssize_t size = host->whole ? 0 : recv(host->fd, room_for(&host->bytes, PIECE), PIECE, MSG_DONTWAIT);
  bool is_lost = size < 0 && errno != EAGAIN;
  if (size > 0) host->bytes.end += (size_t)size;
  host->whole |= size == 0;
  if (host->whole && !is_lost) {
    const char *unsent = host->bytes.bytes + host->bytes.at;
    ssize_t sent = send(host->fd, unsent, size_of(&host->bytes), MSG_NOSIGNAL | MSG_DONTWAIT);
    is_lost = sent < 0 && errno != EAGAIN;
    if (sent > 0) host->bytes.at += (size_t)sent;
    moved += sent > 0;
  }
  moved += size > 0;
  if (!is_lost && !(host->whole && size_of(&host->bytes) == 0)) return;
  close(host->fd);
  discard(&host->bytes);
  *host = (host_t){0};
  moved++;
}

static void step_strangers(void) {
  for (size_t i = 0; i < STRANGERS; i++) step_stranger(&strangers[i]);
  for (size_t i = 0; i < HOSTS; i++) step_host(&hosts[i]);
}

/* ----------------------------------------------------------------------------------------------------- clients */

static size_t describe(ask_t *ask, nghttp2_nv *headers) {
  unsigned way = draw(8), kind = draw(24); /* of the ways some are not for pods */
  size_t size = kind == 0 ? 0 : kind == 1 ? LIMIT - 2 + draw(5) : kind == 2 ? draw(200 * 1000) : draw(300);
  make_message(ask, size);
  if (kind == 3) ask->size = 0;
  ask->relayed = way < 3;
  records[ask->number] = (record_t){.is_call = !ask->relayed, .size = ask->size};
  size_t count = 0;
  headers[count++] = header(":path", way == 0 ? "/other" : PATH);
  headers[count++] = header("content-type", way == 1 ? "application/json" : "application/grpc+proto");
  if (way != 2) headers[count++] = header("te", "trailers");
  headers[count++] = header("x-number", ask->number_text);
  if (draw(4)) return count;
  headers[count++] = header("x-forwarded-for", "6.6.6.6");
  headers[count++] = header("x-forwarded-proto", "https");
  headers[count++] = header("x-envoy-max-retries", "1000");
  headers[count++] = header("x-envoy-upstream-rq-timeout-ms", "1");
  headers[count++] = header("forwarded", "for=6.6.6.6");
  headers[count++] = header("x-real-ip", "6.6.6.6");
  return count;
}

static bool is_excused(const ask_t *ask) { return ask->begun_in_trouble || ask->troubles != troubles; }

/* A stream that ended without an answer. */
static void check_reset(const ask_t *ask, const record_t *record, uint32_t code) {
  bool may_fail = record->broken || (record->uncertain && record->begun) || is_forgotten(record);
  CHECK(may_fail || is_excused(ask) || (ending && code == REFUSED_STREAM));
  CHECK(code != NGHTTP2_CANCEL || is_forgotten(record)); /* that is for clients to say */
  counts.reset++;
  counts.broken += record->broken;
}

/* The x-request-id of an answer is what the servers were told. If there were none, the door may have made it. */
static bool is_right_id(const ask_t *ask, const record_t *record) {
  const char *id = record->id[0] ? record->id : ask->id;
  bool is_made = !id[0] && record->is_call && ask->status == AWAY && is_uuid(ask->answer_id);
  return ask->answer_ids == (id[0] || is_made) && (is_made || strcmp(ask->answer_id, id) == 0);
}

static void check_answer(const ask_t *ask, uint32_t code) {
  const record_t *record = &records[ask->number];
  CHECK(record->pod_tries <= record->is_call);
  CHECK(record->behind_tries <= 1 || is_excused(ask));
  CHECK(!record->begun || !record->behind_tries || record->uncertain);
  if (!ask->ended) {
    check_reset(ask, record, code);
    return;
  }
  CHECK(is_right_id(ask, record));
  if (ask->status == AWAY || ask->status == 1) {
    CHECK(ask->answer.end == 0 && (is_excused(ask) || is_forgotten(record)));
    counts.unavailable++;
  } else if (ask->status == OTHER_STATUS) {
    CHECK(ask->answer.end == 0 && record->begun && record->status == OTHER_STATUS);
    counts.refused++;
  } else {
    CHECK(ask->status == 0 && is_answer(ask, ask->body, ask->size));
    CHECK(record->behind_tries || (record->begun && !record->broken && record->status == 0));
    counts.echoed++;
  }
}

/* ------------------------------------------------------------------------------------------------ all together */

static void step_door(void) {
  struct pollfd ready = {http2_descriptor(server), POLLIN, 0};
  const event_t *events;
  if (poll(&ready, 1, 0) == 1) {
    size_t count = http2_turn(server, &events);
    moved++;
    take_strangers(count, events);
  }
  if (eager || draw(2)) http2_send(server);
}

static void step_others(void) {
  step_door();
  step_sites();
  step_strangers();
}

static void look(uint64_t streams) {
  const event_t *events;
  settle(streams); /* nobody is silent who could speak */
  http2_look_for_silent(server);
  CHECK(http2_flush(server, &events) == 0);
  settle(streams);
}

static void run_at_random(uint64_t streams) {
  long left = 2 * 1000 * 1000;
  while (numbers < streams || open_asks) {
    CHECK(--left);
    clock_us += draw(1000);
    sound_only = numbers >= streams;
    only_pods = numbers < streams / 2;
    if (sound_only) stand(&behind, true);
    step_clients(streams);
    if (draw(2)) step_door();
    if (draw(2)) step_sites();
    step_strangers();
    for (size_t i = 0; i < VANDALS; i++) step_vandal(&vandals[i]);
    if (chance(40)) set_some_pods(draw(3) ? 15 : draw(16));
    if (chance(500)) look(streams);
  }
}

/* Nothing is left of streams. */
static void check_rest(void) {
  CHECK(open_asks == 0 && http2_open_streams(server) == 0);
  CHECK(server->kept_size == 0 && server->touched == NULL);
  for (const connection_t *onward = server->onwards; onward; onward = onward->after) {
    CHECK(onward->streams == NULL && onward->stream_count == 0);
    CHECK(onward == server->onward || (onward->pod && onward->pod->connection == onward));
  }
}

#include "door_scenes.h"

/* Ends the door while some of the last streams run. */
static void end_all(uint64_t streams) {
  for (size_t i = 0; i < CLIENTS; i++) /* a client that is told of the end opens no more */
    if (clients[i]) move(&clients[i]->line, 1 << 20);
  step_door(); /* takes connections that wait to be */
  ending = true;
  int silent = connect_to("front");
  http2_drain(server);
  for (int i = 0; i < 3; i++) step_clients(streams), step_door(), step_sites();
  http2_end(server);
  http2_send(server);
  settle(streams);
  check_rest();
  CHECK(server->clients == NULL && server->client_count == 0);
  close(silent);
  for (size_t i = 0; i < CLIENTS; i++) CHECK(clients[i] == NULL);
  for (size_t i = 0; i < STRANGERS; i++) CHECK(strangers[i].fd == 0);
  for (size_t i = 0; i < HOSTS; i++) CHECK(hosts[i].fd == 0);
  set_some_pods(0);
  settle(streams);
  CHECK(server->pods == NULL && server->onwards == server->onward);
}

int main(int count, char **arguments) {
  CHECK(count == 4 && chdir(arguments[1]) == 0);
  uint64_t streams = strtoull(arguments[2], NULL, 10);
  seed = (unsigned)atol(arguments[3]);
  find_nghttp2();
  records = calloc(streams + CLIENTS * OPEN_ASKS, sizeof *records);
  echoing = callbacks_of(echo_begins, echo_header, echo_frame, echo_data, echo_ends);
  asking = callbacks_of(NULL, answer_header, answer_frame, answer_data, answer_ends);
  stand(&behind, true);
  for (size_t i = 0; i < PODS; i++) pods[i].listening = -1, stand(&pods[i], true);
  const int listeners[] = {listen_at("front"), listen_at("side"), listen_on_loopback()};
  server = http2_open(listeners, 3, PATH, "behind", LIMIT, 1000, true);
  CHECK(server);
  sound_only = true;
  play_scenes(listeners[2]);
  check_rest();
  sound_only = false;
  run_at_random(streams);
  dismiss_vandals();
  settle(streams);
  check_rest();
  numbers = 0; /* the last ones */
  for (size_t i = 0; i < CLIENTS * OPEN_ASKS / 2; i++) step_clients(CLIENTS * OPEN_ASKS / 2);
  end_all(0);
  close_amid_calls();
  for (size_t i = 0; i < 3; i++) close(listeners[i]);
  for (size_t i = 0; i < PODS; i++) break_all_off(&pods[i]), stand(&pods[i], false);
  break_all_off(&behind);
  stand(&behind, false);
  free(records);
  nghttp2.option_del(patient);
  nghttp2.session_callbacks_del(echoing);
  nghttp2.session_callbacks_del(asking);
  printf("echoed %ld, again %ld (shortened %ld), refused %ld, broken %ld, unavailable %ld, reset %ld, abandoned %ld, "
         "strangers %ld, hints %ld\n",
         counts.echoed, counts.again, counts.shortened, counts.refused, counts.broken, counts.unavailable, counts.reset,
         abandoned, counts.strangers, counts.hints);
  CHECK(counts.echoed && counts.again && counts.shortened && counts.refused && counts.broken && counts.unavailable &&
        counts.reset && abandoned && counts.strangers && counts.hints);
  return 0;
}
