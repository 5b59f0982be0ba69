/* What this library uses of nghttp2, loaded when the server is made: names, types and numbers are nghttp2's.
 *
 * Declared here, so that the package builds where nghttp2's headers are not, and runs, on another lane, where the
 * library is not. Its interface has been kept compatible since 1.0: https://nghttp2.org/documentation/apiref.html
 */
#ifndef MODELYARD_NGHTTP2_ABI_H
#define MODELYARD_NGHTTP2_ABI_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NGHTTP2_LIBRARY "libnghttp2.so.14"

typedef struct nghttp2_session nghttp2_session;
typedef struct nghttp2_session_callbacks nghttp2_session_callbacks;
typedef struct nghttp2_option nghttp2_option;

typedef struct {
  uint8_t *name, *value;
  size_t namelen, valuelen;
  uint8_t flags;
} nghttp2_nv;

typedef struct {
  size_t length;
  int32_t stream_id;
  uint8_t type, flags, reserved;
} nghttp2_frame_hd;

typedef struct {
  int32_t stream_id, weight;
  uint8_t exclusive;
} nghttp2_priority_spec;

typedef struct {
  nghttp2_frame_hd hd;
  size_t padlen;
  nghttp2_priority_spec pri_spec;
  nghttp2_nv *nva;
  size_t nvlen;
  int cat;
} nghttp2_headers;

typedef union {
  nghttp2_frame_hd hd;
  nghttp2_headers headers;
} nghttp2_frame;

typedef union {
  int fd;
  void *ptr;
} nghttp2_data_source;

typedef ssize_t (*nghttp2_data_source_read_callback)(nghttp2_session *session, int32_t stream_id, uint8_t *buf,
                                                     size_t length, uint32_t *data_flags, nghttp2_data_source *source,
                                                     void *user_data);

typedef struct {
  nghttp2_data_source source;
  nghttp2_data_source_read_callback read_callback;
} nghttp2_data_provider;

typedef struct {
  int32_t settings_id;
  uint32_t value;
} nghttp2_settings_entry;

/* Frame types, and flags of frames. */
enum { NGHTTP2_DATA = 0, NGHTTP2_HEADERS = 1, NGHTTP2_RST_STREAM = 3, NGHTTP2_SETTINGS = 4, NGHTTP2_GOAWAY = 7 };
enum { NGHTTP2_FLAG_NONE = 0, NGHTTP2_FLAG_END_STREAM = 1, NGHTTP2_FLAG_ACK = 1 };
enum { NGHTTP2_HCAT_REQUEST = 0 };
enum {
  NGHTTP2_NV_FLAG_NONE = 0,
  NGHTTP2_NV_FLAG_NO_INDEX = 1,
  NGHTTP2_NV_FLAG_NO_COPY_NAME = 2,
  NGHTTP2_NV_FLAG_NO_COPY_VALUE = 4,
};
enum { NGHTTP2_DATA_FLAG_EOF = 1, NGHTTP2_DATA_FLAG_NO_END_STREAM = 2, NGHTTP2_DATA_FLAG_NO_COPY = 4 };
enum { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS = 3, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE = 4 };
enum { NGHTTP2_NO_ERROR = 0, NGHTTP2_INTERNAL_ERROR = 2, NGHTTP2_CANCEL = 8 };
enum {
  NGHTTP2_ERR_DEFERRED = -508,
  NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE = -521,
  NGHTTP2_ERR_FRAME_SIZE_ERROR = -522,
  NGHTTP2_ERR_PAUSE = -526,
};

