/* What there is: the server, its connections, their streams, and the limits of all of them. */
#ifndef MODELYARD_HTTP2_STATE_H
#define MODELYARD_HTTP2_STATE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "arrival.h"
#include "buffers.h"
#include "nghttp2_abi.h"

enum { ANSWERS_MOST_HEADERS = 16 };
enum { READ_SIZE = 256 * 1024 };
enum { READS_PER_TURN = 4 }; /* of one connection: the others have their turn too */
enum { WRITE_SIZE = 256 * 1024 };
enum { LEAST_PART = 4 * 1024, MOST_PARTS = WRITE_SIZE / LEAST_PART }; /* of bodies, written from where they lie */
enum { EVENTS_PER_TURN = 256 };
enum { MOST_LISTENERS = 64 };
enum { MOST_TOGETHER = 64, MOST_JOINABLE = 4 };
/* A tensor of some MB should not wait for window updates; 1,000 such streams should not fill the memory either. */
enum { STREAM_WINDOW = 4 << 20, CONNECTION_WINDOW = 32 << 20 };
enum { MOST_STREAMS = 10 * 1000 }; /* of one connection at a time */
enum { MOST_WAITING_FRAMES = 4 * MOST_STREAMS }; /* but data, to a peer that does not read */
/* Of headers. Compressed, some kB can stand for hundreds of MB, which nghttp2 would hand over. */
enum { MOST_HEADERS_SIZE = 128 * 1024 };
/* Of bodies at a door, so that they can be sent again. When there is more, one that grows above the second is sent just
 * once. */
enum { MOST_KEPT = 256 << 20, ALWAYS_KEPT = 64 << 10 };
enum { FRAME_HEAD_SIZE = 9, PREFACE_SIZE = 24 }; /* HTTP/2's: RFC 9113, 4.1 and 3.4 */

static struct {
#define DECLARE(result, name, arguments) result(*name) arguments;
  NGHTTP2_FUNCTIONS(DECLARE)
#undef DECLARE
} nghttp2;

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

/* A part of a body that is to be sent behind so many bytes of `unsent`. */
typedef struct {
  size_t behind;
  const char *bytes;
  size_t size;
} part_t;

/* What is gathered for one connection beside its `unsent`, see outgoing.h; empty when nothing is being written. */
typedef struct {
  part_t parts[MOST_PARTS];
  size_t count, size;
  bool copies; /* everything is put into `unsent` */
  buffer_t spent; /* of buffers that are to be freed behind the writing: parts may lie in them */
} outgoing_t;

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
  size_t kept_size, most_kept; /* of all bodies that are kept */
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
  outgoing_t outgoing;
  nghttp2_nv *unpacked; /* headers on their way to nghttp2 */
  size_t unpacked_room;
  uint8_t in[READ_SIZE];
};

#endif
