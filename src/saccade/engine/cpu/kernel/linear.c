/* y = x W' + bias for a few rows of x and a bfloat16 W; x and y are float32, or bfloat16 where the processor can
 * multiply pairs of bfloat16 and sum them in float32.
 *
 * Every weight is read from memory once, for all rows: decoding is as fast as memory gives the weights. */
#include "lanes.h"

/* Rows of W in flight: so many sums hide the latency of one multiply-add, and with rows of x must be registers. */
#define STREAMS 4
#if defined(__AVX512F__) || defined(__aarch64__)
#define STREAMS_OF_MANY 4
#else
#define STREAMS_OF_MANY 2
#endif
#define ROW_TILE 4 /* rows of x that share a weight while it is in a register */
/* The same for bfloat16 x: a weight is not widened, so more rows keep up with the memory. */
#define ROW_TILE_OF_PAIRS 8
#define STREAMS_OF_MANY_PAIRS 2
#define CHUNK 2048 /* columns that stay in the first-level cache while further rows of x pass */

struct call {
  const void *x;          /* [rows, in] */
  const uint16_t *weight; /* [out, in], with `stride` between its rows */
  const uint16_t *bias;   /* [out], or null */
  float *sums;            /* [rows, out], the result where x is float32 */
  uint16_t *rounded;      /* [rows, out], the result where x is bfloat16 */
  long rows, in, out, stride;
  int pairs; /* whether x is bfloat16 */
};

static inline float value_of(const struct call *c, long at) {
  return c->pairs ? widen_one(((const uint16_t *)c->x)[at]) : ((const float *)c->x)[at];
}

/* Columns [from, to) of `xs` rows of x with `ws` rows of W, the latter `gap` apart. Inlined with constant xs and ws, so
 * that all sums are registers. */
static inline __attribute__((always_inline)) void tile(const struct call *c, long row, int xs, long first, int ws,
                                                       long gap, long from, long to) {
  const uint16_t *w = c->weight + first * c->stride;
  const long apart = gap * c->stride;
  floats sum[ROW_TILE_OF_PAIRS][STREAMS];
  for (int i = 0; i < xs; i++)
    for (int j = 0; j < ws; j++) sum[i][j] = (floats){0};
  long k = from;
#if defined(__AVX512BF16__)
  if (c->pairs) {
    const uint16_t *x = (const uint16_t *)c->x + row * c->in;
    for (; k + 2 * LANES <= to; k += 2 * LANES) {
      __m512bh weight[STREAMS];
      for (int j = 0; j < ws; j++) weight[j] = (__m512bh)_mm512_loadu_si512(w + j * apart + k);
      for (int i = 0; i < xs; i++) {
        __m512bh pairs = (__m512bh)_mm512_loadu_si512(x + i * c->in + k);
        for (int j = 0; j < ws; j++) sum[i][j] = (floats)_mm512_dpbf16_ps((__m512)sum[i][j], pairs, weight[j]);
      }
    }
  }
#endif
  const float *x = (const float *)c->x + row * c->in;
  for (; xs <= ROW_TILE && !c->pairs && k + LANES <= to; k += LANES) {
    floats weight[STREAMS];
    for (int j = 0; j < ws; j++) weight[j] = widen(w + j * apart + k);
    for (int i = 0; i < xs; i++) {
      floats value = load(x + i * c->in + k);
      for (int j = 0; j < ws; j++) sum[i][j] += value * weight[j];
    }
  }
  for (int i = 0; i < xs; i++)
    for (int j = 0; j < ws; j++) {
      float *y = c->sums + (row + i) * c->out + first + j * gap;
      float s = total(sum[i][j]) + (from ? *y : 0);
      for (long rest = k; rest < to; rest++)
        s += value_of(c, (row + i) * c->in + rest) * widen_one(w[j * apart + rest]);
      *y = s;
    }
}

static inline __attribute__((always_inline)) void weights(const struct call *c, long first, int ws, long gap) {
  const long most = c->pairs ? ROW_TILE_OF_PAIRS : ROW_TILE;
  const long chunk = c->rows > most ? CHUNK : c->in;
  for (long from = 0; from < c->in; from += chunk) {
    const long to = from + chunk < c->in ? from + chunk : c->in;
    for (long row = 0; row < c->rows; row += most) {
      const long left = c->rows - row;
      switch (left < most ? left : most) {
        case 1: tile(c, row, 1, first, ws, gap, from, to); break;
        case 2: tile(c, row, 2, first, ws, gap, from, to); break;
        case 3: tile(c, row, 3, first, ws, gap, from, to); break;
        case 4: tile(c, row, 4, first, ws, gap, from, to); break;
#if defined(__AVX512BF16__)
        case 5: tile(c, row, 5, first, ws, gap, from, to); break;
        case 6: tile(c, row, 6, first, ws, gap, from, to); break;
        case 7: tile(c, row, 7, first, ws, gap, from, to); break;
        case 8: tile(c, row, 8, first, ws, gap, from, to); break;
#endif
      }
    }
  }
}

/* Rows [begin, end) of W, read as `ws` long streams rather than as neighboring rows: the processor fetches ahead only
 * along a stream that goes on. */
static inline __attribute__((always_inline)) void streams(const struct call *c, int ws, long begin, long end) {
  const long length = (end - begin) / ws;
  for (long i = 0; i < length; i++) weights(c, begin + i, ws, length);
  for (long last = begin + length * ws; last < end; last++) weights(c, last, 1, 1);
}

/* Bias and rounding of columns [begin, end) of y, whose sums are still in the cache. */
static void finish(const struct call *c, long begin, long end) {
  for (long row = 0; row < c->rows; row++) {
    float *sums = c->sums + row * c->out;
    if (c->bias)
      for (long k = begin; k < end; k++) sums[k] += widen_one(c->bias[k]);
    if (c->pairs)
      for (long k = begin; k < end; k++) c->rounded[row * c->out + k] = round_one(sums[k]);
  }
}

static void span(const void *data, int thread, long begin, long end) {
  (void)thread;
  const struct call *c = data;
  if (c->rows <= (c->pairs ? ROW_TILE : 2))
    streams(c, STREAMS, begin, end);
  else if (c->pairs)
    streams(c, STREAMS_OF_MANY_PAIRS, begin, end);
  else
    streams(c, STREAMS_OF_MANY, begin, end);
  finish(c, begin, end);
}

/* `rounded` is given where x is bfloat16, only where `multiplies_pairs`; `sums` then is working memory. */
void linear(const void *x, const uint16_t *weight, const uint16_t *bias, float *sums, uint16_t *rounded, long rows,
            long in, long out, long stride, int threads) {
  struct call c = {x, weight, bias, sums, rounded, rows, in, out, stride, rounded != 0};
  share_out(span, &c, out, threads);
}

int multiplies_pairs(void) {
#if defined(__AVX512BF16__)
  return 1;
#else
  return 0;
#endif
}

int is_parallel(void) { return has_threads(); }