/* F(result, name without nghttp2_, arguments) */
#define NGHTTP2_FUNCTIONS(F)                                                                                           \
  F(int, session_callbacks_new, (nghttp2_session_callbacks * *made))                                                   \
  F(void, session_callbacks_set_on_begin_headers_callback,                                                             \
    (nghttp2_session_callbacks *, int (*)(nghttp2_session *, const nghttp2_frame *, void *)))                          \
  F(void, session_callbacks_set_on_header_callback,                                                                    \
    (nghttp2_session_callbacks *, int (*)(nghttp2_session *, const nghttp2_frame *, const uint8_t *, size_t,           \
                                          const uint8_t *, size_t, uint8_t, void *)))                                  \
  F(void, session_callbacks_set_on_frame_recv_callback,                                                                \
    (nghttp2_session_callbacks *, int (*)(nghttp2_session *, const nghttp2_frame *, void *)))                          \
  F(void, session_callbacks_set_on_frame_send_callback,                                                                \
    (nghttp2_session_callbacks *, int (*)(nghttp2_session *, const nghttp2_frame *, void *)))                          \
  F(void, session_callbacks_set_on_frame_not_send_callback,                                                            \
    (nghttp2_session_callbacks *, int (*)(nghttp2_session *, const nghttp2_frame *, int error, void *)))               \
  F(void, session_callbacks_set_on_data_chunk_recv_callback,                                                           \
    (nghttp2_session_callbacks *, int (*)(nghttp2_session *, uint8_t, int32_t, const uint8_t *, size_t, void *)))      \
  F(void, session_callbacks_set_send_data_callback,                                                                    \
    (nghttp2_session_callbacks *, int (*)(nghttp2_session *, nghttp2_frame *, const uint8_t *head, size_t,             \
                                          nghttp2_data_source *, void *)))                                             \
  F(void, session_callbacks_set_on_stream_close_callback,                                                              \
    (nghttp2_session_callbacks *, int (*)(nghttp2_session *, int32_t, uint32_t, void *)))                              \
  F(void, session_callbacks_del, (nghttp2_session_callbacks *))                                                        \
  F(int, option_new, (nghttp2_option * *made))                                                                         \
  F(void, option_del, (nghttp2_option *))                                                                              \
  F(void, option_set_no_auto_window_update, (nghttp2_option *, int))                                                   \
  F(void, option_set_no_closed_streams, (nghttp2_option *, int))                                                       \
  F(void, option_set_max_deflate_dynamic_table_size, (nghttp2_option *, size_t))                                       \
  F(int, session_server_new2,                                                                                          \
    (nghttp2_session * *made, const nghttp2_session_callbacks *, void *user_data, const nghttp2_option *))             \
  F(int, session_client_new2,                                                                                          \
    (nghttp2_session * *made, const nghttp2_session_callbacks *, void *user_data, const nghttp2_option *))             \
  F(void, session_del, (nghttp2_session *))                                                                            \
  F(ssize_t, session_mem_recv, (nghttp2_session *, const uint8_t *, size_t))                                           \
  F(ssize_t, session_mem_send, (nghttp2_session *, const uint8_t **))                                                  \
  F(size_t, session_get_outbound_queue_size, (nghttp2_session *))                                                      \
  F(int, session_want_read, (nghttp2_session *))                                                                       \
  F(int, session_want_write, (nghttp2_session *))                                                                      \
  F(void *, session_get_stream_user_data, (nghttp2_session *, int32_t stream_id))                                      \
  F(int, session_set_stream_user_data, (nghttp2_session *, int32_t stream_id, void *))                                 \
  F(int, session_set_local_window_size, (nghttp2_session *, uint8_t flags, int32_t stream_id, int32_t size))           \
  F(int, session_consume_connection, (nghttp2_session *, size_t))                                                      \
  F(int, session_consume_stream, (nghttp2_session *, int32_t stream_id, size_t))                                       \
  F(int, session_resume_data, (nghttp2_session *, int32_t stream_id))                                                  \
  F(int32_t, session_get_last_proc_stream_id, (nghttp2_session *))                                                     \
  F(int, submit_settings, (nghttp2_session *, uint8_t flags, const nghttp2_settings_entry *, size_t))                  \
  F(int32_t, submit_request,                                                                                           \
    (nghttp2_session *, const nghttp2_priority_spec *, const nghttp2_nv *, size_t, const nghttp2_data_provider *,      \
     void *stream_user_data))                                                                                          \
  F(int, submit_response,                                                                                              \
    (nghttp2_session *, int32_t stream_id, const nghttp2_nv *, size_t, const nghttp2_data_provider *))                 \
  F(int, submit_trailer, (nghttp2_session *, int32_t stream_id, const nghttp2_nv *, size_t))                           \
  F(int, submit_rst_stream, (nghttp2_session *, uint8_t flags, int32_t stream_id, uint32_t code))                      \
  F(int, submit_ping, (nghttp2_session *, uint8_t flags, const uint8_t *data))                                         \
  F(int, submit_goaway,                                                                                                \
    (nghttp2_session *, uint8_t flags, int32_t last_stream_id, uint32_t code, const uint8_t *data, size_t))            \
  F(int, submit_shutdown_notice, (nghttp2_session *))

/* Where the library has it: since 1.57, and in distributions' older ones that were mended. */
typedef void (*nghttp2_option_set_stream_reset_rate_limit)(nghttp2_option *, uint64_t burst, uint64_t per_second);

#endif
