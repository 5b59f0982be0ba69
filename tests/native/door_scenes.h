/* Scenes at a door, with frames that are written by hand. Included by door_stress.c. */
#ifndef MODELYARD_DOOR_SCENES_H
#define MODELYARD_DOOR_SCENES_H

enum { MB = 1 << 20, DATA_SIZE = 16 * 1000 };

/* One pod, sound and connected, and what becomes of streams at it. */
static void have_pod(int way, size_t begins_at) {
  set_some_pods(0);
  settle_all();
  stand(&pods[0], true);
  set_some_pods(1);
  settle_all();
  CHECK(set_some_pods(1) == 1);
  scripted = way;
  script_begins = begins_at;
}

/* Sends a body up to there. False when its stream has had its end before. */
static bool pour(raw_t *raw, uint32_t stream, size_t from, size_t to) {
  for (size_t at = from, size; at < to; at += size) {
    size = least(to - at, DATA_SIZE);
    if (!may_send(raw, (int64_t)size)) CHECK(listen_in(raw));
    if (raw->resets || raw->ends) return false;
    CHECK(may_send(raw, (int64_t)size));
    raw->window -= (int64_t)size;
    raw->stream_window -= (int64_t)size;
    put_frame(raw, NGHTTP2_DATA, 0, stream, poured + at, size);
  }
  CHECK(listen_in(raw));
  return !raw->resets && !raw->ends;
}

/* A body that is larger than all windows together comes through a pod, whenever that begins to answer. */
static void send_much(size_t begins_at, size_t total, size_t most_kept) {
  size_t most_kept_before = server->most_kept;
  have_pod(ECHOES, begins_at);
  server->body_limit = 2 * total;
  server->most_kept = most_kept;
  raw_t raw = raw_client();
  CHECK(listen_in(&raw));
  put_headers(&raw, 1, PATH, 0);
  CHECK(pour(&raw, 1, 0, total));
  CHECK(server->kept_size == (begins_at == SIZE_MAX && most_kept > total ? total : 0));
  put_frame(&raw, NGHTTP2_DATA, END_STREAM, 1, NULL, 0);
  CHECK(listen_in(&raw) && raw.ends == 1 && raw.received == total && raw.resets == 0);
  leave_off(&raw);
  check_rest();
  server->body_limit = LIMIT;
  server->most_kept = most_kept_before;
}

/* A pod fails in the midst of a large body: all of it comes to the server behind. */
static void send_much_again(int way, size_t limit) {
  enum { MUCH = 20 * MB };
  size_t first = limit > MUCH ? MUCH : 3 * limit, total = first + 2 * STREAM_WINDOW;
  have_pod(way < 0 ? ECHOES : way, way < 0 ? SIZE_MAX : first);
  server->body_limit = limit;
  raw_t raw = raw_client();
  CHECK(listen_in(&raw));
  put_headers(&raw, 1, PATH, 0);
  bool is_open = pour(&raw, 1, 0, first);
  if (way < 0) break_all_off(&pods[0]);
  is_open = listen_in(&raw) && is_open && !raw.resets && !raw.ends;
  if (limit > first) {
    CHECK(is_open && pour(&raw, 1, first, total));
    put_frame(&raw, NGHTTP2_DATA, END_STREAM, 1, NULL, 0);
    CHECK(listen_in(&raw) && raw.ends == 1 && raw.received == total && raw.resets == 0);
  } else { /* more than is kept: the client is told of the end */
    CHECK(!is_open && raw.received == 0 && raw.resets == 1 && raw.ends == (way != RESETS));
  }
  leave_off(&raw);
  check_rest();
  server->body_limit = LIMIT;
}

/* A server behind that hardly reads a call which was sent again holds up its client: nothing that it has not read is
 * taken for read. */
static void read_slowly(void) {
  enum { FIRST = 4 * STREAM_WINDOW, LITTLE = 1000, IN_BETWEEN = 2 * MB };
  have_pod(RESETS, FIRST);
  server->body_limit = 2 * FIRST;
  raw_t raw = raw_client();
  CHECK(listen_in(&raw));
  put_headers(&raw, 1, PATH, 0);
  CHECK(pour(&raw, 1, 0, FIRST));
  still_behind = true;
  size_t at = FIRST;
  while (raw.stream_window >= DATA_SIZE && at < 2 * FIRST) {
    CHECK(pour(&raw, 1, at, at + DATA_SIZE));
    at += DATA_SIZE;
    for (size_t i = 0; i < BACKENDS; i++)
      if (behind.backends[i]) move(&behind.backends[i]->line, LITTLE);
  }
  CHECK(at < FIRST + STREAM_WINDOW + IN_BETWEEN);
  still_behind = false;
  CHECK(listen_in(&raw) && pour(&raw, 1, at, 2 * FIRST));
  put_frame(&raw, NGHTTP2_DATA, END_STREAM, 1, NULL, 0);
  CHECK(listen_in(&raw) && raw.ends == 1 && raw.received == 2 * FIRST && raw.resets == 0);
  leave_off(&raw);
  check_rest();
  server->body_limit = LIMIT;
}

