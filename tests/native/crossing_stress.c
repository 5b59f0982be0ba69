/* Drives the crossing as Envoy and Python do, from many threads, with calls that end in every possible way.
 *
 * Stands in for Envoy: worker threads with streams, each of which echoes what it sent, is refused, comes late, or goes
 * away at any moment. Stands in for Python: one thread that takes, answers at once or later, refuses or drops. Checks
 * that every stream that stayed has exactly one right answer, and that nothing is left. Meant to be built with a
 * sanitizer, for addresses or threads (see test_crossing_native.py). Arguments: streams per worker, seed.
 */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../services/modelyard/inference/lane/native/crossing.c"
#include "check.h"

enum { WORKERS = 3, OPEN_STREAMS = 32, LIMIT = 4000, LONGEST_BODY = 5000 };

/* ------------------------------------------------------------------------------------------ Envoy's stand-in */

typedef struct worker worker_t;

typedef struct {
  worker_t *worker;
  const void *call;
  uint64_t number;
  char body[PREFIX_SIZE + LONGEST_BODY];
  size_t size, sent;
  bool headers_sent, has_timeout, whole;
  int answers; /* ended answers */
  char answer[PREFIX_SIZE + LONGEST_BODY];
  size_t answer_size;
  bool refused;
} stream_t;

typedef struct {
  worker_t *worker;
  uint64_t number;
} schedule_t;

typedef struct {
  uint64_t number, event;
} task_t;

struct worker {
  unsigned seed;
  stream_t *open[OPEN_STREAMS];
  stream_t *current; /* whose body is being told of */
  size_t part;
  pthread_mutex_t lock;
  task_t *tasks;
  size_t count, room;
};

static atomic_long schedulers;
static atomic_long echoed, refusals, abandoned;
static atomic_uint_fast64_t numbers;

envoy_scheduler envoy_dynamic_module_callback_http_filter_scheduler_new(envoy_filter filter) {
  stream_t *stream = filter;
  schedule_t *scheduler = malloc(sizeof *scheduler);
  *scheduler = (schedule_t){stream->worker, stream->number};
  atomic_fetch_add(&schedulers, 1);
  return scheduler;
}

void envoy_dynamic_module_callback_http_filter_scheduler_delete(envoy_scheduler scheduler) {
  free(scheduler);
  atomic_fetch_sub(&schedulers, 1);
}

void envoy_dynamic_module_callback_http_filter_scheduler_commit(envoy_scheduler scheduler, uint64_t event) {
  schedule_t *to = scheduler;
  worker_t *worker = to->worker;
  pthread_mutex_lock(&worker->lock);
  if (worker->count == worker->room) {
    worker->room = worker->room ? 2 * worker->room : 16;
    worker->tasks = realloc(worker->tasks, worker->room * sizeof(task_t));
  }
  worker->tasks[worker->count++] = (task_t){to->number, event};
  pthread_mutex_unlock(&worker->lock);
}

size_t envoy_dynamic_module_callback_http_get_headers_size(envoy_filter filter, int which) {
  CHECK(which == ENVOY_REQUEST_HEADERS);
  return ((stream_t *)filter)->has_timeout ? 3 : 2;
}

bool envoy_dynamic_module_callback_http_get_headers(envoy_filter filter, int which, envoy_header *found) {
  (void)which;
  found[0] = (envoy_header)HEADER(":path", "/x");
  found[1] = (envoy_header)HEADER("x-key", "value");
  if (((stream_t *)filter)->has_timeout) found[2] = (envoy_header)HEADER("grpc-timeout", "10S");
  return true;
}

size_t envoy_dynamic_module_callback_http_get_body_chunks_size(envoy_filter filter, int which) {
  CHECK(which == ENVOY_RECEIVED_BODY);
  return ((stream_t *)filter)->worker->part ? 1 : 0;
}

bool envoy_dynamic_module_callback_http_get_body_chunks(envoy_filter filter, int which, envoy_buffer *found) {
  (void)which;
  stream_t *stream = filter;
  found[0] = (envoy_buffer){stream->body + stream->sent, stream->worker->part};
  return true;
}

void envoy_dynamic_module_callback_http_send_response_headers(envoy_filter filter, envoy_header *headers, size_t count,
                                                              bool end_stream) {
  stream_t *stream = filter;
  CHECK(count >= 2 && headers[0].name_size == 7);
  CHECK(stream->answers == 0);
  if (end_stream) {
    CHECK(count == 2 && memcmp(headers[1].value, "refused", 7) == 0);
    stream->refused = true;
    stream->answers++;
  }
}

