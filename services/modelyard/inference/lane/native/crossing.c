/* Carries calls from Envoy's threads into the Python that Envoy hosts, and answers back.
 *
 * An HTTP filter of Envoy gathers each call's headers and body, without the interpreter. Whole calls wait in one list;
 * Python is woken once, through an event file descriptor, and takes all that wait. So a busy pod changes threads once
 * for many calls, where a call-by-call hand-over changes several times for each. Python's side is `crossing.py`.
 *
 * Threads: a call belongs to the worker thread of its stream, and all `envoy_dynamic_module_on_...` functions for it run
 * there. Python reads headers and body only after an event has told it to, and writes `answer` before it
 * has the stream scheduled; list and scheduler lock, so what was written before is seen after. The `crossing_...`
 * functions are Python's, to be called from one thread.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../../../http2/native/arrival.h"
#include "envoy_abi.h"

/* Says which crossing.c a library was built from: crossing.py refuses any other. */
#define CROSSING_VERSION 2

enum { INITIAL_EVENTS = 256 };
enum { ANSWERS_MOST_HEADERS = 16 };

typedef struct {
  char *bytes; /* NULL if there is no such header */
  size_t size;
} value_t;

typedef struct {
  envoy_scheduler scheduler;
  uint64_t id; /* never used again, unlike the address */
  atomic_int owners; /* the stream, and Python from the first event until it answers or drops the call */
  atomic_bool closed; /* Python is through with it */
  bool told;  /* Python knows of it */
  bool whole; /* nothing more is kept of the body */
  bool answered; /* Envoy has been given an answer */
  char *headers; /* packed, see event_t */
  size_t headers_size;
  value_t timeout, request_id; /* the values of grpc-timeout and x-request-id, which are not among the headers */
  char *body;
  size_t body_size, body_room;
  char *answer;
  size_t answer_size;
  bool refused; /* the answer is headers, packed as above, and no message */
} call_t;

typedef struct {
  event_t *events;
  size_t count, room;
} list_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static list_t waiting; /* for Python; under the lock */
static list_t taken;   /* by Python, until it takes again */
static bool woken;     /* Python has been woken and has not taken yet; under the lock */
static bool is_open;   /* under the lock */
static int wake_fd = -1;
static atomic_uint_fast64_t next_id;
static size_t body_limit;

static void must(const void *allocated) {
  if (allocated == NULL) abort(); /* as everything else in this process does without memory */
}

static void release(call_t *call) {
  if (atomic_fetch_sub(&call->owners, 1) != 1) return;
  envoy_dynamic_module_callback_http_filter_scheduler_delete(call->scheduler);
  free(call->headers);
  free(call->timeout.bytes);
  free(call->request_id.bytes);
  free(call->body);
  free(call->answer);
  free(call);
}

/* Whether Python will be told: not before it has opened the crossing, nor after it has closed it. */
static bool tell(call_t *call, uint64_t kind) {
  event_t event = {
      .kind = kind, .id = call->id, .call = call,
      .headers = call->headers, .headers_size = call->headers_size,
      .timeout = call->timeout.bytes, .timeout_size = call->timeout.size,
      .request_id = call->request_id.bytes, .request_id_size = call->request_id.size,
      .body = call->body, .body_size = call->body_size,
  };
  if (kind == WHOLE) find_plain(&event);
  pthread_mutex_lock(&lock);
  bool told = is_open;
  bool wake = told && !woken;
  if (told) {
    if (waiting.count == waiting.room) {
      waiting.room = waiting.room ? 2 * waiting.room : INITIAL_EVENTS;
      waiting.events = realloc(waiting.events, waiting.room * sizeof(event_t));
      must(waiting.events);
    }
    waiting.events[waiting.count++] = event;
    woken = true;
    if (!call->told) atomic_fetch_add(&call->owners, 1);
    if (kind == GONE) atomic_fetch_add(&call->owners, 1); /* the event: Python may answer before it reads that */
    call->told = true;
  }
  pthread_mutex_unlock(&lock);
  if (wake) {
    uint64_t one = 1;
    if (write(wake_fd, &one, sizeof one) != sizeof one) abort(); /* cannot be: its counter holds far more */
  }
  return told;
}

#define HEADER(name, value) {name, sizeof(name) - 1, value, sizeof(value) - 1}