/* A pod says goodbye while a stream runs: it ends well, and the next one gets another connection. */
static void take_leave(void) {
  have_pod(ECHOES, SIZE_MAX);
  raw_t raw = raw_client();
  put_headers(&raw, 1, PATH, 0);
  CHECK(listen_in(&raw));
  for (size_t i = 0; i < BACKENDS; i++)
    if (pods[0].backends[i]) say_goodbye_after(pods[0].backends[i], 1);
  settle_all();
  CHECK(server->pods->connection == NULL && set_some_pods(1) == 0);
  settle_all();
  CHECK(set_some_pods(1) == 1);
  scripted = REFUSES;
  script_begins = 0;
  put_headers(&raw, 3, PATH, END_STREAM);
  CHECK(listen_in(&raw) && raw.ends == 1 && raw.headers == 1);
  scripted = ECHOES;
  script_begins = SIZE_MAX;
  put_frame(&raw, NGHTTP2_DATA, END_STREAM, 1, "first", 5);
  CHECK(listen_in(&raw) && raw.ends == 2 && raw.received == 5 && raw.resets == 0);
  leave_off(&raw);
}

/* Nothing is said to a client before it is known that it speaks HTTP/2. */
static void greet_slowly(void) {
  char said[1000];
  raw_t raw = {.fd = connect_to("front")};
  settle_all();
  for (size_t at = 0; at < PREFACE_SIZE; at++) {
    CHECK(recv(raw.fd, said, sizeof said, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    put(&raw, PREFACE + at, 1);
    settle_all();
  }
  put_frame(&raw, SETTINGS, 0, 0, NULL, 0);
  for (size_t round = 0; round < 3; round++) {
    look(numbers);
    CHECK(listen_in(&raw));
    if (round == 0) put_headers(&raw, 1, "/x", END_STREAM);
    put_frame(&raw, WINDOW_UPDATE, 0, 0, "\0\0\0\1", 4); /* it is not silent */
  }
  CHECK(raw.ends == 1);
  leave_off(&raw);
}

/* Who never says whether it speaks HTTP/2 is closed, and was told nothing. */
static void fall_silent(const char *beginning) {
  char said[1000];
  raw_t raw = {.fd = connect_to("front")};
  put(&raw, beginning, strlen(beginning));
  size_t before = server->client_count;
  settle_all();
  CHECK(server->client_count == before + 1);
  for (size_t round = 0; round < 3; round++) look(numbers);
  CHECK(server->client_count == before && recv(raw.fd, said, sizeof said, MSG_DONTWAIT) == 0);
  leave_off(&raw);
}

/* What speaks HTTP/1.1 is handed over, with what it said and its connection. */
static void hand_over(const char *first, const char *then) {
  char said[1000];
  raw_t raw = {.fd = connect_to("front")};
  put(&raw, first, strlen(first));
  settle_all();
  put(&raw, then, strlen(then));
  settle_all();
  CHECK(recv(raw.fd, said, sizeof said, MSG_DONTWAIT) < 0);
  shutdown(raw.fd, SHUT_WR);
  settle_all();
  size_t size = strlen(first) + strlen(then);
  CHECK(recv(raw.fd, said, sizeof said, MSG_DONTWAIT) == (ssize_t)size);
  CHECK(memcmp(said, first, strlen(first)) == 0 && memcmp(said + strlen(first), then, strlen(then)) == 0);
  CHECK(recv(raw.fd, said, sizeof said, MSG_DONTWAIT) == 0);
  leave_off(&raw);
}

/* ------------------------------------------------------------------------------------- TCP, timeouts, numbers */

static int listen_on_loopback(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  CHECK(bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 100) == 0);
  return fd;
}

static struct sockaddr_in address_of(int fd) {
  struct sockaddr_in at;
  socklen_t size = sizeof at;
  CHECK(getsockname(fd, (struct sockaddr *)&at, &size) == 0);
  return at;
}

/* What goes over TCP may come a moment later: lets everybody go on for a while, but not for ever. */
static void wait_a_moment(void) {
  static long left = 60 * 1000;
  CHECK(--left);
  eager = true;
  for (int i = 0; i < 10; i++) step_door(), step_sites();
  eager = false;
  poll(NULL, 0, 1);
}

static void await_ends(raw_t *raw, int ends) {
  while (raw->ends < ends) wait_a_moment(), take_frames(raw);
}

/* A client and a pod over TCP; then the pod's address is one where nobody listens. */
static void go_over_tcp(int front) {
  int listening = listen_on_loopback(), unix_pod = pods[1].listening;
  struct sockaddr_in at = address_of(front), pod_at = address_of(listening);
  char text[32];
  snprintf(text, sizeof text, "127.0.0.1:%d", ntohs(pod_at.sin_port));
  const char *addresses[] = {text, "[::1]:1", "127.0.0.1:nonsense", "127.0.0.1", ":1", "[]:1"};
  have_pod(ECHOES, SIZE_MAX);
  pods[1].listening = listening;
  forwarded_for = "127.0.0.1";
  while (http2_set_pods(server, addresses, 6) == 0) wait_a_moment();
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  CHECK(connect(fd, (struct sockaddr *)&at, sizeof at) == 0 || errno == EINPROGRESS);
  raw_t raw = raw_over(fd);
  put_headers(&raw, 1, PATH, END_STREAM);
  put_headers(&raw, 3, "/x", END_STREAM);
  await_ends(&raw, 2);
  bool is_there = false;
  for (size_t i = 0; i < BACKENDS; i++) is_there |= pods[1].backends[i] != NULL;
  CHECK(is_there);
  close(listening);
  pods[1].listening = -1;
  break_all_off(&pods[1]);
  put_headers(&raw, 5, PATH, END_STREAM);
  await_ends(&raw, 3);
  while (http2_set_pods(server, addresses, 1) != 0) wait_a_moment();
  put_headers(&raw, 7, PATH, END_STREAM);
  await_ends(&raw, 4);
  CHECK(raw.resets == 0);
  close(raw.fd);
  discard(&raw.in);
  while (server->client_count) wait_a_moment();
  pods[1].listening = unix_pod;
  forwarded_for = NULL;
  set_some_pods(0);
  while (server->onwards != server->onward) wait_a_moment();
}

static void check_timeout(const char *before, uint64_t spent_us, const char *after) {
  buffer_t text = {0};
  append(&text, before, strlen(before));
  shorten_timeout(&text, spent_us);
  CHECK(text.at == 0 && text.end == strlen(after) && same(text.bytes, after, text.end));
  discard(&text);
}

static void shorten_timeouts(void) {
  enum { SECOND = 1000 * 1000 };
  check_timeout("1H", SECOND, "3599000m");
  check_timeout("2M", SECOND, "119000m");
  check_timeout("10S", SECOND / 2, "9500000u");
  check_timeout("100m", 1, "99999u");
  check_timeout("100u", 1, "99u");
  check_timeout("5000n", 1, "4u");
  check_timeout("100S", 0, "100000m");
  check_timeout("99999999u", 0, "99999999u");
  check_timeout("99999999m", 1, "99999998m");
  check_timeout("99999999S", 1, "99999998S");
  check_timeout("99999999M", 1, "99999998M");
  check_timeout("99999999H", 1, "99999998H");
  check_timeout("99999999n", 0, "99999u");
  check_timeout("1S", SECOND, "1u"); /* 0 would be none for some servers */
  check_timeout("1m", 3600ull * SECOND, "1u");
  check_timeout("0S", 0, "1u");
  check_timeout("999n", 0, "1u");
  static const char *const nonsense[] = {"",    "S",   "1",  "10", "123456789S", "1S2", "-1S",
                                         " 1S", "1s", "1x", "1.5S", "1SS",       "0x1S"};
  for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) check_timeout(nonsense[i], SECOND, nonsense[i]);
}

