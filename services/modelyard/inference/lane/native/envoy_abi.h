/* What this module uses of Envoy's interface for dynamic modules, version v0.1.0: HTTP filters.
 *
 * Envoy finds the `envoy_dynamic_module_on_...` functions in the module, and the module finds the
 * `envoy_dynamic_module_callback_...` functions in Envoy's executable. Names, argument types and numbers are Envoy's:
 * https://www.envoyproxy.io/docs/envoy/v1.39.0/intro/arch_overview/advanced/dynamic_modules
 */
#ifndef MODELYARD_ENVOY_ABI_H
#define MODELYARD_ENVOY_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENVOY_ABI_VERSION "v0.1.0"

/* Bytes that whoever passes them owns. */
typedef struct {
  const char *bytes;
  size_t size;
} envoy_buffer;

typedef struct {
  const char *name;
  size_t name_size;
  const char *value;
  size_t value_size;
} envoy_header;

typedef void *envoy_filter;    /* one stream, as Envoy knows it: to be used on the thread of its worker only */
typedef void *envoy_scheduler; /* has work done on a stream's thread; may be used on any thread */

enum { ENVOY_REQUEST_HEADERS = 0 }; /* which headers of a stream */
enum { ENVOY_RECEIVED_BODY = 0 };   /* which body: what has come of the request with this event */

/* What a filter answers to an event. */
enum { ENVOY_HEADERS_CONTINUE = 0, ENVOY_HEADERS_STOP = 1 };
enum { ENVOY_BODY_CONTINUE = 0, ENVOY_BODY_STOP_WITHOUT_BUFFER = 3 };
enum { ENVOY_TRAILERS_CONTINUE = 0, ENVOY_TRAILERS_STOP = 1 };
enum { ENVOY_LOCAL_REPLY_CONTINUE = 0 };

size_t envoy_dynamic_module_callback_http_get_headers_size(envoy_filter filter, int which);
bool envoy_dynamic_module_callback_http_get_headers(envoy_filter filter, int which, envoy_header *found);
size_t envoy_dynamic_module_callback_http_get_body_chunks_size(envoy_filter filter, int which);
bool envoy_dynamic_module_callback_http_get_body_chunks(envoy_filter filter, int which, envoy_buffer *found);

void envoy_dynamic_module_callback_http_send_response_headers(envoy_filter filter, envoy_header *headers, size_t count,
                                                              bool end_stream);
void envoy_dynamic_module_callback_http_send_response_data(envoy_filter filter, envoy_buffer data, bool end_stream);
void envoy_dynamic_module_callback_http_send_response_trailers(envoy_filter filter, envoy_header *trailers,
                                                               size_t count);

envoy_scheduler envoy_dynamic_module_callback_http_filter_scheduler_new(envoy_filter filter);
void envoy_dynamic_module_callback_http_filter_scheduler_commit(envoy_scheduler scheduler, uint64_t event);
void envoy_dynamic_module_callback_http_filter_scheduler_delete(envoy_scheduler scheduler);

#endif
