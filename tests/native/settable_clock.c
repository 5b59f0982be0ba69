/* A wall clock that another process can set, for programs that are started with this library preloaded.
 *
 * SETTABLE_CLOCK_FILE names a file of eight bytes: by how many seconds (int64, this machine's byte order) the clock is ahead. It is
 * mapped, so a change is seen at the next look at the clock. The monotonic clock stays, as when somebody sets a machine's clock.
 * Waits that are given as a point in wall-clock time are translated back, as the kernel knows only the true one.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t zero;
static const volatile int64_t *ahead = &zero;

__attribute__((constructor)) static void open_clock(void) {
  const char *path = getenv("SETTABLE_CLOCK_FILE");
  int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0)
      return;
  void *page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  if (page != MAP_FAILED)
      ahead = page;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (real == NULL)
      real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int answer = real == NULL ? (int)syscall(SYS_clock_gettime, clock, now) : real(clock, now);
  if (answer == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
      now->tv_sec += *ahead;
  return answer;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec exact;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &exact) != 0)
      return -1;
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *where) {
  struct timespec exact;
  if (clock_gettime(CLOCK_REALTIME, &exact) != 0)
      return (time_t)-1;
  if (where != NULL)
      *where = exact.tv_sec;
  return exact.tv_sec;
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
  static int (*real)(sem_t *, const struct timespec *);
  if (real == NULL)
      real = (int (*)(sem_t *, const struct timespec *))dlsym(RTLD_NEXT, "sem_timedwait");
  struct timespec true_time = *until;
  true_time.tv_sec -= *ahead;
  return real(semaphore, &true_time);
}