static void send_refusal(envoy_filter filter, const char *packed, size_t size) {
  envoy_header headers[ANSWERS_MOST_HEADERS] = {HEADER(":status", "200")};
  size_t count = 1;
  const char *end = packed + size;
  while (packed < end && count < ANSWERS_MOST_HEADERS) {
    uint32_t name_size, value_size;
    memcpy(&name_size, packed, sizeof name_size);
    memcpy(&value_size, packed + sizeof name_size, sizeof value_size);
    packed += sizeof name_size + sizeof value_size;
    headers[count++] = (envoy_header){packed, name_size, packed + name_size, value_size};
    packed += name_size + value_size;
  }
  envoy_dynamic_module_callback_http_send_response_headers(filter, headers, count, true);
}

static void send_answer(envoy_filter filter, const call_t *call) {
  envoy_header headers[] = {HEADER(":status", "200"), HEADER("content-type", "application/grpc")};
  envoy_header trailers[] = {HEADER("grpc-status", "0")};
  envoy_buffer message = {call->answer, call->answer_size};
  envoy_dynamic_module_callback_http_send_response_headers(filter, headers, 2, false);
  envoy_dynamic_module_callback_http_send_response_data(filter, message, false);
  envoy_dynamic_module_callback_http_send_response_trailers(filter, trailers, 1);
}

static void submit(envoy_filter filter, call_t *call) {
  call->whole = true;
  if (tell(call, call->told ? COMPLETE : WHOLE)) return;
  call->answered = true;
  envoy_header headers[] = {
      HEADER(":status", "200"),
      HEADER("content-type", "application/grpc"),
      HEADER("grpc-status", "14"),
      HEADER("grpc-message", "the pod is stopping"),
  };
  envoy_dynamic_module_callback_http_send_response_headers(filter, headers, 4, true);
}

/* Where the value of a header is kept if it differs from call to call; else NULL. */
static value_t *kept_apart(call_t *call, const envoy_header *header) {
  static const char timeout[] = "grpc-timeout", request_id[] = "x-request-id";
  _Static_assert(sizeof timeout == sizeof request_id, "one comparison of sizes is enough");
  if (header->name_size != sizeof timeout - 1) return NULL;
  if (memcmp(header->name, timeout, sizeof timeout - 1) == 0) return &call->timeout;
  return memcmp(header->name, request_id, sizeof request_id - 1) == 0 ? &call->request_id : NULL;
}

static void keep_headers(call_t *call, const envoy_header *headers, size_t count) {
  size_t size = 0;
  for (size_t i = 0; i < count; i++) size += 2 * sizeof(uint32_t) + headers[i].name_size + headers[i].value_size;
  char *to = call->headers = malloc(size + 1);
  must(to);
  for (size_t i = 0; i < count; i++) {
    const envoy_header *header = &headers[i];
    if (header->name_size && header->name[0] == ':') continue;
    value_t *apart = kept_apart(call, header);
    if (apart != NULL) {
      free(apart->bytes);
      apart->bytes = malloc(header->value_size + 1);
      must(apart->bytes);
      memcpy(apart->bytes, header->value, header->value_size);
      apart->size = header->value_size;
      continue;
    }
    uint32_t sizes[2] = {(uint32_t)header->name_size, (uint32_t)header->value_size};
    memcpy(to, sizes, sizeof sizes);
    to += sizeof sizes;
    memcpy(to, header->name, header->name_size);
    to += header->name_size;
    memcpy(to, header->value, header->value_size);
    to += header->value_size;
  }
  call->headers_size = (size_t)(to - call->headers);
}

static size_t announced(const call_t *call) { return announced_size(call->body, call->body_size); }

/* Keeps a part of the body, but never more than one byte above what a call may have: enough to see that it is more. */
static void keep_body(call_t *call, envoy_buffer part) {
  size_t most = PREFIX_SIZE + body_limit + 1 - call->body_size;
  size_t size = part.size < most ? part.size : most;
  size_t needed = call->body_size + size;
  if (needed > call->body_room) {
    size_t room = room_for_body(needed, announced(call));
    call->body = realloc(call->body, room);
    must(call->body);
    call->body_room = room;
  }
  memcpy(call->body + call->body_size, part.bytes, size);
  call->body_size = needed;
}

/* ---------------------------------------------------------------------------------------------- Envoy's side */

const char *envoy_dynamic_module_on_program_init(void) { return ENVOY_ABI_VERSION; }

const void *envoy_dynamic_module_on_http_filter_config_new(void *envoy, envoy_buffer name, envoy_buffer config) {
  (void)envoy, (void)name, (void)config;
  return &lock; /* anything but NULL: there is nothing to configure */
}

void envoy_dynamic_module_on_http_filter_config_destroy(const void *config) { (void)config; }