void envoy_dynamic_module_callback_http_send_response_data(envoy_filter filter, envoy_buffer data, bool end_stream) {
  stream_t *stream = filter;
  CHECK(!end_stream && data.size <= sizeof stream->answer);
  memcpy(stream->answer, data.bytes, data.size);
  stream->answer_size = data.size;
}

void envoy_dynamic_module_callback_http_send_response_trailers(envoy_filter filter, envoy_header *trailers,
                                                               size_t count) {
  CHECK(count == 1 && trailers[0].name_size == 11);
  ((stream_t *)filter)->answers++;
}

static unsigned draw(worker_t *worker, unsigned below) { return (unsigned)rand_r(&worker->seed) % below; }

static stream_t *begin(worker_t *worker) {
  stream_t *stream = calloc(1, sizeof *stream);
  stream->worker = worker;
  stream->number = atomic_fetch_add(&numbers, 1);
  stream->has_timeout = draw(worker, 2);
  size_t size = draw(worker, 20) ? draw(worker, 300) : draw(worker, LONGEST_BODY);
  stream->size = PREFIX_SIZE + size;
  stream->body[3] = (char)(size >> 8);
  stream->body[4] = (char)size;
  for (size_t i = PREFIX_SIZE; i < stream->size; i++) stream->body[i] = (char)(stream->number + i);
  stream->call = envoy_dynamic_module_on_http_filter_new(&lock, stream);
  return stream;
}

static void end(stream_t *stream) {
  if (stream->answers == 0) {
    atomic_fetch_add(&abandoned, 1);
  } else if (stream->refused) {
    atomic_fetch_add(&refusals, 1);
  } else {
    CHECK(stream->answers == 1 && stream->whole);
    CHECK(stream->answer_size == stream->size && memcmp(stream->answer, stream->body, stream->size) == 0);
    atomic_fetch_add(&echoed, 1);
  }
  envoy_dynamic_module_on_http_filter_destroy(stream->call);
  free(stream);
}

/* One event of a stream. Whether the stream goes on. */
static bool step(worker_t *worker, stream_t *stream) {
  if (stream->answers || draw(worker, 40) == 0) {
    end(stream);
    return false;
  }
  if (!stream->headers_sent) {
    stream->headers_sent = true;
    envoy_dynamic_module_on_http_filter_request_headers(stream, stream->call, false);
  } else if (!stream->whole) {
    size_t rest = stream->size - stream->sent;
    worker->part = draw(worker, 3) ? rest : draw(worker, (unsigned)rest + 1);
    stream->whole = worker->part == rest;
    bool by_trailers = stream->whole && draw(worker, 8) == 0;
    envoy_dynamic_module_on_http_filter_request_body(stream, stream->call, stream->whole && !by_trailers);
    stream->sent += worker->part;
    if (by_trailers) envoy_dynamic_module_on_http_filter_request_trailers(stream, stream->call);
  }
  return true;
}

static void run_tasks(worker_t *worker) {
  pthread_mutex_lock(&worker->lock);
  task_t *tasks = worker->tasks;
  size_t count = worker->count;
  worker->tasks = NULL;
  worker->count = worker->room = 0;
  pthread_mutex_unlock(&worker->lock);
  for (size_t i = 0; i < count; i++)
    for (size_t slot = 0; slot < OPEN_STREAMS; slot++) {
      stream_t *stream = worker->open[slot];
      if (stream && stream->number == tasks[i].number)
        envoy_dynamic_module_on_http_filter_scheduled(stream, stream->call, tasks[i].event);
    }
  free(tasks);
}

static long streams_each;

static void *work(void *argument) {
  worker_t *worker = argument;
  long begun = 0;
  size_t open = 0;
  while (begun < streams_each || open) {
    size_t slot = draw(worker, OPEN_STREAMS);
    if (worker->open[slot]) {
      if (!step(worker, worker->open[slot])) worker->open[slot] = NULL, open--;
    } else if (begun < streams_each) {
      worker->open[slot] = begin(worker);
      begun++, open++;
    }
    if (draw(worker, 4) == 0) run_tasks(worker);
  }
  run_tasks(worker);
  return NULL;
}

/* ----------------------------------------------------------------------------------------- Python's stand-in */

enum { HELD = 4096 };

static struct {
  uint64_t id;
  call_t *call;
  bool whole;
  char *message;
  size_t size;
} held[HELD]; /* by id: calls in flight are far fewer */

static const char refusal[] = {11, 0, 0, 0, 7, 0, 0, 0, 'g', 'r', 'p', 'c', '-', 's', 't', 'a', 't', 'u', 's',
                               'r', 'e', 'f', 'u', 's', 'e', 'd'};
