/* Vectors as wide as the compiler's target has them, bfloat16, and the threads of torch.
 *
 * Plain C with the vector types of gcc and clang, so that one text serves every processor. */
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

/* The OpenMP that torch has loaded, by the names that both common ones export: a second one beside it would fight it
 * for the cores. Weak, so that the kernel works, on one thread, where there is none. */
extern void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned) __attribute__((weak));
extern int omp_get_thread_num(void) __attribute__((weak));
extern int omp_get_num_threads(void) __attribute__((weak));

static inline int has_threads(void) { return GOMP_parallel && omp_get_thread_num && omp_get_num_threads; }

/* Work on items [begin, end), in parts that may run at once, each by a thread of its own. */
typedef void (*work)(const void *data, int thread, long begin, long end);
struct shares {
  work part;
  const void *data;
  long count;
};

static inline void take_share(void *data) {
  const struct shares *s = data;
  const int id = omp_get_thread_num(), threads = omp_get_num_threads();
  s->part(s->data, id, s->count * id / threads, s->count * (id + 1) / threads);
}

static inline void share_out(work part, const void *data, long count, int threads) {
  struct shares shares = {part, data, count};
  if (threads > 1 && has_threads())
    GOMP_parallel(take_share, &shares, threads, 0);
  else
    part(data, 0, 0, count);
}

/* A bfloat16 is the upper half of a float32. */
static inline float widen_one(uint16_t half) {
  uint32_t word = (uint32_t)half << 16;
  float value;
  memcpy(&value, &word, sizeof value);
  return value;
}

/* To the nearest, to even between two; what is no number stays none. */
static inline uint16_t round_one(float value) {
  uint32_t word;
  memcpy(&word, &value, sizeof word);
  return value != value ? 0x7fc0 : (word + 0x7fff + (word >> 16 & 1)) >> 16;
}

static inline floats widen(const uint16_t *from) {
  halves half;
  memcpy(&half, from, sizeof half);
  return (floats)(__builtin_convertvector(half, words) << 16);
}

static inline floats load(const float *from) {
  floats value;
  memcpy(&value, from, sizeof value);
  return value;
}

static inline float total(floats value) {
  float part[LANES];
  memcpy(part, &value, sizeof part);
  for (int n = LANES / 2; n; n /= 2)
    for (int i = 0; i < n; i++) part[i] += part[i + n];
  return part[0];
}