const void *envoy_dynamic_module_on_http_filter_per_route_config_new(envoy_buffer name, envoy_buffer config) {
  (void)name, (void)config;
  return &lock;
}

void envoy_dynamic_module_on_http_filter_per_route_config_destroy(const void *config) { (void)config; }

const void *envoy_dynamic_module_on_http_filter_new(const void *config, envoy_filter filter) {
  (void)config;
  call_t *call = calloc(1, sizeof *call);
  must(call);
  call->scheduler = envoy_dynamic_module_callback_http_filter_scheduler_new(filter);
  call->id = atomic_fetch_add(&next_id, 1) + 1;
  atomic_init(&call->owners, 1);
  return call;
}

enum { BODY_IS_LATE = 1, ANSWER_IS_READY = 2 }; /* what a stream is scheduled for */

int envoy_dynamic_module_on_http_filter_request_headers(envoy_filter filter, const void *module, bool end) {
  call_t *call = (call_t *)module;
  size_t count = envoy_dynamic_module_callback_http_get_headers_size(filter, ENVOY_REQUEST_HEADERS);
  envoy_header *headers = calloc(count + 1, sizeof *headers);
  must(headers);
  envoy_dynamic_module_callback_http_get_headers(filter, ENVOY_REQUEST_HEADERS, headers);
  keep_headers(call, headers, count);
  free(headers);
  if (end) {
    submit(filter, call);
  } else if (call->timeout.bytes != NULL) {
    /* Most bodies come with their headers: only if this one is not here when this thread has handled what it has
     * received, somebody must watch the deadline. */
    envoy_dynamic_module_callback_http_filter_scheduler_commit(call->scheduler, BODY_IS_LATE);
  }
  return ENVOY_HEADERS_STOP;
}

int envoy_dynamic_module_on_http_filter_request_body(envoy_filter filter, const void *module, bool end) {
  call_t *call = (call_t *)module;
  size_t count = envoy_dynamic_module_callback_http_get_body_chunks_size(filter, ENVOY_RECEIVED_BODY);
  if (count && !call->whole) {
    envoy_buffer *parts = calloc(count, sizeof *parts);
    must(parts);
    envoy_dynamic_module_callback_http_get_body_chunks(filter, ENVOY_RECEIVED_BODY, parts);
    for (size_t i = 0; i < count; i++) keep_body(call, parts[i]);
    free(parts);
  }
  bool too_large = announced(call) > body_limit || call->body_size > PREFIX_SIZE + body_limit;
  if ((end || too_large) && !call->whole && !atomic_load(&call->closed)) submit(filter, call);
  return ENVOY_BODY_STOP_WITHOUT_BUFFER;
}

int envoy_dynamic_module_on_http_filter_request_trailers(envoy_filter filter, const void *module) {
  call_t *call = (call_t *)module;
  if (!call->whole && !atomic_load(&call->closed)) submit(filter, call);
  return ENVOY_TRAILERS_STOP;
}

void envoy_dynamic_module_on_http_filter_scheduled(envoy_filter filter, const void *module, uint64_t event) {
  call_t *call = (call_t *)module;
  if (event == ANSWER_IS_READY) {
    if (call->answered) return;
    call->whole = call->answered = true;
    if (call->refused) {
      send_refusal(filter, call->answer, call->answer_size);
    } else {
      send_answer(filter, call);
    }
  } else if (!call->whole) {
    tell(call, COMING);
  }
}

void envoy_dynamic_module_on_http_filter_destroy(const void *module) {
  call_t *call = (call_t *)module;
  call->whole = true;
  if (call->told && !atomic_load(&call->closed)) tell(call, GONE);
  release(call);
}

/* Envoy wants all of an HTTP filter's functions, also those for what does not happen here. */

int envoy_dynamic_module_on_http_filter_response_headers(envoy_filter filter, const void *module, bool end) {
  (void)filter, (void)module, (void)end;
  return ENVOY_HEADERS_CONTINUE;
}

int envoy_dynamic_module_on_http_filter_response_body(envoy_filter filter, const void *module, bool end) {
  (void)filter, (void)module, (void)end;
  return ENVOY_BODY_CONTINUE;
}

int envoy_dynamic_module_on_http_filter_response_trailers(envoy_filter filter, const void *module) {
  (void)filter, (void)module;
  return ENVOY_TRAILERS_CONTINUE;
}