static atomic_bool finished;

static void let_go(size_t slot) {
  free(held[slot].message);
  held[slot].call = NULL;
  held[slot].message = NULL;
}

static void keep_message(size_t slot, const event_t *event) {
  CHECK(event->body_size <= PREFIX_SIZE + LIMIT + 1);
  held[slot].whole = true;
  held[slot].size = event->body_size;
  held[slot].message = malloc(event->body_size + 1);
  memcpy(held[slot].message, event->body, event->body_size);
}

static void conclude(size_t slot) {
  if (held[slot].size > PREFIX_SIZE + LIMIT || rand() % 10 == 0)
    crossing_refuse(held[slot].call, refusal, sizeof refusal);
  else {
    const unsigned char *prefix = (const unsigned char *)held[slot].message;
    size_t announced = (size_t)prefix[3] << 8 | prefix[4];
    if (announced == held[slot].size - PREFIX_SIZE)
      crossing_answer(held[slot].call, held[slot].message + PREFIX_SIZE, announced);
    else
      crossing_refuse(held[slot].call, refusal, sizeof refusal);
  }
  let_go(slot);
}

static void handle(const event_t *event) {
  size_t slot = event->id % HELD;
  bool known = held[slot].call && held[slot].id == event->id;
  switch (event->kind) {
    case WHOLE:
    case COMING:
      CHECK(held[slot].call == NULL);
      CHECK(event->headers_size == 2 * 4 + 5 + 5 && memcmp(event->headers + 8, "x-keyvalue", 10) == 0);
      CHECK(event->kind == WHOLE || (event->timeout_size == 3 && memcmp(event->timeout, "10S", 3) == 0));
      held[slot].id = event->id;
      held[slot].call = event->call;
      held[slot].whole = false;
      if (event->kind == WHOLE) keep_message(slot, event);
      break;
    case COMPLETE:
      if (known) keep_message(slot, event);
      break;
    default:
      CHECK(event->kind == GONE);
      if (known) crossing_drop(held[slot].call), let_go(slot);
  }
}

static void *take(void *argument) {
  (void)argument;
  struct pollfd ready = {wake_fd, POLLIN, 0};
  size_t look = 0;
  while (!atomic_load(&finished)) {
    poll(&ready, 1, 1);
    const event_t *events;
    size_t count = crossing_take(&events);
    for (size_t i = 0; i < count; i++) handle(&events[i]);
    /* Answers some of what it holds; now and then gives up one that is still coming, as at a deadline. */
    for (size_t i = 0; i < HELD; i++, look = (look + 1) % HELD)
      if (held[look].call) {
        if (held[look].whole ? rand() % 2 : rand() % 20 == 0) {
          if (held[look].whole)
            conclude(look);
          else
            crossing_refuse(held[look].call, refusal, sizeof refusal), let_go(look);
        }
      }
  }
  const event_t *events;
  size_t count = crossing_take(&events);
  for (size_t i = 0; i < count; i++) handle(&events[i]);
  for (size_t i = 0; i < HELD; i++)
    if (held[i].call) crossing_drop(held[i].call), let_go(i);
  return NULL;
}

int main(int count, char **arguments) {
  CHECK(count == 3);
  streams_each = atol(arguments[1]);
  unsigned seed = (unsigned)atol(arguments[2]);
  srand(seed);
  CHECK(crossing_open(LIMIT) >= 0);
  static worker_t workers[WORKERS];
  pthread_t threads[WORKERS], python;
  pthread_create(&python, NULL, take, NULL);
  for (unsigned i = 0; i < WORKERS; i++) {
    workers[i].seed = seed + i + 1;
    pthread_mutex_init(&workers[i].lock, NULL);
    pthread_create(&threads[i], NULL, work, &workers[i]);
  }
  for (int i = 0; i < WORKERS; i++) pthread_join(threads[i], NULL);
  atomic_store(&finished, true);
  pthread_join(python, NULL);
  for (int i = 0; i < WORKERS; i++) free(workers[i].tasks);
  const event_t *rest; /* what the last events hold is given up with the next */
  crossing_take(&rest);
  crossing_take(&rest);
  free(waiting.events);
  free(taken.events);
  printf("echoed %ld, refused %ld, abandoned %ld, left %ld\n", echoed, refusals, abandoned, schedulers);
  CHECK(schedulers == 0);
  CHECK(echoed + refusals + abandoned == streams_each * WORKERS);
  CHECK(echoed > 0 && refusals > 0 && abandoned > 0);
  return 0;
}