/* A connection on which no more streams can be begun is replaced, and no stream is lost. */
static void run_out_of_numbers(void) {
  int (*set_next)(nghttp2_session *, int32_t);
  *(void **)&set_next = find_in_nghttp2("nghttp2_session_set_next_stream_id");
  have_pod(ECHOES, SIZE_MAX);
  raw_t raw = raw_client();
  put_headers(&raw, 1, "/x", END_STREAM);
  put_headers(&raw, 3, PATH, END_STREAM);
  CHECK(listen_in(&raw) && raw.ends == 2);
  CHECK(set_next(server->onward->session, INT32_MAX) == 0);
  CHECK(set_next(server->pods->connection->session, INT32_MAX) == 0);
  for (uint32_t stream = 5; stream < 21; stream += 2)
    put_headers(&raw, stream, stream % 4 == 1 ? PATH : "/x", END_STREAM);
  CHECK(listen_in(&raw) && raw.ends == 10 && raw.headers == 20 && raw.resets == 0);
  leave_off(&raw);
}

/* Pods that are there and have not said so yet get nothing; nor do those that have been removed. */
static void wait_for_pod(void) {
  set_some_pods(0);
  settle_all();
  scripted = REFUSES;
  script_begins = 0;
  stand(&pods[0], false);
  int slow = listen_at("pod0");
  CHECK(set_some_pods(1) == 0);
  raw_t raw = raw_client();
  put_headers(&raw, 1, PATH, END_STREAM);
  CHECK(listen_in(&raw) && raw.ends == 1 && raw.headers == 2 && server->pods->connection && set_some_pods(1) == 0);
  close(slow);
  settle_all();
  CHECK(server->pods->connection == NULL);
  stand(&pods[0], true);
  have_pod(REFUSES, 0);
  put_headers(&raw, 3, PATH, END_STREAM);
  CHECK(listen_in(&raw) && raw.ends == 2 && raw.headers == 3);
  set_some_pods(2);
  put_headers(&raw, 5, PATH, END_STREAM);
  CHECK(listen_in(&raw) && raw.ends == 3 && raw.headers == 5);
  leave_off(&raw);
}