int envoy_dynamic_module_on_http_filter_local_reply(envoy_filter filter, const void *module, uint32_t code,
                                                    envoy_buffer details, bool reset) {
  (void)filter, (void)module, (void)code, (void)details, (void)reset;
  return ENVOY_LOCAL_REPLY_CONTINUE;
}

void envoy_dynamic_module_on_http_filter_stream_complete(envoy_filter filter, const void *module) {
  (void)filter, (void)module;
}

void envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(envoy_filter filter,
                                                                                      const void *module) {
  (void)filter, (void)module;
}

void envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(envoy_filter filter,
                                                                                     const void *module) {
  (void)filter, (void)module;
}

#define NEVER_CALLED(function) \
  void function(void) {}
NEVER_CALLED(envoy_dynamic_module_on_http_filter_http_callout_done)
NEVER_CALLED(envoy_dynamic_module_on_http_filter_http_stream_headers)
NEVER_CALLED(envoy_dynamic_module_on_http_filter_http_stream_data)
NEVER_CALLED(envoy_dynamic_module_on_http_filter_http_stream_trailers)
NEVER_CALLED(envoy_dynamic_module_on_http_filter_http_stream_complete)
NEVER_CALLED(envoy_dynamic_module_on_http_filter_http_stream_reset)
NEVER_CALLED(envoy_dynamic_module_on_http_filter_config_scheduled)
NEVER_CALLED(envoy_dynamic_module_on_http_filter_config_http_callout_done)
NEVER_CALLED(envoy_dynamic_module_on_http_filter_config_http_stream_headers)
NEVER_CALLED(envoy_dynamic_module_on_http_filter_config_http_stream_data)
NEVER_CALLED(envoy_dynamic_module_on_http_filter_config_http_stream_trailers)
NEVER_CALLED(envoy_dynamic_module_on_http_filter_config_http_stream_complete)
NEVER_CALLED(envoy_dynamic_module_on_http_filter_config_http_stream_reset)

/* --------------------------------------------------------------------------------------------- Python's side */

int crossing_version(void) { return CROSSING_VERSION; }

/* From now on calls are handed over. `limit`: the most bytes of a message. Answers the file descriptor that is readable
 * when there is something to take; -1 with errno if there can be none. */
int crossing_open(size_t limit) {
  pthread_mutex_lock(&lock);
  if (wake_fd < 0) wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  body_limit = limit;
  is_open = wake_fd >= 0;
  pthread_mutex_unlock(&lock);
  return wake_fd;
}

/* No call is handed over any more. Those that Python has can still be answered. */
void crossing_close(void) {
  pthread_mutex_lock(&lock);
  is_open = false;
  pthread_mutex_unlock(&lock);
}

/* All events since the last time, which are valid until the next. Answers how many. */
size_t crossing_take(const event_t **events) {
  uint64_t count;
  if (read(wake_fd, &count, sizeof count) < 0) count = 0; /* nobody has written: fine */
  for (size_t i = 0; i < taken.count; i++)
    if (taken.events[i].kind == GONE) release(taken.events[i].call);
  pthread_mutex_lock(&lock);
  list_t empty = taken;
  taken = waiting;
  waiting = (list_t){empty.events, 0, empty.room};
  woken = false;
  pthread_mutex_unlock(&lock);
  *events = taken.events;
  return taken.count;
}

static void finish(call_t *call) {
  atomic_store(&call->closed, true);
  envoy_dynamic_module_callback_http_filter_scheduler_commit(call->scheduler, ANSWER_IS_READY);
  release(call);
}

/* Answers a call with a message, and is through with it. */
void crossing_answer(call_t *call, const char *message, size_t size) {
  call->answer_size = PREFIX_SIZE + size;
  call->answer = malloc(call->answer_size);
  must(call->answer);
  const unsigned char prefix[PREFIX_SIZE] = {
      0, (unsigned char)(size >> 24), (unsigned char)(size >> 16), (unsigned char)(size >> 8), (unsigned char)size,
  };
  memcpy(call->answer, prefix, PREFIX_SIZE);
  memcpy(call->answer + PREFIX_SIZE, message, size);
  finish(call);
}

/* Answers a call with nothing but headers, packed, and is through with it. */
void crossing_refuse(call_t *call, const char *packed, size_t size) {
  call->refused = true;
  call->answer_size = size;
  call->answer = malloc(size + 1);
  must(call->answer);
  memcpy(call->answer, packed, size);
  finish(call);
}

/* Is through with a call without an answer: nobody waits for one. */
void crossing_drop(call_t *call) {
  atomic_store(&call->closed, true);
  release(call);
}