/* A pod is removed and added again while a stream of the first time runs: both times it answers. */
static void remove_and_add(void) {
  have_pod(ECHOES, SIZE_MAX);
  raw_t raw = raw_client();
  put_headers(&raw, 1, PATH, 0);
  CHECK(listen_in(&raw));
  set_some_pods(0);
  settle_all();
  have_pod(ECHOES, SIZE_MAX);
  put_headers(&raw, 3, PATH, END_STREAM);
  CHECK(listen_in(&raw) && raw.ends == 1);
  put_frame(&raw, NGHTTP2_DATA, END_STREAM, 1, "first", 5);
  CHECK(listen_in(&raw) && raw.ends == 2 && raw.received == 5 && raw.resets == 0);
  size_t connections = 0;
  for (size_t i = 0; i < BACKENDS; i++) connections += pods[0].backends[i] != NULL;
  CHECK(connections == 1);
  leave_off(&raw);
}

/* The client leaves while a pod has its call, and while it is sent again. */
static void leave_early(void) {
  have_pod(RESETS, 2 * DATA_SIZE);
  server->body_limit = MB;
  raw_t raw = raw_client();
  CHECK(listen_in(&raw));
  put_headers(&raw, 1, PATH, 0);
  put_headers(&raw, 3, PATH, 0);
  CHECK(pour(&raw, 1, 0, DATA_SIZE) && pour(&raw, 3, 0, 3 * DATA_SIZE));
  static const uint8_t cancel[] = {0, 0, 0, NGHTTP2_CANCEL};
  put_frame(&raw, NGHTTP2_RST_STREAM, 0, 3, cancel, sizeof cancel);
  put_frame(&raw, NGHTTP2_RST_STREAM, 0, 1, cancel, sizeof cancel);
  CHECK(listen_in(&raw) && raw.ends == 0 && raw.resets == 0);
  check_rest();
  server->body_limit = LIMIT;
  leave_off(&raw);
}

static void play_scenes(int tcp_front) {
  enum { TOTAL = CONNECTION_WINDOW + 2 * STREAM_WINDOW };
  poured = malloc(TOTAL);
  for (size_t at = PREFIX_SIZE; at < TOTAL; at++) poured[at] = (char)(at * 7 + (at >> 8) + (at >> 16));
  memset(poured, 0, PREFIX_SIZE);
  send_much(0, TOTAL, MOST_KEPT);
  send_much(SIZE_MAX, TOTAL, MOST_KEPT);
  send_much(SIZE_MAX, 3 * STREAM_WINDOW, 3 * MB);
  for (int way = -1; way < WAYS; way++) {
    if (way >= 0 && way != RESETS && way != ASKS_AGAIN) continue;
    send_much_again(way, 2 * TOTAL);
    send_much_again(way, MB);
  }
  read_slowly();
  leave_early();
  free(poured);
  poured = NULL;
  greet_slowly();
  fall_silent("");
  fall_silent("PRI * HTTP/2.0\r\n\r\nSM\r\n\r");
  hand_over("P", "OST / HTTP/1.1\r\n\r\n");
  hand_over("POST / HTTP/1.1\r\n", "\r\n");
  hand_over("PRI * HTTP/1", ".1\r\n\r\n");
  shorten_timeouts();
  run_out_of_numbers();
  wait_for_pod();
  remove_and_add();
  take_leave();
  go_over_tcp(tcp_front);
  scripted = -1;
}

/* The door is closed while pods and the server behind have calls of which they have told nothing yet. */
static void close_amid_calls(void) {
  ending = false;
  have_pod(ECHOES, SIZE_MAX);
  raw_t raw = raw_client();
  for (uint32_t stream = 1; stream < 21; stream += 2) put_headers(&raw, stream, stream % 4 == 1 ? PATH : "/x", 0);
  CHECK(listen_in(&raw));
  put_frame(&raw, NGHTTP2_DATA, 0, 1, "first", 5);
  step_door();
  http2_close(server);
  close(raw.fd);
  discard(&raw.in);
}

#endif
